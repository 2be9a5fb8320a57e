//! Heads to bytes: untouched lines as they came, ours spliced in. Called by the sessions, with
//! heads that `parse` accepted and edits that the configuration check accepted: a CR or LF cannot
//! get in.

use std::io::Write;
use std::net::IpAddr;

use crate::http::head::{
    Framing, Keep, Line, Method, RequestHead, ResponseHead, TargetForm, Version,
};
use crate::http::headers::{HeaderEdits, HeaderId, IdentityLines, NewLine};
use crate::http1::parse::{self, HeadLimits, Parsed};
use crate::telemetry::decimal;
use crate::telemetry::trace::Outgoing;

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
    pub identity: IdentityLines<'a>,
    /// `None`: trace headers pass as they came.
    pub trace: Option<Outgoing<'a>>,
}

/// Room for the lines that we add to a head.
const OWN_LINES_BYTES: usize = 512;

/// Appends the head for an upstream, the empty line included.
pub fn request(
    out: &mut Vec<u8>,
    head: &RequestHead,
    bytes: &[u8],
    framing: Framing,
    forwarded: &Forwarded<'_>,
    edits: &HeaderEdits,
) {
    out.reserve(head.bytes + OWN_LINES_BYTES);
    request_line(out, head, bytes);
    host(out, head, bytes, edits);
    let mut kept = Kept::default();
    let strips = !forwarded.identity.stripped.is_empty();
    copy_lines(out, bytes, &head.lines, |line| {
        kept.passes(line, head, framing, forwarded)
            && !edited_away(line, bytes, edits)
            && !(strips && forwarded.identity.strips(line.name.of(bytes)))
    });
    if head.framing != framing {
        framing_line(out, framing);
    } else if framing == Framing::Chunked {
        out.extend_from_slice(CHUNKED_LINE);
    }
    if head.accepts_trailers {
        // TE is for one connection and must be named as such (RFC 9110 section 10.1.4).
        out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n");
    }
    forwarded_lines(out, head, bytes, forwarded, edits, &kept);
    identity_lines(out, forwarded.identity.lines, edits);
    edit_lines(out, edits);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head for a client, which spoke `client` (its version). A 1xx passes with its own
/// lines only: it is no answer yet.
#[expect(clippy::too_many_arguments, reason = "each is one independent fact about the answer")]
pub fn response(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    bytes: &[u8],
    framing: Framing,
    keep: Keep,
    client: Version,
    proxy_id: &str,
    edits: &HeaderEdits,
) {
    out.reserve(head.bytes + OWN_LINES_BYTES);
    status_line(out, head, bytes);
    // After a 101 no other answer comes.
    let interim = head.status < 200 && head.status != 101;
    let edited = !edits.is_empty() && !interim;
    copy_lines(out, bytes, &head.lines, |line| {
        let passes = !line.hop_by_hop
            && (line.id != HeaderId::ContentLength || head.framing == framing)
            && (line.id != HeaderId::Trailer || framing == Framing::Chunked)
            && (line.id != HeaderId::XProxyId || interim);
        passes && !(edited && edited_away(line, bytes, edits))
    });
    if interim {
        out.extend_from_slice(b"\r\n");
        return;
    }
    if head.framing != framing {
        framing_line(out, framing);
    } else if framing == Framing::Chunked {
        out.extend_from_slice(CHUNKED_LINE);
    }
    if !(edited && edits.replaces(b"via")) {
        via(out, head.version, proxy_id);
    }
    if !(edited && edits.replaces(b"x-proxy-id")) {
        field(out, b"X-Proxy-ID: ", proxy_id.as_bytes());
    }
    match (keep, client) {
        (Keep::Close, _) => out.extend_from_slice(b"Connection: close\r\n"),
        (Keep::Open, Version::Http10) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (Keep::Open, Version::Http11 | Version::Http2) => {}
    }
    edit_lines(out, edits);
    out.extend_from_slice(b"\r\n");
}

/// Framing stays whatever an operator writes.
fn edited_away(line: &Line, bytes: &[u8], edits: &HeaderEdits) -> bool {
    !edits.is_empty() && line.id != HeaderId::ContentLength && edits.replaces(line.name.of(bytes))
}

/// Always in origin form, but for `*` and CONNECT (RFC 9112 section 3.2).
fn request_line(out: &mut Vec<u8>, head: &RequestHead, bytes: &[u8]) {
    out.extend_from_slice(head.method_name.of(bytes));
    out.push(b' ');
    match head.form {
        TargetForm::Authority | TargetForm::Asterisk | TargetForm::Origin => {
            out.extend_from_slice(head.target.of(bytes));
        }
        TargetForm::Absolute if !head.path.is_empty() || !head.query.is_empty() => {
            if head.path.is_empty() {
                out.push(b'/');
            }
            out.extend_from_slice(head.path.of(bytes));
            out.extend_from_slice(head.query.of(bytes));
        }
        // RFC 9112 section 3.2.4: the last proxy says `*` for an OPTIONS without a path.
        TargetForm::Absolute if head.method == Method::Options => out.push(b'*'),
        TargetForm::Absolute => out.push(b'/'),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

fn status_line(out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal::integer(u64::from(head.status), out);
    out.push(b' ');
    out.extend_from_slice(head.reason.of(bytes));
    out.extend_from_slice(b"\r\n");
}

/// First of all lines (RFC 9110 section 7.2), empty for an HTTP/1.0 request that had none.
fn host(out: &mut Vec<u8>, head: &RequestHead, bytes: &[u8], edits: &HeaderEdits) {
    let set = edits.set.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"host"));
    let value = set.map_or(head.authority.of(bytes), |(_, value)| value);
    field(out, b"Host: ", value);
}

/// Copies the lines that `passes`, neighbours in one piece.
fn copy_lines(
    out: &mut Vec<u8>,
    bytes: &[u8],
    lines: &[Line],
    mut passes: impl FnMut(&Line) -> bool,
) {
    let (mut start, mut end) = (0, 0);
    for line in lines {
        if passes(line) {
            if line.line.start != end {
                out.extend_from_slice(&bytes[start as usize..end as usize]);
                start = line.line.start;
            }
            end = line.line.end;
        }
    }
    out.extend_from_slice(&bytes[start as usize..end as usize]);
}

/// Lines of a trusted peer that stand for ours.
#[derive(Default)]
struct Kept {
    chain: bool,
    proto: bool,
    host: bool,
    request_id: bool,
}

impl Kept {
    /// Whether a line is forwarded as it came.
    fn passes(
        &mut self,
        line: &Line,
        head: &RequestHead,
        framing: Framing,
        forwarded: &Forwarded<'_>,
    ) -> bool {
        if line.hop_by_hop {
            return false;
        }
        let trusted = forwarded.trusted;
        let kept = match line.id {
            HeaderId::XForwardedHost => &mut self.host,
            HeaderId::XForwardedProto => &mut self.proto,
            HeaderId::XRequestId if line.value.is_empty() => return false,
            HeaderId::XRequestId => &mut self.request_id,
            HeaderId::XForwardedFor => {
                self.chain |= trusted;
                return false;
            }
            HeaderId::ContentLength => return head.framing == framing,
            HeaderId::Trailer => return framing == Framing::Chunked,
            HeaderId::Forwarded => return trusted,
            HeaderId::Host
            | HeaderId::TransferEncoding
            | HeaderId::Connection
            | HeaderId::KeepAlive
            | HeaderId::ProxyAuthenticate
            | HeaderId::ProxyAuthorization
            | HeaderId::ProxyConnection
            | HeaderId::Te
            | HeaderId::Upgrade
            | HeaderId::XProxyId
            | HeaderId::XRealIp => return false,
            HeaderId::B3
            | HeaderId::Traceparent
            | HeaderId::Tracestate
            | HeaderId::UberTraceId
            | HeaderId::XB3Flags
            | HeaderId::XB3ParentSpanId
            | HeaderId::XB3Sampled
            | HeaderId::XB3SpanId
            | HeaderId::XB3TraceId => {
                return forwarded.trace.is_none_or(|trace| !trace.replaces(line.id));
            }
            HeaderId::Other
            | HeaderId::Date
            | HeaderId::Expect
            | HeaderId::Referer
            | HeaderId::UserAgent
            | HeaderId::Via => return true,
        };
        *kept |= trusted;
        trusted
    }
}

/// MISSION rows 61 and 66. An edit of the operator goes before a line of ours.
fn forwarded_lines(
    out: &mut Vec<u8>,
    head: &RequestHead,
    bytes: &[u8],
    forwarded: &Forwarded<'_>,
    edits: &HeaderEdits,
    kept: &Kept,
) {
    let ours = |name: &[u8]| edits.is_empty() || !edits.replaces(name);
    if ours(b"x-forwarded-for") {
        out.extend_from_slice(b"X-Forwarded-For: ");
        if kept.chain {
            let chain = |line: &&Line| line.id == HeaderId::XForwardedFor && !line.value.is_empty();
            for line in head.lines.iter().filter(chain) {
                out.extend_from_slice(line.value.of(bytes));
                out.extend_from_slice(b", ");
            }
        }
        write_address(out, forwarded.peer);
        out.extend_from_slice(b"\r\n");
    }
    if !kept.proto && ours(b"x-forwarded-proto") {
        field(out, b"X-Forwarded-Proto: ", forwarded.proto.as_bytes());
    }
    if !kept.host && !head.authority.is_empty() && ours(b"x-forwarded-host") {
        field(out, b"X-Forwarded-Host: ", head.authority.of(bytes));
    }
    if ours(b"x-real-ip") {
        out.extend_from_slice(b"X-Real-IP: ");
        write_address(out, forwarded.client);
        out.extend_from_slice(b"\r\n");
    }
    if ours(b"via") {
        via(out, head.version, forwarded.proxy_id);
    }
    if ours(b"x-proxy-id") {
        field(out, b"X-Proxy-ID: ", forwarded.proxy_id.as_bytes());
    }
    if !kept.request_id && ours(b"x-request-id") {
        field(out, b"x-request-id: ", forwarded.request_id);
    }
    if let Some(trace) = &forwarded.trace {
        trace.write(out, ours);
    }
}

/// A line of its own after those that came: the list with us at its end (RFC 9110 5.3 and 7.6.3).
fn via(out: &mut Vec<u8>, received: Version, proxy_id: &str) {
    let name = match received {
        Version::Http10 => b"Via: 1.0 ",
        Version::Http11 => b"Via: 1.1 ",
        Version::Http2 => b"Via: 2.0 ",
    };
    field(out, name, proxy_id.as_bytes());
}

const CHUNKED_LINE: &[u8] = b"Transfer-Encoding: chunked\r\n";

fn framing_line(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            decimal::integer(length, out);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(CHUNKED_LINE),
        Framing::None | Framing::UntilClose => {}
    }
}

