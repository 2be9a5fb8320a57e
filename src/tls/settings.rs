//! How listeners and clusters speak TLS, as a plan says it. Files are named by their place in
//! [`Material`](super::material::Material).

use std::time::Duration;

use rustls::CipherSuite;

use crate::plan::ClusterId;

/// Index into `Material::certificates`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateId(pub u32);
/// Index into `Material::authorities`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthorityId(pub u32);
/// Index into `Material::revocations`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevocationId(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V1_2,
    V1_3,
}

impl Version {
    pub fn name(self) -> &'static str {
        match self {
            Version::V1_2 => "TLSv1.2",
            Version::V1_3 => "TLSv1.3",
        }
    }
}

/// As IANA has it.
pub fn suite_name(suite: CipherSuite) -> &'static str {
    // rustls has a prefix of its own for these.
    const OF_1_3: [(CipherSuite, &str); 3] = [
        (CipherSuite::TLS13_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384"),
        (CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, "TLS_CHACHA20_POLY1305_SHA256"),
        (CipherSuite::TLS13_AES_128_GCM_SHA256, "TLS_AES_128_GCM_SHA256"),
    ];
    let known = OF_1_3.iter().find(|(of_1_3, _)| *of_1_3 == suite).map(|(_, name)| *name);
    known.or_else(|| suite.as_str()).unwrap_or("unknown")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub min: Version,
    pub max: Version,
}

/// TLS as a listener speaks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    pub versions: Versions,
    /// The first that a client has is taken. Of both versions.
    pub suites: Vec<CipherSuite>,
    /// The first is for clients that name no host, or one that none is for.
    pub certificates: Vec<CertificateId>,
    /// A client that names a host which no certificate is for, or none, is refused.
    pub strict_sni: bool,
    /// A request for a host that the certificate is not for is answered 421.
    pub check_host: bool,
    /// `None`: clients are not asked for a certificate.
    pub client_auth: Option<ClientAuth>,
    /// Hosts that ask clients for other certificates than the listener does.
    pub names: Vec<NamedTls>,
    pub handshake_timeout: Duration,
    /// A client that does not begin with a TLS record speaks plain HTTP.
    pub allow_plain: bool,
    /// Hosts whose TLS is not ended here.
    pub passthrough: Vec<Passthrough>,
    /// Clients get tickets to come back with.
    pub session_tickets: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTls {
    /// Exact, or `*.` and a suffix, as routes have it: at any depth. Lower case.
    pub names: Vec<String>,
    pub client_auth: Option<ClientAuth>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passthrough {
    /// Exact, or `*.` and a suffix: one label more. Lower case.
    pub names: Vec<String>,
    pub cluster: ClusterId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// Without a certificate the handshake fails. Else only one that is wrong makes it fail.
    pub required: bool,
    pub authorities: Vec<AuthorityId>,
    pub revocations: Vec<RevocationId>,
    /// Request headers that tell upstreams who the client is. A client's own are removed.
    pub headers: Vec<(Box<[u8]>, IdentityField)>,
}

/// What is told of a verified client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityField {
    CommonName,
    OrganizationalUnit,
    /// All of it, RFC 4514.
    Subject,
    Issuer,
    /// Hexadecimal.
    Serial,
    DnsNames,
    Uris,
    Emails,
    SpiffeId,
    /// SHA-256 of the certificate, hexadecimal.
    Fingerprint,
    /// The certificate as PEM, percent-encoded.
    Certificate,
}

/// TLS towards the endpoints of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterTls {
    pub versions: Versions,
    /// `None`: those of the system.
    pub authorities: Option<Vec<AuthorityId>>,
    /// What is asked for and must be in the certificate. `None`: the endpoint's name, or its
    /// address.
    pub server_name: Option<String>,
    /// Nothing about the certificate is checked, but for its pin.
    pub skip_verify: bool,
    /// SHA-256 of public keys (SubjectPublicKeyInfo), one of which the endpoint must have. Empty:
    /// any.
    pub pins: Vec<[u8; 32]>,
    /// Ours, for an endpoint that asks.
    pub certificate: Option<CertificateId>,
    pub handshake_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    V1,
    V2,
}
