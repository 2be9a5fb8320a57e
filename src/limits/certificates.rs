//! Bounds of certificates: their files, how long they last, and responders (OCSP).

use std::time::Duration;

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
/// The same for a revocation list: many are made anew every day.
pub const REVOCATIONS_EXPIRY_WARNING: Duration = Duration::from_secs(12 * 60 * 60);
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
/// Most bytes of staples that are passed on by an upgrade. Those that do not fit are asked for
/// anew.
pub const OCSP_PASSED_ON_BYTES_MAX: usize = 1024 * 1024;
/// After files of a certificate were found not to fit together they get so long to become right
/// before it is complained about: a certificate and its key are written one after the other.
pub const CERTIFICATE_SETTLE: Duration = Duration::from_secs(1);
/// How often files of certificates are read where the kernel cannot tell of changes.
pub const CERTIFICATE_LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// How soon files are read again that could not be used, each time twice as late, up to the
/// interval above: a certificate that is not valid yet, a disk that is away, become right without a
/// change of the file.
pub const CERTIFICATE_RETRY_MIN: Duration = Duration::from_secs(2);
/// How many reads of those files may be under way, late ones included: it holds one of
/// [`BLOCKING_THREADS`](super::BLOCKING_THREADS), and none of those of reloads. More are refused,
/// and tried again.
pub const CERTIFICATES_OVERDUE_MAX: usize = 1;
/// How often, at least, it is looked whether a certificate has expired or soon will: the clock may
/// have been set.
pub const CERTIFICATE_EXPIRY_LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Most expired certificates that `/health` names.
pub const HEALTH_CERTIFICATES_MAX: usize = 20;
/// Threads that make what the cores need for TLS, for a moment after each change: with hundreds of
/// certificates and many cores one alone takes seconds. Data cores go on with what they have until
/// it is done.
pub const TLS_SETUP_THREADS: usize = 4;
