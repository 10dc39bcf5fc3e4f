//! Another host says that it has the address of a next hop whose MAC is in use.

use std::net::IpAddr;
use std::time::Duration;

use dataplane::{Event, MacAddr, PortIndex, Resolution, RouterState};

use super::frame::{self, ACK, arp, mac};
use super::ndp;
use super::neighbours::{question, request, requests};
use super::net::{BOTH, Net, v4};
use super::rig::{self, INSIDE, MILLISECOND, OUTSIDE, Opened, ROUTER_MAC, Rig, answer, asked_for};

const REAL: MacAddr = mac(21);
const OTHER: MacAddr = mac(0x71);
const SECOND: Duration = Duration::from_secs(1);

/// What a host at `from` may say to have an address of the inner segment by.
fn claims(net: Net, address: IpAddr, from: MacAddr) -> Vec<(&'static str, Vec<u8>)> {
    let own = net.inside_address();
    let asked = match net {
        Net::V4 => {
            let (address, nobody) = (v4(address), MacAddr::default());
            let sender = (from, address);
            let tells = |operation| arp(operation, MacAddr::BROADCAST, sender, (nobody, address));
            vec![
                ("a gratuitous ARP request", tells(1)),
                ("a gratuitous ARP reply", tells(2)),
                (
                    "a question for the port's address",
                    arp(1, MacAddr::BROADCAST, sender, (nobody, v4(own))),
                ),
            ]
        }
        Net::V6 => vec![
            ("an announcement", ndp::announcement(from, address)),
            (
                "a question for the port's address",
                ndp::question((from, address), own),
            ),
        ],
    };
    let answers = ("an answer", answer(INSIDE, address, from));
    asked.into_iter().chain([answers]).collect()
}

/// A node with a connection to the target in contest.
fn connected(net: Net) -> (Rig, Opened) {
    let mut rig = Rig::of(net);
    let opened = rig.establish(net.client(1, 4000), 1);
    assert_eq!(opened.target, 21);
    rig.out.clear();
    (rig, opened)
}

/// Where the connection's packets go.
fn way(rig: &mut Rig, opened: &Opened) -> MacAddr {
    let sent = rig.from_client(opened, ACK, 2, 9001);
    MacAddr(*sent.first_chunk().unwrap())
}

/// What the node asks in a tick some milliseconds later, of the inner segment.
fn asks(rig: &mut Rig, milliseconds: u64) -> Vec<(PortIndex, Vec<u8>)> {
    rig.now.0 += milliseconds * MILLISECOND;
    rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
    rig.worker.check_invariants();
    let mut asked = requests(rig);
    asked.retain(|(port, _)| *port == INSIDE);
    asked
}

fn moved(net: Net, from: MacAddr, to: MacAddr) -> Event {
    Event::NextHopMoved {
        port: INSIDE,
        address: net.target_ip(21),
        from,
        to,
    }
}

fn contested(net: Net) -> Event {
    Event::NextHopContested {
        port: INSIDE,
        address: net.target_ip(21),
        mac: REAL,
        other: OTHER,
    }
}

#[test]
fn a_forged_claim_is_not_believed_while_the_mac_in_use_answers() {
    for net in BOTH {
        let address = net.target_ip(21);
        for (description, claim) in claims(net, address, OTHER) {
            // It answers at once, or only the last question.
            for lost in [0, 2] {
                let (mut rig, opened) = connected(net);
                rig.try_send(INSIDE, claim.clone());
                rig.out.clear();
                let mut asked = asks(&mut rig, 1);
                for _ in 0..lost {
                    assert_eq!(way(&mut rig, &opened), REAL, "{description}");
                    asked.extend(asks(&mut rig, 150));
                }
                let directly = request(net, 21, Some(REAL));
                assert_eq!(asked, vec![directly; 1 + lost], "{description}");
                rig.resolve(INSIDE, address, REAL);
                assert_eq!(rig.events(), [contested(net)], "{description}");
                rig.out.clear();
                for _ in 0..100 {
                    assert_eq!(asks(&mut rig, 10), [], "{description}");
                    assert_eq!(way(&mut rig, &opened), REAL, "{description}");
                }
                let counts = rig.worker_counts();
                assert_eq!((counts.next_hops_contested, counts.next_hops_moved), (1, 0));
            }
        }
    }
}

#[test]
fn a_next_hop_that_fails_over_is_believed_within_half_a_second() {
    for net in BOTH {
        for (description, claim) in claims(net, net.target_ip(21), OTHER) {
            let (mut rig, opened) = connected(net);
            rig.try_send(INSIDE, claim);
            rig.out.clear();
            let directly = request(net, 21, Some(REAL));
            for _ in 0..3 {
                assert_eq!(
                    asks(&mut rig, 1),
                    std::slice::from_ref(&directly),
                    "{description}"
                );
                assert_eq!(asks(&mut rig, 148), []);
                assert_eq!(way(&mut rig, &opened), REAL, "{description}");
                rig.now.0 += MILLISECOND;
            }
            asks(&mut rig, 1);
            assert_eq!(way(&mut rig, &opened), OTHER, "{description}");
            let counts = rig.worker_counts();
            assert_eq!((counts.next_hops_contested, counts.next_hops_moved), (0, 1));
            // It has only said so: it is asked itself.
            assert_eq!(asks(&mut rig, 1), [request(net, 21, Some(OTHER))]);
            rig.resolve(INSIDE, net.target_ip(21), OTHER);
            assert_eq!(asks(&mut rig, 2000), []);
            assert_eq!(way(&mut rig, &opened), OTHER, "{description}");
        }
    }
}

