//! A plan and the state that its ids name, on one core. An exchange keeps the generation that it
//! began with; what a cluster has (connections, who waits, whose turn it is) belongs to the
//! cluster and outlives generations.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::Poll;

use crate::control::message::{ClusterShare, EndpointShare, GenerationState};
use crate::engine::{self, Shared};
use crate::exchange::failure::Failure;
use crate::limits;
use crate::plan::{self, ClusterId, ClusterKey, ListenerKey, Plan, RouteId};
use crate::shard::mail::Mail;
use crate::shard::series::Series;
use crate::shard::watchers::Watcher;
use crate::upstream::pool::Cluster;

pub(crate) struct Generation {
    pub(crate) series: Series,
    clusters: Vec<Rc<Cluster>>,
    /// Of the plan's listeners, in their order.
    listener_keys: Vec<ListenerKey>,
    exchanges: Cell<u64>,
    retired: Cell<bool>,
    /// Let go of last: once nobody has it, the cells are free as well.
    pub(crate) plan: Shared<Plan>,
}

impl Generation {
    pub(crate) fn cluster(&self, id: ClusterId) -> &Rc<Cluster> {
        &self.clusters[id.0 as usize]
    }

    pub(crate) fn clusters(&self) -> &[Rc<Cluster>] {
        &self.clusters
    }

    pub(crate) fn route(&self, id: RouteId) -> &plan::Route {
        &self.plan.routes[id.0 as usize]
    }

    /// `None`: this generation has that listener no more, or not yet.
    pub(crate) fn listener(&self, key: ListenerKey) -> Option<&plan::Listener> {
        let index = self.listener_keys.iter().position(|known| *known == key)?;
        self.plan.listeners.get(index)
    }

    /// An exchange has begun with it.
    pub(crate) fn enter(&self) {
        self.exchanges.set(self.exchanges.get() + 1);
    }

    /// Its exchanges end now.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.get()
    }

    pub(crate) fn leave(&self) {
        self.exchanges.set(self.exchanges.get() - 1);
    }

    /// Runs an exchange's future; it ends with a failure when its generation is retired.
    /// `watcher`: of one that waits for streams alone, whom no descriptor wakes for this.
    pub(crate) async fn until_retired<T>(
        &self,
        mut exchange: Pin<&mut impl Future<Output = Result<T, Failure>>>,
        watcher: Option<Watcher<'_>>,
    ) -> Result<T, Failure> {
        std::future::poll_fn(|context| {
            if self.retired.get() {
                return Poll::Ready(Err(Failure::GenerationRetired));
            }
            let ended = exchange.as_mut().poll(context);
            if let (Some(watcher), Poll::Pending) = (&watcher, &ended) {
                watcher.wait(context);
            }
            ended
        })
        .await
    }
}

/// What lives on one core beside the newest generation: older ones with their exchanges, and the
/// clusters of all.
#[derive(Default)]
pub(crate) struct Generations {
    newest: RefCell<Option<Rc<Generation>>>,
    older: RefCell<Vec<Weak<Generation>>>,
    clusters: RefCell<HashMap<ClusterKey, Weak<Cluster>>>,
}

impl Generations {
    pub(crate) fn newest(&self) -> Option<Rc<Generation>> {
        self.newest.borrow().clone()
    }

    /// Makes a generation the newest. Clusters that are there already are carried over.
    pub(crate) fn install(
        &self,
        plan: Shared<Plan>,
        shares: Vec<ClusterShare>,
        series: Series,
        listener_keys: Vec<ListenerKey>,
        mail: &Rc<Mail>,
    ) -> Rc<Generation> {
        let clusters = plan
            .clusters
            .iter()
            .zip(shares)
            .map(|(cluster, share)| self.cluster_of(cluster, share, mail))
            .collect();
        let generation = Rc::new(Generation {
            series,
            clusters,
            listener_keys,
            exchanges: Cell::new(0),
            retired: Cell::new(false),
            plan,
        });
        let before = self.newest.replace(Some(Rc::clone(&generation)));
        if let Some(before) = before {
            self.let_go(&before, &generation);
        }
        generation
    }

    fn cluster_of(
        &self,
        plan: &plan::Cluster,
        share: ClusterShare,
        mail: &Rc<Mail>,
    ) -> Rc<Cluster> {
        if let Some(cluster) = self.cluster(share.key) {
            cluster.reconfigure(plan.pool, share);
            return cluster;
        }
        let key = share.key;
        let cluster = Cluster::new(plan.pool, share, Rc::clone(mail));
        self.clusters.borrow_mut().insert(key, Rc::downgrade(&cluster));
        cluster
    }

    fn let_go(&self, before: &Rc<Generation>, newest: &Generation) {
        let kept: Vec<ClusterKey> = newest.clusters.iter().map(|cluster| cluster.key()).collect();
        let kept: std::collections::HashSet<ClusterKey> = kept.into_iter().collect();
        for cluster in before.clusters.iter().filter(|cluster| !kept.contains(&cluster.key())) {
            cluster.retire();
        }
        let mut older = self.older.borrow_mut();
        older.retain(|generation| generation.strong_count() > 0);
        older.push(Rc::downgrade(before));
        self.clusters.borrow_mut().retain(|_, cluster| cluster.strong_count() > 0);
    }

    /// The cluster that a letter names, whatever generations it belongs to.
    pub(crate) fn cluster(&self, key: ClusterKey) -> Option<Rc<Cluster>> {
        self.clusters.borrow().get(&key).and_then(Weak::upgrade)
    }

    pub(crate) fn replace_endpoints(&self, key: ClusterKey, endpoints: Vec<EndpointShare>) {
        let newest = self.newest.borrow();
        let clusters = newest.as_ref().map_or(&[][..], |newest| newest.clusters());
        if let Some(cluster) = clusters.iter().find(|cluster| cluster.key() == key) {
            cluster.replace_endpoints(endpoints);
        }
    }

    /// Nobody is served here any more: kept connections close, those of HTTP/2 with a word.
    pub(crate) async fn leave_endpoints(&self) {
        let clusters = self.clusters();
        clusters.iter().for_each(|cluster| cluster.close_kept());
        let gone = async {
            while clusters.iter().any(|cluster| cluster.has_trunks()) {
                engine::sleep(limits::GOODBYE_LOOK_INTERVAL).await;
            }
        };
        engine::within(limits::GOODBYE_TIME, gone).await;
    }

    /// All clusters that anything here still uses.
    pub(crate) fn clusters(&self) -> Vec<Rc<Cluster>> {
        self.clusters.borrow().values().filter_map(Weak::upgrade).collect()
    }

    fn older(&self) -> Vec<Rc<Generation>> {
        self.older.borrow().iter().rev().filter_map(Weak::upgrade).collect()
    }

    /// Those that somebody holds, newest first.
    pub(crate) fn states(&self) -> Vec<GenerationState> {
        let state = |generation: Rc<Generation>| GenerationState {
            version: generation.plan.version,
            exchanges: generation.exchanges.get(),
        };
        self.newest().into_iter().chain(self.older()).map(state).collect()
    }

    /// Exchanges of all generations up to this version end. The caller wakes them.
    pub(crate) fn retire(&self, through: u64) -> u64 {
        let old = self.older().into_iter().filter(|old| old.plan.version <= through);
        old.map(|generation| {
            generation.retired.set(true);
            generation.exchanges.get()
        })
        .sum()
    }
}
