//! Measuring: windows of the gateway and of testpmd in turn, and the rows they make.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use bench_report::{Reach, Report, Row};

use crate::config::Variant;
use crate::connections::{CLIENTS, Outcome, Players};
use crate::peer::{Peer, Place, own_wait};
use crate::rig::{Generator, Rig};
use crate::stream::{Counted, Flows, Stream, Ways};

/// A window counts as disturbed if others had either core for more than this share of it.
const DISTURBANCE: f64 = 0.02;
/// Windows measured again because of that, for each that is wanted.
const RETRIES: usize = 4;

/// How long a new gateway's questions for its next hops are answered before anything else: it asks again after a second.
const NEIGHBOURS: Duration = Duration::from_millis(1500);

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) warm: Duration,
    pub(crate) window: Duration,
    /// Pairs of windows a row.
    pub(crate) pairs: usize,
}

/// The generator, the yardstick, and what was found out so far.
pub(crate) struct Bench {
    pub(crate) place: Place,
    pub(crate) binary: PathBuf,
    pub(crate) pace: Pace,
    pub(crate) report: Report,
    generator: Generator,
    testpmd: Peer,
    to_testpmd: Rig,
    gateways: usize,
    disturbed: usize,
    windows: usize,
}

/// A gateway that runs, with the rig to it.
pub(crate) struct Running {
    variant: Variant,
    gateway: Peer,
    rig: Rig,
}

impl Bench {
    pub(crate) fn start(
        place: Place,
        binary: PathBuf,
        pace: Pace,
        report: Report,
    ) -> Result<Bench> {
        let testpmd = Peer::testpmd(&place)?;
        let mut generator = Generator::start(place.huge_pages)?;
        let to_testpmd = generator
            .connect(&testpmd.outer, &testpmd.inner)
            .with_context(|| testpmd.log())?;
        testpmd.halt()?;
        Ok(Bench {
            place,
            binary,
            pace,
            report,
            generator,
            testpmd,
            to_testpmd,
            gateways: 0,
            disturbed: 0,
            windows: 0,
        })
    }

    /// Starts a gateway; none if this one does not know what the variant needs.
    pub(crate) fn gateway(&mut self, variant: Variant) -> Result<Option<Running>> {
        let (cpu, huge_pages) = (self.place.cpu, self.place.huge_pages);
        let render = |devices, admin| variant.render(devices, admin, (cpu, huge_pages));
        let trial = self.place.directory.join("trial.toml");
        let anywhere = std::net::SocketAddr::from(([127, 0, 0, 1], 9401));
        let devices = ["net_memif0,role=server".into(), "net_memif1".into()];
        std::fs::write(&trial, render(devices, anywhere))?;
        let check = Command::new(&self.binary)
            .args(["check", "--config"])
            .arg(&trial)
            .output()
            .with_context(|| self.binary.display().to_string())?;
        if !check.status.success() {
            let all = [check.stdout, check.stderr].concat();
            let text = String::from_utf8_lossy(&all);
            let first = text.lines().next().unwrap_or_default();
            eprintln!("{}: not measured: {first}", variant.name);
            return Ok(None);
        }
        self.gateways += 1;
        let name = format!("gateway{}", self.gateways);
        let gateway = Peer::gateway(&self.place, &self.binary, &name, render)?;
        let mut rig = self
            .generator
            .connect(&gateway.outer, &gateway.inner)
            .with_context(|| gateway.log())?;
        self.generator
            .resolve(&mut rig, NEIGHBOURS)
            .with_context(|| gateway.log())?;
        Ok(Some(Running {
            variant,
            gateway,
            rig,
        }))
    }

    /// Mpps over `count` flows, one way and both.
    pub(crate) fn streams(
        &mut self,
        running: &mut Running,
        flows: &mut Flows,
        count: u32,
        reach: Option<f64>,
    ) -> Result<f64> {
        running.gateway.go()?;
        flows.establish(&mut self.generator, &mut running.rig, count)?;
        running.gateway.halt()?;
        let mut rate = 0.0;
        for ways in [Ways::In, Ways::Both] {
            let mut stream = Stream {
                flows,
                count,
                ways,
                translated: true,
            };
            let mut pairs = Vec::new();
            let mut total = Counted::default();
            let pace = self.pace;
            for index in 0..pace.pairs {
                let (ours, yardstick) =
                    self.pair(running, index, |generator, rig, translated| {
                        stream.translated = translated;
                        stream.run(generator, rig, pace.warm, pace.window)
                    })?;
                total.add(&ours);
                pairs.push((ours.mpps(), yardstick.mpps()));
            }
            let way = match ways {
                Ways::In => "client to target",
                Ways::Both => "both ways",
            };
            let what = format!(
                "{} {:?}, {}, {way}",
                running.variant.name,
                flows.addressing.protocol,
                flows_of(count)
            );
            let mut row = Row::of_pairs(what, &pairs, "Mpps").note(loss(&total));
            if let Some(reach) = reach {
                row = row.reach(Reach::AtLeast(reach));
            }
            if ways == Ways::In {
                rate = row.value * 1e6;
            }
            self.say_losses(running, &total)?;
            self.report.add(row);
        }
        Ok(rate)
    }

