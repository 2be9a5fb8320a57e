//! Every requirement of RFC 9113 that a client can observe, held against the whole proxy by a
//! client that writes frames itself. Each case says its section. After an error of a stream the
//! same connection serves a normal request; after an error of the connection a new one does.

mod support;

use support::http2_client::*;
use support::{Block, Gate, Http2Client, Origin, Proxy, RawClient, Respond, edge, eventually};

struct Served {
    proxy: Proxy,
    _origin: Origin,
    gate: Gate,
}

fn serve() -> Served {
    let gate = Gate::new();
    let origin = Origin::start()
        .on("GET /", Respond::text("fine"))
        .on("HEAD /", Respond::text("fine"))
        .on("POST /", Respond::text("taken"))
        .on("GET /hundred", Respond::bytes(vec![b'x'; 100]))
        .on("GET /large", Respond::bytes(vec![b'x'; 200_000]))
        .on("GET /wait", Respond::text("waited").behind(&gate))
        .on("GET /none", Respond::bytes("").status("204 No Content"));
    let address = origin.address();
    let proxy = Proxy::start(&edge(&format!(
        "[[routes]]\nname = \"all\"\ncluster = \"app\"\n\
         [clusters.app]\nendpoints = [{{ address = \"{address}\" }}]\n"
    )));
    Served { proxy, _origin: origin, gate }
}

impl Served {
    fn open(&self) -> Http2Client {
        Http2Client::open(self.proxy.address("edge"))
    }
}

/// What must come of a case.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// GOAWAY with one of these, and the end of the connection.
    Connection(&'static [u32]),
    /// RST_STREAM with one of these. It may be treated as an error of the connection (5.4.1).
    Stream(&'static [u32]),
    /// The same, or an answer of 4xx (8.1.1).
    Malformed,
    /// Nothing: the connection goes on.
    Ignored,
    Answered(u16),
}

use Expect::{Answered, Connection, Ignored, Malformed, Stream};

struct Case {
    section: &'static str,
    what: &'static str,
    expect: Expect,
    /// What the client does; the stream that it is about, 0 for none.
    run: fn(&mut Http2Client) -> u32,
}

const fn case(
    section: &'static str,
    what: &'static str,
    expect: Expect,
    run: fn(&mut Http2Client) -> u32,
) -> Case {
    Case { section, what, expect, run }
}

fn hold(cases: &[Case]) {
    let served = serve();
    for case in cases {
        let shown = format!("{}: {} ({:?})", case.section, case.what, case.expect);
        let _told = ToldOfAFailure(shown.clone());
        let mut client = served.open();
        let stream = (case.run)(&mut client);
        let outcome = outcome(&mut client, stream);
        let (is_right, goes_on) = judge(case.expect, &outcome);
        assert!(is_right, "{shown}: {outcome:?}");
        if goes_on {
            assert_eq!(client.get("/").text(), "fine", "{shown}: the next request");
        } else {
            client.closed();
            assert_eq!(served.open().get("/").text(), "fine", "{shown}: the next connection");
        }
    }
}

/// What came of it: an answer on the stream, or how it or the connection ended; `Ok(0)`: nothing.
fn outcome(client: &mut Http2Client, stream: u32) -> Result<u16, Ended> {
    if stream == 0 {
        return client.settle().map(|_| 0);
    }
    client.try_answer(stream).map(|answer| answer.status)
}

/// Whether it is right, and whether the connection goes on.
fn judge(expect: Expect, outcome: &Result<u16, Ended>) -> (bool, bool) {
    let is_right = match (expect, outcome) {
        (Connection(codes), Err(Ended::Away(code)))
        | (Stream(codes), Err(Ended::Away(code) | Ended::Reset(code))) => codes.contains(code),
        (Malformed, Err(Ended::Away(code) | Ended::Reset(code))) => *code == PROTOCOL_ERROR,
        (Malformed, Ok(status)) => (400..500).contains(status),
        (Ignored, Ok(0)) => true,
        (Answered(expected), Ok(status)) => expected == *status,
        _ => false,
    };
    (is_right, !matches!(outcome, Err(Ended::Away(_) | Ended::Closed)))
}

fn post() -> Block {
    Block::request("POST", "/")
}

/// A GET with fields behind its pseudo-header fields.
fn with(fields: &[(&str, &str)]) -> Block {
    fields.iter().fold(Block::get("/"), |block, (name, value)| block.field(name, value))
}

/// A request without a body, of these bytes.
fn raw(client: &mut Http2Client, kind: u8, flags: u8, payload: impl AsRef<[u8]>) -> u32 {
    let stream = client.new_stream();
    client.send(frame(kind, flags, stream, payload));
    stream
}

/// Sends frames that are about no stream.
fn say(client: &mut Http2Client, bytes: impl AsRef<[u8]>) -> u32 {
    client.send(bytes);
    0
}

// --- 3: how it begins --------------------------------------------------------------------------

#[test]
fn the_proxy_begins_with_settings_and_acknowledges_the_clients() {
    let served = serve();
    let client = served.open(); // looks at both (3.4, 6.5.3)
    assert!(client.setting(MAX_CONCURRENT_STREAMS).is_some_and(|most| most >= 100), "6.5.2");
    assert!(client.setting(MAX_FRAME_SIZE).is_none_or(|size| (16_384..1 << 24).contains(&size)));
    assert!(client.setting(ENABLE_PUSH).is_none_or(|push| push == 0), "6.5.2: of a server");
}

#[test]
fn a_preface_may_come_byte_by_byte_and_requests_right_behind_it() {
    let served = serve();
    let mut client = Http2Client::connect(served.proxy.address("edge"));
    for byte in PREFACE {
        client.send([*byte]);
    }
    client.send(settings(&[]));
    assert_eq!(client.get("/").text(), "fine");
    let mut client = Http2Client::connect(served.proxy.address("edge"));
    client.new_stream();
    let request = headers(1, END_STREAM, &Block::get("/"));
    client.send([PREFACE, &settings(&[]), &request].concat());
    assert_eq!(client.answer(1).text(), "fine");
}

#[test]
fn a_preface_that_is_wrong_ends_the_connection() {
    let served = serve();
    for (at, byte) in [(4, b'x'), (14, b'1'), (18, b'X'), (20, b' '), (23, b' ')] {
        let mut preface = PREFACE.to_vec();
        preface[at] = byte;
        let mut client = RawClient::connect(served.proxy.address("edge"));
        client.send([&preface[..], &settings(&[])].concat());
        client.read_to_close();
        assert_eq!(served.open().get("/").text(), "fine", "after {}", preface.escape_ascii());
    }
}

#[test]
fn the_first_frame_of_a_client_is_settings() {
    let served = serve();
    for first in [
        headers(1, END_STREAM, &Block::get("/")),
        frame(PING, 0, 0, [0; 8]),
        frame(SETTINGS, ACK, 0, b""),
        window_update(0, 1),
    ] {
        let mut client = Http2Client::connect(served.proxy.address("edge"));
        client.send([PREFACE, &first].concat());
        assert_eq!(client.away(), PROTOCOL_ERROR, "3.4: {first:?}");
    }
    assert_eq!(served.open().get("/").text(), "fine");
}

// --- 4: frames ---------------------------------------------------------------------------------

const FRAMES: &[Case] = &[
    case("4.1", "flags that are not defined", Answered(200), |client| {
        let stream = client.new_stream();
        let block = Block::get("/");
        client.send(frame(HEADERS, 0x92 | END_HEADERS | END_STREAM, stream, block.bytes()));
        stream
    }),
    case("4.1", "the reserved bit of a stream", Answered(200), |client| {
        let stream = client.new_stream();
        let block = Block::get("/");
        client.send(headers(stream | 1 << 31, END_STREAM, &block));
        stream
    }),
    case("4.1", "an unknown type on the connection", Ignored, |client| {
        say(client, frame(0xfa, 0xff, 0, "grease"))
    }),
    case("4.1", "an unknown type within a stream", Answered(200), |client| {
        let stream = client.begin(&post());
        client.send(frame(0x2b, 0xff, stream, "grease"));
        client.data(stream, END_STREAM, "hello");
        stream
    }),
    case("4.2", "DATA as long as allowed", Answered(200), |client| {
        let stream = client.begin(&post());
        client.data(stream, END_STREAM, vec![0; 16_384]);
        stream
    }),
    case("4.2", "DATA that is too long", Stream(&[FRAME_SIZE_ERROR]), |client| {
        let stream = client.begin(&post());
        client.data(stream, END_STREAM, vec![0; 16_385]);
        stream
    }),
    case("4.2", "HEADERS that is too long", Connection(&[FRAME_SIZE_ERROR]), |client| {
        raw(client, HEADERS, END_HEADERS | END_STREAM, vec![0; 16_385])
    }),
    case("4.2", "SETTINGS that is too long", Connection(&[FRAME_SIZE_ERROR]), |client| {
        say(client, frame(SETTINGS, 0, 0, vec![0xff; 6 * 2731]))
    }),
];

#[test]
fn frames() {
    hold(FRAMES);
}

/// A decoder's errors are COMPRESSION_ERROR; the `h2` crate calls them PROTOCOL_ERROR.
const DECODING: Expect = Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]);

