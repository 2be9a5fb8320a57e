//! A core's listeners, open and closing. A connection knows the door that it came by: once that is
//! closed, the connection ends after the exchange it is in.

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};

use crate::engine::Shared;
use crate::listener::opening::Opening;
use crate::plan::ListenerKey;
use crate::shard::series::ListenerCells;

pub(crate) struct Door {
    pub(crate) key: ListenerKey,
    /// What the listener was called when it was opened.
    pub(crate) name: String,
    /// Of the name that it has in the newest plan.
    cells: RefCell<Rc<Shared<ListenerCells>>>,
    opening: RefCell<Rc<Opening>>,
    /// Which of them that is: a connection can see with one look that its own is still the newest.
    openings: Cell<u64>,
    closing: Cell<bool>,
    /// Another process goes on with what is queued there.
    handed_over: Cell<bool>,
    /// Its sockets once more, for a process that may take over.
    spare: RefCell<Vec<TcpListener>>,
    /// The accept loop.
    accepting: Cell<Option<Waker>>,
}

impl Door {
    fn new(wanted: Wanted<'_>) -> Rc<Door> {
        Rc::new(Door {
            key: wanted.key,
            name: wanted.name.to_owned(),
            cells: RefCell::new(Rc::new(wanted.cells)),
            opening: RefCell::new(wanted.opening),
            openings: Cell::new(0),
            closing: Cell::new(false),
            handed_over: Cell::new(false),
            spare: RefCell::default(),
            accepting: Cell::new(None),
        })
    }

    /// Where connections are counted that come by it now. One keeps those that it was counted in.
    pub(crate) fn cells(&self) -> Rc<Shared<ListenerCells>> {
        Rc::clone(&self.cells.borrow())
    }

    /// What connections go through that come by it now.
    pub(crate) fn opening(&self) -> Rc<Opening> {
        Rc::clone(&self.opening.borrow())
    }

    /// Counts up whenever that is another.
    pub(crate) fn openings(&self) -> u64 {
        self.openings.get()
    }

    /// True: who came before may have to go.
    fn open_by(&self, opening: Rc<Opening>) -> bool {
        self.openings.set(self.openings.get() + 1);
        let before = self.opening.replace(Rc::clone(&opening));
        !opening.has_rules_of(&before)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    pub(crate) fn is_handed_over(&self) -> bool {
        self.handed_over.get()
    }

    pub(crate) fn keep_spare(&self, socket: TcpListener) {
        self.spare.borrow_mut().push(socket);
    }

    /// Before the last handle on a socket is closed: these would keep its queue open.
    pub(crate) fn drop_spares(&self) {
        self.spare.borrow_mut().clear();
    }

    /// The task that accepts here is woken when the door closes.
    pub(crate) fn tell_when_closing(&self, context: &Context<'_>) {
        self.accepting.set(Some(context.waker().clone()));
    }

    fn close(&self) {
        self.closing.set(true);
        if let Some(waker) = self.accepting.take() {
            waker.wake();
        }
    }
}

/// A listener of a new plan.
pub(crate) struct Wanted<'p> {
    pub(crate) key: ListenerKey,
    pub(crate) name: &'p str,
    pub(crate) cells: Shared<ListenerCells>,
    pub(crate) opening: Rc<Opening>,
}

#[derive(Default)]
pub(crate) struct Doors {
    open: RefCell<Vec<Rc<Door>>>,
    /// Closed by the last install: a connection from another core may still be on its way. Theirs
    /// as long as somebody came by it: its name must not stay on the metrics page for the others.
    closing: RefCell<Vec<Closed>>,
}

struct Closed {
    key: ListenerKey,
    door: Weak<Door>,
    /// Whoever still comes goes through all that the others went through.
    opening: Rc<Opening>,
}

