//! The reference page names every key of the shared sections, and no other.
//!
//! A tier holds its own page to its parser in the same way: parse a sample in which every table occurs at least once, then compare
//! `Document::asked` with the keys of the page.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;

use shared::config::Document;
use shared::config::reference::mistakes;
use shared::config::sections::{AdminSection, BusSection, LogSection, NodeSection};

const PAGE: &str = include_str!("../../deploy/reference/shared.md");
#[test]
fn the_reference_says_what_the_parser_does() {
    let document = Document::from_toml("sample.toml", SAMPLE)
        .unwrap()
        .describing();
    let parsed = document.parse(|root| {
        AdminSection::parse(root, 1);
        BusSection::parse(root);
        LogSection::parse(root);
        NodeSection::parse(root)
    });
    parsed.unwrap();
    let wrong = mistakes(PAGE, &document.rows());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const SAMPLE: &str = "[node]\nid = \"a\"\n[admin]\n[log]\n[bus]\ntransport = \"nats\"\n[bus.nats]\nservers = [\"a:1\"]";

#[test]
fn the_reference_names_every_key() {
    let document = Document::from_toml("sample.toml", SAMPLE).unwrap();
    let parsed = document.parse(|root| {
        AdminSection::parse(root, 1);
        BusSection::parse(root);
        LogSection::parse(root);
        NodeSection::parse(root)
    });
    parsed.unwrap();
    let sections = ["node", "admin", "bus", "log"];
    let asked: BTreeSet<String> = document
        .asked()
        .into_iter()
        .filter(|key| !sections.contains(&key.as_str()))
        .collect();
    let named: BTreeSet<String> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(key, _)| key.to_owned())
        .filter(|key| {
            sections
                .iter()
                .any(|section| key.starts_with(&format!("{section}.")))
        })
        .collect();
    assert_eq!(named, asked);
}
