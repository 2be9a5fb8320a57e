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
    config::hide(&mut table);
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
