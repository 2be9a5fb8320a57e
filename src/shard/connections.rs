//! The client connections of one core: who they are and what they do, for whoever asks. A few plain
//! stores per request; a table that grows and shrinks with the connections.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use crate::engine;
use crate::limits;
use crate::listener::opening::About;
use crate::plan::ListenerKey;
use crate::shard::doors::Door;
use crate::shard::{Origin, Shard};
use crate::telemetry::client_tls;

/// A connection's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat(u32);

/// What is known of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub peer: SocketAddr,
    pub listener: ListenerKey,
    pub since: Instant,
    /// When it began to serve requests, or to be a tunnel, or to wait for the next.
    pub turned: Instant,
    /// How many at once, tunnels too: on HTTP/2 there may be several.
    pub serving: u32,
    /// How many of them have gone over to another protocol.
    pub tunnels: u32,
    pub requests: u32,
    pub received: u64,
    pub sent: u64,
}

/// What it does. With tunnels on HTTP/2 there may be requests too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    Serving,
    Tunnel,
}

/// The same with what was settled before its protocol began.
#[derive(Clone, Debug)]
pub struct Listed {
    pub connection: Connection,
    /// As the peer has said (PROXY protocol).
    pub speaks_for: Option<SocketAddr>,
    pub tls: Option<client_tls::Told>,
}

#[derive(Default)]
pub(crate) struct Connections(RefCell<Table>);

#[derive(Default)]
struct Table {
    seats: Vec<Option<Row>>,
    /// The lowest is taken first, so that the end of the table empties. Those beyond it are stale.
    free: BinaryHeap<Reverse<u32>>,
    /// How many each listener has that has any.
    open: Vec<(ListenerKey, u64)>,
}

struct Row {
    connection: Connection,
    about: Option<Rc<About>>,
}

/// Dropped when the connection ends.
pub(crate) struct Seated {
    shard: Rc<Shard>,
    pub(crate) origin: Origin,
}

impl Seated {
    pub(crate) fn new(shard: &Rc<Shard>, door: Rc<Door>, peer: SocketAddr) -> Seated {
        let seat = shard.connections.enter(door.key, peer, engine::now());
        Seated {
            shard: Rc::clone(shard),
            origin: Origin { opened_by: door.openings(), door, peer, seat, about: None },
        }
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.shard.connections.leave(self.origin.seat);
    }
}

impl Connections {
    fn enter(&self, listener: ListenerKey, peer: SocketAddr, now: Instant) -> Seat {
        let mut table = self.0.borrow_mut();
        let connection = Connection {
            peer,
            listener,
            since: now,
            turned: now,
            serving: 0,
            tunnels: 0,
            requests: 0,
            received: 0,
            sent: 0,
        };
        match table.open.iter_mut().find(|(known, _)| *known == listener) {
            Some((_, count)) => *count += 1,
            None => table.open.push((listener, 1)),
        }
        if let Some(Reverse(free)) = table.free.pop()
            && let Some(seat) = table.seats.get_mut(free as usize)
        {
            *seat = Some(Row { connection, about: None });
            return Seat(free);
        }
        // The lowest is beyond the end, and so are all others.
        table.free.clear();
        table.seats.push(Some(Row { connection, about: None }));
        Seat(table.seats.len() as u32 - 1)
    }

    fn leave(&self, Seat(seat): Seat) {
        let mut table = self.0.borrow_mut();
        let gone = table.seats[seat as usize].take();
        table.free.push(Reverse(seat));
        table.shrink();
        let Some(Row { connection: Connection { listener, .. }, .. }) = gone else { return };
        let counted = table.open.iter().position(|(known, _)| *known == listener);
        if let Some(index) = counted {
            table.open[index].1 -= 1;
            if table.open[index].1 == 0 {
                table.open.swap_remove(index);
            }
        }
    }

    /// Its protocol begins.
    pub(crate) fn settled(&self, Seat(seat): Seat, about: &Rc<About>) {
        if let Some(row) = self.0.borrow_mut().row(seat) {
            row.about = Some(Rc::clone(about));
        }
    }

