//! Checks driven by hand, with a clock that stands still unless told to move.

use super::*;
use crate::probe::{HttpProbe, Probe};
use crate::settings::CheckSettings;

const SECOND: Duration = Duration::from_secs(1);

fn check(id: &str) -> Check {
    let settings = CheckSettings {
        interval: SECOND,
        jitter: 0.0,
        rise: 1,
        fall: 2,
        ..CheckSettings::default()
    };
    settings.check(id, "10.0.0.1:80".parse().unwrap())
}

fn under(id: &str, rules: impl FnOnce(&mut CheckSettings)) -> Check {
    let mut check = check(id);
    rules(&mut check.settings);
    check
}

fn found(outcome: Outcome) -> Finding {
    Finding {
        outcome,
        reason: format!("{outcome:?}"),
    }
}

/// Launches what is due and finishes each probe at once with `outcome`.
fn round(checks: &mut Checks, now: Instant, outcome: Outcome) -> Vec<Transition> {
    let launches: Vec<Launch> = std::iter::from_fn(|| checks.launch(now)).collect();
    launches
        .into_iter()
        .filter_map(|launch| checks.finished(launch.token, found(outcome), now))
        .collect()
}

fn launched(checks: &mut Checks, now: Instant) -> Vec<String> {
    std::iter::from_fn(|| checks.launch(now))
        .map(|launch| launch.check.id.to_string())
        .collect()
}

#[test]
fn the_first_probe_and_each_change_are_reported() {
    let mut now = Instant::now();
    let mut checks = Checks::new(1, 10);
    checks.set(vec![check("a")], now);
    let mut story = Vec::new();
    for outcome in [
        Outcome::Success,
        Outcome::Success,
        Outcome::Failure,
        Outcome::Failure,
        Outcome::Failure,
        Outcome::Success,
    ] {
        now += 2 * SECOND;
        for transition in round(&mut checks, now, outcome) {
            story.push((transition.state, transition.first, transition.reason));
        }
    }
    let told = |state, first, reason: &str| (state, first, reason.to_owned());
    assert_eq!(
        story,
        [
            told(State::Up, true, "Success"),
            told(State::Down, false, "Failure"),
            told(State::Up, false, "Success")
        ]
    );
}

#[test]
fn a_first_silence_reports_the_initial_state() {
    let now = Instant::now() + SECOND;
    let mut checks = Checks::new(1, 10);
    checks.set(
        vec![under("a", |settings| settings.initially = State::Up)],
        now - SECOND,
    );
    let transitions = round(&mut checks, now, Outcome::Silence);
    assert_eq!(transitions.len(), 1);
    assert!(transitions[0].first && transitions[0].state.is_up());
    assert!(!checks.statuses(now)[0].decided);
    assert_eq!(
        round(&mut checks, now + 2 * SECOND, Outcome::Silence),
        [],
        "once"
    );
}

#[test]
fn what_could_not_be_probed_is_not_reported() {
    let now = Instant::now() + SECOND;
    let mut checks = Checks::new(1, 10);
    checks.set(vec![check("a")], now - SECOND);
    assert_eq!(round(&mut checks, now, Outcome::Unknown), []);
    let status = &checks.statuses(now)[0];
    assert_eq!(
        (status.state, status.decided, status.reason.as_str()),
        (State::Down, false, "Unknown")
    );
}

#[test]
fn a_retry_follows_after_its_delay() {
    let start = Instant::now();
    let now = start + SECOND;
    let mut checks = Checks::new(1, 10);
    let retry_delay = Duration::from_millis(50);
    checks.set(
        vec![under("a", |settings| {
            settings.retries = 1;
            settings.retry_delay = retry_delay;
        })],
        start,
    );
    assert_eq!(
        round(&mut checks, now, Outcome::Failure),
        [],
        "a failure to be repeated is no verdict"
    );
    assert_eq!(checks.wake_at(), Some(now + retry_delay));
    let transitions = round(&mut checks, now + retry_delay, Outcome::Failure);
    assert_eq!(transitions.len(), 1, "its repetition is the first verdict");
    assert_eq!(checks.wake_at(), Some(now + retry_delay + SECOND));
}

