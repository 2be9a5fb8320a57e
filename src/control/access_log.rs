//! The control core's end of the access log, over reloads: the publisher of the newest generation,
//! and what those before it have written. Each core changes over at one point: what ended before it
//! is in the old file, what ends after it in the new one.

use std::path::PathBuf;
use std::thread::JoinHandle;

use crate::engine;
use crate::events::publisher::{Publisher, PublisherHandle, Settings, Started, Stopped};
use crate::events::queue::{Producer, Written};
use crate::limits;
use crate::plan::Plan;

/// `None`: standard output.
pub(super) type Place = Option<PathBuf>;

#[derive(Default)]
pub(crate) struct AccessLog {
    open: Option<Open>,
    /// By publishers that have ended.
    before: Written,
}

#[derive(Debug)]
pub(super) struct Open {
    place: Place,
    handle: PublisherHandle,
    thread: JoinHandle<()>,
}

/// What a plan changes.
#[derive(Debug)]
pub(super) enum Change {
    Same,
    Off,
    To(Open, Vec<Producer>),
}

/// Opens what `plan` writes to, if that is not open already. May block.
pub(super) fn open(plan: &Plan, now: Option<&Place>) -> Result<Change, String> {
    let Some(wanted) = &plan.access_log else {
        return Ok(if now.is_some() { Change::Off } else { Change::Same });
    };
    if now == Some(&wanted.path) {
        return Ok(Change::Same);
    }
    let place = wanted.path.clone();
    let settings = Settings { path: place.clone(), cores: plan.cores, clock: engine::precise_now };
    let Started { handle, producers, thread } =
        Publisher::start(settings).map_err(|error| error.to_string())?;
    Ok(Change::To(Open { place, handle, thread }, producers))
}

impl AccessLog {
    pub(super) fn place(&self) -> Option<Place> {
        self.open.as_ref().map(|open| open.place.clone())
    }

    /// The one that was open is given back: it is to be closed once no core writes to it.
    pub(super) fn replace(&mut self, open: Option<Open>) -> Option<Open> {
        std::mem::replace(&mut self.open, open)
    }

    pub(super) fn closed(&mut self, written: Written) {
        self.before = sum(self.before, written);
    }

    pub(super) fn take(&mut self) -> Option<Open> {
        self.open.take()
    }

    pub(super) fn reopen(&self) {
        if let Some(open) = &self.open {
            open.handle.reopen();
        }
    }

    /// Since the start of the process.
    pub(super) fn written(&mut self) -> Written {
        let written = self.open.as_mut().map(|open| open.handle.written()).unwrap_or_default();
        sum(self.before, written)
    }
}

impl Open {
    /// Has everything written. Blocks, for a while at most: then its thread is left behind.
    pub(super) fn close(self) -> Written {
        match self.handle.stop(limits::PUBLISHER_STOP_TIMEOUT) {
            Stopped::Drained(written) => {
                drop(self.thread.join());
                written
            }
            Stopped::TimedOut(written) => {
                log::error!("the access log could not be written to its end");
                written
            }
        }
    }
}

fn sum(a: Written, b: Written) -> Written {
    Written {
        lines: a.lines + b.lines,
        bytes: a.bytes + b.bytes,
        dropped_lines: a.dropped_lines + b.dropped_lines,
        reopened: a.reopened + b.reopened,
    }
}
