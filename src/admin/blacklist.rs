//! `GET`, `POST` and `DELETE /admin/blacklist`: who may not connect, for how long and why.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize};

use crate::admin::api::{Kind, Parameter};
use crate::admin::call::{Answer, Call, given, whole};
use crate::admin::clusters;
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::admin::status::moment;
use crate::control::Control;
use crate::control::message::Question;
use crate::engine;
use crate::limits;
use crate::listener::blacklist::{Entry, seconds};
use crate::plan::Network;

pub(super) const SHAPE: Shape = Shape::Object(&[
    ("count", Shape::Whole),
    ("survives_restart", Shape::Flag),
    ("entries", Shape::List(&ENTRY)),
]);
const ENTRY: Shape = Shape::Object(&[
    ("ip", Shape::Text),
    ("reason", Shape::Text),
    ("by", Shape::Text),
    ("since", Shape::Moment),
    ("until", Shape::OrNull(&Shape::Moment)),
    ("seconds_left", Shape::OrNull(&Shape::Whole)),
    ("hits", Shape::Whole),
]);
pub(super) const ADDED: Shape = Shape::Object(&[
    ("entry", ENTRY),
    ("replaced", Shape::Flag),
    ("survives_restart", Shape::Flag),
    ("cores_missing", clusters::MISSING),
]);
pub(super) const REMOVED: Shape = Shape::Object(&[
    ("removed", Shape::Whole),
    ("survives_restart", Shape::Flag),
    ("cores_missing", clusters::MISSING),
]);
pub(super) const TAKES: Shape = Shape::Body {
    needed: &[("ip", Shape::Network)],
    optional: &[
        ("duration", Shape::Between(1, limits::BLACKLIST_SECONDS_MAX)),
        ("reason", Shape::Text),
        ("force", Shape::Flag),
    ],
};
pub(super) const TAKES_IP: Shape = Shape::Optional(&[("ip", Shape::Network)]);

pub(super) const LOOK: &[Parameter] = &[
    Parameter {
        name: "ip",
        kind: Kind::Address,
        doc: "Only the entry that blocks this address: of several, the narrowest.",
    },
    Parameter {
        name: "limit",
        kind: Kind::Whole { max: limits::BLACKLIST_ENTRIES_MAX as u64 },
        doc: "Most entries to list; 10000. The count is of all.",
    },
];
pub(super) const REMOVE: &[Parameter] = &[
    Parameter {
        name: "ip",
        kind: Kind::Network,
        doc: "The entry of exactly this address or network; wins over the body's.",
    },
    Parameter { name: "all", kind: Kind::Flag, doc: "Every entry." },
];

#[derive(Serialize)]
struct Page {
    /// Of all entries, listed or not.
    count: usize,
    survives_restart: bool,
    entries: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    ip: String,
    reason: String,
    by: String,
    since: String,
    /// `None`: for good.
    until: Option<String>,
    seconds_left: Option<u64>,
    hits: u64,
}

#[derive(Serialize)]
struct Added {
    entry: Listed,
    /// There was an entry for the same network.
    replaced: bool,
    survives_restart: bool,
    /// That may not go by it yet.
    cores_missing: Vec<usize>,
}

