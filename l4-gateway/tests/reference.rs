//! The reference page names every key the parser asks for, and no other; the example holds what the page promises.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

use std::collections::BTreeSet;

use l4_gateway::config::Config;
use shared::config::Document;

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
