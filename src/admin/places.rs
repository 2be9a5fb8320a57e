//! The places of a port: so many connections may be open at once. When all are taken, whoever comes
//! gets the place of one that nobody has let in yet: silence is free, and must not keep operators
//! and probes out. A peer that has many such connections loses one before a peer that has few.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::time::Instant;

use crate::admin::Port;
use crate::control::complaint::Complaint;
use crate::control::ending::Ending;
use crate::engine;
use crate::limits;

pub(super) struct Places {
    port: Port,
    taken: RefCell<Vec<Rc<Seat>>>,
    /// The port is closed: what runs is answered, nothing else is read.
    over: Cell<bool>,
    /// Closed for others since the start.
    closed: Cell<u64>,
    /// Of all ports.
    closed_in_all: Rc<Cell<u64>>,
    full: Complaint,
    /// Accepts that failed since the start.
    failed: Cell<u64>,
    cannot_accept: Complaint,
}

/// What is known of one connection.
struct Seat {
    peer: IpAddr,
    /// Its last request had a token that we know, or needed none because nobody has any.
    let_in: Cell<bool>,
    /// Its request is read whole, or being answered.
    busy: Cell<bool>,
    /// It has not asked for anything yet.
    fresh: Cell<bool>,
    /// It is busy, or was last.
    since: Cell<Instant>,
    lost: Ending,
}

/// A connection's own. Dropped with it.
pub(super) struct Place {
    places: Rc<Places>,
    seat: Rc<Seat>,
}

impl Places {
    pub(super) fn new(port: Port, closed_in_all: Rc<Cell<u64>>) -> Places {
        Places {
            port,
            taken: RefCell::default(),
            over: Cell::new(false),
            closed: Cell::new(0),
            closed_in_all,
            full: Complaint::default(),
            failed: Cell::new(0),
            cannot_accept: Complaint::default(),
        }
    }

    pub(super) fn complain_of_accept(&self, error: &io::Error) {
        self.failed.set(self.failed.get() + 1);
        if let Some(times) = self.cannot_accept.due(engine::now(), self.failed.get()) {
            let name = self.port.name();
            log::error!(
                "the {name} port cannot accept connections: {error} ({times} tries failed since \
                 this was last said); where descriptors are short, raise the open-file limit \
                 (LimitNOFILE=, ulimit -n)"
            );
        }
    }

    /// Whether there is room for another one, made if need be; no: all serve those who may ask.
    pub(super) fn has_room_for(&self, peer: IpAddr) -> bool {
        if self.taken.borrow().len() < limits::ADMIN_CONNECTIONS_MAX {
            return true;
        }
        let victim = self.victim();
        if let Some(index) = victim {
            // In their order: many may have come at the same moment.
            self.taken.borrow_mut().remove(index).lost.end();
            for closed in [&self.closed, &*self.closed_in_all] {
                closed.set(closed.get() + 1);
            }
        }
        if let Some(closed) = self.full.due(engine::now(), self.closed.get()) {
            let (name, max) = (self.port.name(), limits::ADMIN_CONNECTIONS_MAX);
            log::warn!(
                "all {max} connections of the {name} port are in use: {closed} that asked for \
                 nothing, or nothing they may, were closed for others since this was last said; \
                 {peer} came last. Find out who holds them: `ss -tnp`, and let only operators \
                 reach the port"
            );
        }
        victim.is_some()
    }

    pub(super) fn take(self: &Rc<Self>, peer: IpAddr, now: Instant) -> Place {
        let seat = Rc::new(Seat {
            peer: neighbourhood(peer),
            let_in: Cell::new(false),
            busy: Cell::new(false),
            fresh: Cell::new(true),
            since: Cell::new(now),
            lost: Ending::default(),
        });
        self.taken.borrow_mut().push(Rc::clone(&seat));
        Place { places: Rc::clone(self), seat }
    }

