//! The reference page names every key the parser asks for, and no other.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

use std::collections::BTreeSet;

use health::config::Config;
use shared::config::Document;
use shared::config::reference::mistakes;

const PAGE: &str = include_str!("../../deploy/reference/health.md");

/// All kinds of checks, so that the parser asks for all their keys.
const SAMPLE: &str = "node.id = \"a\"\n[services.h]\ntargets = [\"10.0.0.1:80\"]\nhealth.type = \"http\"\n\
    [services.u]\ntargets = [\"10.0.0.1:80\"]\nhealth.type = \"udp\"\n[services.t]\ntargets = [\"10.0.0.1:80\"]\nhealth.type = \"tcp\"\n";

#[test]
fn the_reference_says_what_the_parser_does() {
    let document = Document::from_toml("sample", SAMPLE).unwrap().describing();
    document.parse(Config::parse).unwrap();
    let mut rows = document.rows();
    rows.retain(|row| {
        let section = row.key.split('.').next();
        !["node", "admin", "bus", "log"]
            .iter()
            .any(|other| section == Some(other))
    });
    for row in &mut rows {
        row.key = row.key.trim_start_matches("services.*.health.").to_owned();
    }
    let wrong = mistakes(PAGE, &rows);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reference_names_every_key() {
    let document = Document::from_toml("sample", SAMPLE).unwrap();
    document.parse(Config::parse).unwrap();
    let asked: BTreeSet<String> = document
        .asked()
        .into_iter()
        .map(|key| key.trim_start_matches("services.*.health.").to_owned())
        // Described in shared.md.
        .filter(|key| {
            !["node", "admin", "bus", "log"]
                .iter()
                .any(|section| key.split('.').next() == Some(section))
        })
        .collect();
    let named: BTreeSet<String> = PAGE
        .split("## Commands")
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(key, _)| key.to_owned())
        .collect();
    assert_eq!(named, asked);
}

#[test]
fn no_mistake_is_buried_under_keys_that_are_said_to_be_unknown() {
    let buried = shared::config::reference::buried(SAMPLE, Config::parse);
    assert!(buried.is_empty(), "{}", buried.join("\n"));
}
