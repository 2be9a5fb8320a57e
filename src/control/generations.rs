//! Generations that are no longer the newest: how many are alive and how old they are, kept below
//! their maxima, and freed on a thread where that delays nobody.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::control::{Control, stats};
use crate::engine::{self, Shared};
use crate::limits;
use crate::plan::Plan;

/// Oldest first.
#[derive(Default)]
pub(super) struct Older(RefCell<Vec<OldPlan>>);

struct OldPlan {
    /// Data cores that still have it hold the others.
    plan: Shared<Plan>,
    superseded: Instant,
    /// Its exchanges were told to end.
    retired: bool,
}

/// A generation that some core still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiveGeneration {
    pub(crate) version: u64,
    /// Of all cores, as of their last reports.
    pub(crate) exchanges: u64,
    /// Since a newer one took its place; `None` for the newest.
    pub(crate) superseded_for: Option<Duration>,
}

impl Older {
    pub(super) fn add(&self, plan: Shared<Plan>, now: Instant) {
        self.0.borrow_mut().push(OldPlan { plan, superseded: now, retired: false });
    }

    /// How many some core still has.
    pub(super) fn alive(&self) -> u64 {
        self.0.borrow().iter().filter(|old| !old.plan.is_last()).count() as u64
    }

    fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Those that no core has any more.
    fn take_unused(&self) -> Vec<Shared<Plan>> {
        let mut older = self.0.borrow_mut();
        older.extract_if(.., |old| old.plan.is_last()).map(|old| old.plan).collect()
    }

    fn live(&self, exchanges: &BTreeMap<u64, u64>, now: Instant) -> Vec<LiveGeneration> {
        let live = |old: &OldPlan| LiveGeneration {
            version: old.plan.version,
            exchanges: exchanges.get(&old.plan.version).copied().unwrap_or_default(),
            superseded_for: Some(now.saturating_duration_since(old.superseded)),
        };
        self.0.borrow().iter().map(live).collect()
    }
}

impl Control {
    /// Newest first; with the numbers of the cores' last reports.
    pub(crate) fn generations(&self) -> Vec<LiveGeneration> {
        let exchanges = self.totals.borrow().exchanges();
        let version = self.plan().version;
        let newest = LiveGeneration {
            version,
            exchanges: exchanges.get(&version).copied().unwrap_or_default(),
            superseded_for: None,
        };
        let older = self.older.live(&exchanges, engine::now());
        std::iter::once(newest).chain(older.into_iter().rev()).collect()
    }

    /// Asks the cores, frees what nobody holds, and ends what is too old or too much.
    pub(super) async fn tend_generations(self: &Rc<Self>) {
        stats::ask(self).await;
        self.free_unused_plans();
        self.registry.forget_unused();
        let exchanges = self.totals.borrow().exchanges();
        self.forget_logs();
        let limits = self.plan().hot_reload;
        let now = engine::now();
        let live = self.older.live(&exchanges, now);
        let through = surplus(&live, limits.generations_max, limits.age_max);
        let Some(through) = through else { return };
        for old in self.older.0.borrow_mut().iter_mut().filter(|o| o.plan.version <= through) {
            if !std::mem::replace(&mut old.retired, true) {
                let version = old.plan.version;
                let exchanges = exchanges.get(&version).copied().unwrap_or_default();
                log::warn!(
                    "generation {version} is retired: {exchanges} exchanges of it are cut; \
                     `hot_reload` says how many may be alive, and how long"
                );
            }
        }
        self.to_shards(|| crate::control::message::ToShard::Retire(through));
    }

    /// The access log of a plan stays open until its last exchange has its line.
    fn forget_logs(&self) {
        let totals = self.totals.borrow();
        if let Some(publisher) = &totals.log
            && !publisher.forget(totals.oldest_writing())
        {
            log::debug!("the publisher is busy: old logs stay open until the next reload");
        }
    }

    /// Freeing the tables of a large plan takes milliseconds: not here, and not on a data core.
    fn free_unused_plans(&self) {
        for plan in self.older.take_unused() {
            log::debug!("generation {} is gone", plan.version);
            drop(self.watch.pool().run(move || drop(plan)));
        }
    }
}

/// Up to which version exchanges have to end. `live` is oldest first, without the newest.
fn surplus(live: &[LiveGeneration], most: usize, age_max: Option<Duration>) -> Option<u64> {
    let busy: Vec<&LiveGeneration> = live.iter().filter(|old| old.exchanges > 0).collect();
    let too_many = (1 + busy.len()).saturating_sub(most);
    let too_old = |old: &&&LiveGeneration| {
        age_max.zip(old.superseded_for).is_some_and(|(max, age)| age >= max)
    };
    let aged = busy.iter().filter(too_old).map(|old| old.version).max();
    let many = busy[..too_many].last().map(|old| old.version);
    many.max(aged)
}

/// Looks after old generations while there are any, for ever.
pub(super) async fn tend(control: Rc<Control>) {
    loop {
        std::future::poll_fn(|context| {
            if !control.older.is_empty() {
                return Poll::Ready(());
            }
            control.poll_changed(context);
            Poll::Pending
        })
        .await;
        control.tend_generations().await;
        engine::sleep(limits::GENERATIONS_LOOK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old(version: u64, exchanges: u64, seconds: u64) -> LiveGeneration {
        let superseded_for = Some(Duration::from_secs(seconds));
        LiveGeneration { version, exchanges, superseded_for }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_and_those_without_exchanges_do_not_count() {
        let live = [old(1, 1, 9), old(2, 0, 8), old(3, 5, 7), old(4, 1, 6)];
        assert_eq!(surplus(&live, 4, None), None);
        assert_eq!(surplus(&live, 3, None), Some(1));
        assert_eq!(surplus(&live, 2, None), Some(3));
        assert_eq!(surplus(&live, 1, None), Some(4));
        assert_eq!(surplus(&[], 1, None), None);
    }

    #[test]
    fn those_go_that_were_superseded_too_long_ago() {
        let live = [old(1, 1, 9), old(2, 0, 8), old(3, 5, 7)];
        assert_eq!(surplus(&live, 9, Some(Duration::from_secs(10))), None);
        assert_eq!(surplus(&live, 9, Some(Duration::from_secs(9))), Some(1));
        assert_eq!(surplus(&live, 9, Some(Duration::from_secs(7))), Some(3));
        assert_eq!(surplus(&live, 2, Some(Duration::from_secs(9))), Some(1));
    }
}
