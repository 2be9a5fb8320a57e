//! What no log may show: header values, values of queries, fragments and forms, members of JSON
//! bodies, and who a URL logs in as. Names decide ([`secret_names`]), values are never looked at.
//! What cannot be understood well enough to hide its secrets is not written at all.

use std::ops::Range;

use crate::telemetry::secret_names;

/// What stands where a secret stood.
pub const HIDDEN: &[u8] = b"[redacted]";

/// Whose values are hidden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redact {
    /// Whatever is named like a secret.
    usual: bool,
    /// Further names, in lower case.
    headers: Vec<String>,
    query: Vec<String>,
    /// Bit n: some name of `query` has n bytes. Most keys are told apart by this alone.
    lengths: u64,
}

impl Redact {
    /// Whatever is named like a secret.
    pub const USUAL: Redact =
        Redact { usual: true, headers: Vec::new(), query: Vec::new(), lengths: 0 };

    /// These names.
    pub fn new<'n>(
        headers: impl Iterator<Item = &'n str>,
        query: impl Iterator<Item = &'n str>,
    ) -> Redact {
        let lower = str::to_ascii_lowercase;
        let query: Vec<String> =
            query.filter(|name| name.len() <= KEY_BYTES_MAX).map(lower).collect();
        let lengths = query.iter().fold(0, |bits, name| bits | 1 << name.len());
        Redact { usual: false, headers: headers.map(lower).collect(), query, lengths }
    }

    /// What either hides.
    #[must_use]
    pub fn and(mut self, other: &Redact) -> Redact {
        self.usual |= other.usual;
        self.headers.extend_from_slice(&other.headers);
        self.query.extend_from_slice(&other.query);
        self.lengths |= other.lengths;
        self
    }

    pub fn hides_header(&self, name: &[u8]) -> bool {
        self.headers.iter().any(|hidden| hidden.as_bytes().eq_ignore_ascii_case(name))
            || (self.usual && secret_names::is_secret(name))
    }

    /// A member of JSON: in a request it is what a form's field is.
    pub fn hides_member(&self, name: &[u8], side: Side) -> bool {
        let is_secret = match side {
            Side::Request => secret_names::is_secret,
            Side::Response => secret_names::is_secret_member,
        };
        self.lists(name) || (self.usual && is_secret(name))
    }

    /// Whether any member of JSON is hidden.
    pub fn hides_members(&self) -> bool {
        self.usual || !self.query.is_empty()
    }

    /// A request target, a Referer or another URL, its secrets hidden; written to `scratch` only
    /// when it has any.
    pub fn url<'a>(&self, url: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        if self.secrets(url).next().is_none() {
            return url;
        }
        scratch.clear();
        hide(url, self.secrets(url), scratch);
        scratch
    }

    /// Where the secrets of a URL are, in order and apart.
    pub fn secrets<'a>(&'a self, url: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
        let first = url.iter().position(|byte| matches!(byte, b'?' | b'#' | b';' | b'@'));
        let (at, in_path) = match first.map(|at| (at, url[at])) {
            // Every line of a log asks: most have none of these, or a query.
            None => (url.len(), false),
            Some((at, b'?' | b'#')) => (at + 1, false),
            Some(_) => (0, true),
        };
        let user = (self.usual && in_path).then(|| user_of(url)).flatten();
        let pairs = Pairs { text: url, at, in_path };
        in_order(user, pairs.filter_map(|pair| self.value_of(url, pair)))
    }

    /// Appends the pairs of a form (application/x-www-form-urlencoded).
    pub fn pairs(&self, form: &[u8], out: &mut Vec<u8>) {
        let pairs = Pairs { text: form, at: 0, in_path: false };
        hide(form, pairs.filter_map(|pair| self.value_of(form, pair)), out);
    }

    /// The value of a pair, when it must be hidden: for its key, or for a URL inside it.
    fn value_of(&self, text: &[u8], pair: Range<usize>) -> Option<Range<usize>> {
        let equals = text[pair.clone()].iter().position(|&byte| byte == b'=')?;
        let (key, value) = (pair.start..pair.start + equals, pair.start + equals + 1..pair.end);
        let hidden = self.hides_key(&text[key]) || self.hides_within(&text[value.clone()]);
        hidden.then_some(value)
    }

    /// Whether a value is a URL, or a form, whose own secrets are escaped: `next=%2Fa%3Ftoken%3Dx`.
    fn hides_within(&self, value: &[u8]) -> bool {
        let escape = |at: usize| value.get(at + 1..at + 3).and_then(hex);
        let mut start = 0;
        for (at, _) in value.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
            match escape(at) {
                Some(b'=') if self.hides_key(&value[start..at]) => return true,
                Some(b'=' | b'&' | b'?' | b'#' | b';') => start = at + 3,
                Some(_) | None => {}
            }
        }
        false
    }

    /// Whether a key is listed, however it is escaped; of `user[password]` the `password` counts.
    fn hides_key(&self, key: &[u8]) -> bool {
        if !key.contains(&b'%') {
            return self.hides_plain_key(key);
        }
        let mut plain = [0; 4 * KEY_BYTES_MAX];
        let mut length = 0;
        let mut at = 0;
        while at < key.len() {
            // Nobody names anything like this.
            let Some(place) = plain.get_mut(length) else { return self.hides_members() };
            let escaped = (key[at] == b'%').then(|| key.get(at + 1..at + 3)).flatten();
            let byte = escaped.and_then(hex);
            *place = byte.unwrap_or(key[at]);
            at += if byte.is_some() { 3 } else { 1 };
            length += 1;
        }
        self.hides_plain_key(&plain[..length])
    }

    fn hides_plain_key(&self, key: &[u8]) -> bool {
        if self.usual && secret_names::is_secret(key) {
            return true;
        }
        let is_bracket = |byte: &u8| matches!(byte, b'[' | b']');
        self.lists(key)
            || (key.ends_with(b"]") && key.split(is_bracket).skip(1).any(|part| self.lists(part)))
    }

    fn lists(&self, key: &[u8]) -> bool {
        key.len() <= KEY_BYTES_MAX
            && self.lengths & 1 << key.len() != 0
            && self.query.iter().any(|hidden| hidden.as_bytes().eq_ignore_ascii_case(key))
    }
}

