//! The proof: real traffic in peace, then under each fault, and what it showed.
//!
//! Each step has its promise (see [`crate::verdict`]). One holds in all of them: whatever an application answered, it was told the client's true
//! address, though two tiers stand between them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::chain::Chain;
use crate::interrupt;
use crate::k6::{Load, Recorded, Sample, repository};
use crate::ready;
use crate::router;
use crate::topology::{APPS, CLIENT, L4, L7, VIP};
use crate::verdict::{Event, Promise, Row, judge};

/// Requests a second.
const RATE: u32 = 150;
/// Virtual users, each with a connection it keeps: with [`RATE`] every connection is used twice a second, so
/// that a dead one is found within the second that is promised.
const VIRTUAL_USERS: u32 = 72;
/// Virtual users at most: enough for every request of the timeout to be stuck at once.
const MOST_VIRTUAL_USERS: u32 = 400;
/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Traffic before a fault, and between a fault and the return of what was killed.
const CALM: Duration = Duration::from_secs(3);
/// Length of a run, seconds: calm, fault, calm, return, and the rest to see the return.
const RUN_SECONDS: u32 = 14;
/// Length of the run in peace, seconds.
const PEACE_SECONDS: u32 = 10;
/// Runs of a step at most, when the client could not send what was due.
const ATTEMPTS: u32 = 3;
/// How often the reload step changes each node's configuration, and changes it back.
const RELOADS: usize = 5;
/// A node must serve at least this share of what it would under an even spread.
const LEAST_SHARE: f64 = 0.3;

/// What is done to the chain in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// kill -9, and started again a while later.
    Kill,
    /// SIGTERM: the node drains, ends by itself, and is started again.
    Drain,
    /// The configurations of both tiers change and change back, again and again, without a restart.
    Reload,
    /// A new process takes over from the node's, and the old one ends by itself.
    Upgrade,
}

struct Step {
    name: &'static str,
    fault: Fault,
    node: &'static str,
    promise: Promise,
}

const STEPS: [Step; 8] = [
    Step {
        name: "peace",
        fault: Fault::Nothing,
        node: "",
        promise: Promise::NoFailure,
    },
    Step {
        name: "kill -9 l4-1",
        fault: Fault::Kill,
        node: "l4-1",
        promise: Promise::Recovery,
    },
    Step {
        name: "kill -9 l7-1",
        fault: Fault::Kill,
        node: "l7-1",
        promise: Promise::Recovery,
    },
    Step {
        name: "kill -9 app-1",
        fault: Fault::Kill,
        node: "app-1",
        promise: Promise::Recovery,
    },
    Step {
        name: "kill -9 nats",
        fault: Fault::Kill,
        node: "nats",
        promise: Promise::NoFailure,
    },
    Step {
        name: "drain l7-2",
        fault: Fault::Drain,
        node: "l7-2",
        promise: Promise::NoFailure,
    },
    Step {
        name: "reload l4, l7",
        fault: Fault::Reload,
        node: "",
        promise: Promise::NoFailure,
    },
    Step {
        name: "upgrade l7-1",
        fault: Fault::Upgrade,
        node: "l7-1",
        promise: Promise::NoFailure,
    },
];

/// Names of the steps, in order.
pub fn steps() -> impl Iterator<Item = &'static str> {
    STEPS.iter().map(|step| step.name)
}

/// Runs the steps whose name contains `only` (all, if it is empty), writes `result.json`, and returns the rows.
pub fn prove(chain: &mut Chain, only: &str, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let steps: Vec<&Step> = STEPS
        .iter()
        .filter(|step| step.name.contains(only))
        .collect();
    if steps.is_empty() {
        bail!(
            "no step is called {only}; there are: {}",
            self::steps().collect::<Vec<_>>().join(", ")
        );
    }
    // Whatever was done to it before, a step must begin with all of it.
    chain.wait_whole()?;
    for step in steps {
        say(&format!(
            "{}: {RATE} requests/s over HTTP and HTTPS, {} s",
            step.name,
            step.seconds()
        ));
        let mut row = step.judged(chain, say)?;
        for _ in 1..ATTEMPTS {
            if !row.inconclusive {
                break;
            }
            say(&format!(
                "{}: the client could not send {} requests that were due, so this proves nothing: once more",
                row.step, row.not_sent
            ));
            chain.wait_whole()?;
            row = step.judged(chain, say)?;
        }
        say(&format!(
            "{}: {} requests, {} failed, {}",
            row.step,
            row.requests,
            row.failed,
            row.outcome()
        ));
        rows.push(row);
        write(chain, &rows)?;
        say("waiting for the chain to be whole again");
        chain.wait_whole()?;
    }
    Ok(rows)
}

