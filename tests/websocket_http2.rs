//! WebSockets in streams of HTTP/2 (RFC 8441): of clients, to endpoints, and both. Clients and
//! endpoints that others have written, and those that say exact frames.

mod support;

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use support::http2_client::{
    CANCEL, DATA, ENABLE_CONNECT_PROTOCOL, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, NO_ERROR,
    RST_STREAM, frame, headers, reset, window_update,
};
use support::{
    Asked, Asker, Block, Gate, HTTP2_CLIENT, Http2Client, Http2Origin, Json, Nginx, Origin,
    PATIENCE, Pki, Proxy, RawClient, Respond, WEBSOCKET_CLIENT, WebsocketServer, edge, eventually,
    is_installed, program, python_with_websockets, run_python,
};

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
                   Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Protocol: chat\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const LOG: &str = "[logging.access]\npath = \"access.log\"\n";

/// "hi", as clients and servers send it.
const MASKED: [u8; 8] = [0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
const PLAIN: [u8; 4] = [0x81, 2, b'h', b'i'];
/// What a server says when it goes away.
const GOING_AWAY: [u8; 4] = [0x88, 2, 3, 0xE9];

/// The same, as clients answer it.
const CLOSE_MASKED: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 3, 0xE9];

/// One route to one endpoint that is spoken to by this protocol.
fn route(protocol: &str, endpoint: SocketAddr, more: &str) -> String {
    format!(
        "[[routes]]\nname = \"all\"\ncluster = \"app\"\n{more}\n\
         [clusters.app]\nprotocol = \"{protocol}\"\nendpoints = [{{ address = \"{endpoint}\" }}]\n"
    )
}

fn proxy_to(origin: &Http2Origin, more: &str) -> Proxy {
    Proxy::start(&edge(&route("h2c", origin.address(), more)))
}

/// An endpoint that agrees to every WebSocket, which `talk` has then, and answers all else with its
/// path.
fn endpoint(
    talk: impl Fn(&mut Asker, Asked) -> io::Result<()> + Send + Sync + 'static,
) -> Http2Origin {
    Http2Origin::start(move |asker| {
        asker.greet(&[(ENABLE_CONNECT_PROTOCOL, 1)])?;
        loop {
            let head = asker.head()?;
            if head.field(":method") == Some("CONNECT") {
                asker.send(headers(head.stream, 0, &status("200").field("x-from", "endpoint")))?;
                talk(asker, head)?;
            } else {
                asker.answer(head.stream, head.path())?;
            }
        }
    })
}

/// Until the client has said all.
fn listens(asker: &mut Asker, head: &Asked) -> io::Result<()> {
    asker.end_of(head.stream)?;
    asker.send(frame(DATA, END_STREAM, head.stream, []))
}

fn status(code: &str) -> Block {
    Block::pseudo(&[(":status", code)])
}

/// A client of HTTP/1.1 whose WebSocket is there.
fn open(proxy: &Proxy) -> RawClient {
    let mut client = proxy.client();
    client.send(ASK);
    assert_eq!(client.read_response().status, 101);
    client
}

/// One whose WebSocket is a stream.
fn open_stream(proxy: &Proxy) -> (Http2Client, u32) {
    let mut client = Http2Client::open(proxy.address("edge"));
    let block = Block::request("CONNECT", "/ws").field(":protocol", "websocket");
    let block = block.field("sec-websocket-version", "13");
    let stream = client.begin(&block.field("sec-websocket-protocol", "chat"));
    let head = client.read_until(1).expect("it is answered");
    assert_eq!(client.decode(&head)[0], (":status".to_owned(), "200".to_owned()));
    (client, stream)
}

fn normal_requests_are_served(proxy: &Proxy) {
    let response = proxy.client().get("/ok");
    assert_eq!((response.status, response.text()), (200, "/ok"));
}

fn records(proxy: &Proxy, count: usize) -> Vec<Json> {
    let path = proxy.directory().join("access.log");
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    assert!(eventually(|| read().lines().count() >= count), "{count} lines: {}", read());
    read().lines().map(Json::parse).collect()
}

/// Who has ended the first exchange of the log, and why.
fn ended(proxy: &Proxy) -> (String, String) {
    let record = &records(proxy, 1)[0];
    let text = |name| record.text(name).to_owned();
    (text("termination.by"), text("termination.reason"))
}

// --- what passes -----------------------------------------------------------------------------

/// A page of ours, and an endpoint of HTTP/1.1 that takes no WebSocket.
fn beside(other: &Origin) -> String {
    format!(
        "[[routes]]\nname = \"page\"\npaths = [\"/page\"]\nrespond = {{ body = \"hi\" }}\n\
         [[routes]]\nname = \"no\"\npaths = [\"/no\"]\ncluster = \"other\"\n\
         [clusters.other]\nendpoints = [{{ address = \"{}\" }}]\n",
        other.address()
    )
}

