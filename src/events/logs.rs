//! The logs that are open: the newest plan's, and those of older plans that exchanges still end
//! under.

use std::os::fd::BorrowedFd;

use log::LevelFilter;

use crate::events::line_log::LineLog;
use crate::events::log_file::{LogFile, Outcome};
use crate::events::publisher::Opened;
use crate::events::queue::{AuditLine, Batch, Consumer, Written};
use crate::telemetry::process_log::Note;

#[derive(Debug)]
pub(super) struct Logs {
    /// The newest plan's last.
    pub(super) access: Vec<AccessLog>,
    pub(super) error: Option<(LevelFilter, LineLog)>,
    pub(super) audit: Option<LineLog>,
    /// Short lines that have overtaken the order that brings their file. Bounded: it is queued, and
    /// the next to be obeyed.
    pub(super) early: Vec<Early>,
    /// Such an order is being obeyed.
    pub(super) changing: bool,
    /// Of access logs that are no longer written.
    pub(super) before: Written,
}

#[derive(Debug)]
pub(super) enum Early {
    Audit(AuditLine),
    Note(Note),
}

#[derive(Debug)]
pub(super) struct AccessLog {
    /// Each generation's lines go to the log with the last of these that is not after it.
    pub(super) since: Vec<u64>,
    /// `None`: there was none.
    pub(super) file: Option<LogFile>,
}

impl Logs {
    pub(super) fn new(version: u64, files: Opened) -> Logs {
        let before = Written::default();
        let early = Vec::new();
        let access = Vec::new();
        let mut logs = Logs { access, error: None, audit: None, early, changing: false, before };
        logs.use_files(version, files);
        logs
    }

