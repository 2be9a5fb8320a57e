//! A configuration that a server has: fetched at the start, asked for again and again, and put in
//! force like a file. Whatever the server does, traffic goes on, and a good answer later is taken.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, thread};

use support::{
    After, Json, Nginx, Origin, Proxy, RawClient, Respond, Response, TempDir, eventually, nobody,
    signal,
};

/// Asked again at once.
const EAGER: &str = "hot_reload = { poll_interval = \"100ms\", poll_timeout = \"1s\" }\n";
/// Asked again when somebody says so.
const LAZY: &str = "hot_reload = { poll_interval = \"24h\", poll_timeout = \"1s\" }\n";

fn says(how: &str, text: &str) -> String {
    let route = format!("[[routes]]\nname = \"all\"\nrespond = {{ body = \"{text}\" }}\n");
    format!("{how}{}", support::edge(&route))
}

fn start(url: &str) -> Proxy {
    Proxy::start_from(url, &says("", ""), &[], &[])
}

fn answer(proxy: &Proxy) -> String {
    proxy.client().get("/").text().to_owned()
}

fn comes_to_say(proxy: &Proxy, text: &str) {
    assert!(eventually(|| answer(proxy) == text), "not {text}:\n{}", proxy.log());
}

fn fetches(proxy: &Proxy, outcome: &str) -> f64 {
    let series = format!("tls_proxy_config_fetches_total{{outcome=\"{outcome}\"}}");
    proxy.metric(&series).expect("a server is counted")
}

fn until_fetches(proxy: &Proxy, outcome: &str, count: f64) {
    let before = fetches(proxy, outcome);
    let more = || fetches(proxy, outcome) >= before + count;
    assert!(eventually(more), "no {count} {outcome}:\n{}", proxy.log());
}

fn admin(proxy: &Proxy, method: &str, path: &str, body: &str) -> Response {
    let mut client = proxy.client_of("admin");
    client.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/toml\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    client.read_response()
}

fn config_source(proxy: &Proxy) -> Json {
    Json::parse(proxy.admin_get("/admin/status").text()).at("config_source").clone()
}

/// What the server answers now: whole answers, or bytes and what follows them.
type Script = Arc<Mutex<Box<dyn Fn(&mut TcpStream) -> After + Send>>>;

/// A server whose answers a test changes.
struct Server {
    origin: Origin,
    script: Script,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start(text: &str) -> Server {
        let script: Script = Arc::new(Mutex::new(good(text)));
        let asked = Arc::new(AtomicUsize::new(0));
        let (running, count) = (Arc::clone(&script), Arc::clone(&asked));
        let origin = Origin::raw(move |stream, _, _| {
            count.fetch_add(1, Ordering::SeqCst);
            let script = running.lock().expect("no script panics");
            script(stream)
        });
        Server { origin, script, asked }
    }

    fn url(&self) -> String {
        self.origin.url("/corelane.toml")
    }

    fn answers(&self, script: impl Fn(&mut TcpStream) -> After + Send + 'static) {
        *self.script.lock().expect("no script panics") = Box::new(script);
    }

    fn has(&self, text: &str) {
        *self.script.lock().expect("no script panics") = good(text);
    }

    fn sends(&self, bytes: impl Into<Vec<u8>>, after: After) {
        let bytes = bytes.into();
        self.answers(move |stream| {
            drop(stream.write_all(&bytes));
            after
        });
    }
}

fn good(text: &str) -> Box<dyn Fn(&mut TcpStream) -> After + Send> {
    let bytes = with_length(text, text.len());
    Box::new(move |stream| {
        drop(stream.write_all(&bytes));
        After::Close
    })
}

fn with_length(text: &str, length: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}").into_bytes()
}

// --- a server as it should be ----------------------------------------------------------------

