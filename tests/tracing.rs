//! Traces: what clients and endpoints say and are told in headers, and what a collector gets, read
//! with OpenTelemetry's own types. A collector that is down, slow or hostile harms nobody.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use support::{After, Json, Origin, PATIENCE, Proxy, Respond, edge, eventually, nobody};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// Everything to `origin`, the access log in `access.log`; `tracing` and `more` are TOML.
fn traced(origin: &Origin, tracing: &str, more: &str) -> String {
    edge(&format!(
        "[logging.access]\npath = \"access.log\"\n{tracing}\n\
         [[routes]]\nname = \"all\"\npaths = [\"/*\"]\ncluster = \"a\"\n{more}\n\
         [clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n",
        origin.address()
    ))
}

/// All traces to this collector.
fn recorded(collector: &Origin, more: &str) -> String {
    let endpoint = collector.url("/v1/traces");
    format!("[tracing]\nenabled = true\nsample = 1.0\notlp.endpoint = \"{endpoint}\"\n{more}")
}

fn collector() -> Origin {
    Origin::start()
        .on("POST /v1/traces", Respond::text(""))
        .on("POST /api/v2/spans", Respond::text("").status("202 Accepted"))
}

fn echo() -> Origin {
    Origin::start().on("GET /a", Respond::text("hello"))
}

/// Every span that has come, in the order of its coming.
fn spans(collector: &Origin) -> Vec<Span> {
    let decode = |body: &[u8]| ExportTraceServiceRequest::decode(body).expect("it is OTLP");
    let requests = collector.requests();
    requests.iter().flat_map(|request| flat(decode(&request.body))).collect()
}

fn flat(request: ExportTraceServiceRequest) -> Vec<Span> {
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

fn wait_for_spans(collector: &Origin, count: usize) -> Vec<Span> {
    assert!(
        eventually(|| spans(collector).len() >= count),
        "{count} spans: {:?}",
        spans(collector)
    );
    let spans = spans(collector);
    assert_eq!(spans.len(), count, "{spans:#?}");
    spans
}

fn attribute(span: &Span, name: &str) -> Option<Value> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    found.value.clone()?.value
}

fn text(span: &Span, name: &str) -> String {
    match attribute(span, name) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{name} is {other:?} in {span:#?}"),
    }
}

