//! What a connection goes through before its protocol begins: whom the peer speaks for (PROXY
//! protocol), TLS or plain, and which certificate or cluster the client's TLS asks for. Bytes are
//! looked at where the kernel keeps them, so whoever is slow here holds nothing of ours.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::engine::{self, Side, Socket};
use crate::limits;
use crate::listener::proxy_protocol::{self, Read};
use crate::plan::{Http2, Listener, Network, Plan};
use crate::shard::{Origin, Shard};
use crate::telemetry::client_tls::ClientTls;
use crate::tls::client_hello::{self, ClientHello, NotAHello, Peeked};
use crate::tls::names::Names;
use crate::tls::refusal::Refusal;
use crate::tls::server::{Accepted, ServerTls};
use crate::tls::settings::ListenerTls;
use crate::tls::setup::Staples;
use crate::tls::stream::Stream;
use crate::tls::tickets::TicketKeys;
use crate::tls::trust::Trust;

/// A listener's way in, on one core.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    /// Peers that say first whom they speak for.
    from: Vec<Network>,
    http2: Http2,
    tls: Option<TlsOpening>,
}

#[derive(Debug)]
struct TlsOpening {
    /// `None`: all TLS here passes through.
    server: Option<ServerTls>,
    /// Clusters by the hosts whose TLS is theirs to end.
    passthrough: Names<String>,
    allow_plain: bool,
    strict: bool,
    timeout: Duration,
}

/// What was settled before the protocol began.
#[derive(Default)]
pub(crate) struct About {
    /// What a trusted peer says of whom it speaks for.
    pub(crate) proxied: Option<Proxied>,
    pub(crate) tls: Option<Accepted>,
    /// The host that the client's TLS asks for, when it is not ended here.
    pub(crate) asked: Option<Box<str>>,
    /// It goes on to a cluster as it came.
    pub(crate) passes: bool,
    /// It speaks plain HTTP where only TLS is spoken: all that it gets is to be told so.
    pub(crate) strays: bool,
}

impl About {
    pub(crate) fn client_tls(&self) -> Option<ClientTls<'_>> {
        let passed = || ClientTls::passed(self.asked.as_deref().unwrap_or_default());
        self.tls.as_ref().map(Accepted::told).or_else(|| self.passes.then(passed))
    }
}

/// A stream for a protocol of ours; or, with the name of a cluster, one that goes there as it is.
pub(crate) type Opened = (Stream, Option<Box<str>>);

/// A connection that another proxy has made for somebody.
#[derive(Clone, Debug)]
pub(crate) struct Proxied {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    /// The host that the client's TLS named.
    pub(crate) host: Option<Box<str>>,
    pub(crate) unique_id: Option<Box<[u8]>>,
    /// The client's own connection is TLS.
    pub(crate) is_secure: bool,
}

impl TlsOpening {
    /// The cluster whose TLS it is. An exact name goes before a wildcard, whatever either is for.
    fn passes(&self, host: &str) -> Option<&String> {
        self.passthrough.find_exact(host).or_else(|| {
            let cluster = self.passthrough.find(host)?;
            let is_ours = self.server.as_ref().is_some_and(|server| server.names(host));
            (!is_ours).then_some(cluster)
        })
    }

    fn has_rules_of(&self, before: &TlsOpening) -> bool {
        let is_same = match (&self.server, &before.server) {
            (None, None) => true,
            (Some(now), Some(before)) => now.has_rules_of(before),
            (Some(_), None) | (None, Some(_)) => false,
        };
        is_same && self.allow_plain == before.allow_plain
    }
}

impl Opening {
    pub(crate) fn new(
        plan: &Plan,
        trust: &mut Trust<'_>,
        listener: &Listener,
        keys: &TicketKeys,
        staples: &Staples,
    ) -> Result<Opening, String> {
        let tls = |tls: &ListenerTls| {
            let mut passthrough = Names::default();
            for passed in &tls.passthrough {
                let cluster = &plan.clusters[passed.cluster.0 as usize].name;
                for name in &passed.names {
                    passthrough.entry(name).insert_entry(cluster.clone());
                }
            }
            let server = (!tls.certificates.is_empty())
                .then(|| ServerTls::new(plan, trust, listener, tls, keys, staples));
            Ok::<_, String>(TlsOpening {
                server: server.transpose()?,
                passthrough,
                allow_plain: tls.allow_plain,
                strict: tls.strict_sni,
                timeout: tls.handshake_timeout,
            })
        };
        let tls = listener.tls.as_ref().map(tls).transpose()?;
        Ok(Opening { from: listener.proxy_protocol.clone(), http2: listener.http2, tls })
    }

