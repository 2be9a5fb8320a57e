//! Whom peers' certificates are verified against: authorities, of files or of the system, and their
//! lists of what they revoked.

use std::path::Path;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use crate::limits;
use crate::tls::der::{Malformed, Reader, tag};
use crate::tls::files::{LoadError, Timed, certificates, contents, sections, written};
use crate::tls::x509::Parts;
use crate::tls::{pem, pkcs12};

/// PEM with any number of certificates, or one in DER.
pub fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let bytes = contents(path, limits::AUTHORITIES_FILE_BYTES_MAX)?;
    let found = if pem::is_pem(&bytes) {
        certificates(&sections(path, &bytes)?)
    } else if bytes.first() == Some(&tag::SEQUENCE) && !pkcs12::is_pkcs12(&bytes) {
        vec![CertificateDer::from(bytes)]
    } else {
        Vec::new()
    };
    if found.is_empty() {
        let cure = "expected PEM (`-----BEGIN CERTIFICATE-----`), or one certificate in DER";
        return Err(LoadError::new(path, "there is no certificate in it", cure));
    }
    for (index, certificate) in found.iter().enumerate() {
        let wrong = match Parts::read(certificate) {
            Err(Malformed(wrong)) => wrong,
            Ok(_) if RootCertStore::empty().add(certificate.clone()).is_err() => {
                "it cannot be an authority"
            }
            Ok(_) => continue,
        };
        let wrong = format!("certificate {} in it is damaged: {wrong}", index + 1);
        return Err(LoadError::new(path, wrong, "copy it from its source again, or remove it"));
    }
    Ok(found)
}

/// PEM with any number of lists, or one in DER.
pub fn revocation_lists(
    path: &Path,
    now: SystemTime,
) -> Result<Vec<CertificateRevocationListDer<'static>>, LoadError> {
    timed_lists(path, now)?.in_time()
}

/// The same, and those that have expired as well.
pub(super) fn timed_lists(
    path: &Path,
    now: SystemTime,
) -> Result<Timed<Vec<CertificateRevocationListDer<'static>>>, LoadError> {
    let bytes = contents(path, limits::REVOCATIONS_FILE_BYTES_MAX)?;
    let found = if pem::is_pem(&bytes) {
        let lists = sections(path, &bytes)?.into_iter().filter(|part| part.label == "X509 CRL");
        lists.map(|part| CertificateRevocationListDer::from(part.der)).collect()
    } else if bytes.first() == Some(&tag::SEQUENCE) {
        vec![CertificateRevocationListDer::from(bytes)]
    } else {
        Vec::new()
    };
    if found.is_empty() {
        let cure = "expected PEM (`-----BEGIN X509 CRL-----`), or one list in DER";
        return Err(LoadError::new(path, "there is no revocation list in it", cure));
    }
    let mut untimely = None;
    for (index, list) in found.iter().enumerate() {
        let refuse = |wrong: String, cure: &str| {
            LoadError::new(path, format!("revocation list {} in it {wrong}", index + 1), cure)
        };
        let (from, until) = list_times(list).map_err(|Malformed(wrong)| {
            refuse(format!("is damaged: {wrong}"), "take a new one from its authority")
        })?;
        if let Err(error) = webpki::OwnedCertRevocationList::from_der(list) {
            let wrong = format!("cannot be used: {error:?}");
            let cure = "expected a list of version 2 (RFC 5280 5.1.2.1), with everything in it \
                        that was revoked";
            return Err(refuse(wrong, cure));
        }
        if until < now {
            let wrong = format!("expired on {}", written(until));
            untimely.get_or_insert(refuse(wrong, "take a new one from its authority"));
        }
        if from > now + limits::OCSP_CLOCK_SKEW {
            let wrong = format!("is not valid before {}", written(from));
            untimely.get_or_insert(refuse(wrong, "look at the clock of this machine"));
        }
    }
    Ok(Timed { found, untimely })
}

