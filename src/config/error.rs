//! What is wrong with a configuration: every mistake at once, each with its place and a way out.
//! Reading and checking push `Problem`s with byte offsets; [`Errors`] turns those into lines
//! once, at the end, so that a file of one long line costs nothing extra.

use std::fmt;

use crate::limits;

/// Byte offset in the text; `None` for what did not come from it (a default, a flag).
pub(super) type Offset = Option<usize>;

/// One mistake, where it was found.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) offset: Offset,
    /// The key as an operator writes it, `routes[2].cluster`; empty for a mistake of syntax.
    pub(super) key: String,
    pub(super) wrong: Wrong,
}

/// What is wrong with a value, before its place is known.
#[derive(Clone, Debug)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) notes: Vec<String>,
    /// A value of another type was expected.
    pub(super) is_of_type: bool,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>) -> Wrong {
        Wrong { message: message.into(), notes: Vec::new(), is_of_type: false }
    }

    pub(super) fn of_type(message: impl Into<String>) -> Wrong {
        Wrong { is_of_type: true, ..Wrong::new(message) }
    }

    /// The same without a text that must not be seen.
    pub(super) fn hiding(mut self, secret: &str) -> Wrong {
        if !secret.is_empty() {
            for text in self.notes.iter_mut().chain([&mut self.message]) {
                *text = text.replace(secret, "(hidden)");
            }
        }
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Wrong {
        self.notes.push(note.into());
        self
    }

    /// The names that exist here and, when one of them is close, which was probably meant.
    pub(super) fn choices(self, label: &str, given: &str, names: &[&str]) -> Wrong {
        let mut shown = names.iter().take(NAMES_SHOWN).copied().collect::<Vec<_>>().join(", ");
        if names.len() > NAMES_SHOWN {
            shown.push_str(&format!(" and {} more", names.len() - NAMES_SHOWN));
        }
        let listed = if names.is_empty() { self } else { self.note(format!("{label}: {shown}")) };
        match nearest(given, names.iter().copied()) {
            Some(name) => listed.note(format!("did you mean `{name}`?")),
            None => listed,
        }
    }
}

/// Lists in messages stop here; nobody reads ten thousand cluster names.
const NAMES_SHOWN: usize = 12;

/// All mistakes of one text, in the order of their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    path: String,
    list: Vec<Error>,
    /// There were more than [`limits::CONFIG_ERRORS_MAX`].
    more: bool,
}

/// One mistake, as printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Line and column, from 1; `None` for what did not come from the text.
    pub place: Option<(usize, usize)>,
    pub key: String,
    pub message: String,
    pub notes: Vec<String>,
}

impl Errors {
    pub(super) fn new(path: &str, text: &str, mut problems: Vec<Problem>) -> Errors {
        problems.sort_by_key(|problem| problem.offset);
        let more = problems.len() > limits::CONFIG_ERRORS_MAX;
        problems.truncate(limits::CONFIG_ERRORS_MAX);
        let list = problems
            .into_iter()
            .map(|problem| Error {
                place: problem.offset.map(|offset| place(text, offset)),
                key: problem.key,
                message: problem.wrong.message,
                notes: problem.wrong.notes,
            })
            .collect();
        Errors { path: path.to_owned(), list, more }
    }

    pub fn list(&self) -> &[Error] {
        &self.list
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// For a text that nobody has seen in this form: keys say where, lines would mislead.
    pub fn without_places(mut self) -> Errors {
        self.list.iter_mut().for_each(|error| error.place = None);
        self
    }

    /// The same text with `warning` in each first line.
    pub fn as_warnings(&self) -> String {
        let mut text = String::new();
        for error in &self.list {
            text.push_str(&one(&self.path, error, "warning: "));
        }
        text
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.list {
            f.write_str(&one(&self.path, error, ""))?;
        }
        if self.more {
            writeln!(f, "{}: and more errors, mend these first", clean(&self.path))?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

fn one(path: &str, error: &Error, severity: &str) -> String {
    let mut text = clean(path);
    if let Some((line, column)) = error.place {
        text.push_str(&format!(":{line}:{column}"));
    }
    text.push_str(": ");
    text.push_str(severity);
    if !error.key.is_empty() {
        text.push_str(&clean(&error.key));
        text.push_str(": ");
    }
    text.push_str(&clean(&error.message));
    for note in &error.notes {
        text.push_str("\n  ");
        text.push_str(&clean(note));
    }
    text.push('\n');
    text
}

/// What was quoted from the file must not drive a terminal or forge a second message.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Line and column (in characters), both from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
    let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
    (line, column)
}

/// The name that was probably meant: at most a third of its characters may differ.
pub(super) fn nearest<'n>(given: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let given = given.to_ascii_lowercase();
    if given.chars().count() > NAME_LENGTH_MAX {
        return None;
    }
    names
        .filter(|name| name.chars().count() <= NAME_LENGTH_MAX)
        .map(|name| (distance(&given, &name.to_ascii_lowercase()), name))
        .filter(|(edits, name)| *edits <= edits_max(name))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

fn edits_max(name: &str) -> usize {
    match name.chars().count() {
        // `h2` is not a mistyped `h1`
        0..=2 => 0,
        length => length / 3,
    }
}

/// Comparing is quadratic; no real name is longer.
const NAME_LENGTH_MAX: usize = 100;

/// Edits between two words; two neighbours that changed places are one edit.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // Only the last two rows of the table are looked back at.
    let mut older = vec![0; b.len() + 1];
    let mut old: Vec<usize> = (0..=b.len()).collect();
    let mut new = vec![0; b.len() + 1];
    for i in 1..=a.len() {
        new[0] = i;
        for j in 1..=b.len() {
            let other = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (old[j] + 1).min(new[j - 1] + 1).min(old[j - 1] + other);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(older[j - 2] + 1);
            }
            new[j] = least;
        }
        std::mem::swap(&mut older, &mut old);
        std::mem::swap(&mut old, &mut new);
    }
    old[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_and_missing_letters_are_near_and_other_words_are_not() {
        let names = ["orders", "payments", "users"];
        assert_eq!(nearest("order", names.into_iter()), Some("orders"));
        assert_eq!(nearest("oredrs", names.into_iter()), Some("orders"));
        assert_eq!(nearest("Users", names.into_iter()), Some("users"));
        assert_eq!(nearest("invoices", names.into_iter()), None);
        assert_eq!(nearest("", names.into_iter()), None);
    }

    #[test]
    fn columns_count_characters_and_the_end_of_the_text_has_a_place() {
        assert_eq!(place("a\nüb = 1", 5), (2, 3));
        assert_eq!(place("a\n", 2), (2, 1));
        assert_eq!(place("", 7), (1, 1));
        // in the middle of a character
        assert_eq!(place("ü", 1), (1, 2));
    }

    #[test]
    fn quoted_bytes_cannot_forge_a_line() {
        let problem =
            Problem { offset: Some(0), key: "a\nb".into(), wrong: Wrong::new("bad \u{1b}[2J") };
        let errors = Errors::new("f.toml", "x", vec![problem]);
        assert_eq!(errors.to_string(), "f.toml:1:1: a\\nb: bad \\u{1b}[2J\n");
    }
}
