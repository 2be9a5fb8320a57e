//! Who asks, and whether a browser was talked into asking. Without tokens the port is on loopback
//! (the configuration refuses anything else) and whoever reaches it may do everything.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use sha2::{Digest as _, Sha256};

use crate::admin::refusal::Refusal;
use crate::http::head::RequestHead;
use crate::limits;
use crate::plan::{AdminAccess, Role};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) name: String,
    pub(super) role: Role,
}

/// Refused tokens since the start, and when they were last complained about.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    total: Cell<u64>,
    told: Cell<u64>,
    last: Cell<Option<Instant>>,
}

/// What a request shows to be let in: kept by whatever goes on for long, to ask again when who may
/// come in has changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    peer: SocketAddr,
    /// Of its only token.
    digest: Option<[u8; 32]>,
}

pub(super) fn pass(peer: SocketAddr, head: &RequestHead, bytes: &[u8]) -> Pass {
    let mut lines =
        head.lines.iter().filter(|line| line.name.of(bytes).eq_ignore_ascii_case(b"authorization"));
    let token = match (lines.next(), lines.next()) {
        (Some(line), None) => bearer(line.value.of(bytes)),
        (None, _) | (Some(_), Some(_)) => None,
    };
    Pass { peer, digest: token.map(|token| Sha256::digest(token).into()) }
}

pub(super) fn caller(access: &AdminAccess, pass: &Pass) -> Result<Caller, Refusal> {
    if access.tokens.is_empty() {
        return match pass.peer.ip().to_canonical().is_loopback() {
            true => Ok(Caller { name: "loopback".to_owned(), role: Role::Admin }),
            false => Err(Refusal::NoToken),
        };
    }
    let digest = pass.digest.ok_or(Refusal::NoToken)?;
    // All are looked at, whichever matches.
    let mut found = None;
    for known in &access.tokens {
        if known.digest.is_some_and(|expected| same(&expected, &digest)) {
            found = Some(Caller { name: known.name.clone(), role: known.role });
        }
    }
    found.ok_or(Refusal::WrongToken)
}

/// RFC 6750 2.1; the scheme in any case (RFC 9110 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    let token = token.trim_ascii_start();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// In a time that does not depend on where they differ.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// The name in `Host` must be ours: a name of a stranger that leads here (DNS rebinding) would let
/// its pages read what only we may. Addresses cannot be led anywhere.
pub(super) fn host_is_ours(access: &AdminAccess, bind: Option<SocketAddr>, host: &[u8]) -> bool {
    let Ok(host) = str::from_utf8(host) else { return false };
    let name = without_port(host);
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if let Ok(address) = address.map(|address| address.to_canonical()) {
        let bind = bind.map(|bind| bind.ip().to_canonical());
        let any = bind.is_some_and(|bind| bind.is_unspecified());
        return address.is_loopback() || any || bind == Some(address);
    }
    name.eq_ignore_ascii_case("localhost")
        || access.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(name))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

/// What a browser says of the page that asks (Fetch, Fetch Metadata): nothing, or this very origin.
pub(super) fn origin_is_ours(head: &RequestHead, bytes: &[u8]) -> bool {
    let ours = |origin: &[u8]| {
        let authority = origin.strip_prefix(b"http://").or(origin.strip_prefix(b"https://"));
        authority.is_some_and(|origin| origin.eq_ignore_ascii_case(head.authority.of(bytes)))
    };
    let same_site = |site: &[u8]| site == b"same-origin" || site == b"none";
    head.named(bytes, b"origin").is_none_or(ours)
        && head.named(bytes, b"sec-fetch-site").is_none_or(same_site)
}

impl Refused {
    pub(super) fn total(&self) -> u64 {
        self.total.get()
    }

    /// Counts one, and says so in the log every now and then.
    pub(super) fn count(&self, refusal: &Refusal, peer: SocketAddr, now: Instant) {
        let total = self.total.get() + 1;
        self.total.set(total);
        let quiet = limits::ADMIN_COMPLAINT_INTERVAL;
        if self.last.get().is_some_and(|last| now - last < quiet) {
            return;
        }
        let since = total - self.told.replace(total);
        self.last.set(Some(now));
        log::warn!(
            "{since} requests to the admin API were refused, the last with {} from {peer}",
            refusal.status()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Token;

    fn access(hosts: &[&str]) -> AdminAccess {
        AdminAccess { hosts: hosts.iter().map(|&h| h.to_owned()).collect(), tokens: Vec::new() }
    }

    #[test]
    fn only_loopback_the_bind_address_and_configured_names_are_ours() {
        let bind = Some("10.0.0.5:9091".parse().unwrap());
        let access = access(&["admin.example"]);
        let ours = [
            "localhost",
            "LOCALHOST:9091",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]:9091",
            "[::1]",
            "10.0.0.5:9091",
            "Admin.Example:80",
            "[::ffff:127.0.0.1]:1",
        ];
        for host in ours {
            assert!(host_is_ours(&access, bind, host.as_bytes()), "{host}");
        }
        let foreign = [
            "",
            "evil.example",
            "localhost.evil.example",
            "10.0.0.6",
            "admin.example.",
            "127.0.0.1.evil.example",
            "xadmin.example",
            "[::2]",
            "\u{130}",
        ];
        for host in foreign {
            assert!(!host_is_ours(&access, bind, host.as_bytes()), "{host}");
        }
        let any = Some("0.0.0.0:9091".parse().unwrap());
        assert!(host_is_ours(&access, any, b"192.0.2.7:9091"));
        assert!(!host_is_ours(&access, any, b"evil.example"));
    }

    #[test]
    fn bearer_tokens_are_taken_from_their_header_only() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bEARER   abc"), Some(&b"abc"[..]));
        for wrong in ["", "Bearer", "Bearer ", "Basic abc", "Bearerabc", "abc"] {
            assert_eq!(bearer(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn digests_are_the_same_only_when_every_byte_is() {
        let one = [7; 32];
        assert!(same(&one, &one));
        for at in 0..32 {
            let mut other = one;
            other[at] ^= 1;
            assert!(!same(&one, &other));
        }
    }

    #[test]
    fn a_token_whose_secret_was_not_found_lets_nobody_in() {
        let token = Token { name: "ci".to_owned(), role: Role::Admin, digest: None };
        let access = AdminAccess { hosts: Vec::new(), tokens: vec![token] };
        let peer = "127.0.0.1:1".parse().unwrap();
        let refused = caller(&access, &pass(peer, &RequestHead::default(), b""));
        assert_eq!(refused, Err(Refusal::NoToken));
    }
}
