//! The end of the process: what was begun is finished, what was queued is served, what is idle is
//! closed, and whatever happens it ends in time with exit code 0.

mod support;

use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{
    After, Block, Gate, Http2Client, Http2Origin, Origin, PATIENCE, Proxy, RawClient, Respond,
    Response, edge, eventually,
};

const RESPOND: &str = "[[routes]]\nname = \"all\"\nrespond = { status = 200, body = \"hi\" }\n";

fn to_origin(cores: usize, origin: &Origin, first: &str) -> String {
    let rest = format!(
        "[[routes]]\nname = \"all\"\ncluster = \"a\"\n\
         [clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n",
        origin.address()
    );
    first.to_owned() + &with_cores(cores, &rest)
}

fn with_cores(cores: usize, rest: &str) -> String {
    edge(rest).replacen("cores = 1", &format!("cores = {cores}"), 1)
}

fn assert_drained(proxy: &mut Proxy) {
    let status = proxy.wait_exit(PATIENCE);
    assert_eq!(status.code(), Some(0), "{}", proxy.log());
    proxy.wait_for_log("drained, bye");
}

/// An origin that answers once the gate is open.
fn held() -> (Origin, Gate) {
    let gate = Gate::new();
    (Origin::start().on("GET /slow", Respond::text("done").behind(&gate)), gate)
}

#[test]
fn a_running_exchange_finishes_and_its_answer_says_that_the_connection_ends() {
    for signal in ["TERM", "INT"] {
        let (origin, drains) = held();
        let mut proxy = Proxy::start(&to_origin(2, &origin, ""));
        let mut client = proxy.client();
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        origin.wait_for_requests(1);
        proxy.signal(signal);
        proxy.wait_for_log("draining");
        drains.open();
        let response = client.read_response();
        assert_eq!((response.status, response.text()), (200, "done"));
        assert_eq!(response.header("connection"), Some("close"), "{response:?}");
        assert_eq!(client.read_to_close(), b"");
        assert_drained(&mut proxy);
    }
}

#[test]
fn a_download_that_runs_is_finished() {
    let gate = Gate::new();
    let drains = gate.clone();
    let origin = Origin::raw(move |stream, _, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        let _ = stream.write_all(&[b'x'; 100_000]);
        drains.wait();
        for _ in 0..9 {
            thread::sleep(Duration::from_millis(60));
            let _ = stream.write_all(&[b'x'; 100_000]);
        }
        After::KeepOpen
    });
    let mut proxy = Proxy::start(&to_origin(1, &origin, ""));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let begun = client.read_exactly(1);
    proxy.signal("TERM");
    proxy.wait_for_log("draining");
    gate.open();
    let rest = client.read_to_close();
    assert!(begun == b"H" && rest.len() > 1_000_000, "{} bytes", rest.len());
    assert_drained(&mut proxy);
}

#[test]
fn an_upload_that_runs_is_finished() {
    let origin = Origin::start().on("POST /", Respond::text("got it"));
    let mut proxy = Proxy::start(&to_origin(1, &origin, ""));
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
    assert!(eventually(|| origin.connections_open() == 1));
    proxy.signal("TERM");
    proxy.wait_for_log("draining");
    thread::sleep(Duration::from_millis(100));
    client.send("56789");
    let response = client.read_response();
    assert_eq!((response.status, response.text()), (200, "got it"));
    assert_eq!(origin.only_request().body, b"0123456789");
    assert_drained(&mut proxy);
}

#[test]
fn idle_connections_are_closed_at_once() {
    let mut proxy = Proxy::start(&with_cores(4, RESPOND));
    let mut fresh: Vec<RawClient> = (0..8).map(|_| proxy.client()).collect();
    let mut used: Vec<RawClient> = (0..8).map(|_| proxy.client()).collect();
    for client in &mut used {
        assert_eq!(client.get("/").text(), "hi");
    }
    let mut parked: Vec<RawClient> = (0..8).map(|_| proxy.client()).collect();
    for client in &mut parked {
        assert_eq!(client.get("/").text(), "hi");
    }
    thread::sleep(Duration::from_millis(700)); // long enough to be put away
    for client in &mut used {
        assert_eq!(client.get("/").text(), "hi"); // and some of them back again
    }
    let signalled = Instant::now();
    proxy.signal("TERM");
    for client in fresh.iter_mut().chain(&mut used).chain(&mut parked) {
        assert_eq!(client.read_to_close(), b"");
    }
    assert_drained(&mut proxy);
    // Well before `drain_timeout` would have cut them.
    assert!(signalled.elapsed() < Duration::from_secs(20), "{:?}", signalled.elapsed());
}

