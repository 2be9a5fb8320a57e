//! A core's machine and the loop that drives it. glommio schedules the tasks; one of them, the driver,
//! lets all woken tasks run, then enters the ring: once, for submitting, reaping and sleeping alike.
//! Because the ring itself is what the core sleeps on, there is no second place to be woken at, and
//! no moment between looking and sleeping in which a wake-up can be lost.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;

use crate::engine::buffer::{Buf, Pool};
use crate::engine::doorbell::{Doorbell, Sleeper};
use crate::engine::io::{self as descriptors, Slots};
use crate::engine::ring::{Completion, Ring};
use crate::engine::timer::{TimerKey, Wheel};
use crate::limits;

/// What a core is made of. It lives in a thread-local, so that a socket or a timer needs no handle.
pub(super) struct Machine {
    pub(super) slots: RefCell<Slots>,
    pub(super) ring: RefCell<Ring>,
    pub(super) wheel: RefCell<Wheel>,
    buffers: Rc<Pool>,
    sleepers: RefCell<Sleepers>,
    doorbell: Doorbell,
    /// Called once a turn when the doorbell was rung: the one point where messages are applied.
    on_bell: RefCell<Option<Box<dyn FnMut()>>>,
    origin: Instant,
    now: Cell<Instant>,
    polls: Cell<u64>,
    panics: Cell<u64>,
    finished: Cell<bool>,
    lag: RefCell<Histogram<u64>>,
    completions: RefCell<Vec<Completion>>,
    wakes: RefCell<Vec<Waker>>,
}

thread_local! {
    static MACHINE: OnceCell<Rc<Machine>> = const { OnceCell::new() };
}

/// Where a core's thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    Cpu(usize),
    Anywhere,
}

/// Runs `main` as a core on this thread until it returns. Tasks that it leaves behind are dropped.
pub fn run<T, F>(
    placement: Placement,
    doorbell: Doorbell,
    main: impl FnOnce() -> F,
) -> io::Result<T>
where
    T: 'static,
    F: Future<Output = T> + 'static,
{
    if let Placement::Cpu(cpu) = placement {
        // Refused when the CPU went away meanwhile: the core works all the same, unpinned.
        core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
    }
    let machine = Rc::new(Machine::new(doorbell)?);
    MACHINE
        .with(|cell| cell.set(Rc::clone(&machine)))
        .map_err(|_| io::Error::other("a thread is one core only"))?;
    // glommio's own timers, sockets and threads are not used; its preempt timer would let it park
    // with runnable tasks, so it is set beyond any uptime.
    let executor = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound)
        .preempt_timer(Duration::from_secs(60 * 60 * 24 * 365))
        .io_memory(64 * 1024)
        .ring_depth(8)
        .make()
        .map_err(|e| io::Error::other(e.to_string()))?;
    let result = executor.run(async {
        let driver = glommio::spawn_local(drive(Rc::clone(&machine)));
        let result = Counted(main()).await;
        machine.finished.set(true);
        driver.await;
        result
    });
    drop(executor);
    machine.on_bell.borrow_mut().take();
    Ok(result)
}

async fn drive(machine: Rc<Machine>) {
    let mut polls = machine.polls.get();
    let mut rounds = 0;
    while !machine.finished.get() {
        // Woken tasks are queued before this one: when it runs again without any of them having
        // been polled, nothing is runnable.
        yield_now().await;
        let idle = machine.polls.get() == polls;
        if !idle && rounds < limits::ROUNDS_PER_TURN {
            polls = machine.polls.get();
            rounds += 1;
            continue;
        }
        rounds = 0;
        polls = machine.polls.get();
        machine.turn(idle);
    }
}

impl Machine {
    fn new(doorbell: Doorbell) -> io::Result<Machine> {
        let now = Instant::now();
        let mut ring = Ring::new()?;
        ring.poll(doorbell.descriptor(), descriptors::token(descriptors::KIND_DOORBELL, 0, 0));
        Ok(Machine {
            slots: RefCell::default(),
            ring: RefCell::new(ring),
            wheel: RefCell::new(Wheel::new()),
            buffers: Pool::new(cfg!(debug_assertions)),
            sleepers: RefCell::default(),
            doorbell,
            on_bell: RefCell::new(None),
            origin: now,
            now: Cell::new(now),
            polls: Cell::new(0),
            panics: Cell::new(0),
            finished: Cell::new(false),
            lag: RefCell::new(histogram()),
            completions: RefCell::new(Vec::with_capacity(1024)),
            wakes: RefCell::new(Vec::with_capacity(1024)),
        })
    }

