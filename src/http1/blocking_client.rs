//! HTTP/1.1 as this process itself asks for something: one connection, blocking, each request with
//! a deadline. For threads beside the cores: the exporters of traces, and whoever fetches the
//! configuration. The peer may be down, slow or not what it was thought to be: whatever it does,
//! a request ends by its deadline and takes bounded memory. Only the lookup of a name has no
//! deadline of ours: the system's resolver takes as long as `resolv.conf` says (by default 5 s for
//! each server, twice), and then the request has failed.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use crate::engine;
use crate::http::head::{Keep, Method, ResponseHead};
use crate::http1::body::{Decoder, MalformedBody};
use crate::http1::parse::{self, HeadLimits, Parsed};
use crate::limits;
use crate::plan::Address;

/// The connection, while there is one.
#[derive(Debug)]
pub(crate) struct Line {
    stream: Option<TcpStream>,
    clock: fn() -> Instant,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'r> {
    pub(crate) address: &'r Address,
    pub(crate) method: Method,
    /// As it is sent, with its empty line.
    pub(crate) head: &'r [u8],
    pub(crate) body: &'r [u8],
    /// A longer body of the answer is not read to its end.
    pub(crate) answer_bytes_max: usize,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) end: End,
    head: ResponseHead,
    head_bytes: Vec<u8>,
}

/// How the body of an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Where the head or its last chunk says.
    Marked,
    /// There, but more bytes came.
    Exceeded,
    /// With the connection: whether that was all of it nobody knows.
    Closed,
    /// It was longer than may be.
    Cut,
}

impl Answer {
    /// The value of the first line of that name, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let value = self.head.named(&self.head_bytes, name.as_bytes())?;
        str::from_utf8(value).ok()
    }
}

impl Line {
    pub(crate) fn new(clock: fn() -> Instant) -> Line {
        Line { stream: None, clock }
    }

    pub(crate) fn hang_up(&mut self) {
        self.stream = None;
    }

    /// Sends one request and reads its answer. A kept connection may have been closed meanwhile:
    /// then a new one is made. A name is resolved for every connection anew.
    pub(crate) fn ask(&mut self, request: Request<'_>, by: Instant) -> io::Result<Answer> {
        if let Some(stream) = self.stream.take()
            && let Ok(answer) = self.exchange(stream, request, by)
        {
            return Ok(answer);
        }
        let stream = self.connect(request.address, by)?;
        self.exchange(stream, request, by)
    }

    #[expect(clippy::disallowed_methods, reason = "its thread may wait: no core does")]
    fn connect(&self, address: &Address, by: Instant) -> io::Result<TcpStream> {
        let addresses: Vec<SocketAddr> = match address {
            Address::Ip(address) => vec![*address],
            Address::Name(name, port) => (name.as_str(), *port).to_socket_addrs()?.collect(),
        };
        self.left(by)?; // the lookup may have taken all of it
        let mut last = io::Error::new(ErrorKind::NotFound, "its name has no address");
        for (tried, address) in addresses.iter().enumerate() {
            // One that is silent leaves the others their share of the time.
            let share = self.left(by)? / (addresses.len() - tried) as u32;
            let share = share.max(Duration::from_millis(1)); // none at all is refused
            match TcpStream::connect_timeout(address, share) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The connection is kept when the answer came in full and says nothing against it.
    fn exchange(
        &mut self,
        mut stream: TcpStream,
        request: Request<'_>,
        by: Instant,
    ) -> io::Result<Answer> {
        self.write(&mut stream, request.head, by)?;
        self.write(&mut stream, request.body, by)?;
        let answer = self.read(&mut stream, request, by)?;
        let keep = answer.head.keep == Keep::Open && answer.end == End::Marked;
        self.stream = keep.then_some(stream);
        Ok(answer)
    }

    fn write(&self, stream: &mut TcpStream, mut bytes: &[u8], by: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            stream.set_write_timeout(Some(self.left(by)?))?;
            match stream.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(taken) => bytes = &bytes[taken..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(
        &self,
        stream: &mut TcpStream,
        request: Request<'_>,
        by: Instant,
    ) -> io::Result<Answer> {
        let limits = HeadLimits {
            url_bytes_max: limits::URL_BYTES_MAX,
            header_bytes_max: limits::HEADER_BYTES_MAX,
            headers_max: limits::HEADERS_MAX,
        };
        let (mut bytes, mut head) = (Vec::new(), ResponseHead::default());
        loop {
            let parsed = parse::response(&bytes, request.method, &limits, &mut head);
            match parsed.map_err(|wrong| malformed(wrong.message()))? {
                // An interim answer says nothing that matters here.
                Parsed::Complete if (100..200).contains(&head.status) => {
                    bytes.drain(..head.bytes);
                    head.clear();
                }
                Parsed::Complete => break,
                Parsed::Partial => {
                    if self.more(stream, &mut bytes, by)? == 0 {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
        let rest = bytes.split_off(head.bytes);
        let (body, end) =
            self.body(stream, Decoder::new(head.framing), rest, request.answer_bytes_max, by)?;
        Ok(Answer { status: head.status, body, end, head, head_bytes: bytes })
    }

    /// As much of it as may be.
    fn body(
        &self,
        stream: &mut TcpStream,
        mut decoder: Decoder,
        mut bytes: Vec<u8>,
        bytes_max: usize,
        by: Instant,
    ) -> io::Result<(Vec<u8>, End)> {
        let mut body = Vec::new();
        loop {
            let wrong = |wrong: MalformedBody| {
                io::Error::new(ErrorKind::InvalidData, format!("its answer: {}", wrong.message()))
            };
            let decoded = decoder.decode(&mut bytes).map_err(wrong)?;
            body.extend_from_slice(decoded.of(&bytes));
            bytes.drain(..decoded.consumed);
            if body.len() > bytes_max {
                return Ok((body, End::Cut));
            }
            if decoded.end {
                let end = if bytes.is_empty() { End::Marked } else { End::Exceeded };
                return Ok((body, end));
            }
            let progress = decoded.consumed > 0 && !bytes.is_empty();
            if !progress && self.more(stream, &mut bytes, by)? == 0 {
                decoder.end_of_input().map_err(wrong)?;
                return Ok((body, End::Closed));
            }
        }
    }

    fn more(&self, stream: &mut TcpStream, bytes: &mut Vec<u8>, by: Instant) -> io::Result<usize> {
        let mut room = [0; 4096];
        loop {
            stream.set_read_timeout(Some(self.left(by)?))?;
            match stream.read(&mut room) {
                Ok(count) => {
                    bytes.extend_from_slice(&room[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn left(&self, by: Instant) -> io::Result<Duration> {
        let left = by.saturating_duration_since((self.clock)());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// Why there is no answer, in words.
pub(crate) fn reason(error: &io::Error) -> String {
    let kind = error.kind();
    if matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut) {
        return "it was silent too long".to_owned();
    }
    if kind == ErrorKind::UnexpectedEof {
        return "it closed the connection without an answer".to_owned();
    }
    error.to_string()
}

/// Up to a tenth of a wait: many proxies must not come back to a server at the same moment.
pub(crate) fn jitter(wait: Duration) -> Duration {
    wait / 1000 * (engine::random_seed() % 100) as u32
}

fn malformed(message: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("its answer is not HTTP: {message}"))
}
