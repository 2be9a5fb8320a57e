//! HTTP/1.1 (RFC 9112): parsing and encoding without I/O, and the sessions on both sides.

pub(crate) mod blocking_client;
pub mod body;
pub mod encode;
pub(crate) mod lines;
pub mod malformed;
pub mod parse;
pub(crate) mod server;
pub(crate) mod target;
