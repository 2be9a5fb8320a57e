//! Any bytes against the parser it names: the invariants are stated there.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corelane::grpc::fuzz(bytes));
