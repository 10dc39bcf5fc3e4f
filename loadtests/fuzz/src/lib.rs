//! What is fuzzed: one plain function a target, which must return whatever the bytes are, and may assert what must hold afterwards.
//!
//! `run.sh` builds each with coverage instrumentation and lets libFuzzer drive it, starting from [`seeds`]. The tests replay the seeds,
//! the example configurations, and every input in `corpus/` that once broke something.

#![forbid(unsafe_code)]

mod frames;
pub mod seeds;

use shared::config::{Document, Table};

/// A fuzz target: takes any bytes and returns.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 13] = [
    ("frames", frames),
    ("bgp_input", bgp_input),
    ("http_normalise", http_normalise),
    ("http_response", http_response),
    ("proxy_header", proxy_header),
    ("bus_record", bus_record),
    ("l4_capture", l4_capture),
    ("l4_command", l4_command),
    ("config_document", config_document),
    ("config_l4", config_l4),
    ("config_l7", config_l7),
    ("config_bgp", config_bgp),
    ("config_health", config_health),
];

/// Frames off the wire, into workers of the data plane.
pub fn frames(data: &[u8]) {
    frames::run(data);
}

/// What a BGP neighbour sends.
pub fn bgp_input(data: &[u8]) {
    bgp_ctl::fuzzing::session_input(data);
}

/// The head of an HTTP request, from its parts to what is forwarded.
pub fn http_normalise(data: &[u8]) {
    l7_proxy::fuzzing::normalise(data);
}

/// What a backend sends.
pub fn http_response(data: &[u8]) {
    l7_proxy::fuzzing::response(data);
}

/// What a load balancer sends in front of its client's bytes.
pub fn proxy_header(data: &[u8]) {
    l7_proxy::fuzzing::proxy_header(data);
}

/// A message of the bus.
pub fn bus_record(data: &[u8]) {
    shared::fuzzing::bus_record(data);
}

/// A frame as a capture and a VLAN see it, and a capture as it comes from a node.
pub fn l4_capture(data: &[u8]) {
    l4_gateway::fuzzing::capture(data);
}

/// What a command of `l4-gateway` is given.
pub fn l4_command(data: &[u8]) {
    l4_gateway::fuzzing::command(data);
}

/// A configuration file, read the way all tiers do.
pub fn config_document(data: &[u8]) {
    shared::fuzzing::config(data);
}

/// A configuration file of `l4-gateway`.
pub fn config_l4(data: &[u8]) {
    config(data, l4_gateway::config::Config::parse);
}

/// A configuration file of `l7-proxy`.
pub fn config_l7(data: &[u8]) {
    l7_proxy::fuzzing::config(data);
}

/// A configuration file of `bgp-ctl`.
pub fn config_bgp(data: &[u8]) {
    config(data, bgp_ctl::config::Config::parse);
}

/// A configuration file of `health`.
pub fn config_health(data: &[u8]) {
    config(data, health::config::Config::parse);
}

fn config<T>(data: &[u8], parse: impl FnOnce(&mut Table<'_>) -> Option<T>) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(mistakes) =
        Document::from_toml("fuzz.toml", text).and_then(|document| document.parse(parse))
    {
        assert!(!mistakes.to_string().is_empty(), "refused without a reason");
    }
}
