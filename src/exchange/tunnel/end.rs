//! One end of a tunnel, whatever carries it: a connection of its own, or one stream of several.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::engine::{SendError, Side};
use crate::tls::stream::Stream;

pub(super) trait End {
    /// From now on nobody but the tunnel says how long anything may take.
    fn begin(&self);

    /// Ready when there may be something to read, the end too.
    fn poll_ready(&self, context: &Context<'_>) -> Poll<io::Result<()>>;

    /// What there is, without waiting for more; 0 at the end.
    async fn try_recv(&self, room: &mut [u8]) -> Poll<io::Result<usize>>;

    /// All of it. `TimedOut` when the peer takes nothing for as long as `patience`.
    async fn send(&self, bytes: &[u8], patience: Duration) -> Result<(), SendError>;

    /// No more from us; the other way goes on.
    fn finish(&self);

    /// It ends now, and does not look as if all had been said.
    fn cut(&self);

    /// Where bytes can be carried by unread; `None`: others share the connection.
    fn connection(&self) -> Option<&Stream>;
}

impl End for Stream {
    fn begin(&self) {
        self.set_deadline(Side::Read, None);
    }

    fn poll_ready(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_ready(self, context, Side::Read)
    }

    async fn try_recv(&self, room: &mut [u8]) -> Poll<io::Result<usize>> {
        Stream::try_recv(self, room).await
    }

    async fn send(&self, bytes: &[u8], patience: Duration) -> Result<(), SendError> {
        Stream::send(self, &[bytes, b"", b""], patience).await
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
