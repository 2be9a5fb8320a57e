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

/// How many are being worked on, those included that nobody waits for any more.
pub(super) type Begun = Rc<Cell<usize>>;

impl Control {
    /// What `work` gives, beside this core, if it does so in time.
    pub(super) async fn in_time<T: Send + 'static>(
        self: &Rc<Self>,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let begun = &self.reloads.begun;
        let limit = limits::RELOAD_PREPARE_TIMEOUT;
        if begun.get() >= limits::RELOADS_OVERDUE_MAX {
            return Err(Refused::Impossible(format!(
                "{name}: {} earlier tries have not come back: find out what holds the files that \
                 it names, or their disk",
                begun.get()
            )));
        }
        begun.set(begun.get() + 1);
        let result = Rc::new(RefCell::new(None));
        let (control, slot) = (Rc::clone(self), Rc::clone(&result));
        engine::spawn(async move {
            let given = control.watch.pool().run(work).await;
            *slot.borrow_mut() = Some(given);
            control.reloads.begun.update(|begun| begun - 1);
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
    fn a_panic_costs_its_own_outcome() {
        let mut context = Context::from_waker(Waker::noop());
        let mut good = Box::pin(caught(async { 7 }));
        assert_eq!(good.as_mut().poll(&mut context), Poll::Ready(Some(7)));
        let mut bad = Box::pin(caught(async { panic!("on purpose") }));
        let bad: Poll<Option<u8>> = bad.as_mut().poll(&mut context);
        assert_eq!(bad, Poll::Ready(None));
    }
}
