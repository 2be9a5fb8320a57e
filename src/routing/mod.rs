//! Which route a request takes: by host, then by path. Compiled once on the control core, read by
//! every data core; it never allocates, and costs the same for ten routes and for ten thousand.
//!
//! Host: exact, else the longest wildcard (`*.example.com`: any depth below, not the bare name),
//! else the routes without hosts. The host that matched decides: when none of its routes has the
//! path, a less specific host is *not* tried (as in nginx and Envoy), so that a host's routes can
//! be read on their own and never leak into another's.
//! Path, normalised: exact, else the longest prefix (`/v1/*`: `/v1` and all below it), else the
//! routes without paths. Among equals the first in the file wins.

mod host;
mod path;

use std::collections::BTreeMap;

use self::host::{HostPattern, HostTable};
use self::path::{PathPattern, PathPatterns, PathTrees, TreeId};
use crate::limits::ROUTE_PATTERNS_MAX;
use crate::plan::RouteId;

pub use self::path::{BadPath, normalise};

/// The hosts' table and the paths' trees.
#[derive(Debug, Default)]
pub struct Router {
    hosts: HostTable,
    /// Of the routes without hosts.
    default_tree: Option<TreeId>,
    paths: PathTrees,
}

/// What a route matches, as configured. Empty lists match everything.
#[derive(Clone, Debug)]
pub struct Match {
    pub route: RouteId,
    pub hosts: Vec<String>,
    pub paths: Vec<String>,
}

/// A pattern that cannot be compiled: which route, which of its lists, which entry, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchError {
    pub route: RouteId,
    pub field: &'static str,
    pub index: usize,
    pub message: String,
}

impl Router {
    /// `matches` in file order. Every pattern that is wrong is in the error, not only the first.
    pub fn compile(matches: &[Match]) -> Result<Router, Vec<MatchError>> {
        let mut errors = Vec::new();
        let mut hosts: BTreeMap<HostPattern, PathPatterns> = BTreeMap::new();
        let mut pairs = 0;
        for rule in matches {
            let host_patterns = parse(rule, "hosts", &rule.hosts, HostPattern::parse, &mut errors);
            let path_patterns = parse(rule, "paths", &rule.paths, PathPattern::parse, &mut errors);
            pairs += rule.hosts.len().max(1).saturating_mul(rule.paths.len().max(1));
            if pairs > ROUTE_PATTERNS_MAX {
                errors.push(too_many(rule));
                break;
            }
            let any_host = rule.hosts.is_empty().then_some(HostPattern::Any);
            for pattern in host_patterns.into_iter().chain(any_host) {
                hosts.entry(pattern).or_default().add(rule.route, &path_patterns);
            }
        }
        if errors.is_empty() { Ok(Router::build(hosts)) } else { Err(errors) }
    }

    fn build(hosts: BTreeMap<HostPattern, PathPatterns>) -> Router {
        let mut router = Router::default();
        let mut named = Vec::new();
        for (pattern, patterns) in hosts {
            let tree = router.paths.grow(patterns);
            match pattern {
                HostPattern::Any => router.default_tree = Some(tree),
                HostPattern::Exact(name) => named.push((name, host::Scope::Exact, tree)),
                HostPattern::Below(name) => named.push((name, host::Scope::Below, tree)),
            }
        }
        router.hosts = HostTable::new(named);
        router
    }

    /// `host` as it came, port and case included; `path` without query, from [`normalise`].
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<RouteId> {
        self.candidates(host, path).first().copied()
    }

    /// Every route whose host and path patterns are the best that match, in file order. Conditions
    /// on methods and headers will choose among them; without conditions the first is the route.
    fn candidates(&self, host: &[u8], path: &[u8]) -> &[RouteId] {
        match self.hosts.find(host).or(self.default_tree) {
            Some(tree) => self.paths.find(tree, path),
            None => &[],
        }
    }
}

