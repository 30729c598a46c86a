//! Runs `e2e_fuzz::http2_upstream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e_fuzz::http2_upstream(data));
