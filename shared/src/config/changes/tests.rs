//! What is said of a change, by the handles a parser asked of.

use super::super::{Document, Table, Written};
use super::{Change, changes};

const BEFORE: &str = r#"
flows = 1024
[drain]
deadline = "30s"
[bgp]
neighbours = [{ address = "10.0.0.1", password = "old", med = 5 }]
[[ports]]
name = "ext"
mtu = 1500
[[ports]]
name = "int"
local_ips = ["10.3.0.100", "10.3.0.101"]
[[services]]
name = "web"
port = 80
timeouts = { udp = "60s" }
targets = [{ address = "10.3.0.21:80" }, { address = "10.3.0.22:80", weight = 2 }]
[[services]]
name = "dns"
port = 53
[checks.a]
rise = 2
"#;

/// Flows, ports and the bgp section need a restart, but for LocalIPs and MEDs; the rest is live.
fn parse(root: &mut Table<'_>) -> Option<()> {
    root.optional::<u32>("flows");
    let mut live = root.live();
    if let Some(mut drain) = live.table("drain") {
        drain.optional::<String>("deadline");
        drain.optional::<String>("grace");
    }
    if let Some(mut bgp) = root.table("bgp") {
        for mut neighbour in bgp.tables_by("neighbours", "address") {
            neighbour.optional::<String>("address");
            neighbour.secret().optional::<String>("password");
            neighbour.live().optional::<u32>("med");
        }
    }
    for mut port in root.ordered_tables_by("ports", "name") {
        port.optional::<String>("name");
        port.optional::<u32>("mtu");
        port.live().optional::<Vec<String>>("local_ips");
    }
    for mut service in live.tables_by("services", "name") {
        service.optional::<String>("name");
        service.optional::<u16>("port");
        if let Some(mut timeouts) = service.table("timeouts") {
            timeouts.optional::<String>("udp");
            timeouts.optional::<String>("syn");
        }
        for mut target in service.tables_by("targets", "address") {
            target.optional::<String>("address");
            target.optional::<u16>("weight");
        }
    }
    for (_, mut check) in live.map("checks") {
        check.optional::<u16>("rise");
        check.secret().optional::<String>("token");
    }
    Some(())
}

fn written(text: &str) -> Written {
    let document = Document::from_toml("f.toml", text).unwrap();
    document.into_parsed(parse).unwrap().written
}

fn between(before: &str, after: &str) -> (Vec<String>, Vec<String>) {
    let (live, restart): (Vec<Change>, Vec<Change>) = changes(&written(before), &written(after))
        .into_iter()
        .partition(|change| change.live);
    let lines = |list: Vec<Change>| list.iter().map(ToString::to_string).collect();
    (lines(live), lines(restart))
}

#[test]
fn what_is_the_same_is_no_change() {
    assert_eq!(between(BEFORE, BEFORE), (vec![], vec![]));
    let turned = BEFORE.replace(
        "targets = [{ address = \"10.3.0.21:80\" }, { address = \"10.3.0.22:80\", weight = 2 }]",
        "targets = [{ weight = 2, address = \"10.3.0.22:80\" }, { address = \"10.3.0.21:80\" }]",
    );
    assert_ne!(turned, BEFORE);
    assert_eq!(between(BEFORE, &turned), (vec![], vec![]));
}

