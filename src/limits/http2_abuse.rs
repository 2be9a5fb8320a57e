//! What a client may do on one HTTP/2 connection before it is told to calm down (RFC 9113 section
//! 10.5). Each pair is a leaky bucket: how much at once, and how much of it is forgotten each
//! second. Beyond it the connection ends with ENHANCE_YOUR_CALM; other connections go on.

/// Streams that a client resets before they are answered ("rapid reset"): each has cost us a
/// request. A browser that leaves two pages of a hundred streams each stays below. A stream that is
/// answered to its end takes one off.
pub const HTTP2_RESETS: (u32, u32) = (256, 32);
/// What a client makes us reset, in points ("made you reset"). The limit is 64 broken streams, or
/// 512 that were refused for being too many: a client sends those while it does not know our
/// settings yet.
pub const HTTP2_PROVOKED: (u32, u32) = (1024, 128);
/// Points of a stream that was broken by the client, and of one that was refused.
pub const HTTP2_PROVOKED_BROKEN: u32 = 16;
pub const HTTP2_PROVOKED_REFUSED: u32 = 2;
/// SETTINGS frames. Each is acknowledged, and may change the windows of all streams; clients send
/// one to three in the life of a connection.
pub const HTTP2_SETTINGS: (u32, u32) = (20, 1);
/// PING frames. Each is answered. Those that measure the path come with what we send: every HEADERS
/// and DATA frame of ours takes one off.
pub const HTTP2_PINGS: (u32, u32) = (64, 2);
/// PRIORITY and PRIORITY_UPDATE frames. Browsers send some at the start and a few for each stream:
/// a new stream takes [`HTTP2_PRIORITIES_PER_STREAM`] off.
pub const HTTP2_PRIORITIES: (u32, u32) = (256, 32);
pub const HTTP2_PRIORITIES_PER_STREAM: u32 = 4;
/// WINDOW_UPDATE frames. Every DATA frame of ours takes [`HTTP2_UPDATES_PER_DATA`] off, and one
/// more for each KiB in it: some clients open a window after 4 KiB, for the stream and the
/// connection.
pub const HTTP2_UPDATES: (u32, u32) = (512, 64);
pub const HTTP2_UPDATES_PER_DATA: u32 = 10;
/// DATA frames of ours that are shorter than [`HTTP2_DRIBBLE_BYTES`] because the client's window
/// ends there ("data dribble"): a reader that opens its window byte by byte makes us send frames
/// that are mostly header.
pub const HTTP2_DRIBBLES: (u32, u32) = (128, 16);
pub const HTTP2_DRIBBLE_BYTES: u32 = 256;
/// DATA, HEADERS and CONTINUATION frames with nothing in them that end nothing. Below what the
/// `h2` crate takes of such DATA frames in the whole life of a connection. A DATA frame with
/// something in it takes one off.
pub const HTTP2_EMPTY: (u32, u32) = (64, 4);
/// Frames that do nothing: of unknown types, GOAWAY, RST_STREAM for streams that have ended.
/// Browsers send some of unknown types on purpose (RFC 8701): a new stream takes two off.
pub const HTTP2_STRAYS: (u32, u32) = (128, 16);
pub const HTTP2_STRAYS_PER_STREAM: u32 = 2;

/// CONTINUATION frames of one block of fields: the longest that is read fits into seven frames of
/// the least size, and the `h2` crate takes seven. One more ends the connection.
pub const HTTP2_CONTINUATIONS_MAX: u32 = 7;
/// Bytes of one block of fields, compressed and with padding: a little more than the fields that we
/// tell clients to send at most. The `h2` crate bounds what they become: over that it answers 431,
/// at four times that it ends the connection.
pub const HTTP2_FIELD_BLOCK_BYTES_MAX: u32 = 100 * 1024;
/// Streams of a connection whose windows and ends are remembered, the newest: 12 bytes each.
pub const HTTP2_WATCHED_STREAMS: usize = 64;

const _: () = assert!(HTTP2_WATCHED_STREAMS.is_power_of_two());
const _: () = assert!(HTTP2_FIELD_BLOCK_BYTES_MAX >= super::H2_HEADER_LIST_BYTES);
