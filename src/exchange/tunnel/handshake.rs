//! What leads to a tunnel: a request that asks to go over to another protocol (`Upgrade`, RFC 9110
//! section 7.8), and the 101 that agrees. A 101 counts only when we asked for it, and only for the
//! protocol that the client offered and its route allows. On streams of HTTP/2 both are said in
//! other words (RFC 8441), which are turned into these and back.

use crate::exchange::tunnel::websocket;
use crate::http::head::{Framing, Line, Method, RequestHead, ResponseHead, Span, Version};
use crate::http::headers::HeaderId;
use crate::http2::fields;
use crate::plan::Upgrades;

/// What a request asks its endpoint to go over to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Of the route's.
    pub(crate) protocol: u8,
    /// As the client has it, in the bytes of its head.
    name: Span,
    /// Of a WebSocket.
    key: Option<Span>,
}

impl Asked {
    /// The first protocol that the client offers and the route allows. `None`: an ordinary request,
    /// which is forwarded without its `Upgrade`. `head.upgrade` says that there may be one.
    #[cold]
    pub(crate) fn find(head: &RequestHead, bytes: &[u8], route: &Upgrades) -> Option<Asked> {
        // A body would have to end before the other protocol begins, and nobody sends one.
        let has_body = !matches!(head.framing, Framing::None | Framing::Length(0));
        if head.version == Version::Http10 || has_body || head.method == Method::Head {
            return None;
        }
        let lines = head.lines.iter().filter(|line| line.id == HeaderId::Upgrade);
        let mut offers = lines.flat_map(|line| members(line.value, bytes));
        let asked = offers.find_map(|name| {
            let offered = name.of(bytes);
            let mut allowed = route.protocols.iter();
            let at = allowed.position(|name| offered.eq_ignore_ascii_case(name.as_bytes()))?;
            Some(Asked { protocol: u8::try_from(at).ok()?, name, key: None })
        })?;
        if !route.is_websocket(asked.protocol) {
            return Some(asked);
        }
        // RFC 6455 section 4.1. Without its key the 101 could not be told from any other.
        let key = only_line(&head.lines, bytes, b"sec-websocket-key")?;
        let is_fit =
            head.method == Method::Get && !key.hop_by_hop && key.value.of(bytes).len() == 24;
        is_fit.then_some(Asked { key: Some(key.value), ..asked })
    }

    /// Completes a head that would end here.
    #[cold]
    pub(crate) fn ask(&self, head: &[u8], out: &mut Vec<u8>) {
        switch(self.name(head), out);
    }

    /// Whether all of the request is for the tunnel: what offers another protocol beside may be
    /// answered without it.
    pub(super) fn is_websocket(&self) -> bool {
        self.key.is_some()
    }

    pub(super) fn name(self, head: &[u8]) -> &[u8] {
        self.name.of(head)
    }

    /// Whether this 101 is the one that was asked for; `head` is the request's.
    pub(super) fn is_met(&self, head: &[u8], answer: &ResponseHead, bytes: &[u8]) -> bool {
        let lines = &answer.lines;
        let of = |id: HeaderId| lines.iter().filter(move |line| line.id == id);
        let mut upgrades = of(HeaderId::Upgrade).map(|line| line.value.of(bytes));
        let protocol = upgrades.next().unwrap_or_default();
        let options = of(HeaderId::Connection).flat_map(|line| members(line.value, bytes));
        let mut options = options.map(|option| option.of(bytes));
        // Whatever it frames belongs to no protocol (RFC 9110 sections 8.6 and 15.2).
        let has_body = of(HeaderId::TransferEncoding).next().is_some()
            || of(HeaderId::ContentLength).any(|line| line.value.of(bytes) != b"0");
        let accepted = |key: Span| {
            let expected = websocket::accept(key.of(head));
            let found = only_line(lines, bytes, b"sec-websocket-accept");
            found.is_some_and(|line| line.value.of(bytes) == expected)
        };
        answer.version == Version::Http11
            && !has_body
            && upgrades.next().is_none()
            && protocol.eq_ignore_ascii_case(self.name.of(head))
            && options.any(|option| option.eq_ignore_ascii_case(b"upgrade"))
            && self.key.is_none_or(accepted)
    }
}

