//! Files of certificates, keys, authorities and revocation lists, read again when they change.
//! Whatever is right in them goes to the cores, connections stay as they are; what is broken leaves
//! what was there before in use, and is complained about once.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use crate::control::file_watch::{quiet, walk};
use crate::control::overdue::Slots;
use crate::control::{Control, Either, first, overdue, reload};
use crate::engine::{self, Shared, Watcher};
use crate::limits;
use crate::telemetry::audit_log::{Event, Outcome, Record};
use crate::tls::files::{contents, written};
use crate::tls::material::{Found, Material, Missing, Place};

/// What became of the files.
#[derive(Default)]
pub(super) struct Watched {
    broken: RefCell<Vec<Broken>>,
    /// Why what was read last could not be put to use, although each file is right.
    unusable: RefCell<Option<String>>,
    failures: Cell<u64>,
    /// By the fingerprint of a certificate in use: since when.
    loaded: RefCell<HashMap<[u8; 32], SystemTime>>,
    /// For whoever asks while they are being read: what is read then may be older.
    asked: RefCell<Option<Asked>>,
    running: Cell<bool>,
    slots: Slots<{ limits::CERTIFICATES_OVERDUE_MAX }>,
}

/// A run that waits for the one before it to end; whoever asks until then shares it.
struct Asked {
    who: String,
    outcome: Sighting,
}

/// `None` until it is there.
type Sighting = Rc<RefCell<Option<Seen>>>;

/// What is wrong in files, with stamps of what they hold.
type Stamped = Vec<(Missing, u64)>;

#[derive(Clone)]
struct Seen {
    /// `None`: they could not be looked at.
    missing: Option<Stamped>,
    /// Of the material that names them.
    turn: u64,
}

const FILE_CHANGE: &str = "file change";
const NAME: &str = "the files of certificates";

/// What is not in use, because it is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) place: Place,
    pub(crate) error: String,
    pub(crate) since: SystemTime,
    /// Of what the files hold.
    stamp: u64,
}

impl Watched {
    pub(super) fn note_loaded(&self, material: &Material, now: SystemTime) {
        let found = material.certificates.iter().filter_map(|each| each.found.as_ref());
        let mut before = self.loaded.borrow_mut();
        let since = found.map(|certificate| certificate.facts.fingerprint);
        let since = since.map(|it| (it, before.get(&it).copied().unwrap_or(now))).collect();
        *before = since;
    }

    /// Everything that was broken is read anew.
    pub(super) fn forget_broken(&self) {
        self.broken.borrow_mut().clear();
        self.unusable.replace(None);
    }

    /// Shares the run that waits, if there is one.
    fn ask(&self, who: &str) -> Sighting {
        let mut asked = self.asked.borrow_mut();
        let new = || Asked { who: who.to_owned(), outcome: Sighting::default() };
        let asked = asked.get_or_insert_with(new);
        if asked.who == FILE_CHANGE {
            who.clone_into(&mut asked.who); // rather whoever wants it than what would happen anyway
        }
        Rc::clone(&asked.outcome)
    }

    /// Whether anything in the files is not in use.
    fn has_unused(&self) -> bool {
        !self.broken.borrow().is_empty() || self.unusable.borrow().is_some()
    }

    /// Whether any of these was not told of yet, or not of this content.
    fn is_news(&self, missing: &[(Missing, u64)]) -> bool {
        let known = self.broken.borrow();
        missing.iter().any(|(missing, stamp)| !known.iter().any(|it| it.is(missing, *stamp)))
    }
}

impl Broken {
    fn is(&self, missing: &Missing, stamp: u64) -> bool {
        self.place == missing.place && self.stamp == stamp && self.error == missing.to_string()
    }
}

/// For ever; sleeps while `hot_reload.watch` is off, or there are no files.
pub(super) async fn watch(control: Rc<Control>) {
    loop {
        until(&control, is_wanted).await;
        let watcher = match Watcher::new() {
            Ok(watcher) => watcher,
            Err(error) => {
                log::warn!(
                    "the files of certificates are not watched: inotify: {error}; raise \
                     fs.inotify.max_user_instances, or reload with SIGHUP after a change"
                );
                return;
            }
        };
        Box::pin(follow(&control, watcher)).await;
    }
}

fn is_wanted(control: &Control) -> bool {
    control.plan().hot_reload.watch
        && !control.draining.get()
        && !control.tls.material().files().is_empty()
}

pub(super) async fn until(control: &Control, reached: impl Fn(&Control) -> bool) {
    std::future::poll_fn(|context| {
        if reached(control) {
            return Poll::Ready(());
        }
        control.poll_changed(context);
        Poll::Pending
    })
    .await;
}

type Names = Vec<(PathBuf, OsString)>;

