//! Access log lines. Encoding is pure and reads no clock; a data core gathers lines into batches
//! and the publisher core writes them. No byte from a peer can end a line or leave its field.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::exchange::failure::{Failure, Side};
use crate::exchange::record::Record;
use crate::exchange::tunnel::Told;
use crate::hexadecimal;
use crate::limits::ACCESS_LOG_FIELD_BYTES_MAX;
use crate::telemetry::redact::{HIDDEN, Redact};
use crate::telemetry::settings::{AccessLog, AccessLogFormat};
use crate::telemetry::{decimal, json, logged_body, timestamp, trace};

/// Appends one line, newline included. `scratch` is for text that must be changed before it is
/// escaped; its content means nothing.
pub fn encode(log: &AccessLog, record: &Record<'_>, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    match (log.format, &log.template) {
        (AccessLogFormat::Json, _) => object(log, record, scratch, out),
        (AccessLogFormat::Clf, _) => common(&log.redact, record, scratch, out),
        (AccessLogFormat::Combined, _) => {
            common(&log.redact, record, scratch, out);
            out.push(b' ');
            quoted(log.redact.url(record.referer, scratch), out);
            out.push(b' ');
            quoted(record.user_agent, out);
        }
        (AccessLogFormat::Text | AccessLogFormat::Template, Some(template)) => {
            out.reserve(LINE_BYTES_USUAL);
            template.encode(record, &log.redact, scratch, out);
        }
        (AccessLogFormat::Text | AccessLogFormat::Template, None) => {
            unreachable!("a plan has the template that its format needs")
        }
    }
    out.push(b'\n');
}

// --- JSON -----------------------------------------------------------------------------------

/// Names and order are what operators' parsers know: add at the end of a group, rename nothing.
fn object(log: &AccessLog, record: &Record<'_>, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    out.reserve(LINE_BYTES_USUAL);
    out.extend_from_slice(b"{\"timestamp\":\"");
    timestamp::iso(record.at, out);
    out.extend_from_slice(b"\",\"level\":\"");
    out.extend_from_slice(level(record.failure).as_bytes());
    out.extend_from_slice(b"\",\"message\":");
    json::string(message(record).as_bytes(), out);
    out.extend_from_slice(b",\"request_id\":");
    text(record.request_id, out);
    if let Some(trace_id) = record.trace_id {
        out.extend_from_slice(b",\"trace_id\":\"");
        trace::write_hex(out, trace_id, 32);
        out.push(b'"');
    }

    out.extend_from_slice(b",\"client_ip\":\"");
    ip(record.client, out);
    out.extend_from_slice(b"\",\"peer_ip\":\"");
    ip(record.peer.ip(), out);
    out.extend_from_slice(b"\",\"method\":");
    optional(record.method, out);
    out.extend_from_slice(b",\"url\":");
    optional(log.redact.url(record.target, scratch), out);
    out.extend_from_slice(b",\"protocol\":");
    optional(record.version.as_bytes(), out);
    out.extend_from_slice(b",\"host\":");
    optional(record.host, out);
    out.extend_from_slice(b",\"user_agent\":");
    optional(record.user_agent, out);
    out.extend_from_slice(b",\"referer\":");
    optional(log.redact.url(record.referer, scratch), out);
    out.extend_from_slice(b",\"scheme\":\"");
    out.extend_from_slice(record.scheme.as_bytes());
    out.push(b'"');
    if let Some(address) = record.speaks_for {
        out.extend_from_slice(b",\"speaks_for\":\"");
        socket(address, out);
        out.push(b'"');
    }
    if let Some(tls) = &record.tls {
        tls.encode(out);
    }

    number(b",\"status\":", u64::from(record.status), out);
    grpc_status(record, out);
    number(b",\"bytes_sent\":", record.bytes_sent, out);
    number(b",\"bytes_received\":", record.bytes_received, out);

    out.extend_from_slice(b",\"listener\":");
    text(record.listener.as_bytes(), out);
    out.extend_from_slice(b",\"route\":");
    optional(record.route.as_bytes(), out);
    out.extend_from_slice(b",\"cluster\":");
    optional(record.cluster.as_bytes(), out);
    backend(record.endpoint, out);
    number(b",\"attempts\":", u64::from(record.attempts), out);
    out.extend_from_slice(b",\"reused\":");
    out.extend_from_slice(if record.reused { b"true" } else { b"false" });
    timings(record, out);
    termination(record, out);
    if log.shows_headers() {
        headers(log, record, out);
    }
    if let Some((settings, capture)) = record.capture {
        logged_body::encode(settings, capture, &log.redact, scratch, out);
    }
    out.push(b'}');
}

