//! Upstream connections: what a maximum means however many cores there are, who waits and who is
//! refused, when kept connections are used, recalled and closed, and which endpoint gets a request.

mod support;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use support::http2_client::{CANCEL, reset};
use support::{
    After, Block, Gate, Http2Client, Json, Origin, Proxy, RawClient, Respond, edge, eventually,
    nobody,
};

/// One route to cluster `a` with these endpoints; `pool` and `more` are TOML lines.
fn cluster(cores: usize, endpoints: &[String], pool: &str, more: &str) -> String {
    let endpoints = endpoints.join(", ");
    edge(&format!(
        "[[routes]]\nname = \"all\"\ncluster = \"a\"\n\
         [clusters.a]\nendpoints = [{endpoints}]\n[clusters.a.pool]\n{pool}\n{more}\n"
    ))
    .replacen("cores = 1", &format!("cores = {cores}"), 1)
}

fn endpoint(address: SocketAddr) -> String {
    format!("{{ address = \"{address}\" }}")
}

fn pool_of(cores: usize, origin: &Origin, pool: &str) -> String {
    cluster(cores, &[endpoint(origin.address())], pool, "")
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The most of something that there was at once.
#[derive(Default)]
struct Open {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Open {
    fn enter(self: &Arc<Self>) -> Opened {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Opened(Arc::clone(self))
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

struct Opened(Arc<Open>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An origin that answers each request after `delay`, and with every connection that it gets counts
/// those of which no end has arrived: all of them were open at that moment, whenever their
/// threads run.
fn counting_origin(delay: Duration) -> (Origin, Arc<AtomicUsize>) {
    let most = Arc::new(AtomicUsize::new(0));
    let open: Mutex<Vec<TcpStream>> = Mutex::default();
    let seen = Arc::clone(&most);
    let origin = Origin::connections(move |mut stream, _| {
        stream.set_nonblocking(true).expect("a socket can be");
        {
            let mut open = open.lock().expect("no script panics");
            open.push(stream.try_clone().expect("descriptors are left"));
            open.retain(|stream| !has_ended(stream));
            seen.fetch_max(open.len(), Ordering::SeqCst);
        }
        while read_request(&mut stream) {
            thread::sleep(delay);
            if stream.write_all(OK).is_err() {
                return;
            }
        }
    });
    (origin, most)
}

fn has_ended(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// Reads one request without a body from a socket that does not block; false at the end.
fn read_request(stream: &mut TcpStream) -> bool {
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    while support::request_length(&received).is_none() {
        match stream.read(&mut chunk) {
            Ok(0) => return false,
            Ok(count) => received.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_micros(300));
            }
            Err(_) => return false,
        }
    }
    true
}

/// Runs `count` clients at once, each on its own connection and thread.
fn at_once<T: Send>(count: usize, client: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(count);
    let (barrier, client) = (&barrier, &client);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| {
                scope.spawn(move || {
                    barrier.wait();
                    client(number)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("a client does not panic")).collect()
    })
}

#[test]
fn the_maximum_is_the_processs_and_no_core_starves() {
    let (origin, most) = counting_origin(Duration::from_millis(2));
    let proxy = Proxy::start(&pool_of(16, &origin, "max_connections = 5\nqueue_timeout = \"25s\""));
    let answers: [AtomicUsize; 64] = std::array::from_fn(|_| AtomicUsize::new(0));
    let served = || -> Vec<usize> { answers.iter().map(|a| a.load(Ordering::SeqCst)).collect() };
    // Fair within reason: nobody gets less than a tenth of an even share. The scheduler of a busy
    // machine is less fair than that for a while, so it may take some time to show.
    let is_fair = |served: &[usize]| {
        served.iter().min().is_some_and(|least| least * 64 * 10 >= served.iter().sum())
    };
    let begin = Instant::now();
    let goes_on = || match begin.elapsed().as_secs() {
        0..3 => true,
        3..25 => !is_fair(&served()),
        _ => false,
    };
    at_once(64, |number| {
        let mut client = proxy.client();
        while goes_on() {
            let response = client.get("/");
            assert_eq!(response.status, 200, "{response:?}");
            answers[number].fetch_add(1, Ordering::SeqCst);
        }
    });
    assert_eq!(most.load(Ordering::SeqCst), 5, "the maximum is used, and not exceeded");
    let (served, total) = (served(), served().iter().sum::<usize>());
    assert!(is_fair(&served), "somebody starved: {served:?}");
    // A slot that nobody is woken for lies idle until the queue's timeout.
    assert!(total > 200, "slots lie idle: {total} answers");
    assert!(origin.connections_accepted() < total, "connections are not used again");
    assert_eq!(proxy.client().get("/").status, 200);
}

/// Requests of each core so far, as `GET /admin/cores` says.
fn requests_of_cores(proxy: &Proxy) -> Vec<u64> {
    let page = Json::parse(proxy.admin_get("/admin/cores").text());
    page.list("cores").iter().map(|core| core.number("requests") as u64).collect()
}

/// `count` clients that one core serves, and the others that had to be opened to find them, by the
/// core that counts their requests. `/where` must be answered without the pool.
fn clients_of_one_core(proxy: &Proxy, count: usize) -> (Vec<RawClient>, Vec<RawClient>) {
    let mut before = requests_of_cores(proxy);
    let mut clients: Vec<Vec<RawClient>> = before.iter().map(|_| Vec::new()).collect();
    // Sooner or later one core has so many, however evenly they are spread.
    loop {
        let mut client = proxy.client();
        assert_eq!(client.get("/where").text(), "here");
        let mut after = Vec::new();
        assert!(eventually(|| {
            after = requests_of_cores(proxy);
            after != before
        }));
        let served = after.iter().zip(&before).position(|(after, before)| after > before);
        let core = served.expect("requests are never taken back");
        before = after;
        clients[core].push(client);
        if clients[core].len() == count {
            let hot = std::mem::take(&mut clients[core]);
            return (hot, clients.into_iter().flatten().collect());
        }
    }
}

#[test]
fn one_hot_core_may_use_the_whole_maximum() {
    let (origin, most) = counting_origin(Duration::from_secs(1));
    let route =
        "[[routes]]\nname = \"where\"\npaths = [\"/where\"]\nrespond = { body = \"here\" }\n";
    let pool = "max_connections = 8\nqueue_timeout = \"25s\"";
    let toml = cluster(16, &[endpoint(origin.address())], pool, route);
    let proxy = Proxy::start(&toml);
    let (mut hot, mut others) = clients_of_one_core(&proxy, 8);
    assert!(others.len() >= 8, "{} clients on {} cores", others.len() + 8, 16);
    let before = requests_of_cores(&proxy);
    for client in &mut hot {
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for client in &mut hot {
        assert_eq!(client.read_response().status, 200);
    }
    assert_eq!(most.load(Ordering::SeqCst), 8, "of one core's requests so many went on at once");
    assert_eq!(origin.connections_accepted(), 8);
    assert!(eventually(|| {
        let after = requests_of_cores(&proxy);
        let busy: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        busy.contains(&8) && busy.iter().sum::<u64>() == 8
    }));
    // The same core is busy again when the others want their part: the maximum stays.
    let mut waiting: Vec<_> = hot.iter_mut().chain(others.iter_mut().take(16)).collect();
    for client in &mut waiting {
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for client in waiting {
        assert_eq!(client.read_response().status, 200);
    }
    assert_eq!(most.load(Ordering::SeqCst), 8, "the maximum is not exceeded");
}

#[test]
fn one_core_alone_uses_the_maximum_and_not_one_more() {
    let (origin, most) = counting_origin(Duration::from_millis(20));
    let proxy = Proxy::start(&pool_of(1, &origin, "max_connections = 3"));
    let five = |_| {
        let mut client = proxy.client();
        (0..5).map(|_| client.get("/").status).collect::<Vec<_>>()
    };
    let statuses = at_once(12, five);
    assert!(statuses.iter().flatten().all(|&status| status == 200), "{statuses:?}");
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(origin.connections_accepted(), 3, "connections are kept, not opened per request");
}

#[test]
fn a_full_queue_refuses_with_503_and_says_when_to_come_back() {
    for cores in [1, 16] {
        // It answers once all have come that are to be refused.
        let all = Gate::new();
        let origin = Origin::start().on("GET /slow", Respond::text("x").behind(&all));
        let pool = "max_connections = 1\nmax_pending = 2\nqueue_timeout = \"25s\"";
        let proxy = Proxy::start(&pool_of(cores, &origin, pool));
        let refusals = AtomicUsize::new(0);
        let responses = at_once(8, |_| {
            let response = proxy.client().get("/slow");
            if response.status == 503 && refusals.fetch_add(1, Ordering::SeqCst) + 1 == 5 {
                all.open();
            }
            response
        });
        let refused: Vec<_> = responses.iter().filter(|r| r.status == 503).collect();
        // One is served and two wait, however many cores there are.
        assert_eq!(refused.len(), 5, "of 8 were refused");
        for refusal in &refused {
            assert!(refusal.text().contains("OVERLOADED"), "{refusal:?}");
            assert!(refusal.header("retry-after").is_some(), "{refusal:?}");
        }
        assert!(responses.iter().all(|r| [200, 503].contains(&r.status)));
        assert_eq!(proxy.client().get("/").status, 404, "the origin's own answer");
    }
}

#[test]
fn who_waits_too_long_gets_503() {
    for cores in [1, 4] {
        let gone = Gate::new();
        let origin = Origin::start().on("GET /slow", Respond::text("x").behind(&gone));
        let pool = "max_connections = 1\nqueue_timeout = \"200ms\"";
        let proxy = Proxy::start(&pool_of(cores, &origin, pool));
        let mut first = proxy.client();
        first.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        origin.wait_for_requests(1);
        let late = proxy.client().get("/other");
        assert_eq!(late.status, 503, "{late:?}");
        assert!(late.text().contains("OVERLOADED"), "{late:?}");
        gone.open();
        assert_eq!(first.read_response().status, 200);
        // The one slot may be on its way from one core to another.
        assert!(eventually(|| proxy.client().get("/other").status == 404));
    }
}

#[test]
fn whoever_leaves_the_queue_makes_room_and_is_not_asked_for() {
    let gate = Gate::new();
    let origin = Origin::start().on("GET /slow", Respond::text("x").behind(&gate));
    let pool = "max_connections = 1\nmax_pending = 1\nqueue_timeout = \"25s\"";
    let here = "[[routes]]\nname = \"here\"\npaths = [\"/here\"]\necho = true\n[[routes]]\n";
    let proxy = Proxy::start(&pool_of(1, &origin, pool).replacen("[[routes]]\n", here, 1));
    let waiting =
        |count| eventually(|| proxy.metric("tls_proxy_upstream_waiting{cluster=\"a\"}") == count);
    let mut first = proxy.client();
    first.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    let mut streams = Http2Client::open(proxy.address("edge"));
    for _ in 0..3 {
        let taken_back = streams.begin(&Block::request("POST", "/taken-back"));
        assert!(waiting(Some(1.0)), "{}", proxy.metrics());
        streams.send(reset(taken_back, CANCEL));
        assert!(waiting(Some(0.0)), "{}", proxy.metrics());
    }
    // It has an answer that it has not read: its end is a reset.
    let mut gone = proxy.client();
    gone.send("GET /here HTTP/1.1\r\nHost: a\r\n\r\n");
    gone.send("POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
    assert!(waiting(Some(1.0)), "{}", proxy.metrics());
    gone.close();
    assert!(waiting(Some(0.0)), "{}", proxy.metrics());
    // One that has said all, and more than that, waits.
    let mut stays = proxy.client();
    stays.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    stays.half_close();
    assert!(waiting(Some(1.0)), "{}", proxy.metrics());
    gate.open();
    assert_eq!(first.read_response().status, 200);
    assert_eq!([stays.read_response().status, stays.read_response().status], [404, 404]);
    let asked = origin.requests();
    let asked: Vec<_> = asked.iter().map(|request| request.method_and_target()).collect();
    assert_eq!(asked, ["GET /slow", "GET /1", "GET /2"]);
    assert_eq!(streams.get("/3").status, 404);
    let failed = "tls_proxy_failures_total{reason=\"client_closed\",side=\"client\"}";
    assert!(eventually(|| proxy.metric(failed) >= Some(4.0)), "{}", proxy.metrics());
}

/// Clients of different cores: each of the first four connections lands on its own.
fn clients_of_all_cores(proxy: &Proxy, cores: usize) -> Vec<RawClient> {
    for _ in 0..20 {
        let clients: Vec<RawClient> = (0..4 * cores).map(|_| proxy.client()).collect();
        let mut of_cores = Vec::new();
        let all = eventually(|| {
            let page = Json::parse(proxy.admin_get("/admin/cores").text());
            of_cores = page.list("cores").iter().map(|core| core.number("connections")).collect();
            of_cores.iter().sum::<f64>() as usize >= clients.len()
        });
        if all && of_cores.iter().all(|&connections| connections > 0.0) {
            return clients;
        }
    }
    panic!("no core of {cores} is left out");
}

#[test]
fn a_freed_slot_goes_to_who_waits_on_another_core_at_once() {
    let origin =
        Origin::start().on("GET /slow", Respond::text("x").after(Duration::from_millis(300)));
    let pool = "max_connections = 1\nqueue_timeout = \"25s\"";
    let proxy = Proxy::start(&pool_of(8, &origin, pool));
    let mut clients = clients_of_all_cores(&proxy, 8);
    let started = Instant::now();
    for client in clients.iter_mut().take(8) {
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for client in clients.iter_mut().take(8) {
        assert_eq!(client.read_response().status, 200);
    }
    // 8 × 0.3 s one after the other; a lost wake-up would cost the queue's timeout.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(eventually(|| origin.connections_open() <= 1));
}

#[test]
fn an_idle_connection_of_one_core_is_recalled_for_another() {
    let origin = Origin::start().on("GET /", Respond::text("x"));
    let pool = "max_connections = 1\nidle_timeout = \"60s\"\nqueue_timeout = \"25s\"";
    let proxy = Proxy::start(&pool_of(8, &origin, pool));
    let started = Instant::now();
    for client in &mut clients_of_all_cores(&proxy, 8) {
        assert_eq!(client.get("/").text(), "x");
    }
    // Each of the eight cores needed the connection that another one kept.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(origin.connections_accepted() >= 8);
}

#[test]
fn slots_are_all_given_back_whatever_happens_to_their_exchanges() {
    let origin = Origin::raw(|stream, request, connection| {
        if request.starts_with(b"GET /reset") {
            return After::Reset;
        }
        if request.starts_with(b"GET /slow") {
            thread::sleep(Duration::from_secs(1));
        }
        let _ = stream.write_all(OK);
        if connection % 3 == 0 { After::Close } else { After::KeepOpen }
    });
    let toml = cluster(
        4,
        &[endpoint(origin.address())],
        "max_connections = 2\nqueue_timeout = \"25s\"",
        "[clusters.a.timeouts]\nfirst_byte = \"500ms\"",
    );
    let proxy = Proxy::start(&toml);
    at_once(16, |number| {
        for round in 0..3 {
            let mut client = proxy.client();
            let target = ["/", "/reset", "/slow"][(number + round) % 3];
            client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            if number % 4 == 0 {
                continue; // gone without waiting
            }
            let response = client.try_read_response_to("GET");
            assert!(response.is_ok(), "{target}: {response:?}");
        }
    });
    // All slots are free again: two at once are served, at once.
    for _ in 0..4 {
        assert_eq!(at_once(2, |_| proxy.client().get("/").status), [200, 200]);
    }
}

#[test]
fn an_idle_connection_is_closed_when_its_time_is_over() {
    let origin = Origin::start().on("GET /", Respond::text("x"));
    let proxy = Proxy::start(&pool_of(1, &origin, "idle_timeout = \"1s\""));
    assert_eq!(proxy.client().get("/").text(), "x");
    assert_eq!(origin.connections_open(), 1);
    assert!(eventually(|| origin.connections_open() == 0), "it stays open");
    assert_eq!(proxy.client().get("/").text(), "x");
    assert_eq!(origin.connections_accepted(), 2);
}

#[test]
fn the_endpoints_own_keep_alive_timeout_is_respected() {
    let origin = Origin::start()
        .on("GET /", Respond::text("x").header("Keep-Alive", "timeout=2"))
        .on("GET /short", Respond::text("x").header("Keep-Alive", "timeout=1, max=9"));
    let proxy = Proxy::start(&pool_of(1, &origin, "idle_timeout = \"60s\""));
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "x");
    assert_eq!(client.get("/").text(), "x");
    assert_eq!(origin.connections_accepted(), 1);
    assert!(eventually(|| origin.connections_open() == 0), "kept longer than promised");
    // A promise of a second leaves no time to use it safely.
    assert_eq!(client.get("/short").text(), "x");
    assert_eq!(client.get("/short").text(), "x");
    assert_eq!(origin.connections_accepted(), 3);
}

/// How many the proxy has, as the admin port says.
fn connections_to_a(proxy: &Proxy) -> f64 {
    let page = Json::parse(proxy.admin_get("/admin/clusters/a").text());
    page.list("endpoints")[0].number("connections")
}

#[test]
fn a_kept_connection_that_the_endpoint_has_closed_is_not_used_again() {
    let origin =
        Origin::start().on("GET /", Respond::text("x")).on("POST /", Respond::text("posted"));
    let proxy = Proxy::start(&pool_of(1, &origin, ""));
    let mut client = proxy.client();
    for round in 1..=20 {
        assert_eq!(client.get("/").text(), "x");
        origin.close_connections();
        assert!(eventually(|| connections_to_a(&proxy) == 0.0), "an end is not noticed");
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
        let response = client.read_response();
        assert_eq!((response.status, response.text()), (200, "posted"), "round {round}");
    }
    assert_eq!(origin.requests().len(), 40, "each request arrived once");
}

#[test]
fn an_endpoint_that_closes_after_each_answer_without_saying_so_costs_no_request() {
    let origin = Origin::raw(|stream, _, _| {
        let _ = stream.write_all(OK);
        After::Close
    });
    let proxy = Proxy::start(&pool_of(1, &origin, ""));
    let mut client = proxy.client();
    for _ in 0..200 {
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn the_connection_limit_is_the_processs_and_the_rest_waits() {
    const MAX: usize = 20;
    let serving = Arc::new(Open::default());
    let counted = Arc::clone(&serving);
    let origin = Origin::raw(move |stream, _, _| {
        let inside = counted.enter();
        eventually(|| counted.most() > MAX / 2);
        thread::sleep(Duration::from_millis(150));
        drop(inside); // with the answer its client may leave, and the next one come
        let _ = stream.write_all(OK);
        After::KeepOpen
    });
    let limits = format!("[limits]\nmax_concurrent_connections = {MAX}");
    let toml = cluster(16, &[endpoint(origin.address())], "", &limits);
    let proxy = Proxy::start(&toml);
    // Each client has one connection and leaves with its answer: as many requests run as
    // connections are open.
    let statuses = at_once(100, |_| proxy.client().get("/").status);
    assert!(statuses.iter().all(|&status| status == 200), "{statuses:?}");
    assert!(serving.most() <= MAX, "{} connections were served at once", serving.most());
    assert!(serving.most() > MAX / 2, "only {} were", serving.most());
}

/// Origins that say who they are.
fn named(names: &[&str]) -> Vec<Origin> {
    names.iter().map(|name| Origin::start().on("GET /", Respond::text(name))).collect()
}

fn order(proxy: &Proxy, count: usize) -> String {
    let mut client = proxy.client();
    (0..count).map(|_| client.get("/").text().to_owned()).collect()
}

#[test]
fn weights_share_out_smoothly() {
    let origins = named(&["a", "b", "c"]);
    let weighted = |(origin, weight): (&Origin, u32)| {
        format!("{{ address = \"{}\", weight = {weight} }}", origin.address())
    };
    let endpoints: Vec<String> = origins.iter().zip([3, 2, 1]).map(weighted).collect();
    let proxy = Proxy::start(&cluster(1, &endpoints, "", ""));
    assert_eq!(order(&proxy, 12), "abacbaabacba");
}

#[test]
fn equal_endpoints_take_turns() {
    let origins = named(&["a", "b", "c"]);
    let endpoints: Vec<String> = origins.iter().map(|o| endpoint(o.address())).collect();
    let proxy = Proxy::start(&cluster(1, &endpoints, "", ""));
    assert_eq!(order(&proxy, 9), "abcabcabc");
}

#[test]
fn an_endpoint_of_weight_0_gets_nothing() {
    let origins = named(&["a", "b"]);
    let endpoints = [
        format!("{{ address = \"{}\", weight = 0 }}", origins[0].address()),
        endpoint(origins[1].address()),
    ];
    let proxy = Proxy::start(&cluster(1, &endpoints, "", ""));
    assert_eq!(order(&proxy, 6), "bbbbbb");
    drop(origins);
    let refused = proxy.client().get("/");
    assert_eq!(refused.status, 502, "not a wait for the endpoint that takes none: {refused:?}");
}

#[test]
fn when_one_endpoint_refuses_the_next_is_tried() {
    let origin = Origin::start().on("GET /", Respond::text("alive"));
    let endpoints = [endpoint(nobody()), endpoint(origin.address())];
    let proxy = Proxy::start(&cluster(1, &endpoints, "", ""));
    let mut client = proxy.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").text(), "alive");
    }
    // A request with a body too: nothing of it was sent to the first.
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.read_response().status, 404);
    assert_eq!(origin.requests().len(), 11);
}

#[test]
fn two_dead_endpoints_do_not_hide_the_one_alive_from_anybody() {
    let origin = Origin::start().on("GET /", Respond::text("alive"));
    let endpoints = [endpoint(nobody()), endpoint(nobody()), endpoint(origin.address())];
    let proxy = Proxy::start(&cluster(2, &endpoints, "", ""));
    let answers = at_once(16, |_| {
        let mut client = proxy.client();
        (0..20).filter(|_| client.get("/").text() != "alive").count()
    });
    assert_eq!(answers.iter().sum::<usize>(), 0, "{answers:?}");
}

#[test]
fn when_every_endpoint_refuses_the_answer_is_502() {
    let endpoints = [endpoint(nobody()), endpoint(nobody())];
    let proxy = Proxy::start(&cluster(1, &endpoints, "", ""));
    let response = proxy.client().get("/");
    assert_eq!(response.status, 502);
    assert!(response.text().contains("BACKEND_UNREACHABLE"), "{response:?}");
}

#[test]
fn a_name_is_an_endpoint_too() {
    let origin = Origin::start().on("GET /", Respond::text("by name"));
    let endpoint = format!("{{ address = \"localhost:{}\" }}", origin.address().port());
    let proxy = Proxy::start(&cluster(2, &[endpoint], "", ""));
    for _ in 0..5 {
        assert_eq!(proxy.client().get("/").text(), "by name");
    }
}

#[test]
fn a_name_that_does_not_resolve_stops_neither_the_start_nor_other_clusters() {
    let origin = Origin::start().on("GET /", Respond::text("alive"));
    let toml = edge(&format!(
        "[[routes]]\nname = \"lost\"\npaths = [\"/lost/*\"]\ncluster = \"lost\"\n\
         [[routes]]\nname = \"all\"\ncluster = \"alive\"\n\
         [clusters.lost]\nendpoints = [{{ address = \"no-such-host.invalid:80\" }}]\n\
         [clusters.alive]\nendpoints = [{}]\n",
        endpoint(origin.address())
    ));
    let proxy = Proxy::start(&toml);
    let mut client = proxy.client();
    let lost = client.get("/lost/x");
    assert_eq!(lost.status, 503, "{lost:?}");
    assert!(lost.text().contains("NO_HEALTHY_BACKEND"), "{lost:?}");
    assert_eq!(client.get("/").text(), "alive");
    proxy.wait_for_log("no-such-host.invalid");
}

#[test]
fn a_connection_that_the_endpoint_never_accepts_is_given_up_in_time() {
    // A listener with a full queue drops what else comes, so a connection is never established.
    let listener = TcpListener::bind("127.0.0.1:0").expect("the kernel has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let mut waiting = Vec::new();
    // One that fails may have been late; when no other succeeds either, the queue is full.
    let mut failed = 0;
    while failed < 3 {
        match TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            Ok(stream) => waiting.push(stream),
            Err(_) => failed += 1,
        }
    }
    let timeouts = "[clusters.a.timeouts]\nconnect = \"200ms\"";
    let proxy = Proxy::start(&cluster(1, &[endpoint(address)], "", timeouts));
    let started = Instant::now();
    let response = proxy.client().get("/");
    assert_eq!(response.status, 504, "{response:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
}
