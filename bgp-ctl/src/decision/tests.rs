//! Every way to a verdict, as a table; and time.

use proptest::prelude::*;
use shared::bus::{ServiceState, Tier};

use super::*;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);

fn service(name: &str, vip: Ipv4Addr, healthy: u32) -> ServiceState {
    ServiceState {
        service: name.to_owned(),
        vip: IpAddr::V4(vip),
        healthy,
        total: 3,
    }
}

fn node(services: Vec<ServiceState>) -> NodeRecord {
    NodeRecord {
        tier: Tier::L4,
        id: "l4-1".to_owned(),
        addresses: Vec::new(),
        ready: true,
        draining: false,
        forwarding: true,
        load: 0.0,
        software: String::new(),
        services,
        ttl_ms: 3000,
    }
}

fn facts<'a>(node: Option<&'a NodeRecord>, force: &'a BTreeMap<Ipv4Addr, Force>) -> Facts<'a> {
    Facts {
        node,
        hold: None,
        drain: false,
        stopping: false,
        force,
        allowed: &[],
    }
}

fn at_once(minimum_healthy: u32, announce_when: AnnounceWhen) -> VipPolicy {
    VipPolicy {
        minimum_healthy,
        announce_when,
        announce_after: Duration::ZERO,
    }
}

/// The verdict about [`VIP`], which has been served before.
fn verdict(facts: Facts<'_>, policy: VipPolicy) -> Verdict {
    let mut decider = Decider::default();
    decider.vips.entry(VIP).or_default();
    decider
        .decide(Instant::now(), facts, |_| policy)
        .remove(&VIP)
        .unwrap()
}

#[test]
fn health_of_services_against_the_policy() {
    use AnnounceWhen::{All, Any};
    let cases: [(&[u32], u32, AnnounceWhen, Option<&str>); 11] = [
        (&[1], 1, All, None),
        (
            &[0],
            1,
            All,
            Some("service s0: 0 of 3 targets healthy, 1 needed"),
        ),
        (
            &[2],
            3,
            All,
            Some("service s0: 2 of 3 targets healthy, 3 needed"),
        ),
        (&[3], 3, All, None),
        (&[1, 1], 1, All, None),
        (
            &[1, 0],
            1,
            All,
            Some("service s1: 0 of 3 targets healthy, 1 needed"),
        ),
        (
            &[0, 0],
            1,
            All,
            Some("service s0: 0 of 3 targets healthy, 1 needed"),
        ),
        (&[0, 1], 1, Any, None),
        (
            &[0, 0],
            1,
            Any,
            Some("service s0: 0 of 3 targets healthy, 1 needed"),
        ),
        (&[0], 0, All, None),
        (&[], 0, All, Some("the node has no service with this VIP")),
    ];
    for (healthy, minimum, when, expected) in cases {
        let services = healthy
            .iter()
            .enumerate()
            .map(|(n, healthy)| service(&format!("s{n}"), VIP, *healthy))
            .collect();
        let node = node(services);
        let expected =
            expected.map_or(Verdict::Announced, |why| Verdict::Withdrawn(why.to_owned()));
        let force = BTreeMap::new();
        assert_eq!(
            verdict(facts(Some(&node), &force), at_once(minimum, when)),
            expected,
            "{healthy:?} {minimum} {when:?}"
        );
    }
}

