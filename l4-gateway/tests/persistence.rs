//! Which sources stay with which target, as the command line lists them.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use serde_json::json;

use lab::{Echo, Gateway, Lab};

#[test]
fn a_source_is_listed_with_its_target_and_can_be_asked_for() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let keeps = "scheduler = \"rr\"\npersistence = { timeout = \"5m\", prefix_v4 = 24 }";
    let config = lab.usual().replacen("scheduler = \"rr\"", keeps, 1);
    let gateway = Gateway::start(&lab, &config);
    let list = |arguments: &[&str]| gateway.subcommand(&[&["persistence"], arguments].concat());
    assert_eq!(list(&[]).lines().count(), 1);
    lab.client().run(|| {
        for _ in 0..3 {
            Echo::connect(80).unwrap().exchange(b"the same as ever?");
        }
    });
    let services = gateway.subcommand(&["services", "--service", "tcp"]);
    assert!(services.contains("5m/24"), "{services}");
    for arguments in [
        &[][..],
        &["--client", "10.2.0.200"],
        &["--service", "tcp"],
        &["--target", "10.3.0.21:8080"],
        &["--target", "10.3.0.21"],
    ] {
        let text = list(arguments);
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            row[..4],
            ["tcp", "-", "10.2.0.0/24", "10.3.0.21:8080"],
            "{text}"
        );
        assert!(row[4].starts_with("4m") || row[4] == "5m", "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }
    for arguments in [
        ["--client", "10.2.1.1"],
        ["--target", "10.3.0.22:8080"],
        ["--target", "10.3.0.22"],
    ] {
        assert_eq!(list(&arguments).lines().count(), 1, "{arguments:?}");
    }
    for (arguments, told) in [
        (["--service", "udp"], "service \"udp\" keeps no sources"),
        (
            ["--service", "web"],
            "service \"web\": expected one of tcp, udp",
        ),
        (
            ["--target", "10.3.0.21:80"],
            "target \"10.3.0.21:80\": expected one of 10.3.0.21:8080, 10.3.0.22:8080",
        ),
    ] {
        let why = gateway.try_subcommand(&[&["persistence"], &arguments[..]].concat());
        let why = why.unwrap_err();
        assert!(why.starts_with(told), "{why}");
    }
    let counted = list(&["--limit", "0"]);
    assert!(counted.contains("and 1 more"), "{counted}");
    let (code, answer) = gateway.command("persistence", &json!({ "service": "web" }));
    assert_eq!(code, 400, "{answer}");
}
