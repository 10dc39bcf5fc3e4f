//! Seeds, examples and past findings, replayed without a fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

use std::fs;
use std::path::{Path, PathBuf};

use fuzz::{TARGETS, seeds};

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

#[test]
fn every_input_returns() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let examples = files(&here.join("../../deploy/examples"));
    assert!(
        !examples.is_empty(),
        "the examples are where they are looked for"
    );
    for (name, target) in TARGETS {
        let mut inputs = seeds::of(name);
        assert!(!inputs.is_empty(), "{name} has seeds");
        inputs.extend(
            files(&here.join("corpus").join(name))
                .iter()
                .map(|path| fs::read(path).unwrap()),
        );
        if name.starts_with("config_") {
            inputs.extend(examples.iter().map(|path| fs::read(path).unwrap()));
        }
        for input in &inputs {
            target(input);
            // And cut off, and with a byte changed, at 64 places.
            for place in (0..input.len()).step_by((input.len() / 64).max(1)) {
                target(&input[..place]);
                let mut changed = input.clone();
                changed[place] ^= 0x41;
                target(&changed);
            }
        }
        println!("{name}: {} inputs", inputs.len());
    }
}

#[test]
fn every_target_is_built_and_listed() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut listed: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    listed.sort_unstable();
    let sources = files(&here.join("fuzz_targets"));
    let built: Vec<&str> = sources
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(built, listed);
    let manifest = fs::read_to_string(here.join("Cargo.toml")).unwrap();
    for name in listed {
        assert!(
            manifest.contains(&format!(
                "name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\""
            )),
            "{name}"
        );
    }
}
