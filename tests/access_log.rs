//! What operators read afterwards: a line for every exchange in every format, who ended it and
//! where, and numbers on the metrics page and the cores page that are those of what was done.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use support::{After, Json, Origin, Proxy, RawClient, Respond, edge, eventually, sum_of};

/// One route to cluster `a`, and the access log in `access.log`.
fn logged(format: &str, origin: &Origin, more: &str) -> String {
    edge(&format!(
        "[logging.access]\npath = \"access.log\"\nformat = \"{format}\"\n\
         [[routes]]\nname = \"refused\"\npaths = [\"/own\"]\nrespond = {{ status = 204 }}\n\
         [[routes]]\nname = \"all\"\npaths = [\"/*\"]\ncluster = \"a\"\n\
         [clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n{more}",
        origin.address()
    ))
}

/// The first `count` lines, once they are written.
fn lines(proxy: &Proxy, count: usize) -> Vec<String> {
    let path = proxy.directory().join("access.log");
    let read = || {
        let bytes = std::fs::read(&path).unwrap_or_default();
        assert!(bytes.is_ascii() || String::from_utf8(bytes.clone()).is_ok(), "not UTF-8");
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(eventually(|| read().len() >= count), "{count} lines are expected: {:#?}", read());
    read()
}

fn records(proxy: &Proxy, count: usize) -> Vec<Json> {
    let records: Vec<Json> = lines(proxy, count).iter().map(|line| Json::parse(line)).collect();
    assert_eq!(records.len(), count, "{records:#?}");
    records.iter().for_each(assert_times_add_up);
    records
}

fn assert_times_add_up(record: &Json) {
    let spans =
        ["head_ms", "queue_ms", "connect_ms", "tls_ms", "upload_ms", "first_byte_ms", "body_ms"];
    let spans = spans.map(|name| record.number(&format!("timings.{name}")));
    assert!(spans.iter().all(|&span| span >= 0.0), "{record:?}");
    let (sum, total) = (spans.iter().sum::<f64>(), record.number("duration_ms"));
    assert!((sum - total).abs() < 0.0015, "{spans:?} add up to {sum}, not {total}");
}

fn termination(record: &Json) -> (&str, &str, Option<&str>) {
    let known = *record.at("termination.reason") != Json::Null;
    let reason = known.then(|| record.text("termination.reason"));
    (record.text("termination.by"), record.text("termination.phase"), reason)
}

#[test]
fn an_upload_that_was_asked_for_by_a_100_is_not_time_of_the_answer_either() {
    let origin = Origin::connections(|mut stream, _| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let _ = stream.read(&mut [0; 4096]);
    });
    let proxy = Proxy::start(&logged("json", &origin, ""));
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
    assert_eq!(client.read_response().status, 100);
    thread::sleep(Duration::from_millis(300));
    client.send("b");
    assert_eq!(client.read_response().status, 200);
    let record = &records(&proxy, 1)[0];
    let (upload, body) = (record.number("timings.upload_ms"), record.number("timings.body_ms"));
    // Less than the pause: the proxy may have been late to hear of its beginning.
    assert!(upload >= 100.0 && body < upload, "{record:?}");
}

#[test]
fn the_time_of_a_slow_upload_is_not_that_of_the_backend() {
    let origin = Origin::start().on("POST /", Respond::text("thanks"));
    let proxy = Proxy::start(&logged("json", &origin, ""));
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na");
    thread::sleep(Duration::from_millis(300));
    client.send("b");
    assert_eq!(client.read_response().text(), "thanks");
    let record = &records(&proxy, 1)[0];
    let (upload, first_byte) =
        (record.number("timings.upload_ms"), record.number("timings.first_byte_ms"));
    assert!(upload >= 100.0 && first_byte < upload, "{record:?}");
    assert_eq!(client.get("/").status, 404);
}

