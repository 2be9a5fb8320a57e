//! Any bytes against `tls::client_hello`: the invariants are stated there.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corelane::tls::client_hello::fuzz(bytes));
