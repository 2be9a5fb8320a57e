//! Where the text of a configuration comes from: a file, a server, or the program itself. One enum,
//! matched in full: a store that is to come (etcd, Consul) is a variant here, and the compiler
//! names every place that has to know it. What is read goes the same way, whatever gave it:
//! checked, compiled and put in force by `control/reload.rs`. Reading blocks: it is for threads
//! beside the cores. How a change is noticed is in `control/file_watch.rs` and
//! `control/config_poll.rs`.

mod beginning;
mod http;

pub use beginning::Beginning;
pub(crate) use beginning::Found;
pub use http::Server;
pub(crate) use http::{Fetched, Validators};

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{self, Environment, Errors, Syntax};
use crate::limits;

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub enum ConfigProvider {
    /// Watched, and read again when it changes.
    File(PathBuf),
    /// Asked now and then.
    Http(Server),
    BuiltIn,
    /// The text that they amount to.
    Arguments(String),
}

/// A text, and what its server calls it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) text: String,
    pub(crate) validators: Validators,
}

/// A configuration as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    File(PathBuf),
    Http(crate::plan::HttpUrl),
}

/// The value of `--config`.
pub fn named(given: &str) -> Result<Named, String> {
    let is_scheme =
        |scheme: &str| !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    match given.split_once("://") {
        Some((scheme, _)) if ["http", "https"].contains(&&*scheme.to_ascii_lowercase()) => {
            http::url(given).map(Named::Http)
        }
        Some((scheme, _)) if is_scheme(scheme) => {
            Err(format!("nothing is read from {scheme}:// here; expected a file or an http:// URL"))
        }
        Some(_) | None if given.is_empty() => Err("expected a file or an http:// URL".to_owned()),
        Some(_) | None => Ok(Named::File(PathBuf::from(given))),
    }
}

impl ConfigProvider {
    /// `token_file` and `copy` are for servers. The error says which of them is misplaced or wrong.
    pub fn of(
        named: Named,
        token_file: Option<PathBuf>,
        copy: Option<PathBuf>,
        environment: &Environment,
    ) -> Result<ConfigProvider, String> {
        let url = match (named, &token_file, &copy) {
            (Named::Http(url), _, _) => url,
            (Named::File(file), None, None) => return Ok(ConfigProvider::File(file)),
            (Named::File(_), Some(_), _) => {
                return Err("--config-token-file: it is for --config http://… only".to_owned());
            }
            (Named::File(_), None, Some(_)) => {
                return Err("--config-copy: it is for --config http://… only".to_owned());
            }
        };
        let wrong = || format!("{TOKEN_VARIABLE}: expected one word of ASCII, a token");
        let token = match (token_file, environment.value(TOKEN_VARIABLE)?) {
            (Some(file), _) => Some(http::Token::File(file)),
            (None, Some(text)) => Some(http::Token::Text(http::secret(text).ok_or_else(wrong)?)),
            (None, None) => None,
        };
        Ok(ConfigProvider::Http(Server { url, token, copy }))
    }

    /// As messages call it.
    pub fn name(&self) -> String {
        match self {
            ConfigProvider::File(file) => file.display().to_string(),
            ConfigProvider::Http(server) => server.to_string(),
            ConfigProvider::BuiltIn => config::DEFAULT_NAME.to_owned(),
            ConfigProvider::Arguments(_) => config::ARGUMENTS_NAME.to_owned(),
        }
    }

