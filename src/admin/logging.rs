//! `GET /admin/logging` and `PUT /admin/logging`: levels of the process's own log at run time.

use std::collections::BTreeMap;
use std::rc::Rc;

use log::LevelFilter;
use serde::{Deserialize, Serialize};

use crate::admin::call::{Answer, Call, given};
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::control::Control;
use crate::telemetry::log_levels;

const LEVEL: Shape = Shape::Word(&["off", "error", "warn", "info", "debug", "trace", "fatal"]);
pub(super) const SHAPE: Shape = Shape::Object(&[
    ("default", LEVEL),
    ("modules", Shape::Map(&LEVEL)),
    ("known_modules", Shape::List(&Shape::Text)),
]);
pub(super) const TAKES: Shape =
    Shape::Optional(&[("default", LEVEL), ("modules", Shape::Optional(&LEVELS))]);
const LEVELS: [(&str, Shape); log_levels::MODULES.len()] = {
    let mut levels = [("", LEVEL); log_levels::MODULES.len()];
    let mut at = 0;
    while at < levels.len() {
        levels[at].0 = log_levels::MODULES[at];
        at += 1;
    }
    levels
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    /// The configuration's when it is left out.
    #[serde(default, deserialize_with = "given")]
    default: Option<String>,
    /// Those that are left out have none of their own.
    #[serde(default)]
    modules: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Page {
    default: String,
    modules: BTreeMap<&'static str, String>,
    known_modules: &'static [&'static str],
}

pub(super) async fn page() -> Result<Answer, Refusal> {
    Ok(answer())
}

/// The whole of it is replaced.
pub(super) async fn set(control: &Rc<Control>, call: &Call) -> Result<Answer, Refusal> {
    let body: Body = call.json()?;
    let default = match body.default {
        Some(name) => level("default", &name)?,
        None => control.plan().log_level,
    };
    let mut modules = Vec::new();
    for (module, name) in body.modules {
        modules.push((module, level("modules", &name)?));
    }
    if !log_levels::set_modules(&modules) {
        let known = log_levels::MODULES.join(", ");
        return Err(Refusal::Invalid(format!("body: modules: expected some of: {known}")));
    }
    log_levels::set_default(default);
    let mut changed = format!("log level {}", name(default));
    for (module, level) in &modules {
        changed.push_str(&format!(", {module} {}", name(*level)));
    }
    Ok(answer().changed(changed))
}

fn answer() -> Answer {
    let modules = log_levels::modules();
    Answer::json(&Page {
        default: name(log_levels::default()),
        modules: modules.into_iter().map(|(module, level)| (module, name(level))).collect(),
        known_modules: &log_levels::MODULES,
    })
}

fn name(level: LevelFilter) -> String {
    level.as_str().to_ascii_lowercase()
}

fn level(member: &str, given: &str) -> Result<LevelFilter, Refusal> {
    let given = if given == "fatal" { "error" } else { given }; // as the configuration has it
    let found = LevelFilter::iter().find(|level| name(*level) == given);
    found.ok_or_else(|| {
        let levels: Vec<String> = LevelFilter::iter().map(name).collect();
        Refusal::Invalid(format!("body: {member}: expected one of: {}", levels.join(", ")))
    })
}