    /// One-way latency of UDP at `rate` frames a second.
    pub(crate) fn latency(
        &mut self,
        running: &mut Running,
        flows: &Flows,
        count: u32,
        rate: f64,
    ) -> Result<()> {
        let mut pairs = [Vec::new(), Vec::new()];
        let pace = self.pace;
        let mut total = Counted::default();
        for index in 0..pace.pairs {
            let (ours, yardstick) = self.pair(running, index, |generator, rig, translated| {
                let stream = Stream {
                    flows,
                    count,
                    ways: Ways::In,
                    translated,
                };
                let mut samples = Vec::new();
                let times = (pace.warm, pace.window);
                let counted = stream.paced(generator, rig, rate, times, &mut samples);
                samples.sort_unstable();
                (counted, samples)
            })?;
            total.add(&ours.0);
            for (pairs, share) in pairs.iter_mut().zip([0.5, 0.99]) {
                pairs.push((quantile(&ours.1, share), quantile(&yardstick.1, share)));
            }
        }
        for (pairs, name) in pairs.iter().zip(["p50", "p99"]) {
            let what = format!(
                "{} one-way latency, {}, {:.1} Mpps, {name}",
                running.variant.name,
                flows_of(count),
                rate / 1e6
            );
            let row = Row::of_pairs(what, pairs, "us").note(loss(&total));
            self.report.add(row);
        }
        Ok(())
    }

    /// Whole TCP connections a second.
    pub(crate) fn connections(&mut self, running: &mut Running, reach: Option<f64>) -> Result<()> {
        let mut players = Players::new(running.variant.addressing, running.variant.proxy);
        let pace = self.pace;
        let mut rates = Vec::new();
        let mut total = Outcome::default();
        running.gateway.go()?;
        // So that every next hop is known.
        Flows::new(running.variant.addressing).establish(
            &mut self.generator,
            &mut running.rig,
            running.variant.addressing.targets * 4,
        )?;
        // Until each client's address and port has been used once.
        let first = Duration::from_millis(500);
        players.run(&mut self.generator, &mut running.rig, (first, pace.window))?;
        for _ in 0..pace.pairs {
            let outcome = self.undisturbed(&running.gateway, |generator| {
                players.run(generator, &mut running.rig, (pace.warm, pace.window))
            })?;
            rates.push(outcome.rate());
            total.finished += outcome.finished;
            total.failed += outcome.failed;
            total.wrong += outcome.wrong;
        }
        let note = format!(
            "{} connections checked, {} failed, {} packets wrong",
            total.finished, total.failed, total.wrong
        );
        let what = format!(
            "{} TCP connections, SYN to FIN, 7 packets, {CLIENTS} client ports reused",
            running.variant.name
        );
        let mut row = Row::of(what, &rates, "1/s").note(note);
        if let Some(reach) = reach {
            row = row.reach(Reach::AtLeast(reach));
        }
        self.report.add(row);
        running.gateway.halt()
    }

    /// Bytes a flow: how much more a gateway takes that can hold, and holds, more flows.
    pub(crate) fn memory(&mut self, variant: Variant, limits: [u32; 2]) -> Result<()> {
        let mut resident = Vec::new();
        for flows in limits {
            let variant = Variant { flows, ..variant };
            let Some(mut running) = self.gateway(variant)? else {
                return Ok(());
            };
            let mut established = Flows::new(variant.addressing);
            established.establish(&mut self.generator, &mut running.rig, flows)?;
            resident.push(running.gateway.resident()? as f64);
        }
        let bytes = (resident[1] - resident[0]) / f64::from(limits[1] - limits[0]);
        let note = format!(
            "resident memory of a gateway full with {} flows less that of one full with {}",
            limits[1], limits[0]
        );
        let row = Row::new("memory per established flow, all tables", bytes, "B");
        self.report.add(row.reach(Reach::AtMost(160.0)).note(note));
        Ok(())
    }