/// As long as that is wanted: what was begun is ended.
async fn follow(control: &Rc<Control>, mut watcher: Watcher) {
    let (mut before, mut complained): (Option<(u64, Names)>, bool) = (None, false);
    let (mut changed, mut retry): (bool, Option<Retry>) = (false, None);
    while is_wanted(control) {
        let version = control.plan().version;
        let material = control.tls.material();
        let ways = control.beside(move || ways(&material)).await;
        let (names, is_whole) = ways.unwrap_or_default();
        let watched = watcher.watch(&names);
        if let (Err(error), false) = (&watched, std::mem::replace(&mut complained, true)) {
            log::warn!(
                "not all files of certificates can be watched: inotify: {error}; they are read \
                 every {:?} instead; raise fs.inotify.max_user_watches, or let this process read \
                 their directories",
                limits::CERTIFICATE_LOOK_INTERVAL
            );
        }
        complained = watched.is_err();
        let now = Some((version, names));
        // After the watches are in place: a change before that is not missed.
        let is_due = retry.as_ref().is_some_and(|retry| retry.left().is_zero());
        if changed || watched.is_err() || before != now || is_due {
            look(control, &watcher).await;
        }
        before = now;
        let has_unused = control.tls.watched.has_unused();
        let begun = retry.take().filter(|_| !changed);
        retry = has_unused.then(|| begun.map_or_else(Retry::begin, Retry::go_on));
        let pause = match (&watched, is_whole) {
            (Err(_), _) => limits::CERTIFICATE_LOOK_INTERVAL,
            (Ok(()), false) => limits::RELOAD_LOOK_INTERVAL,
            (Ok(()), true) => Duration::MAX,
        };
        let pause = retry.as_ref().map_or(pause, |retry| pause.min(retry.left()));
        let is_outdated = |c: &Control| {
            c.plan().version != version || !is_wanted(c) || c.tls.watched.has_unused() != has_unused
        };
        let other = first(until(control, is_outdated), pause_for(pause));
        changed = match first(watcher.changed(), other).await {
            Either::First(Ok(())) => true,
            Either::First(Err(_)) => return,
            Either::Second(_) => false,
        };
        if changed {
            quiet(&watcher).await;
        }
    }
}

/// When files that could not be used are read again: a certificate becomes valid, and a disk comes
/// back, without a change that the kernel tells of.
struct Retry {
    at: Instant,
    wait: Duration,
}

impl Retry {
    fn begin() -> Retry {
        let wait = limits::CERTIFICATE_RETRY_MIN;
        Retry { at: engine::now() + wait, wait }
    }

    /// After a try that was due, the next is to wait longer.
    fn go_on(self) -> Retry {
        if !self.left().is_zero() {
            return self;
        }
        let wait = (2 * self.wait).min(limits::CERTIFICATE_LOOK_INTERVAL);
        Retry { at: engine::now() + wait, wait }
    }

    fn left(&self) -> Duration {
        self.at.saturating_duration_since(engine::now())
    }
}

async fn pause_for(time: Duration) {
    if time == Duration::MAX {
        std::future::pending::<()>().await;
    }
    engine::sleep(time).await;
}

/// What to watch, and whether every way ends at a file. Blocks.
fn ways(material: &Material) -> (Names, bool) {
    let (mut names, mut is_whole) = (Vec::new(), true);
    for file in material.files() {
        is_whole &= walk(file, &mut names).is_ok();
    }
    names.sort();
    names.dedup();
    (names, is_whole)
}

/// What was read, on another thread.
struct Looked {
    material: Material,
    is_new: bool,
    /// With stamps of what their files hold.
    missing: Stamped,
}

impl Looked {
    /// Blocks.
    fn at(material: &Material, now: SystemTime) -> Looked {
        let (again, missing) = material.look_again(now);
        let stamped = |missing: Missing| {
            let stamp = stamp(&again.files_of(missing.place));
            (missing, stamp)
        };
        let missing = missing.into_iter().map(stamped).collect();
        Looked { is_new: again.changed(material), material: again, missing }
    }
}

/// Of what these files hold; one that cannot be read, or is larger than any that is taken, counts
/// as empty. Blocks.
fn stamp(files: &[&Path]) -> u64 {
    const MOST: usize = limits::REVOCATIONS_FILE_BYTES_MAX; // of all kinds of files
    let hashes = files.iter().map(|file| contents(file, MOST).unwrap_or_default());
    hashes.fold(0, |stamp, bytes| stamp.rotate_left(9) ^ reload::hash(&bytes))
}

/// Puts to use what the files hold now. What is wrong with them gets a moment to become right.
async fn look(control: &Rc<Control>, watcher: &Watcher) {
    let Some(missing) = control.use_files(FILE_CHANGE).await else { return };
    if !control.tls.watched.is_news(&missing) {
        control.note_broken(FILE_CHANGE, missing);
        return;
    }
    first(watcher.changed(), engine::sleep(limits::CERTIFICATE_SETTLE)).await;
    quiet(watcher).await;
    control.reload_certificates(FILE_CHANGE).await;
}

