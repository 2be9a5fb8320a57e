//! One request and its answer. `run` is the life of an exchange on one screen: admit, route,
//! answer, turn a failure into a reply, record.

pub(crate) mod attempt;
pub mod capture;
pub(crate) mod carry;
pub(crate) mod client;
pub mod client_address;
pub mod count;
mod call;
mod error_page;
pub mod failure;
mod health_service;
mod pace;
mod streamed;
pub mod record;
pub(crate) mod relay;
mod relay_http2;
mod told;
mod trace;
pub mod tunnel;
pub(crate) mod upload;

use std::cell::{Cell, OnceCell};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use crate::engine;
use crate::events::bus::{Event, Kinds};
use crate::exchange::capture::Capturer;
use crate::exchange::client::{Client, Speaks};
use crate::exchange::client_address::{client_address, is_trusted};
use crate::exchange::failure::Failure;
use crate::exchange::pace::Pace;
use crate::exchange::record::{Marks, Phase, Timings};
use crate::exchange::trace::Trace;
use crate::exchange::tunnel::Switched;
use crate::exchange::tunnel::handshake::Asked;
use crate::grpc::call::Call;
use crate::grpc::status::Code;
use crate::http::head::{Framing, Keep, Line, Method, RequestHead};
use crate::http::headers::{HeaderEdits, HeaderId};
use crate::http::reply::{BodySent, Reply, Sending};
use crate::http1::body::Decoder;
use crate::http1::server::Input;
use crate::plan::{Action, Route, RouteId};
use crate::routing;
use crate::shard::generation::Generation;
use crate::shard::rejected;
use crate::shard::{Origin, Shard};
use crate::upstream::endpoints::Endpoint;

/// A request on its way. One per connection, used again for each request, so that it allocates
/// once.
pub(crate) struct Exchange {
    shard: Rc<Shard>,
    origin: Origin,
    /// It has ended in the counters and the log, or has not begun.
    recorded: bool,
    pub(crate) generation: Rc<Generation>,
    pub(crate) input: Input,
    pub(crate) head: RequestHead,
    scratch: Vec<u8>,
    pub(crate) marks: Marks,
    pub(crate) request_id: [u8; 32],
    client_address: IpAddr,
    peer_is_trusted: bool,
    route: Option<RouteId>,
    /// That it used last.
    endpoint: Option<Rc<Endpoint>>,
    /// `None` until the connection has a traced exchange.
    trace: Option<Box<Trace>>,
    /// Another protocol that the client wants to go over to, and its route allows.
    asked: Option<Asked>,
    /// The endpoint has agreed: a tunnel is to begin.
    switched: Option<Box<Switched>>,
    pub(crate) progress: Progress,
}

/// How far it has come. Cells, because upload and download go on at the same time.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) phase: Cell<Phase>,
    pub(crate) status: Cell<u16>,
    pub(crate) received: Cell<u64>,
    pub(crate) sent: Cell<u64>,
    /// What of these two is in the counters already.
    pub(crate) counted: Cell<(u64, u64)>,
    /// And what of them the list of connections has.
    pub(crate) listed: Cell<(u64, u64)>,
    /// When the request had left, body and all.
    pub(crate) uploaded: Cell<Option<Instant>>,
    /// How fast the client takes it.
    pub(crate) pace: Pace,
    pub(crate) body_sent: Cell<u64>,
    pub(crate) attempts: Cell<u8>,
    pub(crate) reused: Cell<bool>,
    pub(crate) endpoint: Cell<Option<SocketAddr>>,
    /// An interim response is on its way: cut there, nothing can be said after it.
    pub(crate) interim: Cell<bool>,
    /// A final response head has left: no other answer is possible.
    pub(crate) head_sent: Cell<bool>,
    pub(crate) upload: Cell<Uploading>,
    /// Of the response, as the client gets it.
    pub(crate) framing: Cell<Framing>,
    /// `None`: it has not become one.
    pub(crate) tunnel: Cell<Option<tunnel::Told>>,
    /// What the log wants to know beyond the line.
    pub(crate) capturer: Capturer,
    /// `None`: the route is not for gRPC.
    pub(crate) call: Option<Box<Call>>,
}

