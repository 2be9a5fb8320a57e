//! The publisher core: takes lines from the other cores and writes them to the log files. It never
//! slows a data core: it may block on a disk, or hold what a pipe does not take, while the queues
//! fill and the data cores drop and count, or keep connections waiting where no line may be lost. A
//! pipe that takes nothing holds up its own log only, not the others, and no order. After a reload,
//! exchanges that began before it are told of in the access log of their own plan, which stays open
//! until the last of them has ended.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Select, Sender, TryRecvError};

use crate::engine;
use crate::events::log_file::{LogFile, Outcome};
use crate::events::logs::{Early, Logs};
use crate::events::queue::{self, AuditLine, Consumer, Order, Producer, Written};
use crate::limits::{
    ACCESS_LOG_BATCHES_MAX, ACCESS_LOG_RETRY_INTERVAL, AUDIT_LINES_MAX, LOG_STALL_LOOK_INTERVAL,
    LOG_STALL_MAX,
};
use crate::plan::{AuditLog, ErrorLog, OnFull, Plan, Rotate};
use crate::telemetry::process_log::{self, Note};

pub use crate::events::log_file::Clocks;

/// The publisher before it runs.
#[derive(Debug)]
pub struct Publisher;

#[derive(Clone, Debug)]
pub struct Settings {
    pub files: Files,
    /// Of the plan that they are from.
    pub version: u64,
    /// How many producers are needed.
    pub cores: usize,
    pub clocks: Clocks,
}

/// Where lines go. What is `None` is not written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    pub access: Option<AccessFile>,
    pub error: Option<ErrorLog>,
    pub audit: Option<AuditLog>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessFile {
    /// `None`: standard output.
    pub path: Option<PathBuf>,
    pub rotate: Option<Rotate>,
    pub on_full: OnFull,
}

impl Files {
    pub fn of(plan: &Plan) -> Files {
        Files {
            access: plan.access_log.as_ref().map(|log| AccessFile {
                path: log.path.clone(),
                rotate: log.rotate,
                on_full: log.on_full,
            }),
            error: plan.error_log.clone(),
            audit: plan.audit_log.clone(),
        }
    }

    /// Opens what is not open as part of `open`. May block.
    pub fn open(self, open: &Files, clocks: Clocks) -> Result<Opened, StartError> {
        let path = |files: &Files| files.access.as_ref().map(|log| log.path.clone());
        let error = |files: &Files| files.error.as_ref().map(|log| Some(log.path.clone()));
        let audit = |files: &Files| files.audit.as_ref().map(|log| Some(log.path.clone()));
        let new = |name, wanted: Option<Option<PathBuf>>, now| match wanted {
            Some(path) if Some(&path) != now => LogFile::open(name, path, clocks)
                .map(Some)
                .map_err(|(path, cause)| StartError::Open { log: name, path, cause }),
            Some(_) | None => Ok(None),
        };
        Ok(Opened {
            access: new("access log", path(&self), path(open).as_ref())?,
            error: new("error log", error(&self), error(open).as_ref())?,
            audit: new("audit log", audit(&self), audit(open).as_ref())?,
            files: self,
        })
    }
}

/// Nothing can fail any more: what was not open is.
#[derive(Debug)]
pub struct Opened {
    pub(super) files: Files,
    pub(super) access: Option<LogFile>,
    pub(super) error: Option<LogFile>,
    pub(super) audit: Option<LogFile>,
}

/// What starting gives: the control core's end, one producer for each data core, and the thread.
#[derive(Debug)]
pub struct Started {
    pub handle: PublisherHandle,
    pub producers: Vec<Producer>,
    pub thread: JoinHandle<()>,
}

impl Publisher {
    /// Opens the files, so that an error is told before anything runs, then starts the thread.
    pub fn start(settings: Settings) -> Result<Started, StartError> {
        let Settings { files, version, cores, clocks } = settings;
        let logs = Logs::new(version, files.open(&Files::default(), clocks)?);
        let (producers, consumers) = (0..cores).map(|_| queue::pair()).unzip();
        let (worker, handle) = Worker::new(logs, consumers, clocks);
        let thread = thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(move || worker.run())
            .map_err(StartError::Thread)?;
        Ok(Started { handle, producers, thread })
    }
}

