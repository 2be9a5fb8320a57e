//! The client's side of HTTP/1.1: one connection, its requests one after another. Between requests
//! the connection is parked: a small task without buffers. The rest lives in a box that exists
//! while requests come.

use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::engine::{self, Buf, Parked, Side};
use crate::exchange::client::{Client, Speaks};
use crate::exchange::failure::Failure;
use crate::exchange::{self, Ending, Exchange};
use crate::http1::parse::{self, HeadLimits, Parsed};
use crate::limits;
use crate::shard::{Origin, Shard};
use crate::tls::stream::Stream;

/// What a client has sent: the current request's head at the front of the buffer, then the bytes
/// of its body, or of the next request, that nobody has used yet.
#[derive(Debug, Default)]
pub(crate) struct Input {
    buffer: Option<Buf>,
    /// Stands in for the buffer while the exchange waits: so few bytes are better copied, and the
    /// core works on with the one buffer that is warm.
    copy: Vec<u8>,
    /// The head is `..head_end`; 0 until it is complete.
    head_end: usize,
    /// The unused bytes are `next..end`.
    next: usize,
    end: usize,
}

/// How a run of requests ended.
enum Pause {
    /// Nothing came for a while: give the working memory back, and wait.
    Quiet {
        had_requests: bool,
    },
    /// It speaks HTTP/2, as these bytes of it say.
    Http2(Vec<u8>),
    /// It is no HTTP any more.
    Tunnel(Box<Exchange>),
    Over,
}

/// What a connection that is quiet has behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// The client has just connected: its first request is on its way, and a drain leaves it time.
    Nothing,
    /// It knows that it may be closed at any time.
    Something,
}

/// Serves one connection to its end; or, when it turns out to speak HTTP/2, gives it back with what
/// was read of it.
pub(crate) async fn serve(
    shard: &Rc<Shard>,
    origin: Origin,
    stream: Stream,
) -> Option<(Stream, Vec<u8>)> {
    let client = Client { speaks: Speaks::Http1(stream), origin };
    let Speaks::Http1(stream) = &client.speaks else { return None };
    let (mut before, mut quiet_since) = (Before::Nothing, engine::now());
    loop {
        let session = Box::pin(run(shard, &client, stream, before));
        match session.await {
            Pause::Over => return None,
            Pause::Http2(begun) => {
                let Speaks::Http1(stream) = client.speaks else { return None };
                return Some((stream, begun));
            }
            Pause::Tunnel(mut exchange) => {
                Box::pin(go_over(shard, &client, stream, &mut exchange)).await;
                return None;
            }
            Pause::Quiet { had_requests } if had_requests || before == Before::Nothing => {
                quiet_since = engine::now();
            }
            // A part of a record, or what TLS says to TLS, is no request: its time goes on.
            Pause::Quiet { .. } => {}
        }
        before = Before::Something;
        let idle = shard.generation().plan.timeouts.idle;
        let quiet = limits::PARK_AFTER + (engine::now() - quiet_since);
        let left = idle.saturating_sub(quiet);
        if left.is_zero() {
            return None;
        }
        stream.set_deadline(Side::Read, Some(left));
        stream.set_parked(Parked::Long);
        let ready = until_ready(shard, &client, stream).await;
        let recalled = stream.set_parked(Parked::No) == Parked::Recalled;
        // A request that came meanwhile is served: who was recalled is only closed between two.
        if ready.is_err() || (recalled && stream.is_silent()) {
            return None;
        }
    }
}

/// Until something comes, or the connection is to be closed: what has come by then is read first.
async fn until_ready(shard: &Shard, client: &Client, stream: &Stream) -> io::Result<()> {
    let mut ready = std::pin::pin!(stream.ready(Side::Read));
    std::future::poll_fn(|context| {
        if client.origin.ends_idle(shard) {
            return Poll::Ready(Ok(()));
        }
        ready.as_mut().poll(context)
    })
    .await
}

