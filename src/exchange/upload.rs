//! Moving a request body up: counted, bounded, framed anew, no faster than the upstream takes it.

use std::io;
use std::time::{Duration, Instant};

use crate::engine::{self, SendError, Side};
use crate::exchange::Progress;
use crate::exchange::carry::Carrier;
use crate::exchange::client::{Client, Speaks};
use crate::exchange::count::Meter;
use crate::exchange::failure::Failure;
use crate::exchange::relay::frame;
use crate::grpc::call::Call as GrpcCall;
use crate::http::head::{Framing, RequestHead, Version};
use crate::http1::body::{Decoded, Decoder};
use crate::http1::server::Input;
use crate::http2::call::{Call, Came};
use crate::http2::upstream_call::Unsent;
use crate::limits;
use crate::plan::{Plan, Timeouts};
use crate::tls::stream::Stream;
use crate::upstream::lease::Upstream;

/// The body of a request on its way up.
pub(super) struct Upload {
    decoder: Decoder,
    framing: Framing,
    /// Goes up as it is: what it is sent on has framing of its own.
    is_framed: bool,
    /// Behind a body that came by a stream.
    trailers: Vec<u8>,
    /// What was sent on a stream, while that is little: if it is refused, it is sent again.
    kept: Option<Vec<u8>>,
    /// All of it has been taken from the client.
    ended: bool,
    received: u64,
    /// Bytes of a record that has come in part.
    of_record: u64,
    max: u64,
    /// How long we have waited for the client, all waits together.
    waited: Duration,
}

/// A piece of body at the front of the unused input.
pub(super) struct Piece {
    decoded: Decoded,
    pub(super) end: bool,
}

impl Piece {
    /// Bytes of the input that it stands for, framing included.
    pub(super) fn consumed(&self) -> usize {
        self.decoded.consumed
    }

    pub(super) fn data<'i>(&self, input: &'i mut Input) -> &'i [u8] {
        self.decoded.of(input.split().1)
    }
}

impl Upload {
    pub(super) fn new(head: &RequestHead, max: u64, upstream: &Upstream) -> Upload {
        let of_client = match (head.version, head.framing) {
            // A stream frames what it carries: nothing stands between the bytes.
            (Version::Http2, Framing::Chunked) => Framing::UntilClose,
            (Version::Http10 | Version::Http11 | Version::Http2, framing) => framing,
        };
        Upload {
            decoder: Decoder::new(of_client),
            framing: head.framing,
            is_framed: matches!(upstream, Upstream::Http2(_)),
            trailers: Vec::new(),
            kept: matches!(upstream, Upstream::Http2(_)).then(Vec::new),
            ended: false,
            received: 0,
            of_record: 0,
            max,
            waited: Duration::ZERO,
        }
    }

    /// All that was sent can be sent again.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Sends again what was sent before, behind the head. True: that is all of it.
    pub(super) async fn send_again(
        &mut self,
        upstream: &Upstream,
        (out, tail): (&mut Vec<u8>, &mut Vec<u8>),
        patience: Duration,
    ) -> Result<bool, SendError> {
        self.is_framed = matches!(upstream, Upstream::Http2(_));
        let trailers = if self.ended { self.trailers() } else { b"" };
        let data = self.kept.as_deref().unwrap_or_default();
        tail.clear();
        match upstream {
            Upstream::Http1(stream) => {
                if self.framing == Framing::Chunked {
                    frame(data.len(), self.ended, trailers, out, tail);
                }
                stream.send(&[out, data, tail], patience).await?;
                self.kept = None;
            }
            Upstream::Http2(call) => {
                call.send_piece(out, data, self.ended, trailers, patience).await?;
            }
        }
        Ok(self.ended)
    }

    /// What of the body is here already. Its chunk prefix is appended to `out`.
    /// What must follow it is written to `tail`.
    pub(super) fn piece(
        &mut self,
        input: &mut Input,
        out: &mut Vec<u8>,
        tail: &mut Vec<u8>,
        identity_headers: &[Box<[u8]>],
        call: Option<&GrpcCall>,
    ) -> Result<Piece, Failure> {
        let (_, unused) = input.split();
        let mut decoded = self.decoder.decode(unused).map_err(|_| Failure::BodyMalformed)?;
        self.received += decoded.data as u64;
        if self.max != 0 && self.received > self.max {
            return Err(Failure::BodyTooLarge);
        }
        if let Some(call) = call {
            let data = &mut unused[decoded.start..decoded.start + decoded.data];
            decoded.data = call.goes_up(data, decoded.end)?;
        }
        tail.clear();
        if self.framing == Framing::Chunked {
            self.decoder.drop_trailers(identity_headers);
        }
        if self.framing == Framing::Chunked && !self.is_framed {
            frame(decoded.data, decoded.end, self.trailers(), out, tail);
        }
        Ok(Piece { decoded, end: decoded.end })
    }

