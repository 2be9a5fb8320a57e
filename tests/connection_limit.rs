//! `limits.max_concurrent_connections` and the open-file limit: idle clients make room for new
//! ones, running requests never do, and the operator is told.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use support::{Gate, Origin, Proxy, RawClient, Respond, TempDir, edge, eventually};

const RESPOND: &str = "[[routes]]\nname = \"all\"\nrespond = { status = 200, body = \"hi\" }\n";

fn limited(cores: usize, max: usize, rest: &str) -> String {
    edge(&format!("[limits]\nmax_concurrent_connections = {max}\n{rest}")).replacen(
        "cores = 1",
        &format!("cores = {cores}"),
        1,
    )
}

/// Clients that have had an answer and keep their connection.
fn idle_clients(proxy: &Proxy, count: usize) -> Vec<RawClient> {
    let mut clients: Vec<RawClient> = (0..count).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "hi");
    }
    clients
}

fn active(proxy: &Proxy) -> f64 {
    proxy.metric("tls_proxy_connections_active").expect("it is on the page")
}

#[test]
fn the_client_that_was_idle_longest_makes_room_for_a_new_one() {
    let proxy = Proxy::start(&limited(1, 20, RESPOND));
    let mut idle = idle_clients(&proxy, 20);
    // Some are parked by now, and some are not: the first one has spoken last.
    thread::sleep(Duration::from_millis(600));
    assert_eq!(idle[0].get("/").text(), "hi");
    let mut new = proxy.client();
    let started = Instant::now();
    assert_eq!(new.get("/").text(), "hi");
    println!("served after {:?}", started.elapsed());
    assert_eq!(idle.remove(1).read_to_close(), b"");
    for client in idle.iter_mut().chain([&mut new]) {
        assert_eq!(client.get("/").text(), "hi", "only one was closed");
    }
    assert_eq!(active(&proxy), 20.0);
}

fn is_closed(client: &mut RawClient) -> bool {
    let sent = client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    sent.and_then(|()| client.try_read_response_to("GET")).is_err()
}

#[test]
fn clients_that_are_idle_on_other_cores_make_room_as_well() {
    const MAX: usize = 32;
    let proxy = Proxy::start(&limited(16, MAX, RESPOND));
    let mut idle = idle_clients(&proxy, MAX);
    thread::sleep(Duration::from_millis(800)); // parked for long, all of them
    let started = Instant::now();
    let mut new = idle_clients(&proxy, MAX / 2);
    println!("{} were served after {:?}", new.len(), started.elapsed());
    let closed = idle.iter_mut().filter_map(|client| is_closed(client).then_some(())).count();
    let young = new.iter_mut().filter_map(|client| is_closed(client).then_some(())).count();
    println!("{closed} that had been idle for long were closed, {young} of the others");
    // Two cores that want room at once may each be given it; those that were served just now go
    // only when the rest takes long to answer.
    assert!((MAX / 2..MAX).contains(&(closed + young)), "{closed} and {young} were closed");
    assert!(young < new.len() / 2, "{young} that had just been served were closed");
}

#[test]
fn new_clients_never_push_the_process_over_its_limit() {
    const MAX: usize = 12;
    let proxy = Proxy::start(&limited(16, MAX, RESPOND));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut kept = Vec::new();
                for _ in 0..20 {
                    kept.push(idle_clients(&proxy, 1));
                }
            });
        }
        for _ in 0..20 {
            let now = active(&proxy);
            // The cells are read one after the other, while connections go from core to core.
            assert!(now <= (MAX + 2) as f64, "{now} connections are open, {MAX} may be");
        }
    });
    assert!(eventually(|| active(&proxy) <= MAX as f64));
    assert_eq!(proxy.client().get("/").text(), "hi");
}

