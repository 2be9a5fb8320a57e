//! Who waits for the health of the process to change, or for what is to end it, and for no
//! descriptor that could be told: each is woken once for every change, and forgotten when it is
//! dropped.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::task::{Context, Waker};

use crate::engine;
use crate::shard::Shard;
use crate::telemetry::health::Health;

#[derive(Default)]
pub(crate) struct Watchers {
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next: Cell<u64>,
    changes: Cell<u64>,
}

/// Of one task.
pub(crate) struct Watcher<'w> {
    all: &'w Watchers,
    id: u64,
    /// How many changes there had been when it began to wait.
    since: Cell<Option<u64>>,
}

impl Shard {
    pub(super) fn learn_health(&self, health: Health) {
        *self.health.borrow_mut() = health;
        self.watchers.wake();
    }

    /// Everybody looks again whether it is to end.
    pub(super) fn wake_all(&self) {
        engine::wake_all();
        self.watchers.wake();
    }
}

impl Watchers {
    pub(crate) fn enter(&self) -> Watcher<'_> {
        let id = self.next.get();
        self.next.set(id + 1);
        Watcher { all: self, id, since: Cell::new(None) }
    }

    pub(crate) fn wake(&self) {
        self.changes.set(self.changes.get() + 1);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_values().for_each(Waker::wake);
    }
}

impl Watcher<'_> {
    /// To be woken at the next change.
    pub(crate) fn wait(&self, context: &Context<'_>) {
        let now = Some(self.all.changes.get());
        if self.since.replace(now) != now {
            self.all.waiting.borrow_mut().insert(self.id, context.waker().clone());
        }
    }
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        self.all.waiting.borrow_mut().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_once_however_often_it_asked_and_not_at_all_after_it_left() {
        let context = Context::from_waker(Waker::noop());
        let watchers = Watchers::default();
        let (stays, leaves) = (watchers.enter(), watchers.enter());
        (0..3).for_each(|_| stays.wait(&context));
        leaves.wait(&context);
        assert_eq!(watchers.waiting.borrow().len(), 2);
        drop(leaves);
        assert_eq!(watchers.waiting.borrow().len(), 1);
        watchers.wake();
        assert!(watchers.waiting.borrow().is_empty());
        stays.wait(&context);
        assert_eq!(watchers.waiting.borrow().len(), 1, "for the next change");
    }
}
