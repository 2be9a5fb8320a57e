//! What keeps clients waiting, as the log tells it: once when it begins, then now and then while it
//! lasts, for all cores together.

use std::cell::Cell;
use std::io;
use std::time::Instant;

use crate::control::Control;
use crate::engine;
use crate::limits;
use crate::shard::counters::Counters;

#[derive(Debug, Default)]
pub(crate) struct Complaint {
    last: Cell<Option<Instant>>,
    /// What was counted by then.
    reported: Cell<u64>,
}

impl Complaint {
    /// How many cases there are to tell of, when it is time to. `total`: since the start.
    pub(crate) fn due(&self, now: Instant, total: u64) -> Option<u64> {
        let last = self.last.get();
        if last.is_some_and(|last| now - last < limits::SHORTAGE_COMPLAINT_INTERVAL) {
            return None;
        }
        self.last.set(Some(now));
        Some(total - self.reported.replace(total))
    }
}

impl Control {
    fn sum(&self, count: impl Fn(&Counters) -> u64) -> u64 {
        self.counters.iter().map(|counters| count(counters)).sum()
    }

    pub(super) fn complain_of_limit(&self) {
        let waited = self.sum(|counters| counters.limit_waits.read());
        let Some(clients) = self.full.due(engine::now(), waited) else { return };
        let max = self.plan().limits.connections_max.unwrap_or_default();
        log::warn!(
            "all {max} connections of `limits.max_concurrent_connections` are in use: idle clients \
             are closed for new ones, and new ones wait when none is idle ({clients} had to since \
             this was last said); raise `limits.max_concurrent_connections`, or the open-file \
             limit that its default comes from"
        );
    }

    pub(super) fn complain_of_accept(&self, error: &io::Error) {
        let failed = self.sum(|counters| counters.accept_errors.read());
        let Some(times) = self.cannot_accept.due(engine::now(), failed) else { return };
        let cure = match error.raw_os_error() {
            Some(libc::EMFILE) => {
                "raise the open-file limit (LimitNOFILE=, ulimit -n) or lower \
                 `limits.max_concurrent_connections`"
            }
            Some(libc::ENFILE) => "the whole machine has no more: raise the sysctl fs.file-max",
            Some(libc::ENOBUFS | libc::ENOMEM) => "the kernel has no memory for sockets: free some",
            Some(_) | None => "clients wait until it is possible again",
        };
        log::error!(
            "cannot accept connections: {error} ({times} tries failed since this was last said); \
             {cure}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_told_of_once_in_an_interval_with_all_that_happened_since() {
        let (complaint, start) = (Complaint::default(), engine::precise_now());
        let later = start + limits::SHORTAGE_COMPLAINT_INTERVAL;
        assert_eq!(complaint.due(start, 3), Some(3));
        assert_eq!(complaint.due(start, 9), None);
        assert_eq!(complaint.due(later, 10), Some(7));
        assert_eq!(complaint.due(later, 11), None);
    }
}
