//! Runs `e2e_fuzz::jwt`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e_fuzz::jwt(data));
