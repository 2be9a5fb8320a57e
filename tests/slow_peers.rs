//! Peers that are slow, stuck or quiet: they cost what they hold and no more, nobody else waits for
//! them, and the memory comes back.

mod support;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{After, Origin, PATIENCE, Proxy, Respond, edge, eventually};

const RESPOND: &str = "[[routes]]\nname = \"all\"\nrespond = { status = 200, body = \"hi\" }\n";

/// What a body may hold on its way, and what a measurement may be off by: pages of the code, and in
/// a debug build two quarantines of 64 buffers, of 64 and of 256 KiB, which fill by and by.
const BODY_KB: u64 = 512;
const NOISE_KB: u64 = if cfg!(debug_assertions) { 24 << 10 } else { 1 << 10 };

fn to_origin(origin: &Origin, more: &str) -> String {
    edge(&format!(
        "{more}[[routes]]\nname = \"all\"\ncluster = \"a\"\n\
         [clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n",
        origin.address()
    ))
}

/// Many connections from few addresses: each has its own local port.
fn connect_many(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let connect = |_| TcpStream::connect_timeout(&address, PATIENCE).expect("it accepts");
    (0..count).map(connect).collect()
}

/// How many connections this process may open and leave some for the rest.
fn affordable(wanted: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("procfs is there");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("it is one");
    let soft: usize = line.split_whitespace().nth(3).and_then(|n| n.parse().ok()).unwrap_or(1024);
    wanted.min(soft.saturating_sub(500))
}

/// The slowest of `count` requests, each on a new connection.
fn slowest(proxy: &Proxy, count: usize) -> Duration {
    let one = |_| {
        let started = Instant::now();
        assert_eq!(proxy.client().get("/").text(), "hi");
        started.elapsed()
    };
    (0..count).map(one).max().unwrap_or_default()
}

/// Beginnings of a request on `count` connections, while others are served.
fn slow_clients(proxy: &Proxy, count: usize) -> Vec<TcpStream> {
    let mut slow = connect_many(proxy.address("edge"), count);
    for part in ["GET / HT", "TP/1.1\r\nHo", "st: a\r\nX-A: "] {
        for stream in &mut slow {
            stream.write_all(part.as_bytes()).expect("it is still open");
        }
        let worst = slowest(proxy, 100);
        // Who waited for the others would wait for `timeouts.header`.
        assert!(worst < Duration::from_secs(20), "a request took {worst:?} beside {count} others");
    }
    slow
}

#[test]
fn five_thousand_slow_clients_cost_little_and_do_not_disturb_the_others() {
    let count = affordable(5_000);
    let proxy = Proxy::start(&edge(&format!("[timeouts]\nheader = \"60s\"\n{RESPOND}")));
    slowest(&proxy, 100);
    let before = proxy.rss_kb();
    let mut slow = slow_clients(&proxy, count);
    // A waiting head is copied out of its buffer of 64 KiB. What was used on the way is given back
    // a little later.
    let mut held = 0;
    let is_little = || {
        held = proxy.rss_kb().saturating_sub(before);
        held < count as u64 * 10
    };
    assert!(eventually(is_little), "{held} KiB for {count} slow clients");
    // Those that go on are served; the others leave.
    for stream in slow.iter_mut().take(10) {
        stream.write_all(b"b\r\n\r\n").expect("it is still open");
        let answer = support::Response::read(stream, &mut Vec::new(), "GET").expect("an answer");
        assert_eq!(answer.text(), "hi");
    }
    drop(slow);
    assert!(eventually(|| proxy.metric("tls_proxy_connections_active") == Some(0.0)));
    // What they held is used again: another wave makes the process no larger.
    drop(slow_clients(&proxy, count));
    let twice = proxy.rss_kb().saturating_sub(before);
    assert!(
        twice < held + held / 2 + (4 << 10) + NOISE_KB,
        "{held} KiB for one wave, {twice} KiB for two"
    );
    assert!(eventually(|| proxy.metric("tls_proxy_connections_active") == Some(0.0)));
    slowest(&proxy, 1);
}

#[test]
fn a_large_head_that_comes_slowly_costs_what_it_has_and_not_a_whole_buffer() {
    let count = affordable(2_000);
    let proxy = Proxy::start(&edge(&format!("[timeouts]\nheader = \"60s\"\n{RESPOND}")));
    slowest(&proxy, 100);
    let before = proxy.rss_kb();
    let mut slow = connect_many(proxy.address("edge"), count);
    let line = format!("X-Long: {}\r\n", "a".repeat(2_500));
    for part in ["GET / HTTP/1.1\r\nHost: a\r\n", &line, &line] {
        for stream in &mut slow {
            stream.write_all(part.as_bytes()).expect("it is still open");
        }
        slowest(&proxy, 50);
    }
    let held = proxy.rss_kb().saturating_sub(before);
    println!("{count} heads of 5 KiB hold {held} KiB");
    assert!(held < count as u64 * 16 + NOISE_KB, "{held} KiB for {count} heads of 5 KiB");
    for stream in slow.iter_mut().take(10) {
        stream.write_all(b"\r\n").expect("it is still open");
        let answer = support::Response::read(stream, &mut Vec::new(), "GET").expect("an answer");
        assert_eq!(answer.text(), "hi");
    }
    drop(slow);
    assert!(eventually(|| proxy.metric("tls_proxy_connections_active") == Some(0.0)));
}

