//! Reading the bucket: first all there is, then each change.
//!
//! What there is, is the list of keys the servers give when it is opened. Neither the revision of the last nor the count of those still to come
//! tells when all have been told: a key that is overwritten meanwhile comes later, under a new revision, and servers lose count of it.
//!
//! A reader can be replaced while the session goes on: what this node puts is still sent while a new one is on its way, so that a dead reader of ours
//! doesn't make us look dead to others.

use std::collections::HashSet;
use std::pin::Pin;
use std::time::Duration;

use async_nats::datetime::DateTime;
use async_nats::jetstream;
use async_nats::jetstream::consumer::push::{Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::kv::Store as Bucket;
use async_nats::jetstream::stream::Stream;
use futures_util::future::OptionFuture;
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::{ANSWER_TIME, Lost};

/// Time without a record while the bucket is being read for the first time.
const SNAPSHOT_TIME: Duration = Duration::from_secs(10);
/// After this long without a record it is asked whether those that are missing were removed.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// What a reader has to say.
pub(super) enum Read {
    /// It is there, and tells all that is known next.
    Opened {
        /// The servers' clock then.
        servers_time: DateTime,
    },
    /// All that was known up to this revision has been told.
    Current { revision: u64 },
    /// One record, or that one was deleted.
    Message(Box<jetstream::Message>),
}

type Opening = Pin<Box<dyn Future<Output = Result<Opened, Lost>> + Send>>;
type Listing = Pin<Box<dyn Future<Output = Result<Listed, Lost>> + Send>>;

struct Opened {
    messages: Ordered,
    listed: Listed,
    servers_time: DateTime,
}

/// The subjects that had a record, or a delete's mark, when the last change of the stream had the revision `last`.
struct Listed {
    subjects: HashSet<String>,
    last: u64,
}

pub(super) struct Reader {
    source: Source,
    stage: Stage,
}

enum Stage {
    Opening(Opening),
    Reading(Box<Reading>),
    Current(Box<Ordered>),
    /// It failed, and says no more.
    Ended,
}

struct Reading {
    messages: Ordered,
    /// The newest revision that was there when the reader was opened, or was told since.
    last: u64,
    /// What was there and has not been told.
    missing: HashSet<String>,
    listing: Option<Listing>,
    ask_again: Instant,
    give_up: Instant,
}

impl Reading {
    fn of(messages: Ordered, listed: Listed) -> Self {
        let now = Instant::now();
        Self {
            messages,
            last: listed.last,
            missing: listed.subjects,
            listing: None,
            ask_again: now + ASK_AGAIN,
            give_up: now + SNAPSHOT_TIME,
        }
    }

    /// The next record of those that are missing, or that came meanwhile; none once nothing is missing.
    async fn next(&mut self, source: &Source) -> Result<Option<jetstream::Message>, Lost> {
        while !self.missing.is_empty() {
            let is_asked = self.listing.is_some();
            let listing = OptionFuture::from(self.listing.as_mut());
            tokio::select! {
                biased;
                message = self.messages.next() => {
                    let message = some(message)?;
                    let info = message.info().map_err(|error| Lost::Read(error.to_string()))?;
                    self.missing.remove(message.subject.as_str());
                    self.last = self.last.max(info.stream_sequence);
                    let now = Instant::now();
                    (self.ask_again, self.give_up) = (now + ASK_AGAIN, now + SNAPSHOT_TIME);
                    return Ok(Some(message));
                }
                Some(listed) = listing => {
                    let listed = listed?;
                    self.missing.retain(|subject| listed.subjects.contains(subject));
                    (self.listing, self.ask_again) = (None, Instant::now() + ASK_AGAIN);
                }
                () = sleep_until(self.give_up) => return Err(Lost::Read("it does not come".to_owned())),
                () = sleep_until(self.ask_again), if !is_asked => {
                    self.listing = Some(Box::pin(source.clone().list()));
                }
            }
        }
        Ok(None)
    }
}

/// Where records are read.
#[derive(Clone)]
struct Source {
    stream: Stream,
    filter: String,
}

impl Source {
    async fn list(self) -> Result<Listed, Lost> {
        let listing = self.stream.info_with_subjects(&self.filter).await;
        let listing = listing.map_err(|error| Lost::Read(error.to_string()))?;
        let last = listing.info.state.last_sequence;
        let subjects = listing.map_ok(|(subject, _)| subject).try_collect().await;
        let subjects = subjects.map_err(|error| Lost::Read(error.to_string()))?;
        Ok(Listed { subjects, last })
    }
}

impl Reader {
    /// A reader that is being opened; `node` names it at the servers.
    pub(super) fn open(bucket: &Bucket, client: &async_nats::Client, node: &str) -> Self {
        let source = Source {
            stream: bucket.stream.clone(),
            filter: format!("{}>", bucket.prefix),
        };
        let config = OrderedConfig {
            deliver_subject: client.new_inbox(),
            description: Some(format!("weir {node}")),
            filter_subject: source.filter.clone(),
            replay_policy: ReplayPolicy::Instant,
            deliver_policy: DeliverPolicy::LastPerSubject,
            ..OrderedConfig::default()
        };
        let failed = |error: &dyn std::fmt::Display| Lost::Read(error.to_string());
        let opened = source.clone();
        let opening = async move {
            // Listed first: what comes between is told as the rest is.
            let listed = opened.clone().list().await?;
            let consumer = opened.stream.create_consumer(config).await;
            let consumer = consumer.map_err(|error| failed(&error))?;
            let servers_time = consumer.cached_info().created;
            let messages = consumer.messages().await.map_err(|error| failed(&error))?;
            Ok(Opened {
                messages,
                listed,
                servers_time,
            })
        };
        let within = async move {
            timeout(2 * ANSWER_TIME, opening)
                .await
                .unwrap_or_else(|_| Err(Lost::Read("the servers don't let it be read".to_owned())))
        };
        Self {
            source,
            stage: Stage::Opening(Box::pin(within)),
        }
    }

    /// Whether all that was known has been told.
    pub(super) fn is_current(&self) -> bool {
        matches!(self.stage, Stage::Current(_))
    }

    /// What it has to say next. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Read, Lost> {
        match &mut self.stage {
            Stage::Opening(opening) => {
                let Opened {
                    messages,
                    listed,
                    servers_time,
                } = opening.await?;
                self.stage = Stage::Reading(Box::new(Reading::of(messages, listed)));
                Ok(Read::Opened { servers_time })
            }
            Stage::Reading(reading) => match reading.next(&self.source).await? {
                Some(message) => Ok(Read::Message(Box::new(message))),
                None => {
                    let revision = reading.last;
                    if let Stage::Reading(read) = std::mem::replace(&mut self.stage, Stage::Ended) {
                        self.stage = Stage::Current(Box::new(read.messages));
                    }
                    Ok(Read::Current { revision })
                }
            },
            Stage::Current(messages) => Ok(Read::Message(Box::new(some(messages.next().await)?))),
            Stage::Ended => Err(Lost::Read("it has ended".to_owned())),
        }
    }
}

fn some<E: std::fmt::Display>(
    message: Option<Result<jetstream::Message, E>>,
) -> Result<jetstream::Message, Lost> {
    match message {
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) => Err(Lost::Read(error.to_string())),
        None => Err(Lost::Read("the servers ended it".to_owned())),
    }
}
