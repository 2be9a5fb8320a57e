//! SIGUSR2: a new process takes over the listening sockets of a running one, and no client notices.

mod support;

use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, thread};

use serde_json::Value;
use support::{
    After, Gate, Origin, PATIENCE, Proxy, RawClient, Respond, Response, TempDir, edge, eventually,
    signal,
};

const OK: &str = "[[routes]]\nname = \"ok\"\npaths = [\"/ok\"]\n\
                  respond = { status = 200, body = \"ok\" }\n";

fn with_cores(cores: usize) -> String {
    edge(OK).replace("cores = 1\n", &format!("cores = {cores}\n"))
}

/// Processes that took over, ended with the test.
#[derive(Default)]
struct Successors(Vec<u32>);

impl Drop for Successors {
    fn drop(&mut self) {
        for pid in self.0.drain(..).filter(|&pid| is_alive(pid)) {
            signal(pid, "KILL");
        }
    }
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

impl Successors {
    /// Asks the newest process for an upgrade, and waits until another serves.
    fn upgrade(&mut self, proxy: &Proxy) -> u32 {
        let now = self.0.last().copied().unwrap_or(proxy.pid());
        let before = pids(&proxy.log()).len();
        signal(now, "USR2");
        assert!(
            eventually(|| pids(&proxy.log()).len() > before),
            "nobody took over:\n{}",
            proxy.log()
        );
        let new = pids(&proxy.log())[before];
        self.0.push(new);
        new
    }
}

fn pids(log: &str) -> Vec<u32> {
    log.lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(": process ")?;
            rest.split_once(" serves from now on")?.0.parse().ok()
        })
        .collect()
}

/// A binary of one's own, which a test may replace.
fn copied_binary(directory: &Path) -> PathBuf {
    let path = directory.join("corelane");
    // By another process: had this one the file open for writing, another test's child would too,
    // and it could not be run ("Text file busy").
    let copied = Command::new("cp").args([&Proxy::binary(), &path]).status();
    assert!(copied.expect("cp runs").success());
    path
}

fn replace_with_script(path: &Path, script: &str) {
    let new = path.with_extension("new");
    fs::write(&new, format!("#!/bin/sh\n{script}\n")).expect("a script can be written");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))
        .expect("it can be made executable");
    fs::rename(&new, path).expect("a file can be replaced");
}

/// The answer, or `None` when the connection was closed between two requests, of which this is the
/// second: a client sends it again. The first on a connection is always answered.
fn ask(client: &mut RawClient, number: usize) -> Option<Response> {
    let sent = client.try_send("GET /ok HTTP/1.1\r\nHost: test\r\n\r\n");
    match sent.and_then(|()| client.try_read_response_to("GET")) {
        Ok(response) => Some(response),
        Err(error) => {
            let between = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe]
                .contains(&error.kind())
                || error.to_string().contains("closed after 0 bytes");
            assert!(number > 0 && between, "request {number} of a connection: {error}");
            None
        }
    }
}

#[test]
fn clients_notice_nothing_of_three_upgrades() {
    let mut proxy = Proxy::start(&with_cores(2));
    let address = proxy.address("edge");
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut successors = Successors::default();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // A connection each, and some that are kept for a while.
                    let mut client = RawClient::connect(address);
                    for number in 0..served.load(Ordering::Relaxed) % 7 + 1 {
                        let Some(response) = ask(&mut client, number) else { break };
                        assert_eq!(response.status, 200);
                        served.fetch_add(1, Ordering::Relaxed);
                        if response.header("connection") == Some("close") {
                            break;
                        }
                    }
                }
            });
        }
        let upgraded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..3 {
                let before = served.load(Ordering::Relaxed);
                successors.upgrade(&proxy);
                assert!(eventually(|| served.load(Ordering::Relaxed) > before + 100));
            }
        }));
        stop.store(true, Ordering::Relaxed);
        upgraded.unwrap();
    });
    assert!(proxy.wait_exit(PATIENCE).success());
    assert!(eventually(|| !is_alive(successors.0[0])), "the one between ends too");
    assert_eq!(proxy.admin_get("/admin/cores").status, 200, "admin was taken over as well");
    signal(successors.0[2], "TERM");
    assert!(eventually(|| !is_alive(successors.0[2])));
}

