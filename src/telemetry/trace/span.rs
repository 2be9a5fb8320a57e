//! What is told of an exchange. A data core writes a compact record ([`encode`]) into a batch; the
//! exporter's thread reads it ([`decode`]) and makes the spans of it, one for the exchange and one
//! for each attempt. Names of attributes are OpenTelemetry's where it has one.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::exchange::record::{Record, Timings};
use crate::limits::TRACE_FIELD_BYTES_MAX;
use crate::telemetry::client_tls::ClientTls;
use crate::telemetry::trace::attributes::{Attributes, Value};

/// Which span of which trace an exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub trace_id: u128,
    pub span_id: u64,
    /// 0: it has none.
    pub parent_id: u64,
    pub debug: bool,
}

/// One try of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub span_id: u64,
    /// Since the begin of the exchange, in microseconds.
    pub begin: u64,
    /// Queue, connect, TLS, upload, first byte and body, in microseconds, one after the other.
    pub spans: [u64; Timings::SPANS - 1],
    /// Without one, none was found.
    pub endpoint: Option<SocketAddr>,
    pub reused: bool,
    /// It spoke TLS.
    pub secure: bool,
    /// 0 when nothing came.
    pub status: u16,
    /// The label; empty when it went well.
    pub failure: &'static str,
}

/// An exchange as it is read from a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange<'a> {
    pub identity: Identity,
    pub end_nanos: u64,
    /// The head, then those of an attempt: as in the access log.
    pub micros: [u64; Timings::SPANS],
    pub status: u16,
    pub peer: SocketAddr,
    pub client: IpAddr,
    pub failure: Cow<'a, str>,
    pub request_id: Cow<'a, str>,
    pub listener: Cow<'a, str>,
    pub route: Cow<'a, str>,
    pub cluster: Cow<'a, str>,
    pub method: Cow<'a, str>,
    pub path: Cow<'a, str>,
    pub host: Cow<'a, str>,
    pub version: Cow<'a, str>,
    pub user_agent: Cow<'a, str>,
    pub scheme: Cow<'a, str>,
    /// Empty, as the other two are, when the client's connection is plain.
    pub tls_version: Cow<'a, str>,
    pub tls_cipher: Cow<'a, str>,
    pub tls_client: Cow<'a, str>,
    pub attempts: Vec<Told<'a>>,
}

/// An attempt as it is read from a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told<'a> {
    pub span_id: u64,
    pub begin: u64,
    pub spans: [u64; Timings::SPANS - 1],
    pub endpoint: Option<SocketAddr>,
    pub reused: bool,
    pub secure: bool,
    pub status: u16,
    pub failure: Cow<'a, str>,
}

// --- records ----------------------------------------------------------------------------------

/// Appends one record. Nothing is allocated but what `out` needs to grow.
pub fn encode(
    record: &Record<'_>,
    identity: &Identity,
    path: &[u8],
    attempts: &[Attempt],
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&identity.trace_id.to_le_bytes());
    number(out, identity.span_id);
    number(out, identity.parent_id);
    out.push(u8::from(identity.debug));
    number(out, nanos(record.at));
    let (micros, _) = record.timings.micros();
    micros.iter().for_each(|micros| number(out, *micros));
    out.extend_from_slice(&record.status.to_le_bytes());
    socket(out, Some(record.peer));
    socket(out, Some(SocketAddr::new(record.client, 0)));
    let failure = record.failure.map_or("", |failure| failure.label());
    for field in [
        failure.as_bytes(),
        record.request_id,
        record.listener.as_bytes(),
        record.route.as_bytes(),
        record.cluster.as_bytes(),
        record.method,
        path,
        record.host,
        record.version.as_bytes(),
        record.user_agent,
        record.scheme.as_bytes(),
        record.tls.map_or("", |tls| tls.version).as_bytes(),
        record.tls.map_or("", |tls| tls.cipher).as_bytes(),
        record.tls.as_ref().map_or("", ClientTls::subject).as_bytes(),
    ] {
        text(out, field);
    }
    out.push(attempts.len().min(255) as u8);
    for attempt in attempts.iter().take(255) {
        number(out, attempt.span_id);
        number(out, attempt.begin);
        attempt.spans.iter().for_each(|micros| number(out, *micros));
        socket(out, attempt.endpoint);
        out.push(u8::from(attempt.reused));
        out.push(u8::from(attempt.secure));
        out.extend_from_slice(&attempt.status.to_le_bytes());
        text(out, attempt.failure.as_bytes());
    }
}

