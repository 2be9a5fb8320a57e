//! The log of short lines that one thread or another has to tell, one at a time: audit and error
//! log. While it is a pipe that takes none they are held here, and their senders' queues fill.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use crate::events::log_file::{LogFile, Outcome};
use crate::events::queue::Batch;
use crate::plan::{OnFull, Rotate};

#[derive(Debug)]
pub(super) struct LineLog {
    file: LogFile,
    /// Oldest first. Bounded: nobody takes lines from a queue while there is one here, but for the
    /// last ones of a core that has ended.
    held: VecDeque<Batch>,
}

impl LineLog {
    pub(super) fn new(file: LogFile) -> LineLog {
        LineLog { file, held: VecDeque::new() }
    }

    /// What waits for the old file goes to the new one.
    pub(super) fn moved_to(mut self, file: Option<LogFile>) -> LineLog {
        if let Some(file) = file {
            let sums = self.file.written;
            self.held.iter_mut().for_each(|batch| self.file.let_go(batch));
            self.file = file;
            self.file.written = sums;
        }
        self
    }

    pub(super) fn settle(&mut self, rotate: Option<Rotate>) {
        self.file.settle(rotate, OnFull::Drop);
    }

    pub(super) fn rotate_here(&mut self, yes: bool) {
        self.file.rotate_here(yes);
    }

    pub(super) fn write(&mut self, line: Vec<u8>) {
        self.held.push_back(Batch { text: line, lines: 1, ..Batch::default() });
        self.has_room();
    }

    /// Writes what is held. False: not all of it.
    pub(super) fn has_room(&mut self) -> bool {
        while let Some(line) = self.held.front_mut() {
            if self.file.write(line) == Outcome::Held {
                return false;
            }
            self.held.pop_front();
        }
        true
    }

    pub(super) fn reopen(&mut self) {
        self.file.reopen(self.held.front_mut());
    }

    pub(super) fn stalled(&self) -> Option<BorrowedFd<'_>> {
        self.file.stalled()
    }

    /// The process ends, or nobody wants this log any more.
    pub(super) fn give_up(&mut self) {
        self.held.drain(..).for_each(|line| self.file.give_up(&line));
    }

    pub(super) fn dropped_lines(&self) -> u64 {
        self.file.written.dropped_lines
    }

    /// The lines that it has lost.
    pub(super) fn close(mut self) -> u64 {
        self.give_up();
        self.dropped_lines()
    }
}
