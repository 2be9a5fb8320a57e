//! What the environment and the command line say over a file: flags before environment before
//! file. Each is one [`Override`] with its [`Source`], so that messages and `print-config` can name
//! it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use toml::de::DeValue;

use super::document::{Document, Listener, Port, Route, Time};
use super::env::{Environment, typed};
use super::error::{Errors, Problem, Wrong};
use super::read::At;
use super::value::{FORMATS, LEVELS, choice, integer, string, time};
use super::{ARGUMENTS_NAME, DEFAULT_NAME, check, endpoint_address, load_in};
use crate::plan::{AccessLogFormat, HttpUrl};

/// One value that did not come from the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Override {
    Cores(usize),
    LogLevel(LevelFilter),
    LogFormat(AccessLogFormat),
    /// The directory of `access.log`, and of `error.log` unless the file names another.
    LogDirectory(PathBuf),
    DrainTimeout(Duration),
    /// Turns tracing on as well.
    OtlpEndpoint(HttpUrl),
    ServiceName(String),
    ServiceId(String),
    MetricsPort(u16),
    AdminPort(u16),
    /// Of the only listener.
    Host(IpAddr),
    /// Of the only listener.
    Port(u16),
    /// `host:port` of what takes requests that no route takes.
    DefaultBackend(String),
    /// How long backends may take, where the file does not say.
    BackendTimeout(Duration),
    /// How long clients and backends may be silent, where the file does not say.
    Timeout(Duration),
}