    pub(super) fn use_files(&mut self, version: u64, new: Opened) {
        let path = new.files.access.as_ref().map(|access| access.path.as_deref());
        let is_wanted = |log: &AccessLog| match (&log.file, path) {
            (Some(file), Some(path)) => file.is_at(path),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        // An older generation may have brought it: then it is open, whatever the newest has.
        let mut log = match self.access.iter().position(is_wanted) {
            Some(index) => self.access.remove(index),
            None => AccessLog { since: Vec::new(), file: new.access },
        };
        log.since.push(version);
        if let (Some(file), Some(access)) = (&mut log.file, &new.files.access) {
            file.settle(access.rotate, access.on_full);
        }
        self.access.push(log);
        let error = line_log(self.error.take().map(|(_, log)| log), new.error);
        self.error = match (new.files.error, error) {
            (Some(error), Some(mut log)) => {
                log.settle(error.rotate);
                Some((error.level, log))
            }
            (_, log) => {
                self.before.error_dropped += log.map_or(0, LineLog::close);
                None
            }
        };
        let audit = line_log(self.audit.take(), new.audit);
        self.audit = match (new.files.audit, audit) {
            (Some(audit), Some(mut log)) => {
                log.settle(audit.rotate);
                Some(log)
            }
            (_, log) => {
                self.before.audit_dropped += log.map_or(0, LineLog::close);
                None
            }
        };
        self.changing = false;
        for early in std::mem::take(&mut self.early) {
            match early {
                Early::Audit(line) => self.audit(line),
                Early::Note(note) => self.note(note),
            }
        }
    }

    pub(super) fn newest(&self) -> Option<u64> {
        self.access.last().and_then(|log| log.since.last()).copied()
    }

    pub(super) fn forget(&mut self, oldest: u64) {
        let all = self.access.iter().flat_map(|log| &log.since);
        let Some(first) = all.copied().filter(|&since| since <= oldest).max() else { return };
        self.access.iter_mut().for_each(|log| log.since.retain(|&since| since >= first));
        for closed in self.access.extract_if(.., |log| log.since.is_empty()) {
            self.before = self.before.plus(closed.written());
        }
    }

    /// Which access log a generation's lines go to. A line that comes too late for its own goes to
    /// the newest.
    pub(super) fn index(&self, version: u64) -> usize {
        let of = |log: &AccessLog| log.since.iter().copied().filter(|&s| s <= version).max();
        let logs = self.access.iter().enumerate();
        logs.max_by_key(|(_, log)| of(log)).map_or(0, |(index, _)| index)
    }

    /// Writes a batch and gives its buffer back, or leaves it with its consumer.
    pub(super) fn write(&mut self, consumer: &mut Consumer, mut batch: Batch) -> Outcome {
        if self.newest().is_some_and(|newest| batch.version > newest) {
            // It has overtaken the order that brings its file.
            consumer.held = Some(batch);
            return Outcome::Held;
        }
        let index = self.index(batch.version);
        let mut outcome = self.write_to(index, &mut batch);
        let newest = self.access.len() - 1;
        let is_replaced = index != newest && self.access[newest].file.is_some();
        if outcome == Outcome::Held
            && is_replaced
            && let Some(file) = &mut self.access[index].file
        {
            // A reload is the way out for who waits for a log that has no room.
            file.let_go(&mut batch);
            outcome = self.write_to(newest, &mut batch);
        }
        match outcome {
            Outcome::Settled => consumer.give_back(batch.text),
            Outcome::Held => consumer.held = Some(batch),
        }
        outcome
    }

    pub(super) fn write_to(&mut self, index: usize, batch: &mut Batch) -> Outcome {
        match &mut self.access[index].file {
            Some(file) => file.write(batch),
            None => {
                self.before.dropped_lines += u64::from(batch.lines);
                Outcome::Settled
            }
        }
    }

    pub(super) fn give_up(&mut self, batch: &Batch) {
        let index = self.index(batch.version);
        if let Some(file) = &mut self.access[index].file {
            file.give_up(batch);
        }
    }

    pub(super) fn audit(&mut self, line: AuditLine) {
        if self.newest().is_some_and(|newest| line.version > newest) {
            return self.early.push(Early::Audit(line));
        }
        let AuditLine { line, .. } = line;
        if let Some(log) = &mut self.audit {
            log.write(line);
        }
    }

    pub(super) fn note(&mut self, note: Note) {
        if let Some((level, log)) = &mut self.error
            && note.level <= *level
        {
            log.write(note.line);
        }
    }

    pub(super) fn reopen(&mut self, mut held: Option<&mut Batch>) {
        let holding = held.as_ref().map(|batch| self.index(batch.version));
        for (index, log) in self.access.iter_mut().enumerate() {
            if let Some(file) = &mut log.file {
                file.reopen(if holding == Some(index) { held.take() } else { None });
            }
        }
        self.line_logs().for_each(LineLog::reopen);
    }

    pub(super) fn rotate_here(&mut self, yes: bool) {
        let files = self.access.iter_mut().filter_map(|log| log.file.as_mut());
        files.for_each(|file| file.rotate_here(yes));
        self.line_logs().for_each(|log| log.rotate_here(yes));
    }

    pub(super) fn line_logs(&mut self) -> impl Iterator<Item = &mut LineLog> {
        self.error.iter_mut().map(|(_, log)| log).chain(&mut self.audit)
    }

    pub(super) fn audit_has_room(&mut self) -> bool {
        self.audit.as_mut().is_none_or(LineLog::has_room)
    }

    pub(super) fn error_has_room(&mut self) -> bool {
        self.error.as_mut().is_none_or(|(_, log)| log.has_room())
    }

    /// Pipes that hold lines up.
    pub(super) fn stalled(&self) -> Vec<BorrowedFd<'_>> {
        let access = self.access.iter().filter_map(|log| log.file.as_ref()?.stalled());
        let lines = self.error.iter().map(|(_, log)| log).chain(&self.audit);
        access.chain(lines.filter_map(LineLog::stalled)).collect()
    }

    pub(super) fn give_up_lines(&mut self) {
        self.line_logs().for_each(LineLog::give_up);
    }

    pub(super) fn written(&self) -> Written {
        let mut sums = self.access.iter().fold(self.before, |sum, log| sum.plus(log.written()));
        sums.error_dropped += self.error.as_ref().map_or(0, |(_, log)| log.dropped_lines());
        sums.audit_dropped += self.audit.as_ref().map_or(0, LineLog::dropped_lines);
        sums
    }
}

fn line_log(open: Option<LineLog>, new: Option<LogFile>) -> Option<LineLog> {
    match open {
        Some(log) => Some(log.moved_to(new)),
        None => new.map(LineLog::new),
    }
}

impl AccessLog {
    pub(super) fn written(&self) -> Written {
        self.file.as_ref().map(|file| file.written).unwrap_or_default()
    }
}
