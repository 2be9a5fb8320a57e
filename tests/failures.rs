//! What a client gets when a request does not succeed, and what is left behind: the status, the
//! JSON body and its id in the access log, deadlines, retries, limits. After each failure the proxy
//! serves the next client.

mod support;

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use support::{
    After, Curl, Gate, Json, Origin, PATIENCE, Proxy, Respond, Response, edge, eventually, nobody,
};

/// Everything goes to `address`; `route` continues the route, `rest` comes behind the cluster.
fn proxy_to(address: SocketAddr, route: &str, rest: &str) -> Proxy {
    Proxy::start(&edge(&format!(
        "[logging.access]\npath = \"access.log\"\n\
         [[routes]]\nname = \"ok\"\nhosts = [\"test\"]\npaths = [\"/ok\"]\n\
         respond = {{ body = \"ok\" }}\n\
         [[routes]]\nname = \"all\"\nhosts = [\"test\"]\ncluster = \"app\"\n{route}\n\
         [clusters.app]\nendpoints = [{{ address = \"{address}\" }}]\n{rest}"
    )))
}

fn is_alive(proxy: &Proxy) -> bool {
    proxy.client().get("/ok").text() == "ok"
}

/// What the admin port says of the cluster.
fn cluster(proxy: &Proxy) -> Json {
    Json::parse(proxy.admin_get("/admin/clusters/app").text())
}

/// Until every end of a connection that the origin has closed has been noticed.
fn wait_until_none_is_kept(proxy: &Proxy) {
    let kept = || cluster(proxy).list("endpoints")[0].number("connections");
    assert!(eventually(|| kept() == 0.0), "{} connections are kept", kept());
}

fn log_lines(proxy: &Proxy, count: usize) -> Vec<String> {
    let path = proxy.directory().join("access.log");
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    assert!(eventually(|| read().lines().count() >= count), "{count} lines expected:\n{}", read());
    read().lines().map(str::to_owned).collect()
}

/// The value of a string member, wherever it stands.
fn member<'a>(json: &'a str, name: &str) -> &'a str {
    let start = format!("\"{name}\":\"");
    let (_, rest) = json.split_once(&start).unwrap_or_else(|| panic!("no {name} in {json}"));
    rest.split('"').next().unwrap_or_default()
}

/// An answer to a failure: its shape, and its line in the access log.
fn assert_failed(proxy: &Proxy, response: &Response, status: u16, code: &str, reason: &str) {
    assert_eq!(response.status, status, "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/json"));
    let (body, id) = (response.text(), member(response.text(), "request_id"));
    assert_eq!(member(body, "code"), code);
    let message = member(body, "message");
    let timestamp = member(body, "timestamp");
    assert!(timestamp.len() == 24 && timestamp.ends_with('Z'), "{timestamp}");
    assert_eq!(
        body,
        format!(
            "{{\"error\":{{\"code\":\"{code}\",\"message\":\"{message}\",\
             \"request_id\":\"{id}\",\"timestamp\":\"{timestamp}\"}}}}"
        )
    );
    assert!(id.len() == 32 && !message.is_empty(), "{body}");
    assert_eq!(response.header("x-request-id"), Some(id));
    assert_eq!(response.header("retry-after").is_some(), status == 503);
    let logged = || log_lines(proxy, 1).into_iter().find(|line| line.contains(id));
    assert!(eventually(|| logged().is_some()), "no line for {id}");
    let line = logged().unwrap_or_default();
    assert_eq!((member(&line, "request_id"), member(&line, "reason")), (id, reason), "{line}");
    assert!(line.contains(&format!("\"status\":{status},")), "{line}");
}

