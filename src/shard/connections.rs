//! The client connections of one core: who they are and what they do, for whoever asks. A few plain
//! stores per request; a table that grows with the connections and is used again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use crate::engine;
use crate::plan::ListenerKey;
use crate::shard::doors::Door;
use crate::shard::{Origin, Shard};

/// A connection's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat(u32);

/// What is known of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub peer: SocketAddr,
    pub listener: ListenerKey,
    pub since: Instant,
    /// When it began to serve a request, or to wait for the next.
    pub turned: Instant,
    pub serving: bool,
    pub requests: u32,
    pub received: u64,
    pub sent: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Connections(RefCell<Table>);

#[derive(Debug, Default)]
struct Table {
    seats: Vec<Option<Connection>>,
    free: Vec<u32>,
}

/// Dropped when the connection ends.
pub(crate) struct Seated {
    shard: Rc<Shard>,
    pub(crate) origin: Origin,
}

impl Seated {
    pub(crate) fn new(shard: &Rc<Shard>, door: Rc<Door>, peer: SocketAddr) -> Seated {
        let seat = shard.connections.enter(door.key, peer, engine::now());
        Seated { shard: Rc::clone(shard), origin: Origin { door, peer, seat } }
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
            serving: false,
            requests: 0,
            received: 0,
            sent: 0,
        };
        if let Some(free) = table.free.pop() {
            table.seats[free as usize] = Some(connection);
            return Seat(free);
        }
        table.seats.push(Some(connection));
        Seat(table.seats.len() as u32 - 1)
    }

    fn leave(&self, Seat(seat): Seat) {
        let mut table = self.0.borrow_mut();
        table.seats[seat as usize] = None;
        table.free.push(seat);
    }

    /// A request's head has come.
    pub(crate) fn begins(&self, Seat(seat): Seat, now: Instant) {
        if let Some(connection) = &mut self.0.borrow_mut().seats[seat as usize] {
            connection.serving = true;
            connection.turned = now;
        }
    }

    /// It has ended, with so many bytes.
    pub(crate) fn ends(&self, Seat(seat): Seat, received: u64, sent: u64, now: Instant) {
        if let Some(connection) = &mut self.0.borrow_mut().seats[seat as usize] {
            connection.serving = false;
            connection.turned = now;
            connection.requests = connection.requests.saturating_add(1);
            connection.received += received;
            connection.sent += sent;
        }
    }

    /// Some of them, and how many each listener has that has any.
    pub(crate) fn list(&self, most: usize) -> (Vec<Connection>, Vec<(ListenerKey, u64)>) {
        let table = self.0.borrow();
        let mut open: BTreeMap<ListenerKey, u64> = BTreeMap::new();
        let mut list = Vec::new();
        for connection in table.seats.iter().flatten() {
            *open.entry(connection.listener).or_default() += 1;
            if list.len() < most {
                list.push(*connection);
            }
        }
        (list, open.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_used_again_and_keep_nothing_of_who_sat_there() {
        let connections = Connections::default();
        let (peer, now) = (SocketAddr::from(([127, 0, 0, 1], 9)), Instant::now());
        let first = connections.enter(ListenerKey(0), peer, now);
        let second = connections.enter(ListenerKey(1), peer, now);
        connections.begins(first, now);
        connections.ends(first, 10, 20, now);
        connections.leave(first);
        assert_eq!(connections.enter(ListenerKey(1), peer, now), first);
        let (list, open) = connections.list(10);
        assert_eq!(open, [(ListenerKey(1), 2)]);
        assert_eq!(list.iter().map(|c| c.received + u64::from(c.requests)).sum::<u64>(), 0);
        assert_eq!(connections.list(1).0.len(), 1);
        connections.leave(second);
        assert_eq!(connections.list(10).1, [(ListenerKey(1), 1)]);
    }
}
