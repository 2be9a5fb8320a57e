//! One case, so many times: `scripts/bench` counts its instructions under callgrind at two numbers
//! of iterations, so that start-up drops out. Counts, unlike times, do not depend on load.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, UNIX_EPOCH};

use corelane::exchange::record::{Phase, Record, Timings};
use corelane::http::head::{Framing, Keep, Method, RequestHead, ResponseHead, Version};
use corelane::http::headers::{HeaderEdits, HeaderId, IdentityLines};
use corelane::http1::body::Decoder;
use corelane::http1::encode::{self, Forwarded};
use corelane::http1::parse::{self, HeadLimits, Parsed};
use corelane::limits;
use corelane::telemetry::access_log;
use corelane::telemetry::redact::Redact;
use corelane::telemetry::settings::{AccessLog, AccessLogFormat, OnFull, Sampling};
use corelane::telemetry::template::Template;

const LIMITS: HeadLimits = HeadLimits {
    url_bytes_max: limits::URL_BYTES_MAX,
    header_bytes_max: limits::HEADER_BYTES_MAX,
    headers_max: limits::HEADERS_MAX,
};

/// What a browser sends.
const REQUEST: &[u8] = b"GET /assets/app.js?v=20240501 HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Referer: https://www.example.com/\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    Cache-Control: max-age=0\r\n\r\n";

/// What a load generator sends.
const SMALL_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx\r\n\
    Date: Wed, 01 May 2024 12:00:00 GMT\r\n\
    Content-Type: application/javascript; charset=utf-8\r\n\
    Content-Length: 16384\r\n\
    Last-Modified: Tue, 30 Apr 2024 12:00:00 GMT\r\n\
    Connection: keep-alive\r\n\
    ETag: \"66310000-4000\"\r\n\
    Accept-Ranges: bytes\r\n\r\n";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let case = arguments.next().unwrap_or_default();
    let iterations = arguments.next().and_then(|count| count.parse().ok());
    let iterations: u64 = iterations.unwrap_or(1);
    match case.as_str() {
        "parse_request" => parse_request(REQUEST, iterations),
        "parse_request_small" => parse_request(SMALL_REQUEST, iterations),
        "parse_response" => parse_response(iterations),
        "encode_request" => encode_request(REQUEST, iterations),
        "encode_request_small" => encode_request(SMALL_REQUEST, iterations),
        "encode_response" => encode_response(iterations),
        "log_json" => log_line(AccessLogFormat::Json, iterations),
        "log_combined" => log_line(AccessLogFormat::Combined, iterations),
        "log_template" => log_line(AccessLogFormat::Template, iterations),
        "decode_chunked" => decode_chunked(iterations),
        "count_exchange" => corelane::exchange::count::rehearse(iterations),
        // `cargo bench` and `cargo test` call every bench without a case.
        _ => {}
    }
}

fn parse_request(bytes: &[u8], iterations: u64) {
    let mut head = RequestHead::default();
    for _ in 0..iterations {
        let parsed = parse::request(black_box(bytes), &LIMITS, &mut head);
        assert_eq!(black_box(parsed), Ok(Parsed::Complete));
    }
}

fn parse_response(iterations: u64) {
    let mut head = ResponseHead::default();
    for _ in 0..iterations {
        let parsed = parse::response(black_box(RESPONSE), Method::Get, &LIMITS, &mut head);
        assert_eq!(black_box(parsed), Ok(Parsed::Complete));
    }
}

fn encode_request(bytes: &[u8], iterations: u64) {
    let mut head = RequestHead::default();
    let parsed = parse::request(bytes, &LIMITS, &mut head);
    assert_eq!(parsed, Ok(Parsed::Complete));
    let forwarded = Forwarded {
        peer: IpAddr::from([203, 0, 113, 77]),
        client: IpAddr::from([203, 0, 113, 77]),
        trusted: false,
        proto: "https",
        request_id: b"0123456789abcdef0123456789abcdef",
        proxy_id: "corelane",
        identity: IdentityLines::NONE,
        trace: None,
    };
    let edits = HeaderEdits::default();
    let mut out = Vec::new();
    for _ in 0..iterations {
        out.clear();
        let (head, forwarded) = (black_box(&head), black_box(&forwarded));
        encode::request(&mut out, head, bytes, head.framing, forwarded, &edits);
        black_box(&out);
    }
}

