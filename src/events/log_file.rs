//! One log file as the publisher core writes it: appended to, opened again when it was rotated
//! away, rotated by itself when it is large or old, complained about once when it cannot be
//! written. Lines that cannot be written are counted and given up, or, where none may be lost, the
//! batch is held until it can be. One that a pipe has no room for is held in either case: the
//! queue behind it is there for slow readers.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::events::open_log::OpenLog;
use crate::events::queue::{Batch, Written};
use crate::events::rotation::{self, Keeper, PutAside};
use crate::limits::{LOG_COMPLAINT_INTERVAL, LOG_STALL_MAX, ROTATE_RETRY_INTERVAL};
use crate::plan::{OnFull, Rotate};

/// What time it is, for the publisher: it never asks on its own.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    pub now: fn() -> Instant,
    pub wall: fn() -> SystemTime,
}

#[derive(Debug)]
pub(super) struct LogFile {
    /// `access log`, for messages.
    name: &'static str,
    /// `None`: standard output.
    path: Option<PathBuf>,
    /// After an error it is not, and is opened again for the next batch.
    open: Option<OpenLog>,
    clocks: Clocks,
    on_full: OnFull,
    rotate: Option<Rotate>,
    is_rotating: bool,
    keeper: Keeper,
    /// A rotation failed then.
    stuck: Option<Instant>,
    pub(super) written: Written,
    /// The last write ended inside a line that is given up.
    torn: bool,
    /// A batch is held, and nothing of it was taken since then.
    held_since: Option<Instant>,
    outage: Outage,
}

/// What was said of lines that were lost, and what is still to be said.
#[derive(Debug, Default)]
struct Outage {
    failing: bool,
    told: bool,
    last_told: Option<Instant>,
    last_stall_told: Option<Instant>,
    lost: u64,
    /// Lost before they came here, because this log was slow.
    late: u64,
}

/// What became of a batch.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Written, or given up and counted.
    Settled,
    /// To be tried again: none of its lines may be lost.
    Held,
}

impl LogFile {
    /// `None` is standard output. A file is opened at once, so that an error is told at the start.
    pub(super) fn open(
        name: &'static str,
        path: Option<PathBuf>,
        clocks: Clocks,
    ) -> Result<LogFile, (PathBuf, io::Error)> {
        let now = (clocks.wall)();
        let open = match OpenLog::open(path.as_deref(), now) {
            Ok(open) => Some(open),
            Err(error) => return Err((path.unwrap_or("standard output".into()), error)),
        };
        Ok(LogFile {
            name,
            path,
            open,
            clocks,
            on_full: OnFull::Drop,
            rotate: None,
            is_rotating: true,
            keeper: Keeper::default(),
            stuck: None,
            written: Written::default(),
            torn: false,
            held_since: None,
            outage: Outage::default(),
        })
    }

    pub(super) fn is_at(&self, wanted: Option<&Path>) -> bool {
        self.path.as_deref() == wanted
    }

    /// What may change while the file stays.
    pub(super) fn settle(&mut self, rotate: Option<Rotate>, on_full: OnFull) {
        self.on_full = on_full;
        let is_new = self.is_rotating && self.rotate != rotate;
        self.rotate = rotate;
        if let (Some(path), Some(rotate), true) = (&self.path, rotate, is_new) {
            self.keeper.look(path, rotate, self.name);
        }
    }

    /// Writes the rest of a batch, or gives up what of it cannot be written.
    pub(super) fn write(&mut self, batch: &mut Batch) -> Outcome {
        self.note_late(std::mem::take(&mut batch.lost));
        self.keep_in_place(batch);
        let (sent, result) = self.send(&batch.text[batch.sent..]);
        batch.sent += sent;
        self.written.bytes += sent as u64;
        let now = (self.clocks.now)();
        let before = self.held_since.take().filter(|_| sent == 0).unwrap_or(now);
        let Err(error) = result else {
            self.written.lines += u64::from(batch.lines);
            self.rejoice();
            return Outcome::Settled;
        };
        if error.kind() == ErrorKind::WouldBlock {
            self.held_since = Some(before);
            self.note_stall(now);
            return Outcome::Held;
        }
        self.open = None;
        match self.on_full {
            OnFull::Block => {
                self.held_since = Some(before);
                self.complain(&error, 0);
                Outcome::Held
            }
            OnFull::Drop => {
                let whole = newlines(&batch.text[..batch.sent]);
                self.written.lines += whole;
                let lost = u64::from(batch.lines) - whole;
                self.torn |= batch.is_cut();
                self.complain(&error, lost);
                Outcome::Settled
            }
        }
    }

