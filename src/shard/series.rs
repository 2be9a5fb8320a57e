//! What a data core counts by name: cells for each listener, route, cluster and endpoint, made by
//! the control core, one set per core, so that they outlive plans and are read where they are.
//! Written with plain stores by their own core only.

use std::time::Duration;

use crate::engine::{Counter, Shared};
use crate::exchange::failure::Failure;
use crate::exchange::record::Timings;
use crate::grpc::status::Code;
use crate::limits;
use crate::plan::{Bounds, RouteId};

/// Durations, by bucket. Not cumulative: an exchange is one addition in one bucket.
#[derive(Debug, Default)]
pub(crate) struct Times {
    pub(crate) sum_micros: Counter,
    /// The last in use is for what no bound holds.
    pub(crate) buckets: [Counter; limits::METRICS_BUCKETS_MAX + 1],
}

/// A duration whose bucket is known, to be counted in several places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    bucket: usize,
    micros: u64,
}

impl Taken {
    pub(crate) fn new(bounds: &Bounds, duration: Duration) -> Taken {
        let micros = duration.as_micros() as u64;
        Taken { bucket: bounds.bucket(micros), micros }
    }
}

impl Times {
    pub(crate) fn add(&self, taken: Taken) {
        self.sum_micros.add(taken.micros);
        self.buckets[taken.bucket].add(1);
    }
}

/// Exchanges with one part of the configuration.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    /// By the first digit of the status; 0: never answered.
    pub(crate) statuses: [Counter; STATUS_CLASSES],
    pub(crate) durations: Times,
}

pub(crate) const STATUS_CLASSES: usize = 6;

impl Exchanges {
    pub(crate) fn add(&self, status: u16, taken: Taken) {
        let class = usize::from(status / 100);
        self.statuses[if class < STATUS_CLASSES { class } else { 0 }].add(1);
        self.durations.add(taken);
    }
}

// Two lines at the front, as for `Counters`: what other cores write begins elsewhere.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct RouteCells {
    pub(crate) exchanges: Exchanges,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
}

#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct ListenerCells {
    pub(crate) traffic: RouteCells,
    pub(crate) accepted: Counter,
    pub(crate) open: Counter,
}

#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct ClusterCells {
    pub(crate) exchanges: Exchanges,
    pub(crate) queue: Times,
    /// Of new connections only.
    pub(crate) connect: Times,
    /// Likewise: handshakes.
    pub(crate) tls: Times,
    pub(crate) first_byte: Times,
    /// By `Failure::index`.
    pub(crate) failures: [Counter; Failure::COUNT],
    /// Of attempts that were followed by another, likewise.
    pub(crate) retries: [Counter; Failure::COUNT],
    /// Connections that are open.
    pub(crate) open: Counter,
    pub(crate) opened: Counter,
    pub(crate) reused: Counter,
    pub(crate) waiting: Counter,
}

impl Default for ClusterCells {
    fn default() -> ClusterCells {
        ClusterCells {
            exchanges: Exchanges::default(),
            queue: Times::default(),
            connect: Times::default(),
            tls: Times::default(),
            first_byte: Times::default(),
            failures: [const { Counter::new() }; Failure::COUNT],
            retries: [const { Counter::new() }; Failure::COUNT],
            open: Counter::new(),
            opened: Counter::new(),
            reused: Counter::new(),
            waiting: Counter::new(),
        }
    }
}

impl ClusterCells {
    /// The phases that the exchange came to.
    pub(crate) fn add_phases(&self, bounds: &Bounds, timings: &Timings, phases: Phases) {
        self.queue.add(Taken::new(bounds, timings.queue));
        if phases.connect {
            self.connect.add(Taken::new(bounds, timings.connect));
        }
        if phases.tls {
            self.tls.add(Taken::new(bounds, timings.tls));
        }
        if phases.first_byte {
            self.first_byte.add(Taken::new(bounds, timings.first_byte));
        }
    }
}

/// Which phases of the way to an endpoint an exchange came to. All come to the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phases {
    /// It made a connection, or tried to.
    pub(crate) connect: bool,
    /// It began a handshake with the endpoint.
    pub(crate) tls: bool,
    pub(crate) first_byte: bool,
}

#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct EndpointCells {
    pub(crate) exchanges: Exchanges,
    pub(crate) open: Counter,
    /// Connections that could not be made.
    pub(crate) connect_failures: Counter,
}

/// Calls of a route with gRPC.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct GrpcCells {
    /// By their number.
    pub(crate) codes: [Counter; Code::COUNT],
    /// From clients.
    pub(crate) received: MessageCells,
    /// To clients.
    pub(crate) sent: MessageCells,
}

impl Default for GrpcCells {
    fn default() -> GrpcCells {
        GrpcCells {
            codes: [const { Counter::new() }; Code::COUNT],
            received: MessageCells::default(),
            sent: MessageCells::default(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct MessageCells {
    pub(crate) plain: Counter,
    pub(crate) compressed: Counter,
}

/// One core's cells for the listeners and routes of a plan; those of clusters and endpoints come
/// with them.
#[derive(Debug)]
pub struct SeriesShare {
    /// Those that the process began with: the cells are arranged by them.
    pub(crate) bounds: Bounds,
    /// In the plan's order.
    pub(crate) listeners: Vec<Shared<ListenerCells>>,
    /// By `RouteId`, then one for requests that no route matches.
    pub(crate) routes: Vec<Shared<RouteCells>>,
    /// By `Grpc::place`.
    pub(crate) grpc: Vec<Shared<GrpcCells>>,
}

/// What a generation holds of that: doors have the listeners', clusters their own.
pub(crate) struct Series {
    pub(crate) bounds: Bounds,
    pub(crate) routes: Vec<Shared<RouteCells>>,
    pub(crate) grpc: Vec<Shared<GrpcCells>>,
}

impl Series {
    /// `None`: no route was found.
    pub(crate) fn route(&self, id: Option<RouteId>) -> &RouteCells {
        let unrouted = self.routes.len() - 1;
        &self.routes[id.map_or(unrouted, |id| id.0 as usize)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_counts_in_its_class_and_odd_ones_as_never_answered() {
        let bounds = Bounds::usual();
        let cells = Exchanges::default();
        let taken = Taken::new(&bounds, Duration::from_millis(3));
        for status in [0, 99, 101, 200, 204, 302, 404, 499, 503, 599, 600, u16::MAX] {
            cells.add(status, taken);
        }
        let counts = cells.statuses.each_ref().map(Counter::read);
        assert_eq!(counts, [4, 1, 2, 1, 2, 2]);
        assert_eq!(cells.durations.sum_micros.read(), 12 * 3000);
        assert_eq!(cells.durations.buckets[bounds.bucket(3000)].read(), 12);
    }

    #[test]
    fn cells_of_two_cores_share_no_cache_line() {
        assert_eq!(align_of::<RouteCells>(), 128);
        assert_eq!(align_of::<ListenerCells>(), 128);
        assert_eq!(align_of::<ClusterCells>(), 128);
        assert_eq!(align_of::<EndpointCells>(), 128);
    }
}
