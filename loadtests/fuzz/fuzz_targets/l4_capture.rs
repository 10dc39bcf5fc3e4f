//! See `fuzz::l4_capture`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::l4_capture(data));
