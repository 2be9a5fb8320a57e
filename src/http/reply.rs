//! Replies of our own: errors as JSON, `respond`, `redirect`, the echo page. They go out with the
//! route's response headers like any other response; what frames them is out of those edits' reach.

use std::borrow::Cow;
use std::time::SystemTime;

use crate::exchange::failure::Failure;
use crate::hexadecimal;
use crate::http::head::{Keep, RequestHead, Version};
use crate::http::headers::HeaderEdits;
use crate::plan::{LocationPart, Redirect, Respond};
use crate::telemetry::{decimal, json, timestamp};

/// A complete reply, before the headers that depend on the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    pub status: u16,
    /// Empty: no `Content-Type`.
    pub content_type: &'a str,
    pub body: Cow<'a, [u8]>,
    pub extra: Extra,
    /// Another `Accept` would have had another body: caches must know (RFC 9110 12.5.5).
    pub varies: bool,
}

/// The one header line that a kind of reply has and others have not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extra {
    None,
    /// 405 must say what is allowed (RFC 9110 15.5.6).
    Allow,
    /// Seconds.
    RetryAfter(u32),
    Location(Vec<u8>),
    /// The body holds what the client sent: no browser may take it for a page.
    NoSniff,
    /// What ends a gRPC call, as it is written: its status, in a head that is all there is.
    Grpc(Vec<u8>),
    /// Names and values, of a response of the upstream that this one replaces.
    Lines(Vec<(Vec<u8>, Vec<u8>)>),
}

/// What goes with the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodySent {
    Whole,
    /// Answer to HEAD: the length is told, the body is not sent (RFC 9110 9.3.2).
    HeadOnly,
}

/// What a reply needs to know of the connection that it leaves on, and of its request.
#[derive(Clone, Copy, Debug)]
pub struct Sending<'a> {
    /// Of the request: a 1.0 client must be told that the connection stays open.
    pub version: Version,
    pub keep: Keep,
    pub body: BodySent,
    pub date: SystemTime,
    pub proxy_id: &'a str,
    pub request_id: &'a [u8],
    pub edits: &'a HeaderEdits,
}

