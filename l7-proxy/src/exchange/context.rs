//! What the phases of a request share.

use std::rc::Rc;

use super::account::Account;
use super::client::Client;
use super::generation::Generation;
use crate::http::{Running, Upload};

/// Everything about a request that isn't its head or body.
pub(super) struct Context {
    pub(super) client: Rc<Client>,
    /// What it is served by to its end.
    pub(super) generation: Rc<Generation>,
    pub(super) account: Box<Account>,
    pub(super) running: Running,
    pub(super) upload: Rc<Upload>,
}
