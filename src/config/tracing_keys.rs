//! The keys of `[tracing]` and of a route's `tracing`.

use super::keys::Fallback::{Absent, Is};
use super::keys::{Key, key};

pub(super) const TRACING: &[Key] = &[
    key(
        "tracing.enabled",
        "boolean",
        Is("false"),
        "enabled = true",
        "join or begin a trace for every request; off: trace headers pass untouched",
    ),
    key(
        "tracing.propagate",
        "list of: w3c, b3, b3multi, jaeger",
        Is("[\"w3c\"]"),
        "propagate = [\"w3c\", \"b3\"]",
        "trace headers: the first that came is taken, all are sent",
    ),
    key(
        "tracing.sample",
        "share from 0 to 1",
        Is("0.01"),
        "sample = 0.1",
        "share of traces that are recorded, decided by the trace id",
    ),
    key(
        "tracing.parent",
        "boolean",
        Is("true"),
        "parent = false",
        "follow the caller's decision to record or not, where its headers have one",
    ),
    key(
        "tracing.trust",
        "one of: all, trusted_proxies",
        Is("\"all\""),
        "trust = \"trusted_proxies\"",
        "whose trace headers are believed; for others a new trace begins",
    ),
    key(
        "tracing.service_name",
        "name",
        Is("\"corelane\""),
        "service_name = \"edge\"",
        "what collectors call this service",
    ),
    key(
        "tracing.service_id",
        "name",
        Absent("none is told"),
        "service_id = \"edge-1\"",
        "what collectors call this process of the service",
    ),
    key(
        "tracing.otlp.endpoint",
        "http URL",
        Absent("spans are not sent by OTLP"),
        "endpoint = \"http://collector:4318/v1/traces\"",
        "collector that takes OTLP over HTTP, such as OpenTelemetry's or Jaeger",
    ),
    key(
        "tracing.otlp.protocol",
        "one of: protobuf, json",
        Is("\"protobuf\""),
        "protocol = \"json\"",
        "how spans are encoded",
    ),
    key(
        "tracing.otlp.headers",
        "table of headers",
        Is("{}"),
        "headers = { Authorization = \"Bearer KEY\" }",
        "sent with every request to the collector; print-config hides their values",
    )
    .secret(),
    key(
        "tracing.otlp.timeout",
        "duration",
        Is("\"10s\""),
        "timeout = \"3s\"",
        "what the collector gets for one request; then it is sent again",
    ),
    key(
        "tracing.zipkin.endpoint",
        "http URL",
        Absent("spans are not sent to Zipkin"),
        "endpoint = \"http://zipkin:9411/api/v2/spans\"",
        "Zipkin, or whoever takes its JSON, version 2",
    ),
    key(
        "tracing.zipkin.timeout",
        "duration",
        Is("\"10s\""),
        "timeout = \"3s\"",
        "what Zipkin gets for one request; then it is sent again",
    ),
    key(
        "routes[].tracing.enabled",
        "boolean",
        Is("true"),
        "tracing = false",
        "trace requests of this route; off: their trace headers pass untouched",
    ),
    key(
        "routes[].tracing.sample",
        "share from 0 to 1",
        Absent("as `tracing.sample`"),
        "tracing = { sample = 1.0 }",
        "share of this route's traces that are recorded",
    ),
];
