//! What an operator wants of single targets, by the command line, under traffic.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use serde_json::{Value, json};

use lab::{Echo, Gateway, Lab};

const FIRST: &str = "10.3.0.21:8080";
const SECOND: &str = "10.3.0.22:8080";

fn target(gateway: &Gateway, address: &str) -> Value {
    let service = gateway.service("tcp");
    let targets = service["targets"].as_array().unwrap();
    let found = targets.iter().find(|target| target["address"] == address);
    found.unwrap().clone()
}

fn created(gateway: &Gateway, address: &str) -> u64 {
    target(gateway, address)["flows_created"].as_u64().unwrap()
}

fn connect(lab: &Lab, times: u32) {
    for _ in 0..times {
        lab.client()
            .run(|| Echo::connect(80).unwrap().exchange(b"anybody there?"));
    }
}

#[test]
fn a_drained_target_keeps_its_flows_and_gets_no_new_ones_until_it_is_enabled() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let mut echoes = lab
        .client()
        .run(|| [(); 2].map(|()| Echo::connect(80).unwrap()));
    assert_eq!(created(&gateway, FIRST), 1);
    let reason = ["--by", "ann", "--reason", "new disk"];
    let said = gateway.subcommand(&[&["target", "drain", "tcp", FIRST][..], &reason].concat());
    assert_eq!(said, format!("tcp {FIRST} gets no new flows; 1 are left\n"));
    let shown = target(&gateway, FIRST);
    assert_eq!(shown["draining"], true);
    let operator = &shown["operator"];
    assert_eq!(operator["drain"], true);
    assert_eq!(operator["by"], "ann");
    assert_eq!(operator["reason"], "new disk");
    let log = gateway.log();
    let line = log
        .lines()
        .find(|line| line.contains("target: changed by an operator"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for part in [FIRST, "Drain", "by=\"ann\"", "new disk"] {
        assert!(line.contains(part), "{line}");
    }
    let intent = |address: &str| {
        let labels = format!("{{service=\"tcp\",target=\"{address}\"}}");
        gateway.metric(&format!("weir_l4_target_intent{labels}"))
    };
    assert_eq!([FIRST, SECOND].map(intent), [1, 0]);
    let table = gateway.subcommand(&["targets", "--service", "tcp"]);
    assert!(table.contains("drain for "), "{table}");
    assert!(table.contains(" by ann: new disk "), "{table}");

    connect(&lab, 6);
    assert_eq!(created(&gateway, FIRST), 1);
    assert_eq!(created(&gateway, SECOND), 7);
    for echo in &mut echoes {
        echo.exchange(b"still there?");
    }

    // Kept by a reload that changes something else.
    let said = gateway.reload(&lab.usual().replace("\"10s\"", "\"11s\""));
    assert!(said.contains("drain.deadline"), "{said}");
    connect(&lab, 2);
    assert_eq!(created(&gateway, FIRST), 1);

    let said = gateway.subcommand(&["target", "enable", "tcp", FIRST]);
    assert_eq!(
        said,
        format!("tcp {FIRST} is left to configuration and registration\n")
    );
    assert_eq!(target(&gateway, FIRST)["operator"], Value::Null);
    connect(&lab, 4);
    assert_eq!(created(&gateway, FIRST), 3);
}

#[test]
fn a_weight_holds_and_the_last_target_is_drained_with_a_warning() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let weighted = lab
        .usual()
        .replace("scheduler = \"rr\"", "scheduler = \"wrr\"");
    let gateway = Gateway::start(&lab, &weighted);
    let said = gateway.subcommand(&["target", "weight", "tcp", SECOND, "3"]);
    assert_eq!(said, format!("tcp {SECOND} has weight 3\n"));
    assert_eq!(target(&gateway, SECOND)["weight"], 3);
    connect(&lab, 8);
    assert_eq!(created(&gateway, FIRST), 2);
    assert_eq!(created(&gateway, SECOND), 6);

    let drain = |address: &str| {
        let wanted = json!({ "action": "drain", "service": "tcp", "address": address });
        let (code, answer) = gateway.command("target", &wanted);
        assert_eq!(code, 200, "{answer}");
        answer
    };
    assert_eq!(drain(FIRST)["warnings"], json!([]));
    assert_eq!(
        drain(SECOND)["warnings"],
        json!(["service tcp: no target takes new flows"])
    );
    assert_eq!(drain(SECOND)["operator"]["weight"], 3);
    assert_eq!(drain(SECOND)["operator"]["by"], "admin listener");
}

#[test]
fn who_leaves_clients_to_the_sorry_targets_is_warned() {
    let lab = Lab::new();
    let second = format!("{{ address = \"{SECOND}\" }}");
    let sorry = format!("{{ address = \"{SECOND}\", sorry = true }}");
    let gateway = Gateway::start(&lab, &lab.usual().replace(&second, &sorry));
    assert!(!gateway.subcommand(&["services"]).contains("sorry"));
    let wanted = json!({ "action": "drain", "service": "tcp", "address": FIRST });
    let (_, answer) = gateway.command("target", &wanted);
    assert_eq!(
        answer["warnings"],
        json!(["service tcp: only its sorry targets take new flows"])
    );
    let shown = gateway.subcommand(&["services"]);
    assert!(shown.contains("1 (sorry)"), "{shown}");
}

#[test]
fn a_reload_says_what_it_forgets() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, &lab.usual());
    gateway.subcommand(&["target", "drain", "tcp", SECOND, "--by", "ann"]);
    let without = lab
        .usual()
        .replace(&format!(", {{ address = \"{SECOND}\" }}"), "");
    std::fs::write(lab.directory.path().join("l4.toml"), without).unwrap();
    let (code, answer) = gateway.command("reload", &json!({}));
    assert_eq!(code, 200, "{answer}");
    assert_eq!(
        answer["warnings"],
        json!([format!(
            "service tcp: what ann wanted of target {SECOND} (drain) is forgotten: the target is no longer configured"
        )])
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, &lab.usual());
    for (action, address, weight, why) in [
        ("pause", FIRST, None, "action: expected \"drain\""),
        ("weight", FIRST, None, "weight: is missing"),
        (
            "weight",
            FIRST,
            Some(1001),
            "weight: expected 0 to 1000, got 1001",
        ),
        ("drain", FIRST, Some(1), "weight: is for the action"),
        (
            "drain",
            "10.3.0.21:81",
            None,
            "is not a target of service tcp",
        ),
    ] {
        let wanted =
            json!({ "action": action, "service": "tcp", "address": address, "weight": weight });
        let (code, answer) = gateway.command("target", &wanted);
        assert_eq!(code, 400, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(why), "{answer}");
    }
    for (key, text) in [("by", "a\nb"), ("reason", "\u{1b}[2J"), ("reason", "")] {
        let wanted = json!({ "action": "drain", "service": "tcp", "address": FIRST, key: text });
        let (code, answer) = gateway.command("target", &wanted);
        assert_eq!(code, 400, "{answer}");
        let why = answer["error"].as_str().unwrap();
        assert!(why.starts_with(&format!("{key}: expected 1 to ")), "{why}");
    }
    let why = gateway.try_subcommand(&["target", "drain", "web", FIRST]);
    assert!(why.unwrap_err().contains("expected one of tcp, udp"));
    let why = gateway.try_subcommand(&["target", "weight", "tcp", FIRST, "1001"]);
    assert!(why.unwrap_err().contains("expected 0 to 1000"));
}
