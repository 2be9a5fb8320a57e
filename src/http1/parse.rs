//! Heads from bytes: httparse splits the lines, this file refuses what a proxy must refuse.

use crate::http::head::{Method, RequestHead, ResponseHead};

/// Bounds for one head, from the plan.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    pub url_bytes_max: usize,
    pub header_bytes_max: usize,
    pub headers_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    Complete,
    /// More bytes are needed.
    Partial,
}

/// Why a head is refused. The names are labels in logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    Syntax,
}

pub fn request(
    bytes: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Parsed, Malformed> {
    let _ = (bytes, limits, head);
    todo!()
}

pub fn response(
    bytes: &[u8],
    method: Method,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Parsed, Malformed> {
    let _ = (bytes, method, limits, head);
    todo!()
}
