//! `[tls]`, and the `tls` and `proxy_protocol` of a listener: the sections as written, what is
//! wrong with them, and the plan's parts made of them. Clusters have theirs in `cluster_tls.rs`.

use std::collections::{HashMap, HashSet};

use rustls::CipherSuite;
use serde::Serialize;

use super::address::network;
use super::certificates::{CertificateFiles, Files};
use super::document::{Document, Time, lines_by_name};
use super::error::{Offset, Problem, Wrong};
use super::read::{At, Section};
use super::tls_values::{
    IDENTITY_FIELDS, MODES, Mode, cipher_suite, file, server_name_pattern, ticket_rotation,
    usual_suites, version, version_of,
};
use super::value::{boolean, check_header_name, choice, text, time};
use crate::limits;
use crate::plan::{ClusterId, Network};
use crate::tls::settings::{self, IdentityField, Version, Versions};

/// Of the whole process.
#[derive(Clone, Debug, Serialize)]
pub struct Tls {
    pub ticket_rotation: At<Time>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ProxyProtocol {
    pub from: Vec<At<Network>>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ListenerTls {
    pub min_version: At<Version>,
    pub max_version: At<Version>,
    pub cipher_suites: Vec<At<CipherSuite>>,
    pub strict_sni: At<bool>,
    pub check_host: At<bool>,
    pub session_tickets: At<bool>,
    pub handshake_timeout: At<Time>,
    pub allow_plain: At<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateFiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sni: Vec<NamedAuth>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passthrough: Vec<Passthrough>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ClientAuth {
    pub mode: At<Mode>,
    pub ca: Vec<At<std::path::PathBuf>>,
    pub crl: Vec<At<std::path::PathBuf>>,
    #[serde(serialize_with = "lines_by_name")]
    pub headers: Vec<(At<String>, Vec<At<IdentityField>>)>,
    /// `listeners[0].tls.client_auth`, for messages.
    #[serde(skip)]
    pub(super) key: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct NamedAuth {
    pub names: Vec<At<String>>,
    pub client_auth: ClientAuth,
    #[serde(skip)]
    key: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Passthrough {
    pub names: Vec<At<String>>,
    pub cluster: At<String>,
    /// `listeners[0].tls.passthrough[0]`, for messages.
    #[serde(skip)]
    pub(super) key: String,
}

// --- reading ---------------------------------------------------------------------------------

impl Tls {
    pub(super) fn read(mut section: Section<'_>) -> Tls {
        let rotation = Time(limits::TICKET_ROTATION);
        let ticket_rotation = section.value_or("ticket_rotation", rotation, ticket_rotation);
        section.finish();
        Tls { ticket_rotation }
    }
}

impl ProxyProtocol {
    pub(super) fn read(listener: &mut Section<'_>) -> Option<ProxyProtocol> {
        let mut section = listener.optional_section("proxy_protocol")?;
        let expected = "the networks of those who speak it, such as [\"10.0.0.0/8\"]: it says \
                        whom a connection is for, and whoever else spoke it could say anything";
        let from = several(&mut section, "from", expected, network);
        section.finish();
        Some(ProxyProtocol { from })
    }

    pub(super) fn compile(&self) -> Vec<Network> {
        self.from.iter().map(|network| network.value).collect()
    }
}

impl ListenerTls {
    pub(super) fn read(listener: &mut Section<'_>) -> Option<ListenerTls> {
        let mut section = listener.optional_section("tls")?;
        let (min_version, max_version) = versions(&mut section);
        let cipher_suites = suites(&mut section, min_version.value, max_version.value);
        let certificates = section.sections("certificates");
        let sni = section.sections("sni");
        let passthrough = section.sections("passthrough");
        let tls = ListenerTls {
            min_version,
            max_version,
            cipher_suites,
            strict_sni: section.value_or("strict_sni", false, boolean),
            check_host: section.value_or("check_host", false, boolean),
            session_tickets: section.value_or("session_tickets", true, boolean),
            handshake_timeout: section.value_or(
                "handshake_timeout",
                Time(limits::TLS_HANDSHAKE_TIMEOUT),
                time,
            ),
            allow_plain: section.value_or("allow_plain", false, boolean),
            certificates: certificates.into_iter().filter_map(CertificateFiles::read).collect(),
            client_auth: section.optional_section("client_auth").map(ClientAuth::read),
            sni: sni.into_iter().filter_map(NamedAuth::read).collect(),
            passthrough: passthrough.into_iter().filter_map(Passthrough::read).collect(),
        };
        let ends = section.has("certificates") && !section.is_empty_list("certificates");
        let passes = section.has("passthrough") && !section.is_empty_list("passthrough");
        tls.refuse_what_nothing_ends(&section, ends, passes);
        section.finish();
        Some(tls)
    }

    /// Without a certificate no TLS is ended here.
    fn refuse_what_nothing_ends(&self, section: &Section<'_>, ends: bool, passes: bool) {
        const CERTIFICATES: &str =
            "expected certificates = [{ cert = \"www.pem\", key = \"www.key\" }]";
        if ends {
            return;
        }
        if !passes {
            let wrong = Wrong::new("a listener cannot speak TLS without a certificate")
                .note(format!("{CERTIFICATES}, or `passthrough` to a cluster"));
            section.refuse(if self.allow_plain.value {
                wrong.note(
                    "`allow_plain` is for clients without TLS beside others: for plain HTTP \
                            alone, leave `tls` out",
                )
            } else {
                wrong
            });
            return;
        }
        let asks = [
            ("client_auth", self.client_auth.is_some()),
            ("sni", !self.sni.is_empty()),
            ("strict_sni", self.strict_sni.value),
            ("check_host", self.check_host.value),
        ];
        for (key, is_asked) in asks {
            if is_asked {
                let wrong = Wrong::new("this needs a certificate: other TLS is only passed on")
                    .note(CERTIFICATES);
                section.refuse_key(key, section.offset_of(key), wrong);
            }
        }
    }
}

impl ClientAuth {
    fn read(mut section: Section<'_>) -> ClientAuth {
        let key = section.path.clone();
        let auth = ClientAuth {
            mode: section.value_or("mode", Mode::Required, choice("mode", MODES)),
            ca: section.one_or_list("ca", file),
            crl: section.one_or_list("crl", file),
            headers: identity_headers(&mut section),
            key,
        };
        let has = |key: &str| section.has(key) && !section.is_empty_list(key);
        if auth.mode.value != Mode::None && !has("ca") {
            let expected = "the authorities of the clients, such as [\"clients-ca.pem\"]";
            section.missing("ca", expected);
        } else if has("crl") && !has("ca") {
            let wrong = Wrong::new("a revocation list needs the authority that signed it")
                .note("expected `ca` beside it");
            section.refuse_key("crl", section.offset_of("crl"), wrong);
        }
        section.finish();
        auth
    }

    fn compile<'d>(&'d self, files: &mut Files<'d>) -> Option<settings::ClientAuth> {
        let ClientAuth { mode, ca, crl, headers, key: _ } = self;
        let required = match mode.value {
            Mode::None => return None,
            Mode::Optional => false,
            Mode::Required => true,
        };
        let header = |(name, fields): &(At<String>, Vec<At<IdentityField>>)| {
            Some((name.value.as_bytes().into(), fields.first()?.value))
        };
        let key = |index: &str| format!("{}.{index}", self.key);
        Some(settings::ClientAuth {
            required,
            authorities: ca.iter().map(|path| files.authority(path, || key("ca"))).collect(),
            revocations: crl.iter().map(|path| files.revocation(path, || key("crl"))).collect(),
            headers: headers.iter().filter_map(header).collect(),
        })
    }
}

/// Headers that tell who a client is; a client's own are removed, so they must be nobody else's.
fn identity_headers(section: &mut Section<'_>) -> Vec<(At<String>, Vec<At<IdentityField>>)> {
    let mut seen = HashSet::new();
    let mut headers = Vec::new();
    for (name, item) in section.entries("headers") {
        let lower = name.value.to_ascii_lowercase();
        if let Err(wrong) = check_header_name(&name.value) {
            item.refuse(name.offset, wrong);
        } else if is_of_the_proxy(&lower) {
            let wrong = Wrong::new(format!("`{}` is written by the proxy itself", name.value))
                .note("expected a header of its own, such as X-Client-CN");
            item.refuse(name.offset, wrong);
        } else if !seen.insert(lower) {
            let wrong = Wrong::new(format!("`{}` is set twice", name.value))
                .note("header names that differ only by case are the same header");
            item.refuse(name.offset, wrong);
        } else if let Some(field) = item.parse(choice("field of a certificate", IDENTITY_FIELDS)) {
            headers.push((name, vec![field]));
        }
    }
    headers
}

/// Headers that say where a request comes from and what it is called.
fn is_of_the_proxy(lower: &str) -> bool {
    const OWN: [&str; 10] = [
        "host",
        "via",
        "forwarded",
        "date",
        "traceparent",
        "tracestate",
        "x-real-ip",
        "x-request-id",
        "x-proxy-id",
        "content-type",
    ];
    OWN.contains(&lower) || lower.starts_with("x-forwarded-")
}

impl NamedAuth {
    fn read(mut section: Section<'_>) -> Option<NamedAuth> {
        let key = section.path.clone();
        let names = names(&mut section);
        if !section.has("client_auth") {
            let expected = "what these hosts ask clients for, such as { mode = \"none\" }";
            section.missing("client_auth", expected);
        }
        let client_auth = section.optional_section("client_auth").map(ClientAuth::read);
        section.finish();
        Some(NamedAuth { names, client_auth: client_auth?, key })
    }
}

impl Passthrough {
    fn read(mut section: Section<'_>) -> Option<Passthrough> {
        let key = section.path.clone();
        let names = names(&mut section);
        let cluster = section.required("cluster", "the name of a cluster", text);
        section.finish();
        Some(Passthrough { names, cluster: cluster?, key })
    }
}

fn names(section: &mut Section<'_>) -> Vec<At<String>> {
    let expected = "hosts, such as [\"admin.example.com\", \"*.internal.example.com\"]";
    several(section, "names", expected, server_name_pattern)
}

/// A list with at least one element.
fn several<T>(
    section: &mut Section<'_>,
    key: &'static str,
    expected: &str,
    parse: impl Fn(&toml::de::DeValue<'_>) -> Result<T, Wrong>,
) -> Vec<At<T>> {
    if !section.has(key) {
        section.missing(key, expected);
    } else if section.is_empty_list(key) {
        let wrong = Wrong::new("this list is empty").note(format!("expected {expected}"));
        section.refuse_key(key, section.offset_of(key), wrong);
    }
    section.one_or_list(key, parse)
}

/// `min_version` and `max_version`, of listeners and of clusters.
pub(super) fn versions(section: &mut Section<'_>) -> (At<Version>, At<Version>) {
    let min = section.value_or("min_version", Version::V1_2, version);
    let max = section.value_or("max_version", Version::V1_3, version);
    if min.value > max.value {
        let wrong = Wrong::new("no version is left: this is more than `max_version`")
            .note("expected a version that is not above `max_version`");
        section.refuse_key("min_version", min.offset.or(max.offset), wrong);
    }
    (min, max)
}

pub(super) fn compiled_versions(min: &At<Version>, max: &At<Version>) -> Versions {
    Versions { min: min.value, max: max.value }
}

fn suites(section: &mut Section<'_>, min: Version, max: Version) -> Vec<At<CipherSuite>> {
    if !section.has("cipher_suites") {
        // The reader is to know of the key.
        let _ = section.list("cipher_suites", cipher_suite);
        return usual_suites().into_iter().map(At::unplaced).collect();
    }
    let all = section.list("cipher_suites", cipher_suite);
    let offset = section.offset_of("cipher_suites");
    let mut suites: Vec<At<CipherSuite>> = Vec::new();
    for suite in all {
        if suites.iter().any(|other| other.value == suite.value) {
            let wrong = Wrong::new("this cipher suite is in the list already")
                .note("expected each suite once, under one of its names");
            section.refuse_key("cipher_suites", suite.offset, wrong);
        } else {
            suites.push(suite);
        }
    }
    for version in [Version::V1_2, Version::V1_3] {
        let is_allowed = (min..=max).contains(&version);
        let is_left = suites.iter().any(|suite| version_of(suite.value) == Some(version));
        if is_allowed && !is_left && (!suites.is_empty() || section.is_empty_list("cipher_suites"))
        {
            let (name, bound) = match version {
                Version::V1_2 => ("1.2", "min_version = \"1.3\""),
                Version::V1_3 => ("1.3", "max_version = \"1.2\""),
            };
            let wrong = Wrong::new(format!("no cipher suite is left for TLS {name}"))
                .note(format!("expected one of that version in the list, or {bound}"));
            section.refuse_key("cipher_suites", offset, wrong);
        }
    }
    suites
}

// --- what no single value shows ---------------------------------------------------------------

/// Names that two entries claim, and clusters whose TLS nobody would speak.
pub(super) fn check(document: &Document, problems: &mut Vec<Problem>) {
    for listener in &document.listeners {
        let Some(tls) = &listener.tls else { continue };
        let mut taken: HashMap<&str, &str> = HashMap::new();
        let of_sni = tls.sni.iter().map(|named| (&named.names, named.key.as_str()));
        let passed = tls.passthrough.iter().map(|passed| (&passed.names, passed.key.as_str()));
        for (names, owner) in of_sni.chain(passed) {
            for name in names {
                if let Some(first) = taken.insert(&name.value, owner) {
                    let wrong = Wrong::new(format!("`{}` is in `{first}` already", name.value))
                        .note("expected each name once in `sni` and `passthrough` of a listener");
                    refuse(problems, name.offset, format!("{owner}.names"), wrong);
                }
            }
        }
        if let Some(auth) = tls.plain_clients_pass(Mode::Required) {
            let wrong = Wrong::new(format!("clients without TLS would get past `{}`", auth.key))
                .note("it requires a certificate, and whoever speaks plain HTTP has none to show")
                .note(
                    "remove `allow_plain`: plain HTTP can have a listener of its own; or let \
                     clients in without a certificate: mode = \"optional\"",
                );
            refuse(problems, tls.allow_plain.offset, allow_plain_key(auth), wrong);
        }
    }
    if Files::of(document).count() > limits::TLS_FILES_MAX {
        let wrong = Wrong::new("there are too many certificates, authorities and lists")
            .note(format!("expected at most {} different ones in all", limits::TLS_FILES_MAX));
        refuse(problems, Some(0), "tls".to_owned(), wrong);
    }
    let routed: HashSet<&str> = document
        .routes
        .iter()
        .filter_map(|route| Some(route.cluster.as_ref()?.value.as_str()))
        .collect();
    let passed: HashSet<&str> = passed_to(document).collect();
    for cluster in &document.clusters {
        let name = cluster.name.value.as_str();
        if let Some(tls) = &cluster.tls
            && passed.contains(name)
            && !routed.contains(name)
        {
            let wrong = Wrong::new("only `passthrough` leads here, and what it brings is TLS")
                .note("leave `tls` out: the endpoints speak it with the clients themselves");
            refuse(problems, tls.offset, format!("clusters.{name}.tls"), wrong);
        }
    }
}

/// Of the listener that this is part of.
fn allow_plain_key(auth: &ClientAuth) -> String {
    let (listener, _) = auth.key.split_once(".tls.").unwrap_or((&auth.key, ""));
    format!("{listener}.tls.allow_plain")
}

/// What is allowed, and lets in more than it may seem to.
pub(super) fn warn(document: &Document, warnings: &mut Vec<Problem>) {
    for tls in document.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        let Some(auth) = tls.plain_clients_pass(Mode::Optional) else { continue };
        let wrong = Wrong::new(format!("clients without TLS are never asked for `{}`", auth.key))
            .note("backends are told nothing of them, as of clients without a certificate");
        refuse(warnings, tls.allow_plain.offset, allow_plain_key(auth), wrong);
    }
}

impl ListenerTls {
    /// Rules of this kind that clients without TLS would not be held to.
    fn plain_clients_pass(&self, mode: Mode) -> Option<&ClientAuth> {
        let is_passed = |auth: &&ClientAuth| self.allow_plain.value && auth.mode.value == mode;
        self.auths().find(is_passed)
    }

    fn auths(&self) -> impl Iterator<Item = &ClientAuth> {
        self.client_auth.iter().chain(self.sni.iter().map(|named| &named.client_auth))
    }
}

fn refuse(problems: &mut Vec<Problem>, offset: Offset, key: String, wrong: Wrong) {
    problems.push(Problem { offset, key, wrong });
}

/// Each once, of all listeners. Also where nobody is asked for a certificate now: backends believe
/// these headers as before, and who could send them would be whoever they like.
pub(super) fn identity_headers_of(document: &Document) -> Vec<Box<[u8]>> {
    let all = document.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let all = all.flat_map(ListenerTls::auths);
    let names = all.flat_map(|auth| auth.headers.iter().map(|(name, _)| name.value.to_lowercase()));
    let mut names: Vec<Box<[u8]>> = names.map(|name| name.into_bytes().into()).collect();
    names.sort();
    names.dedup();
    names
}

/// Names of clusters that get TLS as it came.
pub(super) fn passed_to(document: &Document) -> impl Iterator<Item = &str> {
    let listeners = document.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    listeners.flat_map(|tls| tls.passthrough.iter().map(|passed| passed.cluster.value.as_str()))
}

// --- the plan --------------------------------------------------------------------------------

impl ListenerTls {
    pub(super) fn compile<'d>(
        &'d self,
        files: &mut Files<'d>,
        clusters: &HashMap<&str, ClusterId>,
    ) -> settings::ListenerTls {
        let texts = |names: &[At<String>]| names.iter().map(|name| name.value.clone()).collect();
        let named = |named: &'d NamedAuth, files: &mut Files<'d>| settings::NamedTls {
            names: texts(&named.names),
            client_auth: named.client_auth.compile(files),
        };
        let passed = |passed: &Passthrough| {
            let cluster = *clusters.get(passed.cluster.value.as_str())?;
            Some(settings::Passthrough { names: texts(&passed.names), cluster })
        };
        settings::ListenerTls {
            versions: compiled_versions(&self.min_version, &self.max_version),
            suites: self.cipher_suites.iter().map(|suite| suite.value).collect(),
            certificates: self.certificates.iter().map(|one| files.certificate(one)).collect(),
            strict_sni: self.strict_sni.value,
            check_host: self.check_host.value,
            client_auth: self.client_auth.as_ref().and_then(|auth| auth.compile(files)),
            names: self.sni.iter().map(|one| named(one, files)).collect(),
            handshake_timeout: self.handshake_timeout.value.0,
            allow_plain: self.allow_plain.value,
            passthrough: self.passthrough.iter().filter_map(passed).collect(),
            session_tickets: self.session_tickets.value,
        }
    }
}