#[test]
fn a_json_line_has_every_field() {
    let origin = Origin::start()
        .on("POST /a/b?c=d", Respond::text("hello").after(Duration::from_millis(60)));
    let proxy = Proxy::start(&logged("json", &origin, ""));
    let request = "POST /a/b?c=d HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test/1\r\n\
                   Referer: http://from.example/\r\nContent-Length: 3\r\n\r\nabc";
    let mut client = proxy.client();
    let mut sent = Vec::new();
    for _ in 0..2 {
        client.send(request);
        let response = client.read_response();
        assert_eq!(response.text(), "hello");
        sent.push(response.head.len() + 4 + response.body.len());
    }
    let records = records(&proxy, 2);
    let record = &records[0];
    let timestamp = record.text("timestamp");
    assert!(timestamp.len() == 24 && timestamp.ends_with('Z') && &timestamp[10..11] == "T");
    for (name, expected) in [
        ("level", "INFO"),
        ("message", "request completed"),
        ("client_ip", "127.0.0.1"),
        ("peer_ip", "127.0.0.1"),
        ("method", "POST"),
        ("url", "/a/b?c=d"),
        ("protocol", "HTTP/1.1"),
        ("host", "shop.example"),
        ("user_agent", "test/1"),
        ("referer", "http://from.example/"),
        ("listener", "edge"),
        ("route", "all"),
        ("cluster", "a"),
        ("backend", &origin.address().to_string()),
    ] {
        assert_eq!(record.text(name), expected, "{name}");
    }
    assert_eq!(record.text("request_id").len(), 32);
    assert_eq!(record.number("status"), 200.0);
    assert_eq!(record.number("bytes_received") as usize, request.len());
    assert_eq!(record.number("bytes_sent") as usize, sent[0]);
    assert_eq!(record.number("attempts"), 1.0);
    assert_eq!(termination(record), ("none", "done", None));
    assert!((60.0..5000.0).contains(&record.number("timings.first_byte_ms")), "{record:?}");
    assert_eq!(
        (record.at("reused"), records[1].at("reused")),
        (&Json::Bool(false), &Json::Bool(true))
    );
    // The id that the origin saw is the one in the log.
    let ids: Vec<_> =
        origin.requests().iter().map(|r| r.header("x-request-id").map(str::to_owned)).collect();
    for (record, id) in records.iter().zip(ids) {
        assert_eq!(Some(record.text("request_id")), id.as_deref());
    }
}

#[test]
fn the_proxys_own_answers_and_unknown_paths_are_lines_too() {
    let origin = Origin::start();
    let toml = logged("json", &origin, "").replace("paths = [\"/*\"]", "paths = [\"/app/*\"]");
    let proxy = Proxy::start(&toml);
    let mut client = proxy.client();
    assert_eq!(client.get("/own").status, 204);
    assert_eq!(client.get("/nowhere").status, 404);
    let records = records(&proxy, 2);
    assert_eq!(records[0].text("route"), "refused");
    assert_eq!((records[0].at("cluster"), records[0].at("backend")), (&Json::Null, &Json::Null));
    assert_eq!(records[0].number("attempts"), 0.0);
    assert_eq!((records[1].at("route"), records[1].number("status")), (&Json::Null, 404.0));
    let (by, _, reason) = termination(&records[1]);
    assert_eq!((by, reason), ("client", Some("no_route")));
}

#[test]
fn clf_and_combined_lines_are_what_other_tools_parse() {
    let origin = Origin::start()
        .on("GET /a?b", Respond::text("12345"))
        .on("HEAD /a?b", Respond::text("12345"));
    for format in ["clf", "combined"] {
        let proxy = Proxy::start(&logged(format, &origin, ""));
        let mut client = proxy.client();
        client.send("GET /a?b HTTP/1.1\r\nHost: x\r\nUser-Agent: \"q\"\r\nReferer: r\r\n\r\n");
        assert_eq!(client.read_response().text(), "12345");
        client.send("HEAD /a?b HTTP/1.0\r\n\r\n");
        assert_eq!(client.read_response_to("HEAD").status, 200);
        let lines = lines(&proxy, 2);
        let (time, rest) = lines[0]
            .strip_prefix("127.0.0.1 - - [")
            .and_then(|rest| rest.split_once("] "))
            .unwrap_or_else(|| panic!("{lines:?}"));
        assert!(time.len() == 26 && time.ends_with(" +0000"), "{time}");
        let tail = if format == "clf" { "" } else { " \"r\" \"\\x22q\\x22\"" };
        assert_eq!(rest, format!("\"GET /a?b HTTP/1.1\" 200 5{tail}"));
        let tail = if format == "clf" { "" } else { " \"-\" \"-\"" };
        let expected = format!("] \"HEAD /a?b HTTP/1.0\" 200 -{tail}");
        assert!(lines[1].ends_with(&expected), "{}", lines[1]);
    }
}

/// A quote, a backslash, strays, a cut sequence, a line separator, a surrogate.
const BROKEN_UTF8: &[u8] = b"\"\\\x80\xff\xc3(\xe2\x80\xa8\xed\xa0\x80";

