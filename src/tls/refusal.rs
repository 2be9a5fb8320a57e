//! Why a connection ended before its protocol began: one table, for counters and the log.

use std::fmt;
use std::io;

use rustls::{AlertDescription, Error};

use crate::limits;
use crate::listener::proxy_protocol;
use crate::tls::client_hello::NotAHello;
use crate::tls::handshake::Failed;

#[derive(Debug)]
pub(crate) enum Refusal {
    ProxyHeader(proxy_protocol::Malformed),
    PlainHttp,
    NotAHello(NotAHello),
    /// No certificate is for it.
    UnknownName(Option<Box<str>>),
    Handshake(Error),
    /// It has said too much before it was done.
    TooLong,
    TimedOut,
    /// By the client, in the middle of something.
    Closed,
    /// One of these two, before a byte came: no news, but somebody who looks whether the port is
    /// open.
    Silent(Reason),
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    ProxyHeader,
    PlainHttp,
    NotAHello,
    UnknownName,
    NothingInCommon,
    CertificateMissing,
    CertificateRefused,
    RefusedByClient,
    Malformed,
    TooLong,
    TimedOut,
    Closed,
}

impl Reason {
    pub(crate) const ALL: [Reason; 12] = [
        Reason::ProxyHeader,
        Reason::PlainHttp,
        Reason::NotAHello,
        Reason::UnknownName,
        Reason::NothingInCommon,
        Reason::CertificateMissing,
        Reason::CertificateRefused,
        Reason::RefusedByClient,
        Reason::Malformed,
        Reason::TooLong,
        Reason::TimedOut,
        Reason::Closed,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Reason::ProxyHeader => "proxy_header",
            Reason::PlainHttp => "plain_http",
            Reason::NotAHello => "client_hello",
            Reason::UnknownName => "unknown_name",
            Reason::NothingInCommon => "nothing_in_common",
            Reason::CertificateMissing => "certificate_missing",
            Reason::CertificateRefused => "certificate_refused",
            Reason::RefusedByClient => "refused_by_client",
            Reason::Malformed => "malformed",
            Reason::TooLong => "too_long",
            Reason::TimedOut => "timeout",
            Reason::Closed => "closed",
        }
    }
}

impl Reason {
    /// Who it was could not be told, or was not believed.
    pub(crate) fn is_about_identity(self) -> bool {
        matches!(self, Reason::CertificateMissing | Reason::CertificateRefused)
    }
}

impl Refusal {
    pub(crate) fn of(failed: Failed) -> Refusal {
        match failed {
            Failed::Refused(error) => Refusal::Handshake(error),
            Failed::Lost(error) if error.kind() == io::ErrorKind::InvalidData => Refusal::TooLong,
            Failed::Lost(error) => Refusal::of_read(&error),
        }
    }

    pub(crate) fn of_read(error: &io::Error) -> Refusal {
        if error.kind() == io::ErrorKind::TimedOut { Refusal::TimedOut } else { Refusal::Closed }
    }

    pub(crate) fn reason(&self) -> Reason {
        match self {
            Refusal::ProxyHeader(_) => Reason::ProxyHeader,
            Refusal::PlainHttp => Reason::PlainHttp,
            Refusal::NotAHello(_) => Reason::NotAHello,
            Refusal::UnknownName(_) => Reason::UnknownName,
            Refusal::TooLong => Reason::TooLong,
            Refusal::TimedOut => Reason::TimedOut,
            Refusal::Closed => Reason::Closed,
            Refusal::Silent(reason) => *reason,
            Refusal::Handshake(error) => of_handshake(error),
        }
    }
}

fn of_handshake(error: &Error) -> Reason {
    use Error::{InvalidCertRevocationList, InvalidCertificate};
    if matches!(error, Error::PeerIncompatible(_) | Error::NoApplicationProtocol) {
        Reason::NothingInCommon
    } else if matches!(error, Error::NoCertificatesPresented) {
        Reason::CertificateMissing
    } else if matches!(error, InvalidCertificate(_) | InvalidCertRevocationList(_)) {
        Reason::CertificateRefused
    } else if matches!(error, Error::AlertReceived(_)) {
        Reason::RefusedByClient
    } else {
        Reason::Malformed
    }
}

/// What was wrong, for the log.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::ProxyHeader(malformed) => {
                write!(f, "no PROXY protocol header came: {}", malformed.message())
            }
            Refusal::PlainHttp => f.write_str(NotAHello::PlainHttp.message()),
            Refusal::NotAHello(not) => f.write_str(not.message()),
            Refusal::UnknownName(None) => f.write_str(
                "the client names no host, and `strict_sni` asks for one that a certificate is for",
            ),
            Refusal::UnknownName(Some(name)) => write!(f, "no certificate is for `{name}`"),
            Refusal::Handshake(error) => handshake(error, f),
            Refusal::TooLong => write!(
                f,
                "the client says more than {} bytes in its handshake",
                limits::TLS_HANDSHAKE_BYTES_MAX
            ),
            Refusal::TimedOut => f.write_str("the client was not ready in time"),
            Refusal::Closed => f.write_str("the client closed the connection before it was ready"),
            Refusal::Silent(_) => f.write_str("not a byte came"),
        }
    }
}

/// rustls says it for programmers.
fn handshake(error: &Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use AlertDescription as Alert;
    const UNTRUSTED: [Alert; 4] = [
        Alert::UnknownCA,
        Alert::BadCertificate,
        Alert::CertificateUnknown,
        Alert::CertificateExpired,
    ];
    if let Error::PeerIncompatible(why) = error {
        write!(
            f,
            "the client shares no TLS version, cipher suite or key exchange with us, or lacks what \
             they need ({why:?})"
        )
    } else if *error == Error::NoApplicationProtocol {
        f.write_str("the client wants another protocol than http/1.1 (ALPN)")
    } else if *error == Error::NoCertificatesPresented {
        f.write_str("the client shows no certificate, and `client_auth` requires one")
    } else if let Error::InvalidCertificate(why) = error {
        write!(f, "the client's certificate is not accepted: {why}")
    } else if let Error::AlertReceived(alert) = error {
        match UNTRUSTED.contains(alert) {
            true => write!(f, "the client does not trust our certificate ({alert:?})"),
            false => write!(f, "the client ended the handshake ({alert:?})"),
        }
    } else {
        write!(f, "{error}")
    }
}
