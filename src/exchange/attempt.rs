//! Trying an endpoint: get a connection, send the request, bring back the response. A second try
//! only where the first provably did nothing.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use crate::engine;
use crate::exchange::client::Client;
use crate::exchange::count::{self, Meter};
use crate::exchange::error_page::Replaced;
use crate::exchange::failure::{Failure, Retry, Side as Blame};
use crate::exchange::record::{Marks, Phase};
use crate::exchange::relay::{Download, Downloaded, Request};
use crate::exchange::upload::{self, Upload, UploadFailure};
use crate::exchange::{Ending, Exchange, Progress, Uploading, relay};
use crate::grpc::web::Form;
use crate::http::head::{Framing, Keep, RequestHead};
use crate::http::headers::IdentityLines;
use crate::http1::encode::{self, Forwarded};
use crate::http2::upstream_call::Unsent;
use crate::limits;
use crate::listener::greeting::greeting;
use crate::plan::{ClusterId, ClusterTimeouts, Route, RouteId};
use crate::shard::Shard;
use crate::shard::generation::Generation;
use crate::shard::workspace::Work;
use crate::upstream::connect::{Greet, NotConnected, Patience};
use crate::upstream::lease::{Lease, Upstream};
use crate::upstream::pool::{Cluster, Stage, Wanted};
use crate::upstream::tally::Tally;

