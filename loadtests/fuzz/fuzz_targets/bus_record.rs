//! See `fuzz::bus_record`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::bus_record(data));
