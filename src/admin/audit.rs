//! What operators did: one record for every request that changes something, refused ones included.

use std::net::SocketAddr;

/// One change, or the try of one.
#[derive(Clone, Debug)]
pub(crate) struct Record<'a> {
    /// The name of a token, `loopback`, or empty for who did not say.
    pub(crate) who: &'a str,
    pub(crate) peer: SocketAddr,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// Of the answer: what came of it.
    pub(crate) status: u16,
    /// What is different now; empty when nothing is.
    pub(crate) changed: &'a str,
}

pub(crate) fn audit(record: &Record<'_>) {
    let Record { who, peer, method, path, status, changed } = record;
    log::info!(
        target: "audit",
        "{method} {path} by {} from {peer}: {status} {changed}",
        if who.is_empty() { "nobody known" } else { who },
    );
}
