//! Measuring: windows of all sides in turn, and the rows they make.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench_report::profile::{self, Recording, Sampled};
use bench_report::{Better, Reach, Report, Row, Series, Side as Yardstick, Windows, median};

use crate::certificates::{Certificate, Key};
use crate::load::{Clients, Load, Until};
use crate::server::{Cost, Place, Server, Setup, Side};

/// A window counts as disturbed if others had a core for more than this share of it.
const DISTURBANCE: f64 = 0.05;
/// A proxy that was busy for less of a window than this could have done more than the clients asked.
const BUSY: f64 = 0.9;
/// How long a row is looked into.
const PROFILE: Duration = Duration::from_secs(3);

/// How long things take, and how many there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) warm: Duration,
    pub(crate) window: Duration,
    /// How long connections are idle before their memory is read: what gives room back does so after some seconds.
    pub(crate) rest: Duration,
    /// Windows of each side a row.
    pub(crate) turns: usize,
    /// Connections that are held.
    pub(crate) held: usize,
    /// Requests of which instructions and system calls are counted.
    pub(crate) counted: u64,
    /// Whether it is only seen that everything works.
    pub(crate) is_smoke: bool,
}

/// Which rows are looked into by a profiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profiled {
    /// Those that did not reach what they should.
    Short,
    All,
    None,
}

/// What is measured with, and what was found out so far.
pub(crate) struct Bench {
    pub(crate) load: Load,
    pub(crate) place: Place,
    /// Ours first.
    pub(crate) sides: Vec<Side>,
    pub(crate) pace: Pace,
    pub(crate) profiled: Profiled,
    pub(crate) report: Report,
    /// Of all rows.
    pub(crate) windows: Windows,
    /// Sides and ways of which it was seen that they do the work they are to do.
    pub(crate) looked_at: HashSet<(&'static str, &'static str)>,
    certificates: HashMap<Key, Certificate>,
    started: usize,
}

/// One window of one side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) done: u64,
    pub(crate) resumed: u64,
    pub(crate) took: Duration,
    pub(crate) cost: Cost,
    /// Others had a core for too long.
    pub(crate) disturbed: bool,
}

/// The windows of one side.
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) windows: Vec<Window>,
}

impl Bench {
    pub(crate) fn new(
        load: Load,
        place: Place,
        sides: Vec<Side>,
        pace: Pace,
        profiled: Profiled,
        report: Report,
    ) -> Bench {
        Bench {
            load,
            place,
            sides,
            pace,
            profiled,
            report,
            windows: Windows::default(),
            looked_at: HashSet::new(),
            certificates: HashMap::new(),
            started: 0,
        }
    }

    /// A certificate of this kind; the same for all.
    pub(crate) fn certificate(&mut self, key: Key) -> Result<Certificate> {
        if let Some(made) = self.certificates.get(&key) {
            return Ok(made.clone());
        }
        let made = Certificate::make(&self.place.directory, key)?;
        self.certificates.insert(key, made.clone());
        Ok(made)
    }

    /// Starts one proxy.
    pub(crate) fn server(&mut self, side: &Side, setup: Setup<'_>) -> Result<Server> {
        self.started += 1;
        let server = Server::start(&self.place, side, self.started, setup)?;
        self.load.forget(&server.addresses());
        Ok(server)
    }

    /// Starts one of each side.
    pub(crate) fn servers(&mut self, key: Key, routes: usize) -> Result<Vec<Server>> {
        let certificate = self.certificate(key)?;
        let sides = self.sides.clone();
        sides
            .iter()
            .map(|side| {
                self.server(
                    side,
                    Setup {
                        certificate: &certificate,
                        routes,
                        under: &[],
                    },
                )
            })
            .collect()
    }

    /// Windows of all sides in turn, each side once a turn, beginning with another one each time.
    pub(crate) fn measure(
        &mut self,
        servers: &[Server],
        clients: &mut [Clients],
        connections: usize,
        turns: usize,
    ) -> Result<Vec<Measured>> {
        let mut measured: Vec<Measured> = servers.iter().map(Measured::of).collect();
        for turn in 0..turns {
            for index in 0..servers.len() {
                let index = (turn + index) % servers.len();
                let (server, clients) = (&servers[index], &mut clients[index]);
                let window = self
                    .window(server, clients, connections)
                    .with_context(|| server.side.name())?;
                measured[index].windows.push(window);
            }
        }
        Ok(measured)
    }

