//! Clusters by name, over all generations: their keys, how many exchanges wait for them, and the
//! slots of their addresses. What data cores hold of a cluster is found again by these.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::engine::{Level, Permits, Shared};
use crate::plan::{ClusterKey, Plan};

#[derive(Default)]
pub(super) struct Clusters {
    given: u32,
    by_name: HashMap<String, Known>,
    permits: HashMap<(ClusterKey, SocketAddr), Shared<Permits>>,
}

struct Known {
    key: ClusterKey,
    /// Exchanges of the whole process that wait for a connection.
    waiting: Shared<Level>,
}

impl Clusters {
    /// The keys of a plan's clusters, in its order. A name has the same key for as long as anything
    /// of that cluster is left on any core, so that its maxima hold over reloads.
    pub(super) fn keys(&mut self, plan: &Plan) -> Vec<ClusterKey> {
        self.forget_unused(plan);
        plan.clusters.iter().map(|cluster| self.key(&cluster.name)).collect()
    }

    fn key(&mut self, name: &str) -> ClusterKey {
        if let Some(known) = self.by_name.get(name) {
            return known.key;
        }
        self.given += 1;
        let known = Known { key: ClusterKey(self.given), waiting: Shared::new(Level::default()) };
        let key = known.key;
        self.by_name.insert(name.to_owned(), known);
        key
    }

    pub(super) fn waiting(&self, name: &str) -> Shared<Level> {
        self.by_name[name].waiting.share()
    }

    /// The slots of one address, with the maximum that holds from now on.
    pub(super) fn permits(
        &mut self,
        key: ClusterKey,
        address: SocketAddr,
        max: u32,
        cores: usize,
    ) -> Shared<Permits> {
        let permits = self.permits.entry((key, address));
        let permits = permits.or_insert_with(|| Shared::new(Permits::new(max, cores)));
        permits.set_max(max);
        permits.share()
    }

    /// Drops what belongs to addresses that no core has any more, neither in its list nor as a
    /// connection, nor is about to get. An address that goes with this change is dropped by a later
    /// one: were it dropped before all cores let go, it could come back with a second count.
    pub(super) fn forget_unused_permits(&mut self) {
        self.permits.retain(|_, permits| !permits.is_last());
    }

    fn forget_unused(&mut self, plan: &Plan) {
        self.forget_unused_permits();
        let named: std::collections::HashSet<&str> =
            plan.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        let with_permits: std::collections::HashSet<ClusterKey> =
            self.permits.keys().map(|(key, _)| *key).collect();
        self.by_name.retain(|name, known| {
            named.contains(name.as_str())
                || !known.waiting.is_last()
                || with_permits.contains(&known.key)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_an_address_are_forgotten_once_nobody_can_hold_one() {
        let mut clusters = Clusters::default();
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let endpoint = clusters.permits(ClusterKey(1), address, 1, 1);
        clusters.forget_unused_permits();
        assert_eq!(clusters.permits.len(), 1, "a core has it");
        drop(endpoint);
        clusters.forget_unused_permits();
        assert!(clusters.permits.is_empty());
    }

    #[test]
    fn a_name_keeps_its_key_while_any_core_has_something_of_it() {
        let plan = |names: &[&str]| {
            let clusters: String = names
                .iter()
                .map(|name| {
                    format!("[clusters.{name}]\nendpoints = [{{ address = \"127.0.0.1:1\" }}]\n")
                })
                .collect();
            let text = format!(
                "[[listeners]]\nname = \"a\"\nbind = \"127.0.0.1:1\"\n\
                 [[routes]]\nname = \"r\"\necho = true\n{clusters}"
            );
            let document = crate::config::load("test", &text).unwrap();
            crate::config::compile(&document, 1, 1).unwrap()
        };
        let mut clusters = Clusters::default();
        let before = clusters.keys(&plan(&["a", "b"]));
        let held = clusters.waiting("a");
        assert_eq!(clusters.keys(&plan(&["b", "c"]))[0], before[1], "whatever its place");
        assert_eq!(clusters.keys(&plan(&["a"])), [before[0]], "a core had it still");
        drop(held);
        clusters.keys(&plan(&["c"]));
        assert_ne!(clusters.keys(&plan(&["a"])), [before[0]], "it is another one");
    }
}
