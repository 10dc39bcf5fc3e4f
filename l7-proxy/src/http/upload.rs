//! How far a request's body has come, for those that wait for it or count it.

use std::cell::Cell;
use std::rc::Rc;

use tokio::time::Instant;

use crate::observe::reason::Reason;

/// Where a request body stands; shared with the request that waits for the response.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) bytes: Cell<u64>,
    /// When something last moved; the wait for a response head counts from here.
    pub(crate) moved: Cell<Instant>,
    /// Why reading from the client failed, if it did.
    pub(crate) failed: Cell<Option<Reason>>,
}

impl Upload {
    pub(crate) fn new(now: Instant) -> Rc<Upload> {
        Rc::new(Upload {
            bytes: Cell::new(0),
            moved: Cell::new(now),
            failed: Cell::new(None),
        })
    }
}
