//! Moving the response of an endpoint that speaks HTTP/2 down. Its head becomes one of HTTP/1, so
//! that all that is done to heads is done to it; of its body no more is taken than the client has.

use std::task::Poll;

use crate::engine;
use crate::exchange::Uploading;
use crate::exchange::client::Speaks;
use crate::exchange::error_page::Replaced;
use crate::exchange::failure::Failure;
use crate::exchange::record::Phase;
use crate::exchange::relay::{Download, Downloaded, set_deadline};
use crate::http::head::{Framing, Keep, Version};
use crate::http1::parse::Parsed;
use crate::http2::call::Call;
use crate::http2::upstream_call::{Came, HeadCame, UpstreamCall};
use crate::limits;
use crate::shard::workspace::Workspace;
use crate::tls::stream::Stream;

/// A final head, as bytes of HTTP/1.
struct Head {
    bytes: Vec<u8>,
    /// Nothing follows.
    ends: bool,
}

impl Downloaded {
    /// Of an endpoint whose connection does not depend on it.
    fn of_stream(client: Keep) -> Downloaded {
        let upstream = Keep::Open;
        Downloaded { upstream, client, promised: None, replaced: None, switched: None }
    }
}

impl Download<'_> {
    pub(super) async fn run_http2(&mut self, call: &UpstreamCall) -> Result<Downloaded, Failure> {
        let mut interim = 0;
        let mut bytes = Vec::new();
        loop {
            if self.progress.upload.get() == Uploading::Whole {
                self.progress.phase.set(Phase::FirstByte);
            }
            bytes.clear();
            let came = self.head_of(call, &mut bytes).await?;
            self.answer_begins();
            let mut work = self.shard.workspaces.take();
            work.head.clear();
            if self.parse(&mut work.head, &bytes)? != Parsed::Complete {
                return Err(Failure::UpstreamMalformed);
            }
            work.head.version = Version::Http2;
            if work.head.status == 101 {
                // There is no such thing in HTTP/2 (RFC 9113 section 8.6).
                return Err(Failure::UpstreamMalformed);
            }
            if work.head.status >= 200 && self.request.may_switch {
                if work.head.status < 300 {
                    // One that ends with its head was none (RFC 8441 section 5).
                    let answer = (!came.ends).then(|| Downloaded::switched(bytes));
                    return answer.ok_or(Failure::UpstreamMalformed);
                }
                call.finish();
            }
            if work.head.status >= 200 {
                if came.ends {
                    self.is_final(&bytes)?;
                }
                if (work.head.status >= 400 && self.is_intercepted(&work.head))
                    || self.is_no_answer_to_a_call(&work.head, &bytes)
                {
                    return Ok(Replaced::begin(&work.head, &mut bytes));
                }
                let head = Head { bytes, ends: came.ends };
                return match &self.client.speaks {
                    Speaks::Http1(client) => self.relay_down(client, work, head, call).await,
                    Speaks::Http2(client) => self.relay_across(client, work, head, call).await,
                };
            }
            interim += 1;
            if interim > limits::INTERIM_RESPONSES_MAX {
                return Err(Failure::UpstreamMalformed);
            }
            self.interim(&mut work, &bytes).await?;
            set_deadline(self.upstream, self.progress, &self.timeouts);
        }
    }

    /// Waits for the next head; a client that leaves wants none.
    async fn head_of(&self, call: &UpstreamCall, bytes: &mut Vec<u8>) -> Result<HeadCame, Failure> {
        std::future::poll_fn(|context| {
            if let Poll::Ready(came) = call.poll_head(context, bytes) {
                return Poll::Ready(came);
            }
            self.client.poll_broken(context).map(|()| Err(Failure::ClientClosed))
        })
        .await
    }

    /// To a client that speaks HTTP/1.
    async fn relay_down(
        &mut self,
        client: &Stream,
        mut work: Workspace,
        head: Head,
        call: &UpstreamCall,
    ) -> Result<Downloaded, Failure> {
        let framing = match self.framing_for_client(&work.head) {
            // What says nothing of its length, and has none.
            Framing::Chunked | Framing::UntilClose if head.ends => Framing::Length(0),
            framing @ (Framing::Chunked
            | Framing::UntilClose
            | Framing::None
            | Framing::Length(_)) => framing,
        };
        let framing = self.framing_of_call(framing, head.ends);
        let keep = self.keep_for_client(framing);
        self.encode(&mut work, &head.bytes, framing, keep, &self.route.response_headers);
        self.call_begins(&mut work, head.ends || framing == Framing::None);
        self.begins(&work);
        self.progress.framing.set(framing);
        let by_closing = framing == Framing::UntilClose;
        if by_closing {
            // Else the client would take a cut, by whatever it comes about, for the end.
            self.client.set_reset_on_close(true);
        }
        let passed = if head.ends || framing == Framing::None {
            self.pass(client, &mut work, framing, b"", Some(b"")).await
        } else {
            self.body_down(client, work, framing, call).await
        };
        if by_closing && (passed.is_ok() || !self.progress.head_sent.get()) {
            // Where it was no good before the client got any of it, an answer of ours follows.
            self.client.set_reset_on_close(false);
        }
        passed?;
        Ok(Downloaded::of_stream(keep))
    }

    fn begins(&self, work: &Workspace) {
        self.progress.note_response_head(self.plan.capturing(self.route), &work.out);
        self.progress.status.set(work.head.status);
        self.progress.phase.set(Phase::ResponseBody);
    }

    async fn body_down(
        &self,
        client: &Stream,
        mut work: Workspace,
        framing: Framing,
        call: &UpstreamCall,
    ) -> Result<(), Failure> {
        let mut turns = 0;
        loop {
            set_deadline(self.upstream, self.progress, &self.timeouts);
            let came = match self.came_already(call).await {
                Poll::Ready(came) => came?,
                Poll::Pending => {
                    if !work.out.is_empty() {
                        // The head does not wait for the body.
                        let passing = self.pass(client, &mut work, Framing::None, b"", None);
                        call.meanwhile(passing).await?;
                    }
                    drop(work);
                    let came = self.came(call).await;
                    work = self.shard.workspaces.take();
                    came?
                }
            };
            match came {
                Came::Data { bytes, ends } => {
                    let end = ends.then_some(&b""[..]);
                    let passing = self.pass(client, &mut work, framing, &bytes, end);
                    call.meanwhile(passing).await?;
                    call.taken(bytes.len());
                    if ends {
                        return Ok(());
                    }
                }
                Came::End { trailers } => {
                    return self.pass(client, &mut work, framing, b"", Some(&trailers)).await;
                }
            }
            self.turn(&mut turns).await;
        }
    }

    /// From stream to stream.
    async fn relay_across(
        &mut self,
        client: &Call,
        mut work: Workspace,
        head: Head,
        call: &UpstreamCall,
    ) -> Result<Downloaded, Failure> {
        let edits = &self.route.response_headers;
        let framing = self.framing_of_call(work.head.framing, head.ends);
        self.encode(&mut work, &head.bytes, framing, Keep::Open, edits);
        let is_all = head.ends || framing == Framing::None;
        self.call_begins(&mut work, is_all);
        self.begins(&work);
        self.send_head(client, &mut work, is_all)?;
        drop(work);
        if !is_all {
            self.body_across(client, call).await?;
        }
        Ok(Downloaded::of_stream(Keep::Open))
    }

    async fn body_across(&self, client: &Call, call: &UpstreamCall) -> Result<(), Failure> {
        let mut turns = 0;
        loop {
            set_deadline(self.upstream, self.progress, &self.timeouts);
            match self.came(call).await? {
                Came::Data { bytes, ends } => {
                    let (data, end) = self.turned(&bytes, ends.then_some(&b""[..]))?;
                    self.progress.note_response_body(&data);
                    call.meanwhile(self.give(client, &data, end.is_some())).await?;
                    self.call_given()?;
                    call.taken(bytes.len());
                    if ends {
                        return Ok(());
                    }
                }
                Came::End { trailers } => {
                    let (last, trailers) = self.turned(b"", Some(&trailers))?;
                    let trailers = trailers.unwrap_or_default();
                    self.give(client, &last, trailers.is_empty()).await?;
                    return if trailers.is_empty() { Ok(()) } else { client.send_end(trailers) };
                }
            }
            self.turn(&mut turns).await;
        }
    }

    /// Counts, and lets others run now and then.
    async fn turn(&self, turns: &mut u32) {
        self.meter.count();
        *turns += 1;
        if turns.is_multiple_of(limits::IO_PER_TURN) {
            engine::yield_now().await;
        }
    }

    /// What is here already.
    async fn came_already(&self, call: &UpstreamCall) -> Poll<Result<Came, Failure>> {
        std::future::poll_fn(|context| Poll::Ready(call.poll_body(context))).await
    }

    async fn came(&self, call: &UpstreamCall) -> Result<Came, Failure> {
        std::future::poll_fn(|context| {
            if let Poll::Ready(came) = call.poll_body(context) {
                return Poll::Ready(came);
            }
            self.client.poll_broken(context).map(|()| Err(Failure::ClientClosed))
        })
        .await
    }
}
