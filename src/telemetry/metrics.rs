//! The numbers of the process at one moment, and the cores page made from them. The control core
//! reads them where the data cores count; [`super::metrics_page`] writes them for scrapers.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use crate::engine::{Counter, Shared, Usage};
use crate::exchange::failure::Failure;
use crate::http::head::Method;
use crate::http2::abuse::Abuse;
use crate::limits;
use crate::plan::Bounds;
use crate::shard::counters::TunnelKind;
use crate::shard::series::{
    ClusterCells, EndpointCells, GrpcCells, ListenerCells, RouteCells, Times,
};
use crate::telemetry::exemplars::Gathered;
use crate::telemetry::tls_metrics::TlsNumbers;
use crate::telemetry::{decimal, json};
use crate::tls::refusal::Reason;

// --- numbers --------------------------------------------------------------------------------

/// The process at one moment: plain numbers, read from the cores one after the other.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub cores: Vec<Core>,
    /// Written by the publisher.
    pub access_log_lines: u64,
    /// Dropped by the publisher; those dropped by cores are in their counts.
    pub access_log_dropped_lines: u64,
    pub process_log_dropped_lines: u64,
    pub error_log_dropped_lines: u64,
    /// As of the access log.
    pub audit_log_dropped_lines: u64,
    /// Taken by the collector, and given up by the exporter.
    pub trace_exported_spans: u64,
    pub trace_failed_spans: u64,
    pub blacklist_entries: u64,
    pub draining: bool,
    pub rules_version: u64,
    pub reloads: ReloadCounts,
    pub fetches: FetchCounts,
    pub tls: TlsNumbers,
    pub usage: Usage,
    pub started: SystemTime,
}

/// New configurations for the process that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReloadCounts {
    pub ok: u64,
    pub refused: u64,
    pub last_is_ok: bool,
    /// When the configuration in force was put there.
    pub last_ok: SystemTime,
    /// Configurations that some exchange still runs with, the newest included.
    pub generations: u64,
}

/// Questions to the server that the configuration comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchCounts {
    /// Answered with a text.
    pub text: u64,
    /// Answered that it is still the same.
    pub unchanged: u64,
    pub failed: u64,
    /// When it was answered last; `None`: it never was.
    pub last_ok: Option<SystemTime>,
}

#[derive(Clone, Debug)]
pub struct Core {
    pub counts: Counts,
    /// CPU time of its thread.
    pub busy: Duration,
    /// In microseconds, since the start.
    pub loop_lag: Histogram<u64>,
    /// The sum of what `loop_lag` holds.
    pub loop_lag_micros: u64,
}

/// What one core counts. All but `connections_active` and `tunnels_active` only grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    pub connections: u64,
    pub connections_active: u64,
    pub connections_handed_over: u64,
    pub connection_limit_waits: u64,
    pub connections_recalled: u64,
    pub connections_blocked: u64,
    pub accept_errors: u64,
    /// Of TLS with clients, that ended well.
    pub handshakes: u64,
    pub handshakes_resumed: u64,
    /// By `Reason`.
    pub refused: [u64; Reason::ALL.len()],
    /// By `Abuse`.
    pub abuses: [u64; Abuse::ALL.len()],
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub panics: u64,
    pub access_log_dropped_lines: u64,
    pub audit_log_dropped_lines: u64,
    pub trace_dropped_spans: u64,
    /// In the order of `TUNNELS`; those that are open now may become fewer.
    pub tunnels: [u64; TUNNEL_KINDS],
    pub tunnels_active: [u64; TUNNEL_KINDS],
    pub durations: Durations,
    /// By `Failure::index`.
    pub failures: [u64; Failure::COUNT],
    /// Every exchange, by `answer_slot`. Flat and dense: a core adds without searching.
    pub answers: Vec<u64>,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            connections: 0,
            connections_active: 0,
            connections_handed_over: 0,
            connection_limit_waits: 0,
            connections_recalled: 0,
            connections_blocked: 0,
            accept_errors: 0,
            handshakes: 0,
            handshakes_resumed: 0,
            refused: [0; Reason::ALL.len()],
            abuses: [0; Abuse::ALL.len()],
            bytes_in: 0,
            bytes_out: 0,
            panics: 0,
            access_log_dropped_lines: 0,
            audit_log_dropped_lines: 0,
            trace_dropped_spans: 0,
            tunnels: [0; TUNNEL_KINDS],
            tunnels_active: [0; TUNNEL_KINDS],
            durations: Durations::default(),
            failures: [0; Failure::COUNT],
            answers: vec![0; ANSWER_SLOTS],
        }
    }
}

