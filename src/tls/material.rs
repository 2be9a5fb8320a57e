//! What TLS needs that is in files. Looked up when a configuration is to be run, and again when a
//! file changes; a plan that was only checked has none of it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use crate::tls::authorities;
use crate::tls::certificates::{self, Certificate, LoadError, Password, ShownTo, Source};
use crate::tls::files::Timed;
use crate::tls::settings::{AuthorityId, CertificateId, RevocationId};

#[derive(Clone, Debug, Default)]
pub struct Material {
    pub certificates: Vec<Found<Source, Certificate>>,
    pub authorities: Vec<Found<PathBuf, Vec<CertificateDer<'static>>>>,
    pub revocations: Vec<Found<PathBuf, Vec<CertificateRevocationListDer<'static>>>>,
    /// The authorities that the system trusts; empty when no cluster asks for them.
    pub system: Vec<CertificateDer<'static>>,
    /// Whether a cluster asks for them.
    pub asks_system: bool,
    /// Certificates that only endpoints see: nobody compares their names.
    pub for_endpoints: BTreeSet<CertificateId>,
    /// What was kept although its time is over: it was in use already.
    pub untimely: Vec<Missing>,
}

/// Where something is, and what was there.
#[derive(Clone, Debug)]
pub struct Found<S, T> {
    pub source: S,
    pub found: Option<T>,
}

/// Which of them could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Certificate(CertificateId),
    Authority(AuthorityId),
    Revocation(RevocationId),
    System,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    pub place: Place,
    pub error: LoadError,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Material {
    /// Reads every file. What is broken is `None` afterwards; what has expired as well, unless it is
    /// `used` already: the rest of a configuration is not to wait for it.
    pub fn look_up(&mut self, now: SystemTime, used: &Material) -> Vec<Missing> {
        let Material { certificates, authorities, revocations, system, .. } = self;
        certificates.iter_mut().for_each(|each| each.found = None);
        authorities.iter_mut().for_each(|each| each.found = None);
        revocations.iter_mut().for_each(|each| each.found = None);
        system.clear();
        self.read(now, used)
    }

    /// The same with what the files hold now. What is broken stays as it was.
    pub fn look_again(&self, now: SystemTime) -> (Material, Vec<Missing>) {
        let mut again = self.clone();
        let missing = again.read(now, self);
        (again, missing)
    }

    fn read(&mut self, now: SystemTime, used: &Material) -> Vec<Missing> {
        let (mut missing, mut untimely) = (Vec::new(), Vec::new());
        for (index, each) in self.certificates.iter_mut().enumerate() {
            let id = CertificateId(index as u32);
            let only_endpoints = self.for_endpoints.contains(&id);
            let shown_to = if only_endpoints { ShownTo::Endpoints } else { ShownTo::Clients };
            let result = certificates::timed_for(shown_to, &each.source, now);
            let result = timely(result, &used.certificates, Place::Certificate(id), &mut untimely);
            each.keep(result, Place::Certificate(id), &mut missing);
        }
        for (index, each) in self.authorities.iter_mut().enumerate() {
            let place = Place::Authority(AuthorityId(index as u32));
            each.keep(authorities::authorities(&each.source), place, &mut missing);
        }
        for (index, each) in self.revocations.iter_mut().enumerate() {
            let place = Place::Revocation(RevocationId(index as u32));
            let result = authorities::timed_lists(&each.source, now);
            each.keep(timely(result, &used.revocations, place, &mut untimely), place, &mut missing);
        }
        if self.asks_system {
            match authorities::system_authorities() {
                Ok(found) => self.system = found,
                Err(error) => missing.push(Missing { place: Place::System, error }),
            }
        }
        self.untimely = untimely;
        missing
    }

    /// Every file that it comes from, each once: those to watch.
    pub fn files(&self) -> Vec<&Path> {
        let mut files = BTreeSet::new();
        files.extend(self.certificates.iter().flat_map(|each| each.source.files()));
        files.extend(self.authorities.iter().map(|each| each.source.as_path()));
        files.extend(self.revocations.iter().map(|each| each.source.as_path()));
        files.into_iter().collect()
    }

    /// The files of one thing in it.
    pub fn files_of(&self, place: Place) -> Vec<&Path> {
        match place {
            Place::Certificate(id) => self.certificates[id.0 as usize].source.files(),
            Place::Authority(id) => vec![&self.authorities[id.0 as usize].source],
            Place::Revocation(id) => vec![&self.revocations[id.0 as usize].source],
            Place::System => Vec::new(),
        }
    }

    /// Whether anything in it is not what `other` has.
    pub fn changed(&self, other: &Material) -> bool {
        fn same<S: PartialEq, T: PartialEq>(one: &[Found<S, T>], other: &[Found<S, T>]) -> bool {
            let pairs = || one.iter().zip(other);
            one.len() == other.len()
                && pairs().all(|(a, b)| a.source == b.source && a.found == b.found)
        }
        !(same(&self.certificates, &other.certificates)
            && same(&self.authorities, &other.authorities)
            && same(&self.revocations, &other.revocations)
            && self.system == other.system)
    }

    /// What operators should know of certificates that are good.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        let found = self.certificates.iter().filter_map(|each| each.found.as_ref());
        found.flat_map(|certificate| certificate.warnings.iter().map(String::as_str))
    }
}

impl Source {
    fn files(&self) -> Vec<&Path> {
        let password = match &self.password {
            Some(Password::File(path)) => Some(path.as_path()),
            Some(Password::Given(_)) | None => None,
        };
        let named = [Some(self.cert.as_path()), self.key.as_deref(), password];
        named.into_iter().flatten().collect()
    }
}

