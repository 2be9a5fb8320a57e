//! What operators did: one record for every request that changes something or shows what clients
//! send, failed ones included; and what was refused at the door, at a pace that nobody can turn
//! into a flood.

use std::net::SocketAddr;

use serde_json::Value;

use crate::admin::call::Answer;
use crate::admin::refusal::Refusal;
use crate::control::Control;
use crate::engine;
use crate::limits;
use crate::telemetry::audit_log::{Event, Outcome, Record as Line};
use crate::telemetry::redact::{JsonPaths, Redact, Side};

/// Who asks for what.
#[derive(Clone, Debug)]
pub(super) struct Asked<'a> {
    /// The name of a token, `loopback`, or empty for who did not say.
    pub(super) who: &'a str,
    pub(super) peer: SocketAddr,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
}

/// What it is about, as far as the path does not say.
#[derive(Debug, Default)]
pub(super) struct Target {
    text: String,
    dry_run: bool,
}

impl Target {
    /// `query` was checked; `body` is JSON, or nothing.
    pub(super) fn new(query: &[(&'static str, String)], body: &[u8], secrets: &Redact) -> Target {
        let mut words: Vec<String> = Vec::new();
        for (name, value) in query {
            let shown = secrets.url(value.as_bytes(), &mut Vec::new()).to_vec();
            words.push(format!("{name}={}", String::from_utf8_lossy(&shown)));
        }
        if let Ok(body) = serde_json::from_slice::<Value>(body) {
            let (body, mut shown) = (body.to_string(), Vec::new());
            let hides = |name: &[u8]| secrets.hides_member(name, Side::Request);
            if JsonPaths::default().hide(body.as_bytes(), &hides, &mut shown).is_ok() {
                words.push(String::from_utf8_lossy(&shown).into_owned());
            }
        }
        let dry_run = query.iter().any(|(name, value)| *name == "dry_run" && value == "true");
        Target { text: words.join(" "), dry_run }
    }
}

/// Of a request that passed the door.
pub(super) fn change(
    control: &Control,
    asked: &Asked<'_>,
    target: &Target,
    result: &Result<Answer, Refusal>,
) {
    let (outcome, detail) = match result {
        Ok(answer) => {
            let outcome = match answer.status {
                200..300 if target.dry_run => Outcome::DryRun,
                200..300 => Outcome::Done,
                _ => Outcome::Failed,
            };
            let changed = answer.changed.as_deref().unwrap_or_default();
            (outcome, format!("{} {changed}", answer.status))
        }
        Err(refusal) => (Outcome::Failed, refusal.to_string()),
    };
    tell(control, 0, asked, (Event::AdminChange, outcome), (&target.text, &detail));
}

/// Of one that did not; `untold` were left out before it.
pub(super) fn refused(control: &Control, untold: u64, asked: &Asked<'_>, refusal: &Refusal) {
    let kind = (Event::AuthFailure, Outcome::Denied);
    tell(control, untold, asked, kind, ("", &refusal.to_string()));
}

fn tell(
    control: &Control,
    untold: u64,
    Asked { who, peer, method, path }: &Asked<'_>,
    (event, outcome): (Event, Outcome),
    (target, detail): (&str, &str),
) {
    let line = Line {
        at: engine::wall_clock(),
        event,
        outcome,
        actor: who,
        peer: Some(peer.ip()),
        action: &cut(&format!("{method} {path}")),
        target: &cut(target),
        detail: &cut(detail.trim_end()),
    };
    control.audit_after(untold, &line);
}

fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(limits::AUDIT_TEXT_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('\u{2026}');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_says_what_was_asked_without_secrets_and_within_bounds() {
        let query = [("ip", "1.2.3.4".to_owned()), ("path", "/a?token=hush".to_owned())];
        let body = b"{\"a\": 1, \"password\": \"hush\"}";
        let target = Target::new(&query, body, &Redact::USUAL);
        let expected = "ip=1.2.3.4 path=/a?token=[redacted] {\"a\":1,\"password\":\"[redacted]\"}";
        assert_eq!((target.text.as_str(), target.dry_run), (expected, false));
        assert!(Target::new(&[("dry_run", "true".to_owned())], b"no JSON", &Redact::USUAL).dry_run);
        assert_eq!(cut(&"\u{17c}".repeat(9999)).chars().count(), limits::AUDIT_TEXT_CHARS_MAX + 1);
        assert_eq!(cut("short"), "short");
    }
}
