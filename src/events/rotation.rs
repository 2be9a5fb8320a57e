//! Log files that were put aside: their names, how many are kept, their compression. A rotated file
//! is named after the moment of its rotation, `access.log.20261121T135300.123Z`, so that nothing is
//! ever renamed twice and names sort by age. Compressing and deleting happen on a thread of their
//! own, which looks at the folder and not at a list: what a crash left behind is done the next
//! time.
//!
//! Two processes may write one log: one that drains and the one that came after it. So a file is
//! left as it is while anybody holds it open as a log, and one at a time works on it: who writes
//! has a shared lock on it, and who compresses or deletes takes an exclusive one, or goes on to the
//! next.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::limits::ROTATE_RETRY_INTERVAL;
use crate::plan::Rotate;
use crate::telemetry::decimal::padded;
use crate::telemetry::timestamp::Civil;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PutAside {
    Done,
    /// Another one has done that: the path names another file by now, or none.
    Before,
    /// Another one does that right now, for a log in this folder.
    Busy,
}

/// Puts the file aside, if the path names what `is_ours` says it does.
pub(super) fn put_aside_once(
    path: &Path,
    is_ours: impl FnOnce() -> bool,
    at: SystemTime,
) -> io::Result<PutAside> {
    let folder = File::open(folder_of(path));
    if let Ok(folder) = &folder
        && let Err(TryLockError::WouldBlock) = folder.try_lock()
    {
        return Ok(PutAside::Busy);
    }
    if !is_ours() {
        return Ok(PutAside::Before);
    }
    put_aside(path, at).map(|_| PutAside::Done)
}

