//! One way through a tunnel: bytes as they come, no faster than the other side takes them, and
//! between two frames what the proxy itself has to say. Waits without a buffer.

use std::io;
use std::pin::pin;
use std::task::Poll;

use crate::engine::{self, SendError};
use crate::exchange::carry::{Carrier, Direction};
use crate::exchange::failure::Failure;
use crate::exchange::tunnel::Tunnel;
use crate::exchange::tunnel::end::End;
use crate::exchange::tunnel::websocket::{Frames, Word};
use crate::limits;

pub(super) struct Pump<'t, F, T> {
    pub(super) tunnel: &'t Tunnel<'t>,
    pub(super) direction: Direction,
    pub(super) from: &'t F,
    pub(super) to: &'t T,
    pub(super) frames: Frames,
    /// We have said goodbye: what still comes is read and goes nowhere.
    pub(super) is_muted: bool,
    pub(super) turns: u32,
}

enum News {
    /// There may be something to read.
    Bytes(io::Result<()>),
    /// There is something to say.
    Word(Word),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// Nothing more for the moment.
    Quiet,
    Over,
}

impl<F: End, T: End> Pump<'_, F, T> {
    /// To its end. `early` has come already.
    pub(super) async fn run(mut self, early: Vec<u8>) -> Result<(), Failure> {
        if !early.is_empty() && self.hand_on(&early).await? == Flow::Over {
            return Ok(());
        }
        drop(early);
        loop {
            let flow = match self.news().await {
                News::Word(word) => self.say(word).await?,
                News::Bytes(Ok(())) => self.burst().await?,
                News::Bytes(Err(_)) => self.broken(self.direction.lost())?,
            };
            let is_answered = self.is_muted && self.frames.closed().is_some();
            if flow == Flow::Over || is_answered {
                return Ok(());
            }
        }
    }

    async fn news(&self) -> News {
        std::future::poll_fn(|context| {
            if let Some(word) = self.word() {
                return Poll::Ready(News::Word(word));
            }
            self.from.poll_ready(context).map(News::Bytes)
        })
        .await
    }

    /// What is to be said now, where a frame may begin.
    fn word(&self) -> Option<Word> {
        let is_closed = self.frames.closed().is_some();
        if self.is_muted || !(self.frames.is_between() || is_closed) {
            return None;
        }
        if self.tunnel.is_leaving() {
            return Some(Word::GoingAway);
        }
        let pings = self.direction == Direction::Down && !is_closed && self.tunnel.takes_ping();
        pings.then_some(Word::Ping)
    }

    async fn say(&mut self, word: Word) -> Result<Flow, Failure> {
        let is_goodbye = word == Word::GoingAway;
        self.is_muted |= is_goodbye;
        if is_goodbye && self.frames.closed().is_some() {
            return Ok(Flow::Quiet); // the peer has heard one from the other side
        }
        let mask = (self.direction == Direction::Up).then(|| self.tunnel.new_mask());
        let frame = word.frame(mask);
        if let Err(error) = self.give(&frame).await {
            return self.broken(self.direction.not_taken(&error.cause));
        }
        self.tunnel.has_said(word, self.direction, frame.len() as u64);
        Ok(Flow::Quiet)
    }

    /// All that there is now.
    async fn burst(&mut self) -> Result<Flow, Failure> {
        let mut buffer = engine::buffer();
        loop {
            let room = &mut buffer[..limits::RELAY_BYTES];
            let Poll::Ready(received) = self.from.try_recv(room).await else {
                return Ok(Flow::Quiet);
            };
            let count = match received {
                Ok(0) => return Ok(self.end()),
                Ok(count) => count,
                Err(_) => return self.broken(self.direction.lost()),
            };
            if self.hand_on(&buffer[..count]).await? == Flow::Over {
                return Ok(Flow::Over);
            }
            let is_long = self.frames.unseen() >= limits::SPLICE_BYTES_MAX as u64;
            if count == limits::RELAY_BYTES && is_long && !self.is_muted {
                drop(buffer);
                return self.carry().await;
            }
            if self.word().is_some() {
                return Ok(Flow::Quiet);
            }
            self.breathe().await;
        }
    }

    /// Bytes that have come. When we leave, those of the last whole frame are the last.
    async fn hand_on(&mut self, bytes: &[u8]) -> Result<Flow, Failure> {
        let was_closed = self.frames.closed().is_some();
        let whole = self.frames.follow(bytes);
        self.tunnel.has_heard(self.direction, bytes.len() as u64);
        let goodbye = self.frames.closed().filter(|_| !was_closed);
        if self.is_muted {
            return Ok(Flow::Quiet);
        }
        let last = whole.filter(|_| self.tunnel.is_leaving() && !self.frames.is_between());
        let passed = &bytes[..last.unwrap_or(bytes.len())];
        if let Err(error) = self.give(passed).await {
            return self.broken(self.direction.not_taken(&error.cause));
        }
        self.tunnel.has_given(self.direction, passed.len() as u64);
        if let Some(close) = goodbye {
            self.tunnel.note_goodbye(self.direction, close);
        }
        if last.is_some() { self.say(Word::GoingAway).await } else { Ok(Flow::Quiet) }
    }

    async fn give(&self, bytes: &[u8]) -> Result<(), SendError> {
        self.from.meanwhile(self.to.send(bytes, self.tunnel.patience)).await
    }

    /// Many bytes that nobody need look at.
    async fn carry(&mut self) -> Result<Flow, Failure> {
        let ends = self.from.connection().zip(self.to.connection());
        let Some((from, to)) = ends else { return Ok(Flow::Quiet) };
        let mut carrier = Carrier::new(from, to);
        while self.frames.unseen() > 0 {
            // No pipe is held while nothing comes.
            let taken = at_once(carrier.take(from, self.frames.unseen())).await;
            let Poll::Ready(taken) = taken else { return Ok(Flow::Quiet) };
            let count = match taken {
                // A part of a record is nothing yet.
                Ok(None) => return Ok(Flow::Quiet),
                Ok(Some(0)) => return Ok(self.end()),
                Ok(Some(count)) => count as u64,
                Err(_) => return self.broken(self.direction.lost()),
            };
            self.frames.pass(count);
            self.tunnel.has_heard(self.direction, count);
            if let Err(error) = carrier.give(to, self.tunnel.patience, |_| true).await {
                return self.broken(self.direction.not_taken(&error.cause));
            }
            self.tunnel.has_given(self.direction, count);
            self.breathe().await;
        }
        Ok(Flow::Quiet)
    }

    /// The sender has said all. The other way goes on.
    fn end(&self) -> Flow {
        self.tunnel.note_end(self.direction);
        self.to.finish();
        Flow::Over
    }

    /// Where goodbye was said it does not matter how a peer goes.
    fn broken(&self, failure: Failure) -> Result<Flow, Failure> {
        if self.tunnel.is_goodbye_said() { Ok(self.end()) } else { Err(failure) }
    }

    async fn breathe(&mut self) {
        self.turns += 1;
        if self.turns.is_multiple_of(limits::IO_PER_TURN) {
            engine::yield_now().await;
        }
    }
}

/// What a future gives without waiting.
async fn at_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}
