//! What operators have said while the process ran, and what a new process goes on with after an
//! upgrade: endpoints, service, log levels and the blacklist. Handed over twice: before it starts,
//! and once more when it serves, with what was said meanwhile. A configuration is not among it: the
//! new process reads the file, and who upgrades is told when that is another one.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::control::Control;
use crate::control::message::Service;
use crate::control::overrides::{Admission, Override, Target};
use crate::control::reload::{Refused, Trigger};
use crate::control::stapling;
use crate::engine;
use crate::limits;
use crate::listener::blacklist::Entry;
use crate::plan::{Address, Network};
use crate::telemetry::log_levels;
use crate::tls::tickets::TicketKeys;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct PassedOn {
    #[serde(default)]
    endpoints: Vec<Endpoint>,
    #[serde(default)]
    service: Word,
    /// Until answers close their connections, while readiness is off already.
    #[serde(default)]
    closes_in_ms: u64,
    /// `None`: as configured.
    #[serde(default)]
    log_level: Option<String>,
    #[serde(default)]
    log_levels: BTreeMap<String, String>,
    #[serde(default)]
    blacklist: Vec<Entry>,
    /// Where it was kept.
    #[serde(default)]
    blacklist_path: Option<std::path::PathBuf>,
    /// So that clients come back to the new process too.
    #[serde(default)]
    pub(super) ticket_keys: Option<TicketKeys>,
    /// So that it need not ask for them again: answers of responders, by the fingerprint of the
    /// certificate that they are about.
    #[serde(default)]
    pub(super) staples: Vec<([u8; 32], Vec<u8>)>,
}

/// What was said of an endpoint, or of one address of its name.
#[derive(Debug, Serialize, Deserialize)]
struct Endpoint {
    cluster: String,
    /// As configured: an IP address, or a name.
    host: String,
    port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    admission: Said,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    reason: String,
    /// Seconds since 1970.
    since: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Ready,
    Drained,
    Maintenance,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    #[default]
    Serving,
    Leaving,
    Closing,
}

impl PassedOn {
    /// As it is sent. The error says what there is too much of.
    pub(super) fn text(&self) -> Result<Vec<u8>, String> {
        let text = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        let most = limits::UPGRADE_MANIFEST_BYTES_MAX;
        if text.len() > most {
            return Err(format!(
                "what operators have said is {} bytes, more than the {most} that can be passed on: \
                 the {} entries of the blacklist need shorter reasons",
                text.len(),
                self.blacklist.len()
            ));
        }
        Ok(text)
    }

    /// Blocks; the stream's timeouts hold.
    pub(super) fn send(&self, stream: &mut UnixStream) -> io::Result<()> {
        engine::send_descriptors(stream, &self.text().map_err(io::Error::other)?, &[])
    }

    /// Blocks.
    pub(super) fn receive(stream: &mut UnixStream) -> io::Result<PassedOn> {
        let most = limits::UPGRADE_MANIFEST_BYTES_MAX;
        let (text, _) = engine::receive_descriptors(stream, most, 0)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// The networks on its blacklist.
    pub(super) fn networks(&self) -> Vec<Network> {
        self.blacklist.iter().map(|entry| entry.network).collect()
    }
}

impl Control {
    /// As it is at this moment.
    pub(super) fn to_pass_on(&self) -> PassedOn {
        let plan = self.plan();
        let default = log_levels::default();
        let levels = log_levels::modules().into_iter();
        let left = self.closes_at.get().map(|at| at.saturating_duration_since(engine::now()));
        PassedOn {
            ticket_keys: Some(self.tls.ticket_keys()),
            staples: stapling::to_pass_on(self.tls.staples()),
            endpoints: self.overrides.all().into_iter().map(Endpoint::of).collect(),
            service: match self.service.get() {
                Service::Serving => Word::Serving,
                Service::Leaving => Word::Leaving,
                Service::Closing => Word::Closing,
            },
            closes_in_ms: left.map_or(0, |left| u64::try_from(left.as_millis()).unwrap_or(0)),
            log_level: (default != plan.log_level).then(|| default.to_string()),
            log_levels: levels.map(|(name, level)| (name.to_owned(), level.to_string())).collect(),
            blacklist: self.blacklisted(usize::MAX),
            blacklist_path: plan.blacklist_path.clone(),
        }
    }

