//! Builds the tree of a configuration from the tokens of YAML and JSON; TOML's parser brings its
//! own. What both may get wrong is found here: keys that are there twice, values that are none,
//! nesting without end, and repetition without end.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::error::{Problem, Wrong};
use super::read::join;
use super::syntax::{Mistake, Parsed};
use crate::limits;

/// Reading cannot go on; the mistake is noted.
pub(super) struct Stop;

pub(super) struct Builder<'t> {
    text: &'t str,
    /// From the root to where the reader is.
    open: Vec<Open<'t>>,
    root: Option<Spanned<DeValue<'t>>>,
    mistakes: Vec<Mistake>,
    anchors: HashMap<usize, Node<'t>>,
    /// Bytes of text that anchors keep and aliases repeat.
    repeated: usize,
}

struct Open<'t> {
    items: Items<'t>,
    start: usize,
    /// 0: none.
    anchor: usize,
    size: Size,
}

enum Items<'t> {
    /// With the key whose value comes next.
    Table(DeTable<'t>, Option<Spanned<DeString<'t>>>),
    List(DeArray<'t>),
}

#[derive(Clone)]
struct Node<'t> {
    value: Spanned<DeValue<'t>>,
    size: Size,
}

#[derive(Clone, Copy, Default)]
struct Size {
    /// Bytes of text that aliases bring into it.
    repeated: usize,
    /// How many levels it has.
    depth: usize,
}

