//! Networks that may not connect, each until some time or for good. The control core keeps the
//! [`Blacklist`]; the data cores look addresses up in a read-only [`Blocked`] made from it, which
//! the control core replaces whenever an entry comes, goes or expires.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::engine::Shared;
use crate::limits;
use crate::plan::Network;

/// One network, and why it is blocked. Serialised: a line of the file that survives a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    #[serde(rename = "ip", with = "as_text")]
    pub(crate) network: Network,
    pub(crate) reason: String,
    /// Who asked for it.
    pub(crate) by: String,
    /// Seconds since 1970.
    pub(crate) since: u64,
    /// Seconds since 1970; `None`: until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<u64>,
    /// Connections and requests that were turned away because of it.
    #[serde(default)]
    pub(crate) hits: u64,
}

impl Entry {
    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        let (first, bits) = key(self.network);
        mapped(address) & mask(bits) == first
    }
}

/// All entries, by network.
#[derive(Debug, Default)]
pub(crate) struct Blacklist {
    entries: BTreeMap<Key, Entry>,
    /// When entries run out, and how many do then: nobody looks through all of them for it.
    ends: BTreeMap<u64, usize>,
}

/// The first address of the network, IPv4 mapped into IPv6, and its length there: in this order a
/// network stands directly before those within it.
type Key = (u128, u8);

/// There is no room for another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Blacklist {
    /// Adds an entry, or takes the place of the one for the same network; its hits go on.
    /// Gives the entry as it is now, and whether there was one before.
    pub(crate) fn add(&mut self, mut entry: Entry) -> Result<(Entry, bool), Full> {
        let key = key(entry.network);
        match self.entries.get(&key) {
            Some(old) => entry.hits += old.hits,
            None if self.entries.len() >= limits::BLACKLIST_ENTRIES_MAX => return Err(Full),
            None => {}
        }
        if let Some(until) = entry.until {
            *self.ends.entry(until).or_default() += 1;
        }
        let before = self.entries.insert(key, entry.clone());
        before.iter().for_each(|before| self.ends_no_more(before));
        Ok((entry, before.is_some()))
    }

    /// An entry as it is, its hits included, in the place of the one for the same network.
    pub(crate) fn put(&mut self, entry: Entry) -> Result<(), Full> {
        self.remove(entry.network);
        self.add(entry).map(|_| ())
    }

    /// True: nothing was listed for its network, and now it is.
    pub(crate) fn add_new(&mut self, entry: Entry) -> bool {
        !self.entries.contains_key(&key(entry.network)) && self.add(entry).is_ok()
    }

    /// The entry that this address is turned away for.
    pub(crate) fn narrowest(&self, address: IpAddr) -> Option<&Entry> {
        let place = mapped(address);
        let keys = (0..=128_u8).rev().map(|bits| (place & mask(bits), bits));
        let mut entries = keys.filter_map(|key| self.entries.get(&key));
        entries.next().filter(|entry| entry.network.contains(address))
    }

    /// The entry of exactly this network.
    pub(crate) fn remove(&mut self, network: Network) -> Option<Entry> {
        let entry = self.entries.remove(&key(network))?;
        self.ends_no_more(&entry);
        Some(entry)
    }

    fn ends_no_more(&mut self, entry: &Entry) {
        let Some(until) = entry.until else { return };
        if let Some(count) = self.ends.get_mut(&until) {
            *count -= 1;
            if *count == 0 {
                self.ends.remove(&until);
            }
        }
    }

    pub(crate) fn clear(&mut self) -> usize {
        let count = self.entries.len();
        self.entries.clear();
        self.ends.clear();
        count
    }

    /// Takes out what has run out by `now`.
    pub(crate) fn expire(&mut self, now: SystemTime) -> Vec<Entry> {
        let now = seconds(now);
        let over = |entry: &&Entry| entry.until.is_some_and(|until| until <= now);
        let gone: Vec<Entry> = self.entries.values().filter(over).cloned().collect();
        gone.iter().for_each(|entry| drop(self.remove(entry.network)));
        // A time that stayed behind would be due for ever, and whoever waits for it never rests.
        self.ends = self.ends.split_off(&now.saturating_add(1));
        gone
    }

    /// When the next entry runs out.
    pub(crate) fn next_expiry(&self) -> Option<SystemTime> {
        let (next, _) = self.ends.first_key_value()?;
        UNIX_EPOCH.checked_add(Duration::from_secs(*next))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Counts hits that a core reports for a network; `None`: it is no longer listed.
    pub(crate) fn note_hits(&mut self, network: Network, hits: u64) -> Option<&Entry> {
        let entry = self.entries.get_mut(&key(network))?;
        entry.hits += hits;
        Some(entry)
    }

    /// For the data cores.
    pub(crate) fn blocked(&self) -> Blocked {
        let mut builder = Builder::default();
        for (index, (&(first, bits), entry)) in self.entries.iter().enumerate() {
            builder.networks.push(entry.network);
            builder.open(first, last_of(first, bits), index as u32);
        }
        builder.close_all();
        Blocked { ranges: builder.ranges, networks: builder.networks }
    }
}

