//! `GET /admin/status`: the process at a glance. From counters and cells only: no core is asked.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::admin::call::Answer;
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::control::Control;
use crate::control::generations::LiveGeneration;
use crate::control::reload::LastReload;
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
    ("generations", Shape::List(&GENERATION)),
    ("upgrade", Shape::Word(&["idle", "running", "handed_over"])),
    ("cores", Shape::Whole),
    ("connections", Shape::Whole),
    ("connections_total", Shape::Whole),
    ("requests_total", Shape::Whole),
    ("failures_total", Shape::Whole),
    ("admin_refused_total", Shape::Whole),
    ("admin_displaced_total", Shape::Whole),
]);

const RELOAD: Shape = Shape::Object(&[
    ("at", Shape::Moment),
    ("trigger", Shape::Text),
    ("outcome", Shape::Word(&["applied", "refused"])),
    ("duration_ms", Shape::Whole),
    ("version", Shape::OrNull(&Shape::Whole)),
    ("errors", Shape::List(&Shape::Text)),
    ("warnings", Shape::List(&Shape::Text)),
]);
const GENERATION: Shape = Shape::Object(&[
    ("version", Shape::Whole),
    ("exchanges", Shape::Whole),
    ("superseded_ms", Shape::OrNull(&Shape::Whole)),
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
    /// Those that any exchange still runs with, the newest first.
    generations: Vec<Generation>,
    upgrade: &'static str,
    cores: usize,
    connections: u64,
    connections_total: u64,
    requests_total: u64,
    failures_total: u64,
    admin_refused_total: u64,
    /// Connections to the admin and metrics ports that were closed for others.
    admin_displaced_total: u64,
}

#[derive(Serialize)]
struct Reload {
    at: String,
    trigger: String,
    outcome: &'static str,
    duration_ms: u64,
    /// Of what it put in force.
    version: Option<u64>,
    errors: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Generation {
    version: u64,
    exchanges: u64,
    /// For how long a newer one has been in force; `None` for the newest.
    superseded_ms: Option<u64>,
}

pub(super) async fn page(control: &Rc<Control>) -> Result<Answer, Refusal> {
    let mut page = Page {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        state: control.state().label(),
        started_at: moment(control.desk.started_at),
        uptime_seconds: (engine::now() - control.desk.started).as_secs(),
        rules_version: control.plan().version,
        last_reload: control.last_reload().map(|last| reload(&last)),
        generations: control.generations().iter().map(generation).collect(),
        upgrade: control.upgrade_state(),
        cores: control.counters.len(),
        connections: 0,
        connections_total: 0,
        requests_total: 0,
        failures_total: 0,
        admin_refused_total: control.desk.refused.total(),
        admin_displaced_total: control.desk.displaced.get(),
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

fn reload(last: &LastReload) -> Reload {
    let (outcome, version, errors, warnings) = match &last.outcome {
        Ok(report) => ("applied", Some(report.version), Vec::new(), report.warnings.clone()),
        Err(refused) => {
            let errors = refused.to_string().lines().map(str::to_owned).collect();
            ("refused", None, errors, Vec::new())
        }
    };
    Reload {
        at: moment(last.at),
        trigger: last.trigger.to_string(),
        outcome,
        duration_ms: millis(last.duration),
        version,
        errors,
        warnings,
    }
}

fn generation(live: &LiveGeneration) -> Generation {
    Generation {
        version: live.version,
        exchanges: live.exchanges,
        superseded_ms: live.superseded_for.map(millis),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn moment(at: SystemTime) -> String {
    let mut out = Vec::with_capacity(24);
    timestamp::iso(at, &mut out);
    String::from_utf8(out).expect("digits and letters")
}
