//! Clients that abuse HTTP/2: each is told ENHANCE_YOUR_CALM and is cut off, which is counted and
//! logged; other clients of the same core do not notice. Clients that only look like that are let
//! be.

mod support;

use std::thread;

use corelane::http2::abuse::Abuse;
use support::http2_client::{self, *};
use support::{
    Block, Gate, Http2Client, Origin, Pki, Proxy, Respond, SecureClient, edge, eventually,
};

/// One core, so that who abuses it shares it with everybody.
struct Served {
    proxy: Proxy,
    origin: Origin,
    gate: Gate,
}

fn serve() -> Served {
    serve_with("")
}

fn serve_with(tls: &str) -> Served {
    let gate = Gate::new();
    let origin = Origin::start()
        .on("GET /", Respond::text("fine"))
        .on("POST /", Respond::text("taken"))
        .on("GET /large", Respond::bytes(vec![b'x'; 2_000_000]))
        .on("GET /wait", Respond::text("waited").behind(&gate));
    let address = origin.address();
    let proxy = Proxy::start(&edge(&format!(
        "{tls}\n[[routes]]\nname = \"all\"\ncluster = \"app\"\n\
         [clusters.app]\npool = {{ max_connections = 400 }}\n\
         endpoints = [{{ address = \"{address}\" }}]\n"
    )));
    Served { proxy, origin, gate }
}

impl Served {
    fn open(&self) -> Http2Client {
        Http2Client::open(self.proxy.address("edge"))
    }

    fn abuses(&self, abuse: Abuse) -> f64 {
        let series = format!("tls_proxy_protocol_abuse_total{{reason=\"{}\"}}", abuse.label());
        self.proxy.metric(&series).unwrap_or_default()
    }

    /// `flood` writes one piece of it after the other until nobody takes them, or `pieces` times.
    fn is_cut_off(
        &self,
        client: Http2Client,
        abuse: Abuse,
        pieces: u32,
        flood: impl FnMut(u32) -> Vec<u8>,
    ) {
        let _told = ToldOfAFailure(format!("{abuse:?}"));
        let mut bystander = self.open();
        let waits = bystander.request(&Block::get("/wait"));
        let before = self.abuses(abuse);
        cut_off(client, pieces, flood);
        let counted = || self.abuses(abuse) - before;
        assert!(eventually(|| counted() > 0.0), "{}", self.proxy.metrics());
        assert_eq!(counted(), 1.0, "once for a connection");
        self.proxy.wait_for_log(abuse.message());
        assert_eq!(bystander.get("/").text(), "fine", "on the same core");
        assert_eq!(self.open().get("/").text(), "fine", "a new connection");
        // Its answer came no sooner for any of that.
        bystander.send(reset(waits, CANCEL));
        assert!(bystander.settle().is_ok());
    }

    fn floods(&self, abuse: Abuse, pieces: u32, flood: impl FnMut(u32) -> Vec<u8>) {
        self.is_cut_off(self.open(), abuse, pieces, flood);
    }
}

/// It ends with ENHANCE_YOUR_CALM, and the end of the connection.
fn cut_off(mut client: Http2Client, pieces: u32, mut flood: impl FnMut(u32) -> Vec<u8>) {
    for count in 0..pieces {
        if client.try_send(flood(count)).is_err() {
            break;
        }
    }
    assert_eq!(client.away(), ENHANCE_YOUR_CALM);
}

/// The stream of the nth request.
fn nth(count: u32) -> u32 {
    2 * count + 1
}

fn request(count: u32) -> Vec<u8> {
    headers(nth(count), END_STREAM, &Block::get("/wait"))
}

// --- what is abuse -----------------------------------------------------------------------------

#[test]
fn rapid_resets_are_cut_off() {
    let served = serve();
    let both = |count| [request(count), reset(nth(count), CANCEL)].concat();
    served.floods(Abuse::RapidReset, 2000, both);
    // The same in one write.
    let all = (0..2000).flat_map(both).collect::<Vec<u8>>();
    served.floods(Abuse::RapidReset, 1, |_| all.clone());
    served.gate.open();
}

