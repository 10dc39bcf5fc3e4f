//! What a bench found out: rows of figures beside their yardsticks, as a table for people and as JSON for whatever compares runs.
//!
//! Every bench of this workspace ends in a [`Report`]: `report.print()`, then `report.write("loadtests/results/l4.json")`. The program of this
//! crate puts such a file into `loadtests/RESULTS.md` ([`page`]). What benches ask before they begin is in [`needs`], where they ran in [`machine`],
//! where the time of a row went in [`profile`].
#![forbid(unsafe_code)]

pub mod machine;
pub mod needs;
pub mod page;
pub mod profile;

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Which bench.
    pub bench: String,
    /// The machine and what else a reader must know to judge the figures.
    pub circumstances: Vec<String>,
    /// What went wrong. The run is incomplete, or its figures mean nothing, unless this is empty.
    #[serde(default)]
    pub failures: Vec<String>,
    /// What was measured.
    pub rows: Vec<Row>,
    /// Where the time went, for rows that were looked into.
    #[serde(default)]
    pub profiles: Vec<Profile>,
}

/// Where the time of one row went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// The row's `what`.
    pub what: String,
    /// How it was taken.
    pub how: String,
    /// Samples taken.
    pub samples: u64,
    /// The functions with most of them, most first.
    pub functions: Vec<Share>,
    /// The lines of source with most of them, most first.
    pub lines: Vec<Share>,
}

/// What has how much of the time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// A function, or a file and a line in it.
    pub name: String,
    /// Of the samples.
    pub percent: f64,
}

/// One figure.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
    /// Whether it was reached; none without a `reach`, and none where too many windows were disturbed to say.
    pub met: Option<bool>,
    /// How quiet it was, where that was watched.
    pub windows: Option<Windows>,
    /// Least and greatest of what `ratio` (or, without one, `value`) is the median of.
    pub spread: Option<(f64, f64)>,
    /// What else there is to say: losses, above all.
    pub note: String,
    /// Where there are several yardsticks, each of them, the best first: `yardstick`, `ratio` and `spread` are that one's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sides: Vec<Side>,
    /// What the figures are the medians of, in the order in which it was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Series>,
}

/// One of several yardsticks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Who.
    pub name: String,
    /// Theirs.
    pub value: f64,
    /// The median of ours by theirs; none if theirs is nothing.
    pub ratio: Option<f64>,
}

/// What was measured window by window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Whose, or of what.
    pub name: String,
    /// One a window.
    pub values: Vec<f64>,
}

/// Which of two figures is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Costs, times.
    Lower,
    /// Rates.
    Higher,
}

/// The windows of time that a figure is the median of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// Whose measurement was kept.
    pub kept: u32,
    /// Of these, in how many others had the CPU for so long that the figure may be theirs.
    pub disturbed: u32,
    /// And in how many the yardstick waited for the generator most of the time, so that it could have done more.
    #[serde(default)]
    pub held_back: u32,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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

    /// Of windows of several sides that took turns, ours the first: each of ours is paired with the one of another side in the same turn, and
    /// the yardstick is the other side with the best median.
    pub fn of_sides(
        what: impl Into<String>,
        unit: impl Into<String>,
        better: Better,
        samples: Vec<Series>,
    ) -> Row {
        let Some((ours, others)) = samples.split_first() else {
            return Row::new(what, f64::NAN, unit);
        };
        let ratios = |theirs: &Series| {
            let pairs = ours.values.iter().zip(&theirs.values);
            let ratios = pairs.map(|(ours, theirs)| ours / theirs);
            ratios.filter(|ratio| ratio.is_finite()).collect::<Vec<_>>()
        };
        let mut sides: Vec<(Side, Vec<f64>)> = others
            .iter()
            .map(|theirs| {
                let ratios = ratios(theirs);
                let side = Side {
                    name: theirs.name.clone(),
                    value: median(&theirs.values),
                    ratio: (!ratios.is_empty()).then(|| median(&ratios)),
                };
                (side, ratios)
            })
            .collect();
        sides.sort_by(|(a, _), (b, _)| match better {
            Better::Lower => a.value.total_cmp(&b.value),
            Better::Higher => b.value.total_cmp(&a.value),
        });
        let mut row = Row::of(what, &ours.values, unit);
        if let Some((best, ratios)) = sides.first() {
            row.yardstick = Some(best.value);
            row.ratio = best.ratio;
            row.spread = spread(ratios);
        }
        row.sides = sides.into_iter().map(|(side, _)| side).collect();
        row.samples = samples;
        row
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
        self.judge();
        self
    }

    /// Of so many windows: if more than a quarter was disturbed, nothing is said about what was reached.
    #[must_use]
    pub fn windows(mut self, windows: Windows) -> Row {
        self.windows = Some(windows);
        self.judge();
        self
    }

    fn judge(&mut self) {
        let figure = self.ratio.unwrap_or(self.value);
        let quiet = self.windows.is_none_or(Windows::is_quiet);
        let reach = self.reach.filter(|_| quiet && figure.is_finite());
        let flattered = self.windows.is_some_and(Windows::flatter);
        self.met = reach
            .map(|reach| reach.is_met(figure))
            .filter(|met| !(*met && flattered));
    }
}

