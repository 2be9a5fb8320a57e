//! A configuration that a server has: `--config http://host:port/path`. Asked with one GET on a
//! connection of its own; what is not exactly one whole answer with a text is refused and says why.
//! Blocks: for a thread beside the cores.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Reading;
use crate::config::{self, Errors, Syntax, WrongUrl};
use crate::engine;
use crate::http::head::Method;
use crate::http1::blocking_client::{self, Answer, End, Line, Request};
use crate::limits;
use crate::plan::{HttpUrl, Secret};

/// Where it is, and what it is told.
#[derive(Clone, Debug)]
pub struct Server {
    pub(super) url: HttpUrl,
    pub(super) token: Option<Token>,
    /// File that survives with the last text that was put in force.
    pub(super) copy: Option<PathBuf>,
}

/// What `Authorization: Bearer` says.
#[derive(Clone, Debug)]
pub(super) enum Token {
    /// Read for every question: it may be replaced while the process runs.
    File(PathBuf),
    Text(Secret),
}

/// What the server called its text, for the next question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Validators {
    etag: Option<String>,
    modified: Option<String>,
}

/// What a server has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// Nothing has changed.
    Same,
    Text(Reading),
}

/// Without its query, which may be a secret.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HttpUrl { authority, path, .. } = &self.url;
        match path.split_once('?') {
            Some((path, _)) => write!(f, "http://{authority}{path}?(hidden)"),
            None => write!(f, "http://{authority}{path}"),
        }
    }
}

/// The URL of a server. Errors: what is wrong and what to do.
pub(super) fn url(given: &str) -> Result<HttpUrl, String> {
    let expected = "expected a URL such as http://config.internal:8000/corelane.toml";
    let url = config::http_url(given).map_err(|wrong| match wrong {
        WrongUrl::Https => "https to a server of configurations is not supported yet: use http:// \
                            to a server on this host or a trusted network"
            .to_owned(),
        WrongUrl::User => "a user in the URL is not sent, and other users of this machine see it: \
                           use --config-token-file or the variable CONFIG_TOKEN"
            .to_owned(),
        WrongUrl::Other(message) => format!("{message}; {expected}"),
    })?;
    let path = if url.path.is_empty() { "/".to_owned() } else { url.path };
    Ok(HttpUrl { path, ..url })
}

impl Server {
    /// Asks once. `known`: what it gave last, which it need not send again.
    pub(crate) fn fetch(&self, known: &Validators, timeout: Duration) -> Result<Fetched, Errors> {
        let failed = |message: &str, expected: &str| {
            Err(config::unfetched(&self.to_string(), message, expected))
        };
        let token = match self.token.as_ref().map(Token::text).transpose() {
            Ok(token) => token,
            Err(message) => return failed(&message, "expected a file with one line, a token"),
        };
        let head = self.head(known, token.as_ref());
        let request = Request {
            address: &self.url.address,
            method: Method::Get,
            head: head.as_bytes(),
            body: b"",
            answer_bytes_max: limits::CONFIG_BYTES_MAX,
        };
        let clock: fn() -> Instant = engine::precise_now;
        match Line::new(clock).ask(request, clock() + timeout) {
            Err(error) => failed(
                &blocking_client::reason(&error),
                "expected a server of HTTP with a configuration there",
            ),
            Ok(answer) => match judge(&answer, known) {
                Verdict::Same => Ok(Fetched::Same),
                Verdict::Text => {
                    let text = config::decode(&self.to_string(), &answer.body)?.to_owned();
                    Ok(Fetched::Text(Reading { text, validators: Validators::of(&answer) }))
                }
                Verdict::Wrong(message, expected) => failed(&message, expected),
            },
        }
    }

    pub(super) fn syntax(&self) -> Syntax {
        let path = self.url.path.split('?').next().unwrap_or_default();
        Syntax::of_file(Path::new(path))
    }