/// Who the client's certificate says that it is. An edit of the operator goes before.
fn identity_lines(out: &mut Vec<u8>, lines: &[NewLine], edits: &HeaderEdits) {
    for (name, value) in lines {
        if !edits.replaces(name) {
            out.extend_from_slice(name);
            field(out, b": ", value);
        }
    }
}

/// What the operator sets and adds. Framing is not the operator's to set, and `Host` has been
/// written.
fn edit_lines(out: &mut Vec<u8>, edits: &HeaderEdits) {
    for (name, value) in edits.set.iter().chain(&edits.add) {
        let id = HeaderId::of(name);
        if !id.is_hop_by_hop() && id != HeaderId::ContentLength && id != HeaderId::Host {
            out.extend_from_slice(name);
            field(out, b": ", value);
        }
    }
}

#[inline]
fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// An address as `X-Forwarded-For` has it. A v4 client of a v6 socket is a v4 client.
pub fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let mut text = [b'.'; 16];
            let mut at = 0;
            for octet in address.octets() {
                if octet >= 100 {
                    text[at] = b'0' + octet / 100;
                    at += 1;
                }
                if octet >= 10 {
                    text[at] = b'0' + octet / 10 % 10;
                    at += 1;
                }
                text[at] = b'0' + octet % 10;
                at += 2;
            }
            out.extend_from_slice(&text[..at - 1]);
        }
        IpAddr::V6(address) => write!(out, "{address}").expect("a Vec takes every write"),
    }
}

