//! Priorities of streams (RFC 9218): whose bytes come first when a client takes less than there is.

mod support;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::thread;
use std::time::Duration;

use support::http2_client::{
    DATA, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, NO_RFC7540_PRIORITIES, PRIORITY_UPDATE,
    PROTOCOL_ERROR, ToldOfAFailure, frame, headers, settings, window_update,
};
use support::{
    After, Asker, Block, Gate, Http2Client, Http2Origin, Origin, Pki, Proxy, Respond, SecureClient,
    edge,
};

const WINDOW_MAX: u32 = (1 << 31) - 1;
/// What a client takes on a connection before it says more.
const WINDOW: usize = 65_535;
const BODY: usize = 240_000;

fn to(address: impl std::fmt::Display, protocol: &str) -> Proxy {
    Proxy::start(&edge(&format!(
        "[[routes]]\nname = \"all\"\ncluster = \"a\"\n\
         [clusters.a]\nprotocol = {protocol:?}\nendpoints = [{{ address = \"{address}\" }}]\n"
    )))
}

fn origin() -> Origin {
    let body = vec![b'x'; BODY];
    let urgent = Respond::bytes(body.clone()).header("Priority", "u=0");
    Origin::start()
        .on("GET /", Respond::bytes(body.clone()))
        .on("GET /urgent", urgent)
        .on("GET /small", Respond::text("small"))
}

/// 200 and the same body, whatever is asked for.
fn answers(asker: &mut Asker) -> std::io::Result<()> {
    asker.greet(&[])?;
    loop {
        let asked = asker.request()?;
        let head = Block::pseudo(&[(":status", "200")]);
        let mut bytes = headers(asked.stream, 0, &head);
        for at in 0..16 {
            let flags = if at == 15 { END_STREAM } else { 0 };
            bytes.extend(frame(DATA, flags, asked.stream, vec![b'x'; BODY / 16]));
        }
        asker.send(bytes)?;
    }
}

/// A client whose streams have all the room that there is, and whose connection has little.
fn client(proxy: &Proxy) -> Http2Client {
    Http2Client::connect(proxy.address("edge")).greet(&[(INITIAL_WINDOW_SIZE, WINDOW_MAX)])
}

fn request(path: &str, priority: Option<&str>) -> Block {
    let block = Block::get(path);
    priority.into_iter().fold(block, |block, value| block.field("priority", value))
}

fn update(stream: u32, value: &str) -> Vec<u8> {
    frame(PRIORITY_UPDATE, 0, 0, [&stream.to_be_bytes(), value.as_bytes()].concat())
}

/// Bytes of each stream, until so many have come of all together.
fn bytes_of_streams(client: &mut Http2Client, count: usize) -> BTreeMap<u32, usize> {
    let mut came = BTreeMap::new();
    while came.values().sum::<usize>() < count {
        let frame = client.read_frame().expect("the connection goes on");
        if frame.kind == DATA {
            *came.entry(frame.stream).or_default() += frame.payload.len();
        } else if frame.kind == HEADERS {
            client.decode(&frame);
        }
    }
    came
}

/// Two streams, of which the first has used the connection's window up when the second begins.
fn two_that_wait(
    client: &mut Http2Client,
    first: &Block,
    second: &Block,
    between: &[u8],
) -> (u32, u32) {
    let first = client.request(first);
    assert_eq!(bytes_of_streams(client, WINDOW)[&first], WINDOW);
    client.send(between);
    let second = client.request(second);
    let head = client.read_until(HEADERS).expect("it is answered");
    assert_eq!(head.stream, second);
    client.decode(&head);
    client.settle().expect("the connection goes on");
    (first, second)
}

/// Which streams get something when the client takes a little more.
fn who_goes_on(client: &mut Http2Client) -> Vec<u32> {
    let more = BODY / 2;
    client.send(window_update(0, more as u32));
    bytes_of_streams(client, more).into_keys().collect()
}

#[test]
fn the_most_urgent_stream_has_the_connection_to_itself() {
    let (first, second, both) = (vec![1], vec![3], vec![1, 3]);
    let plain = origin();
    let shared = Http2Origin::start(answers);
    for (address, protocol) in [(plain.address(), "h1"), (shared.address(), "h2c")] {
        let proxy = to(address, protocol);
        for (one, other, expected) in [
            (Some("u=7"), Some("u=0"), &second),
            (Some("u=7"), None, &second),
            (None, Some("u=2"), &second),
            (Some("u=1, i"), Some("u=2"), &first),
            // One after another, or side by side.
            (Some("u=5"), Some("u=5"), &first),
            (Some("u=5, i"), Some("u=5, i"), &both),
            (Some("u=5, i"), Some("u=5"), &both),
            (None, None, &both),
            // Broken: as if nothing were said.
            (Some("u=3"), Some("u=0,"), &first),
            (Some("u=3"), Some("u=8"), &first),
            (Some("u=0 i"), Some("u=9, =, \"x"), &both),
        ] {
            let _case = ToldOfAFailure(format!("{protocol}: {one:?} and {other:?}"));
            let mut client = client(&proxy);
            let blocks = (request("/", one), request("/", other));
            two_that_wait(&mut client, &blocks.0, &blocks.1, b"");
            assert_eq!(who_goes_on(&mut client), *expected);
        }
    }
    let asked = plain.requests();
    let told: Vec<_> = asked.iter().filter_map(|request| request.header("priority")).collect();
    assert!(told.contains(&"u=9, =, \"x") && told.contains(&"u=1, i"), "as it came: {told:?}");
}

