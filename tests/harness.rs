//! The harness proves itself without the proxy: its parts and the real curl and nginx talk to each
//! other, so that a failing test elsewhere is not the harness's fault.

mod support;

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use support::{
    After, Curl, Gate, Nginx, Origin, PATIENCE, Proxy, RawClient, Respond, difference, eventually,
    program, request_length,
};

#[test]
fn curl_and_the_raw_client_get_what_the_origin_was_told_to_answer() {
    let origin = Origin::start().on("GET /hello", Respond::text("hello").header("X-A", "b"));
    let curl = Curl::get(&origin.url("/hello"), &["-H", "X-From: curl"]);
    assert_eq!((curl.status, curl.text(), curl.exit), (200, "hello", 0), "{}", curl.stderr);
    assert_eq!(curl.headers("x-a"), ["b"]);
    let mut client = RawClient::connect(origin.address());
    assert_eq!(client.get("/hello").text(), "hello");
    assert_eq!(client.get("/nothing").status, 404);
    let requests = origin.wait_for_requests(3);
    assert_eq!(requests[0].method_and_target(), "GET /hello");
    assert_eq!(requests[0].header("x-from"), Some("curl"));
    assert_eq!((requests[1].connection, requests[2].connection), (1, 1));
    assert_eq!(origin.connections_accepted(), 2);
}