#[test]
fn a_slow_head_is_answered_with_408_and_its_connection_ends() {
    let proxy = Proxy::start(&edge(&format!("[timeouts]\nheader = \"200ms\"\n{RESPOND}")));
    let mut clients: Vec<_> = (0..200).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.read_response().status, 408);
        assert_eq!(client.read_to_close(), b"");
    }
    slowest(&proxy, 1);
}

#[test]
fn two_thousand_idle_connections_cost_little_and_are_served_when_they_speak() {
    let count = affordable(2_000);
    let proxy = Proxy::start(&edge(RESPOND));
    let ask = |stream: &mut TcpStream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("it is open");
        let answer = support::Response::read(stream, &mut Vec::new(), "GET").expect("an answer");
        assert_eq!(answer.text(), "hi");
    };
    let mut warm = connect_many(proxy.address("edge"), 100);
    warm.iter_mut().for_each(ask);
    let before = proxy.rss_kb();
    let mut streams = connect_many(proxy.address("edge"), count);
    streams.iter_mut().for_each(ask);
    // One that has just spoken holds more. When the core is quiet that goes back to the system, and
    // not to the allocator only.
    let held = || proxy.rss_kb().saturating_sub(before);
    let bound = count as u64 * if cfg!(debug_assertions) { 5 } else { 2 };
    assert!(eventually(|| held() <= bound), "{} KiB for {count} idle connections", held());
    println!("{count} idle connections hold {} KiB", held());
    streams.append(&mut warm);
    streams.iter_mut().for_each(ask);
    assert_eq!(proxy.metric("tls_proxy_connections_active"), Some(streams.len() as f64));
}

