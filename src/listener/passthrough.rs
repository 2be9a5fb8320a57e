//! A connection whose TLS is not ended here: its bytes go to a cluster and back as they are, from
//! pipe to pipe, until both sides have said that they are done.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use crate::engine::{self, Side};
use crate::exchange::carry::{Carrier, Direction};
use crate::exchange::failure::Failure;
use crate::exchange::record::{Marks, Phase, Record, Timings};
use crate::limits;
use crate::listener::greeting::greeting;
use crate::plan::ClusterId;
use crate::shard::{Origin, Shard};
use crate::tls::stream::Stream;
use crate::upstream::connect::{Greet, Patience};
use crate::upstream::lease::Lease;
use crate::upstream::pool::{Stage, Wanted};

pub(super) async fn run(shard: &Rc<Shard>, origin: &Origin, client: &Stream, cluster: &str) {
    let mut passed = Passed::new(shard, origin, cluster);
    let carried = passed.carry(client).await;
    passed.phase = if carried.is_ok() { Phase::Done } else { passed.phase };
    passed.failure = carried.err();
    if passed.failure.is_some() {
        // Nothing can be said in a protocol that is not ours, and one that was cut must not look as
        // if it had ended.
        client.set_reset_on_close(true);
    }
    drop(passed);
    shard.log.room(shard).await;
}

/// What is known of such a connection. Told when it is dropped.
struct Passed<'a> {
    shard: &'a Rc<Shard>,
    origin: &'a Origin,
    cluster: &'a str,
    request_id: [u8; 32],
    marks: Marks,
    first_byte: Cell<Option<Instant>>,
    phase: Phase,
    failure: Option<Failure>,
    endpoint: Option<SocketAddr>,
    attempts: u8,
    received: Cell<u64>,
    sent: Cell<u64>,
    /// When anything was last heard of either side.
    last: Cell<Instant>,
}

