//! What TLS needs that is in files. Looked up when a configuration is to be run, and again when a
//! file changes; a plan that was only checked has none of it.

use std::path::PathBuf;

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use crate::tls::certificates::{Certificate, Source};

#[derive(Debug, Default)]
pub struct Material {
    pub certificates: Vec<Found<Source, Certificate>>,
    pub authorities: Vec<Found<PathBuf, Vec<CertificateDer<'static>>>>,
    pub revocations: Vec<Found<PathBuf, Vec<CertificateRevocationListDer<'static>>>>,
    /// The authorities that the system trusts; empty when no cluster asks for them.
    pub system: Vec<CertificateDer<'static>>,
}

/// Where something is, and what was there.
#[derive(Clone, Debug)]
pub struct Found<S, T> {
    pub source: S,
    pub found: Option<T>,
}
