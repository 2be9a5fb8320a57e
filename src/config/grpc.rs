//! `routes[].grpc` and `routes[].grpc_web` as written, and the routes that they become: one for
//! each service and each method, of which a path leads to exactly one.

use std::collections::{BTreeMap, HashMap};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use toml::Value;
use toml::de::DeValue;

use super::check::cluster_ids;
use super::document::{Bytes, ClusterProtocol, Document, Route, Time};
use super::error::{Problem, Wrong};
use super::read::{At, Item, Section};
use super::value::{
    Names, Written, boolean, bytes, choice, header_name, integer, string, text, time_or_none,
    written_name,
};
use crate::grpc::health::KnownService;
use crate::grpc::settings::{self, Retry};
use crate::grpc::status::{Code, Codes};
use crate::grpc::web::{Origins, Web};
use crate::limits;
use crate::plan::{self, Action, ClusterId, RouteId};
use crate::routing::Match;

#[derive(Clone, Debug, Serialize)]
pub struct Grpc {
    /// 0: none.
    pub max_message_size: At<Bytes>,
    /// 0: none.
    pub idle_timeout: At<Time>,
    pub retry_on: Vec<At<Code>>,
    pub max_attempts: At<u32>,
    #[serde(serialize_with = "by_name", skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<(At<String>, Service)>,
    /// What the services' routes have for `paths`, in the order of their routes.
    #[serde(skip)]
    pub(super) paths: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Service {
    #[serde(flatten)]
    pub goes: Goes,
    #[serde(serialize_with = "by_name", skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<(At<String>, Goes)>,
}

/// Where calls go and how long they may take; what is not here is taken from further out.
#[derive(Clone, Debug, Serialize)]
pub struct Goes {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<At<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<At<Time>>,
    #[serde(skip)]
    key: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct GrpcWeb {
    pub origins: Vec<At<Origin>>,
    pub credentials: At<bool>,
    pub expose_headers: Vec<At<String>>,
    pub max_age: At<Time>,
}

/// Of a page, as browsers write it; `*`: any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Grpc {
    pub(super) fn read(mut section: Section<'_>) -> Grpc {
        let size = bytes(0..=u64::from(u32::MAX));
        let code = choice("code of gRPC", CODES);
        let services: Vec<(At<String>, Service)> =
            section.entries("services").into_iter().filter_map(Service::read).collect();
        if services.is_empty() && section.has("services") {
            let wrong = Wrong::new("there are no services")
                .note("expected a table such as { \"myapp.UserService\" = { timeout = \"5s\" } }")
                .note("or leave it out: then every service goes to the route's cluster");
            section.refuse_key("services", section.offset_of("services"), wrong);
        }
        let grpc = Grpc {
            max_message_size: section.value_or("max_message_size", Bytes(0), size),
            idle_timeout: section.value_or(
                "idle_timeout",
                Time(limits::GRPC_IDLE_TIMEOUT),
                time_or_none,
            ),
            retry_on: section.list("retry_on", code),
            max_attempts: section.value_or(
                "max_attempts",
                limits::GRPC_ATTEMPTS,
                integer(1..=u64::from(limits::GRPC_ATTEMPTS_MAX)),
            ),
            paths: paths(&services),
            services,
        };
        section.finish();
        grpc
    }