/// An origin that takes everything and never says a word.
fn silent() -> Origin {
    Origin::connections(|mut stream, _| {
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

// --- requests that are refused -------------------------------------------------------------------

#[test]
fn refusals_have_the_shape_and_the_id_of_the_log() {
    let proxy = proxy_to(nobody(), "", "[limits]\nmax_url_length = 200\nmax_body_size = 100\n");
    let long = format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "x".repeat(200));
    let large = format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let many = format!("GET / HTTP/1.1\r\nHost: test\r\n{}\r\n", "X: 1\r\n".repeat(100));
    let body = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 101\r\n\r\n";
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n", 400, "INVALID_REQUEST", "host_missing"),
        ("GET /../x HTTP/1.1\r\nHost: test\r\n\r\n", 400, "INVALID_REQUEST", "bad_path"),
        ("GET / HTTP/1.1\r\nHost: other\r\n\r\n", 404, "NO_ROUTE", "no_route"),
        ("TRACE / HTTP/1.1\r\nHost: test\r\n\r\n", 405, "METHOD_NOT_ALLOWED", "method_refused"),
        (body, 413, "BODY_TOO_LARGE", "body_too_large"),
        (&long, 414, "URL_TOO_LONG", "url_too_long"),
        (&large, 431, "HEADERS_TOO_LARGE", "head_too_large"),
        (&many, 431, "HEADERS_TOO_LARGE", "too_many_headers"),
        ("GET / HTTP/3.0\r\n\r\n", 505, "VERSION_NOT_SUPPORTED", "version_unsupported"),
        ("GET / HTTP/1.1\r\nHost: test\r\n\r\n", 502, "BACKEND_UNREACHABLE", "connect_refused"),
    ];
    for (request, status, code, reason) in cases {
        let mut client = proxy.client();
        client.send(request);
        let response = client.read_response();
        assert_failed(&proxy, &response, status, code, reason);
        if response.header("connection") == Some("close") {
            assert_eq!(client.read_to_close(), b"", "{reason}");
        } else {
            assert_eq!(client.get("/ok").text(), "ok", "after {reason}");
        }
    }
    assert!(is_alive(&proxy));
}

#[test]
fn a_failure_of_a_head_request_has_no_body() {
    let proxy = proxy_to(nobody(), "", "");
    let mut client = proxy.client();
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
    let response = client.read_response_to("HEAD");
    assert_eq!(response.status, 502);
    assert!(response.header("content-length").is_some_and(|length| length != "0"));
    assert_eq!(client.get("/ok").text(), "ok");
}

#[test]
fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
    let origin = Origin::start().on("POST /", Respond::text("taken"));
    let proxy = proxy_to(origin.address(), "", "[limits]\nmax_body_size = 100000\n");
    let chunked = |size: usize| {
        let mut body =
            b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in vec![b'x'; size].chunks(1000) {
            body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        body
    };
    let plain = |size: usize| {
        let head = format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n");
        [head.as_bytes(), &vec![b'x'; size]].concat()
    };
    for body in [plain(100_000), chunked(100_000)] {
        let mut client = proxy.client();
        client.send(body);
        assert_eq!(client.read_response().text(), "taken");
    }
    for body in [plain(100_001), chunked(100_001), chunked(5_000_000)] {
        let mut client = proxy.client();
        let _ = client.try_send(body);
        let response = client.read_response();
        assert_failed(&proxy, &response, 413, "BODY_TOO_LARGE", "body_too_large");
        assert_eq!(client.read_to_close(), b"");
    }
    assert_eq!(origin.requests().len(), 2);
    assert!(is_alive(&proxy));
}

// --- clients that are slow -----------------------------------------------------------------------

#[test]
fn a_head_that_does_not_end_in_time_is_a_408() {
    let proxy = proxy_to(nobody(), "", "[timeouts]\nheader = \"1s\"\n");
    let mut client = proxy.client();
    client.send("GET / HT");
    let response = client.read_response();
    assert_failed(&proxy, &response, 408, "REQUEST_TIMEOUT", "header_timeout");
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(client.read_to_close(), b"");
    // Each byte is in time, the head as a whole is not. Nor is the second head of a connection.
    let mut client = proxy.client();
    assert_eq!(client.get("/ok").text(), "ok");
    for byte in "GET / HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".bytes() {
        let _ = client.try_send([byte]);
        thread::sleep(Duration::from_millis(25));
    }
    let response = client.read_response();
    assert_failed(&proxy, &response, 408, "REQUEST_TIMEOUT", "header_timeout");
    assert!(is_alive(&proxy));
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let proxy = proxy_to(nobody(), "", "[timeouts]\nidle = \"1s\"\n");
    let begin = Instant::now();
    let fresh = proxy.client();
    let mut used = proxy.client();
    assert_eq!(used.get("/ok").text(), "ok");
    for mut client in [fresh, used] {
        assert_eq!(client.read_to_close(), b"");
        assert!(begin.elapsed() > Duration::from_millis(900), "{:?}", begin.elapsed());
    }
    assert!(is_alive(&proxy));
}

#[test]
fn an_idle_connection_outlives_its_parking() {
    let proxy = proxy_to(nobody(), "", "[timeouts]\nidle = \"3s\"\n");
    let mut client = proxy.client();
    let begin = Instant::now();
    assert_eq!(client.get("/ok").text(), "ok");
    thread::sleep(Duration::from_millis(900));
    assert_eq!(client.get("/ok").text(), "ok");
    assert_eq!(client.read_to_close(), b"");
    assert!(begin.elapsed() > Duration::from_millis(3800), "{:?}", begin.elapsed());
    assert!(is_alive(&proxy));
}

#[test]
fn a_body_that_stops_coming_is_a_408() {
    let origin = silent();
    let proxy = proxy_to(origin.address(), "", "[timeouts]\nread = \"300ms\"\n");
    for framing in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhel"]
    {
        let mut client = proxy.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: test\r\n{framing}"));
        let response = client.read_response();
        assert_failed(&proxy, &response, 408, "REQUEST_TIMEOUT", "body_timeout");
        assert_eq!(response.header("connection"), Some("close"));
        assert_eq!(client.read_to_close(), b"");
    }
    assert!(is_alive(&proxy));
}

/// The one test here that lasts: nothing may shorten the ten seconds of grace.
#[test]
fn a_body_that_trickles_is_a_408_once_the_grace_is_over() {
    let origin = silent();
    let proxy = proxy_to(origin.address(), "", "");
    let mut client = proxy.client();
    let begin = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n");
    while client.is_quiet_for(Duration::from_millis(100)) && begin.elapsed() < 2 * PATIENCE {
        let _ = client.try_send("x");
    }
    assert!(begin.elapsed() > Duration::from_secs(9), "{:?}", begin.elapsed());
    let response = client.read_response();
    assert_failed(&proxy, &response, 408, "REQUEST_TIMEOUT", "body_too_slow");
    assert_eq!(client.read_to_close(), b"");
    assert!(is_alive(&proxy));
}

#[test]
fn a_client_that_takes_nothing_is_cut_and_its_upstream_connection_too() {
    let (ended, end) = mpsc::channel();
    let origin = Origin::raw(move |stream, _, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = [b'x'; 65_536];
        while stream.write_all(&piece).is_ok() {}
        let _ = ended.send(());
        After::Close
    });
    let proxy = proxy_to(origin.address(), "", "[timeouts]\nwrite = \"300ms\"\n");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    end.recv_timeout(PATIENCE).expect("the origin cannot write on");
    let line = &log_lines(&proxy, 1)[0];
    assert_eq!(member(line, "reason"), "client_write_timeout");
    assert!(is_alive(&proxy));
    drop(client);
}

