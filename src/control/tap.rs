//! The tap of the process: given to every data core by letter, and taken away again.

use std::rc::Rc;

use crate::control::Control;
use crate::control::message::ToShard;
use crate::events::bus::{Kinds, Subscription};
use crate::limits;
use crate::telemetry::tap::{Filter, Tap};

/// Dropped: the cores look no more.
pub(crate) struct Tapped {
    control: Rc<Control>,
    pub(crate) id: u64,
    pub(crate) tap: Tap,
}

impl Control {
    /// `None`: there is a tap already.
    pub(crate) fn tap(
        self: &Rc<Self>,
        filter: Filter,
        count: Option<u64>,
        body_bytes: usize,
    ) -> Option<(Subscription, Tapped)> {
        if self.taps.open.get() >= limits::TAPS_MAX {
            return None;
        }
        self.taps.open.set(self.taps.open.get() + 1);
        self.taps.begun.set(self.taps.begun.get() + 1);
        let id = self.taps.begun.get();
        let tap = Tap::new(id, filter, count, body_bytes, &self.plan());
        let subscription = self.subscribe(Kinds::TAPPED, limits::TAP_EVENTS_MAX);
        self.to_shards(|| ToShard::Tap(Some(Box::new(tap.clone()))));
        Some((subscription, Tapped { control: Rc::clone(self), id, tap }))
    }
}

impl Drop for Tapped {
    fn drop(&mut self) {
        self.control.taps.open.set(self.control.taps.open.get() - 1);
        self.control.to_shards(|| ToShard::Tap(None));
    }
}