/// Where, what, and what to do.
#[derive(Debug)]
pub enum StartError {
    Open { log: &'static str, path: PathBuf, cause: io::Error },
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Open { log, path, cause } => write!(
                f,
                "{log}: cannot open {}: {cause}; its folder must exist and be writable",
                path.display()
            ),
            StartError::Thread(cause) => {
                write!(f, "access log: cannot start the publisher thread: {cause}")
            }
        }
    }
}

impl std::error::Error for StartError {}

/// The control core's end. Dropping it stops the publisher as well.
#[derive(Debug)]
pub struct PublisherHandle {
    orders: Sender<Order>,
    rotates_in: Sender<bool>,
    /// The other end, so that what was said before makes room.
    rotates_out: Receiver<bool>,
    audits: Sender<AuditLine>,
    written: Receiver<Written>,
    last: Written,
    /// Audit lines that found no room.
    refused: Cell<u64>,
    clocks: Clocks,
}

/// How a stop went.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    Drained(Written),
    /// A disk or a pipe holds the thread: leave it behind, do not join it.
    TimedOut(Written),
}

impl PublisherHandle {
    /// Opens the files by their names again. Never blocks; an order that finds no room is lost,
    /// but then others like it wait already.
    pub fn reopen(&self) {
        drop(self.orders.try_send(Order::Reopen));
    }

    /// Whether this process rotates its logs: another one that has taken over does it as its own
    /// plan says, and this one follows it. Never blocks; what was said last holds.
    pub fn rotate(&self, yes: bool) {
        let _ = self.rotates_out.try_recv();
        let _ = self.rotates_in.try_send(yes); // nobody else sends
    }

    /// Writes access-log lines of generation `version` and later ones to these files, and all
    /// others from now on. Comes back when the publisher is too busy to listen: try again later.
    pub fn use_files(&self, version: u64, files: Box<Opened>) -> Result<(), Box<Opened>> {
        match self.orders.try_send(Order::Use(version, files)) {
            Ok(()) => Ok(()),
            Err(error) => match error.into_inner() {
                Order::Use(_, files) => Err(files),
                Order::Reopen | Order::Forget(_) | Order::Stop => {
                    unreachable!("it was sent")
                }
            },
        }
    }

    /// Generations before `oldest` write no more, and what they have written is queued: closes
    /// files that only they had. False when the publisher is too busy to listen.
    pub fn forget(&self, oldest: u64) -> bool {
        self.orders.try_send(Order::Forget(oldest)).is_ok()
    }

    /// Writes a line of the audit log, newline included, to the file of plan `version`, or of a
    /// later one. Never blocks; false when it is lost.
    pub fn audit(&self, version: u64, line: Vec<u8>) -> bool {
        let is_taken = self.audits.try_send(AuditLine { version, line }).is_ok();
        self.refused.set(self.refused.get() + u64::from(!is_taken));
        is_taken
    }

    /// The sums as of the publisher's last turn. Never blocks.
    pub fn written(&mut self) -> Written {
        if let Ok(written) = self.written.try_recv() {
            self.last = written;
        }
        Written { audit_dropped: self.last.audit_dropped + self.refused.get(), ..self.last }
    }

    /// Has everything written that is queued by now. Blocks until then, at most for `timeout`:
    /// for the end of the process only, after the data cores have offered their last batch.
    pub fn stop(mut self, timeout: Duration) -> Stopped {
        let deadline = (self.clocks.now)() + timeout;
        drop(self.orders.send_deadline(Order::Stop, deadline));
        loop {
            match self.written.recv_deadline(deadline) {
                Ok(written) => self.last = written,
                Err(RecvTimeoutError::Disconnected) => return Stopped::Drained(self.last),
                Err(RecvTimeoutError::Timeout) => return Stopped::TimedOut(self.last),
            }
        }
    }
}

