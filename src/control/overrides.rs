//! What operators say of endpoints while the process runs: out of service, or another weight. It
//! belongs to the endpoint as the configuration writes it, so it outlives reloads, and ends when
//! the endpoint leaves the configuration. An upgrade passes it on; a restart begins without.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use crate::control::Control;
use crate::control::message::ToShard;
use crate::engine;
use crate::limits;
use crate::plan::{Address, Plan};

/// Whether an endpoint takes new exchanges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Admission {
    #[default]
    Ready,
    /// No new exchanges; what runs and what is kept goes on.
    Drained,
    /// As drained, and no connection is kept.
    Maintenance,
}

impl Admission {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Admission::Ready => "ready",
            Admission::Drained => "drained",
            Admission::Maintenance => "maintenance",
        }
    }
}

/// What an endpoint is called by who speaks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// As configured: every address that a name has.
    Written(Address),
    /// One of the addresses of this name.
    Of(Address, SocketAddr),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Override {
    pub(crate) admission: Admission,
    /// Instead of the configured one.
    pub(crate) weight: Option<u32>,
    /// Who said so, and why.
    pub(crate) reason: String,
    pub(crate) since: SystemTime,
}

#[derive(Clone, Debug)]
pub(crate) enum Said {
    Admission(Admission),
    /// `None`: as configured.
    Weight(Option<u32>),
}

struct Entry {
    cluster: String,
    target: Target,
    says: Override,
}

#[derive(Default)]
pub(super) struct Overrides(RefCell<Vec<Entry>>, RefCell<Vec<Gone>>);

/// An address that its name does not have, and since when.
type Gone = (Address, SocketAddr, Instant);

impl Overrides {
    /// Of one address of an endpoint. What was said of the address goes before what was said of
    /// its name, but for the more careful state.
    pub(super) fn of(
        &self,
        cluster: &str,
        configured: &Address,
        address: Option<SocketAddr>,
    ) -> Option<Override> {
        let entries = self.0.borrow();
        let said = |wanted: &Target| {
            let found = entries.iter().find(|e| e.cluster == cluster && e.target == *wanted);
            found.map(|entry| entry.says.clone())
        };
        let written = said(&Target::Written(configured.clone()));
        let exact = address.and_then(|address| said(&Target::Of(configured.clone(), address)));
        match (exact, written) {
            (Some(exact), Some(written)) => {
                let weight = exact.weight.or(written.weight);
                let careful = if written.admission > exact.admission { written } else { exact };
                Some(Override { weight, ..careful })
            }
            (exact, written) => exact.or(written),
        }
    }

    fn say(&self, cluster: &str, target: Target, said: &Said, reason: &str, at: SystemTime) {
        let mut entries = self.0.borrow_mut();
        let known = entries.iter().position(|e| e.cluster == cluster && e.target == target);
        let mut says = known.map_or_else(
            || Override {
                admission: Admission::Ready,
                weight: None,
                reason: String::new(),
                since: at,
            },
            |index| entries.swap_remove(index).says,
        );
        match said {
            Said::Admission(admission) => says.admission = *admission,
            Said::Weight(weight) => says.weight = *weight,
        }
        if says.admission == Admission::Ready && says.weight.is_none() {
            return; // as configured again
        }
        says.reason = reason.to_owned();
        says.since = at;
        entries.push(Entry { cluster: cluster.to_owned(), target, says });
    }

    /// What was said of an address ends some time after its name has left it: when it comes back
    /// then, it is somebody else's.
    fn tend(&self, addresses: impl Fn(&Address) -> Vec<SocketAddr>, now: Instant) {
        let before = self.1.take();
        let mut gone: Vec<Gone> = Vec::new();
        self.0.borrow_mut().retain(|entry| {
            let Target::Of(name, address) = &entry.target else { return true };
            let known = before.iter().find(|(theirs, at, _)| (theirs, at) == (name, address));
            let since = known.map(|(_, _, since)| *since);
            let limit = limits::OVERRIDE_GONE_MAX;
            if since.is_some_and(|since| now.saturating_duration_since(since) >= limit) {
                return false;
            }
            if !addresses(name).contains(address) {
                gone.push((name.clone(), *address, since.unwrap_or(now)));
            }
            true
        });
        *self.1.borrow_mut() = gone;
    }

