//! The core's buffers: lent while a connection has bytes in hand, given back by dropping.
//! An idle connection holds none. In tests a returned buffer is poisoned, kept apart for a while
//! and checked when it is lent again, so that a write after the return is caught.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use crate::limits;

pub struct Buf {
    bytes: Box<[u8]>,
    pool: Rc<Pool>,
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.bytes));
    }
}

impl std::fmt::Debug for Buf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buf({})", self.bytes.len())
    }
}

#[derive(Debug, Default)]
pub(super) struct Pool {
    free: RefCell<Vec<Box<[u8]>>>,
    lent: Cell<usize>,
    /// The fewest free buffers since the last `trim`: nobody needed those.
    spare: Cell<usize>,
    bytes: usize,
    poison: bool,
}

const POISON: u8 = 0xA5;
static POISONED: [u8; limits::BULK_BYTES] = [POISON; limits::BULK_BYTES];
/// How many buffers wait in quarantine before one is lent again, when poisoning.
const QUARANTINE: usize = 64;

impl Pool {
    /// `bytes`: of each buffer.
    pub(super) fn new(bytes: usize, poison: bool) -> Rc<Pool> {
        Rc::new(Pool { bytes, poison, ..Pool::default() })
    }

    pub(super) fn take(self: &Rc<Pool>) -> Buf {
        self.lent.set(self.lent.get() + 1);
        Buf { bytes: self.reuse().unwrap_or_else(|| self.fresh()), pool: Rc::clone(self) }
    }

    /// Buffers that connections hold now.
    pub(super) fn lent(&self) -> usize {
        self.lent.get()
    }

    /// Frees half of what was never needed since the last call.
    pub(super) fn trim(&self) {
        let mut free = self.free.borrow_mut();
        let keep = free.len() - self.spare.get().min(free.len()).div_ceil(2);
        free.truncate(if self.poison { keep.max(QUARANTINE + 1) } else { keep });
        self.spare.set(free.len());
    }

    fn fresh(&self) -> Box<[u8]> {
        vec![0; self.bytes].into_boxed_slice()
    }

    fn reuse(&self) -> Option<Box<[u8]>> {
        let mut free = self.free.borrow_mut();
        let bytes = if self.poison {
            (free.len() > QUARANTINE).then(|| free.remove(0))?
        } else {
            free.pop()?
        };
        self.spare.set(self.spare.get().min(free.len()));
        if self.poison {
            // In one go: byte by byte is slow in a debug build.
            let untouched = *bytes == POISONED[..bytes.len()];
            assert!(untouched, "a buffer was written after it was returned");
        }
        Some(bytes)
    }

    fn give(&self, mut bytes: Box<[u8]>) {
        self.lent.set(self.lent.get() - 1);
        if self.poison {
            bytes.fill(POISON);
        }
        self.free.borrow_mut().push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_lent_again() {
        let pool = Pool::new(64, false);
        let mut buffer = pool.take();
        buffer[0] = 42;
        drop(buffer);
        assert_eq!((pool.lent(), pool.take()[0]), (0, 42));
    }

    #[test]
    fn trimming_keeps_what_was_needed() {
        let pool = Pool::new(64, false);
        drop((0..10).map(|_| pool.take()).collect::<Vec<_>>());
        pool.trim(); // all ten were needed since the pool was made
        assert_eq!(pool.free.borrow().len(), 10);
        drop((0..4).map(|_| pool.take()).collect::<Vec<_>>());
        pool.trim(); // six were not
        assert_eq!(pool.free.borrow().len(), 7);
    }

    #[test]
    fn a_write_after_return_is_caught_when_poisoning() {
        let pool = Pool::new(64, true);
        drop((0..QUARANTINE + 1).map(|_| pool.take()).collect::<Vec<_>>());
        pool.free.borrow_mut()[0][7] = 1;
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.take()));
        assert!(caught.is_err());
    }
}
