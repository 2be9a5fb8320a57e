//! The plan: configuration compiled for the data cores. Immutable, dense ids, no names to look up.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::engine::Shared;
use crate::grpc::health::KnownService;
use crate::grpc::settings::Grpc;
use crate::http::error_page::{ErrorPage, PageTable};
use crate::http::headers::HeaderEdits;
use crate::limits;
use crate::routing;
use crate::telemetry::redact::Redact;
pub use crate::telemetry::settings::{
    AccessLog, AccessLogFormat, AuditLog, BodyCapture, Capturing, ErrorLog, OnFull, Rotate,
    Sampling,
};
use crate::telemetry::trace::otlp::Service;
use crate::telemetry::trace::{Format, Ratio};
use crate::tls::material::Material;
use crate::tls::settings::{ClusterTls, ListenerTls, ProxyVersion};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerId(pub u16);
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteId(pub u32);
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterId(pub u32);
/// A cluster for as long as it has its name, whatever its place in a plan: what cores call it among
/// themselves, since they may be at different plans for a moment. Never given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterKey(pub u32);
/// A listening socket for as long as it is open; likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerKey(pub u32);
/// Index into `Cluster::endpoints`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointId(pub u32);

#[derive(Debug)]
pub struct Plan {
    /// Counts up with every plan that was accepted: `tls_proxy_rules_version`.
    pub version: u64,
    pub cores: usize,
    /// Whom the process becomes once its sockets are bound.
    pub user: Option<User>,
    pub pid_file: Option<PathBuf>,
    pub listeners: Vec<Listener>,
    pub router: routing::Router,
    pub routes: Vec<Route>,
    /// Of all routes, and of those requests that have none.
    pub error_pages: Vec<ErrorPage>,
    /// Where a route has no page of its own.
    pub pages: PageTable,
    pub clusters: Vec<Cluster>,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub trusted_proxies: Vec<Network>,
    /// Headers that tell upstreams who a client is, of all listeners: no client may send them.
    pub identity_headers: Vec<Box<[u8]>>,
    /// What `X-Proxy-ID` and `Via` call this process.
    pub proxy_id: String,
    pub access_log: Option<AccessLog>,
    /// What routes keep of their exchanges for it, each once.
    pub captures: Vec<Capturing>,
    pub error_log: Option<ErrorLog>,
    pub audit_log: Option<AuditLog>,
    /// `None`: trace headers pass as they came.
    pub tracing: Option<Tracing>,
    pub metrics: Option<SocketAddr>,
    pub metering: Metering,
    pub admin: Option<SocketAddr>,
    pub admin_access: AdminAccess,
    /// Whether `/health` and below are answered before routing.
    pub health_on_listeners: bool,
    /// Whether they say there what the process is made of.
    pub health_listener_details: bool,
    /// What `grpc.health.v1.Health` on listeners knows by name, in order. `None`: it is not
    /// answered there.
    pub health_grpc: Option<Vec<KnownService>>,
    pub drain_timeout: Duration,
    pub hot_reload: HotReload,
    /// Where the blacklist survives a restart.
    pub blacklist_path: Option<PathBuf>,
    /// Of the process's own log.
    pub log_level: log::LevelFilter,
    /// What no operator is shown and no audit line holds: the usual secrets, and the names that
    /// `logging.redact` adds.
    pub secrets: Redact,
    /// Certificates and the like, as they were when this was compiled.
    pub material: Shared<Material>,
    /// How long keys of tickets are used for new ones. They are accepted for as long again.
    pub ticket_rotation: Duration,
    /// The configuration with its defaults filled in, as TOML: what the admin API shows.
    pub written: String,
}

impl Plan {
    pub fn capturing(&self, route: &Route) -> Option<&Capturing> {
        self.captures.get(route.capture? as usize)
    }