/// An origin that sends `start`, is silent then, and tells when its connection has ended.
fn silent_after(start: &'static [u8], ended: mpsc::Sender<()>) -> Origin {
    Origin::connections(move |mut stream, _| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(start);
        while matches!(stream.read(&mut [0; 64]), Ok(1..)) {}
        let _ = ended.send(());
    })
}

#[test]
fn a_client_that_resets_while_the_answer_is_silent_costs_the_upstream_nothing_more() {
    const HALF_A_HEAD: &[u8] = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-";
    const HALF_AN_EVENT: &[u8] = b"HTTP/1.1 200 OK\r\n\r\ndata: ";
    for start in [HALF_A_HEAD, HALF_AN_EVENT] {
        let (ended, end) = mpsc::channel();
        let origin = silent_after(start, ended);
        let timeouts = "timeouts.first_byte = \"1h\"\ntimeouts.read = \"1h\"\n";
        let proxy = proxy_to(origin.address(), "", timeouts);
        let mut client = TcpStream::connect(proxy.address("edge")).expect("it accepts");
        client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("it is open");
        client.peek(&mut [0]).expect("an answer begins");
        drop(client); // with bytes unread: that resets
        end.recv_timeout(PATIENCE).expect("the upstream connection ends too");
        assert_eq!(member(&log_lines(&proxy, 1)[0], "reason"), "client_closed");
        assert!(is_alive(&proxy));
    }
}

#[test]
fn a_response_head_may_come_in_any_number_of_pieces() {
    let origin = Origin::raw(|stream, _, _| {
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: abcdefgh\r\nContent-Length: 2\r\n\r\nhi" {
            if stream.write_all(&[*byte]).is_err() {
                return After::Close;
            }
            thread::sleep(Duration::from_millis(2)); // else the kernel joins them
        }
        After::KeepOpen
    });
    let proxy = proxy_to(origin.address(), "", "");
    let mut client = proxy.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!((response.header("X-Long"), response.text()), (Some("abcdefgh"), "hi"));
    }
}

/// An origin that sends without end.
fn endless() -> Origin {
    Origin::raw(|stream, _, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = [b'x'; 65_536];
        while stream.write_all(&piece).is_ok() {}
        After::Close
    })
}

