//! The bench itself, in its smallest form: every row, with every check, against whatever l7-proxy was built.

// The harness fails loudly.
#![allow(clippy::expect_used)]

use std::path::PathBuf;
use std::process::Command;

use bench_report::Report;

/// `target/debug/l7-proxy`, beside this test. Where tests of this package alone are run, it may have to be built first.
fn proxy() -> PathBuf {
    let bench = PathBuf::from(env!("CARGO_BIN_EXE_bench-l7"));
    let proxy = bench.with_file_name("l7-proxy");
    if !proxy.is_file() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "-p", "l7-proxy", "--bin", "l7-proxy"])
            .status()
            .expect("cargo");
        assert!(built.success(), "cargo build -p l7-proxy: {built}");
    }
    proxy
}

fn bench(arguments: &[&str]) -> (bool, String, Report) {
    let folder = tempfile::tempdir().expect("folder");
    let results = folder.path().join("l7.json");
    let run = Command::new(env!("CARGO_BIN_EXE_bench-l7"))
        .args(["--smoke", "--profile", "none", "--proxy"])
        .arg(proxy())
        .arg("--results")
        .arg(&results)
        .args(arguments)
        .output()
        .expect("bench-l7");
    let said = [run.stdout, run.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let report = Report::read(&results).unwrap_or_else(|error| panic!("{error}: {said}"));
    (run.status.success(), said, report)
}

#[test]
fn every_row_is_measured_and_every_answer_checked() {
    let (success, said, report) = bench(&[]);
    assert!(success, "{said}");
    assert!(report.failures.is_empty(), "{said}");
    for part in [
        "small, plain h1, CPU per request",
        "small, plain h1, peak",
        "small, TLS h1, CPU per request",
        "small, h2 over TLS, CPU per request",
        "small, h2c, CPU per request",
        "small, plain h1, 1,000 routes, CPU per request",
        "1 KiB to the client, plain h1, CPU per request",
        "100 KiB to the client, plain h1, CPU per request",
        "10 MiB to the client, plain h1, CPU per request",
        "1 KiB from the client, plain h1, CPU per request",
        "100 KiB from the client, plain h1, CPU per request",
        "10 MiB from the client, plain h1, CPU per request",
        "small, a new TCP connection for each, CPU per request",
        "TLS 1.3 handshakes, full, ECDSA P-256",
        "TLS 1.3 handshakes, resumed, ECDSA P-256",
        "TLS 1.3 handshakes, full, RSA 2048",
        "TLS 1.3 handshakes, resumed, RSA 2048",
        "WebSocket, 16 KiB there and back, CPU per MiB",
        "small, plain h1, p50 at ",
        "small, plain h1, p99 at ",
        "small, TLS h1, p99 at ",
        "memory of an idle connection, plain h1",
        "memory of an idle connection, TLS h1",
        "memory of an idle connection, h2 over TLS",
        "small, plain h1, system calls per request",
        "small, plain h1, instructions per request in user space",
    ] {
        let row = report.rows.iter().find(|row| row.what.starts_with(part));
        let row = row.unwrap_or_else(|| panic!("no row {part:?}: {said}"));
        let mut sides: Vec<&str> = row.sides.iter().map(|side| side.name.as_str()).collect();
        sides.sort_unstable();
        assert_eq!(sides, ["haproxy", "nginx"], "{part}");
        let figures = row.samples.iter().flat_map(|series| &series.values);
        assert!(figures.clone().all(|figure| figure.is_finite()), "{part}");
        assert!(figures.count() >= 3, "{part}");
    }
}

#[test]
fn parts_are_chosen_by_name_and_a_wrong_name_is_told() {
    let (success, said, report) = bench(&["--rows", "h2c"]);
    assert!(success, "{said}");
    assert_eq!(report.rows.len(), 2, "{said}");
    let run = Command::new(env!("CARGO_BIN_EXE_bench-l7"))
        .args(["--rows", "h2d"])
        .output()
        .expect("bench-l7");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(!run.status.success() && said.contains("\"h2d\""), "{said}");
}
