//! A data core's ends of its mailboxes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::control::message::{ToControl, ToShard};
use crate::engine::{self, Inbox, Outbox};
use crate::limits;

/// Where a data core's letters go: one box per other core, one to the control core.
#[derive(Debug)]
pub(crate) struct Mail {
    core: usize,
    /// By core; `None` at its own place.
    shards: Vec<Option<Outbox<ToShard>>>,
    control: Outbox<ToControl>,
    lost: Cell<u64>,
    /// For the control core, whose box was full. Oldest first. Bounded: what is told here answers a
    /// letter of the control core, or is told once (of a listener, of the end).
    kept: RefCell<VecDeque<ToControl>>,
    delivering: Cell<bool>,
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
        let lost = Cell::new(0);
        let (kept, delivering) = (RefCell::default(), Cell::new(false));
        Mail { core, shards, control, lost, kept, delivering }
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
        self.is_delivered() && self.control.put(letter).is_ok()
    }

    pub(crate) fn is_delivered(&self) -> bool {
        self.kept.borrow().is_empty()
    }

    /// None is lost, and none overtakes another: what finds the box full is kept and tried again.
    pub(crate) fn to_control(self: &Rc<Self>, letter: ToControl) {
        let mut kept = self.kept.borrow_mut();
        let refused = if kept.is_empty() { self.control.put(letter) } else { Err(letter) };
        let Err(letter) = refused else { return };
        kept.push_back(letter);
        drop(kept);
        if !self.delivering.replace(true) {
            log::warn!(
                "core {}: the control core does not take its mail: it gets it later",
                self.core
            );
            engine::spawn(deliver_kept(Rc::clone(self)));
        }
    }

    /// Of a core whose engine has ended: nobody could try again.
    pub(crate) fn last_word(&self, letter: ToControl) {
        if self.control.put(letter).is_err() {
            log::error!("core {}: the control core does not take its mail", self.core);
        }
    }

    /// As far as there is room. True: all of them.
    fn send_kept(&self) -> bool {
        let mut kept = self.kept.borrow_mut();
        while let Some(letter) = kept.pop_front() {
            if let Err(letter) = self.control.put(letter) {
                kept.push_front(letter);
                return false;
            }
        }
        true
    }
}

async fn deliver_kept(mail: Rc<Mail>) {
    while !mail.send_kept() {
        engine::sleep(limits::LETTER_RETRY_INTERVAL).await;
    }
    mail.delivering.set(false);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Doorbell, Placement, mailbox};

    fn names(inbox: &Inbox<ToControl>) -> Vec<String> {
        let letters = std::iter::from_fn(|| inbox.take());
        let others = letters.filter(|letter| !matches!(letter, ToControl::Full));
        others.map(|letter| format!("{letter:?}")).collect()
    }

    #[test]
    fn letters_to_a_control_core_that_takes_none_come_later_and_in_order() {
        let main = || async {
            let (outbox, inbox) = mailbox(Doorbell::new().unwrap());
            let mail = Rc::new(Mail::new(0, vec![None], outbox));
            while mail.offer_to_control(ToControl::Full) {}
            mail.to_control(ToControl::Installed { core: 0, version: 1 });
            mail.to_control(ToControl::Drained { core: 0 });
            engine::sleep(2 * limits::LETTER_RETRY_INTERVAL).await;
            inbox.take();
            assert!(!mail.offer_to_control(ToControl::Full), "it would overtake those");
            assert_eq!(names(&inbox), Vec::<String>::new());
            while mail.delivering.get() {
                engine::sleep(limits::LETTER_RETRY_INTERVAL).await;
            }
            assert_eq!(names(&inbox), ["Installed { core: 0, version: 1 }", "Drained { core: 0 }"]);
            assert!(mail.offer_to_control(ToControl::Full));
        };
        let core = move || engine::run(Placement::Anywhere, Doorbell::new().unwrap(), main);
        std::thread::spawn(core).join().unwrap().unwrap();
    }
}
