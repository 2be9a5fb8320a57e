//! What a data core and the publisher say to each other, and the bounded queues they say it
//! through: full batches one way, empty buffers the other, so that steady state allocates nothing,
//! and lines of the audit log. Offering never blocks: what finds no room is given back.

use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TrySendError};

use crate::events::publisher::Opened;
use crate::limits::{
    ACCESS_LOG_BATCH_BYTES, ACCESS_LOG_BATCHES_MAX, ACCESS_LOG_QUEUE_BYTES_MAX, AUDIT_LINES_MAX,
};

/// From the control core to the publisher.
#[derive(Debug)]
pub(crate) enum Order {
    /// Open the files by their names again: they were rotated away (SIGUSR1).
    Reopen,
    /// Write to these files from this generation on.
    Use(u64, Box<Opened>),
    /// Generations before this one have written their last line.
    Forget(u64),
    /// Write what is queued by now, then end.
    Stop,
}

/// From the publisher to the control core, after every turn. Sums since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub lines: u64,
    pub bytes: u64,
    /// Lines that could not be written. Those that a producer dropped are its own to count.
    pub dropped_lines: u64,
    /// How often the file was opened by its name again.
    pub reopened: u64,
    /// The same as `dropped_lines` of the other logs.
    pub error_dropped: u64,
    pub audit_dropped: u64,
}

impl Written {
    pub(crate) fn plus(self, other: Written) -> Written {
        Written {
            lines: self.lines + other.lines,
            bytes: self.bytes + other.bytes,
            dropped_lines: self.dropped_lines + other.dropped_lines,
            reopened: self.reopened + other.reopened,
            error_dropped: self.error_dropped + other.error_dropped,
            audit_dropped: self.audit_dropped + other.audit_dropped,
        }
    }
}

/// Whole lines, each with its newline.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) text: Vec<u8>,
    pub(crate) lines: u32,
    /// Of the plan that says where they go.
    pub(crate) version: u64,
    /// Bytes that are written already.
    pub(crate) sent: usize,
    /// Lines that found no room before this batch did.
    pub(crate) lost: u64,
}

impl Batch {
    /// Adds what `encode` appends, which must be one whole line.
    pub fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let line = Unfinished { begins: self.text.len(), text: &mut self.text };
        encode(line.text);
        std::mem::forget(line);
        self.lines += 1;
        debug_assert!(self.text.ends_with(b"\n"));
    }

    /// What is written of it ends inside a line.
    pub(crate) fn is_cut(&self) -> bool {
        self.sent > 0 && self.text[self.sent - 1] != b'\n'
    }

    /// What was cut is to be written whole, to another file.
    pub(crate) fn back_to_line(&mut self) {
        let newline = self.text[..self.sent].iter().rposition(|&byte| byte == b'\n');
        self.sent = newline.map_or(0, |at| at + 1);
    }

    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Time to offer it. It is also time once its first line is `ACCESS_LOG_BATCH_AGE_MAX` old,
    /// which the core's timer knows.
    pub fn is_full(&self) -> bool {
        self.text.len() >= ACCESS_LOG_BATCH_BYTES
    }
}

/// Dropped, the line is taken back: half of one would spoil the next.
struct Unfinished<'t> {
    text: &'t mut Vec<u8>,
    begins: usize,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.text.truncate(self.begins);
    }
}

/// A line of the audit log, with its newline.
#[derive(Debug)]
pub(crate) struct AuditLine {
    /// Of the plan that was in force.
    pub(crate) version: u64,
    pub(crate) line: Vec<u8>,
}

/// A data core's end.
#[derive(Debug)]
pub struct Producer {
    batches: Sender<Batch>,
    empties: Receiver<(Vec<u8>, usize)>,
    audit: Sender<AuditLine>,
    spares: Vec<Vec<u8>>,
    /// Bytes of text that the publisher has not given back yet.
    queued: usize,
    /// Lines dropped since the last batch was taken.
    lost: u64,
}

impl Producer {
    /// An empty batch, in a buffer that was used before if there is one.
    pub fn begin(&mut self, version: u64) -> Batch {
        self.collect();
        let text = self.spares.pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES));
        debug_assert!(text.is_empty());
        Batch { text, version, ..Batch::default() }
    }

    /// Never blocks. A batch that finds no room comes back: [`Producer::drop`] it, or try again. An
    /// empty one is not sent.
    pub fn offer(&mut self, mut batch: Batch) -> Result<(), Batch> {
        if batch.is_empty() {
            self.spares.push(batch.text);
            return Ok(());
        }
        self.collect();
        let bytes = batch.text.len();
        // One batch always has room in an empty queue, however long its lines are.
        if self.queued > 0 && self.queued + bytes > ACCESS_LOG_QUEUE_BYTES_MAX {
            return Err(batch);
        }
        batch.lost = self.lost;
        match self.batches.try_send(batch) {
            Ok(()) => {
                self.queued += bytes;
                self.lost = 0;
                Ok(())
            }
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => Err(batch),
        }
    }

    /// Gives a batch up that found no room. Its lines, for who counts them.
    pub fn drop(&mut self, mut batch: Batch) -> u64 {
        let lines = u64::from(batch.lines);
        self.lost += lines;
        batch.text.clear();
        self.spares.push(batch.text);
        lines
    }

    /// Waits for room: for the last batch of a core that has nothing else left to do.
    pub fn offer_last(&mut self, batch: Batch, patience: Duration) -> Result<(), Batch> {
        match self.batches.send_timeout(batch, patience) {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Timeout(batch) | SendTimeoutError::Disconnected(batch)) => {
                Err(batch)
            }
        }
    }

    /// Offers a line of the audit log; false when there is no room for it. Never blocks.
    pub fn audit(&self, version: u64, line: Vec<u8>) -> bool {
        self.audit.try_send(AuditLine { version, line }).is_ok()
    }

    /// Takes back the buffers that were written.
    fn collect(&mut self) {
        while let Ok((buffer, bytes)) = self.empties.try_recv() {
            self.queued -= bytes;
            if buffer.capacity() > 0 {
                self.spares.push(buffer);
            }
        }
    }
}

