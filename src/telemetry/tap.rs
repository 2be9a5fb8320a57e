//! Exchanges that an operator watches as they happen: which of them, and what is shown of each.
//! Secrets are hidden on the core where the exchange was, before anything leaves it.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

use serde_json::{Map, Value, json};

use crate::exchange::capture::Capture;
use crate::exchange::record::Record;
use crate::http::head::Line;
use crate::limits;
use crate::plan::{Network, Plan};
use crate::telemetry::client_tls;
use crate::telemetry::redact::{HIDDEN, JsonPaths, Redact};
use crate::telemetry::settings::{BodyCapture, Capturing};
use crate::telemetry::{logged_body, timestamp};

/// Compiled on the control core; what is `None` is not looked at.
#[derive(Clone, Debug)]
pub struct Tap {
    /// Counts up with every tap.
    pub id: u64,
    pub filter: Filter,
    /// After so many exchanges a core tells of no more.
    pub count: Option<u64>,
    redact: Redact,
    capturing: Capturing,
}

#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub method: Option<String>,
    /// A prefix, as the client wrote it.
    pub path: Option<String>,
    pub client: Option<Network>,
    pub route: Option<String>,
    pub cluster: Option<String>,
    pub status: Option<Statuses>,
}

/// One status, or a class of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statuses {
    One(u16),
    /// The first digit.
    Class(u16),
}

impl Statuses {
    /// `404` or `5xx`; 0 is an exchange without an answer.
    pub fn parse(text: &str) -> Option<Statuses> {
        if let Some(class) = text.strip_suffix("xx") {
            let class = class.parse().ok().filter(|class| (1..=5).contains(class))?;
            return (text.len() == 3).then_some(Statuses::Class(class));
        }
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let status = text.parse().ok().filter(|status| matches!(status, 0 | 100..=599))?;
        (digits && (text.len() == 3 || text == "0")).then_some(Statuses::One(status))
    }

    fn have(self, status: u16) -> bool {
        match self {
            Statuses::One(one) => status == one,
            Statuses::Class(class) => status / 100 == class,
        }
    }
}

impl Filter {
    /// What a request's head tells.
    fn takes_head(&self, method: &[u8], path: &[u8], client: IpAddr) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted.as_bytes() == method)
            && self.path.as_ref().is_none_or(|wanted| path.starts_with(wanted.as_bytes()))
            && self.client.is_none_or(|wanted| wanted.contains(client))
    }

    /// What is known at the end.
    fn takes_end(&self, record: &Record<'_>) -> bool {
        self.route.as_ref().is_none_or(|wanted| wanted == record.route)
            && self.cluster.as_ref().is_none_or(|wanted| wanted == record.cluster)
            && self.status.is_none_or(|wanted| wanted.have(record.status))
    }
}

impl Tap {
    /// `body_bytes`: of each body; 0: none. Hides what is known to be secret, and what the plan's
    /// logs hide.
    pub fn new(id: u64, filter: Filter, count: Option<u64>, body_bytes: usize, plan: &Plan) -> Tap {
        let mut members = JsonPaths::default();
        let logged = plan.captures.iter().flat_map(|log| [&log.request_body, &log.response_body]);
        for body in logged.flatten() {
            members = members.and(&body.redact);
        }
        let body = BodyCapture {
            bytes_max: body_bytes,
            content_types: vec!["*/*".to_owned()],
            redact: members,
            named_only: true,
        };
        let body = (body_bytes > 0).then_some(body);
        let (request_body, response_body) = (body.clone(), body);
        let capturing = Capturing { response_head: true, request_body, response_body };
        Tap { id, filter, count, redact: plan.secrets.clone(), capturing }
    }

    /// Whether a tap that began with this plan would hide the same.
    pub(crate) fn hides_as(&self, plan: &Plan) -> bool {
        let body = self.capturing.request_body.as_ref().map_or(0, |body| body.bytes_max);
        let anew = Tap::new(self.id, Filter::default(), None, body, plan);
        anew.redact == self.redact && anew.capturing == self.capturing
    }

    pub(crate) fn capturing(&self) -> &Capturing {
        &self.capturing
    }