/// It costs the endpoint nothing, and is told of all the same.
#[test]
fn a_request_that_is_reset_at_once_is_not_asked_of_the_endpoint() {
    let served = serve();
    let mut client = served.open();
    let both = |count| [request(count), reset(nth(count), CANCEL)].concat();
    client.send((0..50).flat_map(both).collect::<Vec<u8>>());
    while client.new_stream() < nth(49) {}
    assert_eq!(client.get("/").text(), "fine");
    assert_eq!(served.origin.only_request().method_and_target(), "GET /");
    let series = "tls_proxy_failures_total{reason=\"client_closed\",side=\"client\"}";
    let counted = || served.proxy.metric(series).unwrap_or_default();
    assert!(eventually(|| counted() >= 50.0), "{}", served.proxy.metrics());
}

#[test]
fn abuse_is_in_the_audit_log() {
    let served = serve_with("[logging.audit]\npath = \"audit.log\"\n");
    cut_off(served.open(), 1000, |_| frame(PING, 0, 0, [0; 8]));
    let log = served.proxy.directory().join("audit.log");
    let told = || std::fs::read_to_string(&log).unwrap_or_default();
    let is_told = || told().lines().any(|line| line.contains("\"reason\":\"ping_flood\""));
    assert!(eventually(is_told), "{}", told());
    let line =
        told().lines().find(|line| line.contains("ping_flood")).unwrap_or_default().to_owned();
    assert!(line.contains("\"event\":\"blocked\""), "{line}");
    assert!(line.contains("\"client_ip\":\"127.0.0.1\""), "{line}");
    assert!(line.contains("\"listener\":\"edge\""), "{line}");
}

#[test]
fn resets_that_the_proxy_is_provoked_into_are_cut_off() {
    let served = serve();
    // A window that overflows (6.9.1).
    served.floods(Abuse::ProvokedResets, 500, |count| {
        let window = window_update(nth(count), i32::MAX as u32);
        [request(count), window].concat()
    });
    // Fields that HTTP/2 does not know (8.2.2).
    let malformed = Block::get("/wait").field("connection", "x");
    served.floods(Abuse::ProvokedResets, 500, |count| headers(nth(count), END_STREAM, &malformed));
    // More body than was said (8.1.1).
    let short = Block::request("POST", "/").field("content-length", "1");
    served.floods(Abuse::ProvokedResets, 500, |count| {
        [headers(nth(count), 0, &short), frame(DATA, 0, nth(count), "more")].concat()
    });
    served.gate.open();
}

#[test]
fn requests_beyond_the_number_of_streams_are_cut_off() {
    let served = serve();
    served.floods(Abuse::ProvokedResets, 2000, request);
    served.gate.open();
}

#[test]
fn frames_that_cost_more_than_they_do_are_cut_off() {
    let served = serve();
    served.floods(Abuse::SettingsFlood, 500, |_| settings(&[(INITIAL_WINDOW_SIZE, 70_000)]));
    served.floods(Abuse::PingFlood, 1000, |_| frame(PING, 0, 0, [0; 8]));
    served.floods(Abuse::PriorityFlood, 5000, |_| frame(PRIORITY, 0, 1, [0, 0, 0, 3, 9]));
    served.floods(Abuse::PriorityFlood, 5000, |_| frame(16, 0, 0, b"\0\0\0\x01u=1"));
    served.floods(Abuse::WindowUpdateFlood, 5000, |_| window_update(0, 1));
    served.floods(Abuse::StrayFrames, 1000, |_| frame(0xbb, 0, 0, [0; 100]));
    served.floods(Abuse::StrayFrames, 1000, |count| {
        if count == 0 { request(0) } else { frame(GOAWAY, 0, 0, [0; 8]) }
    });
    served.gate.open();
}

#[test]
fn frames_with_nothing_in_them_are_cut_off() {
    let served = serve();
    let begin = headers(1, 0, &Block::request("POST", "/"));
    let first = |count, more| if count == 0 { begin.clone() } else { more };
    served.floods(Abuse::EmptyFrames, 500, |count| first(count, frame(DATA, 0, 1, b"")));
    served.floods(Abuse::EmptyFrames, 500, |count| {
        first(count, frame(DATA, PADDED, 1, [&[9][..], &[0; 9]].concat()))
    });
    served.floods(Abuse::EmptyFrames, 500, |count| {
        let [head, more] = [HEADERS, CONTINUATION].map(|kind| frame(kind, 0, nth(count), b""));
        let end = frame(CONTINUATION, END_HEADERS, nth(count), Block::get("/wait").bytes());
        [head, more, end].concat()
    });
    served.gate.open();
}

