//! When to believe probes: outcomes go in, the state and whether to ask again soon come out.
//!
//! - The first conclusive outcome decides at once (a failure after its retries), so that a restarted node does not wait
//!   `rise` intervals before it forwards. From then on `rise` successes or `fall` failures *in a row* are needed: a target
//!   that answers every other probe stays as it is.
//! - A failure is repeated `retries` times, `retry_delay` apart, before it counts. Only what could take a target down is
//!   worth repeating: a target that is down already waits for its next interval.
//! - [`Outcome::Unknown`] (this node could not ask) changes nothing: "I don't know" never becomes "down".
//! - [`Outcome::Silence`] (a UDP target said nothing, and need not) keeps a target up, and lets one that is down back up
//!   after `rise` of them in a row, three at least: a down target is one whose port was reported closed, a silent one no
//!   longer is; but such reports are rate-limited, so that one missing report proves little.

use std::fmt;

/// Silences in a row that bring a target back up, if `rise` does not ask for more.
const SILENT_RISE: u32 = 3;

/// Whether a target may be given traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Serves.
    Up,
    /// Does not serve.
    Down,
}

impl State {
    /// True for [`State::Up`].
    pub fn is_up(self) -> bool {
        self == State::Up
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            State::Up => "up",
            State::Down => "down",
        })
    }
}

/// The rules of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Successes in a row that bring a target up, at least 1.
    pub rise: u32,
    /// Failures in a row that take a target down, at least 1.
    pub fall: u32,
    /// Repetitions before a failure counts.
    pub retries: u32,
    /// The state before the first conclusive outcome.
    pub initially: State,
}

/// What one probe says about its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The target answered as it should.
    Success,
    /// The target refused, answered wrongly or not in time.
    Failure,
    /// The target said nothing, which its protocol allows.
    Silence,
    /// The probe could not be made, for a reason on this node.
    Unknown,
}

/// What follows from one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The new state, when it changed.
    pub change: Option<State>,
    /// When to probe again.
    pub next: Next,
}

/// When to probe again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At the usual interval.
    Interval,
    /// After the retry delay.
    Retry,
}

/// The state of one target under its [`Thresholds`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    rules: Thresholds,
    state: State,
    /// False until a conclusive outcome: until then one is enough.
    decided: bool,
    /// Counted outcomes in a row that contradict `state`.
    against: u32,
    /// Silences in a row while down.
    silences: u32,
    /// Repetitions made of the failure in hand.
    retried: u32,
}

impl Threshold {
    /// A target nothing is known about yet.
    pub fn new(rules: Thresholds) -> Threshold {
        Threshold {
            rules,
            state: rules.initially,
            decided: false,
            against: 0,
            silences: 0,
            retried: 0,
        }
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.state
    }

    /// False until a probe came to a conclusion: the state is then still the one configured.
    pub fn decided(&self) -> bool {
        self.decided
    }

    /// Changes the rules, keeping what is known. Counting starts anew, as the old counts were made under other rules.
    pub fn set_rules(&mut self, rules: Thresholds) {
        if !self.decided {
            self.state = rules.initially;
        }
        self.rules = rules;
        self.start_counting();
    }

    /// Takes in the outcome of one probe.
    pub fn observe(&mut self, outcome: Outcome) -> Step {
        let before = self.state;
        let next = match outcome {
            Outcome::Success => self.succeeded(),
            Outcome::Failure => self.failed(),
            Outcome::Silence => self.silent(),
            Outcome::Unknown => Next::Interval,
        };
        let change = (self.state != before).then_some(self.state);
        debug_assert!(
            change.is_none() || self.decided,
            "the state changes by a conclusive outcome only"
        );
        debug_assert!(
            change.is_none() || next == Next::Interval,
            "a change ends the retries"
        );
        debug_assert!(
            !self.decided || self.against < self.needed(),
            "a reached threshold is acted on"
        );
        Step { change, next }
    }

    fn succeeded(&mut self) -> Next {
        self.retried = 0;
        self.silences = 0;
        match self.state {
            State::Up => self.against = 0,
            State::Down => self.against += 1,
        }
        self.conclude(State::Up);
        Next::Interval
    }

    fn failed(&mut self) -> Next {
        self.silences = 0;
        let down_already = self.decided && self.state == State::Down;
        if !down_already && self.retried < self.rules.retries {
            self.retried += 1;
            return Next::Retry;
        }
        self.retried = 0;
        match self.state {
            State::Up => self.against += 1,
            State::Down => self.against = 0,
        }
        self.conclude(State::Down);
        Next::Interval
    }

    fn silent(&mut self) -> Next {
        if self.decided && self.state == State::Down {
            self.silences += 1;
            if self.silences >= self.rules.rise.max(SILENT_RISE) {
                self.enter(State::Up);
            }
        }
        Next::Interval
    }