#[derive(Serialize)]
struct Removed {
    removed: usize,
    survives_restart: bool,
    cores_missing: Vec<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    ip: String,
    #[serde(default, deserialize_with = "a_number")]
    duration: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    reason: Option<String>,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhichBody {
    #[serde(default, deserialize_with = "given")]
    ip: Option<String>,
}

/// For a number that may be left out, but not be null.
fn a_number<'d, D: Deserializer<'d>>(reader: D) -> Result<Option<u64>, D::Error> {
    whole(reader).map(Some)
}

pub(super) async fn page(control: &Rc<Control>, call: &Call) -> Result<Answer, Refusal> {
    let wanted: Option<IpAddr> = call.parameter("ip").and_then(|text| text.parse().ok());
    let most = call.whole("limit").unwrap_or(limits::BLACKLIST_LISTED) as usize;
    let entries = match wanted {
        None => control.blacklisted(most),
        Some(ip) => control.blacklisting(ip).into_iter().take(most).collect(),
    };
    let (count, survives_restart) = (control.blacklist_len(), control.blacklist_is_kept());
    let entries = entries.iter().map(listed_as).collect();
    Ok(Answer::json(&Page { count, survives_restart, entries }))
}

pub(super) async fn add(control: &Rc<Control>, call: &Call) -> Result<Answer, Refusal> {
    let body: Body = call.json()?;
    let network = network(&body.ip)?;
    let max = limits::BLACKLIST_SECONDS_MAX;
    if body.duration.is_some_and(|duration| duration == 0 || duration > max) {
        let message = format!("body: duration: expected 1 to {max} seconds, or none for good");
        return Err(Refusal::Invalid(message));
    }
    let reason = body.reason.unwrap_or_default();
    if reason.chars().count() > limits::ADMIN_REASON_CHARS_MAX {
        let max = limits::ADMIN_REASON_CHARS_MAX;
        return Err(Refusal::Invalid(format!("body: reason: expected at most {max} characters")));
    }
    let since = seconds(engine::wall_clock());
    let until = body.duration.map(|duration| since + duration);
    let entry = Entry { network, reason, by: call.who.clone(), since, until, hits: 0 };
    let caller = call.peer.ip();
    if !body.force && entry.covers(caller) {
        return Err(Refusal::Conflict(format!(
            "{network} holds your own address, {caller}; if that is meant, add \"force\": true"
        )));
    }
    let (entry, replaced) = control.blacklist(entry).map_err(|_| full())?;
    let cores_missing = settled(control).await;
    let until = body.duration.map_or("for good".to_owned(), |seconds| format!("for {seconds} s"));
    let why = if entry.reason.is_empty() { String::new() } else { format!(": {}", entry.reason) };
    let changed = format!("{network} is blocked {until}{why}");
    let survives_restart = control.blacklist_is_kept();
    let page = Added { entry: listed_as(&entry), replaced, survives_restart, cores_missing };
    Ok(Answer::json(&page).changed(changed))
}

pub(super) async fn remove(control: &Rc<Control>, call: &Call) -> Result<Answer, Refusal> {
    let WhichBody { ip } = call.json()?;
    let ip = call.parameter("ip").map(str::to_owned).or(ip);
    let (removed, changed) = match (ip, call.flag("all")) {
        (Some(_), true) => {
            return Err(Refusal::Invalid("expected either `ip` or `all=true`".to_owned()));
        }
        (None, false) => {
            let message = "expected `?ip=` or {\"ip\": …} for one entry, or `?all=true` for all";
            return Err(Refusal::Invalid(message.to_owned()));
        }
        (None, true) => {
            let count = control.clear_blacklist();
            (count, format!("nobody is blocked any more, {count} were"))
        }
        (Some(ip), false) => {
            let network = network(&ip)?;
            let gone = control.unblacklist(network);
            gone.ok_or_else(|| {
                Refusal::Absent(format!(
                    "{network} has no entry of its own: GET /admin/blacklist?ip= says which one \
                     blocks an address"
                ))
            })?;
            (1, format!("{network} is not blocked any more"))
        }
    };
    let cores_missing = settled(control).await;
    let survives_restart = control.blacklist_is_kept();
    Ok(Answer::json(&Removed { removed, survives_restart, cores_missing }).changed(changed))
}

/// When every core goes by it, but for these: letters do not overtake each other, so who answers
/// this has the other.
async fn settled(control: &Rc<Control>) -> Vec<usize> {
    control.blacklist_sent().await;
    control.ask(Question::Nothing).await.missing
}

fn network(text: &str) -> Result<Network, Refusal> {
    // Its beginning says enough.
    let shown: String = text.chars().take(limits::NETWORK_CHARS_SHOWN).collect();
    text.parse().map_err(|wrong| Refusal::Invalid(format!("ip: `{shown}`: {wrong}")))
}

fn full() -> Refusal {
    let max = limits::BLACKLIST_ENTRIES_MAX;
    Refusal::Full(format!("the blacklist has {max} entries, its maximum: block larger networks"))
}

fn listed_as(entry: &Entry) -> Listed {
    let at = |since: u64| moment(UNIX_EPOCH + Duration::from_secs(since.min(MOMENT_MAX)));
    let now = seconds(engine::wall_clock());
    Listed {
        ip: entry.network.to_string(),
        reason: entry.reason.clone(),
        by: entry.by.clone(),
        since: at(entry.since),
        until: entry.until.map(at),
        seconds_left: entry.until.map(|until| until.saturating_sub(now)),
        hits: entry.hits,
    }
}

/// The end of the year 9999: what a file says may be anything.
const MOMENT_MAX: u64 = 253_402_300_799;