/// The thread.
#[derive(Debug)]
struct Worker {
    consumers: Vec<Consumer>,
    orders: Receiver<Order>,
    /// Whether this process rotates its logs: no order that finds no room.
    rotates: Receiver<bool>,
    audits: Receiver<AuditLine>,
    /// Lines of the process's own log. `None`: another publisher of this process has them.
    notes: Option<Receiver<Note>>,
    written_in: Sender<Written>,
    /// The other end, so that sums that nobody fetched make room for newer ones.
    written_out: Receiver<Written>,
    logs: Logs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

impl Worker {
    fn new(logs: Logs, consumers: Vec<Consumer>, clocks: Clocks) -> (Worker, PublisherHandle) {
        let (orders_in, orders) = crossbeam_channel::bounded(ORDERS_MAX);
        let (rotates_in, rotates) = crossbeam_channel::bounded(1);
        let (audits_in, audits) = crossbeam_channel::bounded(AUDIT_LINES_MAX);
        let (notes_in, notes) = crossbeam_channel::bounded(AUDIT_LINES_MAX);
        let notes = process_log::copy_to(notes_in).then_some(notes);
        let (written_in, written_out) = crossbeam_channel::bounded(1);
        let handle = PublisherHandle {
            orders: orders_in,
            rotates_in,
            rotates_out: rotates.clone(),
            audits: audits_in,
            written: written_out.clone(),
            last: Written::default(),
            refused: Cell::new(0),
            clocks,
        };
        let worker =
            Worker { consumers, orders, rotates, audits, notes, written_in, written_out, logs };
        (worker, handle)
    }

    fn run(mut self) {
        loop {
            self.wait();
            let next = self.obey();
            self.drain();
            if next == Next::End {
                self.outlast_slow_readers();
                self.give_up();
                self.tell();
                return;
            }
            self.tell();
        }
    }

    /// Those that still take something.
    fn outlast_slow_readers(&mut self) {
        loop {
            let stalled = self.logs.stalled();
            if stalled.is_empty() || !engine::until_writable(&stalled, LOG_STALL_MAX) {
                return;
            }
            self.drain();
        }
    }

    /// Until a line or an order is there, or a batch that is held is to be tried again.
    fn wait(&self) {
        let stalled = self.logs.stalled();
        if !stalled.is_empty() {
            // Lines of other logs, and orders, are looked for as often.
            engine::until_writable(&stalled, LOG_STALL_LOOK_INTERVAL);
            return;
        }
        let held = self.consumers.iter().any(|consumer| consumer.held.is_some());
        let mut select = Select::new();
        for consumer in &self.consumers {
            if !held {
                select.recv(&consumer.batches);
                select.recv(&consumer.audit);
            }
        }
        select.recv(&self.orders);
        select.recv(&self.rotates);
        select.recv(&self.audits);
        if let Some(notes) = &self.notes {
            select.recv(notes);
        }
        if held {
            let _ = select.ready_timeout(ACCESS_LOG_RETRY_INTERVAL);
        } else {
            select.ready();
        }
    }

    fn obey(&mut self) -> Next {
        if let Ok(yes) = self.rotates.try_recv() {
            self.logs.rotate_here(yes);
        }
        loop {
            match self.orders.try_recv() {
                Ok(Order::Reopen) => {
                    // What is queued belongs before the rotation.
                    self.drain();
                    let held = self.consumers.iter_mut().find_map(|c| c.held.as_mut());
                    self.logs.reopen(held);
                }
                Ok(Order::Use(version, files)) => {
                    self.logs.changing = true;
                    self.drain();
                    self.logs.use_files(version, *files);
                }
                Ok(Order::Forget(oldest)) => {
                    self.drain();
                    self.logs.forget(oldest);
                }
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return Next::End,
                Err(TryRecvError::Empty) => {
                    // No order brings a file for these.
                    self.logs.early.clear();
                    return Next::GoOn;
                }
            }
        }
    }

