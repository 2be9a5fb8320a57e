//! A small JSON reader, written independently of the proxy's own writer: strict, and it panics with
//! the text when something is not JSON, since that is what the tests are about.

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    pub fn parse(text: &str) -> Json {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value();
        reader.space();
        assert_eq!(reader.at, text.len(), "something follows the value: {text:?}");
        value
    }

    /// `log.at("timings.head_ms")`; panics when it is not there.
    pub fn at(&self, path: &str) -> &Json {
        path.split('.').fold(self, |value, name| {
            let Json::Object(members) = value else { panic!("{name} of {path} in {value:?}") };
            members.get(name).unwrap_or_else(|| panic!("no {path} in {self:?}"))
        })
    }

    pub fn text(&self, path: &str) -> &str {
        let found = self.at(path);
        let Json::Text(text) = found else { panic!("{path} is no text: {found:?}") };
        text
    }

    pub fn number(&self, path: &str) -> f64 {
        let found = self.at(path);
        let Json::Number(number) = found else { panic!("{path} is no number: {found:?}") };
        *number
    }

    pub fn list(&self, path: &str) -> &[Json] {
        let found = self.at(path);
        let Json::List(list) = found else { panic!("{path} is no list: {found:?}") };
        list
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> char {
        let next = self.peek().unwrap_or_else(|| panic!("JSON ends early: {:?}", self.text));
        self.at += next.len_utf8();
        next
    }

    fn expect(&mut self, wanted: char) {
        let (at, found) = (self.at, self.next());
        assert_eq!(found, wanted, "at {at} of {:?}", self.text);
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|c| " \t\r\n".contains(c)) {
            self.at += 1;
        }
    }

    /// Whether this comes next, behind spaces; it is consumed.
    fn comes(&mut self, wanted: char) -> bool {
        self.space();
        let comes = self.peek() == Some(wanted);
        self.at += usize::from(comes);
        comes
    }

    fn value(&mut self) -> Json {
        self.space();
        match self.peek() {
            Some('{') => self.object(),
            Some('[') => self.array(),
            Some('"') => Json::Text(self.string()),
            _ => self.word(),
        }
    }

    fn object(&mut self) -> Json {
        self.expect('{');
        let mut members = BTreeMap::new();
        if self.comes('}') {
            return Json::Object(members);
        }
        loop {
            self.space();
            let name = self.string();
            self.space();
            self.expect(':');
            let twin = members.insert(name, self.value());
            assert!(twin.is_none(), "a name comes twice: {:?}", self.text);
            if !self.comes(',') {
                self.expect('}');
                return Json::Object(members);
            }
        }
    }

    fn array(&mut self) -> Json {
        self.expect('[');
        let mut list = Vec::new();
        if self.comes(']') {
            return Json::List(list);
        }
        loop {
            list.push(self.value());
            if !self.comes(',') {
                self.expect(']');
                return Json::List(list);
            }
        }
    }

    fn string(&mut self) -> String {
        self.expect('"');
        let mut string = String::new();
        loop {
            match self.next() {
                '"' => return string,
                '\\' => string.push(self.escape()),
                c => {
                    assert!(c >= ' ', "a control character in a string: {:?}", self.text);
                    string.push(c);
                }
            }
        }
    }

    fn escape(&mut self) -> char {
        match self.next() {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => {
                let digits: String = (0..4).map(|_| self.next()).collect();
                let code = u32::from_str_radix(&digits, 16).expect("four hexadecimal digits");
                char::from_u32(code).unwrap_or_else(|| panic!("a lone surrogate: {:?}", self.text))
            }
            c @ ('"' | '\\' | '/') => c,
            c => panic!("no escape: \\{c} in {:?}", self.text),
        }
    }

    fn word(&mut self) -> Json {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) {
            self.at += 1;
        }
        match &self.text[start..self.at] {
            "null" => Json::Null,
            "true" => Json::Bool(true),
            "false" => Json::Bool(false),
            number => Json::Number(
                number.parse().unwrap_or_else(|_| panic!("{number:?} in {:?}", self.text)),
            ),
        }
    }
}
