//! Bounds of HTTP/2 to endpoints.

use std::time::Duration;

/// Exchanges that share one HTTP/2 connection to an endpoint, unless `http2.max_concurrent_streams`
/// says otherwise. The next one opens another connection or waits.
pub const UPSTREAM_STREAMS: u32 = 100;
/// Most that may be written there.
pub const UPSTREAM_STREAMS_CEILING: u32 = 100_000;
/// Bytes of one response of HTTP/2 that are held here while its client takes none; the endpoint
/// then stops sending that one. Default of `http2.initial_window_size`.
pub const UPSTREAM_STREAM_WINDOW: u32 = 256 * 1024;
/// Most that may be written there.
pub const UPSTREAM_STREAM_WINDOW_CEILING: u32 = 64 * 1024 * 1024;
/// Of all streams of a connection together, which have windows of their own: it must never be what
/// stops one stream for another's sake.
pub const UPSTREAM_CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// DATA frames that are shorter than this are joined where they wait for a slow client.
pub const UPSTREAM_PIECE_BYTES: usize = 4 * 1024;
/// What the bookkeeping of small DATA frames that nobody has had the time to take may cost, per
/// connection: 256 bytes each. An endpoint that sends more of them is cut off.
pub const UPSTREAM_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of one request body that wait for the connection to take them. Then the client waits.
pub const UPSTREAM_SEND_BYTES_MAX: usize = 64 * 1024;
/// Streams that we have reset and whose late frames are still expected. Frames of others cost a
/// reset more.
pub const UPSTREAM_RESETS_KEPT: usize = 1024;
/// Resets that an endpoint may make us send in the life of a connection. Then the connection ends.
pub const UPSTREAM_RESETS_MAX: usize = 1 << 16;
/// What an endpoint gets to answer a PING. Default of `http2.keepalive_timeout`.
pub const UPSTREAM_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a request is sent again that an endpoint has refused before it looked at it.
pub const REFUSED_REPEATS_MAX: u8 = 3;
/// How long a core that owes another a shared connection begins nothing new on it, so that it can
/// end. One that does not end by then is used on, for as long again at least.
pub const SHARED_YIELD_TIME: Duration = Duration::from_millis(500);
/// How long a core that serves nobody any more waits until endpoints have been told goodbye, and
/// how often it looks. Then it ends without.
pub const GOODBYE_TIME: Duration = Duration::from_millis(250);
pub const GOODBYE_LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// A request that was given up after so long without an answer is reason to ask by PING whether its
/// endpoint is there.
pub const UPSTREAM_SILENCE_MAX: Duration = Duration::from_secs(1);
/// Bytes of a request body that are kept while they go to an endpoint of HTTP/2, so that a request
/// that is refused can be sent again. One that is longer is not.
pub const REFUSED_BODY_BYTES_MAX: usize = 16 * 1024;
/// Heads that an endpoint may send on a connection before anything is asked, as it were: what two
/// exchanges may be told while they wait. An endpoint that sends more than it may is cut off.
pub const UPSTREAM_HEADS_AHEAD: u32 = 256;
/// By how many more each request allows, interim ones and trailers included.
pub const UPSTREAM_HEADS_PER_REQUEST: u32 = 16;
/// How many there may be ahead at most: held for clients that take nothing, they cost memory.
pub const UPSTREAM_HEADS_AHEAD_MAX: u32 = 1024;
const _: () = assert!(UPSTREAM_HEADS_AHEAD >= 2 * super::INTERIM_RESPONSES_MAX);
