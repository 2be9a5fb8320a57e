//! A data core: everything that it owns, and how it applies its mail. One per pinned thread;
//! nothing here is ever seen by another thread but the counters.

pub(crate) mod connections;
pub(crate) mod counters;
pub(crate) mod doors;
pub(crate) mod events;
pub(crate) mod generation;
pub(crate) mod life;
mod log;
pub(crate) mod mail;
mod origin;
pub(crate) mod rejected;
pub(crate) mod series;
mod spans;
mod trouble;
pub(crate) mod watchers;
pub(crate) mod workspace;

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::control::message::{
    Findings, Install, Question, Service, ShardState, ToControl, ToShard,
};
use crate::engine::{self, Level, Shared};
use crate::limits;
use crate::listener;
use crate::listener::blacklist::Guard;
use crate::plan::{ListenerKey, OnFull};
use crate::shard::connections::Connections;
use crate::shard::counters::Counters;
use crate::shard::doors::{Doors, Wanted};
use crate::shard::events::Events;
use crate::shard::generation::{Generation, Generations};
use crate::shard::life::Life;
use crate::shard::log::AccessLines;
use crate::shard::mail::{Inboxes, Mail};
pub(crate) use crate::shard::origin::Origin;
use crate::shard::rejected::Rejections;
use crate::shard::series::Series;
use crate::shard::spans::Spans;
use crate::shard::trouble::Troubles;
use crate::shard::watchers::Watchers;
use crate::shard::workspace::Workspaces;
use crate::telemetry::exemplars;
use crate::telemetry::health::Health;
use crate::telemetry::tap::Tapping;
use crate::tls::setup::Setup;
use crate::upstream::connect::Connector;

pub(crate) struct Shard {
    pub(crate) mail: Rc<Mail>,
    pub(crate) generations: Generations,
    doors: Doors,
    pub(crate) guard: Guard,
    pub(crate) events: Events,
    pub(crate) tapping: Tapping,
    /// Connections from cores that have a plan already that is still on its way here.
    early: RefCell<Vec<ToShard>>,
    /// By core; its own is `counters()`.
    pub(crate) all_counters: Vec<Shared<Counters>>,
    /// Client connections of the whole process: what its limit is compared with.
    pub(crate) open: Shared<Level>,
    pub(crate) log: AccessLines,
    pub(crate) spans: Spans,
    pub(crate) workspaces: Workspaces,
    random: Cell<u64>,
    /// A request came since housekeeping last looked.
    stirred: Cell<bool>,
    dozing: Cell<Option<Waker>>,
    pub(crate) life: Life,
    pub(crate) connections: Connections,
    pub(crate) rejections: Rejections,
    troubles: Troubles,
    pub(crate) exemplars: exemplars::Kept,
    /// What the control core says of the process, when listeners are asked.
    pub(crate) health: RefCell<Health>,
    /// Who is to be told when that changes, or what is to end it.
    pub(crate) watchers: Watchers,
}

