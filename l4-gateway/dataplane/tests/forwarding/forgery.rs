//! Segments that somebody outside a connection made up: they are passed on, and move nothing here.

use dataplane::FlowState;

use super::frame::{ACK, FIN, RST, SYN};
use super::net::{BOTH, Net};
use super::rig::{Opened, Rig};

/// How far numbers may be from those of the connection to be believed.
const NEAR: u32 = 1 << 22;

/// The connection of these tests: the client counts from 1000, the target from 9000.
fn reached(net: Net, state: FlowState) -> (Rig, Opened) {
    let mut rig = Rig::of(net);
    let opened = rig.open(net.client(10, 40_000), 1000);
    if state != FlowState::SynReceived {
        rig.from_target(&opened, SYN | ACK, 9000, 1001);
    }
    if state == FlowState::Established {
        rig.from_client(&opened, ACK, 1001, 9001);
    }
    assert_eq!(state_of(&rig), state);
    (rig, opened)
}

fn state_of(rig: &Rig) -> FlowState {
    rig.worker.flows(rig.now).next().unwrap().state
}

#[derive(Clone, Copy, Debug)]
enum End {
    Client,
    Target,
}

/// Who sent it, flags, sequence and acknowledgment as the client counts, and the state afterwards; that before if it isn't believed.
type Case = (&'static str, FlowState, (End, u8, u32, u32), FlowState);

fn run(net: Net, cases: &[Case]) {
    for (description, before, (from, flags, seq, ack), after) in cases.iter().copied() {
        let (mut rig, opened) = reached(net, before);
        // Both fail if the segment isn't passed on.
        match from {
            End::Client => rig.from_client(&opened, flags, seq, ack),
            End::Target => rig.from_target(&opened, flags, seq, ack),
        };
        assert_eq!(state_of(&rig), after, "{description}");
        assert_eq!(
            rig.worker_counts().segments_disbelieved,
            u64::from(before == after),
            "{description}"
        );
    }
}

#[test]
fn a_blind_segment_moves_no_state() {
    for net in BOTH {
        use End::{Client, Target};
        use FlowState::{Established, SynAnswered, SynReceived};
        let far = NEAR + 1;
        let (ahead, behind) = (1001 + far, 1001u32.wrapping_sub(far));
        let (on, back) = (9001 + far, 9001u32.wrapping_sub(far));
        run(
            net,
            &[
                (
                    "RST ahead of the client",
                    Established,
                    (Client, RST, ahead, 0),
                    Established,
                ),
                (
                    "RST behind the client",
                    Established,
                    (Client, RST, behind, 0),
                    Established,
                ),
                (
                    "RST ahead of the target",
                    Established,
                    (Target, RST, on, 0),
                    Established,
                ),
                (
                    "RST behind the target",
                    Established,
                    (Target, RST, back, 0),
                    Established,
                ),
                (
                    "FIN ahead of the client",
                    Established,
                    (Client, FIN | ACK, ahead, 9001),
                    Established,
                ),
                (
                    "FIN of one who doesn't know what the target sent",
                    Established,
                    (Client, FIN | ACK, 1001, on),
                    Established,
                ),
                (
                    "FIN ahead of the target",
                    Established,
                    (Target, FIN | ACK, on, 1001),
                    Established,
                ),
                (
                    "FIN behind the target",
                    Established,
                    (Target, FIN | ACK, back, 1001),
                    Established,
                ),
                (
                    "the third step of a handshake by one who didn't see the second",
                    SynAnswered,
                    (Client, ACK, 1001, 0x0100_0000),
                    SynAnswered,
                ),
                (
                    "acknowledging what can't have been sent yet",
                    SynAnswered,
                    (Client, ACK, 1001, 9001 + 0x1_0000),
                    SynAnswered,
                ),
                (
                    "acknowledging less than the SYN",
                    SynAnswered,
                    (Client, ACK, 1001, 9000),
                    SynAnswered,
                ),
                (
                    "FIN of the client without ACK",
                    Established,
                    (Client, FIN, 1001, 9001),
                    Established,
                ),
                (
                    "FIN of the target without ACK",
                    Established,
                    (Target, FIN, 9001, 1001),
                    Established,
                ),
                (
                    "FIN of a target that acknowledges what the client is far from",
                    Established,
                    (Target, FIN | ACK, 9001, ahead),
                    Established,
                ),
                (
                    "an answer to a SYN, from the side that has no business to answer",
                    SynReceived,
                    (Client, SYN | ACK, 77_000_000, 9001),
                    SynReceived,
                ),
                (
                    "FIN right behind a SYN",
                    SynReceived,
                    (Client, FIN | ACK, 1001, 0x0100_0000),
                    SynReceived,
                ),
                (
                    "an answer to another SYN",
                    SynReceived,
                    (Target, SYN | ACK, 9000, 1002),
                    SynReceived,
                ),
                (
                    "an answer to no SYN",
                    SynReceived,
                    (Target, SYN | ACK, 9000, 1000),
                    SynReceived,
                ),
                (
                    "a refusal of another SYN",
                    SynReceived,
                    (Target, RST | ACK, 0, 1002),
                    SynReceived,
                ),
                (
                    "a refusal that acknowledges nothing",
                    SynReceived,
                    (Target, RST, 0, 0),
                    SynReceived,
                ),
                (
                    "the end of an older connection over the port",
                    SynReceived,
                    (Target, FIN | ACK, 500, 1001),
                    SynReceived,
                ),
            ],
        );
    }
}

#[test]
fn a_segment_whose_numbers_fit_does() {
    for net in BOTH {
        use End::{Client, Target};
        use FlowState::{Closed, Established, FinClient, FinTarget, SynAnswered, SynReceived};
        let (ahead, behind) = (1001 + NEAR, 1001u32.wrapping_sub(NEAR));
        let (on, back) = (9001 + NEAR, 9001u32.wrapping_sub(NEAR));
        run(
            net,
            &[
                (
                    "RST as far ahead as can be",
                    Established,
                    (Client, RST, ahead, 0),
                    Closed,
                ),
                (
                    "RST as far behind as can be",
                    Established,
                    (Client, RST, behind, 0),
                    Closed,
                ),
                (
                    "RST of a client that sets ACK and means nothing by it",
                    Established,
                    (Client, RST | ACK, 1001, 0x7777_7777),
                    Closed,
                ),
                (
                    "RST as far ahead of the target as can be",
                    Established,
                    (Target, RST, on, 0),
                    Closed,
                ),
                (
                    "RST as far behind the target as can be",
                    Established,
                    (Target, RST, back, 0),
                    Closed,
                ),
                (
                    "FIN behind a window of data that was lost",
                    Established,
                    (Client, FIN | ACK, ahead, on),
                    FinClient,
                ),
                (
                    "FIN of the target behind data under way",
                    Established,
                    (Target, FIN | ACK, on, 1001),
                    FinTarget,
                ),
                (
                    "the third step of the handshake",
                    SynAnswered,
                    (Client, ACK, 1001, 9001),
                    Established,
                ),
                (
                    "the third step after the target sent a window",
                    SynAnswered,
                    (Client, ACK, 1001, 9001 + 0xffff),
                    Established,
                ),
                (
                    "RST by the client that didn't want it",
                    SynAnswered,
                    (Client, RST, 1001, 0),
                    Closed,
                ),
                (
                    "a refusal",
                    SynReceived,
                    (Target, RST | ACK, 0, 1001),
                    Closed,
                ),
                (
                    "a refusal of the SYN sent again",
                    SynAnswered,
                    (Target, RST | ACK, 0, 1001),
                    Closed,
                ),
            ],
        );
    }
}

#[test]
fn numbers_are_followed_around_the_end_of_their_space() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let start = u32::MAX - 10_000_000;
        let opened = rig.open(net.client(10, 40_000), start);
        rig.from_target(&opened, SYN | ACK, start, start.wrapping_add(1));
        for sent in (0..20_000_000).step_by(1_000_000) {
            let at = start.wrapping_add(1 + sent);
            rig.from_client(&opened, ACK, at, at);
        }
        let end = start.wrapping_add(1 + 19_000_000);
        // Where it began is far away by now.
        rig.from_client(&opened, RST, start.wrapping_add(1), 0);
        rig.from_target(&opened, RST, start.wrapping_add(1), 0);
        assert_eq!(state_of(&rig), FlowState::Established);
        rig.from_client(&opened, FIN | ACK, end, end);
        rig.from_target(&opened, FIN | ACK, end, end.wrapping_add(1));
        assert_eq!(state_of(&rig), FlowState::TimeWait);
    }
}

