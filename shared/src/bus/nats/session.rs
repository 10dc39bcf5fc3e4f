//! One session: what is put here goes out, what is put elsewhere comes in, and hearing is proven all the while.

use std::pin::Pin;
use std::time::Duration;

use async_nats::datetime::DateTime;
use async_nats::jetstream;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::kv::Store as Bucket;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand::Rng;
use tokio::time::{Instant, sleep_until};

use super::super::hearing::{self, Heard, Hearing, Ticket};
use super::super::key::Key;
use super::super::marks::Marks;
use super::super::store::{Told, Unsent};
use super::super::{Inner, Wake};
use super::bucket::{self, cleared};
use super::reader::{Read, Reader};
use super::subject::{LIFE, OPERATION, Understood, understand};
use super::{Lost, Transport, is_closed};
use crate::telemetry::monotonic;

/// Changes on their way to the servers at a time.
const IN_FLIGHT: usize = 64;
/// Pause after the servers refused a change, before the next.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether hearing is still proven.
const LOOK: Duration = Duration::from_millis(500);

/// A session over a connection whose bucket is open.
pub(super) struct Session<'a> {
    pub(super) transport: &'a Transport,
    pub(super) hearing: &'a mut Hearing,
    pub(super) context: &'a Context,
    pub(super) bucket: Bucket,
    reader: Reader,
    /// When the reader was opened, here and at the servers: deletes are that old.
    opened: Option<(Instant, DateTime)>,
    marks: Marks,
    /// The reader is the second in a row that is being opened on this connection.
    renewed: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        transport: &'a Transport,
        hearing: &'a mut Hearing,
        context: &'a Context,
        bucket: Bucket,
    ) -> Result<Self, Lost> {
        hearing.interrupted();
        transport.bus()?.session_started();
        let reader = Reader::open(&bucket, &context.client(), &transport.node);
        Ok(Self {
            transport,
            hearing,
            context,
            bucket,
            reader,
            opened: None,
            marks: Marks::default(),
            renewed: false,
        })
    }

    /// Carries changes both ways until the connection is of no use, or the bus is closed.
    pub(super) async fn run(&mut self) -> Result<(), Lost> {
        let wake: &Wake = &self.transport.wake;
        let mut acknowledgements = FuturesUnordered::new();
        let mut clearing = FuturesUnordered::new();
        let mut resume = Instant::now();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let may_send = Instant::now() >= resume;
            if may_send && acknowledgements.len() < IN_FLIGHT {
                let room = IN_FLIGHT - acknowledgements.len();
                let unsent = self.transport.bus()?.take_unsent(room);
                // Published one after the other, so that two changes of a key reach the servers in their order.
                for change in unsent {
                    let ticket = self.hearing.sent(monotonic());
                    match bucket::publish(self.context, &self.bucket, &change).await? {
                        Ok(sent) => acknowledgements.push(acknowledged(change, ticket, sent)),
                        Err(why) => {
                            let bus = self.transport.bus()?;
                            bus.ignore(&change.key.to_string(), why);
                            bus.acknowledged(&change, 0);
                            self.hearing.not_sent(ticket);
                        }
                    }
                }
            }
            let is_current = self.reader.is_current();
            if is_current
                && clearing.is_empty()
                && let Some((key, revision)) = self.marks.take_due(Instant::now())
            {
                clearing.push(cleared(&self.bucket, &key, revision));
            }
            let next_mark = self
                .marks
                .next_due()
                .filter(|_| is_current && clearing.is_empty());
            tokio::select! {
                read = self.reader.next() => match read {
                    Ok(read) => self.read(read)?,
                    Err(why) => self.renew(why, Renewal::Ended)?,
                },
                Some((change, ticket, result)) = acknowledgements.next() => match result {
                    Ok(revision) => self.taken(change, ticket, revision)?,
                    Err(error) => {
                        self.refused(&change, ticket, &error)?;
                        // The servers are there but refuse, a full bucket for one: knocking faster won't help.
                        resume = Instant::now() + REFUSED_PAUSE;
                    }
                },
                () = wake.notify.notified() => {
                    if is_closed(wake) {
                        return Ok(());
                    }
                }
                Some(result) = clearing.next() => {
                    if let Err(why) = result {
                        // What is left is found again in the next session; trying each would only fill the log.
                        self.marks = Marks::default();
                        crate::log_at_most_every!(Duration::from_secs(10), tracing::Level::WARN, "bus servers don't let old deletes be cleared: {why}");
                    }
                }
                _ = look.tick() => self.look()?,
                () = sleep_until(resume), if !may_send => {}
                () = sleep_until(next_mark.unwrap_or(resume)), if next_mark.is_some() => {}
            }
        }
    }

    /// The reader said something.
    fn read(&mut self, read: Read) -> Result<(), Lost> {
        match read {
            // The servers' clock against the servers' clock: ours may be wrong.
            Read::Opened { servers_time } => self.opened = Some((Instant::now(), servers_time)),
            Read::Current { revision } => {
                self.renewed = false;
                let bus = self.transport.bus()?;
                let lost = bus.session_ready();
                bus.connected(true);
                tracing::info!(
                    bucket = self.bucket.name,
                    keys = bus.lock().store.len(),
                    put_again = lost,
                    "bus connected"
                );
                let heard = self.hearing.current(monotonic(), revision);
                tell(&bus, heard);
            }
            Read::Message(message) => self.receive(&message)?,
        }
        Ok(())
    }

    /// Takes one message of the bucket in.
    fn receive(&mut self, message: &jetstream::Message) -> Result<(), Lost> {
        let info = message
            .info()
            .map_err(|error| Lost::Read(error.to_string()))?;
        let revision = info.stream_sequence;
        let published = i64::try_from(info.published.unix_timestamp_nanos()).unwrap_or(0);
        let bus = self.transport.bus()?;
        let header = |name| {
            let headers = message.headers.as_ref()?;
            headers.get(name).map(|value| value.as_str())
        };
        let key = message.subject.strip_prefix(self.bucket.prefix.as_str());
        match understand(key, header(OPERATION), header(LIFE), &message.payload) {
            Ok(Understood { key, record, by }) => {
                if record.is_some() {
                    self.marks.overwritten(&key);
                } else if let Some((opened, servers_time)) = self.opened
                    && !self.reader.is_current()
                {
                    let age = Duration::try_from(servers_time - info.published);
                    self.mark(key.clone(), revision, opened, age.unwrap_or_default());
                }
                let told = Told {
                    revision,
                    published,
                    record,
                    by,
                };
                bus.incoming(&key, told);
            }
            Err(why) => bus.ignore(&message.subject.chars().take(120).collect::<String>(), why),
        }
        // After the change itself: who hears of the proof has heard all it is about.
        tell(&bus, self.hearing.told(monotonic(), revision));
        Ok(())
    }

    /// There is a delete's mark of this age, found when the reader was opened.
    fn mark(&mut self, key: Key, revision: u64, opened: Instant, age: Duration) {
        let kept = self.transport.section.deletes_kept;
        // Not all nodes at once: they find the same marks.
        let spread = kept.mul_f64(rand::rng().random_range(0.0..0.1));
        self.marks
            .add(key, revision, opened + kept.saturating_sub(age) + spread);
    }

    /// The servers took a change.
    fn taken(&mut self, change: Unsent, ticket: Option<Ticket>, revision: u64) -> Result<(), Lost> {
        let bus = self.transport.bus()?;
        bus.acknowledged(&change, revision);
        if change.record.is_none() {
            let due = Instant::now() + self.transport.section.deletes_kept;
            self.marks.add(change.key, revision, due);
        }
        let Some(ticket) = ticket else {
            return Ok(());
        };
        match self.hearing.acknowledged(monotonic(), ticket, revision) {
            hearing::Acknowledged::Noted => Ok(()),
            hearing::Acknowledged::Heard(heard) => {
                tell(&bus, Some(heard));
                Ok(())
            }
            hearing::Acknowledged::RolledBack => self.renew(
                Lost::Read(format!(
                    "the bucket is another one, or an older state of it: it counts from {revision}"
                )),
                Renewal::RolledBack,
            ),
        }
    }

    /// The servers did not take a change.
    fn refused(
        &mut self,
        change: &Unsent,
        ticket: Option<Ticket>,
        error: &PublishError,
    ) -> Result<(), Lost> {
        metrics::counter!("weir_bus_put_failures_total").increment(1);
        self.hearing.refused(ticket);
        self.transport.bus()?.lock().store.failed(&change.key);
        if matches!(
            error.kind(),
            PublishErrorKind::TimedOut
                | PublishErrorKind::BrokenPipe
                | PublishErrorKind::StreamNotFound
        ) {
            return Err(Lost::Write(error.to_string()));
        }
        let why = error.to_string();
        crate::log_at_most_every!(
            Duration::from_secs(10),
            tracing::Level::WARN,
            "bus servers refuse a change, trying again: {why}"
        );
        Ok(())
    }

    /// Looks whether the reader still tells what the servers take.
    fn look(&mut self) -> Result<(), Lost> {
        let now = monotonic();
        let bus = self.transport.bus()?;
        bus.hearing(self.hearing.heard(now));
        bus.look_for_duplicates();
        if self
            .hearing
            .deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.hearing.gave_up();
            let why = Lost::Read("what the servers took from here does not come back".to_owned());
            self.renew(why, Renewal::Silent)?;
        }
        Ok(())
    }

    /// Opens another reader on this connection; ends the session if the last one was never of use.
    fn renew(&mut self, why: Lost, reason: Renewal) -> Result<(), Lost> {
        reason.count(1);
        if self.renewed || !self.reader.is_current() {
            return Err(why);
        }
        crate::log_at_most_every!(
            Duration::from_secs(10),
            tracing::Level::WARN,
            "bus: reading anew, keeping what is known: {why}"
        );
        self.renewed = true;
        self.hearing.interrupted();
        self.opened = None;
        let bus = self.transport.bus()?;
        bus.connected(false);
        bus.reading_anew();
        self.marks = Marks::default();
        self.reader = Reader::open(&self.bucket, &self.context.client(), &self.transport.node);
        Ok(())
    }
}

