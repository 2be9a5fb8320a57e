//! Who a client is, as its certificate says and an authority of ours has confirmed: for logs,
//! events and the headers that upstreams get.

use rustls_pki_types::CertificateDer;

use crate::http::headers::NewLine;
use crate::tls::settings::{ClientAuth, IdentityField};
use crate::tls::x509::{Facts, hexadecimal};

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
            IdentityField::Fingerprint => line(&hexadecimal(&facts.fingerprint)),
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
    escaped(value, |byte| matches!(byte, 0x20..0x7f) && byte != b'%')
}

/// A comma ends a value, so none has one of its own: nobody becomes somebody else behind it.
fn list(values: &[String]) -> Vec<u8> {
    let is_free = |byte| matches!(byte, 0x20..0x7f) && !matches!(byte, b'%' | b',');
    let values: Vec<Vec<u8>> = values.iter().map(|value| escaped(value, is_free)).collect();
    values.join(&b',')
}

/// What a certificate says goes into a header line only as what fits there: everything else, and
/// the sign itself, is percent-encoded, so that no name breaks out of its line.
fn escaped(value: &str, is_free: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for byte in value.bytes() {
        if is_free(byte) || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out
}

fn pem(certificate: &[u8]) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut column = 0;
    for group in certificate.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for at in 0..4 {
            let letter = BASE64[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at > group.len() { '=' } else { char::from(letter) });
        }
        column += 4;
        if column % 64 == 0 {
            text.push('\n');
        }
    }
    if column % 64 != 0 {
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