/// Neither the number of a SYN that nobody answered nor that of the answer is settled before the handshake is.
#[test]
fn a_handshake_that_begins_anew_is_followed() {
    for net in BOTH {
        let (mut rig, opened) = reached(net, FlowState::SynReceived);
        // The client gave up and tries again from the same port.
        rig.from_client(&opened, SYN, 77_000_000, 0);
        rig.from_target(&opened, SYN | ACK, 9000, 77_000_001);
        // A target with SYN cookies forgets what it answered.
        rig.from_target(&opened, SYN | ACK, 500_009_000, 77_000_001);
        rig.from_client(&opened, ACK, 77_000_001, 500_009_001);
        assert_eq!(state_of(&rig), FlowState::Established);
        rig.from_client(&opened, FIN | ACK, 77_000_001, 500_009_001);
        rig.from_target(&opened, FIN | ACK, 500_009_001, 77_000_002);
        assert_eq!(state_of(&rig), FlowState::TimeWait);
        assert_eq!(rig.worker_counts().segments_disbelieved, 0);
    }
}

#[test]
fn a_segment_sent_again_takes_nothing_back() {
    for net in BOTH {
        let (mut rig, opened) = reached(net, FlowState::Established);
        for sent in (0..8_000_000).step_by(4_000_000) {
            rig.from_client(&opened, ACK, 1001 + sent, 9001 + sent);
        }
        rig.from_client(&opened, ACK, 1001, 9001);
        // Measured from the furthest, not from the last.
        rig.from_client(&opened, RST, 1001 + 4_000_000 + NEAR, 0);
        assert_eq!(state_of(&rig), FlowState::Closed);
    }
}
