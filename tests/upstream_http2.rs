//! HTTP/2 to endpoints: connections that exchanges share, what an endpoint may say and do, and what
//! a client gets of it. Real servers (nghttpd, nginx), and one that says exact frames.

mod support;

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use support::http2_client::{
    ACK, CANCEL, DATA, END_STREAM, Ended, GOAWAY, HEADERS, HTTP_1_1_REQUIRED, INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS, PING, REFUSED_STREAM, RST_STREAM, SETTINGS, frame, headers, reset,
    window_update,
};
use support::{
    Asker, Block, Curl, Gate, Http2Client, Http2Origin, Nghttpd, Nginx, Origin, Pki, Proxy,
    RawClient, Response, TempDir, edge, eventually,
};

/// One route to cluster `a` of one endpoint that speaks HTTP/2 without TLS.
fn configuration(endpoint: SocketAddr, more: &str) -> String {
    edge(&format!(
        "[[routes]]\nname = \"all\"\ncluster = \"a\"\n\
         [clusters.a]\nprotocol = \"h2c\"\nendpoints = [{{ address = \"{endpoint}\" }}]\n{more}\n"
    ))
}

fn proxy(endpoint: SocketAddr, more: &str) -> Proxy {
    Proxy::start(&configuration(endpoint, more))
}

fn failures(proxy: &Proxy, reason: &str, side: &str) -> f64 {
    let series = format!("tls_proxy_failures_total{{reason=\"{reason}\",side=\"{side}\"}}");
    proxy.metric(&series).unwrap_or_default()
}

fn failed(proxy: &Proxy, reason: &str) {
    assert!(eventually(|| failures(proxy, reason, "upstream") > 0.0), "{}", proxy.metrics());
}

/// A request on a connection of its own, and its answer from another thread.
fn ask(proxy: &Proxy, request: &str) -> thread::JoinHandle<Response> {
    let mut client = proxy.client();
    client.send(request);
    thread::spawn(move || client.read_response())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn status(code: &str) -> Block {
    Block::pseudo(&[(":status", code)])
}

fn join<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().expect("the other thread ends well")
}

// --- translation ---------------------------------------------------------------------------------

#[test]
fn a_request_of_http1_becomes_one_of_http2_and_its_answer_one_of_http1() {
    let origin = Http2Origin::polite(&[]);
    let proxy = proxy(origin.address(), "");
    let mut client = proxy.client();
    client.send(
        "POST /a?b=%2f HTTP/1.1\r\nHost: a.example:81\r\nConnection: keep-alive, X-Hop\r\n\
         X-Hop: 1\r\nX-Name: Value\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\
         Trailer: X-Sum\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\nHost: no\r\n\r\n",
    );
    let response = client.read_response();
    assert_eq!((response.status, response.text()), (200, "/a?b=%2f"), "{response:?}");
    assert!(response.head.starts_with("HTTP/1.1 200 OK\r\n"), "{response:?}");
    assert!(response.header("via").is_some_and(|via| via.starts_with('2')), "{response:?}");
    let asked = origin.asked().remove(0);
    assert_eq!(asked.body, b"abcde");
    assert_eq!(asked.trailers, [("x-sum".to_owned(), "5".to_owned())]);
    assert_eq!(asked.field(":method"), Some("POST"));
    assert_eq!(asked.field(":scheme"), Some("http"));
    assert_eq!(asked.field(":authority"), Some("a.example:81"));
    assert_eq!(asked.field("x-name"), Some("Value"));
    assert_eq!(asked.field("te"), Some("trailers"));
    assert_eq!(asked.field("via"), Some("1.1 corelane"));
    for gone in ["host", "connection", "x-hop", "transfer-encoding", "keep-alive"] {
        assert_eq!(asked.field(gone), None, "{asked:?}");
    }
    // The same connection of the client, and of the endpoint.
    assert_eq!(client.get("/again").text(), "/again");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn answers_without_a_body_end_with_their_heads() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        loop {
            let asked = asker.request()?;
            let code = asked.path()[1..4].to_owned();
            let block = match asked.path().contains("length") {
                true => status(&code).field("content-length", "5"),
                false => status(&code),
            };
            asker.send(headers(asked.stream, END_STREAM, &block))?;
        }
    });
    let proxy = proxy(origin.address(), "");
    let mut client = proxy.client();
    for path in ["/204", "/304", "/304length"] {
        client.send(get(path));
        let response = client.read_response();
        assert_eq!(response.status.to_string(), path[1..4], "{response:?}");
        assert_eq!(response.body, b"");
    }
    for path in ["/200", "/200length"] {
        client.send(get(path).replace("GET", "HEAD"));
        let response = client.read_response_to("HEAD");
        assert_eq!(response.status, 200, "{response:?}");
    }
    client.send(get("/200"));
    let empty = client.read_response();
    assert_eq!((empty.header("content-length"), empty.body.len()), (Some("0"), 0), "{empty:?}");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn interim_answers_pass_and_a_body_that_waits_for_one_is_sent_after_it() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        let head = asker.head()?;
        assert_eq!(head.field("expect"), Some("100-continue"));
        let hints = status("103").field("link", "</a.css>; rel=preload");
        asker.send(headers(head.stream, 0, &hints))?;
        asker.send(headers(head.stream, 0, &status("100")))?;
        let asked = asker.request()?;
        let body = String::from_utf8_lossy(&asked.body).into_owned();
        asker.answer(asked.stream, &body)
    });
    let proxy = proxy(origin.address(), "");
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let hints = client.read_response();
    assert_eq!((hints.status, hints.header("link")), (103, Some("</a.css>; rel=preload")));
    assert_eq!(client.read_response().status, 100);
    client.send("hello");
    assert_eq!(client.read_response().text(), "hello");
}

#[test]
fn trailers_of_the_answer_reach_a_client_that_wants_them() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        loop {
            let asked = asker.request()?;
            let trailers = Block::new().field("grpc-status", "0").field("content-length", "9");
            asker.send(headers(asked.stream, 0, &status("200")))?;
            asker.send(frame(DATA, 0, asked.stream, "body"))?;
            asker.send(headers(asked.stream, END_STREAM, &trailers))?;
        }
    });
    let proxy = proxy(origin.address(), "");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    let response = client.read_response();
    assert_eq!(response.text(), "body");
    assert_eq!(response.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
    let plain = client.get("/");
    assert_eq!((plain.text(), plain.trailers.len()), ("body", 0));
}

#[test]
fn an_answer_may_come_before_the_request_has_ended() {
    let origin = Http2Origin::start(|asker| {
        asker.takes_bodies = false;
        asker.greet(&[])?;
        let head = asker.head()?;
        asker.answer(head.stream, "early")?;
        asker.send(reset(head.stream, 0))?;
        asker.request()?;
        Ok(())
    });
    let proxy = proxy(origin.address(), "");
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbegin");
    let response = client.read_response();
    assert_eq!((response.status, response.text()), (200, "early"), "{response:?}");
}

