//! What a run was worth: requests in, a verdict out. Pure.
//!
//! **The promise for a kill.** *New requests succeed again within one second.* Each failed request is laid at the
//! door of the last fault before it was begun. The outage of a fault runs from the moment of the fault to the
//! begin of the last failed request it answers for; requests that were already running at that moment may fail
//! (their connection died with the node) and are counted, but they were not new. So one failed request two
//! seconds after the kill, alone among thousands, breaks the promise, whatever else succeeded in between. Beside
//! that, no stretch without any success may last longer than the promise allows. `longest_gap_ms` is the
//! larger of both.
//!
//! **The promise for the others.** *No failed request.* `longest_gap_ms` is then the longest stretch without a
//! success, for information.
//!
//! A request has failed when its status, its body or the node that served it is not as expected, and when it took
//! longer than the timeout. A run in which more than one in a hundred requests could not even be sent, because the client
//! stood still or all its virtual users were waiting for answers, proves nothing and keeps no promise; if nothing else is
//! wrong with it, it is worth another try.

use serde::Serialize;

use crate::k6::{Recorded, Sample};

/// What is promised about a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Not one request fails.
    NoFailure,
    /// New requests succeed again within a second of each fault.
    Recovery,
}

impl Promise {
    /// Longest gap allowed under [`Promise::Recovery`], milliseconds.
    pub const RECOVERY_MS: u64 = 1000;

    fn text(self) -> &'static str {
        match self {
            Promise::NoFailure => "no failed request",
            Promise::Recovery => "new requests succeed within 1 s",
        }
    }
}

/// Something that was done to the chain during a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// What: `kill -9 l4-1`.
    pub what: String,
    /// When: microseconds since the epoch.
    pub at: u64,
    /// Whether failures begun after it are its doing. A return that must not be felt is not a fault.
    pub fault: bool,
}

/// One row of the proof: one step of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Name of the step.
    pub step: String,
    /// Requests sent.
    pub requests: usize,
    /// Requests that failed.
    pub failed: usize,
    /// Requests that were due and could not be sent.
    pub not_sent: usize,
    /// The longest gap, see the module's text; milliseconds.
    pub longest_gap_ms: u64,
    /// Median time of a successful request, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of a successful request, milliseconds.
    pub p99_ms: f64,
    /// What was promised.
    pub promise: String,
    /// Whether it was kept.
    pub kept: bool,
    /// Why not, if it was not.
    pub why: Vec<String>,
    /// Nothing is wrong with the run but that too much could not be sent.
    pub inconclusive: bool,
    /// Failed requests by reason.
    pub reasons: std::collections::BTreeMap<String, usize>,
    /// What was done meanwhile.
    pub events: Vec<Event>,
}

