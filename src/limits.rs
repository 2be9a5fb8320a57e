//! Every bound in Corelane: why it is there, and what happens when it is reached.
//! Bounds that an operator may change are defaults of a configuration key; the others are laws.
// tidy: long because a bound is looked for in one place, by its name.

mod certificates;
mod http2;
mod http2_abuse;
mod tls;
mod upstream_http2;

pub use certificates::*;
pub use http2::*;
pub use http2_abuse::*;
pub use tls::*;
pub use upstream_http2::*;

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
/// Largest request body. Larger is answered 413. Bodies stream, whatever their size, so by default
/// there is no limit. Default of `limits.max_body_size`; 0 is no limit.
pub const BODY_BYTES_MAX: u64 = 0;

// --- error pages ---------------------------------------------------------------------------

/// Largest error page. Larger is a configuration error: every error would be answered with it.
pub const ERROR_PAGE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of all error pages that are in files. More is a configuration error: each configuration
/// that is in use holds them.
pub const ERROR_PAGES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most error pages, those of all routes together. More is a configuration error.
pub const ERROR_PAGES_MAX: usize = 10_000;
/// Most variables in one page. More is a configuration error: with the bound below, this one is
/// what a hostile request can make a page grow by.
pub const ERROR_PAGE_VARIABLES_MAX: usize = 64;
/// Bytes of one variable of a page, before they are escaped. The rest of a longer one is not shown.
pub const ERROR_PAGE_FIELD_BYTES_MAX: usize = 1024;
/// Bytes of an upstream's error that are read and thrown away once a page has taken its place. Of a
/// longer one the connection is closed.
pub const REPLACED_BODY_BYTES_MAX: u64 = 64 * 1024;
/// How long they may take to come: the client has its page, but its next request waits. Then the
/// connection is closed.
pub const REPLACED_BODY_TIMEOUT: Duration = Duration::from_millis(100);

// --- buffers -------------------------------------------------------------------------------

/// The pooled buffer: lent once a socket is readable, given back before the connection waits.
pub const BUFFER_BYTES: usize = 64 * 1024;
/// Body bytes that are copied behind their head, so that both leave in one plain send.
pub const COALESCE_BYTES_MAX: usize = 2048;
/// Workspaces that a core keeps. More are needed only by exchanges whose peers are slow to take
/// bytes.
pub const WORKSPACES_KEPT: usize = 256;
/// How much of a buffer a streaming body uses per read: measured best between 16 and 64 KiB.
pub const RELAY_BYTES: usize = 32 * 1024;

/// The buffer of a long body: fewer and larger reads, once more is under way than any cache holds.
pub const BULK_BYTES: usize = 256 * 1024;
/// A body is long after so many bytes. Below, smaller reads measured better.
pub const BULK_AFTER: u64 = 2 * 1024 * 1024;
/// Most bytes that one splice of a long body takes out of a socket: they stay in the kernel, in
/// pages that count as the socket's, until the other side takes them.
pub const SPLICE_BYTES_MAX: usize = 256 * 1024;
/// Pipes that a core has in use at once, two descriptors each, for pieces of long bodies and of TLS
/// that passes through; the kernel gives a user 1024 pipes of full size. Pieces beyond are copied
/// through buffers.
pub const PIPES_LENT_MAX: usize = 64;
/// Empty pipes that a core keeps for the next piece. More are closed.
pub const PIPES_KEPT: usize = 32;
/// A request of at most so many bytes is copied while its exchange waits, and gives its buffer
/// back. So does every head that has not come whole yet.
pub const INPUT_COPY_BYTES_MAX: usize = 4096;
/// What is copied gets room in multiples of this, so that a head which comes byte by byte is not
/// allocated anew for each.
pub const INPUT_COPY_STEP: usize = 1024;

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
/// How long a gRPC call may pass nothing either way. Then UNAVAILABLE. Default of
/// `routes.grpc.idle_timeout`: long, since streams wait for something to happen.
pub const GRPC_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a browser may remember the answer to a preflight: as long as any of them does.
pub const CORS_MAX_AGE: Duration = Duration::from_secs(2 * 3600);
/// Between two reads of a request body, and two reads of a response body once the request has left.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer may take none of the bytes we have for it.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Establishing a connection to an endpoint. Then 504.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the whole request sent to the whole head of the answer; each interim head (1xx) gives the
/// next one as long again. Then 504.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an exchange may wait for an upstream connection of a full pool. Then 503.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a pooled upstream connection is kept. Below the 5 s of the impatient servers.
pub const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// What SIGTERM gives running exchanges. Then they are cut.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Slowest body, in bytes a second, once the grace below is over. A slower request body is cut with
/// 408, a slower reader of a response without a word.
pub const BODY_RATE_MIN: u64 = 240;
/// How long a request body may be slow at its beginning. A client that takes a response too slowly
/// may fall behind by what it would have taken in so long.
pub const BODY_RATE_GRACE: Duration = Duration::from_secs(10);
/// How often a send that waits looks whether the peer has taken anything.
pub const WRITE_LOOK_INTERVAL: Duration = Duration::from_secs(5);