#[test]
fn clients_of_http1_and_http2_talk_to_endpoints_of_http1_and_http2() {
    let Some(python) = python_with_websockets() else { return };
    let other = Origin::start().on("GET /no", Respond::text("a page"));
    let endpoints =
        [("h1", WebsocketServer::http1(&python)), ("h2c", WebsocketServer::http2(&python, &[]))];
    for (protocol, server) in endpoints {
        let text = beside(&other) + &route(protocol, server.address, LOG);
        let proxy = Proxy::start(&edge(&text));
        let url = format!("ws://{}", proxy.address("edge"));
        let said = run_python(&python, WEBSOCKET_CLIENT, &[&url, ""]);
        assert_eq!(said.trim(), "fine", "{protocol}");
        let port = proxy.port("edge").to_string();
        let said = run_python(&python, HTTP2_CLIENT, &[&port, "talk"]);
        // What is no tunnel is no success, whatever it is.
        assert_eq!(said.trim(), "5 200\n7 405\n9 405\n11 502\nended", "{protocol}");
        let records = records(&proxy, 9);
        let of = |path: &str| records.iter().find(|record| record.text("url") == path).unwrap();
        let tunnel = of("/ws?1");
        assert_eq!((tunnel.text("protocol"), tunnel.number("status")), ("HTTP/2.0", 200.0));
        assert_eq!(tunnel.text("tunnel.ended_by"), "client");
        assert_eq!(tunnel.number("tunnel.close_code"), 1000.0);
        assert_eq!(tunnel.text("termination.by"), "none");
        assert!(tunnel.number("bytes_received") > 200_000.0, "{tunnel:?}");
        assert!(tunnel.number("bytes_sent") > 200_000.0, "{tunnel:?}");
        let tunnel = of("/ws?a=b");
        assert_eq!((tunnel.text("protocol"), tunnel.number("status")), ("HTTP/1.1", 101.0));
        assert_eq!(tunnel.text("tunnel.ended_by"), "upstream");
        assert_eq!(tunnel.number("tunnel.close_code"), 4001.0);
        assert!(tunnel.number("bytes_received") > 3_000_000.0, "{tunnel:?}");
        assert!(tunnel.number("bytes_sent") > 3_000_000.0, "{tunnel:?}");
        // The connection has ended in the middle of it.
        assert_eq!(of("/ws?2").text("termination.by"), "client");
        assert_eq!(proxy.client().get("/page").text(), "hi");
    }
}

#[test]
fn an_endpoint_is_asked_by_a_connect_and_a_client_of_http1_is_answered_101() {
    let (heads, seen) = mpsc::channel();
    let origin = endpoint(move |asker, head| {
        let _ = heads.send(head.clone());
        asker.send(frame(DATA, 0, head.stream, PLAIN))?;
        let echoed = asker.until(DATA)?.payload;
        asker.send(frame(DATA, 0, head.stream, echoed))?;
        listens(asker, &head)
    });
    let edits = "request_headers = { set = { X-Env = \"prod\" } }\n\
                 response_headers = { set = { X-Edge = \"1\" } }\n";
    let proxy = proxy_to(&origin, edits);
    let mut client = proxy.client();
    client.send(ASK.replace("\r\n\r\n", "\r\nContent-Length: 0\r\nTE: trailers\r\n\r\n"));
    let answer = client.read_response();
    assert_eq!(answer.status, 101);
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("x-from", "endpoint"),
        ("x-edge", "1"),
        ("via", "2.0 corelane"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{answer:?}");
    }
    assert_eq!(client.read_exactly(PLAIN.len()), PLAIN, "what came with the 200");
    client.send(MASKED);
    assert_eq!(client.read_exactly(MASKED.len()), MASKED);
    let head = seen.recv_timeout(PATIENCE).unwrap();
    for (name, value) in [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/ws"),
        (":authority", "a"),
        ("sec-websocket-version", "13"),
        ("x-env", "prod"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(head.field(name), Some(value), "{head:?}");
    }
    for gone in ["connection", "upgrade", "host", "sec-websocket-key", "content-length"] {
        assert_eq!(head.field(gone), None, "{head:?}");
    }
    // Others share the connection, and its end is theirs alone.
    drop(client);
    normal_requests_are_served(&proxy);
    assert_eq!(origin.connections(), 1);
}

/// Gives back what comes, in every stream that becomes a tunnel.
const NODE: &str = "
const server = require('http2').createServer({ settings: { enableConnectProtocol: true } });
server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    stream.on('close', () => console.log('closed', stream.rstCode));
    stream.respond({ ':status': headers[':protocol'] === 'websocket' ? 200 : 404 });
    stream.pipe(stream);
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
";

#[test]
fn node_takes_websockets_in_streams() {
    if !is_installed("node", "nodejs") {
        return;
    }
    let mut node = Command::new(program("node"))
        .args(["-e", NODE])
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts");
    let mut lines = BufReader::new(node.stdout.take().expect("it is piped")).lines();
    let mut line = || lines.next().expect("it goes on").expect("as text");
    let port: u16 = line().parse().expect("it is a number");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let proxy = Proxy::start(&edge(&route("h2c", address, "")));
    let mut client = open(&proxy);
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at ^ (at >> 9)) as u8).collect();
    let message = [&[0x82, 127], &(bytes.len() as u64).to_be_bytes()[..], &bytes].concat();
    for piece in message.chunks(500_000) {
        client.send(piece);
        assert!(client.read_exactly(piece.len()) == piece);
    }
    client.half_close();
    assert_eq!(client.read_to_close(), b"");
    assert_eq!(line(), "closed 0");
    let (mut client, stream) = open_stream(&proxy);
    client.data(stream, 0, MASKED);
    assert_eq!(client.read_until(DATA).unwrap().payload, MASKED);
    client.send(reset(stream, CANCEL));
    assert_eq!(line(), format!("closed {CANCEL}"));
    let _ = node.kill();
    let _ = node.wait();
}