    /// Lines, once the end is here.
    fn trailers(&self) -> &[u8] {
        if self.trailers.is_empty() { self.decoder.trailers() } else { &self.trailers }
    }

    /// Sends the piece, and what frames it.
    pub(super) async fn send(
        &mut self,
        upstream: &Upstream,
        (out, tail): (&[u8], &[u8]),
        input: &mut Input,
        piece: &Piece,
        patience: Duration,
    ) -> Result<(), SendError> {
        let (_, unused) = input.split();
        let data = piece.decoded.of(unused);
        let call = match upstream {
            Upstream::Http1(stream) => {
                stream.send(&[out, data, tail], patience).await?;
                input.consume(piece.decoded.consumed);
                return Ok(());
            }
            Upstream::Http2(call) => call,
        };
        self.ended = piece.end;
        let from = self.keep(data);
        let trailers = if piece.end { self.trailers() } else { b"" };
        match from.zip(self.kept.as_deref()) {
            Some((from, kept)) => {
                input.consume(piece.decoded.consumed);
                call.send_piece(out, &kept[from..], piece.end, trailers, patience).await
            }
            None => {
                call.send_piece(out, data, piece.end, trailers, patience).await?;
                input.consume(piece.decoded.consumed);
                Ok(())
            }
        }
    }

    /// Where it was put; `None`: it is too much to be kept.
    fn keep(&mut self, data: &[u8]) -> Option<usize> {
        let kept = self.kept.as_mut()?;
        let from = kept.len();
        if from + data.len() > limits::REFUSED_BODY_BYTES_MAX {
            self.kept = None;
            return None;
        }
        kept.extend_from_slice(data);
        Some(from)
    }

    /// The pieces that are still to come from the client.
    pub(super) async fn rest(
        &mut self,
        client: &Client,
        input: &mut Input,
        upstream: &Upstream,
        plan: &Plan,
        meter: Meter<'_>,
    ) -> Result<(), UploadFailure> {
        let progress = meter.progress;
        let (mut out, mut tail) = (Vec::new(), Vec::new());
        let mut turns = 0;
        loop {
            if let (Speaks::Http1(client), Upstream::Http1(upstream)) = (&client.speaks, upstream)
                && self.is_long()
                && progress.call.is_none()
            {
                return self.carry(client, upstream, plan, meter).await;
            }
            self.receive(client, input, plan, progress).await.map_err(UploadFailure::Client)?;
            out.clear();
            let call = progress.call.as_deref();
            let piece = self.piece(input, &mut out, &mut tail, &plan.identity_headers, call);
            let piece = piece.map_err(UploadFailure::Client)?;
            // One that is here in full is slow no longer.
            if !piece.end && call.is_none() && self.is_too_slow(plan.timeouts.body_rate_min) {
                return Err(UploadFailure::Client(Failure::BodyTooSlow));
            }
            progress.note_request_body(piece.data(input));
            if piece.end {
                // What came with its last bytes belongs to the next request.
                let next = (input.unused().len() - piece.consumed()) as u64;
                progress.received.set(progress.received.get() - next);
            }
            self.send(
                upstream,
                (&out, &tail),
                input,
                &piece,
                write_patience(&plan.timeouts, progress),
            )
            .await
            .map_err(|error| UploadFailure::Upstream(write_failure(&error)))?;
            if piece.end {
                return Ok(());
            }
            meter.count();
            turns += 1;
            if turns % limits::IO_PER_TURN == 0 {
                engine::yield_now().await;
            }
        }
    }

    /// A long body of known length goes on unread. (A chunked one does not: where it ends is found
    /// by reading it.)
    fn is_long(&self) -> bool {
        matches!(self.framing, Framing::Length(_)) && self.received >= limits::BULK_AFTER
    }

    async fn carry(
        &mut self,
        client: &Stream,
        upstream: &Stream,
        plan: &Plan,
        meter: Meter<'_>,
    ) -> Result<(), UploadFailure> {
        let progress = meter.progress;
        let Framing::Length(length) = self.framing else { unreachable!("only those are long") };
        let mut carrier = Carrier::new(client, upstream);
        let mut turns = 0;
        while self.received < length {
            let asked = engine::now();
            client.set_deadline(Side::Read, Some(plan.timeouts.read));
            let taken = carrier.take(client, length - self.received).await;
            let Some(taken) = taken.transpose() else {
                self.note_part(client, asked, plan).map_err(UploadFailure::Client)?;
                continue;
            };
            let taken = self.note(taken, asked, progress).map_err(UploadFailure::Client)?;
            self.received += taken as u64;
            if self.received < length && self.is_too_slow(plan.timeouts.body_rate_min) {
                return Err(UploadFailure::Client(Failure::BodyTooSlow));
            }
            progress.request_carried(taken);
            carrier
                .give(upstream, plan.timeouts.write, |_| true)
                .await
                .map_err(|error| UploadFailure::Upstream(write_failure(&error)))?;
            meter.count();
            turns += 1;
            if turns % limits::IO_PER_TURN == 0 {
                engine::yield_now().await;
            }
        }
        Ok(())
    }