// --- tunnels -------------------------------------------------------------------------------

/// How long neither side of a WebSocket, or of another connection that has gone over to another
/// protocol, may say anything. Then both are told, and it is closed. Default of
/// `routes.websocket.idle_timeout`: well above what applications ping at.
pub const TUNNEL_IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// Pings more often than this are refused: a mistake in the unit, and a load for every client.
pub const WEBSOCKET_PING_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Most protocols that one route may list. More are refused.
pub const UPGRADES_MAX: usize = 16;
/// What a WebSocket that is to end has for its last frame, both goodbyes, and in a stream of HTTP/2
/// for the endpoint's end of it. Then it is cut.
pub const TUNNEL_PARTING_TIME: Duration = Duration::from_secs(1);
/// How much longer than a drain a process lives for that.
pub const TUNNELS_PARTING_TIMEOUT: Duration = Duration::from_millis(1500);
/// How often it looks whether they are done.
pub const TUNNELS_PARTING_LOOK_INTERVAL: Duration = Duration::from_millis(10);

// --- access log ----------------------------------------------------------------------------

/// Bytes of one field in an access-log line. The rest of a longer one is not logged.
pub const ACCESS_LOG_FIELD_BYTES_MAX: usize = 8192;
/// A batch of lines leaves its core once it holds this much. One line may overshoot it.
pub const ACCESS_LOG_BATCH_BYTES: usize = 64 * 1024;
/// A batch leaves its core once its first line is this old, so that `tail -f` shows what happens.
pub const ACCESS_LOG_BATCH_AGE_MAX: Duration = Duration::from_millis(200);
/// Batches that wait for the publisher, per core: 4 MiB, a quarter of a second of a fast core's
/// lines. More are dropped and counted.
pub const ACCESS_LOG_BATCHES_MAX: usize = 64;
/// Bytes of lines that wait for the publisher, per core: lines that hold bodies are long. More are
/// dropped and counted, or their connections wait (`logging.access.on_full`).
pub const ACCESS_LOG_QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How soon a core whose log is full, and may not lose a line, looks for room again.
pub const ACCESS_LOG_ROOM_INTERVAL: Duration = Duration::from_millis(5);
/// How soon a log that may not lose a line is tried again after an error.
pub const ACCESS_LOG_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// How long a core that ends waits for room for the last lines of such a log. Then they are lost.
pub const ACCESS_LOG_LAST_WAIT: Duration = Duration::from_secs(2);
const _: () = assert!(ACCESS_LOG_LAST_WAIT.as_secs() < CORE_STOP_TIMEOUT.as_secs());
/// How often the publisher looks for orders and other logs' lines while a pipe takes none.
pub const LOG_STALL_LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// A pipe that takes nothing for so long is complained about, or given up as the process ends.
pub const LOG_STALL_MAX: Duration = Duration::from_secs(1);
const _: () = assert!(LOG_STALL_MAX.as_secs() < PUBLISHER_STOP_TIMEOUT.as_secs());
/// How often a log that is rotated is looked at: who has put it aside, and how long it is.
pub const LOG_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often a log that cannot be written is complained about.
pub const LOG_COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes of bodies that are kept for the log, in the whole process; each core has its share. Beyond
/// it bodies are logged shorter, and marked as truncated.
pub const CAPTURED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest body that a log may be told to show. Larger is refused: a log is no store.
pub const LOGGED_BODY_BYTES_CEILING: u64 = 1024 * 1024;
/// Nobody sees the bytes of a long body behind its beginning.
const _: () = assert!(LOGGED_BODY_BYTES_CEILING < BULK_AFTER);
/// What of a body is logged. Default of `logging.access.request_body.max`.
pub const LOGGED_BODY_BYTES: u64 = 64 * 1024;
/// Captures that a core keeps for its next exchanges.
pub const CAPTURES_KEPT: usize = 64;
/// Lines of the process's own log that wait for standard error. More are dropped and counted.
pub const STDERR_LINES_MAX: usize = 4096;
/// How long the end of the process waits for standard error to take what was logged.
pub const STDERR_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// The same after a panic, which may be the last that the process does.
pub const PANIC_FLUSH_TIMEOUT: Duration = Duration::from_millis(50);
/// How long a standard error that is not to be waited for, and has no room, is left alone.
pub const STDERR_RETRY_INTERVAL: Duration = Duration::from_millis(10);
/// Lines that wait for the audit log or the error log, per sender. More are dropped; the next line
/// that is written, or the process's own log, says how many.
/// Lines that wait for the audit log or the error log, per sender. More are dropped and
/// counted (`tls_proxy_log_dropped_total`).
pub const AUDIT_LINES_MAX: usize = 256;
/// Security events of data cores in the audit log, per second, in the whole process; each core has
/// its share, and at least one. More are counted, and the next line says how many there were.
pub const AUDIT_EVENTS_PER_SECOND: usize = 64;
/// Requests that the admin API refuses at its door and the audit log tells of, per second: those of
/// strangers, and as many again of known tokens, which strangers must not drown out. More are
/// counted, and the next line says how many there were.
pub const AUDIT_REFUSALS_PER_SECOND: usize = 8;
/// Characters of what a request to the admin API asked for and was told that its audit line holds.
/// The rest is cut, and an ellipsis says so.
pub const AUDIT_TEXT_CHARS_MAX: usize = 300;
/// A rotated log has at least so many bytes: a batch is never split.
pub const ROTATE_BYTES_MIN: u64 = 64 * 1024;
/// Most rotated files that are kept of a log.
pub const ROTATE_BACKUPS_MAX: usize = 1000;
/// How soon a rotation that failed is tried again.
pub const ROTATE_RETRY_INTERVAL: Duration = Duration::from_secs(60);

