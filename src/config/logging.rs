//! `[logging]` and `routes[].access_log`: how they are written, what is wrong with them, and the
//! plan's logs that they become.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use serde::Serialize;
use toml::de::DeValue;

use super::document::Document;
use super::error::Wrong;
use super::read::{At, Section};
use super::value::{
    Bytes, FORMATS, LEVELS, ON_FULL, Time, boolean, bytes, choice, days, integer, logged_header,
    path, share, string, text, time,
};
use crate::limits;
use crate::plan::{
    self, AccessLogFormat, AuditLog, BodyCapture, Capturing, ErrorLog, OnFull, Sampling,
};
use crate::telemetry::redact::{self, JsonPaths, Redact};
use crate::telemetry::template::{self, Template, TemplateError};

#[derive(Clone, Debug, Serialize)]
pub struct Logging {
    pub level: At<LevelFilter>,
    pub access: AccessLog,
    pub redact: Redaction,
    pub error: ErrorFile,
    pub audit: AuditFile,
}

#[derive(Clone, Debug, Serialize)]
pub struct AccessLog {
    pub enabled: At<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<At<PathBuf>>,
    pub format: At<AccessLogFormat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<At<String>>,
    pub request_headers: Vec<At<String>>,
    pub response_headers: Vec<At<String>>,
    pub sample: At<f64>,
    pub slow: At<Time>,
    pub sample_failures: At<bool>,
    pub on_full: At<OnFull>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body: Option<Body>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_body: Option<Body>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate: Option<Rotate>,
}

/// Of a route: what its lines show beyond those of the others.
#[derive(Clone, Debug, Serialize)]
pub struct RouteLog {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body: Option<Body>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_body: Option<Body>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Body {
    pub enabled: At<bool>,
    pub max: At<Bytes>,
    pub content_types: Vec<At<String>>,
    pub redact: Vec<At<String>>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Rotate {
    pub max_size: At<Bytes>,
    pub max_age: At<Time>,
    pub max_backups: At<usize>,
    pub compress: At<bool>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Redaction {
    pub defaults: At<bool>,
    pub headers: Vec<At<String>>,
    pub query: Vec<At<String>>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ErrorFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<At<PathBuf>>,
    pub level: At<LevelFilter>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate: Option<Rotate>,
}

#[derive(Clone, Debug, Serialize)]
pub struct AuditFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<At<PathBuf>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate: Option<Rotate>,
}

// --- reading ---------------------------------------------------------------------------------

impl Logging {
    pub(super) fn read(mut section: Section<'_>) -> Logging {
        let logging = Logging {
            level: section.value_or("level", LevelFilter::Info, choice("log level", LEVELS)),
            access: AccessLog::read(section.section("access")),
            redact: Redaction::read(section.section("redact")),
            error: ErrorFile::read(section.section("error")),
            audit: AuditFile::read(section.section("audit")),
        };
        section.finish();
        logging
    }
}

impl AccessLog {
    fn read(mut section: Section<'_>) -> AccessLog {
        let format = choice("access log format", FORMATS);
        let log = AccessLog {
            enabled: section.value_or("enabled", true, boolean),
            path: section.value("path", path),
            format: section.value_or("format", AccessLogFormat::Json, format),
            template: section.value("template", template_text),
            request_headers: section.list("request_headers", logged_header),
            response_headers: section.list("response_headers", logged_header),
            sample: section.value_or("sample", 1.0, share),
            slow: section.value_or("slow", Time(SLOW), time),
            sample_failures: section.value_or("sample_failures", false, boolean),
            on_full: section.value_or("on_full", OnFull::Drop, choice("choice", ON_FULL)),
            request_body: section.optional_section("request_body").map(Body::read),
            response_body: section.optional_section("response_body").map(Body::read),
            rotate: Rotate::read(&mut section),
        };
        section.finish();
        log
    }
}

/// What is slow when nothing is said of it.
const SLOW: Duration = Duration::from_secs(1);

fn template_text(value: &DeValue<'_>) -> Result<String, Wrong> {
    let given = string(value)?;
    let wrong = match Template::parse(given) {
        Ok(_) => return Ok(given.to_owned()),
        Err(TemplateError::Empty) => Wrong::new("this template is empty"),
        Err(TemplateError::Control) => Wrong::new("a template cannot contain control characters")
            .note("expected one line; its newline is added"),
        Err(TemplateError::Brace) => Wrong::new("a brace without its other half")
            .note("write a literal brace twice: {{ or }}"),
        Err(TemplateError::Unknown(name)) => Wrong::new(format!(
            "there is no variable `{{{name}}}`"
        ))
        .choices("variables are", &name, &template::names()),
        Err(TemplateError::HeaderName(name)) => {
            Wrong::new(format!("`{name}` cannot be a header name"))
                .note("expected a variable such as {header.user-agent}")
        }
    };
    Err(wrong)
}

impl RouteLog {
    pub(super) fn read(mut section: Section<'_>) -> RouteLog {
        let log = RouteLog {
            request_body: section.optional_section("request_body").map(Body::read),
            response_body: section.optional_section("response_body").map(Body::read),
        };
        section.finish();
        log
    }
}

impl Body {
    fn read(mut section: Section<'_>) -> Body {
        let max = bytes(1..=limits::LOGGED_BODY_BYTES_CEILING);
        let mut content_types = section.list("content_types", media_range);
        if !section.has("content_types") {
            content_types = CONTENT_TYPES.map(|text| At::unplaced(text.to_owned())).into();
        }
        let body = Body {
            enabled: section.value_or("enabled", true, boolean),
            max: section.value_or("max", Bytes(limits::LOGGED_BODY_BYTES), max),
            content_types,
            redact: section.list("redact", json_path),
        };
        section.finish();
        body
    }
}

/// What people can read.
const CONTENT_TYPES: [&str; 5] = [
    "application/json",
    "application/problem+json",
    "application/x-www-form-urlencoded",
    "application/xml",
    "text/*",
];

fn media_range(value: &DeValue<'_>) -> Result<String, Wrong> {
    let given = text(value)?;
    let plain = |part: &str| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte);
        part == "*" || (!part.is_empty() && part.bytes().all(letter))
    };
    match given.split_once('/') {
        Some((kind, rest)) if plain(kind) && plain(rest) && (kind != "*" || rest == "*") => {
            Ok(given.to_ascii_lowercase())
        }
        Some(_) | None => Err(Wrong::new(format!("`{given}` is not a content type"))
            .note("expected one such as \"application/json\", \"text/*\" or \"*/*\"")),
    }
}