/// Who sent a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

fn hide(text: &[u8], secrets: impl Iterator<Item = Range<usize>>, out: &mut Vec<u8>) {
    let mut at = 0;
    for secret in secrets {
        out.extend_from_slice(&text[at..secret.start]);
        out.extend_from_slice(HIDDEN);
        at = secret.end;
    }
    out.extend_from_slice(&text[at..]);
}

/// A URL is whatever a client says: its userinfo may stand within a parameter, or have one.
fn in_order(
    mut user: Option<Range<usize>>,
    values: impl Iterator<Item = Range<usize>>,
) -> impl Iterator<Item = Range<usize>> {
    let mut values = values.peekable();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let mut before =
                |user: &Range<usize>| values.peek().is_none_or(|v| user.start <= v.start);
            let first = user.take_if(|user| before(user));
            let next = first.or_else(|| values.next())?;
            let start = next.start.max(at);
            if start == next.start || start < next.end {
                at = next.end;
                return Some(start..at);
            }
        }
    })
}

/// The userinfo of a URL with an authority (RFC 3986 3.2.1).
fn user_of(url: &[u8]) -> Option<Range<usize>> {
    let is_end = |byte: &u8| matches!(byte, b'?' | b'#');
    let head = &url[..url.iter().position(is_end).unwrap_or(url.len())];
    let begins = |at: &usize| head[*at..].starts_with(b"//") && (*at == 0 || head[at - 1] == b':');
    let start = (0..head.len()).find(begins)? + 2;
    let authority = head[start..].split(|byte| *byte == b'/').next()?;
    let end = authority.iter().rposition(|byte| *byte == b'@')?;
    Some(start..start + end)
}

/// What may be `key=value`: parameters of a path's segments, of a query, of a fragment, of a form.
struct Pairs<'t> {
    text: &'t [u8],
    at: usize,
    in_path: bool,
}

