//! `GET /admin/clusters` and `GET /admin/clusters/{cluster}`: each endpoint as all cores see it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use serde::Serialize;

use crate::admin::call::{Answer, Call};
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::admin::status::moment;
use crate::control::Control;
use crate::control::message::{Findings, Question};
use crate::control::overrides::{Admission, Override};
use crate::plan::{self, Address, ClusterKey};
use crate::upstream::tally::Tallied;

pub(super) const SHAPE: Shape =
    Shape::Object(&[("clusters", Shape::List(&CLUSTER)), ("cores_missing", MISSING)]);
pub(super) const CLUSTER: Shape = Shape::Object(&[
    ("name", Shape::Text),
    ("waiting", Shape::Whole),
    ("endpoints", Shape::List(&ENDPOINT)),
    ("cores_missing", MISSING),
]);
/// Cores that have not answered in time.
pub(super) const MISSING: Shape = Shape::List(&Shape::Whole);
const ENDPOINT: Shape = Shape::Object(&[
    ("address", Shape::OrNull(&Shape::Text)),
    ("name", Shape::OrNull(&Shape::Text)),
    ("zone", Shape::OrNull(&Shape::Text)),
    ("weight", Shape::Whole),
    ("configured_weight", Shape::Whole),
    ("state", Shape::Word(&["ready", "off", "unresolved", "drained", "maintenance"])),
    ("reason", Shape::Text),
    ("since", Shape::OrNull(&Shape::Moment)),
    ("connections", Shape::Whole),
    ("idle", Shape::Whole),
    ("in_flight", Shape::Whole),
    ("requests_total", Shape::Whole),
    ("failures_total", Shape::Whole),
    ("latency_us", Shape::OrNull(&LATENCY)),
    ("last_failure", Shape::OrNull(&FAILURE)),
]);
const LATENCY: Shape =
    Shape::Object(&[("mean", Shape::Whole), ("p50", Shape::Whole), ("p99", Shape::Whole)]);
const FAILURE: Shape = Shape::Object(&[("reason", Shape::Text), ("at", Shape::Moment)]);

#[derive(Serialize)]
struct Page {
    clusters: Vec<Cluster>,
    cores_missing: Vec<usize>,
}

#[derive(Serialize)]
struct Cluster {
    name: String,
    /// Exchanges that wait for a connection.
    waiting: u64,
    endpoints: Vec<Endpoint>,
    /// That have not answered in time: their numbers are in none of the sums, and they may not go
    /// by what was changed yet.
    cores_missing: Vec<usize>,
}

#[derive(Serialize)]
struct Endpoint {
    address: Option<SocketAddr>,
    /// As configured, when it is a name.
    name: Option<String>,
    zone: Option<String>,
    /// In force: the configured one, or an operator's.
    weight: u32,
    configured_weight: u32,
    state: &'static str,
    reason: String,
    /// When an operator said so.
    since: Option<String>,
    connections: u64,
    idle: u64,
    in_flight: u64,
    requests_total: u64,
    failures_total: u64,
    /// Until the first byte of an answer; `None` before the first.
    latency_us: Option<Latency>,
    last_failure: Option<LastFailure>,
}

#[derive(Serialize)]
struct Latency {
    mean: u64,
    p50: u64,
    p99: u64,
}

#[derive(Serialize)]
struct LastFailure {
    reason: &'static str,
    at: String,
}

/// Over all cores that have answered.
struct Sums {
    sums: HashMap<(ClusterKey, SocketAddr), Sum>,
    missing: Vec<usize>,
}

/// One endpoint over all cores.
#[derive(Default)]
struct Sum {
    open: u64,
    idle: u64,
    tallied: Tallied,
}

pub(super) async fn all(control: &Rc<Control>) -> Result<Answer, Refusal> {
    let sums = sums(control).await;
    let (plan, keys) = (control.plan(), control.cluster_keys());
    let clusters = plan.clusters.iter().zip(keys);
    let clusters = clusters.map(|(plan, key)| cluster(control, key, plan, &sums)).collect();
    Ok(Answer::json(&Page { clusters, cores_missing: sums.missing }))
}

