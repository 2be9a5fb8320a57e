//! The request target taken apart and held against `Host` (RFC 9112 section 3.2, RFC 3986 section
//! 3.2). Called by `parse` for every request; knows nothing of routes.

use crate::http::head::{Method, RequestHead, Span, TargetForm, Version};
use crate::http1::lines::decimal;
use crate::http1::malformed::Malformed;

/// Takes the target apart (RFC 9112 section 3.2) and holds it against `Host`.
pub(crate) fn take_apart(
    bytes: &[u8],
    host_line: Option<Span>,
    head: &mut RequestHead,
) -> Result<(), Malformed> {
    let target = head.target.of(bytes);
    let mut query = target.len();
    for (at, byte) in target.iter().enumerate() {
        if *byte == b'?' {
            query = query.min(at);
        }
        if *byte == b'#' || *byte >= 0x7f {
            return Err(Malformed::Target);
        }
    }
    let host = match host_line {
        Some(host) => Some(Authority::of(host.of(bytes)).ok_or(Malformed::Host)?),
        None if head.version == Version::Http11 => return Err(Malformed::HostMissing),
        None => None,
    };
    let (start, end) = (head.target.start as usize, head.target.end as usize);
    head.authority = host_line.unwrap_or_default();
    head.path = Span::between(end, end);
    head.query = Span::between(end, end);
    if head.method == Method::Connect {
        head.form = TargetForm::Authority;
        head.authority = head.target;
        let named = Authority::of(target).ok_or(Malformed::TargetForm)?;
        let port = named.port.ok_or(Malformed::TargetForm)?;
        return host.map_or(Ok(()), |host| host.must_be(&named, port));
    }
    if target.first() == Some(&b'/') {
        head.form = TargetForm::Origin;
        head.path = Span::between(start, start + query);
        head.query = Span::between(start + query, end);
        return Ok(());
    }
    if target == b"*" {
        head.form = TargetForm::Asterisk;
        let fits = head.method == Method::Options;
        return if fits { Ok(()) } else { Err(Malformed::TargetForm) };
    }
    head.form = TargetForm::Absolute;
    let (authority_at, port) = scheme(target).ok_or(Malformed::TargetForm)?;
    let slash = target[authority_at..].iter().position(|byte| matches!(byte, b'/' | b'?'));
    let path_at = slash.map_or(target.len(), |slash| authority_at + slash);
    let named = &target[authority_at..path_at];
    let named = Authority::of(named).ok_or(Malformed::TargetAuthority)?;
    head.authority = Span::between(start + authority_at, start + path_at);
    head.path = Span::between(start + path_at, start + query);
    head.query = Span::between(start + query, end);
    host.map_or(Ok(()), |host| host.must_be(&named, port))
}

/// Length of the scheme with its `://`, and its port.
fn scheme(target: &[u8]) -> Option<(usize, u16)> {
    for (scheme, port) in [(b"http://".as_slice(), 80), (b"https://", 443)] {
        let named = target.get(..scheme.len());
        if named.is_some_and(|named| named.eq_ignore_ascii_case(scheme)) {
            return Some((scheme.len(), port));
        }
    }
    None
}

/// A host and maybe a port, as in `Host` and in targets.
struct Authority<'a> {
    host: &'a [u8],
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// uri-host [ ":" port ] (RFC 9110 section 7.2, RFC 3986 section 3.2.2). Stricter: neither host
    /// nor port may be empty, the port is 1 to 65535, and no userinfo, IPvFuture or zone is known.
    fn of(bytes: &'a [u8]) -> Option<Authority<'a>> {
        let (host, rest) = if bytes.first() == Some(&b'[') {
            let end = bytes.iter().position(|byte| *byte == b']')?;
            let address = std::str::from_utf8(&bytes[1..end]).ok()?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            bytes.split_at(end + 1)
        } else {
            let end = bytes.iter().position(|byte| !HOST_BYTES[*byte as usize]);
            let mut end = end.unwrap_or(bytes.len());
            if bytes.get(end) == Some(&b'%') {
                end = percent_encoded_host(bytes)?;
            }
            let (host, rest) = bytes.split_at(end);
            if host.is_empty() {
                return None;
            }
            (host, rest)
        };
        let port = match rest {
            [] => None,
            [b':', digits @ ..] if digits.len() <= 5 => {
                let port = u16::try_from(decimal(digits)?).ok()?;
                Some(port).filter(|port| *port != 0).map(Some)?
            }
            _ => return None,
        };
        Some(Authority { host, port })
    }

    /// `Host` against the authority of the target. A missing port is the scheme's.
    fn must_be(&self, target: &Authority<'_>, port: u16) -> Result<(), Malformed> {
        let same_port = self.port.unwrap_or(port) == target.port.unwrap_or(port);
        if same_port && self.host.eq_ignore_ascii_case(target.host) {
            Ok(())
        } else {
            Err(Malformed::HostMismatch)
        }
    }
}

/// unreserved and sub-delims (RFC 3986 section 3.2.2).
static HOST_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~'
            | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=');
        byte += 1;
    }
    table
};

/// Where a host ends that has `%` and two hexadecimal digits in it.
#[cold]
fn percent_encoded_host(bytes: &[u8]) -> Option<usize> {
    let mut end = 0;
    loop {
        match &bytes[end..] {
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                end += 3
            }
            [b'%', ..] => return None,
            [byte, ..] if HOST_BYTES[*byte as usize] => end += 1,
            _ => return Some(end),
        }
    }
}
