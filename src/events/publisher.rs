//! The publisher core: takes batches from the data cores and writes them out. It never slows a data
//! core: it may block on a disk or a pipe, while the queues fill and the data cores drop and count.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Select, Sender, TryRecvError};

use crate::events::queue::{self, Batch, Consumer, Order, Producer, Written};
use crate::limits::{ACCESS_LOG_BATCHES_MAX, ACCESS_LOG_COMPLAINT_INTERVAL};

/// The publisher before it runs.
#[derive(Debug)]
pub struct Publisher;

#[derive(Clone, Debug)]
pub struct Settings {
    /// `None`: standard output.
    pub path: Option<PathBuf>,
    /// How many producers are needed.
    pub cores: usize,
    /// Asked when writing fails, so that complaints are rare, and for the deadline of a stop.
    pub clock: fn() -> Instant,
}

/// What starting gives: the control core's end, one producer for each data core, and the thread.
#[derive(Debug)]
pub struct Started {
    pub handle: PublisherHandle,
    pub producers: Vec<Producer>,
    pub thread: JoinHandle<()>,
}

impl Publisher {
    /// Opens the file, so that an error is told before anything runs, then starts the thread.
    pub fn start(settings: Settings) -> Result<Started, StartError> {
        let sink = match settings.path {
            None => Sink::StandardOutput,
            Some(path) => match open(&path) {
                Ok(file) => Sink::File { path, file: Some(file) },
                Err(cause) => return Err(StartError::Open { path, cause }),
            },
        };
        let (producers, consumers) = (0..settings.cores).map(|_| queue::pair()).unzip();
        let (orders_in, orders_out) = crossbeam_channel::bounded(ORDERS_MAX);
        let (written_in, written_out) = crossbeam_channel::bounded(1);
        let worker = Worker {
            consumers,
            orders: orders_out,
            written_in,
            written_out: written_out.clone(),
            writer: Writer::new(sink, settings.clock),
        };
        let thread = thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(move || worker.run())
            .map_err(StartError::Thread)?;
        let handle = PublisherHandle {
            orders: orders_in,
            written: written_out,
            last: Written::default(),
            clock: settings.clock,
        };
        Ok(Started { handle, producers, thread })
    }
}

/// Where, what, and what to do.
#[derive(Debug)]
pub enum StartError {
    Open { path: PathBuf, cause: io::Error },
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Open { path, cause } => write!(
                f,
                "access log: cannot open {}: {cause}; its folder must exist and be writable",
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
    written: Receiver<Written>,
    last: Written,
    clock: fn() -> Instant,
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
    /// Opens the file by its name again. Never blocks; an order that finds no room is lost,
    /// but then others like it wait already.
    pub fn reopen(&self) {
        drop(self.orders.try_send(Order::Reopen));
    }

    /// The sums as of the publisher's last turn. Never blocks.
    pub fn written(&mut self) -> Written {
        if let Ok(written) = self.written.try_recv() {
            self.last = written;
        }
        self.last
    }

    /// Has everything written that is queued by now. Blocks until then, at most for `timeout`:
    /// for the end of the process only, after the data cores have offered their last batch.
    pub fn stop(mut self, timeout: Duration) -> Stopped {
        let deadline = (self.clock)() + timeout;
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
    written_in: Sender<Written>,
    /// The other end, so that sums that nobody fetched make room for newer ones.
    written_out: Receiver<Written>,
    writer: Writer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

impl Worker {
    fn run(mut self) {
        loop {
            self.wait();
            let next = self.obey();
            self.drain();
            self.tell();
            if next == Next::End {
                return;
            }
        }
    }

    /// Until a batch or an order is there.
    fn wait(&self) {
        let mut select = Select::new();
        for consumer in &self.consumers {
            select.recv(&consumer.batches);
        }
        select.recv(&self.orders);
        select.ready();
    }

    fn obey(&mut self) -> Next {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Reopen) => {
                    // What is queued belongs before the rotation.
                    self.drain();
                    self.writer.reopen();
                }
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return Next::End,
                Err(TryRecvError::Empty) => return Next::GoOn,
            }
        }
    }

    /// Writes what is queued by now, one batch of each core in turn, and forgets cores that ended.
    /// As many rounds as a queue is long take all of it, and a turn ends however much comes in.
    fn drain(&mut self) {
        let Worker { consumers, writer, .. } = self;
        let mut found = true;
        for _ in 0..ACCESS_LOG_BATCHES_MAX {
            if !found {
                return;
            }
            found = false;
            consumers.retain(|consumer| match consumer.batches.try_recv() {
                Ok(batch) => {
                    writer.write(&batch);
                    consumer.give_back(batch.text);
                    found = true;
                    true
                }
                Err(TryRecvError::Empty) => true,
                Err(TryRecvError::Disconnected) => false,
            });
        }
    }

