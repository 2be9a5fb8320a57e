//! Whether a core still takes connections, and what keeps it from its end: the guards of those that
//! are open.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::control::message::Service;
use crate::engine::Shared;
use crate::shard::Shard;
use crate::shard::doors::Door;
use crate::shard::series::ListenerCells;

/// Whether the core still takes connections, and who wants to know when that changes.
#[derive(Default)]
pub(crate) struct Life {
    draining: Cell<bool>,
    /// It is about to end: see `ToShard::Part`.
    pub(super) parting: Cell<bool>,
    pub(crate) service: Cell<Service>,
    /// Clients that are between two requests get the time to ask once more: only an answer can tell
    /// them to close without crossing their next request.
    pub(super) patient: Cell<bool>,
    stopped: Cell<bool>,
    /// Connections and the listeners' accept loops.
    sessions: Cell<usize>,
    wakers: RefCell<Vec<Waker>>,
}

impl Life {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whoever can say goodbye says it now.
    pub(crate) fn is_parting(&self) -> bool {
        self.parting.get()
    }

    /// Connections end with the answer that they carry.
    pub(crate) fn is_closing(&self) -> bool {
        self.draining.get() || self.service.get() == Service::Closing
    }

    /// Counts a connection until the guard is dropped.
    pub(crate) fn enter(shard: &Rc<Shard>) -> Session {
        shard.life.sessions.set(shard.life.sessions.get() + 1);
        Session(Rc::clone(shard))
    }

    /// Ready once the core drains; for whoever waits without being busy.
    pub(crate) fn poll_draining(&self, context: &Context<'_>) -> Poll<()> {
        if self.draining.get() {
            return Poll::Ready(());
        }
        self.wakers.borrow_mut().push(context.waker().clone());
        Poll::Pending
    }

    pub(super) fn drain(&self) {
        self.draining.set(true);
        self.wake();
    }

    pub(super) fn resume(&self) {
        self.draining.set(false);
        self.patient.set(false);
        self.wake();
    }

    pub(super) fn stop(&self) {
        self.stopped.set(true);
        self.wake();
    }

    fn wake(&self) {
        let wakers = std::mem::take(&mut *self.wakers.borrow_mut());
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(super) async fn until_stopped(&self) {
        self.until(|life| life.stopped.get()).await;
    }

    pub(super) async fn until_empty(&self) {
        self.until(|life| life.sessions.get() == 0 || !life.draining.get()).await;
    }

    async fn until(&self, reached: impl Fn(&Life) -> bool) {
        std::future::poll_fn(|context| {
            if reached(self) {
                return Poll::Ready(());
            }
            self.wakers.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// One open client connection, or one listener that still accepts.
pub(crate) struct Session(Rc<Shard>);

impl Drop for Session {
    fn drop(&mut self) {
        let life = &self.0.life;
        life.sessions.set(life.sessions.get() - 1);
        if life.sessions.get() == 0 && life.draining.get() {
            life.wake();
        }
    }
}

/// One open client connection in the counters that the cores balance by. Its place in the process
/// was taken before; dropping this gives it back.
pub(crate) struct Counted {
    shard: Rc<Shard>,
    listener: Rc<Shared<ListenerCells>>,
}

impl Counted {
    /// `already`: another core has counted it here when it handed it over.
    pub(crate) fn new(shard: &Rc<Shard>, door: &Door, already: bool) -> Counted {
        let listener = door.cells();
        listener.open.add(1);
        if !already {
            shard.counters().connections.add(1);
        }
        Counted { shard: Rc::clone(shard), listener }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.listener.open.sub(1);
        self.shard.counters().connections.add(-1);
        self.shard.open.add(-1);
    }
}
