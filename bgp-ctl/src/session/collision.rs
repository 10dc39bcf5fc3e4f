//! Two connections with one neighbour: which of them lives (RFC 4271 6.8).

use std::net::Ipv4Addr;
use std::time::Instant;

use rustbgpd_fsm::{Event, SessionState};

use super::{Action, Session, State, codec};

impl Session {
    /// Decides about a second connection, as soon as it can be decided.
    pub(super) fn settle_waiting(&mut self, now: Instant, out: &mut Vec<Action>) {
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