    /// As if it stood there empty.
    fn usual() -> Grpc {
        Grpc {
            max_message_size: At::unplaced(Bytes(0)),
            idle_timeout: At::unplaced(Time(limits::GRPC_IDLE_TIMEOUT)),
            retry_on: Vec::new(),
            max_attempts: At::unplaced(limits::GRPC_ATTEMPTS),
            services: Vec::new(),
            paths: Vec::new(),
        }
    }
}

impl Service {
    fn read((name, item): (At<String>, Item<'_>)) -> Option<(At<String>, Service)> {
        if !is_service(&name.value) {
            let wrong = Wrong::new(format!("`{}` is no name of a service", name.value))
                .note("expected its full name, as in its .proto file: \"myapp.UserService\"");
            item.refuse(name.offset, wrong);
        }
        let mut section = item.table()?;
        let goes = Goes::read(&mut section);
        let methods = section.entries("methods").into_iter().filter_map(method).collect();
        section.finish();
        Some((name, Service { goes, methods }))
    }
}

fn method((name, item): (At<String>, Item<'_>)) -> Option<(At<String>, Goes)> {
    if !is_identifier(&name.value) {
        let wrong = Wrong::new(format!("`{}` is no name of a method", name.value))
            .note("expected it without its service: \"GetUser\"");
        item.refuse(name.offset, wrong);
    }
    let mut section = item.table()?;
    let goes = Goes::read(&mut section);
    section.finish();
    Some((name, goes))
}

impl Goes {
    fn read(section: &mut Section<'_>) -> Goes {
        Goes {
            cluster: section.value("cluster", text),
            timeout: section.value("timeout", time_or_none),
            key: section.path.clone(),
        }
    }
}

impl GrpcWeb {
    pub(super) fn read(mut section: Section<'_>) -> GrpcWeb {
        let web = GrpcWeb {
            origins: section.list("origins", origin),
            credentials: section.value_or("credentials", false, boolean),
            expose_headers: section.list("expose_headers", header_name),
            max_age: section.value_or("max_age", Time(limits::CORS_MAX_AGE), time_or_none),
        };
        let any = web.origins.iter().find(|origin| origin.value.0 == "*");
        if let Some(any) = any
            && web.credentials.value
        {
            let wrong = Wrong::new("every page would act in its visitors' names")
                .note("expected the pages that may: origins = [\"https://app.example.com\"]");
            section.refuse_key("origins", any.offset, wrong);
        }
        section.finish();
        web
    }

    fn compile(&self) -> Web {
        let octets = |text: &str| Box::<[u8]>::from(text.as_bytes());
        let named = self.origins.iter().map(|origin| octets(&origin.value.0)).collect();
        let any = self.origins.iter().any(|origin| origin.value.0 == "*");
        Web {
            origins: if any { Origins::Any } else { Origins::These(named) },
            credentials: self.credentials.value,
            exposed: self.expose_headers.iter().map(|name| octets(&name.value)).collect(),
            preflight_seconds: self.max_age.value.0.as_secs(),
        }
    }
}

/// One route of a service or of a method, made of the route that names it.
pub(super) struct Made<'d> {
    pub(super) id: RouteId,
    pub(super) parent: RouteId,
    pub(super) route: &'d Route,
    path: &'d str,
    goes: [Option<&'d Goes>; 2],
}

/// All of them, in the order of their ids, which follow those that are written.
pub(super) fn made(document: &Document) -> impl Iterator<Item = Made<'_>> {
    let first = document.routes.len() as u32;
    let of_route = |(parent, route): (u32, _)| {
        parts(route).map(move |(path, goes)| (RouteId(parent), route, path, goes))
    };
    let all = (0..).zip(&document.routes).flat_map(of_route);
    (first..).zip(all).map(|(id, (parent, route, path, goes))| Made {
        id: RouteId(id),
        parent,
        route,
        path,
        goes,
    })
}

/// The services and methods of a route, with their paths.
fn parts(route: &Route) -> impl Iterator<Item = (&str, [Option<&Goes>; 2])> {
    let grpc = route.grpc.iter();
    grpc.flat_map(|grpc| {
        let goes = grpc.services.iter().flat_map(|(_, service)| {
            let methods = service.methods.iter();
            let methods = methods.map(|(_, method)| [Some(method), Some(&service.goes)]);
            std::iter::once([None, Some(&service.goes)]).chain(methods)
        });
        grpc.paths.iter().map(String::as_str).zip(goes)
    })
}

fn paths(services: &[(At<String>, Service)]) -> Vec<String> {
    let mut paths = Vec::new();
    for (name, service) in services {
        let name = &name.value;
        paths.push(format!("/{name}/*"));
        paths.extend(service.methods.iter().map(|(method, _)| format!("/{name}/{}", method.value)));
    }
    paths
}

/// What a route matches by itself. One with services matches through them alone.
pub(super) fn takes_by_itself(route: &Route) -> bool {
    route.grpc.as_ref().is_none_or(|grpc| grpc.services.is_empty())
}

impl Made<'_> {
    pub(super) fn matches(&self) -> Match {
        Match {
            route: self.id,
            hosts: self.route.hosts.iter().map(|host| host.value.clone()).collect(),
            paths: vec![self.path.to_owned()],
        }
    }

