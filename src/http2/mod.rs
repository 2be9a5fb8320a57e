//! HTTP/2 on our sockets: the `h2` crate, and what turns its messages into ours and back.

pub(crate) mod call;
pub(crate) mod client;
pub(crate) mod io;
pub(crate) mod upstream_head;