/// The 2xx of an endpoint that was asked by a stream of HTTP/2, as the 101 that HTTP/1.1 would have
/// it say; `head` is the request's.
pub(super) fn as_switch(asked: Asked, head: &[u8], answer: &ResponseHead, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(answer.bytes + SWITCH_BYTES);
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    if let Some(key) = asked.key {
        out.extend_from_slice(b"Sec-WebSocket-Accept: ");
        out.extend_from_slice(&websocket::accept(key.of(head)));
        out.extend_from_slice(b"\r\n");
    }
    for line in &answer.lines {
        let name = line.name.of(bytes);
        // Neither has a meaning there (RFC 9110 section 9.3.6, RFC 8441 section 5).
        let is_void = line.id == HeaderId::ContentLength
            || name.eq_ignore_ascii_case(b"sec-websocket-accept");
        if !is_void && !line.hop_by_hop {
            fields::line(&mut out, name, line.value.of(bytes));
        }
    }
    out.extend_from_slice(b"\r\n");
    switch(asked.name(head), &mut out);
    out
}

/// What a 101 has beside the lines of a 2xx.
const SWITCH_BYTES: usize = 256;

/// The lines that a head needs by which its connection goes over to `protocol`. Those of the other
/// side are never forwarded (RFC 9110 section 7.6.1).
pub(super) fn switch(protocol: &[u8], out: &mut Vec<u8>) {
    debug_assert!(out.ends_with(b"\r\n\r\n"), "a whole head");
    out.truncate(out.len() - 2);
    out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: ");
    out.extend_from_slice(protocol);
    out.extend_from_slice(b"\r\n\r\n");
}

/// A 101 as it is said to who has asked by a stream of HTTP/2.
pub(super) fn without_switch(head: &mut ResponseHead, bytes: &[u8]) {
    head.status = 200;
    for line in &mut head.lines {
        line.hop_by_hop |= line.name.of(bytes).eq_ignore_ascii_case(b"sec-websocket-accept");
    }
}

/// The members of a comma-separated list.
fn members(list: Span, bytes: &[u8]) -> impl Iterator<Item = Span> {
    let value = list.of(bytes);
    let mut next = list.start as usize;
    value.split(|byte| *byte == b',').filter_map(move |part| {
        let start = next + (part.len() - part.trim_ascii_start().len());
        let member = part.trim_ascii();
        next += part.len() + 1;
        (!member.is_empty()).then(|| Span::between(start, start + member.len()))
    })
}

