//! A response on its way down to a stream of HTTP/2. It is read as its client has room: who stalls
//! a stream holds what was read first, and neither a buffer nor the other streams.

use std::ops::Range;
use std::task::Poll;

use crate::engine::{self, Wait};
use crate::exchange::Progress;
use crate::exchange::failure::Failure;
use crate::exchange::record::Phase;
use crate::exchange::relay::{Download, Downloaded, body_failure, set_deadline};
use crate::exchange::upload::write_patience;
use crate::http::head::{Framing, Keep};
use crate::http1::body::{Decoded, Decoder};
use crate::http2::call::Call;
use crate::limits;
use crate::plan::Timeouts;
use crate::shard::workspace::{Work, Workspace};

impl Download<'_> {
    /// The final head, and the body behind it: `received` of the buffer is there already.
    pub(super) async fn relay_to(
        &mut self,
        call: &Call,
        mut work: Workspace,
        mut buffer: engine::Buf,
        received: Range<usize>,
    ) -> Result<Downloaded, Failure> {
        let edits = &self.route.response_headers;
        let framing = self.framing_for_client(&work.head);
        self.encode(&mut work, &buffer, framing, Keep::Open, edits);
        self.progress.note_response_head(self.plan.capturing(self.route), &work.out);
        self.progress.status.set(work.head.status);
        self.progress.phase.set(Phase::ResponseBody);
        let mut decoder = Decoder::new(work.head.framing);
        let decoded = self.decode(&mut work, &mut decoder, &mut buffer[received.clone()])?;
        let all = decoded.end && decoder.trailers().is_empty();
        self.send_head(call, &mut work, all && decoded.data == 0)?;
        self.give_of(call, buffer, received, decoded, all).await?;
        if !decoded.end {
            self.meter.count();
            self.rest(call, &mut work, &mut decoder).await?;
        } else if !all {
            call.send_end(decoder.trailers())?;
        }
        let (upstream, promised) = (work.head.keep, work.head.promised());
        Ok(Downloaded { upstream, client: Keep::Open, promised, replaced: None, switched: None })
    }

    pub(super) fn send_head(&self, call: &Call, work: &mut Work, end: bool) -> Result<(), Failure> {
        call.send_head(&work.out, end)?;
        self.progress.sent.set(self.progress.sent.get() + work.out.len() as u64);
        self.progress.head_sent.set(true);
        work.out.clear();
        Ok(())
    }

    fn decode(
        &self,
        work: &mut Work,
        decoder: &mut Decoder,
        received: &mut [u8],
    ) -> Result<Decoded, Failure> {
        let decoded = decoder.decode(received).map_err(|_| Failure::UpstreamBodyMalformed)?;
        if decoded.end && decoded.consumed < received.len() {
            // Bytes behind the end belong to no request of ours.
            work.head.keep = Keep::Close;
        }
        self.progress.note_response_body(decoded.of(received));
        Ok(decoded)
    }

    async fn rest(
        &self,
        call: &Call,
        work: &mut Work,
        decoder: &mut Decoder,
    ) -> Result<(), Failure> {
        let mut turns = 0;
        loop {
            self.until_room(call, limits::RELAY_BYTES).await?;
            set_deadline(self.upstream, self.progress, &self.timeouts);
            self.more_for(call).await?;
            let room = call.room(limits::RELAY_BYTES).min(limits::RELAY_BYTES);
            if room == 0 {
                continue;
            }
            let mut buffer = engine::buffer();
            // Of chunks a little more: their framing goes beside the data.
            let framing = if decoder.left().is_none() { limits::CHUNK_LINE_BYTES_MAX } else { 0 };
            let most = (room + framing).min(buffer.len());
            let Poll::Ready(received) = self.stream().try_recv(&mut buffer[..most]).await else {
                continue; // a part of a record
            };
            let received = received.map_err(|error| body_failure(&error))?;
            if received == 0 {
                if work.head.framing != Framing::UntilClose {
                    return Err(Failure::UpstreamBodyCut);
                }
                return call.send_end(b"");
            }
            let decoded = self.decode(work, decoder, &mut buffer[..received])?;
            let all = decoded.end && decoder.trailers().is_empty();
            self.give_of(call, buffer, 0..received, decoded, all).await?;
            if all {
                return Ok(());
            }
            if decoded.end {
                return call.send_end(decoder.trailers());
            }
            self.meter.count();
            turns += 1;
            if turns % limits::IO_PER_TURN == 0 {
                engine::yield_now().await;
            }
        }
    }

    /// Waits for the endpoint. However long it takes, the other streams have the room meanwhile;
    /// what is here already keeps it, else two streams would hand it to and fro.
    async fn more_for(&self, call: &Call) -> Result<(), Failure> {
        let mut more = std::pin::pin!(self.more());
        let in_line = call.in_line();
        // What was read to its end may have more that the core's next look at its sockets shows.
        let mut looks = limits::ROUNDS_PER_TURN + 1;
        let more = std::future::poll_fn(|context| {
            let more = more.as_mut().poll(context);
            if more.is_pending() {
                if looks > 0 && call.keeps_turn(context) {
                    looks -= 1;
                    context.waker().wake_by_ref();
                } else {
                    call.room(0);
                }
            }
            more
        });
        more.await.map_err(|lost| lost.failure(body_failure))?;
        // Still there: who has something to give asks for room next.
        std::mem::forget(in_line);
        Ok(())
    }

    async fn until_room(&self, call: &Call, wanted: usize) -> Result<usize, Failure> {
        until_room(call, wanted, &self.plan.timeouts, self.progress).await
    }

    /// The data of `received` bytes of a buffer, which waits for nobody's room.
    async fn give_of(
        &self,
        call: &Call,
        buffer: engine::Buf,
        received: Range<usize>,
        decoded: Decoded,
        end: bool,
    ) -> Result<(), Failure> {
        let data = decoded.of(&buffer[received]);
        if data.len() > call.room(data.len()) {
            let data = data.to_vec();
            drop(buffer);
            return self.give(call, &data, end).await;
        }
        self.give(call, data, end).await
    }

    /// As there is room for it. `end`: there is nothing behind it.
    pub(super) async fn give(&self, call: &Call, data: &[u8], end: bool) -> Result<(), Failure> {
        if data.is_empty() && end && !call.is_over() {
            // The end has come alone.
            return call.send_end(b"");
        }
        give(call, data, end, &self.plan.timeouts, self.progress).await?;
        self.progress.body_sent.set(self.progress.body_sent.get() + data.len() as u64);
        Ok(())
    }
}

