//! The control core: makes the listening sockets, compiles and hands out plans, resolves names,
//! merges statistics, serves metrics and admin, and takes signals. It never touches a client's
//! bytes.

mod complaint;
mod letters;
pub mod message;
mod names;
pub(crate) mod registry;
mod start;
pub(crate) mod stats;

pub use start::{StartError, run};

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::control::complaint::Complaint;
use crate::control::letters::Letters;
use crate::control::message::{ClusterShare, EndpointShare, ToControl, ToShard};
use crate::control::names::Watch;
use crate::control::registry::Registry;
use crate::control::stats::Totals;
use crate::discovery::NamedAddress;
use crate::engine::{self, Inbox, Level, Permits, Shared, Signal, Signals};
use crate::limits;
use crate::plan::{ClusterId, Plan};
use crate::shard::counters::Counters;

/// What the control core's tasks share.
pub(crate) struct Control {
    pub(crate) plan: Shared<Plan>,
    shards: Vec<Letters>,
    pub(crate) counters: Vec<Shared<Counters>>,
    waiting: Vec<Shared<Level>>,
    permits: RefCell<HashMap<(u32, SocketAddr), Shared<Permits>>>,
    watch: Watch,
    pub(crate) totals: RefCell<Totals>,
    pub(crate) registry: Registry,
    pub(crate) draining: Cell<bool>,
    /// By core.
    drained: Vec<Cell<bool>>,
    installed: Cell<usize>,
    failed: RefCell<Option<String>>,
    changed: RefCell<Vec<Waker>>,
    full: Complaint,
    cannot_accept: Complaint,
}

/// Drops what belongs to addresses that no core has any more, neither in its list nor as a
/// connection, nor is about to get. An address that goes with this change is dropped by a later
/// one: were it dropped before all cores let go, it could come back with a second count.
fn forget_unused(permits: &mut HashMap<(u32, SocketAddr), Shared<Permits>>) {
    permits.retain(|_, permits| !permits.is_last());
}

