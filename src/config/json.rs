//! JSON (RFC 8259) as a syntax of the configuration, and nothing beside it: what only some readers
//! of JSON take is named and refused. Where it is clear what was meant, reading goes on, so that
//! all such mistakes are reported at once.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::DeValue;

use super::error::Wrong;
use super::syntax::Parsed;
use super::tree::{Builder, Stop, nothing, number};

pub(super) fn parse(text: &str) -> Parsed<'_> {
    let mut reader = Reader { text, at: 0, builder: Builder::new(text) };
    // Whatever stopped it was noted.
    drop(reader.document());
    reader.builder.finish()
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    builder: Builder<'t>,
}

impl<'t> Reader<'t> {
    fn document(&mut self) -> Result<(), Stop> {
        if self.text.starts_with('\u{feff}') {
            let wrong = Wrong::new("JSON does not begin with a byte order mark (RFC 8259 §8.1)")
                .note("save the file as UTF-8 without it");
            self.builder.mistake(0, wrong)?;
            self.at = '\u{feff}'.len_utf8();
        }
        self.space()?;
        self.value()?;
        self.space()?;
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("nothing after the end of the configuration")),
        }
    }

    /// No deeper than the builder allows.
    fn value(&mut self) -> Result<(), Stop> {
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => {
                let (string, span) = self.string()?;
                self.builder.scalar(DeValue::String(string), span, 0)
            }
            Some(b) if is_of_word(b) => self.word(),
            Some(_) | None => Err(self.expected("a value")),
        }
    }

    fn object(&mut self) -> Result<(), Stop> {
        self.builder.begin_table(self.at, 0)?;
        self.at += 1;
        self.space()?;
        while self.peek() != Some(b'}') {
            if self.peek() != Some(b'"') {
                return Err(self.expected("a key in double quotes"));
            }
            let (key, span) = self.string()?;
            self.builder.key(key, span)?;
            self.space()?;
            if self.peek() != Some(b':') {
                return Err(self.expected("`:` after the key"));
            }
            self.at += 1;
            self.space()?;
            self.value()?;
            self.after_element(b'}')?;
        }
        self.at += 1;
        self.builder.end(self.at)
    }

    fn array(&mut self) -> Result<(), Stop> {
        self.builder.begin_list(self.at, 0)?;
        self.at += 1;
        self.space()?;
        while self.peek() != Some(b']') {
            self.value()?;
            self.after_element(b']')?;
        }
        self.at += 1;
        self.builder.end(self.at)
    }

    /// To the next element, or to the end.
    fn after_element(&mut self, end: u8) -> Result<(), Stop> {
        self.space()?;
        match self.peek() {
            Some(b',') => {
                let comma = self.at;
                self.at += 1;
                self.space()?;
                if self.peek() == Some(end) {
                    let wrong = Wrong::new("a comma after the last element is not JSON")
                        .note("leave it out");
                    self.builder.mistake(comma, wrong)?;
                }
                Ok(())
            }
            Some(b) if b == end => Ok(()),
            Some(_) | None => Err(self.expected(&format!("`,` or `{}`", char::from(end)))),
        }
    }

    /// `true`, `12`, and what is written without quotes by mistake.
    fn word(&mut self) -> Result<(), Stop> {
        let text: &'t str = self.text;
        let rest = &text[self.at..];
        let length = rest.bytes().take_while(|b| is_of_word(*b)).count();
        let (word, at) = (&rest[..length], self.at);
        self.at += length;
        let value = match word {
            "true" => DeValue::Boolean(true),
            "false" => DeValue::Boolean(false),
            "null" => return self.builder.no_value(at, nothing()),
            word => match is_number(word).then(|| number(word)).flatten() {
                Some(number) => number,
                // It may be a secret: it is not quoted.
                None => {
                    let wrong = Wrong::new("this is no value of JSON").note(
                        "expected `true`, `false`, a decimal number, or text in double quotes",
                    );
                    return self.builder.no_value(at, wrong);
                }
            },
        };
        self.builder.scalar(value, at..self.at, 0)
    }

    /// RFC 8259 §7.
    fn string(&mut self) -> Result<(Cow<'t, str>, Range<usize>), Stop> {
        let text: &'t str = self.text;
        let start = self.at;
        let mut owned = String::new();
        let mut from = start + 1;
        self.at = from;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    owned.push_str(&text[from..self.at]);
                    owned.push(self.escape()?);
                    from = self.at;
                }
                Some(b'\n') | None => {
                    let wrong = Wrong::new("this string does not end on its line")
                        .note("is a quote left open? a line break inside is written `\\n`");
                    return Err(self.builder.stop(start, wrong));
                }
                Some(0..0x20) => {
                    let wrong = Wrong::new("a control character inside a string")
                        .note("write it as an escape, such as `\\t`");
                    self.builder.mistake(self.at, wrong)?;
                    self.at += 1;
                }
                Some(_) => self.at += 1,
            }
        }
        let rest = &text[from..self.at];
        self.at += 1;
        let string = if from == start + 1 {
            Cow::Borrowed(rest)
        } else {
            owned.push_str(rest);
            Cow::Owned(owned)
        };
        Ok((string, start..self.at))
    }

    fn escape(&mut self) -> Result<char, Stop> {
        let at = self.at;
        self.at += 2;
        let plain = match self.text.as_bytes().get(at + 1) {
            Some(b @ (b'"' | b'\\' | b'/')) => char::from(*b),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(at),
            Some(_) | None => {
                let wrong = Wrong::new("there is no such escape in JSON")
                    .note("write `\\\\` for a backslash");
                // A character of several bytes may come after the backslash.
                self.at = at + 1;
                self.builder.mistake(at, wrong)?;
                '\\'
            }
        };
        Ok(plain)
    }

    /// One or, beyond 16 bits, two groups of digits.
    fn unicode(&mut self, at: usize) -> Result<char, Stop> {
        let Some(first) = self.digits() else {
            return self.no_character(at);
        };
        let second = match first {
            0xd800..0xdc00 if self.text[self.at..].starts_with("\\u") => {
                self.at += 2;
                self.digits().filter(|second| (0xdc00..0xe000).contains(second))
            }
            _ => None,
        };
        let code = match second {
            Some(second) => 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00),
            None => first,
        };
        match char::from_u32(code) {
            Some(c) => Ok(c),
            None => self.no_character(at),
        }
    }

    fn digits(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        let value = u32::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?;
        self.at += 4;
        Some(value)
    }

    fn no_character(&mut self, at: usize) -> Result<char, Stop> {
        let wrong = Wrong::new("this escape is no character")
            .note("expected `\\u` and four hexadecimal digits, or two of them for one character");
        self.builder.mistake(at, wrong)?;
        Ok(char::REPLACEMENT_CHARACTER)
    }

    /// Passes over white space, and over comments with a complaint.
    fn space(&mut self) -> Result<(), Stop> {
        loop {
            let rest = &self.text[self.at..];
            self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
            let rest = &self.text[self.at..];
            let length = if rest.starts_with("//") || rest.starts_with('#') {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                rest.find("*/").map_or(rest.len(), |end| end + 2)
            } else {
                return Ok(());
            };
            let wrong = Wrong::new("JSON has no comments")
                .note("leave it out, or write the configuration in TOML or YAML");
            self.builder.mistake(self.at, wrong)?;
            self.at += length;
        }
    }

    fn expected(&mut self, what: &str) -> Stop {
        let found = match self.text[self.at..].chars().next() {
            Some(c) => format!("`{c}`"),
            None => "the end of the text".to_owned(),
        };
        self.builder.stop(self.at, Wrong::new(format!("expected {what}, found {found}")))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

fn is_of_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_')
}

