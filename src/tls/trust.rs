//! Whom one core trusts. Every set of authorities, with or without lists of what they revoked, is
//! there once, however many hosts and clusters ask for it: they may be large.

use std::collections::HashMap;
use std::sync::Arc; // tidy: required by rustls

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateRevocationListDer;
use sha2::{Digest as _, Sha256};

use crate::tls::material::Material;
use crate::tls::settings::{AuthorityId, ClientAuth, RevocationId};

/// One core's own.
type Handle<T> = Arc<T>; // tidy: required by rustls

pub(crate) struct Trust<'m> {
    pub(super) material: &'m Material,
    pub(super) provider: Handle<CryptoProvider>,
    sets: HashMap<Vec<AuthorityId>, Handle<RootCertStore>>,
    system: Option<Handle<RootCertStore>>,
    clients: HashMap<Rules, Clients>,
}

/// Authorities, lists, and whether a client must show a certificate.
type Rules = (Vec<AuthorityId>, Vec<RevocationId>, bool);

/// Which clients are believed.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    pub(super) verifier: Handle<dyn ClientCertVerifier>,
    /// Of the rules and all that is in their files.
    pub(super) digest: [u8; 32],
}

impl<'m> Trust<'m> {
    pub(crate) fn new(material: &'m Material) -> Trust<'m> {
        Trust {
            material,
            provider: Handle::new(aws_lc_rs::default_provider()),
            sets: HashMap::new(),
            system: None,
            clients: HashMap::new(),
        }
    }

    pub(super) fn authorities(
        &mut self,
        ids: &[AuthorityId],
    ) -> Result<Handle<RootCertStore>, String> {
        if let Some(known) = self.sets.get(ids) {
            return Ok(Handle::clone(known));
        }
        let mut roots = RootCertStore::empty();
        for id in ids {
            let of_file = &self.material.authorities[id.0 as usize];
            for certificate in of_file.found.iter().flatten() {
                let added = roots.add(certificate.clone());
                added.map_err(|error| format!("{}: {error}", of_file.source.display()))?;
            }
        }
        let roots = Handle::new(roots);
        self.sets.insert(ids.to_vec(), Handle::clone(&roots));
        Ok(roots)
    }

    /// Those of the operating system. One that is of no use is its own affair.
    pub(super) fn system(&mut self) -> Handle<RootCertStore> {
        let material = self.material;
        let roots = self.system.get_or_insert_with(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(material.system.iter().cloned());
            Handle::new(roots)
        });
        Handle::clone(roots)
    }

    pub(super) fn clients(&mut self, auth: &ClientAuth) -> Result<Clients, String> {
        let rules = (auth.authorities.clone(), auth.revocations.clone(), auth.required);
        if let Some(known) = self.clients.get(&rules) {
            return Ok(known.clone());
        }
        let provider = Handle::clone(&self.provider);
        let roots = self.authorities(&auth.authorities)?;
        let lists = auth.revocations.iter().flat_map(|id| lists(self.material, *id)).cloned();
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let mut builder = builder.with_crls(lists);
        if !auth.revocations.is_empty() {
            builder = builder.enforce_revocation_expiration();
        }
        if !auth.required {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build().map_err(|error| error.to_string())?;
        let clients = Clients { verifier, digest: self.digest(auth) };
        self.clients.insert(rules, clients.clone());
        Ok(clients)
    }

    fn digest(&self, auth: &ClientAuth) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update([u8::from(auth.required)]);
        for id in &auth.authorities {
            let found = &self.material.authorities[id.0 as usize].found;
            found.iter().flatten().for_each(|certificate| digest.update(certificate));
        }
        for list in auth.revocations.iter().flat_map(|id| lists(self.material, *id)) {
            digest.update(list);
        }
        digest.finalize().into()
    }
}

fn lists(
    material: &Material,
    id: RevocationId,
) -> impl Iterator<Item = &CertificateRevocationListDer<'static>> {
    material.revocations[id.0 as usize].found.iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_ask_for_is_there_once() {
        let material = Material::default();
        let mut trust = Trust::new(&material);
        assert!(Handle::ptr_eq(&trust.system(), &trust.system()));
        let (one, again) = (trust.authorities(&[]).unwrap(), trust.authorities(&[]).unwrap());
        assert!(Handle::ptr_eq(&one, &again));
    }
}