#[test]
fn large_bodies_pass_both_ways_and_real_servers_take_them() {
    let server = Nghttpd::start(&["--echo-upload", "-w", "16", "-W", "16"]);
    let body: String = (0..400_000).map(|at| format!("{at:05}")).collect();
    let body = &body[..1_500_000];
    server.file("long", body);
    let proxy = proxy(server.address(), "");
    let mut client = proxy.client();
    assert!(client.get("/long").text() == body, "another body");
    client.send(post("/", body));
    assert!(client.read_response().text() == body, "another body comes back");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in body.as_bytes().chunks(70_000) {
        client.send(format!("{:x}\r\n{}\r\n", piece.len(), str::from_utf8(piece).unwrap()));
    }
    client.send("0\r\n\r\n");
    assert!(client.read_response().text() == body, "another body comes back");
    assert_eq!(client.get("/missing").status, 404);
}

#[test]
fn nginx_is_spoken_to_with_prior_knowledge_and_over_tls() {
    let says = "location / { return 200 \"$server_protocol $ssl_protocol $request_uri\"; }";
    let plain = Nginx::start_with("http2", says);
    let proxy = proxy(plain.address(), "");
    assert_eq!(proxy.client().get("/a?b").text(), "HTTP/2.0  /a?b");
    let pki = pki();
    let secure = Nginx::start_with("ssl http2", &certificate(&pki, says));
    let proxy = Proxy::start(&secure_configuration(&pki, secure.address(), "h2"));
    assert_eq!(proxy.client().get("/a?b").text(), "HTTP/2.0 TLSv1.3 /a?b");
}

fn pki() -> Pki {
    let pki = Pki::new();
    pki.authority("ca");
    pki.sign("ca", "good", "/CN=good", "DNS:backend.example,IP:127.0.0.1");
    pki
}

fn certificate(pki: &Pki, more: &str) -> String {
    let directory = pki.path("").display().to_string();
    format!(
        "ssl_certificate {directory}good.pem; ssl_certificate_key {directory}good.key;
         ssl_protocols TLSv1.2 TLSv1.3; {more}"
    )
}

fn secure_configuration(pki: &Pki, endpoint: SocketAddr, protocol: &str) -> String {
    let ca = pki.path("ca.pem").display().to_string();
    let tls = format!("tls = {{ ca = [\"{ca}\"] }}");
    configuration(endpoint, &tls).replace("h2c", protocol)
}

// --- from stream to stream ----------------------------------------------------------------------

fn http2_client(proxy: &Proxy) -> Http2Client {
    Http2Client::open(proxy.address("edge"))
}

#[test]
fn streams_of_clients_become_streams_of_endpoints() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        loop {
            let asked = asker.request()?;
            let trailers = Block::new().field("grpc-status", "0");
            let head = status("200").field("content-length", "4");
            asker.send(headers(asked.stream, 0, &status("103").field("link", "a")))?;
            asker.send(headers(asked.stream, 0, &head))?;
            asker.send(frame(DATA, 0, asked.stream, "body"))?;
            asker.send(headers(asked.stream, END_STREAM, &trailers))?;
        }
    });
    let proxy = proxy(origin.address(), "");
    let mut client = http2_client(&proxy);
    let head = Block::request("POST", "/a?b").field("te", "trailers").field("x-name", "Value");
    let stream = client.begin(&head);
    client.data(stream, 0, "abc");
    client.send(headers(stream, END_STREAM, &Block::new().field("x-sum", "3")));
    let answer = client.answer(stream);
    assert_eq!((answer.status, answer.text()), (200, "body"), "{answer:?}");
    assert_eq!(answer.interim, [103]);
    assert_eq!(answer.field("content-length"), Some("4"));
    assert_eq!(answer.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
    let asked = origin.asked().remove(0);
    assert_eq!((asked.body.as_slice(), asked.path()), (&b"abc"[..], "/a?b"));
    assert_eq!(asked.trailers, [("x-sum".to_owned(), "3".to_owned())]);
    assert_eq!(asked.field(":authority"), Some("test"));
    assert_eq!(asked.field("te"), Some("trailers"));
    assert_eq!(asked.field("x-name"), Some("Value"));
    // Many at once share one connection to the endpoint too.
    let streams: Vec<u32> = (0..20).map(|_| client.request(&Block::get("/"))).collect();
    let last = *streams.last().expect("there are 20");
    assert_eq!(client.answer(last).text(), "body");
    assert!(eventually(|| origin.asked().len() == 21));
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_end_that_comes_alone_ends_the_stream_of_the_client() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        loop {
            let asked = asker.request()?;
            asker.send(headers(asked.stream, 0, &status("200")))?;
            asker.send(frame(DATA, 0, asked.stream, "body"))?;
            asker.send(frame(DATA, END_STREAM, asked.stream, ""))?;
        }
    });
    let proxy = proxy(origin.address(), "");
    let mut client = http2_client(&proxy);
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "body");
    }
    assert_eq!(proxy.client().get("/").text(), "body");
}

#[test]
fn curl_speaks_http2_to_endpoints_of_either_version() {
    let body: String = (0..300_000).map(|at| format!("{at:06}")).collect();
    let echoing = Nghttpd::start(&["--echo-upload"]);
    let directory = TempDir::new();
    let file = directory.write("body", &body).display().to_string();
    let proxy = proxy(echoing.address(), "");
    let data = format!("@{file}");
    for version in ["--http2-prior-knowledge", "--http1.1"] {
        let arguments = [version, "-X", "POST", "--data-binary", &data];
        let answer = Curl::get(&proxy.url("/"), &arguments);
        assert!(answer.text() == body, "{version}: another body comes back");
    }
}

#[test]
fn a_stream_that_its_client_resets_is_reset_for_the_endpoint_and_no_other() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        let other = asker.request()?;
        let left = asker.request()?;
        let gone = asker.until(RST_STREAM)?;
        assert_eq!((gone.stream, gone.code()), (left.stream, CANCEL));
        asker.answer(other.stream, "other")?;
        asker.until(GOAWAY).map(|_| ())
    });
    let proxy = proxy(origin.address(), "");
    let mut client = http2_client(&proxy);
    let other = client.request(&Block::get("/other"));
    assert!(eventually(|| origin.asked().len() == 1));
    let left = client.request(&Block::get("/left"));
    assert!(eventually(|| origin.asked().len() == 2));
    client.send(reset(left, CANCEL));
    assert_eq!(client.answer(other).text(), "other");
}

