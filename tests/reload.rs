//! A new configuration while traffic flows: it takes effect in place, nothing that runs is lost,
//! and what is wrong changes nothing.

mod support;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use support::http2_client::{DATA, GOAWAY, HEADERS, RST_STREAM, frame, headers};
use support::{
    After, Block, Gate, Http2Client, Http2Origin, Origin, PATIENCE, Proxy, RawClient, Respond,
    TempDir, eventually, unused_port,
};

/// Read again when it is told to, and not before.
fn edge(rest: &str) -> String {
    format!("hot_reload.watch = false\n{}", support::edge(rest))
}

/// Read again when it changes.
fn watched(text: &str) -> String {
    support::edge(&says_rest(text))
}

fn says(text: &str) -> String {
    edge(&says_rest(text))
}

fn says_rest(text: &str) -> String {
    format!("[[routes]]\nname = \"all\"\nrespond = {{ status = 200, body = \"{text}\" }}\n")
}

fn listener(name: &str, bind: &str) -> String {
    format!("[[listeners]]\nname = \"{name}\"\nbind = \"{bind}\"\n")
}

fn to_origin(origin: &Origin, pool: &str) -> String {
    format!(
        "[[routes]]\nname = \"all\"\ncluster = \"a\"\n[clusters.a]\n\
         endpoints = [{{ address = \"{}\" }}]\n[clusters.a.pool]\n{pool}\n",
        origin.address()
    )
}

fn on_cores(cores: usize, toml: &str) -> String {
    toml.replacen("cores = 1", &format!("cores = {cores}"), 1)
}

/// How many reloads have ended, well or badly.
fn reloads(proxy: &Proxy) -> usize {
    let log = proxy.log();
    log.matches("reloaded (").count() + log.matches("reload refused (").count()
}

/// Writes the file, has it read, and waits until that is done.
fn try_reload(proxy: &Proxy, toml: &str) {
    let before = reloads(proxy);
    proxy.rewrite_config(toml);
    proxy.signal("HUP");
    assert!(eventually(|| reloads(proxy) > before), "no reload:\n{}", proxy.log());
}

fn reload(proxy: &Proxy, toml: &str) {
    let refused = proxy.log().matches("reload refused").count();
    try_reload(proxy, toml);
    assert_eq!(proxy.log().matches("reload refused").count(), refused, "{}", proxy.log());
}

/// Where a listener is that a reload has opened.
fn address_of(proxy: &Proxy, name: &str) -> SocketAddr {
    let end = format!(" as {name}");
    let log = proxy.log();
    let line = log.lines().rev().find_map(|line| line.strip_suffix(&end));
    let address = line.and_then(|line| line.split_once("listening on "));
    address.unwrap_or_else(|| panic!("no {name} in:\n{log}")).1.parse().expect("an address")
}

fn get(address: SocketAddr) -> String {
    RawClient::connect(address).get("/").text().to_owned()
}

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

// --- routes ----------------------------------------------------------------------------------

#[test]
fn sighup_swaps_the_routes_for_connections_old_and_new() {
    let proxy = Proxy::start(&says("one"));
    let (mut kept, mut parked) = (proxy.client(), proxy.client());
    assert_eq!((kept.get("/").text(), parked.get("/").text()), ("one", "one"));
    thread::sleep(Duration::from_millis(700)); // long enough to be put away
    assert_eq!(kept.get("/").text(), "one");
    reload(&proxy, &says("two"));
    assert_eq!((kept.get("/").text(), parked.get("/").text()), ("two", "two"));
    assert_eq!(proxy.client().get("/").text(), "two");
    assert_eq!(proxy.metric("tls_proxy_rules_version"), Some(2.0));
}

