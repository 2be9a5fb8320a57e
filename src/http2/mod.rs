//! HTTP/2 (RFC 9113). A head is HTTP/1's bytes and a table everywhere inside, so that every rule
//! about headers exists once; here is where those become fields and the other way round. Frames,
//! HPACK, windows and the states of streams are the h2 crate's: what it has of them is named in
//! this folder only, so that another core could take its place.

pub mod abuse;
pub(crate) mod call;
pub(crate) mod client;
mod endpoint_watch;
pub(crate) mod fields;
pub mod frames;
mod held;
pub(crate) mod io;
pub mod priority;
pub(crate) mod request;
pub(crate) mod server;
pub(crate) mod upstream_call;
pub(crate) mod upstream_head;
