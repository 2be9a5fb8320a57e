//! Work that blocks (names, files), done on a few threads beside the core that asks. Data cores never do.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::thread;

use crossbeam_channel::{Receiver, Sender};

use crate::engine::doorbell::Doorbell;
use crate::limits;

type Job = Box<dyn FnOnce() + Send>;

/// The threads, and the answers on their way back.
pub struct Pool {
    jobs: Sender<Job>,
    done: (Sender<u64>, Receiver<u64>),
    bell: Doorbell,
    waiting: Rc<RefCell<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    wakers: HashMap<u64, Option<Waker>>,
}

impl Pool {
    /// `bell` is the core's own.
    pub fn start(bell: Doorbell) -> std::io::Result<Pool> {
        let (jobs, queue) = crossbeam_channel::unbounded::<Job>();
        for index in 0..limits::BLOCKING_THREADS {
            let queue = queue.clone();
            let work = move || queue.iter().for_each(|job| job());
            thread::Builder::new().name(format!("blocking-{index}")).spawn(work)?;
        }
        Ok(Pool { jobs, done: crossbeam_channel::unbounded(), bell, waiting: Rc::default() })
    }

    /// Runs `work` elsewhere. A panic in it, or dropping the future, loses the answer only.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Answer<T> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.next += 1;
        let id = waiting.next;
        waiting.wakers.insert(id, None);
        drop(waiting);
        let (answer, answers) = crossbeam_channel::bounded(1);
        let (done, bell) = (self.done.0.clone(), self.bell.clone());
        let job = move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // Nobody may be waiting any more.
            let _ = answer.send(result.ok());
            let _ = done.send(id);
            bell.ring();
        };
        self.jobs.send(Box::new(job)).expect("the threads live as long as the pool");
        Answer { id, answers, waiting: Rc::clone(&self.waiting) }
    }

    /// Wakes whoever waits for an answer that has come. Called when the bell was rung.
    pub fn collect(&self) {
        for id in self.done.1.try_iter() {
            let waker = self.waiting.borrow_mut().wakers.remove(&id).flatten();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

pub struct Answer<T> {
    id: u64,
    answers: Receiver<Option<T>>,
    waiting: Rc<RefCell<Waiting>>,
}

impl<T> Future for Answer<T> {
    /// `None` when the work panicked.
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let Ok(result) = self.answers.try_recv() {
            return Poll::Ready(result);
        }
        let mut waiting = self.waiting.borrow_mut();
        if let Some(waker) = waiting.wakers.get_mut(&self.id) {
            *waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        // Collected between the look above and this one: the answer is there.
        Poll::Ready(self.answers.try_recv().ok().flatten())
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        self.waiting.borrow_mut().wakers.remove(&self.id);
    }
}
