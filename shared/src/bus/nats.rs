//! The bus over a NATS JetStream key-value bucket.
//!
//! Runs on a thread of its own with its own runtime, so that neither the tier's workers nor the servers can hold the other up. It lives in
//! sessions: connect, open the bucket, read what the servers know, put again what they lost, then carry changes both ways until the
//! connection is lost. Every session has a new client, so nothing of an old one (buffers, consumers, sequence numbers) can leak into it.
//!
//! ```text
//!           ┌───────────── backoff with jitter <──────────────┐
//!           v                                                 │ any error
//!   connect ──> open bucket ──> snapshot ──> Connected(true) ──> carry changes
//! ```
//!
//! nats-server 2.9 answers some requests in an older shape than the client library expects from a bucket it creates itself, so the bucket's
//! stream is created by its definition and then opened, which works with every version that has key-value buckets.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::datetime::DateTime;
use async_nats::jetstream::consumer::push::OrderedConfig;
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::context::{
    GetStreamErrorKind, PublishAckFuture, PublishError, PublishErrorKind,
};
use async_nats::jetstream::kv::Store as Bucket;
use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy, PurgeError};
use async_nats::jetstream::{self, Context, ContextBuilder};
use async_nats::{Client, ConnectOptions, Event as ClientEvent, HeaderMap};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::key::Key;
use super::marks::Marks;
use super::record::{Invalid, MAX_RECORD, Record};
use super::store::Unsent;
use super::{Inner, Wake};
use crate::config::sections::NatsSection;

/// Changes on their way to the servers at a time.
const IN_FLIGHT: usize = 64;
/// Time for the servers to answer a request or acknowledge a change.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// Time without a record while the snapshot is being read.
const SNAPSHOT_TIME: Duration = Duration::from_secs(10);
/// Pause after the servers refused a change, before the next.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// The first pause after a lost connection; doubles up to the configured longest.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// How often a silent connection is tested; it is given up after the second test without an answer.
const PING: Duration = Duration::from_secs(2);
/// Pause after a delete's mark was cleared, before the next: servers go through the bucket for each.
const CLEAR_PAUSE: Duration = Duration::from_millis(50);
/// Room the servers keep for the bucket, in bytes.
const BUCKET_BYTES: i64 = 128 << 20;

/// What marks a message of the bucket as a delete.
const OPERATION: &str = "KV-Operation";

/// Why a session ended.
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
                Ok(runtime) => runtime.block_on(transport.run()),
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

