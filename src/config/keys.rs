//! Every key: what it means, its type, its default and an example. `explain` prints from this
//! table; tests hold it equal to what [`super::document`] reads, what `print-config` shows and
//! what `conf/corelane.toml` lists.

use super::admin_keys::ADMIN;
use super::cluster_http2::CLUSTER_HTTP2;
use super::error::nearest;
use super::error_page_keys::ERROR_PAGES;
use super::grpc_keys::GRPC;
use super::hot_reload_keys::HOT_RELOAD;
use super::http2_keys::HTTP2;
use super::logging_keys::LOGGING;
use super::metrics_keys::METRICS;
use super::tls_keys::TLS;
use super::tracing_keys::TRACING;
use super::upgrades::UPGRADES;
use Fallback::{Absent, Is, Required};

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `routes[].cluster`; `NAME` stands for a name that the operator chooses.
    pub path: &'static str,
    pub kind: &'static str,
    pub default: Fallback,
    /// A line of TOML, as it stands in the key's section.
    pub example: &'static str,
    pub doc: &'static str,
    /// Never shown: `print-config`, the admin API and error messages hide the value.
    pub secret: bool,
}

impl Key {
    /// `key(…).secret()` in the table below.
    pub const fn secret(self) -> Key {
        Key { secret: true, ..self }
    }
}

/// What holds when a key is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// It must be written.
    Required,
    /// There is no value; the words say what that means.
    Absent(&'static str),
    /// This value, as TOML.
    Is(&'static str),
}

/// What `explain` prints: one key, a section, or everything. `Err` for what does not exist.
pub fn explain(asked: &str) -> Result<String, String> {
    let wanted = pattern_of(asked.trim());
    if let Some(key) = find(&wanted) {
        return Ok(describe(key));
    }
    let below: Vec<&Key> = KEYS.iter().filter(|key| is_below(key.path, &wanted)).collect();
    if !below.is_empty() {
        return Ok(below.into_iter().map(line).collect());
    }
    let mut text = format!("there is no key `{}`\n", asked.escape_debug());
    let near = nearest(&bare(&wanted), KEYS.iter().map(|key| key.path));
    if let Some(near) = near.or_else(|| home_of(last(&wanted))) {
        text.push_str(&format!("  did you mean `{near}`?\n"));
    }
    text.push_str("  all keys: corelane explain\n");
    Err(text)
}

/// All keys, one line each.
pub fn explain_all() -> String {
    KEYS.iter().map(line).collect()
}

fn describe(key: &Key) -> String {
    let default = match key.default {
        Required => "none, this key is required".to_owned(),
        Absent(meaning) => format!("none ({meaning})"),
        Is(value) => value.to_owned(),
    };
    let Key { path, kind, example, doc, .. } = key;
    format!("{path}\n  {doc}\n  type: {kind}\n  default: {default}\n  example: {example}\n")
}

fn line(key: &Key) -> String {
    format!("{:<40} {}\n", key.path, key.doc)
}

fn find(pattern: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == pattern || bare(key.path) == bare(pattern))
}

fn is_below(path: &str, section: &str) -> bool {
    let rest = bare(path);
    rest.strip_prefix(&bare(section)).is_some_and(|rest| rest.starts_with('.'))
}

/// Without brackets, which operators leave out.
fn bare(path: &str) -> String {
    path.replace("[]", "")
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Where a key that was written in the wrong section belongs.
pub(super) fn home_of(name: &str) -> Option<&'static str> {
    KEYS.iter().map(|key| key.path).find(|path| {
        path.split('.').any(|part| part.trim_end_matches("[]") == name && name != "NAME")
    })
}

/// Whether what stands at a path, `admin.tokens[0].token`, must not be shown.
pub(super) fn is_secret(path: &str) -> bool {
    is_secret_in(KEYS, path)
}

fn is_secret_in(keys: &[Key], path: &str) -> bool {
    let mut secrets = keys.iter().filter(|key| key.secret).peekable();
    if secrets.peek().is_none() {
        return false;
    }
    let path = pattern_of(path);
    secrets.any(|key| {
        let own = match key.path.split_once("NAME") {
            // a name may have dots in it
            Some((before, after)) => path.starts_with(before) && path.ends_with(after),
            None => bare(&path) == bare(key.path),
        };
        own || bare(&path).starts_with(&format!("{}.", bare(key.path)))
    })
}

