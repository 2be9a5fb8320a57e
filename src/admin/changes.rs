//! A new configuration by HTTP: read the file again, put a text in force, go back to an earlier
//! one, and see what was in force before.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::admin::api::{Kind, Parameter};
use crate::admin::call::{Answer, Call, whole};
use crate::admin::config;
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::admin::status::moment;
use crate::control::Control;
use crate::control::history::Applied;
use crate::control::reload::{Refused, Report, Trigger};

pub(super) const RELOADED: Shape =
    Shape::Object(&[("version", Shape::Whole), ("warnings", Shape::List(&Shape::Text))]);
pub(super) const APPLIED: Shape = Shape::Object(&[
    ("version", Shape::Whole),
    ("applied", Shape::Flag),
    ("written", Shape::Flag),
    ("note", Shape::Text),
    ("warnings", Shape::List(&Shape::Text)),
]);
pub(super) const HISTORY: Shape = Shape::Object(&[("history", Shape::List(&ENTRY))]);
const ENTRY: Shape = Shape::Object(&[
    ("version", Shape::Whole),
    ("at", Shape::Moment),
    ("trigger", Shape::Text),
    ("hash", Shape::Text),
    ("running", Shape::Flag),
]);
pub(super) const ROLLBACK: Shape = Shape::Object(&[("version", Shape::Whole)]);

pub(super) const PUT_PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "dry_run",
        kind: Kind::Flag,
        doc: "Only checks the text, as `corelane check` does; nothing is bound or changed.",
    },
    Parameter {
        name: "persist",
        kind: Kind::Flag,
        doc: "Also writes the text to the configuration file, which must be of the same syntax, by \
              a rename; without it the text is in memory only, and the file's comes back with the \
              next reload or start.",
    },
];

#[derive(Serialize)]
struct Reloaded {
    version: u64,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Put {
    /// In force now.
    version: u64,
    applied: bool,
    /// To the configuration file.
    written: bool,
    /// The same in a sentence.
    note: String,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct History {
    /// The newest first.
    history: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    version: u64,
    at: String,
    trigger: String,
    /// Of the text: equal texts have equal ones.
    hash: String,
    running: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackBody {
    #[serde(deserialize_with = "whole")]
    version: u64,
}

pub(super) async fn reload(control: &Rc<Control>) -> Result<Answer, Refusal> {
    let report = control.reload(Trigger::Admin).await?;
    Ok(reloaded(report, "the file"))
}

fn reloaded(report: Report, what: &str) -> Answer {
    let changed = format!("version {} is in force, from {what}", report.version);
    let page = Reloaded { version: report.version, warnings: report.warnings };
    Answer::json(&page).changed(changed)
}

pub(super) async fn put(control: &Rc<Control>, call: &Call) -> Result<Answer, Refusal> {
    let running = control.running();
    if !call.if_match.is_empty() && !matches(&call.if_match, &etag(&running)) {
        return Err(Refusal::from(Refused::Superseded(running.version)));
    }
    let Ok(text) = String::from_utf8(call.body.clone()) else {
        return Err(Refusal::Invalid("body: expected text, which is UTF-8".to_owned()));
    };
    let syntax = config::syntax_of(&call.content_type).ok_or(Refusal::NotConfiguration)?;
    let persist = call.flag("persist");
    if call.flag("dry_run") {
        if persist {
            control.file_for(syntax)?;
        }
        let warnings = control.check_text(syntax, text).await?;
        let note = "it was checked only; a port or a file may still refuse it".to_owned();
        let version = running.version;
        return Ok(Answer::json(&Put { version, applied: false, written: false, note, warnings }));
    }
    let over = (!call.if_match.is_empty()).then_some(running.version);
    let (Report { version, mut warnings }, placed) = if persist {
        control.apply_and_write(syntax, text, over).await?
    } else {
        (control.apply_text(syntax, text, over).await?, Ok(()))
    };
    let note = match (&placed, persist, control.file_name()) {
        // What is done is done, and has to be told as such.
        (Err(reason), _, _) => {
            warnings.push(reason.clone());
            reason.clone()
        }
        (Ok(()), true, Some(file)) => format!("{file} was written"),
        (Ok(()), false, Some(file)) => {
            format!("in memory only: the next reload or start reads {file}")
        }
        (Ok(()), _, None) => "in memory only: the process has no configuration file".to_owned(),
    };
    let written = persist && placed.is_ok();
    let page = Put { version, applied: true, written, note, warnings };
    let changed = format!("version {version} is in force; {}", page.note);
    Ok(Answer::json(&page).changed(changed).with_etag(etag(&control.running())))
}

pub(super) async fn history(control: &Rc<Control>) -> Result<Answer, Refusal> {
    let running = control.plan().version;
    let entry = |applied: &Applied| Entry {
        version: applied.version,
        at: moment(applied.at),
        trigger: applied.trigger.to_string(),
        hash: format!("{:016x}", applied.hash()),
        running: applied.version == running,
    };
    Ok(Answer::json(&History { history: control.history().iter().rev().map(entry).collect() }))
}

pub(super) async fn version(control: &Rc<Control>, call: &Call) -> Result<Answer, Refusal> {
    let history = control.history();
    let wanted = call.values[0].parse::<u64>().ok();
    let found = history.iter().find(|applied| Some(applied.version) == wanted);
    let found = found.ok_or_else(|| not_remembered(&history))?;
    let page = config::shown(control, found.syntax, found.text.to_string(), &call.accept).await?;
    Ok(page.with_etag(etag(found)))
}

pub(super) async fn rollback(control: &Rc<Control>, call: &Call) -> Result<Answer, Refusal> {
    let RollbackBody { version } = call.json()?;
    let history = control.history();
    if !history.iter().any(|applied| applied.version == version) {
        return Err(not_remembered(&history));
    }
    let report = control.rollback(version).await?;
    Ok(reloaded(report, &format!("version {version}")))
}

fn not_remembered(history: &[Applied]) -> Refusal {
    let known: Vec<String> = history.iter().map(|applied| applied.version.to_string()).collect();
    let known = known.join(", ");
    Refusal::Absent(format!("this version is not remembered; those that are: {known}"))
}

/// Versions begin again with each process: the text tells them apart.
pub(super) fn etag(applied: &Applied) -> String {
    format!("\"{}-{:016x}\"", applied.version, applied.hash())
}

/// RFC 9110 13.1.1: strong comparison, so a weak tag never matches.
fn matches(if_match: &str, etag: &str) -> bool {
    if_match.trim() == "*" || if_match.split(',').any(|one| one.trim() == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_holds_for_the_very_tag_in_a_list_or_for_any() {
        for holds in ["*", "\"1-a\"", "\"2-b\", \"1-a\"", " \"1-a\" "] {
            assert!(matches(holds, "\"1-a\""), "{holds}");
        }
        for fails in ["", "1-a", "W/\"1-a\"", "\"1-b\"", "\"*\""] {
            assert!(!matches(fails, "\"1-a\""), "{fails}");
        }
    }
}
