//! TLS towards clients, as one data core speaks it: made on the control core of a plan and its
//! material, sent to the data core, and never shared, so that no handshake touches a count or a
//! lock that another core touches too.

use std::sync::Arc; // tidy: required by rustls
use std::time::{Duration, UNIX_EPOCH};

use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, UnbufferedServerConnection,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, CertificateError, CipherSuite, Error, ServerConfig};
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};

use crate::engine::{self, Socket};
use crate::http::headers::NewLine;
use crate::plan::{Listener, Plan};
use crate::telemetry::client_tls::ClientTls;
use crate::tls::certificates::Certificate;
use crate::tls::handshake::{self, Failed, Settled};
use crate::tls::identity::{self, Identity};
use crate::tls::material::Material;
use crate::tls::names::Names;
use crate::tls::session::Session;
use crate::tls::settings::{ClientAuth, ListenerTls, Version, Versions, suite_name};
use crate::tls::setup::Staples;
use crate::tls::tickets::{TicketKeys, ticketer};
use crate::tls::trust::Trust;

/// One core's own.
type Handle<T> = Arc<T>; // tidy: required by rustls

/// A listener's TLS on one core.
#[derive(Debug)]
pub(crate) struct ServerTls {
    profiles: Vec<Profile>,
    /// Hosts that have another than the first, by name or by what follows `*.`.
    names: Handle<Names<usize>>,
    certificates: Handle<Certificates>,
    check_host: bool,
    handshake_timeout: Duration,
}

/// For hosts with the same rules for clients' certificates.
#[derive(Debug)]
struct Profile {
    config: Handle<ServerConfig>,
    auth: Option<ClientAuth>,
    /// What stands for `auth`, with all that is in its files. `None`: nothing is asked.
    rules: Option<[u8; 32]>,
    /// Of what `auth` asks for.
    verifier: Option<Handle<dyn ClientCertVerifier>>,
}

impl Profile {
    /// Who a client is. What a ticket says was true once: it has to be so still, for the times of
    /// certificates and of lists of revoked ones end while tickets beget tickets.
    fn identify(
        &self,
        chain: &[CertificateDer<'_>],
        is_resumed: bool,
    ) -> Result<Option<Box<Identity>>, CertificateError> {
        let Some(leaf) = chain.first() else { return Ok(None) };
        if is_resumed {
            self.verify(chain)?;
        }
        // An authority has signed it, and it says something that we cannot read.
        let identity = Identity::of(leaf).ok_or(CertificateError::BadEncoding)?;
        Ok(Some(Box::new(identity)))
    }

    /// Holds what a client has shown against what is asked now.
    fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), CertificateError> {
        let (Some((leaf, between)), Some(verifier)) = (chain.split_first(), &self.verifier) else {
            return Ok(());
        };
        let now = engine::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(now);
        match verifier.verify_client_cert(leaf, between, now) {
            Ok(_) => Ok(()),
            Err(Error::InvalidCertificate(why)) => Err(why),
            Err(_) => Err(CertificateError::ApplicationVerificationFailure),
        }
    }
}

/// What a handshake with a client has settled.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) version: Version,
    pub(crate) suite: CipherSuite,
    pub(crate) is_resumed: bool,
    pub(crate) alpn: Option<Box<[u8]>>,
    /// The host that the client asked for.
    pub(crate) host: Option<Box<str>>,
    /// `None`: it has shown no certificate.
    pub(crate) identity: Option<Box<Identity>>,
    /// For upstreams.
    pub(crate) lines: Vec<NewLine>,
    /// Requests are for hosts that the certificate is for, or refused.
    checked: Option<Handle<Certificates>>,
    /// And for hosts that let in whom this one does: else asking TLS for an open one would open
    /// all of them.
    profile: Option<(Handle<Names<usize>>, usize)>,
    /// What its certificate, or that it showed none, was held against.
    rules: Option<[u8; 32]>,
    /// What it has shown: rules may change while it is here.
    chain: Box<[CertificateDer<'static>]>,
}

