//! What an HTTP/2 client says is turned into HTTP/1 for endpoints that speak it: nothing in it may
//! become a line, a length or a host that the client did not have the right to say. The endpoint
//! here records the very bytes that reach it.

mod support;

use support::http2_client::*;
use support::{Block, Http2Client, Origin, Proxy, Received, Respond, edge};

struct Served {
    proxy: Proxy,
    origin: Origin,
}

fn serve() -> Served {
    let origin = Origin::start().on("GET /ok", Respond::text("ok"));
    let address = origin.address();
    let proxy = Proxy::start(&edge(&format!(
        "[[routes]]\nname = \"all\"\ncluster = \"app\"\n\
         [clusters.app]\nendpoints = [{{ address = \"{address}\" }}]\n"
    )));
    Served { proxy, origin }
}

impl Served {
    fn open(&self) -> Http2Client {
        Http2Client::open(self.proxy.address("edge"))
    }

    /// A normal request is served, and is all that the endpoint has got.
    fn is_unhurt(&self) {
        let mut client = self.open();
        let stream = client.request(&Block::get("/ok"));
        assert_eq!(client.answer(stream).text(), "ok");
        for request in self.origin.requests() {
            assert_eq!(request.method_and_target(), "GET /ok", "it got through: {request:?}");
        }
    }

    /// What the endpoint gets for a request; it was answered.
    fn got(&self, send: impl FnOnce(&mut Http2Client) -> u32) -> Received {
        let mut client = self.open();
        let stream = send(&mut client);
        client.answer(stream);
        self.origin.requests().pop().expect("it was asked")
    }
}

/// An answer of 4xx, RST_STREAM or GOAWAY; the endpoint hears nothing of it. Where the connection
/// goes on, it serves a normal request.
fn refused(blocks: &[(&str, Block)]) {
    let served = serve();
    for (what, block) in blocks {
        for has_body in [false, true] {
            let _told = ToldOfAFailure(format!("{what}, with a body: {has_body}"));
            let mut client = served.open();
            let stream = if has_body { client.begin(block) } else { client.request(block) };
            if has_body {
                let _ = client.try_send(frame(DATA, END_STREAM, stream, "hello"));
            }
            match client.try_answer(stream) {
                Ok(answer) => assert!((400..500).contains(&answer.status), "{answer:?}"),
                Err(Ended::Reset(PROTOCOL_ERROR)) => {}
                Err(Ended::Away(PROTOCOL_ERROR | COMPRESSION_ERROR)) => continue,
                Err(other) => panic!("{other:?}"),
            }
            assert_eq!(client.get("/ok").text(), "ok");
        }
    }
    served.is_unhurt();
}

