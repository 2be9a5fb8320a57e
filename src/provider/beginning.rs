//! The configuration that a process starts with. From a server that may not be there yet: it is
//! waited for, or, where a copy of the last good text is, that is taken at once.

use std::path::Path;
use std::thread;

use super::{Server, Validators, read_file};
use crate::cli::Source;
use crate::config::{Document, Errors};
use crate::engine;
use crate::http1::blocking_client::jitter;
use crate::limits;

/// What a process starts with.
#[derive(Clone, Debug)]
pub struct Beginning {
    pub document: Document,
    /// What an operator should know, for the log that is not open yet.
    pub notes: Vec<String>,
    pub(crate) found: Found,
}

/// What became of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is none.
    #[default]
    NoServer,
    /// It gave the text.
    Text(Validators),
    /// A copy stands in for it; why.
    Copy(String),
}

impl Source {
    /// Reads and checks. Blocks, for a server up to `CONFIG_START_TIMEOUT`.
    pub fn begin(&self) -> Result<Beginning, Errors> {
        let Some(server) = self.provider.server() else {
            let document = self.document()?;
            return Ok(Beginning { document, notes: Vec::new(), found: Found::NoServer });
        };
        let fetched = self.fetch_first(server);
        let errors = match fetched {
            Ok(beginning) => return Ok(beginning),
            Err(errors) => errors,
        };
        match server.copy.as_deref().filter(|copy| copy.exists()) {
            Some(copy) => self.begin_with_copy(copy, &errors),
            None => Err(errors),
        }
    }

    fn fetch_first(&self, server: &Server) -> Result<Beginning, Errors> {
        let has_copy = server.copy.as_deref().is_some_and(Path::exists);
        let end = engine::precise_now() + limits::CONFIG_START_TIMEOUT;
        loop {
            let reading = match self.provider.read(limits::CONFIG_POLL_TIMEOUT) {
                Ok(reading) => reading,
                Err(errors) if has_copy || engine::precise_now() >= end => return Err(errors),
                Err(_) => {
                    let wait = limits::CONFIG_START_INTERVAL;
                    thread::sleep(wait + jitter(wait));
                    continue;
                }
            };
            // A text that is wrong is not waited for: its server is there.
            let document = self.document_of(&self.name(), self.syntax(), &reading.text)?;
            let found = Found::Text(reading.validators);
            return Ok(Beginning { document, notes: Vec::new(), found });
        }
    }

    fn begin_with_copy(&self, copy: &Path, errors: &Errors) -> Result<Beginning, Errors> {
        let document =
            self.document_of(&copy.display().to_string(), self.syntax(), &read_file(copy)?)?;
        let reason = errors.to_string().trim_end().to_owned();
        let mut notes = vec![format!(
            "starts from {}, the copy of what {} said last; it is asked on",
            copy.display(),
            self.name()
        )];
        notes.extend(reason.lines().map(str::to_owned));
        Ok(Beginning { document, notes, found: Found::Copy(reason) })
    }
}

impl Server {
    /// Where the last good text is kept.
    pub(crate) fn copy(&self) -> Option<&Path> {
        self.copy.as_deref()
    }
}

impl Beginning {
    /// Of a configuration that no server has.
    pub fn of(document: Document) -> Beginning {
        Beginning { document, notes: Vec::new(), found: Found::NoServer }
    }
}