impl Control {
    /// Applies what the data cores say. Called when the control core's bell was rung.
    fn apply(&self, letter: ToControl) {
        match letter {
            ToControl::Installed { core, version } => {
                log::debug!("core {core} has installed plan {version}");
                self.installed.set(self.installed.get() + 1);
            }
            ToControl::State { core, state } => self.totals.borrow_mut().add(core, *state),
            ToControl::Drained { core } => {
                log::debug!("core {core} has drained");
                self.drained[core].set(true);
            }
            ToControl::Full => self.complain_of_limit(),
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

    fn are_letters_sent(&self) -> bool {
        self.shards.iter().all(Letters::are_sent)
    }

    /// The addresses of one cluster as they are known now, for one core.
    fn endpoints(&self, id: ClusterId, core: usize) -> Vec<EndpointShare> {
        let cluster = &self.plan.clusters[id.0 as usize];
        if core == 0 {
            self.registry.renew(&cluster.name);
        }
        let mut shares: Vec<EndpointShare> = Vec::new();
        for endpoint in &cluster.endpoints {
            for address in self.watch.addresses(&endpoint.address) {
                // Two names may lead to one address: it is one endpoint.
                if shares.iter().all(|share| share.address != address) {
                    let permits = self.permits(id, address);
                    let series = self.registry.endpoint(&cluster.name, address, core);
                    let weight = endpoint.weight;
                    shares.push(EndpointShare { address, weight, permits, series });
                }
            }
        }
        shares
    }

    fn permits(&self, id: ClusterId, address: SocketAddr) -> Option<Shared<Permits>> {
        let max = self.plan.clusters[id.0 as usize].pool.connections_max?;
        let mut permits = self.permits.borrow_mut();
        let entry = permits.entry((id.0, address));
        let cores = self.shards.len();
        Some(entry.or_insert_with(|| Shared::new(Permits::new(max, cores))).share())
    }

    fn cluster_shares(&self, core: usize) -> Vec<ClusterShare> {
        let ids = (0..self.plan.clusters.len()).map(|id| ClusterId(id as u32));
        ids.map(|id| ClusterShare {
            waiting: self.waiting[id.0 as usize].share(),
            series: self.registry.cluster(id, core),
            endpoints: self.endpoints(id, core),
        })
        .collect()
    }

    /// Tells the data cores of a name that leads elsewhere now.
    fn name_changed(&self, name: &NamedAddress) {
        forget_unused(&mut self.permits.borrow_mut());
        self.registry.forget_unused();
        for (id, cluster) in self.plan.clusters.iter().enumerate() {
            if names::leads_to(&cluster.endpoints, name) {
                let id = ClusterId(id as u32);
                self.to_each_shard(|core| ToShard::Endpoints(id, self.endpoints(id, core)));
            }
        }
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

    /// Until a core says that it has failed.
    async fn failure(&self) -> String {
        std::future::poll_fn(|context| {
            if let Some(reason) = self.failed.borrow_mut().take() {
                return Poll::Ready(reason);
            }
            self.poll_changed(context);
            Poll::Pending
        })
        .await
    }

    /// The task is woken at the next letter.
    fn poll_changed(&self, context: &Context<'_>) {
        let mut wakers = self.changed.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
    }

    fn wake(&self) {
        let wakers = std::mem::take(&mut *self.changed.borrow_mut());
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// How a run ended.
enum Run {
    Drained,
    /// `drain_timeout` was over: the rest was cut.
    Cut,
    Failed(String),
}

/// From the first signal that says so: stop accepting, let exchanges finish, stop the data cores.
async fn life(control: &Rc<Control>, signals: &mut Signals) -> Run {
    loop {
        match first(signals.next(), control.failure()).await {
            Either::First(Ok(Signal::Stop)) => break,
            Either::First(Ok(Signal::Reopen)) => {
                if let Some(log) = &control.totals.borrow().log {
                    log.reopen();
                }
            }
            Either::First(Ok(signal @ (Signal::Reload | Signal::Upgrade))) => {
                log::warn!("signal {signal:?} is not acted on by this version");
            }
            Either::First(Err(error)) => log::error!("cannot read signals: {error}"),
            Either::Second(reason) => {
                control.to_shards(|| ToShard::Stop);
                return Run::Failed(reason);
            }
        }
    }
    let timeout = control.plan.drain_timeout;
    log::info!("draining: no new connections, running exchanges have {timeout:?}");
    control.draining.set(true);
    control.to_shards(|| ToShard::Drain);
    let drained = first(control.until(timeout, Control::is_empty), again(signals)).await;
    control.to_shards(|| ToShard::Stop);
    control.until(limits::CORE_STOP_TIMEOUT, Control::are_letters_sent).await;
    if let Some(reason) = control.failed.borrow_mut().take() {
        return Run::Failed(reason);
    }
    match drained {
        Either::First(true) => Run::Drained,
        Either::First(false) | Either::Second(()) => Run::Cut,
    }
}

/// A second request to stop: whoever sends it does not want to wait.
async fn again(signals: &mut Signals) {
    while !matches!(signals.next().await, Ok(Signal::Stop)) {}
}

enum Either<A, B> {
    First(A),
    Second(B),
}

/// Whichever is ready first.
async fn first<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> Either<A, B> {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    std::future::poll_fn(|context| {
        if let Poll::Ready(value) = a.as_mut().poll(context) {
            return Poll::Ready(Either::First(value));
        }
        b.as_mut().poll(context).map(Either::Second)
    })
    .await
}

/// The control core's ends of its mailboxes.
struct ControlMail {
    inboxes: Vec<Inbox<ToControl>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_an_address_are_forgotten_once_nobody_can_hold_one() {
        let key = (0, SocketAddr::from(([127, 0, 0, 1], 80)));
        let mut permits = HashMap::from([(key, Shared::new(Permits::new(1, 1)))]);
        let endpoint = permits[&key].share();
        forget_unused(&mut permits);
        assert_eq!(permits.len(), 1, "a core has it");
        drop(endpoint);
        forget_unused(&mut permits);
        assert!(permits.is_empty());
    }
}