impl Step {
    fn seconds(&self) -> u32 {
        if self.fault == Fault::Nothing {
            PEACE_SECONDS
        } else {
            RUN_SECONDS
        }
    }

    /// Runs the step and says what it was worth.
    fn judged(&self, chain: &mut Chain, say: &dyn Fn(&str)) -> Result<Row> {
        let before = flows_created(chain)?;
        let (recorded, events) = self
            .run(chain, say)
            .with_context(|| format!("step {}", self.name))?;
        let mut row = judge(self.name, &recorded, &events, self.promise);
        let mut missing = Vec::from_iter(strangers(&recorded.samples));
        if self.fault == Fault::Nothing {
            let after = flows_created(chain)?;
            let (line, uneven) = spread(&recorded.samples, &before, &after);
            say(&line);
            if missing.is_empty() {
                say(&format!(
                    "every application was told the client's true address, {CLIENT}"
                ));
            }
            missing.extend(uneven);
        }
        row.inconclusive &= missing.is_empty();
        row.why.extend(missing);
        row.kept = row.why.is_empty();
        Ok(row)
    }

    fn run(&self, chain: &mut Chain, say: &dyn Fn(&str)) -> Result<(Recorded, Vec<Event>)> {
        let name = self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let load = Load::start(
            chain.lab(),
            &name,
            "steady.js",
            &environment(self.seconds()),
        )?;
        let what = "k6's first request (its log is in logs/)";
        ready::until(what, Duration::from_secs(30), || {
            if load.has_begun() {
                Ok(())
            } else {
                bail!("no sample yet")
            }
        })?;
        let mut events = Vec::new();
        if self.fault != Fault::Nothing {
            interrupt::sleep(CALM)?;
            self.strike(chain, &mut events, say)?;
            interrupt::sleep(CALM)?;
            match self.fault {
                Fault::Nothing | Fault::Reload => {}
                Fault::Kill | Fault::Drain => self.bring_back(chain, &mut events, say)?,
                Fault::Upgrade => chain.wait_taken_over(self.node, say)?,
            }
        }
        let recorded = load.finish(Duration::from_secs(u64::from(self.seconds()) + 30))?;
        Ok((recorded, events))
    }

    fn strike(&self, chain: &mut Chain, events: &mut Vec<Event>, say: &dyn Fn(&str)) -> Result<()> {
        let at = SystemTime::now();
        match self.fault {
            Fault::Nothing => return Ok(()),
            Fault::Kill => {
                chain.processes.kill(self.node)?;
                events.push(event(format!("kill -9 {}", self.node), at, true));
            }
            Fault::Drain => self.drain(chain, at, events, say)?,
            Fault::Reload => reload(chain, at, events, say)?,
            Fault::Upgrade => {
                let process = chain.upgrade(self.node)?;
                events.push(event(format!("upgrade of {}", self.node), at, false));
                say(&format!(
                    "process {process} took over {} after {:.1} s",
                    self.node,
                    at.elapsed().unwrap_or_default().as_secs_f64()
                ));
            }
        }
        Ok(())
    }

    fn drain(
        &self,
        chain: &mut Chain,
        at: SystemTime,
        events: &mut Vec<Event>,
        say: &dyn Fn(&str),
    ) -> Result<()> {
        // Its own deadline cuts what hangs; ten seconds more would be a defect.
        if !chain
            .processes
            .terminate(self.node, Duration::from_secs(15))?
        {
            bail!("{} did not end within 15 s of SIGTERM", self.node);
        }
        events.push(event(format!("drain {}", self.node), at, true));
        say(&format!(
            "{} drained and ended by itself after {:.1} s",
            self.node,
            at.elapsed().unwrap_or_default().as_secs_f64()
        ));
        Ok(())
    }

    fn bring_back(
        &self,
        chain: &mut Chain,
        events: &mut Vec<Event>,
        say: &dyn Fn(&str),
    ) -> Result<()> {
        let begin = SystemTime::now();
        chain.start(self.node)?;
        let mut returned = SystemTime::now();
        if L4.contains(&self.node) {
            // The router moves flows when the next hop appears in its table. The moment noted is the last look at
            // which it was not there yet: earlier than the truth, so that the gap is rather over- than understated.
            let lab = chain.lab().clone();
            let (alive, _) = ready::until(
                "the router to use the node again",
                Duration::from_secs(20),
                || {
                    if let Err(dead) = chain.processes.check_alive(self.node) {
                        return Ok(Err(dead));
                    }
                    let look = SystemTime::now();
                    if router::next_hops(&lab, VIP)?.len() == L4.len() {
                        return Ok(Ok(()));
                    }
                    returned = look;
                    bail!("it is not a next hop");
                },
            )?;
            alive?;
        } else {
            chain.wait_ready(self.node)?;
        }
        let took = begin.elapsed().unwrap_or_default();
        say(&format!(
            "{} is back after {:.1} s",
            self.node,
            took.as_secs_f64()
        ));
        // Flows that ECMP moves onto a returning L4 node are unknown there and end with a reset: a fault like the
        // kill, with the same second. The return of anything else must not be felt at all.
        events.push(event(
            format!("return of {}", self.node),
            returned,
            L4.contains(&self.node),
        ));
        Ok(())
    }
}

