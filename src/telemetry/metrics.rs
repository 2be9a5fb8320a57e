//! The metrics page (Prometheus text format) and the cores page. The control core fills a
//! `Snapshot` from the data cores' cells and renders it on demand.
//! A label exists only where the sum over it is the total; per-core series have names of their own.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::exchange::failure::{Failure, Side};
use crate::http::head::Method;
use crate::telemetry::metric_names::{self as names, Kind, Metric};
use crate::telemetry::{decimal, json};

// --- numbers --------------------------------------------------------------------------------

/// The process at one moment: plain numbers, read from the cores one after the other.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub cores: Vec<Core>,
    pub clusters: Vec<Cluster>,
    /// Durations of exchanges in microseconds, all cores merged, since the start.
    pub durations: Histogram<u64>,
    /// Written by the publisher.
    pub access_log_lines: u64,
    /// Dropped by the publisher; those dropped by cores are in their counts.
    pub access_log_dropped_lines: u64,
    pub draining: bool,
    pub rules_version: u64,
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

#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: String,
    pub connections: u64,
}

/// What one core counts. All but `connections_active` only grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    pub connections: u64,
    pub connections_active: u64,
    pub connections_handed_over: u64,
    pub connection_limit_waits: u64,
    pub connections_recalled: u64,
    pub accept_errors: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub panics: u64,
    pub access_log_dropped_lines: u64,
    /// The sum of all exchanges' durations.
    pub duration_micros: u64,
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
            accept_errors: 0,
            bytes_in: 0,
            bytes_out: 0,
            panics: 0,
            access_log_dropped_lines: 0,
            duration_micros: 0,
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
        self.accept_errors += other.accept_errors;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.panics += other.panics;
        self.access_log_dropped_lines += other.access_log_dropped_lines;
        self.duration_micros += other.duration_micros;
        for (sum, more) in self.failures.iter_mut().zip(&other.failures) {
            *sum += more;
        }
        for (sum, more) in self.answers.iter_mut().zip(&other.answers) {
            *sum += more;
        }
    }

    fn failures_where(&self, wanted: impl Fn(Failure) -> bool) -> u64 {
        let counted = Failure::ALL.into_iter().zip(self.failures);
        counted.filter(|(failure, _)| wanted(*failure)).map(|(_, count)| count).sum()
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

/// For durations of exchanges (up to an hour) and for loop lag: three significant digits.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_max(3_600_000_000, 3).expect("bounds and digits are in range")
}

// --- the metrics page -----------------------------------------------------------------------

/// Appends the page: Prometheus text format 0.0.4.
pub fn render(snapshot: &Snapshot, out: &mut Vec<u8>) {
    let merged = snapshot.merged();
    plain(names::CONNECTIONS_TOTAL, merged.connections, out);
    plain(names::CONNECTIONS_ACTIVE, merged.connections_active, out);
    plain(names::CONNECTIONS_HANDED_OVER_TOTAL, merged.connections_handed_over, out);
    plain(names::CONNECTION_LIMIT_TOTAL, merged.connection_limit_waits, out);
    plain(names::CONNECTIONS_RECALLED_TOTAL, merged.connections_recalled, out);
    plain(names::ACCEPT_ERRORS_TOTAL, merged.accept_errors, out);
    plain(names::REQUESTS_TOTAL, merged.requests(), out);
    plain(names::BYTES_IN_TOTAL, merged.bytes_in, out);
    plain(names::BYTES_OUT_TOTAL, merged.bytes_out, out);
    failures(&merged, out);
    let backend_errors = merged.failures_where(|failure| failure.side() == Side::Upstream);
    plain(names::BACKEND_ERRORS_TOTAL, backend_errors, out);
    plain(names::TIMEOUT_ERRORS_TOTAL, merged.failures_where(Failure::is_timeout), out);
    plain(names::PANICS_TOTAL, merged.panics, out);
    durations(names::REQUEST_DURATION_SECONDS, snapshot, &merged, out);
    header(names::UPSTREAM_CONNECTIONS, out);
    for cluster in &snapshot.clusters {
        let labels = [("cluster", cluster.name.as_str())];
        sample(names::UPSTREAM_CONNECTIONS.name, "", &labels, cluster.connections, out);
    }
    plain(names::ACCESS_LOG_LINES_TOTAL, snapshot.access_log_lines, out);
    let dropped = snapshot.access_log_dropped_lines + merged.access_log_dropped_lines;
    plain(names::ACCESS_LOG_DROPPED_TOTAL, dropped, out);
    plain(names::DRAINING, u64::from(snapshot.draining), out);
    plain(names::RULES_VERSION, snapshot.rules_version, out);
    cores(snapshot, out);
    answers(&merged, out);
    durations(names::HTTP_REQUEST_DURATION_SECONDS, snapshot, &merged, out);
}

