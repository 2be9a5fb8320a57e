//! A data core's traced exchanges on their way to the exporter: encoded into a batch, offered when
//! it is full or housekeeping comes. A batch that the exporter has no room for is dropped and its
//! spans are counted.

use std::cell::RefCell;

use crate::events::queue::{Batch, Offered, Producer};
use crate::exchange::record::Record;
use crate::shard::counters::Counters;
use crate::telemetry::trace::span::{self, Attempt, Identity};

#[derive(Default)]
pub(crate) struct Spans(RefCell<Vec<Records>>);

struct Records {
    producer: Producer,
    batch: Batch,
}

impl Spans {
    /// One producer for each collector.
    pub(crate) fn install(&self, producers: Vec<Producer>) {
        let records = |mut producer: Producer| {
            let batch = producer.begin();
            Records { producer, batch }
        };
        *self.0.borrow_mut() = producers.into_iter().map(records).collect();
    }

    /// Without a collector (only headers are wanted) nothing is told.
    pub(crate) fn write(
        &self,
        record: &Record<'_>,
        identity: &Identity,
        path: &[u8],
        attempts: &[Attempt],
        counters: &Counters,
    ) {
        for records in self.0.borrow_mut().iter_mut() {
            let spans = 1 + attempts.len() as u32;
            let encode = |out: &mut Vec<u8>| span::encode(record, identity, path, attempts, out);
            records.batch.push_several(spans, encode);
            if records.batch.is_full() {
                records.offer(counters);
            }
        }
    }

    pub(crate) fn flush(&self, counters: &Counters) {
        for records in self.0.borrow_mut().iter_mut() {
            records.offer(counters);
        }
    }
}

impl Records {
    fn offer(&mut self, counters: &Counters) {
        if self.batch.is_empty() {
            return;
        }
        let next = self.producer.begin();
        match self.producer.offer(std::mem::replace(&mut self.batch, next)) {
            Offered::Taken => {}
            Offered::Dropped { lines } => counters.spans_dropped.add(u64::from(lines)),
        }
    }
}
