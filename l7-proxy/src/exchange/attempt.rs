//! Phases: balance and upstream. Tries backends until one answers, the retries are used up, or a retry would not be safe.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::response::Parts;

use super::context::Context;
use super::head::Head;
use crate::exchange::retry::{Body, Decision, Failure, decide};
use crate::http::h1::{Decoder, Received};
use crate::http::{Fields, RequestBody, Upload};
use crate::observe::reason::Reason;
use crate::policy::UpstreamId;
use crate::upstream::{
    Backend, ConnectError, ExchangeError, InFlight, Lease, Link, Outcome, Shelf, Tried, Upstream,
};

/// A backend's response, with what it holds on to.
pub(super) struct Answer {
    pub(super) head: Parts,
    /// The fields it came with.
    pub(super) fields: Fields,
    pub(super) body: Decoder,
    pub(super) lease: Lease,
    pub(super) under_way: InFlight,
    pub(super) upstream: Arc<Upstream>,
}

/// Gets an answer to a request from one of an upstream's backends.
pub(super) async fn exchange(
    context: &mut Context,
    head: &Head,
    body: RequestBody,
    upstream: UpstreamId,
) -> Result<Answer, Reason> {
    let generation = context.generation.clone();
    // Routes are checked against upstreams when the configuration is read.
    let Some(served) = generation.upstream(upstream) else {
        return Err(Reason::NoRoute);
    };
    let upstream = &served.upstream;
    let method = head.method();
    let client = context.account.client();
    // A request without a body can be sent again and again.
    let whole = body.is_empty();
    let mut unsent = Some(body);
    let mut retries_left = upstream.settings.retries;
    let mut tried = Tried::new();
    let mut again: Option<usize> = None;
    let mut last = Reason::NoBackend;

    loop {
        let fresh = again.is_some();
        let Some(body) = unsent.take() else {
            return Err(last);
        };
        let chosen = again
            .take()
            .or_else(|| served.choose(&head.asks(client), &tried));
        let Some(index) = chosen else {
            return Err(last);
        };
        let Some((member, shelf)) = served.member(index) else {
            return Err(last);
        };
        let backend = &member.backend;
        let under_way = backend.begin();
        let began = context.account.tried(index);

        let (reason, failure, read) = match link(shelf, upstream, backend, fresh, began).await {
            Err(error) => {
                unsent = Some(body);
                tracing::debug!(upstream = %upstream.name, backend = %backend.address(), %error, "try failed");
                (error.reason(), Failure::Connect, Body::Whole)
            }
            Ok(mut lease) => {
                let reused = lease.link.reused;
                upstream.metrics.connection(reused);
                // The time for an answer counts from the sending.
                context.upload.moved.set(began.max(lease.link.born).into());
                match send(&mut lease.link, head, body, &context.upload, upstream).await {
                    Ok(received) => {
                        lease.link.go_on_sending();
                        let took = context.account.answered();
                        served.told(index, Outcome::Answered(received.parts.status, took));
                        return Ok(Answer {
                            head: received.parts,
                            fields: received.fields,
                            body: received.body,
                            lease,
                            under_way,
                            upstream: upstream.clone(),
                        });
                    }
                    Err(error) => {
                        tracing::debug!(upstream = %upstream.name, backend = %backend.address(), %error, reused, "try failed");
                        if let Some(reason) = context.upload.failed.get() {
                            // The client's side broke off; the backend has only heard about it.
                            context.account.answered();
                            return Err(reason);
                        }
                        unsent = if whole {
                            Some(RequestBody::empty(context.upload.clone()))
                        } else if matches!(error, ExchangeError::NotSent) {
                            lease.link.unsent()
                        } else {
                            None
                        };
                        let read = if unsent.is_some() {
                            Body::Whole
                        } else {
                            Body::Consumed
                        };
                        (error.reason(), Failure::of(&error, reused), read)
                    }
                }
            }
        };
        context.account.answered();
        served.told(index, Outcome::Failed(reason));
        last = reason;
        match decide(method, read, failure, retries_left) {
            // Ends: the next try is made over a fresh connection, and only a reused one earns this.
            Decision::SameBackend => again = Some(index),
            Decision::NextBackend => {
                retries_left = retries_left.saturating_sub(1);
                tried.add(index);
            }
            Decision::GiveUp => return Err(reason),
        }
        upstream.metrics.retry();
    }
}

/// A connection for one try: an idle one, unless a fresh one is asked for.
async fn link(
    shelf: &Rc<Shelf>,
    upstream: &Upstream,
    backend: &Backend,
    fresh: bool,
    now: Instant,
) -> Result<Lease, ConnectError> {
    let idle = if fresh { None } else { shelf.take(now) };
    let link = match idle {
        Some(link) => link,
        None => Link::open(backend.address(), upstream.settings.connect_timeout).await?,
    };
    Ok(Lease {
        shelf: shelf.clone(),
        link,
    })
}

/// Sends a request and waits for the response head. The time for it counts from when something of the request body last moved.
async fn send(
    link: &mut Link,
    head: &Head,
    body: RequestBody,
    upload: &Upload,
    upstream: &Upstream,
) -> Result<Received, ExchangeError> {
    let longest = upstream.settings.response_timeout;
    let until = || upload.moved.get().checked_add(longest);
    let length = if body.is_empty() {
        None
    } else {
        head.body_length()
    };
    link.send(
        head.method(),
        length,
        body,
        |out| head.write_http1(out),
        until,
    )
    .await
}
