//! Where a program spends its time: samples by `perf` on the CPU's clock, as virtual machines have no counters, told apart down to
//! inlined functions by `addr2line`.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{Profile, Share};

/// Samples a second; no multiple of anything that a worker does regularly.
const FREQUENCY: u32 = 3989;
const FUNCTIONS: usize = 16;
const LINES: usize = 16;
/// Type arguments of a function are shown as far as they fit into this many bytes.
const ARGUMENTS: usize = 40;

/// What to record.
#[derive(Clone, Copy, Debug)]
pub struct Recording<'a> {
    /// The process, for where its program was mapped to.
    pub process: u32,
    /// The threads that are sampled.
    pub threads: &'a [u32],
    /// Its program.
    pub binary: &'a Path,
    /// For perf's own files.
    pub directory: &'a Path,
    /// For how long.
    pub length: Duration,
    /// What is sampled.
    pub of: Sampled,
}

/// What is sampled of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampled {
    /// Its time in user space.
    User,
    /// Its time in the kernel as well, by the kernel's functions.
    All,
}

/// How many samples there are in what.
#[derive(Debug, PartialEq)]
pub struct Samples {
    functions: HashMap<String, u64>,
    lines: HashMap<String, u64>,
    all: u64,
    of: Sampled,
}

/// One place in the program and how often it was met.
#[derive(Debug, PartialEq)]
struct Met {
    address: u64,
    /// Of a library or the kernel, the function there.
    library: Option<String>,
    times: u64,
}

/// Samples threads while `play` runs.
///
/// # Errors
/// Those of `play`, or when perf or addr2line can't do their part.
pub fn take(recording: &Recording<'_>, play: impl FnOnce() -> Result<()>) -> Result<Samples> {
    let data = recording.directory.join("perf.data");
    let threads: Vec<String> = recording.threads.iter().map(u32::to_string).collect();
    let mut perf = command(&data, recording.of)
        .args(["-t", &threads.join(",")])
        .args(["--", "sleep", &recording.length.as_secs_f64().to_string()])
        .stdout(Stdio::null())
        .spawn()
        .context("perf (Debian package linux-perf)")?;
    let played = play();
    let ended = perf.wait()?;
    played?;
    if !ended.success() {
        bail!("perf ended with {ended}");
    }
    let text = output(
        Command::new("perf")
            .args(["script", "-F", "ip,sym,dso", "-i"])
            .arg(&data),
    )?;
    let met = by_place(&text, recording.binary);
    let base = mapped_at(recording.process, recording.binary)?;
    let ours = met.iter().filter(|met| met.library.is_none());
    let addresses: Vec<u64> = ours.map(|met| met.address.wrapping_sub(base)).collect();
    let places = places(recording.binary, &addresses)?;
    Ok(count(&met, base, &places, recording.of))
}

/// Where `file` was mapped to in a process, for the addresses in a profile.
fn mapped_at(process: u32, file: &Path) -> Result<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
    let file = file.to_string_lossy();
    let begin = maps
        .lines()
        .find(|line| line.ends_with(file.as_ref()))
        .and_then(|line| line.split_once('-'))
        .with_context(|| format!("{file} is not mapped"))?;
    Ok(u64::from_str_radix(begin.0, 16)?)
}

/// Whether samples can be taken here: records a program that does nothing.
pub fn is_possible(directory: &Path) -> bool {
    let recorded = command(&directory.join("perf.trial"), Sampled::User)
        .args(["--", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    recorded.is_ok_and(|status| status.success())
}

impl Samples {
    /// As the profile of a row.
    pub fn of(&self, what: String) -> Profile {
        Profile {
            what,
            how: match self.of {
                Sampled::User => format!("perf, CPU clock at {FREQUENCY} Hz"),
                Sampled::All => {
                    format!("perf, CPU clock at {FREQUENCY} Hz, the kernel's share with it")
                }
            },
            samples: self.all,
            functions: largest(&self.functions, self.all, FUNCTIONS),
            lines: largest(&self.lines, self.all, LINES),
        }
    }
}

fn largest(counts: &HashMap<String, u64>, all: u64, wanted: usize) -> Vec<Share> {
    let mut counts: Vec<(&String, &u64)> = counts.iter().collect();
    counts.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let share = |(name, count): (&String, &u64)| Share {
        name: name.clone(),
        percent: (*count as f64 * 1000.0 / all.max(1) as f64).round() / 10.0,
    };
    counts.into_iter().take(wanted).map(share).collect()
}

fn command(data: &Path, of: Sampled) -> Command {
    let event = match of {
        Sampled::User => "cpu-clock:u",
        Sampled::All => "cpu-clock",
    };
    let mut command = Command::new("perf");
    command.args(["record", "--quiet", "-e", event, "-F"]);
    command.arg(FREQUENCY.to_string()).arg("-o").arg(data);
    command
}

fn output(command: &mut Command) -> Result<String> {
    let run = command
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("{command:?}"))?;
    if !run.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&run.stderr));
    }
    Ok(String::from_utf8_lossy(&run.stdout).into_owned())
}

