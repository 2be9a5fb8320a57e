//! Heads from bytes: httparse splits the lines, this file refuses what a proxy must refuse. Called by
//! the sessions with all bytes that came so far. Never allocates once the head's table has grown.
//!
//! An incomplete head is cheap to ask about again: only the new bytes are searched for the empty line,
//! and the whole is parsed when it is there, when the bytes doubled, or when a limit is reached.

use std::mem::MaybeUninit;

use crate::http::head::{
    Framing, Keep, Line, Method, Progress, RequestHead, ResponseHead, Span, TargetForm, Version,
};
use crate::http::headers::HeaderId;
use crate::http1::malformed::{header_fault, is_token_byte, version_fault};
use crate::limits;

pub use crate::http1::malformed::Malformed;

/// Bounds for one head, from the plan.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    pub url_bytes_max: usize,
    pub header_bytes_max: usize,
    /// At most `limits::HEADERS_MAX_CEILING`.
    pub headers_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    Complete,
    /// More bytes are needed.
    Partial,
}

/// Longest method. No registered one has more than 17 bytes (UPDATEREDIRECTREF).
const METHOD_BYTES_MAX: usize = 64;
/// Most `Connection` options that name header lines, as each is looked up in all lines.
const CONNECTION_OPTIONS_MAX: usize = 32;

/// Parses a request head. `bytes` starts where the head starts and holds what came so far; `head` is
/// cleared first, unless it is in the middle of the same bytes. After an error it says nothing.
pub fn request(
    bytes: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Parsed, Malformed> {
    if head.progress.is_still_partial(bytes, limits.header_bytes_max) {
        return Ok(Parsed::Partial);
    }
    head.clear();
    let window = &bytes[..bytes.len().min(limits.header_bytes_max)];
    let start = leading_empty_line(window)?;
    let text = &window[start..];
    let mut storage = [const { MaybeUninit::uninit() }; limits::HEADERS_MAX_CEILING];
    let room = limits.headers_max.min(limits::HEADERS_MAX_CEILING);
    let mut found = httparse::Request::new(&mut []);
    match found.parse_with_uninit_headers(text, &mut storage[..room]) {
        Ok(httparse::Status::Complete(length)) => {
            head.bytes = start + length;
            request_head(window, limits, &found, head)?;
            Ok(Parsed::Complete)
        }
        Ok(httparse::Status::Partial) => {
            request_line_limits(text, limits)?;
            head.progress = Progress::of(bytes, limits.header_bytes_max)?;
            Ok(Parsed::Partial)
        }
        Err(error) => Err(request_fault(text, limits, &found, error)),
    }
}

/// Parses a response head; `method` is that of the request that it answers.
pub fn response(
    bytes: &[u8],
    method: Method,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Parsed, Malformed> {
    if head.progress.is_still_partial(bytes, limits.header_bytes_max) {
        return Ok(Parsed::Partial);
    }
    head.clear();
    let window = &bytes[..bytes.len().min(limits.header_bytes_max)];
    if let Some(b'\r' | b'\n') = window.first() {
        return Err(Malformed::LeadingEmptyLine);
    }
    let mut storage = [const { MaybeUninit::uninit() }; limits::HEADERS_MAX_CEILING];
    let room = limits.headers_max.min(limits::HEADERS_MAX_CEILING);
    let mut found = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut found, window, &mut storage[..room]) {
        Ok(httparse::Status::Complete(length)) => {
            head.bytes = length;
            response_head(window, method, &found, head)?;
            Ok(Parsed::Complete)
        }
        Ok(httparse::Status::Partial) => {
            head.progress = Progress::of(bytes, limits.header_bytes_max)?;
            Ok(Parsed::Partial)
        }
        Err(error) => Err(response_fault(window, &found, error)),
    }
}

impl Progress {
    /// After a parse that wanted more. A window that is full and holds no whole head is too large.
    fn of(bytes: &[u8], header_bytes_max: usize) -> Result<Progress, Malformed> {
        if bytes.len() >= header_bytes_max {
            return Err(Malformed::HeadTooLarge);
        }
        Ok(Progress { scanned: bytes.len(), parsed: bytes.len() })
    }

    /// Whether a parse would say `Partial` again. It is parsed anyhow each time the bytes doubled, so
    /// that what is wrong with the beginning shows early; the sum of all parses stays linear.
    fn is_still_partial(&mut self, bytes: &[u8], header_bytes_max: usize) -> bool {
        if self.parsed == 0 || bytes.len() < self.scanned {
            return false;
        }
        let due = bytes.len() >= header_bytes_max || bytes.len() >= self.parsed * 2;
        if due || holds_empty_line(&bytes[self.scanned.saturating_sub(3)..]) {
            return false;
        }
        self.scanned = bytes.len();
        true
    }
}

/// A line end followed by another. LF alone counts, so that such heads are refused and not waited for.
fn holds_empty_line(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
        rest = &rest[at + 1..];
        if let [b'\n', ..] | [b'\r', b'\n', ..] = rest {
            return true;
        }
    }
    false
}

