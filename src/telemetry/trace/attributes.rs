//! What a span says beyond its name and times.

use std::borrow::Cow;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Text(Cow<'a, str>),
    Number(i64),
    Flag(bool),
}

/// What is empty or 0 is not there.
#[derive(Default)]
pub(super) struct Attributes<'a>(pub(super) Vec<(&'static str, Value<'a>)>);

impl<'a> Attributes<'a> {
    pub(super) fn text(&mut self, name: &'static str, text: &'a str) {
        if !text.is_empty() {
            self.0.push((name, Value::Text(Cow::Borrowed(text))));
        }
    }

    pub(super) fn owned(&mut self, name: &'static str, text: String) {
        self.0.push((name, Value::Text(Cow::Owned(text))));
    }

    pub(super) fn number(&mut self, name: &'static str, number: u64) {
        if number > 0 {
            self.0.push((name, Value::Number(i64::try_from(number).unwrap_or(i64::MAX))));
        }
    }

    pub(super) fn spans(&mut self, names: &[&'static str], micros: &[u64]) {
        for (name, micros) in names.iter().zip(micros) {
            self.0.push((name, Value::Number(i64::try_from(*micros).unwrap_or(i64::MAX))));
        }
    }

    pub(super) fn error(&mut self, error: Option<&Cow<'a, str>>) {
        if let Some(error) = error {
            self.0.push(("error.type", Value::Text(error.clone())));
        }
    }
}