    /// What an error of this status is answered with, where that is not the JSON form.
    pub fn error_page(&self, route: Option<&Route>, status: u16) -> Option<&ErrorPage> {
        let of_route = route.and_then(|route| route.error_pages.find(status));
        let id = of_route.or_else(|| self.pages.find(status))?;
        self.error_pages.get(id.0 as usize)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotReload {
    /// A file that changes is read again, and a server asked now and then.
    pub watch: bool,
    /// Between two questions to a server.
    pub poll_interval: Duration,
    /// Of one question, from connecting to the whole answer.
    pub poll_timeout: Duration,
    /// Most generations that are alive, the newest included.
    pub generations_max: usize,
    /// How long after a reload exchanges may go on that began before it; `None`: to their end.
    pub age_max: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// `None`: the user's own.
    pub group: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub name: String,
    pub bind: SocketAddr,
    /// Peers that say whom they speak for before anything else (PROXY protocol). Empty: none.
    pub proxy_protocol: Vec<Network>,
    pub http2: Http2,
    pub tls: Option<ListenerTls>,
}

/// What clients that speak HTTP/2 are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    pub enabled: bool,
    pub streams_max: u32,
    /// Of a stream, at first.
    pub window_bytes: u32,
    pub frame_bytes_max: u32,
}

impl Default for Http2 {
    fn default() -> Http2 {
        Http2 { enabled: true, streams_max: 100, window_bytes: 65_535, frame_bytes_max: 16_384 }
    }
}

#[derive(Debug)]
pub struct Route {
    pub name: String,
    pub action: Action,
    /// Of the whole exchange; `None` for no limit.
    pub timeout: Option<Duration>,
    /// The share of its traces that is recorded; `None`: tracing is off here.
    pub tracing: Option<Ratio>,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    /// Index into `Plan::captures`; `None`: the log needs no more than the line.
    pub capture: Option<u32>,
    /// These come before those of the plan.
    pub error_pages: PageTable,
    /// It takes gRPC, and nothing else.
    pub grpc: Option<Box<Grpc>>,
    pub upgrades: Upgrades,
}

/// Protocols that clients may go over to, and what holds for them from then on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upgrades {
    /// Their names, in lower case.
    pub protocols: Vec<Box<str>>,
    /// How long neither side may say anything; `None` for no limit.
    pub idle_timeout: Option<Duration>,
    /// Of WebSockets: how long a client may be silent before it is pinged.
    pub ping_interval: Option<Duration>,
}

impl Upgrades {
    pub const WEBSOCKET: &str = "websocket";

    pub fn name(&self, protocol: u8) -> &str {
        self.protocols.get(usize::from(protocol)).map_or("", |name| name)
    }

    pub fn is_websocket(&self, protocol: u8) -> bool {
        self.name(protocol) == Upgrades::WEBSOCKET
    }
}

#[derive(Debug)]
pub enum Action {
    Forward(ClusterId),
    Respond(Respond),
    Redirect(Redirect),
    /// The embedded default's page: echoes the request.
    Echo,
}

#[derive(Debug)]
pub struct Respond {
    pub status: u16,
    pub body: Vec<u8>,
    pub content_type: String,
}

#[derive(Debug)]
pub struct Redirect {
    pub status: u16,
    /// May contain `{host}`, `{path}`, `{query}` (with its `?`); split at compile time.
    pub location: Vec<LocationPart>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocationPart {
    Text(Vec<u8>),
    Host,
    Path,
    Query,
}

#[derive(Debug)]
pub struct Cluster {
    pub name: String,
    pub endpoints: Vec<Endpoint>,
    pub balance: Balance,
    pub pool: PoolLimits,
    pub timeouts: ClusterTimeouts,
    pub protocol: ClusterProtocol,
    pub http2: ClusterHttp2,
    pub tls: Option<ClusterTls>,
    /// Endpoints are told whom each connection is for.
    pub proxy_protocol: Option<ProxyVersion>,
}

/// What the endpoints of a cluster are spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterProtocol {
    #[default]
    H1,
    /// HTTP/2 over TLS; an endpoint that does not choose it (ALPN) is not spoken to.
    H2,
    /// HTTP/2 without TLS, with prior knowledge (RFC 9113 section 3.3).
    H2c,
    /// What each endpoint chooses (ALPN); HTTP/1.1 without TLS.
    Auto,
}

/// How HTTP/2 is spoken to the endpoints of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterHttp2 {
    /// Of one connection; an endpoint may allow fewer.
    pub streams_max: u32,
    /// Of one stream, in bytes: what is held of it while its client takes nothing.
    pub window: u32,
    /// How often an endpoint that is in use is asked whether it is there; `None`: only when it
    /// seems not to be.
    pub keepalive_interval: Option<Duration>,
    /// How long it may take to say so.
    pub keepalive_timeout: Duration,
}

impl Default for ClusterHttp2 {
    fn default() -> ClusterHttp2 {
        ClusterHttp2 {
            streams_max: limits::UPSTREAM_STREAMS,
            window: limits::UPSTREAM_STREAM_WINDOW,
            keepalive_interval: None,
            keepalive_timeout: limits::UPSTREAM_PING_TIMEOUT,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    RoundRobin,
    /// Smooth weighted round robin (as nginx): chosen when any weight differs from 1.
    WeightedRoundRobin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Address,
    pub weight: u32,
    pub zone: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Ip(SocketAddr),
    /// Resolved by the control core; every address it has is an endpoint.
    Name(String, u16),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => write!(f, "{address}"),
            Address::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// Of the whole process, however many cores there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Per endpoint; `None`: bounded by open files only.
    pub connections_max: Option<u32>,
    /// Exchanges waiting for a connection, per cluster.
    pub queue_max: u32,
    pub queue_timeout: Duration,
    pub idle_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterTimeouts {
    pub connect: Duration,
    pub first_byte: Duration,
    /// Between two reads of the response body.
    pub read: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub url_bytes_max: usize,
    pub header_bytes_max: usize,
    pub headers_max: usize,
    /// 0: none.
    pub body_bytes_max: u64,
    /// Open client connections of the process; `None`: from the open-file limit.
    pub connections_max: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub header: Duration,
    pub idle: Duration,
    pub read: Duration,
    pub write: Duration,
    /// Of bodies both ways, in bytes a second; 0: none.
    pub body_rate_min: u64,
}

/// A CIDR block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    pub bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotANetwork {
    Syntax,
    /// The network that has those bits clear.
    BeyondMask(Network),
}

impl fmt::Display for NotANetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotANetwork::Syntax => f.write_str("expected an address or a CIDR block"),
            NotANetwork::BeyondMask(meant) => {
                write!(f, "bits are set beyond the mask; did you mean {meant}?")
            }
        }
    }
}