    pub(crate) fn http2(&self) -> Http2 {
        self.http2
    }

    /// Whether there is anything to do before the protocol.
    pub(crate) fn is_needed(&self, peer: SocketAddr) -> bool {
        self.tls.is_some() || self.greets(peer)
    }

    /// Clients that come now have to show other certificates than one did who came before.
    pub(crate) fn has_other_rules(&self, about: Option<&About>) -> bool {
        let Some(tls) = &self.tls else { return false };
        match about.and_then(|about| about.tls.as_ref()) {
            None => !tls.allow_plain,
            Some(accepted) => {
                tls.server.as_ref().is_none_or(|server| server.has_other_rules(accepted))
            }
        }
    }

    /// Nobody who came by `before` is to go because of this one.
    pub(crate) fn has_rules_of(&self, before: &Opening) -> bool {
        match (&self.tls, &before.tls) {
            (None, None) => true,
            (Some(now), Some(before)) => now.has_rules_of(before),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// A request of somebody who came before may not be for `authority` any more.
    pub(crate) fn turns_away(&self, about: Option<&About>, authority: &[u8]) -> bool {
        let server = self.tls.as_ref().and_then(|tls| tls.server.as_ref());
        let accepted = about.and_then(|about| about.tls.as_ref());
        server.is_some_and(|server| server.turns_away(accepted, authority))
    }

    fn greets(&self, peer: SocketAddr) -> bool {
        self.from.iter().any(|network| network.contains(peer.ip()))
    }

    /// How the connection goes on. `None`: there is nothing more to do with it.
    pub(crate) async fn pass(
        &self,
        shard: &Rc<Shard>,
        mut origin: Origin,
        socket: Socket,
    ) -> Option<(Opened, Origin)> {
        let mut about = About::default();
        let opened = self.open(shard, &origin, &mut about, socket).await;
        let about = Rc::new(about);
        shard.connections.settled(origin.seat, &about);
        origin.about = Some(about);
        match opened {
            Ok(opened) => opened.map(|opened| (opened, origin)),
            Err(refusal) => {
                shard.tell_of_opening(&origin, &refusal);
                None
            }
        }
    }

    async fn open(
        &self,
        shard: &Rc<Shard>,
        origin: &Origin,
        about: &mut About,
        socket: Socket,
    ) -> Result<Option<Opened>, Refusal> {
        let timeout = self.tls.as_ref().map_or(limits::PROXY_HEADER_TIMEOUT, |tls| tls.timeout);
        socket.set_deadline(Side::Read, Some(timeout));
        if self.greets(origin.peer) {
            about.proxied = read_header(&socket).await?;
            let source = about.proxied.as_ref().map(|proxied| proxied.source.ip());
            if source.is_some_and(|source| shard.guard.turns_away(source)) {
                shard.counters().blocked.add(1);
                return Ok(None);
            }
        }
        let Some(tls) = &self.tls else {
            return Ok(Some((Stream::plain(socket), None)));
        };
        let hello = match read_hello(&socket, tls.allow_plain).await {
            Ok(None) => return Ok(Some((Stream::plain(socket), None))),
            Ok(Some(hello)) => hello,
            Err(refusal @ Refusal::PlainHttp) => {
                about.strays = true;
                shard.note_opening(origin, &refusal);
                return Ok(Some((Stream::plain(socket), None)));
            }
            Err(refusal) => return Err(refusal),
        };
        let host = hello.server_name.as_deref();
        about.asked = host.map(Box::from);
        if let Some(cluster) = host.and_then(|host| tls.passes(host)) {
            about.passes = true;
            return Ok(Some((Stream::plain(socket), Some(cluster.as_str().into()))));
        }
        let Some(server) = tls.server.as_ref().filter(|server| !tls.strict || server.has(host))
        else {
            refuse_name(&socket).await;
            return Err(Refusal::UnknownName(host.map(Box::from)));
        };
        let (session, accepted) = server.accept(&socket, host).await.map_err(Refusal::of)?;
        shard.counters().handshakes.add(1);
        if accepted.is_resumed {
            shard.counters().handshakes_resumed.add(1);
        }
        socket.set_deadline(Side::Read, None);
        (about.tls, about.asked) = (Some(accepted), None);
        Ok(Some((Stream::secure(socket, session), None)))
    }
}

/// `None`: no TLS, and none is needed.
async fn read_hello(socket: &Socket, allow_plain: bool) -> Result<Option<ClientHello>, Refusal> {
    let is_plain = |bytes: &[u8]| bytes.first().is_some_and(|first| !client_hello::is_tls(*first));
    peek(socket, |bytes| match client_hello::peek(bytes) {
        _ if allow_plain && is_plain(bytes) => Ok(Some(None)),
        Ok(Peeked::NeedMore) => Ok(None),
        Ok(Peeked::Hello(hello)) => Ok(Some(Some(hello))),
        Err(NotAHello::PlainHttp) => Err(Refusal::PlainHttp),
        Err(not) => Err(Refusal::NotAHello(not)),
    })
    .await
}

/// `None`: the peer speaks for itself.
async fn read_header(socket: &Socket) -> Result<Option<Proxied>, Refusal> {
    let (proxied, length) = peek(socket, |bytes| match proxy_protocol::read(bytes) {
        Ok(Read::NeedMore) => Ok(None),
        Ok(Read::Header(header)) => {
            let proxied = header.addresses.map(|addresses| Proxied {
                source: addresses.source,
                destination: addresses.destination,
                host: header.tlvs.authority.map(Box::from),
                unique_id: header.tlvs.unique_id.map(Box::from),
                is_secure: header.tlvs.tls.is_some(),
            });
            Ok(Some((proxied, header.length)))
        }
        Err(malformed) => Err(Refusal::ProxyHeader(malformed)),
    })
    .await?;
    // What follows is for whoever comes next.
    let mut left = length;
    let mut buffer = engine::buffer();
    while left > 0 {
        let most = left.min(buffer.len());
        match socket.recv(&mut buffer[..most]).await {
            Ok(0) => return Err(Refusal::Closed),
            Ok(count) => left -= count,
            Err(error) => return Err(Refusal::of_read(&error)),
        }
    }
    Ok(proxied)
}

/// Looks at what has come until `look` has seen enough.
async fn peek<T>(
    socket: &Socket,
    look: impl Fn(&[u8]) -> Result<Option<T>, Refusal>,
) -> Result<T, Refusal> {
    let mut seen = 0;
    let silent = |refusal: Refusal, seen| match seen {
        0 => Refusal::Silent(refusal.reason()),
        _ => refusal,
    };
    loop {
        let looked = std::future::poll_fn(|context| {
            let mut buffer = engine::buffer();
            let peeked = socket.poll_peek(context, &mut buffer, seen);
            Poll::Ready(peeked.map(|peeked| peeked.map(|count| (look(&buffer[..count]), count))))
        });
        match looked.await {
            Poll::Ready(Ok((found, count))) => match found? {
                Some(found) => return Ok(found),
                None if count <= seen => return Err(silent(Refusal::Closed, seen)),
                None => seen = count,
            },
            Poll::Ready(Err(error)) => return Err(silent(Refusal::of_read(&error), seen)),
            Poll::Pending => {
                let ready = socket.ready(Side::Read).await;
                ready.map_err(|error| silent(Refusal::of_read(&error), seen))?;
            }
        }
    }
}

/// An alert before there is any session: no certificate is for this host (RFC 6066 section 3).
async fn refuse_name(socket: &Socket) {
    const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
    // Whoever has no room for it learns it from the end of the connection.
    let send = |context: &mut Context<'_>| {
        Poll::Ready(socket.poll_send(context, &[IoSlice::new(&UNRECOGNIZED_NAME)]).is_ready())
    };
    std::future::poll_fn(send).await;
    socket.finish();
}
