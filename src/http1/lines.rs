//! The table of header lines, and what they say together: framing, keep-alive, hop-by-hop lines.
//! Called by `parse` with what httparse split; every rule for header lines that httparse lacks is
//! here.

use crate::http::head::{Framing, Keep, Line, Span, Version};
use crate::http::headers::{HeaderId, same_with_dashes};
use crate::http1::malformed::{Malformed, is_token_byte};

/// Most `Connection` options that name header lines, as each is looked up in all lines.
const CONNECTION_OPTIONS_MAX: usize = 32;

/// Where `part`, a piece of `bytes`, lies in it.
pub(crate) fn span(bytes: &[u8], part: &[u8]) -> Span {
    let start = part.as_ptr().addr() - bytes.as_ptr().addr();
    Span::between(start, start + part.len())
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Expect {
    #[default]
    Nothing,
    Continue,
    Other,
}

/// What the header lines say together.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) host: Option<Span>,
    pub(crate) length: Option<u64>,
    pub(crate) chunked: bool,
    pub(crate) expect: Expect,
    pub(crate) upgrade: Option<Span>,
    pub(crate) accepts_trailers: bool,
    pub(crate) keep_alive_seconds: Option<u32>,
    pub(crate) connection: bool,
    pub(crate) option_close: bool,
    pub(crate) option_keep_alive: bool,
    pub(crate) option_upgrade: bool,
    pub(crate) underscore: bool,
}

/// The table of header lines, and what they say. Ends of lines are checked by looking before each
/// name and before the last two bytes: httparse takes an LF alone for a line end, the empty line's
/// too, but never lets a CR or LF into a line.
pub(crate) fn lines(
    bytes: &[u8],
    end: usize,
    headers: &[httparse::Header<'_>],
    table: &mut Vec<Line>,
) -> Result<Seen, Malformed> {
    let mut seen = Seen::default();
    let section_end = end - 2;
    let first = headers.first().map(|header| span(bytes, header.name.as_bytes()));
    let mut start = first.map_or(section_end, |name| name.start as usize);
    crlf_before(bytes, start)?;
    table.reserve(headers.len());
    for (at, header) in headers.iter().enumerate() {
        let next = match headers.get(at + 1) {
            Some(next) => next.name.as_ptr().addr() - bytes.as_ptr().addr(),
            None => section_end,
        };
        crlf_before(bytes, next)?;
        let name = header.name.as_bytes();
        let id = HeaderId::of(name);
        let line = Line {
            line: Span::between(start, next),
            name: Span::between(start, start + name.len()),
            value: span(bytes, header.value),
            id,
            hop_by_hop: id.is_hop_by_hop(),
        };
        if id == HeaderId::Other {
            seen.underscore |= holds_underscore(name);
        } else {
            seen.note(id, header.value, line.value)?;
        }
        table.push(line);
        start = next;
    }
    if seen.underscore {
        underscores(bytes, table)?;
    }
    if seen.connection {
        connection_options(bytes, table, &mut seen)?;
    }
    Ok(seen)
}

#[inline]
fn crlf_before(bytes: &[u8], at: usize) -> Result<(), Malformed> {
    match bytes.get(at.wrapping_sub(2)) {
        Some(b'\r') => Ok(()),
        Some(_) | None => Err(Malformed::BareLf),
    }
}

/// Eight bytes at a time; the last eight may overlap those before, and a short name is filled up.
#[inline]
fn holds_underscore(name: &[u8]) -> bool {
    if let (words, Some(last)) = (name.as_chunks::<8>().0, name.last_chunk::<8>()) {
        return words.iter().any(word_holds_underscore) || word_holds_underscore(last);
    }
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(name) {
        *to = *from;
    }
    word_holds_underscore(&word)
}

#[inline]
fn word_holds_underscore(word: &[u8; 8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let differs = u64::from_ne_bytes(*word) ^ (ONES * b'_' as u64);
    differs.wrapping_sub(ONES) & !differs & (ONES << 7) != 0
}

impl Seen {
    fn note(&mut self, id: HeaderId, value: &[u8], at: Span) -> Result<(), Malformed> {
        match id {
            HeaderId::Host => {
                if self.host.replace(at).is_some() {
                    return Err(Malformed::HostRepeated);
                }
            }
            HeaderId::ContentLength => {
                let length = decimal(value).ok_or(Malformed::ContentLength)?;
                if self.length.replace(length).is_some() {
                    return Err(Malformed::ContentLengthRepeated);
                }
            }
            HeaderId::TransferEncoding => {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed::TransferEncoding);
                }
                if std::mem::replace(&mut self.chunked, true) {
                    return Err(Malformed::TransferEncodingRepeated);
                }
            }
            // What nearly all peers say, without a look at the other lines.
            HeaderId::Connection if value.eq_ignore_ascii_case(b"keep-alive") => {
                self.option_keep_alive = true;
            }
            HeaderId::Connection if value.eq_ignore_ascii_case(b"close") => {
                self.option_close = true;
            }
            HeaderId::Connection => self.connection = true,
            HeaderId::Expect => {
                let met = value.eq_ignore_ascii_case(b"100-continue");
                if self.expect != Expect::Other {
                    self.expect = if met { Expect::Continue } else { Expect::Other };
                }
            }
            HeaderId::Upgrade => self.upgrade = self.upgrade.or(Some(at)),
            HeaderId::Te => self.accepts_trailers |= options(value).any(is_trailers),
            HeaderId::KeepAlive => self.keep_alive_seconds = keep_alive_seconds(value),
            HeaderId::Other
            | HeaderId::B3
            | HeaderId::Date
            | HeaderId::Forwarded
            | HeaderId::ProxyAuthenticate
            | HeaderId::ProxyAuthorization
            | HeaderId::ProxyConnection
            | HeaderId::Referer
            | HeaderId::Traceparent
            | HeaderId::Tracestate
            | HeaderId::Trailer
            | HeaderId::UberTraceId
            | HeaderId::UserAgent
            | HeaderId::Via
            | HeaderId::XB3Flags
            | HeaderId::XB3ParentSpanId
            | HeaderId::XB3Sampled
            | HeaderId::XB3SpanId
            | HeaderId::XB3TraceId
            | HeaderId::XForwardedFor
            | HeaderId::XForwardedHost
            | HeaderId::XForwardedProto
            | HeaderId::XProxyId
            | HeaderId::XRealIp
            | HeaderId::XRequestId => {}
        }
        Ok(())
    }
}

