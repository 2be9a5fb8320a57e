//! The metrics page, family by family. Labels come from the configuration only, never from
//! requests; a label exists only where the sum over it is the total, and whatever is told by part
//! (route, cluster, core, …) has names of its own.

use std::io;
use std::rc::Rc;
use std::time::SystemTime;

use hdrhistogram::Histogram;

use crate::engine::Counter;
use crate::exchange::failure::{Failure, Side};
use crate::http2::abuse::Abuse;
use crate::shard::series::{
    ClusterCells, EndpointCells, Exchanges, ListenerCells, RouteCells, STATUS_CLASSES, Times,
};
use crate::telemetry::exposition::{Outlet, Page};
use crate::telemetry::metric_names::{self as names, Metric};
use crate::telemetry::metrics::{
    Counts, FetchCounts, METHODS, Named, ReloadCounts, STATUS_SLOTS, Series, Snapshot, TUNNELS,
    micros,
};
use crate::telemetry::{decimal, grpc_metrics, tls_metrics};

type Result = io::Result<()>;

/// Writes everything; `compat`: other proxies' names too.
pub(crate) async fn write<O: Outlet>(
    snapshot: &Snapshot,
    series: &Series,
    compat: bool,
    page: &mut Page<O>,
) -> Result {
    let merged = snapshot.merged();
    totals(snapshot, &merged, series, page);
    let errors = (names::BACKEND_ERRORS_TOTAL, "backend");
    by_reason(errors, series, page, |cells, failure| &cells.failures[failure.index()]).await?;
    let retries = (names::UPSTREAM_RETRIES_TOTAL, "cluster");
    by_reason(retries, series, page, |cells, failure| &cells.retries[failure.index()]).await?;
    timeouts(&merged, page);
    page.plain(names::PANICS_TOTAL, merged.panics);
    tls_metrics::write(&snapshot.tls, &merged, page).await?;
    abuses(&merged, page);
    listeners(series, page).await?;
    routes(series, page).await?;
    clusters(series, page).await?;
    pools(series, page).await?;
    endpoints(series, page).await?;
    grpc_metrics::write(&series.grpc, page).await?;
    process(snapshot, &merged, series, page);
    cores(snapshot, page).await?;
    own(snapshot, page);
    if compat {
        compatible(&merged, series, page).await?;
    }
    Ok(())
}

fn abuses<O: Outlet>(merged: &Counts, page: &mut Page<O>) {
    page.header(names::PROTOCOL_ABUSE_TOTAL);
    for (abuse, count) in Abuse::ALL.iter().zip(merged.abuses) {
        page.sample(names::PROTOCOL_ABUSE_TOTAL, &[("reason", abuse.label())], count);
    }
}

fn totals<O: Outlet>(snapshot: &Snapshot, merged: &Counts, series: &Series, page: &mut Page<O>) {
    page.plain(names::CONNECTIONS_TOTAL, merged.connections);
    page.plain(names::CONNECTIONS_ACTIVE, merged.connections_active);
    page.plain(names::CONNECTIONS_HANDED_OVER_TOTAL, merged.connections_handed_over);
    page.plain(names::CONNECTION_LIMIT_TOTAL, merged.connection_limit_waits);
    page.plain(names::CONNECTIONS_RECALLED_TOTAL, merged.connections_recalled);
    page.plain(names::BLACKLISTED_CONNECTIONS_TOTAL, merged.connections_blocked);
    page.plain(names::BLACKLIST_ENTRIES, snapshot.blacklist_entries);
    page.plain(names::ACCEPT_ERRORS_TOTAL, merged.accept_errors);
    answers(names::REQUESTS_TOTAL, merged, page);
    for (metric, counts) in
        [(names::TUNNELS_TOTAL, merged.tunnels), (names::TUNNELS_ACTIVE, merged.tunnels_active)]
    {
        page.header(metric);
        for (protocol, count) in TUNNELS.into_iter().zip(counts) {
            page.sample(metric, &[("protocol", protocol)], count);
        }
    }
    page.plain(names::BYTES_IN_TOTAL, merged.bytes_in);
    page.plain(names::BYTES_OUT_TOTAL, merged.bytes_out);
    requests(names::REQUEST_DURATION_SECONDS, merged, series, page);
    page.header(names::FAILURES_TOTAL);
    for (reason, failure, count) in reasons(merged) {
        let labels = [("reason", reason), ("side", failure.side().label())];
        page.sample(names::FAILURES_TOTAL, &labels, count);
    }
}