// --- tracing -------------------------------------------------------------------------------

/// The share of traces that is recorded. Default of `tracing.sample`.
pub const TRACE_SHARE: f64 = 0.01;
/// Bytes of one field of a span that a client fills. The rest of a longer one is not told.
pub const TRACE_FIELD_BYTES_MAX: usize = 1024;
/// A batch of records leaves its core once it holds this much. One record may overshoot it.
pub const TRACE_BATCH_BYTES: usize = 32 * 1024;
/// Batches that wait for an exporter, per core: 4 MiB, or 25 seconds where little is recorded.
/// More are dropped and their spans counted. They wait here while a collector is slow or away.
pub const TRACE_BATCHES_MAX: usize = 128;
/// Records that one request to a collector takes; one batch may overshoot it. Spans are a few times
/// longer than their record, and collectors take some MiB.
pub const TRACE_REQUEST_BYTES: usize = 256 * 1024;
/// A request is sent once its first record is this old.
pub const TRACE_REQUEST_AGE_MAX: Duration = Duration::from_secs(1);
/// What a collector gets for one request. Default of `tracing.otlp.timeout`.
pub const TRACE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often one request is sent to a collector that is away or asks to come later. Then its spans
/// are given up and counted.
pub const TRACE_TRIES_MAX: u32 = 5;
/// What the exporter waits after the first failure; doubled with every further one.
pub const TRACE_BACKOFF_MIN: Duration = Duration::from_millis(500);
/// The longest wait between two tries.
pub const TRACE_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A longer `Retry-After` counts as this.
pub const TRACE_RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Bytes of a collector's answer that are read. A longer one ends its connection.
pub const TRACE_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How often a collector that cannot be reached is complained about.
pub const TRACE_COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);
/// How long the end of the process, and an exporter that a reload replaced, has for the last spans.
/// Those that are left are lost.
pub const TRACE_STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Exporters of earlier plans that send their last spans, two to a plan at most. While there are as
/// many, the next reload waits: for `TRACE_STOP_TIMEOUT` at most.
pub const EXPORTERS_ENDING_MAX: usize = 8;
/// How often a reload that waits for them looks.
pub const EXPORTERS_ENDING_LOOK_INTERVAL: Duration = Duration::from_millis(20);

// --- upstream ------------------------------------------------------------------------------

/// Most exchanges that wait for a connection of one cluster, in the whole process. Then 503.
pub const QUEUE_MAX: usize = 10_000;

// --- engine --------------------------------------------------------------------------------

