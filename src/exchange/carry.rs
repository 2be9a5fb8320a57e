//! A long body on its way from one socket to another, unread: through a pipe, in which the kernel
//! hands its pages on, or through a large buffer when there are no descriptors left for one.

use std::io;
use std::task::Poll;
use std::time::Duration;

use crate::engine::{self, Buf, Pipe, SendError, Side, Wait};
use crate::exchange::failure::Failure;
use crate::tls::stream::Stream;

pub(crate) enum Carrier {
    Pipe(Pipe),
    /// Lent while bytes are in hand, and how many there are.
    Buffer(Option<Buf>, usize),
}

impl Carrier {
    /// The kernel can only hand on what it has: not what is sealed on one side or the other.
    pub(crate) fn new(from: &Stream, to: &Stream) -> Carrier {
        let pipe = (!from.is_secure() && !to.is_secure()).then(|| Pipe::lend().ok()).flatten();
        pipe.map_or(Carrier::Buffer(None, 0), Carrier::Pipe)
    }

    /// Waits for bytes of `from`, and takes up to `most`; 0 at the end of the stream.
    pub(crate) async fn take(&mut self, from: &Stream, most: u64) -> io::Result<usize> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        match self {
            Carrier::Pipe(pipe) => pipe.fill(from.bare(), most).await,
            Carrier::Buffer(buffer, held) => {
                loop {
                    from.ready(Side::Read).await?;
                    let lent = buffer.insert(engine::bulk_buffer());
                    let room = lent.len().min(most);
                    if let Poll::Ready(received) = from.try_recv(&mut lent[..room]).await {
                        *held = received?;
                        return Ok(*held);
                    }
                    // A part of a record: however slowly it comes, no buffer waits for it.
                    *buffer = None;
                }
            }
        }
    }

    /// Gives all that was taken to `to`, for as long as that is `bearable`.
    pub(crate) async fn give(
        &mut self,
        to: &Stream,
        patience: Duration,
        bearable: impl FnMut(Wait) -> bool,
    ) -> Result<(), SendError> {
        match self {
            Carrier::Pipe(pipe) => pipe.empty(to.bare(), patience, bearable).await,
            Carrier::Buffer(buffer, held) => {
                let Some(buffer) = buffer.take() else { return Ok(()) };
                to.send_while(&[&buffer[..*held], b"", b""], patience, bearable).await
            }
        }
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
    fn with_and_without_a_pipe_the_same_bytes_arrive() {
        let core = std::thread::spawn(|| {
            engine::run(Placement::Anywhere, Doorbell::new().unwrap(), || async {
                for is_unread in [true, false] {
                    let (from, mut giver) = connection();
                    let (to, mut taker) = connection();
                    let mut carrier = match is_unread {
                        true => Carrier::new(&from, &to),
                        false => Carrier::Buffer(None, 0),
                    };
                    giver.write_all(b"the body and more").unwrap();
                    assert_eq!(carrier.take(&from, 8).await.unwrap(), 8);
                    carrier.give(&to, Duration::from_secs(9), |_| true).await.unwrap();
                    drop(giver);
                    assert_eq!(carrier.take(&from, u64::MAX).await.unwrap(), 9);
                    carrier.give(&to, Duration::from_secs(9), |_| true).await.unwrap();
                    assert_eq!(carrier.take(&from, u64::MAX).await.unwrap(), 0);
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
