//! ARP requests for our addresses.

use std::net::Ipv4Addr;

use dataplane::{MacAddr, PortIndex, Verdict};

use super::frame;
use super::rig::{self, INSIDE, INSIDE_MAC, OUTSIDE, OUTSIDE_MAC, ROUTER_MAC, Rig, target};

const NEIGHBOUR: (MacAddr, Ipv4Addr) = (ROUTER_MAC, rig::GATEWAY);

fn request(sender: (MacAddr, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    frame::arp(1, MacAddr::BROADCAST, sender, (MacAddr::default(), target))
}

fn rig(answers: bool, vip_arp: bool) -> Rig {
    let mut services = rig::services();
    // A VIP on the outer segment, as with two nodes that share it by VRRP.
    let mut onlink = services[0].clone();
    onlink.vip = Ipv4Addr::new(10, 2, 0, 100).into();
    onlink.arp = vip_arp;
    services.push(onlink);
    let mut ports = rig::ports();
    for port in &mut ports {
        port.answers = answers;
    }
    Rig::from(&rig::small(), &rig::builder(&ports, &services), 0, 1)
}

#[test]
fn requests_are_answered_where_the_address_belongs() {
    let inner = (frame::mac(21), *target(21).ip());
    let onlink_vip = Ipv4Addr::new(10, 2, 0, 100);
    struct Case {
        description: &'static str,
        answers: bool,
        vip_arp: bool,
        port: PortIndex,
        sender: (MacAddr, Ipv4Addr),
        target: Ipv4Addr,
        answered: bool,
    }
    let case = |description, port, sender, target, answered| Case {
        description,
        answers: true,
        vip_arp: true,
        port,
        sender,
        target,
        answered,
    };
    let cases = [
        case("a LocalIP", INSIDE, inner, rig::LOCAL_IP, true),
        case(
            "a LocalIP on the other port",
            OUTSIDE,
            NEIGHBOUR,
            rig::LOCAL_IP,
            false,
        ),
        case(
            "the port's address",
            OUTSIDE,
            NEIGHBOUR,
            rig::OUTSIDE_ADDRESS,
            true,
        ),
        case(
            "the other port's address",
            OUTSIDE,
            NEIGHBOUR,
            rig::INSIDE_ADDRESS,
            false,
        ),
        case("a VIP on the segment", OUTSIDE, NEIGHBOUR, onlink_vip, true),
        case(
            "a VIP of no segment, which routers are told of",
            OUTSIDE,
            NEIGHBOUR,
            rig::VIP,
            false,
        ),
        case(
            "someone else's address",
            OUTSIDE,
            NEIGHBOUR,
            Ipv4Addr::new(10, 2, 0, 77),
            false,
        ),
        case(
            "a probe (RFC 5227)",
            INSIDE,
            (frame::mac(9), Ipv4Addr::UNSPECIFIED),
            rig::LOCAL_IP,
            true,
        ),
        case(
            "by someone who uses our address",
            INSIDE,
            (frame::mac(9), rig::LOCAL_IP),
            rig::LOCAL_IP,
            false,
        ),
        Case {
            answers: false,
            ..case(
                "an address the kernel holds",
                OUTSIDE,
                NEIGHBOUR,
                rig::OUTSIDE_ADDRESS,
                false,
            )
        },
        Case {
            answers: false,
            ..case("a LocalIP all the same", INSIDE, inner, rig::LOCAL_IP, true)
        },
        Case {
            vip_arp: false,
            ..case(
                "a VIP that isn't to be answered for",
                OUTSIDE,
                NEIGHBOUR,
                onlink_vip,
                false,
            )
        },
    ];
    for case in cases {
        let mut rig = rig(case.answers, case.vip_arp);
        let input = request(case.sender, case.target);
        let own = if case.port == OUTSIDE {
            OUTSIDE_MAC
        } else {
            INSIDE_MAC
        };
        let expected = if case.answered {
            (
                Verdict::Transmit(case.port),
                frame::arp(2, case.sender.0, (own, case.target), case.sender),
            )
        } else {
            (Verdict::Kernel, input.clone())
        };
        assert_eq!(
            rig.try_send(case.port, input),
            expected,
            "{}",
            case.description
        );
        assert_eq!(
            rig.worker_counts().arp_replies,
            u64::from(case.answered),
            "{}",
            case.description
        );
    }
}

#[test]
fn padding_of_a_request_is_kept() {
    let mut rig = rig(true, true);
    let mut input = request(NEIGHBOUR, rig::OUTSIDE_ADDRESS);
    input.resize(60, 0);
    let (_, sent) = rig.transmitted(OUTSIDE, input);
    let mut expected = frame::arp(
        2,
        ROUTER_MAC,
        (OUTSIDE_MAC, rig::OUTSIDE_ADDRESS),
        NEIGHBOUR,
    );
    expected.resize(60, 0);
    assert_eq!(sent, expected);
}
