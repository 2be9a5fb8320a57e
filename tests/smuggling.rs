//! What two parties could read differently is refused: from clients with an answer and a close,
//! from upstreams with a 502. The rules one by one, byte by byte, are tested where they are written
//! (`http1/parse`, `http1/body`); here the whole proxy is held against them over the wire.

mod support;

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use support::{After, Gate, Origin, Proxy, RawClient, Respond, edge};

fn proxy_to(origin: &Origin) -> Proxy {
    let address = origin.address();
    Proxy::start(&edge(&format!(
        "[[routes]]\nname = \"all\"\ncluster = \"app\"\n\
         [clusters.app]\nendpoints = [{{ address = \"{address}\" }}]\n"
    )))
}

/// What an attacker would like to get through behind a request of unclear length.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Every way of sending `bytes` ends in this refusal, and nothing of it reaches the origin.
fn refused(proxy: &Proxy, bytes: &[u8], status: u16) {
    let shown = bytes[..bytes.len().min(200)].escape_ascii();
    for split in [None, Some(bytes.len() / 2), Some(bytes.len() - 1)] {
        let mut client = proxy.client();
        let (first, second) = bytes.split_at(split.unwrap_or(bytes.len()));
        client.send(first);
        if !second.is_empty() {
            thread::sleep(Duration::from_millis(1));
            let _ = client.try_send(second); // it may be refused by its beginning
        }
        let response = client
            .try_read_response_to("GET")
            .unwrap_or_else(|error| panic!("{shown} split at {split:?}: {error}"));
        assert_eq!(response.status, status, "{shown} split at {split:?}: {response:?}");
        assert_eq!(response.header("connection"), Some("close"), "{shown}");
        assert_eq!(response.header("content-type"), Some("application/json"), "{shown}");
        assert!(response.text().starts_with("{\"error\":{\"code\":\""), "{response:?}");
        ended(&mut client, &shown.to_string());
    }
}

fn ended(client: &mut RawClient, shown: &str) {
    let error = client.try_read_response_to("GET").expect_err(shown);
    assert!(error.to_string().contains("closed after 0 bytes"), "{shown}: {error}");
}

/// Refuses each text (a request, with SMUGGLED behind it), then serves somebody else.
fn all_refused(status: u16, texts: &[&[u8]]) {
    let origin = Origin::start().on("GET /ok", Respond::text("ok"));
    let proxy = proxy_to(&origin);
    for text in texts {
        refused(&proxy, &[text, SMUGGLED.as_bytes()].concat(), status);
    }
    assert_eq!(proxy.client().get("/ok").text(), "ok");
    assert_eq!(origin.only_request().method_and_target(), "GET /ok");
}

