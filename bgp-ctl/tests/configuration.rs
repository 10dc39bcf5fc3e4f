//! What users write, what they get, and what they are told when it is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use bgp_ctl::config::{BgpSection, Config, Password, Ttl};
use bgp_ctl::decision::AnnounceWhen;
use shared::config::Document;
use shared::config::reference::mistakes;

const PAGE: &str = include_str!("../../deploy/reference/bgp-ctl.md");
const EXAMPLE: &str = include_str!("../../deploy/examples/bgp-ctl.toml");
const LEAST: &str = "[bgp]\nlocal_as = 65010\nrouter_id = \"10.2.0.11\"\n\
                     [[bgp.neighbours]]\naddress = \"10.2.0.1\"\nremote_as = 65001\n";

fn section(text: &str) -> BgpSection {
    Document::from_toml("t", text)
        .unwrap()
        .parse(BgpSection::parse)
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

#[test]
fn the_reference_names_every_key_and_no_other() {
    let document = Document::from_toml("example", EXAMPLE).unwrap();
    document.parse(Config::parse).unwrap();
    let shared = ["node", "admin", "bus", "log", "follow", "bgp"];
    let asked: BTreeSet<String> = document
        .asked()
        .into_iter()
        .filter(|key| !shared.contains(&key.as_str()))
        .filter(|key| key.starts_with("bgp.") || key.starts_with("follow."))
        .collect();
    let named: BTreeSet<String> = PAGE
        .lines()
        .take_while(|line| *line != "## Commands")
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(key, _)| key.to_owned())
        .collect();
    assert_eq!(named, asked);
}

