//! An HTTP/2 server that says exact frames, right or wrong, and takes requests apart.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::hpack::{Block, Decoder, Fields};
use super::http2_client::{
    ACK, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PREFACE, SETTINGS, frame,
    headers, settings, window_update,
};
use super::{Origin, PATIENCE};

/// Connections by plain HTTP/2, each left to a script.
pub struct Http2Origin {
    origin: Origin,
    answered: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub stream: u32,
    /// Which connection it came on, the first is 0.
    pub connection: usize,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
}

impl Asked {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.field(":path").expect("a request has a path")
    }
}

/// The proxy's end of a connection, for a script.
pub struct Asker {
    stream: TcpStream,
    buffer: Vec<u8>,
    decoder: Decoder,
    /// Requests whose bodies are still coming.
    open: Vec<Asked>,
    /// Those of them whose heads were asked for.
    heads_told: Vec<u32>,
    connection: usize,
    answered: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Bodies open the window again as they come.
    pub takes_bodies: bool,
    pub answers_pings: bool,
}

impl Http2Origin {
    /// The script has read the proxy's preface, and says everything else.
    pub fn start(script: impl Fn(&mut Asker) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let (answered, asked) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let (counter, list) = (Arc::clone(&answered), Arc::clone(&asked));
        let connections = AtomicUsize::new(0);
        let origin = Origin::connections(move |stream, _| {
            stream.set_read_timeout(Some(PATIENCE)).expect("30 s is a timeout");
            stream.set_nodelay(true).expect("a TCP socket takes TCP_NODELAY");
            let mut asker = Asker {
                stream,
                buffer: Vec::new(),
                decoder: Decoder::default(),
                open: Vec::new(),
                heads_told: Vec::new(),
                connection: 0,
                answered: Arc::clone(&counter),
                asked: Arc::clone(&list),
                takes_bodies: true,
                answers_pings: true,
            };
            if asker.preface().is_ok() {
                asker.connection = connections.fetch_add(1, Ordering::SeqCst);
                // It ends as it likes: what the proxy makes of it is what is tested.
                let _ = script(&mut asker);
            }
        });
        Self { origin, answered, asked }
    }

    /// Greets with these settings, and answers every request with 200 and its path.
    pub fn polite(entries: &'static [(u16, u32)]) -> Self {
        Self::start(move |asker| {
            asker.greet(entries)?;
            loop {
                let asked = asker.request()?;
                let path = asked.path().to_owned();
                asker.answer(asked.stream, &path)?;
            }
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.origin.address()
    }

    pub fn connections(&self) -> usize {
        self.origin.connections_accepted()
    }

    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// All requests that have come in full.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Asker {
    fn preface(&mut self) -> io::Result<()> {
        self.fill(PREFACE.len())?;
        if self.buffer.starts_with(b"PROXY ") {
            // A line of PROXY protocol stands before it.
            while !self.buffer.contains(&b'\n') {
                self.fill(self.buffer.len() + 1)?;
            }
            let end = self.buffer.iter().position(|&byte| byte == b'\n').unwrap_or_default();
            self.buffer.drain(..=end);
            self.fill(PREFACE.len())?;
        }
        let preface: Vec<u8> = self.buffer.drain(..PREFACE.len()).collect();
        assert_eq!(preface, PREFACE);
        Ok(())
    }

    /// Which connection of the origin this is; the first is 0.
    pub fn connection(&self) -> usize {
        self.connection
    }

    pub fn greet(&mut self, entries: &[(u16, u32)]) -> io::Result<()> {
        self.send(settings(entries))
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    pub fn read_frame(&mut self) -> io::Result<Frame> {
        self.fill(9)?;
        let length = u32::from_be_bytes([0, self.buffer[0], self.buffer[1], self.buffer[2]]);
        self.fill(9 + length as usize)?;
        let bytes: Vec<u8> = self.buffer.drain(..9 + length as usize).collect();
        let stream = u32::from_be_bytes(bytes[5..9].try_into().expect("four bytes"));
        Ok(Frame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() })
    }

    /// The next request that has come in full. What else comes is attended to.
    pub fn request(&mut self) -> io::Result<Asked> {
        loop {
            let (stream, ends) = self.step()?;
            if ends && let Some(at) = self.open.iter().position(|one| one.stream == stream) {
                let asked = self.open.remove(at);
                let mut list = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
                list.push(asked.clone());
                return Ok(asked);
            }
        }
    }

    /// Until all of this request has come. Others are kept for [`head`](Self::head).
    pub fn end_of(&mut self, stream: u32) -> io::Result<()> {
        while self.step()? != (stream, true) {}
        Ok(())
    }

    /// The head of the next request, whose body may still be coming.
    pub fn head(&mut self) -> io::Result<Asked> {
        loop {
            let is_new = |one: &&Asked| !self.heads_told.contains(&one.stream);
            if let Some(new) = self.open.iter().find(is_new).cloned() {
                self.heads_told.push(new.stream);
                return Ok(new);
            }
            self.step()?;
        }
    }

    /// Until a frame of this kind has come.
    pub fn until(&mut self, kind: u8) -> io::Result<Frame> {
        loop {
            let frame = self.read_frame()?;
            if frame.kind == kind {
                return Ok(frame);
            }
            self.attend(&frame)?;
        }
    }

    fn step(&mut self) -> io::Result<(u32, bool)> {
        let frame = self.read_frame()?;
        self.attend(&frame)?;
        let is_of_stream = [HEADERS, DATA].contains(&frame.kind);
        Ok((frame.stream, is_of_stream && frame.has(END_STREAM)))
    }

    fn attend(&mut self, frame: &Frame) -> io::Result<()> {
        match frame.kind {
            SETTINGS if !frame.has(ACK) => self.send(self::frame(SETTINGS, ACK, 0, [])),
            PING if !frame.has(ACK) && self.answers_pings => {
                self.send(self::frame(PING, ACK, 0, &frame.payload))
            }
            HEADERS => {
                assert!(frame.has(END_HEADERS), "longer than a test needs");
                let fields = self.decoder.decode(&frame.payload);
                match self.open.iter_mut().find(|one| one.stream == frame.stream) {
                    Some(one) => one.trailers = fields,
                    None => {
                        let (stream, connection) = (frame.stream, self.connection);
                        self.open.push(Asked { stream, connection, fields, ..Asked::default() });
                    }
                }
                Ok(())
            }
            DATA => {
                let count = frame.payload.len() as u32;
                if let Some(one) = self.open.iter_mut().find(|one| one.stream == frame.stream) {
                    one.body.extend_from_slice(&frame.payload);
                }
                if count == 0 || !self.takes_bodies {
                    return Ok(());
                }
                self.send([window_update(0, count), window_update(frame.stream, count)].concat())
            }
            _ => Ok(()),
        }
    }

    /// 200 and a short body.
    pub fn answer(&mut self, stream: u32, body: &str) -> io::Result<()> {
        let block = Block::pseudo(&[(":status", "200")]).field("content-type", "text/plain");
        self.answered.fetch_add(1, Ordering::SeqCst);
        let head = headers(stream, 0, &block);
        self.send([head, frame(DATA, END_STREAM, stream, body)].concat())
    }

    /// GOAWAY that takes in streams up to `last`.
    pub fn go_away(&mut self, last: u32, code: u32) -> io::Result<()> {
        self.send(frame(GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat()))
    }

    fn fill(&mut self, count: usize) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        while self.buffer.len() < count {
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                got => self.buffer.extend_from_slice(&chunk[..got]),
            }
        }
        Ok(())
    }
}
