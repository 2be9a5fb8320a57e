//! A data core: everything that it owns, and how it applies its mail. One per pinned thread;
//! nothing here is ever seen by another thread but the counters.

pub(crate) mod counters;
pub(crate) mod generation;
mod log;
pub(crate) mod mail;
pub(crate) mod series;
pub(crate) mod workspace;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::control::message::{Install, ShardState, ToControl, ToShard};
use crate::engine::{self, Level, Shared};
use crate::limits;
use crate::listener;
use crate::plan::ListenerId;
use crate::shard::counters::Counters;
use crate::shard::generation::Generation;
use crate::shard::log::AccessLines;
use crate::shard::mail::{Inboxes, Mail};
use crate::shard::series::ListenerCells;
use crate::shard::workspace::Workspaces;

pub(crate) struct Shard {
    pub(crate) mail: Rc<Mail>,
    generation: RefCell<Option<Rc<Generation>>>,
    /// Connections from cores that have their first plan already; this one has not.
    early: RefCell<Vec<ToShard>>,
    /// By core; its own is `counters()`.
    pub(crate) all_counters: Vec<Shared<Counters>>,
    /// Client connections of the whole process: what its limit is compared with.
    pub(crate) open: Shared<Level>,
    pub(crate) log: AccessLines,
    pub(crate) workspaces: Workspaces,
    random: Cell<u64>,
    /// A request came since housekeeping last looked.
    stirred: Cell<bool>,
    dozing: Cell<Option<Waker>>,
    pub(crate) life: Life,
}

/// Whether the core still takes connections, and who wants to know when that changes.
#[derive(Default)]
pub(crate) struct Life {
    draining: Cell<bool>,
    stopped: Cell<bool>,
    /// Connections and the listeners' accept loops.
    sessions: Cell<usize>,
    wakers: RefCell<Vec<Waker>>,
}

/// Runs a data core until it is told to stop.
pub(crate) async fn run(
    mail: Rc<Mail>,
    inboxes: Inboxes,
    all_counters: Vec<Shared<Counters>>,
    open: Shared<Level>,
) {
    let shard = Rc::new(Shard {
        mail,
        generation: RefCell::new(None),
        early: RefCell::default(),
        all_counters,
        open,
        log: AccessLines::default(),
        workspaces: Workspaces::default(),
        random: Cell::new(engine::random_seed() | 1),
        stirred: Cell::new(false),
        dozing: Cell::new(None),
        life: Life::default(),
    });
    let applying = Rc::clone(&shard);
    engine::on_bell(move || {
        for inbox in &inboxes.0 {
            while let Some(letter) = inbox.take() {
                applying.apply(letter);
            }
        }
    });
    engine::spawn(housekeeping(Rc::clone(&shard)));
    shard.life.until_stopped().await;
}

impl Drop for Shard {
    /// After the last exchange: those that are cut when the core stops write their lines now.
    fn drop(&mut self) {
        self.log.flush(self.counters());
    }
}

impl Shard {
    fn apply(self: &Rc<Self>, letter: ToShard) {
        if self.generation.borrow().is_some() {
            return self.follow(letter);
        }
        match letter {
            ToShard::Install(_) | ToShard::Drain | ToShard::Stop => self.follow(letter),
            ToShard::Connection(..) => self.early.borrow_mut().push(letter),
            // The plan brings the newest addresses, and there is nothing here yet to ask for.
            ToShard::Endpoints(..)
            | ToShard::Report(_)
            | ToShard::MakeRoom(_)
            | ToShard::SlotFree(_)
            | ToShard::Recall(_) => {}
        }
    }

    fn follow(self: &Rc<Self>, letter: ToShard) {
        match letter {
            ToShard::Install(install) => self.install(*install),
            ToShard::Endpoints(cluster, endpoints) => {
                self.generation().cluster(cluster).replace_endpoints(endpoints);
            }
            ToShard::Report(round) => self.report(round),
            ToShard::Drain => self.drain(),
            ToShard::Stop => self.life.stop(),
            ToShard::Connection(listener, fd, peer) => {
                listener::take_over(Rc::clone(self), listener, engine::Socket::adopt(fd), peer);
                if self.life.is_draining() {
                    // It was on its way when this core may have said already that it is empty.
                    self.tell_when_empty();
                }
            }
            ToShard::MakeRoom(room) => listener::limit::make_room(self, room),
            ToShard::SlotFree(cluster) => self.generation().cluster(cluster).slot_free(),
            ToShard::Recall(cluster) => self.generation().cluster(cluster).recall(),
        }
    }

    fn install(self: &Rc<Self>, install: Install) {
        let version = install.plan.version;
        let generation =
            Rc::new(Generation::new(install.plan, install.clusters, install.series, &self.mail));
        let format = generation.plan.access_log.as_ref().map(|log| log.format);
        self.log.install(format.zip(install.log));
        *self.generation.borrow_mut() = Some(generation);
        for (id, socket) in install.listeners {
            engine::spawn(listener::accept(Rc::clone(self), id, engine::Listener::adopt(socket)));
        }
        self.early.take().into_iter().for_each(|letter| self.follow(letter));
        self.mail.to_control(ToControl::Installed { core: self.mail.core(), version });
    }