#[test]
fn a_file_of_nginx_is_fetched_again_when_it_changes_and_only_then() {
    let nginx = Nginx::start("location / {}");
    nginx.file("corelane.toml", says(EAGER, "one"));
    let proxy = start(&nginx.url("/corelane.toml"));
    assert_eq!(answer(&proxy), "one");
    // With a tag, and a time, and nginx says 304.
    until_fetches(&proxy, "unchanged", 3.0);
    assert_eq!((fetches(&proxy, "text"), fetches(&proxy, "failed")), (1.0, 0.0));
    assert_eq!(proxy.metric("tls_proxy_rules_version"), Some(1.0));
    nginx.file("corelane.toml", says(EAGER, "two and more"));
    comes_to_say(&proxy, "two and more");
    proxy.wait_for_log("reloaded (poll): version 2");
    nginx.file("corelane.toml", "nonsense = 1\n");
    let place = format!("{}:1:1: nonsense: unknown key", nginx.url("/corelane.toml"));
    proxy.wait_for_log(&place);
    until_fetches(&proxy, "unchanged", 3.0);
    assert_eq!(proxy.log().matches(&place).count(), 1, "{}", proxy.log());
    let status = Json::parse(proxy.admin_get("/admin/status").text());
    assert_eq!(status.text("last_reload.outcome"), "refused");
    assert_eq!(status.text("last_reload.trigger"), "poll");
    assert_eq!(answer(&proxy), "two and more");
    nginx.file("corelane.toml", says(EAGER, "three"));
    comes_to_say(&proxy, "three");
    let source = config_source(&proxy);
    assert_eq!(source.text("kind"), "http");
    assert_eq!(source.text("name"), nginx.url("/corelane.toml"));
    assert!(source.text("fetched_at").ends_with('Z') && *source.at("failing_since") == Json::Null);
}

#[test]
fn a_server_without_tags_is_believed_when_its_text_is_the_same() {
    let server = Server::start(&says(EAGER, "one"));
    let proxy = start(&server.url());
    until_fetches(&proxy, "text", 3.0);
    assert_eq!(proxy.metric("tls_proxy_rules_version"), Some(1.0));
    let request = &server.origin.requests()[0];
    assert_eq!(request.method_and_target(), "GET /corelane.toml");
    assert_eq!(request.header("authorization"), None);
    assert!(!proxy.log().contains("reloaded"), "{}", proxy.log());
}

#[test]
fn sighup_and_the_admin_api_ask_at_once_and_for_the_whole_text() {
    let nginx = Nginx::start("location / {}");
    nginx.file("corelane.toml", says(LAZY, "one"));
    let proxy = start(&nginx.url("/corelane.toml"));
    nginx.file("corelane.toml", says(LAZY, "two and more"));
    proxy.signal("HUP");
    proxy.wait_for_log("reloaded (SIGHUP): version 2");
    assert_eq!(answer(&proxy), "two and more");
    // Also what it has had before: something else may be in force by now.
    let reloaded = admin(&proxy, "POST", "/admin/reload", "");
    assert_eq!((reloaded.status, fetches(&proxy, "unchanged")), (200, 0.0));
    assert_eq!(proxy.metric("tls_proxy_rules_version"), Some(3.0));
    nginx.file("corelane.toml", "cores = [");
    let refused = admin(&proxy, "POST", "/admin/reload", "");
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("\"line\":1"), "{}", refused.text());
    proxy.wait_for_log("/corelane.toml:1:10: unclosed array");
    drop(nginx);
    let refused = admin(&proxy, "POST", "/admin/reload", "");
    assert!(refused.status == 422 && refused.text().contains("cannot be fetched"), "{refused:?}");
    assert_eq!(answer(&proxy), "two and more");
}

#[test]
fn the_interval_changes_with_the_configuration_and_watch_turns_it_off() {
    let server = Server::start(&says(LAZY, "one"));
    let proxy = start(&server.url());
    server.has(&says(EAGER, "two"));
    proxy.signal("HUP");
    comes_to_say(&proxy, "two");
    until_fetches(&proxy, "text", 2.0);
    server.has(&says("hot_reload = { watch = false, poll_interval = \"100ms\" }\n", "three"));
    comes_to_say(&proxy, "three");
    let asked = server.asked.load(Ordering::SeqCst);
    thread::sleep(Duration::from_millis(500)); // time for a question that must not come
    assert!(server.asked.load(Ordering::SeqCst) <= asked + 1, "it is asked on");
}

// --- a server as it should not be ------------------------------------------------------------

