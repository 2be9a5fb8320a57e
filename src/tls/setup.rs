//! What one data core needs to speak TLS as a plan wants it, in the plan's order. Made where it may
//! take long, and sent: after a plan, after new files, after new ticket keys.

use std::collections::HashMap;
use std::thread;

use crate::limits;
use crate::listener::opening::Opening;
use crate::plan::Plan;
use crate::tls::client::UpstreamTls;
use crate::tls::material::Material;
use crate::tls::tickets::TicketKeys;
use crate::tls::trust::Trust;
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
        let threads = cores.min(limits::TLS_SETUP_THREADS);
        // Each has keys of its own, and reading one takes a millisecond where it is RSA.
        let making = |first: usize| {
            let own = (first..cores).step_by(threads);
            own.map(|_| Setup::new(plan, material, keys, staples)).collect::<Result<Vec<_>, _>>()
        };
        let panicked = |_| Err("making it has panicked: this is a bug".to_owned());
        let made: Result<Vec<Vec<Setup>>, String> = thread::scope(|scope| {
            let begun: Vec<_> =
                (1..threads).map(|first| scope.spawn(move || making(first))).collect();
            let own = (threads > 0).then(|| making(0));
            let others = begun.into_iter().map(|one| one.join().unwrap_or_else(panicked));
            own.into_iter().chain(others).collect()
        });
        Ok(made?.into_iter().flatten().collect())
    }

    fn new(
        plan: &Plan,
        material: &Material,
        keys: &TicketKeys,
        staples: &Staples,
    ) -> Result<Setup, String> {
        let trust = &mut Trust::new(material);
        let opening = |listener| Opening::new(plan, trust, listener, keys, staples);
        let openings = plan.listeners.iter().map(opening).collect::<Result<_, String>>()?;
        let connector = |cluster: &crate::plan::Cluster| {
            let tls = cluster.tls.as_ref();
            let protocol = cluster.protocol;
            let tls = tls.map(|tls| UpstreamTls::new(&cluster.name, tls, protocol, trust));
            let (tls, http2) = (tls.transpose()?, cluster.http2);
            Ok(Connector { tls, greets: cluster.proxy_protocol, protocol, http2 })
        };
        let connectors = plan.clusters.iter().map(connector).collect::<Result<_, String>>()?;
        Ok(Setup { openings, connectors })
    }
}
