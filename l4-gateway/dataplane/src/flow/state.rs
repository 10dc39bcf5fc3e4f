//! How far a flow is: the states of TCP as seen from the middle (RFC 9293 3.3.2 seen from both ends at once).
//!
//! Only segments whose numbers fit get here (`belief.rs`); an RST that fits may be forged all the same. The end it was for takes it by its
//! exact number only (RFC 5961 3), which is not always known here to the last byte. So an RST is believed until the side it was for goes
//! on talking, and forgotten when both do. Only one with a number that nobody outside can guess makes room for another connection at once.

use super::Side;
use crate::wire::tcp::{ACK, FIN, RST, SYN};

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FlowState {
    /// UDP.
    Udp,
    /// TCP, the client's SYN was forwarded.
    SynReceived,
    /// TCP, the target answered the SYN; the client's ACK is due.
    SynAnswered,
    /// TCP, the handshake is complete.
    Established,
    /// TCP, the client sent FIN.
    FinClient,
    /// TCP, the target sent FIN.
    FinTarget,
    /// TCP, both sent FIN.
    TimeWait,
    /// TCP, one sent RST. If the other goes on talking (the RST was forged, its sequence number wrong), the flow is where it was
    /// before.
    Closed,
}

/// How many states there are.
pub(crate) const STATES: usize = 8;

/// By number, as [`Progress`] keeps them.
const BY_NUMBER: [FlowState; STATES] = [
    FlowState::Udp,
    FlowState::SynReceived,
    FlowState::SynAnswered,
    FlowState::Established,
    FlowState::FinClient,
    FlowState::FinTarget,
    FlowState::TimeWait,
    FlowState::Closed,
];

/// How far a flow is, and what became of RSTs from either side; one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress(u8);

/// The bits of [`Progress`] that hold the state but for resets; above them are two for the last RST of each side, and [`EXACT`].
const PHASE: u8 = 0b111;
const BY_CLIENT: u8 = 3;
const BY_TARGET: u8 = 5;
/// One of the RSTs had a number that nobody outside can guess. Without any of them, on an established connection: what is known of its
/// numbers may be out of date.
const EXACT: u8 = 1 << 7;
const UNSURE: u8 = EXACT | FlowState::Established as u8;

/// What became of an RST. Both ends must be heard to be sure that it was forged: the one it was for may have had segments on
/// their way, and one that was really reset doesn't always come to answer them by another RST (firewalls).
const NONE: u8 = 0b00;
const BELIEVED: u8 = 0b01;
/// Who it was for has spoken since.
const GAINSAID: u8 = 0b10;
/// Who is said to have sent it has spoken since: by itself no more than two segments out of order.
const DOUBTED: u8 = 0b11;

impl Progress {
    #[inline]
    pub(crate) const fn new(state: FlowState) -> Self {
        Self(state as u8)
    }

    /// How far the flow is.
    #[inline]
    pub(crate) fn state(self) -> FlowState {
        let stands = |by| matches!(self.reset(by), BELIEVED | DOUBTED);
        if self.0 > PHASE && (stands(BY_CLIENT) || stands(BY_TARGET)) {
            FlowState::Closed
        } else {
            self.phase()
        }
    }

    /// The state whose timeout holds: until it is sure that an RST was forged, that of a closed flow. A reset that ended nothing
    /// established leaves no connection that could turn out to be alive, so its flow goes sooner.
    #[inline]
    pub(crate) fn timed_as(self) -> FlowState {
        match self.phase() {
            phase if self.0 & !(PHASE | EXACT) == 0 => phase,
            FlowState::Established => FlowState::Closed,
            _ => FlowState::TimeWait,
        }
    }