/// Has the server misbehave, sees that traffic goes on and that this is told of, but not with every
/// question, and that a good text afterwards is taken.
fn survives(proxy: &Proxy, server: &Server, reason: &str) {
    let before = proxy.log().matches(reason).count();
    let running = answer(proxy);
    until_fetches(proxy, "failed", 2.0);
    assert_eq!(answer(proxy), running);
    let told = proxy.log().matches(reason).count();
    assert_eq!(told, before + 1, "{reason}\n{}", proxy.log());
    let source = config_source(proxy);
    let Json::Text(first) = &source.list("errors")[0] else { panic!("{source:?}") };
    assert!(first.contains(reason), "{reason}: {first}");
    assert!(source.text("failing_since").ends_with('Z'));
    let next = format!("after {} questions", server.asked.load(Ordering::SeqCst));
    server.has(&says(EAGER, &next));
    comes_to_say(proxy, &next);
    let source = config_source(proxy);
    assert!(source.list("errors").is_empty() && *source.at("failing_since") == Json::Null);
}

#[test]
fn broken_answers_change_nothing_and_are_told_of_once() {
    let server = Server::start(&says(EAGER, "one"));
    let proxy = start(&server.url());
    let text = says(EAGER, "never");
    let half = &text[..text.len() / 2];
    let status = |line: &str| format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    let until_close = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{text}").into_bytes();
    let chunks = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{half}\r\n",
        half.len()
    );
    let encoded = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx";
    let tooth = [with_length("", 4), b"a\xff\n\n".to_vec()].concat();
    for (bytes, reason) in [
        (with_length(half, text.len()), "the body ended"),
        (chunks.into_bytes(), "the body ended"),
        (with_length(&text, text.len() / 2), "more bytes came than it announced"),
        (until_close, "its answer ends with the connection"),
        (encoded.as_bytes().to_vec(), "its answer has Content-Encoding gzip"),
        (tooth, "byte 0xff is not UTF-8"),
        (status("500 Broken"), "it answered 500"),
        (status("404 Gone"), "it answered 404"),
        (status("304 Not Modified"), "it answered 304"),
        (status("204 No Content"), "it answered 204"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx".to_vec(),
            "not HTTP",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "its answer is not HTTP"),
        (Vec::new(), "it closed the connection without an answer"),
    ] {
        server.sends(bytes, After::Close);
        survives(&proxy, &server, reason);
    }
}

#[test]
fn slow_endless_and_huge_answers_are_cut() {
    let server = Server::start(&says(EAGER, "one"));
    let proxy = start(&server.url());
    server.answers(|stream| {
        // A byte now and then: each comes in time, the whole does not.
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"));
        while stream.write_all(b"#").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
        After::Close
    });
    survives(&proxy, &server, "it was silent too long");
    server.answers(|stream| {
        let chunk = format!("10000\r\n{}\r\n", "#".repeat(0x1_0000));
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"));
        while stream.write_all(chunk.as_bytes()).is_ok() {}
        After::Close
    });
    let before = proxy.rss_kb();
    survives(&proxy, &server, "its answer is longer than 8388608 bytes");
    let grown = proxy.rss_kb().saturating_sub(before);
    assert!(grown < 100_000, "{grown} KB more");
    server.answers(|stream| {
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\n"));
        while stream.write_all(b"X-More: and more of it\r\n").is_ok() {}
        After::Close
    });
    survives(&proxy, &server, "its answer is not HTTP");
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Origin::start().on("GET /", Respond::text(&says(EAGER, "stolen")));
    let server = Server::start(&says(EAGER, "one"));
    let proxy = start(&server.url());
    let head = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation";
    server.sends(format!("{head}: {}\r\n\r\n", elsewhere.url("/")), After::Close);
    survives(&proxy, &server, "it answered 302");
    assert!(proxy.log().contains("redirects are not followed"), "{}", proxy.log());
    assert_eq!(elsewhere.connections_accepted(), 0);
}

