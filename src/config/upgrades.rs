//! A route's `upgrades` and `websocket`: which protocols its clients may go over to, and what holds
//! for them from then on.

use std::time::Duration;

use serde::Serialize;
use toml::de::DeValue;

use super::document::Time;
use super::error::Wrong;
use super::keys::Fallback::Is;
use super::keys::{Key, key};
use super::read::{At, Section};
use super::value::{is_token, string, time_or_none};
use crate::limits;
use crate::plan::Upgrades;

#[derive(Clone, Debug, Serialize)]
pub struct WebSocket {
    /// 0: none.
    pub idle_timeout: At<Time>,
    /// 0: no pings.
    pub ping_interval: At<Time>,
}

pub(super) const UPGRADES: &[Key] = &[
    key(
        "routes[].upgrades",
        "list of protocols",
        Is("[\"websocket\"]"),
        "upgrades = [\"websocket\", \"tcp\"]",
        "what clients may ask to go over to by Upgrade; what is not listed is asked for in vain",
    ),
    key(
        "routes[].websocket.idle_timeout",
        "duration",
        Is("\"10m\""),
        "websocket = { idle_timeout = \"1h\" }",
        "how long both sides of a WebSocket, or of another upgrade, may be silent; then it is \
         closed; 0s: for ever",
    ),
    key(
        "routes[].websocket.ping_interval",
        "duration",
        Is("\"0s\""),
        "websocket = { ping_interval = \"30s\" }",
        "ping a WebSocket client that is silent for so long; its pong counts as a word; 0s: never",
    ),
];

/// The protocols that a route lists.
pub(super) fn protocols(route: &mut Section<'_>) -> Vec<At<String>> {
    let is_given = route.has("upgrades");
    let mut listed = route.list("upgrades", protocol);
    if !is_given {
        listed.push(At::unplaced(Upgrades::WEBSOCKET.to_owned()));
    }
    if listed.len() > limits::UPGRADES_MAX {
        let wrong = Wrong::new(format!("{} protocols are listed", listed.len()))
            .note(format!("expected at most {}", limits::UPGRADES_MAX));
        route.refuse_key("upgrades", route.offset_of("upgrades"), wrong);
    }
    listed
}

/// A name, which may have a version: `websocket`, `irc/6.9`.
fn protocol(value: &DeValue<'_>) -> Result<String, Wrong> {
    let given = string(value)?;
    let name = given.to_ascii_lowercase();
    let (bare, version) = name.split_once('/').unwrap_or((&name, "1"));
    // A second HTTP inside the first would reach backends past every rule of a route.
    if bare == "http" || bare.strip_prefix('h').is_some_and(|rest| rest.starts_with(['2', '3'])) {
        return Err(Wrong::new(format!("`{given}` is never forwarded"))
            .note("requests inside of it would pass by every rule of this configuration")
            .note("expected another protocol; HTTP/2 is spoken without Upgrade"));
    }
    if bare == "tls" {
        return Err(Wrong::new(format!("`{given}` is never forwarded"))
            .note("requests inside of it would pass by every rule of this configuration")
            .note("expected `clusters.NAME.tls` for TLS with backends"));
    }
    if name.len() > 64 || !is_token(bare) || !is_token(version) {
        return Err(Wrong::new(format!("`{given}` cannot be the name of a protocol"))
            .note("expected one such as \"websocket\" or \"irc/6.9\""));
    }
    Ok(name)
}

impl WebSocket {
    pub(super) fn read(mut section: Section<'_>) -> WebSocket {
        let idle = Time(limits::TUNNEL_IDLE_TIMEOUT);
        let websocket = WebSocket {
            idle_timeout: section.value_or("idle_timeout", idle, time_or_none),
            ping_interval: section.value_or("ping_interval", Time(Duration::ZERO), time_or_none),
        };
        if let Some(wrong) = websocket.wrong_ping() {
            section.refuse_key("ping_interval", websocket.ping_interval.offset, wrong);
        }
        section.finish();
        websocket
    }

    fn wrong_ping(&self) -> Option<Wrong> {
        let (idle, ping) = (self.idle_timeout.value.0, self.ping_interval.value.0);
        let least = limits::WEBSOCKET_PING_INTERVAL_MIN;
        if ping.is_zero() {
            None
        } else if ping < least {
            let wrong = Wrong::new("no client needs so many pings");
            Some(wrong.note(format!("expected at least {least:?}")))
        } else if !idle.is_zero() && ping >= idle {
            let wrong = Wrong::new("a silent client would be closed before it is pinged");
            Some(wrong.note("expected less than `idle_timeout`"))
        } else {
            None
        }
    }
}

pub(super) fn compile(protocols: &[At<String>], websocket: &WebSocket) -> Upgrades {
    let some = |time: &At<Time>| Some(time.value.0).filter(|time| !time.is_zero());
    Upgrades {
        protocols: protocols.iter().map(|name| name.value.as_str().into()).collect(),
        idle_timeout: some(&websocket.idle_timeout),
        ping_interval: some(&websocket.ping_interval),
    }
}
