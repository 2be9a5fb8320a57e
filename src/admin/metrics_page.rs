//! `GET /metrics`: the format that `Accept` asks for, sent in chunks while it is written. Between
//! two pieces the control core does its other work; the data cores notice nothing but the request
//! for their CPU time.

use std::io;
use std::rc::Rc;

use crate::admin::chunks::Chunks;
use crate::control::message::{Findings, Question};
use crate::control::{Control, stats};
use crate::engine;
use crate::http::head::{Keep, Method, RequestHead, Version};
use crate::limits;
use crate::telemetry::exemplars::Gathered;
use crate::telemetry::exposition::{Format, Outlet, Page};
use crate::telemetry::metrics::Series;
use crate::telemetry::{metrics_page, timestamp};
use crate::tls::stream::Stream;

pub(super) fn is_path(control: &Control, head: &RequestHead, bytes: &[u8]) -> bool {
    head.path.of(bytes) == control.plan().metering.path.as_bytes()
}

/// What is not a request for the page is answered like any mistake.
pub(super) fn is_asked(control: &Control, head: &RequestHead, bytes: &[u8]) -> bool {
    is_path(control, head, bytes) && matches!(head.method, Method::Get | Method::Head)
}

/// Whoever does not know chunks gets the page up to the end of the connection.
pub(super) async fn serve(
    control: &Rc<Control>,
    socket: &Stream,
    head: &RequestHead,
    bytes: &[u8],
    keep: Keep,
) -> io::Result<()> {
    let format = Format::accepted(head.named(bytes, b"accept").unwrap_or_default());
    let chunked = head.version != Version::Http10;
    let mut answer = b"HTTP/1.1 200 OK\r\nDate: ".to_vec();
    timestamp::http_date(engine::wall_clock(), &mut answer);
    let framing = if chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
    let close = if keep == Keep::Close || !chunked { "Connection: close\r\n" } else { "" };
    let kind = format.content_type();
    let rest = format!("\r\nContent-Type: {kind}\r\nVary: Accept\r\n{framing}{close}\r\n");
    answer.extend_from_slice(rest.as_bytes());
    let mut chunks = Chunks { socket, chunked, head: answer, patience: limits::ADMIN_TIMEOUT };
    if head.method == Method::Head {
        return chunks.begin().await;
    }
    let exemplars = exemplars(control, format).await;
    // After the exemplars: each of them is counted.
    let snapshot = stats::snapshot(control).await;
    let series = Series { exemplars, ..control.registry.series() };
    let mut page = Page::new(format, chunks);
    metrics_page::write(&snapshot, &series, control.plan().metering.compat, &mut page).await?;
    page.end().await?.end().await?;
    // Closing is how the end is told.
    if chunked { Ok(()) } else { Err(io::ErrorKind::ConnectionAborted.into()) }
}

/// Those of all cores, where they are kept and can be shown.
async fn exemplars(control: &Rc<Control>, format: Format) -> Gathered {
    let mut gathered = Gathered::default();
    if control.plan().metering.exemplars && format == Format::OpenMetrics {
        for (_, findings) in control.ask(Question::Exemplars).await.given {
            if let Findings::Exemplars(of_core) = findings {
                gathered.add(of_core);
            }
        }
    }
    gathered
}

impl Outlet for Chunks<'_> {
    async fn take(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        if !piece.is_empty() {
            self.piece(piece).await?;
            piece.clear();
            engine::yield_now().await;
        }
        Ok(())
    }
}
