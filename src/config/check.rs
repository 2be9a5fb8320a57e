//! From a document to a [`Config`]: references resolved, and everything refused that no single
//! value shows: names used twice, addresses that clash, routes that lead nowhere.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::document::{Cluster, Document, Route};
use super::error::{Offset, Problem, Wrong};
use super::error_pages;
use super::logging::Body;
use super::read::At;
use super::{certificates, cluster_tls, grpc, tls};
use crate::limits;
use crate::plan::{AccessLogFormat, Action, ClusterId, Redirect, Respond, RouteId};
use crate::routing::{Match, MatchError, Router};

/// A document whose references are known to hold.
pub(super) struct Config<'d> {
    pub(super) document: &'d Document,
    pub(super) router: Router,
    /// One per route, in order.
    pub(super) actions: Vec<Action>,
}

/// What a check found; `config` is there when nothing is wrong.
pub(super) struct Checked<'d> {
    pub(super) config: Option<Config<'d>>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

pub(super) fn check(document: &Document) -> Checked<'_> {
    let mut found = Found::default();
    found.listeners(document);
    found.admin(document);
    found.heads(document);
    found.group(document);
    found.route_names(document);
    let actions = found.actions(document);
    let router = found.router(document);
    found.shadows(document);
    found.unused(document);
    found.logs(document);
    found.problems.extend(error_pages::check(document));
    found.problems.extend(grpc::check(document, &cluster_ids(document)));
    found.passthrough(document);
    tls::check(document, &mut found.problems);
    tls::warn(document, &mut found.warnings);
    cluster_tls::warn(document, &mut found.warnings);
    certificates::warn(document, &mut found.warnings);
    let config = match (router, actions) {
        (Some(router), Some(actions)) if found.problems.is_empty() => {
            Some(Config { document, router, actions })
        }
        (_, _) => None,
    };
    Checked { config, problems: found.problems, warnings: found.warnings }
}

