//! A new connection to an endpoint: TCP, whom it speaks for, TLS; and what its failure is called.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;

use crate::engine::{self, Side, Socket};
use crate::exchange::failure::Failure;
use crate::plan::{ClusterHttp2, ClusterProtocol};
use crate::tls::client::{H2, UpstreamTls};
use crate::tls::handshake::Failed;
use crate::tls::settings::ProxyVersion;
use crate::tls::stream::Stream;

/// How connections to the endpoints of a cluster begin.
#[derive(Debug, Default)]
pub(crate) struct Connector {
    pub(crate) tls: Option<UpstreamTls>,
    /// Each says first whom it is for, so it is for nobody else.
    pub(crate) greets: Option<ProxyVersion>,
    pub(crate) protocol: ClusterProtocol,
    pub(crate) http2: ClusterHttp2,
}

/// A connection, and what is spoken on it.
pub(super) struct Connected {
    pub(super) stream: Stream,
    pub(super) speaks: Speaks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
}

impl Connector {
    /// Whether a connection made by `other` is as good as one of its own.
    pub(super) fn is_like(&self, other: &Connector) -> bool {
        let digest = |tls: &UpstreamTls| tls.digest;
        self.tls.as_ref().map(digest) == other.tls.as_ref().map(digest)
            && self.greets == other.greets
            && self.protocol == other.protocol
            && self.http2 == other.http2
    }

    /// Known before there is a connection; `None`: the endpoint says.
    pub(super) fn speaks(&self) -> Option<Speaks> {
        match self.protocol {
            ClusterProtocol::H1 => Some(Speaks::Http1),
            ClusterProtocol::H2 | ClusterProtocol::H2c => Some(Speaks::Http2),
            ClusterProtocol::Auto if self.tls.is_none() => Some(Speaks::Http1),
            ClusterProtocol::Auto => None,
        }
    }

    /// The same where the endpoint has a choice, and is to choose HTTP/1.1.
    pub(super) fn for_http1(&self) -> Connector {
        Connector {
            tls: self.tls.as_ref().map(UpstreamTls::for_http1),
            greets: self.greets,
            protocol: ClusterProtocol::H1,
            http2: self.http2,
        }
    }

    /// A connection that it has made may be kept for others while connections begin like `now`.
    pub(super) fn keeps(&self, now: &Connector) -> bool {
        self.greets.is_none() && self.is_like(now)
    }

    /// `name` is who the endpoint is to TLS; without one there is none. `greeting` says whom the
    /// connection is for; `shakes` hears when TLS begins.
    pub(super) async fn connect(
        &self,
        address: SocketAddr,
        name: Option<&ServerName<'static>>,
        greeting: Option<&[u8]>,
        timeout: Duration,
        shakes: impl FnOnce(Instant),
    ) -> Result<Connected, NotConnected> {
        let socket = Socket::connect(address, timeout).await;
        let socket = socket.map_err(|error| failure(&error))?;
        if let Some(greeting) = greeting {
            let sent = socket.send(&[greeting, b"", b""], timeout).await;
            sent.map_err(|_| Failure::ConnectFailed)?;
        }
        let Some((tls, name)) = self.tls.as_ref().zip(name) else {
            let speaks = self.speaks().unwrap_or(Speaks::Http1);
            return Ok(Connected { stream: Stream::plain(socket), speaks });
        };
        shakes(engine::now());
        socket.set_deadline(Side::Read, Some(tls.handshake_timeout()));
        let shaken = Box::pin(tls.connect(&socket, name)).await.map_err(NotConnected::of)?;
        socket.set_deadline(Side::Read, None);
        let (session, settled) = shaken;
        let speaks = self.chosen(settled.alpn.as_deref())?;
        Ok(Connected { stream: Stream::secure(socket, session), speaks })
    }

    /// What an endpoint means that has chosen this by ALPN. One that chooses nothing speaks
    /// HTTP/1.1 (RFC 9113 section 3.2).
    fn chosen(&self, alpn: Option<&[u8]>) -> Result<Speaks, NotConnected> {
        let speaks = if alpn == Some(H2) { Speaks::Http2 } else { Speaks::Http1 };
        match self.speaks() {
            Some(Speaks::Http2) if speaks == Speaks::Http1 => Err(NotConnected {
                failure: Failure::UpstreamNotHttp2,
                detail: Some("it does not choose h2 by ALPN: expected protocol = \"auto\"".into()),
            }),
            // Only what was offered can be chosen.
            Some(_) | None => Ok(speaks),
        }
    }
}

/// How long an endpoint may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Until a connection is there, which for HTTP/2 includes its SETTINGS.
    pub(crate) connect: Duration,
    /// To take some of what is written on one that others share.
    pub(crate) write: Duration,
}

/// What says whom a connection is for, for those that begin so.
pub(crate) type Greet<'g> = &'g dyn Fn(ProxyVersion) -> Vec<u8>;

/// Why there is no connection.
pub(crate) struct NotConnected {
    pub(crate) failure: Failure,
    /// In words, where the name alone does not say what to do.
    pub(crate) detail: Option<String>,
}

impl From<Failure> for NotConnected {
    fn from(failure: Failure) -> NotConnected {
        NotConnected { failure, detail: None }
    }
}

impl NotConnected {
    fn of(failed: Failed) -> NotConnected {
        use rustls::Error;
        let (failure, detail) = match failed {
            Failed::Refused(error @ Error::InvalidCertificate(_)) => {
                (Failure::UpstreamTlsUntrusted, error.to_string())
            }
            Failed::Refused(error) => (Failure::UpstreamTlsFailed, error.to_string()),
            Failed::Lost(error) if error.kind() == io::ErrorKind::TimedOut => {
                (Failure::UpstreamTlsTimeout, error.to_string())
            }
            Failed::Lost(error) => (Failure::UpstreamTlsFailed, error.to_string()),
        };
        NotConnected { failure, detail: Some(detail) }
    }
}

fn failure(error: &io::Error) -> Failure {
    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
        Failure::OutOfDescriptors
    } else if error.kind() == io::ErrorKind::TimedOut {
        Failure::ConnectTimeout
    } else if error.kind() == io::ErrorKind::ConnectionRefused {
        Failure::ConnectRefused
    } else {
        Failure::ConnectFailed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::failure::Side;

    #[test]
    fn a_missing_descriptor_is_not_the_endpoints_fault() {
        for number in [libc::EMFILE, libc::ENFILE] {
            let failure = failure(&io::Error::from_raw_os_error(number));
            assert_eq!(failure, Failure::OutOfDescriptors);
            assert_eq!((failure.status(), failure.side()), (503, Side::Proxy));
        }
        let refused = failure(&io::Error::from_raw_os_error(libc::ECONNREFUSED));
        assert_eq!(refused, Failure::ConnectRefused);
        let unreachable = failure(&io::Error::from_raw_os_error(libc::EHOSTUNREACH));
        assert_eq!(unreachable, Failure::ConnectFailed);
    }
}