/// RFC 5280 5.1: when it was made, and when the next will have been.
pub(crate) fn list_times(der: &[u8]) -> Result<(SystemTime, SystemTime), Malformed> {
    let mut all = Reader::new(der);
    let mut fields = all.sequence()?.sequence()?;
    all.end()?;
    const V2: &[u8] = &[1];
    if fields.optional(tag::INTEGER)? != Some(V2) {
        return Err(Malformed("it is of version 1, and only version 2 (RFC 5280) is understood"));
    }
    fields.sequence()?; // the algorithm of its signature
    fields.sequence()?; // who made it
    let from = fields.time()?;
    match fields.peek() {
        Some(tag::UTC_TIME | tag::GENERALIZED_TIME) => Ok((from, fields.time()?)),
        _ => Err(Malformed("it does not say when the next one comes")),
    }
}

/// Those that the operating system trusts.
pub fn system_authorities() -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let found = rustls_native_certs::load_native_certs();
    if !found.certs.is_empty() {
        return Ok(found.certs);
    }
    let wrong = match found.errors.first() {
        Some(error) => format!("the authorities that the system trusts cannot be read: {error}"),
        None => "the system trusts no authority".to_owned(),
    };
    let cure = "install the package `ca-certificates`, or name a file with `ca`";
    Err(LoadError::new(Path::new("/etc/ssl/certs"), wrong, cure))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tls::test_pki::Pki;

    fn now() -> SystemTime {
        SystemTime::now()
    }

    #[test]
    fn authorities_are_a_bundle_or_one_in_der() {
        let pki = Pki::new("authorities");
        pki.root("root");
        pki.issue("inter", "root", "ec", "basicConstraints=critical,CA:true");
        pki.der("root");
        pki.join("bundle.pem", &["root.pem", "inter.pem"]);
        assert_eq!(authorities(&pki.path("bundle.pem")).unwrap().len(), 2);
        assert_eq!(authorities(&pki.path("root.der")).unwrap().len(), 1);
        for (file, expected) in
            [("inter.key", "there is no certificate in it"), ("nothing", "cannot be read")]
        {
            let told = authorities(&pki.path(file)).unwrap_err().to_string();
            assert!(told.contains(expected), "{told}");
        }
        let cut = pki.read("root.der");
        let told = authorities(&pki.write("cut.der", &cut[..cut.len() - 1])).unwrap_err();
        assert!(told.to_string().contains("certificate 1 in it is damaged"), "{told}");
    }

    #[test]
    fn revocation_lists_are_read_until_they_expire() {
        let pki = Pki::new("lists");
        pki.root("root");
        pki.write("index", "");
        pki.write("number", "01");
        pki.write(
            "ca.conf",
            "[ca]\ndefault_ca=ca1\n[ca1]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\n",
        );
        pki.openssl(
            "ca -config ca.conf -gencrl -crldays 3 -keyfile root.key -cert root.pem -out a.crl",
        );
        pki.openssl("crl -in a.crl -outform DER -out a.der");
        pki.write("old.conf", "[ca]\ndefault_ca=ca1\n[ca1]\ndatabase=index\ndefault_md=sha256\n");
        pki.openssl(
            "ca -config old.conf -gencrl -crldays 3 -keyfile root.key -cert root.pem -out old.crl",
        );
        pki.join("two.crl", &["a.crl", "a.crl"]);
        assert_eq!(revocation_lists(&pki.path("two.crl"), now()).unwrap().len(), 2);
        assert_eq!(revocation_lists(&pki.path("a.der"), now()).unwrap().len(), 1);
        let day = Duration::from_secs(86_400);
        for (file, at, expected) in [
            ("two.crl", now() + 4 * day, "revocation list 1 in it expired on 2"),
            ("two.crl", now() - day, "is not valid before 2"),
            ("root.pem", now(), "there is no revocation list in it"),
            ("old.crl", now(), "revocation list 1 in it is damaged: it is of version 1"),
        ] {
            let told = revocation_lists(&pki.path(file), at).unwrap_err().to_string();
            assert!(told.contains(expected), "{told}");
        }
        let good = pki.read("a.der");
        for length in 1..good.len() {
            assert!(list_times(&good[..length]).is_err(), "{length}");
        }
    }
}
