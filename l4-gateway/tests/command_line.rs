//! What the command line refuses by itself, and what its help and the reference say of it. Nobody listens: whoever gets as far as
//! connecting says so.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

use std::process::Command;

use l4_gateway::names::{PROTOCOLS, STATES};

const PAGE: &str = include_str!("../../deploy/reference/l4-gateway.md");

/// A port of loopback where nobody can listen.
const NOBODY: &str = "127.0.0.1:0";

/// The exit status, and what was printed.
fn gateway(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_l4-gateway"));
    let output = command.args(arguments).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (
        output.status.code().expect("an end of its own"),
        String::from_utf8(printed).unwrap(),
    )
}

/// Whether the command line took it, so that it went on to ask somebody.
fn asks(arguments: &[&str]) -> bool {
    let (code, printed) = gateway(&[arguments, &["--admin", NOBODY]].concat());
    let asked = printed.contains("can't connect to the admin listener at 127.0.0.1:0");
    assert_eq!(code, if asked { 1 } else { 2 }, "{arguments:?}: {printed}");
    asked
}

/// A section of the reference.
fn section(heading: &str) -> &'static str {
    let rest = PAGE.split_once(&format!("## {heading}\n")).unwrap().1;
    rest.split_once("\n## ").unwrap().0
}

#[test]
fn wrong_values_are_refused_before_anybody_is_asked() {
    for (wrong, why) in [
        (["flows", "--state", "fin_wait"], "[possible values: udp, "),
        (
            ["flows", "--protocol", "sctp"],
            "[possible values: tcp, udp]",
        ),
        (["flows", "--limit", "20000"], "expected 0 to 10000"),
        (
            ["flows", "--client", "me"],
            "expected an address (10.2.0.1)",
        ),
        (["capture", "--packets", "0"], "expected 1 to 1000000"),
        (["capture", "--seconds", "301"], "expected 1 to 300"),
        (["capture", "--bytes", "1GiB"], "expected 1 to 1073741824"),
        (["capture", "--snap", "63"], "expected 64 to 65535"),
    ] {
        let (code, printed) = gateway(&[&wrong[..], &["--admin", NOBODY]].concat());
        assert_eq!(code, 2, "{printed}");
        assert!(printed.contains(why), "{printed}");
        assert!(printed.contains(wrong[1]), "{printed}");
    }
    for admin in ["localhost", "127.0.0.1", "localhost:9401", "[::1]"] {
        let (code, printed) = gateway(&["services", "--admin", admin]);
        let why = "--admin <ADDR:PORT>': expected an IP address with a port, such as 10.0.0.1:80";
        assert!(code == 2 && printed.contains(why), "{printed}");
    }
}

#[test]
fn run_and_check_take_no_address_to_ask() {
    let example = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/examples/l4-standalone.toml"
    );
    for action in ["run", "check"] {
        let (code, printed) = gateway(&[action, "--config", example, "--admin", NOBODY]);
        let why = "--admin has no effect on `run` and `check`";
        assert!(code == 1 && printed.starts_with(why), "{code}: {printed}");
    }
}

#[test]
fn every_name_is_taken_and_stands_in_help_and_reference() {
    let (_, help) = gateway(&["flows", "--help"]);
    let commands = section("Commands");
    for (option, names) in [
        ("--state", STATES.names().collect::<Vec<_>>()),
        ("--protocol", PROTOCOLS.names().collect()),
    ] {
        for name in names {
            assert!(asks(&["flows", option, name]));
            assert!(help.contains(&format!("- {name}:")), "{name} in\n{help}");
            assert!(commands.contains(&format!("`{name}`")), "{name}");
        }
    }
}

/// The help of each state names the timeout that ends it: a key there is, and the one that the reference names after the state.
#[test]
fn each_state_is_said_to_end_by_a_timeout_that_can_be_set() {
    let (_, help) = gateway(&["flows", "--help"]);
    let (_, states) = help.split_once("--state").unwrap();
    let sentence = section("Commands").split("A flow's state says").nth(1);
    let sentence = sentence.unwrap().split("\n\n").next().unwrap();
    for state in STATES.names() {
        let (_, meaning) = states.split_once(&format!("- {state}:")).unwrap();
        let (_, rest) = meaning.split_once("(timeout: ").unwrap();
        let timeout = rest.split([',', ')']).next().unwrap();
        assert!(PAGE.contains(&format!("| `services[].timeouts.{timeout}` |")));
        let (_, after) = sentence.split_once(&format!("`{state}`")).unwrap();
        let (_, named) = after.split_once("(`").unwrap();
        let named = named.trim_start_matches("timeouts.").split('`').next();
        assert_eq!(named, Some(timeout), "{state}");
    }
}

/// Each row of the table under "Capture", `| bound | default | range |`: the least and the most are taken, one beyond either is not, and the
/// help says the same.
#[test]
fn the_bounds_in_the_reference_are_those_that_hold() {
    let (_, help) = gateway(&["capture", "--help"]);
    let mut options = 0;
    for row in section("Capture").lines() {
        let Some((option, rest)) = row.strip_prefix("| `").and_then(|row| row.split_once('`'))
        else {
            continue;
        };
        let mut cells = rest.split('|').map(str::trim).skip(1);
        let [default, bounds] = [(); 2].map(|()| cells.next().unwrap());
        let (least, most) = bounds.split_once(" to ").unwrap();
        let [least, most] = [least, most].map(|bound| bound.parse::<u64>().unwrap());
        for (value, right) in [
            (least - 1, false),
            (least, true),
            (most, true),
            (most + 1, false),
        ] {
            let asked = asks(&["capture", option, &value.to_string()]);
            assert_eq!(asked, right, "{option} {value}");
        }
        let said = help.split(option).nth(1).unwrap();
        let said = said.split("\n      --").next().unwrap();
        assert!(said.contains(&format!(": {bounds}")), "{option}: {said}");
        assert!(said.contains(&format!("[default: {default}]")), "{said}");
        options += 1;
    }
    assert_eq!(options, 4);
}

#[test]
fn a_configuration_may_come_by_a_pipe_and_what_never_ends_is_refused() {
    let example = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/examples/l4-gateway.toml"
    );
    let gateway = env!("CARGO_BIN_EXE_l4-gateway");
    for (typed, expected) in [
        ("$gateway check --config <(cat $example)", Ok(())),
        ("cat $example | $gateway check --config /dev/stdin", Ok(())),
        ("$gateway check --config /dev/stdin < $example", Ok(())),
        (
            "$gateway check --config <(echo '[nodes]')",
            Err("nodes: unknown key"),
        ),
        (
            "$gateway check --config /dev/zero",
            Err(
                "/dev/zero: can't be read: it is a device, not a regular file or a pipe — name a file with --config",
            ),
        ),
        (
            "$gateway check --config /",
            Err("/: can't be read: it is a directory, not"),
        ),
    ] {
        let mut shell = Command::new("bash");
        shell
            .args(["-c", typed])
            .envs([("gateway", gateway), ("example", example)]);
        let output = shell.output().expect("bash");
        let said = String::from_utf8_lossy(&output.stderr);
        match expected {
            Ok(()) => assert!(output.status.success(), "{typed}: {said}"),
            Err(why) => assert!(
                output.status.code() == Some(1) && said.contains(why),
                "{typed}: {said}"
            ),
        }
    }
}
