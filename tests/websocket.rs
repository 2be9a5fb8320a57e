//! WebSocket and other protocols of `Upgrade` over HTTP/1.1: what passes, what is refused, and how
//! it ends. Clients and endpoints that send exact bytes, then those that others have written.

mod support;

use std::io::{Read as _, Write as _};
use std::iter;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use support::{
    Gate, Json, Origin, PATIENCE, Pki, Proxy, RawClient, Respond, SecureClient, TempDir,
    WEBSOCKET_CLIENT, WebsocketServer, edge, eventually, is_installed, program, python,
    python_with_websockets, run_python,
};

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Protocol: chat\r\n\
                     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What a server says when it goes away, and the same from a client with this mask.
const GOING_AWAY: [u8; 4] = [0x88, 2, 3, 0xE9];

fn route(origin: SocketAddr, more: &str) -> String {
    format!(
        "[[routes]]\nname = \"all\"\ncluster = \"app\"\n{more}\n\
         [clusters.app]\nendpoints = [{{ address = \"{origin}\" }}]\n"
    )
}

fn proxy_to(origin: &Origin, more: &str) -> Proxy {
    Proxy::start(&edge(&route(origin.address(), more)))
}

/// An endpoint that agrees to every WebSocket, which `talk` has then, and answers all else with ok.
fn endpoint(talk: impl Fn(TcpStream, String) + Send + Sync + 'static) -> Origin {
    answering(AGREE, talk)
}

fn answering(
    agree: &'static str,
    talk: impl Fn(TcpStream, String) + Send + Sync + 'static,
) -> Origin {
    Origin::connections(move |mut stream, _| {
        let _ = stream.set_read_timeout(Some(PATIENCE));
        while let Some(head) = read_head(&mut stream) {
            let asks = head.to_ascii_lowercase().contains("\r\nupgrade:");
            let answer = if asks { agree } else { OK };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
            if asks {
                return talk(stream, head);
            }
        }
    })
}

/// `None`: it has ended.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return None;
        }
        head.extend_from_slice(&byte);
    }
    Some(String::from_utf8(head).expect("these tests send ASCII"))
}

/// Gives back what comes, until the end.
fn echo(mut stream: TcpStream, _: String) {
    let mut room = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut room) {
        if stream.write_all(&room[..count]).is_err() {
            return;
        }
    }
}

fn read_all(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes); // a reset is an end as well
    bytes
}

/// A client whose WebSocket is there.
fn open(proxy: &Proxy) -> RawClient {
    let mut client = proxy.client();
    client.send(ASK);
    assert_eq!(client.read_response().status, 101);
    client
}

fn says_back(client: &mut RawClient, bytes: &[u8]) {
    client.send(bytes);
    assert_eq!(client.read_exactly(bytes.len()), bytes);
}

/// "hi", as clients and servers send it.
const MASKED: [u8; 8] = [0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
const PLAIN: [u8; 4] = [0x81, 2, b'h', b'i'];

fn normal_requests_are_served(proxy: &Proxy) {
    let response = proxy.client().get("/ok");
    assert_eq!((response.status, response.text()), (200, "ok"));
}

fn records(proxy: &Proxy, count: usize) -> Vec<Json> {
    let path = proxy.directory().join("access.log");
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    assert!(eventually(|| read().lines().count() >= count), "{count} lines: {}", read());
    read().lines().map(Json::parse).collect()
}

const LOG: &str = "[logging.access]\npath = \"access.log\"\n";

// --- what passes -----------------------------------------------------------------------------

#[test]
fn the_endpoint_is_asked_as_the_client_has_asked_and_its_answer_passes() {
    let (heads, seen) = mpsc::channel();
    let origin = endpoint(move |stream, head| {
        let _ = heads.send(head);
        echo(stream, String::new());
    });
    let edits = "request_headers = { set = { X-Env = \"prod\" } }\n\
                 response_headers = { set = { X-Edge = \"1\" } }\n";
    let proxy = proxy_to(&origin, edits);
    let mut client = proxy.client();
    client.send(ASK);
    let answer = client.read_response();
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("connection"), Some("Upgrade"));
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(answer.header("sec-websocket-protocol"), Some("chat"));
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.header("x-edge"), Some("1"));
    assert_eq!(answer.header("via"), Some("1.1 corelane"));
    says_back(&mut client, &MASKED);
    let head = seen.recv_timeout(PATIENCE).unwrap();
    for line in [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "X-Env: prod",
        "X-Forwarded-For: 127.0.0.1",
    ] {
        assert_eq!(head.split("\r\n").filter(|found| *found == line).count(), 1, "{line}\n{head}");
    }
    assert_eq!(head.to_ascii_lowercase().matches("connection:").count(), 1, "{head}");
    normal_requests_are_served(&proxy);
}

