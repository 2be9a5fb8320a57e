//! HTTP/1.1 on both sides of the real binary: connections, framing, interim and early answers,
//! endings. What is refused is in `smuggling`, what is rewritten in `heads`, what fails in
//! `failures`.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use support::{
    After, Json, Origin, PATIENCE, Proxy, RawClient, Respond, Response, edge, eventually,
};

/// Everything goes to `origin`; `rest` is appended to the configuration.
fn proxy_to(origin: &Origin, rest: &str) -> Proxy {
    let address = origin.address();
    Proxy::start(&edge(&format!(
        "[[routes]]\nname = \"all\"\ncluster = \"app\"\n\
         [clusters.app]\nendpoints = [{{ address = \"{address}\" }}]\n{rest}"
    )))
}

/// Answers every request with its method and target.
fn echo() -> Origin {
    Origin::raw(|stream, request, _| {
        let line = String::from_utf8_lossy(request);
        let line = line.split(" HTTP/").next().unwrap_or_default().to_owned();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", line.len());
        let body = if line.starts_with("HEAD ") { "" } else { &line };
        written(stream, &format!("{head}{body}"))
    })
}

/// Answers every request with these bytes, and ends like that.
fn scripted(answer: &'static str, after: After) -> Origin {
    Origin::raw(move |stream, _, _| {
        written(stream, answer);
        after
    })
}

fn written(stream: &mut TcpStream, text: &str) -> After {
    stream.write_all(text.as_bytes()).map_or(After::Close, |()| After::KeepOpen)
}

/// Whether the peer has ended its side with a FIN, and nothing came before it.
fn ends_cleanly(client: &mut RawClient) -> bool {
    let error = client.try_read_response_to("GET").expect_err("nothing more is expected");
    assert!(error.to_string().contains("closed after 0 bytes"), "{error}");
    true
}

fn is_alive(proxy: &Proxy, target: &str) -> bool {
    proxy.client().get(target).status == 200
}

// --- connections -----------------------------------------------------------------------------

#[test]
fn one_upstream_connection_serves_all_requests_of_one_client_after_another() {
    let origin = Origin::start()
        .on("GET /small", Respond::text("small"))
        .on("GET /chunks", Respond::bytes([7; 100_000]).chunked(1000))
        .on("GET /big", Respond::bytes(vec![8; 1 << 20]));
    let proxy = proxy_to(&origin, "");
    for _ in 0..3 {
        let mut client = proxy.client();
        for _ in 0..3 {
            assert_eq!(client.get("/small").text(), "small");
            assert_eq!(client.get("/chunks").body, [7; 100_000]);
            assert_eq!(client.get("/big").body, vec![8; 1 << 20]);
        }
    }
    assert_eq!(origin.connections_accepted(), 1);
}

#[test]
fn a_connection_is_closed_when_either_side_says_so() {
    let origin = Origin::start()
        .on("GET /", Respond::text("kept"))
        .on("GET /last", Respond::text("last").header("Connection", "close"));
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let response = client.read_response();
    assert_eq!((response.text(), response.header("connection")), ("kept", Some("close")));
    assert!(ends_cleanly(&mut client));
    // The origin's wish is about its own connection, not about the client's.
    let mut client = proxy.client();
    let response = client.get("/last");
    assert_eq!((response.text(), response.header("connection")), ("last", None));
    assert_eq!(client.get("/").text(), "kept");
    assert_eq!(origin.connections_accepted(), 2);
}