/// The same for header lines of a POST with 5 bytes of body.
fn all_lines_refused(lines: &[&str]) {
    let texts: Vec<_> = lines
        .iter()
        .map(|lines| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n0\r\n\r\n"))
        .collect();
    all_refused(400, &texts.iter().map(String::as_bytes).collect::<Vec<_>>());
}

// --- from clients ------------------------------------------------------------------------------

#[test]
fn an_unclear_length_is_refused() {
    all_lines_refused(&[
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\ncontent-length: 5",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5.0",
        "Content-Length: 5 5",
        "Content-Length: ",
        "Content-Length: 18446744073709551616",
        "Content_Length: 5",
        "Content-Length: 5\r\nContent_Length: 6",
    ]);
}

#[test]
fn a_transfer_encoding_other_than_chunked_is_refused() {
    all_lines_refused(&[
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding:",
        "Transfer-Encoding : chunked",
        "Transfer_Encoding: chunked",
        " Transfer-Encoding: chunked",
        "X: 1\r\n Transfer-Encoding: chunked",
        "X: 1\r\n\tTransfer-Encoding: chunked",
    ]);
    all_refused(400, &[b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]);
}

#[test]
fn broken_lines_are_refused() {
    all_lines_refused(&[
        "X: 1\nContent-Length: 5",
        "X: 1\rContent-Length: 5",
        "X: a\0b",
        "X: a\x01b",
        "X: a\x7fb",
        "X : 1",
        "X\t: 1",
        "X Y: 1",
        ": 1",
        "X",
        "X\0: 1",
        "X(: 1",
        "X\u{e4}: 1",
        "Connection: content-length\r\nContent-Length: 5",
        "Connection: host",
        "Connection: x-forwarded-for",
    ]);
    all_refused(
        400,
        &[
            b"GET / HTTP/1.1\nHost: a\n\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n",
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        ],
    );
}

#[test]
fn an_unclear_host_is_refused() {
    all_refused(
        400,
        &[
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost_: a\r\nHo_st: b\r\nHo-st: c\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a:0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: \xe4\r\n\r\n",
            b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
            b"GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n",
            b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
}

#[test]
fn broken_request_lines_are_refused() {
    all_refused(
        400,
        &[
            b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1x\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1,1\r\nHost: a\r\n\r\n",
            b"GET / http/1.1\r\nHost: a\r\n\r\n",
            b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"G{T / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n",
        ],
    );
    all_refused(
        505,
        &[
            b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n",
        ],
    );
    all_refused(417, &[b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 0\r\n\r\n"]);
}

#[test]
fn broken_chunks_are_refused() {
    let bodies = [
        "\r\n",
        "x\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5;a=\n\r\nhello\r\n0\r\n\r\n",
        "5;a=\0\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff1\r\n",
        "0\r\nX : 1\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\nX: 1\n\r\n",
        "0\r\n X: 1\r\n\r\n",
        "0\r\nX: \0\r\n\r\n",
        "0\n\r\n",
    ];
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let texts: Vec<_> = bodies.iter().map(|body| format!("{head}{body}")).collect();
    all_refused(400, &texts.iter().map(String::as_bytes).collect::<Vec<_>>());
    let long = format!("{head}5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(300));
    let trailers = format!("{head}0\r\n{}\r\n", "X: 123456789\r\n".repeat(1000));
    all_refused(400, &[long.as_bytes(), trailers.as_bytes()]);
}

#[test]
fn chunks_that_break_after_the_origin_has_part_of_the_body_are_refused() {
    let origin = Origin::start().on("GET /ok", Respond::text("ok"));
    let proxy = proxy_to(&origin);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    thread::sleep(Duration::from_millis(50));
    client.send(format!("0x5\r\nhello\r\n0\r\n\r\n{SMUGGLED}"));
    assert_eq!(client.read_response().status, 400);
    ended(&mut client, "a chunk size with 0x");
    assert_eq!(proxy.client().get("/ok").text(), "ok");
    assert_eq!(origin.only_request().method_and_target(), "GET /ok");
}

#[test]
fn twins_with_underscores_are_refused_and_other_underscores_pass() {
    all_lines_refused(&[
        "Content-Length: 5\r\nX-User: a\r\nX_User: b",
        "Content-Length: 5\r\nx_user: a\r\nX-USER: b",
        "Content-Length: 5\r\nX_Forwarded_For: 6.6.6.6",
        "Content-Length: 5\r\nX-Forwarded_For: 6.6.6.6",
        "Content-Length: 5\r\nX_Request_Id: 6",
        "Content-Length: 5\r\nProxy_Connection: x",
    ]);
    let origin = Origin::start().on("GET /", Respond::text("ok"));
    let proxy = proxy_to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nmy_token: 1\r\n\r\n");
    assert_eq!(client.read_response().text(), "ok");
    assert_eq!(origin.only_request().header("my_token"), Some("1"));
}

// --- from upstreams ----------------------------------------------------------------------------

/// Each answer is a 502 on a connection that goes on, and its upstream connection is not used
/// again.
fn all_answers_refused(answers: &[&[u8]]) {
    for answer in answers {
        let shown = answer[..answer.len().min(200)].escape_ascii().to_string();
        let behind = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
        let bytes = [answer, &behind[..]].concat();
        let origin = Origin::raw(move |stream, request, _| {
            let ok: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            let bytes = if request.starts_with(b"GET /ok") { ok } else { &bytes };
            stream.write_all(bytes).map_or(After::Close, |()| After::KeepOpen)
        });
        let proxy = proxy_to(&origin);
        for _ in 0..2 {
            let mut client = proxy.client();
            let response = client.get("/");
            assert_eq!(response.status, 502, "{shown}: {response:?}");
            assert!(response.text().contains("\"BACKEND_INVALID_RESPONSE\""), "{response:?}");
            let mut client =
                if response.header("connection").is_some() { proxy.client() } else { client };
            assert_eq!(client.get("/ok").text(), "ok", "after {shown}");
        }
        assert!(origin.connections_accepted() >= 3, "{shown}: a bad connection was used again");
    }
}

#[test]
fn an_answer_of_unclear_length_is_a_502() {
    all_answers_refused(&[
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ]);
}

#[test]
fn a_broken_answer_head_is_a_502() {
    all_answers_refused(&[
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nX: 1\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX : 1\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 99 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 2\r\n\r\nok",
    ]);
}

#[test]
fn an_answer_head_that_is_too_large_is_a_502() {
    let line = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    let lines = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: 1\r\n".repeat(300));
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(200_000));
    all_answers_refused(&[line.as_bytes(), lines.as_bytes(), endless.as_bytes()]);
}

#[test]
fn broken_chunks_of_an_answer_are_a_502() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bodies = [
        "+2\r\nok\r\n0\r\n\r\n",
        "0x2\r\nok\r\n0\r\n\r\n",
        "\r\nok\r\n0\r\n\r\n",
        "2\nok\r\n0\r\n\r\n",
        "2\r\nokXX0\r\n\r\n",
        "ffffffffffffffffff\r\nok\r\n0\r\n\r\n",
        "0\r\nX : 1\r\n\r\n",
    ];
    let texts: Vec<_> = bodies.iter().map(|body| format!("{head}{body}")).collect();
    all_answers_refused(&texts.iter().map(String::as_bytes).collect::<Vec<_>>());
}

#[test]
fn chunks_of_an_answer_that_break_in_the_middle_cut_it() {
    let gate = Gate::new();
    let arrived = gate.clone();
    let origin = Origin::raw(move |stream, request, _| {
        if request.starts_with(b"GET /ok") {
            let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            return stream.write_all(ok).map_or(After::Close, |()| After::KeepOpen);
        }
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        let _ = stream.write_all(head);
        arrived.wait();
        let _ = stream.write_all(b"0x5\r\nhello\r\n0\r\n\r\n");
        After::KeepOpen
    });
    let proxy = proxy_to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\n5\r\nhello\r\n") {
        received.extend(client.read_exactly(1));
    }
    gate.open();
    assert_eq!(client.read_to_close(), b"");
    assert_eq!(proxy.client().get("/ok").text(), "ok");
}

#[test]
fn a_body_where_none_may_stand_is_not_taken_for_the_next_answer() {
    let origin = Origin::raw(|stream, request, _| {
        let answer: &[u8] = match request {
            [b'H', ..] => {
                b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\nHTTP/1.1 200 OK\r\nX: evil"
            }
            [b'G', b'E', b'T', b' ', b'/', b'2', ..] => {
                b"HTTP/1.1 204 No Content\r\nContent-Length: 40\r\n\r\nHTTP/1.1 200 OK\r\nX: evil"
            }
            [b'G', b'E', b'T', b' ', b'/', b'3', ..] => {
                b"HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\nX: evil"
            }
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        stream.write_all(answer).map_or(After::Close, |()| After::KeepOpen)
    });
    let proxy = proxy_to(&origin);
    let mut client = proxy.client();
    for (line, status) in [("HEAD /", 200), ("GET /2", 204), ("GET /3", 304)] {
        client.send(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.read_response_to(line.split(' ').next().expect("a method"));
        assert_eq!(response.status, status, "{line}");
        assert_eq!(client.get("/ok").text(), "ok", "after {line}");
    }
    assert_eq!(origin.connections_accepted(), 4);
}