/// Takes `count` bytes every 50 ms, for so long; false once the connection has ended.
fn read_at(stream: &mut TcpStream, count: usize, time: Duration) -> bool {
    let end = Instant::now() + time;
    let mut room = vec![0; count];
    while Instant::now() < end {
        if !matches!(stream.read(&mut room), Ok(1..)) {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
    true
}

fn ask(proxy: &Proxy) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address("edge")).expect("it accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("30 s is a timeout");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("it is open");
    stream
}

/// The other test here that lasts.
#[test]
fn a_client_that_takes_a_trickle_is_cut_once_the_grace_is_over() {
    let origin = endless();
    let proxy = proxy_to(origin.address(), "", "[timeouts]\nmin_body_rate = \"10MB\"\n");
    let mut client = ask(&proxy);
    let begin = Instant::now();
    // It goes on for ever, and 20 times too slowly. What the kernels hold comes on top.
    let logged = || std::fs::read_to_string(proxy.directory().join("access.log")).ok();
    while logged().is_none_or(|text| text.is_empty()) {
        assert!(begin.elapsed() < 3 * PATIENCE, "it is served for ever");
        read_at(&mut client, 25_000, Duration::from_millis(200));
    }
    assert!(begin.elapsed() > Duration::from_secs(9), "{:?}", begin.elapsed());
    assert_eq!(member(&log_lines(&proxy, 1)[0], "reason"), "client_too_slow");
    assert!(is_alive(&proxy));
}

#[test]
fn a_client_that_takes_little_at_a_time_is_not_taken_for_one_that_takes_nothing() {
    let origin = endless();
    // The kernel calls its buffer writable when a third of it is free, which takes longer.
    let proxy = proxy_to(origin.address(), "", "[timeouts]\nwrite = \"1s\"\n");
    let mut client = ask(&proxy);
    assert!(read_at(&mut client, 20_000, Duration::from_secs(5)), "it was cut");
    assert!(is_alive(&proxy));
    let stopped = ask(&proxy);
    assert_eq!(member(&log_lines(&proxy, 2)[1], "reason"), "client_write_timeout");
    drop((client, stopped));
}

// --- upstreams that are slow ---------------------------------------------------------------------

#[test]
fn a_connection_that_is_not_accepted_in_time_is_a_504() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the kernel has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let mut queued = Vec::new();
    // One that fails may have been late; when no other succeeds either, the backlog is full.
    let mut failed = 0;
    while failed < 3 {
        match TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            Ok(stream) => queued.push(stream),
            Err(_) => failed += 1,
        }
        assert!(queued.len() < 5000, "the backlog is never full");
    }
    let proxy = proxy_to(address, "", "[clusters.app.timeouts]\nconnect = \"300ms\"\n");
    let response = proxy.client().get("/");
    assert_failed(&proxy, &response, 504, "BACKEND_TIMEOUT", "connect_timeout");
    assert!(is_alive(&proxy));
}

#[test]
fn an_answer_that_does_not_begin_in_time_is_a_504() {
    let origin = silent();
    let proxy = proxy_to(origin.address(), "", "[clusters.app.timeouts]\nfirst_byte = \"300ms\"\n");
    let mut client = proxy.client();
    let response = client.get("/");
    assert_failed(&proxy, &response, 504, "BACKEND_TIMEOUT", "first_byte_timeout");
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 200000\r\n\r\n");
    client.send([b'x'; 200_000]);
    let response = client.read_response();
    assert_failed(&proxy, &response, 504, "BACKEND_TIMEOUT", "first_byte_timeout");
    assert_eq!(client.get("/ok").text(), "ok");
    assert_eq!(origin.connections_accepted(), 2);
}

#[test]
fn an_upstream_that_stops_taking_the_request_is_a_504() {
    let (stop, stopped) = mpsc::channel::<()>();
    let stopped = Mutex::new(stopped);
    let origin = Origin::connections(move |stream, _| {
        let stopped = stopped.lock().expect("one connection only");
        let _ = stopped.recv_timeout(3 * PATIENCE); // reads nothing, and outlives the test
        drop(stream);
    });
    let rest = "[timeouts]\nwrite = \"300ms\"\n[limits]\nmax_body_size = 0\n";
    let proxy = proxy_to(origin.address(), "", rest);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000000\r\n\r\n");
    let begin = Instant::now();
    let sent = client.try_send(vec![b'x'; 100_000_000]);
    assert!(sent.is_ok(), "{sent:?}");
    let response = client.read_response();
    assert_failed(&proxy, &response, 504, "BACKEND_TIMEOUT", "upstream_write_timeout");
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
    assert!(is_alive(&proxy));
    drop(stop);
}