const FIELD_COMPRESSION: &[Case] = &[
    case("4.3", "an index that is not there", DECODING, |client| {
        client.request(&Block::get("/").index(99))
    }),
    case("4.3", "the index 0", DECODING, |client| client.request(&Block::get("/").index(0))),
    case("4.3", "an integer without an end", DECODING, |client| {
        client.request(&Block::get("/").raw([0xff; 12]))
    }),
    case("4.3", "a string that is cut", DECODING, |client| {
        client.request(&Block::get("/").raw([0, 9, b'x']))
    }),
    case("4.3", "a table larger than allowed", DECODING, |client| {
        client.request(&Block::new().table_size(100_000).index(2).index(4).index(6))
    }),
    case("4.3", "a size of the table behind a field", DECODING, |client| {
        client.request(&Block::get("/").table_size(0))
    }),
    case("4.3", "Huffman's padding of more than a byte", DECODING, |client| {
        client.request(&Block::get("/").raw([0, 1, b'x', 0x82, 0xff, 0xff]))
    }),
    case("4.3", "Huffman's padding of zeros", DECODING, |client| {
        client.request(&Block::get("/").raw([0, 1, b'x', 0x81, 0]))
    }),
    case("4.3", "Huffman's end of a string in it", DECODING, |client| {
        client.request(&Block::get("/").raw([0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]))
    }),
    case("4.3", "a smaller table", Answered(200), |client| {
        client.request(
            &Block::new().table_size(0).index(2).index(4).index(6).field(":authority", "test"),
        )
    }),
    case("4.3", "Huffman's code", Answered(200), |client| {
        let block = Block::new().squeezed(":method", "GET").squeezed(":scheme", "http");
        let block = block.squeezed(":authority", "test").squeezed(":path", "/");
        client.request(&block.squeezed("x-all", "a \t!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~z"))
    }),
    case("4.3", "a field from the table", Answered(200), |client| {
        let first = client.request(&Block::get("/").remembered("x-kept", "1"));
        client.answer(first);
        client.request(&Block::get("/").index(62))
    }),
    case("4.3.1", "the table is kept through a malformed request", Answered(200), |client| {
        let block = Block::get("/").field("connection", "x").remembered("x-kept", "1");
        let malformed = client.request(&block);
        assert!(client.try_answer(malformed).is_err_and(|e| e != Ended::Closed));
        client.request(&Block::get("/").index(62))
    }),
    case("4.3", "a block in three frames", Answered(200), |client| {
        let block = Block::get("/");
        let (first, rest) = block.bytes().split_at(3);
        let (second, third) = rest.split_at(7);
        let stream = raw(client, HEADERS, END_STREAM, first);
        client.send(frame(CONTINUATION, 0, stream, second));
        client.send(frame(CONTINUATION, END_HEADERS, stream, third));
        stream
    }),
];

