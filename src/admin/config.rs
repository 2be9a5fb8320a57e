//! `GET /admin/config`: what runs, defaults filled in, as JSON or TOML, without secrets.

use std::rc::Rc;

use toml::{Table, Value};

use crate::admin::api::JSON;
use crate::admin::call::{Answer, Call};
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::admin::{changes, is_one_of};
use crate::config::Syntax;
use crate::control::Control;
use crate::shard::rejected::is_secret;

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

const HIDDEN: &str = "(hidden)";

pub(super) async fn page(control: &Rc<Control>, call: &Call) -> Result<Answer, Refusal> {
    let etag = changes::etag(&control.running());
    let plan = control.plan();
    let (version, form) = (plan.version, form(&call.accept));
    let made = control.desk.shown.borrow().clone();
    let page = match made.filter(|made| (made.version, made.form) == (version, form)) {
        Some(made) => made.page,
        None => {
            let work = move || rendered(Syntax::Toml, &plan.written, form);
            let page = Rc::new(beside(control, work).await?);
            let made = Shown { version, form, page: Rc::clone(&page) };
            *control.desk.shown.borrow_mut() = Some(made);
            page
        }
    };
    Ok(Answer::page(form, page.to_vec()).with_etag(etag))
}

/// The page that was asked for last: it is long to make where there are many routes.
#[derive(Clone)]
pub(super) struct Shown {
    version: u64,
    form: &'static str,
    page: Rc<Vec<u8>>,
}

/// A text that was read without mistakes before, in the form that is wanted.
pub(super) async fn shown(
    control: &Control,
    syntax: Syntax,
    text: String,
    accept: &str,
) -> Result<Answer, Refusal> {
    let form = form(accept);
    let page = beside(control, move || rendered(syntax, &text, form)).await?;
    Ok(Answer::page(form, page))
}

/// Not on the core that answers probes.
async fn beside(
    control: &Control,
    work: impl FnOnce() -> Vec<u8> + Send + 'static,
) -> Result<Vec<u8>, Refusal> {
    let panicked = || Refusal::Conflict("showing it panicked: this is a bug".to_owned());
    control.beside(work).await.ok_or_else(panicked)
}

fn rendered(syntax: Syntax, text: &str, form: &'static str) -> Vec<u8> {
    let mut table: Table = syntax.table(text);
    hide(&mut table);
    match form {
        TOML => {
            toml::to_string(&table).expect("each of its values has a form in TOML").into_bytes()
        }
        _ => Answer::json(&table).body,
    }
}

/// The content type.
fn form(accept: &str) -> &'static str {
    if wants_toml(accept) { TOML } else { JSON }
}

fn wants_toml(accept: &str) -> bool {
    let kinds = accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
    let mut known = kinds.filter(|kind| [TOML, "application/json"].contains(kind));
    known.next() == Some(TOML)
}

/// Tokens, digests that they could be guessed from, and header values that are secrets by name.
fn hide(table: &mut Table) {
    let tokens = table.get_mut("admin").and_then(|admin| admin.get_mut("tokens"));
    for token in tokens.and_then(Value::as_array_mut).into_iter().flatten() {
        for secret in ["sha256", "token"] {
            if let Some(secret) = token.get_mut(secret) {
                *secret = Value::String(HIDDEN.to_owned());
            }
        }
    }
    // Whatever their names: they are there to authenticate.
    let otlp = table.get_mut("tracing").and_then(|tracing| tracing.get_mut("otlp"));
    let headers = otlp.and_then(|otlp| otlp.get_mut("headers")).and_then(Value::as_table_mut);
    for (_, value) in headers.into_iter().flatten() {
        *value = Value::String(HIDDEN.to_owned());
    }
    let routes = table.get_mut("routes").and_then(Value::as_array_mut);
    for route in routes.into_iter().flatten() {
        for (side, kind) in [
            ("request_headers", "set"),
            ("request_headers", "add"),
            ("response_headers", "set"),
            ("response_headers", "add"),
        ] {
            let lines = route.get_mut(side).and_then(|edits| edits.get_mut(kind));
            for (name, value) in lines.and_then(Value::as_table_mut).into_iter().flatten() {
                if is_secret(name.as_bytes()) {
                    *value = Value::String(HIDDEN.to_owned());
                }
            }
        }
    }
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

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        let text = "[admin]\ntokens = [{ name = \"ci\", sha256 = \"SECRET\" }, \
                    { token = \"SECRET\" }]\n\
                    [tracing.otlp.headers]\nx-team = \"SECRET\"\n\
                    [[routes]]\nname = \"r\"\n[routes.request_headers.set]\n\
                    Authorization = \"SECRET\"\nX-Env = \"prod\"\n\
                    [routes.response_headers.add]\nSet-Cookie = [\"SECRET\", \"SECRET\"]\n";
        let mut table: Table = text.parse().unwrap();
        hide(&mut table);
        let shown = toml::to_string(&table).unwrap();
        assert!(!shown.contains("SECRET") && shown.contains("prod"), "{shown}");
    }
}