    /// Writes what is queued by now, one batch of each core in turn, and forgets cores that ended.
    /// As many rounds as a queue is long take all of it, and a turn ends however much comes in.
    fn drain(&mut self) {
        let Worker { consumers, logs, .. } = self;
        // A batch that is written in part comes before all others.
        for consumer in consumers.iter_mut() {
            if let Some(batch) = consumer.held.take()
                && logs.write(consumer, batch) == Outcome::Held
            {
                break;
            }
        }
        let mut found = true;
        for _ in 0..ACCESS_LOG_BATCHES_MAX {
            if !found || consumers.iter().any(|consumer| consumer.held.is_some()) {
                break;
            }
            found = false;
            let mut held = false;
            consumers.retain_mut(|consumer| {
                if held {
                    return true;
                }
                match consumer.batches.try_recv() {
                    Ok(batch) => {
                        held = logs.write(consumer, batch) == Outcome::Held;
                        found = true;
                        true
                    }
                    Err(TryRecvError::Empty) => true,
                    Err(TryRecvError::Disconnected) => {
                        consumer.audit.try_iter().for_each(|line| logs.audit(line));
                        false
                    }
                }
            });
        }
        self.drain_lines();
    }

    /// The short lines: of the audit log and of the process's own. What the control core says comes
    /// first: the start of the process precedes what a data core sees.
    fn drain_lines(&mut self) {
        let Worker { consumers, audits, notes, logs, orders, .. } = self;
        let of_cores = consumers.iter().map(|consumer| &consumer.audit);
        for lines in std::iter::once(&*audits).chain(of_cores) {
            for _ in 0..AUDIT_LINES_MAX {
                if !logs.audit_has_room() {
                    break;
                }
                let Ok(line) = lines.try_recv() else { break };
                logs.audit(line);
            }
        }
        let Some(notes) = notes else { return };
        for _ in 0..AUDIT_LINES_MAX {
            if !logs.error_has_room() {
                break;
            }
            let Ok(note) = notes.try_recv() else { break };
            // Notes know no plan. An order that was sent before this one is seen by now: it may
            // bring the file.
            let changing = logs.changing || !orders.is_empty();
            if logs.error.is_none() && changing {
                logs.early.push(Early::Note(note));
            } else {
                logs.note(note);
            }
        }
    }

    /// Counts what the end of the process finds unwritten.
    fn give_up(&mut self) {
        for consumer in &mut self.consumers {
            let held = consumer.held.take();
            held.into_iter()
                .chain(consumer.batches.try_iter())
                .for_each(|batch| self.logs.give_up(&batch));
        }
        self.logs.give_up_lines();
    }

    fn tell(&self) {
        let _ = self.written_out.try_recv();
        let _ = self.written_in.try_send(self.logs.written());
    }
}

/// Orders that wait for the publisher: rotations may pile up behind a slow disk.
const ORDERS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::path::Path;
    use std::process::Command;

    use log::LevelFilter;

    use super::*;
    use crate::events::log_file::scratch::{CLOCKS, Folder};

    const LONG: Duration = Duration::from_secs(60);

    fn files(path: &Path, on_full: OnFull) -> Files {
        let access = AccessFile { path: Some(path.to_owned()), rotate: None, on_full };
        Files { access: Some(access), ..Files::default() }
    }

    fn start(path: &Path, cores: usize) -> Started {
        let files = files(path, OnFull::Drop);
        Publisher::start(Settings { files, version: 1, cores, clocks: CLOCKS }).unwrap()
    }

    fn offer(producer: &mut Producer, lines: &[&str]) -> bool {
        offer_of(1, producer, lines)
    }

    fn change(handle: &PublisherHandle, version: u64, wanted: Files, now: &Files) {
        let opened = Box::new(wanted.open(now, CLOCKS).unwrap());
        assert!(handle.use_files(version, opened).is_ok());
    }

    fn offer_of(version: u64, producer: &mut Producer, lines: &[&str]) -> bool {
        let mut batch = producer.begin(version);
        for line in lines {
            batch.push(|out| out.extend_from_slice(line.as_bytes()));
        }
        producer.offer(batch).is_ok()
    }

