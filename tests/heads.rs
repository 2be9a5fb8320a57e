//! What happens to heads on their way through the real binary: lines that pass untouched, lines
//! that are for one connection only, what the proxy says of itself and of the client, whom it
//! believes, and what the operator changes.

mod support;

use support::{Origin, Proxy, RawClient, Received, Respond, edge, eventually};

/// Everything goes to `origin`; `top` comes first in the file, `rest` last.
fn proxy_to(origin: &Origin, top: &str, rest: &str) -> Proxy {
    let address = origin.address();
    let toml = edge(&format!(
        "[logging.access]\npath = \"access.log\"\n\
         [clusters.app]\nendpoints = [{{ address = \"{address}\" }}]\n\
         [[routes]]\nname = \"all\"\ncluster = \"app\"\n{rest}"
    ));
    Proxy::start(&format!("{top}\n{toml}"))
}

const TRUSTING: &str = "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\", \"fd00::/8\"]";

/// Sends `GET /` with these lines, and returns it as the origin saw it.
fn forwarded(proxy: &Proxy, origin: &Origin, lines: &str) -> Received {
    let before = origin.requests().len();
    let mut client = proxy.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: a.example:81\r\n{lines}\r\n"));
    assert_eq!(client.read_response().status, 200, "{lines}");
    origin.wait_for_requests(before + 1).pop().expect("it came")
}

fn ok() -> Origin {
    Origin::start().on("GET /", Respond::text("ok"))
}

fn log_lines(proxy: &Proxy, count: usize) -> Vec<String> {
    let path = proxy.directory().join("access.log");
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    assert!(eventually(|| read().lines().count() >= count), "{}", read());
    read().lines().map(str::to_owned).collect()
}

fn is_request_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

// --- what we say of the client -------------------------------------------------------------------

