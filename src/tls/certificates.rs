//! Certificates and their keys: from PEM or PKCS#12 files to what a handshake needs.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};

use crate::limits;
use crate::plan::Secret;
use crate::tls::der::Malformed;
pub use crate::tls::files::LoadError;
use crate::tls::files::{Timed, certificates, contents, sections, written};
use crate::tls::key_encryption::{self, Refused};
use crate::tls::pem::{self, Section};
use crate::tls::pkcs12::{self, Contents, Kept};
use crate::tls::x509::{Facts, KeyKind, Parts};

/// Where a certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// PEM: the chain, leaf first; or PKCS#12, with the key.
    pub cert: PathBuf,
    /// PEM. `None`: it is in `cert`.
    pub key: Option<PathBuf>,
    /// Of a PKCS#12 file, or of an encrypted key.
    pub password: Option<Password>,
    /// The hosts that it is for, instead of those that it names itself.
    pub names: Vec<String>,
    /// Whether its responder is asked (OCSP stapling).
    pub ocsp: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    Given(Secret),
    File(PathBuf),
}

/// A chain, its key, and what the leaf says of itself.
#[derive(Debug)]
pub struct Certificate {
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub facts: Facts,
    /// What its operator should know.
    pub warnings: Vec<String>,
}

impl Clone for Certificate {
    fn clone(&self) -> Certificate {
        let Certificate { chain, key, facts, warnings } = self;
        Certificate {
            chain: chain.clone(),
            key: key.clone_key(),
            facts: facts.clone(),
            warnings: warnings.clone(),
        }
    }
}

impl Certificate {
    /// When each of its chain ends, with its place in it, the leaf's 0. One that has signed itself
    /// is left out: whoever trusts it looks at a copy of his own.
    pub fn ends(&self) -> impl Iterator<Item = (usize, SystemTime)> {
        let rest = self.chain.iter().enumerate().skip(1).filter_map(|(place, certificate)| {
            let parts = Parts::read(certificate).ok()?;
            (parts.issuer != parts.subject).then_some((place, parts.not_after))
        });
        std::iter::once((0, self.facts.not_after)).chain(rest)
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Certificate) -> bool {
        self.chain == other.chain && self.key == other.key
    }
}

/// Whom a certificate is shown to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownTo {
    /// They compare its names with the host that they asked for.
    Clients,
    Endpoints,
}

/// Reads a certificate for listeners.
pub fn load(source: &Source, now: SystemTime) -> Result<Certificate, LoadError> {
    load_for(ShownTo::Clients, source, now)
}

pub fn load_for(
    shown_to: ShownTo,
    source: &Source,
    now: SystemTime,
) -> Result<Certificate, LoadError> {
    timed_for(shown_to, source, now)?.in_time()
}

/// The same, and what has expired as well.
pub(super) fn timed_for(
    shown_to: ShownTo,
    source: &Source,
    now: SystemTime,
) -> Result<Timed<Certificate>, LoadError> {
    let bytes = contents(&source.cert, limits::CERTIFICATE_FILE_BYTES_MAX)?;
    let password = source.password.as_ref().map(password_of).transpose()?;
    let password = password.as_deref();
    let (chain, key, key_file) = if pem::is_pem(&bytes) {
        of_pem(source, &bytes, password)?
    } else if pkcs12::is_pkcs12(&bytes) {
        let (chain, key) = of_pkcs12(source, &bytes, password)?;
        (chain, key, source.cert.as_path())
    } else {
        return Err(no_certificate(&source.cert, &bytes));
    };
    let facts = facts(&source.cert, &chain)?;
    check_key_kind(source, &facts)?;
    check_match(source, key_file, &chain, &key)?;
    check_order(&source.cert, &chain)?;
    if shown_to == ShownTo::Clients {
        check_names(source, &facts)?;
    }
    let mut warnings = warnings(shown_to, source, &chain, &facts, now);
    warnings.extend(warning_of_password(source, password));
    let untimely = check_time(&source.cert, &facts, now).err();
    Ok(Timed { found: Certificate { chain, key, facts, warnings }, untimely })
}

// --- files -------------------------------------------------------------------------------------

fn password_of(password: &Password) -> Result<String, LoadError> {
    match password {
        Password::Given(Secret(password)) => Ok(password.clone()),
        Password::File(path) => {
            let bytes = contents(path, limits::PASSWORD_FILE_BYTES_MAX)?;
            let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            String::from_utf8(line.to_vec()).map_err(|_| {
                LoadError::new(path, "it is no text", "expected a file that holds a password")
            })
        }
    }
}

