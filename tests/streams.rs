//! What the admin API streams while it happens: events, and exchanges that are tapped. A reader
//! that goes, is slow or asks for nonsense harms nobody: every test ends with a client that is
//! served.

mod support;

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;
use std::{io, thread};

use serde_json::{Value, json};
use support::{Origin, PATIENCE, Proxy, RawClient, Respond, Response, edge, eventually};

const OK: &str = "[[routes]]\nname = \"ok\"\nrespond = { status = 200, body = \"ok\" }\n";

/// One that is open, read line by line.
struct Stream {
    reader: BufReader<TcpStream>,
}

impl Stream {
    /// HTTP/1.0: without chunks.
    fn open(proxy: &Proxy, target: &str) -> Stream {
        let mut stream = TcpStream::connect(proxy.address("admin")).expect("it accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("there is one");
        let request = format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        io::Write::write_all(&mut stream, request.as_bytes()).expect("it reads");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).expect("a head") > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("\r\nContent-Type: application/x-ndjson\r\n"), "{head}");
        Stream { reader }
    }

    /// `None`: it has ended.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        let count = self.reader.read_line(&mut line).expect("a line in time");
        (count > 0).then(|| serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}")))
    }

    fn rest(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

fn refused(proxy: &Proxy, target: &str) -> (u16, String) {
    let answer = proxy.admin_get(target);
    let error: Value = serde_json::from_str(answer.text()).expect("errors are JSON");
    (answer.status, error["error"]["message"].as_str().unwrap_or_default().to_owned())
}

fn still_works(proxy: &Proxy) {
    assert_eq!(proxy.client().get("/").status, 200);
    assert_eq!(proxy.admin_get("/admin/status").status, 200);
}

// --- events ----------------------------------------------------------------------------------

#[test]
fn events_are_lines_in_order_until_so_many_have_come() {
    let proxy = Proxy::start(&edge(OK));
    let mut stream = Stream::open(&proxy, "/admin/events?kinds=request&count=3");
    let mut client = proxy.client();
    for path in ["/1?token=secret", "/2", "/3", "/4"] {
        assert_eq!(client.get(path).status, 200);
    }
    let events = stream.rest();
    let paths: Vec<&str> = events.iter().map(|event| event["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/1", "/2", "/3"]);
    assert!(events.iter().all(|event| event["event_type"] == "request"));
    assert!(events.iter().all(|event| event["status_code"] == 200));
    still_works(&proxy);
}

#[test]
fn only_the_kinds_that_were_asked_for_come_and_the_stream_is_audited() {
    let proxy = Proxy::start(&edge(OK));
    let mut stream = Stream::open(&proxy, "/admin/events?kinds=reload,audit&count=2");
    proxy.wait_for_log("GET /admin/events");
    assert_eq!(proxy.client().get("/").status, 200);
    proxy.signal("HUP");
    let kinds: Vec<Value> = stream.rest().iter().map(|event| event["event_type"].clone()).collect();
    assert!(kinds.contains(&json!("reload")) && kinds.contains(&json!("audit")), "{kinds:?}");
    assert!(kinds.iter().all(|kind| kind == "reload" || kind == "audit"), "{kinds:?}");
    still_works(&proxy);
}

#[test]
fn health_events_tell_what_operators_take_out_of_service_and_back() {
    let origin = Origin::start().on("GET /api/a", Respond::text("a"));
    let proxy = Proxy::start(&forwarding(&origin));
    let mut stream = Stream::open(&proxy, "/admin/events?kinds=health&count=5");
    let endpoint = format!("/admin/clusters/app/endpoints/{}", origin.address());
    for (path, body) in [
        (format!("{endpoint}/drain"), "{\"reason\":\"disk\"}"),
        (format!("{endpoint}/weight"), "{\"weight\":3}"),
        (format!("{endpoint}/ready"), "{}"),
        ("/admin/drain?delay=1h".to_owned(), "{}"),
        ("/admin/resume".to_owned(), ""),
        ("/admin/resume".to_owned(), ""),
    ] {
        let mut client = proxy.client_of("admin");
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(client.read_response().status, 200, "{path}");
    }
    let events = stream.rest();
    let name = format!("app {}", origin.address());
    let expected = [
        (name.as_str(), "drained", "drained by loopback: disk"),
        (&name, "drained", "weight 3 by loopback"),
        (&name, "ready", "ready by loopback"),
        ("process", "draining", "an operator took it out of service"),
        ("process", "running", "an operator put it back"),
    ];
    for (event, (subject, state, reason)) in events.iter().zip(expected) {
        assert_eq!((&event["subject"], &event["state"]), (&json!(subject), &json!(state)));
        assert!(event["reason"].as_str().is_some_and(|text| text.contains(reason)), "{event}");
    }
    assert_eq!(proxy.client().get("/ok").status, 200);
}

#[test]
fn a_token_that_is_taken_back_takes_its_streams_with_it() {
    let with = |tokens: &[(&str, &str)]| {
        let tokens: Vec<String> = tokens
            .iter()
            .map(|(name, role)| {
                format!("{{ name = \"{name}\", role = \"{role}\", token = \"{name}-token-0123456789\" }}")
            })
            .collect();
        let admin =
            format!("admin = {{ bind = \"127.0.0.1:0\", tokens = [{}] }}", tokens.join(", "));
        edge(OK).replace("admin = { bind = \"127.0.0.1:0\" }", &admin)
    };
    let proxy =
        Proxy::start(&with(&[("stays", "operator"), ("goes", "operator"), ("sinks", "operator")]));
    let open = |name: &str| {
        let mut client = proxy.client_of("admin");
        client.send(format!(
            "GET /admin/events?kinds=audit&seconds=3600 HTTP/1.1\r\nHost: localhost\r\n\
             Authorization: Bearer {name}-token-0123456789\r\n\r\n"
        ));
        proxy.wait_for_log(&format!("\"actor\":\"{name}\""));
        client
    };
    let (mut stays, mut goes, mut sinks) = (open("stays"), open("goes"), open("sinks"));
    proxy.rewrite_config(&with(&[("stays", "operator"), ("sinks", "viewer")]));
    proxy.signal("HUP");
    for stream in [&mut goes, &mut sinks] {
        let text = String::from_utf8(stream.read_to_close()).expect("it is text");
        assert!(text.contains("does not let its caller in any more"), "{text}");
        assert!(text.ends_with("\r\n0\r\n\r\n"), "{text}");
    }
    proxy.wait_for_log("reloaded (SIGHUP)");
    let mut client = proxy.client_of("admin");
    client.send("POST /admin/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.read_response().status, 401);
    let told = "POST /admin/drain";
    let mut seen = String::new();
    assert!(eventually(|| {
        seen.push_str(&String::from_utf8_lossy(&stays.read_exactly(1)));
        seen.contains(told) || seen.contains("auth_failure")
    }));
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn a_tap_ends_when_other_things_are_to_be_hidden() {
    let proxy = Proxy::start(&edge(OK));
    let mut tap = Stream::open(&proxy, "/admin/tap?seconds=3600");
    proxy.rewrite_config(&format!("logging.redact.headers = [\"X-Session\"]\n{}", edge(OK)));
    proxy.signal("HUP");
    let lines = tap.rest();
    let reason = lines.last().and_then(|line| line["reason"].as_str()).unwrap_or_default();
    assert!(reason.contains("hides other things"), "{lines:?}");
    still_works(&proxy);
}

#[test]
fn a_stream_ends_by_its_time_and_in_whole_chunks() {
    let proxy = Proxy::start(&edge(OK));
    let mut client = proxy.client_of("admin");
    client.send("GET /admin/events?kinds=request&seconds=4 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    proxy.wait_for_log("GET /admin/events");
    assert_eq!(proxy.client().get("/").status, 200);
    let answer: Response = client.read_response();
    assert_eq!(answer.header("Transfer-Encoding"), Some("chunked"));
    assert_eq!(answer.text().lines().count(), 1, "{}", answer.text());
    assert_eq!(client.read_to_close(), b"");
    still_works(&proxy);
}

#[test]
fn a_process_that_is_told_to_end_ends_its_streams() {
    let mut proxy = Proxy::start(&edge(OK));
    let mut held = proxy.client();
    assert_eq!(held.get("/").status, 200);
    let mut stream = Stream::open(&proxy, "/admin/events?kinds=audit&seconds=3600");
    proxy.signal("TERM");
    stream.rest();
    assert!(proxy.wait_exit(PATIENCE).success());
}

#[test]
fn of_too_many_streams_the_last_is_refused_until_another_has_gone() {
    let proxy = Proxy::start(&edge(OK));
    let mut open: Vec<Stream> =
        (0..4).map(|_| Stream::open(&proxy, "/admin/events?kinds=audit&seconds=3600")).collect();
    let (status, message) = refused(&proxy, "/admin/events");
    assert_eq!(status, 429);
    assert!(message.contains("4 streams are open"), "{message}");
    // One whose client has gone makes room, without an event.
    open.pop();
    assert!(eventually(|| proxy.admin_get("/admin/events?seconds=0").status == 200));
    still_works(&proxy);
}

#[test]
fn a_reader_that_does_not_read_loses_events_and_slows_nobody() {
    let proxy = Proxy::start(&edge(OK).replacen("cores = 1", "cores = 2", 1));
    let mut slow = Stream::open(&proxy, "/admin/events?kinds=request&seconds=3600");
    let mut quick = Stream::open(&proxy, "/admin/events?kinds=request&count=1000");
    let quick = thread::spawn(move || quick.rest().len());
    let mut clients: Vec<RawClient> = (0..4).map(|_| proxy.client()).collect();
    // More than sockets and the queue of a subscriber hold together.
    let request = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(1000));
    for _ in 0..300 {
        for client in &mut clients {
            client.send(request.repeat(25));
        }
        for client in &mut clients {
            (0..25).for_each(|_| assert_eq!(client.read_response().status, 200));
        }
    }
    assert!(quick.join().expect("it has read") >= 1000);
    still_works(&proxy);
    let lost = std::iter::from_fn(|| slow.next()).find(|event| event["event_type"] == "lost");
    assert!(lost.is_some_and(|event| event["count"].as_u64() > Some(0)));
    still_works(&proxy);
}

#[test]
fn what_is_no_stream_is_refused_with_what_was_expected() {
    let proxy = Proxy::start(&edge(OK));
    for (query, expected) in [
        ("kinds=request,nonsense", "some of connection, request"),
        ("kinds=", "some of connection"),
        ("kinds=request,", "some of connection"),
        ("seconds=3601", "up to 3600"),
        ("seconds=-1", "a whole number"),
        ("count=1000001", "up to 1000000"),
        ("count=1&count=2", "comes twice"),
        ("other=1", "unknown parameter"),
    ] {
        let (status, message) = refused(&proxy, &format!("/admin/events?{query}"));
        assert_eq!(status, 400, "{query}");
        assert!(message.contains(expected), "{query}: {message}");
    }
    still_works(&proxy);
}

// --- tap -------------------------------------------------------------------------------------

fn forwarding(origin: &Origin) -> String {
    edge(&format!(
        "[[routes]]\nname = \"api\"\npaths = [\"/api/*\"]\ncluster = \"app\"\n\
         [[routes]]\nname = \"ok\"\npaths = [\"/ok\"]\nrespond = {{ status = 200 }}\n\
         [clusters.app]\nendpoints = [{{ address = \"{}\" }}]\n",
        origin.address()
    ))
}

fn values<'v>(exchange: &'v Value, which: &str, name: &str) -> Vec<&'v str> {
    let lines = exchange[which].as_array().expect("a list of headers");
    let found = lines
        .iter()
        .filter(|line| line[0].as_str().is_some_and(|known| known.eq_ignore_ascii_case(name)));
    found.map(|line| line[1].as_str().expect("text")).collect()
}

#[test]
fn a_tap_shows_heads_and_bodies_and_no_secrets() {
    let answer = Respond::text("{\"token\":\"hush\",\"b\":2}")
        .header("Content-Type", "application/json")
        .header("Set-Cookie", "session=hush")
        .header("X-Answer", "shown");
    let origin = Origin::start().on("POST /api/a?token=hush&page=2", answer);
    let proxy = Proxy::start(&forwarding(&origin));
    let mut tap = Stream::open(&proxy, "/admin/tap?body=4096&count=1");
    let mut client = proxy.client();
    client.send(
        "POST /api/a?token=hush&page=2 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer hush\r\n\
         Cookie: a=hush\r\nX-Api-Key: hush\r\nX-Plain: shown\r\n\
         Referer: http://b/?secret=hush\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 19\r\n\r\n\
         password=hush&c=day",
    );
    assert_eq!(client.read_response().status, 200);
    let exchanges = tap.rest();
    assert_eq!(exchanges.len(), 1);
    let shown = &exchanges[0];
    assert!(!shown.to_string().contains("hush"), "{shown}");
    assert_eq!(shown["event_type"], "exchange");
    assert_eq!((&shown["route"], &shown["cluster"]), (&json!("api"), &json!("app")));
    assert_eq!(shown["target"], "/api/a?token=[redacted]&page=2");
    assert_eq!(shown["status_code"], 200);
    assert_eq!(values(shown, "request_headers", "authorization"), ["[redacted]"]);
    assert_eq!(values(shown, "request_headers", "x-plain"), ["shown"]);
    assert_eq!(values(shown, "response_headers", "set-cookie"), ["[redacted]"]);
    assert_eq!(values(shown, "response_headers", "x-answer"), ["shown"]);
    assert_eq!(shown["request_body"]["text"], "password=[redacted]&c=day");
    assert_eq!(shown["response_body"]["text"], "{\"token\":\"[redacted]\",\"b\":2}");
    assert_eq!(proxy.client().get("/ok").status, 200);
}

#[test]
fn a_tap_shows_only_what_fits_all_of_its_parameters() {
    let origin = Origin::start()
        .on("GET /api/a", Respond::text("a"))
        .on("GET /api/b", Respond::text("b").status("503 Service Unavailable"));
    let proxy = Proxy::start(&forwarding(&origin));
    let client_network = "client=127.0.0.0%2F8";
    for (query, expected) in [
        ("route=ok", "/ok"),
        ("cluster=app&path=/api/a", "/api/a"),
        ("status=5xx", "/api/b"),
        ("status=404", "/none"),
        ("path=/ap&status=503", "/api/b"),
        ("method=HEAD", "/ok?head"),
        (client_network, "/ok"),
    ] {
        let mut tap = Stream::open(&proxy, &format!("/admin/tap?{query}&count=1"));
        let mut client = proxy.client();
        for path in ["/ok", "/api/a", "/api/b", "/none"] {
            client.get(path);
        }
        client.send("HEAD /ok?head HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response_to("HEAD").status, 200);
        let exchanges = tap.rest();
        assert_eq!(exchanges.len(), 1, "{query}");
        assert_eq!(exchanges[0]["target"], expected, "{query}");
        assert_eq!(exchanges[0]["request_body"], Value::Null, "none was wanted");
    }
    let mut tap = Stream::open(&proxy, "/admin/tap?client=192.0.2.0/24&seconds=1");
    assert_eq!(proxy.client().get("/ok").status, 200);
    assert_eq!(tap.rest().len(), 0);
}

#[test]
fn bodies_are_cut_at_the_cap_and_reach_the_client_whole() {
    let long = "0123456789".repeat(10_000);
    let origin = Origin::start().on("GET /api/long", Respond::text(&long).chunked(1000));
    let proxy = Proxy::start(&forwarding(&origin));
    let mut tap = Stream::open(&proxy, "/admin/tap?body=15&count=1&route=api");
    assert!(proxy.client().get("/api/long").text() == long);
    let shown = &tap.rest()[0];
    assert_eq!(shown["response_body"]["text"], "012345678901234");
    assert_eq!(shown["response_body"]["bytes"], 100_000);
    assert_eq!(shown["response_body"]["truncated"], true);
    assert_eq!(proxy.client().get("/ok").status, 200);
}

#[test]
fn there_is_one_tap_at_a_time_on_all_of_16_cores_and_it_ends_with_its_reader() {
    let proxy = Proxy::start(&edge(OK).replacen("cores = 1", "cores = 16", 1));
    let mut tap = Stream::open(&proxy, "/admin/tap?path=/seen&count=40");
    let (status, message) = refused(&proxy, "/admin/tap");
    assert_eq!(status, 429);
    assert!(message.contains("a tap runs already"), "{message}");
    for _ in 0..40 {
        assert_eq!(proxy.client().get("/seen").status, 200);
        assert_eq!(proxy.client().get("/other").status, 200);
    }
    assert_eq!(tap.rest().len(), 40);
    let tap = Stream::open(&proxy, "/admin/tap?seconds=3600");
    drop(tap);
    assert!(eventually(|| proxy.admin_get("/admin/tap?seconds=0").status == 200));
    still_works(&proxy);
}

#[test]
fn a_reader_of_a_tap_that_does_not_read_loses_exchanges_and_slows_nobody() {
    let proxy = Proxy::start(&edge(OK));
    let mut slow = Stream::open(&proxy, "/admin/tap?seconds=3600");
    let mut client = proxy.client();
    let request = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(4000));
    for _ in 0..400 {
        client.send(request.repeat(10));
        (0..10).for_each(|_| assert_eq!(client.read_response().status, 200));
    }
    let lost = std::iter::from_fn(|| slow.next()).find(|event| event["event_type"] == "lost");
    assert!(lost.is_some_and(|event| event["count"].as_u64() > Some(0)));
    still_works(&proxy);
}

#[test]
fn a_tap_ends_at_its_time_however_slowly_its_reader_reads() {
    let proxy = Proxy::start(&edge(OK));
    let slow = Stream::open(&proxy, "/admin/tap?seconds=5");
    let (stop, stopped) = mpsc::channel::<()>();
    let reader = thread::spawn(move || {
        let mut stream = slow.reader.into_inner();
        // A byte now and then keeps any other timeout away.
        while stopped.recv_timeout(Duration::from_millis(20)).is_err() {
            let _ = io::Read::read(&mut stream, &mut [0; 1]);
        }
    });
    let mut client = proxy.client();
    let request = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(4000));
    for _ in 0..400 {
        client.send(request.repeat(10));
        (0..10).for_each(|_| assert_eq!(client.read_response().status, 200));
    }
    assert!(eventually(|| proxy.admin_get("/admin/tap?seconds=0").status == 200));
    stop.send(()).expect("it still reads");
    reader.join().expect("it was told to stop");
    still_works(&proxy);
}

#[test]
fn what_is_no_tap_is_refused_with_what_was_expected() {
    let proxy = Proxy::start(&edge(OK));
    for (query, status, expected) in [
        ("route=none", 404, "no route `none`"),
        ("cluster=none", 404, "no cluster `none`"),
        ("route=", 400, "1 to 1024 bytes"),
        ("status=600", 400, "a status such as 404"),
        ("client=10.0.0.1/8", 400, "did you mean 10.0.0.0/8"),
        ("body=16385", 400, "up to 16384"),
        ("header=x", 400, "unknown parameter"),
    ] {
        let (got, message) = refused(&proxy, &format!("/admin/tap?{query}"));
        assert_eq!(got, status, "{query}");
        assert!(message.contains(expected), "{query}: {message}");
    }
    still_works(&proxy);
}
