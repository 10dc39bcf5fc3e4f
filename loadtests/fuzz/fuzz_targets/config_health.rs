//! See `fuzz::config_health`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::config_health(data));
