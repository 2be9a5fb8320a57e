//! Certificates in use, as operators see them: which have expired, who shows them, and how long
//! they last. One that expires while it is in use is shown all the same: clients that look are told
//! by it what is wrong, and nothing else is there to show.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateRevocationListDer;

pub(crate) use crate::control::certificate_watch::Broken;
use crate::control::certificate_watch::until;
pub(crate) use crate::control::stapling::unasked;
use crate::control::{Control, first};
use crate::engine::{self, Shared};
use crate::limits;
use crate::telemetry::tls_metrics::{Lasting, TlsNumbers};
use crate::tls::authorities::list_times;
use crate::tls::certificates::{Certificate, RENEW_CHAIN};
use crate::tls::files::written;
use crate::tls::material::Material;
use crate::tls::settings::{CertificateId, RevocationId};

/// Who shows a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Users {
    pub(crate) listeners: Vec<String>,
    pub(crate) clusters: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Lasting,
    Ending,
    Expired,
}

impl Phase {
    /// `warned`: as long before its end.
    fn at(not_after: SystemTime, warned: Duration, now: SystemTime) -> Phase {
        match not_after.duration_since(now) {
            Err(_) => Phase::Expired,
            Ok(left) if left < warned => Phase::Ending,
            Ok(_) => Phase::Lasting,
        }
    }

    /// When the next one begins.
    fn ends_at(self, not_after: SystemTime, warned: Duration) -> Option<SystemTime> {
        match self {
            Phase::Lasting => not_after.checked_sub(warned),
            Phase::Ending => Some(not_after),
            Phase::Expired => None,
        }
    }
}

/// What comes to its end while it is in use.
struct Mortal<'m> {
    kind: Kind,
    file: &'m Path,
    not_after: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// By the leaf's fingerprint, and its place in the chain: the leaf's is 0.
    Certificate([u8; 32], usize),
    /// Revocation lists of one file.
    Lists(RevocationId),
}

impl Mortal<'_> {
    fn warned(&self) -> Duration {
        match self.kind {
            Kind::Certificate(..) => limits::CERTIFICATE_EXPIRY_WARNING,
            Kind::Lists(_) => limits::REVOCATIONS_EXPIRY_WARNING,
        }
    }

    fn phase(&self, now: SystemTime) -> Phase {
        Phase::at(self.not_after, self.warned(), now)
    }

    /// The same one is not read as another thing that has its place.
    fn key(&self) -> (Kind, SystemTime) {
        (self.kind, self.not_after)
    }
}

fn mortals(material: &Material) -> impl Iterator<Item = Mortal<'_>> {
    let found = material.certificates.iter().filter_map(|each| Some((each, each.found.as_ref()?)));
    let certificates = found.flat_map(|(each, certificate)| {
        certificate.ends().map(|(place, not_after)| {
            let kind = Kind::Certificate(certificate.facts.fingerprint, place);
            Mortal { kind, file: &each.source.cert, not_after }
        })
    });
    let lists = material.revocations.iter().enumerate().filter_map(|(index, each)| {
        let kind = Kind::Lists(RevocationId(index as u32));
        Some(Mortal { kind, file: &each.source, not_after: lists_end(each.found.as_ref()?)? })
    });
    certificates.chain(lists)
}

