//! The blacklist's keeper: it survives reloads, and restarts when `blacklist.path` is set. Every
//! change goes to all data cores at once and into the file; entries that run out go by themselves.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

use crate::control::Control;
use crate::control::message::ToShard;
use crate::engine::{self, Shared};
use crate::limits;
use crate::listener::blacklist::{Blacklist, Entry, Full};
use crate::plan::Network;
use crate::telemetry::audit_log::{Event, Outcome, Record};

#[derive(Debug, Default)]
pub(super) struct Keeper {
    list: RefCell<Blacklist>,
    /// Turned away since it was last told of, by network.
    untold: RefCell<BTreeMap<String, u64>>,
    telling: Cell<bool>,
    /// What the file has is older.
    unsaved: Cell<bool>,
    saving: Cell<bool>,
    /// At this moment; `saving` goes on for a while, so that changes gather.
    writing: Cell<bool>,
    /// Counts up with every change.
    changes: Cell<u64>,
    /// The changes that the cores have been told of.
    sent: Cell<u64>,
    sending: Cell<bool>,
    /// The file that it is in.
    at: RefCell<Option<PathBuf>>,
    /// It is on its way to another file.
    moving: Cell<bool>,
    /// A file that could not be read to its end: saving would lose what is in it.
    unread: RefCell<Option<PathBuf>>,
}

impl Keeper {
    /// What the file has. Blocks.
    pub(super) fn load(path: Option<&Path>, now: SystemTime) -> Keeper {
        let keeper = Keeper::default();
        let Some(path) = path else { return keeper };
        *keeper.at.borrow_mut() = Some(path.to_owned());
        let mut list = keeper.list.borrow_mut();
        match read(path, &mut list) {
            Ok(()) => {
                list.expire(now);
                log::info!("{}: {} blacklisted networks", path.display(), list.len());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Serving without it is better than not serving.
            Err(error) => {
                log::error!(
                    "{}: the blacklist cannot be read: {error}; changes of it are not saved: \
                     correct or move the file, then start again",
                    path.display()
                );
                *keeper.unread.borrow_mut() = Some(path.to_owned());
            }
        }
        drop(list);
        keeper
    }

    /// What another process has left in the file goes before what is known here; but what is not
    /// in the file yet stays. `None`: the file cannot be read in time.
    fn take_again(&self, path: &Path, loaded: Option<Keeper>) {
        let unread = match &loaded {
            Some(loaded) => loaded.unread.borrow().clone(),
            None => Some(path.to_owned()),
        };
        let found = loaded.map(|loaded| loaded.list.into_inner());
        let mut list = self.list.borrow_mut();
        if unread.is_none() && !self.unsaved.get() {
            list.clear();
        }
        for entry in found.iter().flat_map(Blacklist::iter) {
            if list.put(entry.clone()).is_err() {
                log::error!(
                    "{}: {} is left out: the blacklist is full",
                    path.display(),
                    entry.network
                );
                break;
            }
        }
        drop(list);
        self.unread.replace(unread);
    }

    fn may_not_save(&self, path: &Path) -> bool {
        self.unread.borrow().as_deref() == Some(path)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.list.borrow().len()
    }
}

impl Control {
    /// The first of them, by network.
    pub(crate) fn blacklisted(&self, most: usize) -> Vec<Entry> {
        self.blacklist.list.borrow().iter().take(most).cloned().collect()
    }

    /// Whether a change reaches a file, and so the next process.
    pub(crate) fn blacklist_is_kept(&self) -> bool {
        let plan = self.plan();
        plan.blacklist_path.as_ref().is_some_and(|path| !self.blacklist.may_not_save(path))
    }

    pub(crate) fn blacklist_len(&self) -> usize {
        self.blacklist.len()
    }

    /// The entry that this address is turned away for.
    pub(crate) fn blacklisting(&self, address: IpAddr) -> Option<Entry> {
        self.blacklist.list.borrow().narrowest(address).cloned()
    }

    /// The entry as it is now, and whether it took the place of another.
    pub(crate) fn blacklist(self: &Rc<Self>, entry: Entry) -> Result<(Entry, bool), Full> {
        let added = self.blacklist.list.borrow_mut().add(entry)?;
        self.blacklist_changed();
        Ok(added)
    }

    /// Takes the entry of exactly this network away.
    pub(crate) fn unblacklist(self: &Rc<Self>, network: Network) -> Option<Entry> {
        let entry = self.blacklist.list.borrow_mut().remove(network)?;
        self.blacklist_changed();
        Some(entry)
    }

    /// How many there were.
    pub(crate) fn clear_blacklist(self: &Rc<Self>) -> usize {
        let count = self.blacklist.list.borrow_mut().clear();
        self.blacklist_changed();
        count
    }

