//! `/health` and below, on the admin and metrics ports: no token is needed to ask.

use std::rc::Rc;

use crate::admin::api::{Gives, JSON};
use crate::admin::call::Answer;
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::control::Control;
use crate::engine;
use crate::telemetry::health::{BAD, Page};

const READINESS: Shape = Shape::Object(&[
    ("status", Shape::Word(&["ready", "not_ready"])),
    ("timestamp", Shape::Moment),
    ("checks", CHECKS),
]);
const CHECKS: Shape = Shape::Object(&[
    ("config", Shape::Word(&["ok", "reload_refused"])),
    ("service", Shape::Word(&["running", "draining", "stopping"])),
    ("certificates", Shape::Word(&["ok", "reload_refused", "expired"])),
    ("expired_certificates", Shape::List(&Shape::Text)),
    ("backends", Shape::List(&BACKEND)),
]);
const BACKEND: Shape = Shape::Object(&[
    ("url", Shape::Text),
    ("cluster", Shape::Text),
    ("status", Shape::Word(&["ready", "unresolved", "drained"])),
]);
const LIVENESS: Shape =
    Shape::Object(&[("status", Shape::Word(&["ok"])), ("timestamp", Shape::Moment)]);
const STARTUP: Shape =
    Shape::Object(&[("status", Shape::Word(&["started"])), ("timestamp", Shape::Moment)]);

const fn good(shape: Shape) -> Gives {
    Gives { status: 200, content_type: JSON, shape }
}

const fn bad(shape: Shape) -> Gives {
    Gives { status: BAD, content_type: JSON, shape }
}

pub(super) const GIVES_READINESS: &[Gives] = &[good(READINESS), bad(READINESS)];
pub(super) const GIVES_LIVENESS: &[Gives] = &[good(LIVENESS)];
pub(super) const GIVES_STARTUP: &[Gives] = &[good(STARTUP)];

pub(super) async fn page(control: &Rc<Control>, page: Page) -> Result<Answer, Refusal> {
    let (status, body) = page.answer(&control.health(), engine::wall_clock());
    Ok(Answer { status, ..Answer::page(JSON, body) })
}
