//! A plan and the state that its ids name, on one core. An exchange keeps the generation that it
//! began with.

use std::rc::Rc;

use crate::control::message::ClusterShare;
use crate::engine::Shared;
use crate::plan::{self, ClusterId, ListenerId, Plan, RouteId};
use crate::shard::mail::Mail;
use crate::shard::series::{Series, SeriesShare};
use crate::upstream::pool::Cluster;

pub(crate) struct Generation {
    pub(crate) plan: Shared<Plan>,
    pub(crate) series: Series,
    clusters: Vec<Rc<Cluster>>,
}

impl Generation {
    pub(crate) fn new(
        plan: Shared<Plan>,
        shares: Vec<ClusterShare>,
        series: SeriesShare,
        mail: &Rc<Mail>,
    ) -> Generation {
        let clusters = plan
            .clusters
            .iter()
            .zip(shares)
            .enumerate()
            .map(|(id, (cluster, share))| {
                Cluster::new(ClusterId(id as u32), cluster, share, Rc::clone(mail))
            })
            .collect();
        Generation { plan, series: Series::new(series), clusters }
    }

    pub(crate) fn cluster(&self, id: ClusterId) -> &Rc<Cluster> {
        &self.clusters[id.0 as usize]
    }

    pub(crate) fn clusters(&self) -> &[Rc<Cluster>] {
        &self.clusters
    }

    pub(crate) fn route(&self, id: RouteId) -> &plan::Route {
        &self.plan.routes[id.0 as usize]
    }

    pub(crate) fn listener(&self, id: ListenerId) -> &plan::Listener {
        &self.plan.listeners[id.0 as usize]
    }
}
