//! A long body on its way from one socket to another, unread: through a pipe, in which the kernel
//! hands its pages on, or through a large buffer when there are no descriptors left for one.

use std::io;
use std::task::Poll;
use std::time::Duration;

use crate::engine::{self, Buf, Pipe, SendError, Side, Wait};
use crate::exchange::failure::Failure;
use crate::tls::stream::Stream;

pub(crate) struct Carrier {
    /// The kernel hands on what it has: nothing that is sealed on one side or the other.
    is_unread: bool,
    held: Held,
}

/// Lent while bytes are in hand: whoever is silent leaves them to others.
enum Held {
    Nothing,
    Pipe(Pipe),
    /// And how many bytes there are.
    Buffer(Buf, usize),
}

impl Carrier {
    pub(crate) fn new(from: &Stream, to: &Stream) -> Carrier {
        Carrier { is_unread: !from.is_secure() && !to.is_secure(), held: Held::Nothing }
    }

    /// Waits for bytes of `from`, and takes up to `most`; 0 at the end of the stream. `None`: it
    /// has waited, and a part of a record has come.
    pub(crate) async fn take(&mut self, from: &Stream, most: u64) -> io::Result<Option<usize>> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut has_waited = false;
        loop {
            if let Held::Nothing = self.held {
                if has_waited && from.is_secure() {
                    return Ok(None);
                }
                from.ready(Side::Read).await?;
                has_waited = true;
                self.held = self.lend();
            }
            let taken = match &mut self.held {
                Held::Nothing => Poll::Pending,
                Held::Pipe(pipe) => pipe.try_fill(from.bare(), most).await,
                Held::Buffer(buffer, held) => {
                    let room = buffer.len().min(most);
                    let received = from.try_recv(&mut buffer[..room]).await;
                    if let Poll::Ready(Ok(count)) = received {
                        *held = count;
                    }
                    received
                }
            };
            if let Poll::Ready(taken) = taken {
                return taken.map(Some);
            }
            // Also of a part of a record: however slowly it comes, no buffer waits for it.
            self.held = Held::Nothing;
        }
    }

    fn lend(&self) -> Held {
        let pipe = self.is_unread.then(|| Pipe::lend().ok()).flatten();
        pipe.map_or_else(|| Held::Buffer(engine::bulk_buffer(), 0), Held::Pipe)
    }

    /// Gives all that was taken to `to`, for as long as that is `bearable`.
    pub(crate) async fn give(
        &mut self,
        to: &Stream,
        patience: Duration,
        bearable: impl FnMut(Wait) -> bool,
    ) -> Result<(), SendError> {
        if let Held::Pipe(pipe) = &mut self.held {
            return pipe.empty(to.bare(), patience, bearable).await;
        }
        let Held::Buffer(buffer, held) = std::mem::replace(&mut self.held, Held::Nothing) else {
            return Ok(());
        };
        to.send_while(&[&buffer[..held], b"", b""], patience, bearable).await
    }
}

/// Of bytes between a client and an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

impl Direction {
    /// Whoever sends this way is gone.
    pub(crate) fn lost(self) -> Failure {
        match self {
            Direction::Up => Failure::ClientClosed,
            Direction::Down => Failure::UpstreamReset,
        }
    }

    /// Whoever receives this way does not.
    pub(crate) fn not_taken(self, error: &io::Error) -> Failure {
        match (self, error.kind() == io::ErrorKind::TimedOut) {
            (Direction::Up, true) => Failure::UpstreamWriteTimeout,
            (Direction::Up, false) => Failure::UpstreamReset,
            (Direction::Down, true) => Failure::ClientWriteTimeout,
            (Direction::Down, false) => Failure::ClientClosed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::task::{Context, Waker};

    use super::*;
    use crate::engine::{Doorbell, Placement, Socket};

    fn connection() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::plain(Socket::adopt(ours.into())), peer)
    }

    #[test]
    fn whoever_is_silent_leaves_pipes_and_buffers_to_others() {
        let core = std::thread::spawn(|| {
            engine::run(Placement::Anywhere, Doorbell::new().unwrap(), || async {
                for is_unread in [true, false] {
                    let (from, mut giver) = connection();
                    let (to, _taker) = connection();
                    let mut carrier = Carrier::new(&from, &to);
                    carrier.is_unread = is_unread;
                    giver.write_all(b"some").unwrap();
                    assert_eq!(carrier.take(&from, u64::MAX).await.unwrap(), Some(4));
                    carrier.give(&to, Duration::from_secs(9), |_| true).await.unwrap();
                    let mut waiting = Box::pin(carrier.take(&from, u64::MAX));
                    let mut context = Context::from_waker(Waker::noop());
                    assert!(waiting.as_mut().poll(&mut context).is_pending());
                    drop(waiting);
                    assert!(matches!(carrier.held, Held::Nothing), "unread: {is_unread}");
                }
            })
            .unwrap();
        });
        core.join().expect("the core ends cleanly");
    }

    #[test]
    fn with_and_without_a_pipe_the_same_bytes_arrive() {
        let core = std::thread::spawn(|| {
            engine::run(Placement::Anywhere, Doorbell::new().unwrap(), || async {
                for is_unread in [true, false] {
                    let (from, mut giver) = connection();
                    let (to, mut taker) = connection();
                    let mut carrier = Carrier::new(&from, &to);
                    carrier.is_unread = is_unread;
                    giver.write_all(b"the body and more").unwrap();
                    assert_eq!(carrier.take(&from, 8).await.unwrap(), Some(8));
                    carrier.give(&to, Duration::from_secs(9), |_| true).await.unwrap();
                    drop(giver);
                    assert_eq!(carrier.take(&from, u64::MAX).await.unwrap(), Some(9));
                    carrier.give(&to, Duration::from_secs(9), |_| true).await.unwrap();
                    assert_eq!(carrier.take(&from, u64::MAX).await.unwrap(), Some(0));
                    drop(to);
                    engine::yield_now().await;
                    let mut bytes = [0; 17];
                    taker.read_exact(&mut bytes).unwrap();
                    assert_eq!(&bytes, b"the body and more");
                }
            })
            .unwrap();
        });
        core.join().expect("the core ends cleanly");
    }
}