#[test]
fn what_changes_live_is_said_with_the_value_before_and_after() {
    let after = BEFORE
        .replace("name = \"dns\"\nport = 53", "name = \"ntp\"\nport = 123")
        .replace("udp = \"60s\"", "syn = \"5s\"")
        .replace("\"10.3.0.21:80\" }", "\"10.3.0.23:80\" }")
        .replace("weight = 2", "weight = 0")
        .replace(", \"10.3.0.101\"", "")
        .replace("deadline = \"30s\"", "")
        .replace("med = 5", "med = 6")
        .replace(
            "[checks.a]\nrise = 2",
            "[checks.b]\nrise = 3\ntoken = \"x\"",
        );
    let (live, restart) = between(BEFORE, &after);
    assert_eq!(
        live,
        [
            "bgp.neighbours.10.0.0.1.med: 5 -> 6",
            "checks.a: removed",
            "checks.b: added (rise 3, token (secret))",
            "drain.deadline: \"30s\" -> (default)",
            "ports.int.local_ips: [\"10.3.0.100\", \"10.3.0.101\"] -> [\"10.3.0.100\"]",
            "services.web.targets.10.3.0.21:80: removed",
            "services.web.targets.10.3.0.22:80.weight: 2 -> 0",
            "services.web.targets.10.3.0.23:80: added (address \"10.3.0.23:80\")",
            "services.web.timeouts.udp: \"60s\" -> (default)",
            "services.web.timeouts.syn: (default) -> \"5s\"",
            "services.dns: removed",
            "services.ntp: added (name \"ntp\", port 123)",
        ]
    );
    assert_eq!(restart, [""; 0]);
}

#[test]
fn what_was_said_nowhere_needs_a_restart_and_a_secret_is_never_shown() {
    let after = BEFORE
        .replace("flows = 1024", "flows = 2048")
        .replace("\"old\"", "\"new\"")
        .replace("mtu = 1500", "mtu = 9000");
    let (live, restart) = between(BEFORE, &after);
    assert_eq!(live, [""; 0]);
    assert_eq!(
        restart,
        [
            "bgp.neighbours.10.0.0.1.password: changed",
            "flows: 1024 -> 2048",
            "ports.ext.mtu: 1500 -> 9000",
        ]
    );
}

#[test]
fn a_change_knows_its_line_in_the_later_text_and_what_is_gone_that_of_the_table_around_it() {
    let after = BEFORE
        .replace("flows = 1024", "# many\nflows = 2048")
        .replace("mtu = 1500\n", "")
        .replace("[checks.a]\nrise = 2", "[checks.b]");
    let places: Vec<String> = changes(&written(BEFORE), &written(&after))
        .iter()
        .map(|change| change.place.mistake("x", "").to_string())
        .collect();
    assert_eq!(
        places,
        [
            "f.toml:21: checks.a: x",
            "f.toml:21: checks.b: x",
            "f.toml:3: flows: x",
            "f.toml:8: ports.ext.mtu: x",
        ]
    );
}

#[test]
fn a_mistake_in_a_secret_does_not_show_it() {
    let document = Document::from_toml("f.toml", "[checks.a]\ntoken = [\"hush\"]").unwrap();
    assert_eq!(
        document.parse(parse).unwrap_err().to_string(),
        "f.toml:2: checks.a.token: expected text, got a list"
    );
}

#[test]
fn tables_whose_order_matters_change_with_it() {
    let after = BEFORE
        .replace("name = \"ext\"", "name = \"x\"")
        .replace("name = \"int\"", "name = \"ext\"")
        .replace("name = \"x\"", "name = \"int\"");
    let (_, restart) = between(BEFORE, &after);
    assert!(
        restart.contains(&"ports: order ext, int -> int, ext".to_owned()),
        "{restart:?}"
    );
    let more = BEFORE.to_owned() + "[[ports]]\nname = \"third\"\n";
    assert_eq!(
        between(BEFORE, &more),
        (
            vec![],
            vec!["ports.third: added (name \"third\")".to_owned()]
        )
    );
}

#[test]
fn tables_told_apart_by_their_places_are_shown_with_what_people_call_them() {
    let parse = |text: &str| {
        let document = Document::from_toml("f.toml", text).unwrap();
        let parse = |root: &mut Table<'_>| {
            for mut table in root.tables("files") {
                table.optional::<u32>("size");
                if let Some(name) = table.optional::<String>("name") {
                    table.called(&name);
                }
            }
            Some(())
        };
        document.into_parsed(parse).unwrap().written
    };
    let before = "files = [{ name = \"a\", size = 1 }, { size = 2 }, { name = \"c\\u001b\" }]";
    let after = "files = [{ name = \"b\", size = 3 }, { size = 4 }]";
    let lines = |before: &str, after: &str| {
        let changes = changes(&parse(before), &parse(after));
        let lines = changes.iter().map(ToString::to_string);
        lines.collect::<Vec<_>>()
    };
    assert_eq!(
        lines(before, after),
        [
            "files[0: b].name: \"a\" -> \"b\"",
            "files[0: b].size: 1 -> 3",
            "files[1].size: 2 -> 4",
            "files[2: c?]: removed",
        ]
    );
    assert_eq!(
        lines("", "files = [{ name = \"a\" }]"),
        ["files[0: a]: added (name \"a\")"]
    );
}