pub(super) async fn one(control: &Rc<Control>, call: &Call) -> Result<Answer, Refusal> {
    let sums = sums(control).await;
    let (plan, keys) = (control.plan(), control.cluster_keys());
    let mut named = plan.clusters.iter().zip(keys);
    let Some((plan, key)) = named.find(|(cluster, _)| cluster.name == call.values[0]) else {
        return Err(no_such_cluster());
    };
    Ok(Answer::json(&cluster(control, key, plan, &sums)))
}

pub(super) fn no_such_cluster() -> Refusal {
    let message = "there is no cluster of this name: GET /admin/clusters lists all";
    Refusal::Absent(message.to_owned())
}

async fn sums(control: &Rc<Control>) -> Sums {
    let mut sums: HashMap<(ClusterKey, SocketAddr), Sum> = HashMap::new();
    let answers = control.ask(Question::Clusters).await;
    for (_, findings) in answers.given {
        let Findings::Clusters(clusters) = findings else { continue };
        for (key, endpoints) in clusters {
            for endpoint in endpoints {
                let sum = sums.entry((key, endpoint.address)).or_default();
                sum.open += endpoint.open;
                sum.idle += endpoint.idle;
                sum.tallied.add(&endpoint.tallied);
            }
        }
    }
    Sums { sums, missing: answers.missing }
}

fn cluster(control: &Control, key: ClusterKey, plan: &plan::Cluster, sums: &Sums) -> Cluster {
    let mut endpoints = Vec::new();
    for configured in &plan.endpoints {
        let addresses = control.addresses(&configured.address);
        if addresses.is_empty() {
            let said = control.override_of(&plan.name, &configured.address, None);
            endpoints.push(endpoint(configured, None, said, &Sum::default()));
        }
        for address in addresses {
            let none = Sum::default();
            let sum = sums.sums.get(&(key, address)).unwrap_or(&none);
            let said = control.override_of(&plan.name, &configured.address, Some(address));
            endpoints.push(endpoint(configured, Some(address), said, sum));
        }
        for address in control.absent_addresses(&plan.name, &configured.address) {
            let said = control.override_of(&plan.name, &configured.address, Some(address));
            endpoints.push(absent(endpoint(configured, Some(address), said, &Sum::default())));
        }
    }
    let waiting = control.waiting(&plan.name);
    let cores_missing = sums.missing.clone();
    Cluster { name: plan.name.clone(), waiting, endpoints, cores_missing }
}

/// Only what was said of it is left.
fn absent(mut shown: Endpoint) -> Endpoint {
    if shown.state == Admission::Ready.label() {
        shown.state = "unresolved";
    }
    shown.reason.push_str("; its name does not have this address at the moment");
    shown
}

fn endpoint(
    configured: &plan::Endpoint,
    address: Option<SocketAddr>,
    said: Option<Override>,
    sum: &Sum,
) -> Endpoint {
    let admission = said.as_ref().map_or(Admission::Ready, |said| said.admission);
    let weight = said.as_ref().and_then(|said| said.weight).unwrap_or(configured.weight);
    let (state, own_reason) = match (address, admission, weight) {
        (_, Admission::Drained | Admission::Maintenance, _) => (admission.label(), ""),
        (None, Admission::Ready, _) => ("unresolved", "its name has no address at the moment"),
        (Some(_), Admission::Ready, 0) => ("off", "its weight is 0"),
        (Some(_), Admission::Ready, _) => (admission.label(), ""),
    };
    let (reason, since) = match said {
        Some(said) => (said.reason, Some(moment(said.since))),
        None => (own_reason.to_owned(), None),
    };
    let tallied = &sum.tallied;
    let answers = tallied.answers();
    Endpoint {
        address,
        name: match &configured.address {
            Address::Ip(_) => None,
            Address::Name(name, port) => Some(format!("{name}:{port}")),
        },
        zone: configured.zone.clone(),
        weight,
        configured_weight: configured.weight,
        state,
        reason,
        since,
        connections: sum.open,
        idle: sum.idle,
        in_flight: sum.open.saturating_sub(sum.idle),
        requests_total: tallied.requests,
        failures_total: tallied.failures,
        latency_us: tallied.latency_micros.checked_div(answers).map(|mean| Latency {
            mean,
            p50: tallied.quantile(0.5),
            p99: tallied.quantile(0.99),
        }),
        last_failure: tallied
            .last
            .map(|(failure, at)| LastFailure { reason: failure.label(), at: moment(at) }),
    }
}