    fn tell(&self) {
        let _ = self.written_out.try_recv();
        let _ = self.written_in.try_send(self.writer.written);
    }
}

// --- writing --------------------------------------------------------------------------------

#[derive(Debug)]
enum Sink {
    StandardOutput,
    /// `None` after an error: opened again for the next batch.
    File {
        path: PathBuf,
        file: Option<File>,
    },
}

impl Sink {
    /// One write, of as much as is taken.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match self {
            Sink::StandardOutput => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(text)?;
                stdout.flush()?;
                Ok(text.len())
            }
            Sink::File { path, file } => {
                let file = match file {
                    Some(file) => file,
                    None => file.insert(open(path)?),
                };
                file.write(text)
            }
        }
    }
}

/// Appends, so that a rotation by copy and truncate works too. Logs name clients: others may not
/// read them.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[derive(Debug)]
struct Writer {
    sink: Sink,
    clock: fn() -> Instant,
    written: Written,
    /// The last write ended inside a line.
    torn: bool,
    complained: Option<Instant>,
}

impl Writer {
    fn new(sink: Sink, clock: fn() -> Instant) -> Writer {
        Writer { sink, clock, written: Written::default(), torn: false, complained: None }
    }

    /// Writes the batch or counts what of it is lost. A file that fails is opened again next time.
    fn write(&mut self, batch: &Batch) {
        let (sent, result) = self.send(&batch.text);
        let lines = match result {
            Ok(()) => u64::from(batch.lines),
            Err(_) => newlines(&batch.text[..sent]),
        };
        self.written.lines += lines;
        self.written.bytes += sent as u64;
        self.written.dropped_lines += u64::from(batch.lines) - lines;
        match result {
            Ok(()) => self.rejoice(),
            Err(error) => {
                if let Sink::File { file, .. } = &mut self.sink {
                    *file = None;
                }
                self.complain(&error);
            }
        }
    }