#[test]
fn a_stream_that_its_endpoint_resets_is_reset_for_its_client() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        let cut = asker.request()?;
        asker.send(headers(cut.stream, 0, &status("200")))?;
        asker.send(frame(DATA, 0, cut.stream, "begin"))?;
        asker.send(reset(cut.stream, 2))?;
        let next = asker.request()?;
        asker.answer(next.stream, "next")?;
        asker.until(GOAWAY).map(|_| ())
    });
    let proxy = proxy(origin.address(), "");
    let mut client = http2_client(&proxy);
    let cut = client.request(&Block::get("/cut"));
    assert!(matches!(client.try_answer(cut), Err(Ended::Reset(_))));
    assert_eq!(client.get("/next").text(), "next");
}

#[test]
fn a_stream_that_is_not_read_stops_neither_its_neighbours_nor_the_endpoints_others() {
    let server = Nghttpd::start(&[]);
    server.file("long", vec![b'a'; 5_000_000]);
    server.file("short", "short");
    let proxy = proxy(server.address(), "");
    let mut client =
        Http2Client::connect(proxy.address("edge")).greet(&[(INITIAL_WINDOW_SIZE, 1000)]);
    for _ in 0..10 {
        client.request(&Block::get("/long"));
    }
    for _ in 0..10 {
        assert_eq!(client.get("/short").text(), "short");
        assert_eq!(proxy.client().get("/short").text(), "short");
    }
}

/// Answers `/long` with so many pieces of so many bytes, without a window's leave.
fn in_pieces(asker: &mut Asker, count: usize, length: usize) -> io::Result<()> {
    asker.greet(&[])?;
    loop {
        let asked = asker.request()?;
        if asked.path() != "/long" {
            asker.answer(asked.stream, "short")?;
            continue;
        }
        asker.send(headers(asked.stream, 0, &status("200")))?;
        for _ in 0..count / 1000 {
            asker.send(frame(DATA, 0, asked.stream, vec![b'x'; length]).repeat(1000))?;
        }
        asker.send(frame(DATA, END_STREAM, asked.stream, []))?;
    }
}

#[test]
fn small_pieces_for_a_client_that_does_not_read_end_nobody_elses_streams() {
    let origin = Http2Origin::start(|asker| in_pieces(asker, 200_000, 1));
    let proxy = proxy(origin.address(), "pool = { max_connections = 1 }");
    let mut slow = Http2Client::connect(proxy.address("edge")).greet(&[(INITIAL_WINDOW_SIZE, 0)]);
    let stream = slow.request(&Block::get("/long"));
    let head = slow.read_until(HEADERS).expect("it is answered");
    slow.decode(&head);
    let mut other = proxy.client();
    for _ in 0..3 {
        assert_eq!(other.get("/short").text(), "short");
    }
    slow.send(window_update(stream, 1 << 20));
    assert_eq!(slow.answer(stream).body.len(), 200_000);
    assert_eq!(origin.connections(), 1, "all of them have shared it");
}

#[test]
fn small_pieces_for_a_client_of_http1_that_does_not_read_do_not_either() {
    let (count, length) = (180_000, 100);
    let origin = Http2Origin::start(move |asker| in_pieces(asker, count, length));
    let more = "pool = { max_connections = 1 }\nhttp2 = { initial_window_size = \"32MB\" }";
    let proxy = proxy(origin.address(), more);
    let mut slow = proxy.client();
    slow.send("GET /long HTTP/1.0\r\nHost: a.example\r\n\r\n");
    slow.read_exactly(1);
    let mut other = proxy.client();
    for _ in 0..3 {
        assert_eq!(other.get("/short").text(), "short");
    }
    assert!(slow.read_to_close().len() > count * length);
    assert_eq!(origin.connections(), 1, "all of them have shared it");
}

// --- which version -------------------------------------------------------------------------------

#[test]
fn auto_speaks_what_each_endpoint_chooses() {
    let pki = pki();
    let says = certificate(&pki, "location / { return 200 $server_protocol; }");
    for (parameters, spoken) in [("ssl http2", "HTTP/2.0"), ("ssl", "HTTP/1.1")] {
        let server = Nginx::start_with(parameters, &says);
        let proxy = Proxy::start(&secure_configuration(&pki, server.address(), "auto"));
        let asking: Vec<_> = (0..10).map(|_| ask(&proxy, &get("/"))).collect();
        for one in asking {
            assert_eq!(join(one).text(), spoken);
        }
        assert_eq!(proxy.client().get("/").text(), spoken);
    }
    let plain = Nginx::start("location / { return 200 $server_protocol; }");
    let proxy = Proxy::start(&configuration(plain.address(), "").replace("h2c", "auto"));
    assert_eq!(proxy.client().get("/").text(), "HTTP/1.1");
}

#[test]
fn auto_follows_an_endpoint_that_changes_its_mind() {
    let pki = pki();
    let says = certificate(&pki, "location / { return 200 $server_protocol; }");
    let server = Nginx::start_with("ssl http2", &says);
    let proxy = Proxy::start(&secure_configuration(&pki, server.address(), "auto"));
    assert_eq!(proxy.client().get("/").text(), "HTTP/2.0");
    let mut server = server;
    for (parameters, spoken) in [("ssl", "HTTP/1.1"), ("ssl http2", "HTTP/2.0")] {
        server = server.replace(parameters, &says);
        for _ in 0..3 {
            assert_eq!(proxy.client().get("/").text(), spoken);
        }
    }
}

#[test]
fn a_connection_that_says_whom_it_is_for_is_for_one_exchange() {
    let says = "location / { return 200 \"$proxy_protocol_port $server_protocol\"; }";
    let server = Nginx::start_with("http2 proxy_protocol", says);
    let proxy = proxy(server.address(), "proxy_protocol = \"v2\"");
    for _ in 0..3 {
        let mut client = proxy.client();
        let port = client.local_addr().port();
        assert_eq!(client.get("/").text(), format!("{port} HTTP/2.0"));
    }
}

#[test]
fn a_connection_whose_exchange_has_left_before_it_was_open_gives_its_slot_back() {
    let gate = Gate::new();
    let opened = gate.clone();
    let came = Arc::new(AtomicUsize::new(0));
    let comes = Arc::clone(&came);
    let origin = Http2Origin::start(move |asker| {
        comes.fetch_add(1, Ordering::SeqCst);
        opened.wait();
        asker.greet(&[])?;
        let asked = asker.request()?;
        asker.answer(asked.stream, "ok")
    });
    let more = "proxy_protocol = \"v1\"\ntimeouts = { connect = \"30s\" }\n\
                pool = { max_connections = 1, queue_timeout = \"20s\", idle_timeout = \"60s\" }";
    let text = configuration(origin.address(), more);
    let text = text.replace("name = \"all\"\n", "name = \"all\"\ntimeout = \"1s\"\n");
    let proxy = Proxy::start(&text);
    assert_eq!(proxy.client().get("/").status, 504);
    assert_eq!(came.load(Ordering::SeqCst), 1);
    gate.open();
    assert!(eventually(|| proxy.client().get("/").text() == "ok"));
}

