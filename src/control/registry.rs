//! Whose numbers are kept by name: cells for every listener, route, cluster and endpoint of the
//! plan, one set per data core. They belong to the name, not to the plan: a plan that comes later
//! finds the numbers of what it has in common with the one before. Beyond `metrics.max_series`
//! the rest is summed under `other`.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;

use crate::engine::Shared;
use crate::plan::{Bounds, ClusterId, Plan};
use crate::shard::series::{
    ClusterCells, EndpointCells, ListenerCells, RouteCells, STATUS_CLASSES, SeriesShare,
};
use crate::telemetry::metrics::{Named, OTHER, Series, UNROUTED};

pub(crate) struct Registry {
    cores: usize,
    /// Those of the first plan: later ones cannot rearrange what has been counted.
    pub(crate) bounds: Bounds,
    listeners: RefCell<Kind<ListenerCells>>,
    routes: RefCell<Kind<RouteCells>>,
    clusters: RefCell<Kind<ClusterCells>>,
    endpoints: RefCell<Endpoints>,
}

/// Things of one kind that have cells of their own, by their place in the plan.
struct Kind<T> {
    list: Vec<Rc<Named<T>>>,
    /// Where the rest is summed.
    other: Option<Rc<Named<T>>>,
    folded: usize,
}

/// Endpoints come and go with their names' addresses.
struct Endpoints {
    /// By cluster and address, so that the page has an order.
    by_address: BTreeMap<(String, SocketAddr), Rc<Named<EndpointCells>>>,
    other: Option<Rc<Named<EndpointCells>>>,
    /// How many may have cells of their own.
    room: usize,
    /// How many have not, by cluster.
    folded: HashMap<String, u64>,
}

impl Registry {
    pub(crate) fn new(plan: &Plan, cores: usize) -> Registry {
        let registry = Registry {
            cores,
            bounds: plan.metering.bounds.clone(),
            listeners: RefCell::default(),
            routes: RefCell::default(),
            clusters: RefCell::default(),
            endpoints: RefCell::new(Endpoints {
                by_address: BTreeMap::new(),
                other: None,
                room: 0,
                folded: HashMap::new(),
            }),
        };
        registry.adopt(plan);
        registry
    }

    /// From now on the names are those of `plan`. Numbers of names that stay go on; those of names
    /// that go are forgotten once the last exchange that counts in them has ended.
    pub(crate) fn adopt(&self, plan: &Plan) {
        let costs = Costs::new(&self.bounds);
        let mut budget = plan.metering.series_max;
        let names = plan.listeners.iter().map(|listener| listener.name.as_str());
        take(&self.listeners, "listener", names, self.cores, costs.listener, &mut budget);
        let names = plan.clusters.iter().map(|cluster| cluster.name.as_str());
        take(&self.clusters, "cluster", names, self.cores, costs.cluster, &mut budget);
        let names = plan.routes.iter().map(|route| route.name.as_str()).chain([UNROUTED]);
        take(&self.routes, "route", names, self.cores, costs.route, &mut budget);
        let mut endpoints = self.endpoints.borrow_mut();
        endpoints.room = budget / costs.endpoint;
        endpoints.folded.clear();
        drop(endpoints);
        let [listeners, clusters, routes] = self.folded_names();
        if listeners + clusters + routes > 0 {
            log::warn!(
                "metrics: {listeners} listeners, {clusters} clusters and {routes} routes are \
                 counted under `other`: metrics.max_series is {}, raise it to tell them apart",
                plan.metering.series_max
            );
        }
    }

    fn folded_names(&self) -> [usize; 3] {
        let (listeners, clusters) = (self.listeners.borrow(), self.clusters.borrow());
        [listeners.folded, clusters.folded, self.routes.borrow().folded]
    }

    pub(crate) fn share(&self, plan: &Plan, core: usize) -> SeriesShare {
        let (listeners, routes) = (self.listeners.borrow(), self.routes.borrow());
        SeriesShare {
            bounds: self.bounds.clone(),
            listeners: (0..plan.listeners.len()).map(|id| listeners.share(id, core)).collect(),
            // One more, for requests that no route matches.
            routes: (0..=plan.routes.len()).map(|id| routes.share(id, core)).collect(),
        }
    }