#[test]
fn each_side_may_end_its_half_while_the_other_goes_on() {
    let origin = endpoint(|mut stream, _| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("the client ends its half, no more");
        assert_eq!(bytes, MASKED);
        let _ = stream.write_all(&PLAIN);
    });
    let proxy = proxy_to(&origin, "");
    let mut client = open(&proxy);
    client.send(MASKED);
    client.half_close();
    assert_eq!(client.read_to_close(), PLAIN);

    let (told, tells) = mpsc::channel();
    let origin = endpoint(move |mut stream, _| {
        let _ = stream.write_all(&PLAIN);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = told.send(read_all(stream));
    });
    let proxy = proxy_to(&origin, "");
    let mut client = open(&proxy);
    assert_eq!(client.read_to_close(), PLAIN);
    client.send(MASKED);
    client.half_close();
    assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), MASKED);
    normal_requests_are_served(&proxy);
}

#[test]
fn what_the_endpoint_says_with_its_101_and_the_client_behind_its_request_arrives() {
    let origin = Origin::connections(|mut stream, _| {
        read_head(&mut stream);
        let _ = stream.write_all(&[AGREE.as_bytes(), &PLAIN].concat());
        echo(stream, String::new());
    });
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send([ASK.as_bytes(), &MASKED].concat());
    assert_eq!(client.read_response().status, 101);
    assert_eq!(client.read_exactly(PLAIN.len()), PLAIN);
    assert_eq!(client.read_exactly(MASKED.len()), MASKED);
}

/// A binary message of a server.
fn long_frame(bytes: usize) -> Vec<u8> {
    let mut frame = vec![0x82, 127];
    frame.extend_from_slice(&(bytes as u64).to_be_bytes());
    frame.extend((0..bytes).map(|at| (at ^ (at >> 8)) as u8));
    frame
}

#[test]
fn messages_of_any_length_pass_whole_plain_and_under_tls() {
    let origin = endpoint(echo);
    let pki = Pki::new();
    pki.authority("ca");
    pki.sign("ca", "www", "/CN=www", "DNS:www.example");
    let tls = format!(
        "[[listeners]]\nname = \"secure\"\nbind = \"127.0.0.1:0\"\ntls = {{ certificates = \
         [{{ cert = \"{0}/www.pem\", key = \"{0}/www.key\" }}] }}\n",
        pki.path("").display()
    );
    let proxy = Proxy::start(&edge(&(tls + &route(origin.address(), ""))));
    let mut client = open(&proxy);
    let authority = pki.path("ca.pem");
    let mut secure = SecureClient::connect(proxy.address("secure"), "www.example", &authority);
    secure.send(ASK);
    assert_eq!(secure.read_response().status, 101);
    for length in [1, 60_000, 300_000, 5_000_000] {
        // Small ones before and behind.
        let bytes = [&PLAIN[..], &long_frame(length), &PLAIN].concat();
        let mut taken = vec![0; bytes.len()];
        thread::scope(|scope| {
            scope.spawn(|| says_back_while_sending(&mut client, &bytes));
            for (piece, room) in bytes.chunks(30_000).zip(taken.chunks_mut(30_000)) {
                secure.send(piece);
                secure.stream.read_exact(room).expect("it comes back");
            }
        });
        assert!(taken == bytes, "{length}");
    }
}

/// More than the buffers on its way hold.
fn says_back_while_sending(client: &mut RawClient, bytes: &[u8]) {
    for piece in bytes.chunks(500_000) {
        client.send(piece);
        assert!(client.read_exactly(piece.len()) == piece);
    }
}

#[test]
fn nothing_is_lost_and_little_is_held_when_nobody_reads() {
    const MESSAGES: usize = 400;
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = endpoint(move |stream, _| {
        opened.wait();
        echo(stream, String::new());
    });
    let proxy = proxy_to(&origin, "[timeouts]\nwrite = \"60s\"\n");
    let mut client = open(&proxy);
    let before = proxy.rss_kb();
    let frame = long_frame(200_000);
    let all = frame.repeat(MESSAGES);
    thread::scope(|scope| {
        let (mut writer, mut reader) = client.split();
        scope.spawn(move || writer.write_all(&all).expect("it is taken in the end"));
        thread::sleep(Duration::from_millis(500)); // all buffers on the way are full by now
        let grown = proxy.rss_kb().saturating_sub(before);
        assert!(grown < 8 * 1024, "{grown} KiB");
        gate.open();
        let mut taken = vec![0; frame.len()];
        for _ in 0..MESSAGES {
            reader.read_exact(&mut taken).expect("it comes back");
            assert!(taken == frame);
        }
    });
}

#[test]
fn other_protocols_pass_where_a_route_lists_them() {
    const ASK_TCP: &str = "POST /attach HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\
                           Connection: Upgrade\r\nUpgrade: TCP\r\n\r\n";
    let agree = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    let origin = answering(agree, echo);
    let proxy = proxy_to(&origin, "upgrades = [\"tcp\"]");
    let mut client = proxy.client();
    client.send(ASK_TCP);
    let answer = client.read_response();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("TCP")));
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n ^ (n >> 9)) as u8).collect();
    says_back_while_sending(&mut client, &bytes);
    client.half_close();
    assert_eq!(client.read_to_close(), b"");
    let page = proxy.metrics();
    assert!(page.contains("tls_proxy_tunnels_total{protocol=\"other\"} 1"), "{page}");
    // WebSocket is not listed there.
    let mut client = proxy.client();
    client.send(ASK);
    assert_eq!(client.read_response().status, 200);

    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send(ASK_TCP);
    assert_eq!(client.read_response().status, 200, "asked without Upgrade");
    normal_requests_are_served(&proxy);
}

