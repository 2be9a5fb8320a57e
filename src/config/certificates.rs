//! Certificates as a configuration names them, and every file that TLS needs, each once: reading
//! them before a document is compiled to be run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::document::Document;
use super::error::{Offset, Problem, Wrong};
use super::read::{At, Section};
use super::tls_values::{file, password, server_name_pattern};
use super::value::boolean;
use crate::engine::Shared;
use crate::plan::Secret;
use crate::tls::certificates::{Password, Source};
use crate::tls::material::{Found, Material};
use crate::tls::settings::{AuthorityId, CertificateId, RevocationId};

/// Where a certificate and its key are.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateFiles {
    pub cert: At<PathBuf>,
    #[serde(rename = "key", skip_serializing_if = "Option::is_none")]
    pub key_file: Option<At<PathBuf>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<At<Secret>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<At<PathBuf>>,
    /// `None`: it is shown to servers.
    #[serde(flatten)]
    pub serving: Option<Serving>,
    /// `listeners[0].tls.certificates[0]`, for messages.
    #[serde(skip)]
    key: String,
}

/// Of a certificate that is shown to clients.
#[derive(Clone, Debug, Serialize)]
pub struct Serving {
    pub names: Vec<At<String>>,
    pub ocsp: At<bool>,
}

impl CertificateFiles {
    pub(super) fn read(mut section: Section<'_>) -> Option<CertificateFiles> {
        let serving = Serving {
            names: section.list("names", server_name_pattern),
            ocsp: section.value_or("ocsp", true, boolean),
        };
        CertificateFiles::read_as(section, Some(serving))
    }

    pub(super) fn read_of_client(section: Section<'_>) -> Option<CertificateFiles> {
        CertificateFiles::read_as(section, None)
    }

    fn read_as(mut section: Section<'_>, serving: Option<Serving>) -> Option<CertificateFiles> {
        let key = section.path.clone();
        let expected = "a file with the chain, leaf first (PEM), or with all of it (PKCS#12)";
        let cert = section.required("cert", expected, file);
        let key_file = section.value("key", file);
        let given = section.value("password", password);
        let password_file = section.value("password_file", file);
        if section.has("password") && section.has("password_file") {
            let wrong = Wrong::new("there are two passwords")
                .note("expected one of: password, password_file");
            section.refuse_key("password", section.offset_of("password"), wrong);
        }
        section.finish();
        Some(CertificateFiles {
            cert: cert?,
            key_file,
            password: given,
            password_file,
            serving,
            key,
        })
    }

    fn source(&self) -> Source {
        let given = self.password.as_ref().map(|given| Password::Given(given.value.clone()));
        let file = self.password_file.as_ref().map(|path| Password::File(path.value.clone()));
        let names = self.serving.iter().flat_map(|serving| &serving.names);
        Source {
            cert: self.cert.value.clone(),
            key: self.key_file.as_ref().map(|path| path.value.clone()),
            password: given.or(file),
            names: names.map(|name| name.value.clone()).collect(),
            ocsp: self.serving.as_ref().is_some_and(|serving| serving.ocsp.value),
        }
    }
}

/// The password that everybody tries first. Said at start and at every reload.
pub(super) fn warn(document: &Document, warnings: &mut Vec<Problem>) {
    let listeners = document.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let clusters = document.clusters.iter().filter_map(|cluster| cluster.tls.as_ref());
    let ours = clusters.filter_map(|tls| tls.certificate.as_ref());
    for files in listeners.flat_map(|tls| &tls.certificates).chain(ours) {
        if let Some(At { value: Secret(given), offset }) = &files.password
            && given == "password"
        {
            let wrong = Wrong::new("this is the password that everybody tries first")
                .note("expected one of its own: `openssl rand -hex 32` makes a good one");
            let key = format!("{}.password", files.key);
            warnings.push(Problem { offset: *offset, key, wrong });
        }
    }
}

// --- every file once -------------------------------------------------------------------------

/// What a document needs, with ids in the order in which it is asked for; and who asks.
#[derive(Default)]
pub(super) struct Files<'d> {
    pub(super) material: Material,
    /// By id, as in the material: who asks first.
    certificates: Vec<&'d CertificateFiles>,
    authorities: Vec<(Offset, String)>,
    revocations: Vec<(Offset, String)>,
    certificates_of: HashMap<&'d Path, Vec<CertificateId>>,
    authority_of: HashMap<&'d Path, AuthorityId>,
    revocation_of: HashMap<&'d Path, RevocationId>,
}

impl<'d> Files<'d> {
    pub(super) fn certificate(&mut self, asked: &'d CertificateFiles) -> CertificateId {
        let source = asked.source();
        let of_file = self.certificates_of.entry(&asked.cert.value).or_default();
        let known = &mut self.material.certificates;
        let is_known = |id: &&CertificateId| known[id.0 as usize].source == source;
        if let Some(id) = of_file.iter().find(is_known) {
            return *id;
        }
        let id = CertificateId(known.len() as u32);
        of_file.push(id);
        known.push(Found { source, found: None });
        self.certificates.push(asked);
        id
    }

    /// `key` is who asks.
    pub(super) fn authority(
        &mut self,
        path: &'d At<PathBuf>,
        key: impl FnOnce() -> String,
    ) -> AuthorityId {
        let known = &mut self.material.authorities;
        *self.authority_of.entry(&path.value).or_insert_with(|| {
            known.push(Found { source: path.value.clone(), found: None });
            self.authorities.push((path.offset, key()));
            AuthorityId(known.len() as u32 - 1)
        })
    }

    pub(super) fn revocation(
        &mut self,
        path: &'d At<PathBuf>,
        key: impl FnOnce() -> String,
    ) -> RevocationId {
        let known = &mut self.material.revocations;
        *self.revocation_of.entry(&path.value).or_insert_with(|| {
            known.push(Found { source: path.value.clone(), found: None });
            self.revocations.push((path.offset, key()));
            RevocationId(known.len() as u32 - 1)
        })
    }
}

/// What was found for a document.
#[derive(Debug)]
pub(super) struct Looked(pub(super) Shared<Material>);

impl Clone for Looked {
    fn clone(&self) -> Looked {
        Looked(self.0.share())
    }
}