pub(super) async fn forward(
    shard: &Rc<Shard>,
    client: &Client,
    exchange: &mut Exchange,
    route: &Route,
    id: ClusterId,
) -> Result<Ending, Failure> {
    let generation = Rc::clone(&exchange.generation);
    let cluster = generation.cluster(id);
    let mut timeouts = generation.plan.clusters[id.0 as usize].timeouts;
    if exchange.progress.call.is_some() {
        // It has a patience of its own, for both ways together.
        (timeouts.first_byte, timeouts.read) = (limits::CONFIG_TIME_MAX, limits::CONFIG_TIME_MAX);
    }
    let greet = |version| greeting(version, &client.origin, client.local_address());
    let patience = Patience { connect: timeouts.connect, write: generation.plan.timeouts.write };
    let with = (patience, &greet as Greet<'_>);
    if !exchange.head.upgrade.is_empty() {
        exchange.ask_to_switch(&route.upgrades)?;
    }
    let mut wanted = if exchange.asked.is_some() { Wanted::Tunnel } else { Wanted::Any };
    exchange.input.settle();
    let mut refused = Vec::new();
    let (mut upload, mut refusals) = (None, 0);
    loop {
        let lease =
            match acquire(shard, client, exchange, cluster, wanted, &mut refused, with).await {
                Err(Failure::UpstreamNoTunnel) if exchange.ask_no_more() => {
                    wanted = Wanted::Any;
                    refused.clear();
                    continue;
                }
                lease => lease?,
            };
        let first_reused = lease.reused && wanted.may_be_kept();
        let endpoint = Rc::clone(lease.endpoint());
        let may_switch = exchange.asked.is_some();
        let attempt =
            Attempt { shard, client, generation: &generation, route, timeouts, may_switch };
        let ended = attempt.run(exchange, lease, &mut upload).await;
        tell(&endpoint.tally, exchange, ended.as_ref().err());
        match ended {
            Ok(ending) => return Ok(ending),
            Err(failed)
                if failed.failure == Failure::GrpcStatus
                    && upload.as_ref().is_some_and(Upload::is_kept) =>
            {
                exchange.end_attempt(Some(failed.failure));
                count::retried(exchange, failed.failure);
                exchange.progress.upload.set(Uploading::Untouched);
            }
            Err(failed) if failed.is_safe_to_repeat(exchange, first_reused, refusals) => {
                refusals += u8::from(failed.failure.row().retry == Retry::Unprocessed);
                exchange.end_attempt(Some(failed.failure));
                count::retried(exchange, failed.failure);
                // A server that closes one kept connection has often closed them all.
                wanted = wanted.anew();
                upload = upload.filter(Upload::is_kept);
                if upload.is_none() {
                    exchange.input.rewind();
                }
                exchange.progress.upload.set(Uploading::Untouched);
            }
            Err(failed) => return Err(failed.failure),
        }
    }
}

/// What an attempt says of its endpoint: that a client left says nothing.
fn tell(tally: &Tally, exchange: &Exchange, failed: Option<&Failed>) {
    match failed {
        Some(failed) if failed.failure.side() == Blame::Upstream => {
            tally.failed(failed.failure, engine::wall_clock());
        }
        Some(_) => {}
        None => {
            tally.answered(exchange.timings(engine::now()).first_byte);
        }
    }
}

/// A connection; when connecting fails, one to another endpoint, since nothing was sent to the
/// first. A client that leaves while it waits is not asked for again, nor its request sent.
/// `refused` are those that could not be connected to, each tried once.
async fn acquire(
    shard: &Shard,
    client: &Client,
    exchange: &mut Exchange,
    cluster: &Rc<Cluster>,
    wanted: Wanted,
    refused: &mut Vec<SocketAddr>,
    with: (Patience, Greet<'_>),
) -> Result<Lease, Failure> {
    let mut knows_no_tunnel = false;
    loop {
        exchange.begin_attempt();
        let progress = &exchange.progress;
        progress.phase.set(Phase::Queue);
        progress.attempts.set(progress.attempts.get().saturating_add(1));
        progress.uploaded.set(None);
        let marks = &mut exchange.marks;
        (marks.admitted, marks.connected, marks.secured) = (None, None, None);
        marks.first_byte = None;
        progress.reused.set(false);
        let acquiring = cluster.acquire(wanted, refused, with, |stage, now| match stage {
            Stage::Admitted => {
                progress.phase.set(Phase::Connect);
                marks.admitted = Some(now);
            }
            Stage::Connected => {
                progress.phase.set(Phase::Tls);
                marks.connected = Some(now);
            }
        });
        let acquired = client.awaits(std::pin::pin!(acquiring)).await;
        match acquired.ok_or(Failure::ClientClosed)? {
            Ok(lease) => {
                progress.reused.set(lease.reused);
                progress.endpoint.set(Some(lease.address()));
                exchange.endpoint = Some(Rc::clone(lease.endpoint()));
                let now = engine::now();
                marks.connected = marks.connected.or(Some(now));
                marks.secured = Some(now);
                let secure = lease.is_secure();
                exchange.attempt_goes_to(Some(lease.address()), lease.reused, secure);
                return Ok(lease);
            }
            Err((NotConnected { failure, detail }, address)) => {
                if let (Some(detail), Some(address)) = (detail, address) {
                    shard.tell_of_handshake(failure, address, detail);
                }
                progress.endpoint.set(address.or(progress.endpoint.get()));
                refused.extend(address);
                let secure = exchange.progress.phase.get() == Phase::Tls;
                exchange.attempt_goes_to(address, false, secure);
                exchange.end_attempt(Some(failure));
                let is_endpoints = matches!(failure.row().retry, Retry::Safe | Retry::Unprocessed);
                knows_no_tunnel |= failure == Failure::UpstreamNoTunnel;
                let again = is_endpoints
                    && cluster.has_another(refused)
                    && refused.len() < limits::CONNECT_ATTEMPTS_MAX;
                if !again {
                    // One that could be asked without the upgrade counts for more than one that
                    // cannot be asked at all, whichever was tried last.
                    let is_other = is_endpoints && knows_no_tunnel;
                    return Err(if is_other { Failure::UpstreamNoTunnel } else { failure });
                }
                count::retried(exchange, failure);
            }
        }
    }
}

struct Attempt<'a> {
    shard: &'a Rc<Shard>,
    client: &'a Client,
    generation: &'a Generation,
    route: &'a Route,
    timeouts: ClusterTimeouts,
    may_switch: bool,
}

/// How much of a request has left with the first send.
#[derive(Clone, Copy)]
enum Sent {
    /// `replayable`: all of it is still in the buffer as it came.
    Whole {
        replayable: bool,
    },
    Part,
}

/// Why an attempt failed, and what is needed to know whether it may be repeated.
struct Failed {
    failure: Failure,
    /// Not one byte of the request left.
    unsent: bool,
    /// The whole request is still in the buffer as it came.
    replayable: bool,
}

impl Failed {
    fn to_send(error: &engine::SendError, upstream: &Upstream, replayable: bool) -> Failed {
        let unsent = match upstream {
            Upstream::Http1(_) => error.sent == 0,
            // The head may have left, of which nothing is counted.
            Upstream::Http2(_) => Unsent::of(error).is_some(),
        };
        Failed { failure: upload::write_failure(error), unsent, replayable }
    }

    /// Nothing came back, and on a connection that was kept (RFC 9112 section 9.3.1) the request
    /// either never left or does the same when it is done twice (RFC 9110 section 9.2.2). One that
    /// was refused by name was not done, whatever it is (RFC 9113 section 8.7).
    /// `reused`: on such a connection, and for the first time.
    fn is_safe_to_repeat(&self, exchange: &Exchange, reused: bool, refusals: u8) -> bool {
        let is_harmless = match self.failure.row().retry {
            Retry::Reused => reused && (self.unsent || exchange.head.method.is_idempotent()),
            Retry::Unprocessed => refusals < limits::REFUSED_REPEATS_MAX,
            Retry::Never | Retry::Safe => false,
        };
        is_harmless
            && self.replayable
            && !exchange.has_answer()
            && exchange.marks.first_byte.is_none()
    }
}

impl Attempt<'_> {
    /// `upload`: what an attempt before it has sent, and can be sent again.
    async fn run(
        &self,
        exchange: &mut Exchange,
        lease: Lease,
        upload: &mut Option<Upload>,
    ) -> Result<Ending, Failed> {
        let upstream = lease.upstream();
        if exchange.progress.call.is_some() && matches!(upstream, Upstream::Http1(_)) {
            lease.keep(None);
            let failure = Failure::UpstreamNotHttp2;
            return Err(Failed { failure, unsent: true, replayable: false });
        }
        let max = self.generation.plan.limits.body_bytes_max;
        let again = upload.is_some();
        let upload = upload.get_or_insert_with(|| Upload::new(&exchange.head, max, upstream));
        let sent = match self.send(exchange, upstream, upload, again).await {
            Ok(sent) => sent,
            Err(failed) => return self.answer_unasked(exchange, lease, failed).await,
        };
        let answered = match sent {
            Sent::Whole { .. } => self.answer(exchange, upstream).await,
            Sent::Part => self.answer_early(exchange, upstream, upload).await,
        };
        match answered {
            Ok(downloaded) => self.finish(exchange, lease, downloaded).await,
            Err(failure) => {
                let replayable =
                    upload.is_kept() || matches!(sent, Sent::Whole { replayable: true });
                Err(Failed { failure, unsent: false, replayable })
            }
        }
    }

    /// The head, and as much of the body as is here already.
    async fn send(
        &self,
        exchange: &mut Exchange,
        upstream: &Upstream,
        upload: &mut Upload,
        again: bool,
    ) -> Result<Sent, Failed> {
        let plan = &self.generation.plan;
        exchange.progress.phase.set(Phase::RequestBody);
        let forwarded = Forwarded {
            peer: self.client.origin.speaks_for().ip(),
            client: exchange.client_address,
            trusted: exchange.peer_is_trusted,
            proto: self.client.origin.scheme(),
            identity: IdentityLines {
                stripped: &plan.identity_headers,
                lines: self.client.origin.identity_lines(),
            },
            request_id: &exchange.request_id,
            proxy_id: &plan.proxy_id,
            trace: exchange.trace_to_send(plan.tracing.as_ref()),
        };
        let mut work = self.shard.workspaces.take();
        let (head, input) = (&exchange.head, &mut exchange.input);
        let edits = &self.route.request_headers;
        let call = exchange.progress.call.as_deref();
        // What is decoded on its way has another length.
        let is_text = call.is_some_and(|call| call.form() == Some(Form::Text));
        let framing = if is_text { Framing::Chunked } else { head.framing };
        encode::request(&mut work.out, head, input.head(), framing, &forwarded, edits);
        if let Some(call) = call {
            call.request_head(&mut work.out, exchange.client_address, engine::now());
        }
        match (&exchange.asked, upstream) {
            (Some(asked), Upstream::Http1(_)) => asked.ask(input.head(), &mut work.out),
            (Some(asked), Upstream::Http2(call)) => {
                call.becomes_tunnel(self.route.upgrades.name(asked.protocol).as_bytes());
            }
            (None, _) => {}
        }
        let patience = upload::write_patience(&plan.timeouts, &exchange.progress);
        let fail = |failure| Failed { failure, unsent: true, replayable: false };
        exchange.progress.upload.set(Uploading::Going);
        let Work { out, tail, .. } = &mut *work;
        if again {
            let sending = upload.send_again(upstream, (out, tail), patience);
            let ended = sending.await.map_err(|error| Failed::to_send(&error, upstream, true))?;
            return Ok(Self::sent(exchange, ended, true));
        }
        let piece = upload.piece(input, out, tail, &plan.identity_headers, call).map_err(fail)?;
        exchange.progress.upload_begins();
        exchange.progress.note_request_body(piece.data(input));
        exchange.progress.received.set((head.bytes + piece.consumed()) as u64);
        // What of a call was read is decoded and counted: only what was kept goes up again.
        let replayable = piece.end && head.framing != Framing::Chunked && call.is_none();
        let sending = upload.send(upstream, (out, tail), input, &piece, patience);
        let sent = sending.await;
        let replayable = replayable || upload.is_kept();
        sent.map_err(|error| Failed::to_send(&error, upstream, replayable))?;
        Ok(Self::sent(exchange, piece.end, replayable))
    }

    fn sent(exchange: &Exchange, ended: bool, replayable: bool) -> Sent {
        if !ended {
            return Sent::Part;
        }
        exchange.progress.upload.set(Uploading::Whole);
        // Sending it took no wait worth a look at the clock.
        exchange.progress.uploaded.set(exchange.marks.secured);
        Sent::Whole { replayable }
    }

    /// What is left of an attempt whose request could not be sent: a server that refuses it may
    /// answer and close before it has read it (RFC 9112 section 9.5). What is here already counts,
    /// nothing is waited for. On a kept connection that took no byte, it would be no answer to us.
    async fn answer_unasked(
        &self,
        exchange: &mut Exchange,
        lease: Lease,
        failed: Failed,
    ) -> Result<Ending, Failed> {
        if failed.failure.side() != Blame::Upstream {
            if failed.unsent {
                // The request was no good before a byte of it had left: the connection is.
                lease.keep(None);
            }
            return Err(failed);
        }
        if failed.unsent && (lease.reused || failed.failure == Failure::UpstreamRefused) {
            return Err(failed);
        }
        exchange.progress.upload.set(Uploading::Broken);
        match self.answer(exchange, lease.upstream()).await {
            Ok(downloaded) => self.finish(exchange, lease, downloaded).await,
            Err(failure)
                if failure.side() == Blame::Upstream
                    && failure != Failure::UpstreamRefused
                    && !exchange.has_answer() =>
            {
                Err(failed)
            }
            Err(failure) => Err(Failed { failure, ..failed }),
        }
    }

    /// The response, to a request that has left.
    async fn answer(
        &self,
        exchange: &mut Exchange,
        upstream: &Upstream,
    ) -> Result<Downloaded, Failure> {
        let Exchange { head, marks, progress, route, .. } = exchange;
        let meter = self.meter(*route, progress);
        relay::set_deadline(upstream, progress, &self.timeouts);
        self.download(head, marks, meter, upstream).run().await
    }

    /// The response while the rest of the request goes up.
    async fn answer_early(
        &self,
        exchange: &mut Exchange,
        upstream: &Upstream,
        upload: &mut Upload,
    ) -> Result<Downloaded, Failure> {
        let Exchange { head, input, marks, progress, route, .. } = exchange;
        let meter = self.meter(*route, progress);
        let (progress, plan) = (&*progress, &self.generation.plan);
        let timeouts = &self.timeouts;
        relay::set_deadline(upstream, progress, timeouts);
        let mut download = self.download(head, marks, meter, upstream);
        // In boxes: a long upload can afford them, and all other exchanges stay small.
        let downloading = Box::pin(download.run());
        let uploading = Box::pin(upload.rest(self.client, input, upstream, plan, meter));
        both(uploading, downloading, |ended| {
            progress.upload.set(ended);
            progress.uploaded.set(Some(engine::now()));
            if progress.status.get() == 0 {
                progress.phase.set(Phase::FirstByte);
            }
            relay::set_deadline(upstream, progress, timeouts);
        })
        .await
    }

    fn download<'d>(
        &'d self,
        head: &RequestHead,
        marks: &'d mut Marks,
        meter: Meter<'d>,
        upstream: &'d Upstream,
    ) -> Download<'d> {
        let request = Request {
            method: head.method,
            version: head.version,
            keep: head.keep,
            accepts_trailers: head.accepts_trailers,
            may_switch: self.may_switch,
        };
        Download {
            shard: self.shard,
            client: self.client,
            upstream,
            plan: &self.generation.plan,
            route: self.route,
            timeouts: self.timeouts,
            request,
            marks,
            progress: meter.progress,
            meter,
        }
    }

    fn meter<'m>(&'m self, route: Option<RouteId>, progress: &'m Progress) -> Meter<'m> {
        let route = self.generation.series.route(route);
        Meter { shard: self.shard, origin: &self.client.origin, route, progress }
    }

    async fn finish(
        &self,
        exchange: &mut Exchange,
        lease: Lease,
        mut downloaded: Downloaded,
    ) -> Result<Ending, Failed> {
        if let Some(answer) = downloaded.switched.take() {
            let switched = exchange.switch(lease, *answer);
            return switched.map_err(|failure| Failed {
                failure,
                unsent: false,
                replayable: false,
            });
        }
        match downloaded.replaced.take() {
            None => Ok(self.end(exchange, lease, &downloaded)),
            // In a box, like all that few exchanges need.
            Some(replaced) => Box::pin(self.replace(exchange, lease, downloaded, *replaced)).await,
        }
    }

    /// A page of ours instead of the upstream's. The client has it before the rest is read.
    async fn replace(
        &self,
        exchange: &mut Exchange,
        lease: Lease,
        downloaded: Downloaded,
        mut replaced: Replaced,
    ) -> Result<Ending, Failed> {
        let uploaded = exchange.progress.upload.get() == Uploading::Whole;
        let page = exchange.replacement(self.generation, &mut replaced);
        let edits = &self.route.response_headers;
        let sent = super::reply(self.shard, self.client, exchange, &page, edits).await;
        let ending =
            sent.map_err(|failure| Failed { failure, unsent: false, replayable: false })?;
        exchange.progress.phase.set(Phase::Done);
        if let Upstream::Http1(stream) = lease.upstream()
            && uploaded
            && downloaded.upstream == Keep::Open
            && replaced.skip_rest(stream).await == Keep::Open
        {
            lease.keep(downloaded.promised);
        }
        Ok(ending)
    }

    fn end(&self, exchange: &Exchange, lease: Lease, downloaded: &Downloaded) -> Ending {
        exchange.progress.phase.set(Phase::Done);
        let uploaded = exchange.progress.upload.get() == Uploading::Whole;
        if uploaded && downloaded.upstream == Keep::Open {
            lease.keep(downloaded.promised);
        }
        match downloaded.client {
            _ if !uploaded => Ending::Linger,
            Keep::Open => Ending::Keep,
            Keep::Close => Ending::Close,
        }
    }
}

