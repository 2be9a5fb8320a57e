//! `GET /metrics`, and `GET /admin/cores` from the same snapshot.

use std::rc::Rc;

use crate::admin::api::JSON;
use crate::admin::call::Answer;
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::control::{Control, stats};
use crate::telemetry::metrics;

pub(super) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) const CORES: Shape = Shape::Object(&[("cores", Shape::List(&CORE))]);

const CORE: Shape = Shape::Object(&[
    ("core", Shape::Whole),
    ("connections", Shape::Whole),
    ("connections_total", Shape::Whole),
    ("requests", Shape::Whole),
    ("cpu_seconds", Shape::Number),
    (
        "loop_lag_us",
        Shape::Object(&[("p50", Shape::Whole), ("p99", Shape::Whole), ("max", Shape::Whole)]),
    ),
]);

/// As the table knows it; `metrics.path` says where it is.
pub(super) const PATH: &str = "/metrics";

/// The page itself is served before the table is asked: whoever comes here asks where it is not.
pub(super) async fn page(_: &Rc<Control>) -> Result<Answer, Refusal> {
    Err(Refusal::UnknownPath)
}

pub(super) async fn cores(control: &Rc<Control>) -> Result<Answer, Refusal> {
    let body = metrics::cores_json(&stats::snapshot(control).await).into_bytes();
    Ok(Answer::page(JSON, body))
}