#[test]
fn field_compression() {
    hold(FIELD_COMPRESSION);
}

// --- 5: streams --------------------------------------------------------------------------------

const BAD: Expect = Connection(&[PROTOCOL_ERROR]);

const STATES_OF_STREAMS: &[Case] = &[
    case("5.1 idle", "DATA", BAD, |client| raw(client, DATA, END_STREAM, "x")),
    case("5.1 idle", "RST_STREAM", BAD, |client| raw(client, RST_STREAM, 0, [0; 4])),
    case("5.1 idle", "WINDOW_UPDATE", BAD, |client| raw(client, WINDOW_UPDATE, 0, [0, 0, 0, 1])),
    case("5.1 idle", "CONTINUATION", BAD, |client| raw(client, CONTINUATION, 4, b"")),
    case("5.1 idle", "PRIORITY", Ignored, |client| {
        say(client, frame(PRIORITY, 0, 77, [0, 0, 0, 0, 16]))
    }),
    case("5.1 half-closed", "DATA", Stream(&[STREAM_CLOSED]), |client| {
        let stream = client.request(&Block::get("/wait"));
        client.data(stream, 0, "x");
        stream
    }),
    case("5.1 half-closed", "HEADERS", Stream(&[STREAM_CLOSED]), |client| {
        let stream = client.request(&Block::get("/wait"));
        client.send(headers(stream, END_STREAM, &Block::new().field("x", "y")));
        stream
    }),
    case("5.1 half-closed", "PRIORITY and WINDOW_UPDATE", Answered(200), |client| {
        let stream = client.request(&Block::get("/"));
        client.send(window_update(stream, 1));
        client.send(frame(PRIORITY, 0, stream, [0, 0, 0, 0, 16]));
        stream
    }),
    case("5.1 closed", "DATA", Connection(&[STREAM_CLOSED]), |client| {
        let stream = client.request(&Block::get("/"));
        client.answer(stream);
        client.data(stream, END_STREAM, "x");
        0
    }),
    case("5.1 closed", "HEADERS", Connection(&[STREAM_CLOSED]), |client| {
        let stream = client.request(&Block::get("/"));
        client.answer(stream);
        say(client, headers(stream, END_STREAM, &Block::get("/")))
    }),
    case("5.1 closed", "PRIORITY, WINDOW_UPDATE, RST_STREAM", Ignored, |client| {
        let stream = client.request(&Block::get("/"));
        client.answer(stream);
        client.send(frame(PRIORITY, 0, stream, [0, 0, 0, 0, 16]));
        client.send(window_update(stream, 1));
        say(client, reset(stream, CANCEL))
    }),
    case("5.1.1", "an even stream", BAD, |client| {
        say(client, headers(2, END_STREAM, &Block::get("/")))
    }),
    case("5.1.1", "a stream below one that was used", BAD, |client| {
        client.send(headers(9, END_STREAM, &Block::get("/wait")));
        say(client, headers(7, END_STREAM, &Block::get("/")))
    }),
    case("5.1.1", "streams may be left out", Answered(200), |client| {
        client.send(headers(1001, END_STREAM, &Block::get("/")));
        while client.new_stream() < 1001 {}
        1001
    }),
    case("5.1.1", "the stream 0", BAD, |client| {
        say(client, headers(0, END_STREAM, &Block::get("/")))
    }),
    case("5.3.2", "HEADERS with a priority", Answered(200), |client| {
        let payload = [&[0, 0, 0, 0, 15], Block::get("/").bytes()].concat();
        raw(client, HEADERS, END_HEADERS | END_STREAM | HAS_PRIORITY, payload)
    }),
    case("5.5", "an unknown frame within a block of fields", BAD, |client| {
        let stream = raw(client, HEADERS, END_STREAM, Block::get("/").bytes());
        client.send(frame(0xfa, 0, stream, "x"));
        stream
    }),
];

#[test]
fn states_of_streams() {
    hold(STATES_OF_STREAMS);
}

#[test]
fn more_streams_than_allowed_are_refused_and_the_others_are_answered() {
    let served = serve();
    let mut client = served.open();
    let most = client.setting(MAX_CONCURRENT_STREAMS).expect("a server limits them");
    let streams: Vec<u32> = (0..most).map(|_| client.request(&Block::get("/wait"))).collect();
    let refused = client.request(&Block::get("/"));
    assert_eq!(client.try_answer(refused), Err(Ended::Reset(REFUSED_STREAM)), "5.1.2");
    served.gate.open();
    let mut open = streams.len();
    while open > 0 {
        let answer = client.read_until(DATA).expect("an answer");
        open -= usize::from(answer.has(END_STREAM));
    }
    assert_eq!(client.get("/").text(), "fine");
}

#[test]
fn a_stream_that_is_reset_by_the_client_is_over_and_its_place_is_free() {
    let served = serve();
    let mut client = served.open();
    let most = client.setting(MAX_CONCURRENT_STREAMS).expect("a server limits them");
    let streams: Vec<u32> = (0..most).map(|_| client.request(&Block::get("/wait"))).collect();
    for stream in streams {
        client.send(reset(stream, CANCEL));
    }
    let frames = client.settle().expect("it goes on");
    assert!(frames.iter().all(|frame| frame.kind != RST_STREAM), "5.4.2: {frames:?}");
    assert_eq!(client.get("/").text(), "fine");
    served.gate.open();
}

