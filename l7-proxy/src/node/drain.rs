//! How a node leaves without losing a request: a pure clockwork that the supervisor winds and everything that serves reads.
//!
//! ```text
//!            start                 grace over               deadline over
//! Serving ----------> Grace ----------------> Closing ----------------------> Ended
//!    ^                  |                        |                              |
//!    +------------------+---- cancel (unless the process is to exit) -----------+
//! ```
//! - **Grace**: no longer ready, the registration says draining; new connections are still taken, because the L4 tier learns of it only
//!   now. Answers carry `Connection: close`, HTTP/2 connections get GOAWAY, so clients move over by themselves.
//! - **Closing**: connections that lie idle are closed; the others after the answer they wait for. A node that is to exit stops
//!   accepting here.
//! - **Ended**: what is still open is cut; of a node that stays, only what was open when the drain began.

use std::time::{Duration, Instant};

use crate::config::Drain as Settings;
use crate::exchange::{Course, Phase};

/// The drain of one node.
#[derive(Clone, Debug)]
pub struct Drain {
    settings: Settings,
    since: Option<Instant>,
    exiting: bool,
    handed_over: bool,
    /// After it was handed over: the time from its beginning to its end, in the deadline's place.
    cut_after: Option<Duration>,
}

impl Drain {
    /// A node that serves.
    pub fn new(settings: Settings) -> Drain {
        Drain {
            settings,
            since: None,
            exiting: false,
            handed_over: false,
            cut_after: None,
        }
    }

    /// Another process accepts in this one's place. This one asks its clients to move over from now on, as in the grace of a drain; whoever does
    /// not, such as a WebSocket, has until `upgrade_deadline`, or until the process is [hurried](Self::hurry).
    pub fn hand_over(&mut self, now: Instant) {
        self.handed_over = true;
        self.exiting = true;
        self.since = Some(now);
        self.cut_after = Some(self.settings.upgrade_deadline);
    }

    /// The process that was handed over is to end all the same: those still there have until `deadline` from now.
    pub fn hurry(&mut self, now: Instant) {
        if let (Some(since), Some(cut_after)) = (self.since, self.cut_after) {
            let passed = now.saturating_duration_since(since);
            self.cut_after = Some(cut_after.min(passed + self.settings.deadline));
        }
    }

    fn deadline(&self) -> Duration {
        self.cut_after.unwrap_or(self.settings.deadline)
    }

    /// Goes by other times, in a drain under way too.
    pub fn reconfigure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Starts draining; one that is under way goes on as it is. With `exit` the process is to end after it: if the grace is over, what
    /// has come since still gets the whole time from there to the deadline.
    pub fn start(&mut self, now: Instant, exit: bool) {
        let since = self.since.get_or_insert(now);
        if exit && !self.exiting {
            self.exiting = true;
            *since = (*since).max(now.checked_sub(self.settings.grace).unwrap_or(now));
        }
    }

    /// Serves again, unless the process is about to exit. True when that changed something.
    pub fn cancel(&mut self) -> bool {
        !self.exiting && self.since.take().is_some()
    }

    /// Where it stands.
    pub fn course(&self, now: Instant) -> Course {
        let phase = match self.since.map(|since| now.saturating_duration_since(since)) {
            None => Phase::Serving,
            Some(passed) if passed < self.settings.grace => Phase::Grace,
            Some(passed) if passed < self.deadline() => Phase::Closing,
            Some(_) => Phase::Ended,
        };
        Course {
            phase,
            exiting: self.exiting,
            handed_over: self.handed_over,
        }
    }

    /// Whether the process may exit: it is to, the grace is over, and nothing is open any more or the deadline has passed by a second
    /// (in which what was cut writes its log lines).
    pub fn finished(&self, now: Instant, connections: usize) -> bool {
        let course = self.course(now);
        let overdue = self.since.is_some_and(|since| {
            now.saturating_duration_since(since) >= self.deadline() + Duration::from_secs(1)
        });
        course.exiting && (overdue || course.phase >= Phase::Closing && connections == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        grace: Duration::from_secs(5),
        deadline: Duration::from_secs(30),
        upgrade_deadline: Duration::from_secs(600),
    };

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_drain_goes_through_its_phases_by_time() {
        let start = Instant::now();
        let mut drain = Drain::new(SETTINGS);
        assert_eq!(drain.course(at(start, 99)), Course::SERVING);
        drain.start(start, false);
        for (seconds, phase) in [
            (0, Phase::Grace),
            (4, Phase::Grace),
            (5, Phase::Closing),
            (29, Phase::Closing),
            (30, Phase::Ended),
        ] {
            let course = drain.course(at(start, seconds));
            assert_eq!(course.phase, phase, "{seconds}");
            assert!(course.accepting() && course.draining(), "{seconds}");
        }
    }

    #[test]
    fn starting_twice_does_not_begin_the_grace_again() {
        let start = Instant::now();
        let mut drain = Drain::new(SETTINGS);
        drain.start(start, false);
        drain.start(at(start, 6), true);
        assert_eq!(
            drain.course(at(start, 6)),
            Course {
                phase: Phase::Closing,
                exiting: true,
                handed_over: false,
            }
        );
        assert!(!drain.course(at(start, 6)).accepting());
    }

    #[test]
    fn a_drained_node_that_is_to_exit_still_finishes_what_late_clients_asked() {
        let start = Instant::now();
        let mut drain = Drain::new(SETTINGS);
        drain.start(start, false);
        drain.start(at(start, 100), true);
        assert_eq!(drain.course(at(start, 100)).phase, Phase::Closing);
        assert_eq!(drain.course(at(start, 124)).phase, Phase::Closing);
        assert_eq!(drain.course(at(start, 125)).phase, Phase::Ended);
    }

    #[test]
    fn a_drain_can_be_cancelled_until_the_process_is_to_exit() {
        let start = Instant::now();
        let mut drain = Drain::new(SETTINGS);
        assert!(!drain.cancel());
        drain.start(start, false);
        assert!(drain.cancel());
        assert_eq!(drain.course(at(start, 9)), Course::SERVING);
        drain.start(start, true);
        assert!(!drain.cancel());
    }

    #[test]
    fn what_stays_with_a_process_that_was_taken_over_from_has_longer_until_that_is_to_end_too() {
        let start = Instant::now();
        let mut drain = Drain::new(SETTINGS);
        drain.hurry(start);
        drain.hand_over(start);
        assert_eq!(drain.course(at(start, 599)).phase, Phase::Closing);
        assert_eq!(drain.course(at(start, 600)).phase, Phase::Ended);
        drain.hurry(at(start, 100));
        assert_eq!(drain.course(at(start, 129)).phase, Phase::Closing);
        assert_eq!(drain.course(at(start, 130)).phase, Phase::Ended);
        drain.hurry(at(start, 120));
        assert_eq!(drain.course(at(start, 130)).phase, Phase::Ended);
        assert!(drain.finished(at(start, 131), 1));
    }

    #[test]
    fn the_process_exits_once_nothing_is_open_or_the_deadline_has_passed() {
        let start = Instant::now();
        let mut drain = Drain::new(SETTINGS);
        drain.start(start, false);
        assert!(!drain.finished(at(start, 99), 0));
        let mut drain = Drain::new(SETTINGS);
        drain.start(start, true);
        assert!(
            !drain.finished(at(start, 1), 0),
            "the grace is for clients that don't know yet"
        );
        assert!(drain.finished(at(start, 5), 0));
        assert!(!drain.finished(at(start, 30), 1));
        assert!(drain.finished(at(start, 31), 1));
    }
}
