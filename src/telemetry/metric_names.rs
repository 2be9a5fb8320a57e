//! What metrics are called, what they are, and what their help says: here and nowhere else. The
//! metrics page and its documentation (`corelane explain metrics.names`) are made from these.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// A gauge that is always 1: its labels are what it says.
    Info,
}

/// A name with what the page says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// Separated by commas. Summed over them, the samples are the total.
    pub labels: &'static str,
    pub help: &'static str,
}

impl Metric {
    /// The base unit that the name ends with; empty when it counts things.
    pub fn unit(&self) -> &'static str {
        let name = self.family();
        let units = ["seconds", "bytes"];
        let ends = |unit: &&&str| name.strip_suffix(**unit).is_some_and(|rest| rest.ends_with('_'));
        units.iter().find(ends).copied().unwrap_or_default()
    }

    /// What OpenMetrics calls the samples of this name together.
    pub fn family(&self) -> &'static str {
        match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Info => self.name.strip_suffix("_info").unwrap_or(self.name),
            Kind::Gauge | Kind::Histogram => self.name,
        }
    }

    /// Another proxy's name for a number of ours: shown with `metrics.compat`.
    pub fn is_compat(&self) -> bool {
        COMPAT.contains(self)
    }
}

impl Kind {
    pub fn label(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        }
    }
}

/// All names, as `corelane explain metrics.names` prints them.
pub fn explain() -> String {
    let mut text = String::new();
    for metric in ALL.iter().chain(&COMPAT) {
        let labels =
            if metric.labels.is_empty() { String::new() } else { format!("{{{}}}", metric.labels) };
        let note = if metric.is_compat() { " (metrics.compat)" } else { "" };
        let kind = metric.kind.label();
        text.push_str(&format!("{}{labels}  {kind}{note}\n    {}\n", metric.name, metric.help));
    }
    text
}

const fn counter(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, help }
}

const fn info(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Info, labels, help }
}

pub const CONNECTIONS_TOTAL: Metric =
    counter("tls_proxy_connections_total", "", "Client connections accepted.");
pub const CONNECTIONS_ACTIVE: Metric =
    gauge("tls_proxy_connections_active", "", "Client connections open now.");
pub const CONNECTIONS_HANDED_OVER_TOTAL: Metric = counter(
    "tls_proxy_connections_handed_over_total",
    "",
    "Connections given to a core with fewer of them, before anything was read.",
);
pub const CONNECTION_LIMIT_TOTAL: Metric = counter(
    "tls_proxy_connection_limit_total",
    "",
    "Client connections that had to wait for room in limits.max_concurrent_connections.",
);
pub const CONNECTIONS_RECALLED_TOTAL: Metric = counter(
    "tls_proxy_connections_recalled_total",
    "",
    "Idle client connections closed to make room for new ones.",
);
pub const BLACKLISTED_CONNECTIONS_TOTAL: Metric = counter(
    "tls_proxy_blacklisted_connections_total",
    "",
    "Connections closed at once because the blacklist has their address.",
);
pub const BLACKLIST_ENTRIES: Metric =
    gauge("tls_proxy_blacklist_entries", "", "Addresses and networks that may not connect.");
pub const ACCEPT_ERRORS_TOTAL: Metric = counter(
    "tls_proxy_accept_errors_total",
    "",
    "Tries to accept a connection that failed for want of descriptors or memory.",
);
pub const REQUESTS_TOTAL: Metric = counter(
    "tls_proxy_requests_total",
    "method, status",
    "Exchanges that ended, well or not; status 000: no answer.",
);
pub const TUNNELS_TOTAL: Metric = counter(
    "tls_proxy_tunnels_total",
    "protocol",
    "Connections that went over to WebSocket, or to another protocol of routes.upgrades.",
);
pub const TUNNELS_ACTIVE: Metric =
    gauge("tls_proxy_tunnels_active", "protocol", "WebSockets and the like that are open now.");
pub const BYTES_IN_TOTAL: Metric =
    counter("tls_proxy_bytes_in_total", "", "Bytes received from clients, heads included.");