fn with_app(origin: &Origin) -> String {
    edge(&format!(
        "{OK}[[routes]]\nname = \"app\"\ncluster = \"app\"\n\
         [clusters.app]\nendpoints = [{{ address = \"{}\" }}]\n",
        origin.address()
    ))
}

#[test]
fn an_exchange_that_runs_is_finished_by_the_old_process() {
    let upgraded = Gate::new();
    let origin = Origin::start().on("GET /slow", Respond::text("slow").behind(&upgraded));
    let proxy = Proxy::start(&with_app(&origin));
    let mut client = proxy.client();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    let mut successors = Successors::default();
    successors.upgrade(&proxy);
    assert_eq!(proxy.client().get("/ok").text(), "ok");
    upgraded.open();
    let response = client.read_response();
    assert_eq!((response.text(), response.header("connection")), ("slow", Some("close")));
}

/// What all files of the log hold, compressed ones too.
fn logged(directory: &Path) -> String {
    let text = |path: PathBuf| match path.extension() {
        Some(end) if end == "gz" => {
            let unpacked = Command::new("gzip").arg("-dc").arg(path).output().expect("gzip runs");
            String::from_utf8_lossy(&unpacked.stdout).into_owned()
        }
        Some(_) | None => fs::read_to_string(path).unwrap_or_default(),
    };
    let entries = fs::read_dir(directory).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("it has a name").path());
    let is_log = |path: &PathBuf| path.to_string_lossy().contains("/access.log");
    paths.filter(is_log).map(text).collect()
}

#[test]
fn lines_of_the_old_process_survive_that_the_new_one_rotates_the_log() {
    const STREAMS: usize = 5;
    let gate = Gate::new();
    let origin = Origin::start();
    let held =
        (0..STREAMS).map(|number| (format!("GET /{number}"), Respond::text("x").behind(&gate)));
    let origin = held.fold(origin, |origin, (request, respond)| origin.on(&request, respond));
    let route = format!(
        "[[routes]]\nname = \"a\"\ncluster = \"a\"\n\
         [clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n\
         [logging.access]\npath = \"access.log\"\n\
         rotate = {{ max_size = 65536, max_backups = 50 }}\n",
        origin.address()
    );
    let mut proxy = Proxy::start(&edge(&format!("{OK}{route}")));
    let mut successors = Successors::default();
    let mut streams: Vec<RawClient> = (0..STREAMS).map(|_| proxy.client()).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    assert_eq!(proxy.client().get("/ok").status, 200); // a line of the old process
    assert!(eventually(|| logged(proxy.directory()).contains("/ok")));
    let new = successors.upgrade(&proxy);
    let is_packed = |directory: &Path| {
        let entries = fs::read_dir(directory).expect("the folder is there").flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "gz")).count()
    };
    let mut sent = 1;
    assert!(eventually(|| {
        let mut client = proxy.client();
        for _ in 0..200 {
            let response = client.get("/ok");
            assert_eq!(response.status, 200);
            sent += 1;
            if response.header("connection") == Some("close") {
                client = proxy.client(); // the old process had it, and says farewell
            }
        }
        is_packed(proxy.directory()) >= 2
    }));
    gate.open();
    for stream in &mut streams {
        assert_eq!(stream.read_response().text(), "x");
    }
    assert!(proxy.wait_exit(PATIENCE).success());
    signal(new, "TERM");
    assert!(eventually(|| !is_alive(new)));
    let text = logged(proxy.directory());
    for number in 0..STREAMS {
        assert!(text.contains(&format!("\"/{number}\"")), "the line of {number} is lost");
    }
    assert_eq!(text.lines().count(), sent + STREAMS);
}

#[test]
fn a_new_binary_that_fails_leaves_the_old_process_serving() {
    let directory = TempDir::new();
    let binary = copied_binary(directory.path());
    let mut proxy = Proxy::start_binary(&binary, &edge(OK));
    for script in [
        "exit 3",
        "echo garbage >&0; exit 0",
        "kill -9 $$",
        // It says nonsense, or nothing any more, and stays.
        "echo nonsense nonsense >&0; exec sleep 300",
        "exec sleep 300 <&-",
    ] {
        replace_with_script(&binary, script);
        let failures = |log: &str| log.matches("the upgrade has failed").count();
        let before = failures(&proxy.log());
        proxy.signal("USR2");
        assert!(eventually(|| failures(&proxy.log()) > before), "{script}:\n{}", proxy.log());
        assert_eq!(proxy.client().get("/ok").text(), "ok");
    }
    // A configuration that is wrong by now does the same.
    fs::remove_file(&binary).unwrap();
    copied_binary(directory.path());
    proxy.rewrite_config("nonsense = 1\n");
    proxy.signal("USR2");
    proxy.wait_for_log("exit status: 2");
    assert_eq!(proxy.client().get("/ok").text(), "ok");
    assert!(proxy.is_running());
    proxy.rewrite_config(&edge(OK));
    let mut successors = Successors::default();
    successors.upgrade(&proxy);
    assert!(proxy.wait_exit(PATIENCE).success());
    assert_eq!(proxy.client().get("/ok").text(), "ok");
}

