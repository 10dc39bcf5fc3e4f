//! Instructions a packet of the pure dataplane, counted by callgrind: the figure that noise can't touch.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use bench_report::{Report, Row};

/// The function of the example in which callgrind collects.
const MEASURED: &str = "*measured*";

/// Adds a row for each protocol and way.
pub(crate) fn rows(example: &Path, directory: &Path, report: &mut Report) -> Result<()> {
    for (protocol, ways) in [
        ("udp", &["in", "both", "new"][..]),
        ("tcp", &["in", "both", "new", "whole"]),
    ] {
        for way in ways {
            let out = directory.join(format!("callgrind-{protocol}-{way}"));
            let run = Command::new("valgrind")
                .arg("--tool=callgrind")
                .arg(format!("--callgrind-out-file={}", out.display()))
                .arg(format!("--toggle-collect={MEASURED}"))
                .arg(example)
                .args([protocol, "1000", *way])
                .output()
                .context("valgrind (Debian package valgrind)")?;
            if !run.status.success() {
                bail!("valgrind: {}", String::from_utf8_lossy(&run.stderr));
            }
            let packets: f64 = String::from_utf8_lossy(&run.stdout)
                .split_whitespace()
                .next()
                .and_then(|count| count.parse().ok())
                .context("the example says how many packets it forwarded")?;
            let text = std::fs::read_to_string(&out)?;
            let total: f64 = text
                .lines()
                .find_map(|line| line.strip_prefix("totals:"))
                .and_then(|count| count.trim().parse().ok())
                .context("callgrind says how many instructions it counted")?;
            let way = match *way {
                "in" => "client to target",
                "both" => "both ways",
                "new" => "first packets of new flows",
                _ => "connections, SYN to FIN, 7 packets",
            };
            let what = format!("dataplane, {}, {way}", protocol.to_uppercase());
            report.add(Row::new(what, total / packets, "instructions/packet"));
        }
    }
    Ok(())
}
