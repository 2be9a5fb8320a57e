//! Bounds of HTTP/2.

use std::time::Duration;

/// Bytes of one read of a connection: what a frame of the usual size holds.
pub const H2_READ_BYTES: usize = 16 * 1024;
/// Reads and new streams of one connection in one turn of the core; the others are next then.
pub const H2_READS_PER_TURN: u32 = 8;
/// What may wait in a stream for the client to take it. Beyond it nothing is read of the response.
pub const H2_SEND_BYTES_MAX: usize = 64 * 1024;
/// Where streams have priorities, all of a connection share [`H2_SEND_BYTES_MAX`], and one gives so
/// much in its turn while others wait.
pub const H2_TURN_BYTES: usize = 16 * 1024;
/// Priorities of streams that have not begun, or are gone. Of more, the lowest stream's is
/// forgotten.
pub const H2_PRIORITIES_AHEAD: usize = 32;
/// Bytes of the value of a PRIORITY_UPDATE frame. A longer one is as good as broken.
pub const H2_PRIORITY_BYTES_MAX: usize = 256;
/// What may wait in the kernel, and has not been sent, of a connection whose streams have
/// priorities: nothing overtakes it.
pub const H2_UNSENT_BYTES_MAX: u32 = 128 * 1024;
/// What small frames of bodies that no stream has taken or held yet may fall short of 256 bytes,
/// all together, before the crate ends the connection: 16,000 of them, whatever the windows are.
pub const H2_DATA_FRAME_BUDGET: usize = 4 << 20;
/// Bytes of the fields of one head, as HPACK counts them, before the crate refuses it unread; less
/// than that but more than `limits.max_header_size` is answered with 431.
pub const H2_HEADER_LIST_BYTES: u32 = 96 * 1024;
/// How long a connection that was told to go, and has no streams, may take to go.
pub const H2_LEAVE_TIME: Duration = Duration::from_secs(2);
/// How long a client that was answered before it had said all may go on before its stream is reset.
pub const H2_EARLY_ANSWER_TIME: Duration = Duration::from_millis(250);
/// Most streams of one connection that can be configured: each has a task and an exchange.
pub const H2_STREAMS_CEILING: u32 = 1000;
/// Largest window of a stream that can be configured: that much may wait here for each.
pub const H2_WINDOW_CEILING: u64 = 16 << 20;
/// Largest frame that can be configured: it is read as a whole.
pub const H2_FRAME_CEILING: u64 = 1 << 20;
