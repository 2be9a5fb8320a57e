//! The control core: makes the listening sockets, compiles and hands out plans, resolves names,
//! merges statistics, serves metrics and admin, and takes signals. It never touches a client's
//! bytes.

mod audit;
mod blacklist;
mod certificate_watch;
pub(crate) mod certificates;
mod clusters;
pub(crate) mod complaint;
mod config_file;
mod config_poll;
pub(crate) mod current;
pub(crate) mod drain;
mod either;
pub(crate) mod ending;
mod events;
mod exporters;
mod file_watch;
pub(crate) mod generations;
mod health;
pub(crate) mod history;
mod inherited;
pub(crate) mod inquiry;
mod letters;
pub mod message;
mod names;
mod notify;
mod overdue;
pub(crate) mod overrides;
mod own_ports;
mod passed_on;
mod pid_file;
mod ports;
mod prepare;
pub(crate) mod registry;
pub(crate) mod reload;
mod stapling;
mod start;
pub(crate) mod stats;
mod successor;
mod tap;
mod tls;
mod trigger;
mod trouble;
pub(crate) mod upgrade;

pub(crate) use either::{Either, first};
pub use start::{StartError, run};

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::admin::Desk;
use crate::cli::Source;
use crate::control::blacklist::Keeper;
use crate::control::clusters::Clusters;
use crate::control::complaint::Complaint;
use crate::control::config_poll::Fetches;
use crate::control::current::Current;
use crate::control::generations::Older;
use crate::control::inherited::Predecessor;
use crate::control::inquiry::Inquiries;
use crate::control::letters::Letters;
use crate::control::message::{
    ClusterShare, EndpointShare, Install, Service, SpanChange, ToControl, ToShard,
};
use crate::control::names::Watch;
use crate::control::notify::Notify;
use crate::control::overrides::{Admission, Overrides};
use crate::control::pid_file::PidFile;
use crate::control::ports::Held;
use crate::control::registry::Registry;
use crate::control::reload::{Reloads, Trigger};
use crate::control::stats::Totals;
use crate::control::trouble::Troubles;
use crate::control::upgrade::{Program, Upgrades};
use crate::discovery::NamedAddress;
use crate::engine::{self, Inbox, Shared, Signal, Signals};
use crate::events::bus::{Bus, Kinds};
use crate::events::queue::Producer;
use crate::limits;
use crate::plan::{self, Address, ClusterId, ClusterKey, ListenerKey, Plan};
use crate::shard::counters::Counters;
use crate::tls::setup::Setup;

/// What the control core's tasks share.
pub(crate) struct Control {
    source: Source,
    current: RefCell<Current>,
    older: Older,
    reloads: Reloads,
    fetches: Fetches,
    held: RefCell<Held>,
    program: Program,
    blacklist: Keeper,
    pub(crate) bus: Bus,
    taps: Taps,
    /// What the data cores make.
    wanted_events: Cell<Kinds>,
    upgrades: Upgrades,
    predecessor: RefCell<Predecessor>,
    notify: Notify,
    /// The limit of the process.
    open_files: u64,
    shards: Vec<Letters>,
    pub(crate) counters: Vec<Shared<Counters>>,
    clusters: RefCell<Clusters>,
    watch: Watch,
    pub(crate) totals: RefCell<Totals>,
    pub(crate) registry: Registry,
    pub(crate) draining: Cell<bool>,
    pub(crate) desk: Desk,
    overrides: Overrides,
    service: Cell<Service>,
    inquiries: RefCell<Inquiries>,
    /// Counts up with every word of an operator on it.
    service_turn: Cell<u64>,
    /// When `Service::Leaving` becomes `Service::Closing`.
    closes_at: Cell<Option<Instant>>,
    /// By core.
    drained: Vec<Cell<bool>>,
    /// By core: it takes connections again.
    resumed: Vec<Cell<bool>>,
    /// By core: the version that it said it has.
    installed: Vec<Cell<u64>>,
    failed: RefCell<Option<String>>,
    changed: RefCell<Vec<Waker>>,
    full: Complaint,
    cannot_accept: Complaint,
    tls: tls::Keeper,
    /// When each kind was last told of.
    troubles: Troubles,
}