    pub(crate) fn since(&self, Seat(seat): Seat) -> Option<Instant> {
        self.0.borrow_mut().row(seat).map(|row| row.connection.since)
    }

    /// So many bytes have passed through it, that no request is made of.
    pub(crate) fn passes(&self, Seat(seat): Seat, received: u64, sent: u64) {
        if let Some(Row { connection, .. }) = self.0.borrow_mut().row(seat) {
            connection.received += received;
            connection.sent += sent;
        }
    }

    /// A request's head has come.
    pub(crate) fn begins(&self, Seat(seat): Seat, now: Instant) {
        if let Some(Row { connection, .. }) = self.0.borrow_mut().row(seat) {
            connection.change(now, |connection| connection.serving += 1);
        }
    }

    /// Its request has become a tunnel, until [`switches_back`](Self::switches_back).
    pub(crate) fn switches(&self, Seat(seat): Seat, now: Instant) {
        if let Some(Row { connection, .. }) = self.0.borrow_mut().row(seat) {
            connection.change(now, |connection| connection.tunnels += 1);
        }
    }

    /// The tunnel is over, and its request ends.
    pub(crate) fn switches_back(&self, Seat(seat): Seat, now: Instant) {
        if let Some(Row { connection, .. }) = self.0.borrow_mut().row(seat) {
            connection.change(now, |connection| {
                connection.tunnels = connection.tunnels.saturating_sub(1);
            });
        }
    }

    /// It has ended, with so many bytes. `begun`: not one whose head was refused.
    pub(crate) fn ends(
        &self,
        Seat(seat): Seat,
        begun: bool,
        (received, sent): (u64, u64),
        now: Instant,
    ) {
        if let Some(Row { connection, .. }) = self.0.borrow_mut().row(seat) {
            connection.change(now, |connection| {
                connection.serving = connection.serving.saturating_sub(u32::from(begun));
            });
            connection.requests = connection.requests.saturating_add(1);
            connection.received += received;
            connection.sent += sent;
        }
    }

    /// Some of them, and how many each listener has that has any.
    pub(crate) fn list(&self, most: usize) -> (Vec<Listed>, Vec<(ListenerKey, u64)>) {
        let table = self.0.borrow();
        let listed = |row: &Row| {
            let about = row.about.as_deref();
            let proxied = about.and_then(|about| about.proxied.as_ref());
            let tls = about.and_then(About::client_tls);
            Listed {
                connection: row.connection,
                speaks_for: proxied.map(|proxied| proxied.source),
                tls: tls.as_ref().map(client_tls::Told::of),
            }
        };
        let list = table.seats.iter().flatten().take(most).map(listed).collect();
        (list, table.open.clone())
    }
}

impl Connection {
    pub(crate) fn state(&self) -> State {
        match (self.serving, self.tunnels) {
            (0, _) => State::Idle,
            (_, 0) => State::Serving,
            (_, _) => State::Tunnel,
        }
    }

    /// What one of several does may leave all of it as it was.
    fn change(&mut self, now: Instant, change: impl FnOnce(&mut Connection)) {
        let before = self.state();
        change(self);
        let goes_on = self.state() == before && before != State::Idle;
        if !goes_on {
            self.turned = now;
        }
    }
}

impl Table {
    /// `None`: a core that stops drops its tasks in any order, streams after their connection too.
    fn row(&mut self, seat: u32) -> Option<&mut Row> {
        self.seats.get_mut(seat as usize)?.as_mut()
    }