fn is_trailers(option: &[u8]) -> bool {
    option.eq_ignore_ascii_case(b"trailers")
}

/// The members of a comma-separated list; empty ones are legal (RFC 9110 section 5.6.1).
fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|option| !option.is_empty())
}

fn keep_alive_seconds(value: &[u8]) -> Option<u32> {
    let seconds = options(value).find_map(|option| {
        let (name, seconds) = option.split_at_checked(8)?;
        name.eq_ignore_ascii_case(b"timeout=").then_some(seconds)
    })?;
    Some(u32::try_from(decimal(seconds)?).unwrap_or(u32::MAX))
}

/// Digits and nothing else, within 64 bits.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Applications read `X_User` and `X-User` as one (CGI, RFC 3875 section 4.1.18), so that the
/// second would slip past a check of the first.
#[cold]
fn underscores(bytes: &[u8], table: &[Line]) -> Result<(), Malformed> {
    for (at, line) in table.iter().enumerate() {
        let name = line.name.of(bytes);
        if line.id != HeaderId::Other || !name.contains(&b'_') {
            continue;
        }
        let twin = |(other_at, other): (usize, &Line)| {
            other_at != at && same_with_dashes(name, other.name.of(bytes))
        };
        if table.iter().enumerate().any(twin) || stands_for_guarded(name) {
            return Err(Malformed::UnderscoreTwin);
        }
    }
    Ok(())
}

fn stands_for_guarded(name: &[u8]) -> bool {
    let mut dashed = [0; 24];
    let Some(dashed) = dashed.get_mut(..name.len()) else {
        return false;
    };
    for (to, from) in dashed.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    let id = HeaderId::of(dashed);
    // Of a trace, too: else it would stand beside the one that we write.
    id.is_guarded() || id.is_hop_by_hop() || id.is_of_a_trace()
}

/// What the `Connection` lines say, and which lines they name: those are not forwarded
/// (RFC 9110 section 7.6.1).
fn connection_options(bytes: &[u8], table: &mut [Line], seen: &mut Seen) -> Result<(), Malformed> {
    let mut names = 0;
    for at in 0..table.len() {
        if table[at].id != HeaderId::Connection {
            continue;
        }
        for option in options(table[at].value.of(bytes)) {
            if option.eq_ignore_ascii_case(b"keep-alive") {
                seen.option_keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"close") {
                seen.option_close = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                seen.option_upgrade = true;
            } else {
                names += 1;
                let token = option.iter().all(|byte| is_token_byte(*byte));
                let guarded = HeaderId::of(option).is_guarded();
                if guarded || !token || names > CONNECTION_OPTIONS_MAX {
                    return Err(Malformed::ConnectionOption);
                }
                for line in table.iter_mut() {
                    line.hop_by_hop |= line.name.of(bytes).eq_ignore_ascii_case(option);
                }
            }
        }
    }
    Ok(())
}

pub(crate) fn withhold(table: &mut [Line], id: HeaderId) {
    for line in table.iter_mut().filter(|line| line.id == id) {
        line.hop_by_hop = true;
    }
}

/// RFC 9112 sections 6.1 to 6.3, without the choices that it leaves to the careless.
pub(crate) fn framing(seen: &Seen, version: Version) -> Result<Option<Framing>, Malformed> {
    match (seen.chunked, seen.length) {
        (true, Some(_)) => Err(Malformed::ContentLengthWithTransferEncoding),
        (true, None) if version == Version::Http10 => Err(Malformed::TransferEncodingOnHttp10),
        (true, None) => Ok(Some(Framing::Chunked)),
        (false, Some(length)) => Ok(Some(Framing::Length(length))),
        (false, None) => Ok(None),
    }
}

/// RFC 9112 section 9.3.
pub(crate) fn keep(seen: &Seen, version: Version) -> Keep {
    match version {
        Version::Http11 if !seen.option_close => Keep::Open,
        Version::Http10 if seen.option_keep_alive && !seen.option_close => Keep::Open,
        Version::Http11 | Version::Http10 | Version::Http2 => Keep::Close,
    }
}
