//! What a data core counts: its own cells, on its own cache lines, written with plain stores. The
//! control core reads them whenever it likes.

use crate::engine::{Counter, Level};
use crate::exchange::failure::Failure;

/// Highest status that is counted by itself; others share the last cell.
pub(crate) const STATUSES: usize = 600;
/// As `http::head::Method` counts them.
pub(crate) const METHODS: usize = 10;

#[derive(Debug)]
#[repr(align(128))] // two lines: the prefetcher fetches them in pairs
pub(crate) struct Counters {
    /// Open client connections. Another core that hands one over counts it here before it arrives.
    pub(crate) connections: Level,
    pub(crate) accepted: Counter,
    pub(crate) handed_over: Counter,
    pub(crate) requests: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) log_lines_dropped: Counter,
    pub(crate) failures: [Counter; Failure::COUNT],
    pub(crate) statuses: Box<[[Counter; METHODS]]>,
}

impl Counters {
    pub(crate) fn new() -> Counters {
        Counters {
            connections: Level::default(),
            accepted: Counter::default(),
            handed_over: Counter::default(),
            requests: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            log_lines_dropped: Counter::default(),
            failures: [const { Counter::new() }; Failure::COUNT],
            statuses: (0..STATUSES).map(|_| [const { Counter::new() }; METHODS]).collect(),
        }
    }
}
