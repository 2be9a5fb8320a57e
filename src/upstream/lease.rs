//! A connection that an exchange has, and the slot of the process that goes with it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::control::overrides::Admission;
use crate::engine;
use crate::http2::upstream_call::UpstreamCall;
use crate::tls::stream::Stream;
use crate::upstream::connect::Connector;
use crate::upstream::endpoints::{Endpoint, Kept};
use crate::upstream::multiplex::Seat;
use crate::upstream::pool::Cluster;

/// A connection lent to one exchange, or a part of one. Dropped: it is closed, or the stream reset.
/// `keep` puts it into the pool.
pub(crate) struct Lease {
    /// `None` only while it is being taken apart. Before `seat` and `slot`: it is closed first.
    upstream: Option<Upstream>,
    /// On a connection that others use too.
    seat: Option<Seat>,
    /// How it began. `None`: it is for nobody else.
    connector: Option<Rc<Connector>>,
    /// Of a connection of its own. Of a shared one the connection has it.
    slot: Slot,
    pub(crate) reused: bool,
}

/// What an exchange speaks to an endpoint on.
pub(crate) enum Upstream {
    Http1(Stream),
    Http2(Box<UpstreamCall>),
}

/// The right to one connection, counted here and in the process. Dropped: it is given back, unless
/// a pooled connection has taken it over.
pub(super) struct Slot {
    pub(super) cluster: Rc<Cluster>,
    pub(super) endpoint: Rc<Endpoint>,
    pub(super) held: bool,
}

impl Lease {
    pub(super) fn of_stream(
        stream: Stream,
        connector: Option<Rc<Connector>>,
        slot: Slot,
        reused: bool,
    ) -> Lease {
        Lease { upstream: Some(Upstream::Http1(stream)), seat: None, connector, slot, reused }
    }

    /// `None`: the connection has ended meanwhile.
    pub(super) fn of_seat(seat: Seat, reused: bool) -> Option<Lease> {
        let call = Box::new(seat.call()?);
        let trunk = seat.trunk();
        let (cluster, endpoint) = (Rc::clone(&trunk.cluster), Rc::clone(&trunk.endpoint));
        let slot = Slot { cluster, endpoint, held: false };
        let upstream = Some(Upstream::Http2(call));
        Some(Lease { upstream, seat: Some(seat), connector: None, slot, reused })
    }

    pub(crate) fn upstream(&self) -> &Upstream {
        self.upstream.as_ref().expect("a lease has its connection until it is kept")
    }

    /// Whether what is asked for on it can become a tunnel.
    pub(super) fn may_be_tunnel(&self) -> bool {
        match self.upstream() {
            Upstream::Http1(_) => true,
            Upstream::Http2(call) => call.may_be_tunnel(),
        }
    }

    /// Of a connection that is for one exchange.
    pub(crate) fn stream(&self) -> &Stream {
        match self.upstream() {
            Upstream::Http1(stream) => stream,
            Upstream::Http2(_) => unreachable!("asked for where HTTP/2 is not spoken"),
        }
    }

    pub(crate) fn is_secure(&self) -> bool {
        match self.upstream() {
            Upstream::Http1(stream) => stream.is_secure(),
            Upstream::Http2(call) => call.is_secure(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.slot.endpoint.address
    }

    pub(crate) fn endpoint(&self) -> &Rc<Endpoint> {
        &self.slot.endpoint
    }

    /// Back into the pool: the exchange has ended cleanly. `idle` is what the endpoint promised.
    pub(crate) fn keep(mut self, promised: Option<Duration>) {
        let Some(Upstream::Http1(stream)) = &self.upstream else { return };
        let now = engine::now();
        let Slot { cluster, endpoint, .. } = &self.slot;
        let limit = cluster.limits.get().idle_timeout;
        // A second before the endpoint's own clock runs out: its FIN must not cross our request.
        let idle = promised.map_or(limit, |p| limit.min(p.saturating_sub(Duration::from_secs(1))));
        if endpoint.removed.get()
            || endpoint.admission.get() == Admission::Maintenance
            || idle.is_zero()
            || stream.is_worn()
            || endpoint.is_beyond()
            || !self.connector.as_ref().is_some_and(|made| made.keeps(&cluster.connector.borrow()))
            || cluster.owes_others(endpoint, now)
        {
            return;
        }
        let Some(Upstream::Http1(stream)) = self.upstream.take() else { return };
        stream.set_deadline(engine::Side::Read, None);
        endpoint.idle.borrow_mut().push(Kept { stream, until: now + idle });
        cluster.wake_first();
        self.slot.held = false;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match (self.upstream.take(), &self.seat) {
            (Some(Upstream::Http1(stream)), _) => close(stream),
            (Some(Upstream::Http2(call)), Some(seat)) if call.is_suspicious(engine::now()) => {
                seat.suspect();
            }
            (Some(Upstream::Http2(_)) | None, _) => {}
        }
    }
}

/// The endpoint is told before the slot is given back: a core that takes the slot connects at once,
/// while closing alone waits for the ring's next turn.
pub(super) fn close(stream: Stream) {
    stream.finish();
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.held {
            self.cluster.give_slot(&self.endpoint);
        }
    }
}
