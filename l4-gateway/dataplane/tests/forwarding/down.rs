//! Targets that take no new flows, and may not answer: what their clients send next goes elsewhere where nothing is lost by it.

use std::time::Duration;

use dataplane::{
    ClientAddress, DropReason, FlowState, Mode, Persistence, Policy, Protocol, ServiceConfig,
    SourcePrefix, TargetConfig, Verdict,
};

use super::frame::{self, ACK, FIN, PSH, RST, SYN};
use super::net::{BOTH, Net};
use super::rig::{self, INSIDE, MILLISECOND, OUTSIDE, Opened, Rig, from_client, to_target, up};

/// Ways in which a target comes to take no new flows.
const WAYS: [(&str, fn(&mut TargetConfig)); 3] = [
    ("down", |target| target.up = false),
    ("draining", |target| target.draining = true),
    ("weight 0", |target| target.weight = 0),
];

fn down(target: &mut TargetConfig) {
    target.up = false;
}

/// The usual services, of which the first target has changed.
fn changed(net: Net, change: fn(&mut TargetConfig)) -> Vec<ServiceConfig> {
    let mut services = net.services();
    for service in &mut services {
        change(&mut service.targets[0]);
    }
    services
}

/// The SYN of a connection, once more: which target gets it, whole, and the connection as it is then.
fn syn(rig: &mut Rig, opened: &Opened, seq: u32) -> (u8, Opened) {
    let net = rig.net;
    let packet = frame::tcp(opened.client, net.vip(80), SYN).seq(seq, 0);
    let (port, sent) = rig.outside(&packet);
    let again = Opened {
        client: opened.client,
        local_port: frame::source_port(&sent),
        shift: frame::tcp_word(&sent, 4).wrapping_sub(seq),
        target: frame::target_of(&sent),
    };
    let (target, local) = again.inside(net);
    let expected = frame::tcp(local, target, SYN)
        .seq(seq.wrapping_add(again.shift), 0)
        .ttl(63);
    assert_eq!((port, sent), (INSIDE, to_target(&expected, again.target)));
    (again.target, again)
}

fn wait(rig: &mut Rig, milliseconds: u64) {
    rig.now.0 += milliseconds * MILLISECOND;
}

fn states(rig: &Rig) -> Vec<FlowState> {
    rig.worker.flows(rig.now).map(|flow| flow.state).collect()
}

#[test]
fn a_syn_sent_again_leaves_a_target_that_takes_no_flows() {
    for net in BOTH {
        let removed = |services: &mut Vec<ServiceConfig>| {
            for service in services {
                service.targets.remove(0);
            }
        };
        let mut cases: Vec<(&str, Vec<ServiceConfig>)> = WAYS
            .map(|(description, change)| (description, changed(net, change)))
            .into();
        let mut without = net.services();
        removed(&mut without);
        cases.push(("removed", without));
        for (description, services) in cases {
            let mut rig = Rig::of(net);
            let first = rig.open(net.client(10, 4000), 100);
            assert_eq!(syn(&mut rig, &first, 100), (21, first), "{description}");
            rig.swap(&services);
            let (target, second) = syn(&mut rig, &first, 100);
            assert_eq!(target, 22, "{description}");
            assert_ne!(second.shift, first.shift);
            assert_eq!(rig.worker_counts().flows_rescheduled, 1);
            assert_eq!(rig.flow_count(), 1);
            // It is a connection like any other, and the former target hears that nobody waits for it.
            rig.from_target(&second, SYN | ACK, 9000, 101);
            rig.from_client(&second, ACK, 101, 9001);
            let (target, local) = first.inside(net);
            let late = frame::tcp(target, local, SYN | ACK).seq(7000, 101 + first.shift);
            let (verdict, reset) = rig.try_send(INSIDE, rig::from_target(&late, 21));
            assert_eq!(verdict, Verdict::Transmit(INSIDE), "{description}");
            assert_eq!(frame::flags_of(&reset), RST);
            assert_eq!(states(&rig), [FlowState::Established], "{description}");
        }
    }
}

