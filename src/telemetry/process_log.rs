//! The log of the process itself: what an operator must know, on standard error, one line each, and
//! in a file as well if one is configured. Facts about requests go to the access log instead.

use std::io::Write as _;
use std::sync::OnceLock;
use std::time::SystemTime;

use crossbeam_channel::Sender;
use log::{Level, LevelFilter, SetLoggerError};

use crate::engine;
use crate::telemetry::{json, log_levels, stderr, timestamp};

/// Installs the logger of the process, once. [`log_levels`] may change the level later.
pub fn start(level: LevelFilter, clock: fn() -> SystemTime) -> Result<(), SetLoggerError> {
    env_logger::Builder::new()
        // Everything passes the logger: what decides can be changed.
        .filter_level(LevelFilter::Trace)
        .target(env_logger::Target::Pipe(Box::new(stderr::Lines)))
        .format(move |sink, record| {
            if !log_levels::admits(record.target(), record.level()) {
                return Ok(());
            }
            let mut out = Vec::with_capacity(160);
            let message = record.args().to_string();
            line(clock(), record.level(), record.target(), &message, &mut out);
            let written = sink.write_all(&out);
            if let Some((notes, lost)) = FILE.get()
                && notes.try_send(Note { level: record.level(), line: out }).is_err()
            {
                // The file lacks the line; standard error has it.
                lost[record.level() as usize].add(1);
            }
            written
        })
        .try_init()?;
    log_levels::set_default(level);
    Ok(())
}

/// Writes a line of the audit log that has no file of its own: no level turns it off.
pub fn audit(line: &str) {
    let mut record = log::Record::builder();
    record.level(Level::Info).target(log_levels::AUDIT);
    // Not by the macro, which asks for the level first.
    log::logger().log(&record.args(format_args!("{line}")).build());
}

/// A line on its way to the file.
#[derive(Debug)]
pub struct Note {
    pub level: Level,
    pub line: Vec<u8>,
}

/// Any thread may log; the publisher writes the file.
static FILE: OnceLock<(Sender<Note>, Lost)> = OnceLock::new();

/// Lines that found no room on their way to the publisher, by their level.
type Lost = [engine::Level; LevelFilter::Trace as usize + 1];

/// Those that a file with this level would have had.
pub fn lost(level: LevelFilter) -> u64 {
    let of_each = FILE.get().into_iter().flat_map(|(_, lost)| &lost[..=level as usize]);
    of_each.map(|lost| lost.read().max(0) as u64).sum()
}

/// Every line is offered here as well from now on; false when somebody else has them.
pub fn copy_to(notes: Sender<Note>) -> bool {
    FILE.set((notes, Lost::default())).is_ok()
}

/// `2026-01-02T03:04:05.678Z INFO module: message`
pub(super) fn line(at: SystemTime, level: Level, module: &str, message: &str, out: &mut Vec<u8>) {
    timestamp::iso(at, out);
    out.push(b' ');
    out.extend_from_slice(level.as_str().as_bytes());
    out.push(b' ');
    escaped(module, out);
    out.extend_from_slice(b": ");
    escaped(message, out);
    out.push(b'\n');
}

/// A message may quote what a peer sent: it must neither forge a line nor command a terminal.
fn escaped(text: &str, out: &mut Vec<u8>) {
    for character in text.chars() {
        if json::must_be_hidden(character) || turns_text(character) {
            write!(out, "{}", character.escape_default()).expect("a Vec takes every byte");
        } else {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

/// Controls of direction: what follows them is shown in another order than it is written.
fn turns_text(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn written(message: &str) -> String {
        let mut out = Vec::new();
        let at = UNIX_EPOCH + Duration::from_millis(1_767_323_045_678);
        line(at, Level::Warn, "corelane::events", message, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_has_time_level_module_and_message() {
        assert_eq!(
            written("cannot write access.log: disk full"),
            "2026-01-02T03:04:05.678Z WARN corelane::events: cannot write access.log: disk full\n"
        );
    }

    #[test]
    fn a_message_stays_on_its_line_and_commands_no_terminal() {
        let line = written("a\r\nb\x1b[2Jc\u{9b}d\u{2028}e\0 żółć");
        assert!(line.ends_with("a\\r\\nb\\u{1b}[2Jc\\u{9b}d\\u{2028}e\\u{0} żółć\n"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn the_logger_is_installed_once_with_its_level() {
        let clock = || UNIX_EPOCH;
        start(LevelFilter::Warn, clock).unwrap();
        assert_eq!(log::max_level(), LevelFilter::Warn);
        assert!(start(LevelFilter::Info, clock).is_err());
    }

    #[test]
    fn what_turns_text_around_is_escaped() {
        let mut out = Vec::new();
        escaped("CN=a\u{202e}b\u{2028}c\u{2066}\u{e9}", &mut out);
        assert_eq!(out, "CN=a\\u{202e}b\\u{2028}c\\u{2066}\u{e9}".as_bytes());
    }
}