/// Takes one record off the front of `batch`; `None` at its end.
pub fn decode<'a>(batch: &mut &'a [u8]) -> Option<Exchange<'a>> {
    let identity = Identity {
        trace_id: u128::from_le_bytes(take(batch)?),
        span_id: take_number(batch)?,
        parent_id: take_number(batch)?,
        debug: take::<1>(batch)? == [1],
    };
    let end_nanos = take_number(batch)?;
    let micros = take_numbers(batch)?;
    let status = u16::from_le_bytes(take(batch)?);
    let peer = take_socket(batch)??;
    let client = take_socket(batch)??.ip();
    let mut exchange = Exchange {
        identity,
        end_nanos,
        micros,
        status,
        peer,
        client,
        failure: take_text(batch)?,
        request_id: take_text(batch)?,
        listener: take_text(batch)?,
        route: take_text(batch)?,
        cluster: take_text(batch)?,
        method: take_text(batch)?,
        path: take_text(batch)?,
        host: take_text(batch)?,
        version: take_text(batch)?,
        user_agent: take_text(batch)?,
        scheme: take_text(batch)?,
        tls_version: take_text(batch)?,
        tls_cipher: take_text(batch)?,
        tls_client: take_text(batch)?,
        attempts: Vec::new(),
    };
    let [attempts] = take(batch)?;
    for _ in 0..attempts {
        exchange.attempts.push(Told {
            span_id: take_number(batch)?,
            begin: take_number(batch)?,
            spans: take_numbers(batch)?,
            endpoint: take_socket(batch)?,
            reused: take::<1>(batch)? == [1],
            secure: take::<1>(batch)? == [1],
            status: u16::from_le_bytes(take(batch)?),
            failure: take_text(batch)?,
        });
    }
    Some(exchange)
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(TRACE_FIELD_BYTES_MAX)];
    out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// 0, or 4 or 6 with the address and the port. An IPv4-mapped address is the IPv4 address.
fn socket(out: &mut Vec<u8>, address: Option<SocketAddr>) {
    match address.map(|address| (address.ip().to_canonical(), address.port())) {
        None => out.push(0),
        Some((IpAddr::V4(ip), port)) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
            out.extend_from_slice(&port.to_le_bytes());
        }
        Some((IpAddr::V6(ip), port)) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
            out.extend_from_slice(&port.to_le_bytes());
        }
    }
}

fn take<const N: usize>(batch: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = batch.split_first_chunk::<N>()?;
    *batch = rest;
    Some(*bytes)
}

fn take_number(batch: &mut &[u8]) -> Option<u64> {
    take(batch).map(u64::from_le_bytes)
}

fn take_numbers<const N: usize>(batch: &mut &[u8]) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = take_number(batch)?;
    }
    Some(numbers)
}

/// Bytes of a peer are not always text, and a collector refuses a whole request for one such field.
fn take_text<'a>(batch: &mut &'a [u8]) -> Option<Cow<'a, str>> {
    let length = usize::from(u16::from_le_bytes(take(batch)?));
    let (bytes, rest) = batch.split_at_checked(length)?;
    *batch = rest;
    Some(String::from_utf8_lossy(bytes))
}

fn take_socket(batch: &mut &[u8]) -> Option<Option<SocketAddr>> {
    let ip = match take(batch)? {
        [4] => IpAddr::from(take::<4>(batch)?),
        [6] => IpAddr::from(take::<16>(batch)?),
        [_] => return Some(None),
    };
    Some(Some(SocketAddr::new(ip, u16::from_le_bytes(take(batch)?))))
}