    fn window(
        &mut self,
        server: &Server,
        clients: &mut Clients,
        connections: usize,
    ) -> Result<Window> {
        let until = |length: Duration| Until::Time(std::time::Instant::now() + length);
        self.load
            .play(clients, connections, until(self.pace.warm))?;
        let (own, before) = (own_wait(), server.cost()?);
        let until = until(self.pace.window);
        let played = self.load.play(clients, connections, until)?;
        let cost = server.cost()? - before;
        let lost = (own_wait() - own).max(cost.waited);
        let disturbed = lost as f64 > DISTURBANCE * played.took.as_nanos() as f64;
        self.windows.add(disturbed);
        ensure!(played.done > 0, "nothing was done within a window");
        ensure!(cost.total > 0, "what was done cost nothing");
        Ok(Window {
            done: played.done,
            resumed: played.resumed,
            took: played.took,
            cost,
            disturbed,
        })
    }

    /// CPU time for each thing done, `per` of which make one unit: ours by the better yardstick.
    pub(crate) fn cost(
        &mut self,
        what: String,
        unit: &str,
        per: f64,
        measured: &[Measured],
        reach: Option<f64>,
    ) -> Row {
        let each = |window: &Window| window.cost.total as f64 / 1e3 / window.done as f64 * per;
        let mut row = compared(what, unit, Better::Lower, measured, each);
        row.note = apart(measured, per);
        if let Some(reach) = reach {
            row = row.reach(Reach::AtMost(reach));
        }
        self.add(row)
    }

    /// How much is done in a second.
    pub(crate) fn rate(&mut self, what: String, unit: &str, measured: &[Measured]) {
        let rate = |window: &Window| window.done as f64 / window.took.as_secs_f64();
        let mut row = compared(what, unit, Better::Higher, measured, rate);
        let busy: Vec<String> = measured
            .iter()
            .filter_map(|side| {
                let busy = median(&side.windows.iter().map(Window::busy).collect::<Vec<_>>());
                (busy < BUSY).then(|| {
                    format!(
                        "{} was busy {:.0} % of the time: it could do more",
                        side.name,
                        busy * 100.0
                    )
                })
            })
            .collect();
        row.note = busy.join("; ");
        row.windows = Some(quiet(measured));
        self.add(row);
    }

    /// Adds a row, and returns it.
    pub(crate) fn add(&mut self, row: Row) -> Row {
        self.report.add(row.clone());
        row
    }

    /// Looks into a row, if it is one to look into, while our proxy does the same once more.
    pub(crate) fn profile(
        &mut self,
        row: &Row,
        server: &Server,
        clients: &mut Clients,
        connections: usize,
    ) -> Result<()> {
        let wanted = match self.profiled {
            Profiled::All => true,
            Profiled::Short => row.reach.is_some() && row.met != Some(true),
            Profiled::None => false,
        };
        let binary: PathBuf = match &server.side {
            Side::Weir(binary) if wanted => binary.clone(),
            _ => return Ok(()),
        };
        let load = &mut self.load;
        let recording = Recording {
            process: server.process()?,
            threads: &server.threads()?,
            binary: &binary,
            directory: &self.place.directory,
            length: PROFILE,
            of: Sampled::All,
        };
        let samples = profile::take(&recording, || {
            let end = std::time::Instant::now() + PROFILE;
            load.play(clients, connections, Until::Time(end))
                .map(|_| ())
        })?;
        self.report.profiles.push(samples.of(row.what.clone()));
        Ok(())
    }
}

impl Measured {
    fn of(server: &Server) -> Measured {
        Measured {
            name: server.side.name(),
            windows: Vec::new(),
        }
    }

    pub(crate) fn done(&self) -> u64 {
        self.windows.iter().map(|window| window.done).sum()
    }
}

impl Window {
    /// For how much of the time the proxy worked, or would have, had it had its core.
    fn busy(&self) -> f64 {
        (self.cost.total + self.cost.waited) as f64 / self.took.as_nanos().max(1) as f64
    }
}

/// A row over the figures of each window.
pub(crate) fn compared(
    what: String,
    unit: &str,
    better: Better,
    measured: &[Measured],
    figure: impl Fn(&Window) -> f64,
) -> Row {
    let series = measured.iter().map(|side| Series {
        name: side.name.into(),
        values: side.windows.iter().map(&figure).collect(),
    });
    of_series(what, unit, better, series.collect())
}

