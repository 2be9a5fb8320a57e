//! What one core has seen of one endpoint: counts, how long answers took, and the last failure.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use crate::exchange::failure::Failure;

/// Four slots to a doubling of microseconds, up to two minutes: quantiles are right to a fifth.
const SLOTS: usize = 4 * 27;

#[derive(Debug)]
pub(crate) struct Tally {
    requests: Cell<u64>,
    failures: Cell<u64>,
    latency_micros: Cell<u64>,
    latencies: [Cell<u32>; SLOTS],
    last: Cell<Option<(Failure, SystemTime)>>,
}

/// The same as plain numbers, of one core or of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tallied {
    /// Sent to the endpoint, or that tried to connect.
    pub requests: u64,
    pub failures: u64,
    /// Sum of the times from the connection being there to the first byte of the answer.
    pub latency_micros: u64,
    latencies: [u32; SLOTS],
    pub last: Option<(Failure, SystemTime)>,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            requests: Cell::new(0),
            failures: Cell::new(0),
            latency_micros: Cell::new(0),
            latencies: [const { Cell::new(0) }; SLOTS],
            last: Cell::new(None),
        }
    }
}

impl Tally {
    pub(crate) fn answered(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.requests.set(self.requests.get() + 1);
        self.latency_micros.set(self.latency_micros.get().saturating_add(micros));
        let slot = &self.latencies[slot(micros)];
        slot.set(slot.get().saturating_add(1));
    }

    pub(crate) fn failed(&self, failure: Failure, at: SystemTime) {
        self.requests.set(self.requests.get() + 1);
        self.failures.set(self.failures.get() + 1);
        self.last.set(Some((failure, at)));
    }

    pub(crate) fn read(&self) -> Tallied {
        Tallied {
            requests: self.requests.get(),
            failures: self.failures.get(),
            latency_micros: self.latency_micros.get(),
            latencies: std::array::from_fn(|slot| self.latencies[slot].get()),
            last: self.last.get(),
        }
    }
}

impl Default for Tallied {
    fn default() -> Tallied {
        Tally::default().read()
    }
}

impl Tallied {
    pub fn add(&mut self, other: &Tallied) {
        self.requests += other.requests;
        self.failures += other.failures;
        self.latency_micros = self.latency_micros.saturating_add(other.latency_micros);
        for (sum, more) in self.latencies.iter_mut().zip(other.latencies) {
            *sum = sum.saturating_add(more);
        }
        let newer = |(_, at): &(Failure, SystemTime)| self.last.is_none_or(|(_, last)| last < *at);
        self.last = other.last.filter(newer).or(self.last);
    }

    /// How many of the latencies there are.
    pub fn answers(&self) -> u64 {
        self.latencies.iter().map(|count| u64::from(*count)).sum()
    }

    /// An upper bound, in microseconds, of this share of the latencies.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.answers() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (slot, count) in self.latencies.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return bound(slot);
            }
        }
        0
    }
}

/// Values below four have a slot each.
fn slot(micros: u64) -> usize {
    if micros < 4 {
        return micros as usize;
    }
    let doubling = micros.ilog2() as usize;
    let quarter = (micros >> (doubling - 2)) as usize & 3;
    (4 * (doubling - 1) + quarter).min(SLOTS - 1)
}

/// The largest value of a slot.
fn bound(slot: usize) -> u64 {
    if slot < 4 {
        return slot as u64;
    }
    let (doubling, quarter) = (slot / 4 + 1, slot as u64 % 4);
    ((5 + quarter) << (doubling - 2)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_slot_whose_bound_is_next_above_it() {
        let mut below = None;
        for slot_number in 0..SLOTS {
            let most = bound(slot_number);
            assert_eq!(slot(most), slot_number);
            assert_eq!(slot(below.map_or(0, |below| below + 1)), slot_number);
            below = Some(most);
        }
        assert_eq!(slot(u64::MAX), SLOTS - 1);
    }

    #[test]
    fn tallies_of_cores_add_up_and_the_newest_failure_is_the_last() {
        let (one, other) = (Tally::default(), Tally::default());
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for _ in 0..99 {
            one.answered(Duration::from_micros(100));
        }
        other.answered(Duration::from_millis(50));
        one.failed(Failure::ConnectRefused, at(5));
        other.failed(Failure::UpstreamReset, at(3));
        let mut sum = other.read();
        sum.add(&one.read());
        assert_eq!((sum.requests, sum.failures, sum.answers()), (102, 2, 100));
        assert_eq!(sum.last, Some((Failure::ConnectRefused, at(5))));
        assert!((100..125).contains(&sum.quantile(0.5)), "{}", sum.quantile(0.5));
        assert!((50_000..62_500).contains(&sum.quantile(1.0)), "{}", sum.quantile(1.0));
        assert_eq!(Tallied::default().quantile(0.99), 0);
    }
}
