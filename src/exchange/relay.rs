//! Moving a response down: its head rewritten, its body streamed and framed anew. A buffer is lent
//! while bytes are in hand and given back before waiting, and the upstream is read no faster than
//! the client takes it.

use std::io;
use std::task::Poll;
use std::time::Duration;

use crate::engine::{self, SendError, Side};
use crate::exchange::carry::Carrier;
use crate::exchange::client::{Client, Speaks};
use crate::exchange::count::Meter;
use crate::exchange::error_page::Replaced;
use crate::exchange::failure::Failure;
use crate::exchange::record::{Marks, Phase};
use crate::exchange::{Progress, Uploading};
use crate::http::head::{Framing, Keep, Method, ResponseHead, Version};
use crate::http::headers::HeaderEdits;
use crate::http1::body::{Decoder, Left};
use crate::http1::encode;
use crate::http1::parse::{self, HeadLimits, Parsed};
use crate::limits;
use crate::plan::{ClusterTimeouts, Plan, Route, Timeouts};
use crate::shard::Shard;
use crate::shard::workspace::{Work, Workspace};
use crate::tls::stream::{PeerAlert, Stream};
use crate::upstream::lease::Upstream;

/// What a response leaves behind.
pub(super) struct Downloaded {
    /// The upstream connection may carry another request.
    pub(super) upstream: Keep,
    pub(super) client: Keep,
    pub(super) promised: Option<Duration>,
    /// Nothing of it was given to the client: a page of ours takes its place.
    pub(super) replaced: Option<Box<Replaced>>,
    /// A 101 that may be the one that was asked for, and what has come behind it; of a stream of
    /// HTTP/2, the head of a 2xx.
    #[expect(clippy::box_collection, reason = "8 bytes, not 24, of what few answers have")]
    pub(super) switched: Option<Box<Vec<u8>>>,
}

impl Downloaded {
    #[cold]
    pub(super) fn switched(answer: Vec<u8>) -> Downloaded {
        let (upstream, client) = (Keep::Close, Keep::Close);
        let switched = Some(Box::new(answer));
        Downloaded { upstream, client, promised: None, replaced: None, switched }
    }
}

/// The parts of an exchange that the way down uses, while the way up uses the others.
pub(super) struct Download<'a> {
    pub(super) shard: &'a Shard,
    pub(super) client: &'a Client,
    pub(super) upstream: &'a Upstream,
    pub(super) plan: &'a Plan,
    pub(super) route: &'a Route,
    pub(super) timeouts: ClusterTimeouts,
    pub(super) request: Request,
    pub(super) marks: &'a mut Marks,
    pub(super) progress: &'a Progress,
    pub(super) meter: Meter<'a>,
}

/// What the way down needs to know of the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) keep: Keep,
    pub(super) accepts_trailers: bool,
    /// It has asked for another protocol.
    pub(super) may_switch: bool,
}

/// Who is gone while we wait for the upstream.
pub(super) enum Lost {
    Client,
    Upstream(io::Error),
}

impl Lost {
    pub(super) fn failure(self, upstream: impl FnOnce(&io::Error) -> Failure) -> Failure {
        match self {
            Lost::Client => Failure::ClientClosed,
            Lost::Upstream(error) => upstream(&error),
        }
    }
}

impl<'a> Download<'a> {
    pub(super) async fn run(&mut self) -> Result<Downloaded, Failure> {
        match self.upstream {
            Upstream::Http1(_) => self.run_http1().await,
            // In a box: an exchange with HTTP/1 is not to be longer for its sake.
            Upstream::Http2(call) => Box::pin(self.run_http2(call)).await,
        }
    }

