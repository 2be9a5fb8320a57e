//! Any bytes against `listener::proxy_protocol`: the invariants are stated there.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corelane::listener::proxy_protocol::fuzz(bytes));
