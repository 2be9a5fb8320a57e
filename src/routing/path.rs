//! Paths: the normal form that routes are matched on, path patterns, and the tree that finds one.
//! The raw path is what is forwarded; the normal form only decides which route it is.

use std::collections::{BTreeMap, VecDeque};

use crate::limits::{PATH_PATTERN_BYTES_MAX, ROUTE_PATTERNS_MAX};
use crate::plan::RouteId;

// --- normal form ---------------------------------------------------------------------------

/// Why a path has no normal form: such a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPath {
    /// It does not begin with `/`.
    Relative,
    /// A `..` leads out of the root.
    AboveRoot,
    /// A `%` without two hexadecimal digits after it.
    BrokenEscape,
    /// A zero byte, plain or as `%00`.
    Nul,
}

impl BadPath {
    /// A label for logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            BadPath::Relative => "relative",
            BadPath::AboveRoot => "above_root",
            BadPath::BrokenEscape => "broken_escape",
            BadPath::Nul => "nul",
        }
    }
}

/// RFC 3986 section 6.2.2: escapes of unreserved characters are decoded and the others written in
/// upper case, then `.` and `..` segments are resolved (escaped ones too). `%2F` stays as it is and
/// separates nothing; an empty segment is kept, so `//a` is not `/a`. An empty path, which
/// `http://host` and `OPTIONS *` have, is `/` (section 6.2.3).
///
/// A path without `%` and dot segments, which is nearly every one, is given back as it is.
pub fn normalise<'a>(path: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<&'a [u8], BadPath> {
    match path.first() {
        None => return Ok(b"/"),
        Some(b'/') => {}
        Some(_) => return Err(BadPath::Relative),
    }
    if is_plain(path) {
        return Ok(path);
    }
    scratch.clear();
    decode(path, scratch)?;
    resolve_dots(scratch)?;
    Ok(scratch)
}

/// No early return, so that the compiler makes vector code of it.
fn is_plain(path: &[u8]) -> bool {
    let suspect = path.windows(2).fold(false, |found, pair| {
        let dot = (pair[0] == b'/') & (pair[1] == b'.');
        found | dot | (pair[1] == b'%') | (pair[1] == 0)
    });
    !suspect
}

fn decode(path: &[u8], out: &mut Vec<u8>) -> Result<(), BadPath> {
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            0 => return Err(BadPath::Nul),
            b'%' => {
                let (digits, after) = after.split_at_checked(2).ok_or(BadPath::BrokenEscape)?;
                rest = after;
                match hex(digits[0]).zip(hex(digits[1])).ok_or(BadPath::BrokenEscape)? {
                    (0, 0) => return Err(BadPath::Nul),
                    (high, low) if is_unreserved(high << 4 | low) => out.push(high << 4 | low),
                    _ => {
                        let upper = digits.iter().map(u8::to_ascii_uppercase);
                        out.extend(std::iter::once(b'%').chain(upper));
                    }
                }
            }
            other => out.push(other),
        }
    }
    Ok(())
}

/// RFC 3986 section 5.2.4, in place, but for a `..` above the root, which is refused there and
/// ignored in the RFC: what the application makes of it is not known.
fn resolve_dots(path: &mut Vec<u8>) -> Result<(), BadPath> {
    let (mut read, mut written) = (0, 0);
    while read < path.len() {
        let tail = &path[read + 1..];
        let end = tail.iter().position(|b| *b == b'/').map_or(path.len(), |at| read + 1 + at);
        let ends_the_path = end == path.len();
        match &path[read + 1..end] {
            b"." => {}
            b".." => {
                let parent = path[..written].iter().rposition(|b| *b == b'/');
                written = parent.ok_or(BadPath::AboveRoot)?;
            }
            _ => {
                path.copy_within(read..end, written);
                written += end - read;
                read = end;
                continue;
            }
        }
        // `/a/.` and `/a/b/..` are both `/a/`.
        if ends_the_path {
            path[written] = b'/';
            written += 1;
        }
        read = end;
    }
    path.truncate(written);
    Ok(())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

// --- patterns ------------------------------------------------------------------------------

/// One entry of a route's `paths`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathPattern {
    Exact(Vec<u8>),
    /// `/v1/*`, kept as `/v1`: it matches `/v1` and whatever begins with `/v1/`.
    Below(Vec<u8>),
}

