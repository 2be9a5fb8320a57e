//! The operators' HTTP on the control core: metrics on one port, admin on another. Small on
//! purpose: GET and HEAD, no request bodies.

mod metrics_page;

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;

use crate::control::{Control, stats};
use crate::engine::{self, Listener, Side, Socket};
use crate::exchange::failure::Failure;
use crate::http::head::{Framing, Keep, Method, RequestHead};
use crate::http::headers::HeaderEdits;
use crate::http::reply::{BodySent, Extra, Reply, Sending};
use crate::http1::parse::{self, HeadLimits, Parsed};
use crate::limits;
use crate::plan::Plan;
use crate::telemetry::metrics;

/// What a port serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    Metrics,
    Admin,
}

pub(crate) async fn serve(control: Rc<Control>, mut listener: Listener, page: Page) {
    let open = Rc::new(Cell::new(0));
    loop {
        if open.get() >= limits::ADMIN_CONNECTIONS_MAX {
            listener.pause();
            engine::sleep(limits::FULL_RETRY_INTERVAL).await;
            continue;
        }
        let Ok(socket) = listener.accept().await else {
            engine::sleep(limits::FULL_RETRY_INTERVAL).await;
            continue;
        };
        open.set(open.get() + 1);
        let (control, open) = (Rc::clone(&control), Open(Rc::clone(&open)));
        engine::spawn(async move {
            connection(&control, &socket, page).await;
            drop(open);
        });
    }
}

/// One open connection.
struct Open(Rc<Cell<usize>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn connection(control: &Rc<Control>, socket: &Socket, page: Page) {
    let mut buffer = engine::buffer();
    let mut end = 0;
    let mut head = RequestHead::default();
    loop {
        let failure = match read_head(socket, &mut buffer, &mut end, &mut head).await {
            Some(Ok(())) => None,
            Some(Err(failure)) => Some(failure),
            None => return,
        };
        let keep = if failure.is_some() || head.framing != Framing::None {
            Keep::Close
        } else {
            head.keep
        };
        if page == Page::Metrics
            && failure.is_none()
            && metrics_page::is_asked(control, &head, &buffer)
        {
            let served = metrics_page::serve(control, socket, &head, &buffer, keep).await;
            if served.is_err() || keep == Keep::Close {
                return;
            }
            buffer.copy_within(head.bytes..end, 0);
            end -= head.bytes;
            continue;
        }
        let request_id = b"admin";
        let reply = match failure {
            None => answer(control, page, &head, &buffer).await,
            Some(failure) => Err(failure),
        };
        let reply = match reply {
            Ok(reply) => reply,
            Err(failure) => match Reply::failure(failure, request_id, engine::wall_clock()) {
                Some(reply) => reply,
                None => return,
            },
        };
        let mut out = Vec::new();
        let plan = control.plan();
        reply.encode(&sending(&plan, &head, keep, request_id), &mut out);
        if socket.send(&[&out, b"", b""], limits::ADMIN_TIMEOUT).await.is_err()
            || keep == Keep::Close
        {
            return;
        }
        buffer.copy_within(head.bytes..end, 0);
        end -= head.bytes;
    }
}

fn sending<'a>(
    plan: &'a Plan,
    head: &RequestHead,
    keep: Keep,
    request_id: &'a [u8],
) -> Sending<'a> {
    Sending {
        version: head.version,
        keep,
        body: if head.method == Method::Head { BodySent::HeadOnly } else { BodySent::Whole },
        date: engine::wall_clock(),
        proxy_id: &plan.proxy_id,
        request_id,
        edits: const { &HeaderEdits::NONE },
    }
}

/// `None`: the connection is over.
async fn read_head(
    socket: &Socket,
    buffer: &mut [u8],
    end: &mut usize,
    head: &mut RequestHead,
) -> Option<Result<(), Failure>> {
    let limits = HeadLimits {
        url_bytes_max: limits::URL_BYTES_MAX,
        header_bytes_max: limits::HEADER_BYTES_MAX,
        headers_max: limits::HEADERS_MAX,
    };
    socket.set_deadline(Side::Read, Some(limits::ADMIN_TIMEOUT));
    head.clear();
    loop {
        match parse::request(&buffer[..*end], &limits, head) {
            Ok(Parsed::Complete) => return Some(Ok(())),
            Ok(Parsed::Partial) => {}
            Err(malformed) => return Some(Err(malformed.into())),
        }
        match socket.recv(&mut buffer[*end..]).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => *end += count,
        }
    }
}

async fn answer(
    control: &Rc<Control>,
    page: Page,
    head: &RequestHead,
    bytes: &[u8],
) -> Result<Reply<'static>, Failure> {
    let path = head.path.of(bytes);
    let known = match page {
        Page::Metrics => metrics_page::is_path(control, head, bytes),
        Page::Admin => path == b"/admin/cores",
    };
    if !known {
        return Err(Failure::NoRoute);
    }
    if !matches!(head.method, Method::Get | Method::Head) {
        return Err(Failure::MethodRefused);
    }
    let body = metrics::cores_json(&stats::snapshot(control).await).into_bytes();
    let content_type = "application/json";
    Ok(Reply { status: 200, content_type, body: Cow::Owned(body), extra: Extra::None })
}
