//! Why a request to the admin or metrics port is refused: one table of statuses and codes, answered
//! in the same JSON form as the proxy's own failures.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::admin::api::{Gives, JSON, MERGE_PATCH};
use crate::admin::shape::Shape;
use crate::config;
use crate::control::reload::Refused;
use crate::exchange::failure::Failure;
use crate::http::reply::{Extra, Reply, error_body};
use crate::plan::Role;

/// What `Refusal::Configuration` is answered with.
pub(super) const WRONG_CONFIGURATION: Gives =
    Gives { status: 422, content_type: JSON, shape: Shape::Object(&[("error", MISTAKES)]) };
const CONFIGURATION_TYPES: &str = "application/toml, application/yaml, application/json";
const MISTAKES: Shape = Shape::Object(&[
    ("code", Shape::Text),
    ("message", Shape::Text),
    ("request_id", Shape::Text),
    ("timestamp", Shape::Moment),
    ("errors", Shape::List(&MISTAKE)),
]);
const MISTAKE: Shape = Shape::Object(&[
    ("line", Shape::OrNull(&Shape::Whole)),
    ("column", Shape::OrNull(&Shape::Whole)),
    ("key", Shape::Text),
    ("message", Shape::Text),
]);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// As on a listener: heads and bodies that break HTTP.
    Http(Failure),
    UnknownPath,
    /// With the methods that are known.
    OtherMethods(String),
    NoToken,
    WrongToken,
    RoleTooLow {
        needed: Role,
        has: Role,
    },
    /// The `Host` header names somebody else: a browser was led here by a name that changed.
    ForeignHost,
    /// A browser was told to ask by a page of another site.
    ForeignOrigin,
    NotJson,
    NotConfiguration,
    NotMergePatch,
    BodyTooLarge(usize),
    /// What was wrong and what was expected.
    Invalid(String),
    /// There is nothing of this name.
    Absent(String),
    /// Not in this state of the process.
    Conflict(String),
    TooManyStreams(String),
    /// There is no room for more of it.
    Full(String),
    /// With every mistake.
    Configuration(config::Errors),
    /// `If-Match` names another version than the one that is in force.
    Superseded(u64),
    /// This process goes on.
    UpgradeFailed(String),
}

impl Refusal {
    fn row(&self) -> (u16, &'static str, Cow<'static, str>) {
        match self {
            Refusal::Http(failure) => {
                let row = failure.row();
                (row.status, row.code, Cow::Borrowed(row.message))
            }
            Refusal::UnknownPath => (
                404,
                "NOT_FOUND",
                "there is no such page: GET /admin/openapi.json lists all".into(),
            ),
            Refusal::OtherMethods(methods) => {
                (405, "METHOD_NOT_ALLOWED", format!("allowed here: {methods}").into())
            }
            Refusal::NoToken => {
                (401, "UNAUTHORIZED", "expected a token: `Authorization: Bearer TOKEN`".into())
            }
            Refusal::WrongToken => (401, "UNAUTHORIZED", "this token is not known".into()),
            Refusal::RoleTooLow { needed, has } => {
                let (needed, has) = (needed.label(), has.label());
                (403, "FORBIDDEN", format!("this needs role {needed}, the token has {has}").into())
            }
            Refusal::ForeignHost => (
                421,
                "FOREIGN_HOST",
                "the Host header names another host: expected the bind address or one of \
                 `admin.hosts`"
                    .into(),
            ),
            Refusal::ForeignOrigin => (
                403,
                "FOREIGN_ORIGIN",
                "a page of another site asked for this: expected no Origin header, or ours".into(),
            ),
            Refusal::NotJson => other_type("a JSON body", "`application/json`"),
            Refusal::NotConfiguration => other_type(
                "a configuration",
                "`application/toml`, `application/yaml` or `application/json`",
            ),
            Refusal::NotMergePatch => {
                other_type("a part of a configuration", "`application/merge-patch+json`")
            }
            Refusal::BodyTooLarge(max) => {
                (413, "BODY_TOO_LARGE", format!("expected at most {max} bytes of body").into())
            }
            Refusal::Invalid(message) => (400, "INVALID_REQUEST", message.clone().into()),
            Refusal::Absent(message) => (404, "NOT_FOUND", message.clone().into()),
            Refusal::Conflict(message) => (409, "CONFLICT", message.clone().into()),
            Refusal::TooManyStreams(message) => (429, "TOO_MANY_STREAMS", message.clone().into()),
            Refusal::Full(message) => (507, "FULL", message.clone().into()),
            Refusal::Configuration(errors) => {
                let count = errors.list().len();
                let message = format!("the configuration has mistakes ({count}), nothing changed");
                (422, "INVALID_CONFIGURATION", message.into())
            }
            Refusal::Superseded(version) => (
                412,
                "PRECONDITION_FAILED",
                format!("version {version} is in force: GET /admin/config gives its ETag").into(),
            ),
            Refusal::UpgradeFailed(reason) => (500, "UPGRADE_FAILED", reason.clone().into()),
        }
    }