/// How it ended; `termination` says why, where that was no orderly end.
fn tunnel(protocol: &str, told: Told, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"tunnel\":{\"protocol\":");
    text(protocol.as_bytes(), out);
    out.extend_from_slice(b",\"ended_by\":");
    optional(told.ended_by.map_or("", Side::label).as_bytes(), out);
    if let Some(status) = told.close {
        number(b",\"close_code\":", u64::from(status), out);
    }
    out.push(b'}');
}

fn headers(log: &AccessLog, record: &Record<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"request_headers\":{");
    members(log, &log.request_headers, |name| record.request_header(name), out);
    out.extend_from_slice(b"},\"response_headers\":{");
    members(log, &log.response_headers, |name| record.response_header(name), out);
    out.push(b'}');
}

/// Those of the wanted headers that there are.
fn members<'r>(
    log: &AccessLog,
    names: &[Box<[u8]>],
    value: impl Fn(&[u8]) -> Option<&'r [u8]>,
    out: &mut Vec<u8>,
) {
    let mut first = true;
    for name in names {
        let Some(value) = value(name) else { continue };
        if !first {
            out.push(b',');
        }
        first = false;
        json::string(name, out);
        out.push(b':');
        text(if log.redact.hides_header(name) { HIDDEN } else { value }, out);
    }
}

fn timings(record: &Record<'_>, out: &mut Vec<u8>) {
    let (spans, total) = record.timings.micros();
    out.extend_from_slice(b",\"duration_ms\":");
    decimal::micros_as_millis(total, out);
    out.extend_from_slice(b",\"timings\":{");
    let names =
        ["head_ms", "queue_ms", "connect_ms", "tls_ms", "upload_ms", "first_byte_ms", "body_ms"];
    for (index, (name, micros)) in names.into_iter().zip(spans).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::name(name, out);
        decimal::micros_as_millis(micros, out);
    }
    out.push(b'}');
}

fn grpc_status(record: &Record<'_>, out: &mut Vec<u8>) {
    if let Some(code) = record.grpc_status {
        number(b",\"grpc_status\":", u64::from(code.number()), out);
    }
}

fn termination(record: &Record<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"termination\":{\"by\":\"");
    out.extend_from_slice(record.ended_by().map_or("none", Side::label).as_bytes());
    out.extend_from_slice(b"\",\"phase\":\"");
    out.extend_from_slice(record.phase.label().as_bytes());
    out.extend_from_slice(b"\",\"reason\":");
    optional(record.failure.map_or("", Failure::label).as_bytes(), out);
    out.push(b'}');
    if let Some((protocol, told)) = record.tunnel {
        tunnel(protocol, told, out);
    }
}

