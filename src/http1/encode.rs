//! Heads to bytes: untouched lines as they came, ours spliced in.

use std::net::IpAddr;

use crate::http::head::{Framing, Keep, RequestHead, ResponseHead};
use crate::http::headers::HeaderEdits;

/// What the proxy itself says about a request (MISSION row 61).
#[derive(Clone, Copy, Debug)]
pub struct Forwarded<'a> {
    /// Who holds the socket.
    pub peer: IpAddr,
    /// Who it speaks for.
    pub client: IpAddr,
    /// The peer is a trusted proxy: its X-Forwarded-* and x-request-id are kept.
    pub trusted: bool,
    pub proto: &'static str,
    /// 32 hex digits; used unless a trusted peer sent one.
    pub request_id: &'a [u8],
    pub proxy_id: &'a str,
}

/// Appends the head for an upstream, the empty line included.
pub fn request(
    out: &mut Vec<u8>,
    head: &RequestHead,
    bytes: &[u8],
    framing: Framing,
    forwarded: &Forwarded<'_>,
    edits: &HeaderEdits,
) {
    let _ = (out, head, bytes, framing, forwarded, edits);
    todo!()
}

/// Appends the head for a client.
pub fn response(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    bytes: &[u8],
    framing: Framing,
    keep: Keep,
    proxy_id: &str,
    edits: &HeaderEdits,
) {
    let _ = (out, head, bytes, framing, keep, proxy_id, edits);
    todo!()
}