/// A key as an operator writes it, `routes[2].cluster` or `clusters.orders.pool`, as in [`KEYS`].
pub(super) fn pattern_of(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut index = false;
    for c in path.chars() {
        match c {
            '[' => {
                index = true;
                out.push('[');
            }
            ']' => {
                index = false;
                out.push(']');
            }
            _ if index => {}
            _ => out.push(c),
        }
    }
    if let Some((route, named)) = out.split_once(".grpc.services.") {
        return format!("{route}.grpc.services.{}", grpc_names(named));
    }
    let mut parts: Vec<&str> = out.split('.').collect();
    if let ["clusters", name, ..] = parts.as_mut_slice() {
        *name = "NAME";
    }
    parts.join(".")
}

/// Behind `grpc.services`: a service, and perhaps a method, with the key of its own that is asked
/// for. A service's name has dots in it.
fn grpc_names(path: &str) -> String {
    let own = |path: &str| match path.rsplit_once('.') {
        Some((_, key @ ("cluster" | "timeout" | "methods"))) => format!("NAME.{key}"),
        Some(_) | None => "NAME".to_owned(),
    };
    match path.split_once(".methods.") {
        Some((_, method)) => format!("NAME.methods.{}", own(method)),
        None => own(path),
    }
}

pub(super) const fn key(
    path: &'static str,
    kind: &'static str,
    default: Fallback,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { path, kind, default, example, doc, secret: false }
}

/// All of them.
pub const KEYS: &[Key] = &joined::<COUNT>();

/// Features with many keys have a table of their own.
const TABLES: [&[Key]; 12] = [
    GENERAL,
    ADMIN,
    CLUSTER_HTTP2,
    ERROR_PAGES,
    GRPC,
    HOT_RELOAD,
    HTTP2,
    LOGGING,
    METRICS,
    TLS,
    TRACING,
    UPGRADES,
];

const COUNT: usize = {
    let (mut count, mut table) = (0, 0);
    while table < TABLES.len() {
        count += TABLES[table].len();
        table += 1;
    }
    count
};

const fn joined<const N: usize>() -> [Key; N] {
    let mut all = [GENERAL[0]; N];
    let (mut at, mut table, mut row) = (0, 0, 0);
    while at < N {
        if row < TABLES[table].len() {
            all[at] = TABLES[table][row];
            at += 1;
            row += 1;
        } else {
            (table, row) = (table + 1, 0);
        }
    }
    all
}