    /// What waits for somebody at the other end to take what is here; `None`: nothing does.
    pub(super) fn stalled(&self) -> Option<BorrowedFd<'_>> {
        self.held_since.and(self.open.as_ref()).map(OpenLog::as_fd)
    }

    fn is_stuck(&self, now: Instant) -> bool {
        self.held_since.is_some_and(|since| now.saturating_duration_since(since) >= LOG_STALL_MAX)
    }

    /// A batch that is held goes elsewhere, whole lines of it.
    pub(super) fn let_go(&mut self, batch: &mut Batch) {
        self.held_since = None;
        self.torn |= batch.is_cut();
        batch.back_to_line();
    }

    /// Gives up what is left of a batch: the process ends.
    pub(super) fn give_up(&mut self, batch: &Batch) {
        let whole = newlines(&batch.text[..batch.sent]);
        self.written.lines += whole;
        self.written.dropped_lines += u64::from(batch.lines) - whole;
    }

    /// How much of `text` went out, and why not all.
    fn send(&mut self, text: &[u8]) -> (usize, io::Result<()>) {
        if self.torn {
            // The rest of that line is lost: what follows must not be taken for it.
            match self.put(b"\n") {
                Ok(_) => self.torn = false,
                Err(error) => return (0, Err(error)),
            }
        }
        let mut sent = 0;
        while sent < text.len() {
            match self.put(&text[sent..]) {
                Ok(0) => return (sent, Err(ErrorKind::WriteZero.into())),
                Ok(taken) => sent += taken,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return (sent, Err(error)),
            }
        }
        (sent, Ok(()))
    }

    /// One write, of as much as is taken.
    fn put(&mut self, text: &[u8]) -> io::Result<usize> {
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(OpenLog::open(self.path.as_deref(), (self.clocks.wall)())?),
        };
        open.write(text)
    }

    // --- rotation -----------------------------------------------------------------------------

    /// Opens the file by its name again (SIGUSR1). One that cannot be opened anew stays open as it
    /// is: better under the old name than lost. `held` is a batch of which a part is written.
    pub(super) fn reopen(&mut self, held: Option<&mut Batch>) {
        let Some(path) = &self.path else {
            return;
        };
        match OpenLog::append(path, (self.clocks.wall)()) {
            Ok(new) => {
                self.written.reopened += 1;
                if self.open.as_ref().is_some_and(|open| open.is_at(path)) {
                    return; // nobody has put it aside
                }
                self.open = Some(new);
                self.torn = false;
                self.held_since = None;
                if let Some(batch) = held {
                    batch.back_to_line();
                }
            }
            Err(error) => log::error!(
                "{}: cannot open {} again: {error}; lines go to the old file",
                self.name,
                path.display()
            ),
        }
    }

    /// Before each batch. Two processes may write this file, of which one puts it aside.
    fn keep_in_place(&mut self, batch: &Batch) {
        let (Some(rotate), Some(path), Some(open)) = (self.rotate, &self.path, &mut self.open)
        else {
            return;
        };
        let now = (self.clocks.now)();
        if self.is_rotating && self.keeper.is_needed_again() {
            self.keeper.look(path, rotate, self.name);
        }
        if !open.is_regular() || batch.sent > 0 || self.torn {
            return;
        }
        if open.is_time_to_look(now)
            && !open.is_at(path)
            && let Ok(new) = OpenLog::append(path, (self.clocks.wall)())
        {
            *open = new;
        }
        self.rotate_if_due(rotate, batch, now);
    }

    fn rotate_if_due(&mut self, rotate: Rotate, batch: &Batch, now: Instant) {
        let (Some(path), Some(open)) = (&self.path, &self.open) else {
            return;
        };
        let is_large = open.bytes + batch.text.len() as u64 > rotate.bytes_max;
        let is_due = open.bytes > 0 && (is_large || self.age(open) >= rotate.age_max);
        if !is_due || !self.is_rotating {
            return;
        }
        let wait = |since| now.saturating_duration_since(since) < ROTATE_RETRY_INTERVAL;
        if self.stuck.is_some_and(wait) {
            return;
        }
        self.stuck = None;
        match rotation::put_aside_once(path, || open.is_at(path), (self.clocks.wall)()) {
            Ok(PutAside::Done) => {
                self.open = None;
                self.keeper.look(path, rotate, self.name);
            }
            Ok(PutAside::Before) => self.open = None,
            Ok(PutAside::Busy) => {}
            Err(error) => {
                self.stuck = Some(now);
                log::error!(
                    "{}: cannot rotate {}: {error}; its folder must be writable, lines go to the \
                     same file until then",
                    self.name,
                    path.display()
                );
            }
        }
    }

    /// False: the process that came after this one rotates the log now, as its plan says.
    pub(super) fn rotate_here(&mut self, yes: bool) {
        self.is_rotating = yes;
        if !yes {
            self.keeper = Keeper::default();
        }
    }

    fn age(&self, open: &OpenLog) -> Duration {
        (self.clocks.wall)().duration_since(open.begun).unwrap_or_default()
    }

    // --- what is said -------------------------------------------------------------------------

    fn complain(&mut self, error: &io::Error, lost: u64) {
        self.written.dropped_lines += lost;
        self.outage.lost += lost;
        self.outage.failing = true;
        if self.outage.told || !self.is_time_to_speak() {
            return;
        }
        self.outage.told = true;
        let consequence = match self.on_full {
            OnFull::Drop => format!("{} lines are lost so far", self.outage.lost),
            OnFull::Block => "connections wait, for no line may be lost".to_owned(),
        };
        log::error!(
            "{}: cannot write {}: {error}; {consequence}; free space or correct its permissions, \
             writing then goes on by itself",
            self.name,
            self.target(),
        );
    }

    /// Somebody who does not read is told of once in a while.
    fn note_stall(&mut self, now: Instant) {
        let speaks = |last| now.saturating_duration_since(last) >= LOG_COMPLAINT_INTERVAL;
        if !self.is_stuck(now)
            || self.outage.told
            || !self.outage.last_stall_told.is_none_or(speaks)
        {
            return;
        }
        self.outage.failing = true;
        self.outage.told = true;
        self.outage.last_stall_told = Some(now);
        let consequence = match self.on_full {
            OnFull::Drop => "lines wait in memory, and are lost once that is full",
            OnFull::Block => "connections wait, for no line may be lost",
        };
        log::warn!(
            "{}: {} takes no lines, for who reads it has stopped; {consequence}; have it read, or \
             load a configuration that writes elsewhere",
            self.name,
            self.target()
        );
    }

    /// Once after a complaint. What fails and recovers by turns is told of once per interval.
    fn rejoice(&mut self) {
        if !std::mem::take(&mut self.outage.failing) || !std::mem::take(&mut self.outage.told) {
            return;
        }
        let lost = std::mem::take(&mut self.outage.lost);
        log::info!("{}: {} is written again, {lost} lines were lost", self.name, self.target());
    }

    fn note_late(&mut self, lost: u64) {
        self.outage.late += lost;
        if self.outage.late > 0 && self.is_time_to_speak() {
            let late = std::mem::take(&mut self.outage.late);
            log::warn!(
                "{}: {} takes lines too slowly, {late} were lost; on_full = \"block\" would keep \
                 connections waiting instead",
                self.name,
                self.target()
            );
        }
    }

    fn is_time_to_speak(&mut self) -> bool {
        let now = (self.clocks.now)();
        let waited = |last| now.saturating_duration_since(last) >= LOG_COMPLAINT_INTERVAL;
        let due = self.outage.last_told.is_none_or(waited);
        if due {
            self.outage.last_told = Some(now);
        }
        due
    }

    fn target(&self) -> String {
        match &self.path {
            None => "standard output".to_owned(),
            Some(path) => path.display().to_string(),
        }
    }
}

