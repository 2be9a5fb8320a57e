//! Heads and trailers of endpoints between the two forms: the bytes that `http1::encode` writes
//! become messages of HTTP/2, and those of endpoints become bytes that `http1::parse` reads, by
//! whose rules they are refused (RFC 9113 section 8).

use std::net::SocketAddr;

use bytes::Bytes;
use h2::ext::Protocol;
use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, StatusCode, Uri};

use crate::http::reply::reason;
use crate::http1::body::{self, MalformedBody};
use crate::http2::fields;
use crate::limits;
use crate::telemetry::decimal;

/// The request that a head of ours says. `None`: HTTP/2 cannot say it.
pub(crate) fn request(head: &[u8], is_secure: bool, endpoint: SocketAddr) -> Option<Request<()>> {
    let head = Bytes::copy_from_slice(head);
    let line_end = head.iter().position(|byte| *byte == b'\n')? + 1;
    let line = &head[..line_end];
    let method_end = line.iter().position(|byte| *byte == b' ')?;
    let target_end = line.iter().rposition(|byte| *byte == b' ')?;
    let method = Method::from_bytes(&line[..method_end]).ok()?;
    let target = head.slice(method_end + 1..target_end);
    // `Host` is the first line of ours, and the only one.
    let host_end = line_end + head[line_end..].iter().position(|byte| *byte == b'\n')? + 1;
    let host = head[line_end..host_end].strip_prefix(b"Host:")?.trim_ascii();
    let authority = match host {
        // HTTP/1.0 need not name one.
        b"" => Authority::try_from(endpoint.to_string()).ok()?,
        host => Authority::try_from(host).ok()?,
    };
    let mut fields = fields::of_lines(&head, host_end);
    if let header::Entry::Occupied(mut te) = fields.entry(header::TE) {
        // The one thing that it may say (RFC 9113 section 8.2.2).
        te.insert(HeaderValue::from_static("trailers"));
    }
    for secret in [header::AUTHORIZATION, header::COOKIE] {
        // Requests of many clients share a table: no guess at a secret may show in the length of
        // what is sent (RFC 7541 section 7.1).
        if let header::Entry::Occupied(mut values) = fields.entry(secret) {
            values.iter_mut().for_each(|value| value.set_sensitive(true));
        }
    }
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if is_secure { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    parts.path_and_query = Some(path(target)?);
    let mut request = Request::new(());
    *request.version_mut() = http::Version::HTTP_2;
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    *request.headers_mut() = fields;
    Some(request)
}

/// The same as a request for a tunnel (RFC 8441 section 4). The key of a WebSocket proves nothing
/// there, and what comes behind the head is no body (section 5).
pub(crate) fn tunnel(
    head: &[u8],
    is_secure: bool,
    endpoint: SocketAddr,
    protocol: &str,
) -> Option<Request<()>> {
    let mut request = request(head, is_secure, endpoint)?;
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from(protocol));
    let fields = request.headers_mut();
    for gone in [header::SEC_WEBSOCKET_KEY, header::SEC_WEBSOCKET_ACCEPT, header::CONTENT_LENGTH] {
        fields.remove(gone);
    }
    Some(request)
}

