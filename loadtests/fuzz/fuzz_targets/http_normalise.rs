//! See `fuzz::http_normalise`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::http_normalise(data));