fn backend(endpoint: Option<SocketAddr>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"backend\":");
    match endpoint {
        Some(address) => {
            out.push(b'"');
            socket(address, out);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// Not an error of ours, so never more than a warning, unless an operator must look at the proxy.
pub(super) fn level(failure: Option<Failure>) -> &'static str {
    match failure {
        None => "INFO",
        Some(Failure::Internal) => "ERROR",
        Some(failure) => match failure.side() {
            Side::Client => "INFO",
            Side::Proxy | Side::Upstream => "WARN",
        },
    }
}

pub(super) fn message(record: &Record<'_>) -> &'static str {
    let passed = record.tls.is_some_and(|tls| tls.is_passed());
    let done = if passed { "connection passed through" } else { "request completed" };
    record.failure.map_or(done, |failure| failure.row().message)
}

fn number(name: &[u8], value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    decimal::integer(value, out);
}

fn text(bytes: &[u8], out: &mut Vec<u8>) {
    json::string(bounded(bytes), out);
}

/// `null` for what is not there, so that no empty string passes for a value.
pub(super) fn optional(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.is_empty() {
        out.extend_from_slice(b"null");
    } else {
        text(bytes, out);
    }
}

// --- common and combined log format ---------------------------------------------------------

/// `client - - [time] "request" status bytes`, as Apache's `%h %l %u %t "%r" %>s %b`.
fn common(redact: &Redact, record: &Record<'_>, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    out.reserve(LINE_BYTES_USUAL);
    ip(record.client, out);
    out.extend_from_slice(b" - - ");
    timestamp::common_log(record.at, out);
    out.extend_from_slice(b" \"");
    request_line(redact, record, scratch, out);
    out.extend_from_slice(b"\" ");
    decimal::padded(u64::from(record.status), 3, out);
    out.push(b' ');
    if record.body_bytes_sent == 0 {
        out.push(b'-');
    } else {
        decimal::integer(record.body_bytes_sent, out);
    }
}

/// What is known of it: a head that was refused may have shown its method only, or nothing at all.
fn request_line(redact: &Redact, record: &Record<'_>, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    if record.method.is_empty() {
        out.push(b'-');
        return;
    }
    escaped(bounded(record.method), out);
    for part in [redact.url(record.target, scratch), record.version.as_bytes()] {
        if !part.is_empty() {
            out.push(b' ');
            escaped(bounded(part), out);
        }
    }
}

fn quoted(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    escaped_or_dash(bytes, out);
    out.push(b'"');
}

pub(super) fn escaped_or_dash(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.is_empty() {
        out.push(b'-');
    } else {
        escaped(bounded(bytes), out);
    }
}

/// nginx's default: `"`, `\`, and whatever is not printable ASCII, as `\xHH`.
fn escaped(bytes: &[u8], out: &mut Vec<u8>) {
    let is_plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
    if bytes.iter().all(|&byte| is_plain(byte)) {
        out.extend_from_slice(bytes);
        return;
    }
    for &byte in bytes {
        if is_plain(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(b"\\x");
            out.extend_from_slice(&hexadecimal::upper(byte));
        }
    }
}

// --- both -----------------------------------------------------------------------------------

fn bounded(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(ACCESS_LOG_FIELD_BYTES_MAX)]
}

pub(super) fn socket(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip().to_canonical() {
        IpAddr::V4(_) => ip(address.ip(), out),
        IpAddr::V6(_) => {
            out.push(b'[');
            ip(address.ip(), out);
            out.push(b']');
        }
    }
    out.push(b':');
    decimal::integer(u64::from(address.port()), out);
}

/// An IPv4-mapped address is written as the IPv4 address that it is.
pub(crate) fn ip(address: IpAddr, out: &mut Vec<u8>) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                decimal::integer(u64::from(octet), out);
            }
        }
        // Its compressed form is not worth code of ours.
        IpAddr::V6(address) => write!(out, "{address}").expect("a Vec takes every byte"),
    }
}

