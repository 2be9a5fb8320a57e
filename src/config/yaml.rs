//! YAML 1.2 as a syntax of the configuration: one document, whose plain scalars mean what the core
//! schema says. Of booleans there are `true` and `false` only (and `True`, `TRUE`, …): `no` is the
//! string that Norway's operators mean. Numbers, dates and versions that are meant as text are
//! quoted; a key that wants text says so. Refused is what one reader of YAML understands and the
//! next does not: tags, directives, merge keys, keys that are no strings, numbers like `007`.

use std::borrow::Cow;
use std::ops::Range;

use granit_parser::{
    ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, StructureStyle, options,
};
use toml::de::DeValue;

use super::error::Wrong;
use super::syntax::{Parsed, line_start};
use super::tree::{Builder, Stop, nothing, number};

pub(super) fn parse(text: &str) -> Parsed<'_> {
    let builder = Builder::new(text);
    let mut reader = Reader { text, builder, documents: 0, brackets: 0, bracket: 0 };
    // Whatever stopped it was noted.
    drop(reader.read());
    reader.builder.finish()
}

struct Reader<'t> {
    text: &'t str,
    builder: Builder<'t>,
    documents: usize,
    /// How many `[` and `{` are open, and where the outermost is.
    brackets: usize,
    bracket: usize,
}

impl<'t> Reader<'t> {
    fn read(&mut self) -> Result<(), Stop> {
        let options = options! { disallow_directives: true };
        for event in Parser::new_from_str_with_options(self.text, options) {
            match event {
                Ok((event, span)) => self.event(event, span)?,
                Err(error) => return Err(self.refused(&error)),
            }
        }
        Ok(())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a library's open set")]
    fn event(&mut self, event: Event<'t>, span: Span) -> Result<(), Stop> {
        let place = range(&span);
        if event.tag().is_some() {
            let at = span.tag_span().map_or(place.start, |tag| range(&tag).start);
            let wrong = Wrong::new("tags such as `!!str` are not read")
                .note("leave the tag out; text that looks like a number is written in quotes");
            self.builder.mistake(at, wrong)?;
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let wrong = Wrong::new("a second document begins here")
                        .note("expected one document in a file");
                    return Err(self.builder.stop(place.start, wrong));
                }
                Ok(())
            }
            Event::Scalar(scalar, style, anchor, _) if self.builder.is_at_key() => {
                self.refuse_anchor(anchor, place.start)?;
                self.key(scalar, style, place)
            }
            Event::Scalar(scalar, style, anchor, _) => self.scalar(scalar, style, place, anchor),
            Event::SequenceStart(style, anchor, _) => {
                self.begin(style, place.start)?;
                self.builder.begin_list(place.start, anchor)
            }
            Event::MappingStart(style, anchor, _) => {
                self.begin(style, place.start)?;
                self.builder.begin_table(place.start, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.brackets = self.brackets.saturating_sub(1);
                self.builder.end(place.end)
            }
            Event::Alias(_) if self.builder.is_at_key() => Err(self.no_key(place.start)),
            Event::Alias(anchor) => self.builder.alias(anchor, place.start),
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            _ => Err(self.builder.stop(place.start, Wrong::new("this is not read"))),
        }
    }

    /// Inside brackets everything is.
    fn begin(&mut self, style: StructureStyle, at: usize) -> Result<(), Stop> {
        if self.builder.is_at_key() {
            return Err(self.no_key(at));
        }
        match (self.brackets, style) {
            (0, StructureStyle::Block) => {}
            (0, StructureStyle::Flow) => (self.brackets, self.bracket) = (1, at),
            (_, StructureStyle::Block | StructureStyle::Flow) => self.brackets += 1,
        }
        Ok(())
    }

    fn no_key(&mut self, at: usize) -> Stop {
        let wrong = Wrong::new("this cannot be a key").note("expected a name");
        self.builder.stop(at, wrong)
    }

    fn refuse_anchor(&mut self, anchor: usize, at: usize) -> Result<(), Stop> {
        if anchor == 0 {
            return Ok(());
        }
        let wrong = Wrong::new("a key has no anchor").note("an anchor stands before a value");
        self.builder.mistake(at, wrong)
    }

    fn key(
        &mut self,
        key: Cow<'t, str>,
        style: ScalarStyle,
        place: Range<usize>,
    ) -> Result<(), Stop> {
        let at = place.start;
        let kind = plain(&key, style);
        let is_merge = style == ScalarStyle::Plain && key == "<<";
        self.builder.key(key, place)?;
        match kind {
            Plain::Text if is_merge => {
                let wrong = Wrong::new("YAML 1.2 has no merge key `<<`")
                    .note("write the keys out, or an alias in place of the whole value");
                self.builder.mistake(at, wrong)
            }
            Plain::Text => Ok(()),
            Plain::Nothing | Plain::Boolean(_) | Plain::Number | Plain::Special(_) => {
                let wrong = Wrong::new("a key is text, and this is read as something else")
                    .note("write it in quotes");
                self.builder.mistake(at, wrong)
            }
        }
    }

