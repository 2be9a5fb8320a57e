//! The operators' HTTP on the control core: metrics on one port, admin on another. Here one
//! connection is read and answered; what can be asked is the table in [`api`].

mod api;
mod audit;
mod auth;
mod blacklist;
mod call;
mod certificates;
mod changes;
mod chunks;
pub(crate) mod client;
mod clusters;
mod config;
mod connections;
mod drain;
mod endpoints;
mod errors;
mod events;
mod health;
mod logging;
mod metrics;
mod metrics_page;
mod openapi;
mod places;
mod refusal;
mod shape;
mod status;
mod stream;
mod tap;
mod upgrade;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use crate::admin::api::Found;
use crate::admin::auth::Refused;
use crate::admin::call::{Answer, Call};
use crate::admin::places::{Place, Places};
use crate::admin::refusal::Refusal;
use crate::control::{self, Control};
use crate::engine::{self, Buf, Listener, Side, Socket};
use crate::exchange::failure::Failure;
use crate::http::head::{Framing, Keep, Method, RequestHead};
use crate::http::headers::HeaderEdits;
use crate::http::reply::{BodySent, Extra, Reply, Sending};
use crate::http1::body::Decoder;
use crate::http1::parse::{self, HeadLimits, Parsed};
use crate::http1::server::linger;
use crate::limits;
use crate::tls::stream::Stream;

/// What a port serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Metrics,
    Admin,
}

impl Port {
    fn name(self) -> &'static str {
        match self {
            Port::Metrics => "metrics",
            Port::Admin => "admin",
        }
    }
}

/// What the ports remember.
pub(crate) struct Desk {
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    refused: Refused,
    /// Connections that were closed for others, at both ports.
    displaced: Rc<Cell<u64>>,
    shown: RefCell<Option<config::Shown>>,
    /// That are open.
    streams: Rc<Cell<usize>>,
}

impl Desk {
    pub(crate) fn new(now: Instant, wall: SystemTime) -> Desk {
        Desk {
            started: now,
            started_at: wall,
            refused: Refused::default(),
            displaced: Rc::default(),
            shown: RefCell::default(),
            streams: Rc::default(),
        }
    }
}

/// Until `ending`: then requests that run, or are on their way on a new connection, are answered,
/// and every connection is closed.
pub(crate) async fn serve(
    control: Rc<Control>,
    mut listener: Listener,
    port: Port,
    ending: impl Future<Output = ()>,
) {
    let places = Rc::new(Places::new(port, Rc::clone(&control.desk.displaced)));
    control::first(accept(&control, &mut listener, port, &places), ending).await;
    places.end();
    // For streams.
    control.wake();
    for socket in listener.leave().await {
        if let Ok(peer) = socket.peer_address() {
            begin(&control, socket, peer, port, &places);
        }
    }
    drop(listener);
    let grace_ends = engine::now() + limits::ADMIN_FIRST_REQUEST_GRACE;
    while !places.are_empty() && engine::now() < grace_ends {
        engine::sleep(limits::CORE_STOP_LOOK_INTERVAL).await;
    }
    places.end_all();
}

async fn accept(control: &Rc<Control>, listener: &mut Listener, port: Port, places: &Rc<Places>) {
    loop {
        let socket = match listener.accept().await {
            Ok(socket) => socket,
            Err(error) => {
                places.complain_of_accept(&error);
                engine::sleep(limits::FULL_RETRY_INTERVAL).await;
                continue;
            }
        };
        // Gone already: nobody to answer.
        let Ok(peer) = socket.peer_address() else { continue };
        while !places.has_room_for(peer.ip()) {
            listener.pause();
            engine::sleep(limits::FULL_RETRY_INTERVAL).await;
        }
        begin(control, socket, peer, port, places);
    }
}

fn begin(control: &Rc<Control>, socket: Socket, peer: SocketAddr, port: Port, places: &Rc<Places>) {
    let socket = Stream::plain(socket);
    let (control, place) = (Rc::clone(control), places.take(peer.ip(), engine::now()));
    engine::spawn(async move {
        let buffer = engine::buffer();
        let input = Input { socket: &socket, buffer, start: 0, end: 0 };
        let served = Box::pin(connection(&control, input, peer, port, &place));
        control::first(served, place.lost()).await;
    });
}