#[test]
fn fewer_and_more_cores_leave_no_queue_of_the_old_process_unheard() {
    let proxy = Proxy::start(&with_cores(4));
    let mut successors = Successors::default();
    for cores in [1, 3] {
        proxy.rewrite_config(&with_cores(cores));
        successors.upgrade(&proxy);
        // The kernel spreads connections over all sockets of the address.
        for _ in 0..64 {
            assert_eq!(proxy.client().get("/ok").text(), "ok");
        }
    }
}

#[test]
fn a_listener_that_the_new_configuration_lacks_is_closed_and_a_new_one_opened() {
    let other = "[[listeners]]\nname = \"other\"\nbind = \"127.0.0.1:0\"\n";
    let proxy = Proxy::start(&edge(&format!("{OK}{other}")));
    let gone = proxy.address("other");
    let third = other.replace("other", "third");
    proxy.rewrite_config(&edge(&format!("{OK}{third}")));
    let mut successors = Successors::default();
    successors.upgrade(&proxy);
    assert_eq!(proxy.client().get("/ok").text(), "ok");
    proxy.wait_for_log(" as third");
    let refused = || {
        std::net::TcpStream::connect_timeout(&gone, Duration::from_millis(200))
            .map_or(true, |mut stream| matches!(stream.read(&mut [0]), Ok(0) | Err(_)))
    };
    assert!(eventually(refused));
}

/// A binary whose process notes its id and then does what the script says.
fn noting_its_pid(binary: &Path, directory: &Path, script: &str) -> impl Fn() -> Option<u32> {
    let note = directory.join("pid");
    let started = format!("echo $$ > {0}.new; mv {0}.new {0}", note.display());
    replace_with_script(binary, &format!("{started}\n{script}"));
    move || fs::read_to_string(&note).ok()?.trim().parse().ok()
}

#[test]
fn a_stop_during_an_upgrade_ends_the_new_process_as_well() {
    let directory = TempDir::new();
    let binary = copied_binary(directory.path());
    let mut proxy = Proxy::start_binary(&binary, &edge(OK));
    let pid = noting_its_pid(&binary, directory.path(), "exec sleep 300");
    proxy.signal("USR2");
    assert!(eventually(|| pid().is_some()), "{}", proxy.log());
    let started = Successors(vec![pid().unwrap()]);
    proxy.signal("TERM");
    assert!(proxy.wait_exit(PATIENCE).success());
    let ended = eventually(|| !is_alive(started.0[0]));
    assert!(ended, "nobody would know of it:\n{}", proxy.log());
    proxy.wait_for_log("this process is to stop");
}

#[test]
fn a_reload_during_an_upgrade_waits_for_its_end() {
    let directory = TempDir::new();
    let binary = copied_binary(directory.path());
    let proxy = Proxy::start_binary(&binary, &edge(OK));
    let go = directory.path().join("go");
    let waits = format!("until [ -e {} ]; do sleep 0.05; done; exit 3", go.display());
    let pid = noting_its_pid(&binary, directory.path(), &waits);
    proxy.signal("USR2");
    assert!(eventually(|| pid().is_some()), "{}", proxy.log());
    proxy.rewrite_config(&edge(&OK.replace("\"/ok\"", "\"/new\"")));
    proxy.signal("HUP");
    // As long as a reload takes that does not wait.
    thread::sleep(Duration::from_millis(500));
    assert_eq!(proxy.client().get("/ok").text(), "ok");
    fs::write(go, "").unwrap();
    proxy.wait_for_log("reloaded (SIGHUP)");
    assert_eq!(proxy.client().get("/new").text(), "ok");
}