/// Who set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The name of a variable.
    Environment(&'static str),
    /// The name of a flag, with its dashes.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Environment(name) => write!(f, "environment {name}"),
            Source::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

type Read = fn(&DeValue<'_>) -> Result<Override, Wrong>;

/// In the order in which they are applied: a timeout is also that of the default backend.
const VARIABLES: [(&str, Read); 6] = [
    ("PROXY_HOST", |value| host(value).map(Override::Host)),
    ("PROXY_PORT", |value| integer(0..=65_535)(value).map(Override::Port)),
    ("LOG_LEVEL", |value| log_level(value).map(Override::LogLevel)),
    ("LOG_FORMAT", |value| choice("access log format", FORMATS)(value).map(Override::LogFormat)),
    ("DEFAULT_BACKEND", |value| backend(string(value)?).map(Override::DefaultBackend)),
    ("BACKEND_TIMEOUT", |value| time(value).map(|Time(t)| Override::BackendTimeout(t))),
];

/// Variables that other proxies and later versions know: set, they would be missed.
const NOT_YET: [(&str, &str); 8] = [
    ("CACHE_ENABLED", "the cache"),
    ("CACHE_MAX_MEMORY", "the cache"),
    ("CACHE_DEFAULT_TTL", "the cache"),
    ("RATE_LIMIT_ENABLED", "rate limits"),
    ("RATE_LIMIT_RPS", "rate limits"),
    ("CLI_ENABLED", "commands as backends"),
    ("CLI_MAX_CONCURRENT", "commands as backends"),
    ("CLI_TIMEOUT", "commands as backends"),
];

/// What the environment asks for. An empty variable counts as not set.
pub fn from_environment(environment: &Environment) -> Result<Vec<(Override, Source)>, Errors> {
    let mut overrides = Vec::new();
    let mut problems = Vec::new();
    for (name, read) in VARIABLES {
        let value = match environment.text(name) {
            Ok(None | Some("")) => continue,
            Ok(Some(text)) => typed(text, read),
            Err(wrong) => Err(wrong),
        };
        match value {
            Ok(value) => overrides.push((value, Source::Environment(name))),
            Err(wrong) => problems.push(of_variable(name, wrong)),
        }
    }
    if problems.is_empty() { Ok(overrides) } else { Err(Errors::new(PLACE, "", problems)) }
}

/// Variables that are set and do nothing.
pub(super) fn warnings(environment: &Environment, document: &Document) -> Errors {
    let is_asked_for = |name: &str| match environment.text(name) {
        Ok(Some(text)) => !OFF.contains(&text),
        Ok(None) => false,
        Err(_) => true,
    };
    let set = NOT_YET.iter().filter(|(name, _)| is_asked_for(name));
    let warning = |(name, feature): &(&str, &str)| {
        let wrong = Wrong::new("this variable has no effect")
            .note(format!("it belongs to {feature}, which this version does not have"));
        of_variable(name, wrong)
    };
    let idle = document.without_effect.iter().map(|(source, wrong)| match source {
        Source::Environment(name) | Source::Flag(name) => of_variable(name, wrong.clone()),
    });
    let of_tls = of_tls(environment, document);
    Errors::new(PLACE, "", set.map(warning).chain(idle).chain(of_tls).collect())
}

/// Variables of TLS that others know by name. Here TLS is spoken where the file has certificates,
/// and whose password a variable is, the file says.
fn of_tls(environment: &Environment, document: &Document) -> Vec<Problem> {
    let text = |name| environment.text(name).ok().flatten().filter(|text| !text.is_empty());
    let is_spoken = document.listeners.iter().any(|listener| listener.tls.is_some());
    let is_wanted = text("PROXY_TLS_ENABLED").map(|text| !OFF.contains(&text));
    let mut problems = Vec::new();
    let cure = match (is_wanted, is_spoken) {
        (Some(true), false) => "expected a listener with `tls = { certificates = [...] }`",
        (Some(false), true) => "TLS is off where no listener has `tls`",
        (Some(true), true) | (Some(false), false) | (None, _) => "",
    };
    let no_effect = || Wrong::new("this variable has no effect");
    if !cure.is_empty() {
        problems.push(of_variable("PROXY_TLS_ENABLED", no_effect().note(cure)));
    }
    if text("CERT_PASSWORD").is_some() && !document.source.contains("${CERT_PASSWORD") {
        let cure = "expected it beside a certificate: password = \"${CERT_PASSWORD}\"";
        problems.push(of_variable("CERT_PASSWORD", no_effect().note(cure)));
    }
    problems
}

/// What a variable says that asks for nothing.
const OFF: [&str; 5] = ["", "0", "false", "no", "off"];

/// Stands where messages have the name of a file.
const PLACE: &str = "environment";

fn of_variable(name: &str, wrong: Wrong) -> Problem {
    Problem { offset: None, key: name.to_owned(), wrong }
}

/// Puts them over the document, the last one last, and checks the whole once more.
pub fn overridden(
    mut document: Document,
    overrides: Vec<(Override, Source)>,
) -> Result<Document, Errors> {
    for (value, source) in overrides {
        let mut over = Over { document: &mut document, source };
        if let Err(wrong) = over.put(value) {
            return Err(match source {
                Source::Environment(name) => Errors::new(PLACE, "", vec![of_variable(name, wrong)]),
                Source::Flag(name) => {
                    Errors::new("command line", "", vec![of_variable(name, wrong)])
                }
            });
        }
    }
    let problems = check::check(&document).problems;
    if problems.is_empty() {
        return Ok(document);
    }
    let named = problems.into_iter().map(|problem| naming_sources(&document, problem)).collect();
    Err(Errors::new(&document.path, &document.source, named))
}

/// A mistake that shows only in the whole, with the variables and flags that take part in it.
fn naming_sources(document: &Document, mut problem: Problem) -> Problem {
    for (path, source) in &document.overrides {
        let quoted = format!("`{path}`");
        let mentioned = problem.key == *path
            || problem.wrong.message.contains(&quoted)
            || problem.wrong.notes.iter().any(|note| note.contains(&quoted));
        if mentioned {
            problem.wrong = problem.wrong.note(format!("{quoted} was set by: {source}"));
        }
    }
    problem
}

struct Over<'d> {
    document: &'d mut Document,
    source: Source,
}

impl Over<'_> {
    fn put(&mut self, value: Override) -> Result<(), Wrong> {
        match value {
            Override::Cores(cores) => {
                self.document.cores = self.set("cores", cores);
            }
            Override::LogLevel(level) => {
                self.document.logging.level = self.set("logging.level", level);
            }
            Override::LogFormat(format) => {
                self.document.logging.access.format = self.set("logging.access.format", format);
            }
            Override::LogDirectory(directory) => {
                if self.document.logging.error.path.is_none() {
                    let path = directory.join("error.log");
                    self.document.logging.error.path = Some(self.set("logging.error.path", path));
                }
                let path = directory.join("access.log");
                self.document.logging.access.path = Some(self.set("logging.access.path", path));
            }
            Override::DrainTimeout(timeout) => {
                self.document.drain_timeout = self.set("drain_timeout", Time(timeout));
            }
            Override::OtlpEndpoint(url) => {
                // Spans go where the operator says now, and nowhere else.
                self.document.tracing.zipkin.endpoint = None;
                self.document.tracing.enabled = self.set("tracing.enabled", true);
                self.document.tracing.otlp.endpoint = Some(self.set("tracing.otlp.endpoint", url));
            }
            Override::ServiceName(name) => {
                self.document.tracing.service_name = self.set("tracing.service_name", name);
            }
            Override::ServiceId(id) => {
                self.document.tracing.service_id = Some(self.set("tracing.service_id", id));
            }
            Override::MetricsPort(port) => {
                self.document.metrics.port.bind =
                    self.port("metrics.bind", port, |d| &d.metrics.port);
            }
            Override::AdminPort(port) => {
                self.document.admin.port.bind = self.port("admin.bind", port, |d| &d.admin.port);
            }
            // `corelane reverse` has its own word for where it listens and forwards to
            Override::Host(_) | Override::Port(_) | Override::DefaultBackend(_)
                if self.document.path == ARGUMENTS_NAME => {}
            Override::Host(host) => {
                let port = self.listener()?.bind.value.port();
                self.bind(SocketAddr::new(host, port))?;
            }
            Override::Port(port) => {
                let host = self.listener()?.bind.value.ip();
                self.bind(SocketAddr::new(host, port))?;
            }
            Override::DefaultBackend(address) => self.default_backend(&address)?,
            Override::BackendTimeout(timeout) => self.backend_timeout(timeout),
            Override::Timeout(timeout) => {
                if self.document.timeouts.read.offset.is_none() {
                    self.document.timeouts.read = self.set("timeouts.read", Time(timeout));
                }
                self.backend_timeout(timeout);
                self.backend_read_timeout(timeout);
            }
        }
        Ok(())
    }

    fn set<T>(&mut self, path: impl Into<String>, value: T) -> At<T> {
        self.document.overrides.push((path.into(), self.source));
        At::unplaced(value)
    }

    fn port(
        &mut self,
        path: &str,
        port: u16,
        section: impl Fn(&Document) -> &Port,
    ) -> At<SocketAddr> {
        let host = section(self.document).bind.value.ip();
        self.set(path, SocketAddr::new(host, port))
    }

    fn listener(&mut self) -> Result<&mut Listener, Wrong> {
        match self.document.listeners.as_mut_slice() {
            [only] => Ok(only),
            several => {
                let variable = match self.source {
                    Source::Environment(name) => name,
                    Source::Flag(_) => "PORT",
                };
                Err(Wrong::new(format!("there are {} listeners", several.len()))
                    .note("it sets the address of the only listener")
                    .note(format!("write `${{{variable}}}` into the `bind` that is meant")))
            }
        }
    }

    fn bind(&mut self, address: SocketAddr) -> Result<(), Wrong> {
        let bind = self.set("listeners[0].bind", address);
        self.listener()?.bind = bind;
        Ok(())
    }

    /// The built-in page gives way to it; a catch-all of the file does not.
    fn default_backend(&mut self, address: &str) -> Result<(), Wrong> {
        if self.document.path == DEFAULT_NAME {
            self.document.routes.clear();
        }
        if let Some(route) = self.document.routes.iter().find(|route| takes_everything(route)) {
            let wrong = Wrong::new("this variable has no effect")
                .note(format!("route `{}` ({}) takes every request", route.name.value, route.key));
            self.document.without_effect.push((self.source, wrong));
            return Ok(());
        }
        let taken = |name: &At<String>| name.value == DEFAULT_BACKEND;
        let routes = &self.document.routes;
        if routes.iter().any(|r| taken(&r.name))
            || self.document.clusters.iter().any(|c| taken(&c.name))
        {
            return Err(Wrong::new(format!("the file has a `{DEFAULT_BACKEND}` of its own"))
                .note("give the route or cluster of this name another one"));
        }
        let text = format!(
            "listeners = [{{ name = \"l\", bind = \"127.0.0.1:0\" }}]\n\
             routes = [{{ name = \"{DEFAULT_BACKEND}\", cluster = \"{DEFAULT_BACKEND}\" }}]\n\
             clusters.{DEFAULT_BACKEND}.endpoints = [{{ address = {address:?} }}]\n"
        );
        let read = load_in("", &text, &Environment::default());
        let mut read = read.expect("an address that was read before is the only unknown");
        let index = self.document.routes.len();
        for mut route in read.routes.drain(..) {
            route.key = format!("routes[{index}]");
            // it stands nowhere in the file
            (route.offset, route.name.offset) = (None, None);
            for key in ["name", "cluster"] {
                self.document.overrides.push((format!("routes[{index}].{key}"), self.source));
            }
            self.document.routes.push(route);
        }
        let path = format!("clusters.{DEFAULT_BACKEND}.endpoints[0].address");
        self.document.overrides.push((path, self.source));
        self.document.clusters.append(&mut read.clusters);
        Ok(())
    }

    fn backend_timeout(&mut self, timeout: Duration) {
        for index in 0..self.document.clusters.len() {
            let cluster = &self.document.clusters[index];
            if cluster.timeouts.first_byte.offset.is_none() {
                let path = format!("clusters.{}.timeouts.first_byte", cluster.name.value);
                let first_byte = self.set(path, Time(timeout));
                self.document.clusters[index].timeouts.first_byte = first_byte;
            }
        }
    }

    fn backend_read_timeout(&mut self, timeout: Duration) {
        for index in 0..self.document.clusters.len() {
            let cluster = &self.document.clusters[index];
            if cluster.timeouts.read.offset.is_none() {
                let path = format!("clusters.{}.timeouts.read", cluster.name.value);
                let read = self.set(path, Time(timeout));
                self.document.clusters[index].timeouts.read = read;
            }
        }
    }
}

