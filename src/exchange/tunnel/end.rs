//! One end of a tunnel, whatever carries it: a connection of its own, or one stream of several.

use std::cell::{Cell, RefCell};
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::engine::{SendError, Side};
use crate::exchange::failure::Failure;
use crate::http2::call::Call;
use crate::http2::upstream_call::{Came, UpstreamCall};
use crate::tls::stream::Stream;

pub(super) trait End {
    /// From now on nobody but the tunnel says how long anything may take.
    fn begin(&self);

    /// Ready when there may be something to read, the end too.
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// What there is, without waiting for more; 0 at the end.
    async fn try_recv(&self, room: &mut [u8]) -> Poll<io::Result<usize>>;

    /// All of it. `TimedOut` when the peer takes nothing for as long as `patience`.
    async fn send(&self, bytes: &[u8], patience: Duration) -> Result<(), SendError>;

    /// Ready when the peer is gone; for when all was read that it had to say.
    fn poll_broken(&self, context: &mut Context<'_>) -> Poll<()>;

    /// No more from us; the other way goes on.
    fn finish(&self);

    /// After the end of both ways: until what was said has arrived, where only that can be waited
    /// for.
    async fn linger(&self, _until: Instant) {}

    /// It ends now, and does not look as if all had been said.
    fn cut(&self);

    /// Does what takes a while with what this end has said. What it says meanwhile may be held.
    async fn meanwhile<T>(&self, doing: impl Future<Output = T>) -> T {
        doing.await
    }

    /// Where bytes can be carried by unread; `None`: others share the connection.
    fn connection(&self) -> Option<&Stream>;
}

impl End for Stream {
    fn begin(&self) {
        self.set_deadline(Side::Read, None);
    }

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_ready(self, context, Side::Read)
    }

    async fn try_recv(&self, room: &mut [u8]) -> Poll<io::Result<usize>> {
        Stream::try_recv(self, room).await
    }

    async fn send(&self, bytes: &[u8], patience: Duration) -> Result<(), SendError> {
        Stream::send(self, &[bytes, b"", b""], patience).await
    }

    fn poll_broken(&self, context: &mut Context<'_>) -> Poll<()> {
        Stream::poll_broken(self, context)
    }

    fn finish(&self) {
        Stream::finish(self);
    }

    fn cut(&self) {
        self.set_reset_on_close(true);
    }

    fn connection(&self) -> Option<&Stream> {
        Some(self)
    }
}

/// RFC 8441: what the other side says comes as the body of a request, what is said to it goes as
/// that of an answer.
impl End for Call {
    fn begin(&self) {}

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_readable(context)
    }

    async fn try_recv(&self, room: &mut [u8]) -> Poll<io::Result<usize>> {
        std::future::poll_fn(|context| Poll::Ready(self.poll_read(context, room))).await
    }

    async fn send(&self, bytes: &[u8], patience: Duration) -> Result<(), SendError> {
        let mut sent = 0;
        while sent < bytes.len() {
            let rest = &bytes[sent..];
            let given = match self.until_room(rest.len(), patience, |_| true).await {
                Ok(room) => {
                    let count = room.min(rest.len());
                    self.send_data(&rest[..count], false).map(|()| count)
                }
                Err(failure) => Err(failure),
            };
            match given {
                Ok(count) => sent += count,
                Err(Failure::ClientWriteTimeout) => {
                    return Err(SendError { sent, cause: io::ErrorKind::TimedOut.into() });
                }
                Err(_) => return Err(SendError { sent, cause: io::ErrorKind::BrokenPipe.into() }),
            }
        }
        Ok(())
    }

    fn poll_broken(&self, context: &mut Context<'_>) -> Poll<()> {
        Call::poll_broken(self, context)
    }

    fn finish(&self) {
        // Of a stream that is gone nobody has to be told the end.
        let _ = self.send_end(b"");
    }

    /// A stream that has not ended is reset when it is dropped.
    fn cut(&self) {}

    fn connection(&self) -> Option<&Stream> {
        None
    }
}

/// RFC 8441 the other way round: what is said to the endpoint goes as the body of a request.
pub(super) struct UpstreamEnd<'l> {
    call: &'l UpstreamCall,
    /// What has come, and had no room yet.
    left: RefCell<Bytes>,
    ended: Cell<bool>,
}

impl<'l> UpstreamEnd<'l> {
    pub(super) fn new(call: &'l UpstreamCall) -> UpstreamEnd<'l> {
        UpstreamEnd { call, left: RefCell::default(), ended: Cell::new(false) }
    }
}

impl End for UpstreamEnd<'_> {
    fn begin(&self) {
        self.call.set_deadline(None);
    }

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.left.borrow().is_empty() && !self.ended.get() {
            match self.call.poll_body(context) {
                Poll::Ready(Ok(Came::Data { bytes, ends })) => {
                    self.left.replace(bytes);
                    self.ended.set(ends);
                }
                Poll::Ready(Ok(Came::End { .. })) => self.ended.set(true),
                Poll::Ready(Err(failure)) => {
                    return Poll::Ready(Err(io::Error::other(failure.label())));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    async fn try_recv(&self, room: &mut [u8]) -> Poll<io::Result<usize>> {
        std::future::poll_fn(|context| {
            Poll::Ready(self.poll_ready(context).map_ok(|()| {
                let mut left = self.left.borrow_mut();
                let count = left.len().min(room.len());
                room[..count].copy_from_slice(&left.split_to(count));
                self.call.taken(count);
                count
            }))
        })
        .await
    }

    async fn send(&self, bytes: &[u8], patience: Duration) -> Result<(), SendError> {
        self.call.send(bytes, false, patience).await
    }

    fn poll_broken(&self, context: &mut Context<'_>) -> Poll<()> {
        self.call.poll_broken(context)
    }

    async fn meanwhile<T>(&self, doing: impl Future<Output = T>) -> T {
        self.call.meanwhile(doing).await
    }

    fn finish(&self) {
        self.call.finish();
    }

    async fn linger(&self, until: Instant) {
        if !self.ended.get() {
            self.call.linger(until).await;
        }
    }

    /// A stream that has not ended is reset when it is dropped.
    fn cut(&self) {}

    fn connection(&self) -> Option<&Stream> {
        None
    }
}
