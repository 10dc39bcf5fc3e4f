//! End-to-end tests of the whole chain, driven from outside.
