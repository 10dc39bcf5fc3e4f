//! System calls and instructions of a request, counted by strace and callgrind: figures that noise can't touch. Each proxy runs twice, for a number
//! of requests and for three times as many, so that its start, its end and its first requests cancel out. Of instructions, the start isn't counted at
//! all: l7-proxy gathers entropy and calibrates a clock until it is satisfied, which takes some millions more or fewer each time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use bench_report::{Better, Profile, Reach, Row, Series, Share};

use crate::bench::{Bench, of_series};
use crate::certificates::Key;
use crate::load::{Exchange, Until};
use crate::rows::{H2, PLAIN, TLS, Way};
use crate::server::{Server, Setup, Side};

/// How often each name was met, or how many instructions it took.
type Counts = BTreeMap<String, f64>;

/// Names shown of a count.
const SHOWN: usize = 32;
/// Bytes of a name: generic functions of Rust have hundreds.
const NAME: usize = 110;

pub(crate) fn system_calls(bench: &mut Bench) -> Result<()> {
    let counted = of_all(
        bench,
        &PLAIN,
        |out| {
            let out = format!("--output={out}");
            ["strace", "-f", "-c", "-U", "calls,name", out.as_str()]
                .map(str::to_owned)
                .to_vec()
        },
        |_| Ok(()),
        read_strace,
    )?;
    let what = "small, plain h1, system calls per request";
    let mut row = of_counts(what, "calls", &counted);
    // The goal is for the number itself.
    row.ratio = None;
    let row = bench.add(row.reach(Reach::AtMost(4.1)));
    for (side, counts) in &counted {
        let how = format!("{}, by strace, per request", side.name());
        let profile = profile(&row, counts, &how, 2 * bench.pace.counted);
        bench.report.profiles.push(profile);
    }
    Ok(())
}

pub(crate) fn instructions(bench: &mut Bench) -> Result<()> {
    let ways = [&PLAIN, &TLS, &H2];
    // Each takes the better part of a minute.
    let ways = if bench.pace.is_smoke {
        &ways[..1]
    } else {
        &ways[..]
    };
    for way in ways {
        let counted = of_all(
            bench,
            way,
            |out| {
                let out = format!("--callgrind-out-file={out}");
                let tool = "--tool=callgrind";
                ["valgrind", "-q", tool, "--instr-atstart=no", out.as_str()]
                    .map(str::to_owned)
                    .to_vec()
            },
            begin_to_count,
            read_callgrind,
        )?;
        let what = format!(
            "small, {}, instructions per request in user space",
            way.name
        );
        let mut row = of_counts(&what, "instructions", &counted);
        if way.name != PLAIN.name {
            // What AES and elliptic curves are computed with depends on it.
            row.note = "valgrind knows no AVX-512: other code for AES than otherwise runs".into();
        }
        let row = bench.add(row);
        if let Some((Side::Weir(_), counts)) = counted.first() {
            let how = "callgrind, per request, what a function calls left out";
            let profile = profile(&row, counts, how, 2 * bench.pace.counted);
            bench.report.profiles.push(profile);
        }
    }
    Ok(())
}

/// Counts for one request of each side.
fn of_all(
    bench: &mut Bench,
    way: &Way,
    tool: impl Fn(&str) -> Vec<String>,
    begin: impl Fn(&Server) -> Result<()>,
    read: impl Fn(&str) -> Result<Counts>,
) -> Result<Vec<(Side, Counts)>> {
    let out = bench.place.directory.join("counts");
    let mut all = Vec::new();
    for side in bench.sides.clone() {
        let few = if bench.pace.is_smoke {
            0
        } else {
            bench.pace.counted
        };
        let many = few + 2 * bench.pace.counted;
        let mut counts = Counts::new();
        for (requests, sign) in [(few, -1.0), (many, 1.0)] {
            if requests == 0 {
                continue;
            }
            let under = tool(&out.display().to_string());
            run(bench, &side, way, &under, &begin, requests).with_context(|| side.name())?;
            let counted = read(&output_of(&out)?).with_context(|| side.name())?;
            for (name, count) in counted {
                let each = sign * count / (many - few) as f64;
                *counts.entry(name).or_default() += each;
            }
        }
        all.push((side, counts));
    }
    Ok(all)
}

/// Has callgrind count from now on.
fn begin_to_count(server: &Server) -> Result<()> {
    let mut command = Command::new("callgrind_control");
    command.arg("--instr=on").arg(server.process()?.to_string());
    let said = command.output().with_context(|| format!("{command:?}"))?;
    let text = String::from_utf8_lossy(&said.stdout);
    ensure!(
        said.status.success() && text.contains("OK"),
        "{command:?}: {text}{}",
        String::from_utf8_lossy(&said.stderr)
    );
    Ok(())
}

