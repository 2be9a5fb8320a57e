//! Any bytes against `http2::frames` and `http2::abuse`: the invariants are stated there.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    corelane::http2::frames::fuzz(bytes);
    corelane::http2::abuse::fuzz(bytes);
});
