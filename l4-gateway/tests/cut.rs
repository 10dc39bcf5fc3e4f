//! Flows that an operator ends by the command line: real connections between real kernels.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::io::{ErrorKind, Read, Write};
use std::process::Stdio;

use serde_json::json;

use lab::{ADMIN, Echo, Gateway, Lab};

fn connections(lab: &Lab) -> [Echo; 2] {
    lab.client().run(|| {
        [(); 2].map(|()| {
            let mut echo = Echo::connect(80).unwrap();
            echo.exchange(b"anybody there?");
            echo
        })
    })
}

fn is_reset(echo: &mut Echo) -> bool {
    let read = echo.stream.read(&mut [0; 16]);
    read.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

/// Connections that the target's kernel takes for open.
fn open_at_the_target(lab: &Lab) -> usize {
    let mut ss = lab.target().command("ss");
    let output = ss
        .args(["-Htn", "state", "established", "sport", "=", ":8080"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().lines().count()
}

#[test]
fn what_is_cut_is_reset_at_both_ends_and_the_rest_goes_on() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let [mut first, mut second] = connections(&lab);
    assert_eq!(open_at_the_target(&lab), 2);
    let client = first.stream.local_addr().unwrap().to_string();
    let filter = ["flows", "--cut", "--client", &client];

    let why = gateway.try_subcommand(&filter).unwrap_err();
    assert_eq!(
        why,
        "1 flows match; nobody can be asked here: --yes ends them\n"
    );
    let said = gateway.subcommand(&[&filter[..], &["--yes", "--by", "ann"]].concat());
    assert_eq!(said, "1 flows ended\n");
    assert!(is_reset(&mut first));
    gateway.wait("reset at the target", || open_at_the_target(&lab) == 1);
    second.exchange(b"and you?");
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("an operator ends"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(
        line.contains(&client) && line.contains("by=\"ann\""),
        "{line}"
    );
    assert_eq!(gateway.service("tcp")["flows_cut"], 1);

    assert_eq!(gateway.subcommand(&filter), "no flow matches\n");
    let said = gateway.subcommand(&["flows", "--cut", "--all", "--yes"]);
    assert_eq!(said, "1 flows ended\n");
    assert!(is_reset(&mut second));
    assert_eq!(gateway.flows(&json!({})).len(), 0);
    // New ones come as ever.
    connections(&lab);
}

/// Runs the command at a terminal, where somebody types `answer`; what is seen there.
fn at_a_terminal(lab: &Lab, command: &str, answer: &[u8]) -> String {
    let binary = env!("CARGO_BIN_EXE_l4-gateway");
    let mut script = lab.gateway().command("script");
    let mut terminal = script
        .args(["-qec", &format!("{binary} {command} --admin {ADMIN}")])
        .arg("/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script: install the package bsdutils");
    let mut typed = terminal.stdin.take().unwrap();
    typed.write_all(answer).unwrap();
    let output = terminal.wait_with_output().unwrap();
    drop(typed);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn who_sits_at_a_terminal_is_asked() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let mut open = connections(&lab);
    let command = "flows --cut --service tcp";
    for answer in [&b"n\n"[..], b"\n", b"what?\n"] {
        let seen = at_a_terminal(&lab, command, answer);
        assert!(seen.contains("End 2 flows?"), "{seen}");
        assert!(seen.contains("nothing was ended"), "{seen}");
    }
    for echo in &mut open {
        echo.exchange(b"still there?");
    }
    let seen = at_a_terminal(&lab, command, b"y\n");
    assert!(seen.contains("2 flows ended"), "{seen}");
    assert!(open.iter_mut().all(is_reset));
    assert_eq!(gateway.flows(&json!({})).len(), 0);
}

#[test]
fn all_flows_are_ended_only_by_who_says_so() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let mut open = connections(&lab);
    let why = gateway.try_subcommand(&["flows", "--cut", "--yes"]);
    assert!(why.unwrap_err().starts_with("which flows?"));
    for (arguments, why) in [
        (json!({}), "no filter says which flows"),
        (json!({ "client": null }), "no filter says which flows"),
        (
            json!({ "all": true, "service": "tcp" }),
            "goes without a filter",
        ),
        (json!({ "all": 1 }), "all: expected true or false"),
        (
            json!({ "service": "tcp", "limit": 1 }),
            "limit: `cut` ends all",
        ),
        (json!({ "service": "web" }), "expected one of tcp, udp"),
        (json!({ "servce": "tcp" }), "unknown field"),
    ] {
        let (code, answer) = gateway.command("cut", &arguments);
        assert_eq!(code, 400, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(why), "{answer}");
    }
    for echo in &mut open {
        echo.exchange(b"still there?");
    }
    let flow = &gateway.flows(&json!({ "state": "established" }))[0];
    let [idle, expires] =
        ["idle_seconds", "expires_in_seconds"].map(|key| flow[key].as_f64().unwrap());
    assert!((0.0..5.0).contains(&idle), "{flow}");
    assert!((899.0..901.0).contains(&(idle + expires)), "{flow}");
}

/// An empty answer would say the same of a target without flows and of a mistyped one.
#[test]
fn who_names_what_is_not_there_is_told_so() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let _open = connections(&lab);
    for (end, wrong, right) in [
        ("--target", "10.3.0.21:80", "10.3.0.21:8080"),
        ("--vip", "10.0.0.101", "10.0.0.100"),
        ("--local", "10.3.0.99:4000", "10.3.0.100"),
        ("--service", "web", "tcp"),
    ] {
        for more in [&[][..], &["--json"], &["--cut"], &["--cut", "--yes"]] {
            let arguments = [&["flows", end, wrong], more].concat();
            let why = gateway.try_subcommand(&arguments).unwrap_err();
            assert!(
                why.contains(&format!("{wrong:?}: expected one of")),
                "{why}"
            );
            assert!(why.contains(right), "{why}");
        }
        let why = gateway.subcommand(&["flows", end, right]);
        assert!(why.contains("established") || end == "--local", "{why}");
    }
    // They are there, and have none.
    let said = gateway.subcommand(&["flows", "--service", "udp", "--target", "10.3.0.21"]);
    assert_eq!(said.lines().count(), 1, "{said}");
    let why = gateway.try_subcommand(&["flows", "--by", "ann"]);
    assert!(why.unwrap_err().contains("--by goes with --cut"));
}