impl Accepted {
    /// For logs.
    pub(crate) fn told(&self) -> ClientTls<'_> {
        ClientTls {
            version: self.version.name(),
            cipher: suite_name(self.suite),
            server_name: self.host.as_deref().unwrap_or_default(),
            resumed: self.is_resumed,
            client: self.identity.as_ref().map(|identity| &identity.facts),
        }
    }

    /// Whether a request on this connection may be for `authority` (RFC 9110 section 15.5.20).
    pub(crate) fn is_for(&self, authority: &[u8]) -> bool {
        if self.checked.is_none() && self.profile.is_none() {
            return true;
        }
        let Some(host) = host_of(authority) else { return false };
        let has_profile =
            |(names, profile): &(Handle<Names<usize>>, usize)| profile_of(names, &host) == *profile;
        let covers =
            |certificates: &Handle<Certificates>| certificates.covers(self.host.as_deref(), &host);
        self.profile.as_ref().is_none_or(has_profile) && self.checked.as_ref().is_none_or(covers)
    }
}

impl ServerTls {
    /// Of a listener that has TLS to end.
    pub(crate) fn new(
        plan: &Plan,
        trust: &mut Trust<'_>,
        listener: &Listener,
        tls: &ListenerTls,
        keys: &TicketKeys,
        staples: &Staples,
    ) -> Result<ServerTls, String> {
        let certificates = Handle::new(Certificates::new(trust.material, tls, staples)?);
        let provider = Handle::new(provider(&tls.suites));
        let mut common = Common { plan, trust, listener, tls, keys, provider, certificates };
        let mut profiles = vec![common.profile(tls.client_auth.as_ref())?];
        let mut names = Names::default();
        for named in &tls.names {
            profiles.push(common.profile(named.client_auth.as_ref())?);
            for name in &named.names {
                names.entry(name).insert_entry(profiles.len() - 1);
            }
        }
        let (certificates, handshake_timeout) = (common.certificates, tls.handshake_timeout);
        let (names, check_host) = (Handle::new(names), tls.check_host);
        Ok(ServerTls { profiles, names, certificates, check_host, handshake_timeout })
    }

    /// Speaks TLS with a client that asks for `host`.
    pub(crate) async fn accept(
        &self,
        socket: &Socket,
        host: Option<&str>,
    ) -> Result<(Session, Accepted), Failed> {
        let profile = profile_of(&self.names, host.unwrap_or_default());
        let Profile { config, auth, .. } = &self.profiles[profile];
        let connection = UnbufferedServerConnection::new(Handle::clone(config));
        let connection = connection.map_err(Failed::Refused)?;
        let shaken = handshake::run(socket, connection, self.handshake_timeout).await?;
        let (mut session, Settled { version, suite, is_resumed, alpn, chain }) = shaken;
        let identity = match self.profiles[profile].identify(&chain, is_resumed) {
            Ok(identity) => identity,
            Err(why) => {
                let alert = session.turn_away(AlertDescription::from(why.clone()).into());
                let _ = socket.send(&[&alert, b"", b""], self.handshake_timeout).await;
                return Err(Failed::Refused(Error::InvalidCertificate(why)));
            }
        };
        let lines = identity::lines(auth.as_ref(), identity.as_deref().zip(chain.first()));
        let (host, alpn) = (host.map(Box::from), alpn.map(Vec::into_boxed_slice));
        let checked = self.check_host.then(|| Handle::clone(&self.certificates));
        let accepted = Accepted {
            version,
            suite,
            is_resumed,
            alpn,
            host,
            identity,
            lines,
            checked,
            profile: (self.profiles.len() > 1).then(|| (Handle::clone(&self.names), profile)),
            rules: self.profiles[profile].rules,
            chain: chain.into_boxed_slice(),
        };
        Ok((session, accepted))
    }

    /// Who asks for the same host now is held against others. To ask less is no reason to part.
    pub(crate) fn has_other_rules(&self, accepted: &Accepted) -> bool {
        let now = self.profile(accepted.host.as_deref().unwrap_or_default()).rules;
        now.is_some() && now != accepted.rules
    }

