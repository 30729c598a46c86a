//! Runs `e2e_fuzz::http1_response`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e_fuzz::http1_response(data));