#[derive(Default)]
struct Taps {
    open: Cell<usize>,
    begun: Cell<u64>,
}

impl Control {
    /// Applies what the data cores say. Called when the control core's bell was rung.
    fn apply(self: &Rc<Self>, letter: ToControl) {
        match letter {
            ToControl::Installed { core, version } => {
                log::debug!("core {core} has installed plan {version}");
                self.installed[core].set(version);
            }
            ToControl::ListenerClosed(key) => {
                self.held.borrow_mut().closed(key);
                if self.draining.get() {
                    self.upgrades.left.borrow_mut().push(key);
                }
            }
            ToControl::Events { events, lost } => self.take_events(events, &lost),
            ToControl::Blocked(hits) => self.note_blocked(hits),
            ToControl::Lent(round, sockets) => self.upgrades.lent.borrow_mut().add(round, sockets),
            ToControl::State { core, state } => self.totals.borrow_mut().add(core, *state),
            ToControl::Findings { core, number, findings } => {
                self.inquiries.borrow_mut().answered(number, core, *findings);
            }
            ToControl::Drained { core } => {
                log::debug!("core {core} has drained");
                self.drained[core].set(true);
            }
            ToControl::TakesAgain { core } => self.resumed[core].set(true),
            ToControl::Full => self.complain_of_limit(),
            ToControl::Trouble(trouble) => self.tell_trouble(&trouble),
            ToControl::CannotAccept(error) => self.complain_of_accept(&error),
            ToControl::Failed { core, reason } => {
                *self.failed.borrow_mut() = Some(format!("core {core} cannot run: {reason}"));
            }
        }
    }

    pub(crate) fn to_shards(&self, letter: impl Fn() -> ToShard) {
        self.to_each_shard(|_| letter());
    }

    /// A letter of its own for each core.
    fn to_each_shard(&self, letter: impl Fn(usize) -> ToShard) {
        for (core, letters) in self.shards.iter().enumerate() {
            letters.send(letter(core));
        }
        if !self.are_letters_sent() {
            self.wake(); // whoever delivers them later
        }
    }

    /// The plan in force.
    pub(crate) fn plan(&self) -> Shared<Plan> {
        self.current.borrow().plan.share()
    }

    fn has_installed(&self, version: u64) -> bool {
        self.installed.iter().all(|installed| installed.get() >= version)
    }

    fn are_letters_sent(&self) -> bool {
        self.shards.iter().all(Letters::are_sent)
    }

    /// The addresses of one cluster as they are known now, for one core; core 0 is asked for first.
    fn endpoints(
        &self,
        key: ClusterKey,
        cluster: &plan::Cluster,
        core: usize,
    ) -> Vec<EndpointShare> {
        if core == 0 {
            self.registry.renew(&cluster.name);
        }
        let cores = self.shards.len();
        let mut clusters = self.clusters.borrow_mut();
        let mut shares: Vec<EndpointShare> = Vec::new();
        for endpoint in &cluster.endpoints {
            for address in self.watch.addresses(&endpoint.address) {
                // Two names may lead to one address: it is one endpoint.
                if shares.iter().all(|share| share.address != address) {
                    let max = cluster.pool.connections_max;
                    let permits = max.map(|max| clusters.permits(key, address, max, cores));
                    let said = self.override_of(&cluster.name, &endpoint.address, Some(address));
                    let admission = said.as_ref().map_or(Admission::Ready, |said| said.admission);
                    let weight = said.and_then(|said| said.weight).unwrap_or(endpoint.weight);
                    let series = self.registry.endpoint(&cluster.name, address, core);
                    let name = names::server_name(&endpoint.address, address);
                    shares.push(EndpointShare {
                        address,
                        name,
                        weight,
                        admission,
                        permits,
                        series,
                    });
                }
            }
        }
        shares
    }

