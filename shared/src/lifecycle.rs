//! What signals ask of a process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM or SIGINT: drain, finish what is running, exit with 0. A second one: exit at once.
    Terminate,
    /// SIGUSR1: drain, but stay.
    Drain,
    /// SIGUSR2: take traffic again.
    Undrain,
    /// SIGHUP: read the configuration again; see [`reload_not_offered`].
    Reload,
}

/// What a tier that can't reload its configuration answers to [`Request::Reload`].
pub fn reload_not_offered() {
    tracing::warn!(
        "SIGHUP ignored: the configuration can't be reloaded yet; restart the process to use a new one"
    );
}

/// The signals of this process, as requests.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr1: Signal,
    usr2: Signal,
    terminating: bool,
}

impl Signals {
    /// Takes over the signals; to be called within the runtime, once.
    ///
    /// # Errors
    /// If the handlers can't be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
            terminating: false,
        })
    }

    /// Waits for the next request. A caller that should exit at once at the second [`Request::Terminate`] simply sees it twice; see
    /// [`Self::is_terminating`].
    pub async fn next(&mut self) -> Request {
        let request = tokio::select! {
            _ = self.term.recv() => Request::Terminate,
            _ = self.int.recv() => Request::Terminate,
            _ = self.usr1.recv() => Request::Drain,
            _ = self.usr2.recv() => Request::Undrain,
            _ = self.hup.recv() => Request::Reload,
        };
        if request == Request::Terminate {
            if self.terminating {
                tracing::warn!("asked a second time: exiting at once");
            } else {
                tracing::info!("asked to terminate: draining first");
            }
            self.terminating = true;
        }
        request
    }

    /// Waits for [`Request::Terminate`], whatever else is asked meanwhile.
    pub async fn terminate(&mut self) {
        while self.next().await != Request::Terminate {}
    }

    /// Whether [`Request::Terminate`] was seen: the next one means to exit at once.
    pub fn is_terminating(&self) -> bool {
        self.terminating
    }
}
