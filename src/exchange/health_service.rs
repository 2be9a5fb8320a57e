//! The proxy's own health on listeners, for whoever asks before any route is looked for: pages, and
//! `grpc.health.v1.Health` where `health.grpc` is on.

use std::task::Poll;

use crate::exchange::client::{Client, Speaks};
use crate::exchange::failure::Failure;
use crate::exchange::record::Phase;
use crate::exchange::{Ending, Exchange, Uploading, reply};
use crate::grpc::call::{Caller, failure_lines};
use crate::grpc::health::{Asked, Serving, decode_request, encode_response};
use crate::grpc::messages;
use crate::grpc::status::{self, Code};
use crate::http::head::Method;
use crate::http::headers::HeaderEdits;
use crate::http::reply::Reply;
use crate::http2::call::{Call, Came};
use crate::limits;
use crate::shard::Shard;
use crate::telemetry::health;

impl Exchange {
    pub(super) fn health_page(&self) -> Result<Option<health::Page>, Failure> {
        let asks = matches!(self.head.method, Method::Get | Method::Head);
        let page = asks.then(|| health::Page::find(self.head.path.of(self.input.head()))).flatten();
        let is_refused = page.is_some() && self.wants_tunnel_only();
        if is_refused { Err(Failure::MethodRefused) } else { Ok(page) }
    }

    pub(super) fn asked_of_health(&self) -> Option<Asked> {
        let bytes = self.input.head();
        if self.head.method != Method::Post || Caller::of(&self.head, bytes) != Some(Caller::Grpc) {
            return None;
        }
        Asked::find(self.head.path.of(bytes))
    }

    /// The service that is asked about; or what is wrong with the question.
    async fn health_service(&mut self, call: &Call) -> Result<Result<Vec<u8>, Code>, Failure> {
        let timeout = self.generation.plan.timeouts.read;
        loop {
            if self.input.unused().len() > limits::GRPC_HEALTH_REQUEST_BYTES_MAX {
                return Ok(Err(Code::InvalidArgument));
            }
            let came = call.receive(&mut self.input, timeout).await;
            match came.map_err(|_| Failure::ClientClosed)? {
                Came::Bytes(count) => {
                    let received = self.progress.received.get() + count as u64;
                    self.progress.received.set(received);
                }
                Came::End => break,
            }
        }
        self.progress.upload.set(Uploading::Whole);
        let service = match messages::first(self.input.unused()) {
            Some((0, message, b"")) => decode_request(message),
            Some(_) | None => None,
        };
        Ok(service.map(<[u8]>::to_vec).ok_or(Code::InvalidArgument))
    }
}

pub(super) async fn answer(
    shard: &Shard,
    client: &Client,
    exchange: &mut Exchange,
    asked: Asked,
) -> Result<Ending, Failure> {
    let refuse = async |exchange: &mut Exchange, code, message: &str| {
        let mut lines = Vec::new();
        status::lines(code, message.as_bytes(), &mut lines);
        let refusal = Reply::grpc("application/grpc", lines);
        reply(shard, client, exchange, &refusal, const { &HeaderEdits::NONE }).await
    };
    let Speaks::Http2(call) = &client.speaks else {
        return refuse(exchange, Code::Unimplemented, "this service is spoken over HTTP/2").await;
    };
    let service = match exchange.health_service(call).await? {
        Ok(service) => service,
        Err(code) => return refuse(exchange, code, "this is no HealthCheckRequest").await,
    };
    let said = Said { shard, exchange, call };
    match (asked, said.serving(&service)) {
        (Asked::Check, Serving::ServiceUnknown) => {
            return refuse(exchange, Code::NotFound, "no route names this service").await;
        }
        (Asked::Check, serving) => {
            said.begin()?;
            said.say(serving).await?;
            said.end(Code::Ok, b"")?;
        }
        (Asked::Watch, _) => said.watch(&service).await?,
    }
    Ok(Ending::Keep)
}

/// An answer on its way.
struct Said<'a> {
    shard: &'a Shard,
    exchange: &'a Exchange,
    call: &'a Call,
}

impl Said<'_> {
    /// By the newest configuration: who watches hears of services that come and go.
    fn serving(&self, service: &[u8]) -> Serving {
        let generation = self.shard.generation();
        let known = generation.plan.health_grpc.as_deref().unwrap_or_default();
        let health = self.shard.health.borrow();
        let ready = health.ready && !self.shard.life.is_draining();
        Serving::of(service, known, ready, &health.unserved)
    }

    /// Now, and at every change, until the client has enough or this process ends.
    async fn watch(&self, service: &[u8]) -> Result<(), Failure> {
        self.begin()?;
        let mut told = None;
        let watcher = self.shard.watchers.enter();
        loop {
            let serving = self.serving(service);
            if told.replace(serving) != Some(serving) {
                self.say(serving).await?;
            }
            if self.shard.life.is_draining() {
                let mut lines = Vec::new();
                failure_lines(Failure::Draining, &mut lines);
                return self.call.send_end(&lines);
            }
            std::future::poll_fn(|context| {
                if self.serving(service) != serving || self.shard.life.is_draining() {
                    return Poll::Ready(Ok(()));
                }
                watcher.wait(context);
                self.call.poll_broken(context).map(|()| Err(Failure::ClientClosed))
            })
            .await?;
        }
    }

    fn begin(&self) -> Result<(), Failure> {
        let lines = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\nx-request-id: ";
        let mut head = lines.to_vec();
        head.extend_from_slice(self.exchange.request_id());
        head.extend_from_slice(b"\r\n\r\n");
        let progress = &self.exchange.progress;
        progress.status.set(200);
        progress.phase.set(Phase::ResponseBody);
        progress.head_sent.set(true);
        progress.sent.set(progress.sent.get() + head.len() as u64);
        self.call.send_head(&head, false)
    }

    async fn say(&self, serving: Serving) -> Result<(), Failure> {
        let mut message = Vec::new();
        encode_response(serving, &mut message);
        let patience = self.exchange.generation.plan.timeouts.write;
        let mut rest = &message[..];
        while !rest.is_empty() {
            let room = self.call.until_room(rest.len(), patience, |_| true).await?;
            let (piece, left) = rest.split_at(room.min(rest.len()));
            self.call.send_data(piece, false)?;
            let progress = &self.exchange.progress;
            progress.sent.set(progress.sent.get() + piece.len() as u64);
            progress.body_sent.set(progress.body_sent.get() + piece.len() as u64);
            rest = left;
        }
        Ok(())
    }

    fn end(&self, code: Code, message: &[u8]) -> Result<(), Failure> {
        let mut lines = Vec::new();
        status::lines(code, message, &mut lines);
        self.call.send_end(&lines)
    }
}
