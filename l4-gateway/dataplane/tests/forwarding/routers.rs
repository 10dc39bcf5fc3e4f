//! Several routers: watched, used in order or by flow, left when they die and used again when they are back.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::{Counters, NextHops, Port, PortIndex, Route, RouterState, Sharing, TablesBuilder};

use super::frame::{self, ACK, mac};
use super::net::{BOTH, Net, set_gateway};
use super::rig::{self, INSIDE, MILLISECOND, OUTSIDE, Opened, Rig, asked_for, last};

const FIRST: u8 = 2;
const SECOND: u8 = 3;

/// Two routers outside; with 200 clients behind them.
fn builder(net: Net, sharing: Sharing) -> TablesBuilder {
    with_default(net, &net.ports(), (OUTSIDE, 1), sharing)
}

/// The ports without their gateways, and a default route by routers on a segment.
fn with_default(
    net: Net,
    ports: &[Port],
    (port, segment): (PortIndex, u8),
    sharing: Sharing,
) -> TablesBuilder {
    let mut ports = ports.to_vec();
    set_gateway(&mut ports[0], net, None);
    let mut builder = rig::builder(&ports, &net.services());
    add_default(&mut builder, net, (port, segment), [FIRST, SECOND], sharing);
    builder
}

fn add_default<const N: usize>(
    builder: &mut TablesBuilder,
    net: Net,
    (port, segment): (PortIndex, u8),
    routers: [u8; N],
    sharing: Sharing,
) {
    let any: IpAddr = match net {
        Net::V4 => [0; 4].into(),
        Net::V6 => [0; 16].into(),
    };
    let routers = routers.map(|last| net.address(segment, last));
    builder.route(Route {
        destination: any,
        prefix: 0,
        port,
        via: NextHops::new(routers, sharing).unwrap(),
    });
}

fn limits() -> dataplane::Limits {
    dataplane::Limits {
        flows: 512,
        ..rig::small()
    }
}

/// Lets time pass; of the routers, those in `lives` answer.
fn pass(rig: &mut Rig, milliseconds: u64, lives: &[u8]) {
    for _ in 0..milliseconds / 10 {
        rig.now.0 += 10 * MILLISECOND;
        rig.out.clear();
        rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
        for (port, frame) in rig.emitted() {
            let Some(asked) = asked_for(&frame) else {
                continue;
            };
            let is_router = [FIRST, SECOND].contains(&last(asked));
            if !is_router || lives.contains(&last(asked)) {
                rig.resolve(port, asked, mac(last(asked)));
            }
        }
    }
    rig.out.clear();
}

/// By which router a connection's answers leave.
fn way(rig: &mut Rig, opened: &Opened) -> u8 {
    rig.from_target(opened, ACK, 9001, 1001)[5]
}

#[test]
fn all_flows_use_the_first_router_that_lives_and_move_within_a_second() {
    for net in BOTH {
        let mut rig = Rig::from(&limits(), &builder(net, Sharing::InOrder), 0, 1).speaking(net);
        let both = [FIRST, SECOND];
        pass(&mut rig, 100, &both);
        let opened = rig.establish(net.client(10, 4000), 1000);
        assert_eq!(way(&mut rig, &opened), FIRST);
        pass(&mut rig, 5000, &both);
        assert_eq!(way(&mut rig, &opened), FIRST);

        pass(&mut rig, 500, &[SECOND]);
        assert_eq!(way(&mut rig, &opened), FIRST, "it may have lost a question");
        pass(&mut rig, 500, &[SECOND]);
        assert_eq!(way(&mut rig, &opened), SECOND);
        let new = rig.establish(net.client(11, 4000), 1000);
        assert_eq!(way(&mut rig, &new), SECOND, "new flows too");

        pass(&mut rig, 300, &both);
        assert_eq!(way(&mut rig, &opened), SECOND, "not at its first answer");
        pass(&mut rig, 500, &both);
        assert_eq!(way(&mut rig, &opened), FIRST);

        // Nobody answers: what was known of the first is as good as anything.
        pass(&mut rig, 2000, &[]);
        assert_eq!(way(&mut rig, &opened), FIRST);
        let living = rig.counters.living(&rig.tables).unwrap();
        assert_eq!([0, 1].map(|at| living.state(at)), [RouterState::Down; 2]);
    }
}