fn tell(bus: &std::sync::Arc<Inner>, heard: Option<Heard>) {
    if let Some(heard) = heard {
        bus.heard(heard);
    }
}

type Settled = (Unsent, Option<Ticket>, Result<u64, PublishError>);

fn acknowledged(
    change: Unsent,
    ticket: Option<Ticket>,
    sent: PublishAckFuture,
) -> Pin<Box<dyn Future<Output = Settled> + Send>> {
    Box::pin(async move {
        let result = sent.into_future().await.map(|ack| ack.sequence);
        (change, ticket, result)
    })
}

/// Why the bucket is read anew on a connection that lives.
#[derive(Debug, Clone, Copy)]
pub(super) enum Renewal {
    /// The reader ended.
    Ended,
    /// What the servers took does not come back.
    Silent,
    /// The servers count from an earlier revision.
    RolledBack,
}

impl Renewal {
    pub(super) const ALL: [Self; 3] = [Self::Ended, Self::Silent, Self::RolledBack];

    pub(super) fn count(self, times: u64) {
        let reason = match self {
            Self::Ended => "ended",
            Self::Silent => "silent",
            Self::RolledBack => "rolled_back",
        };
        metrics::counter!("weir_bus_readers_renewed_total", "reason" => reason).increment(times);
    }
}
