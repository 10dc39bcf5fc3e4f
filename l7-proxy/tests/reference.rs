//! The reference page names every key the parser asks for and every reason, and nothing else.

use l7_proxy::config::Config;
use l7_proxy::observe::reason::Reason;
use shared::config::Document;
use shared::config::reference::mistakes;
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../deploy/reference/l7-proxy.md");

/// Every table at least once.
const SAMPLE: &str = r#"
[node]
id = "l7-1"
[drain]
[forwarding]
[access_log]
[[listeners]]
name = "web"
address = "127.0.0.1:8443"
protocol = "https"
proxy_protocol = { trusted = ["10.2.0.100/32"] }
[[certificates]]
certificate = "/c.pem"
key = "/k.pem"
[[registrations]]
service = "web"
address = "10.0.0.1:80"
[[routes]]
path = { exact = "/" }
upstream = "app"
[upstreams.app]
backends = [{ address = "10.0.0.2:80" }]
[upstreams.app.keep_alive]
[upstreams.app.health]
type = "tcp"
"#;

/// Documented on pages of their own.
const ELSEWHERE: [&str; 5] = ["node", "admin", "bus", "log", "upstreams.*.health"];

#[test]
fn the_reference_names_every_key_and_no_other() {
    let document = Document::from_toml("sample.toml", SAMPLE).unwrap();
    document
        .parse(Config::parse)
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let asked = document.asked();
    let is_table = |key: &str| {
        let below = |other: &String| {
            other
                .strip_prefix(key)
                .is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        asked.iter().any(below)
    };
    let is_elsewhere = |key: &str| {
        ELSEWHERE.iter().any(|table| {
            key.strip_prefix(table)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    let known: BTreeSet<&str> = asked
        .iter()
        .map(String::as_str)
        .filter(|key| !is_table(key) && !is_elsewhere(key))
        .collect();
    let documented: BTreeSet<&str> = rows(4).collect();
    assert_eq!(known, documented);
}

#[test]
fn the_reference_says_what_the_parser_does() {
    let document = Document::from_toml("sample.toml", SAMPLE)
        .unwrap()
        .describing();
    document
        .parse(Config::parse)
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let mut rows = document.rows();
    rows.retain(|row| {
        let mut elsewhere = ELSEWHERE.iter();
        !elsewhere.any(|table| row.key.starts_with(&format!("{table}.")))
    });
    let wrong = mistakes(PAGE, &rows);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reference_gives_every_reason_with_its_status() {
    let documented: BTreeSet<&str> = rows(3)
        .filter(|row| Reason::ALL.iter().any(|reason| reason.as_str() == *row))
        .collect();
    assert_eq!(documented.len(), Reason::ALL.len());
    for reason in Reason::ALL {
        let row = PAGE
            .lines()
            .find(|line| line.starts_with(&format!("| `{reason}` |")))
            .unwrap_or_default();
        let status = row.split('|').nth(2).unwrap_or_default().trim();
        assert!(status.starts_with(reason.status().as_str()), "{row}");
    }
}

/// The first cells, where they are one piece of code, of tables with so many columns.
fn rows(columns: usize) -> impl Iterator<Item = &'static str> {
    // A row of n columns has n + 1 bars.
    PAGE.lines()
        .filter(move |line| line.matches('|').count() == columns + 1)
        .filter_map(|line| {
            line.strip_prefix("| `")?
                .split_once("` |")
                .map(|(cell, _)| cell)
        })
}

#[test]
fn no_mistake_is_buried_under_keys_that_are_said_to_be_unknown() {
    let buried = shared::config::reference::buried(
        include_str!("../../deploy/examples/l7-proxy.toml"),
        Config::parse,
    );
    assert!(buried.is_empty(), "{}", buried.join("\n"));
}
