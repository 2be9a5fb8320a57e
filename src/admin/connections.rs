//! `GET /admin/connections` and `GET /admin/listeners`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use serde::Serialize;

use crate::admin::api::{Kind, Parameter};
use crate::admin::call::{Answer, Call};
use crate::admin::clusters;
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::control::Control;
use crate::control::current::ListenerNames;
use crate::control::message::{Findings, Question};
use crate::engine;
use crate::limits;
use crate::plan::{Listener, ListenerKey};
use crate::shard::connections::{self, State};
use crate::telemetry::client_tls;

pub(super) const SHAPE: Shape = Shape::Object(&[
    ("open", Shape::Whole),
    ("connections", Shape::List(&CONNECTION)),
    ("cores_missing", clusters::MISSING),
]);
const CONNECTION: Shape = Shape::Object(&[
    ("core", Shape::Whole),
    ("peer", Shape::Text),
    ("speaks_for", Shape::OrNull(&Shape::Text)),
    ("listener", Shape::Text),
    ("age_ms", Shape::Whole),
    ("state", Shape::Word(&["serving", "idle", "tunnel"])),
    ("state_ms", Shape::Whole),
    ("requests", Shape::Whole),
    ("received_bytes", Shape::Whole),
    ("sent_bytes", Shape::Whole),
    ("tls", Shape::OrNull(&TLS)),
]);
const TLS: Shape = Shape::Object(&[
    ("version", Shape::OrNull(&Shape::Text)),
    ("cipher", Shape::OrNull(&Shape::Text)),
    ("server_name", Shape::OrNull(&Shape::Text)),
    ("resumed", Shape::Flag),
    ("client", Shape::OrNull(&CLIENT)),
]);
const CLIENT: Shape = Shape::Object(&[
    ("common_name", Shape::OrNull(&Shape::Text)),
    ("subject", Shape::OrNull(&Shape::Text)),
    ("fingerprint", Shape::Text),
    ("dns_names", Shape::List(&Shape::Text)),
    ("emails", Shape::List(&Shape::Text)),
    ("uris", Shape::List(&Shape::Text)),
    ("spiffe_id", Shape::OrNull(&Shape::Text)),
]);

pub(super) const LISTENERS: Shape =
    Shape::Object(&[("listeners", Shape::List(&LISTENER)), ("cores_missing", clusters::MISSING)]);
const LISTENER: Shape = Shape::Object(&[
    ("name", Shape::Text),
    ("address", Shape::Text),
    ("protocol", Shape::Text),
    ("tls", Shape::Flag),
    ("sockets", Shape::Whole),
    ("connections", Shape::Whole),
]);

pub(super) const LIMIT: &[Parameter] = &[Parameter {
    name: "limit",
    kind: Kind::Whole { max: limits::ADMIN_CONNECTIONS_LISTED_MAX },
    doc: "Most connections to list; 100.",
}];

#[derive(Serialize)]
struct Page {
    /// Of the whole process, listed or not.
    open: u64,
    connections: Vec<Listed>,
    cores_missing: Vec<usize>,
}

#[derive(Serialize)]
struct Listed {
    core: usize,
    peer: SocketAddr,
    /// As the peer has said (PROXY protocol).
    speaks_for: Option<SocketAddr>,
    listener: String,
    age_ms: u64,
    state: &'static str,
    state_ms: u64,
    requests: u32,
    received_bytes: u64,
    sent_bytes: u64,
    /// `None`: it is plain.
    tls: Option<client_tls::Told>,
}

#[derive(Serialize)]
struct Listeners {
    listeners: Vec<ListenerState>,
    cores_missing: Vec<usize>,
}

#[derive(Serialize)]
struct ListenerState {
    name: String,
    address: SocketAddr,
    protocol: &'static str,
    tls: bool,
    /// One for each core.
    sockets: usize,
    connections: u64,
}

pub(super) async fn page(control: &Rc<Control>, call: &Call) -> Result<Answer, Refusal> {
    let most = call.whole("limit").unwrap_or(limits::ADMIN_CONNECTIONS_LISTED) as usize;
    let (now, names) = (engine::now(), control.listener_names());
    let answers = control.ask(Question::Connections(most)).await;
    let mut page = Page { open: 0, connections: Vec::new(), cores_missing: answers.missing };
    for (core, findings) in answers.given {
        let Findings::Connections { list, open } = findings else { continue };
        page.open += open.iter().map(|(_, count)| count).sum::<u64>();
        let room = most - page.connections.len();
        let listed = list.into_iter().take(room);
        page.connections.extend(listed.map(|one| listed_as(&names, core, one, now)));
    }
    Ok(Answer::json(&page))
}

fn listed_as(
    names: &ListenerNames,
    core: usize,
    listed: connections::Listed,
    now: Instant,
) -> Listed {
    let connections::Listed { connection, speaks_for, tls } = listed;
    let millis = |since: Instant| now.saturating_duration_since(since).as_millis() as u64;
    Listed {
        core,
        peer: connection.peer,
        speaks_for,
        listener: names.of(connection.listener),
        age_ms: millis(connection.since),
        state: match connection.state() {
            State::Tunnel => "tunnel",
            State::Serving => "serving",
            State::Idle => "idle",
        },
        state_ms: millis(connection.turned),
        requests: connection.requests,
        received_bytes: connection.received,
        sent_bytes: connection.sent,
        tls,
    }
}

pub(super) async fn listeners(control: &Rc<Control>) -> Result<Answer, Refusal> {
    let mut open: HashMap<ListenerKey, u64> = HashMap::new();
    let answers = control.ask(Question::Connections(0)).await;
    for (_, findings) in answers.given {
        let Findings::Connections { open: of_core, .. } = findings else { continue };
        of_core.into_iter().for_each(|(key, more)| *open.entry(key).or_default() += more);
    }
    let state = |(listener, key): (&Listener, ListenerKey)| ListenerState {
        name: listener.name.clone(),
        address: listener.bind,
        protocol: "http",
        tls: listener.tls.is_some(),
        sockets: control.counters.len(),
        connections: open.get(&key).copied().unwrap_or_default(),
    };
    let (plan, keys) = (control.plan(), control.listener_keys());
    let listeners = plan.listeners.iter().zip(keys).map(state).collect();
    Ok(Answer::json(&Listeners { listeners, cores_missing: answers.missing }))
}