#[test]
fn an_endpoint_that_does_not_choose_h2_is_not_spoken_to_otherwise() {
    let pki = pki();
    let server = Nginx::start_secure(&certificate(&pki, "location / { return 200 no; }"));
    let proxy = Proxy::start(&secure_configuration(&pki, server.address(), "h2"));
    let response = proxy.client().get("/");
    assert_eq!(response.status, 502, "{response:?}");
    assert!(
        eventually(|| failures(&proxy, "upstream_not_http2", "upstream")
            + failures(&proxy, "upstream_tls_failed", "upstream")
            > 0.0),
        "{}",
        proxy.metrics()
    );
}

#[test]
fn an_endpoint_that_speaks_http1_only_is_told_of() {
    let origin = Origin::connections(|mut stream, _| {
        let mut request = [0; 1000];
        let _ = io::Read::read(&mut stream, &mut request);
        let _ = io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let proxy = proxy(origin.address(), "");
    let response = proxy.client().get("/");
    assert_eq!(response.status, 502, "{response:?}");
    failed(&proxy, "upstream_not_http2");
    proxy.wait_for_log("not HTTP/2");
}

// --- sharing -------------------------------------------------------------------------------------

/// Answers nothing before so many requests are there.
fn gathering(count: usize) -> Http2Origin {
    Http2Origin::start(move |asker| {
        asker.greet(&[])?;
        let mut waiting = Vec::new();
        while waiting.len() < count {
            waiting.push(asker.request()?);
        }
        for asked in waiting {
            let path = asked.path().to_owned();
            asker.answer(asked.stream, &path)?;
        }
        asker.until(GOAWAY).map(|_| ())
    })
}

#[test]
fn exchanges_share_a_connection() {
    let origin = gathering(50);
    let proxy = proxy(origin.address(), "");
    let asking: Vec<_> = (0..50).map(|at| ask(&proxy, &get(&format!("/{at}")))).collect();
    for (at, one) in asking.into_iter().enumerate() {
        assert_eq!(join(one).text(), format!("/{at}"));
    }
    assert_eq!(origin.connections(), 1);
    let of_cluster = |name| proxy.metric(&format!("tls_proxy_upstream_{name}{{cluster=\"a\"}}"));
    assert_eq!(of_cluster("opened_total"), Some(1.0), "{}", proxy.metrics());
    assert_eq!(of_cluster("connections"), Some(1.0));
}

#[test]
fn exchanges_that_come_while_a_connection_is_made_share_it() {
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = Http2Origin::start(move |asker| {
        opened.wait();
        asker.greet(&[])?;
        loop {
            let asked = asker.request()?;
            let path = asked.path().to_owned();
            asker.answer(asked.stream, &path)?;
        }
    });
    let proxy = proxy(origin.address(), "");
    let asking: Vec<_> = (0..5).map(|at| ask(&proxy, &get(&format!("/{at}")))).collect();
    let begun = "tls_proxy_requests_active";
    let _ = eventually(|| proxy.metric(begun).is_none_or(|active| active >= 5.0));
    gate.open();
    for (at, one) in asking.into_iter().enumerate() {
        assert_eq!(join(one).text(), format!("/{at}"));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn more_exchanges_than_an_endpoint_takes_on_a_connection_open_another() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[(MAX_CONCURRENT_STREAMS, 1)])?;
        let asked = asker.request()?;
        // The other connection's is answered first.
        if asker.connection() == 0 {
            thread::sleep(Duration::from_millis(300));
        }
        asker.answer(asked.stream, "ok")?;
        asker.until(GOAWAY).map(|_| ())
    });
    let proxy = proxy(origin.address(), "");
    let first = ask(&proxy, &get("/1"));
    assert!(eventually(|| !origin.asked().is_empty()));
    assert_eq!(proxy.client().get("/2").text(), "ok");
    assert_eq!(join(first).text(), "ok");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn at_the_maximum_of_connections_exchanges_wait_for_a_stream() {
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let origin = Http2Origin::start(move |asker| {
        asker.greet(&[(MAX_CONCURRENT_STREAMS, 1)])?;
        loop {
            let asked = asker.request()?;
            thread::sleep(Duration::from_millis(10));
            // A second one may not be on its way.
            seen.fetch_max(asked.stream as usize, Ordering::SeqCst);
            let path = asked.path().to_owned();
            asker.answer(asked.stream, &path)?;
        }
    });
    let proxy = proxy(origin.address(), "pool = { max_connections = 1 }");
    let asking: Vec<_> = (0..20).map(|at| ask(&proxy, &get(&format!("/{at}")))).collect();
    for (at, one) in asking.into_iter().enumerate() {
        assert_eq!(join(one).text(), format!("/{at}"));
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(most.load(Ordering::SeqCst), 39, "20 streams on one connection");
}

#[test]
fn who_waits_too_long_or_comes_too_late_is_answered_503() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[(MAX_CONCURRENT_STREAMS, 1)])?;
        asker.request()?;
        asker.until(RST_STREAM).map(|_| ())
    });
    let pool = "pool = { max_connections = 1, max_pending = 1, queue_timeout = \"2s\" }";
    let proxy = proxy(origin.address(), pool);
    let mut first = proxy.client();
    first.send(get("/1"));
    assert!(eventually(|| !origin.asked().is_empty()));
    let second = ask(&proxy, &get("/2"));
    let waiting = "tls_proxy_upstream_waiting{cluster=\"a\"}";
    assert!(eventually(|| proxy.metric(waiting) == Some(1.0)), "{}", proxy.metrics());
    assert_eq!(proxy.client().get("/3").status, 503);
    assert_eq!(join(second).status, 503);
    assert!(eventually(|| failures(&proxy, "pool_timeout", "proxy") >= 1.0));
    first.close();
}

