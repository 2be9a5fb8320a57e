//! From a checked configuration to the plan that data cores read. Cannot fail: whatever could be
//! wrong has been refused in [`super::check`].

use super::certificates::Files;
use super::check::{Config, cluster_ids};
use super::cluster_http2::ClusterHttp2;
use super::document::{Cluster, Document, Edits, Endpoint};
use super::error_pages;
use super::logging::Captures;
use super::read::At;
use super::{grpc, tls, tracing, upgrades};
use crate::engine::Shared;
use crate::http::error_page::ErrorPage;
use crate::http::headers::HeaderEdits;
use crate::plan::{
    self, Action, AdminAccess, Balance, ClusterTimeouts, HotReload, Limits, Listener, Plan,
    PoolLimits, Route, Timeouts, Token,
};

/// `cpus` is how many CPUs the process may use: what `cores = 0` means.
pub(super) fn compile(config: Config<'_>, version: u64, cpus: usize) -> Plan {
    let document = config.document;
    let mut captures = Captures::new(document);
    let mut pages = Vec::new();
    let default_pages = error_pages::compile(&document.error_pages, &mut pages);
    let mut files = Files::default();
    let listeners = listeners(document, &mut files);
    let clusters = document.clusters.iter().map(|one| cluster(one, &mut files)).collect();
    let looked = document.looked.as_ref().map(|looked| looked.0.share());
    let routes = routes(document, config.actions, &mut captures, &mut pages);
    let port = |port: &super::document::Port| port.enabled.value.then_some(port.bind.value);
    Plan {
        version,
        cores: if document.cores.value == 0 { cpus.max(1) } else { document.cores.value },
        user: document.user().map(|(name, group)| plan::User {
            name: name.to_owned(),
            group: group.map(str::to_owned),
        }),
        pid_file: document.pid_file.as_ref().map(|path| path.value.clone()),
        listeners,
        router: config.router,
        routes,
        error_pages: pages,
        pages: default_pages,
        clusters,
        limits: limits(document),
        timeouts: timeouts(document),
        trusted_proxies: document.trusted_proxies.iter().map(|network| network.value).collect(),
        identity_headers: tls::identity_headers_of(document),
        proxy_id: document.proxy_id.value.clone(),
        access_log: document.logging.access_log(),
        captures: captures.all,
        error_log: document.logging.error_log(),
        audit_log: document.logging.audit_log(),
        secrets: document.logging.secrets(),
        tracing: tracing::compile(&document.tracing),
        metrics: port(&document.metrics.port),
        metering: document.metrics.compile(),
        admin: port(&document.admin.port),
        admin_access: admin_access(document),
        health_on_listeners: document.health.on_listeners.value,
        health_listener_details: document.health.listener_details.value,
        health_grpc: document.health.grpc.value.then(|| grpc::known_services(document)),
        drain_timeout: document.drain_timeout.value.0,
        hot_reload: hot_reload(&document.hot_reload),
        blacklist_path: document.blacklist.path.as_ref().map(|path| path.value.clone()),
        log_level: document.logging.level.value,
        material: looked.unwrap_or_else(|| Shared::new(files.material)),
        ticket_rotation: document.tls.ticket_rotation.value.0,
        written: super::print_with_references(document),
    }
}

fn admin_access(document: &Document) -> AdminAccess {
    let token = |token: &super::secret::Token| Token {
        name: token.name.value.clone(),
        role: token.role.value,
        digest: token.digest(),
    };
    AdminAccess {
        hosts: document.admin.hosts.iter().map(|host| host.value.clone()).collect(),
        tokens: document.admin.tokens.iter().map(token).collect(),
    }
}

fn hot_reload(hot_reload: &super::hot_reload::HotReload) -> HotReload {
    HotReload {
        watch: hot_reload.watch.value,
        poll_interval: hot_reload.poll_interval.value.0,
        poll_timeout: hot_reload.poll_timeout.value.0,
        generations_max: hot_reload.max_generations.value,
        age_max: Some(hot_reload.max_age.value.0).filter(|age| !age.is_zero()),
    }
}

fn listeners<'d>(document: &'d Document, files: &mut Files<'d>) -> Vec<Listener> {
    let ids = cluster_ids(document);
    let listener = |listener: &'d super::document::Listener| Listener {
        name: listener.name.value.clone(),
        bind: listener.bind.value,
        proxy_protocol: listener
            .proxy_protocol
            .as_ref()
            .map_or(Vec::new(), |given| given.compile()),
        http2: listener.http2.compile(),
        tls: listener.tls.as_ref().map(|tls| tls.compile(files, &ids)),
    };
    document.listeners.iter().map(listener).collect()
}