impl Counts {
    pub fn requests(&self) -> u64 {
        self.answers.iter().sum()
    }

    pub fn merge(&mut self, other: &Counts) {
        self.connections += other.connections;
        self.connections_active += other.connections_active;
        self.connections_handed_over += other.connections_handed_over;
        self.connection_limit_waits += other.connection_limit_waits;
        self.connections_recalled += other.connections_recalled;
        self.connections_blocked += other.connections_blocked;
        self.accept_errors += other.accept_errors;
        self.handshakes += other.handshakes;
        self.handshakes_resumed += other.handshakes_resumed;
        for (sum, more) in self.refused.iter_mut().zip(&other.refused) {
            *sum += more;
        }
        for (sum, more) in self.abuses.iter_mut().zip(&other.abuses) {
            *sum += more;
        }
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.panics += other.panics;
        self.access_log_dropped_lines += other.access_log_dropped_lines;
        self.audit_log_dropped_lines += other.audit_log_dropped_lines;
        self.trace_dropped_spans += other.trace_dropped_spans;
        for kind in 0..TUNNEL_KINDS {
            self.tunnels[kind] += other.tunnels[kind];
            self.tunnels_active[kind] += other.tunnels_active[kind];
        }
        self.durations.merge(&other.durations);
        for (sum, more) in self.failures.iter_mut().zip(&other.failures) {
            *sum += more;
        }
        for (sum, more) in self.answers.iter_mut().zip(&other.answers) {
            *sum += more;
        }
    }
}

/// Where an exchange is counted. Statuses outside 100 to 599 share the slot of those that were
/// never answered.
pub fn answer_slot(method: Method, status: u16) -> usize {
    let status = match status {
        100..600 => usize::from(status) - 99,
        _ => 0,
    };
    method as usize * STATUS_SLOTS + status
}

impl Snapshot {
    pub fn merged(&self) -> Counts {
        let mut merged = Counts::default();
        for core in &self.cores {
            merged.merge(&core.counts);
        }
        merged
    }
}

/// For loop lag: up to an hour, three significant digits.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_max(3_600_000_000, 3).expect("bounds and digits are in range")
}

/// Durations, by bucket of `Bounds`; not cumulative.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    pub sum_micros: u64,
    pub buckets: [u64; limits::METRICS_BUCKETS_MAX + 1],
}

impl Durations {
    pub(crate) fn of(times: &Times) -> Durations {
        Durations {
            sum_micros: times.sum_micros.read(),
            buckets: times.buckets.each_ref().map(Counter::read),
        }
    }

    pub fn merge(&mut self, other: &Durations) {
        self.sum_micros += other.sum_micros;
        for (sum, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += more;
        }
    }
}

// --- numbers by name ------------------------------------------------------------------------

/// What is counted under some name: the labels that it has on the page, and each core's cells.
#[derive(Debug)]
pub(crate) struct Named<T> {
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) cells: Vec<Shared<T>>,
}

impl<T: Default> Named<T> {
    pub(crate) fn new(labels: Vec<(&'static str, String)>, cores: usize) -> Named<T> {
        Named { labels, cells: (0..cores).map(|_| Shared::new(T::default())).collect() }
    }
}

impl<T> Named<T> {
    /// Of all cores. What is open may have come on one core and gone on another.
    pub(crate) fn sum(&self, of: impl Fn(&T) -> &Counter) -> u64 {
        self.cells.iter().fold(0_u64, |sum, cells| sum.wrapping_add(of(cells).read()))
    }

    /// Of things that come and go: never below zero, whenever it is read.
    pub(crate) fn open(&self, of: impl Fn(&T) -> &Counter) -> u64 {
        u64::try_from(self.sum(of).cast_signed()).unwrap_or(0)
    }