    fn stop(handle: PublisherHandle, thread: JoinHandle<()>) -> Written {
        let stopped = handle.stop(LONG);
        thread.join().unwrap();
        match stopped {
            Stopped::Drained(written) => written,
            Stopped::TimedOut(written) => panic!("timed out with {written:?}"),
        }
    }

    fn until(handle: &mut PublisherHandle, done: impl Fn(Written) -> bool) {
        for _ in 0..60_000 {
            if done(handle.written()) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("still {:?}", handle.last);
    }

    #[test]
    fn stop_writes_everything_that_was_queued() {
        let folder = Folder::new("stop");
        let Started { handle, mut producers, thread } = start(&folder.log(), 2);
        for number in 0..40 {
            for producer in &mut producers {
                let line = format!("{number}\n");
                assert!(offer(producer, &[&line, &line]));
            }
        }
        let written = stop(handle, thread);
        let text = fs::read_to_string(folder.log()).unwrap();
        assert_eq!(text.lines().count(), 160);
        let bytes = text.len() as u64;
        assert_eq!(written, Written { lines: 160, bytes, ..Written::default() });
        assert!(!offer(&mut producers[0], &["late\n"]));
    }

    #[test]
    fn lines_reach_the_file_without_a_stop() {
        let folder = Folder::new("flush");
        let Started { mut handle, mut producers, thread } = start(&folder.log(), 1);
        assert!(offer(&mut producers[0], &["a\n"]));
        until(&mut handle, |written| written.lines == 1);
        assert_eq!(fs::read_to_string(folder.log()).unwrap(), "a\n");
        stop(handle, thread);
    }

    #[test]
    fn after_a_rotation_and_reopen_lines_go_to_the_new_file() {
        let folder = Folder::new("rotate");
        let Started { mut handle, mut producers, thread } = start(&folder.log(), 1);
        assert!(offer(&mut producers[0], &["old\n"]));
        let rotated = folder.0.join("access.log.1");
        fs::rename(folder.log(), &rotated).unwrap();
        handle.reopen();
        until(&mut handle, |written| written.reopened == 1);
        assert!(offer(&mut producers[0], &["new\n"]));
        stop(handle, thread);
        assert_eq!(fs::read_to_string(rotated).unwrap(), "old\n");
        assert_eq!(fs::read_to_string(folder.log()).unwrap(), "new\n");
    }

    #[test]
    fn files_change_while_it_runs_and_sums_go_on() {
        let folder = Folder::new("change");
        let Started { mut handle, mut producers, thread } = start(&folder.log(), 1);
        assert!(offer(&mut producers[0], &["old\n"]));
        until(&mut handle, |written| written.lines == 1);
        let new = folder.0.join("new.log");
        let audit = folder.0.join("audit.log");
        let now = files(&folder.log(), OnFull::Drop);
        let mut wanted = files(&new, OnFull::Drop);
        wanted.audit = Some(AuditLog { path: audit.clone(), rotate: None });
        change(&handle, 2, wanted.clone(), &now);
        assert!(offer(&mut producers[0], &["still old\n"]));
        assert!(offer_of(2, &mut producers[0], &["new\n"]));
        until(&mut handle, |written| written.lines == 3);
        assert!(
            producers[0].audit(2, b"core\n".to_vec()) && handle.audit(2, b"control\n".to_vec())
        );
        assert!(handle.forget(2));
        // Back to the first, and then there is none.
        change(&handle, 3, files(&folder.log(), OnFull::Drop), &wanted);
        change(&handle, 4, Files::default(), &now);
        assert!(offer_of(3, &mut producers[0], &["back\n"]));
        assert_eq!(stop(handle, thread).lines, 4);
        assert_eq!(fs::read_to_string(folder.log()).unwrap(), "old\nstill old\nback\n");
        assert_eq!(fs::read_to_string(new).unwrap(), "new\n");
        assert_eq!(fs::read_to_string(audit).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_batch_that_overtakes_the_order_of_its_file_waits_for_it() {
        let folder = Folder::new("overtakes");
        let now = files(&folder.log(), OnFull::Drop);
        let logs = Logs::new(1, now.clone().open(&Files::default(), CLOCKS).unwrap());
        let (mut producer, consumer) = queue::pair();
        let (mut worker, _handle) = Worker::new(logs, vec![consumer], CLOCKS);
        assert!(offer_of(2, &mut producer, &["new\n"]));
        worker.drain();
        let new = folder.0.join("new.log");
        worker.logs.use_files(2, files(&new, OnFull::Drop).open(&now, CLOCKS).unwrap());
        worker.drain();
        assert_eq!((folder.text(), fs::read_to_string(new).unwrap()), ("".into(), "new\n".into()));
    }

    #[test]
    fn whose_logs_rotate_is_heard_however_many_orders_wait() {
        let folder = Folder::new("heard");
        let opened = files(&folder.log(), OnFull::Drop).open(&Files::default(), CLOCKS);
        let (mut worker, handle) = Worker::new(Logs::new(1, opened.unwrap()), vec![], CLOCKS);
        (0..=ORDERS_MAX).for_each(|_| handle.reopen());
        handle.rotate(true);
        handle.rotate(false);
        assert_eq!(worker.rotates.len(), 1);
        assert!(!worker.rotates.try_recv().unwrap(), "what was said last");
        handle.rotate(true);
        assert_eq!(worker.obey(), Next::GoOn);
        assert!(worker.rotates.is_empty());
    }

    #[test]
    fn short_lines_that_overtake_the_order_of_their_file_wait_for_it() {
        let folder = Folder::new("early");
        let logs = Logs::new(1, Files::default().open(&Files::default(), CLOCKS).unwrap());
        let (producer, consumer) = queue::pair();
        let (mut worker, handle) = Worker::new(logs, vec![consumer], CLOCKS);
        let (notes_in, notes) = crossbeam_channel::bounded(AUDIT_LINES_MAX);
        worker.notes = Some(notes);
        let [audit, error] = ["audit.log", "error.log"].map(|name| folder.0.join(name));
        let wanted = Files {
            audit: Some(AuditLog { path: audit.clone(), rotate: None }),
            error: Some(ErrorLog { path: error.clone(), rotate: None, level: LevelFilter::Info }),
            ..Files::default()
        };
        change(&handle, 2, wanted, &Files::default());
        assert!(producer.audit(2, b"core\n".to_vec()) && handle.audit(2, b"control\n".to_vec()));
        notes_in.send(Note { level: log::Level::Warn, line: b"warning\n".to_vec() }).unwrap();
        // It was busy with lines when the order came.
        worker.drain();
        assert_eq!(worker.obey(), Next::GoOn);
        worker.drain();
        assert_eq!(fs::read_to_string(audit).unwrap(), "control\ncore\n");
        assert_eq!(fs::read_to_string(error).unwrap(), "warning\n");
    }

    #[test]
    fn a_log_that_is_wanted_again_while_old_exchanges_write_it_is_opened_once() {
        let folder = Folder::new("again");
        let [a, b] = [folder.log(), folder.0.join("b.log")].map(|path| files(&path, OnFull::Drop));
        let mut logs = Logs::new(1, a.clone().open(&Files::default(), CLOCKS).unwrap());
        logs.use_files(2, b.clone().open(&a, CLOCKS).unwrap());
        logs.use_files(3, a.clone().open(&b, CLOCKS).unwrap());
        assert_eq!(logs.access.len(), 2);
        assert_eq!([1, 2, 3, 4].map(|version| logs.index(version)), [1, 0, 1, 1]);
        logs.forget(2);
        assert_eq!([2, 3].map(|version| logs.index(version)), [0, 1]);
        logs.forget(3);
        assert_eq!((logs.access.len(), logs.index(3)), (1, 0));
    }

    #[test]
    fn a_full_disk_drops_lines_counts_them_and_stops_all_the_same() {
        let Started { handle, mut producers, thread } = start(Path::new("/dev/full"), 1);
        assert!(offer(&mut producers[0], &["a\n", "b\n"]));
        assert!(offer(&mut producers[0], &["c\n"]));
        let written = stop(handle, thread);
        assert_eq!(written, Written { dropped_lines: 3, ..Written::default() });
    }

    #[test]
    fn a_full_disk_holds_lines_that_may_not_be_lost_until_another_file_takes_them() {
        let folder = Folder::new("held-by-full");
        let files_now = files(Path::new("/dev/full"), OnFull::Block);
        let settings = Settings { files: files_now.clone(), version: 1, cores: 2, clocks: CLOCKS };
        let Started { handle, mut producers, thread } = Publisher::start(settings).unwrap();
        assert!(offer(&mut producers[0], &["a\n", "b\n"]));
        assert!(offer(&mut producers[1], &["c\n"]));
        change(&handle, 2, files(&folder.log(), OnFull::Block), &files_now);
        let written = stop(handle, thread);
        assert_eq!((written.lines, written.dropped_lines), (3, 0));
        let text = fs::read_to_string(folder.log()).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["a", "b", "c"]);
    }

    #[test]
    fn lines_that_are_held_at_the_end_of_the_process_are_counted() {
        let settings = Settings {
            files: files(Path::new("/dev/full"), OnFull::Block),
            version: 1,
            cores: 1,
            clocks: CLOCKS,
        };
        let Started { handle, mut producers, thread } = Publisher::start(settings).unwrap();
        assert!(offer(&mut producers[0], &["a\n", "b\n"]) && offer(&mut producers[0], &["c\n"]));
        assert_eq!(stop(handle, thread).dropped_lines, 3);
    }

    #[test]
    fn a_folder_that_is_missing_is_an_error_with_the_path() {
        let files = files(Path::new("/nonexistent/access.log"), OnFull::Drop);
        let error =
            Publisher::start(Settings { files, version: 1, cores: 1, clocks: CLOCKS }).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("access log: cannot open /nonexistent/access.log: "), "{text}");
    }

    #[test]
    fn a_dropped_handle_stops_the_publisher_after_what_is_queued() {
        let folder = Folder::new("dropped");
        let Started { handle, mut producers, thread } = start(&folder.log(), 1);
        assert!(offer(&mut producers[0], &["a\n"]));
        drop(handle);
        thread.join().unwrap();
        assert_eq!(fs::read_to_string(folder.log()).unwrap(), "a\n");
    }

    #[test]
    fn a_core_that_ended_is_forgotten_once_its_batches_are_written() {
        let folder = Folder::new("ended");
        let (mut first, first_out) = queue::pair();
        let (_second, second_out) = queue::pair();
        let opened = files(&folder.log(), OnFull::Drop).open(&Files::default(), CLOCKS);
        let logs = Logs::new(1, opened.unwrap());
        let (mut worker, _handle) = Worker::new(logs, vec![first_out, second_out], CLOCKS);
        assert!(offer(&mut first, &["last words\n"]));
        drop(first);
        worker.drain();
        assert_eq!(worker.consumers.len(), 1); // an ended one would wake the thread for ever
        assert_eq!(worker.logs.written().lines, 1);
    }

    fn fifo(folder: &Folder) -> PathBuf {
        let path = folder.0.join("fifo");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    #[test]
    fn a_stuck_pipe_does_not_hold_up_the_stop() {
        let folder = Folder::new("stuck-pipe");
        let path = fifo(&folder);
        let Started { handle, mut producers, thread } = start(&path, 1);
        let line = "x".repeat(1 << 20) + "\n"; // more than a pipe holds
        assert!(offer(&mut producers[0], &[&line]));
        let stopped = handle.stop(Duration::from_millis(20));
        assert!(matches!(stopped, Stopped::TimedOut(_)));
        // A reader comes after all, and the thread ends.
        let mut rest = vec![0; line.len()];
        fs::File::open(path).unwrap().read_exact(&mut rest).unwrap();
        thread.join().unwrap();
    }
}
