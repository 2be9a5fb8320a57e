//! What no log may show: header values, query and form values, members of JSON bodies. Names
//! decide, values are never looked at. What cannot be understood well enough to hide its secrets is
//! not written at all.

/// What stands where a secret stood.
pub const HIDDEN: &[u8] = b"[redacted]";

/// Hidden unless `logging.redact.defaults` is false.
pub const HEADERS: [&str; 10] = [
    "api-key",
    "apikey",
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-amz-security-token",
    "x-api-key",
    "x-auth-token",
    "x-csrf-token",
];

/// Hidden unless `logging.redact.defaults` is false.
pub const QUERY_KEYS: [&str; 12] = [
    "access_token",
    "api_key",
    "apikey",
    "client_secret",
    "id_token",
    "passwd",
    "password",
    "refresh_token",
    "secret",
    "sig",
    "signature",
    "token",
];

/// Names whose values are hidden, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redact {
    headers: Vec<String>,
    query: Vec<String>,
    /// Bit n: some query key has n bytes. Most keys are told apart by this alone.
    lengths: u64,
}

impl Redact {
    pub fn new<'n>(
        headers: impl Iterator<Item = &'n str>,
        query: impl Iterator<Item = &'n str>,
    ) -> Redact {
        let lower = str::to_ascii_lowercase;
        let query: Vec<String> =
            query.filter(|name| name.len() <= KEY_BYTES_MAX).map(lower).collect();
        let lengths = query.iter().fold(0, |bits, name| bits | 1 << name.len());
        Redact { headers: headers.map(lower).collect(), query, lengths }
    }

    /// What either hides.
    #[must_use]
    pub fn and(mut self, other: &Redact) -> Redact {
        self.headers.extend_from_slice(&other.headers);
        self.query.extend_from_slice(&other.query);
        self.lengths |= other.lengths;
        self
    }

    pub fn hides_header(&self, name: &[u8]) -> bool {
        self.headers.iter().any(|hidden| hidden.as_bytes().eq_ignore_ascii_case(name))
    }

    /// A request target or a Referer, its query's secrets hidden; written to `scratch` only when it
    /// has any.
    pub fn url<'a>(&self, url: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        let Some(question) = url.iter().position(|&byte| byte == b'?') else {
            return url;
        };
        let (before, query) = url.split_at(question + 1);
        let fragment = query.iter().position(|&byte| byte == b'#').unwrap_or(query.len());
        let (query, fragment) = query.split_at(fragment);
        if !self.has_secret(query) {
            return url;
        }
        scratch.clear();
        scratch.extend_from_slice(before);
        self.pairs(query, scratch);
        scratch.extend_from_slice(fragment);
        scratch
    }

    fn has_secret(&self, pairs: &[u8]) -> bool {
        pairs.split(is_between_pairs).any(|pair| self.hidden_after(pair).is_some())
    }

    /// Appends the pairs of a query, or of a form (application/x-www-form-urlencoded).
    pub fn pairs(&self, pairs: &[u8], out: &mut Vec<u8>) {
        for pair in pairs.split_inclusive(is_between_pairs) {
            let end = pair.len() - usize::from(pair.last().is_some_and(is_between_pairs));
            match self.hidden_after(&pair[..end]) {
                Some(value) => {
                    out.extend_from_slice(&pair[..value]);
                    out.extend_from_slice(HIDDEN);
                    out.extend_from_slice(&pair[end..]);
                }
                None => out.extend_from_slice(pair),
            }
        }
    }

    /// Where the value of a pair begins, when it must be hidden.
    fn hidden_after(&self, pair: &[u8]) -> Option<usize> {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        self.hides_key(&pair[..equals]).then_some(equals + 1)
    }

    /// Whether a key is listed, however it is escaped; of `user[password]` the `password` counts.
    fn hides_key(&self, key: &[u8]) -> bool {
        if !key.contains(&b'%') && !key.ends_with(b"]") {
            return self.lists(key);
        }
        let mut plain = [0; 2 * KEY_BYTES_MAX];
        let mut length = 0;
        let mut at = 0;
        while at < key.len() && length < plain.len() {
            let escaped = (key[at] == b'%').then(|| key.get(at + 1..at + 3)).flatten();
            let byte = escaped.and_then(hex);
            plain[length] = byte.unwrap_or(key[at]);
            at += if byte.is_some() { 3 } else { 1 };
            length += 1;
        }
        let plain = &plain[..length];
        let inner = plain.strip_suffix(b"]").and_then(|open| open.rsplit(|&b| b == b'[').next());
        self.lists(plain) || inner.is_some_and(|inner| self.lists(inner))
    }

    fn lists(&self, key: &[u8]) -> bool {
        key.len() <= KEY_BYTES_MAX
            && self.lengths & 1 << key.len() != 0
            && self.query.iter().any(|hidden| hidden.as_bytes().eq_ignore_ascii_case(key))
    }
}