/// Does what was asked for, one after the other.
async fn work(control: Rc<Control>) {
    loop {
        let asked = control.tls.watched.asked.take();
        let Some(Asked { who, outcome }) = asked else { break };
        let used = overdue::caught(Box::pin(control.use_files_once(&who))).await;
        *outcome.borrow_mut() = Some(used.unwrap_or_else(|| {
            log::error!("{NAME} stay unread: putting them to use has panicked");
            Seen { missing: None, turn: control.tls.material_turn() }
        }));
        control.wake();
    }
    control.tls.watched.running.set(false);
}

impl Control {
    /// Whatever the files hold now, for somebody who asks. What is wrong is told at once.
    pub(crate) async fn reload_certificates(self: &Rc<Self>, who: &str) {
        if let Some(missing) = self.use_files(who).await {
            self.note_broken(who, missing);
        }
    }

    /// What is right in the files goes to the cores; gives back what is wrong. Dropping this takes
    /// nothing back.
    async fn use_files(self: &Rc<Self>, who: &str) -> Option<Stamped> {
        loop {
            let outcome = self.tls.watched.ask(who);
            if !self.tls.watched.running.replace(true) {
                engine::spawn(work(Rc::clone(self)));
            }
            let waiting = std::future::poll_fn(|context| {
                if let Some(outcome) = &*outcome.borrow() {
                    return Poll::Ready(outcome.clone());
                }
                self.poll_changed(context);
                Poll::Pending
            });
            let Seen { missing, turn } = waiting.await;
            if self.tls.material_turn() == turn {
                return missing;
            } // else a plan has brought its own meanwhile, with other places
        }
    }

    async fn use_files_once(self: &Rc<Self>, who: &str) -> Seen {
        loop {
            let (turn, material) = (self.tls.material_turn(), self.tls.material());
            let now = engine::wall_clock();
            let looking =
                self.in_time_of(&self.tls.watched.slots, NAME, move || Looked::at(&material, now));
            let looked = match looking.await {
                Ok(looked) => looked,
                Err(refused) => {
                    self.note_unusable(who, refused.to_string());
                    return Seen { missing: None, turn: self.tls.material_turn() };
                }
            };
            if self.tls.material_turn() != turn {
                continue; // a plan has brought its own meanwhile
            }
            let turn = match looked.is_new {
                true => self.use_new(who, looked.material).await,
                false => {
                    self.tls.watched.unusable.replace(None);
                    turn
                }
            };
            if self.tls.material_turn() == turn {
                return Seen { missing: Some(looked.missing), turn };
            }
        }
    }

    /// Gives back the turn of the material that it leaves, unless another has come meanwhile.
    async fn use_new(self: &Rc<Self>, who: &str, material: Material) -> u64 {
        let material = Shared::new(material);
        let before = self.tls.use_material(material.share());
        let (turn, mut left) = (self.tls.ingredients().turn, self.tls.material_turn());
        match self.renew_tls().await {
            Ok(()) => self.tell_renewed(who, &before, &material),
            Err(error) => {
                if self.tls.material_turn() == left {
                    let is_outdated = self.tls.is_newer_than(turn);
                    self.tls.use_material(before);
                    left = self.tls.material_turn();
                    if is_outdated {
                        // Keys or staples have come, and were refused together with these files.
                        self.renew_tls_or_say().await;
                    }
                }
                self.note_unusable(who, format!("what the new files hold: {error}"));
            }
        }
        self.publish_health();
        self.wake();
        left
    }

    /// Tells of it unless that was the reason before.
    fn note_unusable(&self, who: &str, error: String) {
        let known = self.tls.watched.unusable.replace(Some(error.clone()));
        if known.as_ref() != Some(&error) {
            self.tell_broken(who, "", &error);
            self.publish_health();
        }
    }

    fn tell_renewed(&self, who: &str, before: &Material, now: &Material) {
        self.tls.watched.unusable.replace(None);
        for (file, what) in changes(before, now) {
            log::info!("{file} has changed and is in use: {what}");
            self.tell_health(&file, "renewed", &what);
            self.audit_files(who, Outcome::Done, &file, &what);
        }
        let pairs = before.certificates.iter().zip(&now.certificates);
        let new = pairs.filter(|(before, now)| before.found != now.found);
        let found = new.filter_map(|(_, now)| now.found.as_ref());
        found.flat_map(|it| &it.warnings).for_each(|warning| log::warn!("{warning}"));
    }

    fn tell_broken(&self, who: &str, file: &str, why: &str) {
        self.tls.watched.failures.update(|count| count + 1);
        log::error!("what was there before stays in use: {why}");
        self.tell_health(file, "broken", why);
        self.audit_files(who, Outcome::Failed, file, why);
    }

