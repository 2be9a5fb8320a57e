//! The last requests of one core that were refused for what the client sent: when, from whom, why,
//! and how they began. Costs nothing for good requests.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::SystemTime;

use crate::exchange::failure::{Failure, Side};
use crate::exchange::record::Phase;
use crate::limits;
use crate::plan::ListenerKey;
use crate::telemetry::redact::Redact;

#[derive(Clone, Debug)]
pub struct Rejected {
    pub at: SystemTime,
    pub peer: SocketAddr,
    /// As it says itself (PROXY protocol).
    pub speaks_for: Option<SocketAddr>,
    pub listener: ListenerKey,
    pub failure: Failure,
    pub phase: Phase,
    /// Of the head as far as it came, secrets masked: at most `limits::REJECTED_BYTES_MAX`.
    pub bytes: Vec<u8>,
    /// There were more.
    pub cut: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Rejections(RefCell<VecDeque<Rejected>>);

impl Rejections {
    pub(crate) fn keep(&self, rejected: Rejected) {
        let mut kept = self.0.borrow_mut();
        if kept.len() >= limits::REJECTED_KEPT {
            kept.pop_front();
        }
        kept.push_back(rejected);
    }

    pub(crate) fn list(&self) -> Vec<Rejected> {
        self.0.borrow().iter().cloned().collect()
    }

    /// How many there were.
    pub(crate) fn forget(&self) -> usize {
        std::mem::take(&mut *self.0.borrow_mut()).len()
    }
}

/// Whether the request itself was at fault: not who left, and not where it was to go.
pub(crate) fn is_worth_keeping(failure: Failure) -> bool {
    let others = [
        Failure::NoRoute,
        Failure::RateLimited,
        Failure::ClientClosed,
        Failure::ClientWriteTimeout,
    ];
    failure.side() == Side::Client && !others.contains(&failure)
}

/// The first bytes, with secrets as asterisks, so that every byte stays where it was: the values of
/// header lines that are named like secrets, those of URLs in any line, and all of a body. Made for
/// input that breaks every rule: any CR or LF ends a line, and a line that goes on from a secret
/// one (RFC 9112 5.2) is masked with it.
pub(crate) fn masked(bytes: &[u8], secrets: &Redact) -> Vec<u8> {
    let mut out = bytes[..bytes.len().min(limits::REJECTED_BYTES_MAX)].to_vec();
    let body = body_of(&out);
    hide(&mut out[body..]);
    let mut secret = false;
    for line in out[..body].split_mut(|byte| matches!(byte, b'\r' | b'\n')) {
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        let colon = line.iter().position(|byte| *byte == b':');
        let start = match colon {
            _ if line.is_empty() => continue,
            _ if folded && secret => 0,
            Some(colon) => {
                secret = secrets.hides_header(&plain(&line[..colon]));
                colon + 1
            }
            None => {
                secret = false;
                0
            }
        };
        if secret {
            hide(&mut line[start..]);
        }
        // A request line has a colon in its URL only, if at all.
        let url = line[..url_end(line)].to_vec();
        secrets.secrets(&url).for_each(|value| hide(&mut line[value]));
    }
    out
}

fn hide(value: &mut [u8]) {
    let shown = |byte: &u8| matches!(byte, b' ' | b'\r' | b'\n');
    value.iter_mut().filter(|byte| !shown(byte)).for_each(|byte| *byte = b'*');
}

/// The version that a request line ends with is no part of its URL.
fn url_end(line: &[u8]) -> usize {
    let space = line.iter().rposition(|byte| *byte == b' ');
    space.filter(|at| line[at + 1..].starts_with(b"HTTP/")).unwrap_or(line.len())
}

/// Where the head is over, however sloppily its lines end.
fn body_of(bytes: &[u8]) -> usize {
    let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let first = bytes.iter().position(|byte| !is_end(byte)).unwrap_or(bytes.len());
    let rest = &bytes[first..];
    let ends = [&b"\n\r\n"[..], b"\n\n", b"\r\r"].into_iter().filter_map(|end| {
        let at = rest.windows(end.len()).position(|window| window == end)?;
        Some(first + at + end.len())
    });
    ends.min().unwrap_or(bytes.len())
}

/// A name as sloppy servers would take it: `_` for `-`, with spaces around.
fn plain(name: &[u8]) -> Vec<u8> {
    name.trim_ascii().iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secret_headers_are_masked_and_the_rest_stays_where_it_was() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer abc\r\nX: y\r\n";
        let expected = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: ****** ***\r\nX: y\r\n";
        assert_eq!(masked(text.as_bytes(), &Redact::USUAL), expected.as_bytes());
    }

    #[test]
    fn masking_holds_for_every_way_to_break_the_rules() {
        let broken = [
            "cookie:SECRET",
            "COOKIE : SECRET\n",
            " Cookie: SECRET",
            "proxy_authorization:SECRET",
            "Set-Cookie:\r\n SECRET\r\n\tSECRET",
            "X-Api-Key:\tSECRET\rX: 1",
            "A: 1\rCookie: SECRET",
            "Cookie: a:SECRET",
            "Cookie:\n\n SECRET",
            "X-Auth-Token: SECRET\0SECRET",
            "GET /x?access_token=SECRET HTTP/1.1\r\n",
            "GET /x?token=SECRET:SECRET HTTP/1.1\r\n",
            "GET /x?token=SECRET SECRET HTTP/1.1\r\n",
            "GET http://me:SECRET@a/ HTTP/1.1\r\n",
            "GET http://me:SECRET@a:80/b;c?key=SECRET HTTP/1.1\r\n",
            "Referer: http://a/b#token=SECRET",
            "apikey: SECRET",
            "X-Password:SECRET",
            "Host: a\r\n\r\npassword=SECRET",
            "Host: a\n\n{\"a\":1,\"password\":\"SECRET\"}",
        ];
        for text in broken {
            let masked = String::from_utf8(masked(text.as_bytes(), &Redact::USUAL)).unwrap();
            assert!(!masked.contains("SECRET"), "{text:?}: {masked:?}");
            assert_eq!(masked.len(), text.len());
        }
    }

    #[test]
    fn only_the_last_ones_are_kept() {
        let rejections = Rejections::default();
        for port in 0..2 * limits::REJECTED_KEPT as u16 {
            rejections.keep(Rejected {
                at: SystemTime::UNIX_EPOCH,
                peer: ([127, 0, 0, 1], port).into(),
                speaks_for: None,
                listener: ListenerKey(1),
                failure: Failure::BadPath,
                phase: Phase::Route,
                bytes: masked(&[b'x'; 9999], &Redact::USUAL),
                cut: true,
            });
        }
        let list = rejections.list();
        assert_eq!(list.len(), limits::REJECTED_KEPT);
        assert_eq!(usize::from(list[0].peer.port()), limits::REJECTED_KEPT);
        assert_eq!(list[0].bytes.len(), limits::REJECTED_BYTES_MAX);
        assert_eq!(rejections.forget(), limits::REJECTED_KEPT);
        assert!(rejections.list().is_empty());
    }
}
