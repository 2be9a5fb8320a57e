//! Whose numbers are kept by name: cells for every listener, route, cluster and endpoint of the
//! plan, one set per data core. They belong to the name, not to the plan: a plan that comes later
//! finds the numbers of what it has in common with the one before. Beyond `metrics.max_series`
//! the rest is summed under `other`.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;

use crate::engine::Shared;
use crate::grpc::status::Code;
use crate::plan::{Bounds, ClusterId, Plan};
use crate::shard::series::{
    ClusterCells, EndpointCells, GrpcCells, ListenerCells, RouteCells, STATUS_CLASSES, SeriesShare,
};
use crate::telemetry::exemplars::Gathered;
use crate::telemetry::metrics::{Named, OTHER, Series, UNROUTED};

pub(crate) struct Registry {
    cores: usize,
    /// Those of the first plan: later ones cannot rearrange what has been counted.
    pub(crate) bounds: Bounds,
    listeners: RefCell<Kind<ListenerCells>>,
    routes: RefCell<Kind<RouteCells>>,
    grpc: RefCell<Kind<GrpcCells>>,
    clusters: RefCell<Kind<ClusterCells>>,
    endpoints: RefCell<Endpoints>,
}

/// Things of one kind.
struct Kind<T> {
    /// Where each thing of the plan is counted, in its order.
    places: Vec<Rc<Named<T>>>,
    /// Those that have cells of their own, in the plan's order.
    own: Vec<Rc<Named<T>>>,
    /// Where the rest is summed.
    other: Option<Rc<Named<T>>>,
    /// No longer in the plan, but some exchange or connection counts in them still. Beside
    /// `metrics.max_series`: they are gone in a moment, and what is new must not suffer for it.
    leaving: Vec<Rc<Named<T>>>,
    folded: usize,
}

/// Endpoints come and go with their names' addresses.
#[derive(Default)]
struct Endpoints {
    /// In the order of the page.
    by_cluster: BTreeMap<String, ClusterEndpoints>,
    other: Option<Rc<Named<EndpointCells>>>,
    /// How many may have cells of their own.
    room: usize,
    /// How many have, leaving ones not counted.
    own: usize,
}

#[derive(Default)]
struct ClusterEndpoints {
    known: BTreeMap<SocketAddr, Known>,
    /// Counted under `other`.
    folded: HashSet<SocketAddr>,
}

struct Known {
    named: Rc<Named<EndpointCells>>,
    /// The cluster has that address, as far as it was asked for.
    wanted: bool,
}

