//! `GET /admin/certificates` and `POST /admin/certificates/reload`: what TLS uses of files, how
//! long it lasts, and what is wrong with files that have changed.

use std::path::Path;
use std::rc::Rc;

use serde::Serialize;

use crate::admin::call::Answer;
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::admin::status::moment;
use crate::control::Control;
use crate::control::certificates::{Broken, Users, lists_end, seconds_until, unasked};
use crate::engine;
use crate::hexadecimal;
use crate::tls::certificates::{Certificate as Loaded, Source};
use crate::tls::material::{Found, Material, Place};
use crate::tls::settings::{AuthorityId, CertificateId, RevocationId};
use crate::tls::x509::KeyKind;

pub(super) const SHAPE: Shape = Shape::Object(&[
    ("certificates", Shape::List(&CERTIFICATE)),
    ("authorities", Shape::List(&AUTHORITIES)),
    ("revocation_lists", Shape::List(&REVOCATIONS)),
]);
const TEXTS: Shape = Shape::List(&Shape::Text);
const CERTIFICATE: Shape = Shape::Object(&[
    ("cert", Shape::Text),
    ("key", Shape::OrNull(&Shape::Text)),
    ("names", TEXTS),
    ("subject", Shape::Text),
    ("issuer", Shape::Text),
    ("serial", Shape::Text),
    ("not_before", Shape::Moment),
    ("not_after", Shape::Moment),
    ("days_left", Shape::Number),
    ("key_kind", Shape::Text),
    ("fingerprint", Shape::Text),
    ("chain_length", Shape::Whole),
    ("listeners", TEXTS),
    ("clusters", TEXTS),
    ("loaded_at", Shape::OrNull(&Shape::Moment)),
    ("staple", STAPLE),
    ("error", ERROR),
]);
const STAPLE: Shape = Shape::Object(&[
    ("state", Shape::Word(&["off", "waiting", "stapled"])),
    ("responder", Shape::OrNull(&Shape::Text)),
    ("must_staple", Shape::Flag),
    ("this_update", Shape::OrNull(&Shape::Moment)),
    ("next_update", Shape::OrNull(&Shape::Moment)),
    ("asked_next", Shape::OrNull(&Shape::Moment)),
    ("error", Shape::OrNull(&Shape::Text)),
]);
/// Of files that have changed and are not in use, because they are wrong.
const ERROR: Shape =
    Shape::OrNull(&Shape::Object(&[("message", Shape::Text), ("since", Shape::Moment)]));
const AUTHORITIES: Shape = Shape::Object(&[
    ("file", Shape::OrNull(&Shape::Text)),
    ("certificates", Shape::Whole),
    ("error", ERROR),
]);
const REVOCATIONS: Shape = Shape::Object(&[
    ("file", Shape::Text),
    ("lists", Shape::Whole),
    ("next_update", Shape::OrNull(&Shape::Moment)),
    ("error", ERROR),
]);

#[derive(Serialize)]
struct Page {
    certificates: Vec<Certificate>,
    authorities: Vec<Authorities>,
    revocation_lists: Vec<Revocations>,
}

#[derive(Serialize)]
struct Certificate {
    cert: String,
    /// `None`: it is in the same file.
    key: Option<String>,
    /// The hosts that it is used for.
    names: Vec<String>,
    subject: String,
    issuer: String,
    serial: String,
    not_before: String,
    not_after: String,
    /// Less than 0: it has expired.
    days_left: i64,
    key_kind: String,
    fingerprint: String,
    chain_length: usize,
    listeners: Vec<String>,
    clusters: Vec<String>,
    loaded_at: Option<String>,
    staple: Staple,
    error: Option<Wrong>,
}

#[derive(Serialize)]
struct Staple {
    state: &'static str,
    responder: Option<String>,
    must_staple: bool,
    this_update: Option<String>,
    next_update: Option<String>,
    asked_next: Option<String>,
    /// Why there is none, or why the last question has failed.
    error: Option<String>,
}

#[derive(Serialize)]
struct Wrong {
    message: String,
    since: String,
}

#[derive(Serialize)]
struct Authorities {
    /// `None`: those that the system trusts.
    file: Option<String>,
    certificates: usize,
    error: Option<Wrong>,
}

#[derive(Serialize)]
struct Revocations {
    file: String,
    lists: usize,
    /// Of the list that ends first.
    next_update: Option<String>,
    error: Option<Wrong>,
}

pub(super) async fn page(control: &Rc<Control>) -> Result<Answer, Refusal> {
    Ok(Answer::json(&read(control)))
}

