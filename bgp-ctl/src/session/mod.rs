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
mod collision;
mod events;
mod inbound;
mod rib_out;
mod timers;

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rustbgpd_fsm::{Action as Do, Event, PeerConfig, SessionState, TimerType};
use rustbgpd_wire::notification::{NotificationCode, encode_shutdown_communication};
use rustbgpd_wire::{Afi, Message, NotificationMessage, Safi};

use crate::route::{Attributes, Community};
use codec::Egress;
pub use events::{Action, Counts, Input, State};
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

    /// As [`Self::new`], in the place of `before`, whose counts go on.
    pub fn in_place_of(before: &Self, settings: SessionSettings) -> Self {
        let mut session = Self::new(settings);
        session.counts = before.counts;
        session
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
            Input::Settings(settings) => self.go_on_by(settings, &mut out),
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

    /// VIPs that shall be announced, each with its attributes.
    pub fn desired(&self) -> Vec<(Ipv4Addr, Attributes)> {
        self.rib.desired()
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

    /// What goes with routes to a neighbour that knows four-octet numbers of autonomous systems, or doesn't.
    fn egress(&self, four_octet_as: bool) -> Egress {
        let next_hop = self
            .settings
            .next_hop
            .or(self.local)
            .unwrap_or(self.settings.router_id);
        Egress {
            local_as: self.settings.local_as,
            internal: self.internal(),
            four_octet_as,
            next_hop,
            med: self.settings.med,
            local_pref: self.settings.local_pref,
            communities: self.settings.communities.clone(),
        }
    }

    /// Tells the neighbour everything once more, if what goes with it is another: a route's last UPDATE holds (RFC 4271 9.1.4).
    fn go_on_by(&mut self, settings: &SessionSettings, out: &mut Vec<Action>) {
        self.settings.clone_from(settings);
        let Some(before) = &self.egress else { return };
        let egress = self.egress(before.four_octet_as);
        if *before != egress {
            self.egress = Some(egress);
            let changes = self.rib.take_all();
            self.send_changes(&changes, out);
        }
    }

    fn established(&mut self, four_octet_as: bool, out: &mut Vec<Action>) {
        self.egress = Some(self.egress(four_octet_as));
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
}