/// The lines "ADDRESS FUNCTION (FILE)" of `perf script`, one a sample.
fn by_place(text: &str, binary: &Path) -> Vec<Met> {
    let mut met: HashMap<u64, Met> = HashMap::new();
    for line in text.lines() {
        let Some((address, rest)) = line.trim().split_once(' ') else {
            continue;
        };
        let Ok(address) = u64::from_str_radix(address, 16) else {
            continue;
        };
        let entry = met.entry(address).or_insert_with(|| {
            let (function, file) = rest.rsplit_once('(').unwrap_or((rest, ""));
            let file = Path::new(file.trim_end_matches(')'));
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let library = format!("{} ({name})", function.trim());
            Met {
                address,
                library: (file != binary).then_some(library),
                times: 0,
            }
        });
        entry.times += 1;
    }
    met.into_values().collect()
}

/// The function and the line at each address of a program, by address.
fn places(binary: &Path, addresses: &[u64]) -> Result<HashMap<u64, (String, String)>> {
    let mut child = Command::new("addr2line")
        .args([
            "--addresses",
            "--functions",
            "--inlines",
            "--demangle",
            "--exe",
        ])
        .arg(binary)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("addr2line (Debian package binutils)")?;
    let mut input = child.stdin.take().context("addr2line reads addresses")?;
    let lines: String = addresses.iter().map(|at| format!("{at:#x}\n")).collect();
    // It answers while it reads: who doesn't read until all is written would wait for it, and it for us.
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let run = child.wait_with_output()?;
    match writer.join() {
        Ok(written) => written?,
        Err(_) => bail!("addr2line was not asked"),
    }
    Ok(read_places(&String::from_utf8_lossy(&run.stdout)))
}

/// Of what was inlined into one another, ours goes before what is another crate's, and that before the standard library's: it says what for.
fn read_places(text: &str) -> HashMap<u64, (String, String)> {
    let mut places = HashMap::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let address = line.strip_prefix("0x");
        let Some(address) = address.and_then(|digits| u64::from_str_radix(digits, 16).ok()) else {
            continue;
        };
        let mut chosen: Option<(String, String, u8)> = None;
        while lines.peek().is_some_and(|line| !line.starts_with("0x")) {
            let (Some(function), Some(place)) = (lines.next(), lines.next()) else {
                break;
            };
            let rank = rank(place);
            if chosen.as_ref().is_none_or(|(.., chosen)| rank > *chosen) {
                let place = short_place(place);
                let file = place.rsplit_once(':').map_or("", |(file, _)| file);
                chosen = Some((
                    format!("{} ({file})", short_function(function)),
                    place,
                    rank,
                ));
            }
        }
        if let Some((function, place, _)) = chosen {
            places.insert(address, (function, place));
        }
    }
    places
}

/// How much a place in the source says.
fn rank(place: &str) -> u8 {
    let is_of = |parts: &[&str]| parts.iter().any(|part| place.contains(part));
    if is_of(&["/rustc/", "/rustlib/", "??"]) {
        0
    } else if is_of(&["/.cargo/"]) {
        1
    } else {
        2
    }
}

/// Without the hash that makes a symbol unique, and without crates and modules, as only what was not inlined has them and the file says it.
fn short_function(name: &str) -> String {
    let name = match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 => name,
        _ => name,
    };
    let last = outside(name, b':').last().map_or(0, |at| at + 1);
    short_arguments(&name[last..])
}

/// Without the type arguments that iterators and closures make hundreds of bytes long.
fn short_arguments(function: &str) -> String {
    let parts = function.strip_suffix('>');
    let Some((name, arguments)) = parts.and_then(|parts| parts.split_once('<')) else {
        return function.to_owned();
    };
    if arguments.len() <= ARGUMENTS {
        return function.to_owned();
    }
    let fitting = outside(arguments, b',').take_while(|at| *at <= ARGUMENTS);
    match fitting.last() {
        Some(end) => format!("{name}<{}, ..>", &arguments[..end]),
        None => format!("{name}<..>"),
    }
}

