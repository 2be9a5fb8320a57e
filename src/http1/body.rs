//! Bodies: where they end. Chunk framing is decoded and written anew, never forwarded. Used by both
//! sessions, one `Decoder` per body. It stores no body bytes: only trailers, and where it stands.

use crate::http::head::Framing;
use crate::http::headers::{is_one_of, same_with_dashes};
use crate::http1::malformed::is_token_byte;
use crate::limits::{CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX};

/// What one call of `Decoder::decode` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that were used. What follows them belongs to the next message when `end`.
    pub consumed: usize,
    /// Where the body bytes start in the input now.
    pub start: usize,
    /// Body bytes, one run of them.
    pub data: usize,
    pub end: bool,
}

impl Decoded {
    /// The body bytes in the input that was decoded.
    pub fn of(self, input: &[u8]) -> &[u8] {
        input.get(self.start..self.start + self.data).unwrap_or_default()
    }
}

/// How much of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Bytes(u64),
    /// All that comes until the connection closes.
    All,
}

impl Left {
    /// Most bytes that may be read now.
    pub fn most(self) -> u64 {
        match self {
            Left::Bytes(bytes) => bytes,
            Left::All => u64::MAX,
        }
    }
}

/// Why a body is refused. Whoever sent it gets no second message on that connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedBody {
    /// Not 1 to 16 hexadecimal digits, or too many bytes in all.
    ChunkSize,
    /// A control byte, or a longer line than `CHUNK_LINE_BYTES_MAX`.
    ChunkExtension,
    /// Far more framing than data (a way to keep a proxy busy).
    ChunkOverhead,
    /// A CR or LF that is not a CRLF, or anything else where a CRLF must stand.
    ChunkEnd,
    TrailerSyntax,
    TrailersTooLarge,
    /// The connection ended before the body did.
    Truncated,
}

impl MalformedBody {
    /// For metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            MalformedBody::ChunkSize => "chunk_size",
            MalformedBody::ChunkExtension => "chunk_extension",
            MalformedBody::ChunkOverhead => "chunk_overhead",
            MalformedBody::ChunkEnd => "chunk_end",
            MalformedBody::TrailerSyntax => "trailer_syntax",
            MalformedBody::TrailersTooLarge => "trailers_too_large",
            MalformedBody::Truncated => "body_truncated",
        }
    }

    /// For the reply.
    pub fn message(self) -> &'static str {
        match self {
            MalformedBody::ChunkSize => "a chunk size is not hexadecimal (RFC 9112 7.1)",
            MalformedBody::ChunkExtension => {
                "a chunk extension is too long or holds a control byte (RFC 9112 7.1.1)"
            }
            MalformedBody::ChunkOverhead => {
                "the chunks carry far more extensions than data (RFC 9112 7.1.1)"
            }
            MalformedBody::ChunkEnd => "a chunk does not end with CRLF (RFC 9112 7.1)",
            MalformedBody::TrailerSyntax => "a trailer line is not a header line (RFC 9112 7.1.2)",
            MalformedBody::TrailersTooLarge => "the trailers are too large (RFC 9112 7.1.2)",
            MalformedBody::Truncated => "the body ended before its framing said so (RFC 9112 8)",
        }
    }
}

/// How much framing may outweigh data over a whole body: a byte per chunk with a long extension
/// each would otherwise cost us a hundred bytes of work for one.
const OVERHEAD_BYTES_MAX: u64 = 16 * 1024;
/// What a chunk may cost for free: its size, two CRLFs, a short extension.
const OVERHEAD_BYTES_FREE: u64 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Bytes that are left of a Content-Length body, never 0.
    Length(u64),
    UntilClose,
    /// In the digits of a chunk size.
    Size {
        digits: u8,
        size: u64,
    },
    /// White space after the digits, which only a `;` may follow.
    SizeSpace {
        size: u64,
    },
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    /// Bytes that are left of a chunk, never 0.
    Data(u64),
    DataCr,
    DataLf,
    /// At the first byte of a trailer line, or of the empty line that ends the body.
    TrailerStart,
    Trailer,
    FinalLf,
    Finished,
}