/// Reloads both tiers, each node in turn, several times.
fn reload(
    chain: &Chain,
    at: SystemTime,
    events: &mut Vec<Event>,
    say: &dyn Fn(&str),
) -> Result<()> {
    let mut changes = 0;
    for _ in 0..RELOADS {
        for changed in [true, false] {
            for node in L7.iter().chain(&L4) {
                changes += chain.reload(node, changed)?;
            }
        }
    }
    events.push(event("reloads".into(), at, false));
    say(&format!(
        "{} reloads of {} nodes brought about {changes} changes in {:.1} s",
        RELOADS * 2 * (L7.len() + L4.len()),
        L7.len() + L4.len(),
        at.elapsed().unwrap_or_default().as_secs_f64()
    ));
    Ok(())
}

impl Row {
    fn outcome(&self) -> String {
        if self.kept {
            "promise kept".into()
        } else {
            format!("PROMISE BROKEN: {}", self.why.join("; "))
        }
    }
}

fn event(what: String, at: SystemTime, fault: bool) -> Event {
    let at = at
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as u64);
    Event { what, at, fault }
}

/// The environment of the k6 scripts (loadtests/README.md) for the demo's chain.
pub fn environment(seconds: u32) -> Vec<(&'static str, String)> {
    vec![
        ("BASE_URL", format!("http://{VIP},https://{VIP}")),
        (
            "ROUTES_FILE",
            repository()
                .join("deploy/demo/config/requests.json")
                .display()
                .to_string(),
        ),
        ("NODES", APPS.join(",")),
        ("TAGS", "l7=peer,client=headers.x-forwarded-for".into()),
        ("RATE", RATE.to_string()),
        ("VUS", VIRTUAL_USERS.to_string()),
        ("MAX_VUS", MOST_VIRTUAL_USERS.to_string()),
        ("DURATION", format!("{seconds}s")),
        ("TIMEOUT", format!("{}ms", TIMEOUT.as_millis())),
        // Every fourth request of a client ends its connection: new ones are opened all the time, old ones used again.
        ("FRESH", "4".into()),
        ("THRESHOLDS", "off".into()),
    ]
}

/// Names the node of a tier that served a request.
type Served<'a> = &'a dyn Fn(&Sample) -> String;

/// How many flows each L4 node has created for the services behind the VIP, in the order of [`L4`].
fn flows_created(chain: &Chain) -> Result<Vec<u64>> {
    L4.iter().map(|node| chain.flows_created(node)).collect()
}

/// What is wrong if an application took a request for another client's. Under any fault: a request may fail, but not change hands.
fn strangers(samples: &[Sample]) -> Option<String> {
    let client = CLIENT.to_string();
    let mut others = samples
        .iter()
        .filter(|sample| sample.ok && sample.client != client)
        .peekable();
    let first = others.peek()?.client.clone();
    Some(format!(
        "{} requests of {client} reached an application as another's, the first as \"{first}\"'s",
        others.count()
    ))
}

