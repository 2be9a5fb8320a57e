//! A client that sends exact bytes and takes answers apart.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use super::{PATIENCE, Response};

#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    /// Read, but not yet asked for.
    buffer: Vec<u8>,
}

/// A socket on which nothing waits for ever.
pub fn connected(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)
        .unwrap_or_else(|error| panic!("nobody accepts on {address}: {error}"));
    stream.set_nodelay(true).expect("a TCP socket takes TCP_NODELAY");
    stream.set_read_timeout(Some(PATIENCE)).expect("30 s is a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("30 s is a timeout");
    stream
}

impl RawClient {
    pub fn connect(address: SocketAddr) -> Self {
        Self { stream: connected(address), buffer: Vec::new() }
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().expect("a connected socket has an address")
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the peer takes what is sent");
    }

    /// For peers that may close before they have read everything.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Two segments: `bytes[..at]`, a pause in which the peer reads, and the rest.
    pub fn send_split(&mut self, bytes: impl AsRef<[u8]>, at: usize) {
        let (first, second) = bytes.as_ref().split_at(at);
        self.send(first);
        thread::sleep(Duration::from_millis(1));
        self.send(second);
    }

    pub fn send_byte_by_byte(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]);
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// The next response, to a request that was not HEAD or CONNECT. 1xx is a response too.
    pub fn read_response(&mut self) -> Response {
        self.read_response_to("GET")
    }

    pub fn read_response_to(&mut self, method: &str) -> Response {
        self.try_read_response_to(method).unwrap_or_else(|error| panic!("no response: {error}"))
    }

    pub fn try_read_response_to(&mut self, method: &str) -> io::Result<Response> {
        Response::read(&mut self.stream, &mut self.buffer, method)
    }

    /// `GET target`, keep-alive, and its response.
    pub fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.read_response()
    }

    pub fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            let mut chunk = [0; 4096];
            let got = self.stream.read(&mut chunk).expect("bytes before the timeout");
            assert!(got > 0, "closed after {} of {count} bytes", self.buffer.len());
            self.buffer.extend_from_slice(&chunk[..got]);
        }
        self.buffer.drain(..count).collect()
    }

    /// Everything until the peer closes; a reset counts as a close. Panics when it stays open.
    pub fn read_to_close(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.buffer);
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => bytes,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => bytes,
            Err(error) => panic!("not closed ({error}) after {} bytes", bytes.len()),
        }
    }

    /// Whether nothing arrives and nothing ends for this long.
    pub fn is_quiet_for(&mut self, time: Duration) -> bool {
        if !self.buffer.is_empty() {
            return false;
        }
        self.stream.set_read_timeout(Some(time)).expect("a test waits for more than zero");
        let mut chunk = [0; 1];
        let quiet = self.stream.peek(&mut chunk).is_err_and(|error| {
            [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind())
        });
        self.stream.set_read_timeout(Some(PATIENCE)).expect("30 s is a timeout");
        quiet
    }

    /// Both ways at once: what to write to, and what to read from.
    pub fn split(&mut self) -> (TcpStream, TcpStream) {
        assert!(self.buffer.is_empty(), "something was read that nobody has asked for");
        let clone = || self.stream.try_clone().expect("a socket can be cloned");
        (clone(), clone())
    }

    /// Sends our FIN; the other direction stays open.
    pub fn half_close(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("the socket was connected");
    }

    /// Ends the connection with a RST when it has sent us something that we did not read.
    pub fn close(self) {}
}
