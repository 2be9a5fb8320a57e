//! Every operation of the admin and metrics ports, in one table: the router, the role check, the
//! `Allow` of a 405 and the OpenAPI document are made from it.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use crate::admin::call::{Answer, Call};
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::admin::{
    Port, blacklist, certificates, changes, clusters, config, connections, drain, endpoints,
    errors, events, health, logging, metrics, openapi, refusal, status, tap, upgrade,
};
use crate::control::Control;
use crate::control::overrides::Admission;
use crate::http::head::Method;
use crate::limits;
use crate::plan::Role;
use crate::telemetry::health::Page;

/// One thing that can be asked.
pub(super) struct Operation {
    /// GET stands for HEAD as well.
    pub(super) method: Method,
    /// `{name}` stands for one segment of a path.
    pub(super) path: &'static str,
    pub(super) ports: &'static [Port],
    /// The least role; `None`: whoever reaches the port.
    pub(super) role: Option<Role>,
    pub(super) summary: &'static str,
    pub(super) parameters: &'static [Parameter],
    /// The JSON body that may come, of which an empty one stands for `{}`; `Page`: TOML.
    pub(super) takes: Option<Shape>,
    pub(super) gives: &'static [Gives],
    pub(super) run: Run,
}

/// One form of answer.
pub(super) struct Gives {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) shape: Shape,
}

/// One parameter of a query.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) doc: &'static str,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Whole {
        max: u64,
    },
    /// As in the configuration: `"30s"`.
    Time,
    /// `true` or `false`.
    Flag,
    /// Of up to `limits::TAP_TEXT_BYTES_MAX` bytes.
    Text,
    /// `404` or `5xx`.
    Status,
    /// Some of these, by comma.
    Words(&'static [&'static str]),
    /// An IP address.
    Address,
    /// An IP address or a CIDR block.
    Network,
}

pub(super) type Running<'a> = Pin<Box<dyn Future<Output = Result<Answer, Refusal>> + 'a>>;
pub(super) type Run = for<'a> fn(&'a Rc<Control>, &'a Call) -> Running<'a>;

pub(super) const JSON: &str = "application/json";
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";

const BOTH: &[Port] = &[Port::Admin, Port::Metrics];
const ADMIN: &[Port] = &[Port::Admin];

const fn page(
    path: &'static str,
    summary: &'static str,
    gives: &'static [Gives],
    run: Run,
) -> Operation {
    Operation {
        method: Method::Get,
        path,
        ports: ADMIN,
        role: Some(Role::Viewer),
        summary,
        parameters: &[],
        takes: None,
        gives,
        run,
    }
}

/// A page of `/health`.
const fn probe(
    path: &'static str,
    summary: &'static str,
    gives: &'static [Gives],
    run: Run,
) -> Operation {
    Operation { ports: BOTH, role: None, ..page(path, summary, gives, run) }
}

const fn change(
    method: Method,
    path: &'static str,
    summary: &'static str,
    gives: &'static [Gives],
    run: Run,
) -> Operation {
    Operation { method, role: Some(Role::Operator), ..page(path, summary, gives, run) }
}

const fn json(shape: Shape) -> Gives {
    Gives { status: 200, content_type: JSON, shape }
}

const ONE_CLUSTER: &[Gives] = &[json(clusters::CLUSTER)];

const fn weight(method: Method) -> Operation {
    Operation {
        takes: Some(endpoints::TAKES_WEIGHT),
        ..change(
            method,
            "/admin/clusters/{cluster}/endpoints/{address}/weight",
            "Another weight until the endpoint leaves the configuration; null: as configured.",
            ONE_CLUSTER,
            |control, call| Box::pin(endpoints::weigh(control, call)),
        )
    }
}

const DELAY: &[Parameter] = &[Parameter {
    name: "delay",
    kind: Kind::Time,
    doc: "How long readiness is off before connections are closed; wins over the body's; 0s.",
}];