#[test]
fn under_tls_it_is_the_same() {
    let pki = Pki::new();
    pki.authority("ca");
    pki.sign("ca", "www", "/CN=www", "DNS:localhost");
    let (cert, key) = (pki.path("www.pem"), pki.path("www.key"));
    let origin = origin();
    let proxy = Proxy::start(&edge(&format!(
        "tls = {{ certificates = [{{ cert = {cert:?}, key = {key:?} }}] }}\n\
         [[routes]]\nname = \"all\"\ncluster = \"a\"\n\
         [clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n",
        origin.address()
    )));
    let config = SecureClient::config(&pki.path("ca.pem"));
    let client = Http2Client::connect_secure(proxy.address("edge"), "localhost", config);
    let mut client = client.greet(&[(INITIAL_WINDOW_SIZE, WINDOW_MAX)]);
    let blocks = (request("/", Some("u=7")), request("/", Some("u=0")));
    let (_, second) = two_that_wait(&mut client, &blocks.0, &blocks.1, b"");
    assert_eq!(who_goes_on(&mut client), [second]);
}

#[test]
fn the_endpoint_knows_better() {
    let origin = origin();
    let proxy = to(origin.address(), "h1");
    let mut client = client(&proxy);
    let blocks = (request("/", Some("u=3")), request("/urgent", Some("u=7")));
    let (_, second) = two_that_wait(&mut client, &blocks.0, &blocks.1, b"");
    assert_eq!(who_goes_on(&mut client), [second]);
}

#[test]
fn clients_are_told_that_older_priorities_count_for_nothing() {
    let origin = origin();
    let client = client(&to(origin.address(), "h1"));
    assert_eq!(client.setting(NO_RFC7540_PRIORITIES), Some(1));
}

#[test]
fn a_client_may_change_its_mind() {
    let origin = origin();
    let proxy = to(origin.address(), "h1");
    let mut client = client(&proxy);
    let (first, second) =
        two_that_wait(&mut client, &request("/", None), &request("/", Some("u=6")), b"");
    assert_eq!(who_goes_on(&mut client), [first]);
    // However it is cut.
    for byte in update(second, "u=0, i") {
        client.send([byte]);
    }
    client.settle().expect("the connection goes on");
    let more = BODY / 4;
    client.send(window_update(0, more as u32));
    assert_eq!(bytes_of_streams(&mut client, more).into_keys().collect::<Vec<u32>>(), [second]);
}

#[test]
fn a_priority_may_come_before_its_request_and_is_stronger_than_it() {
    let origin = origin();
    let proxy = to(origin.address(), "h1");
    let mut client = client(&proxy);
    let blocks = (request("/", None), request("/", Some("u=7")));
    let told = [update(3, "u=0"), update(1, "")].concat();
    let (_, second) = two_that_wait(&mut client, &blocks.0, &blocks.1, &told);
    assert_eq!(who_goes_on(&mut client), [second]);
}

#[test]
fn an_update_for_no_stream_of_a_client_ends_the_connection() {
    let origin = origin();
    let proxy = to(origin.address(), "h1");
    let of_a_stream = frame(PRIORITY_UPDATE, 0, 1, [0, 0, 0, 1, b'u', b'=', b'0']);
    let setting = settings(&[(NO_RFC7540_PRIORITIES, 2)]);
    for wrong in [update(0, "u=0"), update(2, "u=0"), of_a_stream, setting] {
        let mut client = client(&proxy);
        client.send(&wrong);
        assert_eq!(client.away(), PROTOCOL_ERROR, "{wrong:?}");
    }
    // What is merely of no use is not in the way.
    let mut client = client(&proxy);
    let long = format!("u=0, x={}", "a".repeat(1000));
    client.send(
        [update(1001, "u=0,"), update(1, &long), settings(&[(NO_RFC7540_PRIORITIES, 1)])].concat(),
    );
    assert_eq!(client.get("/small").text(), "small");
}