// --- what is refused -------------------------------------------------------------------------

#[test]
fn a_101_that_was_not_asked_for_or_is_for_something_else_is_a_502() {
    const WRONG: [&str; 7] = [
        "HTTP/1.1 101 X\r\n\r\n",
        "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: AAAALMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        "HTTP/1.1 101 X\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: close\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n12345",
    ];
    for wrong in WRONG {
        let origin = answering(wrong, echo);
        let proxy = proxy_to(&origin, "upgrades = [\"websocket\", \"tcp\"]");
        let mut client = proxy.client();
        client.send([ASK.as_bytes(), b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
        let answer = client.read_response();
        assert_eq!(answer.status, 502, "{wrong}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(client.read_to_close(), b"", "{wrong}");
        normal_requests_are_served(&proxy);
    }
    // To a request that asked for nothing.
    let origin = Origin::connections(|mut stream, _| {
        while let Some(head) = read_head(&mut stream) {
            let answer = if head.starts_with("GET /ok") { OK } else { AGREE };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let proxy = proxy_to(&origin, "");
    assert_eq!(proxy.client().get("/").status, 502);
    normal_requests_are_served(&proxy);
}

#[test]
fn what_is_no_request_for_a_websocket_is_forwarded_without_its_upgrade() {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let ask = |line: &str, lines: &str| {
        format!("{line}\r\nHost: a\r\nConnection: Upgrade\r\n{key}{lines}\r\n")
    };
    let get = "GET /ok HTTP/1.1";
    let origin =
        Origin::start().on("GET /ok", Respond::text("ok")).on("POST /ok", Respond::text("ok"));
    let proxy = proxy_to(&origin, "");
    let cases = [
        ask("GET /ok HTTP/1.0", "Upgrade: websocket\r\n"),
        ask("POST /ok HTTP/1.1", "Upgrade: websocket\r\nContent-Length: 0\r\n"),
        ask(get, "Upgrade: websocket\r\nContent-Length: 2\r\n") + "no",
        ask(get, "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"),
        ask(get, "Upgrade: h2c\r\nUpgrade: h2\r\n"),
        ask(get, "Upgrade: tcp\r\n"),
        ask(get, &format!("Upgrade: websocket\r\n{key}")),
        ask(get, "Upgrade: websocket\r\n").replace("Connection: Upgrade", "Connection: close"),
        ask(get, "Upgrade: websocket\r\n").replace("Sec-WebSocket-Key", "X-Key"),
    ];
    for case in &cases {
        let mut client = proxy.client();
        client.send(case);
        let answer = client.read_response();
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{case}");
    }
    let requests = origin.wait_for_requests(cases.len());
    for request in requests {
        assert!(request.headers("upgrade").is_empty(), "{}", request.head);
        let head = request.head.to_ascii_lowercase();
        assert!(!head.contains("connection: upgrade"), "{}", request.head);
    }
    normal_requests_are_served(&proxy);
}

#[test]
fn of_several_offers_the_endpoint_hears_the_one_that_is_allowed() {
    let (heads, seen) = mpsc::channel();
    let origin = endpoint(move |stream, head| {
        let _ = heads.send(head);
        echo(stream, String::new());
    });
    let proxy = proxy_to(&origin, "");
    for offers in ["Upgrade: h2c, WebSocket", "Upgrade: h2c\r\nUpgrade: WebSocket"] {
        let mut client = proxy.client();
        client.send(ASK.replace("Upgrade: websocket", offers));
        assert_eq!(client.read_response().header("upgrade"), Some("WebSocket"));
        says_back(&mut client, &MASKED);
        let head = seen.recv_timeout(PATIENCE).unwrap();
        assert_eq!(head.matches("Upgrade: ").count(), 1, "{head}");
        assert!(head.contains("\r\nUpgrade: WebSocket\r\n"), "{head}");
    }
    normal_requests_are_served(&proxy);
}

#[test]
fn what_a_client_sends_before_the_101_reaches_nobody_before_it_and_is_never_a_request() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let (told, tells) = mpsc::channel();
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = Origin::connections(move |mut stream, _| {
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let Some(head) = read_head(&mut stream) else { return };
        if !head.starts_with("GET /ws") {
            let _ = told.send(head);
            let _ = stream.write_all(OK.as_bytes());
            return;
        }
        opened.wait();
        let _ = stream.set_nonblocking(true);
        let early = stream.read(&mut [0; 100]).map_or(0, |count| count);
        let _ = stream.set_nonblocking(false);
        let _ = told.send(format!("{early} bytes early"));
        let answer = if head.starts_with("GET /ws?no") {
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
        } else {
            AGREE
        };
        let _ = stream.write_all(answer.as_bytes());
        let mut rest = vec![0; smuggled_length()];
        if answer == AGREE && stream.read_exact(&mut rest).is_ok() {
            let _ = told.send(String::from_utf8_lossy(&rest).into_owned());
        }
    });
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send([ASK, smuggled].concat());
    let mut declined = proxy.client();
    declined.send([&ASK.replace("/ws", "/ws?no"), smuggled].concat());
    assert!(client.is_quiet_for(Duration::from_millis(300)));
    gate.open();
    assert_eq!(client.read_response().status, 101);
    let refused = declined.read_response();
    assert_eq!((refused.status, refused.header("connection")), (403, Some("close")));
    assert_eq!(declined.read_to_close(), b"");
    let mut seen: Vec<String> = (0..3).map(|_| tells.recv_timeout(PATIENCE).unwrap()).collect();
    seen.sort();
    assert_eq!(seen, ["0 bytes early", "0 bytes early", smuggled]);
    normal_requests_are_served(&proxy);
    let last = tells.recv_timeout(PATIENCE).unwrap();
    assert!(last.starts_with("GET /ok"), "{last}");
}

const fn smuggled_length() -> usize {
    "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".len()
}

#[test]
fn an_endpoint_that_declines_gives_an_ordinary_answer() {
    let origin = Origin::start().on("GET /ws", Respond::text("no").status("426 Upgrade Required"));
    let proxy = proxy_to(&origin, LOG);
    let mut client = proxy.client();
    client.send(ASK);
    let answer = client.read_response();
    assert_eq!((answer.status, answer.text()), (426, "no"));
    assert_eq!(client.read_to_close(), b"");
    let page = proxy.metrics();
    assert!(page.contains("tls_proxy_tunnels_total{protocol=\"websocket\"} 0"), "{page}");
}

#[test]
fn protocols_that_would_hide_requests_are_refused_by_check() {
    for (list, said) in [
        ("\"h2c\"", "`h2c` is never forwarded"),
        ("\"websocket\", \"HTTP/2.0\"", "`HTTP/2.0` is never forwarded"),
        ("\"TLS/1.0\"", "`TLS/1.0` is never forwarded"),
        ("\"a b\"", "cannot be the name of a protocol"),
    ] {
        let text = edge(&route("127.0.0.1:1".parse().unwrap(), &format!("upgrades = [{list}]")));
        let directory = TempDir::new();
        let file = directory.write("corelane.toml", &text).display().to_string();
        let output = Proxy::command(&["check", &file]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(said) && errors.contains("routes[0].upgrades["), "{errors}");
    }
}

// --- time ------------------------------------------------------------------------------------

#[test]
fn neither_the_time_of_its_route_nor_that_of_bodies_cuts_it() {
    let origin = endpoint(echo);
    let times = "timeout = \"1s\"\n[timeouts]\nread = \"1s\"\nidle = \"1s\"\nheader = \"1s\"\n";
    let cluster = "timeouts = { read = \"1s\", first_byte = \"1s\" }\n";
    let proxy = Proxy::start(&edge(&(route(origin.address(), times) + cluster)));
    let mut client = open(&proxy);
    says_back(&mut client, &MASKED);
    assert!(client.is_quiet_for(Duration::from_millis(2500)));
    says_back(&mut client, &MASKED);
}

#[test]
fn a_websocket_that_is_silent_for_too_long_is_told_on_both_sides_and_closed() {
    let (told, tells) = mpsc::channel();
    let origin = endpoint(move |stream, _| drop(told.send(read_all(stream))));
    let rules = format!("websocket = {{ idle_timeout = \"1s\" }}\n{LOG}");
    let proxy = proxy_to(&origin, &rules);
    let mut client = open(&proxy);
    client.send(MASKED);
    assert_eq!(client.read_to_close(), GOING_AWAY);
    let bytes = tells.recv_timeout(PATIENCE).unwrap();
    let close = bytes.strip_prefix(&MASKED).expect("what was sent has come");
    assert_eq!(unmasked(close), GOING_AWAY);
    let record = &records(&proxy, 1)[0];
    assert_eq!(record.number("status"), 101.0);
    assert_eq!(record.text("termination.reason"), "idle_timeout");
    assert_eq!(record.text("tunnel.ended_by"), "proxy");
    assert_eq!(record.number("tunnel.close_code"), 1001.0);
    normal_requests_are_served(&proxy);
}

/// A short frame of a client, as a server would send it.
fn unmasked(frame: &[u8]) -> Vec<u8> {
    let [first, length, a, b, c, d, payload @ ..] = frame else { panic!("{frame:?}") };
    assert!(length & 0x80 != 0, "a frame to a server is masked: {frame:?}");
    let payload =
        payload.iter().zip([a, b, c, d].into_iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [*first, length & 0x7F].into_iter().chain(payload).collect()
}

#[test]
fn either_side_keeps_it_open() {
    let origin = endpoint(|mut stream, _| {
        for _ in 0..16 {
            if stream.write_all(&PLAIN).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(250));
        }
        echo(stream, String::new());
    });
    let proxy = proxy_to(&origin, "websocket = { idle_timeout = \"3s\" }");
    let mut client = open(&proxy);
    for _ in 0..16 {
        assert_eq!(client.read_exactly(PLAIN.len()), PLAIN);
    }
    for _ in 0..16 {
        says_back(&mut client, &MASKED);
        thread::sleep(Duration::from_millis(250));
    }
    assert_eq!(client.read_to_close(), GOING_AWAY);
}

const PING: [u8; 10] = *b"\x89\x08corelane";
const PONG: [u8; 14] = *b"\x8a\x88\0\0\0\0corelane";

/// What comes next, but for pings, which come whenever the client is silent for a while.
fn read_after_pings(client: &mut RawClient, count: usize) -> Vec<u8> {
    let mut first = client.read_exactly(1);
    while first == PING[..1] {
        assert_eq!(client.read_exactly(PING.len() - 1), PING[1..]);
        first = client.read_exactly(1);
    }
    [first, client.read_exactly(count - 1)].concat()
}

#[test]
fn a_silent_client_is_pinged_between_two_frames_and_its_pong_passes() {
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = endpoint(move |mut stream, _| {
        let mut pong = [0; 14];
        stream.read_exact(&mut pong).expect("the pong passes");
        assert_eq!(pong, PONG);
        let _ = stream.write_all(&PLAIN[..3]);
        opened.wait();
        let _ = stream.write_all(&PLAIN[3..]);
        echo(stream, String::new());
    });
    let proxy = proxy_to(&origin, "websocket = { ping_interval = \"1s\", idle_timeout = \"60s\" }");
    let mut client = open(&proxy);
    assert_eq!(client.read_exactly(PING.len()), PING);
    client.send(PONG);
    assert_eq!(read_after_pings(&mut client, 3), PLAIN[..3]);
    assert!(client.is_quiet_for(Duration::from_millis(2200)), "a ping within a frame");
    gate.open();
    assert_eq!(client.read_exactly(1), PLAIN[3..]);
    assert_eq!(client.read_exactly(PING.len()), PING);
    client.send(MASKED);
    assert_eq!(read_after_pings(&mut client, MASKED.len()), MASKED);
}

// --- how it ends -----------------------------------------------------------------------------

/// 1000, as clients and servers send it.
const BYE_MASKED: [u8; 8] = [0x88, 0x82, 1, 2, 3, 4, 3 ^ 1, 0xE8 ^ 2];
const BYE: [u8; 4] = [0x88, 2, 3, 0xE8];

#[test]
fn both_goodbyes_end_it_and_the_log_says_who_said_the_first() {
    let origin = endpoint(|mut stream, _| {
        let mut bye = [0; 8];
        stream.read_exact(&mut bye).expect("the goodbye passes");
        let _ = stream.write_all(&BYE);
        assert!(read_all(stream).is_empty());
    });
    let proxy = proxy_to(&origin, LOG);
    let mut client = open(&proxy);
    assert_eq!(metric(&proxy, "tls_proxy_tunnels_active{protocol=\"websocket\"}"), 1.0);
    client.send(BYE_MASKED);
    assert_eq!(client.read_to_close(), BYE);
    let record = &records(&proxy, 1)[0];
    assert_eq!(record.number("status"), 101.0);
    assert_eq!(record.text("termination.by"), "none");
    assert_eq!(record.text("tunnel.protocol"), "websocket");
    assert_eq!(record.text("tunnel.ended_by"), "client");
    assert_eq!(record.number("tunnel.close_code"), 1000.0);
    assert_eq!(metric(&proxy, "tls_proxy_tunnels_active{protocol=\"websocket\"}"), 0.0);
    assert_eq!(metric(&proxy, "tls_proxy_tunnels_total{protocol=\"websocket\"}"), 1.0);
}

fn metric(proxy: &Proxy, series: &str) -> f64 {
    proxy.metric(series).unwrap_or_else(|| panic!("no {series}"))
}

#[test]
fn its_bytes_are_counted_while_it_is_open_and_its_connection_is_listed_as_a_tunnel() {
    let origin = endpoint(echo);
    let proxy = proxy_to(&origin, LOG);
    let mut client = open(&proxy);
    let message = long_frame(100_000);
    says_back(&mut client, &message);
    let total = |name: &str| metric(&proxy, name);
    assert!(eventually(|| total("tls_proxy_bytes_out_total") > 100_000.0));
    assert!(total("tls_proxy_route_bytes_in_total{route=\"all\"}") > 100_000.0);
    let listed = proxy.admin_get("/admin/connections");
    let listed = Json::parse(listed.text());
    let one = &listed.list("connections")[0];
    assert_eq!(one.text("state"), "tunnel");
    assert!(one.number("received_bytes") > 100_000.0 && one.number("sent_bytes") > 100_000.0);
    client.half_close();
    assert_eq!(client.read_to_close(), b"");
    let record = &records(&proxy, 1)[0];
    let (received, sent) = (record.number("bytes_received"), record.number("bytes_sent"));
    assert!((100_000.0..101_000.0).contains(&received), "{received}");
    assert!((100_000.0..101_000.0).contains(&sent), "{sent}");
    assert_eq!(record.text("termination.by"), "none");
    assert_eq!(record.text("tunnel.ended_by"), "client");
    assert!(eventually(|| total("tls_proxy_bytes_in_total") == received));
    assert!(eventually(|| total("tls_proxy_bytes_out_total") == sent));
    // It says how long the 101 took, not how long the WebSocket lasted.
    assert!(total("tls_proxy_route_request_duration_seconds_sum{route=\"all\"}") < 5.0);
}

#[test]
fn the_connection_to_the_endpoint_is_never_used_again() {
    let origin = endpoint(|mut stream, _| {
        let _ = stream.write_all(&BYE);
        let _ = stream.read_exact(&mut [0; 8]);
        // What would be an answer, were this connection kept.
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        read_all(stream);
    });
    let proxy = proxy_to(&origin, "");
    for _ in 0..5 {
        let mut client = open(&proxy);
        assert_eq!(client.read_exactly(4), BYE);
        client.send(BYE_MASKED);
        client.read_to_close();
        normal_requests_are_served(&proxy);
    }
}

#[test]
fn an_end_by_a_reset_is_a_failure_of_who_has_sent_it() {
    let (told, tells) = mpsc::channel();
    let origin = endpoint(move |mut stream, _| {
        let mut room = [0; 100];
        while let Ok(count @ 1..) = stream.read(&mut room) {
            let _ = stream.write_all(&room[..count]);
        }
        let _ = told.send(());
    });
    let proxy = proxy_to(&origin, LOG);
    let mut client = open(&proxy);
    client.send(MASKED);
    assert!(eventually(|| !client.is_quiet_for(Duration::from_millis(10))));
    client.close(); // with bytes that it has not read
    tells.recv_timeout(PATIENCE).unwrap();
    let record = &records(&proxy, 1)[0];
    assert_eq!(record.text("termination.by"), "client");
    assert_eq!(record.text("termination.phase"), "passing");
    normal_requests_are_served(&proxy);
}

#[test]
fn during_a_drain_it_goes_on_and_when_that_ends_both_sides_are_told() {
    let (told, tells) = mpsc::channel();
    let origin = endpoint(move |mut stream, _| {
        let mut first = [0; 8];
        stream.read_exact(&mut first).expect("it goes on");
        let _ = stream.write_all(&first);
        let _ = told.send(read_all(stream));
    });
    let text = edge(&route(origin.address(), LOG));
    let mut proxy = Proxy::start(&format!("drain_timeout = \"2s\"\n{text}"));
    let mut client = open(&proxy);
    proxy.signal("TERM");
    proxy.wait_for_log("draining");
    says_back(&mut client, &MASKED);
    assert_eq!(client.read_exactly(4), GOING_AWAY);
    client.send([BYE_MASKED[0], 0x82, 0, 0, 0, 0, 3, 0xE9]);
    assert_eq!(client.read_to_close(), b"");
    assert_eq!(unmasked(&tells.recv_timeout(PATIENCE).unwrap()), GOING_AWAY);
    assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0));
    let record = &records(&proxy, 1)[0];
    assert_eq!(record.text("termination.reason"), "draining");
    assert_eq!(record.text("tunnel.ended_by"), "proxy");
    assert_eq!(record.number("tunnel.close_code"), 1001.0);
}

#[test]
fn a_goodbye_of_ours_never_comes_within_a_frame() {
    let (told, tells) = mpsc::channel();
    let origin = endpoint(move |mut stream, _| {
        let _ = stream.write_all(&PLAIN[..3]);
        let mut came = vec![0; MASKED.len() + 3];
        stream.read_exact(&mut came).expect("both begin");
        let _ = told.send(read_all(stream));
    });
    let text = edge(&route(origin.address(), ""));
    let mut proxy = Proxy::start(&format!("drain_timeout = \"1s\"\n{text}"));
    let mut client = open(&proxy);
    client.send([&MASKED[..], &MASKED[..3]].concat());
    assert_eq!(client.read_exactly(3), PLAIN[..3]);
    proxy.signal("TERM");
    assert_eq!(client.read_to_close(), b"", "cut, since nothing could be said");
    assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), b"");
    assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0));
}

