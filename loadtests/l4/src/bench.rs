//! Measuring: windows of the gateway and of testpmd in turn, and the rows they make.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use bench_report::profile::{self, Recording, Sampled};
use bench_report::{Reach, Report, Row};
use dataplane::Protocol;

use crate::address::Addressing;
use crate::config::Variant;
use crate::connections::{AT_ONCE, CLIENTS, Outcome, Players};
use crate::flows::Flows;
use crate::peer::{Peer, Place};
use crate::rig::{Generator, Rig};
use crate::stream::{Counted, Stream, Ways};
use crate::windows::Quiet;

/// A window counts as disturbed if others had either core for more than this share of it (of one that measures latencies, whose slowest
/// hundredth counts, less is allowed), or if the cores were far apart.
const DISTURBANCE: f64 = 0.02;
const DISTURBANCE_OF_LATENCY: f64 = 0.002;

/// What the 99th percentile of latency may be, as a multiple of macswap's.
const LATENCY: f64 = 4.0;

/// How long a new gateway's questions for its next hops are answered before anything else: it asks again after a second.
const NEIGHBOURS: Duration = Duration::from_millis(1500);
/// How long a row is looked into.
const PROFILE: Duration = Duration::from_secs(3);

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) warm: Duration,
    pub(crate) window: Duration,
    /// Pairs of windows a row.
    pub(crate) pairs: usize,
}

/// Which rows are looked into by a profiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profiled {
    /// Those that did not reach what they should.
    Short,
    All,
    None,
}

/// The generator, the yardstick, and what was found out so far.
pub(crate) struct Bench {
    pub(crate) place: Place,
    pub(crate) binary: PathBuf,
    pub(crate) pace: Pace,
    pub(crate) profiled: Profiled,
    pub(crate) report: Report,
    // In this order: ports are closed before their other end is killed, or DPDK's own thread would see that and take the connection down
    // while we do.
    to_testpmd: Rig,
    testpmd: Peer,
    generator: Generator,
    quiet: Quiet,
    gateways: usize,
}

/// A gateway that runs, with the rig to it.
pub(crate) struct Running {
    variant: Variant,
    // Before the gateway, as with testpmd.
    rig: Rig,
    gateway: Peer,
}

impl Bench {
    pub(crate) fn start(
        place: Place,
        binary: PathBuf,
        pace: Pace,
        profiled: Profiled,
        report: Report,
    ) -> Result<Bench> {
        let testpmd = Peer::testpmd(&place)?;
        let mut generator = Generator::start(place.huge_pages)?;
        let to_testpmd = generator
            .connect(&testpmd.outer, &testpmd.inner)
            .with_context(|| testpmd.log())?;
        testpmd.halt()?;
        Ok(Bench {
            quiet: Quiet::beside(place.cpu)?,
            place,
            binary,
            pace,
            profiled,
            report,
            generator,
            testpmd,
            to_testpmd,
            gateways: 0,
        })
    }

    /// Starts a gateway.
    pub(crate) fn gateway(&mut self, variant: Variant) -> Result<Running> {
        let (cpu, huge_pages) = (self.place.cpu, self.place.huge_pages);
        let render = |devices, admin| variant.render(devices, admin, (cpu, huge_pages));
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
        Ok(Running {
            variant,
            gateway,
            rig,
        })
    }

    /// After a part that failed, wherever it was: only one forwarder may run at a time.
    pub(crate) fn recover(&mut self) -> Result<()> {
        self.quiet.take();
        self.testpmd.halt()
    }

