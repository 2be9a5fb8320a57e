//! Header lines to fields and back. A field's name is lowercase; what HTTP/1 says about a
//! connection has no place in HTTP/2 (RFC 9113 section 8.2.2).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The lines of `bytes` from `at` on, `name: value\r\n` each, up to the empty one. They are ours,
/// or went through a parser of ours: one that is not a line is left out.
pub(crate) fn of_lines(bytes: &Bytes, at: usize) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(FIELDS_USUAL);
    let mut start = at;
    while let Some(length) = bytes[start..].iter().position(|&byte| byte == b'\n') {
        let end = start + length;
        let line = &bytes[start..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        if let Some(colon) = line.iter().position(|&byte| byte == b':')
            && let Ok(name) = HeaderName::from_bytes(&line[..colon])
            && !is_of_a_connection(&name)
        {
            let value = line[colon + 1..].trim_ascii();
            let from = start + colon + 1 + leading_blanks(&line[colon + 1..]);
            // Shared, not copied: the whole head is one allocation.
            let value = HeaderValue::from_maybe_shared(bytes.slice(from..from + value.len()));
            if let Ok(value) = value {
                fields.append(name, value);
            }
        }
        start = end + 1;
    }
    fields
}

fn leading_blanks(bytes: &[u8]) -> usize {
    bytes.len() - bytes.trim_ascii_start().len()
}

/// Never in HTTP/2 (RFC 9113 section 8.2.2).
fn is_of_a_connection(name: &HeaderName) -> bool {
    *name == http::header::CONNECTION
        || *name == http::header::TRANSFER_ENCODING
        || *name == http::header::UPGRADE
        || name.as_str() == "keep-alive"
        || name.as_str() == "proxy-connection"
}

/// Appends lines for `fields`. The crate lets no byte into a value that could end a line.
pub(crate) fn to_lines(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
}

pub(crate) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

const FIELDS_USUAL: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_fields_and_lines_again() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Type:text/plain\r\nX-A:  b c \r\nx-a: d\r\n\r\n\
                     body: no\r\n";
        let fields = of_lines(&Bytes::from_static(text), 17);
        let mut out = Vec::new();
        to_lines(&fields, &mut out);
        assert_eq!(out, b"content-type: text/plain\r\nx-a: b c\r\nx-a: d\r\n");
    }

    #[test]
    fn what_is_said_of_a_connection_is_left_out() {
        let text = b"Connection: close\r\nKeep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\
                     Upgrade: h2c\r\nProxy-Connection: close\r\na: b\r\n";
        let fields = of_lines(&Bytes::from_static(text), 0);
        assert_eq!((fields.len(), fields["a"].as_bytes()), (1, &b"b"[..]));
    }
}