// --- spans ------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Server,
    Client,
}

/// One span, in the words that all ways to send it share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span<'a> {
    pub trace_id: u128,
    pub id: u64,
    /// 0: it has none.
    pub parent_id: u64,
    pub debug: bool,
    pub name: String,
    pub kind: Kind,
    pub begin_nanos: u64,
    pub end_nanos: u64,
    pub attributes: Vec<(&'static str, Value<'a>)>,
    /// `error.type`, when it failed.
    pub error: Option<Cow<'a, str>>,
    pub remote: Option<SocketAddr>,
}

impl<'a> Exchange<'a> {
    /// The exchange's own span first, then its attempts in their order.
    pub fn spans(&'a self) -> Vec<Span<'a>> {
        let attempts = self.attempts.iter().enumerate();
        std::iter::once(self.server())
            .chain(attempts.map(|(number, attempt)| self.client(number, attempt)))
            .collect()
    }

    fn begin_nanos(&self) -> u64 {
        self.end_nanos.saturating_sub(self.micros.iter().sum::<u64>() * 1000)
    }

    fn server(&'a self) -> Span<'a> {
        let mut list = Attributes::default();
        self.request(&mut list);
        list.text("url.scheme", &self.scheme);
        list.text("url.path", &self.path);
        let (host, port) = host_and_port(&self.host);
        list.text("server.address", host);
        list.number("server.port", port);
        list.number("http.response.status_code", u64::from(self.status));
        list.text("network.protocol.name", "http");
        list.text("network.protocol.version", self.version.trim_start_matches("HTTP/"));
        list.owned("client.address", self.client.to_string());
        list.owned("network.peer.address", self.peer.ip().to_canonical().to_string());
        list.number("network.peer.port", u64::from(self.peer.port()));
        list.text("user_agent.original", &self.user_agent);
        list.text("tls.protocol.version", self.tls_version.trim_start_matches("TLSv"));
        list.text("tls.cipher", &self.tls_cipher);
        list.text("tls.client.subject", &self.tls_client);
        list.text("corelane.request_id", &self.request_id);
        list.text("corelane.listener", &self.listener);
        list.text("corelane.route", &self.route);
        list.text("corelane.cluster", &self.cluster);
        list.text("corelane.failure", &self.failure);
        list.spans(&SERVER_SPANS, &self.micros);
        // A mistake of the client is no error of the server (semantic conventions of HTTP).
        let is_error = match self.status {
            500.. => true,
            0..400 => !self.failure.is_empty(),
            400..500 => false,
        };
        let error = is_error.then(|| reason(&self.failure, self.status));
        list.error(error.as_ref());
        Span {
            trace_id: self.identity.trace_id,
            id: self.identity.span_id,
            parent_id: self.identity.parent_id,
            debug: self.identity.debug,
            name: self.name(&self.route),
            kind: Kind::Server,
            begin_nanos: self.begin_nanos(),
            end_nanos: self.end_nanos,
            attributes: list.0,
            error,
            remote: Some(self.peer),
        }
    }

    fn client(&'a self, number: usize, attempt: &'a Told<'a>) -> Span<'a> {
        let mut list = Attributes::default();
        self.request(&mut list);
        if let Some(endpoint) = attempt.endpoint {
            let scheme = if attempt.secure { "https" } else { "http" };
            list.owned("url.full", format!("{scheme}://{endpoint}{}", self.path));
            list.owned("server.address", endpoint.ip().to_string());
            list.number("server.port", u64::from(endpoint.port()));
            list.owned("network.peer.address", endpoint.ip().to_string());
            list.number("network.peer.port", u64::from(endpoint.port()));
        }
        list.number("http.response.status_code", u64::from(attempt.status));
        list.number("http.request.resend_count", number as u64);
        list.text("network.protocol.name", "http");
        list.text("network.protocol.version", "1.1");
        list.text("corelane.cluster", &self.cluster);
        list.0.push(("corelane.reused", Value::Flag(attempt.reused)));
        list.spans(&CLIENT_SPANS, &attempt.spans);
        let is_error = attempt.status >= 400 || !attempt.failure.is_empty();
        let error = is_error.then(|| reason(&attempt.failure, attempt.status));
        list.error(error.as_ref());
        let begin = self.begin_nanos() + attempt.begin * 1000;
        Span {
            trace_id: self.identity.trace_id,
            id: attempt.span_id,
            parent_id: self.identity.span_id,
            debug: self.identity.debug,
            name: self.name(&self.cluster),
            kind: Kind::Client,
            begin_nanos: begin,
            end_nanos: begin + attempt.spans.iter().sum::<u64>() * 1000,
            attributes: list.0,
            error,
            remote: attempt.endpoint,
        }
    }

    /// A method that nobody knows would make a name for every request of a scanner.
    fn name(&self, whereto: &str) -> String {
        let method = if KNOWN_METHODS.contains(&&*self.method) { &*self.method } else { "HTTP" };
        if whereto.is_empty() { method.to_owned() } else { format!("{method} {whereto}") }
    }

    fn request(&'a self, list: &mut Attributes<'a>) {
        if KNOWN_METHODS.contains(&&*self.method) {
            list.text("http.request.method", &self.method);
        } else {
            list.text("http.request.method", "_OTHER");
            list.text("http.request.method_original", &self.method);
        }
    }
}

const KNOWN_METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"];

/// In microseconds; they add up to the span.
const SERVER_SPANS: [&str; Timings::SPANS] = [
    "corelane.head_us",
    "corelane.queue_us",
    "corelane.connect_us",
    "corelane.tls_us",
    "corelane.upload_us",
    "corelane.first_byte_us",
    "corelane.body_us",
];
const CLIENT_SPANS: [&str; Timings::SPANS - 1] = [
    "corelane.queue_us",
    "corelane.connect_us",
    "corelane.tls_us",
    "corelane.upload_us",
    "corelane.first_byte_us",
    "corelane.body_us",
];

/// Our word for it, else the status.
fn reason<'a>(failure: &'a str, status: u16) -> Cow<'a, str> {
    if failure.is_empty() { Cow::Owned(status.to_string()) } else { Cow::Borrowed(failure) }
}

/// Of `Host`; 0 without a port.
fn host_and_port(host: &str) -> (&str, u64) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port.parse().unwrap_or(0)),
        Some(_) | None => (host, 0),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::exchange::failure::Failure;
    use crate::exchange::record::Phase;

    pub(crate) const IDENTITY: Identity = Identity {
        trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
        span_id: 0x00f0_67aa_0ba9_02b7,
        parent_id: 0x0102_0304_0506_0708,
        debug: false,
    };

    fn record() -> Record<'static> {
        let micros = Duration::from_micros;
        Record {
            at: UNIX_EPOCH + Duration::from_millis(971_186_136_042),
            request_id: b"abc",
            trace_id: Some(IDENTITY.trace_id),
            peer: "10.0.0.9:51234".parse().unwrap(),
            client: "2001:db8::7".parse().unwrap(),
            listener: "edge",
            route: "orders",
            cluster: "backend",
            endpoint: None,
            method: b"GET",
            target: b"/a?secret=1",
            host: b"shop.example:8080",
            version: "HTTP/1.1",
            referer: b"",
            user_agent: b"bad\xff\"agent\n",
            scheme: "http",
            speaks_for: None,
            tls: None,
            status: 502,
            bytes_received: 0,
            bytes_sent: 0,
            body_bytes_sent: 0,
            timings: Timings {
                head: micros(10),
                queue: micros(20),
                connect: micros(25),
                tls: micros(5),
                upload: micros(0),
                first_byte: micros(40),
                body: micros(50),
                total: micros(150),
            },
            attempts: 2,
            reused: false,
            grpc_status: None,
            tunnel: None,
            request_lines: (&[], b""),
            capture: None,
            failure: Some(Failure::ConnectRefused),
            phase: Phase::Connect,
        }
    }

    pub(crate) const ATTEMPTS: [Attempt; 2] = [
        Attempt {
            span_id: 0xaa,
            begin: 12,
            spans: [1, 2, 0, 0, 0, 0],
            endpoint: None,
            reused: false,
            secure: false,
            status: 0,
            failure: "connect_refused",
        },
        Attempt {
            span_id: 0xbb,
            begin: 15,
            spans: [1, 2, 0, 0, 3, 4],
            endpoint: Some(SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 8080)),
            reused: true,
            secure: true,
            status: 200,
            failure: "",
        },
    ];

    /// Two records, the second without attempts.
    pub(crate) fn batch() -> Vec<u8> {
        let mut out = Vec::new();
        encode(&record(), &IDENTITY, b"/a", &ATTEMPTS, &mut out);
        let fine = Record { status: 204, failure: None, method: b"ODD", route: "", ..record() };
        encode(&fine, &Identity { parent_id: 0, ..IDENTITY }, b"/a", &[], &mut out);
        out
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let bytes = batch();
        let mut rest = &bytes[..];
        let first = decode(&mut rest).unwrap();
        assert_eq!((first.identity, first.micros), (IDENTITY, [10, 20, 25, 5, 0, 40, 50]));
        assert_eq!((first.peer, first.client), (record().peer, record().client));
        assert_eq!((&*first.path, &*first.user_agent), ("/a", "bad\u{fffd}\"agent\n"));
        assert_eq!(first.attempts.len(), 2);
        assert_eq!(first.attempts[1].endpoint, ATTEMPTS[1].endpoint);
        assert_eq!((first.attempts[1].begin, first.attempts[1].spans), (15, [1, 2, 0, 0, 3, 4]));
        assert_eq!(decode(&mut rest).unwrap().status, 204);
        assert_eq!((decode(&mut rest), rest.len()), (None, 0));
    }

    #[test]
    fn a_record_that_is_cut_is_none_and_does_not_panic() {
        let bytes = batch();
        for end in 0..bytes.len() {
            let mut rest = &bytes[..end];
            while decode(&mut rest).is_some() {}
        }
    }

    #[test]
    fn attempts_are_children_of_the_exchange_and_times_add_up() {
        let bytes = batch();
        let exchange = decode(&mut &bytes[..]).unwrap();
        let spans = exchange.spans();
        let [server, first, second] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((server.name.as_str(), first.name.as_str()), ("GET orders", "GET backend"));
        assert_eq!((server.parent_id, first.parent_id), (IDENTITY.parent_id, IDENTITY.span_id));
        assert_eq!(server.end_nanos - server.begin_nanos, 150_000);
        assert_eq!(second.begin_nanos - server.begin_nanos, 15_000);
        assert_eq!(second.end_nanos - second.begin_nanos, 10_000);
        assert_eq!(server.error.as_deref(), Some("connect_refused"));
        assert_eq!((first.error.as_deref(), &second.error), (Some("connect_refused"), &None));
        let secret = |(_, value): &(&str, Value<'_>)| format!("{value:?}").contains("secret");
        assert!(!spans.iter().flat_map(|span| &span.attributes).any(secret));
    }

    #[test]
    fn a_method_that_nobody_knows_names_no_span() {
        let bytes = batch();
        let mut rest = &bytes[..];
        decode(&mut rest);
        let exchange = decode(&mut rest).unwrap();
        let span = exchange.server();
        assert_eq!((span.name.as_str(), &span.error), ("HTTP", &None));
        assert!(span.attributes.contains(&("http.request.method", Value::Text("_OTHER".into()))));
    }

    #[test]
    fn hosts_are_split_from_ports() {
        assert_eq!(host_and_port("a:80"), ("a", 80));
        assert_eq!(host_and_port("[::1]:80"), ("[::1]", 80));
        assert_eq!((host_and_port("[::1]"), host_and_port("a")), (("[::1]", 0), ("a", 0)));
    }
}
