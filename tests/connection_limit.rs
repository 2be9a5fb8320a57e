//! `limits.max_concurrent_connections` and the open-file limit: idle clients make room for new
//! ones, running requests never do, and the operator is told.

mod support;

use std::thread;
use std::time::{Duration, Instant};

use support::{Origin, Proxy, RawClient, Respond, edge, eventually};

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

#[test]
fn clients_that_are_idle_on_other_cores_make_room_as_well() {
    const MAX: usize = 32;
    let proxy = Proxy::start(&limited(16, MAX, RESPOND));
    let mut idle = idle_clients(&proxy, MAX);
    let started = Instant::now();
    let mut new = idle_clients(&proxy, MAX / 2);
    println!("{} were served after {:?}", new.len(), started.elapsed());
    let mut closed = 0;
    for client in &mut idle {
        let answer = client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        closed += usize::from(answer.and_then(|()| client.try_read_response_to("GET")).is_err());
    }
    // Two cores that want room at once may each be given it.
    assert!((MAX / 2..MAX).contains(&closed), "{closed} were closed for {}", new.len());
    for client in &mut new {
        assert_eq!(client.get("/").text(), "hi");
    }
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
    let slow = Respond::text("slow").after(Duration::from_millis(700));
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
