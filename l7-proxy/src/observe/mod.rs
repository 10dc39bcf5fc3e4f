//! What is told about requests: why one ended as it did, metrics, the access log.

pub mod access_log;
pub mod metrics;
pub mod reason;
