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
    /// SIGHUP: read the configuration again.
    Reload,
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

    /// Waits for the next request.
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
                tracing::warn!("asked to terminate while leaving: exiting at once");
            } else {
                tracing::info!("asked to terminate: draining first");
            }
            self.terminating = true;
        }
        request
    }

    /// Waits for the next [`Request::Terminate`], whatever else is asked meanwhile. The process is leaving already, asked or not.
    pub(super) async fn terminate_while_leaving(&mut self) {
        self.terminating = true;
        while self.next().await != Request::Terminate {}
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    #[actix::test]
    async fn a_process_that_leaves_unasked_is_ended_by_the_first_signal() {
        let mut signals = Signals::new().unwrap();
        let id = std::process::id().to_string();
        for name in ["-USR1", "-TERM"] {
            let sent = Command::new("kill").args([name, &id]).status().unwrap();
            assert!(sent.success());
        }
        let ended = signals.terminate_while_leaving();
        let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
        assert!(ended.is_ok(), "the signal was not heeded");
    }
}