fn number(span: &Span, name: &str) -> i64 {
    match attribute(span, name) {
        Some(Value::IntValue(number)) => number,
        other => panic!("{name} is {other:?} in {span:#?}"),
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of 2: the server's span and the client's.
fn pair(spans: &[Span]) -> (&Span, &Span) {
    let of = |kind| spans.iter().find(|span| span.kind == kind).expect("one of each kind");
    (of(SERVER), of(CLIENT))
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == 2)
}

fn get(proxy: &Proxy, path: &str, headers: &str) -> u16 {
    let mut client = proxy.client();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: shop.example:81\r\n{headers}\r\n"));
    client.read_response().status
}

fn parent(id: &str, flags: &str) -> String {
    format!("traceparent: 00-{id}-{SPAN}-{flags}\r\n")
}

fn log_lines(proxy: &Proxy, count: usize) -> Vec<Json> {
    let path = proxy.directory().join("access.log");
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    assert!(eventually(|| read().lines().count() >= count), "{}", read());
    read().lines().map(Json::parse).collect()
}

// --- what a collector gets --------------------------------------------------------------------

#[test]
fn a_trace_goes_from_the_client_through_the_proxy_to_the_origin() {
    let (origin, collector) = (echo(), collector());
    let more = "service_name = \"edge\"\nservice_id = \"edge-1\"\n\
                otlp.headers = { X-Key = \"secret\" }\n";
    let proxy = Proxy::start(&traced(&origin, &recorded(&collector, more), ""));
    let headers = format!("{}tracestate: a=1,b=2\r\nUser-Agent: me\r\n", parent(TRACE, "01"));
    assert_eq!(get(&proxy, "/a?secret=1", &headers), 404);
    assert_eq!(get(&proxy, "/a", &headers), 200);
    let spans = wait_for_spans(&collector, 4);
    let (server, client) = pair(&spans[2..]);
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
    let ids: BTreeSet<_> = spans.iter().map(|span| &span.span_id).collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(hex(&server.parent_span_id), SPAN);
    assert_eq!(client.parent_span_id, server.span_id);
    let seen = &origin.requests()[1];
    let told = format!("00-{TRACE}-{}-01", hex(&client.span_id));
    assert_eq!(seen.header("traceparent"), Some(told.as_str()));
    assert_eq!(seen.header("tracestate"), Some("a=1,b=2"));

    for (name, expected) in [
        ("http.request.method", "GET"),
        ("url.path", "/a"),
        ("url.scheme", "http"),
        ("server.address", "shop.example"),
        ("network.protocol.version", "1.1"),
        ("client.address", "127.0.0.1"),
        ("user_agent.original", "me"),
        ("corelane.route", "all"),
        ("corelane.cluster", "a"),
    ] {
        assert_eq!(text(server, name), expected, "{name}");
    }
    assert_eq!((server.name.as_str(), client.name.as_str()), ("GET all", "GET a"));
    assert_eq!(number(server, "server.port"), 81);
    assert_eq!(number(server, "http.response.status_code"), 200);
    assert_eq!(number(client, "server.port"), i64::from(origin.address().port()));
    assert_eq!(text(client, "url.full"), origin.url("/a"));
    assert_eq!(attribute(client, "corelane.reused"), Some(Value::BoolValue(true)));
    assert!(!is_error(server) && !is_error(client));
    assert!(is_error(&spans[1]) && !is_error(&spans[0]), "404 is the client's mistake");
    let requests = collector.requests();
    assert_eq!(requests[0].header("content-type"), Some("application/x-protobuf"));
    assert_eq!(requests[0].header("x-key"), Some("secret"));
    assert!(!String::from_utf8_lossy(&requests[0].body).contains("secret"));
    let decoded = ExportTraceServiceRequest::decode(&requests[0].body[..]).unwrap();
    let resource = decoded.resource_spans[0].resource.clone().unwrap().attributes;
    let value = |name: &str| {
        let found = resource.iter().find(|attribute| attribute.key == name);
        found.and_then(|attribute| attribute.value.clone()?.value)
    };
    assert_eq!(value("service.name"), Some(Value::StringValue("edge".to_owned())));
    assert_eq!(value("service.instance.id"), Some(Value::StringValue("edge-1".to_owned())));
}

#[test]
fn times_add_up_and_are_those_of_the_access_log() {
    let origin =
        Origin::start().on("GET /a", Respond::text("hello").after(Duration::from_millis(60)));
    let collector = collector();
    let proxy = Proxy::start(&traced(&origin, &recorded(&collector, ""), ""));
    assert_eq!(get(&proxy, "/a", ""), 200);
    let spans = wait_for_spans(&collector, 2);
    let (server, client) = pair(&spans);
    let line = &log_lines(&proxy, 1)[0];
    assert_eq!(line.text("trace_id"), hex(&server.trace_id));
    assert_eq!(line.text("request_id"), text(server, "corelane.request_id"));
    let names = ["head", "queue", "connect", "tls", "upload", "first_byte", "body"];
    let told = names.map(|name| number(server, &format!("corelane.{name}_us")));
    let logged = names.map(|name| (line.number(&format!("timings.{name}_ms")) * 1e3).round());
    assert_eq!(told.map(|micros| micros as f64), logged);
    let length = |span: &Span| (span.end_time_unix_nano - span.start_time_unix_nano) / 1000;
    assert_eq!(told.iter().sum::<i64>() as u64, length(server));
    let parts = names[1..].iter().map(|name| number(client, &format!("corelane.{name}_us")));
    assert_eq!(parts.sum::<i64>() as u64, length(client));
    assert!(number(client, "corelane.first_byte_us") >= 60_000, "{client:#?}");
    assert!(client.start_time_unix_nano >= server.start_time_unix_nano);
    assert!(client.end_time_unix_nano <= server.end_time_unix_nano);
}

#[test]
fn every_attempt_is_a_span_and_the_failed_one_says_why() {
    let (origin, collector) = (echo(), collector());
    let nobody = nobody();
    let toml = traced(&origin, &recorded(&collector, ""), "");
    let toml = toml.replace("[{ address", &format!("[{{ address = \"{nobody}\" }}, {{ address"));
    let proxy = Proxy::start(&toml);
    let mut told = Vec::new();
    let found = eventually(|| {
        told.clear();
        assert_eq!(get(&proxy, "/a", ""), 200);
        told = spans(&collector);
        told.iter().any(is_error)
    });
    assert!(found, "no attempt failed: {told:#?}");
    let failed = told.iter().find(|span| is_error(span)).unwrap();
    assert_eq!(failed.kind, CLIENT);
    assert_eq!(number(failed, "server.port"), i64::from(nobody.port()));
    assert!(text(failed, "error.type").contains("connect"), "{failed:#?}");
    let same_trace = |span: &&Span| span.trace_id == failed.trace_id;
    let trace: Vec<&Span> = told.iter().filter(same_trace).collect();
    assert_eq!(trace.len(), 3, "{trace:#?}");
    let server = trace.iter().find(|span| span.kind == SERVER).unwrap();
    assert!(!is_error(server) && failed.parent_span_id == server.span_id);
    // The origin was told of the attempt that reached it.
    let well = trace.iter().find(|span| span.kind == CLIENT && !is_error(span)).unwrap();
    assert_eq!(number(well, "http.request.resend_count"), 1);
    let ids = origin.requests();
    let ids: Vec<&str> = ids.iter().filter_map(|request| request.header("traceparent")).collect();
    assert!(ids.iter().any(|id| id.contains(&hex(&well.span_id))), "{ids:?}");
}

#[test]
fn failures_and_own_answers_are_spans_too() {
    let origin = Origin::raw(|stream, _, _| {
        let _ = stream.write_all(b"rubbish\r\n\r\n");
        After::Close
    });
    let collector = collector();
    let own = "[[routes]]\nname = \"own\"\npaths = [\"/own\"]\nrespond = { status = 204 }\n\
               [[routes]]\nname = \"broken\"\npaths = [\"/own5\"]\nrespond = { status = 503 }\n";
    let toml = traced(&origin, &recorded(&collector, ""), own);
    let proxy = Proxy::start(&toml.replace("[\"/*\"]", "[\"/app/*\"]"));
    for (path, status) in [("/app/x", 502), ("/own", 204), ("/own5", 503), ("/nowhere", 404)] {
        assert_eq!(get(&proxy, path, ""), status);
    }
    let mut client = proxy.client();
    client.send("BAD \x01 HTTP/1.1\r\n\r\n");
    assert_eq!(client.read_response().status, 400);
    let spans = wait_for_spans(&collector, 6);
    let with = |status: i64| {
        let is = |span: &&Span| {
            span.kind == SERVER
                && attribute(span, "http.response.status_code") == Some(Value::IntValue(status))
        };
        spans.iter().find(is).unwrap_or_else(|| panic!("{status}: {spans:#?}"))
    };
    assert_eq!((with(502).name.as_str(), with(204).name.as_str()), ("GET all", "GET own"));
    assert_eq!((with(404).name.as_str(), with(400).name.as_str()), ("GET", "HTTP"));
    assert!(is_error(with(502)) && is_error(with(503)));
    assert!(!is_error(with(204)) && !is_error(with(404)) && !is_error(with(400)));
    assert_eq!(text(with(503), "error.type"), "503");
    assert_eq!(text(with(502), "error.type"), text(with(502), "corelane.failure"));
    assert!(!text(with(404), "corelane.failure").is_empty());
}

#[test]
fn otlp_in_json_is_read_by_opentelemetrys_own_types() {
    let (origin, collector) = (echo(), collector());
    let tracing = recorded(&collector, "otlp.protocol = \"json\"\n");
    let proxy = Proxy::start(&traced(&origin, &tracing, ""));
    assert_eq!(get(&proxy, "/a", &format!("{}User-Agent: \"\\x\r\n", parent(TRACE, "01"))), 200);
    let request = collector.wait_for_requests(1).remove(0);
    assert_eq!(request.header("content-type"), Some("application/json"));
    let decoded: ExportTraceServiceRequest = serde_json::from_slice(&request.body).unwrap();
    let spans = flat(decoded);
    let (server, client) = pair(&spans);
    assert_eq!((hex(&server.trace_id), hex(&server.parent_span_id)), (TRACE.into(), SPAN.into()));
    assert_eq!(client.parent_span_id, server.span_id);
    assert_eq!(text(server, "user_agent.original"), "\"\\x");
    assert_eq!(number(server, "http.response.status_code"), 200);
    assert!(server.end_time_unix_nano > server.start_time_unix_nano);
}

#[test]
fn zipkin_gets_its_second_version() {
    let (origin, collector) = (echo(), collector());
    let endpoint = collector.url("/api/v2/spans");
    let tracing = format!(
        "[tracing]\nenabled = true\nsample = 1.0\npropagate = [\"b3\"]\n\
         zipkin.endpoint = \"{endpoint}\"\n"
    );
    let proxy = Proxy::start(&traced(&origin, &tracing, ""));
    assert_eq!(get(&proxy, "/b", &format!("b3: {TRACE}-{SPAN}-d\r\n")), 404);
    let request = collector.wait_for_requests(1).remove(0);
    assert_eq!(request.method_and_target(), "POST /api/v2/spans");
    let list = Json::parse(&String::from_utf8(request.body).unwrap());
    let Json::List(spans) = &list else { panic!("{list:?}") };
    let [server, client] = &spans[..] else { panic!("{spans:#?}") };
    for span in spans {
        assert_eq!(span.text("traceId"), TRACE);
        assert_eq!(*span.at("debug"), Json::Bool(true));
        assert_eq!(span.text("localEndpoint.serviceName"), "corelane");
        let (at, took) = (span.number("timestamp"), span.number("duration"));
        assert!(at > 1.7e15 && at.fract() == 0.0 && took >= 1.0 && took.fract() == 0.0);
        let Json::Object(tags) = span.at("tags") else { panic!("{span:?}") };
        assert!(tags.values().all(|tag| matches!(tag, Json::Text(_))), "{tags:?}");
    }
    assert_eq!((server.text("kind"), client.text("kind")), ("SERVER", "CLIENT"));
    assert_eq!((server.text("parentId"), client.text("parentId")), (SPAN, server.text("id")));
    assert_eq!(client.number("remoteEndpoint.port"), f64::from(origin.address().port()));
    let Json::Object(tags) = client.at("tags") else { panic!("{client:?}") };
    assert_eq!(tags.get("http.response.status_code"), Some(&Json::Text("404".to_owned())));
    assert_eq!(tags.get("error"), Some(&Json::Text("404".to_owned())));
    let told = format!("{TRACE}-{}-d-{}", client.text("id"), server.text("id"));
    assert_eq!(origin.only_request().header("b3"), Some(told.as_str()));
}

// --- headers ----------------------------------------------------------------------------------

const FORMATS: [&str; 4] = ["w3c", "b3", "b3multi", "jaeger"];

/// A context of ours in each format.
fn context(format: &str) -> String {
    match format {
        "w3c" => parent(TRACE, "01"),
        "b3" => format!("B3: {TRACE}-{SPAN}-1\r\n"),
        "b3multi" => {
            format!("X-B3-TraceId: {TRACE}\r\nX-B3-SpanId: {SPAN}\r\nX-B3-Sampled: 1\r\n")
        }
        _ => format!("uber-trace-id: {TRACE}:{SPAN}:0:1\r\n"),
    }
}

#[test]
fn any_format_in_every_format_out() {
    let (origin, collector) = (echo(), collector());
    let tracing = recorded(&collector, "propagate = [\"w3c\", \"b3\", \"b3multi\", \"jaeger\"]\n");
    let proxy = Proxy::start(&traced(&origin, &tracing.replace("1.0", "0.0"), ""));
    for format in FORMATS {
        assert_eq!(get(&proxy, "/a", &context(format)), 200);
    }
    let spans = wait_for_spans(&collector, 8);
    assert_eq!(spans.iter().filter(|span| hex(&span.parent_span_id) == SPAN).count(), 4);
    for seen in origin.requests() {
        let told = seen.header("traceparent").expect("one of ours").to_owned();
        let span = &told[36..52];
        assert_eq!(told, format!("00-{TRACE}-{span}-01"));
        assert!(spans.iter().any(|sent| hex(&sent.span_id) == span && sent.kind == CLIENT));
        let server = spans.iter().find(|sent| hex(&sent.span_id) == span).unwrap();
        let server = hex(&server.parent_span_id);
        assert_eq!(seen.header("b3"), Some(format!("{TRACE}-{span}-1-{server}").as_str()));
        assert_eq!(seen.header("x-b3-traceid"), Some(TRACE));
        assert_eq!(seen.header("x-b3-spanid"), Some(span));
        assert_eq!(seen.header("x-b3-parentspanid"), Some(server.as_str()));
        assert_eq!(seen.header("x-b3-sampled"), Some("1"));
        assert_eq!(seen.header("uber-trace-id"), Some(format!("{TRACE}:{span}:0:1").as_str()));
    }
}

#[test]
fn hostile_headers_begin_a_new_trace_and_leave_nothing_behind() {
    let (origin, collector) = (echo(), collector());
    let tracing = recorded(&collector, "propagate = [\"w3c\", \"b3\", \"b3multi\", \"jaeger\"]\n");
    let proxy = Proxy::start(&traced(&origin, &tracing, ""));
    let long = "a".repeat(4000);
    let zero = "0".repeat(32);
    let hostile = [
        "traceparent: \r\n".to_owned(),
        format!("traceparent: ff-{TRACE}-{SPAN}-01\r\n"),
        format!("traceparent: 00-{zero}-{SPAN}-01\r\n"),
        format!("traceparent: 00-{TRACE}-{SPAN}-01-x\r\ntracestate: a=1\r\n"),
        format!("{}{}", parent(TRACE, "01"), parent(TRACE, "01")),
        format!("traceparent: {long}\r\ntracestate: {long}\r\n"),
        format!("b3: {long}\r\nuber-trace-id: {long}\r\nX-B3-TraceId: {long}\r\n"),
        format!("b3: {TRACE}-{SPAN}-1\t; \"<>\r\n"),
        format!("uber-trace-id: {TRACE}:{SPAN}:0:1;evil\r\nX-B3-SpanId: {SPAN}\r\n"),
        "traceparent: 00-\u{fc}\u{fc}\r\nb3: %00%0d%0a\r\n".to_owned(),
    ];
    for headers in &hostile {
        assert_eq!(get(&proxy, "/a", headers), 200, "{headers}");
    }
    let spans = wait_for_spans(&collector, 2 * hostile.len());
    assert!(spans.iter().all(|span| hex(&span.trace_id) != TRACE));
    let traces: BTreeSet<_> = spans.iter().map(|span| &span.trace_id).collect();
    assert_eq!(traces.len(), hostile.len());
    assert!(spans.iter().filter(|s| s.kind == SERVER).all(|s| s.parent_span_id.is_empty()));
    for seen in origin.requests() {
        for name in ["traceparent", "b3", "x-b3-traceid", "x-b3-spanid", "uber-trace-id"] {
            assert!(seen.header(name).is_some_and(|value| value.len() < 100), "{}", seen.head);
        }
        assert_eq!(seen.header("tracestate"), None, "{}", seen.head);
    }
    assert_eq!(get(&proxy, "/a", &parent(TRACE, "01")), 200);
}

#[test]
fn state_that_is_not_valid_does_not_go_on_but_the_trace_does() {
    let (origin, collector) = (echo(), collector());
    let proxy = Proxy::start(&traced(&origin, &recorded(&collector, ""), ""));
    for state in ["a=1\r\ntracestate: b=2", "A=1", "a=1,a=2"] {
        let headers = format!("{}tracestate: {state}\r\n", parent(TRACE, "00"));
        assert_eq!(get(&proxy, "/a", &headers), 200);
    }
    let seen = origin.requests();
    assert!(seen.iter().all(|seen| seen.header("traceparent").unwrap().contains(TRACE)));
    let states: Vec<_> = seen.iter().map(|seen| seen.headers("tracestate")).collect();
    assert_eq!(states, [vec!["a=1", "b=2"], vec![], vec![]]);
}

#[test]
fn without_tracing_headers_pass_as_they_came() {
    let (origin, collector) = (echo(), collector());
    let all: String = FORMATS.map(context).concat();
    let all = format!("{all}tracestate: RUBBISH\r\ntraceparent: twice\r\nX-B3-Flags: 1\r\n");
    let lines: Vec<&str> = all.lines().collect();
    let passed = |head: &str| {
        head.lines().filter(|line| lines.contains(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    for (tracing, route) in [
        (String::new(), ""),
        (recorded(&collector, ""), "tracing = false\n"),
        (recorded(&collector, "propagate = []\n"), ""),
    ] {
        let proxy = Proxy::start(&traced(&origin, &tracing, route));
        assert_eq!(get(&proxy, "/a", &all), 200);
        let seen = origin.requests().pop().unwrap();
        assert_eq!(passed(&seen.head), lines, "{tracing}{route}");
        assert_eq!(seen.headers("traceparent").len(), 2);
        let trace_id = !tracing.is_empty() && route.is_empty();
        let Json::Object(line) = &log_lines(&proxy, 1)[0] else { panic!() };
        assert_eq!(line.contains_key("trace_id"), trace_id, "{line:?}");
    }
}

#[test]
fn an_operators_header_goes_before_ours() {
    let (origin, collector) = (echo(), collector());
    let edits = "request_headers = { set = { traceparent = \"mine\" }, remove = [\"b3\"] }\n";
    let tracing = recorded(&collector, "propagate = [\"w3c\", \"b3\"]\n");
    let proxy = Proxy::start(&traced(&origin, &tracing, edits));
    assert_eq!(get(&proxy, "/a", &parent(TRACE, "01")), 200);
    let seen = origin.only_request();
    assert_eq!((seen.header("traceparent"), seen.header("b3")), (Some("mine"), None));
}

// --- decisions --------------------------------------------------------------------------------

/// Which of these traces come, once the last one has: it is always sampled.
fn recorded_of(proxy: &Proxy, collector: &Origin, requests: &[(String, &str)]) -> Vec<bool> {
    for (headers, path) in requests {
        get(proxy, path, headers);
    }
    let last = "f".repeat(32);
    get(proxy, "/a", &parent(&last, "01"));
    let has = |id: &str| spans(collector).iter().any(|span| hex(&span.trace_id) == id);
    assert!(eventually(|| has(&last)));
    requests.iter().map(|(headers, _)| has(&headers[16..48])).collect()
}

/// Ids whose last 56 bits are this share of all.
fn id_at(share: f64, number: u32) -> String {
    format!("{number:018x}{:014x}", (share * (1_u64 << 56) as f64) as u64)
}

#[test]
fn the_share_is_exact_and_a_route_may_have_its_own() {
    let own = "[[routes]]\nname = \"own\"\npaths = [\"/own\"]\nrespond = { status = 204 }\n\
               tracing = { sample = 0.75 }\n";
    for (path, first) in [("/a", 75), ("/own", 25)] {
        let (origin, collector) = (echo(), collector());
        let tracing = recorded(&collector, "parent = false\n").replace("1.0", "0.25");
        let proxy = Proxy::start(&traced(&origin, &tracing, own));
        let requests: Vec<_> = (0..100)
            .map(|n| {
                (id_at((f64::from(n) + 0.5) / 100.0, n + 1), if n % 2 == 0 { "00" } else { "01" })
            })
            .map(|(id, flags)| (parent(&id, flags), path))
            .collect();
        let found = recorded_of(&proxy, &collector, &requests);
        assert_eq!(found, (0..100).map(|n| n >= first).collect::<Vec<_>>(), "{path}");
    }
}

#[test]
fn the_callers_decision_counts_and_goes_on() {
    let (origin, collector) = (echo(), collector());
    let proxy = Proxy::start(&traced(&origin, &recorded(&collector, ""), ""));
    let requests = [(parent(&id_at(0.9, 1), "00"), "/a"), (parent(&id_at(0.1, 2), "01"), "/a")];
    assert_eq!(recorded_of(&proxy, &collector, &requests), [false, true]);
    let flags = origin
        .requests()
        .iter()
        .map(|r| r.header("traceparent").unwrap()[53..].to_owned())
        .collect::<Vec<_>>();
    assert_eq!(flags, ["00", "01", "01"]);
    // What is not recorded has its id in the log all the same.
    let lines = log_lines(&proxy, 3);
    assert_eq!(lines[0].text("trace_id"), id_at(0.9, 1));
}

#[test]
fn headers_of_strangers_are_believed_only_when_asked_to() {
    let (origin, collector) = (echo(), collector());
    let strict = recorded(&collector, "trust = \"trusted_proxies\"\n");
    let proxy = Proxy::start(&traced(&origin, &strict, ""));
    let headers = format!("{}tracestate: a=1\r\n", parent(TRACE, "00"));
    assert_eq!(get(&proxy, "/a", &headers), 200);
    let seen = origin.requests().pop().unwrap();
    assert!(!seen.header("traceparent").unwrap().contains(TRACE), "{}", seen.head);
    assert_eq!(seen.header("tracestate"), None);
    let trusted = format!("trusted_proxies = [\"127.0.0.0/8\"]\n{}", traced(&origin, &strict, ""));
    let proxy = Proxy::start(&trusted);
    assert_eq!(get(&proxy, "/a", &headers), 200);
    let seen = origin.requests().pop().unwrap();
    assert!(seen.header("traceparent").unwrap().contains(TRACE), "{}", seen.head);
}

// --- collectors that are no good --------------------------------------------------------------

/// Sends so many requests that the queue of a collector that takes nothing overflows, each with
/// long fields, and says how long the slowest took.
fn overflow(proxy: &Proxy) -> Duration {
    let long = "x".repeat(1000);
    let request = format!("GET /{long} HTTP/1.1\r\nHost: {long}\r\nUser-Agent: {long}\r\n\r\n");
    let mut client = proxy.client();
    let mut slowest = Duration::ZERO;
    for _ in 0..2000 {
        let begin = Instant::now();
        client.send(&request);
        assert_eq!(client.read_response().status, 404);
        slowest = slowest.max(begin.elapsed());
    }
    slowest
}

fn metric(proxy: &Proxy, what: &str) -> u64 {
    proxy.metric(&format!("tls_proxy_trace_spans_{what}_total")).expect("it is there") as u64
}

#[test]
fn a_collector_that_never_answers_delays_nobody_and_what_is_lost_is_counted() {
    let (origin, silent) = (
        echo(),
        Origin::connections(|stream, _| {
            std::thread::sleep(Duration::from_secs(60));
            drop(stream);
        }),
    );
    let mut proxy = Proxy::start(&traced(&origin, &recorded(&silent, ""), ""));
    let slowest = overflow(&proxy);
    assert!(slowest < Duration::from_secs(5), "{slowest:?}"); // its timeout is 10 s
    // 128 batches wait, of ten records with two spans; one request of eight is under way.
    assert!(eventually(|| metric(&proxy, "dropped") > 1000), "{}", metric(&proxy, "dropped"));
    assert_eq!((metric(&proxy, "exported"), get(&proxy, "/a", "")), (0, 200));
    proxy.signal("TERM");
    let begin = Instant::now();
    assert!(proxy.wait_exit(PATIENCE).success());
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

#[test]
fn a_collector_that_is_down_is_found_again_and_told_what_was_kept() {
    let origin = echo();
    let address = nobody();
    let tracing = format!(
        "[tracing]\nenabled = true\nsample = 1.0\notlp.endpoint = \"http://localhost:{}\"\n",
        address.port()
    );
    let proxy = Proxy::start(&traced(&origin, &tracing, ""));
    assert_eq!(get(&proxy, "/a", ""), 200);
    proxy.wait_for_log("did not take spans");
    let place = TcpListener::bind(address).unwrap();
    let (mut stream, _) = place.accept().unwrap();
    let mut bytes = Vec::new();
    while support::request_length(&bytes).is_none_or(|length| bytes.len() < length) {
        let mut room = [0; 4096];
        let count = std::io::Read::read(&mut stream, &mut room).unwrap();
        bytes.extend_from_slice(&room[..count]);
    }
    assert!(bytes.starts_with(b"POST /v1/traces HTTP/1.1\r\nHost: localhost:"));
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert!(eventually(|| metric(&proxy, "exported") == 2));
    assert_eq!((metric(&proxy, "dropped"), metric(&proxy, "failed")), (0, 0));
}

#[test]
fn a_collector_that_is_busy_is_asked_again() {
    let origin = echo();
    let collector = Origin::raw(|stream, _, connection| {
        let answer: &[u8] = match connection {
            0 => b"HTTP/1.1 429 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
            1 => b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
            // One of the two spans was not to its liking.
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\x0a\x02\x08\x01",
        };
        let _ = stream.write_all(answer);
        After::Close
    });
    let proxy = Proxy::start(&traced(&origin, &recorded(&collector, ""), ""));
    assert_eq!(get(&proxy, "/a", ""), 200);
    assert!(eventually(|| counts(&proxy) == [1, 1, 0]), "{:?}", counts(&proxy));
    let bodies: BTreeSet<_> = collector.requests().into_iter().map(|r| r.body).collect();
    assert_eq!((collector.requests().len(), bodies.len()), (3, 1));
}

#[test]
fn what_no_collector_takes_is_given_up_and_counted() {
    let answers: [&[u8]; 3] = [
        b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 429 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n",
    ];
    let origin = echo();
    for answer in answers {
        let collector = Origin::raw(move |stream, _, _| {
            let _ = stream.write_all(answer);
            After::Close
        });
        let proxy = Proxy::start(&traced(&origin, &recorded(&collector, ""), ""));
        assert_eq!(get(&proxy, "/a", ""), 200);
        let begin = Instant::now();
        let mut counted = 0;
        while counted == 0 && begin.elapsed() < Duration::from_secs(20) {
            counted = metric(&proxy, "failed");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!((counted, metric(&proxy, "exported")), (2, 0), "{}", answer.escape_ascii());
        assert_eq!(get(&proxy, "/a", ""), 200);
    }
}

#[test]
fn the_end_sends_what_is_queued() {
    let (origin, collector) = (echo(), collector());
    let mut proxy = Proxy::start(&traced(&origin, &recorded(&collector, ""), ""));
    for _ in 0..10 {
        assert_eq!(get(&proxy, "/a", ""), 200);
    }
    proxy.signal("TERM");
    assert!(proxy.wait_exit(PATIENCE).success());
    assert_eq!(spans(&collector).len(), 20);
}

#[test]
fn a_flag_is_enough() {
    let (origin, collector) = (echo(), collector());
    let (to, endpoint) = (origin.url(""), collector.url(""));
    let proxy = Proxy::start_command(&[
        "reverse",
        "--from",
        "127.0.0.1:0",
        "--to",
        &to,
        "--otlp-endpoint",
        &endpoint,
        "--service-name",
        "flagged",
        "--service-id",
        "7",
        "--metrics-port",
        "0",
        "--admin-port",
        "0",
    ]);
    assert_eq!(get(&proxy, "/a", &parent(TRACE, "01")), 200);
    let request = collector.wait_for_requests(1).remove(0);
    assert_eq!(request.method_and_target(), "POST /v1/traces");
    assert!(String::from_utf8_lossy(&request.body).contains("flagged"));
    for wrong in ["https://collector:4318", "collector:4318"] {
        let output = Proxy::command(&[
            "reverse",
            "--from",
            "127.0.0.1:0",
            "--to",
            &to,
            "--otlp-endpoint",
            wrong,
        ]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

// --- new configurations -----------------------------------------------------------------------

/// On two cores, read again when it is told to and not before.
fn reloadable(origin: &Origin, tracing: &str) -> String {
    let toml = traced(origin, tracing, "").replacen("cores = 1", "cores = 2", 1);
    format!("hot_reload.watch = false\n{toml}")
}

fn reload(proxy: &Proxy, toml: &str) {
    let ended = || proxy.log().matches("reloaded (").count();
    let before = ended();
    proxy.rewrite_config(toml);
    proxy.signal("HUP");
    assert!(eventually(|| ended() > before), "{}", proxy.log());
    assert!(!proxy.log().contains("reload refused"), "{}", proxy.log());
}

/// The ids of the traces that came, each once with both of its spans.
fn whole_traces(collector: &Origin) -> BTreeSet<String> {
    let mut kinds: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for span in spans(collector) {
        kinds.entry(hex(&span.trace_id)).or_default().push(span.kind);
    }
    for (id, kinds) in &mut kinds {
        kinds.sort_unstable();
        assert_eq!(*kinds, [SERVER, CLIENT], "{id}");
    }
    kinds.into_keys().collect()
}

fn zipkin_traces(collector: &Origin) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for request in collector.requests() {
        let list = Json::parse(&String::from_utf8(request.body).expect("JSON is UTF-8"));
        let Json::List(spans) = list else { panic!("{list:?}") };
        ids.extend(spans.iter().map(|span| span.text("traceId").to_owned()));
    }
    ids
}

fn counts(proxy: &Proxy) -> [u64; 3] {
    ["exported", "failed", "dropped"].map(|what| metric(proxy, what))
}

/// Zipkin writes 16 digits where the first 16 are zeros.
fn id(number: usize) -> String {
    format!("a{number:031x}")
}

/// Clients that ask all the time, each request a trace of its own. Every answer is a 200.
struct Load {
    /// Whether new requests may begin.
    stop: AtomicBool,
    /// The ids of the exchanges that have ended.
    ended: Mutex<BTreeSet<String>>,
    next: AtomicUsize,
}

impl Load {
    /// Runs `during` beside the load.
    fn beside(proxy: &Proxy, during: impl FnOnce(&Load)) {
        let load = Load {
            stop: AtomicBool::new(false),
            ended: Mutex::default(),
            next: AtomicUsize::new(1),
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| load.ask(proxy));
            }
            let stop = Stop(&load.stop);
            during(&load);
            drop(stop);
        });
    }

    fn ask(&self, proxy: &Proxy) {
        let mut client = proxy.client();
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number.is_multiple_of(10) {
                client = proxy.client();
            }
            let id = id(number);
            let headers = parent(&id, "01");
            client.send(format!("GET /a HTTP/1.1\r\nHost: shop.example\r\n{headers}\r\n"));
            assert_eq!(client.read_response().status, 200);
            self.ended.lock().expect("no client has panicked").insert(id);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn ended(&self) -> BTreeSet<String> {
        self.ended.lock().expect("no client has panicked").clone()
    }

    /// Those that begin from now on, until so many have ended. Requests that were under way when
    /// this was called are not among them.
    fn some_more(&self) -> BTreeSet<String> {
        let first = id(self.next.load(Ordering::Relaxed));
        let after = || self.ended().split_off(&first);
        assert!(eventually(|| after().len() >= 40), "the load has stopped");
        after()
    }
}

/// The load ends also when a test fails beside it.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn reloads_turn_tracing_on_and_elsewhere_and_off_under_load_without_losing_a_span() {
    let (origin, first, second, third) = (echo(), collector(), collector(), collector());
    let off = reloadable(&origin, "");
    let to = |collector: &Origin, more: &str| reloadable(&origin, &recorded(collector, more));
    let zipkin = format!("zipkin.endpoint = \"{}\"\n", third.url("/api/v2/spans"));
    let proxy = Proxy::start(&off);
    let mut last = counts(&proxy);
    let mut check = || {
        let now = counts(&proxy);
        assert!(now.iter().zip(&last).all(|(now, last)| now >= last), "{last:?}, then {now:?}");
        assert_eq!(now[1..], [0, 0], "nothing is lost");
        last = now;
    };
    let came = || -> BTreeSet<String> {
        whole_traces(&first).union(&whole_traces(&second)).cloned().collect()
    };
    Load::beside(&proxy, |load| {
        let before = load.some_more();
        reload(&proxy, &to(&first, ""));
        let on = load.some_more();
        reload(&proxy, &to(&second, ""));
        check();
        let moved = load.some_more();
        reload(&proxy, &to(&second, &zipkin));
        check();
        let twice = load.some_more();
        reload(&proxy, &off);
        check();
        let untraced = load.some_more();
        let traced: BTreeSet<_> = [&on, &moved, &twice].into_iter().flatten().cloned().collect();
        assert!(eventually(|| came().is_superset(&traced)), "{:?}", traced.difference(&came()));
        assert!(came().is_disjoint(&before) && came().is_disjoint(&untraced));
        assert!(whole_traces(&second).is_superset(&moved));
        assert!(eventually(|| zipkin_traces(&third).is_superset(&twice)));
        assert!(zipkin_traces(&third).is_disjoint(&moved));
        check();
    });
    let spans = || 2 * (came().len() + zipkin_traces(&third).len()) as u64;
    assert!(eventually(|| metric(&proxy, "exported") == spans()), "{:?}", counts(&proxy));
    check();
}

#[test]
fn a_reload_changes_the_share_and_what_is_told_of_the_service_at_once() {
    let (origin, collector) = (echo(), collector());
    let toml = |more: &str| reloadable(&origin, &recorded(&collector, more));
    let proxy = Proxy::start(&toml("service_name = \"old\"\n").replace("1.0", "0.0"));
    let mut kept = proxy.client();
    let mut ask = || assert_eq!(kept.get("/a").status, 200);
    ask();
    reload(&proxy, &toml("service_name = \"old\"\n"));
    ask();
    wait_for_spans(&collector, 2);
    reload(&proxy, &toml("service_name = \"new\"\n"));
    ask();
    wait_for_spans(&collector, 4);
    let told = collector.requests();
    let says = |name: &str, n: usize| String::from_utf8_lossy(&told[n].body).contains(name);
    assert!(says("old", 0) && says("new", 1), "{told:?}");
    reload(&proxy, &toml("service_name = \"new\"\n").replace("1.0", "0.0"));
    ask();
    assert_eq!(get(&proxy, "/a", &parent(TRACE, "01")), 200);
    assert!(wait_for_spans(&collector, 6)[4..].iter().all(|span| hex(&span.trace_id) == TRACE));
    assert!(eventually(|| counts(&proxy) == [6, 0, 0]), "{:?}", counts(&proxy));
}

#[test]
fn what_waits_for_a_collector_that_is_down_goes_where_a_reload_says() {
    let (origin, collector) = (echo(), collector());
    let nobody = nobody();
    let tracing =
        recorded(&collector, "").replace(&collector.address().to_string(), &nobody.to_string());
    let proxy = Proxy::start(&reloadable(&origin, &tracing));
    assert_eq!(get(&proxy, "/a", ""), 200);
    proxy.wait_for_log("did not take spans");
    reload(&proxy, &reloadable(&origin, &recorded(&collector, "")));
    wait_for_spans(&collector, 2);
    assert!(eventually(|| counts(&proxy) == [2, 0, 0]), "{:?}", counts(&proxy));
}

#[test]
fn a_collector_that_is_silent_holds_up_no_reload_for_long_and_its_spans_are_counted() {
    let (origin, collector) = (echo(), collector());
    let silent = Origin::connections(|stream, _| {
        std::thread::sleep(Duration::from_secs(60));
        drop(stream);
    });
    let on = reloadable(&origin, &recorded(&silent, ""));
    let proxy = Proxy::start(&reloadable(&origin, ""));
    let threads = proxy.threads();
    for _ in 0..12 {
        reload(&proxy, &on);
        assert_eq!(get(&proxy, "/a", ""), 200);
        reload(&proxy, &reloadable(&origin, ""));
        assert!(proxy.threads() <= threads + 9, "{} of {threads}", proxy.threads());
    }
    assert!(eventually(|| counts(&proxy) == [0, 24, 0]), "{:?}", counts(&proxy));
    assert!(eventually(|| proxy.threads() == threads));
    reload(&proxy, &reloadable(&origin, &recorded(&collector, "")));
    assert_eq!(get(&proxy, "/a", ""), 200);
    wait_for_spans(&collector, 2);
    assert!(eventually(|| counts(&proxy) == [2, 24, 0]), "{:?}", counts(&proxy));
}