pub const BYTES_OUT_TOTAL: Metric =
    counter("tls_proxy_bytes_out_total", "", "Bytes sent to clients, heads included.");
pub const REQUEST_DURATION_SECONDS: Metric = histogram(
    "tls_proxy_request_duration_seconds",
    "",
    "From the first byte of a request to the last byte of its answer.",
);
pub const FAILURES_TOTAL: Metric = counter(
    "tls_proxy_failures_total",
    "reason, side",
    "Exchanges that did not succeed, by reason and by the side to blame.",
);
pub const BACKEND_ERRORS_TOTAL: Metric = counter(
    "tls_proxy_backend_errors_total",
    "backend, reason",
    "Exchanges that failed because of a backend, a cluster of the configuration.",
);
pub const TIMEOUT_ERRORS_TOTAL: Metric = counter(
    "tls_proxy_timeout_errors_total",
    "reason",
    "Exchanges that failed because something took too long, on either side.",
);
pub const PANICS_TOTAL: Metric = counter(
    "tls_proxy_panics_total",
    "",
    "Connections cut by an error in the proxy itself. Each is in the log: please report it.",
);
pub const TLS_HANDSHAKES_TOTAL: Metric = counter(
    "tls_proxy_tls_handshakes_total",
    "result",
    "TLS handshakes with clients: full, resumed by a ticket, or failed.",
);
pub const TLS_HANDSHAKE_FAILURES_TOTAL: Metric = counter(
    "tls_proxy_tls_handshake_failures_total",
    "reason",
    "Clients that were not served because no TLS session came about, by reason.",
);
pub const PROXY_HEADER_FAILURES_TOTAL: Metric = counter(
    "tls_proxy_proxy_header_failures_total",
    "",
    "Connections closed because their PROXY protocol header was missing, late or malformed.",
);
pub const CERTIFICATE_EXPIRY_SECONDS: Metric = gauge(
    "tls_proxy_certificate_expiry_seconds",
    "certificate, name",
    "Seconds until a certificate in use, or one of its chain, expires; below 0: since it has.",
);
pub const CERTIFICATE_RELOAD_FAILURES_TOTAL: Metric = counter(
    "tls_proxy_certificate_reload_failures_total",
    "",
    "Changed files of certificates, keys, authorities or revocation lists that were wrong: what \
     was there before stays in use.",
);
pub const OCSP_STAPLE_EXPIRY_SECONDS: Metric = gauge(
    "tls_proxy_ocsp_staple_expiry_seconds",
    "certificate, name",
    "Seconds until the stapled answer of an OCSP responder is not stapled any more.",
);
pub const REVOCATION_LIST_EXPIRY_SECONDS: Metric = gauge(
    "tls_proxy_revocation_list_expiry_seconds",
    "file",
    "Seconds until a revocation list in use ends; below 0: since it has.",
);
pub const TICKET_KEY_AGE_SECONDS: Metric = gauge(
    "tls_proxy_ticket_key_age_seconds",
    "",
    "How long new session tickets are sealed with the same key by now.",
);
pub const PROTOCOL_ABUSE_TOTAL: Metric = counter(
    "tls_proxy_protocol_abuse_total",
    "reason",
    "HTTP/2 connections that were cut off for what the client did to them, by reason.",
);
pub const LISTENER_CONNECTIONS_TOTAL: Metric = counter(
    "tls_proxy_listener_connections_total",
    "listener",
    "Client connections accepted, by listener.",
);
pub const LISTENER_CONNECTIONS_ACTIVE: Metric = gauge(
    "tls_proxy_listener_connections_active",
    "listener",
    "Client connections open now, by listener.",
);
pub const LISTENER_REQUESTS_TOTAL: Metric = counter(
    "tls_proxy_listener_requests_total",
    "listener, status",
    "Exchanges that ended, by class of status and by listener.",
);
pub const LISTENER_BYTES_IN_TOTAL: Metric = counter(
    "tls_proxy_listener_bytes_in_total",
    "listener",
    "Bytes received from clients, by listener.",
);
pub const LISTENER_BYTES_OUT_TOTAL: Metric = counter(
    "tls_proxy_listener_bytes_out_total",
    "listener",
    "Bytes sent to clients, by listener.",
);
pub const LISTENER_REQUEST_DURATION_SECONDS: Metric = histogram(
    "tls_proxy_listener_request_duration_seconds",
    "listener",
    "Durations of exchanges, by listener.",
);
pub const ROUTE_REQUESTS_TOTAL: Metric = counter(
    "tls_proxy_route_requests_total",
    "route, status",
    "Exchanges that ended, by class of status and by route; (none): no route matched.",
);
pub const ROUTE_BYTES_IN_TOTAL: Metric =
    counter("tls_proxy_route_bytes_in_total", "route", "Bytes received from clients, by route.");
