//! Everything that cores say to each other. What is not here is not shared.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustls_pki_types::ServerName;

use crate::control::overrides::Admission;
use crate::engine::{CoreState, Level, Permits, Shared};
use crate::events::bus::{Event, Kinds, Lost};
use crate::events::queue::Producer;
use crate::events::span_queue::SpanProducer;
use crate::listener::blacklist::Blocked;
use crate::plan::{ClusterKey, ListenerKey, Network, Plan};
use crate::shard::connections::Listed;
use crate::shard::rejected::Rejected;
use crate::shard::series::{ClusterCells, EndpointCells, SeriesShare};
use crate::telemetry::exemplars::{Buckets, Subject};
use crate::telemetry::health::Health;
use crate::telemetry::tap::Tap;
use crate::tls::setup::Setup;
use crate::upstream::tally::Tallied;

/// To a data core.
#[derive(Debug)]
pub enum ToShard {
    /// From the control core: take this generation. Answered by `Installed`.
    Install(Box<Install>),
    /// From the control core: a cluster's names have new addresses.
    Endpoints(ClusterKey, Vec<EndpointShare>),
    /// From the control core: end the exchanges of all generations up to this version.
    Retire(u64),
    /// From the control core: answered by `State`, with the same number.
    Report(u64),
    /// From the control core: answered by `Findings` with the same number.
    Question(u64, Question),
    /// From the control core: whether to keep connections open, and to call itself ready.
    Service(Service),
    /// For the plan of this version.
    Tls(u64, Box<Setup>),
    /// From the control core: what health pages on listeners say from now on.
    Health(Health),
    /// From the control core: which events somebody wants now.
    WantEvents(Kinds),
    /// From the control core: show these exchanges, or no more.
    Tap(Option<Box<Tap>>),
    /// From the control core: who may not connect from now on.
    Blacklist(Shared<Blocked>),
    /// From the control core: answered by `Lent` with the same number.
    LendSockets(u64),
    /// From the control core: stop accepting, finish what runs. Answered by `Drained`.
    Drain {
        /// Another process accepts from these now: what is queued there is its own.
        handed_over: Vec<ListenerKey>,
    },
    /// From the control core: the drain has lasted long enough. Those who can be told so are.
    Part,
    /// From the control core: whoever had taken over is gone, so accept again, from these. Answered
    /// by `TakesAgain`.
    TakeAgain(Vec<(ListenerKey, TcpListener)>),
    /// From the control core: end now, whatever runs.
    Stop,
    /// From another data core, which has more connections: nothing was read from it yet.
    Connection(ListenerKey, OwnedFd, SocketAddr),
    /// From another data core: a client waits there, for want of what idle ones hold. Who has none
    /// to close passes it on.
    MakeRoom(Room),
    /// From another data core: a connection slot of this cluster may be free.
    SlotFree(ClusterKey),
    /// From another data core: exchanges wait there for a slot that an idle connection here holds.
    Recall(ClusterKey),
}

/// Whether the process is in service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    #[default]
    Serving,
    /// Not ready any more; connections are kept.
    Leaving,
    /// Every answer closes its connection, idle ones are closed.
    Closing,
}

/// What an operator wants to know of every core.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// Only that it has read its mail up to here: letters do not overtake each other.
    Nothing,
    Clusters,
    /// So many of them, and how many each listener has.
    Connections(usize),
    Rejected,
    ForgetRejected,
    Exemplars,
}

#[derive(Debug)]
pub enum Findings {
    Nothing,
    /// Of the newest generation.
    Clusters(Vec<(ClusterKey, Vec<EndpointState>)>),
    Connections {
        list: Vec<Listed>,
        open: Vec<(ListenerKey, u64)>,
    },
    Rejected(Vec<Rejected>),
    Forgotten(usize),
    Exemplars(Vec<(Subject, Buckets)>),
}

/// An endpoint as one core sees it.
#[derive(Debug)]
pub struct EndpointState {
    pub address: SocketAddr,
    pub open: u64,
    pub idle: u64,
    pub tallied: Tallied,
}

/// Room for a client, made by closing an idle one.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// The core where it waits.
    pub wanted_by: usize,
    pub shortage: Shortage,
    /// Nobody has one that is parked for long: those that have just had an answer go as well.
    pub briefly_too: bool,
}

