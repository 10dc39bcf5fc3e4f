//! The reference page names every key the parser asks for, and no other; the example holds what the page promises.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

use std::collections::BTreeSet;

use dataplane::{ServiceCount, TargetCount, WorkerCount};
use l4_gateway::config::Config;
use l4_gateway::worker::LoopCount;
use shared::config::Document;
use shared::config::reference::mistakes;

const PAGE: &str = include_str!("../../deploy/reference/l4-gateway.md");
const EXAMPLE: &str = include_str!("../../deploy/examples/l4-gateway.toml");

#[test]
fn the_reference_names_every_key() {
    let document = Document::from_toml("l4-gateway.toml", EXAMPLE).unwrap();
    document
        .parse(Config::parse)
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let elsewhere = [
        "node.",
        "admin.",
        "bus.",
        "log.",
        "bgp.",
        "services[].health.",
    ];
    let asked: BTreeSet<String> = document
        .asked()
        .into_iter()
        .filter(|key| {
            key.contains('.') && !elsewhere.iter().any(|section| key.starts_with(section))
        })
        .collect();
    let named: BTreeSet<String> = PAGE
        .lines()
        .take_while(|line| *line != "## Commands")
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(key, _)| key.to_owned())
        .collect();
    assert_eq!(named, asked);
}

#[test]
fn the_reference_says_what_the_parser_does() {
    let document = Document::from_toml("l4-gateway.toml", EXAMPLE)
        .unwrap()
        .describing();
    document
        .parse(Config::parse)
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let elsewhere = [
        "node.",
        "admin.",
        "bus.",
        "log.",
        "bgp.",
        "services[].health.",
    ];
    let mut rows = document.rows();
    rows.retain(|row| !elsewhere.iter().any(|section| row.key.starts_with(section)));
    let wrong = mistakes(PAGE, &rows);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reference_names_every_metric() {
    let section = PAGE.split_once("## Metrics").expect("the section").1;
    let source = include_str!("../src/metrics.rs")
        .split("\"weir_l4_")
        .skip(1);
    let mut metrics: Vec<String> = source
        .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
        .filter(|metric| !metric.contains('{'))
        .collect();
    metrics.extend(LoopCount::ALL.map(|count| format!("worker_{}_total", count.label())));
    for metric in &metrics {
        // Tables by label leave out the beginning.
        let short = ["service_", "target_", "worker_", "port_"]
            .iter()
            .find_map(|label| metric.strip_prefix(label));
        let name = |name: &str| {
            section.contains(&format!("`{name}`")) || section.contains(&format!("`{name}{{"))
        };
        assert!(
            name(&format!("weir_l4_{metric}")) || short.is_some_and(name),
            "weir_l4_{metric} is missing"
        );
    }
}

#[test]
fn every_metric_says_what_it_means() {
    let source = [
        include_str!("../src/metrics.rs"),
        include_str!("../src/actors/watchdog.rs"),
    ]
    .concat();
    let named = source.split("\"weir_l4_").skip(1);
    let mut metrics: BTreeSet<String> = named
        .filter_map(|rest| Some(format!("weir_l4_{}", rest.split_once('"')?.0)))
        .filter(|metric| !metric.contains('{'))
        .collect();
    metrics.extend(LoopCount::ALL.map(|count| format!("weir_l4_worker_{}_total", count.label())));
    let described: BTreeSet<String> = l4_gateway::MEANINGS
        .iter()
        .map(|(_, name, _)| (*name).to_owned())
        .collect();
    assert_eq!(described, metrics);
}

#[test]
fn every_count_of_the_data_plane_is_a_metric() {
    let source = [
        include_str!("../src/metrics.rs"),
        include_str!("../src/status.rs"),
    ]
    .concat();
    let words: BTreeSet<&str> = source
        .split("counts.")
        .skip(1)
        .filter_map(|rest| {
            rest.split(|letter: char| letter != '_' && !letter.is_alphanumeric())
                .next()
        })
        .collect();
    let workers = WorkerCount::ALL.iter().map(|count| count.label());
    let services = ServiceCount::ALL.iter().map(|count| count.label());
    let targets = TargetCount::ALL.iter().map(|count| count.label());
    // What is sent and left to the kernel is counted by the loop, what is dropped by reason, what is consumed by what came of it.
    let otherwise = ["transmitted", "kernel", "dropped", "consumed"];
    for label in workers.chain(services).chain(targets) {
        assert!(
            words.contains(label) || otherwise.contains(&label),
            "{label} is shown nowhere"
        );
    }
}

#[test]
fn the_node_of_the_fleet_example_is_sound() {
    let text = include_str!("../../deploy/examples/fleet/l4-1.toml");
    let document = Document::from_toml("l4-1.toml", text).unwrap();
    document
        .parse(Config::parse)
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
}

#[test]
fn no_mistake_is_buried_under_keys_that_are_said_to_be_unknown() {
    let buried = shared::config::reference::buried(EXAMPLE, Config::parse);
    assert!(buried.is_empty(), "{}", buried.join("\n"));
}