#[test]
fn a_failover_is_told_and_the_way_back_is_the_same() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let address = net.target_ip(21);
        for (from, to) in [(REAL, OTHER), (OTHER, REAL)] {
            rig.out.clear();
            rig.resolve(INSIDE, address, to);
            assert_eq!(rig.events(), []);
            rig.outlast_contest();
            assert_eq!(rig.events(), [moved(net, from, to)]);
            rig.resolve(INSIDE, address, to);
            rig.now.0 += 1000 * MILLISECOND;
        }
        // Hosts that the snapshot doesn't name are many.
        let stranger = net.address(2, 77);
        rig.out.clear();
        rig.resolve(INSIDE, stranger, REAL);
        rig.resolve(INSIDE, stranger, OTHER);
        rig.outlast_contest();
        assert_eq!(rig.events(), []);
    }
}

#[test]
fn each_address_of_a_host_that_fails_over_is_told() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        rig.out.clear();
        let targets = [21, 22].map(|target| net.target_ip(target));
        for address in targets {
            rig.resolve(INSIDE, address, OTHER);
        }
        rig.outlast_contest();
        let told = |event: Event| match event {
            Event::NextHopMoved { address, to, .. } if to == OTHER => Some(address),
            _ => None,
        };
        let mut told: Vec<IpAddr> = rig.events().into_iter().filter_map(told).collect();
        told.sort();
        assert_eq!(told, targets);
    }
}

/// Whoever is right: a spare that speaks up too early, or somebody who wants the traffic.
#[test]
fn of_two_that_both_answer_the_older_stays_and_it_is_told_once_a_second() {
    for net in BOTH {
        let (mut rig, opened) = connected(net);
        let address = net.target_ip(21);
        let all = claims(net, address, OTHER);
        let known = rig.worker_counts().neighbours;
        let (mut told, mut asked) = (0, 0);
        for round in 0..1000 {
            for (_, claim) in &all {
                rig.try_send(INSIDE, claim.clone());
            }
            rig.now.0 += 10 * MILLISECOND;
            rig.out.clear();
            rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
            for (port, sent) in rig.emitted() {
                let Some(wanted) = asked_for(&sent) else {
                    continue;
                };
                if wanted == address {
                    asked += 1;
                    rig.resolve(port, address, REAL);
                } else if wanted == net.gateway() {
                    rig.resolve(port, wanted, ROUTER_MAC);
                } else {
                    rig.resolve(port, wanted, mac(rig::last(wanted)));
                }
            }
            assert_eq!(way(&mut rig, &opened), REAL, "round {round}");
            told += rig.events().len();
        }
        assert!((60..=67).contains(&asked), "{asked} questions in 10 s");
        assert!((9..=11).contains(&told), "{told} events in 10 s");
        let counts = rig.worker_counts();
        assert_eq!(counts.next_hops_contested, asked);
        assert_eq!((counts.neighbours, counts.next_hops_moved), (known, 0));
    }
}

#[test]
fn who_fails_over_is_believed_though_others_claim_the_address_too() {
    for net in BOTH {
        let (mut rig, opened) = connected(net);
        let address = net.target_ip(21);
        for round in 0..45u8 {
            rig.try_send(INSIDE, answer(INSIDE, address, mac(0x80 + round)));
            rig.resolve(INSIDE, address, OTHER);
            asks(&mut rig, 10);
        }
        asks(&mut rig, 10);
        asks(&mut rig, 10);
        assert_eq!(way(&mut rig, &opened), OTHER);
    }
}

/// All three questions, or their answers, were lost, or the forger was faster than an answer to the first question of all.
#[test]
fn a_forger_who_is_believed_and_silent_is_left_after_a_second() {
    for net in BOTH {
        let (mut rig, opened) = connected(net);
        let address = net.target_ip(21);
        rig.resolve(INSIDE, address, OTHER);
        rig.outlast_contest();
        assert_eq!(way(&mut rig, &opened), OTHER);
        rig.out.clear();
        assert_eq!(asks(&mut rig, 1000), [request(net, 21, None)]);
        rig.resolve(INSIDE, address, REAL);
        assert_eq!(way(&mut rig, &opened), REAL, "at once");
    }
}

