//! `[[error_pages]]` and `[[routes.error_pages]]`: how they are written, what is wrong with them,
//! reading their files, and the plan's pages that they become.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::Value;
use toml::de::DeValue;

use super::document::Document;
use super::error::{Errors, Offset, Problem, Wrong};
use super::read::{At, Section};
use super::value::{Written, boolean, content_type, found, integer, path, string};
use crate::http::error_page::{self, PageId, PageTable, Shows, Template, TemplateError};
use crate::limits;

/// One page. Exactly one of `file`, `body` and `builtin` is there.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorPage {
    pub statuses: Vec<At<Statuses>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<At<PathBuf>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<At<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builtin: Option<At<bool>>,
    pub content_type: At<String>,
    pub intercept_upstream: At<bool>,
    /// Of `body`, and of the file once it was read.
    #[serde(skip)]
    template: Option<Template>,
    /// `error_pages[0]`, for messages.
    #[serde(skip)]
    key: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Statuses {
    One(u16),
    ClientErrors,
    ServerErrors,
}

impl ErrorPage {
    /// The pages of the process, or of one route.
    pub(super) fn read_all(section: &mut Section<'_>) -> Vec<ErrorPage> {
        section.sections("error_pages").into_iter().map(ErrorPage::read).collect()
    }

    fn read(mut section: Section<'_>) -> ErrorPage {
        let key = section.path.clone();
        if !section.has("statuses") {
            section.missing("statuses", STATUSES_EXPECTED);
        }
        let statuses = section.one_or_list("statuses", statuses);
        if section.is_empty_list("statuses") {
            let wrong = Wrong::new("this page is for no status")
                .note(format!("expected {STATUSES_EXPECTED}"));
            section.refuse_key("statuses", section.offset_of("statuses"), wrong);
        }
        let file = section.value("file", path);
        let body = section.value("body", super::value::text);
        let builtin = section.value("builtin", only_true);
        let ways = ["file", "body", "builtin"];
        if ways.iter().filter(|way| section.has(way)).count() != 1 {
            section.refuse(
                Wrong::new("a page has one text")
                    .note("expected exactly one of: file, body, builtin"),
            );
        }
        let content_type = section.value_or("content_type", HTML.to_owned(), content_type);
        let intercept_upstream = section.value_or("intercept_upstream", false, boolean);
        let mut template = None;
        if let Some(At { value: text, offset }) = &body {
            match compiled(text.as_bytes(), &content_type.value, "") {
                Ok(compiled) => template = Some(compiled),
                Err(wrong) => section.refuse_key("body", *offset, wrong),
            }
        }
        section.finish();
        ErrorPage { statuses, file, body, builtin, content_type, intercept_upstream, template, key }
    }

    /// Reads its file, if it has one; how many bytes that were.
    fn find(&mut self) -> Result<usize, Problem> {
        let Some(At { value: path, offset }) = &self.file else { return Ok(0) };
        let problem = |wrong| Problem { offset: *offset, key: format!("{}.file", self.key), wrong };
        let text = contents(path).map_err(problem)?;
        let shown = path.display().to_string();
        let template = compiled(&text, &self.content_type.value, &shown).map_err(problem)?;
        self.template = Some(template);
        Ok(text.len())
    }

    fn compile(&self) -> error_page::ErrorPage {
        let content_type = self.content_type.value.clone();
        let shows = match (&self.builtin, &self.template) {
            (Some(_), _) => Shows::BuiltIn,
            (None, Some(template)) => Shows::Page { content_type, template: template.clone() },
            // Of a document that is only looked at: its files are not.
            (None, None) => {
                let template = Template::parse(b"", &content_type).expect("no text has no mistake");
                Shows::Page { content_type, template }
            }
        };
        error_page::ErrorPage { shows, intercepts: self.intercept_upstream.value }
    }
}