/// Where a byte stands in a name outside of all brackets.
fn outside(name: &str, wanted: u8) -> impl Iterator<Item = usize> {
    let mut depth = 0u32;
    name.bytes().enumerate().filter_map(move |(at, byte)| {
        match byte {
            b'<' | b'(' | b'[' => depth += 1,
            b'>' | b')' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (byte == wanted && depth == 0).then_some(at)
    })
}

/// The path without what all have in common or nobody needs, and the line.
fn short_place(place: &str) -> String {
    let place = place.split(" (discriminator").next().unwrap_or(place);
    let cuts = [
        "/l4-gateway/",
        "/l7-proxy/",
        "/registry/src/",
        "/library/",
        "/dpdk/",
    ];
    let rest = cuts
        .iter()
        .find_map(|cut| place.rfind(cut).map(|at| &place[at + cut.len()..]));
    let rest = match rest.unwrap_or(place).split_once('/') {
        // The registry itself.
        Some((index, rest)) if index.starts_with("index.") => rest,
        _ => rest.unwrap_or(place),
    };
    rest.replace("/src/", "/")
}

fn count(met: &[Met], base: u64, places: &HashMap<u64, (String, String)>, of: Sampled) -> Samples {
    let mut samples = Samples {
        functions: HashMap::new(),
        lines: HashMap::new(),
        all: 0,
        of,
    };
    for Met {
        address,
        library,
        times,
    } in met
    {
        let place = places.get(&address.wrapping_sub(base));
        let (function, line) = match (library, place) {
            (Some(library), _) => (library.clone(), None),
            (None, Some((function, line))) => (function.clone(), Some(line.clone())),
            (None, None) => ("not known".to_owned(), None),
        };
        *samples.functions.entry(function).or_default() += times;
        if let Some(line) = line {
            *samples.lines.entry(line).or_default() += times;
        }
        samples.all += times;
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "    5000000101000 dataplane::burst (/x/target/release/l4-gateway)
        7f0000000010 eth_memif_rx (/usr/lib/librte_net_memif.so.23.0)
    5000000101000 dataplane::burst (/x/target/release/l4-gateway)
    5000000102000 dataplane::burst (/x/target/release/l4-gateway)
nonsense
";

    const LINES_OF: &str = "0x0000000000101000
core::ptr::read::h0123456789abcdef
/rustc/59807616/library/core/src/ptr/mod.rs:1700
dataplane::flow::index::Index::find::hfedcba9876543210
/x/l4-gateway/dataplane/src/flow/index.rs:77 (discriminator 3)
dataplane::worker::Worker::burst
/x/l4-gateway/dataplane/src/worker.rs:5
0x0000000000102000
alloc::vec::push
/rustc/59807616/library/alloc/src/vec/mod.rs:9
hyper::proto::h1::encode::h0123456789abcdef
/root/.cargo/registry/src/index.crates.io-1949cf8c/hyper-1.12.0/src/proto/h1.rs:7
";

    #[test]
    fn samples_are_counted_by_the_function_of_ours_that_was_inlined() {
        let binary = Path::new("/x/target/release/l4-gateway");
        let met = by_place(SCRIPT, binary);
        assert_eq!(met.len(), 3);
        let samples = count(
            &met,
            0x5_0000_0000_0000,
            &read_places(LINES_OF),
            Sampled::User,
        );
        let profile = samples.of("row".into());
        let share = |name: &str, percent| Share {
            name: name.into(),
            percent,
        };
        assert_eq!(profile.samples, 4);
        assert_eq!(
            profile.functions,
            [
                share("find (dataplane/flow/index.rs)", 50.0),
                share("encode (hyper-1.12.0/proto/h1.rs)", 25.0),
                share("eth_memif_rx (librte_net_memif.so.23.0)", 25.0),
            ]
        );
        assert_eq!(
            profile.lines,
            [
                share("dataplane/flow/index.rs:77", 50.0),
                share("hyper-1.12.0/proto/h1.rs:7", 25.0),
            ]
        );
    }

    #[test]
    fn functions_are_named_without_their_modules_and_without_long_arguments() {
        for (symbol, name) in [
            (
                "dataplane::worker::Worker::burst::h0123456789abcdef",
                "burst",
            ),
            (
                "dataplane::worker::forward::<impl dataplane::worker::Worker>::forward",
                "forward",
            ),
            ("<a::B as c::D>::run", "run"),
            (
                "chunk<l4_gateway::dpdk::mbuf::Mbuf>",
                "chunk<l4_gateway::dpdk::mbuf::Mbuf>",
            ),
            ("weir_eth_rx_burst", "weir_eth_rx_burst"),
            (
                "side<dataplane::family::V4, dataplane::flow::table::{impl#0}::side::{closure_env#0}<dataplane::family::V4>>",
                "side<dataplane::family::V4, ..>",
            ),
            (
                "search<(core::net::ip_addr::Ipv4Addr, u16), core::iter::adapters::take::Take<core::slice::iter::Iter<u8>>>",
                "search<(core::net::ip_addr::Ipv4Addr, u16), ..>",
            ),
            (
                "a::next<core::iter::adapters::skip::Skip<core::slice::iter::Iter<u8>>, u8>",
                "next<..>",
            ),
        ] {
            assert_eq!(short_function(symbol), name);
        }
    }

    #[test]
    fn an_address_without_debug_information_is_told_as_such() {
        let met = [Met {
            address: 9,
            library: None,
            times: 2,
        }];
        let samples = count(&met, 1, &HashMap::new(), Sampled::All);
        assert_eq!(samples.functions["not known"], 2);
        assert!(samples.lines.is_empty());
    }
}
