//! The bus over a NATS JetStream key-value bucket.
//!
//! Runs on a thread of its own with its own runtime, so that neither the tier's workers nor the servers can hold the other up. It lives in
//! sessions: connect, open the bucket, then carry changes both ways until the connection is of no use. Every session has a new client, so
//! nothing of an old one (buffers, consumers, sequence numbers) can leak into it. Within a session the reader may be renewed.
//!
//! ```text
//!           ┌───────────── backoff with jitter, next server <─────────────┐
//!           v                                                             │ connection lost, puts not answered
//!   connect ──> open bucket ──> send changes ─────────────────────────────┤
//!                          └──> reader: snapshot ──> Connected(true) ──> changes, proofs ([`super::hearing`])
//!                                 ^                                          │ what was put doesn't come back, or the bucket is another
//!                                 └──────────────────────────────────────────┘
//! ```

mod bucket;
mod reader;
mod session;
mod subject;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::jetstream::ContextBuilder;
use async_nats::{Client, ConnectOptions, Event as ClientEvent};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::hearing::Hearing;
use super::{Inner, Wake};
use crate::config::sections::NatsSection;
use crate::config::{open_regular, read_named};
use session::{Renewal, Session};

#[cfg(test)]
pub(crate) use subject::Understood;
pub(crate) use subject::{key_of, subject_of, understand};

/// Time for the servers to answer a request or acknowledge a change.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// The first pause after a lost connection; doubles up to the configured longest.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// How often a silent connection is tested; it is given up when the third test is due and none was answered. A server that stands still is left before
/// the records of this node run out at others.
const PING: Duration = Duration::from_millis(500);
/// How long a server may take to answer before the next one is tried beside it.
const NEXT_SERVER: Duration = Duration::from_millis(300);

/// Why a session ended, or a reader.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("can't connect: {0}")]
    Connect(String),
    #[error("can't open the bucket: {0}")]
    Bucket(String),
    #[error("can't read the bucket: {0}")]
    Read(String),
    #[error("can't write to the bucket: {0}")]
    Write(String),
    #[error("connection lost")]
    Disconnected,
    #[error("the process is done with it")]
    Closed,
}

/// Starts the transport of `bus` on its own thread, for as long as the bus lives.
pub(super) fn start(bus: &Arc<Inner>, section: NatsSection, node: &str) {
    for reason in Renewal::ALL {
        reason.count(0);
    }
    // Others are given as long to come back as this node may take.
    let grace = section.retry_max + section.connect_timeout;
    let transport = Transport {
        bus: Arc::downgrade(bus),
        wake: bus.wake.clone(),
        section,
        node: node.to_owned(),
    };
    let spawned = std::thread::Builder::new()
        .name("bus".to_owned())
        .spawn(move || {
            match tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
            {
                Ok(runtime) => runtime.block_on(transport.run(Hearing::new(grace))),
                Err(error) => {
                    tracing::error!("the bus can't start, this node is on its own: {error}")
                }
            }
        });
    if let Err(error) = spawned {
        tracing::error!("the bus can't start, this node is on its own: {error}");
    }
}

struct Transport {
    bus: Weak<Inner>,
    wake: Arc<Wake>,
    section: NatsSection,
    node: String,
}

fn is_closed(wake: &Wake) -> bool {
    wake.closed.load(Ordering::Acquire)
}

impl Transport {
    async fn run(self, mut hearing: Hearing) {
        let mut pause = RETRY_FIRST;
        // Not all nodes at the same server.
        let mut first = rand::rng().random_range(0..self.section.servers.len().max(1));
        loop {
            let started = Instant::now();
            let lost = match self.session(&mut hearing, &mut first).await {
                Ok(()) | Err(Lost::Closed) => return,
                Err(lost) => lost,
            };
            hearing.interrupted();
            match self.bus.upgrade() {
                Some(bus) => {
                    bus.connected(false);
                    bus.hearing(None);
                }
                None => return,
            }
            crate::log_at_most_every!(
                Duration::from_secs(10),
                tracing::Level::WARN,
                "bus not connected, keeping what is known: {lost}"
            );
            // A server that let us down is the last to be asked again.
            first += 1;
            // A session that held is no reason to wait long; one that broke at once is.
            if started.elapsed() > Duration::from_secs(10) {
                pause = RETRY_FIRST;
            }
            let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            pause = (pause * 2).min(self.section.retry_max);
            let until = Instant::now() + jittered;
            while Instant::now() < until {
                tokio::select! {
                    () = sleep_until(until) => {}
                    () = self.wake.notify.notified() => {
                        if is_closed(&self.wake) {
                            return;
                        }
                    }
                }
            }
        }
    }