#[test]
fn each_side_may_end_its_half_while_the_other_goes_on() {
    let up = |_: &Proxy, mut client: RawClient| {
        client.send(MASKED);
        client.half_close();
        assert_eq!(client.read_to_close(), PLAIN);
    };
    let origin = endpoint(|asker, head| {
        let asked = asker.request()?;
        assert_eq!(asked.body, MASKED);
        asker.send(frame(DATA, END_STREAM, head.stream, PLAIN))
    });
    let proxy = proxy_to(&origin, LOG);
    up(&proxy, open(&proxy));
    let (mut client, stream) = open_stream(&proxy);
    client.data(stream, END_STREAM, MASKED);
    let answer = client.read_until(DATA).unwrap();
    assert_eq!(answer.payload, PLAIN);
    assert!(answer.has(END_STREAM) || client.read_until(DATA).unwrap().has(END_STREAM));
    for record in records(&proxy, 2) {
        assert_eq!(record.text("termination.by"), "none", "{record:?}");
        assert_eq!(record.text("tunnel.ended_by"), "client", "{record:?}");
    }

    let (told, tells) = mpsc::channel();
    let origin = endpoint(move |asker, head| {
        asker.send(frame(DATA, END_STREAM, head.stream, PLAIN))?;
        let _ = told.send(asker.request()?.body);
        Ok(())
    });
    let proxy = proxy_to(&origin, LOG);
    let mut client = open(&proxy);
    assert_eq!(client.read_to_close(), PLAIN);
    client.send(MASKED);
    client.half_close();
    assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), MASKED);
    assert_eq!(records(&proxy, 1)[0].text("tunnel.ended_by"), "upstream");
    normal_requests_are_served(&proxy);
}

#[test]
fn nothing_is_lost_and_little_is_held_when_an_endpoint_opens_no_window() {
    const LENGTH: usize = 40_000_000;
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = endpoint(move |asker, head| {
        opened.wait();
        let body = asker.request()?.body;
        assert!(body.len() == LENGTH && body.chunks(251).all(|part| part[0] == 0));
        asker.send(frame(DATA, END_STREAM, head.stream, PLAIN))
    });
    let proxy = proxy_to(&origin, "[timeouts]\nwrite = \"60s\"\n");
    let mut client = open(&proxy);
    let before = proxy.rss_kb();
    let all: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
    thread::scope(|scope| {
        let (mut writer, mut reader) = client.split();
        scope.spawn(move || {
            writer.write_all(&all).expect("it is taken in the end");
            writer.shutdown(Shutdown::Write).expect("the socket is open");
        });
        thread::sleep(Duration::from_millis(500)); // all buffers on the way are full by now
        let grown = proxy.rss_kb().saturating_sub(before);
        assert!(grown < 8 * 1024, "{grown} KiB");
        gate.open();
        let mut taken = Vec::new();
        reader.read_to_end(&mut taken).expect("it comes");
        assert_eq!(taken, PLAIN);
    });
}

#[test]
fn small_messages_for_a_client_that_does_not_read_end_nobody_elses_streams() {
    let count = 200_000;
    let origin = endpoint(move |asker, head| {
        for _ in 0..count / 1000 {
            asker.send(frame(DATA, 0, head.stream, PLAIN).repeat(1000))?;
        }
        Ok(())
    });
    let more = "pool = { max_connections = 1 }\nhttp2 = { initial_window_size = \"2MB\" }\n";
    let proxy = Proxy::start(&(edge(&route("h2c", origin.address(), "")) + more));
    let mut slow = Http2Client::connect(proxy.address("edge")).greet(&[(INITIAL_WINDOW_SIZE, 0)]);
    let stream = slow.begin(&Block::request("CONNECT", "/ws").field(":protocol", "websocket"));
    let head = slow.read_until(HEADERS).expect("it is answered");
    slow.decode(&head);
    for _ in 0..3 {
        normal_requests_are_served(&proxy);
    }
    slow.send(window_update(stream, 4 << 20));
    let mut got = 0;
    while got < count * PLAIN.len() {
        let data = slow.read_until(DATA).expect("all of it comes");
        got += data.payload.len();
        slow.send(window_update(0, data.payload.len() as u32));
    }
    assert_eq!(origin.connections(), 1, "all of them have shared it");
}

#[test]
fn a_connection_is_listed_by_all_that_its_streams_do() {
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = endpoint(move |asker, head| {
        listens(asker, &head)?;
        opened.wait();
        Ok(())
    });
    let own = "[[routes]]\nname = \"page\"\npaths = [\"/page\"]\nrespond = { body = \"hi\" }\n";
    let text = format!("{own}{}", route("h2c", origin.address(), ""));
    let proxy = Proxy::start(&edge(&(text + "pool = { max_connections = 1 }\n")));
    let is = |state| {
        let listed = Json::parse(proxy.admin_get("/admin/connections").text());
        listed.list("connections")[0].text("state") == state
    };
    let (mut client, tunnel) = open_stream(&proxy);
    assert!(is("tunnel"));
    assert_eq!(client.get("/page").text(), "hi");
    assert!(is("tunnel"), "it goes on when another stream ends");
    let waits = client.request(&Block::get("/waits"));
    client.data(tunnel, END_STREAM, []);
    assert!(eventually(|| is("serving")));
    assert_eq!(client.get("/page").text(), "hi");
    assert!(is("serving"), "one of two goes on");
    gate.open();
    assert_eq!(client.answer(waits).text(), "/waits");
    assert!(eventually(|| is("idle")));
}

#[test]
fn small_messages_for_endpoints_that_take_none_end_nobody_elses_streams() {
    // Each byte in a frame of its own.
    let said = |at| MASKED.map(|byte| frame(DATA, 0, at, [byte])).concat().repeat(400);
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[(ENABLE_CONNECT_PROTOCOL, 1), (INITIAL_WINDOW_SIZE, 0)])?;
        loop {
            let asked = asker.head()?;
            asker.send(headers(asked.stream, 0, &Block::pseudo(&[(":status", "200")])))?;
        }
    });
    let here = "[[routes]]\nname = \"here\"\npaths = [\"/here\"]\necho = true\n";
    let text = edge(&(here.to_owned() + &route("h2c", origin.address(), "")));
    let proxy = Proxy::start(&text);
    let mut client = Http2Client::open(proxy.address("edge"));
    let asks = Block::request("CONNECT", "/ws").field(":protocol", "websocket");
    let streams = [(); 6].map(|()| {
        let stream = client.begin(&asks);
        let head = client.read_until(HEADERS).expect("it is answered");
        client.decode(&head);
        stream
    });
    for _ in 0..3 {
        for &stream in &streams {
            client.send(said(stream));
        }
        assert_eq!(client.get("/here").status, 200);
    }
}

