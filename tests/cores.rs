//! Cores as an operator sees them: how many, where they run, what each of them has, and that a
//! process with nothing to do does nothing.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::Duration;

use support::{
    Http2Client, Json, Origin, Pki, Proxy, RawClient, Respond, SecureClient, TempDir, edge,
    eventually, program, sum_of, unused_port,
};

const RESPOND: &str = "[[routes]]\nname = \"all\"\nrespond = { status = 200, body = \"hi\" }\n";

fn with_cores(cores: usize, rest: &str) -> String {
    edge(rest).replacen("cores = 1", &format!("cores = {cores}"), 1)
}

/// Name and `status` file of every thread.
fn threads(proxy: &Proxy) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", proxy.pid())).expect("it runs");
    let read = |path: std::path::PathBuf| fs::read_to_string(path).unwrap_or_default();
    tasks
        .map(|task| task.expect("procfs lists its entries").path())
        .map(|path| (read(path.join("comm")).trim().to_owned(), read(path.join("status"))))
        .filter(|(_, status)| !status.is_empty()) // it has ended meanwhile
        .collect()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

/// Where each data core may run: `core-0` → `0`.
fn placement(proxy: &Proxy) -> BTreeMap<String, String> {
    threads(proxy)
        .into_iter()
        .filter(|(name, _)| name.starts_with("core-"))
        .map(|(name, status)| (name, field(&status, "Cpus_allowed_list").to_owned()))
        .collect()
}

/// The CPUs of this process, as the kernel lists them, one by one.
fn cpus() -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").expect("procfs is there");
    let ranges = field(&status, "Cpus_allowed_list").split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<usize>().expect("CPUs are numbers");
        number(first)..=number(last)
    });
    ranges.flatten().map(|cpu| cpu.to_string()).collect()
}

/// Open connections of each core, as `GET /admin/cores` says.
fn connections(proxy: &Proxy) -> Vec<u64> {
    let page = Json::parse(proxy.admin_get("/admin/cores").text());
    page.list("cores").iter().map(|core| core.number("connections") as u64).collect()
}

/// A stand-in for the binary that runs it on the first CPU only.
fn on_one_cpu(directory: &TempDir) -> std::path::PathBuf {
    let taskset = program("taskset");
    let cpu = &cpus()[0];
    let text = format!(
        "#!/bin/sh\nexec {} -c {cpu} {} \"$@\"\n",
        taskset.display(),
        Proxy::binary().display()
    );
    let script = directory.write("corelane", text);
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    script
}

#[test]
fn more_cores_than_cpus_work_with_a_warning_and_share_the_cpus() {
    let proxy = Proxy::start(&with_cores(16, RESPOND));
    proxy.wait_for_log("16 cores share");
    // A thread gives itself its name.
    assert!(eventually(|| placement(&proxy).len() == 16), "{:?}", placement(&proxy));
    let placement = placement(&proxy);
    let expected: Vec<String> = (0..16).map(|core| format!("core-{core}")).collect();
    let mut names: Vec<&String> = placement.keys().collect();
    names.sort_by_key(|name| name[5..].parse::<usize>().expect("a number follows core-"));
    assert_eq!(names, expected.iter().collect::<Vec<_>>());
    let everywhere = fs::read_to_string("/proc/self/status").expect("procfs is there");
    for (name, cpus) in &placement {
        assert_eq!(cpus, field(&everywhere, "Cpus_allowed_list"), "{name} is pinned");
    }
    for _ in 0..100 {
        assert_eq!(proxy.client().get("/").text(), "hi");
    }
}

#[test]
fn cores_that_have_a_cpu_each_are_pinned_to_it() {
    let cpus = cpus();
    let proxy = Proxy::start(&with_cores(cpus.len(), RESPOND));
    let pinned: BTreeMap<String, String> =
        cpus.iter().enumerate().map(|(core, cpu)| (format!("core-{core}"), cpu.clone())).collect();
    assert!(eventually(|| placement(&proxy) == pinned), "{:?}", placement(&proxy));
    assert!(!proxy.log().contains("share"), "{}", proxy.log());
}

#[test]
fn the_default_is_a_core_for_each_cpu_and_the_flag_overrides_the_file() {
    let proxy = Proxy::start(&with_cores(0, RESPOND));
    assert_eq!(placement(&proxy).len(), cpus().len());
    let directory = TempDir::new();
    let file = directory.write("corelane.toml", with_cores(1, RESPOND)).display().to_string();
    let proxy = Proxy::start_command(&["run", "--config", &file, "--cores", "3"]);
    assert_eq!(placement(&proxy).len(), 3);
    assert_eq!(proxy.client().get("/").text(), "hi");
}

