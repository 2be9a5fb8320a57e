//! Heads to bytes: untouched lines as they came, ours spliced in. Called by the sessions, with heads
//! that `parse` accepted and edits that the configuration check accepted: a CR or LF cannot get in.

use std::io::Write;
use std::net::IpAddr;

use crate::http::head::{
    Framing, Keep, Line, Method, RequestHead, ResponseHead, TargetForm, Version,
};
use crate::http::headers::{HeaderEdits, HeaderId};

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
    copy_lines(out, bytes, &head.lines, |line| {
        kept.passes(line, head, framing, forwarded.trusted) && !edited_away(line, bytes, edits)
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
    edit_lines(out, edits);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head for a client, which spoke `client` (its version). A 1xx passes with its own lines
/// only: it is no answer yet.
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
    let interim = head.status < 200;
    let edited = !edits.is_empty() && !interim;
    copy_lines(out, bytes, &head.lines, |line| {
        !line.hop_by_hop
            && match line.id {
                HeaderId::ContentLength => head.framing == framing,
                HeaderId::Trailer => framing == Framing::Chunked,
                HeaderId::XProxyId => interim,
                other => other != HeaderId::TransferEncoding,
            }
            && !(edited && edited_away(line, bytes, edits))
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
        (Keep::Open, Version::Http11) => {}
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
    write_decimal(out, u64::from(head.status));
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
    fn passes(&mut self, line: &Line, head: &RequestHead, framing: Framing, trusted: bool) -> bool {
        if line.hop_by_hop {
            return false;
        }
        let kept = match line.id {
            HeaderId::XForwardedHost => &mut self.host,
            HeaderId::XForwardedProto => &mut self.proto,
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
}

/// A line of its own after those that came is the list with us at its end (RFC 9110 sections 5.3, 7.6.3).
fn via(out: &mut Vec<u8>, received: Version, proxy_id: &str) {
    let name = match received {
        Version::Http10 => b"Via: 1.0 ",
        Version::Http11 => b"Via: 1.1 ",
    };
    field(out, name, proxy_id.as_bytes());
}

const CHUNKED_LINE: &[u8] = b"Transfer-Encoding: chunked\r\n";

fn framing_line(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            write_decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(CHUNKED_LINE),
        Framing::None | Framing::UntilClose => {}
    }
}

/// What the operator sets and adds. Framing is not the operator's to set, and `Host` has been written.
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
            for (at, octet) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                write_decimal(out, u64::from(octet));
            }
        }
        IpAddr::V6(address) => write!(out, "{address}").expect("a Vec takes every write"),
    }
}

/// `number` in decimal, without the machinery of `format!`.
pub fn write_decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = number;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::parse::{self, HeadLimits, Parsed};
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

    #[test]
    fn an_address_is_written_as_v4_when_it_is_one() {
        let mut out = Vec::new();
        write_address(&mut out, IpAddr::V6(Ipv4Addr::new(1, 20, 0, 255).to_ipv6_mapped()));
        out.push(b' ');
        write_address(&mut out, IpAddr::V6(Ipv6Addr::LOCALHOST));
        assert_eq!(out, b"1.20.0.255 ::1");
    }
}