impl Document {
    /// Reads every page that is in a file of its own: before it is compiled to be run.
    pub fn find_error_pages(&mut self) -> Result<(), Errors> {
        let mut problems = Vec::new();
        let mut bytes = 0;
        for page in all_mut(self) {
            match page.find() {
                Ok(more) => bytes += more,
                Err(problem) => problems.push(problem),
            }
            if bytes > limits::ERROR_PAGES_BYTES_MAX {
                let offset = page.file.as_ref().and_then(|file| file.offset);
                let most = limits::ERROR_PAGES_BYTES_MAX;
                let wrong = Wrong::new("all error pages together are too large")
                    .note(format!("expected at most {most} bytes in all their files"));
                problems.push(Problem { offset, key: format!("{}.file", page.key), wrong });
                break;
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Errors::new(&self.path, &self.source, problems))
    }
}

fn all(document: &Document) -> impl Iterator<Item = &Vec<ErrorPage>> {
    [&document.error_pages].into_iter().chain(document.routes.iter().map(|r| &r.error_pages))
}

fn all_mut(document: &mut Document) -> impl Iterator<Item = &mut ErrorPage> {
    let of_routes = document.routes.iter_mut().flat_map(|route| &mut route.error_pages);
    document.error_pages.iter_mut().chain(of_routes)
}

/// What no single page shows: two for one status, or too many.
pub(super) fn check(document: &Document) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut count = 0;
    for pages in all(document) {
        let mut taken: HashMap<Statuses, &str> = HashMap::new();
        for page in pages {
            count += 1;
            let key = format!("{}.statuses", page.key);
            for At { value, offset } in &page.statuses {
                if let Some(first) = taken.insert(*value, &page.key) {
                    let written = value.written();
                    let wrong = Wrong::new(format!("{written} has a page already: `{first}`"))
                        .note("expected each status, and each class, once in this list");
                    problems.push(Problem { offset: *offset, key: key.clone(), wrong });
                }
            }
            if count == limits::ERROR_PAGES_MAX + 1 {
                let offset: Offset = page.statuses.first().and_then(|status| status.offset);
                let wrong = Wrong::new("there are too many error pages")
                    .note(format!("expected at most {} in all", limits::ERROR_PAGES_MAX));
                problems.push(Problem { offset, key: page.key.clone(), wrong });
            }
        }
    }
    problems
}

/// Appends the pages of one list to `plan`; the table says which of them a status has.
pub(super) fn compile(pages: &[ErrorPage], plan: &mut Vec<error_page::ErrorPage>) -> PageTable {
    let mut exact = Vec::new();
    let mut table = PageTable::default();
    for page in pages {
        let id = PageId(plan.len() as u32);
        plan.push(page.compile());
        for status in &page.statuses {
            match status.value {
                Statuses::One(status) => exact.push((status, id)),
                Statuses::ClientErrors => table.client_errors = Some(id),
                Statuses::ServerErrors => table.server_errors = Some(id),
            }
        }
    }
    PageTable { exact: exact.into(), ..table }
}

/// `file` is empty for a page that the configuration holds itself.
fn compiled(text: &[u8], content_type: &str, file: &str) -> Result<Template, Wrong> {
    if text.len() > limits::ERROR_PAGE_BYTES_MAX {
        return Err(Wrong::new("this page is too large")
            .note(format!("expected at most {} bytes", limits::ERROR_PAGE_BYTES_MAX)));
    }
    Template::parse(text, content_type).map_err(|error| match error {
        TemplateError::Unknown { name, at } => {
            let before = &text[..at];
            let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
            let start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
            let place = match file {
                "" if line == 1 => String::new(),
                "" => format!("line {line} of this page: "),
                file => format!("{file}:{line}:{column}: "),
            };
            Wrong::new(format!("{place}there is no variable `{{{{{name}}}}}`")).choices(
                "variables are",
                &name,
                &error_page::names(),
            )
        }
        TemplateError::TooMany => Wrong::new("this page has too many variables")
            .note(format!("expected at most {}", limits::ERROR_PAGE_VARIABLES_MAX)),
        TemplateError::NoEscape => Wrong::new(format!(
            "a page of type `{content_type}` cannot have variables"
        ))
        .note("what a client sent can only be made harmless in HTML, XML, JSON and plain text"),
    })
}

fn contents(path: &Path) -> Result<Vec<u8>, Wrong> {
    let shown = path.display();
    let refuse = |error: std::io::Error| {
        Wrong::new(format!("`{shown}` cannot be read: {error}"))
            .note("expected a file that holds the page; it is read at start and at every reload")
    };
    // A pipe would keep us waiting for whoever writes to it.
    let options = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut text = Vec::new();
    let most = limits::ERROR_PAGE_BYTES_MAX as u64 + 1;
    options.and_then(|file| file.take(most).read_to_end(&mut text)).map_err(refuse)?;
    Ok(text)
}