    fn scalar(
        &mut self,
        scalar: Cow<'t, str>,
        style: ScalarStyle,
        place: Range<usize>,
        anchor: usize,
    ) -> Result<(), Stop> {
        let text: &'t str = self.text;
        let value = match plain(&scalar, style) {
            Plain::Text => DeValue::String(scalar),
            Plain::Boolean(value) => DeValue::Boolean(value),
            Plain::Special(value) => number(value).expect("TOML has these"),
            // an empty document is an empty configuration
            Plain::Nothing if self.builder.is_at_root() => return Ok(()),
            Plain::Nothing => return self.builder.no_value(place.start, nothing()),
            Plain::Number => match text.get(place.clone()).and_then(number) {
                Some(value) => value,
                None => return self.builder.no_value(place.start, odd_number()),
            },
        };
        self.builder.scalar(value, place, anchor)
    }

    fn refused(&mut self, error: &ScanError) -> Stop {
        let at = self.place(error);
        // It reads ahead of us.
        if *error.kind() == ErrorKind::RecursionLimitExceeded {
            return self.builder.too_deep(at);
        }
        let mut wrong = Wrong::new(message(error.kind()));
        if let Some(cure) = cure(error.kind()) {
            wrong = wrong.note(cure);
        }
        let mut from = line_start(self.text, at);
        if self.brackets > 0 {
            // What a bracket that was not closed has swallowed reads oddly.
            from = from.min(self.bracket);
            let line = self.text[..self.bracket].matches('\n').count() + 1;
            wrong = wrong.note(format!("a bracket opens on line {line}: is it closed?"));
        }
        self.builder.stop_doubting(from, at, wrong)
    }

    /// The parser tells of a tab where the value began.
    fn place(&self, error: &ScanError) -> usize {
        let at = offset(error.marker());
        let is_tab = matches!(
            error.kind(),
            ErrorKind::TabInPlainScalar
                | ErrorKind::TabNotAllowed
                | ErrorKind::TabInIndentation
                | ErrorKind::TabInBlockIndentation
        );
        let tab = self.text.get(at..).and_then(|rest| rest.find('\t'));
        tab.filter(|_| is_tab).map_or(at, |tab| at + tab)
    }
}

fn offset(marker: &Marker) -> usize {
    marker.byte_offset().expect("a text has offsets")
}

fn range(span: &Span) -> Range<usize> {
    offset(&span.start)..offset(&span.end)
}

