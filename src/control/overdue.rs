//! Work for a new configuration that panics or does not come back: a file of a dead server is read
//! for ever. It costs its own outcome and a thread of few, not the next configuration.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Poll;

use crate::control::Control;
use crate::control::reload::Refused;
use crate::engine;
use crate::limits;

/// As much work of one kind may be under way at once, what nobody waits for any more included.
#[derive(Default)]
pub(super) struct Slots<const MOST: usize> {
    taken: Rc<Cell<usize>>,
}

/// One of them, until it is dropped.
struct Slot(Rc<Cell<usize>>);

impl<const MOST: usize> Slots<MOST> {
    fn take(&self) -> Option<Slot> {
        if self.taken.get() >= MOST {
            return None;
        }
        self.taken.update(|taken| taken + 1);
        Some(Slot(Rc::clone(&self.taken)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.update(|taken| taken - 1);
    }
}

impl Control {
    /// What `work` for a configuration gives, beside this core, if it does so in time.
    pub(super) async fn in_time<T: Send + 'static>(
        self: &Rc<Self>,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        self.in_time_of(&self.reloads.slots, name, work).await
    }

    /// The same for other work, which has slots of its own.
    pub(super) async fn in_time_of<T: Send + 'static, const MOST: usize>(
        self: &Rc<Self>,
        slots: &Slots<MOST>,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let limit = limits::RELOAD_PREPARE_TIMEOUT;
        let Some(taken) = slots.take() else {
            return Err(Refused::Impossible(format!(
                "{name}: busy with earlier tries, {MOST} of them: try again; if they do not come \
                 back, find out what holds the files that they name, or their disk"
            )));
        };
        let result = Rc::new(RefCell::new(None));
        let (control, slot) = (Rc::clone(self), Rc::clone(&result));
        engine::spawn(async move {
            let given = control.watch.pool().run(work).await;
            *slot.borrow_mut() = Some(given);
            drop(taken);
            control.wake();
        });
        self.until(limit, |_| result.borrow().is_some()).await;
        let given = result.borrow_mut().take();
        match given {
            Some(Some(given)) => Ok(given),
            Some(None) => Err(panicked()),
            None => Err(Refused::Impossible(format!(
                "{name}: reading it, and opening what it names, takes longer than {limit:?}: find \
                 out what holds those files, or their disk"
            ))),
        }
    }
}

pub(super) fn panicked() -> Refused {
    Refused::Impossible("preparing it panicked: this is a bug".to_owned())
}

/// `None`: it panicked.
pub(super) async fn caught<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        polled.map_or(Poll::Ready(None), |poll| poll.map(Some))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn work_of_one_kind_leaves_the_slots_of_another() {
        let (reloads, files) = (Slots::<2>::default(), Slots::<1>::default());
        let held = [reloads.take(), reloads.take()];
        assert!(held.iter().all(Option::is_some) && reloads.take().is_none());
        let other = files.take();
        assert!(other.is_some() && files.take().is_none());
        drop((held, other));
        assert!(reloads.take().is_some() && files.take().is_some());
    }

    #[test]
    fn a_panic_costs_its_own_outcome() {
        let mut context = Context::from_waker(Waker::noop());
        let mut good = Box::pin(caught(async { 7 }));
        assert_eq!(good.as_mut().poll(&mut context), Poll::Ready(Some(7)));
        let mut bad = Box::pin(caught(async { panic!("on purpose") }));
        let bad: Poll<Option<u8>> = bad.as_mut().poll(&mut context);
        assert_eq!(bad, Poll::Ready(None));
    }
}