impl Windows {
    /// Whether a figure can be judged by them.
    pub fn is_quiet(self) -> bool {
        self.disturbed.saturating_mul(4) <= self.kept
    }

    /// Whether the yardstick was held back too often for a ratio that is good enough to say anything.
    pub fn flatter(self) -> bool {
        self.held_back.saturating_mul(4) > self.kept
    }

    /// Counts one more.
    pub fn add(&mut self, disturbed: bool) {
        self.kept += 1;
        self.disturbed += u32::from(disturbed);
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
            failures: Vec::new(),
            rows: Vec::new(),
            profiles: Vec::new(),
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

    /// Prints the circumstances, the table and the failures.
    pub fn print(&self) {
        for line in &self.circumstances {
            println!("{line}");
        }
        println!("\n{}", self.table());
        for failure in &self.failures {
            println!("FAILED: {failure}");
        }
    }

    /// Reads what [`Report::write`] wrote.
    ///
    /// # Errors
    /// When the file can't be read or isn't a report.
    pub fn read(path: &Path) -> io::Result<Report> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
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
    let (value, ratio) = match row.ratio {
        Some(ratio) => (number(row.value), judged(row, ratio)),
        None => (judged(row, row.value), String::new()),
    };
    [
        row.what.clone(),
        value,
        row.unit.clone(),
        yardsticks(row),
        ratio,
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
            None => match (row.reach, row.windows) {
                (Some(_), Some(windows)) if !windows.is_quiet() => {
                    format!("? {} of {} disturbed", windows.disturbed, windows.kept)
                }
                (Some(_), Some(windows)) if windows.flatter() => {
                    format!(
                        "? yardstick held back in {} of {}",
                        windows.held_back, windows.kept
                    )
                }
                (Some(_), _) => "?".into(),
                (None, _) => String::new(),
            },
        },
        row.note.clone(),
    ]
}

/// With more than one, each with its name, the best first.
fn yardsticks(row: &Row) -> String {
    if row.sides.is_empty() {
        return row.yardstick.map(number).unwrap_or_default();
    }
    let sides = row.sides.iter();
    let said: Vec<String> = sides
        .map(|side| format!("{} {}", side.name, number(side.value)))
        .collect();
    said.join(", ")
}

/// The figure that `met` is about: where it missed its goal by less than is shown of a [`number`], with as many more decimals as tell the two apart.
fn judged(row: &Row, figure: f64) -> String {
    let goal = match row.reach {
        Some(Reach::AtLeast(goal) | Reach::AtMost(goal)) if row.met == Some(false) => goal,
        _ => return number(figure),
    };
    // Beyond that many a double has no more to tell, unless it is tiny.
    (decimals(figure)..=17)
        .map(|decimals| [figure, goal].map(|value| format!("{value:.decimals$}")))
        .find(|[figure, goal]| figure != goal)
        .map_or_else(|| number(figure), |[figure, _]| figure)
}

/// Three figures that count, and whole numbers in full.
fn number(value: f64) -> String {
    format!("{value:.0$}", decimals(value))
}