#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Of the chunk-size line, or of the trailer section.
    line_bytes: usize,
    overhead: u64,
    trailers: Vec<u8>,
    /// Where the line begins that `trailers` does not hold in full yet.
    trailer_line: usize,
}

impl Decoder {
    pub fn new(framing: Framing) -> Decoder {
        Decoder {
            state: match framing {
                Framing::None | Framing::Length(0) => State::Finished,
                Framing::Length(length) => State::Length(length),
                Framing::Chunked => State::Size { digits: 0, size: 0 },
                Framing::UntilClose => State::UntilClose,
            },
            line_bytes: 0,
            overhead: 0,
            trailers: Vec::new(),
            trailer_line: 0,
        }
    }

    /// `None` for a body whose end is found only by reading it.
    pub fn left(&self) -> Option<Left> {
        match self.state {
            State::Length(bytes) => Some(Left::Bytes(bytes)),
            State::UntilClose => Some(Left::All),
            State::Finished => Some(Left::Bytes(0)),
            State::Size { .. }
            | State::SizeSpace { .. }
            | State::Extension { .. }
            | State::SizeLf { .. }
            | State::Data(_)
            | State::DataCr
            | State::DataLf
            | State::TrailerStart
            | State::Trailer
            | State::FinalLf => None,
        }
    }

    /// Takes what it can of `input`. The data of several chunks is moved together, behind the first
    /// of it; a body that is not chunked is not moved at all. What is not consumed is not touched.
    pub fn decode(&mut self, input: &mut [u8]) -> Result<Decoded, MalformedBody> {
        match self.state {
            State::Finished => Ok(self.found(0, 0, 0)),
            State::UntilClose => Ok(self.found(input.len(), 0, input.len())),
            State::Length(left) => {
                let taken = at_most(left, input.len());
                self.state = match left - taken as u64 {
                    0 => State::Finished,
                    left => State::Length(left),
                };
                Ok(self.found(taken, 0, taken))
            }
            State::Size { .. }
            | State::SizeSpace { .. }
            | State::Extension { .. }
            | State::SizeLf { .. }
            | State::Data(_)
            | State::DataCr
            | State::DataLf
            | State::TrailerStart
            | State::Trailer
            | State::FinalLf => self.decode_chunks(input),
        }
    }

    /// The connection ended: whether that is the end of the body.
    pub fn end_of_input(&mut self) -> Result<(), MalformedBody> {
        if matches!(self.state, State::UntilClose | State::Finished) {
            self.state = State::Finished;
            Ok(())
        } else {
            Err(MalformedBody::Truncated)
        }
    }

    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// Trailer lines, CRLF included, once the end of a chunked body was seen. Often empty.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Without those that only we have a say in. Before the end of the body a line may be here in
    /// part only: whose it is, and whether it is one, is found at its end.
    pub(crate) fn drop_trailers(&mut self, names: &[Box<[u8]>]) {
        if names.is_empty() || self.trailers.is_empty() || !self.is_finished() {
            return;
        }
        let is_dropped = |line: &&[u8]| {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            is_one_of(names, name)
        };
        let lines = self.trailers.split_inclusive(|byte| *byte == b'\n');
        self.trailers = lines.filter(|line| !is_dropped(line)).flatten().copied().collect();
    }

    fn found(&self, consumed: usize, start: usize, data: usize) -> Decoded {
        Decoded { consumed, start, data, end: self.is_finished() }
    }