    fn bus(&self) -> Result<Arc<Inner>, Lost> {
        self.bus.upgrade().ok_or(Lost::Closed)
    }

    /// One connection from its beginning to its end. `first` is the number of the server to try first, and the one that answered afterwards.
    async fn session(&self, hearing: &mut Hearing, first: &mut usize) -> Result<(), Lost> {
        let (server, client, mut is_lost) = self.connect_to_any(*first).await?;
        *first = server;
        let context = ContextBuilder::new()
            .timeout(ANSWER_TIME)
            .ack_timeout(ANSWER_TIME)
            .build(client);
        let exchange = async {
            let bucket = bucket::open(&self.section, &context).await?;
            Session::new(self, hearing, &context, bucket)?.run().await
        };
        tokio::select! {
            ended = exchange => ended,
            _ = is_lost.wait_for(|lost| *lost) => Err(Lost::Disconnected),
        }
    }

    /// Connects to whichever server answers first. Each is given a moment before the next is tried beside it: one that takes connections and then says
    /// nothing must not hold this node up.
    async fn connect_to_any(
        &self,
        first: usize,
    ) -> Result<(usize, Client, watch::Receiver<bool>), Lost> {
        let servers = self.section.servers.len();
        let attempt = |turn: u32| async move {
            let number = (first + turn as usize) % servers.max(1);
            sleep(NEXT_SERVER * turn).await;
            let (lost, is_lost) = watch::channel(false);
            let client = timeout(
                self.section.connect_timeout,
                self.connect(&self.section.servers[number], lost),
            )
            .await
            .map_err(|_| {
                let within = self.section.connect_timeout;
                Lost::Connect(format!(
                    "{}: no answer within {within:?}",
                    self.section.servers[number]
                ))
            })??;
            Ok((number, client, is_lost))
        };
        let mut attempts: FuturesUnordered<_> = (0..servers as u32).map(attempt).collect();
        let mut failure = Lost::Connect("no server is configured".to_owned());
        while let Some(connected) = attempts.next().await {
            match connected {
                Ok(connected) => return Ok(connected),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn connect(&self, server: &str, lost: watch::Sender<bool>) -> Result<Client, Lost> {
        let failed = |error: &dyn std::fmt::Display| Lost::Connect(error.to_string());
        let lost = Arc::new(lost);
        let mut options = ConnectOptions::new()
            .name(format!("weir {}", self.node))
            .connection_timeout(self.section.connect_timeout)
            .ping_interval(PING)
            .request_timeout(Some(ANSWER_TIME))
            .max_reconnects(1)
            .event_callback(move |event| {
                let lost = lost.clone();
                async move {
                    match event {
                        ClientEvent::Disconnected | ClientEvent::Closed => {
                            lost.send_replace(true);
                        }
                        other => tracing::debug!("bus connection: {other}"),
                    }
                }
            });
        if let Some(login) = &self.section.login {
            // Read at each attempt: a new password takes effect without a restart.
            let password = text(&login.password_file).await?;
            options = options.user_and_password(login.user.clone(), password.trim_end().to_owned());
        }
        if let Some(credentials) = &self.section.credentials {
            let text = text(credentials).await?;
            options = options.credentials(&text).map_err(|error| failed(&error))?;
        }
        if let Some(ca) = &self.section.ca {
            open_regular(ca).map_err(|error| unreadable(ca, &error))?;
            options = options.add_root_certificates(ca.clone()).require_tls(true);
        }
        options
            .connect(server)
            .await
            .map_err(|error| Lost::Connect(format!("{server}: {error}")))
    }
}

/// What is in a file that belongs to the login.
async fn text(path: &Path) -> Result<String, Lost> {
    let read = {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || read_named(&path)).await
    };
    let bytes = read
        .map_err(|error| unreadable(path, &error))?
        .map_err(|error| unreadable(path, &error))?;
    String::from_utf8(bytes).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Lost {
    Lost::Connect(format!("{}: {error}", path.display()))
}
