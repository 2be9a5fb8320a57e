//! Access log lines. Encoding is pure; the publisher core writes them.

use crate::exchange::record::Record;
use crate::plan::AccessLogFormat;

/// Appends one line, newline included. No byte from a peer can end a line or leave its field.
pub fn encode(format: AccessLogFormat, record: &Record<'_>, out: &mut Vec<u8>) {
    let _ = (format, record, out);
    todo!()
}