    /// `parent` is compiled; what this one has of its own goes before that.
    pub(super) fn compile(
        &self,
        parent: &plan::Route,
        ids: &HashMap<&str, ClusterId>,
    ) -> plan::Route {
        let mut goes = self.goes.iter().flatten();
        let cluster = goes.clone().find_map(|goes| goes.cluster.as_ref());
        let own = cluster.and_then(|name| ids.get(name.value.as_str()));
        let action = match (own, &parent.action) {
            (Some(id), _) | (None, Action::Forward(id)) => Action::Forward(*id),
            (None, _) => unreachable!("only routes with a cluster have services"),
        };
        let timeout = goes.find_map(|goes| goes.timeout.as_ref());
        plan::Route {
            // As its path: no name that is written can have a slash in it.
            name: format!("{}{}", parent.name, self.path),
            action,
            timeout: match timeout {
                Some(timeout) => Some(timeout.value.0).filter(|timeout| !timeout.is_zero()),
                None => parent.timeout,
            },
            tracing: parent.tracing,
            request_headers: parent.request_headers.clone(),
            response_headers: parent.response_headers.clone(),
            capture: parent.capture,
            error_pages: parent.error_pages.clone(),
            grpc: parent.grpc.clone(),
            upgrades: parent.upgrades.clone(),
        }
    }
}

/// Of a route as written; its place is given out when all routes are there.
pub(super) fn compile(route: &Route) -> Option<Box<settings::Grpc>> {
    let usual = Grpc::usual();
    let grpc = match (&route.grpc, &route.grpc_web) {
        (Some(grpc), _) => grpc,
        (None, Some(_)) => &usual,
        (None, None) => return None,
    };
    let on = grpc.retry_on.iter().fold(Codes::default(), |on, code| on.with(code.value));
    Some(Box::new(settings::Grpc {
        place: 0,
        message_bytes_max: u32::try_from(grpc.max_message_size.value.0).unwrap_or(u32::MAX),
        idle_timeout: Some(grpc.idle_timeout.value.0).filter(|idle| !idle.is_zero()),
        retry: Retry { on, attempts_max: grpc.max_attempts.value },
        web: route.grpc_web.as_ref().map(GrpcWeb::compile),
    }))
}

/// What no single value shows.
pub(super) fn check(document: &Document, ids: &HashMap<&str, ClusterId>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse = |offset, key, wrong| problems.push(Problem { offset, key, wrong });
    for route in &document.routes {
        let is_grpc = route.grpc.is_some() || route.grpc_web.is_some();
        if is_grpc && route.cluster.is_none() {
            let wrong = Wrong::new("this route does not forward").note(
                "expected `cluster` beside it: where calls go whose service says nothing else",
            );
            refuse(route.offset, format!("{}.grpc", route.key), wrong);
        }
        if let Some(path) = route.paths.first()
            && !takes_by_itself(route)
        {
            let wrong = Wrong::new("the paths of this route are those of its services")
                .note("leave `paths` out, or `grpc.services`");
            refuse(path.offset, format!("{}.paths", route.key), wrong);
        }
        let of_route = route.cluster.iter().filter(|_| is_grpc);
        let of_route = of_route.map(|cluster| (cluster, route.key.as_str()));
        let of_parts = parts(route).filter_map(|(_, [method, service])| {
            let goes = method.or(service)?;
            Some((goes.cluster.as_ref()?, goes.key.as_str()))
        });
        for (cluster, owner) in of_route.chain(of_parts) {
            let known = document.clusters.iter().find(|one| one.name.value == cluster.value);
            if known.is_some_and(|known| known.protocol.value == ClusterProtocol::H1) {
                let name = &cluster.value;
                let wrong = Wrong::new(format!("`{name}` speaks HTTP/1.1, and gRPC cannot")).note(
                    format!("expected `protocol = \"h2c\"` in [clusters.{name}], or h2, with tls"),
                );
                refuse(cluster.offset, format!("{owner}.cluster"), wrong);
            }
            if !ids.contains_key(cluster.value.as_str()) {
                let mut names: Vec<&str> = ids.keys().copied().collect();
                names.sort_unstable();
                let wrong = Wrong::new(format!("there is no cluster named `{}`", cluster.value))
                    .choices("clusters are", &cluster.value, &names);
                refuse(cluster.offset, format!("{owner}.cluster"), wrong);
            }
        }
    }
    problems
}

/// Clusters that services and methods lead to.
pub(super) fn clusters(document: &Document) -> impl Iterator<Item = &str> {
    let all = document.routes.iter().flat_map(parts).flat_map(|(_, goes)| goes).flatten();
    all.filter_map(|goes| Some(goes.cluster.as_ref()?.value.as_str()))
}

/// Services that routes name, each once, and where their calls may go: what the health service
/// knows by name.
pub(super) fn known_services(document: &Document) -> Vec<KnownService> {
    let ids = cluster_ids(document);
    let mut known: BTreeMap<&str, Vec<ClusterId>> = BTreeMap::new();
    for route in &document.routes {
        for (name, service) in route.grpc.iter().flat_map(|grpc| &grpc.services) {
            let whole = service.goes.cluster.as_ref().or(route.cluster.as_ref());
            let methods = service.methods.iter().filter_map(|(_, goes)| goes.cluster.as_ref());
            let clusters = whole.into_iter().chain(methods);
            let found = clusters.filter_map(|cluster| ids.get(cluster.value.as_str()));
            known.entry(&name.value).or_default().extend(found);
        }
    }
    let service = |(name, clusters): (&str, Vec<ClusterId>)| KnownService {
        name: name.as_bytes().into(),
        clusters,
    };
    known.into_iter().map(service).collect()
}

/// `package.Service`: identifiers with dots between them.
fn is_service(name: &str) -> bool {
    name.len() <= limits::GRPC_NAME_BYTES_MAX && name.split('.').all(is_identifier)
}

fn is_identifier(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let fits = (1..=limits::GRPC_NAME_BYTES_MAX).contains(&name.len());
    fits && name.bytes().all(letter) && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// `https://app.example.com`, with a port where it is not the usual one, and nothing behind it: as
/// browsers send it, so that comparing bytes is enough.
fn origin(value: &DeValue<'_>) -> Result<Origin, Wrong> {
    let given = string(value)?;
    let host = given.strip_prefix("https://").or_else(|| given.strip_prefix("http://"));
    let plain = |host: &str| {
        let usual = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        !host.is_empty() && host.bytes().all(|byte| usual(byte) || b".-_:[]".contains(&byte))
    };
    if given == "*" || host.is_some_and(plain) {
        return Ok(Origin(given.to_owned()));
    }
    Err(Wrong::new(format!("`{given}` is no origin"))
        .note("expected scheme and host, and a port that is not the usual one, in lower case: ")
        .note("\"https://app.example.com\", or \"*\" for every page"))
}

const CODES: Names<Code> = &[
    ("cancelled", Code::Cancelled),
    ("unknown", Code::Unknown),
    ("deadline_exceeded", Code::DeadlineExceeded),
    ("resource_exhausted", Code::ResourceExhausted),
    ("aborted", Code::Aborted),
    ("internal", Code::Internal),
    ("unavailable", Code::Unavailable),
];

impl Written for Code {
    fn written(&self) -> Value {
        written_name(CODES, *self)
    }
}

impl Written for Origin {
    fn written(&self) -> Value {
        Value::String(self.0.clone())
    }
}

fn by_name<T: Serialize, S: Serializer>(
    entries: &[(At<String>, T)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(entries.len()))?;
    for (name, entry) in entries {
        map.serialize_entry(&name.value, entry)?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn text(route: &str) -> String {
        format!(
            "listeners = [{{ name = \"l\", bind = \"127.0.0.1:0\" }}]\n\
             clusters.a = {{ protocol = \"h2c\", endpoints = [{{ address = \"127.0.0.1:1\" }}] }}\n\
             clusters.b = {{ protocol = \"h2c\", endpoints = [{{ address = \"127.0.0.1:2\" }}] }}\n\
             clusters.c = {{ protocol = \"h2c\", endpoints = [{{ address = \"127.0.0.1:3\" }}] }}\n\
             clusters.old.endpoints = [{{ address = \"127.0.0.1:4\" }}]\n\
             [[routes]]\nname = \"api\"\n{route}"
        )
    }

    fn compiled(route: &str) -> plan::Plan {
        let document = config::load("test", &text(route)).unwrap();
        let again = config::load("again", &config::print(&document)).expect("it loads again");
        let plan = config::compile(&document, 1, 1).unwrap();
        let again = config::compile(&again, 1, 1).unwrap();
        assert_eq!(names(&plan), names(&again), "printing lost something");
        plan
    }

    fn names(plan: &plan::Plan) -> Vec<&str> {
        plan.routes.iter().map(|route| route.name.as_str()).collect()
    }

    fn mistakes(route: &str) -> String {
        let loaded = config::load("test", &text(route)).map_err(|errors| errors.to_string());
        match loaded {
            Err(errors) => errors,
            Ok(document) => config::compile(&document, 1, 1).unwrap_err().to_string(),
        }
    }

    const SERVICES: &str = "cluster = \"a\"\ntimeout = \"9s\"\n\
        [routes.grpc.services.\"my.Users\"]\ncluster = \"b\"\ntimeout = \"5s\"\n\
        methods = { Find = { cluster = \"c\" }, Watch = { timeout = \"0s\" } }\n\
        [routes.grpc.services.Orders]\n";

    #[test]
    fn services_and_methods_are_routes_that_their_paths_lead_to() {
        let plan = compiled(SERVICES);
        let all =
            ["api", "api/my.Users/*", "api/my.Users/Find", "api/my.Users/Watch", "api/Orders/*"];
        assert_eq!(names(&plan), all);
        let found = |path: &str| {
            let id = plan.router.find(b"any.test", path.as_bytes())?;
            let route = &plan.routes[id.0 as usize];
            let Action::Forward(cluster) = route.action else { unreachable!() };
            let cluster = plan.clusters[cluster.0 as usize].name.as_str();
            let seconds = route.timeout.map(|timeout| timeout.as_secs());
            Some((route.grpc.as_ref()?.place, cluster, seconds))
        };
        assert_eq!(found("/my.Users/Find"), Some((2, "c", Some(5))));
        assert_eq!(found("/my.Users/Watch"), Some((3, "b", None)));
        assert_eq!(found("/my.Users/Other"), Some((1, "b", Some(5))));
        assert_eq!(found("/Orders/Any"), Some((4, "a", Some(9))));
        assert_eq!(found("/Unknown/Any"), None, "it is no service of this route");
    }

    #[test]
    fn without_services_a_route_takes_what_its_paths_say() {
        let plan = compiled("cluster = \"a\"\npaths = [\"/my.Users/*\"]\ngrpc = {}\n");
        assert_eq!(names(&plan), ["api"]);
        assert!(plan.router.find(b"h", b"/my.Users/Find").is_some());
        assert!(plan.router.find(b"h", b"/Orders/Find").is_none());
        let web = compiled("cluster = \"a\"\n[routes.grpc_web]\norigins = [\"https://a.test\"]\n");
        let grpc = web.routes[0].grpc.as_ref().expect("grpc_web alone is enough");
        assert!(grpc.web.is_some() && grpc.retry.on.is_empty());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_where_it_stands() {
        for (route, expected) in [
            ("echo = true\ngrpc = {}\n", "routes[0].grpc: this route does not forward"),
            (
                "cluster = \"a\"\npaths = [\"/x/*\"]\ngrpc = { services = { A = {} } }\n",
                "routes[0].paths: the paths of this route are those of its services",
            ),
            (
                "cluster = \"a\"\ngrpc = { services = { A = { cluster = \"d\" } } }\n",
                "routes[0].grpc.services.A.cluster: there is no cluster named `d`",
            ),
            (
                "cluster = \"a\"\n\
                 grpc = { services = { A = { methods = { M = { cluster = \"d\" } } } } }\n",
                "routes[0].grpc.services.A.methods.M.cluster: there is no cluster named `d`",
            ),
            ("cluster = \"old\"\ngrpc = {}\n", "routes[0].cluster: `old` speaks HTTP/1.1"),
            ("cluster = \"a\"\ngrpc = { services = {} }\n", "there are no services"),
            (
                "cluster = \"a\"\ngrpc = { services = { \"/A\" = {} } }\n",
                "`/A` is no name of a service",
            ),
            (
                "cluster = \"a\"\ngrpc = { services = { A = { methods = { \"B.C\" = {} } } } }\n",
                "`B.C` is no name of a method",
            ),
            ("cluster = \"a\"\ngrpc = { retry_on = [\"ok\"] }\n", "there is no code of gRPC `ok`"),
            (
                "cluster = \"a\"\ngrpc_web = { origins = [\"https://a.test/\"] }\n",
                "`https://a.test/` is no origin",
            ),
            (
                "cluster = \"a\"\ngrpc_web = { origins = [\"*\"], credentials = true }\n",
                "every page would act in its visitors' names",
            ),
        ] {
            let mistakes = mistakes(route);
            assert!(mistakes.contains(expected), "{route}\n{mistakes}");
        }
    }

    #[test]
    fn a_cluster_that_only_a_method_leads_to_is_used() {
        let document = config::load("test", &text(SERVICES)).unwrap();
        let mut used: Vec<&str> = clusters(&document).collect();
        used.sort_unstable();
        used.dedup();
        assert_eq!(used, ["b", "c"]);
        let known = known_services(&document);
        let names: Vec<&[u8]> = known.iter().map(|known| &*known.name).collect();
        assert_eq!(names, [b"Orders".as_slice(), b"my.Users"]);
        let ids = cluster_ids(&document);
        assert_eq!(known[0].clusters, [ids["a"]]);
        assert_eq!(known[1].clusters, [ids["b"], ids["c"]]);
    }
}