#[test]
fn small_pieces_for_an_endpoint_that_takes_none_end_no_other_stream() {
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = Http2Origin::start(move |asker| {
        asker.greet(&[(INITIAL_WINDOW_SIZE, 0)])?;
        let streams = [asker.head()?, asker.head()?, asker.head()?, asker.head()?];
        opened.wait();
        for asked in &streams {
            asker.send(window_update(asked.stream, 1000))?;
        }
        for _ in &streams {
            let asked = asker.request()?;
            asker.answer(asked.stream, "all of it")?;
        }
        asker.until(GOAWAY).map(|_| ())
    });
    let here = "[[routes]]\nname = \"here\"\npaths = [\"/here\"]\necho = true\n[[routes]]\n";
    let text = configuration(origin.address(), "");
    let proxy = Proxy::start(&text.replacen("[[routes]]\n", here, 1));
    let mut client = Http2Client::open(proxy.address("edge"));
    let streams = [(); 4].map(|()| client.begin(&Block::request("POST", "/upload")));
    let said: Vec<u8> = (0..15_000_u32).map(|at| (at % 251) as u8).collect();
    for part in said.chunks(1000) {
        for &stream in &streams {
            let frames: Vec<_> = part.iter().map(|&byte| frame(DATA, 0, stream, [byte])).collect();
            client.send(frames.concat());
        }
        assert_eq!(client.get("/here").status, 200);
    }
    for &stream in &streams {
        client.data(stream, END_STREAM, "");
    }
    gate.open();
    let mut answered = 0;
    while answered < streams.len() {
        let frame = client.read_until(DATA).expect("all are answered");
        answered += usize::from(frame.payload == b"all of it");
    }
    let asked = origin.asked();
    assert!(asked.len() == 4 && asked.iter().all(|asked| asked.body == said));
}

#[test]
fn sixteen_cores_never_have_more_connections_than_the_maximum() {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, seen) = (Arc::clone(&open), Arc::clone(&most));
    let origin = Http2Origin::start(move |asker| {
        now.fetch_add(1, Ordering::SeqCst);
        // The end of another may have arrived, and its thread not know of it yet.
        for _ in 0..100 {
            if now.load(Ordering::SeqCst) <= 4 {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        seen.fetch_max(now.load(Ordering::SeqCst), Ordering::SeqCst);
        let ended = (|| {
            asker.greet(&[(MAX_CONCURRENT_STREAMS, 2)])?;
            loop {
                let asked = asker.request()?;
                let path = asked.path().to_owned();
                asker.answer(asked.stream, &path)?;
            }
        })();
        now.fetch_sub(1, Ordering::SeqCst);
        ended
    });
    let pool = "pool = { max_connections = 4, queue_timeout = \"20s\" }";
    let text = configuration(origin.address(), pool).replacen("cores = 1", "cores = 16", 1);
    let proxy = Proxy::start(&text);
    proxy.wait_for_log("clusters.a.pool.max_connections: an endpoint of HTTP/2 has at most 4");
    let asking: Vec<_> = (0..32)
        .map(|at| {
            let mut client = proxy.client();
            thread::spawn(move || {
                (0..5).for_each(|_| {
                    let path = format!("/{at}");
                    assert_eq!(client.get(&path).text(), path);
                });
            })
        })
        .collect();
    asking.into_iter().for_each(join);
    let most = most.load(Ordering::SeqCst);
    assert!((1..=4).contains(&most), "{most} connections");
}

// --- ends ----------------------------------------------------------------------------------------

#[test]
fn after_goaway_streams_end_and_others_go_elsewhere() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        let asked = asker.request()?;
        asker.go_away(asked.stream, 0)?;
        thread::sleep(Duration::from_millis(100));
        let connection = asker.connection().to_string();
        asker.answer(asked.stream, &connection)?;
        asker.until(GOAWAY).map(|_| ())
    });
    let proxy = proxy(origin.address(), "");
    let first = ask(&proxy, &get("/1"));
    assert!(eventually(|| !origin.asked().is_empty()));
    thread::sleep(Duration::from_millis(30));
    assert_eq!(proxy.client().get("/2").text(), "1");
    assert_eq!(join(first).text(), "0");
}

#[test]
fn a_request_that_goaway_leaves_out_is_sent_again_whatever_its_method() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        let asked = asker.request()?;
        if asker.connection() == 0 {
            asker.go_away(0, 0)?;
            return asker.until(GOAWAY).map(|_| ());
        }
        let body = String::from_utf8_lossy(&asked.body).into_owned();
        asker.answer(asked.stream, &body)?;
        asker.until(GOAWAY).map(|_| ())
    });
    let proxy = proxy(origin.address(), "");
    let response = join(ask(&proxy, &post("/", "once")));
    assert_eq!((response.status, response.text()), (200, "once"), "{response:?}");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_refused_request_is_sent_again_but_not_for_ever() {
    let known: Mutex<Vec<String>> = Mutex::default();
    let origin = Http2Origin::start(move |asker| {
        asker.greet(&[])?;
        loop {
            let asked = asker.request()?;
            let path = asked.path().to_owned();
            let mut known = known.lock().expect("no script panics");
            let is_new = !known.contains(&path);
            known.push(path);
            if asked.path() == "/never" || is_new {
                asker.send(reset(asked.stream, REFUSED_STREAM))?;
            } else {
                asker.answer(asked.stream, "taken")?;
            }
        }
    });
    let proxy = proxy(origin.address(), "");
    assert_eq!(join(ask(&proxy, &post("/", "a"))).text(), "taken");
    let chunked = "POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n";
    assert_eq!(join(ask(&proxy, chunked)).text(), "taken");
    let mut client = http2_client(&proxy);
    let stream = client.begin(&Block::request("POST", "/stream"));
    client.data(stream, 0, "stre");
    client.data(stream, END_STREAM, "am");
    assert_eq!(client.answer(stream).text(), "taken");
    for (path, body, times) in [("/chunked", "abc", 2), ("/stream", "stream", 2)] {
        let asked: Vec<_> = origin.asked().into_iter().filter(|a| a.path() == path).collect();
        assert_eq!(asked.len(), times, "{path}");
        assert!(asked.iter().all(|asked| asked.body == body.as_bytes()), "{asked:?}");
    }
    let refused = join(ask(&proxy, &post("/never", "a")));
    assert_eq!(refused.status, 503, "{refused:?}");
    failed(&proxy, "upstream_refused");
    let never = origin.asked().iter().filter(|asked| asked.path() == "/never").count();
    assert_eq!(never, 4);
    assert_eq!(join(ask(&proxy, &post("/", "a"))).text(), "taken");
}

#[test]
fn a_request_that_may_have_been_done_is_sent_again_only_where_that_does_no_harm() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        let first = asker.request()?;
        asker.answer(first.stream, "first")?;
        let asked = asker.request()?;
        match asker.connection() {
            // Without a word: it may have been on its way to be done.
            0 | 1 => Ok(()),
            _ => asker.answer(asked.stream, "again"),
        }
    });
    let proxy = proxy(origin.address(), "");
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "first");
    // The next connection's first request.
    assert_eq!(client.get("/").text(), "first");
    client.send(post("/", "a"));
    let response = client.read_response();
    assert_eq!(response.status, 502, "{response:?}");
    failed(&proxy, "upstream_closed");
}