// --- 6: types of frames ------------------------------------------------------------------------

const LENGTH: Expect = Connection(&[FRAME_SIZE_ERROR]);

const DATA_AND_HEADERS_AND_PRIORITY: &[Case] = &[
    case("6.1", "DATA on the stream 0", BAD, |client| say(client, frame(DATA, 0, 0, "x"))),
    case("6.1", "padding longer than DATA", BAD, |client| {
        let stream = client.begin(&post());
        client.data(stream, END_STREAM | PADDED, [5, 1, 2, 3, 4]);
        stream
    }),
    case("6.1", "DATA without the length of its padding", LENGTH, |client| {
        let stream = client.begin(&post());
        client.data(stream, END_STREAM | PADDED, b"");
        stream
    }),
    case("6.1", "DATA with padding", Answered(200), |client| {
        let stream = client.begin(&post().field("content-length", "2"));
        client.data(stream, END_STREAM | PADDED, b"\x03hi\0\0\0");
        stream
    }),
    case("6.1", "DATA that is all padding", Answered(200), |client| {
        let stream = client.begin(&post().field("content-length", "2"));
        client.data(stream, PADDED, b"\x03\0\0\0");
        client.data(stream, END_STREAM, b"hi");
        stream
    }),
    case("6.2", "padding longer than HEADERS", BAD, |client| {
        let payload = [&[200], Block::get("/").bytes()].concat();
        raw(client, HEADERS, END_HEADERS | END_STREAM | PADDED, payload)
    }),
    case("6.2", "HEADERS with padding and priority", Answered(200), |client| {
        let payload = [&[2, 0, 0, 0, 0, 9], Block::get("/").bytes(), &[0, 0]].concat();
        raw(client, HEADERS, END_HEADERS | END_STREAM | PADDED | HAS_PRIORITY, payload)
    }),
    case("6.2", "HEADERS without room for its priority", LENGTH, |client| {
        raw(client, HEADERS, END_HEADERS | END_STREAM | HAS_PRIORITY, [0; 4])
    }),
    case("6.2", "another frame within a block of fields", BAD, |client| {
        let stream = raw(client, HEADERS, END_STREAM, Block::get("/").bytes());
        client.send(frame(PING, 0, 0, [0; 8]));
        stream
    }),
    case("6.2", "another stream within a block of fields", BAD, |client| {
        let stream = raw(client, HEADERS, END_STREAM, Block::get("/").bytes());
        client.request(&Block::get("/"));
        stream
    }),
    case("6.3", "PRIORITY on the stream 0", BAD, |client| {
        say(client, frame(PRIORITY, 0, 0, [0; 5]))
    }),
    case("6.3", "PRIORITY of a wrong length", Stream(&[FRAME_SIZE_ERROR]), |client| {
        say(client, frame(PRIORITY, 0, 1, [0; 4]))
    }),
];

#[test]
fn data_and_headers_and_priority() {
    hold(DATA_AND_HEADERS_AND_PRIORITY);
}

const RESET_AND_SETTINGS_AND_PUSH_AND_PING_AND_GOAWAY: &[Case] = &[
    case("6.4", "RST_STREAM on the stream 0", BAD, |client| say(client, reset(0, CANCEL))),
    case("6.4", "RST_STREAM of a wrong length", LENGTH, |client| {
        let stream = client.begin(&post());
        client.send(frame(RST_STREAM, 0, stream, [0; 3]));
        stream
    }),
    case("6.5", "an acknowledgement with settings", LENGTH, |client| {
        say(client, frame(SETTINGS, ACK, 0, [0; 6]))
    }),
    case("6.5", "SETTINGS on a stream", BAD, |client| say(client, frame(SETTINGS, 0, 1, b""))),
    case("6.5", "SETTINGS of a wrong length", LENGTH, |client| {
        say(client, frame(SETTINGS, 0, 0, [0; 3]))
    }),
    case("6.5.2", "ENABLE_PUSH of 2", BAD, |client| say(client, settings(&[(ENABLE_PUSH, 2)]))),
    case("6.5.2", "a window of 32 bits", Connection(&[FLOW_CONTROL_ERROR]), |client| {
        say(client, settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]))
    }),
    case("6.5.2", "frames of 16,383 bytes", BAD, |client| {
        say(client, settings(&[(MAX_FRAME_SIZE, 16_383)]))
    }),
    case("6.5.2", "frames of 2^24 bytes", BAD, |client| {
        say(client, settings(&[(MAX_FRAME_SIZE, 1 << 24)]))
    }),
    case("6.5.2", "a setting that is not known", Ignored, |client| {
        say(client, settings(&[(0xfafa, 7), (99, u32::MAX)]))
    }),
    case("6.5.2", "no table of fields", Answered(200), |client| {
        client.send(settings(&[(HEADER_TABLE_SIZE, 0)]));
        let first = client.request(&Block::get("/"));
        client.answer(first);
        client.request(&Block::get("/"))
    }),
    case("6.6", "PUSH_PROMISE of a client", BAD, |client| {
        let stream = client.begin(&post());
        let payload = [&[0, 0, 0, 2], Block::get("/").bytes()].concat();
        say(client, frame(PUSH_PROMISE, END_HEADERS, stream, payload))
    }),
    case("6.7", "PING on a stream", BAD, |client| say(client, frame(PING, 0, 1, [0; 8]))),
    case("6.7", "PING of a wrong length", LENGTH, |client| say(client, frame(PING, 0, 0, [0; 6]))),
    case("6.7", "an answer to no PING", Ignored, |client| say(client, frame(PING, ACK, 0, [0; 8]))),
    case("6.8", "GOAWAY on a stream", BAD, |client| say(client, frame(GOAWAY, 0, 1, [0; 8]))),
    case("6.10", "CONTINUATION behind a whole block", BAD, |client| {
        let stream = client.begin(&post());
        client.send(frame(CONTINUATION, END_HEADERS, stream, Block::new().field("a", "b").bytes()));
        stream
    }),
    case("6.10", "CONTINUATION on the stream 0", BAD, |client| {
        raw(client, HEADERS, END_STREAM, Block::get("/").bytes());
        say(client, frame(CONTINUATION, END_HEADERS, 0, b""))
    }),
    case("6.10", "CONTINUATION of another stream", BAD, |client| {
        let stream = raw(client, HEADERS, END_STREAM, Block::get("/").bytes());
        say(client, frame(CONTINUATION, END_HEADERS, stream + 2, b""))
    }),
];

