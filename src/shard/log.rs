//! A data core's access-log lines on their way to the publisher: encoded into a batch, offered
//! when it is full or `ACCESS_LOG_BATCH_AGE_MAX` old. A batch that the publisher has no room for
//! is dropped and counted.

use std::cell::RefCell;

use crate::control::message::LogChange;
use crate::events::queue::{Batch, Offered, Producer};
use crate::exchange::record::Record;
use crate::plan::AccessLogFormat;
use crate::shard::counters::Counters;
use crate::telemetry::access_log;

#[derive(Default)]
pub(crate) struct AccessLines(RefCell<Option<Lines>>);

struct Lines {
    format: AccessLogFormat,
    producer: Producer,
    batch: Batch,
}

impl AccessLines {
    /// With a new plan. Exchanges that end from now on are told of in the new place and format;
    /// what was told before goes to the old place.
    pub(crate) fn install(
        &self,
        format: Option<AccessLogFormat>,
        change: LogChange,
        counters: &Counters,
    ) {
        self.flush(counters);
        let mut lines = self.0.borrow_mut();
        match (change, format) {
            (LogChange::To(mut producer), Some(format)) => {
                let batch = producer.begin();
                *lines = Some(Lines { format, producer, batch });
            }
            (LogChange::Same, Some(format)) => {
                lines.iter_mut().for_each(|lines| lines.format = format);
            }
            (LogChange::Off, _) | (_, None) => *lines = None,
        }
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.0.borrow().is_some()
    }

    pub(crate) fn write(&self, record: &Record<'_>, counters: &Counters) {
        if let Some(lines) = self.0.borrow_mut().as_mut() {
            lines.batch.push(|out| access_log::encode(lines.format, record, out));
            if lines.batch.is_full() {
                lines.offer(counters);
            }
        }
    }

    pub(crate) fn flush(&self, counters: &Counters) {
        if let Some(lines) = self.0.borrow_mut().as_mut() {
            lines.offer(counters);
        }
    }
}

impl Lines {
    fn offer(&mut self, counters: &Counters) {
        if self.batch.is_empty() {
            return;
        }
        let next = self.producer.begin();
        match self.producer.offer(std::mem::replace(&mut self.batch, next)) {
            Offered::Taken => {}
            Offered::Dropped { lines } => counters.log_lines_dropped.add(u64::from(lines)),
        }
    }
}