fn run(
    bench: &mut Bench,
    side: &Side,
    way: &Way,
    under: &[String],
    begin: &impl Fn(&Server) -> Result<()>,
    requests: u64,
) -> Result<()> {
    let certificate = bench.certificate(Key::Ecdsa)?;
    let setup = Setup {
        certificate: &certificate,
        routes: 0,
        under,
    };
    let server = bench.server(side, setup)?;
    begin(&server)?;
    let mut clients = way.clients(bench, &server, vec![Exchange::small()])?;
    let until = Until::Count(requests);
    bench.load.play(&mut clients, way.connections(), until)?;
    // Before its clients leave: what that takes is part of both runs.
    bench.load.close(&mut clients);
    server.stop()
}

fn output_of(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn of_counts(what: &str, unit: &str, counted: &[(Side, Counts)]) -> Row {
    let series = counted.iter().map(|(side, counts)| Series {
        name: side.name().into(),
        values: vec![counts.values().sum()],
    });
    let mut row = of_series(what.into(), unit, Better::Lower, series.collect());
    row.spread = None;
    row
}

/// Where counts came from, most first, each with its number for one request.
fn profile(row: &Row, counts: &Counts, how: &str, requests: u64) -> Profile {
    let all: f64 = counts.values().sum();
    let mut functions: Vec<(&String, &f64)> = counts.iter().collect();
    functions.sort_by(|a, b| b.1.total_cmp(a.1));
    let share = |(name, count): (&String, &f64)| Share {
        name: if *count < 100.0 {
            format!("{count:.2} {name}")
        } else {
            format!("{count:.0} {name}")
        },
        percent: (count / all * 1000.0).round() / 10.0,
    };
    Profile {
        what: row.what.clone(),
        how: how.into(),
        samples: requests,
        functions: functions.into_iter().take(SHOWN).map(share).collect(),
        lines: Vec::new(),
    }
}

/// Lines "CALLS NAME" of `strace -c -U calls,name`, under a head and above a total.
fn read_strace(text: &str) -> Result<Counts> {
    let mut counts = Counts::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some(count), Some(name), None) = (words.next(), words.next(), words.next())
            && let Ok(count) = count.parse::<f64>()
            && name != "total"
        {
            counts.insert(name.to_owned(), count);
        }
    }
    if counts.is_empty() {
        bail!("strace counted nothing: {text}");
    }
    Ok(counts)
}

/// Instructions of each function itself, from callgrind's output (its manual, "Callgrind Format Specification").
fn read_callgrind(text: &str) -> Result<Counts> {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut counts = Counts::new();
    let mut function = "";
    let mut is_call = false;
    for line in text.lines() {
        if let Some((key, value)) = line.split_once('=') {
            match key {
                "fn" | "cfn" => {
                    let name = named(&mut names, value);
                    if key == "fn" {
                        function = name;
                    }
                }
                // The next line is what the call took, all in all.
                "calls" => is_call = true,
                _ => {}
            }
            continue;
        }
        if !line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            continue;
        }
        if std::mem::take(&mut is_call) {
            continue;
        }
        let count = line.split_whitespace().nth(1);
        let count = count.and_then(|count| count.parse::<f64>().ok());
        let count = count.with_context(|| format!("callgrind wrote {line:?}"))?;
        *counts.entry(short(function)).or_default() += count;
    }
    if counts.is_empty() {
        bail!("callgrind counted nothing");
    }
    Ok(counts)
}

/// "(12) name" where it is first met, "(12)" after that.
fn named<'t>(names: &mut BTreeMap<&'t str, &'t str>, value: &'t str) -> &'t str {
    let (number, name) = value.split_once(' ').unwrap_or((value, ""));
    if !name.is_empty() {
        names.insert(number, name);
    }
    names.get(number).copied().unwrap_or("not known")
}

/// Without the hash that makes a symbol unique and callgrind's mark of a recursion, and cut where it gets long.
fn short(name: &str) -> String {
    let name = name.split('\'').next().unwrap_or(name);
    let name = match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 => name,
        _ => name,
    };
    match name.char_indices().nth(NAME) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strace_is_read_without_its_total() {
        let text = "    calls syscall\n--------- ----------------\n      400 recvfrom\n      200 writev\n--------- ------\n      600 total\n";
        let counts = read_strace(text).unwrap();
        assert_eq!(counts.len(), 2);
        let row = Row::new("x", 600.0, "calls");
        let profile = profile(&row, &counts, "by strace", 1);
        let shares = profile.functions.iter();
        let names: Vec<&str> = shares.map(|share| share.name.as_str()).collect();
        assert_eq!(names, ["400 recvfrom", "200 writev"]);
        assert_eq!(profile.functions[0].percent, 66.7);
        assert!(read_strace("no such process").is_err());
    }

    #[test]
    fn callgrind_is_read_function_by_function_without_what_they_call() {
        let text = "version: 1\nevents: Ir\nob=(1) /x\nfl=(1) a.c\nfn=(1) main::h0123456789abcdef\n3 10\ncfn=(2) work\ncalls=2 8\n+1 500\n* 5\n\nfn=(2)\n8 250\n+2 250\nfn=(1)\n-4 1\ntotals: 516\n";
        let counts = read_callgrind(text).unwrap();
        assert_eq!(counts["main"], 16.0);
        assert_eq!(counts["work"], 500.0);
        assert!(read_callgrind("").is_err());
    }
}
