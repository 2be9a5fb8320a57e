//! What operators read of TLS and PROXY protocol: log lines, events, the admin port; and that no
//! certificate writes what it likes there.

mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use support::{
    Curl, Json, Origin, Pki, Proxy, Respond, SecureClient, TempDir, edge, eventually, nobody,
    program,
};

const HOST: &str = "www.example.com";
const OK: &str = "[[routes]]\nname = \"ok\"\nrespond = { status = 200, body = \"ok\" }\n";
const LOG: &str = "[logging.access]\npath = \"access.log\"\n";
/// Of our own port, and not of whoever else tries a suite of PROXY protocol.
const PROXIED: &str = "PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n";

/// An authority `ca`, a certificate `www` for `HOST`, and one of a client that means no good.
fn pki() -> Pki {
    let pki = Pki::new();
    pki.authority("ca");
    pki.sign("ca", "www", "/CN=www", &format!("DNS:{HOST}"));
    pki
}

/// `more` goes into the listener's section of TLS, `rest` behind it.
fn secure(pki: &Pki, more: &str, rest: &str) -> String {
    let (cert, key) = (pki.path("www.pem"), pki.path("www.key"));
    edge(&format!(
        "[listeners.tls]\ncertificates = [{{ cert = {cert:?}, key = {key:?} }}]\n{more}\n{rest}"
    ))
}

fn client_auth(pki: &Pki, mode: &str) -> String {
    format!("client_auth = {{ mode = \"{mode}\", ca = [{:?}] }}\n", pki.path("ca.pem"))
}

