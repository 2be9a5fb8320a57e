//! What an X.509 certificate says of itself (RFC 5280). Nothing is verified here.

use std::net::IpAddr;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};

use crate::hexadecimal;
use crate::tls::der::{Malformed, Reader, tag};
use crate::tls::distinguished_name;

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

impl Facts {
    pub fn read(der: &[u8]) -> Result<Facts, Malformed> {
        let parts = Parts::read(der)?;
        let mut facts = Facts {
            subject: distinguished_name::text(parts.subject_content()?)?,
            common_name: distinguished_name::common_name(parts.subject_content()?)?,
            organizational_units: distinguished_name::organizational_units(
                parts.subject_content()?,
            )?,
            issuer: distinguished_name::text(Reader::new(parts.issuer).take(tag::SEQUENCE)?)?,
            serial: hexadecimal::text(unpadded(parts.serial)),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            uris: Vec::new(),
            emails: Vec::new(),
            not_before: parts.not_before,
            not_after: parts.not_after,
            fingerprint: sha256(der),
            key_digest: sha256(parts.key_info),
            key: key_kind(parts.key_info)?,
            ocsp_responder: None,
            must_staple: false,
        };
        for extension in parts.extensions() {
            let Extension { kind, value, .. } = extension?;
            match kind {
                ALTERNATIVE_NAMES => facts.read_names(value)?,
                AUTHORITY_ACCESS => facts.ocsp_responder = responder(value)?,
                TLS_FEATURE => facts.must_staple = asks_for_staple(value)?,
                _ => {}
            }
        }
        Ok(facts)
    }

    /// What SPIFFE calls an X.509-SVID has one URI, which is the identity.
    pub fn spiffe_id(&self) -> Option<&str> {
        match self.uris.as_slice() {
            [only] if only.starts_with("spiffe://") => Some(only),
            _ => None,
        }
    }

    /// RFC 9525: by its alternative names, never by its subject. `host` as in a URL: an address in
    /// brackets or without, a name with or without a dot at its end, in any case.
    pub fn is_for(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        self.dns_names.iter().any(|name| covers(name, host))
    }

