//! Moving bytes: the rest of a request body up, the response down, both at once when need be. Bodies
//! stream: a buffer is lent while bytes are in hand and given back before waiting, and no side is read
//! faster than the other takes it.

use std::io;
use std::task::Poll;
use std::time::Duration;

use crate::engine::{self, SendError, Side, Socket};
use crate::exchange::Progress;
use crate::exchange::failure::Failure;
use crate::exchange::record::{Marks, Phase};
use crate::http::head::{Framing, Keep, Method, RequestHead, ResponseHead, Version};
use crate::http::headers::HeaderEdits;
use crate::http1::body::{Decoded, Decoder};
use crate::http1::encode;
use crate::http1::parse::{self, HeadLimits, Parsed};
use crate::http1::server::{Client, Input};
use crate::limits;
use crate::plan::{ClusterTimeouts, Plan, Route};
use crate::shard::Life;

/// The body of a request on its way up.
pub(super) struct Upload {
    decoder: Decoder,
    framing: Framing,
    tail: Vec<u8>,
    received: u64,
    max: u64,
    /// How long we have waited for the client, all waits together.
    waited: Duration,
}

/// A piece of body at the front of the unused input.
pub(super) struct Piece {
    decoded: Decoded,
    pub(super) end: bool,
}

impl Upload {
    pub(super) fn new(head: &RequestHead, max: u64) -> Upload {
        Upload {
            decoder: Decoder::new(head.framing),
            framing: head.framing,
            tail: Vec::new(),
            received: 0,
            max,
            waited: Duration::ZERO,
        }
    }

    /// What of the body is here already. Its chunk prefix is appended to `out`.
    pub(super) fn piece(&mut self, input: &mut Input, out: &mut Vec<u8>) -> Result<Piece, Failure> {
        let (_, unused) = input.split();
        let decoded = self.decoder.decode(unused).map_err(|_| Failure::BodyMalformed)?;
        self.received += decoded.data as u64;
        if self.max != 0 && self.received > self.max {
            return Err(Failure::BodyTooLarge);
        }
        self.tail.clear();
        if self.framing == Framing::Chunked {
            frame(decoded.data, decoded.end, self.decoder.trailers(), out, &mut self.tail);
        }
        Ok(Piece { decoded, end: decoded.end })
    }

    /// Sends `out`, the piece and what frames it.
    pub(super) async fn send(
        &self,
        upstream: &Socket,
        out: &[u8],
        input: &mut Input,
        piece: &Piece,
        patience: Duration,
    ) -> Result<(), SendError> {
        let (_, unused) = input.split();
        upstream.send(&[out, piece.decoded.of(unused), &self.tail], patience).await?;
        input.consume(piece.decoded.consumed);
        Ok(())
    }

    /// The pieces that are still to come from the client.
    pub(super) async fn rest(
        &mut self,
        client: &Client,
        input: &mut Input,
        upstream: &Socket,
        plan: &Plan,
        progress: &Progress,
    ) -> Result<(), UploadFailure> {
        let mut out = Vec::new();
        let mut turns = 0;
        loop {
            self.receive(client, input, plan, progress).await.map_err(UploadFailure::Client)?;
            out.clear();
            let piece = self.piece(input, &mut out).map_err(UploadFailure::Client)?;
            self.send(upstream, &out, input, &piece, plan.timeouts.write)
                .await
                .map_err(|error| UploadFailure::Upstream(write_failure(&error)))?;
            if piece.end {
                return Ok(());
            }
            turns += 1;
            if turns % limits::IO_PER_TURN == 0 {
                engine::yield_now().await;
            }
        }
    }

    async fn receive(
        &mut self,
        client: &Client,
        input: &mut Input,
        plan: &Plan,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let asked = engine::now();
        client.socket.set_deadline(Side::Read, Some(plan.timeouts.read));
        let result = input.receive(&client.socket).await;
        self.waited += engine::now() - asked;
        match result {
            Ok(0) => return Err(Failure::ClientClosed),
            Ok(count) => progress.received.set(progress.received.get() + count as u64),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(Failure::BodyTimeout);
            }
            Err(_) => return Err(Failure::ClientClosed),
        }
        let least = plan.timeouts.body_rate_min.saturating_mul(self.waited.as_secs());
        if self.waited > limits::BODY_RATE_GRACE && self.received < least {
            return Err(Failure::BodyTooSlow);
        }
        Ok(())
    }
}

/// Whose fault ended an upload. The upstream's may be followed by an early answer, so it is not final.
pub(super) enum UploadFailure {
    Client(Failure),
    Upstream(Failure),
}

/// What a response leaves behind.
pub(super) struct Downloaded {
    /// The upstream connection may carry another request.
    pub(super) upstream: Keep,
    pub(super) client: Keep,
    pub(super) promised: Option<Duration>,
}

