//! A typed reader over the tree of a text, which is in the types of TOML's parser whatever the
//! syntax. Unlike a derived deserializer it does not stop at the first mistake: each section takes
//! the keys that it knows, and whatever is left is unknown. Only [`super::document`] calls it.

use std::cell::RefCell;

use serde::{Serialize, Serializer};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::env::{self, Variables};
use super::error::{Offset, Problem, Wrong};
use super::keys;
use super::value::{Written, found};
use crate::limits;

/// A value, and where it was written.
#[derive(Clone, Debug)]
pub struct At<T> {
    pub value: T,
    pub(super) offset: Offset,
}

impl<T> At<T> {
    /// A value that the text does not contain: a default, or a flag of the command line.
    pub fn unplaced(value: T) -> At<T> {
        At { value, offset: None }
    }
}

impl<T: Written> Serialize for At<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.written().serialize(serializer)
    }
}

/// Collects what is wrong while sections are read.
pub(super) struct Reader {
    problems: RefCell<Vec<Problem>>,
    /// The text has mistakes of syntax: the tree has holes, so absence proves nothing.
    torn: bool,
    variables: Variables,
    /// Every key that was asked for, as in the registry.
    #[cfg(test)]
    pub(super) asked: RefCell<std::collections::BTreeSet<String>>,
}

impl Reader {
    pub(super) fn new(torn: bool, variables: Variables) -> Reader {
        Reader {
            problems: RefCell::new(Vec::new()),
            torn,
            variables,
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    pub(super) fn root<'t>(&'t self, table: &'t DeTable<'t>) -> Section<'t> {
        Section {
            reader: self,
            table: Some(table),
            path: String::new(),
            offset: Some(0),
            asked: Vec::new(),
        }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    fn push(&self, offset: Offset, key: &str, wrong: Wrong) {
        self.problems.borrow_mut().push(Problem { offset, key: key.to_owned(), wrong });
    }
}

/// One table. Dropping it without [`Section::finish`] would accept unknown keys.
#[must_use]
pub(super) struct Section<'t> {
    reader: &'t Reader,
    /// `None`: not in the text.
    table: Option<&'t DeTable<'t>>,
    pub(super) path: String,
    pub(super) offset: Offset,
    asked: Vec<&'static str>,
}

/// One value of a section or of a list.
pub(super) struct Item<'t> {
    reader: &'t Reader,
    value: &'t Spanned<DeValue<'t>>,
    path: String,
}

impl<'t> Section<'t> {
    /// The value of a key, or `None` when it is absent or wrong (which is then reported).
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<At<T>> {
        self.item(key)?.parse(parse)
    }

    /// Like [`Section::value`], for a key with a default.
    pub(super) fn value_or<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> At<T> {
        self.value(key, parse).unwrap_or_else(|| At::unplaced(default))
    }