#[test]
fn a_server_that_goes_and_comes_back_is_asked_on() {
    let address = nobody();
    let url = format!("http://{address}/x");
    // Nobody is there yet: the start waits.
    let coming = thread::spawn(move || {
        thread::sleep(Duration::from_millis(700));
        answers_on(address, says(EAGER, "one"), 3)
    });
    let proxy = start(&url);
    assert_eq!(answer(&proxy), "one");
    coming.join().unwrap();
    until_fetches(&proxy, "failed", 2.0);
    assert_eq!(proxy.log().matches("Connection refused").count(), 1, "{}", proxy.log());
    assert_eq!(answer(&proxy), "one");
    let again = thread::spawn(move || answers_on(address, says(EAGER, "two"), 1));
    comes_to_say(&proxy, "two");
    proxy.wait_for_log("the configuration can be fetched again, after ");
    again.join().unwrap();
}

/// A server for so many questions.
fn answers_on(address: std::net::SocketAddr, text: String, count: usize) {
    let listener = TcpListener::bind(address).expect("the port was free a moment ago");
    for _ in 0..count {
        let (mut stream, _) = listener.accept().expect("it asks");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a whole head");
            head.push(byte[0]);
        }
        stream.write_all(&with_length(&text, text.len())).expect("it reads on");
    }
}

// --- the start -------------------------------------------------------------------------------