fn no_certificate(path: &Path, bytes: &[u8]) -> LoadError {
    let shown = path.display();
    if Parts::read(bytes).is_ok() {
        let cure = format!("write it as PEM: `openssl x509 -inform DER -in {shown} -out leaf.pem`");
        return LoadError::new(path, "it is a certificate in DER", cure);
    }
    let wrong = match bytes {
        [] => "it is empty",
        _ => "there is no certificate in it",
    };
    let cure = "expected PEM (`-----BEGIN CERTIFICATE-----`), the leaf first, or PKCS#12";
    LoadError::new(path, wrong, cure)
}

// --- PEM ---------------------------------------------------------------------------------------

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn of_pem<'a>(
    source: &'a Source,
    bytes: &[u8],
    password: Option<&str>,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, &'a Path), LoadError> {
    let parts = sections(&source.cert, bytes)?;
    let chain = certificates(&parts);
    if chain.is_empty() {
        return Err(no_certificate(&source.cert, b"PEM of something else"));
    }
    check_length(&source.cert, chain.len())?;
    let (parts, path) = match &source.key {
        None => (parts, source.cert.as_path()),
        Some(path) => {
            let bytes = contents(path, limits::CERTIFICATE_FILE_BYTES_MAX)?;
            (sections(path, &bytes)?, path.as_path())
        }
    };
    let mut keys = parts.into_iter().filter(|part| part.label.ends_with("PRIVATE KEY"));
    let key = match (keys.next(), keys.count()) {
        (Some(key), 0) => key,
        (Some(_), more) => return Err(several_keys(path, more + 1)),
        (None, _) => {
            let cure = match source.key {
                Some(_) => "expected PEM: `-----BEGIN PRIVATE KEY-----`",
                None => "add it to the file, or say with `key` which file it is in",
            };
            return Err(LoadError::new(path, "there is no private key in it", cure));
        }
    };
    Ok((chain, private_key(path, key, password)?, path))
}

fn several_keys(path: &Path, count: usize) -> LoadError {
    let cure = "expected one: leave the key of this certificate in it";
    LoadError::new(path, format!("there are {count} private keys in it"), cure)
}

fn private_key(
    path: &Path,
    section: Section,
    password: Option<&str>,
) -> Result<PrivateKeyDer<'static>, LoadError> {
    let shown = path.display();
    if section.encrypted {
        let cure = format!("write it anew: `openssl pkcs8 -topk8 -in {shown} -out new.key`");
        return Err(LoadError::new(path, "its key is encrypted as OpenSSL 0.9 did it", cure));
    }
    match section.label.as_str() {
        "PRIVATE KEY" => Ok(PrivatePkcs8KeyDer::from(section.der).into()),
        "RSA PRIVATE KEY" => Ok(PrivatePkcs1KeyDer::from(section.der).into()),
        "EC PRIVATE KEY" => Ok(PrivateSec1KeyDer::from(section.der).into()),
        "ENCRYPTED PRIVATE KEY" => {
            let Some(password) = password else { return Err(no_password(path, "its key")) };
            let key = key_encryption::decrypt_key(&section.der, password).map_err(|refused| {
                let cure = format!("`openssl pkcs8 -topk8 -in {shown} -out new.key` converts it");
                refusal(path, "its key", &refused, cure)
            })?;
            Ok(PrivatePkcs8KeyDer::from(key).into())
        }
        label => {
            let wrong = format!("its key is a `{label}`");
            Err(LoadError::new(path, wrong, KEYS_EXPECTED))
        }
    }
}

const KEYS_EXPECTED: &str = "expected an RSA key of 2048 bits or more, an ECDSA key of P-256, \
                             P-384 or P-521, or an Ed25519 key";

fn no_password(path: &Path, what: &str) -> LoadError {
    let wrong = format!("{what} is encrypted, and there is no password");
    LoadError::new(path, wrong, "give it with `password` or `password_file`")
}

fn refusal(path: &Path, what: &str, refused: &Refused, convert: String) -> LoadError {
    match refused {
        Refused::WrongPassword => {
            let cure = "expected the password that it was made with: check `password` or \
                        `password_file`";
            LoadError::new(path, format!("the password of {what} is wrong"), cure)
        }
        Refused::Malformed(Malformed(wrong)) => {
            LoadError::new(path, format!("{what} is damaged: {wrong}"), convert)
        }
        Refused::Unsupported(how) => {
            LoadError::new(path, format!("{what} is encrypted {how}"), convert)
        }
        Refused::TooManyRounds(rounds) => {
            let most = limits::KEY_DERIVATION_ROUNDS_MAX;
            let wrong = format!("the password of {what} is hashed {rounds} times, at most {most}");
            LoadError::new(path, wrong, convert)
        }
    }
}