impl Iterator for Pairs<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        while self.at < self.text.len() {
            let (start, in_path) = (self.at, self.in_path);
            let is_end = |byte: &u8| match byte {
                b'?' | b'#' | b';' => true,
                b'/' => in_path,
                b'&' => !in_path,
                _ => false,
            };
            let rest = &self.text[start..];
            let end = rest.iter().position(is_end).map_or(self.text.len(), |at| start + at);
            self.at = end + 1;
            self.in_path &= !matches!(self.text.get(end), Some(b'?' | b'#'));
            if !in_path || (start > 0 && self.text[start - 1] == b';') {
                return Some(start..end);
            }
        }
        None
    }
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    Some((digit(digits[0])? << 4 | digit(digits[1])?) as u8)
}

/// Longest query key that can be listed: its length has a bit in `lengths`.
pub const KEY_BYTES_MAX: usize = 63;

// --- JSON -----------------------------------------------------------------------------------

/// Which members of a JSON body are hidden: `user.password`, `cards.*.number`, `**.secret`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonPaths(Vec<Vec<Step>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// A member of this name, or the element of this index.
    Name(String),
    /// `*`: any one member or element.
    Any,
    /// `**`: any number of levels, none included.
    Deep,
}

/// A body whose secrets cannot be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

impl JsonPaths {
    /// `Err` is the path that is no path.
    pub fn new<'p>(paths: impl Iterator<Item = &'p str>) -> Result<JsonPaths, &'p str> {
        let mut all = Vec::new();
        for path in paths {
            let steps: Vec<Step> = path.trim_start_matches("$.").split('.').map(step).collect();
            let empty = Step::Name(String::new());
            if steps.contains(&empty) || steps.last() == Some(&Step::Deep) {
                return Err(path);
            }
            all.push(steps);
        }
        Ok(JsonPaths(all))
    }

    /// What either hides.
    #[must_use]
    pub fn and(mut self, other: &JsonPaths) -> JsonPaths {
        self.0.extend_from_slice(&other.0);
        self
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends the JSON texts in `text`, which may be cut anywhere, with these members hidden, and
    /// those whose names `hides` says.
    pub fn hide(
        &self,
        text: &[u8],
        hides: &dyn Fn(&[u8]) -> bool,
        out: &mut Vec<u8>,
    ) -> Result<(), NotJson> {
        let mut walk = Walk { text, at: 0, out, paths: &self.0, hides };
        let mut live = Vec::new();
        (0..self.0.len()).for_each(|path| walk.enter(path, 0, &mut live));
        loop {
            walk.space();
            if walk.at == text.len() {
                return Ok(());
            }
            match walk.value(&live, false, 0) {
                Ok(()) => {}
                Err(Stop::Cut) => return Ok(()),
                Err(Stop::Broken) => return Err(NotJson),
            }
        }
    }
}

fn step(text: &str) -> Step {
    match text {
        "*" => Step::Any,
        "**" => Step::Deep,
        name => Step::Name(name.to_owned()),
    }
}

enum Stop {
    /// The text ends within a value.
    Cut,
    Broken,
}

/// Places in the paths that lead to where the walk is: a path, and how many of its steps are done.
type Live = Vec<(usize, usize)>;

struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    out: &'a mut Vec<u8>,
    paths: &'a [Vec<Step>],
    hides: &'a dyn Fn(&[u8]) -> bool,
}