#[test]
fn a_link_that_leads_to_another_binary_by_now_is_followed_anew() {
    let directory = TempDir::new();
    let (current, next) = (directory.path().join("current"), directory.path().join("next"));
    symlink(Proxy::binary(), &current).expect("a link can be made");
    let proxy = Proxy::start_binary(&current, &edge(OK));
    replace_with_script(&directory.path().join("broken"), "exit 7");
    symlink("broken", &next).expect("a link can be made");
    fs::rename(&next, &current).expect("a link can be replaced");
    proxy.signal("USR2");
    proxy.wait_for_log("exit status: 7");
    assert_eq!(proxy.client().get("/ok").text(), "ok");
}

#[test]
fn a_new_process_is_started_with_no_signal_blocked() {
    let directory = TempDir::new();
    let binary = copied_binary(directory.path());
    let proxy = Proxy::start_binary(&binary, &edge(OK));
    let note = directory.path().join("blocked");
    // By the shell itself: one that starts a program blocks signals for a moment.
    let reads = "while read -r name mask; do [ $name != SigBlk: ] || echo $mask; done";
    let script = format!("{reads} < /proc/$$/status > {}\nexit 3", note.display());
    replace_with_script(&binary, &script);
    proxy.signal("USR2");
    proxy.wait_for_log("exit status: 3");
    let blocked = fs::read_to_string(note).expect("the script has written it");
    assert_eq!(blocked.split_whitespace().last(), Some("0000000000000000"));
}

#[test]
fn a_process_that_drains_starts_no_other() {
    let gate = Gate::new();
    let refused = gate.clone();
    let origin = Origin::raw(move |_, _, _| {
        refused.wait();
        After::Close
    });
    let proxy = Proxy::start(&edge(&format!(
        "[[routes]]\nname = \"app\"\ncluster = \"app\"\n\
         [clusters.app]\nendpoints = [{{ address = \"{}\" }}]\n",
        origin.address()
    )));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    proxy.signal("TERM");
    proxy.wait_for_log("draining");
    proxy.signal("USR2");
    proxy.wait_for_log("is refused: the process is draining");
    gate.open();
    assert_eq!(client.read_response().status, 502);
}

const AGAIN: &str = "this process takes connections again";

#[test]
fn the_old_process_takes_connections_again_when_the_new_one_dies() {
    let other = "[[listeners]]\nname = \"other\"\nbind = \"127.0.0.1:0\"\n";
    let unwatched = "hot_reload = { watch = false }\npid_file = \"pid\"\n";
    let config = format!("{unwatched}{}{other}", with_cores(2));
    let mut proxy = Proxy::start(&config);
    let (address, gone) = (proxy.address("edge"), proxy.address("other"));
    let pid_file = proxy.directory().join("pid");
    // The new process does not take one of the listeners.
    proxy.rewrite_config(&config.replace(other, ""));
    let mut successors = Successors::default();
    let mut kept = RawClient::connect(address);
    assert_eq!(kept.get("/ok").status, 200);
    let new = successors.upgrade(&proxy);
    assert_eq!(proxy.client().get("/ok").text(), "ok");
    signal(new, "KILL");
    proxy.wait_for_log(AGAIN);
    // Over all its sockets, those of the listener that had gone included.
    for _ in 0..32 {
        assert_eq!(RawClient::connect(address).get("/ok").text(), "ok");
    }
    for _ in 0..8 {
        assert_eq!(RawClient::connect(gone).get("/ok").text(), "ok");
    }
    let idle = || proxy.admin_get("/admin/status").text().contains("\"upgrade\": \"idle\"");
    assert!(eventually(idle), "{}", proxy.admin_get("/admin/status").text());
    assert_eq!(fs::read_to_string(pid_file).unwrap().trim(), proxy.pid().to_string());
    // It reloads and hands over as before.
    successors.0.clear();
    proxy.signal("HUP");
    proxy.wait_for_log("reloaded (SIGHUP)");
    successors.upgrade(&proxy);
    assert_eq!(RawClient::connect(address).get("/ok").text(), "ok");
    assert!(proxy.wait_exit(Duration::from_secs(20)).success(), "{}", proxy.log());
    assert_eq!(RawClient::connect(address).get("/ok").text(), "ok");
}