#[test]
fn no_more_than_the_limit_run_and_none_twice() {
    let start = Instant::now();
    let mut checks = Checks::new(1, 3);
    checks.set(
        (0..5).map(|index| check(&format!("c{index}"))).collect(),
        start,
    );
    let now = start + 10 * SECOND;
    let first: Vec<Launch> = std::iter::from_fn(|| checks.launch(now)).collect();
    assert_eq!(first.len(), 3);
    assert_eq!(checks.wake_at(), None, "only a finished probe makes room");
    assert!(checks.overdue(now) > SECOND);
    checks.finished(first[0].token, found(Outcome::Success), now);
    assert_eq!(launched(&mut checks, now).len(), 1);
    let late = now + 60 * SECOND;
    for launch in &first[1..] {
        checks.finished(launch.token, found(Outcome::Success), late);
    }
    // c? that finished first is due again, one never ran; the two that just ended were late and are due now: at most once each.
    let mut again = launched(&mut checks, late);
    again.sort();
    again.dedup();
    assert_eq!(again.len(), 2, "room for two beside the one still running");
    assert_eq!(checks.running(), 3);
}

#[test]
fn an_unchanged_check_keeps_state_and_schedule() {
    let start = Instant::now();
    let now = start + SECOND;
    let mut checks = Checks::new(1, 10);
    checks.set(vec![check("a"), check("b")], start);
    assert_eq!(round(&mut checks, now, Outcome::Success).len(), 2);
    let due = checks.wake_at();
    checks.set(vec![check("a"), check("c")], now);
    let states: Vec<(String, bool)> = checks
        .statuses(now)
        .into_iter()
        .map(|status| (status.id.to_string(), status.decided))
        .collect();
    assert_eq!(states, [("a".to_owned(), true), ("c".to_owned(), false)]);
    assert_eq!(
        launched(&mut checks, now + Duration::from_millis(1)),
        ["c"],
        "the new one is probed at once"
    );
    assert_eq!(checks.wake_at(), due, "the old one when it was due");
    assert_eq!(
        launched(&mut checks, now + SECOND),
        ["a"],
        "and the one taken away never"
    );
}

#[test]
fn changed_rules_keep_the_state_and_move_the_next_probe() {
    let start = Instant::now();
    let now = start + SECOND;
    let mut checks = Checks::new(1, 10);
    checks.set(
        vec![under("a", |settings| settings.interval = 60 * SECOND)],
        start,
    );
    assert_eq!(round(&mut checks, now, Outcome::Success).len(), 1);
    checks.set(
        vec![under("a", |settings| {
            settings.interval = 2 * SECOND;
            settings.fall = 1;
        })],
        now,
    );
    assert!(checks.statuses(now)[0].state.is_up(), "kept");
    assert_eq!(round(&mut checks, now + SECOND, Outcome::Failure), []);
    let transitions = round(&mut checks, now + 2 * SECOND, Outcome::Failure);
    assert_eq!(
        (
            transitions.len(),
            transitions[0].state,
            transitions[0].first
        ),
        (1, State::Down, false)
    );
    assert_eq!(
        launched(&mut checks, now + 3 * SECOND),
        [] as [String; 0],
        "the old due time is forgotten"
    );
}

#[test]
fn another_address_or_probe_is_another_check() {
    let start = Instant::now();
    let now = start + SECOND;
    for changed in [
        Check {
            address: "10.0.0.2:80".parse().unwrap(),
            ..check("a")
        },
        under("a", |settings| {
            settings.probe = Probe::Http(HttpProbe::default());
        }),
    ] {
        let mut checks = Checks::new(1, 10);
        checks.set(vec![check("a")], start);
        round(&mut checks, now, Outcome::Success);
        checks.set(vec![changed], now);
        assert!(!checks.statuses(now)[0].decided);
        let transitions = round(&mut checks, now + SECOND, Outcome::Failure);
        assert!(transitions[0].first && !transitions[0].state.is_up());
    }
}

