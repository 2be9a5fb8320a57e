//! What every version of HTTP shares: heads, header names, framing, and replies of our own.

pub mod error_page;
pub mod head;
pub mod headers;
pub mod reply;