#[test]
fn reloads_under_load_fail_no_request() {
    let origin = Origin::start().on("GET /", Respond::text("hi"));
    let toml = |number: usize| {
        let more: String = (0..number % 3)
            .map(|n| format!("[clusters.Z{n}]\nendpoints = [{{ address = \"127.0.0.1:9\" }}]\n"))
            .collect();
        let extra = if number % 2 == 1 { listener("extra", "127.0.0.1:0") } else { String::new() };
        on_cores(2, &edge(&(extra + &to_origin(&origin, "max_connections = 8") + &more)))
    };
    let proxy = Proxy::start(&toml(0));
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..6 {
            let (proxy, stop, served) = (&proxy, &stop, &served);
            scope.spawn(move || {
                let mut client = proxy.client();
                while !stop.load(Ordering::Relaxed) {
                    if number % 2 == 0 {
                        client = proxy.client();
                    }
                    let response = client.get("/");
                    assert_eq!((response.status, response.text()), (200, "hi"));
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 1..=12 {
            let before = served.load(Ordering::Relaxed);
            reload(&proxy, &toml(number));
            assert!(eventually(|| served.load(Ordering::Relaxed) > before + 20));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(proxy.metric("tls_proxy_rules_version"), Some(13.0));
}

#[test]
fn a_file_that_is_wrong_changes_nothing_and_the_log_says_where() {
    let proxy = Proxy::start(&says("one"));
    let wrong = says("two") + "timeout = \"fast\"\ncolour = 3\n";
    try_reload(&proxy, &wrong);
    proxy.wait_for_log("reload refused (SIGHUP): version 1 stays in force");
    for line in ["corelane.toml:12:11: routes[0].timeout: ", "corelane.toml:13:1: routes[0].colour"]
    {
        proxy.wait_for_log(line);
    }
    assert_eq!(proxy.client().get("/").text(), "one");
    assert_eq!(proxy.metric("tls_proxy_rules_version"), Some(1.0));
    fs::remove_file(proxy.directory().join("corelane.toml")).unwrap();
    proxy.signal("HUP");
    proxy.wait_for_log("corelane.toml: cannot be read: ");
    let file = proxy.directory().join("corelane.toml");
    let made = std::process::Command::new("mkfifo").arg(file).status().expect("mkfifo runs");
    assert!(made.success());
    proxy.signal("HUP");
    proxy.wait_for_log("corelane.toml: it is a pipe, not a file");
    fs::remove_file(proxy.directory().join("corelane.toml")).expect("it is there");
    reload(&proxy, &says("two"));
    assert_eq!(proxy.client().get("/").text(), "two");
    assert_eq!(proxy.metric("tls_proxy_rules_version"), Some(2.0));
}

#[test]
fn what_has_no_file_says_so() {
    let proxy = Proxy::start_command(&[
        "reverse",
        "--from",
        "127.0.0.1:0",
        "--to",
        "http://127.0.0.1:9",
        "--metrics-port",
        "0",
        "--admin-port",
        "0",
    ]);
    proxy.signal("HUP");
    proxy.wait_for_log("the configuration is (arguments): there is no file to read again");
    assert_eq!(proxy.client().get("/").status, 502);
}

#[test]
fn flags_outlive_a_reload() {
    let folder = TempDir::new();
    let file = folder.write("c.toml", says("one").replacen("cores = 1\n", "", 1));
    let file = file.display().to_string();
    let proxy = Proxy::start_command(&["--config", &file, "--cores", "3", "--log-level", "info"]);
    folder.write("c.toml", says("two").replacen("cores = 1", "logging.level = \"error\"", 1));
    proxy.signal("HUP");
    proxy.wait_for_log("reloaded (SIGHUP): version 2");
    assert_eq!(proxy.client().get("/").text(), "two");
    assert!(!proxy.log().contains("cores: "), "{}", proxy.log());
}

#[test]
fn another_number_of_cores_is_warned_about_and_the_rest_takes_effect() {
    let proxy = Proxy::start(&says("one"));
    reload(&proxy, &on_cores(4, &says("two")));
    proxy.wait_for_log("cores: 4 are asked for, 1 go on running");
    assert_eq!(proxy.client().get("/").text(), "two");
    assert_eq!(proxy.client().get("/").text(), "two");
}

#[test]
fn limits_and_the_level_of_the_log_take_effect() {
    let proxy = Proxy::start(&says("one"));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(500));
    let mut kept = proxy.client();
    kept.send(&long);
    assert_eq!(kept.read_response().status, 200);
    reload(
        &proxy,
        &format!("limits.max_url_length = 100\nlogging.level = \"debug\"\n{}", says("")),
    );
    kept.send(&long);
    assert_eq!(kept.read_response().status, 414);
    proxy.wait_for_log("DEBUG");
}

#[test]
fn sighup_while_draining_is_refused_and_the_drain_goes_on() {
    let refused = Gate::new();
    let origin = Origin::start().on("GET /", Respond::text("late").behind(&refused));
    let mut proxy = Proxy::start(&edge(&to_origin(&origin, "")));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    proxy.signal("TERM");
    proxy.wait_for_log("draining");
    proxy.signal("HUP");
    proxy.wait_for_log("is refused: the process is draining");
    refused.open();
    assert_eq!(client.read_response().text(), "late");
    assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0));
}

// --- the file is watched ---------------------------------------------------------------------

#[test]
fn a_file_that_an_editor_replaces_is_read_again_and_an_equal_one_is_not() {
    let proxy = Proxy::start(&watched("one"));
    let write = |toml: &str| {
        let file = proxy.directory().join("corelane.toml");
        let new = proxy.directory().join(".corelane.toml.swp");
        fs::write(&new, toml).unwrap();
        fs::rename(&new, &file).unwrap();
    };
    write(&watched("two"));
    proxy.wait_for_log("reloaded (file change): version 2");
    assert_eq!(proxy.client().get("/").text(), "two");
    write(&watched("two"));
    thread::sleep(Duration::from_millis(300)); // for the change that is none
    write(&watched("three"));
    proxy.wait_for_log("reloaded (file change): version 3");
    assert_eq!(proxy.client().get("/").text(), "three");
    // Written in place, and gone for a while.
    fs::remove_file(proxy.directory().join("corelane.toml")).unwrap();
    proxy.wait_for_log("looking for it");
    proxy.rewrite_config(&watched("four"));
    proxy.wait_for_log("reloaded (file change): version 4");
    assert_eq!(proxy.client().get("/").text(), "four");
}

#[test]
fn a_config_map_that_is_swapped_is_read_again() {
    let folder = TempDir::new();
    let at = |name: &str| folder.path().join(name);
    let swap = |version: &str, text: &str| {
        folder.write(&format!("..{version}/corelane.toml"), watched(text));
        symlink(format!("..{version}"), at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    swap("1", "one");
    symlink("..data/corelane.toml", at("corelane.toml")).unwrap();
    let proxy = Proxy::start_command(&["--config", &at("corelane.toml").display().to_string()]);
    assert_eq!(proxy.client().get("/").text(), "one");
    for (version, text) in [("2", "two"), ("3", "three")] {
        swap(version, text);
        fs::remove_dir_all(at(&format!("..{}", version.parse::<u32>().unwrap() - 1))).unwrap();
        proxy.wait_for_log(&format!("reloaded (file change): version {version}"));
        assert_eq!(proxy.client().get("/").text(), text);
    }
}

#[test]
fn watching_is_turned_off_and_on_by_a_reload() {
    let proxy = Proxy::start(&says("one"));
    reload(&proxy, &says("two"));
    proxy.rewrite_config(&says("three"));
    thread::sleep(Duration::from_millis(600)); // nothing is waited for but that nothing happens
    assert_eq!(proxy.client().get("/").text(), "two");
    reload(&proxy, &watched("four"));
    proxy.rewrite_config(&watched("five"));
    proxy.wait_for_log("reloaded (file change): version 4");
    assert_eq!(proxy.client().get("/").text(), "five");
    proxy.rewrite_config(&says("off again"));
    proxy.wait_for_log("reloaded (file change): version 5");
    proxy.rewrite_config(&watched("unseen"));
    thread::sleep(Duration::from_millis(600));
    assert_eq!(proxy.client().get("/").text(), "off again");
}

// --- listeners -------------------------------------------------------------------------------

#[test]
fn a_listener_is_added_renamed_moved_and_removed() {
    let two = |second: &str| on_cores(2, &edge(&(second.to_owned() + &says_rest("hi"))));
    let proxy = Proxy::start(&two(""));
    let first = proxy.address("edge");
    reload(&proxy, &two(&listener("second", "127.0.0.1:0")));
    let second = address_of(&proxy, "second");
    assert_eq!((get(first), get(second)), ("hi".to_owned(), "hi".to_owned()));
    let mut idle = RawClient::connect(second);
    assert_eq!(idle.get("/").header("connection"), None);
    // It keeps its port by its name; by another address it moves.
    reload(&proxy, &two(&listener("second", "127.0.0.1:0")));
    assert_eq!(address_of(&proxy, "second"), second);
    assert_eq!(idle.get("/").text(), "hi");
    reload(&proxy, &two(&listener("second", "127.0.0.2:0")));
    let moved = address_of(&proxy, "second");
    assert_ne!(moved, second);
    assert_eq!(get(moved), "hi");
    assert_eq!(idle.read_to_close(), b"", "idle connections of the old address end");
    assert!(eventually(|| is_refused(second)));
    reload(&proxy, &two(""));
    assert!(eventually(|| is_refused(moved)));
    assert_eq!(get(first), "hi");
    // And the same address can be had again.
    reload(&proxy, &two(&listener("third", &moved.to_string())));
    assert_eq!(get(moved), "hi");
    reload(&proxy, &two(&listener("fourth", &moved.to_string())));
    assert_eq!(get(moved), "hi");
}

#[test]
fn a_removed_listener_loses_nothing_that_is_queued_and_finishes_what_runs() {
    let removed = Gate::new();
    let origin = Origin::start()
        .on("GET /slow", Respond::text("slow").behind(&removed))
        .on("GET /", Respond::text("quick"));
    let toml = |second: &str| {
        let rest = second.to_owned() + &to_origin(&origin, "");
        format!("limits.max_concurrent_connections = 1\n{}", edge(&rest))
    };
    let proxy = Proxy::start(&toml(&listener("second", "127.0.0.1:0")));
    let second = proxy.address("second");
    let mut running = RawClient::connect(second);
    running.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    // There is room for one connection: these wait in the kernel.
    let mut queued: Vec<RawClient> = (0..40)
        .map(|_| {
            let mut client = RawClient::connect(second);
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            client
        })
        .collect();
    reload(&proxy, &toml(""));
    removed.open();
    let response = running.read_response();
    assert_eq!((response.text(), response.header("connection")), ("slow", Some("close")));
    assert_eq!(running.read_to_close(), b"");
    for client in &mut queued {
        let response = client.read_response();
        assert_eq!((response.text(), response.header("connection")), ("quick", Some("close")));
        assert_eq!(client.read_to_close(), b"");
    }
    assert!(eventually(|| is_refused(second)));
    assert_eq!(proxy.client().get("/").text(), "quick");
}

#[test]
fn whoever_gets_through_to_a_listener_that_comes_and_goes_is_answered() {
    let address: SocketAddr = ([127, 0, 0, 3], unused_port()).into();
    let toml = |there: bool| {
        let second = if there { listener("second", &address.to_string()) } else { String::new() };
        on_cores(3, &edge(&(second + &says_rest("hi"))))
    };
    let proxy = Proxy::start(&toml(true));
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let Ok(stream) = TcpStream::connect(address) else {
                        thread::sleep(Duration::from_millis(1));
                        continue;
                    };
                    drop(stream.set_read_timeout(Some(PATIENCE)));
                    let mut stream = stream;
                    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("it is taken");
                    let mut answer = [0; 12];
                    stream.read_exact(&mut answer).expect("it is answered");
                    assert_eq!(&answer, b"HTTP/1.1 200");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..4 {
            let before = answered.load(Ordering::Relaxed);
            assert!(eventually(|| answered.load(Ordering::Relaxed) > before + 50));
            reload(&proxy, &toml(false));
            assert!(eventually(|| is_refused(address)));
            reload(&proxy, &toml(true));
        }
        stop.store(true, Ordering::Relaxed);
    });
    // And without a moment in which nobody listens there.
    reload(&proxy, &toml(false));
    reload(&proxy, &toml(true));
    assert_eq!(get(address), "hi");
}

#[test]
fn a_port_that_is_taken_refuses_the_whole_reload() {
    let taken = TcpListener::bind(("127.0.0.1", unused_port())).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let proxy = Proxy::start(&says("one"));
    let new = edge(&(listener("a", "127.0.0.1:0") + &listener("b", &address) + &says_rest("two")));
    try_reload(&proxy, &new);
    proxy.wait_for_log(&format!("cannot listen on {address} as b: Address already in use"));
    assert_eq!(proxy.client().get("/").text(), "one");
    assert!(!proxy.log().contains(" as a\n"), "{}", proxy.log());
    drop(taken);
    reload(&proxy, &new);
    assert_eq!(get(address.parse().unwrap()), "two");
}

#[test]
fn metrics_and_admin_move_and_are_turned_off_and_on() {
    let proxy = Proxy::start(&says("one"));
    let before = (proxy.address("metrics"), proxy.address("admin"));
    let other = |toml: &str| toml.replacen("127.0.0.1:0", "127.0.0.2:0", 1);
    reload(&proxy, &other(&says("one")));
    let metrics = address_of(&proxy, "metrics");
    assert_ne!(metrics, before.0);
    assert_eq!(RawClient::connect(metrics).get("/metrics").status, 200);
    assert!(eventually(|| is_refused(before.0)));
    assert_eq!(address_of(&proxy, "admin"), before.1);
    let off = says("one").replacen("admin = { ", "admin = { enabled = false, ", 1);
    reload(&proxy, &other(&off));
    assert!(eventually(|| is_refused(before.1)));
    reload(&proxy, &says("one"));
    let mut admin = RawClient::connect(address_of(&proxy, "admin"));
    admin.send("GET /admin/cores HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(admin.read_response().status, 200);
    assert_eq!(RawClient::connect(address_of(&proxy, "metrics")).get("/metrics").status, 200);
}

// --- clusters --------------------------------------------------------------------------------

#[test]
fn a_cluster_keeps_its_connections_whatever_its_place_and_settings() {
    let origin = Origin::start().on("GET /", Respond::text("hi"));
    let toml = |pool: &str, more: &str| {
        edge(&(to_origin(&origin, &format!("idle_timeout = \"60s\"\n{pool}")) + more))
    };
    let another = "[clusters.A0]\nendpoints = [{ address = \"127.0.0.1:9\" }]\n";
    let proxy = Proxy::start(&toml("max_connections = 4", ""));
    let mut client = proxy.client();
    let pools = ["max_connections = 9", "queue_timeout = \"1s\"", "max_connections = 1"];
    for (number, pool) in pools.into_iter().enumerate() {
        assert_eq!(client.get("/").text(), "hi");
        reload(&proxy, &toml(pool, if number % 2 == 0 { another } else { "" }));
    }
    assert_eq!(client.get("/").text(), "hi");
    assert_eq!(origin.connections_accepted(), 1);
}

#[test]
fn a_name_that_is_new_is_resolved_before_requests_need_it() {
    let origin = Origin::start().on("GET /", Respond::text("hi"));
    let proxy = Proxy::start(&says("one"));
    let named = to_origin(&origin, "").replace("127.0.0.1", "localhost");
    reload(&proxy, &edge(&named));
    assert_eq!(proxy.client().get("/").text(), "hi");
    // And what is known is not asked again: a name that never resolves delays its first plan only.
    let never = "[clusters.b]\nendpoints = [{ address = \"no.such.name.invalid:1\" }]\n";
    reload(&proxy, &edge(&(named.clone() + never)));
    assert_eq!(proxy.client().get("/").text(), "hi");
    reload(&proxy, &edge(&(never.to_owned() + &named)));
    assert_eq!(proxy.client().get("/").text(), "hi");
}

#[test]
fn a_cluster_that_is_removed_closes_its_connections_after_the_last_exchange() {
    let closed = Gate::new();
    let origin = Origin::start()
        .on("GET /", Respond::text("hi"))
        .on("GET /slow", Respond::text("slow").behind(&closed));
    let proxy = Proxy::start(&edge(&to_origin(&origin, "idle_timeout = \"60s\"")));
    let (mut idle, mut running) = (proxy.client(), proxy.client());
    running.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    assert_eq!(idle.get("/").text(), "hi");
    assert_eq!(origin.connections_open(), 2);
    reload(&proxy, &says("gone"));
    assert_eq!(idle.get("/").text(), "gone");
    assert!(eventually(|| origin.connections_open() == 1), "the idle one");
    closed.open();
    assert_eq!(running.read_response().text(), "slow");
    assert!(eventually(|| origin.connections_open() == 0));
    assert_eq!(running.get("/").text(), "gone");
}

/// Answers each request after a moment, and counts with each connection those that have not ended.
fn counting_origin() -> (Origin, Arc<AtomicUsize>) {
    let most = Arc::new(AtomicUsize::new(0));
    let open: Mutex<Vec<TcpStream>> = Mutex::default();
    let seen = Arc::clone(&most);
    let origin = Origin::connections(move |mut stream, _| {
        {
            let mut open = open.lock().expect("no script panics");
            open.push(stream.try_clone().expect("descriptors are left"));
            open.retain(|stream| !has_ended(stream));
            seen.fetch_max(open.len(), Ordering::SeqCst);
        }
        let mut request = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match stream.read(&mut chunk) {
                Ok(count @ 1..) => request.extend_from_slice(&chunk[..count]),
                // Another connection's thread looks at this one just now: they share its mode.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
                Ok(_) | Err(_) => return,
            }
            if support::request_length(&request).is_none() {
                continue;
            }
            request.clear();
            thread::sleep(Duration::from_millis(2));
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    });
    (origin, most)
}

fn has_ended(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket can be");
    let ended = match stream.peek(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).expect("a socket can be");
    ended
}

#[test]
fn the_maximum_of_connections_holds_through_reloads_on_sixteen_cores() {
    let (origin, most) = counting_origin();
    let address = origin.address();
    let toml = |number: usize| {
        let others: String = (0..number % 3)
            .map(|n| format!("[clusters.A{n}]\nendpoints = [{{ address = \"127.0.0.1:9\" }}]\n"))
            .collect();
        let weight = 1 + number % 2;
        // A request may wait for a connection through all of the reloads.
        format!(
            "hot_reload.max_generations = 32\n{}",
            on_cores(
                16,
                &edge(&format!(
                    "[[routes]]\nname = \"all\"\ncluster = \"a\"\n{others}[clusters.a]\n\
                 endpoints = [{{ address = \"{address}\", weight = {weight} }}]\n\
                 [clusters.a.pool]\nmax_connections = 3\nqueue_timeout = \"25s\"\n"
                )),
            )
        )
    };
    let proxy = Proxy::start(&toml(0));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..24 {
            let (proxy, stop) = (&proxy, &stop);
            scope.spawn(move || {
                let mut client = proxy.client();
                while !stop.load(Ordering::Relaxed) {
                    let response = client.get("/");
                    assert_eq!((response.status, response.text()), (200, "ok"));
                }
            });
        }
        for number in 1..=8 {
            reload(&proxy, &toml(number));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let most = most.load(Ordering::SeqCst);
    assert!((1..=3).contains(&most), "{most} connections at once");
}

// --- generations -----------------------------------------------------------------------------

/// Sends a little of its body at a time, until it is told to go on to the end.
fn dripping() -> (Origin, Arc<AtomicBool>) {
    let end = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&end);
    let origin = Origin::raw(move |stream, _, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        let mut left = 1_000_000;
        while left > 0 {
            let count = if told.load(Ordering::SeqCst) { left } else { 10 };
            if stream.write_all(&vec![b'x'; count]).is_err() {
                return After::Close;
            }
            left -= count;
            thread::sleep(Duration::from_millis(10));
        }
        After::KeepOpen
    });
    (origin, end)
}

fn begin_download(proxy: &Proxy) -> RawClient {
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_exactly(12), b"HTTP/1.1 200");
    client
}

#[test]
fn a_long_download_survives_a_reload_that_removes_its_route() {
    let (origin, end) = dripping();
    let proxy = Proxy::start(&edge(&to_origin(&origin, "")));
    let mut client = begin_download(&proxy);
    for text in ["one", "two", "three"] {
        reload(&proxy, &says(text));
        assert_eq!(proxy.client().get("/").text(), text);
    }
    end.store(true, Ordering::SeqCst);
    client.read_exactly(1_000_000);
    assert!(!proxy.log().contains("retired"), "{}", proxy.log());
}

#[test]
fn the_oldest_generations_are_cut_when_there_are_too_many() {
    let (origin, _end) = dripping();
    let toml = |number: usize| {
        let rest = to_origin(&origin, "") + &listener(&format!("l{number}"), "127.0.0.1:0");
        format!("hot_reload.max_generations = 3\n{}", edge(&rest))
    };
    let proxy = Proxy::start(&toml(1));
    let mut clients = vec![begin_download(&proxy)];
    for number in 2..=4 {
        reload(&proxy, &toml(number));
        clients.push(begin_download(&proxy));
    }
    proxy.wait_for_log("generation 1 is retired: 1 exchanges of it are cut");
    assert!(clients[0].read_to_close().len() < 1_000_000);
    assert!(!proxy.log().contains("generation 2 is retired"), "{}", proxy.log());
    clients[1].read_exactly(1000);
    let cut = "tls_proxy_proxy_errors_total{reason=\"generation_retired\"}";
    let count =
        || proxy.metrics().lines().any(|l| l.contains("generation_retired") && l.ends_with(" 1"));
    assert!(eventually(count), "{cut}\n{}", proxy.metrics());
    reload(&proxy, &format!("hot_reload.max_generations = 3\n{}", says("hi")));
    proxy.wait_for_log("generation 2 is retired");
    assert_eq!(proxy.client().get("/").text(), "hi");
}

#[test]
fn a_generation_that_is_too_old_is_cut_and_one_that_has_not_answered_gets_a_503() {
    let origin = Origin::start().on("GET /", Respond::text("late").after(2 * PATIENCE));
    let toml = format!("hot_reload.max_age = \"300ms\"\n{}", edge(&to_origin(&origin, "")));
    let proxy = Proxy::start(&toml);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    reload(&proxy, &format!("{toml}# another\n"));
    let response = client.read_response();
    assert_eq!(response.status, 503, "{response:?}");
    assert_eq!(client.read_to_close(), b"");
    proxy.wait_for_log("generation 1 is retired: 1 exchanges of it are cut");
}

#[test]
fn quiet_streams_of_a_generation_that_is_too_old_are_cut_as_well() {
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        let begun = asker.request()?;
        let head = headers(begun.stream, 0, &Block::pseudo(&[(":status", "200")]));
        asker.send([head, frame(DATA, 0, begun.stream, "begun")].concat())?;
        asker.request()?; // is not answered
        asker.until(GOAWAY).map(|_| ())
    });
    let toml = edge(&format!(
        "[[routes]]\nname = \"all\"\ncluster = \"a\"\n[clusters.a]\nprotocol = \"h2c\"\n\
         endpoints = [{{ address = \"{}\" }}]\n\
         timeouts = {{ first_byte = \"300s\", read = \"300s\" }}\n",
        origin.address()
    ));
    let toml = format!("hot_reload.max_age = \"1s\"\n{toml}");
    let proxy = Proxy::start(&toml);
    let mut client = Http2Client::open(proxy.address("edge"));
    let begun = client.request(&Block::get("/begun"));
    assert_eq!(client.read_until(DATA).expect("it begins").payload, b"begun");
    let silent = client.request(&Block::get("/silent"));
    assert!(eventually(|| origin.asked().len() == 2));
    reload(&proxy, &format!("{toml}# another\n"));
    let (mut cut, mut refused) = (false, false);
    while !(cut && refused) {
        let frame = client.read_frame().expect("both end");
        cut |= frame.kind == RST_STREAM && frame.stream == begun;
        refused |= frame.kind == HEADERS && frame.stream == silent;
    }
    proxy.wait_for_log("generation 1 is retired: 2 exchanges of it are cut");
}

