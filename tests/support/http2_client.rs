//! An HTTP/2 client that sends exact frames and takes answers apart (RFC 9113). It does what a
//! client must (acknowledges, opens windows) only where it reads a whole answer.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;

pub use corelane::http2::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY,
    PRIORITY_FLAG as HAS_PRIORITY, PRIORITY_UPDATE, PUSH_PROMISE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE,
};

use super::hpack::{Block, Decoder, Fields};
use super::{PATIENCE, SecureClient, raw_client};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;
pub const HTTP_1_1_REQUIRED: u32 = 13;

pub const HEADER_TABLE_SIZE: u16 = 1;
pub const ENABLE_PUSH: u16 = 2;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_FRAME_SIZE: u16 = 5;
pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;
pub const NO_RFC7540_PRIORITIES: u16 = 9;

#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error of RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Of SETTINGS.
    pub fn setting(&self, id: u16) -> Option<u32> {
        let entries = self.payload.chunks_exact(6).rev();
        let mut values = entries.filter(|entry| entry[..2] == id.to_be_bytes());
        values.next().map(|e| u32::from_be_bytes([e[2], e[3], e[4], e[5]]))
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.payload[..self.payload.len().min(40)].escape_ascii();
        write!(f, "frame {} {:#x} of {}: {shown}", self.kind, self.flags, self.stream)
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).expect("a frame of a test").to_be_bytes();
    let mut bytes = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    bytes.extend_from_slice(payload);
    bytes
}

pub fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let entry = |&(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, entries.iter().flat_map(entry).collect::<Vec<u8>>())
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, code.to_be_bytes())
}

/// HEADERS in one frame; `END_HEADERS` is set, other flags are told.
pub fn headers(stream: u32, flags: u8, block: &Block) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, block.bytes())
}

/// An answer as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// Statuses of interim answers before it.
    pub interim: Vec<u16>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the test expects text")
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// How a stream, or the connection with it, ended without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// RST_STREAM with this error.
    Reset(u32),
    /// GOAWAY with this error.
    Away(u32),
    /// Without a word.
    Closed,
}

/// What a test was doing when it failed.
pub struct ToldOfAFailure(pub String);

impl Drop for ToldOfAFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- at {}", self.0);
        }
    }
}

trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

pub struct Http2Client {
    wire: Box<dyn Wire>,
    buffer: Vec<u8>,
    decoder: Decoder,
    next_stream: u32,
    /// What the proxy said first.
    pub settings: Option<Frame>,
}

