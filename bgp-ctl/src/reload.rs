//! A new configuration for the running process.

use actix::Addr;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use shared::reload::{Follow, Step};

use crate::actors::route_control::{Reconfigure, RouteControl};
use crate::change;
use crate::config::{BgpSection, Config};
use crate::status::StatusBoard;

/// Routing control, as it goes on by another configuration.
pub(crate) struct Following {
    pub(crate) control: Addr<RouteControl>,
    pub(crate) status: StatusBoard,
}

impl Follow<Config> for Following {
    fn follow(&self, step: Step<Config>) -> BoxFuture<'static, Result<(), String>> {
        let sent = self.control.send(Reconfigure(step.after.bgp.clone()));
        async move { sent.await.map_err(|_| "the process is leaving".to_owned()) }.boxed()
    }

    fn would_end(&self, step: Step<Config>) -> BoxFuture<'static, Vec<String>> {
        ready(would_end(&step.before.bgp, &step.after.bgp, &self.status)).boxed()
    }
}

/// Which sessions and announcements would end between two sections, and why; a line each.
pub fn would_end(before: &BgpSection, after: &BgpSection, status: &StatusBoard) -> Vec<String> {
    change::ends(before, after, &status.read())
}
