//! The bounds of TLS, of its certificates, and of what comes before a protocol is spoken.

use std::time::Duration;

use super::BUFFER_BYTES;

// --- certificates ----------------------------------------------------------------------------

/// Largest file with a certificate or a key. Larger is refused: a chain has some KiB.
pub const CERTIFICATE_FILE_BYTES_MAX: usize = 1024 * 1024;
/// Largest file of authorities. Larger is refused: those of all systems have a quarter of a MiB.
pub const AUTHORITIES_FILE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest file of revocation lists. Larger is refused: each core holds a copy.
pub const REVOCATIONS_FILE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Longest file with a password. Longer is refused: it is another file.
pub const PASSWORD_FILE_BYTES_MAX: usize = 4096;
/// Most certificates in one chain. More is refused: every full handshake sends them all.
pub const CHAIN_CERTIFICATES_MAX: usize = 16;
/// Most parts of a PKCS#12 file, and most keys and certificates in it. More is refused: each may be
/// encrypted anew.
pub const PKCS12_PARTS_MAX: usize = 64;
/// How often a hash may be repeated to make a key of a password: about a second. More is refused.
pub const KEY_DERIVATION_ROUNDS_MAX: u32 = 2_000_000;
/// Shortest RSA key. Shorter is refused: it can be broken.
pub const RSA_BITS_MIN: u32 = 2048;
/// How long before its end a certificate is complained about.
pub const CERTIFICATE_EXPIRY_WARNING: Duration = Duration::from_secs(14 * 86_400);
/// Largest answer of an OCSP responder. Larger is refused: it is sent in every full handshake.
pub const OCSP_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How far the clock of an OCSP responder, or of whoever signs revocation lists, may be ahead.
pub const OCSP_CLOCK_SKEW: Duration = Duration::from_secs(300);
/// How long an OCSP responder may take for its answer. Then it has failed, and is asked later.
pub const OCSP_TIMEOUT: Duration = Duration::from_secs(10);
/// Least time until a responder that has answered is asked again, whatever its answer says.
pub const OCSP_REFRESH_MIN: Duration = Duration::from_secs(5 * 60);
/// Most time until then: a revocation is to be noticed.
pub const OCSP_REFRESH_MAX: Duration = Duration::from_secs(86_400);
/// The same for an answer that does not say when the next one comes.
pub const OCSP_REFRESH_UNDATED: Duration = Duration::from_secs(60 * 60);
/// How long such an answer is stapled when no newer one comes. Then it is not any more.
pub const OCSP_UNDATED_KEPT: Duration = Duration::from_secs(86_400);
/// How long a responder that has failed is left alone; each time twice as long, up to the next.
pub const OCSP_RETRY_MIN: Duration = Duration::from_secs(60);
pub const OCSP_RETRY_MAX: Duration = Duration::from_secs(60 * 60);
/// How often staples are looked at, at least: the clock may have been set.
pub const OCSP_LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// While many certificates are asked about, cores get what has come this often: each time all of
/// their TLS is made anew.
pub const OCSP_RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// Most bytes of staples that are passed on by an upgrade. Those that do not fit are asked for anew.
pub const OCSP_PASSED_ON_BYTES_MAX: usize = 1024 * 1024;
/// After files of a certificate were found not to fit together they get so long to become right
/// before it is complained about: a certificate and its key are written one after the other.
pub const CERTIFICATE_SETTLE: Duration = Duration::from_secs(1);
/// How often files of certificates are read where the kernel cannot tell of changes.
pub const CERTIFICATE_LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// How often, at least, it is looked whether a certificate has expired or soon will: the clock may
/// have been set.
pub const CERTIFICATE_EXPIRY_LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Most expired certificates that `/health` names.
pub const HEALTH_CERTIFICATES_MAX: usize = 20;

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
