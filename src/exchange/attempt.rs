//! Trying an endpoint: get a connection, send the request, bring back the response. A second try only
//! where the first provably did nothing.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use crate::engine::Side;
use crate::exchange::failure::{Failure, Retry};
use crate::exchange::record::Phase;
use crate::exchange::relay::{self, Download, Downloaded, Request, Upload, UploadFailure};
use crate::exchange::{Ending, Exchange};
use crate::http::head::{Framing, Keep};
use crate::http1::encode::{self, Forwarded};
use crate::http1::server::Client;
use crate::limits;
use crate::plan::{ClusterId, Route};
use crate::shard::Shard;
use crate::shard::generation::Generation;
use crate::upstream::pool::{Cluster, Lease, Wanted};

pub(super) async fn forward(
    shard: &Rc<Shard>,
    client: &Client,
    exchange: &mut Exchange,
    route: &Route,
    id: ClusterId,
) -> Result<Ending, Failure> {
    let generation = Rc::clone(&exchange.generation);
    let cluster = generation.cluster(id);
    let mut wanted = Wanted::Any;
    let mut refused = Vec::new();
    loop {
        let lease = acquire(exchange, cluster, wanted, &mut refused).await?;
        let reused = lease.reused;
        let attempt = Attempt { shard, client, generation: &generation, route, cluster };
        match attempt.run(exchange, lease).await {
            Ok(ending) => return Ok(ending),
            Err(failed) if reused && failed.is_safe_to_repeat(exchange) => {
                // A server that closes one kept connection has often closed them all.
                wanted = Wanted::New;
                exchange.input.rewind();
            }
            Err(failed) => return Err(failed.failure),
        }
    }
}

/// A connection; when connecting fails, one to another endpoint, since nothing was sent to the first.
/// `refused` are those that could not be connected to, each tried once.
async fn acquire(
    exchange: &mut Exchange,
    cluster: &Rc<Cluster>,
    wanted: Wanted,
    refused: &mut Vec<SocketAddr>,
) -> Result<Lease, Failure> {
    loop {
        let progress = &exchange.progress;
        progress.phase.set(Phase::Queue);
        progress.attempts.set(progress.attempts.get() + 1);
        let marks = &mut exchange.marks;
        marks.admitted = None;
        let result = cluster
            .acquire(wanted, refused, |now| {
                progress.phase.set(Phase::Connect);
                marks.admitted = Some(now);
            })
            .await;
        match result {
            Ok(lease) => {
                progress.reused.set(lease.reused);
                progress.endpoint.set(Some(lease.address()));
                marks.connected = Some(crate::engine::now());
                return Ok(lease);
            }
            Err((failure, address)) => {
                progress.endpoint.set(address.or(progress.endpoint.get()));
                refused.extend(address);
                let again = failure.row().retry == Retry::Safe
                    && cluster.has_another(refused)
                    && refused.len() < limits::CONNECT_ATTEMPTS_MAX;
                if !again {
                    return Err(failure);
                }
            }
        }
    }
}

struct Attempt<'a> {
    shard: &'a Rc<Shard>,
    client: &'a Client,
    generation: &'a Generation,
    route: &'a Route,
    cluster: &'a Cluster,
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
    /// On a connection that was kept (RFC 9112 section 9.3.1): nothing came back, and the request
    /// either never left or does the same when it is done twice (RFC 9110 section 9.2.2).
    fn is_safe_to_repeat(&self, exchange: &Exchange) -> bool {
        self.failure.row().retry == Retry::Reused
            && self.replayable
            && exchange.progress.status.get() == 0
            && exchange.marks.first_byte.is_none()
            && (self.unsent || exchange.head.method.is_idempotent())
    }
}

impl Attempt<'_> {
    async fn run(&self, exchange: &mut Exchange, lease: Lease) -> Result<Ending, Failed> {
        let plan = &self.generation.plan;
        let upstream = lease.socket();
        let mut upload = Upload::new(&exchange.head, plan.limits.body_bytes_max);
        let fail = |failure| Failed { failure, unsent: false, replayable: false };
        let (client_address, trusted) = (exchange.client_address, exchange.peer_is_trusted);
        let Exchange { request_id, input, head, response, out, tail, marks, progress, .. } =
            exchange;
        progress.phase.set(Phase::RequestBody);
        let forwarded = Forwarded {
            peer: self.client.origin.peer.ip(),
            client: client_address,
            trusted,
            proto: "http",
            request_id,
            proxy_id: &plan.proxy_id,
        };
        out.clear();
        encode::request(
            out,
            head,
            input.head(),
            head.framing,
            &forwarded,
            &self.route.request_headers,
        );
        let piece = upload.piece(input, out).map_err(fail)?;
        progress.received.set(head.bytes as u64 + input.unused().len() as u64);
        let replayable = piece.end && head.framing != Framing::Chunked;
        upload.send(upstream, out, input, &piece, plan.timeouts.write).await.map_err(|error| {
            Failed { failure: relay::write_failure(&error), unsent: error.sent == 0, replayable }
        })?;
        progress.uploaded.set(piece.end);
        input.settle();
        let request = Request {
            method: head.method,
            version: head.version,
            keep: head.keep,
            accepts_trailers: head.accepts_trailers,
        };
        let mut download = Download {
            client: self.client,
            upstream,
            plan,
            route: self.route,
            timeouts: self.cluster.timeouts,
            request,
            head: response,
            out,
            tail,
            marks,
            progress,
            life: &self.shard.life,
        };
        let downloaded = {
            let mut downloading = std::pin::pin!(download.run());
            if piece.end {
                upstream.set_deadline(Side::Read, Some(self.cluster.timeouts.first_byte));
                downloading.await
            } else {
                upstream.set_deadline(Side::Read, None);
                // In a box: a long upload can afford one, and all other exchanges stay small.
                let rest = Box::pin(upload.rest(self.client, input, upstream, plan, progress));
                let answering = Some(self.cluster.timeouts.first_byte);
                both(rest, downloading.as_mut(), || {
                    progress.uploaded.set(true);
                    if progress.status.get() == 0 {
                        upstream.set_deadline(Side::Read, answering);
                    }
                })
                .await
            }
        };
        match downloaded {
            Ok(downloaded) => Ok(self.end(exchange, lease, &downloaded)),
            Err(failure) => Err(Failed { failure, unsent: false, replayable }),
        }
    }

    fn end(&self, exchange: &Exchange, lease: Lease, downloaded: &Downloaded) -> Ending {
        exchange.progress.phase.set(Phase::Done);
        let uploaded = exchange.progress.uploaded.get();
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
    mut download: Pin<&mut impl Future<Output = Result<Downloaded, Failure>>>,
    uploaded: impl Fn(),
) -> Result<Downloaded, Failure> {
    let mut uploading = true;
    let mut broken = None;
    std::future::poll_fn(|context| {
        if uploading && let Poll::Ready(result) = upload.as_mut().poll(context) {
            uploading = false;
            match result {
                Ok(()) => uploaded(),
                Err(UploadFailure::Client(failure)) => return Poll::Ready(Err(failure)),
                Err(UploadFailure::Upstream(failure)) => broken = Some(failure),
            }
        }
        download.as_mut().poll(context).map_err(|failure| broken.unwrap_or(failure))
    })
    .await
}