#[test]
fn a_stream_of_messages_is_ended_behind_a_whole_one() {
    let origin = endpoint(|mut stream, _| {
        let message = [0x82, 5, 1, 2, 3, 4, 5].repeat(1000);
        while stream.write_all(&message).is_ok() {}
    });
    let text = edge(&route(origin.address(), ""));
    let mut proxy = Proxy::start(&format!("drain_timeout = \"1s\"\n{text}"));
    let mut client = open(&proxy);
    client.read_exactly(7000);
    proxy.signal("TERM");
    let bytes = client.read_to_close();
    let messages = bytes.strip_suffix(&GOING_AWAY).expect("the last word is a goodbye");
    let (whole, rest) = messages.as_chunks::<7>();
    assert!(whole.iter().all(|message| *message == [0x82, 5, 1, 2, 3, 4, 5]));
    assert_eq!(rest, b"");
    assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0));
}

#[test]
fn a_configuration_that_is_retired_ends_its_websockets_with_a_goodbye() {
    let origin = endpoint(echo);
    let text =
        format!("hot_reload = {{ max_age = \"1s\" }}\n{}", edge(&route(origin.address(), LOG)));
    let proxy = Proxy::start(&text);
    let mut client = open(&proxy);
    proxy.rewrite_config(&text.replace("\"all\"", "\"others\""));
    proxy.signal("HUP");
    assert_eq!(client.read_exactly(4), GOING_AWAY);
    client.half_close();
    client.read_to_close();
    let record = &records(&proxy, 1)[0];
    assert_eq!(record.text("termination.reason"), "generation_retired");
    assert_eq!(record.text("route"), "all");
    normal_requests_are_served(&proxy);
}

