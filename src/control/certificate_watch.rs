//! Files of certificates, keys, authorities and revocation lists, read again when they change.
//! Whatever is right in them goes to the cores, connections stay as they are; what is broken leaves
//! what was there before in use, and is complained about once.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use crate::control::file_watch::{quiet, walk};
use crate::control::{Control, Either, first, reload};
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
}

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
    let mut changed = false;
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
        if changed || watched.is_err() || before != now {
            look(control, &watcher).await;
        }
        before = now;
        let pause = match (&watched, is_whole) {
            (Err(_), _) => limits::CERTIFICATE_LOOK_INTERVAL,
            (Ok(()), false) => limits::RELOAD_LOOK_INTERVAL,
            (Ok(()), true) => Duration::MAX,
        };
        let is_outdated = |c: &Control| c.plan().version != version || !is_wanted(c);
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
    missing: Vec<(Missing, u64)>,
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
    let missing = control.use_files("file change").await;
    if !control.tls.watched.is_news(&missing) {
        control.note_broken("file change", missing);
        return;
    }
    first(watcher.changed(), engine::sleep(limits::CERTIFICATE_SETTLE)).await;
    quiet(watcher).await;
    let missing = control.use_files("file change").await;
    control.note_broken("file change", missing);
}

impl Control {
    /// Whatever the files hold now, for somebody who asks. What is wrong is told at once.
    pub(crate) async fn reload_certificates(self: &Rc<Self>, who: &str) {
        let missing = self.use_files(who).await;
        self.note_broken(who, missing);
    }

    /// What is right in the files goes to the cores; gives back what is wrong.
    async fn use_files(self: &Rc<Self>, who: &str) -> Vec<(Missing, u64)> {
        loop {
            let (turn, material) = (self.tls.material_turn(), self.tls.material());
            let now = engine::wall_clock();
            let Some(looked) = self.beside(move || Looked::at(&material, now)).await else {
                log::error!("the files of certificates stay unread: reading them has panicked");
                return Vec::new();
            };
            if self.tls.material_turn() != turn {
                continue; // a plan has brought its own meanwhile
            }
            if looked.is_new {
                self.use_new(who, looked.material).await;
            }
            return looked.missing;
        }
    }

    async fn use_new(self: &Rc<Self>, who: &str, material: Material) {
        let material = Shared::new(material);
        let before = self.tls.use_material(material.share());
        let turn = self.tls.material_turn();
        match self.renew_tls().await {
            Ok(()) => self.tell_renewed(who, &before, &material),
            Err(error) => {
                if self.tls.material_turn() == turn {
                    self.tls.use_material(before);
                }
                let known = self.tls.watched.unusable.replace(Some(error.clone()));
                if known.as_ref() != Some(&error) {
                    self.tell_broken(who, "", &format!("what the new files hold: {error}"));
                }
            }
        }
        self.publish_health();
        self.wake();
    }

    fn tell_renewed(&self, who: &str, before: &Material, now: &Material) {
        self.tls.watched.unusable.replace(None);
        for (file, what) in changes(before, now) {
            log::info!("{file} has changed and is in use: {what}");
            self.tell_health(&file, "renewed", &what);
            self.audit_files(who, Outcome::Done, &file, &what);
        }
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
    fn note_broken(&self, who: &str, missing: Vec<(Missing, u64)>) {
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
    }

    pub(crate) fn broken_files(&self) -> Vec<Broken> {
        self.tls.watched.broken.borrow().clone()
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