    /// RFC 5280 4.2.1.6.
    fn read_names(&mut self, value: &[u8]) -> Result<(), Malformed> {
        const EMAIL: u8 = tag::context_plain(1);
        const DNS: u8 = tag::context_plain(2);
        const URI: u8 = tag::context_plain(6);
        const ADDRESS: u8 = tag::context_plain(7);
        let mut reader = Reader::new(value);
        let mut names = reader.sequence()?;
        reader.end()?;
        while !names.is_empty() {
            let name = names.element()?;
            match name.tag {
                EMAIL => self.emails.push(printable(name.content)?.to_owned()),
                DNS => self.dns_names.push(printable(name.content)?.to_ascii_lowercase()),
                URI => self.uris.push(printable(name.content)?.to_owned()),
                ADDRESS => self.addresses.push(address(name.content)?),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether a name in a certificate, `*.` and a suffix or exact, is for a host: a wildcard stands
/// for exactly one label.
pub fn covers(name: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    match name.strip_prefix("*.") {
        Some(suffix) => host.split_once('.').is_some_and(|(label, rest)| {
            !label.is_empty() && !suffix.is_empty() && rest.eq_ignore_ascii_case(suffix)
        }),
        None => !host.is_empty() && name.eq_ignore_ascii_case(host),
    }
}

/// Where things are in a certificate.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// What the signature is over.
    pub signed: &'a [u8],
    /// As it is encoded.
    pub serial: &'a [u8],
    /// The whole Name, as the subject of whoever signed it has it.
    pub issuer: &'a [u8],
    pub subject: &'a [u8],
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// SubjectPublicKeyInfo.
    pub key_info: &'a [u8],
    /// The content of the AlgorithmIdentifier.
    pub algorithm: &'a [u8],
    pub signature: &'a [u8],
    extensions: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
pub struct Extension<'a> {
    pub kind: &'a [u8],
    pub critical: bool,
    pub value: &'a [u8],
}

impl<'a> Parts<'a> {
    pub fn read(der: &'a [u8]) -> Result<Parts<'a>, Malformed> {
        let mut all = Reader::new(der);
        let mut certificate = all.sequence()?;
        all.end()?;
        let signed = certificate.whole(tag::SEQUENCE)?;
        let algorithm = certificate.take(tag::SEQUENCE)?;
        let signature = certificate.bit_string()?;
        certificate.end()?;
        let mut body = Reader::new(signed.content);
        body.optional(tag::context(0))?; // the version
        // Some old authorities have a number below zero, or with needless digits.
        let serial = body.take(tag::INTEGER)?;
        if body.take(tag::SEQUENCE)? != algorithm {
            return Err(Malformed("two algorithms for one signature"));
        }
        let issuer = body.whole(tag::SEQUENCE)?.whole;
        let mut validity = body.sequence()?;
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        let subject = body.whole(tag::SEQUENCE)?.whole;
        let key_info = body.whole(tag::SEQUENCE)?.whole;
        body.optional(tag::context_plain(1))?; // identifiers that nobody uses
        body.optional(tag::context_plain(2))?;
        let extensions = match body.optional(tag::context(3))? {
            Some(wrapped) => Reader::new(wrapped).take(tag::SEQUENCE)?,
            None => &[],
        };
        body.end()?;
        Ok(Parts {
            signed: signed.whole,
            serial,
            issuer,
            subject,
            not_before,
            not_after,
            key_info,
            algorithm,
            signature,
            extensions,
        })
    }

    pub fn extensions(&self) -> Extensions<'a> {
        Extensions { rest: Reader::new(self.extensions) }
    }

    pub fn extension(&self, kind: &[u8]) -> Result<Option<&'a [u8]>, Malformed> {
        for extension in self.extensions() {
            let extension = extension?;
            if extension.kind == kind {
                return Ok(Some(extension.value));
            }
        }
        Ok(None)
    }

    /// Whether its extended key usage lists this one. `None`: it has none.
    pub fn has_purpose(&self, purpose: &[u8]) -> Result<Option<bool>, Malformed> {
        let Some(value) = self.extension(EXTENDED_KEY_USAGE)? else { return Ok(None) };
        let mut purposes = Reader::new(value).sequence()?;
        while !purposes.is_empty() {
            if purposes.oid()? == purpose {
                return Ok(Some(true));
            }
        }
        Ok(Some(false))
    }

    /// The algorithm of the key, content of an AlgorithmIdentifier, and the bits of the key.
    pub fn key(&self) -> Result<(Reader<'a>, &'a [u8]), Malformed> {
        key_of(self.key_info)
    }

    fn subject_content(&self) -> Result<&'a [u8], Malformed> {
        Reader::new(self.subject).take(tag::SEQUENCE)
    }
}

/// Ends with the first that is malformed.
pub struct Extensions<'a> {
    rest: Reader<'a>,
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Result<Extension<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let found = extension(&mut self.rest);
        if found.is_err() {
            self.rest = Reader::new(&[]);
        }
        Some(found)
    }
}

fn extension<'a>(rest: &mut Reader<'a>) -> Result<Extension<'a>, Malformed> {
    let mut fields = rest.sequence()?;
    let kind = fields.oid()?;
    let critical = fields.peek() == Some(tag::BOOLEAN) && fields.boolean()?;
    let value = fields.octet_string()?;
    fields.end()?;
    Ok(Extension { kind, critical, value })
}

const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 17];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
const AUTHORITY_ACCESS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 1];
const TLS_FEATURE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 24];
const RESPONDER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1];

/// The first that is asked over HTTP: RFC 5280 4.2.2.1.
fn responder(value: &[u8]) -> Result<Option<String>, Malformed> {
    let mut descriptions = Reader::new(value).sequence()?;
    while !descriptions.is_empty() {
        let mut description = descriptions.sequence()?;
        let method = description.oid()?;
        let place = description.element()?;
        if method == RESPONDER && place.tag == tag::context_plain(6) {
            // Nobody can be asked at a place that cannot be written: no reason to refuse the rest.
            let Ok(url) = printable(place.content) else { continue };
            if url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://")) {
                return Ok(Some(url.to_owned()));
            }
        }
    }
    Ok(None)
}

fn asks_for_staple(value: &[u8]) -> Result<bool, Malformed> {
    const STATUS_REQUEST: u32 = 5;
    let mut features = Reader::new(value).sequence()?;
    while !features.is_empty() {
        if features.small()? == STATUS_REQUEST {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Names go into headers, logs and tables.
fn printable(name: &[u8]) -> Result<&str, Malformed> {
    let wrong = Malformed("an alternative name with characters that names cannot have");
    if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
        return Err(wrong);
    }
    std::str::from_utf8(name).map_err(|_| wrong)
}

fn address(bytes: &[u8]) -> Result<IpAddr, Malformed> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(four));
    }
    let sixteen = <[u8; 16]>::try_from(bytes);
    sixteen.map(IpAddr::from).map_err(|_| Malformed("an address of neither 4 nor 16 bytes"))
}