#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Found {
    fn refuse(&mut self, offset: Offset, key: String, wrong: Wrong) {
        self.problems.push(Problem { offset, key, wrong });
    }

    fn warn(&mut self, offset: Offset, key: String, wrong: Wrong) {
        self.warnings.push(Problem { offset, key, wrong });
    }

    fn listeners(&mut self, document: &Document) {
        if document.listeners.len() > limits::LISTENERS_MAX {
            let wrong = Wrong::new(format!("there are {} listeners", document.listeners.len()))
                .note(format!("expected at most {}", limits::LISTENERS_MAX));
            self.refuse(Some(0), "listeners".to_owned(), wrong);
            return;
        }
        let mut names: HashMap<&str, &str> = HashMap::new();
        let mut bound = Vec::new();
        for listener in &document.listeners {
            let name = listener.name.value.as_str();
            let key = format!("{}.name", listener.key);
            self.unique(&mut names, name, &listener.key, listener.name.offset, key);
            let key = format!("{}.bind", listener.key);
            self.bind(&mut bound, Bound::new(&listener.bind, key), same);
        }
        let ports = [("metrics", &document.metrics.port), ("admin", &document.admin.port)];
        for (name, port) in ports {
            if port.enabled.value {
                self.bind(&mut bound, Bound::new(&port.bind, format!("{name}.bind")), overlap);
            }
        }
    }

    /// Addresses are bound once; port 0 is chosen by the kernel and never clashes.
    fn bind(
        &mut self,
        bound: &mut Vec<Bound>,
        new: Bound,
        clash: fn(SocketAddr, SocketAddr) -> bool,
    ) {
        if let Some(first) = bound.iter().find(|first| clash(first.address, new.address)) {
            // What has no place (a default, a flag) is reported at the other one.
            let (here, there) = if new.offset.is_none() { (first, &new) } else { (&new, first) };
            let wrong = Wrong::new(format!("`{}` is taken by `{}`", here.address, there.key))
                .note(format!("`{}` is `{}`: change one of the two", there.key, there.address));
            self.refuse(here.offset, here.key.clone(), wrong);
        }
        bound.push(new);
    }

    fn unique<'n>(
        &mut self,
        names: &mut HashMap<&'n str, &'n str>,
        name: &'n str,
        owner: &'n str,
        offset: Offset,
        key: String,
    ) {
        match names.entry(name) {
            Entry::Vacant(free) => {
                free.insert(owner);
            }
            Entry::Occupied(taken) => {
                let wrong =
                    Wrong::new(format!("`{name}` is already the name of `{}`", taken.get()))
                        .note("expected a name of its own: logs, metrics and reloads tell by it");
                self.refuse(offset, key, wrong);
            }
        }
    }

    /// Whoever reaches the port may change everything, unless there are tokens.
    fn admin(&mut self, document: &Document) {
        let admin = &document.admin;
        let bind = &admin.port.bind;
        let loopback = bind.value.ip().to_canonical().is_loopback();
        if admin.port.enabled.value && !loopback && admin.tokens.is_empty() {
            let wrong =
                Wrong::new(format!("the admin API would be open to all on `{}`", bind.value))
                    .note(format!(
                        "expected a loopback address: \"127.0.0.1:{}\"",
                        bind.value.port()
                    ))
                    .note(
                        "or tokens: tokens = [{ name = \"ci\", role = \"operator\", \
                     token = \"${ADMIN_TOKEN}\" }]; client certificates come with TLS",
                    );
            self.refuse(bind.offset, "admin.bind".to_owned(), wrong);
        }
        let mut names = HashMap::new();
        for token in &admin.tokens {
            let key = format!("{}.name", token.key);
            self.unique(&mut names, &token.name.value, &token.key, token.name.offset, key);
        }
    }

    fn heads(&mut self, document: &Document) {
        let (url, head) = (&document.limits.max_url_length, &document.limits.max_header_size);
        if url.value.0 >= head.value.0 {
            let wrong = Wrong::new("a URL of this length does not fit into `max_header_size`")
                .note(format!("expected less than {} bytes", head.value.0));
            self.refuse(url.offset.or(head.offset), "limits.max_url_length".to_owned(), wrong);
        }
    }

    fn group(&mut self, document: &Document) {
        if let (None, Some(group)) = (&document.user, &document.group) {
            let wrong = Wrong::new("a group without a user takes nothing from the process")
                .note("expected `user` beside it");
            self.refuse(group.offset, "group".to_owned(), wrong);
        }
    }

    fn route_names(&mut self, document: &Document) {
        let mut names = HashMap::new();
        for route in document.routes.iter().filter(|route| !route.name.value.is_empty()) {
            let key = format!("{}.name", route.key);
            self.unique(&mut names, &route.name.value, &route.key, route.name.offset, key);
        }
    }

    /// `None` when any route has no action; each such route has been reported.
    fn actions(&mut self, document: &Document) -> Option<Vec<Action>> {
        let ids = cluster_ids(document);
        let actions: Vec<Option<Action>> =
            document.routes.iter().map(|route| self.action(route, &ids)).collect();
        actions.into_iter().collect()
    }

    fn action(&mut self, route: &Route, ids: &HashMap<&str, ClusterId>) -> Option<Action> {
        if let Some(name) = &route.cluster {
            if let Some(id) = ids.get(name.value.as_str()) {
                return Some(Action::Forward(*id));
            }
            self.unknown_cluster(name, &route.key, ids);
            return None;
        }
        if let Some(respond) = &route.respond {
            return Some(Action::Respond(Respond {
                status: respond.status.value,
                body: respond.body.value.clone().into_bytes(),
                content_type: respond.content_type.value.clone(),
            }));
        }
        if let Some(redirect) = &route.redirect {
            return Some(Action::Redirect(Redirect {
                status: redirect.status.value,
                location: redirect.location.value.parts.clone(),
            }));
        }
        let echo = route.echo.as_ref()?;
        if !echo.value {
            let wrong = Wrong::new("this route does nothing")
                .note("expected `true`, or one of: cluster, respond, redirect");
            self.refuse(echo.offset, format!("{}.echo", route.key), wrong);
        }
        Some(Action::Echo)
    }

    fn unknown_cluster(&mut self, name: &At<String>, owner: &str, ids: &HashMap<&str, ClusterId>) {
        let wrong = Wrong::new(format!("there is no cluster named `{}`", name.value));
        let wrong = if ids.is_empty() {
            wrong.note(format!("expected a section [clusters.{}]", name.value))
        } else if self.problems.len() * ids.len() < COMPARISONS_MAX {
            wrong.choices("clusters are", &name.value, &sorted(ids.keys().copied()))
        } else {
            wrong
        };
        self.refuse(name.offset, format!("{owner}.cluster"), wrong);
    }

    fn passthrough(&mut self, document: &Document) {
        let ids = cluster_ids(document);
        for tls in document.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            for passed in &tls.passthrough {
                if !ids.contains_key(passed.cluster.value.as_str()) {
                    self.unknown_cluster(&passed.cluster, &passed.key, &ids);
                }
            }
        }
    }

    fn router(&mut self, document: &Document) -> Option<Router> {
        let written = (0..).zip(&document.routes).filter(|(_, route)| grpc::takes_by_itself(route));
        let written = written.map(|(id, route)| Match {
            route: RouteId(id),
            hosts: route.hosts.iter().map(|host| host.value.clone()).collect(),
            paths: route.paths.iter().map(|path| path.value.clone()).collect(),
        });
        let made = grpc::made(document).map(|made| made.matches());
        let matches: Vec<Match> = written.chain(made).collect();
        match Router::compile(&matches) {
            Ok(router) => Some(router),
            Err(errors) => {
                for error in errors {
                    self.pattern(document, error);
                }
                None
            }
        }
    }

    fn pattern(&mut self, document: &Document, error: MatchError) {
        let written = document.routes.get(error.route.0 as usize);
        let made = || grpc::made(document).find(|made| made.id == error.route);
        let Some(route) = written.or_else(|| Some(made()?.route)) else {
            return;
        };
        let list = if error.field == "hosts" { &route.hosts } else { &route.paths };
        let offset = list.get(error.index).map_or(route.offset, |entry| entry.offset);
        let key = format!("{}.{}[{}]", route.key, error.field, error.index);
        self.refuse(offset, key, Wrong::new(error.message));
    }

    /// A route that an earlier one leaves nothing to: each of its (host, path) pairs is taken.
    fn shadows(&mut self, document: &Document) {
        let mut taken: HashMap<(String, &str), &Route> = HashMap::new();
        for route in &document.routes {
            let pairs = pairs(route);
            let owner = pairs.iter().map(|pair| taken.get(pair)).collect::<Option<Vec<_>>>();
            if let Some([first, ..]) = owner.as_deref() {
                let wrong = Wrong::new("no request reaches this route")
                    .note(format!(
                        "`{}` ({}) takes the same hosts and paths",
                        first.name.value, first.key
                    ))
                    .note("the first route of two equal ones wins: remove or change this one");
                self.warn(route.offset, route.key.clone(), wrong);
            }
            for pair in pairs {
                taken.entry(pair).or_insert(route);
            }
        }
    }

    fn unused(&mut self, document: &Document) {
        let used: HashSet<&str> = document
            .routes
            .iter()
            .filter_map(|r| Some(r.cluster.as_ref()?.value.as_str()))
            .chain(tls::passed_to(document))
            .chain(grpc::clusters(document))
            .collect();
        for cluster in document.clusters.iter().filter(|c| !used.contains(named(c))) {
            let key = format!("clusters.{}", cluster.name.value);
            self.warn(cluster.name.offset, key, Wrong::new("no route leads to this cluster"));
        }
    }

    /// What no line can show, as the format is.
    fn logs(&mut self, document: &Document) {
        let access = &document.logging.access;
        if let Some(template) = &access.template
            && access.format.value != AccessLogFormat::Template
        {
            let wrong = Wrong::new("this template is not used")
                .note("expected `format = \"template\"` beside it");
            self.warn(template.offset, "logging.access.template".to_owned(), wrong);
        }
        match access.format.value {
            AccessLogFormat::Json => return,
            AccessLogFormat::Template if access.template.is_none() => {
                let wrong = Wrong::new("this key is missing, and the format is `template`")
                    .note("expected a line such as \"{client_ip} {method} {path} {status}\"");
                self.refuse(access.format.offset, "logging.access.template".to_owned(), wrong);
            }
            AccessLogFormat::Template
            | AccessLogFormat::Text
            | AccessLogFormat::Clf
            | AccessLogFormat::Combined => {}
        }
        let headers = [
            ("request_headers", &access.request_headers),
            ("response_headers", &access.response_headers),
        ];
        for (name, list) in headers {
            if let Some(first) = list.first() {
                self.only_in_json(first.offset, format!("logging.access.{name}"));
            }
        }
        let of_all = ("logging.access".to_owned(), access.format.offset);
        self.bodies(of_all, &access.request_body, &access.response_body);
        for route in &document.routes {
            let log = &route.access_log;
            let place = (format!("{}.access_log", route.key), route.offset);
            self.bodies(place, &log.request_body, &log.response_body);
        }
    }

    fn bodies(
        &mut self,
        (key, offset): (String, Offset),
        request: &Option<Body>,
        response: &Option<Body>,
    ) {
        for (name, body) in [("request_body", request), ("response_body", response)] {
            if let Some(body) = body.as_ref().filter(|body| body.enabled.value) {
                self.only_in_json(body.max.offset.or(offset), format!("{key}.{name}"));
            }
        }
    }

    fn only_in_json(&mut self, offset: Offset, key: String) {
        let wrong = Wrong::new("this is logged in the json format only").note(
            "expected `format = \"json\"` in [logging.access]; a template shows headers as \
             {header.NAME}",
        );
        self.refuse(offset, key, wrong);
    }
}