#[test]
fn a_router_that_misses_two_questions_in_a_row_is_not_left() {
    for net in BOTH {
        let mut rig = Rig::from(&limits(), &builder(net, Sharing::InOrder), 0, 1).speaking(net);
        let both = [FIRST, SECOND];
        pass(&mut rig, 1000, &both);
        let opened = rig.establish(net.client(10, 4000), 1000);
        for _ in 0..10 {
            pass(&mut rig, 400, &[SECOND]);
            assert_eq!(way(&mut rig, &opened), FIRST);
            pass(&mut rig, 800, &both);
            assert_eq!(way(&mut rig, &opened), FIRST);
        }
    }
}

/// One that answers a question of three is left, though never three in a row are lost.
#[test]
fn a_lossy_router_is_left_for_good_ones_and_kept_before_dead_ones() {
    for net in BOTH {
        for sharing in [Sharing::InOrder, Sharing::ByFlow] {
            let mut rig = Rig::from(&limits(), &builder(net, sharing), 0, 1).speaking(net);
            let both = [FIRST, SECOND];
            pass(&mut rig, 1000, &both);
            let lossy = |rig: &mut Rig, others: &[u8], seconds: u64| {
                let first: Vec<u8> = [&[FIRST], others].concat();
                for _ in 0..seconds * 10 / 6 {
                    pass(rig, 400, others);
                    pass(rig, 200, &first);
                }
            };
            // By flow, one of those that share takes this way.
            let mut all = Vec::new();
            for last in 0..100 {
                all.push(rig.establish(net.client(last, 4000), 1000));
            }
            let mut by_first = |opened: &Opened| way(&mut rig, opened) == FIRST;
            let opened = all.into_iter().find(&mut by_first).unwrap();
            lossy(&mut rig, &[SECOND], 3);
            assert_eq!(
                way(&mut rig, &opened),
                FIRST,
                "half of a window is not lost"
            );
            lossy(&mut rig, &[SECOND], 4);
            let states = |rig: &Rig| {
                let living = rig.counters.living(&rig.tables).unwrap();
                [0, 1].map(|at| living.state(at))
            };
            assert_eq!(states(&rig), [RouterState::Lossy, RouterState::Up]);
            for _ in 0..5 {
                assert_eq!(way(&mut rig, &opened), SECOND);
                lossy(&mut rig, &[SECOND], 1);
            }
            // The other dies: better than nothing.
            lossy(&mut rig, &[], 2);
            assert_eq!(states(&rig), [RouterState::Lossy, RouterState::Down]);
            assert_eq!(way(&mut rig, &opened), FIRST);
            pass(&mut rig, 1000, &both);
            assert_eq!(way(&mut rig, &opened), SECOND);
            pass(&mut rig, 5000, &both);
            assert_eq!(way(&mut rig, &opened), FIRST, "it is good again");
        }
    }
}

#[test]
fn flows_share_routers_and_only_those_of_a_dead_one_move() {
    for net in BOTH {
        let mut rig = Rig::from(&limits(), &builder(net, Sharing::ByFlow), 0, 1).speaking(net);
        let both = [FIRST, SECOND];
        pass(&mut rig, 100, &both);
        let flows: Vec<Opened> = (0..200)
            .map(|n| rig.establish(net.client(n, 4000), 1000))
            .collect();
        let ways =
            |rig: &mut Rig| -> Vec<u8> { flows.iter().map(|opened| way(rig, opened)).collect() };
        let at_first = ways(&mut rig);
        let by_first = at_first.iter().filter(|by| **by == FIRST).count();
        assert!((60..=140).contains(&by_first), "{by_first} of 200");
        pass(&mut rig, 1000, &[SECOND]);
        assert_eq!(ways(&mut rig), [SECOND; 200]);
        pass(&mut rig, 1000, &both);
        assert_eq!(ways(&mut rig), at_first, "each is back where it was");
        pass(&mut rig, 1000, &[FIRST]);
        assert_eq!(ways(&mut rig), [FIRST; 200]);
    }
}

