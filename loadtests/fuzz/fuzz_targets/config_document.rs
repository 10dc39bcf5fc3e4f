//! See `fuzz::config_document`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::config_document(data));
