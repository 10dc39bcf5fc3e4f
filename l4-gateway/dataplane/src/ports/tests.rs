use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::Ipv4Addr;

use super::*;
use crate::port::PortIndex;

const TARGET: TargetId = TargetId(2);

fn limits(first_port: u16, last_port: u16) -> Limits {
    Limits {
        first_port,
        last_port,
        targets: 4,
        local_ips: 2,
        ..Limits::default()
    }
}

fn local(id: u8) -> LocalIp {
    LocalIp {
        id: LocalIpId(id),
        address: Ipv4Addr::new(10, 3, 0, 100 + id).into(),
        port: PortIndex(1),
        by_port: false,
    }
}

fn pool(index: u16, workers: u16, limits: &Limits) -> PortPool {
    PortPool::new(index, workers, limits, &Secret::new([5; 32]))
}

#[test]
fn workers_split_any_range_completely() {
    for workers in 1..=7 {
        for (first, last) in [
            (1024, 65_535),
            (1, 65_535),
            (65_530, 65_535),
            (5001, 5010),
            (5001, 5001),
            (2, 1),
        ] {
            let limits = limits(first, last);
            let mut all = Vec::new();
            for index in 0..workers {
                let mut pool = pool(index, workers, &limits);
                let taken = RefCell::new(HashSet::new());
                for _ in 0..pool.capacity {
                    let is_taken = |_: &LocalIp, port| taken.borrow().contains(&port);
                    let (_, port) = pool
                        .claim(TARGET, [local(0)].iter(), None, is_taken)
                        .expect("a port");
                    assert_eq!(PortPool::owner(port, workers), index);
                    taken.borrow_mut().insert(port);
                    all.push(port);
                }
                assert_eq!(
                    pool.claim(TARGET, [local(0)].iter(), None, |_, _| false),
                    None,
                    "all are out"
                );
            }
            all.sort_unstable();
            assert_eq!(
                all,
                (first..=last).collect::<Vec<u16>>(),
                "{workers} workers, {first} to {last}"
            );
        }
    }
}

#[test]
fn pairs_have_ports_of_their_own() {
    let mut pool = pool(0, 1, &limits(5000, 5001));
    for target in [TargetId(0), TargetId(1)] {
        for _ in 0..4 {
            assert!(
                pool.claim(target, [local(0), local(1)].iter(), None, |_, _| false)
                    .is_some()
            );
        }
        assert!(
            pool.claim(target, [local(0), local(1)].iter(), None, |_, _| false)
                .is_none()
        );
    }
    assert_eq!(pool.total_used(), 8);
    pool.release(TargetId(0), LocalIpId(1));
    assert_eq!(
        (
            pool.used(TargetId(0), LocalIpId(0)),
            pool.used(TargetId(0), LocalIpId(1))
        ),
        (2, 1)
    );
    let both = [local(0), local(1)];
    let (local, _) = pool
        .claim(TargetId(0), both.iter(), None, |_, _| false)
        .expect("the one given back");
    assert_eq!(local.id, LocalIpId(1));
}

#[test]
fn a_port_taken_otherwise_is_passed_over() {
    let mut pool = pool(0, 1, &limits(5000, 5009));
    for _ in 0..3 {
        let (_, port) = pool
            .claim(TARGET, [local(0)].iter(), None, |_, port| port != 5007)
            .expect("one is free");
        assert_eq!(port, 5007);
        pool.release(TARGET, LocalIpId(0));
    }
    assert_eq!(
        pool.claim(TARGET, [local(0)].iter(), None, |_, _| true),
        None
    );
    assert_eq!(pool.total_used(), 0);
}

/// Ports are given out in turn, so those of long connections are neighbours: a search must get past them, not refuse one client
/// after the other until the cursor has crawled by.
#[test]
fn a_long_run_of_taken_ports_refuses_nobody() {
    for (taken_from, taken_to) in [(1024, 33_000), (20_000, 60_000), (1024, 60_000)] {
        for start in 0..200 {
            let mut pool = pool(0, 1, &limits(1024, u16::MAX));
            if let Some(pair) = pool.pair(TARGET, LocalIpId(0)) {
                pair.cursor = start * 300;
            }
            let in_run = |_: &LocalIp, port| (taken_from..=taken_to).contains(&port);
            let locals = [local(0)];
            let claimed = pool.claim(TARGET, locals.iter(), None, in_run);
            assert!(
                claimed.is_some(),
                "{taken_from} to {taken_to}, the cursor at {}",
                start * 300
            );
        }
    }
}

