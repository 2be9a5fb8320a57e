//! Statistics of all cores, merged when somebody asks: counters are read where they are, what a
//! core knows of its machine is handed over.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use crate::control::Control;
use crate::control::drain::State;
use crate::control::exporters::Exporters;
use crate::control::message::{GenerationState, ShardState, ToShard};
use crate::engine;
use crate::events::publisher::PublisherHandle;
use crate::limits;
use crate::telemetry::metrics::{Core, Snapshot, new_histogram};
use crate::telemetry::{process_log, stderr};

/// What the cores have reported, summed since the start.
pub(crate) struct Totals {
    cores: Vec<CoreTotals>,
    started: SystemTime,
    /// Questions asked so far. Several may be open at once: each waits for the answers to itself.
    rounds: u64,
    /// `None` once the process ends.
    pub(super) log: Option<PublisherHandle>,
    pub(super) exporters: Exporters,
}

struct CoreTotals {
    /// The last question that it answered; it answers them in order.
    answered: u64,
    busy: Duration,
    panics: u64,
    lag: Histogram<u64>,
    lag_micros: u64,
    generations: Vec<GenerationState>,
}

impl Totals {
    pub(super) fn new(cores: usize, log: Option<PublisherHandle>) -> Totals {
        let core = || CoreTotals {
            answered: 0,
            busy: Duration::ZERO,
            panics: 0,
            lag: new_histogram(),
            lag_micros: 0,
            generations: Vec::new(),
        };
        Totals {
            cores: (0..cores).map(|_| core()).collect(),
            started: engine::wall_clock(),
            rounds: 0,
            log,
            exporters: Exporters::default(),
        }
    }

    /// For the end of the process.
    pub(super) fn take_writers(&mut self) -> (Option<PublisherHandle>, Exporters) {
        (self.log.take(), std::mem::take(&mut self.exporters))
    }

    fn ask(&mut self) -> u64 {
        self.rounds += 1;
        self.rounds
    }

    fn have_answered(&self, round: u64) -> bool {
        self.cores.iter().all(|core| core.answered >= round)
    }

    pub(super) fn add(&mut self, core: usize, state: ShardState) {
        let totals = &mut self.cores[core];
        totals.answered = state.round;
        totals.busy = state.core.cpu;
        totals.panics = state.core.panics;
        totals.lag_micros += sum(&state.core.lag);
        totals.generations = state.generations;
        // Ours reach as far as theirs do, so nothing can be out of range.
        totals.lag.add(&state.core.lag).expect("its bounds are within ours");
    }

    /// The oldest generation that may still have lines for the access log: one with exchanges, or
    /// one that is the newest that some core has said to have.
    pub(super) fn oldest_writing(&self) -> u64 {
        let of_core = |core: &CoreTotals| {
            let (newest, older) = core.generations.split_first()?;
            let busy = older.iter().filter(|generation| generation.exchanges > 0);
            busy.chain([newest]).map(|generation| generation.version).min()
        };
        self.cores.iter().map(|core| of_core(core).unwrap_or_default()).min().unwrap_or_default()
    }

    /// Exchanges by the version that they began with.
    pub(super) fn exchanges(&self) -> BTreeMap<u64, u64> {
        let mut exchanges = BTreeMap::new();
        for generation in self.cores.iter().flat_map(|core| &core.generations) {
            *exchanges.entry(generation.version).or_default() += generation.exchanges;
        }
        exchanges
    }
}

fn sum(histogram: &Histogram<u64>) -> u64 {
    histogram.iter_recorded().map(|v| v.value_iterated_to() * v.count_at_value()).sum()
}

/// Asks every core, and waits for the answers as long as a scraper would.
pub(super) async fn ask(control: &Rc<Control>) {
    let round = control.totals.borrow_mut().ask();
    control.to_shards(|| ToShard::Report(round));
    let answered = |control: &Control| control.totals.borrow().have_answered(round);
    if !control.until(limits::REPORT_TIMEOUT, answered).await {
        log::warn!("a core is too busy to report: some of its figures are older than asked for");
    }
}

/// Everything as it is now, as far as the cores have answered.
pub(crate) async fn snapshot(control: &Rc<Control>) -> Snapshot {
    ask(control).await;
    let mut totals = control.totals.borrow_mut();
    let written = totals.log.as_mut().map(PublisherHandle::written).unwrap_or_default();
    let exported = totals.exporters.exported();
    let error_log = control.plan().error_log.as_ref().map(|log| log.level);
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
        process_log_dropped_lines: stderr::lost(),
        error_log_dropped_lines: written.error_dropped + error_log.map_or(0, process_log::lost),
        audit_log_dropped_lines: written.audit_dropped,
        trace_exported_spans: exported.taken,
        trace_failed_spans: exported.failed,
        blacklist_entries: control.blacklist.len() as u64,
        draining: matches!(control.state(), State::Draining | State::Stopping),
        rules_version: control.plan().version,
        reloads: control.reload_counts(),
        fetches: control.fetch_counts(),
        tls: control.tls_numbers(),
        usage: engine::usage(),
        started: totals.started,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::CoreState;

    fn answer(round: u64) -> ShardState {
        let (mut lag, cpu) = (new_histogram(), Duration::from_secs(round));
        lag.record(5).expect("it is within the bounds");
        let core = CoreState { descriptors: 0, timers: 0, buffers: 0, panics: 0, lag, cpu };
        ShardState { round, core, generations: Vec::new() }
    }

    #[test]
    fn answers_to_an_earlier_question_are_not_taken_for_those_to_a_later_one() {
        let mut totals = Totals::new(2, None);
        let (first, second) = (totals.ask(), totals.ask());
        totals.add(0, answer(first));
        totals.add(0, answer(second));
        assert!(!totals.have_answered(first), "core 1 has said nothing yet");
        totals.add(1, answer(first));
        assert!(totals.have_answered(first));
        assert!(!totals.have_answered(second));
        totals.add(1, answer(second));
        assert!(totals.have_answered(second));
        let kept: u64 = totals.cores.iter().map(|core| core.lag.len()).sum();
        assert_eq!(kept, 4, "what each answer brings is kept");
    }
}