/// Room for `chunk_prefix`: 16 digits and CRLF.
pub const CHUNK_PREFIX_BYTES: usize = 18;

/// What stands after the data of a chunk.
pub const CRLF: &[u8] = b"\r\n";

/// The end of a chunked body that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What stands before `length` bytes of data, which must not be 0: that would be the end.
pub fn chunk_prefix(length: usize, room: &mut [u8; CHUNK_PREFIX_BYTES]) -> &[u8] {
    debug_assert!(length > 0, "an empty chunk ends the body");
    let mut start = CHUNK_PREFIX_BYTES - 2;
    room[start..].copy_from_slice(CRLF);
    let mut rest = length;
    loop {
        start -= 1;
        room[start] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            return &room[start..];
        }
    }
}

/// Appends the end of a chunked body, with the trailer lines that `Decoder::trailers` gave.
pub fn last_chunk(out: &mut Vec<u8>, trailers: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(CRLF);
}

/// What must hold for any bytes: a head that was accepted is encoded to a head that is accepted,
/// with the same framing, and with the lines that are nobody's business in the same order. So
/// nothing that came can end a line of ours early.
pub fn fuzz(bytes: &[u8]) {
    let limits = HeadLimits { url_bytes_max: 4096, header_bytes_max: 16384, headers_max: 200 };
    let bytes = &bytes[..bytes.len().min(4096)];
    fuzz_request(bytes, false, &limits);
    fuzz_request(bytes, true, &limits);
    fuzz_response(bytes, &limits);
}

