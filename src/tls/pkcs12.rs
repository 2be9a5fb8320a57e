//! PKCS#12 (RFC 7292): one key and its certificates in one file, under a password. Nothing in it is
//! believed before its digest was verified.

use aws_lc_rs::{digest, hmac};

use crate::limits;
use crate::tls::der::{Malformed, Reader, tag};
use crate::tls::key_encryption::{self, Refused, Use, pkcs12_derive, pkcs12_passwords};

/// What is in a file, in the order of the file.
#[derive(Default)]
pub struct Contents {
    pub certificates: Vec<Kept>,
    /// As PKCS#8.
    pub keys: Vec<Kept>,
}

pub struct Kept {
    pub der: Vec<u8>,
    /// A key and its certificate have the same.
    pub local_key: Option<Vec<u8>>,
}

const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
const ENCRYPTED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 6];
const X509_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 22, 1];
const LOCAL_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 21];
const BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1];

/// Whether these bytes are meant to be a PKCS#12 file.
pub fn is_pkcs12(bytes: &[u8]) -> bool {
    // A key begins with a version as well, but not with this one and a place of data.
    let begins = || -> Result<bool, Malformed> {
        let mut fields = Reader::new(bytes).sequence()?;
        Ok(fields.small()? == 3 && fields.sequence()?.oid()? == DATA)
    };
    begins().unwrap_or(false) || is_indefinite(bytes)
}

/// BER, as some programs write the outermost values: it is told apart from other files, not read.
fn is_indefinite(bytes: &[u8]) -> bool {
    bytes.starts_with(&[tag::SEQUENCE, 0x80, tag::INTEGER, 1, 3])
}

pub fn read(bytes: &[u8], password: &str) -> Result<Contents, Refused> {
    let mut all = Reader::new(bytes);
    let mut fields = all.sequence()?;
    all.end()?;
    if fields.small()? != 3 {
        return Err(Malformed("a version other than 3").into());
    }
    let mut place = fields.sequence()?;
    if place.oid()? != DATA {
        return Err(Refused::Unsupported("and signed with a key, not with a password"));
    }
    let safe = Reader::new(place.take(tag::context(0))?).octet_string()?;
    if fields.is_empty() {
        return Err(Malformed("it has no digest that proves its password").into());
    }
    verify(safe, fields.sequence()?, password)?;

    let mut contents = Contents::default();
    let mut parts = Reader::new(safe).sequence()?;
    let mut count = 0;
    while !parts.is_empty() {
        count += 1;
        if count > limits::PKCS12_PARTS_MAX {
            return Err(Malformed("far more parts than a certificate needs").into());
        }
        let mut part = parts.sequence()?;
        let kind = part.oid()?;
        let inside = Reader::new(part.take(tag::context(0))?);
        read_part(kind, inside, password, &mut contents)?;
    }
    Ok(contents)
}

/// RFC 7292 4: a MAC under a key that is derived from the password.
fn verify(safe: &[u8], mut fields: Reader<'_>, password: &str) -> Result<(), Refused> {
    let mut digest_info = fields.sequence()?;
    let (hash, algorithm) = hash_of(digest_info.sequence()?.oid()?)?;
    let expected = digest_info.octet_string()?;
    let salt = fields.octet_string()?;
    let rounds = key_encryption::rounds(if fields.is_empty() { 1 } else { fields.small()? })?;
    for password in pkcs12_passwords(password) {
        let length = hash.output_len();
        let key = pkcs12_derive(hash, Use::Authentication, &password, salt, rounds, length);
        let key = hmac::Key::new(algorithm, &key);
        if hmac::verify(&key, safe, expected).is_ok() {
            return Ok(());
        }
    }
    Err(Refused::WrongPassword)
}

fn hash_of(kind: &[u8]) -> Result<(&'static digest::Algorithm, hmac::Algorithm), Refused> {
    const SHA1: &[u8] = &[0x2b, 14, 3, 2, 26];
    const SHA2: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2];
    if kind == SHA1 {
        return Ok((&digest::SHA1_FOR_LEGACY_USE_ONLY, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY));
    }
    match kind.strip_prefix(SHA2) {
        Some([1]) => Ok((&digest::SHA256, hmac::HMAC_SHA256)),
        Some([2]) => Ok((&digest::SHA384, hmac::HMAC_SHA384)),
        Some([3]) => Ok((&digest::SHA512, hmac::HMAC_SHA512)),
        _ => Err(Refused::Unsupported("with a digest that is neither SHA-1 nor SHA-2")),
    }
}

fn read_part(
    kind: &[u8],
    mut inside: Reader<'_>,
    password: &str,
    contents: &mut Contents,
) -> Result<(), Refused> {
    match kind {
        DATA => read_bags(inside.octet_string()?, password, contents),
        ENCRYPTED_DATA => {
            let mut fields = inside.sequence()?;
            fields.small()?; // the version
            let mut encrypted = fields.sequence()?;
            if encrypted.oid()? != DATA {
                return Err(Malformed("encrypted content that is no data").into());
            }
            let algorithm = encrypted.sequence()?;
            let data = encrypted.take(tag::context_plain(0))?;
            let plain = key_encryption::decrypt(algorithm, data, password)?;
            read_bags(&plain, password, contents)
        }
        _ => Err(Refused::Unsupported("with a key pair, not with a password")),
    }
}

fn read_bags(bytes: &[u8], password: &str, contents: &mut Contents) -> Result<(), Refused> {
    const KEY: &[u8] = &[1];
    const ENCRYPTED_KEY: &[u8] = &[2];
    const CERTIFICATE: &[u8] = &[3];
    let mut bags = Reader::new(bytes).sequence()?;
    while !bags.is_empty() {
        let mut bag = bags.sequence()?;
        let kind = bag.oid()?;
        let mut value = Reader::new(bag.take(tag::context(0))?);
        let local_key = local_key(&mut bag)?;
        if contents.keys.len() + contents.certificates.len() >= limits::PKCS12_PARTS_MAX {
            return Err(Malformed("far more parts than a certificate needs").into());
        }
        match kind.strip_prefix(BAG) {
            Some(KEY) => {
                let der = value.whole(tag::SEQUENCE)?.whole.to_vec();
                contents.keys.push(Kept { der, local_key });
            }
            Some(ENCRYPTED_KEY) => {
                let der = key_encryption::decrypt_key(value.rest(), password)?;
                contents.keys.push(Kept { der, local_key });
            }
            Some(CERTIFICATE) => {
                let mut fields = value.sequence()?;
                if fields.oid()? == X509_CERTIFICATE {
                    let der = Reader::new(fields.take(tag::context(0))?).octet_string()?.to_vec();
                    contents.certificates.push(Kept { der, local_key });
                }
            }
            // Revocation lists, secrets of other kinds.
            _ => {}
        }
    }
    Ok(())
}

fn local_key(bag: &mut Reader<'_>) -> Result<Option<Vec<u8>>, Malformed> {
    if bag.is_empty() {
        return Ok(None);
    }
    let mut attributes = bag.set()?;
    while !attributes.is_empty() {
        let mut attribute = attributes.sequence()?;
        let kind = attribute.oid()?;
        let mut values = attribute.set()?;
        if kind == LOCAL_KEY {
            return Ok(Some(values.octet_string()?.to_vec()));
        }
    }
    Ok(None)
}