/// A host as a route may have it, exact or `*.` and a suffix, in lower case; or why it is none.
pub fn host(text: &str) -> Result<String, String> {
    match HostPattern::parse(text)? {
        HostPattern::Any => Err("`*` is no host: expected a name, or a wildcard as `*.a.b`".into()),
        HostPattern::Exact(name) => Ok(name),
        HostPattern::Below(name) => Ok(format!("*.{name}")),
    }
}

fn parse<T>(
    rule: &Match,
    field: &'static str,
    list: &[String],
    parse_one: fn(&str) -> Result<T, String>,
    errors: &mut Vec<MatchError>,
) -> Vec<T> {
    let mut patterns = Vec::with_capacity(list.len());
    for (index, text) in list.iter().enumerate() {
        match parse_one(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(message) => {
                errors.push(MatchError { route: rule.route, field, index, message });
            }
        }
    }
    patterns
}

fn too_many(rule: &Match) -> MatchError {
    let message = format!(
        "the routes have more than {ROUTE_PATTERNS_MAX} pairs of a host and a path; \
         use wildcards and prefixes instead of lists"
    );
    MatchError { route: rule.route, field: "paths", index: 0, message }
}

/// For the fuzzer: the first line is a host, the second a path, every other one a pattern.
pub fn fuzz(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let (host, raw) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut scratch = Vec::new();
    let Ok(path) = normalise(raw, &mut scratch) else {
        return;
    };
    assert!(path.starts_with(b"/"), "a normalised path is absolute");
    assert!(normalise(path, &mut Vec::new()) == Ok(path), "normalised twice is normalised once");
    let matches: Vec<Match> = lines
        .zip(0..)
        .map(|(line, index)| {
            let text = String::from_utf8_lossy(line).into_owned();
            let (hosts, paths) =
                if text.starts_with('/') { (vec![], vec![text]) } else { (vec![text], vec![]) };
            Match { route: RouteId(index), hosts, paths }
        })
        .collect();
    match Router::compile(&matches) {
        Ok(router) => {
            let found = router.find(host, path);
            assert!(found.is_none_or(|route| (route.0 as usize) < matches.len()));
        }
        Err(errors) => assert!(!errors.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(route: u32, hosts: &[&str], paths: &[&str]) -> Match {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Match { route: RouteId(route), hosts: owned(hosts), paths: owned(paths) }
    }

    fn router(rules: &[(&[&str], &[&str])]) -> Router {
        let matches: Vec<Match> =
            rules.iter().zip(0..).map(|((hosts, paths), id)| rule(id, hosts, paths)).collect();
        Router::compile(&matches).expect("test patterns compile")
    }

    fn find(router: &Router, host: &str, path: &str) -> Option<u32> {
        router.find(host.as_bytes(), path.as_bytes()).map(|route| route.0)
    }

    #[test]
    fn exact_host_beats_longest_wildcard_beats_shorter_beats_none() {
        let router = router(&[
            (&[], &[]),
            (&["*.example.com"], &[]),
            (&["*.eu.example.com"], &[]),
            (&["api.eu.example.com"], &[]),
        ]);
        assert_eq!(find(&router, "api.eu.example.com", "/"), Some(3));
        assert_eq!(find(&router, "www.eu.example.com", "/"), Some(2));
        assert_eq!(find(&router, "a.b.us.example.com", "/"), Some(1));
        assert_eq!(find(&router, "eu.example.com", "/"), Some(1));
        assert_eq!(find(&router, "example.com", "/"), Some(0));
        assert_eq!(find(&router, "badexample.com", "/"), Some(0));
        assert_eq!(find(&router, "", "/"), Some(0));
    }

    #[test]
    fn exact_path_beats_longest_prefix_beats_shorter_beats_none() {
        let router = router(&[
            (&[], &[]),
            (&[], &["/*"]),
            (&[], &["/v1/*"]),
            (&[], &["/v1/users/*"]),
            (&[], &["/v1/users"]),
        ]);
        assert_eq!(find(&router, "h", "/v1/users"), Some(4));
        assert_eq!(find(&router, "h", "/v1/users/"), Some(3));
        assert_eq!(find(&router, "h", "/v1/users/7"), Some(3));
        assert_eq!(find(&router, "h", "/v1/user"), Some(2));
        assert_eq!(find(&router, "h", "/v10"), Some(1));
        assert_eq!(find(&router, "h", "/"), Some(1));
    }

    #[test]
    fn a_prefix_matches_its_own_name_and_whole_segments_only() {
        let router = router(&[(&[], &["/v1/*"])]);
        assert_eq!(find(&router, "h", "/v1"), Some(0));
        assert_eq!(find(&router, "h", "/v1/"), Some(0));
        assert_eq!(find(&router, "h", "/v1//x"), Some(0));
        assert_eq!(find(&router, "h", "/v1x"), None);
        assert_eq!(find(&router, "h", "/v"), None);
    }

    #[test]
    fn a_host_that_matched_does_not_fall_through_to_a_wildcard_or_to_routes_without_hosts() {
        let router =
            router(&[(&["a.test"], &["/a/*"]), (&["*.test"], &["/wild/*"]), (&[], &["/any/*"])]);
        assert_eq!(find(&router, "a.test", "/a/x"), Some(0));
        assert_eq!(find(&router, "a.test", "/wild/x"), None);
        assert_eq!(find(&router, "a.test", "/any/x"), None);
        assert_eq!(find(&router, "b.test", "/any/x"), None);
        assert_eq!(find(&router, "other", "/any/x"), Some(2));
    }

    #[test]
    fn a_path_of_another_host_is_not_found() {
        let matches: Vec<Match> =
            (0..200).map(|i| rule(i, &[&format!("h{i}.test")], &[&format!("/p{i}/*")])).collect();
        let router = Router::compile(&matches).expect("test patterns compile");
        assert_eq!(find(&router, "h7.test", "/p7/128"), Some(7));
        assert_eq!(find(&router, "h0.test", "/p198/128"), None);
        assert_eq!(find(&router, "h200.test", "/p7/128"), None);
    }

    #[test]
    fn the_first_in_the_file_wins_among_equals() {
        let router = router(&[(&["a.test"], &["/x"]), (&["A.test", "b.test"], &["/x", "/y"])]);
        assert_eq!(find(&router, "a.test", "/x"), Some(0));
        assert_eq!(find(&router, "a.test", "/y"), Some(1));
        assert_eq!(find(&router, "b.test", "/x"), Some(1));
        assert_eq!(router.candidates(b"a.test", b"/x"), [RouteId(0), RouteId(1)]);
    }

    #[test]
    fn an_empty_router_finds_nothing() {
        assert_eq!(find(&Router::default(), "a.test", "/"), None);
        assert_eq!(find(&router(&[]), "", "/"), None);
    }

    #[test]
    fn every_wrong_pattern_is_reported_with_its_place() {
        let matches =
            [rule(4, &["ok.test", "a.*"], &["/ok", "v1"]), rule(5, &["~^grpc\\."], &["~^/v[0-9]"])];
        let errors = Router::compile(&matches).expect_err("all of these are wrong");
        let places: Vec<_> = errors.iter().map(|e| (e.route.0, e.field, e.index)).collect();
        assert_eq!(places, [(4, "hosts", 1), (4, "paths", 1), (5, "hosts", 0), (5, "paths", 0)]);
        assert!(errors[2].message.contains("not available yet"), "{}", errors[2].message);
        assert!(errors[3].message.contains("not available yet"), "{}", errors[3].message);
    }

    #[test]
    fn too_many_pairs_are_refused() {
        let hosts: Vec<String> = (0..1001).map(|i| format!("h{i}.test")).collect();
        let paths: Vec<String> = (0..1000).map(|i| format!("/p{i}")).collect();
        let matches = [Match { route: RouteId(0), hosts, paths }];
        let errors = Router::compile(&matches).expect_err("over the limit");
        assert!(errors[0].message.contains("1000000 pairs"), "{}", errors[0].message);
    }

    /// The rules of the module's header, one pattern after the other.
    fn naive(matches: &[Match], host: &str, path: &str) -> Option<u32> {
        fn host_rank(pattern: &str, host: &str) -> Option<usize> {
            match pattern.strip_prefix("*.") {
                Some(name) => host
                    .strip_suffix(name)
                    .filter(|head| head.len() > 1 && head.ends_with('.'))
                    .map(|_| name.len()),
                None => (pattern == host).then_some(1000),
            }
        }
        fn path_rank(pattern: &str, path: &str) -> Option<usize> {
            match pattern.strip_suffix("/*") {
                Some(name) => path
                    .strip_prefix(name)
                    .filter(|tail| tail.is_empty() || tail.starts_with('/'))
                    .map(|_| name.len() + 1),
                None => (pattern == path).then_some(1000),
            }
        }
        fn best(list: &[String], rank: impl Fn(&str) -> Option<usize>) -> Option<usize> {
            let any = list.is_empty().then_some(0);
            list.iter().filter_map(|pattern| rank(pattern)).chain(any).max()
        }
        // A route is in a host's set for every pattern of it that has the winning rank.
        let ranks = matches.iter().filter_map(|m| best(&m.hosts, |p| host_rank(p, host)));
        let winner = ranks.max()?;
        let mut found: Option<(usize, u32)> = None;
        for m in matches {
            if best(&m.hosts, |p| host_rank(p, host)) != Some(winner) {
                continue;
            }
            let Some(rank) = best(&m.paths, |p| path_rank(p, path)) else {
                continue;
            };
            if found.is_none_or(|(so_far, _)| rank > so_far) {
                found = Some((rank, m.route.0));
            }
        }
        found.map(|(_, route)| route)
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }

        /// Few letters and short names, so that patterns and requests meet.
        fn joined(&mut self, separator: &str, most: u64) -> String {
            let parts: Vec<&str> = (0..1 + self.below(most))
                .map(|_| ["a", "b", "ab", "ba", "aab"][self.below(5) as usize])
                .collect();
            parts.join(separator)
        }

        fn host(&mut self) -> String {
            self.joined(".", 4)
        }

        fn path(&mut self) -> String {
            let path = format!("/{}", self.joined("/", 4));
            if self.below(4) == 0 { path + "/" } else { path }
        }

        fn rules(&mut self) -> Vec<Match> {
            let count = 1 + self.below(30) as u32;
            (0..count)
                .map(|id| {
                    let hosts = (0..self.below(3)).map(|_| {
                        let name = self.host();
                        if self.below(2) == 0 { format!("*.{name}") } else { name }
                    });
                    let hosts = hosts.collect();
                    let paths = (0..self.below(4)).map(|_| match self.below(8) {
                        0 => "/*".to_owned(),
                        1..4 => format!("{}/*", self.path()),
                        _ => self.path(),
                    });
                    Match { route: RouteId(id), hosts, paths: paths.collect() }
                })
                .collect()
        }
    }

    #[test]
    fn random_tables_agree_with_a_linear_search() {
        let mut hits = 0;
        for seed in 1..=400 {
            let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ (seed << 20));
            let matches = random.rules();
            let router = Router::compile(&matches).expect("generated patterns compile");
            for _ in 0..100 {
                let (host, path) = (random.host(), random.path());
                let expected = naive(&matches, &host, &path);
                assert_eq!(
                    find(&router, &host, &path),
                    expected,
                    "seed {seed}: {host} {path} in {matches:#?}"
                );
                hits += usize::from(expected.is_some());
            }
        }
        assert!(hits > 10_000, "the generator must hit: {hits}");
    }

    #[test]
    fn the_fuzz_entry_survives_odd_input() {
        let inputs: [&[u8]; 6] = [
            b"",
            b"\n\n\n",
            b"a.test:80\n/%2e%2e\n*.test\n/*",
            b"a.test\n/a/./b%2fc\na.test\n/a/*",
            b"[::1\n/\xff\n[::1]\n/\xff",
            b"...:\n/.%2e/\n*.\n*",
        ];
        inputs.into_iter().for_each(fuzz);
    }
}