impl<'t> Builder<'t> {
    pub(super) fn new(text: &'t str) -> Builder<'t> {
        Builder {
            text,
            open: Vec::new(),
            root: None,
            mistakes: Vec::new(),
            anchors: HashMap::new(),
            repeated: 0,
        }
    }

    /// Whether the next value is a key.
    pub(super) fn is_at_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { items: Items::Table(_, None), .. }))
    }

    pub(super) fn is_at_root(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn key(&mut self, key: DeString<'t>, span: Range<usize>) -> Result<(), Stop> {
        let Some(Open { items: Items::Table(table, next), .. }) = self.open.last_mut() else {
            unreachable!("a key stands in a table");
        };
        let twice = table.contains_key(key.as_ref()).then(|| format!("duplicate key `{key}`"));
        *next = Some(Spanned::new(span.clone(), key));
        match twice {
            Some(message) => self.mistake(span.start, Wrong::new(message)),
            None => Ok(()),
        }
    }

    pub(super) fn begin_table(&mut self, start: usize, anchor: usize) -> Result<(), Stop> {
        self.begin(Items::Table(DeTable::new(), None), start, anchor)
    }

    pub(super) fn begin_list(&mut self, start: usize, anchor: usize) -> Result<(), Stop> {
        self.begin(Items::List(DeArray::new()), start, anchor)
    }

    fn begin(&mut self, items: Items<'t>, start: usize, anchor: usize) -> Result<(), Stop> {
        if self.open.len() >= limits::CONFIG_DEPTH_MAX {
            return Err(self.too_deep(start));
        }
        self.open.push(Open { items, start, anchor, size: Size::default() });
        Ok(())
    }

    /// The innermost table or list ends before `end`.
    pub(super) fn end(&mut self, end: usize) -> Result<(), Stop> {
        let Some(Open { items, start, anchor, mut size }) = self.open.pop() else {
            unreachable!("what ends has begun");
        };
        let value = match items {
            Items::Table(table, _) => DeValue::Table(table),
            Items::List(list) => DeValue::Array(list),
        };
        let span = start..end.max(start + 1);
        size.depth += 1;
        self.node(Node { value: Spanned::new(span, value), size }, anchor)
    }

    pub(super) fn scalar(
        &mut self,
        value: DeValue<'t>,
        span: Range<usize>,
        anchor: usize,
    ) -> Result<(), Stop> {
        self.node(Node { value: Spanned::new(span, value), size: Size::default() }, anchor)
    }

    /// A mistake in place of a value.
    pub(super) fn no_value(&mut self, at: usize, wrong: Wrong) -> Result<(), Stop> {
        let mistake = self.mistake(at, wrong);
        // The reader of sections passes over what has an empty place.
        self.scalar(DeValue::String("".into()), at..at, 0)?;
        mistake
    }

    pub(super) fn alias(&mut self, anchor: usize, at: usize) -> Result<(), Stop> {
        let Some(node) = self.anchors.get(&anchor) else {
            let wrong = Wrong::new("this alias stands in the very value that it repeats");
            return Err(self.stop(at, wrong));
        };
        if self.open.len() + node.size.depth > limits::CONFIG_DEPTH_MAX {
            return Err(self.too_deep(at));
        }
        let mut node = node.clone();
        node.size.repeated += node.value.span().len();
        self.repeat(node.size.repeated, at)?;
        self.node(node, 0)
    }

    fn node(&mut self, node: Node<'t>, anchor: usize) -> Result<(), Stop> {
        if anchor != 0 {
            let span = node.value.span();
            self.repeat(span.len() + node.size.repeated, span.start)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Node { value, size } = node;
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(value);
            return Ok(());
        };
        parent.size.depth = parent.size.depth.max(size.depth);
        parent.size.repeated += size.repeated;
        match &mut parent.items {
            Items::List(list) => list.push(value),
            Items::Table(table, key) => {
                // The first of two equal keys counts.
                if let Some(key) = key.take()
                    && !table.contains_key(key.get_ref().as_ref())
                {
                    table.insert(key, value);
                }
            }
        }
        Ok(())
    }

    fn repeat(&mut self, bytes: usize, at: usize) -> Result<(), Stop> {
        self.repeated = self.repeated.saturating_add(bytes);
        if self.repeated <= limits::CONFIG_REPEATED_BYTES_MAX {
            return Ok(());
        }
        let most = limits::CONFIG_REPEATED_BYTES_MAX;
        let wrong = Wrong::new("anchors and aliases repeat too much of this file")
            .note(format!("expected at most {most} bytes of text that is named or repeated"));
        Err(self.stop(at, wrong))
    }

    pub(super) fn too_deep(&mut self, at: usize) -> Stop {
        let most = limits::CONFIG_DEPTH_MAX;
        let wrong = Wrong::new("this is nested too deeply")
            .note(format!("expected at most {most} tables and lists inside each other"));
        self.stop(at, wrong)
    }

    /// Notes a mistake after which reading goes on, unless there were many.
    pub(super) fn mistake(&mut self, at: usize, wrong: Wrong) -> Result<(), Stop> {
        self.note(at, wrong, vec![Range { start: at, end: at + 1 }]);
        if self.mistakes.len() > limits::CONFIG_ERRORS_MAX { Err(Stop) } else { Ok(()) }
    }

    /// Notes a mistake that ends the reading; what is on its line or after it is unknown.
    pub(super) fn stop(&mut self, at: usize, wrong: Wrong) -> Stop {
        self.stop_doubting(super::syntax::line_start(self.text, at), at, wrong)
    }

    /// The same, where what comes after `from` may have been read wrongly.
    pub(super) fn stop_doubting(&mut self, from: usize, at: usize, wrong: Wrong) -> Stop {
        // A list that was not read to its end may seem too short.
        let lists = self.open.iter().filter(|open| matches!(open.items, Items::List(_)));
        let unfinished = lists.map(|open| open.start..open.start + 1);
        let doubtful = unfinished.chain(std::iter::once(from..self.text.len() + 1)).collect();
        self.note(at, wrong, doubtful);
        Stop
    }

    fn note(&mut self, at: usize, wrong: Wrong, doubtful: Vec<Range<usize>>) {
        let problem = Problem { offset: Some(at), key: self.path(), wrong };
        self.mistakes.push(Mistake { problem, doubtful });
    }

    /// Of the value that is being read: `routes[2].cluster`.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.items {
                Items::Table(_, None) => {}
                Items::Table(_, Some(key)) => {
                    let key: String = key.get_ref().chars().take(KEY_SHOWN).collect();
                    path = join(&path, &key);
                }
                Items::List(list) => path.push_str(&format!("[{}]", list.len())),
            }
        }
        path
    }

    /// What there is of the tree.
    pub(super) fn finish(mut self) -> Parsed<'t> {
        let end = self.text.len();
        while let Some(open) = self.open.last_mut() {
            open.anchor = 0;
            let is_waiting = matches!(open.items, Items::Table(_, Some(_)));
            if is_waiting {
                drop(self.scalar(DeValue::String("".into()), end..end, 0));
            }
            drop(self.end(end));
        }
        let span = 0..end;
        let mut tree = DeTable::new();
        if let Some(root) = self.root.take() {
            let (start, root) = (root.span().start, root.into_inner());
            let found = super::value::found(&root);
            if let DeValue::Table(table) = root {
                tree = table;
            } else {
                let wrong = Wrong::new(format!("expected a table of keys, found {found}"))
                    .note("a configuration begins with its keys, such as `listeners`");
                self.note(start, wrong, vec![Range { start: 0, end: end + 1 }]);
            }
        }
        Parsed { tree: Spanned::new(span, tree), mistakes: self.mistakes }
    }
}

