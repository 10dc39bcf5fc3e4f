//! The life of a process, the same in every tier: start, serve, leave.
//!
//! ```text
//!  run ─▶ Start::new ─▶ listen ─▶ the tier's own ─▶ Start::serve ─▶ Serving::until_left ─▶ exit status
//!         logs, metrics, admin     bus, actors,      admin answers   ready; signals; finish; take leave
//!         signals        listener  data plane
//! ```
//!
//! What a tier does when it is asked to drain or to leave is its [`Service`]. Signals are taken over first, so that one which comes while the process
//! starts does not leave half of it behind; the admin listener is opened before anything that others see, as it is what a second process of the same
//! configuration fails at.

pub mod holder;
mod service_manager;
mod signals;

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::admin::{self, Admin};
use crate::build;
use crate::bus::{Bus, Life};
use crate::config::sections::LogSection;
use crate::config::{Configuration, Loaded};
use crate::reload::Reloader;
use crate::telemetry::{self, Meaning, MetricsHandle};

use service_manager::tell_ready;

pub use service_manager::tell_successor;
pub use signals::{Request, Signals};

/// How long the last records may take to reach the bus's servers.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs a process on a runtime of its own until it has left. Returns the exit status; an error is printed to standard error regardless of the log
/// settings.
pub fn run<E: Display>(process: impl Future<Output = Result<(), E>>) -> ExitCode {
    match actix::System::new().block_on(process) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _closed = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// What keeps a process of any tier from starting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Metrics are recorded by somebody else in this process.
    #[error("cannot record metrics: {0}")]
    Metrics(String),
    /// Signals can't be taken over.
    #[error("cannot take over signals: {0}")]
    Signals(io::Error),
    /// The admin listener can't be opened.
    #[error("cannot listen on {0} (admin.listen): {1}")]
    Admin(SocketAddr, io::Error),
    /// The runtime doesn't take the admin listener.
    #[error("cannot accept on the admin listener: {0}")]
    Listener(io::Error),
}

/// A process that starts: it logs and counts, and signals wait until it serves.
pub struct Start<C> {
    /// Refuses reloads until it is followed.
    pub reloader: Reloader<C>,
    metrics: MetricsHandle,
    signals: Signals,
}

impl<C: Configuration> Start<C> {
    /// Begins by `loaded`, of which `log` is a part; `meanings` are those of the tier's own metrics. To be called within the runtime, once.
    ///
    /// # Errors
    /// If metrics or signals are somebody else's.
    pub fn new(
        loaded: Loaded<C>,
        log: &LogSection,
        meanings: &[Meaning],
    ) -> Result<Self, StartError> {
        telemetry::init_logs(log);
        loaded.log_warnings();
        let metrics =
            telemetry::init_metrics().map_err(|error| StartError::Metrics(error.to_string()))?;
        telemetry::describe_process(C::TIER, build::RELEASE);
        telemetry::describe(meanings);
        Ok(Self {
            signals: Signals::new().map_err(StartError::Signals)?,
            reloader: Reloader::new(loaded),
            metrics,
        })
    }

    /// Answers on the admin listener from now on, until the process has left or `moved` completes.
    ///
    /// # Errors
    /// If the runtime can't take the listener.
    pub fn serve(
        self,
        listener: TcpListener,
        admin: impl Admin,
        bus: Bus,
        moved: impl Future<Output = ()> + 'static,
    ) -> Result<Serving<C>, StartError> {
        let listener = asynchronous(listener).map_err(StartError::Listener)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let until = async move {
            tokio::select! {
                _ = stopped => {}
                () = moved => {}
            }
        };
        let answering = admin::serve(listener, self.metrics, Arc::new(admin), until);
        Ok(Serving {
            reloader: self.reloader,
            bus,
            signals: self.signals,
            stop,
            answering: actix::spawn(answering),
        })
    }
}

fn asynchronous(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// Opens the admin listener; nothing answers there yet.
///
/// # Errors
/// If the address is taken, and by whom, or not this host's.
pub fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let blamed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => holder::find(address).blamed_for(&error),
        _ => error,
    };
    TcpListener::bind(address).map_err(|error| StartError::Admin(address, blamed(error)))
}

/// What a tier does when its process is asked to drain or leaves.
pub trait Service {
    /// A signal asks for a drain, or for its end.
    fn drain(&self, wanted: bool) -> impl Future<Output = ()>;

    /// The process was asked to terminate: ends when there is nothing left that it has to stay for. A second wish breaks it off.
    fn finish(&self) -> impl Future<Output = ()> {
        std::future::ready(())
    }

    /// Takes back what peers and other nodes were told, for they are to hear that the process is gone before it is. `why` is for people.
    fn take_leave(&self, why: &str) -> impl Future<Output = ()>;
}

/// A process that serves.
pub struct Serving<C> {
    reloader: Reloader<C>,
    bus: Bus,
    signals: Signals,
    stop: oneshot::Sender<()>,
    answering: JoinHandle<()>,
}

impl<C: Configuration> Serving<C> {
    /// Tells systemd that the process is ready and does what signals ask for, until it is asked to terminate and `service` has finished, or until `ended`
    /// says why the process can't stay. Then takes leave. Whoever asks to terminate a second time, or while it takes leave, waits for neither.
    pub async fn until_left(self, service: &impl Service, ended: impl Future<Output = String>) {
        let Self {
            reloader,
            bus,
            mut signals,
            stop,
            answering,
        } = self;
        // The service manager hears of a process that takes over from the one that started it.
        if Life::of_process().succeeds.is_none() {
            tell_ready();
        }
        let asked = async {
            follow(&mut signals, &reloader, service).await;
            tokio::select! {
                biased;
                () = service.finish() => {}
                () = follow(&mut signals, &reloader, service) => {}
            }
            "shutting down".to_owned()
        };
        let ended = pin!(ended);
        let why = tokio::select! {
            why = asked => why,
            why = ended => why,
        };
        reloader.close().await;
        let farewell = async {
            service.take_leave(&why).await;
            if !bus.flush(FAREWELL).await {
                tracing::warn!("the bus did not take the last records within {FAREWELL:?}");
            }
        };
        tokio::select! {
            () = farewell => {}
            () = signals.terminate_while_leaving() => {}
        }
        let _ = stop.send(());
        let _ = answering.await;
    }
}

/// Does what signals ask for until one asks to terminate.
async fn follow<C: Configuration>(
    signals: &mut Signals,
    reloader: &Reloader<C>,
    service: &impl Service,
) {
    loop {
        match signals.next().await {
            Request::Terminate => return,
            Request::Drain => service.drain(true).await,
            Request::Undrain => service.drain(false).await,
            Request::Reload => reloader.reload_on_signal(),
        }
    }
}