#[test]
fn a_connection_that_says_whom_it_is_for_carries_one_websocket_and_nothing_else() {
    let origin = endpoint(|asker, head| {
        asker.send(frame(DATA, 0, head.stream, PLAIN))?;
        listens(asker, &head)
    });
    let text = route("h2c", origin.address(), "") + "proxy_protocol = \"v1\"\n";
    let proxy = Proxy::start(&edge(&text));
    let mut clients = [open(&proxy), open(&proxy)];
    for client in &mut clients {
        assert_eq!(client.read_exactly(PLAIN.len()), PLAIN);
    }
    normal_requests_are_served(&proxy);
    assert_eq!(origin.connections(), 3);
}

// --- an endpoint that has a choice -----------------------------------------------------------

/// nginx, which speaks HTTP/2 and does not know such streams, before an endpoint that is not it.
fn choosing(pki: &Pki, behind: SocketAddr) -> Nginx {
    let directory = pki.path("").display().to_string();
    Nginx::start_with(
        "ssl http2",
        &format!(
            "ssl_certificate {directory}good.pem; ssl_certificate_key {directory}good.key;\n\
             location /version {{ return 200 $server_protocol; }}\n\
             location / {{ proxy_pass http://{behind}; proxy_http_version 1.1;\n\
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}"
        ),
    )
}

fn pki() -> Pki {
    let pki = Pki::new();
    pki.authority("ca");
    pki.sign("ca", "good", "/CN=good", "IP:127.0.0.1");
    pki
}

fn secure(pki: &Pki, protocol: &str, endpoint: SocketAddr, more: &str) -> String {
    let ca = pki.path("ca.pem").display().to_string();
    edge(&(route(protocol, endpoint, LOG) + &format!("tls = {{ ca = [\"{ca}\"] }}\n{more}")))
}

#[test]
fn where_an_endpoint_may_choose_and_knows_no_such_streams_it_is_asked_by_http1() {
    let Some(python) = python_with_websockets() else { return };
    let pki = pki();
    let server = WebsocketServer::http1(&python);
    let nginx = choosing(&pki, server.address);
    let proxy = Proxy::start(&secure(&pki, "auto", nginx.address(), ""));
    let url = format!("ws://{}", proxy.address("edge"));
    for _ in 0..2 {
        assert_eq!(proxy.client().get("/version").text(), "HTTP/2.0");
        assert_eq!(run_python(&python, WEBSOCKET_CLIENT, &[&url, ""]).trim(), "fine");
    }
    let (mut client, stream) = open_stream(&proxy);
    let came = client.read_until(DATA).unwrap();
    assert_eq!(&came.payload[2..], b"path /ws");
    client.send(reset(stream, CANCEL));
    assert_eq!(proxy.client().get("/version").text(), "HTTP/2.0");
    let opened = proxy.metric("tls_proxy_upstream_opened_total{cluster=\"app\"}");
    assert_eq!(opened, Some(8.0), "one for all requests, and one for each WebSocket");
}

#[test]
fn where_it_knows_them_it_is_asked_by_a_stream_under_tls_too() {
    let Some(python) = python_with_websockets() else { return };
    let pki = pki();
    let files = ["good.pem", "good.key"].map(|name| pki.path(name).display().to_string());
    let server = WebsocketServer::http2(&python, &[&files[0], &files[1]]);
    for protocol in ["auto", "h2"] {
        let proxy = Proxy::start(&secure(&pki, protocol, server.address, ""));
        let url = format!("ws://{}", proxy.address("edge"));
        assert_eq!(run_python(&python, WEBSOCKET_CLIENT, &[&url, ""]).trim(), "fine");
        let opened = proxy.metric("tls_proxy_upstream_opened_total{cluster=\"app\"}");
        assert_eq!(opened, Some(1.0));
    }
    let asked = server.all_said().into_iter().filter(|line| line.starts_with("asked"));
    for line in asked {
        assert!(line.contains("[\":scheme\", \"https\"]"), "{line}");
        assert!(!line.contains("sec-websocket-key"), "{line}");
    }
}

#[test]
fn at_the_maximum_a_shared_connection_makes_room_for_a_websocket_once_it_is_idle() {
    let pki = pki();
    let gate = Gate::new();
    let slow = Origin::start().on("GET /slow", Respond::text("slow").behind(&gate)).on(
        "GET /ws",
        Respond::text("").status("101 Switching Protocols").header("Upgrade", "websocket"),
    );
    let nginx = choosing(&pki, slow.address());
    let pool = "pool = { max_connections = 1, queue_timeout = \"20s\" }\n";
    let proxy = Proxy::start(&secure(&pki, "auto", nginx.address(), pool));
    assert_eq!(proxy.client().get("/version").text(), "HTTP/2.0");
    let mut waits = proxy.client();
    waits.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.wait_for_requests(1);
    let mut client = proxy.client();
    client.send(ASK);
    let waiting = || proxy.metric("tls_proxy_upstream_waiting{cluster=\"app\"}");
    assert!(eventually(|| waiting() == Some(1.0)), "{}", proxy.metrics());
    // Who can share a connection does not wait behind who cannot.
    assert_eq!(proxy.client().get("/version").text(), "HTTP/2.0");
    gate.open();
    assert_eq!(waits.read_response().text(), "slow");
    // Its key is not answered: that it was asked is what counts here.
    assert_eq!(client.read_response().status, 502);
    assert!(slow.requests().iter().any(|request| request.header("upgrade").is_some()));
    assert!(eventually(|| proxy.client().get("/version").text() == "HTTP/2.0"));
}