    /// After a TCP segment from one side.
    #[inline]
    pub(crate) fn after(self, side: Side, flags: u8) -> Self {
        let (own, others) = match side {
            Side::Client => (BY_CLIENT, BY_TARGET),
            Side::Target => (BY_TARGET, BY_CLIENT),
        };
        if flags & RST != 0 {
            return self.sure().with_reset(own, BELIEVED);
        }
        let progress = Self(step(self.phase(), side, flags) as u8 | self.0 & !PHASE);
        if progress.0 <= PHASE {
            return progress;
        }
        let progress = progress
            .with_reset(
                own,
                match progress.reset(own) {
                    NONE | GAINSAID => NONE,
                    _ => DOUBTED,
                },
            )
            .with_reset(
                others,
                match progress.reset(others) {
                    NONE | DOUBTED => NONE,
                    _ => GAINSAID,
                },
            );
        if progress.0 & !(PHASE | EXACT) == 0 {
            return Self(progress.0 & PHASE);
        }
        progress
    }

    /// After a client's segment by which what is known of an established connection may be out of date. Nothing else changes, but that
    /// it doesn't count as [`Progress::is_established`], so that the next segment of each side is looked at.
    pub(super) fn unsure(self) -> Self {
        if self.is_established() {
            Self(UNSURE)
        } else {
            self
        }
    }

    /// Whether that is so; until a segment is believed again.
    pub(super) fn is_unsure(self) -> bool {
        self.0 == UNSURE
    }

    fn sure(self) -> Self {
        if self.is_unsure() {
            Self(self.0 & PHASE)
        } else {
            self
        }
    }

    /// After an RST that was at exactly the number its receiver expects.
    pub(super) fn reset_exactly(self) -> Self {
        Self(self.0 | EXACT)
    }

    /// Whether an RST that stands had a number that nobody outside can guess.
    pub(super) fn is_reset_exactly(self) -> bool {
        self.0 & EXACT != 0 && self.state() == FlowState::Closed
    }

    /// After a TCP segment from the client of a flow whose target isn't heard. An RST is forgotten when the client goes on talking:
    /// should it have been two segments out of order, a flow that nobody uses is kept for longer, and nothing else is lost.
    pub(crate) fn after_client_alone(self, flags: u8) -> Self {
        use FlowState::{Established, FinClient, SynReceived};
        if flags & RST != 0 {
            return self.with_reset(BY_CLIENT, BELIEVED);
        }
        Self::new(match self.phase() {
            SynReceived | Established if flags & FIN != 0 => FinClient,
            SynReceived if flags & (SYN | ACK) == ACK => Established,
            phase => phase,
        })
    }

    /// Whether it is established, nobody reset it, and its numbers are known.
    #[inline]
    pub(crate) fn is_established(self) -> bool {
        self.0 == FlowState::Established as u8
    }

    /// How far it is but for resets.
    #[inline]
    pub(super) fn phase(self) -> FlowState {
        BY_NUMBER[usize::from(self.0 & PHASE)]
    }

    fn reset(self, by: u8) -> u8 {
        self.0 >> by & 0b11
    }

    fn with_reset(self, by: u8, reset: u8) -> Self {
        Self(self.0 & !(0b11 << by) | reset << by)
    }
}

/// The state after a TCP segment, not an RST, from one side.
#[inline]
fn step(state: FlowState, side: Side, flags: u8) -> FlowState {
    use FlowState::{
        Closed, Established, FinClient, FinTarget, SynAnswered, SynReceived, TimeWait, Udp,
    };
    let fin = flags & FIN != 0;
    match (state, side) {
        (SynReceived, Side::Target) if flags & (SYN | ACK) == SYN | ACK => SynAnswered,
        (SynReceived | SynAnswered | Established, Side::Client) if fin => FinClient,
        (SynReceived | SynAnswered | Established, Side::Target) if fin => FinTarget,
        (SynAnswered, Side::Client) if flags & (SYN | ACK) == ACK => Established,
        (FinClient, Side::Target) | (FinTarget, Side::Client) if fin => TimeWait,
        (
            Udp | SynReceived | SynAnswered | Established | FinClient | FinTarget | TimeWait
            | Closed,
            _,
        ) => state,
    }
}
