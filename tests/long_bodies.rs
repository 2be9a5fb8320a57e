//! Bodies long enough to be carried through the kernel: they arrive whole in every framing, in both
//! directions, and leave the connections as short ones do.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use support::{After, Origin, Proxy, Respond, edge, eventually};

/// Beyond what is relayed through ordinary buffers, and not a multiple of anything.
const LONG: usize = 5_000_011;

fn proxy_to(origin: &Origin) -> Proxy {
    let address = origin.address();
    Proxy::start(&edge(&format!(
        "[[routes]]\nname = \"all\"\ncluster = \"app\"\n\
         [clusters.app]\nendpoints = [{{ address = \"{address}\" }}]\n"
    )))
}

fn body() -> Vec<u8> {
    (0..LONG as u32).map(|n| (n ^ (n >> 11)) as u8).collect()
}

/// Answers with the sum of the body that came, and reads nothing beyond it.
fn summing() -> Origin {
    Origin::raw(|stream, request, _| {
        let length = String::from_utf8_lossy(request)
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok())
            .unwrap_or(0);
        let head = request.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
        let mut body = request[head..].to_vec();
        let mut rest = vec![0; length - body.len()];
        if stream.read_exact(&mut rest).is_err() {
            return After::Close;
        }
        body.extend(rest);
        let sum = format!("{:016x}", sum_of(&body));
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{sum}", sum.len());
        stream.write_all(answer.as_bytes()).map_or(After::Close, |()| After::KeepOpen)
    })
}

fn sum_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(7, |sum, &byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

#[test]
fn long_responses_arrive_whole_in_every_framing_and_the_connection_goes_on() {
    let origin = Origin::start()
        .on("GET /length", Respond::bytes(body()))
        .on("GET /chunks", Respond::bytes(body()).chunked(70_001))
        .on("GET /close", Respond::bytes(body()).until_close())
        .on("GET /small", Respond::text("small"));
    let proxy = proxy_to(&origin);
    let mut client = proxy.client();
    for path in ["/length", "/chunks", "/close", "/length"] {
        assert!(client.get(path).body == body(), "{path}");
        assert_eq!(client.get("/small").text(), "small");
    }
    // To HTTP/1.0 a close-delimited body stays one.
    let mut client = proxy.client();
    client.send("GET /close HTTP/1.0\r\n\r\n");
    assert!(client.read_response().body == body());
}

#[test]
fn long_uploads_arrive_whole_and_the_next_request_behind_them_is_served() {
    let origin = summing();
    let proxy = proxy_to(&origin);
    let mut client = proxy.client();
    let body = body();
    for _ in 0..2 {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LONG}\r\n\r\n");
        let mut request = head.into_bytes();
        request.extend_from_slice(&body);
        request.extend_from_slice(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        client.send(&request);
        assert_eq!(client.read_response().text(), format!("{:016x}", sum_of(&body)));
        assert_eq!(client.read_response().text(), format!("{:016x}", sum_of(b"")));
    }
    assert_eq!(origin.connections_accepted(), 1);
}

#[test]
fn a_long_response_that_the_origin_cuts_is_cut_for_the_client_too() {
    let origin = Origin::raw(|stream: &mut TcpStream, request, _| {
        if request.starts_with(b"GET /small") {
            let sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            return sent.map_or(After::Close, |()| After::KeepOpen);
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n");
        let sent = stream.write_all(head.as_bytes());
        let _ = sent.and_then(|()| stream.write_all(&vec![b'x'; LONG - 1]));
        After::Close
    });
    let proxy = proxy_to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_read_response_to("GET").is_err());
    let cut = "tls_proxy_failures_total{reason=\"upstream_body_cut\",side=\"upstream\"}";
    assert!(eventually(|| proxy.metric(cut) == Some(1.0)));
    assert_eq!(proxy.client().get("/small").text(), "ok");
}

#[test]
fn a_client_that_goes_away_in_a_long_upload_leaves_nothing_of_it_to_others() {
    let origin = summing();
    let proxy = proxy_to(&origin);
    for _ in 0..3 {
        let mut client = proxy.client();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LONG}\r\n\r\n");
        client.send(head);
        client.send(vec![b'x'; LONG - 1000]);
        client.close();
    }
    let mut client = proxy.client();
    let body = body();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LONG}\r\n\r\n");
    client.send(head);
    client.send(&body);
    assert_eq!(client.read_response().text(), format!("{:016x}", sum_of(&body)));
}