fn routes(
    document: &Document,
    actions: Vec<Action>,
    captures: &mut Captures<'_>,
    pages: &mut Vec<ErrorPage>,
) -> Vec<Route> {
    let routes = document.routes.iter().zip(actions);
    let route = |(written, action)| route(written, action, &document.tracing, captures, pages);
    let mut routes: Vec<Route> = routes.map(route).collect();
    let ids = cluster_ids(document);
    for made in grpc::made(document) {
        let made = made.compile(&routes[made.parent.0 as usize], &ids);
        routes.push(made);
    }
    for (place, grpc) in (0..).zip(routes.iter_mut().filter_map(|route| route.grpc.as_mut())) {
        grpc.place = place;
    }
    routes
}

fn route(
    route: &super::document::Route,
    action: Action,
    tracing: &tracing::Tracing,
    captures: &mut Captures<'_>,
    pages: &mut Vec<ErrorPage>,
) -> Route {
    Route {
        name: route.name.value.clone(),
        action,
        timeout: Some(route.timeout.value.0).filter(|timeout| !timeout.is_zero()),
        tracing: tracing::compile_route(&route.tracing, tracing),
        request_headers: edits(&route.request_headers),
        response_headers: edits(&route.response_headers),
        capture: captures.of(&route.access_log),
        error_pages: error_pages::compile(&route.error_pages, pages),
        grpc: grpc::compile(route),
        upgrades: upgrades::compile(&route.upgrades, &route.websocket),
    }
}

fn edits(edits: &Edits) -> HeaderEdits {
    HeaderEdits {
        remove: edits.remove.iter().map(|name| octets(&name.value.to_ascii_lowercase())).collect(),
        set: lines(&edits.set),
        add: lines(&edits.add),
    }
}

type Line = (Box<[u8]>, Box<[u8]>);

fn lines(edits: &[(At<String>, Vec<At<String>>)]) -> Vec<Line> {
    let line = |name: &At<String>, value: &At<String>| (octets(&name.value), octets(&value.value));
    edits.iter().flat_map(|(name, values)| values.iter().map(move |v| line(name, v))).collect()
}

fn octets(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

fn cluster<'d>(cluster: &'d Cluster, files: &mut Files<'d>) -> plan::Cluster {
    let pool = &cluster.pool;
    let timeouts = &cluster.timeouts;
    plan::Cluster {
        name: cluster.name.value.clone(),
        endpoints: cluster.endpoints.iter().map(endpoint).collect(),
        balance: balance(cluster),
        pool: PoolLimits {
            connections_max: limit(pool.max_connections.value),
            queue_max: pool.max_pending.value,
            queue_timeout: pool.queue_timeout.value.0,
            idle_timeout: pool.idle_timeout.value.0,
        },
        timeouts: ClusterTimeouts {
            connect: timeouts.connect.value.0,
            first_byte: timeouts.first_byte.value.0,
            read: timeouts.read.value.0,
        },
        protocol: cluster.protocol.value,
        http2: cluster.http2.as_ref().map(ClusterHttp2::compile).unwrap_or_default(),
        tls: cluster.tls.as_ref().map(|tls| tls.compile(files)),
        proxy_protocol: cluster.proxy_protocol.as_ref().map(|version| version.value),
    }
}

/// Weights that differ are honoured under either name; the plain loop is the cheaper one.
fn balance(cluster: &Cluster) -> Balance {
    if cluster.endpoints.iter().all(|endpoint| endpoint.weight.value == 1) {
        Balance::RoundRobin
    } else {
        Balance::WeightedRoundRobin
    }
}

fn endpoint(endpoint: &Endpoint) -> plan::Endpoint {
    plan::Endpoint {
        address: endpoint.address.value.clone(),
        weight: endpoint.weight.value,
        zone: endpoint.zone.as_ref().map(|zone| zone.value.clone()),
    }
}

/// In a configuration 0 means "no limit of its own".
fn limit(value: u32) -> Option<u32> {
    Some(value).filter(|value| *value > 0)
}

fn limits(document: &Document) -> Limits {
    let limits = &document.limits;
    let size = |bytes: u64| usize::try_from(bytes).expect("bounded by BUFFER_BYTES when read");
    Limits {
        url_bytes_max: size(limits.max_url_length.value.0),
        header_bytes_max: size(limits.max_header_size.value.0),
        headers_max: limits.max_headers_count.value,
        body_bytes_max: limits.max_body_size.value.0,
        connections_max: limit(limits.max_concurrent_connections.value),
    }
}

fn timeouts(document: &Document) -> Timeouts {
    let timeouts = &document.timeouts;
    Timeouts {
        header: timeouts.header.value.0,
        idle: timeouts.idle.value.0,
        read: timeouts.read.value.0,
        write: timeouts.write.value.0,
        body_rate_min: timeouts.min_body_rate.value.0,
    }
}