#[test]
fn every_framing_of_a_response_is_read() {
    let origin = Origin::start()
        .on("GET /length", Respond::bytes([7; 100_000]))
        .on("GET /chunks", Respond::bytes([8; 100_000]).chunked(999))
        .on("HEAD /length", Respond::bytes([7; 100_000]))
        .on("GET /close", Respond::text("until close").until_close());
    let mut client = RawClient::connect(origin.address());
    assert_eq!(client.get("/length").body, [7; 100_000]);
    assert_eq!(client.get("/chunks").body, [8; 100_000]);
    client.send("HEAD /length HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.read_response_to("HEAD");
    assert_eq!((head.header("content-length"), head.body.len()), (Some("100000"), 0));
    assert_eq!(client.get("/close").text(), "until close");
}

#[test]
fn pipelined_requests_are_answered_in_order_and_interim_responses_are_seen() {
    let origin = Origin::start()
        .on("GET /1", Respond::text("1").after(Duration::from_millis(20)))
        .on("GET /2", Respond::text("2"))
        .on("POST /up", Respond::text("up"));
    let mut client = RawClient::connect(origin.address());
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((client.read_response().text(), client.read_response().text()), ("1", "2"));
    client
        .send("POST /up HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(client.read_response().status, 100);
    client.send("abc");
    assert_eq!(client.read_response().text(), "up");
    assert_eq!(origin.requests()[2].body, b"abc");
}

#[test]
fn a_request_cut_anywhere_or_sent_byte_by_byte_is_received_whole() {
    let request = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3;x=y\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nX-T: v\r\n\r\n";
    let origin = Origin::start().on("POST /a", Respond::text("ok"));
    let mut client = RawClient::connect(origin.address());
    for at in 0..request.len() {
        assert_eq!(request_length(&request.as_bytes()[..at]), None, "incomplete at {at}");
        client.send_split(request, at);
        assert_eq!(client.read_response().text(), "ok", "cut at {at}");
    }
    client.send_byte_by_byte(request);
    assert_eq!(client.read_response().text(), "ok");
    for received in origin.requests() {
        assert_eq!(received.raw, request.as_bytes());
        assert_eq!(received.body, b"abc0123456789abcdef");
        assert_eq!(received.trailers, [("X-T".to_owned(), "v".to_owned())]);
    }
}

#[test]
fn a_script_answers_with_exact_bytes_and_ends_as_it_says() {
    let origin = Origin::raw(|stream, request, connection| {
        assert!(request.starts_with(b"GET / "));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart").expect("written");
        [After::Close, After::Reset][connection % 2]
    });
    for expected in ["UnexpectedEof", "ConnectionReset"] {
        let mut client = RawClient::connect(origin.address());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let error = client.try_read_response_to("GET").expect_err("it is cut short");
        assert_eq!(format!("{:?}", error.kind()), expected, "{error}");
    }
    assert!(eventually(|| origin.connections_open() == 0));
}

#[test]
fn a_script_may_own_whole_connections_and_a_quiet_one_is_seen_as_quiet() {
    let gate = Gate::new();
    let quiet = gate.clone();
    let origin = Origin::connections(move |mut stream, number| {
        if number == 0 {
            quiet.wait();
        }
        let _ = stream.write_all(b"bye");
    });
    let mut client = RawClient::connect(origin.address());
    assert!(client.is_quiet_for(Duration::from_millis(20)));
    gate.open();
    assert_eq!(client.read_exactly(1), b"b");
    assert_eq!(client.read_to_close(), b"ye");
    let mut client = RawClient::connect(origin.address());
    client.half_close();
    assert_eq!(client.read_to_close(), b"bye");
}

#[test]
fn idle_connections_of_an_origin_are_closed_on_request() {
    let origin = Origin::start().on("GET /", Respond::text("x"));
    let mut client = RawClient::connect(origin.address());
    assert_eq!(client.get("/").text(), "x");
    origin.close_connections();
    assert_eq!(client.read_to_close(), b"");
}

#[test]
fn the_real_nginx_serves_files_and_answers_to_curl_and_the_raw_client() {
    let nginx = Nginx::start("location /hello { return 200 hi; } location / {}");
    nginx.file("a/big", vec![5; 300_000]);
    assert_eq!(Curl::get(&nginx.url("/a/big"), &[]).body, vec![5; 300_000]);
    let mut client = RawClient::connect(nginx.address());
    assert_eq!(client.get("/hello").text(), "hi");
    assert_eq!(client.get("/nothing").status, 404);
}

#[test]
fn the_real_nginx_reaches_the_origin() {
    let origin = Origin::start().on("POST /up", Respond::text("got it").chunked(2));
    let proxy = format!("location / {{ proxy_pass http://{}; }}", origin.address());
    let nginx = Nginx::start(&proxy);
    let curl = Curl::get(&nginx.url("/up"), &["--data-binary", "abc"]);
    assert_eq!((curl.status, curl.text()), (200, "got it"), "{}", nginx.log());
    assert_eq!(origin.only_request().body, b"abc");
}

#[test]
fn a_broken_nginx_configuration_is_reported_with_its_log() {
    let failed = std::panic::catch_unwind(|| Nginx::start("no_such_directive;"));
    let message = failed.expect_err("it cannot start");
    let message = message.downcast_ref::<String>().expect("a message");
    assert!(message.contains("unknown directive \"no_such_directive\""), "{message}");
}

#[test]
fn a_snapshot_that_differs_is_shown_by_its_first_different_line() {
    assert_eq!(difference("a\nb\n", "a\nb\n"), None);
    assert_eq!(difference("a\nb", "a\nc").as_deref(), Some("2: expected\n  b\nbut it is\n  c"));
    let missing = difference("", "a").expect("it differs");
    assert!(missing.contains("(nothing)"), "{missing}");
}

#[test]
fn a_program_that_is_not_there_fails_the_test_and_names_the_cure() {
    let failed = std::panic::catch_unwind(|| program("no-such-program"));
    let message = failed.expect_err("it is not there");
    let message = message.downcast_ref::<String>().expect("a message");
    assert!(message.contains("scripts/test"), "{message}");
}

const UNUSED: &str = "listeners = [{ bind = \"127.0.0.1:1\", name = \"edge\" }]\n";

fn stand_in(toml: &str) -> Proxy {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/stand_in");
    Proxy::start_binary(&path, toml)
}

#[test]
fn the_ports_are_read_from_the_log_and_signals_arrive() {
    let origin = Origin::start().on("GET /", Respond::text("x"));
    let listener = format!("bind = \"{}\", name = \"edge\"", origin.address());
    let mut proxy = stand_in(&format!("listeners = [{{ {listener} }}]\n"));
    assert_eq!(proxy.address("edge"), origin.address());
    assert_eq!(proxy.client().get("/").text(), "x");
    assert!(proxy.rss_kb() > 100 && proxy.threads() == 1 && proxy.is_running());
    proxy.rewrite_config("# second");
    proxy.signal("HUP");
    proxy.wait_for_log("reloaded # second");
    proxy.signal("TERM");
    assert!(proxy.wait_exit(PATIENCE).success());
}

#[test]
fn a_proxy_is_gone_once_it_is_dropped() {
    let proxy = stand_in(UNUSED);
    let process = format!("/proc/{}", proxy.pid());
    assert!(Path::new(&process).exists());
    drop(proxy);
    assert!(!Path::new(&process).exists());
}

#[test]
fn a_proxy_that_ends_at_its_start_is_reported_with_its_log() {
    let failed = std::panic::catch_unwind(|| stand_in(&format!("fail = true\n{UNUSED}")));
    let message = failed.expect_err("it fails");
    let message = message.downcast_ref::<String>().expect("a message");
    assert!(message.contains("told to fail") && message.contains("exit status: 2"), "{message}");
}
