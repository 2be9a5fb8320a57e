//! What is kept by the host that a client names: exactly, or for all that are one label longer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

#[derive(Debug, PartialEq)]
pub(crate) struct Names<T> {
    exact: HashMap<Box<str>, T>,
    /// By what follows the star and its dot.
    wildcard: HashMap<Box<str>, T>,
}

impl<T> Default for Names<T> {
    fn default() -> Names<T> {
        Names { exact: HashMap::new(), wildcard: HashMap::new() }
    }
}

impl<T> Names<T> {
    /// What is there for this name, to be filled in or looked at.
    pub(crate) fn entry(&mut self, name: &str) -> Entry<'_, Box<str>, T> {
        match name.strip_prefix("*.") {
            Some(suffix) => self.wildcard.entry(suffix.into()),
            None => self.exact.entry(name.into()),
        }
    }

    /// What is there for this very host; `host` is in lower case.
    pub(crate) fn find_exact(&self, host: &str) -> Option<&T> {
        self.exact.get(host)
    }

    /// `host` is in lower case. A wildcard stands for one label, so there is one that can fit.
    pub(crate) fn find(&self, host: &str) -> Option<&T> {
        self.exact.get(host).or_else(|| {
            let (_, suffix) = host.split_once('.')?;
            self.wildcard.get(suffix)
        })
    }

    /// The same where a wildcard stands for any number of labels: the longest that fits.
    pub(crate) fn find_at_any_depth(&self, host: &str) -> Option<&T> {
        let mut rest = host;
        self.exact.get(host).or_else(|| {
            while let Some((_, suffix)) = rest.split_once('.') {
                if let Some(found) = self.wildcard.get(suffix) {
                    return Some(found);
                }
                rest = suffix;
            }
            None
        })
    }

    /// Whether there is something for this very name or wildcard.
    pub(crate) fn has(&self, name: &str) -> bool {
        match name.strip_prefix("*.") {
            Some(suffix) => self.wildcard.contains_key(suffix),
            None => self.exact.contains_key(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_before_a_wildcard_and_a_wildcard_is_for_one_label() {
        let mut names = Names::default();
        for name in ["a.example", "*.example", "*.b.example"] {
            names.entry(name).insert_entry(name);
        }
        for (host, found) in [
            ("a.example", Some("a.example")),
            ("c.example", Some("*.example")),
            ("c.b.example", Some("*.b.example")),
            ("b.example", Some("*.example")),
            ("c.c.example", None),
            ("example", None),
            ("", None),
        ] {
            assert_eq!(names.find(host).copied(), found, "{host}");
            let exact = found.filter(|name| *name == host);
            assert_eq!(names.find_exact(host).copied(), exact, "{host}");
        }
        for (host, found) in [
            ("a.example", Some("a.example")),
            ("c.c.example", Some("*.example")),
            ("d.c.b.example", Some("*.b.example")),
            ("b.example", Some("*.example")),
            ("example", None),
            ("", None),
        ] {
            assert_eq!(names.find_at_any_depth(host).copied(), found, "{host}");
        }
        assert!(names.has("*.example") && !names.has("example"));
    }
}
