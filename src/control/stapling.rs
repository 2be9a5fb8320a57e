//! OCSP stapling: responders are asked about the certificates that listeners show, and what they
//! answer is given to the cores until it expires. Best effort: nothing waits for a responder, and a
//! certificate without a staple is shown without.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;

use crate::control::certificate_watch::until;
use crate::control::{Control, first};
use crate::engine;
use crate::http1::blocking_client::jitter;
use crate::limits;
use crate::plan::HttpUrl;
use crate::tls::certificates::{Certificate, Source};
use crate::tls::files::written;
use crate::tls::material::Material;
use crate::tls::ocsp::{self, Answer, Status};
use crate::tls::responder::{self, NoAnswer};
use crate::tls::setup::Staples;

type Fingerprint = [u8; 32];

/// What is known of each certificate that is asked about.
#[derive(Default)]
pub(super) struct Stapling(RefCell<HashMap<Fingerprint, Stapled>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stapled {
    /// That is stapled now.
    pub(crate) answer: Option<Answer>,
    /// It is not stapled any longer than that.
    pub(crate) until: SystemTime,
    pub(crate) asked_next: SystemTime,
    asked_last: SystemTime,
    /// Of the last question.
    pub(crate) error: Option<String>,
    /// Since the last good answer.
    failures: u32,
}

impl Stapled {
    fn new(now: SystemTime) -> Stapled {
        let (answer, error, asked_last) = (None, None, SystemTime::UNIX_EPOCH);
        Stapled { answer, until: now, asked_next: now, asked_last, error, failures: 0 }
    }

    /// Asked again in the middle of what is left.
    fn answered(answer: Answer, now: SystemTime) -> Stapled {
        let (wait, until) = match answer.next_update {
            Some(next) => {
                let left = next.duration_since(now).unwrap_or_default();
                (left / 2, next)
            }
            None => {
                let end = answer.this_update + limits::OCSP_UNDATED_KEPT;
                (limits::OCSP_REFRESH_UNDATED, end)
            }
        };
        let wait = wait.clamp(limits::OCSP_REFRESH_MIN, limits::OCSP_REFRESH_MAX);
        let (answer, asked_next) = (Some(answer), now + wait);
        Stapled { answer, until, asked_next, asked_last: now, error: None, failures: 0 }
    }

    /// An older one may be from before a revocation.
    fn is_newer_than(&self, answer: &Answer) -> bool {
        self.answer.is_some_and(|known| known.this_update > answer.this_update)
    }

    /// What a responder has said, or why that is of no use.
    fn hear(&mut self, read: Result<Answer, String>, now: SystemTime) -> Heard {
        let error = match read {
            Ok(answer) if !self.is_newer_than(&answer) => {
                let is_news = self.answer.is_none() || self.error.is_some();
                *self = Stapled::answered(answer, now);
                return Heard::Good { is_news };
            }
            Ok(_) => "its answer is older than the one before".to_owned(),
            Err(error) => error,
        };
        let is_revoked = error.starts_with(REVOKED);
        let is_news = self.failed(error.clone(), now);
        if is_revoked {
            self.answer = None;
        }
        Heard::Bad { error, is_news, is_revoked }
    }

    /// Whether the error is another than the last.
    fn failed(&mut self, error: String, now: SystemTime) -> bool {
        let doubled = limits::OCSP_RETRY_MIN * 2_u32.saturating_pow(self.failures.min(16));
        self.asked_next = now + doubled.min(limits::OCSP_RETRY_MAX);
        self.asked_last = now;
        self.failures = self.failures.saturating_add(1);
        let error = Some(error);
        std::mem::replace(&mut self.error, error.clone()) != error
    }

    /// What is too far away was meant by a clock that has been set back since.
    fn is_asked(&self, now: SystemTime) -> bool {
        self.asked_next <= now || self.asked_next > now + 2 * limits::OCSP_REFRESH_MAX
    }

    fn has_expired(&self, now: SystemTime) -> bool {
        self.answer.is_some() && self.until <= now
    }

    /// Nobody is shown it any more. A responder that has answered is asked at once for the next:
    /// before that it may have had none.
    fn expire(&mut self, now: SystemTime) {
        self.answer = None;
        if self.error.is_none() {
            self.asked_next = now.max(self.asked_last + limits::OCSP_RETRY_MIN);
        }
    }

    /// When something is to be done.
    fn due(&self) -> SystemTime {
        if self.answer.is_some() { self.asked_next.min(self.until) } else { self.asked_next }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// News: there was no staple, or the question before had failed.
    Good { is_news: bool },
    /// The staple before stays, unless the certificate is revoked.
    Bad { error: String, is_news: bool, is_revoked: bool },
}

const REVOKED: &str = "it was revoked";

/// A certificate that a responder can be asked about.
#[derive(Clone)]
struct Subject {
    fingerprint: Fingerprint,
    url: HttpUrl,
    leaf: CertificateDer<'static>,
    issuer: CertificateDer<'static>,
    file: String,
    must_staple: bool,
}

impl Subject {
    fn read(&self, answer: &[u8], now: SystemTime) -> Result<Answer, String> {
        let read = ocsp::read(answer, &self.leaf, &self.issuer, now);
        let answer = read.map_err(|refused| refused.to_string())?;
        match answer.status {
            Status::Good => Ok(answer),
            Status::Revoked { at } => Err(format!("{REVOKED} on {}", written(at))),
        }
    }
}

/// Why a responder is not asked, or where it is and who has issued the certificate.
fn askable(
    source: &Source,
    certificate: &Certificate,
) -> Result<(HttpUrl, CertificateDer<'static>), String> {
    if !source.ocsp {
        return Err("`ocsp` is off".to_owned());
    }
    let Some(url) = &certificate.facts.ocsp_responder else {
        return Err("the certificate names no responder".to_owned());
    };
    let url = responder::url(url)?;
    let (leaf, rest) = certificate.chain.split_first().ok_or("there is no certificate")?;
    let issuer = rest.iter().find(|issuer| ocsp::request(leaf, issuer).is_ok());
    let issuer = issuer.ok_or("who has issued it is not in its file: add that certificate")?;
    Ok((url, issuer.clone()))
}

/// Each once.
fn subjects(material: &Material) -> Vec<Subject> {
    let mut seen = HashSet::new();
    let found = material.certificates.iter().filter_map(|each| {
        let certificate = each.found.as_ref()?;
        let facts = &certificate.facts;
        if seen.contains(&facts.fingerprint) {
            return None;
        }
        let (url, issuer) = askable(&each.source, certificate).ok()?;
        seen.insert(facts.fingerprint);
        Some(Subject {
            fingerprint: facts.fingerprint,
            url,
            leaf: certificate.chain.first()?.clone(),
            issuer,
            file: each.source.cert.display().to_string(),
            must_staple: facts.must_staple,
        })
    });
    found.collect()
}

/// Of staples that another process gave, those that can be stapled here. Nothing is believed that
/// is not verified.
pub(super) fn still_good(mut staples: Staples, material: &Material, now: SystemTime) -> Staples {
    let mut good = Staples::new();
    if staples.is_empty() {
        return good;
    }
    for subject in subjects(material) {
        let staple = staples.remove(&subject.fingerprint);
        if let Some(staple) = staple.filter(|staple| subject.read(staple, now).is_ok()) {
            good.insert(subject.fingerprint, staple);
        }
    }
    good
}

/// What is known of certificates that were not asked about before; nothing is kept of others. True:
/// of those that were stapled there is one that is good no more.
fn begin(
    subjects: &[Subject],
    known: &mut HashMap<Fingerprint, Stapled>,
    staples: &mut Staples,
    now: SystemTime,
) -> bool {
    let wanted: HashSet<Fingerprint> = subjects.iter().map(|it| it.fingerprint).collect();
    known.retain(|fingerprint, _| wanted.contains(fingerprint));
    // Nobody shows the others any more: cores forget them when they get something new.
    staples.retain(|fingerprint, _| wanted.contains(fingerprint));
    let before = staples.len();
    for subject in subjects {
        if known.contains_key(&subject.fingerprint) {
            continue;
        }
        // Of the process before this one, which may have asked long ago.
        let inherited = staples.get(&subject.fingerprint);
        let read = inherited.and_then(|staple| subject.read(staple, now).ok());
        if read.is_none() {
            staples.remove(&subject.fingerprint); // it may have ended while this one started
        }
        let begun = read.map_or(Stapled::new(now), |answer| Stapled::answered(answer, now));
        known.insert(subject.fingerprint, begun);
    }
    staples.len() != before
}

/// As many as are passed on to the next process.
pub(super) fn to_pass_on(staples: Staples) -> Vec<(Fingerprint, Vec<u8>)> {
    let mut left = limits::OCSP_PASSED_ON_BYTES_MAX;
    let fits = |(_, staple): &(Fingerprint, Vec<u8>)| {
        let rest = left.checked_sub(staple.len());
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    staples.into_iter().filter(fits).collect()
}

/// For ever. Sleeps while no certificate has a responder, and while the process ends.
pub(super) async fn keep_stapled(control: Rc<Control>) {
    loop {
        until(&control, |control| !control.draining.get()).await;
        let turn = control.tls.material_turn();
        let material = control.tls.material();
        let subjects = control.beside(move || subjects(&material)).await.unwrap_or_default();
        if control.begin_stapling(&subjects) {
            control.renew_tls_or_say().await;
        }
        while control.tls.material_turn() == turn && !control.draining.get() {
            control.ask_responders(&subjects, turn).await;
            let new = until(&control, |control| control.tls.material_turn() != turn);
            first(new, engine::sleep(control.stapling_left())).await;
        }
    }
}

impl Control {
    /// What is stapled, and when it is asked for, does not change with a reload. True: cores show
    /// something that is not good any more.
    fn begin_stapling(&self, subjects: &[Subject]) -> bool {
        let (mut staples, mut known) = (self.tls.staples(), self.tls.stapling.0.borrow_mut());
        let before = staples.len();
        let is_outdated = begin(subjects, &mut known, &mut staples, engine::wall_clock());
        if staples.len() != before {
            self.tls.change_staples(|known| *known = staples);
        }
        is_outdated
    }

    /// How long it is until something is due.
    fn stapling_left(&self) -> Duration {
        let now = engine::wall_clock();
        let known = self.tls.stapling.0.borrow();
        let due = known.values().map(Stapled::due).min();
        let left = due.map(|due| due.duration_since(now).unwrap_or_default());
        left.unwrap_or(Duration::MAX).min(limits::OCSP_LOOK_INTERVAL)
    }

    /// Those that are due, one after the other; cores get what has come now and then. A responder
    /// that does not answer is not asked about the next certificate as well.
    async fn ask_responders(self: &Rc<Self>, subjects: &[Subject], turn: u64) {
        let mut away: HashMap<&str, NoAnswer> = HashMap::new();
        let (mut is_changed, mut renewed_at) = (self.drop_expired(subjects), engine::now());
        for subject in subjects {
            let now = engine::wall_clock();
            let is_asked = |known: &Stapled| known.is_asked(now);
            if !self.tls.stapling.0.borrow().get(&subject.fingerprint).is_some_and(is_asked) {
                continue;
            }
            if self.draining.get() {
                break;
            }
            // Those before it may have taken long.
            is_changed |= self.drop_expired(subjects);
            let answer = match away.get(subject.url.authority.as_str()) {
                Some(reason) => Err(reason.clone()),
                None => self.ask_responder(subject).await,
            };
            if self.tls.material_turn() != turn {
                break; // about a certificate that may be shown no more
            }
            if let Err(reason @ NoAnswer::Away(_)) = &answer {
                away.insert(&subject.url.authority, reason.clone());
            }
            is_changed |= self.take_answer(subject, answer);
            if is_changed && engine::now() - renewed_at >= limits::OCSP_RENEW_INTERVAL {
                self.renew_tls_or_say().await;
                (is_changed, renewed_at) = (false, engine::now());
            }
        }
        if is_changed {
            self.renew_tls_or_say().await;
        }
    }

    async fn ask_responder(&self, subject: &Subject) -> Result<Vec<u8>, NoAnswer> {
        let subject = subject.clone();
        let asking = move || {
            let question = ocsp::request(&subject.leaf, &subject.issuer);
            let question = question.map_err(|wrong| NoAnswer::Wrong(wrong.to_string()))?;
            responder::ask(&subject.url, &question, limits::OCSP_TIMEOUT, engine::precise_now)
        };
        let panicked = || Err(NoAnswer::Wrong("asking it has panicked".to_owned()));
        self.beside(asking).await.unwrap_or_else(panicked)
    }

    /// Whether cores are to be told.
    fn take_answer(&self, subject: &Subject, answer: Result<Vec<u8>, NoAnswer>) -> bool {
        let now = engine::wall_clock();
        let Subject { fingerprint, url, file, .. } = subject;
        let (read, bytes) = match answer {
            Ok(bytes) => (subject.read(&bytes, now), bytes),
            Err(NoAnswer::Away(error) | NoAnswer::Wrong(error)) => (Err(error), Vec::new()),
        };
        let mut known = self.tls.stapling.0.borrow_mut();
        let Some(state) = known.get_mut(fingerprint) else { return false };
        let heard = state.hear(read, now);
        state.asked_next += jitter(state.asked_next.duration_since(now).unwrap_or_default());
        match heard {
            Heard::Good { is_news } => {
                if is_news {
                    let until = state.answer.and_then(|answer| answer.next_update);
                    let until = until.map_or_else(|| "(not said)".to_owned(), written);
                    log::info!("`{file}` is stapled with an answer of {url}, good until {until}");
                }
                self.tls.change_staples(|staples| drop(staples.insert(*fingerprint, bytes)));
            }
            Heard::Bad { error, is_news, is_revoked } => {
                if is_news {
                    tell_failure(subject, &error, state.answer.is_some());
                }
                if !is_revoked || !self.tls.has_staple(fingerprint) {
                    return false;
                }
                self.tls.change_staples(|staples| drop(staples.remove(fingerprint)));
            }
        }
        true
    }

    /// Whether there were any.
    fn drop_expired(&self, subjects: &[Subject]) -> bool {
        let now = engine::wall_clock();
        let (mut known, mut is_changed) = (self.tls.stapling.0.borrow_mut(), false);
        for subject in subjects {
            let Some(state) = known.get_mut(&subject.fingerprint) else { continue };
            if state.has_expired(now) {
                let (file, url) = (&subject.file, &subject.url);
                log::warn!("the staple of `{file}` has expired, and {url} has given no newer one");
                state.expire(now);
                self.tls.change_staples(|staples| drop(staples.remove(&subject.fingerprint)));
                is_changed = true;
            }
        }
        is_changed
    }

    /// Of each certificate that is stapled, or was to be.
    pub(crate) fn stapled(&self, fingerprint: &[u8; 32]) -> Option<Stapled> {
        self.tls.stapling.0.borrow().get(fingerprint).cloned()
    }
}

fn tell_failure(subject: &Subject, error: &str, is_stapled: bool) {
    let Subject { file, url, must_staple, .. } = subject;
    let kept = if is_stapled { "; the answer before stays until it expires" } else { "" };
    if *must_staple && !is_stapled {
        log::error!(
            "`{file}` is only good with a staple (RFC 7633) and has none, so clients refuse it: \
             {url}: {error}"
        );
    } else {
        log::warn!("no staple for `{file}` from {url}: {error}{kept}");
    }
}

/// Why a certificate is not asked about; `None`: it is.
pub(crate) fn unasked(source: &Source, certificate: &Certificate) -> Option<String> {
    askable(source, certificate).err()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn answer(next_update: Option<SystemTime>) -> Answer {
        Answer { status: Status::Good, this_update: now() - HOUR, next_update }
    }

    #[test]
    fn an_answer_is_asked_for_again_in_the_middle_of_what_is_left_of_it() {
        for (left, wait) in [
            (9 * MINUTE, 5 * MINUTE),
            (2 * HOUR, HOUR),
            (47 * HOUR, 47 * HOUR / 2),
            (168 * HOUR, 24 * HOUR),
        ] {
            let stapled = Stapled::answered(answer(Some(now() + left)), now());
            assert_eq!(stapled.asked_next, now() + wait, "{left:?}");
            assert_eq!(stapled.until, now() + left);
            assert!(!stapled.has_expired(now()) && stapled.has_expired(now() + left));
            assert_eq!(stapled.due(), now() + wait.min(left));
        }
    }

    /// Some responders have no newer answer before the end of the last one.
    #[test]
    fn who_has_answered_is_asked_again_when_the_answer_ends_and_not_minutes_later() {
        for (left, wait) in [(4 * MINUTE, 4 * MINUTE), (MINUTE, MINUTE), (MINUTE / 6, MINUTE)] {
            let mut stapled = Stapled::answered(answer(Some(now() + left)), now());
            assert_eq!(stapled.due(), now() + left);
            stapled.expire(stapled.until);
            assert_eq!((stapled.answer, stapled.due()), (None, now() + wait), "{left:?}");
        }
        let mut away = Stapled::answered(answer(Some(now() + HOUR)), now());
        assert!((0..9).filter(|_| away.failed("it is away".to_owned(), now())).count() == 1);
        away.expire(now() + HOUR / 2);
        assert_eq!(away.due(), now() + HOUR, "it is asked less and less");
    }

    #[test]
    fn a_certificate_that_is_revoked_loses_the_good_staple_that_is_in_use() {
        let mut stapled = Stapled::answered(answer(Some(now() + HOUR)), now());
        let bad = |error: &str, is_news, is_revoked| {
            let error = error.to_owned();
            Heard::Bad { error, is_news, is_revoked }
        };
        let heard = stapled.hear(Err("it is away".to_owned()), now());
        assert_eq!(heard, bad("it is away", true, false));
        assert!(stapled.answer.is_some());
        let older = Answer { this_update: now() - 2 * HOUR, ..answer(None) };
        let heard = stapled.hear(Ok(older), now());
        assert_eq!(heard, bad("its answer is older than the one before", true, false));
        assert!(stapled.answer.is_some());
        let revoked = "it was revoked on 2027-01-15T08:00:00.000Z";
        assert_eq!(stapled.hear(Err(revoked.to_owned()), now()), bad(revoked, true, true));
        assert_eq!(stapled.answer, None);
        assert_eq!(stapled.hear(Err(revoked.to_owned()), now()), bad(revoked, false, true));
        // Some can be held for a while and let go again (RFC 5280 section 5.3.1).
        let good = answer(Some(now() + HOUR));
        assert_eq!(stapled.hear(Ok(good), now()), Heard::Good { is_news: true });
        assert_eq!(stapled.hear(Ok(good), now()), Heard::Good { is_news: false });
    }

    #[test]
    fn an_answer_without_an_end_is_renewed_every_hour_and_kept_for_a_day() {
        let stapled = Stapled::answered(answer(None), now());
        assert_eq!(stapled.asked_next, now() + HOUR);
        assert!(!stapled.has_expired(now() + 22 * HOUR), "it was made an hour ago");
        assert!(stapled.has_expired(now() + 23 * HOUR));
    }

    #[test]
    fn a_responder_that_fails_is_asked_less_and_less_and_its_last_answer_is_kept() {
        let mut stapled = Stapled::answered(answer(Some(now() + 24 * HOUR)), now());
        let mut waits = Vec::new();
        for _ in 0..9 {
            stapled.failed("it is away".to_owned(), now());
            waits.push(stapled.asked_next.duration_since(now()).unwrap().as_secs() / 60);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(stapled.answer.is_some());
        assert!(!stapled.failed("it is away".to_owned(), now()), "told once");
        assert!(stapled.failed("it is mad".to_owned(), now()));
        assert!(!stapled.is_asked(now()) && stapled.is_asked(now() + HOUR));
        assert!(stapled.is_asked(now() - 24 * 365 * HOUR), "the clock was set back");
        stapled = Stapled::answered(answer(None), now());
        assert_eq!(stapled.until, now() - HOUR + limits::OCSP_UNDATED_KEPT, "of its own making");
        let older = Answer { this_update: now() - 2 * HOUR, ..answer(None) };
        assert!(stapled.is_newer_than(&older) && !stapled.is_newer_than(&answer(None)));
        assert!(stapled.failed("it is mad".to_owned(), now()), "and again after it was well");
        assert_eq!(stapled.asked_next, now() + MINUTE);
    }

    #[test]
    fn a_staple_that_is_good_no_more_when_this_process_begins_is_shown_no_longer() {
        let subject = |mark: u8| Subject {
            fingerprint: [mark; 32],
            url: responder::url("http://ocsp.example/").unwrap(),
            leaf: CertificateDer::from(vec![]),
            issuer: CertificateDer::from(vec![]),
            file: String::new(),
            must_staple: false,
        };
        let (mut known, staple) = (HashMap::new(), vec![1]);
        let mut staples = Staples::from([([1; 32], staple.clone()), ([9; 32], staple)]);
        let subjects = [subject(1), subject(2)];
        assert!(begin(&subjects, &mut known, &mut staples, now()));
        assert!(staples.is_empty(), "one has ended, the other is nobody's");
        assert!(subjects.iter().all(|it| known[&it.fingerprint].is_asked(now())));
        staples.insert([1; 32], vec![2]);
        assert!(!begin(&subjects, &mut known, &mut staples, now()), "that came meanwhile");
        assert_eq!(staples.len(), 1);
    }

    #[test]
    fn what_does_not_fit_is_not_passed_on() {
        let one = |mark: u8, length| ([mark; 32], vec![mark; length]);
        let most = limits::OCSP_PASSED_ON_BYTES_MAX;
        let staples = Staples::from([one(1, most / 2), one(2, most), one(3, most / 2)]);
        let passed: usize = to_pass_on(staples).iter().map(|(_, staple)| staple.len()).sum();
        assert!((most / 2..=most).contains(&passed), "{passed}");
        let none = crate::tls::material::Material::default();
        assert!(still_good(Staples::from([one(1, 9)]), &none, now()).is_empty());
    }
}
