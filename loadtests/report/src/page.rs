//! A report as a part of `loadtests/RESULTS.md`: what stands between two marks there is replaced by it, the words around them are people's.

use std::fmt::Write as _;

use crate::{Profile, Report, Share};

/// Shares below this many percent aren't shown.
const SMALL: f64 = 0.5;

/// The page with the report in its place.
///
/// # Errors
/// When the page doesn't have the two marks `<!-- NAME: begin -->` and `<!-- NAME: end -->` of this bench, in this order.
pub fn update(page: &str, report: &Report) -> Result<String, String> {
    let (begin, end) = (mark(&report.bench, "begin"), mark(&report.bench, "end"));
    let missing = |mark: &str| format!("the page has no line \"{mark}\" where it is expected");
    let (before, rest) = page.split_once(&begin).ok_or_else(|| missing(&begin))?;
    let (_, after) = rest.split_once(&end).ok_or_else(|| missing(&end))?;
    Ok(format!("{before}{begin}\n{}{end}{after}", render(report)))
}

fn mark(bench: &str, which: &str) -> String {
    format!("<!-- {bench}: {which} -->")
}

// Writing to a string can't fail.
fn render(report: &Report) -> String {
    let mut text = String::from("\n");
    for line in &report.circumstances {
        let _ = writeln!(text, "- {line}");
    }
    for failure in &report.failures {
        let _ = writeln!(text, "- **Failed:** {failure}");
    }
    let _ = writeln!(text, "\n{}", report.table());
    for profile in &report.profiles {
        show(&mut text, profile);
    }
    text
}

fn show(text: &mut String, profile: &Profile) {
    let _ = writeln!(
        text,
        "**{}**: where the time goes ({}, {} samples)\n\n| % | function | | % | line |\n|---|---|---|---|---|",
        profile.what, profile.how, profile.samples
    );
    let cell = |shares: &[Share], index: usize| {
        let share = shares.get(index).filter(|share| share.percent >= SMALL);
        share.map(|share| format!("{:.1} | `{}`", share.percent, share.name))
    };
    for index in 0..profile.functions.len().max(profile.lines.len()) {
        let (function, line) = (cell(&profile.functions, index), cell(&profile.lines, index));
        if function.is_none() && line.is_none() {
            break;
        }
        let empty = || " | ".to_owned();
        let _ = writeln!(
            text,
            "| {} | | {} |",
            function.unwrap_or_else(empty),
            line.unwrap_or_else(empty)
        );
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Row;

    const PAGE: &str = "# Found\n\n<!-- l4: begin -->\nold rows\n<!-- l4: end -->\n\nWhy: words.\n";

    fn report() -> Report {
        let mut report = Report::new("l4");
        report.circumstances.push("commit abc".into());
        report.rows.push(Row::new("a", 2.0, "Mpps"));
        let share = |name: &str, percent| Share {
            name: name.into(),
            percent,
        };
        report.profiles.push(Profile {
            what: "a".into(),
            how: "perf".into(),
            samples: 7,
            functions: vec![share("f", 61.25), share("g", 0.1)],
            lines: vec![share("f.rs:1", 9.0), share("f.rs:2", 8.0)],
        });
        report
    }

    #[test]
    fn a_report_takes_the_place_of_the_one_before_and_leaves_the_words() {
        let once = update(PAGE, &report()).unwrap();
        let expected = "# Found\n\n<!-- l4: begin -->\n\n- commit abc\n\n\
            | what | value | unit | yardstick | ratio | spread | reach | met | note |\n\
            |------|-------|------|-----------|-------|--------|-------|-----|------|\n\
            | a    | 2.00  | Mpps |           |       |        |       |     |      |\n\n\
            **a**: where the time goes (perf, 7 samples)\n\n| % | function | | % | line |\n|---|---|---|---|---|\n\
            | 61.2 | `f` | | 9.0 | `f.rs:1` |\n|  |  | | 8.0 | `f.rs:2` |\n\n\
            <!-- l4: end -->\n\nWhy: words.\n";
        assert_eq!(once, expected);
        assert_eq!(update(&once, &report()).unwrap(), once);
    }

    #[test]
    fn what_failed_stands_on_the_page() {
        let mut report = report();
        report.failures.push("memory: no gateway".into());
        let page = update(PAGE, &report).unwrap();
        assert!(
            page.contains("- **Failed:** memory: no gateway\n"),
            "{page}"
        );
    }

    #[test]
    fn a_page_without_a_place_for_it_is_a_mistake() {
        for page in [
            "",
            "<!-- l4: begin -->",
            "<!-- l4: end --><!-- l4: begin -->",
        ] {
            assert!(update(page, &report()).is_err(), "{page}");
        }
    }
}