/// An address, and the key that asks for it.
struct Bound {
    address: SocketAddr,
    key: String,
    offset: Offset,
}

impl Bound {
    fn new(bind: &At<SocketAddr>, key: String) -> Bound {
        Bound { address: bind.value, key, offset: bind.offset }
    }
}

/// Looking for names that were meant stops here: it is quadratic in the size of the file.
const COMPARISONS_MAX: usize = 100_000;

pub(super) fn cluster_ids(document: &Document) -> HashMap<&str, ClusterId> {
    (0..).zip(&document.clusters).map(|(id, cluster)| (named(cluster), ClusterId(id))).collect()
}

fn named(cluster: &Cluster) -> &str {
    &cluster.name.value
}

fn sorted<'n>(names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names
}

fn pairs(route: &Route) -> Vec<(String, &str)> {
    let hosts: Vec<String> = match route.hosts.as_slice() {
        [] => vec!["*".to_owned()],
        hosts => hosts.iter().map(|host| host.value.to_ascii_lowercase()).collect(),
    };
    let services = route.grpc.iter().flat_map(|grpc| &grpc.paths);
    let paths = route.paths.iter().map(|path| &path.value).chain(services);
    let mut paths: Vec<&str> = paths.map(String::as_str).collect();
    if paths.is_empty() {
        paths.push("/*");
    }
    if hosts.len().saturating_mul(paths.len()) > PAIRS_MAX {
        return Vec::new();
    }
    let all = hosts.iter().flat_map(|host| paths.iter().map(|path| (host.clone(), *path)));
    all.collect()
}