/// What there is too little of for another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Of `limits.max_concurrent_connections`.
    Connections,
    Descriptors,
}

/// To the control core.
#[derive(Debug)]
pub enum ToControl {
    Installed {
        core: usize,
        version: u64,
    },
    /// This core has closed its socket of a listener that was removed.
    ListenerClosed(ListenerKey),
    /// What has happened, and how many events were lost before.
    Events {
        events: Vec<Event>,
        lost: Lost,
    },
    /// How often the blacklist has turned somebody away, since last time.
    Blocked(Vec<(Network, u64)>),
    /// Duplicates of all listening sockets of this core, for the upgrade of this number.
    Lent(u64, Vec<(ListenerKey, TcpListener)>),
    State {
        core: usize,
        state: Box<ShardState>,
    },
    Findings {
        core: usize,
        number: u64,
        findings: Box<Findings>,
    },
    /// Said again when a connection from another core arrived after it.
    Drained {
        core: usize,
    },
    /// It has these sockets, and has said before this whatever it said of draining.
    TakesAgain {
        core: usize,
    },
    /// Clients wait for room in `limits.max_concurrent_connections`. Said about once a second.
    Full,
    /// Something that no exchange tells of. At most once a second for each kind.
    Trouble(Box<Trouble>),
    /// The kernel has nothing to accept connections with. Said about once a second.
    CannotAccept(io::Error),
    /// Its engine could not be started, or ended by an error.
    Failed {
        core: usize,
        reason: String,
    },
}

/// Why a connection has ended before its protocol began, or was cut off.
#[derive(Debug)]
pub struct Trouble {
    /// `None`: the peer is an endpoint.
    pub listener: Option<ListenerKey>,
    /// Or whom it speaks for.
    pub peer: SocketAddr,
    /// The peer itself, when it speaks for another.
    pub through: Option<SocketAddr>,
    pub label: &'static str,
    pub detail: String,
    /// So many of the kind were not told of before this one.
    pub untold: u64,
    /// Nobody wants to know, unless they look for it.
    pub quiet: bool,
    /// For what it did while it was served.
    pub was_served: bool,
}

/// One core's part of a new generation.
#[derive(Debug)]
pub struct Install {
    pub plan: Shared<Plan>,
    /// By `ClusterId`.
    pub clusters: Vec<ClusterShare>,
    pub series: SeriesShare,
    /// Of every listener of the plan, in its order.
    pub listener_keys: Vec<ListenerKey>,
    /// Those that are new. Those that the plan has no more are closed.
    pub sockets: Vec<(ListenerKey, TcpListener)>,
    /// With the first generation only: the publisher finds the files of all others.
    pub log: Option<Producer>,
    pub spans: SpanChange,
    pub(crate) tls: Setup,
}

/// Where the spans of this core's traced exchanges go from now on.
#[derive(Debug)]
pub enum SpanChange {
    Same,
    /// One for each collector. None: only headers are wanted, or nothing.
    To(Vec<SpanProducer>),
}

#[derive(Debug)]
pub struct ClusterShare {
    pub key: ClusterKey,
    /// Exchanges of the whole process that wait for a connection.
    pub waiting: Shared<Level>,
    pub(crate) series: Shared<ClusterCells>,
    pub endpoints: Vec<EndpointShare>,
}

/// An address that requests may be sent to. A name has as many as it resolves to.
#[derive(Debug)]
pub struct EndpointShare {
    pub address: SocketAddr,
    /// Who it is, to TLS.
    pub name: ServerName<'static>,
    pub weight: u32,
    /// Whatever its weight.
    pub admission: Admission,
    /// `None`: no maximum.
    pub permits: Option<Shared<Permits>>,
    pub(crate) series: Shared<EndpointCells>,
}

/// What a core hands over when asked: its machine. What it counts is read where it is.
#[derive(Debug)]
pub struct ShardState {
    /// Of the `Report` that this answers.
    pub round: u64,
    pub core: CoreState,
    /// Newest first.
    pub generations: Vec<GenerationState>,
}

/// A generation that is alive on one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationState {
    pub version: u64,
    /// That began with it and go on.
    pub exchanges: u64,
}