async fn run(shard: &Rc<Shard>, client: &Client, stream: &Stream, mut before: Before) -> Pause {
    let mut exchange = Exchange::new(shard, client.origin.clone());
    let (mut pipelined, mut had_requests) = (0_u32, false);
    loop {
        if !exchange.input.unused().is_empty() {
            // Nothing below need ever wait for a client that has sent its next requests already.
            pipelined += 1;
            if pipelined.is_multiple_of(limits::IO_PER_TURN) {
                engine::yield_now().await;
            }
        }
        match read_head(shard, client, stream, &mut exchange, before).await {
            Arrival::Head => (before, had_requests) = (Before::Something, true),
            Arrival::Quiet if client.origin.ends_idle(shard) => {
                // Its next request may be on its way: closing would answer that with a reset.
                linger(stream).await;
                return Pause::Over;
            }
            Arrival::Quiet => return Pause::Quiet { had_requests },
            Arrival::Gone => return Pause::Over,
            Arrival::Http2 => return Pause::Http2(exchange.input.unused().to_vec()),
            Arrival::Refused(failure) => {
                exchange::refuse(shard, client, &mut exchange, failure).await;
                linger(stream).await;
                return Pause::Over;
            }
        }
        match exchange::run(shard, client, &mut exchange).await {
            Ending::Keep => {}
            Ending::Tunnel => return Pause::Tunnel(Box::new(exchange)),
            ending @ (Ending::Cut | Ending::Close | Ending::Linger) => {
                end(stream, &exchange, ending).await;
                return Pause::Over;
            }
        }
    }
}

async fn go_over(shard: &Rc<Shard>, client: &Client, stream: &Stream, exchange: &mut Exchange) {
    let ending = exchange::go_over(shard, client, exchange).await;
    end(stream, exchange, ending).await;
}

async fn end(stream: &Stream, exchange: &Exchange, ending: Ending) {
    match ending {
        Ending::Keep | Ending::Tunnel => {}
        Ending::Cut => stream.end_abruptly(),
        // Closing with bytes of the client unread would reset it, whatever we have answered.
        Ending::Close if exchange.input.unused().is_empty() && stream.is_silent() => {}
        Ending::Close | Ending::Linger => linger(stream).await,
    }
}

enum Arrival {
    Head,
    Quiet,
    Gone,
    Http2,
    Refused(Failure),
}

async fn read_head(
    shard: &Rc<Shard>,
    client: &Client,
    stream: &Stream,
    exchange: &mut Exchange,
    before: Before,
) -> Arrival {
    exchange.input.advance();
    exchange.begin(shard.generation());
    let mut timeouts = exchange.generation.plan.timeouts;
    let mut limits = head_limits(&exchange.generation.plan.limits);
    let mut started = !exchange.input.unused().is_empty();
    let patience = match before {
        _ if started => timeouts.header,
        Before::Something if client.origin.ends_idle(shard) => Duration::ZERO,
        Before::Nothing | Before::Something => limits::PARK_AFTER.min(timeouts.idle),
    };
    stream.set_deadline(Side::Read, Some(patience));
    loop {
        let preface = match before {
            Before::Nothing if started => preface(client, exchange.input.unused()),
            Before::Nothing | Before::Something => Preface::No,
        };
        if preface == Preface::Whole {
            return Arrival::Http2;
        }
        if started && preface == Preface::No {
            match parse::request(exchange.input.unused(), &limits, &mut exchange.head) {
                Ok(Parsed::Complete) => {
                    exchange.input.head_end = exchange.head.bytes;
                    exchange.input.next = exchange.head.bytes;
                    return Arrival::Head;
                }
                Ok(Parsed::Partial) => {}
                Err(malformed) => return Arrival::Refused(malformed.into()),
            }
        }
        let parks = !started && before == Before::Something;
        match receive(stream, &mut exchange.input, parks).await {
            Ok(0) => return Arrival::Gone,
            Ok(_) if started => {}
            Ok(_) => {
                started = true;
                // It may have waited through a reload.
                let newest = shard.generation();
                if !Rc::ptr_eq(&newest, &exchange.generation) {
                    exchange.generation = newest;
                    timeouts = exchange.generation.plan.timeouts;
                    limits = head_limits(&exchange.generation.plan.limits);
                }
                exchange.marks.begin = engine::now();
                stream.set_deadline(Side::Read, Some(timeouts.header));
            }
            Err(error) if error.kind() != io::ErrorKind::TimedOut => return Arrival::Gone,
            Err(_) if started => return Arrival::Refused(Failure::HeaderTimeout),
            Err(_) => return Arrival::Quiet,
        }
    }
}

