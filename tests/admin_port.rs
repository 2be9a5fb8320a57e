//! The admin and metrics ports as sockets: what keeps them busy, and what ends their connections.
//! Each hostile client is followed by a good request.

mod support;

use support::{Proxy, RawClient, Response, edge, eventually};

const ROUTE: &str = "[[routes]]\nname = \"all\"\necho = true\n";
/// `limits::ADMIN_CONNECTIONS_MAX`.
const PLACES: usize = 64;

fn ask(client: &mut RawClient, path: &str) -> Response {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    client.read_response()
}

fn still_works(proxy: &Proxy) {
    assert_eq!(proxy.admin_get("/admin/status").status, 200);
    assert_eq!(proxy.client_of("metrics").get("/health/liveness").status, 200);
}

// --- a full port -----------------------------------------------------------------------------

#[test]
fn silent_connections_keep_nobody_out_and_those_who_were_let_in_stay() {
    let proxy = Proxy::start(&edge(ROUTE));
    for (port, path) in [("admin", "/admin/status"), ("metrics", "/health/liveness")] {
        let mut known = proxy.client_of(port);
        assert_eq!(ask(&mut known, path).status, 200);
        // Half of them have begun to speak.
        let mut silent: Vec<RawClient> = (0..2 * PLACES)
            .map(|index| {
                let mut client = proxy.client_of(port);
                client.send(if index % 2 == 0 { "" } else { "GET / HTTP/1.1\r\nHos" });
                client
            })
            .collect();
        assert_eq!(ask(&mut proxy.client_of(port), path).status, 200);
        // Those that have waited longest are closed without a word, the last ones are not.
        assert_eq!(silent[0].read_to_close(), b"");
        silent[2 * PLACES - 1].send("t: localhost\r\n\r\n");
        assert_eq!(silent[2 * PLACES - 1].read_response().status, 404);
        if port == "admin" {
            assert_eq!(ask(&mut known, path).status, 200);
        }
        proxy.wait_for_log(&format!("all 64 connections of the {port} port are in use"));
    }
    let status: serde_json::Value =
        serde_json::from_str(proxy.admin_get("/admin/status").text()).expect("it is JSON");
    assert!(status["admin_displaced_total"].as_u64() > Some(2 * PLACES as u64), "{status}");
    still_works(&proxy);
}

#[test]
fn those_with_wrong_tokens_keep_nobody_out_who_has_a_right_one() {
    const TOKEN: &str = "operator-token-0123456789";
    let from = "admin = { bind = \"127.0.0.1:0\" }";
    let tokens = format!(
        "admin = {{ bind = \"127.0.0.1:0\", tokens = [\
         {{ name = \"ci\", role = \"viewer\", token = \"{TOKEN}\" }}] }}"
    );
    let proxy = Proxy::start(&edge(ROUTE).replace(from, &tokens));
    let request = |token: &str| {
        format!(
            "GET /admin/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
    };
    let mut guest = proxy.client_of("admin");
    guest.send(request(TOKEN));
    assert_eq!(guest.read_response().status, 200);
    let mut strangers: Vec<RawClient> = (0..2 * PLACES)
        .map(|_| {
            let mut client = proxy.client_of("admin");
            client.send(request("guess-token-0123456789"));
            client
        })
        .collect();
    for client in [&mut guest, &mut proxy.client_of("admin")] {
        client.send(request(TOKEN));
        assert_eq!(client.read_response().status, 200);
    }
    assert_eq!(strangers[2 * PLACES - 1].read_response().status, 401);
    proxy.wait_for_log("all 64 connections of the admin port are in use");
}

// --- a port that goes ------------------------------------------------------------------------

#[test]
fn a_port_that_is_closed_takes_its_connections_with_it() {
    let proxy = Proxy::start(&edge(ROUTE));
    let mut kept = proxy.client_of("admin");
    assert_eq!(ask(&mut kept, "/admin/status").status, 200);
    // One that is about to put everything back.
    let mut begun = proxy.client_of("admin");
    let text = edge(ROUTE);
    begun.send(format!(
        "PUT /admin/config HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/toml\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        text.len()
    ));
    assert!(begun.read_exactly(25).starts_with(b"HTTP/1.1 100"));
    let stream = "GET /admin/events?kinds=audit&seconds=3600 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut streaming = proxy.client_of("admin");
    streaming.send(stream);
    proxy.wait_for_log("GET /admin/events");
    let without =
        edge(ROUTE).replace("admin = { bind = \"127.0.0.1:0\" }", "admin.enabled = false");
    proxy.rewrite_config(&without);
    proxy.signal("HUP");
    assert_eq!(kept.read_to_close(), b"");
    assert!(streaming.read_to_close().ends_with(b"0\r\n\r\n"), "its end is told");
    begun.send(text);
    assert_eq!(begun.read_to_close(), b"");
    assert!(std::net::TcpStream::connect(proxy.address("admin")).is_err());
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn the_request_that_moves_the_port_is_answered_and_its_connection_closed() {
    let proxy = Proxy::start(&edge(ROUTE));
    let from = "admin = { bind = \"127.0.0.1:0\"";
    let moved = edge(ROUTE).replace(from, "admin = { bind = \"127.0.0.2:0\"");
    let mut client = proxy.client_of("admin");
    client.send(format!(
        "PUT /admin/config HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/toml\r\n\
         Content-Length: {}\r\n\r\n{moved}",
        moved.len()
    ));
    let answer = client.read_response();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(client.read_to_close(), b"");
    assert!(eventually(|| proxy.log().matches(" as admin").count() == 2));
    assert_eq!(proxy.client().get("/").status, 200);
}