    /// Of one that speaks HTTP/1.
    pub(super) fn stream(&self) -> &'a Stream {
        match self.upstream {
            Upstream::Http1(stream) => stream,
            Upstream::Http2(_) => unreachable!("a stream of HTTP/2 has a way of its own"),
        }
    }

    async fn run_http1(&mut self) -> Result<Downloaded, Failure> {
        let (mut buffer, mut end) = self.first_bytes().await?;
        let mut work = self.shard.workspaces.take();
        self.answer_begins();
        let mut interim = 0;
        loop {
            match self.parse(&mut work.head, &buffer[..end])? {
                Parsed::Partial => {
                    if self.stream().is_quiet() {
                        // However slowly a head comes, it holds what has come and no more.
                        let held = buffer[..end].to_vec();
                        drop((work, buffer));
                        self.more().await.map_err(|lost| lost.failure(read_failure))?;
                        (work, buffer) = (self.shard.workspaces.take(), engine::buffer());
                        buffer[..end].copy_from_slice(&held);
                    }
                    // Nothing, where what has come is a part of a record: then it is quiet.
                    if let Poll::Ready(received) = self.receive(&mut buffer, end).await {
                        end += received?;
                    }
                }
                Parsed::Complete if work.head.status == 101 => {
                    return Ok(Downloaded::switched(buffer[..end].to_vec()));
                }
                Parsed::Complete if work.head.status < 200 => {
                    interim += 1;
                    if interim > limits::INTERIM_RESPONSES_MAX {
                        return Err(Failure::UpstreamMalformed);
                    }
                    self.interim(&mut work, &buffer).await?;
                    let used = work.head.bytes;
                    buffer.copy_within(used..end, 0);
                    end -= used;
                    set_deadline(self.upstream, self.progress, &self.timeouts);
                    if end == 0 {
                        // The next one may be long in coming, and nobody left to want it.
                        drop((work, buffer));
                        (buffer, end) = self.first_bytes().await?;
                        work = self.shard.workspaces.take();
                    }
                    self.answer_begins();
                }
                Parsed::Complete if work.head.status >= 400 && self.is_intercepted(&work.head) => {
                    return Ok(Replaced::begin(&work.head, &mut buffer[..end]));
                }
                Parsed::Complete => {
                    let start = work.head.bytes;
                    return match &self.client.speaks {
                        Speaks::Http1(stream) => self.relay(stream, work, buffer, end).await,
                        // In a box, so that exchanges of HTTP/1 stay small.
                        Speaks::Http2(call) => {
                            Box::pin(self.relay_to(call, work, buffer, start..end)).await
                        }
                    };
                }
            }
        }
    }

    /// The head that is final is the one that counts: 100 asks for the body, it answers nothing.
    pub(super) fn answer_begins(&mut self) {
        self.marks.first_byte = Some(engine::now());
    }

    /// Waits for the upstream to say something, or the client to be gone, without a buffer: what
    /// its TLS says to ours, such as tickets, may come long before.
    async fn first_bytes(&self) -> Result<(engine::Buf, usize), Failure> {
        if self.progress.upload.get() == Uploading::Whole {
            self.progress.phase.set(Phase::FirstByte);
        }
        loop {
            self.more().await.map_err(|lost| lost.failure(read_failure))?;
            let mut buffer = engine::buffer();
            if let Poll::Ready(received) = self.receive(&mut buffer, 0).await {
                return Ok((buffer, received?));
            }
        }
    }

    /// Until the upstream has something to say, or the client is known to be gone: then nobody
    /// wants to hear it.
    pub(super) async fn more(&self) -> Result<(), Lost> {
        std::future::poll_fn(|context| {
            if let Poll::Ready(result) = self.stream().poll_ready(context, Side::Read) {
                return Poll::Ready(result.map_err(Lost::Upstream));
            }
            self.client.poll_broken(context).map(|()| Err(Lost::Client))
        })
        .await
    }

    /// Reads head bytes behind those that are there: a head is refused long before there is no
    /// room. Pending: there are none yet.
    async fn receive(&self, buffer: &mut [u8], from: usize) -> Poll<Result<usize, Failure>> {
        let room = (from + limits::RELAY_BYTES).min(buffer.len());
        self.stream().try_recv(&mut buffer[from..room]).await.map(|received| match received {
            Ok(0) if from == 0 => Err(Failure::UpstreamClosed),
            Ok(0) => Err(Failure::UpstreamBodyCut),
            Ok(count) => Ok(count),
            Err(error) => Err(self.no_answer(&error)),
        })
    }

    /// One that ends by an alert of the endpoint's TLS does not want us: our certificate, for one.
    fn no_answer(&self, error: &io::Error) -> Failure {
        let Some(alert) = PeerAlert::of(error) else { return read_failure(error) };
        if let Some(address) = self.progress.endpoint.get() {
            let failure = Failure::UpstreamTlsFailed;
            self.shard.tell_of_handshake(failure, address, alert.to_string());
        }
        Failure::UpstreamTlsFailed
    }

    pub(super) fn parse(&self, head: &mut ResponseHead, bytes: &[u8]) -> Result<Parsed, Failure> {
        let limits = HeadLimits {
            url_bytes_max: self.plan.limits.url_bytes_max,
            header_bytes_max: limits::UPSTREAM_HEADER_BYTES_MAX,
            headers_max: limits::UPSTREAM_HEADERS_MAX,
        };
        let parsed = parse::response(bytes, self.request.method, &limits, head)
            .map_err(Failure::from_upstream)?;
        if parsed == Parsed::Complete && head.status == 101 && !self.request.may_switch {
            // We have not asked to switch protocols.
            return Err(Failure::UpstreamMalformed);
        }
        if parsed == Parsed::Complete
            && self.request.may_switch
            && self.request.version == Version::Http2
            && matches!(self.upstream, Upstream::Http1(_))
            && (200..300).contains(&head.status)
        {
            // To a CONNECT it would mean that there is a tunnel (RFC 8441 section 5).
            return Err(Failure::UpstreamMalformed);
        }
        Ok(parsed)
    }

    pub(super) fn is_intercepted(&self, head: &ResponseHead) -> bool {
        let page = self.plan.error_page(Some(self.route), head.status);
        page.is_some_and(|page| page.intercepts)
    }

    /// 100, 103 and the like go to who can understand them (RFC 9110 section 15.2).
    pub(super) async fn interim(&self, work: &mut Workspace, buffer: &[u8]) -> Result<(), Failure> {
        if self.request.version == Version::Http10 {
            return Ok(());
        }
        let none = const { &HeaderEdits::NONE };
        self.encode(work, buffer, Framing::None, Keep::Open, none);
        let stream = match &self.client.speaks {
            Speaks::Http1(stream) => stream,
            Speaks::Http2(call) => {
                let sent = call.send_interim(&work.out);
                work.out.clear();
                return sent;
            }
        };
        self.progress.interim.set(true);
        self.send(stream, work, b"").await?;
        self.progress.interim.set(false);
        Ok(())
    }

    pub(super) fn encode(
        &self,
        work: &mut Workspace,
        buffer: &[u8],
        framing: Framing,
        keep: Keep,
        edits: &HeaderEdits,
    ) {
        let Work { head, out, .. } = &mut **work;
        let (version, proxy_id) = (self.request.version, &self.plan.proxy_id);
        encode::response(out, head, buffer, framing, keep, version, proxy_id, edits);
    }

    /// The final head, and the body behind it.
    async fn relay(
        &mut self,
        stream: &Stream,
        mut work: Workspace,
        mut buffer: engine::Buf,
        end: usize,
    ) -> Result<Downloaded, Failure> {
        let framing = self.framing_for_client(&work.head);
        let keep = self.keep_for_client(framing);
        self.encode(&mut work, &buffer, framing, keep, &self.route.response_headers);
        self.progress.note_response_head(self.plan.capturing(self.route), &work.out);
        self.progress.status.set(work.head.status);
        self.progress.framing.set(framing);
        self.progress.phase.set(Phase::ResponseBody);
        let mut decoder = Decoder::new(work.head.framing);
        let start = work.head.bytes;
        let by_closing = framing == Framing::UntilClose;
        if by_closing {
            // Else the client would take a cut, by whatever it comes about, for the end.
            self.client.set_reset_on_close(true);
        }
        let first =
            self.piece(stream, &mut work, &mut decoder, framing, &mut buffer[start..end]).await;
        if by_closing && !self.progress.head_sent.get() {
            // It was no good before the client got any of it: it gets an answer of ours.
            self.client.set_reset_on_close(false);
        }
        if first? {
            drop(buffer);
        } else {
            self.meter.count();
            self.body(stream, &mut work, buffer, &mut decoder, framing).await?;
        }
        if by_closing {
            self.client.set_reset_on_close(false);
        }
        let (upstream, promised) = (work.head.keep, work.head.promised());
        Ok(Downloaded { upstream, client: keep, promised, replaced: None, switched: None })
    }

    /// Sends what `out` holds and the body bytes among `received`. True at the end of the body.
    async fn piece(
        &self,
        stream: &Stream,
        work: &mut Workspace,
        decoder: &mut Decoder,
        framing: Framing,
        received: &mut [u8],
    ) -> Result<bool, Failure> {
        let decoded = decoder.decode(received).map_err(|_| Failure::UpstreamBodyMalformed)?;
        if decoded.end && decoded.consumed < received.len() {
            // Bytes behind the end belong to no request of ours: the connection is not used again.
            work.head.keep = Keep::Close;
        }
        let (data, trailers) = (decoded.of(received), decoder.trailers());
        self.pass(stream, work, framing, data, decoded.end.then_some(trailers)).await?;
        Ok(decoded.end)
    }

    /// Sends what `out` holds and a piece of the body. `end`: it is the last, with these trailers.
    pub(super) async fn pass(
        &self,
        stream: &Stream,
        work: &mut Workspace,
        framing: Framing,
        data: &[u8],
        end: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let (turned, end) = self.turned(data, end)?;
        let mut data = &*turned;
        let Work { out, tail, .. } = &mut **work;
        if framing == Framing::Chunked {
            let trailers = end.filter(|_| self.request.accepts_trailers).unwrap_or_default();
            frame(data.len(), end.is_some(), trailers, out, tail);
        }
        let length = data.len() as u64;
        self.progress.note_response_body(data);
        if data.len() <= limits::COALESCE_BYTES_MAX {
            // One plain send is cheaper than gathering, for as much as is copied in no time.
            out.extend_from_slice(data);
            out.append(tail);
            data = b"";
        }
        self.progress.head_sent.set(true);
        self.send(stream, work, data).await?;
        self.progress.body_sent.set(self.progress.body_sent.get() + length);
        self.call_given()
    }

    /// Sends `out`, `data` and `tail`, and empties the workspace's two.
    async fn send(
        &self,
        stream: &Stream,
        work: &mut Workspace,
        data: &[u8],
    ) -> Result<(), Failure> {
        let parts = [&work.out[..], data, &work.tail[..]];
        send_to_client(stream, &parts, &self.plan.timeouts, self.progress).await?;
        work.out.clear();
        work.tail.clear();
        Ok(())
    }

    async fn body(
        &self,
        stream: &Stream,
        work: &mut Workspace,
        mut buffer: engine::Buf,
        decoder: &mut Decoder,
        framing: Framing,
    ) -> Result<(), Failure> {
        let mut turns = 0;
        loop {
            if self.progress.body_sent.get() >= limits::BULK_AFTER
                && let Some(left) = decoder.left()
                && framing != Framing::Chunked
            {
                drop(buffer);
                return self.carry(stream, left).await;
            }
            set_deadline(self.upstream, self.progress, &self.timeouts);
            if self.stream().is_quiet() || buffer.len() < self.buffer_bytes() {
                drop(buffer);
                self.more().await.map_err(|lost| lost.failure(body_failure))?;
                buffer = self.buffer();
            }
            let room = relay_room(&buffer);
            let Poll::Ready(received) = self.stream().try_recv(&mut buffer[..room]).await else {
                continue; // a part of a record: now it is quiet
            };
            let received = received.map_err(|error| body_failure(&error))?;
            if received == 0 {
                return self.end_of_stream(stream, work, framing).await;
            }
            if self.piece(stream, work, decoder, framing, &mut buffer[..received]).await? {
                return Ok(());
            }
            self.meter.count();
            turns += 1;
            if turns % limits::IO_PER_TURN == 0 {
                engine::yield_now().await;
            }
        }
    }

    /// The rest of a long body that nobody need look at.
    async fn carry(&self, stream: &Stream, left: Left) -> Result<(), Failure> {
        let mut carrier = Carrier::new(self.stream(), stream);
        let (mut left, mut turns) = (left, 0);
        while left != Left::Bytes(0) {
            set_deadline(self.upstream, self.progress, &self.timeouts);
            if self.stream().is_quiet() {
                self.more().await.map_err(|lost| lost.failure(body_failure))?;
            }
            let taken = carrier.take(self.stream(), left.most()).await;
            let Some(taken) = taken.map_err(|error| body_failure(&error))? else { continue };
            match left {
                Left::Bytes(_) if taken == 0 => return Err(Failure::UpstreamBodyCut),
                Left::All if taken == 0 => return Ok(()),
                Left::Bytes(bytes) => left = Left::Bytes(bytes - taken as u64),
                Left::All => {}
            }
            self.progress.response_carried(taken);
            let timeouts = &self.plan.timeouts;
            let keeps_up = |wait| self.progress.pace.keeps_up(wait, timeouts.body_rate_min);
            let given = carrier.give(stream, timeouts.write, keeps_up).await;
            note_sent(given, taken, timeouts, self.progress)?;
            self.progress.body_sent.set(self.progress.body_sent.get() + taken as u64);
            self.meter.count();
            turns += 1;
            if turns % limits::IO_PER_TURN == 0 {
                engine::yield_now().await;
            }
        }
        Ok(())
    }

    fn buffer(&self) -> engine::Buf {
        let long = self.buffer_bytes() == limits::BULK_BYTES;
        if long { engine::bulk_buffer() } else { engine::buffer() }
    }

    /// Of the buffer that suits the body by now.
    fn buffer_bytes(&self) -> usize {
        let long = self.progress.body_sent.get() >= limits::BULK_AFTER;
        if long { limits::BULK_BYTES } else { limits::BUFFER_BYTES }
    }

    /// The upstream closed: the end of a body that has no other mark, a cut for every other.
    async fn end_of_stream(
        &self,
        stream: &Stream,
        work: &mut Workspace,
        framing: Framing,
    ) -> Result<(), Failure> {
        if work.head.framing != Framing::UntilClose {
            return Err(Failure::UpstreamBodyCut);
        }
        if framing == Framing::Chunked {
            encode::last_chunk(&mut work.out, b"");
            self.send(stream, work, b"").await?;
        }
        Ok(())
    }

    /// A body whose end only closing would tell is chunked for those who understand it.
    pub(super) fn framing_for_client(&self, head: &ResponseHead) -> Framing {
        match (head.framing, self.request.version) {
            (Framing::Chunked | Framing::UntilClose, Version::Http11) => Framing::Chunked,
            (Framing::Chunked | Framing::UntilClose, Version::Http10 | Version::Http2) => {
                Framing::UntilClose
            }
            (framing @ (Framing::None | Framing::Length(_)), _) => framing,
        }
    }

    pub(super) fn keep_for_client(&self, framing: Framing) -> Keep {
        if framing == Framing::UntilClose
            || self.client.origin.is_closing(self.shard)
            || self.client.is_worn()
            || self.progress.upload.get() != Uploading::Whole
        {
            return Keep::Close;
        }
        self.request.keep
    }
}