/// A route with more pairs is not compared with others: the warning is a courtesy.
const PAIRS_MAX: usize = 4096;

fn same(a: SocketAddr, b: SocketAddr) -> bool {
    a == b && a.port() != 0
}

/// Whether a connection to one could have been meant for the other.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    let family = a.is_ipv4() == b.is_ipv4(); // an IPv6 socket takes IPv6 only
    a.port() == b.port() && a.port() != 0 && family && (any || a.ip() == b.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn a_pattern_that_does_not_compile_is_reported_where_it_is_written() {
        let text = "listeners = [{ name = \"l\", bind = \"127.0.0.1:1\" }]\n\
                    routes = [{ name = \"r\", echo = true, \
                    hosts = [\"a\", \"b\"], paths = [\"/c\"] }]\n";
        let document = config::load("test", text).unwrap();
        let mut found = Found::default();
        for (field, index) in [("hosts", 1), ("paths", 0), ("paths", 9)] {
            let message = "wrong".to_owned();
            found.pattern(&document, MatchError { route: RouteId(0), field, index, message });
        }
        found.pattern(
            &document,
            MatchError { route: RouteId(9), field: "hosts", index: 0, message: String::new() },
        );
        let places: Vec<(&str, &str)> = found
            .problems
            .iter()
            .map(|p| (p.key.as_str(), &text[p.offset.unwrap()..][..4]))
            .collect();
        let expected = [
            ("routes[0].hosts[1]", "\"b\"]"),
            ("routes[0].paths[0]", "\"/c\""),
            ("routes[0].paths[9]", "{ na"),
        ];
        assert_eq!(places, expected);
    }

    #[test]
    fn wildcard_addresses_overlap_and_ports_of_the_kernel_never_do() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(overlap(at("0.0.0.0:80"), at("127.0.0.1:80")));
        assert!(!overlap(at("127.0.0.2:80"), at("127.0.0.1:80")));
        assert!(!overlap(at("127.0.0.1:0"), at("127.0.0.1:0")));
        assert!(!overlap(at("0.0.0.0:80"), at("[::]:80")));
        assert!(overlap(at("[::1]:80"), at("[::]:80")));
        assert!(!same(at("127.0.0.1:0"), at("127.0.0.1:0")));
        assert!(!same(at("0.0.0.0:80"), at("127.0.0.1:80")));
    }
}