/// Which addresses are blocked: disjoint ranges in order, each of the narrowest entry that covers
/// it.
#[derive(Debug, Default)]
pub struct Blocked {
    ranges: Vec<Range>,
    /// By entry.
    networks: Vec<Network>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u128,
    last: u128,
    entry: u32,
}

impl Blocked {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The entry that blocks an address.
    pub(crate) fn entry_of(&self, address: IpAddr) -> Option<u32> {
        let place = mapped(address);
        let after = self.ranges.partition_point(|range| range.first <= place);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        // IPv4 has a place among IPv6, but a network of IPv6 around it does not mean it.
        let meant = self.network(range.entry).contains(address);
        (place <= range.last && meant).then_some(range.entry)
    }

    pub(crate) fn network(&self, entry: u32) -> Network {
        self.networks[entry as usize]
    }
}

/// What a core has of it, and how often it has turned somebody away since it last said so.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// `None` while nobody is blocked.
    blocked: RefCell<Option<Shared<Blocked>>>,
    hits: RefCell<BTreeMap<u32, u64>>,
}

impl Guard {
    /// After `take_hits`, which are of the one before.
    pub(crate) fn install(&self, blocked: Shared<Blocked>) {
        *self.blocked.borrow_mut() = (!blocked.is_empty()).then_some(blocked);
    }

    pub(crate) fn turns_away(&self, address: IpAddr) -> bool {
        let blocked = self.blocked.borrow();
        let Some(entry) = blocked.as_ref().and_then(|blocked| blocked.entry_of(address)) else {
            return false;
        };
        *self.hits.borrow_mut().entry(entry).or_default() += 1;
        true
    }

    pub(crate) fn take_hits(&self) -> Vec<(Network, u64)> {
        let Some(blocked) = &*self.blocked.borrow() else { return Vec::new() };
        let hits = self.hits.take();
        hits.into_iter().map(|(entry, count)| (blocked.network(entry), count)).collect()
    }
}

/// Flattens networks, which lie beside or within one another, into disjoint ranges.
#[derive(Default)]
struct Builder {
    ranges: Vec<Range>,
    networks: Vec<Network>,
    /// Networks that the current place is within, the narrowest last: last address and entry.
    within: Vec<(u128, u32)>,
    /// The first address that no range covers yet.
    next: u128,
}

impl Builder {
    fn open(&mut self, first: u128, last: u128, entry: u32) {
        while let Some(&(end, _)) = self.within.last()
            && end < first
        {
            self.close_narrowest();
        }
        if let Some(&(_, outer)) = self.within.last()
            && self.next < first
        {
            self.ranges.push(Range { first: self.next, last: first - 1, entry: outer });
        }
        self.next = first;
        self.within.push((last, entry));
    }

    fn close_narrowest(&mut self) {
        let Some((last, entry)) = self.within.pop() else { return };
        if self.next <= last {
            self.ranges.push(Range { first: self.next, last, entry });
            // Beyond the last address of all there is nothing left to cover.
            self.next = last.saturating_add(1);
        }
        if last == u128::MAX {
            self.within.clear();
        }
    }

    fn close_all(&mut self) {
        while !self.within.is_empty() {
            self.close_narrowest();
        }
    }
}

fn key(network: Network) -> Key {
    let bits = if network.address.is_ipv4() { network.bits + 96 } else { network.bits };
    let first = mapped(network.address) & mask(bits);
    (first, bits)
}

fn mapped(address: IpAddr) -> u128 {
    let address: Ipv6Addr = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    address.to_bits()
}

fn last_of(first: u128, bits: u8) -> u128 {
    first | !mask(bits)
}

/// The leading `bits` of an address.
fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

pub(crate) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