/// All of them, zeros too: a series that begins with its first error shows no increase.
fn failures(counts: &Counts, out: &mut Vec<u8>) {
    header(names::FAILURES_TOTAL, out);
    for (failure, count) in Failure::ALL.into_iter().zip(counts.failures) {
        let labels = [("reason", reason(failure)), ("side", failure.side().label())];
        sample(names::FAILURES_TOTAL.name, "", &labels, count, out);
    }
}

/// One series for all malformed heads: which rule was broken is in the access log.
fn reason(failure: Failure) -> &'static str {
    if matches!(failure, Failure::Malformed(_)) { "malformed" } else { failure.label() }
}

fn answers(counts: &Counts, out: &mut Vec<u8>) {
    header(names::HTTP_REQUESTS_TOTAL, out);
    for (method, by_status) in METHODS.iter().zip(counts.answers.chunks(STATUS_SLOTS)) {
        for (slot, &count) in by_status.iter().enumerate().filter(|(_, count)| **count > 0) {
            let mut status = Vec::with_capacity(3);
            decimal::padded(if slot == 0 { 0 } else { slot as u64 + 99 }, 3, &mut status);
            let status = str::from_utf8(&status).expect("digits are ASCII");
            let labels = [("method", *method), ("status", status)];
            sample(names::HTTP_REQUESTS_TOTAL.name, "", &labels, count, out);
        }
    }
}

fn cores(snapshot: &Snapshot, out: &mut Vec<u8>) {
    let numbers: Vec<String> = (0..snapshot.cores.len()).map(|core| core.to_string()).collect();
    let cores = || numbers.iter().map(String::as_str).zip(&snapshot.cores);
    header(names::CORE_CONNECTIONS, out);
    for (number, core) in cores() {
        let open = core.counts.connections_active;
        sample(names::CORE_CONNECTIONS.name, "", &[("core", number)], open, out);
    }
    header(names::CORE_REQUESTS_TOTAL, out);
    for (number, core) in cores() {
        let requests = core.counts.requests();
        sample(names::CORE_REQUESTS_TOTAL.name, "", &[("core", number)], requests, out);
    }
    header(names::CORE_BUSY_SECONDS_TOTAL, out);
    for (number, core) in cores() {
        series(names::CORE_BUSY_SECONDS_TOTAL.name, "", &[("core", number)], out);
        decimal::micros_as_seconds(micros(core.busy), out);
        out.push(b'\n');
    }
    header(names::CORE_LOOP_LAG_SECONDS, out);
    for (number, core) in cores() {
        let labels = [("core", number)];
        buckets(
            names::CORE_LOOP_LAG_SECONDS,
            &labels,
            LAGS,
            &core.loop_lag,
            core.loop_lag_micros,
            out,
        );
    }
}

fn durations(metric: Metric, snapshot: &Snapshot, merged: &Counts, out: &mut Vec<u8>) {
    header(metric, out);
    buckets(metric, &[], DURATIONS, &snapshot.durations, merged.duration_micros, out);
}