#[test]
fn reset_and_settings_and_push_and_ping_and_goaway() {
    hold(RESET_AND_SETTINGS_AND_PUSH_AND_PING_AND_GOAWAY);
}

#[test]
fn a_ping_is_answered_with_what_it_held() {
    let served = serve();
    let mut client = served.open();
    client.send(frame(PING, 0, 0, *b"12345678"));
    let answer = client.read_until(PING).expect("an answer");
    assert_eq!((answer.flags, answer.stream, &answer.payload[..]), (ACK, 0, &b"12345678"[..]));
    // It is answered while a body waits for a window (6.7: before any other frame).
    client.send(settings(&[(INITIAL_WINDOW_SIZE, 0)]));
    client.request(&Block::get("/large"));
    assert!(client.settle().is_ok());
}

#[test]
fn settings_are_acknowledged_each_and_hold_from_then_on() {
    let served = serve();
    let mut client = served.open();
    // The last value counts (6.5.3).
    client.send(settings(&[(INITIAL_WINDOW_SIZE, 7), (INITIAL_WINDOW_SIZE, 3)]));
    client.send(settings(&[]));
    for _ in 0..2 {
        let frame = client.read_until(SETTINGS).expect("an acknowledgement");
        assert!(frame.has(ACK) && frame.payload.is_empty(), "{frame:?}");
    }
    client.request(&Block::get("/hundred"));
    assert_eq!(client.read_until(DATA).expect("data").payload.len(), 3);
}

#[test]
fn a_client_that_goes_away_gets_its_answers_and_then_the_end() {
    let served = serve();
    let mut client = served.open();
    let stream = client.request(&Block::get("/wait"));
    client.send(frame(GOAWAY, 0, 0, [0; 8]));
    served.gate.open();
    assert_eq!(client.answer(stream).text(), "waited", "6.8");
    client.closed();
    assert_eq!(served.open().get("/").text(), "fine");
}

#[test]
fn a_drain_says_goaway_and_lets_streams_finish() {
    let served = serve();
    let mut client = served.open();
    let stream = client.request(&Block::get("/wait"));
    client.settle().expect("the request has come");
    served.proxy.signal("TERM");
    let away = client.read_until(GOAWAY).expect("a GOAWAY");
    assert_eq!((away.code(), away.stream), (NO_ERROR, 0), "6.8: {away:?}");
    served.gate.open();
    assert_eq!(client.answer(stream).text(), "waited");
    client.closed();
}

#[test]
fn a_client_that_is_answered_early_may_say_the_rest_before_its_stream_is_reset() {
    let proxy = Proxy::start(&edge(
        "[limits]\nmax_body_size = 10\n\
         [[routes]]\nname = \"all\"\npaths = [\"/\"]\necho = true\n",
    ));
    let long = || post().field("content-length", "19");
    let mut client = Http2Client::open(proxy.address("edge"));
    let stream = client.begin(&long());
    assert_eq!(client.answer(stream).status, 413);
    // 8.1: what it says in the meantime is no error, and needs no reset.
    client.data(stream, END_STREAM, "more than ten bytes");
    let frames = client.settle().expect("the connection goes on");
    assert!(!frames.iter().any(|frame| frame.kind == RST_STREAM), "{frames:?}");
    // Who does not end it is told that there is no need to.
    let stream = client.begin(&long());
    assert_eq!(client.answer(stream).status, 413);
    let reset = client.read_until(RST_STREAM).expect("a reset");
    assert_eq!((reset.code(), reset.stream), (NO_ERROR, stream), "8.1: {reset:?}");
    assert_eq!(client.get("/").status, 200);
}

// --- 6.9: flow control -------------------------------------------------------------------------

const OVERFLOW: Expect = Connection(&[FLOW_CONTROL_ERROR]);

const WINDOWS: &[Case] = &[
    case("6.9", "an increment of 0 on a stream", Stream(&[PROTOCOL_ERROR]), |client| {
        let stream = client.begin(&post());
        client.send(window_update(stream, 0));
        stream
    }),
    case("6.9", "an increment of 0 on the connection", BAD, |client| {
        say(client, window_update(0, 0))
    }),
    case("6.9", "WINDOW_UPDATE of a wrong length", LENGTH, |client| {
        say(client, frame(WINDOW_UPDATE, 0, 0, [0, 0, 1]))
    }),
    case("6.9", "the reserved bit of an increment", Ignored, |client| {
        say(client, window_update(0, 1 << 31 | 5))
    }),
    case("6.9.1", "a window of the connection that overflows", OVERFLOW, |client| {
        say(client, [window_update(0, i32::MAX as u32), window_update(0, 1)].concat())
    }),
    case("6.9.1", "a stream's window that overflows", Stream(&[FLOW_CONTROL_ERROR]), |client| {
        let stream = client.begin(&post());
        client.send(window_update(stream, i32::MAX as u32));
        stream
    }),
    case("6.9.2", "a setting that overflows a stream's window", OVERFLOW, |client| {
        client.send(settings(&[(INITIAL_WINDOW_SIZE, 1000)]));
        let stream = client.begin(&post());
        client.send(window_update(stream, i32::MAX as u32 - 1000));
        say(client, settings(&[(INITIAL_WINDOW_SIZE, 1001)]))
    }),
];