    /// Of one endpoint, those addresses that it does not have now.
    fn absent(&self, cluster: &str, configured: &Address) -> Vec<SocketAddr> {
        let entries = self.0.borrow();
        let gone = self.1.borrow();
        let of = gone.iter().filter(|(name, _, _)| name == configured);
        let said = |address: &SocketAddr| {
            let target = Target::Of(configured.clone(), *address);
            entries.iter().any(|entry| entry.cluster == cluster && entry.target == target)
        };
        let mut absent: Vec<SocketAddr> = of.map(|(_, address, _)| *address).filter(said).collect();
        absent.dedup();
        absent
    }

    /// Cluster, target and what was said of it.
    pub(super) fn all(&self) -> Vec<(String, Target, Override)> {
        let entries = self.0.borrow();
        let parts = |e: &Entry| (e.cluster.clone(), e.target.clone(), e.says.clone());
        entries.iter().map(parts).collect()
    }

    /// In the place of whatever was said of it.
    pub(super) fn set(&self, cluster: &str, target: Target, says: Override) {
        let mut entries = self.0.borrow_mut();
        entries.retain(|e| e.cluster != cluster || e.target != target);
        entries.push(Entry { cluster: cluster.to_owned(), target, says });
    }

    pub(super) fn forget_all(&self) {
        self.0.borrow_mut().clear();
    }

    /// Those of endpoints that this plan does not have end.
    pub(super) fn forget_all_but(&self, plan: &Plan) {
        let is_there = |entry: &Entry| {
            let (Target::Written(configured) | Target::Of(configured, _)) = &entry.target;
            let cluster = plan.clusters.iter().find(|cluster| cluster.name == entry.cluster);
            cluster.is_some_and(|c| c.endpoints.iter().any(|e| e.address == *configured))
        };
        self.0.borrow_mut().retain(is_there);
    }
}

impl Control {
    /// What `name` stands for in a cluster: an endpoint as it is written, or one of the addresses
    /// that it has now. Empty: nothing.
    pub(crate) fn targets(&self, cluster: &str, name: &str) -> Vec<Target> {
        let plan = self.plan();
        let Some(cluster) = plan.clusters.iter().find(|known| known.name == cluster) else {
            return Vec::new();
        };
        let as_address = name.parse::<SocketAddr>().ok();
        let mut targets = Vec::new();
        for endpoint in &cluster.endpoints {
            let configured = &endpoint.address;
            match (configured, as_address) {
                (Address::Ip(ip), Some(address)) if *ip == address => {
                    targets.push(Target::Written(configured.clone()));
                }
                (Address::Name(host, port), _) if format!("{host}:{port}") == name => {
                    targets.push(Target::Written(configured.clone()));
                }
                (Address::Name(..), Some(address))
                    if self.addresses(configured).contains(&address)
                        || self.absent_addresses(&cluster.name, configured).contains(&address) =>
                {
                    targets.push(Target::Of(configured.clone(), address));
                }
                (Address::Ip(_) | Address::Name(..), _) => {}
            }
        }
        targets
    }

    /// What operators have spoken of and its name does not have at the moment.
    pub(crate) fn absent_addresses(&self, cluster: &str, configured: &Address) -> Vec<SocketAddr> {
        self.tend_overrides();
        self.overrides.absent(cluster, configured)
    }

    /// To be called when a name has other addresses.
    pub(super) fn tend_overrides(&self) {
        self.overrides.tend(|name| self.addresses(name), engine::now());
    }

    pub(crate) fn override_of(
        &self,
        cluster: &str,
        configured: &Address,
        address: Option<SocketAddr>,
    ) -> Option<Override> {
        self.overrides.of(cluster, configured, address)
    }

    /// For every core at once; it is theirs when the next letter is answered.
    pub(crate) fn say(&self, cluster: &str, targets: Vec<Target>, said: &Said, reason: &str) {
        for target in targets {
            let (configured, address) = match &target {
                Target::Written(configured) => (configured.clone(), None),
                Target::Of(configured, address) => (configured.clone(), Some(*address)),
            };
            self.overrides.say(cluster, target, said, reason, engine::wall_clock());
            let now = self.override_of(cluster, &configured, address);
            let state = now.map_or(Admission::Ready, |now| now.admission).label();
            let name = address.map_or_else(|| configured.to_string(), |it| it.to_string());
            self.tell_health(&format!("{cluster} {name}"), state, reason);
        }
        self.send_endpoints(cluster);
        self.publish_health();
    }