/// What is not for now will do if it is in use already.
fn timely<S, T: PartialEq>(
    result: Result<Timed<T>, LoadError>,
    used: &[Found<S, T>],
    place: Place,
    untimely: &mut Vec<Missing>,
) -> Result<T, LoadError> {
    let timed = result?;
    let is_used = |found: &T| used.iter().any(|it| it.found.as_ref() == Some(found));
    match timed.untimely {
        Some(error) if is_used(&timed.found) => {
            untimely.push(Missing { place, error });
            Ok(timed.found)
        }
        Some(error) => Err(error),
        None => Ok(timed.found),
    }
}

impl<S, T> Found<S, T> {
    fn keep(&mut self, result: Result<T, LoadError>, place: Place, missing: &mut Vec<Missing>) {
        match result {
            Ok(found) => self.found = Some(found),
            Err(error) => missing.push(Missing { place, error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::test_pki::Pki;

    fn now() -> SystemTime {
        SystemTime::now()
    }

    fn found<S, T>(source: S) -> Found<S, T> {
        Found { source, found: None }
    }

    fn material(pki: &Pki) -> Material {
        let source = Source {
            cert: pki.path("leaf.pem"),
            key: Some(pki.path("leaf.key")),
            password: None,
            names: Vec::new(),
            ocsp: false,
        };
        Material {
            certificates: vec![found(source)],
            authorities: vec![found(pki.path("root.pem"))],
            ..Material::default()
        }
    }

    fn pki(test: &str) -> Pki {
        let pki = Pki::new(test);
        pki.root("root");
        pki.issue("leaf", "root", "ec", "subjectAltName=DNS:a.example");
        pki
    }

    #[test]
    fn a_broken_file_leaves_what_was_there_and_is_told() {
        let pki = pki("again");
        let mut first = material(&pki);
        assert_eq!(first.look_up(now(), &Material::default()), []);
        let (same, missing) = first.look_again(now());
        assert!(missing.is_empty() && !same.changed(&first) && !first.changed(&same));

        pki.issue("leaf", "root", "ec", "subjectAltName=DNS:b.example");
        pki.write("root.pem", "half of a fi");
        let (second, missing) = first.look_again(now());
        let [Missing { place: Place::Authority(AuthorityId(0)), error }] = missing.as_slice()
        else {
            panic!("{missing:?}")
        };
        assert_eq!(error.file, pki.path("root.pem"));
        assert!(second.changed(&first));
        let names = |material: &Material| {
            material.certificates[0].found.as_ref().unwrap().facts.dns_names.clone()
        };
        assert_eq!(
            (names(&first), names(&second)),
            (vec!["a.example".into()], vec!["b.example".into()])
        );
        assert_eq!(second.authorities[0].found, first.authorities[0].found);

        pki.write("leaf.key", "");
        let (third, missing) = second.look_again(now());
        assert_eq!(missing.len(), 2);
        assert!(!third.changed(&second));
    }

    #[test]
    fn what_has_expired_is_kept_where_it_is_in_use_and_taken_nowhere_else() {
        let pki = pki("untimely");
        pki.write("index", "");
        pki.write("number", "01");
        let ca =
            "[ca]\ndefault_ca=ca1\n[ca1]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\n";
        pki.write("ca.conf", ca);
        pki.openssl(
            "ca -config ca.conf -gencrl -crldays 3 -keyfile root.key -cert root.pem -out a.crl",
        );
        let mut first = material(&pki);
        first.revocations.push(found(pki.path("a.crl")));
        assert_eq!(first.look_up(now(), &Material::default()), []);
        let later = now() + std::time::Duration::from_secs(400 * 86_400);
        let mut begun = first.clone();
        let told = begun.look_up(later, &Material::default());
        assert_eq!(told.len(), 2, "nothing of it is in use: {told:?}");
        assert!(told.iter().all(|it| it.to_string().contains("expired on")), "{told:?}");
        let mut reloaded = first.clone();
        assert_eq!(reloaded.look_up(later, &first), []);
        assert_eq!(reloaded.untimely, told);
        let (same, missing) = first.look_again(later);
        assert!(missing.is_empty() && !same.changed(&first));
        // Another that has expired is no better than what is there.
        pki.issue("leaf", "root", "ec", "subjectAltName=DNS:b.example");
        let (same, missing) = first.look_again(later);
        assert!(missing.len() == 1 && !same.changed(&first), "{missing:?}");
        assert_eq!(first.look_again(now()).0.untimely, []);
    }

    #[test]
    fn what_is_broken_at_start_is_not_there() {
        let pki = pki("start");
        let mut material = material(&pki);
        material.look_up(now(), &Material::default());
        pki.write("leaf.pem", "");
        let missing = material.look_up(now(), &Material::default());
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].place, Place::Certificate(CertificateId(0)));
        assert!(missing[0].to_string().contains("leaf.pem`: it is empty"), "{}", missing[0]);
        assert!(material.certificates[0].found.is_none());
        assert!(material.authorities[0].found.is_some());
    }

    #[test]
    fn every_file_is_watched_once() {
        let pki = pki("files");
        let mut material = material(&pki);
        material.certificates[0].source.password = Some(Password::File(pki.path("password")));
        material.revocations.push(found(pki.path("root.pem")));
        let expected = ["leaf.key", "leaf.pem", "password", "root.pem"].map(|name| pki.path(name));
        assert_eq!(material.files(), expected);
    }

    #[test]
    fn the_systems_authorities_are_looked_up_when_asked_for() {
        let mut material = Material::default();
        assert!(
            material.look_up(now(), &Material::default()).is_empty() && material.system.is_empty()
        );
        material.asks_system = true;
        let missing = material.look_up(now(), &Material::default());
        assert_eq!(missing.is_empty(), !material.system.is_empty(), "{missing:?}");
    }
}