#[test]
fn windows() {
    hold(WINDOWS);
}

#[test]
fn a_client_that_does_not_look_at_the_window_is_stopped() {
    let held = Gate::new();
    let gate = held.clone();
    let origin = Origin::connections(move |stream, _| {
        gate.wait(); // and reads nothing
        drop(stream);
    });
    let proxy = Proxy::start(&edge(&format!(
        "[[routes]]\nname = \"own\"\npaths = [\"/own\"]\n\
         respond = {{ status = 200, body = \"own\" }}\n\
         [[routes]]\nname = \"all\"\ncluster = \"app\"\n\
         [clusters.app]\nendpoints = [{{ address = \"{}\" }}]\n",
        origin.address()
    )));
    let mut client = Http2Client::open(proxy.address("edge"));
    let stream = client.begin(&post());
    for _ in 0..4096 {
        if client.try_send(frame(DATA, 0, stream, vec![0; 16_384])).is_err() {
            break; // 64 MiB fit into no window
        }
    }
    let ended = client.try_answer(stream);
    let stopped = [Ended::Reset(FLOW_CONTROL_ERROR), Ended::Away(FLOW_CONTROL_ERROR)];
    assert!(ended.as_ref().is_err_and(|ended| stopped.contains(ended)), "6.9.1: {ended:?}");
    held.open();
    let mut client = Http2Client::open(proxy.address("edge"));
    assert_eq!(client.get("/own").text(), "own");
}

/// Bytes of DATA on any stream that came before an answer to a PING.
fn data_until_settled(client: &mut Http2Client) -> usize {
    let frames = client.settle().expect("it goes on");
    frames.iter().filter(|frame| frame.kind == DATA).map(|frame| frame.payload.len()).sum()
}

/// Waits for that many bytes of DATA, and proves that no more come.
fn gets(client: &mut Http2Client, count: usize, why: &str) {
    let mut got = 0;
    while got < count {
        got += client.read_until(DATA).expect("data").payload.len();
    }
    assert_eq!(got, count, "{why}");
    got += data_until_settled(client);
    assert_eq!(got, count, "{why}: more than the window");
}

/// Its DATA is attended to by hand.
fn small_window(served: &Served, window: u32) -> (Http2Client, u32) {
    let client = Http2Client::connect(served.proxy.address("edge"));
    let mut client = client.greet(&[(INITIAL_WINDOW_SIZE, window)]);
    let stream = client.request(&Block::get("/hundred"));
    (client, stream)
}

#[test]
fn no_more_is_sent_than_the_window_of_a_stream() {
    let served = serve();
    let (mut client, stream) = small_window(&served, 0);
    let head = client.read_until(HEADERS).expect("fields are not held up (6.9)");
    client.decode(&head);
    assert_eq!(data_until_settled(&mut client), 0);
    client.send(window_update(stream, 1));
    gets(&mut client, 1, "6.9.1: a window of 1");
    client.send(window_update(stream, 30));
    gets(&mut client, 30, "6.9.1: a window of 30");
    client.send(settings(&[(INITIAL_WINDOW_SIZE, 20)]));
    gets(&mut client, 20, "6.9.2: all windows grow by 20");
    client.send(settings(&[(INITIAL_WINDOW_SIZE, 5)]));
    assert_eq!(data_until_settled(&mut client), 0, "6.9.2: the window is -15");
    client.send(window_update(stream, 15));
    assert_eq!(data_until_settled(&mut client), 0, "6.9.2: the window is 0");
    client.send(window_update(stream, 1000));
    gets(&mut client, 49, "the rest");
    client.send(settings(&[(INITIAL_WINDOW_SIZE, 65_535)]));
    assert_eq!(client.get("/").text(), "fine");
}

#[test]
fn no_more_is_sent_than_the_window_of_the_connection() {
    let served = serve();
    let client = Http2Client::connect(served.proxy.address("edge"));
    let mut client = client.greet(&[(INITIAL_WINDOW_SIZE, 1 << 20)]);
    let stream = client.request(&Block::get("/large"));
    let mut got = 0;
    while got < 65_535 {
        let frame = client.read_frame().expect("data");
        match frame.kind {
            DATA => got += frame.payload.len(),
            HEADERS => drop(client.decode(&frame)),
            _ => {}
        }
    }
    assert_eq!(got, 65_535, "6.9.2: a setting does not change the connection's window");
    assert_eq!(data_until_settled(&mut client), 0);
    // Another stream's fields are not held up by it; nor are streams without a body.
    let none = client.request(&Block::get("/none"));
    assert_eq!(client.answer(none).status, 204);
    client.send(window_update(0, 1 << 20));
    let rest = client.answer(stream);
    assert_eq!(rest.body.len(), 200_000 - 65_535);
    assert_eq!(client.get("/").text(), "fine");
}

#[test]
fn the_proxy_opens_its_windows_as_a_body_is_taken() {
    let served = serve();
    let mut client = served.open();
    let mut of_stream = i64::from(client.setting(INITIAL_WINDOW_SIZE).unwrap_or(65_535));
    let mut of_connection = 65_535;
    let stream = client.begin(&post());
    let mut left = 3_000_000_i64;
    while left > 0 {
        let size = left.min(16_384).min(of_stream).min(of_connection);
        if size == 0 {
            let frame = client.read_until(WINDOW_UPDATE).expect("a larger window");
            let increment =
                i64::from(u32::from_be_bytes(frame.payload.try_into().expect("4 bytes")));
            let window = if frame.stream == 0 { &mut of_connection } else { &mut of_stream };
            *window += increment;
            continue;
        }
        left -= size;
        (of_stream, of_connection) = (of_stream - size, of_connection - size);
        let flags = if left == 0 { END_STREAM } else { 0 };
        client.data(stream, flags, vec![b'x'; size as usize]);
    }
    assert_eq!(client.answer(stream).text(), "taken");
}

