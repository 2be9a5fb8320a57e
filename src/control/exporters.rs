//! The control core's ends of the exporters of spans: one for each collector of the plan.

use std::io;
use std::thread::JoinHandle;

use crate::engine;
use crate::events::exporter::{self, Exported, ExporterHandle};
use crate::events::span_queue::SpanProducer;
use crate::limits;
use crate::plan::Plan;

#[derive(Debug, Default)]
pub(crate) struct Exporters(Vec<(ExporterHandle, JoinHandle<()>)>);

impl Exporters {
    /// With what each data core gets: one producer for each collector.
    pub(super) fn start(plan: &Plan) -> io::Result<(Exporters, Vec<Vec<SpanProducer>>)> {
        let mut exporters = Vec::new();
        let mut by_core: Vec<Vec<SpanProducer>> = (0..plan.cores).map(|_| Vec::new()).collect();
        for collector in plan.tracing.iter().flat_map(|tracing| &tracing.collectors) {
            let started = exporter::start(collector.clone(), plan.cores, engine::precise_now)?;
            exporters.push((started.handle, started.thread));
            for (core, producer) in by_core.iter_mut().zip(started.producers) {
                core.push(producer);
            }
        }
        Ok((Exporters(exporters), by_core))
    }

    /// The sums over all collectors.
    pub(super) fn exported(&mut self) -> Exported {
        let all = self.0.iter_mut().map(|(exporter, _)| exporter.exported());
        all.fold(Exported::default(), |sum, one| Exported {
            taken: sum.taken + one.taken,
            failed: sum.failed + one.failed,
        })
    }

    /// Has the last spans sent. Blocks: for the end of the process, after the data cores'.
    pub(super) fn stop(self) {
        // All at the same time, so that the time of all is that of one.
        let by = engine::precise_now() + limits::TRACE_STOP_TIMEOUT;
        self.0.iter().for_each(|(exporter, _)| exporter.stop(by));
        for (exporter, thread) in self.0 {
            let (ended, exported) = exporter.until_ended(by);
            log::debug!("tracing: {} spans sent, {} failed", exported.taken, exported.failed);
            if ended {
                drop(thread.join());
            } else {
                log::warn!("tracing: the last spans could not be sent in time");
            }
        }
    }
}