    /// Mpps over `count` flows, one way and both, with what each shall reach; the first of them in frames a second.
    pub(crate) fn streams(
        &mut self,
        running: &mut Running,
        flows: &mut Flows,
        count: u32,
        reach: [Option<f64>; 2],
    ) -> Result<f64> {
        running.gateway.go()?;
        flows.establish(&mut self.generator, &mut running.rig, count)?;
        running.gateway.halt()?;
        let mut rate = 0.0;
        for (ways, reach) in [Ways::In, Ways::Both].into_iter().zip(reach) {
            let stream = Stream {
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
                    self.pair(running, index, DISTURBANCE, |generator, rig, translated| {
                        let stream = Stream {
                            translated,
                            ..stream
                        };
                        stream.run(generator, rig, (pace.warm, pace.window))
                    })?;
                total.add(&ours);
                // macswap's can only be our own mistake, and then the other side's figures mean nothing either.
                total.wrong += yardstick.faults();
                self.quiet.held_back(yardstick.is_held_back());
                pairs.push((ours.mpps(), yardstick.mpps()));
            }
            let way = match ways {
                Ways::In => "client to target",
                Ways::Both => "both ways",
            };
            let what = format!(
                "{} {}, {}, {way}",
                running.variant.name,
                name_of(flows.addressing.protocol),
                flows_of(count)
            );
            let mut row = Row::of_pairs(what, &pairs, "Mpps").note(said_of(&total));
            if let Some(reach) = reach {
                row = row.reach(Reach::AtLeast(reach));
            }
            if ways == Ways::In {
                rate = row.value * 1e6;
            }
            let row = self.add(row);
            self.tell_faults(running, &row.what, total.faults(), total.lost())?;
            self.profile(running, &row, |generator, rig| {
                let length = (Duration::ZERO, PROFILE);
                stream.run(generator, rig, length).map(|_| ())
            })?;
        }
        Ok(rate)
    }

    /// One-way latency of UDP, in, at half of `rate` frames a second, of a worker that has its core to itself: of what waits while another
    /// thread has it, a hundredth of all frames is soon made. The 99th percentile is to be at most [`LATENCY`] times macswap's.
    pub(crate) fn latency(
        &mut self,
        running: &mut Running,
        flows: &Flows,
        count: u32,
        rate: f64,
    ) -> Result<()> {
        let rate = rate / 2.0;
        let mut pairs = [Vec::new(), Vec::new()];
        let pace = self.pace;
        let mut total = Counted::default();
        running.gateway.spread(self.place.own)?;
        for index in 0..pace.pairs {
            let limit = DISTURBANCE_OF_LATENCY;
            let (ours, yardstick) =
                self.pair(running, index, limit, |generator, rig, translated| {
                    let stream = Stream {
                        flows,
                        count,
                        ways: Ways::In,
                        translated,
                    };
                    let mut samples = Vec::new();
                    let times = (pace.warm, pace.window);
                    let counted = stream.paced(generator, rig, rate, times, &mut samples)?;
                    samples.sort_unstable();
                    Ok((counted, samples))
                })?;
            total.add(&ours.0);
            total.wrong += yardstick.0.faults();
            for (pairs, share) in pairs.iter_mut().zip([0.5, 0.99]) {
                pairs.push((quantile(&ours.1, share)?, quantile(&yardstick.1, share)?));
            }
        }
        running.gateway.gather(self.place.cpu)?;
        let windows = self.quiet.take();
        let mut note = format!(
            "at half of the rate from client to target, the gateway's other threads elsewhere; {:.2} Mpps came; {}",
            total.mpps(),
            said_of(&total)
        );
        if total.unsent > 0 {
            note.push_str(&format!(
                "; {} were due when there was no room and don't count",
                total.unsent
            ));
        }
        for (pairs, (name, reach)) in pairs.iter().zip([("p50", None), ("p99", Some(LATENCY))]) {
            let what = format!(
                "{} {} one-way latency, {}, {:.1} Mpps, {name}",
                running.variant.name,
                name_of(flows.addressing.protocol),
                flows_of(count),
                rate / 1e6
            );
            let mut row = Row::of_pairs(what, pairs, "us").note(note.clone());
            if let Some(reach) = reach {
                row = row.reach(Reach::AtMost(reach));
            }
            self.report.add(row.windows(windows));
        }
        self.tell_faults(running, "latency", total.faults(), total.lost())
    }

