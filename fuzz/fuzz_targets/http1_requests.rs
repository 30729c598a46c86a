//! Runs `e2e_fuzz::http1_requests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e_fuzz::http1_requests(data));
