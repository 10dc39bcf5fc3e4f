//! The proxy as a process: everything started in order, and ended in the opposite one.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use shared::admin;
use shared::bus::Bus;
use shared::lifecycle::{Request, Signals, reload_not_offered};
use shared::telemetry;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::accept::{self, BindError, Listeners};
use crate::access_log::AccessLog;
use crate::actors::{Drain, Exit, Supervisor, Withdraw};
use crate::config::{Config, Protocol};
use crate::drain::Course;
use crate::snapshot::Snapshot;
use crate::status::L7Admin;
use crate::tls::{CertificateError, Identity};

/// Time for the last changes to reach the bus, and for the last lines to reach the access log.
const FLUSH_TIME: Duration = Duration::from_secs(2);

/// What keeps the proxy from starting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificates or keys that can't be used; all of them, a line each.
    #[error("{}", lines(.0))]
    Certificates(Vec<CertificateError>),
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// An address can't be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin listener can't be opened.
    #[error("cannot listen on {0} (admin.listen): {1}")]
    AdminListener(std::net::SocketAddr, std::io::Error),
    /// The access log can't be opened.
    #[error(transparent)]
    Log(#[from] crate::error::Error),
    /// Metrics can't be recorded.
    #[error("metrics: {0}")]
    Metrics(String),
    /// Signals can't be taken over.
    #[error("signals: {0}")]
    Signals(std::io::Error),
}

fn lines(errors: &[CertificateError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The certificates of a configuration; `None` when no listener wants any.
///
/// # Errors
/// Everything that is wrong with them.
pub fn identity(config: &Config) -> Result<Option<Identity>, StartError> {
    if config
        .listeners
        .iter()
        .all(|listener| listener.protocol == Protocol::Http)
        && config.certificates.is_empty()
    {
        return Ok(None);
    }
    Identity::load(&config.certificates)
        .map(Some)
        .map_err(StartError::Certificates)
}

/// Serves until asked to terminate, and then until the drain is done. To be called within an actix system.
///
/// # Errors
/// If something it needs at the start is not to be had.
pub async fn run(config: Config) -> Result<(), StartError> {
    telemetry::init_logs(&config.log);
    let metrics =
        telemetry::init_metrics().map_err(|error| StartError::Metrics(error.to_string()))?;
    crate::metrics::describe();
    let mut signals = Signals::new().map_err(StartError::Signals)?;
    let identity = identity(&config)?;
    let listeners = Listeners::bind(&config.listeners, config.workers)?;
    let admin_at = config.admin.listen;
    let admin_listener = TcpListener::bind(admin_at)
        .await
        .map_err(|error| StartError::AdminListener(admin_at, error))?;
    let (log, writer) = match &config.access_log {
        Some(settings) => {
            let (log, writer) = AccessLog::open(settings)?;
            (Some(log), Some(writer))
        }
        None => (None, None),
    };

    let bus = Bus::start(&config.bus, &config.node.id);
    let node = config.node.id.clone();
    let snapshot = Arc::new(Snapshot::new(config, None));
    let addresses = listeners.addresses();
    let (course, course_seen) = watch::channel(Course::SERVING);
    let workers = accept::start(
        listeners,
        &snapshot,
        identity.as_ref(),
        log.as_ref(),
        &course_seen,
    )?;

    let (finished, mut done) = oneshot::channel();
    let supervisor = Supervisor::new(
        snapshot.clone(),
        bus.clone(),
        workers.open(),
        course,
        finished,
    );
    let reasons = supervisor.reasons();
    let supervisor = supervisor.start();
    let (stop_admin, admin_stopped) = oneshot::channel::<()>();
    let answers = L7Admin {
        snapshot,
        supervisor: supervisor.clone(),
        course: course_seen,
        open: workers.open(),
        addresses: addresses.clone(),
        reasons,
        bus: bus.clone(),
        log,
    };
    let answering = actix_rt::spawn(admin::serve(
        admin_listener,
        metrics,
        Arc::new(answers),
        async move {
            let _ = admin_stopped.await;
        },
    ));
    tracing::info!(node, ?addresses, admin = %admin_at, "serving");

    loop {
        let again = signals.is_terminating();
        tokio::select! {
            _ = &mut done => break,
            request = signals.next() => match request {
                Request::Drain => ask(&supervisor, true).await,
                Request::Undrain => ask(&supervisor, false).await,
                Request::Reload => reload_not_offered(),
                Request::Terminate if again => break,
                Request::Terminate => supervisor.do_send(Exit),
            },
        }
    }

    // The second wish to terminate ends this wait, too.
    tokio::select! {
        () = take_back(&supervisor, &bus) => {}
        () = signals.terminate() => {}
    }
    let _ = stop_admin.send(());
    let _ = answering.await;
    workers.stop();
    if let Some(writer) = writer
        && !writer.finish(FLUSH_TIME)
    {
        tracing::warn!("the access log did not take its last lines within {FLUSH_TIME:?}");
    }
    Ok(())
}

async fn ask(supervisor: &Addr<Supervisor>, drain: bool) {
    match supervisor.send(Drain(drain)).await {
        Ok(Ok(state)) => tracing::info!(state, "asked by signal"),
        Ok(Err(why)) => tracing::warn!(why, "refused what a signal asked"),
        Err(error) => tracing::error!(%error, "the supervisor does not answer"),
    }
}

/// Other nodes hear that this one is gone before it is.
async fn take_back(supervisor: &Addr<Supervisor>, bus: &Bus) {
    let _ = supervisor.send(Withdraw).await;
    if !bus.flush(FLUSH_TIME).await {
        tracing::warn!("the bus did not take the last changes within {FLUSH_TIME:?}");
    }
}