/// Of the whole process.
fn requests<O: Outlet>(metric: Metric, merged: &Counts, series: &Series, page: &mut Page<O>) {
    page.header(metric);
    let exemplars = series.exemplars.of(&[]);
    page.durations(metric, &[], &series.bounds, &merged.durations, exemplars);
}

/// All of them, zeros too: a series that begins with its first error shows no increase.
fn reasons(counts: &Counts) -> impl Iterator<Item = (&'static str, Failure, u64)> {
    let counted = Failure::ALL.into_iter().zip(counts.failures);
    let known = counted.filter(|(failure, count)| *count > 0 || !COMING.contains(failure));
    known.map(|(failure, count)| (reason(failure), failure, count))
}

/// No feature brings them about yet.
const COMING: [Failure; 2] = [Failure::RateLimited, Failure::CircuitOpen];

/// One series for all malformed heads: which rule was broken is in the access log.
fn reason(failure: Failure) -> &'static str {
    if matches!(failure, Failure::Malformed(_)) { "malformed" } else { failure.label() }
}

fn timeouts<O: Outlet>(counts: &Counts, page: &mut Page<O>) {
    page.header(names::TIMEOUT_ERRORS_TOTAL);
    for (reason, _, count) in reasons(counts).filter(|(_, failure, _)| failure.is_timeout()) {
        page.sample(names::TIMEOUT_ERRORS_TOTAL, &[("reason", reason)], count);
    }
}

/// Exact statuses, those that came. The ones that alerts ask for are there as soon as their method
/// is, so that the first of them is seen as an increase.
fn answers<O: Outlet>(metric: Metric, counts: &Counts, page: &mut Page<O>) {
    const ASKED_FOR: [usize; 6] = [200, 404, 500, 502, 503, 504];
    page.header(metric);
    for (method, by_status) in METHODS.iter().zip(counts.answers.chunks(STATUS_SLOTS)) {
        let seen = by_status.iter().any(|count| *count > 0);
        for (slot, &count) in by_status.iter().enumerate() {
            let status = if slot == 0 { 0 } else { slot + 99 };
            if count > 0 || (seen && ASKED_FOR.contains(&status)) {
                let mut digits = Vec::with_capacity(3);
                decimal::padded(status as u64, 3, &mut digits);
                let digits = str::from_utf8(&digits).expect("digits are ASCII");
                page.sample(metric, &[("method", method), ("status", digits)], count);
            }
        }
    }
}

/// Those that have happened: clusters times reasons are many.
async fn by_reason<O: Outlet>(
    (metric, label): (Metric, &str),
    series: &Series,
    page: &mut Page<O>,
    of: impl Fn(&ClusterCells, Failure) -> &Counter,
) -> Result {
    page.header(metric);
    for cluster in &series.clusters {
        let upstream = |failure: &Failure| failure.side() == Side::Upstream;
        for failure in Failure::ALL.into_iter().filter(upstream) {
            let count = cluster.sum(|cells| of(cells, failure));
            if count > 0 {
                let labels = [(label, cluster.labels[0].1.as_str()), ("reason", reason(failure))];
                page.sample(metric, &labels, count);
            }
        }
        page.breathe().await?;
    }
    Ok(())
}

// --- families by name -----------------------------------------------------------------------

