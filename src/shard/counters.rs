//! What a data core counts: its own cells, on its own cache lines, written with plain stores. The
//! control core reads them whenever it likes.

use crate::engine::{Counter, Level};
use crate::exchange::failure::Failure;
use crate::http2::abuse::Abuse;
use crate::shard::series::Times;
use crate::telemetry::metrics::{ANSWER_SLOTS, Counts, Durations, TUNNEL_KINDS};
use crate::tls::refusal::Reason;

#[derive(Debug)]
#[repr(align(128))] // two lines: the prefetcher fetches them in pairs
pub(crate) struct Counters {
    /// Open client connections. Another core that hands one over counts it here before it arrives.
    pub(crate) connections: Level,
    pub(crate) accepted: Counter,
    pub(crate) handed_over: Counter,
    /// Clients that found the connection limit reached.
    pub(crate) limit_waits: Counter,
    /// Connections of those who are blacklisted.
    pub(crate) blocked: Counter,
    /// Those that still wait.
    pub(crate) limit_waiting: Level,
    /// Idle ones that were told to make room.
    pub(crate) recalled: Counter,
    pub(crate) accept_errors: Counter,
    /// Of TLS, with clients, that ended well; and those of them that went on with a session.
    pub(crate) handshakes: Counter,
    pub(crate) handshakes_resumed: Counter,
    /// Connections that ended before their protocol began, by `Reason`.
    pub(crate) refused: [Counter; Reason::ALL.len()],
    /// HTTP/2 connections that were cut off.
    pub(crate) abuses: [Counter; Abuse::ALL.len()],
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) durations: Times,
    /// By `TunnelKind`.
    pub(crate) tunnels: [Tunnels; TUNNEL_KINDS],
    pub(crate) log_lines_dropped: Counter,
    pub(crate) audit_lines_dropped: Counter,
    pub(crate) spans_dropped: Counter,
    pub(crate) failures: [Counter; Failure::COUNT],
    /// By `metrics::answer_slot`.
    pub(crate) answers: Box<[Counter]>,
}

/// Connections that have gone over to another protocol.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    pub(crate) begun: Counter,
    pub(crate) open: Level,
}

/// What they have gone over to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TunnelKind {
    WebSocket,
    Other,
}

impl Counters {
    pub(crate) fn new() -> Counters {
        Counters {
            connections: Level::default(),
            accepted: Counter::new(),
            handed_over: Counter::new(),
            limit_waits: Counter::new(),
            blocked: Counter::new(),
            limit_waiting: Level::default(),
            recalled: Counter::new(),
            accept_errors: Counter::new(),
            handshakes: Counter::new(),
            handshakes_resumed: Counter::new(),
            refused: [const { Counter::new() }; Reason::ALL.len()],
            abuses: [const { Counter::new() }; Abuse::ALL.len()],
            bytes_in: Counter::new(),
            bytes_out: Counter::new(),
            durations: Times::default(),
            tunnels: Default::default(),
            log_lines_dropped: Counter::new(),
            audit_lines_dropped: Counter::new(),
            spans_dropped: Counter::new(),
            failures: [const { Counter::new() }; Failure::COUNT],
            answers: (0..ANSWER_SLOTS).map(|_| Counter::new()).collect(),
        }
    }

    pub(crate) fn has_tunnels(&self) -> bool {
        self.tunnels.iter().any(|tunnels| tunnels.open.read() > 0)
    }

    /// As plain numbers; what only the core itself knows is added by its report.
    pub(crate) fn read(&self) -> Counts {
        Counts {
            connections: self.accepted.read(),
            connections_active: self.connections.read().max(0) as u64,
            connections_handed_over: self.handed_over.read(),
            connection_limit_waits: self.limit_waits.read(),
            connections_recalled: self.recalled.read(),
            connections_blocked: self.blocked.read(),
            accept_errors: self.accept_errors.read(),
            handshakes: self.handshakes.read(),
            handshakes_resumed: self.handshakes_resumed.read(),
            refused: std::array::from_fn(|index| self.refused[index].read()),
            abuses: std::array::from_fn(|index| self.abuses[index].read()),
            bytes_in: self.bytes_in.read(),
            bytes_out: self.bytes_out.read(),
            panics: 0,
            access_log_dropped_lines: self.log_lines_dropped.read(),
            audit_log_dropped_lines: self.audit_lines_dropped.read(),
            trace_dropped_spans: self.spans_dropped.read(),
            tunnels: self.tunnels.each_ref().map(|tunnels| tunnels.begun.read()),
            tunnels_active: self.tunnels.each_ref().map(|t| t.open.read().max(0) as u64),
            durations: Durations::of(&self.durations),
            failures: std::array::from_fn(|index| self.failures[index].read()),
            answers: self.answers.iter().map(Counter::read).collect(),
        }
    }
}
