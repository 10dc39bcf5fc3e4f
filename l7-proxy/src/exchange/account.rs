//! Phase: log and count. An [`Account`] lives as long as its request; dropping it writes the access log and the metrics, so each
//! request is counted exactly once whichever way it ends.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use http::header::{HOST, REFERER, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Uri, Version};

use super::client::Client;
use super::generation::Generation;
use super::worker::{Entrance, Worker};
use crate::http::{Field, Fields, Peer, Upload};
use crate::observe::access_log::Entry;
use crate::observe::reason::Reason;
use crate::policy::Route;

/// What is known about a request so far. Held in a box: it goes through many hands, to the end of the response's body.
#[derive(Debug)]
pub(crate) struct Account {
    client: Rc<Client>,
    generation: Rc<Generation>,
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
    /// By its number.
    route: Option<usize>,
    tries: u32,
    /// By its index in the upstream.
    member: Option<usize>,
    first_try: Option<Instant>,
    try_began: Instant,
    from_backend: bool,
    head: Option<Instant>,
    reason: Option<Reason>,
    complete: bool,
}

impl Account {
    /// A request whose head is complete and has these fields.
    pub(crate) fn open(
        client: Rc<Client>,
        generation: Rc<Generation>,
        parts: &Parts,
        fields: Fields,
        upload: Rc<Upload>,
        start: Instant,
    ) -> Box<Account> {
        let value = |field, name| {
            let value = fields.has(field).then(|| parts.headers.get(name));
            value.flatten().cloned()
        };
        Box::new(Account {
            who: client.peer.address(),
            client,
            generation,
            upload,
            time: SystemTime::now(),
            start,
            method: parts.method.clone(),
            host: value(Field::Host, HOST)
                .or_else(|| HeaderValue::from_str(parts.uri.authority()?.as_str()).ok()),
            target: parts.uri.clone(),
            version: parts.version,
            referer: value(Field::Referer, REFERER),
            user_agent: value(Field::UserAgent, USER_AGENT),
            status: None,
            bytes_sent: 0,
            route: None,
            tries: 0,
            member: None,
            first_try: None,
            try_began: start,
            from_backend: false,
            head: None,
            reason: None,
            complete: false,
        })
    }

    /// Whom a trusted peer named as the client.
    pub(crate) fn client_is(&mut self, who: IpAddr) {
        self.who = who;
    }

    /// The client.
    pub(crate) fn client(&self) -> IpAddr {
        self.who
    }

    /// The route was found.
    pub(crate) fn routed(&mut self, route: &Route) {
        self.route = Some(route.number);
    }

    /// Records that a try on `member` of the upstream begins; returns when.
    pub(crate) fn tried(&mut self, member: usize) -> Instant {
        let now = Instant::now();
        self.tries += 1;
        self.member = Some(member);
        self.first_try.get_or_insert(now);
        self.try_began = now;
        now
    }

    /// The last try's response head came, or it failed: after how long.
    pub(crate) fn answered(&mut self) -> Duration {
        let now = Instant::now();
        self.head = Some(now);
        now.saturating_duration_since(self.try_began)
    }

    /// The status is about to be sent; `reason` when the answer is our own.
    pub(crate) fn respond(&mut self, status: StatusCode, reason: Option<Reason>) {
        self.status = Some(status);
        self.from_backend = reason.is_none();
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

    pub(crate) fn is_http1(&self) -> bool {
        self.version == Version::HTTP_11
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
        let route = self.route.and_then(|number| self.generation.route(number));
        let served = route.and_then(|route| self.generation.upstream(route.upstream));
        let upstream = served.map(|served| &*served.upstream.name);
        let (code, seconds) = (status.as_u16(), duration.as_secs_f64());
        match entrance.metrics_in(&self.generation.snapshot) {
            Some(metrics) => metrics.request(route.map(|route| route.number), code, seconds),
            None => {
                let names = route.zip(upstream);
                let names = names.map(|(route, upstream)| (&*route.name, upstream));
                entrance.metrics.late_request(names, code, seconds);
            }
        }
        if let Some(reason) = self.reason {
            entrance.metrics.answered(reason);
        }
        let member = served
            .zip(self.member)
            .and_then(|(served, index)| served.member(index))
            .map(|(member, _)| member);
        if let Some(member) = member
            && self.from_backend
        {
            let metrics = &member.metrics;
            metrics.carried(self.upload.bytes.get(), self.bytes_sent);
        }

        if let Some(log) = &mut *worker.log.borrow_mut() {
            let target = self
                .target
                .path_and_query()
                .map_or("/", http::uri::PathAndQuery::as_str);
            let peer = &self.client.peer;
            let named = (self.who != peer.address()).then(|| Peer::new(self.who));
            log.record(&Entry {
                time: self.time,
                client: named.as_ref().unwrap_or(peer).text(),
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
                route: route.map(|route| &*route.name),
                upstream,
                backend: member.map(|member| member.backend.name()),
                tries: self.tries,
                reason: self.reason,
                referer: self.referer.as_ref(),
                user_agent: self.user_agent.as_ref(),
            });
        }
    }
}

/// Logs and counts a request whose head was refused before it was one. What it was is unknown: method and target are `-`.
pub(crate) fn refused(client: &Client, reason: Reason) {
    record(&client.worker, &client.entrance, &client.peer, reason, true);
}

/// Counts a connection that was told that its listener is full, as the request it would have been, and logs it if `logged`.
pub(crate) fn turned_away(worker: &Worker, entrance: &Entrance, client: IpAddr, logged: bool) {
    let client = &Peer::new(client);
    record(worker, entrance, client, Reason::ConnectionLimit, logged);
}

fn record(worker: &Worker, entrance: &Entrance, client: &Peer, reason: Reason, logged: bool) {
    let metrics = &entrance.metrics;
    metrics.request(None, reason.status().as_u16(), 0.0);
    entrance.metrics.answered(reason);
    if !logged {
        return;
    }
    // `-` is a token, so this is a method (RFC 9110 section 5.6.2).
    let (Some(log), Ok(method)) = (&mut *worker.log.borrow_mut(), Method::from_bytes(b"-")) else {
        return;
    };
    log.record(&Entry {
        time: SystemTime::now(),
        client: client.text(),
        listener: &entrance.listener().name,
        scheme: entrance.listener().protocol.scheme(),
        method: &method,
        host: None,
        target: "-",
        version: Version::HTTP_11,
        status: reason.status(),
        bytes_received: 0,
        bytes_sent: 0,
        duration: Duration::ZERO,
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