/// What one family has of each thing.
enum Of<T> {
    Sum(fn(&T) -> &Counter),
    Open(fn(&T) -> &Counter),
    Statuses(fn(&T) -> &Exchanges),
    /// Of whole exchanges: these have exemplars.
    Requests(fn(&T) -> &Exchanges),
    Durations(fn(&T) -> &Times),
}

/// One family: a sample, or a few, for each thing of a kind.
async fn family<T, O: Outlet>(
    metric: Metric,
    things: &[Rc<Named<T>>],
    of: Of<T>,
    series: &Series,
    page: &mut Page<O>,
) -> Result {
    page.header(metric);
    for thing in things {
        let mut labels: Vec<(&str, &str)> =
            thing.labels.iter().map(|(label, value)| (*label, value.as_str())).collect();
        match of {
            Of::Sum(cell) => page.sample(metric, &labels, thing.sum(cell)),
            Of::Open(cell) => page.sample(metric, &labels, thing.open(cell)),
            Of::Requests(exchanges) => {
                let durations = thing.durations(|cells| &exchanges(cells).durations);
                let exemplars = series.exemplars.of(&thing.labels);
                page.durations(metric, &labels, &series.bounds, &durations, exemplars);
            }
            Of::Durations(times) => {
                page.durations(metric, &labels, &series.bounds, &thing.durations(times), &[]);
            }
            Of::Statuses(exchanges) => {
                for (class, label) in CLASSES.iter().enumerate() {
                    labels.push(("status", label));
                    page.sample(metric, &labels, thing.sum(|t| &exchanges(t).statuses[class]));
                    labels.pop();
                }
            }
        }
        page.breathe().await?;
    }
    Ok(())
}

/// Written so that `status=~"5.."` finds them like exact statuses.
const CLASSES: [&str; STATUS_CLASSES] = ["000", "1xx", "2xx", "3xx", "4xx", "5xx"];

async fn listeners<O: Outlet>(series: &Series, page: &mut Page<O>) -> Result {
    let all = &series.listeners;
    let sums: [(Metric, Of<ListenerCells>); 6] = [
        (names::LISTENER_CONNECTIONS_TOTAL, Of::Sum(|cells| &cells.accepted)),
        (names::LISTENER_CONNECTIONS_ACTIVE, Of::Open(|cells| &cells.open)),
        (names::LISTENER_REQUESTS_TOTAL, Of::Statuses(|cells| &cells.traffic.exchanges)),
        (names::LISTENER_BYTES_IN_TOTAL, Of::Sum(|cells| &cells.traffic.bytes_in)),
        (names::LISTENER_BYTES_OUT_TOTAL, Of::Sum(|cells| &cells.traffic.bytes_out)),
        (names::LISTENER_REQUEST_DURATION_SECONDS, Of::Requests(|cells| &cells.traffic.exchanges)),
    ];
    for (metric, of) in sums {
        family(metric, all, of, series, page).await?;
    }
    Ok(())
}

async fn routes<O: Outlet>(series: &Series, page: &mut Page<O>) -> Result {
    let all = &series.routes;
    let families: [(Metric, Of<RouteCells>); 4] = [
        (names::ROUTE_REQUESTS_TOTAL, Of::Statuses(|cells| &cells.exchanges)),
        (names::ROUTE_BYTES_IN_TOTAL, Of::Sum(|cells| &cells.bytes_in)),
        (names::ROUTE_BYTES_OUT_TOTAL, Of::Sum(|cells| &cells.bytes_out)),
        (names::ROUTE_REQUEST_DURATION_SECONDS, Of::Requests(|cells| &cells.exchanges)),
    ];
    for (metric, of) in families {
        family(metric, all, of, series, page).await?;
    }
    Ok(())
}

