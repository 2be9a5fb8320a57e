//! The configuration as written: one struct per section, each value with its place, defaults
//! filled in. A section reads its own keys here and nowhere else; `print-config` prints from the
//! same structs. References between sections are resolved later, in `check.rs`.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use toml::de::DeTable;

use super::address::{endpoint_address, network, socket_address};
pub use super::admin::{Admin, Health};
use super::blacklist::Blacklist;
use super::certificates::Looked;
use super::cluster_http2::{self, ClusterHttp2};
use super::cluster_tls::ClusterTls;
use super::error::{Offset, Wrong};
use super::error_pages::ErrorPage;
use super::grpc::{Grpc, GrpcWeb};
use super::hot_reload::HotReload;
pub use super::listeners::Listener;
use super::logging::{Logging, RouteLog};
use super::metrics::Metrics;
use super::overrides::Source;
use super::read::{At, Item, Reader, Section};
use super::syntax::Syntax;
use super::tls::Tls;
use super::tls_values::PROXY_VERSIONS;
use super::tracing::{RouteTracing, Tracing};
use super::upgrades::{self, WebSocket};
use super::value::{
    BALANCES, CLUSTER_PROTOCOLS, Written, account, boolean, bytes, check_header_name, check_name,
    choice, content_type, header_name, header_value, integer, location, name, proxy_id, text, time,
    time_or_none,
};
pub use super::value::{Bytes, ClusterProtocol, ListenerProtocol, Location, Time};
use crate::limits;
use crate::plan::{Address, Balance, Network};
use crate::tls::settings::ProxyVersion;