// --- many ------------------------------------------------------------------------------------

#[test]
fn two_thousand_silent_websockets_cost_little() {
    const MANY: usize = 2000;
    // Buffers and pools are there after these.
    const WARM: usize = 100;
    // One thread that keeps them all.
    let listener = TcpListener::bind("127.0.0.1:0").expect("the kernel has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let gate = Gate::new();
    let done = gate.clone();
    let keeper = thread::spawn(move || {
        let mut kept = Vec::new();
        while kept.len() < WARM + MANY {
            let (mut stream, _) = listener.accept().expect("a client comes");
            read_head(&mut stream);
            let _ = stream.write_all(AGREE.as_bytes());
            kept.push(stream);
        }
        done.wait();
    });
    let proxy = Proxy::start(&edge(&route(address, "")));
    let mut clients: Vec<RawClient> = (0..WARM).map(|_| open(&proxy)).collect();
    let before = proxy.rss_kb();
    clients.extend((0..MANY).map(|_| open(&proxy)));
    let each = || (proxy.rss_kb().saturating_sub(before)) * 1024 / MANY as u64;
    let open = metric(&proxy, "tls_proxy_tunnels_active{protocol=\"websocket\"}");
    assert_eq!(open as usize, WARM + MANY);
    // What opening them has left is given back once it is quiet.
    assert!(eventually(|| each() < 10 * 1024), "{} bytes for each", each());
    drop(clients);
    gate.open();
    keeper.join().expect("it ends well");
    let none = || metric(&proxy, "tls_proxy_tunnels_active{protocol=\"websocket\"}") == 0.0;
    assert!(eventually(none));
}

// --- clients and endpoints that others have written ------------------------------------------

#[test]
fn python_websockets_talks_to_itself_plain_and_under_tls() {
    let Some(python) = python_with_websockets() else { return };
    let server = WebsocketServer::http1(&python);
    let pki = Pki::new();
    pki.authority("ca");
    pki.sign("ca", "www", "/CN=www", "DNS:localhost,IP:127.0.0.1");
    let file = |name: &str| pki.path(name).display().to_string();
    let tls = format!(
        "[[listeners]]\nname = \"secure\"\nbind = \"127.0.0.1:0\"\n\
         tls = {{ certificates = [{{ cert = \"{}\", key = \"{}\" }}] }}\n",
        file("www.pem"),
        file("www.key")
    );
    let proxy = Proxy::start(&edge(&(tls + &route(server.address, LOG))));
    let plain = format!("ws://{}", proxy.address("edge"));
    let secure = format!("wss://localhost:{}", proxy.port("secure"));
    for (url, ca) in [(plain, String::new()), (secure, file("ca.pem"))] {
        assert_eq!(run_python(&python, WEBSOCKET_CLIENT, &[&url, &ca]).trim(), "fine", "{url}");
    }
    let records = records(&proxy, 6);
    for (at, record) in records.iter().enumerate() {
        let (by, code) = if at % 3 == 2 { ("client", 1000.0) } else { ("upstream", 4001.0) };
        assert_eq!(record.text("tunnel.ended_by"), by, "{record:?}");
        assert_eq!(record.number("tunnel.close_code"), code, "{record:?}");
        assert_eq!(record.text("termination.by"), "none", "{record:?}");
    }
}

#[test]
fn python_websockets_hears_1001_when_a_drain_ends() {
    let Some(python) = python_with_websockets() else { return };
    let server = WebsocketServer::http1(&python);
    let text = edge(&route(server.address, ""));
    let mut proxy = Proxy::start(&format!("drain_timeout = \"1s\"\n{text}"));
    let script = "
import os, signal, sys
from websockets.sync.client import connect
from websockets.exceptions import ConnectionClosed
with connect(sys.argv[1], subprotocols=['chat'], proxy=None) as ws:
    ws.recv()
    os.kill(int(sys.argv[2]), signal.SIGTERM)
    try:
        ws.recv()
    except ConnectionClosed as closed:
        print(closed.rcvd.code)
";
    let (url, pid) = (format!("ws://{}/", proxy.address("edge")), proxy.pid().to_string());
    assert_eq!(run_python(&python, script, &[&url, &pid]).trim(), "1001");
    assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0));
}

