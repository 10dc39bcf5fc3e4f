//! `check` of every binary: all mistakes at once, each with its place and what to write instead.

use std::fs;

use anyhow::{Context, Result, ensure};
use demo::chain::Chain;
use e2e::run_binary;

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    ("check_reports_every_mistake_of_an_l4_file", l4),
    ("check_reports_every_mistake_of_an_l7_file", l7),
    ("check_accepts_the_examples_that_are_shipped", examples),
    ("a_file_that_is_not_there_or_not_toml_is_named", unreadable),
];

/// Applies `changes` to a good file of the chain, and demands exit code 1 and every one of `wanted` in the output.
fn mistakes(
    chain: &Chain,
    binary: &str,
    good: &str,
    changes: &[(&str, &str)],
    wanted: &[&str],
) -> Result<()> {
    let mut text = fs::read_to_string(chain.lab().config(good))?;
    for (from, to) in changes {
        ensure!(
            text.contains(from),
            "{good} has no {from}: the test is out of date"
        );
        text = text.replacen(from, to, 1);
    }
    let path = chain.lab().config(&format!("broken-{good}"));
    fs::write(&path, text)?;
    let output = run_binary(binary, &["check", "--config", &path.display().to_string()])?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(
        output.status.code() == Some(1),
        "{binary} check ended with {}:\n{said}",
        output.status
    );
    ensure!(
        said.contains(&format!("broken-{good}:")),
        "the file and line are missing:\n{said}"
    );
    for part in wanted {
        ensure!(
            said.contains(part),
            "{binary} check does not mention {part:?}:\n{said}"
        );
    }
    Ok(())
}

fn l4(chain: &mut Chain) -> Result<()> {
    let changes = [
        ("gateway = \"10.2.0.1\"", "gatewya = \"10.2.0.1\""),
        ("scheduler = \"rr\"", "scheduler = \"fastest\""),
        ("deadline = \"3s\"", "deadline = 3"),
        ("hold_time = \"3s\"", "hold_time = \"1s\""),
    ];
    let wanted = [
        "gatewya",
        "did you mean",
        "fastest",
        "deadline",
        "\"3s\"",
        "hold_time",
    ];
    mistakes(chain, "l4-gateway", "l4-1.toml", &changes, &wanted)
}

fn l7(chain: &mut Chain) -> Result<()> {
    let changes = [
        ("upstream = \"shop\"", "upstream = \"shpo\""),
        ("balance = \"round_robin\"", "balance = \"random\""),
        ("grace = \"2s\"", "grase = \"2s\""),
        ("regex = \"^/item/[0-9]+$\"", "regex = \"^/item/[0-9+$\""),
    ];
    let wanted = ["shpo", "random", "grase", "did you mean", "regex"];
    mistakes(chain, "l7-proxy", "l7-1.toml", &changes, &wanted)
}

fn examples(chain: &mut Chain) -> Result<()> {
    let directory = demo::k6::repository().join("deploy/examples");
    let tls = chain.lab().certs();
    for binary in ["l4-gateway", "l7-proxy", "bgp-ctl", "health"] {
        let example = directory.join(format!("{binary}.toml"));
        let text = fs::read_to_string(&example)
            .with_context(|| format!("reading {}", example.display()))?;
        // The example's certificates are the operator's; any that are there will do.
        let own = |line: &str| match line.split_once(" = \"/etc/weir/tls/") {
            Some((key, file)) => {
                let kind = if file.trim_end_matches('"').ends_with(".key") {
                    "key"
                } else {
                    "pem"
                };
                format!(
                    "{key} = \"{}\"\n",
                    tls.join(format!("shop.{kind}")).display()
                )
            }
            None => format!("{line}\n"),
        };
        let text: String = text.lines().map(own).collect();
        let path = chain.lab().config(&format!("example-{binary}.toml"));
        fs::write(&path, text)?;
        let output = run_binary(binary, &["check", "--config", &path.display().to_string()])?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(
            output.status.success(),
            "{binary} refuses {}:\n{said}",
            example.display()
        );
    }
    Ok(())
}

fn unreadable(chain: &mut Chain) -> Result<()> {
    let broken = chain.lab().config("not.toml");
    fs::write(&broken, "[node\nid = ")?;
    let missing = chain.lab().config("missing.toml");
    for binary in ["l4-gateway", "l7-proxy", "bgp-ctl", "health"] {
        for path in [&broken, &missing] {
            let output = run_binary(binary, &["check", "--config", &path.display().to_string()])?;
            let said =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            ensure!(
                output.status.code() == Some(1),
                "{binary} check ended with {}:\n{said}",
                output.status
            );
            ensure!(
                said.contains(&path.display().to_string()),
                "{binary} does not name the file:\n{said}"
            );
        }
    }
    Ok(())
}