#[test]
fn blocks_of_fields_without_an_end_are_cut_off() {
    let served = serve();
    let block = Block::get("/");
    let begin = frame(HEADERS, END_STREAM, 1, block.bytes());
    let field = Block::new().field("x-a", "1");
    served.floods(Abuse::Continuations, 10_000, |count| {
        if count == 0 { begin.clone() } else { frame(CONTINUATION, 0, 1, field.bytes()) }
    });
    let long = Block::new().field("x-a", vec![b'x'; 16_000]);
    served.floods(Abuse::FieldBlock, 10_000, |count| {
        if count == 0 { begin.clone() } else { frame(CONTINUATION, 0, 1, long.bytes()) }
    });
    served.gate.open();
}

/// A few bytes that unfold to megabytes: one long field enters the table, and is named again and
/// again.
#[test]
fn a_bomb_of_fields_is_no_memory() {
    let served = serve();
    let mut bomb = Block::get("/").remembered("x-bomb", vec![b'x'; 3900]);
    for _ in 0..8000 {
        bomb = bomb.index(62);
    }
    let explode = |times| {
        for _ in 0..times {
            cut_off(served.open(), 1, |_| headers(1, END_STREAM, &bomb));
        }
    };
    let kept = || served.proxy.rss_kb();
    explode(2);
    let before = kept();
    explode(40); // each of 31 MB
    assert!(eventually(|| kept() < before + 8 * 1024), "{before} KiB before, {} after", kept());
    assert!(eventually(|| served.abuses(Abuse::Costly) == 42.0));
    assert_eq!(served.open().get("/").text(), "fine");
    assert_eq!(served.origin.requests().len(), 1);
}

#[test]
fn fields_that_are_too_many_are_answered_431_on_a_connection_that_goes_on() {
    let served = serve();
    let mut client = served.open();
    let long =
        Block::get("/").field("x-long", vec![b'x'; 16_000]).field("x-more", vec![b'x'; 16_000]);
    let (first, rest) = long.bytes().split_at(16_384);
    client.new_stream();
    client.send(frame(HEADERS, END_STREAM, 1, first));
    client.send(frame(CONTINUATION, END_HEADERS, 1, rest));
    assert_eq!(client.answer(1).status, 431);
    assert_eq!(client.get("/").text(), "fine");
}

#[test]
fn windows_that_are_opened_byte_by_byte_are_cut_off() {
    let served = serve();
    for is_connection in [false, true] {
        let window = if is_connection { 1 << 20 } else { 0 };
        let client = Http2Client::connect(served.proxy.address("edge"));
        let mut client = client.greet(&[(INITIAL_WINDOW_SIZE, window)]);
        let stream = client.request(&Block::get("/large"));
        let mut got = 0;
        while is_connection && got < 65_535 {
            let frame = client.read_frame().expect("data");
            match frame.kind {
                DATA => got += frame.payload.len(),
                HEADERS => drop(client.decode(&frame)),
                _ => {}
            }
        }
        let id = if is_connection { 0 } else { stream };
        let ended = (0..5000).find_map(|_| {
            let _ = client.try_send(window_update(id, 1));
            client.read_until(DATA).err()
        });
        assert_eq!(ended, Some(Ended::Away(ENHANCE_YOUR_CALM)), "{is_connection}");
        assert!(eventually(|| served.abuses(Abuse::TinyWindows) >= 1.0));
        served.proxy.wait_for_log(Abuse::TinyWindows.message());
        assert_eq!(served.open().get("/").text(), "fine");
    }
}