/// Entries that one enter may submit. A full queue is handed over early.
pub const RING_SUBMISSIONS: u32 = 1024;
/// Completions that fit between two turns. More wait in the kernel; polls that end are armed again.
pub const RING_COMPLETIONS: u32 = 8192;
/// Rounds of woken tasks before the core looks at its ring again, so that tasks that keep waking
/// each other cannot shut out the network.
pub const ROUNDS_PER_TURN: u32 = 16;
/// Reads or writes one connection may do before it lets the others run.
pub const IO_PER_TURN: u32 = 16;
/// Connections taken from one listener before the others run.
pub const ACCEPTS_PER_TURN: usize = 64;
/// Connections that the kernel may accept ahead of us, per listener. Beyond it they stay in its
/// queue, where they cost no descriptor; those of the same turn still come.
pub const ACCEPTED_MAX: usize = 128;
/// How often a full submission queue is handed to a kernel that refuses it. Then the core panics.
pub const SUBMIT_TRIES: usize = 10_000;
/// Longest sleep of a core with nothing to do.
pub const SLEEP_MAX: Duration = Duration::from_secs(60);
/// Messages waiting between two cores. A sender that finds the queue full gets its
/// letter back.
pub const MAILBOX_MESSAGES: usize = 4096;
/// How soon a letter between the control core and a data core is tried again, when a box was full.
pub const LETTER_RETRY_INTERVAL: Duration = Duration::from_millis(10);
/// Threads that look names up for the control core, and as many that do all else that blocks: a
/// dead name server must not hold up a reload.
pub const BLOCKING_THREADS: usize = 4;
/// How much they give way to the cores: a tenth of the CPU time where there is too little.
pub const BLOCKING_NICE: i32 = 10;
/// A client connection that has been quiet for this long gives its working memory back.
pub const PARK_AFTER: Duration = Duration::from_millis(200);
/// How often a core that waits for connections itself still gives one to another core that waits.
pub const SLOT_YIELD_INTERVAL: Duration = Duration::from_millis(10);
/// How often a core with exchanges that wait for a connection looks for a slot untold, and asks the
/// other cores again: a letter that finds its box full is lost.
pub const SLOT_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often a busy core keeps house: hands over log lines, and every few times the rest.
pub const HOUSEKEEPING_INTERVAL: Duration = ACCESS_LOG_BATCH_AGE_MAX;
/// Housekeeping rounds between two sweeps of pools and buffers: about a second.
pub const POOL_SWEEP_BEATS: u64 = 5;
/// Housekeeping rounds without a request after which a core gives freed memory back, and again
/// after twice as many: soon, because what a burst has left is more than its connections need.
pub const TRIM_BEATS: u64 = 2;
/// Quiet sweeps in a row after which a core stops keeping house until something happens.
pub const QUIET_BEATS: u32 = 4;
// --- routing -------------------------------------------------------------------------------

/// Most pairs of a host and a path that all routes list. More is a configuration error: the tables
/// are indexed with 32 bits, and every pair costs memory.
pub const ROUTE_PATTERNS_MAX: usize = 1_000_000;
/// How much before its deadline a call may be ended by an endpoint that was told it, and counts in
/// milliseconds. What fails within is the deadline's doing, and told as DEADLINE_EXCEEDED.
pub const GRPC_DEADLINE_EARLY: Duration = Duration::from_millis(2);
/// Longest request of `grpc.health.v1.Health`: a service's name and its framing. Longer is no such
/// request.
pub const GRPC_HEALTH_REQUEST_BYTES_MAX: usize = 1024;
/// Longest name of a gRPC service or method. Longer is a configuration error.
pub const GRPC_NAME_BYTES_MAX: usize = 256;
/// Tries of a gRPC call where its answer may be tried again. Default of `routes.grpc.max_attempts`.
pub const GRPC_ATTEMPTS: u32 = 2;
/// Most that it may be set to: each holds the request, and loads a cluster that is failing.
pub const GRPC_ATTEMPTS_MAX: u32 = 5;
/// Longest path pattern of a route. Longer is a configuration error.
pub const PATH_PATTERN_BYTES_MAX: usize = 2048;
/// How often the log says that a limit keeps clients waiting, or that none can be accepted.
pub const SHORTAGE_COMPLAINT_INTERVAL: Duration = Duration::from_secs(5);
/// How often a core tells the control core so.
pub const SHORTAGE_LETTER_INTERVAL: Duration = Duration::from_secs(1);
/// How soon a listener looks again for which the kernel has no descriptor or memory.
pub const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// How soon a listener that is at the connection limit, with a client waiting, first looks again:
/// about as long as another core takes to close an idle connection. Doubled with every further
/// look.
pub const FULL_RETRY_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// How soon it looks again in the end.
pub const FULL_RETRY_INTERVAL: Duration = Duration::from_millis(10);
/// At the connection limit a core closes this part of its idle client connections for a new one,
/// and one at least: looking for those that were idle longest must not cost more for each than
/// serving it.
pub const RECALLED_PART: usize = 64;
/// How long a connection that is being closed may be quiet while it is still read, so that our last
/// answer arrives.
pub const LINGER_TIME: Duration = Duration::from_secs(2);
/// How long it is read in all. More, and the reset takes its course.
pub const LINGER_TIME_MAX: Duration = Duration::from_secs(10);
/// Endpoints that are tried for one request when connecting fails. Nothing was sent to any of them.
pub const CONNECT_ATTEMPTS_MAX: usize = 3;