pub const ROUTE_BYTES_OUT_TOTAL: Metric =
    counter("tls_proxy_route_bytes_out_total", "route", "Bytes sent to clients, by route.");
pub const ROUTE_REQUEST_DURATION_SECONDS: Metric = histogram(
    "tls_proxy_route_request_duration_seconds",
    "route",
    "Durations of exchanges, by route.",
);
pub const GRPC_REQUESTS_TOTAL: Metric = counter(
    "tls_proxy_grpc_requests_total",
    "route, service, method, code",
    "gRPC calls that ended, by the code that the client got.",
);
pub const GRPC_MESSAGES_RECEIVED_TOTAL: Metric = counter(
    "tls_proxy_grpc_messages_received_total",
    "route, service, method, compressed",
    "gRPC messages from clients.",
);
pub const GRPC_MESSAGES_SENT_TOTAL: Metric = counter(
    "tls_proxy_grpc_messages_sent_total",
    "route, service, method, compressed",
    "gRPC messages to clients.",
);
pub const CLUSTER_REQUESTS_TOTAL: Metric = counter(
    "tls_proxy_cluster_requests_total",
    "cluster, status",
    "Exchanges that ended, by class of status and by cluster.",
);
pub const CLUSTER_REQUEST_DURATION_SECONDS: Metric = histogram(
    "tls_proxy_cluster_request_duration_seconds",
    "cluster",
    "Durations of exchanges, by cluster.",
);
pub const CLUSTER_QUEUE_SECONDS: Metric = histogram(
    "tls_proxy_cluster_queue_seconds",
    "cluster",
    "From the request's head to the right to use a connection, earlier attempts included.",
);
pub const CLUSTER_CONNECT_SECONDS: Metric = histogram(
    "tls_proxy_cluster_connect_seconds",
    "cluster",
    "Time to connect, of exchanges that needed a new connection.",
);
pub const CLUSTER_TLS_SECONDS: Metric = histogram(
    "tls_proxy_cluster_tls_seconds",
    "cluster",
    "TLS handshakes with backends, of exchanges that needed a new connection.",
);
pub const CLUSTER_FIRST_BYTE_SECONDS: Metric = histogram(
    "tls_proxy_cluster_first_byte_seconds",
    "cluster",
    "From the request sent, body and all, to the first byte of the backend's answer.",
);
pub const UPSTREAM_CONNECTIONS: Metric = gauge(
    "tls_proxy_upstream_connections",
    "cluster",
    "Connections to backends, in use or kept, by cluster.",
);
pub const UPSTREAM_OPENED_TOTAL: Metric = counter(
    "tls_proxy_upstream_opened_total",
    "cluster",
    "Connections to backends that were made.",
);
pub const UPSTREAM_REUSED_TOTAL: Metric =
    counter("tls_proxy_upstream_reused_total", "cluster", "Attempts that found a kept connection.");
pub const UPSTREAM_RETRIES_TOTAL: Metric = counter(
    "tls_proxy_upstream_retries_total",
    "cluster, reason",
    "Attempts that failed and were followed by another, by the reason why.",
);
pub const UPSTREAM_WAITING: Metric =
    gauge("tls_proxy_upstream_waiting", "cluster", "Exchanges that wait for a connection now.");