/// A row of several sides. An earlier l7-proxy is shown, but is no yardstick.
pub(crate) fn of_series(what: String, unit: &str, better: Better, samples: Vec<Series>) -> Row {
    let is_before = |series: &Series| series.name == "before";
    let (before, others): (Vec<Series>, Vec<Series>) = samples.into_iter().partition(is_before);
    let mut row = Row::of_sides(what, unit, better, others);
    for before in before {
        let ours = row.samples.first().map(|ours| ours.values.as_slice());
        let pairs = ours.unwrap_or_default().iter().zip(&before.values);
        let ratios: Vec<f64> = pairs.map(|(ours, before)| ours / before).collect();
        row.sides.push(Yardstick {
            name: before.name.clone(),
            value: median(&before.values),
            ratio: Some(median(&ratios)).filter(|ratio| ratio.is_finite()),
        });
        row.samples.push(before);
    }
    row
}

/// User space and the kernel apart, over all windows of a side.
fn apart(measured: &[Measured], per: f64) -> String {
    let sides = measured.iter().map(|side| {
        let costs = side.windows.iter().map(|window| window.cost);
        let cost: Cost = costs.sum();
        let each = cost.total as f64 / 1e3 / side.done().max(1) as f64 * per;
        let share = cost.user as f64 / (cost.user + cost.kernel).max(1) as f64;
        format!(
            "{} {} user + {} kernel",
            side.name,
            figures(each * share),
            figures(each * (1.0 - share))
        )
    });
    let done: u64 = measured.iter().map(Measured::done).sum();
    format!("{}; {done} checked", sides.collect::<Vec<_>>().join(", "))
}

fn figures(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// How many turns had a disturbed window, and in how many the best yardstick could have done more.
pub(crate) fn quiet(measured: &[Measured]) -> Windows {
    let mut windows = Windows::default();
    let turns = measured.iter().map(|side| side.windows.len()).min();
    for turn in 0..turns.unwrap_or(0) {
        let all = || measured.iter().map(|side| &side.windows[turn]);
        windows.add(all().any(|window| window.disturbed));
        windows.held_back += u32::from(all().skip(1).any(|window| window.busy() < BUSY));
    }
    windows
}

/// Nanoseconds that this thread was ready to run but did not get the CPU.
fn own_wait() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let field = text.split_whitespace().nth(1);
    field.and_then(|field| field.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &'static str, windows: &[(u64, u64)]) -> Measured {
        let window = |&(done, micros): &(u64, u64)| Window {
            done,
            resumed: 0,
            took: Duration::from_millis(1),
            cost: Cost {
                total: micros * 1000,
                user: micros * 250,
                kernel: micros * 750,
                waited: 0,
            },
            disturbed: false,
        };
        Measured {
            name,
            windows: windows.iter().map(window).collect(),
        }
    }

    #[test]
    fn windows_become_costs_rates_and_an_account_of_user_and_kernel() {
        let sides = [
            measured("weir", &[(10, 400), (20, 800)]),
            measured("before", &[(10, 500), (10, 500)]),
            measured("nginx", &[(10, 500), (10, 250)]),
            measured("haproxy", &[(10, 600), (10, 600)]),
        ];
        let each = |window: &Window| window.cost.total as f64 / 1e3 / window.done as f64;
        let row = compared("x".into(), "us", Better::Lower, &sides, each);
        assert_eq!(row.value, 40.0);
        // By pairs 0.8 and 1.6.
        assert_eq!(
            (row.yardstick, row.ratio),
            (Some(37.5), Some(1.2000000000000002))
        );
        let names: Vec<&str> = row.sides.iter().map(|side| side.name.as_str()).collect();
        assert_eq!(names, ["nginx", "haproxy", "before"]);
        assert_eq!(row.sides[2].ratio, Some(0.8));
        assert_eq!(row.samples.len(), 4);
        let note = apart(&sides, 1.0);
        assert!(note.starts_with("weir 10.0 user + 30.0 kernel, "), "{note}");
        assert!(note.ends_with("; 90 checked"), "{note}");
        let windows = quiet(&sides);
        assert_eq!((windows.kept, windows.held_back), (2, 2));
    }
}