/// Places for client connections that a core's table keeps, however few there are.
pub const CONNECTION_SEATS_KEPT: usize = 1024;
/// Events that a core gathers before it sends them, when housekeeping does not come first.
pub const EVENT_BATCH_MAX: usize = 64;
/// Streams of events that the admin port has open at once. More are answered 429.
pub const STREAMS_MAX: usize = 4;
/// How long a stream goes on when it is not said, and at most, in seconds: nobody forgets one.
pub const STREAM_SECONDS: u64 = 60;
pub const STREAM_SECONDS_MAX: u64 = 3600;
/// Most events that a stream is asked to end after.
pub const STREAM_COUNT_MAX: u64 = 1_000_000;
/// Events that may wait for the reader of a stream. It loses those beyond, and is told how many.
pub const STREAM_EVENTS_MAX: usize = 2_000;
/// Taps that run at once. Another is answered 429: a core looks at no more than one.
pub const TAPS_MAX: usize = 1;
/// Exchanges that may wait for the reader of a tap. It loses those beyond, and is told how many.
pub const TAP_EVENTS_MAX: usize = 256;
/// Exchanges that a core gathers for a tap before it sends them: each may be large.
pub const TAP_BATCH_MAX: usize = 8;
/// Most bytes that a tap shows of a body. More are cut off.
pub const TAP_BODY_BYTES_MAX: usize = 16 * 1024;
/// Longest name, path or method that a tap is told to look for. Longer is answered 400.
pub const TAP_TEXT_BYTES_MAX: usize = 1024;
/// Bytes of a stream that are gathered before they are sent, when so many wait.
pub const STREAM_PIECE_BYTES: usize = 16 * 1024;
/// How long a stream's reader may take for a piece, beside what `ADMIN_RATE_MIN` allows. Then its
/// connection is closed.
pub const STREAM_SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a reader may take for what it is owed when its stream ends. What it was opened for has
/// ended by then.
pub const STREAM_LAST_TIMEOUT: Duration = Duration::from_secs(5);
/// Most entries of the blacklist. More are refused.
pub const BLACKLIST_ENTRIES_MAX: usize = 100_000;
/// Longest time of an entry of the blacklist, ten years. Longer is answered 400: it is to be for
/// good.
pub const BLACKLIST_SECONDS_MAX: u64 = 315_360_000;
/// How many entries of the blacklist the admin port lists when it is not said. More are cut off.
pub const BLACKLIST_LISTED: u64 = 10_000;
/// How much of a text that is no network is shown to who sent it. The rest is cut.
pub const NETWORK_CHARS_SHOWN: usize = 64;
/// The control core rests this many times as long as it took to make the list for the data cores,
/// before it makes the next one: of its time, that is a tenth at most.
pub const BLACKLIST_REST: u32 = 9;
/// How often the blacklist's file is written anew while changes go on.
pub const BLACKLIST_SAVE_PACE: Duration = Duration::from_secs(1);
/// How long a blacklist that could not be saved waits for the next try.
pub const BLACKLIST_SAVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long the end of the process waits for the blacklist to be saved.
pub const BLACKLIST_STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A process that ends waits so long for the last answers of ports that another process has taken
/// over. Past it their connections are cut. More than `ADMIN_FIRST_REQUEST_GRACE`.
pub const OWN_PORTS_STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the log tells whom the blacklist has turned away, with how often it did.
pub const BLACKLIST_TELL_INTERVAL: Duration = Duration::from_secs(5);
/// Networks that one such report names. The rest is summed.
pub const BLACKLIST_TOLD_MAX: usize = 100;
/// How long the keeper of the blacklist trusts that nobody has set the clock.
pub const BLACKLIST_LOOK_INTERVAL: Duration = Duration::from_secs(60);

// --- names ---------------------------------------------------------------------------------

