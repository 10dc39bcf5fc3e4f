//! How much comes a second, estimated as LVS does it (`ip_vs_est.c`): every two seconds a quarter of the way from the estimate before to
//! what these two seconds had. A step is shown to 90 % after 16 s.
//!
//! What a name that is new had before it was first looked at doesn't count, so a number that is given out again begins at nothing.

use std::time::Duration;

use dataplane::{ServiceCounts, TargetCounts};
use serde::{Serialize, Serializer};

use crate::by_number::{ByNumber, Number};

/// Between two looks. They are taken by a clock that ticks each second, so a little less is enough.
const INTERVAL: Duration = Duration::from_millis(1_750);

/// The weight of what a look finds.
const WEIGHT: f64 = 0.25;

/// What is estimated of: counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    connections: u64,
    packets_in: u64,
    packets_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// A second's worth of each.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Rates {
    /// Flows created.
    #[serde(serialize_with = "rounded")]
    pub connections: f64,
    /// Packets from clients.
    #[serde(serialize_with = "rounded")]
    pub packets_in: f64,
    /// Packets to clients.
    #[serde(serialize_with = "rounded")]
    pub packets_out: f64,
    /// IP bytes from clients.
    #[serde(serialize_with = "rounded")]
    pub bytes_in: f64,
    /// IP bytes to clients.
    #[serde(serialize_with = "rounded")]
    pub bytes_out: f64,
}

/// The estimates of services, or of targets.
#[derive(Debug, Default)]
pub struct Estimates {
    looked_at: Option<Duration>,
    known: ByNumber<Estimate>,
}

#[derive(Debug, Clone, Copy)]
struct Estimate {
    totals: Totals,
    /// None after one look.
    rates: Option<Rates>,
}

impl Estimates {
    /// Whether it is time for a look.
    pub fn is_due(&self, now: Duration) -> bool {
        self.looked_at
            .is_none_or(|before| now.saturating_sub(before) >= INTERVAL)
    }

    /// Looks at all there are; what is not among them is forgotten.
    pub fn look<N: Number>(&mut self, now: Duration, all: impl Iterator<Item = (N, Totals)>) {
        let since = self.looked_at.replace(now);
        let seconds = since.map_or(0.0, |since| now.saturating_sub(since).as_secs_f64());
        self.known.begin();
        for (of, totals) in all {
            self.known.note(&of, |before| {
                let known = before.filter(|_| seconds > 0.0);
                let rates = known.map(|known| {
                    let seen = totals.since(&known.totals, seconds);
                    known.rates.map_or(seen, |before| before.towards(&seen))
                });
                Estimate { totals, rates }
            });
        }
    }

    /// The estimate; zeros for what was not looked at twice yet.
    pub fn of(&self, of: &impl Number) -> Rates {
        let known = self.known.of(of).and_then(|known| known.rates);
        known.unwrap_or_default()
    }
}

impl Totals {
    /// Counters wrap.
    fn since(&self, before: &Totals, seconds: f64) -> Rates {
        let rate = |of: fn(&Totals) -> u64| of(self).wrapping_sub(of(before)) as f64 / seconds;
        Rates {
            connections: rate(|totals| totals.connections),
            packets_in: rate(|totals| totals.packets_in),
            packets_out: rate(|totals| totals.packets_out),
            bytes_in: rate(|totals| totals.bytes_in),
            bytes_out: rate(|totals| totals.bytes_out),
        }
    }
}

impl Rates {
    fn towards(&self, seen: &Rates) -> Rates {
        let step = |of: fn(&Rates) -> f64| of(self) + (of(seen) - of(self)) * WEIGHT;
        Rates {
            connections: step(|rates| rates.connections),
            packets_in: step(|rates| rates.packets_in),
            packets_out: step(|rates| rates.packets_out),
            bytes_in: step(|rates| rates.bytes_in),
            bytes_out: step(|rates| rates.bytes_out),
        }
    }
}