#[test]
fn a_router_that_does_not_answer_anyway_is_believed_at_another_mac_at_once() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let gateway = net.gateway();
        let claim = answer(OUTSIDE, gateway, OTHER);
        let mut unanswered = 0;
        let opened = rig.establish(net.client(1, 4000), 1);
        for _ in 0..40 {
            rig.now.0 += 20 * MILLISECOND;
            rig.out.clear();
            rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
            let asked = [None, Some(ROUTER_MAC)].map(|known| question(OUTSIDE, gateway, known));
            unanswered += rig
                .emitted()
                .iter()
                .filter(|sent| asked.contains(sent))
                .count();
        }
        assert_eq!(unanswered, 4);
        rig.try_send(OUTSIDE, claim);
        let (target, local) = opened.inside(net);
        let answer = frame::tcp(target, local, ACK).seq(9001, 2u32.wrapping_add(opened.shift));
        let (_, sent) = rig.inside(&answer, opened.target);
        assert_eq!(sent[..6], OTHER.0);
    }
}

/// By an advertisement that overrides nothing, or by a router that has the address and stays a spare.
#[test]
fn an_answer_that_is_not_believed_says_nothing_of_a_router() {
    let net = Net::V6;
    let mut rig = Rig::of(net);
    let gateway = net.gateway();
    rig.pass(1);
    let state = |rig: &Rig| rig.counters.living(&rig.tables).unwrap().state(0);
    assert_eq!(state(&rig), RouterState::Up);
    let own = net.outside_address();
    let hint = frame::ndp(136, (gateway, own), 0x40, gateway, Some((2, OTHER)));
    let hint = hint.macs(OTHER, rig::OUTSIDE_MAC).frame();
    for _ in 0..100 {
        rig.now.0 += 10 * MILLISECOND;
        rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
        rig.try_send(OUTSIDE, hint.clone());
    }
    assert_eq!(state(&rig), RouterState::Down);
}

#[test]
fn what_is_known_of_next_hops_is_shown() {
    for net in BOTH {
        let (mut rig, _) = connected(net);
        rig.pass(10);
        let seen = |rig: &Rig, address: IpAddr| {
            let places = rig.worker.neighbour_places();
            let of = |first, count| rig.worker.neighbours_in(&rig.tables, rig.now, first, count);
            let all = of(0, places);
            assert_eq!(all.len(), 3);
            // The same in steps.
            let steps = (0..places).step_by(2).flat_map(|first| of(first, 2));
            assert!(steps.eq(all.clone()));
            all.into_iter()
                .find(|seen| seen.address == address)
                .unwrap()
        };
        let target = seen(&rig, net.target_ip(21));
        assert_eq!((target.port, target.mac), (INSIDE, Some(REAL)));
        assert_eq!(
            (target.resolution, target.named),
            (Resolution::Reachable, true)
        );
        assert_eq!(
            (target.since, target.heard),
            (10 * SECOND, Some(10 * SECOND))
        );
        assert_eq!(target.router, None);
        let router = seen(&rig, net.gateway()).router.unwrap();
        assert_eq!((router.state, router.since), (RouterState::Up, 10 * SECOND));
        assert_eq!(
            (router.questions, router.lost, router.in_use),
            (32, 0, true)
        );
        assert!(router.answered.unwrap() <= Duration::from_millis(200));

        rig.resolve(INSIDE, net.target_ip(21), OTHER);
        assert_eq!(
            seen(&rig, net.target_ip(21)).resolution,
            Resolution::Contested
        );
        rig.outlast_contest();
        let target = seen(&rig, net.target_ip(21));
        assert_eq!(
            (target.mac, target.resolution),
            (Some(OTHER), Resolution::Probing)
        );
        assert!(target.since <= Duration::from_millis(50));
        for _ in 0..200 {
            asks(&mut rig, 50);
        }
        let target = seen(&rig, net.target_ip(21));
        let is_gone = matches!(
            target.resolution,
            Resolution::Failed | Resolution::Incomplete
        );
        assert!(is_gone && target.mac.is_none(), "{target:?}");
        let router = seen(&rig, net.gateway()).router.unwrap();
        assert_eq!((router.state, router.lost), (RouterState::Down, 32));
    }
}

#[test]
fn forged_claims_for_everything_known_ask_each_once_in_a_while_and_grow_nothing() {
    let net = Net::V4;
    let mut rig = Rig::of(net);
    let known = rig.worker_counts().neighbours;
    let addresses = [net.target_ip(21), net.target_ip(22)];
    for n in 0..50_000u32 {
        let [.., a, b, c] = n.to_be_bytes();
        let from = MacAddr([2, 1, 1, a, b, c]);
        let address = match n % 3 {
            2 => net.address(2, 200 + (n % 50) as u8),
            place => addresses[place as usize],
        };
        rig.try_send(INSIDE, answer(INSIDE, address, from));
    }
    assert_eq!(rig.events(), []);
    assert!(
        rig.emitted().is_empty(),
        "nothing is sent at a stranger's pace"
    );
    rig.refresh();
    rig.refresh();
    assert_eq!(rig.worker_counts().neighbours, known);
    assert_eq!(rig.worker_counts().next_hops_moved, 0);
}