    pub(crate) fn durations(&self, of: impl Fn(&T) -> &Times) -> Durations {
        let mut all = Durations::default();
        self.cells.iter().for_each(|cells| all.merge(&Durations::of(of(cells))));
        all
    }
}

/// Everything that is counted by name, in the order of the page.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) bounds: Bounds,
    pub(crate) listeners: Vec<Rc<Named<ListenerCells>>>,
    pub(crate) routes: Vec<Rc<Named<RouteCells>>>,
    pub(crate) clusters: Vec<Rc<Named<ClusterCells>>>,
    pub(crate) endpoints: Vec<Rc<Named<EndpointCells>>>,
    pub(crate) grpc: Vec<Rc<Named<GrpcCells>>>,
    /// How many of each kind are counted under `other`.
    pub(crate) folded: [(&'static str, u64); 4],
    /// None, where nobody asked for them.
    pub(crate) exemplars: Gathered,
}

/// What is beyond `metrics.max_series`.
pub(crate) const OTHER: &str = "other";
/// Requests that no route matches. Parentheses: no route can be called so.
pub(crate) const UNROUTED: &str = "(none)";

// --- the cores page -------------------------------------------------------------------------

/// The body of `GET /admin/cores`.
pub fn cores_json(snapshot: &Snapshot) -> String {
    let mut out = b"{\"cores\":[".to_vec();
    for (number, core) in snapshot.cores.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.push(b'{');
        member("core", number as u64, &mut out);
        out.push(b',');
        member("connections", core.counts.connections_active, &mut out);
        out.push(b',');
        member("connections_total", core.counts.connections, &mut out);
        out.push(b',');
        member("requests", core.counts.requests(), &mut out);
        out.push(b',');
        json::name("cpu_seconds", &mut out);
        decimal::micros_as_seconds(micros(core.busy), &mut out);
        out.push(b',');
        json::name("loop_lag_us", &mut out);
        out.push(b'{');
        member("p50", core.loop_lag.value_at_quantile(0.5), &mut out);
        out.push(b',');
        member("p99", core.loop_lag.value_at_quantile(0.99), &mut out);
        out.push(b',');
        member("max", core.loop_lag.max(), &mut out);
        out.extend_from_slice(b"}}");
    }
    out.extend_from_slice(b"]}\n");
    String::from_utf8(out).expect("names and digits are ASCII")
}

fn member(name: &str, value: u64, out: &mut Vec<u8>) {
    json::name(name, out);
    decimal::integer(value, out);
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// In the order of `Method`.
pub(crate) const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "other"];
const _: () = assert!(Method::Other as usize == METHODS.len() - 1);

/// In the order of `TunnelKind`.
pub(crate) const TUNNELS: [&str; TUNNEL_KINDS] = ["websocket", "other"];
pub(crate) const TUNNEL_KINDS: usize = 2;
const _: () = assert!(TunnelKind::Other as usize == TUNNEL_KINDS - 1);

/// Never answered, and 100 to 599.
pub(crate) const STATUS_SLOTS: usize = 501;
/// Length of `Counts::answers`.
pub const ANSWER_SLOTS: usize = METHODS.len() * STATUS_SLOTS;

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::telemetry::snapshot;
    use crate::telemetry::tls_metrics::Lasting;

