//! Records of traced exchanges between a data core and an exporter: full batches one way, empty
//! buffers the other, so that steady state allocates nothing. Offering never blocks: a batch that
//! finds no room is dropped, and its spans are counted.

use crossbeam_channel::{Receiver, Sender};

use crate::limits::{TRACE_BATCH_BYTES, TRACE_BATCHES_MAX};

/// Whole records.
#[derive(Debug, Default)]
pub struct SpanBatch {
    pub(crate) records: Vec<u8>,
    pub(crate) spans: u32,
}

/// A data core's end, with the batch that it fills.
#[derive(Debug)]
pub struct SpanProducer {
    batch: SpanBatch,
    batches: Sender<SpanBatch>,
    empties: Receiver<Vec<u8>>,
}

impl SpanProducer {
    /// Adds what `encode` appends, one record that stands for so many spans. Returns how many spans
    /// were lost, if that made the batch full.
    pub(crate) fn push(&mut self, spans: u32, encode: impl FnOnce(&mut Vec<u8>)) -> u32 {
        encode(&mut self.batch.records);
        self.batch.spans += spans;
        if self.batch.records.len() >= TRACE_BATCH_BYTES { self.flush() } else { 0 }
    }

    /// Offers what is there. Returns how many spans were lost.
    pub(crate) fn flush(&mut self) -> u32 {
        if self.batch.spans == 0 {
            return 0;
        }
        let used = self.empties.try_recv().ok();
        let records = used.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES));
        let full = std::mem::replace(&mut self.batch, SpanBatch { records, spans: 0 });
        match self.batches.try_send(full) {
            Ok(()) => 0,
            Err(refused) => {
                let SpanBatch { mut records, spans } = refused.into_inner();
                records.clear();
                self.batch.records = records;
                spans
            }
        }
    }
}

/// The exporter's end.
#[derive(Debug)]
pub(crate) struct SpanConsumer {
    pub(crate) batches: Receiver<SpanBatch>,
    empties: Sender<Vec<u8>>,
}

impl SpanConsumer {
    /// Gives a buffer back. One that finds no room is freed.
    pub(crate) fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        drop(self.empties.try_send(buffer));
    }
}

/// Both ends of one core's queues.
pub(crate) fn pair() -> (SpanProducer, SpanConsumer) {
    let (batches_in, batches) = crossbeam_channel::bounded(TRACE_BATCHES_MAX);
    let (empties_in, empties) = crossbeam_channel::bounded(TRACE_BATCHES_MAX);
    let producer = SpanProducer { batch: SpanBatch::default(), batches: batches_in, empties };
    (producer, SpanConsumer { batches, empties: empties_in })
}

/// A full batch and the record that made it full, usually.
const BUFFER_BYTES: usize = TRACE_BATCH_BYTES + 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(producer: &mut SpanProducer, spans: u32) -> u32 {
        assert_eq!(producer.push(spans, |out| out.push(b'x')), 0);
        producer.flush()
    }

    #[test]
    fn a_full_queue_drops_the_batch_and_tells_its_spans() {
        let (mut producer, consumer) = pair();
        for _ in 0..TRACE_BATCHES_MAX {
            assert_eq!(offer(&mut producer, 1), 0);
        }
        assert_eq!(offer(&mut producer, 3), 3);
        drop(consumer.batches.try_recv().unwrap());
        assert_eq!(offer(&mut producer, 3), 0);
        assert_eq!(producer.flush(), 0, "nothing is there");
        drop(consumer);
        assert_eq!(offer(&mut producer, 2), 2);
    }

    #[test]
    fn a_batch_leaves_when_it_is_full_and_its_buffer_comes_back() {
        let (mut producer, consumer) = pair();
        let big = |out: &mut Vec<u8>| out.resize(TRACE_BATCH_BYTES, 0);
        assert_eq!(producer.push(2, big), 0);
        let batch = consumer.batches.try_recv().unwrap();
        assert_eq!((batch.spans, batch.records.len()), (2, TRACE_BATCH_BYTES));
        let address = batch.records.as_ptr();
        consumer.give_back(batch.records);
        offer(&mut producer, 1); // this one takes the buffer for the next
        offer(&mut producer, 1);
        consumer.batches.try_recv().unwrap();
        assert_eq!(consumer.batches.try_recv().unwrap().records.as_ptr(), address);
    }
}