fn json_path(value: &DeValue<'_>) -> Result<String, Wrong> {
    let given = text(value)?;
    match JsonPaths::new([given.as_str()].into_iter()) {
        Ok(_) => Ok(given),
        Err(_) => Err(Wrong::new(format!("`{given}` is not a path into JSON"))
            .note("expected one such as \"user.password\", \"cards.*.number\" or \"**.secret\"")),
    }
}

impl Rotate {
    fn read(parent: &mut Section<'_>) -> Option<Rotate> {
        let mut section = parent.optional_section("rotate")?;
        if !parent.has("path") {
            let wrong = Wrong::new("there is no file to rotate").note("expected `path` beside it");
            parent.refuse_key("rotate", section.offset, wrong);
        }
        let size = bytes(limits::ROTATE_BYTES_MIN..=1 << 50);
        let rotate = Rotate {
            max_size: section.value_or("max_size", Bytes(100 << 20), size),
            max_age: section.value_or("max_age", Time(WEEK), days),
            max_backups: section.value_or(
                "max_backups",
                3,
                integer(0..=limits::ROTATE_BACKUPS_MAX as u64),
            ),
            compress: section.value_or("compress", true, boolean),
        };
        section.finish();
        Some(rotate)
    }
}

const WEEK: Duration = Duration::from_secs(7 * 86_400);

impl Redaction {
    fn read(mut section: Section<'_>) -> Redaction {
        let redaction = Redaction {
            defaults: section.value_or("defaults", true, boolean),
            headers: section.list("headers", logged_header),
            query: section.list("query", query_key),
        };
        section.finish();
        redaction
    }
}

fn query_key(value: &DeValue<'_>) -> Result<String, Wrong> {
    let given = text(value)?;
    if (1..=redact::KEY_BYTES_MAX).contains(&given.len()) {
        return Ok(given);
    }
    Err(Wrong::new("this cannot be the key of a query")
        .note(format!("expected 1 to {} bytes, as they are decoded", redact::KEY_BYTES_MAX)))
}

impl ErrorFile {
    fn read(mut section: Section<'_>) -> ErrorFile {
        let file = ErrorFile {
            path: section.value("path", path),
            level: section.value_or("level", LevelFilter::Warn, choice("log level", LEVELS)),
            rotate: Rotate::read(&mut section),
        };
        section.finish();
        file
    }
}

impl AuditFile {
    fn read(mut section: Section<'_>) -> AuditFile {
        let file =
            AuditFile { path: section.value("path", path), rotate: Rotate::read(&mut section) };
        section.finish();
        file
    }
}

// --- compiling -------------------------------------------------------------------------------