/// Frames `data` bytes as a chunk (RFC 9112 section 7.1): what stands before them is appended to
/// `out`, what stands behind them is written to `tail`.
pub(super) fn frame(
    data: usize,
    end: bool,
    trailers: &[u8],
    out: &mut Vec<u8>,
    tail: &mut Vec<u8>,
) {
    tail.clear();
    if data > 0 {
        out.extend_from_slice(encode::chunk_prefix(data, &mut [0; encode::CHUNK_PREFIX_BYTES]));
        tail.extend_from_slice(encode::CRLF);
    }
    if end {
        encode::last_chunk(tail, trailers);
    }
}

/// How much of a buffer one read of a body uses.
fn relay_room(buffer: &engine::Buf) -> usize {
    if buffer.len() == limits::BUFFER_BYTES { limits::RELAY_BYTES } else { buffer.len() }
}

/// How long the upstream may take from now on: for the whole of its next head, however the bytes of
/// that trickle in, or for the next bytes of its body. An interim head shows that the request is
/// worked on, so the next head has as long again; how often is bounded.
pub(super) fn set_deadline(upstream: &Upstream, progress: &Progress, timeouts: &ClusterTimeouts) {
    let has_head = progress.status.get() != 0;
    let patience = match progress.upload.get() {
        // It may have nothing to say before it has heard more; the way up has deadlines of its own.
        Uploading::Untouched | Uploading::Going => None,
        Uploading::Whole | Uploading::Broken if has_head => Some(timeouts.read),
        Uploading::Whole => Some(timeouts.first_byte),
        // One that takes no more has answered already, or never will.
        Uploading::Broken => Some(Duration::ZERO),
    };
    match upstream {
        Upstream::Http1(stream) => stream.set_deadline(Side::Read, patience),
        Upstream::Http2(call) => call.set_deadline(patience),
    }
}