impl<'a> Reply<'a> {
    /// The answer to a failure; `None` when it has none.
    pub fn failure(failure: Failure, request_id: &[u8], at: SystemTime) -> Option<Reply<'static>> {
        let row = failure.row();
        if row.status == 0 {
            return None;
        }
        let extra = match failure.retry_after_seconds() {
            Some(seconds) => Extra::RetryAfter(seconds),
            None if failure == Failure::MethodRefused => Extra::Allow,
            None => Extra::None,
        };
        let body = error_body(row.code, row.message, request_id, at);
        Some(Reply { extra, ..Reply::json(row.status, body) })
    }

    /// A call that ends before it has an answer. Its status is in `lines`, not in that of HTTP.
    pub fn grpc(content_type: &'a str, lines: Vec<u8>) -> Reply<'a> {
        Reply {
            status: 200,
            content_type,
            body: Cow::Borrowed(b""),
            extra: Extra::Grpc(lines),
            varies: false,
        }
    }

    pub fn json(status: u16, body: Vec<u8>) -> Reply<'static> {
        Reply {
            status,
            content_type: "application/json",
            body: Cow::Owned(body),
            extra: Extra::None,
            varies: false,
        }
    }

    pub fn respond(respond: &'a Respond) -> Reply<'a> {
        Reply {
            status: respond.status,
            content_type: &respond.content_type,
            body: Cow::Borrowed(&respond.body),
            extra: Extra::None,
            varies: false,
        }
    }

    /// `authority` with or without a port, `query` with its `?`, all three as they came.
    pub fn redirect(
        redirect: &Redirect,
        authority: &[u8],
        path: &[u8],
        query: &[u8],
    ) -> Reply<'static> {
        Reply {
            status: redirect.status,
            content_type: "",
            body: Cow::Borrowed(b""),
            extra: Extra::Location(location(&redirect.location, authority, path, query)),
            varies: false,
        }
    }

    /// The page of the embedded default: what came, as text, or as JSON for who asks for it.
    pub fn echo(head: &RequestHead, bytes: &[u8]) -> Reply<'static> {
        let wants_json = head.lines.iter().any(|line| {
            line.name.of(bytes).eq_ignore_ascii_case(b"accept")
                && contains(line.value.of(bytes), b"application/json")
        });
        let (content_type, body) = if wants_json {
            ("application/json", echo_json(head, bytes))
        } else {
            ("text/plain; charset=utf-8", echo_text(head, bytes))
        };
        let (body, extra) = (Cow::Owned(body), Extra::NoSniff);
        Reply { status: 200, content_type, body, extra, varies: false }
    }

    /// Appends the whole reply.
    pub fn encode(&self, sending: &Sending<'_>, out: &mut Vec<u8>) {
        let has_content = self.has_content();
        out.reserve(HEAD_BYTES_USUAL + self.body.len());
        self.encode_head(sending, has_content, out);
        out.extend_from_slice(self.sent_body(sending));
    }

    /// The bytes that follow the head.
    pub fn sent_body(&self, sending: &Sending<'_>) -> &[u8] {
        if self.has_content() && sending.body == BodySent::Whole { &self.body } else { b"" }
    }

    fn has_content(&self) -> bool {
        !matches!(self.status, 204 | 304)
    }

    fn encode_head(&self, sending: &Sending<'_>, has_content: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 ");
        decimal::padded(u64::from(self.status), 3, out);
        out.push(b' ');
        out.extend_from_slice(reason(self.status).as_bytes());
        out.extend_from_slice(b"\r\n");

        let edits = sending.edits;
        if !edits.replaces(b"date") {
            out.extend_from_slice(b"Date: ");
            timestamp::http_date(sending.date, out);
            out.extend_from_slice(b"\r\n");
        }
        if has_content && !self.content_type.is_empty() {
            ours(edits, b"Content-Type", self.content_type.as_bytes(), out);
        }
        // No length goes with a 204 (RFC 9110 8.6), and that of a 304 would be another response's.
        if has_content {
            out.extend_from_slice(b"Content-Length: ");
            decimal::integer(self.body.len() as u64, out);
            out.extend_from_slice(b"\r\n");
        }
        match (sending.keep, sending.version) {
            (Keep::Close, Version::Http10 | Version::Http11) => line(b"Connection", b"close", out),
            (Keep::Open, Version::Http10) => line(b"Connection", b"keep-alive", out),
            (Keep::Open, Version::Http11) | (_, Version::Http2) => {}
        }
        self.encode_extra(edits, out);
        if self.varies {
            ours(edits, b"Vary", b"Accept", out);
        }
        ours(edits, b"X-Request-Id", sending.request_id, out);
        ours(edits, b"X-Proxy-ID", sending.proxy_id.as_bytes(), out);
        for (name, value) in edits.set.iter().chain(&edits.add) {
            if !is_framing(name) {
                line(name, value, out);
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    fn encode_extra(&self, edits: &HeaderEdits, out: &mut Vec<u8>) {
        match &self.extra {
            Extra::None => {}
            Extra::Allow => ours(edits, b"Allow", ALLOWED, out),
            Extra::RetryAfter(seconds) => {
                let mut value = Vec::with_capacity(4);
                decimal::integer(u64::from(*seconds), &mut value);
                ours(edits, b"Retry-After", &value, out);
            }
            Extra::Location(location) => ours(edits, b"Location", location, out),
            Extra::NoSniff => ours(edits, b"X-Content-Type-Options", b"nosniff", out),
            Extra::Grpc(lines) => out.extend_from_slice(lines),
            Extra::Lines(lines) => {
                lines.iter().for_each(|(name, value)| ours(edits, name, value, out));
            }
        }
    }
}

/// A line of ours, unless the route removes or replaces it.
fn ours(edits: &HeaderEdits, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    if !edits.replaces(name) && !value.is_empty() {
        line(name, value, out);
    }
}

/// Where the reply ends and what becomes of the connection is ours to say alone. The configuration
/// refuses these names; this is the second lock on the same door.
fn is_framing(name: &[u8]) -> bool {
    let framing: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"connection"];
    framing.iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

/// Every name and value comes from the configuration, from this file, or from a checked head.
/// Should a line end get through all the same, it must not split the response.
fn line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    let start = out.len();
    out.extend_from_slice(value);
    for byte in &mut out[start..] {
        if matches!(byte, b'\r' | b'\n' | 0) {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The JSON form of every error that the proxy or its admin API reports.
pub(crate) fn error_body(code: &str, message: &str, request_id: &[u8], at: SystemTime) -> Vec<u8> {
    let mut body = Vec::with_capacity(192 + request_id.len());
    body.extend_from_slice(b"{\"error\":{\"code\":");
    json::string(code.as_bytes(), &mut body);
    body.extend_from_slice(b",\"message\":");
    json::string(message.as_bytes(), &mut body);
    body.extend_from_slice(b",\"request_id\":");
    json::string(request_id, &mut body);
    body.extend_from_slice(b",\"timestamp\":\"");
    timestamp::iso(at, &mut body);
    body.extend_from_slice(b"\"}}");
    body
}

fn location(parts: &[LocationPart], authority: &[u8], path: &[u8], query: &[u8]) -> Vec<u8> {
    let path = if path.is_empty() { b"/" } else { path };
    let mut out = Vec::with_capacity(64 + authority.len() + path.len() + query.len());
    for part in parts {
        match part {
            LocationPart::Text(text) => out.extend_from_slice(text),
            LocationPart::Host => uri_safe(without_port(authority), &mut out),
            // `//other.example/` at the front would name another host, chosen by who made the link.
            LocationPart::Path if out.is_empty() => uri_safe(with_one_slash(path), &mut out),
            LocationPart::Path => uri_safe(path, &mut out),
            LocationPart::Query => uri_safe(query, &mut out),
        }
    }
    out
}

fn with_one_slash(path: &[u8]) -> &[u8] {
    let slashes = path.iter().take_while(|&&byte| byte == b'/').count();
    &path[slashes.saturating_sub(1)..]
}

/// `[::1]:80` and `host:80` without the port.
fn without_port(authority: &[u8]) -> &[u8] {
    let colon = authority.iter().rposition(|&byte| byte == b':');
    match colon {
        Some(colon) if authority[colon + 1..].iter().all(u8::is_ascii_digit) => &authority[..colon],
        Some(_) | None => authority,
    }
}

/// What RFC 3986 forbids in a URI is percent-encoded; what is encoded already stays as it is.
fn uri_safe(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            out.push(byte);
        } else {
            out.push(b'%');
            out.extend_from_slice(&hexadecimal::upper(byte));
        }
    }
}

fn echo_text(head: &RequestHead, bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(head.bytes + 64);
    body.extend_from_slice(head.method_name.of(bytes));
    body.push(b' ');
    body.extend_from_slice(head.target.of(bytes));
    body.extend_from_slice(b"\n\n");
    for line in &head.lines {
        body.extend_from_slice(line.name.of(bytes));
        body.extend_from_slice(b": ");
        body.extend_from_slice(line.value.of(bytes));
        body.push(b'\n');
    }
    body
}

/// Headers are a list of pairs: names may repeat, and their order is part of what is shown.
fn echo_json(head: &RequestHead, bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(head.bytes * 2 + 64);
    body.extend_from_slice(b"{\"method\":");
    json::string(head.method_name.of(bytes), &mut body);
    body.extend_from_slice(b",\"target\":");
    json::string(head.target.of(bytes), &mut body);
    body.extend_from_slice(b",\"headers\":[");
    for (index, line) in head.lines.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.push(b'[');
        json::string(line.name.of(bytes), &mut body);
        body.push(b',');
        json::string(line.value.of(bytes), &mut body);
        body.push(b']');
    }
    body.extend_from_slice(b"]}\n");
    body
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle))
}

