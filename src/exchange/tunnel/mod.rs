//! A connection that has gone over to another protocol: bytes both ways until both sides have said
//! all, with time limits of its own. A WebSocket is asked to go (status 1001) before it is cut, and
//! pinged when the route says so. Knows two ends and not what carries them.

mod end;
pub(crate) mod handshake;
mod pump;
pub mod websocket;

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::engine::{self, Sleep};
use crate::exchange::carry::Direction;
use crate::exchange::client::{Client, Speaks};
use crate::exchange::count::Meter;
use crate::exchange::failure::{Failure, Side};
use crate::exchange::record::Phase;
use crate::exchange::tunnel::end::{End, UpstreamEnd};
use crate::exchange::tunnel::handshake::Asked;
use crate::exchange::tunnel::pump::Pump;
use crate::exchange::tunnel::websocket::{Close, Frames, GOING_AWAY, Word};
use crate::exchange::{Ending, Exchange, Progress, relay};
use crate::http::head::{Framing, Keep, Method, ResponseHead, Version};
use crate::http1::encode;
use crate::http1::parse::{self, HeadLimits, Parsed};
use crate::limits;
use crate::plan::{Plan, Upgrades};
use crate::shard::Shard;
use crate::shard::counters::TunnelKind;
use crate::shard::generation::Generation;
use crate::upstream::lease::{Lease, Upstream};

/// What an endpoint has agreed to, before the client knows.
pub(crate) struct Switched {
    lease: Lease,
    asked: Asked,
    head: ResponseHead,
    /// Of the endpoint: its 101, and what has come behind it.
    answer: Vec<u8>,
}

/// What is remembered of a tunnel beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Of the route's.
    pub protocol: u8,
    /// Who was the first to say goodbye, or to say no more.
    pub ended_by: Option<Side>,
    /// The status of a WebSocket's goodbye.
    pub close: Option<u16>,
}

impl Exchange {
    /// Whether the request that is about to be forwarded is to say that it wants another protocol.
    #[cold]
    pub(super) fn ask_to_switch(&mut self, upgrades: &Upgrades) -> Result<(), Failure> {
        self.asked = Asked::find(&self.head, self.input.head(), upgrades);
        if self.asked.is_none() && self.wants_tunnel_only() {
            return Err(Failure::MethodRefused);
        }
        if self.asked.is_some() {
            // Behind its request a client may speak the other protocol as soon as it likes. Where
            // it is declined, that must not be taken for a request.
            self.head.keep = Keep::Close;
        }
        Ok(())
    }

    /// No endpoint takes an upgrade: whether the request is one without it too. Who asks for a
    /// WebSocket wants nothing else.
    #[cold]
    pub(super) fn ask_no_more(&mut self) -> bool {
        let goes_without =
            self.asked.is_some_and(|asked| !asked.is_websocket()) && !self.wants_tunnel_only();
        if goes_without {
            self.asked = None;
        }
        goes_without
    }

    /// A CONNECT of HTTP/2: no other answer than a tunnel would be a success (RFC 8441 section 4).
    #[cold]
    pub(super) fn wants_tunnel_only(&self) -> bool {
        self.head.version == Version::Http2 && !self.head.upgrade.is_empty()
    }

    /// The endpoint has answered 101, or 2xx on a stream of HTTP/2.
    #[cold]
    pub(super) fn switch(&mut self, lease: Lease, mut answer: Vec<u8>) -> Result<Ending, Failure> {
        let asked = self.asked.ok_or(Failure::UpstreamMalformed)?;
        let parsed =
            |answer: &[u8]| parsed(&self.generation.plan, answer).ok_or(Failure::UpstreamMalformed);
        let mut head = parsed(&answer)?;
        if let Upstream::Http2(_) = lease.upstream() {
            answer = handshake::as_switch(asked, self.input.head(), &head, &answer);
            head = parsed(&answer)?;
        }
        if !asked.is_met(self.input.head(), &head, &answer) {
            return Err(Failure::UpstreamMalformed);
        }
        if let Upstream::Http2(_) = lease.upstream() {
            head.version = Version::Http2;
        }
        self.switched = Some(Box::new(Switched { lease, asked, head, answer }));
        Ok(Ending::Tunnel)
    }
}