/// The parts of an exchange that the way down uses, while the way up uses the others.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) upstream: &'a Socket,
    pub(super) plan: &'a Plan,
    pub(super) route: &'a Route,
    pub(super) timeouts: ClusterTimeouts,
    pub(super) request: Request,
    pub(super) head: &'a mut ResponseHead,
    pub(super) out: &'a mut Vec<u8>,
    pub(super) tail: &'a mut Vec<u8>,
    pub(super) marks: &'a mut Marks,
    pub(super) progress: &'a Progress,
    pub(super) life: &'a Life,
}

/// What the way down needs to know of the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) keep: Keep,
    pub(super) accepts_trailers: bool,
}

impl Download<'_> {
    pub(super) async fn run(&mut self) -> Result<Downloaded, Failure> {
        let mut buffer = self.first_bytes().await?;
        let mut end = self.receive(&mut buffer, 0).await?;
        self.marks.first_byte = Some(engine::now());
        loop {
            match self.parse(&buffer[..end])? {
                Parsed::Partial => {
                    self.upstream.set_deadline(Side::Read, Some(self.timeouts.read));
                    end += self.receive(&mut buffer, end).await?;
                }
                Parsed::Complete if self.head.status < 200 => {
                    self.interim(&buffer).await?;
                    let used = self.head.bytes;
                    buffer.copy_within(used..end, 0);
                    end -= used;
                    if end == 0 {
                        self.upstream.set_deadline(Side::Read, Some(self.timeouts.first_byte));
                        end = self.receive(&mut buffer, 0).await?;
                    }
                }
                Parsed::Complete => return self.relay(buffer, end).await,
            }
        }
    }

    /// Waits for the upstream to say something, or the client to be gone, without a buffer.
    async fn first_bytes(&self) -> Result<engine::Buf, Failure> {
        self.progress.phase.set(Phase::FirstByte);
        let ready = std::future::poll_fn(|context| {
            if let Poll::Ready(result) = self.upstream.poll_ready(context, Side::Read) {
                return Poll::Ready(result.map_err(|error| read_failure(&error)));
            }
            self.client.socket.poll_broken(context).map(|()| Err(Failure::ClientClosed))
        });
        ready.await.map(|()| engine::buffer())
    }

    async fn receive(&self, buffer: &mut [u8], from: usize) -> Result<usize, Failure> {
        let room = buffer.len().min(from.max(limits::RELAY_BYTES / 2) + limits::RELAY_BYTES / 2);
        match self.upstream.recv(&mut buffer[from..room]).await {
            Ok(0) if from == 0 => Err(Failure::UpstreamClosed),
            Ok(0) => Err(Failure::UpstreamBodyCut),
            Ok(count) => Ok(count),
            Err(error) => Err(read_failure(&error)),
        }
    }

    fn parse(&mut self, bytes: &[u8]) -> Result<Parsed, Failure> {
        let limits = HeadLimits {
            url_bytes_max: self.plan.limits.url_bytes_max,
            header_bytes_max: limits::UPSTREAM_HEADER_BYTES_MAX,
            headers_max: limits::UPSTREAM_HEADERS_MAX,
        };
        parse::response(bytes, self.request.method, &limits, self.head)
            .map_err(Failure::from_upstream)
            .and_then(|parsed| match self.head.status {
                // We never asked to switch protocols.
                101 if parsed == Parsed::Complete => Err(Failure::UpstreamMalformed),
                _ => Ok(parsed),
            })
    }

    /// 100, 103 and the like go to who can understand them (RFC 9110 section 15.2).
    async fn interim(&mut self, buffer: &[u8]) -> Result<(), Failure> {
        if self.request.version == Version::Http10 {
            return Ok(());
        }
        self.out.clear();
        let edits = const { &HeaderEdits::NONE };
        let (version, proxy_id) = (self.request.version, &self.plan.proxy_id);
        encode::response(
            self.out,
            self.head,
            buffer,
            Framing::None,
            Keep::Open,
            version,
            proxy_id,
            edits,
        );
        send_to_client(self.client, &[self.out, b"", b""], self.plan.timeouts.write, self.progress)
            .await
    }

    /// The final head, and the body behind it.
    async fn relay(&mut self, mut buffer: engine::Buf, end: usize) -> Result<Downloaded, Failure> {
        let framing = self.framing_for_client();
        let keep = self.keep_for_client(framing);
        self.out.clear();
        encode::response(
            self.out,
            self.head,
            &buffer,
            framing,
            keep,
            self.request.version,
            &self.plan.proxy_id,
            &self.route.response_headers,
        );
        self.progress.status.set(self.head.status);
        self.progress.phase.set(Phase::ResponseBody);
        let mut decoder = Decoder::new(self.head.framing);
        let finished = self.piece(&mut decoder, framing, &mut buffer[self.head.bytes..end]).await?;
        if finished {
            drop(buffer);
        } else {
            self.body(buffer, &mut decoder, framing).await?;
        }
        let promised = self.head.keep_alive_seconds.map(|s| Duration::from_secs(u64::from(s)));
        Ok(Downloaded { upstream: self.head.keep, client: keep, promised })
    }

    /// Sends what `out` holds and the body bytes among `received`. True at the end of the body.
    async fn piece(
        &mut self,
        decoder: &mut Decoder,
        framing: Framing,
        received: &mut [u8],
    ) -> Result<bool, Failure> {
        let decoded = decoder.decode(received).map_err(|_| Failure::UpstreamBodyMalformed)?;
        if decoded.end && decoded.consumed < received.len() {
            // Bytes behind the end belong to no request of ours: the connection is not used again.
            self.head.keep = Keep::Close;
        }
        self.tail.clear();
        if framing == Framing::Chunked {
            let trailers = if self.request.accepts_trailers { decoder.trailers() } else { b"" };
            frame(decoded.data, decoded.end, trailers, self.out, self.tail);
        }
        let parts = [&self.out[..], decoded.of(received), &self.tail[..]];
        self.progress.head_sent.set(true);
        send_to_client(self.client, &parts, self.plan.timeouts.write, self.progress).await?;
        self.progress.body_sent.set(self.progress.body_sent.get() + decoded.data as u64);
        self.out.clear();
        Ok(decoded.end)
    }

    async fn body(
        &mut self,
        mut buffer: engine::Buf,
        decoder: &mut Decoder,
        framing: Framing,
    ) -> Result<(), Failure> {
        let mut turns = 0;
        loop {
            self.upstream.set_deadline(Side::Read, Some(self.timeouts.read));
            if self.upstream.is_quiet() {
                drop(buffer);
                self.upstream.ready(Side::Read).await.map_err(|error| body_failure(&error))?;
                buffer = engine::buffer();
            }
            let received = self.upstream.recv(&mut buffer[..limits::RELAY_BYTES]).await;
            let received = received.map_err(|error| body_failure(&error))?;
            if received == 0 {
                return self.end_of_stream(framing).await;
            }
            if self.piece(decoder, framing, &mut buffer[..received]).await? {
                return Ok(());
            }
            turns += 1;
            if turns % limits::IO_PER_TURN == 0 {
                engine::yield_now().await;
            }
        }
    }

    /// The upstream closed: the end of a body that has no other mark, a cut for every other.
    async fn end_of_stream(&mut self, framing: Framing) -> Result<(), Failure> {
        if self.head.framing != Framing::UntilClose {
            return Err(Failure::UpstreamBodyCut);
        }
        if framing == Framing::Chunked {
            encode::last_chunk(self.out, b"");
            let parts = [&self.out[..], b"", b""];
            send_to_client(self.client, &parts, self.plan.timeouts.write, self.progress).await?;
        }
        Ok(())
    }

    /// A body whose end only closing would tell is chunked for those who understand it.
    fn framing_for_client(&self) -> Framing {
        match (self.head.framing, self.request.version) {
            (Framing::Chunked | Framing::UntilClose, Version::Http11) => Framing::Chunked,
            (Framing::Chunked | Framing::UntilClose, Version::Http10) => Framing::UntilClose,
            (framing @ (Framing::None | Framing::Length(_)), _) => framing,
        }
    }

    fn keep_for_client(&self, framing: Framing) -> Keep {
        if framing == Framing::UntilClose
            || self.life.is_draining()
            || !self.progress.uploaded.get()
        {
            return Keep::Close;
        }
        self.request.keep
    }
}