    fn decode_chunks(&mut self, input: &mut [u8]) -> Result<Decoded, MalformedBody> {
        let (mut at, mut start, mut data) = (0, 0, 0);
        while at < input.len() && self.state != State::Finished {
            if let State::Size { digits: 0, .. } = self.state
                && let Some((digits, size)) = plain_size_line(&input[at..])
            {
                self.line_bytes = digits + 1;
                self.state = self.size_line_ends(b'\n', size)?;
                at += digits + 2;
                continue;
            }
            match self.state {
                State::Data(left) => {
                    let taken = at_most(left, input.len() - at);
                    if data == 0 {
                        start = at;
                    } else {
                        input.copy_within(at..at + taken, start + data);
                    }
                    at += taken;
                    data += taken;
                    self.state = match left - taken as u64 {
                        0 => State::DataCr,
                        left => State::Data(left),
                    };
                }
                State::TrailerStart | State::Trailer => at += self.trailer(&input[at..])?,
                State::DataCr if input[at..].starts_with(b"\r\n") => {
                    self.state = State::Size { digits: 0, size: 0 };
                    at += 2;
                }
                State::Size { .. }
                | State::SizeSpace { .. }
                | State::Extension { .. }
                | State::SizeLf { .. }
                | State::DataCr
                | State::DataLf
                | State::FinalLf
                | State::Length(_)
                | State::UntilClose
                | State::Finished => {
                    self.state = self.framing_byte(input[at])?;
                    at += 1;
                }
            }
        }
        Ok(self.found(at, start, data))
    }

    /// chunk-size [ chunk-ext ] CRLF, and the CRLF after data (RFC 9112 section 7.1).
    fn framing_byte(&mut self, byte: u8) -> Result<State, MalformedBody> {
        match self.state {
            State::DataCr if byte == b'\r' => return Ok(State::DataLf),
            State::DataLf if byte == b'\n' => return Ok(State::Size { digits: 0, size: 0 }),
            State::FinalLf if byte == b'\n' => return Ok(State::Finished),
            State::DataCr | State::DataLf | State::FinalLf => return Err(MalformedBody::ChunkEnd),
            State::SizeLf { size } => return self.size_line_ends(byte, size),
            State::Size { .. } | State::SizeSpace { .. } | State::Extension { .. } => {}
            State::Length(_)
            | State::UntilClose
            | State::Data(_)
            | State::TrailerStart
            | State::Trailer
            | State::Finished => return Ok(self.state),
        }
        self.line_bytes += 1;
        if self.line_bytes > CHUNK_LINE_BYTES_MAX {
            return Err(MalformedBody::ChunkExtension);
        }
        size_line(self.state, byte)
    }

    fn size_line_ends(&mut self, byte: u8, size: u64) -> Result<State, MalformedBody> {
        if byte != b'\n' {
            return Err(MalformedBody::ChunkEnd);
        }
        let free = OVERHEAD_BYTES_FREE.saturating_add(size.saturating_mul(2));
        self.overhead = (self.overhead + self.line_bytes as u64).saturating_sub(free);
        self.line_bytes = 0;
        if self.overhead > OVERHEAD_BYTES_MAX {
            return Err(MalformedBody::ChunkOverhead);
        }
        Ok(if size == 0 { State::TrailerStart } else { State::Data(size) })
    }

    /// Takes bytes up to the end of a trailer line, or up to the CR of the last, empty one.
    fn trailer(&mut self, input: &[u8]) -> Result<usize, MalformedBody> {
        if self.state == State::TrailerStart && input.first() == Some(&b'\r') {
            self.state = State::FinalLf;
            return Ok(1);
        }
        let line_end = input.iter().position(|byte| *byte == b'\n');
        let taken = line_end.map_or(input.len(), |line_end| line_end + 1);
        self.line_bytes += taken;
        if self.line_bytes > TRAILER_BYTES_MAX {
            return Err(MalformedBody::TrailersTooLarge);
        }
        self.trailers.extend_from_slice(&input[..taken]);
        self.state = State::Trailer;
        if line_end.is_some() {
            let line = &self.trailers[self.trailer_line..];
            if !is_forwarded_trailer(line)? {
                self.trailers.truncate(self.trailer_line);
            }
            self.trailer_line = self.trailers.len();
            self.state = State::TrailerStart;
        }
        Ok(taken)
    }
}

/// The usual case, all in one piece: digits and CRLF. Anything else goes byte by byte.
fn plain_size_line(input: &[u8]) -> Option<(usize, u64)> {
    let mut size = 0;
    for (digits, byte) in input.iter().enumerate().take(17) {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if digits > 0 && input.get(digits + 1) == Some(&b'\n') => {
                return Some((digits, size));
            }
            _ => return None,
        };
        size = size << 4 | u64::from(digit);
    }
    None
}