async fn clusters<O: Outlet>(series: &Series, page: &mut Page<O>) -> Result {
    let all = &series.clusters;
    let families: [(Metric, Of<ClusterCells>); 6] = [
        (names::CLUSTER_REQUESTS_TOTAL, Of::Statuses(|cells| &cells.exchanges)),
        (names::CLUSTER_REQUEST_DURATION_SECONDS, Of::Requests(|cells| &cells.exchanges)),
        (names::CLUSTER_QUEUE_SECONDS, Of::Durations(|cells| &cells.queue)),
        (names::CLUSTER_CONNECT_SECONDS, Of::Durations(|cells| &cells.connect)),
        (names::CLUSTER_TLS_SECONDS, Of::Durations(|cells| &cells.tls)),
        (names::CLUSTER_FIRST_BYTE_SECONDS, Of::Durations(|cells| &cells.first_byte)),
    ];
    for (metric, of) in families {
        family(metric, all, of, series, page).await?;
    }
    Ok(())
}

async fn pools<O: Outlet>(series: &Series, page: &mut Page<O>) -> Result {
    let all = &series.clusters;
    let families: [(Metric, Of<ClusterCells>); 4] = [
        (names::UPSTREAM_CONNECTIONS, Of::Open(|cells| &cells.open)),
        (names::UPSTREAM_OPENED_TOTAL, Of::Sum(|cells| &cells.opened)),
        (names::UPSTREAM_REUSED_TOTAL, Of::Sum(|cells| &cells.reused)),
        (names::UPSTREAM_WAITING, Of::Open(|cells| &cells.waiting)),
    ];
    for (metric, of) in families {
        family(metric, all, of, series, page).await?;
    }
    Ok(())
}

async fn endpoints<O: Outlet>(series: &Series, page: &mut Page<O>) -> Result {
    let all = &series.endpoints;
    let families: [(Metric, Of<EndpointCells>); 4] = [
        (names::ENDPOINT_REQUESTS_TOTAL, Of::Statuses(|cells| &cells.exchanges)),
        (names::ENDPOINT_REQUEST_DURATION_SECONDS, Of::Requests(|cells| &cells.exchanges)),
        (names::ENDPOINT_CONNECTIONS, Of::Open(|cells| &cells.open)),
        (names::ENDPOINT_CONNECT_FAILURES_TOTAL, Of::Sum(|cells| &cells.connect_failures)),
    ];
    for (metric, of) in families {
        family(metric, all, of, series, page).await?;
    }
    Ok(())
}

// --- the process and its cores --------------------------------------------------------------

fn process<O: Outlet>(snapshot: &Snapshot, merged: &Counts, series: &Series, page: &mut Page<O>) {
    page.plain(names::ACCESS_LOG_LINES_TOTAL, snapshot.access_log_lines);
    let dropped = snapshot.access_log_dropped_lines + merged.access_log_dropped_lines;
    page.plain(names::ACCESS_LOG_DROPPED_TOTAL, dropped);
    page.header(names::LOG_DROPPED_TOTAL);
    let audit = snapshot.audit_log_dropped_lines + merged.audit_log_dropped_lines;
    let by_log = [
        ("access", dropped),
        ("audit", audit),
        ("error", snapshot.error_log_dropped_lines),
        ("process", snapshot.process_log_dropped_lines),
    ];
    for (log, lines) in by_log {
        page.sample(names::LOG_DROPPED_TOTAL, &[("log", log)], lines);
    }
    page.plain(names::TRACE_SPANS_EXPORTED_TOTAL, snapshot.trace_exported_spans);
    page.plain(names::TRACE_SPANS_DROPPED_TOTAL, merged.trace_dropped_spans);
    page.plain(names::TRACE_SPANS_FAILED_TOTAL, snapshot.trace_failed_spans);
    page.plain(names::DRAINING, u64::from(snapshot.draining));
    page.plain(names::RULES_VERSION, snapshot.rules_version);
    reloads(&snapshot.reloads, page);
    fetches(&snapshot.fetches, page);
    page.header(names::METRICS_FOLDED);
    for (kind, count) in series.folded {
        page.sample(names::METRICS_FOLDED, &[("kind", kind)], count);
    }
}