// --- what is refused -------------------------------------------------------------------------

#[test]
fn a_tunnel_to_a_page_of_ours_is_refused() {
    let origin = endpoint(|asker, head| listens(asker, &head));
    let own = "[[routes]]\nname = \"page\"\npaths = [\"/page\"]\nrespond = { body = \"hi\" }\n\
               [[routes]]\nname = \"away\"\npaths = [\"/away\"]\n\
               redirect = { location = \"/\" }\n\
               [[routes]]\nname = \"echo\"\npaths = [\"/echo\"]\necho = true\n";
    let text = edge(&format!("{own}{}", route("h2c", origin.address(), LOG)));
    let proxy = Proxy::start(&format!("health = {{ on_listeners = true }}\n{text}"));
    let mut client = Http2Client::open(proxy.address("edge"));
    for path in ["/health", "/health/liveness", "/page", "/away", "/echo"] {
        let block = Block::request("CONNECT", path).field(":protocol", "websocket");
        let stream = client.begin(&block.field("sec-websocket-version", "13"));
        assert_eq!(client.answer(stream).status, 405, "{path}");
    }
    assert_eq!((client.get("/health").status, client.get("/page").text()), (200, "hi"));
    assert!(records(&proxy, 7)[..5].iter().all(|record| record.number("status") == 405.0));
}

#[test]
fn an_endpoint_without_a_choice_that_knows_no_such_streams_is_to_blame() {
    let origin = Http2Origin::polite(&[]);
    let upgrades = format!("upgrades = [\"websocket\", \"tcp\"]\n{LOG}");
    let proxy = proxy_to(&origin, &upgrades);
    let mut client = proxy.client();
    client.send(ASK);
    let answer = client.read_response();
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("no WebSocket, or other upgrade, over HTTP/2"), "{answer:?}");
    assert_eq!(ended(&proxy), ("upstream".to_owned(), "upstream_no_tunnel".to_owned()));
    proxy.wait_for_log("no ENABLE_CONNECT_PROTOCOL");
    let mut client = Http2Client::open(proxy.address("edge"));
    let ask = |protocol| Block::request("CONNECT", "/ws").field(":protocol", protocol);
    for protocol in ["websocket", "tcp"] {
        let stream = client.begin(&ask(protocol));
        assert_eq!(client.answer(stream).status, 502, "{protocol}");
    }
    // What offers another protocol may be answered without it.
    let mut client = proxy.client();
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
    assert_eq!(client.read_response().text(), "/x");
    let asked = origin.asked();
    assert_eq!(asked.len(), 1, "nothing else has reached it: {asked:?}");
    assert_eq!((asked[0].field(":method"), asked[0].field("upgrade")), (Some("POST"), None));
    normal_requests_are_served(&proxy);
}

#[test]
fn another_endpoint_that_knows_them_is_asked_instead() {
    let mute = Http2Origin::polite(&[]);
    let knows = endpoint(|asker, head| {
        asker.send(frame(DATA, 0, head.stream, PLAIN))?;
        listens(asker, &head)
    });
    let two = format!("\" }}, {{ address = \"{}\" }}]", knows.address());
    let text = route("h2c", mute.address(), "").replace("\" }]", &two);
    let proxy = Proxy::start(&edge(&text));
    for _ in 0..6 {
        assert_eq!(open(&proxy).read_exactly(PLAIN.len()), PLAIN);
    }
    assert_eq!(mute.asked().len(), 0);
    normal_requests_are_served(&proxy);
}

#[test]
fn what_can_go_without_its_upgrade_does_so_whichever_endpoint_fails_last() {
    let mute = Http2Origin::polite(&[]);
    let more = "upgrades = [\"websocket\", \"tcp\"]\n";
    let two = "\" }, { address = \"127.0.0.1:1\" }]"; // that one refuses connections
    let proxy = Proxy::start(&edge(&route("h2c", mute.address(), more).replace("\" }]", two)));
    for _ in 0..6 {
        let mut client = proxy.client();
        client.send("GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
        let answer = client.read_response();
        assert_eq!((answer.status, answer.text()), (200, "/x"));
    }
    assert_eq!(mute.asked().len(), 6);
}

#[test]
fn other_protocols_pass_where_a_route_lists_them() {
    let origin = endpoint(|asker, head| {
        assert_eq!(head.field(":protocol"), Some("tcp"));
        let echoed = asker.until(DATA)?.payload;
        asker.send(frame(DATA, END_STREAM, head.stream, echoed))
    });
    let proxy = proxy_to(&origin, "upgrades = [\"tcp\"]");
    let mut client = proxy.client();
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: TCP\r\n\r\n");
    let answer = client.read_response();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("TCP")));
    assert_eq!(answer.header("sec-websocket-accept"), None);
    client.send("whatever");
    assert_eq!(client.read_to_close(), b"whatever");
}

#[test]
fn an_endpoint_that_declines_gives_an_ordinary_answer_and_its_stream_ends_well() {
    let (told, tells) = mpsc::channel();
    let origin = Http2Origin::start(move |asker| {
        asker.greet(&[(ENABLE_CONNECT_PROTOCOL, 1)])?;
        loop {
            let head = asker.head()?;
            let block = status("403").field("x-why", "no");
            asker.send(headers(head.stream, 0, &block))?;
            asker.send(frame(DATA, END_STREAM, head.stream, "not you"))?;
            let _ = told.send(asker.until(DATA)?);
        }
    });
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send(ASK);
    let answer = client.read_response();
    assert_eq!((answer.status, answer.text()), (403, "not you"));
    assert_eq!((answer.header("x-why"), answer.header("connection")), (Some("no"), Some("close")));
    let mut client = Http2Client::open(proxy.address("edge"));
    let stream = client.begin(&Block::request("CONNECT", "/ws").field(":protocol", "websocket"));
    let answer = client.answer(stream);
    assert_eq!((answer.status, answer.text()), (403, "not you"));
    for _ in 0..2 {
        let end = tells.recv_timeout(PATIENCE).unwrap();
        assert!(end.has(END_STREAM) && end.payload.is_empty(), "{end:?}");
    }
}

