//! A trace collector as the exporter speaks to it: one request at a time on one kept connection.

use std::io;
use std::time::{Duration, Instant};

use crate::http::head::Method;
use crate::http1::blocking_client::{self, Line};
use crate::limits;
use crate::plan::{Collector, Spoken};

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// The beginning of a long answer is enough.
pub(super) fn post(
    line: &mut Line,
    collector: &Collector,
    body: &[u8],
    by: Instant,
) -> io::Result<Answer> {
    let head = head(collector, body.len());
    let request = blocking_client::Request {
        address: &collector.url.address,
        method: Method::Post,
        head: &head,
        body,
        answer_bytes_max: limits::TRACE_ANSWER_BYTES_MAX,
    };
    let answer = line.ask(request, by)?;
    let seconds = answer.header("retry-after").and_then(|value| value.parse::<u32>().ok());
    let retry_after = seconds.map(|seconds| Duration::from_secs(u64::from(seconds)));
    Ok(Answer { status: answer.status, retry_after, body: answer.body })
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
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::thread;

    use super::*;
    use crate::plan::{Address, HttpUrl, Secret};
    use crate::telemetry::trace::otlp::Service;

    fn collector(address: SocketAddr) -> Collector {
        Collector {
            url: HttpUrl {
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
    fn posted(answer: &'static [u8], patience: Duration) -> io::Result<Answer> {
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
        let answer = post(&mut line, &collector(address), b"spans", Instant::now() + patience);
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
        assert_eq!(posted(length, LONG).unwrap(), found(b"ok"));
        let chunks =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n";
        assert_eq!(posted(chunks, LONG).unwrap(), found(b"ok"));
        assert_eq!(posted(b"HTTP/1.1 200 OK\r\n\r\nok", LONG).unwrap(), found(b"ok"));
        let busy = b"HTTP/1.1 429 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(posted(busy, LONG).unwrap().retry_after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn rubbish_silence_and_half_an_answer_are_errors() {
        let kind = |answer, patience| posted(answer, patience).unwrap_err().kind();
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
        let answer = posted(&ENDLESS[..200_000], LONG).unwrap();
        assert!(answer.body.len() <= limits::TRACE_ANSWER_BYTES_MAX + 4096);
    }
}
