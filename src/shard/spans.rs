//! A data core's traced exchanges on their way to the exporters, one queue for each collector: full
//! batches leave at once, others when housekeeping comes. What is dropped is counted here.

use std::cell::RefCell;

use crate::control::message::SpanChange;
use crate::events::span_queue::SpanProducer;
use crate::exchange::record::Record;
use crate::shard::counters::Counters;
use crate::telemetry::trace::span::{self, Attempt, Identity};

/// None without a collector: only headers are wanted.
#[derive(Default)]
pub(crate) struct Spans(RefCell<Vec<SpanProducer>>);

impl Spans {
    /// With a new plan. What ended before goes where it would have gone without.
    pub(crate) fn install(&self, change: SpanChange, counters: &Counters) {
        match change {
            SpanChange::Same => {}
            SpanChange::To(producers) => {
                self.flush(counters);
                *self.0.borrow_mut() = producers;
            }
        }
    }

    pub(crate) fn write(
        &self,
        record: &Record<'_>,
        identity: &Identity,
        path: &[u8],
        attempts: &[Attempt],
        counters: &Counters,
    ) {
        let spans = 1 + attempts.len() as u32;
        for producer in self.0.borrow_mut().iter_mut() {
            let lost =
                producer.push(spans, |out| span::encode(record, identity, path, attempts, out));
            counters.spans_dropped.add(u64::from(lost));
        }
    }

    pub(crate) fn flush(&self, counters: &Counters) {
        for producer in self.0.borrow_mut().iter_mut() {
            counters.spans_dropped.add(u64::from(producer.flush()));
        }
    }
}
