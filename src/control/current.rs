//! The plan in force, and what it is called by those who live longer than it.

use crate::control::Control;
use crate::engine::Shared;
use crate::plan::{ClusterKey, ListenerKey, Plan};

/// The plan in force, and the keys of what it names, in its order.
pub(super) struct Current {
    pub(super) plan: Shared<Plan>,
    pub(super) cluster_keys: Vec<ClusterKey>,
    pub(super) listener_keys: Vec<ListenerKey>,
}

/// What operators call the listeners of the plan in force.
pub(crate) struct ListenerNames(Vec<(ListenerKey, String)>);

impl ListenerNames {
    pub(crate) fn of(&self, key: ListenerKey) -> String {
        let found = self.0.iter().find(|(known, _)| *known == key);
        found.map_or_else(|| "(removed)".to_owned(), |(_, name)| name.clone())
    }
}

impl Control {
    /// Of the clusters of the plan in force, in its order.
    pub(crate) fn cluster_keys(&self) -> Vec<ClusterKey> {
        self.current.borrow().cluster_keys.clone()
    }

    pub(crate) fn listener_names(&self) -> ListenerNames {
        let current = self.current.borrow();
        let names = current.plan.listeners.iter().map(|listener| listener.name.clone());
        ListenerNames(current.listener_keys.iter().copied().zip(names).collect())
    }

    /// Of the listeners of the plan in force, in its order.
    pub(crate) fn listener_keys(&self) -> Vec<ListenerKey> {
        self.current.borrow().listener_keys.clone()
    }
}