#[test]
fn a_finding_of_a_check_taken_away_is_dropped() {
    let start = Instant::now();
    let now = start + SECOND;
    let mut checks = Checks::new(1, 1);
    checks.set(vec![check("a")], start);
    let launch = checks.launch(now).unwrap();
    checks.set(vec![check("b")], now);
    assert!(
        checks.launch(now + SECOND).is_none(),
        "its probe still takes the room"
    );
    assert_eq!(
        checks.finished(launch.token, found(Outcome::Failure), now),
        None
    );
    assert_eq!(checks.running(), 0);
    assert_eq!(launched(&mut checks, now + SECOND), ["b"]);
}

#[test]
fn of_two_checks_with_one_id_the_first_counts() {
    let now = Instant::now();
    let mut checks = Checks::new(1, 1);
    checks.set(
        vec![
            check("a"),
            Check {
                address: "10.0.0.2:80".parse().unwrap(),
                ..check("a")
            },
        ],
        now,
    );
    let statuses = checks.statuses(now);
    assert_eq!(statuses.len(), 1);
    assert_eq!(statuses[0].address, "10.0.0.1:80".parse().unwrap());
}

#[test]
fn random_histories_keep_the_invariants() {
    // A seeded walk over everything that can happen, with the counts that must hold after each step.
    for seed in 0..50u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut now = Instant::now();
        let mut checks = Checks::new(seed, 4);
        let mut running: Vec<Launch> = Vec::new();
        for _ in 0..500 {
            now += Duration::from_millis(random(400));
            match random(4) {
                0 => {
                    let wanted = (0..random(8))
                        .map(|_| {
                            let interval = Duration::from_millis(100 + 100 * random(3));
                            let address = format!("10.0.0.{}:80", random(2)).parse().unwrap();
                            let rules = |settings: &mut CheckSettings| {
                                settings.interval = interval;
                                settings.retries = 1;
                            };
                            Check {
                                address,
                                ..under(&format!("c{}", random(8)), rules)
                            }
                        })
                        .collect();
                    checks.set(wanted, now);
                }
                1 | 2 => running.extend(std::iter::from_fn(|| checks.launch(now))),
                _ if running.is_empty() => {}
                _ => {
                    let launch = running.swap_remove(random(running.len() as u64) as usize);
                    let outcomes = [
                        Outcome::Success,
                        Outcome::Failure,
                        Outcome::Silence,
                        Outcome::Unknown,
                    ];
                    checks.finished(launch.token, found(outcomes[random(4) as usize]), now);
                }
            }
            checks.check_invariants();
            assert_eq!(checks.running(), running.len(), "seed {seed}");
            assert!(running.len() <= 4, "seed {seed}");
            let mut tokens: Vec<Token> = running.iter().map(|launch| launch.token).collect();
            tokens.sort();
            tokens.dedup();
            assert_eq!(
                tokens.len(),
                running.len(),
                "seed {seed}: a check is probed once at a time"
            );
        }
        // Nothing is forgotten: with all probes done, every check gets its turn again.
        for launch in running.drain(..) {
            checks.finished(launch.token, found(Outcome::Success), now);
        }
        now += 10 * SECOND;
        let mut probed = HashSet::new();
        while let Some(launch) = checks.launch(now) {
            probed.insert(launch.check.id.clone());
            checks.finished(launch.token, found(Outcome::Success), now);
            now += Duration::from_millis(1);
        }
        assert_eq!(probed.len(), checks.statuses(now).len(), "seed {seed}");
    }
}

#[test]
fn checks_that_come_and_go_do_not_pile_up() {
    let now = Instant::now();
    let mut checks = Checks::new(1, 10);
    for _ in 0..10_000 {
        checks.set(vec![check("stays"), check("flaps")], now);
        checks.set(vec![check("stays")], now);
        assert!(checks.schedule.entries() <= FORGOTTEN + 4);
    }
    assert_eq!(launched(&mut checks, now + SECOND), ["stays"]);
}
