//! Error pages as clients see them: which page they get, in whose place, what a hostile request can
//! do to it, and that files are read at a reload. After each the proxy serves the next request.

mod support;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use support::{
    After, Origin, Proxy, RawClient, Respond, Response, edge, eventually, nobody, signal,
};

const PAGES: &str = "[[error_pages]]\nstatuses = [\"4xx\", \"5xx\"]\n\
    body = '<p title=\"{{path}}\">{{status}} {{reason}} {{code}} {{host}} {{message}} \
    {{request_id}} {{timestamp}}</p>'\n";

/// Everything goes to `address`; `route` continues the route, `rest` comes behind all.
fn proxy_to(address: SocketAddr, route: &str, rest: &str) -> Proxy {
    Proxy::start(&edge(&format!(
        "[logging.access]\npath = \"access.log\"\n\
         [[routes]]\nname = \"ok\"\nhosts = [\"test\"]\npaths = [\"/ok\"]\n\
         respond = {{ body = \"ok\" }}\n\
         [[routes]]\nname = \"gone\"\nhosts = [\"test\"]\npaths = [\"/gone\"]\n\
         respond = {{ status = 410 }}\n\
         [[routes]]\nname = \"said\"\nhosts = [\"test\"]\npaths = [\"/said\"]\n\
         respond = {{ status = 410, body = \"said\" }}\n\
         [[routes]]\nname = \"all\"\nhosts = [\"test\"]\ncluster = \"app\"\n{route}\n\
         [clusters.app]\nendpoints = [{{ address = \"{address}\" }}]\n{rest}"
    )))
}

fn ask(client: &mut RawClient, head: &str) -> Response {
    client.send(format!("{head}\r\n\r\n"));
    client.read_response()
}

fn is_alive(proxy: &Proxy) -> bool {
    proxy.client().get("/ok").text() == "ok"
}