    /// The process's own log tells of it as well.
    fn audit_files(&self, who: &str, outcome: Outcome, file: &str, detail: &str) {
        let record = Record {
            at: engine::wall_clock(),
            event: Event::ConfigChange,
            outcome,
            actor: who,
            peer: None,
            action: "certificates",
            target: file,
            detail,
        };
        if self.plan().audit_log.is_some() {
            self.audit(&record);
        } else {
            self.tell_audit(&record);
        }
    }

    /// Tells of what is new among it.
    fn note_broken(&self, who: &str, missing: Stamped) {
        let now = engine::wall_clock();
        let before = self.tls.watched.broken.take();
        let mut broken = Vec::new();
        for (missing, stamp) in missing {
            match before.iter().find(|known| known.is(&missing, stamp)) {
                Some(known) => broken.push(known.clone()),
                None => {
                    let error = missing.to_string();
                    self.tell_broken(who, &missing.error.file.display().to_string(), &error);
                    broken.push(Broken { place: missing.place, error, since: now, stamp });
                }
            }
        }
        for healed in before.iter().filter(|was| broken.iter().all(|is| is.place != was.place)) {
            log::info!("what was wrong is right again: {}", healed.error);
        }
        self.tls.watched.broken.replace(broken);
        self.publish_health();
        self.wake(); // whoever follows the files tries them again
    }

    pub(crate) fn broken_files(&self) -> Vec<Broken> {
        self.tls.watched.broken.borrow().clone()
    }

    /// Why nothing new of them is in use, although each may be right.
    pub(crate) fn unusable_files(&self) -> Option<String> {
        self.tls.watched.unusable.borrow().clone()
    }

    pub(crate) fn broken_files_total(&self) -> u64 {
        self.tls.watched.failures.get()
    }

    /// Since when a certificate is in use.
    pub(crate) fn certificate_loaded_at(&self, fingerprint: &[u8; 32]) -> Option<SystemTime> {
        self.tls.watched.loaded.borrow().get(fingerprint).copied()
    }
}

/// Files that hold something else, and what.
fn changes(before: &Material, now: &Material) -> Vec<(String, String)> {
    fn pairs<'m, S, T: PartialEq>(
        before: &'m [Found<S, T>],
        now: &'m [Found<S, T>],
    ) -> impl Iterator<Item = (&'m S, &'m T)> {
        let pairs = before.iter().zip(now).filter(|(before, now)| before.found != now.found);
        pairs.filter_map(|(_, now)| Some((&now.source, now.found.as_ref()?)))
    }
    let mut changes = Vec::new();
    for (source, certificate) in pairs(&before.certificates, &now.certificates) {
        let facts = &certificate.facts;
        let (names, until) = (facts.dns_names.join(", "), written(facts.not_after));
        let what = format!("{names} ({}, serial {}) until {until}", facts.subject, facts.serial);
        changes.push((source.cert.display().to_string(), what));
    }
    for (file, authorities) in pairs(&before.authorities, &now.authorities) {
        let what = format!("authorities: {}", authorities.len());
        changes.push((file.display().to_string(), what));
    }
    for (file, lists) in pairs(&before.revocations, &now.revocations) {
        changes.push((file.display().to_string(), format!("revocation lists: {}", lists.len())));
    }
    if before.system != now.system {
        let what = format!("authorities of the system: {}", now.system.len());
        changes.push(("/etc/ssl/certs".to_owned(), what));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::test_pki::Pki;

    #[test]
    fn whoever_asks_while_files_are_read_shares_the_next_run() {
        let watched = Watched::default();
        let first = watched.ask(FILE_CHANGE);
        assert!(Rc::ptr_eq(&first, &watched.ask("admin")));
        assert!(Rc::ptr_eq(&first, &watched.ask("ops")));
        let begun = watched.asked.take().unwrap();
        assert_eq!(begun.who, "admin");
        assert!(!Rc::ptr_eq(&begun.outcome, &watched.ask("ops")), "what is read may be older");
    }

    #[test]
    fn devices_and_pipes_in_the_place_of_a_key_are_not_waited_for() {
        let pki = Pki::new("stamps");
        let made = std::process::Command::new("mkfifo").arg(pki.path("pipe")).status().unwrap();
        assert!(made.success());
        let nothing = stamp(&[&pki.path("nothing")]);
        assert_eq!(stamp(&[&pki.path("pipe")]), nothing);
        assert_eq!(stamp(&[Path::new("/dev/zero")]), nothing);
        let (one, other) = (pki.write("one", "1"), pki.write("other", "2"));
        assert_ne!(stamp(&[&one, &other]), stamp(&[&other, &one]));
    }
}
