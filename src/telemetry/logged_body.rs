//! Bodies in the JSON access log: as text when they are text, else in base64; secrets hidden; what
//! could not be hidden is left out, and the line says so.

use crate::base64;
use crate::exchange::capture::{Body, Capture};
use crate::telemetry::redact::{Redact, Side};
use crate::telemetry::settings::{BodyCapture, Capturing};
use crate::telemetry::{decimal, json};

/// Appends `,"request_body":{…},"response_body":{…}`, each if it was captured.
pub fn encode(
    settings: &Capturing,
    capture: &Capture,
    redact: &Redact,
    scratch: &mut Vec<u8>,
    out: &mut Vec<u8>,
) {
    let bodies = [
        (Side::Request, &capture.request, settings.request_body.as_ref()),
        (Side::Response, &capture.response, settings.response_body.as_ref()),
    ];
    for (side, body, settings) in bodies {
        let name = match side {
            Side::Request => "request_body",
            Side::Response => "response_body",
        };
        if let Some(settings) = settings
            && body.is_wanted()
            && body.total > 0
        {
            out.push(b',');
            json::name(name, out);
            let hiding = Hiding { redact, settings, side };
            member(body, &hiding, scratch, out);
        }
    }
    // A scratch that held a large body must not stay.
    if scratch.capacity() > SCRATCH_BYTES_KEPT {
        *scratch = Vec::new();
    }
}

/// What of a body is hidden, and how.
struct Hiding<'a> {
    redact: &'a Redact,
    settings: &'a BodyCapture,
    side: Side,
}

fn member(body: &Body, hiding: &Hiding<'_>, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"bytes\":");
    decimal::integer(body.total, out);
    out.extend_from_slice(b",\"truncated\":");
    out.extend_from_slice(if body.is_truncated() { b"true" } else { b"false" });
    let shown = show(body, hiding, scratch);
    match shown {
        Shown::Text(text) => {
            out.extend_from_slice(b",\"text\":");
            json::string(text, out);
        }
        Shown::Binary(bytes) => {
            out.extend_from_slice(b",\"base64\":\"");
            base64::encode(bytes, out);
            out.push(b'"');
        }
        Shown::Nothing(why) => {
            out.extend_from_slice(b",\"omitted\":");
            json::string(why.as_bytes(), out);
        }
    }
    out.push(b'}');
}

enum Shown<'a> {
    Text(&'a [u8]),
    Binary(&'a [u8]),
    Nothing(&'static str),
}

fn show<'a>(body: &'a Body, hiding: &Hiding<'_>, scratch: &'a mut Vec<u8>) -> Shown<'a> {
    let Hiding { redact, settings, side } = hiding;
    let paths = &settings.redact;
    let asked = !paths.is_empty() || settings.named_only;
    let Some(text) = text_of(&body.bytes, body.is_truncated()) else {
        if !asked {
            return Shown::Binary(&body.bytes);
        }
        return Shown::Nothing("binary: its members cannot be redacted");
    };
    scratch.clear();
    if body.is_form {
        redact.pairs(text, scratch);
        return Shown::Text(scratch);
    }
    // By its looks, whatever it is called: a wrong Content-Type must not show a secret.
    let looks_like_json = matches!(text.trim_ascii_start().first(), Some(b'{' | b'['));
    let is_json = body.is_json || looks_like_json;
    if !is_json && settings.named_only {
        return Shown::Nothing("neither JSON nor a form: its secrets cannot be told from the rest");
    }
    if !is_json || !(asked || redact.hides_members()) {
        return Shown::Text(text);
    }
    match paths.hide(text, &|name| redact.hides_member(name, *side), scratch) {
        Ok(()) => Shown::Text(scratch),
        // A line of text may begin with a bracket; a member has quotes.
        Err(_) if !asked && !body.is_json && !text.contains(&b'"') => Shown::Text(text),
        Err(_) => Shown::Nothing("not JSON: its members cannot be redacted"),
    }
}

/// What people can read; a character that the cap has cut is left out.
fn text_of(bytes: &[u8], truncated: bool) -> Option<&[u8]> {
    let text = match std::str::from_utf8(bytes) {
        Ok(_) => bytes,
        Err(error) if truncated && error.error_len().is_none() => &bytes[..error.valid_up_to()],
        Err(_) => return None,
    };
    let is_binary = |byte: &u8| byte.is_ascii_control() && !b"\t\r\n".contains(byte);
    (!text.iter().any(is_binary)).then_some(text)
}

/// Of the scratch that a core keeps.
const SCRATCH_BYTES_KEPT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_cut_by_the_cap_is_left_out_and_one_broken_by_its_sender_is_not_text() {
        assert_eq!(text_of("aż".as_bytes(), false), Some("aż".as_bytes()));
        assert_eq!(text_of(b"a\xc5", true), Some(&b"a"[..]));
        assert_eq!(text_of(b"a\xc5", false), None);
        assert_eq!(text_of(b"a\xffb", true), None);
        assert_eq!(text_of(b"a\0", false), None);
    }
}