/// In the order of `conf/corelane.toml`.
const GENERAL: &[Key] = &[
    key(
        "cores",
        "integer",
        Is("0"),
        "cores = 4",
        "data cores, one pinned thread each; 0: one per CPU that the process may use",
    ),
    key(
        "drain_timeout",
        "duration",
        Is("\"30s\""),
        "drain_timeout = \"60s\"",
        "what SIGTERM and SIGINT give running exchanges before they are cut",
    ),
    key(
        "blacklist.path",
        "path",
        Absent("none: it ends with the process"),
        "path = \"/var/lib/corelane/blacklist\"",
        "file that keeps the blacklist over restarts; changed by a reload, the new \
         file's entries are added",
    ),
    key(
        "user",
        "name or number",
        Absent("the one who starts it"),
        "user = \"corelane\"",
        "whom the process becomes once its sockets are bound; its files must be his to open",
    ),
    key(
        "group",
        "name or number",
        Absent("that of `user`"),
        "user = \"corelane\"\ngroup = \"www-data\"",
        "group that it becomes a member of, instead of the user's own",
    ),
    key(
        "pid_file",
        "path",
        Absent("none"),
        "pid_file = \"/run/corelane/pid\"",
        "file with the id of the process that serves, after an upgrade too",
    ),
    key(
        "trusted_proxies",
        "list of networks",
        Is("[]"),
        "trusted_proxies = [\"10.0.0.0/8\", \"fd00::/8\"]",
        "peers whose X-Forwarded-* and X-Request-Id headers are believed, read right to left",
    ),
    key(
        "proxy_id",
        "header token",
        Is("\"corelane\""),
        "proxy_id = \"edge-1\"",
        "what Via and X-Proxy-ID call this process",
    ),
    key(
        "listeners[].name",
        "name",
        Required,
        "name = \"edge\"",
        "what logs and metrics call the listener; its sockets survive a reload by it",
    ),
    key(
        "listeners[].bind",
        "address",
        Required,
        "bind = \"0.0.0.0:8080\"",
        "IP address and port; 0: one of the kernel; [::] is IPv6 only, 0.0.0.0 beside it is IPv4",
    ),
    key(
        "listeners[].protocol",
        "one of: http",
        Is("\"http\""),
        "protocol = \"http\"",
        "what is spoken on the listener",
    ),
    key(
        "routes[].name",
        "name",
        Required,
        "name = \"orders\"",
        "what logs and metrics call the route",
    ),
    key(
        "routes[].hosts",
        "list of hosts",
        Is("[]"),
        "hosts = [\"api.example.com\", \"*.example.com\"]",
        "hosts that the route takes, exact or `*.` wildcard; empty: every host",
    ),
    key(
        "routes[].paths",
        "list of paths",
        Is("[]"),
        "paths = [\"/v1/*\", \"/health\"]",
        "paths that the route takes, exact or ending in `/*`; empty: every path",
    ),
    key(
        "routes[].cluster",
        "name of a cluster",
        Absent("one of cluster, respond, redirect, echo is needed"),
        "cluster = \"orders\"",
        "forward to this cluster",
    ),
    key(
        "routes[].echo",
        "boolean",
        Absent("one of cluster, respond, redirect, echo is needed"),
        "echo = true",
        "answer with a page that shows the request as it arrived",
    ),
    key(
        "routes[].timeout",
        "duration",
        Is("\"0s\""),
        "timeout = \"30s\"",
        "of the whole exchange, of a WebSocket up to its 101; then 504; 0s: none",
    ),
    key(
        "routes[].respond.status",
        "integer",
        Is("200"),
        "respond = { status = 503, body = \"back soon\" }",
        "status of an answer that the proxy gives itself",
    ),
    key(
        "routes[].respond.body",
        "string",
        Is("\"\""),
        "respond = { body = \"ok\" }",
        "body of that answer",
    ),
    key(
        "routes[].respond.content_type",
        "content type",
        Is("\"text/plain; charset=utf-8\""),
        "respond = { body = \"{}\", content_type = \"application/json\" }",
        "its Content-Type",
    ),
    key(
        "routes[].redirect.status",
        "one of: 301, 302, 303, 307, 308",
        Is("302"),
        "redirect = { status = 308, location = \"https://{host}{path}{query}\" }",
        "status of a redirect",
    ),
    key(
        "routes[].redirect.location",
        "URL",
        Required,
        "redirect = { location = \"https://{host}{path}{query}\" }",
        "where a redirect leads; {host}, {path} and {query} (with its `?`) are the request's",
    ),
    key(
        "routes[].request_headers.set",
        "table of headers",
        Is("{}"),
        "request_headers = { set = { X-Env = \"prod\" } }",
        "headers of the request before it is forwarded: each replaces every line of its name",
    ),
    key(
        "routes[].request_headers.add",
        "table of headers",
        Is("{}"),
        "request_headers = { add = { X-Tag = [\"a\", \"b\"] } }",
        "headers added to the request before it is forwarded; a list adds several lines",
    ),
    key(
        "routes[].request_headers.remove",
        "list of header names",
        Is("[]"),
        "request_headers = { remove = [\"X-Internal\"] }",
        "headers taken from the request before it is forwarded; this comes first",
    ),
    key(
        "routes[].response_headers.set",
        "table of headers",
        Is("{}"),
        "response_headers = { set = { X-Env = \"prod\" } }",
        "headers of the response before it is sent: each replaces every line of its name",
    ),
    key(
        "routes[].response_headers.add",
        "table of headers",
        Is("{}"),
        "response_headers = { add = { X-Tag = [\"a\", \"b\"] } }",
        "headers added to the response before it is sent; a list adds several lines",
    ),
    key(
        "routes[].response_headers.remove",
        "list of header names",
        Is("[]"),
        "response_headers = { remove = [\"X-Internal\"] }",
        "headers taken from the response before it is sent; this comes first",
    ),
    key(
        "clusters.NAME.balance",
        "one of: round_robin, weighted_round_robin",
        Is("\"round_robin\""),
        "balance = \"weighted_round_robin\"",
        "how the next endpoint is chosen; weights other than 1 count under either name",
    ),
    key(
        "clusters.NAME.protocol",
        "one of: h1, h2, h2c, auto",
        Is("\"h1\""),
        "protocol = \"h2c\"",
        "what is spoken to the endpoints: h2 needs TLS, h2c none; auto: what each chooses (ALPN), \
         but h1 for upgrades where it takes none over h2",
    ),
    key(
        "clusters.NAME.endpoints[].address",
        "address",
        Required,
        "endpoints = [{ address = \"app.internal:8080\" }]",
        "IP address or name, and port; a name stands for every address that it resolves to",
    ),
    key(
        "clusters.NAME.endpoints[].weight",
        "integer",
        Is("1"),
        "endpoints = [{ address = \"10.0.0.1:8080\", weight = 3 }]",
        "share of the requests; 0 takes none",
    ),
    key(
        "clusters.NAME.endpoints[].zone",
        "name",
        Absent("no zone"),
        "endpoints = [{ address = \"10.0.0.1:8080\", zone = \"us-east-1a\" }]",
        "where the endpoint is, for logs and metrics",
    ),
    key(
        "clusters.NAME.pool.max_connections",
        "integer",
        Is("0"),
        "pool = { max_connections = 200 }",
        "most connections to one endpoint, process-wide; HTTP/2: one per core; 0: by open files",
    ),
    key(
        "clusters.NAME.pool.max_pending",
        "integer",
        Is("10000"),
        "pool = { max_pending = 1000 }",
        "most exchanges that wait for a connection of the cluster; beyond it 503",
    ),
    key(
        "clusters.NAME.pool.queue_timeout",
        "duration",
        Is("\"5s\""),
        "pool = { queue_timeout = \"1s\" }",
        "how long an exchange may wait for a connection; then 503",
    ),
    key(
        "clusters.NAME.pool.idle_timeout",
        "duration",
        Is("\"4s\""),
        "pool = { idle_timeout = \"60s\" }",
        "how long an unused connection is kept; keep it below the server's own",
    ),
    key(
        "clusters.NAME.timeouts.connect",
        "duration",
        Is("\"5s\""),
        "timeouts = { connect = \"1s\" }",
        "establishing a connection to an endpoint; then 504",
    ),
    key(
        "clusters.NAME.timeouts.first_byte",
        "duration",
        Is("\"30s\""),
        "timeouts = { first_byte = \"10s\" }",
        "from the whole request sent to the whole head of the answer, each 1xx anew; then 504",
    ),
    key(
        "clusters.NAME.timeouts.read",
        "duration",
        Is("\"30s\""),
        "timeouts = { read = \"2m\" }",
        "between two reads of the response body; then the response is cut",
    ),
    key(
        "limits.max_url_length",
        "size",
        Is("8192"),
        "max_url_length = 4096",
        "longest request target; longer is answered 414",
    ),
    key(
        "limits.max_header_size",
        "size",
        Is("16384"),
        "max_header_size = \"32KiB\"",
        "largest head, request line included; larger is answered 431",
    ),
    key(
        "limits.max_headers_count",
        "integer",
        Is("100"),
        "max_headers_count = 200",
        "most header lines in one head; more is answered 431",
    ),
    key(
        "limits.max_body_size",
        "size",
        Is("0"),
        "max_body_size = \"10MB\"",
        "largest request body (1MB = 1024 * 1024 bytes); larger is answered 413; 0: no limit",
    ),
    key(
        "limits.max_concurrent_connections",
        "integer",
        Is("0"),
        "max_concurrent_connections = 50000",
        "most open client connections; then idle ones make room or new ones wait; 0: by open files",
    ),
    key(
        "timeouts.header",
        "duration",
        Is("\"10s\""),
        "header = \"5s\"",
        "from the first byte of a head to its last; then 408",
    ),
    key(
        "timeouts.idle",
        "duration",
        Is("\"120s\""),
        "idle = \"30s\"",
        "how long a kept-alive client connection may be quiet; then it is closed",
    ),
    key(
        "timeouts.read",
        "duration",
        Is("\"30s\""),
        "read = \"60s\"",
        "between two reads of a request body; then 408",
    ),
    key(
        "timeouts.write",
        "duration",
        Is("\"30s\""),
        "write = \"60s\"",
        "how long a client may take none of the bytes that wait for it; then it is cut",
    ),
    key(
        "timeouts.min_body_rate",
        "size",
        Is("240"),
        "min_body_rate = \"1KiB\"",
        "slowest body up or down, in bytes a second, after 10 s of grace; then 408 or cut; 0: none",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use toml::de::DeTable;

    use super::super::Syntax;
    use super::super::document::Document;
    use super::super::env::Variables;
    use super::super::read::Reader;
    use super::*;

    /// One of everything, so that every section is read.
    const EVERYTHING: &str = "
        listeners = [{ proxy_protocol = {}, tls = { certificates = [{}], client_auth = {},
            sni = [{ client_auth = {} }], passthrough = [{}] } }]
        error_pages = [{}]
        routes = [{ respond = {}, redirect = {}, error_pages = [{}], grpc_web = {},
            grpc = { services = { any = { methods = { any = {} } } } },
            access_log = { request_body = {}, response_body = {} } }]
        logging.access = { rotate = {}, request_body = {}, response_body = {} }
        logging.error.rotate = {}
        logging.audit.rotate = {}
        clusters = { any = { endpoints = [{}], http2 = {}, tls = { certificate = {} } } }
        admin = { tokens = [{}] }
    ";

    #[test]
    fn the_reader_asks_for_every_key_of_the_registry_and_no_other() {
        let tree = DeTable::parse(EVERYTHING).unwrap();
        let reader = Reader::new(false, Variables::default());
        let _ = Document::read(&reader, tree.get_ref(), Syntax::Toml, "everything", EVERYTHING);
        let asked = reader.asked.borrow();
        // A section is asked for as well; only its keys are in the registry.
        let section = |path: &String| asked.iter().any(|other| is_below(other, path));
        let leaves: BTreeSet<&str> =
            asked.iter().filter(|path| !section(path)).map(String::as_str).collect();
        let known: BTreeSet<&str> = KEYS.iter().map(|key| key.path).collect();
        assert_eq!(leaves, known);
    }

    #[test]
    fn secrets_are_known_by_any_path_that_leads_to_them() {
        let doc = "";
        let keys = [
            key("admin.tokens[].token", "string", Required, "", doc).secret(),
            key("clusters.NAME.tls.key", "string", Required, "", doc).secret(),
            key("admin.bind", "address", Required, "", doc),
        ];
        let is_secret = |path: &str| is_secret_in(&keys, path);
        for secret in [
            "admin.tokens[3].token",
            "admin.tokens[0].token[1]",
            "clusters.orders.tls.key",
            "clusters.a.dotted.name.tls.key",
        ] {
            assert!(is_secret(secret), "{secret}");
        }
        for plain in ["admin.bind", "admin.tokens", "admin.tokens[0].name", "clusters.tls.ca", ""] {
            assert!(!is_secret(plain), "{plain}");
        }
    }

    #[test]
    fn keys_are_found_with_indices_names_or_neither() {
        assert_eq!(pattern_of("routes[12].cluster"), "routes[].cluster");
        assert_eq!(pattern_of("clusters.orders.pool"), "clusters.NAME.pool");
        let services = "routes[].grpc.services.NAME";
        assert_eq!(
            pattern_of("routes[0].grpc.services.my.Users.timeout"),
            format!("{services}.timeout")
        );
        let method = format!("{services}.methods.NAME.cluster");
        assert_eq!(pattern_of("routes[0].grpc.services.my.Users.methods.Find.cluster"), method);
        assert!(find("clusters.NAME.endpoints.weight").is_some());
        assert_eq!(home_of("max_pending"), Some("clusters.NAME.pool.max_pending"));
        assert_eq!(home_of("access"), Some("logging.access.enabled"));
        assert_eq!(home_of("NAME"), None);
        for odd in ["", ".", "clusters", "clusters.", "[", "]]", "routes[", "\u{e9}[\u{e9}"] {
            let _ = explain(odd);
        }
    }
}
