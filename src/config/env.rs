//! Variables of the environment in the values of a configuration: `${NAME}` and
//! `${NAME:-default}`, and `$${` for a literal `${`. They are replaced after the text was parsed,
//! so no value can change its syntax, and before it is read, so every key may use them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Problem, Wrong};
use super::read::join;
use crate::limits;

/// The variables that a configuration may name. Values are secrets until proven otherwise: they
/// are not shown by `Debug`.
#[derive(Clone, Default)]
pub struct Environment(HashMap<OsString, OsString>);

impl Environment {
    pub fn of_process() -> Environment {
        Environment(std::env::vars_os().collect())
    }

    pub fn of(pairs: &[(&str, &str)]) -> Environment {
        Environment(pairs.iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// The value of a variable that is not empty; the error is a sentence.
    pub(crate) fn value(&self, name: &str) -> Result<Option<&str>, String> {
        let value = self.text(name).map_err(|wrong| wrong.message)?;
        Ok(value.filter(|text| !text.is_empty()))
    }

    /// `None`: not set.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Wrong> {
        let Some(value) = self.0.get(std::ffi::OsStr::new(name)) else {
            return Ok(None);
        };
        value.to_str().map(Some).ok_or_else(|| {
            Wrong::new(format!("the environment variable `{name}` is not UTF-8"))
                .note("expected text")
        })
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} variables", self.0.len())
    }
}

/// Which values had variables in them: names by the offset of the value.
#[derive(Debug, Default)]
pub(super) struct Variables(HashMap<usize, Vec<String>>);

impl Variables {
    pub(super) fn of(&self, offset: usize) -> Option<&[String]> {
        self.0.get(&offset).map(Vec::as_slice)
    }
}

/// Replaces the variables in every string of the tree. A string with a mistake stays as it is.
pub(super) fn expand(
    tree: &mut DeTable<'_>,
    environment: &Environment,
) -> (Variables, Vec<Problem>) {
    let mut expansion = Expansion {
        environment,
        variables: Variables::default(),
        problems: Vec::new(),
        room: limits::CONFIG_BYTES_MAX,
    };
    expansion.table("", tree); // and not the text: `\u0024{A}` is a variable wherever it stands
    (expansion.variables, expansion.problems)
}

struct Expansion<'e> {
    environment: &'e Environment,
    variables: Variables,
    problems: Vec<Problem>,
    /// Bytes that values may still become.
    room: usize,
}

impl Expansion<'_> {
    fn table(&mut self, path: &str, table: &mut DeTable<'_>) {
        for (name, value) in table.iter_mut() {
            self.value(&join(path, name.get_ref()), value);
        }
    }

    fn value(&mut self, path: &str, value: &mut Spanned<DeValue<'_>>) {
        let offset = value.span().start;
        match value.get_mut() {
            DeValue::Table(table) => self.table(path, table),
            DeValue::Array(array) => {
                for (index, element) in array.iter_mut().enumerate() {
                    self.value(&format!("{path}[{index}]"), element);
                }
            }
            DeValue::String(given) if given.contains("${") => {
                match self.replaced(given) {
                    Ok((replaced, names)) => {
                        *given = replaced.into();
                        self.variables.0.insert(offset, names);
                    }
                    Err(wrong) => {
                        let key = path.to_owned();
                        self.problems.push(Problem { offset: Some(offset), key, wrong });
                    }
                };
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }

    fn replaced(&mut self, given: &str) -> Result<(String, Vec<String>), Wrong> {
        let mut out = String::with_capacity(given.len());
        let mut names = Vec::new();
        for part in parts(given)? {
            let text = match part {
                Part::Text(text) => text,
                Part::Variable { name, default } => {
                    names.push(name.to_owned());
                    found(self.environment, name, default)?
                }
            };
            self.room = self.room.checked_sub(text.len()).ok_or_else(too_much)?;
            out.push_str(text);
        }
        Ok((out, names))
    }
}

/// As in a shell, an empty variable takes the default too.
fn found<'v>(
    environment: &'v Environment,
    name: &str,
    default: Option<&'v str>,
) -> Result<&'v str, Wrong> {
    match (environment.text(name)?, default) {
        (Some("") | None, Some(default)) => Ok(default),
        (Some(value), _) => Ok(value),
        (None, None) => Err(Wrong::new(format!("the environment variable `{name}` is not set"))
            .note(format!("set it, or write a default: `${{{name}:-default}}`"))),
    }
}

fn too_much() -> Wrong {
    Wrong::new("the variables of this file are too long together")
        .note(format!("expected at most {} bytes of values", limits::CONFIG_BYTES_MAX))
}

#[derive(Debug, PartialEq, Eq)]
enum Part<'t> {
    Text(&'t str),
    Variable { name: &'t str, default: Option<&'t str> },
}

fn parts(given: &str) -> Result<Vec<Part<'_>>, Wrong> {
    let mut parts = Vec::new();
    let mut rest = given;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            parts.extend([Part::Text(before), Part::Text("${")]);
            rest = &from[2..];
            continue;
        }
        let Some((inside, after)) = from[2..].split_once('}') else {
            return Err(malformed("`${` without its `}`".to_owned()));
        };
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if !is_name(name) {
            return Err(malformed("`${` is not followed by the name of a variable".to_owned()));
        }
        if default.is_some_and(|default| default.contains("${")) {
            return Err(malformed(format!("the default of `{name}` names another variable")));
        }
        parts.extend([Part::Text(before), Part::Variable { name, default }]);
        rest = after;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