/// Whether a client begins to speak HTTP/2 unasked (RFC 9113 section 3.3). Under TLS it would have
/// asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Preface {
    No,
    Part,
    Whole,
}

fn preface(client: &Client, bytes: &[u8]) -> Preface {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let known = bytes.len().min(PREFACE.len());
    if bytes[..known] != PREFACE[..known] || !client.speaks_http2_unasked() {
        Preface::No
    } else if known < PREFACE.len() {
        Preface::Part
    } else {
        Preface::Whole
    }
}

/// Before the first byte the connection is parked: a drain may end the wait, and so may a client
/// that needs the place; then it is as if this one had left.
async fn receive(stream: &Stream, input: &mut Input, parks: bool) -> io::Result<usize> {
    stream.set_parked(if parks { Parked::Briefly } else { Parked::No });
    let received = input.receive(stream).await;
    match stream.set_parked(Parked::No) {
        Parked::Recalled if received.is_err() => Ok(0),
        Parked::No | Parked::Briefly | Parked::Long | Parked::Recalled => received,
    }
}

/// Closing with bytes of the peer unread makes the kernel send a reset, which may overtake our
/// answer (RFC 9112 section 9.6). So: no more from us, then read what still comes, for a while.
/// Like every wait, it holds no buffer.
pub(crate) async fn linger(stream: &Stream) {
    stream.finish();
    let end = engine::now() + limits::LINGER_TIME_MAX;
    let mut turns = 0;
    while engine::now() < end {
        stream.set_deadline(Side::Read, Some(limits::LINGER_TIME));
        if stream.is_silent() && stream.ready(Side::Read).await.is_err() {
            return;
        }
        let mut buffer = engine::buffer();
        // Of a part of a record nothing is to be had yet: the rest is waited for as all else is.
        if let Poll::Ready(Ok(0) | Err(_)) = stream.try_recv(&mut buffer).await {
            return;
        }
        drop(buffer);
        turns += 1;
        if turns % limits::IO_PER_TURN == 0 {
            engine::yield_now().await;
        }
    }
}

pub(crate) fn head_limits(limits: &crate::plan::Limits) -> HeadLimits {
    HeadLimits {
        url_bytes_max: limits.url_bytes_max,
        header_bytes_max: limits.header_bytes_max,
        headers_max: limits.headers_max,
    }
}

impl Input {
    fn bytes(&self) -> &[u8] {
        self.buffer.as_deref().unwrap_or(&self.copy)
    }

    /// The bytes that the head's table points into.
    pub(crate) fn head(&self) -> &[u8] {
        &self.bytes()[..self.head_end]
    }

    pub(crate) fn unused(&self) -> &[u8] {
        &self.bytes()[self.next..self.end]
    }

    /// The head and the unused bytes behind it.
    pub(crate) fn split(&mut self) -> (&[u8], &mut [u8]) {
        let bytes = self.buffer.as_deref_mut().unwrap_or(&mut self.copy);
        let (head, rest) = bytes.split_at_mut(self.head_end);
        (head, &mut rest[self.next - self.head_end..self.end - self.head_end])
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.next += count;
    }