/// Route and cluster of `DEFAULT_BACKEND`.
const DEFAULT_BACKEND: &str = "default-backend";

fn takes_everything(route: &Route) -> bool {
    let any = |list: &[At<String>], all: &str| {
        list.is_empty() || list.iter().any(|entry| entry.value == all)
    };
    any(&route.hosts, "*") && any(&route.paths, "/*")
}

// --- values ----------------------------------------------------------------------------------

fn host(value: &DeValue<'_>) -> Result<IpAddr, Wrong> {
    let given = string(value)?;
    given.trim_matches(['[', ']']).parse().map_err(|_| {
        Wrong::new(format!("`{given}` is not an IP address"))
            .note("expected an address to listen on: 0.0.0.0, 127.0.0.1 or ::")
    })
}

/// In any case: other programs that read the same variable write `INFO`.
fn log_level(value: &DeValue<'_>) -> Result<LevelFilter, Wrong> {
    let given = string(value)?.to_ascii_lowercase();
    choice("log level", LEVELS)(&DeValue::String(given.into()))
}

/// `http://host[:port][/]` as `host:port`.
pub fn origin(given: &str) -> Result<String, String> {
    let rest = match given.split_once("://") {
        None => given,
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some((scheme, _)) => {
            return Err(format!(
                "`{scheme}` upstreams are not supported, expected http://host:port"
            ));
        }
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        return Err("expected http://host:port without a path or user".to_owned());
    }
    let has_port = match authority.rfind(']') {
        Some(end) => authority[end..].contains(':'),
        None => authority.contains(':'),
    };
    let address = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    match endpoint_address(&address) {
        Some(_) => Ok(address),
        None => Err("expected http://host:port, such as http://10.0.0.5:9000".to_owned()),
    }
}