#[test]
fn the_affinity_mask_that_the_process_was_given_is_respected() {
    let directory = TempDir::new();
    let script = on_one_cpu(&directory);
    let first = cpus()[0].clone();
    let proxy = Proxy::start_binary(&script, &with_cores(0, RESPOND));
    let expected = BTreeMap::from([("core-0".to_owned(), first.clone())]);
    assert!(eventually(|| placement(&proxy) == expected), "{:?}", placement(&proxy));
    let proxy = Proxy::start_binary(&script, &with_cores(2, RESPOND));
    proxy.wait_for_log("2 cores share 1 CPU");
    for (name, status) in threads(&proxy) {
        assert_eq!(field(&status, "Cpus_allowed_list"), first, "{name}");
    }
    assert_eq!(proxy.client().get("/").text(), "hi");
}

/// Opens `count` connections that stay, and sees what each core has of them.
fn spread(cores: usize, count: usize) -> Vec<u64> {
    let proxy = Proxy::start(&with_cores(cores, RESPOND));
    let mut clients: Vec<RawClient> = (0..count).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "hi");
    }
    let spread = connections(&proxy);
    assert_eq!(spread.iter().sum::<u64>(), count as u64, "{spread:?}");
    drop(clients);
    assert!(eventually(|| connections(&proxy).iter().sum::<u64>() == 0));
    assert_eq!(proxy.client().get("/").text(), "hi");
    spread
}

#[test]
fn sixteen_long_lived_connections_leave_none_of_four_cores_idle() {
    for _ in 0..3 {
        let spread = spread(4, 16);
        assert!(spread.iter().all(|&connections| (2..=7).contains(&connections)), "{spread:?}");
    }
}

/// What each of so many cores has answered.
fn requests(proxy: &Proxy, cores: usize) -> Vec<u64> {
    let page = proxy.metrics();
    let series = |core| format!("tls_proxy_core_requests_total{{core=\"{core}\"}}");
    (0..cores).map(|core| total(&page, &series(core))).collect()
}

#[test]
fn sixteen_long_lived_connections_of_http2_leave_none_of_four_cores_idle() {
    let pki = Pki::new();
    pki.authority("ca");
    pki.sign("ca", "www", "/CN=www", "DNS:localhost");
    let (cert, key) = (pki.path("www.pem"), pki.path("www.key"));
    let tls = format!("tls = {{ certificates = [{{ cert = {cert:?}, key = {key:?} }}] }}\n");
    for tls in ["", tls.as_str()] {
        let proxy = Proxy::start(&with_cores(4, &format!("{tls}{RESPOND}")));
        let mut clients: Vec<Http2Client> = (0..16)
            .map(|_| match tls {
                "" => Http2Client::open(proxy.address("edge")),
                _ => {
                    let config = SecureClient::config(&pki.path("ca.pem"));
                    Http2Client::connect_secure(proxy.address("edge"), "localhost", config)
                        .greet(&[])
                }
            })
            .collect();
        for _ in 0..4 {
            for client in &mut clients {
                assert_eq!(client.get("/").text(), "hi");
            }
        }
        let spread = connections(&proxy);
        assert!(spread.iter().all(|&connections| (2..=7).contains(&connections)), "{spread:?}");
        // Each of them answers all that comes on its own.
        let expected: Vec<u64> = spread.iter().map(|connections| connections * 4).collect();
        assert!(eventually(|| requests(&proxy, 4) == expected), "{spread:?}");
    }
}

#[test]
fn sixty_four_long_lived_connections_leave_none_of_sixteen_cores_idle() {
    for _ in 0..3 {
        let spread = spread(16, 64);
        assert!(spread.iter().all(|&connections| connections > 0), "{spread:?}");
    }
}

/// A core may accept before its neighbour has its first plan: what it sends there must wait.
#[test]
fn connections_that_come_while_the_cores_are_still_starting_are_served() {
    for _ in 0..5 {
        let proxy = Proxy::start(&with_cores(16, RESPOND));
        let mut clients: Vec<RawClient> = (0..100).map(|_| proxy.client()).collect();
        for client in &mut clients {
            assert_eq!(client.get("/").text(), "hi");
        }
        assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
    }
}

#[test]
fn everything_that_is_bound_is_announced_by_address_and_name() {
    let second = "[[listeners]]\nname = \"second\"\nbind = \"127.0.0.1:0\"\n";
    let proxy = Proxy::start(&with_cores(2, &format!("{second}{RESPOND}")));
    for name in ["edge", "second", "metrics", "admin"] {
        let line = format!("listening on {} as {name}", proxy.address(name));
        proxy.wait_for_log(&line);
        assert!(proxy.port(name) > 0);
    }
    for name in ["edge", "second"] {
        assert_eq!(proxy.client_of(name).get("/").text(), "hi");
    }
}