/// `None`: there are none, or several.
fn only_line<'l>(lines: &'l [Line], bytes: &[u8], name: &[u8]) -> Option<&'l Line> {
    let mut found = lines.iter().filter(|line| line.name.of(bytes).eq_ignore_ascii_case(name));
    found.next().filter(|_| found.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::parse::{self, HeadLimits, Parsed};

    const LIMITS: HeadLimits =
        HeadLimits { url_bytes_max: 1000, header_bytes_max: 4000, headers_max: 50 };
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    fn route(protocols: &[&str]) -> Upgrades {
        let protocols = protocols.iter().map(|&name| name.into()).collect();
        Upgrades { protocols, ..Upgrades::default() }
    }

    fn asked(text: &str, route: &Upgrades) -> Option<Asked> {
        let mut head = RequestHead::default();
        assert_eq!(parse::request(text.as_bytes(), &LIMITS, &mut head), Ok(Parsed::Complete));
        Asked::find(&head, text.as_bytes(), route)
    }

    fn request(line: &str, lines: &str) -> String {
        format!("{line}\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n{lines}\r\n")
    }

    /// What the endpoint would be asked for.
    fn offer(line: &str, lines: &str, protocols: &[&str]) -> Option<String> {
        let text = request(line, lines);
        let asked = asked(&text, &route(protocols))?;
        Some(String::from_utf8(asked.name.of(text.as_bytes()).to_vec()).unwrap())
    }

    #[test]
    fn a_websocket_is_asked_for_by_get_with_one_key_and_without_a_body() {
        let ws = |line: &str, lines: &str| offer(line, lines, &["websocket"]);
        let fine = format!("Upgrade: WebSocket\r\n{KEY}");
        let get = "GET / HTTP/1.1";
        assert_eq!(ws(get, &fine).as_deref(), Some("WebSocket"));
        assert!(ws(get, &format!("{fine}Content-Length: 0\r\n")).is_some());
        for (line, lines) in [
            ("POST / HTTP/1.1", fine.clone()),
            ("HEAD / HTTP/1.1", fine.clone()),
            ("GET / HTTP/1.0", fine.clone()),
            (get, format!("{fine}Content-Length: 1\r\n")),
            (get, format!("{fine}Transfer-Encoding: chunked\r\n")),
            (get, "Upgrade: websocket\r\n".to_owned()),
            (get, format!("{fine}{KEY}")),
            (get, format!("{fine}Connection: Sec-WebSocket-Key\r\n")),
            (get, "Upgrade: websocket\r\nSec-WebSocket-Key: short\r\n".to_owned()),
        ] {
            assert_eq!(ws(line, &lines), None, "{line} {lines}");
        }
        assert_eq!(offer(get, &fine, &["tcp"]), None);
    }

    #[test]
    fn of_several_offers_the_first_that_is_allowed_is_asked_for() {
        let of = |lines: &str| offer("POST / HTTP/1.1", lines, &["websocket", "tcp", "irc/6.9"]);
        assert_eq!(of("Upgrade: h2c, TCP\r\n").as_deref(), Some("TCP"));
        assert_eq!(of("Upgrade: h2c\r\nUpgrade: , IRC/6.9 ,tcp\r\n").as_deref(), Some("IRC/6.9"));
        assert_eq!(of("Upgrade: h2c\r\nUpgrade: \r\n"), None);
        assert_eq!(of("Upgrade: tcp/1\r\nUpgrade: irc\r\n"), None);
    }

    fn met(lines: &str) -> bool {
        met_by("HTTP/1.1 101 Switching Protocols", lines)
    }

    fn met_by(line: &str, lines: &str) -> bool {
        let text = request("GET / HTTP/1.1", &format!("Upgrade: websocket\r\n{KEY}"));
        let asked = asked(&text, &route(&["websocket"])).unwrap();
        let answer = format!("{line}\r\n{lines}\r\n");
        let mut head = ResponseHead::default();
        let parsed = parse::response(answer.as_bytes(), Method::Get, &LIMITS, &mut head);
        assert_eq!(parsed, Ok(Parsed::Complete));
        asked.is_met(text.as_bytes(), &head, answer.as_bytes())
    }

    #[test]
    fn only_the_101_that_was_asked_for_is_one() {
        let fine = format!("Upgrade: WebSocket\r\nConnection: x, upgrade\r\n{ACCEPT}");
        assert!(met(&fine));
        assert!(met(&format!("{fine}Content-Length: 0\r\n")));
        let without = |line: &str| fine.replace(line, "");
        for lines in [
            String::new(),
            without("Upgrade: WebSocket\r\n"),
            without("Connection: x, upgrade\r\n"),
            without(ACCEPT),
            fine.replace("WebSocket\r", "tcp\r"),
            fine.replace("WebSocket\r", "websocket, tcp\r"),
            fine.replace("s3pP", "S3pP"),
            format!("{fine}Upgrade: websocket\r\n"),
            format!("{fine}{ACCEPT}"),
            format!("{fine}Content-Length: 5\r\n"),
            format!("{fine}Transfer-Encoding: chunked\r\n"),
        ] {
            assert!(!met(&lines), "{lines}");
        }
        assert!(!met_by("HTTP/1.0 101 Switching Protocols", &fine));
    }

    #[test]
    fn a_2xx_of_a_stream_is_the_101_that_would_have_been_met() {
        let text = request("GET / HTTP/1.1", &format!("Upgrade: WebSocket\r\n{KEY}"));
        let asked = asked(&text, &route(&["websocket"])).unwrap();
        let parsed = |answer: &[u8]| {
            let mut head = ResponseHead::default();
            assert_eq!(
                parse::response(answer, Method::Get, &LIMITS, &mut head),
                Ok(Parsed::Complete)
            );
            head
        };
        let answer = b"HTTP/1.1 200 OK\r\nx-a: 1\r\nsec-websocket-accept: no\r\nserver: b\r\n\
                       content-length: 0\r\nsec-websocket-protocol: chat\r\n\r\n";
        let out = as_switch(asked, text.as_bytes(), &parsed(answer), answer);
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            format!(
                "HTTP/1.1 101 Switching Protocols\r\n{ACCEPT}x-a: 1\r\nserver: b\r\n\
                 sec-websocket-protocol: chat\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
            )
        );
        assert!(asked.is_met(text.as_bytes(), &parsed(&out), &out));
    }

    #[test]
    fn a_head_is_completed_with_both_lines() {
        let mut out = b"HTTP/1.1 101 X\r\nA: 1\r\n\r\n".to_vec();
        switch(b"tcp", &mut out);
        assert_eq!(out, b"HTTP/1.1 101 X\r\nA: 1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
    }
}