async fn until_room(
    call: &Call,
    wanted: usize,
    timeouts: &Timeouts,
    progress: &Progress,
) -> Result<usize, Failure> {
    let rate_min = if progress.call.is_some() { 0 } else { timeouts.body_rate_min };
    let keeps_up = |wait: Wait| progress.pace.keeps_up(wait, rate_min);
    call.until_room(wanted, write_patience(timeouts, progress), keeps_up).await
}

async fn give(
    call: &Call,
    mut data: &[u8],
    end: bool,
    timeouts: &Timeouts,
    progress: &Progress,
) -> Result<(), Failure> {
    while !data.is_empty() {
        let room = until_room(call, data.len(), timeouts, progress).await?;
        let (now, later) = data.split_at(room.min(data.len()));
        call.send_data(now, end && later.is_empty())?;
        progress.sent.set(progress.sent.get() + now.len() as u64);
        data = later;
    }
    Ok(())
}

/// A whole reply of our own, as it was written for HTTP/1.
pub(super) async fn send_reply(
    call: &Call,
    reply: &[u8],
    timeouts: &Timeouts,
    progress: &Progress,
) -> Result<(), Failure> {
    let end =
        reply.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(reply.len(), |at| at + 4);
    let (head, body) = reply.split_at(end);
    call.send_head(head, body.is_empty())?;
    progress.sent.set(progress.sent.get() + head.len() as u64);
    give(call, body, true, timeouts, progress).await
}