/// Bytes that no URL has, but that HTTP/1 lets pass, are written as URLs have them (RFC 3986
/// section 2.1).
fn path(target: Bytes) -> Option<PathAndQuery> {
    if let Ok(path) = PathAndQuery::from_maybe_shared(target.clone()) {
        return Some(path);
    }
    let mut escaped = Vec::with_capacity(target.len() * 2);
    for byte in &target {
        if matches!(byte, b'!' | b'$'..=b';' | b'=' | b'?'..=b'_' | b'a'..=b'z' | b'|' | b'~') {
            escaped.push(*byte);
        } else {
            let digit = |half: u8| b"0123456789ABCDEF"[half as usize];
            escaped.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    PathAndQuery::from_maybe_shared(Bytes::from(escaped)).ok()
}

/// Appends what an endpoint has answered as HTTP/1 has it.
pub(crate) fn response(status: StatusCode, fields: &HeaderMap, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal::integer(u64::from(status.as_u16()), out);
    out.push(b' ');
    out.extend_from_slice(reason(status.as_u16()).as_bytes());
    out.extend_from_slice(b"\r\n");
    fields::to_lines(fields, out);
    out.extend_from_slice(b"\r\n");
}

/// Trailers as lines, held against the rules of those of HTTP/1: some fields must not stand behind
/// a body.
pub(crate) fn trailer_lines(fields: &HeaderMap) -> Result<Vec<u8>, MalformedBody> {
    let mut lines = Vec::new();
    fields::to_lines(fields, &mut lines);
    body::forwarded_trailers(&lines, &[], limits::UPSTREAM_HEADER_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 8080))
    }

    fn asked(head: &str) -> Request<()> {
        request(head.as_bytes(), false, endpoint()).expect("HTTP/2 can say this")
    }

    #[test]
    fn a_head_of_ours_becomes_a_request_without_what_belongs_to_a_connection() {
        let request = asked(
            "POST /a?b=c HTTP/1.1\r\nHost: x.example:81\r\nTransfer-Encoding: chunked\r\n\
             TE: trailers\r\nConnection: TE\r\nX-Two:1\r\nx-two:  2 \r\nKeep-Alive: a\r\n\
             Cookie: a=b\r\nContent-Length: 5\r\n\r\n",
        );
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri().to_string(), "http://x.example:81/a?b=c");
        let fields: Vec<String> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        let expected = ["te=trailers", "x-two=1", "x-two=2", "cookie=a=b", "content-length=5"];
        assert_eq!(fields, expected);
        assert!(request.headers()["cookie"].is_sensitive());
        assert!(!request.headers()["x-two"].is_sensitive());
    }

    #[test]
    fn a_request_for_a_tunnel_is_a_connect_without_what_proves_a_websocket_of_http1() {
        let head = "GET /ws?a HTTP/1.1\r\nHost: x.example\r\nSec-WebSocket-Key: a\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Accept: b\r\n\
                    Content-Length: 0\r\nSec-WebSocket-Extensions: c\r\n\r\n";
        let request = tunnel(head.as_bytes(), true, endpoint(), "websocket").unwrap();
        assert_eq!(request.method(), "CONNECT");
        assert_eq!(request.uri().to_string(), "https://x.example/ws?a");
        assert_eq!(request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
        let fields = request.headers();
        assert_eq!((fields.len(), fields["sec-websocket-version"].as_bytes()), (2, &b"13"[..]));
        assert_eq!(fields["sec-websocket-extensions"], "c");
    }

    #[test]
    fn what_has_no_host_is_for_the_endpoint_and_an_asterisk_stays_one() {
        let request = asked("OPTIONS * HTTP/1.1\r\nHost: \r\n\r\n");
        assert_eq!(request.uri().authority().unwrap(), "127.0.0.1:8080");
        assert_eq!(request.uri().path_and_query().unwrap(), "*");
    }

    #[test]
    fn bytes_that_no_url_has_are_escaped_and_others_are_left_alone() {
        for (target, path) in [
            ("/a`b<c>?d=\"{}\"", "/a%60b%3Cc%3E?d=%22%7B%7D%22"),
            ("/%2f/%GG?a=%", "/%2f/%GG?a=%"),
            ("/a|b[c]^\\", "/a|b[c]^\\"),
        ] {
            let request = asked(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(request.uri().path_and_query().unwrap(), path);
        }
    }

    #[test]
    fn an_answer_becomes_a_head_as_http1_has_it() {
        let mut fields = HeaderMap::new();
        fields.append("server", HeaderValue::from_static("a"));
        fields.append("set-cookie", HeaderValue::from_static("b"));
        fields.append("set-cookie", HeaderValue::from_static("c"));
        let mut out = Vec::new();
        response(StatusCode::OK, &fields, &mut out);
        let expected = "HTTP/1.1 200 OK\r\nserver: a\r\nset-cookie: b\r\nset-cookie: c\r\n\r\n";
        assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
    }

    #[test]
    fn trailers_pass_both_ways_but_for_those_that_must_not_stand_there() {
        let mut fields = HeaderMap::new();
        fields.append("grpc-status", HeaderValue::from_static("0"));
        fields.append("content-length", HeaderValue::from_static("5"));
        let lines = trailer_lines(&fields).unwrap();
        assert_eq!(lines, b"grpc-status: 0\r\n");
        assert_eq!(fields::of_lines(&Bytes::from(lines), 0).get("grpc-status").unwrap(), "0");
        assert_eq!(trailer_lines(&HeaderMap::new()).unwrap(), b"");
        // What a status of gRPC has to say may be long.
        let details = |length| {
            HeaderMap::from_iter([(
                header::HeaderName::from_static("grpc-status-details-bin"),
                HeaderValue::from_str(&"x".repeat(length)).unwrap(),
            )])
        };
        assert!(trailer_lines(&details(20_000)).is_ok());
        assert!(trailer_lines(&details(limits::UPSTREAM_HEADER_BYTES_MAX)).is_err());
    }
}