pub(super) const OPERATIONS: &[Operation] = &[
    page("/admin/status", "The process at a glance.", &[json(status::SHAPE)], |control, _| {
        Box::pin(status::page(control))
    }),
    page("/admin/cores", "Each data core's load.", &[json(metrics::CORES)], |control, _| {
        Box::pin(metrics::cores(control))
    }),
    page(
        "/admin/clusters",
        "Every cluster's endpoints: state, load, failures and latency.",
        &[json(clusters::SHAPE)],
        |control, _| Box::pin(clusters::all(control)),
    ),
    page(
        "/admin/clusters/{cluster}",
        "One cluster's endpoints.",
        &[json(clusters::CLUSTER)],
        |control, call| Box::pin(clusters::one(control, call)),
    ),
    Operation {
        takes: Some(endpoints::TAKES),
        ..change(
            Method::Post,
            "/admin/clusters/{cluster}/endpoints/{address}/drain",
            "No new exchanges for an endpoint; those that run end, and its kept connections stay.",
            &[json(clusters::CLUSTER)],
            |control, call| Box::pin(endpoints::admit(control, call, Admission::Drained)),
        )
    },
    Operation {
        takes: Some(endpoints::TAKES),
        ..change(
            Method::Post,
            "/admin/clusters/{cluster}/endpoints/{address}/maintenance",
            "As drain, and its idle connections are closed.",
            &[json(clusters::CLUSTER)],
            |control, call| Box::pin(endpoints::admit(control, call, Admission::Maintenance)),
        )
    },
    Operation {
        takes: Some(endpoints::TAKES),
        ..change(
            Method::Post,
            "/admin/clusters/{cluster}/endpoints/{address}/ready",
            "Back in service; a weight that was set stays.",
            &[json(clusters::CLUSTER)],
            |control, call| Box::pin(endpoints::admit(control, call, Admission::Ready)),
        )
    },
    weight(Method::Post),
    weight(Method::Put),
    page(
        "/admin/certificates",
        "Certificates in use, who shows them, how long they last and what is stapled; authorities \
         and revocation lists; and what is wrong with files that have changed.",
        &[json(certificates::SHAPE)],
        |control, _| Box::pin(certificates::page(control)),
    ),
    change(
        Method::Post,
        "/admin/certificates/reload",
        "Reads all files of certificates, authorities and revocation lists again.",
        &[json(certificates::SHAPE)],
        |control, call| Box::pin(certificates::reload(control, &call.who)),
    ),
    page(
        "/admin/listeners",
        "Where clients come in, and how many have.",
        &[json(connections::LISTENERS)],
        |control, _| Box::pin(connections::listeners(control)),
    ),
    Operation {
        parameters: connections::LIMIT,
        ..page(
            "/admin/connections",
            "Client connections that are open now.",
            &[json(connections::SHAPE)],
            |control, call| Box::pin(connections::page(control, call)),
        )
    },
    Operation {
        role: Some(Role::Operator),
        ..page(
            "/admin/errors",
            "The last requests that were refused for what the client sent, newest first.",
            &[json(errors::SHAPE)],
            |control, _| Box::pin(errors::page(control)),
        )
    },
    change(
        Method::Delete,
        "/admin/errors",
        "Forgets them.",
        &[json(errors::FORGOTTEN)],
        |control, _| Box::pin(errors::forget(control)),
    ),
    Operation {
        role: Some(Role::Operator),
        parameters: events::PARAMETERS,
        ..page(
            "/admin/events",
            "What happens, as it happens: a line of JSON for each event, and one that says how \
             many were lost when they are read too slowly.",
            &[events::GIVES],
            |control, call| Box::pin(events::stream(control, call)),
        )
    },
    Operation {
        role: Some(Role::Operator),
        parameters: tap::PARAMETERS,
        ..page(
            "/admin/tap",
            "Exchanges that fit all of the parameters, as they end: a line of JSON for each with \
             both heads and, if wanted, the beginnings of both bodies; secrets are hidden. One tap \
             at a time; read too slowly, it loses exchanges and says how many.",
            &[events::GIVES],
            |control, call| Box::pin(tap::stream(control, call)),
        )
    },
    Operation {
        parameters: blacklist::LOOK,
        ..page(
            "/admin/blacklist",
            "Addresses and networks that may not connect.",
            &[json(blacklist::SHAPE)],
            |control, call| Box::pin(blacklist::page(control, call)),
        )
    },
    Operation {
        takes: Some(blacklist::TAKES),
        ..change(
            Method::Post,
            "/admin/blacklist",
            "Blocks an address or a CIDR block on every core, for so many seconds or for good; one \
             that holds the caller's own address only with force.",
            &[json(blacklist::ADDED)],
            |control, call| Box::pin(blacklist::add(control, call)),
        )
    },
    Operation {
        parameters: blacklist::REMOVE,
        takes: Some(blacklist::TAKES_IP),
        ..change(
            Method::Delete,
            "/admin/blacklist",
            "Lets an address or a CIDR block in again, or all of them.",
            &[json(blacklist::REMOVED)],
            |control, call| Box::pin(blacklist::remove(control, call)),
        )
    },
    page(
        "/admin/config",
        "The configuration that runs, defaults filled in, secrets hidden, variables by name.",
        &[
            json(config::SHAPE),
            Gives { status: 200, content_type: config::TOML, shape: Shape::Page },
        ],
        |control, call| Box::pin(config::page(control, call)),
    ),
    Operation {
        role: Some(Role::Admin),
        parameters: changes::PARAMETERS,
        takes: Some(Shape::Page),
        ..change(
            Method::Put,
            "/admin/config",
            "Checks a configuration (TOML, YAML or JSON) and puts it in force; with If-Match only \
             over the version of that ETag.",
            &[json(changes::APPLIED), refusal::WRONG_CONFIGURATION],
            |control, call| Box::pin(changes::put(control, call)),
        )
    },
    Operation {
        role: Some(Role::Admin),
        parameters: changes::PARAMETERS,
        takes: Some(Shape::Anything),
        ..change(
            Method::Patch,
            "/admin/config",
            "Puts a part of a configuration over the one in force (JSON Merge Patch, RFC 7396): \
             null removes a key, a list is replaced whole, what is not named stays, secrets too. \
             With If-Match only over the version of that ETag.",
            &[json(changes::APPLIED), refusal::WRONG_CONFIGURATION],
            |control, call| Box::pin(changes::patch(control, call)),
        )
    },
    page(
        "/admin/config/history",
        "The configurations that were put in force lately, newest first.",
        &[json(changes::HISTORY)],
        |control, _| Box::pin(changes::history(control)),
    ),
    page(
        "/admin/config/history/{version}",
        "One of them as it was given, secrets hidden.",
        &[
            json(config::SHAPE),
            Gives { status: 200, content_type: config::TOML, shape: Shape::Page },
        ],
        |control, call| Box::pin(changes::version(control, call)),
    ),
    Operation {
        role: Some(Role::Admin),
        takes: Some(changes::ROLLBACK),
        ..change(
            Method::Post,
            "/admin/config/rollback",
            "Puts a configuration of the history in force again, as a new version. The file stays \
             as it is.",
            &[json(changes::RELOADED), refusal::WRONG_CONFIGURATION],
            |control, call| Box::pin(changes::rollback(control, call)),
        )
    },
    change(
        Method::Post,
        "/admin/reload",
        "Reads the configuration file again and puts it in force.",
        &[json(changes::RELOADED), refusal::WRONG_CONFIGURATION],
        |control, _| Box::pin(changes::reload(control)),
    ),
    Operation {
        role: Some(Role::Admin),
        ..change(
            Method::Post,
            "/admin/upgrade",
            "Starts the program anew on the same sockets; once the new process serves, this one \
             drains.",
            &[json(upgrade::SHAPE)],
            |control, _| Box::pin(upgrade::upgrade(control)),
        )
    },
    page("/admin/logging", "Levels of the process's own log.", &[json(logging::SHAPE)], |_, _| {
        Box::pin(logging::page())
    }),
    Operation {
        takes: Some(logging::TAKES),
        ..change(
            Method::Put,
            "/admin/logging",
            "Sets all levels until the next start, the default one until a reload that configures \
             another; what is left out is as configured.",
            &[json(logging::SHAPE)],
            |control, call| Box::pin(logging::set(control, call)),
        )
    },
    Operation {
        parameters: DELAY,
        takes: Some(drain::TAKES),
        ..change(
            Method::Post,
            "/admin/drain",
            "Out of service: not ready at once, then every answer closes its connection.",
            &[json(drain::SHAPE)],
            |control, call| Box::pin(drain::drain(control, call)),
        )
    },
    change(
        Method::Post,
        "/admin/resume",
        "Back in service.",
        &[json(drain::SHAPE)],
        |control, _| Box::pin(drain::resume(control)),
    ),
    page("/admin/openapi.json", "This document.", &[json(openapi::SHAPE)], |_, _| {
        Box::pin(openapi::page())
    }),
    probe(
        "/health",
        "Whether new clients may be sent here.",
        health::GIVES_READINESS,
        |control, _| Box::pin(health::page(control, Page::Summary)),
    ),
    probe(
        "/health/liveness",
        "Answers as long as the process does.",
        health::GIVES_LIVENESS,
        |control, _| Box::pin(health::page(control, Page::Liveness)),
    ),
    probe(
        "/health/readiness",
        "Whether new clients may be sent here.",
        health::GIVES_READINESS,
        |control, _| Box::pin(health::page(control, Page::Readiness)),
    ),
    probe(
        "/health/startup",
        "Whether the first configuration is on every core.",
        health::GIVES_STARTUP,
        |control, _| Box::pin(health::page(control, Page::Startup)),
    ),
    Operation {
        ports: &[Port::Metrics],
        role: None,
        ..page(
            "/metrics",
            "Metrics for Prometheus.",
            &[Gives { status: 200, content_type: metrics::TEXT, shape: Shape::Page }],
            |control, _| Box::pin(metrics::page(control)),
        )
    },
];

