//! What cores may share: an immutable value behind a handle that is not `Clone`, and counters that
//! one core writes and any core reads. Everything else travels by message.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// A read-only value that several cores hold. It is handed out once per core, which wraps it in its
/// own `Rc`, so that no request touches a shared reference count.
#[derive(Debug)]
pub struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    pub fn new(value: T) -> Shared<T> {
        Shared(Arc::new(value))
    }

    /// A handle for another core. Spelled out, because it must never happen for a request.
    pub fn share(&self) -> Shared<T> {
        Shared(Arc::clone(&self.0))
    }

    /// Both are handles of one value.
    pub fn is_same(&self, other: &Shared<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// No other handle is left, so only the caller could make one.
    pub fn is_last(&self) -> bool {
        Arc::strong_count(&self.0) == 1
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
    pub const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// For a number of things that come and go. A core may have more of them leave than came: the
    /// sum over all cores is right.
    pub fn sub(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(amount), Ordering::Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A level that several cores move: used where an event is rare (a connection opens, is handed
/// over). Who adds and then finds the sum within a maximum may rely on it: all cores see one
/// order.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    pub const fn new() -> Level {
        Level(AtomicI64::new(0))
    }

    pub fn add(&self, amount: i64) -> i64 {
        self.0.fetch_add(amount, Ordering::SeqCst) + amount
    }

    pub fn read(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number of slots that is the whole process's: connections to one endpoint. Taking and giving
/// are one atomic operation each, done when a connection opens or closes, never for a request on a
/// kept one; so the maximum is exact, and a hot core may use all of it.
#[derive(Debug)]
pub struct Permits {
    max: AtomicI64,
    taken: AtomicI64,
    /// Which cores have exchanges waiting for a slot.
    wanting: Box<[AtomicBool]>,
}

impl Permits {
    pub fn new(max: u32, cores: usize) -> Permits {
        let wanting = (0..cores).map(|_| AtomicBool::new(false)).collect();
        Permits { max: AtomicI64::new(i64::from(max)), taken: AtomicI64::new(0), wanting }
    }

    /// True: a slot is the caller's until it gives it back.
    pub fn try_take(&self) -> bool {
        // Never above the maximum, not even for a moment: another core's try must not fail on a
        // slot that nobody has, and then wait for a word that nobody sends.
        let max = self.max.load(Ordering::SeqCst);
        let more = |taken| (taken < max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// Giving and then looking who waits, against wanting and then trying: all four in one order,
    /// so that at least one side sees the other.
    pub fn give(&self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
    }

    /// SeqCst: who says that it waits (`want`) and then looks here sees a slot that was given back
    /// by somebody who did not see it wait.
    pub fn has_room(&self) -> bool {
        self.taken.load(Ordering::SeqCst) < self.max.load(Ordering::SeqCst)
    }

    /// Another maximum. Below what is taken, nothing can be taken until enough was given back.
    pub fn set_max(&self, max: u32) {
        self.max.store(i64::from(max), Ordering::SeqCst);
    }

    pub fn is_beyond(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > self.max.load(Ordering::Relaxed)
    }

    /// For connections that were opened when there was no maximum.
    pub fn take_anyway(&self, count: u32) {
        self.taken.fetch_add(i64::from(count), Ordering::SeqCst);
    }

    /// Says whether a core has exchanges that wait.
    pub fn want(&self, core: usize, wants: bool) {
        if let Some(flag) = self.wanting.get(core)
            && flag.load(Ordering::Relaxed) != wants
        {
            flag.store(wants, Ordering::SeqCst);
        }
    }

    /// Another core that waits, the next after `core` first, so that none is passed over for ever.
    pub fn wanted_by_another(&self, core: usize) -> Option<usize> {
        let cores = self.wanting.len();
        (1..cores)
            .map(|step| (core + step) % cores)
            .find(|&other| self.wanting[other].load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_never_exceeded_by_sixteen_threads() {
        let permits = Permits::new(5, 16);
        let (inside, most) = (AtomicI64::new(0), AtomicI64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if permits.try_take() {
                            most.fetch_max(
                                inside.fetch_add(1, Ordering::SeqCst) + 1,
                                Ordering::SeqCst,
                            );
                            inside.fetch_sub(1, Ordering::SeqCst);
                            permits.give();
                        }
                    }
                });
            }
        });
        assert!(most.into_inner() <= 5);
        assert_eq!(permits.taken.into_inner(), 0);
    }

    #[test]
    fn waiting_cores_are_found_in_turn() {
        let permits = Permits::new(1, 4);
        permits.want(0, true);
        permits.want(2, true);
        assert_eq!(permits.wanted_by_another(1), Some(2));
        assert_eq!(permits.wanted_by_another(2), Some(0));
        permits.want(2, false);
        permits.want(0, false);
        assert_eq!(permits.wanted_by_another(1), None);
    }
}