/// How far a request has come on its way to the upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Uploading {
    #[default]
    Untouched,
    /// Bytes of the body may have been taken from the input, and it no longer starts there.
    Going,
    /// All of it has left.
    Whole,
    /// The upstream takes no more of it.
    Broken,
}

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Keep,
    Close,
    /// Close, but the client may still be sending: read on until it has our answer.
    Linger,
    /// Close at once: an orderly end would make a whole answer of a cut one.
    Cut,
    /// The exchange goes on as a tunnel ([`go_over`]).
    Tunnel,
}

pub(crate) async fn run(shard: &Rc<Shard>, client: &Client, exchange: &mut Exchange) -> Ending {
    let generation = Rc::clone(&exchange.generation);
    let answered = {
        let answering = pin!(answer(shard, client, exchange, &generation));
        let answering = pin!(client.meanwhile(answering));
        let watcher = client.is_stream().then(|| shard.watchers.enter());
        generation.until_retired(answering, watcher).await
    };
    if let Ok(Ending::Tunnel) = answered {
        return Ending::Tunnel;
    }
    end(shard, client, exchange, answered).await
}

/// The rest of an exchange that has become a tunnel, for whoever has given back by then what
/// requests need: it may last for days.
pub(crate) async fn go_over(shard: &Rc<Shard>, client: &Client, exchange: &mut Exchange) -> Ending {
    let ended = match exchange.switched.take() {
        Some(switched) => {
            client.meanwhile(pin!(tunnel::run(shard, client, exchange, switched))).await
        }
        None => Err(Failure::Internal),
    };
    end(shard, client, exchange, ended).await
}

async fn end(
    shard: &Rc<Shard>,
    client: &Client,
    exchange: &mut Exchange,
    answered: Result<Ending, Failure>,
) -> Ending {
    let (ending, failure) = match answered {
        Ok(ending) => {
            exchange.progress.phase.set(Phase::Done);
            (ending, None)
        }
        Err(failure) => {
            exchange.end_attempt(Some(failure));
            (fail(shard, client, exchange, failure).await, Some(failure))
        }
    };
    exchange.record(failure);
    shard.log.room(shard).await;
    ending
}

/// A request whose head was refused: there is nothing but the refusal.
pub(crate) async fn refuse(
    shard: &Rc<Shard>,
    client: &Client,
    exchange: &mut Exchange,
    failure: Failure,
) {
    exchange.progress.received.set(exchange.input.unused().len() as u64);
    exchange.head.clear();
    exchange.head.keep = Keep::Close;
    exchange.head.method = Method::Other; // whatever it was meant to be
    shard.new_request_id(&mut exchange.request_id);
    exchange.client_address = client.origin.speaks_for().ip().to_canonical();
    fail(shard, client, exchange, failure).await;
    exchange.record(Some(failure));
    shard.log.room(shard).await;
}

async fn answer(
    shard: &Rc<Shard>,
    client: &Client,
    exchange: &mut Exchange,
    generation: &Generation,
) -> Result<Ending, Failure> {
    exchange.admit(shard, client)?;
    if generation.plan.health_on_listeners
        && let Some(page) = exchange.health_page()?
    {
        let (status, body) = page.answer(&shard.health.borrow(), engine::wall_clock());
        let page = Reply::json(status, body);
        return reply(shard, client, exchange, &page, const { &HeaderEdits::NONE }).await;
    }
    if generation.plan.health_grpc.is_some()
        && let Some(asked) = exchange.asked_of_health()
    {
        return Box::pin(health_service::answer(shard, client, exchange, asked)).await;
    }
    let route = exchange.find_route(generation);
    if let Some(tracing) = &generation.plan.tracing {
        exchange.begin_trace(tracing, route.as_ref().ok().copied());
    }
    let route = route?;
    if !exchange.head.upgrade.is_empty()
        && !matches!(route.action, Action::Forward(_))
        && exchange.wants_tunnel_only()
    {
        return Err(Failure::MethodRefused);
    }
    match &route.action {
        Action::Forward(_) if client.has_given_up() => Err(Failure::ClientClosed),
        Action::Forward(cluster) => {
            let Some(grpc) = &route.grpc else {
                let forwarding = pin!(attempt::forward(shard, client, exchange, route, *cluster));
                return match route.timeout {
                    None => forwarding.await,
                    Some(limit) => {
                        let answered = engine::within(limit, forwarding).await;
                        answered.unwrap_or(Err(Failure::ExchangeTimeout))
                    }
                };
            };
            if let Some(answer) = exchange.preflight(grpc) {
                return reply(shard, client, exchange, &answer?, &route.response_headers).await;
            }
            let patience = exchange.begin_call(grpc, route)?;
            let forwarding = attempt::forward(shard, client, exchange, route, *cluster);
            patience.lasts(Box::pin(forwarding).as_mut()).await
        }
        Action::Respond(respond) => {
            let answer = exchange.responded(generation, respond);
            reply(shard, client, exchange, &answer, &route.response_headers).await
        }
        Action::Redirect(redirect) => {
            let (head, bytes) = (&exchange.head, exchange.input.head());
            let authority = head.authority.of(bytes);
            let target =
                Reply::redirect(redirect, authority, head.path.of(bytes), head.query.of(bytes));
            reply(shard, client, exchange, &target, &route.response_headers).await
        }
        Action::Echo => {
            let page = Reply::echo(&exchange.head, exchange.input.head());
            reply(shard, client, exchange, &page, &route.response_headers).await
        }
    }
}