    fn head(&self, known: &Validators, token: Option<&Secret>) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let mut head = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: corelane/{version}\r\n\
             Accept: {}, text/plain, */*;q=0.1\r\nAccept-Encoding: identity\r\n\
             Connection: close\r\n",
            self.url.path,
            self.url.authority,
            media_type(self.syntax()),
        );
        for (name, value) in [
            ("Authorization", token.map(|token| format!("Bearer {}", token.0))),
            ("If-None-Match", known.etag.clone()),
            ("If-Modified-Since", known.modified.clone()),
        ] {
            if let Some(value) = value {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str("\r\n");
        head
    }
}

fn media_type(syntax: Syntax) -> &'static str {
    match syntax {
        Syntax::Toml => "application/toml",
        Syntax::Yaml => "application/yaml",
        Syntax::Json => "application/json",
    }
}

/// What an answer amounts to.
enum Verdict {
    Same,
    /// Its body is the text, whole.
    Text,
    /// What is wrong, and what was expected.
    Wrong(String, &'static str),
}

fn judge(answer: &Answer, known: &Validators) -> Verdict {
    let status = answer.status;
    let wrong = |expected| Verdict::Wrong(format!("it answered {status}"), expected);
    match status {
        200 => whole(answer),
        304 if *known != Validators::default() => Verdict::Same,
        301 | 302 | 303 | 307 | 308 => wrong(
            "redirects are not followed, so that token and trust stay with the address that was \
             given: give --config the final one",
        ),
        401 | 403 => wrong("expected a token that it takes: --config-token-file or CONFIG_TOKEN"),
        _ => wrong("expected 200 with a configuration as its body"),
    }
}

/// Half a configuration may well be one that can be read: only a whole one is taken.
fn whole(answer: &Answer) -> Verdict {
    let wrong = |message: &str, expected| Verdict::Wrong(message.to_owned(), expected);
    if let Some(coding) = answer.header("content-encoding").filter(|coding| *coding != "identity") {
        let message = format!("its answer has Content-Encoding {}", coding.escape_debug());
        return Verdict::Wrong(message, "expected text as it is, as Accept-Encoding asks for");
    }
    let expected = "expected Content-Length or chunks, to tell a whole text from a part of it";
    match answer.end {
        End::Marked => Verdict::Text,
        End::Exceeded => wrong("more bytes came than it announced", expected),
        End::Closed => wrong("its answer ends with the connection", expected),
        End::Cut => Verdict::Wrong(
            format!("its answer is longer than {} bytes", limits::CONFIG_BYTES_MAX),
            "expected a configuration",
        ),
    }
}

impl Validators {
    fn of(answer: &Answer) -> Validators {
        // It goes into a header line again.
        let plain = |value: &str| {
            (1..=limits::CONFIG_TAG_BYTES_MAX).contains(&value.len())
                && value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        };
        let value = |name| answer.header(name).filter(|value| plain(value)).map(str::to_owned);
        Validators { etag: value("etag"), modified: value("last-modified") }
    }
}

impl Token {
    fn text(&self) -> Result<Secret, String> {
        match self {
            Token::Text(secret) => Ok(secret.clone()),
            Token::File(file) => {
                let name = file.display();
                let mut text = String::new();
                std::fs::File::open(file)
                    .and_then(|file| {
                        let most = limits::ADMIN_TOKEN_BYTES_MAX as u64 + 2;
                        file.take(most).read_to_string(&mut text)
                    })
                    .map_err(|error| format!("its token in {name} cannot be read: {error}"))?;
                secret(&text).ok_or_else(|| format!("{name} holds no token"))
            }
        }
    }
}

/// One word of ASCII: it goes into a header line.
pub(super) fn secret(text: &str) -> Option<Secret> {
    let token = text.trim();
    let length = 1..=limits::ADMIN_TOKEN_BYTES_MAX;
    let plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    (length.contains(&token.len()) && plain).then(|| Secret(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(given: &str) -> Server {
        Server { url: url(given).unwrap(), token: None, copy: None }
    }

    #[test]
    fn addresses_are_whole_and_have_no_secret_in_sight() {
        assert_eq!(server("http://a.b:81").to_string(), "http://a.b:81/");
        let hidden = server("HTTP://a/b?token=hunter2");
        assert_eq!(hidden.to_string(), "http://a/b?(hidden)");
        assert!(hidden.head(&Validators::default(), None).starts_with("GET /b?token=hunter2 "));
        for (wrong, says) in [
            ("https://a/b", "is not supported yet"),
            ("http://u:hunter2@a/b", "--config-token-file"),
            ("http://", "is not a host and port"),
            ("http://a/b c", "expected a URL such as"),
            ("http://a?token=hunter2", "`http://a?(hidden)` is not an http URL"),
            ("http://a/b c?token=hunter2", "`http://a/b c?(hidden)` is not"),
        ] {
            let error = url(wrong).unwrap_err();
            assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_the_server_said_of_its_text_is_said_back() {
        let known = Validators {
            etag: Some("W/\"1\"".to_owned()),
            modified: Some("Sat, 21 Nov 2026 17:00:00 GMT".to_owned()),
        };
        let head = server("http://a:1/x").head(&known, Some(&Secret("t0".to_owned())));
        let lines: Vec<&str> = head.lines().collect();
        for line in [
            "Host: a:1",
            "Authorization: Bearer t0",
            "If-None-Match: W/\"1\"",
            "If-Modified-Since: Sat, 21 Nov 2026 17:00:00 GMT",
        ] {
            assert!(lines.contains(&line), "{head}");
        }
        assert!(head.ends_with("\r\n\r\n"), "{head}");
    }

    #[test]
    fn a_token_is_one_word_and_never_printed() {
        assert_eq!(secret("  abc\n"), Some(Secret("abc".to_owned())));
        for wrong in ["", "\n", "a b", "a\r\nX: 1", "\u{e9}"] {
            assert_eq!(secret(wrong), None, "{wrong:?}");
        }
        let token = Token::Text(Secret("hunter2".to_owned()));
        assert!(!format!("{token:?}").contains("hunter2"));
    }
}