    /// In one word, for the admin API.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            ConfigProvider::File(_) => "file",
            ConfigProvider::Http(_) => "http",
            ConfigProvider::BuiltIn => "built_in",
            ConfigProvider::Arguments(_) => "arguments",
        }
    }

    /// Of its text, by the end of its name.
    pub(crate) fn syntax(&self) -> Syntax {
        match self {
            ConfigProvider::File(file) => Syntax::of_file(file),
            ConfigProvider::Http(server) => server.syntax(),
            ConfigProvider::BuiltIn | ConfigProvider::Arguments(_) => Syntax::Toml,
        }
    }

    /// Whether it may say something else later.
    pub(crate) fn can_change(&self) -> bool {
        match self {
            ConfigProvider::File(_) | ConfigProvider::Http(_) => true,
            ConfigProvider::BuiltIn | ConfigProvider::Arguments(_) => false,
        }
    }

    pub fn file(&self) -> Option<&Path> {
        match self {
            ConfigProvider::File(file) => Some(file),
            ConfigProvider::Http(_) | ConfigProvider::BuiltIn | ConfigProvider::Arguments(_) => {
                None
            }
        }
    }

    pub fn server(&self) -> Option<&Server> {
        match self {
            ConfigProvider::Http(server) => Some(server),
            ConfigProvider::File(_) | ConfigProvider::BuiltIn | ConfigProvider::Arguments(_) => {
                None
            }
        }
    }

    /// The text as it is now, whatever was read before. Blocks; a server gets `timeout`.
    pub(crate) fn read(&self, timeout: Duration) -> Result<Reading, Errors> {
        let known = |text: String| Reading { text, ..Reading::default() };
        match self {
            ConfigProvider::File(file) => read_file(file).map(known),
            ConfigProvider::Http(server) => match server.fetch(&Validators::default(), timeout)? {
                Fetched::Text(reading) => Ok(reading),
                Fetched::Same => unreachable!("that is an answer to a question with conditions"),
            },
            ConfigProvider::BuiltIn => Ok(known(config::DEFAULT.to_owned())),
            ConfigProvider::Arguments(text) => Ok(known(text.clone())),
        }
    }
}

/// The token for a server, unless a file has it.
const TOKEN_VARIABLE: &str = "CONFIG_TOKEN";

fn read_file(file: &Path) -> Result<String, Errors> {
    let name = file.display().to_string();
    let mut bytes = Vec::new();
    // Opening a pipe would wait for who writes it, and a device may do anything.
    match std::fs::metadata(file).map(|metadata| metadata.file_type()) {
        Ok(kind) if !kind.is_file() => return Err(config::no_file(&name, kind)),
        Ok(_) | Err(_) => {}
    }
    // One byte more than allowed: what is too large is refused without being read to its end.
    let most = limits::CONFIG_BYTES_MAX as u64 + 1;
    let read = std::fs::File::open(file).and_then(|file| file.take(most).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Err(config::unreadable(&name, &error));
    }
    config::decode(&name, &bytes).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_a_file_or_the_url_of_a_server() {
        assert_eq!(named("a/b.toml"), Ok(Named::File("a/b.toml".into())));
        assert_eq!(named("./http:/x"), Ok(Named::File("./http:/x".into())));
        assert!(matches!(named("HTTP://a:1/b"), Ok(Named::Http(_))));
        assert!(named("https://a/b").unwrap_err().contains("https"));
        assert!(named("etcd://a/b").unwrap_err().contains("etcd://"));
        assert!(named("").is_err());
    }

    #[test]
    fn what_is_for_servers_is_refused_beside_a_file() {
        let none = Environment::of(&[]);
        let of = |name, token: Option<&str>, copy: Option<&str>, environment| {
            let (token, copy) = (token.map(PathBuf::from), copy.map(PathBuf::from));
            ConfigProvider::of(named(name).unwrap(), token, copy, environment)
        };
        assert!(of("a", Some("t"), None, &none).unwrap_err().contains("--config-token-file"));
        assert!(of("a", None, Some("c"), &none).unwrap_err().contains("--config-copy"));
        assert!(of("http://a", Some("t"), Some("c"), &none).is_ok());
        let wrong = Environment::of(&[("CONFIG_TOKEN", "two words")]);
        let error = of("http://a", None, None, &wrong).unwrap_err();
        assert!(error.contains("CONFIG_TOKEN") && !error.contains("words"), "{error}");
        assert!(of("http://a", Some("t"), None, &wrong).is_ok_and(|p| p.server().is_some()));
    }
}
