//! A scripted HTTP/1.1 origin: threads and std::net, so that it shares nothing with the proxy.
//! It counts connections, keeps every request it received, and can be told to misbehave.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::message::{decode_chunked, head_length, header_lines, request_length};
use super::{PATIENCE, eventually};

/// How a scripted exchange ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    KeepOpen,
    /// FIN.
    Close,
    /// RST, whatever was written before it.
    Reset,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// Of the origin's connections the how manieth, from 0.
    pub connection: usize,
    /// Request line and header lines as they came, without the empty line.
    pub head: String,
    /// Chunk framing is decoded.
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Head and body as they came.
    pub raw: Vec<u8>,
}

impl Received {
    fn new(connection: usize, raw: &[u8]) -> Self {
        let end = head_length(raw).expect("only complete requests are recorded");
        let head = String::from_utf8_lossy(&raw[..end - 4]).into_owned();
        let chunked = header_lines(&head, "transfer-encoding").contains(&"chunked");
        let (body, trailers) =
            if chunked { decode_chunked(&raw[end..]) } else { (raw[end..].to_vec(), Vec::new()) };
        Self { connection, head, body, trailers, raw: raw.to_vec() }
    }

    /// `GET /hello`.
    pub fn method_and_target(&self) -> &str {
        self.head.lines().next().and_then(|line| line.rsplit_once(' ')).map_or("", |(line, _)| line)
    }

    /// The value of the only header line of this name; panics when there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.headers(name);
        assert!(all.len() <= 1, "{name} came {} times:\n{}", all.len(), self.head);
        all.first().copied()
    }

    pub fn headers(&self, name: &str) -> Vec<&str> {
        header_lines(&self.head, name)
    }
}

/// Something that has happened, once and for all, and those who wait for it.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    /// Comes back when it is open; a test that never opens it has failed long before.
    pub fn wait(&self) {
        let closed = lock(&self.0.0);
        drop(self.0.1.wait_timeout_while(closed, 2 * PATIENCE, |open| !*open));
    }
}

/// An answer of a well-behaved origin.
#[derive(Clone, Debug)]
pub struct Respond {
    status: String,
    headers: String,
    body: Vec<u8>,
    framing: Framing,
    delay: Duration,
    gate: Option<Gate>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunks(usize),
    Close,
}

impl Respond {
    pub fn text(body: &str) -> Self {
        Self::bytes(body).header("Content-Type", "text/plain")
    }

