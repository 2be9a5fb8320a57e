//! Who a client is, as its certificate says and an authority of ours has confirmed: for logs,
//! events and the headers that upstreams get.

use std::fmt::Write as _;

use rustls_pki_types::CertificateDer;

use crate::http::headers::IdentityLines;
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

    fn field(&self, field: IdentityField, leaf: &CertificateDer<'_>) -> String {
        let facts = &self.facts;
        match field {
            IdentityField::CommonName => facts.common_name.clone().unwrap_or_default(),
            IdentityField::OrganizationalUnit => facts.organizational_units.join(","),
            IdentityField::Subject => facts.subject.clone(),
            IdentityField::Issuer => facts.issuer.clone(),
            IdentityField::Serial => facts.serial.clone(),
            IdentityField::DnsNames => facts.dns_names.join(","),
            IdentityField::Uris => facts.uris.join(","),
            IdentityField::Emails => facts.emails.join(","),
            IdentityField::SpiffeId => facts.spiffe_id().unwrap_or_default().to_owned(),
            IdentityField::Fingerprint => hexadecimal(&facts.fingerprint),
            IdentityField::Certificate => pem(leaf),
        }
    }
}

/// The lines for upstreams. Without an identity there are none, but the client's own still go, and
/// those that only other hosts of the listener have: their backends may be the same.
pub(crate) fn lines(
    auth: Option<&ClientAuth>,
    identity: Option<(&Identity, &CertificateDer<'_>)>,
    stripped: &[Box<[u8]>],
) -> IdentityLines {
    let headers = auth.map_or(&[][..], |auth| &auth.headers);
    let line = |(name, field): &(Box<[u8]>, IdentityField)| {
        let (identity, leaf) = identity?;
        let value = identity.field(*field, leaf);
        // As nginx's `$ssl_client_escaped_cert`: for whoever decodes it as a URL's.
        let is_url = *field == IdentityField::Certificate;
        let is_free = |byte: u8| match is_url {
            true => byte.is_ascii_alphanumeric(),
            false => matches!(byte, 0x20..0x7f) && byte != b'%',
        };
        (!value.is_empty()).then(|| (name.clone(), escaped(&value, is_free)))
    };
    IdentityLines { stripped: stripped.to_vec(), lines: headers.iter().filter_map(line).collect() }
}

/// What a certificate says goes into a header line only as what fits there: everything else, and
/// the sign itself, is percent-encoded, so that no name breaks out of its line.
fn escaped(value: &str, is_free: impl Fn(u8) -> bool) -> Box<[u8]> {
    let mut out = Vec::with_capacity(value.len());
    for byte in value.bytes() {
        if is_free(byte) || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out.into()
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

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
