//! From text to a plan: text in one of three syntaxes, [`Document`], checked references, [`Plan`].
//! Runs on the control core, at start and at every reload, and reports every mistake at once. It
//! reads no file and no clock: the caller brings the text and installs the plan. Variables of the
//! environment are read.

mod address;
mod admin;
mod admin_keys;
mod blacklist;
mod certificates;
mod check;
mod cluster_http2;
mod cluster_tls;
mod compile;
pub mod document;
mod env;
pub mod error;
mod error_page_keys;
pub mod error_pages;
mod grpc;
mod grpc_keys;
mod hot_reload;
mod hot_reload_keys;
mod http2;
mod http2_keys;
mod json;
pub mod keys;
mod listeners;
pub mod logging;
mod logging_keys;
mod merge_patch;
mod metrics;
mod metrics_keys;
pub mod overrides;
mod print;
mod read;
mod secret;
mod syntax;
mod tls;
mod tls_keys;
mod tls_values;
pub mod tracing;
mod tracing_keys;
mod tree;
pub mod upgrades;
mod value;
mod yaml;

pub use address::{WrongUrl, http_url, parse_address as endpoint_address};
pub use certificates::NamedFile;
pub use document::Document;
pub use env::Environment;
pub use error::{Error, Errors};
pub use merge_patch::patched;
pub use overrides::{Override, Source};
pub use print::{hide, print, print_with_references, print_with_sources, secrets_in_the_file};
pub use read::At;
pub use syntax::Syntax;

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use error::{Problem, Wrong};
use read::Reader;
use syntax::Parsed;

use crate::limits;
use crate::plan::Plan;

/// What runs when no file is given.
pub const DEFAULT: &str = include_str!("default.toml");
/// Its name in messages.
pub const DEFAULT_NAME: &str = "(built-in)";
/// What messages call a configuration that the command line spells out.
pub const ARGUMENTS_NAME: &str = "(arguments)";

/// Reads and checks a configuration; `path` says in which syntax it is, and is for messages. A
/// document that comes back can be compiled. Variables in it are those of the process.
pub fn load(path: &str, text: &str) -> Result<Document, Errors> {
    load_in(path, text, &Environment::of_process())
}

/// Like [`load`], with the variables of `environment`.
pub fn load_in(path: &str, text: &str, environment: &Environment) -> Result<Document, Errors> {
    load_as(Syntax::of_file(Path::new(path)), path, text, environment)
}

/// Like [`load_in`], for a text whose name does not say in which syntax it is.
pub fn load_as(
    syntax: Syntax,
    path: &str,
    text: &str,
    environment: &Environment,
) -> Result<Document, Errors> {
    let fail = |problems| Err(Errors::new(path, text, problems));
    if text.len() > limits::CONFIG_BYTES_MAX {
        return fail(vec![too_large(text.len())]);
    }
    let Parsed { mut tree, mistakes } = syntax.parse(text);
    let (variables, unset) = env::expand(tree.get_mut(), environment);
    let reader = Reader::new(!mistakes.is_empty(), variables);
    let document = Document::read(&reader, tree.get_ref(), syntax, path, text);
    let mut problems = reader.into_problems();
    // What a value without its variable is not, is a consequence.
    let is_consequence = |p: &Problem| unset.iter().any(|cause| cause.offset == p.offset);
    problems.retain(|problem| !is_consequence(problem));
    problems.extend(unset);
    if mistakes.is_empty() {
        problems.extend(check::check(&document).problems);
    } else {
        problems = syntax::beside(mistakes, problems);
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
            .note("expected a configuration, which is UTF-8 text");
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

/// A configuration is read again for every reload and upgrade: only a regular file stays.
pub fn no_file(path: &str, kind: std::fs::FileType) -> Errors {
    let is = match kind {
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    let wrong = Wrong::new(format!("it is {is}, not a file"))
        .note("expected a configuration file, which is read again by reloads: save it to one");
    Errors::new(path, "", vec![Problem { offset: None, key: String::new(), wrong }])
}

/// What is said of a server that gives no text; `expected` is what it should have done.
pub fn unfetched(url: &str, message: &str, expected: &str) -> Errors {
    let wrong = Wrong::new(format!("cannot be fetched: {message}")).note(expected.to_owned());
    Errors::new(url, "", vec![Problem { offset: None, key: String::new(), wrong }])
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

/// The same of a process with so many cores.
pub fn core_warnings(document: &Document, cores: usize) -> Errors {
    let mut warnings = Vec::new();
    cluster_http2::warn(document, cores, &mut warnings);
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
    fuzz_as(Syntax::Toml, bytes);
}

/// The same for YAML.
pub fn fuzz_yaml(bytes: &[u8]) {
    fuzz_as(Syntax::Yaml, bytes);
}

/// The same for JSON; what is taken is JSON to another reader too.
pub fn fuzz_json(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && Syntax::Json.parse(text).mistakes.is_empty()
    {
        let other = serde_json::from_str::<serde::de::IgnoredAny>(text);
        assert!(other.is_ok(), "{other:?}");
    }
    fuzz_as(Syntax::Json, bytes);
}

fn fuzz_as(syntax: Syntax, bytes: &[u8]) {
    let environment = Environment::of(&[("A", "1")]);
    let loaded = decode("fuzz", bytes).and_then(|text| {
        let tree = syntax.parse(text).tree;
        print::visit("", tree.get_ref(), &mut |path, value, _| {
            assert!(text.get(value.span()).is_some(), "{path} has no place");
        });
        load_as(syntax, "fuzz", text, &environment)
    });
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