#[test]
fn a_request_that_crosses_the_close_of_its_idle_connection_is_not_reset() {
    let mut proxy = Proxy::start(&with_cores(1, RESPOND));
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "hi");
    proxy.signal("TERM");
    assert_eq!(client.read_to_close(), b"");
    // As if it were sent before the client knew. A reset would come back at once.
    for _ in 0..3 {
        client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("nothing was reset");
        thread::sleep(Duration::from_millis(20));
    }
    drop(client);
    assert_drained(&mut proxy);
}

#[test]
fn no_kept_connection_is_reset_when_the_process_ends_under_load() {
    let mut proxy = Proxy::start(&with_cores(2, RESPOND));
    let address = proxy.address("edge");
    let served = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in 0..8_u64 {
            let served = &served;
            scope.spawn(move || {
                let mut client_of = RawClient::connect(address);
                loop {
                    // Idle for a moment, so that some are between two requests.
                    thread::sleep(Duration::from_millis(client));
                    let sent = client_of.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                    let answer = sent.and_then(|()| client_of.try_read_response_to("GET"));
                    match answer {
                        Ok(response) if response.header("connection") == Some("close") => return,
                        Ok(_) => drop(served.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => {
                            assert_ne!(error.kind(), ErrorKind::ConnectionReset);
                            assert_ne!(error.kind(), ErrorKind::BrokenPipe);
                            return;
                        }
                    }
                }
            });
        }
        assert!(eventually(|| served.load(Ordering::Relaxed) > 100));
        proxy.signal("TERM");
    });
    assert_drained(&mut proxy);
}

#[test]
fn idle_upstream_connections_are_closed_too() {
    let origin = Origin::start().on("GET /", Respond::text("x"));
    let mut proxy = Proxy::start(&to_origin(1, &origin, ""));
    assert_eq!(proxy.client().get("/").text(), "x");
    assert_eq!(origin.connections_open(), 1);
    proxy.signal("TERM");
    assert_drained(&mut proxy);
    assert!(eventually(|| origin.connections_open() == 0));
}

#[test]
fn a_half_sent_head_is_waited_for_and_then_answered() {
    let mut proxy = Proxy::start(&with_cores(1, RESPOND));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHo");
    thread::sleep(Duration::from_millis(100));
    proxy.signal("TERM");
    proxy.wait_for_log("draining");
    client.send("st: a\r\n\r\n");
    let response = client.read_response();
    assert_eq!((response.text(), response.header("connection")), ("hi", Some("close")));
    assert_drained(&mut proxy);
}

#[test]
fn drain_timeout_cuts_what_is_stuck_and_the_exit_is_still_clean() {
    let origin = Origin::connections(|_stream, _| thread::sleep(2 * PATIENCE));
    let mut proxy = Proxy::start(&to_origin(2, &origin, "drain_timeout = \"300ms\"\n"));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(eventually(|| origin.connections_accepted() == 1));
    let signalled = Instant::now();
    proxy.signal("TERM");
    assert_eq!(client.read_to_close(), b"");
    assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0), "{}", proxy.log());
    let took = signalled.elapsed();
    assert!(took >= Duration::from_millis(300), "cut after {took:?}");
    assert!(took < Duration::from_secs(20), "cut after {took:?}"); // the default is 30 s
    proxy.wait_for_log("drain_timeout is over");
}

#[test]
fn every_listener_stops_taking_connections() {
    let second = "[[listeners]]\nname = \"second\"\nbind = \"127.0.0.1:0\"\n";
    let (origin, refused) = held();
    let toml = to_origin(2, &origin, "").replacen("[[routes]]", &format!("{second}[[routes]]"), 1);
    let mut proxy = Proxy::start(&toml);
    let (edge, second) = (proxy.address("edge"), proxy.address("second"));
    let mut client = proxy.client_of("second");
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    proxy.signal("TERM");
    proxy.wait_for_log("draining");
    // Nobody gets an answer on a new connection now, while the old one goes on.
    for address in [edge, second] {
        assert!(eventually(|| refuses(address)), "{address} still takes connections");
    }
    refused.open();
    assert_eq!(client.read_response().text(), "done");
    assert_drained(&mut proxy);
}

/// Whether nobody listens there, or takes no new connections.
fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_err()
}

#[test]
fn metrics_and_admin_answer_while_it_drains() {
    let (origin, seen) = held();
    let mut proxy = Proxy::start(&to_origin(1, &origin, ""));
    let mut client = proxy.client();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    assert_eq!(proxy.metric("tls_proxy_draining"), Some(0.0));
    proxy.signal("TERM");
    proxy.wait_for_log("draining");
    assert!(eventually(|| proxy.metric("tls_proxy_draining") == Some(1.0)));
    seen.open();
    assert_eq!(client.read_response().text(), "done");
    assert_drained(&mut proxy);
}

