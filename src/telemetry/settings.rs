//! What a plan says of the logs: where they go, how they look, what they leave out.

use std::path::PathBuf;
use std::time::Duration;

use crate::telemetry::redact::{JsonPaths, Redact};
use crate::telemetry::template::Template;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// `None`: standard output.
    pub path: Option<PathBuf>,
    pub format: AccessLogFormat,
    /// Of the formats that are one.
    pub template: Option<Template>,
    /// Header values that a JSON line shows, by names in lower case.
    pub request_headers: Vec<Box<[u8]>>,
    pub response_headers: Vec<Box<[u8]>>,
    pub redact: Redact,
    pub sampling: Sampling,
    pub on_full: OnFull,
    pub rotate: Option<Rotate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    Json,
    Clf,
    Combined,
    Text,
    Template,
}

/// What becomes of a line that the log has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// It is lost and counted.
    Drop,
    /// Its connection waits.
    Block,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorLog {
    pub path: PathBuf,
    pub level: log::LevelFilter,
    pub rotate: Option<Rotate>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLog {
    pub path: PathBuf,
    pub rotate: Option<Rotate>,
}

/// When a file is put aside for a new one, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotate {
    pub bytes_max: u64,
    pub age_max: Duration,
    pub backups_max: usize,
    pub compress: bool,
}

/// Which exchanges have a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Of 2^64 - 1: what a request id's hash must not exceed.
    pub threshold: u64,
    /// An exchange that takes this long always has its line.
    pub slow: Duration,
    /// Failures and slow ones are sampled like the others.
    pub failures: bool,
}

impl Sampling {
    pub const ALL: Sampling =
        Sampling { threshold: u64::MAX, slow: Duration::MAX, failures: false };

    /// `share` is from 0 to 1.
    pub fn threshold_of(share: f64) -> u64 {
        if share >= 1.0 { u64::MAX } else { (share * u64::MAX as f64) as u64 }
    }

    /// Whether an exchange has its line. The same request id gives the same answer everywhere.
    pub fn takes<'a>(
        &self,
        request_id: impl FnOnce() -> &'a [u8],
        failed: bool,
        total: Duration,
    ) -> bool {
        if self.threshold == u64::MAX || (!self.failures && (failed || total >= self.slow)) {
            return true;
        }
        self.threshold > 0 && hash(request_id()) <= self.threshold
    }
}

/// FNV-1a, its bits mixed (the finaliser of splitmix64): ids that differ little differ here.
fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ fnv >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

impl AccessLog {
    pub fn shows_headers(&self) -> bool {
        !(self.request_headers.is_empty() && self.response_headers.is_empty())
    }

    /// Whether the head of a response must be kept until its line is written.
    pub fn needs_response_head(&self) -> bool {
        let of_template = self.template.as_ref().is_some_and(Template::needs_response_head);
        of_template || !self.response_headers.is_empty()
    }
}

/// What is kept of an exchange for its line. A route has one, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capturing {
    /// The response's head, for a log that shows its headers.
    pub response_head: bool,
    pub request_body: Option<BodyCapture>,
    pub response_body: Option<BodyCapture>,
}

impl Capturing {
    pub fn is_nothing(&self) -> bool {
        !self.response_head && self.request_body.is_none() && self.response_body.is_none()
    }
}

/// Which bodies are logged, and how much of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyCapture {
    pub bytes_max: usize,
    /// In lower case: `application/json`, `text/*`, `*/*`.
    pub content_types: Vec<String>,
    pub redact: JsonPaths,
    /// A body whose parts have no names that could tell secrets is left out.
    pub named_only: bool,
}

impl BodyCapture {
    /// Whether a body of this Content-Type is logged; one without is only where all are.
    pub fn takes(&self, content_type: &[u8]) -> bool {
        let media = media_type(content_type);
        let kind = media.split(|&byte| byte == b'/').next().unwrap_or_default();
        self.content_types.iter().any(|wanted| match wanted.strip_suffix("/*") {
            Some("*") => true,
            Some(wanted) => wanted.as_bytes().eq_ignore_ascii_case(kind),
            None => wanted.as_bytes().eq_ignore_ascii_case(media),
        })
    }
}

/// Without its parameters.
pub fn media_type(content_type: &[u8]) -> &[u8] {
    content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(share: f64) -> Sampling {
        let threshold = Sampling::threshold_of(share);
        Sampling { threshold, slow: Duration::from_secs(1), failures: false }
    }

    #[test]
    fn the_share_of_lines_is_what_was_asked_for() {
        for share in [0.0, 0.01, 0.1, 0.5, 1.0] {
            let sampling = sampling(share);
            let takes = |id: &u32| {
                let id = format!("{id:032x}");
                sampling.takes(|| id.as_bytes(), false, Duration::ZERO)
            };
            let taken = (0..100_000_u32).filter(takes).count() as f64;
            assert!((taken - share * 100_000.0).abs() <= 500.0, "{share}: {taken}");
        }
    }

    #[test]
    fn failures_and_slow_exchanges_always_have_their_lines_unless_told_otherwise() {
        let none = sampling(0.0);
        assert!(none.takes(|| b"id", true, Duration::ZERO));
        assert!(none.takes(|| b"id", false, Duration::from_secs(1)));
        assert!(!none.takes(|| b"id", false, Duration::from_millis(999)));
        let all_alike = Sampling { failures: true, ..none };
        assert!(!all_alike.takes(|| b"id", true, Duration::from_secs(9)));
        assert!(Sampling::ALL.takes(|| b"id", false, Duration::ZERO));
    }

    #[test]
    fn content_types_match_without_parameters_and_by_kind() {
        let of = |types: &[&str]| BodyCapture {
            bytes_max: 1,
            content_types: types.iter().map(|&text| text.to_owned()).collect(),
            redact: JsonPaths::default(),
            named_only: false,
        };
        let some = of(&["application/json", "text/*"]);
        assert!(some.takes(b"Application/JSON; charset=utf-8") && some.takes(b"text/html"));
        assert!(!some.takes(b"") && !some.takes(b"image/png") && !some.takes(b"application/jsonx"));
        assert!(of(&["*/*"]).takes(b""));
    }
}
