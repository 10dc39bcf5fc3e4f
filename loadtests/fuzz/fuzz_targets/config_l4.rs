//! See `fuzz::config_l4`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::config_l4(data));