/// Upload and download at the same time: a server may answer before it has the whole request
/// (RFC 9112 section 9.3). A client that fails ends both; an upstream that takes no more may still
/// answer, so that is left to the download to find out.
async fn both(
    mut upload: Pin<Box<impl Future<Output = Result<(), UploadFailure>>>>,
    mut download: Pin<Box<impl Future<Output = Result<Downloaded, Failure>>>>,
    upload_ended: impl Fn(Uploading),
) -> Result<Downloaded, Failure> {
    let mut uploading = true;
    let mut broken = None;
    std::future::poll_fn(|context| {
        if uploading && let Poll::Ready(result) = upload.as_mut().poll(context) {
            uploading = false;
            match result {
                Ok(()) => upload_ended(Uploading::Whole),
                Err(UploadFailure::Client(failure)) => return Poll::Ready(Err(failure)),
                Err(UploadFailure::Upstream(failure)) => {
                    broken = Some(failure);
                    upload_ended(Uploading::Broken);
                }
            }
        }
        download.as_mut().poll(context).map_err(|failure| match failure.side() {
            Blame::Upstream if failure == Failure::GrpcStatus => failure,
            Blame::Upstream if failure == Failure::UpstreamRefused => failure,
            Blame::Upstream => broken.unwrap_or(failure),
            Blame::Client | Blame::Proxy => failure,
        })
    })
    .await
}