fn is_between_pairs(byte: &u8) -> bool {
    matches!(byte, b'&' | b';')
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

    /// Appends the JSON texts in `text`, which may be cut anywhere, with these members hidden.
    pub fn hide(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), NotJson> {
        let mut walk = Walk { text, at: 0, out, paths: &self.0 };
        let mut live = Vec::new();
        (0..self.0.len()).for_each(|path| walk.enter(path, 0, &mut live));
        loop {
            walk.space();
            if walk.at == text.len() {
                return Ok(());
            }
            match walk.value(&live, 0) {
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

    fn value(&mut self, live: &Live, depth: usize) -> Result<(), Stop> {
        if depth > DEPTH_MAX {
            return Err(Stop::Broken);
        }
        let hidden = live.iter().any(|&(path, done)| done == self.paths[path].len());
        if hidden {
            self.out.push(b'"');
            self.out.extend_from_slice(HIDDEN);
            self.out.push(b'"');
            let written = self.out.len();
            let result = self.value(&Vec::new(), depth);
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
                Ok(walk.below(live, &name))
            }),
            b'[' => self.list(b']', depth, |walk, index| {
                Ok(walk.below(live, index.to_string().as_bytes()))
            }),
            b'"' => self.string().map(|_| ()),
            _ => self.scalar(),
        }
    }

    /// An object or array; `name` reads what precedes a value, and knows the places below it.
    fn list(
        &mut self,
        end: u8,
        depth: usize,
        name: impl Fn(&mut Self, usize) -> Result<Live, Stop>,
    ) -> Result<(), Stop> {
        self.copy(1);
        self.space();
        if self.peek()? == end {
            self.copy(1);
            return Ok(());
        }
        for index in 0.. {
            let live = name(self, index)?;
            self.value(&live, depth + 1)?;
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

    fn redact() -> Redact {
        Redact::new(HEADERS.into_iter(), QUERY_KEYS.into_iter())
    }

    fn url(text: &str) -> String {
        String::from_utf8(redact().url(text.as_bytes(), &mut Vec::new()).to_vec()).unwrap()
    }

    #[test]
    fn headers_are_hidden_in_any_case() {
        for name in ["Authorization", "COOKIE", "set-cookie", "X-API-Key", "Proxy-Authorization"] {
            assert!(redact().hides_header(name.as_bytes()), "{name}");
        }
        assert!(!redact().hides_header(b"user-agent"));
        assert!(!Redact::default().hides_header(b"authorization"));
    }

    #[test]
    fn secrets_of_a_query_are_hidden_and_nothing_else() {
        for (text, expected) in [
            ("/a", "/a"),
            ("/token=1", "/token=1"),
            ("/a?b=1&c", "/a?b=1&c"),
            ("/a?token=x", "/a?token=[redacted]"),
            ("/a?token=x&b=2#token=y", "/a?token=[redacted]&b=2#token=y"),
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
    fn a_url_without_secrets_is_not_copied() {
        let (text, mut scratch) = (b"/a?b=1&c=2", Vec::new());
        assert!(std::ptr::eq(redact().url(text, &mut scratch), text));
        assert_eq!(scratch.capacity(), 0);
    }

    fn hidden(paths: &[&str], text: &str) -> Result<String, NotJson> {
        let mut out = Vec::new();
        let paths = JsonPaths::new(paths.iter().copied()).unwrap();
        paths.hide(text.as_bytes(), &mut out).map(|()| String::from_utf8(out).unwrap())
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
