//! What a new configuration changes, key by key as they are written: what a reload prints, and what it refuses because only a
//! restart brings it about.
//!
//! The text is compared, not what it was parsed into. So a key added to the parser is compared without a word here, and `"60s"` in
//! place of `"1m"` is shown as a change, though it changes nothing.

use std::collections::BTreeMap;

use shared::config::Value;

type Tables = BTreeMap<String, Value>;

/// The differences between two configurations.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What can be changed while the node runs, one line each, values before and after.
    pub live: Vec<String>,
    /// Keys that take effect by a restart only. Without their values, as some of them are secrets.
    pub restart: Vec<String>,
}

/// Sections whose keys all can change while the node runs.
const LIVE_SECTIONS: [&str; 2] = ["drain", "services"];

/// Keys of `[[ports]]` that can; what a device was opened with can't.
const LIVE_PORT_KEYS: [&str; 5] = [
    "gateway",
    "routes",
    "local_ips",
    "answer_arp_for_vips",
    "answer_for_address",
];

/// Lists of tables, and the key by which a table of one is the same as in the other. Others go by their places.
const NAMED_BY: [(&str, &str); 4] = [
    ("services", "name"),
    ("ports", "name"),
    ("targets", "address"),
    ("routes", "to"),
];

impl Changes {
    /// From what was written in the document of the running node to what is written now.
    pub fn between(before: &Tables, after: &Tables) -> Changes {
        let mut changes = Changes::default();
        changes.tables(&mut Vec::new(), before, after);
        if port_names(before) != port_names(after) {
            changes
                .restart
                .push("ports (which there are, and their order)".into());
        }
        changes.restart.dedup();
        changes
    }

    fn tables(&mut self, path: &mut Vec<String>, before: &Tables, after: &Tables) {
        let added = after.keys().filter(|key| !before.contains_key(*key));
        for key in before.keys().chain(added) {
            path.push(key.clone());
            self.values(path, before.get(key), after.get(key));
            path.pop();
        }
    }

    fn values(&mut self, path: &mut Vec<String>, before: Option<&Value>, after: Option<&Value>) {
        if before == after {
            return;
        }
        let nothing = Tables::new();
        match (before, after) {
            (Some(Value::Table(before)), Some(Value::Table(after))) => {
                self.tables(path, before, after);
            }
            // A section that is new or gone, key by key.
            (Some(Value::Table(before)), None) => self.tables(path, before, &nothing),
            (None, Some(Value::Table(after))) => self.tables(path, &nothing, after),
            _ if is_list_of_tables(before.or(after)) => self.lists(path, before, after),
            _ => self.leaf(path, before, after),
        }
    }

    /// Lists of tables that have names.
    fn lists(&mut self, path: &mut Vec<String>, before: Option<&Value>, after: Option<&Value>) {
        let (before, after) = (named(path, before), named(path, after));
        for (name, table) in &before {
            path.push(name.clone());
            match after.iter().find(|(other, _)| other == name) {
                Some((_, after)) => self.tables(path, table, after),
                None => self.note(path, || "removed".into()),
            }
            path.pop();
        }
        for (name, table) in &after {
            if before.iter().all(|(other, _)| other != name) {
                path.push(name.clone());
                self.note(path, || added(table));
                path.pop();
            }
        }
    }

    fn leaf(&mut self, path: &[String], before: Option<&Value>, after: Option<&Value>) {
        let shown = |value: Option<&Value>| value.map_or_else(|| "(default)".into(), show);
        self.note(path, || format!("{} -> {}", shown(before), shown(after)));
    }

    fn note(&mut self, path: &[String], what: impl FnOnce() -> String) {
        let key = path.join(".");
        if is_live(path) {
            self.live.push(format!("{key}: {}", what()));
        } else {
            self.restart.push(key);
        }
    }
}

fn is_live(path: &[String]) -> bool {
    let key = |place: usize| path.get(place).map(String::as_str);
    match key(0) {
        Some("ports") => key(2).is_some_and(|key| LIVE_PORT_KEYS.contains(&key)),
        Some(section) => LIVE_SECTIONS.contains(&section),
        None => false,
    }
}

fn is_list_of_tables(value: Option<&Value>) -> bool {
    matches!(value, Some(Value::Array(items)) if matches!(items.first(), Some(Value::Table(_))))
}