pub const ENDPOINT_REQUESTS_TOTAL: Metric = counter(
    "tls_proxy_endpoint_requests_total",
    "cluster, endpoint, status",
    "Exchanges that ended, by class of status and by the endpoint used last.",
);
pub const ENDPOINT_REQUEST_DURATION_SECONDS: Metric = histogram(
    "tls_proxy_endpoint_request_duration_seconds",
    "cluster, endpoint",
    "Durations of exchanges, by the endpoint used last.",
);
pub const ENDPOINT_CONNECTIONS: Metric = gauge(
    "tls_proxy_endpoint_connections",
    "cluster, endpoint",
    "Connections to an endpoint, in use or kept.",
);
pub const ENDPOINT_CONNECT_FAILURES_TOTAL: Metric = counter(
    "tls_proxy_endpoint_connect_failures_total",
    "cluster, endpoint",
    "Connections to an endpoint that could not be made.",
);
pub const ACCESS_LOG_LINES_TOTAL: Metric =
    counter("tls_proxy_access_log_lines_total", "", "Access log lines written.");
pub const ACCESS_LOG_DROPPED_TOTAL: Metric = counter(
    "tls_proxy_access_log_dropped_total",
    "",
    "Access log lines lost: the disk was too slow or could not be written.",
);
pub const LOG_DROPPED_TOTAL: Metric = counter(
    "tls_proxy_log_dropped_total",
    "log",
    "Lines that a log (access, audit, error, process) lacks: too slow, or it could not be written.",
);
pub const TRACE_SPANS_EXPORTED_TOTAL: Metric = counter(
    "tls_proxy_trace_spans_exported_total",
    "",
    "Spans that the trace collector has taken.",
);
pub const TRACE_SPANS_DROPPED_TOTAL: Metric = counter(
    "tls_proxy_trace_spans_dropped_total",
    "",
    "Spans lost before they were sent: the trace collector was too slow or away.",
);
pub const TRACE_SPANS_FAILED_TOTAL: Metric = counter(
    "tls_proxy_trace_spans_failed_total",
    "",
    "Spans that were sent but not taken: the trace collector refused them or did not answer.",
);
pub const DRAINING: Metric = gauge(
    "tls_proxy_draining",
    "",
    "1 while the proxy finishes what it has and takes nothing new.",
);
pub const RULES_VERSION: Metric =
    gauge("tls_proxy_rules_version", "", "Counts up with every configuration that was accepted.");
pub const RELOADS_TOTAL: Metric = counter(
    "tls_proxy_reloads_total",
    "outcome",
    "New configurations for the running process: taken (ok), or refused without any effect.",
);
pub const RELOAD_SUCCESSFUL: Metric = gauge(
    "tls_proxy_config_last_reload_successful",
    "",
    "0 after a reload that was refused: the file is not what is in force.",
);
pub const RELOAD_SUCCESS_TIMESTAMP_SECONDS: Metric = gauge(
    "tls_proxy_config_last_reload_success_timestamp_seconds",
    "",
    "When the configuration in force was put there, in seconds since 1970.",
);
pub const CONFIG_FETCHES_TOTAL: Metric = counter(
    "tls_proxy_config_fetches_total",
    "outcome",
    "Questions to the server that the configuration comes from: answered with a text, with \
     unchanged, or failed.",
);
pub const CONFIG_FETCH_SUCCESS_TIMESTAMP_SECONDS: Metric = gauge(
    "tls_proxy_config_last_fetch_success_timestamp_seconds",
    "",
    "When that server answered last, in seconds since 1970; 0: it never did, or there is none.",
);
pub const GENERATIONS: Metric = gauge(
    "tls_proxy_config_generations",
    "",
    "Configurations that exchanges still run with, the one in force included.",
);
pub const METRICS_FOLDED: Metric = gauge(
    "tls_proxy_metrics_folded",
    "kind",
    "Things that are counted under `other` because of metrics.max_series, by kind.",
);
pub const CORE_CONNECTIONS: Metric =
    gauge("tls_proxy_core_connections", "core", "Client connections open now, by core.");
pub const CORE_REQUESTS_TOTAL: Metric =
    counter("tls_proxy_core_requests_total", "core", "Exchanges that ended, by core.");