    /// After a crowd, whoever asks for a list walks over few empty seats, and memory goes back.
    fn shrink(&mut self) {
        while matches!(self.seats.last(), Some(None)) {
            self.seats.pop();
        }
        let room = limits::CONNECTION_SEATS_KEPT.max(4 * self.seats.len());
        if self.seats.capacity() > room {
            let few = room / 2;
            self.seats.shrink_to(few);
            let (seats, free) = (self.seats.len(), &mut self.free);
            free.retain(|Reverse(seat)| (*seat as usize) < seats);
            free.shrink_to(few);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn seats_are_used_again_and_keep_nothing_of_who_sat_there() {
        let connections = Connections::default();
        let (peer, now) = (SocketAddr::from(([127, 0, 0, 1], 9)), Instant::now());
        let first = connections.enter(ListenerKey(0), peer, now);
        let second = connections.enter(ListenerKey(1), peer, now);
        connections.begins(first, now);
        connections.ends(first, true, (10, 20), now);
        connections.leave(first);
        assert_eq!(connections.enter(ListenerKey(1), peer, now), first);
        let (list, open) = connections.list(10);
        assert_eq!(open, [(ListenerKey(1), 2)]);
        assert_eq!(list.iter().map(|one| one.connection.received).sum::<u64>(), 0);
        assert_eq!(list.iter().map(|one| one.connection.requests).sum::<u32>(), 0);
        assert_eq!(connections.list(1).0.len(), 1);
        connections.leave(second);
        assert_eq!(connections.list(10).1, [(ListenerKey(1), 1)]);
    }

    #[test]
    fn a_connection_serves_until_the_last_of_several_ends_and_is_a_tunnel_as_long_as_one_is() {
        let connections = Connections::default();
        let (peer, began) = (SocketAddr::from(([127, 0, 0, 1], 9)), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        let seat = connections.enter(ListenerKey(0), peer, began);
        let stands = |state, seconds| {
            let connection = connections.list(1).0[0].connection;
            assert_eq!((connection.state(), connection.turned), (state, at(seconds)));
        };
        connections.begins(seat, at(1));
        connections.begins(seat, at(2));
        stands(State::Serving, 1);
        connections.ends(seat, true, (0, 0), at(3));
        // One whose head was refused has never begun.
        connections.ends(seat, false, (0, 0), at(4));
        stands(State::Serving, 1);
        connections.switches(seat, at(5));
        connections.begins(seat, at(6));
        connections.switches(seat, at(7));
        connections.switches_back(seat, at(8));
        connections.ends(seat, true, (0, 0), at(8));
        stands(State::Tunnel, 5);
        connections.begins(seat, at(9));
        connections.switches_back(seat, at(10));
        connections.ends(seat, true, (0, 0), at(10));
        stands(State::Serving, 10);
        connections.ends(seat, true, (0, 0), at(11));
        stands(State::Idle, 11);
        connections.ends(seat, false, (0, 0), at(12));
        stands(State::Idle, 12);
        assert_eq!(connections.list(1).0[0].connection.requests, 6);
    }

    #[test]
    fn what_is_said_of_a_connection_that_has_left_goes_nowhere() {
        let connections = Connections::default();
        let (peer, now) = (SocketAddr::from(([127, 0, 0, 1], 9)), Instant::now());
        let gone = connections.enter(ListenerKey(0), peer, now);
        connections.leave(gone);
        connections.begins(gone, now);
        connections.passes(gone, 1, 1);
        connections.switches(gone, now);
        connections.ends(gone, true, (1, 1), now);
        assert_eq!((connections.since(gone), connections.list(10).0.len()), (None, 0));
    }

    #[test]
    fn a_crowd_that_has_gone_leaves_no_empty_seats_behind() {
        let connections = Connections::default();
        let (peer, now) = (SocketAddr::from(([127, 0, 0, 1], 9)), Instant::now());
        let enter = || connections.enter(ListenerKey(0), peer, now);
        let crowd: Vec<Seat> = (0..10_000).map(|_| enter()).collect();
        let stays = crowd[7];
        crowd.iter().filter(|seat| **seat != stays).for_each(|seat| connections.leave(*seat));
        assert_eq!(connections.0.borrow().seats.len(), 8);
        assert!(connections.0.borrow().seats.capacity() <= limits::CONNECTION_SEATS_KEPT);
        // Each seat is given once.
        let seats: Vec<u32> = (0..20).map(|_| enter().0).collect();
        let expected: Vec<u32> = (0..7).chain(8..21).collect();
        assert_eq!(seats, expected);
        assert_eq!(connections.list(100).0.len(), 21);
        assert_eq!(connections.list(0).1, [(ListenerKey(0), 21)]);
    }
}