pub(super) async fn reload(control: &Rc<Control>, who: &str) -> Result<Answer, Refusal> {
    control.reload_certificates(if who.is_empty() { "admin" } else { who }).await;
    let broken = control.broken_files().len();
    if let Some(reason) = control.unusable_files() {
        return Err(Refusal::Conflict(reason));
    }
    Ok(Answer::json(&read(control)).changed(format!("read again, {broken} are wrong")))
}

fn read(control: &Control) -> Page {
    let (material, broken) = (control.tls_material(), control.broken_files());
    let wrong = |place: Place| {
        let found = broken.iter().find(|broken| broken.place == place);
        found.map(|Broken { error, since, .. }| Wrong {
            message: error.clone(),
            since: moment(*since),
        })
    };
    let all = material.certificates.iter().zip(control.certificate_users()).enumerate();
    let certificates = all.filter_map(|(index, (Found { source, found }, users))| {
        let error = wrong(Place::Certificate(CertificateId(index as u32)));
        Some(certificate(control, source, found.as_ref()?, users, error))
    });
    let authorities = material.authorities.iter().enumerate().map(|(index, each)| Authorities {
        file: Some(text(&each.source)),
        certificates: each.found.as_ref().map_or(0, Vec::len),
        error: wrong(Place::Authority(AuthorityId(index as u32))),
    });
    let system = material.asks_system.then(|| Authorities {
        file: None,
        certificates: material.system.len(),
        error: wrong(Place::System),
    });
    Page {
        certificates: certificates.collect(),
        authorities: authorities.chain(system).collect(),
        revocation_lists: revocations(&material, wrong),
    }
}

fn certificate(
    control: &Control,
    source: &Source,
    loaded: &Loaded,
    users: Users,
    error: Option<Wrong>,
) -> Certificate {
    let facts = &loaded.facts;
    let addresses = facts.addresses.iter().map(ToString::to_string);
    let own = || facts.dns_names.iter().cloned().chain(addresses).collect();
    let given = Some(source.names.clone()).filter(|names| !names.is_empty());
    Certificate {
        cert: text(&source.cert),
        key: source.key.as_deref().map(text),
        names: given.unwrap_or_else(own),
        subject: facts.subject.clone(),
        issuer: facts.issuer.clone(),
        serial: facts.serial.clone(),
        not_before: moment(facts.not_before),
        not_after: moment(facts.not_after),
        days_left: seconds_until(facts.not_after, engine::wall_clock()).div_euclid(86_400),
        key_kind: key_kind(facts.key),
        fingerprint: hexadecimal::text(&facts.fingerprint),
        chain_length: loaded.chain.len(),
        listeners: users.listeners,
        clusters: users.clusters,
        loaded_at: control.certificate_loaded_at(&facts.fingerprint).map(moment),
        staple: staple(control, source, loaded),
        error,
    }
}

fn staple(control: &Control, source: &Source, loaded: &Loaded) -> Staple {
    let facts = &loaded.facts;
    let unasked = unasked(source, loaded);
    let stapled = control.stapled(&facts.fingerprint).filter(|_| unasked.is_none());
    let answer = stapled.as_ref().and_then(|stapled| stapled.answer);
    Staple {
        state: match (&unasked, answer) {
            (Some(_), _) => "off",
            (None, None) => "waiting",
            (None, Some(_)) => "stapled",
        },
        responder: facts.ocsp_responder.clone(),
        must_staple: facts.must_staple,
        this_update: answer.map(|answer| moment(answer.this_update)),
        next_update: answer.and_then(|answer| answer.next_update).map(moment),
        asked_next: stapled.as_ref().map(|stapled| moment(stapled.asked_next)),
        error: unasked.or_else(|| stapled.and_then(|stapled| stapled.error)),
    }
}

fn revocations(material: &Material, wrong: impl Fn(Place) -> Option<Wrong>) -> Vec<Revocations> {
    let mut page = Vec::new();
    for (index, Found { source, found }) in material.revocations.iter().enumerate() {
        page.push(Revocations {
            file: text(source),
            lists: found.as_ref().map_or(0, Vec::len),
            next_update: found.as_deref().and_then(lists_end).map(moment),
            error: wrong(Place::Revocation(RevocationId(index as u32))),
        });
    }
    page
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn key_kind(kind: KeyKind) -> String {
    match kind {
        KeyKind::Rsa(bits) => return format!("RSA {bits}"),
        KeyKind::P256 => "ECDSA P-256",
        KeyKind::P384 => "ECDSA P-384",
        KeyKind::P521 => "ECDSA P-521",
        KeyKind::Ed25519 => "Ed25519",
        KeyKind::Other => "other",
    }
    .to_owned()
}