    pub(super) fn status(&self) -> u16 {
        self.row().0
    }

    /// Whether whoever asks is known, and may only not do this.
    pub(super) fn is_of_known(&self) -> bool {
        matches!(self, Refusal::RoleTooLow { .. })
    }

    /// Header lines that go with the status.
    pub(super) fn header(&self) -> Option<(&'static str, String)> {
        match self {
            Refusal::OtherMethods(methods) => Some(("Allow", methods.clone())),
            Refusal::NoToken => Some(("WWW-Authenticate", "Bearer realm=\"admin\"".to_owned())),
            // RFC 6750 3.1
            Refusal::WrongToken => Some((
                "WWW-Authenticate",
                "Bearer realm=\"admin\", error=\"invalid_token\"".to_owned(),
            )),
            Refusal::NotJson => Some(("Accept", "application/json".to_owned())),
            Refusal::NotConfiguration => Some(("Accept", CONFIGURATION_TYPES.to_owned())),
            // RFC 5789 2.2
            Refusal::NotMergePatch => Some(("Accept-Patch", MERGE_PATCH.to_owned())),
            Refusal::Http(_)
            | Refusal::UnknownPath
            | Refusal::RoleTooLow { .. }
            | Refusal::ForeignHost
            | Refusal::ForeignOrigin
            | Refusal::BodyTooLarge(_)
            | Refusal::Invalid(_)
            | Refusal::Absent(_)
            | Refusal::Conflict(_)
            | Refusal::Configuration(_)
            | Refusal::Superseded(_)
            | Refusal::TooManyStreams(_)
            | Refusal::Full(_)
            | Refusal::UpgradeFailed(_) => None,
        }
    }

    pub(super) fn reply(&self, request_id: &[u8], at: SystemTime) -> Reply<'static> {
        let (status, code, message) = self.row();
        let mut body = error_body(code, &message, request_id, at);
        if let Refusal::Configuration(errors) = self {
            list(errors, &mut body);
        }
        let body = Cow::Owned(body);
        Reply { status, content_type: JSON, body, extra: Extra::None, varies: false }
    }
}

fn other_type(expected: &str, types: &str) -> (u16, &'static str, Cow<'static, str>) {
    let message = format!("expected {expected}: `Content-Type` {types}");
    (415, "UNSUPPORTED_MEDIA_TYPE", message.into())
}

/// Into the error object, as its last member.
fn list(errors: &config::Errors, body: &mut Vec<u8>) {
    let mistake = |error: &config::Error| {
        let mut message = error.message.clone();
        error.notes.iter().for_each(|note| message.push_str(&format!("; {note}")));
        let (line, column) = error.place.unzip();
        json!({ "line": line, "column": column, "key": error.key, "message": message })
    };
    let list: Vec<Value> = errors.list().iter().map(mistake).collect();
    body.truncate(body.len() - 2);
    body.extend_from_slice(format!(",\"errors\":{}}}}}", json!(list)).as_bytes());
}

/// For the audit log.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (status, code, message) = self.row();
        write!(f, "{status} {code}: {message}")
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        match refused {
            Refused::Configuration(errors) => Refusal::Configuration(errors),
            Refused::Impossible(reason) => Refusal::Conflict(reason),
            Refused::Superseded(version) => Refusal::Superseded(version),
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal::Http(failure)
    }
}