/// A whole configuration file.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// 0: one per CPU that the process may use.
    pub cores: At<usize>,
    pub drain_timeout: At<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<At<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<At<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_file: Option<At<PathBuf>>,
    pub trusted_proxies: Vec<At<Network>>,
    pub proxy_id: At<String>,
    pub hot_reload: HotReload,
    pub blacklist: Blacklist,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub tls: Tls,
    pub logging: Logging,
    pub tracing: Tracing,
    pub metrics: Metrics,
    pub admin: Admin,
    pub health: Health,
    /// Where a route has none of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub error_pages: Vec<ErrorPage>,
    pub listeners: Vec<Listener>,
    pub routes: Vec<Route>,
    #[serde(serialize_with = "clusters_by_name")]
    pub clusters: Vec<Cluster>,
    /// The file's name, text and syntax, for messages.
    #[serde(skip)]
    pub(super) path: String,
    #[serde(skip)]
    pub(super) source: String,
    #[serde(skip)]
    pub(super) syntax: Syntax,
    /// Keys that the environment or the command line set, in the order in which they did.
    #[serde(skip)]
    pub(super) overrides: Vec<(String, Source)>,
    /// What they asked for in vain.
    #[serde(skip)]
    pub(super) without_effect: Vec<(Source, Wrong)>,
    /// What is in the files that TLS needs, once they were read.
    #[serde(skip)]
    pub(super) looked: Option<Looked>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Limits {
    pub max_url_length: At<Bytes>,
    pub max_header_size: At<Bytes>,
    pub max_headers_count: At<usize>,
    pub max_body_size: At<Bytes>,
    /// 0: from the open-file limit.
    pub max_concurrent_connections: At<u32>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Timeouts {
    pub header: At<Time>,
    pub idle: At<Time>,
    pub read: At<Time>,
    pub write: At<Time>,
    pub min_body_rate: At<Bytes>,
}

/// The part that `[metrics]` and `[admin]` have in common.
#[derive(Clone, Debug, Serialize)]
pub struct Port {
    pub enabled: At<bool>,
    pub bind: At<SocketAddr>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Route {
    pub name: At<String>,
    pub hosts: Vec<At<String>>,
    pub paths: Vec<At<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<At<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo: Option<At<bool>>,
    /// 0: none.
    pub timeout: At<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respond: Option<Respond>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<Grpc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_web: Option<GrpcWeb>,
    pub upgrades: Vec<At<String>>,
    pub websocket: WebSocket,
    pub tracing: RouteTracing,
    pub request_headers: Edits,
    pub response_headers: Edits,
    pub access_log: RouteLog,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub error_pages: Vec<ErrorPage>,
    /// `routes[0]`, for messages.
    #[serde(skip)]
    pub(super) key: String,
    /// Of its `[[routes]]` line.
    #[serde(skip)]
    pub(super) offset: Offset,
}

#[derive(Clone, Debug, Serialize)]
pub struct Respond {
    pub status: At<u16>,
    pub body: At<String>,
    pub content_type: At<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Redirect {
    pub status: At<u16>,
    pub location: At<Location>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Edits {
    pub remove: Vec<At<String>>,
    #[serde(serialize_with = "lines_by_name")]
    pub set: Vec<(At<String>, Vec<At<String>>)>,
    #[serde(serialize_with = "lines_by_name")]
    pub add: Vec<(At<String>, Vec<At<String>>)>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Cluster {
    #[serde(skip)]
    pub name: At<String>,
    pub balance: At<Balance>,
    pub protocol: At<ClusterProtocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<At<ProxyVersion>>,
    pub endpoints: Vec<Endpoint>,
    pub pool: Pool,
    pub timeouts: ClusterTimeouts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2: Option<ClusterHttp2>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClusterTls>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Endpoint {
    pub address: At<Address>,
    pub weight: At<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<At<String>>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Pool {
    /// 0: none.
    pub max_connections: At<u32>,
    pub max_pending: At<u32>,
    pub queue_timeout: At<Time>,
    pub idle_timeout: At<Time>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ClusterTimeouts {
    pub connect: At<Time>,
    pub first_byte: At<Time>,
    pub read: At<Time>,
}

impl Document {
    /// The text that it was read from.
    pub fn text(&self) -> &str {
        &self.source
    }

    /// What could be read; `reader` has what could not.
    pub(super) fn read(
        reader: &Reader,
        tree: &DeTable<'_>,
        syntax: Syntax,
        path: &str,
        source: &str,
    ) -> Document {
        let mut root = reader.root(tree);
        let document = Document {
            cores: root.value_or("cores", 0, integer(0..=limits::CORES_MAX as u64)),
            drain_timeout: root.value_or("drain_timeout", Time(limits::DRAIN_TIMEOUT), time),
            user: root.value("user", account),
            group: root.value("group", account),
            pid_file: root.value("pid_file", super::value::path),
            trusted_proxies: root.list("trusted_proxies", network),
            proxy_id: root.value_or("proxy_id", "corelane".to_owned(), proxy_id),
            hot_reload: HotReload::read(root.section("hot_reload")),
            blacklist: Blacklist::read(root.section("blacklist")),
            limits: Limits::read(root.section("limits")),
            timeouts: Timeouts::read(root.section("timeouts")),
            tls: Tls::read(root.section("tls")),
            logging: Logging::read(root.section("logging")),
            tracing: Tracing::read(root.section("tracing")),
            metrics: Metrics::read(root.section("metrics")),
            admin: Admin::read(root.section("admin")),
            health: Health::read(root.section("health")),
            error_pages: ErrorPage::read_all(&mut root),
            listeners: Listener::read_all(&mut root),
            routes: root.sections("routes").into_iter().map(Route::read).collect(),
            clusters: root.entries("clusters").into_iter().filter_map(Cluster::read).collect(),
            path: path.to_owned(),
            source: source.to_owned(),
            syntax,
            overrides: Vec::new(),
            without_effect: Vec::new(),
            looked: None,
        };
        root.finish();
        document
    }

    /// Whom the process becomes, and of which group, when it has bound its sockets.
    pub fn user(&self) -> Option<(&str, Option<&str>)> {
        let user = self.user.as_ref()?;
        Some((user.value.as_str(), self.group.as_ref().map(|group| group.value.as_str())))
    }
}

impl Limits {
    fn read(mut section: Section<'_>) -> Limits {
        let size = |max: usize| Bytes(max as u64);
        let head = bytes(64..=limits::BUFFER_BYTES as u64 / 2);
        let limits = Limits {
            max_url_length: section.value_or("max_url_length", size(limits::URL_BYTES_MAX), &head),
            max_header_size: section.value_or(
                "max_header_size",
                size(limits::HEADER_BYTES_MAX),
                &head,
            ),
            max_headers_count: section.value_or(
                "max_headers_count",
                limits::HEADERS_MAX,
                integer(1..=limits::HEADERS_MAX_CEILING as u64),
            ),
            max_body_size: section.value_or(
                "max_body_size",
                Bytes(limits::BODY_BYTES_MAX),
                bytes(0..=i64::MAX as u64),
            ),
            max_concurrent_connections: section.value_or(
                "max_concurrent_connections",
                0,
                integer(0..=u64::from(limits::CONNECTIONS_CEILING)),
            ),
        };
        section.finish();
        limits
    }
}

impl Timeouts {
    fn read(mut section: Section<'_>) -> Timeouts {
        let timeouts = Timeouts {
            header: section.value_or("header", Time(limits::HEADER_TIMEOUT), time),
            idle: section.value_or("idle", Time(limits::IDLE_TIMEOUT), time),
            read: section.value_or("read", Time(limits::READ_TIMEOUT), time),
            write: section.value_or("write", Time(limits::WRITE_TIMEOUT), time),
            min_body_rate: section.value_or(
                "min_body_rate",
                Bytes(limits::BODY_RATE_MIN),
                bytes(0..=1 << 30),
            ),
        };
        section.finish();
        timeouts
    }
}

impl Port {
    pub(super) fn read(section: &mut Section<'_>, port: u16) -> Port {
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Port {
            enabled: section.value_or("enabled", true, boolean),
            bind: section.value_or("bind", default, socket_address),
        }
    }
}

impl Route {
    fn read(mut section: Section<'_>) -> Route {
        let (key, offset) = (section.path.clone(), section.offset);
        let given = section.required("name", "a name, such as \"orders\"", name);
        let hosts = section.list("hosts", text);
        let paths = section.list("paths", text);
        let cluster = section.value("cluster", text);
        let echo = section.value("echo", boolean);
        let timeout = section.value_or("timeout", Time(Duration::ZERO), time_or_none);
        let actions = ["cluster", "echo", "respond", "redirect"];
        let several = actions.iter().filter(|key| section.has(key)).count() > 1;
        let none = !actions.iter().any(|key| section.has(key));
        let respond = section.optional_section("respond").map(Respond::read);
        let redirect = section.optional_section("redirect").map(Redirect::read);
        let grpc = section.optional_section("grpc").map(Grpc::read);
        let grpc_web = section.optional_section("grpc_web").map(GrpcWeb::read);
        let upgrades = upgrades::protocols(&mut section);
        let websocket = WebSocket::read(section.section("websocket"));
        let tracing = RouteTracing::read(&mut section);
        let request_headers = Edits::read(section.section("request_headers"));
        let response_headers = Edits::read(section.section("response_headers"));
        let access_log = RouteLog::read(section.section("access_log"));
        let error_pages = ErrorPage::read_all(&mut section);
        if several || none {
            let message =
                if none { "this route does nothing" } else { "this route does two things" };
            section.refuse(
                Wrong::new(message)
                    .note("expected exactly one of: cluster, respond, redirect, echo"),
            );
        }
        section.finish();
        Route {
            // Without a name it is refused; its other keys are still worth checking.
            name: given.unwrap_or_else(|| At::unplaced(String::new())),
            hosts,
            paths,
            cluster,
            echo,
            timeout,
            respond,
            redirect: redirect.flatten(),
            grpc,
            grpc_web,
            upgrades,
            websocket,
            tracing,
            request_headers,
            response_headers,
            access_log,
            error_pages,
            key,
            offset,
        }
    }
}

impl Respond {
    fn read(mut section: Section<'_>) -> Respond {
        let plain = "text/plain; charset=utf-8".to_owned();
        let respond = Respond {
            status: section.value_or("status", 200, integer(200..=599)),
            body: section.value_or("body", String::new(), text),
            content_type: section.value_or("content_type", plain, content_type),
        };
        // RFC 9110 §15.3.5, §15.3.6, §15.4.5
        if matches!(respond.status.value, 204 | 205 | 304) && !respond.body.value.is_empty() {
            let wrong = Wrong::new(format!("a {} cannot have a body", respond.status.value))
                .note("leave `body` out, or answer with another status");
            section.refuse_key("body", respond.body.offset, wrong);
        }
        section.finish();
        respond
    }
}

impl Redirect {
    fn read(mut section: Section<'_>) -> Option<Redirect> {
        let status = section.value_or("status", 302, redirect_status);
        let expected = "a URL, such as \"https://{host}{path}{query}\"";
        let location = section.required("location", expected, location);
        section.finish();
        Some(Redirect { status, location: location? })
    }
}

fn redirect_status(value: &toml::de::DeValue<'_>) -> Result<u16, Wrong> {
    let status = integer(0..=999)(value)?;
    if matches!(status, 301 | 302 | 303 | 307 | 308) {
        return Ok(status);
    }
    Err(Wrong::new(format!("{status} is not a redirect"))
        .note("expected 301, 302, 303, 307 or 308"))
}

impl Edits {
    fn read(mut section: Section<'_>) -> Edits {
        let remove = section.list("remove", header_name);
        let set = section.entries("set").into_iter().filter_map(|e| line(e, Lines::One));
        let mut set: Vec<(At<String>, Vec<At<String>>)> = set.collect();
        let add = section.entries("add").into_iter().filter_map(|e| line(e, Lines::Many)).collect();
        let mut seen = HashSet::new();
        set.retain(|(name, _)| {
            let first = seen.insert(name.value.to_ascii_lowercase());
            if !first {
                let wrong = Wrong::new(format!("`{}` is set twice", name.value))
                    .note("header names that differ only by case are the same header");
                section.refuse_key("set", name.offset, wrong);
            }
            first
        });
        section.finish();
        Edits { remove, set, add }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    One,
    Many,
}

/// A header name and its value, or values where several lines make sense.
fn line(
    (name, item): (At<String>, Item<'_>),
    lines: Lines,
) -> Option<(At<String>, Vec<At<String>>)> {
    if let Err(wrong) = check_header_name(&name.value) {
        item.refuse(name.offset, wrong);
        return None;
    }
    let values = if lines == Lines::Many && item.is_array() {
        item.elements().iter().filter_map(|element| element.parse(header_value)).collect()
    } else {
        vec![item.parse(header_value)?]
    };
    Some((name, values))
}

impl Cluster {
    fn read((name, item): (At<String>, Item<'_>)) -> Option<Cluster> {
        if let Err(wrong) = check_name(&name.value) {
            item.refuse(name.offset, wrong);
        }
        let mut section = item.table()?;
        if !section.has("endpoints") {
            section.missing("endpoints", "a list such as [{ address = \"10.0.0.1:8080\" }]");
        }
        let balance = choice("way to balance", BALANCES);
        let protocol = choice("cluster protocol", CLUSTER_PROTOCOLS);
        let version = choice("version of PROXY protocol", PROXY_VERSIONS);
        let cluster = Cluster {
            name,
            balance: section.value_or("balance", Balance::RoundRobin, balance),
            protocol: section.value_or("protocol", ClusterProtocol::H1, protocol),
            proxy_protocol: section.value("proxy_protocol", version),
            endpoints: Endpoint::read_all(&mut section),
            pool: Pool::read(section.section("pool")),
            timeouts: ClusterTimeouts::read(section.section("timeouts")),
            http2: ClusterHttp2::read(&mut section),
            tls: ClusterTls::read(&mut section),
        };
        cluster_http2::check(&cluster, &section);
        section.finish();
        Some(cluster)
    }
}

impl Endpoint {
    fn read_all(cluster: &mut Section<'_>) -> Vec<Endpoint> {
        let sections = cluster.sections("endpoints");
        let count = sections.len();
        let endpoints: Vec<Endpoint> = sections.into_iter().filter_map(Endpoint::read).collect();
        if cluster.is_empty_list("endpoints") {
            let wrong = Wrong::new("this cluster has no endpoints")
                .note("expected a list such as [{ address = \"10.0.0.1:8080\" }]");
            cluster.refuse_key("endpoints", cluster.offset_of("endpoints"), wrong);
        } else if endpoints.len() == count && count > 0 && endpoints.iter().all(Endpoint::is_off) {
            let wrong = Wrong::new("every endpoint of this cluster has weight 0")
                .note("expected at least one weight above 0");
            cluster.refuse_key("endpoints", cluster.offset_of("endpoints"), wrong);
        }
        endpoints
    }

    fn is_off(&self) -> bool {
        self.weight.value == 0
    }

    fn read(mut section: Section<'_>) -> Option<Endpoint> {
        let expected = "an address, such as \"10.0.0.1:8080\" or \"app.internal:8080\"";
        let address = section.required("address", expected, endpoint_address);
        let weight = section.value_or("weight", 1, integer(0..=u64::from(limits::WEIGHT_MAX)));
        let zone = section.value("zone", name);
        section.finish();
        Some(Endpoint { address: address?, weight, zone })
    }
}

impl Pool {
    fn read(mut section: Section<'_>) -> Pool {
        let count = integer(0..=u64::from(limits::CONNECTIONS_CEILING));
        let pool = Pool {
            max_connections: section.value_or("max_connections", 0, &count),
            max_pending: section.value_or("max_pending", QUEUE_MAX, &count),
            queue_timeout: section.value_or("queue_timeout", Time(limits::QUEUE_TIMEOUT), time),
            idle_timeout: section.value_or(
                "idle_timeout",
                Time(limits::UPSTREAM_IDLE_TIMEOUT),
                time,
            ),
        };
        section.finish();
        pool
    }
}

const QUEUE_MAX: u32 = limits::QUEUE_MAX as u32;

impl ClusterTimeouts {
    fn read(mut section: Section<'_>) -> ClusterTimeouts {
        let timeouts = ClusterTimeouts {
            connect: section.value_or("connect", Time(limits::CONNECT_TIMEOUT), time),
            first_byte: section.value_or("first_byte", Time(limits::FIRST_BYTE_TIMEOUT), time),
            read: section.value_or("read", Time(limits::READ_TIMEOUT), time),
        };
        section.finish();
        timeouts
    }
}

fn clusters_by_name<S: Serializer>(clusters: &[Cluster], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(clusters.len()))?;
    for cluster in clusters {
        map.serialize_entry(&cluster.name.value, cluster)?;
    }
    map.end()
}

pub(super) fn lines_by_name<T: Written, S: Serializer>(
    lines: &[(At<String>, Vec<At<T>>)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(lines.len()))?;
    for (name, values) in lines {
        match values.as_slice() {
            [one] => map.serialize_entry(&name.value, one)?,
            several => map.serialize_entry(&name.value, several)?,
        }
    }
    map.end()
}