/// What a plain scalar is by the core schema (YAML 1.2.2 §10.3.2).
enum Plain {
    Text,
    Nothing,
    Boolean(bool),
    Number,
    /// By its name in TOML.
    Special(&'static str),
}

fn plain(scalar: &str, style: ScalarStyle) -> Plain {
    match style {
        ScalarStyle::Plain => {}
        ScalarStyle::SingleQuoted
        | ScalarStyle::DoubleQuoted
        | ScalarStyle::Literal
        | ScalarStyle::Folded => return Plain::Text,
    }
    match scalar {
        "" | "~" | "null" | "Null" | "NULL" => Plain::Nothing,
        "true" | "True" | "TRUE" => Plain::Boolean(true),
        "false" | "False" | "FALSE" => Plain::Boolean(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Plain::Special("inf"),
        "-.inf" | "-.Inf" | "-.INF" => Plain::Special("-inf"),
        ".nan" | ".NaN" | ".NAN" => Plain::Special("nan"),
        other if is_number(other) => Plain::Number,
        _ => Plain::Text,
    }
}

fn is_number(text: &str) -> bool {
    let all =
        |digits: &str, of: fn(&u8) -> bool| !digits.is_empty() && digits.as_bytes().iter().all(of);
    if let Some(digits) = text.strip_prefix("0o") {
        return all(digits, |b| (b'0'..=b'7').contains(b));
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return all(digits, u8::is_ascii_hexdigit);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    is_digits(whole)
        && is_digits(part)
        && !(whole.is_empty() && part.is_empty())
        && exponent.is_none_or(|exponent| {
            all(exponent.strip_prefix(['-', '+']).unwrap_or(exponent), u8::is_ascii_digit)
        })
}

/// `007` is seven to some readers and octal to others, `.5` and `5.` are no numbers to others. It
/// may be a secret: it is not quoted.
fn odd_number() -> Wrong {
    Wrong::new("a number with a leading zero, or with nothing before or after its point")
        .note("write 7, 0o7 or 0.5; if it is text, write it in quotes")
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a library's open set")]
fn message(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::DirectiveDisallowed => "directives such as `%YAML` are not read".to_owned(),
        ErrorKind::UnknownAnchor => "no anchor of this name stands before this alias".to_owned(),
        ErrorKind::UnexpectedCharacter { character } => {
            format!("a value cannot begin with `{character}`")
        }
        ErrorKind::TabInPlainScalar
        | ErrorKind::TabNotAllowed
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInBlockIndentation => "a tab cannot stand here".to_owned(),
        other => other.to_string(),
    }
}

/// What to do about the mistakes that people make.
#[expect(clippy::wildcard_enum_match_arm, reason = "a library's open set")]
fn cure(kind: &ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::DirectiveDisallowed => Some("leave the line out: it is read as YAML 1.2"),
        ErrorKind::UnexpectedCharacter { .. } => Some("write the value in quotes"),
        ErrorKind::MappingValueNotAllowed => Some(
            "keys of one table stand in one column; a value with `: ` inside is written in quotes",
        ),
        ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::InvalidIndentation => {
            Some("keys of one table stand in one column, and so do the `-` of one list")
        }
        ErrorKind::ExpectedFlowMappingSeparator | ErrorKind::ExpectedFlowSequenceSeparator => {
            Some("between brackets, a value with one of `{}[],` inside is written in quotes")
        }
        ErrorKind::TabInPlainScalar
        | ErrorKind::TabNotAllowed
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInBlockIndentation => Some("indent with spaces"),
        ErrorKind::InvalidQuotedScalarIndent | ErrorKind::UnclosedQuotedScalar => {
            Some("is a quote left open?")
        }
        ErrorKind::UnknownQuotedScalarEscape => {
            Some("in double quotes write `\\\\` for a backslash, or use single quotes")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Result<toml::Table, Vec<String>> {
        let parsed = parse(text);
        if parsed.mistakes.is_empty() {
            return Ok(super::super::Syntax::Yaml.table(text));
        }
        let message = |mistake: super::super::syntax::Mistake| mistake.problem.wrong.message;
        Err(parsed.mistakes.into_iter().map(message).collect())
    }

    /// As TOML writes it.
    fn value(text: &str) -> String {
        let table = values(&format!("a: {text}\n")).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        table["a"].to_string()
    }

    #[test]
    fn plain_scalars_mean_what_the_core_schema_says() {
        for text in ["true", "True", "TRUE"] {
            assert_eq!(value(text), "true");
        }
        for text in
            ["yes", "no", "on", "off", "y", "n", "NO", "tRUE", "2001-12-14", "1_000", "12:30:45"]
        {
            assert_eq!(value(text), format!("\"{text}\""), "a string");
        }
        for text in ["0x", "0o8", "-0x1", "1e", "e1", ".", "--", "+", "1.2.3", "10.0.0.0/8", "1MB"]
        {
            assert_eq!(value(text), format!("\"{text}\""), "a string");
        }
        for (text, expected) in [
            ("12", "12"),
            ("-12", "-12"),
            ("+12", "12"),
            ("0", "0"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("1e3", "1000.0"),
            ("-1.5E-1", "-0.15"),
            (".inf", "inf"),
            ("-.INF", "-inf"),
            (".nan", "nan"),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
        for text in ["\"12\"", "'12'", "\"true\"", "'~'", "''"] {
            assert!(value(text).len() >= 2 && value(text).contains(['"', '\'']), "{text}");
        }
        for odd in ["007", "-01", ".5", "5.", "00.5"] {
            let mistakes = values(&format!("a: {odd}\n")).unwrap_err();
            assert!(mistakes[0].contains("leading zero"), "{odd}: {mistakes:?}");
        }
    }

    #[test]
    fn texts_of_many_lines_and_characters_are_read_whole() {
        let text = "\u{feff}a: |\n  one\n  two\nb: >-\n  one\n  two\nc: one\n  two\n\
                    d: \"\\u00fc \\x41\"\n\u{fc}: \u{1f980}\n";
        let table = values(text).unwrap();
        let of = |key: &str| table[key].as_str().unwrap();
        assert_eq!((of("a"), of("b"), of("c")), ("one\ntwo\n", "one two", "one two"));
        assert_eq!((of("d"), of("\u{fc}")), ("\u{fc} A", "\u{1f980}"));
    }

    #[test]
    fn nothing_is_an_empty_configuration_and_two_are_too_many() {
        for empty in ["", "\n", "# nothing\n", "---\n", "--- ~\n", "{}", "---\n...\n", "\u{feff}"] {
            assert_eq!(values(empty), Ok(toml::Table::new()), "{empty:?}");
        }
        for wrong in ["a", "[]", "12", "a: 1\n...\nb: 1\n", "a: 1\n---\n"] {
            assert_eq!(values(wrong).unwrap_err().len(), 1, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_not_yaml_or_no_tree_is_refused() {
        for wrong in [
            "a: \0",
            "a: \u{7}",
            "a:\n\tb: 1",
            "a: [",
            "a: ]",
            "a: {b",
            "a: \"",
            "a: @b",
            "a: 1\n b: 2",
            "a: *b",
            "? [a]\n: 1",
            "? a: b\n: 1",
            "[a]: 1",
            "*a : 1",
            "a: %b",
            "%TAG ! x\n---\na: 1",
            "a: &b *c",
            "a: - b",
            "a: \"\\q\"",
            "a: \"\\ud800\"",
            "a: b\u{feff}\n\u{feff}c: d\0",
            "&a [a, b]: c",
            "a: !<tag",
            "a: |x\n b",
        ] {
            assert!(values(wrong).is_err(), "{wrong:?}");
        }
    }
}
