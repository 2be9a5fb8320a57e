//! Certificates as a configuration names them, and every file that TLS needs, each once: reading
//! them before a document is compiled to be run.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::document::Document;
use super::error::{Errors, Offset, Problem, Wrong};
use super::read::{At, Section};
use super::tls_values::{file, password, server_name_pattern};
use super::value::boolean;
use crate::engine::Shared;
use crate::plan::Secret;
use crate::tls::certificates::{Password, Source};
use crate::tls::material::{Found, Material, Missing, Place};
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

    /// All that makes a [`Source`].
    fn wanted(&self) -> Wanted<'_> {
        let names = self.serving.iter().flat_map(|serving| &serving.names);
        Wanted {
            cert: &self.cert.value,
            key: self.key_file.as_ref().map(|path| path.value.as_path()),
            password: self.password.as_ref().map(|given| given.value.0.as_str()),
            password_file: self.password_file.as_ref().map(|path| path.value.as_path()),
            names: names.map(|name| name.value.as_str()).collect(),
            ocsp: self.serving.as_ref().is_some_and(|serving| serving.ocsp.value),
        }
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

#[derive(PartialEq, Eq, Hash)]
struct Wanted<'d> {
    cert: &'d Path,
    key: Option<&'d Path>,
    password: Option<&'d str>,
    password_file: Option<&'d Path>,
    names: Vec<&'d str>,
    ocsp: bool,
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
    system: Option<(Offset, String)>,
    certificate_of: HashMap<Wanted<'d>, CertificateId>,
    authority_of: HashMap<&'d Path, AuthorityId>,
    revocation_of: HashMap<&'d Path, RevocationId>,
}

impl<'d> Files<'d> {
    pub(super) fn count(&self) -> usize {
        self.certificates.len() + self.authorities.len() + self.revocations.len()
    }

    pub(super) fn of(document: &'d Document) -> Files<'d> {
        let mut files = Files::default();
        for listener in document.listeners.iter().filter_map(|one| one.tls.as_ref()) {
            listener.compile(&mut files, &HashMap::new());
        }
        for cluster in document.clusters.iter().filter_map(|one| one.tls.as_ref()) {
            cluster.compile(&mut files);
        }
        files
    }

    pub(super) fn certificate(&mut self, asked: &'d CertificateFiles) -> CertificateId {
        let Material { certificates: known, for_endpoints, .. } = &mut self.material;
        let next = CertificateId(known.len() as u32);
        let id = *self.certificate_of.entry(asked.wanted()).or_insert(next);
        if id == next {
            known.push(Found { source: asked.source(), found: None });
            self.certificates.push(asked);
            if asked.serving.is_none() {
                for_endpoints.insert(id);
            }
        } else if asked.serving.is_some() {
            for_endpoints.remove(&id);
        }
        id
    }

    /// The authorities that the system trusts.
    pub(super) fn system(&mut self, offset: Offset, key: &str) {
        if !self.material.asks_system {
            self.material.asks_system = true;
            self.system = Some((offset, key.to_owned()));
        }
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

/// A file that a document names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    pub path: PathBuf,
    pub key: String,
    /// Who has it has a secret.
    pub is_secret: bool,
}

impl Document {
    /// Every file that TLS needs, each once.
    pub fn tls_files(&self) -> Vec<NamedFile> {
        let files = Files::of(self);
        let of_certificates = files.certificates.iter().flat_map(|asked| asked.files());
        let paths = files.material.authorities.iter().zip(&files.authorities);
        let paths = paths.map(|(found, (_, key))| (&found.source, key));
        let lists = files.material.revocations.iter().zip(&files.revocations);
        let lists = lists.map(|(found, (_, key))| (&found.source, key));
        let public = paths.chain(lists).map(|(path, key)| NamedFile {
            path: path.clone(),
            key: key.clone(),
            is_secret: false,
        });
        let mut seen = HashSet::new();
        let all = of_certificates.chain(public);
        all.filter(|file| seen.insert(file.path.clone())).collect()
    }
}

impl CertificateFiles {
    fn files(&self) -> impl Iterator<Item = NamedFile> {
        let is_open = self.password.is_none() && self.password_file.is_none();
        let named = [
            ("key", self.key_file.as_ref(), is_open),
            ("password_file", self.password_file.as_ref(), true),
            ("cert", Some(&self.cert), is_open && self.key_file.is_none()),
        ];
        named.into_iter().filter_map(|(name, file, is_secret)| {
            let key = format!("{}.{name}", self.key);
            Some(NamedFile { path: file?.value.clone(), key, is_secret })
        })
    }
}

// --- looking them up --------------------------------------------------------------------------

impl Document {
    /// Reads every file that TLS needs: before it is compiled to be run. `now` must be in the time
    /// of certificates and revocation lists.
    pub fn find_certificates(&mut self, now: SystemTime) -> Result<(), Errors> {
        self.find_certificates_beside(&Material::default(), now)
    }

    /// The same where these are in use, which may have expired since.
    pub fn find_certificates_beside(
        &mut self,
        used: &Material,
        now: SystemTime,
    ) -> Result<(), Errors> {
        let mut files = Files::of(self);
        let missing = files.material.look_up(now, used);
        if missing.is_empty() {
            self.looked = Some(Looked(Shared::new(files.material)));
            return Ok(());
        }
        let problems = missing.into_iter().map(|missing| files.problem(missing)).collect();
        Err(Errors::new(&self.path, &self.source, problems))
    }
}

impl Files<'_> {
    fn problem(&self, Missing { place, error }: Missing) -> Problem {
        let (offset, key) = match place {
            Place::Certificate(id) => self.certificates[id.0 as usize].place_of(&error.file),
            Place::Authority(id) => self.authorities[id.0 as usize].clone(),
            Place::Revocation(id) => self.revocations[id.0 as usize].clone(),
            Place::System => self.system.clone().unwrap_or_default(),
        };
        let wrong = Wrong::new(format!("`{}`: {}", error.file.display(), error.wrong));
        Problem { offset, key, wrong: wrong.note(error.cure) }
    }
}

impl CertificateFiles {
    /// Of the key that names a file.
    fn place_of(&self, path: &Path) -> (Offset, String) {
        let named = [("key", &self.key_file), ("password_file", &self.password_file)];
        let found = named.into_iter().find_map(|(name, file)| {
            let file =
                file.as_ref().filter(|file| file.value == path && file.value != self.cert.value);
            Some((file?.offset, name))
        });
        let (offset, name) = found.unwrap_or((self.cert.offset, "cert"));
        (offset, format!("{}.{name}", self.key))
    }
}

/// What operators should know of certificates that were found good. Said at start and at every
/// reload.
pub(super) fn warn(document: &Document, warnings: &mut Vec<Problem>) {
    let Some(Looked(material)) = &document.looked else { return };
    let files = Files::of(document);
    for (asked, found) in files.certificates.iter().zip(&material.certificates) {
        for warning in found.found.iter().flat_map(|certificate| &certificate.warnings) {
            let (offset, key) = (asked.cert.offset, format!("{}.cert", asked.key));
            warnings.push(Problem { offset, key, wrong: Wrong::new(warning) });
        }
    }
    for Missing { place, mut error } in material.untimely.iter().cloned() {
        error.wrong.push_str(", and stays in use all the same");
        warnings.push(files.problem(Missing { place, error }));
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