/// A shorter TTL counts as this, so that a TTL of 0 does not become a stream of queries.
pub const DNS_TTL_MIN: Duration = Duration::from_secs(1);
/// A longer TTL counts as this: an operator who corrects a record waits no longer.
pub const DNS_TTL_MAX: Duration = Duration::from_secs(3600);
/// How long an entry of /etc/hosts is good for before the file is asked again.
pub const DNS_HOSTS_TTL: Duration = Duration::from_secs(30);
/// A shorter negative TTL (RFC 2308) counts as this, and so does none at all.
pub const DNS_NEGATIVE_TTL_MIN: Duration = Duration::from_secs(5);
/// A longer negative TTL counts as this: a name that appears is noticed soon.
pub const DNS_NEGATIVE_TTL_MAX: Duration = Duration::from_secs(30);
/// After the first failure; doubled with every further one.
pub const DNS_BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest wait between two tries of a name that does not resolve.
pub const DNS_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Most addresses that are taken from one answer; those after them are not used.
pub const DNS_ADDRESSES_MAX: usize = 256;
/// Most CNAMEs that are followed within one answer. More is a malformed answer.
pub const DNS_CNAMES_MAX: usize = 16;
/// Most compression pointers in one name. More is a malformed answer.
pub const DNS_POINTERS_MAX: usize = 64;
/// The UDP answer that we offer to take: fits into one packet everywhere. Longer comes over TCP.
pub const DNS_UDP_BYTES_MAX: u16 = 1232;
/// Datagrams from the server that answer no question of ours, per try. Then the try has failed.
pub const DNS_STRAYS_MAX: usize = 64;
/// Reads that one TCP answer may take. Then the try has failed.
pub const DNS_TCP_READS_MAX: usize = 1024;
/// Name servers that are used, as resolv.conf(5) has it; those after them are not.
pub const DNS_SERVERS_MAX: usize = 3;
/// Search domains that are used; those after them are not.
pub const DNS_SEARCH_MAX: usize = 32;

const _: () = assert!(DNS_NEGATIVE_TTL_MAX.as_secs() <= DNS_BACKOFF_MAX.as_secs());

// --- start and stop ------------------------------------------------------------------------

/// What the kernel queues per listening socket; it takes the lesser of this and `somaxconn`.
pub const LISTEN_BACKLOG: i32 = 65_535;
/// What handshakes that have begun get to end before a listener that drains is closed: a round trip
/// to most clients. Connections beyond that are reset.
pub const LAST_HANDSHAKES_TIME: Duration = Duration::from_millis(100);
/// Open files kept for everything that is not a client connection or its upstream one.
pub const DESCRIPTORS_RESERVED: u64 = 256;
/// How long the start waits for endpoint names. Then it goes on, and they come when they come.
pub const FIRST_NAMES_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a data core may take to install a plan at the start. Then the start has failed.
pub const INSTALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Descriptors that one message between an old and a new process carries; the kernel takes 253.
/// More go in several.
pub const DESCRIPTORS_PER_MESSAGE: usize = 200;
/// How long a new process may take until it serves: names may have to be resolved first. Then it is
/// ended, and the old one goes on.
pub const UPGRADE_READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a new process that has closed its stream, or talks nonsense, may take to end by itself:
/// its exit status tells why. Then it is ended.
pub const UPGRADE_END_GRACE: Duration = Duration::from_millis(500);
/// How long either side of an upgrade may take to pass the sockets on.
pub const UPGRADE_SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long clients of a process that was replaced may be between two requests: their next one is
/// answered, and the answer says that the connection closes. Then they are closed.
pub const UPGRADE_IDLE_GRACE: Duration = Duration::from_secs(5);
/// How long a process that was replaced stays at least, to take connections again should the new
/// one die. Later, it does so for as long as it drains.
pub const UPGRADE_WATCH_TIME: Duration = Duration::from_secs(5);
/// The same for a process that is to end: what was sent by then arrives and is answered. Then they
/// are told that no more comes, and read for a while: a request that crosses that is not answered,
/// but not reset either.
pub const DRAIN_IDLE_GRACE: Duration = Duration::from_millis(200);
/// Largest description of the sockets of an upgrade, and of what operators have said. Larger is
/// refused: it is none of ours. A full blacklist has room: a character of a reason is at most six
/// bytes of JSON, and what else an entry has is shorter than the rest.
pub const UPGRADE_MANIFEST_BYTES_MAX: usize =
    64 * 1024 * 1024 + BLACKLIST_ENTRIES_MAX * (6 * ADMIN_REASON_CHARS_MAX + 500);
/// Most sockets that an upgrade passes on.
pub const UPGRADE_SOCKETS_MAX: usize = LISTENERS_MAX * CORES_MAX + 2;
/// How long a data core may take to end once it is told to. Then the process ends without it, and
/// says that it failed.
pub const CORE_STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the end of the process looks whether the data cores have ended.
pub const CORE_STOP_LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// How long the end of the process waits for the access log to be written.
pub const PUBLISHER_STOP_TIMEOUT: Duration = Duration::from_secs(5);

// --- reload --------------------------------------------------------------------------------