    pub fn bytes(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: "200 OK".to_owned(),
            headers: String::new(),
            body: body.into(),
            framing: Framing::Length,
            delay: Duration::ZERO,
            gate: None,
        }
    }

    /// `404 Not Found`.
    pub fn status(mut self, status: &str) -> Self {
        status.clone_into(&mut self.status);
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// The body in chunks of this size.
    pub fn chunked(mut self, size: usize) -> Self {
        self.framing = Framing::Chunks(size);
        self
    }

    /// The body ends with the connection.
    pub fn until_close(mut self) -> Self {
        self.framing = Framing::Close;
        self
    }

    /// Waits before the first byte.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Waits with the first byte until the gate is open.
    pub fn behind(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    fn write(&self, stream: &mut TcpStream, is_head: bool) -> io::Result<After> {
        thread::sleep(self.delay);
        if let Some(gate) = &self.gate {
            gate.wait();
        }
        let mut bytes = format!("HTTP/1.1 {}\r\n{}", self.status, self.headers).into_bytes();
        let framing = match &self.framing {
            Framing::Length => format!("Content-Length: {}\r\n\r\n", self.body.len()),
            Framing::Chunks(_) => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
            Framing::Close => "Connection: close\r\n\r\n".to_owned(),
        };
        bytes.extend_from_slice(framing.as_bytes());
        match &self.framing {
            _ if is_head => {}
            Framing::Length | Framing::Close => bytes.extend_from_slice(&self.body),
            Framing::Chunks(size) => {
                for chunk in self.body.chunks(*size) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
        }
        stream.write_all(&bytes)?;
        Ok(if self.framing == Framing::Close { After::Close } else { After::KeepOpen })
    }
}

type Script = Box<dyn Fn(&mut TcpStream, &[u8], usize) -> After + Send + Sync>;
type Conversation = Box<dyn Fn(TcpStream, usize) + Send + Sync>;

enum Behaviour {
    /// Answers by the table.
    Table,
    Raw(Script),
    Connections(Conversation),
}

struct Shared {
    behaviour: Behaviour,
    table: Mutex<HashMap<String, Respond>>,
    requests: Mutex<Vec<Received>>,
    /// Of the open connections, to end them when the origin is dropped.
    open: Mutex<HashMap<usize, TcpStream>>,
    accepted: AtomicUsize,
    /// Where connections of the test itself come from, which nobody counts.
    probes: Mutex<HashSet<SocketAddr>>,
    stopped: AtomicBool,
}

pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Origin {
    /// Answers what `on` told it, anything else with 404; keeps connections open.
    pub fn start() -> Self {
        Self::with(Behaviour::Table)
    }

    /// For each complete request, its bytes and the number of its connection, runs the script,
    /// which writes whatever bytes it likes, when it likes.
    pub fn raw(
        script: impl Fn(&mut TcpStream, &[u8], usize) -> After + Send + Sync + 'static,
    ) -> Self {
        Self::with(Behaviour::Raw(Box::new(script)))
    }

    /// Leaves whole connections to the script, reading too. Nothing is recorded but their count.
    pub fn connections(script: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        Self::with(Behaviour::Connections(Box::new(script)))
    }

    fn with(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the kernel has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            behaviour,
            table: Mutex::default(),
            requests: Mutex::default(),
            open: Mutex::default(),
            accepted: AtomicUsize::new(0),
            probes: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let origin = Self { address, shared: Arc::clone(&shared) };
        thread::spawn(move || shared.accept(&listener));
        origin
    }

    /// `on("GET /hello", Respond::text("hello"))`; may be called again while it runs.
    pub fn on(self, method_and_target: &str, respond: Respond) -> Self {
        lock(&self.shared.table).insert(method_and_target.to_owned(), respond);
        self
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Connections established since the start: all of them, even if this machine has not got
    /// round to accepting the last ones. They are accepted in their order, so once a connection of
    /// our own was, those before it were too.
    pub fn connections_accepted(&self) -> usize {
        let mut probes = lock(&self.shared.probes);
        let probe = TcpStream::connect(self.address).expect("the origin accepts");
        let ours = probe.local_addr().expect("a connected socket has an address");
        probes.insert(ours);
        drop(probes);
        let came = eventually(|| !lock(&self.shared.probes).contains(&ours));
        assert!(came, "the origin does not accept");
        self.shared.accepted.load(Ordering::SeqCst)
    }

    pub fn connections_open(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// Everything received until now, in order of completion.
    pub fn requests(&self) -> Vec<Received> {
        lock(&self.shared.requests).clone()
    }

    /// Waits until this many requests came.
    pub fn wait_for_requests(&self, count: usize) -> Vec<Received> {
        let came = eventually(|| lock(&self.shared.requests).len() >= count);
        let requests = self.requests();
        assert!(came, "{} requests came, {count} were expected", requests.len());
        requests
    }

    /// The only request that came.
    pub fn only_request(&self) -> Received {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "one request was expected: {requests:?}");
        requests.remove(0)
    }

    /// Ends all open connections with a FIN, as an origin does with idle ones.
    pub fn close_connections(&self) {
        for stream in lock(&self.shared.open).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes accept
        self.close_connections();
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            if stream.peer_addr().is_ok_and(|peer| lock(&self.probes).remove(&peer)) {
                continue;
            }
            let number = self.accepted.fetch_add(1, Ordering::SeqCst);
            let _ = stream.set_nodelay(true);
            let _ = stream.set_write_timeout(Some(PATIENCE));
            if let Ok(copy) = stream.try_clone() {
                lock(&self.open).insert(number, copy);
            }
            let shared = Arc::clone(&self);
            thread::spawn(move || shared.converse(stream, number));
        }
    }

    fn converse(&self, mut stream: TcpStream, number: usize) {
        if let Behaviour::Connections(script) = &self.behaviour {
            // The script owns the connection: its drop must close it.
            lock(&self.open).remove(&number);
            return script(stream, number);
        }
        // The last byte of a request stays in the socket until it is answered: closing a socket
        // with unread bytes is what sends a RST.
        while let Ok(Some(request)) = read_all_but_last(&mut stream) {
            lock(&self.requests).push(Received::new(number, &request));
            let after = self.answer(&mut stream, &request, number);
            if after != After::Reset && stream.read_exact(&mut [0]).is_err() {
                break;
            }
            if after != After::KeepOpen {
                break;
            }
        }
        lock(&self.open).remove(&number);
    }

    fn answer(&self, stream: &mut TcpStream, request: &[u8], number: usize) -> After {
        match &self.behaviour {
            Behaviour::Raw(script) => script(stream, request, number),
            Behaviour::Table | Behaviour::Connections(_) => {
                let received = Received::new(number, request);
                let key = received.method_and_target();
                let found = lock(&self.table).get(key).cloned();
                let respond = found.unwrap_or_else(|| {
                    Respond::text("the origin knows no such thing").status("404 Not Found")
                });
                respond.write(stream, key.starts_with("HEAD ")).unwrap_or(After::Close)
            }
        }
    }
}

/// One request, of which the last byte was peeked at and is still in the socket.
/// `None`: the peer closed before or within it.
fn read_all_but_last(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut request = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    let mut continued = false;
    loop {
        let count = stream.peek(&mut chunk)?;
        if count == 0 {
            return Ok(None);
        }
        let before = request.len();
        request.extend_from_slice(&chunk[..count]);
        if let Some(length) = request_length(&request) {
            stream.read_exact(&mut chunk[..length - before - 1])?;
            request.truncate(length);
            return Ok(Some(request));
        }
        stream.read_exact(&mut chunk[..count])?;
        if !continued && expects_continue(&request) {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            continued = true;
        }
    }
}

fn expects_continue(request: &[u8]) -> bool {
    head_length(request).is_some_and(|end| {
        let head = String::from_utf8_lossy(&request[..end]);
        header_lines(&head, "expect").iter().any(|value| value.eq_ignore_ascii_case("100-continue"))
    })
}

/// A script that panicked has failed its own test; the others go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