#[test]
fn who_cannot_take_what_is_urgent_still_gets_the_rest() {
    let origin = origin();
    let proxy = to(origin.address(), "h1");
    let mut client = Http2Client::connect(proxy.address("edge")).greet(&[(INITIAL_WINDOW_SIZE, 0)]);
    client.send(window_update(0, WINDOW_MAX - WINDOW as u32));
    let urgent = client.request(&request("/", Some("u=0")));
    let head = client.read_until(HEADERS).expect("it is answered");
    client.decode(&head);
    client.settle().expect("its body waits");
    let other = client.request(&request("/", Some("u=7")));
    client.send(window_update(other, WINDOW_MAX));
    assert_eq!(client.answer(other).body.len(), BODY);
    client.send(window_update(urgent, WINDOW_MAX));
    assert_eq!(bytes_of_streams(&mut client, BODY)[&urgent], BODY);
    // A window that is taken back holds nobody up either.
    let taken_back = client.request(&request("/", Some("u=0")));
    client.send(window_update(taken_back, 1000));
    assert_eq!(bytes_of_streams(&mut client, 1000)[&taken_back], 1000);
    client.send(settings(&[(INITIAL_WINDOW_SIZE, 1000)]));
    assert_eq!(client.get("/small").text(), "small");
}

#[test]
fn who_waits_for_what_is_urgent_is_not_taken_for_a_slow_reader() {
    let origin = origin();
    let proxy = Proxy::start(&edge(&format!(
        "[timeouts]\nwrite = \"1s\"\n[[routes]]\nname = \"all\"\ncluster = \"a\"\n\
         [clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n",
        origin.address()
    )));
    let mut client = client(&proxy);
    let blocks = (request("/", Some("u=7")), request("/", Some("u=0")));
    let (below, above) = two_that_wait(&mut client, &blocks.0, &blocks.1, b"");
    // The urgent one goes on for three times as long as a client may take nothing.
    let mut came = BTreeMap::from([(above, 0), (below, 0)]);
    for _ in 0..30 {
        thread::sleep(Duration::from_millis(100));
        client.send(window_update(0, 7000));
        for (stream, count) in bytes_of_streams(&mut client, 7000) {
            *came.entry(stream).or_default() += count;
        }
    }
    assert!(came[&above] > 10 * came[&below], "{came:?}");
    client.send(window_update(0, 2 * BODY as u32));
    let rest = 2 * BODY - WINDOW - 30 * 7000;
    let rest = bytes_of_streams(&mut client, rest);
    assert_eq!(came[&below] + rest[&below] + WINDOW, BODY);
}

#[test]
fn an_urgent_stream_with_nothing_to_send_holds_nobody_up() {
    let gate = Gate::new();
    let opens = gate.clone();
    let origin = Origin::raw(move |stream, request, _| {
        let is_slow = request.starts_with(b"GET /slow");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n");
        let mut body = vec![b'x'; BODY];
        let sent = stream.write_all(head.as_bytes());
        let first = if is_slow { body.split_off(BODY - 100) } else { Vec::new() };
        let sent = sent.and_then(|()| stream.write_all(&first));
        if is_slow {
            opens.wait();
        }
        match sent.and_then(|()| stream.write_all(&body)) {
            Ok(()) => After::KeepOpen,
            Err(_) => After::Close,
        }
    });
    let proxy = to(origin.address(), "h1");
    let mut client = client(&proxy);
    let slow = client.request(&request("/slow", Some("u=0")));
    assert_eq!(bytes_of_streams(&mut client, 100)[&slow], 100);
    let other = client.request(&request("/", Some("u=7")));
    assert_eq!(client.answer(other).body.len(), BODY);
    gate.open();
    assert_eq!(client.answer(slow).body.len(), BODY - 100);
    assert_eq!(client.get("/").body.len(), BODY);
}

#[test]
fn what_is_urgent_overtakes_what_a_slow_reader_has_not_taken() {
    let (large, urgent) = (64 << 20, 6 << 20);
    let origin = Origin::start()
        .on("GET /large", Respond::bytes(vec![b'x'; large]))
        .on("GET /urgent", Respond::bytes(vec![b'y'; urgent]));
    let proxy = to(origin.address(), "h1");
    let mut client = client(&proxy);
    client.send(window_update(0, WINDOW_MAX - WINDOW as u32));
    let below = client.request(&request("/large", Some("u=7")));
    bytes_of_streams(&mut client, 1 << 20);
    let above = client.request(&request("/urgent", Some("u=0")));
    let mut head = client.read_frame().expect("it goes on");
    while head.kind != HEADERS {
        head = client.read_frame().expect("it goes on");
    }
    let mut came = BTreeMap::from([(above, 0), (below, 0)]);
    while came[&above] < urgent {
        // It reads less than there is.
        thread::sleep(Duration::from_millis(1));
        for (stream, count) in bytes_of_streams(&mut client, 1) {
            *came.entry(stream).or_default() += count;
        }
    }
    assert!(came[&below] < urgent / 2, "{} bytes were not urgent", came[&below]);
}