/// Pseudo-header fields of a GET, one of them in place of the usual.
fn with_pseudo(name: &str, value: impl AsRef<[u8]>) -> Block {
    let usual = [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/x")];
    usual.iter().fold(Block::new(), |block, (known, its)| {
        if *known == name { block.field(known, &value) } else { block.field(known, its) }
    })
}

fn with(fields: &[(&str, &str)]) -> Block {
    fields.iter().fold(Block::get("/x"), |block, (name, value)| block.field(name, value))
}

fn each(what: &'static str, blocks: impl IntoIterator<Item = Block>) -> Vec<(&'static str, Block)> {
    blocks.into_iter().map(|block| (what, block)).collect()
}

// --- bytes that end lines ----------------------------------------------------------------------

#[test]
fn no_byte_of_a_value_can_end_a_line() {
    let evil =
        ["a\r\nx-evil: 1", "a\nx-evil: 1", "a\rx-evil: 1", "a\0b", "\r\n\r\nGET /evil HTTP/1.1"];
    for byte in (0..0x20).chain([0x7f]).filter(|byte| *byte != b'\t') {
        let value = [b'a', byte, b'b'];
        let block = Block::get("/x").field("x-a", value);
        refused(&each("a control byte in a value", [block]));
    }
    refused(&each("a line in a value", evil.map(|value| Block::get("/x").field("x-a", value))));
    let known = ["cookie", "host", "user-agent", "content-type", "te", "referer", "content-length"];
    let blocks = known.map(|name| Block::get("/x").field(name, "a\r\nx-evil: 1"));
    refused(&each("a line in a known field", blocks));
    let squeezed = Block::get("/x").squeezed("x-a", "a\r\nx-evil: 1");
    refused(&each("a line in Huffman's code", [squeezed]));
}

#[test]
fn no_byte_of_a_name_can_be_anything_else() {
    let names = [
        "x-a: evil\r\nx-b",
        "x-a:",
        ":x",
        "x a",
        "x-a ",
        " x-a",
        "x\ta",
        "x\r\ny",
        "x\0",
        "X-A",
        "Content-Length",
        "Transfer-Encoding",
        "x(",
        "x\"",
        "x/y",
        "x\u{e4}",
        "",
        "x\u{7f}",
        "x,y",
    ];
    refused(&each("a name", names.map(|name| Block::get("/x").field(name, "1"))));
}

#[test]
fn no_byte_of_a_request_line_can_be_anything_else() {
    let evil = "GET /evil HTTP/1.1\r\nhost: test\r\n\r\n";
    let methods = [
        evil,
        "GET ",
        " GET",
        "GET /evil",
        "G\tT",
        "G\r\nT",
        "G\0T",
        "",
        "G:T",
        "G(T",
        "G\u{e4}T",
        "GET / HTTP/1.1\r\nx:",
    ];
    refused(&each("a method", methods.map(|method| with_pseudo(":method", method))));
    let paths = [
        "",
        "x",
        "http://test/",
        "//\r\n",
        "/a b",
        "/a HTTP/1.1\r\nx: y\r\n\r\nGET /evil",
        "/a\t",
        "/\0",
        "/\r",
        "/\n",
        "/\u{7f}",
        "/\u{e4}",
        "*",
        "?x",
        "test:80",
        " /",
        "\\x",
    ];
    refused(&each("a path", paths.map(|path| with_pseudo(":path", path))));
    let schemes = ["", "ht tp", "http\r\n", "http:", "://", "http://evil/", "ht\0tp", "ä", "h/t"];
    refused(&each("a scheme", schemes.map(|scheme| with_pseudo(":scheme", scheme))));
}

/// It becomes the value of `Upgrade` (RFC 8441).
#[test]
fn no_byte_of_a_protocol_can_be_anything_else() {
    let protocols = ["", "web socket", "websocket\r\nx: y", "a\0", "a, b", "chunked;q=1", "\u{e4}"];
    let block = |protocol: &str| {
        let fields = [(":method", "CONNECT"), (":scheme", "http"), (":authority", "test")];
        Block::pseudo(&fields).field(":path", "/x").field(":protocol", protocol)
    };
    refused(&each("a protocol", protocols.map(block)));
}

#[test]
fn a_fragment_never_leaves_the_proxy() {
    let served = serve();
    let mut client = served.open();
    let stream = client.request(&with_pseudo(":path", "/x#y"));
    drop(client.try_answer(stream));
    assert!(served.origin.requests().iter().all(|request| !request.head.contains('#')));
    assert_eq!(served.open().get("/ok").text(), "ok");
}

#[test]
fn the_asterisk_is_for_options_alone() {
    let served = serve();
    let block = Block::request("OPTIONS", "*");
    let request = served.got(|client| client.request(&block));
    assert_eq!(request.method_and_target(), "OPTIONS *");
}

// --- who is asked ------------------------------------------------------------------------------

#[test]
fn an_unclear_host_is_refused() {
    let authorities = [
        "",
        " ",
        "a b",
        "a, b",
        "a/b",
        "a?b",
        "a#b",
        "me@test",
        "me:pw@test",
        "@test",
        "test:",
        "test:0",
        "test:65536",
        "test:+80",
        "test:80:80",
        "test\r\nx: y",
        "test\0",
        "[::1",
        "::1",
        "http://test",
        "t\u{e4}st",
        "test\\",
    ];
    refused(&each("an authority", authorities.map(|name| with_pseudo(":authority", name))));
    let hosts = ["other", "test:81", "test.", "", "test, test", "a@test", "test\r\nx: y"];
    let blocks = hosts.map(|host| Block::get("/x").field("host", host));
    refused(&each("a host beside :authority", blocks));
    let alone = Block::pseudo(&[(":method", "GET"), (":scheme", "http"), (":path", "/x")]);
    let blocks =
        ["", "a b", "me@test", "test:0", "a/b"].map(|host| alone.clone().field("host", host));
    refused(&each("a host alone", blocks));
    refused(&each(
        "several hosts",
        [
            alone.clone().field("host", "test").field("host", "test"),
            alone.clone().field("host", "test").field("host", "other"),
            Block::get("/x").field("host", "test").field("host", "test"),
            alone.clone(),
            alone.field("host_", "test"),
        ],
    ));
}

#[test]
fn one_host_goes_to_the_endpoint() {
    let served = serve();
    let alone = Block::pseudo(&[(":method", "GET"), (":scheme", "http"), (":path", "/x")]);
    for (block, host) in [
        (Block::get("/x"), "test"),
        (Block::get("/x").field("host", "test"), "test"),
        (alone.field("host", "named:8080"), "named:8080"),
        (with_pseudo(":authority", "named:8080"), "named:8080"),
        (with_pseudo(":authority", "[::1]:8080"), "[::1]:8080"),
    ] {
        let request = served.got(|client| client.request(&block));
        assert_eq!(request.headers("host"), [host], "{}", request.head);
    }
}

#[test]
fn pseudo_header_fields_stand_once_and_first() {
    let all = [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/x")];
    let mut blocks = Vec::new();
    for (at, twice) in all.iter().enumerate() {
        blocks.push(("one twice", Block::pseudo(&[&all[..], &[*twice]].concat())));
        let other = match twice.0 {
            ":method" => "POST",
            ":scheme" => "https",
            ":authority" => "other",
            _ => "/evil",
        };
        blocks.push(("one twice", Block::pseudo(&[&all[..], &[(twice.0, other)]].concat())));
        let mut without = all.to_vec();
        without.remove(at);
        if twice.0 != ":authority" {
            blocks.push(("one missing", Block::pseudo(&without)));
        }
        let late = [&without[..], &[("x-a", "1"), *twice]].concat();
        blocks.push(("one behind a field", Block::pseudo(&late)));
    }
    for stranger in [":x", ":status", ":host", ":Method", ": method", ":", "::path"] {
        blocks.push(("a stranger", with(&[(stranger, "200")])));
    }
    refused(&blocks);
}

// --- how long it is ----------------------------------------------------------------------------

#[test]
fn fields_of_a_connection_are_refused() {
    refused(&each(
        "a field of the connection",
        [
            with(&[("transfer-encoding", "chunked")]),
            with(&[("transfer-encoding", "identity")]),
            with(&[("transfer-encoding", "")]),
            with(&[("transfer-encoding", "chunked"), ("content-length", "5")]),
            with(&[("transfer_encoding", "chunked")]),
            with(&[("connection", "close")]),
            with(&[("connection", "content-length")]),
            with(&[("connection", "x-forwarded-for")]),
            with(&[("keep-alive", "timeout=5")]),
            with(&[("proxy-connection", "close")]),
            with(&[("proxy_connection", "close")]),
            with(&[("upgrade", "websocket")]),
            with(&[("upgrade", "h2c"), ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA")]),
            with(&[("te", "gzip")]),
            with(&[("te", "trailers, gzip")]),
            with(&[("te", "chunked")]),
            with(&[("te", "")]),
        ],
    ));
}

#[test]
fn an_unclear_length_is_refused() {
    let lengths = [
        "+5",
        "-5",
        "0x5",
        "5.0",
        "5 5",
        " 5",
        "5 ",
        "",
        "5, 5",
        "5,5",
        "5;",
        "five",
        "18446744073709551616",
        "99999999999999999999",
        "5\t",
        "\u{ff15}",
    ];
    refused(&each("a length", lengths.map(|length| with(&[("content-length", length)]))));
    refused(&each(
        "lengths",
        [
            with(&[("content-length", "5"), ("content-length", "5")]),
            with(&[("content-length", "5"), ("content-length", "6")]),
            with(&[("content-length", "5"), ("content-length", "+5")]),
            with(&[("content-length", "5"), ("content_length", "6")]),
            with(&[("content_length", "5")]),
        ],
    ));
}

/// Part of such a body may have reached the endpoint before it shows; as a whole request it never
/// does, and nothing behind it is taken for one.
#[test]
fn a_body_of_another_length_than_said_is_never_a_request() {
    let served = serve();
    let bodies: [(&str, &[&str]); 6] = [
        ("5", &["hell"]),
        ("5", &["hello!"]),
        ("0", &["GET /evil HTTP/1.1\r\nhost: test\r\n\r\n"]),
        ("3", &["abc", "GET /evil HTTP/1.1\r\nhost: test\r\n\r\n"]),
        ("5", &[""]),
        ("100000", &["a", "b", "c"]),
    ];
    for (length, pieces) in bodies {
        for waits in [false, true] {
            let _told = ToldOfAFailure(format!("{length} for {pieces:?}"));
            let mut client = served.open();
            let block = Block::request("POST", "/x").field("content-length", length);
            let stream = client.begin(&block);
            let mut is_over = false;
            for (at, piece) in pieces.iter().enumerate() {
                let flags = if at + 1 == pieces.len() { END_STREAM } else { 0 };
                client.data(stream, flags, piece);
                if waits {
                    let frames = client.settle().expect("it goes on");
                    let ends = |frame: &Frame| [HEADERS, RST_STREAM].contains(&frame.kind);
                    is_over |= frames.iter().any(|frame| frame.stream == stream && ends(frame));
                }
            }
            if !is_over {
                match client.try_answer(stream) {
                    Ok(answer) => assert!((400..500).contains(&answer.status), "{answer:?}"),
                    Err(ended) => assert_eq!(ended, Ended::Reset(PROTOCOL_ERROR)),
                }
            }
            assert_eq!(client.get("/ok").text(), "ok");
        }
    }
    // What came in time, and was as long as said, is a request.
    for request in served.origin.requests() {
        let is_whole = request.method_and_target() == "POST /x"
            && [b"abc".as_slice(), b""].contains(&request.body.as_slice());
        assert!(is_whole || request.method_and_target() == "GET /ok", "{request:?}");
    }
}

#[test]
fn a_body_is_framed_anew_for_the_endpoint() {
    let served = serve();
    let evil = "0\r\n\r\nGET /evil HTTP/1.1\r\nhost: test\r\n\r\n";
    for (block, is_chunked) in [
        (Block::request("POST", "/x"), true),
        (Block::request("POST", "/x").field("content-length", evil.len().to_string()), false),
    ] {
        let request = served.got(|client| {
            let stream = client.begin(&block);
            client.data(stream, 0, &evil[..7]);
            client.data(stream, PADDED, [&[4][..], &evil.as_bytes()[7..20], b"\r\n\r\n"].concat());
            client.data(stream, END_STREAM, &evil[20..]);
            stream
        });
        assert_eq!(request.body, evil.as_bytes());
        assert_eq!(request.headers("transfer-encoding").len(), usize::from(is_chunked));
        assert_eq!(request.headers("content-length").len(), usize::from(!is_chunked));
    }
    assert_eq!(served.origin.requests().len(), 2, "{:?}", served.origin.requests());
}

#[test]
fn a_request_without_a_body_has_none_at_the_endpoint() {
    let served = serve();
    let request = served.got(|client| client.request(&Block::get("/x")));
    assert!(request.headers("transfer-encoding").is_empty(), "{}", request.head);
    assert!(request.headers("content-length").is_empty(), "{}", request.head);
    let request = served.got(|client| client.request(&Block::request("POST", "/x")));
    assert!(request.body.is_empty(), "{request:?}");
    let request = served.got(|client| {
        let stream = client.begin(&Block::request("POST", "/x").field("content-length", "0"));
        client.data(stream, END_STREAM, b"");
        stream
    });
    assert_eq!(request.headers("content-length"), ["0"], "{}", request.head);
}

#[test]
fn trailers_are_fields_and_nothing_else() {
    let served = serve();
    let sent = |trailers: &Block| {
        let mut client = served.open();
        let stream = client.begin(&Block::request("POST", "/x"));
        client.data(stream, 0, "hello");
        client.send(headers(stream, END_STREAM, trailers));
        client.try_answer(stream)
    };
    assert!(sent(&Block::new().field("x-sum", "5")).is_ok());
    let request = served.origin.requests().pop().expect("it was asked");
    assert_eq!(request.trailers, [("x-sum".to_owned(), "5".to_owned())]);
    for (name, value) in [
        ("x-a", "1\r\nx-evil: 1"),
        ("x-a\r\nx-evil", "1"),
        ("X-Up", "1"),
        ("connection", "close"),
        ("x a", "1"),
    ] {
        assert!(sent(&Block::new().field(name, value)).is_err(), "{name}: {value}");
    }
    // Fields that frame or route a message may not come in trailers (RFC 9110 section 6.5.1): they
    // are dropped, or the message is refused.
    let before = served.origin.requests().len();
    for (name, value) in
        [("content-length", "9"), ("host", "other"), (":path", "/evil"), ("te", "trailers")]
    {
        drop(sent(&Block::new().field(name, value)));
    }
    for request in &served.origin.requests()[before..] {
        assert!(request.trailers.is_empty(), "{request:?}");
        assert_eq!(request.method_and_target(), "POST /x");
        assert_eq!(request.headers("host"), ["test"]);
    }
    assert_eq!(served.open().get("/ok").text(), "ok");
}

// --- what is turned into something else --------------------------------------------------------

#[test]
fn cookies_in_pieces_are_one_line_for_the_endpoint() {
    let served = serve();
    let block =
        with(&[("cookie", "a=1"), ("x-between", "1"), ("cookie", "b=2"), ("cookie", "c=3; d=4")]);
    let request = served.got(|client| client.request(&block));
    assert_eq!(request.headers("cookie"), ["a=1; b=2; c=3; d=4"], "9113 8.2.3: {}", request.head);
    assert_eq!(request.headers("x-between"), ["1"]);
}

#[test]
fn twins_with_underscores_are_refused_and_other_underscores_pass() {
    refused(&each(
        "twins",
        [
            with(&[("x-user", "a"), ("x_user", "b")]),
            with(&[("x_forwarded_for", "6.6.6.6")]),
            with(&[("x-forwarded_for", "6.6.6.6")]),
            with(&[("x_request_id", "6")]),
        ],
    ));
    let served = serve();
    let request = served.got(|client| client.request(&with(&[("my_token", "1")])));
    assert_eq!(request.headers("my_token"), ["1"]);
}

#[test]
fn names_of_lines_and_the_hop_are_the_proxys_own() {
    let served = serve();
    let block =
        with(&[("te", "trailers"), ("x-forwarded-for", "6.6.6.6"), ("x-a", "1"), ("x-a", "2")]);
    let request = served.got(|client| client.request(&block));
    assert_eq!(request.headers("x-a"), ["1", "2"]);
    assert!(request.head.starts_with("GET /x HTTP/1.1\r\n"), "{}", request.head);
    assert!(!request.head.contains("\n:"), "{}", request.head);
    assert!(request.headers("http2-settings").is_empty());
}

#[test]
fn a_request_that_is_reset_in_the_middle_is_never_whole_at_the_endpoint() {
    let served = serve();
    for _ in 0..20 {
        let mut client = served.open();
        let stream = client.begin(&Block::request("POST", "/x"));
        client.data(stream, 0, "GET /evil HTTP/1.1\r\nhost: test\r\n\r\n");
        client.settle().expect("it goes on");
        client.send(reset(stream, CANCEL));
        assert_eq!(client.get("/ok").text(), "ok");
    }
    served.is_unhurt();
}
