//! The bucket: found or created, written to, and cleared of old marks.

use std::pin::Pin;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{GetStreamErrorKind, PublishAckFuture};
use async_nats::jetstream::kv::Store as Bucket;
use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy, PurgeError};
use tokio::time::{sleep, timeout};

use super::super::key::Key;
use super::super::record::{Invalid, MAX_RECORD};
use super::super::store::Unsent;
use super::subject::{LIFE, OPERATION, subject_of};
use super::{ANSWER_TIME, Lost};
use crate::config::sections::NatsSection;

/// Pause after a delete's mark was cleared, before the next: servers go through the bucket for each.
const CLEAR_PAUSE: Duration = Duration::from_millis(50);
/// Room the servers keep for the bucket, in bytes.
const BUCKET_BYTES: i64 = 128 << 20;

/// Opens the bucket of the configuration; creates it if there is none.
///
/// nats-server 2.9 answers some requests in an older shape than the client library expects from a bucket it creates itself, so the bucket's stream is
/// created by its definition and then opened, which works with every version that has key-value buckets.
pub(super) async fn open(section: &NatsSection, context: &Context) -> Result<Bucket, Lost> {
    let failed = |error: &dyn std::fmt::Display| Lost::Bucket(error.to_string());
    let stream = format!("KV_{}", section.bucket);
    match context.get_stream(&stream).await {
        Ok(found) => enlarge(context, &found.cached_info().config).await,
        Err(error) if matches!(error.kind(), GetStreamErrorKind::JetStream(_)) => {
            // Not there yet. Another node may be quicker to create it: it is what is there afterwards that counts.
            let created = context
                .create_stream(StreamConfig {
                    name: stream,
                    description: Some("State shared by the nodes of Weir".to_owned()),
                    subjects: vec![format!("$KV.{}.>", section.bucket)],
                    max_messages_per_subject: 1,
                    max_bytes: BUCKET_BYTES,
                    max_message_size: MAX_RECORD as i32,
                    discard: DiscardPolicy::New,
                    num_replicas: section.replicas,
                    allow_rollup: true,
                    deny_delete: true,
                    allow_direct: true,
                    ..StreamConfig::default()
                })
                .await;
            if let Err(error) = created {
                tracing::debug!("bucket not created: {error}");
                return context
                    .get_key_value(&section.bucket)
                    .await
                    .map_err(|_| failed(&error));
            }
        }
        Err(error) => return Err(failed(&error)),
    }
    context
        .get_key_value(&section.bucket)
        .await
        .map_err(|error| failed(&error))
}

/// Lets a bucket that an earlier version created take the records of this one. How much it may hold in all is left to who created it. A bucket
/// that stays as it is serves all the same: most records are short.
async fn enlarge(context: &Context, found: &StreamConfig) {
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

/// Sends one change.
///
/// # Errors
/// The outer one when the servers can't be written to, the inner one when the record can't be encoded.
pub(super) async fn publish(
    context: &Context,
    bucket: &Bucket,
    change: &Unsent,
) -> Result<Result<PublishAckFuture, Invalid>, Lost> {
    let subject = format!("{}{}", bucket.prefix, subject_of(&change.key));
    let sending = match change
        .record
        .as_ref()
        .map(|record| record.encode_by(change.by))
    {
        Some(Ok(bytes)) => timeout(ANSWER_TIME, context.publish(subject, bytes.into())).await,
        None => {
            let mut headers = HeaderMap::new();
            headers.insert(OPERATION, "DEL");
            if let Some(by) = change.by {
                headers.insert(LIFE, by.id.to_string());
            }
            let sent = context.publish_with_headers(subject, headers, Vec::new().into());
            timeout(ANSWER_TIME, sent).await
        }
        Some(Err(why)) => return Ok(Err(why)),
    };
    match sending {
        Ok(Ok(sent)) => Ok(Ok(sent)),
        Ok(Err(error)) => Err(Lost::Write(error.to_string())),
        Err(_) => Err(Lost::Write(format!("no room within {ANSWER_TIME:?}"))),
    }
}

/// Clears the mark of a delete, and nothing put under the key since.
pub(super) fn cleared(
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