    /// What the process before this one lists. Its file has no more than that; another file may.
    pub(super) fn take_blacklist(
        &self,
        entries: Vec<Entry>,
        listed_before: &[Network],
        same_file: bool,
    ) {
        let mut list = self.blacklist.list.borrow_mut();
        if same_file {
            list.clear();
        }
        listed_before.iter().for_each(|network| drop(list.remove(*network)));
        let left_out = entries.into_iter().filter_map(|entry| list.put(entry).err()).count();
        if left_out > 0 {
            log::error!("{left_out} entries of the blacklist are left out: it is full");
        }
        list.expire(engine::wall_clock());
    }

    /// Before this process takes connections again: who has served meanwhile has kept the file.
    pub(super) async fn blacklist_again(&self) {
        let keeper = &self.blacklist;
        let path = keeper.at.borrow().clone().filter(|_| !keeper.moving.get());
        let Some(path) = path else { return };
        let (from, now) = (path.clone(), engine::wall_clock());
        let work = move || {
            let is_there = from.try_exists().unwrap_or(true);
            is_there.then(|| Keeper::load(Some(&from), now))
        };
        let reading = self.watch.pool().run(work);
        let late = engine::sleep(limits::BLACKLIST_STOP_TIMEOUT);
        let loaded = match super::first(reading, late).await {
            super::Either::First(Some(None)) => return, // nobody has written it
            super::Either::First(loaded) => loaded.flatten(),
            super::Either::Second(()) => None,
        };
        if loaded.is_none() {
            log::error!(
                "{}: the blacklist cannot be read: changes of it are not saved, and those that \
                 the process before this one made are not known; start again when it can be",
                path.display()
            );
        }
        keeper.take_again(&path, loaded);
        self.send_blacklist();
    }

    pub(super) fn blacklist_changed(self: &Rc<Self>) {
        self.blacklist.changes.update(|changes| changes + 1);
        if !self.blacklist.sending.replace(true) {
            engine::spawn(Rc::clone(self).send_changes());
        }
        self.save_blacklist();
        self.wake();
    }

    /// At once, and those that follow together: making a long list anew for each would leave this
    /// core no time for anything else.
    async fn send_changes(self: Rc<Self>) {
        while self.blacklist.sent.get() != self.blacklist.changes.get() {
            let begun = engine::precise_now();
            self.send_blacklist();
            self.wake();
            let took = engine::precise_now().saturating_duration_since(begun);
            engine::sleep(took * limits::BLACKLIST_REST).await;
        }
        self.blacklist.sending.set(false);
    }

    /// Until what was changed so far is on its way to every core.
    pub(crate) async fn blacklist_sent(&self) {
        let changes = self.blacklist.changes.get();
        while self.blacklist.sent.get() < changes {
            self.changed_once().await;
        }
    }

    /// To every data core; the newest replaces the one before.
    pub(super) fn send_blacklist(&self) {
        self.blacklist.sent.set(self.blacklist.changes.get());
        let blocked = Shared::new(self.blacklist.list.borrow().blocked());
        self.to_shards(|| ToShard::Blacklist(blocked.share()));
    }

    /// Writes the file beside the core. Changes that come meanwhile are written after it.
    pub(super) fn save_blacklist(self: &Rc<Self>) {
        if self.upgrades.successor().is_some() {
            return; // the file is the other process's, and it knows all of this
        }
        self.blacklist.unsaved.set(true);
        let keeper = &self.blacklist;
        if keeper.at.borrow().is_none() || keeper.moving.get() || keeper.saving.replace(true) {
            return;
        }
        let control = Rc::clone(self);
        engine::spawn(async move {
            while control.may_save_blacklist() && control.blacklist.unsaved.replace(false) {
                let Some(path) = control.blacklist.at.borrow().clone() else { break };
                if control.blacklist.may_not_save(&path) {
                    break;
                }
                let entries = control.blacklisted(usize::MAX);
                let name = path.display().to_string();
                control.blacklist.writing.set(true);
                let written = control.watch.pool().run(move || write(&path, &entries)).await;
                control.blacklist.writing.set(false);
                control.wake();
                if let Some(Err(error)) = written {
                    log::error!("{name}: the blacklist cannot be saved, for now: {error}");
                    control.blacklist.unsaved.set(true);
                    if control.draining.get() {
                        break;
                    }
                    super::first(
                        engine::sleep(limits::BLACKLIST_SAVE_INTERVAL),
                        control.until_blacklist_may_not_be_saved(),
                    )
                    .await;
                } else {
                    let wanted = |c: &Control| c.draining.get() || c.blacklist.moving.get();
                    control.until(limits::BLACKLIST_SAVE_PACE, wanted).await;
                }
            }
            control.blacklist.saving.set(false);
            control.wake();
        });
    }