#[test]
fn an_answer_that_stops_in_the_middle_is_cut() {
    let cut = Gate::new();
    let seen = cut.clone();
    let origin = Origin::raw(move |stream, _, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort");
        seen.wait();
        After::Close
    });
    let proxy = proxy_to(origin.address(), "", "[clusters.app.timeouts]\nread = \"300ms\"\n");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(client.read_to_close().ends_with(b"\r\n\r\nshort"));
    cut.open();
    assert_eq!(member(&log_lines(&proxy, 1)[0], "reason"), "upstream_read_timeout");
    assert!(is_alive(&proxy));
}

/// Reads to the end; whether that was an orderly one.
fn ends_cleanly(mut stream: TcpStream, received: &mut Vec<u8>) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).expect("30 s is a timeout");
    match stream.read_to_end(received) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
            false
        }
    }
}

#[test]
fn a_cut_answer_whose_end_only_closing_tells_ends_with_a_reset() {
    let (seen, told) = mpsc::channel();
    let told = Mutex::new(told);
    let origin = Origin::raw(move |stream, request, _| {
        let begin: &[u8] = if request.starts_with(b"GET /length") {
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"
        } else if request.starts_with(b"GET /chunked") {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\n\r\nshort"
        };
        let _ = stream.write_all(begin);
        if request.windows(6).any(|part| part == b"/whole") {
            return After::Close;
        }
        // A reset may overtake what came before it.
        let _ = told.lock().expect("no script panics").recv_timeout(PATIENCE);
        if request.windows(6).any(|part| part == b"/stops") {
            thread::sleep(Duration::from_secs(2)); // more than the proxy waits
        }
        After::Reset
    });
    let rest = "[clusters.app.timeouts]\nread = \"500ms\"\n";
    let proxy = proxy_to(origin.address(), "", rest);
    let cases = [
        ("/chunked", "", false),
        ("/chunked/stops", "", false),
        ("/close", "", false),
        ("/close/stops", "", false),
        // What the client has sent already does not turn the end into an orderly one.
        ("/close", "GET /next HTTP/1.0\r\n\r\n", false),
        ("/close/whole", "", true),
        // It can count.
        ("/length", "", true),
    ];
    for (target, more, clean) in cases {
        let mut stream = TcpStream::connect(proxy.address("edge")).expect("it accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("30 s is a timeout");
        write!(stream, "GET {target} HTTP/1.0\r\nHost: test\r\n\r\n{more}").expect("it is open");
        let mut received = Vec::new();
        let mut room = [0; 4096];
        while !received.ends_with(b"\r\n\r\nshort") {
            let count = stream.read(&mut room).expect("it comes as it is");
            assert!(count > 0, "{target}: {}", received.escape_ascii());
            received.extend_from_slice(&room[..count]);
        }
        if !target.ends_with("/whole") {
            seen.send(()).expect("the origin listens");
        }
        assert_eq!(ends_cleanly(stream, &mut received), clean, "{target} {more}");
        assert!(received.ends_with(b"\r\n\r\nshort"), "{}", received.escape_ascii());
    }
    // What curl has seen nobody knows: the proxy cuts this one.
    let url = format!("http://{}/close/stops", proxy.address("edge"));
    let curl = Curl::get(&url, &["--http1.0", "-H", "Host: test"]);
    assert_eq!((curl.exit, curl.status), (56, 200), "a failure to receive: {curl:?}");
    assert!(is_alive(&proxy));
}

#[test]
fn a_refusal_of_an_answer_that_only_closing_would_have_ended_is_not_reset() {
    let origin = Origin::raw(|stream, _, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n");
        After::Close
    });
    let proxy = proxy_to(origin.address(), "", "");
    let mut stream = TcpStream::connect(proxy.address("edge")).expect("it accepts");
    stream.write_all(b"GET / HTTP/1.0\r\nHost: test\r\n\r\n").expect("it is open");
    let mut received = Vec::new();
    assert!(ends_cleanly(stream, &mut received), "{}", received.escape_ascii());
    assert!(received.starts_with(b"HTTP/1.1 502 "), "{}", received.escape_ascii());
    assert!(is_alive(&proxy));
}

