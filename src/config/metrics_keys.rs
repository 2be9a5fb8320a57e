//! The keys of `[metrics]`.

use super::keys::Fallback::Is;
use super::keys::{Key, key};

pub(super) const METRICS: &[Key] = &[
    key(
        "metrics.enabled",
        "boolean",
        Is("true"),
        "enabled = false",
        "serve metrics for Prometheus",
    ),
    key(
        "metrics.bind",
        "address",
        Is("\"127.0.0.1:9090\""),
        "bind = \"0.0.0.0:9090\"",
        "where metrics are served",
    ),
    key(
        "metrics.path",
        "path",
        Is("\"/metrics\""),
        "path = \"/internal/metrics\"",
        "path of the metrics page; `corelane explain metrics.names` lists what it shows",
    ),
    key(
        "metrics.compat",
        "boolean",
        Is("true"),
        "compat = false",
        "show the most asked-for numbers under other proxies' names too (`http_requests_total`, …)",
    ),
    key(
        "metrics.max_series",
        "integer",
        Is("200000"),
        "max_series = 1000000",
        "most series with names of listeners, routes, clusters and endpoints; things beyond it are \
         counted under `other`",
    ),
    key(
        "metrics.buckets",
        "list of seconds",
        Is("[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]"),
        "buckets = [0.01, 0.1, 1]",
        "upper bounds of the buckets of durations, at most 20; a reload does not change them",
    ),
    key(
        "metrics.exemplars",
        "boolean",
        Is("false"),
        "exemplars = true",
        "name a recorded trace beside each bucket of request durations, in OpenMetrics",
    ),
];