/// Longer keys are cut in messages: no real one is.
const KEY_SHOWN: usize = 100;

/// A number as TOML writes it, too: an integer or a float.
pub(super) fn number(text: &str) -> Option<DeValue<'_>> {
    let number = DeValue::parse(text).ok()?.into_inner();
    matches!(number, DeValue::Integer(_) | DeValue::Float(_)).then_some(number)
}

/// `null` and its like.
pub(super) fn nothing() -> Wrong {
    Wrong::new("there is no value here").note("leave the key out: then its default is in force")
}

#[cfg(test)]
mod tests {
    use super::super::syntax::Syntax;
    use super::*;

    fn mistakes(syntax: Syntax, text: &str) -> Vec<String> {
        let parsed = syntax.parse(text);
        parsed.mistakes.into_iter().map(|mistake| mistake.problem.wrong.message).collect()
    }

    #[test]
    fn nesting_is_refused_where_it_becomes_too_deep_and_not_before() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        for (syntax, open, close) in [(Syntax::Json, "{\"a\":", "}"), (Syntax::Yaml, "{a: ", "}")] {
            let text = |depth: usize| format!("{open}{}{close}", nested(depth - 1));
            let deepest = limits::CONFIG_DEPTH_MAX;
            assert_eq!(mistakes(syntax, &text(deepest)), [""; 0], "{syntax:?}");
            for depth in [deepest + 1, 1000, 100_000] {
                assert_eq!(mistakes(syntax, &text(depth)), ["this is nested too deeply"]);
            }
        }
        let deep = format!("a: {}", "- ".repeat(100_000));
        assert_eq!(mistakes(Syntax::Yaml, &deep).len(), 1);
        let steps: String = (0..10_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert_eq!(mistakes(Syntax::Yaml, &steps), ["this is nested too deeply"]);
    }

    #[test]
    fn aliases_neither_nest_nor_repeat_without_end() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        let mut chain = String::from("a0: &a0 [x]\n");
        for n in 1..1000 {
            let before = format!("*a{}", n - 1);
            let ten = [before.as_str(); 10].join(", ");
            bomb.push_str(&format!("a{n}: &a{n} [{ten}]\n"));
            chain.push_str(&format!("a{n}: &a{n} [{before}]\n"));
        }
        let repeated = "anchors and aliases repeat too much of this file";
        assert_eq!(mistakes(Syntax::Yaml, &bomb), [repeated]);
        assert_eq!(mistakes(Syntax::Yaml, &chain), ["this is nested too deeply"]);
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1000), "*a, ".repeat(100_000));
        assert_eq!(mistakes(Syntax::Yaml, &long), [repeated]);
        let anchors: String = (0..70).map(|n| format!("&a{n} [")).collect();
        let named = format!("a: {anchors}{}{}\n", "x".repeat(100_000), "]".repeat(70));
        assert_eq!(mistakes(Syntax::Yaml, &named), [repeated]);
    }

    #[test]
    fn an_alias_stands_for_the_value_and_its_place() {
        let text = "a: &a\n  x: 1\nb: *a\nc: [*a, *a]\n";
        let parsed = Syntax::Yaml.parse(text);
        assert!(parsed.mistakes.is_empty());
        let x = |value: &DeValue<'_>| {
            let x = value.as_table().and_then(|table| table.get("x")).unwrap().span();
            text[x.clone()].to_owned() + &x.start.to_string()
        };
        let tree = parsed.tree.into_inner();
        assert_eq!(x(tree.get("b").unwrap().get_ref()), "111");
        let list = tree.get("c").unwrap().get_ref().as_array().unwrap();
        assert_eq!(list.iter().map(|one| x(one.get_ref())).collect::<Vec<_>>(), ["111", "111"]);
    }

    #[test]
    fn no_more_mistakes_are_kept_than_are_printed() {
        let nothing = format!("{{\"a\":[{}null]}}", "null,".repeat(100_000));
        for syntax in [Syntax::Json, Syntax::Yaml] {
            assert_eq!(mistakes(syntax, &nothing).len(), limits::CONFIG_ERRORS_MAX + 1);
        }
    }
}
