//! Health probes: a library used by every tier, and a binary that observes from outside.
