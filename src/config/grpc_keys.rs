//! The keys of `routes[].grpc` and `routes[].grpc_web`.

use super::keys::Fallback::{Absent, Is};
use super::keys::{Key, key};

pub(super) const GRPC: &[Key] = &[
    key(
        "routes[].grpc.max_message_size",
        "size",
        Is("0"),
        "cluster = \"orders\"\ngrpc = { max_message_size = \"4MB\" }",
        "the section makes it a route for gRPC, and others are answered 415, gRPC over HTTP/1 \
         without TE: trailers 505; longest message either way, a longer one is not begun and ends \
         its call with RESOURCE_EXHAUSTED; 0: no limit",
    ),
    key(
        "routes[].grpc.idle_timeout",
        "duration",
        Is("\"300s\""),
        "cluster = \"orders\"\ngrpc = { idle_timeout = \"1h\" }",
        "how long a call may pass nothing either way, instead of all timeouts between two reads; \
         then UNAVAILABLE; 0s: none",
    ),
    key(
        "routes[].grpc.retry_on",
        "list of codes",
        Is("[]"),
        "cluster = \"orders\"\ngrpc = { retry_on = [\"unavailable\"] }",
        "codes with which a backend may refuse a call that is then tried again: cancelled, \
         unknown, deadline_exceeded, resource_exhausted, aborted, internal, unavailable",
    ),
    key(
        "routes[].grpc.max_attempts",
        "integer",
        Is("2"),
        "cluster = \"orders\"\ngrpc = { retry_on = [\"unavailable\"], max_attempts = 3 }",
        "how often a call is tried in all, at most 5, for `retry_on`",
    ),
    key(
        "routes[].grpc.services.NAME.cluster",
        "name of a cluster",
        Absent("that of the route"),
        "cluster = \"orders\"\n\
         grpc = { services = { \"myapp.UserService\" = { cluster = \"orders\" } } }",
        "where calls of this service go; with `services` the route takes those and no others",
    ),
    key(
        "routes[].grpc.services.NAME.timeout",
        "duration",
        Absent("that of the route"),
        "cluster = \"orders\"\n\
         grpc = { services = { \"myapp.UserService\" = { timeout = \"5s\" } } }",
        "of whole calls of this service, or what `grpc-timeout` says if that is less; 0s: none",
    ),
    key(
        "routes[].grpc.services.NAME.methods.NAME.cluster",
        "name of a cluster",
        Absent("that of the service"),
        "cluster = \"orders\"\n\
         grpc = { services = { \"myapp.UserService\" = \
         { methods = { Find = { cluster = \"orders\" } } } } }",
        "where calls of this method go; metrics tell methods apart that are named here",
    ),
    key(
        "routes[].grpc.services.NAME.methods.NAME.timeout",
        "duration",
        Absent("that of the service"),
        "cluster = \"orders\"\n\
         grpc = { services = { \"myapp.UserService\" = \
         { methods = { Watch = { timeout = \"0s\" } } } } }",
        "of whole calls of this method; 0s: none, as streams want it",
    ),
    key(
        "routes[].grpc_web.origins",
        "list of origins",
        Is("[]"),
        "cluster = \"orders\"\ngrpc_web = { origins = [\"https://app.example.com\"] }",
        "the section takes gRPC-Web, binary and text; pages whose browsers may call, or \"*\"; \
         none: pages of the route's own hosts only",
    ),
    key(
        "routes[].grpc_web.credentials",
        "boolean",
        Is("false"),
        "cluster = \"orders\"\n\
         grpc_web = { origins = [\"https://app.example.com\"], credentials = true }",
        "let those pages send cookies and client certificates",
    ),
    key(
        "routes[].grpc_web.expose_headers",
        "list of header names",
        Is("[]"),
        "cluster = \"orders\"\ngrpc_web = { expose_headers = [\"x-trace\"] }",
        "response metadata that those pages may see, beside what gRPC-Web needs",
    ),
    key(
        "routes[].grpc_web.max_age",
        "duration",
        Is("\"2h\""),
        "cluster = \"orders\"\ngrpc_web = { max_age = \"10m\" }",
        "how long a browser may remember the answer to its preflight",
    ),
];