pub(super) async fn send_to_client(
    stream: &Stream,
    parts: &[&[u8]; 3],
    timeouts: &Timeouts,
    progress: &Progress,
) -> Result<(), Failure> {
    let keeps_up = |wait| progress.pace.keeps_up(wait, timeouts.body_rate_min);
    let sent = stream.send_while(parts, timeouts.write, keeps_up).await;
    note_sent(sent, parts.iter().map(|part| part.len()).sum(), timeouts, progress)
}

/// Counts what the client has taken of `total` bytes.
fn note_sent(
    sent: Result<(), SendError>,
    total: usize,
    timeouts: &Timeouts,
    progress: &Progress,
) -> Result<(), Failure> {
    let count = match &sent {
        Ok(()) => total,
        Err(error) => error.sent,
    };
    progress.sent.set(progress.sent.get() + count as u64);
    sent.map_err(|error| {
        if error.cause.kind() != io::ErrorKind::TimedOut {
            Failure::ClientClosed
        } else if progress.pace.is_too_slow(timeouts.body_rate_min) {
            Failure::ClientTooSlow
        } else {
            Failure::ClientWriteTimeout
        }
    })
}

fn read_failure(error: &io::Error) -> Failure {
    let late = error.kind() == io::ErrorKind::TimedOut;
    if late { Failure::FirstByteTimeout } else { Failure::UpstreamReset }
}

pub(super) fn body_failure(error: &io::Error) -> Failure {
    let late = error.kind() == io::ErrorKind::TimedOut;
    if late { Failure::UpstreamReadTimeout } else { Failure::UpstreamBodyCut }
}