    /// What was changed last is in the file, or cannot be.
    pub(super) fn is_blacklist_saved(&self) -> bool {
        let Keeper { saving, unsaved, writing, moving, .. } = &self.blacklist;
        !moving.get() && (!saving.get() || !(unsaved.get() || writing.get()))
    }

    /// A retry must not write over what another process has written since.
    fn may_save_blacklist(&self) -> bool {
        !self.blacklist.moving.get() && self.upgrades.successor().is_none()
    }

    async fn until_blacklist_may_not_be_saved(&self) {
        while self.may_save_blacklist() {
            self.changed_once().await;
        }
    }

    /// After a reload, which may keep it in another file: the old one gets what it lacks and stays,
    /// what the new one has is added, and the whole is kept there from now on.
    pub(super) fn blacklist_follows(self: &Rc<Self>) {
        let keeper = &self.blacklist;
        if *keeper.at.borrow() == self.plan().blacklist_path || keeper.moving.replace(true) {
            return;
        }
        let control = Rc::clone(self);
        engine::spawn(async move {
            let keeper = &control.blacklist;
            control.wake();
            while keeper.saving.get() {
                control.changed_once().await;
            }
            while *keeper.at.borrow() != control.plan().blacklist_path {
                let to = control.plan().blacklist_path.clone();
                control.move_blacklist(to).await;
            }
            keeper.moving.set(false);
            control.blacklist_changed();
        });
    }

    async fn move_blacklist(self: &Rc<Self>, to: Option<PathBuf>) {
        let keeper = &self.blacklist;
        let from = keeper.at.borrow().clone().filter(|from| !keeper.may_not_save(from));
        let last = from.filter(|_| keeper.unsaved.replace(false));
        let last = last.map(|from| (from, self.blacklisted(usize::MAX)));
        let (wanted, now) = (to.clone(), engine::wall_clock());
        let work = move || {
            if let Some((from, entries)) = last
                && let Err(error) = write(&from, &entries)
            {
                log::error!("{}: the blacklist cannot be saved: {error}", from.display());
            }
            Keeper::load(wanted.as_deref(), now)
        };
        // One that panicked has found nothing.
        let loaded = self.watch.pool().run(work).await.unwrap_or_default();
        let mut list = keeper.list.borrow_mut();
        let found = loaded.list.into_inner();
        let added = found.iter().filter(|entry| list.add_new((*entry).clone())).count();
        drop(list);
        keeper.unread.replace(loaded.unread.into_inner());
        let place =
            to.as_ref().map_or("in no file".to_owned(), |to| format!("in {}", to.display()));
        log::info!("the blacklist is kept {place} from now on; {added} entries were there already");
        *keeper.at.borrow_mut() = to;
    }

    /// What a core has turned away.
    pub(super) fn note_blocked(self: &Rc<Self>, hits: Vec<(Network, u64)>) {
        let mut list = self.blacklist.list.borrow_mut();
        let mut untold = self.blacklist.untold.borrow_mut();
        for (network, count) in hits {
            list.note_hits(network, count);
            let known = untold.len() < limits::BLACKLIST_TOLD_MAX;
            let name = if known { network.to_string() } else { "others".to_owned() };
            *untold.entry(name).or_default() += count;
        }
        if self.blacklist.telling.replace(true) {
            return;
        }
        let control = Rc::clone(self);
        engine::spawn(async move {
            engine::sleep(limits::BLACKLIST_TELL_INTERVAL).await;
            control.blacklist.telling.set(false);
            for (name, count) in control.blacklist.untold.take() {
                control.audit_blacklist(&name, Outcome::Denied, &format!("{count} times"));
            }
        });
    }

    fn audit_blacklist(&self, network: &str, outcome: Outcome, detail: &str) {
        self.audit(&Record {
            at: engine::wall_clock(),
            event: Event::Blocked,
            outcome,
            actor: "",
            peer: None,
            action: "blacklist",
            target: network,
            detail,
        });
    }