/// Of the one that ends first.
pub(crate) fn lists_end(lists: &[CertificateRevocationListDer<'_>]) -> Option<SystemTime> {
    lists.iter().filter_map(|list| list_times(list).ok()).map(|(_, until)| until).min()
}

impl Control {
    /// What is in use of the plan in force, which may be newer than it was compiled with.
    pub(crate) fn tls_material(&self) -> Shared<Material> {
        self.tls.material()
    }

    /// Of the material's certificates, in its order.
    pub(crate) fn certificate_users(&self) -> Vec<Users> {
        let plan = self.plan();
        let mut users = vec![Users::default(); self.tls.material().certificates.len()];
        let mut shows = |id: CertificateId, name: &str, is_listener: bool| {
            let Some(users) = users.get_mut(id.0 as usize) else { return };
            let names = if is_listener { &mut users.listeners } else { &mut users.clusters };
            names.push(name.to_owned());
        };
        for listener in &plan.listeners {
            let ids = listener.tls.iter().flat_map(|tls| &tls.certificates);
            ids.for_each(|id| shows(*id, &listener.name, true));
        }
        for cluster in &plan.clusters {
            let id = cluster.tls.as_ref().and_then(|tls| tls.certificate);
            id.into_iter().for_each(|id| shows(id, &cluster.name, false));
        }
        users
    }

    /// Files of those that are in use all the same, revocation lists among them.
    pub(crate) fn expired_certificates(&self, now: SystemTime) -> Vec<PathBuf> {
        let material = self.tls.material();
        let expired = mortals(&material).filter(|it| it.phase(now) == Phase::Expired);
        let mut files: Vec<PathBuf> = expired.map(|it| it.file.to_owned()).collect();
        files.dedup(); // of one chain
        files
    }

    /// For the metrics page.
    pub(crate) fn tls_numbers(&self) -> TlsNumbers {
        let now = engine::wall_clock();
        let material = self.tls.material();
        let mut numbers = TlsNumbers {
            ticket_key_age: self.ticket_key_age(),
            broken_files: self.broken_files_total(),
            ..TlsNumbers::default()
        };
        let lists = mortals(&material).filter(|it| matches!(it.kind, Kind::Lists(_)));
        let lists =
            lists.map(|it| (it.file.display().to_string(), seconds_until(it.not_after, now)));
        numbers.revocation_lists = lists.collect();
        let mut seen = HashSet::new();
        for each in &material.certificates {
            let Some(certificate) = &each.found else { continue };
            let lasting = |end| Lasting {
                certificate: each.source.cert.display().to_string(),
                name: name(certificate),
                seconds: seconds_until(end, now),
            };
            let first = certificate.ends().map(|(_, end)| end).min();
            let of_certificate = lasting(first.unwrap_or(certificate.facts.not_after));
            // One file may be named twice, with other hosts.
            if !seen.insert((&each.source.cert, of_certificate.name.clone())) {
                continue;
            }
            numbers.certificates.push(of_certificate);
            let stapled = self.stapled(&certificate.facts.fingerprint);
            if let Some(stapled) = stapled.filter(|stapled| stapled.answer.is_some()) {
                numbers.staples.push(lasting(stapled.until));
            }
        }
        numbers
    }
}

/// What operators know it by: the first host that it is for, or whom it is about.
fn name(certificate: &Certificate) -> String {
    let facts = &certificate.facts;
    let first = facts.dns_names.first().cloned();
    let name = first.or_else(|| facts.addresses.first().map(ToString::to_string));
    name.or_else(|| facts.common_name.clone()).unwrap_or_else(|| facts.subject.clone())
}

/// Less than 0 after it.
pub(crate) fn seconds_until(end: SystemTime, now: SystemTime) -> i64 {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match end.duration_since(now) {
        Ok(left) => seconds(left),
        Err(past) => -seconds(past.duration()),
    }
}

/// Tells of certificates that come to their end while they are in use, for ever.
pub(super) async fn expire(control: Rc<Control>) {
    let mut known: HashMap<(Kind, SystemTime), Phase> = HashMap::new();
    loop {
        let (turn, now) = (control.tls.material_turn(), engine::wall_clock());
        let material = control.tls.material();
        let (mut phases, mut next, mut is_news) = (HashMap::new(), None, false);
        for it in mortals(&material) {
            let phase = it.phase(now);
            let before = known.get(&it.key()).copied();
            // What it was when it was read has been said then.
            if before.is_some_and(|before| before != phase) {
                control.tell_phase(&it, phase);
                is_news = true;
            }
            phases.insert(it.key(), phase);
            next = phase.ends_at(it.not_after, it.warned()).into_iter().chain(next).min();
        }
        known = phases;
        if is_news {
            control.publish_health();
        }
        let changed = until(&control, |control| control.tls.material_turn() != turn);
        match next {
            None => changed.await,
            Some(next) => {
                let left = next.duration_since(now).unwrap_or_default() + Duration::from_secs(1);
                let pause = left.min(limits::CERTIFICATE_EXPIRY_LOOK_INTERVAL);
                first(changed, engine::sleep(pause)).await;
            }
        }
    }
}

impl Control {
    fn tell_phase(&self, it: &Mortal<'_>, phase: Phase) {
        let (end, file) = (written(it.not_after), &it.file.display().to_string());
        let (which, though, cure) = match it.kind {
            Kind::Certificate(_, 0) => (String::new(), "and is shown all the same", "renew it"),
            Kind::Certificate(_, place) => {
                let which = format!("certificate {} in ", place + 1);
                (which, "and is shown all the same", RENEW_CHAIN)
            }
            Kind::Lists(_) => {
                let though = "and is used all the same: whoever it is asked about is refused";
                (String::new(), though, "renew it")
            }
        };
        match phase {
            // The clock was set back.
            Phase::Lasting => {}
            Phase::Ending => {
                log::warn!("{which}`{file}` expires on {end}: {cure}");
                self.tell_health(file, "expires", &end);
            }
            Phase::Expired => {
                log::error!("{which}`{file}` has expired on {end}, {though}: {cure}");
                self.tell_health(file, "expired", &end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::tls::certificates::Source;
    use crate::tls::material::Found;
    use crate::tls::test_pki::Pki;

    #[test]
    fn the_end_of_an_intermediate_is_told_of_and_that_of_a_root_is_not() {
        let pki = Pki::new("mortals");
        pki.root("root");
        pki.issue("inter", "root", "ec", "basicConstraints=critical,CA:true");
        pki.openssl("x509 -req -in inter.csr -CA root.pem -CAkey root.key -days 30 -out brief.pem");
        pki.issue("leaf", "inter", "ec", "subjectAltName=DNS:shop.example");
        let cert = pki.join("chain.pem", &["leaf.pem", "brief.pem", "root.pem"]);
        let (key, names) = (Some(pki.path("leaf.key")), Vec::new());
        let source = Source { cert, key, password: None, names, ocsp: false };
        let certificates = vec![Found { source, found: None }];
        let mut material = Material { certificates, ..Material::default() };
        let now = SystemTime::now();
        assert_eq!(material.look_up(now, &Material::default()), []);
        let day = Duration::from_secs(86_400);
        let phases = |now| {
            let phase = |it: Mortal<'_>| match it.kind {
                Kind::Certificate(_, place) => (place, it.phase(now)),
                Kind::Lists(_) => panic!("there are none"),
            };
            mortals(&material).map(phase).collect::<Vec<_>>()
        };
        assert_eq!(phases(now), [(0, Phase::Lasting), (1, Phase::Lasting)]);
        assert_eq!(phases(now + 20 * day), [(0, Phase::Lasting), (1, Phase::Ending)]);
        assert_eq!(phases(now + 31 * day), [(0, Phase::Lasting), (1, Phase::Expired)]);
    }

    #[test]
    fn the_end_of_a_certificate_is_told_of_before_and_after() {
        let day = Duration::from_secs(86_400);
        let end = UNIX_EPOCH + 20_000 * day;
        for (now, phase) in [
            (end - 15 * day, Phase::Lasting),
            (end - 13 * day, Phase::Ending),
            (end - Duration::from_secs(1), Phase::Ending),
            (end + Duration::from_secs(1), Phase::Expired),
        ] {
            assert_eq!(Phase::at(end, 14 * day, now), phase);
        }
        assert_eq!(Phase::Lasting.ends_at(end, 14 * day), Some(end - 14 * day));
        assert_eq!(Phase::Ending.ends_at(end, 14 * day), Some(end));
        assert_eq!(Phase::Expired.ends_at(end, 14 * day), None);
        assert_eq!(seconds_until(end, end - day), 86_400);
        assert_eq!(seconds_until(end, end + day), -86_400);
    }
}