    fn conclude(&mut self, towards: State) {
        if !self.decided || (self.state != towards && self.against >= self.needed()) {
            self.enter(towards);
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.decided = true;
        self.start_counting();
    }

    fn start_counting(&mut self) {
        self.against = 0;
        self.silences = 0;
        self.retried = 0;
    }

    /// Counted outcomes in a row that change the state.
    fn needed(&self) -> u32 {
        match self.state {
            State::Up => self.rules.fall,
            State::Down => self.rules.rise,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threshold(rise: u32, fall: u32, retries: u32, initially: State) -> Threshold {
        Threshold::new(Thresholds {
            rise,
            fall,
            retries,
            initially,
        })
    }

    /// Feeds `outcomes` (`+` success, `-` failure, `.` silence, `?` unknown) and writes what followed: the state after each,
    /// `U` or `D`, in lower case where a retry was asked for.
    fn walk(threshold: &mut Threshold, outcomes: &str) -> String {
        let mut trace = String::new();
        for outcome in outcomes.chars() {
            let before = threshold.state();
            let step = threshold.observe(match outcome {
                '+' => Outcome::Success,
                '-' => Outcome::Failure,
                '.' => Outcome::Silence,
                _ => Outcome::Unknown,
            });
            assert_eq!(
                step.change,
                (before != threshold.state()).then(|| threshold.state())
            );
            let letter = if threshold.state().is_up() { 'U' } else { 'D' };
            trace.push(if step.next == Next::Retry {
                letter.to_ascii_lowercase()
            } else {
                letter
            });
        }
        trace
    }

    #[test]
    fn outcomes_lead_to_states() {
        use State::{Down, Up};
        // What it shows; rise, fall, retries and the initial state; the outcomes; the states that follow.
        let table = [
            (
                "the first success decides at once",
                (3, 3, 0, Down),
                "+",
                "U",
            ),
            ("the first failure decides at once", (3, 3, 0, Up), "-", "D"),
            (
                "fall failures in a row take down",
                (1, 3, 0, Up),
                "+---",
                "UUUD",
            ),
            (
                "rise successes in a row bring up",
                (3, 1, 0, Up),
                "+-+++",
                "UDDDU",
            ),
            (
                "a success between failures starts the count anew",
                (1, 3, 0, Up),
                "+--+--+---",
                "UUUUUUUUUD",
            ),
            (
                "a failure between successes starts the count anew",
                (2, 1, 0, Up),
                "-+-+-++",
                "DDDDDDU",
            ),
            (
                "a flapping target stays as it is",
                (2, 2, 0, Up),
                "+-+-+-+-",
                "UUUUUUUU",
            ),
            (
                "a failure counts after its retries",
                (1, 1, 2, Up),
                "+---",
                "UuuD",
            ),
            (
                "a success during the retries forgives",
                (1, 1, 2, Up),
                "+--+--+",
                "UuuUuuU",
            ),
            ("each failure is retried", (1, 2, 1, Up), "+----", "UuUuD"),
            (
                "the first verdict waits for its retries",
                (1, 1, 1, Up),
                "--",
                "uD",
            ),
            (
                "a target that is down is not retried",
                (1, 1, 3, Up),
                "-----",
                "uuuDD",
            ),
            ("unknown changes nothing", (1, 2, 0, Up), "+-?-", "UUUD"),
            ("unknown is no first verdict", (2, 2, 0, Down), "??+", "DDU"),
            (
                "unknown keeps the retries made",
                (1, 1, 1, Up),
                "+-?-",
                "UuUD",
            ),
            (
                "silence keeps a target up for ever",
                (1, 1, 0, Up),
                "........",
                "UUUUUUUU",
            ),
            (
                "silence is no first verdict",
                (1, 1, 0, Down),
                "...+",
                "DDDU",
            ),
            (
                "silence does not forgive failures",
                (1, 2, 0, Up),
                "+-.-",
                "UUUD",
            ),
            (
                "three silences bring a target back",
                (1, 1, 0, Up),
                "-...",
                "DDDU",
            ),
            (
                "rise silences where rise asks for more",
                (5, 1, 0, Up),
                "-.....",
                "DDDDDU",
            ),
            (
                "a failure among silences starts the count anew",
                (1, 1, 0, Up),
                "-..-...",
                "DDDDDDU",
            ),
        ];
        for (what, (rise, fall, retries, initially), outcomes, expected) in table {
            let mut threshold = threshold(rise, fall, retries, initially);
            assert_eq!(walk(&mut threshold, outcomes), expected, "{what}");
        }
    }

    #[test]
    fn every_sequence_obeys_rise_and_fall() {
        // All sequences of eight outcomes, against the rule said the slow way: a change needs a full run of contradicting ones.
        for rise in 1..=3u32 {
            for fall in 1..=3u32 {
                for bits in 0..256u32 {
                    let mut threshold = threshold(rise, fall, 0, State::Up);
                    let outcomes: Vec<bool> =
                        (0..8).map(|index| bits & (1 << index) != 0).collect();
                    let mut expected = outcomes[0];
                    let mut run = 0;
                    for (index, success) in outcomes.iter().enumerate() {
                        let outcome = if *success {
                            Outcome::Success
                        } else {
                            Outcome::Failure
                        };
                        threshold.observe(outcome);
                        if index > 0 {
                            run = if *success == expected { 0 } else { run + 1 };
                            if run == if expected { fall } else { rise } {
                                expected = !expected;
                                run = 0;
                            }
                        }
                        assert_eq!(
                            threshold.state().is_up(),
                            expected,
                            "rise {rise} fall {fall} {outcomes:?} at {index}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn changed_rules_keep_the_state() {
        let mut threshold = threshold(1, 3, 0, State::Down);
        assert_eq!(walk(&mut threshold, "+--"), "UUU");
        threshold.set_rules(Thresholds {
            rise: 1,
            fall: 2,
            retries: 0,
            initially: State::Down,
        });
        assert_eq!(
            walk(&mut threshold, "--"),
            "UD",
            "up is kept, counting starts anew"
        );
    }
}
