//! Answers on their way out: whole, or piece by piece where nobody knows their length. Each has an
//! end in time, however slowly it is read: a place is not held by a byte now and then.

use std::io;
use std::time::Duration;

use crate::control;
use crate::engine;
use crate::limits;
use crate::tls::stream::Stream;

pub(super) struct Chunks<'a> {
    pub(super) socket: &'a Stream,
    /// Otherwise the end of the connection is the end of the body.
    pub(super) chunked: bool,
    /// Leaves with the first piece.
    pub(super) head: Vec<u8>,
    /// How long a piece may take, beside what its length allows.
    pub(super) patience: Duration,
}

impl Chunks<'_> {
    pub(super) async fn piece(&mut self, piece: &[u8]) -> io::Result<()> {
        let size = if self.chunked { format!("{:x}\r\n", piece.len()) } else { String::new() };
        self.send(size.as_bytes(), piece).await
    }

    pub(super) async fn end(&mut self) -> io::Result<()> {
        self.send(if self.chunked { b"0\r\n\r\n" } else { b"" }, &[]).await
    }

    /// The head, when nothing else is there yet.
    pub(super) async fn begin(&mut self) -> io::Result<()> {
        self.send(&[], &[]).await
    }

    async fn send(&mut self, frame: &[u8], piece: &[u8]) -> io::Result<()> {
        self.head.extend_from_slice(frame);
        let tail: &[u8] = if self.chunked && !piece.is_empty() { b"\r\n" } else { b"" };
        let sent = send(self.socket, &[&self.head, piece, tail], self.patience).await;
        self.head.clear();
        sent
    }
}

/// All of it in `patience`, and what a slow line needs for so many bytes.
pub(super) async fn send(
    socket: &Stream,
    parts: &[&[u8]; 3],
    patience: Duration,
) -> io::Result<()> {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let time = patience + Duration::from_secs(bytes as u64 / limits::ADMIN_RATE_MIN);
    match control::first(socket.send(parts, patience), engine::sleep(time)).await {
        control::Either::First(Ok(())) => Ok(()),
        control::Either::First(Err(_)) | control::Either::Second(()) => {
            Err(io::ErrorKind::ConnectionAborted.into())
        }
    }
}