impl Registry {
    pub(crate) fn new(plan: &Plan, cores: usize) -> Registry {
        let registry = Registry {
            cores,
            bounds: plan.metering.bounds.clone(),
            listeners: RefCell::default(),
            routes: RefCell::default(),
            grpc: RefCell::default(),
            clusters: RefCell::default(),
            endpoints: RefCell::default(),
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
        let calls = plan.routes.iter().filter(|route| route.grpc.is_some());
        let names = calls.map(|route| route.name.as_str());
        take(&self.grpc, "route", names, self.cores, costs.grpc, &mut budget);
        let mut endpoints = self.endpoints.borrow_mut();
        endpoints.room = budget / costs.endpoint;
        let named: HashSet<&str> =
            plan.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        let all: Vec<String> = endpoints.by_cluster.keys().cloned().collect();
        for cluster in all.iter().filter(|cluster| !named.contains(cluster.as_str())) {
            endpoints.renew(cluster);
        }
        drop(endpoints);
        self.forget_unused();
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

    /// Of the plan that was adopted last.
    pub(crate) fn share(&self, core: usize) -> SeriesShare {
        SeriesShare {
            bounds: self.bounds.clone(),
            listeners: self.listeners.borrow().shares(core),
            routes: self.routes.borrow().shares(core),
            grpc: self.grpc.borrow().shares(core),
        }
    }

    pub(crate) fn cluster(&self, id: ClusterId, core: usize) -> Shared<ClusterCells> {
        self.clusters.borrow().places[id.0 as usize].cells[core].share()
    }

    pub(crate) fn endpoint(
        &self,
        cluster: &str,
        address: SocketAddr,
        core: usize,
    ) -> Shared<EndpointCells> {
        self.endpoints.borrow_mut().place(cluster, address, self.cores).cells[core].share()
    }

    /// All endpoints of a cluster are about to be asked for, because they may be others now.
    pub(crate) fn renew(&self, cluster: &str) {
        self.endpoints.borrow_mut().renew(cluster);
    }

    /// Forgets what left the plan and no core has any more.
    pub(crate) fn forget_unused(&self) {
        self.listeners.borrow_mut().forget_unused();
        self.routes.borrow_mut().forget_unused();
        self.grpc.borrow_mut().forget_unused();
        self.clusters.borrow_mut().forget_unused();
        self.endpoints.borrow_mut().forget_unused();
    }

    /// Handles of everything, to be read while the page is written.
    pub(crate) fn series(&self) -> Series {
        self.forget_unused();
        let endpoints = self.endpoints.borrow();
        let [listeners, clusters, routes] = self.folded_names().map(|folded| folded as u64);
        Series {
            bounds: self.bounds.clone(),
            listeners: self.listeners.borrow().all(),
            routes: self.routes.borrow().all(),
            grpc: self.grpc.borrow().all(),
            clusters: self.clusters.borrow().all(),
            endpoints: endpoints.all(),
            folded: [
                ("listener", listeners),
                ("cluster", clusters),
                ("route", routes),
                ("endpoint", endpoints.folded()),
            ],
            exemplars: Gathered::default(),
        }
    }
}

impl<T> Default for Kind<T> {
    fn default() -> Kind<T> {
        let (places, own, leaving) = (Vec::new(), Vec::new(), Vec::new());
        Kind { places, own, other: None, leaving, folded: 0 }
    }
}

impl<T> Kind<T> {
    fn shares(&self, core: usize) -> Vec<Shared<T>> {
        self.places.iter().map(|named| named.cells[core].share()).collect()
    }

    fn all(&self) -> Vec<Rc<Named<T>>> {
        let mut all = self.own.clone();
        // Something may be called so in the configuration: it is the same then.
        all.extend(self.other.iter().filter(|_| !self.own.iter().any(is_other)).cloned());
        all.extend(self.leaving.iter().cloned());
        all
    }

    fn forget_unused(&mut self) {
        self.leaving.retain(is_used);
    }
}

fn is_other<T>(named: &Rc<Named<T>>) -> bool {
    named.labels[0].1 == OTHER
}

/// Some core has cells of it, or is about to get them.
fn is_used<T>(named: &Rc<Named<T>>) -> bool {
    !named.cells.iter().all(Shared::is_last)
}

/// Gives cells to `names` as long as `budget` lasts: first to those that had some, which they keep,
/// then to the others in their order.
fn take<'n, T: Default>(
    kind: &RefCell<Kind<T>>,
    label: &'static str,
    names: impl Iterator<Item = &'n str>,
    cores: usize,
    cost: usize,
    budget: &mut usize,
) {
    let mut kind = kind.borrow_mut();
    let kind = &mut *kind;
    let before = kind.own.drain(..).chain(kind.leaving.drain(..)).chain(kind.other.take());
    let mut before: HashMap<String, Rc<Named<T>>> =
        before.map(|named| (named.labels[0].1.clone(), named)).collect();
    let mut room = *budget / cost;
    let given = |room: &mut usize| {
        let has_room = *room > 0;
        *room -= usize::from(has_room);
        has_room
    };
    let mut places: Vec<(&str, Option<Rc<Named<T>>>)> = names.map(|name| (name, None)).collect();
    for (name, place) in &mut places {
        if before.contains_key(*name) && given(&mut room) {
            *place = before.remove(*name);
        }
    }
    let new = |name: &str| Rc::new(Named::new(vec![(label, name.to_owned())], cores));
    for (name, place) in places.iter_mut().filter(|(_, place)| place.is_none()) {
        // One that had cells found no room a moment ago.
        if !before.contains_key(*name) && given(&mut room) {
            *place = Some(new(name));
        }
    }
    *budget = room * cost + *budget % cost;
    kind.own = places.iter().filter_map(|(_, place)| place.clone()).collect();
    kind.folded = places.len() - kind.own.len();
    if kind.folded > 0 {
        let called_so = kind.own.iter().find(|named| is_other(named)).cloned();
        let other = called_so.or_else(|| before.remove(OTHER));
        kind.other = Some(other.unwrap_or_else(|| new(OTHER)));
    }
    let other = &kind.other;
    let place = |place: Option<_>| {
        place.or_else(|| other.clone()).expect("there is `other` when something is folded")
    };
    kind.places = places.into_iter().map(|(_, own)| place(own)).collect();
    kind.leaving = before.into_values().filter(is_used).collect();
    kind.leaving.sort_by(|a, b| a.labels.cmp(&b.labels));
}

impl Endpoints {
    fn place(
        &mut self,
        cluster: &str,
        address: SocketAddr,
        cores: usize,
    ) -> Rc<Named<EndpointCells>> {
        let labels =
            |cluster: &str, endpoint| vec![("cluster", cluster.to_owned()), ("endpoint", endpoint)];
        let of_cluster = self.by_cluster.entry(cluster.to_owned()).or_default();
        let known = of_cluster.known.get_mut(&address);
        if let Some(Known { named, wanted: true }) = &known {
            return Rc::clone(named);
        }
        // What was decided for one core holds for the others.
        if of_cluster.folded.contains(&address) || self.own >= self.room {
            of_cluster.folded.insert(address);
            let other = self.other.get_or_insert_with(|| {
                log::warn!(
                    "metrics: endpoints are counted under `other` from now on, first {address} of \
                     cluster {cluster}: raise metrics.max_series to tell them apart"
                );
                Rc::new(Named::new(labels(OTHER, OTHER.to_owned()), cores))
            });
            return Rc::clone(other);
        }
        self.own += 1;
        let new = || Known {
            named: Rc::new(Named::new(labels(cluster, address.to_string()), cores)),
            wanted: true,
        };
        let known = of_cluster.known.entry(address).or_insert_with(new);
        known.wanted = true;
        Rc::clone(&known.named)
    }