impl Exchange {
    pub(crate) fn new(shard: &Rc<Shard>, origin: Origin) -> Exchange {
        Exchange {
            shard: Rc::clone(shard),
            origin,
            recorded: true,
            generation: shard.generation(),
            input: Input::default(),
            head: RequestHead::default(),
            scratch: Vec::new(),
            marks: Marks::at(engine::now()),
            request_id: [0; 32],
            client_address: IpAddr::from([0, 0, 0, 0]),
            peer_is_trusted: false,
            route: None,
            endpoint: None,
            trace: None,
            asked: None,
            switched: None,
            progress: Progress::default(),
        }
    }

    /// Makes it ready for the next request; memory stays.
    pub(crate) fn begin(&mut self, generation: Rc<Generation>) {
        self.generation = generation;
        self.head.clear();
        self.marks = Marks::at(engine::now());
        self.route = None;
        self.endpoint = None;
        self.asked = None;
        if let Some(trace) = &mut self.trace {
            trace.clear();
        }
        self.progress = Progress::default();
    }

    /// What is decided before the route is known.
    fn admit(&mut self, shard: &Shard, client: &Client) -> Result<(), Failure> {
        self.recorded = false;
        self.generation.enter();
        let plan = &self.generation.plan;
        let now = engine::now();
        self.marks.head = Some(now);
        shard.connections.begins(self.origin.seat, now);
        self.progress.received.set(self.head.bytes as u64);
        self.progress.phase.set(Phase::Route);
        shard.stir();
        shard.new_request_id(&mut self.request_id);
        let peer = client.origin.speaks_for().ip();
        self.peer_is_trusted = is_trusted(peer.to_canonical(), &plan.trusted_proxies);
        self.client_address = peer.to_canonical();
        if self.peer_is_trusted {
            let bytes = self.input.head();
            let chain = |line: &&Line| line.id == HeaderId::XForwardedFor;
            let chains = self.head.lines.iter().filter(chain).map(|line| line.value.of(bytes));
            self.client_address = client_address(peer, &plan.trusted_proxies, chains);
        }
        if shard.tapping.is_on() {
            self.begin_tap(shard);
        }
        if shard.guard.turns_away(self.client_address) {
            return Err(Failure::Blacklisted);
        }
        if let Some(failure) = self.origin.refuses(self.head.authority.of(self.input.head())) {
            return Err(failure);
        }
        if matches!(self.head.method, Method::Trace | Method::Connect) {
            return Err(Failure::MethodRefused);
        }
        let max = plan.limits.body_bytes_max;
        match self.head.framing {
            Framing::Length(length) if max != 0 && length > max => Err(Failure::BodyTooLarge),
            Framing::Length(_) | Framing::Chunked | Framing::None | Framing::UntilClose => Ok(()),
        }
    }

    #[cold]
    fn begin_tap(&self, shard: &Shard) {
        let (bytes, head) = (self.input.head(), &self.head);
        let (method, path) = (head.method_name.of(bytes), head.path.of(bytes));
        if let Some(tap) = shard.tapping.of(method, path, self.client_address) {
            self.progress.capturer.begin_tapped(&shard.log.captures, tap, head, bytes);
        }
    }