/// One CRLF before a request line is skipped: some clients end a body with it (RFC 9112 section 2.2).
fn leading_empty_line(bytes: &[u8]) -> Result<usize, Malformed> {
    let start = match bytes {
        [b'\r', b'\n', ..] => 2,
        [b'\r'] => return Ok(0),
        [b'\r', ..] => return Err(Malformed::BareCr),
        [b'\n', ..] => return Err(Malformed::LeadingEmptyLine),
        _ => return Ok(0),
    };
    match bytes.get(start) {
        Some(b'\r' | b'\n') => Err(Malformed::LeadingEmptyLine),
        Some(_) | None => Ok(start),
    }
}

fn request_head(
    bytes: &[u8],
    limits: &HeadLimits,
    found: &httparse::Request<'_, '_>,
    head: &mut RequestHead,
) -> Result<(), Malformed> {
    let method = found.method.unwrap_or_default().as_bytes();
    let target = found.path.unwrap_or_default().as_bytes();
    if method.len() > METHOD_BYTES_MAX {
        return Err(Malformed::Method);
    }
    if target.len() > limits.url_bytes_max {
        return Err(Malformed::UrlTooLong);
    }
    head.method = Method::of(method);
    head.method_name = span(bytes, method);
    head.target = span(bytes, target);
    head.version = version(found.version);
    let seen = lines(bytes, head.bytes, found.headers, &mut head.lines)?;
    head.framing = match framing(&seen, head.version)? {
        Some(framing) => framing,
        None => Framing::None,
    };
    head.keep = keep(&seen, head.version);
    head.upgrade = seen.upgrade.filter(|_| seen.option_upgrade).unwrap_or_default();
    head.accepts_trailers = seen.accepts_trailers;
    match (seen.expect, head.version) {
        (Expect::Nothing, _) => {}
        (Expect::Continue, Version::Http11) => head.expects_continue = true,
        // An HTTP/1.0 client cannot mean it (RFC 9110 section 10.1.1).
        (Expect::Continue, Version::Http10) => withhold(&mut head.lines, HeaderId::Expect),
        (Expect::Other, _) => return Err(Malformed::ExpectationUnknown),
    }
    target_parts(bytes, &seen, head)
}

fn response_head(
    bytes: &[u8],
    method: Method,
    found: &httparse::Response<'_, '_>,
    head: &mut ResponseHead,
) -> Result<(), Malformed> {
    head.status = found.code.unwrap_or_default();
    if head.status < 100 {
        return Err(Malformed::StatusLine);
    }
    head.version = version(found.version);
    let seen = lines(bytes, head.bytes, found.headers, &mut head.lines)?;
    let line_end = head.lines.first().map_or(head.bytes - 2, |line| line.line.start as usize) - 2;
    // `HTTP/1.1 200` is 12 bytes; the space after it may be missing. httparse gives no reason that
    // holds bytes beyond ASCII, so it is taken from the line.
    head.reason = Span::between(line_end.min(13), line_end);
    let framing = framing(&seen, head.version)?;
    head.keep = keep(&seen, head.version);
    head.keep_alive_seconds = seen.keep_alive_seconds;
    let successful = (200..300).contains(&head.status);
    // RFC 9112 section 6.3, rules 1 and 2.
    head.framing = if method == Method::Head || head.status == 304 {
        Framing::None
    } else if head.status < 200 || head.status == 204 {
        // Neither header may stand here (RFC 9110 section 8.6). Where one does, a body may follow that
        // the next exchange must not take for its answer.
        if !matches!(framing, None | Some(Framing::Length(0))) {
            head.keep = Keep::Close;
        }
        withhold(&mut head.lines, HeaderId::ContentLength);
        Framing::None
    } else if method == Method::Connect && successful {
        withhold(&mut head.lines, HeaderId::ContentLength);
        Framing::None
    } else {
        framing.unwrap_or(Framing::UntilClose)
    };
    if head.framing == Framing::UntilClose {
        head.keep = Keep::Close;
    }
    Ok(())
}

