//! The observer as a process: what it starts, and what it does when it leaves.

use std::future::pending;

use actix::{Actor, Addr};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use shared::bus::{Bus, unix_ms};
use shared::config::Loaded;
use shared::lifecycle::{Service, Start, StartError, listen};
use shared::reload::{Follow, Step};

use crate::actors::{Observer, Reload, TakeBack, View};
use crate::config::Config;
use crate::observation::Observation;
use crate::status::ObserverAdmin;

/// Observes until asked to terminate. To be called within an actix system.
///
/// # Errors
/// If something it needs at the start is not to be had.
pub async fn run(loaded: Loaded<Config>) -> Result<(), StartError> {
    let config = loaded.config.clone();
    let start = Start::new(loaded, &config.log, &[])?;
    let listener = listen(config.admin.listen)?;
    let reloader = start.reloader.clone();

    let node = config.node.id.clone();
    let bus = Bus::start(&config.bus, &node);
    let view = View::new(Observation::new(&node, config.services.clone(), unix_ms()));
    let observer = Observer::new(&node, view.clone(), bus.clone(), config.max_probes).start();
    reloader.followed_by(Following(observer.clone()));
    let admin = ObserverAdmin::new(&node, view, bus.clone(), reloader);
    let serving = start.serve(listener, admin, bus, pending())?;
    tracing::info!(node, admin = %config.admin.listen, "observing");
    serving.until_left(&Observing(observer), pending()).await;
    Ok(())
}

/// The observer, as the process's signals ask it.
struct Observing(Addr<Observer>);

impl Service for Observing {
    async fn drain(&self, _: bool) {
        tracing::info!("an observer carries no traffic: there is nothing to drain");
    }

    async fn take_leave(&self, _: &str) {
        let _ = self.0.send(TakeBack).await;
    }
}

/// The observer, as it goes on by another configuration.
struct Following(Addr<Observer>);

impl Follow<Config> for Following {
    fn follow(&self, step: Step<Config>) -> BoxFuture<'static, Result<(), String>> {
        let sent = self.0.send(Reload(step.after));
        async move { sent.await.map_err(|_| "the observer is leaving".to_owned()) }.boxed()
    }

    /// An observer carries no traffic.
    fn would_end(&self, _: Step<Config>) -> BoxFuture<'static, Vec<String>> {
        ready(Vec::new()).boxed()
    }
}
