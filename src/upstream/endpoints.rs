//! The addresses of a cluster as one core has them: the connections kept to each, how many are
//! open, and whose turn it is. A new plan or new addresses of a name take over what stays.

use std::cell::{Cell, Ref, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use rustls_pki_types::ServerName;

use crate::balancing::RoundRobin;
use crate::control::message::EndpointShare;
use crate::control::overrides::Admission;
use crate::engine::{Permits, Shared};
use crate::plan::ClusterProtocol;
use crate::shard::series::EndpointCells;
use crate::tls::stream::Stream;
use crate::upstream::connect::{Connector, Speaks};
use crate::upstream::multiplex::Trunk;
use crate::upstream::pool::Wanted;
use crate::upstream::tally::Tally;

pub(super) struct Endpoints {
    pub(super) list: Vec<Rc<Endpoint>>,
    pub(super) weights: Vec<u32>,
    pub(super) turn: RoundRobin,
}

pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// Who it is, to TLS: the name that led to the address, or the address.
    pub(super) name: ServerName<'static>,
    pub(super) idle: RefCell<Vec<Kept>>,
    /// Connections of HTTP/2, and those that may become one.
    pub(super) trunks: RefCell<Vec<Rc<Trunk>>>,
    /// What it has last chosen, where it has a choice.
    pub(super) spoken: Cell<Option<Speaks>>,
    /// Whether it has last said that a stream of HTTP/2 may become a tunnel.
    pub(super) takes_tunnels: Cell<Option<bool>>,
    pub(super) open: Cell<u32>,
    series: RefCell<Shared<EndpointCells>>,
    pub(super) permits: RefCell<Option<Shared<Permits>>>,
    pub(crate) tally: Tally,
    /// What operators say of it.
    pub(super) admission: Cell<Admission>,
    /// No longer part of the cluster: connections close when their exchange ends.
    pub(super) removed: Cell<bool>,
}

/// An idle connection in the pool.
pub(super) struct Kept {
    pub(super) stream: Stream,
    pub(super) until: Instant,
}

impl Endpoints {
    /// The same endpoints already: maxima may differ, and are taken over.
    pub(super) fn are(&self, shares: &[EndpointShare]) -> bool {
        let same = self.list.len() == shares.len()
            && self.list.iter().zip(&self.weights).zip(shares).all(
                |((endpoint, &weight), share)| {
                    endpoint.is_same(share) && weight == effective(share)
                },
            );
        if same {
            self.list.iter().zip(shares).for_each(|(endpoint, share)| endpoint.take_over(share));
        }
        same
    }

    /// `next` is whose turn it is, roughly: not the first's after every change.
    pub(super) fn new(shares: Vec<EndpointShare>, old: &[Rc<Endpoint>], next: usize) -> Endpoints {
        let weights: Vec<u32> = shares.iter().map(effective).collect();
        let list = shares
            .into_iter()
            .map(|share| {
                let known = old.iter().find(|o| o.is_same(&share)).map(Rc::clone);
                if let Some(known) = &known {
                    known.take_over(&share);
                }
                known.unwrap_or_else(|| Endpoint::new(share))
            })
            .collect();
        let turn = RoundRobin::new(&weights, next);
        Endpoints { list, weights, turn }
    }

    /// All that could take exchanges are kept from it by an operator.
    pub(super) fn are_drained(&self) -> bool {
        self.weights.iter().all(|&weight| weight == 0)
            && self.list.iter().any(|endpoint| endpoint.admission.get() != Admission::Ready)
    }

    pub(super) fn has_another(&self, refused: &[SocketAddr]) -> bool {
        let mut weighted = self.list.iter().zip(&self.weights);
        weighted.any(|(endpoint, &weight)| weight > 0 && !refused.contains(&endpoint.address))
    }
}

/// A weight of 0 takes no new exchanges.
fn effective(share: &EndpointShare) -> u32 {
    match share.admission {
        Admission::Ready => share.weight,
        Admission::Drained | Admission::Maintenance => 0,
    }
}

impl Endpoint {
    pub(super) fn new(share: EndpointShare) -> Rc<Endpoint> {
        Rc::new(Endpoint {
            address: share.address,
            name: share.name,
            idle: RefCell::default(),
            trunks: RefCell::default(),
            spoken: Cell::new(None),
            takes_tunnels: Cell::new(None),
            open: Cell::new(0),
            series: RefCell::new(share.series),
            permits: RefCell::new(share.permits),
            tally: Tally::default(),
            admission: Cell::new(share.admission),
            removed: Cell::new(false),
        })
    }

    /// It would choose HTTP/2, on which it knows no tunnels.
    pub(super) fn needs_http1(&self, wanted: Wanted, connector: &Connector) -> bool {
        wanted.is_tunnel()
            && connector.protocol == ClusterProtocol::Auto
            && self.takes_tunnels.get() == Some(false)
    }

    fn is_same(&self, share: &EndpointShare) -> bool {
        self.address == share.address && self.name == share.name
    }

    pub(crate) fn series(&self) -> Ref<'_, Shared<EndpointCells>> {
        self.series.borrow()
    }

    /// From now on its numbers are these; what is open moves with it.
    fn count_in(&self, series: &Shared<EndpointCells>) {
        if self.series.borrow().is_same(series) {
            return;
        }
        let open = u64::from(self.open.get());
        series.open.add(open);
        self.series.replace(series.share()).open.sub(open);
    }

    /// A slot of the process, for a new connection.
    pub(super) fn try_take(&self) -> bool {
        self.permits.borrow().as_ref().is_none_or(|permits| permits.try_take())
    }

    /// More connections are open than its maximum, which was lowered, allows.
    pub(super) fn is_beyond(&self) -> bool {
        self.permits.borrow().as_ref().is_some_and(|permits| permits.is_beyond())
    }

    pub(super) fn want(&self, core: usize, wants: bool) {
        if let Some(permits) = self.permits.borrow().as_ref() {
            permits.want(core, wants);
        }
    }

    pub(super) fn wanted_by_another(&self, core: usize) -> Option<usize> {
        self.permits.borrow().as_ref()?.wanted_by_another(core)
    }

    /// What a new plan says of this address. With a maximum that comes or goes, so do the slots of
    /// the connections that are open.
    pub(super) fn take_over(&self, share: &EndpointShare) {
        self.removed.set(false);
        self.admission.set(share.admission);
        self.count_in(&share.series);
        let mut own = self.permits.borrow_mut();
        match (&*own, &share.permits) {
            (Some(old), Some(new)) if old.is_same(new) => {}
            (None, None) => {}
            (old, new) => {
                if let Some(new) = new {
                    new.take_anyway(self.open.get());
                }
                if let Some(old) = old {
                    (0..self.open.get()).for_each(|_| old.give());
                }
                *own = new.as_ref().map(Shared::share);
            }
        }
    }
}

impl Kept {
    /// A FIN, or bytes nobody asked for, make it useless.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        now < self.until && self.stream.is_silent()
    }
}