#[test]
fn requests_that_run_or_have_begun_are_never_cut_for_a_new_client() {
    let quiet = Gate::new();
    let slow = Respond::text("slow").behind(&quiet);
    let origin = Origin::start().on("GET /slow", slow).on("GET /", Respond::text("hi"));
    let route = format!(
        "[[routes]]\nname = \"all\"\ncluster = \"a\"\n\
         [clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n",
        origin.address()
    );
    let proxy = Proxy::start(&limited(2, 2, &route));
    let mut clients = idle_clients(&proxy, 2);
    clients[0].send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    clients[1].send("GET / HT");
    origin.wait_for_requests(3);
    let mut third = proxy.client();
    third.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(third.is_quiet_for(Duration::from_millis(200)));
    clients[1].send("TP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(clients[1].read_response().text(), "hi");
    quiet.open();
    assert_eq!(clients[0].read_response().text(), "slow");
    assert_eq!(third.read_response().text(), "hi", "one of them is idle by now");
}

#[test]
fn a_client_that_never_speaks_makes_room_as_well() {
    let proxy = Proxy::start(&limited(1, 4, RESPOND));
    let mut silent: Vec<RawClient> = (0..4).map(|_| proxy.client()).collect();
    assert_eq!(proxy.client().get("/").text(), "hi");
    assert_eq!(silent.remove(0).read_to_close(), b"");
}

fn lines_with(proxy: &Proxy, text: &str) -> usize {
    proxy.log().lines().filter(|line| line.contains(text)).count()
}

#[test]
fn the_operator_is_told_of_the_limit_once_and_can_see_how_often_it_was_reached() {
    let proxy = Proxy::start(&limited(1, 8, RESPOND));
    let waited = || proxy.metric("tls_proxy_connection_limit_total").expect("it is on the page");
    let _idle = idle_clients(&proxy, 8);
    assert_eq!((waited(), lines_with(&proxy, "limits.max_concurrent_connections")), (0.0, 0));
    let mut new = Vec::new();
    for _ in 0..16 {
        new.append(&mut idle_clients(&proxy, 1));
    }
    let told = "all 8 connections of `limits.max_concurrent_connections` are in use";
    proxy.wait_for_log(told);
    assert_eq!(waited(), 16.0);
    assert_eq!(proxy.metric("tls_proxy_connections_recalled_total"), Some(16.0));
    assert_eq!(lines_with(&proxy, told), 1, "{}", proxy.log());
    proxy.wait_for_log("raise `limits.max_concurrent_connections`");
}

/// The binary with no more than so many open files.
fn with_open_files(directory: &TempDir, count: usize) -> PathBuf {
    let binary = Proxy::binary();
    let text = format!("#!/bin/sh\nulimit -n {count}\nexec {} \"$@\"\n", binary.display());
    let script = directory.write("corelane", text);
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    script
}

#[test]
fn without_descriptors_the_process_says_so_rarely_and_serves_again_when_there_are_some() {
    let directory = TempDir::new();
    let proxy = Proxy::start_binary(&with_open_files(&directory, 100), &limited(1, 1000, RESPOND));
    proxy.wait_for_log("may open only 100 files");
    // Requests that have begun make no room for anybody.
    let mut begun: Vec<RawClient> = (0..150).map(|_| proxy.client()).collect();
    for client in &mut begun {
        client.send("GET / HT");
    }
    proxy.wait_for_log("cannot accept connections: ");
    let errors = || proxy.metric("tls_proxy_accept_errors_total");
    let mut waiting = proxy.client();
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(waiting.is_quiet_for(Duration::from_millis(1_000)));
    assert_eq!(lines_with(&proxy, "cannot accept"), 1, "{}", proxy.log());
    proxy.wait_for_log("raise the open-file limit");
    drop(begun);
    assert_eq!(waiting.read_response().text(), "hi");
    assert!(errors() >= Some(2.0), "{:?}", errors());
    for _ in 0..100 {
        assert_eq!(proxy.client().get("/").text(), "hi");
    }
}

#[test]
fn idle_clients_give_their_descriptors_to_new_ones() {
    let directory = TempDir::new();
    let proxy = Proxy::start_binary(&with_open_files(&directory, 100), &limited(1, 1000, RESPOND));
    let mut clients = Vec::new();
    for _ in 0..120 {
        clients.append(&mut idle_clients(&proxy, 1));
    }
    assert_eq!(clients.remove(0).read_to_close(), b"");
    assert_eq!(clients.remove(118).get("/").text(), "hi");
}
