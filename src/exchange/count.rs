//! An exchange that has ended, in the numbers of all that had a part in it: its core, and its
//! listener, route, cluster and endpoint. Additions to cells of this core, no allocation.

use crate::exchange::Exchange;
use crate::exchange::failure::{Failure, Side};
use crate::exchange::record::Timings;
use crate::plan::Action;
use crate::shard::series::{ClusterCells, Phases, RouteCells, Taken};
use crate::telemetry::metrics::answer_slot;

pub(super) fn count(exchange: &Exchange, timings: &Timings, failure: Option<Failure>) {
    let (generation, progress) = (&exchange.generation, &exchange.progress);
    let status = progress.status.get();
    let bytes = (progress.received.get(), progress.sent.get());
    let taken = Taken::new(&generation.series.bounds, timings.total);
    let counters = exchange.shard.counters();
    counters.answers[answer_slot(exchange.head.method, status)].add(1);
    counters.bytes_in.add(bytes.0);
    counters.bytes_out.add(bytes.1);
    counters.durations.add(taken);
    if let Some(failure) = failure {
        counters.failures[failure.index()].add(1);
    }
    add(&generation.series.listener(exchange.origin.listener).traffic, status, bytes, taken);
    add(generation.series.route(exchange.route), status, bytes, taken);
    let action = exchange.route.map(|id| &generation.route(id).action);
    if let Some(Action::Forward(id)) = action {
        let cells = generation.cluster(*id).series();
        cells.exchanges.add(status, taken);
        add_phases(cells, exchange, timings, failure);
    }
    if let Some(endpoint) = &exchange.endpoint {
        endpoint.series().exchanges.add(status, taken);
    }
}

fn add(cells: &RouteCells, status: u16, bytes: (u64, u64), taken: Taken) {
    cells.exchanges.add(status, taken);
    cells.bytes_in.add(bytes.0);
    cells.bytes_out.add(bytes.1);
}

fn add_phases(
    cells: &ClusterCells,
    exchange: &Exchange,
    timings: &Timings,
    failure: Option<Failure>,
) {
    let marks = &exchange.marks;
    let phases = Phases {
        connect: marks.admitted.is_some() && !exchange.progress.reused.get(),
        first_byte: marks.connected.is_some(),
    };
    cells.add_phases(&exchange.generation.series.bounds, timings, phases);
    if let Some(failure) = failure.filter(|failure| failure.side() == Side::Upstream) {
        cells.failures[failure.index()].add(1);
    }
}