#[test]
fn a_route_may_bound_the_whole_exchange() {
    let origin = Origin::connections(|mut stream, _| {
        let mut room = [0; 4096];
        let count = stream.read(&mut room).unwrap_or(0);
        if room[..count].starts_with(b"GET /begun") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while stream.write_all(b"1\r\nx\r\n").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = stream.read(&mut room);
    });
    let proxy = proxy_to(origin.address(), "timeout = \"1s\"", "");
    let mut client = proxy.client();
    let response = client.get("/");
    assert_failed(&proxy, &response, 504, "BACKEND_TIMEOUT", "exchange_timeout");
    assert_eq!(client.read_to_close(), b"");
    let mut client = proxy.client();
    client.send("GET /begun HTTP/1.1\r\nHost: test\r\n\r\n");
    let received = client.read_to_close();
    assert!(received.starts_with(b"HTTP/1.1 200 OK"), "{}", received.escape_ascii());
    assert!(received.ends_with(b"1\r\nx\r\n"), "{}", received.escape_ascii());
    assert!(is_alive(&proxy));
}

#[test]
fn a_full_pool_is_a_503() {
    let late = Gate::new();
    let origin = Origin::start().on("GET /", Respond::text("late").behind(&late));
    let pool = "[clusters.app.pool]\nmax_connections = 1\nmax_pending = 1\n\
                queue_timeout = \"2s\"\n";
    let proxy = proxy_to(origin.address(), "", pool);
    let mut first = proxy.client();
    first.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    origin.wait_for_requests(1);
    let mut second = proxy.client();
    second.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let waiting = || cluster(&proxy).number("waiting");
    assert!(eventually(|| waiting() == 1.0), "{} wait", waiting());
    let response = proxy.client().get("/");
    assert_failed(&proxy, &response, 503, "OVERLOADED", "pool_full");
    let response = second.read_response();
    assert_failed(&proxy, &response, 503, "OVERLOADED", "pool_timeout");
    late.open();
    assert_eq!(first.read_response().text(), "late");
    assert_eq!(second.get("/").text(), "late");
    assert_eq!(origin.connections_accepted(), 1);
}

#[test]
fn an_answer_whose_head_trickles_is_a_504() {
    let origin = Origin::connections(|mut stream, _| {
        let mut request = [0; 4096];
        let Ok(count) = stream.read(&mut request) else { return };
        if request[..count].starts_with(b"GET /interim ") {
            let _ = stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n");
        }
        let head = b"HTTP/1.1 200 OK\r\nX: ".iter().chain(std::iter::repeat(&b'x'));
        for byte in head.take(3000) {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    let rest = "[clusters.app.timeouts]\nfirst_byte = \"1s\"\n";
    let proxy = proxy_to(origin.address(), "", rest);
    for target in ["/", "/interim"] {
        let mut client = proxy.client();
        let begin = Instant::now();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let mut response = client.read_response();
        if target == "/interim" {
            assert_eq!(response.status, 103);
            response = client.read_response();
        }
        assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
        assert_failed(&proxy, &response, 504, "BACKEND_TIMEOUT", "first_byte_timeout");
        assert_eq!(client.get("/ok").text(), "ok");
    }
}

#[test]
fn each_interim_answer_gives_the_next_head_the_whole_time() {
    let origin = Origin::raw(|stream, _, _| {
        for _ in 0..4 {
            thread::sleep(Duration::from_millis(300));
            // The next head has begun already: it has its own time all the same.
            let _ = stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 ");
            thread::sleep(Duration::from_millis(300));
            let _ = stream.write_all(b"102 Processing\r\n\r\n");
        }
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(ok).map_or(After::Close, |()| After::KeepOpen)
    });
    let rest = "[clusters.app.timeouts]\nfirst_byte = \"2s\"\n";
    let proxy = proxy_to(origin.address(), "", rest);
    let mut client = proxy.client();
    let mut response = client.get("/");
    while response.status < 200 {
        response = client.read_response();
    }
    assert_eq!(response.text(), "ok");
}

/// An upload of which the rest is sent later than `first_byte` and `read` allow.
#[test]
fn a_silent_upstream_is_not_late_while_its_request_is_still_on_its_way() {
    let origin = Origin::connections(|mut stream, _| {
        let mut request = Vec::new();
        let mut room = [0; 4096];
        let mut answered = false;
        while !request.ends_with(b"!") {
            let Ok(count @ 1..) = stream.read(&mut room) else { return };
            request.extend_from_slice(&room[..count]);
            if !answered {
                answered = true;
                let early: &[u8] = if request.starts_with(b"POST /interim ") {
                    b"HTTP/1.1 103 Early Hints\r\n\r\n"
                } else {
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\no"
                };
                let _ = stream.write_all(early);
            }
        }
        if request.starts_with(b"POST /interim ") {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\no");
        }
        if !request.starts_with(b"POST /silent ") {
            let _ = stream.write_all(b"k");
        }
        let _ = stream.read(&mut room);
    });
    let rest = "[clusters.app.timeouts]\nfirst_byte = \"1s\"\nread = \"1s\"\n";
    let proxy = proxy_to(origin.address(), "", rest);
    for target in ["/early", "/interim", "/silent"] {
        let mut client = proxy.client();
        client.send(format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: 21\r\n\r\n"));
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(75));
            client.send("x");
        }
        client.send("!");
        if target == "/interim" {
            assert_eq!(client.read_response().status, 103);
        }
        if target == "/silent" {
            // With the upload's end the time between two reads counts again.
            assert!(client.read_to_close().ends_with(b"\r\n\r\no"));
            let lines = log_lines(&proxy, 3);
            assert_eq!(member(&lines[2], "reason"), "upstream_read_timeout");
        } else {
            assert_eq!(client.read_response().text(), "ok", "{target}");
        }
    }
    assert!(is_alive(&proxy));
}

// --- upstreams that go away ----------------------------------------------------------------------

/// Answers `/warm`, once `together` of them are there: each has a connection of its own. What else
/// comes on a connection that was used before is read and not answered: the connection is closed.
/// On a new connection it is answered, if `new_ones_answer`.
fn dying(new_ones_answer: bool, together: usize) -> Origin {
    let used = Mutex::new(HashSet::new());
    let all = Barrier::new(together);
    Origin::raw(move |stream, request, connection| {
        let is_new = used.lock().expect("no script panics").insert(connection);
        if request.starts_with(b"GET /warm ") {
            all.wait();
        } else if !(is_new && new_ones_answer) {
            return After::Close;
        }
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(ok).map_or(After::Close, |()| After::KeepOpen)
    })
}

/// Opens `count` upstream connections and leaves them in the pool.
fn warm(proxy: &Proxy, origin: &Origin, count: usize) {
    let mut clients: Vec<_> = (0..count).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET /warm HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.read_response().text(), "ok");
    }
    assert_eq!(origin.connections_accepted(), count);
}