    /// A client that came when there were other rules may ask for `authority` no more.
    pub(crate) fn turns_away(&self, accepted: Option<&Accepted>, authority: &[u8]) -> bool {
        if self.profiles.iter().all(|profile| profile.rules.is_none()) {
            return false;
        }
        let Some(host) = host_of(authority) else { return true };
        let profile = self.profile(&host);
        let requires = profile.auth.as_ref().is_some_and(|auth| auth.required);
        let Some(accepted) = accepted else { return requires };
        let own = self.profile(accepted.host.as_deref().unwrap_or_default());
        // Somebody may have been revoked since, or an authority be trusted no more.
        let is_out = || own.rules != accepted.rules && own.verify(&accepted.chain).is_err();
        (requires && accepted.identity.is_none()) || own.rules != profile.rules || is_out()
    }

    /// Whether all hosts' clients are held against what they are held against there.
    pub(crate) fn has_rules_of(&self, other: &ServerTls) -> bool {
        fn rules(tls: &ServerTls) -> impl Iterator<Item = Option<[u8; 32]>> {
            tls.profiles.iter().map(|profile| profile.rules)
        }
        self.names == other.names && rules(self).eq(rules(other))
    }

    fn profile(&self, host: &str) -> &Profile {
        &self.profiles[profile_of(&self.names, host)]
    }

    /// Whether a certificate, or rules for clients' certificates, are for this very host.
    pub(crate) fn names(&self, host: &str) -> bool {
        self.certificates.names.find_exact(host).is_some() || self.names.find_exact(host).is_some()
    }

    /// Whether a certificate is for this host.
    pub(crate) fn has(&self, host: Option<&str>) -> bool {
        host.is_some_and(|host| self.certificates.names.find(host).is_some())
    }
}

/// As names are kept. `None`: it is none.
fn host_of(authority: &[u8]) -> Option<String> {
    let authority = std::str::from_utf8(authority).ok()?;
    let host = match authority.strip_prefix('[') {
        Some(_) => authority,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    Some(host.trim_end_matches('.').to_ascii_lowercase())
}

/// Which rules for clients' certificates hold for a host. Routes know no depth below a wildcard, so
/// these do not either.
fn profile_of(names: &Names<usize>, host: &str) -> usize {
    names.find_at_any_depth(host).copied().unwrap_or_default()
}

/// What the profiles of a listener have in common.
struct Common<'a, 't> {
    plan: &'a Plan,
    trust: &'a mut Trust<'t>,
    listener: &'a Listener,
    tls: &'a ListenerTls,
    keys: &'a TicketKeys,
    provider: Handle<CryptoProvider>,
    certificates: Handle<Certificates>,
}

impl Common<'_, '_> {
    fn profile(&mut self, auth: Option<&ClientAuth>) -> Result<Profile, String> {
        let wrong = |error: &dyn std::fmt::Display| {
            format!("listener {}: TLS cannot be set up: {error}", self.listener.name)
        };
        let clients = auth.map(|auth| self.trust.clients(auth)).transpose();
        let clients = clients.map_err(|error| wrong(&error))?;
        let rules = clients.as_ref().map(|clients| clients.digest);
        let verifier = clients.map(|clients| clients.verifier);
        let builder = ServerConfig::builder_with_provider(Handle::clone(&self.provider));
        let builder = builder.with_protocol_versions(versions(self.tls.versions));
        let builder = builder.map_err(|error| wrong(&error))?;
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(Handle::clone(verifier)),
        };
        let certificates: Handle<dyn ResolvesServerCert> = Handle::clone(&self.certificates) as _;
        let mut config = builder.with_cert_resolver(certificates);
        config.ignore_client_order = true;
        let protocols: &[&[u8]] = match self.listener.http2.enabled {
            true => &[H2, b"http/1.1"],
            false => &[b"http/1.1"],
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.session_storage = Handle::new(NoServerSessionStorage {});
        if self.tls.session_tickets {
            let scope = self.scope(rules);
            config.ticketer = ticketer(self.keys, &scope, self.plan.ticket_rotation);
        } else {
            config.send_tls13_tickets = 0;
        }
        // For our own records: see `record`.
        config.enable_secret_extraction = true;
        Ok(Profile { config: Handle::new(config), auth: auth.cloned(), rules, verifier })
    }

    /// What a ticket must not cross: another listener, or other rules for who may come in.
    fn scope(&self, rules: Option<[u8; 32]>) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.listener.name.as_bytes());
        if let Some(rules) = rules {
            digest.update([0]);
            digest.update(rules);
        }
        digest.finalize().into()
    }
}

