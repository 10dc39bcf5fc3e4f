//! Targets that are left: their flows go on, until they are cut.

use dataplane::{Cut, FlowState, Protocol, Retired, ServiceConfig, Tables, Verdict};

use super::frame::{self, ACK, FIN, RST};
use super::net::{BOTH, Net};
use super::rig::{self, INSIDE, MILLISECOND, OUTSIDE, Opened, Rig, from_client};

fn services(net: Net, change: impl Fn(&mut dataplane::TargetConfig)) -> Vec<ServiceConfig> {
    let mut services = net.services();
    for service in &mut services {
        change(&mut service.targets[0]);
    }
    services
}

fn resets(
    net: Net,
    opened: &Opened,
    acked: u32,
    next: u32,
) -> [(dataplane::PortIndex, Vec<u8>); 2] {
    let bare = |packet: frame::Packet| packet.window(0);
    let to_client = bare(frame::tcp(net.vip(80), opened.client, RST).seq(acked, 0));
    let to_target = bare(
        frame::tcp(
            net.local(opened.local_port),
            net.target(opened.target, 8080),
            RST,
        )
        .seq(next.wrapping_add(opened.shift), 0),
    );
    [
        (OUTSIDE, rig::to_client(&to_client)),
        (INSIDE, rig::to_target(&to_target, opened.target)),
    ]
}

/// Two connections, one to each target.
fn connections(rig: &mut Rig) -> [Opened; 2] {
    let net = rig.net;
    let first = rig.establish(net.client(10, 4000), 100);
    let second = rig.establish(net.client(11, 4000), 200);
    assert_eq!((first.target, second.target), (21, 22));
    [first, second]
}

fn tick(rig: &mut Rig) {
    rig.now.0 += MILLISECOND;
    rig.out.clear();
    rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
    rig.worker.check_invariants();
}

#[test]
fn flows_of_a_target_of_weight_0_go_on_and_none_come() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let [first, _] = connections(&mut rig);
        rig.swap(&services(net, |target| target.weight = 0));
        tick(&mut rig);
        assert!(rig.emitted().is_empty());
        rig.from_client(&first, ACK, 101, 9001);
        rig.from_target(&first, ACK, 9001, 101);
        for n in 0..10 {
            assert_eq!(rig.open(net.client(12, 4000 + n), 1).target, 22);
        }
        rig.from_client(&first, FIN | ACK, 101, 9001);
        rig.from_target(&first, FIN | ACK, 9001, 102);
        assert_eq!(rig.target_counts(80, Protocol::Tcp, 21).flows_created, 1);
    }
}

#[test]
fn a_cut_resets_both_ends_and_frees_the_port() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let [first, second] = connections(&mut rig);
        rig.outside(&frame::udp(net.client(10, 5000), net.vip(53), b"query"));
        rig.swap(&services(net, |target| {
            target.weight = 0;
            target.cut = true;
        }));
        tick(&mut rig);
        assert_eq!(rig.emitted(), resets(net, &first, 9001, 101));
        let counts = |rig: &Rig, protocol, port| rig.service_counts(port, protocol).flows_cut;
        assert_eq!(
            (
                counts(&rig, Protocol::Tcp, 80),
                counts(&rig, Protocol::Udp, 53)
            ),
            (1, 1)
        );
        assert_eq!(rig.target_counts(80, Protocol::Tcp, 21).flows_active, 0);
        assert_eq!(rig.flow_count(), 1);
        // The other goes on; what still comes for the first has no flow.
        rig.from_client(&second, ACK, 201, 9001);
        let late = frame::tcp(first.client, net.vip(80), ACK).seq(101, 9001);
        assert_eq!(
            rig.try_send(OUTSIDE, from_client(&late)).0,
            Verdict::Transmit(OUTSIDE)
        );
        // Once only.
        tick(&mut rig);
        assert!(rig.emitted().is_empty());
    }
}

#[test]
fn connections_that_are_closing_are_cut_in_silence() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let [first, _] = connections(&mut rig);
        rig.from_client(&first, FIN | ACK, 101, 9001);
        rig.from_target(&first, FIN | ACK, 9001, 102);
        rig.open(net.client(12, 4000), 1);
        rig.swap(&services(net, |target| target.cut = true));
        tick(&mut rig);
        assert!(rig.emitted().is_empty());
        let states: Vec<FlowState> = rig.worker.flows(rig.now).map(|flow| flow.state).collect();
        assert_eq!(states, [FlowState::Established], "that of the other target");
    }
}