/// Cumulative counts in one pass. A value counts for the bound that its histogram slot begins
/// under, which is exact to 0.1 %.
fn buckets(
    metric: Metric,
    labels: &[(&str, &str)],
    bounds: &[(u64, &str)],
    histogram: &Histogram<u64>,
    sum_micros: u64,
    out: &mut Vec<u8>,
) {
    let mut counts = vec![0_u64; bounds.len()];
    for slot in histogram.iter_recorded() {
        let value = histogram.lowest_equivalent(slot.value_iterated_to());
        if let Some(index) = bounds.iter().position(|&(bound, _)| value <= bound) {
            counts[index] += slot.count_at_value();
        }
    }
    let mut total = 0;
    let mut with_bound = labels.to_vec();
    for (&(_, bound), count) in bounds.iter().zip(counts) {
        total += count;
        with_bound.push(("le", bound));
        sample(metric.name, "_bucket", &with_bound, total, out);
        with_bound.pop();
    }
    with_bound.push(("le", "+Inf"));
    sample(metric.name, "_bucket", &with_bound, histogram.len(), out);
    series(metric.name, "_sum", labels, out);
    decimal::micros_as_seconds(sum_micros, out);
    out.push(b'\n');
    sample(metric.name, "_count", labels, histogram.len(), out);
}

fn plain(metric: Metric, value: u64, out: &mut Vec<u8>) {
    header(metric, out);
    sample(metric.name, "", &[], value, out);
}

fn header(metric: Metric, out: &mut Vec<u8>) {
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    for part in
        ["# HELP ", metric.name, " ", metric.help, "\n# TYPE ", metric.name, " ", kind, "\n"]
    {
        out.extend_from_slice(part.as_bytes());
    }
}

fn sample(name: &str, suffix: &str, labels: &[(&str, &str)], value: u64, out: &mut Vec<u8>) {
    series(name, suffix, labels, out);
    decimal::integer(value, out);
    out.push(b'\n');
}

/// `name{label="value"} `, up to where the number goes.
fn series(name: &str, suffix: &str, labels: &[(&str, &str)], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(suffix.as_bytes());
    for (index, (label, value)) in labels.iter().enumerate() {
        out.push(if index == 0 { b'{' } else { b',' });
        out.extend_from_slice(label.as_bytes());
        out.extend_from_slice(b"=\"");
        escaped(value, out);
        out.push(b'"');
    }
    if !labels.is_empty() {
        out.push(b'}');
    }
    out.push(b' ');
}

/// What the text format asks of label values: backslash, quote and line feed.
fn escaped(value: &str, out: &mut Vec<u8>) {
    for &byte in value.as_bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => out.push(byte),
        }
    }
}

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

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// In the order of `Method`.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "other"];
const _: () = assert!(Method::Other as usize == METHODS.len() - 1);

/// Never answered, and 100 to 599.
const STATUS_SLOTS: usize = 501;
/// Length of `Counts::answers`.
pub const ANSWER_SLOTS: usize = METHODS.len() * STATUS_SLOTS;