fn encode_response(iterations: u64) {
    let mut head = ResponseHead::default();
    let parsed = parse::response(RESPONSE, Method::Get, &LIMITS, &mut head);
    assert_eq!(parsed, Ok(Parsed::Complete));
    let edits = HeaderEdits::default();
    let mut out = Vec::new();
    for _ in 0..iterations {
        out.clear();
        let head = black_box(&head);
        let (framing, version) = (head.framing, Version::Http11);
        encode::response(
            &mut out,
            head,
            RESPONSE,
            framing,
            Keep::Open,
            version,
            "corelane",
            &edits,
        );
        black_box(&out);
    }
}

/// One line of the access log, of a request that a browser sends.
fn log_line(format: AccessLogFormat, iterations: u64) {
    let mut head = RequestHead::default();
    assert_eq!(parse::request(REQUEST, &LIMITS, &mut head), Ok(Parsed::Complete));
    let template = "{timestamp} {client_ip} {method} {path} {query} {status} {bytes_sent} \
                    {duration_ms} {header.cookie}";
    let log = AccessLog {
        path: None,
        format,
        template: (format == AccessLogFormat::Template)
            .then(|| Template::parse(template).expect("its names are known")),
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        redact: Redact::USUAL,
        sampling: Sampling::ALL,
        on_full: OnFull::Drop,
        rotate: None,
    };
    let record = record(&head);
    let (mut scratch, mut out) = (Vec::new(), Vec::new());
    for _ in 0..iterations {
        out.clear();
        access_log::encode(black_box(&log), black_box(&record), &mut scratch, &mut out);
        black_box(&out);
    }
}

fn record(head: &RequestHead) -> Record<'_> {
    let value = |id| head.value(REQUEST, id).unwrap_or_default();
    let micros = Duration::from_micros;
    Record {
        scheme: "http",
        speaks_for: None,
        tls: None,
        at: UNIX_EPOCH + Duration::from_millis(1_714_564_800_123),
        trace_id: None,
        request_id: b"0123456789abcdef0123456789abcdef",
        peer: SocketAddr::from(([203, 0, 113, 77], 51_234)),
        client: IpAddr::from([203, 0, 113, 77]),
        listener: "edge",
        route: "assets",
        cluster: "files",
        endpoint: Some(SocketAddr::from(([10, 0, 0, 1], 8080))),
        method: b"GET",
        target: b"/assets/app.js?v=20240501",
        host: b"www.example.com",
        version: "HTTP/1.1",
        referer: value(HeaderId::Referer),
        user_agent: value(HeaderId::UserAgent),
        grpc_status: None,
        status: 200,
        bytes_received: REQUEST.len() as u64,
        bytes_sent: 16_700,
        body_bytes_sent: 16_384,
        timings: Timings {
            head: micros(12),
            queue: micros(1),
            connect: micros(0),
            tls: Duration::ZERO,
            upload: micros(0),
            first_byte: micros(1234),
            body: micros(88),
            total: micros(1335),
        },
        attempts: 1,
        tunnel: None,
        reused: true,
        failure: None,
        phase: Phase::Done,
        request_lines: (&head.lines, REQUEST),
        capture: None,
    }
}

/// Four chunks of 1 KiB in one read. The copy into the buffer is part of the count.
fn decode_chunked(iterations: u64) {
    let mut body = Vec::new();
    for _ in 0..4 {
        body.extend_from_slice(b"400\r\n");
        body.extend_from_slice(&[b'x'; 1024]);
        body.extend_from_slice(encode::CRLF);
    }
    body.extend_from_slice(encode::LAST_CHUNK);
    let mut buffer = body.clone();
    for _ in 0..iterations {
        buffer.copy_from_slice(&body);
        let decoded = Decoder::new(Framing::Chunked).decode(black_box(&mut buffer));
        let decoded = black_box(decoded).expect("a well-formed body");
        assert!(decoded.end && decoded.data == 4096);
    }
}