#[test]
fn a_snapshot_that_comes_while_flows_are_cut_is_followed_too() {
    for net in BOTH {
        let limits = dataplane::Limits {
            flows: 4096,
            ..rig::small()
        };
        let mut rig = Rig::serving(net, &limits, &net.services()).resolved();
        for n in 0..600u16 {
            rig.establish(net.client((n % 200) as u8, 4000 + n), 100);
        }
        rig.swap(&services(net, |target| target.cut = true));
        tick(&mut rig);
        let both = |target: &mut dataplane::TargetConfig| target.cut = true;
        let mut none = services(net, both);
        for service in &mut none {
            service.targets[1].cut = true;
        }
        rig.swap(&none);
        let mut emitted = 0;
        for _ in 0..40 {
            tick(&mut rig);
            let sent = rig.emitted().len();
            assert!(sent <= 256, "{sent} at once");
            emitted += sent;
        }
        assert_eq!(rig.flow_count(), 0);
        assert!(emitted > 600, "{emitted}");
        assert_eq!(rig.service_counts(80, Protocol::Tcp).flows_cut, 600);
    }
}

#[test]
fn flows_of_a_removed_service_go_on_until_they_are_cut_while_others_keep_its_vip() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let [first, second] = connections(&mut rig);
        rig.outside(&frame::udp(net.client(10, 5000), net.vip(53), b"query"));
        let service = rig.service(80, Protocol::Tcp).id;
        let rest: Vec<_> = net
            .services()
            .into_iter()
            .filter(|service| service.ports != 80.into())
            .collect();
        rig.swap(&rest);
        tick(&mut rig);
        assert!(rig.emitted().is_empty());
        rig.from_client(&first, ACK, 101, 9001);
        rig.from_target(&first, ACK, 9001, 101);

        let mut builder = rig::builder(&net.ports(), &rest);
        builder.cut(Cut::Service(net.vip_ip(), Protocol::Tcp, 80.into()));
        rig.tables = builder.build(&mut rig.ids, Some(&rig.tables)).unwrap();
        tick(&mut rig);
        let mut ended = resets(net, &first, 9001, 101).to_vec();
        ended.extend(resets(net, &second, 9001, 201));
        assert_eq!(rig.emitted(), ended);
        assert_eq!(rig.counters.service(service).flows_cut, 2);
        assert_eq!(rig.counters.service(service).flows_active, 0);
        assert_eq!(rig.flow_count(), 1, "that of the service that stays");

        // Back again before the cut is taken back: it holds no more.
        let mut builder = rig::builder(&net.ports(), &net.services());
        builder.cut(Cut::Service(net.vip_ip(), Protocol::Tcp, 80.into()));
        rig.tables = builder.build(&mut rig.ids, Some(&rig.tables)).unwrap();
        rig.establish(net.client(13, 4000), 300);
        tick(&mut rig);
        assert_eq!((rig.emitted().len(), rig.flow_count()), (0, 2));
    }
}

#[test]
fn flows_over_a_removed_local_ip_are_cut_and_those_over_others_stay() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let [first, second] = connections(&mut rig);
        let mut builder = Tables::builder();
        for port in net.ports() {
            builder.port(port);
        }
        for service in net.services() {
            builder.service(service);
        }
        builder
            .local_ip(net.address(2, 101))
            .retired(net.local_ip(), Retired::LocalIp);
        rig.tables = builder.build(&mut rig.ids, Some(&rig.tables)).unwrap();
        rig.open(net.client(12, 4000), 100);
        // The new LocalIP is announced.
        tick(&mut rig);
        rig.from_target(&first, ACK, 9001, 101);

        builder.cut(Cut::LocalIp(net.local_ip()));
        rig.tables = builder.build(&mut rig.ids, Some(&rig.tables)).unwrap();
        tick(&mut rig);
        let mut ended = resets(net, &first, 9001, 101).to_vec();
        ended.extend(resets(net, &second, 9001, 201));
        assert_eq!(rig.emitted(), ended);
        assert_eq!(rig.flow_count(), 1, "that over the LocalIP that stays");
    }
}
