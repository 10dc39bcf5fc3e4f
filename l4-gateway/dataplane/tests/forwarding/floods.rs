//! Floods of forged clients: they fill the flow table and no more, what was in it before goes on, and when their time is over others
//! get their places.

use std::time::Duration;

use dataplane::{DropReason, Protocol};

use super::frame::{ACK, RST, SYN, source_port, target_of, tcp, udp};
use super::net::{BOTH, Net};
use super::rig::{INSIDE, OUTSIDE, Opened, Rig, from_client, small, to_client, to_target};

/// How long a forged flow is kept.
const SHORT: Duration = Duration::from_secs(5);

/// A connection and a datagram's flow that were there before.
struct Before {
    connection: Opened,
    asked: u8,
    port: u16,
}

impl Before {
    fn begin(rig: &mut Rig) -> Before {
        let connection = rig.establish(rig.net.client(1, 4000), 100);
        let (client, vip) = (rig.net.client(1, 5000), rig.net.vip(53));
        let (_, sent) = rig.outside(&udp(client, vip, b"query"));
        Before {
            connection,
            asked: target_of(&sent),
            port: source_port(&sent),
        }
    }

    /// Sends on both, both ways.
    fn goes_on(&self, rig: &mut Rig) {
        let net = rig.net;
        let opened = &self.connection;
        let (target, local) = opened.inside(net);
        let there = tcp(local, target, ACK).seq(101u32.wrapping_add(opened.shift), 9001);
        assert_eq!(
            rig.from_client(opened, ACK, 101, 9001),
            to_target(&there.ttl(63), opened.target)
        );
        let back = tcp(net.vip(80), opened.client, ACK).seq(9001, 101);
        assert_eq!(
            rig.from_target(opened, ACK, 9001, 101),
            to_client(&back.ttl(63))
        );

        let (client, vip) = (net.client(1, 5000), net.vip(53));
        let (target, local) = (net.target(self.asked, 8080), net.local(self.port));
        assert_eq!(
            rig.outside(&udp(client, vip, b"more")),
            (
                INSIDE,
                to_target(&udp(local, target, b"more").ttl(63), self.asked)
            )
        );
        assert_eq!(
            rig.inside(&udp(target, local, b"reply"), self.asked),
            (OUTSIDE, to_client(&udp(vip, client, b"reply").ttl(63)))
        );
    }
}

fn node(net: Net) -> Rig {
    let mut services = net.services();
    for service in &mut services {
        service.timeouts.syn = SHORT;
        service.timeouts.udp = SHORT;
    }
    Rig::serving(net, &small(), &services).resolved()
}

#[test]
fn a_flood_of_syns_fills_the_table_while_open_flows_go_on() {
    for net in BOTH {
        let mut rig = node(net);
        let before = Before::begin(&mut rig);
        let room = u64::from(small().flows) - 2;
        for n in 0..1000 {
            let syn = tcp(net.stranger(n), net.vip(80), SYN).seq(n, 0);
            let (port, answer) = rig.outside(&syn);
            if u64::from(n) < room {
                assert_eq!(port, INSIDE, "SYN {n}");
            } else {
                let rst = tcp(net.vip(80), net.stranger(n), RST | ACK);
                let rst = to_client(&rst.seq(0, n + 1).window(0));
                assert_eq!((port, answer), (OUTSIDE, rst), "SYN {n}");
            }
            if n % 50 == 0 {
                before.goes_on(&mut rig);
            }
        }
        let counts = rig.service_counts(80, Protocol::Tcp);
        assert_eq!(counts.flow_table_full, 1000 - room);
        assert_eq!(counts.resets_sent, 1000 - room);
        assert_eq!(counts.flows_active, room + 1);
        makes_room(&mut rig, &before);
    }
}

#[test]
fn a_flood_of_forged_datagrams_fills_the_table_while_open_flows_go_on() {
    for net in BOTH {
        let mut rig = node(net);
        let before = Before::begin(&mut rig);
        let room = u64::from(small().flows) - 2;
        for n in 0..1000 {
            let datagram = from_client(&udp(net.stranger(n), net.vip(53), b"forged"));
            if u64::from(n) < room {
                assert_eq!(rig.transmitted(OUTSIDE, datagram).0, INSIDE);
            } else {
                assert_eq!(rig.dropped(OUTSIDE, datagram), DropReason::FlowTableFull);
            }
            if n % 50 == 0 {
                before.goes_on(&mut rig);
            }
        }
        let counts = rig.service_counts(53, Protocol::Udp);
        assert_eq!(counts.flow_table_full, 1000 - room);
        assert_eq!(counts.flows_active, room + 1);
        // Errors to addresses that may be forged too are few.
        assert_eq!(
            counts.icmp_errors_sent,
            u64::from(small().icmp_errors_per_second)
        );
        let suppressed = rig.worker_counts().icmp_errors_suppressed;
        assert_eq!(counts.icmp_errors_sent + suppressed, 1000 - room);
        makes_room(&mut rig, &before);
    }
}

/// The forged flows go when their time is over, the others don't, and new ones find room.
fn makes_room(rig: &mut Rig, before: &Before) {
    // A turn of the wheel more (limits.rs).
    for _ in 0..SHORT.as_secs() + 9 {
        rig.pass(1);
        before.goes_on(rig);
    }
    assert_eq!(rig.flow_count(), 2);
    let query = udp(rig.net.client(7, 5000), rig.net.vip(53), b"query");
    assert_eq!(rig.outside(&query).0, INSIDE);
    rig.open(rig.net.client(7, 4000), 1);
    assert_eq!(rig.flow_count(), 4);
}