    /// Those that were never let in go first: of the peer that has most of them, those that are
    /// awaited before those that are answered, the one that has waited longest. Then those that
    /// were let in and ask for nothing now.
    fn victim(&self) -> Option<usize> {
        let taken = self.taken.borrow();
        let mut strangers: HashMap<IpAddr, usize> = HashMap::new();
        for seat in taken.iter().filter(|seat| !seat.let_in.get()) {
            *strangers.entry(seat.peer).or_default() += 1;
        }
        let gives_way = |seat: &&Rc<Seat>| !(seat.let_in.get() && seat.busy.get());
        let order = |seat: &Rc<Seat>| {
            let many = strangers.get(&seat.peer).copied().unwrap_or_default();
            let many = if seat.let_in.get() { 0 } else { many };
            (seat.let_in.get(), std::cmp::Reverse(many), seat.busy.get(), seat.since.get())
        };
        let candidates = taken.iter().enumerate().filter(|(_, seat)| gives_way(seat));
        candidates.min_by_key(|(_, seat)| order(seat)).map(|(index, _)| index)
    }

    pub(super) fn are_empty(&self) -> bool {
        self.taken.borrow().is_empty()
    }

    /// Whoever has just connected has its first request on its way.
    pub(super) fn end(&self) {
        self.over.set(true);
        self.end_those(|seat| !seat.busy.get() && !seat.fresh.get());
    }

    /// Those too whose first request has not come.
    pub(super) fn end_all(&self) {
        self.end_those(|seat| !seat.busy.get());
    }

    fn end_those(&self, go: impl Fn(&Seat) -> bool) {
        self.taken.borrow().iter().filter(|seat| go(seat)).for_each(|seat| seat.lost.end());
    }
}

/// Whoever has one address of such a network usually has them all.
fn neighbourhood(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

impl Place {
    /// Until it is somebody else's, or the port is closed while nothing is asked.
    pub(super) async fn lost(&self) {
        self.seat.lost.come().await;
    }

    pub(super) fn is_over(&self) -> bool {
        self.places.over.get()
    }

    /// A head has come.
    pub(super) fn answers(&self) {
        self.seat.busy.set(true);
        self.seat.fresh.set(false);
        self.seat.since.set(engine::now());
    }

    pub(super) fn set_let_in(&self, let_in: bool) {
        self.seat.let_in.set(let_in);
    }

    /// For the next head.
    pub(super) fn waits(&self) {
        self.seat.busy.set(false);
        self.seat.since.set(engine::now());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.borrow_mut().retain(|seat| !Rc::ptr_eq(seat, &self.seat));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(places: &Rc<Places>, peer: &str, seconds: u64, let_in: bool, busy: bool) -> Place {
        let now = Instant::now() + Duration::from_secs(seconds);
        let place = places.take(peer.parse().unwrap(), now);
        place.seat.let_in.set(let_in);
        place.seat.busy.set(busy);
        place
    }

    fn goes(places: &Places, place: &Place) -> bool {
        let taken = places.taken.borrow();
        places.victim().is_some_and(|index| Rc::ptr_eq(&taken[index], &place.seat))
    }

    #[test]
    fn strangers_go_before_guests_and_the_crowd_before_the_lonely() {
        let places = Rc::new(Places::new(Port::Admin, Rc::default()));
        let working = at(&places, "10.0.0.1", 0, true, true);
        assert_eq!(places.victim(), None, "who may ask and does is not sent away");
        let idle = at(&places, "10.0.0.1", 1, true, false);
        assert!(goes(&places, &idle));
        let lonely = at(&places, "10.0.0.2", 2, false, false);
        assert!(goes(&places, &lonely));
        let crowd = [5, 4, 3].map(|age| at(&places, "2001:db8::1", age, false, age == 3));
        let neighbour = at(&places, "2001:db8::2", 6, false, false);
        assert!(goes(&places, &crowd[1]), "the oldest of those that are awaited");
        drop((crowd, neighbour));
        assert!(goes(&places, &lonely));
        drop((lonely, idle));
        assert_eq!(places.victim(), None);
        drop(working);
    }
}
