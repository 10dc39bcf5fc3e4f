//! Random and nearly valid frames: nothing panics, the invariants hold, and what was established goes on.

use dataplane::PortIndex;
use proptest::prelude::*;

use super::frame::{ACK, checksum};
use super::rig::{self, INSIDE_MAC, OUTSIDE_MAC, Rig, SECOND, client};

#[derive(Clone, Debug)]
enum Step {
    Frame(u16, Vec<u8>),
    Pass(u64),
}

/// A frame of the node's world with some fields at random: random bytes alone never get far.
fn likely() -> impl Strategy<Value = Step> {
    let address = prop_oneof![
        Just([10, 0, 0, 100]),
        Just([10, 3, 0, 100]),
        Just([10, 3, 0, 21]),
        Just([10, 1, 0, 1]),
        any::<[u8; 4]>()
    ];
    let port = prop_oneof![
        Just(80u16),
        Just(53),
        Just(8080),
        4000u16..4004,
        any::<u16>()
    ];
    let flags = prop_oneof![
        Just(2u8),
        Just(16),
        Just(17),
        Just(4),
        Just(18),
        any::<u8>()
    ];
    let protocol = prop_oneof![Just(6u8), Just(17), Just(1), any::<u8>()];
    let rest = prop::collection::vec(any::<u8>(), 0..60);
    let ports = (port.clone(), port);
    (
        0u16..2,
        protocol,
        address.clone(),
        address,
        ports,
        flags,
        rest,
    )
        .prop_map(
            |(arrival, protocol, source, destination, ports, flags, rest)| {
                let mac = if arrival == 0 {
                    OUTSIDE_MAC
                } else {
                    INSIDE_MAC
                };
                let mut frame = mac.0.to_vec();
                frame.extend([2, 0, 0, 0, 9, 9, 8, 0]);
                let mut packet = vec![
                    0x45,
                    0,
                    0,
                    40 + rest.len() as u8,
                    0,
                    0,
                    0,
                    0,
                    64,
                    protocol,
                    0,
                    0,
                ];
                packet.extend(source);
                packet.extend(destination);
                let sum = checksum(&packet);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
                let mut payload = if protocol == 1 {
                    // An ICMP error that quotes a packet the other way round.
                    let mut message = vec![
                        3,
                        flags & 3,
                        0,
                        0,
                        0,
                        0,
                        0,
                        0,
                        0x45,
                        0,
                        0,
                        60,
                        0,
                        0,
                        0,
                        0,
                        9,
                        6,
                        0,
                        0,
                    ];
                    message.extend(destination);
                    message.extend(source);
                    message
                } else {
                    vec![]
                };
                payload.extend(ports.0.to_be_bytes());
                payload.extend(ports.1.to_be_bytes());
                payload.extend([
                    0,
                    20 + rest.len() as u8,
                    0,
                    1,
                    0,
                    0,
                    0,
                    1,
                    0x50,
                    flags,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                ]);
                payload.extend(rest);
                if protocol == 1 {
                    payload.truncate(20 + usize::from(packet[3]) - 40);
                    let sum = checksum(&payload);
                    payload[2..4].copy_from_slice(&sum.to_be_bytes());
                }
                frame.extend(packet);
                frame.extend(payload);
                Step::Frame(arrival, frame)
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => likely(),
        2 => (0u16..2, prop::collection::vec(any::<u8>(), 0..100)).prop_map(|(port, bytes)| Step::Frame(port, bytes)),
        1 => (0u64..20).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn garbage_never_panics_and_leaves_established_flows_alone(steps in prop::collection::vec(step(), 0..60)) {
        let mut rig = Rig::new();
        let opened = rig.establish(client(200, 7777), 1000);
        for step in steps {
            match step {
                Step::Frame(port, frame) => {
                    rig.try_send(PortIndex(port), frame);
                }
                Step::Pass(seconds) => {
                    rig.now.0 += seconds * SECOND;
                    rig.refresh();
                    rig.worker.check_invariants();
                }
            }
            // Random MACs may have been taken for the router's; what matters here is the flow.
            let (_, sent) = rig.try_send(rig::OUTSIDE, rig::from_client(
                &super::frame::tcp(opened.client, rig::vip(80), ACK).seq(1001, 9001),
            ));
            prop_assert_eq!(&sent[26..30], &rig::LOCAL_IP.octets());
        }
    }
}
