//! Letters from the control core to one data core. None is lost, and none overtakes another: what
//! finds the mailbox full is kept here and tried again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Poll;

use crate::control::Control;
use crate::control::message::ToShard;
use crate::engine::{self, Outbox};
use crate::limits;

pub(super) struct Letters {
    core: usize,
    outbox: Outbox<ToShard>,
    /// Oldest first. The newest of each kind, and of each cluster; and, while a core is stuck,
    /// every plan that it has not taken, since sockets come with it.
    kept: RefCell<VecDeque<ToShard>>,
}

impl Letters {
    pub(super) fn new(core: usize, outbox: Outbox<ToShard>) -> Letters {
        Letters { core, outbox, kept: RefCell::default() }
    }

    pub(super) fn send(&self, letter: ToShard) {
        let mut kept = self.kept.borrow_mut();
        if !kept.is_empty() {
            return keep(&mut kept, letter);
        }
        if let Err(letter) = self.outbox.put(letter) {
            log::warn!("core {} does not take its mail: it gets it later", self.core);
            keep(&mut kept, letter);
        }
    }

    pub(super) fn are_sent(&self) -> bool {
        self.kept.borrow().is_empty()
    }

    /// As far as there is room.
    fn send_kept(&self) {
        let mut kept = self.kept.borrow_mut();
        while let Some(letter) = kept.pop_front() {
            if let Err(letter) = self.outbox.put(letter) {
                return kept.push_front(letter);
            }
        }
    }
}

fn keep(kept: &mut VecDeque<ToShard>, letter: ToShard) {
    match &letter {
        // Who asks does not wait for ever.
        ToShard::Report(_) | ToShard::Question(..) => return,
        ToShard::Service(_) => kept.retain(|older| !matches!(older, ToShard::Service(_))),
        ToShard::Health(_) => kept.retain(|older| !matches!(older, ToShard::Health(_))),
        ToShard::Endpoints(cluster, _) => kept
            .retain(|older| !matches!(older, ToShard::Endpoints(theirs, _) if theirs == cluster)),
        ToShard::WantEvents(_) => kept.retain(|older| !matches!(older, ToShard::WantEvents(_))),
        ToShard::Tap(_) => kept.retain(|older| !matches!(older, ToShard::Tap(_))),
        ToShard::Blacklist(_) => kept.retain(|older| !matches!(older, ToShard::Blacklist(_))),
        ToShard::Retire(_) => kept.retain(|older| !matches!(older, ToShard::Retire(_))),
        ToShard::Tls(..) => kept.retain(|older| !matches!(older, ToShard::Tls(..))),
        ToShard::Install(_)
        | ToShard::LendSockets(_)
        | ToShard::Drain { .. }
        | ToShard::Part
        | ToShard::TakeAgain(_)
        | ToShard::Stop
        | ToShard::Connection(..)
        | ToShard::MakeRoom(_)
        | ToShard::SlotFree(_)
        | ToShard::Recall(_) => {}
    }
    kept.push_back(letter);
}

/// Delivers what was kept, for ever.
pub(super) async fn deliver_kept(control: Rc<Control>) {
    loop {
        std::future::poll_fn(|context| {
            if control.are_letters_sent() {
                control.poll_changed(context);
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        engine::sleep(limits::LETTER_RETRY_INTERVAL).await;
        control.shards.iter().for_each(Letters::send_kept);
        control.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Doorbell, Inbox, mailbox};
    use crate::plan::ClusterKey;

    fn full_mailbox() -> (Letters, Inbox<ToShard>) {
        let (outbox, inbox) = mailbox(Doorbell::new().unwrap());
        let letters = Letters::new(0, outbox);
        (0..limits::MAILBOX_MESSAGES as u64).for_each(|n| letters.send(ToShard::Report(n)));
        assert!(letters.are_sent());
        (letters, inbox)
    }

    fn rest(inbox: &Inbox<ToShard>) -> Vec<String> {
        let letters = std::iter::from_fn(|| inbox.take());
        let others = letters.filter(|letter| !matches!(letter, ToShard::Report(_)));
        others.map(|letter| format!("{letter:?}")).collect()
    }

    #[test]
    fn a_full_mailbox_loses_no_letter_and_keeps_their_order() {
        let (letters, inbox) = full_mailbox();
        letters.send(ToShard::Endpoints(ClusterKey(1), Vec::new()));
        letters.send(ToShard::Drain { handed_over: Vec::new() });
        letters.send_kept();
        assert!(!letters.are_sent(), "there is still no room");
        for _ in 0..2 {
            assert!(inbox.take().is_some());
        }
        // There is room, but those that came before go first.
        letters.send(ToShard::Stop);
        letters.send_kept();
        assert!(!letters.are_sent());
        assert!(inbox.take().is_some());
        letters.send_kept();
        assert!(letters.are_sent());
        assert_eq!(
            rest(&inbox),
            ["Endpoints(ClusterKey(1), [])", "Drain { handed_over: [] }", "Stop"]
        );
    }

    #[test]
    fn what_is_kept_is_bounded_newer_addresses_replace_older_ones_and_reports_are_not_kept() {
        let (letters, inbox) = full_mailbox();
        for round in 0..100 {
            letters.send(ToShard::Report(round));
            letters.send(ToShard::Endpoints(ClusterKey(1), Vec::new()));
            letters.send(ToShard::Endpoints(ClusterKey(2), Vec::new()));
        }
        assert_eq!(letters.kept.borrow().len(), 2);
        assert_eq!(rest(&inbox), [""; 0]);
        letters.send_kept();
        assert_eq!(rest(&inbox), ["Endpoints(ClusterKey(1), [])", "Endpoints(ClusterKey(2), [])"]);
    }
}
