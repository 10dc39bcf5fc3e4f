//! More than the flow's numbers may be apart was acknowledged in segments that never came here: the target says where the connection is.

use dataplane::FlowState;

use super::frame::{ACK, FIN, RST, SYN};
use super::net::{BOTH, Net};
use super::rig::{Opened, Rig};

/// How far numbers may be from those of the connection to be believed.
const NEAR: u32 = 1 << 22;

/// The client counts from 1000, the target from 9000.
fn established(net: Net) -> (Rig, Opened) {
    let mut rig = Rig::of(net);
    let opened = rig.establish(net.client(10, 40_000), 1000);
    assert_eq!(state_of(&rig), FlowState::Established);
    (rig, opened)
}

fn state_of(rig: &Rig) -> FlowState {
    rig.worker.flows(rig.now).next().unwrap().state
}

fn disbelieved(rig: &Rig) -> u64 {
    rig.worker_counts().segments_disbelieved
}

#[test]
fn a_download_whose_acknowledgments_were_lost_before_us_ends_as_any() {
    for net in BOTH {
        for further in [NEAR + 1, 5 * NEAR, 1 << 30] {
            let (mut rig, opened) = established(net);
            let here = 9001 + further;
            rig.from_client(&opened, ACK, 1001, here);
            assert_eq!(disbelieved(&rig), 1);
            // What the target sends beyond that shows that it got the acknowledgment.
            rig.from_target(&opened, ACK, here, 1001);
            rig.from_client(&opened, ACK, 1001, here + 1460);
            assert_eq!(disbelieved(&rig), 1, "{net:?}, {further} bytes on");
            rig.from_target(&opened, FIN | ACK, here + 1460, 1001);
            assert_eq!(state_of(&rig), FlowState::FinTarget);
            rig.from_client(&opened, FIN | ACK, 1001, here + 1461);
            assert_eq!(state_of(&rig), FlowState::TimeWait);
            assert_eq!(disbelieved(&rig), 1);
        }
    }
}

#[test]
fn the_target_s_fin_may_be_what_tells() {
    for net in BOTH {
        let (mut rig, opened) = established(net);
        let here = 9001 + 5 * NEAR;
        rig.from_client(&opened, ACK, 1001, here);
        rig.from_target(&opened, FIN | ACK, here, 1001);
        assert_eq!(state_of(&rig), FlowState::FinTarget, "{net:?}");
        rig.from_client(&opened, FIN | ACK, 1001, here + 1);
        assert_eq!(state_of(&rig), FlowState::TimeWait, "{net:?}");
    }
}

/// Somebody outside has guessed the client's number (once in 512 times), and makes up acknowledgments.
#[test]
fn whoever_makes_up_such_an_acknowledgment_has_nothing_of_it() {
    for net in BOTH {
        let made_up = 9001 + 100 * NEAR;
        // However often, and alike.
        for times in 1..4 {
            let (mut rig, opened) = established(net);
            let expires = |rig: &Rig| rig.worker.flows(rig.now).next().unwrap().expires_in;
            for _ in 0..times {
                rig.from_client(&opened, ACK, 1001, made_up);
            }
            assert!(expires(&rig).as_secs() > 800, "it is timed as before");
            // Not what the segment said counts from here on.
            rig.from_client(&opened, FIN | ACK, 1001, made_up);
            assert_eq!(state_of(&rig), FlowState::Established);
            // Nor is an RST by it sure: a SYN behind it replaces nothing.
            rig.from_client(&opened, RST | ACK, 1002, made_up);
            rig.from_client(&opened, SYN, 77_000, 0);
            assert_eq!(rig.worker_counts().flows_rescheduled, 0);
            rig.from_target(&opened, ACK, 9001, 1001);
            rig.from_client(&opened, ACK, 1001, 9001);
            assert_eq!(state_of(&rig), FlowState::Established);
            // The connection goes on, and ends, by its own numbers.
            let before = disbelieved(&rig);
            rig.from_target(&opened, FIN | ACK, 9001, 1001);
            rig.from_client(&opened, FIN | ACK, 1001, 9002);
            assert_eq!(state_of(&rig), FlowState::TimeWait);
            assert_eq!(disbelieved(&rig), before, "{net:?}");
        }
    }
}

#[test]
fn the_target_moves_nothing_unasked_nor_where_it_knows_nothing_of_the_client() {
    for net in BOTH {
        let here = 9001 + 5 * NEAR;
        // A SYN-ACK or RST, and one that acknowledges what the client never sent.
        let wrong = [(SYN | ACK, 1001), (RST | ACK, 1001), (ACK, 1001 + 2 * NEAR)];
        for (flags, acknowledged) in wrong {
            let (mut rig, opened) = established(net);
            rig.from_client(&opened, ACK, 1001, here);
            rig.from_target(&opened, flags, here, acknowledged);
            rig.from_client(&opened, FIN | ACK, 1001, here);
            assert_eq!(state_of(&rig), FlowState::Established, "{flags:#x}");
        }
        let (mut rig, opened) = established(net);
        rig.from_target(&opened, ACK, here, 1001);
        rig.from_client(&opened, FIN | ACK, 1001, here);
        assert_eq!(state_of(&rig), FlowState::Established);
        // Behind what is known is nothing to catch up with.
        let (mut rig, opened) = established(net);
        rig.from_client(&opened, ACK, 1001, 9001u32.wrapping_sub(5 * NEAR));
        rig.from_target(&opened, ACK, 9001u32.wrapping_sub(5 * NEAR), 1001);
        rig.from_client(&opened, FIN | ACK, 1001, 9001);
        assert_eq!(state_of(&rig), FlowState::FinClient);
    }
}