/// An address, or a CIDR block without bits beyond its mask.
impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(given: &str) -> Result<Network, NotANetwork> {
        let (address, bits) = match given.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (given, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotANetwork::Syntax)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), |bits| bits.parse()).ok().filter(|bits| *bits <= width);
        let bits = bits.ok_or(NotANetwork::Syntax)?;
        let network = Network { address, bits }.canonical();
        let first = network.first();
        if first == network.address {
            Ok(network)
        } else {
            Err(NotANetwork::BeyondMask(Network { address: first, ..network }))
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Network {
    /// A block of IPv4-mapped addresses is the IPv4 block: addresses are compared in that form.
    fn canonical(self) -> Network {
        match (self.address.to_canonical(), self.bits.checked_sub(96)) {
            (IpAddr::V4(v4), Some(bits)) if self.address.is_ipv6() => {
                Network { address: IpAddr::V4(v4), bits }
            }
            (IpAddr::V4(_) | IpAddr::V6(_), _) => self,
        }
    }

    fn first(self) -> IpAddr {
        let bits = u32::from(self.bits);
        match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        }
    }

    /// An IPv4-mapped IPv6 address counts as its IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(self.bits);
                shift == 32 || (net.to_bits() ^ ip.to_bits()) >> shift == 0
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(self.bits);
                shift == 128 || (net.to_bits() ^ ip.to_bits()) >> shift == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Who may use the admin API. Without tokens: whoever is on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminAccess {
    /// Names that `Host` may have besides loopback and the bind address.
    pub hosts: Vec<String>,
    pub tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub name: String,
    pub role: Role,
    /// SHA-256; `None`: its secret was never looked up, and it lets nobody in.
    pub digest: Option<[u8; 32]>,
}

/// Each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Looks.
    Viewer,
    /// Changes what passes: draining, log levels.
    Operator,
    /// Changes the configuration.
    Admin,
}

impl Role {
    pub fn label(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

/// What is counted by name, and how it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metering {
    /// Of the metrics page.
    pub path: String,
    /// Other proxies' names are shown too.
    pub compat: bool,
    pub bounds: Bounds,
    pub series_max: usize,
    /// Histograms of request durations name traces.
    pub exemplars: bool,
}

/// Upper bounds of the buckets of durations, in microseconds, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds(Vec<u64>);

impl Bounds {
    /// `None`: empty, too many, or not ascending.
    pub fn new(micros: Vec<u64>) -> Option<Bounds> {
        let ascend = micros.windows(2).all(|pair| pair[0] < pair[1]);
        let fits = (1..=limits::METRICS_BUCKETS_MAX).contains(&micros.len());
        (ascend && fits).then_some(Bounds(micros))
    }

    /// The default of `metrics.buckets`.
    pub fn usual() -> Bounds {
        Bounds(limits::METRICS_BUCKETS_MICROS.to_vec())
    }

    pub fn micros(&self) -> &[u64] {
        &self.0
    }

    /// The bucket of a duration; a bound belongs to its bucket. Most exchanges end in one of the
    /// first.
    pub fn bucket(&self, micros: u64) -> usize {
        self.0.iter().position(|&bound| micros <= bound).unwrap_or(self.0.len())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Read: the first that is there. Written: all.
    pub propagate: Vec<Format>,
    /// Where a route has none of its own.
    pub share: Ratio,
    /// The decision of the caller counts, where there is one.
    pub parent: bool,
    pub trust: Trust,
    /// Each has an exporter of its own. None: only headers are wanted.
    pub collectors: Vec<Collector>,
}

/// Whose trace headers are believed. Those of others are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    All,
    TrustedProxies,
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    pub url: HttpUrl,
    pub spoken: Spoken,
    pub headers: Vec<(String, Secret)>,
    /// Of one request, from connecting to the whole answer.
    pub timeout: Duration,
    pub service: Service,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    OtlpProtobuf,
    OtlpJson,
    Zipkin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    /// Resolved by whoever connects.
    pub address: Address,
    /// As written: what `Host` says.
    pub authority: String,
    /// With its query.
    pub path: String,
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}