// --- PKCS#12 -----------------------------------------------------------------------------------

fn of_pkcs12(source: &Source, bytes: &[u8], password: Option<&str>) -> Result<Pair, LoadError> {
    let path = source.cert.as_path();
    if source.key.is_some() {
        let cure = "remove `key`: a PKCS#12 file has its key in it";
        return Err(LoadError::new(path, "it is PKCS#12, and a key is in another file", cure));
    }
    let contents = pkcs12::read(bytes, password.unwrap_or_default()).map_err(|refused| {
        if password.is_none() && refused == Refused::WrongPassword {
            return no_password(path, "it");
        }
        let shown = path.display();
        let cure = format!(
            "`openssl pkcs12 -legacy -in {shown} -nodes -out both.pem` makes PEM of it, which can \
             be named here"
        );
        refusal(path, "this PKCS#12 file", &refused, cure)
    })?;
    let Contents { certificates, mut keys } = contents;
    let key = match (keys.pop(), keys.len()) {
        (Some(key), 0) => key,
        (Some(_), more) => return Err(several_keys(path, more + 1)),
        (None, _) => {
            let cure = "export it with its key: `openssl pkcs12 -export -inkey …`";
            return Err(LoadError::new(path, "there is no private key in it", cure));
        }
    };
    if certificates.is_empty() {
        let cure = "expected a certificate beside its key: `openssl pkcs12 -export -in …`";
        return Err(LoadError::new(path, "there is no certificate in it", cure));
    }
    let chain = in_order(certificates, &key);
    check_length(path, chain.len())?;
    Ok((chain, PrivatePkcs8KeyDer::from(key.der).into()))
}

/// The certificate of the key, whoever signed it, and so on: the file says nothing of their order.
fn in_order(mut rest: Vec<Kept>, key: &Kept) -> Vec<CertificateDer<'static>> {
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.der.clone()));
    let public = public_key(&private);
    let of_key = |kept: &Kept| {
        let parts = Parts::read(&kept.der).ok();
        public.is_some() && parts.map(|parts| parts.key_info.to_vec()) == public
    };
    let named = |kept: &Kept| key.local_key.is_some() && kept.local_key == key.local_key;
    let leaf = rest.iter().position(|kept| named(kept) && of_key(kept));
    let leaf = leaf.or_else(|| rest.iter().position(of_key));
    let leaf = leaf.or_else(|| rest.iter().position(named)).unwrap_or_default();
    let mut chain = vec![CertificateDer::from(rest.remove(leaf).der)];
    while let Some(last) = chain.last() {
        let above = rest.iter().position(|kept| issued(&kept.der, last));
        let Some(above) = above else { break };
        chain.push(CertificateDer::from(rest.remove(above).der));
    }
    chain
}

/// By their names: whether the signature is good is for the peer to find out.
fn issued(issuer: &[u8], certificate: &[u8]) -> bool {
    match (Parts::read(issuer), Parts::read(certificate)) {
        (Ok(issuer), Ok(certificate)) => issuer.subject == certificate.issuer,
        (_, _) => false,
    }
}

// --- what is checked -----------------------------------------------------------------------------

fn check_length(path: &Path, length: usize) -> Result<(), LoadError> {
    let most = limits::CHAIN_CERTIFICATES_MAX;
    if length <= most {
        return Ok(());
    }
    let cure = format!("expected a leaf and its intermediates, {most} at most");
    Err(LoadError::new(path, format!("there are {length} certificates in it"), cure))
}