fn backend(given: &str) -> Result<String, Wrong> {
    origin(given).map_err(|expected| Wrong::new(format!("`{given}` is no backend")).note(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_tls_that_do_nothing_say_what_does() {
        let plain = "listeners = [{ name = \"l\", bind = \"127.0.0.1:0\" }]\n";
        let tls = "listeners = [{ name = \"l\", bind = \"127.0.0.1:0\", tls = { certificates = [\
                   { cert = \"a.pfx\", password = \"${CERT_PASSWORD}\" }] } }]\n";
        let warned = |text: &str, set: &[(&str, &str)]| {
            let environment = Environment::of(set);
            let document = load_in("a.toml", text, &environment).unwrap();
            let warnings = warnings(&environment, &document);
            warnings.list().iter().map(|warning| warning.key.clone()).collect::<Vec<_>>()
        };
        let password = ("CERT_PASSWORD", "x");
        assert_eq!(warned(plain, &[password]), ["CERT_PASSWORD"]);
        assert_eq!(warned(tls, &[password]), [""; 0]);
        for (text, value, expected) in [
            (plain, "true", true),
            (plain, "false", false),
            (plain, "", false),
            (tls, "1", false),
            (tls, "off", true),
        ] {
            let set = [("PROXY_TLS_ENABLED", value), password];
            let is_warned = warned(text, &set).contains(&"PROXY_TLS_ENABLED".to_owned());
            assert_eq!(is_warned, expected, "{value}: {text}");
        }
    }
}
