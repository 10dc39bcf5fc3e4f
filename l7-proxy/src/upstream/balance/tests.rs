//! Distributions with exact figures.

use std::sync::LazyLock;

use health::CheckSettings;

use super::*;
use crate::upstream::{BackendSettings, InFlight, State, UpstreamSettings};

fn upstream(balance: Algorithm, weights: &[u32]) -> Arc<Upstream> {
    let backends = weights
        .iter()
        .zip(1..)
        .map(|(weight, host)| BackendSettings {
            address: ([10, 0, 0, host], 80).into(),
            weight: *weight,
        })
        .collect();
    Arc::new(Upstream::new(
        UpstreamSettings::new("app", balance, backends),
        None,
    ))
}

/// No balancer here goes by the request.
fn asking() -> Asking<'static> {
    static ASKED: LazyLock<(Uri, HeaderMap)> = LazyLock::new(Default::default);
    Asking {
        client: IpAddr::from([192, 0, 2, 1]),
        uri: &ASKED.0,
        headers: &ASKED.1,
    }
}

/// Chooses `turns` times, each request over before the next; the choices as letters.
fn choices(balancer: &mut Balancer, turns: usize) -> String {
    (0..turns)
        .map(|_| {
            balancer
                .choose(&asking(), &Tried::new())
                .map_or('-', |index| (b'a' + index as u8) as char)
        })
        .collect()
}

#[test]
fn round_robin_takes_turns() {
    let mut balancer = Balancer::new(upstream(Algorithm::RoundRobin, &[1, 1, 1]), 0, None);
    assert_eq!(choices(&mut balancer, 7), "abcabca");
}

#[test]
fn weighted_round_robin_is_smooth_and_exact() {
    let mut balancer = Balancer::new(upstream(Algorithm::RoundRobin, &[5, 1, 1]), 0, None);
    assert_eq!(choices(&mut balancer, 14), "aabacaaaabacaa");
    let mut balancer = Balancer::new(upstream(Algorithm::RoundRobin, &[3, 2, 1]), 0, None);
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
        .map(|worker| choices(&mut Balancer::new(Arc::clone(&shared), worker, None), 1))
        .collect();
    assert_eq!(firsts, "abca");
}

#[test]
fn a_backend_that_is_down_gets_nothing_and_comes_back_without_a_burst() {
    let shared = upstream(Algorithm::RoundRobin, &[1, 1, 1]);
    let mut balancer = Balancer::new(Arc::clone(&shared), 0, None);
    assert!(shared.members[1].backend.set_state(State::Down));
    assert!(
        !shared.members[1].backend.set_state(State::Down),
        "no change, no event"
    );
    assert_eq!(choices(&mut balancer, 6), "acacac");
    shared.members[2].backend.set_state(State::Down);
    assert_eq!(choices(&mut balancer, 3), "aaa");
    shared.members[1].backend.set_state(State::Up);
    shared.members[2].backend.set_state(State::Up);
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
    let mut balancer = Balancer::new(Arc::clone(&shared), 0, None);
    let mut tried = Tried::new();
    let first = balancer.choose(&asking(), &tried).unwrap();
    tried.add(first);
    let second = balancer.choose(&asking(), &tried).unwrap();
    assert_ne!(first, second);
    tried.add(second);
    assert_eq!(balancer.choose(&asking(), &tried), None);
    for member in &shared.members {
        member.backend.set_state(State::Down);
    }
    assert_eq!(balancer.choose(&asking(), &Tried::new()), None);
    assert_eq!(shared.available(), 0);
}

#[test]
fn least_connections_keeps_requests_under_way_in_proportion_to_weight() {
    let shared = upstream(Algorithm::LeastConnections, &[3, 2, 1]);
    let mut balancer = Balancer::new(Arc::clone(&shared), 0, None);
    let under_way: Vec<InFlight> = (0..600)
        .map(|_| {
            let chosen = balancer.choose(&asking(), &Tried::new()).unwrap();
            shared.members[chosen].backend.begin()
        })
        .collect();
    assert_eq!(
        shared
            .members
            .iter()
            .map(|member| member.backend.active())
            .collect::<Vec<_>>(),
        [300, 200, 100]
    );
    drop(under_way);
    assert_eq!(
        shared
            .members
            .iter()
            .map(|member| member.backend.active())
            .sum::<u32>(),
        0
    );
}

