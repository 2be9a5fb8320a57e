//! Every bound in Corelane: why it is there, and what happens when it is reached.
//! Bounds that an operator may change are defaults of a configuration key; the others are laws.

use std::time::Duration;

// --- heads ---------------------------------------------------------------------------------

/// Longest request target. Longer is answered 414. Default of `limits.max_url_length`.
pub const URL_BYTES_MAX: usize = 8192;
/// Largest head, request line included. Larger is answered 431. Default of
/// `limits.max_header_size`.
pub const HEADER_BYTES_MAX: usize = 16384;
/// Most header lines in one head. More is answered 431. Default of `limits.max_headers_count`.
pub const HEADERS_MAX: usize = 100;
/// What the three limits above may be raised to: a head must fit into one buffer of the pool.
pub const HEADERS_MAX_CEILING: usize = 256;
/// Largest request body. Larger is answered 413. Default of `limits.max_body_size`; 0 is no limit.
pub const BODY_BYTES_MAX: u64 = 10 * 1024 * 1024;

// --- buffers -------------------------------------------------------------------------------

/// The pooled buffer: lent once a socket is readable, given back before the connection waits.
pub const BUFFER_BYTES: usize = 64 * 1024;
/// How much of a buffer a streaming body uses per read: measured best between 16 and 64 KiB.
pub const RELAY_BYTES: usize = 32 * 1024;

const _: () = assert!(HEADER_BYTES_MAX <= BUFFER_BYTES / 2);
const _: () = assert!(URL_BYTES_MAX < HEADER_BYTES_MAX);

// --- chunked bodies ------------------------------------------------------------------------

/// Longest chunk-size line, extensions included. Longer is a malformed body.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Largest trailer section. Larger is a malformed body.
pub const TRAILER_BYTES_MAX: usize = 8192;

// --- time ----------------------------------------------------------------------------------

/// How long a peer may take to send a whole head, from its first byte. Then 408.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a kept-alive client connection may be quiet. Then it is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two reads of a request body, and two reads of a response body.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer may take none of the bytes we have for it.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Establishing a connection to an endpoint. Then 504.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the whole request sent to the first byte of the answer. Then 504.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an exchange may wait for an upstream connection of a full pool. Then 503.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a pooled upstream connection is kept. Below the 5 s of the impatient servers.
pub const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// What SIGTERM gives running exchanges. Then they are cut.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Slowest body, in bytes a second, once the grace below is over. Slower is cut with 408.
pub const BODY_RATE_MIN: u64 = 240;
/// How long a body may be slow at its beginning.
pub const BODY_RATE_GRACE: Duration = Duration::from_secs(10);

// --- upstream ------------------------------------------------------------------------------

/// Most exchanges that wait for a connection of one cluster, in the whole process. Then 503.
pub const QUEUE_MAX: usize = 10_000;
/// What `limits.max_concurrent_connections`, `max_connections` and `max_pending` may be set to.
/// Above it the configuration is refused: a number that no machine reaches is a mistake.
pub const CONNECTIONS_CEILING: u32 = 10_000_000;

// --- configuration -------------------------------------------------------------------------

/// Largest configuration file: room for tens of thousands of routes. Larger is refused unread,
/// so that a wrong path (a device, a log) does not fill the memory.
pub const CONFIG_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most mistakes that are printed for one file; the rest is counted.
pub const CONFIG_ERRORS_MAX: usize = 100;
/// Longest duration in a configuration. Longer is refused: it is a mistake in the unit.
pub const CONFIG_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Most listeners: each has one socket per core. More are refused.
pub const LISTENERS_MAX: usize = 256;
/// Most cores that may be asked for. More are refused.
pub const CORES_MAX: usize = 1024;
/// Largest weight of an endpoint. Larger is refused: the sum over a cluster must stay small.
pub const WEIGHT_MAX: u32 = 65_535;

const _: () = assert!(LISTENERS_MAX <= u16::MAX as usize);
const _: () = assert!(CONFIG_BYTES_MAX < u32::MAX as usize);