/// RFC 9110 section 15 and the registry; empty for a status that has no name.
pub fn reason(status: u16) -> &'static str {
    REASONS.binary_search_by_key(&status, |&(known, _)| known).map_or("", |index| REASONS[index].1)
}

/// Methods that pass where TRACE and CONNECT do not.
const ALLOWED: &[u8] = b"GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH";
const HEAD_BYTES_USUAL: usize = 320;
#[rustfmt::skip]
const REASONS: &[(u16, &str)] = &[
    (200, "OK"), (201, "Created"), (202, "Accepted"), (203, "Non-Authoritative Information"),
    (204, "No Content"), (205, "Reset Content"), (206, "Partial Content"),
    (300, "Multiple Choices"), (301, "Moved Permanently"), (302, "Found"), (303, "See Other"),
    (304, "Not Modified"), (307, "Temporary Redirect"), (308, "Permanent Redirect"),
    (400, "Bad Request"), (401, "Unauthorized"), (402, "Payment Required"), (403, "Forbidden"),
    (404, "Not Found"), (405, "Method Not Allowed"), (406, "Not Acceptable"),
    (407, "Proxy Authentication Required"), (408, "Request Timeout"), (409, "Conflict"),
    (410, "Gone"), (411, "Length Required"), (412, "Precondition Failed"),
    (413, "Content Too Large"), (414, "URI Too Long"), (415, "Unsupported Media Type"),
    (416, "Range Not Satisfiable"), (417, "Expectation Failed"), (418, "I'm a teapot"),
    (421, "Misdirected Request"), (422, "Unprocessable Content"), (423, "Locked"),
    (424, "Failed Dependency"), (425, "Too Early"), (426, "Upgrade Required"),
    (428, "Precondition Required"), (429, "Too Many Requests"),
    (431, "Request Header Fields Too Large"), (451, "Unavailable For Legal Reasons"),
    (500, "Internal Server Error"), (501, "Not Implemented"), (502, "Bad Gateway"),
    (503, "Service Unavailable"), (504, "Gateway Timeout"), (505, "HTTP Version Not Supported"),
    (507, "Insufficient Storage"), (511, "Network Authentication Required"),
];

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::http::head::{Line, Span};
    use crate::http::headers::HeaderId;

    const EDITS: &HeaderEdits =
        &HeaderEdits { remove: Vec::new(), set: Vec::new(), add: Vec::new() };

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_767_323_045_678)
    }

    fn sending(edits: &HeaderEdits) -> Sending<'_> {
        Sending {
            version: Version::Http11,
            keep: Keep::Open,
            body: BodySent::Whole,
            date: now(),
            proxy_id: "edge-1",
            request_id: b"0123456789abcdef",
            edits,
        }
    }

    fn text(reply: &Reply<'_>, sending: &Sending<'_>) -> String {
        let mut out = Vec::new();
        reply.encode(sending, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn plain(status: u16, body: &'static str) -> Reply<'static> {
        let body = Cow::Borrowed(body.as_bytes());
        Reply { status, content_type: "text/plain", body, extra: Extra::None, varies: false }
    }

    fn edits(remove: &[&str], set: &[(&str, &str)], add: &[(&str, &str)]) -> HeaderEdits {
        let boxed = |text: &str| Box::<[u8]>::from(text.as_bytes());
        let pairs = |list: &[(&str, &str)]| {
            list.iter().map(|(name, value)| (boxed(name), boxed(value))).collect()
        };
        HeaderEdits {
            remove: remove.iter().map(|name| boxed(name)).collect(),
            set: pairs(set),
            add: pairs(add),
        }
    }

    /// A head of `GET /a"b`, made by hand so that these tests do not hang on the parser.
    fn request(lines: &[(&str, &str)]) -> (RequestHead, Vec<u8>) {
        let mut bytes = Vec::new();
        let mut put = |text: &str| {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(text.as_bytes());
            Span { start, end: bytes.len() as u32 }
        };
        let mut head =
            RequestHead { method_name: put("GET"), target: put("/a\"b"), ..Default::default() };
        for (name, value) in lines {
            let (name, value) = (put(name), put(value));
            let (line, id) = (Span::default(), HeaderId::Other);
            head.lines.push(Line { line, name, value, id, hop_by_hop: false });
        }
        head.bytes = bytes.len();
        (head, bytes)
    }

    #[test]
    fn an_error_is_json_with_exactly_these_members() {
        let reply = Reply::failure(Failure::FirstByteTimeout, b"abc\"\n", now()).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&reply.body),
            "{\"error\":{\"code\":\"BACKEND_TIMEOUT\",\
             \"message\":\"the backend did not answer in time\",\
             \"request_id\":\"abc\\\"\\n\",\"timestamp\":\"2026-01-02T03:04:05.678Z\"}}"
        );
        assert!(json::check::is_valid(&reply.body));
        assert_eq!(reply.status, Failure::FirstByteTimeout.status());
    }

    #[test]
    fn a_whole_reply_is_as_reviewed() {
        let reply = Reply::failure(Failure::PoolFull, b"0123456789abcdef", now()).unwrap();
        let mut sending = sending(EDITS);
        sending.keep = Keep::Close;
        assert_eq!(
            text(&reply, &sending),
            "HTTP/1.1 503 Service Unavailable\r\n\
             Date: Fri, 02 Jan 2026 03:04:05 GMT\r\n\
             Content-Type: application/json\r\n\
             Content-Length: 162\r\n\
             Connection: close\r\n\
             Retry-After: 1\r\n\
             X-Request-Id: 0123456789abcdef\r\n\
             X-Proxy-ID: edge-1\r\n\
             \r\n\
             {\"error\":{\"code\":\"OVERLOADED\",\"message\":\"too many requests wait for this \
             backend already\",\"request_id\":\"0123456789abcdef\",\
             \"timestamp\":\"2026-01-02T03:04:05.678Z\"}}"
        );
    }

    #[test]
    fn every_failure_that_can_be_answered_has_a_reason_phrase_and_a_true_length() {
        for failure in Failure::ALL {
            let Some(reply) = Reply::failure(failure, b"id", now()) else {
                assert_eq!(failure.status(), 0);
                continue;
            };
            let text = text(&reply, &sending(EDITS));
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(!reason(reply.status).is_empty(), "{failure:?}");
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{failure:?}");
            assert_eq!(head.contains("\r\nAllow: "), reply.status == 405, "{failure:?}");
            assert_eq!(
                head.contains("\r\nRetry-After: "),
                matches!(reply.status, 503 | 429),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn head_gets_the_length_and_no_body() {
        let mut sending = sending(EDITS);
        sending.body = BodySent::HeadOnly;
        let text = text(&plain(200, "hello"), &sending);
        assert!(text.contains("Content-Length: 5\r\n"));
        assert!(text.ends_with("\r\n\r\n"));
    }

    #[test]
    fn statuses_without_content_have_neither_length_nor_body() {
        for status in [204, 304] {
            let text = text(&plain(status, "hello"), &sending(EDITS));
            assert!(!text.contains("Content-Length") && !text.contains("Content-Type"), "{text}");
            assert!(text.ends_with("\r\n\r\n"));
        }
    }

    #[test]
    fn a_http10_client_is_told_that_its_connection_stays_open() {
        let mut sending = sending(EDITS);
        assert!(!text(&plain(200, ""), &sending).contains("Connection"));
        sending.version = Version::Http10;
        assert!(text(&plain(200, ""), &sending).contains("\r\nConnection: keep-alive\r\n"));
    }

    #[test]
    fn edits_reach_every_line_but_the_framing() {
        let edits = edits(
            &["x-proxy-id", "content-length", "date"],
            &[("Content-Type", "text/html"), ("Content-Length", "0"), ("X-Env", "prod")],
            &[("X-Env", "more"), ("Connection", "upgrade")],
        );
        let text = text(&plain(200, "hello"), &sending(&edits));
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Request-Id: 0123456789abcdef\r\n\
             Content-Type: text/html\r\nX-Env: prod\r\nX-Env: more\r\n\r\nhello"
        );
    }

    #[test]
    fn no_value_can_split_the_response() {
        let mut sending = sending(EDITS);
        sending.request_id = b"a\r\nSet-Cookie: x=1\r\n\r\n";
        let text = text(&plain(200, "hello"), &sending);
        assert_eq!(text.matches("\r\n\r\n").count(), 1);
        assert!(!text.contains("\r\nSet-Cookie"));
    }

    fn redirected(parts: Vec<LocationPart>, authority: &str, path: &str, query: &str) -> String {
        let redirect = Redirect { status: 308, location: parts };
        let (authority, path, query) = (authority.as_bytes(), path.as_bytes(), query.as_bytes());
        match Reply::redirect(&redirect, authority, path, query).extra {
            Extra::Location(location) => String::from_utf8(location).unwrap(),
            extra @ (Extra::None
            | Extra::Allow
            | Extra::RetryAfter(_)
            | Extra::NoSniff
            | Extra::Grpc(_)
            | Extra::Lines(_)) => panic!("{extra:?}"),
        }
    }

    fn to_https() -> Vec<LocationPart> {
        let scheme = LocationPart::Text(b"https://".to_vec());
        vec![scheme, LocationPart::Host, LocationPart::Path, LocationPart::Query]
    }

    #[test]
    fn a_redirect_keeps_host_path_and_query_but_not_the_port() {
        assert_eq!(
            redirected(to_https(), "a.example:8080", "/x%20y", "?q=1"),
            "https://a.example/x%20y?q=1"
        );
        assert_eq!(redirected(to_https(), "[2001:db8::1]:80", "", ""), "https://[2001:db8::1]/");
        assert_eq!(redirected(to_https(), "[2001:db8::1]", "/", ""), "https://[2001:db8::1]/");
    }

    #[test]
    fn a_redirect_to_the_bare_path_never_names_another_host() {
        let parts = || vec![LocationPart::Path, LocationPart::Query];
        assert_eq!(redirected(parts(), "a", "//evil.example/x", ""), "/evil.example/x");
        assert_eq!(redirected(parts(), "a", "/\\evil.example", ""), "/%5Cevil.example");
        assert_eq!(redirected(to_https(), "a", "//b", ""), "https://a//b");
    }

    #[test]
    fn a_location_holds_uri_characters_only() {
        let location = redirected(to_https(), "a", "/ \r\nX: y\u{e9}", "?<\">");
        assert_eq!(location, "https://a/%20%0D%0AX:%20y%C3%A9?%3C%22%3E");
    }

    #[test]
    fn the_echo_page_is_text_and_json_on_demand() {
        let (head, bytes) = request(&[("Host", "a"), ("X-Two", "1"), ("X-Two", "2")]);
        let reply = Reply::echo(&head, &bytes);
        assert_eq!(reply.extra, Extra::NoSniff);
        assert_eq!(reply.body, b"GET /a\"b\n\nHost: a\nX-Two: 1\nX-Two: 2\n".as_slice());

        let (head, bytes) = request(&[("ACCEPT", "text/html, Application/JSON;q=0.5")]);
        let reply = Reply::echo(&head, &bytes);
        assert_eq!(
            String::from_utf8_lossy(&reply.body),
            "{\"method\":\"GET\",\"target\":\"/a\\\"b\",\
             \"headers\":[[\"ACCEPT\",\"text/html, Application/JSON;q=0.5\"]]}\n"
        );
        assert!(json::check::is_valid(reply.body.trim_ascii_end()));
    }

    #[test]
    fn the_reason_table_is_sorted() {
        assert!(REASONS.is_sorted_by(|(one, _), (next, _)| one < next));
        assert_eq!(reason(299), "");
    }
}
