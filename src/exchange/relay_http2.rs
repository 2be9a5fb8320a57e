//! Moving the response of an endpoint that speaks HTTP/2 down. Its head becomes one of HTTP/1, so
//! that all that is done to heads is done to it; of its body no more is taken than the client has.

use std::task::Poll;

use crate::engine;
use crate::exchange::Uploading;
use crate::exchange::error_page::Replaced;
use crate::exchange::failure::Failure;
use crate::exchange::record::Phase;
use crate::exchange::relay::{Download, Downloaded, set_deadline};
use crate::http::head::{Framing, Keep, Version};
use crate::http1::parse::Parsed;
use crate::http2::upstream_call::{Came, HeadCame, UpstreamCall};
use crate::limits;
use crate::shard::workspace::Workspace;

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
            work.head.version = Version::Http11;
            if work.head.status >= 200 {
                return match work.head.status >= 400 && self.is_intercepted(&work.head) {
                    true => Ok(Replaced::begin(&work.head, &mut bytes)),
                    false => self.relay_http2(work, &bytes, came, call).await,
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
            self.client.stream.poll_broken(context).map(|()| Err(Failure::ClientClosed))
        })
        .await
    }

    async fn relay_http2(
        &mut self,
        mut work: Workspace,
        bytes: &[u8],
        came: HeadCame,
        call: &UpstreamCall,
    ) -> Result<Downloaded, Failure> {
        let framing = match self.framing_for_client(&work.head) {
            // What says nothing of its length, and has none.
            Framing::Chunked | Framing::UntilClose if came.ends => Framing::Length(0),
            framing @ (Framing::Chunked
            | Framing::UntilClose
            | Framing::None
            | Framing::Length(_)) => framing,
        };
        let keep = self.keep_for_client(framing);
        self.encode(&mut work, bytes, framing, keep, &self.route.response_headers);
        self.progress.note_response_head(self.plan.capturing(self.route), &work.out);
        self.progress.status.set(work.head.status);
        self.progress.framing.set(framing);
        self.progress.phase.set(Phase::ResponseBody);
        let by_closing = framing == Framing::UntilClose;
        if by_closing {
            // Else the client would take a cut, by whatever it comes about, for the end.
            self.client.stream.set_reset_on_close(true);
        }
        if came.ends || framing == Framing::None {
            self.give(&mut work, framing, b"", Some(b"")).await?;
        } else {
            self.body_http2(work, framing, call).await?;
        }
        if by_closing {
            self.client.stream.set_reset_on_close(false);
        }
        Ok(Downloaded { upstream: Keep::Open, client: keep, promised: None, replaced: None })
    }

    async fn body_http2(
        &self,
        mut work: Workspace,
        framing: Framing,
        call: &UpstreamCall,
    ) -> Result<(), Failure> {
        let mut turns = 0;
        loop {
            set_deadline(self.upstream, self.progress, &self.timeouts);
            let came = match self.poll_came(call).await {
                Poll::Ready(came) => came?,
                Poll::Pending => {
                    // The head, or nothing: it does not wait for the body.
                    if !work.out.is_empty() {
                        self.give(&mut work, Framing::None, b"", None).await?;
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
                    self.give(&mut work, framing, &bytes, end).await?;
                    call.taken(bytes.len());
                    if ends {
                        return Ok(());
                    }
                }
                Came::End { trailers } => {
                    return self.give(&mut work, framing, b"", Some(&trailers)).await;
                }
            }
            self.meter.count();
            turns += 1;
            if turns % limits::IO_PER_TURN == 0 {
                engine::yield_now().await;
            }
        }
    }

    /// What is here already.
    async fn poll_came(&self, call: &UpstreamCall) -> Poll<Result<Came, Failure>> {
        std::future::poll_fn(|context| Poll::Ready(call.poll_body(context))).await
    }

    async fn came(&self, call: &UpstreamCall) -> Result<Came, Failure> {
        std::future::poll_fn(|context| {
            if let Poll::Ready(came) = call.poll_body(context) {
                return Poll::Ready(came);
            }
            self.client.stream.poll_broken(context).map(|()| Err(Failure::ClientClosed))
        })
        .await
    }
}