#[test]
fn a_wedged_origin_does_not_disturb_another_route() {
    let wedged = Origin::connections(|mut stream, _| {
        let _ = stream.read_to_end(&mut Vec::new()); // takes everything, never answers
    });
    let healthy = Origin::start().on("GET /", Respond::text("hi"));
    let proxy = Proxy::start(&edge(&format!(
        "[[routes]]\nname = \"wedged\"\npaths = [\"/wedged\"]\ncluster = \"wedged\"\n\
         [[routes]]\nname = \"all\"\ncluster = \"healthy\"\n\
         [clusters.wedged]\nendpoints = [{{ address = \"{}\" }}]\n\
         [clusters.wedged.pool]\nmax_connections = 50\nqueue_timeout = \"3s\"\n\
         [clusters.wedged.timeouts]\nfirst_byte = \"6s\"\n\
         [clusters.healthy]\nendpoints = [{{ address = \"{}\" }}]\n",
        wedged.address(),
        healthy.address()
    )));
    let mut stuck: Vec<_> = (0..100).map(|_| proxy.client()).collect();
    for client in &mut stuck {
        client.send("GET /wedged HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    assert!(eventually(|| wedged.connections_accepted() == 50));
    let worst = slowest(&proxy, 200);
    assert!(worst < Duration::from_millis(2500), "a request took {worst:?} beside a wedged origin");
    let statuses: Vec<u16> = stuck.iter_mut().map(|c| c.read_response().status).collect();
    let count = |wanted| statuses.iter().filter(|&&status| status == wanted).count();
    assert_eq!((count(504), count(503)), (50, 50), "{statuses:?}");
    slowest(&proxy, 1);
}

/// Most of the bytes that the kernel's buffers and the pauses of a slow peer let pass at once.
const PAUSE_EVERY: u64 = 10 << 20;
const TRANSFER_BYTES: u64 = 300 << 20;

/// Runs `transfer` with a smaller and a larger number of bytes, and gives by how many KiB the
/// larger one made the process grow.
fn growth(proxy: &Proxy, mut transfer: impl FnMut(u64, &mut dyn FnMut())) -> u64 {
    transfer(TRANSFER_BYTES / 3, &mut || {});
    let before = proxy.rss_kb();
    let mut most = before;
    transfer(TRANSFER_BYTES, &mut || most = most.max(proxy.rss_kb()));
    most - before
}

/// Takes everything, with pauses in which it is looked at.
fn read_slowly(stream: &mut impl Read, most: u64, look: &mut dyn FnMut()) -> u64 {
    let (mut got, mut next_pause) = (0, 0);
    let mut chunk = vec![0; 256 * 1024];
    while got < most {
        if got >= next_pause {
            thread::sleep(Duration::from_millis(20));
            look();
            next_pause += PAUSE_EVERY;
        }
        match stream.read(&mut chunk) {
            Ok(count @ 1..) => got += count as u64,
            Ok(0) | Err(_) => break,
        }
    }
    got
}

fn write_all(stream: &mut impl Write, total: u64) -> io::Result<()> {
    let chunk = vec![b'x'; 256 * 1024];
    let mut left = total;
    while left > 0 {
        let count = left.min(chunk.len() as u64) as usize;
        stream.write_all(&chunk[..count])?;
        left -= count as u64;
    }
    Ok(())
}

fn stream_to(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address("edge")).expect("it accepts");
    stream.set_write_timeout(Some(PATIENCE)).expect("30 s is a timeout");
    stream.set_read_timeout(Some(PATIENCE)).expect("30 s is a timeout");
    stream
}

/// `/300` is answered with 300 bytes.
fn origin_of_any_size() -> Origin {
    Origin::raw(|stream, request, _| {
        let head = String::from_utf8_lossy(request);
        let target = head.split(' ').nth(1).expect("a request has a target");
        let total: u64 = target[1..].parse().expect("a number is asked for");
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n");
        match write_all(stream, total) {
            Ok(()) => After::KeepOpen,
            Err(_) => After::Close,
        }
    })
}

#[test]
fn a_slow_reader_of_a_large_download_holds_little() {
    let origin = origin_of_any_size();
    let proxy = Proxy::start(&to_origin(&origin, ""));
    let grown = growth(&proxy, |total, look| {
        let mut stream = stream_to(&proxy);
        write!(stream, "GET /{total} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .expect("it is open");
        let got = read_slowly(&mut stream, u64::MAX, look);
        assert!(got > total, "{got} bytes came");
    });
    assert!(grown < BODY_KB + NOISE_KB, "{grown} KiB were held");
}

#[test]
fn a_large_upload_to_a_slow_origin_holds_little() {
    let received = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&received);
    let origin = Origin::connections(move |mut stream, _| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if !matches!(stream.read(&mut byte), Ok(1)) {
                return;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("an ASCII head");
        let line = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let total: u64 = line.and_then(|line| line.parse().ok()).expect("its length is known");
        counted.store(read_slowly(&mut stream, total, &mut || {}), Ordering::SeqCst);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok");
    });
    let proxy = Proxy::start(&to_origin(&origin, "[limits]\nmax_body_size = 0\n"));
    let grown = growth(&proxy, |total, look| {
        let mut stream = stream_to(&proxy);
        write!(stream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {total}\r\n\r\n")
            .expect("it is open");
        for _ in 0..total / PAUSE_EVERY {
            write_all(&mut stream, PAUSE_EVERY).expect("it takes the body");
            look();
        }
        let answer = support::Response::read(&mut stream, &mut Vec::new(), "POST");
        assert_eq!(answer.expect("an answer").text(), "ok");
        assert_eq!(received.load(Ordering::SeqCst), total);
    });
    assert!(grown < BODY_KB + NOISE_KB, "{grown} KiB were held");
}

#[test]
fn a_reader_that_stops_stops_the_origin_and_goes_on_later() {
    let written = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&written);
    let origin = Origin::connections(move |mut stream, _| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 64 << 20);
        let chunk = vec![b'x'; 64 * 1024];
        for _ in 0..1024 {
            if stream.write_all(&chunk).is_err() {
                return;
            }
            counted.fetch_add(chunk.len() as u64, Ordering::SeqCst);
        }
    });
    let proxy = Proxy::start(&to_origin(&origin, ""));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_exactly(1);
    let mut last = u64::MAX;
    assert!(eventually(|| {
        thread::sleep(Duration::from_millis(100));
        let now = written.load(Ordering::SeqCst);
        std::mem::replace(&mut last, now) == now
    }));
    // What fills the kernel's buffers, both ways, is all that leaves the origin.
    assert!(last < 32 << 20, "{last} bytes left the origin though nobody reads");
    let rest = client.read_exactly(64 << 20);
    assert!(rest.iter().rev().take(1 << 20).all(|&byte| byte == b'x'));
}

#[test]
fn a_client_that_takes_nothing_is_cut_and_the_slot_of_its_origin_is_free_again() {
    let origin = origin_of_any_size();
    let more = "[timeouts]\nwrite = \"300ms\"\n";
    let toml = to_origin(&origin, more) + "[clusters.a.pool]\nmax_connections = 1\n";
    let proxy = Proxy::start(&toml);
    let mut stuck = proxy.client();
    stuck.send("GET /268435456 HTTP/1.1\r\nHost: a\r\n\r\n");
    stuck.read_exactly(1);
    let mut next = proxy.client();
    assert_eq!(next.get("/2").text(), "xx", "it waited for the slot, then had it");
    let reason = "tls_proxy_failures_total{reason=\"client_write_timeout\",side=\"client\"}";
    assert!(eventually(|| proxy.metric(reason) == Some(1.0)), "{:?}", proxy.metric(reason));
}