#[test]
fn an_endpoint_that_wants_http1_for_a_request_is_told_of() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        loop {
            let asked = asker.request()?;
            match asked.path() {
                "/old" => asker.send(reset(asked.stream, HTTP_1_1_REQUIRED))?,
                "/older" => {
                    asker.go_away(asked.stream - 2, HTTP_1_1_REQUIRED)?;
                    return Ok(());
                }
                path => asker.answer(asked.stream, path)?,
            }
        }
    });
    let proxy = proxy(origin.address(), "");
    for (count, path) in ["/old", "/older"].into_iter().enumerate() {
        assert_eq!(proxy.client().get("/before").text(), "/before");
        let answer = proxy.client().get(path);
        assert_eq!(answer.status, 502, "{path}: {}", answer.text());
        assert!(answer.text().contains("does not speak HTTP/2"), "{}", answer.text());
        let failed = failures(&proxy, "upstream_not_http2", "upstream");
        assert!(failed > count as f64, "{path}: {failed}");
        assert_eq!(proxy.client().get("/behind").text(), "/behind");
    }
}

#[test]
fn a_request_whose_stream_is_always_reset_is_not_sent_for_ever() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        loop {
            let asked = asker.request()?;
            match asked.path() {
                "/" => asker.answer(asked.stream, "ok")?,
                _ => asker.send(reset(asked.stream, 2))?,
            }
        }
    });
    let proxy = proxy(origin.address(), "");
    assert_eq!(proxy.client().get("/").text(), "ok");
    for (method, times) in [("GET", 2), ("PUT", 2), ("DELETE", 2), ("POST", 1)] {
        let path = format!("/reset-{method}");
        let response =
            join(ask(&proxy, &post(&path, "a").replace("POST /", &format!("{method} /"))));
        assert_eq!(response.status, 502, "{response:?}");
        let asked = origin.asked();
        assert_eq!(asked.iter().filter(|a| a.path() == path).count(), times, "{method}");
    }
    assert_eq!(origin.connections(), 1, "a reset says that the connection lives");
    assert_eq!(proxy.client().get("/").text(), "ok");
}

#[test]
fn a_reset_stream_ends_its_exchange_and_no_other() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        let slow = asker.request()?;
        let cut = asker.request()?;
        asker.send(headers(cut.stream, 0, &status("200")))?;
        asker.send(frame(DATA, 0, cut.stream, "begin"))?;
        asker.send(reset(cut.stream, 2))?;
        let failing = asker.request()?;
        asker.send(reset(failing.stream, 2))?;
        asker.answer(slow.stream, "slow")?;
        asker.until(GOAWAY).map(|_| ())
    });
    let proxy = proxy(origin.address(), "");
    let slow = ask(&proxy, &get("/slow"));
    assert!(eventually(|| origin.asked().len() == 1));
    let mut client = proxy.client();
    client.send(get("/cut"));
    let bytes = client.read_to_close();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("begin") && !text.ends_with("0\r\n\r\n"), "{text}");
    let response = join(ask(&proxy, &post("/", "a")));
    assert_eq!(response.status, 502, "{response:?}");
    failed(&proxy, "upstream_reset");
    assert_eq!(join(slow).text(), "slow");
}

#[test]
fn a_client_that_leaves_resets_its_stream_and_disturbs_nobody() {
    let gate = Gate::new();
    let went = gate.clone();
    let origin = Http2Origin::start(move |asker| {
        asker.greet(&[])?;
        let other = asker.request()?;
        let left = asker.request()?;
        went.wait();
        // What is written to who has left comes back as a reset.
        asker.send(headers(left.stream, 0, &status("200")))?;
        asker.send(frame(DATA, 0, left.stream, "begin"))?;
        let gone = asker.until(RST_STREAM)?;
        assert_eq!((gone.stream, gone.code()), (left.stream, CANCEL));
        asker.answer(other.stream, "other")?;
        asker.until(GOAWAY).map(|_| ())
    });
    let proxy = proxy(origin.address(), "");
    let other = ask(&proxy, &get("/other"));
    assert!(eventually(|| origin.asked().len() == 1));
    let mut client = proxy.client();
    client.send(get("/left"));
    assert!(eventually(|| origin.asked().len() == 2));
    client.close();
    gate.open();
    assert_eq!(join(other).text(), "other");
    assert_eq!(origin.connections(), 1);
}

/// Answers one request, and keeps the code of the GOAWAY that comes next.
fn hears_goodbye() -> (Http2Origin, impl Fn() -> Option<u32>) {
    let said = Arc::new(Mutex::new(None));
    let heard = Arc::clone(&said);
    let origin = Http2Origin::start(move |asker| {
        asker.greet(&[])?;
        let asked = asker.request()?;
        asker.answer(asked.stream, "ok")?;
        let goodbye = asker.until(GOAWAY)?;
        *heard.lock().expect("no script panics") = Some(goodbye.code());
        Ok(())
    });
    (origin, move || *said.lock().expect("no script panics"))
}

#[test]
fn an_idle_connection_says_goodbye_and_closes() {
    let (origin, goodbye) = hears_goodbye();
    let proxy = proxy(origin.address(), "pool = { idle_timeout = \"1s\" }");
    assert_eq!(proxy.client().get("/").text(), "ok");
    assert!(eventually(|| goodbye() == Some(0)));
}

#[test]
fn a_process_that_ends_says_goodbye_to_its_endpoints() {
    let (origin, goodbye) = hears_goodbye();
    let mut proxy = proxy(origin.address(), "");
    assert_eq!(proxy.client().get("/").text(), "ok");
    proxy.signal("TERM");
    assert!(proxy.wait_exit(Duration::from_secs(20)).success());
    assert!(eventually(|| goodbye() == Some(0)));
}

#[test]
fn a_reload_without_an_endpoint_says_goodbye_to_it() {
    let (origin, goodbye) = hears_goodbye();
    let other = Http2Origin::polite(&[]);
    let proxy = proxy(origin.address(), "");
    assert_eq!(proxy.client().get("/").text(), "ok");
    proxy.rewrite_config(&configuration(other.address(), ""));
    proxy.signal("HUP");
    assert!(eventually(|| goodbye() == Some(0)));
    assert_eq!(proxy.client().get("/there").text(), "/there");
}

#[test]
fn a_reload_that_changes_how_connections_begin_replaces_them_and_ends_nothing() {
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = Http2Origin::start(move |asker| {
        asker.greet(&[])?;
        loop {
            let asked = asker.request()?;
            if asked.path() == "/slow" {
                opened.wait();
            }
            let connection = asker.connection().to_string();
            asker.answer(asked.stream, &connection)?;
        }
    });
    let text = configuration(origin.address(), "http2 = { max_concurrent_streams = 10 }");
    let proxy = Proxy::start(&text);
    let slow = ask(&proxy, &get("/slow"));
    assert!(eventually(|| origin.asked().len() == 1));
    proxy.rewrite_config(&text.replace("= 10 }", "= 11 }"));
    proxy.signal("HUP");
    assert!(eventually(|| proxy.metric("tls_proxy_rules_version") == Some(2.0)));
    assert!(eventually(|| proxy.client().get("/").text() == "1"));
    gate.open();
    assert_eq!(join(slow).text(), "0");
}