    /// Where an endpoint is at the moment; empty while its name has no address.
    pub(crate) fn addresses(&self, address: &Address) -> Vec<SocketAddr> {
        self.watch.addresses(address)
    }

    /// Exchanges of the process that wait for a connection of this cluster of the plan in force.
    pub(crate) fn waiting(&self, cluster: &str) -> u64 {
        self.clusters.borrow().waiting(cluster).read().max(0) as u64
    }

    fn cluster_shares(&self, core: usize) -> Vec<ClusterShare> {
        let current = self.current.borrow();
        let named = current.plan.clusters.iter().zip(&current.cluster_keys);
        named
            .enumerate()
            .map(|(id, (cluster, &key))| {
                let waiting = self.clusters.borrow().waiting(&cluster.name);
                let series = self.registry.cluster(ClusterId(id as u32), core);
                let endpoints = self.endpoints(key, cluster, core);
                ClusterShare { key, waiting, series, endpoints }
            })
            .collect()
    }

    /// Tells the data cores of a name that leads elsewhere now.
    fn name_changed(&self, name: &NamedAddress) {
        self.clusters.borrow_mut().forget_unused_permits();
        self.registry.forget_unused();
        self.tend_overrides();
        let current = self.current.borrow();
        for (cluster, &key) in current.plan.clusters.iter().zip(&current.cluster_keys) {
            if names::leads_to(&cluster.endpoints, name) {
                let endpoints = |core| self.endpoints(key, cluster, core);
                self.to_each_shard(|core| ToShard::Endpoints(key, endpoints(core)));
            }
        }
        drop(current);
        self.publish_health();
    }

    /// The plan in force for every core, with the sockets that are new and its ends of the
    /// exporters; the first one with its end of the log, by core.
    fn send_plan(
        &self,
        sockets: Vec<(ListenerKey, Vec<TcpListener>)>,
        log: Vec<Producer>,
        spans: Vec<SpanChange>,
        tls: Vec<Setup>,
    ) {
        let mut by_core: Vec<Vec<(ListenerKey, TcpListener)>> =
            self.shards.iter().map(|_| Vec::new()).collect();
        for (key, sockets) in sockets {
            // A process before this one may have had more cores: none of its queues is left out.
            for (index, socket) in sockets.into_iter().enumerate() {
                let core = index % by_core.len();
                by_core[core].push((key, socket));
            }
        }
        let mut log = log.into_iter();
        let by_core = self.shards.iter().zip(by_core).zip(spans).zip(tls).enumerate();
        for (core, (((letters, sockets), spans), tls)) in by_core {
            let install = Install {
                plan: self.plan(),
                clusters: self.cluster_shares(core),
                series: self.registry.share(core),
                listener_keys: self.current.borrow().listener_keys.clone(),
                sockets,
                log: log.next(),
                spans,
                tls,
            };
            letters.send(ToShard::Install(Box::new(install)));
        }
        self.wake(); // whoever delivers later what found no room
    }

    /// Waits for what letters bring about; false when that takes longer than `limit`, or a core
    /// failed.
    pub(crate) async fn until(&self, limit: Duration, reached: impl Fn(&Control) -> bool) -> bool {
        let mut late = std::pin::pin!(engine::sleep(limit));
        std::future::poll_fn(|context| {
            if reached(self) {
                return Poll::Ready(true);
            }
            if self.failed.borrow().is_some() || late.as_mut().poll(context).is_ready() {
                return Poll::Ready(false);
            }
            self.poll_changed(context);
            Poll::Pending
        })
        .await
    }