#[test]
fn bytes_from_clients_never_end_a_line_or_leave_their_field() {
    let origin = Origin::start();
    let hostile: Vec<Vec<u8>> = vec![
        b"GET /\"},{\"status\":\"200 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        [b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: ", BROKEN_UTF8, b"\r\n\r\n"].concat(),
        b"GET / HTTP/1.1\r\nHost: a\r\nReferer: \\u000a\\n\x7f\tx\r\n\r\n".to_vec(),
        b"GET /%0a%0d%00x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: a\nb: c\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: \x1b[31m\x07\r\n\r\n".to_vec(),
        b"G\x00T / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9_000)).into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: {}\r\n\r\n", "\u{e9}".repeat(5_000))
            .into_bytes(),
    ];
    for format in ["json", "combined", "clf"] {
        let proxy = Proxy::start(&logged(format, &origin, ""));
        for request in &hostile {
            let mut client = proxy.client();
            let _ = client.try_send(request);
            let answered = client.try_read_response_to("GET");
            assert!(answered.is_ok(), "{request:?}: {answered:?}");
        }
        assert_eq!(proxy.client().get("/own").status, 204);
        let lines = lines(&proxy, hostile.len() + 1);
        assert_eq!(lines.len(), hostile.len() + 1, "one line for each: {lines:#?}");
        for line in &lines {
            assert!(!line.chars().any(char::is_control), "{line:?}");
            assert!(!line.contains('\u{2028}') || format == "json", "{line:?}");
            match format {
                "json" => assert_times_add_up(&Json::parse(line)),
                _ => assert!(line.starts_with("127.0.0.1 - - ["), "{line}"),
            }
        }
        let quotes = if format == "combined" { 6 } else { 2 };
        if format != "json" {
            let all = lines.iter().all(|line| line.matches('"').count() == quotes);
            assert!(all, "a quote of a client is one of the format's: {lines:#?}");
        }
    }
}

/// Fails in the way that its target names; else it thinks for longer than anybody waits.
fn failing_origin() -> Origin {
    const BEGUN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    Origin::raw(|stream, request, _| {
        let head = String::from_utf8_lossy(request);
        let (answer, after) = match head.split(' ').nth(1) {
            Some("/reset") => return After::Reset,
            Some("/close") => return After::Close,
            Some("/cut") => (BEGUN, After::Close),
            Some("/nonsense") => (&b"NONSENSE\r\n\r\n"[..], After::KeepOpen),
            Some("/stall") => (BEGUN, After::KeepOpen),
            _ => (&b""[..], After::KeepOpen),
        };
        let _ = stream.write_all(answer);
        if after == After::KeepOpen {
            thread::sleep(Duration::from_secs(3));
        }
        After::Close
    })
}

const SHORT_TIMEOUTS: &str = "[clusters.a.timeouts]\nfirst_byte = \"1s\"\nread = \"1s\"\n\
                              [timeouts]\nheader = \"1s\"\nread = \"1s\"\n";

#[test]
fn what_an_upstream_ended_is_told_with_the_phase_and_the_reason() {
    let origin = failing_origin();
    let proxy = Proxy::start(&logged("json", &origin, SHORT_TIMEOUTS));
    let cases = [
        ("/reset", 502, ("upstream", "first_byte", Some("upstream_reset"))),
        ("/close", 502, ("upstream", "first_byte", Some("upstream_closed"))),
        ("/nonsense", 502, ("upstream", "first_byte", Some("upstream_malformed"))),
        ("/slow", 504, ("upstream", "first_byte", Some("first_byte_timeout"))),
        ("/cut", 200, ("upstream", "response_body", Some("upstream_body_cut"))),
        ("/stall", 200, ("upstream", "response_body", Some("upstream_read_timeout"))),
    ];
    for (number, (target, status, expected)) in cases.into_iter().enumerate() {
        let mut client = proxy.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let _ = client.try_read_response_to("GET");
        let records = records(&proxy, number + 1);
        let record = &records[number];
        assert_eq!(termination(record), expected, "{target}: {record:?}");
        assert_eq!(record.number("status") as u16, status, "{target}");
        assert_eq!(record.text("backend"), origin.address().to_string(), "{target}");
        assert_eq!(record.text("level"), "WARN", "{target}");
    }
    assert_eq!(proxy.client().get("/own").status, 204);
}

