//! HTTP/1.1 messages as tests see them: where a request ends, and a response taken apart.
//! Written independently of the proxy's own parser, so that the two cannot agree on a mistake.

use std::fmt;
use std::io::{self, Read};

/// A response with its body by its framing.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Status line and header lines as they came, without the empty line.
    pub head: String,
    /// Chunk framing is decoded.
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Response {
    /// The value of the only header line of this name; panics when there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.headers(name);
        assert!(all.len() <= 1, "{name} came {} times: {self:?}", all.len());
        all.first().copied()
    }

    pub fn headers(&self, name: &str) -> Vec<&str> {
        header_lines(&self.head, name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the test expects text")
    }

    /// Reads one response; bytes after it stay in `buffer`. `method` is that of the request.
    pub fn read(stream: &mut impl Read, buffer: &mut Vec<u8>, method: &str) -> io::Result<Self> {
        let end = fill_until(stream, buffer, head_length)?;
        let head: Vec<u8> = buffer.drain(..end).collect();
        let head = String::from_utf8_lossy(&head[..end - 4]).into_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| broken(format!("no status line: {head:?}")))?;
        let mut response = Self { status, head, body: Vec::new(), trailers: Vec::new() };
        response.read_body(stream, buffer, method)?;
        Ok(response)
    }

    fn read_body(
        &mut self,
        stream: &mut impl Read,
        buffer: &mut Vec<u8>,
        method: &str,
    ) -> io::Result<()> {
        let connected = method == "CONNECT" && self.status / 100 == 2;
        if method == "HEAD" || self.status < 200 || [204, 304].contains(&self.status) || connected {
            return Ok(()); // RFC 9112 section 6.3
        }
        if self.headers("transfer-encoding").contains(&"chunked") {
            let end = fill_until(stream, buffer, chunked_length)?;
            let framed: Vec<u8> = buffer.drain(..end).collect();
            (self.body, self.trailers) = decode_chunked(&framed);
        } else if let Some(length) = self.header("content-length") {
            let length: usize =
                length.parse().map_err(|_| broken(format!("Content-Length: {length}")))?;
            fill_until(stream, buffer, |bytes| (bytes.len() >= length).then_some(length))?;
            self.body = buffer.drain(..length).collect();
        } else {
            stream.read_to_end(buffer)?;
            self.body = std::mem::take(buffer);
        }
        Ok(())
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.body[..self.body.len().min(400)];
        let body = String::from_utf8_lossy(shown);
        write!(f, "{}\n\n{body} ({} bytes of body)", self.head, self.body.len())
    }
}

/// Values of the header lines called `name`, in order.
pub fn header_lines<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()).collect()
}

/// Bytes up to and with the empty line.
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// Bytes of the first request in `bytes`, body included; `None` while it is incomplete.
pub fn request_length(bytes: &[u8]) -> Option<usize> {
    let head_end = head_length(bytes)?;
    let head = String::from_utf8_lossy(&bytes[..head_end]);
    if header_lines(&head, "transfer-encoding").contains(&"chunked") {
        return chunked_length(&bytes[head_end..]).map(|length| head_end + length);
    }
    let length = header_lines(&head, "content-length").first().map_or(Ok(0), |n| n.parse());
    let length: usize = length.unwrap_or(0);
    (bytes.len() >= head_end + length).then_some(head_end + length)
}

/// Bytes of a chunked body, last chunk and trailers included; `None` while it is incomplete.
fn chunked_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let (size, line_length) = chunk_size(&bytes[at..])?;
        at += line_length;
        if size == 0 {
            break;
        }
        at += size + 2;
        if at > bytes.len() {
            return None;
        }
    }
    if bytes[at..].starts_with(b"\r\n") {
        return Some(at + 2);
    }
    find(&bytes[at..], b"\r\n\r\n").map(|end| at + end + 4)
}

fn chunk_size(bytes: &[u8]) -> Option<(usize, usize)> {
    let line_end = find(bytes, b"\r\n")?;
    let line = String::from_utf8_lossy(&bytes[..line_end]);
    let digits = line.split(';').next().unwrap_or_default().trim();
    let size = usize::from_str_radix(digits, 16);
    Some((size.unwrap_or_else(|_| panic!("no chunk size: {line:?}")), line_end + 2))
}

/// The payload and the trailers of a complete chunked body.
pub fn decode_chunked(mut bytes: &[u8]) -> (Vec<u8>, Vec<(String, String)>) {
    let mut payload = Vec::new();
    while let Some((size @ 1.., line_length)) = chunk_size(bytes) {
        payload.extend_from_slice(&bytes[line_length..line_length + size]);
        assert_eq!(&bytes[line_length + size..][..2], b"\r\n", "a chunk ends with CRLF");
        bytes = &bytes[line_length + size + 2..];
    }
    let lines = String::from_utf8_lossy(bytes).into_owned();
    let trailers = lines.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    (payload, trailers.map(|(n, v)| (n.to_owned(), v.trim().to_owned())).collect())
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

/// Reads more until `end` knows where the thing ends.
fn fill_until(
    stream: &mut impl Read,
    buffer: &mut Vec<u8>,
    end: impl Fn(&[u8]) -> Option<usize>,
) -> io::Result<usize> {
    let mut chunk = vec![0; 64 * 1024];
    loop {
        if let Some(end) = end(buffer) {
            return Ok(end);
        }
        let count = match stream.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        if count == 0 {
            let got = String::from_utf8_lossy(&buffer[..buffer.len().min(400)]).into_owned();
            let message = format!("closed after {} bytes: {got:?}", buffer.len());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        buffer.extend_from_slice(&chunk[..count]);
    }
}

fn broken(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
