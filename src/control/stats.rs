//! Statistics of all cores, merged when somebody asks: counters are read where they are, histograms
//! are handed over by the cores.

use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::control::Control;
use crate::control::message::{ShardState, ToShard};
use crate::events::exporter::ExporterHandle;
use crate::events::publisher::PublisherHandle;
use crate::plan::Plan;
use crate::telemetry::metrics::{Cluster, Core, Snapshot, new_histogram};

/// What the cores have reported, summed since the start.
pub(crate) struct Totals {
    cores: Vec<CoreTotals>,
    durations: Histogram<u64>,
    /// Reports that came for the current question.
    answers: usize,
    pub(crate) writers: Writers,
}

/// The control core's ends of the threads that write what leaves.
#[derive(Default)]
pub(crate) struct Writers {
    pub(crate) publisher: Option<PublisherHandle>,
    /// By collector.
    pub(crate) exporters: Vec<ExporterHandle>,
}

struct CoreTotals {
    busy: Duration,
    panics: u64,
    lag: Histogram<u64>,
    lag_micros: u64,
    upstream_connections: Vec<u64>,
}

impl Totals {
    pub(super) fn new(cores: usize, writers: Writers) -> Totals {
        let core = || CoreTotals {
            busy: Duration::ZERO,
            panics: 0,
            lag: new_histogram(),
            lag_micros: 0,
            upstream_connections: Vec::new(),
        };
        Totals {
            cores: (0..cores).map(|_| core()).collect(),
            durations: new_histogram(),
            answers: 0,
            writers,
        }
    }

    /// For the end of the process.
    pub(super) fn take_writers(&mut self) -> Writers {
        std::mem::take(&mut self.writers)
    }

    pub(super) fn add(&mut self, core: usize, state: ShardState) {
        self.answers += 1;
        let totals = &mut self.cores[core];
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
    control.totals.borrow_mut().answers = 0;
    control.to_shards(|| ToShard::Report);
    let cores = control.counters.len();
    control.until(Duration::from_secs(1), |c| c.totals.borrow().answers >= cores).await;
    let mut totals = control.totals.borrow_mut();
    let Writers { publisher, exporters } = &mut totals.writers;
    let written = publisher.as_mut().map(|log| log.written()).unwrap_or_default();
    let exported: Vec<_> = exporters.iter_mut().map(|exporter| exporter.exported()).collect();
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
        trace_exported_spans: exported.iter().map(|exported| exported.taken).sum(),
        trace_failed_spans: exported.iter().map(|exported| exported.failed).sum(),
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
