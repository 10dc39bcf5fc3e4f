//! Phase: log and count. An [`Account`] lives as long as its request; dropping it writes the access log and the metrics, so each
//! request is counted exactly once whichever way it ends.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::{HOST, REFERER, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Uri, Version};

use super::client::Client;
use super::upload::Upload;
use crate::access_log::Entry;
use crate::reason::Reason;
use crate::route::{Route, UpstreamId};

/// What is known about a request so far.
#[derive(Debug)]
pub(crate) struct Account {
    client: Rc<Client>,
    who: IpAddr,
    upload: Rc<Upload>,
    time: SystemTime,
    start: Instant,
    method: Method,
    host: Option<HeaderValue>,
    target: Uri,
    version: Version,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    status: Option<StatusCode>,
    bytes_sent: u64,
    route: Option<(Arc<str>, UpstreamId)>,
    tries: u32,
    backend: Option<SocketAddr>,
    first_try: Option<Instant>,
    head: Option<Instant>,
    reason: Option<Reason>,
    complete: bool,
}

impl Account {
    /// A request whose head is complete.
    pub(crate) fn open(
        client: Rc<Client>,
        parts: &Parts,
        upload: Rc<Upload>,
        start: Instant,
    ) -> Account {
        let field = |name| parts.headers.get(name).cloned();
        Account {
            who: client.peer.address(),
            client,
            upload,
            time: SystemTime::now(),
            start,
            method: parts.method.clone(),
            host: field(HOST)
                .or_else(|| HeaderValue::from_str(parts.uri.authority()?.as_str()).ok()),
            target: parts.uri.clone(),
            version: parts.version,
            referer: field(REFERER),
            user_agent: field(USER_AGENT),
            status: None,
            bytes_sent: 0,
            route: None,
            tries: 0,
            backend: None,
            first_try: None,
            head: None,
            reason: None,
            complete: false,
        }
    }

    /// Whom a trusted peer named as the client.
    pub(crate) fn client_is(&mut self, who: IpAddr) {
        self.who = who;
    }

    /// The route was found.
    pub(crate) fn routed(&mut self, route: &Route) {
        self.route = Some((route.name.clone(), route.upstream));
    }

    /// A backend is being tried.
    pub(crate) fn tried(&mut self, backend: SocketAddr) {
        self.tries += 1;
        self.backend = Some(backend);
        self.first_try.get_or_insert_with(Instant::now);
    }

    /// The last try's response head came, or it failed.
    pub(crate) fn answered(&mut self) {
        self.head = Some(Instant::now());
    }

    /// The status is about to be sent; `reason` when the answer is our own.
    pub(crate) fn respond(&mut self, status: StatusCode, reason: Option<Reason>) {
        self.status = Some(status);
        self.reason = reason;
    }

    /// Bytes of the response body were handed over.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes_sent += bytes as u64;
    }

    /// The response was cut short by us.
    pub(crate) fn cut(&mut self, reason: Reason) {
        self.reason = Some(reason);
        self.complete = true;
    }

    /// The whole response was handed over.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// What went through a tunnel.
    pub(crate) fn tunnelled(&mut self, received: u64, sent: u64) {
        self.upload.bytes.set(received);
        self.bytes_sent = sent;
        self.complete = true;
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let worker = &self.client.worker;
        let entrance = &self.client.entrance;
        let duration = self.start.elapsed();
        if !self.complete && self.reason.is_none() {
            self.reason = Some(Reason::ClientGone);
        }
        let status = self.status.unwrap_or_else(|| Reason::ClientGone.status());
        let upstream = self
            .route
            .as_ref()
            .and_then(|(_, id)| worker.snapshot.upstream(*id));
        let route = self.route.as_ref().map(|(name, _)| &**name);

        // The name's address is the route's number: routes live as long as the snapshot.
        let number = self.route.as_ref().map(|(name, _)| name.as_ptr() as usize);
        let labels = number
            .zip(route)
            .zip(upstream)
            .map(|((number, route), upstream)| (number, route, &*upstream.name));
        entrance
            .metrics
            .request(labels, status.as_u16(), duration.as_secs_f64());
        if let Some(reason) = self.reason {
            entrance.metrics.answered(reason);
        }

        if let Some(log) = &mut *worker.log.borrow_mut() {
            let target = self
                .target
                .path_and_query()
                .map_or("/", http::uri::PathAndQuery::as_str);
            log.record(&Entry {
                time: self.time,
                client: self.who,
                listener: &entrance.listener().name,
                scheme: entrance.listener().protocol.scheme(),
                method: &self.method,
                host: self.host.as_ref(),
                target,
                version: self.version,
                status,
                bytes_received: self.upload.bytes.get(),
                bytes_sent: self.bytes_sent,
                duration,
                upstream_duration: self.first_try.map(|first| {
                    self.head
                        .unwrap_or_else(Instant::now)
                        .saturating_duration_since(first)
                }),
                route,
                upstream: upstream.map(|upstream| &*upstream.name),
                backend: self.backend,
                tries: self.tries,
                reason: self.reason,
                referer: self.referer.as_ref(),
                user_agent: self.user_agent.as_ref(),
            });
        }
    }
}

/// Logs and counts a request whose head was refused before it was one. What it was is unknown: method and target are `-`.
pub(super) fn refused(client: &Client, reason: Reason) {
    let Client {
        worker, entrance, ..
    } = client;
    entrance
        .metrics
        .request(None, reason.status().as_u16(), 0.0);
    entrance.metrics.answered(reason);
    // `-` is a token, so this is a method (RFC 9110 section 5.6.2).
    let (Some(log), Ok(method)) = (&mut *worker.log.borrow_mut(), Method::from_bytes(b"-")) else {
        return;
    };
    log.record(&Entry {
        time: SystemTime::now(),
        client: client.peer.address(),
        listener: &entrance.listener().name,
        scheme: entrance.listener().protocol.scheme(),
        method: &method,
        host: None,
        target: "-",
        version: Version::HTTP_11,
        status: reason.status(),
        bytes_received: 0,
        bytes_sent: 0,
        duration: std::time::Duration::ZERO,
        upstream_duration: None,
        route: None,
        upstream: None,
        backend: None,
        tries: 0,
        reason: Some(reason),
        referer: None,
        user_agent: None,
    });
}
