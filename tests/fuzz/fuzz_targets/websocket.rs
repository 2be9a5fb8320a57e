//! Any bytes against `exchange::tunnel::websocket`: the invariants are stated there.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corelane::exchange::tunnel::websocket::fuzz(bytes));
