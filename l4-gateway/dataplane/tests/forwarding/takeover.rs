//! A SYN on the key of a living flow: when it takes the flow's place at once, and when the target is asked.

use dataplane::{ClientAddress, FlowState};

use super::frame::{self, ACK, FIN, RST, SYN};
use super::net::{BOTH, Net};
use super::rig::{self, INSIDE, Opened, Rig};

/// How far numbers may be from those of the connection to be believed.
const NEAR: u32 = 1 << 22;

/// An established connection: the client counts from 1001, the target from 9001.
fn established(net: Net) -> (Rig, Opened) {
    let mut rig = Rig::of(net);
    let opened = rig.establish(net.client(10, 40_000), 1000);
    (rig, opened)
}

fn state_of(rig: &Rig) -> FlowState {
    rig.worker.flows(rig.now).next().unwrap().state
}

/// A SYN of the client's address and port that goes to the connection's target, with its local port and by its numbers.
fn knock(rig: &mut Rig, opened: &Opened, seq: u32) {
    let net = rig.net;
    let syn = frame::tcp(opened.client, net.vip(80), SYN).seq(seq, 0);
    let mut expected = frame::tcp(
        net.local(opened.local_port),
        net.target(opened.target, 8080),
        SYN,
    )
    .seq(seq.wrapping_add(opened.shift), 0);
    expected.ttl -= 1;
    assert_eq!(
        rig.outside(&syn),
        (INSIDE, rig::to_target(&expected, opened.target))
    );
    assert_eq!(rig.worker_counts().flows_rescheduled, 0);
    assert_eq!(rig.flow_count(), 1);
}

/// A SYN of the client's address and port that gets another target.
fn replaces(rig: &mut Rig, opened: &Opened, seq: u32) {
    let again = rig.open(opened.client, seq);
    assert_eq!((opened.target, again.target), (21, 22));
    assert_eq!(rig.worker_counts().flows_rescheduled, 1);
    assert_eq!(state_of(rig), FlowState::SynReceived);
}

#[test]
fn blind_resets_and_syns_take_no_connection_away() {
    for net in BOTH {
        let (mut rig, opened) = established(net);
        // One of them is near enough to be believed.
        for guess in 0..512u32 {
            rig.from_client(
                &opened,
                RST,
                guess.wrapping_mul(2 * NEAR).wrapping_add(500),
                0,
            );
            knock(&mut rig, &opened, guess.wrapping_mul(77_777_777));
        }
        // Whose answer the client's RST would be to, had it forgotten the connection.
        rig.from_target(&opened, ACK, 9001, 1001);
        rig.from_client(&opened, ACK, 1001, 9001);
        assert_eq!(state_of(&rig), FlowState::Established);
        // The end is still believed: no number has moved.
        rig.from_client(&opened, RST, 1001, 0);
        replaces(&mut rig, &opened, 500_000);
    }
}

#[test]
fn a_syn_takes_the_place_of_a_connection_that_ended() {
    for net in BOTH {
        type Segments = &'static [(bool, u8, u32, u32)];
        const CLIENT: bool = true;
        const TARGET: bool = false;
        let ends: [(&str, Segments); 6] = [
            ("RST at the client's next number", &[(CLIENT, RST, 1001, 0)]),
            (
                "RST elsewhere that knows the target's number",
                &[(CLIENT, RST | ACK, 1501, 9001)],
            ),
            (
                "RST of the target at its next number",
                &[(TARGET, RST, 9001, 0)],
            ),
            (
                "RST of the target behind data under way, which acknowledges all of the client",
                &[(TARGET, RST | ACK, 70_000, 1001)],
            ),
            (
                "FIN of both",
                &[
                    (CLIENT, FIN | ACK, 1001, 9001),
                    (TARGET, FIN | ACK, 9001, 1002),
                ],
            ),
            (
                "FIN of both, and any RST",
                &[
                    (CLIENT, FIN | ACK, 1001, 9001),
                    (TARGET, FIN | ACK, 9001, 1002),
                    (CLIENT, RST, 777, 0),
                ],
            ),
        ];
        for (description, segments) in ends {
            println!("{description}");
            let (mut rig, opened) = established(net);
            for (from_client, flags, seq, ack) in segments.iter().copied() {
                if from_client {
                    rig.from_client(&opened, flags, seq, ack);
                } else {
                    rig.from_target(&opened, flags, seq, ack);
                }
            }
            replaces(&mut rig, &opened, 500_000);
        }
    }
}

