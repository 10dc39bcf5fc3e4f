//! What is written for the binaries.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

use std::fs::read_to_string;

#[test]
fn every_binary_has_a_page_for_each_command_and_completions_for_three_shells() {
    let directory = tempfile::tempdir().unwrap();
    let written = manual::write(directory.path()).unwrap();
    let has = |name: &str| written.contains(&directory.path().join(name));
    for binary in ["l4-gateway", "l7-proxy", "bgp-ctl", "health"] {
        for file in [
            format!("man/{binary}.1"),
            format!("bash/{binary}.bash"),
            format!("zsh/_{binary}"),
            format!("fish/{binary}.fish"),
        ] {
            assert!(has(&file), "{file}");
        }
        for command in [
            "run", "check", "status", "drain", "undrain", "reload", "plan",
        ] {
            let page = format!("man/{binary}-{command}.1");
            assert!(has(&page), "{page}");
            let completion = directory.path().join(format!("bash/{binary}.bash"));
            assert!(read_to_string(completion).unwrap().contains(command));
        }
    }
    assert!(has("man/l4-gateway-capture.1") && has("man/health-probe.1"));
    let page = read_to_string(directory.path().join("man/l4-gateway-flows.1")).unwrap();
    for part in [
        ".TH l4-gateway-flows 1",
        "l4\\-gateway flows",
        "\\-\\-client",
        "\\-\\-config",
    ] {
        assert!(page.contains(part), "{part} in\n{page}");
    }
}