    /// Goes on with what the process before this one was told. `before`: networks that it had told
    /// of earlier, and lists no more if they are not in `passed` now.
    pub(super) fn go_on_with(self: &Rc<Self>, passed: PassedOn, before: &[Network]) {
        for endpoint in passed.endpoints {
            let (cluster, target, says) = endpoint.into_parts();
            self.overrides.set(&cluster, target, says);
        }
        self.overrides.forget_all_but(&self.plan());
        let told = match passed.service {
            Word::Serving if self.service.get() == Service::Serving => Ok(()),
            Word::Serving => self.resume(),
            Word::Leaving => self.leave(Duration::from_millis(passed.closes_in_ms)),
            Word::Closing => self.leave(Duration::ZERO),
        };
        if told.is_err() {
            return; // it was told to end
        }
        let level = passed.log_level.and_then(|level| level.parse().ok());
        log_levels::set_default(level.unwrap_or(self.plan().log_level));
        // Modules of another version may have other names.
        let levels = passed.log_levels.into_iter().filter_map(|(module, level)| {
            let known = log_levels::MODULES.contains(&module.as_str());
            Some((module, level.parse().ok().filter(|_| known)?))
        });
        log_levels::set_modules(&levels.collect::<Vec<_>>());
        let same_file = passed.blacklist_path == self.plan().blacklist_path;
        self.take_blacklist(passed.blacklist, before, same_file);
    }

    /// What the process before this one was told while this one started.
    pub(super) async fn hear_the_rest(self: &Rc<Self>, before: &[Network]) {
        let Some(mut stream) = self.predecessor.borrow().stream() else { return };
        let received = self.watch.pool().run(move || PassedOn::receive(&mut stream)).await;
        let passed = match received {
            Some(Ok(passed)) => passed,
            Some(Err(error)) => {
                log::warn!("what was said during the upgrade is not known here: {error}");
                return;
            }
            None => return,
        };
        self.take_ticket_keys(passed.ticket_keys.clone()).await;
        self.overrides.forget_all();
        self.go_on_with(passed, before);
        let plan = self.plan();
        for cluster in &plan.clusters {
            self.send_endpoints(&cluster.name);
        }
        self.blacklist_changed();
        self.publish_health();
    }

    /// What of the configuration in force a new process will not find in the file.
    pub(super) async fn lost_by_upgrade(self: &Rc<Self>) -> Vec<String> {
        let Some((trigger, version, text)) = self.reloads.newest() else { return Vec::new() };
        if !matches!(trigger, Trigger::Admin | Trigger::Patch | Trigger::Rollback(_)) {
            return Vec::new(); // a file that has changed since is meant to be read
        }
        let source = self.source.clone();
        let name = source.name();
        let timeout = self.plan().hot_reload.poll_timeout;
        // An upgrade does not wait for a dead disk for ever.
        let reading = self.in_time(&name, move || source.provider.read(timeout)).await;
        let read = reading.and_then(|read| read.map_err(Refused::Configuration));
        let Some(loss) = loss(&name, read.map(|read| *read.text == *text)) else {
            return Vec::new();
        };
        vec![format!("the configuration in force, version {version} ({trigger}), {loss}")]
    }
}

/// What becomes of a configuration that came by the admin API. `None`: the new process finds it.
fn loss(name: &str, is_same: Result<bool, Refused>) -> Option<String> {
    let found = match is_same {
        Ok(true) => return None,
        Ok(false) => format!("is not what {name} has"),
        Err(why) => format!("could not be compared with what {name} has ({why})"),
    };
    Some(format!(
        "{found}: the new process reads that; to keep the one in force, \
         PUT /admin/config?persist=true before an upgrade"
    ))
}

impl Endpoint {
    fn of((cluster, target, says): (String, Target, Override)) -> Endpoint {
        let (configured, address) = match target {
            Target::Written(configured) => (configured, None),
            Target::Of(configured, address) => (configured, Some(address)),
        };
        let (host, port) = match configured {
            Address::Ip(ip) => (ip.ip().to_string(), ip.port()),
            Address::Name(name, port) => (name, port),
        };
        let since = says.since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let admission = match says.admission {
            Admission::Ready => Said::Ready,
            Admission::Drained => Said::Drained,
            Admission::Maintenance => Said::Maintenance,
        };
        let Override { weight, reason, .. } = says;
        Endpoint { cluster, host, port, address, admission, weight, reason, since }
    }