mod as_text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::plan::Network;

    pub(super) fn serialize<S: Serializer>(network: &Network, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(network)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Network, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(network: &str) -> Entry {
        Entry {
            network: network.parse().unwrap(),
            reason: "abuse".to_owned(),
            by: "test".to_owned(),
            since: 0,
            until: None,
            hits: 0,
        }
    }

    fn list(networks: &[&str]) -> Blacklist {
        let mut list = Blacklist::default();
        networks.iter().for_each(|network| drop(list.add(entry(network)).unwrap()));
        list
    }

    fn blocks(blocked: &Blocked, address: &str) -> Option<String> {
        let entry = blocked.entry_of(address.parse().unwrap())?;
        Some(blocked.network(entry).to_string())
    }

    #[test]
    fn an_address_is_blocked_by_the_narrowest_network_that_holds_it() {
        let blocked =
            list(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "10.255.255.255", "2001:db8::/32"])
                .blocked();
        let by = |address| blocks(&blocked, address);
        assert_eq!(by("10.0.0.0").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(by("10.1.2.2").as_deref(), Some("10.1.0.0/16"));
        assert_eq!(by("10.1.2.3").as_deref(), Some("10.1.2.3/32"));
        assert_eq!(by("10.1.2.4").as_deref(), Some("10.1.0.0/16"));
        assert_eq!(by("10.2.0.0").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(by("10.255.255.255").as_deref(), Some("10.255.255.255/32"));
        assert_eq!(by("11.0.0.0"), None);
        assert_eq!(by("9.255.255.255"), None);
        assert_eq!(by("2001:db8:ffff::1").as_deref(), Some("2001:db8::/32"));
        assert_eq!(by("2001:db9::"), None);
        assert_eq!(by("::ffff:10.1.2.3").as_deref(), Some("10.1.2.3/32"), "mapped");
    }

    #[test]
    fn an_operator_is_told_of_the_entry_that_the_cores_go_by() {
        let list = list(&["::/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "fd00::/8", "fd00::1"]);
        let blocked = list.blocked();
        for address in ["10.1.2.3", "10.1.2.4", "10.2.0.0", "11.0.0.0", "fd00::1", "fd01::", "::"] {
            let told = list.narrowest(address.parse().unwrap());
            let told = told.map(|entry| entry.network.to_string());
            assert_eq!(told.is_some(), address != "11.0.0.0", "{address}");
            assert_eq!(told, blocks(&blocked, address), "{address}");
        }
        let list = super::tests::list(&["10.1.0.0/16"]);
        assert!(list.narrowest("10.2.0.0".parse().unwrap()).is_none());
    }

    #[test]
    fn everything_can_be_blocked_and_its_edges_are() {
        let blocked = list(&["::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]).blocked();
        let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(blocks(&blocked, last), Some(format!("{last}/128")));
        assert_eq!(blocks(&blocked, "::").as_deref(), Some("::/0"));
        assert_eq!(blocks(&blocked, "10.0.0.1"), None, "that is all of IPv6, and no IPv4");
        let blocked = list(&["0.0.0.0/0"]).blocked();
        assert_eq!(blocks(&blocked, "255.255.255.255").as_deref(), Some("0.0.0.0/0"));
        assert_eq!(blocks(&blocked, "::1"), None);
        assert!(list(&[]).blocked().is_empty());
    }

    #[test]
    fn ranges_agree_with_looking_at_every_network() {
        let mut networks = Vec::new();
        let mut state = 1_u64;
        let mut random = |most: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % most
        };
        for _ in 0..300 {
            let bits = 24 + random(9);
            let low = random(256) & (0xFF << (32 - bits));
            networks.push(format!("10.0.{}.{low}/{bits}", random(2)));
        }
        let names: Vec<&str> = networks.iter().map(String::as_str).collect();
        let list = list(&names);
        let blocked = list.blocked();
        for low in 0..3 * 256_u32 {
            let address = IpAddr::from((0x0A00_0000 + low).to_be_bytes());
            let expected = list
                .iter()
                .filter(|entry| entry.network.contains(address))
                .max_by_key(|entry| entry.network.bits);
            let found = blocked.entry_of(address).map(|entry| key(blocked.network(entry)));
            assert_eq!(found, expected.map(|entry| key(entry.network)), "{address}");
        }
    }

    #[test]
    fn an_entry_runs_out_at_its_time_and_not_before() {
        let mut list = list(&["10.0.0.1"]);
        list.add(Entry { until: Some(100), ..entry("10.0.0.2") }).unwrap();
        list.add(Entry { until: Some(200), ..entry("10.0.0.3") }).unwrap();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(list.next_expiry(), Some(at(100)));
        assert!(list.expire(at(99)).is_empty());
        assert_eq!(list.expire(at(100)).len(), 1);
        assert_eq!(list.next_expiry(), Some(at(200)));
        list.expire(at(1000));
        assert_eq!((list.len(), list.next_expiry()), (1, None));
    }

    #[test]
    fn the_end_of_an_entry_that_another_one_replaces_is_not_waited_for() {
        let mut list = Blacklist::default();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        list.put(Entry { until: Some(100), ..entry("10.0.0.1") }).unwrap();
        list.put(Entry { until: Some(200), ..entry("10.0.0.1") }).unwrap();
        assert_eq!(list.next_expiry(), Some(at(200)));
        list.put(entry("10.0.0.1")).unwrap();
        assert_eq!((list.len(), list.next_expiry()), (1, None));
    }

    #[test]
    fn a_network_has_one_entry_however_it_is_written() {
        let mut list = list(&["10.0.0.0/24"]);
        list.note_hits("10.0.0.0/24".parse().unwrap(), 3);
        list.add(Entry { reason: "again".to_owned(), ..entry("::ffff:10.0.0.0/120") }).unwrap();
        let entries: Vec<_> = list.iter().map(|e| (e.reason.as_str(), e.hits)).collect();
        assert_eq!(entries, [("again", 3)]);
        assert!(list.remove("10.0.0.0/25".parse().unwrap()).is_none());
        assert!(list.remove("10.0.0.0/24".parse().unwrap()).is_some());
        assert!(list.blocked().is_empty());
    }
}