    /// What is unused, which no request is made of. Only the head is kept, as tight as it fits.
    pub(crate) fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.unused().to_vec();
        self.copy = self.head().to_vec();
        self.buffer = None;
        (self.next, self.end) = (self.head_end, self.head_end);
        rest
    }

    /// The body again from its first byte: only while nothing was read over it.
    pub(crate) fn rewind(&mut self) {
        self.next = self.head_end;
    }

    /// Gives the buffer back while the exchange waits, when that is worth it.
    pub(crate) fn settle(&mut self) {
        // A head that is not complete has no exchange that would miss the buffer, however large it
        // is: its limit is the bound.
        if (self.head_end == 0 || self.end <= limits::INPUT_COPY_BYTES_MAX)
            && let Some(buffer) = self.buffer.take()
        {
            self.copy.clear();
            // Exactly, but for a little: doubling would cost what giving the buffer back saves.
            self.copy.reserve_exact(self.end.next_multiple_of(limits::INPUT_COPY_STEP));
            self.copy.extend_from_slice(&buffer[..self.end]);
        }
    }

    /// A head that came otherwise than by [`Input::receive`].
    pub(crate) fn begin_with(&mut self, head: Vec<u8>) {
        let end = head.len();
        *self = Input { buffer: None, copy: head, head_end: end, next: end, end };
    }

    /// So many bytes were written to the room.
    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count;
    }

    /// Where the next bytes of a body go. What was used before is overwritten, the head is not.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.next == self.end {
            self.next = self.head_end;
            self.end = self.head_end;
        }
        let end = self.end;
        let buffer = self.buffer.get_or_insert_with(|| {
            let mut buffer = engine::buffer();
            buffer[..end].copy_from_slice(&self.copy[..end]);
            buffer
        });
        &mut buffer[end..]
    }

    /// Reads more of a head or a body; 0 at the end of the stream. Waits without a buffer: however
    /// slowly a client sends, it holds the bytes that it has sent and no more.
    pub(crate) async fn receive(&mut self, stream: &Stream) -> io::Result<usize> {
        loop {
            let tried =
                std::future::poll_fn(|context| Poll::Ready(stream.poll_recv(context, self.room())));
            if let Poll::Ready(received) = tried.await {
                let received = received?;
                self.end += received;
                return Ok(received);
            }
            self.settle();
            stream.ready(Side::Read).await?;
        }
    }

    /// The same, but does not wait again when a part of a record has come: `None`.
    pub(crate) async fn receive_some(&mut self, stream: &Stream) -> io::Result<Option<usize>> {
        let mut has_waited = false;
        loop {
            let tried =
                std::future::poll_fn(|context| Poll::Ready(stream.poll_recv(context, self.room())));
            if let Poll::Ready(received) = tried.await {
                let received = received?;
                self.end += received;
                return Ok(Some(received));
            }
            self.settle();
            if has_waited && stream.is_secure() {
                return Ok(None);
            }
            stream.ready(Side::Read).await?;
            has_waited = true;
        }
    }

    /// Forgets the current request: what is unused becomes the beginning of the next one.
    fn advance(&mut self) {
        if self.next == self.end {
            self.buffer = None;
            self.end = 0;
            if self.copy.capacity() > limits::INPUT_COPY_BYTES_MAX {
                self.copy = Vec::new(); // of a large head that came slowly
            }
        } else {
            let (next, end) = (self.next, self.end);
            let bytes = self.buffer.as_deref_mut().unwrap_or(&mut self.copy);
            bytes.copy_within(next..end, 0);
            self.end -= self.next;
        }
        self.next = 0;
        self.head_end = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::engine::{Doorbell, Placement, Socket};
    use crate::tls::handshake::tests::pair;
    use crate::tls::settings::Version;

    #[test]
    fn who_is_lingered_for_in_the_middle_of_a_record_holds_no_buffer() {
        let core = std::thread::spawn(|| {
            engine::run(Placement::Anywhere, Doorbell::new().unwrap(), || async {
                let (mut client, server) = pair("linger", Version::V1_3);
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (ours, _) = listener.accept().unwrap();
                ours.set_nonblocking(true).unwrap();
                let stream = Stream::secure(Socket::adopt(ours.into()), server);
                let lingering = Rc::new(std::cell::Cell::new(true));
                let lingers = Rc::clone(&lingering);
                engine::spawn(async move {
                    linger(&stream).await;
                    lingers.set(false);
                });
                engine::yield_now().await;
                let mut wire = vec![0; 65_536];
                let (end, _) = client.seal(&[b"too late", b"", b""], 0, &mut wire).unwrap();
                for piece in [&wire[..1], &wire[1..end - 1]] {
                    peer.write_all(piece).unwrap();
                    engine::sleep(Duration::from_millis(3)).await;
                    assert!(lingering.get());
                    assert_eq!(engine::core_state().buffers, 0, "while it waits for the rest");
                }
                drop(peer);
                while lingering.get() {
                    engine::sleep(Duration::from_millis(3)).await;
                }
            })
            .unwrap();
        });
        core.join().expect("the core ends cleanly");
    }
}
