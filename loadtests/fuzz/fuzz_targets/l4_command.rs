//! See `fuzz::l4_command`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::l4_command(data));
