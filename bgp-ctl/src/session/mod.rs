//! One BGP session as a pure state machine: bytes, timers and connections in, bytes and actions out.
//!
//! No sockets and no clock: [`Session::handle`] takes the time and an [`Input`] and returns [`Action`]s for the owner to
//! carry out. The protocol's states come from `rustbgpd-fsm`, the messages from `rustbgpd-wire`; both stay behind the types
//! of this module. What it adds: framing, Adj-RIB-Out, jitter and backoff, collisions (RFC 4271 6.8), a passive mode,
//! route refresh (RFC 2918, RFC 7313), error handling that keeps a session over a malformed attribute (RFC 7606).
//!
//! Routes the neighbour sends are parsed, so that its mistakes are noticed, and then dropped: a load balancer announces and
//! learns nothing.

mod codec;
mod rib_out;
mod timers;

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rustbgpd_fsm::{Action as Do, Event, PeerConfig, SessionState, TimerType};
use rustbgpd_wire::notification::{NotificationCode, encode_shutdown_communication};
use rustbgpd_wire::{
    Afi, DecodeError, ErrorDisposition, Message, NotificationMessage, OpenMessage,
    RouteRefreshMessage, RouteRefreshSubtype, Safi, UpdateMessage, decode_message,
    peek_message_length,
};
use serde::Serialize;

use crate::route::{Attributes, Community};
use codec::Egress;
pub use rib_out::{Changes, RibOut};
use timers::{Expired, Jitter, Timers, backoff};

/// A session that stayed up this long has proved itself: the next attempt after it starts without backoff.
const PROVEN: Duration = Duration::from_secs(10);

/// What a session needs to know about itself and its neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSettings {
    /// Our autonomous system.
    pub local_as: u32,
    /// The neighbour's autonomous system; the same as ours makes the session internal.
    pub remote_as: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Proposed hold time in seconds, 3 or more (RFC 4271 4.2).
    pub hold_time: u16,
    /// Wait after the first failure; doubled for each further one.
    pub connect_retry: Duration,
    /// Longest wait between attempts.
    pub connect_retry_max: Duration,
    /// How long a connection may take to be accepted.
    pub connect_timeout: Duration,
    /// Wait for the neighbour to connect instead of connecting (RFC 4271 8.1.1, PassiveTcpEstablishment).
    pub passive: bool,
    /// Next hop of all routes; `None` uses our address of the connection.
    pub next_hop: Option<Ipv4Addr>,
    /// MED of routes that don't bring one.
    pub med: Option<u32>,
    /// LOCAL_PREF, sent to internal neighbours only.
    pub local_pref: u32,
    /// Communities added to every route.
    pub communities: Vec<Community>,
    /// Seed of the timer jitter.
    pub seed: u64,
}

/// What can happen to a session.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Bring the session up, and again whenever it fails.
    Start,
    /// Take it down for good: withdrawals, Cease/Administrative Shutdown with this text (RFC 9003), close.
    Stop(&'a str),
    /// The connection asked for by [`Action::Connect`] is there; our address of it.
    Connected(Ipv4Addr),
    /// The neighbour has opened a connection; our address of it. It waits until accepted or refused, and takes the place of one
    /// that waits already.
    Incoming(Ipv4Addr),
    /// Connecting failed, or the session's connection is gone; why.
    Lost(&'a str),
    /// Bytes from the session's connection.
    Received(&'a [u8]),
    /// Announcements and withdrawals have been made: tell the neighbour, all in as few messages as they fit.
    Routes,
    /// A deadline may have passed.
    Tick,
}

/// What the owner of a session has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a connection to the neighbour, giving up an earlier attempt.
    Connect,
    /// The waiting connection becomes the session's; an attempt of our own is given up.
    AcceptIncoming,
    /// Write this to the waiting connection and close it.
    RefuseIncoming(Bytes),
    /// Write one message to the session's connection.
    Send(Bytes),
    /// Close the session's connection once everything sent is written; give up an attempt.
    Close,
    /// The session is established.
    Up,
    /// The established session has ended; why.
    Down(String),
}

/// Where a session stands (RFC 4271 8.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not running, or waiting before the next attempt after an error.
    Idle,
    /// Connecting.
    Connect,
    /// Waiting to connect again, or for the neighbour to connect.
    Active,
    /// Connected, OPEN sent.
    OpenSent,
    /// OPENs exchanged, waiting for the first KEEPALIVE.
    OpenConfirm,
    /// Routes flow.
    Established,
}