/// One byte of a chunk-size line before its LF.
fn size_line(state: State, byte: u8) -> Result<State, MalformedBody> {
    match (state, byte) {
        (State::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
            let digit = (byte as char).to_digit(16).map_or(0, u64::from);
            if digits == 16 {
                return Err(MalformedBody::ChunkSize);
            }
            Ok(State::Size { digits: digits + 1, size: size << 4 | digit })
        }
        (State::Size { digits: 0, .. }, _) => Err(MalformedBody::ChunkSize),
        (State::Size { size, .. } | State::Extension { size }, b'\r') => Ok(State::SizeLf { size }),
        (State::Size { size, .. } | State::SizeSpace { size }, b';') => {
            Ok(State::Extension { size })
        }
        (State::Size { size, .. } | State::SizeSpace { size }, b' ' | b'\t') => {
            Ok(State::SizeSpace { size })
        }
        (State::Extension { .. }, b'\t' | b' '..=b'~' | 0x80..) => Ok(state),
        (State::Extension { .. }, b'\n') => Err(MalformedBody::ChunkEnd),
        (State::Extension { .. }, _) => Err(MalformedBody::ChunkExtension),
        _ => Err(MalformedBody::ChunkSize),
    }
}

fn at_most(left: u64, room: usize) -> usize {
    usize::try_from(left).map_or(room, |left| left.min(room))
}

/// Of whole trailer lines, those that go on. `most`: bytes that there may be.
pub(crate) fn forwarded_trailers(
    lines: &[u8],
    dropped: &[Box<[u8]>],
    most: usize,
) -> Result<Vec<u8>, MalformedBody> {
    if lines.len() > most {
        return Err(MalformedBody::TrailersTooLarge);
    }
    let mut out = Vec::with_capacity(lines.len());
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if is_forwarded_trailer(line)? && !is_one_of(dropped, name) {
            out.extend_from_slice(line);
        }
    }
    Ok(out)
}

/// Whether a trailer line goes on: a header line as strict as in a head, and not a field that must
/// not stand behind a body (RFC 9110 section 6.5.1).
fn is_forwarded_trailer(line: &[u8]) -> Result<bool, MalformedBody> {
    let line = line.strip_suffix(b"\r\n").ok_or(MalformedBody::TrailerSyntax)?;
    let colon = line.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(line.len());
    let (name, value) = line.split_at(colon);
    let control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    if name.is_empty() || value.first() != Some(&b':') || value.iter().any(control) {
        return Err(MalformedBody::TrailerSyntax);
    }
    Ok(!FORBIDDEN_TRAILERS.iter().any(|forbidden| same_with_dashes(name, forbidden.as_bytes())))
}

/// Framing, routing, authentication, request modifiers, response control, content format, and what
/// proxies say about a client.
const FORBIDDEN_TRAILERS: [&str; 53] = [
    "age",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "retry-after",
    "set-cookie",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-proxy-id",
    "x-real-ip",
    "x-request-id",
    "authentication-info",
];

/// What must hold for any bytes, as a body of every framing: the data, the bytes used and the
/// verdict are the same however the input is split, and what is encoded anew decodes to the same.
pub fn fuzz(bytes: &[u8]) {
    use crate::http1::encode::{CHUNK_PREFIX_BYTES, CRLF, chunk_prefix, last_chunk};

    let bytes = &bytes[..bytes.len().min(2048)];
    let lengths = [0, 1, 7, bytes.len() as u64, u64::MAX].map(Framing::Length);
    for framing in [Framing::None, Framing::UntilClose].into_iter().chain(lengths) {
        assert!(assert_same_at_every_split(framing, bytes).is_ok());
    }
    let Ok(whole) = assert_same_at_every_split(Framing::Chunked, bytes) else {
        return;
    };
    let mut again = Vec::new();
    for data in whole.data.chunks(5) {
        again.extend_from_slice(chunk_prefix(data.len(), &mut [0; CHUNK_PREFIX_BYTES]));
        again.extend_from_slice(data);
        again.extend_from_slice(CRLF);
    }
    if whole.end {
        last_chunk(&mut again, &whole.trailers);
    }
    let decoded = decode_in_parts(Framing::Chunked, &again, again.len().max(1));
    let decoded = decoded.expect("what was encoded is a body");
    assert_eq!((decoded.data, decoded.end), (whole.data, whole.end));
    assert_eq!(decoded.consumed, again.len());
    assert!(!whole.end || decoded.trailers == whole.trailers);
}

