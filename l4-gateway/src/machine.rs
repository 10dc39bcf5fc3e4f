//! What `ports`, `workers` and `drops` show: the node's own parts, by what DPVS shows of them (`dpip -s link show`, for ports and for CPUs), and what
//! became of packets that were not forwarded.

use clap::Args;
use serde_json::{Value, json};
use shared::cli::{Shown, cell};

use crate::views::{Column, columns, list, text};

/// Of which part.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Ports,
    Workers,
    Drops,
}

/// How it is shown.
#[derive(Debug, Clone, Args)]
pub(crate) struct Machine {
    #[command(flatten)]
    shown: Shown,
}

impl Machine {
    /// Shows a part of what `status` answers.
    ///
    /// # Errors
    /// If there is no answer.
    pub(crate) async fn show(
        &self,
        part: Part,
        status: impl AsyncFn() -> Result<Value, String>,
    ) -> Result<String, String> {
        let columns = match part {
            Part::Ports => PORTS,
            Part::Workers => WORKERS,
            Part::Drops => DROPS,
        };
        let items = async || {
            let mut status = status().await?;
            Ok::<_, String>(match part {
                Part::Ports => status["ports"].take(),
                Part::Workers => status["workers"].take(),
                Part::Drops => by_count(&status["drops"]),
            })
        };
        self.shown
            .show(items, |items| text(columns, list(items)))
            .await
    }
}

const PORTS: &[Column] = columns![
    "name",
    "device",
    "mac",
    "link" => |port| match port["link_up"].as_bool() {
        Some(true) => "up".into(),
        _ => "down".into(),
    },
    "mbit/s" => |port| cell(&port["speed_mbps"]),
    "routers" => |port| {
        let routers = list(&port["routers"]);
        let living = routers.iter().filter(|router| router["answers"] == true);
        match routers.len() {
            0 => "-".into(),
            all => format!("{} of {all}", living.count()),
        }
    },
    "received",
    "received_bytes",
    "transmitted",
    "transmitted_bytes",
    "missed",
    "receive_errors",
    "transmit_errors",
    "no_buffer",
];

const WORKERS: &[Column] = columns![
    "worker",
    "busy" => |worker| match worker["busy_ratio"].as_f64() {
        Some(ratio) => format!("{:.0}%", ratio * 100.0),
        None => "-".into(),
    },
    "cycles/frame" => |worker| cell(&worker["cycles_per_frame"]),
    "flows",
    "flows_created",
    "neighbours",
    "frames_in",
    "handed_over",
    "redirected",
    "dropped",
];

const DROPS: &[Column] = columns!["reason", "packets"];

/// Drops as a list, those of most packets first.
fn by_count(drops: &Value) -> Value {
    let drops = drops.as_object().into_iter().flatten();
    let mut drops: Vec<(&String, u64)> = drops
        .map(|(reason, packets)| (reason, packets.as_u64().unwrap_or_default()))
        .collect();
    drops.sort_by(|(one, fewer), (other, more)| more.cmp(fewer).then_with(|| one.cmp(other)));
    let drop = |(reason, packets)| json!({ "reason": reason, "packets": packets });
    drops.into_iter().map(drop).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        machine: Machine,
    }

    fn shown(part: Part, arguments: &[&str]) -> String {
        let status = json!({
            "ports": [{
                "name": "ext", "device": "0000:3b:00.0", "mac": "02:00:00:00:00:01", "link_up": true, "speed_mbps": 10_000,
                "routers": [{ "address": "10.2.0.1", "answers": true }, { "address": "10.2.0.2", "answers": false }],
                "received": 5, "received_bytes": 500, "transmitted": 4, "transmitted_bytes": 400, "missed": 3,
                "receive_errors": 2, "transmit_errors": 1, "no_buffer": 0,
            }],
            "workers": [{
                "worker": 0, "busy_ratio": 0.256, "cycles_per_frame": 310.0, "flows": 7, "flows_created": 9, "neighbours": 2, "frames_in": 100,
                "handed_over": 0, "redirected": 1, "dropped": 8,
            }],
            "drops": { "no_route": 3, "denied": 5, "bad_ttl": 3 },
        });
        let Cli { machine } = Cli::try_parse_from([&["weir"][..], arguments].concat()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let status = async || Ok(status.clone());
        let shown = runtime.unwrap().block_on(machine.show(part, status));
        shown.unwrap()
    }

    fn words(line: &str) -> Vec<&str> {
        let words = line.split("  ").map(str::trim);
        words.filter(|word| !word.is_empty()).collect()
    }

    #[test]
    fn the_parts_of_a_node_are_shown_in_tables() {
        let text = shown(Part::Ports, &[]);
        let ports: Vec<_> = text.lines().map(words).collect();
        assert_eq!(ports[0][3..6], ["LINK", "MBIT/S", "ROUTERS"]);
        assert_eq!(ports[1][3..6], ["up", "10000", "1 of 2"]);
        assert_eq!(ports[1][10..], ["3", "2", "1", "0"]);
        let text = shown(Part::Workers, &[]);
        let workers: Vec<_> = text.lines().map(words).collect();
        assert_eq!(workers[1][..4], ["0", "26%", "310.0", "7"]);
        assert_eq!(
            shown(Part::Drops, &[]),
            "REASON    PACKETS\ndenied    5\nbad_ttl   3\nno_route  3\n"
        );
    }

    #[test]
    fn they_are_shown_as_json_too() {
        let drops: Value = serde_json::from_str(&shown(Part::Drops, &["--json"])).unwrap();
        assert_eq!(drops[0], json!({ "reason": "denied", "packets": 5 }));
        let ports: Value = serde_json::from_str(&shown(Part::Ports, &["--json"])).unwrap();
        assert_eq!(ports[0]["routers"][1]["answers"], false);
    }
}
