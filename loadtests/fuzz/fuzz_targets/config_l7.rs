//! See `fuzz::config_l7`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::config_l7(data));
