//! Whether the process is ready for new clients, decided from its own state: what it was told, and
//! whether its clusters have addresses. Data cores that answer health pages are told of changes.

use std::net::SocketAddr;

use crate::control::Control;
use crate::control::drain::State;
use crate::control::message::ToShard;
use crate::control::overrides::Admission;
use crate::engine;
use crate::grpc::health::KnownService;
use crate::limits;
use crate::plan::{Address, Cluster};
use crate::telemetry::health::Health;
use crate::telemetry::json;

const READY: &str = "ready";

impl Control {
    /// Not ready: out of service, or no cluster has a single address that takes exchanges. One
    /// cluster without any is no reason to take the others away from their clients.
    pub(crate) fn health(&self) -> Health {
        let state = self.state();
        let mut checks = Vec::new();
        json::name("config", &mut checks);
        let refused = self.last_reload().is_some_and(|last| last.outcome.is_err());
        // What runs is the last good one: worth an alarm, not worth its traffic.
        json::string(if refused { b"reload_refused" } else { b"ok" }, &mut checks);
        checks.push(b',');
        json::name("service", &mut checks);
        json::string(state.label().as_bytes(), &mut checks);
        checks.push(b',');
        self.check_certificates(&mut checks);
        checks.push(b',');
        json::name("backends", &mut checks);
        checks.push(b'[');
        let (mut known, mut ready, mut shown) = (0, 0, 0);
        let mut reachable_clusters = Vec::new();
        for cluster in &self.plan().clusters {
            let before = ready;
            for endpoint in &cluster.endpoints {
                known += 1;
                let status = self.backend_status(&cluster.name, &endpoint.address);
                ready += usize::from(status == READY);
                if shown < limits::HEALTH_BACKENDS_MAX {
                    backend(cluster, &endpoint.address, status, shown > 0, &mut checks);
                    shown += 1;
                }
            }
            reachable_clusters.push(ready > before);
        }
        checks.push(b']');
        let reachable = known == 0 || ready > 0;
        let is_served = |known: &&KnownService| {
            known.clusters.iter().any(|id| reachable_clusters[id.0 as usize])
        };
        let plan = self.plan();
        let services = plan.health_grpc.as_deref().unwrap_or_default();
        let unserved = services.iter().filter(|known| !is_served(known));
        let unserved = unserved.map(|known| known.name.clone()).collect();
        Health { ready: state == State::Running && reachable, checks, unserved }
    }

    /// One that has expired is shown all the same: worth an alarm, not worth its traffic.
    fn check_certificates(&self, checks: &mut Vec<u8>) {
        let expired = self.expired_certificates(engine::wall_clock());
        let all_used = self.broken_files().is_empty() && self.unusable_files().is_none();
        let state = match (expired.is_empty(), all_used) {
            (false, _) => "expired",
            (true, false) => "reload_refused",
            (true, true) => "ok",
        };
        json::name("certificates", checks);
        json::string(state.as_bytes(), checks);
        checks.push(b',');
        json::name("expired_certificates", checks);
        checks.push(b'[');
        for (index, file) in expired.iter().take(limits::HEALTH_CERTIFICATES_MAX).enumerate() {
            if index > 0 {
                checks.push(b',');
            }
            json::string(file.as_os_str().as_encoded_bytes(), checks);
        }
        checks.push(b']');
    }

    /// One address that takes exchanges is enough.
    fn backend_status(&self, cluster: &str, address: &Address) -> &'static str {
        let addresses = self.watch.addresses(address);
        let takes = |found: &SocketAddr| {
            let said = self.override_of(cluster, address, Some(*found));
            said.is_none_or(|said| said.admission == Admission::Ready)
        };
        match (addresses.is_empty(), addresses.iter().any(takes)) {
            (true, _) => "unresolved",
            (false, true) => READY,
            (false, false) => "drained",
        }
    }

    /// To be called when anything that it says may have changed.
    pub(crate) fn publish_health(&self) {
        let plan = self.plan();
        if plan.health_on_listeners || plan.health_grpc.is_some() {
            let mut health = self.health();
            // Whoever may reach a listener need not learn what is behind it.
            if !plan.health_listener_details {
                health.checks.clear();
            }
            self.to_shards(|| ToShard::Health(health.clone()));
        }
    }
}

fn backend(cluster: &Cluster, address: &Address, status: &str, comma: bool, out: &mut Vec<u8>) {
    if comma {
        out.push(b',');
    }
    let scheme = if cluster.tls.is_some() { "https" } else { "http" };
    let url = match address {
        Address::Ip(address) => format!("{scheme}://{address}"),
        Address::Name(name, port) => format!("{scheme}://{name}:{port}"),
    };
    out.push(b'{');
    json::name("url", out);
    json::string(url.as_bytes(), out);
    out.push(b',');
    json::name("cluster", out);
    json::string(cluster.name.as_bytes(), out);
    out.push(b',');
    json::name("status", out);
    json::string(status.as_bytes(), out);
    out.push(b'}');
}