/// Judges a run; `events` are in the order they happened.
pub fn judge(step: &str, run: &Recorded, events: &[Event], promise: Promise) -> Row {
    let samples = run.samples.as_slice();
    let failed: Vec<&Sample> = samples.iter().filter(|sample| !sample.ok).collect();
    let mut why = Vec::new();
    let silence = longest_silence(samples);
    let mut longest = silence;
    match promise {
        Promise::NoFailure => {
            if !failed.is_empty() {
                why.push(format!("{} requests failed", failed.len()));
            }
        }
        Promise::Recovery => {
            if silence > Promise::RECOVERY_MS * 1000 {
                why.push(format!("no request succeeded for {} ms", silence / 1000));
            }
            let (outages, unexplained) = outages(&failed, events);
            for (what, outage) in outages {
                longest = longest.max(outage);
                if outage > Promise::RECOVERY_MS * 1000 {
                    why.push(format!(
                        "requests begun {} ms after {what} still failed",
                        outage / 1000
                    ));
                }
            }
            if unexplained > 0 {
                why.push(format!("{unexplained} requests failed before any fault"));
            }
            for event in events.iter().filter(|event| event.fault) {
                // Without traffic on both sides of a fault, recovery was not measured but assumed.
                let begun = |from: u64, to: u64| {
                    samples
                        .iter()
                        .any(|sample| (from..to).contains(&sample.start))
                };
                let second = Promise::RECOVERY_MS * 1000;
                if !begun(event.at.saturating_sub(second), event.at)
                    || !begun(event.at + second, u64::MAX)
                {
                    why.push(format!(
                        "there was no traffic before and after {}",
                        event.what
                    ));
                }
            }
        }
    }
    if samples.is_empty() {
        why.push("no request was sent".into());
    }
    let starved = run.not_sent * 100 > samples.len();
    let inconclusive = starved && why.is_empty();
    if starved {
        why.push(format!(
            "{} more requests were due and could not be sent",
            run.not_sent
        ));
    }
    let mut times: Vec<u64> = samples
        .iter()
        .filter(|sample| sample.ok)
        .map(|sample| sample.elapsed)
        .collect();
    times.sort_unstable();
    let mut reasons = std::collections::BTreeMap::new();
    for sample in &failed {
        *reasons.entry(sample.reason.clone()).or_insert(0) += 1;
    }
    Row {
        step: step.to_owned(),
        requests: samples.len(),
        failed: failed.len(),
        not_sent: run.not_sent,
        longest_gap_ms: longest.div_ceil(1000),
        p50_ms: percentile(&times, 50),
        p99_ms: percentile(&times, 99),
        promise: promise.text().to_owned(),
        kept: why.is_empty(),
        why,
        inconclusive,
        reasons,
        events: events.to_vec(),
    }
}

/// The longest time between two successes, microseconds; the begin and the end of the run bound it too.
fn longest_silence(samples: &[Sample]) -> u64 {
    let (Some(first), Some(last)) = (samples.first(), samples.iter().map(Sample::end).max()) else {
        return 0;
    };
    let mut ends: Vec<u64> = samples
        .iter()
        .filter(|sample| sample.ok)
        .map(Sample::end)
        .collect();
    ends.push(last);
    ends.sort_unstable();
    let mut before = first.start;
    let mut longest = 0;
    for end in ends {
        longest = longest.max(end.saturating_sub(before));
        before = end;
    }
    longest
}

/// The outage of each fault, microseconds, and how many failed requests no fault accounts for.
fn outages(failed: &[&Sample], events: &[Event]) -> (Vec<(String, u64)>, usize) {
    let faults: Vec<&Event> = events.iter().filter(|event| event.fault).collect();
    let mut outages: Vec<(String, u64)> =
        faults.iter().map(|fault| (fault.what.clone(), 0)).collect();
    let mut unexplained = 0;
    for sample in failed {
        if let Some(index) = faults.iter().rposition(|fault| fault.at <= sample.start) {
            outages[index].1 = outages[index].1.max(sample.start - faults[index].at);
        } else if !faults
            .iter()
            .any(|fault| (sample.start..=sample.end()).contains(&fault.at))
        {
            unexplained += 1;
        }
    }
    (outages, unexplained)
}

