//! One connection to an endpoint: made, watched, ended. It knows nothing of clusters: who may use
//! it, and how many at a time, is for [`crate::upstream::multiplex`] to say.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong};

use crate::engine::{self, Sleep};
use crate::http2::io::{Line, Wire};
use crate::limits;
use crate::plan::ClusterHttp2;
use crate::tls::stream::Stream;

/// Driven by one task.
pub(crate) struct Connection {
    inner: h2::client::Connection<Wire, Bytes>,
    line: Rc<Line>,
    keepalive: Keepalive,
}

/// Gives streams of a connection out. Once all of these are gone, and all streams have ended, it
/// says goodbye and closes.
pub(crate) struct Sender(SendRequest<Bytes>);

/// What a turn of a connection has shown.
pub(crate) enum Turn {
    /// It goes on.
    Goes,
    /// The answer to a PING has come.
    Lives,
    /// It is over, however.
    Over,
}

impl Connection {
    /// Says what has to be said first (RFC 9113 section 3.4), and waits until the endpoint has said
    /// its own: then it does speak HTTP/2, and how many streams it takes is known. `patience`: how
    /// long it may take nothing of what is written.
    pub(crate) async fn begin(
        stream: Stream,
        settings: &ClusterHttp2,
        patience: Duration,
    ) -> Result<(Connection, Sender), h2::Error> {
        let wire = Wire::of_endpoint(stream, patience);
        let line = wire.line();
        let (sender, mut inner) = builder(settings).handshake(wire).await?;
        let pings = inner.ping_pong();
        let keepalive = Keepalive {
            pings,
            interval: settings.keepalive_interval,
            patience: settings.keepalive_timeout,
            next: None,
            answer: None,
        };
        let mut connection = Connection { inner, line, keepalive };
        std::future::poll_fn(|context| {
            let ended = connection.poll_inner(context);
            if connection.inner.max_concurrent_send_streams() != UNSAID {
                return Poll::Ready(Ok(()));
            }
            ended.map(|ended| Err(ended.err().unwrap_or_else(left)))
        })
        .await?;
        Ok((connection, Sender(sender)))
    }

    /// Lets it do what there is to do. `asks`: there is reason to ask whether the endpoint is
    /// there; `in_use`: somebody waits for it.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, asks: bool, in_use: bool) -> Turn {
        if self.poll_inner(context).is_ready() {
            return Turn::Over;
        }
        match self.keepalive.poll(context, asks, in_use) {
            Pulse::None => Turn::Goes,
            Pulse::Felt => Turn::Lives,
            Pulse::Lost => Turn::Over,
        }
    }

    fn poll_inner(&mut self, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.line.begin_turn();
        let ended = Pin::new(&mut self.inner).poll(context);
        if self.line.abuse().is_some() {
            return Poll::Ready(Err(h2::Error::from(h2::Reason::ENHANCE_YOUR_CALM)));
        }
        // What was gathered leaves at once, also where it is the last.
        match self.line.poll_flush(context) {
            Poll::Ready(Err(error)) if ended.is_pending() => {
                Poll::Ready(Err(h2::Error::from(broken(&error))))
            }
            Poll::Ready(_) | Poll::Pending => ended,
        }
    }

    /// What the endpoint allows at the moment.
    pub(crate) fn streams_max(&self) -> u32 {
        u32::try_from(self.inner.max_concurrent_send_streams()).unwrap_or(u32::MAX)
    }
}

impl Sender {
    /// For one stream.
    pub(crate) fn for_one(&self) -> SendRequest<Bytes> {
        self.0.clone()
    }

    /// The endpoint has said that it knows requests for tunnels (RFC 8441 section 3).
    pub(crate) fn takes_tunnels(&self) -> bool {
        self.0.is_extended_connect_protocol_enabled()
    }

    /// The endpoint has said that it takes no more (GOAWAY), or the connection is dead.
    pub(crate) fn is_refused(&mut self, context: &mut Context<'_>) -> bool {
        matches!(self.0.poll_ready(context), Poll::Ready(Err(_)))
    }
}

fn builder(settings: &ClusterHttp2) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(settings.window)
        .initial_connection_window_size(limits::UPSTREAM_CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_send_buffer_size(limits::UPSTREAM_SEND_BYTES_MAX)
        .data_frame_budget(limits::UPSTREAM_FRAME_BYTES_MAX)
        .max_concurrent_reset_streams(limits::UPSTREAM_RESETS_KEPT)
        .max_local_error_reset_streams(Some(limits::UPSTREAM_RESETS_MAX))
        .initial_max_send_streams(UNSAID);
    builder
}

/// Until its SETTINGS have come, no endpoint has this for a maximum: not even one that has none.
const UNSAID: usize = usize::MAX - 1;

/// HTTP/2 counts 32 bytes for each line more than are in it (RFC 9113 section 6.5.2).
const HEADER_LIST_BYTES_MAX: u32 =
    (limits::UPSTREAM_HEADER_BYTES_MAX + 32 * limits::UPSTREAM_HEADERS_MAX) as u32;

/// It has closed before it has said what it is.
fn left() -> h2::Error {
    h2::Error::from(h2::Reason::NO_ERROR)
}

fn broken(error: &std::io::Error) -> h2::Reason {
    if error.kind() == std::io::ErrorKind::TimedOut {
        h2::Reason::SETTINGS_TIMEOUT
    } else {
        h2::Reason::CONNECT_ERROR
    }
}

/// Whether the endpoint is still there (RFC 9113 section 6.7).
struct Keepalive {
    pings: Option<PingPong>,
    /// `None`: it is asked for a reason only.
    interval: Option<Duration>,
    patience: Duration,
    next: Option<Sleep>,
    /// A PING is on its way; how long its answer may be.
    answer: Option<Sleep>,
}

enum Pulse {
    None,
    Felt,
    Lost,
}

impl Keepalive {
    fn poll(&mut self, context: &mut Context<'_>, asks: bool, in_use: bool) -> Pulse {
        let Some(pings) = &mut self.pings else { return Pulse::None };
        let mut pulse = Pulse::None;
        if let Some(late) = &mut self.answer {
            match pings.poll_pong(context) {
                Poll::Ready(Ok(_)) => (self.answer, self.next, pulse) = (None, None, Pulse::Felt),
                Poll::Ready(Err(_)) => return Pulse::Lost,
                Poll::Pending if Pin::new(late).poll(context).is_ready() => return Pulse::Lost,
                Poll::Pending => return Pulse::None,
            }
        }
        if !in_use {
            // An idle one is asked by nobody: some servers take that for an attack.
            self.next = None;
        } else if self.next.is_none() {
            self.next = self.interval.map(engine::sleep);
        }
        let is_due = match &mut self.next {
            Some(next) => Pin::new(next).poll(context).is_ready(),
            None => false,
        };
        let asks = asks && matches!(pulse, Pulse::None);
        if (asks || is_due) && pings.send_ping(Ping::opaque()).is_ok() {
            let mut late = engine::sleep(self.patience);
            let _ = Pin::new(&mut late).poll(context);
            let _ = pings.poll_pong(context);
            (self.answer, self.next) = (Some(late), None);
        }
        pulse
    }
}
