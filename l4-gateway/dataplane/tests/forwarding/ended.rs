//! Flows that an operator picks and ends.

use dataplane::{Ended, FlowState, FlowView, Protocol, Verdict};

use super::frame::{self, ACK, FIN, RST};
use super::net::{BOTH, Net};
use super::rig::{self, INSIDE, OUTSIDE, Opened, Rig, SECOND, from_client};

/// Ends what is wanted of all places.
fn end(rig: &mut Rig, wanted: impl Fn(&FlowView) -> bool) -> Ended {
    rig.out.clear();
    let places = 0..rig.worker.flow_places() as u32;
    let ended = rig
        .worker
        .end_flows(&rig.tables, rig.now, &mut rig.out, places, wanted);
    rig.worker.check_invariants();
    ended
}

fn resets(net: Net, opened: &Opened) -> [(dataplane::PortIndex, Vec<u8>); 2] {
    let bare = |packet: frame::Packet| packet.window(0);
    let to_client = bare(frame::tcp(net.vip(80), opened.client, RST).seq(9001, 0));
    let target = net.target(opened.target, 8080);
    let to_target = frame::tcp(net.local(opened.local_port), target, RST);
    let to_target = bare(to_target.seq(101_u32.wrapping_add(opened.shift), 0));
    [
        (OUTSIDE, rig::to_client(&to_client)),
        (INSIDE, rig::to_target(&to_target, opened.target)),
    ]
}

#[test]
fn both_ends_of_what_is_picked_are_reset_and_the_rest_goes_on() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let [first, second] = [10, 11].map(|n| rig.establish(net.client(n, 4000), 100));
        rig.outside(&frame::udp(net.client(10, 5000), net.vip(53), b"query"));
        let ended = end(&mut rig, |flow| flow.client == first.client);
        assert_eq!(ended.flows, 1);
        assert_eq!(ended.next, rig.worker.flow_places() as u32);
        assert_eq!(rig.emitted(), resets(net, &first));
        assert_eq!(rig.service_counts(80, Protocol::Tcp).flows_cut, 1);
        assert_eq!(rig.service_counts(80, Protocol::Tcp).flows_active, 1);
        assert_eq!(rig.flow_count(), 2);
        rig.from_client(&second, ACK, 101, 9001);
        let late = frame::tcp(first.client, net.vip(80), ACK).seq(101, 9001);
        let (verdict, _) = rig.try_send(OUTSIDE, from_client(&late));
        assert_eq!(verdict, Verdict::Transmit(OUTSIDE), "there is no flow");

        // UDP ends in silence, and so does what is closing.
        rig.from_client(&second, FIN | ACK, 101, 9001);
        rig.from_target(&second, FIN | ACK, 9001, 102);
        assert_eq!(end(&mut rig, |_| true).flows, 2);
        assert!(rig.emitted().is_empty());
        assert_eq!(rig.flow_count(), 0);
        assert_eq!(end(&mut rig, |_| true).flows, 0);
    }
}

#[test]
fn what_is_sent_at_once_is_bounded_and_the_rest_follows() {
    let net = Net::V4;
    let limits = dataplane::Limits {
        flows: 4096,
        ..rig::small()
    };
    let mut rig = Rig::serving(net, &limits, &net.services()).resolved();
    for n in 0..300u16 {
        rig.establish(net.client((n % 200) as u8, 4000 + n), 100);
    }
    let places = rig.worker.flow_places() as u32;
    let (mut next, mut flows) = (0, 0);
    let mut calls = 0;
    while next < places {
        rig.out.clear();
        let Ended { next: on, flows: n } =
            rig.worker
                .end_flows(&rig.tables, rig.now, &mut rig.out, next..places, |_| true);
        assert!(on > next && n <= 128, "{n}");
        assert_eq!(rig.emitted().len() as u64, 2 * n);
        (next, flows, calls) = (on, flows + n, calls + 1);
    }
    assert_eq!((flows, calls), (300, 3));
}

#[test]
fn how_long_a_flow_is_idle_is_known_in_every_state() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.open(net.client(10, 4000), 100);
        let idle = |rig: &Rig| {
            let flow = rig.worker.flows(rig.now).next().unwrap();
            // Times are kept in ticks of some milliseconds.
            let idle = rig.tables.idle(&flow).as_secs_f64().round();
            (flow.state, idle as u64)
        };
        rig.now.0 += 3 * SECOND;
        assert_eq!(idle(&rig), (FlowState::SynReceived, 3));
        rig.from_target(&opened, frame::SYN | ACK, 9000, 101);
        rig.from_client(&opened, ACK, 101, 9001);
        assert_eq!(idle(&rig), (FlowState::Established, 0));
        rig.now.0 += 100 * SECOND;
        assert_eq!(idle(&rig), (FlowState::Established, 100));
        rig.from_client(&opened, RST, 101, 0);
        rig.now.0 += 5 * SECOND;
        assert_eq!(idle(&rig), (FlowState::Closed, 5));
    }
}