/// Generations that may be alive at once, the newest included. With more, the exchanges of the
/// oldest are ended. Default of `hot_reload.max_generations`: eight reloads within the life of a
/// long stream are an accident of automation, and each generation holds a whole plan.
pub const GENERATIONS_MAX: usize = 8;
/// What `hot_reload.max_generations` may be raised to.
pub const GENERATIONS_CEILING: usize = 1000;
/// How often old generations are looked at, while there are any: for their age, and to free them.
pub const GENERATIONS_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the configuration file must be quiet after a change before it is read: whoever writes
/// it may not be done.
pub const RELOAD_DEBOUNCE: Duration = Duration::from_millis(200);
/// A file that never becomes quiet is read after this.
pub const RELOAD_DEBOUNCE_MAX: Duration = Duration::from_secs(2);
/// How often a configuration file that is gone, or cannot be watched, is looked for.
pub const RELOAD_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long reading a new configuration, and opening what it names, may take. Then it is refused.
pub const RELOAD_PREPARE_TIMEOUT: Duration = Duration::from_secs(20);
/// Of those, how many may be under way, late ones included: each holds one of `BLOCKING_THREADS`,
/// and some are left for other work, such as files of certificates. More are refused at once.
pub const RELOADS_OVERDUE_MAX: usize = 2;
/// Configurations given as texts that wait for the one that is put in force. More are refused.
/// Requests to read the file are not: those that come one after the other wait together.
pub const RELOADS_QUEUED_MAX: usize = 16;
/// Configurations that were applied and are remembered, to go back to. The oldest are forgotten.
pub const RELOAD_HISTORY_MAX: usize = 10;
/// Symbolic links that are followed to the configuration file, as the kernel does.
pub const RELOAD_LINKS_MAX: usize = 40;

// --- admin ---------------------------------------------------------------------------------

/// Connections to each of the admin and metrics ports. For more, those are closed that nobody has
/// let in yet, or that ask for nothing; where all are served, they wait in the kernel's queue.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// How long a scrape waits for the reports of all cores. Then it takes what they reported last.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection to a port that closes may still take for its first request, which is on
/// its way. Then it is closed.
pub const ADMIN_FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);
/// How long an admin client may take for a request's head, for its body, and be idle. Then 408, or
/// the connection is closed.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Slowest reader of an answer, in bytes a second, beside the time above. A slower one's connection
/// is closed: it holds a place that others need.
pub const ADMIN_RATE_MIN: u64 = 16 * 1024;
/// Largest body of an admin request. Larger is answered 413.
pub const ADMIN_BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a stranger waits for the answer that refuses it: guessing is slow on every connection.
pub const ADMIN_REFUSAL_DELAY: Duration = Duration::from_millis(250);
/// How often requests that were refused at the door are complained about in the log.
pub const ADMIN_COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);
/// Shortest token. Shorter is a configuration error: it could be guessed.
pub const ADMIN_TOKEN_BYTES_MIN: usize = 16;
/// Longest token, and largest file that holds one. Longer is a configuration error.
pub const ADMIN_TOKEN_BYTES_MAX: usize = 4096;
/// Most connections that one page of the admin API lists, and how many when it is not said.
pub const ADMIN_CONNECTIONS_LISTED_MAX: u64 = 10_000;
pub const ADMIN_CONNECTIONS_LISTED: u64 = 100;
/// How long what an operator said of one address of a name outlives the address: lookups that leave
/// one out for a moment do not undo a drain. Then it is forgotten, since the address may be
/// another's.
pub const OVERRIDE_GONE_MAX: Duration = Duration::from_secs(600);
/// Longest reason that an operator gives for taking an endpoint out of service. Longer is answered
/// 400: it is shown on every page that lists the endpoint.
pub const ADMIN_REASON_CHARS_MAX: usize = 200;
/// Refused requests that each core remembers; older ones are forgotten.
pub const REJECTED_KEPT: usize = 64;
/// Bytes that are remembered of each; the rest is cut.
pub const REJECTED_BYTES_MAX: usize = 512;
/// Most endpoints that a readiness page lists; those after them only count.
pub const HEALTH_BACKENDS_MAX: usize = 1000;
/// How long the admin API waits for the answers of data cores. Then it shows what has come.
pub const ADMIN_INQUIRY_TIMEOUT: Duration = Duration::from_secs(1);

// --- metrics -------------------------------------------------------------------------------

/// Series with names of the configuration: room for a few thousand routes, clusters and endpoints,
/// and what a Prometheus takes from one target without trouble. Things beyond it are counted
/// under `other`. Default of `metrics.max_series`.
pub const METRICS_SERIES_MAX: usize = 200_000;
/// What `metrics.max_series` may be raised to. Above it the configuration is refused.
pub const METRICS_SERIES_CEILING: usize = 10_000_000;
/// Most bounds in `metrics.buckets`: every histogram of every core has room for so many. More are
/// refused.
pub const METRICS_BUCKETS_MAX: usize = 20;
/// Default of `metrics.buckets`, in microseconds.
pub const METRICS_BUCKETS_MICROS: [u64; 12] = [
    1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];
