//! A long body on its way from one socket to another, unread: through a pipe, in which the kernel
//! hands its pages on, or through a large buffer when there are no descriptors left for one.

use std::io;
use std::time::Duration;

use crate::engine::{self, Buf, Pipe, SendError, Side, Socket, Wait};

pub(super) enum Carrier {
    Pipe(Pipe),
    /// Lent while bytes are in hand, and how many there are.
    Buffer(Option<Buf>, usize),
}

impl Carrier {
    pub(super) fn new() -> Carrier {
        Pipe::lend().map_or(Carrier::Buffer(None, 0), Carrier::Pipe)
    }

    /// Waits for bytes of `from`, and takes up to `most`; 0 at the end of the stream.
    pub(super) async fn take(&mut self, from: &Socket, most: u64) -> io::Result<usize> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        match self {
            Carrier::Pipe(pipe) => pipe.fill(from, most).await,
            Carrier::Buffer(buffer, held) => {
                from.ready(Side::Read).await?;
                let buffer = buffer.insert(engine::bulk_buffer());
                let room = buffer.len().min(most);
                *held = from.recv(&mut buffer[..room]).await?;
                Ok(*held)
            }
        }
    }

    /// Gives all that was taken to `to`, for as long as that is `bearable`.
    pub(super) async fn give(
        &mut self,
        to: &Socket,
        patience: Duration,
        bearable: impl FnMut(Wait) -> bool,
    ) -> Result<(), SendError> {
        match self {
            Carrier::Pipe(pipe) => pipe.empty(to, patience, bearable).await,
            Carrier::Buffer(buffer, held) => {
                let Some(buffer) = buffer.take() else { return Ok(()) };
                to.send_while(&[&buffer[..*held], b"", b""], patience, bearable).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::engine::{Doorbell, Placement};

    fn connection() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Socket::adopt(ours.into()), peer)
    }

    #[test]
    fn with_and_without_a_pipe_the_same_bytes_arrive() {
        let core = std::thread::spawn(|| {
            engine::run(Placement::Anywhere, Doorbell::new().unwrap(), || async {
                for mut carrier in [Carrier::new(), Carrier::Buffer(None, 0)] {
                    let (from, mut giver) = connection();
                    let (to, mut taker) = connection();
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