    fn core(scale: u64) -> Core {
        let mut counts = Counts {
            connections: 10 * scale,
            connections_active: 3 * scale,
            connections_handed_over: scale,
            connection_limit_waits: 4 * scale,
            connections_recalled: 2 * scale,
            connections_blocked: 5 * scale,
            accept_errors: scale,
            bytes_in: 1000 * scale,
            bytes_out: 5000 * scale,
            access_log_dropped_lines: scale,
            audit_log_dropped_lines: 2 * scale,
            tunnels: [30 * scale, 2],
            tunnels_active: [12 * scale, 1],
            ..Counts::default()
        };
        counts.durations.sum_micros = 1_500_000 * scale;
        counts.durations.buckets[0] = 7 * scale;
        counts.durations.buckets[3] = scale + 1;
        counts.answers[answer_slot(Method::Get, 200)] = 7 * scale;
        counts.answers[answer_slot(Method::Post, 504)] = scale;
        counts.answers[answer_slot(Method::Other, 0)] = 1;
        counts.failures[Failure::FirstByteTimeout.index()] = scale;
        counts.failures[Failure::ClientClosed.index()] = 1;
        (counts.handshakes, counts.handshakes_resumed) = (9 * scale, 4 * scale);
        counts.refused[Reason::ProxyHeader as usize] = scale;
        counts.refused[Reason::UnknownName as usize] = 2 * scale;
        counts.abuses[Abuse::RapidReset as usize] = scale;
        let mut loop_lag = new_histogram();
        loop_lag.record_n(80, 99).unwrap();
        loop_lag.record(2_000 * scale).unwrap();
        let loop_lag_micros = 80 * 99 + 2_000 * scale;
        let busy = Duration::from_micros(1_234_567 * scale);
        Core { counts, busy, loop_lag, loop_lag_micros }
    }

    fn lasting(certificate: &str, name: &str, seconds: i64) -> Lasting {
        Lasting { certificate: certificate.to_owned(), name: name.to_owned(), seconds }
    }

    pub(crate) fn sample_snapshot() -> Snapshot {
        Snapshot {
            cores: vec![core(1), core(2)],
            access_log_lines: 25,
            access_log_dropped_lines: 4,
            process_log_dropped_lines: 8,
            error_log_dropped_lines: 9,
            audit_log_dropped_lines: 1,
            trace_exported_spans: 31,
            trace_failed_spans: 5,
            blacklist_entries: 6,
            draining: false,
            rules_version: 3,
            reloads: ReloadCounts {
                ok: 2,
                refused: 1,
                last_is_ok: false,
                last_ok: SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_250),
                generations: 2,
            },
            fetches: FetchCounts {
                text: 3,
                unchanged: 40,
                failed: 5,
                last_ok: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_750)),
            },
            tls: TlsNumbers {
                certificates: vec![
                    lasting("/etc/corelane/shop.pem", "shop.example.com", 1_296_000),
                    lasting("/etc/corelane/old.pem", "old.example.com", -86_400),
                ],
                staples: vec![lasting("/etc/corelane/shop.pem", "shop.example.com", 7_200)],
                revocation_lists: vec![("/etc/corelane/revoked.crl".to_owned(), -60)],
                ticket_key_age: Duration::from_millis(600_250),
                broken_files: 3,
            },
            usage: Usage {
                cpu: Duration::from_millis(12_340),
                resident_bytes: 8 << 20,
                open_files: 33,
                open_files_max: 1024,
            },
            started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
        }
    }

    #[test]
    fn every_method_and_status_has_a_slot_and_odd_statuses_share_one() {
        let methods = [Method::Get, Method::Connect, Method::Trace, Method::Other];
        let mut slots = HashSet::new();
        for method in methods {
            assert!(slots.insert(answer_slot(method, 0)));
            for status in 100..600 {
                assert!(slots.insert(answer_slot(method, status)));
            }
            assert_eq!(answer_slot(method, 600), answer_slot(method, 0));
            assert_eq!(answer_slot(method, 99), answer_slot(method, 0));
        }
        assert!(slots.iter().all(|&slot| slot < ANSWER_SLOTS));
    }

    #[test]
    fn the_methods_are_in_the_order_of_the_enum() {
        let known = [
            (Method::Get, "GET"),
            (Method::Head, "HEAD"),
            (Method::Post, "POST"),
            (Method::Put, "PUT"),
            (Method::Delete, "DELETE"),
            (Method::Options, "OPTIONS"),
            (Method::Patch, "PATCH"),
            (Method::Connect, "CONNECT"),
            (Method::Trace, "TRACE"),
            (Method::Other, "other"),
        ];
        for (method, name) in known {
            assert_eq!(METHODS[method as usize], name);
        }
    }

    #[test]
    fn the_cores_page_is_valid_json_as_reviewed() {
        let text = cores_json(&sample_snapshot());
        assert!(json::check::is_valid(text.trim_end().as_bytes()));
        snapshot::snapshot("telemetry/cores.json", &text);
    }
}
