//! A core's machine and the loop that drives it. glommio schedules the tasks; one of them, the
//! driver, lets all woken tasks run, then enters the ring: once, for submitting, reaping and
//! sleeping alike. Because the ring itself is what the core sleeps on, there is no second place to
//! be woken at, and no moment between looking and sleeping in which a wake-up can be lost.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;

use crate::engine::buffer::{Buf, Pool};
use crate::engine::doorbell::{Doorbell, Sleeper};
use crate::engine::pipe::Pipes;
use crate::engine::probe;
use crate::engine::ring::{Completion, Entered, Ring};
use crate::engine::slots::{self as descriptors, Slots};
use crate::engine::timer::{TimerKey, Wheel};
use crate::limits;

/// What a core is made of. It lives in a thread-local, so that a socket or a timer needs no handle.
pub(super) struct Machine {
    pub(super) slots: RefCell<Slots>,
    pub(super) ring: RefCell<Ring>,
    pub(super) wheel: RefCell<Wheel>,
    buffers: Rc<Pool>,
    bulk_buffers: Rc<Pool>,
    pub(super) pipes: Rc<Pipes>,
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
    due: RefCell<Vec<u64>>,
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
        finish(&machine).await;
        result
    });
    Ok(result)
}

/// Drops the tasks that are left: each is woken once more, and does not get to run. What waits for
/// another task goes with that one.
async fn finish(machine: &Machine) {
    let apply = machine.on_bell.take();
    drop(apply);
    loop {
        let polls = machine.polls.get();
        let mut wakers = Vec::new();
        machine.slots.borrow_mut().take_wakers(&mut wakers);
        machine.sleepers.borrow_mut().take_wakers(&mut wakers);
        wakers.into_iter().for_each(Waker::wake);
        yield_now().await;
        if machine.polls.get() == polls {
            break;
        }
    }
    // What they had open is closed through the ring: submitted by the first visit, done by the
    // second.
    machine.enter(None);
    machine.enter(None);
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
        let mut ring = Ring::new().map_err(|error| probe::explained(&error))?;
        ring.poll(doorbell.descriptor(), descriptors::token(descriptors::KIND_DOORBELL, 0, 0));
        Ok(Machine {
            slots: RefCell::default(),
            ring: RefCell::new(ring),
            wheel: RefCell::new(Wheel::new()),
            buffers: Pool::new(limits::BUFFER_BYTES, cfg!(debug_assertions)),
            bulk_buffers: Pool::new(limits::BULK_BYTES, cfg!(debug_assertions)),
            pipes: Rc::default(),
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
            due: RefCell::default(),
        })
    }

    pub(super) fn current() -> Rc<Machine> {
        MACHINE.with(|cell| Rc::clone(cell.get().expect("the engine is used on its cores only")))
    }

    pub(super) fn with<T>(f: impl FnOnce(&Machine) -> T) -> T {
        MACHINE.with(|cell| f(cell.get().expect("the engine is used on its cores only")))
    }

    /// Counted from the time of this turn, which costs nothing.
    pub(super) fn tick_after(&self, after: Duration) -> u64 {
        self.tick_from(self.now.get(), after)
    }

    fn tick_from(&self, start: Instant, after: Duration) -> u64 {
        // Rounded up, so that nothing fires early.
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.tick(start).saturating_add(millis).saturating_add(1)
    }

    fn tick(&self, at: Instant) -> u64 {
        (at - self.origin).as_millis() as u64
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
        if self.is_due() {
            if self.ring.borrow_mut().has_deferred() {
                // What has come by the deadline is not late, however long the turn took.
                self.enter(None);
                self.complete();
            }
            self.expire();
        }
        self.answer_bell();
    }

    fn enter(&self, wait: Option<Duration>) {
        let mut ring = self.ring.borrow_mut();
        let entered = ring
            .enter(wait)
            .expect("the ring was accepted at start, and its arguments are always the same");
        ring.reap(&mut self.completions.borrow_mut());
        drop(ring);
        match entered {
            Entered::Whole => {}
            Entered::Lossy => {
                self.complete();
                self.begin_anew();
            }
        }
    }

    /// The ring has lost completions, nobody knows which: every operation is cancelled and
    /// forgotten, every wait looks for itself and arms its own again.
    fn begin_anew(&self) {
        log::warn!(
            "the kernel had no memory for io_uring completions: every connection is polled anew"
        );
        let mut wakes = self.wakes.take();
        {
            let mut ring = self.ring.borrow_mut();
            let bell = descriptors::token(descriptors::KIND_DOORBELL, 0, 0);
            ring.cancel(bell, descriptors::token(descriptors::KIND_IGNORED, 0, 0));
            ring.poll(self.doorbell.descriptor(), bell);
            let mut wheel = self.wheel.borrow_mut();
            self.slots.borrow_mut().forget_operations(&mut ring, &mut wheel, &mut wakes);
        }
        self.wake_all(wakes);
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
        let mut wakes = self.wakes.take();
        let mut slots = self.slots.borrow_mut();
        for completion in completions.drain(..) {
            match descriptors::token_kind(completion.token) {
                descriptors::KIND_IO => slots.complete(completion, &mut wakes),
                descriptors::KIND_ACCEPT => {
                    if let Some(target) = slots.accepted(completion, &mut wakes) {
                        let nobody = descriptors::token(descriptors::KIND_IGNORED, 0, 0);
                        self.ring.borrow_mut().cancel(target, nobody);
                    }
                }
                // Cancelled is the one that another has taken the place of.
                descriptors::KIND_DOORBELL
                    if !completion.more && completion.result != -libc::ECANCELED =>
                {
                    self.ring.borrow_mut().poll(self.doorbell.descriptor(), completion.token);
                }
                // A doorbell's edge has done its work by waking us; the rest asked for no answer.
                _ => {}
            }
        }
        drop((slots, completions));
        self.wake_all(wakes);
    }

    /// Never while a cell is borrowed: a waker may drop a task, and with it whatever that owns.
    fn wake_all(&self, mut wakes: Vec<Waker>) {
        wakes.drain(..).for_each(Waker::wake);
        self.wakes.replace(wakes); // its memory, for the next time
    }

    fn is_due(&self) -> bool {
        self.wheel.borrow().next_tick().is_some_and(|tick| tick <= self.tick(self.now.get()))
    }

    fn expire(&self) {
        let now = self.tick(self.now.get());
        let mut due = self.due.take();
        self.wheel.borrow_mut().advance(now, |token| due.push(token));
        let mut wakes = self.wakes.take();
        for token in due.drain(..) {
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
        self.due.replace(due);
        self.wake_all(wakes);
    }

    fn answer_bell(&self) {
        if self.doorbell.answer()
            && let Some(apply) = self.on_bell.borrow_mut().as_mut()
        {
            apply();
        }
    }

    fn note_poll(&self) {
        self.polls.set(self.polls.get() + 1);
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
/// It is dropped, wherever it is, when the core ends.
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

/// A large buffer, for bodies that have proved to be long.
pub fn bulk_buffer() -> Buf {
    Machine::with(|machine| machine.bulk_buffers.take())
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
        buffers: machine.buffers.lent() + machine.bulk_buffers.lent(),
        panics: machine.panics.get(),
        lag: machine.lag.replace(histogram()),
        cpu: super::process::thread_cpu(),
    })
}