#[test]
fn what_a_client_ended_is_told_with_the_phase_and_the_reason() {
    let origin = failing_origin();
    let proxy = Proxy::start(&logged("json", &origin, SHORT_TIMEOUTS));
    let half = "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc";
    let cases = [
        (half, 408.0, "request_body", "body_timeout"),
        ("GET / HT", 408.0, "request_head", "header_timeout"),
        ("GET / HTTP/1.1\r\n\r\n", 400.0, "request_head", "host_missing"),
    ];
    for (number, (sent, status, phase, reason)) in cases.into_iter().enumerate() {
        let mut client = proxy.client();
        client.send(sent);
        assert_eq!(f64::from(client.read_response().status), status);
        let record = &records(&proxy, number + 1)[number];
        assert_eq!(termination(record), ("client", phase, Some(reason)));
    }
    let mut abort = proxy.client();
    abort.send(half);
    thread::sleep(Duration::from_millis(50));
    abort.close();
    let last = &records(&proxy, 4)[3];
    assert_eq!(termination(last), ("client", "request_body", Some("client_closed")));
    assert_eq!(last.number("status"), 0.0);
    assert_eq!(proxy.client().get("/own").status, 204);
}

#[test]
fn a_client_that_leaves_within_a_download_is_told_of() {
    let origin = Origin::raw(|stream, _, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        let chunk = vec![b'x'; 100_000];
        while stream.write_all(&chunk).is_ok() {}
        After::Close
    });
    let proxy = Proxy::start(&logged("json", &origin, ""));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_exactly(100_000);
    client.close();
    let record = &records(&proxy, 1)[0];
    assert_eq!(termination(record), ("client", "response_body", Some("client_closed")));
    assert_eq!(record.number("status"), 200.0);
    let sent = record.number("bytes_sent") as usize;
    assert!((100_000..100_000_000).contains(&sent), "{sent} bytes");
}