/// What a method and a path lead to.
pub(super) enum Found {
    /// With the values of the `{…}` of its path.
    Operation(&'static Operation, Vec<String>),
    /// The path is known, the method is not: those that are.
    OtherMethods(String),
    Nothing,
}

pub(super) fn find(port: Port, method: Method, path: &str) -> Found {
    let method = if method == Method::Head { Method::Get } else { method };
    let mut others = String::new();
    for operation in OPERATIONS.iter().filter(|operation| operation.ports.contains(&port)) {
        let Some(values) = values(operation.path, path) else { continue };
        if operation.method == method {
            return Found::Operation(operation, values);
        }
        if !others.is_empty() {
            others.push_str(", ");
        }
        others.push_str(name(operation.method));
    }
    if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others) }
}

/// What the `{…}` of a template stand for in this path, percent escapes undone.
fn values(template: &str, path: &str) -> Option<Vec<String>> {
    let mut values = Vec::new();
    let mut segments = path.split('/');
    for expected in template.split('/') {
        let segment = segments.next()?;
        if expected.starts_with('{') {
            values.push(unescaped(segment).filter(|value| !value.is_empty())?);
        } else if expected != segment {
            return None;
        }
    }
    segments.next().is_none().then_some(values)
}

/// A segment of a path, or a part of a query, without its percent escapes (RFC 3986 2.1).
pub(super) fn unescaped(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        out.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(out).ok()
}