impl Doors {
    /// Opens and closes what a new plan has more and less. True: some door closes, or some who came
    /// by one that stays are to go.
    pub(crate) fn change<'p>(&self, wanted: impl Iterator<Item = Wanted<'p>>) -> bool {
        let mut open = self.open.borrow_mut();
        let (mut before, mut has_other_rules) = (std::mem::take(&mut *open), false);
        for wanted in wanted {
            let known = before.iter().position(|door| door.key == wanted.key);
            open.push(match known {
                None => Door::new(wanted),
                Some(at) => {
                    let door = before.swap_remove(at);
                    *door.cells.borrow_mut() = Rc::new(wanted.cells);
                    has_other_rules |= door.open_by(wanted.opening);
                    door
                }
            });
        }
        drop(open);
        before.iter().for_each(|door| door.close());
        let closes = !before.is_empty();
        let closed = |door: &Rc<Door>| Closed {
            key: door.key,
            door: Rc::downgrade(door),
            opening: door.opening(),
        };
        *self.closing.borrow_mut() = before.iter().map(closed).collect();
        closes || has_other_rules
    }

    /// Every socket once more, for another process.
    pub(crate) fn lend(&self) -> Vec<(ListenerKey, TcpListener)> {
        let mut lent = Vec::new();
        for door in self.open.borrow().iter() {
            let spare = door.spare.borrow();
            lent.extend(spare.iter().filter_map(|s| Some((door.key, s.try_clone().ok()?))));
        }
        lent
    }

    pub(crate) fn hand_over(&self, keys: &[ListenerKey]) {
        for door in self.open.borrow().iter() {
            door.handed_over.set(keys.contains(&door.key));
        }
    }

    /// `None`: no plan that was installed here has had it lately.
    pub(crate) fn find(&self, key: ListenerKey) -> Option<Rc<Door>> {
        if let Some(door) = self.open.borrow().iter().find(|door| door.key == key) {
            return Some(Rc::clone(door));
        }
        let closing = self.closing.borrow();
        let closed = closing.iter().find(|closed| closed.key == key)?;
        Some(closed.door.upgrade().unwrap_or_else(|| closed.again()))
    }

    /// What comes by each of them goes through this now; in the order of the plan. True: some who
    /// came before are to go.
    pub(crate) fn open_by(&self, openings: Vec<Opening>) -> bool {
        let open = self.open.borrow();
        let opened = open.iter().zip(openings);
        opened.fold(false, |others, (door, opening)| door.open_by(Rc::new(opening)) || others)
    }

    /// Keys are given out in order: this one was not known to any plan that came here.
    pub(crate) fn is_to_come(&self, key: ListenerKey) -> bool {
        let (open, closing) = (self.open.borrow(), self.closing.borrow());
        let closed = closing.iter().map(|closed| closed.key);
        open.iter().map(|door| door.key).chain(closed).all(|known| known < key)
    }
}

impl Closed {
    /// For a connection that was on its way when all others had ended: served like them, and on no
    /// page.
    fn again(&self) -> Rc<Door> {
        let (key, cells) = (self.key, Shared::new(ListenerCells::default()));
        let door = Door::new(Wanted { key, name: "", cells, opening: Rc::clone(&self.opening) });
        door.close();
        door
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ListenerKey = ListenerKey(1);
    const B: ListenerKey = ListenerKey(2);

    fn wanted(of: &[(ListenerKey, &'static str)]) -> impl Iterator<Item = Wanted<'static>> {
        let cells = || Shared::new(ListenerCells::default());
        of.iter().map(move |&(key, name)| Wanted {
            key,
            name,
            cells: cells(),
            opening: Rc::default(),
        })
    }

    #[test]
    fn a_door_that_stays_is_the_same_and_one_that_goes_closes() {
        let doors = Doors::default();
        assert!(!doors.change(wanted(&[(A, "a"), (B, "b")])));
        let (a, b) = (doors.find(A).unwrap(), doors.find(B).unwrap());
        assert!(doors.change(wanted(&[(B, "other")])));
        assert!(a.is_closing() && !b.is_closing());
        assert!(Rc::ptr_eq(&doors.find(B).unwrap(), &b));
        assert!(Rc::ptr_eq(&doors.find(A).unwrap(), &a), "a connection may be on its way to it");
        let opening = a.opening();
        drop(a);
        let again = doors.find(A).unwrap();
        assert!(again.is_closing() && Rc::ptr_eq(&again.opening(), &opening), "even now");
        assert!(!doors.change(wanted(&[(B, "other")])));
        assert!(doors.find(A).is_none());
    }

    #[test]
    fn a_key_above_all_others_is_of_a_plan_to_come() {
        let doors = Doors::default();
        doors.change(wanted(&[(A, "a")]));
        assert!(doors.is_to_come(B) && !doors.is_to_come(A));
    }
}
