//! See `fuzz::bgp_input`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::bgp_input(data));