#[test]
fn least_connections_on_an_idle_upstream_follows_the_weights() {
    let mut balancer = Balancer::new(upstream(Algorithm::LeastConnections, &[3, 2, 1]), 0, None);
    let turns = choices(&mut balancer, 600);
    assert_eq!(
        ["a", "b", "c"].map(|name| turns.matches(name).count()),
        [300, 200, 100]
    );
}

#[test]
fn least_connections_avoids_the_slow_backend() {
    let shared = upstream(Algorithm::LeastConnections, &[1, 1, 1]);
    let _stuck: Vec<InFlight> = (0..5).map(|_| shared.members[0].backend.begin()).collect();
    let mut balancer = Balancer::new(Arc::clone(&shared), 0, None);
    assert_eq!(choices(&mut balancer, 6), "bcbcbc");
    let other_worker = Balancer::new(Arc::clone(&shared), 1, None).choose(&asking(), &Tried::new());
    assert_ne!(other_worker, Some(0), "counts are shared by workers");
}

#[test]
fn a_reload_keeps_what_is_known_about_backends_that_stay_and_counts_on_under_their_new_weight() {
    let mut settings = upstream(Algorithm::RoundRobin, &[1, 1]).settings.clone();
    settings.health = Some(CheckSettings::default());
    let before = Upstream::new(settings.clone(), None);
    before.members[0].backend.set_state(State::Up);
    before.members[1].backend.set_state(State::Down);
    let _request = before.members[1].backend.begin();
    settings.backends[1].weight = 7;
    settings.backends.push(BackendSettings {
        address: ([10, 0, 0, 9], 80).into(),
        weight: 1,
    });
    let after = Upstream::new(settings, Some(&before));
    let seen: Vec<_> = after
        .members
        .iter()
        .map(|member| {
            (
                member.weight,
                member.backend.state(),
                member.backend.active(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [(1, State::Up, 0), (7, State::Down, 1), (1, State::Down, 0)]
    );
}

#[test]
fn a_reload_keeps_the_turns_of_backends_that_stay() {
    let first = upstream(Algorithm::RoundRobin, &[1, 1, 1]);
    let mut balancer = Balancer::new(Arc::clone(&first), 0, None);
    assert_eq!(choices(&mut balancer, 4), "abca");
    // `b` leaves, `d` comes: after `a` it is `c`'s turn, not `a`'s again.
    let mut settings = first.settings.clone();
    settings.backends.remove(1);
    settings.backends.push(BackendSettings {
        address: ([10, 0, 0, 4], 80).into(),
        weight: 1,
    });
    let second = Arc::new(Upstream::new(settings, Some(&first)));
    let mut balancer = Balancer::new(second, 0, Some(&balancer));
    let turns = choices(&mut balancer, 9);
    assert!(turns.starts_with('b'), "{turns}");
    assert_eq!(
        ["a", "b", "c"].map(|name| turns.matches(name).count()),
        [3, 3, 3]
    );
}

#[test]
fn what_is_owed_by_greater_weights_is_not_paid_in_a_burst() {
    let first = upstream(Algorithm::RoundRobin, &[10_000, 1]);
    let mut balancer = Balancer::new(Arc::clone(&first), 0, None);
    choices(&mut balancer, 4_000);
    let mut settings = first.settings.clone();
    settings.backends[0].weight = 1;
    let second = Arc::new(Upstream::new(settings, Some(&first)));
    let mut balancer = Balancer::new(second, 0, Some(&balancer));
    let turns = choices(&mut balancer, 20);
    assert!(turns.matches('a').count() >= 8, "{turns}");
    assert!(turns.matches('b').count() >= 8, "{turns}");
}
