//! The audit log: who changed what, and who tried what they should not. One JSON object per line.
//! The control core records through `Control::audit`; data cores report requests that no honest
//! client sends, at a pace that an attacker cannot turn into a flood.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use crate::exchange::failure::Failure;
use crate::exchange::record::Record as Exchange;
use crate::limits::ACCESS_LOG_FIELD_BYTES_MAX;
use crate::telemetry::access_log::ip;
use crate::telemetry::redact::Redact;
use crate::telemetry::{decimal, json, timestamp};

/// What kind of fact it is. The label is what operators search for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    ProcessStart,
    ProcessStop,
    /// A configuration was accepted or refused.
    ConfigChange,
    /// Something was changed through the admin API, or was to be.
    AdminChange,
    /// Credentials were missing, wrong or not enough.
    AuthFailure,
    /// A connection or request was turned away by a list or a rule.
    Blocked,
    /// A request that breaks the protocol or this proxy's limits.
    RefusedRequest,
}

impl Event {
    pub fn label(self) -> &'static str {
        match self {
            Event::ProcessStart => "process_start",
            Event::ProcessStop => "process_stop",
            Event::ConfigChange => "config_change",
            Event::AdminChange => "admin_change",
            Event::AuthFailure => "auth_failure",
            Event::Blocked => "blocked",
            Event::RefusedRequest => "refused_request",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It was only to be checked, and is in order.
    DryRun,
    Denied,
    Failed,
}

impl Outcome {
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::DryRun => "dry_run",
            Outcome::Denied => "denied",
            Outcome::Failed => "failed",
        }
    }
}

/// One line. Empty texts are written as null. Never put a secret into any of them.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub at: SystemTime,
    pub event: Event,
    pub outcome: Outcome,
    /// The name of the token or certificate, or what acted: `SIGHUP`, `file watch`.
    pub actor: &'a str,
    pub peer: Option<IpAddr>,
    /// `PUT /admin/config`, `reload`.
    pub action: &'a str,
    /// What it was done to: a cluster, an address, a version.
    pub target: &'a str,
    /// Why, or what came of it.
    pub detail: &'a str,
}

impl Record<'_> {
    /// Appends one line, newline included; `untold` of its kind were left out before it.
    pub fn encode(&self, untold: u64, out: &mut Vec<u8>) {
        begin(self.at, self.event, self.outcome, out);
        optional("actor", self.actor.as_bytes(), out);
        address("peer_ip", self.peer, out);
        optional("action", self.action.as_bytes(), out);
        optional("target", self.target.as_bytes(), out);
        optional("detail", self.detail.as_bytes(), out);
        end(untold, out);
    }
}

/// Appends the line of a request that was refused; `untold` were left out before it.
pub fn refused_request(
    exchange: &Exchange<'_>,
    failure: Failure,
    secrets: &Redact,
    untold: u64,
    out: &mut Vec<u8>,
) {
    begin(exchange.at, Event::RefusedRequest, Outcome::Denied, out);
    address("client_ip", Some(exchange.client), out);
    address("peer_ip", Some(exchange.peer.ip()), out);
    optional("listener", exchange.listener.as_bytes(), out);
    optional("request_id", exchange.request_id, out);
    optional("method", exchange.method, out);
    optional("url", secrets.url(exchange.target, &mut Vec::new()), out);
    optional("reason", failure.label().as_bytes(), out);
    optional("detail", failure.row().message.as_bytes(), out);
    out.extend_from_slice(b",\"status\":");
    decimal::integer(u64::from(exchange.status), out);
    end(untold, out);
}

/// A client whose certificate was missing, or not accepted; or one that was cut off.
#[derive(Clone, Copy, Debug)]
pub struct RefusedClient<'a> {
    pub event: Event,
    pub at: SystemTime,
    /// Whom the peer speaks for.
    pub client: IpAddr,
    pub peer: IpAddr,
    pub listener: &'a str,
    /// That it has asked for.
    pub server_name: &'a str,
    pub reason: &'a str,
    pub detail: &'a str,
}

impl RefusedClient<'_> {
    /// Appends one line; `untold` were left out before it.
    pub fn encode(&self, untold: u64, out: &mut Vec<u8>) {
        begin(self.at, self.event, Outcome::Denied, out);
        address("client_ip", Some(self.client), out);
        address("peer_ip", Some(self.peer), out);
        optional("listener", self.listener.as_bytes(), out);
        optional("server_name", self.server_name.as_bytes(), out);
        optional("reason", self.reason.as_bytes(), out);
        optional("detail", self.detail.as_bytes(), out);
        end(untold, out);
    }
}