    pub(super) fn current() -> Rc<Machine> {
        MACHINE.with(|cell| Rc::clone(cell.get().expect("the engine is used on its cores only")))
    }

    fn with<T>(f: impl FnOnce(&Machine) -> T) -> T {
        MACHINE.with(|cell| f(cell.get().expect("the engine is used on its cores only")))
    }

    pub(super) fn tick_after(&self, after: Duration) -> u64 {
        // Rounded up, so that nothing fires early.
        self.tick() + after.as_millis() as u64 + 1
    }

    fn tick(&self) -> u64 {
        (self.now.get() - self.origin).as_millis() as u64
    }

    /// One visit to the ring, sleeping there when nothing is runnable.
    fn turn(&self, idle: bool) {
        let now = Instant::now();
        self.note_lag(now - self.now.get());
        let sleep = if idle { self.sleep_limit(now) } else { None };
        if let Some(limit) = sleep
            && self.doorbell.may_sleep(Sleeper::Going)
        {
            self.enter(Some(limit));
        } else {
            self.enter(None);
        }
        self.doorbell.may_sleep(Sleeper::Awake);
        self.now.set(Instant::now());
        self.complete();
        self.expire();
        self.answer_bell();
    }

    fn enter(&self, wait: Option<Duration>) {
        let mut ring = self.ring.borrow_mut();
        ring.enter(wait)
            .expect("the ring was accepted at start, and entering it needs nothing new");
        ring.reap(&mut self.completions.borrow_mut());
    }

    /// How long nothing can happen but what the ring reports.
    fn sleep_limit(&self, now: Instant) -> Option<Duration> {
        let Some(tick) = self.wheel.borrow().next_tick() else {
            return Some(limits::SLEEP_MAX);
        };
        let due = self.origin + Duration::from_millis(tick);
        let left = due.saturating_duration_since(now);
        (!left.is_zero()).then(|| left.min(limits::SLEEP_MAX))
    }

    fn complete(&self) {
        let mut completions = self.completions.borrow_mut();
        let mut wakes = self.wakes.borrow_mut();
        let mut slots = self.slots.borrow_mut();
        for completion in completions.drain(..) {
            match descriptors::token_kind(completion.token) {
                descriptors::KIND_IO => slots.complete(completion, &mut wakes),
                descriptors::KIND_ACCEPT => slots.accepted(completion, &mut wakes),
                descriptors::KIND_DOORBELL if !completion.more => {
                    self.ring.borrow_mut().poll(self.doorbell.descriptor(), completion.token);
                }
                _ => {} // a doorbell's edge has done its work by waking us; the rest asked for no answer
            }
        }
        drop(slots);
        wakes.drain(..).for_each(Waker::wake);
    }

    fn expire(&self) {
        let now = self.tick();
        let mut due = Vec::new();
        if self.wheel.borrow().next_tick().is_none_or(|tick| tick > now) {
            return;
        }
        self.wheel.borrow_mut().advance(now, |token| due.push(token));
        let mut wakes = self.wakes.borrow_mut();
        for token in due {
            if descriptors::token_kind(token) == descriptors::KIND_SLEEP {
                wakes.extend(self.sleepers.borrow_mut().fire(token));
                continue;
            }
            let again = self.slots.borrow_mut().expire(token, now, &mut wakes);
            if let Some(tick) = again {
                let key = self.wheel.borrow_mut().insert(tick, token);
                self.slots.borrow_mut().armed(token, tick, key);
            }
        }
        wakes.drain(..).for_each(Waker::wake);
    }

    fn answer_bell(&self) {
        if self.doorbell.answer()
            && let Some(apply) = self.on_bell.borrow_mut().as_mut()
        {
            apply();
        }
    }

    fn note_lag(&self, lag: Duration) {
        self.lag.borrow_mut().saturating_record(lag.as_micros() as u64);
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 2).expect("the bounds are in order")
}

// --- the plain names that the rest of the program uses ---------------------------------------

/// Starts a task on this core. A panic in it is logged and counted, and takes nothing else with it.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(Caught(Counted(future))).detach();
}

/// The time of this turn: cheap, and the same for everything that happens in it.
pub fn now() -> Instant {
    Machine::with(|machine| machine.now.get())
}

/// The time right now, for measuring.
pub fn precise_now() -> Instant {
    Instant::now()
}

/// The time of day.
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// A buffer of the core's pool.
pub fn buffer() -> Buf {
    Machine::with(|machine| machine.buffers.take())
}

/// Lets every other runnable task of this core run first.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Sets what is done when another core has rung.
pub fn on_bell(apply: impl FnMut() + 'static) {
    Machine::with(|machine| *machine.on_bell.borrow_mut() = Some(Box::new(apply)));
}

