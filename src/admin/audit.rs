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
    log::info!(
        target: "audit",
        "{method} {path} by {} from {peer}: {status} {changed}",
        if who.is_empty() { "nobody known" } else { who },
    );
    if control.plan().audit_log.is_none() {
        return;
    }
    let (event, outcome) = match status {
        401 | 403 | 421 => (Event::AuthFailure, Outcome::Denied),
        200..300 => (Event::AdminChange, Outcome::Done),
        _ => (Event::AdminChange, Outcome::Failed),
    };
    let status_text = format!("status {status}");
    control.audit(&Line {
        at: engine::wall_clock(),
        event,
        outcome,
        actor: who,
        peer: Some(peer.ip()),
        action: &format!("{method} {path}"),
        target: "",
        detail: if changed.is_empty() { &status_text } else { changed },
    });
}
