//! How far a flow is: the states of TCP as seen from the middle (RFC 9293 3.3.2 seen from both ends at once).
//!
//! Sequence numbers are not checked against the window: a segment with the right addresses and ports moves the state whoever sent
//! it, while the ends take an RST or SYN by its exact number only (RFC 5961 3, 4). So an RST is believed until the side it was for
//! goes on talking, which an end that was really reset doesn't. What is left to a forger who guesses the client's port: RST or FIN,
//! then nothing said for [`crate::Timeouts::close`] or [`crate::Timeouts::fin_wait`]; or then a SYN, which starts a new flow.

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

impl FlowState {
    /// Whether a SYN from the client means a new connection: the client at least has closed this one.
    #[inline]
    pub(crate) fn is_closing(self) -> bool {
        matches!(
            self,
            FlowState::FinClient | FlowState::TimeWait | FlowState::Closed
        )
    }
}

/// How far a flow is, and who has sent an RST that still counts; one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress(u8);

/// The bits of [`Progress`] that hold the state but for resets.
const PHASE: u8 = 0b0000_0111;
const RESET_BY_CLIENT: u8 = 0b0000_1000;
const RESET_BY_TARGET: u8 = 0b0001_0000;
const RESET: u8 = RESET_BY_CLIENT | RESET_BY_TARGET;

impl Progress {
    #[inline]
    pub(crate) const fn new(state: FlowState) -> Self {
        Self(state as u8)
    }

    /// How far the flow is.
    #[inline]
    pub(crate) fn state(self) -> FlowState {
        if self.0 & RESET == 0 {
            self.phase()
        } else {
            FlowState::Closed
        }
    }

    /// The state whose timeout holds. A reset that ended nothing established leaves no connection that could turn out to be alive
    /// after all, so its flow goes as soon as a closed one.
    #[inline]
    pub(crate) fn timed_as(self) -> FlowState {
        if self.state() == FlowState::Closed && self.phase() != FlowState::Established {
            FlowState::TimeWait
        } else {
            self.state()
        }
    }

    /// After a TCP segment from one side.
    #[inline]
    pub(crate) fn after(self, side: Side, flags: u8) -> Self {
        let (own, others) = match side {
            Side::Client => (RESET_BY_CLIENT, RESET_BY_TARGET),
            Side::Target => (RESET_BY_TARGET, RESET_BY_CLIENT),
        };
        if flags & RST != 0 {
            Self(self.0 | own)
        } else {
            Self(step(self.phase(), side, flags) as u8 | self.0 & RESET & !others)
        }
    }

    #[inline]
    fn phase(self) -> FlowState {
        BY_NUMBER[usize::from(self.0 & PHASE)]
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