fn curl(proxy: &Proxy, pki: &Pki, path: &str, arguments: &[&str]) -> Curl {
    let port = proxy.port("edge");
    let (resolve, authority) = (format!("{HOST}:{port}:127.0.0.1"), text(&pki.path("ca.pem")));
    let given = ["--resolve", &resolve, "--cacert", &authority];
    Curl::get(&format!("https://{HOST}:{port}{path}"), &[&given, arguments].concat())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The first `count` lines, once they are written.
fn lines(proxy: &Proxy, count: usize) -> Vec<String> {
    let path = proxy.directory().join("access.log");
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    let is_there = || read().lines().count() >= count;
    assert!(eventually(is_there), "{count} lines are expected: {}", read());
    read().lines().map(str::to_owned).collect()
}

fn records(proxy: &Proxy, count: usize) -> Vec<Json> {
    lines(proxy, count).iter().map(|line| Json::parse(line)).collect()
}

fn admin(proxy: &Proxy, path: &str) -> Value {
    serde_json::from_str(proxy.admin_get(path).text()).expect("the admin API answers JSON")
}

/// Those whose certificate the audit log has refused.
fn audited(proxy: &Proxy) -> Vec<Value> {
    let log = std::fs::read_to_string(proxy.directory().join("audit.log")).unwrap_or_default();
    let lines = log.lines().map(|line| serde_json::from_str(line).expect("it is JSON"));
    lines.filter(|line: &Value| line["event"] == "auth_failure").collect()
}

/// The lines of a stream of so many events, while `act` makes them.
fn events(proxy: &Proxy, kinds: &str, count: usize, act: impl FnOnce()) -> Vec<Value> {
    let path = format!("/admin/events?kinds={kinds}&count={count}");
    let mut stream = proxy.client_of("admin");
    stream.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let audit = proxy.directory().join("audit.log");
    let audit = || std::fs::read_to_string(&audit).unwrap_or_default() + &proxy.log();
    assert!(eventually(|| audit().contains("GET /admin/events")), "{}", audit());
    act();
    let answer = stream.read_response();
    answer.text().lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
}

// --- clients' TLS ------------------------------------------------------------------------------

/// What a certificate may say, and no log may be broken by.
const HOSTILE: &str = "w\"x\\y \u{202e}z\u{2028}{\"status\":200}";

#[test]
fn a_line_tells_of_the_clients_tls_and_of_its_certificate_whatever_that_says() {
    let pki = pki();
    let subject = format!("/CN={}", HOSTILE.replace('\\', "\\\\"));
    pki.sign("ca", "evil", &subject, "URI:spiffe://corp.example/evil");
    let proxy = Proxy::start(&secure(&pki, &client_auth(&pki, "optional"), &format!("{LOG}{OK}")));
    let (cert, key) = (text(&pki.path("evil.pem")), text(&pki.path("evil.key")));
    let got = curl(&proxy, &pki, "/", &["--cert", &cert, "--key", &key]);
    assert_eq!((got.status, got.text()), (200, "ok"), "{}", got.stderr);
    assert_eq!(curl(&proxy, &pki, "/", &["--tls-max", "1.2"]).status, 200);

    let records = records(&proxy, 2);
    assert_eq!(records.len(), 2, "{records:#?}");
    let (first, second) = (&records[0], &records[1]);
    assert_eq!(first.text("scheme"), "https");
    assert_eq!(first.text("tls.version"), "TLSv1.3");
    assert_eq!(first.text("tls.cipher"), "TLS_AES_256_GCM_SHA384");
    assert_eq!(first.text("tls.server_name"), HOST);
    assert_eq!(first.at("tls.resumed"), &Json::Bool(false));
    assert_eq!(first.text("tls.client.common_name"), HOSTILE);
    assert_eq!(first.text("tls.client.spiffe_id"), "spiffe://corp.example/evil");
    assert!(first.text("tls.client.subject").starts_with("CN="), "{first:?}");
    let said = Command::new(program("openssl"))
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in", &cert])
        .output()
        .expect("openssl starts");
    let said = String::from_utf8_lossy(&said.stdout).trim().replace(':', "").to_lowercase();
    assert_eq!(said.split('=').nth(1), Some(first.text("tls.client.fingerprint")));
    assert_eq!(second.text("tls.version"), "TLSv1.2");
    assert_eq!(second.text("tls.cipher"), "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384");
    assert_eq!(second.at("tls.client"), &Json::Null);
}

#[test]
fn a_template_shows_a_certificates_text_escaped() {
    let pki = pki();
    let subject = format!("/CN={}", HOSTILE.replace('\\', "\\\\"));
    pki.sign("ca", "evil", &subject, "URI:spiffe://corp.example/evil");
    let log = format!(
        "{LOG}format = \"template\"\ntemplate = \"{{scheme}} {{tls_version}} {{tls_resumed}} \
         {{tls_server_name}} {{client_spiffe_id}} {{client_cn}} {{speaks_for}} {{tls_ms}}\"\n{OK}"
    );
    let proxy = Proxy::start(&secure(&pki, &client_auth(&pki, "required"), &log));
    let (cert, key) = (text(&pki.path("evil.pem")), text(&pki.path("evil.key")));
    assert_eq!(curl(&proxy, &pki, "/", &["--cert", &cert, "--key", &key]).status, 200);
    let mut escaped = String::new();
    for byte in HOSTILE.bytes() {
        match byte {
            b'"' | b'\\' | 0x7f.. => write!(escaped, "\\x{byte:02X}").expect("it takes all"),
            byte => escaped.push(char::from(byte)),
        }
    }
    let expected =
        format!("https TLSv1.3 false {HOST} spiffe://corp.example/evil {escaped} - 0.000");
    assert_eq!(lines(&proxy, 1), [expected]);
}

#[test]
fn a_plain_line_has_nothing_of_tls_and_a_resumed_session_says_so() {
    let pki = pki();
    let proxy = Proxy::start(&secure(&pki, "allow_plain = true\n", &format!("{LOG}{OK}")));
    assert_eq!(proxy.client().get("/").text(), "ok");
    let config = Arc::new(SecureClient::config(&pki.path("ca.pem")));
    for _ in 0..2 {
        let address = proxy.address("edge");
        let mut client = SecureClient::connect_with(address, HOST, Arc::clone(&config));
        assert_eq!(client.get("/").text(), "ok");
    }
    let lines = lines(&proxy, 3);
    assert!(
        lines[0].contains("\"scheme\":\"http\"") && !lines[0].contains("\"tls\":"),
        "{lines:?}"
    );
    let resumed = |line: &str| Json::parse(line).at("tls.resumed") == &Json::Bool(true);
    assert_eq!(lines[1..].iter().map(|line| resumed(line)).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_client_that_is_refused_for_its_certificate_is_in_the_log_the_audit_log_and_the_events() {
    let pki = pki();
    pki.sign_expired("ca", "late", "DNS:late.example");
    let auth = client_auth(&pki, "required");
    let proxy =
        Proxy::start(&secure(&pki, &auth, &format!("[logging.audit]\npath = \"audit.log\"\n{OK}")));
    let (cert, key) = (text(&pki.path("late.pem")), text(&pki.path("late.key")));
    let events = events(&proxy, "connection", 2, || {
        assert_eq!(curl(&proxy, &pki, "/", &[]).status, 0);
        assert_eq!(curl(&proxy, &pki, "/", &["--cert", &cert, "--key", &key]).status, 0);
    });
    for (event, reason) in events.iter().zip(["certificate_missing", "certificate_refused"]) {
        assert_eq!(event["state"], "refused", "{event}");
        assert_eq!(event["reason"], reason, "{event}");
        assert_eq!(event.get("tls"), None, "{event}");
    }
    proxy.wait_for_log(
        "listener edge (certificate_missing): the client shows no certificate, and `client_auth` \
         requires one",
    );
    proxy.wait_for_log("(certificate_refused): the client's certificate is not accepted: ");
    assert!(eventually(|| audited(&proxy).len() == 2), "{}", proxy.log());
    let last = &audited(&proxy)[1];
    assert_eq!(last["outcome"], "denied");
    assert_eq!((&last["client_ip"], &last["peer_ip"]), (&json!("127.0.0.1"), &json!("127.0.0.1")));
    assert_eq!((&last["listener"], &last["server_name"]), (&json!("edge"), &json!(HOST)));
    assert_eq!(last["reason"], "certificate_refused");
    assert!(last["detail"].as_str().is_some_and(|detail| detail.contains("expired")), "{last}");
}

#[test]
fn connections_and_events_show_who_a_client_is() {
    let pki = pki();
    pki.sign("ca", "billing", "/CN=billing", "DNS:billing.example");
    let proxy = Proxy::start(&secure(&pki, &client_auth(&pki, "required"), OK));
    let config = SecureClient::config_with(&pki.path("ca.pem"), &pki.path("billing.pem"));
    let config = Arc::new(config);
    let events = events(&proxy, "connection,request", 3, || {
        let mut client =
            SecureClient::connect_with(proxy.address("edge"), HOST, Arc::clone(&config));
        assert_eq!(client.get("/").text(), "ok");
        let page = admin(&proxy, "/admin/connections");
        let listed = &page["connections"][0];
        assert_eq!(listed["tls"]["version"], "TLSv1.3", "{page}");
        assert_eq!(listed["tls"]["cipher"], "TLS_AES_256_GCM_SHA384");
        assert_eq!(listed["tls"]["server_name"], HOST);
        assert_eq!(listed["tls"]["client"]["common_name"], "billing");
        assert_eq!(listed["speaks_for"], Value::Null);
        assert_eq!(admin(&proxy, "/admin/listeners")["listeners"][0]["tls"], true);
    });
    let states: Vec<_> = events.iter().map(|event| event["state"].as_str()).collect();
    assert_eq!(states, [Some("opened"), None, Some("closed")], "{events:#?}");
    for event in &events {
        assert_eq!(event["tls"]["client"]["common_name"], "billing", "{event}");
    }
}

#[test]
fn backends_are_told_that_the_client_has_come_by_tls_and_a_stranger_cannot_say_so() {
    let (pki, origin) = (pki(), Origin::start().on("GET /", Respond::text("ok")));
    let rest = format!(
        "[[routes]]\nname = \"all\"\ncluster = \"a\"\n\
         [clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n",
        origin.address()
    );
    let proxy = Proxy::start(&secure(&pki, "allow_plain = true\n", &rest));
    let header = ["--header", "X-Forwarded-Proto: gopher"];
    assert_eq!(curl(&proxy, &pki, "/", &header).text(), "ok");
    assert_eq!(Curl::get(&proxy.url("/"), &header).text(), "ok");
    let requests = origin.wait_for_requests(2);
    let told = requests.iter().map(|request| request.headers("x-forwarded-proto"));
    assert_eq!(told.collect::<Vec<_>>(), [["https"], ["http"]]);
}

// --- endpoints' TLS ----------------------------------------------------------------------------

#[test]
fn a_handshake_with_an_endpoint_has_a_time_of_its_own() {
    let pki = pki();
    let backend = Proxy::start(&secure(&pki, "", OK));
    let cluster = |ca: &Path| {
        format!(
            "[clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n\
             tls = {{ ca = [{ca:?}], server_name = \"{HOST}\" }}\n\
             [[routes]]\nname = \"all\"\ncluster = \"a\"\n",
            backend.address("edge")
        )
    };
    let proxy = Proxy::start(&edge(&format!("{LOG}{}", cluster(&pki.path("ca.pem")))));
    let mut client = proxy.client();
    assert_eq!((client.get("/").text(), client.get("/").text()), ("ok", "ok"));
    let written = records(&proxy, 2);
    let times: Vec<f64> = written.iter().map(|line| line.number("timings.tls_ms")).collect();
    assert!(times[0] > 0.0 && times[1] == 0.0, "{times:?}");
    for line in &written {
        let spans =
            ["head", "queue", "connect", "tls", "upload", "first_byte", "body"].map(|name| {
                let span = line.number(&format!("timings.{name}_ms"));
                assert!(span >= 0.0, "{line:?}");
                span
            });
        let sum: f64 = spans.iter().sum();
        assert!((sum - line.number("duration_ms")).abs() < 0.0015, "{line:?}");
    }
    let series = "tls_proxy_cluster_tls_seconds_count{cluster=\"a\"}";
    assert_eq!(proxy.metric(series), Some(1.0));

    // One that is not believed has taken the time until then.
    let stranger = Pki::new();
    stranger.authority("ca");
    let proxy = Proxy::start(&edge(&format!("{LOG}{}", cluster(&stranger.path("ca.pem")))));
    assert_eq!(proxy.client().get("/").status, 502);
    let line = &records(&proxy, 1)[0];
    assert_eq!(line.text("termination.reason"), "upstream_tls_untrusted");
    assert_eq!(line.text("termination.phase"), "tls");
    assert!(line.number("timings.tls_ms") > 0.0, "{line:?}");
    assert_eq!(proxy.metric(series), Some(1.0));
    proxy.wait_for_log("(upstream_tls_untrusted): ");
    assert_eq!(backend.client().read_to_close().len(), 0);
}

// --- PROXY protocol ----------------------------------------------------------------------------

fn greeted(more: &str, rest: &str) -> String {
    format!("{more}{}", edge(&format!("proxy_protocol = {{ from = [\"127.0.0.1\"] }}\n{rest}")))
}

#[test]
fn who_a_peer_speaks_for_is_the_client_everywhere() {
    let origin = Origin::start().on("GET /", Respond::text("ok"));
    let rest = format!(
        "{LOG}[[routes]]\nname = \"all\"\ncluster = \"a\"\n\
         [clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n",
        origin.address()
    );
    let proxy = Proxy::start(&greeted("trusted_proxies = [\"203.0.113.0/24\"]\n", &rest));
    let ask = |header: &str, chain: &str| {
        let mut client = proxy.client();
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {chain}\r\n\r\n");
        client.send(format!("{header}{request}"));
        assert_eq!(client.read_response().text(), "ok");
        client
    };
    // Who is told is trusted, and not who tells: its chain counts.
    let kept = ask(PROXIED, "198.51.100.1");
    let page = admin(&proxy, "/admin/connections");
    assert_eq!(page["connections"][0]["speaks_for"], "203.0.113.9:4711", "{page}");
    assert_eq!(page["connections"][0]["peer"], kept.local_addr().to_string());
    ask("PROXY TCP4 192.0.2.7 192.0.2.1 99 443\r\n", "198.51.100.1");
    let mut client = proxy.client();
    client.send(format!("{PROXIED}GET / HTTP/1.1\nHost: a\r\n\r\n"));
    assert_eq!(client.read_response().status, 400);

    let written = records(&proxy, 3);
    let told = |line: &Json| {
        let names = ["client_ip", "peer_ip", "speaks_for", "scheme"];
        names.map(|name| line.text(name).to_owned())
    };
    assert_eq!(told(&written[0]), ["198.51.100.1", "127.0.0.1", "203.0.113.9:4711", "http"]);
    assert_eq!(told(&written[1]), ["192.0.2.7", "127.0.0.1", "192.0.2.7:99", "http"]);
    assert_eq!(told(&written[2])[0], "203.0.113.9");
    let requests = origin.requests();
    assert_eq!(requests[0].header("x-forwarded-for"), Some("198.51.100.1, 203.0.113.9"));
    assert_eq!(requests[1].header("x-forwarded-for"), Some("192.0.2.7"));
    let errors = admin(&proxy, "/admin/errors");
    assert_eq!(errors["errors"][0]["speaks_for"], "203.0.113.9:4711", "{errors}");
}

#[test]
fn a_header_that_is_missing_is_told_of_and_no_event_takes_the_connection_for_an_open_one() {
    let proxy = Proxy::start(&greeted("", OK));
    let events = events(&proxy, "connection", 3, || {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_to_close(), b"");
        let mut client = proxy.client();
        client.send(format!("{PROXIED}GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.read_response().text(), "ok");
    });
    let told = |event: &Value| {
        let part = |name| event.get(name).and_then(Value::as_str).map(str::to_owned);
        (part("state"), part("reason"), part("speaks_for"))
    };
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        (text("refused"), text("proxy_header"), None),
        (text("opened"), None, text("203.0.113.9:4711")),
        (text("closed"), None, text("203.0.113.9:4711")),
    ];
    assert_eq!(events.iter().map(told).collect::<Vec<_>>(), expected);
    proxy.wait_for_log("was not served by listener edge (proxy_header): ");
}

#[test]
fn the_blacklist_holds_for_whom_a_peer_speaks() {
    let directory = TempDir::new();
    let entry = "{\"ip\":\"203.0.113.9\",\"reason\":\"abuse\",\"by\":\"test\",\"since\":1}\n";
    let list = directory.write("blacklist", entry);
    let proxy = Proxy::start(&greeted("", &format!("[blacklist]\npath = {list:?}\n{OK}")));
    let mut client = proxy.client();
    let _ = client.try_send(format!("{PROXIED}GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(client.read_to_close(), b"");
    let mut client = proxy.client();
    client.send("PROXY TCP4 203.0.113.8 192.0.2.1 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().text(), "ok");
}

// --- those that never come to a request --------------------------------------------------------

#[test]
fn plain_http_on_a_port_of_tls_is_answered_with_what_to_do() {
    let pki = pki();
    let proxy = Proxy::start(&secure(&pki, "", &format!("{LOG}{OK}")));
    let got = Curl::get(&proxy.url("/a?b"), &[]);
    assert_eq!(got.status, 400, "{}", got.stderr);
    let error: Value = serde_json::from_str(got.text()).expect("errors are JSON");
    assert_eq!(error["error"]["message"], "this port speaks TLS, use https://");
    assert_eq!(got.headers("connection"), ["close"]);
    let line = &records(&proxy, 1)[0];
    assert_eq!(line.text("termination.reason"), "plain_http_on_tls");
    assert_eq!((line.text("url"), line.text("scheme")), ("/a?b", "http"));
    assert_eq!(line.at("route"), &Json::Null);
    let series = "tls_proxy_failures_total{reason=\"plain_http_on_tls\",side=\"client\"}";
    assert_eq!(proxy.metric(series), Some(1.0));
    proxy.wait_for_log("was not served by listener edge (plain_http): ");
    // A body that nobody will read does not cost the client its answer.
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nsome body");
    assert_eq!(client.read_response().status, 400);
    assert_eq!(curl(&proxy, &pki, "/", &[]).text(), "ok");
}

#[test]
fn refusals_of_one_kind_are_one_line_a_second_that_counts_the_others() {
    let pki = pki();
    let proxy = Proxy::start(&secure(&pki, "", OK));
    let garbage = || {
        let mut client = proxy.client();
        client.send([0x16, 3, 1, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
        client.read_to_close();
    };
    let line = "was not served by listener edge (client_hello): ";
    garbage();
    proxy.wait_for_log(line);
    (0..5).for_each(|_| garbage());
    let counted = || {
        garbage();
        proxy.log().contains(" more since the last line of this kind)")
    };
    assert!(eventually(counted), "{}", proxy.log());
    let log = proxy.log();
    let told = log.lines().find_map(|line| line.split_once(" (and ")).expect("it was found");
    let more: u64 = told.1.split(' ').next().and_then(|more| more.parse().ok()).expect("a number");
    assert!(more >= 5, "{log}");
    assert_eq!(curl(&proxy, &pki, "/", &[]).text(), "ok");
}

#[test]
fn who_only_looks_whether_the_port_is_open_is_no_news() {
    let pki = pki();
    let looks = |proxy: &Proxy| {
        proxy.client().close();
        let failed = "tls_proxy_tls_handshake_failures_total";
        let counted = || support::sum_of(&proxy.metrics(), failed) > Some(0.0);
        assert!(eventually(counted), "{}", proxy.metrics());
        // What comes behind it is told of, so that it would have been.
        let mut client = proxy.client();
        client.send([0x16, 3, 1, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
        client.read_to_close();
        proxy.wait_for_log("(client_hello): ");
        assert_eq!(curl(proxy, &pki, "/", &[]).text(), "ok");
        proxy.log().contains("not a byte came")
    };
    assert!(!looks(&Proxy::start(&secure(&pki, "", OK))));
    let debug = format!("[logging]\nlevel = \"debug\"\n{OK}");
    assert!(looks(&Proxy::start(&secure(&pki, "", &debug))));
}

// --- TLS that passes through -------------------------------------------------------------------

#[test]
fn tls_that_passes_through_has_a_line_at_its_end() {
    let pki = pki();
    let backend = Proxy::start(&secure(&pki, "", OK));
    let rest = format!(
        "{LOG}[clusters.inner]\nendpoints = [{{ address = \"{}\" }}]\n\
         [clusters.gone]\nendpoints = [{{ address = \"{}\" }}]\n",
        backend.address("edge"),
        nobody()
    );
    let passes = format!(
        "passthrough = [{{ names = [\"{HOST}\"], cluster = \"inner\" }},\n\
         {{ names = [\"gone.example\"], cluster = \"gone\" }}]\n"
    );
    let config = edge(&format!("[listeners.tls]\n{passes}\n{rest}"));
    let proxy = Proxy::start(&format!("drain_timeout = \"300ms\"\n{config}"));
    let mut client = SecureClient::connect(proxy.address("edge"), HOST, &pki.path("ca.pem"));
    assert_eq!(client.get("/").text(), "ok");
    let page = admin(&proxy, "/admin/connections");
    let listed = &page["connections"][0];
    assert_eq!(
        (&listed["state"], &listed["tls"]["server_name"]),
        (&json!("serving"), &json!(HOST))
    );
    assert_eq!(listed["tls"]["version"], Value::Null);
    let carried = |name: &str| listed[name].as_u64().unwrap_or_default();
    assert!(carried("received_bytes") > 300 && carried("sent_bytes") > 300, "{page}");
    drop(client);

    let line = &records(&proxy, 1)[0];
    assert_eq!(line.text("message"), "connection passed through");
    assert_eq!((line.text("listener"), line.text("cluster")), ("edge", "inner"));
    assert_eq!((line.text("host"), line.text("tls.server_name")), (HOST, HOST));
    assert_eq!(line.text("backend"), backend.address("edge").to_string());
    assert_eq!(line.at("method"), &Json::Null);
    assert!(line.number("bytes_received") >= carried("received_bytes") as f64, "{line:?}");
    assert!(line.number("bytes_sent") >= carried("sent_bytes") as f64, "{line:?}");
    assert_eq!(line.number("attempts"), 1.0);
    assert!(line.number("duration_ms") > 0.0 && line.number("timings.tls_ms") == 0.0);
    let by_listener = "tls_proxy_listener_bytes_in_total{listener=\"edge\"}";
    assert!(proxy.metric(by_listener) >= Some(carried("received_bytes") as f64));

    let config = Arc::new(SecureClient::config(&pki.path("ca.pem")));
    let lost = SecureClient::try_connect(proxy.address("edge"), "gone.example", config);
    assert!(lost.is_err());
    let line = &records(&proxy, 2)[1];
    assert_eq!(line.text("termination.reason"), "connect_refused");
    assert_eq!((line.text("termination.by"), line.text("level")), ("upstream", "WARN"));
    assert_eq!((line.text("termination.phase"), line.text("cluster")), ("connect", "gone"));
    let mut client = SecureClient::connect(proxy.address("edge"), HOST, &pki.path("ca.pem"));
    assert_eq!(client.get("/").text(), "ok");
    // One that outlasts the drain is told of as such.
    proxy.signal("TERM");
    assert!(matches!(client.read_to_end(), (_, false)));
    let line = &records(&proxy, 3)[2];
    assert_eq!(line.text("termination.phase"), "passing", "{line:?}");
    assert_eq!(line.text("termination.reason"), "draining", "{line:?}");
}
