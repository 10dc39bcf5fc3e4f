//! `bench-report ROWS.json PAGE.md`: puts the rows of a bench's last run into their place on the page.
#![forbid(unsafe_code)]

use std::path::Path;

use anyhow::{Context, Result, bail};
use bench_report::{Report, page};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rows, target] = arguments.as_slice() else {
        bail!("expected two arguments: the rows (JSON) and the page (Markdown)");
    };
    let report = Report::read(Path::new(rows)).with_context(|| rows.clone())?;
    let text = std::fs::read_to_string(target).with_context(|| target.clone())?;
    let text = page::update(&text, &report).map_err(anyhow::Error::msg)?;
    std::fs::write(target, text).with_context(|| target.clone())?;
    println!("{target}: {} rows of {}", report.rows.len(), report.bench);
    Ok(())
}