impl From<ServiceCounts> for Totals {
    fn from(counts: ServiceCounts) -> Totals {
        Totals {
            connections: counts.flows_created,
            packets_in: counts.packets_in,
            packets_out: counts.packets_out,
            bytes_in: counts.bytes_in,
            bytes_out: counts.bytes_out,
        }
    }
}

impl From<TargetCounts> for Totals {
    fn from(counts: TargetCounts) -> Totals {
        Totals {
            connections: counts.flows_created,
            packets_in: counts.packets_in,
            packets_out: counts.packets_out,
            bytes_in: counts.bytes_in,
            bytes_out: counts.bytes_out,
        }
    }
}

/// To hundredths: an estimate is no better, and one of nothing comes down to 0.
fn rounded<S: Serializer>(rate: &f64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((rate * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use dataplane::ServiceId;

    use super::*;

    const WEB: ServiceId = ServiceId(3);

    fn totals(packets_in: u64) -> Totals {
        Totals {
            connections: packets_in / 10,
            packets_in,
            packets_out: packets_in * 2,
            bytes_in: packets_in * 40,
            bytes_out: packets_in * 1_000,
        }
    }

    fn looked(looks: &[(u64, Option<u64>)]) -> Rates {
        let mut estimates = Estimates::default();
        for (seconds, packets) in looks {
            let all = packets.map(|packets| (WEB, totals(packets)));
            estimates.look(Duration::from_secs(*seconds), all.into_iter());
        }
        estimates.of(&WEB)
    }

    #[test]
    fn a_steady_rate_is_known_from_the_second_look_on() {
        assert_eq!(looked(&[(0, Some(5_000))]), Rates::default());
        let steady = Rates {
            connections: 10.0,
            packets_in: 100.0,
            packets_out: 200.0,
            bytes_in: 4_000.0,
            bytes_out: 100_000.0,
        };
        assert_eq!(looked(&[(0, Some(5_000)), (2, Some(5_200))]), steady);
        let on = [(0, Some(0)), (2, Some(200)), (4, Some(400)), (7, Some(700))];
        assert_eq!(looked(&on), steady);
    }

    #[test]
    fn a_change_is_followed_by_a_quarter_each_time() {
        let began = [(0, Some(0)), (2, Some(0)), (4, Some(200))];
        assert_eq!(looked(&began).packets_in, 25.0);
        let more = [&began[..], &[(6, Some(400))]].concat();
        assert_eq!(looked(&more).packets_in, 43.75);
        // 16 s after a step.
        let mut long = vec![(0, Some(0)), (2, Some(0))];
        long.extend((1..=8).map(|n| (2 + 2 * n, Some(200 * n))));
        let rate = looked(&long).packets_in;
        assert!((89.0..91.0).contains(&rate), "{rate}");
        // It ends, and is shown as nothing after a while.
        let mut ended = vec![(0, Some(0)), (2, Some(2_000))];
        ended.extend((1..=60).map(|n| (2 + 2 * n, Some(2_000))));
        let shown = serde_json::to_value(looked(&ended)).unwrap();
        assert_eq!(shown["packets_in"], 0.0, "{shown}");
    }

    #[test]
    fn what_was_gone_begins_anew_and_counters_may_wrap() {
        let away = [
            (0, Some(0)),
            (2, Some(200)),
            (4, None),
            (6, Some(1_000_000)),
        ];
        assert_eq!(looked(&away), Rates::default());
        let mut estimates = Estimates::default();
        let at = |packets_in| Totals {
            packets_in,
            ..Totals::default()
        };
        estimates.look(Duration::ZERO, [(WEB, at(u64::MAX - 99))].into_iter());
        estimates.look(Duration::from_secs(2), [(WEB, at(100))].into_iter());
        assert_eq!(estimates.of(&WEB).packets_in, 100.0);
    }

    #[test]
    fn looks_are_two_ticks_of_a_second_apart() {
        let mut estimates = Estimates::default();
        assert!(estimates.is_due(Duration::ZERO));
        estimates.look(Duration::from_millis(10), [(WEB, totals(0))].into_iter());
        assert!(!estimates.is_due(Duration::from_millis(1_020)));
        assert!(estimates.is_due(Duration::from_millis(2_005)));
    }
}
