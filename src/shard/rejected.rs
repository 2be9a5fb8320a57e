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

#[derive(Clone, Debug)]
pub struct Rejected {
    pub at: SystemTime,
    pub peer: SocketAddr,
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

/// The first bytes, with the values of header lines that hold secrets as asterisks. Made for input
/// that breaks every rule: any CR or LF ends a line, and a line that goes on from a secret one
/// (RFC 9112 5.2) is masked with it.
pub(crate) fn masked(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes[..bytes.len().min(limits::REJECTED_BYTES_MAX)].to_vec();
    let mut secret = false;
    for line in out.split_mut(|byte| matches!(byte, b'\r' | b'\n')) {
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        let colon = line.iter().position(|byte| *byte == b':');
        let start = match colon {
            _ if line.is_empty() => continue,
            _ if folded && secret => 0,
            Some(colon) => {
                secret = is_secret(&line[..colon]);
                colon + 1
            }
            None => {
                secret = false;
                0
            }
        };
        if secret {
            let value = &mut line[start..];
            value.iter_mut().filter(|byte| **byte != b' ').for_each(|byte| *byte = b'*');
        }
    }
    out
}

/// Names in any case, `_` for `-`, with spaces around, as sloppy servers would take them.
pub(crate) fn is_secret(name: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    let name: Vec<u8> = name.trim_ascii().iter().map(plain).collect();
    let parts: [&[u8]; 5] = [b"authorization", b"cookie", b"token", b"secret", b"api-key"];
    parts.iter().any(|part| name.windows(part.len()).any(|window| window == *part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secret_headers_are_masked_and_the_rest_stays_where_it_was() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer abc\r\nX: y\r\n";
        let expected = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: ****** ***\r\nX: y\r\n";
        assert_eq!(masked(text.as_bytes()), expected.as_bytes());
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
        ];
        for text in broken {
            let masked = String::from_utf8(masked(text.as_bytes())).unwrap();
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
                listener: ListenerKey(1),
                failure: Failure::BadPath,
                phase: Phase::Route,
                bytes: masked(&[b'x'; 9999]),
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