/// Runs a data core until it is told to stop.
pub(crate) async fn run(
    mail: Rc<Mail>,
    inboxes: Inboxes,
    all_counters: Vec<Shared<Counters>>,
    open: Shared<Level>,
) {
    let cores = all_counters.len();
    let shard = Rc::new(Shard {
        mail,
        generations: Generations::default(),
        doors: Doors::default(),
        guard: Guard::default(),
        events: Events::default(),
        tapping: Tapping::default(),
        early: RefCell::default(),
        all_counters,
        open,
        log: AccessLines::new(cores),
        spans: Spans::default(),
        workspaces: Workspaces::default(),
        random: Cell::new(engine::random_seed() | 1),
        stirred: Cell::new(false),
        dozing: Cell::new(None),
        life: Life::default(),
        connections: Connections::default(),
        rejections: Rejections::default(),
        troubles: Troubles::default(),
        exemplars: exemplars::Kept::default(),
        health: RefCell::default(),
        watchers: Watchers::default(),
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
        self.log.finish(self.counters());
        self.spans.flush(self.counters());
    }
}

impl Shard {
    fn apply(self: &Rc<Self>, letter: ToShard) {
        if self.generations.newest().is_some() {
            return self.follow(letter);
        }
        match letter {
            ToShard::Install(_)
            | ToShard::Blacklist(_)
            | ToShard::Service(_)
            | ToShard::Tls(..)
            | ToShard::Health(_)
            | ToShard::WantEvents(_)
            | ToShard::Tap(_)
            | ToShard::Drain { .. }
            | ToShard::Part
            | ToShard::TakeAgain(_)
            | ToShard::Stop => self.follow(letter),
            ToShard::Connection(..) => self.early.borrow_mut().push(letter),
            // The plan brings the newest addresses, and there is nothing here yet to ask for.
            ToShard::Endpoints(..)
            | ToShard::Retire(_)
            | ToShard::Report(_)
            | ToShard::Question(..)
            | ToShard::MakeRoom(_)
            | ToShard::LendSockets(_)
            | ToShard::SlotFree(_)
            | ToShard::Recall(_) => {}
        }
    }

    fn follow(self: &Rc<Self>, letter: ToShard) {
        match letter {
            ToShard::Install(install) => self.install(*install),
            ToShard::Endpoints(cluster, endpoints) => {
                self.generations.replace_endpoints(cluster, endpoints);
            }
            ToShard::Retire(through) => self.retire(through),
            ToShard::Report(round) => self.report(round),
            ToShard::Question(number, question) => {
                let findings = Box::new(self.findings(question));
                let core = self.mail.core();
                self.mail.to_control(ToControl::Findings { core, number, findings });
            }
            ToShard::Health(health) => self.learn_health(health),
            ToShard::Service(service) => self.serve(service),
            ToShard::Tls(version, setup) => self.renew_tls(version, *setup),
            ToShard::WantEvents(kinds) => self.events.want(kinds),
            ToShard::Tap(tap) => self.tapping.set(tap),
            ToShard::Blacklist(blocked) => {
                self.tell_blocked();
                self.guard.install(blocked);
            }
            ToShard::LendSockets(round) => {
                self.mail.to_control(ToControl::Lent(round, self.doors.lend()));
            }
            ToShard::Drain { handed_over } => {
                self.doors.hand_over(&handed_over);
                let handed_over = !handed_over.is_empty();
                self.drain(if handed_over {
                    limits::UPGRADE_IDLE_GRACE
                } else {
                    limits::DRAIN_IDLE_GRACE
                });
            }
            ToShard::Part => self.part(),
            ToShard::TakeAgain(sockets) => {
                self.doors.hand_over(&[]);
                self.life.resume();
                self.listen(sockets);
                self.mail.to_control(ToControl::TakesAgain { core: self.mail.core() });
            }
            ToShard::Stop => self.life.stop(),
            ToShard::Connection(key, fd, peer) => {
                let door = match self.doors.find(key) {
                    None if self.doors.is_to_come(key) => {
                        return self.early.borrow_mut().push(ToShard::Connection(key, fd, peer));
                    }
                    found => found,
                };
                let socket = engine::Socket::adopt(fd);
                match door {
                    Some(door) => listener::take_over(Rc::clone(self), door, socket, peer),
                    // What it had to go through is not known any more: it ends, as its listener.
                    None => self.let_go(socket),
                }
                if self.life.is_draining() {
                    // It was on its way when this core may have said already that it is empty.
                    self.tell_when_empty();
                }
            }
            ToShard::MakeRoom(room) => listener::limit::make_room(self, room),
            // One that is not here has nothing to give, and nobody who waits.
            ToShard::SlotFree(cluster) => {
                self.generations.cluster(cluster).into_iter().for_each(|c| c.slot_free());
            }
            ToShard::Recall(cluster) => {
                self.generations.cluster(cluster).into_iter().for_each(|c| c.recall());
            }
        }
    }

    fn install(self: &Rc<Self>, install: Install) {
        let version = install.plan.version;
        let (keys, series) = (install.listener_keys.clone(), install.series);
        let generation = self.generations.install(
            install.plan,
            install.clusters,
            Series { bounds: series.bounds, routes: series.routes, grpc: series.grpc },
            install.listener_keys,
            &self.mail,
        );
        let on_full = generation.plan.access_log.as_ref().map_or(OnFull::Drop, |log| log.on_full);
        self.connect_by(&generation, install.tls.connectors);
        self.log.install(on_full, install.log, self.all_counters.len());
        self.spans.install(install.spans, self.counters());
        self.exemplars.forget();
        let names = generation.plan.listeners.iter().map(|listener| listener.name.as_str());
        let wanted = keys.into_iter().zip(names).zip(series.listeners);
        let wanted = wanted.zip(install.tls.openings);
        let wanted = wanted.map(|(((key, name), cells), opening)| {
            let opening = Rc::new(opening);
            Wanted { key, name, cells, opening }
        });
        if self.doors.change(wanted) {
            // Those that came by a door that closes find it closing; those that its new rules are
            // not for end as well.
            engine::wake_all();
        }
        self.listen(install.sockets);
        self.stir();
        self.early.take().into_iter().for_each(|letter| self.follow(letter));
        self.mail.to_control(ToControl::Installed { core: self.mail.core(), version });
    }

    /// Of a connection that was counted here when it was handed over.
    fn let_go(&self, socket: engine::Socket) {
        drop(socket);
        self.counters().connections.add(-1);
        self.open.add(-1);
    }

    /// The same plan with newer certificates, lists, tickets' keys or staples.
    fn renew_tls(&self, version: u64, setup: Setup) {
        let generation = self.generation();
        if generation.plan.version != version {
            return; // the plan that comes next has brought its own
        }
        self.connect_by(&generation, setup.connectors);
        if self.doors.open_by(setup.openings) {
            engine::wake_all();
        }
    }

    fn connect_by(&self, generation: &Generation, connectors: Vec<Connector>) {
        for (cluster, connector) in generation.clusters().iter().zip(connectors) {
            cluster.connect_by(connector);
        }
    }

    fn listen(self: &Rc<Self>, sockets: Vec<(ListenerKey, TcpListener)>) {
        for (key, socket) in sockets {
            let Some(door) = self.doors.find(key) else { continue };
            engine::spawn(listener::accept(Rc::clone(self), door, engine::Listener::adopt(socket)));
        }
    }

    fn report(&self, round: u64) {
        // The log of a generation that has no exchanges any more is closed.
        self.log.flush(self.counters());
        let generations = self.generations.states();
        let state = ShardState { round, core: engine::core_state(), generations };
        self.mail.to_control(ToControl::State { core: self.mail.core(), state: Box::new(state) });
    }

    fn findings(&self, question: Question) -> Findings {
        match question {
            Question::Nothing => Findings::Nothing,
            Question::Clusters => {
                let generation = self.generation();
                let clusters = generation.clusters().iter();
                let states = clusters.map(|cluster| (cluster.key(), cluster.endpoint_states()));
                Findings::Clusters(states.collect())
            }
            Question::Connections(most) => {
                let (list, open) = self.connections.list(most);
                Findings::Connections { list, open }
            }
            Question::Rejected => Findings::Rejected(self.rejections.list()),
            Question::ForgetRejected => Findings::Forgotten(self.rejections.forget()),
            Question::Exemplars => Findings::Exemplars(self.exemplars.list(engine::wall_clock())),
        }
    }

    fn serve(&self, service: Service) {
        self.life.service.set(service);
        if service == Service::Closing {
            engine::expire_parked();
        }
    }

    fn tell_blocked(&self) {
        if !self.mail.is_delivered() {
            return; // they add up
        }
        let hits = self.guard.take_hits();
        if !hits.is_empty() {
            self.mail.to_control(ToControl::Blocked(hits));
        }
    }

    fn retire(&self, through: u64) {
        if self.generations.retire(through) > 0 {
            self.wake_all();
        }
    }

    /// `patience`: for clients that are between two requests.
    fn drain(self: &Rc<Self>, patience: Duration) {
        self.life.patient.set(true);
        self.life.drain();
        // Connections of HTTP/2 say so at once.
        self.wake_all();
        let shard = Rc::clone(self);
        engine::spawn(async move {
            engine::sleep(patience).await;
            if shard.life.patient.replace(false) {
                engine::expire_parked();
            }
        });
        self.tell_when_empty();
    }

    fn part(&self) {
        self.life.parting.set(true);
        self.wake_all();
    }

    fn tell_when_empty(self: &Rc<Self>) {
        let shard = Rc::clone(self);
        engine::spawn(async move {
            shard.life.until_empty().await;
            if shard.life.is_draining() {
                shard.generations.leave_endpoints().await;
            }
            if !shard.life.is_draining() {
                return; // it takes connections again
            }
            shard.log.flush(shard.counters());
            shard.events.flush(&shard.mail);
            shard.mail.to_control(ToControl::Drained { core: shard.mail.core() });
        });
    }

    /// The generation for a new exchange.
    pub(crate) fn generation(&self) -> Rc<Generation> {
        self.generations.newest().expect("letters that need a plan come after the first one")
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
            let mut mixed = self.random();
            for digit in half {
                *digit = DIGITS[(mixed >> 60) as usize];
                mixed <<= 4;
            }
        }
    }

    /// Never 0: the state never is, and the factor is odd.
    pub(crate) fn random(&self) -> u64 {
        let mut state = self.random.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.random.set(state);
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

/// What a core does every now and then, as long as there is anything to do.
async fn housekeeping(shard: Rc<Shard>) {
    let (mut quiet, mut still, mut stirred) = (0, 0_u64, false);
    for beat in 1_u64.. {
        engine::sleep(limits::HOUSEKEEPING_INTERVAL).await;
        let stirs = shard.stirred.replace(false);
        stirred |= stirs;
        still = if stirs { 0 } else { still + 1 };
        // Connections park one after another, and what is left to do halves each time.
        if still >= limits::TRIM_BEATS && still.is_power_of_two() {
            engine::trim_buffers();
            engine::trim_memory();
        }
        shard.log.flush(shard.counters());
        shard.tell_blocked();
        shard.events.flush(&shard.mail);
        shard.spans.flush(shard.counters());
        engine::watch_connections();
        if beat.is_multiple_of(limits::POOL_SWEEP_BEATS) {
            let clusters = shard.generations.clusters();
            clusters.iter().for_each(|cluster| cluster.sweep(engine::now()));
            engine::trim_buffers();
            let connected = clusters.iter().any(|cluster| cluster.open_connections() > 0);
            let busy = connected || std::mem::take(&mut stirred);
            quiet = if busy { 0 } else { quiet + 1 };
        }
        if quiet >= limits::QUIET_BEATS {
            // Nothing to keep: an idle core must not wake up at all.
            shard.until_stirred().await;
            quiet = 0;
        }
    }
}