    /// How much of `text` went out, and why not all.
    fn send(&mut self, text: &[u8]) -> (usize, io::Result<()>) {
        if self.torn {
            // The rest of that line is lost: what follows must not be taken for it.
            match self.sink.write(b"\n") {
                Ok(_) => self.torn = false,
                Err(error) => return (0, Err(error)),
            }
        }
        let mut sent = 0;
        while sent < text.len() {
            match self.sink.write(&text[sent..]) {
                Ok(0) => return (sent, Err(ErrorKind::WriteZero.into())),
                Ok(taken) => {
                    sent += taken;
                    self.torn = text[sent - 1] != b'\n';
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return (sent, Err(error)),
            }
        }
        (sent, Ok(()))
    }

    /// A file that cannot be opened anew stays open as it is: better under the old name than lost.
    fn reopen(&mut self) {
        let Sink::File { path, file } = &mut self.sink else {
            return;
        };
        match open(path) {
            Ok(new) => {
                *file = Some(new);
                self.written.reopened += 1;
            }
            Err(error) => log::error!(
                "access log: cannot open {} again: {error}; lines go to the old file",
                path.display()
            ),
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if self.is_complaint_due((self.clock)()) {
            log::error!(
                "access log: cannot write {}: {error}; {} lines are lost so far; free space or \
                 correct its permissions, writing then goes on by itself",
                self.name(),
                self.written.dropped_lines
            );
        }
    }

    fn is_complaint_due(&mut self, now: Instant) -> bool {
        let interval = ACCESS_LOG_COMPLAINT_INTERVAL;
        let due =
            self.complained.is_none_or(|last| now.saturating_duration_since(last) >= interval);
        if due {
            self.complained = Some(now);
        }
        due
    }

    /// Once after complaints. A log that fails and recovers by turns is told of once per interval.
    fn rejoice(&mut self) {
        let Some(last) = self.complained else {
            return;
        };
        let now = (self.clock)();
        if now.saturating_duration_since(last) >= ACCESS_LOG_COMPLAINT_INTERVAL {
            self.complained = None;
            log::info!(
                "access log: {} is written again, {} lines were lost",
                self.name(),
                self.written.dropped_lines
            );
        }
    }

    fn name(&self) -> String {
        match &self.sink {
            Sink::StandardOutput => "standard output".to_owned(),
            Sink::File { path, .. } => path.display().to_string(),
        }
    }
}

fn newlines(text: &[u8]) -> u64 {
    text.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// Orders that wait for the publisher: rotations may pile up behind a slow disk.
const ORDERS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::events::queue::Offered;

    const LONG: Duration = Duration::from_secs(60);

    /// A folder of its own for each test, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Folder {
            let name = format!("corelane-publisher-{}-{test}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn log(&self) -> PathBuf {
            self.0.join("access.log")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn start(path: &Path, cores: usize) -> Started {
        let path = Some(path.to_owned());
        let clock = Instant::now;
        Publisher::start(Settings { path, cores, clock }).unwrap()
    }

    fn offer(producer: &mut Producer, lines: &[&str]) -> Offered {
        let mut batch = producer.begin();
        for line in lines {
            batch.push(|out| out.extend_from_slice(line.as_bytes()));
        }
        producer.offer(batch)
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
                assert_eq!(offer(producer, &[&line, &line]), Offered::Taken);
            }
        }
        let written = stop(handle, thread);
        let text = fs::read_to_string(folder.log()).unwrap();
        assert_eq!(text.lines().count(), 160);
        let bytes = text.len() as u64;
        assert_eq!(written, Written { lines: 160, bytes, dropped_lines: 0, reopened: 0 });
        assert_eq!(offer(&mut producers[0], &["late\n"]), Offered::Dropped { lines: 1 });
    }

    #[test]
    fn lines_reach_the_file_without_a_stop() {
        let folder = Folder::new("flush");
        let Started { mut handle, mut producers, thread } = start(&folder.log(), 1);
        assert_eq!(offer(&mut producers[0], &["a\n"]), Offered::Taken);
        until(&mut handle, |written| written.lines == 1);
        assert_eq!(fs::read_to_string(folder.log()).unwrap(), "a\n");
        stop(handle, thread);
    }

    #[test]
    fn after_a_rotation_and_reopen_lines_go_to_the_new_file() {
        let folder = Folder::new("rotate");
        let Started { mut handle, mut producers, thread } = start(&folder.log(), 1);
        assert_eq!(offer(&mut producers[0], &["old\n"]), Offered::Taken);
        let rotated = folder.0.join("access.log.1");
        fs::rename(folder.log(), &rotated).unwrap();
        handle.reopen();
        until(&mut handle, |written| written.reopened == 1);
        assert_eq!(offer(&mut producers[0], &["new\n"]), Offered::Taken);
        stop(handle, thread);
        assert_eq!(fs::read_to_string(rotated).unwrap(), "old\n");
        assert_eq!(fs::read_to_string(folder.log()).unwrap(), "new\n");
    }

    #[test]
    fn a_log_is_appended_to_and_others_may_not_read_it() {
        let folder = Folder::new("append");
        for _ in 0..2 {
            let Started { handle, mut producers, thread } = start(&folder.log(), 1);
            assert_eq!(offer(&mut producers[0], &["a\n"]), Offered::Taken);
            stop(handle, thread);
        }
        assert_eq!(fs::read_to_string(folder.log()).unwrap(), "a\na\n");
        let mode = fs::metadata(folder.log()).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
    }

    #[test]
    fn a_full_disk_drops_lines_counts_them_and_stops_all_the_same() {
        let Started { handle, mut producers, thread } = start(Path::new("/dev/full"), 1);
        assert_eq!(offer(&mut producers[0], &["a\n", "b\n"]), Offered::Taken);
        assert_eq!(offer(&mut producers[0], &["c\n"]), Offered::Taken);
        let written = stop(handle, thread);
        assert_eq!(written, Written { dropped_lines: 3, ..Written::default() });
    }

    #[test]
    fn a_log_that_failed_is_opened_again_for_the_next_batch() {
        let folder = Folder::new("recover");
        let sink = Sink::File { path: folder.log(), file: Some(read_only()) };
        let mut writer = Writer::new(sink, Instant::now);
        let batch = Batch { text: b"a\nb\n".to_vec(), lines: 2 };
        writer.write(&batch);
        writer.write(&batch);
        assert_eq!((writer.written.dropped_lines, writer.written.lines), (2, 2));
        assert_eq!(fs::read_to_string(folder.log()).unwrap(), "a\nb\n");
    }

    /// Every write to it fails.
    fn read_only() -> File {
        File::open("/dev/null").unwrap()
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let folder = Folder::new("torn");
        let sink = Sink::File { path: folder.log(), file: None };
        let mut writer = Writer::new(sink, Instant::now);
        let (sent, result) = writer.send(b"whole\nto");
        assert!(result.is_ok() && sent == 8 && writer.torn);
        writer.write(&Batch { text: b"next\n".to_vec(), lines: 1 });
        assert_eq!(fs::read_to_string(folder.log()).unwrap(), "whole\nto\nnext\n");
    }

    #[test]
    fn a_folder_that_is_missing_is_an_error_with_the_path() {
        let path = Some(PathBuf::from("/nonexistent/access.log"));
        let error = Publisher::start(Settings { path, cores: 1, clock: Instant::now }).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("access log: cannot open /nonexistent/access.log: "), "{text}");
    }