/// RFC 8259 §6.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, part) = match mantissa.split_once('.') {
        Some((whole, part)) => (whole, Some(part)),
        None => (mantissa, None),
    };
    let is_digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let unsigned =
        |exponent: &str| is_digits(exponent.strip_prefix(['-', '+']).unwrap_or(exponent));
    is_digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && part.is_none_or(is_digits)
        && exponent.is_none_or(unsigned)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::Syntax;
    use super::*;

    fn mistakes(text: &str) -> Vec<(usize, String)> {
        let parsed = parse(text);
        let told = |mistake: super::super::syntax::Mistake| {
            (mistake.problem.offset.expect("a place"), mistake.problem.wrong.message)
        };
        parsed.mistakes.into_iter().map(told).collect()
    }

    #[test]
    fn strings_and_numbers_are_those_of_another_reader_of_json() {
        let text = r#" { "\u0061\n" : "\"\\\/\b\f\n\r\t\u00fc\ud83e\udd80 \u{e9} \u007f" ,
            "n" : [ 0 , -0 , -12 , 1e3 , 1.5E-1, -0.25e+2, 9223372036854775807 ] ,
            "e" : [ ] , "o" : { } , "b" : [ true , false ] , "" : "" } "#
            .replace("\\u{e9}", "\u{e9}");
        assert_eq!(mistakes(&text), []);
        let ours = serde_json::to_value(Syntax::Json.table(&text)).unwrap();
        let theirs: Value = serde_json::from_str(&text).unwrap();
        for key in ["a\n", "e", "o", "b", ""] {
            assert_eq!(ours[key], theirs[key], "{key}");
        }
        let numbers = |value: &Value| -> Vec<f64> {
            value["n"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
        };
        assert_eq!(numbers(&ours), numbers(&theirs));
    }

    #[test]
    fn what_another_reader_of_json_refuses_is_refused() {
        for wrong in [
            "",
            " ",
            "{",
            "}",
            "[",
            "{]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\" 1}",
            "{a:1}",
            "{'a':1}",
            "{\"a\":'b'}",
            "{\"a\":1,}",
            "{\"a\":[1,]}",
            "{,}",
            "{\"a\":[,]}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":01}",
            "{\"a\":+1}",
            "{\"a\":1.}",
            "{\"a\":.5}",
            "{\"a\":-}",
            "{\"a\":1e}",
            "{\"a\":0x10}",
            "{\"a\":1_0}",
            "{\"a\":NaN}",
            "{\"a\":Infinity}",
            "{\"a\":True}",
            "{\"a\":nul}",
            "{\"a\":\"\t\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\q\"}",
            "{\"a\":\"\\u12\"}",
            "{\"a\":\"\\u+123\"}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\\udc00\"}",
            "{} {}",
            "{}x",
            "{}\0",
            "\0{}",
            "{\"a\":\"\\ud800\\u0041\"}",
            "\u{feff}{}",
            "\u{a0}{}",
            "{}// a",
            "{}# a",
            "/* {} ",
            "{\"a\":\"\\\u{e9}\"}",
            "{\"a\":\"\\",
        ] {
            assert!(serde_json::from_str::<Value>(wrong).is_err(), "{wrong:?}");
            assert!(!mistakes(wrong).is_empty(), "{wrong:?}");
        }
        for other in ["[]", "1", "\"a\"", "{\"a\":null}", "{\"a\":1,\"\\u0061\":1}"] {
            assert_eq!(mistakes(other).len(), 1, "{other}: no configuration");
        }
    }

    #[test]
    fn reading_goes_on_where_it_is_clear_what_was_meant() {
        let text = "{\"a\": [1, /* x */ 2,], // y\n\"b\": \"\t\", \"c\": nope,}";
        let places: Vec<usize> = mistakes(text).into_iter().map(|(at, _)| at).collect();
        let expected = ["/* x", ",]", "// y", "\t", "nope", ",}"];
        assert_eq!(places, expected.map(|part| text.find(part).unwrap()));
        let parsed = parse(text);
        assert_eq!(parsed.tree.get_ref().len(), 3);
    }
}
