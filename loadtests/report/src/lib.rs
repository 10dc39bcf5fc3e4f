//! What a bench found out: rows of figures beside their yardsticks, as a table for people and as JSON for whatever compares runs.
//!
//! Every bench of this workspace ends in a [`Report`]: `report.print()`, then `report.write("loadtests/results/l4.json")`.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::Serialize;

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Which bench.
    pub bench: String,
    /// The machine and what else a reader must know to judge the figures.
    pub circumstances: Vec<String>,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// One figure.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// Ours: the median where there were several measurements.
    pub value: f64,
    /// The unit of `value` and `yardstick`.
    pub unit: String,
    /// The same of what we measure ourselves against, in the same run.
    pub yardstick: Option<f64>,
    /// `value / yardstick`; over paired measurements the median of the pairs' ratios, not the ratio of the medians.
    pub ratio: Option<f64>,
    /// What DESIGN or the issue wants: of the ratio, or of the value where there is no yardstick.
    pub reach: Option<Reach>,
    /// Whether it was reached; none without a `reach`.
    pub met: Option<bool>,
    /// Least and greatest of what `ratio` (or, without one, `value`) is the median of.
    pub spread: Option<(f64, f64)>,
    /// What else there is to say: losses, above all.
    pub note: String,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Row {
    /// A figure without anything beside it.
    pub fn new(what: impl Into<String>, value: f64, unit: impl Into<String>) -> Row {
        Row {
            what: what.into(),
            value,
            unit: unit.into(),
            ..Row::default()
        }
    }

    /// Of several measurements: their median, with the spread.
    pub fn of(what: impl Into<String>, values: &[f64], unit: impl Into<String>) -> Row {
        Row {
            spread: spread(values),
            ..Row::new(what, median(values), unit)
        }
    }

    /// Of pairs (ours, yardstick) measured right after one another, so that both had the same machine.
    pub fn of_pairs(what: impl Into<String>, pairs: &[(f64, f64)], unit: impl Into<String>) -> Row {
        let all = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).collect::<Vec<_>>();
        let ratios = all(|(ours, yardstick)| ours / yardstick);
        Row {
            yardstick: Some(median(&all(|pair| pair.1))),
            ratio: Some(median(&ratios)),
            spread: spread(&ratios),
            ..Row::new(what, median(&all(|pair| pair.0)), unit)
        }
    }

    /// With a remark.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Row {
        self.note = note.into();
        self
    }

    /// Judged: by the ratio, or by the value where there is none.
    #[must_use]
    pub fn reach(mut self, reach: Reach) -> Row {
        self.reach = Some(reach);
        self.met = Some(reach.is_met(self.ratio.unwrap_or(self.value)));
        self
    }
}

impl Reach {
    fn is_met(self, value: f64) -> bool {
        match self {
            Reach::AtLeast(least) => value >= least,
            Reach::AtMost(most) => value <= most,
        }
    }
}

impl Report {
    /// An empty one.
    pub fn new(bench: impl Into<String>) -> Report {
        Report {
            bench: bench.into(),
            circumstances: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, and prints it at once: a bench takes minutes.
    pub fn add(&mut self, row: Row) {
        eprintln!("  {}: {} {}", row.what, number(row.value), row.unit);
        self.rows.push(row);
    }

    /// Whether every row that had to reach something did.
    pub fn all_met(&self) -> bool {
        self.rows.iter().all(|row| row.met != Some(false))
    }

    /// The table, aligned, also readable as Markdown.
    pub fn table(&self) -> String {
        let mut lines = vec![HEAD.map(str::to_owned)];
        lines.extend(self.rows.iter().map(cells));
        let width = |column: usize| {
            let cells = lines.iter().map(|line| line[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: [usize; HEAD.len()] = std::array::from_fn(width);
        let mut table = String::new();
        for (index, line) in lines.iter().enumerate() {
            for (cell, width) in line.iter().zip(widths) {
                // Writing to a string can't fail.
                let _ = write!(table, "| {cell:<width$} ");
            }
            table.push_str("|\n");
            if index == 0 {
                for width in widths {
                    let _ = write!(table, "|{:-<1$}", "", width + 2);
                }
                table.push_str("|\n");
            }
        }
        table
    }

    /// Prints the circumstances and the table.
    pub fn print(&self) {
        for line in &self.circumstances {
            println!("{line}");
        }
        println!("\n{}", self.table());
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text)
    }
}

const HEAD: [&str; 9] = [
    "what",
    "value",
    "unit",
    "yardstick",
    "ratio",
    "spread",
    "reach",
    "met",
    "note",
];

fn cells(row: &Row) -> [String; HEAD.len()] {
    let optional = |value: Option<f64>| value.map(number).unwrap_or_default();
    [
        row.what.clone(),
        number(row.value),
        row.unit.clone(),
        optional(row.yardstick),
        optional(row.ratio),
        row.spread
            .map(|(least, most)| format!("{} to {}", number(least), number(most)))
            .unwrap_or_default(),
        match row.reach {
            Some(Reach::AtLeast(least)) => format!(">= {}", number(least)),
            Some(Reach::AtMost(most)) => format!("<= {}", number(most)),
            None => String::new(),
        },
        match row.met {
            Some(true) => "yes".into(),
            Some(false) => "NO".into(),
            None => String::new(),
        },
        row.note.clone(),
    ]
}

/// Three figures that count, and whole numbers in full.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 100.0 {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// The middle of the values; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let least = values.iter().copied().min_by(f64::total_cmp)?;
    let most = values.iter().copied().max_by(f64::total_cmp)?;
    Some((least, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_judged_by_the_median_of_their_ratios() {
        // The machine slowed down threefold for the second pair: the ratio of medians would say 0.35.
        let pairs = [(6.0, 10.0), (2.0, 3.0), (7.0, 20.0)];
        let row = Row::of_pairs("x", &pairs, "Mpps").reach(Reach::AtLeast(0.55));
        assert_eq!((row.value, row.yardstick), (6.0, Some(10.0)));
        assert_eq!((row.ratio, row.met), (Some(0.6), Some(true)));
        assert_eq!(row.spread, Some((0.35, 2.0 / 3.0)));
        let row = row.reach(Reach::AtLeast(0.7));
        assert_eq!(row.met, Some(false));
    }

    #[test]
    fn without_a_ratio_the_value_is_judged() {
        let row = Row::new("bytes", 161.0, "B").reach(Reach::AtMost(160.0));
        assert_eq!(row.met, Some(false));
        assert_eq!(median(&[1.0, 2.0, 4.0, 8.0]), 3.0);
    }

    #[test]
    fn the_table_lines_its_columns_up() {
        let mut report = Report::new("test");
        report.rows.push(Row::new("a", 1.0, "Mpps"));
        report
            .rows
            .push(Row::new("longer", 12345.6, "B").note("lost 3"));
        let table = report.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()));
        assert!(lines[3].contains("| longer | 12346 | B"), "{table}");
    }
}
