//! An exchange's place in a trace: read from its headers once its route is known, said to the
//! endpoint by each attempt, told when the exchange ends. All of it sleeps while tracing is off.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use crate::engine;
use crate::exchange::Exchange;
use crate::exchange::failure::Failure;
use crate::exchange::record::{Marks, Record};
use crate::plan::{Route, Tracing, Trust};
use crate::telemetry::trace::span::{Attempt, Identity};
use crate::telemetry::trace::{self, Format, Outgoing};

/// In a box that a connection makes with its first traced exchange and keeps for the others.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// Of this exchange; `None` before its route is known, and where tracing is off.
    place: Option<Place>,
    /// Of the attempt that is under way: what its endpoint is told.
    attempt_id: u64,
    /// That attempt, when it is recorded.
    open: Option<Open>,
    ended: Vec<Attempt>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    identity: Identity,
    sampled: bool,
    keeps_state: bool,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    begin: Instant,
    endpoint: Option<SocketAddr>,
    reused: bool,
    secure: bool,
}

impl Trace {
    /// Ready for the next exchange.
    pub(super) fn clear(&mut self) {
        self.place = None;
        self.open = None;
        self.ended.clear();
    }
}

impl Exchange {
    /// Joins the trace of the request or begins one. `route`: `None` where none was found.
    pub(super) fn begin_trace(&mut self, tracing: &Tracing, route: Option<&Route>) {
        let share = match route {
            Some(route) => match route.tracing {
                Some(share) => share,
                None => return,
            },
            None => tracing.share,
        };
        let bytes = self.input.head();
        let believed = match tracing.trust {
            Trust::All => true,
            Trust::TrustedProxies => self.peer_is_trusted,
        };
        let lines = &self.head.lines;
        let found = believed.then(|| trace::extract(&tracing.propagate, lines, bytes)).flatten();
        let parent = found.and_then(|(_, incoming)| incoming.parent);
        let debug = found.is_some_and(|(_, incoming)| incoming.debug) && tracing.parent;
        let decision = found.and_then(|(_, incoming)| incoming.sampled);
        let random = || u128::from(self.shard.random()) << 64 | u128::from(self.shard.random());
        let trace_id = parent.map_or_else(random, |parent| parent.trace_id);
        let identity = Identity {
            trace_id,
            span_id: self.shard.random(),
            parent_id: parent.map_or(0, |parent| parent.span_id),
            debug,
        };
        let by_parent = decision.filter(|_| tracing.parent);
        let sampled = by_parent.unwrap_or_else(|| share.takes(trace_id));
        let keeps_state = matches!(found, Some((Format::W3c, _)))
            && trace::is_state_valid(&self.head.lines, bytes);
        let trace = self.trace.get_or_insert_default();
        trace.place = Some(Place { identity, sampled, keeps_state });
    }

    /// For an exchange that was refused before a route was looked for.
    pub(super) fn begin_trace_late(&mut self) {
        if self.generation.plan.tracing.is_some()
            && self.trace_id().is_none()
            && self.route.is_none()
        {
            let generation = Rc::clone(&self.generation);
            generation.plan.tracing.iter().for_each(|tracing| self.begin_trace(tracing, None));
        }
    }

    pub(super) fn begin_attempt(&mut self) {
        let Some((trace, place)) = running(&mut self.trace) else { return };
        trace.attempt_id = self.shard.random();
        trace.open = place.sampled.then(|| Open {
            begin: engine::now(),
            endpoint: None,
            reused: false,
            secure: false,
        });
    }

    /// Where the attempt goes, once it is known.
    pub(super) fn attempt_goes_to(
        &mut self,
        endpoint: Option<SocketAddr>,
        reused: bool,
        secure: bool,
    ) {
        if let Some((Trace { open: Some(open), .. }, _)) = running(&mut self.trace) {
            (open.endpoint, open.reused, open.secure) = (endpoint, reused, secure);
        }
    }

    pub(super) fn end_attempt(&mut self, failure: Option<Failure>) {
        let Some((trace, _)) = running(&mut self.trace) else { return };
        let Some(open) = trace.open.take() else { return };
        // Marks of earlier attempts are older than this one.
        let ours = |mark: Option<Instant>| mark.filter(|mark| *mark >= open.begin);
        let marks = Marks {
            begin: open.begin,
            head: Some(open.begin),
            admitted: ours(self.marks.admitted),
            connected: ours(self.marks.connected),
            secured: ours(self.marks.secured),
            uploaded: ours(self.progress.uploaded.get()),
            first_byte: ours(self.marks.first_byte),
        };
        let ([_, spans @ ..], _) = marks.timings(engine::precise_now()).micros();
        let begin = open.begin.saturating_duration_since(self.marks.begin);
        let answered = marks.first_byte.is_some();
        trace.ended.push(Attempt {
            span_id: trace.attempt_id,
            begin: u64::try_from(begin.as_micros()).unwrap_or(u64::MAX),
            spans,
            endpoint: open.endpoint,
            reused: open.reused,
            secure: open.secure,
            status: if answered { self.progress.status.get() } else { 0 },
            failure: failure.map_or("", Failure::label),
        });
    }

    /// What the endpoint of the attempt is told; `None`: trace headers pass as they came.
    pub(super) fn trace_to_send<'a>(&self, tracing: Option<&'a Tracing>) -> Option<Outgoing<'a>> {
        let trace = self.trace.as_deref()?;
        let place = trace.place?;
        Some(Outgoing {
            formats: &tracing?.propagate,
            trace_id: place.identity.trace_id,
            span_id: trace.attempt_id,
            parent_id: place.identity.span_id,
            sampled: place.sampled,
            debug: place.identity.debug,
            keeps_state: place.keeps_state,
        })
    }

    pub(super) fn trace_id(&self) -> Option<u128> {
        self.trace.as_deref()?.place.map(|place| place.identity.trace_id)
    }

    /// Hands what is known to the exporter, if this exchange is one to tell of.
    pub(super) fn tell_trace(&self, record: &Record<'_>) {
        if let Some(trace) = self.trace.as_deref()
            && let Some(Place { identity, sampled: true, .. }) = &trace.place
        {
            let path = self.head.path.of(self.input.head());
            let counters = self.shard.counters();
            self.shard.spans.write(record, identity, path, &trace.ended, counters);
        }
    }

    pub(super) fn is_traced(&self) -> bool {
        let place = self.trace.as_deref().and_then(|trace| trace.place);
        place.is_some_and(|place| place.sampled)
    }
}

fn running(trace: &mut Option<Box<Trace>>) -> Option<(&mut Trace, Place)> {
    let trace = trace.as_deref_mut()?;
    let place = trace.place?;
    Some((trace, place))
}
