//! A document as TOML again, for `print-config` and the admin API: defaults filled in, secrets
//! hidden and, when asked, behind each value where it came from. Operators who ask by HTTP see no
//! variable's value: `${NAME}` stands where the file has it.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::error::clean;
use super::overrides::Source;
use super::read::join;
use super::{env, keys};
use crate::telemetry::secret_names;

/// The document as TOML. It loads again to the same plan, given the variables that it names: those
/// of secrets, and `HIDDEN` for every secret that the file itself contains.
pub fn print(document: &Document) -> String {
    printed(document, Look::Plain)
}

/// The same with each variable where the file has it: whoever may look at a process over the
/// network does not learn its environment.
pub fn print_with_references(document: &Document) -> String {
    printed(document, Look::References)
}

/// The secrets of a configuration as it was given, hidden in the same way.
pub fn hide(table: &mut toml::Table) {
    hide_below("", table);
}

fn hide_below(path: &str, table: &mut toml::Table) {
    for (name, value) in table.iter_mut() {
        hide_value(&join(path, name), value);
    }
}

fn hide_value(path: &str, value: &mut toml::Value) {
    match value {
        toml::Value::Table(table) => hide_below(path, table),
        toml::Value::Array(array) => {
            for (index, element) in array.iter_mut().enumerate() {
                hide_value(&format!("{path}[{index}]"), element);
            }
        }
        toml::Value::String(text) => {
            if !text.is_empty() && (is_hidden(path) || is_digest(path)) {
                *text = reference(Some(text));
            }
        }
        toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_) => {}
    }
}

/// The same with a comment on each line: file and line, `default`, the variable or the flag.
pub fn print_with_sources(document: &Document) -> String {
    printed(document, Look::Sources)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Plain,
    References,
    Sources,
}

/// Keys whose values are secrets that the file itself contains.
pub fn secrets_in_the_file(document: &Document) -> Vec<String> {
    let mut paths = Vec::new();
    let tree = document.syntax.parse(&document.source).tree;
    visit("", tree.get_ref(), &mut |path, value, _| {
        let text = value.get_ref().as_str();
        let literal = text.is_some_and(|text| env::names(text).is_empty());
        if literal && is_hidden(path) {
            paths.push(path.to_owned());
        }
    });
    paths
}

fn printed(document: &Document, look: Look) -> String {
    let lines = (look == Look::Sources).then(|| Lines::of(&document.source));
    let text = toml::to_string(document).expect("every value has a form in TOML");
    let Ok(tree) = DeTable::parse(&text) else { unreachable!("what the serializer wrote is TOML") };
    let written = document.syntax.parse(&document.source).tree;
    let mut origins: HashMap<String, &Spanned<DeValue<'_>>> = HashMap::new();
    visit("", written.get_ref(), &mut |path, value, _| {
        origins.insert(path.to_owned(), value);
    });
    let overrides: HashMap<&str, Source> =
        document.overrides.iter().map(|(path, source)| (path.as_str(), *source)).collect();
    let mut edits = Vec::new();
    visit("", tree.get_ref(), &mut |path, value, is_entry| {
        // a list of one line is printed as that line
        let origin = origins.get(path).or_else(|| origins.get(&format!("{path}[0]"))).copied();
        let of_variables = (look == Look::References && !overrides.contains_key(path))
            .then(|| of_variables(path, value, &origins))
            .flatten();
        if let Some(shown) = of_variables.or_else(|| shown(path, value, origin)) {
            edits.push((value.span(), shown));
        }
        if let (Some(lines), true) = (&lines, is_entry && is_on_one_line(value.get_ref())) {
            let end =
                text[value.span().end..].find('\n').map_or(text.len(), |n| value.span().end + n);
            edits.push((
                end..end,
                match overrides.get(path) {
                    Some(source) => source.to_string(),
                    None => place(document, origin, lines),
                },
            ));
        }
    });
    edited(&text, edits)
}

/// The text with variables in it that a value was made from, unless it is a secret.
fn of_variables(
    path: &str,
    value: &Spanned<DeValue<'_>>,
    origins: &HashMap<String, &Spanned<DeValue<'_>>>,
) -> Option<String> {
    let is_text = value.get_ref().as_str().is_some();
    if is_hidden(path) || value.get_ref().is_table() || value.get_ref().is_array() {
        return None;
    }
    // What is written in a short form, a list's only element or an address, is printed further in.
    let further_out = std::iter::successors(Some(path), |path| {
        let end = path.rfind(['.', '[']).filter(|_| is_text)?;
        Some(&path[..end])
    });
    let written = further_out
        .map(|path| origins.get(path).copied())
        .chain([origins.get(&format!("{path}[0]")).copied()])
        .flatten()
        .find_map(|origin| origin.get_ref().as_str())?;
    let reference = toml::Value::String(written.to_owned()).to_string();
    (!env::names(written).is_empty()).then_some(reference)
}

