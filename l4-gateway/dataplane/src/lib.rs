//! The L4 forwarder as a pure state machine: bursts of frames, the time and tables go in, verdicts come out.
