//! Runs `e2e_fuzz::http2_client`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e_fuzz::http2_client(data));
