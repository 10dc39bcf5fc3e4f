//! A seeded simulation: clients and targets of both families speak TCP and UDP through the node, in all modes, over a network that loses,
//! duplicates, damages and reorders (`world`), while the configuration is changed, ports run out, the clock leaps, hosts get other MACs,
//! others claim theirs, and targets die silently.
//!
//! After each step the node's invariants are checked (`rules`). What arrives must be what was sent (`clients`), targets must hear of the
//! right client (`targets`), and an established connection may only be reset for a reason (`clients::Excuse`). What is damaged is neither answered
//! nor begins a flow, and stays damaged; no SYN that the node rewrites offers MPTCP where it inserts bytes, and over a network that loses nothing no packet goes to who claims the
//! address of a host that is there (`world`). A failure prints the
//! command that repeats its run (`replay`).

mod clients;
mod configuration;
mod endpoint;
mod hosts;
mod node;
mod packet;
mod random;
mod replay;
mod rules;
mod sequences;
mod targets;
mod world;

use dataplane::{Mode, ServiceCounts, ServiceId, TargetCounts, TargetId, WorkerCounts};

use clients::Ends;
use world::{Happened, Scenario, World};

/// What a test's runs have met, in all.
#[derive(Default, Debug)]
struct Tally {
    ends: Vec<Ends>,
    happened: Vec<Happened>,
    services: Vec<ServiceCounts>,
    targets: Vec<TargetCounts>,
    workers: Vec<WorkerCounts>,
    told: u64,
    /// Damaged packets of known flows that came to a target.
    damaged: u64,
}

impl Tally {
    fn simulate(&mut self, seed: u64, scenario: &Scenario) {
        let mut world = World::new(seed, scenario);
        world.run(12_000);
        world.calm_down();
        let node = &world.node;
        let counters = &node.counters;
        self.ends.push(world.clients.ends);
        self.happened.push(world.happened);
        self.told += world.targets.told;
        self.damaged += world.targets.damaged;
        let services = (0..node.limits.services).map(|id| counters.service(ServiceId(id)));
        self.services.extend(services);
        let targets = (0..node.limits.targets).map(|id| counters.target(TargetId(id)));
        self.targets.extend(targets);
        let workers = 0..node.lanes.len() as u16;
        self.workers
            .extend(workers.map(|worker| counters.worker(worker)));
    }
}

const EVERY_MODE: &[Mode] = &[Mode::FullNat, Mode::Direct, Mode::Tunnel];

/// Makes a test's runs; what was met, if they were the usual ones at least.
fn simulate(
    test: &str,
    usual: std::ops::RangeInclusive<u64>,
    scenario: &Scenario,
) -> Option<Tally> {
    let mut tally = Tally::default();
    let path = format!("simulation::{test}");
    let were_usual = replay::each_seed(&path, usual, |seed| tally.simulate(seed, scenario));
    were_usual.then_some(tally)
}

/// Holds sums over all runs of a test to be above some number: the simulation must have met what it is there for.
macro_rules! has_met {
    ($tally:expr, $($part:ident.$count:ident > $least:expr),+ $(,)?) => {
        $(
            let met: u64 = $tally.$part.iter().map(|part| u64::from(part.$count)).sum();
            println!("{} {}: {met}", stringify!($part), stringify!($count));
            assert!(met > $least, "{} {}: {met}", stringify!($part), stringify!($count));
        )+
    };
}

#[test]
fn streams_arrive_unchanged_and_nothing_leaks_whatever_happens() {
    let scenario = Scenario {
        workers: &[1],
        modes: &[Mode::FullNat],
        limited: false,
        silent_routers: false,
    };
    let test = "streams_arrive_unchanged_and_nothing_leaks_whatever_happens";
    if let Some(tally) = simulate(test, 1..=3, &scenario) {
        has_met!(
            tally,
            ends.completed > 150,
            ends.datagrams > 300,
            ends.in_fragments > 20,
            ends.too_big > 0,
            ends.refused > 20,
            ends.excused > 3,
            happened.reloads > 20,
            happened.leaps > 5,
            happened.moved > 5,
            happened.forged > 50,
            workers.next_hops_contested > 5,
            workers.next_hops_moved > 2,
            happened.found_down > 4,
            targets.syns_unanswered > 20,
            workers.flows_rescheduled > 20,
            services.port_exhausted > 20,
            services.flow_table_full > 20,
            happened.damaged > 200,
            happened.damage_seen > 20,
            happened.with_mptcp > 20,
            ends.damaged > 20,
            services.flows_cut > 0,
        );
        assert!(tally.told > 100, "{}", tally.told);
        assert!(tally.damaged > 20, "{}", tally.damaged);
    }
}

#[test]
fn a_router_that_falls_silent_is_left_for_one_that_answers() {
    let scenario = Scenario {
        workers: &[1, 3],
        modes: EVERY_MODE,
        limited: false,
        silent_routers: true,
    };
    let test = "a_router_that_falls_silent_is_left_for_one_that_answers";
    if let Some(tally) = simulate(test, 401..=404, &scenario) {
        has_met!(
            tally,
            ends.completed > 50,
            happened.silent_routers > 3,
            happened.lost_by_router > 20,
            happened.forged > 50,
            workers.next_hops_contested > 5,
        );
    }
}

#[test]
fn limits_persistence_and_cuts_that_come_and_go_leave_no_trace() {
    let scenario = Scenario {
        workers: &[1],
        modes: EVERY_MODE,
        limited: true,
        silent_routers: false,
    };
    let test = "limits_persistence_and_cuts_that_come_and_go_leave_no_trace";
    if let Some(tally) = simulate(test, 101..=103, &scenario) {
        has_met!(
            tally,
            ends.completed > 50,
            ends.datagrams > 100,
            services.limited_connections > 0,
            services.limited_rate > 0,
            services.limited_source_connections > 0,
            services.limited_source_rate > 0,
            services.limited_targets > 0,
            services.persisted > 10,
            services.flows_cut > 0,
        );
    }
}

#[test]
fn what_goes_past_the_node_on_its_way_back_arrives_too() {
    let scenario = Scenario {
        workers: &[1],
        modes: &[Mode::Direct, Mode::Tunnel],
        limited: false,
        silent_routers: false,
    };
    let test = "what_goes_past_the_node_on_its_way_back_arrives_too";
    if let Some(tally) = simulate(test, 201..=202, &scenario) {
        has_met!(
            tally,
            ends.completed > 100,
            ends.datagrams > 100,
            ends.in_fragments > 20,
            ends.too_big > 0,
            happened.moved > 2,
            happened.found_down > 1,
        );
    }
}

#[test]
fn several_workers_have_what_one_has() {
    let scenario = Scenario {
        workers: &[2, 3, 4],
        modes: EVERY_MODE,
        limited: true,
        silent_routers: false,
    };
    let test = "several_workers_have_what_one_has";
    if let Some(tally) = simulate(test, 301..=302, &scenario) {
        has_met!(
            tally,
            ends.completed > 100,
            ends.datagrams > 100,
            ends.in_fragments > 20,
            happened.redirected > 300,
            happened.reloads > 20,
            services.persisted > 5,
            services.flows_cut > 0,
        );
    }
}

#[test]
fn a_run_is_the_same_again() {
    let scenario = Scenario {
        workers: &[3],
        modes: EVERY_MODE,
        limited: true,
        silent_routers: false,
    };
    let digests = [1, 2].map(|_| {
        let mut world = World::new(401, &scenario);
        world.run(6000);
        world.happened.digest
    });
    assert_eq!(digests[0], digests[1]);
}
