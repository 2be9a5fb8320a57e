//! `GET /admin/status`: the process at a glance. From counters and cells only: no core is asked.

use std::rc::Rc;
use std::time::SystemTime;

use serde::Serialize;

use crate::admin::call::Answer;
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::control::Control;
use crate::engine;
use crate::telemetry::timestamp;

pub(super) const SHAPE: Shape = Shape::Object(&[
    ("version", Shape::Text),
    ("pid", Shape::Whole),
    ("state", Shape::Word(&["running", "draining", "stopping"])),
    ("started_at", Shape::Moment),
    ("uptime_seconds", Shape::Whole),
    ("rules_version", Shape::Whole),
    ("last_reload", Shape::OrNull(&RELOAD)),
    ("cores", Shape::Whole),
    ("connections", Shape::Whole),
    ("connections_total", Shape::Whole),
    ("requests_total", Shape::Whole),
    ("failures_total", Shape::Whole),
    ("admin_refused_total", Shape::Whole),
]);

const RELOAD: Shape = Shape::Object(&[
    ("at", Shape::Moment),
    ("outcome", Shape::Word(&["applied", "refused"])),
    ("message", Shape::Text),
]);

#[derive(Serialize)]
struct Page {
    version: &'static str,
    pid: u32,
    state: &'static str,
    started_at: String,
    uptime_seconds: u64,
    rules_version: u64,
    last_reload: Option<Reload>,
    cores: usize,
    connections: u64,
    connections_total: u64,
    requests_total: u64,
    failures_total: u64,
    admin_refused_total: u64,
}

#[derive(Serialize)]
struct Reload {
    at: String,
    outcome: &'static str,
    message: String,
}

pub(super) async fn page(control: &Rc<Control>) -> Result<Answer, Refusal> {
    let mut page = Page {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        state: control.state().label(),
        started_at: moment(control.desk.started_at),
        uptime_seconds: (engine::now() - control.desk.started).as_secs(),
        rules_version: control.plan.version,
        last_reload: control.desk.last_reload.borrow().as_ref().map(|reload| Reload {
            at: moment(reload.at),
            outcome: if reload.applied { "applied" } else { "refused" },
            message: reload.message.clone(),
        }),
        cores: control.counters.len(),
        connections: 0,
        connections_total: 0,
        requests_total: 0,
        failures_total: 0,
        admin_refused_total: control.desk.refused.total(),
    };
    for counters in &control.counters {
        let counts = counters.read();
        page.connections += counts.connections_active;
        page.connections_total += counts.connections;
        page.requests_total += counts.requests();
        page.failures_total += counts.failures.iter().sum::<u64>();
    }
    Ok(Answer::json(&page))
}

pub(super) fn moment(at: SystemTime) -> String {
    let mut out = Vec::with_capacity(24);
    timestamp::iso(at, &mut out);
    String::from_utf8(out).expect("digits and letters")
}