    fn renew(&mut self, cluster: &str) {
        let Some(of_cluster) = self.by_cluster.get_mut(cluster) else { return };
        of_cluster.folded.clear();
        for known in of_cluster.known.values_mut() {
            self.own -= usize::from(std::mem::replace(&mut known.wanted, false));
        }
    }

    fn forget_unused(&mut self) {
        for of_cluster in self.by_cluster.values_mut() {
            of_cluster.known.retain(|_, known| known.wanted || is_used(&known.named));
        }
        self.by_cluster.retain(|_, of| !of.known.is_empty() || !of.folded.is_empty());
        if self.folded() == 0 {
            self.other.take_if(|other| !is_used(other));
        }
    }

    fn all(&self) -> Vec<Rc<Named<EndpointCells>>> {
        let known = self.by_cluster.values().flat_map(|of| of.known.values());
        known.map(|known| &known.named).chain(&self.other).cloned().collect()
    }

    fn folded(&self) -> u64 {
        self.by_cluster.values().map(|of| of.folded.len() as u64).sum()
    }
}

/// How many series one thing of each kind has at most.
struct Costs {
    listener: usize,
    route: usize,
    cluster: usize,
    endpoint: usize,
    grpc: usize,
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
            grpc: Code::COUNT + 4,
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

    /// Beside the listener.
    const ROOM_FOR_THREE: &str = "max_series = 100";