/// What a client has sent and nobody has used yet: `buffer[start..end]`.
struct Input<'s> {
    socket: &'s Stream,
    buffer: Buf,
    start: usize,
    end: usize,
}

async fn connection(
    control: &Rc<Control>,
    mut input: Input<'_>,
    peer: SocketAddr,
    port: Port,
    place: &Place,
) {
    let mut head = RequestHead::default();
    // Also when the port closes meanwhile, or did before this was accepted: a first request is
    // answered, and is the last one then.
    loop {
        place.waits();
        let refused = match input.read_head(&mut head).await {
            Ok(()) => None,
            Err(Gone::Silently) => return,
            Err(Gone::Refused(failure)) => {
                head.clear();
                Some(Refusal::Http(failure))
            }
        };
        place.answers();
        if refused.is_none()
            && port == Port::Metrics
            && metrics_page::is_asked(control, &head, &input.buffer[..head.bytes])
        {
            let goes_on = head.framing == Framing::None && !place.is_over();
            let keep = if goes_on { head.keep } else { Keep::Close };
            let bytes = &input.buffer[..head.bytes];
            let served = metrics_page::serve(control, input.socket, &head, bytes, keep).await;
            if served.is_err() || keep == Keep::Close {
                return;
            }
            continue;
        }
        let (head, body_is_over) = (&head, false);
        let mut request = Request { control, peer, port, place, head, body_is_over };
        let mut result = match refused {
            None => request.answer(&mut input).await,
            Some(refusal) => Err(refusal),
        };
        if let Ok(answer) = &mut result
            && let Some(stream) = answer.stream.take()
            && head.method != Method::Head
        {
            if stream::serve(control, &mut input, place, head, stream).await.is_ok() {
                linger(input.socket).await;
            }
            return;
        }
        // After an upgrade, the next request is for the process that has taken over.
        let goes_on =
            request.body_is_over && !place.is_over() && control.handed_over_to().is_none();
        let keep = if goes_on { head.keep } else { Keep::Close };
        if request.send(&input, result, keep).await.is_err() {
            return;
        }
        if keep == Keep::Close {
            return linger(input.socket).await;
        }
    }
}

/// Why there is no request.
enum Gone {
    Silently,
    Refused(Failure),
}

impl Input<'_> {
    async fn read_head(&mut self, head: &mut RequestHead) -> Result<(), Gone> {
        let limits = HeadLimits {
            url_bytes_max: limits::URL_BYTES_MAX,
            header_bytes_max: limits::HEADER_BYTES_MAX,
            headers_max: limits::HEADERS_MAX,
        };
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        self.socket.set_deadline(Side::Read, Some(limits::ADMIN_TIMEOUT));
        head.clear();
        loop {
            match parse::request(&self.buffer[..self.end], &limits, head) {
                Ok(Parsed::Complete) => {
                    self.start = head.bytes;
                    return Ok(());
                }
                Ok(Parsed::Partial) => {}
                Err(malformed) => return Err(Gone::Refused(malformed.into())),
            }
            match self.socket.recv(&mut self.buffer[self.end..]).await {
                Ok(0) => return Err(Gone::Silently),
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::TimedOut && self.end > 0 => {
                    return Err(Gone::Refused(Failure::HeaderTimeout));
                }
                Err(_) => return Err(Gone::Silently),
            }
        }
    }

    /// The whole body; the head in the buffer is read over.
    async fn read_body(&mut self, head: &RequestHead, max: usize) -> Result<Vec<u8>, Refusal> {
        if matches!(head.framing, Framing::Length(length) if length > max as u64) {
            return Err(Refusal::BodyTooLarge(max));
        }
        let mut decoder = Decoder::new(head.framing);
        let mut body = Vec::new();
        self.socket.set_deadline(Side::Read, Some(limits::ADMIN_TIMEOUT));
        if head.expects_continue && !decoder.is_finished() && self.start == self.end {
            let parts = [&b"HTTP/1.1 100 Continue\r\n\r\n"[..], b"", b""];
            let sent = self.socket.send(&parts, limits::ADMIN_TIMEOUT).await;
            sent.map_err(|_| Refusal::Http(Failure::ClientClosed))?;
        }
        loop {
            let input = &mut self.buffer[self.start..self.end];
            let decoded = decoder.decode(input).map_err(|_| Failure::BodyMalformed)?;
            body.extend_from_slice(decoded.of(input));
            self.start += decoded.consumed;
            if body.len() > max {
                return Err(Refusal::BodyTooLarge(max));
            }
            if decoded.end {
                return Ok(body);
            }
            (self.start, self.end) = (0, 0);
            match self.socket.recv(&mut self.buffer).await {
                Ok(0) => return Err(Refusal::Http(Failure::ClientClosed)),
                Ok(count) => self.end = count,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(Refusal::Http(Failure::BodyTimeout));
                }
                Err(_) => return Err(Refusal::Http(Failure::ClientClosed)),
            }
        }
    }
}

