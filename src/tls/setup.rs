//! What one data core needs to speak TLS as a plan wants it, in the plan's order. Made where it may
//! take long, and sent: after a plan, after new files, after new ticket keys.

use std::collections::HashMap;

use crate::listener::opening::Opening;
use crate::plan::Plan;
use crate::tls::client::UpstreamTls;
use crate::tls::material::Material;
use crate::tls::tickets::TicketKeys;
use crate::upstream::connect::Connector;

/// Answers of responders, by the fingerprint of the certificate that they are about.
pub(crate) type Staples = HashMap<[u8; 32], Vec<u8>>;

#[derive(Debug, Default)]
pub struct Setup {
    /// By listener.
    pub(crate) openings: Vec<Opening>,
    /// By cluster.
    pub(crate) connectors: Vec<Connector>,
}

impl Setup {
    /// One for each core: none shares anything with another.
    pub(crate) fn for_cores(
        cores: usize,
        plan: &Plan,
        material: &Material,
        keys: &TicketKeys,
        staples: &Staples,
    ) -> Result<Vec<Setup>, String> {
        (0..cores).map(|_| Setup::new(plan, material, keys, staples)).collect()
    }

    fn new(
        plan: &Plan,
        material: &Material,
        keys: &TicketKeys,
        staples: &Staples,
    ) -> Result<Setup, String> {
        let opening = |listener| Opening::new(plan, material, listener, keys, staples);
        let connector = |cluster: &crate::plan::Cluster| {
            let tls = cluster.tls.as_ref();
            let tls = tls.map(|tls| UpstreamTls::new(&cluster.name, tls, material)).transpose()?;
            Ok(Connector { tls, greets: cluster.proxy_protocol })
        };
        Ok(Setup {
            openings: plan.listeners.iter().map(opening).collect::<Result<_, String>>()?,
            connectors: plan.clusters.iter().map(connector).collect::<Result<_, String>>()?,
        })
    }
}