/// The metrics page leaves in pieces of this size; between two, the control core does its other
/// work.
pub const METRICS_PIECE_BYTES: usize = 64 * 1024;

const _: () = assert!(METRICS_BUCKETS_MICROS.len() <= METRICS_BUCKETS_MAX);
/// Histograms of which a core keeps exemplars, a KiB each; a core hands all of them over at a
/// scrape. Those beyond have none until others are old.
pub const EXEMPLAR_HISTOGRAMS_MAX: usize = 512;
/// How long a core keeps an exemplar: some scrape intervals, so that each of several scrapers sees
/// it.
pub const EXEMPLAR_AGE_MAX: Duration = Duration::from_secs(5 * 60);

// --- heads of endpoints --------------------------------------------------------------------

/// Largest response head taken from an endpoint. Larger is a 502.
pub const UPSTREAM_HEADER_BYTES_MAX: usize = 32 * 1024;
/// Most header lines in one. More is a 502.
pub const UPSTREAM_HEADERS_MAX: usize = 200;
/// Most 1xx heads before the final one. More is a 502: an endpoint that goes on saying "soon" holds
/// an exchange for ever.
pub const INTERIM_RESPONSES_MAX: u32 = 100;
/// What `limits.max_concurrent_connections`, `max_connections` and `max_pending` may be set to.
/// Above it the configuration is refused: a number that no machine reaches is a mistake.
pub const CONNECTIONS_CEILING: u32 = 10_000_000;

// --- configuration -------------------------------------------------------------------------

/// Largest configuration file: room for tens of thousands of routes. Larger is refused unread,
/// so that a wrong path (a device, a log) does not fill the memory.
pub const CONFIG_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most tables and lists inside each other in YAML and JSON, as in TOML; the schema has fewer than
/// ten. Deeper is refused: what walks the tree does so by recursion.
pub const CONFIG_DEPTH_MAX: usize = 80;
/// Most bytes of a YAML text that anchors name and aliases repeat together, an alias in a repeated
/// part counted each time. More is refused: a few lines can unfold to billions of values.
pub const CONFIG_REPEATED_BYTES_MAX: usize = 1024 * 1024;
/// Most mistakes that are printed for one file; the rest is counted.
pub const CONFIG_ERRORS_MAX: usize = 100;
/// How often the server that a configuration comes from is asked whether it has changed. Default of
/// `hot_reload.poll_interval`: an answer that it has not is a few hundred bytes.
pub const CONFIG_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// More often is refused: it is a mistake in the unit, and a load for the server.
pub const CONFIG_POLL_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// What that server gets for its whole answer. Default of `hot_reload.poll_timeout`, and what holds
/// at the start, when no configuration is known. Then the question counts as failed. As long as
/// [`RELOAD_PREPARE_TIMEOUT`] or longer is refused.
pub const CONFIG_POLL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a start waits for that server where there is no copy to start from: both may have been
/// started at the same moment. Then the process ends and says why. Far less than what a new binary
/// gets (`UPGRADE_READY_TIMEOUT`).
pub const CONFIG_START_TIMEOUT: Duration = Duration::from_secs(15);
/// The wait between two tries of a start.
pub const CONFIG_START_INTERVAL: Duration = Duration::from_millis(500);
/// Longest tag of a text that is sent back to its server. With a longer one every question is
/// answered with the text.
pub const CONFIG_TAG_BYTES_MAX: usize = 1024;
/// How often a part of a configuration is put over the one in force, when another change comes in
/// between. Then it is refused: the caller may try again.
pub const CONFIG_PATCH_TRIES_MAX: u32 = 8;
/// Longest duration in a configuration. Longer is refused: it is a mistake in the unit.
pub const CONFIG_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest age in a configuration, such as that of a log before its rotation. Longer is refused.
pub const CONFIG_AGE_MAX: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
/// Most listeners: each has one socket per core. More are refused.
pub const LISTENERS_MAX: usize = 256;
/// Most cores that may be asked for. More are refused.
pub const CORES_MAX: usize = 1024;
/// Largest weight of an endpoint. Larger is refused: the sum over a cluster must stay small.
pub const WEIGHT_MAX: u32 = 65_535;

const _: () = assert!(LISTENERS_MAX <= u16::MAX as usize);
const _: () = assert!(CONFIG_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(2 * CONFIG_START_TIMEOUT.as_secs() <= UPGRADE_READY_TIMEOUT.as_secs());