    fn report(&self, round: u64) {
        let state = ShardState { round, core: engine::core_state() };
        self.mail.to_control(ToControl::State { core: self.mail.core(), state: Box::new(state) });
    }

    fn drain(self: &Rc<Self>) {
        self.life.drain();
        engine::expire_parked();
        self.tell_when_empty();
    }

    fn tell_when_empty(self: &Rc<Self>) {
        let shard = Rc::clone(self);
        engine::spawn(async move {
            shard.life.until_empty().await;
            shard.log.flush(shard.counters());
            shard.mail.to_control(ToControl::Drained { core: shard.mail.core() });
        });
    }

    /// The generation for a new exchange.
    pub(crate) fn generation(&self) -> Rc<Generation> {
        let generation = self.generation.borrow();
        Rc::clone(generation.as_ref().expect("letters that need a plan come after the first one"))
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.all_counters[self.mail.core()]
    }

    /// Something happens here: housekeeping is needed.
    pub(crate) fn stir(&self) {
        if !self.stirred.replace(true)
            && let Some(waker) = self.dozing.take()
        {
            waker.wake();
        }
    }

    async fn until_stirred(&self) {
        std::future::poll_fn(|context| {
            if self.stirred.get() {
                return Poll::Ready(());
            }
            self.dozing.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// 32 hexadecimal digits, different for each request of all cores (xorshift64* over a seed
    /// from the kernel; an identifier, not a secret).
    pub(crate) fn new_request_id(&self, id: &mut [u8; 32]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for half in id.chunks_exact_mut(16) {
            let mut state = self.random.get();
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            self.random.set(state);
            let mut mixed = state.wrapping_mul(0x2545_F491_4F6C_DD1D);
            for digit in half {
                *digit = DIGITS[(mixed >> 60) as usize];
                mixed <<= 4;
            }
        }
    }
}

/// What a core does every now and then, as long as there is anything to do.
async fn housekeeping(shard: Rc<Shard>) {
    let mut quiet = 0;
    for beat in 1_u64.. {
        engine::sleep(limits::HOUSEKEEPING_INTERVAL).await;
        shard.log.flush(shard.counters());
        engine::watch_connections();
        if beat.is_multiple_of(limits::POOL_SWEEP_BEATS) {
            let generation = shard.generation.borrow().clone();
            let clusters = generation.as_ref().map_or(&[][..], |generation| generation.clusters());
            clusters.iter().for_each(|cluster| cluster.sweep(engine::now()));
            engine::trim_buffers();
            let connections =
                clusters.iter().map(|cluster| cluster.open_connections()).sum::<u64>();
            let busy = connections > 0 || shard.stirred.replace(false);
            quiet = if busy { 0 } else { quiet + 1 };
        }
        if quiet >= limits::QUIET_BEATS {
            // Nothing to keep: an idle core must not wake up at all.
            shard.until_stirred().await;
            quiet = 0;
        }
    }
}

impl Life {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Counts a connection until the guard is dropped.
    pub(crate) fn enter(shard: &Rc<Shard>) -> Session {
        shard.life.sessions.set(shard.life.sessions.get() + 1);
        Session(Rc::clone(shard))
    }

    /// Ready once the core drains; for whoever waits without being busy.
    pub(crate) fn poll_draining(&self, context: &Context<'_>) -> Poll<()> {
        if self.draining.get() {
            return Poll::Ready(());
        }
        self.wakers.borrow_mut().push(context.waker().clone());
        Poll::Pending
    }

    fn drain(&self) {
        self.draining.set(true);
        self.wake();
    }

    fn stop(&self) {
        self.stopped.set(true);
        self.wake();
    }

    fn wake(&self) {
        let wakers = std::mem::take(&mut *self.wakers.borrow_mut());
        wakers.into_iter().for_each(Waker::wake);
    }

    async fn until_stopped(&self) {
        self.until(|life| life.stopped.get()).await;
    }

    async fn until_empty(&self) {
        self.until(|life| life.sessions.get() == 0).await;
    }

    async fn until(&self, reached: impl Fn(&Life) -> bool) {
        std::future::poll_fn(|context| {
            if reached(self) {
                return Poll::Ready(());
            }
            self.wakers.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// One open client connection, or one listener that still accepts.
pub(crate) struct Session(Rc<Shard>);

impl Drop for Session {
    fn drop(&mut self) {
        let life = &self.0.life;
        life.sessions.set(life.sessions.get() - 1);
        if life.sessions.get() == 0 && life.draining.get() {
            life.wake();
        }
    }
}

/// One open client connection in the counters that the cores balance by. Its place in the process
/// was taken before; dropping this gives it back.
pub(crate) struct Counted {
    shard: Rc<Shard>,
    listener: Rc<Shared<ListenerCells>>,
}

impl Counted {
    /// `already`: another core has counted it here when it handed it over.
    pub(crate) fn new(shard: &Rc<Shard>, id: ListenerId, already: bool) -> Counted {
        let listener = Rc::clone(shard.generation().series.listener(id));
        listener.open.add(1);
        if !already {
            shard.counters().connections.add(1);
        }
        Counted { shard: Rc::clone(shard), listener }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.listener.open.sub(1);
        self.shard.counters().connections.add(-1);
        self.shard.open.add(-1);
    }
}

/// Which listener a connection came by, and whom it is from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) listener: ListenerId,
    pub(crate) peer: std::net::SocketAddr,
}
