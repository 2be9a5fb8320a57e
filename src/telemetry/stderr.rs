//! Standard error, written by a thread of its own: whoever logs hands a line over and goes on, so
//! that a pipe or a journal that nobody reads holds up no core. When too many wait, lines are lost,
//! counted, and told of in the log once it moves again. Until the thread runs, who logs writes.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use log::Level;

use crate::engine;
use crate::limits;
use crate::telemetry::process_log;

/// To the thread that writes.
static QUEUE: OnceLock<Sender<Piece>> = OnceLock::new();
/// Lines; any thread may lose one.
static LOST: engine::Level = engine::Level::new();

enum Piece {
    Line(Vec<u8>),
    /// Answered when all lines before it are written.
    Flush(Sender<()>),
}

/// Where lines go, one with each write.
#[derive(Debug)]
pub(super) struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Some(queue) = QUEUE.get() else { return io::stderr().write(line) };
        if queue.try_send(Piece::Line(line.to_vec())).is_err() {
            LOST.add(1);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Dropped: what was logged by then is written, if that is possible in a moment.
#[derive(Debug)]
pub struct Writing(());

impl Drop for Writing {
    fn drop(&mut self) {
        flush(limits::STDERR_FLUSH_TIMEOUT);
    }
}

/// Lines that never came out.
pub fn lost() -> u64 {
    u64::try_from(LOST.read()).unwrap_or(0)
}

/// Starts the thread, once. Panics are told of by the same road from then on.
pub fn start(clock: fn() -> SystemTime) -> io::Result<Writing> {
    // Not by `io::stderr`: its lock would be held for as long as a write is stuck.
    let to = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let (queue, pieces) = crossbeam_channel::bounded(limits::STDERR_LINES_MAX);
    thread::Builder::new()
        .name("stderr".to_owned())
        .spawn(move || write(&pieces, to, clock, &LOST))?;
    if QUEUE.set(queue).is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let thread = thread::current();
            let name = thread.name().unwrap_or("without a name");
            log::error!(target: "corelane::engine", "thread {name}: {panic}");
            let trace = Backtrace::capture();
            if trace.status() == BacktraceStatus::Captured {
                let lines = trace.to_string();
                lines.lines().for_each(|line| log::error!(target: "corelane::engine", "{line}"));
            }
            // It may be the last that this process does.
            flush(limits::PANIC_FLUSH_TIMEOUT);
        }));
    }
    Ok(Writing(()))
}

fn flush(limit: Duration) {
    let Some(queue) = QUEUE.get() else { return };
    let (done, written) = crossbeam_channel::bounded(1);
    if queue.send_timeout(Piece::Flush(done), limit).is_ok() {
        // Who does not read by then misses the rest.
        written.recv_timeout(limit).unwrap_or_default();
    }
}

fn write(
    pieces: &Receiver<Piece>,
    mut to: impl Write,
    clock: fn() -> SystemTime,
    lost: &engine::Level,
) {
    let mut told = 0;
    for piece in pieces {
        match piece {
            Piece::Line(line) => {
                if !put(&mut to, &line) {
                    lost.add(1);
                    continue;
                }
            }
            Piece::Flush(done) => drop(done.try_send(())),
        }
        let now = lost.read();
        if now > told {
            let message =
                format!("{} lines of this log were lost: it is read too slowly", now - told);
            let mut note = Vec::new();
            process_log::line(clock(), Level::Warn, module_path!(), &message, &mut note);
            told = if put(&mut to, &note) { now } else { told };
        }
    }
}

/// False: it cannot be written, and neither is the rest of it.
fn put(to: &mut impl Write, mut line: &[u8]) -> bool {
    while !line.is_empty() {
        match to.write(line) {
            Ok(0) => return false,
            Ok(count) => line = &line[count..],
            // Somebody else has made it so, who shares it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(limits::STDERR_RETRY_INTERVAL);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// Takes a few bytes at a time, is not always ready, and at last broken.
    struct Slow(Vec<u8>, usize);

    impl Write for &mut Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.0.len() >= 200 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if self.1.is_multiple_of(3) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = bytes.len().min(5);
            self.0.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_out_whole_and_what_was_lost_is_told_once() {
        let lost = engine::Level::new();
        let (queue, pieces) = crossbeam_channel::bounded(10);
        let line = |text: &str| Piece::Line(text.as_bytes().to_vec());
        lost.add(7);
        let (done, flushed) = crossbeam_channel::bounded(1);
        for piece in [line("first line\n"), line("second\n"), Piece::Flush(done)] {
            assert!(queue.try_send(piece).is_ok());
        }
        drop(queue);
        let mut to = Slow(Vec::new(), 0);
        write(&pieces, &mut to, || UNIX_EPOCH, &lost);
        let text = String::from_utf8(to.0).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[2]), ("first line", "second"), "{text}");
        assert!(lines[1].ends_with("7 lines of this log were lost: it is read too slowly"));
        assert_eq!(lines.len(), 3);
        assert!(flushed.try_recv().is_ok());
    }

    #[test]
    fn lines_for_which_there_is_nobody_any_more_are_counted() {
        let lost = engine::Level::new();
        let (queue, pieces) = crossbeam_channel::bounded(100);
        (0..50).for_each(|_| queue.try_send(Piece::Line(vec![b'x'; 10])).unwrap_or_default());
        drop(queue);
        let mut to = Slow(Vec::new(), 0);
        write(&pieces, &mut to, || UNIX_EPOCH, &lost);
        assert_eq!(lost.read(), 30);
    }
}
