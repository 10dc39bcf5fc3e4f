//! Phases: balance and upstream. Tries backends until one answers, the retries are used up, or a retry would not be safe.

use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use super::body::RequestBody;
use super::context::Context;
use super::upload::Upload;
use crate::balance::{Backend, InFlight, Tried, Upstream};
use crate::normalise::response_length_is_clear;
use crate::reason::Reason;
use crate::retry::{Body, Decision, Failure, decide};
use crate::route::Route;
use crate::upstream::{ExchangeError, Lease, Pool};

/// A backend's response, with what it holds on to.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease,
    pub(super) under_way: InFlight,
    pub(super) upstream: Arc<Upstream>,
}

/// Gets an answer to a request from one of its route's backends.
pub(super) async fn exchange(
    context: &mut Context,
    parts: Parts,
    body: RequestBody,
    route: &Route,
) -> Result<Answer, Reason> {
    let client = context.client.clone();
    let worker = &client.worker;
    // Routes are checked against upstreams when the configuration is read.
    let Some(upstream) = worker.snapshot.upstream(route.upstream).cloned() else {
        return Err(Reason::NoRoute);
    };
    let method = parts.method.clone();
    let whole = body.is_empty();
    let mut request = Some(Request::from_parts(parts, body));
    let mut retries_left = upstream.settings.retries;
    let mut tried = Tried::new();
    let mut again: Option<usize> = None;
    let mut last = Reason::NoBackend;

    loop {
        let fresh = again.is_some();
        let Some(index) = again
            .take()
            .or_else(|| worker.choose(route.upstream, &tried))
        else {
            return Err(last);
        };
        let Some(sending) = request.take() else {
            return Err(last);
        };
        let backend = &upstream.backends[index];
        let under_way = backend.begin();
        context.account.tried(backend.address());

        let (reason, failure, read) = match link(&worker.pool, &upstream, backend, fresh).await {
            Err(error) => {
                request = Some(sending);
                tracing::debug!(upstream = %upstream.name, backend = %backend.address(), %error, "try failed");
                (error.reason(), Failure::Connect, Body::Whole)
            }
            Ok(mut lease) => {
                let reused = lease.link.reused;
                worker.upstreams.connection(route.upstream, reused);
                // A copy of the head is only needed where a second sending could be safe and possible.
                let copy = (whole && method.is_idempotent() && (reused || retries_left > 0))
                    .then(|| head(&sending));
                match send(&mut lease, sending, &context.upload, &upstream).await {
                    Ok(response) => {
                        context.account.answered();
                        return Ok(Answer {
                            response,
                            lease,
                            under_way,
                            upstream,
                        });
                    }
                    Err((error, returned)) => {
                        tracing::debug!(upstream = %upstream.name, backend = %backend.address(), %error, reused, "try failed");
                        if let Some(reason) = context.upload.failed.get() {
                            // The client's side broke off; the backend has only heard about it.
                            context.account.answered();
                            return Err(reason);
                        }
                        request = returned.or_else(|| {
                            copy.map(|copy| {
                                Request::from_parts(
                                    copy,
                                    RequestBody::empty(context.upload.clone()),
                                )
                            })
                        });
                        let read = if request.is_some() {
                            Body::Whole
                        } else {
                            Body::Consumed
                        };
                        (error.reason(), error.failure(reused), read)
                    }
                }
            }
        };
        context.account.answered();
        worker
            .upstreams
            .error(route.upstream, backend.address(), reason);
        last = reason;
        match decide(&method, read, failure, retries_left) {
            // Ends: the next try is made over a fresh connection, and only a reused one earns this.
            Decision::SameBackend => again = Some(index),
            Decision::NextBackend => {
                retries_left = retries_left.saturating_sub(1);
                tried.add(index);
            }
            Decision::GiveUp => return Err(reason),
        }
        worker.upstreams.retry(route.upstream);
    }
}

/// A connection for one try: from the pool, unless a fresh one is asked for.
async fn link(
    pool: &Rc<Pool>,
    upstream: &Upstream,
    backend: &Arc<Backend>,
    fresh: bool,
) -> Result<Lease, crate::upstream::ConnectError> {
    let pooled = if fresh { None } else { pool.take(backend) };
    let link = match pooled {
        Some(link) => link,
        None => Pool::connect(upstream, backend).await?,
    };
    Ok(Lease {
        pool: pool.clone(),
        backend: backend.clone(),
        keep: upstream.settings.keep_alive,
        link,
    })
}

/// Sends a request and waits for the response head. The time for it counts from when something of the request body last moved. On
/// failure the request comes back if none of it was sent.
async fn send(
    lease: &mut Lease,
    request: Request<RequestBody>,
    upload: &Upload,
    upstream: &Upstream,
) -> Result<Response<Incoming>, (ExchangeError, Option<Request<RequestBody>>)> {
    upload.moved.set(Instant::now());
    lease.link.allowance.renew();
    let response = lease.link.sender.try_send_request(request);
    tokio::select! {
        result = response => match result {
            Ok(response) if response_length_is_clear(response.headers()) => {
                lease.link.allowance.lift();
                Ok(response)
            }
            Ok(_) => Err((ExchangeError::Refused("its length is ambiguous"), None)),
            Err(_) if lease.link.allowance.exceeded() => {
                Err((ExchangeError::Refused("too much came before its head"), None))
            }
            Err(mut error) => Err(match error.take_message() {
                Some(request) => (ExchangeError::NotSent, Some(request)),
                None => (ExchangeError::of(error.into_error()), None),
            }),
        },
        () = stands_still(upload, upstream.settings.response_timeout) => Err((ExchangeError::TimedOut, None)),
    }
}

async fn stands_still(upload: &Upload, longest: std::time::Duration) {
    loop {
        let Some(until) = upload.moved.get().checked_add(longest) else {
            return std::future::pending().await;
        };
        if Instant::now() >= until {
            return;
        }
        sleep_until(until).await;
    }
}

fn head(request: &Request<RequestBody>) -> Parts {
    let mut copy = Request::new(()).into_parts().0;
    copy.method = request.method().clone();
    copy.uri = request.uri().clone();
    copy.version = request.version();
    copy.headers = request.headers().clone();
    copy
}