impl Transport {
    async fn run(self) {
        let mut pause = RETRY_FIRST;
        loop {
            let started = Instant::now();
            let lost = match self.session().await {
                Ok(()) | Err(Lost::Closed) => return,
                Err(lost) => lost,
            };
            match self.bus.upgrade() {
                Some(bus) => bus.connected(false),
                None => return,
            }
            crate::log_at_most_every!(
                Duration::from_secs(10),
                tracing::Level::WARN,
                "bus not connected, keeping what is known: {lost}"
            );
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
                        if self.is_closed() {
                            return;
                        }
                    }
                }
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.wake.closed.load(Ordering::Acquire)
    }

    /// One connection from its beginning to its end.
    async fn session(&self) -> Result<(), Lost> {
        let (lost, mut is_lost) = watch::channel(false);
        let attempt = self.section.connect_timeout * (self.section.servers.len() as u32 + 1);
        let client = timeout(attempt, self.connect(lost))
            .await
            .map_err(|_| Lost::Connect(format!("no answer within {attempt:?}")))??;
        let context = ContextBuilder::new()
            .timeout(ANSWER_TIME)
            .ack_timeout(ANSWER_TIME)
            .build(client);
        tokio::select! {
            ended = self.exchange(&context) => ended,
            _ = is_lost.wait_for(|lost| *lost) => Err(Lost::Disconnected),
        }
    }

    async fn connect(&self, lost: watch::Sender<bool>) -> Result<Client, Lost> {
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
            let password = tokio::fs::read_to_string(&login.password_file)
                .await
                .map_err(|error| {
                    Lost::Connect(format!("{}: {error}", login.password_file.display()))
                })?;
            options = options.user_and_password(login.user.clone(), password.trim_end().to_owned());
        }
        if let Some(credentials) = &self.section.credentials {
            let text = tokio::fs::read_to_string(credentials)
                .await
                .map_err(|error| Lost::Connect(format!("{}: {error}", credentials.display())))?;
            options = options.credentials(&text).map_err(|error| failed(&error))?;
        }
        if let Some(ca) = &self.section.ca {
            options = options.add_root_certificates(ca.clone()).require_tls(true);
        }
        options
            .connect(&self.section.servers)
            .await
            .map_err(|error| failed(&error))
    }

    async fn exchange(&self, context: &Context) -> Result<(), Lost> {
        let bucket = self.open_bucket(context).await?;
        self.bus.upgrade().ok_or(Lost::Closed)?.session_started();
        let consumer = bucket
            .stream
            .create_consumer(OrderedConfig {
                deliver_subject: context.client().new_inbox(),
                description: Some(format!("weir {}", self.node)),
                filter_subject: format!("{}>", bucket.prefix),
                replay_policy: ReplayPolicy::Instant,
                deliver_policy: DeliverPolicy::LastPerSubject,
                ..OrderedConfig::default()
            })
            .await
            .map_err(|error| Lost::Read(error.to_string()))?;
        // What had been put when the bucket was opened: messages come in that order. The count of those still to come is not enough, servers
        // lose count of it when keys are overwritten while they send.
        let opened_at = bucket.stream.cached_info().state.last_sequence;
        let mut is_current = consumer.cached_info().num_pending == 0;
        // The servers' clock against the servers' clock: ours may be wrong.
        let (opened, servers_time) = (Instant::now(), consumer.cached_info().created);
        let mut marks = Marks::default();
        let mut messages = consumer
            .messages()
            .await
            .map_err(|error| Lost::Read(error.to_string()))?;
        while !is_current {
            let message = timeout(SNAPSHOT_TIME, messages.next())
                .await
                .map_err(|_| Lost::Read("it does not come".to_owned()))?;
            let received = self.receive(&bucket.prefix, message)?;
            is_current = received.is_last || received.revision >= opened_at;
            match received.told {
                Some((key, true)) => {
                    let age = Duration::try_from(servers_time - received.published);
                    let left = self
                        .section
                        .deletes_kept
                        .saturating_sub(age.unwrap_or_default());
                    // Not all nodes at once: they find the same marks.
                    let spread = self
                        .section
                        .deletes_kept
                        .mul_f64(rand::rng().random_range(0.0..0.1));
                    marks.add(key, received.revision, opened + left + spread);
                }
                Some((key, false)) => marks.overwritten(&key),
                None => {}
            }
        }
        {
            let bus = self.bus.upgrade().ok_or(Lost::Closed)?;
            let lost = bus.session_ready();
            bus.connected(true);
            tracing::info!(
                bucket = bucket.name,
                keys = bus.lock().store.len(),
                put_again = lost,
                "bus connected"
            );
        }

        let mut acknowledgements = FuturesUnordered::new();
        let mut clearing = FuturesUnordered::new();
        let mut resume = Instant::now();
        loop {
            let may_send = Instant::now() >= resume;
            if may_send && acknowledgements.len() < IN_FLIGHT {
                let unsent = {
                    let bus = self.bus.upgrade().ok_or(Lost::Closed)?;
                    bus.lock()
                        .store
                        .take_unsent(IN_FLIGHT - acknowledgements.len())
                };
                // Published one after the other, so that two changes of a key reach the servers in their order.
                for change in unsent {
                    if let Some(sent) = self.publish(context, &bucket, &change).await? {
                        acknowledgements.push(acknowledged(change, sent));
                    }
                }
            }
            if clearing.is_empty()
                && let Some((key, revision)) = marks.take_due(Instant::now())
            {
                clearing.push(cleared(&bucket, &key, revision));
            }
            let next_mark = marks.next_due().filter(|_| clearing.is_empty());
            tokio::select! {
                message = messages.next() => {
                    if let Some((key, false)) = self.receive(&bucket.prefix, message)?.told {
                        marks.overwritten(&key);
                    }
                }
                Some((change, result)) = acknowledgements.next() => match result {
                    Ok(revision) => {
                        self.bus.upgrade().ok_or(Lost::Closed)?.acknowledged(&change, revision);
                        if change.record.is_none() {
                            marks.add(change.key, revision, Instant::now() + self.section.deletes_kept);
                        }
                    }
                    Err(error) => {
                        metrics::counter!("weir_bus_put_failures_total").increment(1);
                        self.bus.upgrade().ok_or(Lost::Closed)?.lock().store.failed(&change.key);
                        if matches!(error.kind(), PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe | PublishErrorKind::StreamNotFound) {
                            return Err(Lost::Write(error.to_string()));
                        }
                        // The servers are there but refuse, a full bucket for one: knocking faster won't help.
                        resume = Instant::now() + REFUSED_PAUSE;
                        let why = error.to_string();
                        crate::log_at_most_every!(Duration::from_secs(10), tracing::Level::WARN, "bus servers refuse a change, trying again: {why}");
                    }
                },
                () = self.wake.notify.notified() => {
                    if self.is_closed() {
                        return Ok(());
                    }
                }
                Some(result) = clearing.next() => {
                    if let Err(why) = result {
                        // What is left is found again in the next session; trying each would only fill the log.
                        marks = Marks::default();
                        crate::log_at_most_every!(Duration::from_secs(10), tracing::Level::WARN, "bus servers don't let old deletes be cleared: {why}");
                    }
                }
                () = sleep_until(resume), if !may_send => {}
                () = sleep_until(next_mark.unwrap_or(resume)), if next_mark.is_some() => {}
            }
        }
    }

    async fn open_bucket(&self, context: &Context) -> Result<Bucket, Lost> {
        let failed = |error: &dyn std::fmt::Display| Lost::Bucket(error.to_string());
        let stream = format!("KV_{}", self.section.bucket);
        match context.get_stream(&stream).await {
            Ok(found) => self.enlarge(context, &found.cached_info().config).await,
            Err(error) if matches!(error.kind(), GetStreamErrorKind::JetStream(_)) => {
                // Not there yet. Another node may be quicker to create it: it is what is there afterwards that counts.
                let created = context
                    .create_stream(StreamConfig {
                        name: stream,
                        description: Some("State shared by the nodes of Weir".to_owned()),
                        subjects: vec![format!("$KV.{}.>", self.section.bucket)],
                        max_messages_per_subject: 1,
                        max_bytes: BUCKET_BYTES,
                        max_message_size: MAX_RECORD as i32,
                        discard: DiscardPolicy::New,
                        num_replicas: self.section.replicas,
                        allow_rollup: true,
                        deny_delete: true,
                        allow_direct: true,
                        ..StreamConfig::default()
                    })
                    .await;
                if let Err(error) = created {
                    tracing::debug!("bucket not created: {error}");
                    return context
                        .get_key_value(&self.section.bucket)
                        .await
                        .map_err(|_| failed(&error));
                }
            }
            Err(error) => return Err(failed(&error)),
        }
        context
            .get_key_value(&self.section.bucket)
            .await
            .map_err(|error| failed(&error))
    }

    /// Lets a bucket that an earlier version created take the records of this one. How much it may hold in all is left to who created it. A bucket
    /// that stays as it is serves all the same: most records are short.
    async fn enlarge(&self, context: &Context, found: &StreamConfig) {
        let size = found.max_message_size;
        // Negative is without a limit.
        if !(0..MAX_RECORD as i32).contains(&size) {
            return;
        }
        let wanted = StreamConfig {
            max_message_size: MAX_RECORD as i32,
            ..found.clone()
        };
        match context.update_stream(&wanted).await {
            Ok(_) => tracing::info!(
                bucket = found.name,
                size,
                "bus bucket takes larger records now"
            ),
            Err(error) => crate::log_at_most_every!(
                Duration::from_secs(600),
                tracing::Level::WARN,
                bucket = found.name,
                size,
                "bus bucket can't be made to take larger records, a node with many services may not be heard of: {error}"
            ),
        }
    }

    /// Sends one change; none if it can't be encoded, which is then settled.
    async fn publish(
        &self,
        context: &Context,
        bucket: &Bucket,
        change: &Unsent,
    ) -> Result<Option<PublishAckFuture>, Lost> {
        let subject = format!("{}{}", bucket.prefix, subject_of(&change.key));
        let sending = match change.record.as_ref().map(Record::encode) {
            Some(Ok(bytes)) => timeout(ANSWER_TIME, context.publish(subject, bytes.into())).await,
            None => {
                let mut headers = HeaderMap::new();
                headers.insert(OPERATION, "DEL");
                timeout(
                    ANSWER_TIME,
                    context.publish_with_headers(subject, headers, Vec::new().into()),
                )
                .await
            }
            Some(Err(why)) => {
                let bus = self.bus.upgrade().ok_or(Lost::Closed)?;
                bus.ignore(&change.key.to_string(), why);
                bus.acknowledged(change, 0);
                return Ok(None);
            }
        };
        match sending {
            Ok(Ok(sent)) => Ok(Some(sent)),
            Ok(Err(error)) => Err(Lost::Write(error.to_string())),
            Err(_) => Err(Lost::Write(format!("no room within {ANSWER_TIME:?}"))),
        }
    }

    /// Takes one message of the bucket in.
    fn receive<E: std::fmt::Display>(
        &self,
        prefix: &str,
        message: Option<Result<jetstream::Message, E>>,
    ) -> Result<Received, Lost> {
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(Lost::Read(error.to_string())),
            None => return Err(Lost::Read("the servers ended it".to_owned())),
        };
        let mut received = match message.info() {
            Ok(info) => Received {
                is_last: info.pending == 0,
                revision: info.stream_sequence,
                published: info.published,
                told: None,
            },
            Err(error) => return Err(Lost::Read(error.to_string())),
        };
        let bus = self.bus.upgrade().ok_or(Lost::Closed)?;
        let operation = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(OPERATION))
            .map(|value| value.as_str());
        match understand(
            message.subject.strip_prefix(prefix),
            operation,
            &message.payload,
        ) {
            Ok((key, record)) => {
                let deleted = record.is_none();
                bus.incoming(&key, received.revision, record);
                received.told = Some((key, deleted));
            }
            Err(why) => bus.ignore(&message.subject.chars().take(120).collect::<String>(), why),
        }
        Ok(received)
    }
}

