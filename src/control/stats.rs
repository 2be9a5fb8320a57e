//! Statistics of all cores, merged when somebody asks: counters are read where they are, histograms
//! are handed over by the cores.

use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::control::Control;
use crate::control::message::{ShardState, ToShard};
use crate::limits;
use crate::plan::Plan;
use crate::telemetry::metrics::{Cluster, Core, Snapshot, new_histogram};

/// What the cores have reported, summed since the start.
pub(crate) struct Totals {
    cores: Vec<CoreTotals>,
    durations: Histogram<u64>,
    /// Questions asked so far. Several may be open at once: each waits for the answers to itself.
    rounds: u64,
    pub(crate) log: Option<crate::events::publisher::PublisherHandle>,
}

struct CoreTotals {
    /// The last question that it answered; it answers them in order.
    answered: u64,
    busy: Duration,
    panics: u64,
    lag: Histogram<u64>,
    lag_micros: u64,
    upstream_connections: Vec<u64>,
}

impl Totals {
    pub(super) fn new(
        cores: usize,
        log: Option<crate::events::publisher::PublisherHandle>,
    ) -> Totals {
        let core = || CoreTotals {
            answered: 0,
            busy: Duration::ZERO,
            panics: 0,
            lag: new_histogram(),
            lag_micros: 0,
            upstream_connections: Vec::new(),
        };
        Totals {
            cores: (0..cores).map(|_| core()).collect(),
            durations: new_histogram(),
            rounds: 0,
            log,
        }
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
        totals.upstream_connections = state.upstream_connections;
        // Ours reach as far as theirs do, so nothing can be out of range.
        totals.lag.add(&state.core.lag).expect("its bounds are within ours");
        self.durations.add(&state.durations).expect("its bounds are within ours");
    }
}

fn sum(histogram: &Histogram<u64>) -> u64 {
    histogram.iter_recorded().map(|v| v.value_iterated_to() * v.count_at_value()).sum()
}

/// Asks every core, waits for the answers as long as a scraper would, and takes what is there.
pub(crate) async fn snapshot(control: &Rc<Control>) -> Snapshot {
    let round = control.totals.borrow_mut().ask();
    control.to_shards(|| ToShard::Report(round));
    let answered = |control: &Control| control.totals.borrow().have_answered(round);
    if !control.until(limits::REPORT_TIMEOUT, answered).await {
        log::warn!("a core is too busy to report: some of its figures are older than asked for");
    }
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
        clusters: clusters(&control.plan, &totals),
        durations: totals.durations.clone(),
        access_log_lines: written.lines,
        access_log_dropped_lines: written.dropped_lines,
        draining: control.draining.get(),
        rules_version: control.plan.version,
    }
}

fn clusters(plan: &Plan, totals: &Totals) -> Vec<Cluster> {
    let connections = |id: usize| {
        totals.cores.iter().filter_map(|core| core.upstream_connections.get(id)).sum::<u64>()
    };
    plan.clusters
        .iter()
        .enumerate()
        .map(|(id, cluster)| Cluster { name: cluster.name.clone(), connections: connections(id) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::CoreState;

    fn answer(round: u64) -> ShardState {
        let mut durations = new_histogram();
        durations.record(5).expect("it is within the bounds");
        let (lag, cpu) = (new_histogram(), Duration::from_secs(round));
        let core = CoreState { descriptors: 0, timers: 0, buffers: 0, panics: 0, lag, cpu };
        ShardState { round, core, durations, upstream_connections: vec![round] }
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
        assert_eq!(totals.durations.len(), 4, "what each answer brings is kept");
    }
}
