//! HTTP/2 (RFC 9113) by the `h2` crate, on our own sockets.

pub mod abuse;
pub mod frames;
