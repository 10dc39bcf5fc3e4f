//! Distributions with exact figures.

use super::*;
use crate::config::UpstreamSettings;

fn upstream(balance: Algorithm, weights: &[u32]) -> Arc<Upstream> {
    let backends = weights
        .iter()
        .zip(1..)
        .map(|(weight, host)| crate::config::BackendSettings {
            address: ([10, 0, 0, host], 80).into(),
            weight: *weight,
        })
        .collect();
    Arc::new(Upstream::new(
        UpstreamSettings::new("app", balance, backends),
        None,
    ))
}

/// Chooses `turns` times, each request over before the next; the choices as letters.
fn choices(balancer: &mut Balancer, turns: usize) -> String {
    (0..turns)
        .map(|_| {
            balancer
                .choose(&Tried::new())
                .map_or('-', |index| (b'a' + index as u8) as char)
        })
        .collect()
}

#[test]
fn round_robin_takes_turns() {
    let mut balancer = Balancer::new(upstream(Algorithm::RoundRobin, &[1, 1, 1]), 0);
    assert_eq!(choices(&mut balancer, 7), "abcabca");
}

#[test]
fn weighted_round_robin_is_smooth_and_exact() {
    let mut balancer = Balancer::new(upstream(Algorithm::RoundRobin, &[5, 1, 1]), 0);
    assert_eq!(choices(&mut balancer, 14), "aabacaaaabacaa");
    let mut balancer = Balancer::new(upstream(Algorithm::RoundRobin, &[3, 2, 1]), 0);
    let turns = choices(&mut balancer, 6_000);
    assert_eq!(
        ["a", "b", "c"].map(|name| turns.matches(name).count()),
        [3_000, 2_000, 1_000]
    );
}

#[test]
fn workers_start_at_different_turns() {
    let shared = upstream(Algorithm::RoundRobin, &[1, 1, 1]);
    let firsts: String = (0..4)
        .map(|worker| choices(&mut Balancer::new(Arc::clone(&shared), worker), 1))
        .collect();
    assert_eq!(firsts, "abca");
}

#[test]
fn a_backend_that_is_down_or_draining_gets_nothing_and_comes_back_without_a_burst() {
    let shared = upstream(Algorithm::RoundRobin, &[1, 1, 1]);
    let mut balancer = Balancer::new(Arc::clone(&shared), 0);
    assert!(shared.backends[1].set_state(State::Down));
    assert!(
        !shared.backends[1].set_state(State::Down),
        "no change, no event"
    );
    assert_eq!(choices(&mut balancer, 6), "acacac");
    shared.backends[2].set_state(State::Draining);
    assert_eq!(choices(&mut balancer, 3), "aaa");
    shared.backends[1].set_state(State::Up);
    shared.backends[2].set_state(State::Up);
    let turns = choices(&mut balancer, 9);
    assert_eq!(
        ["a", "b", "c"].map(|name| turns.matches(name).count()),
        [3, 3, 3]
    );
    assert!(!turns.contains("bb"), "{turns}");
}

#[test]
fn nothing_is_chosen_when_all_are_down_or_tried() {
    let shared = upstream(Algorithm::RoundRobin, &[1, 1]);
    let mut balancer = Balancer::new(Arc::clone(&shared), 0);
    let mut tried = Tried::new();
    let first = balancer.choose(&tried).unwrap();
    tried.add(first);
    let second = balancer.choose(&tried).unwrap();
    assert_ne!(first, second);
    tried.add(second);
    assert_eq!(balancer.choose(&tried), None);
    shared.backends.iter().for_each(|backend| {
        backend.set_state(State::Down);
    });
    assert_eq!(balancer.choose(&Tried::new()), None);
    assert_eq!(shared.available(), 0);
}

#[test]
fn least_connections_keeps_requests_under_way_in_proportion_to_weight() {
    let shared = upstream(Algorithm::LeastConnections, &[3, 2, 1]);
    let mut balancer = Balancer::new(Arc::clone(&shared), 0);
    let under_way: Vec<InFlight> = (0..600)
        .map(|_| shared.backends[balancer.choose(&Tried::new()).unwrap()].begin())
        .collect();
    assert_eq!(
        shared
            .backends
            .iter()
            .map(|backend| backend.active())
            .collect::<Vec<_>>(),
        [300, 200, 100]
    );
    drop(under_way);
    assert_eq!(
        shared
            .backends
            .iter()
            .map(|backend| backend.active())
            .sum::<u32>(),
        0
    );
}

#[test]
fn least_connections_on_an_idle_upstream_follows_the_weights() {
    let mut balancer = Balancer::new(upstream(Algorithm::LeastConnections, &[3, 2, 1]), 0);
    let turns = choices(&mut balancer, 600);
    assert_eq!(
        ["a", "b", "c"].map(|name| turns.matches(name).count()),
        [300, 200, 100]
    );
}

#[test]
fn least_connections_avoids_the_slow_backend() {
    let shared = upstream(Algorithm::LeastConnections, &[1, 1, 1]);
    let _stuck: Vec<InFlight> = (0..5).map(|_| shared.backends[0].begin()).collect();
    let mut balancer = Balancer::new(Arc::clone(&shared), 0);
    assert_eq!(choices(&mut balancer, 6), "bcbcbc");
    let other_worker = Balancer::new(Arc::clone(&shared), 1).choose(&Tried::new());
    assert_ne!(other_worker, Some(0), "counts are shared by workers");
}

#[test]
fn a_reload_keeps_what_is_known_about_backends_that_stay() {
    let before = upstream(Algorithm::RoundRobin, &[1, 1]);
    before.backends[0].set_state(State::Down);
    before.backends[1].set_state(State::Draining);
    let _request = before.backends[0].begin();
    let mut settings = before.settings.clone();
    settings.backends[1].weight = 7;
    settings.backends.push(crate::config::BackendSettings {
        address: ([10, 0, 0, 9], 80).into(),
        weight: 1,
    });
    let after = Upstream::new(settings, Some(&before));
    assert!(
        Arc::ptr_eq(&before.backends[0], &after.backends[0]),
        "same backend, same count"
    );
    assert_eq!(after.backends[1].weight(), 7);
    assert_eq!(
        after
            .backends
            .iter()
            .map(|backend| backend.state())
            .collect::<Vec<_>>(),
        [State::Down, State::Draining, State::Up]
    );
}
