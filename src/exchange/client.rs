//! The client of an exchange: a connection of HTTP/1, or one stream of a connection of HTTP/2.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::http2::call::Call;
use crate::shard::Origin;
use crate::tls::stream::Stream;

pub(crate) struct Client {
    pub(crate) speaks: Speaks,
    pub(crate) origin: Origin,
}

pub(crate) enum Speaks {
    Http1(Stream),
    Http2(Call),
}

impl Client {
    /// It has no descriptor of its own.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.speaks, Speaks::Http2(_))
    }

    /// Nothing more should begin on its connection.
    pub(crate) fn is_worn(&self) -> bool {
        match &self.speaks {
            Speaks::Http1(stream) => stream.is_worn(),
            Speaks::Http2(_) => false,
        }
    }

    /// It may begin to speak HTTP/2 without a word about it.
    #[cold]
    pub(crate) fn speaks_http2_unasked(&self) -> bool {
        self.origin.tls().is_none() && self.origin.door.opening().http2().enabled
    }

    /// Ready when nobody is there any more to be answered.
    pub(crate) fn poll_broken(&self, context: &mut Context<'_>) -> Poll<()> {
        match &self.speaks {
            Speaks::Http1(stream) => stream.poll_broken(context),
            Speaks::Http2(call) => call.poll_broken(context),
        }
    }

    /// Does what is done for it. What a stream says while that waits for others is held, so that it
    /// does not count against the streams beside it.
    pub(crate) async fn meanwhile<T>(&self, mut doing: Pin<&mut impl Future<Output = T>>) -> T {
        std::future::poll_fn(|context| {
            let done = doing.as_mut().poll(context);
            if let (Speaks::Http2(call), Poll::Pending) = (&self.speaks, &done) {
                call.hold(context);
            }
            done
        })
        .await
    }

    /// What comes of a wait on its behalf. `None`: nobody is there any more to be answered. Nothing
    /// is asked of a client whose wait is over at once.
    pub(crate) async fn awaits<T>(&self, mut wait: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let mut waits = false;
        std::future::poll_fn(|context| {
            if waits && self.poll_broken(context).is_ready() {
                return Poll::Ready(None);
            }
            let come = wait.as_mut().poll(context).map(Some);
            if come.is_pending() && !std::mem::replace(&mut waits, true) {
                return self.poll_broken(context).map(|()| None);
            }
            come
        })
        .await
    }

    /// Whether its stream was reset before anything was done for it: a request that is given up at
    /// once costs its endpoint nothing (CVE-2023-44487).
    pub(crate) fn has_given_up(&self) -> bool {
        match &self.speaks {
            Speaks::Http1(_) => false,
            Speaks::Http2(call) => {
                call.poll_broken(&mut Context::from_waker(Waker::noop())).is_ready()
            }
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        match &self.speaks {
            Speaks::Http1(stream) => stream.local_address(),
            Speaks::Http2(call) => call.local_address(),
        }
    }

    /// See [`Stream::set_reset_on_close`]. A stream that is cut says so anyhow.
    pub(crate) fn set_reset_on_close(&self, reset: bool) {
        match &self.speaks {
            Speaks::Http1(stream) => stream.set_reset_on_close(reset),
            Speaks::Http2(_) => {}
        }
    }
}
