//! Frames with a priority tag (VLAN 0): they are as without, whatever they carry, and answers have no tag.

use dataplane::{DropReason, MacAddr, Verdict};

use super::frame::{self, ACK, SYN};
use super::net::{BOTH, Net};
use super::rig::{self, OUTSIDE, Rig, client, from_client, vip};

/// A frame with a tag of this priority.
fn tagged(mut frame: Vec<u8>, priority: u8, number: u8) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0, priority << 5, number]);
    frame
}

/// What a node does with a frame: its verdict, the frame then, and those it sends by itself.
fn outcome(rig: &mut Rig, frame: Vec<u8>) -> (Verdict, Vec<u8>, Vec<Vec<u8>>) {
    rig.out.clear();
    let (verdict, frame) = rig.try_send(OUTSIDE, frame);
    let emitted = rig.emitted().into_iter().map(|(_, frame)| frame).collect();
    (verdict, frame, emitted)
}

#[test]
fn a_priority_tag_changes_nothing_but_itself() {
    for net in BOTH {
        let mut rigs = [Rig::of(net), Rig::of(net)];
        let long = frame::udp(net.client(10, 5353), net.vip(53), &[7; 80]).cut(9, &[48]);
        let own = net.client(10, 1).ip();
        let echo = if net == Net::V4 { 8 } else { 128 };
        let question = match net {
            Net::V4 => frame::arp(
                1,
                MacAddr::BROADCAST,
                (rig::ROUTER_MAC, rig::GATEWAY),
                (MacAddr::default(), rig::OUTSIDE_ADDRESS),
            ),
            Net::V6 => frame::ndp(
                135,
                (net.client(10, 1).ip(), net.outside_address()),
                0,
                net.outside_address(),
                None,
            )
            .macs(rig::ROUTER_MAC, rig::OUTSIDE_MAC)
            .frame(),
        };
        let frames = [
            from_client(&frame::tcp(net.client(10, 4000), net.vip(80), SYN).seq(1, 0)),
            from_client(&frame::tcp(net.client(10, 4000), net.vip(80), ACK).seq(2, 9001)),
            from_client(&frame::tcp(net.client(10, 4000), net.vip(81), SYN)),
            from_client(&frame::udp(net.client(10, 5353), net.vip(53), b"query")),
            from_client(&frame::udp(net.client(10, 5353), net.vip(54), b"query")),
            from_client(&long[1]),
            from_client(&long[0]),
            from_client(&frame::icmp(own, net.vip_ip(), echo, 0, 7, b"ping")),
            question,
            // To nobody here.
            from_client(&frame::tcp(net.client(10, 4000), net.client(11, 80), SYN)),
        ];
        for (number, frame) in frames.into_iter().enumerate() {
            let priority = number as u8 % 8;
            let expected = outcome(&mut rigs[0], frame.clone());
            let got = outcome(&mut rigs[1], tagged(frame, priority, 0));
            assert_eq!(got, expected, "frame {number}, {net:?}");
        }
        let [plain, tagged] = rigs.map(|rig| rig.worker_counts());
        assert_eq!(plain, tagged);
    }
}

#[test]
fn other_tags_are_the_kernels_and_half_a_frame_is_nobodys() {
    let mut rig = Rig::new();
    let syn = from_client(&frame::tcp(client(10, 4000), vip(80), SYN));
    for kernels in [
        tagged(syn.clone(), 0, 1),
        tagged(syn.clone(), 5, 100),
        // One inside another loses the outer one.
        tagged(tagged(syn.clone(), 3, 0), 3, 0),
    ] {
        let twice = kernels[16..18] == [0x81, 0];
        let (verdict, after) = rig.try_send(OUTSIDE, kernels.clone());
        let expected = if twice {
            tagged(syn.clone(), 3, 0)
        } else {
            kernels
        };
        assert_eq!((verdict, after), (Verdict::Kernel, expected));
    }
    for (length, reason) in [
        (14, None),
        (15, None),
        (16, Some(DropReason::Truncated)),
        (20, Some(DropReason::Truncated)),
        (40, Some(DropReason::BadIpHeader)),
    ] {
        let part = tagged(syn.clone(), 3, 0)[..length].to_vec();
        let expected = reason.map_or(Verdict::Kernel, Verdict::Drop);
        assert_eq!(rig.try_send(OUTSIDE, part).0, expected, "{length} bytes");
    }
}

#[test]
fn a_worker_that_hands_a_priority_tagged_frame_over_has_taken_its_tag_off() {
    let services = Net::V4.services();
    let mut rig = Rig::from(&rig::small(), &rig::builder(&rig::ports(), &services), 0, 2);
    let mut redirected = 0;
    for port in 4000..4032 {
        let syn = from_client(&frame::tcp(client(10, port), vip(80), SYN));
        let (verdict, after) = rig.try_send(OUTSIDE, tagged(syn.clone(), 3, 0));
        if let Verdict::Redirect(worker) = verdict {
            assert_eq!((worker, after), (1, syn));
            redirected += 1;
        }
    }
    assert!(redirected > 0);
}
