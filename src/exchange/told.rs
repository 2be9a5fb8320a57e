//! An exchange that has ended, in the words of all who are told of it.

use crate::engine;
use crate::events::bus::{self, Event, Kinds};
use crate::exchange::Exchange;
use crate::exchange::capture::Capture;
use crate::exchange::failure::Failure;
use crate::exchange::record::{Record, Timings};
use crate::http::headers::HeaderId;
use crate::limits;
use crate::plan::Action;
use crate::shard::Shard;
use crate::shard::rejected::{self, Rejected};

impl Exchange {
    /// For who asks what clients send that is refused.
    #[cold]
    pub(super) fn remember(&self, failure: Failure) {
        let head = self.input.head();
        let bytes = if head.is_empty() { self.input.unused() } else { head };
        self.shard.rejections.keep(Rejected {
            at: engine::wall_clock(),
            peer: self.origin.peer,
            speaks_for: self.origin.told_source(),
            listener: self.origin.door.key,
            failure,
            phase: self.progress.phase.get(),
            bytes: rejected::masked(bytes, &self.generation.plan.secrets),
            cut: bytes.len() > limits::REJECTED_BYTES_MAX,
        });
    }

    pub(super) fn line<'a>(
        &'a self,
        timings: Timings,
        failure: Option<Failure>,
        capture: Option<&'a Capture>,
    ) -> Record<'a> {
        let (bytes, progress) = (self.input.head(), &self.progress);
        let route = self.route.map(|id| self.generation.route(id));
        let cluster = route.and_then(|route| match &route.action {
            Action::Forward(id) => Some(self.generation.plan.clusters[id.0 as usize].name.as_str()),
            Action::Respond(_) | Action::Redirect(_) | Action::Echo => None,
        });
        let tunnel = route
            .zip(progress.tunnel.get())
            .map(|(route, told)| (route.upgrades.name(told.protocol), told));
        let header = |id| self.head.value(bytes, id).unwrap_or_default();
        Record {
            at: engine::wall_clock(),
            request_id: self.request_id(),
            trace_id: self.trace_id(),
            peer: self.origin.peer,
            client: self.client_address,
            listener: self.listener_name(),
            route: route.map_or("", |route| route.name.as_str()),
            cluster: cluster.unwrap_or_default(),
            endpoint: progress.endpoint.get(),
            method: self.head.method_name.of(bytes),
            target: self.head.target.of(bytes),
            host: self.head.authority.of(bytes),
            version: self.head.version.label(),
            referer: header(HeaderId::Referer),
            user_agent: header(HeaderId::UserAgent),
            scheme: self.origin.scheme(),
            speaks_for: self.origin.told_source(),
            tls: self.origin.client_tls(),
            status: progress.status.get(),
            grpc_status: self.ended_with(failure),
            bytes_received: progress.received.get(),
            bytes_sent: progress.sent.get(),
            body_bytes_sent: progress.body_sent.get(),
            timings,
            attempts: progress.attempts.get(),
            reused: progress.reused.get(),
            failure,
            phase: progress.phase.get(),
            tunnel,
            request_lines: (&self.head.lines, bytes),
            capture: route.and_then(|route| self.generation.plan.capturing(route)).zip(capture),
        }
    }

    /// As its generation has it; a listener that was removed has the name that it had.
    pub(super) fn listener_name(&self) -> &str {
        let door = &self.origin.door;
        self.generation.listener(door.key).map_or(&door.name, |listener| &listener.name)
    }
}

/// Makes the events that somebody wants.
pub(super) fn tell(shard: &Shard, record: &Record<'_>) {
    if shard.events.wants(Kinds::REQUEST) {
        let request = Box::new(bus::Request::of(record));
        shard.events.tell(&shard.mail, Event::Request(request));
    }
    if let Some(failure) = record.failure
        && shard.events.wants(Kinds::FAILURE)
    {
        let failed = Box::new(bus::Failed::of(record, failure));
        shard.events.tell(&shard.mail, Event::Failure(failed));
    }
}