    /// Like [`Section::value`], for a key that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<At<T>> {
        if !self.has(key) {
            self.missing(key, expected);
        }
        self.value(key, parse)
    }

    /// A list of values; wrong ones are reported and left out.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Vec<At<T>> {
        let Some(item) = self.item(key) else {
            return Vec::new();
        };
        item.elements().iter().filter_map(|element| element.parse(&parse)).collect()
    }

    /// Like [`Section::list`], where one value alone need not stand in brackets.
    pub(super) fn one_or_list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Vec<At<T>> {
        let Some(item) = self.item(key) else {
            return Vec::new();
        };
        let items = if item.is_array() { item.elements() } else { vec![item] };
        items.iter().filter_map(|item| item.parse(&parse)).collect()
    }

    /// A table below this one. An absent one is read as empty, so that its defaults have one home.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'t> {
        self.optional_section(key).unwrap_or_else(|| Section {
            reader: self.reader,
            table: None,
            path: join(&self.path, key),
            offset: self.offset,
            asked: Vec::new(),
        })
    }

    pub(super) fn optional_section(&mut self, key: &'static str) -> Option<Section<'t>> {
        self.item(key)?.table()
    }

    /// A list of tables.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'t>> {
        let Some(item) = self.item(key) else {
            return Vec::new();
        };
        item.elements().iter().filter_map(Item::table).collect()
    }

    /// The entries of a table whose keys the operator chooses, in the order of the text.
    pub(super) fn entries(&mut self, key: &'static str) -> Vec<(At<String>, Item<'t>)> {
        let Some(section) = self.optional_section(key) else {
            return Vec::new();
        };
        let mut entries: Vec<(At<String>, Item<'t>)> = section
            .table
            .into_iter()
            .flatten()
            .map(|(name, value)| {
                let path = join(&section.path, name.get_ref());
                let offset = Some(name.span().start);
                let name = At { value: name.get_ref().clone().into_owned(), offset };
                (name, Item { reader: self.reader, value, path })
            })
            .collect();
        entries.sort_by_key(|(name, _)| name.offset);
        entries
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    pub(super) fn is_boolean(&self, key: &str) -> bool {
        let value = self.table.and_then(|table| table.get(key));
        value.is_some_and(|value| value.get_ref().is_bool())
    }

    pub(super) fn missing(&self, key: &str, expected: &str) {
        if !self.reader.torn {
            let wrong = Wrong::new("this key is missing").note(format!("expected {expected}"));
            self.reader.push(self.offset, &join(&self.path, key), wrong);
        }
    }

    pub(super) fn offset_of(&self, key: &str) -> Offset {
        self.table.and_then(|table| table.get(key)).map_or(self.offset, |v| Some(v.span().start))
    }

    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        let value = self.table.and_then(|table| table.get(key));
        value.and_then(|v| v.get_ref().as_array()).is_some_and(|list| list.is_empty())
    }

    /// A mistake of the whole section.
    pub(super) fn refuse(&self, wrong: Wrong) {
        if !self.reader.torn {
            self.reader.push(self.offset, &self.path, wrong);
        }
    }

    /// A mistake that shows only beside other keys.
    pub(super) fn refuse_key(&self, key: &str, offset: Offset, wrong: Wrong) {
        self.reader.push(offset, &join(&self.path, key), wrong);
    }

    /// Reports every key that nothing asked for.
    pub(super) fn finish(self) {
        for (name, _) in self.table.into_iter().flatten() {
            let given = name.get_ref().as_ref();
            if self.asked.contains(&given) {
                continue;
            }
            // More are not printed, and what was meant takes long to guess.
            if self.reader.problems.borrow().len() > limits::CONFIG_ERRORS_MAX {
                return;
            }
            let mut known = self.asked.clone();
            known.sort_unstable();
            let section = if self.path.is_empty() {
                "keys here are".to_owned()
            } else {
                format!("keys of `{}` are", self.path)
            };
            let mut wrong = Wrong::new("unknown key").choices(&section, given, &known);
            if wrong.notes.len() < 2
                && let Some(home) = keys::home_of(given)
            {
                wrong = wrong.note(format!("there is a key of this name: `{home}`"));
            }
            self.reader.push(Some(name.span().start), &join(&self.path, given), wrong);
        }
    }

    fn item(&mut self, key: &'static str) -> Option<Item<'t>> {
        self.asked.push(key);
        let path = join(&self.path, key);
        #[cfg(test)]
        self.reader.asked.borrow_mut().insert(keys::pattern_of(&path));
        let value = self.table?.get(key)?;
        // The parser puts an empty placeholder where it could not read a value.
        if self.reader.torn && value.span().is_empty() {
            return None;
        }
        Some(Item { reader: self.reader, value, path })
    }
}

impl<'t> Item<'t> {
    pub(super) fn parse<T>(
        &self,
        parse: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<At<T>> {
        let offset = Some(self.value.span().start);
        match self.typed(parse) {
            Ok(value) => Some(At { value, offset }),
            Err(wrong) => {
                self.reader.push(offset, &self.path, self.shown(wrong));
                None
            }
        }
    }

    fn typed<T>(&self, parse: impl Fn(&DeValue<'_>) -> Result<T, Wrong>) -> Result<T, Wrong> {
        let value = self.value.get_ref();
        match (self.reader.variables.of(self.value.span().start), value.as_str()) {
            (Some([]) | None, _) | (_, None) => parse(value),
            (Some(names), Some(text)) => env::typed(text, parse).map_err(|wrong| {
                wrong.note(format!("the value comes from the environment: {}", names.join(", ")))
            }),
        }
    }

    /// A mistake in a secret does not quote it.
    fn shown(&self, wrong: Wrong) -> Wrong {
        match self.value.get_ref().as_str() {
            Some(secret) if keys::is_secret(&self.path) => wrong.hiding(secret),
            Some(_) | None => wrong,
        }
    }

    /// This value as a table.
    pub(super) fn table(&self) -> Option<Section<'t>> {
        let offset = Some(self.value.span().start);
        let DeValue::Table(table) = self.value.get_ref() else {
            let wrong =
                Wrong::new(format!("expected a table, found {}", found(self.value.get_ref())));
            self.reader.push(offset, &self.path, wrong);
            return None;
        };
        Some(Section {
            reader: self.reader,
            table: Some(table),
            path: self.path.clone(),
            offset,
            asked: Vec::new(),
        })
    }

    pub(super) fn is_array(&self) -> bool {
        self.value.get_ref().is_array()
    }

    /// The elements of an array.
    pub(super) fn elements(&self) -> Vec<Item<'t>> {
        let DeValue::Array(array) = self.value.get_ref() else {
            let offset = Some(self.value.span().start);
            let wrong =
                Wrong::new(format!("expected a list, found {}", found(self.value.get_ref())))
                    .note("a list is written in brackets, even when it has one element");
            self.reader.push(offset, &self.path, wrong);
            return Vec::new();
        };
        self.indexed(array)
    }

    fn indexed(&self, array: &'t DeArray<'t>) -> Vec<Item<'t>> {
        array
            .iter()
            .enumerate()
            .map(|(index, value)| Item {
                reader: self.reader,
                value,
                path: format!("{}[{index}]", self.path),
            })
            .collect()
    }

    /// A mistake that only the caller can see.
    pub(super) fn refuse(&self, offset: Offset, wrong: Wrong) {
        self.reader.push(offset, &self.path, wrong);
    }
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
