//! The syntaxes of a configuration: TOML, YAML and JSON. Each turns a text into the same tree with
//! places, which is all that the rest of this folder knows: one schema, the same messages.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, Error};

use super::error::{Problem, Wrong};
use super::{json, yaml};
use crate::limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    Toml,
    Yaml,
    Json,
}

/// What was read, as far as it could be. Where a value is missing, its place is empty.
pub(super) struct Parsed<'t> {
    pub(super) tree: Spanned<DeTable<'t>>,
    pub(super) mistakes: Vec<Mistake>,
}

/// What is wrong with the syntax of a text.
pub(super) struct Mistake {
    pub(super) problem: Problem,
    /// What is said of these parts of the text is probably a consequence.
    pub(super) doubtful: Vec<Range<usize>>,
}

impl Mistake {
    fn doubts(&self, at: usize) -> bool {
        self.doubtful.iter().any(|range| range.contains(&at))
    }
}

impl Syntax {
    /// That of a file, by the end of its name. What has no other is TOML.
    pub fn of_file(name: &Path) -> Syntax {
        let extension = name.extension().map(|extension| extension.to_ascii_lowercase());
        match extension.as_ref().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml") => Syntax::Yaml,
            Some("json") => Syntax::Json,
            Some(_) | None => Syntax::Toml,
        }
    }

    /// As messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Syntax::Toml => "TOML",
            Syntax::Yaml => "YAML",
            Syntax::Json => "JSON",
        }
    }

    /// The values of a text that was read without mistakes before.
    pub fn table(self, text: &str) -> toml::Table {
        let tree = self.parse(text).tree;
        let table = serde::Deserialize::deserialize(toml::de::Deserializer::from(tree));
        table.expect("what was read has a table of values")
    }

    pub(super) fn parse(self, text: &str) -> Parsed<'_> {
        match self {
            Syntax::Toml => {
                let (tree, errors) = DeTable::parse_recoverable(text);
                Parsed { tree, mistakes: of_toml(text, &errors) }
            }
            Syntax::Yaml => yaml::parse(text),
            Syntax::Json => json::parse(text),
        }
    }
}

/// Mistakes of syntax, and those others that are surely not their consequence: a value on a line
/// that could not be read may not be what was written, nor is a key below a broken `[header]`
/// where it seems to be.
pub(super) fn beside(mistakes: Vec<Mistake>, found: Vec<Problem>) -> Vec<Problem> {
    let sure = |at: usize| !mistakes.iter().any(|mistake| mistake.doubts(at));
    let mut problems: Vec<Problem> =
        found.into_iter().filter(|problem| problem.offset.is_none_or(sure)).collect();
    problems.extend(mistakes.into_iter().map(|mistake| mistake.problem));
    problems
}

fn of_toml(text: &str, errors: &[Error]) -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = Vec::new();
    for error in errors.iter().take(limits::CONFIG_ERRORS_MAX + 1) {
        let span = error.span().unwrap_or(0..0);
        // One mistake often makes the parser stumble twice on the same line.
        if mistakes.iter().any(|before| before.doubts(span.start)) {
            continue;
        }
        let message = match (error.message(), text.get(span.clone())) {
            ("duplicate key", Some(key)) => format!("duplicate key `{key}`"),
            (message, _) => message.to_owned(),
        };
        let wrong = Wrong::new(message);
        let problem = Problem { offset: Some(span.start), key: String::new(), wrong };
        mistakes.push(Mistake { problem, doubtful: vec![consequences(text, span.start)] });
    }
    mistakes
}

/// The line of a mistake of syntax; all lines up to the next header when it is a header.
fn consequences(text: &str, at: usize) -> Range<usize> {
    let bytes = text.as_bytes();
    let start = line_start(text, at);
    let is_header = |line: &[u8]| line.trim_ascii_start().starts_with(b"[");
    let mut end = start;
    for (index, line) in bytes[start..].split_inclusive(|&b| b == b'\n').enumerate() {
        let over = if is_header(&bytes[start..]) { is_header(line) } else { true };
        if index > 0 && over {
            break;
        }
        end += line.len();
    }
    // the end of the text belongs to its last line
    start..if end == bytes.len() { end + 1 } else { end }
}

pub(super) fn line_start(text: &str, at: usize) -> usize {
    let before = &text.as_bytes()[..at.min(text.len())];
    before.iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_name_says_which_syntax_it_is() {
        let of = |name: &str| Syntax::of_file(Path::new(name));
        for name in ["a.yaml", "a.yml", "/etc/x.toml/a.YAML", "a.json.yaml"] {
            assert_eq!(of(name), Syntax::Yaml, "{name}");
        }
        assert_eq!(of("a.json"), Syntax::Json);
        for name in ["a.toml", "a", "", "yaml", ".json", "a.yaml/b", "a.conf", "a.json~"] {
            assert_eq!(of(name), Syntax::Toml, "{name}");
        }
    }
}
