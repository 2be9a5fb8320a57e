//! TLS towards endpoints, as one data core speaks it with those of one cluster. Made on the control
//! core, like the other side.

use std::sync::Arc; // tidy: required by rustls
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore};
use rustls::{Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};

use crate::engine::Socket;
use crate::limits;
use crate::plan::ClusterProtocol;
use crate::tls::handshake::{self, Failed, Settled};
use crate::tls::server::{certified, versions};
use crate::tls::session::Session;
use crate::tls::settings::ClusterTls;
use crate::tls::trust::Trust;

/// One core's own.
type Handle<T> = Arc<T>; // tidy: required by rustls

/// A cluster's TLS on one core.
#[derive(Debug)]
pub(crate) struct UpstreamTls {
    config: Handle<ClientConfig>,
    /// Instead of the endpoint's own.
    server_name: Option<ServerName<'static>>,
    handshake_timeout: Duration,
    /// Of all that it is made of: a connection made with another is not used again, and what is
    /// alike is not replaced, since its sessions would be forgotten.
    pub(crate) digest: [u8; 32],
}

impl UpstreamTls {
    pub(crate) fn new(
        cluster: &str,
        tls: &ClusterTls,
        protocol: ClusterProtocol,
        trust: &mut Trust<'_>,
    ) -> Result<UpstreamTls, String> {
        let wrong = |error: &dyn std::fmt::Display| {
            format!("cluster {cluster}: TLS cannot be set up: {error}")
        };
        let provider = Handle::clone(&trust.provider);
        let roots = authorities(tls, trust).map_err(|error| wrong(&error))?;
        let alpn = alpn(protocol);
        let mut digest = digest(tls);
        alpn.iter().for_each(|name| add(&mut digest, name));
        for anchor in &roots.roots {
            add(&mut digest, &anchor.subject);
            add(&mut digest, &anchor.subject_public_key_info);
            add(&mut digest, anchor.name_constraints.as_deref().unwrap_or_default());
        }
        let verifier = Verifier::new(tls, roots, &provider).map_err(|error| wrong(&error))?;
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(versions(tls.versions));
        let builder = builder.map_err(|error| wrong(&error))?.dangerous();
        let builder = builder.with_custom_certificate_verifier(Handle::new(verifier));
        let own = tls.certificate.map(|id| &trust.material.certificates[id.0 as usize]);
        let mut config = match own.map(|own| (own, &own.found)) {
            None => builder.with_no_client_auth(),
            Some((own, None)) => {
                return Err(wrong(&format!("{} was not read", own.source.cert.display())));
            }
            Some((_, Some(certificate))) => {
                digest.update(b"own");
                certificate.chain.iter().for_each(|part| add(&mut digest, part));
                let key = certified(certificate, None).map_err(|error| wrong(&error))?;
                builder.with_client_cert_resolver(Handle::new(SingleCertAndKey::from(key)))
            }
        };
        config.alpn_protocols = alpn;
        config.resumption = Resumption::in_memory_sessions(limits::TLS_CLIENT_SESSIONS);
        config.enable_secret_extraction = true;
        let server_name = tls.server_name.clone().map(ServerName::try_from).transpose();
        Ok(UpstreamTls {
            config: Handle::new(config),
            server_name: server_name.map_err(|error| wrong(&error))?,
            handshake_timeout: tls.handshake_timeout,
            digest: digest.finalize().into(),
        })
    }

    /// The same for connections on which HTTP/1.1 alone is to be spoken; tickets are shared.
    pub(crate) fn for_http1(&self) -> UpstreamTls {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = alpn(ClusterProtocol::H1);
        let (server_name, digest) = (self.server_name.clone(), self.digest);
        let config = Handle::new(config);
        UpstreamTls { config, server_name, handshake_timeout: self.handshake_timeout, digest }
    }

    /// Speaks TLS with an endpoint that is known by this name.
    pub(crate) async fn connect(
        &self,
        socket: &Socket,
        endpoint: &ServerName<'static>,
    ) -> Result<(Session, Settled), Failed> {
        let name = self.server_name.as_ref().unwrap_or(endpoint).clone();
        let config = Handle::clone(&self.config);
        let connection = UnbufferedClientConnection::new(config, name).map_err(Failed::Refused)?;
        handshake::run(socket, connection, self.handshake_timeout).await
    }

    pub(crate) fn handshake_timeout(&self) -> Duration {
        self.handshake_timeout
    }
}

/// What we offer to speak, what we like best first.
fn alpn(protocol: ClusterProtocol) -> Vec<Vec<u8>> {
    let offered: &[&[u8]] = match protocol {
        ClusterProtocol::H1 => &[b"http/1.1"],
        ClusterProtocol::H2 | ClusterProtocol::H2c => &[H2],
        ClusterProtocol::Auto => &[H2, b"http/1.1"],
    };
    offered.iter().map(|name| name.to_vec()).collect()
}

/// HTTP/2, as ALPN calls it (RFC 9113 section 3.2).
pub(crate) const H2: &[u8] = b"h2";

fn authorities(tls: &ClusterTls, trust: &mut Trust<'_>) -> Result<Handle<RootCertStore>, String> {
    if let Some(authorities) = &tls.authorities {
        return trust.authorities(authorities);
    }
    let roots = trust.system();
    if roots.is_empty() && !tls.skip_verify {
        return Err("the system trusts no authority: install ca-certificates, or name one as \
                    `ca`"
            .to_owned());
    }
    Ok(roots)
}

fn digest(tls: &ClusterTls) -> Sha256 {
    let mut digest = Sha256::new();
    let ClusterTls { versions, server_name, skip_verify, pins, handshake_timeout, .. } = tls;
    digest.update([versions.min as u8, versions.max as u8, u8::from(*skip_verify)]);
    digest.update(handshake_timeout.as_nanos().to_be_bytes());
    add(&mut digest, server_name.as_deref().unwrap_or_default().as_bytes());
    digest.update((pins.len() as u64).to_be_bytes());
    pins.iter().for_each(|pin| digest.update(pin));
    digest
}

/// With its length, so that no two rows of parts look the same.
fn add(digest: &mut Sha256, part: &[u8]) {
    digest.update((part.len() as u64).to_be_bytes());
    digest.update(part);
}

/// Who an endpoint has to be.
#[derive(Debug)]
struct Verifier {
    /// `None`: whoever it is.
    chain: Option<Handle<WebPkiServerVerifier>>,
    pins: Vec<[u8; 32]>,
    provider: Handle<CryptoProvider>,
}

impl Verifier {
    fn new(
        tls: &ClusterTls,
        roots: Handle<RootCertStore>,
        provider: &Handle<CryptoProvider>,
    ) -> Result<Verifier, String> {
        let provider = Handle::clone(provider);
        let chain = match tls.skip_verify {
            true => None,
            false => {
                let provider = Handle::clone(&provider);
                let builder = WebPkiServerVerifier::builder_with_provider(roots, provider);
                Some(builder.build().map_err(|error| error.to_string())?)
            }
        };
        Ok(Verifier { chain, pins: tls.pins.clone(), provider })
    }

    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> Result<bool, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let digest: [u8; 32] = Sha256::digest(parsed.subject_public_key_info()).into();
        Ok(self.pins.contains(&digest))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.verify_server_cert(leaf, between, name, ocsp, now)?;
        }
        if !self.pins.is_empty() && !self.is_pinned(leaf)? {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