#[test]
fn a_first_request_whose_client_resets_while_its_origin_thinks_ends_at_once() {
    let origin = Origin::start().on("GET /slow", Respond::text("x").after(Duration::from_secs(25)));
    let proxy = Proxy::start(&logged("json", &origin, ""));
    let mut client = proxy.client();
    // The answer to the first stays unread in the client's socket: closing it resets.
    client.send("GET /own HTTP/1.1\r\nHost: a\r\n\r\nGET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    client.close();
    let record = &records(&proxy, 2)[1];
    assert_eq!(termination(record), ("client", "first_byte", Some("client_closed")));
    assert!(record.number("duration_ms") < 20_000.0, "{record:?}");
}

#[test]
fn a_client_that_resets_after_an_interim_answer_ends_its_exchange_at_once() {
    let origin = Origin::raw(|stream, _, _| {
        let _ = stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n");
        thread::sleep(Duration::from_secs(25));
        After::Close
    });
    let proxy = Proxy::start(&logged("json", &origin, ""));
    let mut client = TcpStream::connect(proxy.address("edge")).expect("it accepts");
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").expect("it is open");
    // The interim answer stays unread: closing resets.
    assert!(client.peek(&mut [0]).expect("it answers") > 0);
    drop(client);
    let record = &records(&proxy, 1)[0];
    assert_eq!(termination(record), ("client", "first_byte", Some("client_closed")));
    assert!(record.number("duration_ms") < 20_000.0, "{record:?}");
}

#[test]
fn exchanges_that_a_drain_cuts_have_their_lines() {
    let origin = Origin::start().on("GET /slow", Respond::text("x").after(Duration::from_secs(25)));
    let toml = logged("json", &origin, "");
    let mut proxy = Proxy::start(&format!("drain_timeout = \"200ms\"\n{toml}"));
    let mut client = proxy.client();
    assert_eq!(client.get("/own").status, 204);
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    proxy.signal("TERM");
    assert!(proxy.wait_exit(support::PATIENCE).success());
    let records = records(&proxy, 2);
    assert_eq!(records[0].number("status"), 204.0);
    assert_eq!(records[1].text("url"), "/slow");
    assert_eq!(termination(&records[1]), ("proxy", "first_byte", Some("draining")));
}

#[test]
fn a_log_that_cannot_be_written_stops_no_traffic_and_what_is_lost_is_counted() {
    let origin = Origin::start().on("GET /", Respond::text("x"));
    let toml = logged("json", &origin, "").replace("access.log", "/dev/full");
    let proxy = Proxy::start(&toml);
    let mut client = proxy.client();
    for _ in 0..50 {
        assert_eq!(client.get("/").text(), "x");
    }
    let dropped = || proxy.metric("tls_proxy_access_log_dropped_total");
    assert!(eventually(|| dropped() == Some(50.0)), "{:?}", dropped());
    assert_eq!(proxy.metric("tls_proxy_access_log_lines_total"), Some(0.0));
    proxy.wait_for_log("access log: cannot write /dev/full");
    assert_eq!(client.get("/").text(), "x");
}

#[test]
fn a_log_that_cannot_be_opened_ends_the_start_with_its_path() {
    let origin = Origin::start();
    let directory = support::TempDir::new();
    let toml = logged("json", &origin, "").replace("access.log", "/no/such/folder/access.log");
    let file = directory.write("corelane.toml", toml).display().to_string();
    let output = Proxy::command(&["run", "--config", &file]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("/no/such/folder/access.log"), "{stderr}");
}

#[test]
fn counters_are_those_of_what_was_done() {
    let origin =
        Origin::start().on("GET /", Respond::text("12345")).on("POST /", Respond::text("ok"));
    let toml = logged("json", &origin, "").replacen("cores = 1", "cores = 4", 1);
    let proxy = Proxy::start(&toml);
    let (mut sent, mut received) = (0, 0);
    for _ in 0..10 {
        let mut client = proxy.client();
        // Pipelined: what belongs to the next request is not counted with the first.
        let pair = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
        client.send(pair);
        sent += pair.len();
        for _ in 0..2 {
            let response = client.read_response();
            received += response.head.len() + 4 + response.body.len();
        }
        let post = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                    3\r\nabc\r\n0\r\n\r\n";
        client.send_split(post, post.len() - 7);
        sent += post.len();
        let response = client.read_response();
        assert_eq!(response.text(), "ok");
        received += response.head.len() + 4 + response.body.len();
        let own = "POST /own HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
        client.send(own);
        sent += own.len();
        received += client.read_response().head.len() + 4;
    }
    let broken = "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    let mut client = proxy.client();
    client.send(broken);
    let response = client.read_response();
    assert_eq!(response.status, 400);
    (sent, received) =
        (sent + broken.len(), received + response.head.len() + 4 + response.body.len());
    drop(client);
    let page = proxy.metrics();
    let value = |series: &str| {
        sum_of(&page, series).unwrap_or_else(|| panic!("no {series} in\n{page}")) as usize
    };
    assert_eq!(value("tls_proxy_connections_total"), 11);
    assert_eq!(value("tls_proxy_requests_total"), 41);
    assert_eq!(value("tls_proxy_request_duration_seconds_count"), 41);
    assert_eq!(value("http_requests_total{method=\"GET\",status=\"200\"}"), 20);
    assert_eq!(value("http_requests_total{method=\"POST\",status=\"200\"}"), 10);
    assert_eq!(value("http_requests_total{method=\"POST\",status=\"204\"}"), 10);
    assert_eq!(value("tls_proxy_failures_total{reason=\"malformed\",side=\"client\"}"), 1);
    let failures: usize = page
        .lines()
        .filter(|line| line.starts_with("tls_proxy_failures_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum();
    assert_eq!(failures, 1);
    assert_eq!(value("tls_proxy_bytes_out_total"), received);
    assert_eq!(value("tls_proxy_bytes_in_total"), sent);
    assert_eq!(value("tls_proxy_panics_total"), 0);
    let written = || proxy.metric("tls_proxy_access_log_lines_total");
    assert!(eventually(|| written() == Some(41.0)), "{:?}", written());
}

#[test]
fn the_cores_page_adds_up_to_the_metrics() {
    let origin = Origin::start().on("GET /", Respond::text("x"));
    let toml = logged("json", &origin, "").replacen("cores = 1", "cores = 4", 1);
    let proxy = Proxy::start(&toml);
    let mut clients: Vec<RawClient> = (0..20).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "x");
    }
    drop(clients.split_off(12));
    let sum = |name: &str| {
        let page = Json::parse(proxy.admin_get("/admin/cores").text());
        assert_eq!(page.list("cores").len(), 4);
        page.list("cores").iter().map(|core| core.number(name)).sum::<f64>()
    };
    assert!(eventually(|| sum("connections") == 12.0), "{}", sum("connections"));
    assert_eq!((sum("connections_total"), sum("requests")), (20.0, 20.0));
    assert!(sum("cpu_seconds") > 0.0);
    assert_eq!(proxy.metric("tls_proxy_connections_active"), Some(12.0));
    assert_eq!(proxy.metric("tls_proxy_connections_total"), Some(20.0));
    assert_eq!(proxy.metric("tls_proxy_requests_total"), Some(20.0));
    let page = Json::parse(proxy.admin_get("/admin/cores").text());
    for (number, core) in page.list("cores").iter().enumerate() {
        assert_eq!(core.number("core") as usize, number);
        for lag in ["p50", "p99", "max"] {
            assert!(core.number(&format!("loop_lag_us.{lag}")) >= 0.0);
        }
        let series = format!("tls_proxy_core_connections{{core=\"{number}\"}}");
        assert_eq!(proxy.metric(&series), Some(core.number("connections")));
    }
}
