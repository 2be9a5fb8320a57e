//! Work that blocks (names, files), done on a few threads beside the core that asks. Data cores
//! never do.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::thread;

use crossbeam_channel::{Receiver, Sender};

use crate::engine::doorbell::Doorbell;
use crate::engine::io::set_waker;
use crate::engine::process;
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
            let work = move || {
                // A configuration is compiled here: data cores go first where CPUs are few.
                process::be_patient();
                queue.iter().for_each(|job| job());
            };
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
            let replaced = set_waker(waker, context);
            drop(waiting);
            drop(replaced);
            return Poll::Pending;
        }
        // Collected between the look above and this one: the answer is there.
        Poll::Ready(self.answers.try_recv().ok().flatten())
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        let waker = self.waiting.borrow_mut().wakers.remove(&self.id);
        drop(waker); // not while the cell is borrowed: it may be its task's last
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::test_core::on_a_core_with;
    use crate::engine::{core_state, on_bell, sleep, spawn};

    /// A core with a pool.
    fn with_pool<T, F>(main: impl FnOnce(Rc<Pool>) -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let bell = Doorbell::new().unwrap();
        let own = bell.clone();
        on_a_core_with(bell, move || {
            let pool = Rc::new(Pool::start(own).unwrap());
            let collecting = Rc::downgrade(&pool);
            on_bell(move || collecting.upgrade().into_iter().for_each(|pool| pool.collect()));
            main(pool)
        })
    }

    #[test]
    fn answers_come_back_to_those_who_asked() {
        with_pool(|pool| async move {
            let asked: Vec<_> = (0..1000_u64).map(|n| pool.run(move || n * n)).collect();
            for (n, answer) in (0..).zip(asked) {
                assert_eq!(answer.await, Some(n * n));
            }
            assert!(pool.waiting.borrow().wakers.is_empty());
        });
    }

    #[test]
    fn a_sleeping_core_is_woken_by_its_answer() {
        with_pool(|pool| async move {
            for _ in 0..20 {
                let nap = pool.run(|| thread::sleep(Duration::from_millis(5)));
                assert_eq!(nap.await, Some(()));
            }
        });
    }

    #[test]
    fn work_that_panics_answers_nothing_and_leaves_its_thread_alive() {
        with_pool(|pool| async move {
            for _ in 0..2 * limits::BLOCKING_THREADS {
                assert_eq!(pool.run(|| -> u32 { panic!("on purpose") }).await, None);
            }
            assert_eq!(pool.run(|| 7).await, Some(7));
            assert_eq!(core_state().panics, 0);
        });
    }

    #[test]
    fn an_answer_that_nobody_waits_for_any_more_is_forgotten() {
        with_pool(|pool| async move {
            let (done, finished) = crossbeam_channel::bounded(16);
            for polled in [false, true] {
                let done = done.clone();
                let answer = pool.run(move || {
                    thread::sleep(Duration::from_millis(5));
                    done.send(()).unwrap();
                });
                if polled {
                    // A task that is dropped while it waits: another one is woken in its stead.
                    let mut answer = answer;
                    spawn(async move {
                        std::future::poll_fn(|context| {
                            assert!(Pin::new(&mut answer).poll(context).is_pending());
                            Poll::Ready(())
                        })
                        .await;
                    });
                }
            }
            while finished.len() < 2 {
                sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(pool.run(|| 7).await, Some(7));
            assert!(pool.waiting.borrow().wakers.is_empty());
        });
    }
}