    /// As they are now, to every core.
    pub(super) fn send_endpoints(&self, cluster: &str) {
        let current = self.current.borrow();
        for (known, &key) in current.plan.clusters.iter().zip(&current.cluster_keys) {
            if known.name == cluster {
                let endpoints = |core| self.endpoints(key, known, core);
                self.to_each_shard(|core| ToShard::Endpoints(key, endpoints(core)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: SystemTime = SystemTime::UNIX_EPOCH;

    fn name() -> Address {
        Address::Name("app".to_owned(), 80)
    }

    fn one(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    #[test]
    fn an_address_goes_before_its_name_but_for_the_more_careful_state() {
        let overrides = Overrides::default();
        overrides.say("c", Target::Written(name()), &Said::Weight(Some(5)), "a", AT);
        let of_one = Target::Of(name(), one(1));
        overrides.say("c", of_one.clone(), &Said::Admission(Admission::Drained), "b", AT);
        let first = overrides.of("c", &name(), Some(one(1))).unwrap();
        assert_eq!((first.admission, first.weight), (Admission::Drained, Some(5)));
        let second = overrides.of("c", &name(), Some(one(2))).unwrap();
        assert_eq!((second.admission, second.weight), (Admission::Ready, Some(5)));
        let maintenance = Said::Admission(Admission::Maintenance);
        overrides.say("c", Target::Written(name()), &maintenance, "d", AT);
        overrides.say("c", of_one, &Said::Weight(Some(2)), "e", AT);
        let first = overrides.of("c", &name(), Some(one(1))).unwrap();
        assert_eq!((first.admission, first.weight), (Admission::Maintenance, Some(2)));
        assert_eq!(first.reason, "d");
        assert_eq!(overrides.of("other", &name(), None), None);
    }

    #[test]
    fn an_address_that_its_name_left_is_forgotten_after_a_while_and_not_before() {
        let overrides = Overrides::default();
        let drained = Said::Admission(Admission::Drained);
        for last in [1, 2] {
            overrides.say("c", Target::Of(name(), one(last)), &drained, "", AT);
        }
        overrides.say("c", Target::Written(name()), &Said::Weight(Some(1)), "", AT);
        let start = engine::precise_now();
        let at = |share: f64| start + limits::OVERRIDE_GONE_MAX.mul_f64(share);
        let both = |_: &Address| vec![one(1), one(2)];
        let second = |_: &Address| vec![one(2)];
        overrides.tend(both, at(0.0));
        assert_eq!(overrides.absent("c", &name()), []);
        overrides.tend(second, at(1.0));
        assert_eq!(overrides.absent("c", &name()), [one(1)], "it can be seen, and cleared");
        assert_eq!(overrides.absent("other", &name()), []);
        overrides.tend(both, at(1.5));
        overrides.tend(second, at(1.9));
        overrides.tend(second, at(2.8));
        let said = |last| overrides.of("c", &name(), Some(one(last))).unwrap().admission;
        assert_eq!(said(1), Admission::Drained, "it was back meanwhile");
        overrides.tend(both, at(2.9));
        assert_eq!((said(1), said(2)), (Admission::Ready, Admission::Drained), "another's now");
    }

    #[test]
    fn what_is_as_configured_again_is_forgotten() {
        let overrides = Overrides::default();
        let target = Target::Written(name());
        overrides.say("c", target.clone(), &Said::Admission(Admission::Drained), "", AT);
        overrides.say("c", target.clone(), &Said::Weight(Some(0)), "", AT);
        overrides.say("c", target.clone(), &Said::Admission(Admission::Ready), "", AT);
        assert_eq!(overrides.of("c", &name(), None).unwrap().weight, Some(0));
        overrides.say("c", target, &Said::Weight(None), "", AT);
        assert!(overrides.0.borrow().is_empty());
    }
}