/// The publisher's end.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) batches: Receiver<Batch>,
    pub(crate) audit: Receiver<AuditLine>,
    /// A batch that could not be written, and may not be lost.
    pub(crate) held: Option<Batch>,
    empties: Sender<(Vec<u8>, usize)>,
}

impl Consumer {
    /// Gives a buffer back. One that grew beyond what is usual is freed.
    pub(crate) fn give_back(&self, mut buffer: Vec<u8>) {
        let bytes = buffer.len();
        buffer.clear();
        if buffer.capacity() > 2 * BUFFER_BYTES {
            buffer = Vec::new();
        }
        // There is room: it has a place for every batch that can be under way.
        drop(self.empties.try_send((buffer, bytes)));
    }
}

/// Both ends of one core's queues.
pub(crate) fn pair() -> (Producer, Consumer) {
    let (batches_in, batches_out) = crossbeam_channel::bounded(ACCESS_LOG_BATCHES_MAX);
    let (empties_in, empties_out) = crossbeam_channel::bounded(2 * ACCESS_LOG_BATCHES_MAX);
    let (audit_in, audit_out) = crossbeam_channel::bounded(AUDIT_LINES_MAX);
    let producer = Producer {
        batches: batches_in,
        empties: empties_out,
        audit: audit_in,
        spares: Vec::new(),
        queued: 0,
        lost: 0,
    };
    (producer, Consumer { batches: batches_out, audit: audit_out, held: None, empties: empties_in })
}

/// A full batch and the line that made it full, usually.
const BUFFER_BYTES: usize = ACCESS_LOG_BATCH_BYTES + 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(producer: &mut Producer, lines: u32) -> Batch {
        let mut batch = producer.begin(1);
        for _ in 0..lines {
            batch.push(|out| out.extend_from_slice(b"line\n"));
        }
        batch
    }

    #[test]
    fn a_full_queue_gives_the_batch_back_and_the_next_one_taken_tells_what_was_lost() {
        let (mut producer, consumer) = pair();
        for _ in 0..ACCESS_LOG_BATCHES_MAX {
            let batch = batch(&mut producer, 1);
            producer.offer(batch).unwrap();
        }
        let batch_of_three = batch(&mut producer, 3);
        let refused = producer.offer(batch_of_three).unwrap_err();
        assert_eq!(producer.drop(refused), 3);
        consumer.give_back(consumer.batches.try_recv().unwrap().text);
        let next = batch(&mut producer, 1);
        producer.offer(next).unwrap();
        assert_eq!(consumer.batches.try_iter().map(|batch| batch.lost).sum::<u64>(), 3);
    }

    #[test]
    fn a_queue_is_full_of_bytes_as_well_and_always_takes_one_batch() {
        let (mut producer, consumer) = pair();
        let large = |producer: &mut Producer| {
            let mut batch = producer.begin(1);
            batch.push(|out| out.extend_from_slice(&[b'\n'; ACCESS_LOG_QUEUE_BYTES_MAX]));
            batch
        };
        let first = large(&mut producer);
        producer.offer(first).unwrap();
        let second = large(&mut producer);
        let second = producer.offer(second).unwrap_err();
        consumer.give_back(consumer.batches.try_recv().unwrap().text);
        producer.offer(second).unwrap();
    }

    #[test]
    fn a_line_whose_writing_panics_leaves_nothing_in_the_batch() {
        let mut batch = Batch::default();
        batch.push(|out| out.extend_from_slice(b"one\n"));
        let half = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"half");
            panic!("in the middle of it");
        };
        let push = std::panic::AssertUnwindSafe(|| batch.push(half));
        assert!(std::panic::catch_unwind(push).is_err());
        batch.push(|out| out.extend_from_slice(b"two\n"));
        assert_eq!((batch.lines, &batch.text[..]), (2, &b"one\ntwo\n"[..]));
    }

    #[test]
    fn a_publisher_that_is_gone_gives_back_and_does_not_panic() {
        let (mut producer, consumer) = pair();
        drop(consumer);
        let batch = batch(&mut producer, 2);
        assert_eq!(producer.offer(batch).unwrap_err().lines, 2);
        assert!(!producer.audit(1, b"x\n".to_vec()));
    }

    #[test]
    fn steady_state_uses_the_same_buffer_again() {
        let (mut producer, consumer) = pair();
        let first = batch(&mut producer, 1);
        let address = first.text.as_ptr();
        producer.offer(first).unwrap();
        consumer.give_back(consumer.batches.try_recv().unwrap().text);
        let second = batch(&mut producer, 1);
        assert_eq!(second.text.as_ptr(), address);
        assert_eq!(second.lines, 1);

        drop(consumer);
        let refused = producer.offer(second).unwrap_err();
        producer.drop(refused);
        assert_eq!(producer.begin(1).text.as_ptr(), address);
    }

    #[test]
    fn a_buffer_that_grew_is_freed() {
        let (mut producer, consumer) = pair();
        producer.queued = 5;
        let mut buffer = Vec::with_capacity(3 * BUFFER_BYTES);
        buffer.extend_from_slice(b"line\n");
        consumer.give_back(buffer);
        assert!(producer.begin(1).text.capacity() < 3 * BUFFER_BYTES);
        assert_eq!(producer.queued, 0);
    }
}
