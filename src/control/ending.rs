//! Something is to end: said once, waited for by one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};

#[derive(Clone, Default)]
pub(crate) struct Ending(Rc<(Cell<bool>, RefCell<Option<Waker>>)>);

impl Ending {
    pub(crate) fn end(&self) {
        self.0.0.set(true);
        let waker = self.0.1.borrow_mut().take();
        waker.into_iter().for_each(Waker::wake);
    }

    pub(crate) async fn come(&self) {
        std::future::poll_fn(|context| {
            if self.0.0.get() {
                return Poll::Ready(());
            }
            *self.0.1.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