fn malformed(message: String) -> Wrong {
    Wrong::new(message)
        .note("expected `${NAME}` or `${NAME:-default}`; write `$${` for a literal `${`")
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A literal text, so written that it is read back as itself.
pub(super) fn escaped(text: &str) -> String {
    text.replace("${", "$${")
}

/// The same reference to variables without their defaults, which may be secrets; `None` when there
/// is no variable.
pub(super) fn without_defaults(given: &str) -> Option<String> {
    let parts = parts(given).ok()?;
    let written = |part: &Part<'_>| match part {
        Part::Text(text) => escaped(text),
        Part::Variable { name, .. } => format!("${{{name}}}"),
    };
    let is_variable = |part: &Part<'_>| matches!(part, Part::Variable { .. });
    parts.iter().any(is_variable).then(|| parts.iter().map(written).collect())
}

/// The names of the variables in a value.
pub(super) fn names(given: &str) -> Vec<&str> {
    let parts = parts(given).unwrap_or_default();
    let names = parts.into_iter().filter_map(|part| match part {
        Part::Text(_) => None,
        Part::Variable { name, .. } => Some(name),
    });
    names.collect()
}

/// Reads what came from a variable, which has no type of its own, as text or else as the number or
/// boolean that it looks like.
pub(super) fn typed<T>(
    text: &str,
    parse: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
) -> Result<T, Wrong> {
    let as_text = match parse(&DeValue::String(text.into())) {
        Ok(value) => return Ok(value),
        Err(wrong) => wrong,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_');
    if text.len() > SCALAR_BYTES_MAX || !text.bytes().all(plain) {
        return Err(as_text);
    }
    let scalar = DeValue::parse(text).map(Spanned::into_inner);
    match scalar {
        Ok(scalar @ (DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_))) => {
            // The more telling of two mistakes: not that it should have been another type.
            parse(&scalar).map_err(|wrong| if wrong.is_of_type { as_text } else { wrong })
        }
        Ok(_) | Err(_) => Err(as_text),
    }
}

/// No number is longer.
const SCALAR_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::load_in;
    use super::*;

    fn environment() -> Environment {
        Environment::of(&[("A", "one"), ("EMPTY", ""), ("QUOTE", "\"\n[x]\n${A} $${")])
    }

    fn replaced(text: &str) -> Result<String, String> {
        let environment = environment();
        let mut expansion = Expansion {
            environment: &environment,
            variables: Variables::default(),
            problems: Vec::new(),
            room: 1000,
        };
        expansion.replaced(text).map(|(text, _)| text).map_err(|wrong| wrong.message)
    }

    #[test]
    fn variables_are_replaced_once_and_defaults_stand_in_for_missing_and_empty_ones() {
        let cases = [
            ("${A}", "one"),
            ("a${A}b${A}c", "aonebonec"),
            ("${EMPTY}", ""),
            ("${EMPTY:-x}", "x"),
            ("${NONE:-http://h:1/:-}", "http://h:1/:-"),
            ("${NONE:-}", ""),
            ("${A:-x}", "one"),
            // What a value contains is not looked at again.
            ("${QUOTE}", "\"\n[x]\n${A} $${"),
            ("$${A}", "${A}"),
            ("$$${A}", "$${A}"),
            ("$A $ {A} $", "$A $ {A} $"),
        ];
        for (text, expected) in cases {
            assert_eq!(replaced(text).as_deref(), Ok(expected), "{text}");
        }
        for wrong in ["${", "${A", "${}", "${ A}", "${A:x}", "${1A}", "${\u{e9}}", "${A:-${B}}"] {
            assert!(replaced(wrong).is_err(), "{wrong}");
        }
        assert_eq!(replaced("${NONE}").unwrap_err(), "the environment variable `NONE` is not set");
    }

    #[test]
    fn what_is_escaped_is_read_back_as_itself() {
        for text in ["${A}", "$${A}", "$$$${", "a", "${", "$"] {
            assert_eq!(replaced(&escaped(text)).as_deref(), Ok(text));
        }
    }

    #[test]
    fn variables_cannot_make_a_small_file_fill_the_memory() {
        let long = "x".repeat(1 << 20);
        let text = format!("[clusters]\na = [{}]", "\"${A}\", ".repeat(100));
        let errors = load_in("f", &text, &Environment::of(&[("A", &long)])).unwrap_err();
        assert!(errors.to_string().contains("too long together"), "{errors}");
    }

    #[test]
    fn a_variable_is_one_however_its_dollar_is_written() {
        let text = "user = \"\\u0024{NONE}\"";
        let errors = load_in("f", text, &environment()).unwrap_err();
        assert!(errors.to_string().contains("`NONE` is not set"), "{errors}");
    }

    #[test]
    fn a_default_is_not_part_of_a_reference() {
        let reference = without_defaults("Bearer ${A:-hunter2} $${B} ${C}");
        assert_eq!(reference.as_deref(), Some("Bearer ${A} $${B} ${C}"));
        assert_eq!(without_defaults("hunter2 $${A}"), None);
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_not_text_are_refused_by_name() {
        use std::os::unix::ffi::OsStringExt as _;
        let environment =
            Environment(HashMap::from([("B".into(), OsString::from_vec(vec![0xff]))]));
        let errors = load_in("f", "proxy_id = \"${B}\"", &environment).unwrap_err().to_string();
        let expected = "f:1:12: proxy_id: the environment variable `B` is not UTF-8\n";
        assert!(errors.contains(expected), "{errors}");
    }
}