/// It was parsed before, with the same limits.
fn parsed(plan: &Plan, answer: &[u8]) -> Option<ResponseHead> {
    let limits = HeadLimits {
        url_bytes_max: plan.limits.url_bytes_max,
        header_bytes_max: limits::UPSTREAM_HEADER_BYTES_MAX,
        headers_max: limits::UPSTREAM_HEADERS_MAX,
    };
    let mut head = ResponseHead::default();
    let parsed = parse::response(answer, Method::Get, &limits, &mut head);
    (parsed == Ok(Parsed::Complete)).then_some(head)
}

/// From the 101 to the end. Nothing else limits the time of it: not the route, not the timeouts of
/// bodies.
pub(super) async fn run(
    shard: &Rc<Shard>,
    client: &Client,
    exchange: &mut Exchange,
    switched: Box<Switched>,
) -> Result<Ending, Failure> {
    let generation = Rc::clone(&exchange.generation);
    let id = exchange.route.ok_or(Failure::Internal)?;
    let route = generation.route(id);
    let Switched { lease, asked, mut head, mut answer } = *switched;
    let early = exchange.input.take_rest();
    let progress = &exchange.progress;
    progress.tunnel.set(Some(Told { protocol: asked.protocol, ..Told::default() }));
    let plan = &generation.plan;
    send_head(shard, client, exchange, (asked, &mut head, &answer)).await?;
    answer.drain(..head.bytes);
    drop(head);
    let is_websocket = route.upgrades.is_websocket(asked.protocol);
    let origin = &client.origin;
    let now = engine::now();
    let tunnel = Tunnel {
        shard,
        generation: &generation,
        rules: &route.upgrades,
        is_websocket,
        patience: plan.timeouts.write,
        meter: Meter { shard, origin, route: generation.series.route(Some(id)), progress },
        last: Cell::new(now),
        heard: Cell::new(now),
        owes_ping: Cell::new(false),
        leaving: Cell::new(None),
        goodbyes: Cell::new([false; 2]),
    };
    let _open =
        Open::new(shard, if is_websocket { TunnelKind::WebSocket } else { TunnelKind::Other });
    if matches!(client.speaks, Speaks::Http1(_)) {
        shard.connections.switches(origin.seat, now);
    }
    let result = match (&client.speaks, lease.upstream()) {
        (Speaks::Http1(client), Upstream::Http1(upstream)) => {
            tunnel.run((client, early), (upstream, answer)).await
        }
        (Speaks::Http2(client), Upstream::Http1(upstream)) => {
            tunnel.run((client, early), (upstream, answer)).await
        }
        // In boxes, so that the others stay small.
        (Speaks::Http1(client), Upstream::Http2(upstream)) => {
            let upstream = UpstreamEnd::new(upstream);
            Box::pin(tunnel.run((client, early), (&upstream, answer))).await
        }
        (Speaks::Http2(client), Upstream::Http2(upstream)) => {
            let upstream = UpstreamEnd::new(upstream);
            Box::pin(tunnel.run((client, early), (&upstream, answer))).await
        }
    };
    result.map(|()| Ending::Close)
}

