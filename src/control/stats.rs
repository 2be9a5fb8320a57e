//! Statistics of all cores, merged when somebody asks: counters are read where they are, histograms
//! are handed over by the cores.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::control::Control;
use crate::control::access_log::AccessLog;
use crate::control::message::{GenerationState, ShardState, ToShard};
use crate::plan::ClusterKey;
use crate::telemetry::metrics::{Cluster, Core, Snapshot, new_histogram};

/// What the cores have reported, summed since the start.
pub(crate) struct Totals {
    cores: Vec<CoreTotals>,
    durations: Histogram<u64>,
    /// Reports that came for the current question.
    answers: usize,
    pub(super) log: AccessLog,
}

struct CoreTotals {
    busy: Duration,
    panics: u64,
    lag: Histogram<u64>,
    lag_micros: u64,
    upstream_connections: Vec<(ClusterKey, u64)>,
    generations: Vec<GenerationState>,
}

impl Totals {
    pub(super) fn new(cores: usize) -> Totals {
        let core = || CoreTotals {
            busy: Duration::ZERO,
            panics: 0,
            lag: new_histogram(),
            lag_micros: 0,
            upstream_connections: Vec::new(),
            generations: Vec::new(),
        };
        Totals {
            cores: (0..cores).map(|_| core()).collect(),
            durations: new_histogram(),
            answers: 0,
            log: AccessLog::default(),
        }
    }

    pub(super) fn add(&mut self, core: usize, state: ShardState) {
        self.answers += 1;
        let totals = &mut self.cores[core];
        totals.busy = state.core.cpu;
        totals.panics = state.core.panics;
        totals.lag_micros += sum(&state.core.lag);
        totals.upstream_connections = state.upstream_connections;
        totals.generations = state.generations;
        // Ours reach as far as theirs do, so nothing can be out of range.
        totals.lag.add(&state.core.lag).expect("its bounds are within ours");
        self.durations.add(&state.durations).expect("its bounds are within ours");
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
    control.totals.borrow_mut().answers = 0;
    control.to_shards(|| ToShard::Report);
    let cores = control.counters.len();
    control.until(Duration::from_secs(1), |c| c.totals.borrow().answers >= cores).await;
}

/// Everything as it is now, as far as the cores have answered.
pub(crate) async fn snapshot(control: &Rc<Control>) -> Snapshot {
    ask(control).await;
    let mut totals = control.totals.borrow_mut();
    let written = totals.log.written();
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
        clusters: clusters(control, &totals),
        durations: totals.durations.clone(),
        access_log_lines: written.lines,
        access_log_dropped_lines: written.dropped_lines,
        draining: control.draining.get(),
        rules_version: control.plan().version,
    }
}

fn clusters(control: &Control, totals: &Totals) -> Vec<Cluster> {
    let mut connections: BTreeMap<ClusterKey, u64> = BTreeMap::new();
    for (key, count) in totals.cores.iter().flat_map(|core| &core.upstream_connections) {
        *connections.entry(*key).or_default() += count;
    }
    let current = control.current.borrow();
    let named = current.plan.clusters.iter().zip(&current.cluster_keys);
    named
        .map(|(cluster, key)| Cluster {
            name: cluster.name.clone(),
            connections: connections.get(key).copied().unwrap_or_default(),
        })
        .collect()
}
