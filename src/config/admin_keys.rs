//! The keys of `[admin]` and `[health]`.

use super::keys::Fallback::{Absent, Is, Required};
use super::keys::{Key, key};

pub(super) const ADMIN: &[Key] = &[
    key("admin.enabled", "boolean", Is("true"), "enabled = false", "serve the admin API"),
    key(
        "admin.bind",
        "address",
        Is("\"127.0.0.1:9091\""),
        "bind = \"127.0.0.1:7000\"",
        "where the admin API is served; anything but loopback needs tokens",
    ),
    key(
        "admin.hosts",
        "list of host names",
        Is("[]"),
        "hosts = [\"admin.internal\"]",
        "names by which the admin API may be asked for, besides loopback and the bind address",
    ),
    key(
        "admin.tokens[].name",
        "name",
        Required,
        "tokens = [{ name = \"ci\", role = \"operator\", token = \"at-least-16-characters\" }]",
        "what the audit log calls who has this token",
    ),
    key(
        "admin.tokens[].role",
        "one of: viewer, operator, admin",
        Required,
        "tokens = [{ name = \"ci\", role = \"viewer\", token_file = \"/run/secrets/ci\" }]",
        "viewer looks, operator drains and sets log levels too, admin may do everything",
    ),
    key(
        "admin.tokens[].token",
        "string",
        Absent("one of token, token_file, sha256 is needed"),
        "tokens = [{ name = \"ci\", role = \"viewer\", token = \"at-least-16-characters\" }]",
        "the token, 16 characters or more; ${NAME} takes it from the environment",
    )
    .secret(),
    key(
        "admin.tokens[].token_file",
        "path",
        Absent("one of token, token_file, sha256 is needed"),
        "tokens = [{ name = \"ci\", role = \"viewer\", token_file = \"/run/secrets/ci\" }]",
        "file that holds the token; read at start and at every reload",
    ),
    key(
        "admin.tokens[].sha256",
        "64 hexadecimal digits",
        Absent("one of token, token_file, sha256 is needed"),
        "tokens = [{ name = \"ci\", role = \"viewer\", sha256 = \"9f9f5111f7b27a781f1f1ddde5ebc2dd\
         2b796bfc7365c9c28b548e564176929f\" }]",
        "SHA-256 of the token: `printf %s TOKEN | sha256sum`",
    ),
    key(
        "health.on_listeners",
        "boolean",
        Is("false"),
        "on_listeners = true",
        "answer /health, /health/liveness, /health/readiness and /health/startup on listeners too",
    ),
    key(
        "health.listener_details",
        "boolean",
        Is("false"),
        "listener_details = true",
        "show every client of a listener the checks and backends that the admin port shows",
    ),
    key(
        "health.grpc",
        "boolean",
        Is("false"),
        "grpc = true",
        "answer grpc.health.v1.Health on listeners, for \"\" and every service that a route names: \
         NOT_SERVING while no cluster of that service has an address that takes calls",
    ),
];