fn reloads<O: Outlet>(reloads: &ReloadCounts, page: &mut Page<O>) {
    page.header(names::RELOADS_TOTAL);
    for (outcome, count) in [("ok", reloads.ok), ("refused", reloads.refused)] {
        page.sample(names::RELOADS_TOTAL, &[("outcome", outcome)], count);
    }
    page.plain(names::RELOAD_SUCCESSFUL, u64::from(reloads.last_is_ok));
    page.header(names::RELOAD_SUCCESS_TIMESTAMP_SECONDS);
    let last = reloads.last_ok.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    page.seconds(names::RELOAD_SUCCESS_TIMESTAMP_SECONDS, &[], micros(last));
    page.plain(names::GENERATIONS, reloads.generations);
}

fn fetches<O: Outlet>(counts: &FetchCounts, page: &mut Page<O>) {
    page.header(names::CONFIG_FETCHES_TOTAL);
    let FetchCounts { text, unchanged, failed, last_ok } = counts;
    for (outcome, count) in [("text", text), ("unchanged", unchanged), ("failed", failed)] {
        page.sample(names::CONFIG_FETCHES_TOTAL, &[("outcome", outcome)], *count);
    }
    page.header(names::CONFIG_FETCH_SUCCESS_TIMESTAMP_SECONDS);
    let last = last_ok.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let micros = micros(last.unwrap_or_default());
    page.seconds(names::CONFIG_FETCH_SUCCESS_TIMESTAMP_SECONDS, &[], micros);
}

async fn cores<O: Outlet>(snapshot: &Snapshot, page: &mut Page<O>) -> Result {
    let numbers: Vec<String> = (0..snapshot.cores.len()).map(|core| core.to_string()).collect();
    let cores = || numbers.iter().map(|n| [("core", n.as_str())]).zip(&snapshot.cores);
    page.header(names::CORE_CONNECTIONS);
    for (labels, core) in cores() {
        page.sample(names::CORE_CONNECTIONS, &labels, core.counts.connections_active);
    }
    page.header(names::CORE_REQUESTS_TOTAL);
    for (labels, core) in cores() {
        page.sample(names::CORE_REQUESTS_TOTAL, &labels, core.counts.requests());
    }
    page.header(names::CORE_BUSY_SECONDS_TOTAL);
    for (labels, core) in cores() {
        page.seconds(names::CORE_BUSY_SECONDS_TOTAL, &labels, micros(core.busy));
    }
    page.header(names::CORE_LOOP_LAG_SECONDS);
    for (labels, core) in cores() {
        let counts = lags(&core.loop_lag);
        let metric = names::CORE_LOOP_LAG_SECONDS;
        page.histogram(metric, &labels, LAGS, &counts, core.loop_lag_micros, &[]);
        page.breathe().await?;
    }
    Ok(())
}

/// A value counts for the bound that its slot begins under, which is exact to 0.1 %.
fn lags(histogram: &Histogram<u64>) -> [u64; LAGS.len() + 1] {
    let mut counts = [0; LAGS.len() + 1];
    for slot in histogram.iter_recorded() {
        let value = histogram.lowest_equivalent(slot.value_iterated_to());
        let index = LAGS.iter().position(|&bound| value <= bound).unwrap_or(LAGS.len());
        counts[index] += slot.count_at_value();
    }
    counts
}

/// Upper bounds in microseconds.
const LAGS: &[u64] =
    &[100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 1_000_000];