    /// Whole TCP connections a second; the yardstick is those that the generator plays when nothing is translated.
    pub(crate) fn connections(
        &mut self,
        running: &mut Running,
        flows: &mut Flows,
        reach: Option<f64>,
    ) -> Result<()> {
        let variant = running.variant;
        let mut players = Players::new(variant.addressing, variant.proxy, true);
        let mut untranslated = Players::new(variant.addressing, false, false);
        let pace = self.pace;
        running.gateway.go()?;
        // So that every next hop is known: each service begins with whichever target it likes.
        let Addressing {
            services, targets, ..
        } = variant.addressing;
        let known = (4 * targets).max(services * targets);
        flows.establish(&mut self.generator, &mut running.rig, known)?;
        // Until each client's address and port has been used once.
        let first = Duration::from_millis(500);
        players.run(&mut self.generator, &mut running.rig, (first, pace.window));
        running.gateway.halt()?;
        let mut pairs = Vec::new();
        let mut total = Outcome::default();
        for index in 0..pace.pairs {
            let (ours, yardstick) =
                self.pair(running, index, DISTURBANCE, |generator, rig, translated| {
                    let players = if translated {
                        &mut players
                    } else {
                        &mut untranslated
                    };
                    Ok(players.run(generator, rig, (pace.warm, pace.window)))
                })?;
            pairs.push((ours.rate(), yardstick.rate()));
            total.finished += ours.finished;
            total.failed += ours.failed;
            // macswap's can only be our own mistake, and then the other side's figures mean nothing either.
            total.wrong += ours.wrong + yardstick.wrong + yardstick.failed;
        }
        let note = format!(
            "{AT_ONCE} at once; {} checked, {} failed, {} packets wrong",
            total.finished, total.failed, total.wrong
        );
        let what = format!(
            "{} TCP connections, SYN to FIN, 7 packets, {CLIENTS} client ports reused",
            variant.name
        );
        let rates: Vec<f64> = pairs.iter().map(|(ours, _)| *ours).collect();
        let windows = self.quiet.take();
        let mut row = Row::of(what, &rates, "1/s").note(note).windows(windows);
        if let Some(reach) = reach {
            row = row.reach(Reach::AtLeast(reach));
        }
        let beside = format!("{} TCP connections, beside macswap's", variant.name);
        let beside = Row::of_pairs(beside, &pairs, "1/s").windows(windows);
        self.report.add(row.clone());
        self.report
            .add(beside.note("of the same windows; macswap is as fast as the generator goes"));
        self.tell_faults(running, &row.what, total.wrong, total.failed)?;
        self.profile(running, &row, |generator, rig| {
            let length = (Duration::ZERO, PROFILE);
            players.run(generator, rig, length);
            Ok(())
        })
    }