#[test]
fn routers_of_another_port_take_over() {
    for net in BOTH {
        let mut builder = with_default(net, &net.ports(), (OUTSIDE, 1), Sharing::InOrder);
        add_default(&mut builder, net, (INSIDE, 2), [9], Sharing::InOrder);
        let mut rig = Rig::from(&limits(), &builder, 0, 1).speaking(net);
        pass(&mut rig, 100, &[FIRST, SECOND]);
        let opened = rig.establish(net.client(10, 4000), 1000);
        assert_eq!(way(&mut rig, &opened), FIRST);
        pass(&mut rig, 1000, &[]);
        let (target, local) = opened.inside(net);
        let answer = frame::tcp(target, local, ACK).seq(9001, 1001u32.wrapping_add(opened.shift));
        let (port, sent) = rig.inside(&answer, opened.target);
        assert_eq!((port, sent[5]), (INSIDE, 9));
        let ways = rig.tables.ways_out();
        assert_eq!(ways.len(), 1);
        let ports: Vec<PortIndex> = ways[0].iter().map(|(port, _)| *port).collect();
        assert_eq!(ports, [OUTSIDE, OUTSIDE, INSIDE]);
    }
}

#[test]
fn packets_to_targets_stay_on_the_port_of_their_local_ip() {
    for net in BOTH {
        let mut builder = rig::builder(&net.ports(), &[]);
        let behind = |last| net.in_network(7, last);
        let mut service = net.services().remove(0);
        service.targets = vec![rig::up((behind(21), 8080))];
        builder.service(service);
        for (port, segment) in [(INSIDE, 2), (OUTSIDE, 1)] {
            builder.route(Route {
                destination: behind(0),
                prefix: net.segment_bits(),
                port,
                via: NextHops::one(net.address(segment, FIRST)),
            });
        }
        let mut rig = Rig::from(&limits(), &builder, 0, 1).speaking(net);
        pass(&mut rig, 1000, &[FIRST]);
        let syn = frame::tcp(net.client(10, 4000), net.vip(80), frame::SYN);
        assert_eq!(rig.outside(&syn).0, INSIDE);
        pass(&mut rig, 1000, &[]);
        assert_eq!(rig.outside(&syn).0, INSIDE, "its LocalIP is nowhere else");
    }
}

#[test]
fn without_a_default_route_the_routers_of_targets_are_no_way_to_clients() {
    for net in BOTH {
        let mut ports = net.ports();
        set_gateway(&mut ports[0], net, None);
        let mut builder = rig::builder(&ports, &[]);
        let behind = |network, last| net.in_network(network, last);
        let mut service = net.services().remove(0);
        service.targets = vec![rig::up((behind(7, 21), 8080))];
        builder.service(service);
        let route = |network, port, segment| Route {
            destination: behind(network, 0),
            prefix: net.segment_bits(),
            port,
            via: NextHops::one(net.address(segment, FIRST)),
        };
        builder.route(route(7, INSIDE, 2));
        let rig = Rig::from(&limits(), &builder, 0, 1);
        assert_eq!(rig.tables.ways_out(), [[]]);
        builder.route(route(8, OUTSIDE, 1));
        let rig = Rig::from(&limits(), &builder, 0, 1);
        let ways = rig.tables.ways_out();
        let ports: Vec<PortIndex> = ways[0].iter().map(|(port, _)| *port).collect();
        assert_eq!(ports, [OUTSIDE]);
    }
}

#[test]
fn what_one_worker_finds_out_holds_for_all_and_for_the_next_snapshot() {
    for net in BOTH {
        let counters = Arc::new(Counters::new(2, &limits()));
        let builder = builder(net, Sharing::InOrder);
        let [mut asks, mut follows] =
            [0, 1].map(|index| Rig::sharing(&limits(), &builder, index, &counters).speaking(net));
        follows.tables = builder.build(&mut follows.ids, None).unwrap();
        let both = [FIRST, SECOND];
        pass(&mut asks, 100, &both);
        let questions = |rig: &mut Rig| {
            let mut asked = BTreeSet::new();
            for _ in 0..100 {
                rig.now.0 += 10 * MILLISECOND;
                rig.out.clear();
                rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
                asked.extend(
                    rig.emitted()
                        .iter()
                        .filter_map(|(_, frame)| asked_for(frame)),
                );
            }
            asked.len()
        };
        pass(&mut follows, 1000, &both);
        assert_eq!(questions(&mut follows), 0, "it leaves that to the first");

        // It runs on another snapshot: what is told by the one before says nothing of it.
        assert_eq!(counters.living(&follows.tables), None);
        let before = Arc::new(asks.tables);
        asks.tables = builder.build(&mut asks.ids, Some(&before)).unwrap();
        assert_eq!(counters.living(&asks.tables), None);
        pass(&mut asks, 10, &both);
        let living = counters.living(&asks.tables).unwrap();
        let states = [0, 1].map(|at| living.state(at));
        assert_eq!(states, [RouterState::Up; 2], "known from before");
    }
}