/// Upper bounds in microseconds, and as they are written.
const DURATIONS: &[(u64, &str)] = &[
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
];
const LAGS: &[(u64, &str)] = &[
    (100, "0.0001"),
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (1_000_000, "1"),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::telemetry::snapshot;

    fn core(scale: u64) -> Core {
        let mut counts = Counts {
            connections: 10 * scale,
            connections_active: 3 * scale,
            connections_handed_over: scale,
            connection_limit_waits: 4 * scale,
            connections_recalled: 2 * scale,
            accept_errors: scale,
            bytes_in: 1000 * scale,
            bytes_out: 5000 * scale,
            panics: 0,
            access_log_dropped_lines: scale,
            duration_micros: 1_500_000 * scale,
            ..Counts::default()
        };
        counts.answers[answer_slot(Method::Get, 200)] = 7 * scale;
        counts.answers[answer_slot(Method::Post, 504)] = scale;
        counts.answers[answer_slot(Method::Other, 0)] = 1;
        counts.failures[Failure::FirstByteTimeout.index()] = scale;
        counts.failures[Failure::ClientClosed.index()] = 1;
        let mut loop_lag = new_histogram();
        loop_lag.record_n(80, 99).unwrap();
        loop_lag.record(2_000 * scale).unwrap();
        let loop_lag_micros = 80 * 99 + 2_000 * scale;
        let busy = Duration::from_micros(1_234_567 * scale);
        Core { counts, busy, loop_lag, loop_lag_micros }
    }

    fn sample_snapshot() -> Snapshot {
        let mut durations = new_histogram();
        for micros in [900, 1_000, 1_001, 2_500, 40_000, 40_000, 9_999_999, 30_000_000] {
            durations.record(micros).unwrap();
        }
        let cluster = |name: &str, connections| Cluster { name: name.to_owned(), connections };
        Snapshot {
            cores: vec![core(1), core(2)],
            clusters: vec![cluster("orders", 12), cluster("odd\"\\\nname", 1)],
            durations,
            access_log_lines: 25,
            access_log_dropped_lines: 4,
            draining: false,
            rules_version: 3,
        }
    }

    fn page() -> String {
        let mut out = Vec::new();
        render(&sample_snapshot(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn values(page: &str, name: &str) -> Vec<f64> {
        let samples = page.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        samples.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn the_page_is_as_reviewed() {
        snapshot::snapshot("telemetry/metrics.txt", &page());
    }

    #[test]
    fn the_page_has_every_name_once_with_help_and_type() {
        let page = page();
        for metric in names::ALL {
            let help = format!("# HELP {} ", metric.name);
            let kind = format!("# TYPE {} ", metric.name);
            assert_eq!(page.matches(&help).count(), 1, "{}", metric.name);
            assert_eq!(page.matches(&kind).count(), 1, "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter);
        }
        assert_eq!(page.matches("# TYPE").count(), names::ALL.len());
    }

    #[test]
    fn the_page_is_samples_and_comments_and_no_series_comes_twice() {
        let page = page();
        let mut seen = HashSet::new();
        for line in page.lines().filter(|line| !line.starts_with("# ")) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(seen.insert(series), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
        assert!(page.ends_with('\n'));
    }

    #[test]
    fn sums_over_labels_are_the_totals() {
        let page = page();
        let sum = |name: &str| values(&page, name).into_iter().sum::<f64>();
        let total = |metric: Metric| sum(metric.name);
        assert_eq!(total(names::CORE_REQUESTS_TOTAL), total(names::REQUESTS_TOTAL));
        assert_eq!(total(names::HTTP_REQUESTS_TOTAL), total(names::REQUESTS_TOTAL));
        assert_eq!(total(names::CORE_CONNECTIONS), total(names::CONNECTIONS_ACTIVE));
        assert_eq!(total(names::FAILURES_TOTAL), 5.0);
        assert_eq!(total(names::BACKEND_ERRORS_TOTAL), 3.0);
        assert_eq!(total(names::TIMEOUT_ERRORS_TOTAL), 3.0);
        assert_eq!(total(names::ACCESS_LOG_DROPPED_TOTAL), 7.0);
    }

    #[test]
    fn buckets_are_cumulative_and_a_bound_includes_itself() {
        let counts = values(&page(), "tls_proxy_request_duration_seconds_bucket");
        // 900 and 1000 | 1001 and 2500 | … 40000 twice in 0.05 … 9999999 in 10, 30000000 beyond.
        let expected = [2, 4, 4, 4, 4, 6, 6, 6, 6, 6, 6, 6, 7, 8].map(f64::from);
        assert_eq!(counts, expected);
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
