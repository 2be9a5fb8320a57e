//! Host patterns, and the table that finds one. Names are compared as ASCII without case, without
//! port and without a trailing dot. An IPv6 host is compared as it is written, in its brackets.

use super::path::TreeId;

/// RFC 1035 section 3.1: 255 bytes on the wire are 253 in text. A longer host matches no pattern.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// One entry of a route's `hosts`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HostPattern {
    /// `*`, or no list at all.
    Any,
    Exact(String),
    /// `*.name`: every name below it, at any depth.
    Below(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Exact,
    Below,
}

impl HostPattern {
    pub(super) fn parse(text: &str) -> Result<HostPattern, String> {
        if text.starts_with('~') {
            return Err(format!(
                "`{text}`: regular expressions are not available yet; \
                 list the names, or use a wildcard as `*.example.com`"
            ));
        }
        if text == "*" {
            return Ok(HostPattern::Any);
        }
        let (name, pattern): (&str, fn(String) -> HostPattern) = match text.strip_prefix("*.") {
            Some(name) => (name, HostPattern::Below),
            None => (text, HostPattern::Exact),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        match fault(name) {
            None => Ok(pattern(name.to_ascii_lowercase())),
            Some(why) => Err(format!("`{text}` is not a host: {why}")),
        }
    }
}

fn fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("it is empty; expected a name as `api.example.com` or `*.example.com`");
    }
    if name.len() > NAME_BYTES_MAX {
        return Some("it is longer than 253 bytes");
    }
    if let Some(rest) = name.strip_prefix('[') {
        let address = rest.strip_suffix(']').unwrap_or_default();
        let parsed = address.parse::<std::net::Ipv6Addr>();
        return parsed.err().map(|_| "expected an IPv6 address in brackets, without a port");
    }
    if name.contains('*') {
        return Some("a wildcard must be the whole first label, as `*.example.com`");
    }
    if name.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some("write an IPv6 address in brackets, as `[::1]`");
    }
    if name.contains(':') {
        return Some("hosts are compared without their port; remove it");
    }
    if name.contains('/') {
        return Some("expected only a name; paths belong into `paths`");
    }
    if !name.is_ascii() {
        return Some("write international names as clients send them, as `xn--bcher-kva.example`");
    }
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if name.split('.').all(is_label) {
        return None;
    }
    Some("expected letters, digits, `-` and `_` in labels of 1 to 63 bytes between dots")
}

/// Open addressing over the hash of a name, at most half full. A name that is both a host and the
/// end of a wildcard is one entry, so that one walk over the host tries every wildcard and itself.
#[derive(Debug, Default)]
pub(super) struct HostTable {
    /// A power of two, or empty.
    slots: Vec<Slot>,
    entries: Vec<Entry>,
    /// All names, one after the other.
    names: Vec<u8>,
    /// Without wildcards only whole names are looked up.
    has_wildcards: bool,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The low half of the hash: most other names are told apart without touching their entry.
    tag: u32,
    /// `EMPTY`, or an index into `entries`.
    entry: u32,
}

const EMPTY: u32 = u32::MAX;

#[derive(Debug)]
struct Entry {
    name_start: u32,
    name_end: u32,
    exact: Option<TreeId>,
    below: Option<TreeId>,
}

impl HostTable {
    /// Names in lower case, each at most once in each scope, equal names next to each other or not.
    pub(super) fn new(mut named: Vec<(String, Scope, TreeId)>) -> HostTable {
        named.sort_by(|a, b| a.0.cmp(&b.0));
        let mut table = HostTable::default();
        let mut previous: Option<String> = None;
        for (name, scope, tree) in named {
            if previous.as_ref() != Some(&name) {
                table.add_entry(&name);
            }
            let entry = table.entries.last_mut().expect("an entry was added for the first name");
            match scope {
                Scope::Exact => entry.exact = Some(tree),
                Scope::Below => entry.below = Some(tree),
            }
            table.has_wildcards |= scope == Scope::Below;
            previous = Some(name);
        }
        table.fill_slots();
        table
    }

    fn add_entry(&mut self, name: &str) {
        let name_start = self.names.len() as u32;
        self.names.extend_from_slice(name.as_bytes());
        let name_end = self.names.len() as u32;
        self.entries.push(Entry { name_start, name_end, exact: None, below: None });
    }

    fn fill_slots(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        let count = (self.entries.len() * 2).next_power_of_two();
        self.slots = vec![Slot { tag: 0, entry: EMPTY }; count];
        for (index, entry) in self.entries.iter().enumerate() {
            let hash = self.name(entry).iter().rev().fold(0, |hash, byte| mix(hash, *byte));
            let mut at = place(hash, count);
            while self.slots[at].entry != EMPTY {
                at = (at + 1) & (count - 1);
            }
            self.slots[at] = Slot { tag: hash as u32, entry: index as u32 };
        }
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        &self.names[entry.name_start as usize..entry.name_end as usize]
    }

    /// The most specific pattern for a host as it came. From right to left, so that the hash of
    /// every suffix falls out on the way.
    pub(super) fn find(&self, host: &[u8]) -> Option<TreeId> {
        let host = bare_name(host);
        if self.slots.is_empty() || host.len() > NAME_BYTES_MAX {
            return None;
        }
        let mut longest = None;
        let mut hash = 0;
        for (at, byte) in host.iter().enumerate().rev() {
            if *byte == b'.' && self.has_wildcards && at > 0 {
                let entry = self.look_up(hash, &host[at + 1..]);
                longest = entry.and_then(|entry| entry.below).or(longest);
            }
            hash = mix(hash, byte.to_ascii_lowercase());
        }
        self.look_up(hash, host).and_then(|entry| entry.exact).or(longest)
    }