impl PathPattern {
    pub(super) fn parse(text: &str) -> Result<PathPattern, String> {
        if text.starts_with('~') {
            return Err(format!(
                "`{text}`: regular expressions are not available yet; \
                 list the paths, or use a prefix as `/v1/*`"
            ));
        }
        if !text.starts_with('/') {
            return Err(format!("`{text}` is not a path: expected a `/` at its beginning"));
        }
        if text.len() > PATH_PATTERN_BYTES_MAX {
            return Err(format!("the path is longer than {PATH_PATTERN_BYTES_MAX} bytes"));
        }
        if text.contains(['?', '#']) {
            return Err(format!(
                "`{text}` is not a path: queries and fragments are not matched; remove them"
            ));
        }
        let (name, pattern): (&str, fn(Vec<u8>) -> PathPattern) = match text.strip_suffix("/*") {
            Some(name) => (name, PathPattern::Below),
            None => (text, PathPattern::Exact),
        };
        if name.contains('*') {
            return Err(format!(
                "`{text}` is not a path: a `*` may only be its whole last segment, as `/v1/*`"
            ));
        }
        must_be_normal(text, name)?;
        Ok(pattern(name.as_bytes().to_vec()))
    }
}

/// A pattern in any other form would never match, since requests are normalised first.
fn must_be_normal(text: &str, name: &str) -> Result<(), String> {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_graphic() {
            escaped.push(char::from(byte));
        } else {
            escaped += &format!("%{byte:02X}");
        }
    }
    let mut scratch = Vec::new();
    match normalise(escaped.as_bytes(), &mut scratch) {
        // Of the prefix `/*` nothing is left.
        Ok(_) if name.is_empty() => Ok(()),
        Ok(normal) if normal == name.as_bytes() => Ok(()),
        Ok(normal) => {
            let mut normal = String::from_utf8_lossy(normal).into_owned();
            if text.len() > name.len() {
                normal = normal.trim_end_matches('/').to_owned() + "/*";
            }
            Err(format!("`{text}` is never matched as it is written: write `{normal}`"))
        }
        Err(BadPath::AboveRoot) => Err(format!("`{text}` leads out of the root: remove the `..`")),
        Err(BadPath::BrokenEscape) => {
            Err(format!("`{text}`: expected two hexadecimal digits after `%`; write `%25` for it"))
        }
        Err(BadPath::Nul | BadPath::Relative) => {
            Err(format!("`{text}` contains a zero byte, which no request may: remove it"))
        }
    }
}

/// The patterns of one host, by their text.
#[derive(Debug, Default)]
pub(super) struct PathPatterns {
    any: Vec<RouteId>,
    ends: BTreeMap<Vec<u8>, Ends>,
}

#[derive(Debug, Default)]
struct Ends {
    exact: Vec<RouteId>,
    below: Vec<RouteId>,
}

impl PathPatterns {
    /// Called in file order, which the lists keep.
    pub(super) fn add(&mut self, route: RouteId, patterns: &[PathPattern]) {
        if patterns.is_empty() {
            push_once(&mut self.any, route);
        }
        for pattern in patterns {
            match pattern {
                PathPattern::Exact(text) => push_once(&mut self.ends_of(text).exact, route),
                PathPattern::Below(text) => push_once(&mut self.ends_of(text).below, route),
            }
        }
    }

    fn ends_of(&mut self, text: &[u8]) -> &mut Ends {
        self.ends.entry(text.to_vec()).or_default()
    }
}

fn push_once(routes: &mut Vec<RouteId>, route: RouteId) {
    if routes.last() != Some(&route) {
        routes.push(route);
    }
}

// --- trees ---------------------------------------------------------------------------------

/// The paths of one host: index into `PathTrees::trees`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TreeId(pub(super) u32);

/// Radix trees over the bytes of paths, all in the same vectors.
#[derive(Debug, Default)]
pub(super) struct PathTrees {
    trees: Vec<Tree>,
    nodes: Vec<Node>,
    /// The first byte of the label of the node with the same index: brothers lie side by side.
    first_bytes: Vec<u8>,
    labels: Vec<u8>,
    routes: Vec<RouteId>,
}

#[derive(Debug)]
struct Tree {
    root: u32,
    /// The routes without paths.
    any: Candidates,
}

#[derive(Debug, Default)]
struct Node {
    label_start: u32,
    label_end: u32,
    first_child: u32,
    children: u32,
    exact: Candidates,
    below: Candidates,
}

const _: () = assert!(size_of::<Node>() == 32);
// Labels are indexed with 32 bits, and are at most as long as all patterns together.
const _: () = assert!(ROUTE_PATTERNS_MAX * PATH_PATTERN_BYTES_MAX < u32::MAX as usize);