/// What stands in a value's place: a reference instead of a secret, and what looks like a variable
/// so that it does not become one.
fn shown(
    path: &str,
    value: &Spanned<DeValue<'_>>,
    origin: Option<&Spanned<DeValue<'_>>>,
) -> Option<String> {
    let text = value.get_ref().as_str()?;
    let shown = if is_hidden(path) && !text.is_empty() {
        reference(origin.and_then(|origin| origin.get_ref().as_str()))
    } else if text.contains("${") {
        env::escaped(text)
    } else {
        return None;
    };
    Some(toml::Value::String(shown).to_string())
}

/// Of a token: a short one could be guessed from it. A file may hold it in the open.
fn is_digest(path: &str) -> bool {
    keys::pattern_of(path) == "admin.tokens[].sha256"
}

/// Instead of a secret: the variables that it was written with, if any.
fn reference(written: Option<&str>) -> String {
    written.and_then(env::without_defaults).unwrap_or_else(|| "${HIDDEN}".to_owned())
}

/// Keys that are marked so, and header lines whose names are those of secrets.
fn is_hidden(path: &str) -> bool {
    keys::is_secret(path)
        || ["request_headers.", "response_headers."].iter().any(|section| {
            let header = path.split_once(section).and_then(|(_, rest)| rest.split_once('.'));
            header.is_some_and(|(_, name)| {
                let name = name.split('[').next().unwrap_or(name);
                secret_names::is_secret(name.as_bytes())
            })
        })
}

/// Arrays of tables are printed as sections.
fn is_on_one_line(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => false,
        DeValue::Array(array) => !array.iter().any(|element| element.get_ref().is_table()),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => true,
    }
}

/// Where the file has a value, and which variables are in it.
fn place(document: &Document, origin: Option<&Spanned<DeValue<'_>>>, lines: &Lines) -> String {
    let Some(origin) = origin else {
        return "default".to_owned();
    };
    let mut text = format!("{}:{}", clean(&document.path), lines.number(origin.span().start));
    let mut names = |value: &DeValue<'_>| {
        for name in value.as_str().map(env::names).unwrap_or_default() {
            text.push_str(&format!(" ${{{name}}}"));
        }
    };
    names(origin.get_ref());
    let elements = origin.get_ref().as_array();
    elements.into_iter().flatten().for_each(|element| names(element.get_ref()));
    text
}

/// Replaces ranges of the text, which do not overlap. What is put into an empty range, the end of
/// a line, is a comment.
fn edited(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| (range.start, range.end));
    let mut out = String::with_capacity(text.len() + edits.len() * 40);
    let mut at = 0;
    for (range, new) in edits {
        out.push_str(&text[at..range.start]);
        if range.is_empty() {
            let line = out.rfind('\n').map_or(0, |newline| newline + 1);
            let width = out[line..].chars().count();
            out.push_str(&" ".repeat(COMMENT_COLUMN.saturating_sub(width)));
            out.push_str(" # ");
        }
        out.push_str(&new);
        at = range.end;
    }
    out.push_str(&text[at..]);
    out
}

const COMMENT_COLUMN: usize = 44;

/// Calls `found` with the path of every value, the value, and whether it is a table's entry (and
/// not an element of a list).
pub(super) fn visit<'t>(
    path: &str,
    table: &'t DeTable<'t>,
    found: &mut impl FnMut(&str, &'t Spanned<DeValue<'t>>, bool),
) {
    for (name, value) in table {
        visit_value(&join(path, name.get_ref()), value, true, found);
    }
}