/// To a client of HTTP/2 that is a 200 without a word of HTTP/1.1's (RFC 8441 section 5).
async fn send_head(
    shard: &Shard,
    client: &Client,
    exchange: &Exchange,
    (asked, head, answer): (Asked, &mut ResponseHead, &[u8]),
) -> Result<(), Failure> {
    let (plan, progress) = (&exchange.generation.plan, &exchange.progress);
    let route = exchange.route.map(|id| exchange.generation.route(id));
    let route = route.ok_or(Failure::Internal)?;
    let mut work = shard.workspaces.take();
    let (version, id, edits) = (exchange.head.version, &plan.proxy_id, &route.response_headers);
    let (framing, keep) = (Framing::None, Keep::Open);
    let is_stream = matches!(client.speaks, Speaks::Http2(_));
    if is_stream {
        handshake::without_switch(head, answer);
    }
    encode::response(&mut work.out, head, answer, framing, keep, version, id, edits);
    if !is_stream {
        handshake::switch(asked.name(exchange.input.head()), &mut work.out);
    }
    progress.note_response_head(plan.capturing(route), &work.out);
    progress.status.set(head.status);
    progress.phase.set(Phase::Passing);
    progress.head_sent.set(true);
    // Only closing tells its end: one that is cut must not look as if it had ended.
    progress.framing.set(Framing::UntilClose);
    match &client.speaks {
        Speaks::Http1(stream) => {
            let parts = [&work.out[..], b"", b""];
            relay::send_to_client(stream, &parts, &plan.timeouts, progress).await
        }
        Speaks::Http2(call) => {
            call.send_head(&work.out, false)?;
            progress.sent.set(progress.sent.get() + work.out.len() as u64);
            Ok(())
        }
    }
}

/// One that is open, in the numbers of its core.
struct Open<'s> {
    shard: &'s Shard,
    kind: TunnelKind,
}

impl<'s> Open<'s> {
    fn new(shard: &'s Shard, kind: TunnelKind) -> Open<'s> {
        let counters = &shard.counters().tunnels[kind as usize];
        counters.begun.add(1);
        counters.open.add(1);
        Open { shard, kind }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.shard.counters().tunnels[self.kind as usize].open.add(-1);
    }
}

/// What both ways know.
struct Tunnel<'a> {
    shard: &'a Shard,
    generation: &'a Generation,
    rules: &'a Upgrades,
    is_websocket: bool,
    /// How long a peer may take nothing.
    patience: Duration,
    meter: Meter<'a>,
    /// When bytes last came or went.
    last: Cell<Instant>,
    /// When the client was last heard of, or pinged.
    heard: Cell<Instant>,
    owes_ping: Cell<bool>,
    leaving: Cell<Option<Leaving>>,
    /// Whether a goodbye has passed, up and down.
    goodbyes: Cell<[bool; 2]>,
}

/// It ends, and has a moment for saying so.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    /// `None`: all is said already.
    failure: Option<Failure>,
    until: Instant,
}

