//! A connection that an exchange has, and the slot of the process that goes with it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::control::overrides::Admission;
use crate::engine;
use crate::tls::stream::Stream;
use crate::upstream::connect::Connector;
use crate::upstream::endpoints::{Endpoint, Kept};
use crate::upstream::pool::Cluster;

/// A connection lent to one exchange. Dropped: it is closed. `keep` puts it into the pool.
pub(crate) struct Lease {
    /// `None` only while it is being taken apart. Before `slot`: it is closed first.
    pub(super) stream: Option<Stream>,
    /// How it began. `None`: it is for nobody else.
    pub(super) connector: Option<Rc<Connector>>,
    pub(super) slot: Slot,
    pub(crate) reused: bool,
}

/// The right to one connection, counted here and in the process. Dropped: it is given back, unless
/// a pooled connection has taken it over.
pub(super) struct Slot {
    pub(super) cluster: Rc<Cluster>,
    pub(super) endpoint: Rc<Endpoint>,
    pub(super) held: bool,
}

impl Lease {
    pub(crate) fn stream(&self) -> &Stream {
        self.stream.as_ref().expect("a lease has its stream until it is kept")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.slot.endpoint.address
    }

    pub(crate) fn endpoint(&self) -> &Rc<Endpoint> {
        &self.slot.endpoint
    }

    /// Back into the pool: the exchange has ended cleanly. `idle` is what the endpoint promised.
    pub(crate) fn keep(mut self, promised: Option<Duration>) {
        let now = engine::now();
        let Slot { cluster, endpoint, .. } = &self.slot;
        let limit = cluster.limits.get().idle_timeout;
        // A second before the endpoint's own clock runs out: its FIN must not cross our request.
        let idle = promised.map_or(limit, |p| limit.min(p.saturating_sub(Duration::from_secs(1))));
        if endpoint.removed.get()
            || endpoint.admission.get() == Admission::Maintenance
            || idle.is_zero()
            || self.stream().is_worn()
            || endpoint.is_beyond()
            || !self.connector.as_ref().is_some_and(|made| made.keeps(&cluster.connector.borrow()))
            || cluster.owes_others(endpoint, now)
        {
            return;
        }
        let stream = self.stream.take().expect("a lease has its stream until it is kept");
        stream.set_deadline(engine::Side::Read, None);
        endpoint.idle.borrow_mut().push(Kept { stream, until: now + idle });
        cluster.wake_first();
        self.slot.held = false;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            close(stream);
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
