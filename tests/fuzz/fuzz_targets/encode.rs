//! Any bytes against `http1::encode`: the invariants are stated there.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corelane::http1::encode::fuzz(bytes));