    /// Until the next entry runs out. Without one that is never, and costs nothing.
    async fn blacklist_due(&self) {
        loop {
            let next = self.blacklist.list.borrow().next_expiry();
            let Some(next) = next else {
                self.changed_once().await;
                continue;
            };
            let Ok(left) = next.duration_since(engine::wall_clock()) else { return };
            // The time of day may be set: a long wait looks again.
            let nap = left.min(limits::BLACKLIST_LOOK_INTERVAL);
            super::first(engine::sleep(nap), self.changed_once()).await;
        }
    }
}

/// Takes out entries as they run out, for ever.
pub(super) async fn expire(control: Rc<Control>) {
    loop {
        control.blacklist_due().await;
        let gone = control.blacklist.list.borrow_mut().expire(engine::wall_clock());
        for entry in &gone {
            control.audit_blacklist(&entry.network.to_string(), Outcome::Done, "has run out");
        }
        if !gone.is_empty() {
            control.blacklist_changed();
        }
    }
}

/// A line that is no entry is told of and left out: one bad line must not let everybody in.
fn read(path: &Path, into: &mut Blacklist) -> io::Result<()> {
    let file = BufReader::new(std::fs::File::open(path)?);
    for (number, line) in file.split(b'\n').enumerate() {
        let line = line?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let full = match serde_json::from_slice(&line) {
            Ok(entry) => into.add(entry).is_err(),
            Err(error) => {
                log::warn!("{}:{}: no blacklist entry: {error}", path.display(), number + 1);
                false
            }
        };
        if full {
            return Err(io::Error::other("it has too many entries"));
        }
    }
    Ok(())
}

/// The whole file anew, so that it is complete at any moment.
fn write(path: &Path, entries: &[Entry]) -> io::Result<()> {
    // Two processes may write it at once, while one takes over.
    let new = PathBuf::from(format!("{}.{}.new", path.display(), std::process::id()));
    let mut text = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut text, entry)?;
        text.push(b'\n');
    }
    let mut file = std::fs::File::create(&new)?;
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn entry(network: &str, until: Option<u64>) -> Entry {
        let (reason, by) = ("a \"reason\"\nof two lines".to_owned(), "ci".to_owned());
        Entry { network: network.parse().unwrap(), reason, by, since: 5, until, hits: 7 }
    }

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("corelane-blacklist-{}-{name}", std::process::id()))
    }

    #[test]
    fn what_was_written_is_read_again_but_for_what_has_run_out() {
        let path = file("again");
        let entries = [entry("10.0.0.0/8", None), entry("fd00::1", Some(50))];
        write(&path, &entries).unwrap();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let loaded = |now| {
            let keeper = Keeper::load(Some(&path), at(now));
            keeper.list.borrow().iter().cloned().collect::<Vec<_>>()
        };
        assert_eq!(loaded(49), entries);
        assert_eq!(loaded(50), entries[..1]);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_another_process_has_left_in_the_file_is_taken_over_again() {
        let path = file("taken");
        let keeper = Keeper::default();
        let listed = |keeper: &Keeper| {
            let list = keeper.list.borrow();
            list.iter().map(|entry| entry.network.to_string()).collect::<Vec<_>>()
        };
        keeper.list.borrow_mut().put(entry("10.0.0.1", None)).unwrap();
        let again = || keeper.take_again(&path, Some(Keeper::load(Some(&path), UNIX_EPOCH)));
        write(&path, &[entry("10.0.0.2", None)]).unwrap();
        again();
        assert_eq!(listed(&keeper), ["10.0.0.2/32"], "it has taken the other one out");
        keeper.unsaved.set(true);
        write(&path, &[entry("10.0.0.3", None)]).unwrap();
        again();
        assert_eq!(listed(&keeper), ["10.0.0.2/32", "10.0.0.3/32"]);
        keeper.take_again(&path, None);
        assert_eq!(listed(&keeper).len(), 2);
        assert!(keeper.may_not_save(&path));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_could_not_be_read_is_not_written_over() {
        let path = file("unread");
        std::fs::create_dir(&path).unwrap();
        assert!(Keeper::load(Some(&path), UNIX_EPOCH).may_not_save(&path));
        std::fs::remove_dir(&path).unwrap();
        assert!(!Keeper::load(Some(&path), UNIX_EPOCH).may_not_save(&path));
    }

    #[test]
    fn a_bad_line_costs_no_more_than_itself_and_no_file_is_no_error() {
        let path = file("bad");
        let good = serde_json::to_string(&entry("10.0.0.1", None)).unwrap();
        let bad = b"{\"ip\":\"10.0.0.1/33\"}\nnonsense\n\xff\n\n";
        std::fs::write(&path, [&bad[..], good.as_bytes(), b"\n"].concat()).unwrap();
        assert_eq!(Keeper::load(Some(&path), UNIX_EPOCH).list.borrow().len(), 1);
        std::fs::remove_file(&path).unwrap();
        assert!(Keeper::load(Some(&path), UNIX_EPOCH).is_empty());
        assert!(Keeper::load(None, UNIX_EPOCH).is_empty());
    }
}
