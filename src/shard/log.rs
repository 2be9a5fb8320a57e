//! A data core's access-log lines on their way to the publisher: encoded into a batch, offered
//! when it is full or `ACCESS_LOG_BATCH_AGE_MAX` old. When the publisher has no room, lines are
//! dropped and counted; or, with `on_full = "block"`, the batch grows and every connection that has
//! added a line waits before it goes on, so that it grows by one line per connection at most. The
//! core itself never waits. Each generation has a batch of its own while it has lines: the
//! publisher writes it where that generation's plan says.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::engine;
use crate::events::queue::{Batch, Producer};
use crate::exchange::capture::Captures;
use crate::exchange::failure::Failure;
use crate::exchange::record::Record;
use crate::limits;
use crate::plan::{AccessLog, OnFull, Plan};
use crate::shard::counters::Counters;
use crate::shard::{Origin, Shard};
use crate::telemetry::access_log;
use crate::telemetry::audit_log::{self, Event, Pace, RefusedClient};

pub(crate) struct AccessLines {
    lines: RefCell<Option<Lines>>,
    pub(crate) captures: Captures,
    /// A batch that may not be lost has found no room.
    blocked: Cell<bool>,
    /// A task looks for room.
    looking: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
    /// How often all that waited were woken: whoever waits since then is in the list once.
    woken: Cell<u64>,
}

struct Lines {
    producer: Producer,
    /// At most one for each generation, none of them empty.
    batches: Vec<Batch>,
    on_full: OnFull,
    scratch: Vec<u8>,
    pace: Pace,
}

impl AccessLines {
    pub(crate) fn new(cores: usize) -> AccessLines {
        AccessLines {
            lines: RefCell::new(None),
            captures: Captures::new(cores),
            blocked: Cell::new(false),
            looking: Cell::new(false),
            waiting: RefCell::default(),
            woken: Cell::new(0),
        }
    }

    /// A generation without a producer goes on with the one that there is.
    pub(crate) fn install(&self, on_full: OnFull, producer: Option<Producer>, cores: usize) {
        let mut lines = self.lines.borrow_mut();
        if let Some(producer) = producer {
            let per_second = (limits::AUDIT_EVENTS_PER_SECOND / cores.max(1)).max(1);
            let pace = Pace::new(per_second);
            *lines =
                Some(Lines { producer, batches: Vec::new(), on_full, scratch: Vec::new(), pace });
        } else if let Some(lines) = lines.as_mut() {
            lines.on_full = on_full;
        }
    }

    /// `version` is that of the plan that `log` is from.
    pub(crate) fn write(&self, log: &AccessLog, version: u64, record: &Record<'_>, shard: &Shard) {
        if let Some(lines) = self.lines.borrow_mut().as_mut() {
            let (batch, scratch) = lines.batch(version);
            batch.push(|out| access_log::encode(log, record, scratch, out));
            if batch.is_full() {
                self.settle(lines.offer(shard.counters()));
            }
        }
    }

    pub(crate) fn flush(&self, counters: &Counters) {
        if let Some(lines) = self.lines.borrow_mut().as_mut() {
            self.settle(lines.offer(counters));
        }
    }

    /// When the core ends: nobody is kept waiting any more, so the last batch may wait.
    pub(crate) fn finish(&self, counters: &Counters) {
        if let Some(lines) = self.lines.borrow_mut().as_mut() {
            let patience = match lines.on_full {
                OnFull::Drop => Duration::ZERO,
                OnFull::Block => limits::ACCESS_LOG_LAST_WAIT,
            };
            for batch in std::mem::take(&mut lines.batches) {
                if let Err(batch) = lines.producer.offer_last(batch, patience) {
                    counters.log_lines_dropped.add(lines.producer.drop(batch));
                }
            }
        }
    }

    fn settle(&self, offered: Offered) {
        match offered {
            Offered::Settled => {
                if self.blocked.replace(false) {
                    self.woken.set(self.woken.get() + 1);
                    self.waiting.take().into_iter().for_each(Waker::wake);
                }
            }
            Offered::Waits => self.blocked.set(true),
        }
    }