    fn find_route<'g>(&mut self, generation: &'g Generation) -> Result<&'g Route, Failure> {
        let bytes = self.input.head();
        let path = routing::normalise(self.head.path.of(bytes), &mut self.scratch)
            .map_err(|_| Failure::BadPath)?;
        let id = generation.plan.router.find(self.head.authority.of(bytes), path);
        let id = id.ok_or(Failure::NoRoute)?;
        self.route = Some(id);
        let route = generation.route(id);
        if let Some(settings) = generation.plan.capturing(route) {
            let captures = &self.shard.log.captures;
            self.progress.capturer.begin(captures, settings, &self.head, bytes);
        }
        Ok(route)
    }

    /// A final response has begun, ours or the upstream's.
    fn has_answer(&self) -> bool {
        self.progress.status.get() != 0
    }

    /// Counts the exchange, and writes its line to the access log.
    fn record(&mut self, failure: Option<Failure>) {
        let begun = !std::mem::replace(&mut self.recorded, true);
        if begun {
            self.generation.leave();
        }
        self.begin_trace_late();
        self.end_attempt(failure);
        let (shard, progress) = (&self.shard, &self.progress);
        // Also of one that was never admitted, or took long: its line is to be written.
        shard.stir();
        let now = engine::precise_now();
        let timings = self.timings(now);
        let until_answered;
        let counted = if progress.tunnel.get().is_none() {
            &timings
        } else {
            // A tunnel may last for days. How long its 101 took is like other answers.
            until_answered = Timings { total: timings.total - timings.body, ..timings };
            &until_answered
        };
        count::count(self, counted, failure);
        self.count_call(failure);
        let (listed_in, listed_out) = progress.listed.get();
        let (received, sent) = (progress.received.get(), progress.sent.get());
        let passed = (received - listed_in, sent - listed_out);
        shard.connections.ends(self.origin.seat, begun, passed, now);
        if let Some(failure) = failure
            && rejected::is_worth_keeping(failure)
        {
            self.remember(failure);
        }
        let capture = progress.capturer.take();
        // Made once, for whoever wants it first.
        let made = OnceCell::new();
        let line = || made.get_or_init(|| self.line(timings, failure, capture.as_deref()));
        let plan = &self.generation.plan;
        if let Some(log) = &plan.access_log {
            let failed = failure.is_some()
                || progress.status.get() >= 500
                || self.ended_with(None).is_some_and(Code::is_servers_fault);
            if log.sampling.takes(|| self.request_id(), failed, timings.total) {
                shard.log.write(log, plan.version, line(), shard);
            }
        }
        if shard.events.wants(Kinds::REQUEST.and(Kinds::FAILURE)) {
            told::tell(shard, line());
        }
        if self.is_traced() {
            if plan.metering.exemplars {
                count::keep_exemplars(self, counted);
            }
            self.tell_trace(line());
        }
        if let Some((tap, tapped)) = progress.capturer.take_tapped() {
            if let Some(shown) = shard.tapping.shows(&tap, line(), &tapped) {
                shard.events.tell(&shard.mail, Event::Exchange(Box::new(shown)));
            }
            shard.log.captures.give_back(tapped);
        }
        if let Some(failure) = failure
            && failure.is_suspicious()
            && plan.audit_log.is_some()
        {
            shard.log.audit(plan, line(), failure, shard);
        }
        if let Some(capture) = capture {
            shard.log.captures.give_back(capture);
        }
    }

    fn timings(&self, end: Instant) -> Timings {
        Marks { uploaded: self.progress.uploaded.get(), ..self.marks }.timings(end)
    }

    fn request_id(&self) -> &[u8] {
        request_id(&self.head, self.input.head(), self.peer_is_trusted, &self.request_id)
    }

    /// The body that the client has sent, or will, when nobody wants it. A connection can go on
    /// only after a body that is here already, or was used to its end: what follows is the next
    /// request.
    fn skip_body(&mut self) -> Ending {
        let is_over = match self.head.framing {
            Framing::None => true,
            Framing::Length(_) | Framing::Chunked | Framing::UntilClose => {
                match self.progress.upload.get() {
                    Uploading::Whole => true,
                    Uploading::Untouched => self.skip_whole_body(),
                    Uploading::Going | Uploading::Broken => false,
                }
            }
        };
        match self.head.keep {
            _ if !is_over => Ending::Linger,
            Keep::Open => Ending::Keep,
            Keep::Close => Ending::Close,
        }
    }

    /// Skips a body of which nothing was used yet, if all of it is here.
    fn skip_whole_body(&mut self) -> bool {
        let mut decoder = Decoder::new(self.head.framing);
        let (_, unused) = self.input.split();
        match decoder.decode(unused) {
            Ok(decoded) if decoded.end => {
                self.progress.note_request_body(decoded.of(unused));
                self.input.consume(decoded.consumed);
                let received = self.progress.received.get() + decoded.consumed as u64;
                self.progress.received.set(received);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }
}

/// A trusted proxy's, when it sent one; else ours.
fn request_id<'a>(
    head: &RequestHead,
    bytes: &'a [u8],
    peer_is_trusted: bool,
    ours: &'a [u8; 32],
) -> &'a [u8] {
    let theirs = head.value(bytes, HeaderId::XRequestId);
    theirs.filter(|id| peer_is_trusted && !id.is_empty()).unwrap_or(ours)
}