/// Who served: L4 nodes by the flows they created between `before` and `after`, the others as the applications saw it. A line to print, and
/// what is missing from an honest spread.
fn spread(samples: &[Sample], before: &[u64], after: &[u64]) -> (String, Vec<String>) {
    let served: Vec<&Sample> = samples.iter().filter(|sample| sample.ok).collect();
    let mut missing = Vec::new();
    let mut parts = Vec::new();
    let created: Vec<u64> = after
        .iter()
        .zip(before)
        .map(|(after, before)| after.saturating_sub(*before))
        .collect();
    let all = created.iter().sum::<u64>().max(1);
    for (name, flows) in L4.iter().zip(created) {
        let share = flows as f64 / all as f64;
        parts.push(format!("{name} {:.0}%", share * 100.0));
        if share < LEAST_SHARE / L4.len() as f64 {
            missing.push(format!(
                "{name} carried {:.1} % of the connections only",
                share * 100.0
            ));
        }
    }
    let tiers: [(&[&str], Served<'_>); 2] = [
        (&L7, &|sample| sample.l7.clone()),
        (&APPS, &|sample| sample.node.clone()),
    ];
    for (names, of) in tiers {
        let mut counts = BTreeMap::<String, usize>::new();
        for sample in &served {
            *counts.entry(of(sample)).or_default() += 1;
        }
        for name in names {
            let share = counts.get(*name).copied().unwrap_or(0) as f64 / served.len().max(1) as f64;
            parts.push(format!("{name} {:.0}%", share * 100.0));
            if share < LEAST_SHARE / names.len() as f64 {
                missing.push(format!(
                    "{name} served {:.1} % of the requests only",
                    share * 100.0
                ));
            }
        }
    }
    let requested: std::collections::BTreeSet<_> = served
        .iter()
        .map(|sample| (sample.scheme.as_str(), sample.host.as_str()))
        .collect();
    if requested.len() != 6 {
        missing.push(format!(
            "three hosts over two schemes were meant, served were {requested:?}"
        ));
    }
    (format!("served by {}", parts.join(", ")), missing)
}

/// Where the rows are written.
pub fn result_file(chain: &Chain) -> PathBuf {
    chain.lab().directory().join("result.json")
}

fn write(chain: &Chain, rows: &[Row]) -> Result<()> {
    let path = result_file(chain);
    fs::write(&path, serde_json::to_string_pretty(rows)? + "\n")
        .with_context(|| format!("writing {}", path.display()))
}

/// The rows as a table.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<15} {:>8} {:>6} {:>14} {:>7} {:>7}  {:<32} {}\n",
        "step", "requests", "failed", "longest gap ms", "p50 ms", "p99 ms", "promise", "kept"
    );
    for row in rows {
        text += &format!(
            "{:<15} {:>8} {:>6} {:>14} {:>7.1} {:>7.1}  {:<32} {}\n",
            row.step,
            row.requests,
            row.failed,
            row.longest_gap_ms,
            row.p50_ms,
            row.p99_ms,
            row.promise,
            if row.kept { "yes" } else { "NO" }
        );
        for why in &row.why {
            text += &format!("{:<15}   {why}\n", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(l7: &str, app: &str, scheme: &str, host: &str) -> Sample {
        Sample {
            ok: true,
            client: "10.1.0.10".into(),
            l7: l7.into(),
            node: app.into(),
            scheme: scheme.into(),
            host: host.into(),
            ..Sample::default()
        }
    }

    fn even() -> Vec<Sample> {
        let mut samples = Vec::new();
        for l7 in L7 {
            for app in APPS {
                for scheme in ["http", "https"] {
                    for host in ["a", "b", "c"] {
                        samples.push(sample(l7, app, scheme, host));
                    }
                }
            }
        }
        samples
    }

    #[test]
    fn an_even_spread_is_accepted() {
        let (line, missing) = spread(&even(), &[7, 100], &[57, 150]);
        assert!(missing.is_empty(), "{missing:?}");
        assert!(
            line.contains("l4-2 50%") && line.contains("app-3 33%"),
            "{line}"
        );
    }

    #[test]
    fn a_node_that_serves_next_to_nothing_is_named() {
        let samples: Vec<Sample> = even()
            .into_iter()
            .filter(|sample| sample.l7 != "l7-2")
            .collect();
        let (_, missing) = spread(&samples, &[0, 0], &[50, 50]);
        assert_eq!(missing, ["l7-2 served 0.0 % of the requests only"]);
        let (_, missing) = spread(&even(), &[90, 0], &[100, 90]);
        assert_eq!(missing, ["l4-1 carried 10.0 % of the connections only"]);
        assert_eq!(spread(&even(), &[9, 9], &[9, 9]).1.len(), 2);
    }

    #[test]
    fn a_host_nobody_asked_for_is_missed() {
        let samples: Vec<Sample> = even()
            .into_iter()
            .filter(|sample| sample.host != "c")
            .collect();
        assert_eq!(spread(&samples, &[0, 0], &[50, 50]).1.len(), 1);
    }

    #[test]
    fn a_request_taken_for_another_clients_is_seen() {
        let mut samples = even();
        assert_eq!(strangers(&samples), None);
        samples[3].client = "10.3.0.100".into();
        samples[5].client = String::new();
        assert_eq!(
            strangers(&samples).as_deref(),
            Some(
                "2 requests of 10.1.0.10 reached an application as another's, the first as \"10.3.0.100\"'s"
            )
        );
        // One that failed reached nobody.
        samples[3].ok = false;
        samples[5].ok = false;
        assert_eq!(strangers(&samples), None);
    }
}