fn visit_value<'t>(
    path: &str,
    value: &'t Spanned<DeValue<'t>>,
    is_entry: bool,
    found: &mut impl FnMut(&str, &'t Spanned<DeValue<'t>>, bool),
) {
    found(path, value, is_entry);
    if let Some(table) = value.get_ref().as_table() {
        visit(path, table, found);
    }
    for (index, element) in value.get_ref().as_array().into_iter().flatten().enumerate() {
        visit_value(&format!("{path}[{index}]"), element, false, found);
    }
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Lines {
        Lines(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect())
    }

    /// From 1.
    fn number(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Environment, load_in};
    use super::*;

    const FILE: &str = r#"
[[listeners]]
name = "edge"
bind = "127.0.0.1:${PORT:-8080}"

[[routes]]
name = "all"
hosts = ["${HOST}", "b"]
respond = { body = "one\ntwo\t# no comment" }
request_headers = { set = { Authorization = "Bearer ${TOKEN:-none}", X-A = "$${A}" } }
response_headers = { add = { Set-Cookie = ["secret=1"] } }
"#;

    fn environment() -> Environment {
        Environment::of(&[("HOST", "a"), ("TOKEN", "hunter2"), ("HIDDEN", "x")])
    }

    fn document() -> Document {
        load_in("proxy.toml", FILE, &environment()).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn every_line_says_where_its_value_came_from() {
        let text = print_with_sources(&document());
        for line in [
            "cores = 0                                    # default",
            "bind = \"127.0.0.1:8080\"                      # proxy.toml:4 ${PORT}",
            "hosts = [\"a\", \"b\"]                           # proxy.toml:8 ${HOST}",
            "two\\t# no comment\"\"\"                         # proxy.toml:9",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let values = text.lines().filter(|line| line.contains(" = ")).count();
        assert_eq!(text.lines().filter(|line| line.contains(" # ")).count(), values, "{text}");
    }

    #[test]
    fn secrets_are_hidden_and_the_rest_loads_again_to_the_same() {
        let printed = print(&document());
        assert!(!printed.contains("hunter2") && !printed.contains("secret=1"), "{printed}");
        assert!(!printed.contains("none"), "a default is a secret too: {printed}");
        assert!(printed.contains("Authorization = \"Bearer ${TOKEN}\""), "{printed}");
        assert!(printed.contains("Set-Cookie = \"${HIDDEN}\""), "{printed}");
        assert!(printed.contains("X-A = \"$${A}\""), "{printed}");
        for text in [printed.clone(), print_with_sources(&document())] {
            let again = load_in("again", &text, &environment()).unwrap();
            assert_eq!(print(&again), printed);
        }
        let unset = load_in("again", &printed, &Environment::of(&[("TOKEN", "a")])).unwrap_err();
        assert!(unset.to_string().contains("`HIDDEN` is not set"), "{unset}");
    }

    #[test]
    fn operators_see_variables_where_the_file_has_them_and_no_secret() {
        let printed = print_with_references(&document());
        for line in [
            "bind = \"127.0.0.1:${PORT:-8080}\"",
            "hosts = [\"${HOST}\", \"b\"]",
            "Authorization = \"Bearer ${TOKEN}\"",
            "X-A = \"$${A}\"",
            "Set-Cookie = \"${HIDDEN}\"",
        ] {
            assert!(printed.lines().any(|found| found == line), "{line}\n{printed}");
        }
        assert!(!printed.contains("hunter2") && !printed.contains("secret=1"), "{printed}");
        let again = load_in("again", &printed, &environment()).unwrap();
        assert_eq!(print_with_references(&again), printed);
    }

    #[test]
    fn secrets_of_a_text_are_hidden_wherever_they_stand() {
        let text = "[admin]\ntokens = [{ name = \"ci\", sha256 = \"SECRET\" }, \
                    { token = \"SECRET\" }, { token = \"${NAME:-SECRET}\" }]\n\
                    [tracing.otlp.headers]\nx-team = \"SECRET\"\n\
                    [[routes]]\nname = \"r\"\n[routes.request_headers.set]\n\
                    X-Backend-Key = \"SECRET\"\nX-Env = \"prod\"\n\
                    [routes.response_headers.add]\nSet-Cookie = [\"SECRET\", \"SECRET\"]\n";
        let mut table: toml::Table = text.parse().unwrap();
        hide(&mut table);
        let shown = toml::to_string(&table).unwrap();
        assert!(!shown.contains("SECRET") && shown.contains("prod"), "{shown}");
        assert!(shown.contains("${NAME}") && shown.contains("${HIDDEN}"), "{shown}");
    }

    #[test]
    fn secrets_of_the_file_are_those_that_no_variable_brings() {
        assert_eq!(
            secrets_in_the_file(&document()),
            ["routes[0].response_headers.add.Set-Cookie[0]"]
        );
    }
}