#[test]
fn a_syn_sent_again_stays_where_no_target_takes_flows() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let first = rig.open(net.client(10, 4000), 100);
        let mut services = net.services();
        for service in &mut services {
            service.targets.iter_mut().for_each(down);
        }
        rig.swap(&services);
        assert_eq!(syn(&mut rig, &first, 100), (21, first));
        // As soon as one does, it gets the SYN.
        rig.swap(&changed(net, down));
        assert_eq!(syn(&mut rig, &first, 100).0, 22);
    }
}

/// What the target has answered is a connection that only its end may take away, unless it can't come about any more.
#[test]
fn a_syn_that_was_answered_leaves_a_target_that_is_down_and_none_that_drains() {
    for net in BOTH {
        for (description, change) in WAYS {
            let mut rig = Rig::of(net);
            let first = rig.open(net.client(10, 4000), 100);
            rig.from_target(&first, SYN | ACK, 9000, 101);
            rig.swap(&changed(net, change));
            wait(&mut rig, 400);
            assert_eq!(syn(&mut rig, &first, 100).0, 21, "it may be a copy");
            wait(&mut rig, 1000);
            let expected = if description == "down" { 22 } else { 21 };
            assert_eq!(syn(&mut rig, &first, 100).0, expected, "{description}");
        }
    }
}

#[test]
fn an_established_connection_stays_with_a_target_that_is_down() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let first = rig.establish(net.client(10, 4000), 100);
        rig.swap(&changed(net, down));
        rig.from_client(&first, ACK, 101, 9001);
        rig.from_target(&first, ACK, 9001, 101);
        // Not even a SYN takes it away: the target may live, and who sent this may not be the client.
        assert_eq!(syn(&mut rig, &first, 77_777).0, 21);
        rig.from_target(&first, ACK, 9001, 101);
        assert_eq!(states(&rig), [FlowState::Established]);
        // Half closed, it can't be waited for any more.
        rig.from_client(&first, FIN | ACK, 101, 9001);
        wait(&mut rig, 1000);
        assert_eq!(syn(&mut rig, &first, 77_777).0, 22);
    }
}

#[test]
fn data_in_a_syn_goes_along_to_the_other_target() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let packet = frame::tcp(net.client(10, 4000), net.vip(80), SYN)
            .seq(100, 0)
            .data(b"early");
        let (_, sent) = rig.outside(&packet);
        assert_eq!(frame::target_of(&sent), 21);
        rig.swap(&changed(net, down));
        let (port, sent) = rig.outside(&packet);
        let local = net.local(frame::source_port(&sent));
        let expected = frame::tcp(local, net.target(22, 8080), SYN)
            .seq(frame::tcp_word(&sent, 4), 0)
            .data(b"early")
            .ttl(63);
        assert_eq!((port, sent), (INSIDE, to_target(&expected, 22)));
    }
}

#[test]
fn the_other_target_learns_the_clients_address_too() {
    for net in BOTH {
        for how in [ClientAddress::ProxyV2, ClientAddress::Toa] {
            let with = |mut services: Vec<ServiceConfig>| {
                services[0].client_address = how;
                services
            };
            let limits = rig::small();
            let mut rig = Rig::serving(net, &limits, &with(net.services())).resolved();
            let first = rig.open(net.client(10, 4000), 100);
            rig.swap(&with(changed(net, down)));
            let second = rig.open(first.client, 100);
            assert_eq!(second.target, 22);
            rig.from_target(&second, SYN | ACK, 9000, 101);
            rig.from_client(&second, ACK, 101, 9001);
            let data = frame::tcp(first.client, net.vip(80), PSH | ACK)
                .seq(101, 9001)
                .data(b"hello");
            let before = rig.service_counts(80, Protocol::Tcp);
            let (_, sent) = rig.outside(&data);
            assert!(sent.ends_with(b"hello"));
            let after = rig.service_counts(80, Protocol::Tcp);
            assert_eq!(
                after.client_address_inserted,
                before.client_address_inserted + 1,
                "{how:?}"
            );
        }
    }
}