#[test]
fn who_has_waited_during_a_reload_gets_a_connection_that_begins_by_the_new_rules() {
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = Http2Origin::start(move |asker| {
        asker.greet(&[(MAX_CONCURRENT_STREAMS, 1)])?;
        let said = asker.until(SETTINGS)?;
        asker.send(frame(SETTINGS, ACK, 0, []))?;
        let mut entries = said.payload.chunks(6);
        let window = entries.find(|entry| entry[..2] == INITIAL_WINDOW_SIZE.to_be_bytes());
        let window = window.map(|entry| u32::from_be_bytes(entry[2..].try_into().expect("four")));
        loop {
            let asked = asker.request()?;
            if asked.path() == "/slow" {
                opened.wait();
            }
            asker.answer(asked.stream, &window.unwrap_or_default().to_string())?;
        }
    });
    let more = "pool = { max_connections = 1, queue_timeout = \"20s\" }\n\
                http2 = { initial_window_size = 100000 }";
    let text = configuration(origin.address(), more);
    let proxy = Proxy::start(&text);
    let slow = ask(&proxy, &get("/slow"));
    assert!(eventually(|| origin.asked().len() == 1));
    let waits = ask(&proxy, &get("/"));
    let waiting = "tls_proxy_upstream_waiting{cluster=\"a\"}";
    assert!(eventually(|| proxy.metric(waiting) == Some(1.0)), "{}", proxy.metrics());
    proxy.rewrite_config(&text.replace("= 100000 }", "= 200000 }"));
    proxy.signal("HUP");
    assert!(eventually(|| proxy.metric("tls_proxy_rules_version") == Some(2.0)));
    gate.open();
    assert_eq!(join(slow).text(), "100000");
    assert_eq!(join(waits).text(), "200000");
}

#[test]
fn a_reload_with_fewer_connections_than_cores_warns() {
    let origin = Http2Origin::polite(&[]);
    let text = configuration(origin.address(), "").replacen("cores = 1", "cores = 2", 1);
    let proxy = Proxy::start(&text);
    assert!(!proxy.log().contains("has at most"), "{}", proxy.log());
    proxy.rewrite_config(&format!("{text}pool = {{ max_connections = 1 }}\n"));
    proxy.signal("HUP");
    proxy.wait_for_log("has at most 1, and each of 2 cores needs one of its own");
    assert_eq!(proxy.client().get("/a").text(), "/a");
}

#[test]
fn a_drain_lets_streams_end() {
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = Http2Origin::start(move |asker| {
        asker.greet(&[])?;
        let asked = asker.request()?;
        opened.wait();
        asker.answer(asked.stream, "ok")
    });
    let mut proxy = proxy(origin.address(), "");
    let slow = ask(&proxy, &get("/"));
    assert!(eventually(|| origin.asked().len() == 1));
    proxy.signal("TERM");
    gate.open();
    assert_eq!(join(slow).text(), "ok");
    assert!(proxy.wait_exit(Duration::from_secs(20)).success());
}

// --- hostile endpoints ---------------------------------------------------------------------------

#[test]
fn heads_that_http1_would_refuse_are_refused_and_the_next_request_is_served() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        loop {
            let asked = asker.request()?;
            let block = match asked.path() {
                "/101" => status("101"),
                "/99" => status("99"),
                "/none" => Block::new().field("a", "b"),
                "/connection" => status("200").field("connection", "close"),
                "/chunked" => status("200").field("transfer-encoding", "chunked"),
                "/upper" => status("200").field("Upper", "a"),
                "/lengths" => {
                    status("200").field("content-length", "1").field("content-length", "2")
                }
                "/length" => status("200").field("content-length", "+1"),
                "/underscore" => status("200").field("x_a", "1").field("x-a", "2"),
                "/many" => {
                    (0..201).fold(status("200"), |block, at| block.field("a", at.to_string()))
                }
                "/shorter" => status("200").field("content-length", "9"),
                _ => {
                    let path = asked.path().to_owned();
                    asker.answer(asked.stream, &path)?;
                    continue;
                }
            };
            asker.send(headers(asked.stream, 0, &block))?;
            asker.send(frame(DATA, END_STREAM, asked.stream, "abc"))?;
        }
    });
    let proxy = proxy(origin.address(), "");
    let paths = [
        "/101",
        "/99",
        "/none",
        "/connection",
        "/chunked",
        "/upper",
        "/lengths",
        "/length",
        "/underscore",
        "/many",
    ];
    for path in paths {
        let response = proxy.client().get(path);
        assert_eq!(response.status, 502, "{path}: {response:?}");
        assert_eq!(proxy.client().get("/next").text(), "/next", "after {path}");
    }
    let mut client = proxy.client();
    client.send(get("/shorter"));
    let cut = client.read_to_close();
    assert!(!String::from_utf8_lossy(&cut).is_empty());
    assert_eq!(proxy.client().get("/next").text(), "/next");
    failed(&proxy, "upstream_malformed");
}

#[test]
fn an_endpoint_that_goes_on_saying_soon_is_cut_off() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        let asked = asker.request()?;
        if asked.path() == "/next" {
            asker.answer(asked.stream, "next")?;
            return asker.until(GOAWAY).map(|_| ());
        }
        for _ in 0..2_000 {
            asker.send(headers(asked.stream, 0, &status("103")))?;
        }
        asker.until(GOAWAY).map(|_| ())
    });
    let proxy = proxy(origin.address(), "");
    let mut client = proxy.client();
    client.send(get("/"));
    let answer = loop {
        match client.read_response() {
            response if response.status == 103 => {}
            response => break response,
        }
    };
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(proxy.client().get("/next").text(), "next");
}

#[test]
fn an_endpoint_that_never_says_its_settings_is_given_up() {
    let origin = Http2Origin::start(|asker| asker.until(GOAWAY).map(|_| ()));
    let proxy = proxy(origin.address(), "timeouts = { connect = \"300ms\" }");
    let both = [ask(&proxy, &get("/1")), ask(&proxy, &get("/2"))];
    for one in both {
        assert_eq!(join(one).status, 504);
    }
    failed(&proxy, "connect_timeout");
    proxy.wait_for_log("SETTINGS");
}

