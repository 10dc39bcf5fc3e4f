//! What a scrape of a node that has just started shows: a rule on a counter that appears with its first error misses that error.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::collections::BTreeSet;

use lab::{Gateway, Lab};
use shared::telemetry::Kind;

const BGP: &str = "[bgp]\nlocal_as = 65010\nrouter_id = \"10.2.0.11\"\n[[bgp.neighbours]]\naddress = \"10.2.0.1\"\nremote_as = 65001\n";

#[test]
fn every_counter_is_there_from_the_start_and_every_metric_says_what_it_is() {
    let lab = Lab::new();
    let probed = lab.usual().replace(
        "protocol = \"tcp\"\n",
        "protocol = \"tcp\"\nhealth = { type = \"tcp\" }\n",
    );
    // Neither a router nor a bus answers.
    let bus = "[bus]\ntransport = \"nats\"\nnats = { servers = [\"127.0.0.1:4222\"] }\n";
    let gateway = Gateway::launch(&lab, &format!("{bus}{probed}{BGP}"));
    gateway.wait("up", || {
        gateway
            .ready()
            .is_err_and(|why| !why.contains("Connection refused"))
    });
    let metrics = gateway.metrics();
    let names = |start: &str| -> BTreeSet<String> {
        let lines = metrics.lines().filter_map(|line| line.strip_prefix(start));
        let names = lines.filter_map(|rest| rest.split([' ', '{']).next());
        names.map(str::to_owned).collect()
    };
    let (helped, typed) = (names("# HELP "), names("# TYPE "));
    let unexplained: Vec<_> = typed.difference(&helped).collect();
    assert!(unexplained.is_empty(), "{unexplained:?}");

    let shown = names("");
    let counters = l4_gateway::MEANINGS
        .iter()
        .filter(|(kind, _, _)| *kind == Kind::Counter)
        .map(|(_, name, _)| *name);
    let of_others = [
        "weir_bgp_unknown_neighbours_total",
        "weir_bgp_protocol_errors_total",
        "weir_bgp_hold_timer_expired_total",
        "weir_health_probes_total",
        "weir_bus_put_failures_total",
        "weir_bus_ignored_total",
        "weir_bus_readers_renewed_total",
    ];
    let missing: Vec<_> = counters
        .chain(of_others)
        .filter(|name| !shown.contains(*name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
