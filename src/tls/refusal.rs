//! Why a connection ended before its protocol began: one table, for counters and the log.

use std::fmt;
use std::io;

use rustls::Error;

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
    TimedOut,
    /// By the client, without a word.
    Closed,
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
    TimedOut,
    Closed,
}

impl Reason {
    pub(crate) const ALL: [Reason; 11] = [
        Reason::ProxyHeader,
        Reason::PlainHttp,
        Reason::NotAHello,
        Reason::UnknownName,
        Reason::NothingInCommon,
        Reason::CertificateMissing,
        Reason::CertificateRefused,
        Reason::RefusedByClient,
        Reason::Malformed,
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
            Reason::TimedOut => "timeout",
            Reason::Closed => "closed",
        }
    }
}

impl Refusal {
    pub(crate) fn of(failed: Failed) -> Refusal {
        match failed {
            Failed::Refused(error) => Refusal::Handshake(error),
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
            Refusal::TimedOut => Reason::TimedOut,
            Refusal::Closed => Reason::Closed,
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
            Refusal::Handshake(error) => write!(f, "{error}"),
            Refusal::TimedOut => f.write_str("the client was not ready in time"),
            Refusal::Closed => f.write_str("the client closed the connection before it was ready"),
        }
    }
}
