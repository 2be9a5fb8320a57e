//! The bounds of TLS, and of what comes before a protocol is spoken.

use std::time::Duration;

use super::BUFFER_BYTES;

// --- before a protocol is spoken -----------------------------------------------------------

/// Longest ClientHello. Longer is refused: with post-quantum keys and a ticket real ones stay below
/// 4 KiB, and its bytes stay in the socket until it is whole.
pub const CLIENT_HELLO_BYTES_MAX: usize = 16 * 1024;
/// Most TLS records that a ClientHello is cut into. More is refused: some clients cut theirs into a
/// few, and each record is looked at again whenever bytes come.
pub const CLIENT_HELLO_RECORDS_MAX: usize = 64;
/// Longest PROXY protocol header of version 2, behind its first 16 bytes. Longer is refused: with
/// all that is told in one, real ones have a few hundred bytes.
pub const PROXY_HEADER_BYTES_MAX: usize = 4 * 1024;
/// Longest id of a connection in such a header, as the protocol has it. Longer is refused.
pub const PROXY_UNIQUE_ID_BYTES_MAX: usize = 128;

// Each is peeked into one buffer.
const _: () = assert!(CLIENT_HELLO_BYTES_MAX + 4 + 5 * CLIENT_HELLO_RECORDS_MAX <= BUFFER_BYTES);
const _: () = assert!(16 + PROXY_HEADER_BYTES_MAX <= BUFFER_BYTES);

/// Most files of certificates, authorities and revocation lists: all are in memory, and every core
/// has what it shows of them. More are refused.
pub const TLS_FILES_MAX: usize = 10_000;
/// The default of `tls.ticket_rotation`.
pub const TICKET_ROTATION: Duration = Duration::from_secs(12 * 60 * 60);
/// Least `tls.ticket_rotation`. Less is refused: clients would come back with keys that are gone.
pub const TICKET_ROTATION_MIN: Duration = Duration::from_secs(60);
/// Most `tls.ticket_rotation`, the lifetime of a ticket (RFC 8446 section 4.6.1). More is refused.
pub const TICKET_ROTATION_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The default of `listeners.tls.handshake_timeout` and `clusters.tls.handshake_timeout`.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Records without data that a peer may send one after another. More is a flood that costs us more
/// than it costs the peer: the connection ends.
pub const TLS_IDLE_RECORDS_MAX: u32 = 64;
/// Most bytes of a session ticket from a server: one that sends more is refused.
pub const TLS_TICKET_BYTES_MAX: usize = 64 * 1024;
/// Most bytes that both sides may say in a handshake, chains of certificates included. A peer that
/// says more is cut.
pub const TLS_HANDSHAKE_BYTES_MAX: usize = 256 * 1024;
/// Sessions that a core keeps of the endpoints of one cluster, to come back to. The oldest goes
/// first.
pub const TLS_CLIENT_SESSIONS: usize = 256;
/// How long a peer may take for its PROXY protocol header, where no handshake has a limit of its
/// own. Then the connection ends.
pub const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long neither side of a connection whose TLS passes through may say anything, or take what
/// the other says. Then it is cut.
pub const PASSTHROUGH_IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// Bytes of one thing that a client's certificate says of it, or of the host that it asks for, in
/// events and on the admin port. The rest of a longer one is not told.
pub const TLS_FIELD_BYTES_MAX: usize = 1024;
/// Of troubles of one kind, one in so long a time is logged; all are counted.
pub const TROUBLE_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked whether keys of tickets are to be replaced.
pub const TICKET_ROTATION_LOOK_INTERVAL: Duration = Duration::from_secs(10);
