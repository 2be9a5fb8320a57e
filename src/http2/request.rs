//! A request of a client's stream as a head of HTTP/1: bytes and a table. The rules that hold for
//! HTTP/1 hold for what becomes HTTP/1 (RFC 9113 section 10.3): its parser reads what is written.

use h2::ext::Protocol;
use http::header::{COOKIE, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Method};

use crate::exchange::failure::Failure;
use crate::exchange::tunnel::websocket;
use crate::http::head::{Framing, RequestHead, Version};
use crate::http1::malformed::{Malformed, is_token_byte};
use crate::http1::parse::{self, HeadLimits, Parsed};
use crate::http2::fields;
use crate::plan::Upgrades;

/// Writes the request's head to `out` and its table to `head`. `is_whole`: no body follows.
pub(crate) fn read(
    parts: &Parts,
    is_whole: bool,
    limits: &HeadLimits,
    nonce: u128,
    out: &mut Vec<u8>,
    head: &mut RequestHead,
) -> Result<(), Failure> {
    let protocol = protocol(parts)?;
    write(parts, protocol.map(|name| (name, nonce)), out)?;
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
        // What comes behind a request for a tunnel is no body of it.
        Framing::None if is_whole || protocol.is_some() => Framing::None,
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

/// What a stream is to become (RFC 8441 section 4).
fn protocol(parts: &Parts) -> Result<Option<&str>, Failure> {
    let Some(protocol) = parts.extensions.get::<Protocol>() else { return Ok(None) };
    let name = protocol.as_str();
    let is_plain = name.bytes().all(|byte| is_token_byte(byte) || byte == b'/');
    if parts.method != Method::CONNECT || name.is_empty() || !is_plain {
        return Err(Malformed::Method.into());
    }
    Ok(Some(name))
}

/// Fields that stand twice are written twice: the parser knows which must not. A request for a
/// tunnel is that of HTTP/1.1: a GET with `Upgrade`, and for a WebSocket a key.
fn write(parts: &Parts, tunnel: Option<(&str, u128)>, out: &mut Vec<u8>) -> Result<(), Failure> {
    must_be_clear(parts)?;
    let uri = &parts.uri;
    let authority = uri.authority().map(http::uri::Authority::as_str);
    let target = match uri.path_and_query() {
        Some(target) => target.as_str(),
        // Only CONNECT has no path (RFC 9113 section 8.5).
        None => authority.unwrap_or_default(),
    };
    let method = if tunnel.is_some() { "GET" } else { parts.method.as_str() };
    out.extend_from_slice(method.as_bytes());
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
    if let Some((protocol, nonce)) = tunnel {
        fields::line(out, b"connection", b"Upgrade");
        fields::line(out, b"upgrade", protocol.as_bytes());
        if protocol.eq_ignore_ascii_case(Upgrades::WEBSOCKET) {
            fields::line(out, b"sec-websocket-key", &websocket::key(nonce));
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
    let is_ours =
        |name| tunnel.is_some() && [SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_ACCEPT].contains(name);
    for (name, value) in &parts.headers {
        // Two keys would make it no request for a WebSocket at all.
        if *name != HOST && *name != COOKIE && !is_ours(name) {
            fields::line(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits =
        HeadLimits { url_bytes_max: 8192, header_bytes_max: 16_384, headers_max: 100 };

    /// A GET of `http://test/x` as the crate would hand it over, with these fields.
    fn asked(uri: &str, fields: &[(&str, &str)]) -> Result<String, Failure> {
        let mut request = http::Request::get(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("the crate takes it").into_parts();
        let (mut out, mut head) = (Vec::new(), RequestHead::default());
        read(&parts, true, &LIMITS, 0, &mut out, &mut head)?;
        assert_eq!((head.bytes, head.version), (out.len(), Version::Http2));
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn a_request_is_a_head_of_http1() {
        let fields = [("cookie", "a=1"), ("x-a", "1"), ("cookie", "b=2"), ("x-a", "2")];
        assert_eq!(
            asked("http://test:81/x?y", &fields).expect("it is clear"),
            "GET /x?y HTTP/1.1\r\nhost: test:81\r\ncookie: a=1; b=2\r\nx-a: 1\r\nx-a: 2\r\n\r\n"
        );
        let alone = asked("/x", &[("host", "test")]).expect("it is clear");
        assert_eq!(alone, "GET /x HTTP/1.1\r\nhost: test\r\n\r\n");
        assert_eq!(asked("http://test/x", &[("host", "TEST")]).map(|text| text.len()), Ok(31));
    }

    #[test]
    fn a_request_for_a_websocket_has_a_key_of_ours_and_no_other() {
        let request = http::Request::connect("http://test/x")
            .extension(Protocol::from_static("websocket"))
            .header("sec-websocket-key", "bWFkZSB1cCBieSBjbGllbnQ=")
            .header("sec-websocket-accept", "no")
            .header("sec-websocket-version", "13");
        let (parts, ()) = request.body(()).expect("the crate takes it").into_parts();
        let (mut out, mut head) = (Vec::new(), RequestHead::default());
        read(&parts, false, &LIMITS, 0, &mut out, &mut head).expect("it is clear");
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            "GET /x HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n\r\n"
        );
    }

    #[test]
    fn what_is_unclear_is_refused() {
        use Malformed::*;
        let uri = "http://test/x";
        for (asked, why) in [
            (asked(uri, &[("host", "other")]), HostMismatch),
            (asked(uri, &[("host", "test:80")]), HostMismatch),
            (asked(uri, &[("host", "test"), ("host", "test")]), HostRepeated),
            (asked("/x", &[]), HostMissing),
            (asked("/x", &[("host", "a@b")]), Host),
            (asked("http://me@test/x", &[]), Host),
            (asked("ftp://test/x", &[]), Scheme),
            (asked("*", &[("host", "test")]), TargetForm),
            (asked(uri, &[("x", " a")]), BlankAroundValue),
            (asked(uri, &[("x", "a\t")]), BlankAroundValue),
            (asked(uri, &[("content-length", "+5")]), ContentLength),
            (
                asked(uri, &[("content-length", "5"), ("content-length", "5")]),
                ContentLengthRepeated,
            ),
            (asked(uri, &[("x_forwarded_for", "6.6.6.6")]), UnderscoreTwin),
        ] {
            assert_eq!(asked, Err(Failure::from(why)));
        }
    }
}