/// One request on its way to an answer.
struct Request<'a> {
    control: &'a Rc<Control>,
    peer: SocketAddr,
    port: Port,
    place: &'a Place,
    head: &'a RequestHead,
    /// What follows on the connection is another request.
    body_is_over: bool,
}

impl Request<'_> {
    async fn answer(&mut self, input: &mut Input<'_>) -> Result<Answer, Refusal> {
        let bytes = &input.buffer[..self.head.bytes];
        self.body_is_over = self.head.framing == Framing::None;
        // Wherever the page is, the table knows it by one name.
        let is_metrics = metrics_page::is_path(self.control, self.head, bytes);
        let path = match self.port {
            Port::Metrics if is_metrics => metrics::PATH.to_owned(),
            Port::Metrics | Port::Admin => {
                String::from_utf8_lossy(self.head.path.of(bytes)).into_owned()
            }
        };
        let method = self.head.method_name.of(bytes);
        let method = String::from_utf8_lossy(method).into_owned();
        let found = api::find(self.port, self.head.method, &path);
        let mut who = String::new();
        let admitted = self.admit(&found, bytes, &mut who);
        let asked = audit::Asked { who: &who, peer: self.peer, method: &method, path: &path };
        if let Err(refusal) = admitted {
            return Err(self.turn_away(&asked, refusal).await);
        }
        let mut target = audit::Target::default();
        let result = self.run(input, &found, &who, &mut target).await;
        if matches!(&found, Found::Operation(operation, _) if operation.is_audited()) {
            audit::change(self.control, &asked, &target, &result);
        }
        result
    }

    /// Counted, audited, and late for who might be guessing.
    async fn turn_away(&self, asked: &audit::Asked<'_>, refusal: Refusal) -> Refusal {
        let (refused, now) = (&self.control.desk.refused, engine::now());
        refused.count(&refusal, self.peer, now);
        if let Some(untold) = refused.to_audit(&refusal, now) {
            audit::refused(self.control, untold, asked, &refusal);
        }
        if !refusal.is_of_known() {
            engine::sleep(limits::ADMIN_REFUSAL_DELAY).await;
        }
        refusal
    }

    /// The door: who asks, from where, and whether they may.
    fn admit(&self, found: &Found, bytes: &[u8], who: &mut String) -> Result<(), Refusal> {
        let needed = match found {
            Found::Operation(operation, _) => operation.role,
            // Whoever may not look learns nothing of what there is.
            Found::OtherMethods(_) | Found::Nothing => match self.port {
                Port::Admin => Some(crate::plan::Role::Viewer),
                Port::Metrics => None,
            },
        };
        let Some(needed) = needed else { return Ok(()) };
        let plan = &self.control.plan();
        let access = &plan.admin_access;
        if !auth::host_is_ours(access, plan.admin, self.head.authority.of(bytes)) {
            return Err(Refusal::ForeignHost);
        }
        // What shows clients' traffic or takes the only seat is no other site's to ask for either.
        let is_audited = matches!(found, Found::Operation(operation, _) if operation.is_audited());
        let is_guarded = is_audited || !self.head.method.is_safe();
        if is_guarded && !auth::origin_is_ours(self.head, bytes) {
            return Err(Refusal::ForeignOrigin);
        }
        let caller = auth::caller(access, &auth::pass(self.peer, self.head, bytes));
        self.place.set_let_in(caller.is_ok());
        let caller = caller?;
        *who = caller.name;
        if caller.role < needed {
            return Err(Refusal::RoleTooLow { needed, has: caller.role });
        }
        Ok(())
    }

    async fn run(
        &mut self,
        input: &mut Input<'_>,
        found: &Found,
        who: &str,
        target: &mut audit::Target,
    ) -> Result<Answer, Refusal> {
        let (operation, values) = match found {
            Found::Operation(operation, values) => (*operation, values.clone()),
            Found::OtherMethods(methods) => return Err(Refusal::OtherMethods(methods.clone())),
            Found::Nothing => return Err(Refusal::UnknownPath),
        };
        if let (true, Some(pid)) = (operation.changes(), self.control.handed_over_to()) {
            return Err(Refusal::Conflict(format!(
                "process {pid} serves in the place of this one: ask again on a new connection"
            )));
        }
        let bytes = &input.buffer[..self.head.bytes];
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let header = |name: &[u8]| text(self.head.named(bytes, name).unwrap_or_default());
        let query = text(self.head.query.of(bytes));
        let (content_type, accept) = (header(b"content-type"), header(b"accept"));
        let if_match = header(b"if-match");
        let pass = operation.role.map(|role| (auth::pass(self.peer, self.head, bytes), role));
        let was_over = self.place.is_over();
        let body = input.read_body(self.head, operation.body_bytes_max()).await?;
        self.body_is_over = true;
        // Whoever may no longer come in must not finish what was begun.
        if self.place.is_over() && !was_over {
            return Err(Refusal::Http(Failure::ClientClosed));
        }
        let is_typed = operation.takes_configuration() || !body.is_empty();
        if is_typed && !is_one_of(&content_type, operation.types()) {
            return Err(operation.other_type());
        }
        let query = call::query(&query, operation.parameters)?;
        if operation.is_audited() {
            let text = if operation.takes_configuration() { b"" } else { &body[..] };
            *target = audit::Target::new(&query, text, &self.control.plan().secrets);
        }
        let (who, peer) = (who.to_owned(), self.peer);
        let call = Call { values, query, content_type, accept, if_match, who, peer, pass, body };
        if let Some(refusal) = call.is_let_in_no_more(&self.control.plan()) {
            return Err(refusal);
        }
        (operation.run)(self.control, &call).await
    }

    async fn send(
        &self,
        input: &Input<'_>,
        result: Result<Answer, Refusal>,
        keep: Keep,
    ) -> Result<(), ()> {
        let now = engine::wall_clock();
        let request_id = request_id();
        let mut edits = HeaderEdits::NONE;
        let mut header = |name: &str, value: &str| {
            edits.set.push((name.as_bytes().into(), value.as_bytes().into()));
        };
        header("Cache-Control", "no-store");
        header("X-Content-Type-Options", "nosniff");
        if let Ok(Answer { etag: Some(etag), .. }) = &result {
            header("ETag", etag);
        }
        let reply = match &result {
            Ok(answer) => Reply {
                status: answer.status,
                content_type: answer.content_type,
                body: Cow::Borrowed(&answer.body),
                extra: Extra::None,
                varies: false,
            },
            // Nobody is there to read it.
            Err(refusal) if refusal.status() == 0 => return Err(()),
            Err(refusal) => {
                if let Some((name, value)) = refusal.header() {
                    header(name, &value);
                }
                refusal.reply(request_id.as_bytes(), now)
            }
        };
        let head_only = self.head.method == Method::Head;
        let plan = self.control.plan();
        let sending = Sending {
            version: self.head.version,
            keep,
            body: if head_only { BodySent::HeadOnly } else { BodySent::Whole },
            date: now,
            proxy_id: &plan.proxy_id,
            request_id: request_id.as_bytes(),
            edits: &edits,
        };
        let mut out = Vec::new();
        reply.encode(&sending, &mut out);
        let parts = [&out[..], b"", b""];
        chunks::send(input.socket, &parts, limits::ADMIN_TIMEOUT).await.map_err(|_| ())
    }
}

fn is_one_of(content_type: &str, known: &[&str]) -> bool {
    let (kind, _) = content_type.split_once(';').unwrap_or((content_type, ""));
    known.iter().any(|known| kind.trim().eq_ignore_ascii_case(known))
}

fn request_id() -> String {
    format!("{:016x}{:016x}", engine::random_seed(), engine::random_seed())
}