#[test]
fn the_origin_is_told_who_asks_and_by_which_way() {
    let origin = ok();
    let proxy = proxy_to(&origin, "proxy_id = \"edge-7\"", "");
    let request = forwarded(&proxy, &origin, "");
    let expected = [
        ("host", "a.example:81"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "a.example:81"),
        ("x-real-ip", "127.0.0.1"),
        ("via", "1.1 edge-7"),
        ("x-proxy-id", "edge-7"),
    ];
    for (name, value) in expected {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    let id = request.header("x-request-id").expect("an id").to_owned();
    assert!(is_request_id(&id), "{id}");
    assert_ne!(forwarded(&proxy, &origin, "").header("x-request-id"), Some(id.as_str()));
    assert!(log_lines(&proxy, 2)[0].contains(&format!("\"request_id\":\"{id}\"")));
}

#[test]
fn a_stranger_is_not_believed() {
    let origin = ok();
    let proxy = proxy_to(&origin, "trusted_proxies = [\"10.0.0.0/8\"]", "");
    let request = forwarded(
        &proxy,
        &origin,
        "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: evil\r\nX-Real-IP: 6.6.6.6\r\nX-Request-ID: mine\r\nX-Proxy-ID: x\r\n\
         Forwarded: for=6.6.6.6\r\nVia: 1.1 elsewhere\r\n",
    );
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert_eq!(request.header("x-forwarded-host"), Some("a.example:81"));
    assert_eq!(request.header("x-real-ip"), Some("127.0.0.1"));
    assert!(is_request_id(request.header("x-request-id").expect("an id")));
    assert_eq!(request.header("x-proxy-id"), Some("corelane"));
    assert_eq!(request.header("forwarded"), None);
    // Via is no claim about the client: it says which way the request came.
    assert_eq!(request.headers("via"), ["1.1 elsewhere", "1.1 corelane"]);
    let line = &log_lines(&proxy, 1)[0];
    assert!(line.contains("\"client_ip\":\"127.0.0.1\""), "{line}");
}

#[test]
fn a_trusted_proxy_is_believed() {
    let origin = ok();
    let proxy = proxy_to(&origin, TRUSTING, "");
    let request = forwarded(
        &proxy,
        &origin,
        "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop\r\n\
         X-Real-IP: 6.6.6.6\r\nx-request-id: abc-123\r\nForwarded: for=203.0.113.9\r\n",
    );
    assert_eq!(request.header("x-forwarded-for"), Some("203.0.113.9, 127.0.0.1"));
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    assert_eq!(request.header("x-forwarded-host"), Some("shop"));
    assert_eq!(request.header("x-real-ip"), Some("203.0.113.9"));
    assert_eq!(request.header("x-request-id"), Some("abc-123"));
    assert_eq!(request.header("forwarded"), Some("for=203.0.113.9"));
    let line = &log_lines(&proxy, 1)[0];
    assert!(line.contains("\"client_ip\":\"203.0.113.9\",\"peer_ip\":\"127.0.0.1\""), "{line}");
    assert!(line.contains("\"request_id\":\"abc-123\""), "{line}");
}

#[test]
fn the_client_is_the_last_address_that_no_trusted_proxy_vouches_against() {
    let origin = ok();
    let proxy = proxy_to(&origin, TRUSTING, "");
    let cases = [
        ("6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9, 10.1.2.3", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9,10.1.2.3 , 10.9.9.9:555", "203.0.113.9"),
        ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("2001:db8::7, fd00::1", "2001:db8::7"),
        ("[2001:db8::7]:443, 10.0.0.1", "2001:db8::7"),
        ("203.0.113.9, unknown, 10.0.0.1", "10.0.0.1"),
        ("203.0.113.9, ", "127.0.0.1"),
        ("", "127.0.0.1"),
    ];
    for (chain, client) in cases {
        let request = forwarded(&proxy, &origin, &format!("X-Forwarded-For: {chain}\r\n"));
        assert_eq!(request.header("x-real-ip"), Some(client), "{chain:?}");
    }
}

#[test]
fn an_empty_request_id_is_none() {
    let origin = ok();
    let proxy = proxy_to(&origin, TRUSTING, "");
    let request = forwarded(&proxy, &origin, "X-Request-ID:\r\n");
    let id = request.header("x-request-id").expect("an id").to_owned();
    assert!(is_request_id(&id), "{id:?}");
    assert!(log_lines(&proxy, 1)[0].contains(&format!("\"request_id\":\"{id}\"")));
}

/// Proxies may add a line of their own instead of extending the one that came (RFC 9110 5.3), so an
/// attacker's line may stand before the true one.
#[test]
fn several_chains_are_read_as_one() {
    let origin = ok();
    let proxy = proxy_to(&origin, TRUSTING, "");
    let lines = "X-Forwarded-For: 6.6.6.6\r\nA: b\r\nX-Forwarded-For: 203.0.113.9\r\n";
    let request = forwarded(&proxy, &origin, lines);
    assert_eq!(request.header("x-real-ip"), Some("203.0.113.9"));
    assert_eq!(request.header("x-forwarded-for"), Some("6.6.6.6, 203.0.113.9, 127.0.0.1"));
    let lines = "X-Forwarded-For: 6.6.6.6, 203.0.113.9\r\nX-Forwarded-For: 10.0.0.1, 10.0.0.2\r\n";
    assert_eq!(forwarded(&proxy, &origin, lines).header("x-real-ip"), Some("203.0.113.9"));
    let line = &log_lines(&proxy, 1)[0];
    assert!(line.contains("\"client_ip\":\"203.0.113.9\""), "{line}");
}

#[test]
fn an_answer_of_our_own_carries_the_request_id_of_a_trusted_proxy() {
    let origin = ok();
    let own = "[[routes]]\nname = \"own\"\npaths = [\"/own\"]\nrespond = {}\n";
    let proxy = proxy_to(&origin, TRUSTING, own);
    let mut client = proxy.client();
    client.send("GET /own HTTP/1.1\r\nHost: a\r\nX-Request-ID: theirs-1\r\n\r\n");
    assert_eq!(client.read_response().header("x-request-id"), Some("theirs-1"));
    client.send("TRACE / HTTP/1.1\r\nHost: a\r\nX-Request-ID: theirs-2\r\n\r\n");
    let refusal = client.read_response();
    assert_eq!(refusal.header("x-request-id"), Some("theirs-2"));
    assert!(refusal.text().contains("\"request_id\":\"theirs-2\""), "{refusal:?}");
    assert!(log_lines(&proxy, 2)[1].contains("\"request_id\":\"theirs-2\""));
}

// --- what passes ---------------------------------------------------------------------------------

/// The lines of a head that are not ours.
fn others(head: &str) -> Vec<&str> {
    const OURS: [&str; 9] = [
        "host",
        "via",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-real-ip",
        "x-proxy-id",
        "x-request-id",
        "content-length",
    ];
    let ours = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        !OURS.contains(&name.as_str())
    };
    head.split("\r\n").skip(1).filter(ours).collect()
}

#[test]
fn lines_keep_their_case_their_order_and_every_byte() {
    let odd = "aCCept: x\r\nX-Two: 1\r\nB:\r\nx-two:   2  \r\nCookie: a=b\r\nX-Tab:\ta\tb\r\n\
               cookie: c=d\r\nX-TWO: 3\r\nUser-Agent: (odd) \"quoted\" ;=\r\n";
    let origin = Origin::start().on(
        "GET /",
        Respond::text("ok")
            .header("sEt-cookie", "a=b; Path=/")
            .header("X-B", "  spaces  ")
            .header("Set-Cookie", "c=d")
            .header("dATE", "yesterday")
            .header("Server", "odd/1"),
    );
    let proxy = proxy_to(&origin, "", "");
    let request = forwarded(&proxy, &origin, odd);
    assert_eq!(others(&request.head), odd.trim_end().split("\r\n").collect::<Vec<_>>());
    let response = proxy.client().get("/");
    assert_eq!(
        others(&response.head),
        [
            "Content-Type: text/plain",
            "sEt-cookie: a=b; Path=/",
            "X-B:   spaces  ",
            "Set-Cookie: c=d",
            "dATE: yesterday",
            "Server: odd/1",
        ]
    );
    assert_eq!(response.header("via"), Some("1.1 corelane"));
    assert_eq!(response.header("x-proxy-id"), Some("corelane"));
}

#[test]
fn bytes_beyond_ascii_in_values_pass_unchanged() {
    let origin = ok();
    let proxy = proxy_to(&origin, "", "");
    let mut client = proxy.client();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\xc3\xa4\r\n\r\n");
    assert_eq!(client.read_response().status, 200);
    let raw = origin.only_request().raw;
    assert!(raw.windows(8).any(|window| window == b"X: \xff\xc3\xa4\r\n"));
}

#[test]
fn what_is_for_one_connection_stays_on_it() {
    let origin = Origin::start().on(
        "GET /",
        Respond::text("ok")
            .header("Connection", "X-Private, keep-alive")
            .header("X-Private", "1")
            .header("Keep-Alive", "timeout=60")
            .header("Proxy-Authenticate", "Basic")
            .header("Upgrade", "h2c")
            .header("X-Public", "2"),
    );
    let proxy = proxy_to(&origin, "", "");
    let lines = "Connection: X-Secret , te,keep-alive\r\nX-Secret: 1\r\nx-secret: 2\r\n\
                 Keep-Alive: 300\r\nProxy-Authorization: Basic x\r\nProxy-Connection: x\r\n\
                 TE: gzip\r\nUpgrade: h2c\r\nX-Open: 3\r\n";
    let request = forwarded(&proxy, &origin, lines);
    assert_eq!(others(&request.head), ["X-Open: 3"]);
    let response = proxy.client().get("/");
    assert_eq!(others(&response.head), ["Content-Type: text/plain", "X-Public: 2"]);
    assert_eq!(origin.connections_accepted(), 1);
}

// --- what the operator changes -------------------------------------------------------------------

const EDITS: &str = "[routes.request_headers]\n\
     set = { X-Env = \"prod\", Host = \"inner.example\", X-Real-IP = \"hidden\" }\n\
     add = { X-More = [\"1\", \"2\"] }\n\
     remove = [\"X-Drop\", \"Via\"]\n\
     [routes.response_headers]\n\
     set = { X-Frame-Options = \"DENY\", Content-Type = \"text/odd\" }\n\
     add = { Set-Cookie = \"a=b\" }\n\
     remove = [\"Server\", \"X-Proxy-ID\"]\n";

#[test]
fn edits_of_a_route_change_its_requests_and_answers() {
    let origin = Origin::start().on(
        "GET /",
        Respond::text("ok")
            .header("Server", "odd/1")
            .header("x-frame-options", "ALLOW")
            .header("Set-Cookie", "c=d"),
    );
    let proxy = proxy_to(&origin, "", EDITS);
    let lines = "x-env: test\r\nX-ENV: 2\r\nx-more: 0\r\nX-DROP: 1\r\nVia: 1.1 x\r\n";
    let request = forwarded(&proxy, &origin, lines);
    assert_eq!(request.header("x-env"), Some("prod"));
    assert_eq!(request.headers("x-more"), ["0", "1", "2"]);
    assert_eq!(request.header("host"), Some("inner.example"));
    assert_eq!(request.header("x-real-ip"), Some("hidden"));
    assert_eq!(request.header("x-forwarded-host"), Some("a.example:81"));
    assert_eq!((request.header("x-drop"), request.header("via")), (None, None));
    let response = proxy.client().get("/");
    assert_eq!(response.header("x-frame-options"), Some("DENY"));
    assert_eq!(response.header("content-type"), Some("text/odd"));
    assert_eq!(response.headers("set-cookie"), ["c=d", "a=b"]);
    assert_eq!((response.header("server"), response.header("x-proxy-id")), (None, None));
}

#[test]
fn answers_of_our_own_and_failures_are_edited_too() {
    let origin = Origin::raw(|_, _, _| support::After::Close);
    let edits = "[routes.response_headers]\nset = { X-Frame-Options = \"DENY\" }\n\
                 add = { Set-Cookie = [\"a=b\", \"c=d\"] }\nremove = [\"X-Proxy-ID\"]\n";
    let rest = format!(
        "{edits}\
         [[routes]]\nname = \"own\"\npaths = [\"/own\"]\nrespond = {{ body = \"own\" }}\n{edits}\
         [[routes]]\nname = \"moved\"\npaths = [\"/moved\"]\n\
         redirect = {{ location = \"https://{{host}}{{path}}{{query}}\" }}\n{edits}\
         [[routes]]\nname = \"echo\"\npaths = [\"/echo\"]\necho = true\n{edits}"
    );
    let proxy = proxy_to(&origin, "", &rest);
    for (target, status) in [("/own", 200), ("/moved?x", 302), ("/echo", 200), ("/", 502)] {
        let mut client: RawClient = proxy.client();
        let response = client.get(target);
        assert_eq!(response.status, status, "{target}");
        assert_eq!(response.header("x-frame-options"), Some("DENY"), "{target}");
        assert_eq!(response.headers("set-cookie"), ["a=b", "c=d"], "{target}");
        assert_eq!(response.header("x-proxy-id"), None, "{target}");
    }
    assert_eq!(proxy.client().get("/moved?x").header("location"), Some("https://test/moved?x"));
}