/// The tables of a list with their names.
fn named<'v>(path: &[String], list: Option<&'v Value>) -> Vec<(String, &'v Tables)> {
    let Some(Value::Array(items)) = list else {
        return Vec::new();
    };
    let key = path
        .last()
        .and_then(|last| NAMED_BY.iter().find(|(list, _)| list == last))
        .map(|(_, key)| *key);
    let table = |(place, item): (usize, &'v Value)| {
        let Value::Table(table) = item else {
            return None;
        };
        let name = key.and_then(|key| table.get(key)).and_then(Value::as_str);
        let name = name.map_or_else(|| format!("[{place}]"), str::to_owned);
        Some((name, table))
    };
    items.iter().enumerate().filter_map(table).collect()
}

fn port_names(document: &Tables) -> Vec<String> {
    let names = named(&["ports".to_owned()], document.get("ports"));
    names.into_iter().map(|(name, _)| name).collect()
}

/// What to say of a table that is new: its keys with plain values, in short.
fn added(table: &Tables) -> String {
    let plain = table
        .iter()
        .filter(|(_, value)| !matches!(value, Value::Array(_) | Value::Table(_)));
    let keys: Vec<String> = plain
        .map(|(key, value)| format!("{key} {}", show(value)))
        .collect();
    format!("added ({})", keys.join(", "))
}

fn show(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(show).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use shared::config::Document;

    use super::*;

    const BEFORE: &str = r#"
node.id = "l4-1"
workers.flows = 1024
bgp.neighbours = [{ address = "10.0.0.1", password = "old" }]
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
"#;

    fn between(after: &str) -> Changes {
        let read = |text: &str| {
            Document::from_toml("l4.toml", text)
                .unwrap()
                .root()
                .written()
                .clone()
        };
        Changes::between(&read(BEFORE), &read(after))
    }

    #[test]
    fn what_is_the_same_is_no_change() {
        assert_eq!(between(BEFORE), Changes::default());
        let turned = BEFORE.replace(
            "targets = [{ address = \"10.3.0.21:80\" }, { address = \"10.3.0.22:80\", weight = 2 }]",
            "targets = [{ weight = 2, address = \"10.3.0.22:80\" }, { address = \"10.3.0.21:80\" }]",
        );
        assert_eq!(between(&turned), Changes::default());
    }

    #[test]
    fn services_targets_timeouts_and_local_ips_change_live() {
        let after = BEFORE
            .replace("name = \"dns\"\nport = 53", "name = \"ntp\"\nport = 123")
            .replace("udp = \"60s\"", "syn = \"5s\"")
            .replace(
                "{ address = \"10.3.0.21:80\" }",
                "{ address = \"10.3.0.23:80\" }",
            )
            .replace("weight = 2", "weight = 0")
            .replace(", \"10.3.0.101\"", "")
            + "[drain]\ndeadline = \"5s\"\n";
        let changes = between(&after);
        assert_eq!(
            changes.live,
            [
                "ports.int.local_ips: [\"10.3.0.100\", \"10.3.0.101\"] -> [\"10.3.0.100\"]",
                "services.web.targets.10.3.0.21:80: removed",
                "services.web.targets.10.3.0.22:80.weight: 2 -> 0",
                "services.web.targets.10.3.0.23:80: added (address \"10.3.0.23:80\")",
                "services.web.timeouts.udp: \"60s\" -> (default)",
                "services.web.timeouts.syn: (default) -> \"5s\"",
                "services.dns: removed",
                "services.ntp: added (name \"ntp\", port 123)",
                "drain.deadline: (default) -> \"5s\"",
            ]
        );
        assert_eq!(changes.restart, [""; 0]);
    }

    #[test]
    fn what_needs_a_restart_is_named_without_its_value() {
        let after = BEFORE
            .replace("flows = 1024", "flows = 2048")
            .replace("\"old\"", "\"new\"")
            .replace("mtu = 1500", "mtu = 9000");
        let changes = between(&after);
        assert_eq!(changes.live, [""; 0]);
        assert_eq!(
            changes.restart,
            [
                "bgp.neighbours.[0].password",
                "ports.ext.mtu",
                "workers.flows"
            ]
        );
    }

    #[test]
    fn ports_that_change_places_need_a_restart() {
        let after = BEFORE
            .replace("name = \"ext\"", "name = \"x\"")
            .replace("name = \"int\"", "name = \"ext\"")
            .replace("name = \"x\"", "name = \"int\"");
        let changes = between(&after);
        assert!(
            changes.restart.iter().any(|key| key.starts_with("ports (")),
            "{changes:?}"
        );
        let more = BEFORE.to_owned() + "[[ports]]\nname = \"third\"\n";
        assert!(!between(&more).restart.is_empty());
    }
}