impl<'a> Passed<'a> {
    fn new(shard: &'a Rc<Shard>, origin: &'a Origin, cluster: &'a str) -> Passed<'a> {
        let now = engine::now();
        let since = shard.connections.since(origin.seat).unwrap_or(now);
        shard.connections.begins(origin.seat, now);
        let mut request_id = [0; 32];
        shard.new_request_id(&mut request_id);
        Passed {
            shard,
            origin,
            cluster,
            request_id,
            marks: Marks { head: Some(now), ..Marks::at(since) },
            first_byte: Cell::new(None),
            phase: Phase::Queue,
            failure: None,
            endpoint: None,
            attempts: 0,
            received: Cell::new(0),
            sent: Cell::new(0),
            last: Cell::new(now),
        }
    }

    async fn carry(&mut self, client: &Stream) -> Result<(), Failure> {
        let lease = Box::pin(self.connect(client)).await?;
        let endpoint = lease.stream();
        let now = engine::now();
        (self.marks.connected, self.marks.secured) = (Some(now), Some(now));
        self.marks.uploaded = Some(now);
        self.phase = Phase::Passing;
        self.last.set(now);
        let up = self.pump(Direction::Up, client, endpoint);
        let down = self.pump(Direction::Down, endpoint, client);
        let carried = both(up, down).await;
        if carried.is_err() {
            endpoint.set_reset_on_close(true);
        }
        carried
    }

    /// Another endpoint when one cannot be reached: nothing was said to it yet.
    async fn connect(&mut self, client: &Stream) -> Result<Lease, Failure> {
        let generation = self.shard.generation();
        let plan = &generation.plan;
        let id = plan.clusters.iter().position(|cluster| cluster.name == self.cluster);
        // The listener is of an older plan, and on its way out.
        let id = id.ok_or(Failure::NoEndpoint)?;
        let (cluster, timeouts) =
            (generation.cluster(ClusterId(id as u32)), plan.clusters[id].timeouts);
        let greet = |version| greeting(version, self.origin, client.local_address());
        let mut refused = Vec::new();
        loop {
            self.attempts += 1;
            let patience = Patience { connect: timeouts.connect, write: plan.timeouts.write };
            let with = (patience, &greet as Greet<'_>);
            let (marks, phase) = (&mut self.marks, &mut self.phase);
            let acquiring =
                cluster.acquire(Wanted::Bare, &refused, with, |stage, now| match stage {
                    Stage::Admitted => (marks.admitted, *phase) = (Some(now), Phase::Connect),
                    Stage::Connected => {}
                });
            match acquiring.await {
                Ok(lease) => {
                    self.endpoint = Some(lease.address());
                    return Ok(lease);
                }
                Err((not, address)) => {
                    self.endpoint = address.or(self.endpoint);
                    refused.extend(address);
                    let again = address.is_some()
                        && cluster.has_another(&refused)
                        && refused.len() < limits::CONNECT_ATTEMPTS_MAX;
                    let series = cluster.series();
                    if !again {
                        series.failures[not.failure.index()].add(1);
                        return Err(not.failure);
                    }
                    series.retries[not.failure.index()].add(1);
                }
            }
        }
    }

    /// One way, to its end; the other side hears of that.
    async fn pump(&self, direction: Direction, from: &Stream, to: &Stream) -> Result<(), Failure> {
        let mut carrier = Carrier::new(from, to);
        let mut turns = 0;
        loop {
            from.set_deadline(Side::Read, Some(limits::PASSTHROUGH_IDLE_TIMEOUT));
            let count = match carrier.take(from, u64::MAX).await {
                Ok(Some(0)) => {
                    to.finish();
                    return Ok(());
                }
                Ok(Some(count)) => count,
                Ok(None) => continue,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    if engine::now() - self.last.get() < limits::PASSTHROUGH_IDLE_TIMEOUT {
                        continue; // silent, while the other way goes on
                    }
                    return Err(Failure::IdleTimeout);
                }
                Err(_) => return Err(direction.lost()),
            };
            self.last.set(engine::now());
            let given = carrier.give(to, limits::PASSTHROUGH_IDLE_TIMEOUT, |_| true).await;
            given.map_err(|error| direction.not_taken(&error.cause))?;
            self.last.set(engine::now());
            self.count(direction, count as u64);
            turns += 1;
            if turns % limits::IO_PER_TURN == 0 {
                engine::yield_now().await;
            }
        }
    }

    fn count(&self, direction: Direction, count: u64) {
        let (counters, cells) = (self.shard.counters(), self.origin.door.cells());
        match direction {
            Direction::Up => {
                self.received.set(self.received.get() + count);
                counters.bytes_in.add(count);
                cells.traffic.bytes_in.add(count);
                self.shard.connections.passes(self.origin.seat, count, 0);
            }
            Direction::Down => {
                self.first_byte.set(self.first_byte.get().or(Some(self.last.get())));
                self.sent.set(self.sent.get() + count);
                counters.bytes_out.add(count);
                cells.traffic.bytes_out.add(count);
                self.shard.connections.passes(self.origin.seat, 0, count);
            }
        }
    }

    fn record<'r>(&'r self, listener: &'r str, timings: Timings) -> Record<'r> {
        Record {
            at: engine::wall_clock(),
            request_id: &self.request_id,
            trace_id: None,
            peer: self.origin.peer,
            client: self.origin.speaks_for().ip().to_canonical(),
            listener,
            route: "",
            cluster: self.cluster,
            endpoint: self.endpoint,
            method: b"",
            target: b"",
            host: self.origin.host().unwrap_or_default().as_bytes(),
            version: "TLS",
            referer: b"",
            user_agent: b"",
            scheme: "tls",
            speaks_for: self.origin.told_source(),
            tls: self.origin.client_tls(),
            grpc_status: None,
            status: 0,
            bytes_received: self.received.get(),
            bytes_sent: self.sent.get(),
            body_bytes_sent: self.sent.get(),
            timings,
            attempts: self.attempts,
            reused: false,
            failure: self.failure,
            phase: self.phase,
            tunnel: None,
            request_lines: (&[], b""),
            capture: None,
        }
    }
}

impl Drop for Passed<'_> {
    /// Counts it, and writes its line to the access log. One that is cut when a drain takes too
    /// long, or by a panic, is told of as well.
    fn drop(&mut self) {
        if self.failure.is_none() && self.phase != Phase::Done {
            let is_draining = self.shard.life.is_draining();
            self.failure = Some(if is_draining { Failure::Draining } else { Failure::Internal });
        }
        self.shard.stir();
        if let Some(failure) = self.failure {
            self.shard.counters().failures[failure.index()].add(1);
        }
        let marks = Marks { first_byte: self.first_byte.get(), ..self.marks };
        let timings = marks.timings(engine::precise_now());
        // It may have lasted for days, and holds no generation: the newest says where it is told.
        let generation = self.shard.generation();
        let plan = &generation.plan;
        let Some(log) = &plan.access_log else { return };
        let failed = self.failure.is_some();
        if log.sampling.takes(|| self.request_id.as_slice(), failed, timings.total) {
            let door = &self.origin.door;
            let listener = generation.listener(door.key);
            let listener = listener.map_or(&door.name, |listener| &listener.name);
            self.shard.log.write(log, plan.version, &self.record(listener, timings), self.shard);
        }
    }
}

/// Until both have ended, or one has failed.
async fn both(
    one: impl Future<Output = Result<(), Failure>>,
    other: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut one_is_over, mut other_is_over) = (false, false);
    std::future::poll_fn(|context| {
        if !one_is_over && let Poll::Ready(result) = one.as_mut().poll(context) {
            result?;
            one_is_over = true;
        }
        if !other_is_over && let Poll::Ready(result) = other.as_mut().poll(context) {
            result?;
            other_is_over = true;
        }
        match one_is_over && other_is_over {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    })
    .await
}
