//! Single values of TLS: versions, cipher suites, hosts as clients name them, pins, and what a
//! certificate tells of a client. Pure functions, like those of `value.rs`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use rustls::CipherSuite;
use toml::Value;
use toml::de::DeValue;

use super::address::host_name;
use super::error::Wrong;
use super::value::{Names, Time, Written, days, found, string, written_name};
use crate::base64;
use crate::hexadecimal;
use crate::limits;
use crate::plan::Secret;
use crate::routing;
use crate::tls::settings::{IdentityField, ProxyVersion, Version};

/// What clients are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    None,
    Optional,
    Required,
}

/// SHA-256 of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(pub [u8; 32]);

pub(super) const MODES: Names<Mode> =
    &[("required", Mode::Required), ("optional", Mode::Optional), ("none", Mode::None)];
pub(super) const PROXY_VERSIONS: Names<ProxyVersion> =
    &[("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2)];
pub(super) const IDENTITY_FIELDS: Names<IdentityField> = &[
    ("common_name", IdentityField::CommonName),
    ("organizational_unit", IdentityField::OrganizationalUnit),
    ("subject", IdentityField::Subject),
    ("issuer", IdentityField::Issuer),
    ("serial", IdentityField::Serial),
    ("dns_names", IdentityField::DnsNames),
    ("uris", IdentityField::Uris),
    ("emails", IdentityField::Emails),
    ("spiffe_id", IdentityField::SpiffeId),
    ("fingerprint", IdentityField::Fingerprint),
    ("certificate", IdentityField::Certificate),
];
const VERSIONS: Names<Version> = &[("1.2", Version::V1_2), ("1.3", Version::V1_3)];

// --- versions --------------------------------------------------------------------------------

/// `1.2`, also written `TLS1.2` or `TLSv1.2`.
pub(super) fn version(value: &DeValue<'_>) -> Result<Version, Wrong> {
    const EXPECTED: &str = "expected \"1.2\" or \"1.3\"";
    if value.as_str().is_none() {
        return Err(Wrong::of_type(format!(
            "expected a version in quotes, found {}",
            found(value)
        ))
        .note(EXPECTED));
    }
    let given = string(value)?;
    let lower = given.to_ascii_lowercase();
    let is_ssl = lower.starts_with("ssl");
    let number = lower.trim_start_matches("tls").trim_start_matches(['v', ' ', '_']);
    match VERSIONS.iter().find(|(name, _)| *name == number) {
        Some((_, version)) => Ok(*version),
        None if is_ssl || matches!(number, "1.0" | "1" | "1.1") => {
            Err(Wrong::new(format!("`{given}` is not spoken: it is broken (RFC 8996, RFC 7568)"))
                .note(EXPECTED))
        }
        None => Err(Wrong::new(format!("there is no TLS version `{given}`")).note(EXPECTED)),
    }
}

// --- cipher suites ---------------------------------------------------------------------------

/// A suite by its names of IANA and OpenSSL, which are the same for TLS 1.3.
struct Suite {
    iana: &'static str,
    openssl: &'static str,
    suite: CipherSuite,
    version: Version,
}

/// All that there are, in the order in which they are taken where the configuration has none.
#[rustfmt::skip]
const SUITES: [Suite; 9] = [
    v1_3("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    v1_3("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    v1_3("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    v1_2("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    v1_2("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    v1_2("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    v1_2("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    v1_2("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    v1_2("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
];

const fn v1_3(name: &'static str, suite: CipherSuite) -> Suite {
    Suite { iana: name, openssl: name, suite, version: Version::V1_3 }
}

const fn v1_2(iana: &'static str, openssl: &'static str, suite: CipherSuite) -> Suite {
    Suite { iana, openssl, suite, version: Version::V1_2 }
}

pub(super) fn usual_suites() -> Vec<CipherSuite> {
    SUITES.iter().map(|known| known.suite).collect()
}

/// The version that a suite is of: each is of one.
pub(super) fn version_of(suite: CipherSuite) -> Option<Version> {
    SUITES.iter().find(|known| known.suite == suite).map(|known| known.version)
}

pub(super) fn cipher_suite(value: &DeValue<'_>) -> Result<CipherSuite, Wrong> {
    let given = string(value)?;
    let is = |known: &&Suite| {
        known.iana.eq_ignore_ascii_case(given) || known.openssl.eq_ignore_ascii_case(given)
    };
    if let Some(known) = SUITES.iter().find(is) {
        return Ok(known.suite);
    }
    let names = SUITES.each_ref().map(|known| known.iana);
    let wrong = match weakness(given) {
        Some(why) => Wrong::new(format!("the cipher suite `{given}` is weak: {why}")),
        None => Wrong::new(format!("there is no cipher suite `{given}`")),
    };
    Err(wrong.choices("expected one of", given, &names))
}

/// Why a suite that others know is none of ours.
fn weakness(given: &str) -> Option<&'static str> {
    const CIPHERS: [&str; 16] = [
        "AES",
        "AES128",
        "AES256",
        "RC4",
        "RC2",
        "DES",
        "3DES",
        "CBC",
        "CBC3",
        "NULL",
        "CAMELLIA",
        "CAMELLIA128",
        "CAMELLIA256",
        "SEED",
        "IDEA",
        "ARIA",
    ];
    let upper = given.to_ascii_uppercase();
    let words: Vec<&str> = upper.split(['-', '_']).collect();
    let has = |wanted: &[&str]| words.iter().any(|word| wanted.contains(word));
    let is_of_1_3 = words.first() == Some(&"TLS") && !has(&["WITH"]);
    if words.len() < 2 || !has(&CIPHERS) && !has(&["CHACHA20"]) {
        return None;
    }
    if has(&["RC4", "RC2", "DES", "3DES", "CBC3", "MD5", "EXP", "EXPORT", "SEED", "IDEA"]) {
        Some("its cipher or its digest is broken")
    } else if has(&["NULL", "ANON", "ADH", "AECDH"]) {
        Some("it does not encrypt, or not for anybody in particular")
    } else if !has(&["GCM", "CCM", "CCM8", "CHACHA20"]) {
        Some("its padding can be attacked")
    } else if !has(&["ECDHE", "DHE", "EDH", "EECDH"]) && !is_of_1_3 {
        Some("whoever gets the key later can read what was recorded (no forward secrecy)")
    } else {
        None
    }
}

// --- hosts and keys --------------------------------------------------------------------------

/// A host as clients name it in a handshake, exact or `*.` and a suffix. Never an address
/// (RFC 6066 section 3).
pub(super) fn server_name_pattern(value: &DeValue<'_>) -> Result<String, Wrong> {
    let given = string(value)?;
    let name = routing::host(given).map_err(Wrong::new)?;
    let is_address = name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok();
    if is_address {
        return Err(Wrong::new(format!("`{given}` is an address, which no client names"))
            .note("expected a name such as \"www.example.com\" or \"*.example.com\""));
    }
    Ok(name)
}

/// What a certificate must be for: a name, or an address.
pub(super) fn server_name(value: &DeValue<'_>) -> Result<String, Wrong> {
    if let Ok(address) = string(value)?.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let name = host_name(value)?;
    Ok(name.strip_suffix('.').unwrap_or(&name).to_owned())
}

pub(super) fn file(value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    let given = string(value)?;
    if given.is_empty() || given.contains('\0') {
        return Err(Wrong::new("this cannot be the name of a file")
            .note("expected a path, such as \"/etc/corelane/www.pem\""));
    }
    Ok(PathBuf::from(given))
}

pub(super) fn password(value: &DeValue<'_>) -> Result<Secret, Wrong> {
    Ok(Secret(string(value)?.to_owned()))
}

/// `sha256/` and base64, as browsers and curl have it, or 64 hexadecimal digits.
pub(super) fn pin(value: &DeValue<'_>) -> Result<Pin, Wrong> {
    let given = string(value)?;
    let digest = match given.strip_prefix("sha256/") {
        // curl has a second `/` there, with which base64 may begin as well.
        Some(text) => of_base64(text).or_else(|| of_base64(text.strip_prefix('/')?)),
        None => hexadecimal::read(given),
    };
    digest.map(Pin).ok_or_else(|| {
        Wrong::new(format!("`{given}` is no pin")).note(
            "expected \"sha256/\" and 44 characters of base64, or 64 hexadecimal digits: \
             `openssl x509 -in cert.pem -pubkey -noout | openssl pkey -pubin -outform der | \
             openssl dgst -sha256`",
        )
    })
}

/// 32 bytes, with their `=` or without.
fn of_base64(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_suffix('=').unwrap_or(text);
    base64::decode(format!("{digits}=").as_bytes())?.try_into().ok()
}

pub(super) fn ticket_rotation(value: &DeValue<'_>) -> Result<Time, Wrong> {
    let Time(time) = days(value)?;
    if (limits::TICKET_ROTATION_MIN..=limits::TICKET_ROTATION_MAX).contains(&time) {
        return Ok(Time(time));
    }
    Err(Wrong::new("this is no time to use a ticket key for")
        .note("expected from \"1m\" to \"7d\": who has the key can read what it protects"))
}

// --- printing --------------------------------------------------------------------------------

impl Written for Version {
    fn written(&self) -> Value {
        written_name(VERSIONS, *self)
    }
}

impl Written for CipherSuite {
    fn written(&self) -> Value {
        let known = SUITES.iter().find(|known| known.suite == *self);
        Value::String(known.map_or("", |known| known.iana).to_owned())
    }
}

impl Written for Mode {
    fn written(&self) -> Value {
        written_name(MODES, *self)
    }
}

impl Written for ProxyVersion {
    fn written(&self) -> Value {
        written_name(PROXY_VERSIONS, *self)
    }
}

impl Written for IdentityField {
    fn written(&self) -> Value {
        written_name(IDENTITY_FIELDS, *self)
    }
}

impl Written for Pin {
    fn written(&self) -> Value {
        Value::String(hexadecimal::text(&self.0))
    }
}

/// Whoever prints a document hides it.
impl Written for Secret {
    fn written(&self) -> Value {
        Value::String(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> DeValue<'_> {
        DeValue::String(text.into())
    }

    #[test]
    fn versions_have_several_spellings_and_old_ones_are_refused_as_broken() {
        for given in ["1.2", "TLS1.2", "TLSv1.2", "tls1.2"] {
            assert_eq!(version(&text(given)).ok(), Some(Version::V1_2), "{given}");
        }
        assert_eq!(version(&text("TLSv1.3")).ok(), Some(Version::V1_3));
        for given in ["1.0", "TLS1.1", "TLSv1", "SSLv3", "ssl2", "SSL"] {
            let wrong = version(&text(given)).unwrap_err();
            assert!(wrong.message.contains("broken"), "{given}: {}", wrong.message);
        }
        for given in ["", "1.4", "12", "v", "TLS"] {
            let wrong = version(&text(given)).unwrap_err();
            assert!(wrong.message.contains("no TLS version"), "{given}: {}", wrong.message);
        }
        let wrong = version(DeValue::parse("1.2").unwrap().get_ref()).unwrap_err();
        assert!(wrong.message.contains("in quotes"), "{}", wrong.message);
    }

    #[test]
    fn suites_are_known_by_both_names_and_weak_ones_are_called_weak() {
        let ours = CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
        for given in ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"] {
            assert_eq!(cipher_suite(&text(given)).ok(), Some(ours), "{given}");
        }
        for given in [
            "RC4-SHA",
            "DES-CBC3-SHA",
            "TLS_RSA_WITH_AES_128_CBC_SHA",
            "AES128-SHA",
            "AES256-GCM-SHA384",
            "TLS_RSA_WITH_AES_256_GCM_SHA384",
            "ECDHE-RSA-AES256-SHA384",
            "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
            "NULL-SHA256",
            "ADH-AES256-GCM-SHA384",
            "EXP-RC4-MD5",
        ] {
            let wrong = cipher_suite(&text(given)).unwrap_err();
            assert!(wrong.message.contains("weak"), "{given}: {}", wrong.message);
        }
        for given in ["", "HIGH", "TLS_AES_128_CCM_SHA256", "DHE-RSA-AES128-GCM-SHA256", "a-b"] {
            let wrong = cipher_suite(&text(given)).unwrap_err();
            assert!(wrong.message.contains("no cipher suite"), "{given}: {}", wrong.message);
        }
        for suite in usual_suites() {
            let Value::String(name) = suite.written() else { panic!("a name") };
            assert_eq!(cipher_suite(&text(&name)).ok(), Some(suite));
        }
    }

    #[test]
    fn a_pin_is_the_same_in_base64_and_in_hexadecimal() {
        let hex = "9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";
        let of_hex = pin(&text(hex)).unwrap();
        assert_eq!(of_hex.written(), Value::String(hex.to_owned()));
        let base64 = "n59REfeyengfHx3d5evC3St5a/xzZcnCi1SOVkF2kp8";
        for given in [format!("sha256/{base64}="), format!("sha256//{base64}=")] {
            assert_eq!(pin(&text(&given)).ok(), Some(of_hex), "{given}");
        }
        let full = pin(&text(&"ff".repeat(32))).unwrap();
        for begins in ["sha256/", "sha256//"] {
            let given = format!("{begins}{}8=", "/".repeat(42));
            assert_eq!(pin(&text(&given)).ok(), Some(full), "{given}");
        }
        for wrong in [
            "",
            "sha256/",
            "sha256///n59REfeyengfHx3d5evC3St5a/xzZcnCi1SOVkF2kp8=",
            base64,
            &hex[1..],
            &format!("sha256/{}=", &base64[1..]),
            // bits beyond the last byte
            &format!("sha256/{}9=", &base64[..42]),
            &format!("sha256/{}-=", &base64[..42]),
        ] {
            assert!(pin(&text(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn clients_name_hosts_and_no_addresses() {
        let name = |given: &str| server_name_pattern(&text(given)).ok();
        assert_eq!(name("WWW.Example.com.").as_deref(), Some("www.example.com"));
        assert_eq!(name("*.Example.com").as_deref(), Some("*.example.com"));
        for wrong in ["", "*", "10.0.0.1", "[::1]", "a.*.b", "a:443", "a/b", "b\u{fc}cher.de"] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
        let server = |given: &str| server_name(&text(given)).ok();
        assert_eq!(server("Internal.Example.").as_deref(), Some("internal.example"));
        assert_eq!(server("10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(server("::1").as_deref(), Some("::1"));
        assert_eq!(server("10.0.0"), None);
    }

    #[test]
    fn ticket_keys_live_from_a_minute_to_a_week() {
        for (given, is_good) in
            [("59s", false), ("1m", true), ("12h", true), ("7d", true), ("8d", false)]
        {
            assert_eq!(ticket_rotation(&text(given)).is_ok(), is_good, "{given}");
        }
    }
}