#[test]
fn a_failure_is_answered_with_its_page_and_keeps_its_headers() {
    let proxy = proxy_to(nobody(), "", &format!("{PAGES}[limits]\nmax_body_size = 10\n"));
    let mut client = proxy.client();
    let response = ask(&mut client, "GET /a?secret=1 HTTP/1.1\r\nHost: test");
    assert_eq!(response.status, 502);
    assert_eq!(response.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(response.header("vary"), Some("Accept"));
    let id = response.header("x-request-id").unwrap_or_default().to_owned();
    let text = response.text();
    let begin = format!(
        "<p title=\"/a\">502 Bad Gateway BACKEND_UNREACHABLE test the backend refuses \
         connections {id} 20"
    );
    assert!(text.starts_with(&begin) && text.ends_with("Z</p>"), "{text}");
    let length = response.header("content-length").map(str::to_owned);
    assert_eq!(length, Some(text.len().to_string()));
    let log = || std::fs::read_to_string(proxy.directory().join("access.log")).unwrap_or_default();
    let line = || log().lines().find(|line| line.contains(&id)).map(str::to_owned);
    assert!(eventually(|| line().is_some()));
    assert!(line().is_some_and(|line| line.contains("\"reason\":\"connect_refused\"")));

    let refused = ask(&mut client, "TRACE / HTTP/1.1\r\nHost: test");
    assert_eq!((refused.status, refused.header("connection")), (405, Some("close")));
    assert!(refused.header("allow").is_some_and(|methods| methods.contains("GET")));
    assert!(refused.text().contains("METHOD_NOT_ALLOWED"));
    assert_eq!(client.read_to_close(), b"");

    let mut client = proxy.client();
    client.send("HEAD /b HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = client.read_response_to("HEAD");
    assert_eq!((head.status, head.header("content-length")), (502, length.as_deref()));
    assert_eq!(client.get("/ok").text(), "ok");
}

#[test]
fn a_client_that_takes_json_only_gets_the_json_form_unless_the_page_is_json() {
    let json = "error_pages = [{ statuses = 502, content_type = \"application/problem+json\", \
                body = '{\"title\":\"{{reason}}\",\"at\":\"{{path}}\"}' }]";
    for (route, kind, begin) in [
        ("", "application/json", "{\"error\":{\"code\":\"BACKEND_UNREACHABLE\","),
        (json, "application/problem+json", "{\"title\":\"Bad Gateway\",\"at\":\"/x\"}"),
    ] {
        let proxy = proxy_to(nobody(), route, PAGES);
        let head = "GET /x HTTP/1.1\r\nHost: test\r\nAccept: application/json, */*;q=0.1";
        let response = ask(&mut proxy.client(), head);
        assert_eq!(response.header("content-type"), Some(kind));
        assert!(response.text().starts_with(begin), "{}", response.text());
        assert_eq!(response.header("vary").is_some(), route.is_empty());
        let browser = "GET / HTTP/1.1\r\nHost: other\r\nAccept: text/html, application/json";
        assert!(ask(&mut proxy.client(), browser).text().contains(">404 Not Found NO_ROUTE"));
        assert!(is_alive(&proxy));
    }
}

#[test]
fn a_route_may_have_other_pages_or_none() {
    let route = "error_pages = [{ statuses = 502, body = \"ours\" }, \
                 { statuses = \"4xx\", builtin = true }]";
    let proxy = proxy_to(nobody(), route, &format!("{PAGES}[limits]\nmax_url_length = 100\n"));
    let mut client = proxy.client();
    assert_eq!(client.get("/x").text(), "ours");
    let gone = client.get("/gone");
    assert_eq!(gone.status, 410);
    assert!(gone.text().contains("410 Gone GONE test Gone "), "{}", gone.text());
    assert_eq!(client.get("/said").text(), "said");
    assert_eq!(client.get("/ok").text(), "ok");
    let proxy = proxy_to(nobody(), "error_pages = [{ statuses = \"5xx\", builtin = true }]", PAGES);
    let response = proxy.client().get("/x");
    assert!(response.text().starts_with("{\"error\":{\"code\":\"BACKEND_UNREACHABLE\""));
    assert_eq!(response.header("vary"), None);
}

#[test]
fn no_request_writes_markup_headers_or_an_endless_page() {
    let proxy = proxy_to(nobody(), "", PAGES);
    let page = |head: &str| {
        let response = ask(&mut proxy.client(), head);
        assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
        response
    };
    let hostile = "/<script>alert(1)</script>%0d%0aSet-Cookie:x=1\"'&";
    let response = page(&format!("GET {hostile} HTTP/1.1\r\nHost: test"));
    let text = response.text();
    assert!(!text.contains("<script"), "{text}");
    let escaped = "&lt;script&gt;alert(1)&lt;/script&gt;%0d%0aSet-Cookie:x=1&#34;&#39;&amp;\">";
    assert!(response.status == 400 || text.contains(escaped), "{text}");
    assert_eq!(response.header("set-cookie"), None);

    let long = format!("GET / HTTP/1.1\r\nHost: {}.test", "a".repeat(12_000));
    let response = page(&long);
    assert!(response.status >= 400 && response.text().len() < 2000, "{}", response.text().len());
    // What cannot be parsed has neither host nor path to show.
    for broken in ["GET /\r<script> HTTP/1.1\r\nHost: test", "GET / HTTP/1.1\r\nHost: <b>", "\x01"]
    {
        let response = page(broken);
        assert_eq!(response.status, 400);
        assert!(response.text().starts_with("<p title=\"\">400 Bad Request INVALID_REQUEST  "));
    }
    assert!(is_alive(&proxy));
}

#[test]
fn an_error_of_the_backend_is_replaced_where_the_page_says_so() {
    let origin = Origin::start()
        .on("GET /404", Respond::text("theirs").status("404 Not Found"))
        .on(
            "GET /401",
            Respond::text("theirs")
                .status("401 Unauthorized")
                .header("WWW-Authenticate", "Basic realm=\"a\"")
                .header("WWW-Authenticate", "Bearer")
                .header("Set-Cookie", "secret=1"),
        )
        .on("GET /500", Respond::text(&"stack trace ".repeat(500)).status("500 Oops").chunked(100))
        .on("GET /503", Respond::text("x").status("503 Busy").header("Retry-After", "7"))
        .on("HEAD /500", Respond::text("").status("500 Oops"))
        .on("GET /304", Respond::text("").status("304 Not Modified"))
        .on("GET /200", Respond::text("theirs"));
    let route = "error_pages = [{ statuses = [401, \"5xx\"], body = \"ours {{status}} {{code}}\", \
                 intercept_upstream = true }]\nresponse_headers = { set = { X-Env = \"prod\" } }";
    let proxy = proxy_to(origin.address(), route, PAGES);
    let mut client = proxy.client();
    assert_eq!(client.get("/404").text(), "theirs");
    assert_eq!(client.get("/200").text(), "theirs");
    assert_eq!(client.get("/304").status, 304);
    let response = client.get("/401");
    assert_eq!((response.status, response.text()), (401, "ours 401 UNAUTHORIZED"));
    assert_eq!(response.headers("www-authenticate"), ["Basic realm=\"a\"", "Bearer"]);
    assert_eq!((response.header("set-cookie"), response.header("x-env")), (None, Some("prod")));
    let response = client.get("/503");
    assert_eq!(response.header("retry-after"), Some("7"));
    assert_eq!(client.get("/500").text(), "ours 500 INTERNAL_SERVER_ERROR");
    let json = ask(&mut client, "GET /500 HTTP/1.1\r\nHost: test\r\nAccept: application/json");
    assert!(json.text().starts_with("{\"error\":{\"code\":\"INTERNAL_SERVER_ERROR\""));
    client.send("HEAD /500 HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = client.read_response_to("HEAD");
    assert_eq!((head.status, head.header("content-length")), (500, Some("30")));
    assert_eq!(client.get("/200").text(), "theirs");
    // Bodies that were small and came soon were read to their end.
    assert_eq!(origin.connections_accepted(), 1);
}

#[test]
fn what_is_left_of_a_replaced_body_never_reaches_the_next_request() {
    // Longer than is read away; cut off; with more behind its end; that never comes.
    let long = format!("HTTP/1.1 500 Oops\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(500));
    let bodies = [
        long,
        "HTTP/1.1 500 Oops\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(),
        "HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab".to_owned(),
        "HTTP/1.1 500 Oops\r\n\r\nuntil the end".to_owned(),
    ];
    for body in bodies {
        let shown = body.clone();
        let origin = Origin::raw(move |stream, request, _| {
            let good = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
            let is_good = request.starts_with(b"GET /good ");
            let _ = stream.write_all(if is_good { good } else { body.as_bytes() });
            After::KeepOpen
        });
        let route = "error_pages = [{ statuses = \"5xx\", body = \"ours\", \
                     intercept_upstream = true }]";
        let proxy = proxy_to(origin.address(), route, "");
        let mut client = proxy.client();
        let response = client.get("/bad");
        assert_eq!((response.status, response.text()), (500, "ours"), "{shown:.60}");
        assert_eq!(client.get("/good").text(), "good", "{shown:.60}");
        assert_eq!(origin.connections_accepted(), 2, "{shown:.60}");
    }
}

#[test]
fn a_page_may_come_before_the_request_has_left() {
    let origin = Origin::connections(|mut stream, _| {
        let mut head = [0; 1000];
        let _ = stream.read(&mut head);
        let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let route = "error_pages = [{ statuses = 503, body = \"ours\", intercept_upstream = true }]";
    let proxy = proxy_to(origin.address(), route, "");
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nbegin");
    let response = client.read_response();
    assert_eq!((response.status, response.text()), (503, "ours"));
    assert_eq!(response.header("connection"), Some("close"));
    client.half_close();
    assert_eq!(client.read_to_close(), b"");
    assert!(is_alive(&proxy));
}

#[test]
fn a_file_is_read_at_a_reload_and_a_missing_one_refuses_it() {
    let directory = support::TempDir::new();
    let file = directory.write("404.html", "one {{path}}");
    let pages = format!("[[error_pages]]\nstatuses = 404\nfile = \"{}\"\n", file.display());
    let proxy = proxy_to(nobody(), "", &pages);
    let shown = |path: &str| {
        ask(&mut proxy.client(), &format!("GET {path} HTTP/1.1\r\nHost: other")).text().to_owned()
    };
    assert_eq!(shown("/a"), "one /a");
    directory.write("404.html", "two {{status}}");
    assert_eq!(shown("/a"), "one /a", "only a reload reads it");
    signal(proxy.pid(), "HUP");
    assert!(eventually(|| shown("/a") == "two 404"));
    std::fs::remove_file(&file).expect("it was there");
    signal(proxy.pid(), "HUP");
    proxy.wait_for_log("404.html` cannot be read: ");
    proxy.wait_for_log("error_pages[0].file: ");
    assert_eq!(shown("/a"), "two 404");
    assert!(is_alive(&proxy));
}