const LINE_BYTES_USUAL: usize = 1024;
#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::exchange::record::{Phase, Timings};
    use crate::grpc::status::Code;
    use crate::http::head::{Line, Span};
    use crate::http::headers::HeaderId;
    use crate::telemetry::client_tls::ClientTls;
    use crate::telemetry::client_tls::tests::{facts, of as client_tls};
    use crate::telemetry::settings::{OnFull, Sampling};
    use crate::telemetry::snapshot;
    use crate::telemetry::template::{TEXT, Template};

    const FORMATS: [AccessLogFormat; 5] = [
        AccessLogFormat::Json,
        AccessLogFormat::Clf,
        AccessLogFormat::Combined,
        AccessLogFormat::Text,
        AccessLogFormat::Template,
    ];

    /// Every variable that holds bytes of a peer.
    const TEMPLATE: &str = "{request_id}|{method}|{path}|{query}|{host}|{referer}|{user_agent}|\
                            {header.x-a}|{header.cookie}|{response_header.age}|{route}|\
                            {tls_server_name}|{client_cn}|{client_subject}|{client_spiffe_id}";

    /// Every variable of the connection itself.
    const CONNECTION: &str = "{scheme} {peer_ip} {speaks_for} {tls_version} {tls_cipher} \
                              {tls_resumed} {tls_server_name} {client_cn} {client_subject} \
                              {client_fingerprint} {client_spiffe_id} {client_dns_names} \
                              {client_emails} {client_uris}";

    fn settings(format: AccessLogFormat) -> AccessLog {
        let template = match format {
            AccessLogFormat::Text => Some(TEXT),
            AccessLogFormat::Template => Some(TEMPLATE),
            AccessLogFormat::Json | AccessLogFormat::Clf | AccessLogFormat::Combined => None,
        };
        AccessLog {
            path: None,
            format,
            template: template.map(|text| Template::parse(text).unwrap()),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            redact: Redact::USUAL,
            sampling: Sampling::ALL,
            on_full: OnFull::Drop,
            rotate: None,
        }
    }

    fn record() -> Record<'static> {
        Record {
            at: UNIX_EPOCH + Duration::from_millis(971_186_136_042),
            request_id: b"4bf92f3577b34da6a3ce929d0e0e4736",
            trace_id: None,
            peer: "10.0.0.9:51234".parse().unwrap(),
            client: "192.0.2.7".parse().unwrap(),
            listener: "edge",
            route: "orders",
            cluster: "orders",
            endpoint: Some("10.0.0.1:8080".parse().unwrap()),
            method: b"GET",
            target: b"/apache_pb.gif?x=1",
            host: b"www.example.com",
            version: "HTTP/1.1",
            referer: b"http://www.example.com/start.html",
            user_agent: b"Mozilla/4.08 [en] (Win98; I ;Nav)",
            scheme: "http",
            speaks_for: None,
            tls: None,
            status: 200,
            bytes_received: 412,
            bytes_sent: 2519,
            body_bytes_sent: 2326,
            timings: Timings {
                head: Duration::from_nanos(120_999),
                queue: Duration::from_nanos(1_999),
                connect: Duration::from_nanos(100_001),
                tls: Duration::from_nanos(200_000),
                upload: Duration::ZERO,
                first_byte: Duration::from_nanos(12_000_999),
                body: Duration::from_nanos(800_002),
                total: Duration::from_nanos(13_224_000),
            },
            attempts: 1,
            reused: false,
            failure: None,
            phase: Phase::Done,
            grpc_status: None,
            tunnel: None,
            request_lines: (&[], b""),
            capture: None,
        }
    }

    /// Two header lines, `X-A` and `Cookie`, with this value each.
    fn header_lines(value: &[u8]) -> (Vec<u8>, Vec<Line>) {
        let bytes = [b"X-ACookie", value].concat();
        let line = |start, end| Line {
            line: Span::default(),
            name: Span { start, end },
            value: Span { start: 9, end: bytes.len() as u32 },
            id: HeaderId::Other,
            hop_by_hop: false,
        };
        let lines = vec![line(0, 3), line(3, 9)];
        (bytes, lines)
    }

    /// Everything that can be missing is missing.
    fn empty() -> Record<'static> {
        Record {
            peer: "[::ffff:198.51.100.1]:9".parse().unwrap(),
            client: "2001:db8::1".parse().unwrap(),
            request_id: b"",
            listener: "",
            route: "",
            cluster: "",
            endpoint: None,
            method: b"",
            target: b"",
            host: b"",
            version: "",
            referer: b"",
            user_agent: b"",
            status: 0,
            bytes_received: 0,
            bytes_sent: 0,
            body_bytes_sent: 0,
            timings: Timings::default(),
            attempts: 0,
            failure: Some(Failure::ClientClosed),
            phase: Phase::RequestHead,
            ..record()
        }
    }

    fn line(format: AccessLogFormat, record: &Record<'_>) -> String {
        let mut out = Vec::new();
        encode(&settings(format), record, &mut Vec::new(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_formats_are_as_reviewed() {
        let late = Record {
            failure: Some(Failure::FirstByteTimeout),
            phase: Phase::FirstByte,
            endpoint: Some("[2001:db8::2]:443".parse().unwrap()),
            status: Failure::FirstByteTimeout.status(),
            reused: true,
            ..record()
        };
        let mut lines = String::new();
        for format in FORMATS {
            for record in [record(), late.clone(), empty()] {
                lines.push_str(&line(format, &record));
            }
        }
        snapshot::snapshot("telemetry/access_log.txt", &lines);
    }

    #[test]
    fn a_line_tells_of_the_clients_tls_and_of_whom_the_peer_speaks_for() {
        let mut facts = facts("billing");
        facts.dns_names = ["a.example", "b.example"].map(str::to_owned).to_vec();
        facts.emails = vec!["a,\"@example.com".to_owned()];
        let record = Record {
            scheme: "https",
            speaks_for: Some("[2001:db8::7]:4711".parse().unwrap()),
            tls: Some(client_tls(Some(&facts))),
            ..record()
        };
        let json = line(AccessLogFormat::Json, &record);
        let expected = concat!(
            r#","scheme":"https","speaks_for":"[2001:db8::7]:4711","tls":{"version":"TLSv1.3","#,
            r#""cipher":"TLS_AES_256_GCM_SHA384","server_name":"shop.example","resumed":true,"#,
            r#""client":{"common_name":"billing","subject":"CN=billing","fingerprint":"#
        );
        assert!(json.contains(expected), "{json}");
        let expected = concat!(
            r#"","dns_names":["a.example","b.example"],"emails":["a,\"@example.com"],"#,
            r#""uris":["spiffe://corp.example/billing"],"#,
            r#""spiffe_id":"spiffe://corp.example/billing"}},"status":"#
        );
        assert!(json.contains(expected), "{json}");

        let template = |record: &Record<'_>| {
            let template = Some(Template::parse(CONNECTION).unwrap());
            let log = AccessLog { template, ..settings(AccessLogFormat::Template) };
            let mut out = Vec::new();
            encode(&log, record, &mut Vec::new(), &mut out);
            String::from_utf8(out).unwrap()
        };
        let expected = format!(
            "https 10.0.0.9 [2001:db8::7]:4711 TLSv1.3 TLS_AES_256_GCM_SHA384 true shop.example \
             billing CN=billing {} spiffe://corp.example/billing a.example,b.example \
             a%2C\\x22@example.com spiffe://corp.example/billing\n",
            "a5".repeat(32)
        );
        assert_eq!(template(&record), expected);
        let plain = Record { scheme: "http", speaks_for: None, tls: None, ..record };
        assert_eq!(template(&plain), "http 10.0.0.9 - - - - - - - - - - - -\n");
        assert!(!line(AccessLogFormat::Json, &plain).contains("\"tls\":"));
    }

    #[test]
    fn a_line_tells_how_a_tunnel_has_ended() {
        let told = |ended_by, close| Told { protocol: 0, ended_by, close };
        let cases = [
            (told(Some(Side::Client), Some(1000)), "\"client\",\"close_code\":1000}"),
            (told(Some(Side::Proxy), None), "\"proxy\"}"),
            (told(None, None), "null}"),
        ];
        for (told, expected) in cases {
            let record = Record { status: 101, tunnel: Some(("websocket", told)), ..record() };
            let line = line(AccessLogFormat::Json, &record);
            let tunnel = format!("\"tunnel\":{{\"protocol\":\"websocket\",\"ended_by\":{expected}");
            assert!(json::check::is_valid(line.trim_end().as_bytes()), "{line}");
            assert!(line.contains(&tunnel), "{line}");
        }
    }

    #[test]
    fn combined_is_what_the_apache_manual_shows() {
        assert_eq!(
            line(AccessLogFormat::Combined, &record()),
            "192.0.2.7 - - [10/Oct/2000:13:55:36 +0000] \"GET /apache_pb.gif?x=1 HTTP/1.1\" 200 \
             2326 \"http://www.example.com/start.html\" \"Mozilla/4.08 [en] (Win98; I ;Nav)\"\n"
        );
    }

    #[test]
    fn the_fields_of_the_mission_have_their_exact_names() {
        let line = line(AccessLogFormat::Json, &record());
        for name in [
            "timestamp",
            "level",
            "message",
            "request_id",
            "client_ip",
            "method",
            "url",
            "status",
            "duration_ms",
            "bytes_sent",
            "bytes_received",
            "backend",
        ] {
            assert!(line.contains(&format!("\"{name}\":")), "{name}");
        }
        assert!(!line.contains("cache_hit"), "there is no cache yet");
        assert!(!line.contains("grpc_status"), "it is no call");
    }

    #[test]
    fn a_call_shows_how_it_ended_beside_the_status_of_http() {
        let call = Record { grpc_status: Some(Code::Unavailable), ..record() };
        let line = line(AccessLogFormat::Json, &call);
        assert!(line.contains("\"status\":200,\"grpc_status\":14,"), "{line}");
    }

    #[test]
    fn timings_add_up_to_the_duration_to_the_last_digit() {
        let line = line(AccessLogFormat::Json, &record());
        let micros = |name: &str| -> u64 {
            let value = line.split(&format!("\"{name}\":")).nth(1).unwrap();
            let digits: String =
                value.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            assert_eq!(digits.split('.').nth(1).unwrap().len(), 3);
            digits.replace('.', "").parse().unwrap()
        };
        let parts = [
            "head_ms",
            "queue_ms",
            "connect_ms",
            "tls_ms",
            "upload_ms",
            "first_byte_ms",
            "body_ms",
        ];
        assert_eq!(parts.iter().map(|part| micros(part)).sum::<u64>(), micros("duration_ms"));
        assert_eq!(micros("duration_ms"), 13_224);
    }

    #[test]
    fn quotes_backslashes_and_unprintable_bytes_are_escaped_as_nginx_does() {
        let record = Record { user_agent: b"a\"b\\c\r\n\x7f\xffz", ..record() };
        let line = line(AccessLogFormat::Combined, &record);
        assert!(line.ends_with("\"a\\x22b\\x5Cc\\x0D\\x0A\\x7F\\xFFz\"\n"), "{line}");
    }

    #[test]
    fn a_field_is_cut_at_its_bound() {
        let long = vec![b'~'; ACCESS_LOG_FIELD_BYTES_MAX + 1];
        let record = Record { target: &long, ..record() };
        for format in FORMATS {
            let tildes = line(format, &record).matches('~').count();
            assert_eq!(tildes, ACCESS_LOG_FIELD_BYTES_MAX, "{format:?}");
        }
    }

    #[test]
    fn secrets_are_hidden_in_every_format() {
        let (bytes, lines) = header_lines(b"s3cret");
        let record = Record {
            target: b"/a?token=s3cret&b=1",
            referer: b"http://x/?password=s3cret",
            grpc_status: None,
            tunnel: None,
            request_lines: (&lines, &bytes),
            ..record()
        };
        for format in FORMATS {
            let mut log = settings(format);
            log.request_headers = vec![b"cookie".as_slice().into(), b"gone".as_slice().into()];
            log.redact = Redact::new(["x-a"].into_iter(), [].into_iter()).and(&Redact::USUAL);
            let mut out = Vec::new();
            encode(&log, &record, &mut Vec::new(), &mut out);
            let line = String::from_utf8(out).unwrap();
            assert!(!line.contains("s3cret") && line.contains("[redacted]"), "{line}");
            if format == AccessLogFormat::Json {
                assert!(json::check::is_valid(line.trim_end().as_bytes()), "{line}");
                assert!(line.contains(r#""request_headers":{"cookie":"[redacted]"}"#), "{line}");
            }
        }
    }

    /// xorshift: the same hostile bytes on every run.
    struct Noise(u64);

    impl Noise {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        /// Half of it from what breaks lines and quotes, half of it anything.
        fn bytes(&mut self) -> Vec<u8> {
            const HOSTILE: &[u8] =
                b"\n\r\"\\\0\x0b\x0c\x1b\x7f\x85,:{}[] u000a\xe2\x80\xa8\xc2\xed\xa0";
            (0..self.next() % 24)
                .map(|_| match self.next() {
                    random if random % 2 == 0 => HOSTILE[random as usize / 2 % HOSTILE.len()],
                    random => (random >> 8) as u8,
                })
                .collect()
        }
    }

    #[test]
    fn no_bytes_from_a_peer_give_a_second_line_or_break_the_format() {
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        for _ in 0..20_000 {
            let fields: [Vec<u8>; 6] = std::array::from_fn(|_| noise.bytes());
            let names = String::from_utf8_lossy(&fields[5]);
            let (bytes, lines) = header_lines(&fields[0]);
            let facts = facts(&names);
            let tls = ClientTls { server_name: &names, ..client_tls(Some(&facts)) };
            let record = Record {
                tls: Some(tls),
                request_id: &fields[0],
                method: &fields[1],
                target: &fields[2],
                host: &fields[3],
                referer: &fields[4],
                user_agent: &fields[5],
                version: &names,
                listener: &names,
                route: &names,
                cluster: &names,
                grpc_status: None,
                tunnel: None,
                request_lines: (&lines, &bytes),
                ..record()
            };
            for format in FORMATS {
                let line = line(format, &record);
                let body = line.strip_suffix('\n').unwrap();
                assert!(!body.chars().any(json::must_be_hidden), "{line:?}");
                match format {
                    AccessLogFormat::Json => assert!(json::check::is_valid(body.as_bytes())),
                    AccessLogFormat::Clf => assert_eq!(body.matches('"').count(), 2),
                    AccessLogFormat::Combined => assert_eq!(body.matches('"').count(), 6),
                    AccessLogFormat::Text => assert_eq!(body.matches('"').count(), 2),
                    AccessLogFormat::Template => assert!(!body.contains('"')),
                }
            }
        }
    }
}
