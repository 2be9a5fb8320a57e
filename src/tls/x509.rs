//! What an X.509 certificate says of itself (RFC 5280).

use std::net::IpAddr;
use std::time::SystemTime;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// As RFC 4514 writes it.
    pub subject: String,
    pub common_name: Option<String>,
    pub organizational_units: Vec<String>,
    pub issuer: String,
    /// Hexadecimal.
    pub serial: String,
    /// Lower case.
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub uris: Vec<String>,
    pub emails: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub key_digest: [u8; 32],
    pub key: KeyKind,
    /// Where its revocation can be asked for.
    pub ocsp_responder: Option<String>,
    /// It is only good with a stapled answer (RFC 7633).
    pub must_staple: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Bits of the modulus.
    Rsa(u32),
    P256,
    P384,
    P521,
    Ed25519,
    Other,
}
