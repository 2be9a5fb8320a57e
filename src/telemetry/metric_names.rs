//! What metrics are called, what they are, and what their help says: here and nowhere else. The
//! metrics page and its documentation are made from these.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A name with what the page says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, help }
}

const fn histogram(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, help }
}

pub const CONNECTIONS_TOTAL: Metric =
    counter("tls_proxy_connections_total", "Client connections accepted.");
pub const CONNECTIONS_ACTIVE: Metric =
    gauge("tls_proxy_connections_active", "Client connections open now.");
pub const CONNECTIONS_HANDED_OVER_TOTAL: Metric = counter(
    "tls_proxy_connections_handed_over_total",
    "Connections given to a core with fewer of them, before anything was read.",
);
pub const CONNECTION_LIMIT_TOTAL: Metric = counter(
    "tls_proxy_connection_limit_total",
    "Client connections that had to wait for room in limits.max_concurrent_connections.",
);
pub const CONNECTIONS_RECALLED_TOTAL: Metric = counter(
    "tls_proxy_connections_recalled_total",
    "Idle client connections closed to make room for new ones.",
);
pub const ACCEPT_ERRORS_TOTAL: Metric = counter(
    "tls_proxy_accept_errors_total",
    "Tries to accept a connection that failed for want of descriptors or memory.",
);
pub const REQUESTS_TOTAL: Metric =
    counter("tls_proxy_requests_total", "Exchanges that ended, well or not.");
pub const BYTES_IN_TOTAL: Metric =
    counter("tls_proxy_bytes_in_total", "Bytes received from clients, heads included.");
pub const BYTES_OUT_TOTAL: Metric =
    counter("tls_proxy_bytes_out_total", "Bytes sent to clients, heads included.");
pub const FAILURES_TOTAL: Metric = counter(
    "tls_proxy_failures_total",
    "Exchanges that did not succeed, by reason and by the side to blame.",
);
pub const BACKEND_ERRORS_TOTAL: Metric =
    counter("tls_proxy_backend_errors_total", "Exchanges that failed because of a backend.");
pub const TIMEOUT_ERRORS_TOTAL: Metric = counter(
    "tls_proxy_timeout_errors_total",
    "Exchanges that failed because something took too long, on either side.",
);
pub const PANICS_TOTAL: Metric = counter(
    "tls_proxy_panics_total",
    "Connections cut by an error in the proxy itself. Each is in the log: please report it.",
);
pub const REQUEST_DURATION_SECONDS: Metric = histogram(
    "tls_proxy_request_duration_seconds",
    "From the first byte of a request to the last byte of its answer.",
);
pub const UPSTREAM_CONNECTIONS: Metric =
    gauge("tls_proxy_upstream_connections", "Connections to backends, in use or kept, by cluster.");
pub const ACCESS_LOG_LINES_TOTAL: Metric =
    counter("tls_proxy_access_log_lines_total", "Access log lines written.");
pub const ACCESS_LOG_DROPPED_TOTAL: Metric = counter(
    "tls_proxy_access_log_dropped_total",
    "Access log lines lost: the disk was too slow or could not be written.",
);
pub const DRAINING: Metric =
    gauge("tls_proxy_draining", "1 while the proxy finishes what it has and takes nothing new.");
pub const RULES_VERSION: Metric =
    gauge("tls_proxy_rules_version", "Counts up with every configuration that was accepted.");
pub const CORE_CONNECTIONS: Metric =
    gauge("tls_proxy_core_connections", "Client connections open now, by core.");
pub const CORE_REQUESTS_TOTAL: Metric =
    counter("tls_proxy_core_requests_total", "Exchanges that ended, by core.");
pub const CORE_BUSY_SECONDS_TOTAL: Metric =
    counter("tls_proxy_core_busy_seconds_total", "CPU time used, by core.");
pub const CORE_LOOP_LAG_SECONDS: Metric = histogram(
    "tls_proxy_core_loop_lag_seconds",
    "How late the turns of a core's loop begin, by core.",
);
/// The same numbers under the names that other proxies' dashboards ask for.
pub const HTTP_REQUESTS_TOTAL: Metric =
    counter("http_requests_total", "Exchanges that ended, by method and status; 000: no answer.");
pub const HTTP_REQUEST_DURATION_SECONDS: Metric =
    histogram("http_request_duration_seconds", "As tls_proxy_request_duration_seconds.");

/// Every name, in the order of the page.
pub const ALL: [Metric; 25] = [
    CONNECTIONS_TOTAL,
    CONNECTIONS_ACTIVE,
    CONNECTIONS_HANDED_OVER_TOTAL,
    CONNECTION_LIMIT_TOTAL,
    CONNECTIONS_RECALLED_TOTAL,
    ACCEPT_ERRORS_TOTAL,
    REQUESTS_TOTAL,
    BYTES_IN_TOTAL,
    BYTES_OUT_TOTAL,
    FAILURES_TOTAL,
    BACKEND_ERRORS_TOTAL,
    TIMEOUT_ERRORS_TOTAL,
    PANICS_TOTAL,
    REQUEST_DURATION_SECONDS,
    UPSTREAM_CONNECTIONS,
    ACCESS_LOG_LINES_TOTAL,
    ACCESS_LOG_DROPPED_TOTAL,
    DRAINING,
    RULES_VERSION,
    CORE_CONNECTIONS,
    CORE_REQUESTS_TOTAL,
    CORE_BUSY_SECONDS_TOTAL,
    CORE_LOOP_LAG_SECONDS,
    HTTP_REQUESTS_TOTAL,
    HTTP_REQUEST_DURATION_SECONDS,
];