#[test]
fn a_source_is_not_kept_at_a_target_that_its_syn_has_left() {
    for net in BOTH {
        let with = |mut services: Vec<ServiceConfig>| {
            services[0].policy = Policy {
                persistence: Some(Persistence {
                    timeout: Duration::from_secs(60),
                    prefix: SourcePrefix::default(),
                    group: None,
                }),
                ..Policy::default()
            };
            services
        };
        let limits = rig::small();
        let mut rig = Rig::serving(net, &limits, &with(net.services())).resolved();
        let first = rig.open(net.client(10, 4000), 100);
        rig.swap(&with(changed(net, down)));
        assert_eq!(syn(&mut rig, &first, 100).0, 22);
        rig.swap(&with(net.services()));
        assert_eq!(rig.open(net.client(10, 4001), 1).target, 22);
    }
}

/// Where answers go past the node, the client's ACK is what proves that there was one.
#[test]
fn under_dr_and_through_tunnels_a_syn_leaves_until_the_client_has_acknowledged_an_answer() {
    for net in BOTH {
        for mode in [Mode::Direct, Mode::Tunnel] {
            for (description, change) in WAYS {
                let mut service = ServiceConfig::new(net.vip_ip(), Protocol::Tcp, 80);
                service.mode = mode;
                service.targets = [21, 22].map(|n| up(net.target(n, 80))).into();
                let limits = rig::small();
                let mut rig = Rig::serving(net, &limits, &[service.clone()]).resolved();
                let send = |rig: &mut Rig, port, flags, seq, ack| {
                    let packet = frame::tcp(net.client(10, port), net.vip(80), flags).seq(seq, ack);
                    let (to, sent) = rig.transmitted(OUTSIDE, from_client(&packet));
                    assert_eq!(to, INSIDE);
                    // The target's MAC ends in its number.
                    sent[5]
                };
                let began = [4000, 4001, 4002].map(|port| send(&mut rig, port, SYN, 100, 0));
                assert_eq!(began, [21, 22, 21], "in turn");
                assert_eq!(send(&mut rig, 4002, ACK, 101, 9001), 21);
                change(&mut service.targets[0]);
                rig.swap(&[service.clone()]);
                assert_eq!(send(&mut rig, 4000, SYN, 100, 0), 21, "it may be a copy");
                wait(&mut rig, 1000);
                assert_eq!(
                    send(&mut rig, 4000, SYN, 100, 0),
                    22,
                    "{mode:?} {description}"
                );
                assert_eq!(send(&mut rig, 4001, SYN, 100, 0), 22);
                assert_eq!(send(&mut rig, 4002, SYN, 100, 0), 21);
                assert_eq!(rig.worker_counts().flows_rescheduled, 1);
                // One with another number is no copy.
                change(&mut service.targets[1]);
                service.targets[0] = up(net.target(21, 80));
                rig.swap(&[service.clone()]);
                assert_eq!(send(&mut rig, 4001, SYN, 777, 0), 21);
            }
        }
    }
}

fn cut(target: &mut TargetConfig) {
    target.up = false;
    target.cut = true;
}

/// A client's datagram, and what a target gets of it, whole; which target.
fn ask(rig: &mut Rig, from: u16, data: &[u8]) -> (u8, u16) {
    let net = rig.net;
    let (port, sent) = rig.outside(&frame::udp(net.client(10, from), net.vip(53), data));
    let (target, local) = (frame::target_of(&sent), frame::source_port(&sent));
    let expected = frame::udp(net.local(local), net.target(target, 8080), data).ttl(63);
    assert_eq!((port, sent), (INSIDE, to_target(&expected, target)));
    (target, local)
}