/// Puts the file aside. Its new name.
fn put_aside(path: &Path, at: SystemTime) -> io::Result<PathBuf> {
    // Twice within a millisecond, or a clock that was set back: the newest file must not look like
    // the oldest, which is deleted first.
    let now = (stamp(at), 0);
    let newest = backups(path)?.pop().map(|newest| age(path, &newest));
    let (stamp, first) = match newest {
        Some((stamp, number)) if (&stamp, number) >= (&now.0, now.1) => (stamp, number + 1),
        Some(_) | None => now,
    };
    for number in first.. {
        let name = if number == 0 { stamp.clone() } else { format!("{stamp}-{number}") };
        let aside = with_suffix(path, &name);
        if with_suffix(&aside, GZIP).exists() {
            continue;
        }
        match rename_new(path, &aside) {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Never over a file that is there, whoever has put it there meanwhile: another process may rotate
/// the same log.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let Err(error) = fs::hard_link(from, to) else { return fs::remove_file(from) };
    if to.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    if error.kind() == io::ErrorKind::NotFound {
        return Err(error);
    }
    // A file system without links, or a file that may not be linked.
    fs::rename(from, to)
}

/// When a file was put aside, by its name, and the how-manieth of that moment it was.
fn age(log: &Path, aside: &Path) -> (String, u32) {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (log, aside) = (name(log), name(aside));
    let rest = aside.get(log.len() + 1..).unwrap_or_default();
    let rest = rest.strip_suffix(".gz").unwrap_or(rest);
    let (stamp, number) = rest.split_at_checked(STAMP_BYTES).unwrap_or((rest, ""));
    let number = number.strip_prefix('-').and_then(|number| number.parse().ok());
    (stamp.to_owned(), number.unwrap_or(0))
}

/// `20261121T135300.123Z`
fn stamp(at: SystemTime) -> String {
    let time = Civil::of(at);
    let mut out = Vec::with_capacity(STAMP_BYTES);
    let parts = [(time.year, 4), (time.month, 2), (time.day, 2)];
    parts.into_iter().for_each(|(value, width)| padded(value, width, &mut out));
    out.push(b'T');
    [time.hour, time.minute, time.second].into_iter().for_each(|value| padded(value, 2, &mut out));
    out.push(b'.');
    padded(time.millisecond, 3, &mut out);
    out.push(b'Z');
    String::from_utf8(out).expect("digits and letters")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// The files of this log that were put aside, oldest first. Nobody else's: the name must fit.
fn backups(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (folder, name) = (folder_of(path), path.file_name().unwrap_or_default().to_string_lossy());
    let prefix = format!("{name}.");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let stamp = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        if stamp.is_some_and(is_stamp) {
            found.push(entry.path());
        }
    }
    found.sort_by_cached_key(|aside| age(path, aside));
    Ok(found)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn is_stamp(text: &str) -> bool {
    let text = text.strip_suffix(".gz").unwrap_or(text);
    let (stamp, number) = text.split_at_checked(STAMP_BYTES).unwrap_or((text, ""));
    let fits = |(byte, pattern): (u8, u8)| match pattern {
        b'0' => byte.is_ascii_digit(),
        _ => byte == pattern,
    };
    let number = number.strip_prefix('-').map_or(number.is_empty(), |number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    stamp.len() == STAMP_BYTES && stamp.bytes().zip(*STAMP).all(fits) && number
}

const STAMP: &[u8; STAMP_BYTES] = b"00000000T000000.000Z";
const STAMP_BYTES: usize = 20;
const GZIP: &str = "gz";
/// What a compression that did not end leaves behind.
const UNFINISHED: &str = "gz.tmp";

fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == GZIP)
}

/// The thread that compresses and deletes, one per log, from its first order on.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    /// One order may wait: it sees whatever was put aside before its turn comes.
    orders: Option<SyncSender<(PathBuf, Rotate)>>,
    /// An order found another one waiting, which may be of other settings.
    again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    All,
    /// Somebody writes one of the files still, or works on it.
    NotYet,
}

impl Keeper {
    /// Never waits.
    pub(super) fn look(&mut self, path: &Path, rotate: Rotate, name: &'static str) {
        self.again = false;
        let mut order = (path.to_owned(), rotate);
        if let Some(orders) = &self.orders {
            match orders.try_send(order) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => {
                    self.again = true;
                    return;
                }
                Err(TrySendError::Disconnected(unheard)) => order = unheard,
            }
        }
        let (sender, orders) = mpsc::sync_channel(1);
        drop(sender.try_send(order)); // there is room for one
        let obey = move || {
            let Ok(mut order) = orders.recv() else { return };
            loop {
                let next = match obey(&order.0, order.1, name) {
                    Kept::All => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Kept::NotYet => orders.recv_timeout(ROTATE_RETRY_INTERVAL),
                };
                match next {
                    Ok(next) => order = next,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        match thread::Builder::new().name("log-keeper".to_owned()).spawn(obey) {
            Ok(_) => self.orders = Some(sender),
            Err(error) => log::error!("{name}: cannot start a thread to compress: {error}"),
        }
    }

    pub(super) fn is_needed_again(&self) -> bool {
        self.again
    }
}

fn obey(path: &Path, rotate: Rotate, name: &'static str) -> Kept {
    keep(path, rotate).unwrap_or_else(|error| {
        log::error!(
            "{name}: cannot tidy the rotated files of {}: {error}; the next rotation tries again",
            path.display()
        );
        Kept::All
    })
}

/// What is wrong with one file stops nothing; the first of it is told of.
struct Tidied {
    kept: Kept,
    failed: Option<io::Error>,
}

impl Tidied {
    fn and(&mut self, more: io::Result<Kept>) {
        match more {
            Ok(Kept::All) => {}
            Ok(Kept::NotYet) => self.kept = Kept::NotYet,
            Err(error) => drop(self.failed.get_or_insert(error)),
        }
    }
}

fn named(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}

/// Deletes what is too old and compresses the rest, newest last.
fn keep(path: &Path, rotate: Rotate) -> io::Result<Kept> {
    let mut all = Tidied { kept: Kept::All, failed: remove_unfinished(path).err() };
    all.and(prune(path, rotate.backups_max));
    if rotate.compress {
        for backup in backups(path)? {
            if !is_compressed(&backup) {
                all.and(compress(&backup).map_err(|error| named(&backup, &error)));
                // Rotations went on meanwhile: the disk must not fill with what is to be
                // deleted anyway.
                all.and(prune(path, rotate.backups_max));
            }
        }
    }
    all.failed.map_or(Ok(all.kept), Err)
}

fn prune(path: &Path, backups_max: usize) -> io::Result<Kept> {
    let backups = backups(path)?;
    let mut kept = Kept::All;
    let mut failed = None;
    for old in &backups[..backups.len().saturating_sub(backups_max)] {
        // A file that may not be read has no lock of ours, and may be deleted all the same.
        let file = File::open(old).ok();
        if file.as_ref().is_some_and(is_in_use) {
            kept = Kept::NotYet;
        } else if let Err(error) = present(fs::remove_file(old)) {
            failed.get_or_insert(named(old, &error));
        }
    }
    failed.map_or(Ok(kept), Err)
}

/// Otherwise nobody else takes it, for as long as the file is open here. File systems without locks
/// do without.
fn is_in_use(file: &File) -> bool {
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// What a crash left behind of a file that has been deleted since.
fn remove_unfinished(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder_of(path))? {
        let unfinished = entry?.path();
        let whole = unfinished.with_extension("").with_extension("");
        let stamp = whole.to_str().zip(path.to_str()).and_then(|(whole, log)| {
            let (whole, log) = (whole.rsplit('/').next()?, log.rsplit('/').next()?);
            whole.strip_prefix(log)?.strip_prefix('.')
        });
        let is_ours = unfinished == with_suffix(&whole, UNFINISHED) && stamp.is_some_and(is_stamp);
        if is_ours && !whole.exists() {
            present(fs::remove_file(unfinished))?;
        }
    }
    Ok(())
}

fn compress(path: &Path) -> io::Result<Kept> {
    let unfinished = with_suffix(path, UNFINISHED);
    let Some(mut from) = present(File::open(path))? else {
        return Ok(Kept::All);
    };
    if is_in_use(&from) {
        return Ok(Kept::NotYet);
    }
    if !path.exists() {
        return Ok(Kept::All); // another one was faster
    }
    let mut options = OpenOptions::new();
    let to = options.write(true).create(true).truncate(true).mode(0o640).open(&unfinished)?;
    let result = (|| {
        let mut encoder = GzEncoder::new(to, Compression::default());
        io::copy(&mut from, &mut encoder)?;
        let mut to = encoder.finish()?;
        to.flush()?;
        // Before the only other copy is deleted.
        to.sync_all()?;
        fs::rename(&unfinished, with_suffix(path, GZIP))
    })();
    if let Err(error) = result {
        drop(fs::remove_file(&unfinished));
        return Err(error);
    }
    present(fs::remove_file(path)).map(|_| Kept::All)
}

/// A file that somebody else has deleted is no error.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::events::log_file::scratch::Folder;
    use crate::events::open_log::OpenLog;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_767_323_045 + seconds)
    }

    fn rotate(backups_max: usize, compress: bool) -> Rotate {
        Rotate { bytes_max: 1, age_max: Duration::MAX, backups_max, compress }
    }

    fn names(folder: &Folder) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&folder.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_put_aside_under_the_time_and_never_over_each_other() {
        let folder = Folder::new("aside");
        for _ in 0..3 {
            fs::write(folder.log(), "x").unwrap();
            put_aside(&folder.log(), at(0)).unwrap();
        }
        let stamp = "access.log.20260102T030405.000Z";
        let expected = [stamp.to_owned(), format!("{stamp}-1"), format!("{stamp}-2")];
        assert_eq!(names(&folder), expected);
        assert_eq!(backups(&folder.log()).unwrap().len(), 3);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_file_older_than_those_before_it() {
        let folder = Folder::new("set-back");
        for (text, second) in ["a", "b", "c", "d"].iter().zip([100, 40, 40, 101]) {
            fs::write(folder.log(), text).unwrap();
            put_aside(&folder.log(), at(second)).unwrap();
        }
        // More of one moment than one digit counts.
        for _ in 0..12 {
            fs::write(folder.log(), "e").unwrap();
            put_aside(&folder.log(), at(3)).unwrap();
        }
        fs::write(folder.log(), "last").unwrap();
        put_aside(&folder.log(), at(4)).unwrap();
        let texts = || backups(&folder.log()).unwrap().iter().map(fs::read_to_string).collect();
        let texts: Result<Vec<String>, _> = texts();
        let texts = texts.unwrap();
        assert_eq!((texts[..4].concat(), texts.len()), ("abcd".to_owned(), 17));
        assert_eq!(texts[16], "last");
        keep(&folder.log(), rotate(1, false)).unwrap();
        assert_eq!(fs::read_to_string(&backups(&folder.log()).unwrap()[0]).unwrap(), "last");
    }

    #[test]
    fn a_backup_that_cannot_be_tidied_stops_nothing() {
        let folder = Folder::new("untidy");
        for second in 0..3 {
            fs::write(folder.log(), "x").unwrap();
            put_aside(&folder.log(), at(second)).unwrap();
        }
        // Neither deleted as a file nor read as one, whoever runs this.
        let oldest = backups(&folder.log()).unwrap().remove(0);
        fs::remove_file(&oldest).unwrap();
        fs::create_dir(&oldest).unwrap();
        let error = keep(&folder.log(), rotate(1, true)).unwrap_err();
        assert!(error.to_string().contains(&oldest.display().to_string()), "{error}");
        let left = backups(&folder.log()).unwrap();
        assert_eq!((left.len(), &left[0]), (2, &oldest));
        assert!(is_compressed(&left[1]), "{left:?}");
    }

    #[test]
    fn a_file_is_never_renamed_over_another() {
        let folder = Folder::new("over");
        let other = folder.0.join("other");
        fs::write(folder.log(), "new").unwrap();
        fs::write(&other, "old").unwrap();
        let error = rename_new(&folder.log(), &other).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(other).unwrap(), "old");
        assert_eq!(fs::read_to_string(folder.log()).unwrap(), "new");
    }

    #[test]
    fn what_is_put_aside_while_the_thread_works_is_compressed_without_another_order() {
        let folder = Folder::new("busy");
        let mut keeper = Keeper::default();
        for second in 0..50 {
            fs::write(folder.log(), "x".repeat(100_000)).unwrap();
            put_aside(&folder.log(), at(second)).unwrap();
            keeper.look(&folder.log(), rotate(50, true), "log");
        }
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !names(&folder).iter().all(|name| name.ends_with(".gz")) {
            assert!(std::time::Instant::now() < deadline, "{:?}", names(&folder));
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(names(&folder).len(), 50);
    }

    #[test]
    fn only_the_newest_are_kept_and_the_files_of_others_are_left_alone() {
        let folder = Folder::new("prune");
        let others = ["access.log.1", "access.log.old", "access.log.20260102T030405.000Zx.gz", "b"];
        for other in others {
            fs::write(folder.0.join(other), "x").unwrap();
        }
        for second in 0..5 {
            fs::write(folder.log(), second.to_string()).unwrap();
            put_aside(&folder.log(), at(second)).unwrap();
        }
        keep(&folder.log(), rotate(2, false)).unwrap();
        let kept: Vec<String> = backups(&folder.log())
            .unwrap()
            .iter()
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        assert_eq!(kept, ["3", "4"]);
        assert_eq!(names(&folder).len(), 2 + others.len());
        keep(&folder.log(), rotate(0, false)).unwrap();
        assert_eq!(names(&folder).len(), others.len());
    }

    #[test]
    fn a_compressed_file_holds_what_was_logged_and_leftovers_are_finished() {
        let folder = Folder::new("gzip");
        let text = "a line of the log\n".repeat(10_000);
        fs::write(folder.log(), &text).unwrap();
        let aside = put_aside(&folder.log(), at(0)).unwrap();
        fs::write(with_suffix(&aside, UNFINISHED), "of a crash").unwrap();
        keep(&folder.log(), rotate(3, true)).unwrap();
        assert_eq!(names(&folder), ["access.log.20260102T030405.000Z.gz"]);
        let packed = fs::read(with_suffix(&aside, GZIP)).unwrap();
        assert!(packed.len() < text.len() / 10);
        let mut again = String::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut again).unwrap();
        assert_eq!(again, text);
        keep(&folder.log(), rotate(3, true)).unwrap();
        assert_eq!(names(&folder).len(), 1);
    }

    #[test]
    fn a_file_that_another_process_writes_is_neither_compressed_nor_deleted_until_it_is_closed() {
        let folder = Folder::new("in-use");
        let open = || OpenLog::append(&folder.log(), at(0)).unwrap();
        let mut old = open();
        old.write(b"before\n").unwrap();
        let aside = put_aside(&folder.log(), at(0)).unwrap();
        let new = open();
        assert!(!old.is_at(&folder.log()) && new.is_at(&folder.log()));
        for rotate in [rotate(3, true), rotate(0, true)] {
            assert_eq!(keep(&folder.log(), rotate).unwrap(), Kept::NotYet);
        }
        old.write(b"after\n").unwrap();
        assert_eq!(fs::read_to_string(&aside).unwrap(), "before\nafter\n");
        drop(old);
        assert_eq!(keep(&folder.log(), rotate(3, true)).unwrap(), Kept::All);
        assert_eq!(names(&folder), ["access.log", "access.log.20260102T030405.000Z.gz"]);
    }

    #[test]
    fn who_comes_second_puts_nothing_aside() {
        let folder = Folder::new("second");
        let open = || OpenLog::append(&folder.log(), at(0)).unwrap();
        let (first, second) = (open(), open());
        let put = |log: &OpenLog| put_aside_once(&folder.log(), || log.is_at(&folder.log()), at(0));
        assert_eq!(put(&first).unwrap(), PutAside::Done);
        assert_eq!(put(&second).unwrap(), PutAside::Before);
        let third = open();
        assert_eq!(put(&second).unwrap(), PutAside::Before);
        let busy = File::open(&folder.0).unwrap();
        busy.try_lock().unwrap();
        assert_eq!(put(&third).unwrap(), PutAside::Busy);
        drop(busy);
        assert_eq!(put(&third).unwrap(), PutAside::Done);
    }

    #[test]
    fn what_a_crash_left_of_a_deleted_file_is_deleted_too() {
        let folder = Folder::new("unfinished");
        fs::write(folder.log(), "x").unwrap();
        let whole = put_aside(&folder.log(), at(1)).unwrap();
        let left = ["access.log.20260102T030405.000Z.gz.tmp", "access.log.mine.gz.tmp"];
        left.iter().for_each(|name| fs::write(folder.0.join(name), "of a crash").unwrap());
        fs::write(with_suffix(&whole, UNFINISHED), "under way").unwrap();
        keep(&folder.log(), rotate(3, false)).unwrap();
        let stamp = "access.log.20260102T030406.000Z";
        assert_eq!(names(&folder), [stamp, &format!("{stamp}.gz.tmp"), left[1]]);
    }
}