/// Gives freed memory back to the system now: the allocator does so only when it is next called,
/// which on a core that has gone quiet may be in an hour.
#[expect(unsafe_code, reason = "a call into the allocator, which touches free memory only")]
pub fn trim_memory() {
    // SAFETY: any thread may call it at any time.
    unsafe { libmimalloc_sys::mi_collect(false) };
}

/// Frees buffers that nobody has needed lately.
pub fn trim_buffers() {
    Machine::with(|machine| {
        machine.buffers.trim();
        machine.bulk_buffers.trim();
    });
}

/// Until `after` has passed. Dropping it takes the timer away.
pub fn sleep(after: Duration) -> Sleep {
    Sleep { after, state: None, own_core: PhantomData }
}

/// What `future` comes to within `limit`.
pub async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut late = std::pin::pin!(sleep(limit));
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => late.as_mut().poll(context).map(|()| None),
    })
    .await
}

#[derive(Debug)]
pub struct Sleep {
    after: Duration,
    state: Option<(u32, TimerKey)>,
    /// On another core, its place in the wheel would be somebody else's.
    own_core: PhantomData<Rc<Machine>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Machine::with(|machine| {
            let mut sleepers = machine.sleepers.borrow_mut();
            if let Some((index, _)) = self.state {
                let cell = &mut sleepers.cells[index as usize];
                if cell.fired {
                    sleepers.free.push(index);
                    self.state = None;
                    return Poll::Ready(());
                }
                let replaced = super::io::set_waker(&mut cell.waker, context);
                drop(sleepers);
                drop(replaced);
                return Poll::Pending;
            }
            let index = sleepers.insert(context.waker().clone());
            let token = descriptors::token(descriptors::KIND_SLEEP, 0, index);
            // A sleep may begin late in a long turn: it lasts from then on.
            let tick = machine.tick_from(Instant::now(), self.after);
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

    fn take_wakers(&mut self, into: &mut Vec<Waker>) {
        into.extend(self.cells.iter_mut().filter_map(|cell| cell.waker.take()));
    }

    fn fire(&mut self, token: u64) -> Option<Waker> {
        let cell = &mut self.cells[descriptors::token_index(token) as usize];
        cell.fired = true;
        cell.waker.take()
    }
}

/// Tells the driver that something ran. Being dropped counts too: a task that is dropped unpolled
/// may wake others as it goes.
struct Counted<F>(F);

impl<F> Drop for Counted<F> {
    fn drop(&mut self) {
        // Later than its core: nobody counts any more.
        let _ = MACHINE.try_with(|cell| cell.get().map(|machine| machine.note_poll()));
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        Machine::with(Machine::note_poll);
        project(self).poll(context)
    }
}

/// Stops a panic at the task's edge.
struct Caught<F>(Counted<F>);

impl<F: Future<Output = ()>> Future for Caught<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Machine::with(|machine| machine.finished.get()) {
            return Poll::Ready(());
        }
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
    // SAFETY: the field is pinned with its struct and never moved out; Drop does not touch it.
    unsafe { counted.map_unchecked_mut(|counted| &mut counted.0) }
}

#[expect(unsafe_code, reason = "a pin projection to the only field")]
fn project_caught<F>(caught: Pin<&mut Caught<F>>) -> Pin<&mut Counted<F>> {
    // SAFETY: the field is pinned with its struct and never moved out; Caught has no Drop.
    unsafe { caught.map_unchecked_mut(|caught| &mut caught.0) }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::Write as _;
    use std::net::TcpStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::engine::test_core::{
        BRIEF, LONG, arm, connection, end_operation, listener, on_a_core, on_a_core_with, settle,
    };
    use crate::engine::{Inbox, Outbox, Side, mailbox};

    /// Says when it is dropped.
    struct Dropped(Rc<Cell<bool>>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }

    /// A place where one task waits and another tells it to go on.
    #[derive(Clone, Default)]
    struct Gate(Rc<(Cell<bool>, RefCell<Option<Waker>>)>);

    impl Gate {
        fn open(&self) {
            self.0.0.set(true);
            let waker = self.0.1.borrow_mut().take();
            waker.into_iter().for_each(Waker::wake);
        }

        async fn passed(&self) {
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

    /// A waker that counts.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// What a kernel without memory does: operations end, and nobody is told.
    fn lose_everything() {
        let machine = Machine::current();
        let nobody = descriptors::token(descriptors::KIND_IGNORED, 0, 0);
        let bell = descriptors::token(descriptors::KIND_DOORBELL, 0, 0);
        machine.ring.borrow_mut().cancel(bell, nobody);
        for _ in 0..3 {
            machine.enter(None);
        }
        machine.completions.borrow_mut().clear();
        machine.begin_anew();
    }

    #[test]
    fn lost_completions_leave_no_socket_no_listener_no_deadline_and_no_doorbell_deaf() {
        let bell = Doorbell::new().unwrap();
        let ringer = bell.clone();
        on_a_core_with(bell, || async move {
            let rung = Rc::new(Cell::new(0));
            let counting = Rc::clone(&rung);
            on_bell(move || counting.set(counting.get() + 1));
            let (mut listening, address) = listener();
            let accepted = Rc::new(Cell::new(0));
            let counting = Rc::clone(&accepted);
            spawn(async move {
                while listening.accept().await.is_ok() {
                    counting.set(counting.get() + 1);
                }
            });
            let (late, _late_peer) = connection();
            arm(&late).await;
            // Not to be over before the last loss, however slow the machine is.
            late.set_deadline(Side::Read, Some(LONG));
            let (gone, _gone_peer) = connection();
            arm(&gone).await;
            let (socket, mut peer) = connection();
            arm(&socket).await;
            let received = Rc::new(Cell::new(0));
            let counting = Rc::clone(&received);
            spawn(async move {
                let mut bytes = [0; 8];
                while let Ok(count @ 1..) = socket.recv(&mut bytes).await {
                    counting.set(counting.get() + count);
                }
            });
            settle().await;
            for round in 1..=3 {
                end_operation(&late.0);
                peer.write_all(b"abc").unwrap();
                let _client = TcpStream::connect(address).unwrap();
                lose_everything();
                settle().await;
                peer.write_all(b"de").unwrap();
                let _client = TcpStream::connect(address).unwrap();
                settle().await;
                assert_eq!(received.get(), 5 * round);
                // That of before is among what was lost.
                assert!(accepted.get() >= round, "{}", accepted.get());
                arm(&late).await;
            }
            drop(gone);
            late.set_deadline(Side::Read, Some(3 * BRIEF));
            lose_everything();
            ringer.ring();
            let error = late.ready(Side::Read).await.err().or(late.recv(&mut [0]).await.err());
            assert_eq!(error.map(|e| e.kind()), Some(io::ErrorKind::TimedOut));
            assert!(rung.get() > 0);
        });
    }

    fn poll_with(sleep: &mut Sleep, waker: &Waker) -> Poll<()> {
        Pin::new(sleep).poll(&mut Context::from_waker(waker))
    }

    #[test]
    fn tasks_that_wake_each_other_for_ever_starve_neither_sockets_nor_timers() {
        on_a_core(|| async {
            for _ in 0..2 {
                spawn(async {
                    loop {
                        yield_now().await;
                    }
                });
            }
            let (socket, mut peer) = connection();
            let reader = async {
                let mut bytes = [0; 8];
                socket.recv(&mut bytes).await.unwrap()
            };
            let mut reader = std::pin::pin!(reader);
            let mut timer = std::pin::pin!(sleep(Duration::from_millis(5)));
            let mut fired = false;
            let received = std::future::poll_fn(|context| {
                if !fired && timer.as_mut().poll(context).is_ready() {
                    fired = true;
                    peer.write_all(b"abc").unwrap();
                }
                reader.as_mut().poll(context)
            })
            .await;
            assert!(fired);
            assert_eq!(received, 3);
        });
    }

    #[test]
    fn a_panicking_task_leaves_its_core_alive_and_is_counted() {
        on_a_core(|| async {
            let (before, after) = (Gate::default(), Gate::default());
            let freed = Rc::new(Cell::new(false));
            let (gate, guard) = (before.clone(), Dropped(Rc::clone(&freed)));
            spawn(async move {
                let _guard = guard;
                gate.passed().await;
                panic!("on purpose");
            });
            let gate = after.clone();
            spawn(async move {
                sleep(Duration::from_millis(1)).await;
                gate.open();
            });
            settle().await;
            before.open();
            after.passed().await;
            settle().await;
            assert!(freed.get(), "what the task owned is dropped");
            assert_eq!(core_state().panics, 1);
        });
    }

    #[test]
    fn a_task_that_is_dropped_unpolled_can_still_wake_another() {
        struct Opens(Gate);
        impl Drop for Opens {
            fn drop(&mut self) {
                self.0.open();
            }
        }
        on_a_core(|| async {
            let gate = Gate::default();
            let place: Rc<RefCell<Option<Waker>>> = Rc::default();
            let (opens, parking) = (Opens(gate.clone()), Rc::downgrade(&place));
            spawn(async move {
                let _opens = opens;
                std::future::poll_fn(|context| {
                    let place = parking.upgrade().expect("it is parked once only");
                    *place.borrow_mut() = Some(context.waker().clone());
                    Poll::<()>::Pending
                })
                .await;
            });
            settle().await;
            // The last waker of a task nobody else knows: the task is dropped without a poll, and
            // what that wakes must not wait for the core's next reason to get up.
            spawn(async move {
                sleep(Duration::from_millis(2)).await;
                drop(place);
            });
            gate.passed().await;
        });
    }

    #[test]
    fn tasks_left_behind_are_dropped_when_the_core_ends() {
        let (mut peer, freed) = on_a_core(|| async {
            let (socket, peer) = connection();
            let freed = Arc::new(AtomicUsize::new(0));
            struct Counts(Arc<AtomicUsize>);
            impl Drop for Counts {
                fn drop(&mut self) {
                    self.0.fetch_add(1, Ordering::SeqCst);
                }
            }
            let (on_socket, on_timer) = (Counts(Arc::clone(&freed)), Counts(Arc::clone(&freed)));
            spawn(async move {
                let _guard = on_socket;
                let _ = socket.recv(&mut [0; 8]).await;
            });
            spawn(async move {
                let _guard = on_timer;
                sleep(Duration::from_secs(3600)).await;
            });
            settle().await;
            (peer, freed)
        });
        assert_eq!(freed.load(Ordering::SeqCst), 2);
        let end = std::io::Read::read(&mut peer, &mut [0; 8]).expect("a FIN before the timeout");
        assert_eq!(end, 0, "their sockets are closed");
    }

    // --- timers ------------------------------------------------------------------------------

    #[test]
    fn a_sleep_lasts_at_least_as_long_as_it_says() {
        on_a_core(|| async {
            for millis in [0, 1, 2, 7] {
                // However late in its turn it begins: tasks before us may have used some time.
                thread::sleep(Duration::from_millis(3));
                let (asked, begun) = (Duration::from_millis(millis), precise_now());
                sleep(asked).await;
                assert!(now() - begun >= asked, "{millis} ms");
            }
        });
    }

    #[test]
    fn a_sleep_of_centuries_neither_overflows_nor_fires() {
        on_a_core(|| async {
            let waker = Waker::from(Arc::new(Woken::default()));
            for after in [Duration::MAX, Duration::from_secs(1 << 40)] {
                let mut long = sleep(after);
                assert!(poll_with(&mut long, &waker).is_pending());
                settle().await;
                assert!(poll_with(&mut long, &waker).is_pending());
            }
            assert_eq!(core_state().timers, 0);
        });
    }

    #[test]
    fn a_sleep_dropped_before_or_after_it_fired_leaves_nothing_behind() {
        on_a_core(|| async {
            let woken = Arc::new(Woken::default());
            let waker = Waker::from(Arc::clone(&woken));
            let mut early = sleep(Duration::from_millis(1));
            let mut late = sleep(Duration::from_millis(1));
            assert!(poll_with(&mut early, &waker).is_pending());
            assert!(poll_with(&mut late, &waker).is_pending());
            drop(early);
            settle().await;
            assert_eq!(woken.0.load(Ordering::SeqCst), 1, "only the one that lives");
            drop(late); // fired, but never asked again
            assert_eq!(core_state().timers, 0);
            let (mut first, mut second) = (sleep(Duration::ZERO), sleep(Duration::from_secs(60)));
            assert!(poll_with(&mut first, &waker).is_pending());
            assert!(poll_with(&mut second, &waker).is_pending());
            settle().await;
            assert!(poll_with(&mut first, &waker).is_ready(), "cells used again are clean");
            assert!(poll_with(&mut second, &waker).is_pending());
            drop(waker);
            drop(second);
            assert_eq!(Arc::strong_count(&woken), 1, "no waker stays behind");
        });
    }

    #[test]
    fn a_hundred_thousand_timers_fire_each_once_and_none_early() {
        on_a_core(|| async {
            let left = Rc::new(Cell::new(100_000_usize));
            let done = Gate::default();
            for index in 0..100_000_u64 {
                let (left, done) = (Rc::clone(&left), done.clone());
                let after = Duration::from_millis(index * 7919 % 97 * 3);
                spawn(async move {
                    let begun = now();
                    sleep(after).await;
                    assert!(now() - begun >= after, "early");
                    left.set(left.get() - 1);
                    if left.get() == 0 {
                        done.open();
                    }
                });
            }
            yield_now().await;
            assert_eq!(core_state().timers, 100_000);
            done.passed().await;
            assert_eq!((core_state().timers, core_state().panics), (0, 0));
        });
    }

    // --- wakers that do more than wake ---------------------------------------------------------

    thread_local! {
        static VICTIM: RefCell<Option<crate::engine::Socket>> = const { RefCell::new(None) };
    }

    /// Drops a socket when it is woken, and one when it is dropped.
    struct Destructive;

    impl Wake for Destructive {
        fn wake(self: Arc<Self>) {
            drop(VICTIM.take());
        }
    }

    impl Drop for Destructive {
        fn drop(&mut self) {
            drop(VICTIM.take());
        }
    }

    /// A waker of its own for each call, and an armed socket for it to drop.
    async fn destructive() -> Waker {
        let (socket, _peer) = connection();
        let mut bytes = [0; 1];
        let arm = Waker::from(Arc::new(Woken::default()));
        let _ = socket.poll_recv(&Context::from_waker(&arm), &mut bytes);
        VICTIM.set(Some(socket));
        Waker::from(Arc::new(Destructive))
    }

    #[test]
    fn no_cell_of_a_timer_is_borrowed_while_a_waker_is_woken_or_dropped() {
        on_a_core(|| async {
            let mut timer = sleep(Duration::from_millis(1));
            assert!(poll_with(&mut timer, &destructive().await).is_pending());
            let other = destructive().await;
            assert!(poll_with(&mut timer, &other).is_pending(), "the first waker is replaced");
            drop(other);
            VICTIM.set(Some(connection().0));
            settle().await;
            assert!(VICTIM.take().is_none(), "it was woken");
            assert!(poll_with(&mut timer, &destructive().await).is_ready());
            let mut timer = sleep(Duration::from_secs(1));
            assert!(poll_with(&mut timer, &destructive().await).is_pending());
            drop(timer);
        });
    }

    #[test]
    fn no_cell_of_a_socket_is_borrowed_while_a_waker_is_woken_or_dropped() {
        on_a_core(|| async {
            let (socket, mut peer) = connection();
            let mut bytes = [0; 8];
            for _ in 0..2 {
                // The second replaces the first.
                let waker = destructive().await;
                let poll = socket.poll_recv(&Context::from_waker(&waker), &mut bytes);
                assert!(poll.is_pending());
            }
            let waker = destructive().await;
            let poll = socket.poll_broken(&Context::from_waker(&waker));
            assert!(poll.is_pending(), "the second is replaced by one that waits for the end");
            drop(waker);
            VICTIM.set(Some(connection().0));
            peer.write_all(b"x").unwrap();
            settle().await;
            assert!(VICTIM.take().is_none(), "it was woken");
            assert_eq!(socket.recv(&mut bytes).await.unwrap(), 1);
            let waker = destructive().await;
            assert!(socket.poll_recv(&Context::from_waker(&waker), &mut bytes).is_pending());
            drop(waker);
            drop(socket);
        });
    }

    // --- between cores -------------------------------------------------------------------------

    const LETTERS: u32 = 200_000;

    /// Answers each letter with the next number, after a nap of a random length every now and then,
    /// so that letters arrive awake, asleep and at every moment between.
    async fn play(inbox: Inbox<u32>, outbox: Outbox<u32>, begins: bool, seed: u64) {
        let inbox = Rc::new(inbox);
        let rung = Gate::default();
        let on_ring = rung.clone();
        on_bell(move || on_ring.open());
        let mut random = seed;
        if begins {
            outbox.put(0).unwrap();
        }
        loop {
            rung.passed().await;
            rung.0.0.set(false);
            while let Some(letter) = inbox.take() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                for _ in 0..(random >> 33) % 512 {
                    std::hint::spin_loop();
                }
                if (random >> 40).is_multiple_of(1024) {
                    sleep(Duration::from_micros((random >> 50) % 1500)).await;
                }
                if letter < LETTERS {
                    let _ = outbox.put(letter + 1);
                }
                if letter + 1 >= LETTERS {
                    return;
                }
            }
        }
    }

    #[test]
    fn no_letter_between_two_cores_is_lost_while_one_goes_to_sleep() {
        let (left, right) = (Doorbell::new().unwrap(), Doorbell::new().unwrap());
        let (to_left, at_left) = mailbox(left.clone());
        let (to_right, at_right) = mailbox(right.clone());
        let other =
            thread::spawn(|| on_a_core_with(right, || play(at_right, to_left, false, 0x5EED)));
        on_a_core_with(left, || play(at_left, to_right, true, 0xC0DE));
        other.join().unwrap();
    }

    #[test]
    fn a_core_that_sleeps_hears_every_one_of_many_threads() {
        const THREADS: usize = 4;
        const RINGS: usize = 2_000;
        let bell = Doorbell::new().unwrap();
        let rings = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (bell, rings) = (bell.clone(), Arc::clone(&rings));
                thread::spawn(move || {
                    for ring in 0..RINGS {
                        rings.fetch_add(1, Ordering::SeqCst);
                        bell.ring();
                        if ring % 16 == 0 {
                            thread::sleep(Duration::from_micros(50));
                        }
                    }
                })
            })
            .collect();
        on_a_core_with(bell, move || async move {
            let all = Gate::default();
            let on_ring = all.clone();
            on_bell(move || {
                if rings.load(Ordering::SeqCst) == THREADS * RINGS {
                    on_ring.open();
                }
            });
            all.passed().await;
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
