//! Tokens of the admin API: where their secrets are, and looking them up. A secret is turned into
//! its digest as soon as it is seen; nothing that is kept or printed holds it.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use toml::Value;
use toml::de::DeValue;

use super::document::Document;
use super::error::{Errors, Problem, Wrong};
use super::read::{At, Section};
use super::value::{ROLES, Written, choice, name, path, string};
use crate::plan::Role;
use crate::{hexadecimal, limits};

/// One of `admin.tokens`. Exactly one of the three is there.
#[derive(Clone, Debug, Serialize)]
pub struct Token {
    pub name: At<String>,
    pub role: At<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<At<Digest>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<At<PathBuf>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<At<Digest>>,
    /// Of the file, once it was read.
    #[serde(skip)]
    found: Option<Digest>,
    /// `admin.tokens[0]`, for messages.
    #[serde(skip)]
    pub(super) key: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl Token {
    pub(super) fn read(mut section: Section<'_>) -> Option<Token> {
        let key = section.path.clone();
        let given = section.required("name", "a name for the audit log, such as \"ci\"", name);
        let expected = "one of: viewer, operator, admin";
        let role = section.required("role", expected, choice("role", ROLES));
        let token = section.value("token", token);
        let token_file = section.value("token_file", path);
        let sha256 = section.value("sha256", digest);
        let ways = ["token", "token_file", "sha256"];
        if ways.iter().filter(|way| section.has(way)).count() != 1 {
            section.refuse(
                Wrong::new("a token has one secret")
                    .note("expected exactly one of: token, token_file, sha256"),
            );
        }
        section.finish();
        let (name, role) = (given?, role?);
        Some(Token { name, role, token, token_file, sha256, found: None, key })
    }

    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        let written = self.token.as_ref().or(self.sha256.as_ref()).map(|given| given.value);
        let digest = self.found.or(written);
        digest.map(|digest| digest.0)
    }

    fn look_up(&mut self) -> Result<(), Problem> {
        if let Some(At { value: path, offset }) = &self.token_file {
            let problem =
                |wrong| Problem { offset: *offset, key: format!("{}.token_file", self.key), wrong };
            self.found = Some(of_file(path).map_err(problem)?);
        }
        Ok(())
    }
}

impl Document {
    /// Reads every secret that is in a file of its own: before it is compiled to be run.
    pub fn find_secrets(&mut self) -> Result<(), Errors> {
        let tokens = self.admin.tokens.iter_mut();
        let problems: Vec<Problem> = tokens.filter_map(|token| token.look_up().err()).collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(Errors::new(&self.path, &self.source, problems))
    }
}

fn of_file(path: &Path) -> Result<Digest, Wrong> {
    let shown = path.display();
    let refuse = |error: std::io::Error| {
        Wrong::new(format!("`{shown}` cannot be read: {error}"))
            .note("expected a file that holds a token and nothing else")
    };
    // A pipe would keep us waiting for whoever writes to it.
    let options = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut secret = Vec::new();
    let most = limits::ADMIN_TOKEN_BYTES_MAX as u64 + 1;
    options.and_then(|file| file.take(most).read_to_end(&mut secret)).map_err(refuse)?;
    of_secret(secret.trim_ascii_end())
}

fn of_secret(secret: &[u8]) -> Result<Digest, Wrong> {
    let length = secret.len();
    let cure = "`openssl rand -hex 32` makes a good one";
    if !(limits::ADMIN_TOKEN_BYTES_MIN..=limits::ADMIN_TOKEN_BYTES_MAX).contains(&length) {
        let (least, most) = (limits::ADMIN_TOKEN_BYTES_MIN, limits::ADMIN_TOKEN_BYTES_MAX);
        return Err(Wrong::new(format!("a token of {length} characters"))
            .note(format!("expected from {least} to {most} characters; {cure}")));
    }
    if !secret.iter().all(u8::is_ascii_graphic) {
        return Err(Wrong::new("a token with spaces or other characters that headers cannot hold")
            .note(format!("expected letters, digits and signs of ASCII; {cure}")));
    }
    Ok(Digest(Sha256::digest(secret).into()))
}

/// The text of a secret never becomes part of a message.
fn token(value: &DeValue<'_>) -> Result<Digest, Wrong> {
    of_secret(string(value)?.as_bytes())
}

fn digest(value: &DeValue<'_>) -> Result<Digest, Wrong> {
    let given = string(value)?;
    let refuse = || {
        Wrong::new("this is no SHA-256 digest")
            .note("expected 64 hexadecimal digits: `printf %s TOKEN | sha256sum`")
    };
    hexadecimal::read(given).map(Digest).ok_or_else(refuse)
}

impl Written for Digest {
    fn written(&self) -> Value {
        Value::String(hexadecimal::text(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_sha256sum() {
        let Ok(Digest(digest)) = of_secret(b"0123456789abcdef") else { panic!("long enough") };
        let text = "9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";
        assert_eq!(Digest(digest).written(), Value::String(text.to_owned()));
        assert_eq!(super::digest(&DeValue::String(text.into())).unwrap(), Digest(digest));
        for wrong in ["", "9f", &"g".repeat(64), &"\u{e9}".repeat(32)] {
            assert!(super::digest(&DeValue::String(wrong.into())).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_message_holds_a_secret() {
        for secret in ["hunter2", "hunter2 with many spaces"] {
            let Err(wrong) = token(&DeValue::String(secret.into())) else { panic!("{secret}") };
            let text = format!("{} {:?}", wrong.message, wrong.notes);
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_device_or_a_long_file_is_not_read_to_its_end() {
        assert!(of_file(Path::new("/dev/zero")).is_err());
        assert!(of_file(Path::new("/nowhere")).is_err());
    }
}