fn statuses(value: &DeValue<'_>) -> Result<Statuses, Wrong> {
    if value.as_integer().is_some() {
        return integer(400..=599)(value)
            .map(Statuses::One)
            .map_err(|wrong| wrong.note("pages are for errors; other answers are not replaced"));
    }
    match string(value) {
        Ok("4xx") => Ok(Statuses::ClientErrors),
        Ok("5xx") => Ok(Statuses::ServerErrors),
        Ok(given) => Err(Wrong::new(format!("`{given}` is no status"))
            .note(format!("expected {STATUSES_EXPECTED}"))),
        Err(_) => Err(Wrong::new(format!("expected a status, found {}", found(value)))
            .note(format!("expected {STATUSES_EXPECTED}"))),
    }
}

const STATUSES_EXPECTED: &str = "404, \"5xx\", or a list such as [404, \"5xx\"]";

fn only_true(value: &DeValue<'_>) -> Result<bool, Wrong> {
    match boolean(value)? {
        true => Ok(true),
        false => Err(Wrong::new("a page that is not built in has a text")
            .note("expected `builtin = true`, or `file` or `body` instead")),
    }
}

const HTML: &str = "text/html; charset=utf-8";

impl Written for Statuses {
    fn written(&self) -> Value {
        match self {
            Statuses::One(status) => Value::Integer(i64::from(*status)),
            Statuses::ClientErrors => Value::String("4xx".to_owned()),
            Statuses::ServerErrors => Value::String("5xx".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn load(pages: &str) -> Result<Document, String> {
        let text = format!(
            "error_pages = [{pages}]\nlisteners = [{{ name = \"l\", bind = \"127.0.0.1:0\" }}]\n"
        );
        let document = config::load("test", &text).map_err(|errors| errors.to_string())?;
        config::load("again", &config::print(&document)).expect("what is printed loads");
        Ok(document)
    }

    fn found(pages: &str) -> String {
        load(pages).unwrap().find_error_pages().unwrap_err().to_string()
    }

    #[test]
    fn one_status_a_list_and_a_class_become_a_table() {
        let pages = "{ statuses = 404, body = \"a\" }, \
                     { statuses = [410, \"5xx\"], builtin = true, intercept_upstream = true }";
        let plan = config::compile(&load(pages).unwrap(), 1, 1).unwrap();
        let found = [404, 410, 500, 400].map(|status| plan.pages.find(status));
        assert_eq!(found, [Some(PageId(0)), Some(PageId(1)), Some(PageId(1)), None]);
        assert_eq!(plan.error_pages[1].shows, Shows::BuiltIn);
        assert!(plan.error_pages[1].intercepts && !plan.error_pages[0].intercepts);
    }

    #[test]
    fn a_file_that_is_missing_or_wrong_is_a_mistake_with_its_place() {
        let error = found("{ statuses = 404, file = \"/nowhere/404.html\" }");
        let expected = "test:1:41: error_pages[0].file: `/nowhere/404.html` cannot be read: ";
        assert!(error.starts_with(expected), "{error}");
        let error = found("{ statuses = 404, file = \"/dev/zero\" }");
        assert!(error.contains("this page is too large"), "{error}");
        let file = std::env::temp_dir().join(format!("corelane-page-{}", std::process::id()));
        std::fs::write(&file, "<h1>\n\u{fc} {{ requestid }}").unwrap();
        let shown = file.display();
        let error = found(&format!("{{ statuses = 404, file = \"{shown}\" }}"));
        std::fs::remove_file(&file).unwrap();
        let expected = format!("{shown}:2:3: there is no variable `{{{{requestid}}}}`\n");
        assert!(error.contains(&expected), "{error}");
        assert!(error.contains("did you mean `request_id`?"), "{error}");
    }

    #[test]
    fn pages_are_bounded_in_number() {
        let pages: Vec<String> = (0..=limits::ERROR_PAGES_MAX)
            .map(|index| format!("{{ statuses = {}, body = \"\" }}", 400 + index % 200))
            .collect();
        let error = load(&pages.join(",")).unwrap_err();
        assert!(error.contains("has a page already"), "{error}");
        let problems = check(&Document {
            error_pages: pages_of(limits::ERROR_PAGES_MAX + 1),
            ..load("").unwrap()
        });
        assert_eq!(problems.len(), 1);
        assert!(problems[0].wrong.message.contains("too many"));
    }

    fn pages_of(count: usize) -> Vec<ErrorPage> {
        let page = load("{ statuses = 404, body = \"\" }").unwrap().error_pages.remove(0);
        vec![ErrorPage { statuses: Vec::new(), ..page }; count]
    }
}