#[derive(Debug, PartialEq, Eq)]
struct Whole {
    data: Vec<u8>,
    consumed: usize,
    end: bool,
    trailers: Vec<u8>,
}

fn assert_same_at_every_split(framing: Framing, bytes: &[u8]) -> Result<Whole, MalformedBody> {
    let whole = decode_in_parts(framing, bytes, bytes.len().max(1));
    for part in [1, 2, 3, 5, 16, 17, 64] {
        assert_eq!(decode_in_parts(framing, bytes, part), whole, "in parts of {part}");
    }
    whole
}

/// As a session does it: a buffer, what is not used stays for the next call.
fn decode_in_parts(framing: Framing, bytes: &[u8], part: usize) -> Result<Whole, MalformedBody> {
    let mut decoder = Decoder::new(framing);
    let mut whole = Whole { data: Vec::new(), consumed: 0, end: false, trailers: Vec::new() };
    for part in bytes.chunks(part) {
        let mut buffer = part.to_vec();
        let decoded = decoder.decode(&mut buffer)?;
        assert!(decoded.start + decoded.data <= decoded.consumed);
        assert_eq!(buffer[decoded.consumed..], part[decoded.consumed..]);
        assert!(
            decoded.end || decoded.consumed == part.len(),
            "an open body takes all it is given"
        );
        whole.data.extend_from_slice(decoded.of(&buffer));
        whole.consumed += decoded.consumed;
    }
    whole.end = decoder.is_finished();
    if whole.end {
        whole.trailers.extend_from_slice(decoder.trailers());
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunked(bytes: &[u8]) -> Result<Whole, MalformedBody> {
        let whole = assert_same_at_every_split(Framing::Chunked, bytes);
        for at in 0..=bytes.len() {
            let mut decoder = Decoder::new(Framing::Chunked);
            let mut data = Vec::new();
            let mut last = Ok(());
            for part in [&bytes[..at], &bytes[at..]] {
                let mut buffer = part.to_vec();
                match decoder.decode(&mut buffer) {
                    Ok(decoded) => data.extend_from_slice(decoded.of(&buffer)),
                    Err(error) => {
                        last = Err(error);
                        break;
                    }
                }
            }
            match (&whole, last) {
                (Ok(whole), Ok(())) => assert_eq!(data, whole.data, "split at {at}"),
                (Err(expected), Err(error)) => assert_eq!(error, *expected, "split at {at}"),
                (one, other) => panic!("split at {at}: {one:?} {other:?}"),
            }
        }
        whole
    }

    fn data(text: &str) -> String {
        let whole = chunked(text.as_bytes()).unwrap();
        assert!(whole.end, "{text:?}");
        String::from_utf8(whole.data).unwrap()
    }

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(data("0\r\n\r\n"), "");
        assert_eq!(data("5\r\nhello\r\n0\r\n\r\n"), "hello");
        assert_eq!(data("5\r\nhello\r\n001\r\n \r\n5\r\nworld\r\n000\r\n\r\n"), "hello world");
        assert_eq!(data("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n").len(), 20);
        assert_eq!(data("2;a=b;c=\"d\te\"\r\nxy\r\n0;z\r\n\r\n"), "xy");
        assert_eq!(data("2 \t;a\r\n\r\n\r\n0\r\n\r\n"), "\r\n");
    }

    #[test]
    fn chunk_grammar_is_strict() {
        use MalformedBody::*;
        let table: &[(&str, MalformedBody)] = &[
            ("\r\n", ChunkSize),
            (";a\r\n", ChunkSize),
            (" 5\r\nhello", ChunkSize),
            ("g\r\n", ChunkSize),
            ("+5\r\n", ChunkSize),
            ("-1\r\n", ChunkSize),
            ("0x5\r\n", ChunkSize),
            ("5h\r\n", ChunkSize),
            ("5 \r\n", ChunkSize),
            ("5 5\r\n", ChunkSize),
            ("5\n", ChunkSize),
            ("00000000000000001\r\n", ChunkSize),
            ("10000000000000000\r\n", ChunkSize),
            ("5\rx", ChunkEnd),
            ("5\r\r\n", ChunkEnd),
            ("5;a\n", ChunkEnd),
            ("5;a\rb\r\n", ChunkEnd),
            ("5;a\0\r\n", ChunkExtension),
            ("5;\u{7f}\r\n", ChunkExtension),
            ("2\r\nabc\r\n", ChunkEnd),
            ("2\r\nab\n", ChunkEnd),
            ("2\r\nab0\r\n\r\n", ChunkEnd),
            ("2\r\nab\rx", ChunkEnd),
            ("0\r\n\rx", ChunkEnd),
            ("0\r\n\n", TrailerSyntax),
            ("0\r\nA: 1\n\r\n", TrailerSyntax),
            ("0\r\nA : 1\r\n\r\n", TrailerSyntax),
            ("0\r\n A: 1\r\n\r\n", TrailerSyntax),
            ("0\r\nA: 1\r\n b\r\n\r\n", TrailerSyntax),
            ("0\r\n: 1\r\n\r\n", TrailerSyntax),
            ("0\r\nA\r\n\r\n", TrailerSyntax),
            ("0\r\nA: \0\r\n\r\n", TrailerSyntax),
            ("0\r\nA: 1\r2\r\n\r\n", TrailerSyntax),
        ];
        for (text, expected) in table {
            assert_eq!(chunked(text.as_bytes()), Err(*expected), "{text:?}");
        }
    }

    #[test]
    fn the_largest_chunk_size_does_not_overflow() {
        let whole = chunked(b"FFFFFFFFFFFFFFFF\r\nabc").unwrap();
        assert_eq!((whole.data.as_slice(), whole.end), (b"abc".as_slice(), false));
    }

    #[test]
    fn long_extensions_and_many_short_chunks_with_extensions_are_refused() {
        let line = |extension: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(extension));
        assert!(chunked(line(CHUNK_LINE_BYTES_MAX - 3).as_bytes()).is_ok());
        let long = chunked(line(CHUNK_LINE_BYTES_MAX).as_bytes());
        assert_eq!(long, Err(MalformedBody::ChunkExtension));
        let many = format!("1;{}\r\nx\r\n", "e".repeat(200)).repeat(100);
        let many = decode_in_parts(Framing::Chunked, many.as_bytes(), 1000);
        assert_eq!(many, Err(MalformedBody::ChunkOverhead));
        let plain = "1\r\nx\r\n".repeat(20_000);
        assert!(decode_in_parts(Framing::Chunked, plain.as_bytes(), 1000).is_ok());
    }

    #[test]
    fn trailers_are_kept_but_for_those_that_must_not_be_there() {
        let text = "0\r\nX-Sum: 1\r\nContent-Length: 5\r\ntransfer_encoding: chunked\r\nHost: b\r\n\
            grpc-status:0\r\nCookie: c\r\nX-Forwarded-For: 1\r\nAuthorization: x\r\n\r\n";
        let whole = chunked(text.as_bytes()).unwrap();
        assert_eq!(whole.trailers.escape_ascii().to_string(), "X-Sum: 1\\r\\ngrpc-status:0\\r\\n");
    }

    /// As an upload does it: after each piece.
    fn trailers_without(names: &[Box<[u8]>], parts: [&[u8]; 2]) -> Result<Vec<u8>, MalformedBody> {
        let mut decoder = Decoder::new(Framing::Chunked);
        for part in parts {
            decoder.decode(&mut part.to_vec())?;
            decoder.drop_trailers(names);
        }
        assert!(decoder.is_finished());
        Ok(decoder.trailers().to_vec())
    }

    #[test]
    fn trailers_that_only_we_may_write_are_dropped_however_they_are_split() {
        let names: [Box<[u8]>; 1] = [Box::from(&b"x-cn"[..])];
        let good = b"0\r\nX-Sum: 1\r\nX-CN: admin\r\nX_Cn:b\r\nHost: b\r\nX-CNN: 2\r\n\r\n";
        for at in 0..=good.len() {
            let trailers = trailers_without(&names, good.split_at(at).into());
            assert_eq!(trailers.unwrap(), b"X-Sum: 1\r\nX-CNN: 2\r\n", "split at {at}");
        }
        let bad: [&[u8]; 3] =
            [b"0\r\nX-CN : admin\ra:b\r\n\r\n", b"0\r\nA:\rX-CN: b\r\n\r\n", b"0\r\nX-CN\r\n\r\n"];
        for bad in bad {
            for at in 0..=bad.len() {
                let trailers = trailers_without(&names, bad.split_at(at).into());
                assert_eq!(trailers, Err(MalformedBody::TrailerSyntax), "{bad:?} split at {at}");
            }
        }
    }

    #[test]
    fn trailers_are_bounded_even_when_they_are_dropped() {
        let sized = |bytes: usize| format!("0\r\nHost: {}\r\n\r\n", "x".repeat(bytes - 8));
        let whole = |text: String| decode_in_parts(Framing::Chunked, text.as_bytes(), 1000);
        assert!(whole(sized(TRAILER_BYTES_MAX)).is_ok());
        assert_eq!(whole(sized(TRAILER_BYTES_MAX + 1)), Err(MalformedBody::TrailersTooLarge));
        let many = format!("0\r\n{}", "Host: x\r\n".repeat(TRAILER_BYTES_MAX / 9 + 1));
        assert_eq!(whole(many), Err(MalformedBody::TrailersTooLarge));
    }

    #[test]
    fn what_follows_the_body_is_left_for_the_next_message() {
        let whole = chunked(b"1\r\nx\r\n0\r\nA: 1\r\n\r\nGET / HTTP/1.1\r\n").unwrap();
        assert_eq!((whole.consumed, whole.end), (17, true));
        let mut bytes = *b"abcdef";
        let decoded = Decoder::new(Framing::Length(4)).decode(&mut bytes).unwrap();
        assert_eq!(decoded, Decoded { consumed: 4, start: 0, data: 4, end: true });
        assert_eq!(&bytes, b"abcdef");
    }

    #[test]
    fn a_single_chunk_is_not_moved() {
        let mut bytes = *b"3\r\nabc\r\n0\r\n\r\n";
        let decoded = Decoder::new(Framing::Chunked).decode(&mut bytes).unwrap();
        assert_eq!((decoded.start, decoded.data), (3, 3));
        assert_eq!(&bytes, b"3\r\nabc\r\n0\r\n\r\n");
    }

    #[test]
    fn bodies_without_bytes_are_finished_at_once() {
        for framing in [Framing::None, Framing::Length(0)] {
            let mut decoder = Decoder::new(framing);
            assert!(decoder.is_finished());
            let decoded = decoder.decode(&mut b"GET ".to_vec()).unwrap();
            assert_eq!((decoded.consumed, decoded.data, decoded.end), (0, 0, true));
        }
    }

    #[test]
    fn the_end_of_the_connection_ends_only_a_body_that_lasts_until_then() {
        let mut decoder = Decoder::new(Framing::UntilClose);
        let decoded = decoder.decode(&mut b"abc".to_vec()).unwrap();
        assert_eq!((decoded.data, decoded.end), (3, false));
        assert_eq!(decoder.end_of_input(), Ok(()));
        assert!(decoder.is_finished());
        for (framing, part) in [(Framing::Length(4), "abc"), (Framing::Chunked, "0\r\n")] {
            let mut decoder = Decoder::new(framing);
            decoder.decode(&mut part.as_bytes().to_vec()).unwrap();
            assert_eq!(decoder.end_of_input(), Err(MalformedBody::Truncated));
        }
    }

    #[test]
    fn forbidden_trailers_are_lower_case() {
        for name in FORBIDDEN_TRAILERS {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{name}");
        }
    }
}
