//! `GET /admin/errors` and `DELETE /admin/errors`: the last requests that were refused for what the
//! client sent.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::SystemTime;

use serde::Serialize;

use crate::admin::call::Answer;
use crate::admin::clusters;
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::admin::status::moment;
use crate::control::Control;
use crate::control::current::ListenerNames;
use crate::control::message::{Findings, Question};
use crate::exchange::failure::Failure;
use crate::hexadecimal;
use crate::http::head::RequestHead;
use crate::http1::parse::{self, HeadLimits};
use crate::plan::Plan;
use crate::shard::rejected::Rejected;

pub(super) const SHAPE: Shape =
    Shape::Object(&[("errors", Shape::List(&ERROR)), ("cores_missing", clusters::MISSING)]);
const ERROR: Shape = Shape::Object(&[
    ("at", Shape::Moment),
    ("core", Shape::Whole),
    ("peer", Shape::Text),
    ("speaks_for", Shape::OrNull(&Shape::Text)),
    ("listener", Shape::Text),
    ("reason", Shape::Text),
    ("message", Shape::Text),
    ("phase", Shape::Text),
    ("offset", Shape::OrNull(&Shape::Whole)),
    ("bytes_hex", Shape::Text),
    ("bytes_cut", Shape::Flag),
]);

pub(super) const FORGOTTEN: Shape =
    Shape::Object(&[("forgotten", Shape::Whole), ("cores_missing", clusters::MISSING)]);

#[derive(Serialize)]
struct Page {
    /// The newest first.
    errors: Vec<Error>,
    cores_missing: Vec<usize>,
}

#[derive(Serialize)]
struct Error {
    at: String,
    core: usize,
    peer: SocketAddr,
    /// Whom the peer has said that it speaks for (PROXY protocol).
    speaks_for: Option<SocketAddr>,
    listener: String,
    reason: &'static str,
    message: &'static str,
    phase: &'static str,
    /// Of the byte that made it wrong, when it is among those kept.
    offset: Option<usize>,
    bytes_hex: String,
    bytes_cut: bool,
}

#[derive(Serialize)]
struct Forgotten {
    forgotten: usize,
    cores_missing: Vec<usize>,
}

pub(super) async fn page(control: &Rc<Control>) -> Result<Answer, Refusal> {
    let plan = control.plan();
    let names = control.listener_names();
    let mut errors: Vec<(SystemTime, Error)> = Vec::new();
    let answers = control.ask(Question::Rejected).await;
    for (core, findings) in answers.given {
        let Findings::Rejected(list) = findings else { continue };
        errors.extend(list.iter().map(|one| (one.at, error(&plan, &names, core, one))));
    }
    errors.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let errors = errors.into_iter().map(|(_, error)| error).collect();
    Ok(Answer::json(&Page { errors, cores_missing: answers.missing }))
}

pub(super) async fn forget(control: &Rc<Control>) -> Result<Answer, Refusal> {
    let mut forgotten = 0;
    let answers = control.ask(Question::ForgetRejected).await;
    for (_, findings) in answers.given {
        let Findings::Forgotten(count) = findings else { continue };
        forgotten += count;
    }
    let page = Forgotten { forgotten, cores_missing: answers.missing };
    Ok(Answer::json(&page).changed(format!("{forgotten} errors forgotten")))
}

fn error(plan: &Plan, names: &ListenerNames, core: usize, rejected: &Rejected) -> Error {
    let row = rejected.failure.row();
    Error {
        at: moment(rejected.at),
        core,
        peer: rejected.peer,
        speaks_for: rejected.speaks_for,
        listener: names.of(rejected.listener),
        reason: row.label,
        message: row.message,
        phase: rejected.phase.label(),
        offset: offset(plan, rejected),
        bytes_hex: hexadecimal::text(&rejected.bytes),
        bytes_cut: rejected.cut,
    }
}

/// The parser refuses a head with the first byte that makes it wrong, and everything that goes on
/// from there: so the shortest prefix that it refuses ends with that byte.
fn offset(plan: &Plan, rejected: &Rejected) -> Option<usize> {
    if !matches!(rejected.failure, Failure::Malformed(_)) {
        return None;
    }
    let limits = HeadLimits {
        url_bytes_max: plan.limits.url_bytes_max,
        header_bytes_max: plan.limits.header_bytes_max,
        headers_max: plan.limits.headers_max,
    };
    let is_refused = |length: usize| {
        let head = &mut RequestHead::default();
        parse::request(&rejected.bytes[..length], &limits, head).is_err()
    };
    let (mut good, mut bad) = (0, rejected.bytes.len());
    if !is_refused(bad) {
        return None;
    }
    while good + 1 < bad {
        let middle = usize::midpoint(good, bad);
        if is_refused(middle) {
            bad = middle;
        } else {
            good = middle;
        }
    }
    Some(bad - 1)
}
