//! What cores may share: an immutable value behind a handle that is not `Clone`, and counters that
//! one core writes and any core reads. Everything else travels by message.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A read-only value that several cores hold. It is handed out once per core, which wraps it in its
/// own `Rc`, so that no request touches a shared reference count.
#[derive(Debug)]
pub struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    /// One handle per core.
    pub fn split(value: T, handles: usize) -> Vec<Shared<T>> {
        let value = Arc::new(value);
        (0..handles).map(|_| Shared(Arc::clone(&value))).collect()
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Written by its own core only, read by all: a plain store, no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, amount: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(amount),
            Ordering::Relaxed,
        );
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A level that several cores move: used where an event is rare (a connection opens, is handed over).
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    pub fn add(&self, amount: i64) -> i64 {
        self.0.fetch_add(amount, Ordering::Relaxed) + amount
    }

    pub fn read(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}
