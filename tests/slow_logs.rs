//! Logs whose readers stop: a pipe, or standard output, that takes no more. What must go on goes on
//! beside it: the other logs, reloads, the end of the process.

#![expect(clippy::unwrap_used, reason = "functions that only tests call are tests")]

mod support;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use support::{Json, Origin, Proxy, Respond, TempDir, edge, eventually};

/// More long lines than all queues hold together.
const LINES: usize = 400;

fn config(origin: &Origin, logging: &str) -> String {
    let rest = format!(
        "[[routes]]\nname = \"own\"\npaths = [\"/own\"]\nrespond = {{ status = 204 }}\n\
         [[routes]]\nname = \"all\"\ncluster = \"a\"\n\
         [clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n{logging}",
        origin.address()
    );
    format!("hot_reload.watch = false\n{}", edge(&rest))
}

fn echoing() -> Origin {
    let origin = Origin::start();
    (0..LINES)
        .fold(origin, |origin, number| origin.on(&format!("POST /{number}"), Respond::text("x")))
}

fn send_long_lines(proxy: &Proxy, count: usize) {
    let mut client = proxy.client();
    let body = "z".repeat(60_000);
    for number in 0..count {
        client.send(format!(
            "POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(client.read_response().text(), "x");
    }
}

fn pipe(directory: &TempDir, name: &str) -> PathBuf {
    let path = directory.path().join(name);
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo");
    path
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn is_refused(proxy: &Proxy) {
    let mut client = proxy.client();
    client.send("GET /../.. HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().status, 400);
}

fn reload(proxy: &Proxy, toml: &str) {
    let count = || proxy.log().matches("reloaded (SIGHUP)").count();
    let before = count();
    proxy.rewrite_config(toml);
    proxy.signal("HUP");
    assert!(eventually(|| count() > before), "{}", proxy.log());
}

/// Until requests come to a stand: the log is full, and no line may be lost.
fn until_nothing_moves(proxy: &Proxy) {
    let requests = || proxy.metric("tls_proxy_requests_total").unwrap_or_default();
    let mut before = -1.0;
    assert!(eventually(|| {
        thread::sleep(Duration::from_millis(300));
        std::mem::replace(&mut before, requests()) == before && before > 0.0
    }));
    assert!(before < LINES as f64, "{before} requests went on");
}

/// Lines of requests, by their numbers; all of them whole but for the last.
fn numbers(text: &str) -> Vec<usize> {
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let of_numbers =
        |line: &str| Json::parse(line.trim_end()).text("url").trim_start_matches('/').parse().ok();
    whole.filter_map(of_numbers).collect()
}

const OTHERS: &str = "[logging.error]\npath = \"error.log\"\nlevel = \"info\"\n\
                      [logging.audit]\npath = \"audit.log\"\n";

/// `reader` is what is never read until the process ends.
fn all_but_the_access_log_goes_on(mut proxy: Proxy, mut reader: impl Read, toml: &str) {
    let folder = proxy.directory().to_owned();
    let path = |name: &str| folder.join(name);
    send_long_lines(&proxy, LINES);
    let dropped = || proxy.metric("tls_proxy_access_log_dropped_total").unwrap();
    assert!(dropped() > 0.0 && dropped() < LINES as f64, "{}", dropped());
    is_refused(&proxy);
    assert!(eventually(|| text(&path("audit.log")).contains("refused_request")));
    assert!(eventually(|| text(&path("error.log")).contains("takes no lines")), "{}", proxy.log());
    for number in 1..=10 {
        reload(&proxy, toml);
        let audited = || text(&path("audit.log")).matches("config_change").count();
        assert!(eventually(|| audited() == number), "{number} {}", audited());
    }
    assert_eq!(proxy.client().get("/own").status, 204);
    proxy.signal("TERM");
    assert!(proxy.wait_exit(support::PATIENCE).success());
    assert!(!proxy.log().contains("could not be written to its end"), "{}", proxy.log());
    assert!(text(&path("audit.log")).contains("process_stop"));
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    let read = numbers(&String::from_utf8(rest).unwrap());
    assert!(!read.is_empty() && read.iter().copied().eq(0..read.len()), "{read:?}");
}

#[test]
fn a_standard_output_that_nobody_reads_holds_up_nothing_else() {
    let origin = echoing();
    let toml = config(&origin, &format!("[logging.access]\nrequest_body = {{}}\n{OTHERS}"));
    let (reader, writer) = std::io::pipe().unwrap();
    let proxy = Proxy::start_writing_to(writer, &toml);
    all_but_the_access_log_goes_on(proxy, reader, &toml);
}

#[test]
fn a_socket_as_standard_output_that_nobody_reads_holds_up_nothing_else() {
    let origin = echoing();
    let toml = config(&origin, &format!("[logging.access]\nrequest_body = {{}}\n{OTHERS}"));
    let (reader, writer) = UnixStream::pair().unwrap();
    let proxy = Proxy::start_writing_to(OwnedFd::from(writer), &toml);
    all_but_the_access_log_goes_on(proxy, reader, &toml);
}

#[test]
fn what_a_slow_standard_output_takes_late_is_whole_and_counted_once() {
    let origin = echoing();
    let access = "[logging.access]\nrequest_body = {}\non_full = \"block\"\n";
    let (reader, writer) = std::io::pipe().unwrap();
    let mut proxy = Proxy::start_writing_to(writer, &config(&origin, access));
    thread::scope(|scope| {
        let sending = scope.spawn(|| send_long_lines(&proxy, LINES));
        until_nothing_moves(&proxy);
        let mut reader = BufReader::new(reader);
        let mut line = String::new();
        for number in 0..LINES {
            line.clear();
            reader.read_line(&mut line).unwrap();
            assert_eq!(Json::parse(line.trim_end()).text("url"), format!("/{number}"));
        }
        sending.join().unwrap();
        let written = || proxy.metric("tls_proxy_access_log_lines_total");
        assert!(eventually(|| written() == Some(LINES as f64)), "{:?}", written());
    });
    assert_eq!(proxy.client().get("/own").status, 204);
    proxy.signal("TERM");
    assert!(proxy.wait_exit(support::PATIENCE).success());
}

#[test]
fn a_reload_is_the_way_out_of_a_pipe_that_nobody_reads() {
    let (origin, directory) = (echoing(), TempDir::new());
    let path = pipe(&directory, "pipe");
    let to = |path: &str| {
        let access = format!("path = \"{path}\"\non_full = \"block\"\nrequest_body = {{}}");
        config(&origin, &format!("[logging.access]\n{access}\n"))
    };
    let mut proxy = Proxy::start(&to(&path.display().to_string()));
    let mut reader = File::open(&path).unwrap();
    thread::scope(|scope| {
        let sending = scope.spawn(|| send_long_lines(&proxy, LINES));
        until_nothing_moves(&proxy);
        reload(&proxy, &to("new.log"));
        sending.join().unwrap();
    });
    let new = proxy.directory().join("new.log");
    assert_eq!(proxy.client().get("/own").status, 204);
    assert!(eventually(|| text(&new).contains("/own")));
    proxy.signal("TERM");
    assert!(proxy.wait_exit(support::PATIENCE).success());
    let mut old = String::new();
    reader.read_to_string(&mut old).unwrap();
    let mut all = numbers(&old);
    all.extend(numbers(&text(&new)));
    assert!(all.iter().copied().eq(0..LINES), "{all:?}");
}

#[test]
fn turning_the_log_off_is_a_way_out_as_well() {
    let (origin, directory) = (echoing(), TempDir::new());
    let path = pipe(&directory, "pipe");
    let access = format!("path = \"{}\"\non_full = \"block\"\nrequest_body = {{}}", path.display());
    let proxy = Proxy::start(&config(&origin, &format!("[logging.access]\n{access}\n")));
    thread::scope(|scope| {
        let sending = scope.spawn(|| send_long_lines(&proxy, LINES));
        until_nothing_moves(&proxy);
        reload(&proxy, &config(&origin, "[logging.access]\nenabled = false\n"));
        sending.join().unwrap();
    });
    assert_eq!(proxy.client().get("/own").status, 204);
}

#[test]
fn an_audit_log_that_is_a_stuck_pipe_holds_up_neither_the_others_nor_loses_what_it_has() {
    let (origin, directory) = (echoing(), TempDir::new());
    let path = pipe(&directory, "pipe");
    let logging = format!(
        "[logging.access]\npath = \"access.log\"\n[logging.audit]\npath = \"{}\"\n",
        path.display()
    );
    let mut proxy = Proxy::start(&config(&origin, &logging));
    let mut reader = File::open(&path).unwrap();
    // Fills the pipe from outside.
    let junk = Command::new("dd")
        .args(["if=/dev/zero", "bs=4096", "oflag=nonblock", "count=100", "status=none"])
        .stdout(File::options().write(true).open(&path).unwrap())
        .stderr(Stdio::null())
        .status();
    assert!(junk.is_ok());
    for _ in 0..3 {
        is_refused(&proxy);
    }
    assert!(eventually(|| text(&proxy.directory().join("access.log")).lines().count() == 3));
    let draining = thread::spawn(move || {
        let mut all = String::new();
        reader.read_to_string(&mut all).unwrap();
        all
    });
    proxy.signal("TERM");
    assert!(proxy.wait_exit(support::PATIENCE).success());
    let all = draining.join().unwrap();
    assert_eq!(all.matches("refused_request").count(), 3);
    assert!(all.contains("process_start") && all.contains("process_stop"));
}

#[test]
fn lines_that_the_audit_and_error_logs_lack_are_counted() {
    let origin = Origin::start();
    let logging = "[logging.access]\npath = \"access.log\"\n\
                   [logging.error]\npath = \"/dev/full\"\nlevel = \"info\"\n\
                   [logging.audit]\npath = \"/dev/full\"\n";
    let proxy = Proxy::start(&config(&origin, logging));
    let lost =
        |log: &str| proxy.metric(&format!("tls_proxy_log_dropped_total{{log=\"{log}\"}}")).unwrap();
    let before = lost("audit");
    is_refused(&proxy);
    assert!(eventually(|| lost("audit") > before && lost("error") > 0.0));
    // They stay counted when nobody wants the logs any more.
    let (audit, error) = (lost("audit"), lost("error"));
    reload(&proxy, &config(&origin, "[logging.access]\npath = \"access.log\"\n"));
    assert!(lost("audit") >= audit && lost("error") >= error);
    assert_eq!(lost("access"), 0.0);
    assert_eq!(proxy.client().get("/own").status, 204);
}
