//! The entry for fuzzing: any bytes as a conversation with a small node.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use crate::wire::{checksum, put};
use crate::{
    Counters, Emitted, Ids, Limits, MacAddr, Now, Port, PortIndex, Protocol, Secret, ServiceConfig,
    Tables, TargetConfig, Verdict, Worker,
};

/// Runs a node over frames made of `data`, its invariants checked after each.
///
/// `data` is a sequence of records: a byte that says what follows, a length byte, and so many bytes. The lowest bit of the first
/// byte is the port, the next two choose: the bytes as a frame; the bytes as an IPv4 packet behind a fitting Ethernet header
/// and with its header checksum made right, so that the fuzzer gets deeper (twice: the second as an ICMP message whose
/// checksum is right as well); time that passes, as many quarters of a second as the length says.
///
/// # Panics
/// If the node panics or its invariants don't hold: what the fuzzer looks for.
pub fn frames(data: &[u8]) {
    let mut node = Node::new();
    let mut rest = data;
    while let [kind, length, after @ ..] = rest {
        let port = PortIndex(u16::from(kind & 1));
        let bytes = &after[..after.len().min(usize::from(*length))];
        rest = &after[bytes.len()..];
        match (kind >> 1) & 3 {
            0 => node.receive(port, bytes.to_vec()),
            1 => node.receive(port, node.framed(port, bytes, false)),
            2 => node.receive(port, node.framed(port, bytes, true)),
            _ => {
                node.now.0 += u64::from(*length) * 250_000_000;
                node.worker.tick(&node.tables, node.now, &mut node.out);
                node.settle();
            }
        }
    }
}

struct Node {
    tables: Tables,
    worker: Worker,
    now: Now,
    out: Emitted,
}

impl Node {
    fn new() -> Self {
        let limits = Limits {
            flows: 16,
            services: 4,
            targets: 4,
            local_ips: 1,
            neighbours: 8,
            held_frames: 4,
            held_bytes: 256,
            first_port: 5000,
            last_port: 5003,
            ..Limits::default()
        };
        let mut builder = Tables::builder();
        for index in 0..2u8 {
            builder.port(Port {
                index: PortIndex(u16::from(index)),
                mac: MacAddr([2, 0, 0, 0, 0, index]),
                address: Ipv4Addr::new(10, 2 + index, 0, 11),
                prefix: 24,
                gateway: (index == 0).then_some(Ipv4Addr::new(10, 2, 0, 1)),
                mtu: 1500,
                answers: true,
            });
        }
        builder.local_ip(Ipv4Addr::new(10, 3, 0, 100));
        for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 53)] {
            let address = SocketAddrV4::new(Ipv4Addr::new(10, 3, 0, 21), port);
            let mut service = ServiceConfig::new(Ipv4Addr::new(10, 0, 0, 100), protocol, port);
            service.targets.push(TargetConfig {
                address,
                weight: 1,
                up: true,
                draining: false,
            });
            builder.service(service);
        }
        let tables = match builder.build(&mut Ids::new(&limits), None) {
            Ok(tables) => tables,
            Err(error) => panic!("the fuzzed node's own configuration: {error}"),
        };
        let worker = Worker::new(
            0,
            1,
            &limits,
            Secret::new([1; 32]),
            Arc::new(Counters::new(1, &limits)),
        );
        let mut node = Self {
            tables,
            worker,
            now: Now(0),
            out: Emitted::new(),
        };
        node.worker.tick(&node.tables, node.now, &mut node.out);
        for (index, address) in [
            (0, Ipv4Addr::new(10, 2, 0, 1)),
            (1, Ipv4Addr::new(10, 3, 0, 21)),
        ] {
            node.worker.learn(
                node.now,
                PortIndex(index),
                address,
                MacAddr([2, 0, 0, 0, 1, 0]),
                &mut node.out,
            );
        }
        node.settle();
        node
    }

    /// The bytes as an IPv4 packet that is addressed to the node and passes its checksums.
    fn framed(&self, port: PortIndex, packet: &[u8], icmp: bool) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, port.0 as u8, 2, 0, 0, 0, 1, 0, 8, 0];
        frame.extend(packet);
        let packet = &mut frame[14..];
        if packet.len() < 20 {
            return frame;
        }
        let header = (usize::from(packet[0] & 15) * 4).clamp(20, packet.len());
        packet[0] = 0x40 | (header / 4) as u8;
        let total = packet.len() as u16;
        put(packet, 2, total.to_be_bytes());
        if icmp {
            packet[9] = 1;
            put(packet, header + 2, [0, 0]);
            let sum = checksum::checksum(&packet[header..]);
            put(packet, header + 2, sum.to_be_bytes());
        }
        put(packet, 10, [0, 0]);
        let sum = checksum::checksum(&packet[..header]);
        put(packet, 10, sum.to_be_bytes());
        frame
    }

    fn receive(&mut self, port: PortIndex, frame: Vec<u8>) {
        let (mut frames, mut verdicts) = ([frame], [Verdict::Kernel]);
        self.worker.burst(
            &self.tables,
            self.now,
            port,
            &mut frames,
            &mut verdicts,
            &mut self.out,
        );
        self.settle();
    }

    fn settle(&mut self) {
        self.out.clear();
        self.worker.check_invariants();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// A valid packet of the node's world with some bytes changed: random bytes alone never get far.
    fn packet() -> impl Strategy<Value = Vec<u8>> {
        let address = prop_oneof![
            Just([10, 0, 0, 100]),
            Just([10, 3, 0, 100]),
            Just([10, 3, 0, 21]),
            Just([10, 1, 0, 1]),
            any::<[u8; 4]>()
        ];
        let port = prop_oneof![Just(80u16), Just(53), 4000u16..4004, 5000u16..5004];
        let rest = prop::collection::vec(any::<u8>(), 0..60);
        let flags = prop_oneof![
            Just(2u8),
            Just(16),
            Just(17),
            Just(4),
            Just(18),
            any::<u8>()
        ];
        let protocol = prop_oneof![Just(6u8), Just(17), Just(1), any::<u8>()];
        (
            protocol,
            address.clone(),
            address,
            (port.clone(), port),
            flags,
            rest,
        )
            .prop_map(|(protocol, source, destination, ports, flags, rest)| {
                let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
                packet.extend(source);
                packet.extend(destination);
                packet.extend(ports.0.to_be_bytes());
                packet.extend(ports.1.to_be_bytes());
                packet.extend([0, 8 + rest.len() as u8, 0, 1, 0, 0, 0, 1, 0x50, flags]);
                packet.extend(rest);
                packet
            })
    }

    fn record() -> impl Strategy<Value = Vec<u8>> {
        let bytes = prop_oneof![packet(), prop::collection::vec(any::<u8>(), 0..100)];
        (0u8..8, bytes).prop_map(|(kind, bytes)| {
            let mut record = vec![kind, bytes.len() as u8];
            record.extend(bytes);
            record
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn random_garbage_never_panics(data in prop::collection::vec(any::<u8>(), 0..2000)) {
            super::frames(&data);
        }

        #[test]
        fn likely_garbage_never_panics(records in prop::collection::vec(record(), 0..40)) {
            super::frames(&records.concat());
        }
    }
}