fn times(origin: &Origin, method_and_target: &str) -> usize {
    let same = |request: &support::Received| request.method_and_target() == method_and_target;
    origin.requests().iter().filter(|request| same(request)).count()
}

#[test]
fn a_request_on_a_kept_connection_that_dies_is_tried_once_more_if_it_may_be() {
    let origin = dying(true, 1);
    let proxy = proxy_to(origin.address(), "", "");
    for line in ["GET /1", "HEAD /2", "DELETE /3", "PUT /4", "OPTIONS /5"] {
        let before = origin.connections_accepted();
        assert_eq!(proxy.client().get("/warm").text(), "ok");
        let mut client = proxy.client();
        let body = if line.starts_with("PUT") { "abc" } else { "" };
        let length = body.len();
        client.send(format!(
            "{line} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let method = line.split(' ').next().expect("a method");
        assert_eq!(client.read_response_to(method).status, 200, "{line}");
        assert_eq!(times(&origin, line), 2, "{line}");
        assert!(origin.connections_accepted() > before, "{line}");
    }
    assert!(origin.requests().iter().all(|r| !r.head.starts_with("PUT") || r.body == b"abc"));
}

#[test]
fn a_request_that_may_have_had_an_effect_is_not_tried_again() {
    let origin = dying(true, 1);
    let proxy = proxy_to(origin.address(), "", "");
    let bodies = ["Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"];
    for (index, body) in bodies.iter().enumerate() {
        for method in ["POST", "PATCH", "PROPFIND"] {
            assert_eq!(proxy.client().get("/warm").text(), "ok");
            let mut client = proxy.client();
            client.send(format!("{method} /{index} HTTP/1.1\r\nHost: test\r\n{body}"));
            let response = client.read_response();
            assert_failed(&proxy, &response, 502, "BACKEND_UNREACHABLE", "upstream_closed");
            assert_eq!(times(&origin, &format!("{method} /{index}")), 1);
            assert_eq!(client.get("/ok").text(), "ok");
        }
    }
}

#[test]
fn nothing_is_tried_a_third_time_and_a_new_connection_only_once() {
    let origin = dying(false, 1);
    let proxy = proxy_to(origin.address(), "", "");
    let response = proxy.client().get("/new");
    assert_failed(&proxy, &response, 502, "BACKEND_UNREACHABLE", "upstream_closed");
    assert_eq!(times(&origin, "GET /new"), 1);
    assert_eq!(proxy.client().get("/warm").text(), "ok");
    let response = proxy.client().get("/kept");
    assert_failed(&proxy, &response, 502, "BACKEND_UNREACHABLE", "upstream_closed");
    assert_eq!(times(&origin, "GET /kept"), 2);
    assert!(is_alive(&proxy));
}

#[test]
fn a_request_whose_answer_has_begun_is_not_tried_again() {
    let origin = Origin::raw(|stream, request, _| {
        if request.starts_with(b"GET /warm ") {
            let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            return stream.write_all(ok).map_or(After::Close, |()| After::KeepOpen);
        }
        let _ = stream.write_all(b"HTTP/1.1 200 O");
        thread::sleep(Duration::from_millis(500)); // a reset may overtake what came before it
        if request.starts_with(b"GET /reset ") { After::Reset } else { After::Close }
    });
    let proxy = proxy_to(origin.address(), "", "");
    assert_eq!(proxy.client().get("/warm").text(), "ok");
    let response = proxy.client().get("/cut");
    assert_failed(&proxy, &response, 502, "BACKEND_INVALID_RESPONSE", "upstream_body_cut");
    assert_eq!(times(&origin, "GET /cut"), 1);
    assert_eq!(proxy.client().get("/warm").text(), "ok");
    let response = proxy.client().get("/reset");
    assert_failed(&proxy, &response, 502, "BACKEND_UNREACHABLE", "upstream_reset");
    assert_eq!(times(&origin, "GET /reset"), 1);
    assert!(is_alive(&proxy));
}

#[test]
fn all_kept_connections_may_die_at_once() {
    let origin = dying(true, 8);
    let proxy = proxy_to(origin.address(), "", "");
    warm(&proxy, &origin, 8);
    assert_eq!(proxy.client().get("/x").text(), "ok");
    assert_eq!(times(&origin, "GET /x"), 2);
    // The other seven end while nobody uses them: even what cannot be repeated goes through.
    origin.close_connections();
    wait_until_none_is_kept(&proxy);
    for number in 0..4 {
        let mut client = proxy.client();
        client.send(format!("POST /{number} HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\nx"));
        let response = client.read_response();
        origin.close_connections();
        wait_until_none_is_kept(&proxy);
        assert_eq!(response.text(), "ok", "{response:?}");
        assert_eq!(times(&origin, &format!("POST /{number}")), 1);
    }
}

/// What the test tells an origin that reads nothing.
enum Tell {
    Answer,
    Close,
}

#[test]
fn an_early_answer_is_relayed_though_the_upstream_takes_no_more_of_the_request() {
    // The kernels are to take each request whole, until they take nothing of one. When one of them
    // comes or goes in two parts, its answer is early in another way, and its connection is not
    // used again: that is right, and not what is looked for.
    let hung = (0..20).any(|_| a_request_hangs_whole_and_is_answered());
    assert!(hung, "no request hung in its first send");
}

/// False when a request hung in another way; its answer came all the same.
fn a_request_hangs_whole_and_is_answered() -> bool {
    let (tell, told) = mpsc::channel();
    let told = Mutex::new(told);
    let origin = Origin::connections(move |mut stream, number| {
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        if number > 0 {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(ok);
            return;
        }
        let told = told.lock().expect("no script panics");
        while let Ok(Tell::Answer) = told.recv() {
            let _ = stream.write_all(ok);
        }
    });
    let proxy = proxy_to(origin.address(), "", "");
    let mut client = proxy.client();
    let body = vec![b'x'; 60_000];
    let head = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 60000\r\n\r\n";
    let request = [&head[..], &body].concat();
    // Each request leaves at once, in full, until the kernels hold no more of them.
    for _ in 0..1000 {
        client.send(&request);
        thread::sleep(Duration::from_millis(2)); // for the request to leave before its answer comes
        tell.send(Tell::Answer).expect("the origin listens");
        if client.is_quiet_for(Duration::from_millis(1500)) {
            break;
        }
        assert_eq!(client.read_response().text(), "ok");
        if origin.connections_accepted() > 1 {
            return false;
        }
    }
    // One hangs in its first send. Its answer is here, and then the connection is reset.
    tell.send(Tell::Close).expect("the origin listens");
    let response = client.read_response();
    assert_eq!((response.status, response.text()), (200, "ok"));
    assert!(is_alive(&proxy));
    origin.connections_accepted() == 1
}

#[test]
fn an_upstream_that_resets_is_a_502() {
    let origin = Origin::raw(|_, _, _| After::Reset);
    let proxy = proxy_to(origin.address(), "", "");
    let mut client = proxy.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_failed(&proxy, &response, 502, "BACKEND_UNREACHABLE", "upstream_reset");
    }
    assert_eq!(times(&origin, "GET /"), 2);
    assert_eq!(client.get("/ok").text(), "ok");
}
