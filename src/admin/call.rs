//! A request that has passed the door, and what is answered to it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize as _, Deserializer, Serialize};
use serde_json::Number;

use crate::admin::api::{JSON, Kind, Parameter, unescaped};
use crate::admin::auth::{self, Pass};
use crate::admin::refusal::Refusal;
use crate::admin::stream::{self, Stream};
use crate::config;
use crate::limits;
use crate::plan::{Network, Plan, Role};
use crate::telemetry::tap::Statuses;

/// Owns what it needs of the head: its buffer is read over by the body.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// What the `{…}` of the path stand for.
    pub(super) values: Vec<String>,
    /// Checked against the operation's parameters.
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) content_type: String,
    pub(super) accept: String,
    pub(super) if_match: String,
    /// Who asks, and from where.
    pub(super) who: String,
    pub(super) peer: SocketAddr,
    /// What it showed, and the role that it needs; `None`: anybody may ask.
    pub(super) pass: Option<(Pass, Role)>,
    pub(super) body: Vec<u8>,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
    /// For the audit log: what is different now.
    pub(super) changed: Option<String>,
    pub(super) etag: Option<String>,
    /// Instead of the body.
    pub(super) stream: Option<Stream>,
}

impl Answer {
    pub(super) fn json(value: &impl Serialize) -> Answer {
        let mut body = serde_json::to_vec_pretty(value).expect("our structs have text for names");
        body.push(b'\n');
        Answer::page(JSON, body)
    }

    pub(super) fn page(content_type: &'static str, body: Vec<u8>) -> Answer {
        Answer { status: 200, content_type, body, changed: None, etag: None, stream: None }
    }

    pub(super) fn stream(stream: Stream) -> Answer {
        Answer { stream: Some(stream), ..Answer::page(stream::NDJSON, Vec::new()) }
    }

    pub(super) fn with_etag(mut self, etag: String) -> Answer {
        self.etag = Some(etag);
        self
    }

    pub(super) fn changed(mut self, what: impl Into<String>) -> Answer {
        self.changed = Some(what.into());
        self
    }
}

impl Call {
    /// By this plan: tokens may have gone since it was let in.
    pub(super) fn is_let_in_no_more(&self, plan: &Plan) -> Option<Refusal> {
        let (pass, needed) = self.pass?;
        match auth::caller(&plan.admin_access, &pass) {
            Ok(caller) if caller.role >= needed => None,
            Ok(caller) => Some(Refusal::RoleTooLow { needed, has: caller.role }),
            Err(refusal) => Some(refusal),
        }
    }

    /// The body as the operation wants it; an empty one stands for `{}`.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let body = if self.body.is_empty() { b"{}" } else { &self.body[..] };
        // A struct would be read from a list as well, member by member.
        if body.trim_ascii_start().first().is_some_and(|byte| *byte == b'[') {
            return Err(Refusal::Invalid("body: expected an object, found a list".to_owned()));
        }
        serde_json::from_slice(body).map_err(|error| {
            // It may quote the body: enough of it to recognise, and no more.
            let message: String = error.to_string().chars().take(MESSAGE_CHARS_MAX).collect();
            Refusal::Invalid(format!("body: {message}"))
        })
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A parameter of kind `Whole`.
    pub(super) fn whole(&self, name: &str) -> Option<u64> {
        self.parameter(name)?.parse().ok()
    }

    /// A parameter of kind `Flag`.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.parameter(name) == Some("true")
    }

    /// A parameter of kind `Time`.
    pub(super) fn time(&self, name: &str) -> Option<Duration> {
        config::parse_time(self.parameter(name)?).ok()
    }
}

/// For a member that may be left out, but not be null.
pub(super) fn given<'d, D: Deserializer<'d>>(reader: D) -> Result<Option<String>, D::Error> {
    String::deserialize(reader).map(Some)
}

/// A whole number as JSON Schema has it: `1.0` is one.
pub(super) fn whole<'d, D: Deserializer<'d>>(reader: D) -> Result<u64, D::Error> {
    let number = Number::deserialize(reader)?;
    let exact = |number: f64| number.fract() == 0.0 && (0.0..=9e15).contains(&number);
    let from_float = || number.as_f64().filter(|number| exact(*number)).map(|n| n as u64);
    let expected = "expected a whole number, not below 0";
    number.as_u64().or_else(from_float).ok_or_else(|| D::Error::custom(expected))
}