    /// All cores have said that they have nothing left, and no connection is between two of them.
    fn is_empty(&self) -> bool {
        let open = self.counters.iter().map(|counters| counters.connections.read()).sum::<i64>();
        self.drained.iter().all(Cell::get) && open == 0
    }

    /// Until a core says that it has failed, or another process has taken over.
    async fn end(&self) -> End {
        std::future::poll_fn(|context| {
            if let Some(reason) = self.failed.borrow_mut().take() {
                return Poll::Ready(End::Failed(reason));
            }
            if let Some(keys) = self.upgrades.handed_over() {
                return Poll::Ready(End::HandedOver(keys));
            }
            self.poll_changed(context);
            Poll::Pending
        })
        .await
    }

    /// What takes long, on another thread; `None`: it panicked.
    pub(crate) async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.watch.pool().run(work).await
    }

    /// Until the next letter, or change of anything.
    async fn changed_once(&self) {
        let mut waited = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            self.poll_changed(context);
            Poll::Pending
        })
        .await;
    }

    /// The task is woken at the next letter.
    fn poll_changed(&self, context: &Context<'_>) {
        let mut wakers = self.changed.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
    }

    pub(crate) fn wake(&self) {
        let wakers = std::mem::take(&mut *self.changed.borrow_mut());
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Why a run ends that nobody has asked to stop.
enum End {
    Failed(String),
    /// Another process accepts from these listeners now.
    HandedOver(Vec<ListenerKey>),
}

/// How a run ended.
enum Run {
    Drained,
    /// `drain_timeout` was over: the rest was cut.
    Cut,
    Failed(String),
}

/// Until it is told to end, or has handed over: then it stops accepting, lets exchanges finish, and
/// stops the data cores. Unless the process that took over dies before that.
async fn life(control: &Rc<Control>, signals: &mut Signals, pid_file: &PidFile) -> Run {
    loop {
        let leave = match serve(control, signals).await {
            Ok(leave) => leave,
            Err(run) => return run,
        };
        match drain(control, signals, leave).await {
            Drained::Over(run) => return run,
            Drained::Alone(how) => {
                if !control.take_over_again(&how, pid_file).await {
                    control.to_shards(|| ToShard::Stop);
                    let failed = control.failed.borrow_mut().take();
                    let reason = "a data core does not take connections again".to_owned();
                    return Run::Failed(failed.unwrap_or(reason));
                }
            }
        }
    }
}

/// Why a process drains.
struct Leave {
    /// The listeners that another process has.
    handed_over: Vec<ListenerKey>,
    /// Else it is only that other one.
    was_asked: bool,
}

async fn serve(control: &Rc<Control>, signals: &mut Signals) -> Result<Leave, Run> {
    loop {
        match first(signals.next(), control.end()).await {
            Either::First(Ok(Signal::Stop)) => {
                let handed_over = control.end_upgrade().await;
                match control.upgrades.handed_over() {
                    Some(_) => control.reloads.own_ports.end(),
                    None => control.notify.stopping(),
                }
                control.predecessor.borrow_mut().settled();
                return Ok(Leave { handed_over, was_asked: true });
            }
            Either::First(Ok(Signal::Reopen)) => {
                reopen(control);
            }
            Either::First(Ok(Signal::Reload)) => reload(Rc::clone(control)),
            Either::First(Ok(Signal::Upgrade)) => upgrade(Rc::clone(control)),
            Either::First(Err(error)) => log::error!("cannot read signals: {error}"),
            Either::Second(End::HandedOver(handed_over)) => {
                control.reloads.own_ports.end();
                return Ok(Leave { handed_over, was_asked: false });
            }
            Either::Second(End::Failed(reason)) => {
                control.to_shards(|| ToShard::Stop);
                return Err(Run::Failed(reason));
            }
        }
    }
}

/// How a drain has ended.
enum Drained {
    Over(Run),
    /// Whoever had taken over has died, of this.
    Alone(String),
}

async fn drain(control: &Rc<Control>, signals: &mut Signals, leave: Leave) -> Drained {
    let Leave { handed_over, was_asked } = leave;
    let timeout = control.plan().drain_timeout;
    log::info!("draining: no new connections, running exchanges have {timeout:?}");
    control.draining.set(true);
    control.publish_health();
    control.tell_health("process", "draining", "it was asked to stop");
    control.to_shards(|| ToShard::Drain { handed_over: handed_over.clone() });
    if control.upgrades.handed_over().is_some()
        && let Some(publisher) = &control.totals.borrow().log
    {
        publisher.rotate(false);
    }
    let done = |control: &Control| control.is_empty() && control.is_successor_left_alone();
    let over = first(control.until(timeout, done), again(control, signals, was_asked));
    let drained = match first(over, control.successor_died()).await {
        Either::First(drained) => drained,
        Either::Second(how) => return Drained::Alone(how),
    };
    control.part().await;
    control.to_shards(|| ToShard::Stop);
    control.until(limits::CORE_STOP_TIMEOUT, Control::are_letters_sent).await;
    control.until(limits::BLACKLIST_STOP_TIMEOUT, Control::is_blacklist_saved).await;
    let left = |control: &Control| control.reloads.own_ports.are_left();
    control.until(limits::OWN_PORTS_STOP_TIMEOUT, left).await;
    if let Some(reason) = control.failed.borrow_mut().take() {
        return Drained::Over(Run::Failed(reason));
    }
    Drained::Over(match drained {
        Either::First(true) => Run::Drained,
        // All that was left to do was to watch the process that has taken over.
        Either::First(false) if control.is_empty() => Run::Drained,
        Either::First(false) | Either::Second(()) => Run::Cut,
    })
}

impl Control {
    /// Tunnels that are still open get a moment to say goodbye.
    async fn part(&self) {
        let is_over = || self.counters.iter().all(|counters| !counters.has_tunnels());
        if is_over() {
            return;
        }
        self.to_shards(|| ToShard::Part);
        let begun = engine::now();
        while !is_over() && engine::now() - begun < limits::TUNNELS_PARTING_TIMEOUT {
            engine::sleep(limits::TUNNELS_PARTING_LOOK_INTERVAL).await;
        }
    }
}

/// SIGHUP. What comes of it is logged.
fn reload(control: Rc<Control>) {
    engine::spawn(async move {
        let result = control.reload(Trigger::Signal).await;
        if let (Err(refused), false) = (result, control.source.provider.can_change()) {
            log::warn!("SIGHUP: {refused}");
        }
    });
}

/// SIGUSR1.
fn reopen(control: &Control) {
    if let Some(publisher) = &control.totals.borrow().log {
        publisher.reopen();
    }
}

/// SIGUSR2. What comes of it is logged.
fn upgrade(control: Rc<Control>) {
    engine::spawn(async move { drop(control.upgrade().await) });
}

/// A second request to stop: whoever sends it does not want to wait. Who drains because another
/// process has taken over was not asked before.
async fn again(control: &Control, signals: &mut Signals, mut was_asked: bool) {
    loop {
        match signals.next().await {
            Ok(Signal::Stop) if was_asked => return,
            Ok(Signal::Stop) => {
                log::info!("told to stop: what runs is finished, and nothing is taken over again");
                was_asked = true;
                if let Some(successor) = control.upgrades.successor() {
                    successor.let_go();
                }
                control.wake();
            }
            Ok(signal @ (Signal::Reload | Signal::Upgrade)) => {
                log::warn!("signal {signal:?} is refused: the process is draining");
            }
            Ok(Signal::Reopen) => reopen(control),
            Err(error) => log::error!("cannot read signals: {error}"),
        }
    }
}

/// The control core's ends of its mailboxes.
struct ControlMail {
    inboxes: Vec<Inbox<ToControl>>,
}