    fn into_parts(self) -> (String, Target, Override) {
        let configured = match self.host.parse::<IpAddr>() {
            Ok(ip) => Address::Ip(SocketAddr::new(ip, self.port)),
            Err(_) => Address::Name(self.host, self.port),
        };
        let target = match self.address {
            None => Target::Written(configured),
            Some(address) => Target::Of(configured, address),
        };
        let admission = match self.admission {
            Said::Ready => Admission::Ready,
            Said::Drained => Admission::Drained,
            Said::Maintenance => Admission::Maintenance,
        };
        let since = UNIX_EPOCH.checked_add(Duration::from_secs(self.since));
        let since = since.unwrap_or(SystemTime::UNIX_EPOCH);
        let says = Override { admission, weight: self.weight, reason: self.reason, since };
        (self.cluster, target, says)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_blacklist_can_be_passed_on() {
        let reason = "\u{1}".repeat(limits::ADMIN_REASON_CHARS_MAX);
        let entry = Entry {
            network: "2001:db8:1234:5678:9abc:def0:1234:5678".parse().unwrap(),
            reason,
            by: "operator".repeat(8),
            since: u64::MAX,
            until: Some(u64::MAX),
            hits: u64::MAX,
        };
        let one = PassedOn { blacklist: vec![entry.clone()], ..PassedOn::default() };
        let bytes = one.text().unwrap().len();
        assert!(bytes * limits::BLACKLIST_ENTRIES_MAX <= limits::UPGRADE_MANIFEST_BYTES_MAX);
        let huge = Entry { reason: "a".repeat(limits::UPGRADE_MANIFEST_BYTES_MAX), ..entry };
        let said = PassedOn { blacklist: vec![huge], ..PassedOn::default() };
        assert!(said.text().unwrap_err().contains("the 1 entries of the blacklist"));
    }

    #[test]
    fn what_could_not_be_compared_is_not_said_to_differ() {
        assert_eq!(loss("a.toml", Ok(true)), None);
        let told = loss("a.toml", Ok(false)).unwrap();
        assert!(told.starts_with("is not what a.toml has: the new process reads"), "{told}");
        let busy = loss("a.toml", Err(Refused::Impossible("busy".to_owned()))).unwrap();
        assert!(busy.starts_with("could not be compared with what a.toml has (busy)"), "{busy}");
    }

    #[test]
    fn keys_and_staples_are_passed_on_and_versions_that_know_none_are_understood() {
        let keys = TicketKeys::new(7).unwrap();
        let staples = vec![([9; 32], vec![5; limits::OCSP_PASSED_ON_BYTES_MAX])];
        let passed = PassedOn {
            ticket_keys: Some(keys.clone()),
            staples: staples.clone(),
            ..PassedOn::default()
        };
        let text = passed.text().unwrap();
        let read: PassedOn = serde_json::from_slice(&text).unwrap();
        assert_eq!((read.ticket_keys, read.staples), (Some(keys), staples));
        let older: PassedOn = serde_json::from_str("{\"endpoints\":[]}").unwrap();
        assert!(older.ticket_keys.is_none() && older.staples.is_empty());
        let newer = "{\"endpoints\":[],\"what_nobody_knows_yet\":{\"a\":[1]}}";
        assert!(serde_json::from_str::<PassedOn>(newer).is_ok());
    }
}