/// Opens a WebSocket and tells of what it hears.
const PAGE: &str = "<script>const at = location.protocol.replace('http', 'ws') + '//' + \
                    location.host; const ws = new WebSocket(at + '/ws'); \
                    ws.onopen = () => ws.send('hi'); \
                    ws.onmessage = event => fetch('/seen?' + event.data);</script>";

/// An endpoint that knows the keys of browsers, and is told of what they fetch.
fn endpoint_of_browsers() -> (Origin, mpsc::Receiver<String>) {
    let (told, seen) = mpsc::channel();
    let origin = Origin::connections(move |mut stream, _| {
        let Some(head) = read_head(&mut stream) else { return };
        let head = head.replace("Sec-WebSocket-Key", "sec-websocket-key");
        let Some((_, key)) = head.split_once("sec-websocket-key: ") else {
            let _ = told.send(head.split(' ').nth(1).unwrap_or_default().to_owned());
            let _ = stream.write_all(OK.as_bytes());
            return;
        };
        let accept = python(ACCEPT, &[key.split("\r\n").next().unwrap_or_default()]);
        let agree = AGREE.replace("Sec-WebSocket-Protocol: chat\r\n", "");
        let agree = agree.replace("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", accept.trim());
        let _ = stream.write_all(agree.as_bytes());
        // "hi" of a browser, whose frames are masked, the other way round.
        let mut frame = [0; 8];
        if stream.read_exact(&mut frame).is_ok() {
            let _ = stream.write_all(&[0x81, 2, frame[7] ^ frame[3], frame[6] ^ frame[2]]);
        }
        read_all(stream);
    });
    (origin, seen)
}