#[test]
fn an_endpoint_that_allows_no_streams_is_not_asked_for_ever() {
    let closed = Arc::new(AtomicUsize::new(0));
    let ended = Arc::clone(&closed);
    let origin = Http2Origin::start(move |asker| {
        asker.greet(&[(MAX_CONCURRENT_STREAMS, 0)])?;
        let _ = asker.request();
        ended.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let proxy = proxy(origin.address(), "pool = { max_connections = 1, idle_timeout = \"60s\" }");
    for times in 1..4 {
        assert_eq!(proxy.client().get("/").status, 503);
        assert!(eventually(|| closed.load(Ordering::SeqCst) == times), "it is closed at once");
    }
    assert_eq!(origin.connections(), 3);
    failed(&proxy, "upstream_refused");
}

#[test]
fn an_endpoint_may_take_longer_to_read_than_to_be_connected_to() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[(INITIAL_WINDOW_SIZE, 1 << 30)])?;
        asker.send(window_update(0, 1 << 30))?;
        asker.head()?;
        // The time is the point: longer than connecting may take.
        thread::sleep(Duration::from_millis(1_000));
        let asked = asker.request()?;
        asker.answer(asked.stream, &asked.body.len().to_string())
    });
    let proxy = proxy(origin.address(), "timeouts = { connect = \"300ms\" }");
    let body = "x".repeat(16_000_000);
    let response = join(ask(&proxy, &post("/", &body)));
    assert_eq!((response.status, response.text()), (200, "16000000"));
}

#[test]
fn an_answer_that_is_cut_before_any_of_it_was_sent_is_a_502_to_http10_too() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        loop {
            let asked = asker.request()?;
            let head = headers(asked.stream, 0, &status("200"));
            asker.send([head, reset(asked.stream, 2)].concat())?;
        }
    });
    let proxy = proxy(origin.address(), "");
    for _ in 0..5 {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n");
        let response = client.read_response();
        assert_eq!(response.status, 502, "{response:?}");
        // Not by a reset, which could take the answer away.
        let (_, mut rest) = client.split();
        assert_eq!(rest.read(&mut [0; 1]).expect("it ends in order"), 0);
    }
}

#[test]
fn a_connection_that_does_not_answer_a_ping_is_given_up_with_all_that_is_on_it() {
    let origin = Http2Origin::start(|asker| {
        asker.answers_pings = asker.connection() > 0;
        asker.greet(&[])?;
        loop {
            let asked = asker.request()?;
            if asker.connection() > 0 {
                asker.answer(asked.stream, "alive")?;
            }
        }
    });
    let http2 = "http2 = { keepalive_interval = \"100ms\", keepalive_timeout = \"200ms\" }";
    let proxy = proxy(origin.address(), http2);
    let response = join(ask(&proxy, &post("/", "a")));
    assert_eq!(response.status, 502, "{response:?}");
    assert_eq!(proxy.client().get("/").text(), "alive");
}

#[test]
fn a_connection_on_which_an_exchange_timed_out_is_asked_whether_it_lives() {
    let pinged = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&pinged);
    let origin = Http2Origin::start(move |asker| {
        asker.answers_pings = false;
        asker.greet(&[])?;
        let asked = asker.request()?;
        if asker.connection() > 0 {
            asker.answer(asked.stream, "another")?;
            return asker.until(GOAWAY).map(|_| ());
        }
        asker.until(PING)?;
        seen.fetch_add(1, Ordering::SeqCst);
        asker.until(GOAWAY).map(|_| ())
    });
    let more = "timeouts = { first_byte = \"1100ms\" }";
    let proxy = proxy(origin.address(), more);
    assert_eq!(proxy.client().get("/").status, 504);
    assert!(eventually(|| pinged.load(Ordering::SeqCst) == 1));
    assert_eq!(proxy.client().get("/").text(), "another");
}

// --- flow control --------------------------------------------------------------------------------

#[test]
fn a_client_that_takes_nothing_stops_its_own_stream_and_no_other() {
    let server = Nghttpd::start(&["-n", "1"]);
    server.file("long", vec![b'a'; 30_000_000]);
    server.file("short", "short");
    let proxy = proxy(server.address(), "");
    let mut stalled: Vec<RawClient> = (0..5)
        .map(|_| {
            let mut client = proxy.client();
            client.send(get("/long"));
            client.read_exactly(1);
            client
        })
        .collect();
    let mut other = proxy.client();
    for _ in 0..20 {
        assert_eq!(other.get("/short").text(), "short");
    }
    assert!(proxy.rss_kb() < 120_000, "{} kB", proxy.rss_kb());
    // One of them goes on, and gets all of it.
    let mut length = 1;
    let mut goes_on = stalled.remove(0);
    while length < 30_000_000 {
        length += goes_on.read_exactly(100_000).len();
    }
}

#[test]
fn an_upload_waits_for_the_endpoints_window() {
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = Http2Origin::start(move |asker| {
        asker.takes_bodies = false;
        asker.greet(&[])?;
        let head = asker.head()?;
        let mut got = 0;
        while got < 65_535 {
            got += asker.until(DATA)?.payload.len();
        }
        assert_eq!(got, 65_535, "the window was kept to");
        opened.wait();
        asker
            .send([window_update(0, 1_000_000), window_update(head.stream, 1_000_000)].concat())?;
        loop {
            let data = asker.until(DATA)?;
            got += data.payload.len();
            if data.has(END_STREAM) {
                return asker.answer(head.stream, &got.to_string());
            }
        }
    });
    let proxy = proxy(origin.address(), "");
    let mut client = proxy.client();
    client.send(post("/", &"x".repeat(200_000)));
    gate.open();
    assert_eq!(client.read_response().text(), "200000");
}

#[test]
fn curl_gets_a_long_body_through_the_proxy() {
    let server = Nghttpd::start(&[]);
    let body: String = (0..200_000).map(|at| format!("{at:06}")).collect();
    server.file("long", &body);
    let proxy = proxy(server.address(), "");
    let answer = Curl::get(&proxy.url("/long"), &[]);
    assert!(answer.text() == body, "another body");
}

#[test]
fn an_upgrade_that_no_route_allows_is_not_asked_of_an_endpoint_of_http2() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        loop {
            let asked = asker.request()?;
            if asked.path() == "/101" {
                asker.send(headers(asked.stream, END_STREAM, &status("101")))?;
            } else {
                asker.answer(asked.stream, "declined")?;
            }
        }
    });
    let proxy = proxy(origin.address(), "");
    for (path, code) in [("/", 200), ("/101", 502)] {
        let mut client = proxy.client();
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        ));
        let response = client.read_response();
        assert_eq!(response.status, code, "{response:?}");
    }
    let asked = origin.asked();
    assert!(
        asked.iter().all(|asked| asked.field("upgrade").or(asked.field(":protocol")).is_none())
    );
    assert_eq!(proxy.client().get("/next").text(), "declined");
}