pub const CORE_BUSY_SECONDS_TOTAL: Metric =
    counter("tls_proxy_core_busy_seconds_total", "core", "CPU time used, by core.");
pub const CORE_LOOP_LAG_SECONDS: Metric = histogram(
    "tls_proxy_core_loop_lag_seconds",
    "core",
    "How late the turns of a core's loop begin, by core.",
);
pub const BUILD_INFO: Metric =
    info("tls_proxy_build_info", "version, commit", "Always 1; what was built, in the labels.");
pub const PROCESS_CPU_SECONDS_TOTAL: Metric =
    counter("process_cpu_seconds_total", "", "CPU time used by all threads, user and system.");
pub const PROCESS_RESIDENT_MEMORY_BYTES: Metric =
    gauge("process_resident_memory_bytes", "", "Resident memory.");
pub const PROCESS_OPEN_FDS: Metric = gauge("process_open_fds", "", "Open file descriptors.");
pub const PROCESS_MAX_FDS: Metric =
    gauge("process_max_fds", "", "Most file descriptors that may be open.");
pub const PROCESS_START_TIME_SECONDS: Metric =
    gauge("process_start_time_seconds", "", "When the process started, in seconds since 1970.");

// --- the same numbers under the names that other proxies' dashboards ask for -----------------

pub const HTTP_REQUESTS_TOTAL: Metric =
    counter("http_requests_total", "method, status", "As tls_proxy_requests_total.");
pub const HTTP_REQUEST_DURATION_SECONDS: Metric =
    histogram("http_request_duration_seconds", "", "As tls_proxy_request_duration_seconds.");
pub const HTTP_BYTES_IN_TOTAL: Metric =
    counter("http_bytes_in_total", "", "As tls_proxy_bytes_in_total.");
pub const HTTP_BYTES_OUT_TOTAL: Metric =
    counter("http_bytes_out_total", "", "As tls_proxy_bytes_out_total.");
pub const HTTP_ERRORS_TOTAL: Metric =
    counter("http_errors_total", "type", "As tls_proxy_failures_total.");
pub const HTTP_ACTIVE_CONNECTIONS: Metric =
    gauge("http_active_connections", "", "As tls_proxy_connections_active.");
pub const CONNECTION_POOL_CONNECTIONS: Metric =
    gauge("connection_pool_connections", "backend", "As tls_proxy_upstream_connections.");

