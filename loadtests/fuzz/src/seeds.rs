//! Where fuzzing starts from: for each target a few inputs that get far, written down field by field.
//!
//! Configuration targets start from the files in `deploy/examples` besides, which `run.sh` passes on.

mod bgp;
mod bus;
mod frames;
mod frames6;
mod gateway;
mod http;
mod proxy;
mod toml;

#[cfg(test)]
pub(crate) use frames6::conversations as ipv6_conversations;

/// The seeds of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "frames" => [frames::seeds(), frames6::seeds()].concat(),
        "bgp_input" => bgp::seeds(),
        "bus_record" => bus::seeds(),
        "l4_capture" => gateway::captures(),
        "l4_command" => gateway::commands(),
        "http_normalise" => http::seeds(),
        "http_response" => http::responses(),
        "proxy_header" => proxy::seeds(),
        config if config.starts_with("config_") => toml::seeds(),
        _ => Vec::new(),
    }
}

/// Words that occur in a target's inputs, for libFuzzer to put together.
pub fn words(target: &str) -> Vec<String> {
    match target {
        "l4_command" => gateway::words(),
        "http_normalise" => http::words(),
        "http_response" => http::response_words(),
        "proxy_header" => proxy::words(),
        "bus_record" => bus::words(),
        config if config.starts_with("config_") => toml::words(config),
        _ => Vec::new(),
    }
}
