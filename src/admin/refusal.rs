//! Why a request to the admin or metrics port is refused: one table of statuses and codes, answered
//! in the same JSON form as the proxy's own failures.

use std::borrow::Cow;
use std::time::SystemTime;

use crate::exchange::failure::Failure;
use crate::http::reply::{Extra, Reply, error_body};
use crate::plan::Role;

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
    BodyTooLarge(usize),
    /// What was wrong and what was expected.
    Invalid(String),
    /// There is nothing of this name.
    Absent(String),
    /// Not in this state of the process.
    Conflict(String),
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
            Refusal::NotJson => (
                415,
                "UNSUPPORTED_MEDIA_TYPE",
                "expected a JSON body: `Content-Type: application/json`".into(),
            ),
            Refusal::BodyTooLarge(max) => {
                (413, "BODY_TOO_LARGE", format!("expected at most {max} bytes of body").into())
            }
            Refusal::Invalid(message) => (400, "INVALID_REQUEST", message.clone().into()),
            Refusal::Absent(message) => (404, "NOT_FOUND", message.clone().into()),
            Refusal::Conflict(message) => (409, "CONFLICT", message.clone().into()),
        }
    }

    pub(super) fn status(&self) -> u16 {
        self.row().0
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
            Refusal::Http(_)
            | Refusal::UnknownPath
            | Refusal::RoleTooLow { .. }
            | Refusal::ForeignHost
            | Refusal::ForeignOrigin
            | Refusal::BodyTooLarge(_)
            | Refusal::Invalid(_)
            | Refusal::Absent(_)
            | Refusal::Conflict(_) => None,
        }
    }

    pub(super) fn reply(&self, request_id: &[u8], at: SystemTime) -> Reply<'static> {
        let (status, code, message) = self.row();
        Reply {
            status,
            content_type: super::api::JSON,
            body: Cow::Owned(error_body(code, &message, request_id, at)),
            extra: Extra::None,
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal::Http(failure)
    }
}