const MESSAGE_CHARS_MAX: usize = 300;

/// A query (with its `?`) as the operation knows it: each parameter once, of its kind.
pub(super) fn query(
    text: &str,
    known: &'static [Parameter],
) -> Result<Vec<(&'static str, String)>, Refusal> {
    let mut found: Vec<(&'static str, String)> = Vec::new();
    let pairs = text.trim_start_matches('?').split('&').filter(|pair| !pair.is_empty());
    for pair in pairs {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(parameter) = known.iter().find(|parameter| parameter.name == name) else {
            let names: Vec<&str> = known.iter().map(|parameter| parameter.name).collect();
            let expected = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let message = format!("unknown parameter `{name}`, expected: {expected}");
            return Err(Refusal::Invalid(message));
        };
        let value = unescaped(value).unwrap_or_default();
        parameter.kind.check(&value).map_err(|expected| {
            Refusal::Invalid(format!("parameter `{name}`: expected {expected}"))
        })?;
        if found.iter().any(|(earlier, _)| *earlier == parameter.name) {
            return Err(Refusal::Invalid(format!("parameter `{name}` comes twice")));
        }
        found.push((parameter.name, value));
    }
    Ok(found)
}

impl Kind {
    fn check(self, value: &str) -> Result<(), String> {
        match self {
            Kind::Whole { max } => match value.parse::<u64>() {
                Ok(number) if number <= max && value.bytes().all(|b| b.is_ascii_digit()) => Ok(()),
                Ok(_) | Err(_) => Err(format!("a whole number up to {max}")),
            },
            Kind::Text if (1..=limits::TAP_TEXT_BYTES_MAX).contains(&value.len()) => Ok(()),
            Kind::Text => Err(format!("1 to {} bytes of text", limits::TAP_TEXT_BYTES_MAX)),
            Kind::Status if Statuses::parse(value).is_some() => Ok(()),
            Kind::Status => Err("a status such as 404, or a class such as 5xx".to_owned()),
            Kind::Words(words) if value.split(',').all(|word| words.contains(&word)) => Ok(()),
            Kind::Words(words) => Err(format!("some of {}, by comma", words.join(", "))),
            Kind::Address => match value.parse::<IpAddr>() {
                Ok(_) => Ok(()),
                Err(_) => Err("an IP address".to_owned()),
            },
            Kind::Network => match value.parse::<Network>() {
                Ok(_) => Ok(()),
                Err(wrong) => {
                    let wrong = wrong.to_string();
                    Err(wrong.strip_prefix("expected ").unwrap_or(&wrong).to_owned())
                }
            },
            Kind::Flag if ["true", "false"].contains(&value) => Ok(()),
            Kind::Flag => Err("true or false".to_owned()),
            Kind::Time => config::parse_time(value)
                .map(|_| ())
                .map_err(|_| "a duration such as 250ms, 30s or 2m".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Parameter] = &[
        Parameter { name: "limit", kind: Kind::Whole { max: 10 }, doc: "" },
        Parameter { name: "delay", kind: Kind::Time, doc: "" },
    ];

    #[test]
    fn a_query_holds_known_parameters_once_each_and_of_their_kind() {
        let found = query("?limit=7&delay=%35s", KNOWN).unwrap();
        assert_eq!(found, [("limit", "7".to_owned()), ("delay", "5s".to_owned())]);
        assert_eq!(query("", KNOWN), Ok(Vec::new()));
        assert_eq!(query("?&", KNOWN), Ok(Vec::new()));
        for wrong in [
            "?limit=11",
            "?limit=+1",
            "?limit=",
            "?limit",
            "?delay=5",
            "?x=1",
            "?=",
            "?limit=1&limit=1",
            "?limit=%zz",
            "?delay=9999h",
        ] {
            assert!(matches!(query(wrong, KNOWN), Err(Refusal::Invalid(_))), "{wrong}");
        }
    }
}
