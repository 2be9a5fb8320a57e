//! Small pieces of bodies that nobody takes yet, as few large ones: what waits with the crate in
//! small pieces counts against the whole connection, whoever is to blame for the wait.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;

use crate::limits;

/// Of one body. The window of its stream bounds it: who sends is given no room for what is held.
#[derive(Default)]
pub(super) struct Held {
    pieces: VecDeque<Bytes>,
    /// Small ones behind those, as one.
    small: Vec<u8>,
}

impl Held {
    fn add(&mut self, bytes: Bytes) {
        if bytes.len() < limits::UPSTREAM_PIECE_BYTES {
            self.small.extend_from_slice(&bytes);
            return;
        }
        self.end_small();
        self.pieces.push_back(bytes);
    }

    fn end_small(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push_back(std::mem::take(&mut self.small).into());
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        if self.pieces.is_empty() {
            self.end_small();
        }
        self.pieces.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.small.is_empty()
    }

    /// How it ends is told once all before it was taken.
    pub(super) fn fill(&mut self, body: &mut RecvStream, context: &mut Context<'_>) {
        while let Poll::Ready(Some(Ok(bytes))) = body.poll_data(context) {
            self.add(bytes);
        }
    }

    /// What has come, as a whole where it came in small pieces: whoever sends those may be faster
    /// than they can be passed on one by one.
    pub(super) fn take(
        &mut self,
        body: &mut RecvStream,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, h2::Error>>> {
        if self.is_empty() {
            let first = match body.poll_data(context) {
                Poll::Ready(Some(Ok(first))) => first,
                nothing @ (Poll::Ready(None | Some(Err(_))) | Poll::Pending) => return nothing,
            };
            if first.len() >= limits::UPSTREAM_PIECE_BYTES || body.is_end_stream() {
                return Poll::Ready(Some(Ok(first)));
            }
            let Poll::Ready(Some(Ok(second))) = body.poll_data(context) else {
                return Poll::Ready(Some(Ok(first)));
            };
            self.add(first);
            self.add(second);
        }
        self.fill(body, context);
        // Frames may have nothing in them.
        Poll::Ready(Some(Ok(self.next().unwrap_or_default())))
    }
}
