//! How fast a client takes a response. A trickle that never stops satisfies every timeout between
//! two writes, and holds an upstream connection for as long as it likes.

use std::cell::Cell;

use crate::engine::Wait;
use crate::limits;

/// How far a client is behind the minimum rate. Only the time in which we waited for it counts, and
/// only what it took meanwhile: what it took at once, or before, gives it no right to stop later.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Bytes.
    behind: Cell<u64>,
}

impl Pace {
    /// Counts one wait. False once the client is too slow; `rate_min` is in bytes a second, 0 for
    /// none.
    pub(super) fn keeps_up(&self, wait: Wait, rate_min: u64) -> bool {
        let millis = u64::try_from(wait.lasted.as_millis()).unwrap_or(u64::MAX);
        let due = rate_min.saturating_mul(millis) / 1000;
        let behind = self.behind.get().saturating_add(due).saturating_sub(wait.taken as u64);
        self.behind.set(behind);
        !self.is_too_slow(rate_min)
    }

    pub(super) fn is_too_slow(&self, rate_min: u64) -> bool {
        self.behind.get() > rate_min.saturating_mul(limits::BODY_RATE_GRACE.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn waits(pace: &Pace, seconds: u64, taken: usize) -> bool {
        pace.keeps_up(Wait { lasted: Duration::from_secs(seconds), taken }, 240)
    }

    #[test]
    fn a_client_may_fall_behind_by_the_grace_and_catch_up() {
        let grace = limits::BODY_RATE_GRACE.as_secs();
        let pace = Pace::default();
        assert!(waits(&pace, grace, 0));
        assert!(!waits(&pace, 1, 239));
        assert!(waits(&pace, 1, 241));
        assert!((0..1000).all(|_| waits(&pace, 1, 240)), "the minimum is enough for ever");
        assert!(waits(&pace, 1, 100_000));
        assert!(waits(&pace, grace, 0));
    }

    #[test]
    fn what_was_taken_fast_is_no_credit() {
        let pace = Pace::default();
        assert!(waits(&pace, 1, usize::MAX));
        assert!(!waits(&pace, 11, 0));
    }

    #[test]
    fn nothing_is_too_slow_without_a_minimum() {
        let wait = Wait { lasted: Duration::from_secs(1_000_000), taken: 1 };
        assert!(Pace::default().keeps_up(wait, 0));
        assert!(!Pace::default().keeps_up(wait, 1));
        assert!(Pace::default().keeps_up(wait, u64::MAX), "numbers do not wrap");
    }
}
