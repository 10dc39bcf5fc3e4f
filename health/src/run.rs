//! The observer as a process: everything started in order, and ended in the opposite one.

use std::sync::Arc;
use std::time::Duration;

use actix::Actor;
use shared::admin;
use shared::bus::{Bus, unix_ms};
use shared::lifecycle::{Request, Signals, reload_not_offered};
use shared::telemetry;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::actors::{Observer, TakeBack, View};
use crate::config::Config;
use crate::error::Error;
use crate::observation::Observation;
use crate::status::ObserverAdmin;

/// Time for the last changes to reach the bus.
const FLUSH_TIME: Duration = Duration::from_secs(2);

/// Observes until asked to terminate. To be called within an actix system.
///
/// # Errors
/// If something it needs at the start is not to be had.
pub async fn run(config: Config) -> Result<(), Error> {
    telemetry::init_logs(&config.log);
    let metrics = telemetry::init_metrics().map_err(|error| Error::Metrics(error.to_string()))?;
    let mut signals = Signals::new().map_err(Error::Signals)?;
    let listen = config.admin.listen;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| Error::Listen(listen, error))?;

    let node = config.node.id;
    let bus = Bus::start(&config.bus, &node);
    let view = View::new(Observation::new(&node, config.services, unix_ms()));
    let observer = Observer::new(&node, view.clone(), bus.clone(), config.max_probes).start();
    let (stop, stopped) = oneshot::channel::<()>();
    let answering = actix_rt::spawn(admin::serve(
        listener,
        metrics,
        Arc::new(ObserverAdmin::new(&node, view, bus.clone())),
        async move {
            let _ = stopped.await;
        },
    ));
    tracing::info!(node, admin = %listen, "observing");

    loop {
        match signals.next().await {
            Request::Terminate => break,
            Request::Reload => reload_not_offered(),
            Request::Drain | Request::Undrain => {
                tracing::info!("an observer carries no traffic: there is nothing to drain");
            }
        }
    }
    tokio::select! {
        () = wind_down(&observer, &bus) => {}
        () = signals.terminate() => {}
    }
    let _ = stop.send(());
    let _ = answering.await;
    Ok(())
}

async fn wind_down(observer: &actix::Addr<Observer>, bus: &Bus) {
    let _ = observer.send(TakeBack).await;
    if !bus.flush(FLUSH_TIME).await {
        tracing::warn!("the bus did not take the last changes within {FLUSH_TIME:?}");
    }
}
