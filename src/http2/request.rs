//! A request of a client's stream as a head of HTTP/1: bytes and a table. The rules that hold for
//! HTTP/1 hold for what becomes HTTP/1 (RFC 9113 section 10.3): its parser reads what is written.

use http::HeaderValue;
use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};

use crate::exchange::failure::Failure;
use crate::http::head::{Framing, RequestHead, Version};
use crate::http1::malformed::Malformed;
use crate::http1::parse::{self, HeadLimits, Parsed};
use crate::http2::fields;

/// Writes the request's head to `out` and its table to `head`. `is_whole`: no body follows.
pub(crate) fn read(
    parts: &Parts,
    is_whole: bool,
    limits: &HeadLimits,
    out: &mut Vec<u8>,
    head: &mut RequestHead,
) -> Result<(), Failure> {
    write(parts, out)?;
    if out.len() > limits.header_bytes_max {
        return Err(Malformed::HeadTooLarge.into());
    }
    match parse::request(out, limits, head) {
        Ok(Parsed::Complete) if head.bytes == out.len() => {}
        // One line end too many, or one too few: nothing that was written as one head.
        Ok(Parsed::Complete | Parsed::Partial) => return Err(Malformed::HeaderName.into()),
        Err(malformed) => return Err(malformed.into()),
    }
    head.version = Version::Http2;
    head.framing = match head.framing {
        // Whoever says how much comes and sends nothing is found out by the crate.
        Framing::Length(length) => Framing::Length(length),
        Framing::None if is_whole => Framing::None,
        Framing::None | Framing::Chunked | Framing::UntilClose => Framing::Chunked,
    };
    Ok(())
}

/// What HTTP/2 says in another way than HTTP/1, so that its parser would not see it.
fn must_be_clear(parts: &Parts) -> Result<(), Malformed> {
    // An absolute form or a mere query is for HTTP/1 alone (RFC 9113 section 8.3.1).
    let path = parts.uri.path_and_query().map(PathAndQuery::as_str);
    if path.is_some_and(|path| !path.starts_with('/') && path != "*") {
        return Err(Malformed::TargetForm);
    }
    if parts.uri.scheme().is_some_and(|named| *named != Scheme::HTTP && *named != Scheme::HTTPS) {
        return Err(Malformed::Scheme);
    }
    if parts.headers.get_all(HOST).iter().nth(1).is_some() {
        return Err(Malformed::HostRepeated);
    }
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let has_blanks =
        |value: &HeaderValue| blank(value.as_bytes().first()) || blank(value.as_bytes().last());
    if parts.headers.values().any(has_blanks) {
        return Err(Malformed::BlankAroundValue);
    }
    Ok(())
}

/// Fields that stand twice are written twice: the parser knows which must not.
fn write(parts: &Parts, out: &mut Vec<u8>) -> Result<(), Failure> {
    must_be_clear(parts)?;
    let uri = &parts.uri;
    let authority = uri.authority().map(http::uri::Authority::as_str);
    let target = match uri.path_and_query() {
        Some(target) => target.as_str(),
        // Only CONNECT has no path (RFC 9113 section 8.5).
        None => authority.unwrap_or_default(),
    };
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = authority {
        fields::line(out, b"host", authority.as_bytes());
    }
    for host in parts.headers.get_all(HOST) {
        match authority {
            None => fields::line(out, b"host", host.as_bytes()),
            Some(authority) if authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {}
            Some(_) => return Err(Malformed::HostMismatch.into()),
        }
    }
    let mut cookies = parts.headers.get_all(COOKIE).iter();
    if let Some(first) = cookies.next() {
        // Split for the sake of compression, one line again (RFC 9113 section 8.2.3).
        out.extend_from_slice(b"cookie: ");
        out.extend_from_slice(first.as_bytes());
        for more in cookies {
            out.extend_from_slice(b"; ");
            out.extend_from_slice(more.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    for (name, value) in &parts.headers {
        if *name != HOST && *name != COOKIE {
            fields::line(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}
