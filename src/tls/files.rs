//! Files with certificates, keys and lists: reading them, and what is told of one that is not what
//! is needed.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use crate::telemetry::timestamp;
use crate::tls::pem::{self, Section};

/// A file that is not what is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    pub file: PathBuf,
    pub wrong: String,
    /// What was expected, or what to do.
    pub cure: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LoadError { file, wrong, cure } = self;
        write!(f, "`{}`: {wrong}; {cure}", file.display())
    }
}

impl std::error::Error for LoadError {}

impl LoadError {
    pub(super) fn new(file: &Path, wrong: impl Into<String>, cure: impl Into<String>) -> LoadError {
        LoadError { file: file.to_owned(), wrong: wrong.into(), cure: cure.into() }
    }
}

/// What is right but for its time.
pub(super) struct Timed<T> {
    pub(super) found: T,
    /// Why it is not for now.
    pub(super) untimely: Option<LoadError>,
}

impl<T> Timed<T> {
    pub(super) fn in_time(self) -> Result<T, LoadError> {
        self.untimely.map_or(Ok(self.found), Err)
    }
}

/// Waits for nobody, and reads no more than `most`, whatever is there.
pub(crate) fn contents(path: &Path, most: usize) -> Result<Vec<u8>, LoadError> {
    let unreadable = |error: io::Error| {
        let cure = "expected a file that this process may read";
        LoadError::new(path, format!("it cannot be read: {error}"), cure)
    };
    // A pipe would keep us waiting for whoever writes to it.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut bytes = Vec::new();
    let result = file.and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes));
    result.map_err(unreadable)?;
    if bytes.len() > most {
        let cure = "no more is read of such a file: name one that holds what is asked for here, \
                    and nothing else";
        return Err(LoadError::new(path, format!("it is larger than {most} bytes"), cure));
    }
    Ok(bytes)
}

pub(super) fn sections(path: &Path, bytes: &[u8]) -> Result<Vec<Section>, LoadError> {
    pem::sections(bytes).map_err(|broken| {
        let wrong = format!("line {}: {}", broken.line, broken.what);
        LoadError::new(path, wrong, "expected whole PEM sections: copy it from its source again")
    })
}

pub(super) fn certificates(sections: &[Section]) -> Vec<CertificateDer<'static>> {
    let named = |part: &&Section| matches!(part.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE");
    sections.iter().filter(named).map(|part| CertificateDer::from(part.der.clone())).collect()
}

/// A moment, for messages.
pub(crate) fn written(at: SystemTime) -> String {
    let mut text = Vec::new();
    timestamp::iso(at, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