#[test]
fn frames_are_as_long_as_the_client_allows_at_most() {
    let served = serve();
    let mut client = served.open(); // it panics for a frame of more than 16,384 bytes
    client.send(window_update(0, 1 << 20));
    client.send(settings(&[(INITIAL_WINDOW_SIZE, 1 << 20)]));
    let stream = client.request(&Block::get("/large"));
    assert_eq!(client.answer(stream).body.len(), 200_000, "4.2");
}

// --- 8: HTTP -----------------------------------------------------------------------------------

const MESSAGES: &[Case] = &[
    case("8.1", "a body and trailers", Answered(200), |client| {
        let stream = client.begin(&post());
        client.data(stream, 0, "hello");
        client.send(headers(stream, END_STREAM, &Block::new().field("x-sum", "5")));
        stream
    }),
    case("8.1", "trailers without a body", Answered(200), |client| {
        let stream = client.begin(&post());
        client.send(headers(stream, END_STREAM, &Block::new().field("x-sum", "0")));
        stream
    }),
    case("8.1", "a second HEADERS that ends nothing", Malformed, |client| {
        let stream = client.begin(&post());
        client.send(headers(stream, 0, &Block::new().field("x", "y")));
        stream
    }),
    case("8.1", "an empty body", Answered(200), |client| {
        let stream = client.begin(&post());
        client.data(stream, END_STREAM, b"");
        stream
    }),
    case("8.1.1", "more body than content-length", Malformed, |client| {
        let stream = client.begin(&post().field("content-length", "4"));
        client.data(stream, END_STREAM, "hello");
        stream
    }),
    case("8.1.1", "less body than content-length", Malformed, |client| {
        let stream = client.begin(&post().field("content-length", "6"));
        client.data(stream, END_STREAM, "hello");
        stream
    }),
    case("8.1.1", "less body than content-length, and trailers", Malformed, |client| {
        let stream = client.begin(&post().field("content-length", "6"));
        client.data(stream, 0, "hello");
        client.send(headers(stream, END_STREAM, &Block::new().field("x", "y")));
        stream
    }),
    case("8.1.1", "content-length without a body", Malformed, |client| {
        client.request(&post().field("content-length", "6"))
    }),
    case("8.1.1", "content-length that is right", Answered(200), |client| {
        let stream = client.begin(&post().field("content-length", "5"));
        client.data(stream, 0, "he");
        client.data(stream, END_STREAM, "llo");
        stream
    }),
];

#[test]
fn messages() {
    hold(MESSAGES);
}

const FIELDS: &[Case] = &[
    case("8.2", "a name in upper case", Malformed, |c| c.request(&with(&[("X-Up", "1")]))),
    case("8.2.1", "an empty name", Malformed, |c| c.request(&with(&[("", "1")]))),
    case("8.2.1", "a space in a name", Malformed, |c| c.request(&with(&[("x y", "1")]))),
    case("8.2.1", "a colon in a name", Malformed, |c| c.request(&with(&[("x:y", "1")]))),
    case("8.2.1", "a control byte in a name", Malformed, |c| c.request(&with(&[("x\u{1}", "1")]))),
    case("8.2.1", "a byte over 127 in a name", Malformed, |c| c.request(&with(&[("ä", "1")]))),
    case("8.2.1", "NUL in a value", Malformed, |c| c.request(&with(&[("x", "a\0b")]))),
    case("8.2.1", "CR in a value", Malformed, |c| c.request(&with(&[("x", "a\rb")]))),
    case("8.2.1", "LF in a value", Malformed, |c| c.request(&with(&[("x", "a\nb")]))),
    case("8.2.1", "a space before a value", Malformed, |c| c.request(&with(&[("x", " a")]))),
    case("8.2.1", "a tab behind a value", Malformed, |c| c.request(&with(&[("x", "a\t")]))),
    case("8.2.1", "an empty value", Answered(200), |c| c.request(&with(&[("x", "")]))),
    case("8.2.2", "connection", Malformed, |c| c.request(&with(&[("connection", "close")]))),
    case("8.2.2", "keep-alive", Malformed, |c| c.request(&with(&[("keep-alive", "timeout=5")]))),
    case("8.2.2", "proxy-connection", Malformed, |c| {
        c.request(&with(&[("proxy-connection", "close")]))
    }),
    case("8.2.2", "transfer-encoding", Malformed, |c| {
        c.request(&with(&[("transfer-encoding", "chunked")]))
    }),
    case("8.2.2", "upgrade", Malformed, |c| c.request(&with(&[("upgrade", "h2c")]))),
    case("8.2.2", "te that is not trailers", Malformed, |c| c.request(&with(&[("te", "gzip")]))),
    case("8.2.2", "te: trailers", Answered(200), |c| c.request(&with(&[("te", "trailers")]))),
];