#[test]
fn an_answer_that_cannot_be_one_is_a_502() {
    let origin = Http2Origin::start(move |asker| {
        asker.greet(&[(ENABLE_CONNECT_PROTOCOL, 1)])?;
        loop {
            let head = asker.head()?;
            match head.path() {
                "/ws?ends" => asker.send(headers(head.stream, END_STREAM, &status("200")))?,
                "/ws?101" => asker.send(headers(head.stream, 0, &status("101")))?,
                _ => {
                    asker.answer(head.stream, "/ok")?;
                }
            }
        }
    });
    let proxy = proxy_to(&origin, LOG);
    for path in ["/ws?ends", "/ws?101"] {
        let mut client = proxy.client();
        client.send(ASK.replace("/ws", path));
        assert_eq!(client.read_response().status, 502, "{path}");
        let mut client = Http2Client::open(proxy.address("edge"));
        let ask = Block::request("CONNECT", path).field(":protocol", "websocket");
        let stream = client.begin(&ask);
        assert_eq!(client.answer(stream).status, 502, "{path}");
    }
    normal_requests_are_served(&proxy);
}

// --- how it ends -----------------------------------------------------------------------------

#[test]
fn resets_pass_both_ways_and_are_failures_of_who_has_sent_them() {
    let origin = endpoint(|asker, head| {
        asker.until(DATA)?;
        asker.send(reset(head.stream, CANCEL))
    });
    let proxy = proxy_to(&origin, LOG);
    let mut client = open(&proxy);
    client.send(MASKED);
    let (_, mut reader) = client.split();
    let cut = reader.read(&mut [0; 8]).expect_err("it must not look as if it had ended");
    assert_eq!(cut.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(ended(&proxy).0, "upstream");
    let (mut client, stream) = open_stream(&proxy);
    client.data(stream, 0, MASKED);
    assert_eq!(client.read_until(RST_STREAM).unwrap().stream, stream);
    normal_requests_are_served(&proxy);
    assert_eq!(origin.connections(), 1);

    let (told, tells) = mpsc::channel();
    let origin = endpoint(move |asker, head| {
        asker.until(DATA)?;
        asker.send(frame(DATA, 0, head.stream, PLAIN))?;
        let _ = told.send(asker.until(RST_STREAM)?.code());
        Ok(())
    });
    let proxy = proxy_to(&origin, LOG);
    let (mut client, stream) = open_stream(&proxy);
    client.data(stream, 0, MASKED);
    client.read_until(DATA).unwrap();
    client.send(reset(stream, CANCEL));
    assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), CANCEL);
    assert_eq!(ended(&proxy), ("client".to_owned(), "client_closed".to_owned()));
    let mut client = open(&proxy);
    client.send(MASKED);
    assert!(eventually(|| !client.is_quiet_for(Duration::from_millis(10))));
    client.close(); // with bytes that it has not read
    assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), CANCEL);
    normal_requests_are_served(&proxy);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_websocket_goes_on_when_its_endpoint_takes_no_more_on_the_connection() {
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = endpoint(move |asker, head| {
        asker.go_away(head.stream, NO_ERROR)?;
        opened.wait();
        asker.send(frame(DATA, END_STREAM, head.stream, PLAIN))
    });
    let proxy = proxy_to(&origin, LOG);
    let mut client = open(&proxy);
    normal_requests_are_served(&proxy);
    assert_eq!(origin.connections(), 2);
    gate.open();
    assert_eq!(client.read_to_close(), PLAIN);
}

/// What an endpoint of HTTP/1.1 does after its 101.
fn endpoint_http1(talk: impl Fn(TcpStream) + Send + Sync + 'static) -> Origin {
    const AGREE: &str = "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    Origin::connections(move |mut stream, _| {
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if !matches!(stream.read(&mut byte), Ok(1)) {
                return;
            }
            head.push(byte[0]);
        }
        let _ = stream.write_all(AGREE.as_bytes());
        talk(stream);
    })
}

#[test]
fn a_client_that_has_said_all_and_is_gone_is_noticed() {
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = endpoint_http1(move |mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
        let _ = stream.write_all(&PLAIN);
        opened.wait();
    });
    let proxy = Proxy::start(&edge(&route("h1", origin.address(), LOG)));
    let mut client = open(&proxy);
    client.half_close();
    assert!(eventually(|| !client.is_quiet_for(Duration::from_millis(10))));
    client.close(); // with bytes that it has not read
    assert_eq!(ended(&proxy), ("client".to_owned(), "client_closed".to_owned()));
    gate.open();

    let (told, tells) = mpsc::channel();
    let origin = endpoint(move |asker, _| {
        asker.request()?;
        let _ = told.send(0);
        let _ = told.send(asker.until(RST_STREAM)?.code());
        Ok(())
    });
    let proxy = proxy_to(&origin, LOG);
    let (mut client, stream) = open_stream(&proxy);
    client.data(stream, END_STREAM, MASKED);
    assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), 0);
    client.send(reset(stream, CANCEL));
    assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), CANCEL);
    assert_eq!(ended(&proxy), ("client".to_owned(), "client_closed".to_owned()));
    // And with its connection.
    let (mut client, stream) = open_stream(&proxy);
    client.data(stream, END_STREAM, MASKED);
    assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), 0);
    drop(client);
    assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), CANCEL);
    normal_requests_are_served(&proxy);
}