fn key_of(key_info: &[u8]) -> Result<(Reader<'_>, &[u8]), Malformed> {
    let mut fields = Reader::new(key_info).sequence()?;
    let algorithm = fields.sequence()?;
    let bits = fields.bit_string()?;
    fields.end()?;
    Ok((algorithm, bits))
}

fn key_kind(key_info: &[u8]) -> Result<KeyKind, Malformed> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    const CURVE: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    const P384: &[u8] = &[0x2b, 0x81, 4, 0, 34];
    const P521: &[u8] = &[0x2b, 0x81, 4, 0, 35];
    const ED25519: &[u8] = &[0x2b, 0x65, 112];
    let (mut algorithm, bits) = key_of(key_info)?;
    let kind = algorithm.oid()?;
    Ok(match kind {
        RSA => {
            let modulus = Reader::new(bits).sequence()?.integer()?;
            let digits = unpadded(modulus);
            let leading = digits.first().map_or(0, |first| first.leading_zeros());
            KeyKind::Rsa((digits.len() as u32).saturating_mul(8).saturating_sub(leading))
        }
        CURVE if algorithm.peek() == Some(tag::OID) => match algorithm.oid()? {
            P256 => KeyKind::P256,
            P384 => KeyKind::P384,
            P521 => KeyKind::P521,
            _ => KeyKind::Other,
        },
        ED25519 => KeyKind::Ed25519,
        _ => KeyKind::Other,
    })
}