/// A range of `PathTrees::routes`, in file order.
#[derive(Clone, Copy, Debug, Default)]
struct Candidates {
    start: u32,
    end: u32,
}

impl Candidates {
    fn or(self, other: Candidates) -> Candidates {
        if self.start == self.end { other } else { self }
    }
}

impl PathTrees {
    pub(super) fn grow(&mut self, patterns: PathPatterns) -> TreeId {
        let any = self.keep(&patterns.any);
        let sorted: Vec<(Vec<u8>, Ends)> = patterns.ends.into_iter().collect();
        let root = self.add_node(b"");
        self.trees.push(Tree { root, any });
        // Breadth first: all children of a node are made at once, to lie side by side. Each entry
        // is a node, the patterns at and below it, and how many of their bytes lead to it.
        let mut open = VecDeque::from([(root, &sorted[..], 0)]);
        while let Some((node, mut patterns, depth)) = open.pop_front() {
            if let Some(((text, ends), others)) = patterns.split_first()
                && text.len() == depth
            {
                self.nodes[node as usize].exact = self.keep(&ends.exact);
                self.nodes[node as usize].below = self.keep(&ends.below);
                patterns = others;
            }
            self.nodes[node as usize].first_child = self.nodes.len() as u32;
            for group in patterns.chunk_by(|(a, _), (b, _)| a[depth] == b[depth]) {
                let (first, last) = (&group[0].0, &group[group.len() - 1].0);
                let common = first.iter().zip(last).take_while(|(a, b)| a == b).count();
                let child = self.add_node(&first[depth..common]);
                self.nodes[node as usize].children += 1;
                open.push_back((child, group, common));
            }
        }
        TreeId(self.trees.len() as u32 - 1)
    }

    fn add_node(&mut self, label: &[u8]) -> u32 {
        let label_start = self.labels.len() as u32;
        self.labels.extend_from_slice(label);
        let label_end = self.labels.len() as u32;
        self.nodes.push(Node { label_start, label_end, ..Node::default() });
        self.first_bytes.push(label.first().copied().unwrap_or_default());
        self.nodes.len() as u32 - 1
    }

    fn keep(&mut self, routes: &[RouteId]) -> Candidates {
        let start = self.routes.len() as u32;
        self.routes.extend_from_slice(routes);
        Candidates { start, end: self.routes.len() as u32 }
    }

    /// The routes of the best pattern for a normalised path, in file order.
    pub(super) fn find(&self, tree: TreeId, path: &[u8]) -> &[RouteId] {
        let tree = &self.trees[tree.0 as usize];
        let found = self.walk(tree, path);
        &self.routes[found.start as usize..found.end as usize]
    }

    fn walk(&self, tree: &Tree, path: &[u8]) -> Candidates {
        let mut best = tree.any;
        let mut node = &self.nodes[tree.root as usize];
        let mut rest = path;
        loop {
            let Some(next) = rest.first() else {
                return node.exact.or(node.below).or(best);
            };
            if *next == b'/' {
                best = node.below.or(best);
            }
            let Some(child) = self.child(node, *next) else {
                return best;
            };
            let label = &self.labels[child.label_start as usize..child.label_end as usize];
            let Some(after) = rest.strip_prefix(label) else {
                return best;
            };
            (node, rest) = (child, after);
        }
    }

