//! HTTP/2 (RFC 9113) by the `h2` crate, on our own sockets.

pub mod abuse;
pub(crate) mod client;
pub mod frames;
pub(crate) mod io;
pub(crate) mod upstream_call;
pub(crate) mod upstream_head;
