//! Where endpoints are, on the control core: which names are to be resolved when, and what became
//! of it. `Names` asks nobody itself: the control core runs what is due on the blocking pool with
//! `dns::Resolver`, gives the result back, and sends a `Change` to the data cores.

pub mod dns;
pub mod dns_message;
pub mod resolv_conf;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use self::dns::{Answer, ResolveError};
use crate::limits::{DNS_BACKOFF_MAX, DNS_BACKOFF_MIN};

/// An endpoint that was configured by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedAddress {
    pub name: String,
    pub port: u16,
}

/// Every name that the plan has, the last good answer of each, and when it is asked again.
#[derive(Debug, Default)]
pub struct Names {
    entries: BTreeMap<NamedAddress, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// The last good answer, in order; empty for a name that never resolved.
    addresses: Vec<SocketAddr>,
    turn: Turn,
    /// What the next failure waits for.
    backoff: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    At(Instant),
    /// Being asked; `answer` ends it.
    Asked,
}

/// What an answer changed for the data cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Same,
    /// All addresses, in order, each once; never empty.
    New(Vec<SocketAddr>),
}

impl Names {
    /// The names of a new plan. Those that were there keep what is known of them, so that a reload
    /// asks nothing again; the others are due at once.
    pub fn watch(&mut self, wanted: impl IntoIterator<Item = NamedAddress>, now: Instant) {
        let wanted: BTreeSet<NamedAddress> = wanted.into_iter().collect();
        self.entries.retain(|address, _| wanted.contains(address));
        for address in wanted {
            self.entries.entry(address).or_insert(Entry {
                addresses: Vec::new(),
                turn: Turn::At(now),
                backoff: DNS_BACKOFF_MIN,
            });
        }
    }

    /// What is to be resolved now. Each is given out once, and not again before its `answer`.
    pub fn due(&mut self, now: Instant) -> Vec<NamedAddress> {
        let mut due = Vec::new();
        for (address, entry) in &mut self.entries {
            if matches!(entry.turn, Turn::At(at) if at <= now) {
                entry.turn = Turn::Asked;
                due.push(address.clone());
            }
        }
        due
    }

    /// When `due` has something again, if nothing is answered until then.
    pub fn next_due(&self) -> Option<Instant> {
        let turns = self.entries.values().filter_map(|entry| match entry.turn {
            Turn::At(at) => Some(at),
            Turn::Asked => None,
        });
        turns.min()
    }

    /// What became of a name that was due. After a failure the last good addresses stay, even when
    /// the servers say that the name is gone: often it is back at the next try, and a wrong address
    /// fails no worse than none. The order of an answer means nothing: servers rotate it.
    pub fn answer(
        &mut self,
        address: &NamedAddress,
        result: Result<Answer, ResolveError>,
        now: Instant,
    ) -> Change {
        // A name that a reload removed meanwhile.
        let Some(entry) = self.entries.get_mut(address) else {
            return Change::Same;
        };
        match result {
            Ok(answer) => {
                entry.turn = Turn::At(now + answer.ttl);
                entry.backoff = DNS_BACKOFF_MIN;
                let found: BTreeSet<SocketAddr> = answer
                    .addresses
                    .into_iter()
                    .map(|ip| SocketAddr::new(ip, address.port))
                    .collect();
                entry.take(found.into_iter().collect())
            }
            Err(error) => {
                let wait = entry.backoff.max(error.ttl().unwrap_or_default());
                entry.turn = Turn::At(now + wait);
                entry.backoff = (entry.backoff * 2).min(DNS_BACKOFF_MAX);
                Change::Same
            }
        }
    }

    /// The last good addresses; empty when there never were any.
    pub fn addresses(&self, address: &NamedAddress) -> &[SocketAddr] {
        self.entries.get(address).map_or(&[], |entry| entry.addresses.as_slice())
    }

    /// The names that never resolved.
    pub fn unresolved(&self) -> impl Iterator<Item = &NamedAddress> {
        let empty = self.entries.iter().filter(|(_, entry)| entry.addresses.is_empty());
        empty.map(|(address, _)| address)
    }
}

impl Entry {
    fn take(&mut self, found: Vec<SocketAddr>) -> Change {
        if found.is_empty() || found == self.addresses {
            return Change::Same;
        }
        self.addresses.clone_from(&found);
        Change::New(found)
    }
}

#[cfg(test)]
mod tests {
    use super::dns::Failure;
    use super::*;