    fn child(&self, node: &Node, next: u8) -> Option<&Node> {
        let start = node.first_child as usize;
        let first_bytes = &self.first_bytes[start..start + node.children as usize];
        let at = first_bytes.iter().position(|byte| *byte == next)?;
        Some(&self.nodes[start + at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(path: &str) -> Result<String, BadPath> {
        let mut scratch = Vec::new();
        let normal = normalise(path.as_bytes(), &mut scratch)?;
        Ok(String::from_utf8_lossy(normal).into_owned())
    }

    #[test]
    fn a_plain_path_is_given_back_without_touching_the_scratch() {
        let mut scratch = Vec::new();
        for path in ["/", "/a/b.c", "/a//b/", "/a.../b", "/a./b", "/~u/"] {
            assert_eq!(normalise(path.as_bytes(), &mut scratch), Ok(path.as_bytes()));
        }
        assert_eq!(scratch.capacity(), 0);
    }

    #[test]
    fn unreserved_escapes_are_decoded_and_others_upper_cased() {
        assert_eq!(normal("/%61%2D%2e%5f%7E"), Ok("/a-._~".into()));
        assert_eq!(normal("/a%2fb%2Fc"), Ok("/a%2Fb%2Fc".into()));
        assert_eq!(normal("/%c3%a9%20%25"), Ok("/%C3%A9%20%25".into()));
        assert_eq!(normal("/%2561"), Ok("/%2561".into()));
    }

    #[test]
    fn dot_segments_are_resolved_even_when_escaped() {
        for (path, expected) in [
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/../../c", "/c"),
            ("/public/%2e%2E/admin", "/admin"),
            ("/public/.%2e/admin", "/admin"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/.", "/"),
            ("/./", "/"),
            ("/.well-known/x", "/.well-known/x"),
            ("/.../..a", "/.../..a"),
            ("/a//../b", "/a/b"),
            ("//..", "/"),
            ("/a/..%2Fb", "/a/..%2Fb"),
        ] {
            assert_eq!(normal(path), Ok(expected.into()), "{path}");
        }
    }

    #[test]
    fn empty_segments_are_kept() {
        assert_eq!(normal("//admin"), Ok("//admin".into()));
        assert_eq!(normal("/a//./b"), Ok("/a//b".into()));
    }

    #[test]
    fn an_empty_path_is_the_root() {
        assert_eq!(normal(""), Ok("/".into()));
    }

    #[test]
    fn paths_without_a_normal_form_are_refused() {
        for path in ["/..", "/../a", "/a/../../b", "/%2e%2e", "/./.."] {
            assert_eq!(normal(path), Err(BadPath::AboveRoot), "{path}");
        }
        for path in ["/%", "/%2", "/%zz", "/%4g", "/a%+1", "/%%41"] {
            assert_eq!(normal(path), Err(BadPath::BrokenEscape), "{path}");
        }
        for path in ["/%00", "/a\0", "/a%00/../b"] {
            assert_eq!(normal(path), Err(BadPath::Nul), "{path}");
        }
        assert_eq!(normal("a"), Err(BadPath::Relative));
        assert_eq!(normal("*"), Err(BadPath::Relative));
    }

    #[test]
    fn wrong_paths_are_refused_with_the_cure() {
        for (text, cure) in [
            ("", "`/` at its beginning"),
            ("v1/*", "`/` at its beginning"),
            ("*", "`/` at its beginning"),
            ("~^/v1", "not available yet"),
            ("/v1*", "whole last segment"),
            ("/*/x", "whole last segment"),
            ("/**", "whole last segment"),
            ("/a?b=c", "remove them"),
            ("/a/../b", "write `/b`"),
            ("/a/./b/*", "write `/a/b/*`"),
            ("/a/../*", "write `/*`"),
            ("/%7Euser/*", "write `/~user/*`"),
            ("/a%2fb", "write `/a%2Fb`"),
            ("/café", "write `/caf%C3%A9`"),
            ("/a b", "write `/a%20b`"),
            ("/..", "remove the `..`"),
            ("/100%", "`%25`"),
            ("/a\0", "zero byte"),
        ] {
            let message = PathPattern::parse(text).expect_err(text);
            assert!(message.contains(cure) && message.contains(text), "{message}");
        }
        let long = format!("/{}", "a".repeat(PATH_PATTERN_BYTES_MAX));
        assert!(PathPattern::parse(&long).is_err());
        assert!(PathPattern::parse(&long[..PATH_PATTERN_BYTES_MAX]).is_ok());
    }

    #[test]
    fn a_prefix_is_kept_without_its_last_slash() {
        assert_eq!(PathPattern::parse("/*"), Ok(PathPattern::Below(b"".to_vec())));
        assert_eq!(PathPattern::parse("/v1/*"), Ok(PathPattern::Below(b"/v1".to_vec())));
        assert_eq!(PathPattern::parse("/v1/"), Ok(PathPattern::Exact(b"/v1/".to_vec())));
    }

    #[test]
    fn ten_thousand_paths_are_few_steps_deep() {
        let mut patterns = PathPatterns::default();
        for i in 0..10_000 {
            let text = format!("/p{i}");
            patterns.add(RouteId(i), &[PathPattern::Below(text.into_bytes())]);
        }
        let mut trees = PathTrees::default();
        let tree = trees.grow(patterns);
        assert_eq!(trees.find(tree, b"/p9876/x"), [RouteId(9876)]);
        assert_eq!(trees.find(tree, b"/p98765"), []);
        assert_eq!(trees.find(tree, b"/q"), []);
        let (mut node, mut steps) = (&trees.nodes[0], 0);
        while node.children > 0 {
            node = &trees.nodes[node.first_child as usize];
            steps += 1;
        }
        assert!(steps <= 5, "one step for `/p` and one for each digit: {steps}");
    }
}