/// Frames `data` bytes as a chunk (RFC 9112 section 7.1): what stands before them is appended to `out`,
/// what stands behind them is written to `tail`.
fn frame(data: usize, end: bool, trailers: &[u8], out: &mut Vec<u8>, tail: &mut Vec<u8>) {
    tail.clear();
    if data > 0 {
        out.extend_from_slice(encode::chunk_prefix(data, &mut [0; encode::CHUNK_PREFIX_BYTES]));
        tail.extend_from_slice(encode::CRLF);
    }
    if end {
        encode::last_chunk(tail, trailers);
    }
}

pub(super) async fn send_to_client(
    client: &Client,
    parts: &[&[u8]; 3],
    patience: Duration,
    progress: &Progress,
) -> Result<(), Failure> {
    let sent = client.socket.send(parts, patience).await;
    let count = match &sent {
        Ok(()) => parts.iter().map(|part| part.len()).sum(),
        Err(error) => error.sent,
    };
    progress.sent.set(progress.sent.get() + count as u64);
    sent.map_err(|error| match error.cause.kind() {
        io::ErrorKind::TimedOut => Failure::ClientWriteTimeout,
        _ => Failure::ClientClosed,
    })
}

pub(super) fn write_failure(error: &SendError) -> Failure {
    match error.cause.kind() {
        io::ErrorKind::TimedOut => Failure::UpstreamWriteTimeout,
        _ => Failure::UpstreamReset,
    }
}

fn read_failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::TimedOut => Failure::FirstByteTimeout,
        _ => Failure::UpstreamReset,
    }
}

fn body_failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::TimedOut => Failure::UpstreamReadTimeout,
        _ => Failure::UpstreamBodyCut,
    }
}