/// One message of the bucket.
struct Received {
    /// Whether it was the last there is for now.
    is_last: bool,
    revision: u64,
    /// By the servers' clock.
    published: DateTime,
    /// The key it tells of, and whether that was deleted; none if nobody can tell.
    told: Option<(Key, bool)>,
}

type Acknowledged = (Unsent, Result<u64, PublishError>);

fn acknowledged(
    change: Unsent,
    sent: PublishAckFuture,
) -> Pin<Box<dyn Future<Output = Acknowledged> + Send>> {
    Box::pin(async move {
        let result = sent.into_future().await.map(|ack| ack.sequence);
        (change, result)
    })
}

/// Clears the mark of a delete, and nothing put under the key since.
fn cleared(
    bucket: &Bucket,
    key: &Key,
    revision: u64,
) -> Pin<Box<dyn Future<Output = Result<(), PurgeError>> + Send>> {
    let purge = bucket
        .stream
        .purge()
        .filter(format!("{}{}", bucket.prefix, subject_of(key)))
        .sequence(revision + 1); // up to, but not including
    Box::pin(async move {
        purge.await?;
        sleep(CLEAR_PAUSE).await;
        Ok(())
    })
}

/// What a message of the bucket says: a key with its record, or with none where it was deleted.
pub(crate) fn understand(
    subject: Option<&str>,
    operation: Option<&str>,
    payload: &[u8],
) -> Result<(Key, Option<Record>), Invalid> {
    let key = subject.and_then(key_of).ok_or(Invalid::Key)?;
    match operation {
        Some("DEL" | "PURGE") => Ok((key, None)),
        Some("PUT") | None => {
            let record = Record::decode(payload)?;
            if record.key() == key {
                Ok((key, Some(record)))
            } else {
                Err(Invalid::Key)
            }
        }
        Some(_) => Err(Invalid::Form),
    }
}

/// The key as the last part of a subject: three tokens, in which every byte but letters, digits, `-` and `_` is `=` and two hex digits.
pub(crate) fn subject_of(key: &Key) -> String {
    key.words().map(|word| encode(&word)).join(".")
}

/// Reads what [`subject_of`] writes.
pub(crate) fn key_of(subject: &str) -> Option<Key> {
    let mut tokens = subject.split('.');
    let (kind, group, member) = (tokens.next()?, tokens.next()?, tokens.next()?);
    if tokens.next().is_some() {
        return None;
    }
    let key = Key::of_words(&decode(kind)?, &decode(group)?, &decode(member)?)?;
    // One way to write a key only, or two subjects would fight over it.
    (subject_of(&key) == subject).then_some(key)
}

fn encode(word: &str) -> String {
    let mut token = String::with_capacity(word.len());
    for byte in word.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("={byte:02X}"));
        }
    }
    token
}

fn decode(token: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'=' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
