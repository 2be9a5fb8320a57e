//! A trace collector as the exporter speaks to it: HTTP/1.1 on one kept connection, blocking, each
//! request with a deadline. It may be down, slow or not what it was thought to be: whatever it
//! does, a request ends by its deadline and takes bounded memory.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use crate::http::head::{Keep, Method, ResponseHead};
use crate::http1::body::Decoder;
use crate::http1::parse::{self, HeadLimits, Parsed};
use crate::limits;
use crate::plan::{Address, Collector, Spoken};

/// The connection, while there is one.
#[derive(Debug)]
pub(super) struct Line {
    stream: Option<TcpStream>,
    clock: fn() -> Instant,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

impl Line {
    pub(super) fn new(clock: fn() -> Instant) -> Line {
        Line { stream: None, clock }
    }

    pub(super) fn hang_up(&mut self) {
        self.stream = None;
    }

    /// Sends one request and reads its answer. A kept connection may have been closed meanwhile:
    /// then a new one is made. A name is resolved for every connection anew.
    pub(super) fn post(
        &mut self,
        collector: &Collector,
        body: &[u8],
        by: Instant,
    ) -> io::Result<Answer> {
        let head = head(collector, body.len());
        if let Some(stream) = self.stream.take()
            && let Ok(answer) = self.exchange(stream, &head, body, by)
        {
            return Ok(answer);
        }
        let stream = self.connect(&collector.url.address, by)?;
        self.exchange(stream, &head, body, by)
    }