    /// The same of the gateway and of testpmd, right after one another, in turning order.
    fn pair<T>(
        &mut self,
        running: &mut Running,
        index: usize,
        mut measure: impl FnMut(&mut Generator, &mut Rig, bool) -> T,
    ) -> Result<(T, T)> {
        let mut attempt = 0;
        loop {
            let before = own_wait();
            let mut others = 0;
            let mut results = [None, None];
            for turn in 0..2 {
                let ours = (index + turn).is_multiple_of(2);
                let peer = if ours {
                    &running.gateway
                } else {
                    &self.testpmd
                };
                let waited = peer.waited();
                if ours {
                    running.gateway.go()?;
                    results[0] = Some(measure(&mut self.generator, &mut running.rig, true));
                    running.gateway.halt()?;
                } else {
                    self.testpmd.go()?;
                    let rig = &mut self.to_testpmd;
                    results[1] = Some(measure(&mut self.generator, rig, false));
                    self.testpmd.halt()?;
                }
                let peer = if ours {
                    &running.gateway
                } else {
                    &self.testpmd
                };
                others += peer.waited().saturating_sub(waited);
            }
            let lost = (own_wait().saturating_sub(before) + others) as f64;
            let span = 2.0 * (self.pace.warm + self.pace.window).as_nanos() as f64;
            attempt += 1;
            let disturbed = lost > DISTURBANCE * span;
            if let [Some(ours), Some(yardstick)] = results
                && (!disturbed || attempt > RETRIES)
            {
                self.windows += 1;
                self.disturbed += usize::from(disturbed);
                return Ok((ours, yardstick));
            }
        }
    }

    /// A window in which nobody else had the cores, if that can be had.
    fn undisturbed<T>(
        &mut self,
        gateway: &Peer,
        mut measure: impl FnMut(&mut Generator) -> Result<T>,
    ) -> Result<T> {
        let mut attempt = 0;
        loop {
            let before = own_wait() + gateway.waited();
            let result = measure(&mut self.generator)?;
            let lost = (own_wait() + gateway.waited()).saturating_sub(before) as f64;
            let span = (self.pace.warm + self.pace.window).as_nanos() as f64;
            attempt += 1;
            let disturbed = lost > DISTURBANCE * span;
            if !disturbed || attempt > RETRIES {
                self.windows += 1;
                self.disturbed += usize::from(disturbed);
                return Ok(result);
            }
        }
    }

    /// Where frames went that the gateway did not send on.
    fn say_losses(&self, running: &Running, total: &Counted) -> Result<()> {
        if total.lost + total.wrong > 0 {
            running.gateway.go()?;
            let status = running.gateway.status()?;
            running.gateway.halt()?;
            let worker = &status["workers"][0];
            eprintln!(
                "  lost {}, wrong {}; dropped by reason: {}; no room to send: {}",
                total.lost, total.wrong, status["drops"], worker["transmit_full"]
            );
        }
        Ok(())
    }

    /// The report, with how quiet the machine was.
    pub(crate) fn finish(mut self) -> Report {
        let quiet = format!(
            "others had a core for more than {:.0} % of the time in {} of {} measurements kept",
            DISTURBANCE * 100.0,
            self.disturbed,
            self.windows
        );
        self.report.circumstances.push(quiet);
        self.report
    }
}

/// "1 k flows"
fn flows_of(count: u32) -> String {
    match count {
        1_000_000.. => format!("{} M flows", count / 1_000_000),
        1_000.. => format!("{} k flows", count / 1_000),
        _ => format!("{count} flows"),
    }
}

fn loss(total: &Counted) -> String {
    let mut note = match total.lost {
        0 => format!("no loss of {}", total.sent),
        lost => format!("LOST {lost} of {}", total.sent),
    };
    if total.wrong > 0 {
        note.push_str(&format!(", {} WRONG", total.wrong));
    }
    note
}

/// Of sorted samples in nanoseconds, in microseconds.
fn quantile(sorted: &[u32], share: f64) -> f64 {
    let place = (sorted.len().saturating_sub(1) as f64 * share) as usize;
    sorted
        .get(place)
        .map_or(f64::NAN, |sample| f64::from(*sample) / 1000.0)
}
