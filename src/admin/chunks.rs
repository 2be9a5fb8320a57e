//! An answer of unknown length on its way out, piece by piece.

use std::io;
use std::time::Duration;

use crate::engine::Socket;

pub(super) struct Chunks<'a> {
    pub(super) socket: &'a Socket,
    /// Otherwise the end of the connection is the end of the body.
    pub(super) chunked: bool,
    /// Leaves with the first piece.
    pub(super) head: Vec<u8>,
    /// How long a piece may take.
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
        let sent = self.socket.send(&[&self.head, piece, tail], self.patience).await;
        self.head.clear();
        sent.map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }
}