impl Http2Client {
    /// Connected, and nothing said.
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(raw_client::connected(address))
    }

    /// Connected by TLS that offers `h2`, and nothing said.
    pub fn connect_secure(address: SocketAddr, host: &str, mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        let client = SecureClient::connect_with(address, host, Arc::new(config));
        assert_eq!(client.stream.conn.alpn_protocol(), Some(&b"h2"[..]), "h2 was offered");
        Self::over(client.stream)
    }

    fn over(wire: impl Read + Write + Send + 'static) -> Self {
        Self {
            wire: Box::new(wire),
            buffer: Vec::new(),
            decoder: Decoder::default(),
            next_stream: 1,
            settings: None,
        }
    }

    /// Both prefaces have been said and acknowledged (RFC 9113 section 3.4).
    pub fn open(address: SocketAddr) -> Self {
        Self::connect(address).greet(&[])
    }

    /// The same with settings of the client.
    pub fn greet(mut self, entries: &[(u16, u32)]) -> Self {
        self.send([PREFACE, &settings(entries)].concat());
        let first = self.read_frame().expect("the proxy greets");
        assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0), "{first:?}");
        self.settings = Some(first);
        self.send(frame(SETTINGS, ACK, 0, []));
        loop {
            let frame = self.read_frame().expect("the proxy acknowledges");
            assert!([SETTINGS, WINDOW_UPDATE].contains(&frame.kind), "{frame:?}");
            if frame.kind == SETTINGS && frame.has(ACK) {
                return self;
            }
        }
    }

    /// What the proxy allows; `None`: it has not said.
    pub fn setting(&self, id: u16) -> Option<u32> {
        self.settings.as_ref().and_then(|settings| settings.setting(id))
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the peer takes what is sent");
    }

    /// For peers that may close before they have read everything.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.write_all(bytes.as_ref())?;
        self.wire.flush()
    }

    /// A stream that no request has used.
    pub fn new_stream(&mut self) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        stream
    }

    /// Sends a request without a body; its stream.
    pub fn request(&mut self, block: &Block) -> u32 {
        let stream = self.new_stream();
        self.send(headers(stream, END_STREAM, block));
        stream
    }

    /// Sends a request whose body is to come; its stream.
    pub fn begin(&mut self, block: &Block) -> u32 {
        let stream = self.new_stream();
        self.send(headers(stream, 0, block));
        stream
    }

    pub fn data(&mut self, stream: u32, flags: u8, bytes: impl AsRef<[u8]>) {
        self.send(frame(DATA, flags, stream, bytes));
    }

    pub fn get(&mut self, path: &str) -> Answer {
        let stream = self.request(&Block::get(path));
        self.answer(stream)
    }

    pub fn answer(&mut self, stream: u32) -> Answer {
        self.try_answer(stream).unwrap_or_else(|ended| panic!("no answer to {stream}: {ended:?}"))
    }

    /// Reads until a stream has been answered or reset, or the connection ends. What belongs to
    /// other streams is dropped.
    pub fn try_answer(&mut self, stream: u32) -> Result<Answer, Ended> {
        let mut answer = Answer::default();
        loop {
            let frame = self.read_frame().map_err(|_| Ended::Closed)?;
            if !self.attend(&frame)? || frame.stream != stream {
                if frame.kind == HEADERS {
                    self.decode(&frame);
                }
                continue;
            }
            match frame.kind {
                HEADERS => self.take_fields(&frame, &mut answer),
                DATA => answer.body.extend_from_slice(&frame.payload),
                RST_STREAM => return Err(Ended::Reset(frame.code())),
                _ => continue,
            }
            if frame.has(END_STREAM) {
                return Ok(answer);
            }
        }
    }

    fn take_fields(&mut self, frame: &Frame, answer: &mut Answer) {
        let fields = self.decode(frame);
        let status = fields.iter().find(|(name, _)| name == ":status");
        match status.and_then(|(_, value)| value.parse().ok()) {
            Some(interim @ 100..200) => answer.interim.push(interim),
            Some(status) => (answer.status, answer.fields) = (status, fields),
            None => answer.trailers = fields,
        }
    }

    /// Does for a frame what a client must; whether it belongs to a stream.
    fn attend(&mut self, frame: &Frame) -> Result<bool, Ended> {
        let reply = match frame.kind {
            SETTINGS if !frame.has(ACK) => self::frame(SETTINGS, ACK, 0, []),
            PING if !frame.has(ACK) => self::frame(PING, ACK, 0, &frame.payload),
            DATA if !frame.payload.is_empty() => {
                let count = frame.payload.len() as u32;
                let of_stream = window_update(frame.stream, count);
                let of_stream = if frame.has(END_STREAM) { Vec::new() } else { of_stream };
                [window_update(0, count), of_stream].concat()
            }
            GOAWAY if frame.code() != NO_ERROR => return Err(Ended::Away(frame.code())),
            _ => Vec::new(),
        };
        // Who is closing takes nothing, but may have more to say.
        let _ = self.try_send(reply);
        Ok(frame.stream != 0)
    }

    /// Fields of a HEADERS frame and the CONTINUATION frames behind it.
    pub fn decode(&mut self, first: &Frame) -> Fields {
        let mut block = first.payload.clone();
        let mut is_whole = first.has(END_HEADERS);
        while !is_whole {
            let more = self.read_frame().expect("the block goes on");
            assert_eq!((more.kind, more.stream), (CONTINUATION, first.stream), "{more:?}");
            block.extend_from_slice(&more.payload);
            is_whole = more.has(END_HEADERS);
        }
        self.decoder.decode(&block)
    }

    /// The next frame, whatever it is. An error: the connection has ended.
    pub fn read_frame(&mut self) -> io::Result<Frame> {
        self.fill(9)?;
        let length = u32::from_be_bytes([0, self.buffer[0], self.buffer[1], self.buffer[2]]);
        let length = length as usize;
        assert!(length <= 16_384, "no frame may be longer: {length}");
        self.fill(9 + length)?;
        let bytes: Vec<u8> = self.buffer.drain(..9 + length).collect();
        let stream = u32::from_be_bytes(bytes[5..9].try_into().expect("four bytes"));
        Ok(Frame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() })
    }

    /// The next frame of this kind; others are attended to and dropped, fields are decoded.
    pub fn read_until(&mut self, kind: u8) -> Result<Frame, Ended> {
        loop {
            let frame = self.read_frame().map_err(|_| Ended::Closed)?;
            if frame.kind == kind {
                return Ok(frame);
            }
            if frame.kind == HEADERS {
                self.decode(&frame);
            }
            self.attend(&frame)?;
        }
    }

    /// The error of the GOAWAY that ends the connection, which then is closed. Streams may be
    /// answered before.
    pub fn away(&mut self) -> u32 {
        let away = loop {
            let frame = self.read_frame().unwrap_or_else(|error| panic!("no GOAWAY: {error}"));
            if frame.kind == GOAWAY && frame.code() != NO_ERROR {
                break frame.code();
            }
        };
        self.closed();
        away
    }

    /// Waits until the proxy has closed.
    pub fn closed(&mut self) {
        while let Ok(frame) = self.read_frame() {
            drop(frame);
        }
    }

    /// Proves by a PING that everything sent before it has been taken in; the frames that came
    /// before its answer.
    pub fn settle(&mut self) -> Result<Vec<Frame>, Ended> {
        let mark = *b"settled?";
        let _ = self.try_send(frame(PING, 0, 0, mark));
        let mut frames = Vec::new();
        loop {
            let frame = self.read_frame().map_err(|_| Ended::Closed)?;
            if frame.kind == PING && frame.has(ACK) && frame.payload == mark {
                return Ok(frames);
            }
            if frame.kind == GOAWAY && frame.code() != NO_ERROR {
                return Err(Ended::Away(frame.code()));
            }
            if frame.kind == HEADERS {
                self.decode(&frame);
            }
            frames.push(frame);
        }
    }

    fn fill(&mut self, count: usize) -> io::Result<()> {
        let mut chunk = vec![0; 32 * 1024];
        while self.buffer.len() < count {
            let got = match self.wire.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("nothing came for {PATIENCE:?}")
                }
                got => got?,
            };
            if got == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&chunk[..got]);
        }
        Ok(())
    }
}