fn browse(url: &str, origin: &Origin, seen: &mpsc::Receiver<String>, more: &[String]) {
    if !is_installed("chromium", "chromium") {
        return;
    }
    assert!(origin.address().ip().is_loopback());
    let directory = TempDir::new();
    let mut browser = start_browser(url, directory.path(), more);
    let came = iter::repeat_with(|| seen.recv_timeout(2 * PATIENCE))
        .find(|came| came.as_deref() != Ok("/favicon.ico"))
        .expect("it goes on for ever");
    let _ = browser.kill();
    let _ = browser.wait();
    assert_eq!(came.as_deref(), Ok("/seen?ih"));
}

fn page_and(origin: &Origin) -> String {
    let page = format!(
        "[[routes]]\nname = \"page\"\npaths = [\"/page\"]\n\
         respond = {{ body = \"{PAGE}\", content_type = \"text/html\" }}\n"
    );
    page + &route(origin.address(), LOG)
}

#[test]
fn a_browser_talks_through_the_proxy() {
    let (origin, seen) = endpoint_of_browsers();
    let proxy = Proxy::start(&edge(&page_and(&origin)));
    browse(&proxy.url("/page"), &origin, &seen, &[]);
}

#[test]
fn a_browser_talks_in_a_stream_of_http2() {
    let (origin, seen) = endpoint_of_browsers();
    let pki = Pki::new();
    pki.issue("www", "www.example");
    let file = |name: &str| pki.path(name).display().to_string();
    let tls = format!(
        "tls = {{ certificates = [{{ cert = \"{}\", key = \"{}\" }}] }}\n",
        file("www.pem"),
        file("www.key")
    );
    let text = edge(&(tls + &page_and(&origin)));
    let proxy = Proxy::start(&text);
    let trusted = python(KEY_HASH, &[&file("www.pem")]);
    let more = [
        "--host-resolver-rules=MAP www.example 127.0.0.1".to_owned(),
        format!("--ignore-certificate-errors-spki-list={}", trusted.trim()),
    ];
    let url = format!("https://www.example:{}/page", proxy.port("edge"));
    browse(&url, &origin, &seen, &more);
    if is_installed("chromium", "chromium") {
        let is_tunnel = |record: &&Json| record.text("url") == "/ws";
        let came =
            || records(&proxy, 1).iter().find(is_tunnel).map(|r| r.text("protocol").to_owned());
        assert!(eventually(|| came().is_some()));
        assert_eq!(came().as_deref(), Some("HTTP/2.0"));
    }
}

/// What a browser is told to trust.
const KEY_HASH: &str = "
import base64, hashlib, subprocess, sys
key = subprocess.run(['openssl', 'x509', '-in', sys.argv[1], '-pubkey', '-noout'],
                     check=True, capture_output=True).stdout
der = subprocess.run(['openssl', 'pkey', '-pubin', '-outform', 'der'], input=key,
                     check=True, capture_output=True).stdout
print(base64.b64encode(hashlib.sha256(der).digest()).decode())
";

const ACCEPT: &str = "
import base64, hashlib, sys
guid = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
print(base64.b64encode(hashlib.sha1((sys.argv[1] + guid).encode()).digest()).decode())
";

fn start_browser(url: &str, home: &Path, more: &[String]) -> Child {
    Command::new(program("chromium"))
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
        .arg("--remote-debugging-port=0") // it stays until it is killed
        .arg(format!("--user-data-dir={}", home.join("profile").display()))
        .args(more)
        .arg(url)
        .env("HOME", home)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromium starts")
}