#[test]
fn an_endpoint_that_has_said_all_and_is_gone_is_noticed() {
    let origin = endpoint_http1(move |stream| {
        let _ = stream.shutdown(Shutdown::Write);
        // Closed with bytes that it has not read.
        while !matches!(stream.peek(&mut [0]), Ok(1)) {}
    });
    let proxy = Proxy::start(&edge(&route("h1", origin.address(), LOG)));
    let mut client = open(&proxy);
    assert_eq!(client.read_to_close(), b"");
    client.send(MASKED);
    assert_eq!(ended(&proxy), ("upstream".to_owned(), "upstream_reset".to_owned()));

    let origin = endpoint(move |asker, head| {
        asker.send(frame(DATA, END_STREAM, head.stream, PLAIN))?;
        asker.until(DATA)?;
        asker.send(reset(head.stream, CANCEL))
    });
    let proxy = proxy_to(&origin, LOG);
    let mut client = open(&proxy);
    assert_eq!(client.read_to_close(), PLAIN);
    client.send(MASKED);
    assert_eq!(ended(&proxy), ("upstream".to_owned(), "upstream_reset".to_owned()));
    normal_requests_are_served(&proxy);
}

/// A goodbye with 4001, as servers say it and as clients answer it.
const BYE: [u8; 4] = [0x88, 2, 0x0F, 0xA1];
const BYE_MASKED: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x0F, 0xA1];

/// What the proxy says in the tunnel until it ends it, and whether it does so by a reset.
fn said_to_its_end(asker: &mut Asker) -> io::Result<(Vec<u8>, bool)> {
    let mut said = Vec::new();
    loop {
        let frame = asker.read_frame()?;
        match frame.kind {
            RST_STREAM => return Ok((said, true)),
            DATA => said.extend_from_slice(&frame.payload),
            _ => {}
        }
        if frame.kind == DATA && frame.has(END_STREAM) {
            return Ok((said, false));
        }
    }
}

#[test]
fn an_endpoint_that_says_goodbye_first_hears_the_last_messages_the_answer_and_the_end() {
    let (told, tells) = mpsc::channel();
    let origin = endpoint(move |asker, head| {
        asker.send(frame(DATA, 0, head.stream, BYE))?;
        let _ = told.send(said_to_its_end(asker)?);
        // One that ends its half is done with, and one that does not is reset after a moment.
        if head.path().ends_with("?ends") {
            return asker.send(frame(DATA, END_STREAM, head.stream, []));
        }
        let _ = told.send(said_to_its_end(asker)?);
        Ok(())
    });
    let proxy = proxy_to(&origin, LOG);
    let last = [MASKED.repeat(2000), BYE_MASKED.to_vec()].concat();
    let mut client = proxy.client();
    client.send(ASK.replace("/ws", "/ws?ends"));
    assert_eq!(client.read_response().status, 101);
    assert_eq!(client.read_exactly(BYE.len()), BYE);
    client.send(&last);
    assert_eq!(client.read_to_close(), b"");
    let (said, is_reset) = tells.recv_timeout(PATIENCE).unwrap();
    assert!(said == last && !is_reset, "{} of {} bytes", said.len(), last.len());
    let (mut client, stream) = open_stream(&proxy);
    assert_eq!(client.read_until(DATA).unwrap().payload, BYE);
    let few = &last[MASKED.len() * 1990..];
    client.data(stream, 0, few);
    assert!(client.read_until(DATA).unwrap().has(END_STREAM));
    assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), (few.to_vec(), false));
    assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), (Vec::new(), true));
    for record in records(&proxy, 2) {
        assert_eq!(record.text("termination.by"), "none", "{record:?}");
        assert_eq!(record.text("tunnel.ended_by"), "upstream", "{record:?}");
        assert_eq!(record.number("tunnel.close_code"), 4001.0, "{record:?}");
    }
    normal_requests_are_served(&proxy);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn streams_that_are_silent_for_too_long_are_told_on_both_sides_and_closed() {
    let (told, tells) = mpsc::channel();
    let origin = endpoint(move |asker, _| {
        let _ = told.send(asker.until(DATA)?.payload);
        assert!(asker.until(DATA)?.has(END_STREAM), "the client is gone");
        let end = asker.read_frame()?;
        assert_eq!((end.kind, end.code()), (RST_STREAM, CANCEL), "it has not answered");
        let _ = told.send(Vec::new());
        Ok(())
    });
    let proxy = proxy_to(&origin, &format!("websocket = {{ idle_timeout = \"1s\" }}\n{LOG}"));
    let (mut client, stream) = open_stream(&proxy);
    assert_eq!(client.read_until(DATA).unwrap().payload, GOING_AWAY);
    assert!(client.read_until(DATA).unwrap().has(END_STREAM));
    client.send(reset(stream, NO_ERROR));
    let close = tells.recv_timeout(PATIENCE).unwrap();
    assert_eq!((close[0], close[1], close.len()), (0x88, 0x82, 8), "masked: {close:?}");
    assert_eq!(tells.recv_timeout(PATIENCE), Ok(Vec::new()));
    assert_eq!(ended(&proxy), ("client".to_owned(), "idle_timeout".to_owned()));
    assert_eq!(records(&proxy, 1)[0].number("tunnel.close_code"), 1001.0);
    normal_requests_are_served(&proxy);
}

#[test]
fn a_client_in_a_stream_is_pinged_when_its_route_says_so() {
    let origin = endpoint(|asker, head| listens(asker, &head));
    let proxy = proxy_to(&origin, "websocket = { ping_interval = \"1s\" }");
    assert_eq!(open(&proxy).read_exactly(10), b"\x89\x08corelane");
    let (mut client, _) = open_stream(&proxy);
    assert_eq!(client.read_until(DATA).unwrap().payload, b"\x89\x08corelane");
    assert_eq!(client.read_until(DATA).unwrap().payload, b"\x89\x08corelane");
}