    pub(crate) fn cluster(&self, id: ClusterId, core: usize) -> Shared<ClusterCells> {
        self.clusters.borrow().share(id.0 as usize, core)
    }

    pub(crate) fn endpoint(
        &self,
        cluster: &str,
        address: SocketAddr,
        core: usize,
    ) -> Shared<EndpointCells> {
        let mut endpoints = self.endpoints.borrow_mut();
        let endpoints = &mut *endpoints;
        let key = (cluster.to_owned(), address);
        if let Some(known) = endpoints.by_address.get(&key) {
            return known.cells[core].share();
        }
        if endpoints.by_address.len() >= endpoints.room {
            let labels = || vec![("cluster", OTHER.to_owned()), ("endpoint", OTHER.to_owned())];
            let new = || Rc::new(Named::new(labels(), self.cores));
            if endpoints.other.is_none() {
                log::warn!(
                    "metrics: endpoints are counted under `other` from now on, first {address} of \
                     cluster {cluster}: raise metrics.max_series to tell them apart"
                );
            }
            // Asked once for every core.
            *endpoints.folded.entry(key.0).or_default() += u64::from(core == 0);
            return endpoints.other.get_or_insert_with(new).cells[core].share();
        }
        let labels = vec![("cluster", cluster.to_owned()), ("endpoint", address.to_string())];
        let named = Rc::new(Named::<EndpointCells>::new(labels, self.cores));
        let share = named.cells[core].share();
        endpoints.by_address.insert(key, named);
        share
    }

    /// All endpoints of a cluster are about to be asked for, because they may be others now.
    pub(crate) fn renew(&self, cluster: &str) {
        self.endpoints.borrow_mut().folded.remove(cluster);
    }

    /// Forgets the endpoints that no core has any more.
    pub(crate) fn forget_unused(&self) {
        let is_used = |named: &Named<EndpointCells>| !named.cells.iter().all(Shared::is_last);
        self.endpoints.borrow_mut().by_address.retain(|_, named| is_used(named));
    }

    /// Handles of everything, to be read while the page is written.
    pub(crate) fn series(&self) -> Series {
        let endpoints = self.endpoints.borrow();
        let [listeners, clusters, routes] = self.folded_names().map(|folded| folded as u64);
        Series {
            bounds: self.bounds.clone(),
            listeners: self.listeners.borrow().all(),
            routes: self.routes.borrow().all(),
            clusters: self.clusters.borrow().all(),
            endpoints: endpoints.by_address.values().chain(&endpoints.other).cloned().collect(),
            folded: [
                ("listener", listeners),
                ("cluster", clusters),
                ("route", routes),
                ("endpoint", endpoints.folded.values().sum()),
            ],
        }
    }
}

impl<T> Default for Kind<T> {
    fn default() -> Kind<T> {
        Kind { list: Vec::new(), other: None, folded: 0 }
    }
}

impl<T> Kind<T> {
    fn share(&self, id: usize, core: usize) -> Shared<T> {
        let named = self.list.get(id).or(self.other.as_ref());
        named.expect("what has no cells of its own is counted under `other`").cells[core].share()
    }

    fn all(&self) -> Vec<Rc<Named<T>>> {
        let mut all = self.list.clone();
        // Something may be called so in the configuration: it is the same then.
        all.extend(self.other.iter().filter(|_| !self.list.iter().any(is_other)).cloned());
        all
    }
}

fn is_other<T>(named: &Rc<Named<T>>) -> bool {
    named.labels[0].1 == OTHER
}

/// Gives cells to `names`, in their order, as long as `budget` lasts; a name that had some keeps
/// them.
fn take<'n, T: Default>(
    kind: &RefCell<Kind<T>>,
    label: &'static str,
    names: impl Iterator<Item = &'n str>,
    cores: usize,
    cost: usize,
    budget: &mut usize,
) {
    let mut kind = kind.borrow_mut();
    let old: HashMap<String, Rc<Named<T>>> = std::mem::take(&mut kind.list)
        .into_iter()
        .chain(kind.other.clone())
        .map(|named| (named.labels[0].1.clone(), named))
        .collect();
    kind.folded = 0;
    for name in names {
        if *budget < cost || kind.folded > 0 {
            kind.folded += 1;
            continue;
        }
        *budget -= cost;
        let new = || Rc::new(Named::new(vec![(label, name.to_owned())], cores));
        kind.list.push(old.get(name).cloned().unwrap_or_else(new));
    }
    if kind.folded > 0 && kind.other.is_none() {
        let new = || Rc::new(Named::new(vec![(label, OTHER.to_owned())], cores));
        kind.other = Some(kind.list.iter().find(|n| is_other(n)).cloned().unwrap_or_else(new));
    }
}