    fn shows(&self, record: &Record<'_>, capture: &Capture) -> Tapped {
        let mut at = Vec::new();
        timestamp::iso(record.at, &mut at);
        let (lines, bytes) = record.request_lines;
        let line = |line: &Line| self.header(line.name.of(bytes), line.value.of(bytes));
        let request: Vec<Value> = lines.iter().map(line).collect();
        let response = capture.response_headers().map(|(name, value)| self.header(name, value));
        let response: Vec<Value> = response.collect();
        let shown = json!({
            "timestamp": text(&at),
            "request_id": text(record.request_id),
            "client": record.client,
            "peer": record.peer,
            "speaks_for": record.speaks_for,
            "scheme": record.scheme,
            "tls": record.tls.as_ref().map(client_tls::Told::of),
            "listener": record.listener,
            "route": record.route,
            "cluster": record.cluster,
            "endpoint": record.endpoint,
            "status_code": record.status,
            "failure": record.failure.map(crate::exchange::failure::Failure::label),
            "phase": record.phase.label(),
            "attempts": record.attempts,
            "bytes_received": record.bytes_received,
            "bytes_sent": record.bytes_sent,
            "latency_ms": record.timings.total.as_micros() as f64 / 1e3,
            "method": text(record.method),
            "target": self.url(record.target),
            "version": record.version,
            "request_headers": request,
            "response_headers": response,
        });
        let mut members = if let Value::Object(members) = shown { members } else { Map::new() };
        members.extend(self.bodies(capture));
        Tapped { tap: self.id, members }
    }

    /// As the access log shows them.
    fn bodies(&self, capture: &Capture) -> Map<String, Value> {
        let (mut out, mut scratch) = (b"{\"\":0".to_vec(), Vec::new());
        logged_body::encode(&self.capturing, capture, &self.redact, &mut scratch, &mut out);
        out.push(b'}');
        let mut members: Map<String, Value> = serde_json::from_slice(&out).unwrap_or_default();
        members.remove("");
        members
    }

    /// Name and value, in this order: the same name may come twice.
    fn header(&self, name: &[u8], value: &[u8]) -> Value {
        let hidden = self.redact.hides_header(name);
        // Many hold URLs (Referer, Location, Link, X-Original-URL), and none suffers from this.
        let value = if hidden { text(HIDDEN) } else { self.url(value) };
        json!([text(name), value])
    }

    fn url(&self, url: &[u8]) -> String {
        text(self.redact.url(url, &mut Vec::new()))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An exchange as it is shown.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Tapped {
    #[serde(skip)]
    pub tap: u64,
    #[serde(flatten)]
    members: Map<String, Value>,
}

/// The tap of a core, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Tapping {
    tap: RefCell<Option<Rc<Tap>>>,
    told: Cell<u64>,
}

impl Tapping {
    /// `None`: it is over.
    pub(crate) fn set(&self, tap: Option<Box<Tap>>) {
        *self.tap.borrow_mut() = tap.map(Rc::from);
        self.told.set(0);
    }

    pub(crate) fn is_on(&self) -> bool {
        self.tap.borrow().is_some()
    }

    /// For an exchange that may be one of those.
    #[cold]
    pub(crate) fn of(&self, method: &[u8], path: &[u8], client: IpAddr) -> Option<Rc<Tap>> {
        let tap = self.tap.borrow();
        tap.as_ref().filter(|tap| tap.filter.takes_head(method, path, client)).map(Rc::clone)
    }

    /// At its end.
    #[cold]
    pub(crate) fn shows(
        &self,
        tap: &Rc<Tap>,
        record: &Record<'_>,
        capture: &Capture,
    ) -> Option<Tapped> {
        let goes_on = self.tap.borrow().as_ref().is_some_and(|now| now.id == tap.id);
        if !goes_on || !tap.filter.takes_end(record) {
            return None;
        }
        self.told.set(self.told.get() + 1);
        if tap.count.is_some_and(|count| self.told.get() >= count) {
            self.set(None);
        }
        Some(tap.shows(record, capture))
    }
}

const _: () = assert!((limits::TAP_BODY_BYTES_MAX as u64) < limits::BULK_AFTER);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_one_or_a_class() {
        for (text, expected) in [
            ("404", Some(Statuses::One(404))),
            ("0", Some(Statuses::One(0))),
            ("5xx", Some(Statuses::Class(5))),
            ("6xx", None),
            ("0xx", None),
            ("+xx", None),
            ("05xx", None),
            ("xx", None),
            ("600", None),
            ("+04", None),
            ("0404", None),
            ("", None),
        ] {
            assert_eq!(Statuses::parse(text), expected, "{text}");
        }
        assert!(Statuses::Class(5).have(503) && !Statuses::Class(5).have(404));
        assert!(Statuses::One(404).have(404) && !Statuses::One(404).have(400));
    }

    #[test]
    fn a_head_is_taken_when_everything_that_is_asked_for_fits() {
        let filter = Filter {
            method: Some("GET".to_owned()),
            path: Some("/a".to_owned()),
            client: "10.0.0.0/8".parse().ok(),
            ..Filter::default()
        };
        let takes = |method: &str, path: &str, client: &str| {
            filter.takes_head(method.as_bytes(), path.as_bytes(), client.parse().unwrap())
        };
        assert!(takes("GET", "/ab", "10.1.2.3"));
        assert!(!takes("POST", "/ab", "10.1.2.3"));
        assert!(!takes("GET", "/b", "10.1.2.3"));
        assert!(!takes("GET", "/ab", "11.1.2.3"));
    }
}