/// The client has sent FIN and still downloads. One that is really gone says so when the target asks.
#[test]
fn a_syn_on_a_half_closed_connection_is_the_targets_to_judge() {
    for net in BOTH {
        let (mut rig, opened) = established(net);
        rig.from_client(&opened, FIN | ACK, 1001, 9001);
        knock(&mut rig, &opened, 500_000);
        rig.from_target(&opened, ACK, 9001, 1002);
        assert_eq!(state_of(&rig), FlowState::FinClient);
        rig.from_client(&opened, RST, 1002, 0);
        replaces(&mut rig, &opened, 500_000);
    }
}

/// Bytes before the client's RST were lost on their way, and its target took it; the client uses its port again at once.
#[test]
fn a_connection_that_the_target_has_forgotten_begins_anew_on_its_flow() {
    for net in BOTH {
        let (mut rig, opened) = established(net);
        rig.from_client(&opened, RST, 1501, 0);
        assert_eq!(state_of(&rig), FlowState::Closed);
        knock(&mut rig, &opened, 90_000_000);
        // An answer to any other number is nothing.
        rig.from_target(&opened, SYN | ACK, 70_000_000, 90_000_002);
        assert_eq!(state_of(&rig), FlowState::Closed);
        rig.from_target(&opened, SYN | ACK, 70_000_000, 90_000_001);
        assert_eq!(state_of(&rig), FlowState::SynAnswered);
        rig.from_client(&opened, ACK, 90_000_001, 70_000_001);
        assert_eq!(state_of(&rig), FlowState::Established);
        rig.pass(800);
        assert_eq!(rig.flow_count(), 1, "it has the timeout of any other");
        rig.from_client(&opened, FIN | ACK, 90_000_001, 70_000_001);
        rig.from_target(&opened, FIN | ACK, 70_000_001, 90_000_002);
        assert_eq!(state_of(&rig), FlowState::TimeWait);
        replaces(&mut rig, &opened, 500_000);
    }
}

/// The client gave its first try up while the answer was on its way, and begins another from the same port, whose handshake goes on by the
/// flow: neither a late second copy of its RST for the first answer ends it, nor one of its SYN begins a third.
#[test]
fn a_client_that_begins_anew_while_its_answer_is_on_the_way_is_followed() {
    for net in BOTH {
        for client_address in [ClientAddress::None, ClientAddress::Toa] {
            let mut services = net.services();
            services[0].client_address = client_address;
            let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
            let opened = rig.open(net.client(10, 40_000), 1000);
            rig.from_target(&opened, SYN | ACK, 9000, 1001);
            rig.from_client(&opened, SYN, 90_000_000, 0);
            assert_eq!(state_of(&rig), FlowState::SynAnswered);
            rig.from_client(&opened, RST, 1001, 0);
            assert_eq!(state_of(&rig), FlowState::Closed);
            rig.from_target(&opened, SYN | ACK, 70_000_000, 90_000_001);
            for (flags, seq) in [(RST, 1001), (SYN, 90_000_000)] {
                rig.from_client(&opened, flags, seq, 0);
                assert_eq!(state_of(&rig), FlowState::SynAnswered);
            }
            rig.from_client(&opened, ACK, 90_000_001, 70_000_001);
            assert_eq!(state_of(&rig), FlowState::Established);
            assert_eq!(rig.worker_counts().flows_rescheduled, 0);
        }
    }
}

#[test]
fn a_living_connection_begins_anew_by_nobodys_syn_ack() {
    for net in BOTH {
        let (mut rig, opened) = established(net);
        knock(&mut rig, &opened, 90_000_000);
        rig.from_target(&opened, SYN | ACK, 70_000_000, 90_000_001);
        assert_eq!(state_of(&rig), FlowState::Established);
        rig.from_client(&opened, FIN | ACK, 1001, 9001);
        rig.from_target(&opened, FIN | ACK, 9001, 1002);
        assert_eq!(state_of(&rig), FlowState::TimeWait);
    }
}
