//! The example configurations are without mistakes, fleet variants included. Here, because this crate knows all tiers' parsers.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

use std::path::{Path, PathBuf};

use shared::config::{Document, Mistakes};

fn examples(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                examples(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect()
}

fn parse(path: &Path) -> Result<(), Mistakes> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let document = Document::from_toml(name, &std::fs::read_to_string(path).unwrap())?;
    match name {
        name if name.starts_with("l4-") => {
            document.parse(l4_gateway::config::Config::parse).map(drop)
        }
        name if name.starts_with("l7-") => {
            document.parse(l7_proxy::config::Config::parse).map(drop)
        }
        name if name.starts_with("bgp-") => {
            document.parse(bgp_ctl::config::Config::parse).map(drop)
        }
        name if name.starts_with("health") => {
            document.parse(health::config::Config::parse).map(drop)
        }
        name => panic!("whose configuration is {name}? Name it after its binary"),
    }
}

#[test]
fn every_example_is_without_mistakes() {
    let examples = examples(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples"));
    assert!(
        examples.len() >= 4,
        "the examples are where they are looked for: {examples:?}"
    );
    for path in examples {
        if let Err(mistakes) = parse(&path) {
            panic!("{}:\n{mistakes}", path.display());
        }
    }
}
