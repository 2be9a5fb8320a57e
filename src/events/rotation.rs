//! Log files that were put aside: their names, how many are kept, their compression. A rotated file
//! is named after the moment of its rotation, `access.log.20261121T135300.123Z`, so that nothing
//! is ever renamed twice and names sort by age. Compressing and deleting happen on a thread of
//! their own, which looks at the folder and not at a list: what a crash left behind is done the
//! next time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread;
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::plan::Rotate;
use crate::telemetry::decimal::padded;
use crate::telemetry::timestamp::Civil;

/// Puts the file aside. Its new name.
pub(super) fn put_aside(path: &Path, at: SystemTime) -> io::Result<PathBuf> {
    let mut name = stamp(at);
    let mut aside = with_suffix(path, &name);
    // Twice within a millisecond, or a clock that was set back.
    for number in 1.. {
        if !aside.exists() && !with_suffix(&aside, GZIP).exists() {
            break;
        }
        name = format!("{}-{number}", stamp(at));
        aside = with_suffix(path, &name);
    }
    fs::rename(path, &aside)?;
    Ok(aside)
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
    // `-1` of the same millisecond sorts behind it, whether compressed or not.
    found.sort_by_key(
        |path| {
            if is_compressed(path) { path.with_extension("") } else { path.clone() }
        },
    );
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
            for (path, rotate) in orders {
                if let Err(error) = keep(&path, rotate) {
                    log::error!(
                        "{name}: cannot tidy the rotated files of {}: {error}; the next rotation \
                         tries again",
                        path.display()
                    );
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

/// Deletes what is too old and compresses the rest, newest last.
fn keep(path: &Path, rotate: Rotate) -> io::Result<()> {
    prune(path, rotate.backups_max)?;
    if !rotate.compress {
        return Ok(());
    }
    for backup in backups(path)? {
        if !is_compressed(&backup) {
            compress(&backup)?;
            // Rotations went on meanwhile: the disk must not fill with what is to be
            // deleted anyway.
            prune(path, rotate.backups_max)?;
        }
    }
    Ok(())
}

fn prune(path: &Path, backups_max: usize) -> io::Result<()> {
    let backups = backups(path)?;
    for old in &backups[..backups.len().saturating_sub(backups_max)] {
        present(fs::remove_file(old))?;
    }
    Ok(())
}

fn compress(path: &Path) -> io::Result<()> {
    let unfinished = with_suffix(path, UNFINISHED);
    let Some(mut from) = present(File::open(path))? else {
        return Ok(());
    };
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
    if result.is_err() {
        drop(fs::remove_file(&unfinished));
        return result;
    }
    present(fs::remove_file(path)).map(|_| ())
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
}