#[test]
fn generations_are_freed_and_memory_does_not_grow() {
    let toml = |number: usize| {
        let routes: String = (0..500)
            .map(|n| {
                format!(
                    "[[routes]]\nname = \"r{n}\"\ncluster = \"c{}\"\n\
                     paths = [\"/{number}/{n}/*\"]\n",
                    n % 50
                )
            })
            .collect();
        let clusters: String = (0..50)
            .map(|n| {
                let port = 1 + (n + number) % 2;
                format!("[clusters.c{n}]\nendpoints = [{{ address = \"127.0.0.1:{port}\" }}]\n")
            })
            .collect();
        // One client is quiet for as long as twenty reloads take.
        let first = "logging.level = \"debug\"\ntimeouts.idle = \"1h\"\n";
        format!("{first}{}", on_cores(2, &edge(&(routes + &clusters))))
    };
    let proxy = Proxy::start(&toml(1));
    let mut kept = proxy.client();
    let mut early = 0;
    for number in 2..=100 {
        reload(&proxy, &toml(number));
        if number % 20 == 0 {
            assert_eq!(kept.get(&format!("/{number}/499/x")).status, 502);
        }
        if number == 30 {
            early = proxy.rss_kb();
        }
    }
    let late = proxy.rss_kb();
    assert!(late < early + early / 10 + 4096, "{early} kB after 30 reloads, {late} kB after 100");
    proxy.wait_for_log("generation 99 is gone");
    for version in 1..99 {
        proxy.wait_for_log(&format!("generation {version} is gone"));
    }
}

