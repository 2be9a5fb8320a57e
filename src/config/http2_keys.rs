//! The keys of HTTP/2.

use super::keys::Fallback::Is;
use super::keys::{Key, key};

pub(super) const HTTP2: &[Key] = &[
    key(
        "listeners[].http2.enabled",
        "boolean",
        Is("true"),
        "http2 = { enabled = false }",
        "speak HTTP/2 with clients that ask for it: by ALPN where there is TLS, else by prior \
         knowledge (h2c)",
    ),
    key(
        "listeners[].http2.max_concurrent_streams",
        "integer",
        Is("100"),
        "http2 = { max_concurrent_streams = 250 }",
        "most requests of one connection at a time; 1 to 1000",
    ),
    key(
        "listeners[].http2.initial_window_size",
        "size",
        Is("65535"),
        "http2 = { initial_window_size = \"256KB\" }",
        "bytes of a request body that may wait here for its endpoint; 1KB to 16MB",
    ),
    key(
        "listeners[].http2.max_frame_size",
        "size",
        Is("16384"),
        "http2 = { max_frame_size = \"64KB\" }",
        "most bytes of one frame that a client may send; 16KB to 1MB",
    ),
];
