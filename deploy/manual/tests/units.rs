//! The units that start the binaries, as systemd reads them.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

use std::fs::{read_to_string, write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What systemd objects to, in a unit of this text.
fn objections(name: &str, text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join(name);
    write(&unit, text).unwrap();
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&unit)
        .output()
        .expect("systemd-analyze: install the package systemd");
    // An unknown key is reported, but the exit status is still 0.
    let told = [verified.stdout, verified.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(verified.status.success() || !told.is_empty());
    told
}

#[test]
fn systemd_has_nothing_against_the_units() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for binary in ["l4-gateway", "l7-proxy", "bgp-ctl", "health"] {
        let name = format!("{binary}.service");
        let unit = read_to_string(deploy.join("systemd").join(&name)).unwrap();
        // Only what is installed can be executed.
        let installed = format!("=/usr/bin/{binary} ");
        assert!(unit.contains(&installed), "{name}");
        let text = unit.replace(&installed, "=/bin/true ");
        assert_eq!(objections(&name, &text), "", "{name}");

        let pages = unit
            .lines()
            .filter_map(|line| line.strip_prefix("Documentation="));
        let pages: Vec<PathBuf> = pages
            .filter_map(|page| page.strip_prefix("file:///usr/share/doc/weir/"))
            .map(|page| deploy.join(page))
            .collect();
        assert!(!pages.is_empty(), "{name}");
        for page in pages {
            assert!(page.is_file(), "{name}: {}", page.display());
        }
    }
}

#[test]
fn a_mistyped_key_is_objected_to() {
    let unit = "[Service]\nExecStart=/bin/true\nRestrt=always\n";
    assert!(objections("weir-test.service", unit).contains("Restrt"));
}