/// A worker looks at all its flows by and by; those of datagrams that come meanwhile don't wait for it.
#[test]
fn the_next_datagram_leaves_a_target_that_is_cut() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let (_, local) = ask(&mut rig, 5000, b"one");
        assert_eq!(ask(&mut rig, 5001, b"two").0, 22);
        assert_eq!(ask(&mut rig, 5000, b"one").0, 21);
        rig.swap(&changed(net, cut));
        // An answer on its way still goes through.
        let answer = frame::udp(net.target(21, 8080), net.local(local), b"answer");
        let expected = frame::udp(net.vip(53), net.client(10, 5000), b"answer").ttl(63);
        assert_eq!(
            rig.inside(&answer, 21),
            (OUTSIDE, rig::to_client(&expected))
        );
        assert_eq!(ask(&mut rig, 5000, b"one more").0, 22);
        assert_eq!(ask(&mut rig, 5001, b"two").0, 22);
        let counts = |rig: &Rig| rig.service_counts(53, Protocol::Udp);
        assert_eq!((counts(&rig).flows_cut, counts(&rig).flows_active), (1, 2));
        assert_eq!(rig.target_counts(53, Protocol::Udp, 21).flows_active, 0);
        // The walk finds nothing left, and the flow that took the other's place goes on.
        rig.pass(1);
        assert_eq!(ask(&mut rig, 5000, b"one more").0, 22);
        assert_eq!((counts(&rig).flows_cut, counts(&rig).flows_active), (1, 2));
        assert_eq!(counts(&rig).flows_created, 3);
    }
}

#[test]
fn a_datagram_whose_target_was_cut_is_refused_where_no_other_takes_it() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        ask(&mut rig, 5000, b"one");
        let mut services = net.services();
        for service in &mut services {
            service.targets.iter_mut().for_each(cut);
        }
        rig.swap(&services);
        let datagram = frame::udp(net.client(10, 5000), net.vip(53), b"one");
        assert_eq!(
            rig.dropped(OUTSIDE, from_client(&datagram)),
            DropReason::NoTarget
        );
        assert_eq!(rig.flow_count(), 0);
        rig.swap(&net.services());
        ask(&mut rig, 5000, b"one");
    }
}

/// All fragments of a datagram go where the first went.
#[test]
fn fragments_leave_a_target_that_is_cut_together() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        assert_eq!(ask(&mut rig, 5000, b"one").0, 21);
        rig.swap(&changed(net, cut));
        let long = frame::udp(net.client(10, 5000), net.vip(53), &[7; 1000]);
        let targets: Vec<u8> = long
            .cut(77, &[512])
            .iter()
            .map(|piece| frame::target_of(&rig.outside(piece).1))
            .collect();
        assert_eq!(targets, [22, 22]);
        assert_eq!(rig.flow_count(), 1);
    }
}

#[test]
fn under_dr_and_through_tunnels_the_next_datagram_leaves_too() {
    for net in BOTH {
        for mode in [Mode::Direct, Mode::Tunnel] {
            let mut service = ServiceConfig::new(net.vip_ip(), Protocol::Udp, 53);
            service.mode = mode;
            service.targets = [21, 22].map(|n| up(net.target(n, 53))).into();
            let mut rig = Rig::serving(net, &rig::small(), &[service.clone()]).resolved();
            let datagram = frame::udp(net.client(10, 5000), net.vip(53), b"query");
            // The target's MAC ends in its number.
            let target = |rig: &mut Rig| rig.outside(&datagram).1[5];
            assert_eq!([target(&mut rig), target(&mut rig)], [21, 21]);
            cut(&mut service.targets[0]);
            rig.swap(&[service]);
            assert_eq!([target(&mut rig), target(&mut rig)], [22, 22], "{mode:?}");
        }
    }
}
