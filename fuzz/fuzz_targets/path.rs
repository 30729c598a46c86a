//! Runs `e2e_fuzz::path`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e_fuzz::path(data));
