//! What a data core and the publisher say to each other, and the two bounded queues they say it
//! through: full batches one way, empty buffers the other, so that steady state allocates nothing.
//! Offering never blocks: a batch that finds no room is dropped, and its lines are counted.

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::limits::{ACCESS_LOG_BATCH_BYTES, ACCESS_LOG_BATCHES_MAX};

/// From the control core to the publisher.
#[derive(Debug)]
pub(crate) enum Order {
    /// Open the file by its name again: it was rotated away (SIGUSR1).
    Reopen,
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
}

/// Whole lines, each with its newline.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) text: Vec<u8>,
    pub(crate) lines: u32,
}

impl Batch {
    /// Adds what `encode` appends, which must be one whole line.
    pub fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.text);
        self.lines += 1;
        debug_assert!(self.text.ends_with(b"\n"));
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

/// What became of a batch.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    Taken,
    Dropped { lines: u32 },
}

/// A data core's end.
#[derive(Debug)]
pub struct Producer {
    batches: Sender<Batch>,
    empties: Receiver<Vec<u8>>,
    /// The buffer of a batch that was dropped.
    spare: Option<Vec<u8>>,
}

impl Producer {
    /// An empty batch, in a buffer that was used before if there is one.
    pub fn begin(&mut self) -> Batch {
        let used = self.spare.take().or_else(|| self.empties.try_recv().ok());
        let text = used.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES));
        debug_assert!(text.is_empty());
        Batch { text, lines: 0 }
    }

    /// Never blocks. An empty batch is not sent.
    pub fn offer(&mut self, batch: Batch) -> Offered {
        if batch.is_empty() {
            self.keep(batch);
            return Offered::Taken;
        }
        match self.batches.try_send(batch) {
            Ok(()) => Offered::Taken,
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
                let lines = batch.lines;
                self.keep(batch);
                Offered::Dropped { lines }
            }
        }
    }

    fn keep(&mut self, mut batch: Batch) {
        batch.text.clear();
        self.spare = Some(batch.text);
    }
}

/// The publisher's end.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) batches: Receiver<Batch>,
    empties: Sender<Vec<u8>>,
}

impl Consumer {
    /// Gives a buffer back. One that grew beyond what is usual, or finds no room, is freed.
    pub(crate) fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() <= 2 * BUFFER_BYTES {
            drop(self.empties.try_send(buffer));
        }
    }
}

/// Both ends of one core's queues.
pub(crate) fn pair() -> (Producer, Consumer) {
    let (batches_in, batches_out) = crossbeam_channel::bounded(ACCESS_LOG_BATCHES_MAX);
    let (empties_in, empties_out) = crossbeam_channel::bounded(ACCESS_LOG_BATCHES_MAX);
    let producer = Producer { batches: batches_in, empties: empties_out, spare: None };
    (producer, Consumer { batches: batches_out, empties: empties_in })
}

/// A full batch and the line that made it full, usually.
const BUFFER_BYTES: usize = ACCESS_LOG_BATCH_BYTES + 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(producer: &mut Producer, lines: u32) -> Batch {
        let mut batch = producer.begin();
        for _ in 0..lines {
            batch.push(|out| out.extend_from_slice(b"line\n"));
        }
        batch
    }

    #[test]
    fn a_full_queue_drops_the_batch_and_tells_its_lines() {
        let (mut producer, _consumer) = pair();
        for _ in 0..ACCESS_LOG_BATCHES_MAX {
            let batch = batch(&mut producer, 1);
            assert_eq!(producer.offer(batch), Offered::Taken);
        }
        let batch = batch(&mut producer, 3);
        assert_eq!(producer.offer(batch), Offered::Dropped { lines: 3 });
    }

    #[test]
    fn a_publisher_that_is_gone_drops_and_does_not_panic() {
        let (mut producer, consumer) = pair();
        drop(consumer);
        let batch = batch(&mut producer, 2);
        assert_eq!(producer.offer(batch), Offered::Dropped { lines: 2 });
    }

    #[test]
    fn steady_state_uses_the_same_buffer_again() {
        let (mut producer, consumer) = pair();
        let first = batch(&mut producer, 1);
        let address = first.text.as_ptr();
        assert_eq!(producer.offer(first), Offered::Taken);
        consumer.give_back(consumer.batches.try_recv().unwrap().text);
        let second = batch(&mut producer, 1);
        assert_eq!(second.text.as_ptr(), address);
        assert_eq!(second.lines, 1);

        drop(consumer);
        assert_eq!(producer.offer(second), Offered::Dropped { lines: 1 });
        assert!(producer.spare.is_some());
        assert_eq!(producer.begin().text.as_ptr(), address);
    }

    #[test]
    fn a_buffer_that_grew_is_freed() {
        let (mut producer, consumer) = pair();
        consumer.give_back(Vec::with_capacity(3 * BUFFER_BYTES));
        assert!(producer.begin().text.capacity() < 3 * BUFFER_BYTES);
    }
}