    fn names(registry: &Registry) -> Vec<String> {
        registry.series().routes.iter().map(|route| route.labels[0].1.clone()).collect()
    }

    #[test]
    fn numbers_belong_to_the_name_and_outlive_a_plan() {
        let registry = Registry::new(&plan(3, ""), 2);
        registry.share(1).routes[2].bytes_in.add(7);
        registry.adopt(&plan(1, ""));
        assert_eq!(registry.series().routes.len(), 2, "r0 and those without a route");
        registry.share(0).routes[0].bytes_in.add(5);
        registry.adopt(&plan(3, ""));
        assert_eq!(registry.share(0).routes[0].bytes_in.read(), 5);
        assert_eq!(registry.share(1).routes[2].bytes_in.read(), 0, "r2 was gone");
    }

    #[test]
    fn a_name_that_goes_stays_on_the_page_while_somebody_counts_in_it() {
        let registry = Registry::new(&plan(2, ""), 1);
        let old = registry.share(0);
        registry.adopt(&plan(1, ""));
        old.routes[1].bytes_in.add(3);
        assert_eq!(names(&registry), ["r0", UNROUTED, "r1"]);
        registry.adopt(&plan(2, ""));
        assert_eq!(registry.share(0).routes[1].bytes_in.read(), 3, "it came back in time");
        registry.adopt(&plan(1, ""));
        drop(old);
        assert_eq!(names(&registry), ["r0", UNROUTED]);
    }

    #[test]
    fn who_has_cells_keeps_them_and_what_is_new_gets_the_rest_of_the_room() {
        let registry = Registry::new(&plan(9, ROOM_FOR_THREE), 1);
        registry.share(0).routes[2].bytes_in.add(3);
        let mut plan = plan(9, ROOM_FOR_THREE);
        plan.routes.rotate_left(2); // r2 is the first now, r0 and r1 the last
        registry.adopt(&plan);
        assert_eq!(names(&registry), ["r2", "r0", "r1", OTHER], "no other three");
        assert_eq!(registry.share(0).routes[0].bytes_in.read(), 3);
        plan.routes.truncate(8); // without r1
        registry.adopt(&plan);
        assert_eq!(names(&registry), ["r2", "r3", "r0", OTHER]);
        plan.metering.series_max = 10_000;
        registry.adopt(&plan);
        assert_eq!(names(&registry).len(), 9, "nothing is counted under `other`");
        assert_eq!(registry.series().folded[2], ("route", 0));
    }

    #[test]
    fn names_that_change_with_every_plan_leave_nothing_behind() {
        let registry = Registry::new(&plan(1, ROOM_FOR_THREE), 2);
        for number in 0..200 {
            let mut plan = plan(9, ROOM_FOR_THREE);
            for route in &mut plan.routes {
                route.name = format!("{}-{number}", route.name);
            }
            registry.adopt(&plan);
            let address = SocketAddr::from(([10, 0, 0, number], 80));
            registry.renew("a");
            registry.endpoint("a", address, 0);
            assert_eq!(registry.series().routes.len(), 4);
            assert!(registry.series().endpoints.len() <= 2);
        }
    }

    #[test]
    fn what_goes_beyond_the_bound_is_summed_under_other() {
        let registry = Registry::new(&plan(9, ROOM_FOR_THREE), 1);
        let share = registry.share(0);
        share.routes.iter().for_each(|cells| cells.bytes_in.add(1));
        let series = registry.series();
        assert_eq!(names(&registry), ["r0", "r1", "r2", OTHER]);
        assert_eq!(series.routes[3].cells[0].bytes_in.read(), 7, "six, and those without a route");
        assert_eq!(series.folded[2], ("route", 7));
    }

    #[test]
    fn endpoints_are_forgotten_once_no_core_has_them() {
        let registry = Registry::new(&plan(1, ""), 1);
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let held = registry.endpoint("a", address, 0);
        registry.renew("a");
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
