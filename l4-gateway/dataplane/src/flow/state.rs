//! How far a flow is: the states of TCP as seen from the middle (RFC 9293 3.3.2 seen from both ends at once).

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
    /// TCP, one sent RST. Traffic that goes on regardless (the RST was forged, its sequence number wrong) is still
    /// forwarded and keeps the flow.
    Closed,
}

/// How many states there are.
pub(crate) const STATES: usize = 8;

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

/// The state after a TCP segment from one side.
#[inline]
pub(crate) fn step(state: FlowState, side: Side, flags: u8) -> FlowState {
    use FlowState::{
        Closed, Established, FinClient, FinTarget, SynAnswered, SynReceived, TimeWait, Udp,
    };
    if flags & RST != 0 {
        return Closed;
    }
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
