//! Runs `e2e_fuzz::header_value`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e_fuzz::header_value(data));