/// Counts since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Messages from the neighbour that were framed correctly.
    pub messages_received: u64,
    /// Messages written to the neighbour.
    pub messages_sent: u64,
    /// UPDATEs among the messages sent.
    pub updates_sent: u64,
    /// UPDATEs with an error that RFC 7606 lets the session survive.
    pub malformed_updates: u64,
    /// NOTIFICATIONs sent because of what the neighbour sent: bad header, bad OPEN, UPDATE beyond repair, wrong order.
    pub protocol_errors: u64,
    /// NOTIFICATIONs received.
    pub notifications_received: u64,
    /// NOTIFICATIONs sent.
    pub notifications_sent: u64,
    /// Times the session was established.
    pub established: u64,
    /// Times the hold timer ran out.
    pub hold_timer_expired: u64,
}

/// One BGP session and what its neighbour has been told.
#[derive(Debug)]
pub struct Session {
    settings: SessionSettings,
    fsm: rustbgpd_fsm::Session,
    timers: Timers,
    jitter: Jitter,
    rib: RibOut,
    /// Bytes of an unfinished message; never more than the largest message plus one read.
    inbox: BytesMut,
    /// Our address of the session's connection, while there is one.
    local: Option<Ipv4Addr>,
    /// The session's connection was opened by the neighbour.
    accepted: bool,
    /// A second connection from the neighbour waits, with our address of it.
    waiting: Option<Ipv4Addr>,
    /// The session shall be up: set by start, cleared by stop.
    wanted: bool,
    /// The neighbour's BGP identifier, from its OPEN.
    peer_id: Option<Ipv4Addr>,
    egress: Option<Egress>,
    enhanced_refresh: bool,
    refresh_due: bool,
    largest_message: u16,
    failures: u32,
    changed_at: Option<Instant>,
    last_error: Option<String>,
    counts: Counts,
}

impl Session {
    /// A session in Idle; [`Input::Start`] brings it up.
    pub fn new(settings: SessionSettings) -> Self {
        let mut peer = PeerConfig::new(settings.local_as, settings.remote_as, settings.router_id);
        peer.hold_time = settings.hold_time;
        peer.families = vec![(Afi::Ipv4, Safi::Unicast)];
        peer.required_families = vec![(Afi::Ipv4, Safi::Unicast)];
        // The session's own backoff replaces the machine's, which counts in whole seconds up to five minutes.
        peer.connect_retry_secs = 1;
        Self {
            fsm: rustbgpd_fsm::Session::new(peer),
            timers: Timers::default(),
            jitter: Jitter::new(settings.seed),
            rib: RibOut::default(),
            inbox: BytesMut::new(),
            local: None,
            accepted: false,
            waiting: None,
            wanted: false,
            peer_id: None,
            egress: None,
            enhanced_refresh: false,
            refresh_due: false,
            largest_message: rustbgpd_wire::MAX_MESSAGE_LEN,
            failures: 0,
            changed_at: None,
            last_error: None,
            counts: Counts::default(),
            settings,
        }
    }

