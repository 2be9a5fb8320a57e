//! `clusters.NAME.tls`: TLS towards endpoints, as written, and the plan's part made of it.

use std::path::PathBuf;

use serde::Serialize;

use super::certificates::{CertificateFiles, Files};
use super::document::{Document, Time};
use super::error::{Offset, Problem, Wrong};
use super::read::{At, Section};
use super::tls::{compiled_versions, versions};
use super::tls_values::{Pin, file, pin, server_name};
use super::value::{boolean, time};
use crate::limits;
use crate::tls::settings::{self, Version};

#[derive(Clone, Debug, Serialize)]
pub struct ClusterTls {
    pub min_version: At<Version>,
    pub max_version: At<Version>,
    /// Empty: those of the system.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ca: Vec<At<PathBuf>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<At<String>>,
    pub pins: Vec<At<Pin>>,
    pub insecure_skip_verify: At<bool>,
    pub handshake_timeout: At<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateFiles>,
    #[serde(skip)]
    pub(super) offset: Offset,
    /// `clusters.orders.tls`, for messages.
    #[serde(skip)]
    key: String,
}

impl ClusterTls {
    pub(super) fn read(cluster: &mut Section<'_>) -> Option<ClusterTls> {
        let mut section = cluster.optional_section("tls")?;
        let (min_version, max_version) = versions(&mut section);
        let tls = ClusterTls {
            min_version,
            max_version,
            ca: section.one_or_list("ca", file),
            server_name: section.value("server_name", server_name),
            pins: section.one_or_list("pins", pin),
            insecure_skip_verify: section.value_or("insecure_skip_verify", false, boolean),
            handshake_timeout: section.value_or(
                "handshake_timeout",
                Time(limits::TLS_HANDSHAKE_TIMEOUT),
                time,
            ),
            certificate: section
                .optional_section("certificate")
                .and_then(CertificateFiles::read_of_client),
            offset: section.offset,
            key: section.path.clone(),
        };
        if section.is_empty_list("ca") {
            let wrong = Wrong::new("nobody would be trusted: this list is empty")
                .note("leave `ca` out to trust the authorities of the system");
            section.refuse_key("ca", section.offset_of("ca"), wrong);
        } else if tls.insecure_skip_verify.value && section.has("ca") {
            let wrong = Wrong::new("an authority does nothing while nothing is verified")
                .note("expected one or the other: `ca`, or `insecure_skip_verify = true`");
            section.refuse_key("ca", section.offset_of("ca"), wrong);
        }
        section.finish();
        Some(tls)
    }

    pub(super) fn compile<'d>(&'d self, files: &mut Files<'d>) -> settings::ClusterTls {
        let key = || format!("{}.ca", self.key);
        if self.ca.is_empty() && !self.insecure_skip_verify.value {
            files.system(self.offset, &self.key);
        }
        let authorities: Vec<settings::AuthorityId> =
            self.ca.iter().map(|path| files.authority(path, key)).collect();
        settings::ClusterTls {
            versions: compiled_versions(&self.min_version, &self.max_version),
            authorities: Some(authorities).filter(|given| !given.is_empty()),
            server_name: self.server_name.as_ref().map(|name| name.value.clone()),
            skip_verify: self.insecure_skip_verify.value,
            pins: self.pins.iter().map(|pin| pin.value.0).collect(),
            certificate: self.certificate.as_ref().map(|ours| files.certificate(ours)),
            handshake_timeout: self.handshake_timeout.value.0,
        }
    }
}

/// Said at start and at every reload.
pub(super) fn warn(document: &Document, warnings: &mut Vec<Problem>) {
    for cluster in &document.clusters {
        let Some(tls) = cluster.tls.as_ref().filter(|tls| tls.insecure_skip_verify.value) else {
            continue;
        };
        let wrong = if tls.pins.is_empty() {
            Wrong::new("whoever answers at an endpoint's address is believed to be it")
                .note("expected `ca` with the authority of its certificate, or `pins` with its key")
        } else {
            Wrong::new("of an endpoint's certificate only the key is verified")
                .note("expected `ca` with the authority of its certificate")
        };
        let key = format!("{}.insecure_skip_verify", tls.key);
        warnings.push(Problem { offset: tls.insecure_skip_verify.offset, key, wrong });
    }
}