/// Every name of ours, in the order of the page.
pub const ALL: [Metric; 80] = [
    CONNECTIONS_TOTAL,
    CONNECTIONS_ACTIVE,
    CONNECTIONS_HANDED_OVER_TOTAL,
    CONNECTION_LIMIT_TOTAL,
    CONNECTIONS_RECALLED_TOTAL,
    BLACKLISTED_CONNECTIONS_TOTAL,
    BLACKLIST_ENTRIES,
    ACCEPT_ERRORS_TOTAL,
    REQUESTS_TOTAL,
    TUNNELS_TOTAL,
    TUNNELS_ACTIVE,
    BYTES_IN_TOTAL,
    BYTES_OUT_TOTAL,
    REQUEST_DURATION_SECONDS,
    FAILURES_TOTAL,
    BACKEND_ERRORS_TOTAL,
    TIMEOUT_ERRORS_TOTAL,
    PANICS_TOTAL,
    TLS_HANDSHAKES_TOTAL,
    TLS_HANDSHAKE_FAILURES_TOTAL,
    PROXY_HEADER_FAILURES_TOTAL,
    CERTIFICATE_EXPIRY_SECONDS,
    CERTIFICATE_RELOAD_FAILURES_TOTAL,
    OCSP_STAPLE_EXPIRY_SECONDS,
    REVOCATION_LIST_EXPIRY_SECONDS,
    TICKET_KEY_AGE_SECONDS,
    PROTOCOL_ABUSE_TOTAL,
    LISTENER_CONNECTIONS_TOTAL,
    LISTENER_CONNECTIONS_ACTIVE,
    LISTENER_REQUESTS_TOTAL,
    LISTENER_BYTES_IN_TOTAL,
    LISTENER_BYTES_OUT_TOTAL,
    LISTENER_REQUEST_DURATION_SECONDS,
    ROUTE_REQUESTS_TOTAL,
    ROUTE_BYTES_IN_TOTAL,
    ROUTE_BYTES_OUT_TOTAL,
    ROUTE_REQUEST_DURATION_SECONDS,
    GRPC_REQUESTS_TOTAL,
    GRPC_MESSAGES_RECEIVED_TOTAL,
    GRPC_MESSAGES_SENT_TOTAL,
    CLUSTER_REQUESTS_TOTAL,
    CLUSTER_REQUEST_DURATION_SECONDS,
    CLUSTER_QUEUE_SECONDS,
    CLUSTER_CONNECT_SECONDS,
    CLUSTER_TLS_SECONDS,
    CLUSTER_FIRST_BYTE_SECONDS,
    UPSTREAM_CONNECTIONS,
    UPSTREAM_OPENED_TOTAL,
    UPSTREAM_REUSED_TOTAL,
    UPSTREAM_RETRIES_TOTAL,
    UPSTREAM_WAITING,
    ENDPOINT_REQUESTS_TOTAL,
    ENDPOINT_REQUEST_DURATION_SECONDS,
    ENDPOINT_CONNECTIONS,
    ENDPOINT_CONNECT_FAILURES_TOTAL,
    ACCESS_LOG_LINES_TOTAL,
    ACCESS_LOG_DROPPED_TOTAL,
    LOG_DROPPED_TOTAL,
    TRACE_SPANS_EXPORTED_TOTAL,
    TRACE_SPANS_DROPPED_TOTAL,
    TRACE_SPANS_FAILED_TOTAL,
    DRAINING,
    RULES_VERSION,
    RELOADS_TOTAL,
    RELOAD_SUCCESSFUL,
    RELOAD_SUCCESS_TIMESTAMP_SECONDS,
    CONFIG_FETCHES_TOTAL,
    CONFIG_FETCH_SUCCESS_TIMESTAMP_SECONDS,
    GENERATIONS,
    METRICS_FOLDED,
    CORE_CONNECTIONS,
    CORE_REQUESTS_TOTAL,
    CORE_BUSY_SECONDS_TOTAL,
    CORE_LOOP_LAG_SECONDS,
    BUILD_INFO,
    PROCESS_CPU_SECONDS_TOTAL,
    PROCESS_RESIDENT_MEMORY_BYTES,
    PROCESS_OPEN_FDS,
    PROCESS_MAX_FDS,
    PROCESS_START_TIME_SECONDS,
];

/// Every name of others', in the order of the page.
pub const COMPAT: [Metric; 7] = [
    HTTP_REQUESTS_TOTAL,
    HTTP_REQUEST_DURATION_SECONDS,
    HTTP_BYTES_IN_TOTAL,
    HTTP_BYTES_OUT_TOTAL,
    HTTP_ERRORS_TOTAL,
    HTTP_ACTIVE_CONNECTIONS,
    CONNECTION_POOL_CONNECTIONS,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_says_what_it_is() {
        for metric in ALL.iter().chain(&COMPAT) {
            let Metric { name, help, kind, labels } = *metric;
            assert!(help.ends_with('.') && help.len() > 10, "{name}: {help}");
            assert!(!help.contains(['\\', '\n', '"']), "{name}: nothing to escape");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_info"), kind == Kind::Info, "{name}");
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            let labels: Vec<&str> = labels.split(", ").filter(|label| !label.is_empty()).collect();
            assert!(labels.iter().chain([&name]).all(|word| word.bytes().all(plain)), "{name}");
            if kind == Kind::Histogram {
                assert_eq!(metric.unit(), "seconds", "{name}");
            }
        }
    }

    #[test]
    fn names_are_explained() {
        let text = explain();
        assert!(text.contains("tls_proxy_backend_errors_total{backend, reason}  counter\n"));
        assert!(text.contains("http_errors_total{type}  counter (metrics.compat)\n"));
    }
}
