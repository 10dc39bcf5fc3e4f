//! Where the node's drain stands, as everything that serves reads it. `node::drain` turns the clock.

/// Where a drain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not draining.
    Serving,
    /// Draining, still accepting as before.
    Grace,
    /// Idle connections are closed.
    Closing,
    /// Everything that is open is cut.
    Ended,
}

impl Phase {
    /// The word in `/status`.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Serving => "serving",
            Phase::Grace => "grace",
            Phase::Closing => "closing",
            Phase::Ended => "ended",
        }
    }
}

/// What workers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    /// Where the drain stands.
    pub phase: Phase,
    /// Whether the process exits when it is done.
    pub exiting: bool,
    /// Whether another process accepts in this one's place.
    pub handed_over: bool,
}

impl Course {
    /// Not draining.
    pub const SERVING: Course = Course {
        phase: Phase::Serving,
        exiting: false,
        handed_over: false,
    };

    /// Whether new connections are still taken.
    pub fn accepting(self) -> bool {
        !(self.handed_over || self.exiting && self.phase >= Phase::Closing)
    }

    /// Whether clients are asked to move elsewhere.
    pub fn draining(self) -> bool {
        self.phase > Phase::Serving
    }
}