#[test]
fn without_server_and_copy_a_start_fails_after_a_while_and_says_why() {
    let (directory, server) = (TempDir::new(), Server::start(""));
    server.sends("HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n", After::Close);
    let copy = directory.path().join("copy.toml");
    let url = format!("{}?key=hunter2", server.url());
    let more = ["--config-copy", &copy.display().to_string()];
    let output = Proxy::command(&[&["run", "--config", &url][..], &more].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let expected = format!("{}?(hidden): cannot be fetched: it answered 503", server.url());
    assert!(said.starts_with(&expected), "{said}");
    assert!(!copy.exists() && server.asked.load(Ordering::SeqCst) > 3, "it is tried on");
}

#[test]
fn a_copy_of_the_last_good_text_stands_in_for_a_server_that_is_gone() {
    let directory = TempDir::new();
    let copy = directory.path().join("copy.toml").display().to_string();
    let server = Server::start(&says(EAGER, "one"));
    let from = |url: &str| Proxy::start_from(url, &says("", ""), &[], &["--config-copy", &copy]);
    let proxy = from(&server.url());
    let is_copied = |text: &str| fs::read_to_string(&copy).is_ok_and(|found| found == text);
    assert!(eventually(|| is_copied(&says(EAGER, "one"))), "no copy");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    server.has(&says(EAGER, "two"));
    comes_to_say(&proxy, "two");
    assert!(eventually(|| is_copied(&says(EAGER, "two"))), "no new copy");
    // What is refused, and what an operator puts on top, does not get there.
    server.has("nonsense = 1\n");
    proxy.wait_for_log("nonsense: unknown key");
    assert_eq!(admin(&proxy, "PUT", "/admin/config", &says(EAGER, "mine")).status, 200);
    assert_eq!(answer(&proxy), "mine");
    assert!(is_copied(&says(EAGER, "two")));
    drop(proxy);
    server.sends("HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n", After::Close);
    let proxy = from(&server.url());
    assert_eq!(answer(&proxy), "two");
    assert!(proxy.log().contains(&format!("starts from {copy}, the copy")), "{}", proxy.log());
    survives_start(&proxy, &server);
    let only_the_copy = || fs::read_dir(directory.path()).unwrap().count() == 1;
    assert!(eventually(only_the_copy), "what it was written to is left");
}

fn survives_start(proxy: &Proxy, server: &Server) {
    until_fetches(proxy, "failed", 2.0);
    assert_eq!(proxy.log().matches("it answered 503").count(), 1, "{}", proxy.log());
    server.has(&says(EAGER, "three"));
    comes_to_say(proxy, "three");
}

#[test]
fn a_copy_stands_in_for_a_text_that_is_wrong_at_the_start() {
    let directory = TempDir::new();
    let copy = directory.write("copy.toml", says(EAGER, "copied")).display().to_string();
    let server = Server::start("nonsense = 1\n");
    let proxy = Proxy::start_from(&server.url(), &says("", ""), &[], &["--config-copy", &copy]);
    assert_eq!(answer(&proxy), "copied");
    proxy.wait_for_log("/corelane.toml:1:1: nonsense: unknown key");
    server.has(&says(EAGER, "good"));
    comes_to_say(&proxy, "good");
    // Without a copy it ends at once, as with a file.
    server.has("nonsense = 1\n");
    let output = Proxy::command(&["run", "--config", &server.url()]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_copy_that_cannot_be_written_is_complained_about_and_nothing_else() {
    let server = Server::start(&says(EAGER, "one"));
    let more = ["--config-copy", "/nonexistent/copy.toml"];
    let proxy = Proxy::start_from(&server.url(), &says("", ""), &[], &more);
    proxy.wait_for_log("no copy of the configuration is kept: /nonexistent/copy.toml: ");
    server.has(&says(EAGER, "two"));
    comes_to_say(&proxy, "two");
}

#[test]
fn a_copy_whose_disk_hangs_holds_up_no_reload() {
    let directory = TempDir::new();
    let copy = directory.path().join("copy.toml");
    let made = std::process::Command::new("mkfifo").arg(&copy).status();
    assert!(made.is_ok_and(|status| status.success()));
    let server = Server::start(&says(EAGER, "one"));
    let more = ["--config-copy", &copy.display().to_string()];
    let proxy = Proxy::start_from(&server.url(), &says("", ""), &[], &more);
    for text in ["two", "three", "four"] {
        server.has(&says(EAGER, text));
        comes_to_say(&proxy, text);
    }
    // The name of a pipe is free for a file, and the newest text gets there.
    drop(fs::write(&copy, "read by nobody else"));
    let is_copied = || fs::read_to_string(&copy).is_ok_and(|found| found == says(EAGER, "four"));
    let kept = || fs::metadata(&copy).is_ok_and(|found| found.is_file()) && is_copied();
    assert!(eventually(kept), "no copy:\n{}", proxy.log());
}

#[test]
fn a_text_that_cannot_be_had_now_is_tried_again_and_told_of_once() {
    let server = Server::start(&says(EAGER, "one"));
    let proxy = start(&server.url());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let more = format!("[[listeners]]\nname = \"more\"\nbind = \"{address}\"\n");
    server.has(&(says(EAGER, "two") + &more));
    proxy.wait_for_log("reload refused");
    until_fetches(&proxy, "text", 3.0);
    assert_eq!(proxy.log().matches("reload refused").count(), 1, "{}", proxy.log());
    assert_eq!(answer(&proxy), "one");
    drop(taken);
    comes_to_say(&proxy, "two");
    until_fetches(&proxy, "text", 1.0);
    assert_eq!(proxy.log().matches("reload refused").count(), 1, "{}", proxy.log());
}

// --- tokens ----------------------------------------------------------------------------------

/// Takes this token only.
fn guarded(token: &str, text: &str) -> Nginx {
    let nginx = Nginx::start(&format!(
        "location / {{ if ($http_authorization != \"Bearer {token}\") {{ return 401; }} }}"
    ));
    nginx.file("corelane.toml", text);
    nginx
}

#[test]
fn a_token_comes_from_a_file_or_a_variable_and_is_never_seen() {
    let nginx = guarded("hunter2", &says(EAGER, "one"));
    let url = nginx.url("/corelane.toml");
    let directory = TempDir::new();
    let file = directory.write("token", "hunter2\n").display().to_string();
    let more = ["--config-token-file", &file];
    let from_file = Proxy::start_from(&url, &says("", ""), &[], &more);
    let variables = [("CONFIG_TOKEN", "hunter2")];
    let from_variable = Proxy::start_from(&url, &says("", ""), &variables, &[]);
    for proxy in [&from_file, &from_variable] {
        assert_eq!(answer(proxy), "one");
        let pages = ["/admin/status", "/admin/config", "/admin/config/history"];
        let shown: String = pages.map(|page| proxy.admin_get(page).text().to_owned()).concat();
        assert!(!shown.contains("hunter2") && !proxy.log().contains("hunter2"), "{shown}");
    }
    // It is read for every question.
    directory.write("token", "old\n");
    from_file.wait_for_log("it answered 401");
    directory.write("token", "two words\n");
    from_file.wait_for_log(&format!("{file} holds no token"));
    fs::remove_file(&file).unwrap();
    from_file.wait_for_log(&format!("its token in {file} cannot be read"));
    directory.write("token", "hunter2\n");
    from_file.wait_for_log("the configuration can be fetched again");
    assert!(!from_file.log().contains("two words"), "{}", from_file.log());
    assert_eq!(answer(&from_file), "one");
}

// --- what else there is ----------------------------------------------------------------------

#[test]
fn a_text_put_on_top_stays_until_the_server_has_another() {
    let nginx = Nginx::start("location / {}");
    nginx.file("corelane.toml", says(EAGER, "one"));
    let proxy = start(&nginx.url("/corelane.toml"));
    let put = admin(&proxy, "PUT", "/admin/config", &says(EAGER, "mine"));
    assert_eq!(put.status, 200);
    let note = Json::parse(put.text()).text("note").to_owned();
    assert!(note.contains(&format!("the next text of {}", nginx.url("/corelane.toml"))), "{note}");
    until_fetches(&proxy, "unchanged", 3.0);
    assert_eq!(answer(&proxy), "mine");
    let refused = admin(&proxy, "PUT", "/admin/config?persist=true", &says(EAGER, "kept"));
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.text().contains("which is only read from: change it there"), "{refused:?}");
    assert_eq!(answer(&proxy), "mine");
    nginx.file("corelane.toml", says(EAGER, "two and more"));
    comes_to_say(&proxy, "two and more");
    assert_eq!(admin(&proxy, "PUT", "/admin/config", &says(EAGER, "mine again")).status, 200);
    proxy.signal("HUP");
    comes_to_say(&proxy, "two and more");
}

#[test]
fn a_server_that_was_away_for_a_moment_brings_nothing_new() {
    let server = Server::start(&says(EAGER, "one"));
    let proxy = start(&server.url());
    assert_eq!(admin(&proxy, "PUT", "/admin/config", &says(EAGER, "mine")).status, 200);
    server.sends("HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n", After::Close);
    assert_eq!(admin(&proxy, "POST", "/admin/reload", "").status, 422);
    server.has(&says(EAGER, "one"));
    until_fetches(&proxy, "text", 3.0);
    assert_eq!(answer(&proxy), "mine");
}

#[test]
fn a_new_binary_asks_on() {
    let server = Server::start(&says(EAGER, "one"));
    let proxy = start(&server.url());
    let address = proxy.address("edge");
    proxy.signal("USR2");
    proxy.wait_for_log(" serves from now on");
    let log = proxy.log();
    let (before, _) = log.split_once(" serves from now on").unwrap();
    let pid: u32 = before.rsplit(' ').next().unwrap().parse().unwrap();
    let _end = Successor(pid);
    server.has(&says(EAGER, "two"));
    let says_two = || RawClient::connect(address).get("/").text() == "two";
    assert!(eventually(says_two), "{}", proxy.log());
}

struct Successor(u32);

impl Drop for Successor {
    fn drop(&mut self) {
        signal(self.0, "KILL");
    }
}

#[test]
fn check_and_print_config_take_an_address_too() {
    let server = Server::start(&says(EAGER, "one"));
    let url = server.url();
    let told = |arguments: &[&str]| {
        let output = Proxy::command(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    for arguments in [vec!["check", &url], vec!["check", "--config", &url]] {
        let (code, out, err) = told(&arguments);
        assert_eq!((code, out), (Some(0), format!("{url}: ok, 1 listener, 1 route, 0 clusters\n")));
        assert!(!err.contains("may read"), "{err}");
    }
    let (code, out, _) = told(&["print-config", &url]);
    assert!(code == Some(0) && out.contains(&format!("# {url}:1")), "{out}");
    server.has("cores = 1\nnonsense = 1\n");
    let (code, _, err) = told(&["check", "--config", &url]);
    assert_eq!(code, Some(2));
    assert!(err.contains(&format!("{url}:2:1: nonsense: unknown key")), "{err}");
    server.sends("HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n", After::Close);
    let (code, _, err) = told(&["check", &url]);
    assert!(code == Some(2) && err.contains("it answered 500"), "{err}");
    let (code, _, err) = told(&["check", "https://a/b"]);
    assert!(code == Some(2) && err.contains("https") && err.contains("not supported yet"), "{err}");
    let (code, _, err) = told(&["run", "--config", "a.toml", "--config-copy", "b.toml"]);
    assert!(code == Some(2) && err.contains("--config-copy: it is for"), "{err}");
}
