//! A log while it is open: a file, a device, a pipe, or standard output whatever that is. Writing
//! never waits for who reads at the other end of a pipe, a terminal or a socket: a thread that did
//! could neither write other logs nor be told to write elsewhere.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::engine;
use crate::limits::LOG_LOOK_INTERVAL;

#[derive(Debug)]
pub(super) struct OpenLog {
    pub(super) file: File,
    kind: Kind,
    pub(super) bytes: u64,
    pub(super) begun: SystemTime,
    looked: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Regular,
    /// A pipe or a device, opened by us and non-blocking.
    Stream,
    /// The same, but not ours: whoever else has it open must not find it non-blocking.
    Shared,
    Socket,
}

impl OpenLog {
    /// `None` is standard output.
    pub(super) fn open(path: Option<&Path>, now: SystemTime) -> io::Result<OpenLog> {
        match path {
            Some(path) => OpenLog::append(path, now),
            None => OpenLog::standard_output(now),
        }
    }

    /// Appends, so that a rotation by copy and truncate works too. Logs name clients: others may
    /// not read them.
    pub(super) fn append(path: &Path, now: SystemTime) -> io::Result<OpenLog> {
        let mut open = OpenLog::append_once(path, now)?;
        for _ in 0..OPENINGS_MAX {
            if !open.is_regular() || open.is_claimed() && open.is_at(path) {
                break;
            }
            // It was put aside between the two calls, and may be gone the next moment.
            open = OpenLog::append_once(path, now)?;
        }
        Ok(open)
    }

    fn append_once(path: &Path, now: SystemTime) -> io::Result<OpenLog> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o640);
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        // A pipe whose reader has gone, or has not come yet, is a slow log and not a broken one.
        if fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
            options.read(true);
        }
        let file = options.open(path)?;
        let metadata = file.metadata()?;
        // Where the file system knows when a file was made, that is when; else when it was last
        // written, which is later.
        let times = [metadata.created(), metadata.modified()];
        let oldest = times.into_iter().filter_map(Result::ok).min();
        let begun = oldest.filter(|_| metadata.len() > 0).unwrap_or(now);
        let kind = if metadata.is_file() { Kind::Regular } else { Kind::Stream };
        Ok(OpenLog { file, kind, bytes: metadata.len(), begun, looked: None })
    }

    /// What others write there as well goes on as it was.
    fn standard_output(now: SystemTime) -> io::Result<OpenLog> {
        let shared = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let kind = shared.metadata()?.file_type();
        let (file, kind) = if kind.is_file() {
            // One position for all who write it.
            (shared, Kind::Regular)
        } else if kind.is_socket() {
            (shared, Kind::Socket)
        } else {
            let mut options = OpenOptions::new();
            options.append(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
            match options.open("/proc/self/fd/1") {
                Ok(own) => (own, Kind::Stream),
                // Of another user, or /proc is not there.
                Err(_) => (shared, Kind::Shared),
            }
        };
        Ok(OpenLog { file, kind, bytes: 0, begun: now, looked: None })
    }

    /// One write, of as much as is taken at once; `WouldBlock` when that is nothing.
    pub(super) fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let taken = match self.kind {
            Kind::Regular | Kind::Stream => self.file.write(text)?,
            Kind::Socket => engine::send_at_once(self.file.as_fd(), text)?,
            Kind::Shared if !engine::until_writable(&[self.file.as_fd()], Duration::ZERO) => {
                return Err(ErrorKind::WouldBlock.into());
            }
            // pipe(7): one that is writable has room for so much.
            Kind::Shared => self.file.write(&text[..text.len().min(libc::PIPE_BUF)])?,
        };
        self.bytes += taken as u64;
        Ok(taken)
    }

    /// Not a device or a pipe.
    pub(super) fn is_regular(&self) -> bool {
        self.kind == Kind::Regular
    }

    /// For as long as it is open here, nobody who keeps the files that were put aside compresses or
    /// deletes it ([`super::rotation`]): two processes write one log while one hands over to the
    /// other. File systems without locks do without.
    fn is_claimed(&self) -> bool {
        !matches!(self.file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Whether this is what the path names.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let (Ok(ours), Ok(named)) = (self.file.metadata(), fs::metadata(path)) else {
            return false;
        };
        (ours.dev(), ours.ino()) == (named.dev(), named.ino())
    }

    /// Now and then: others may write this file too, put it aside, or cut it.
    pub(super) fn is_time_to_look(&mut self, now: Instant) -> bool {
        let waited = |last| now.saturating_duration_since(last) >= LOG_LOOK_INTERVAL;
        let due = self.looked.is_none_or(waited);
        if due {
            self.looked = Some(now);
            if let Ok(metadata) = self.file.metadata() {
                self.bytes = metadata.len();
            }
        }
        due
    }

    #[cfg(test)]
    pub(super) fn look_again(&mut self) {
        self.looked = None;
    }
}

impl AsFd for OpenLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// It would have to be put aside between each of them and the next.
const OPENINGS_MAX: usize = 3;
