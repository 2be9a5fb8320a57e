//! Any bytes against `telemetry::trace`: the invariants are stated there.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corelane::telemetry::trace::fuzz(bytes));