/// How many series one thing of each kind has at most.
struct Costs {
    listener: usize,
    route: usize,
    cluster: usize,
    endpoint: usize,
}

impl Costs {
    fn new(bounds: &Bounds) -> Costs {
        // Every bound, +Inf, the sum and the count.
        let histogram = bounds.micros().len() + 3;
        let exchanges = STATUS_CLASSES + histogram;
        Costs {
            listener: exchanges + 4,
            route: exchanges + 2,
            cluster: exchanges + 3 * histogram + 5 + BACKEND_ERRORS_USUAL,
            endpoint: exchanges + 2,
        }
    }
}

/// Reasons that one backend fails for: each is a series once it has happened.
const BACKEND_ERRORS_USUAL: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn plan(routes: usize, metrics: &str) -> Plan {
        let mut text = format!(
            "metrics = {{ {metrics} }}\nlisteners = [{{ name = \"l\", bind = \"127.0.0.1:0\" }}]\n"
        );
        for route in 0..routes {
            text.push_str(&format!(
                "[[routes]]\nname = \"r{route}\"\nhosts = [\"h{route}.test\"]\necho = true\n"
            ));
        }
        config::compile(&config::load("test", &text).unwrap(), 1, 1).unwrap()
    }

    #[test]
    fn numbers_belong_to_the_name_and_outlive_a_plan() {
        let registry = Registry::new(&plan(3, ""), 2);
        registry.share(&plan(3, ""), 1).routes[2].bytes_in.add(7);
        let fewer = plan(1, "");
        registry.adopt(&fewer);
        assert_eq!(registry.series().routes.len(), 2, "r0 and those without a route");
        let kept = registry.share(&fewer, 0);
        kept.routes[0].bytes_in.add(5);
        let more = plan(3, "");
        registry.adopt(&more);
        assert_eq!(registry.share(&more, 0).routes[0].bytes_in.read(), 5);
        assert_eq!(registry.share(&more, 1).routes[2].bytes_in.read(), 0, "r2 was gone");
    }

    #[test]
    fn what_goes_beyond_the_bound_is_summed_under_other() {
        let plan = plan(9, "max_series = 100");
        let registry = Registry::new(&plan, 1);
        let share = registry.share(&plan, 0);
        share.routes.iter().for_each(|cells| cells.bytes_in.add(1));
        let series = registry.series();
        let names: Vec<&str> =
            series.routes.iter().map(|route| route.labels[0].1.as_str()).collect();
        assert_eq!(names, ["r0", "r1", "r2", OTHER]);
        assert_eq!(series.routes[3].cells[0].bytes_in.read(), 7, "six, and those without a route");
        assert_eq!(series.folded[2], ("route", 7));
    }

    #[test]
    fn endpoints_are_forgotten_once_no_core_has_them() {
        let registry = Registry::new(&plan(1, ""), 1);
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let held = registry.endpoint("a", address, 0);
        registry.forget_unused();
        assert_eq!(registry.series().endpoints.len(), 1);
        drop(held);
        registry.forget_unused();
        assert!(registry.series().endpoints.is_empty());
    }

    #[test]
    fn endpoints_beyond_the_bound_are_one() {
        let registry = Registry::new(&plan(1, "max_series = 100"), 2);
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let shares: Vec<_> = (1..=9).map(|port| registry.endpoint("a", at(port), 0)).collect();
        shares.iter().for_each(|cells| cells.open.add(1));
        let series = registry.series();
        let last = series.endpoints.last().unwrap();
        assert_eq!(last.labels, [("cluster", OTHER.to_owned()), ("endpoint", OTHER.to_owned())]);
        let own = series.endpoints.len() as u64 - 1;
        assert_eq!((last.cells[0].open.read(), series.folded[3].1), (9 - own, 9 - own));
    }
}
