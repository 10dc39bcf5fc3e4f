//! See `fuzz::config_bgp`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::config_bgp(data));
