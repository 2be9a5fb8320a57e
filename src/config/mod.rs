//! From text to a plan: text, [`Document`], checked references, [`Plan`]. Runs on the control core,
//! at start and at every reload, and reports every mistake at once. It reads no file and no clock:
//! the caller brings the text and installs the plan. Variables of the environment are read.

mod address;
mod admin;
mod admin_keys;
mod blacklist;
mod check;
mod compile;
pub mod document;
mod env;
pub mod error;
mod hot_reload;
mod hot_reload_keys;
pub mod keys;
pub mod logging;
mod logging_keys;
mod metrics;
mod metrics_keys;
pub mod overrides;
mod print;
mod read;
mod secret;
pub mod tracing;
mod tracing_keys;
mod value;

pub use address::parse_address as endpoint_address;
pub use document::Document;
pub use env::Environment;
pub use error::{Error, Errors};
pub use overrides::{Override, Source};
pub use print::{hidden, print, print_with_references, print_with_sources, secrets_in_the_file};
pub use read::At;

use std::ops::Range;

use error::{Problem, Wrong};
use read::Reader;
use toml::de::DeTable;

use crate::limits;
use crate::plan::Plan;

/// What runs when no file is given.
pub const DEFAULT: &str = include_str!("default.toml");
/// Its name in messages.
pub const DEFAULT_NAME: &str = "(built-in)";
/// What messages call a configuration that the command line spells out.
pub const ARGUMENTS_NAME: &str = "(arguments)";

/// Reads and checks a configuration; `path` is only for messages. A document that comes back can
/// be compiled. Variables in it are those of the process.
pub fn load(path: &str, text: &str) -> Result<Document, Errors> {
    load_in(path, text, &Environment::of_process())
}

/// Like [`load`], with the variables of `environment`.
pub fn load_in(path: &str, text: &str, environment: &Environment) -> Result<Document, Errors> {
    let fail = |problems| Err(Errors::new(path, text, problems));
    if text.len() > limits::CONFIG_BYTES_MAX {
        return fail(vec![too_large(text.len())]);
    }
    let (mut tree, syntax) = DeTable::parse_recoverable(text);
    let (variables, unset) = env::expand(text, tree.get_mut(), environment);
    let reader = Reader::new(!syntax.is_empty(), variables);
    let document = Document::read(&reader, tree.get_ref(), path, text);
    let mut problems = reader.into_problems();
    // What a value without its variable is not, is a consequence.
    let is_consequence = |p: &Problem| unset.iter().any(|cause| cause.offset == p.offset);
    problems.retain(|problem| !is_consequence(problem));
    problems.extend(unset);
    if syntax.is_empty() {
        problems.extend(check::check(&document).problems);
    } else {
        problems = beside(text, &syntax, problems);
    }
    if problems.is_empty() { Ok(document) } else { fail(problems) }
}

/// Bytes of a file as text.
pub fn decode<'b>(path: &str, bytes: &'b [u8]) -> Result<&'b str, Errors> {
    if bytes.len() > limits::CONFIG_BYTES_MAX {
        return Err(Errors::new(path, "", vec![too_large(bytes.len())]));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let before = error.valid_up_to();
        let text = std::str::from_utf8(&bytes[..before]).unwrap_or_default();
        let wrong = Wrong::new(format!("byte 0x{:02x} is not UTF-8", bytes[before]))
            .note("expected a TOML file, which is UTF-8 text");
        let problem = Problem { offset: Some(before), key: String::new(), wrong };
        Errors::new(path, text, vec![problem])
    })
}

/// What is said of a file that gives no text.
pub fn unreadable(path: &str, error: &std::io::Error) -> Errors {
    let wrong =
        Wrong::new(format!("cannot be read: {error}")).note("expected a configuration file");
    Errors::new(path, "", vec![Problem { offset: None, key: String::new(), wrong }])
}

/// Compiles a document. `cpus` is how many CPUs the process may use: what `cores = 0` means.
/// Fails only if the document was changed after [`load`] (by flags of the command line).
pub fn compile(document: &Document, version: u64, cpus: usize) -> Result<Plan, Errors> {
    let checked = check::check(document);
    match checked.config {
        Some(config) => Ok(compile::compile(config, version, cpus)),
        None => Err(Errors::new(&document.path, &document.source, checked.problems)),
    }
}