/// One request on a connection of its own. `Ok(None)`: nobody took the connection.
fn once(address: SocketAddr) -> io::Result<Option<Response>> {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
        return Ok(None);
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    Response::read(&mut stream, &mut Vec::new(), "GET").map(Some)
}

/// Connections that the kernel has established count as promised, wherever they wait.
#[test]
fn no_connection_that_was_established_is_lost() {
    for round in 0..4 {
        let mut proxy = Proxy::start(&with_cores(4, RESPOND));
        let address = proxy.address("edge");
        let answers = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..16)
            .map(|_| {
                let answers = Arc::clone(&answers);
                thread::spawn(move || {
                    loop {
                        match once(address) {
                            Ok(Some(response)) => {
                                assert_eq!(response.text(), "hi");
                                answers.fetch_add(1, Ordering::SeqCst);
                            }
                            Ok(None) => return Ok(()),
                            Err(error) => return Err(error),
                        }
                    }
                })
            })
            .collect();
        assert!(eventually(|| answers.load(Ordering::SeqCst) > 200));
        proxy.signal("TERM");
        let ends: Vec<_> = clients.into_iter().map(|c| c.join().expect("no panic")).collect();
        let lost: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
        assert!(lost.is_empty(), "round {round}: {} connections were lost: {lost:?}", lost.len());
        assert_drained(&mut proxy);
    }
}

/// How a keep-alive client under load ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Told by `Connection: close`.
    Told,
    /// Closed between requests, without a byte of an answer to the last: it may be sent again.
    Between,
    /// An answer was begun and cut.
    Cut,
}

fn keep_asking(address: SocketAddr, stop: &AtomicBool, answers: &AtomicUsize) -> End {
    let mut client = RawClient::connect(address);
    while !stop.load(Ordering::SeqCst) {
        if client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_err() {
            return End::Between;
        }
        match client.try_read_response_to("GET") {
            Ok(response) => {
                assert_eq!((response.status, response.text()), (200, "x"), "{response:?}");
                answers.fetch_add(1, Ordering::SeqCst);
                if response.header("connection") == Some("close") {
                    return End::Told;
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return End::Between,
            Err(error) if error.to_string().contains("closed after 0 bytes") => {
                return End::Between;
            }
            Err(_) => return End::Cut,
        }
    }
    panic!("it was never told to go");
}

#[test]
fn under_load_no_request_is_lost_but_on_connections_closed_between_requests() {
    let origin = Origin::raw(|stream, _, _| {
        // Longer than a busy machine takes for all 64: they are in an exchange most of the time.
        thread::sleep(Duration::from_millis(100));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
        After::KeepOpen
    });
    let mut proxy = Proxy::start(&to_origin(4, &origin, ""));
    let address = proxy.address("edge");
    let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let ends: Vec<End> = thread::scope(|scope| {
        let clients: Vec<_> =
            (0..64).map(|_| scope.spawn(|| keep_asking(address, &stop, &answers))).collect();
        assert!(eventually(|| answers.load(Ordering::SeqCst) > 500));
        proxy.signal("TERM");
        clients.into_iter().map(|client| client.join().expect("no wrong answer")).collect()
    });
    let count = |wanted: &End| ends.iter().filter(|end| *end == wanted).count();
    assert_eq!(count(&End::Cut), 0, "{ends:?}");
    // Most are in an exchange at any time, and those are told; on a busy machine more clients have
    // not yet got round to their next request.
    assert!(count(&End::Told) >= 32, "{} of 64 were reset: {ends:?}", count(&End::Between));
    assert_drained(&mut proxy);
    println!("{} told, {} between", count(&End::Told), count(&End::Between));
}

#[test]
fn streams_of_http2_that_are_cut_with_their_connections_end_the_process_well() {
    let silent = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        loop {
            asker.request()?;
        }
    });
    let (origin, _gate) = held();
    let h2c = format!("protocol = \"h2c\"\nendpoints = [{{ address = \"{}\" }}]", silent.address());
    let cluster = format!("endpoints = [{{ address = \"{}\" }}]", origin.address());
    let first = "drain_timeout = \"1s\"\n";
    for text in [to_origin(1, &origin, first).replace(&cluster, &h2c), to_origin(1, &origin, first)]
    {
        let mut proxy = Proxy::start(&text);
        let mut clients: Vec<_> =
            (0..3).map(|_| Http2Client::open(proxy.address("edge"))).collect();
        for client in &mut clients {
            for _ in 0..5 {
                client.request(&Block::get("/slow"));
            }
            client.settle().expect("it goes on");
        }
        let active = || proxy.metric("tls_proxy_requests_active");
        assert!(eventually(|| active().is_none_or(|active| active >= 15.0)));
        proxy.signal("TERM");
        let status = proxy.wait_exit(PATIENCE);
        assert_eq!(status.code(), Some(0), "{}", proxy.log());
        assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
    }
}