#[test]
fn abuse_over_tls_is_cut_off_too() {
    let pki = Pki::new();
    pki.authority("ca");
    pki.sign("ca", "www", "/CN=www", "DNS:www.example.com");
    let (cert, key) = (pki.path("www.pem"), pki.path("www.key"));
    let tls = format!("[listeners.tls]\ncertificates = [{{ cert = {cert:?}, key = {key:?} }}]\n");
    let served = serve_with(&tls);
    let open = || {
        let config = SecureClient::config(&pki.path("ca.pem"));
        let address = served.proxy.address("edge");
        Http2Client::connect_secure(address, "www.example.com", config).greet(&[])
    };
    let mut bystander = open();
    cut_off(open(), 1000, |_| frame(PING, 0, 0, [0; 8]));
    cut_off(open(), 2000, |count| [request(count), reset(nth(count), CANCEL)].concat());
    assert!(eventually(|| served.abuses(Abuse::RapidReset) == 1.0));
    assert_eq!(served.abuses(Abuse::PingFlood), 1.0);
    assert_eq!(bystander.get("/").text(), "fine");
    served.gate.open();
}

#[test]
fn abusers_one_after_the_other_leave_nothing_behind() {
    let served = serve();
    let descriptors = served.proxy.descriptors();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let both = |count| [request(count), reset(nth(count), CANCEL)].concat();
                    cut_off(served.open(), 2000, both);
                }
            });
        }
        for _ in 0..100 {
            assert_eq!(served.open().get("/").text(), "fine");
        }
    });
    assert!(eventually(|| served.abuses(Abuse::RapidReset) == 40.0));
    assert!(eventually(|| served.proxy.connections_open() == 0));
    served.gate.open();
    let is_back = || served.proxy.descriptors() <= descriptors + 420; // what the pool keeps
    assert!(eventually(is_back), "{} of {descriptors}", served.proxy.descriptors());
}

// --- what is not -------------------------------------------------------------------------------

#[test]
fn a_page_that_is_left_with_a_hundred_streams_is_no_abuse() {
    let served = serve();
    let mut client = served.open();
    let most = client.setting(MAX_CONCURRENT_STREAMS).expect("a server limits them").min(100);
    for is_one_write in [false, true] {
        let streams: Vec<u32> = (0..most).map(|_| client.new_stream()).collect();
        let block = Block::get("/wait");
        let requests = streams.iter().flat_map(|stream| headers(*stream, END_STREAM, &block));
        let resets = streams.iter().flat_map(|stream| reset(*stream, CANCEL));
        if is_one_write {
            client.send(requests.chain(resets).collect::<Vec<u8>>());
        } else {
            client.send(requests.collect::<Vec<u8>>());
            client.settle().expect("they have come");
            client.send(resets.collect::<Vec<u8>>());
        }
        assert_eq!(client.get("/").text(), "fine", "one write: {is_one_write}");
    }
    served.gate.open();
}

#[test]
fn a_client_that_cancels_every_other_request_is_no_abuser() {
    let served = serve();
    let mut client = served.open();
    for _ in 0..1000 {
        let given_up = client.request(&Block::get("/"));
        client.send(reset(given_up, CANCEL));
        assert_eq!(client.get("/").text(), "fine");
    }
}

#[test]
fn a_reader_of_small_steps_is_no_abuser() {
    let served = serve();
    let mut client = served.open();
    let stream = client.request(&Block::get("/large"));
    let mut got = 0;
    while got < 2_000_000 {
        let frame = client.read_frame().expect("data");
        match frame.kind {
            HEADERS => drop(client.decode(&frame)),
            DATA => {
                got += frame.payload.len();
                for part in frame.payload.chunks(4096) {
                    let size = part.len() as u32;
                    client.send([window_update(0, size), window_update(stream, size)].concat());
                }
                client.send(http2_client::frame(PING, 0, 0, [7; 8]));
            }
            GOAWAY => panic!("{frame:?}"),
            _ => {}
        }
    }
    assert_eq!(client.get("/").text(), "fine");
}

#[test]
fn an_upload_in_bytes_is_no_abuse() {
    let served = serve();
    let mut client = served.open();
    let stream = client.begin(&Block::request("POST", "/"));
    for _ in 0..2000 {
        client.data(stream, 0, "x");
    }
    client.data(stream, END_STREAM, b"");
    assert_eq!(client.answer(stream).text(), "taken");
    assert_eq!(served.origin.only_request().body.len(), 2000);
}
