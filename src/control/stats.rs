//! Statistics of all cores, merged when somebody asks: counters are read where they are, what a
//! core knows of its machine is handed over.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use crate::control::Control;
use crate::control::message::{ShardState, ToShard};
use crate::engine;
use crate::telemetry::metrics::{Core, Snapshot, new_histogram};

/// What the cores have reported, summed since the start.
pub(crate) struct Totals {
    cores: Vec<CoreTotals>,
    started: SystemTime,
    /// Reports that came for the current question.
    answers: usize,
    pub(crate) log: Option<crate::events::publisher::PublisherHandle>,
}

struct CoreTotals {
    busy: Duration,
    panics: u64,
    lag: Histogram<u64>,
    lag_micros: u64,
}

impl Totals {
    pub(super) fn new(
        cores: usize,
        log: Option<crate::events::publisher::PublisherHandle>,
    ) -> Totals {
        let core =
            || CoreTotals { busy: Duration::ZERO, panics: 0, lag: new_histogram(), lag_micros: 0 };
        Totals {
            cores: (0..cores).map(|_| core()).collect(),
            started: engine::wall_clock(),
            answers: 0,
            log,
        }
    }

    pub(super) fn add(&mut self, core: usize, state: ShardState) {
        self.answers += 1;
        let totals = &mut self.cores[core];
        totals.busy = state.core.cpu;
        totals.panics = state.core.panics;
        totals.lag_micros += sum(&state.core.lag);
        // Ours reach as far as theirs do, so nothing can be out of range.
        totals.lag.add(&state.core.lag).expect("its bounds are within ours");
    }
}

fn sum(histogram: &Histogram<u64>) -> u64 {
    histogram.iter_recorded().map(|v| v.value_iterated_to() * v.count_at_value()).sum()
}

/// Asks every core, waits for the answers as long as a scraper would, and takes what is there.
pub(crate) async fn snapshot(control: &Rc<Control>) -> Snapshot {
    control.totals.borrow_mut().answers = 0;
    control.to_shards(|| ToShard::Report);
    let cores = control.counters.len();
    control.until(Duration::from_secs(1), |c| c.totals.borrow().answers >= cores).await;
    let mut totals = control.totals.borrow_mut();
    let written = totals.log.as_mut().map(|log| log.written()).unwrap_or_default();
    Snapshot {
        cores: control
            .counters
            .iter()
            .zip(&totals.cores)
            .map(|(counters, totals)| {
                let mut counts = counters.read();
                counts.panics = totals.panics;
                Core {
                    counts,
                    busy: totals.busy,
                    loop_lag: totals.lag.clone(),
                    loop_lag_micros: totals.lag_micros,
                }
            })
            .collect(),
        access_log_lines: written.lines,
        access_log_dropped_lines: written.dropped_lines,
        draining: control.draining.get(),
        rules_version: control.plan.version,
        usage: engine::usage(),
        started: totals.started,
    }
}