fn newlines(text: &[u8]) -> u64 {
    text.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::scratch::{CLOCKS, Folder};
    use super::*;

    fn log(path: PathBuf) -> LogFile {
        LogFile::open("access log", Some(path), CLOCKS).unwrap()
    }

    fn batch(text: &str) -> Batch {
        let lines = newlines(text.as_bytes()) as u32;
        Batch { text: text.as_bytes().to_vec(), lines, ..Batch::default() }
    }

    fn write(log: &mut LogFile, text: &str) {
        assert_eq!(log.write(&mut batch(text)), Outcome::Settled);
    }

    fn breaks(log: &mut LogFile) {
        // Every write to it fails.
        log.open.as_mut().unwrap().file = File::open("/dev/null").unwrap();
    }

    #[test]
    fn a_log_that_failed_is_opened_again_for_the_next_batch_and_tells_what_was_lost() {
        let folder = Folder::new("recover");
        let mut log = log(folder.log());
        breaks(&mut log);
        write(&mut log, "a\nb\n");
        assert!(log.outage.told && log.outage.lost == 2);
        write(&mut log, "c\nd\n");
        assert!(!log.outage.told && log.outage.lost == 0);
        assert_eq!((log.written.dropped_lines, log.written.lines), (2, 2));
        assert_eq!(folder.text(), "c\nd\n");
        breaks(&mut log);
        write(&mut log, "e\n");
        assert!(!log.outage.told, "it fails by turns: once per interval is enough");
    }

    #[test]
    fn a_log_that_may_not_lose_a_line_holds_the_batch_and_goes_on_where_it_was() {
        let folder = Folder::new("held");
        let mut log = log(folder.log());
        log.settle(None, OnFull::Block);
        let mut batch = batch("a\nbc\n");
        // As if the disk had been full after three bytes.
        assert_eq!(log.send(b"a\nb").0, 3);
        batch.sent = 3;
        breaks(&mut log);
        assert_eq!(log.write(&mut batch), Outcome::Held);
        assert_eq!(log.write(&mut batch), Outcome::Settled);
        assert_eq!(folder.text(), "a\nbc\n");
        assert_eq!((log.written.dropped_lines, log.written.lines), (0, 2));
    }

    #[test]
    fn a_line_that_a_reopen_cuts_is_whole_in_the_new_file() {
        let folder = Folder::new("cut");
        let mut log = log(folder.log());
        log.settle(None, OnFull::Block);
        let mut batch = batch("a\nbc\n");
        assert_eq!(log.send(b"a\nb").0, 3);
        batch.sent = 3;
        fs::rename(folder.log(), folder.0.join("old")).unwrap();
        log.reopen(Some(&mut batch));
        assert_eq!(log.write(&mut batch), Outcome::Settled);
        assert_eq!(folder.text(), "bc\n");
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let folder = Folder::new("torn");
        let mut log = log(folder.log());
        // As if the disk had been full after eight bytes.
        assert_eq!(log.send(b"whole\nto").0, 8);
        let mut cut = batch("whole\ntorn\n");
        cut.sent = 8;
        breaks(&mut log);
        assert_eq!(log.write(&mut cut), Outcome::Settled);
        write(&mut log, "next\n");
        assert_eq!(folder.text(), "whole\nto\nnext\n");
        assert_eq!((log.written.dropped_lines, log.written.lines), (1, 2));
    }

    #[test]
    fn a_reopen_that_fails_keeps_the_old_file() {
        let folder = Folder::new("reopen");
        let inner = folder.0.join("inner");
        fs::create_dir(&inner).unwrap();
        let mut log = log(inner.join("access.log"));
        write(&mut log, "a\n");
        let moved = folder.0.join("moved");
        fs::rename(&inner, &moved).unwrap();
        log.reopen(None);
        write(&mut log, "a\n");
        assert_eq!(log.written.lines, 2);
        assert_eq!(fs::read_to_string(moved.join("access.log")).unwrap(), "a\na\n");
    }

    #[test]
    fn a_log_is_appended_to_and_others_may_not_read_it() {
        let folder = Folder::new("append");
        for _ in 0..2 {
            write(&mut log(folder.log()), "a\n");
        }
        assert_eq!(folder.text(), "a\na\n");
        let mode = fs::metadata(folder.log()).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
    }

    fn rotating(path: PathBuf, bytes_max: u64, age_max: Duration) -> LogFile {
        let rotate = Rotate { bytes_max, age_max, backups_max: 5, compress: false };
        let mut log = log(path);
        log.settle(Some(rotate), OnFull::Drop);
        log
    }

    #[test]
    fn a_file_is_put_aside_before_it_grows_beyond_its_size_and_no_batch_is_split() {
        let folder = Folder::new("size");
        let mut log = rotating(folder.log(), 10, Duration::MAX);
        for text in ["12345\n", "678\n", "9\n", "0123456789 and more\n", "a\n"] {
            write(&mut log, text);
        }
        assert_eq!(folder.rotated(), ["12345\n678\n", "9\n", "0123456789 and more\n"]);
        assert_eq!(folder.text(), "a\n");
        // The size of a file that was there before counts as well.
        drop(log);
        write(&mut rotating(folder.log(), 10, Duration::MAX), "123456789\n");
        assert_eq!(folder.text(), "123456789\n");
    }

    #[test]
    fn a_restart_goes_on_with_the_age_that_the_file_has() {
        let folder = Folder::new("age");
        let day = Duration::from_secs(86_400);
        fs::write(folder.log(), "old\n").unwrap();
        let file = OpenOptions::new().append(true).open(folder.log()).unwrap();
        file.set_modified(SystemTime::now() - 6 * day).unwrap();
        write(&mut rotating(folder.log(), u64::MAX, 7 * day), "new\n");
        assert_eq!(folder.text(), "old\nnew\n");
        file.set_modified(SystemTime::now() - 8 * day).unwrap();
        write(&mut rotating(folder.log(), u64::MAX, 7 * day), "newer\n");
        assert_eq!(
            (folder.rotated(), folder.text()),
            (vec!["old\nnew\n".into()], "newer\n".into())
        );
    }

    #[test]
    fn a_rotation_that_fails_loses_no_line_and_waits_before_it_tries_again() {
        let folder = Folder::new("stuck");
        // Its name cannot become any longer.
        let path = folder.0.join("a".repeat(250));
        let mut log = rotating(path.clone(), 1, Duration::MAX);
        write(&mut log, "a\n");
        write(&mut log, "b\n");
        assert!(log.stuck.is_some());
        assert_eq!(fs::read_to_string(path).unwrap(), "a\nb\n");
    }

    #[test]
    fn a_log_that_another_process_rotates_is_followed() {
        let folder = Folder::new("followed");
        let mut ours = rotating(folder.log(), 10, Duration::MAX);
        let mut other = rotating(folder.log(), 10, Duration::MAX);
        ours.rotate_here(false);
        for text in ["1234567\n", "8\n"] {
            write(&mut ours, text);
        }
        write(&mut other, "other\n");
        assert_eq!(folder.rotated(), ["1234567\n8\n"]);
        ours.open.as_mut().unwrap().look_again();
        write(&mut ours, "ours, however long it is\n");
        assert_eq!(folder.text(), "other\nours, however long it is\n");
    }

    #[test]
    fn a_file_that_somebody_has_cut_is_as_long_as_it_is() {
        let folder = Folder::new("truncated");
        let mut log = rotating(folder.log(), 10, Duration::MAX);
        write(&mut log, "12345678\n");
        File::options().write(true).open(folder.log()).unwrap().set_len(0).unwrap();
        log.open.as_mut().unwrap().look_again();
        write(&mut log, "9\n");
        assert!(folder.rotated().is_empty());
        assert_eq!(folder.text(), "9\n");
    }

    #[test]
    fn devices_are_never_rotated() {
        let mut log = rotating(PathBuf::from("/dev/null"), 1, Duration::ZERO);
        write(&mut log, "a\n");
        write(&mut log, "b\n");
        assert!(log.stuck.is_none() && Path::new("/dev/null").exists());
    }
}

/// What the tests of all logs need.
#[cfg(test)]
pub(super) mod scratch {
    use std::fs;
    use std::path::PathBuf;
    use std::time::{Instant, SystemTime};

    use super::Clocks;

    /// A folder of its own for each test, gone with it.
    pub(crate) struct Folder(pub(crate) PathBuf);

    impl Folder {
        pub(crate) fn new(test: &str) -> Folder {
            let name = format!("corelane-log-{}-{test}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        pub(crate) fn log(&self) -> PathBuf {
            self.0.join("access.log")
        }

        pub(crate) fn text(&self) -> String {
            fs::read_to_string(self.log()).unwrap()
        }

        /// What was put aside, oldest first.
        pub(crate) fn rotated(&self) -> Vec<String> {
            let mut paths: Vec<PathBuf> =
                fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect();
            paths.retain(|path| *path != self.log());
            paths.sort();
            paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    pub(crate) const CLOCKS: Clocks = Clocks { now: Instant::now, wall: SystemTime::now };
}
