//! Who a client is, as its certificate says and an authority of ours has confirmed: for logs,
//! events and the headers that upstreams get.

use rustls_pki_types::CertificateDer;

use crate::base64;
use crate::hexadecimal;
use crate::http::headers::NewLine;
use crate::tls::settings::{ClientAuth, IdentityField};
use crate::tls::x509::Facts;

#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) facts: Facts,
}

impl Identity {
    /// `None`: it could be verified, but says something that we cannot read.
    pub(crate) fn of(leaf: &CertificateDer<'_>) -> Option<Identity> {
        Facts::read(leaf).ok().map(|facts| Identity { facts })
    }

    /// Percent-encoded; empty: it says nothing of it.
    fn field(&self, field: IdentityField, leaf: &CertificateDer<'_>) -> Vec<u8> {
        let facts = &self.facts;
        match field {
            IdentityField::CommonName => line(facts.common_name.as_deref().unwrap_or_default()),
            IdentityField::OrganizationalUnit => list(&facts.organizational_units),
            IdentityField::Subject => line(&facts.subject),
            IdentityField::Issuer => line(&facts.issuer),
            IdentityField::Serial => line(&facts.serial),
            IdentityField::DnsNames => list(&facts.dns_names),
            IdentityField::Uris => list(&facts.uris),
            IdentityField::Emails => list(&facts.emails),
            IdentityField::SpiffeId => line(facts.spiffe_id().unwrap_or_default()),
            IdentityField::Fingerprint => line(&hexadecimal::text(&facts.fingerprint)),
            // As nginx's `$ssl_client_escaped_cert`: for whoever decodes it as a URL's.
            IdentityField::Certificate => escaped(&pem(leaf), |byte| byte.is_ascii_alphanumeric()),
        }
    }
}

/// The lines for upstreams. Without an identity there are none.
pub(crate) fn lines(
    auth: Option<&ClientAuth>,
    identity: Option<(&Identity, &CertificateDer<'_>)>,
) -> Vec<NewLine> {
    let (Some(auth), Some((identity, leaf))) = (auth, identity) else { return Vec::new() };
    let line = |(name, field): &(Box<[u8]>, IdentityField)| {
        let value = identity.field(*field, leaf);
        (!value.is_empty()).then(|| (name.clone(), value.into()))
    };
    auth.headers.iter().filter_map(line).collect()
}

fn line(value: &str) -> Vec<u8> {
    escaped(value.as_bytes(), |byte| matches!(byte, 0x20..0x7f) && byte != b'%')
}

/// A comma ends a value, so none has one of its own: nobody becomes somebody else behind it.
fn list(values: &[String]) -> Vec<u8> {
    let is_free = |byte| matches!(byte, 0x20..0x7f) && !matches!(byte, b'%' | b',');
    let values: Vec<Vec<u8>> =
        values.iter().map(|value| escaped(value.as_bytes(), is_free)).collect();
    values.join(&b',')
}

/// What a certificate says goes into a header line only as what fits there: everything else, and
/// the sign itself, is percent-encoded, so that no name breaks out of its line.
fn escaped(value: &[u8], is_free: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for &byte in value {
        if is_free(byte) || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte);
        } else {
            out.push(b'%');
            out.extend_from_slice(&hexadecimal::upper(byte));
        }
    }
    out
}

fn pem(certificate: &[u8]) -> Vec<u8> {
    let mut text = b"-----BEGIN CERTIFICATE-----\n".to_vec();
    // 64 characters each (RFC 7468 section 2).
    for line in certificate.chunks(48) {
        base64::encode(line, &mut text);
        text.push(b'\n');
    }
    text.extend_from_slice(b"-----END CERTIFICATE-----\n");
    text
}
