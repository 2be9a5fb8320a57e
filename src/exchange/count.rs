//! An exchange that has ended, in the numbers of all that had a part in it: its core, and its
//! listener, route, cluster and endpoint. Additions to cells of this core, no allocation. Bytes of
//! long bodies count while they pass, not hours later.

use std::rc::Rc;

use crate::engine;
use crate::exchange::failure::{Failure, Side};
use crate::exchange::record::Timings;
use crate::exchange::{Exchange, Progress};
use crate::http::head::Method;
use crate::plan::{Action, Bounds};
use crate::shard::counters::Counters;
use crate::shard::series::{ClusterCells, EndpointCells, Phases, RouteCells, Taken};
use crate::shard::{Origin, Shard};
use crate::telemetry::exemplars::{Exemplar, Subject};
use crate::telemetry::metrics::{UNROUTED, answer_slot};

pub(super) fn count(exchange: &Exchange, timings: &Timings, failure: Option<Failure>) {
    let (generation, progress, marks) = (&exchange.generation, &exchange.progress, &exchange.marks);
    let action = exchange.route.map(|id| &generation.route(id).action);
    let cluster = match action {
        Some(Action::Forward(id)) => Some(generation.cluster(*id).series()),
        Some(Action::Respond(_) | Action::Redirect(_) | Action::Echo) | None => None,
    };
    let endpoint = exchange.endpoint.as_ref().map(|endpoint| endpoint.series());
    let listener = exchange.origin.door.cells();
    let places = Places {
        counters: exchange.shard.counters(),
        listener: &listener.traffic,
        route: generation.series.route(exchange.route),
        cluster: cluster.as_ref().map(|cells| &***cells),
        endpoint: endpoint.as_ref().map(|cells| &***cells),
    };
    let facts = Facts {
        method: exchange.head.method,
        status: progress.status.get(),
        received: progress.received.get() - progress.counted.get().0,
        sent: progress.sent.get() - progress.counted.get().1,
        failure,
        phases: Phases {
            connect: marks.admitted.is_some() && !progress.reused.get(),
            // Where there is none to be, both marks are the same.
            tls: marks.connected.is_some() && marks.connected != marks.secured,
            first_byte: marks.first_byte.is_some(),
        },
    };
    places.add(&generation.series.bounds, &facts, timings);
}

/// An attempt that failed, and is followed by another.
pub(super) fn retried(exchange: &Exchange, failure: Failure) {
    let action = exchange.route.map(|id| &exchange.generation.route(id).action);
    if let Some(Action::Forward(id)) = action {
        let cluster = exchange.generation.cluster(*id).series();
        cluster.retries[failure.index()].add(1);
    }
}

/// Counts the bytes of a long exchange on their way.
#[derive(Clone, Copy)]
pub(super) struct Meter<'a> {
    pub(super) shard: &'a Shard,
    pub(super) origin: &'a Origin,
    pub(super) route: &'a RouteCells,
    pub(super) progress: &'a Progress,
}

impl Meter<'_> {
    /// What has passed since the last time.
    pub(super) fn count(&self) {
        let passed = (self.progress.received.get(), self.progress.sent.get());
        let before = self.progress.counted.replace(passed);
        let (received, sent) = (passed.0 - before.0, passed.1 - before.1);
        let counters = self.shard.counters();
        counters.bytes_in.add(received);
        counters.bytes_out.add(sent);
        for cells in [&self.origin.door.cells().traffic, self.route] {
            cells.bytes_in.add(received);
            cells.bytes_out.add(sent);
        }
    }
}

/// Of an exchange whose trace is recorded: it stands for its bucket in the histograms that it was
/// counted in, until the next one does.
#[cold]
pub(super) fn keep_exemplars(exchange: &Exchange, timings: &Timings) {
    let Some(trace_id) = exchange.trace_id() else { return };
    let generation = &exchange.generation;
    if !Rc::ptr_eq(generation, &exchange.shard.generation()) {
        return; // its buckets may be others by now
    }
    let micros = timings.total.as_micros() as u64;
    let bucket = generation.series.bounds.bucket(micros);
    let exemplar = Exemplar { trace_id, micros, at: engine::wall_clock() };
    let keep = |subject| exchange.shard.exemplars.keep(subject, bucket, exemplar);
    keep(Subject::Process);
    keep(Subject::Listener(exchange.listener_name().to_owned()));
    let route = exchange.route.map(|id| generation.route(id));
    keep(Subject::Route(route.map_or(UNROUTED, |route| &route.name).to_owned()));
    if let Some(Action::Forward(id)) = route.map(|route| &route.action) {
        let cluster = &generation.plan.clusters[id.0 as usize].name;
        keep(Subject::Cluster(cluster.clone()));
        if let Some(endpoint) = &exchange.endpoint {
            keep(Subject::Endpoint(cluster.clone(), endpoint.address));
        }
    }
}

/// Where an exchange is counted.
struct Places<'a> {
    counters: &'a Counters,
    listener: &'a RouteCells,
    route: &'a RouteCells,
    /// `None`: it was answered here.
    cluster: Option<&'a ClusterCells>,
    /// `None`: it came to none.
    endpoint: Option<&'a EndpointCells>,
}

/// What is counted of it.
struct Facts {
    method: Method,
    status: u16,
    /// Bytes that were not counted on their way.
    received: u64,
    sent: u64,
    failure: Option<Failure>,
    phases: Phases,
}

impl Places<'_> {
    fn add(&self, bounds: &Bounds, facts: &Facts, timings: &Timings) {
        let taken = Taken::new(bounds, timings.total);
        let counters = self.counters;
        counters.answers[answer_slot(facts.method, facts.status)].add(1);
        counters.bytes_in.add(facts.received);
        counters.bytes_out.add(facts.sent);
        counters.durations.add(taken);
        if let Some(failure) = facts.failure {
            counters.failures[failure.index()].add(1);
        }
        for cells in [self.listener, self.route] {
            cells.exchanges.add(facts.status, taken);
            cells.bytes_in.add(facts.received);
            cells.bytes_out.add(facts.sent);
        }
        if let Some(cells) = self.cluster {
            cells.exchanges.add(facts.status, taken);
            cells.add_phases(bounds, timings, facts.phases);
            if let Some(failure) = facts.failure.filter(|f| f.side() == Side::Upstream) {
                cells.failures[failure.index()].add(1);
            }
        }
        if let Some(cells) = self.endpoint {
            cells.exchanges.add(facts.status, taken);
        }
    }
}

/// For scripts/bench: so many exchanges that were answered well over a kept connection.
pub fn rehearse(iterations: u64) {
    let bounds = std::hint::black_box(Bounds::usual());
    let (counters, cluster, endpoint) =
        (Counters::new(), ClusterCells::default(), EndpointCells::default());
    let (listener, route) = (RouteCells::default(), RouteCells::default());
    let places = Places {
        counters: &counters,
        listener: &listener,
        route: &route,
        cluster: Some(&cluster),
        endpoint: Some(&endpoint),
    };
    let facts = Facts {
        method: Method::Get,
        status: 200,
        received: 100,
        sent: 1000,
        failure: None,
        phases: Phases { connect: false, tls: false, first_byte: true },
    };
    let micros = std::time::Duration::from_micros;
    let timings = Timings { first_byte: micros(300), total: micros(2_000), ..Timings::default() };
    for _ in 0..iterations {
        let places = std::hint::black_box(&places);
        places.add(&bounds, std::hint::black_box(&facts), std::hint::black_box(&timings));
    }
    assert_eq!(counters.read().requests(), iterations);
}
