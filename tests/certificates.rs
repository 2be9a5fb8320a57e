//! Certificates while traffic flows: files that change, staples, sessions that are resumed, and
//! what operators see of all that.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::{
    Pki, Proxy, SClient, SecureClient, edge, eventually, program, promtool, sum_of, unused_port,
};

const HOST: &str = "www.example.com";
const ECHO: &str = "[[routes]]\nname = \"all\"\nrespond = { status = 200, body = \"ok\" }\n";

/// `one` and `two` are certificates for the same host, from one authority.
fn two_certificates() -> Pki {
    let pki = Pki::new();
    pki.authority("ca");
    for name in ["one", "two"] {
        pki.sign("ca", name, &format!("/CN={name}"), &format!("DNS:{HOST}"));
    }
    put(&pki, "one");
    pki
}

/// In the place of what is served, by renames: the certificate first, then its key.
fn put(pki: &Pki, name: &str) {
    put_file(pki, name, "pem");
    put_file(pki, name, "key");
}

fn put_file(pki: &Pki, name: &str, kind: &str) {
    let beside = pki.path(&format!("beside.{kind}"));
    fs::copy(pki.path(&format!("{name}.{kind}")), &beside).expect("the directory is ours");
    fs::rename(beside, pki.path(&format!("served.{kind}"))).expect("the directory is ours");
}

fn serving(cert: &Path, key: &Path, more: &str) -> String {
    let tls = format!("[listeners.tls]\ncertificates = [{{ cert = {cert:?}, key = {key:?} }}]\n");
    edge(&format!("{tls}{more}\n{ECHO}"))
}

fn serving_of(pki: &Pki, more: &str) -> String {
    serving(&pki.path("served.pem"), &pki.path("served.key"), more)
}

fn unwatched(text: &str) -> String {
    format!("hot_reload = {{ watch = false }}\n{text}")
}

fn client(proxy: &Proxy, pki: &Pki) -> SecureClient {
    SecureClient::connect(proxy.address("edge"), HOST, &pki.path("ca.pem"))
}

/// The common name of the certificate that a new client is shown.
fn shown(address: SocketAddr) -> String {
    let said = SClient::fetch(address, &["-servername", HOST]);
    let subject = said.lines().find_map(|line| line.strip_prefix("subject="));
    let subject = subject.unwrap_or_else(|| panic!("no certificate:\n{said}"));
    subject.replace(' ', "").trim_start_matches("CN=").to_owned()
}

fn comes_to_show(proxy: &Proxy, name: &str) {
    let address = proxy.address("edge");
    assert!(eventually(|| shown(address) == name), "{name} never comes:\n{}", proxy.log());
}

fn page(proxy: &Proxy) -> Value {
    let answer = proxy.admin_get("/admin/certificates");
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).expect("it is JSON")
}

fn checks(proxy: &Proxy) -> Value {
    let body: Value = serde_json::from_slice(&proxy.admin_get("/health").body).expect("it is JSON");
    body["checks"].clone()
}

// --- files that change ---------------------------------------------------------------------------

#[test]
fn a_renewed_certificate_is_shown_to_new_clients_and_connections_stay() {
    let pki = two_certificates();
    let proxy = Proxy::start(&serving_of(&pki, ""));
    let mut kept = client(&proxy, &pki);
    assert_eq!(kept.get("/").text(), "ok");
    assert_eq!(shown(proxy.address("edge")), "one");
    put_file(&pki, "two", "pem");
    // Long enough for it to be looked at, and shorter than what it is given to become whole.
    thread::sleep(Duration::from_millis(500));
    put_file(&pki, "two", "key");
    comes_to_show(&proxy, "two");
    assert_eq!(kept.get("/").text(), "ok", "it goes on");
    proxy.wait_for_log("served.pem has changed and is in use: www.example.com (CN=two");
    assert!(!proxy.log().contains("ERROR"), "a pair that is half there is no error");
    let failures = proxy.metric("tls_proxy_certificate_reload_failures_total");
    assert_eq!(failures, Some(0.0));
    let page = page(&proxy);
    let shown = &page["certificates"][0];
    assert_eq!((&shown["subject"], &shown["error"]), (&"CN=two".into(), &Value::Null));
    assert_eq!(shown["listeners"], serde_json::json!(["edge"]));
    assert_eq!(shown["names"], serde_json::json!([HOST]));
    assert_eq!(shown["days_left"], 89);
    assert_eq!(shown["key_kind"], "ECDSA P-256");
    assert_eq!(shown["staple"]["state"], "off");
}