fn end(untold: u64, out: &mut Vec<u8>) {
    if untold > 0 {
        out.extend_from_slice(b",\"untold\":");
        decimal::integer(untold, out);
    }
    out.extend_from_slice(b"}\n");
}

/// How many events an attacker can have told.
#[derive(Debug)]
pub struct Pace {
    per_second: usize,
    second: Option<Instant>,
    told: usize,
    untold: u64,
}

impl Pace {
    pub fn new(per_second: usize) -> Pace {
        Pace { per_second, second: None, told: 0, untold: 0 }
    }

    /// How many events were left out before this one; `None`: so is this one.
    pub fn allows(&mut self, now: Instant) -> Option<u64> {
        let is_over =
            |second: Instant| now.saturating_duration_since(second) >= Duration::from_secs(1);
        if self.second.is_none_or(is_over) {
            self.second = Some(now);
            self.told = 0;
        }
        if self.told == self.per_second {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }

    /// So many could not be told after all.
    pub fn leave_out(&mut self, count: u64) {
        self.untold += count;
    }
}

fn begin(at: SystemTime, event: Event, outcome: Outcome, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"timestamp\":\"");
    timestamp::iso(at, out);
    out.extend_from_slice(b"\",\"event\":\"");
    out.extend_from_slice(event.label().as_bytes());
    out.extend_from_slice(b"\",\"outcome\":\"");
    out.extend_from_slice(outcome.label().as_bytes());
    out.push(b'"');
}

fn optional(name: &str, text: &[u8], out: &mut Vec<u8>) {
    out.push(b',');
    json::name(name, out);
    if text.is_empty() {
        out.extend_from_slice(b"null");
    } else {
        json::string(&text[..text.len().min(ACCESS_LOG_FIELD_BYTES_MAX)], out);
    }
}

fn address(name: &str, address: Option<IpAddr>, out: &mut Vec<u8>) {
    out.push(b',');
    json::name(name, out);
    match address {
        Some(address) => {
            out.push(b'"');
            ip(address, out);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_line_is_one_json_object_whatever_its_texts_hold() {
        let record = Record {
            at: UNIX_EPOCH + Duration::from_millis(1_767_323_045_678),
            event: Event::AdminChange,
            outcome: Outcome::Denied,
            actor: "",
            peer: Some("192.0.2.7".parse().unwrap()),
            action: "PUT /admin/config",
            target: "a\"b\n\u{2028}",
            detail: "no such role",
        };
        let mut out = Vec::new();
        record.encode(0, &mut out);
        let line = out.strip_suffix(b"\n").unwrap();
        assert!(json::check::is_valid(line));
        assert_eq!(
            String::from_utf8_lossy(line),
            "{\"timestamp\":\"2026-01-02T03:04:05.678Z\",\"event\":\"admin_change\",\
             \"outcome\":\"denied\",\"actor\":null,\"peer_ip\":\"192.0.2.7\",\
             \"action\":\"PUT /admin/config\",\"target\":\"a\\\"b\\n\\u2028\",\
             \"detail\":\"no such role\"}"
        );
        out.clear();
        record.encode(3, &mut out);
        assert!(out.ends_with(b",\"untold\":3}\n"));
    }

    #[test]
    fn a_client_that_was_refused_for_its_certificate_is_a_failed_login() {
        let refused = RefusedClient {
            event: Event::AuthFailure,
            at: UNIX_EPOCH,
            client: "203.0.113.9".parse().unwrap(),
            peer: "192.0.2.7".parse().unwrap(),
            listener: "edge",
            server_name: "",
            reason: "certificate_refused",
            detail: "expired\n{\"event\":\"admin_change\"}",
        };
        let mut out = Vec::new();
        refused.encode(2, &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "{\"timestamp\":\"1970-01-01T00:00:00.000Z\",\"event\":\"auth_failure\",\
             \"outcome\":\"denied\",\"client_ip\":\"203.0.113.9\",\"peer_ip\":\"192.0.2.7\",\
             \"listener\":\"edge\",\"server_name\":null,\"reason\":\"certificate_refused\",\
             \"detail\":\"expired\\n{\\\"event\\\":\\\"admin_change\\\"}\",\"untold\":2}\n"
        );
    }

    #[test]
    fn security_events_are_told_at_a_pace_and_those_left_out_are_counted() {
        let mut pace = Pace::new(2);
        let now = Instant::now();
        assert_eq!([(); 5].map(|()| pace.allows(now)), [Some(0), Some(0), None, None, None]);
        let later = now + Duration::from_secs(1);
        assert_eq!([(); 3].map(|()| pace.allows(later)), [Some(3), Some(0), None]);
    }
}