    fn named(name: &str, port: u16) -> NamedAddress {
        NamedAddress { name: name.into(), port }
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn good(ips: &[[u8; 4]], ttl: u64) -> Result<Answer, ResolveError> {
        let addresses = ips.iter().map(|ip| (*ip).into()).collect();
        Ok(Answer { addresses, ttl: seconds(ttl) })
    }

    fn failed() -> Result<Answer, ResolveError> {
        let server = SocketAddr::from(([127, 0, 0, 1], 53));
        Err(ResolveError::Failed { name: "a.test".into(), server, why: Failure::Timeout })
    }

    fn absent(ttl: u64) -> Result<Answer, ResolveError> {
        Err(ResolveError::NoSuchName { name: "a.test".into(), ttl: seconds(ttl) })
    }

    fn socket(ip: [u8; 4], port: u16) -> SocketAddr {
        SocketAddr::from((ip, port))
    }

    const ONE: [u8; 4] = [10, 0, 0, 1];
    const TWO: [u8; 4] = [10, 0, 0, 2];

    /// A table that watches one name, which is being asked.
    fn asked_once() -> (Names, NamedAddress, Instant) {
        let (mut names, name, now) = (Names::default(), named("a.test", 80), Instant::now());
        names.watch([name.clone()], now);
        assert_eq!(names.due(now), std::slice::from_ref(&name));
        (names, name, now)
    }

    #[test]
    fn a_new_name_is_due_at_once_and_given_out_only_once() {
        let (mut names, name, now) = asked_once();
        assert_eq!(names.due(now + seconds(999)), []);
        assert_eq!(names.next_due(), None);
        assert_eq!(names.unresolved().collect::<Vec<_>>(), [&name]);
        assert!(names.addresses(&name).is_empty());
    }

    #[test]
    fn an_answer_is_good_for_its_ttl() {
        let (mut names, name, now) = asked_once();
        let change = names.answer(&name, good(&[TWO, ONE], 30), now);
        assert_eq!(change, Change::New(vec![socket(ONE, 80), socket(TWO, 80)]));
        assert_eq!(names.addresses(&name), [socket(ONE, 80), socket(TWO, 80)]);
        assert_eq!(names.unresolved().count(), 0);
        assert_eq!(names.next_due(), Some(now + seconds(30)));
        assert_eq!(names.due(now + seconds(29)), []);
        assert_eq!(names.due(now + seconds(30)), [name]);
    }

    #[test]
    fn the_order_of_an_answer_is_no_change_but_another_set_is() {
        let (mut names, name, now) = asked_once();
        names.answer(&name, good(&[ONE, TWO], 30), now);
        assert_eq!(names.answer(&name, good(&[TWO, ONE, TWO], 30), now), Change::Same);
        let change = names.answer(&name, good(&[TWO], 30), now);
        assert_eq!(change, Change::New(vec![socket(TWO, 80)]));
    }

    #[test]
    fn the_last_good_addresses_are_kept_when_a_refresh_fails() {
        let (mut names, name, now) = asked_once();
        names.answer(&name, good(&[ONE], 30), now);
        for result in [failed(), absent(5), good(&[], 30)] {
            assert_eq!(names.answer(&name, result, now), Change::Same);
            assert_eq!(names.addresses(&name), [socket(ONE, 80)]);
        }
        assert_eq!(names.unresolved().count(), 0);
    }

    #[test]
    fn failures_wait_twice_as_long_each_time_up_to_the_limit_and_success_starts_anew() {
        let (mut names, name, mut now) = asked_once();
        for wait in [1, 2, 4, 8, 16, 30, 30] {
            names.answer(&name, failed(), now);
            assert_eq!(names.next_due(), Some(now + seconds(wait)));
            now += seconds(wait);
            assert_eq!(names.due(now).len(), 1);
        }
        names.answer(&name, good(&[ONE], 60), now);
        names.answer(&name, failed(), now);
        assert_eq!(names.next_due(), Some(now + seconds(1)));
    }

    #[test]
    fn a_negative_ttl_is_waited_for_when_it_is_longer_than_the_backoff() {
        let (mut names, name, now) = asked_once();
        names.answer(&name, absent(5), now);
        assert_eq!(names.next_due(), Some(now + seconds(5)));
        for _ in 0..4 {
            names.answer(&name, absent(5), now);
        }
        assert_eq!(names.next_due(), Some(now + seconds(16)));
    }

    #[test]
    fn a_reload_keeps_what_is_known_and_forgets_what_is_no_longer_wanted() {
        let (mut names, name, now) = asked_once();
        names.answer(&name, good(&[ONE], 30), now);
        let other_port = named("a.test", 81);
        names.watch([name.clone(), other_port.clone(), name.clone()], now + seconds(1));
        assert_eq!(names.addresses(&name), [socket(ONE, 80)]);
        assert_eq!(names.due(now + seconds(1)), std::slice::from_ref(&other_port));
        names.watch([name.clone()], now + seconds(2));
        assert_eq!(names.answer(&other_port, good(&[ONE], 30), now), Change::Same);
        assert!(names.addresses(&other_port).is_empty());
    }

    #[test]
    fn one_name_that_fails_does_not_hold_up_the_others() {
        let now = Instant::now();
        let (bad, fine) = (named("bad.test", 80), named("fine.test", 80));
        let mut names = Names::default();
        names.watch([bad.clone(), fine.clone()], now);
        assert_eq!(names.due(now).len(), 2);
        names.answer(&bad, failed(), now);
        assert_ne!(names.answer(&fine, good(&[ONE], 30), now), Change::Same);
        assert_eq!(names.unresolved().collect::<Vec<_>>(), [&bad]);
        assert_eq!(names.due(now + seconds(1)), [bad]);
    }
}