    async fn receive(
        &mut self,
        client: &Client,
        input: &mut Input,
        plan: &Plan,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let stream = match &client.speaks {
            Speaks::Http1(stream) => stream,
            Speaks::Http2(call) => {
                let asked = engine::now();
                let result = match call.receive(input, patience(plan, progress)).await {
                    Ok(Came::Bytes(count)) => Ok(count),
                    Ok(Came::End) => return self.end(call, plan),
                    Err(error) => Err(error),
                };
                return self.note(result, asked, progress).map(|_| ());
            }
        };
        loop {
            let asked = engine::now();
            stream.set_deadline(Side::Read, Some(patience(plan, progress)));
            if let Some(result) = input.receive_some(stream).await.transpose() {
                return self.note(result, asked, progress).map(|_| ());
            }
            self.note_part(stream, asked, plan)?;
        }
    }

    /// Of a record a part has come: the next has as long again, if all is not too slow.
    fn note_part(&mut self, client: &Stream, asked: Instant, plan: &Plan) -> Result<(), Failure> {
        self.waited += engine::now() - asked;
        self.of_record = client.undecided() as u64;
        let is_too_slow = self.is_too_slow(plan.timeouts.body_rate_min);
        if is_too_slow { Err(Failure::BodyTooSlow) } else { Ok(()) }
    }

    /// The stream has ended: what it is to bring it has brought.
    fn end(&mut self, call: &Call, plan: &Plan) -> Result<(), Failure> {
        self.decoder.end_of_input().map_err(|_| Failure::BodyMalformed)?;
        self.trailers = call.trailers(&plan.identity_headers)?;
        Ok(())
    }

    /// What a read from the client means: its bytes are counted, and so is the time it took.
    fn note(
        &mut self,
        result: io::Result<usize>,
        asked: Instant,
        progress: &Progress,
    ) -> Result<usize, Failure> {
        self.waited += engine::now() - asked;
        self.of_record = 0;
        let count = match result {
            Ok(0) => return Err(Failure::ClientClosed),
            Ok(count) => count,
            Err(error) => return Err(client_read_failure(&error)),
        };
        progress.received.set(progress.received.get() + count as u64);
        Ok(count)
    }

    /// A trickle that no timeout between two reads ever notices. Only what we waited for the client
    /// counts, not what the upstream took to take it.
    fn is_too_slow(&self, rate_min: u64) -> bool {
        let least = rate_min.saturating_mul(self.waited.as_secs());
        self.waited > limits::BODY_RATE_GRACE && self.received + self.of_record < least
    }
}

/// Whose fault ended an upload. The upstream's may be followed by an early answer, so it is not
/// final.
pub(super) enum UploadFailure {
    Client(Failure),
    Upstream(Failure),
}

pub(super) fn write_failure(error: &SendError) -> Failure {
    if let Some(failure) = Unsent::of(error) {
        return failure;
    }
    let late = error.cause.kind() == io::ErrorKind::TimedOut;
    if late { Failure::UpstreamWriteTimeout } else { Failure::UpstreamReset }
}

/// Between two reads. A call may be quiet for as long as something passes the other way.
fn patience(plan: &Plan, progress: &Progress) -> Duration {
    if progress.call.is_some() { limits::CONFIG_TIME_MAX } else { plan.timeouts.read }
}

/// Until the other side takes more. Who takes nothing of a call for a while, such as a handler that
/// thinks, is told to by windows: that is how calls are paced.
pub(super) fn write_patience(timeouts: &Timeouts, progress: &Progress) -> Duration {
    if progress.call.is_some() { limits::CONFIG_TIME_MAX } else { timeouts.write }
}

fn client_read_failure(error: &io::Error) -> Failure {
    let late = error.kind() == io::ErrorKind::TimedOut;
    if late { Failure::BodyTimeout } else { Failure::ClientClosed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(received: u64, waited: Duration) -> Upload {
        Upload {
            decoder: Decoder::new(Framing::None),
            framing: Framing::None,
            is_framed: false,
            trailers: Vec::new(),
            of_record: 0,
            kept: None,
            ended: false,
            received,
            max: 0,
            waited,
        }
    }

    #[test]
    fn a_body_may_be_slow_within_the_grace_only() {
        let grace = limits::BODY_RATE_GRACE;
        let later = grace + Duration::from_millis(1);
        let seconds = grace.as_secs();
        assert!(!upload(0, grace).is_too_slow(240));
        assert!(upload(0, later).is_too_slow(240));
        assert!(upload(240 * seconds - 1, later).is_too_slow(240));
        assert!(!upload(240 * seconds, later).is_too_slow(240));
        let part = Upload { of_record: 240 * seconds, ..upload(0, later) };
        assert!(!part.is_too_slow(240), "what of a record has come counts");
        assert!(!upload(0, later).is_too_slow(0), "0 is no minimum");
        assert!(upload(0, later).is_too_slow(u64::MAX));
    }
}