impl Tunnel<'_> {
    /// Each end with what it has said already.
    async fn run<C: End, U: End>(
        &self,
        (client, early): (&C, Vec<u8>),
        (upstream, answer): (&U, Vec<u8>),
    ) -> Result<(), Failure> {
        client.begin();
        upstream.begin();
        let result = self.pump_both((client, early), (upstream, answer)).await;
        if result.is_err() && !self.is_goodbye_said() {
            client.cut();
            upstream.cut();
        } else {
            client.finish();
            upstream.finish();
            let latest = engine::now() + limits::TUNNEL_PARTING_TIME;
            upstream.linger(self.leaving.get().map_or(latest, |leaving| leaving.until)).await;
        }
        result
    }

    async fn pump_both<C: End, U: End>(
        &self,
        (client, early): (&C, Vec<u8>),
        (upstream, answer): (&U, Vec<u8>),
    ) -> Result<(), Failure> {
        let mut up = pin!(self.pump(Direction::Up, client, upstream).run(early));
        let mut down = pin!(self.pump(Direction::Down, upstream, client).run(answer));
        let (mut up_is_over, mut down_is_over) = (false, false);
        let mut alarm = None;
        // Who waits for a descriptor is woken by the engine when the core turns
        // (`engine::wake_all`). Where one end is a stream, the wait may be for that alone.
        let is_of_streams = client.connection().is_none() || upstream.connection().is_none();
        let watcher = is_of_streams.then(|| self.shard.watchers.enter());
        std::future::poll_fn(|context| {
            if let Some(watcher) = &watcher {
                watcher.wait(context);
            }
            loop {
                let was_leaving = self.is_leaving();
                if let Poll::Ready(result) = self.poll_time(context, &mut alarm) {
                    return Poll::Ready(result);
                }
                if !up_is_over && let Poll::Ready(result) = up.as_mut().poll(context) {
                    result?;
                    up_is_over = true;
                }
                if !down_is_over && let Poll::Ready(result) = down.as_mut().poll(context) {
                    result?;
                    down_is_over = true;
                }
                if up_is_over && down_is_over {
                    return Poll::Ready(self.ended());
                }
                // Nobody reads any more of who has said all: that it is gone would go unnoticed.
                if up_is_over && client.poll_broken(context).is_ready() {
                    return Poll::Ready(self.left(Direction::Up));
                }
                if down_is_over && upstream.poll_broken(context).is_ready() {
                    return Poll::Ready(self.left(Direction::Down));
                }
                // The way that was asked first may have to hear of it too.
                if self.is_leaving() == was_leaving {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    fn ended(&self) -> Result<(), Failure> {
        let failure = self.leaving.get().and_then(|leaving| leaving.failure);
        failure.map_or(Ok(()), Err)
    }

    /// Who sends this way is gone. Where goodbye was said it does not matter how.
    fn left(&self, direction: Direction) -> Result<(), Failure> {
        let is_expected = self.is_leaving() || self.is_goodbye_said();
        if is_expected { self.ended() } else { Err(direction.lost()) }
    }

    fn pump<'t, F: End, T: End>(
        &'t self,
        direction: Direction,
        from: &'t F,
        to: &'t T,
    ) -> Pump<'t, F, T> {
        let frames = if self.is_websocket { Frames::default() } else { Frames::unknown() };
        Pump { tunnel: self, direction, from, to, frames, is_muted: false, turns: 0 }
    }

    /// Looks at all that depends on time or on the core. Ready: it is over.
    fn poll_time(
        &self,
        context: &mut Context<'_>,
        alarm: &mut Option<Alarm>,
    ) -> Poll<Result<(), Failure>> {
        loop {
            let next = match self.look(engine::now()) {
                Look::Over(failure) => return Poll::Ready(failure.map_or(Ok(()), Err)),
                Look::Again(next) => next,
            };
            let Some(next) = next else { return Poll::Pending };
            // A moment that has moved on is looked for when the alarm rings, not with every byte.
            let set = match alarm.take().filter(|set| set.at <= next) {
                Some(set) => set,
                None => {
                    let after = next.saturating_duration_since(engine::now());
                    Alarm { at: next, sleep: engine::sleep(after) }
                }
            };
            if pin!(&mut alarm.insert(set).sleep).poll(context).is_pending() {
                return Poll::Pending;
            }
            *alarm = None;
        }
    }

    /// What is due, and when to look again.
    fn look(&self, now: Instant) -> Look {
        if self.leaving.get().is_none() {
            self.leave_if_due(now);
        }
        if let Some(Leaving { failure, until }) = self.leaving.get() {
            let can_say = self.is_websocket && now < until;
            return if can_say { Look::Again(Some(until)) } else { Look::Over(failure) };
        }
        let silent = self.rules.idle_timeout.map(|limit| self.last.get() + limit);
        let ping = self.rules.ping_interval.filter(|_| self.is_websocket).map(|interval| {
            if self.heard.get() + interval <= now {
                self.owes_ping.set(true);
                self.heard.set(now);
            }
            self.heard.get() + interval
        });
        Look::Again(match (silent, ping) {
            (Some(silent), Some(ping)) => Some(silent.min(ping)),
            (silent, ping) => silent.or(ping),
        })
    }

    fn leave_if_due(&self, now: Instant) {
        let is_silent = |limit| self.last.get() + limit <= now;
        let failure = if self.shard.life.is_parting() {
            Some(Failure::Draining)
        } else if self.generation.is_retired() {
            Some(Failure::GenerationRetired)
        } else if self.rules.idle_timeout.is_some_and(is_silent) {
            Some(Failure::IdleTimeout)
        } else {
            None
        };
        if failure.is_some() {
            let until = now + limits::TUNNEL_PARTING_TIME;
            self.leaving.set(Some(Leaving { failure, until }));
            self.note_ended(Side::Proxy, None);
        }
    }

    // --- what the pumps ask and tell ----------------------------------------------------------

    fn is_leaving(&self) -> bool {
        self.leaving.get().is_some()
    }

    fn takes_ping(&self) -> bool {
        self.owes_ping.get()
    }

    fn new_mask(&self) -> [u8; 4] {
        (self.shard.random() as u32).to_ne_bytes()
    }

    fn is_goodbye_said(&self) -> bool {
        self.goodbyes.get().contains(&true)
    }

    /// Bytes have come.
    fn has_heard(&self, from: Direction, count: u64) {
        let (now, progress) = (engine::now(), self.progress());
        self.last.set(now);
        if from == Direction::Up {
            self.heard.set(now);
            progress.received.set(progress.received.get() + count);
            self.count();
        }
    }

    /// Bytes have gone on.
    fn has_given(&self, to: Direction, count: u64) {
        self.last.set(engine::now());
        if to == Direction::Down {
            self.has_sent(count);
        }
    }

    /// A frame of ours has left.
    fn has_said(&self, word: Word, to: Direction, count: u64) {
        match word {
            Word::Ping => self.owes_ping.set(false),
            Word::GoingAway => {
                self.note_goodbye(to, Close(Some(GOING_AWAY)));
            }
        }
        if to == Direction::Down {
            self.has_sent(count);
        }
    }

    fn has_sent(&self, count: u64) {
        let progress = self.progress();
        progress.sent.set(progress.sent.get() + count);
        progress.body_sent.set(progress.body_sent.get() + count);
        self.count();
    }

    fn count(&self) {
        self.meter.count();
        let progress = self.progress();
        let passed = (progress.received.get(), progress.sent.get());
        let before = progress.listed.replace(passed);
        let seat = self.meter.origin.seat;
        self.shard.connections.passes(seat, passed.0 - before.0, passed.1 - before.1);
        self.shard.stir();
    }

    /// A goodbye has passed this way, or was ours.
    fn note_goodbye(&self, direction: Direction, Close(status): Close) {
        let mut goodbyes = self.goodbyes.get();
        goodbyes[direction as usize] = true;
        self.goodbyes.set(goodbyes);
        if goodbyes == [true; 2] && !self.is_leaving() {
            let until = engine::now() + limits::TUNNEL_PARTING_TIME;
            self.leaving.set(Some(Leaving { failure: None, until }));
        }
        if direction == Direction::Down {
            // The client knows: from now on its end is one that was meant.
            self.progress().framing.set(Framing::None);
        }
        let by = if self.is_leaving() { Side::Proxy } else { sender(direction) };
        self.note_ended(by, status);
    }

    fn note_end(&self, direction: Direction) {
        self.note_ended(sender(direction), None);
    }

    /// The first that ends it is remembered, and the first status.
    fn note_ended(&self, by: Side, status: Option<u16>) {
        let told = self.progress().tunnel.get().unwrap_or_default();
        let ended_by = told.ended_by.or(Some(by));
        let close = if ended_by == Some(by) { told.close.or(status) } else { told.close };
        self.progress().tunnel.set(Some(Told { ended_by, close, ..told }));
    }

    fn progress(&self) -> &Progress {
        self.meter.progress
    }
}

enum Look {
    /// At the latest.
    Again(Option<Instant>),
    Over(Option<Failure>),
}

struct Alarm {
    at: Instant,
    sleep: Sleep,
}

fn sender(direction: Direction) -> Side {
    match direction {
        Direction::Up => Side::Client,
        Direction::Down => Side::Upstream,
    }
}
