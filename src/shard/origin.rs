//! Where a connection comes from: by which listener, from whom, and what was settled with them
//! before the protocol began.

use std::net::SocketAddr;
use std::rc::Rc;

use crate::control::message::Service;
use crate::exchange::failure::Failure;
use crate::http::headers::NewLine;
use crate::listener::opening::{About, Proxied};
use crate::shard::Shard;
use crate::shard::connections::Seat;
use crate::shard::doors::Door;
use crate::telemetry::client_tls::ClientTls;
use crate::tls::server::{Accepted, H2};

/// Which listener a connection came by, and whom it is from.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) door: Rc<Door>,
    /// Which of the door's openings it has come through.
    pub(crate) opened_by: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) seat: Seat,
    /// What came before the protocol. `None` for the plain connections of a plain listener.
    pub(crate) about: Option<Rc<About>>,
}

impl Origin {
    /// The peer, or whom a trusted one says that it speaks for.
    pub(crate) fn speaks_for(&self) -> SocketAddr {
        self.told_source().unwrap_or(self.peer)
    }

    /// `None`: nobody has said that it speaks for anybody.
    pub(crate) fn told_source(&self) -> Option<SocketAddr> {
        self.proxied().map(|proxied| proxied.source)
    }

    pub(crate) fn proxied(&self) -> Option<&Proxied> {
        self.about.as_ref()?.proxied.as_ref()
    }

    pub(crate) fn tls(&self) -> Option<&Accepted> {
        self.about.as_ref()?.tls.as_ref()
    }

    /// For logs.
    pub(crate) fn client_tls(&self) -> Option<ClientTls<'_>> {
        self.about.as_ref()?.client_tls()
    }

    /// Why no request for `authority` is served on this connection.
    pub(crate) fn refuses(&self, authority: &[u8]) -> Option<Failure> {
        let about = self.about.as_deref();
        if about.is_some_and(|about| about.strays) {
            return Some(Failure::PlainHttpOnTls);
        }
        if self.is_of_before() && self.door.opening().turns_away(about, authority) {
            return Some(Failure::Misdirected);
        }
        let tls = about?.tls.as_ref()?;
        (!tls.is_for(authority)).then_some(Failure::Misdirected)
    }

    /// Of the client's URL.
    pub(crate) fn scheme(&self) -> &'static str {
        let is_told = || self.proxied().is_some_and(|proxied| proxied.is_secure);
        if self.tls().is_some() || is_told() { "https" } else { "http" }
    }

    /// The client's TLS has settled that it speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.tls().is_some_and(|tls| tls.alpn.as_deref() == Some(H2))
    }

    /// What upstreams are told of who the client is.
    pub(crate) fn identity_lines(&self) -> &[NewLine] {
        self.tls().map_or(&[], |tls| &tls.lines)
    }

    /// That the client's TLS names.
    pub(crate) fn host(&self) -> Option<&str> {
        let about = self.about.as_ref()?;
        let own = about.tls.as_ref().and_then(|tls| tls.host.as_deref());
        let told = || about.proxied.as_ref().and_then(|proxied| proxied.host.as_deref());
        own.or(about.asked.as_deref()).or_else(told)
    }

    /// The connection ends now if it is between two requests.
    pub(crate) fn ends_idle(&self, shard: &Shard) -> bool {
        let life = &shard.life;
        let out_of_service = life.service.get() == Service::Closing;
        (life.is_draining() && !life.patient.get())
            || out_of_service
            || self.door.is_closing()
            || self.has_other_rules()
    }

    /// The connection ends after the exchange that it is in.
    pub(crate) fn is_closing(&self, shard: &Shard) -> bool {
        shard.life.is_closing() || self.door.is_closing() || self.has_other_rules()
    }

    /// The listener's TLS was set up anew since.
    fn is_of_before(&self) -> bool {
        self.opened_by != self.door.openings()
    }

    /// Clients that come now have to show other certificates than this one had to.
    fn has_other_rules(&self) -> bool {
        self.is_of_before() && self.door.opening().has_other_rules(self.about.as_deref())
    }
}