    /// Ready when the log has room for what was written so far.
    pub(crate) async fn room(&self, shard: &Rc<Shard>) {
        if !self.blocked.get() {
            return;
        }
        if !self.looking.replace(true) {
            engine::spawn(look_for_room(Rc::clone(shard)));
        }
        let mut waits_since = None;
        std::future::poll_fn(|context| {
            if !self.blocked.get() {
                return Poll::Ready(());
            }
            if waits_since.replace(self.woken.get()) != Some(self.woken.get()) {
                self.waiting.borrow_mut().push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Reports a request that should not have been sent, if there is not too much to report.
    /// `plan` is its own.
    pub(crate) fn audit(&self, plan: &Plan, record: &Record<'_>, failure: Failure, shard: &Shard) {
        self.audit_line(plan, shard, |untold, line| {
            audit_log::refused_request(record, failure, &plan.secrets, untold, line);
        });
    }

    /// Likewise a client that is not let in for its certificate, or is cut off.
    pub(crate) fn audit_client(
        &self,
        event: Event,
        origin: &Origin,
        (reason, detail): (&str, &str),
        shard: &Shard,
    ) {
        let generation = shard.generation();
        let plan = &generation.plan;
        if plan.audit_log.is_none() {
            return;
        }
        let listener = generation.listener(origin.door.key);
        self.audit_line(plan, shard, |untold, line| {
            let refused = RefusedClient {
                event,
                at: engine::wall_clock(),
                client: origin.speaks_for().ip(),
                peer: origin.peer.ip(),
                listener: listener.map_or(&origin.door.name, |listener| &listener.name),
                server_name: origin.host().unwrap_or_default(),
                reason,
                detail,
            };
            refused.encode(untold, line);
        });
    }

    fn audit_line(&self, plan: &Plan, shard: &Shard, encode: impl FnOnce(u64, &mut Vec<u8>)) {
        if let Some(lines) = self.lines.borrow_mut().as_mut()
            && let Some(untold) = lines.pace.allows(engine::now())
        {
            let mut line = Vec::new();
            encode(untold, &mut line);
            if !lines.producer.audit(plan.version, line) {
                lines.pace.leave_out(untold + 1);
                shard.counters().audit_lines_dropped.add(1);
            }
            shard.stir();
        }
    }
}

/// While connections wait for room. The publisher cannot ring: it never waits for a core either.
async fn look_for_room(shard: Rc<Shard>) {
    while shard.log.blocked.get() {
        engine::sleep(limits::ACCESS_LOG_ROOM_INTERVAL).await;
        shard.log.flush(shard.counters());
    }
    shard.log.looking.set(false);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Offered {
    /// Taken, or dropped and counted.
    Settled,
    /// No room, and it may not be lost.
    Waits,
}

impl Lines {
    /// Where lines of this generation are collected, and room to encode them.
    fn batch(&mut self, version: u64) -> (&mut Batch, &mut Vec<u8>) {
        let known = self.batches.iter().position(|batch| batch.version == version);
        let index = known.unwrap_or_else(|| {
            self.batches.push(self.producer.begin(version));
            self.batches.len() - 1
        });
        (&mut self.batches[index], &mut self.scratch)
    }

    fn offer(&mut self, counters: &Counters) -> Offered {
        let mut waiting = 0;
        while waiting < self.batches.len() {
            let batch = self.batches.swap_remove(waiting);
            match (self.producer.offer(batch), self.on_full) {
                (Ok(()), _) => {}
                (Err(batch), OnFull::Block) => {
                    self.batches.insert(waiting, batch);
                    waiting += 1;
                }
                (Err(batch), OnFull::Drop) => {
                    counters.log_lines_dropped.add(self.producer.drop(batch));
                }
            }
        }
        if waiting == 0 { Offered::Settled } else { Offered::Waits }
    }
}