impl Walk<'_> {
    fn enter(&self, path: usize, done: usize, live: &mut Live) {
        live.push((path, done));
        if self.paths[path].get(done) == Some(&Step::Deep) {
            self.enter(path, done + 1, live);
        }
    }

    /// The places below a member or element of this name.
    fn below(&self, live: &Live, name: &[u8]) -> Live {
        let mut next = Vec::new();
        for &(path, done) in live {
            match self.paths[path].get(done) {
                Some(Step::Name(wanted)) if wanted.as_bytes().eq_ignore_ascii_case(name) => {
                    self.enter(path, done + 1, &mut next);
                }
                Some(Step::Any) => self.enter(path, done + 1, &mut next),
                Some(Step::Deep) => self.enter(path, done, &mut next),
                Some(Step::Name(_)) | None => {}
            }
        }
        next
    }

    /// `hidden`: by the name of the member that it is.
    fn value(&mut self, live: &Live, hidden: bool, depth: usize) -> Result<(), Stop> {
        if depth > DEPTH_MAX {
            return Err(Stop::Broken);
        }
        let hidden = hidden || live.iter().any(|&(path, done)| done == self.paths[path].len());
        if hidden {
            self.out.push(b'"');
            self.out.extend_from_slice(HIDDEN);
            self.out.push(b'"');
            let written = self.out.len();
            let result = self.value(&Vec::new(), false, depth);
            self.out.truncate(written);
            return result;
        }
        match self.peek()? {
            b'{' => self.list(b'}', depth, |walk, _| {
                if walk.peek()? != b'"' {
                    return Err(Stop::Broken);
                }
                let name = walk.string()?;
                walk.space();
                if walk.peek()? != b':' {
                    return Err(Stop::Broken);
                }
                walk.copy(1);
                walk.space();
                Ok((walk.below(live, &name), (walk.hides)(&name)))
            }),
            b'[' => self.list(b']', depth, |walk, index| {
                Ok((walk.below(live, index.to_string().as_bytes()), false))
            }),
            b'"' => self.string().map(|_| ()),
            _ => self.scalar(),
        }
    }

    /// An object or array; `name` reads what precedes a value, and knows the places below it and
    /// whether it is hidden by its name.
    fn list(
        &mut self,
        end: u8,
        depth: usize,
        name: impl Fn(&mut Self, usize) -> Result<(Live, bool), Stop>,
    ) -> Result<(), Stop> {
        self.copy(1);
        self.space();
        if self.peek()? == end {
            self.copy(1);
            return Ok(());
        }
        for index in 0.. {
            let (live, hidden) = name(self, index)?;
            self.value(&live, hidden, depth + 1)?;
            self.space();
            match self.peek()? {
                b',' => self.copy(1),
                byte if byte == end => {
                    self.copy(1);
                    break;
                }
                _ => return Err(Stop::Broken),
            }
            self.space();
        }
        Ok(())
    }

    /// Copies a string; what it says, its escapes undone, is for comparing.
    fn string(&mut self) -> Result<Vec<u8>, Stop> {
        let rest = &self.text[self.at..];
        let mut end = 1;
        loop {
            match rest.get(end) {
                Some(b'"') => break,
                Some(b'\\') => end += 2,
                Some(_) => end += 1,
                None => {
                    self.copy(rest.len());
                    return Err(Stop::Cut);
                }
            }
        }
        self.copy(end + 1);
        Ok(unescaped(&rest[1..end]))
    }

    /// A number, `true`, `false` or `null`.
    fn scalar(&mut self) -> Result<(), Stop> {
        let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        let length = self.text[self.at..].iter().take_while(is_part).count();
        if length == 0 {
            return Err(Stop::Broken);
        }
        self.copy(length);
        Ok(())
    }

    fn space(&mut self) {
        let is_space = |byte: &&u8| b" \t\r\n".contains(byte);
        self.copy(self.text[self.at..].iter().take_while(is_space).count());
    }

    fn peek(&self) -> Result<u8, Stop> {
        self.text.get(self.at).copied().ok_or(Stop::Cut)
    }

    fn copy(&mut self, count: usize) {
        self.out.extend_from_slice(&self.text[self.at..self.at + count]);
        self.at += count;
    }
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if text[at] != b'\\' {
            out.push(text[at]);
            at += 1;
            continue;
        }
        let code = text.get(at + 2..at + 6).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match (text.get(at + 1), code.and_then(char::from_u32)) {
            (Some(b'u'), Some(character)) => {
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                at += 6;
            }
            (Some(&byte), _) => {
                out.push(byte);
                at += 2;
            }
            (None, _) => return out,
        }
    }
    out
}

