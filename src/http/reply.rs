//! Replies of our own: errors as JSON, `respond`, `redirect`, the echo page.

/// A complete reply; the sender adds Date, Connection and the route's response headers.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}