impl Drop for Exchange {
    /// One that ends by a panic, or is cut when a drain takes too long, is told of as well.
    fn drop(&mut self) {
        if !self.recorded {
            let cut = self.shard.life.is_draining();
            self.record(Some(if cut { Failure::Draining } else { Failure::Internal }));
        }
    }
}

/// Sends a reply of our own.
async fn reply(
    shard: &Shard,
    client: &Client,
    exchange: &mut Exchange,
    reply: &Reply<'_>,
    edits: &HeaderEdits,
) -> Result<Ending, Failure> {
    let mut ending = exchange.skip_body();
    if ending == Ending::Keep && (client.origin.is_closing(shard) || client.is_worn()) {
        ending = Ending::Close;
    }
    let plan = &exchange.generation.plan;
    let bytes = exchange.input.head();
    let (trusted, ours) = (exchange.peer_is_trusted, &exchange.request_id);
    let sending = Sending {
        version: exchange.head.version,
        keep: if ending == Ending::Keep { Keep::Open } else { Keep::Close },
        body: if exchange.head.method == Method::Head {
            BodySent::HeadOnly
        } else {
            BodySent::Whole
        },
        date: engine::wall_clock(),
        proxy_id: &plan.proxy_id,
        request_id: request_id(&exchange.head, bytes, trusted, ours),
        edits,
    };
    let mut work = shard.workspaces.take();
    reply.encode(&sending, &mut work.out);
    let settings = exchange.route.and_then(|id| plan.capturing(exchange.generation.route(id)));
    exchange.progress.note_response_head(settings, &work.out);
    exchange.progress.note_response_body(reply.sent_body(&sending));
    exchange.progress.status.set(reply.status);
    exchange.progress.head_sent.set(true);
    let (timeouts, progress) = (&plan.timeouts, &exchange.progress);
    match &client.speaks {
        Speaks::Http1(stream) => {
            relay::send_to_client(stream, &[&work.out[..], b"", b""], timeouts, progress).await?;
        }
        Speaks::Http2(call) => streamed::send_reply(call, &work.out, timeouts, progress).await?,
    }
    let without = matches!(reply.status, 204 | 304);
    if sending.body == BodySent::Whole && !without {
        exchange.progress.body_sent.set(reply.body.len() as u64);
    }
    Ok(ending)
}

/// Answers a failure, if it still can be.
async fn fail(shard: &Shard, client: &Client, exchange: &mut Exchange, failure: Failure) -> Ending {
    if let Some(ending) = exchange.end_call(client, failure).await {
        return ending;
    }
    let progress = &exchange.progress;
    if progress.head_sent.get() && progress.framing.get() == Framing::UntilClose {
        return Ending::Cut;
    }
    if progress.head_sent.get() || progress.interim.get() {
        return Ending::Close;
    }
    let generation = Rc::clone(&exchange.generation);
    let Some(answer) = exchange.failed(&generation, failure) else {
        return Ending::Close;
    };
    if failure.row().keep == Keep::Close {
        exchange.head.keep = Keep::Close;
    }
    let edits = match exchange.route {
        Some(id) => &generation.route(id).response_headers,
        None => const { &HeaderEdits::NONE },
    };
    reply(shard, client, exchange, &answer, edits).await.unwrap_or(Ending::Close)
}