#[test]
fn ports_rest_in_turn_while_few_are_taken() {
    let mut pool = pool(0, 1, &limits(1024, u16::MAX));
    let locals = [local(0)];
    let claimed: Vec<u16> = (0..1000)
        .filter_map(|_| pool.claim(TARGET, locals.iter(), None, |_, port| port % 4 == 0))
        .map(|(_, port)| port)
        .collect();
    assert_eq!(claimed.len(), 1000);
    for pair in claimed.windows(2) {
        let ahead = pair[1].wrapping_sub(pair[0]);
        assert!((1..=2).contains(&ahead) || pair[1] < 1028, "{pair:?}");
    }
}

#[test]
fn one_claim_tries_a_bounded_number_of_ports_over_all_local_ips() {
    let limits = Limits {
        local_ips: 256,
        ..limits(1024, u16::MAX)
    };
    for count in [1, 2, 16, 256] {
        let mut pool = pool(0, 1, &limits);
        let locals: Vec<LocalIp> = (0..count)
            .map(|id| LocalIp {
                id: LocalIpId(id as u8),
                ..local(0)
            })
            .collect();
        let tried = Cell::new(0);
        let all = |_: &LocalIp, _| {
            tried.set(tried.get() + 1);
            true
        };
        assert_eq!(pool.claim(TARGET, locals.iter(), None, all), None);
        assert_eq!(tried.get(), PORT_PROBES, "{count} LocalIPs");
        // A LocalIP whose ports are all out costs nothing, and one that is free is found at once.
        for id in 1..count {
            if let Some(pair) = pool.pair(TARGET, LocalIpId(id as u8)) {
                pair.used = u16::MAX;
            }
        }
        let claimed = pool.claim(TARGET, locals.iter(), None, |_, _| false);
        assert_eq!(claimed.map(|(local, _)| local.id), Some(LocalIpId(0)));
    }
}

#[test]
fn no_local_ip_and_no_such_target_are_no_port() {
    let mut pool = pool(0, 1, &limits(5000, 5009));
    assert_eq!(
        pool.claim(TARGET, [].iter(), None, |_: &LocalIp, _| false),
        None
    );
    assert_eq!(
        pool.claim(TargetId(99), [local(0)].iter(), None, |_, _| false),
        None
    );
    pool.release(TargetId(99), LocalIpId(0));
}

/// As if the queue were some bits of the port that have nothing to do with its owner.
fn queue(port: u16, queues: u16) -> u16 {
    (port ^ port >> 5 ^ port >> 9) / 7 % queues
}

#[test]
fn ports_whose_answers_come_here_are_preferred_in_turn() {
    for workers in [2, 3, 8] {
        for index in 0..workers {
            let mut pool = pool(index, workers, &limits(1024, u16::MAX));
            let taken = RefCell::new(HashSet::new());
            let comes_here = |_: &LocalIp, port| queue(port, workers) == index;
            let most = pool.capacity / workers;
            let mut here = 0;
            for _ in 0..most {
                let (_, port) = pool
                    .claim(TARGET, [local(0)].iter(), Some(&comes_here), |_, port| {
                        taken.borrow().contains(&port)
                    })
                    .expect("a port");
                assert!(taken.borrow_mut().insert(port), "{port} is given out twice");
                assert_eq!(PortPool::owner(port, workers), index);
                here += u32::from(queue(port, workers) == index);
            }
            // The last of them are hard to find among those taken.
            assert!(
                here * 20 >= u32::from(most) * 19,
                "{here} of {most} with {workers} workers"
            );
        }
    }
}

#[test]
fn no_port_is_refused_because_its_answers_come_elsewhere() {
    let limits = limits(5000, 5099);
    for comes_here in [
        (|_: &LocalIp, _| false) as fn(&LocalIp, u16) -> bool,
        |_, port| port == 5042,
        |local, _| local.id.0 == 1,
    ] {
        let mut pool = pool(0, 2, &limits);
        let taken = RefCell::new(HashSet::new());
        let both = [local(0), local(1)];
        for _ in 0..100 {
            let (local, port) = pool
                .claim(TARGET, both.iter(), Some(&comes_here), |local, port| {
                    taken.borrow().contains(&(local.id.0, port))
                })
                .expect("all are given out");
            taken.borrow_mut().insert((local.id.0, port));
        }
        assert_eq!(taken.borrow().len(), 100);
    }
}

#[test]
fn a_preference_costs_a_bounded_number_of_looks_at_the_table() {
    let mut pool = pool(1, 8, &limits(1024, u16::MAX));
    let tried = Cell::new(0);
    let comes_here = |_: &LocalIp, port| queue(port, 8) == 1;
    let locals = [local(0)];
    let claimed = pool.claim(TARGET, locals.iter(), Some(&comes_here), |_, _| {
        tried.set(tried.get() + 1);
        true
    });
    assert_eq!(claimed, None);
    assert!(
        (PORT_PROBES..=PORT_PROBES * 5 / 4).contains(&tried.get()),
        "{}",
        tried.get()
    );
}