#[test]
fn the_reference_says_what_the_parser_does() {
    let document = Document::from_toml("example", EXAMPLE)
        .unwrap()
        .describing();
    document.parse(Config::parse).unwrap();
    let mut rows = document.rows();
    rows.retain(|row| row.key.starts_with("bgp.") || row.key.starts_with("follow."));
    let wrong = mistakes(PAGE, &rows);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_least_configuration_has_the_documented_defaults() {
    let bgp = section(LEAST);
    let neighbour = &bgp.neighbours[0];
    assert_eq!(
        (neighbour.port, neighbour.local_pref, neighbour.passive),
        (179, 100, false)
    );
    assert_eq!(
        (neighbour.hold_time, neighbour.connect_timeout),
        (Duration::from_secs(9), Duration::from_secs(5))
    );
    assert_eq!(
        (neighbour.connect_retry, neighbour.connect_retry_max),
        (Duration::from_secs(1), Duration::from_secs(15))
    );
    assert_eq!(
        (neighbour.ttl, &neighbour.password, neighbour.next_hop),
        (Ttl::Hops(1), &None, None)
    );
    let policy = bgp.vip(Ipv4Addr::new(1, 2, 3, 4)).policy;
    assert_eq!(
        (policy.minimum_healthy, policy.announce_when),
        (1, AnnounceWhen::All)
    );
    assert_eq!(
        (policy.announce_after, bgp.shutdown_wait),
        (Duration::from_secs(1), Duration::from_millis(200))
    );
    assert!(bgp.listen.is_none());
}

#[test]
fn neighbours_and_vips_inherit_and_override() {
    let bgp = section(
        "[bgp]\nlocal_as = 65010\nrouter_id = \"10.2.0.11\"\nmed = 1\nhold_time = \"30s\"\ncommunities = [\"65010:1\"]\n\
         minimum_healthy = 3\nannounce_when = \"any\"\n\
         [[bgp.vips]]\naddress = \"10.0.0.100\"\nminimum_healthy = 5\nmed = 7\n\
         [[bgp.neighbours]]\naddress = \"10.2.0.1\"\nremote_as = 65010\n\
         [[bgp.neighbours]]\naddress = \"10.2.0.2\"\nremote_as = 65001\nmed = 2\nhold_time = \"3s\"\ncommunities = []\nttl = 3\n",
    );
    let (first, second) = (&bgp.neighbours[0], &bgp.neighbours[1]);
    assert_eq!(
        (
            first.med,
            first.hold_time,
            first.communities.len(),
            first.ttl
        ),
        (Some(1), Duration::from_secs(30), 1, Ttl::System)
    );
    assert_eq!(
        (
            second.med,
            second.hold_time,
            second.communities.len(),
            second.ttl
        ),
        (Some(2), Duration::from_secs(3), 0, Ttl::Hops(3))
    );
    let (own, other) = (
        bgp.vip(Ipv4Addr::new(10, 0, 0, 100)),
        bgp.vip(Ipv4Addr::new(10, 0, 0, 101)),
    );
    assert_eq!(
        (
            own.policy.minimum_healthy,
            own.policy.announce_when,
            own.attributes.med
        ),
        (5, AnnounceWhen::Any, Some(7))
    );
    assert_eq!(
        (other.policy.minimum_healthy, other.attributes.med),
        (3, None)
    );
}

#[test]
fn all_mistakes_are_told_at_once_with_their_line() {
    let text = "[node]\nid = \"b\"\n[bgp]\nlocal_as = 0\nrouter_id = \"0.0.0.0\"\nhold_time = \"2s\"\nlisten = \"[::]:179\"\nmedd = 3\n\
                [[bgp.vips]]\naddress = \"10.0.0.1\"\ncommunities = [\"70000:1\"]\n[[bgp.vips]]\naddress = \"10.0.0.1\"\n\
                [[bgp.neighbours]]\naddress = \"224.0.0.1\"\nremote_as = 23456\nttl = 0\npassive = true\npassword = \"\"\n\
                [[bgp.neighbours]]\nremote_as = 65001\npassword = \"a\"\npassword_file = \"b\"\nttl = 2\nttl_security = true\nhold_time = \"3500ms\"\n";
    let mistakes = Document::from_toml("bgp.toml", text)
        .unwrap()
        .parse(Config::parse)
        .unwrap_err()
        .to_string();
    for expected in [
        "bgp.toml:4: bgp.local_as: 0 is reserved",
        "bgp.toml:5: bgp.router_id: 0.0.0.0 can't identify a router",
        "bgp.toml:6: bgp.hold_time: expected a duration from 3s",
        "bgp.toml:7: bgp.listen: expected an IPv4 address",
        "bgp.toml:8: bgp.medd: unknown key — did you mean `med`?",
        "bgp.toml:11: bgp.vips[0].communities: item 1 should be a community",
        "bgp.vips[1].address: VIP \"10.0.0.1\" is already at bgp.vips[0].address",
        "bgp.toml:15: bgp.neighbours[0].address: 224.0.0.1 is not the address of one machine",
        "bgp.toml:16: bgp.neighbours[0].remote_as: 23456 is reserved",
        "bgp.toml:17: bgp.neighbours[0].ttl: expected an integer from 1 to 255, got 0",
        "bgp.toml:19: bgp.neighbours[0].password: expected 1 to 80 bytes",
        "bgp.neighbours[1].address: is missing",
        "bgp.neighbours[1].password_file: there is a `password` too",
        "bgp.neighbours[1].ttl: has no meaning with ttl_security",
        "bgp.neighbours[1].hold_time: expected whole seconds",
    ] {
        assert!(
            mistakes.contains(expected),
            "{expected}\nis missing in\n{mistakes}"
        );
    }
}

#[test]
fn a_section_without_neighbours_and_a_file_without_a_section_are_mistakes() {
    let parse = |text: &str| {
        Document::from_toml("t", text)
            .unwrap()
            .parse(Config::parse)
            .unwrap_err()
            .to_string()
    };
    assert!(parse("[node]\nid = \"b\"\n").contains("bgp: is missing"));
    assert!(
        parse(&format!("[node]\nid = \"b\"\n{LEAST}"))
            .contains("bus: expected transport = \"nats\"")
    );
    assert!(
        parse("[node]\nid = \"b\"\n[bgp]\nlocal_as = 1\nrouter_id = \"1.1.1.1\"\n")
            .contains("at least one neighbour")
    );
    assert!(
        parse(&format!("[node]\nid = \"b\"\n{LEAST}passive = true\n")).contains("needs a listener")
    );
}

#[test]
fn passwords_are_read_when_needed_and_never_shown() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let password = Password::File(file.path().to_owned().into());
    std::fs::write(file.path(), "first\n").unwrap();
    assert_eq!(password.read().unwrap(), "first");
    std::fs::write(file.path(), "second\r\n").unwrap();
    assert_eq!(password.read().unwrap(), "second");
    for wrong in [String::new(), "x".repeat(81), "x".repeat(1000)] {
        std::fs::write(file.path(), wrong).unwrap();
        assert!(
            password
                .read()
                .unwrap_err()
                .to_string()
                .contains("1 to 80 bytes")
        );
    }
    assert!(
        Password::File(std::path::PathBuf::from("/nonexistent").into())
            .read()
            .unwrap_err()
            .to_string()
            .contains("/nonexistent")
    );
    let bgp = section(&LEAST.replace(
        "remote_as = 65001",
        "remote_as = 65001\npassword = \"hunter2\"",
    ));
    assert!(!format!("{bgp:?}").contains("hunter2"));
    // A pipe would keep it waiting for a writer.
    let pipe = file.path().with_extension("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let said = Password::File(pipe.clone().into())
        .read()
        .unwrap_err()
        .to_string();
    std::fs::remove_file(pipe).unwrap();
    assert!(said.contains("it is a pipe, not a regular file"), "{said}");
}

#[test]
fn no_mistake_is_buried_under_keys_that_are_said_to_be_unknown() {
    let buried = shared::config::reference::buried(EXAMPLE, Config::parse);
    assert!(buried.is_empty(), "{}", buried.join("\n"));
}