#[test]
fn a_broken_file_leaves_what_was_there_and_is_told_of_once() {
    let pki = two_certificates();
    let audit = "[logging.audit]\npath = \"audit.log\"\n";
    let proxy = Proxy::start(&(serving_of(&pki, "") + audit));
    let failures = || proxy.metric("tls_proxy_certificate_reload_failures_total");
    pki.write("served.pem", "half of a cert");
    assert!(eventually(|| failures() == Some(1.0)), "{}", proxy.log());
    assert_eq!(shown(proxy.address("edge")), "one");
    let complaint = "served.pem`: there is no certificate in it";
    assert_eq!(proxy.log().matches(complaint).count(), 1, "{}", proxy.log());
    let message = page(&proxy)["certificates"][0]["error"]["message"].clone();
    assert!(message.as_str().is_some_and(|text| text.contains(complaint)), "{message}");
    assert_eq!(checks(&proxy)["certificates"], "reload_refused");
    let page = proxy.admin_get("/health");
    assert_eq!(page.status, 200, "it serves as before");
    // The same again is nothing new; another content is, even when it is wrong in the same way.
    pki.write("served.pem", "half of a cert");
    pki.write("served.pem", "half of another");
    assert!(eventually(|| failures() == Some(2.0)), "{}", proxy.log());
    put(&pki, "two");
    comes_to_show(&proxy, "two");
    proxy.wait_for_log("what was wrong is right again");
    assert!(eventually(|| checks(&proxy)["certificates"] == "ok"));
    assert_eq!(failures(), Some(2.0));
    let outcomes = || {
        let log = fs::read_to_string(proxy.directory().join("audit.log")).unwrap_or_default();
        let records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours = records.filter(|record| record["action"] == "certificates");
        ours.map(|record| record["outcome"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let expected = ["failed", "failed", "done"].map(|word| Some(word.to_owned()));
    assert!(eventually(|| outcomes() == expected), "{:?}", outcomes());
    assert_eq!(client(&proxy, &pki).get("/").text(), "ok");
}

#[test]
fn a_key_of_another_certificate_is_refused_and_the_right_one_taken() {
    let pki = two_certificates();
    let proxy = Proxy::start(&serving_of(&pki, ""));
    fs::copy(pki.path("two.key"), pki.path("served.key")).expect("the directory is ours");
    proxy.wait_for_log("the private key does not match the certificate");
    assert_eq!(shown(proxy.address("edge")), "one");
    fs::copy(pki.path("two.pem"), pki.path("served.pem")).expect("the directory is ours");
    comes_to_show(&proxy, "two");
}

#[test]
fn a_link_that_leads_elsewhere_is_seen_as_secrets_of_kubernetes_change() {
    let pki = two_certificates();
    for name in ["one", "two"] {
        let directory = pki.path(&format!("..{name}"));
        fs::create_dir(&directory).expect("the directory is ours");
        for (kind, file) in [("pem", "tls.crt"), ("key", "tls.key")] {
            let from = pki.path(&format!("{name}.{kind}"));
            fs::copy(from, directory.join(file)).expect("the directory is ours");
        }
    }
    symlink("..one", pki.path("..data")).expect("the directory is ours");
    for file in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{file}"), pki.path(file)).expect("the directory is ours");
    }
    let proxy = Proxy::start(&serving(&pki.path("tls.crt"), &pki.path("tls.key"), ""));
    assert_eq!(shown(proxy.address("edge")), "one");
    symlink("..two", pki.path("..data_tmp")).expect("the directory is ours");
    fs::rename(pki.path("..data_tmp"), pki.path("..data")).expect("the directory is ours");
    comes_to_show(&proxy, "two");
}

#[test]
fn unwatched_files_are_read_when_somebody_asks() {
    let pki = two_certificates();
    let proxy = Proxy::start(&unwatched(&serving_of(&pki, "")));
    put(&pki, "two");
    assert_eq!(shown(proxy.address("edge")), "one");
    proxy.signal("HUP");
    comes_to_show(&proxy, "two");
    put(&pki, "one");
    let mut admin = proxy.client_of("admin");
    admin.send("POST /admin/certificates/reload HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = admin.read_response();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.text().contains("CN=one"), "{answer:?}");
    comes_to_show(&proxy, "one");
    put(&pki, "two");
    admin.send("POST /admin/reload HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(admin.read_response().status, 200);
    comes_to_show(&proxy, "two");
}

#[test]
fn a_new_revocation_list_shuts_out_whom_it_names() {
    let pki = two_certificates();
    pki.sign("ca", "client", "/CN=client", "DNS:client.example");
    // Only lists of version 2 have numbers, and only those are taken.
    let config = fs::read_to_string(pki.path("ca.cnf")).expect("the authority has one");
    pki.write("ca.cnf", &config.replace("unique_subject", "crlnumber = ca.number\nunique_subject"));
    pki.write("ca.number", "01");
    pki.list_revoked("ca", "list", &[]);
    let auth = format!(
        "[listeners.tls.client_auth]\nmode = \"required\"\nca = [{:?}]\ncrl = [{:?}]\n",
        pki.path("ca.pem"),
        pki.path("list.crl")
    );
    let proxy = Proxy::start(&serving_of(&pki, &auth));
    let config = SecureClient::config_with(&pki.path("ca.pem"), &pki.path("client.pem"));
    let config = Arc::new(config);
    let is_served = || {
        let fresh = Arc::new((*config).clone());
        let client = SecureClient::try_connect(proxy.address("edge"), HOST, fresh);
        client.and_then(|mut client| {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            client.try_read_response_to("GET")
        })
    };
    assert_eq!(is_served().expect("it is good").status, 200);
    let listed = page(&proxy)["revocation_lists"][0].clone();
    assert_eq!(listed["lists"], 1);
    assert!(listed["next_update"].is_string(), "{listed}");
    pki.revoke("ca", "client");
    pki.list_revoked("ca", "list", &[]);
    assert!(eventually(|| is_served().is_err()), "{}", proxy.log());
    proxy.wait_for_log("list.crl has changed and is in use: revocation lists: 1");
    let refused = "tls_proxy_tls_handshake_failures_total{reason=\"certificate_refused\"}";
    assert!(eventually(|| proxy.metric(refused) >= Some(1.0)));
}

#[test]
fn certificates_change_under_load_and_nobody_is_refused() {
    let pki = two_certificates();
    let text = serving_of(&pki, "").replace("cores = 1\n", "cores = 2\n");
    let proxy = Proxy::start(&text);
    let (address, authority) = (proxy.address("edge"), pki.path("ca.pem"));
    let (is_over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let mut client = SecureClient::connect(address, HOST, &authority);
                    for _ in 0..3 {
                        assert_eq!(client.get("/").text(), "ok");
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for turn in 0..6 {
            let name = ["two", "one"][turn % 2];
            put(&pki, name);
            comes_to_show(&proxy, name);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(served.load(Ordering::Relaxed) > 10);
    assert!(!proxy.log().contains("ERROR"), "{}", proxy.log());
    assert_eq!(proxy.metric("tls_proxy_tls_handshakes_total{result=\"failed\"}"), Some(0.0));
}

/// As `openssl ca` wants it.
fn in_seconds(seconds: u32) -> String {
    let moment = Command::new("date")
        .args(["-u", "-d", &format!("+{seconds} seconds"), "+%Y%m%d%H%M%SZ"])
        .output();
    let moment = String::from_utf8(moment.expect("date runs").stdout).expect("it is text");
    moment.trim().to_owned()
}

/// `served.pem`, by a rename: `one` with a begin or an end (`limit`) that is soon, in seconds.
fn put_short(pki: &Pki, limit: &str, seconds: u32) {
    let names = format!("subjectAltName=DNS:{HOST}");
    let request = ["req", "-new", "-key", "one.key", "-out", "short.csr", "-subj", "/CN=short"];
    pki.openssl(&[&request[..], &["-addext", &names]].concat());
    let sign = ["ca", "-config", "ca.cnf", "-batch", "-notext", "-in", "short.csr", "-out"];
    pki.openssl(&[&sign[..], &["short.pem", limit, &in_seconds(seconds)]].concat());
    fs::rename(pki.path("short.pem"), pki.path("served.pem")).expect("the directory is ours");
}

#[test]
fn a_certificate_that_comes_before_its_time_is_used_when_its_time_has_come() {
    let pki = two_certificates();
    let proxy = Proxy::start(&serving_of(&pki, ""));
    let failures = || proxy.metric("tls_proxy_certificate_reload_failures_total");
    // On a busy machine the time of one may have come before it is read.
    let is_refused = |seconds: &u32| {
        put_short(&pki, "-startdate", *seconds);
        let is_in_use = || page(&proxy)["certificates"][0]["subject"] == "CN=short";
        let is_refused = || proxy.log().contains("it is not valid before");
        assert!(eventually(|| is_in_use() || is_refused()), "{}", proxy.log());
        is_refused()
    };
    assert!([4, 8, 16].iter().any(is_refused), "{}", proxy.log());
    assert_eq!(checks(&proxy)["certificates"], "reload_refused");
    comes_to_show(&proxy, "short");
    proxy.wait_for_log("what was wrong is right again");
    assert!(eventually(|| checks(&proxy)["certificates"] == "ok"));
    assert_eq!(failures(), Some(1.0), "told of once, however often it was looked at");
}

#[test]
fn a_certificate_that_expires_in_use_is_shown_all_the_same_and_alarms() {
    let pki = two_certificates();
    let proxy = Proxy::start(&serving_of(&pki, ""));
    assert_eq!(checks(&proxy)["certificates"], "ok");
    // On a busy machine one may have expired before it is read: that is refused.
    let is_taken = |seconds: &u32| {
        let refusals = proxy.log().matches("expired on").count();
        put_short(&pki, "-enddate", *seconds);
        let is_in_use = || page(&proxy)["certificates"][0]["subject"] == "CN=short";
        let is_refused = || proxy.log().matches("expired on").count() > refusals;
        assert!(eventually(|| is_in_use() || is_refused()), "{}", proxy.log());
        is_in_use()
    };
    assert!([4, 8, 16].iter().any(is_taken), "{}", proxy.log());
    proxy.wait_for_log("and is shown all the same: renew it");
    let checks = checks(&proxy);
    assert_eq!(checks["certificates"], "expired");
    let file = pki.path("served.pem").display().to_string();
    assert_eq!(checks["expired_certificates"], serde_json::json!([file]));
    assert_eq!(proxy.admin_get("/health").status, 200, "its other clients are served");
    assert_eq!(shown(proxy.address("edge")), "short");
    let left = sum_of(&proxy.metrics(), "tls_proxy_certificate_expiry_seconds");
    assert!(left.is_some_and(|left| left <= 0.0), "{left:?}");
    assert_eq!(page(&proxy)["certificates"][0]["days_left"], -1);
    // Nothing else waits for it to be renewed.
    proxy.signal("HUP");
    proxy.wait_for_log("reloaded (SIGHUP): version 2");
    proxy.wait_for_log(", and stays in use all the same");
    let mut admin = proxy.client_of("admin");
    admin.send("POST /admin/certificates/reload HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(admin.read_response().status, 200);
    assert_eq!(page(&proxy)["certificates"][0]["error"], Value::Null, "it is not a broken file");
    assert_eq!(proxy.metric("tls_proxy_certificate_reload_failures_total"), Some(0.0));
    put(&pki, "two");
    comes_to_show(&proxy, "two");
}

// --- OCSP ----------------------------------------------------------------------------------------

/// `openssl ocsp` as the responder of the authority; it ends after so many answers.
struct Responder(Child);

impl Responder {
    fn start(pki: &Pki, port: u16, answers: usize) -> Responder {
        let mut child = Command::new(program("openssl"))
            .args(["ocsp", "-index", "ca.index", "-CA", "ca.pem", "-rsigner", "ca.pem"])
            .args(["-rkey", "ca.key", "-ndays", "2", "-port", &port.to_string()])
            .args(["-nrequest", &answers.to_string()])
            .current_dir(pki.path("."))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl starts");
        // It says so when it listens, and counts whoever would only look.
        let said = BufReader::new(child.stdout.take().expect("it is piped"));
        let ready = said.lines().map_while(Result::ok).any(|line| line.contains("ACCEPT"));
        assert!(ready, "openssl ocsp does not listen");
        Responder(child)
    }

    fn has_ended(&mut self) -> bool {
        eventually(|| self.0.try_wait().is_ok_and(|exit| exit.is_some()))
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `served` names a responder on this port, and has its issuer with it.
fn with_responder(port: u16, more: &[&str]) -> Pki {
    let pki = two_certificates();
    let names = format!("subjectAltName=DNS:{HOST}");
    let responder = format!("authorityInfoAccess=OCSP;URI:http://127.0.0.1:{port}/ocsp");
    let request = ["req", "-new", "-key", "one.key", "-out", "a.csr", "-subj", "/CN=stapled"];
    let extensions = ["-addext", &names, "-addext", &responder];
    pki.openssl(&[&request[..], &extensions, more].concat());
    pki.openssl(&["ca", "-config", "ca.cnf", "-batch", "-notext", "-in", "a.csr", "-out", "a.pem"]);
    let chain = ["a.pem", "ca.pem"].map(|name| fs::read_to_string(pki.path(name)));
    pki.write("served.pem", &chain.map(|text| text.expect("openssl made it")).concat());
    pki
}

fn is_stapled(address: SocketAddr) -> bool {
    let said = SClient::fetch(address, &["-servername", HOST, "-status"]);
    assert!(said.contains("OCSP response"), "{said}");
    said.contains("OCSP Response Status: successful") && said.contains("Cert Status: good")
}

#[test]
fn the_answer_of_a_real_responder_is_stapled_and_asked_for_once() {
    let port = unused_port();
    let pki = with_responder(port, &[]);
    let mut responder = Responder::start(&pki, port, 1);
    let proxy = Proxy::start(&serving_of(&pki, ""));
    let address = proxy.address("edge");
    assert!(eventually(|| is_stapled(address)), "{}", proxy.log());
    assert!(responder.has_ended(), "it was asked once");
    let staple = page(&proxy)["certificates"][0]["staple"].clone();
    assert_eq!((&staple["state"], &staple["error"]), (&"stapled".into(), &Value::Null));
    assert!(staple["next_update"].is_string() && staple["asked_next"].is_string(), "{staple}");
    let left = sum_of(&proxy.metrics(), "tls_proxy_ocsp_staple_expiry_seconds");
    assert!(left.is_some_and(|left| (80_000.0..200_000.0).contains(&left)), "{left:?}");
    // Nobody answers any more: a reload keeps it, and so does the next binary.
    proxy.signal("HUP");
    proxy.wait_for_log("reloaded (SIGHUP)");
    assert!(is_stapled(address));
    proxy.signal("USR2");
    proxy.wait_for_log("serves from now on");
    proxy.wait_for_log("drained, bye");
    assert!(is_stapled(address));
    assert_eq!(page(&proxy)["certificates"][0]["staple"]["state"], "stapled");
    assert!(!proxy.log().contains("no staple"), "{}", proxy.log());
    let metrics = proxy.metrics();
    let check = promtool(proxy.directory(), &["check", "metrics"], metrics.as_bytes());
    assert!(check.status.success(), "{check:?}");
}

#[test]
fn a_responder_that_is_away_delays_nothing_and_is_told_of_once() {
    let port = unused_port();
    let pki = with_responder(port, &["-addext", "tlsfeature=status_request"]);
    let proxy = Proxy::start(&serving_of(&pki, ""));
    assert_eq!(client(&proxy, &pki).get("/").text(), "ok");
    proxy.wait_for_log("is only good with a staple (RFC 7633) and has none");
    assert!(!is_stapled(proxy.address("edge")));
    let staple = page(&proxy)["certificates"][0]["staple"].clone();
    assert_eq!((&staple["state"], &staple["must_staple"]), (&"waiting".into(), &true.into()));
    assert!(staple["error"].is_string(), "{staple}");
    proxy.signal("HUP");
    proxy.wait_for_log("reloaded (SIGHUP)");
    // What the reload would have begun is done when new files are in use that were put there later.
    put(&pki, "two");
    comes_to_show(&proxy, "two");
    assert_eq!(proxy.log().matches("(RFC 7633) and has none").count(), 1, "{}", proxy.log());
}

#[test]
fn a_certificate_that_was_revoked_is_not_stapled() {
    let port = unused_port();
    let pki = with_responder(port, &[]);
    pki.revoke("ca", "a");
    let _responder = Responder::start(&pki, port, 1);
    let proxy = Proxy::start(&serving_of(&pki, ""));
    proxy.wait_for_log("it was revoked on");
    assert!(!is_stapled(proxy.address("edge")));
    assert_eq!(client(&proxy, &pki).get("/").text(), "ok");
}

// --- sessions ------------------------------------------------------------------------------------

#[test]
fn sessions_go_on_at_every_core_after_a_reload_and_in_the_next_binary() {
    let pki = two_certificates();
    let text = serving_of(&pki, "").replace("cores = 1\n", "cores = 4\n");
    let proxy = Proxy::start(&text);
    let address = proxy.address("edge");
    for version in ["-tls1_3", "-tls1_2"] {
        let session = pki.path(version).display().to_string();
        let first = SClient::fetch(address, &["-servername", HOST, version, "-sess_out", &session]);
        assert!(first.contains("New, TLSv1"), "{first}");
        let is_resumed = || {
            let said =
                SClient::fetch(address, &["-servername", HOST, version, "-sess_in", &session]);
            assert!(said.contains("200 OK"), "{said}");
            said.contains("Reused, TLSv1")
        };
        // The kernel chooses the core of each.
        assert!((0..12).all(|_| is_resumed()), "{version}");
    }
    let resumed = "tls_proxy_tls_handshakes_total{result=\"resumed\"}";
    assert_eq!(proxy.metric(resumed), Some(24.0));
    let on_core =
        |core: usize| proxy.metric(&format!("tls_proxy_core_requests_total{{core=\"{core}\"}}"));
    assert!((0..4).filter(|core| on_core(*core) > Some(0.0)).count() > 1, "{}", proxy.metrics());
    let is_resumed = |version: &str| {
        let session = pki.path(version).display().to_string();
        SClient::fetch(address, &["-servername", HOST, version, "-sess_in", &session])
            .contains("Reused, TLSv1")
    };
    // A reload with another configuration, a renewed certificate, a new binary.
    proxy.rewrite_config(&text.replace("\"ok\"", "\"fine\""));
    proxy.wait_for_log("reloaded (file change)");
    assert!(is_resumed("-tls1_3") && is_resumed("-tls1_2"));
    put(&pki, "two");
    proxy.wait_for_log("has changed and is in use");
    assert!(is_resumed("-tls1_3") && is_resumed("-tls1_2"));
    proxy.signal("USR2");
    proxy.wait_for_log("serves from now on");
    proxy.wait_for_log("drained, bye");
    assert!((0..6).all(|_| is_resumed("-tls1_3") && is_resumed("-tls1_2")));
    // A process that has nothing to do with it has other keys.
    let other = Proxy::start(&text);
    let session = pki.path("-tls1_3").display().to_string();
    let said = SClient::fetch(
        other.address("edge"),
        &["-servername", HOST, "-tls1_3", "-sess_in", &session],
    );
    assert!(said.contains("New, TLSv1.3"), "{said}");
}