fn fuzz_request(bytes: &[u8], trusted: bool, limits: &HeadLimits) {
    let mut head = RequestHead::default();
    if parse::request(bytes, limits, &mut head) != Ok(Parsed::Complete) {
        return;
    }
    let forwarded = Forwarded {
        peer: IpAddr::from([192, 0, 2, 1]),
        client: IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        trusted,
        proto: "http",
        request_id: b"00000000000000000000000000000000",
        proxy_id: "fuzz",
        identity: IdentityLines::NONE,
        trace: None,
    };
    let (mut out, edits) = (Vec::new(), HeaderEdits::default());
    request(&mut out, &head, bytes, head.framing, &forwarded, &edits);
    if head.authority.is_empty() {
        return; // HTTP/1.0 without Host: goes on with an empty one, which we would not take
    }
    let mut again = RequestHead::default();
    let parsed = parse::request(&out, limits, &mut again);
    assert_eq!(parsed, Ok(Parsed::Complete), "{}", out.escape_ascii());
    assert_eq!((again.bytes, again.framing), (out.len(), head.framing));
    assert_eq!((again.method, again.keep), (head.method, Keep::Open));
    assert!(head.path.is_empty() || again.path.of(&out) == head.path.of(bytes));
    assert_eq!(again.query.of(&out), head.query.of(bytes));
    assert_eq!(other_lines(&again.lines, &out), other_lines(&head.lines, bytes));
}