    /// Takes one input at `now` and says what to do about it, in order.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> Vec<Action> {
        let mut out = Vec::new();
        match input {
            Input::Start => {
                self.wanted = true;
                self.timers.idle_hold = None;
                if self.state() == State::Idle {
                    self.event(now, Event::ManualStart, &mut out);
                }
            }
            Input::Stop(text) => self.stop(now, text, &mut out),
            Input::Connected(local) => {
                if matches!(self.state(), State::Connect | State::Active) && self.local.is_none() {
                    self.local = Some(local);
                    self.accepted = false;
                    self.event(now, Event::TcpConnectionConfirmed, &mut out);
                }
            }
            Input::Incoming(local) => self.waiting = Some(local),
            Input::Lost(why) => {
                if self.state() != State::Idle {
                    self.last_error = Some(why.to_owned());
                    self.event(now, Event::TcpConnectionFails, &mut out);
                }
            }
            Input::Received(bytes) => self.received(now, bytes, &mut out),
            Input::Routes => out.extend(self.synchronise()),
            Input::Tick => self.tick(now, &mut out),
        }
        self.settle_waiting(now, &mut out);
        debug_assert!(
            self.local.is_some() == (self.state() >= State::OpenSent),
            "a connection in exactly these states"
        );
        out
    }

    /// The VIP shall be announced, from the next [`Input::Routes`] on.
    pub fn announce(&mut self, vip: Ipv4Addr, attributes: Attributes) {
        self.rib.announce(vip, attributes);
    }

    /// The VIP shall not be announced, from the next [`Input::Routes`] on.
    pub fn withdraw(&mut self, vip: Ipv4Addr) {
        self.rib.withdraw(vip);
    }

    /// When to call [`Session::handle`] with [`Input::Tick`] at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Where the session stands.
    pub fn state(&self) -> State {
        State::from(self.fsm.state())
    }

    /// When the state last changed.
    pub fn changed_at(&self) -> Option<Instant> {
        self.changed_at
    }

    /// VIPs the neighbour has been told about.
    pub fn advertised(&self) -> Vec<Ipv4Addr> {
        self.rib.advertised().collect()
    }

    /// Why the session last failed.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// The neighbour's BGP identifier, once its OPEN was accepted.
    pub fn peer_id(&self) -> Option<Ipv4Addr> {
        self.peer_id
    }

    /// Negotiated hold time, in seconds.
    pub fn hold_time(&self) -> Option<u16> {
        self.fsm.negotiated().map(|negotiated| negotiated.hold_time)
    }

    /// Counts since the process started.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn internal(&self) -> bool {
        self.settings.local_as == self.settings.remote_as
    }

    fn stop(&mut self, now: Instant, text: &str, out: &mut Vec<Action>) {
        self.wanted = false;
        self.timers.idle_hold = None;
        self.rib.withdraw_all();
        out.extend(self.synchronise());
        if self.state() != State::Idle {
            self.last_error = Some(format!("stopped: {text}"));
            self.event(
                now,
                Event::ManualStop {
                    reason: Some(encode_shutdown_communication(text)),
                },
                out,
            );
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Action>) {
        while let Some(expired) = self.timers.pop(now) {
            match expired {
                Expired::Hold => {
                    self.counts.hold_timer_expired += 1;
                    self.last_error =
                        Some("hold timer expired: nothing heard from the neighbour".to_owned());
                    self.event(now, Event::HoldTimerExpires, out);
                }
                Expired::Keepalive => self.event(now, Event::KeepaliveTimerExpires, out),
                Expired::ConnectRetry => {
                    if self.state() == State::Connect {
                        self.failures = self.failures.saturating_add(1);
                        self.last_error = Some(format!(
                            "no answer within {:?}",
                            self.settings.connect_timeout
                        ));
                    }
                    self.event(now, Event::ConnectRetryTimerExpires, out);
                }
                Expired::IdleHold => self.event(now, Event::ManualStart, out),
            }
        }
    }

    fn received(&mut self, now: Instant, bytes: &[u8], out: &mut Vec<Action>) {
        if self.local.is_none() {
            return;
        }
        self.inbox.extend_from_slice(bytes);
        // An event may end the connection; what else had arrived on it is void then.
        while self.local.is_some() {
            match peek_message_length(&self.inbox, self.largest_message) {
                Ok(Some(length)) if self.inbox.len() >= usize::from(length) => {
                    let frame = self.inbox.split_to(usize::from(length)).freeze();
                    self.counts.messages_received += 1;
                    self.message(now, frame, out);
                }
                Ok(_) => break,
                Err(error) => self.broken(now, error, out),
            }
        }
        self.answer_refresh(out);
    }

    fn message(&mut self, now: Instant, mut frame: Bytes, out: &mut Vec<Action>) {
        match decode_message(&mut frame, self.largest_message) {
            Ok(Message::Open(open)) => self.open(now, open, out),
            Ok(Message::Keepalive) => self.event(now, Event::KeepaliveReceived, out),
            Ok(Message::Notification(notification)) => {
                self.counts.notifications_received += 1;
                self.last_error =
                    Some(format!("neighbour sent {}", codec::describe(&notification)));
                self.event(now, Event::NotificationReceived(notification), out);
            }
            Ok(Message::Update(update)) => self.update(now, &update, out),
            Ok(Message::RouteRefresh(refresh)) => self.route_refresh(now, &refresh, out),
            // The enum is open: a kind of message that isn't known here is one the neighbour may not send.
            Ok(_) => self.broken(now, DecodeError::UnknownMessageType(0), out),
            Err(error) => self.broken(now, error, out),
        }
    }

    fn open(&mut self, now: Instant, open: OpenMessage, out: &mut Vec<Action>) {
        let identifier = open.bgp_identifier;
        self.event(now, Event::OpenReceived(open), out);
        if self.state() == State::OpenConfirm {
            self.peer_id = Some(identifier);
            if let Some(negotiated) = self.fsm.negotiated() {
                self.enhanced_refresh = negotiated.peer_enhanced_route_refresh;
                if negotiated.peer_extended_message {
                    // RFC 8654 4: we offered it, so from here on we have to take it.
                    self.largest_message = rustbgpd_wire::EXTENDED_MAX_MESSAGE_LEN;
                }
            }
        }
    }

    fn update(&mut self, now: Instant, update: &UpdateMessage, out: &mut Vec<Action>) {
        let Some(four_octet_as) = self.egress.as_ref().map(|egress| egress.four_octet_as) else {
            // Not established: a finite state machine error (RFC 4271 6.6).
            return self.event(now, Event::UpdateReceived, out);
        };
        let parsed = match update.parse_revised(four_octet_as, self.internal(), false, &[]) {
            Ok(parsed) => parsed,
            Err(error) => return self.broken(now, error, out),
        };
        // RFC 7606 3 (h): the strongest of several errors decides. Routes are dropped in any case, so treat-as-withdraw and
        // attribute discard both come down to counting.
        match parsed
            .malformed
            .iter()
            .max_by_key(|malformed| malformed.disposition)
        {
            Some(worst) if worst.disposition == ErrorDisposition::SessionReset => {
                let error = worst.error.clone();
                self.broken(now, error, out);
            }
            worst => {
                if let Some(worst) = worst {
                    self.counts.malformed_updates += 1;
                    tracing::debug!(attribute = worst.type_code, error = %worst.error, "malformed UPDATE survived (RFC 7606)");
                }
                self.event(now, Event::UpdateReceived, out);
            }
        }
    }

    fn route_refresh(
        &mut self,
        now: Instant,
        refresh: &RouteRefreshMessage,
        out: &mut Vec<Action>,
    ) {
        if self.state() != State::Established {
            return self.event(
                now,
                Event::RouteRefreshReceived {
                    afi: Afi::Ipv4,
                    safi: Safi::Unicast,
                },
                out,
            );
        }
        // RFC 2918 4: a family that wasn't negotiated is ignored; so are the neighbour's own markers (RFC 7313 4).
        if (refresh.afi(), refresh.safi()) != (Some(Afi::Ipv4), Some(Safi::Unicast))
            || refresh.subtype() != RouteRefreshSubtype::Normal
        {
            return;
        }
        self.event(
            now,
            Event::RouteRefreshReceived {
                afi: Afi::Ipv4,
                safi: Safi::Unicast,
            },
            out,
        );
        self.refresh_due = true;
    }

    /// Answers ROUTE-REFRESH once, however often it was asked for in what has just been read: an answer may be long, a question is
    /// 23 octets.
    fn answer_refresh(&mut self, out: &mut Vec<Action>) {
        if !std::mem::take(&mut self.refresh_due) || self.egress.is_none() {
            return;
        }
        let changes = self.rib.take_all();
        if self.enhanced_refresh {
            self.send(codec::refresh_marker(RouteRefreshSubtype::BoRR), out);
        }
        self.send_changes(&changes, out);
        if self.enhanced_refresh {
            self.send(codec::refresh_marker(RouteRefreshSubtype::EoRR), out);
        }
    }

    /// The neighbour broke the protocol: NOTIFICATION, close, try again later.
    fn broken(&mut self, now: Instant, error: DecodeError, out: &mut Vec<Action>) {
        self.last_error = Some(format!("neighbour broke the protocol: {error}"));
        self.event(now, Event::DecodeError(error), out);
    }

    fn event(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        let tcp_failed = matches!(event, Event::TcpConnectionFails);
        let todo = self.fsm.handle_event(event);
        for action in todo {
            self.carry_out(now, action, out);
        }
        let waits_to_connect = tcp_failed && self.state() == State::Active;
        if waits_to_connect {
            self.failures = self.failures.saturating_add(1);
        }
        if self.state() == State::Idle && self.wanted && self.timers.idle_hold.is_none() {
            let delay = self.next_delay();
            self.timers.stop_connection();
            self.timers.idle_hold = Some(now + delay);
            self.failures = self.failures.saturating_add(1);
        }
    }

    fn carry_out(&mut self, now: Instant, action: Do, out: &mut Vec<Action>) {
        match action {
            Do::SendOpen(open) => self.send(codec::encode(&Message::Open(open)), out),
            Do::SendKeepalive => self.send(codec::encode(&Message::Keepalive), out),
            Do::SendNotification(notification) => self.notify(notification, out),
            Do::StartTimer(timer, seconds) => self.start_timer(now, timer, seconds),
            Do::StopTimer(TimerType::ConnectRetry) => self.timers.connect_retry = None,
            Do::StopTimer(TimerType::Hold) => self.timers.hold = None,
            Do::StopTimer(TimerType::Keepalive) => self.timers.keepalive = None,
            Do::InitiateTcpConnection if !self.settings.passive => out.push(Action::Connect),
            Do::CloseTcpConnection => {
                self.disconnected();
                out.push(Action::Close);
            }
            Do::StateChanged { old, new } if old != new => {
                if old == SessionState::Established {
                    let up_for = self
                        .changed_at
                        .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
                    if up_for >= PROVEN {
                        self.failures = 0;
                    }
                }
                if State::from(new) < State::OpenSent {
                    self.disconnected();
                }
                self.changed_at = Some(now);
            }
            Do::SessionEstablished(negotiated) => self.established(negotiated.four_octet_as, out),
            Do::SessionDown => {
                self.rib.forget_advertised();
                self.egress = None;
                let why = self
                    .last_error
                    .clone()
                    .unwrap_or_else(|| "connection closed".to_owned());
                out.push(Action::Down(why));
            }
            // Late timers and roles (RFC 9234, not offered) need nothing done.
            _ => {}
        }
    }

    fn established(&mut self, four_octet_as: bool, out: &mut Vec<Action>) {
        let next_hop = self
            .settings
            .next_hop
            .or(self.local)
            .unwrap_or(self.settings.router_id);
        self.egress = Some(Egress {
            local_as: self.settings.local_as,
            internal: self.internal(),
            four_octet_as,
            next_hop,
            med: self.settings.med,
            local_pref: self.settings.local_pref,
            communities: self.settings.communities.clone(),
        });
        self.counts.established += 1;
        self.last_error = None;
        out.push(Action::Up);
        self.rib.forget_advertised();
        out.extend(self.synchronise());
        self.send(codec::end_of_rib(), out);
    }

    fn start_timer(&mut self, now: Instant, timer: TimerType, seconds: u32) {
        let asked = Duration::from_secs(u64::from(seconds));
        match timer {
            TimerType::ConnectRetry => {
                // In Connect this timer ends the attempt, in Active the wait before the next one (RFC 4271 8.2.2).
                self.timers.connect_retry = match (self.settings.passive, self.fsm.state()) {
                    (true, _) => None,
                    (false, SessionState::Connect) => Some(now + self.settings.connect_timeout),
                    (false, _) => Some(now + self.next_delay()),
                };
            }
            TimerType::Hold => self.timers.hold = Some(now + asked),
            TimerType::Keepalive => self.timers.keepalive = Some(now + self.jitter.spread(asked)),
            _ => {}
        }
    }

    fn next_delay(&mut self) -> Duration {
        let delay = backoff(
            self.settings.connect_retry,
            self.settings.connect_retry_max,
            self.failures,
        );
        self.jitter.spread(delay)
    }

    fn notify(&mut self, notification: NotificationMessage, out: &mut Vec<Action>) {
        // Before a connection exists the machine asks for one too; there is nobody to send it to.
        if self.local.is_none() {
            return;
        }
        self.counts.notifications_sent += 1;
        if !matches!(
            notification.code,
            NotificationCode::Cease | NotificationCode::HoldTimerExpired
        ) {
            self.counts.protocol_errors += 1;
        }
        if notification.code != NotificationCode::Cease {
            let sent = codec::describe(&notification);
            self.last_error = Some(match self.last_error.take() {
                Some(why) => format!("{why} (sent {sent})"),
                None => format!("sent {sent}"),
            });
        }
        self.send(codec::encode(&Message::Notification(notification)), out);
    }

    fn disconnected(&mut self) {
        self.local = None;
        self.accepted = false;
        self.peer_id = None;
        self.egress = None;
        self.enhanced_refresh = false;
        self.refresh_due = false;
        self.largest_message = rustbgpd_wire::MAX_MESSAGE_LEN;
        self.inbox = BytesMut::new();
    }

    fn synchronise(&mut self) -> Vec<Action> {
        let mut out = Vec::new();
        if self.egress.is_some() {
            let changes = self.rib.take_changes();
            self.send_changes(&changes, &mut out);
        }
        out
    }

    fn send_changes(&mut self, changes: &Changes, out: &mut Vec<Action>) {
        let Some(egress) = &self.egress else { return };
        for message in codec::updates(changes, egress) {
            self.counts.updates_sent += 1;
            self.send(Some(message), out);
        }
    }

    fn send(&mut self, message: Option<Bytes>, out: &mut Vec<Action>) {
        if let Some(message) = message {
            self.counts.messages_sent += 1;
            out.push(Action::Send(message));
        }
    }

    /// Decides about a second connection, as soon as it can be decided.
    fn settle_waiting(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Some(local) = self.waiting else { return };
        let refuse = |subcode| codec::cease(subcode).map(Action::RefuseIncoming);
        match self.state() {
            State::Connect | State::Active => self.take_waiting(now, local, out),
            // Both connections come from the neighbour: it has given up the older one.
            State::OpenSent | State::OpenConfirm if self.accepted => {
                self.switch_to_waiting(now, local, out)
            }
            // Ours waits for the neighbour's identifier, which its OPEN will bring.
            State::OpenSent => {}
            State::OpenConfirm if self.neighbours_connection_wins() => {
                self.switch_to_waiting(now, local, out)
            }
            State::OpenConfirm | State::Established => {
                self.waiting = None;
                out.extend(refuse(codec::COLLISION));
            }
            State::Idle => {
                self.waiting = None;
                out.extend(refuse(codec::REJECTED));
            }
        }
    }

    /// RFC 4271 6.8: the connection opened by the speaker with the higher identifier lives; RFC 6286 2.3: equal identifiers
    /// are told apart by the AS number.
    fn neighbours_connection_wins(&self) -> bool {
        let theirs = (self.peer_id.map(u32::from), self.settings.remote_as);
        let ours = (
            Some(u32::from(self.settings.router_id)),
            self.settings.local_as,
        );
        theirs > ours
    }

    fn take_waiting(&mut self, now: Instant, local: Ipv4Addr, out: &mut Vec<Action>) {
        self.waiting = None;
        self.local = Some(local);
        self.accepted = true;
        out.push(Action::AcceptIncoming);
        self.event(now, Event::TcpConnectionAcknowledged, out);
    }

    fn switch_to_waiting(&mut self, now: Instant, local: Ipv4Addr, out: &mut Vec<Action>) {
        self.counts.notifications_sent += 1;
        self.send(codec::cease(codec::COLLISION), out);
        out.push(Action::Close);
        // The machine knows one connection only: it is led back to Active, and what it wants done on the way is void.
        let _ = self.fsm.handle_event(Event::TcpConnectionFails);
        if self.fsm.state() == SessionState::Idle {
            let _ = self.fsm.handle_event(Event::ManualStart);
        }
        self.timers.stop_connection();
        self.disconnected();
        self.take_waiting(now, local, out);
    }
}

impl From<SessionState> for State {
    fn from(state: SessionState) -> Self {
        match state {
            SessionState::Idle => Self::Idle,
            SessionState::Connect => Self::Connect,
            SessionState::Active => Self::Active,
            SessionState::OpenSent => Self::OpenSent,
            SessionState::OpenConfirm => Self::OpenConfirm,
            SessionState::Established => Self::Established,
        }
    }
}
