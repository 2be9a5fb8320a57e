//! What operators did: one record for every request that changes something, refused ones included.

use std::net::SocketAddr;

use crate::control::Control;
use crate::engine;
use crate::telemetry::audit_log::{Event, Outcome, Record as Line};

/// One change, or the try of one.
#[derive(Clone, Debug)]
pub(crate) struct Record<'a> {
    /// The name of a token, `loopback`, or empty for who did not say.
    pub(crate) who: &'a str,
    pub(crate) peer: SocketAddr,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// Of the answer: what came of it.
    pub(crate) status: u16,
    /// What is different now; empty when nothing is.
    pub(crate) changed: &'a str,
}

pub(crate) fn audit(control: &Control, record: &Record<'_>) {
    let Record { who, peer, method, path, status, changed } = record;
    let (event, outcome) = match status {
        401 | 403 | 421 => (Event::AuthFailure, Outcome::Denied),
        200..300 => (Event::AdminChange, Outcome::Done),
        _ => (Event::AdminChange, Outcome::Failed),
    };
    control.audit(&Line {
        at: engine::wall_clock(),
        event,
        outcome,
        actor: who,
        peer: Some(peer.ip()),
        action: &format!("{method} {path}"),
        target: "",
        detail: format!("{status} {changed}").trim_end(),
    });
}