    fn look_up(&self, hash: u64, name: &[u8]) -> Option<&Entry> {
        let mut at = place(hash, self.slots.len());
        loop {
            let slot = self.slots[at];
            if slot.entry == EMPTY {
                return None;
            }
            let entry = &self.entries[slot.entry as usize];
            if slot.tag == hash as u32 && self.name(entry).eq_ignore_ascii_case(name) {
                return Some(entry);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

/// Without port and without the dot of a fully qualified name.
fn bare_name(host: &[u8]) -> &[u8] {
    if host.starts_with(b"[") {
        // RFC 3986 section 3.2.2: the colons of an IPv6 address are inside the brackets.
        let end = host.iter().position(|byte| *byte == b']');
        return end.map_or(host, |end| &host[..=end]);
    }
    let end = host.iter().position(|byte| *byte == b':').unwrap_or(host.len());
    let name = &host[..end];
    name.strip_suffix(b".").unwrap_or(name)
}

/// One step of FxHash. The names in the table are the operator's, so nobody can fill it with
/// collisions; a chosen host costs at most the longest run of full slots.
fn mix(hash: u64, byte: u8) -> u64 {
    (hash.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// The high bits are the well mixed ones. `count` is a power of two, at least 2.
fn place(hash: u64, count: usize) -> usize {
    (hash >> (64 - count.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(patterns: &[&str]) -> HostTable {
        let named = patterns.iter().zip(0..).map(|(text, id)| {
            match HostPattern::parse(text).expect("test patterns parse") {
                HostPattern::Any => panic!("not kept in the table"),
                HostPattern::Exact(name) => (name, Scope::Exact, TreeId(id)),
                HostPattern::Below(name) => (name, Scope::Below, TreeId(id)),
            }
        });
        HostTable::new(named.collect())
    }

    fn find(table: &HostTable, host: &str) -> Option<u32> {
        table.find(host.as_bytes()).map(|tree| tree.0)
    }

    #[test]
    fn case_port_and_trailing_dot_do_not_matter() {
        let table = table(&["API.Example.com", "[2001:DB8::1]", "10.0.0.1", "dotted.test."]);
        for host in
            ["api.example.com", "API.EXAMPLE.COM:8443", "api.example.com.", "Api.example.com.:80"]
        {
            assert_eq!(find(&table, host), Some(0), "{host}");
        }
        for host in ["[2001:db8::1]", "[2001:db8::1]:80", "[2001:DB8::1]:"] {
            assert_eq!(find(&table, host), Some(1), "{host}");
        }
        assert_eq!(find(&table, "10.0.0.1:80"), Some(2));
        assert_eq!(find(&table, "dotted.test"), Some(3));
        for host in ["", ":80", ".", "[", "[2001:db8::2]", "api.example.com..", "2001:db8::1"] {
            assert_eq!(find(&table, host), None, "{host}");
        }
    }

    #[test]
    fn a_wildcard_takes_every_depth_but_not_the_bare_name() {
        let table = table(&["*.example.com", "*.com"]);
        assert_eq!(find(&table, "a.example.com"), Some(0));
        assert_eq!(find(&table, "A.B.EXAMPLE.com:80"), Some(0));
        assert_eq!(find(&table, "example.com"), Some(1));
        assert_eq!(find(&table, ".example.com"), Some(1));
        assert_eq!(find(&table, "com"), None);
        assert_eq!(find(&table, ".com"), None);
    }

    #[test]
    fn one_name_may_be_a_host_and_the_end_of_a_wildcard() {
        let table = table(&["*.example.com", "example.com"]);
        assert_eq!(find(&table, "example.com"), Some(1));
        assert_eq!(find(&table, "a.example.com"), Some(0));
    }

    #[test]
    fn a_host_longer_than_dns_allows_matches_nothing() {
        let table = table(&["*.test"]);
        let long = format!("{}.test", "a".repeat(249));
        assert_eq!(find(&table, &long), None);
        assert_eq!(find(&table, &long[1..]), Some(0));
    }

    #[test]
    fn ten_thousand_similar_names_are_each_found_after_few_slots() {
        let names: Vec<String> = (0..10_000).map(|i| format!("h{i}.test")).collect();
        let table = table(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for (id, name) in names.iter().enumerate() {
            assert_eq!(find(&table, name), Some(id as u32));
        }
        let runs = table.slots.split(|slot| slot.entry == EMPTY);
        let longest = runs.map(<[Slot]>::len).max();
        assert!(longest < Some(64), "runs of full slots must stay short: {longest:?}");
    }

    #[test]
    fn wrong_hosts_are_refused_with_the_cure() {
        for (text, cure) in [
            ("", "expected a name"),
            ("*.", "expected a name"),
            ("~^a", "not available yet"),
            ("api.*", "whole first label"),
            ("*api.test", "whole first label"),
            ("*.*.test", "whole first label"),
            ("api.test:8080", "without their port"),
            ("::1", "in brackets"),
            ("[::1]:80", "without a port"),
            ("[nonsense]", "IPv6"),
            ("api.test/v1", "`paths`"),
            ("bücher.test", "xn--"),
            ("a..test", "labels"),
            ("a b.test", "labels"),
        ] {
            let message = HostPattern::parse(text).expect_err(text);
            assert!(message.contains(cure) && message.contains(text), "{message}");
        }
        assert!(HostPattern::parse(&format!("{}.test", "a".repeat(64))).is_err());
        assert!(HostPattern::parse(&"a.".repeat(127)).is_ok());
        assert!(HostPattern::parse(&"a.".repeat(128)).is_err());
    }
}