#[test]
fn a_long_value_is_cut() {
    let list = |count: usize| {
        let items: Vec<String> = (0..count).map(|n| format!("\"10.3.{n}.1\"")).collect();
        BEFORE.replace("\"10.3.0.100\", \"10.3.0.101\"", &items.join(", "))
    };
    let (live, _) = between(&list(200), &list(1000));
    assert_eq!(live.len(), 1);
    assert!(live[0].len() < 1000, "{live:?}");
}

#[test]
fn a_file_with_another_content_is_a_change_of_the_key_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let (config, secret) = (
        directory.path().join("f.toml"),
        directory.path().join("key"),
    );
    std::fs::write(&config, format!("key = {:?}", secret.to_str().unwrap())).unwrap();
    let read = |content: &str, shown: Option<&str>| {
        std::fs::write(&secret, content).unwrap();
        let shown = shown.map(str::to_owned);
        let parsed = Document::load(&config)
            .unwrap()
            .into_parsed(|root| root.live().opened_file("key", |_| shown))
            .unwrap();
        assert!(parsed.unusable.0.is_empty());
        parsed.written
    };
    let lines = |before: &Written, after: &Written| {
        changes(before, after)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let path = secret.display();
    assert_eq!(lines(&read("a", None), &read("a", None)), [""; 0]);
    assert_eq!(
        lines(&read("a", None), &read("b", None)),
        [format!("key: the content of \"{path}\" has changed")]
    );
    assert_eq!(
        lines(
            &read("a", Some("until May")),
            &read("b", Some("until June"))
        ),
        [format!(
            "key: \"{path}\" (until May) -> \"{path}\" (until June)"
        )]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_no_mistake_but_unusable() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("f.toml");
    for (path, why) in [
        (directory.path().join("none"), "No such file"),
        (directory.path().to_owned(), "not a regular file"),
        ("/dev/zero".into(), "not a regular file"),
    ] {
        std::fs::write(&config, format!("\nkey = {:?}", path.to_str().unwrap())).unwrap();
        let parsed = Document::load(&config)
            .unwrap()
            .into_parsed(|root| root.file("key"))
            .unwrap();
        assert_eq!(parsed.value.path(), path);
        let said = parsed.unusable.to_string();
        let place = format!("{}:2: key: {}: ", config.display(), path.display());
        assert!(said.starts_with(&place) && said.contains(why), "{said}");
    }
}

#[test]
fn files_that_cannot_be_read_are_listed_among_mistakes_up_to_as_many_as_there_may_be() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("f.toml");
    for (unknown, lines, more) in [
        (10, 11, None),
        (199, 200, None),
        (200, 201, Some(1)),
        (205, 201, Some(5)),
    ] {
        let unknown: String = (0..unknown).map(|n| format!("unknown{n} = 1\n")).collect();
        std::fs::write(&config, format!("{unknown}key = \"/nonexistent\"")).unwrap();
        let document = Document::load(&config).unwrap();
        let mistakes = document.parse(|root| root.file("key")).unwrap_err();
        let said = document.with_unusable(mistakes).to_string();
        assert_eq!(said.lines().count(), lines, "{said}");
        let last = said.lines().last().unwrap();
        match more {
            Some(more) => assert!(
                last.ends_with(&format!("and {more} more mistakes")),
                "{last}"
            ),
            None => assert!(last.contains("/nonexistent"), "{last}"),
        }
    }
}
