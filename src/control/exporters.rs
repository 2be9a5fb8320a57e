//! The control core's ends of the exporters of spans, over reloads: one for each collector of the
//! plan in force, and those of earlier plans that send their last spans. Each core changes over at
//! one point: what ended before it goes to the exporters before, what ends after it to the new.

use std::io;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::control::message::SpanChange;
use crate::engine;
use crate::events::exporter::{self, Exported, ExporterHandle};
use crate::events::span_queue::SpanProducer;
use crate::limits;
use crate::plan::{Collector, Plan};

#[derive(Debug, Default)]
pub(crate) struct Exporters {
    running: Running,
    /// Of earlier plans. Bounded: a reload waits while there are many.
    older: Vec<Exporter>,
    /// By those that have ended.
    before: Exported,
}

/// One for each collector, in the same order.
#[derive(Debug, Default)]
pub(super) struct Running {
    collectors: Vec<Collector>,
    exporters: Vec<Exporter>,
}

#[derive(Debug)]
struct Exporter {
    handle: ExporterHandle,
    thread: JoinHandle<()>,
    /// It was told to end by then.
    stop_by: Option<Instant>,
}

/// What a plan changes.
#[derive(Debug)]
pub(super) enum Change {
    Same,
    /// As many as before, but others: those that run send there, also what waits in their queues.
    SendTo(Vec<Collector>),
    /// With what each data core gets: one producer for each collector.
    To(Running, Vec<Vec<SpanProducer>>),
}

/// Starts what `plan` needs, if that does not run already.
pub(super) fn start(plan: &Plan, now: &[Collector]) -> Result<Change, String> {
    let collectors = plan.tracing.iter().flat_map(|tracing| &tracing.collectors);
    let wanted: Vec<Collector> = collectors.cloned().collect();
    if wanted == now {
        return Ok(Change::Same);
    }
    if wanted.len() == now.len() {
        return Ok(Change::SendTo(wanted));
    }
    Running::start(wanted, plan.cores)
        .map_err(|error| format!("tracing: cannot start an exporter's thread: {error}"))
}

impl Running {
    fn start(collectors: Vec<Collector>, cores: usize) -> io::Result<Change> {
        let mut exporters = Vec::new();
        let mut by_core: Vec<Vec<SpanProducer>> = (0..cores).map(|_| Vec::new()).collect();
        for collector in &collectors {
            let started = exporter::start(collector.clone(), cores, engine::precise_now)?;
            let exporter::Started { handle, producers, thread } = started;
            exporters.push(Exporter { handle, thread, stop_by: None });
            for (core, producer) in by_core.iter_mut().zip(producers) {
                core.push(producer);
            }
        }
        Ok(Change::To(Running { collectors, exporters }, by_core))
    }
}

impl Exporters {
    pub(super) fn collectors(&self) -> &[Collector] {
        &self.running.collectors
    }

    /// What each core is told. Those that are replaced run on until `end_older`.
    pub(super) fn change(&mut self, change: Change, cores: usize) -> Vec<SpanChange> {
        let same = || (0..cores).map(|_| SpanChange::Same).collect();
        match change {
            Change::Same => same(),
            Change::SendTo(collectors) => {
                let pairs = self.running.exporters.iter().zip(&collectors);
                for ((exporter, new), old) in pairs.zip(&self.running.collectors) {
                    if new != old {
                        exporter.handle.send_to(new.clone());
                    }
                }
                self.running.collectors = collectors;
                same()
            }
            Change::To(running, producers) => {
                let old = std::mem::replace(&mut self.running, running);
                self.older.extend(old.exporters);
                producers.into_iter().map(SpanChange::To).collect()
            }
        }
    }

    /// Once no core writes to them: they send what is queued, and end. Never blocks.
    pub(super) fn end_older(&mut self) {
        let by = engine::precise_now() + limits::TRACE_STOP_TIMEOUT;
        for exporter in self.older.iter_mut().filter(|exporter| exporter.stop_by.is_none()) {
            exporter.stop(by);
        }
    }

    /// Too many are ending for others to join them.
    pub(super) fn are_many_ending(&mut self) -> bool {
        self.forget_ended();
        self.older.len() >= limits::EXPORTERS_ENDING_MAX
    }

    fn forget_ended(&mut self) {
        let now = engine::precise_now();
        for mut ended in self.older.extract_if(.., |exporter| exporter.is_over(now)) {
            if !ended.thread.is_finished() {
                log::warn!("tracing: an earlier collector did not take the last spans in time");
            }
            self.before = sum(self.before, ended.handle.exported());
        }
    }

    /// The sums over all collectors, since the start of the process.
    pub(super) fn exported(&mut self) -> Exported {
        self.forget_ended();
        let all = self.running.exporters.iter_mut().chain(&mut self.older);
        all.fold(self.before, |all, exporter| sum(all, exporter.handle.exported()))
    }

    /// Has the last spans sent. Blocks: for the end of the process, after the data cores'.
    pub(super) fn stop(self) {
        // All at the same time, so that the time of all is that of one.
        let by = engine::precise_now() + limits::TRACE_STOP_TIMEOUT;
        let mut all: Vec<Exporter> = self.running.exporters.into_iter().chain(self.older).collect();
        all.iter_mut().for_each(|exporter| exporter.stop(by));
        for Exporter { handle, thread, .. } in all {
            let (ended, exported) = handle.until_ended(by);
            log::debug!("tracing: {} spans sent, {} failed", exported.taken, exported.failed);
            if ended {
                drop(thread.join());
            } else {
                log::warn!("tracing: the last spans could not be sent in time");
            }
        }
    }
}

impl Exporter {
    fn stop(&mut self, by: Instant) {
        self.stop_by = Some(by);
        self.handle.stop(by);
    }

    /// Its thread has ended, or is not waited for any longer.
    fn is_over(&self, now: Instant) -> bool {
        let late = |by| now >= by + exporter::STOP_GRACE;
        self.thread.is_finished() || self.stop_by.is_some_and(late)
    }
}

fn sum(a: Exported, b: Exported) -> Exported {
    Exported { taken: a.taken + b.taken, failed: a.failed + b.failed }
}
