//! What the neighbour sends: cut into messages, read, and turned into events.

use std::time::Instant;

use bytes::Bytes;
use rustbgpd_fsm::Event;
use rustbgpd_wire::{
    Afi, DecodeError, ErrorDisposition, Message, OpenMessage, RouteRefreshMessage,
    RouteRefreshSubtype, Safi, UpdateMessage, decode_message, peek_message_length,
};

use super::{Action, Session, State, codec};

impl Session {
    pub(super) fn received(&mut self, now: Instant, bytes: &[u8], out: &mut Vec<Action>) {
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
}
