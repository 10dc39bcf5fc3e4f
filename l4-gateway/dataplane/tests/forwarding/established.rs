//! How many flows are established, of each target and service: those that LVS calls active.

use dataplane::{Mode, Protocol};

use super::frame::{self, ACK, FIN, RST};
use super::net::BOTH;
use super::rig::{self, OUTSIDE, Rig, SECOND, from_client};

/// Flows and established ones, of the service and of its first target.
fn counts(rig: &Rig) -> [(u64, u64); 2] {
    let service = rig.service_counts(80, Protocol::Tcp);
    let target = rig.target_counts(80, Protocol::Tcp, 21);
    [
        (service.flows_active, service.flows_established),
        (target.flows_active, target.flows_established),
    ]
}

#[test]
fn a_flow_is_active_from_the_end_of_the_handshake_to_the_first_fin() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.open(net.client(10, 4000), 100);
        assert_eq!(opened.target, 21);
        assert_eq!(counts(&rig), [(1, 0); 2], "SYN");
        rig.from_target(&opened, frame::SYN | ACK, 9000, 101);
        assert_eq!(counts(&rig), [(1, 0); 2], "SYN-ACK");
        rig.from_client(&opened, ACK, 101, 9001);
        assert_eq!(counts(&rig), [(1, 1); 2], "ACK");
        let other = rig.establish(net.client(11, 4000), 100);
        assert_eq!(other.target, 22);
        assert_eq!(counts(&rig), [(2, 2), (1, 1)]);
        rig.from_client(&opened, FIN | ACK, 101, 9001);
        assert_eq!(counts(&rig), [(2, 1), (1, 0)], "FIN");
        rig.from_target(&opened, FIN | ACK, 9001, 102);
        assert_eq!(counts(&rig), [(2, 1), (1, 0)], "TIME_WAIT");
        rig.worker.check_invariants();
    }
}

#[test]
fn an_rst_ends_it_and_one_that_was_forged_does_not() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 4000), 100);
        rig.from_target(&opened, RST, 9002, 0);
        assert_eq!(counts(&rig), [(1, 0); 2]);
        // Both go on talking.
        rig.from_client(&opened, ACK, 101, 9001);
        rig.from_target(&opened, ACK, 9001, 101);
        assert_eq!(counts(&rig), [(1, 1); 2]);
        rig.worker.check_invariants();
    }
}

#[test]
fn what_expires_or_is_cut_is_active_no_more_and_udp_never_was() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        rig.establish(net.client(10, 4000), 100);
        rig.outside(&frame::udp(net.client(10, 5000), net.vip(53), b"query"));
        assert_eq!(counts(&rig), [(1, 1); 2]);
        let udp = rig.service_counts(53, Protocol::Udp);
        assert_eq!((udp.flows_active, udp.flows_established), (1, 0));
        let places = 0..rig.worker.flow_places() as u32;
        rig.worker
            .end_flows(&rig.tables, rig.now, &mut rig.out, places, |_| true);
        assert_eq!(counts(&rig), [(0, 0); 2]);

        rig.establish(net.client(11, 4000), 100);
        rig.establish(net.client(12, 4000), 100);
        assert_eq!(counts(&rig), [(2, 2), (1, 1)]);
        rig.pass(900 + 18);
        assert_eq!(counts(&rig), [(0, 0); 2]);
    }
}

#[test]
fn where_the_target_is_not_heard_the_clients_word_counts() {
    for net in BOTH {
        let mut services = net.services();
        services.truncate(1);
        services[0].mode = Mode::Direct;
        services[0].targets = vec![rig::up(net.target(21, 80))];
        let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
        let client = net.client(10, 4000);
        for (flags, seq, ack, expected) in [
            (frame::SYN, 100, 0, (1, 0)),
            (ACK, 101, 9001, (1, 1)),
            (FIN | ACK, 101, 9001, (1, 0)),
        ] {
            let sent = frame::tcp(client, net.vip(80), flags).seq(seq, ack);
            rig.try_send(OUTSIDE, from_client(&sent));
            let service = rig.service_counts(80, Protocol::Tcp);
            let counted = (service.flows_active, service.flows_established);
            assert_eq!(counted, expected, "{flags}");
        }
        rig.now.0 += SECOND;
        rig.worker.check_invariants();
    }
}