/// What a core says of itself.
#[derive(Debug)]
pub struct CoreState {
    pub descriptors: usize,
    pub timers: usize,
    pub buffers: usize,
    pub panics: u64,
    /// How long a turn's tasks ran, in microseconds, since the last call.
    pub lag: Histogram<u64>,
    pub cpu: Duration,
}

pub fn core_state() -> CoreState {
    Machine::with(|machine| CoreState {
        descriptors: machine.slots.borrow().open(),
        timers: machine.wheel.borrow().len(),
        buffers: machine.buffers.lent(),
        panics: machine.panics.get(),
        lag: machine.lag.replace(histogram()),
        cpu: super::process::thread_cpu(),
    })
}

/// Ends the waits of connections that are between two requests.
pub fn expire_parked() {
    let mut wake = Vec::new();
    Machine::with(|machine| machine.slots.borrow_mut().expire_parked(&mut wake));
    wake.into_iter().for_each(Waker::wake);
}

/// Frees buffers that nobody has needed lately.
pub fn trim_buffers() {
    Machine::with(|machine| machine.buffers.trim());
}

/// Until `after` has passed. Dropping it takes the timer away.
pub fn sleep(after: Duration) -> Sleep {
    Sleep { after, state: None }
}

#[derive(Debug)]
pub struct Sleep {
    after: Duration,
    state: Option<(u32, TimerKey)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Machine::with(|machine| {
            let mut sleepers = machine.sleepers.borrow_mut();
            if let Some((index, _)) = self.state {
                if sleepers.cells[index as usize].fired {
                    sleepers.free.push(index);
                    self.state = None;
                    return Poll::Ready(());
                }
                sleepers.cells[index as usize].waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            let index = sleepers.insert(context.waker().clone());
            let token = descriptors::token(descriptors::KIND_SLEEP, 0, index);
            let tick = machine.tick_after(self.after);
            self.state = Some((index, machine.wheel.borrow_mut().insert(tick, token)));
            Poll::Pending
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Some((index, key)) = self.state.take() else {
            return;
        };
        let waker = Machine::with(|machine| {
            let mut sleepers = machine.sleepers.borrow_mut();
            if !sleepers.cells[index as usize].fired {
                machine.wheel.borrow_mut().remove(key);
            }
            sleepers.free.push(index);
            sleepers.cells[index as usize].waker.take()
        });
        drop(waker);
    }
}

#[derive(Debug, Default)]
struct Sleepers {
    cells: Vec<SleepCell>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct SleepCell {
    waker: Option<Waker>,
    fired: bool,
}

impl Sleepers {
    fn insert(&mut self, waker: Waker) -> u32 {
        let cell = SleepCell { waker: Some(waker), fired: false };
        if let Some(index) = self.free.pop() {
            self.cells[index as usize] = cell;
            return index;
        }
        self.cells.push(cell);
        self.cells.len() as u32 - 1
    }

    fn fire(&mut self, token: u64) -> Option<Waker> {
        let cell = &mut self.cells[descriptors::token_index(token) as usize];
        cell.fired = true;
        cell.waker.take()
    }
}

/// Tells the driver that something ran.
struct Counted<F>(F);

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        Machine::with(|machine| machine.polls.set(machine.polls.get() + 1));
        project(self).poll(context)
    }
}

/// Stops a panic at the task's edge.
struct Caught<F>(Counted<F>);

impl<F: Future<Output = ()>> Future for Caught<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let task = project_caught(self);
        std::panic::catch_unwind(AssertUnwindSafe(|| task.poll(context))).unwrap_or_else(|panic| {
            Machine::with(|machine| machine.panics.set(machine.panics.get() + 1));
            let thread = thread::current();
            let core = thread.name().unwrap_or("a core");
            log::error!(
                "a task of {core} panicked, its connection is closed: {}",
                message(&*panic)
            );
            Poll::Ready(())
        })
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[expect(unsafe_code, reason = "a pin projection to the only field")]
fn project<F>(counted: Pin<&mut Counted<F>>) -> Pin<&mut F> {
    // SAFETY: the field is pinned with its struct, is never moved out, and Counted has no Drop.
    unsafe { counted.map_unchecked_mut(|counted| &mut counted.0) }
}

#[expect(unsafe_code, reason = "a pin projection to the only field")]
fn project_caught<F>(caught: Pin<&mut Caught<F>>) -> Pin<&mut Counted<F>> {
    // SAFETY: as for `project`.
    unsafe { caught.map_unchecked_mut(|caught| &mut caught.0) }
}