#[test]
fn http10_closes_unless_keep_alive_is_asked_for() {
    let origin = echo();
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send("GET /a HTTP/1.0\r\n\r\n");
    let response = client.read_response();
    assert_eq!((response.text(), response.header("connection")), ("GET /a", Some("close")));
    assert!(ends_cleanly(&mut client));
    let mut client = proxy.client();
    for _ in 0..3 {
        client.send("GET /b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let response = client.read_response();
        assert_eq!(
            (response.text(), response.header("connection")),
            ("GET /b", Some("keep-alive"))
        );
    }
    let request = &origin.requests()[0];
    assert!(request.head.starts_with("GET /a HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.header("connection"), None);
    assert_eq!(origin.connections_accepted(), 1);
}

#[test]
fn bytes_behind_a_response_end_the_connection_that_they_came_on() {
    let origin = Origin::raw(|stream, request, _| {
        let body = if request.starts_with(b"GET /more") { "okHTTP/1.1 200 OK\r\n" } else { "ok" };
        written(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}"))
    });
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/more").text(), "ok");
        assert_eq!(client.get("/").text(), "ok");
    }
    assert_eq!(origin.connections_accepted(), 4);
}

#[test]
fn bytes_that_come_while_a_connection_idles_end_it() {
    let origin = Origin::raw(|stream, _, _| {
        written(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        thread::sleep(Duration::from_millis(50));
        written(stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    });
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "ok");
        let kept = || {
            let page = Json::parse(proxy.admin_get("/admin/clusters/app").text());
            page.list("endpoints")[0].number("connections")
        };
        assert!(eventually(|| kept() == 0.0), "{} connections are kept", kept());
    }
    assert_eq!(origin.connections_accepted(), 3);
}

#[test]
fn a_half_closed_client_gets_all_its_answers() {
    let slow = Respond::text("slow").after(Duration::from_millis(100));
    let origin = Origin::start()
        .on("GET /slow", slow)
        .on("GET /fast", Respond::text("fast"))
        .on("POST /up", Respond::text("up").after(Duration::from_millis(50)));
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send(
        "GET /slow HTTP/1.1\r\nHost: a\r\n\r\nPOST /up HTTP/1.1\r\nHost: a\r\n\
         Content-Length: 3\r\n\r\nabcGET /fast HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    client.half_close();
    for expected in ["slow", "up", "fast"] {
        assert_eq!(client.read_response().text(), expected);
    }
    assert!(ends_cleanly(&mut client));
}

#[test]
fn a_client_that_leaves_mid_response_ends_the_upstream_connection() {
    let (ended, end) = mpsc::channel();
    let origin = Origin::raw(move |stream, request, _| {
        if request.starts_with(b"GET / ") {
            return written(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
        written(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = [b'x'; 65_536];
        while stream.write_all(&piece).is_ok() {}
        let _ = ended.send(());
        After::Close
    });
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_exactly(100_000);
    client.close();
    end.recv_timeout(PATIENCE).expect("the origin cannot write on");
    assert!(is_alive(&proxy, "/"));
}

#[test]
fn a_client_that_leaves_mid_request_ends_the_upstream_connection() {
    let (begun, begin) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    let origin = Origin::connections(move |mut stream, number| {
        if number > 0 {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            return;
        }
        let mut received = Vec::new();
        let mut room = [0; 4096];
        while !received.ends_with(b"\r\n\r\nabc") {
            let Ok(count @ 1..) = stream.read(&mut room) else { break };
            received.extend_from_slice(&room[..count]);
        }
        let _ = begun.send(());
        let _ = stream.read_to_end(&mut received);
        let _ = ended.send(received);
    });
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    begin.recv_timeout(PATIENCE).expect("the origin sees the beginning");
    client.close();
    let received = end.recv_timeout(PATIENCE).expect("the origin sees the end");
    assert!(received.ends_with(b"\r\n\r\nabc"), "{}", received.escape_ascii());
    assert!(is_alive(&proxy, "/"));
}

// --- pipelining ------------------------------------------------------------------------------

#[test]
fn many_requests_in_one_packet_are_answered_in_order() {
    let origin = echo();
    let proxy = proxy_to(&origin, "[[routes]]\nname = \"own\"\npaths = [\"/own\"]\nrespond = {}\n");
    let mut client = proxy.client();
    let one = |number: usize| match number % 3 {
        0 => format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"),
        1 => format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\nGET / H"),
        _ => "GET /own HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    };
    client.send((0..300).map(one).collect::<String>());
    for number in 0..300 {
        let response = client.read_response();
        match number % 3 {
            0 => assert_eq!(response.text(), format!("GET /{number}")),
            1 => assert_eq!(response.text(), format!("POST /{number}")),
            _ => assert_eq!((response.status, response.text()), (200, "")),
        }
    }
    assert_eq!(origin.connections_accepted(), 1);
}

#[test]
fn two_pipelined_requests_may_be_cut_at_any_byte() {
    let origin = Origin::raw(|stream, request, _| {
        let body = if request.starts_with(b"GET /2") { "second" } else { "first" };
        written(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    });
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    let framings = [
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\nX-T: v\r\n\r\n",
    ];
    let mut expected = 0;
    for framing in framings {
        let both =
            format!("PUT /1 HTTP/1.1\r\nHost: a\r\n{framing}GET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
        for at in 0..=both.len() {
            client.send_split(&both, at);
            assert_eq!(client.read_response().text(), "first", "{framing:?} cut at {at}");
            assert_eq!(client.read_response().text(), "second", "{framing:?} cut at {at}");
            expected += 2;
        }
        client.send_byte_by_byte(&both);
        assert_eq!(client.read_response().text(), "first");
        assert_eq!(client.read_response().text(), "second");
        expected += 2;
    }
    let requests = origin.requests();
    assert_eq!((requests.len(), origin.connections_accepted()), (expected, 1));
    for put in requests.iter().filter(|request| request.head.starts_with("PUT")) {
        assert_eq!(put.body, b"hello");
    }
}

#[test]
fn a_failure_does_not_take_the_request_behind_it_for_a_body() {
    let origin = Origin::raw(|stream, request, _| {
        if request.starts_with(b"POST") {
            return After::Close; // a failure after which the client's connection stays open
        }
        written(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
         GET /behind HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(client.read_response().status, 502);
    assert_eq!(client.read_response().text(), "ok");
    let last = origin.requests().pop().expect("two requests came");
    assert_eq!(last.method_and_target(), "GET /behind");
}

#[test]
fn a_failure_in_the_middle_of_an_upload_closes_the_connection() {
    let origin = Origin::connections(|mut stream, number| {
        let _ = stream.read(&mut [0; 4096]);
        if number > 0 {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        } // else: gone without an answer, in the middle of the request
    });
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello");
    let response = client.read_response();
    assert_eq!((response.status, response.header("connection")), (502, Some("close")));
    // What would be the rest of the body is nobody's request.
    let _ = client.try_send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(ends_cleanly(&mut client));
    assert!(is_alive(&proxy, "/"));
    assert_eq!(origin.connections_accepted(), 2);
}

#[test]
fn a_client_that_never_stops_pipelining_does_not_shut_the_others_out() {
    let origin = echo();
    let proxy = proxy_to(&origin, "[[routes]]\nname = \"own\"\npaths = [\"/own\"]\nrespond = {}\n");
    let mut flood = TcpStream::connect(proxy.address("edge")).expect("it accepts");
    let mut answers = flood.try_clone().expect("a socket can be cloned");
    thread::spawn(move || {
        let many = "GET /own HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4000);
        while flood.write_all(many.as_bytes()).is_ok() {}
    });
    let reader = thread::spawn(move || {
        let mut room = vec![0; 1 << 20];
        while answers.read(&mut room).is_ok_and(|count| count > 0) {}
    });
    thread::sleep(Duration::from_millis(200));
    for _ in 0..5 {
        assert_eq!(proxy.client().get("/x").text(), "GET /x");
    }
    drop(proxy);
    reader.join().expect("the flood ends with the proxy");
}

// --- framing ---------------------------------------------------------------------------------

#[test]
fn bodies_pass_in_both_framings_both_ways() {
    let body: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    let origin = Origin::start()
        .on("PUT /length", Respond::bytes(body.clone()))
        .on("PUT /chunks", Respond::bytes(body.clone()).chunked(777));
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    for (target, size) in [("/length", 1), ("/chunks", 1000), ("/length", 3000)] {
        client.send(format!("PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n"));
        client.send(&body);
        assert_eq!(client.read_response().body, body);
        client.send(format!(
            "PUT {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        let part = &body[..size * 100];
        let mut chunks = Vec::new();
        for chunk in part.chunks(size) {
            chunks.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
            chunks.extend_from_slice(chunk);
            chunks.extend_from_slice(b"\r\n");
        }
        chunks.extend_from_slice(b"0\r\n\r\n");
        client.send(&chunks);
        assert_eq!(client.read_response().body, body);
        let requests = origin.requests();
        let [.., length, chunked] = &requests[..] else { panic!("two came") };
        assert!(length.body == body && length.header("content-length") == Some("300000"));
        assert!(chunked.body == part && chunked.header("transfer-encoding") == Some("chunked"));
    }
    assert_eq!(origin.connections_accepted(), 1);
}

#[test]
fn trailers_of_a_response_go_to_who_accepts_them() {
    let origin = scripted(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n",
        After::KeepOpen,
    );
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    let response = client.read_response();
    assert_eq!(response.text(), "abc");
    assert_eq!(response.trailers, [("X-Sum".to_owned(), "1".to_owned())]);
    assert_eq!(origin.requests()[0].header("te"), Some("trailers"));
    let response = client.get("/");
    assert_eq!((response.text(), response.trailers.len()), ("abc", 0));
    assert_eq!(origin.requests()[1].header("te"), None);
    assert_eq!(origin.connections_accepted(), 1);
}

#[test]
fn trailers_of_a_request_are_forwarded_but_for_those_that_must_not_stand_there() {
    let origin = echo();
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 1\r\nHost: evil\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
    );
    assert_eq!(client.read_response().text(), "POST /");
    let request = origin.only_request();
    assert_eq!(request.body, b"abc");
    assert_eq!(request.trailers, [("X-Sum".to_owned(), "1".to_owned())]);
}

#[test]
fn answers_without_a_body_have_none_whatever_their_head_says() {
    let origin = Origin::raw(|stream, request, _| {
        let target = String::from_utf8_lossy(request);
        let target = target.split(' ').nth(1).unwrap_or_default().to_owned();
        let head = match target.as_str() {
            "/204" => "204 No Content\r\n",
            "/204-zero" => "204 No Content\r\nContent-Length: 0\r\n",
            "/304" => "304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n",
            "/head" => "200 OK\r\nContent-Length: 5\r\n",
            "/head-chunked" => "200 OK\r\nTransfer-Encoding: chunked\r\n",
            _ => "200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        let end = if target == "/" { "" } else { "\r\n" };
        written(stream, &format!("HTTP/1.1 {head}{end}"))
    });
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    let cases = [
        ("GET", "/204", 204, None),
        ("GET", "/204-zero", 204, None),
        ("GET", "/304", 304, Some("5")),
        ("HEAD", "/head", 200, Some("5")),
        ("HEAD", "/head-chunked", 200, None),
    ];
    for (method, target, status, length) in cases {
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.read_response_to(method);
        assert_eq!((response.status, response.header("content-length")), (status, length));
        assert_eq!(client.get("/").text(), "ok", "after {method} {target}");
    }
    assert_eq!(origin.connections_accepted(), 1);
}

#[test]
fn a_body_that_ends_with_the_connection_is_chunked_for_11_and_closed_for_10() {
    let origin = Origin::start()
        .on("GET /", Respond::bytes([9; 200_000]).until_close())
        .on("GET /empty", Respond::text("").until_close());
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(response.header("transfer-encoding"), Some("chunked"));
        assert_eq!(response.header("connection"), None);
        assert_eq!(response.body, vec![9; 200_000]);
        assert_eq!(client.get("/empty").text(), "");
    }
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let response = client.read_response();
    assert_eq!(response.header("transfer-encoding"), None);
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(response.body, vec![9; 200_000]);
}

#[test]
fn a_chunked_answer_is_taken_apart_for_http10() {
    let origin = Origin::start().on("GET /", Respond::bytes([9; 100_000]).chunked(1001));
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let response = client.read_response();
    assert_eq!(response.header("transfer-encoding"), None);
    assert_eq!(response.body, vec![9; 100_000]);
    assert_eq!(proxy.client().get("/").body, vec![9; 100_000]);
    assert_eq!(origin.connections_accepted(), 1);
}

#[test]
fn a_body_cut_by_the_origin_is_cut_for_the_client() {
    let cases = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", After::Close, "short"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", After::Reset, "short"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
            After::Close,
            "5\r\nshort\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort",
            After::Close,
            "5\r\nshort\r\n",
        ),
        ("HTTP/1.1 200 OK\r\n\r\nshort", After::Reset, "5\r\nshort\r\n"),
    ];
    for (answer, after, expected) in cases {
        let origin = Origin::raw(move |stream, request, _| {
            if request.starts_with(b"GET /ok") {
                return written(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
            written(stream, answer);
            thread::sleep(Duration::from_millis(300)); // a reset may overtake what came before it
            after
        });
        let proxy = proxy_to(&origin, "");
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let received = client.read_to_close();
        let received = String::from_utf8_lossy(&received);
        let (head, body) = received.split_once("\r\n\r\n").expect("a head came");
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert_eq!(body, expected, "{answer:?} {after:?}");
        assert!(is_alive(&proxy, "/ok"));
    }
}

// --- targets and methods -----------------------------------------------------------------------

#[test]
fn targets_reach_the_origin_in_origin_form() {
    let origin = echo();
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    let cases = [
        ("GET http://a.example/x?y=1", "a.example", "GET /x?y=1"),
        ("GET http://a.example", "a.example", "GET /"),
        ("GET HTTP://a.example?y", "a.example", "GET /?y"),
        ("OPTIONS http://a.example", "a.example", "OPTIONS *"),
        ("OPTIONS *", "a.example", "OPTIONS *"),
        ("GET /%7Ea/./b//c?%20&", "a.example", "GET /%7Ea/./b//c?%20&"),
    ];
    for (line, host, expected) in cases {
        client.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.read_response().text(), expected, "{line}");
        let last = origin.requests().pop().expect("it came");
        assert_eq!(last.header("host"), Some(host), "{line}");
    }
}

#[test]
fn unknown_methods_pass_and_trace_and_connect_are_refused() {
    let origin = echo();
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    for method in ["QUERY", "PROPFIND", "get", "PATCH", "DELETE", "X-Y.Z!"] {
        client.send(format!("{method} /m HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"));
        assert_eq!(client.read_response().text(), format!("{method} /m"));
    }
    let seen = origin.requests().len();
    for line in ["TRACE /", "CONNECT a:443"] {
        let mut client = proxy.client();
        let host = if line.starts_with("CONNECT") { "a:443" } else { "a" };
        client.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let response = client.read_response();
        assert_eq!(response.status, 405, "{line}");
        let allow = response.header("allow").expect("a 405 says what is allowed");
        assert!(allow.contains("GET") && !allow.contains("TRACE"), "{allow}");
        assert!(ends_cleanly(&mut client));
    }
    assert_eq!(origin.requests().len(), seen);
    assert!(is_alive(&proxy, "/"));
}

// --- interim answers ---------------------------------------------------------------------------

const EXPECTING: &str =
    "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

#[test]
fn an_expectation_is_forwarded_and_the_100_comes_back() {
    let origin = Origin::start().on("PUT /x", Respond::text("done"));
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send(EXPECTING);
        assert_eq!(client.read_response().status, 100);
        client.send("hello");
        assert_eq!(client.read_response().text(), "done");
    }
    let requests = origin.requests();
    assert_eq!(requests[0].header("expect"), Some("100-continue"));
    assert_eq!(requests[0].body, b"hello");
    assert_eq!(origin.connections_accepted(), 1);
}

/// An origin that does not play by the rules of `Expect`: it answers as soon as it has the head.
fn hasty(answer: &'static str) -> Origin {
    Origin::connections(move |mut stream, _| {
        let mut room = [0; 65_536];
        while let Ok(count @ 1..) = stream.read(&mut room) {
            if room[..count].starts_with(b"GET") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            } else if room[..count].starts_with(b"PUT") {
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    })
}

#[test]
fn an_expectation_that_the_origin_refuses_is_refused_at_once() {
    for status in ["417 Expectation Failed", "413 Content Too Large"] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno");
        let origin = hasty(answer.leak());
        let proxy = proxy_to(&origin, "");
        let mut client = proxy.client();
        client.send(EXPECTING);
        let response = client.read_response();
        assert_eq!((response.text(), response.header("connection")), ("no", Some("close")));
        assert!(response.head.starts_with(&format!("HTTP/1.1 {status}")), "{}", response.head);
        assert!(ends_cleanly(&mut client));
        assert!(is_alive(&proxy, "/"));
    }
}

#[test]
fn a_client_that_does_not_wait_for_its_100_is_served() {
    let origin = Origin::connections(|mut stream, _| {
        let mut received = Vec::new();
        let mut room = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut room) {
            received.extend_from_slice(&room[..count]);
            if received.ends_with(b"hello") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
                received.clear();
            }
        }
    });
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send(EXPECTING);
    thread::sleep(Duration::from_millis(50));
    client.send("hello");
    assert_eq!(client.read_response().text(), "done");
    client.send(format!("{EXPECTING}hello"));
    assert_eq!(client.read_response().text(), "done");
    assert_eq!(origin.connections_accepted(), 1);
}

#[test]
fn interim_answers_pass_to_11_and_not_to_10() {
    let origin = scripted(
        "HTTP/1.1 100 Continue\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x\r\nX: 1\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        After::KeepOpen,
    );
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().status, 100);
    let hints = client.read_response();
    assert_eq!(hints.head, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload");
    assert_eq!(client.read_response().header("link"), Some("</b.css>"));
    assert_eq!(client.read_response().text(), "ok");
    client.send("GET / HTTP/1.0\r\n\r\n");
    let response = client.read_response();
    assert_eq!((response.status, response.text()), (200, "ok"));
    assert_eq!(origin.connections_accepted(), 1);
}

#[test]
fn an_origin_that_never_comes_to_the_point_is_a_502() {
    let origin = Origin::raw(|stream, request, _| {
        if request.starts_with(b"GET /ok") {
            return written(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
        let soon = "HTTP/1.1 102 Processing\r\n\r\n".repeat(100);
        while stream.write_all(soon.as_bytes()).is_ok() {}
        After::Close
    });
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut response = client.read_response();
    for _ in 0..1000 {
        if response.status != 102 {
            break;
        }
        response = client.read_response();
    }
    assert_eq!(response.status, 502);
    assert!(is_alive(&proxy, "/ok"));
}

#[test]
fn a_switch_of_protocols_that_nobody_asked_for_is_a_502() {
    let origin = Origin::raw(|stream, request, _| {
        if request.starts_with(b"GET /ok") {
            return written(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
        written(stream, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: evil\r\n\r\nbytes")
    });
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 502);
    assert_eq!(client.get("/ok").text(), "ok");
    assert_eq!(origin.connections_accepted(), 2);
}

// --- answers during the upload -------------------------------------------------------------------

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let origin = Origin::connections(|mut stream, number| {
        let mut room = [0; 1024];
        let _ = stream.read_exact(&mut room);
        let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
        if number == 0 {
            thread::sleep(Duration::from_millis(500)); // takes nothing more
        }
    });
    let proxy = proxy_to(&origin, "[limits]\nmax_body_size = 0\n");
    for _ in 0..2 {
        let mut client = proxy.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n");
        let sent = client.try_send(vec![b'x'; 10_000_000]);
        assert!(sent.is_ok(), "a reset while the client is still sending: {sent:?}");
        let response = client.read_response();
        assert_eq!((response.status, response.text()), (413, "no"));
        assert_eq!(response.header("connection"), Some("close"));
        assert!(ends_cleanly(&mut client));
    }
}

#[test]
fn a_refusal_of_our_own_reaches_a_client_that_is_still_sending() {
    let origin = echo();
    let proxy = proxy_to(&origin, "[limits]\nmax_body_size = \"1KB\"\n");
    for framing in ["Content-Length: 10000000", "Transfer-Encoding: chunked"] {
        let mut client = proxy.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        let mut body = b"989680\r\n".to_vec();
        body.resize(10_000_000, b'x');
        let sent = client.try_send(&body);
        assert!(sent.is_ok(), "a reset while the client is still sending: {sent:?}");
        assert_eq!(client.read_response().status, 413, "{framing}");
        assert!(ends_cleanly(&mut client));
    }
    assert!(is_alive(&proxy, "/"));
}

/// Reads the head of a request, byte by byte so that nothing of the body is taken.
fn read_head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return false;
        }
        head.push(byte[0]);
    }
    true
}

#[test]
fn an_origin_may_answer_piece_by_piece_while_it_is_sent_the_request() {
    let origin = Origin::connections(|mut stream, _| {
        while read_head(&mut stream) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let mut left = 50;
            while left > 0 {
                let mut room = [0; 10];
                if stream.read_exact(&mut room).is_err() {
                    return;
                }
                left -= 10;
                let _ = stream.write_all(b"a\r\n");
                let _ = stream.write_all(&room);
                let _ = stream.write_all(b"\r\n");
            }
            let _ = stream.write_all(b"0\r\n\r\n");
        }
    });
    let proxy = proxy_to(&origin, "");
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n");
    client.send("0123456789");
    // The echo of each piece comes before the next piece is sent.
    let mut received = Vec::new();
    while !received.ends_with(b"\r\na\r\n0123456789\r\n") {
        received.extend(client.read_exactly(1));
    }
    for _ in 0..4 {
        client.send("abcdefghij");
        assert_eq!(client.read_exactly(15), b"a\r\nabcdefghij\r\n");
    }
    assert_eq!(client.read_exactly(5), b"0\r\n\r\n");
    assert!(is_alive_post(&proxy));
}

fn is_alive_post(proxy: &Proxy) -> bool {
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n");
    client.send([b'x'; 50]);
    client.read_response().body == [b'x'; 50]
}

#[test]
fn a_large_echo_in_both_directions_at_once_does_not_block() {
    const BYTES: usize = 20_000_000;
    let origin = Origin::connections(|mut stream, _| {
        if !read_head(&mut stream) {
            return;
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n");
        let mut room = vec![0; 65_536];
        let mut left = BYTES;
        while left > 0 {
            let Ok(count @ 1..) = stream.read(&mut room) else { return };
            if stream.write_all(&room[..count]).is_err() {
                return;
            }
            left -= count;
        }
    });
    let proxy = proxy_to(&origin, "[limits]\nmax_body_size = 0\n");
    let mut sender = TcpStream::connect(proxy.address("edge")).expect("it accepts");
    sender.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut receiver = sender.try_clone().expect("a socket can be cloned");
    let body: Vec<u8> = (0..BYTES).map(|number| (number / 7) as u8).collect();
    let copy = body.clone();
    let sending = thread::spawn(move || {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n";
        sender.write_all(head.as_bytes()).and_then(|()| sender.write_all(&copy))
    });
    let response = Response::read(&mut receiver, &mut Vec::new(), "POST").expect("a response");
    assert!(response.body == body, "{} bytes came back", response.body.len());
    sending.join().expect("no panic").expect("everything was taken");
}

#[test]
fn no_connection_is_left_behind() {
    let origin = echo();
    let proxy = proxy_to(&origin, "");
    for _ in 0..20 {
        assert!(is_alive(&proxy, "/"));
    }
    let open = || proxy.admin_get("/admin/cores").text().contains("\"connections\":0");
    assert!(eventually(open), "{}", proxy.admin_get("/admin/cores").text());
}