/// Deeper JSON is not understood.
const DEPTH_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> String {
        String::from_utf8(Redact::USUAL.url(text.as_bytes(), &mut Vec::new()).to_vec()).unwrap()
    }

    #[test]
    fn headers_are_hidden_in_any_case() {
        for name in ["Authorization", "COOKIE", "set-cookie", "X-API-Key", "Proxy-Authorization"] {
            assert!(Redact::USUAL.hides_header(name.as_bytes()), "{name}");
        }
        assert!(!Redact::USUAL.hides_header(b"user-agent"));
        assert!(!Redact::default().hides_header(b"authorization"));
    }

    #[test]
    fn secrets_of_a_query_are_hidden_and_nothing_else() {
        for (text, expected) in [
            ("/a", "/a"),
            ("/token=1", "/token=1"),
            ("/a?b=1&c", "/a?b=1&c"),
            ("/a?token=x", "/a?token=[redacted]"),
            ("/a?token=x&b=2#token=y", "/a?token=[redacted]&b=2#token=[redacted]"),
            (
                "https://app/cb#access_token=x&state=s",
                "https://app/cb#access_token=[redacted]&state=s",
            ),
            ("https://app/#/cb?code=x", "https://app/#/cb?code=[redacted]"),
            ("/a?monkey=1&zipcode=2&sort_key=3", "/a?monkey=1&zipcode=2&sort_key=3"),
            ("/a?key=x&X-Amz-Signature=x", "/a?key=[redacted]&X-Amz-Signature=[redacted]"),
            ("/a?user[password][]=x", "/a?user[password][]=[redacted]"),
            ("/a;jsessionid=x;v=1/b?c=1", "/a;jsessionid=[redacted];v=1/b?c=1"),
            ("https://me:x@a:1/b@c?d=1", "https://[redacted]@a:1/b@c?d=1"),
            ("//me:x@a", "//[redacted]@a"),
            ("/a//b@c", "/a//b@c"),
            ("http://a?b=c//d@e", "http://a?b=c//d@e"),
            ("/a?next=%2Fcb%3Fa%3D1%26code%3Dx&b=1", "/a?next=[redacted]&b=1"),
            ("/a?next=%2Fcb%3Fa%3d1%26b%3D2", "/a?next=%2Fcb%3Fa%3d1%26b%3D2"),
            ("/a?next=/cb?token=x", "/a?next=/cb?token=[redacted]"),
            ("/a?b=1;PassWord=x;c=3", "/a?b=1;PassWord=[redacted];c=3"),
            ("/a?%74oken=x&tokens=y", "/a?%74oken=[redacted]&tokens=y"),
            ("/a?user[password]=x", "/a?user[password]=[redacted]"),
            ("/a?user%5Bpassword%5D=x", "/a?user%5Bpassword%5D=[redacted]"),
            ("/a?token=a=b&&=&token", "/a?token=[redacted]&&=&token"),
            ("/a?token=", "/a?token=[redacted]"),
            ("/a?%7=%zz&%", "/a?%7=%zz&%"),
        ] {
            assert_eq!(url(text), expected);
        }
    }

    #[test]
    fn whatever_a_client_sends_for_a_url_its_secrets_are_in_order_and_apart() {
        for (text, expected) in [
            ("//me:;token=x@a", "//[redacted][redacted]"),
            ("//u;token=x@h", "//[redacted][redacted]"),
            ("/a;token=http://me:p@h", "/a;token=[redacted]//[redacted]@h"),
        ] {
            assert_eq!(url(text), expected, "{text}");
        }
        // Every row of seven of these.
        const PIECES: [&str; 9] = ["/", "//", ":", ";", "?", "#", "@", "token=", "x"];
        for number in 0..PIECES.len().pow(7) {
            let piece = |place: u32| PIECES[number / PIECES.len().pow(place) % PIECES.len()];
            let text: String = (0..7).map(piece).collect();
            let mut at = 0;
            for secret in Redact::USUAL.secrets(text.as_bytes()) {
                assert!(at <= secret.start && secret.start <= secret.end, "{text}");
                at = secret.end;
            }
            assert!(at <= text.len(), "{text}");
        }
    }

    #[test]
    fn a_url_without_secrets_is_not_copied() {
        let (text, mut scratch) = (b"/a?b=1&c=2", Vec::new());
        assert!(std::ptr::eq(Redact::USUAL.url(text, &mut scratch), text));
        assert_eq!(scratch.capacity(), 0);
    }

    fn hidden(paths: &[&str], text: &str) -> Result<String, NotJson> {
        let mut out = Vec::new();
        let paths = JsonPaths::new(paths.iter().copied()).unwrap();
        paths.hide(text.as_bytes(), &|_| false, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn members_are_hidden_by_their_path() {
        for (paths, text, expected) in [
            (
                &["a.b"][..],
                r#"{"a":{"b":1,"c":2},"b":3}"#,
                r#"{"a":{"b":"[redacted]","c":2},"b":3}"#,
            ),
            (
                &["a"],
                r#" { "a" : {"x":[1,{}]} , "b":[] } "#,
                r#" { "a" : "[redacted]" , "b":[] } "#,
            ),
            (
                &["c.*.n"],
                r#"{"c":[{"n":1},{"n":"x"}]}"#,
                r#"{"c":[{"n":"[redacted]"},{"n":"[redacted]"}]}"#,
            ),
            (&["c.1"], r#"{"c":[1,2,3]}"#, r#"{"c":[1,"[redacted]",3]}"#),
            (
                &["**.p"],
                r#"{"p":1,"x":[{"y":{"P":2}}]}"#,
                r#"{"p":"[redacted]","x":[{"y":{"P":"[redacted]"}}]}"#,
            ),
            (
                &["a.**.p"],
                r#"{"p":1,"a":{"p":2,"q":{"p":3}}}"#,
                r#"{"p":1,"a":{"p":"[redacted]","q":{"p":"[redacted]"}}}"#,
            ),
            (&["$.pass"], r#"{"p\u0061ss":"x\"y"}"#, r#"{"p\u0061ss":"[redacted]"}"#),
            (&["a"], "{\"a\":1}\n{\"a\":2}\n", "{\"a\":\"[redacted]\"}\n{\"a\":\"[redacted]\"}\n"),
        ] {
            assert_eq!(hidden(paths, text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn members_are_hidden_by_their_names_at_any_depth() {
        let shown = |side| {
            let text = br#"{"code":"a","x":[{"accessToken":{"b":1}}],"max_tokens":3,"pin":"c"}"#;
            let redact = Redact::USUAL.and(&Redact::new([].into_iter(), ["pin"].into_iter()));
            let mut out = Vec::new();
            let hides = |name: &[u8]| redact.hides_member(name, side);
            JsonPaths::default().hide(text, &hides, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let rest = r#""x":[{"accessToken":"[redacted]"}],"max_tokens":3,"pin":"[redacted]"}"#;
        assert_eq!(shown(Side::Response), format!(r#"{{"code":"a",{rest}"#));
        assert_eq!(shown(Side::Request), format!(r#"{{"code":"[redacted]",{rest}"#));
    }

    #[test]
    fn an_escaped_key_of_any_length_hides_what_it_cannot_be_told_of() {
        let long = format!("/a?{}%74oken=x", "y".repeat(10_000));
        assert!(url(&long).ends_with("=[redacted]"));
        assert_eq!(Redact::default().url(long.as_bytes(), &mut Vec::new()), long.as_bytes());
    }

    #[test]
    fn a_body_cut_anywhere_never_shows_a_hidden_value() {
        let text = r#"{"x":[1,{"secret":"abcdef","list":["hush",true]}],"secret":{"k":"hush"}}"#;
        for end in 0..=text.len() {
            let shown = hidden(&["**.secret", "**.list"], &text[..end]).unwrap();
            assert!(!shown.contains("abc") && !shown.contains("hush"), "{end}: {shown}");
        }
    }

    #[test]
    fn what_is_not_json_is_not_shown() {
        for text in ["password=x", "{a:1}", "{\"a\":1]", "[1 2]", "{\"a\" 1}", "<a/>", "\u{feff}{}"]
        {
            assert_eq!(hidden(&["a"], text), Err(NotJson), "{text}");
        }
        let deep = "[".repeat(1000);
        assert_eq!(hidden(&["a"], &deep), Err(NotJson));
    }

    #[test]
    fn a_path_must_name_something_at_its_end() {
        for path in ["", "a.", ".a", "a..b", "**", "a.**"] {
            assert_eq!(JsonPaths::new([path].into_iter()), Err(path));
        }
    }
}