impl Logging {
    pub(super) fn access_log(&self) -> Option<plan::AccessLog> {
        let access = &self.access;
        let template = match access.format.value {
            AccessLogFormat::Text => Some(template::TEXT),
            AccessLogFormat::Template => access.template.as_ref().map(|text| text.value.as_str()),
            AccessLogFormat::Json | AccessLogFormat::Clf | AccessLogFormat::Combined => None,
        };
        access.enabled.value.then(|| plan::AccessLog {
            path: access.path.as_ref().map(|path| path.value.clone()),
            format: access.format.value,
            template: template.and_then(|text| Template::parse(text).ok()),
            request_headers: names(&access.request_headers),
            response_headers: names(&access.response_headers),
            redact: self.redact.compile(),
            sampling: Sampling {
                threshold: Sampling::threshold_of(access.sample.value),
                slow: access.slow.value.0,
                failures: access.sample_failures.value,
            },
            on_full: access.on_full.value,
            rotate: access.rotate.as_ref().map(Rotate::compile),
        })
    }

    /// What operators are not shown, whatever the access log shows.
    pub(super) fn secrets(&self) -> Redact {
        self.redact.own().and(&Redact::USUAL)
    }

    pub(super) fn error_log(&self) -> Option<ErrorLog> {
        Some(ErrorLog {
            path: self.error.path.as_ref()?.value.clone(),
            level: self.error.level.value,
            rotate: self.error.rotate.as_ref().map(Rotate::compile),
        })
    }

    pub(super) fn audit_log(&self) -> Option<AuditLog> {
        Some(AuditLog {
            path: self.audit.path.as_ref()?.value.clone(),
            rotate: self.audit.rotate.as_ref().map(Rotate::compile),
        })
    }
}

fn names(list: &[At<String>]) -> Vec<Box<[u8]>> {
    list.iter().map(|name| name.value.to_ascii_lowercase().into_bytes().into()).collect()
}

impl Redaction {
    fn compile(&self) -> Redact {
        let own = self.own();
        if self.defaults.value { own.and(&Redact::USUAL) } else { own }
    }

    fn own(&self) -> Redact {
        let name = |name: &'_ At<String>| name.value.clone();
        let headers: Vec<String> = self.headers.iter().map(name).collect();
        let query: Vec<String> = self.query.iter().map(name).collect();
        Redact::new(headers.iter().map(String::as_str), query.iter().map(String::as_str))
    }
}

impl Rotate {
    fn compile(&self) -> plan::Rotate {
        plan::Rotate {
            bytes_max: self.max_size.value.0,
            age_max: self.max_age.value.0,
            backups_max: self.max_backups.value,
            compress: self.compress.value,
        }
    }
}

impl Body {
    fn compile(&self) -> Option<BodyCapture> {
        let paths = self.redact.iter().map(|path| path.value.as_str());
        self.enabled.value.then(|| BodyCapture {
            bytes_max: usize::try_from(self.max.value.0).unwrap_or(usize::MAX),
            content_types: self.content_types.iter().map(|one| one.value.clone()).collect(),
            redact: JsonPaths::new(paths).unwrap_or_default(),
            named_only: false,
        })
    }
}

/// What routes keep of their exchanges; most keep the same.
pub(super) struct Captures<'d> {
    logging: &'d Logging,
    response_head: bool,
    pub(super) all: Vec<Capturing>,
    /// By how a route is written.
    known: HashMap<String, Option<u32>>,
}

impl<'d> Captures<'d> {
    pub(super) fn new(document: &'d Document) -> Captures<'d> {
        let logging = &document.logging;
        let response_head = logging.access_log().is_some_and(|log| log.needs_response_head());
        Captures { logging, response_head, all: Vec::new(), known: HashMap::new() }
    }

    pub(super) fn of(&mut self, route: &RouteLog) -> Option<u32> {
        let access = &self.logging.access;
        if !access.enabled.value {
            return None;
        }
        let request = route.request_body.as_ref().or(access.request_body.as_ref());
        let response = route.response_body.as_ref().or(access.response_body.as_ref());
        let written = format!("{:?} {:?}", request.map(Body::compile), response.map(Body::compile));
        if let Some(found) = self.known.get(&written) {
            return *found;
        }
        let capturing = Capturing {
            response_head: self.response_head,
            request_body: request.and_then(Body::compile),
            response_body: response.and_then(Body::compile),
        };
        let id = (!capturing.is_nothing()).then(|| {
            self.all.push(capturing);
            (self.all.len() - 1) as u32
        });
        self.known.insert(written, id);
        id
    }
}
