//! Certificates and their keys: from PEM or PKCS#12 files to what a handshake needs.

use std::path::PathBuf;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::plan::Secret;
use crate::tls::x509::Facts;

/// Where a certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// PEM: the chain, leaf first; or PKCS#12, with the key.
    pub cert: PathBuf,
    /// PEM. `None`: it is in `cert`.
    pub key: Option<PathBuf>,
    /// Of a PKCS#12 file, or of an encrypted key.
    pub password: Option<Password>,
    /// The hosts that it is for, instead of those that it names itself.
    pub names: Vec<String>,
    /// Whether its responder is asked (OCSP stapling).
    pub ocsp: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    Given(Secret),
    File(PathBuf),
}

/// A chain, its key, and what the leaf says of itself.
#[derive(Debug)]
pub struct Certificate {
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub facts: Facts,
}

impl Clone for Certificate {
    fn clone(&self) -> Certificate {
        let Certificate { chain, key, facts } = self;
        Certificate { chain: chain.clone(), key: key.clone_key(), facts: facts.clone() }
    }
}