// --- access log ------------------------------------------------------------------------------

#[test]
fn the_access_log_moves_and_changes_its_format_without_losing_a_line() {
    let toml =
        |access: &str| on_cores(2, &format!("logging.access = {{ {access} }}\n{}", says("x")));
    let proxy = Proxy::start(&toml("path = \"a.log\", format = \"clf\""));
    let lines = |name: &str| {
        let text = fs::read_to_string(proxy.directory().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = proxy.client();
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/").status, 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let files =
            ["b.log\", format = \"clf", "b.log\", format = \"json", "c.log\", format = \"clf"];
        for (number, file) in files.into_iter().enumerate() {
            let before = served.load(Ordering::Relaxed);
            assert!(eventually(|| served.load(Ordering::Relaxed) > before + 50));
            reload(&proxy, &toml(&format!("path = \"{file}\"")));
            assert_eq!(proxy.client().get(&format!("/after-{number}")).status, 200);
            served.fetch_add(1, Ordering::Relaxed);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let total = || ["a.log", "b.log", "c.log"].map(|name| lines(name).len());
    let served = served.load(Ordering::Relaxed);
    assert!(eventually(|| total().iter().sum::<usize>() == served), "{:?} of {served}", total());
    assert!(total().iter().all(|&count| count > 0), "{:?}", total());
    // Whatever begins after a reload is written as it says; cores get there one after the other.
    for (number, (name, is_json)) in
        [("b.log", false), ("b.log", true), ("c.log", false)].into_iter().enumerate()
    {
        let mark = format!("/after-{number}");
        let lines = lines(name);
        let line = lines.iter().find(|line| line.contains(&mark));
        assert_eq!(line.map(|line| line.starts_with('{')), Some(is_json), "{mark}: {line:?}");
    }
    let written = || proxy.metric("tls_proxy_access_log_lines_total");
    assert!(eventually(|| written() == Some(served as f64)), "{:?} of {served}", written());
    // Off, and a log that cannot be opened refuses the reload.
    reload(&proxy, &toml("enabled = false"));
    assert_eq!(proxy.client().get("/").status, 200);
    try_reload(&proxy, &toml("path = \"no/such/folder.log\""));
    proxy.wait_for_log("access log: cannot open no/such/folder.log");
    assert_eq!(total().iter().sum::<usize>(), served);
    assert_eq!(proxy.client().get("/").status, 200);
}