    /// Bytes a flow: how much more a gateway takes that can hold, and holds, more flows.
    pub(crate) fn memory(&mut self, variant: Variant, limits: [u32; 2]) -> Result<()> {
        let mut resident = Vec::new();
        for flows in limits {
            let variant = Variant { flows, ..variant };
            let mut running = self.gateway(variant)?;
            let mut established = Flows::new(variant.addressing, variant.proxy);
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
        limit: f64,
        mut measure: impl FnMut(&mut Generator, &mut Rig, bool) -> Result<T>,
    ) -> Result<(T, T)> {
        let span = 2.0 * (self.pace.warm + self.pace.window).as_nanos() as f64;
        let generator = &mut self.generator;
        self.quiet.measure(limit * span, |watch| {
            let ours_first = index.is_multiple_of(2);
            let mut results = [None, None];
            for ours in [ours_first, !ours_first] {
                let (peer, rig) = if ours {
                    (&running.gateway, &mut running.rig)
                } else {
                    (&self.testpmd, &mut self.to_testpmd)
                };
                let result = watch.run(peer, || measure(generator, rig, ours))?;
                results[usize::from(!ours)] = Some(result);
            }
            let [ours, yardstick] = results;
            ours.zip(yardstick).context("nothing was measured")
        })
    }

    /// Adds a row, with how quiet its windows were.
    fn add(&mut self, row: Row) -> Row {
        let row = row.windows(self.quiet.take());
        self.report.add(row.clone());
        row
    }

    /// Looks into a row, if it is one to look into, while `play` has the gateway do the same once more.
    fn profile(
        &mut self,
        running: &mut Running,
        row: &Row,
        mut play: impl FnMut(&mut Generator, &mut Rig) -> Result<()>,
    ) -> Result<()> {
        // What is unclear may be short as well.
        let wanted = match self.profiled {
            Profiled::All => true,
            Profiled::Short => row.reach.is_some() && row.met != Some(true),
            Profiled::None => false,
        };
        if !wanted {
            return Ok(());
        }
        let profile = profile::take(
            &Recording {
                process: running.gateway.id(),
                threads: &[running.gateway.worker()?],
                binary: &self.binary,
                directory: &self.place.directory,
                length: PROFILE,
                of: Sampled::User,
            },
            || {
                running.gateway.go()?;
                play(&mut self.generator, &mut running.rig)?;
                running.gateway.halt()
            },
        );
        self.report.profiles.push(profile?.of(row.what.clone()));
        Ok(())
    }

    /// Where frames went that the gateway did not send on. One that was not what it must be is a failure of the whole run.
    fn tell_faults(&mut self, running: &Running, what: &str, wrong: u64, lost: u64) -> Result<()> {
        if wrong + lost == 0 {
            return Ok(());
        }
        running.gateway.go()?;
        let status = running.gateway.status()?;
        running.gateway.halt()?;
        eprintln!(
            "  {what}: lost {lost}, wrong {wrong}; since the gateway's start: dropped by reason {}; its worker {}",
            status["drops"], status["workers"][0]
        );
        if wrong > 0 {
            let strange = self.generator.strange.take();
            self.report.failures.push(format!(
                "{what}: {wrong} frames were not what their receiver must get, the first {}",
                strange.unwrap_or_else(|| "one that was never sent".into())
            ));
        }
        Ok(())
    }

    /// What there is so far, with how quiet the machine was.
    pub(crate) fn so_far(&self) -> Report {
        let mut report = self.report.clone();
        let (kept, disturbed) = self.quiet.kept();
        if kept > 0 {
            report.circumstances.push(format!(
                "others had a core for more than {:.0} % of the time ({} % where latency is measured), or the cores were far apart, in {disturbed} of \
                 {kept} measurements kept; a row with more than a quarter of such is not judged",
                DISTURBANCE * 100.0,
                DISTURBANCE_OF_LATENCY * 100.0,
            ));
            let (best, worst) = self.quiet.turns();
            report.circumstances.push(format!(
                "from core to core and back {best} ns at best, {worst} at worst"
            ));
        }
        report
    }
}

fn name_of(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
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

fn said_of(total: &Counted) -> String {
    let mut note = match total.lost() {
        0 => format!("no loss of {}", total.sent),
        lost => format!("LOST {lost} of {}", total.sent),
    };
    if total.faults() > 0 {
        note.push_str(&format!(", {} WRONG", total.faults()));
    }
    note
}

/// Of sorted samples in nanoseconds, in microseconds.
fn quantile(sorted: &[u32], share: f64) -> Result<f64> {
    let place = (sorted.len().saturating_sub(1) as f64 * share) as usize;
    let sample = sorted.get(place).context("not one frame was timed")?;
    Ok(f64::from(*sample) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_frames_and_quantiles_are_told_as_people_say_them() {
        assert_eq!(flows_of(1_000_000), "1 M flows");
        assert_eq!(flows_of(100_000), "100 k flows");
        assert_eq!(name_of(Protocol::Udp), "UDP");
        let counted = |sent, received, wrong| Counted {
            sent,
            received,
            wrong,
            ..Counted::default()
        };
        assert_eq!(said_of(&counted(10, 10, 0)), "no loss of 10");
        assert_eq!(said_of(&counted(10, 8, 1)), "LOST 2 of 10, 1 WRONG");
        // More came than was sent: some came twice, or were never sent.
        assert_eq!(said_of(&counted(10, 12, 0)), "no loss of 10, 2 WRONG");
        let samples: Vec<u32> = (1..=101).map(|n| n * 1000).collect();
        assert_eq!(quantile(&samples, 0.5).unwrap(), 51.0);
        assert_eq!(quantile(&samples, 0.99).unwrap(), 100.0);
        assert!(quantile(&[], 0.5).is_err());
    }
}