#[test]
fn fields() {
    hold(FIELDS);
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", "test");
const PATH: (&str, &str) = (":path", "/");
fn of(client: &mut Http2Client, fields: &[(&str, &str)]) -> u32 {
    client.request(&Block::pseudo(fields))
}

const PSEUDO_FIELDS: &[Case] = &[
    case("8.3", "in another order", Answered(200), |c| of(c, &[PATH, AUTHORITY, SCHEME, METHOD])),
    case("8.3", "one that is not known", Malformed, |c| {
        of(c, &[METHOD, SCHEME, AUTHORITY, PATH, (":x", "1")])
    }),
    case("8.3", ":status of a request", Malformed, |c| {
        of(c, &[METHOD, SCHEME, AUTHORITY, PATH, (":status", "200")])
    }),
    case("8.3", "one behind a field", Malformed, |c| {
        of(c, &[METHOD, SCHEME, AUTHORITY, ("x", "1"), PATH])
    }),
    case("8.3.1", "no :method", Malformed, |c| of(c, &[SCHEME, AUTHORITY, PATH])),
    case("8.3.1", "no :scheme", Malformed, |c| of(c, &[METHOD, AUTHORITY, PATH])),
    case("8.3.1", "no :path", Malformed, |c| of(c, &[METHOD, SCHEME, AUTHORITY])),
    case("8.3.1", "an empty :path", Malformed, |c| {
        of(c, &[METHOD, SCHEME, AUTHORITY, (":path", "")])
    }),
    case("8.3.1", "two :method", Malformed, |c| of(c, &[METHOD, METHOD, SCHEME, AUTHORITY, PATH])),
    case("8.3.1", "two :scheme", Malformed, |c| of(c, &[METHOD, SCHEME, SCHEME, AUTHORITY, PATH])),
    case("8.3.1", "two :path", Malformed, |c| of(c, &[METHOD, SCHEME, AUTHORITY, PATH, PATH])),
    case("8.3.1", "two :authority", Malformed, |c| {
        of(c, &[METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH])
    }),
    case("8.3.1", "userinfo in :authority", Malformed, |c| {
        of(c, &[METHOD, SCHEME, (":authority", "me@test"), PATH])
    }),
    case("8.3.1", "host that disagrees with :authority", Malformed, |c| {
        of(c, &[METHOD, SCHEME, AUTHORITY, PATH, ("host", "other")])
    }),
    case("8.3.1", "host that agrees with :authority", Answered(200), |c| {
        of(c, &[METHOD, SCHEME, AUTHORITY, PATH, ("host", "test")])
    }),
    case("8.3.1", "host instead of :authority", Answered(200), |c| {
        of(c, &[METHOD, SCHEME, PATH, ("host", "test")])
    }),
    case("8.3.1", "neither host nor :authority", Malformed, |c| of(c, &[METHOD, SCHEME, PATH])),
    case("8.5", "CONNECT with :path", Malformed, |c| {
        of(c, &[(":method", "CONNECT"), (":authority", "test:80"), PATH])
    }),
    case("8.5", "CONNECT with :scheme", Malformed, |c| {
        of(c, &[(":method", "CONNECT"), SCHEME, (":authority", "test:80")])
    }),
    case("8.5", "CONNECT without :authority", Malformed, |c| of(c, &[(":method", "CONNECT")])),
    case("8.5", "CONNECT where nothing is forwarded", Answered(405), |c| {
        of(c, &[(":method", "CONNECT"), (":authority", "test:80")])
    }),
    case("RFC 8441 4", ":protocol without CONNECT", Malformed, |c| {
        of(c, &[METHOD, SCHEME, AUTHORITY, PATH, (":protocol", "websocket")])
    }),
];

#[test]
fn pseudo_fields() {
    hold(PSEUDO_FIELDS);
}

#[test]
fn extended_connect_needs_the_setting() {
    let served = serve();
    let mut client = served.open();
    let is_offered = client.setting(ENABLE_CONNECT_PROTOCOL) == Some(1);
    let stream = client.begin(&Block::pseudo(&[
        (":method", "CONNECT"),
        (":protocol", "nobody-knows-it"),
        (":scheme", "http"),
        (":authority", "test"),
        (":path", "/"),
    ]));
    let outcome = outcome(&mut client, stream);
    let is_refused = matches!(outcome, Ok(400..600));
    assert!(judge(Malformed, &outcome).0 || (is_offered && is_refused), "{outcome:?}");
    assert_eq!(served.open().get("/").text(), "fine");
}

#[test]
fn answers_are_well_formed() {
    let served = serve();
    let mut client = served.open();
    for (method, path, status, length) in [
        ("GET", "/", 200, 4),
        ("HEAD", "/", 200, 0),
        ("GET", "/none", 204, 0),
        ("GET", "/no", 404, 30),
    ] {
        let stream = client.request(&Block::request(method, path));
        let answer = client.answer(stream);
        assert_eq!((answer.status, answer.body.len()), (status, length), "{method} {path}");
        assert_eq!(answer.fields[0].0, ":status", "8.3: first");
        assert_eq!(answer.fields.iter().filter(|(name, _)| name.starts_with(':')).count(), 1);
        for (name, _) in &answer.fields {
            assert_eq!(*name, name.to_lowercase(), "8.2");
            let hop =
                ["connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"];
            assert!(!hop.contains(&name.as_str()), "8.2.2: {name}");
        }
    }
    let stream = client.request(&Block::request("HEAD", "/"));
    assert_eq!(client.answer(stream).field("content-length"), Some("4"), "8.1.1");
}

#[test]
fn many_streams_are_answered_in_any_order() {
    let served = serve();
    let mut client = served.open();
    let slow = client.request(&Block::get("/wait"));
    for _ in 0..200 {
        assert_eq!(client.get("/").text(), "fine", "5: a stream that waits holds nobody up");
    }
    served.gate.open();
    assert_eq!(client.answer(slow).text(), "waited");
}

#[test]
fn who_leaves_in_the_middle_leaves_nothing() {
    let served = serve();
    for kind in 0..30 {
        let mut client = served.open();
        match kind % 5 {
            0 => drop(client.request(&Block::get("/wait"))),
            1 => drop(client.begin(&post())),
            2 => drop(raw(&mut client, HEADERS, 0, Block::get("/").bytes())),
            3 => client.send([0, 0]),
            _ => drop(client.request(&Block::get("/large"))),
        }
    }
    let is_empty = || served.proxy.connections_open() == 0;
    assert!(eventually(is_empty), "{} are left", served.proxy.connections_open());
    served.gate.open();
    assert_eq!(served.open().get("/").text(), "fine");
}