/// The `percent`th percentile (nearest rank) of sorted microseconds, in milliseconds.
fn percentile(sorted: &[u64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted
        .get(rank.saturating_sub(1))
        .map_or(0.0, |micros| *micros as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1000;

    /// A request every 10 ms for six seconds, each taking 5 ms; those begun within a span of `bad` fail.
    fn run(bad: &[(u64, u64)]) -> Recorded {
        let samples = (0..600)
            .map(|n| n * 10)
            .map(|begin| Sample {
                start: begin * MS,
                elapsed: 5 * MS,
                ok: !bad.iter().any(|(from, to)| (*from..*to).contains(&begin)),
                ..Sample::default()
            })
            .collect();
        Recorded {
            samples,
            not_sent: 0,
        }
    }

    fn kill(at_ms: u64) -> Event {
        Event {
            what: "kill".into(),
            at: at_ms * MS,
            fault: true,
        }
    }

    #[test]
    fn a_clean_run_keeps_both_promises() {
        let row = judge("peace", &run(&[]), &[], Promise::NoFailure);
        assert!(row.kept, "{:?}", row.why);
        assert_eq!((row.requests, row.failed, row.longest_gap_ms), (600, 0, 10));
        assert_eq!((row.p50_ms, row.p99_ms), (5.0, 5.0));
        assert!(judge("kill", &run(&[]), &[kill(2000)], Promise::Recovery).kept);
    }

    #[test]
    fn one_failed_request_breaks_the_promise_of_none() {
        assert!(!judge("peace", &run(&[(1000, 1001)]), &[], Promise::NoFailure).kept);
    }

    #[test]
    fn failures_within_a_second_of_the_kill_are_a_gap_that_is_allowed() {
        let row = judge(
            "kill",
            &run(&[(2000, 2810)]),
            &[kill(2000)],
            Promise::Recovery,
        );
        assert!(row.kept, "{:?}", row.why);
        assert_eq!((row.failed, row.longest_gap_ms), (81, 820));
    }

    #[test]
    fn a_lone_failure_long_after_the_kill_breaks_the_promise() {
        let row = judge(
            "kill",
            &run(&[(2000, 2100), (4500, 4501)]),
            &[kill(2000)],
            Promise::Recovery,
        );
        assert!(!row.kept);
        assert_eq!(row.longest_gap_ms, 2500);
    }

    #[test]
    fn failures_before_any_fault_break_the_promise() {
        assert!(
            !judge(
                "kill",
                &run(&[(500, 520)]),
                &[kill(2000)],
                Promise::Recovery
            )
            .kept
        );
    }

    #[test]
    fn a_request_running_at_the_moment_of_the_kill_may_fail() {
        let mut recorded = run(&[]);
        recorded.samples[150].ok = false;
        recorded.samples[150].elapsed = 700 * MS;
        let row = judge("kill", &recorded, &[kill(2000)], Promise::Recovery);
        assert!(row.kept, "{:?}", row.why);
        assert_eq!(row.failed, 1);
    }

    #[test]
    fn a_failure_after_an_unfelt_return_is_still_charged_to_the_kill() {
        let back = Event {
            what: "return".into(),
            at: 4000 * MS,
            fault: false,
        };
        let row = judge(
            "kill",
            &run(&[(4100, 4101)]),
            &[kill(2000), back],
            Promise::Recovery,
        );
        assert!(!row.kept);
    }

    #[test]
    fn each_fault_has_a_second_of_its_own() {
        let faults = [kill(1000), kill(4000)];
        assert!(
            judge(
                "kill",
                &run(&[(1000, 1900), (4000, 4900)]),
                &faults,
                Promise::Recovery
            )
            .kept
        );
    }

    #[test]
    fn slow_successes_do_not_hide_a_silence() {
        let mut recorded = run(&[]);
        for sample in recorded
            .samples
            .iter_mut()
            .filter(|sample| (2000 * MS..3500 * MS).contains(&sample.start))
        {
            sample.elapsed = 3500 * MS - sample.start;
        }
        let row = judge("kill", &recorded, &[kill(2000)], Promise::Recovery);
        assert!(!row.kept);
        assert_eq!(row.longest_gap_ms, 1505);
    }

    #[test]
    fn a_run_that_ended_before_the_fault_proves_nothing() {
        assert!(!judge("kill", &run(&[]), &[kill(5990)], Promise::Recovery).kept);
        assert!(!judge("peace", &Recorded::default(), &[], Promise::NoFailure).kept);
    }

    #[test]
    fn a_client_that_could_not_send_proves_nothing() {
        let recorded = Recorded {
            not_sent: 6,
            ..run(&[])
        };
        assert!(judge("peace", &recorded, &[], Promise::NoFailure).kept);
        let recorded = Recorded {
            not_sent: 7,
            ..run(&[])
        };
        let row = judge("peace", &recorded, &[], Promise::NoFailure);
        assert!(!row.kept && row.inconclusive);
    }

    #[test]
    fn a_failed_request_is_not_excused_by_a_client_that_could_not_send() {
        let recorded = Recorded {
            not_sent: 7,
            ..run(&[(300, 310)])
        };
        let row = judge("peace", &recorded, &[], Promise::NoFailure);
        assert!(!row.kept && !row.inconclusive);
    }
}