/// Without the byte that only says that a number is above zero.
fn unpadded(number: &[u8]) -> &[u8] {
    match number {
        [0, digits @ ..] if !digits.is_empty() => digits,
        digits => digits,
    }
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut made = [0; 32];
    made.copy_from_slice(digest(&SHA256, bytes).as_ref());
    made
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::tls::test_pki::Pki;

    const EXTENSIONS: &str = "subjectAltName=DNS:Shop.Example,DNS:*.shop.example,IP:192.0.2.7,\
        IP:2001:db8::7,URI:spiffe://corp.example/pay,email:ops@shop.example,otherName:1.2.3;UTF8:x\
        |authorityInfoAccess=caIssuers;URI:http://ca.example/ca.pem,OCSP;URI:http://ocsp.example/q\
        |tlsfeature=status_request|basicConstraints=critical,CA:false";

    fn pki(test: &str, key: &str) -> (Pki, Facts) {
        let pki = Pki::new(test);
        pki.root("root");
        pki.issue("leaf", "root", key, EXTENSIONS);
        let facts = Facts::read(&pki.der("leaf")).unwrap();
        (pki, facts)
    }

    #[test]
    fn a_certificate_says_what_openssl_reads_in_it() {
        let (pki, facts) = pki("facts", "ec");
        let ask = |what: &str| {
            let told = pki.openssl(&format!("x509 -in leaf.pem -noout -nameopt RFC2253 {what}"));
            told.trim().split_once('=').map_or(told.clone(), |(_, value)| value.to_owned())
        };
        assert_eq!(facts.subject, ask("-subject"));
        assert_eq!(facts.subject, "CN=leaf,OU=Tests,O=Corelane");
        assert_eq!(facts.issuer, ask("-issuer"));
        assert_eq!(facts.serial.to_uppercase(), ask("-serial"));
        let fingerprint = ask("-fingerprint -sha256").replace(':', "").to_lowercase();
        assert_eq!(hexadecimal::text(&facts.fingerprint), fingerprint);
        pki.openssl("pkey -in leaf.key -pubout -outform DER -out leaf.spki");
        assert_eq!(facts.key_digest, sha256(&pki.read("leaf.spki")));
        assert_eq!(facts.common_name.as_deref(), Some("leaf"));
        assert_eq!(facts.organizational_units, ["Tests"]);
        assert_eq!(facts.dns_names, ["shop.example", "*.shop.example"]);
        let addresses: [IpAddr; 2] = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        assert_eq!(facts.addresses, addresses);
        assert_eq!(facts.emails, ["ops@shop.example"]);
        assert_eq!(facts.spiffe_id(), Some("spiffe://corp.example/pay"));
        assert_eq!(facts.ocsp_responder.as_deref(), Some("http://ocsp.example/q"));
        assert!(facts.must_staple);
        assert_eq!(facts.key, KeyKind::P256);
        let lifetime = facts.not_after.duration_since(facts.not_before).unwrap();
        assert_eq!(lifetime, Duration::from_secs(365 * 86_400));
        assert!(facts.not_before > UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    }

    #[test]
    fn kinds_of_keys_are_told_apart() {
        for (key, kind) in [
            ("rsa:2048", KeyKind::Rsa(2048)),
            ("rsa:1023", KeyKind::Rsa(1023)),
            ("ec -pkeyopt ec_paramgen_curve:secp384r1", KeyKind::P384),
            ("ec -pkeyopt ec_paramgen_curve:secp521r1", KeyKind::P521),
            ("ec -pkeyopt ec_paramgen_curve:secp256k1", KeyKind::Other),
            ("ed25519", KeyKind::Ed25519),
            ("ed448", KeyKind::Other),
        ] {
            let (_pki, facts) = pki("kinds", key);
            assert_eq!(facts.key, kind, "{key}");
        }
    }

    #[test]
    fn a_host_is_covered_by_its_name_or_one_wildcard_label() {
        for (name, host, covered) in [
            ("shop.example", "shop.example", true),
            ("shop.example", "SHOP.example.", true),
            ("shop.example", "a.shop.example", false),
            ("*.shop.example", "a.shop.example", true),
            ("*.shop.example", "A.Shop.Example.", true),
            ("*.shop.example", "a.b.shop.example", false),
            ("*.shop.example", "shop.example", false),
            ("*.shop.example", ".shop.example", false),
            ("w*.shop.example", "www.shop.example", false),
            ("*", "shop", false),
            ("*.", "shop.", false),
            ("", "", false),
            ("", ".", false),
        ] {
            assert_eq!(covers(name, host), covered, "{name} {host}");
        }
    }

    #[test]
    fn hosts_are_compared_with_alternative_names_only() {
        let (_pki, facts) = pki("hosts", "ec");
        for host in
            ["shop.example", "a.shop.example", "192.0.2.7", "2001:DB8:0::7", "[2001:db8::7]"]
        {
            assert!(facts.is_for(host), "{host}");
        }
        for host in ["leaf", "192.0.2.8", "[2001:db8::8]", "example", "b.a.shop.example", ""] {
            assert!(!facts.is_for(host), "{host}");
        }
        let two = Facts { uris: vec!["spiffe://a/b".into(), "https://a".into()], ..facts.clone() };
        assert_eq!(two.spiffe_id(), None);
        assert_eq!(Facts { uris: vec!["https://a".into()], ..facts }.spiffe_id(), None);
    }

    #[test]
    fn a_certificate_that_is_cut_or_changed_anywhere_is_only_refused() {
        let (pki, facts) = pki("damaged", "ec");
        let good = pki.der("leaf");
        for length in 0..good.len() {
            assert!(Facts::read(&good[..length]).is_err(), "{length}");
        }
        for at in 0..good.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] ^= change;
                if let Ok(changed) = Facts::read(&bytes) {
                    assert_ne!(changed.fingerprint, facts.fingerprint);
                    let _ = (changed.is_for("shop.example"), changed.spiffe_id());
                }
            }
        }
        assert!(Facts::read(&[good.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn a_responder_whose_address_cannot_be_written_is_none() {
        let (pki, facts) = pki("responder", "ec");
        assert_eq!(facts.ocsp_responder.as_deref(), Some("http://ocsp.example/q"));
        let mut bytes = pki.der("leaf");
        let at = bytes.windows(10).position(|window| window == b"http://ocs").unwrap();
        for byte in [b'\n', b' ', 0, 0x80] {
            bytes[at + 9] = byte;
            assert_eq!(Facts::read(&bytes).unwrap().ocsp_responder, None, "{byte}");
        }
    }

    #[test]
    fn a_name_with_a_line_break_or_a_space_is_refused() {
        let (pki, _) = pki("breaks", "ec");
        let good = pki.der("leaf");
        let at = good.windows(10).position(|window| window == b"spiffe://c").unwrap();
        for byte in [b'\n', b' ', 0, 0x80] {
            let mut bytes = good.clone();
            bytes[at + 9] = byte;
            assert!(Facts::read(&bytes).is_err(), "{byte}");
        }
    }
}