#[test]
fn everything_that_withdraws_and_what_stands_above_what() {
    let well = node(vec![service("web", VIP, 3)]);
    let sick = node(vec![service("web", VIP, 0)]);
    let stuck = NodeRecord {
        forwarding: false,
        ..well.clone()
    };
    let draining = NodeRecord {
        draining: true,
        ..well.clone()
    };
    let free = BTreeMap::new();
    let announce = BTreeMap::from([(VIP, Force::Announce)]);
    let withdraw = BTreeMap::from([(VIP, Force::Withdraw)]);
    let with_force = |node, force| facts(node, force);
    let cases = [
        ("well", with_force(Some(&well), &free), None),
        ("no record", with_force(None, &free), Some("no record")),
        (
            "not forwarding",
            with_force(Some(&stuck), &free),
            Some("does not forward"),
        ),
        (
            "draining node",
            with_force(Some(&draining), &free),
            Some("the node drains"),
        ),
        (
            "drain asked for",
            Facts {
                drain: true,
                ..with_force(Some(&well), &free)
            },
            Some("drain asked for"),
        ),
        (
            "held",
            Facts {
                hold: Some("another has its name"),
                ..with_force(Some(&well), &announce)
            },
            Some("another has its name"),
        ),
        (
            "stopping",
            Facts {
                stopping: true,
                ..with_force(Some(&well), &free)
            },
            Some("shutting down"),
        ),
        (
            "forced though sick",
            with_force(Some(&sick), &announce),
            None,
        ),
        (
            "forced, not forwarding",
            with_force(Some(&stuck), &announce),
            Some("does not forward"),
        ),
        (
            "forced, no record",
            with_force(None, &announce),
            Some("no record"),
        ),
        (
            "forced, draining",
            with_force(Some(&draining), &announce),
            Some("the node drains"),
        ),
        (
            "forced, stopping",
            Facts {
                stopping: true,
                ..with_force(Some(&well), &announce)
            },
            Some("shutting down"),
        ),
        (
            "withdrawn by force",
            with_force(Some(&well), &withdraw),
            Some("by the operator"),
        ),
    ];
    for (case, facts, expected) in cases {
        match (verdict(facts, at_once(1, AnnounceWhen::All)), expected) {
            (Verdict::Announced, None) => {}
            (Verdict::Withdrawn(why), Some(expected)) => {
                assert!(why.contains(expected), "{case}: {why}")
            }
            (verdict, expected) => panic!("{case}: {verdict:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn vips_are_decided_one_by_one_and_ipv6_is_left_alone() {
    let mut node = node(vec![service("web", VIP, 1), service("dns", OTHER, 0)]);
    node.services.push(ServiceState {
        service: "six".to_owned(),
        vip: "2001:db8::1".parse().unwrap(),
        healthy: 1,
        total: 1,
    });
    let force = BTreeMap::new();
    let verdicts = Decider::default().decide(Instant::now(), facts(Some(&node), &force), |_| {
        at_once(1, AnnounceWhen::All)
    });
    assert_eq!(verdicts.len(), 2);
    assert_eq!(verdicts[&VIP], Verdict::Announced);
    assert!(matches!(verdicts[&OTHER], Verdict::Withdrawn(_)));
}

#[test]
fn what_is_served_no_more_is_withdrawn_once_and_then_forgotten() {
    let (both, one) = (
        node(vec![service("web", VIP, 1), service("dns", OTHER, 1)]),
        node(vec![service("web", VIP, 1)]),
    );
    let force = BTreeMap::new();
    let now = Instant::now();
    let mut decider = Decider::default();
    let mut decide =
        |node| decider.decide(now, facts(node, &force), |_| at_once(1, AnnounceWhen::All));
    assert_eq!(decide(Some(&both)).len(), 2);
    let verdicts = decide(Some(&one));
    assert_eq!(
        verdicts[&OTHER],
        Verdict::Withdrawn("the node has no service with this VIP".to_owned())
    );
    assert!(!decide(Some(&one)).contains_key(&OTHER));
    assert!(
        matches!(decide(None)[&VIP], Verdict::Withdrawn(_)),
        "a lost node is no reason to forget"
    );
    assert!(decide(None).contains_key(&VIP));
}

#[test]
fn expected_vips_are_spoken_of_even_if_nobody_serves_them() {
    let force = BTreeMap::new();
    let mut decider = Decider::new([OTHER]);
    for node in [None, Some(&node(vec![service("web", VIP, 1)]))] {
        let verdicts = decider.decide(Instant::now(), facts(node, &force), |_| {
            at_once(1, AnnounceWhen::All)
        });
        assert!(matches!(verdicts[&OTHER], Verdict::Withdrawn(_)));
    }
}

#[test]
fn vips_outside_the_allowed_networks_are_never_announced() {
    let node = node(vec![
        service("web", VIP, 1),
        service("dns", Ipv4Addr::new(8, 8, 8, 8), 1),
    ]);
    let force = BTreeMap::from([(Ipv4Addr::new(8, 8, 8, 8), Force::Announce)]);
    let allowed = ["10.0.0.0/24".parse().unwrap()];
    let facts = Facts {
        allowed: &allowed,
        ..facts(Some(&node), &force)
    };
    let verdicts =
        Decider::default().decide(Instant::now(), facts, |_| at_once(1, AnnounceWhen::All));
    assert_eq!(verdicts[&VIP], Verdict::Announced);
    assert_eq!(
        verdicts[&Ipv4Addr::new(8, 8, 8, 8)],
        Verdict::Withdrawn("not in a network of bgp.allowed".to_owned())
    );
}

#[test]
fn announcing_waits_and_withdrawing_does_not() {
    let policy = VipPolicy {
        announce_after: Duration::from_secs(2),
        ..VipPolicy::default()
    };
    let (well, sick) = (
        node(vec![service("web", VIP, 1)]),
        node(vec![service("web", VIP, 0)]),
    );
    let force = BTreeMap::new();
    let start = Instant::now();
    let mut decider = Decider::default();
    let mut announced = |millis: u64, node: &NodeRecord| {
        let now = start + Duration::from_millis(millis);
        decider.decide(now, facts(Some(node), &force), |_| policy)[&VIP] == Verdict::Announced
    };
    assert!(!announced(0, &well));
    assert!(!announced(1999, &well));
    assert!(announced(2000, &well));
    assert!(!announced(2001, &sick), "at once");
    assert!(!announced(2002, &well));
    assert!(!announced(3000, &sick), "a flap starts the wait anew");
    assert!(!announced(3001, &well));
    assert!(!announced(5000, &well));
    assert!(announced(5001, &well));
}

#[test]
fn the_deadline_is_when_waiting_is_over() {
    let policy = VipPolicy {
        announce_after: Duration::from_secs(2),
        ..VipPolicy::default()
    };
    let well = node(vec![service("web", VIP, 1)]);
    let force = BTreeMap::new();
    let now = Instant::now();
    let mut decider = Decider::default();
    assert_eq!(decider.deadline(|_| policy), None);
    decider.decide(now, facts(Some(&well), &force), |_| policy);
    assert_eq!(
        decider.deadline(|_| policy),
        Some(now + Duration::from_secs(2))
    );
    decider.decide(
        now + Duration::from_secs(2),
        facts(Some(&well), &force),
        |_| policy,
    );
    assert_eq!(decider.deadline(|_| policy), None);
}

#[test]
fn forcing_does_not_wait() {
    let policy = VipPolicy {
        announce_after: Duration::from_secs(60),
        ..VipPolicy::default()
    };
    let sick = node(vec![service("web", VIP, 0)]);
    let force = BTreeMap::from([(VIP, Force::Announce)]);
    assert_eq!(
        verdict(facts(Some(&sick), &force), policy),
        Verdict::Announced
    );
}

proptest! {
    /// Whatever happens: nothing is announced that the node would drop, and being unwell withdraws in the same step.
    #[test]
    fn nothing_untrue_is_ever_announced(
        steps in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>(), 0u32..3, 0u64..3000, any::<bool>()), 1..50),
    ) {
        let policy = VipPolicy { announce_after: Duration::from_secs(1), ..VipPolicy::default() };
        let force = BTreeMap::new();
        let mut decider = Decider::default();
        let mut now = Instant::now();
        let mut well_since = None;
        for (known, forwarding, draining, healthy, millis, drain) in steps {
            now += Duration::from_millis(millis);
            let record = NodeRecord { forwarding, draining, ..node(vec![service("web", VIP, healthy)]) };
            let facts = Facts { drain, ..facts(known.then_some(&record), &force) };
            let verdicts = decider.decide(now, facts, |_| policy);
            let well = known && forwarding && !draining && !drain && healthy >= 1;
            well_since = if well { well_since.or(Some(now)) } else { None };
            let expected = well_since.is_some_and(|since| now - since >= policy.announce_after);
            prop_assert_eq!(verdicts.get(&VIP) == Some(&Verdict::Announced), expected);
        }
    }
}