    #[expect(clippy::disallowed_methods, reason = "the exporter's thread may wait: no core does")]
    fn connect(&self, address: &Address, by: Instant) -> io::Result<TcpStream> {
        let addresses: Vec<SocketAddr> = match address {
            Address::Ip(address) => vec![*address],
            Address::Name(name, port) => (name.as_str(), *port).to_socket_addrs()?.collect(),
        };
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
        head: &[u8],
        body: &[u8],
        by: Instant,
    ) -> io::Result<Answer> {
        self.write(&mut stream, head, by)?;
        self.write(&mut stream, body, by)?;
        let (answer, keep) = self.read(&mut stream, by)?;
        self.stream = (keep == Keep::Open).then_some(stream);
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

    fn read(&self, stream: &mut TcpStream, by: Instant) -> io::Result<(Answer, Keep)> {
        let limits = HeadLimits {
            url_bytes_max: limits::URL_BYTES_MAX,
            header_bytes_max: limits::HEADER_BYTES_MAX,
            headers_max: limits::HEADERS_MAX,
        };
        let (mut bytes, mut head) = (Vec::new(), ResponseHead::default());
        loop {
            let parsed = parse::response(&bytes, Method::Post, &limits, &mut head);
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
        let seconds = head.named(&bytes, b"retry-after");
        let seconds = seconds.and_then(|value| str::from_utf8(value).ok()?.parse::<u32>().ok());
        let retry_after = seconds.map(|seconds| Duration::from_secs(u64::from(seconds)));
        let rest = bytes.split_off(head.bytes);
        let (body, whole) = self.body(stream, Decoder::new(head.framing), rest, by)?;
        let keep = if whole { head.keep } else { Keep::Close };
        Ok((Answer { status: head.status, retry_after, body }, keep))
    }

    /// As much of it as may be; and whether that was all.
    fn body(
        &self,
        stream: &mut TcpStream,
        mut decoder: Decoder,
        mut bytes: Vec<u8>,
        by: Instant,
    ) -> io::Result<(Vec<u8>, bool)> {
        let mut body = Vec::new();
        loop {
            let wrong = |wrong: crate::http1::body::MalformedBody| malformed(wrong.message());
            let decoded = decoder.decode(&mut bytes).map_err(wrong)?;
            body.extend_from_slice(decoded.of(&bytes));
            bytes.drain(..decoded.consumed);
            if decoded.end {
                return Ok((body, bytes.is_empty()));
            }
            if body.len() > limits::TRACE_ANSWER_BYTES_MAX {
                return Ok((body, false));
            }
            let progress = decoded.consumed > 0 && !bytes.is_empty();
            if !progress && self.more(stream, &mut bytes, by)? == 0 {
                decoder.end_of_input().map_err(wrong)?;
                return Ok((body, false));
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

fn malformed(message: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("its answer is not HTTP: {message}"))
}

fn head(collector: &Collector, length: usize) -> Vec<u8> {
    let kind = match collector.spoken {
        Spoken::OtlpProtobuf => "application/x-protobuf",
        Spoken::OtlpJson | Spoken::Zipkin => "application/json",
    };
    let version = env!("CARGO_PKG_VERSION");
    let mut head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: corelane/{version}\r\n\
         Content-Type: {kind}\r\nContent-Length: {length}\r\n",
        collector.url.path, collector.url.authority,
    );
    for (name, value) in &collector.headers {
        head.push_str(&format!("{name}: {}\r\n", value.0));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::plan::{CollectorUrl, Secret};
    use crate::telemetry::trace::otlp::Service;

    fn collector(address: SocketAddr) -> Collector {
        Collector {
            url: CollectorUrl {
                address: Address::Ip(address),
                authority: "collector".to_owned(),
                path: "/v1/traces".to_owned(),
            },
            spoken: Spoken::OtlpProtobuf,
            headers: vec![("X-Key".to_owned(), Secret("1".to_owned()))],
            timeout: Duration::from_secs(5),
            service: Service { name: "a".to_owned(), id: None },
        }
    }

    /// What one post to a peer that answers `answer` and closes brings.
    fn post(answer: &'static [u8], patience: Duration) -> io::Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"spans") {
                let mut room = [0; 1024];
                let count = stream.read(&mut room).unwrap();
                request.extend_from_slice(&room[..count]);
            }
            stream.write_all(answer).unwrap();
            if answer.is_empty() {
                let _ = stream.read(&mut [0]); // never answers, until the other side is gone
            }
            request
        });
        let mut line = Line::new(Instant::now);
        let answer = line.post(&collector(address), b"spans", Instant::now() + patience);
        drop(line);
        let request = String::from_utf8(peer.join().unwrap()).unwrap();
        let start = "POST /v1/traces HTTP/1.1\r\nHost: collector\r\n";
        assert!(request.starts_with(start) && request.contains("\r\nX-Key: 1\r\n"), "{request}");
        answer
    }

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn answers_are_read_however_they_are_framed() {
        let found = |body: &[u8]| Answer { status: 200, retry_after: None, body: body.to_vec() };
        let length = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(post(length, LONG).unwrap(), found(b"ok"));
        let chunks =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n";
        assert_eq!(post(chunks, LONG).unwrap(), found(b"ok"));
        assert_eq!(post(b"HTTP/1.1 200 OK\r\n\r\nok", LONG).unwrap(), found(b"ok"));
        let busy = b"HTTP/1.1 429 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(post(busy, LONG).unwrap().retry_after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn rubbish_silence_and_half_an_answer_are_errors() {
        let kind = |answer, patience| post(answer, patience).unwrap_err().kind();
        assert_eq!(kind(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", LONG), ErrorKind::InvalidData);
        assert_eq!(kind(b"HTTP/1.1 200 O", LONG), ErrorKind::UnexpectedEof);
        let silent = kind(b"", Duration::from_millis(50));
        assert!(matches!(silent, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silent:?}");
    }

    #[test]
    fn an_endless_answer_is_cut() {
        static ENDLESS: [u8; 300_000] = {
            let mut bytes = [b'x'; 300_000];
            let head = b"HTTP/1.1 200 OK\r\n\r\n";
            let mut at = 0;
            while at < head.len() {
                bytes[at] = head[at];
                at += 1;
            }
            bytes
        };
        let answer = post(&ENDLESS[..200_000], LONG).unwrap();
        assert!(answer.body.len() <= limits::TRACE_ANSWER_BYTES_MAX + 4096);
    }
}