/// What a client asks for that would speak HTTP/2 (RFC 9113 section 3.2).
pub(crate) const H2: &[u8] = b"h2";

pub(super) fn versions(range: Versions) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match (range.min, range.max) {
        (Version::V1_2, Version::V1_2) => &BOTH[1..],
        (Version::V1_2, Version::V1_3) => &BOTH,
        (Version::V1_3, Version::V1_2 | Version::V1_3) => &BOTH[..1],
    }
}

/// Key exchanges in our order: what a quantum computer will not open comes first.
pub(super) fn provider(suites: &[CipherSuite]) -> CryptoProvider {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let all = aws_lc_rs::ALL_CIPHER_SUITES;
    let known = |wanted: &CipherSuite| all.iter().find(|suite| suite.suite() == *wanted).copied();
    CryptoProvider {
        cipher_suites: suites.iter().filter_map(known).collect(),
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
        ..aws_lc_rs::default_provider()
    }
}

/// A key of a certificate as a data core uses it.
pub(super) fn certified(
    certificate: &Certificate,
    staple: Option<&Vec<u8>>,
) -> Result<CertifiedKey, String> {
    let key = aws_lc_rs::sign::any_supported_type(&certificate.key);
    let key = key.map_err(|error| error.to_string())?;
    let mut certified = CertifiedKey::new(certificate.chain.clone(), key);
    certified.ocsp = staple.cloned();
    Ok(certified)
}

/// The certificates of a listener, by the host that a client asks for.
#[derive(Debug)]
struct Certificates {
    /// Several for one host have keys of different kinds.
    names: Names<Vec<Handle<CertifiedKey>>>,
    /// For clients that ask for none, or one that none is for.
    default: Vec<Handle<CertifiedKey>>,
    strict: bool,
}

impl Certificates {
    fn new(
        material: &Material,
        tls: &ListenerTls,
        staples: &Staples,
    ) -> Result<Certificates, String> {
        let mut names: Names<Vec<Handle<CertifiedKey>>> = Names::default();
        let (mut default, mut default_names): (Vec<_>, Names<()>) = (Vec::new(), Names::default());
        for id in &tls.certificates {
            let index = id.0 as usize;
            let entry = &material.certificates[index];
            let Some(certificate) = &entry.found else {
                return Err(format!("{} was not read", entry.source.cert.display()));
            };
            let staple = staples.get(&certificate.facts.fingerprint);
            let key = certified(certificate, staple);
            let key = key.map_err(|error| format!("{}: {error}", entry.source.cert.display()))?;
            let key = Handle::new(key);
            let own = match entry.source.names.as_slice() {
                [] => &certificate.facts.dns_names,
                given => given,
            };
            // Of the first's hosts, or a twin of it with a key of another kind.
            let is_default = default.is_empty() || own.iter().any(|name| default_names.has(name));
            for name in own {
                names.entry(name).or_default().push(Handle::clone(&key));
                if is_default {
                    default_names.entry(name).or_default();
                }
            }
            if is_default {
                default.push(key);
            }
        }
        Ok(Certificates { names, default, strict: tls.strict_sni })
    }

    fn of(&self, host: Option<&str>) -> &[Handle<CertifiedKey>] {
        match host.map(|host| self.names.find(host)) {
            Some(Some(keys)) => keys,
            Some(None) if self.strict => &[],
            Some(None) | None => &self.default,
        }
    }

    fn covers(&self, named: Option<&str>, host: &str) -> bool {
        let Some(for_host) = self.names.find(host) else {
            return false;
        };
        let served = self.of(named);
        served.iter().any(|key| for_host.iter().any(|other| Handle::ptr_eq(key, other)))
    }
}

impl ResolvesServerCert for Certificates {
    /// Of several, the one whose kind the client would rather have.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Handle<CertifiedKey>> {
        let host = hello.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let keys = self.of(host.as_deref());
        let schemes = hello.signature_schemes();
        let wanted = |key: &&Handle<CertifiedKey>| {
            let one = |scheme| key.key.choose_scheme(std::slice::from_ref(scheme)).is_some();
            schemes.iter().position(one).unwrap_or(usize::MAX)
        };
        keys.iter().min_by_key(wanted).map(Handle::clone)
    }
}