    #[test]
    fn a_reopen_that_fails_keeps_the_old_file() {
        let folder = Folder::new("reopen");
        let inner = folder.0.join("inner");
        fs::create_dir(&inner).unwrap();
        let sink = Sink::File { path: inner.join("access.log"), file: None };
        let mut writer = Writer::new(sink, Instant::now);
        let batch = Batch { text: b"a\n".to_vec(), lines: 1 };
        writer.write(&batch);
        let moved = folder.0.join("moved");
        fs::rename(&inner, &moved).unwrap();
        writer.reopen();
        writer.write(&batch);
        assert_eq!(writer.written.lines, 2);
        assert_eq!(fs::read_to_string(moved.join("access.log")).unwrap(), "a\na\n");
    }

    #[test]
    fn complaints_are_rare() {
        let mut writer = Writer::new(Sink::StandardOutput, Instant::now);
        let now = Instant::now();
        assert!(writer.is_complaint_due(now));
        assert!(!writer.is_complaint_due(now + Duration::from_secs(9)));
        assert!(writer.is_complaint_due(now + Duration::from_secs(10)));
    }

    #[test]
    fn a_dropped_handle_stops_the_publisher_after_what_is_queued() {
        let folder = Folder::new("dropped");
        let Started { handle, mut producers, thread } = start(&folder.log(), 1);
        assert_eq!(offer(&mut producers[0], &["a\n"]), Offered::Taken);
        drop(handle);
        thread.join().unwrap();
        assert_eq!(fs::read_to_string(folder.log()).unwrap(), "a\n");
    }

    /// A publisher without its thread.
    fn worker(sink: Sink, consumers: Vec<Consumer>) -> (Worker, PublisherHandle) {
        let (orders_in, orders) = crossbeam_channel::bounded(ORDERS_MAX);
        let (written_in, written_out) = crossbeam_channel::bounded(1);
        let worker = Worker {
            consumers,
            orders,
            written_in,
            written_out: written_out.clone(),
            writer: Writer::new(sink, Instant::now),
        };
        let handle = PublisherHandle {
            orders: orders_in,
            written: written_out,
            last: Written::default(),
            clock: Instant::now,
        };
        (worker, handle)
    }

    #[test]
    fn a_core_that_ended_is_forgotten_once_its_batches_are_written() {
        let folder = Folder::new("ended");
        let (mut first, first_out) = queue::pair();
        let (_second, second_out) = queue::pair();
        let sink = Sink::File { path: folder.log(), file: None };
        let (mut worker, _handle) = worker(sink, vec![first_out, second_out]);
        assert_eq!(offer(&mut first, &["last words\n"]), Offered::Taken);
        drop(first);
        worker.drain();
        assert_eq!(worker.consumers.len(), 1); // an ended one would wake the thread for ever
        assert_eq!(worker.writer.written.lines, 1);
    }

    #[test]
    fn a_stuck_pipe_does_not_hold_up_the_stop() {
        let folder = Folder::new("stuck");
        let (reader, pipe) = io::pipe().unwrap();
        let (mut producer, consumer) = queue::pair();
        let sink = Sink::File { path: folder.log(), file: Some(File::from(OwnedFd::from(pipe))) };
        let (worker, handle) = worker(sink, vec![consumer]);
        let thread = thread::spawn(move || worker.run());
        let line = "x".repeat(1 << 20) + "\n"; // more than a pipe holds
        assert_eq!(offer(&mut producer, &[&line]), Offered::Taken);
        let stopped = handle.stop(Duration::from_millis(20));
        assert!(matches!(stopped, Stopped::TimedOut(_)));
        drop(reader); // now the write fails, and the thread ends
        thread.join().unwrap();
    }
}