/// The methods of the table as they are written; GET says HEAD as well.
fn name(method: Method) -> &'static str {
    match method {
        Method::Get | Method::Head => "GET, HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Options => "OPTIONS",
        Method::Patch => "PATCH",
        Method::Connect => "CONNECT",
        Method::Trace => "TRACE",
        Method::Other => "",
    }
}

impl Operation {
    /// Whether it changes anything: then it is audited, and no other site may make a browser ask.
    pub(super) fn changes(&self) -> bool {
        !self.method.is_safe()
    }

    /// What clients send is looked at only by whoever may change things, and not unseen.
    pub(super) fn is_audited(&self) -> bool {
        self.changes() || self.role > Some(Role::Viewer)
    }

    pub(super) fn body_bytes_max(&self) -> usize {
        match self.takes {
            None => 0,
            Some(_) if self.takes_configuration() => limits::CONFIG_BYTES_MAX,
            Some(_) => limits::ADMIN_BODY_BYTES_MAX,
        }
    }

    /// Of its body; the first is the one to name.
    pub(super) fn types(&self) -> &'static [&'static str] {
        match self.takes {
            Some(Shape::Page) => config::TYPES,
            Some(_) if self.method == Method::Patch => &[MERGE_PATCH],
            Some(_) | None => &[JSON],
        }
    }

    /// For a body of another type.
    pub(super) fn other_type(&self) -> Refusal {
        match self.takes {
            Some(Shape::Page) => Refusal::NotConfiguration,
            Some(_) if self.method == Method::Patch => Refusal::NotMergePatch,
            Some(_) | None => Refusal::NotJson,
        }
    }

    /// The whole or a part: a body that is always there, for the version that `If-Match` names.
    pub(super) fn takes_configuration(&self) -> bool {
        self.types() != [JSON]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_take_one_segment_each_and_undo_its_escapes() {
        let text = |list: &[&str]| Some(list.iter().map(|&one| one.to_owned()).collect());
        assert_eq!(values("/a/{b}/c", "/a/x/c"), text(&["x"]));
        assert_eq!(values("/a/{b}", "/a/%5B::1%5D:80"), text(&["[::1]:80"]));
        for other in ["/a/x", "/a//c", "/a/x/c/", "/a/x/d", "/a/%zz/c", "/a/%2", "/a/%ff/c", ""] {
            assert_eq!(values("/a/{b}/c", other), None, "{other}");
        }
    }

    #[test]
    fn changes_need_a_role_above_the_viewer_and_answer_json() {
        for operation in OPERATIONS.iter().filter(|operation| operation.changes()) {
            assert!(operation.role > Some(Role::Viewer), "{}", operation.path);
        }
    }

    #[test]
    fn every_operation_is_in_the_table_once() {
        for (index, one) in OPERATIONS.iter().enumerate() {
            let twin = |other: &&Operation| other.path == one.path && other.method == one.method;
            assert!(!OPERATIONS[index + 1..].iter().any(|other| twin(&other)), "{}", one.path);
        }
    }
}