fn own<O: Outlet>(snapshot: &Snapshot, page: &mut Page<O>) {
    let commit = option_env!("CORELANE_COMMIT").unwrap_or("unknown");
    page.header(names::BUILD_INFO);
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("commit", commit)];
    page.sample(names::BUILD_INFO, &labels, 1);
    let usage = &snapshot.usage;
    page.header(names::PROCESS_CPU_SECONDS_TOTAL);
    page.seconds(names::PROCESS_CPU_SECONDS_TOTAL, &[], micros(usage.cpu));
    page.plain(names::PROCESS_RESIDENT_MEMORY_BYTES, usage.resident_bytes);
    page.plain(names::PROCESS_OPEN_FDS, usage.open_files);
    page.plain(names::PROCESS_MAX_FDS, usage.open_files_max);
    let started = snapshot.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    page.header(names::PROCESS_START_TIME_SECONDS);
    page.seconds(names::PROCESS_START_TIME_SECONDS, &[], micros(started));
}

// --- other proxies' names -------------------------------------------------------------------

async fn compatible<O: Outlet>(merged: &Counts, series: &Series, page: &mut Page<O>) -> Result {
    answers(names::HTTP_REQUESTS_TOTAL, merged, page);
    requests(names::HTTP_REQUEST_DURATION_SECONDS, merged, series, page);
    page.plain(names::HTTP_BYTES_IN_TOTAL, merged.bytes_in);
    page.plain(names::HTTP_BYTES_OUT_TOTAL, merged.bytes_out);
    page.header(names::HTTP_ERRORS_TOTAL);
    for (reason, _, count) in reasons(merged) {
        page.sample(names::HTTP_ERRORS_TOTAL, &[("type", reason)], count);
    }
    page.plain(names::HTTP_ACTIVE_CONNECTIONS, merged.connections_active);
    page.header(names::CONNECTION_POOL_CONNECTIONS);
    for cluster in &series.clusters {
        let labels = [("backend", cluster.labels[0].1.as_str())];
        page.sample(names::CONNECTION_POOL_CONNECTIONS, &labels, cluster.open(|cells| &cells.open));
        page.breathe().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::exchange::record::Timings;
    use crate::plan::Bounds;
    use crate::shard::series::{Phases, Taken};
    use crate::telemetry::exemplars::{Exemplar, Gathered, Kept, Subject};
    use crate::telemetry::exposition::Format;
    use crate::telemetry::exposition::tests::{Whole, ready};
    use crate::telemetry::metric_names::Kind;
    use crate::telemetry::metrics::tests::sample_snapshot;
    use crate::telemetry::{metrics, snapshot};

    fn named<T: Default>(labels: &[(&'static str, &str)]) -> Rc<Named<T>> {
        let labels = labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect();
        Rc::new(Named::new(labels, 2))
    }

    fn sample_series() -> Series {
        let series = Series {
            bounds: Bounds::new(vec![1_000, 10_000, 100_000, 1_000_000]).unwrap(),
            listeners: vec![named(&[("listener", "edge")])],
            routes: vec![named(&[("route", "orders")]), named(&[("route", metrics::UNROUTED)])],
            clusters: vec![named(&[("cluster", "orders")])],
            endpoints: vec![named(&[("cluster", "orders"), ("endpoint", "10.0.0.1:80")])],
            grpc: vec![named(&[("route", "orders/my.Orders/Find")])],
            folded: [("listener", 0), ("cluster", 0), ("route", 2), ("endpoint", 0)],
            exemplars: Gathered::default(),
        };
        let taken = |millis| Taken::new(&series.bounds, Duration::from_millis(millis));
        for core in 0..2 {
            for (status, millis) in [(200, 1), (204, 10), (503, 11), (0, 2_000)] {
                series.listeners[0].cells[core].traffic.exchanges.add(status, taken(millis));
                series.routes[0].cells[core].exchanges.add(status, taken(millis));
                series.clusters[0].cells[core].exchanges.add(status, taken(millis));
                series.endpoints[0].cells[core].exchanges.add(status, taken(millis));
                series.grpc[0].cells[core].codes[usize::from(status == 0)].add(1);
                series.grpc[0].cells[core].sent.plain.add(2);
            }
            let cells: &ClusterCells = &series.clusters[0].cells[core];
            cells.failures[Failure::ConnectRefused.index()].add(2);
            cells.failures[Failure::FirstByteTimeout.index()].add(1);
            cells.retries[Failure::ConnectRefused.index()].add(3);
            let timings = Timings {
                queue: Duration::from_micros(3),
                connect: Duration::from_millis(4),
                tls: Duration::from_millis(6),
                ..Timings::default()
            };
            let phases = Phases { connect: core == 0, tls: core == 0, first_byte: false };
            cells.add_phases(&series.bounds, &timings, phases);
        }
        // Opened on one core, closed on another.
        series.clusters[0].cells[0].open.add(3);
        series.clusters[0].cells[1].open.sub(1);
        series
    }

    fn page(format: Format, compat: bool) -> String {
        let mut page = Page::new(format, Whole::default());
        ready(write(&sample_snapshot(), &sample_series(), compat, &mut page)).unwrap();
        String::from_utf8(ready(page.end()).unwrap().text).unwrap()
    }

    fn sum(page: &str, name: &str) -> f64 {
        let samples = page.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    #[test]
    fn the_page_is_as_reviewed() {
        snapshot::snapshot("telemetry/metrics.txt", &page(Format::Text, true));
        snapshot::snapshot("telemetry/openmetrics.txt", &page(Format::OpenMetrics, false));
    }

    #[test]
    fn the_page_has_every_name_once_with_help_and_type_and_no_other() {
        for (format, compat) in [
            (Format::Text, true),
            (Format::Text, false),
            (Format::OpenMetrics, true),
            (Format::OpenMetrics, false),
        ] {
            let page = page(format, compat);
            let shown: Vec<Metric> = names::ALL
                .into_iter()
                .chain(names::COMPAT.into_iter().filter(|_| compat))
                .collect();
            for metric in &shown {
                let name = if format == Format::Text { metric.name } else { metric.family() };
                assert_eq!(page.matches(&format!("# HELP {name} ")).count(), 1, "{name}");
                assert_eq!(page.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
                assert!(page.contains(&format!("\n{}", metric.name)), "{name} has a sample");
            }
            assert_eq!(page.matches("# TYPE").count(), shown.len());
        }
    }

    #[test]
    fn exemplars_stand_behind_their_buckets_of_request_durations_and_in_openmetrics_only() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_250_000);
        let exemplar = Exemplar { trace_id: 0xabc, micros: 11_500, at };
        let endpoint = "10.0.0.1:80".parse().unwrap();
        let kept = Kept::default();
        for subject in [
            Subject::Process,
            Subject::Listener("edge".to_owned()),
            Subject::Route("orders".to_owned()),
            Subject::Cluster("orders".to_owned()),
            Subject::Endpoint("orders".to_owned(), endpoint),
        ] {
            kept.keep(subject, 2, exemplar);
        }
        let mut gathered = Gathered::default();
        gathered.add(kept.list(at));
        let series = Series { exemplars: gathered, ..sample_series() };
        for (format, count) in [(Format::OpenMetrics, 6), (Format::Text, 0)] {
            let mut page = Page::new(format, Whole::default());
            ready(write(&sample_snapshot(), &series, true, &mut page)).unwrap();
            let page = String::from_utf8(ready(page.end()).unwrap().text).unwrap();
            let shown: Vec<&str> = page.lines().filter(|line| line.contains(" # {")).collect();
            assert_eq!(shown.len(), count, "{shown:#?}");
            let trace = "# {trace_id=\"00000000000000000000000000000abc\"} 0.011500 \
                         1700000000.250000";
            for line in shown {
                assert!(line.contains("request_duration_seconds_bucket{"), "{line}");
                assert!(line.contains("le=\"0.1\"}") && line.ends_with(trace), "{line}");
            }
        }
    }

    #[test]
    fn samples_have_the_labels_that_the_table_says() {
        let page = page(Format::Text, true);
        for metric in names::ALL.into_iter().chain(names::COMPAT) {
            let suffix = if metric.kind == Kind::Histogram { "_count" } else { "" };
            let name = format!("{}{suffix}", metric.name);
            let sample = page.lines().find_map(|line| {
                line.strip_prefix(&name).filter(|rest| rest.starts_with(['{', ' ']))
            });
            let labels: Vec<&str> = sample
                .unwrap()
                .split(['{', ',', '}'])
                .filter_map(|part| Some(part.split_once("=\"")?.0))
                .collect();
            assert_eq!(labels.join(", "), metric.labels, "{name}");
        }
    }

    #[test]
    fn no_series_comes_twice_and_every_value_is_a_number() {
        let page = page(Format::OpenMetrics, true);
        let mut seen = HashSet::new();
        for line in page.lines().filter(|line| !line.starts_with("# ")) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(seen.insert(series), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
        assert!(page.ends_with("\n# EOF\n"));
    }

    #[test]
    fn sums_over_labels_are_the_totals() {
        let page = page(Format::Text, true);
        let total = |metric: Metric| sum(&page, metric.name);
        assert_eq!(total(names::REQUESTS_TOTAL), 26.0);
        assert_eq!(total(names::CORE_REQUESTS_TOTAL), total(names::REQUESTS_TOTAL));
        assert_eq!(total(names::HTTP_REQUESTS_TOTAL), total(names::REQUESTS_TOTAL));
        assert_eq!(total(names::CORE_CONNECTIONS), total(names::CONNECTIONS_ACTIVE));
        assert_eq!(total(names::FAILURES_TOTAL), 5.0);
        assert_eq!(total(names::HTTP_ERRORS_TOTAL), 5.0);
        assert_eq!(total(names::BACKEND_ERRORS_TOTAL), 6.0);
        assert_eq!(total(names::TIMEOUT_ERRORS_TOTAL), 3.0);
        assert_eq!(total(names::ACCESS_LOG_DROPPED_TOTAL), 7.0);
        assert_eq!(total(names::LOG_DROPPED_TOTAL), 7.0 + 7.0 + 9.0 + 8.0);
        assert_eq!(total(names::ROUTE_REQUESTS_TOTAL), 8.0);
        assert_eq!(total(names::UPSTREAM_CONNECTIONS), 2.0);
        assert_eq!(sum(&page, "tls_proxy_cluster_queue_seconds_count"), 2.0);
        assert_eq!(sum(&page, "tls_proxy_cluster_connect_seconds_count"), 1.0);
        assert_eq!(sum(&page, "tls_proxy_cluster_tls_seconds_count"), 1.0);
        assert_eq!(sum(&page, "tls_proxy_cluster_tls_seconds_sum"), 0.006);
    }

    #[test]
    fn what_no_feature_brings_about_yet_is_absent() {
        let page = page(Format::Text, true);
        for absent in ["rate_limited", "circuit_open", "backend_healthy", "cache_hit"] {
            assert!(!page.contains(absent), "{absent}");
        }
    }

    #[test]
    fn a_large_page_leaves_in_pieces() {
        let mut series = sample_series();
        series.routes =
            (0..5_000).map(|n| named(&[("route", format!("route-{n}").as_str())])).collect();
        let mut page = Page::new(Format::Text, Whole::default());
        ready(write(&sample_snapshot(), &series, false, &mut page)).unwrap();
        let whole = ready(page.end()).unwrap();
        assert!(whole.pieces > 10, "{}", whole.pieces);
        assert!(whole.largest < 2 * crate::limits::METRICS_PIECE_BYTES, "{}", whole.largest);
        let text = String::from_utf8(whole.text).unwrap();
        assert_eq!(text.matches("tls_proxy_route_bytes_in_total{").count(), 5_000);
    }
}