fn fuzz_response(bytes: &[u8], limits: &HeadLimits) {
    let mut head = ResponseHead::default();
    if parse::response(bytes, Method::Get, limits, &mut head) != Ok(Parsed::Complete) {
        return;
    }
    let (mut out, edits) = (Vec::new(), HeaderEdits::default());
    let (framing, keep) = (head.framing, head.keep);
    response(&mut out, &head, bytes, framing, keep, Version::Http11, "fuzz", &edits);
    let mut again = ResponseHead::default();
    let parsed = parse::response(&out, Method::Get, limits, &mut again);
    assert_eq!(parsed, Ok(Parsed::Complete), "{}", out.escape_ascii());
    assert_eq!((again.bytes, again.framing), (out.len(), framing));
    assert_eq!((again.status, again.reason.of(&out)), (head.status, head.reason.of(bytes)));
    assert!(again.keep == keep || head.status < 200);
    assert_eq!(other_lines(&again.lines, &out), other_lines(&head.lines, bytes));
}

fn other_lines(lines: &[Line], bytes: &[u8]) -> Vec<u8> {
    let other = |line: &&Line| line.id == HeaderId::Other && !line.hop_by_hop;
    let texts = lines.iter().filter(other).map(|line| line.line.of(bytes));
    texts.collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const LIMITS: HeadLimits =
        HeadLimits { url_bytes_max: 8192, header_bytes_max: 16384, headers_max: 100 };

    fn forwarded(trusted: bool) -> Forwarded<'static> {
        Forwarded {
            peer: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)),
            client: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)),
            trusted,
            proto: "https",
            request_id: b"0123456789abcdef0123456789abcdef",
            proxy_id: "edge-1",
            identity: IdentityLines::NONE,
            trace: None,
        }
    }

    fn encoded(text: &str, trusted: bool, edits: &HeaderEdits) -> String {
        let mut head = RequestHead::default();
        let parsed = parse::request(text.as_bytes(), &LIMITS, &mut head);
        assert_eq!(parsed, Ok(Parsed::Complete), "{text:?}");
        let mut out = Vec::new();
        request(&mut out, &head, text.as_bytes(), head.framing, &forwarded(trusted), edits);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_is_forwarded_with_its_lines_as_they_came_and_ours_behind() {
        let text = "GET /a?b HTTP/1.1\r\nACCEPT:  */*\r\nHost: a.example\r\nConnection: x-gone\r\n\
            x-gone: 1\r\nX-Last:2\r\n\r\n";
        assert_eq!(
            encoded(text, false, &HeaderEdits::default()),
            "GET /a?b HTTP/1.1\r\nHost: a.example\r\nACCEPT:  */*\r\nX-Last:2\r\n\
            X-Forwarded-For: 10.0.0.9\r\nX-Forwarded-Proto: https\r\n\
            X-Forwarded-Host: a.example\r\nX-Real-IP: 203.0.113.7\r\nVia: 1.1 edge-1\r\n\
            X-Proxy-ID: edge-1\r\nx-request-id: 0123456789abcdef0123456789abcdef\r\n\r\n"
        );
    }

    const NONE: HeaderEdits = HeaderEdits { remove: Vec::new(), set: Vec::new(), add: Vec::new() };

    /// The lines of an encoded head.
    fn lines(text: &str) -> Vec<&str> {
        text.split("\r\n").collect()
    }

    fn edits(remove: &[&str], set: &[(&str, &str)], add: &[(&str, &str)]) -> HeaderEdits {
        let bytes = |text: &str| text.as_bytes().into();
        let pair = |(name, value): &(&str, &str)| (bytes(name), bytes(value));
        HeaderEdits {
            remove: remove.iter().map(|name| bytes(name)).collect(),
            set: set.iter().map(pair).collect(),
            add: add.iter().map(pair).collect(),
        }
    }

    fn answered(
        text: &str,
        method: Method,
        framing: Option<Framing>,
        keep: Keep,
        client: Version,
        edits: &HeaderEdits,
    ) -> String {
        let mut head = ResponseHead::default();
        let parsed = parse::response(text.as_bytes(), method, &LIMITS, &mut head);
        assert_eq!(parsed, Ok(Parsed::Complete), "{text:?}");
        let framing = framing.unwrap_or(head.framing);
        let mut out = Vec::new();
        response(&mut out, &head, text.as_bytes(), framing, keep, client, "edge-1", edits);
        String::from_utf8(out).unwrap()
    }

    fn plainly(text: &str, method: Method) -> String {
        answered(text, method, None, Keep::Open, Version::Http11, &NONE)
    }

    #[test]
    fn what_an_untrusted_peer_says_about_a_client_is_dropped_but_not_its_via() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nForwarded: for=1\r\n\
            x-forwarded-PROTO: gopher\r\nX-Forwarded-Host: evil\r\nX-Real-IP: 1.1.1.1\r\n\
            X-Request-Id: evil\r\nX-Proxy-Id: evil\r\nVia: 1.0 old\r\n\r\n";
        let out = encoded(text, false, &NONE);
        assert_eq!(
            lines(&out)[1..],
            [
                "Host: a",
                "Via: 1.0 old",
                "X-Forwarded-For: 10.0.0.9",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: a",
                "X-Real-IP: 203.0.113.7",
                "Via: 1.1 edge-1",
                "X-Proxy-ID: edge-1",
                "x-request-id: 0123456789abcdef0123456789abcdef",
                "",
                "",
            ]
        );
    }

    #[test]
    fn what_a_trusted_peer_says_is_kept_and_the_chain_grows() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2\r\n\
            Forwarded: for=1\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-For: 3.3.3.3\r\n\
            X-Forwarded-Host: b\r\nX-Real-IP: 1.1.1.1\r\nX-Request-Id: q\r\n\r\n";
        let out = encoded(text, true, &NONE);
        assert_eq!(
            lines(&out)[1..],
            [
                "Host: a",
                "Forwarded: for=1",
                "X-Forwarded-Proto: gopher",
                "X-Forwarded-Host: b",
                "X-Request-Id: q",
                "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.9",
                "X-Real-IP: 203.0.113.7",
                "Via: 1.1 edge-1",
                "X-Proxy-ID: edge-1",
                "",
                "",
            ]
        );
    }

    #[test]
    fn the_target_goes_on_in_origin_form() {
        let table = [
            ("GET http://A.b:8080/c?d HTTP/1.1\r\nHost: a.b:8080", "GET /c?d", "A.b:8080"),
            ("GET http://a HTTP/1.1\r\nHost: a", "GET /", "a"),
            ("GET http://a?q HTTP/1.0", "GET /?q", "a"),
            ("OPTIONS http://a HTTP/1.1\r\nHost: a", "OPTIONS *", "a"),
            ("OPTIONS http://a/ HTTP/1.1\r\nHost: a", "OPTIONS /", "a"),
            ("OPTIONS * HTTP/1.1\r\nHost: a", "OPTIONS *", "a"),
            ("M-SEARCH /?a HTTP/1.1\r\nHost: a", "M-SEARCH /?a", "a"),
        ];
        for (text, line, host) in table {
            let out = encoded(&format!("{text}\r\n\r\n"), false, &NONE);
            assert_eq!(lines(&out)[0], format!("{line} HTTP/1.1"), "{text}");
            assert_eq!(lines(&out)[1], format!("Host: {host}"), "{text}");
        }
    }

    #[test]
    fn an_http10_request_without_host_gets_an_empty_one_and_its_version_in_via() {
        let out = encoded("PUT / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", false, &NONE);
        assert_eq!(lines(&out)[..2], ["PUT / HTTP/1.1", "Host: "]);
        assert!(out.contains("Via: 1.0 edge-1\r\n"));
        assert!(!out.contains("Expect") && !out.contains("X-Forwarded-Host"));
    }

    #[test]
    fn framing_lines_follow_the_framing_that_is_asked_for() {
        let text =
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-length:  007\r\nTrailer: x\r\nB: 1\r\n\r\n";
        let mut head = RequestHead::default();
        parse::request(text.as_bytes(), &LIMITS, &mut head).unwrap();
        let framed = |framing| {
            let mut out = Vec::new();
            request(&mut out, &head, text.as_bytes(), framing, &forwarded(false), &NONE);
            let text = String::from_utf8(out).unwrap();
            let framing = ["content-length", "transfer-encoding", "trailer"];
            let about = |line: &&str| {
                framing.iter().any(|name| line.to_ascii_lowercase().starts_with(name))
            };
            lines(&text).into_iter().filter(about).collect::<Vec<_>>().join("|")
        };
        assert_eq!(framed(Framing::Length(7)), "Content-length:  007");
        assert_eq!(framed(Framing::Length(8)), "Content-Length: 8");
        assert_eq!(framed(Framing::Chunked), "Trailer: x|Transfer-Encoding: chunked");
        assert_eq!(framed(Framing::None), "");
    }

    #[test]
    fn a_chunked_request_stays_chunked_and_hop_by_hop_lines_stay_behind() {
        let text = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\nTrailer: x\r\n\
            Expect: 100-continue\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\nTE: trailers\r\n\
            Proxy-Authorization: x\r\nUpgrade: x\r\nConnection: TE, upgrade, close\r\n\r\n";
        let out = encoded(text, false, &NONE);
        assert_eq!(
            lines(&out)[1..7],
            [
                "Host: a",
                "Trailer: x",
                "Expect: 100-continue",
                "Transfer-Encoding: chunked",
                "TE: trailers",
                "Connection: TE",
            ]
        );
        assert!(lines(&out)[7].starts_with("X-Forwarded-For"));
    }

    #[test]
    fn edits_remove_set_and_add_but_never_touch_framing() {
        let text = "PUT / HTTP/1.1\r\nHost: a\r\nX-Drop: 1\r\nA: 1\r\nX-Env: 2\r\nx-env: 3\r\n\
            Content-Length: 5\r\n\r\n";
        let edits = edits(
            &["x-drop", "content-length", "host", "x-real-ip"],
            &[("X-Env", "prod"), ("Content-Length", "9"), ("Via", "none"), ("Connection", "x")],
            &[("A", "2"), ("Transfer-Encoding", "gzip")],
        );
        let out = encoded(text, false, &edits);
        assert_eq!(
            lines(&out)[1..],
            [
                "Host: a",
                "A: 1",
                "Content-Length: 5",
                "X-Forwarded-For: 10.0.0.9",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: a",
                "X-Proxy-ID: edge-1",
                "x-request-id: 0123456789abcdef0123456789abcdef",
                "X-Env: prod",
                "Via: none",
                "A: 2",
                "",
                "",
            ]
        );
        let out = encoded(text, false, &self::edits(&[], &[("host", "b:1")], &[]));
        assert_eq!(lines(&out)[1], "Host: b:1");
        assert_eq!(out.matches("ost: ").count(), 2, "Host and X-Forwarded-Host");
    }

    #[test]
    fn a_response_is_forwarded_with_its_lines_as_they_came_and_ours_behind() {
        let text = "HTTP/1.0 200 Very  OK\r\nserver: x\r\nConnection: keep-alive, X-A\r\nX-A: 1\r\n\
            Content-Length: 5\r\nX-Proxy-ID: old\r\nKeep-Alive: timeout=5\r\nVia: 1.1 b\r\n\
            Proxy-Authenticate: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n";
        assert_eq!(
            plainly(text, Method::Get),
            "HTTP/1.1 200 Very  OK\r\nserver: x\r\nContent-Length: 5\r\nVia: 1.1 b\r\n\
            Set-Cookie: a\r\nSet-Cookie: b\r\nVia: 1.0 edge-1\r\nX-Proxy-ID: edge-1\r\n\r\n"
        );
    }

    #[test]
    fn connection_is_written_as_the_client_needs_it() {
        let text = "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n";
        let table = [
            (Framing::Chunked, Keep::Open, Version::Http11, "Transfer-Encoding: chunked"),
            (
                Framing::Chunked,
                Keep::Close,
                Version::Http11,
                "Transfer-Encoding: chunked|Connection: close",
            ),
            (Framing::UntilClose, Keep::Close, Version::Http10, "Connection: close"),
            (
                Framing::Length(3),
                Keep::Open,
                Version::Http10,
                "Content-Length: 3|Connection: keep-alive",
            ),
        ];
        for (framing, keep, client, expected) in table {
            let out = answered(text, Method::Get, Some(framing), keep, client, &NONE);
            assert_eq!(lines(&out)[0], "HTTP/1.1 200 ");
            let ours = |line: &&str| !line.contains("edge-1") && !line.is_empty();
            let rest: Vec<&str> = lines(&out).into_iter().skip(1).filter(ours).collect();
            assert_eq!(rest.join("|"), expected);
        }
    }

    #[test]
    fn head_and_304_keep_the_length_that_a_body_would_have_and_204_and_1xx_do_not() {
        let with = |status| format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n");
        assert!(plainly(&with(200), Method::Head).contains("Content-Length: 5\r\n"));
        assert!(plainly(&with(304), Method::Get).contains("Content-Length: 5\r\n"));
        assert!(!plainly(&with(204), Method::Get).contains("Content-Length"));
        assert!(!plainly(&with(200), Method::Connect).contains("Content-Length"));
        assert_eq!(plainly(&with(100), Method::Get), "HTTP/1.1 100 X\r\n\r\n");
    }

    #[test]
    fn a_1xx_is_relayed_without_lines_of_ours_and_without_edits() {
        let text = "HTTP/1.1 103 Early\r\nLink: </a>\r\nConnection: close\r\n\r\n";
        let edits = edits(&["link"], &[("A", "1")], &[]);
        let out = answered(text, Method::Get, None, Keep::Close, Version::Http11, &edits);
        assert_eq!(out, "HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n");
    }

    #[test]
    fn response_edits_go_before_lines_of_ours() {
        let text = "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 0\r\n\r\n";
        let edits = edits(&["server", "via"], &[("X-Proxy-ID", "me")], &[("A", "1")]);
        let out = answered(text, Method::Get, None, Keep::Open, Version::Http11, &edits);
        let expected = ["HTTP/1.1 200 OK", "Content-Length: 0", "X-Proxy-ID: me", "A: 1", "", ""];
        assert_eq!(lines(&out), expected);
    }

    #[test]
    fn encoding_appends_and_allocates_nothing_once_the_buffer_has_grown() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut head = RequestHead::default();
        parse::request(text.as_bytes(), &LIMITS, &mut head).unwrap();
        let mut out = Vec::with_capacity(4096);
        let (place, room) = (out.as_ptr(), out.capacity());
        for _ in 0..3 {
            let before = out.len();
            request(&mut out, &head, text.as_bytes(), head.framing, &forwarded(true), &NONE);
            assert!(out[before..].starts_with(b"GET / HTTP/1.1\r\n"));
        }
        assert_eq!((out.as_ptr(), out.capacity()), (place, room));
    }

    #[test]
    fn chunk_framing_is_written_in_full() {
        for length in [1, 15, 16, 255, 65536, usize::MAX] {
            let mut room = [0; CHUNK_PREFIX_BYTES];
            assert_eq!(chunk_prefix(length, &mut room), format!("{length:x}\r\n").as_bytes());
        }
        let mut out = Vec::new();
        last_chunk(&mut out, b"");
        assert_eq!(out, LAST_CHUNK);
        last_chunk(&mut out, b"A: 1\r\n");
        assert_eq!(out, b"0\r\n\r\n0\r\nA: 1\r\n\r\n");
    }

    #[test]
    fn an_address_is_written_as_v4_when_it_is_one() {
        let mut out = Vec::new();
        write_address(&mut out, IpAddr::V6(Ipv4Addr::new(1, 20, 0, 255).to_ipv6_mapped()));
        out.push(b' ');
        write_address(&mut out, IpAddr::from([109, 10, 199, 100]));
        out.push(b' ');
        write_address(&mut out, IpAddr::V6(Ipv6Addr::LOCALHOST));
        assert_eq!(out, b"1.20.0.255 109.10.199.100 ::1");
    }
}