fn decimals(value: f64) -> usize {
    match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
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
    fn of_several_yardsticks_the_better_one_counts() {
        let series = |name: &str, values: &[f64]| Series {
            name: name.into(),
            values: values.to_vec(),
        };
        let samples = vec![
            series("weir", &[8.0, 18.0, 9.0]),
            series("nginx", &[10.0, 20.0, 10.0]),
            series("haproxy", &[16.0, 36.0, 15.0]),
        ];
        let costs = Row::of_sides("x", "us", Better::Lower, samples.clone());
        assert_eq!((costs.value, costs.yardstick), (9.0, Some(10.0)));
        assert_eq!((costs.ratio, costs.spread), (Some(0.9), Some((0.8, 0.9))));
        assert_eq!(cells(&costs)[3], "nginx 10.0, haproxy 16.0");
        let rates = Row::of_sides("x", "1/s", Better::Higher, samples).reach(Reach::AtLeast(1.0));
        assert_eq!((rates.ratio, rates.met), (Some(0.5), Some(false)));
        assert_eq!(cells(&rates)[3], "haproxy 16.0, nginx 10.0");
        assert_eq!(rates.sides[1].ratio, Some(0.9));
        let free = vec![series("weir", &[8.0]), series("nginx", &[0.0])];
        let row = Row::of_sides("x", "B", Better::Lower, free);
        assert_eq!((row.yardstick, row.ratio), (Some(0.0), None));
        // What JSON has no number for would not come back.
        let text = serde_json::to_string(&row).unwrap();
        assert!(serde_json::from_str::<Row>(&text).is_ok(), "{text}");
        assert!(
            Row::of_sides("x", "us", Better::Lower, Vec::new())
                .ratio
                .is_none()
        );
    }

    #[test]
    fn the_page_says_what_each_column_is() {
        let page = include_str!("../../RESULTS.md");
        let introduction = page.split("\n## ").next().unwrap();
        for column in HEAD {
            let named = format!("*{column}*");
            assert!(introduction.contains(&named), "{named} is not explained");
        }
    }

    #[test]
    fn without_a_ratio_the_value_is_judged() {
        let row = Row::new("bytes", 161.0, "B").reach(Reach::AtMost(160.0));
        assert_eq!(row.met, Some(false));
        assert_eq!(median(&[1.0, 2.0, 4.0, 8.0]), 3.0);
    }

    #[test]
    fn a_figure_that_missed_its_goal_by_a_hair_does_not_look_like_it() {
        let ratio = |ours: f64, reach| {
            let row = Row::of_pairs("x", &[(ours, 1.0)], "Mpps").reach(reach);
            cells(&row)[4..=7].join(" ")
        };
        let least = Reach::AtLeast(0.7);
        assert_eq!(ratio(0.69949, least), "0.699 0.70 to 0.70 >= 0.70 NO");
        assert_eq!(ratio(0.69996, least), "0.69996 0.70 to 0.70 >= 0.70 NO");
        assert_eq!(ratio(0.65432, least), "0.65 0.65 to 0.65 >= 0.70 NO");
        assert_eq!(ratio(0.70444, least), "0.70 0.70 to 0.70 >= 0.70 yes");
        let most = Reach::AtMost(0.7);
        assert_eq!(ratio(0.7001, most), "0.7001 0.70 to 0.70 <= 0.70 NO");
        let value = |value, reach| cells(&Row::new("x", value, "1/s").reach(reach))[1].clone();
        assert_eq!(value(999_999.6, Reach::AtLeast(1e6)), "999999.6");
        assert_eq!(value(160.2, Reach::AtMost(160.0)), "160.2");
        assert_eq!(value(99.96, Reach::AtLeast(100.0)), "99.96");
        assert_eq!(value(999_999.6, Reach::AtMost(1e6)), "1000000");
        // The value of a row that is judged by its ratio is no matter of the goal.
        let row = Row::of_pairs("x", &[(0.699, 1.0)], "Mpps").reach(least);
        assert_eq!(cells(&row)[1], "0.70");
    }

    #[test]
    fn a_yardstick_that_was_held_back_proves_no_success_but_a_failure() {
        let of = |ours| {
            let windows = Windows {
                kept: 8,
                disturbed: 0,
                held_back: 3,
            };
            Row::of_pairs("x", &[(ours, 10.0)], "Mpps")
                .reach(Reach::AtLeast(0.7))
                .windows(windows)
        };
        assert_eq!(of(9.0).met, None);
        assert_eq!(cells(&of(9.0))[7], "? yardstick held back in 3 of 8");
        assert_eq!(of(6.0).met, Some(false));
    }

    #[test]
    fn a_row_of_mostly_disturbed_windows_is_not_judged() {
        let of = |kept, disturbed| {
            let windows = Windows {
                kept,
                disturbed,
                held_back: 0,
            };
            Row::of_pairs("x", &[(9.0, 10.0)], "Mpps")
                .reach(Reach::AtLeast(0.7))
                .windows(windows)
        };
        assert_eq!(of(8, 2).met, Some(true), "a quarter is no more than that");
        let unclear = of(8, 3);
        assert_eq!(unclear.met, None);
        assert_eq!(cells(&unclear)[7], "? 3 of 8 disturbed");
        // In whatever order it is said, and whichever way it would have been judged.
        let windows = unclear.windows.unwrap();
        let row = Row::new("x", 1.0, "1/s").windows(windows);
        assert_eq!(row.reach(Reach::AtLeast(2.0)).met, None);
        let mut report = Report::new("test");
        report.rows.push(unclear);
        assert!(report.all_met(), "what can't be told is not a miss");
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains("\"met\":null"), "{text}");
    }

    #[test]
    fn a_figure_that_is_none_is_not_judged() {
        let row = Row::of("x", &[], "1/s").reach(Reach::AtLeast(0.0));
        assert_eq!((row.met, cells(&row)[7].as_str()), (None, "?"));
    }

    #[test]
    fn a_report_comes_back_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/rows.json");
        let mut report = Report::new("test");
        report.failures.push("the last part".into());
        report.rows.push(Row::of("a", &[1.0, 3.0], "Mpps"));
        report.write(&path).unwrap();
        let back = Report::read(&path).unwrap();
        assert_eq!(back.failures, report.failures);
        assert_eq!(back.table(), report.table());
        // As files of earlier runs are.
        std::fs::write(&path, r#"{"bench":"b","circumstances":[],"rows":[]}"#).unwrap();
        assert!(Report::read(&path).unwrap().profiles.is_empty());
        std::fs::write(&path, "{}").unwrap();
        assert!(Report::read(&path).is_err());
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