fn facts(path: &Path, chain: &[CertificateDer<'static>]) -> Result<Facts, LoadError> {
    let refuse = |index: usize, Malformed(wrong): Malformed| {
        let wrong = format!("certificate {} in it is damaged: {wrong}", index + 1);
        LoadError::new(path, wrong, "expected an X.509 certificate: copy it from its source again")
    };
    for (index, certificate) in chain.iter().enumerate().skip(1) {
        Parts::read(certificate).map_err(|malformed| refuse(index, malformed))?;
    }
    Facts::read(&chain[0]).map_err(|malformed| refuse(0, malformed))
}

fn check_key_kind(source: &Source, facts: &Facts) -> Result<(), LoadError> {
    let wrong = match facts.key {
        KeyKind::Rsa(bits) if bits < limits::RSA_BITS_MIN => {
            format!("its RSA key has only {bits} bits")
        }
        KeyKind::Other => "its key is of a kind that TLS clients do not take".to_owned(),
        KeyKind::Rsa(_) | KeyKind::P256 | KeyKind::P384 | KeyKind::P521 | KeyKind::Ed25519 => {
            return Ok(());
        }
    };
    Err(LoadError::new(&source.cert, wrong, KEYS_EXPECTED))
}

/// As a certificate has it. `None`: the key is of no kind that is supported.
fn public_key(key: &PrivateKeyDer<'static>) -> Option<Vec<u8>> {
    let key = any_supported_type(key).ok()?;
    key.public_key().map(|public| public.to_vec())
}

fn check_match(
    source: &Source,
    key_file: &Path,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<(), LoadError> {
    let Some(public) = public_key(key) else {
        let wrong = "its private key is damaged, or of a kind that is not supported";
        return Err(LoadError::new(key_file, wrong, KEYS_EXPECTED));
    };
    let is_of = |certificate: &CertificateDer<'static>| {
        Parts::read(certificate).is_ok_and(|parts| parts.key_info == public)
    };
    match chain.iter().position(is_of) {
        Some(0) => Ok(()),
        Some(other) => {
            let wrong =
                format!("the key belongs to certificate {} in it, not the first", other + 1);
            let cure = "put the leaf first, and below it each time whoever signed the one above";
            Err(LoadError::new(&source.cert, wrong, cure))
        }
        None => {
            let cert = source.cert.display();
            let cure = format!(
                "expected the same from `openssl x509 -in {cert} -noout -pubkey` and `openssl pkey \
                 -in {} -pubout`",
                key_file.display()
            );
            let wrong = format!("the private key does not match the certificate in `{cert}`");
            Err(LoadError::new(key_file, wrong, cure))
        }
    }
}

/// RFC 8446 4.4.2 lets them be in any order; older clients want each signed by the next.
fn check_order(path: &Path, chain: &[CertificateDer<'static>]) -> Result<(), LoadError> {
    for (index, pair) in chain.windows(2).enumerate() {
        let others = || chain.iter().enumerate().skip(index + 2);
        if issued(&pair[1], &pair[0]) || issued(&pair[0], &pair[0]) {
            continue;
        }
        if let Some((place, _)) = others().find(|(_, other)| issued(other, &pair[0])) {
            let wrong = format!(
                "the chain is not in order: certificate {} signed certificate {}",
                place + 1,
                index + 1
            );
            let cure = "put the leaf first, and below it each time whoever signed the one above";
            return Err(LoadError::new(path, wrong, cure));
        }
    }
    Ok(())
}

fn check_time(path: &Path, facts: &Facts, now: SystemTime) -> Result<(), LoadError> {
    if facts.not_after < now {
        let wrong = format!("it expired on {}", written(facts.not_after));
        return Err(LoadError::new(path, wrong, "renew it"));
    }
    if facts.not_before > now {
        let wrong = format!("it is not valid before {}", written(facts.not_before));
        return Err(LoadError::new(path, wrong, "wait, or look at the clock of this machine"));
    }
    Ok(())
}

fn check_names(source: &Source, facts: &Facts) -> Result<(), LoadError> {
    let named = !facts.dns_names.is_empty() || !facts.addresses.is_empty();
    if named || !source.names.is_empty() {
        return Ok(());
    }
    let wrong = "it names no host: it has no subject alternative name of a host or an address";
    let cure = "say with `names` which hosts it is for; clients that verify it need a new one";
    Err(LoadError::new(&source.cert, wrong, cure))
}

fn warnings(
    shown_to: ShownTo,
    source: &Source,
    chain: &[CertificateDer<'static>],
    facts: &Facts,
    now: SystemTime,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let shown = source.cert.display();
    if let Ok(left) = facts.not_after.duration_since(now)
        && left < limits::CERTIFICATE_EXPIRY_WARNING
    {
        let end = written(facts.not_after);
        warnings.push(format!("`{shown}` expires on {end}: renew it"));
    }
    for (index, certificate) in chain.iter().enumerate().skip(1) {
        let Ok(parts) = Parts::read(certificate) else { continue };
        let is_own = parts.issuer == parts.subject;
        let expires = match parts.not_after.duration_since(now) {
            Err(_) => "expired",
            Ok(left) if left < limits::CERTIFICATE_EXPIRY_WARNING && !is_own => "expires",
            Ok(_) => continue,
        };
        let (number, end) = (index + 1, written(parts.not_after));
        warnings
            .push(format!("certificate {number} in `{shown}` {expires} on {end}: {RENEW_CHAIN}"));
    }
    if let (false, purpose) = is_meant_for(shown_to, &chain[0]) {
        warnings.push(format!(
            "`{shown}` is not made for this: its extended key usage has no {purpose}, and peers \
             that look at it refuse it"
        ));
    }
    let staples = source.ocsp && facts.ocsp_responder.is_some();
    if shown_to == ShownTo::Clients && facts.must_staple && !staples {
        warnings.push(format!(
            "`{shown}` says that it is only good with a stapled answer (RFC 7633), and none will \
             be: it needs `ocsp`, and the address of a responder in it"
        ));
    }
    warnings
}

/// What to do about an intermediate that has expired, or will.
pub(crate) const RENEW_CHAIN: &str = "take the chain of the leaf from its authority again";

fn warning_of_password(source: &Source, password: Option<&str>) -> Option<String> {
    let poor = ["password", "changeit", "changeme", "secret", ""];
    let shown = source.cert.display();
    password.filter(|password| poor.contains(password)).map(|_| {
        format!("the password of `{shown}` is one that everybody tries first: choose another")
    })
}

/// RFC 5280 4.2.1.12: one that says nothing is for everything.
fn is_meant_for(shown_to: ShownTo, leaf: &[u8]) -> (bool, &'static str) {
    const ANY: &[u8] = &[0x55, 0x1d, 37, 0];
    const SERVER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
    const CLIENT: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
    let (purpose, name) = match shown_to {
        ShownTo::Clients => (SERVER, "serverAuth"),
        ShownTo::Endpoints => (CLIENT, "clientAuth"),
    };
    let is_meant = || -> Result<bool, Malformed> {
        let parts = Parts::read(leaf)?;
        Ok(parts.has_purpose(purpose)?.unwrap_or(true) || parts.has_purpose(ANY)? == Some(true))
    };
    (is_meant().unwrap_or(true), name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tls::authorities;
    use crate::tls::test_pki::Pki;

    const NAMED: &str = "subjectAltName=DNS:shop.example";
    const AUTHORITY: &str = "basicConstraints=critical,CA:true";

    fn now() -> SystemTime {
        SystemTime::now()
    }

    fn source(cert: PathBuf, key: Option<PathBuf>, password: Option<&str>) -> Source {
        let password = password.map(|password| Password::Given(Secret(password.to_owned())));
        Source { cert, key, password, names: Vec::new(), ocsp: false }
    }

    fn pair(pki: &Pki, cert: &str, key: &str) -> Result<Certificate, LoadError> {
        load(&source(pki.path(cert), Some(pki.path(key)), None), now())
    }

    /// A root, an intermediate and a leaf with a key of this kind.
    fn chain(test: &str, key: &str) -> Pki {
        let pki = Pki::new(test);
        pki.root("root");
        pki.issue("inter", "root", "ec", AUTHORITY);
        pki.issue("leaf", "inter", key, NAMED);
        pki.join("chain.pem", &["leaf.pem", "inter.pem"]);
        pki
    }

    /// The file that is complained about, and the whole complaint.
    fn complaint(result: Result<Certificate, LoadError>) -> (String, String) {
        let error = result.unwrap_err();
        let name = error.file.file_name().unwrap().to_string_lossy().into_owned();
        (name, error.to_string())
    }

    #[test]
    fn keys_are_read_in_every_form_that_openssl_writes() {
        for (test, kind, old) in [
            ("forms-ec", "ec", "ec -in leaf.key"),
            ("forms-rsa", "rsa:2048", "rsa -traditional -in leaf.key"),
        ] {
            let pki = chain(test, kind);
            pki.openssl(&format!("{old} -out old.key"));
            assert!(!String::from_utf8(pki.read("old.key")).unwrap().contains("N PRIVATE KEY"));
            let plain = pair(&pki, "chain.pem", "leaf.key").unwrap();
            assert_eq!(plain.chain.len(), 2);
            assert_eq!(plain.facts.dns_names, ["shop.example"]);
            pair(&pki, "chain.pem", "old.key").unwrap();
            pki.join("both.pem", &["old.key", "leaf.pem", "inter.pem"]);
            let both = load(&source(pki.path("both.pem"), None, None), now()).unwrap();
            assert_eq!(both.chain, plain.chain);
        }
        let pki = chain("forms-ed", "ed25519");
        pair(&pki, "chain.pem", "leaf.key").unwrap();
    }

    #[test]
    fn an_encrypted_key_opens_with_its_password_and_with_no_other() {
        let pki = chain("encrypted", "ec");
        for scheme in [
            "-v2 aes-128-cbc -v2prf hmacWithSHA1",
            "-v2 aes-192-cbc -v2prf hmacWithSHA384",
            "-v2 aes-256-cbc",
            "-v2 aes256 -v2prf hmacWithSHA512 -iter 10000",
            "-v2 des3",
            "-v1 PBE-SHA1-3DES",
        ] {
            pki.openssl(&format!(
                "pkcs8 -topk8 -in leaf.key -out secret.key -passout pass:ü7 {scheme}"
            ));
            let of = |password| {
                let key = Some(pki.path("secret.key"));
                load(&source(pki.path("chain.pem"), key, password), now())
            };
            assert!(of(Some("ü7")).is_ok(), "{scheme}");
            let (file, told) = complaint(of(Some("u7")));
            assert_eq!(file, "secret.key", "{scheme}");
            assert!(told.contains("password of its key is wrong"), "{scheme}: {told}");
            let (_, told) = complaint(of(None));
            assert!(told.contains("there is no password; give it with `password`"), "{told}");
        }
        pki.write("password", "ü7\r\n");
        let mut source = source(pki.path("chain.pem"), Some(pki.path("secret.key")), None);
        source.password = Some(Password::File(pki.path("password")));
        assert!(load(&source, now()).is_ok());
        source.password = Some(Password::File(pki.path("nothing")));
        assert_eq!(complaint(load(&source, now())).0, "nothing");
    }

    #[test]
    fn pkcs12_is_read_as_openssl_and_windows_write_it() {
        let pki = chain("pkcs12", "ec");
        pki.join("above.pem", &["root.pem", "inter.pem"]);
        for (scheme, password) in [
            ("", "s3cret"),
            ("-keypbe AES-128-CBC -certpbe AES-192-CBC -macalg sha1", "s3cret"),
            ("-macalg sha384", "s3cret"),
            ("-macalg sha512", "gr\u{fc}n\u{1f512}"),
            ("-certpbe NONE -keypbe NONE", "s3cret"),
            ("-legacy", "s3cret"),
            ("-keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1", "s3cret"),
            ("-legacy -certpbe PBE-SHA1-RC2-128", "s3cret"),
            ("", ""),
            ("-legacy", ""),
        ] {
            pki.openssl_with(
                &format!(
                    "pkcs12 -export -inkey leaf.key -in leaf.pem -certfile above.pem {scheme}"
                ),
                &["-out", "leaf.p12", "-passout", &format!("pass:{password}")],
            );
            let of = |password| load(&source(pki.path("leaf.p12"), None, password), now());
            let loaded = of(Some(password)).unwrap_or_else(|error| panic!("{scheme}: {error}"));
            let subjects: Vec<String> =
                loaded.chain.iter().map(|der| Facts::read(der).unwrap().subject).collect();
            let expected = [
                "CN=leaf,OU=Tests,O=Corelane",
                "CN=inter,OU=Tests,O=Corelane",
                "CN=root,O=Corelane",
            ];
            assert_eq!(subjects, expected, "{scheme}");
            let (file, told) = complaint(of(Some("another")));
            assert_eq!(file, "leaf.p12");
            assert!(
                told.contains("the password of this PKCS#12 file is wrong"),
                "{scheme}: {told}"
            );
        }
        pki.openssl("pkcs12 -export -inkey leaf.key -in leaf.pem -out leaf.p12 -passout pass:x");
        let (_, told) = complaint(load(&source(pki.path("leaf.p12"), None, None), now()));
        assert!(told.contains("it is encrypted, and there is no password"), "{told}");
        let with_key = source(pki.path("leaf.p12"), Some(pki.path("leaf.key")), Some("x"));
        assert!(complaint(load(&with_key, now())).1.contains("remove `key`"));
    }

    #[test]
    fn pkcs12_without_what_it_needs_is_refused() {
        let pki = chain("pkcs12-poor", "ec");
        for (how, expected) in [
            ("-nokeys -in leaf.pem", "no private key in it"),
            ("-nocerts -inkey leaf.key -in leaf.key", "no certificate in it"),
            ("-inkey leaf.key -in leaf.pem -nomac", "no digest"),
            ("-inkey leaf.key -in leaf.pem -iter 2000001", "hashed 2000001 times"),
            (
                "-inkey leaf.key -in leaf.pem -legacy -certpbe PBE-SHA1-RC4-40",
                "openssl pkcs12 -legacy",
            ),
        ] {
            pki.openssl(&format!("pkcs12 -export {how} -out poor.p12 -passout pass:x"));
            let (_, told) = complaint(load(&source(pki.path("poor.p12"), None, Some("x")), now()));
            assert!(told.contains(expected), "{how}: {told}");
        }
    }

    #[test]
    fn pkcs12_that_is_cut_or_changed_anywhere_is_only_refused() {
        let pki = chain("pkcs12-damaged", "ec");
        pki.openssl(
            "pkcs12 -export -inkey leaf.key -in leaf.pem -out l.p12 -passout pass:x -iter 1",
        );
        let good = pki.read("l.p12");
        pkcs12::read(&good, "x").unwrap();
        for length in 0..good.len() {
            assert!(pkcs12::read(&good[..length], "x").is_err(), "{length}");
        }
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x11;
            // What names things around the digest may change without harm: the key may not.
            if let Ok(read) = pkcs12::read(&bytes, "x") {
                assert_eq!(read.keys.len(), 1);
            }
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let pki = chain("mismatch", "ec");
        let (file, told) = complaint(pair(&pki, "chain.pem", "inter.key"));
        assert_eq!(file, "chain.pem");
        assert!(told.contains("the key belongs to certificate 2 in it, not the first"), "{told}");
        let (file, told) = complaint(pair(&pki, "chain.pem", "root.key"));
        assert_eq!(file, "root.key");
        assert!(told.contains("does not match the certificate in"), "{told}");
        assert!(told.contains("-noout -pubkey"), "{told}");
    }

    #[test]
    fn a_chain_in_another_order_is_refused_and_says_so() {
        let pki = chain("order", "ec");
        pki.join("backwards.pem", &["inter.pem", "leaf.pem"]);
        let (_, told) = complaint(pair(&pki, "backwards.pem", "leaf.key"));
        assert!(told.contains("the key belongs to certificate 2 in it"), "{told}");
        pki.join("mixed.pem", &["leaf.pem", "root.pem", "inter.pem"]);
        let (_, told) = complaint(pair(&pki, "mixed.pem", "leaf.key"));
        assert!(told.contains("not in order: certificate 3 signed certificate 1"), "{told}");
        assert!(told.contains("put the leaf first"), "{told}");
        pki.join("whole.pem", &["leaf.pem", "inter.pem", "root.pem"]);
        assert_eq!(pair(&pki, "whole.pem", "leaf.key").unwrap().chain.len(), 3);
        assert_eq!(pair(&pki, "leaf.pem", "leaf.key").unwrap().chain.len(), 1);
        pki.join("long.pem", &["leaf.pem"; limits::CHAIN_CERTIFICATES_MAX + 1]);
        let (_, told) = complaint(pair(&pki, "long.pem", "leaf.key"));
        assert!(told.contains("there are 17 certificates in it"), "{told}");
    }

    #[test]
    fn a_certificate_outside_its_time_is_refused_and_one_near_its_end_warned_of() {
        let pki = chain("time", "ec");
        let source = source(pki.path("chain.pem"), Some(pki.path("leaf.key")), Some("password"));
        let day = Duration::from_secs(86_400);
        let (_, told) = complaint(load(&source, now() + 366 * day));
        assert!(told.contains("it expired on 2"), "{told}");
        let (_, told) = complaint(load(&source, now() - day));
        assert!(told.contains("it is not valid before 2"), "{told}");
        let warnings = load(&source, now() + 360 * day).unwrap().warnings;
        let [expiry, above, password] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(expiry.starts_with('`') && expiry.contains("chain.pem` expires on 2"), "{expiry}");
        assert!(above.starts_with("certificate 2 in ") && above.contains("expires on"), "{above}");
        assert!(password.contains("everybody tries first"), "{password}");
        let Source { cert, key, .. } = source;
        let quiet = Source { cert, key, password: None, names: Vec::new(), ocsp: false };
        assert!(load(&quiet, now() + 300 * day).unwrap().warnings.is_empty());
    }

    #[test]
    fn what_clients_will_not_like_of_a_certificate_is_warned_of() {
        let pki = chain("warnings", "ec");
        let staple = "|tlsfeature=status_request|authorityInfoAccess=OCSP;URI:http://o.example/";
        pki.issue("plain", "inter", "ec", &format!("{NAMED}|extendedKeyUsage=serverAuth"));
        pki.issue("client", "inter", "ec", &format!("{NAMED}|extendedKeyUsage=clientAuth"));
        pki.issue("any", "inter", "ec", &format!("{NAMED}|extendedKeyUsage=anyExtendedKeyUsage"));
        pki.issue("staple", "inter", "ec", &format!("{NAMED}{staple}"));
        let warnings = |name: &str, ocsp, shown_to| {
            let (cert, key) = (pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key")));
            let source = Source { ocsp, ..source(cert, Some(key), None) };
            load_for(shown_to, &source, now()).unwrap().warnings.join("; ")
        };
        let (clients, endpoints) = (ShownTo::Clients, ShownTo::Endpoints);
        for (name, ocsp, shown_to, expected) in [
            ("leaf", false, clients, ""),
            ("plain", false, clients, ""),
            ("plain", false, endpoints, "has no clientAuth"),
            ("client", false, clients, "has no serverAuth"),
            ("client", false, endpoints, ""),
            ("any", false, clients, ""),
            ("staple", false, clients, "only good with a stapled answer"),
            ("staple", true, clients, ""),
            ("staple", false, endpoints, ""),
        ] {
            let told = warnings(name, ocsp, shown_to);
            assert!(told.contains(expected), "{name}: {told}");
            assert_eq!(told.is_empty(), expected.is_empty(), "{name}: {told}");
        }
        pki.openssl("x509 -req -in inter.csr -CA root.pem -CAkey root.key -days 1 -out short.pem");
        pki.join("chain.pem", &["leaf.pem", "short.pem"]);
        let source = source(pki.path("chain.pem"), Some(pki.path("leaf.key")), None);
        let told = load(&source, now() + Duration::from_secs(2 * 86_400)).unwrap().warnings;
        assert!(told[0].contains("certificate 2 in") && told[0].contains("expired on"), "{told:?}");
    }

    #[test]
    fn weak_and_unknown_kinds_of_keys_are_refused() {
        for (test, kind, expected) in [
            ("weak-rsa", "rsa:1024", "its RSA key has only 1024 bits; expected an RSA key of 2048"),
            ("weak-curve", "ec -pkeyopt ec_paramgen_curve:secp256k1", "of a kind that TLS clients"),
            ("weak-ed448", "ed448", "of a kind that TLS clients"),
        ] {
            let pki = chain(test, kind);
            let (file, told) = complaint(pair(&pki, "chain.pem", "leaf.key"));
            assert_eq!(file, "chain.pem");
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn a_certificate_without_names_is_only_good_for_endpoints_or_with_names_given() {
        let pki = Pki::new("nameless");
        pki.root("root");
        pki.issue("leaf", "root", "ec", "basicConstraints=CA:false");
        let (_, told) = complaint(pair(&pki, "leaf.pem", "leaf.key"));
        assert!(told.contains("it names no host"), "{told}");
        let mut source = source(pki.path("leaf.pem"), Some(pki.path("leaf.key")), None);
        assert!(load_for(ShownTo::Endpoints, &source, now()).is_ok());
        source.names = vec!["shop.example".to_owned()];
        assert!(load(&source, now()).is_ok());
    }

    #[test]
    fn files_that_are_something_else_are_told_apart() {
        let pki = chain("else", "ec");
        pki.der("leaf");
        pki.write("empty", "");
        pki.write("text", "hello");
        pki.write("cut.pem", &pki.read("leaf.pem")[..200]);
        pki.join("keys.key", &["leaf.key", "inter.key"]);
        pki.openssl("pkey -in leaf.key -aes256 -traditional -out old.key -passout pass:x");
        pki.write("damaged.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        for (cert, key, file, expected) in [
            ("nothing", "leaf.key", "nothing", "it cannot be read: No such file"),
            (".", "leaf.key", "", "it cannot be read: Is a directory"),
            ("empty", "leaf.key", "empty", "it is empty; expected PEM"),
            ("text", "leaf.key", "text", "there is no certificate in it; expected PEM"),
            ("leaf.key", "leaf.key", "leaf.key", "there is no certificate in it"),
            ("leaf.der", "leaf.key", "leaf.der", "in DER; write it as PEM: `openssl x509 -inform"),
            ("cut.pem", "leaf.key", "cut.pem", "line 1: the section that begins here never ends"),
            ("damaged.pem", "leaf.key", "damaged.pem", "certificate 1 in it is damaged"),
            ("chain.pem", "leaf.pem", "leaf.pem", "there is no private key in it"),
            ("chain.pem", "keys.key", "keys.key", "there are 2 private keys in it"),
            ("chain.pem", "old.key", "old.key", "encrypted as OpenSSL 0.9 did it"),
            ("chain.pem", "empty", "empty", "there is no private key in it; expected PEM"),
        ] {
            let error = pair(&pki, cert, key).unwrap_err();
            let told = error.to_string();
            assert!(error.file.ends_with(file), "{told}");
            assert!(told.contains(expected), "{cert} {key}: {told}");
        }
        let (_, told) = complaint(load(&source(pki.path("chain.pem"), None, None), now()));
        assert!(told.contains("say with `key` which file it is in"), "{told}");
    }

    #[test]
    fn devices_and_pipes_are_not_waited_for() {
        let pki = Pki::new("pipes");
        let made = std::process::Command::new("mkfifo").arg(pki.path("pipe")).status().unwrap();
        assert!(made.success());
        assert!(load(&source(pki.path("pipe"), None, None), now()).is_err());
        assert!(load(&source("/dev/zero".into(), None, None), now()).is_err());
        assert!(authorities::authorities(Path::new("/dev/zero")).is_err());
        assert!(authorities::revocation_lists(&pki.path("pipe"), now()).is_err());
    }
}