#[test]
fn all_of_ipv4_and_all_of_ipv6_may_have_the_same_port() {
    let port = unused_port();
    let listener = |name, ip| format!("[[listeners]]\nname = \"{name}\"\nbind = \"{ip}:{port}\"\n");
    let own = "metrics = { bind = \"127.0.0.1:0\" }\nadmin = { bind = \"127.0.0.1:0\" }\n";
    let (v4, v6) = (listener("v4", "0.0.0.0"), listener("v6", "[::]"));
    for both in [format!("{v4}{v6}"), format!("{v6}{v4}")] {
        let _proxy = Proxy::start(&format!("cores = 2\n{own}{both}{RESPOND}"));
        for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
            let mut client = RawClient::connect(address.parse().expect("an address"));
            assert_eq!(client.get("/").text(), "hi", "{address}");
        }
    }
    // Alone, the one of IPv6 takes nothing of IPv4.
    let proxy = Proxy::start(&format!("{own}{v6}{RESPOND}"));
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    assert_eq!(proxy.client_of("v6").get("/").text(), "hi");
}

#[test]
fn an_address_in_use_ends_the_start_and_the_message_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("the kernel has a free port");
    let address = taken.local_addr().expect("a bound socket has an address");
    let listener = format!("[[listeners]]\nname = \"edge\"\nbind = \"{address}\"\n");
    let directory = TempDir::new();
    let none = "metrics = { enabled = false }\nadmin = { enabled = false }\n";
    let metrics = format!("metrics = {{ bind = \"{address}\" }}\nadmin = {{ enabled = false }}\n");
    let free = "[[listeners]]\nname = \"edge\"\nbind = \"127.0.0.1:0\"\n";
    for (name, toml) in [
        ("edge", format!("{none}{listener}{RESPOND}")),
        ("metrics", format!("{metrics}{free}{RESPOND}")),
    ] {
        let file = directory.write("corelane.toml", toml).display().to_string();
        let output = Proxy::command(&["run", "--config", &file]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let expected = format!("cannot listen on {address} as {name}: ");
        assert!(stderr.contains(&expected), "{stderr}");
        assert!(stderr.contains("stop it or choose another port"), "{stderr}");
    }
}

fn total(page: &str, series: &str) -> u64 {
    sum_of(page, series).unwrap_or_else(|| panic!("no {series} in {page}")) as u64
}

#[test]
fn scrapes_at_the_same_time_all_get_the_figures_of_every_core() {
    const CORES: usize = 8;
    const SCRAPERS: usize = 16;
    let proxy = Proxy::start(&with_cores(CORES, RESPOND));
    let done = "tls_proxy_request_duration_seconds_count";
    // Before, each scraper makes a request: what it asks for then must have that one.
    let scrape = || {
        let mut most = [0; 2];
        for _ in 0..10 {
            let before = total(&proxy.metrics(), done);
            assert_eq!(proxy.client().get("/").text(), "hi");
            let page = proxy.metrics();
            assert!(total(&page, done) > before, "its own request is missing");
            for (series, most) in [done, "tls_proxy_requests_total"].iter().zip(&mut most) {
                let now = total(&page, series);
                assert!(now >= *most, "{series} went from {most} to {now}");
                *most = now;
            }
            for core in 0..CORES {
                total(&page, &format!("tls_proxy_core_requests_total{{core=\"{core}\"}}"));
            }
            let cores = Json::parse(proxy.admin_get("/admin/cores").text());
            assert_eq!(cores.list("cores").len(), CORES);
        }
    };
    thread::scope(|scope| {
        for _ in 0..SCRAPERS {
            scope.spawn(scrape);
        }
    });
    let page = proxy.metrics();
    assert_eq!(total(&page, done), (SCRAPERS * 10) as u64);
    assert!(!proxy.log().contains("too busy"), "{}", proxy.log());
}

/// CPU time and context switches of all threads.
fn activity(proxy: &Proxy) -> (u64, BTreeMap<String, u64>) {
    let switches = |status: &str| {
        let count = |name| field(status, name).parse::<u64>().expect("a count");
        count("voluntary_ctxt_switches") + count("nonvoluntary_ctxt_switches")
    };
    let threads = threads(proxy).into_iter().map(|(name, status)| (name, switches(&status)));
    (proxy.cpu_ticks(), threads.collect())
}

#[test]
fn a_process_with_nothing_to_do_does_nothing() {
    let origin = Origin::start().on("GET /", Respond::text("x"));
    let cluster = format!(
        "[[routes]]\nname = \"all\"\ncluster = \"a\"\n[logging.access]\npath = \"access.log\"\n\
         [clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n\
         [clusters.a.pool]\nidle_timeout = \"1s\"\n",
        origin.address()
    );
    let proxy = Proxy::start(&with_cores(4, &cluster));
    let mut clients: Vec<RawClient> = (0..16).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "x");
    }
    // Long enough for the pools to be swept and the cores to have fallen asleep.
    thread::sleep(Duration::from_millis(7_500));
    let before = activity(&proxy);
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(activity(&proxy), before);
    // A core that is woken only to refuse something has the line of that to write.
    let mut client = proxy.client();
    client.send("no request\r\n\r\n");
    assert_eq!(client.read_response().status, 400);
    let log = || fs::read_to_string(proxy.directory().join("access.log")).unwrap_or_default();
    assert!(eventually(|| log().lines().count() == 17), "{}", log());
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "x");
    }
}