/// What an operator should know about a document that is accepted.
pub fn warnings(document: &Document, cpus: usize) -> Errors {
    let mut warnings = check::check(document).warnings;
    if document.cores.value > cpus {
        let wrong = Wrong::new(format!("{} cores will share {cpus} CPUs", document.cores.value))
            .note("expected 0 (one per CPU) or at most the CPUs that the process may use");
        warnings.push(Problem { offset: document.cores.offset, key: "cores".to_owned(), wrong });
    }
    Errors::new(&document.path, &document.source, warnings)
}

/// Variables of the process that are set and do nothing.
pub fn environment_warnings(document: &Document) -> Errors {
    overrides::warnings(&Environment::of_process(), document)
}

/// A duration as the configuration writes it: `30s`.
pub(crate) fn parse_time(text: &str) -> Result<std::time::Duration, String> {
    let value = toml::de::DeValue::String(text.into());
    value::time_or_none(&value).map(|time| time.0).map_err(|wrong| wrong.message)
}

/// For fuzzing: nothing that arrives as bytes may panic, and what loads must compile and print.
pub fn fuzz(bytes: &[u8]) {
    let environment = Environment::of(&[("A", "1")]);
    let loaded = decode("fuzz", bytes).and_then(|text| load_in("fuzz", text, &environment));
    match loaded {
        Ok(document) => {
            let plan = compile(&document, 1, 1).expect("what loads compiles");
            for printed in [print(&document), print_with_sources(&document)] {
                // a reference in place of a secret has no default
                let set: Vec<(&str, &str)> = env::names(&printed)
                    .into_iter()
                    .map(|name| (name, "0123456789abcdef"))
                    .collect();
                let again = load_in("again", &printed, &Environment::of(&set));
                let again = again.expect("what is printed loads");
                let again = compile(&again, 1, 1).expect("what loads compiles");
                assert_eq!(plan.routes.len(), again.routes.len(), "printing kept every route");
            }
        }
        Err(errors) => assert!(!errors.to_string().is_empty(), "a failure says why"),
    }
}

/// A name, as a flag has it.
pub fn name(given: &str) -> Result<String, String> {
    match value::check_name(given) {
        Ok(()) => Ok(given.to_owned()),
        Err(wrong) => Err([vec![wrong.message], wrong.notes].concat().join("; ")),
    }
}

fn too_large(bytes: usize) -> Problem {
    let wrong = Wrong::new(format!("this file has {bytes} bytes"))
        .note(format!("expected at most {} bytes of configuration", limits::CONFIG_BYTES_MAX));
    Problem { offset: None, key: String::new(), wrong }
}

/// Mistakes of syntax, and those others that are surely not their consequence: a value on a line
/// that could not be read may not be what was written, nor is a key below a broken `[header]`
/// where it seems to be.
fn beside(text: &str, syntax: &[toml::de::Error], found: Vec<Problem>) -> Vec<Problem> {
    let mut doubtful: Vec<Range<usize>> = Vec::new();
    let mut problems = Vec::new();
    for error in syntax.iter().take(limits::CONFIG_ERRORS_MAX + 1) {
        let span = error.span().unwrap_or(0..0);
        // One mistake often makes the parser stumble twice on the same line.
        if doubtful.iter().any(|range| range.contains(&span.start)) {
            continue;
        }
        doubtful.push(consequences(text, span.start));
        let message = match (error.message(), text.get(span.clone())) {
            ("duplicate key", Some(key)) => format!("duplicate key `{key}`"),
            (message, _) => message.to_owned(),
        };
        let wrong = Wrong::new(message);
        problems.push(Problem { offset: Some(span.start), key: String::new(), wrong });
    }
    let sure = |at: usize| !doubtful.iter().any(|range| range.contains(&at));
    problems.extend(found.into_iter().filter(|problem| problem.offset.is_none_or(sure)));
    problems
}

/// The line of a mistake of syntax; all lines up to the next header when it is a header.
fn consequences(text: &str, at: usize) -> Range<usize> {
    let bytes = text.as_bytes();
    let at = at.min(bytes.len());
    let start = bytes[..at].iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
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