#[test]
fn no_connection_is_left_waiting_when_the_new_process_dies() {
    let mut proxy = Proxy::start(&with_cores(2));
    let address = proxy.address("edge");
    let mut successors = Successors::default();
    let new = successors.upgrade(&proxy);
    assert_eq!(RawClient::connect(address).get("/ok").text(), "ok");
    // It accepts nothing any more, and then it is gone.
    signal(new, "STOP");
    let mut waiting: Vec<_> = (0..16).map(|_| RawClient::connect(address)).collect();
    for client in &mut waiting {
        client.send("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    signal(new, "KILL");
    // The kernel may have accepted some for the one that died; those are told at once.
    for client in &mut waiting {
        match client.try_read_response_to("GET") {
            Ok(response) => assert_eq!(response.text(), "ok"),
            Err(error) => assert_ne!(error.kind(), ErrorKind::WouldBlock, "left to wait"),
        }
    }
    proxy.wait_for_log(AGAIN);
    assert_eq!(RawClient::connect(address).get("/ok").text(), "ok");
    proxy.signal("TERM");
    assert!(proxy.wait_exit(Duration::from_secs(20)).success(), "{}", proxy.log());
}

#[test]
fn a_file_that_changed_while_another_process_served_is_read_when_it_dies() {
    let proxy = Proxy::start(&with_cores(1));
    let mut successors = Successors::default();
    let new = successors.upgrade(&proxy);
    let refused = |times: usize| proxy.log().matches("reload refused (").count() == times;
    proxy.rewrite_config("nonsense");
    assert!(eventually(|| refused(1)), "the new process reads it:\n{}", proxy.log());
    signal(new, "KILL");
    proxy.wait_for_log(AGAIN);
    assert!(eventually(|| refused(2)), "{}", proxy.log());
    assert_eq!(proxy.client().get("/ok").text(), "ok");
}

#[test]
fn a_stop_after_an_upgrade_lets_exchanges_of_the_old_process_finish() {
    let origin =
        Origin::start().on("GET /slow", Respond::text("slow").after(Duration::from_millis(2500)));
    let mut proxy = Proxy::start(&with_app(&origin));
    let mut client = proxy.client();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    let mut successors = Successors::default();
    successors.upgrade(&proxy);
    proxy.wait_for_log("draining: ");
    proxy.signal("TERM");
    proxy.wait_for_log("told to stop: ");
    assert_eq!(client.read_response().text(), "slow");
    assert!(proxy.wait_exit(Duration::from_secs(20)).success(), "{}", proxy.log());
    assert!(!proxy.log().contains(AGAIN), "{}", proxy.log());
}

#[test]
fn the_blacklist_of_a_new_process_that_died_goes_on() {
    let mut config = with_cores(1);
    config.insert_str(0, "blacklist = { path = \"blocked\" }\n");
    let proxy = Proxy::start(&config);
    let file = proxy.directory().join("blocked");
    admin(&proxy, "POST", "/admin/blacklist", r#"{"ip":"10.1.0.0/16","reason":"abuse"}"#);
    let mut successors = Successors::default();
    let new = successors.upgrade(&proxy);
    let blocked = |network: &str| fs::read_to_string(&file).unwrap().contains(network);
    admin(&proxy, "POST", "/admin/blacklist", r#"{"ip":"10.2.0.0/16","reason":"abuse"}"#);
    admin(&proxy, "DELETE", "/admin/blacklist?ip=10.1.0.0/16", "");
    let saved = || blocked("10.2.0.0/16") && !blocked("10.1.0.0/16");
    assert!(eventually(saved), "{}", proxy.log());
    signal(new, "KILL");
    proxy.wait_for_log(AGAIN);
    let listed = || blacklisted(&proxy) == ["10.2.0.0/16"];
    assert!(eventually(listed), "{:?}\n{}", blacklisted(&proxy), proxy.log());
    assert_eq!(proxy.client().get("/ok").status, 200);
}

#[test]
fn a_new_process_that_is_told_to_stop_is_not_replaced() {
    let origin =
        Origin::start().on("GET /slow", Respond::text("slow").after(Duration::from_millis(2500)));
    let mut proxy = Proxy::start(&with_app(&origin));
    let address = proxy.address("edge");
    let mut client = proxy.client();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    let mut successors = Successors::default();
    let new = successors.upgrade(&proxy);
    signal(new, "TERM");
    assert!(eventually(|| !is_alive(new)), "{}", proxy.log());
    let refused = || std::net::TcpStream::connect(address).is_err();
    assert!(eventually(refused), "nobody listens any more:\n{}", proxy.log());
    assert_eq!(client.read_response().text(), "slow");
    assert!(proxy.wait_exit(Duration::from_secs(20)).success());
    assert!(!proxy.log().contains(AGAIN), "{}", proxy.log());
}

#[test]
fn a_listener_that_the_new_process_closes_is_not_kept_open_by_the_old_one() {
    let other = "[[listeners]]\nname = \"other\"\nbind = \"127.0.0.1:0\"\n";
    let proxy = Proxy::start(&edge(&format!("{OK}{other}")));
    let gone = proxy.address("other");
    let mut successors = Successors::default();
    let new = successors.upgrade(&proxy);
    proxy.rewrite_config(&edge(OK));
    signal(new, "HUP");
    proxy.wait_for_log("reloaded (SIGHUP)");
    let refused = || std::net::TcpStream::connect(gone).is_err();
    assert!(eventually(refused), "{}", proxy.log());
    assert_eq!(proxy.client().get("/ok").text(), "ok");
}

/// Whoever reaches the old process in the moment of the upgrade is told to ask the new one.
fn admin(proxy: &Proxy, method: &str, path: &str, body: &str) -> Value {
    let mut response = ask_admin(proxy, method, path, body);
    let moved = |response: &Response| {
        response.status == 409 && response.text().contains("ask again on a new connection")
    };
    assert!(eventually(|| {
        if moved(&response) {
            response = ask_admin(proxy, method, path, body);
        }
        !moved(&response)
    }));
    assert_eq!(response.status, 200, "{method} {path}: {}", response.text());
    serde_json::from_str(response.text()).expect("the admin API answers JSON")
}

fn ask_admin(proxy: &Proxy, method: &str, path: &str, body: &str) -> Response {
    let mut client = proxy.client_of("admin");
    let kind = if path.starts_with("/admin/config") { "toml" } else { "json" };
    client.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/{kind}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    client.read_response_to(method)
}

fn blacklisted(proxy: &Proxy) -> Vec<String> {
    let page = admin(proxy, "GET", "/admin/blacklist", "");
    let entries = page["entries"].as_array().expect("a list").iter();
    entries.map(|entry| entry["ip"].as_str().expect("a text").to_owned()).collect()
}

fn with_cluster(origin: &Origin) -> String {
    edge(&format!(
        "{OK}[[routes]]\nname = \"app\"\ncluster = \"app\"\n\
         [clusters.app]\nendpoints = [{{ address = \"{}\" }}, {{ address = \"127.0.0.2:1\" }}]\n",
        origin.address()
    ))
}

#[test]
fn what_operators_have_said_goes_on_in_the_new_process() {
    let origin = Origin::start().on("GET /", Respond::text("x"));
    let proxy = Proxy::start(&with_cluster(&origin));
    let endpoint = format!("/admin/clusters/app/endpoints/{}", origin.address());
    admin(&proxy, "POST", "/admin/clusters/app/endpoints/127.0.0.2:1/maintenance", "");
    admin(&proxy, "PUT", &format!("{endpoint}/weight"), "{\"weight\":7}");
    admin(
        &proxy,
        "PUT",
        "/admin/logging",
        "{\"default\":\"debug\",\"modules\":{\"http1\":\"trace\"}}",
    );
    admin(&proxy, "POST", "/admin/blacklist", "{\"ip\":\"192.0.2.0/24\",\"reason\":\"abuse\"}");
    admin(&proxy, "POST", "/admin/drain?delay=1h", "");
    let before = admin(&proxy, "GET", "/admin/clusters/app", "");
    let levels = admin(&proxy, "GET", "/admin/logging", "");
    let mut successors = Successors::default();
    for _ in 0..2 {
        successors.upgrade(&proxy);
        let after = admin(&proxy, "GET", "/admin/clusters/app", "");
        for (before, after) in [0, 1].map(|at| (&before["endpoints"][at], &after["endpoints"][at]))
        {
            for member in ["address", "state", "reason", "weight"] {
                assert_eq!(before[member], after[member], "{member}");
            }
        }
        assert_eq!(admin(&proxy, "GET", "/admin/logging", ""), levels);
        assert_eq!(blacklisted(&proxy), ["192.0.2.0/24"]);
        assert_eq!(admin(&proxy, "GET", "/admin/status", "")["state"], "draining");
        assert_eq!(proxy.client().get("/").text(), "x", "the other endpoint takes none");
    }
    // And is taken back there as everywhere.
    admin(&proxy, "POST", "/admin/resume", "");
    admin(&proxy, "POST", "/admin/clusters/app/endpoints/127.0.0.2:1/ready", "");
    admin(&proxy, "DELETE", "/admin/blacklist", "{\"ip\":\"192.0.2.0/24\"}");
    successors.upgrade(&proxy);
    assert_eq!(admin(&proxy, "GET", "/admin/status", "")["state"], "running");
    assert_eq!(blacklisted(&proxy), [""; 0]);
}

#[test]
fn what_is_said_while_the_new_process_starts_reaches_it() {
    let directory = TempDir::new();
    let binary = copied_binary(directory.path());
    let file = directory.path().join("blacklist");
    let origin = Origin::start().on("GET /", Respond::text("x"));
    for kept in ["", &format!("[blacklist]\npath = \"{}\"\n", file.display())] {
        let config = format!("{}{kept}", with_cluster(&origin));
        let proxy = Proxy::start_binary(&binary, &config);
        admin(&proxy, "POST", "/admin/blacklist", "{\"ip\":\"192.0.2.1\"}");
        let go = directory.path().join("go");
        let real = Proxy::binary();
        let waits = format!(
            "until [ -e {} ]; do sleep 0.05; done\nexec {} \"$@\"",
            go.display(),
            real.display()
        );
        let started = noting_its_pid(&binary, directory.path(), &waits);
        proxy.signal("USR2");
        assert!(eventually(|| started().is_some()), "{}", proxy.log());
        admin(&proxy, "POST", "/admin/blacklist", "{\"ip\":\"192.0.2.2\"}");
        admin(&proxy, "DELETE", "/admin/blacklist", "{\"ip\":\"192.0.2.1\"}");
        admin(&proxy, "POST", "/admin/clusters/app/endpoints/127.0.0.2:1/drain", "");
        fs::write(&go, "").unwrap();
        assert!(eventually(|| !pids(&proxy.log()).is_empty()), "{}", proxy.log());
        let _successors = Successors(pids(&proxy.log()));
        assert_eq!(blacklisted(&proxy), ["192.0.2.2/32"], "{}", proxy.log());
        let cluster = admin(&proxy, "GET", "/admin/clusters/app", "");
        assert_eq!(cluster["endpoints"][1]["state"], "drained", "{cluster}");
        assert_eq!(proxy.client().get("/").text(), "x");
        let saved = || fs::read_to_string(&file).is_ok_and(|text| text.contains("192.0.2.2"));
        assert!(kept.is_empty() || eventually(saved));
        fs::remove_file(&go).unwrap();
        fs::remove_file(directory.path().join("pid")).unwrap();
        fs::remove_file(&binary).unwrap();
        copied_binary(directory.path());
    }
}

#[test]
fn a_configuration_that_is_in_memory_only_is_told_of_and_not_passed_on() {
    let proxy = Proxy::start(&with_cores(1));
    let put = with_cores(1).replace("\"/ok\"", "\"/put\"");
    admin(&proxy, "PUT", "/admin/config", &put);
    assert_eq!(proxy.client().get("/put").text(), "ok");
    let (text, code) = ask_for_upgrade(&["--admin", &proxy.address("admin").to_string()]);
    let _successors = Successors(pids(&proxy.log()));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("warning: the configuration in force, version 2 (admin)"), "{text}");
    assert!(eventually(|| proxy.client().get("/ok").text() == "ok"), "{}", proxy.log());
    assert_eq!(proxy.client().get("/put").status, 404);
}

#[test]
fn an_operator_who_still_talks_to_the_old_process_is_sent_to_the_new_one() {
    let origin =
        Origin::start().on("GET /slow", Respond::text("slow").after(Duration::from_millis(1500)));
    let proxy = Proxy::start(&with_cluster(&origin));
    admin(&proxy, "POST", "/admin/clusters/app/endpoints/127.0.0.2:1/maintenance", "");
    let mut client = proxy.client();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    let mut operator = proxy.client_of("admin");
    operator.send("GET /admin/status HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(operator.read_response().status, 200);
    let mut successors = Successors::default();
    successors.upgrade(&proxy);
    operator.send("POST /admin/drain HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // It is told so, or finds the connection closed, as an idle one is between two requests.
    if let Ok(response) = operator.try_read_response_to("POST") {
        assert_eq!((response.status, response.header("connection")), (409, Some("close")));
        assert!(response.text().contains("ask again on a new connection"), "{}", response.text());
    }
    assert_eq!(client.read_response().text(), "slow");
}

#[test]
fn every_first_request_to_the_own_ports_is_answered_during_an_upgrade() {
    let proxy = Proxy::start(&edge(OK));
    let early = ["metrics", "admin"].map(|port| {
        let connected = proxy.client_of(port);
        // Accepted after that one.
        let mut other = proxy.client_of(port);
        other.send("GET /health/liveness HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(other.read_response().status, 200, "{port}");
        connected
    });
    let (over, mut successors) = (AtomicBool::new(false), Successors::default());
    thread::scope(|scope| {
        for port in ["metrics", "admin"] {
            let (proxy, over) = (&proxy, &over);
            scope.spawn(move || {
                for _ in 0..20_000 {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut client = proxy.client_of(port);
                    client.send("GET /health/liveness HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    assert_eq!(client.read_response().status, 200, "{port}");
                }
            });
        }
        successors.upgrade(&proxy);
        for mut connected in early {
            connected.send("GET /health/liveness HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let response = connected.read_response();
            assert_eq!((response.status, response.header("connection")), (200, Some("close")));
        }
        for _ in 0..4 {
            successors.upgrade(&proxy);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(proxy.client().get("/ok").text(), "ok");
}

/// The command beside the process: what it printed, and how it exited.
fn ask_for_upgrade(arguments: &[&str]) -> (String, Option<i32>) {
    let output = Proxy::command(&[&["upgrade"], arguments].concat());
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.code())
}

const TOKEN: &str = "upgrade-token-0123456789";

fn with_token(role: &str) -> String {
    let tokens = format!("tokens = [{{ name = \"ops\", role = \"{role}\", token = \"{TOKEN}\" }}]");
    let admin = "admin = { bind = \"127.0.0.1:0\" }";
    with_cores(1).replace(admin, &format!("admin = {{ bind = \"127.0.0.1:0\", {tokens} }}"))
}

#[test]
fn the_upgrade_command_says_which_process_serves() {
    let proxy = Proxy::start(&with_token("admin"));
    let directory = TempDir::new();
    let file = directory.write("token", format!("{TOKEN}\n"));
    let (admin, file) = (proxy.address("admin").to_string(), file.display().to_string());
    let mut successors = Successors::default();
    let (text, code) = ask_for_upgrade(&["--admin", &admin, "--token-file", &file]);
    let pid: Option<u32> =
        text.strip_prefix("process ").and_then(|rest| rest.split(' ').next()?.parse().ok());
    successors.0.extend(pid);
    assert_eq!(code, Some(0), "{text}{}", proxy.log());
    let pid = pid.expect("it says which");
    assert!(eventually(|| pids(&proxy.log()) == [pid]), "{}", proxy.log());
    assert_eq!(proxy.client().get("/ok").status, 200);
}

#[test]
fn an_upgrade_that_fails_is_told_by_the_command_and_changes_nothing() {
    let proxy = Proxy::start(&with_token("operator"));
    let directory = TempDir::new();
    let file = directory.write("token", TOKEN).display().to_string();
    let bad = directory.write("bad", "two words").display().to_string();
    let admin = proxy.address("admin").to_string();
    let cases: [(&[&str], &str, i32); 4] = [
        (&["--admin", &admin, "--token-file", &file], "needs role admin", 1),
        (&["--admin", &admin], "expected a token", 1),
        (&["--admin", "127.0.0.1:1"], "cannot connect", 1),
        (&["--admin", &admin, "--token-file", &bad], "expected one line", 2),
    ];
    for (arguments, words, wanted) in cases {
        let (text, code) = ask_for_upgrade(arguments);
        assert!(text.contains(words), "{text}");
        assert_eq!(code, Some(wanted), "{text}");
    }
    assert_eq!(proxy.client().get("/ok").status, 200);
    let directory = TempDir::new();
    let binary = copied_binary(directory.path());
    let proxy = Proxy::start_binary(&binary, &with_cores(1));
    replace_with_script(&binary, "exit 3");
    let (text, code) = ask_for_upgrade(&["--admin", &proxy.address("admin").to_string()]);
    assert_eq!(code, Some(1));
    assert!(text.contains("the new process ended") && text.contains("500"), "{text}");
    assert_eq!(proxy.client().get("/ok").status, 200);
}
