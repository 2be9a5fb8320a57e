//! `GET /admin/config`: what runs, defaults filled in, as JSON or TOML, without secrets and with
//! every variable by its name.

use std::rc::Rc;

use toml::Table;

use crate::admin::api::JSON;
use crate::admin::call::{Answer, Call};
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::admin::{changes, is_one_of};
use crate::config::{self, Syntax};
use crate::control::Control;

pub(super) const SHAPE: Shape = Shape::Anything;
pub(super) const TOML: &str = "application/toml";
/// Of a body that is a configuration. YAML's is that of RFC 9512.
pub(super) const TYPES: &[&str] = &[TOML, "application/yaml", JSON, "text/plain"];

/// As [`TYPES`].
pub(super) fn syntax_of(content_type: &str) -> Option<Syntax> {
    let is = |name: &str| is_one_of(content_type, &[name]);
    if is(JSON) {
        return Some(Syntax::Json);
    }
    if is("application/yaml") {
        return Some(Syntax::Yaml);
    }
    is_one_of(content_type, &[TOML, "text/plain"]).then_some(Syntax::Toml)
}

pub(super) async fn page(control: &Rc<Control>, call: &Call) -> Result<Answer, Refusal> {
    let etag = changes::etag(&control.running());
    Ok(shown(Syntax::Toml, &control.plan().written, &call.accept).with_etag(etag))
}

/// A text that was read without mistakes before, in the form that is wanted.
pub(super) fn shown(syntax: Syntax, text: &str, accept: &str) -> Answer {
    let mut table: Table = syntax.table(text);
    config::hide(&mut table);
    if !wants_toml(accept) {
        return Answer::json(&table);
    }
    let text = toml::to_string(&table).expect("each of its values has a form in TOML");
    Answer::page(TOML, text.into_bytes())
}

fn wants_toml(accept: &str) -> bool {
    let kinds = accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
    let mut known = kinds.filter(|kind| [TOML, "application/json"].contains(kind));
    known.next() == Some(TOML)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_is_given_to_those_who_ask_for_it_first() {
        assert!(wants_toml("application/toml"));
        assert!(wants_toml("text/html, application/toml;q=0.9, application/json"));
        for other in ["", "*/*", "application/json", "application/json, application/toml"] {
            assert!(!wants_toml(other), "{other}");
        }
    }
}
