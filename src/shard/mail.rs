//! A data core's ends of its mailboxes.

use std::cell::Cell;

use crate::control::message::{ToControl, ToShard};
use crate::engine::{Inbox, Outbox};

/// Where a data core's letters go: one box per other core, one to the control core.
#[derive(Debug)]
pub(crate) struct Mail {
    core: usize,
    /// By core; `None` at its own place.
    shards: Vec<Option<Outbox<ToShard>>>,
    control: Outbox<ToControl>,
    lost: Cell<u64>,
}

/// Where they come from.
#[derive(Debug)]
pub(crate) struct Inboxes(pub(crate) Vec<Inbox<ToShard>>);

impl Mail {
    pub(crate) fn new(
        core: usize,
        shards: Vec<Option<Outbox<ToShard>>>,
        control: Outbox<ToControl>,
    ) -> Mail {
        Mail { core, shards, control, lost: Cell::new(0) }
    }

    pub(crate) fn core(&self) -> usize {
        self.core
    }

    pub(crate) fn cores(&self) -> usize {
        self.shards.len()
    }

    /// A letter that finds its box full is given back.
    pub(crate) fn offer(&self, core: usize, letter: ToShard) -> Result<(), ToShard> {
        match self.shards.get(core) {
            Some(Some(outbox)) => outbox.put(letter),
            Some(None) | None => Err(letter),
        }
    }

    /// For letters that may be lost: the receiver has another way to find out, only later.
    pub(crate) fn to(&self, core: usize, letter: ToShard) {
        if self.offer(core, letter).is_err() {
            self.lost.set(self.lost.get() + 1);
        }
    }

    pub(crate) fn to_all_others(&self, letter: impl Fn() -> ToShard) {
        (0..self.shards.len())
            .filter(|&core| core != self.core)
            .for_each(|core| self.to(core, letter()));
    }

    /// False: there is no room for a letter that may be lost.
    pub(crate) fn offer_to_control(&self, letter: ToControl) -> bool {
        self.control.put(letter).is_ok()
    }

    pub(crate) fn to_control(&self, letter: ToControl) {
        if self.control.put(letter).is_err() {
            log::error!("core {}: the control core does not take its mail", self.core);
        }
    }
}