#[test]
fn streams_are_told_1001_when_a_drain_ends() {
    let Some(python) = python_with_websockets() else { return };
    let endpoints =
        [("h1", WebsocketServer::http1(&python)), ("h2c", WebsocketServer::http2(&python, &[]))];
    for (protocol, server) in &endpoints {
        let text = edge(&route(protocol, server.address, LOG));
        let mut proxy = Proxy::start(&format!("drain_timeout = \"1s\"\n{text}"));
        let (mut client, stream) = open_stream(&proxy);
        assert!(client.read_until(DATA).unwrap().payload.ends_with(b"path /ws"));
        let mut other = open(&proxy);
        proxy.signal("TERM");
        proxy.wait_for_log("draining");
        assert_eq!(client.read_until(DATA).unwrap().payload, GOING_AWAY, "{protocol}");
        client.data(stream, 0, CLOSE_MASKED);
        let end = client.read_until(DATA).unwrap();
        assert!(end.has(END_STREAM) && end.payload.is_empty(), "{end:?}");
        let said = other.read_exactly(10 + GOING_AWAY.len());
        assert!(said.ends_with(&GOING_AWAY), "{protocol}: {said:?}");
        other.send(CLOSE_MASKED);
        assert_eq!(other.read_to_close(), b"");
        assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0));
        for record in records(&proxy, 2) {
            assert_eq!(record.text("termination.reason"), "draining", "{record:?}");
            assert_eq!(record.text("tunnel.ended_by"), "proxy", "{record:?}");
            assert_eq!(record.number("tunnel.close_code"), 1001.0, "{record:?}");
        }
    }
    let closed =
        || endpoints[1].1.all_said().iter().filter(|said| *said == "closed /ws 1001").count();
    assert!(eventually(|| closed() == 2), "{:?}", endpoints[1].1.all_said());
}

#[test]
fn streams_are_told_when_their_configuration_is_retired() {
    let Some(python) = python_with_websockets() else { return };
    let endpoints =
        [("h1", WebsocketServer::http1(&python)), ("h2c", WebsocketServer::http2(&python, &[]))];
    for (protocol, server) in &endpoints {
        let text = edge(&route(protocol, server.address, LOG));
        let proxy = Proxy::start(&format!("hot_reload = {{ max_age = \"1s\" }}\n{text}"));
        let (port, pid) = (proxy.port("edge").to_string(), proxy.pid().to_string());
        let config = proxy.directory().join("corelane.toml").display().to_string();
        let said = run_python(&python, HTTP2_CLIENT, &[&port, "retire", &pid, &config]);
        assert_eq!(said.trim(), "ended");
        let record = &records(&proxy, 1)[0];
        assert_eq!(record.text("termination.reason"), "generation_retired");
        assert_eq!(record.number("tunnel.close_code"), 1001.0);
    }
}

/// What ends them, and what the log calls it.
const ENDS: [(&str, &str); 2] = [("draining", "TERM"), ("generation_retired", "HUP")];

fn end_by(proxy: &Proxy, text: &str, signal: &str) {
    if signal == "HUP" {
        proxy.rewrite_config(&text.replace("\"all\"", "\"others\""));
    }
    proxy.signal(signal);
}

#[test]
fn a_tunnel_with_one_end_in_a_stream_that_takes_nothing_is_told_on_the_other() {
    const TIMES: &str = "drain_timeout = \"1s\"\nhot_reload = { max_age = \"1s\" }\n";
    let shut = Http2Origin::start(|asker| {
        asker.greet(&[(ENABLE_CONNECT_PROTOCOL, 1), (INITIAL_WINDOW_SIZE, 0)])?;
        let head = asker.head()?;
        asker.send(headers(head.stream, 0, &status("200")))?;
        asker.until(RST_STREAM).map(|_| ())
    });
    for (reason, signal) in ENDS {
        let text = TIMES.to_owned() + &edge(&route("h2c", shut.address(), LOG));
        let proxy = Proxy::start(&text);
        let mut client = open(&proxy);
        let before = proxy.metric("tls_proxy_bytes_in_total");
        client.send(MASKED);
        assert!(eventually(|| proxy.metric("tls_proxy_bytes_in_total") != before));
        end_by(&proxy, &text, signal);
        assert_eq!(client.read_exactly(GOING_AWAY.len()), GOING_AWAY, "{reason}");
        assert_eq!(records(&proxy, 1)[0].text("termination.reason"), reason);
    }

    let Some(python) = python_with_websockets() else { return };
    let talkative = WebsocketServer::http1(&python);
    for (reason, signal) in ENDS {
        let text = TIMES.to_owned() + &edge(&route("h1", talkative.address, LOG));
        let proxy = Proxy::start(&text);
        let shut = Http2Client::connect(proxy.address("edge"));
        let mut client = shut.greet(&[(INITIAL_WINDOW_SIZE, 0)]);
        let path = format!("/ws?{reason}");
        let block = Block::request("CONNECT", &path).field(":protocol", "websocket");
        let block = block.field("sec-websocket-version", "13");
        client.begin(&block.field("sec-websocket-protocol", "chat"));
        let head = client.read_until(HEADERS).expect("it is answered");
        assert_eq!(client.decode(&head)[0], (":status".to_owned(), "200".to_owned()));
        end_by(&proxy, &text, signal);
        assert!(talkative.says(&format!("closed {path} 1001")), "{:?}", talkative.all_said());
        assert_eq!(records(&proxy, 1)[0].text("termination.reason"), reason);
    }
}