fn version(minor: Option<u8>) -> Version {
    match minor {
        Some(0) => Version::Http10,
        Some(_) | None => Version::Http11,
    }
}

/// Where `part`, a piece of `bytes`, lies in it.
fn span(bytes: &[u8], part: &[u8]) -> Span {
    let start = part.as_ptr().addr() - bytes.as_ptr().addr();
    Span::between(start, start + part.len())
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Expect {
    #[default]
    Nothing,
    Continue,
    Other,
}

/// What the header lines say together.
#[derive(Default)]
struct Seen {
    host: Option<Span>,
    length: Option<u64>,
    chunked: bool,
    expect: Expect,
    upgrade: Option<Span>,
    accepts_trailers: bool,
    keep_alive_seconds: Option<u32>,
    connection: bool,
    option_close: bool,
    option_keep_alive: bool,
    option_upgrade: bool,
    underscore: bool,
}

/// The table of header lines, and what they say. Ends of lines are checked by looking before each
/// name: httparse takes an LF alone for a line end, but never lets a CR or LF into a line.
fn lines(
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
    crlf_before(bytes, end)?;
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

/// Names are short; eight at a time is enough.
#[inline]
fn holds_underscore(name: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = name.as_chunks::<8>();
    words.iter().any(|word| {
        let differs = u64::from_ne_bytes(*word) ^ (ONES * b'_' as u64);
        differs.wrapping_sub(ONES) & !differs & (ONES << 7) != 0
    }) || rest.contains(&b'_')
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
            | HeaderId::Date
            | HeaderId::Forwarded
            | HeaderId::ProxyAuthenticate
            | HeaderId::ProxyAuthorization
            | HeaderId::ProxyConnection
            | HeaderId::Referer
            | HeaderId::Trailer
            | HeaderId::UserAgent
            | HeaderId::Via
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

/// Applications read `X_User` and `X-User` as one (CGI, RFC 3875 section 4.1.18), so that the second
/// would slip past a check of the first.
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

fn same_with_dashes(one: &[u8], other: &[u8]) -> bool {
    let dashed = |byte: &u8| {
        if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
    };
    one.len() == other.len() && one.iter().map(dashed).eq(other.iter().map(dashed))
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
    id.is_guarded() || id.is_hop_by_hop()
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

fn withhold(table: &mut [Line], id: HeaderId) {
    for line in table.iter_mut().filter(|line| line.id == id) {
        line.hop_by_hop = true;
    }
}

/// RFC 9112 sections 6.1 to 6.3, without the choices that it leaves to the careless.
fn framing(seen: &Seen, version: Version) -> Result<Option<Framing>, Malformed> {
    match (seen.chunked, seen.length) {
        (true, Some(_)) => Err(Malformed::ContentLengthWithTransferEncoding),
        (true, None) if version == Version::Http10 => Err(Malformed::TransferEncodingOnHttp10),
        (true, None) => Ok(Some(Framing::Chunked)),
        (false, Some(length)) => Ok(Some(Framing::Length(length))),
        (false, None) => Ok(None),
    }
}

/// RFC 9112 section 9.3.
fn keep(seen: &Seen, version: Version) -> Keep {
    match version {
        Version::Http11 if !seen.option_close => Keep::Open,
        Version::Http10 if seen.option_keep_alive && !seen.option_close => Keep::Open,
        Version::Http11 | Version::Http10 => Keep::Close,
    }
}

/// Takes the target apart (RFC 9112 section 3.2) and holds it against `Host`.
fn target_parts(bytes: &[u8], seen: &Seen, head: &mut RequestHead) -> Result<(), Malformed> {
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
    let host = match seen.host {
        Some(host) => Some(Authority::of(host.of(bytes)).ok_or(Malformed::Host)?),
        None if head.version == Version::Http11 => return Err(Malformed::HostMissing),
        None => None,
    };
    let (start, end) = (head.target.start as usize, head.target.end as usize);
    head.authority = seen.host.unwrap_or_default();
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
            let (host, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            if host.is_empty() || (host.contains(&b'%') && !is_percent_encoded(host)) {
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

/// unreserved, sub-delims and `%` (RFC 3986 section 3.2.2).
static HOST_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'%'
            | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=');
        byte += 1;
    }
    table
};

fn is_percent_encoded(host: &[u8]) -> bool {
    host.split(|byte| *byte == b'%').skip(1).all(|after| {
        matches!(after, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
    })
}

/// Bounds that must hold before the request line has ended. `text` starts with the method.
fn request_line_limits(text: &[u8], limits: &HeadLimits) -> Result<(), Malformed> {
    let token = text.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(text.len());
    if token > METHOD_BYTES_MAX {
        return Err(Malformed::Method);
    }
    if text.get(token) != Some(&b' ') {
        return Ok(());
    }
    let target = &text[token + 1..];
    let longest = &target[..target.len().min(limits.url_bytes_max + 1)];
    let ended = longest.iter().any(|byte| *byte <= b' ' || *byte == 0x7f);
    if longest.len() > limits.url_bytes_max && !ended {
        return Err(Malformed::UrlTooLong);
    }
    Ok(())
}

/// The rule that a request breaks which httparse refused: the same for every prefix it refuses.
#[cold]
fn request_fault(
    text: &[u8],
    limits: &HeadLimits,
    found: &httparse::Request<'_, '_>,
    error: httparse::Error,
) -> Malformed {
    if let Err(malformed) = request_line_limits(text, limits) {
        return malformed;
    }
    let (Some(method), target) = (found.method, found.path) else {
        return Malformed::Method;
    };
    let Some(target) = target else {
        let after = &text[method.len() + 1..];
        let end = after.iter().position(|byte| *byte <= b' ' || *byte == 0x7f);
        let (target, rest) = after.split_at(end.unwrap_or(after.len()));
        let at_fault = matches!(rest, [b' ' | b'\r' | b'\n', ..]) && target.is_ascii();
        return if at_fault { Malformed::RequestLine } else { Malformed::Target };
    };
    let version_at = method.len() + target.len() + 2;
    if found.version.is_none() {
        return version_fault(&text[version_at..], Malformed::RequestLine);
    }
    match &text[version_at + 8..] {
        [b'\r', b'\n', section @ ..] if error != httparse::Error::TooManyHeaders => {
            header_fault(section)
        }
        [b'\r', b'\n', ..] => Malformed::TooManyHeaders,
        [b'\r', ..] => Malformed::BareCr,
        [b'\n', ..] => Malformed::BareLf,
        _ => Malformed::RequestLine,
    }
}

/// The same for a response.
#[cold]
fn response_fault(
    text: &[u8],
    found: &httparse::Response<'_, '_>,
    error: httparse::Error,
) -> Malformed {
    if found.version.is_none() {
        return version_fault(text, Malformed::StatusLine);
    }
    let line_end = text.iter().position(|byte| *byte == b'\n');
    let (Some(_), Some(line_end)) = (found.reason, line_end) else {
        return Malformed::StatusLine;
    };
    if text.get(line_end.wrapping_sub(1)) != Some(&b'\r') {
        return Malformed::BareLf;
    }
    if error == httparse::Error::TooManyHeaders {
        return Malformed::TooManyHeaders;
    }
    header_fault(&text[line_end + 1..])
}
