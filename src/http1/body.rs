//! Bodies: where they end. Chunk framing is decoded and written anew, never forwarded. Used by both
//! sessions, one `Decoder` per body. It stores no body bytes: only trailers, and the place in the grammar.

use crate::http::head::Framing;
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

/// How much framing may outweigh data over a whole body: a byte per chunk with a long extension each
/// would otherwise cost us a hundred bytes of work for one.
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

    /// Takes what it can of `input`. The data of several chunks is moved together, up to the first of
    /// it; a body that is not chunked is not moved at all. Never touches what it does not consume.
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

    /// Trailer lines, CRLF included, once the end of a chunked body was seen. Empty when there were none.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    fn found(&self, consumed: usize, start: usize, data: usize) -> Decoded {
        Decoded { consumed, start, data, end: self.is_finished() }
    }

    fn decode_chunks(&mut self, input: &mut [u8]) -> Result<Decoded, MalformedBody> {
        let (mut at, mut start, mut data) = (0, 0, 0);
        while at < input.len() && self.state != State::Finished {
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
    Ok(!FORBIDDEN_TRAILERS.iter().any(|forbidden| stands_for(name, forbidden)))
}

/// `_` counts as `-`: applications read both as one.
fn stands_for(name: &[u8], forbidden: &str) -> bool {
    let dashed = |byte: &u8| {
        if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
    };
    name.len() == forbidden.len() && name.iter().map(dashed).eq(forbidden.bytes())
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
