//! Exchanges that wait for a connection: a bounded queue per cluster and core, whose bound is the
//! process's. The first in it is told when anything is free.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::engine;
use crate::exchange::failure::Failure;
use crate::limits;
use crate::upstream::pool::{Choice, Cluster, Wanted};

#[derive(Default)]
pub(super) struct Waiter {
    waker: RefCell<Option<Waker>>,
    /// Those before it cannot use what is free.
    may_look: Cell<bool>,
    /// It does not take all there is, so what it cannot use may be good for those behind.
    picky: Cell<bool>,
}

impl Waiter {
    fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Cluster {
    pub(super) async fn wait(
        self: &Rc<Self>,
        wanted: Wanted,
        refused: &[SocketAddr],
    ) -> Result<Choice, Failure> {
        let place = Place::take(self).ok_or(Failure::PoolFull)?;
        let mut late = std::pin::pin!(engine::sleep(self.limits.get().queue_timeout));
        let mut look = std::pin::pin!(engine::sleep(limits::SLOT_LOOK_INTERVAL));
        std::future::poll_fn(|context| {
            loop {
                if let Poll::Ready(choice) = place.poll(context, wanted, refused) {
                    return Poll::Ready(Ok(choice));
                }
                if late.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Err(Failure::PoolTimeout));
                }
                // One of a queue is enough to find out.
                if !place.is_first() || look.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                look.set(engine::sleep(limits::SLOT_LOOK_INTERVAL));
                // A letter may be lost, theirs to us or ours to them.
                self.ask_others();
            }
        })
        .await
    }

    pub(super) fn wake_first(&self) {
        let first = self.waiters.borrow().front().map(Rc::clone);
        if let Some(first) = first {
            first.wake();
        }
    }

    /// `waiter` cannot use what is free: the one behind it may.
    fn wake_after(&self, waiter: &Rc<Waiter>) {
        let waiters = self.waiters.borrow();
        let next = waiters.iter().skip_while(|w| !Rc::ptr_eq(w, waiter)).nth(1).map(Rc::clone);
        drop(waiters);
        if let Some(next) = next {
            next.may_look.set(true);
            next.wake();
        }
    }
}

/// A place in the queue, left when dropped.
pub(super) struct Place<'a> {
    cluster: &'a Rc<Cluster>,
    waiter: Rc<Waiter>,
}

impl<'a> Place<'a> {
    /// `None`: as many wait already, in the whole process, as may.
    pub(super) fn take(cluster: &'a Rc<Cluster>) -> Option<Place<'a>> {
        // Counted first and looked at then: two cores cannot both find the last place.
        if cluster.waiting.add(1) > i64::from(cluster.limits.get().queue_max) {
            cluster.waiting.add(-1);
            return None;
        }
        cluster.series.borrow().waiting.add(1);
        let waiter = Rc::new(Waiter::default());
        waiter.may_look.set(cluster.waiters.borrow().iter().all(|w| w.picky.get()));
        cluster.waiters.borrow_mut().push_back(Rc::clone(&waiter));
        cluster.ask_others();
        Some(Place { cluster, waiter })
    }

    fn is_first(&self) -> bool {
        self.cluster.waiters.borrow().front().is_some_and(|w| Rc::ptr_eq(w, &self.waiter))
    }

    /// Only the first in the queue may choose, and the next when those before it cannot use what is
    /// free.
    pub(super) fn poll(
        &self,
        context: &Context<'_>,
        wanted: Wanted,
        refused: &[SocketAddr],
    ) -> Poll<Choice> {
        let is_picky = wanted.is_picky(refused);
        self.waiter.picky.set(is_picky);
        let may_look = self.waiter.may_look.take();
        if may_look || self.is_first() {
            match self.cluster.choose(wanted, refused) {
                // What is no good to one that takes any endpoint is no good to those behind.
                Choice::Full if !is_picky => {}
                Choice::Full => self.cluster.wake_after(&self.waiter),
                choice @ (Choice::Leased(_)
                | Choice::Opening(_)
                | Choice::Open(_)
                | Choice::None) => {
                    return Poll::Ready(choice);
                }
            }
        }
        *self.waiter.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.cluster.waiters.borrow_mut().retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
        self.cluster.waiting.add(-1);
        self.cluster.series.borrow().waiting.sub(1);
        if self.cluster.waiters.borrow().is_empty() {
            self.cluster.ask_no_more();
            self.cluster.pass_on();
        } else {
            // Whatever woke this one may serve the next.
            self.cluster.wake_first();
        }
    }
}
