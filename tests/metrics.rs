//! The metrics page of the real binary: what it counts, in which format, at which size, and what a
//! real Prometheus makes of it, of the alerts and of the dashboard.

mod support;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;

use support::{
    After, Json, Origin, Pki, Prometheus, Proxy, Respond, edge, eventually, nobody, promtool,
    sum_of,
};

/// Two clusters, of which one has nobody behind it.
fn routed(origin: &Origin, metrics: &str) -> String {
    let rest = format!(
        "[[routes]]\nname = \"orders\"\npaths = [\"/orders/*\"]\ncluster = \"orders\"\n\
         [[routes]]\nname = \"broken\"\npaths = [\"/broken\"]\ncluster = \"broken\"\n\
         [[routes]]\nname = \"hello\"\npaths = [\"/hello\"]\nrespond = {{ status = 200 }}\n\
         [clusters.orders]\nendpoints = [{{ address = \"{}\" }}]\n\
         [clusters.broken]\nendpoints = [{{ address = \"127.0.0.1:1\" }}]\n",
        origin.address()
    );
    edge(&rest).replacen("127.0.0.1:0\" }", &format!("127.0.0.1:0\"{metrics} }}"), 1)
}

fn origin() -> Origin {
    Origin::start()
        .on("GET /orders/1", Respond::text("one"))
        .on("GET /orders/bad", Respond::text("no").status("500 Internal Server Error"))
}

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";

#[test]
fn a_long_answer_is_counted_while_it_passes_and_once() {
    let (go_on, goes_on) = mpsc::channel::<()>();
    let goes_on = Mutex::new(goes_on);
    let origin = Origin::raw(move |stream, _, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n");
        for piece in 0..3 {
            if piece > 0 {
                let _ = goes_on.lock().unwrap().recv();
            }
            let _ = stream.write_all(&[b'x'; 1000]);
        }
        After::KeepOpen
    });
    let proxy = Proxy::start(&routed(&origin, ""));
    let mut client = proxy.client();
    client.send("GET /orders/1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let sent = |series: &str| proxy.metric(series).unwrap_or_default();
    let all = ["tls_proxy_bytes_out_total", "tls_proxy_route_bytes_out_total{route=\"orders\"}"];
    go_on.send(()).unwrap();
    for series in all {
        assert!(eventually(|| sent(series) > 2000.0), "{series} is {}", sent(series));
    }
    assert_eq!(sent("tls_proxy_requests_total"), 0.0, "it goes on");
    go_on.send(()).unwrap();
    let response = client.read_response();
    assert_eq!(response.body.len(), 3000);
    let total = (response.head.len() + 4 + response.body.len()) as f64;
    for series in all {
        assert!(eventually(|| sent(series) == total), "{series}: {}, {total}", sent(series));
    }
}

#[test]
fn attempts_that_were_followed_by_another_are_counted_by_reason() {
    let origin = origin();
    let dead = format!("endpoints = [{{ address = \"{}\" }}, ", nobody());
    let proxy = Proxy::start(&routed(&origin, "").replacen("endpoints = [", &dead, 1));
    for _ in 0..4 {
        assert_eq!(proxy.client().get("/orders/1").text(), "one");
    }
    let retries = "tls_proxy_upstream_retries_total{cluster=\"orders\",reason=\"connect_refused\"}";
    let tried = proxy.metric(retries).unwrap_or_default();
    assert!((1.0..=4.0).contains(&tried), "{tried}");
    assert_eq!(proxy.metric("tls_proxy_backend_errors_total{backend=\"orders\"}"), None);
}

#[test]
fn an_exchange_counts_for_its_listener_route_cluster_and_endpoint() {
    let origin = origin();
    let proxy = Proxy::start(&routed(&origin, ""));
    let mut client = proxy.client();
    for target in ["/orders/1", "/orders/1", "/orders/bad", "/hello", "/broken", "/nowhere"] {
        client.get(target);
    }
    let page = proxy.metrics();
    let value = |series: &str| {
        sum_of(&page, series).unwrap_or_else(|| panic!("no {series} in\n{page}")) as u64
    };
    let endpoint = format!("cluster=\"orders\",endpoint=\"{}\"", origin.address());
    for (series, expected) in [
        ("tls_proxy_requests_total", 6),
        ("tls_proxy_requests_total{method=\"GET\",status=\"502\"}", 1),
        ("tls_proxy_listener_requests_total", 6),
        ("tls_proxy_listener_requests_total{listener=\"edge\",status=\"2xx\"}", 3),
        ("tls_proxy_listener_connections_total{listener=\"edge\"}", 1),
        ("tls_proxy_listener_connections_active{listener=\"edge\"}", 1),
        ("tls_proxy_route_requests_total", 6),
        ("tls_proxy_route_requests_total{route=\"orders\",status=\"2xx\"}", 2),
        ("tls_proxy_route_requests_total{route=\"orders\",status=\"5xx\"}", 1),
        ("tls_proxy_route_requests_total{route=\"hello\",status=\"2xx\"}", 1),
        ("tls_proxy_route_requests_total{route=\"broken\",status=\"5xx\"}", 1),
        ("tls_proxy_route_requests_total{route=\"(none)\",status=\"4xx\"}", 1),
        ("tls_proxy_route_request_duration_seconds_count{route=\"orders\"}", 3),
        ("tls_proxy_cluster_requests_total", 4),
        ("tls_proxy_cluster_queue_seconds_count{cluster=\"orders\"}", 3),
        ("tls_proxy_cluster_connect_seconds_count{cluster=\"orders\"}", 1),
        ("tls_proxy_cluster_first_byte_seconds_count{cluster=\"orders\"}", 3),
        ("tls_proxy_cluster_connect_seconds_count{cluster=\"broken\"}", 1),
        ("tls_proxy_cluster_first_byte_seconds_count{cluster=\"broken\"}", 0),
        ("tls_proxy_upstream_connections{cluster=\"orders\"}", 1),
        ("tls_proxy_upstream_connections{cluster=\"broken\"}", 0),
        ("tls_proxy_upstream_opened_total", 1),
        ("tls_proxy_upstream_reused_total{cluster=\"orders\"}", 2),
        ("connection_pool_connections{backend=\"orders\"}", 1),
        ("tls_proxy_backend_errors_total", 1),
        ("tls_proxy_backend_errors_total{backend=\"broken\",reason=\"connect_refused\"}", 1),
        ("http_errors_total", 2),
        (&format!("tls_proxy_endpoint_requests_total{{{endpoint},status=\"2xx\"}}"), 2),
        (&format!("tls_proxy_endpoint_connections{{{endpoint}}}"), 1),
        ("tls_proxy_endpoint_connect_failures_total", 1),
    ] {
        assert_eq!(value(series), expected, "{series}");
    }
    let bytes = value("tls_proxy_bytes_out_total");
    assert_eq!(value("tls_proxy_route_bytes_out_total"), bytes);
    assert_eq!(value("tls_proxy_listener_bytes_out_total"), bytes);
    drop(client);
    let open = || proxy.metric("tls_proxy_listener_connections_active");
    assert!(eventually(|| open() == Some(0.0)), "{:?}", open());
}

#[test]
fn the_process_tells_of_itself() {
    let proxy = Proxy::start(&routed(&origin(), ""));
    let page = proxy.metrics();
    let value = |name: &str| sum_of(&page, name).unwrap_or_else(|| panic!("no {name} in\n{page}"));
    assert!(value("process_cpu_seconds_total") > 0.0);
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!((5.0..1000.0).contains(&value("process_open_fds")));
    assert!(value("process_max_fds") > value("process_open_fds"));
    assert!(value("process_start_time_seconds") > 1.7e9);
    assert_eq!(value("tls_proxy_build_info"), 1.0);
}

#[test]
fn the_format_is_chosen_by_accept_and_the_page_is_where_it_is_configured() {
    let settings = ", path = \"/internal/m\", compat = false, buckets = [0.25, 1]";
    let proxy = Proxy::start(&routed(&origin(), settings));
    let get = |request: &str| {
        let mut client = proxy.client_of("metrics");
        client.send(request);
        client.read_response_to(request.split(' ').next().unwrap_or_default())
    };
    assert_eq!(get("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").status, 404);
    assert_eq!(
        get("POST /internal/m HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status,
        405
    );
    let head = get("HEAD /internal/m HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let text = get("GET /internal/m HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(!text.text().contains("\nhttp_"), "compat is off");
    assert!(text.text().contains("duration_seconds_bucket{le=\"0.25\"} 0\n"));
    let request = format!("GET /internal/m HTTP/1.1\r\nHost: a\r\nAccept: {OPEN_METRICS}\r\n\r\n");
    let open = get(&request);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.header("content-type"), Some(kind));
    assert!(open.text().contains("duration_seconds_bucket{le=\"1.0\"} 0\n"));
    assert!(open.text().ends_with("\n# EOF\n"));
    // Who does not know chunks gets none.
    let mut old = proxy.client_of("metrics");
    old.send("GET /internal/m HTTP/1.0\r\n\r\n");
    let old = String::from_utf8(old.read_to_close()).expect("the page is text");
    assert!(old.contains("\r\n\r\n# HELP tls_proxy_connections_total "), "{old}");
    // And a connection is kept for the next scrape.
    let mut kept = proxy.client_of("metrics");
    assert_eq!(kept.get("/internal/m").status, 200);
    assert_eq!(kept.get("/internal/m").status, 200);
}

#[test]
fn what_the_page_shows_is_what_is_explained() {
    let output = Proxy::command(&["explain", "metrics.names"]);
    let explained = String::from_utf8(output.stdout).expect("it is text");
    let known: BTreeSet<&str> = explained
        .lines()
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let page = Proxy::start(&routed(&origin(), "")).metrics();
    let shown: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
    assert_eq!(shown, known);
    for (expression, place) in shipped_expressions() {
        let words = expression.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
        for word in
            words.filter(|word| word.starts_with("tls_proxy_") || word.starts_with("process_"))
        {
            let family = word.strip_suffix("_bucket").unwrap_or(word);
            assert!(known.contains(family), "{place}: there is no metric {word}");
        }
    }
}

/// 1,000 routes, each to a cluster of its own.
fn a_thousand_routes(origin: &Origin, metrics: &str) -> String {
    let mut rest = String::new();
    for number in 0..1000 {
        rest += &format!(
            "[[routes]]\nname = \"r{number}\"\npaths = [\"/r{number}\"]\ncluster = \"c{number}\"\n\
             [clusters.c{number}]\nendpoints = [{{ address = \"{}\" }}]\n",
            origin.address()
        );
    }
    edge(&rest).replacen("cores = 1", "cores = 4", 1).replacen(
        "127.0.0.1:0\" }",
        &format!("127.0.0.1:0\"{metrics} }}"),
        1,
    )
}

/// Every counter of a page, by its series.
fn counters(page: &str) -> HashMap<&str, f64> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| {
            let name = series.split('{').next().unwrap_or_default();
            ["_total", "_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end))
        })
        .map(|(series, value)| (series, value.parse().expect("a number")))
        .collect()
}

#[test]
fn a_thousand_routes_on_four_cores_are_complete_while_traffic_runs() {
    let origin = Origin::start().on("GET /r7", Respond::text("seven"));
    let origin =
        (0..4).fold(origin, |origin, n| origin.on(&format!("GET /r{n}"), Respond::text("some")));
    let proxy = Proxy::start(&a_thousand_routes(&origin, ""));
    let over = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|number| {
                let (proxy, over) = (&proxy, &over);
                scope.spawn(move || {
                    let mut client = proxy.client();
                    let mut sent = 0;
                    while !over.load(Ordering::Relaxed) {
                        assert_eq!(client.get(&format!("/r{number}")).text(), "some");
                        sent += 1;
                    }
                    sent
                })
            })
            .collect();
        let pages: Vec<String> = (0..4).map(|_| proxy.metrics()).collect();
        over.store(true, Ordering::Relaxed);
        for pair in pages.windows(2) {
            let (before, after) = (counters(&pair[0]), counters(&pair[1]));
            assert!(before.len() > 50_000, "{}", before.len());
            for (series, value) in before {
                assert!(after.get(series).is_some_and(|later| *later >= value), "{series}");
            }
        }
        clients.into_iter().map(|client| client.join().expect("it ends well")).sum::<i32>()
    });
    let page = proxy.metrics();
    for number in 0..1000 {
        assert!(page.contains(&format!("_count{{route=\"r{number}\"}} ")), "r{number}");
        assert!(page.contains(&format!("_count{{cluster=\"c{number}\"}} ")), "c{number}");
    }
    let sum = |name: &str| sum_of(&page, name).unwrap_or_else(|| panic!("no {name}")) as i32;
    for name in [
        "tls_proxy_requests_total",
        "tls_proxy_route_requests_total",
        "tls_proxy_cluster_requests_total",
        "tls_proxy_endpoint_requests_total",
        "tls_proxy_core_requests_total",
        "tls_proxy_route_request_duration_seconds_count",
    ] {
        assert_eq!(sum(name), sent, "{name}");
    }
    assert_eq!(sum("tls_proxy_metrics_folded"), 0);
    passes_promtool(&page);
}

#[test]
fn scraping_a_thousand_routes_costs_the_data_cores_next_to_nothing() {
    let proxy = Proxy::start(&a_thousand_routes(&Origin::start(), ""));
    let cpu = || {
        let page = proxy.metrics();
        let sum = |name: &str| sum_of(&page, name).unwrap_or_else(|| panic!("no {name}"));
        (sum("tls_proxy_core_busy_seconds_total"), sum("process_cpu_seconds_total"))
    };
    let before = cpu();
    (0..5).for_each(|_| drop(proxy.metrics()));
    let after = cpu();
    let (data_cores, process) = (after.0 - before.0, after.1 - before.1);
    assert!(data_cores < process / 20.0, "{data_cores} s of {process} s");
}

#[test]
fn series_beyond_the_bound_are_summed_under_other() {
    let origin = Origin::start().on("GET /r999", Respond::text("last"));
    let proxy = Proxy::start(&a_thousand_routes(&origin, ", max_series = 5000"));
    assert_eq!(proxy.client().get("/r999").text(), "last");
    let page = proxy.metrics();
    let value = |series: &str| sum_of(&page, series).unwrap_or_else(|| panic!("no {series}"));
    assert_eq!(value("tls_proxy_route_requests_total{route=\"other\",status=\"2xx\"}"), 1.0);
    assert_eq!(value("tls_proxy_route_requests_total"), 1.0);
    assert_eq!(value("tls_proxy_cluster_requests_total{cluster=\"other\",status=\"2xx\"}"), 1.0);
    assert_eq!(value("tls_proxy_endpoint_requests_total"), 1.0);
    assert!(value("tls_proxy_metrics_folded{kind=\"cluster\"}") > 900.0);
    assert!(value("tls_proxy_metrics_folded{kind=\"route\"}") > 900.0);
    let lines = page.lines().filter(|line| !line.starts_with('#')).count();
    assert!(lines < 6000, "{lines}: 5000 and those of the process");
    proxy.wait_for_log("metrics.max_series is 5000");
    assert_eq!(proxy.log().matches("metrics.max_series is").count(), 1, "said once");
}

fn passes_promtool(page: &str) {
    let checked = promtool(Path::new("."), &["check", "metrics"], page.as_bytes());
    let (out, err) = (&checked.stdout, &checked.stderr);
    let said = [String::from_utf8_lossy(out), String::from_utf8_lossy(err)].concat();
    assert!(checked.status.success() && said.is_empty(), "{said}");
}

#[test]
fn promtool_has_nothing_to_say() {
    let proxy = Proxy::start(&routed(&origin(), ""));
    for target in ["/orders/1", "/broken", "/nowhere"] {
        proxy.client().get(target);
    }
    passes_promtool(&proxy.metrics());
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    for arguments in [
        ["test", "rules", "tests/telemetry/alerts.yml"],
        ["check", "rules", "conf/prometheus/alerts.yml"],
        ["check", "config", "conf/prometheus/prometheus.yml"],
    ] {
        let checked = promtool(repository, &arguments, b"");
        let said = String::from_utf8_lossy(&checked.stderr);
        let out = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{arguments:?}: {said}{out}");
    }
}

fn shipped(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every expression of the dashboard and the alerts, and where it stands.
fn shipped_expressions() -> Vec<(String, String)> {
    let dashboard = Json::parse(&shipped("grafana/corelane.json"));
    let mut expressions = Vec::new();
    for panel in dashboard.list("panels").iter().filter(|panel| panel.text("type") != "row") {
        assert_eq!(panel.text("datasource.uid"), "${datasource}", "{}", panel.text("title"));
        for target in panel.list("targets") {
            expressions.push((target.text("expr").to_owned(), panel.text("title").to_owned()));
        }
    }
    let alerts = shipped("prometheus/alerts.yml");
    let is_code = |line: &&str| !line.trim_start().starts_with('#');
    expressions.push((alerts.lines().filter(is_code).collect(), "alerts.yml".to_owned()));
    expressions
}

#[test]
fn a_real_prometheus_takes_the_page_the_alerts_and_the_dashboard() {
    let (origin, pki) = (origin(), Pki::new());
    pki.issue("www", "www.example.com");
    let secure = format!(
        "[[listeners]]\nname = \"secure\"\nbind = \"127.0.0.1:0\"\n[listeners.tls]\n\
         certificates = [{{ cert = {:?}, key = {:?} }}]\n",
        pki.path("www.pem"),
        pki.path("www.key")
    );
    let text = routed(&origin, "").replacen("cores = 1", "cores = 2", 1) + &secure;
    let proxy = Proxy::start(&text);
    let config = shipped("prometheus/prometheus.yml")
        .replace("127.0.0.1:9090", &proxy.address("metrics").to_string())
        .replace("_interval: 15s", "_interval: 200ms");
    let alerts = shipped("prometheus/alerts.yml");
    let prometheus = Prometheus::start(&config, &[("alerts.yml", &alerts)]);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let mut client = proxy.client();
                for target in ["/orders/1", "/hello", "/broken", "/orders/bad", "/nowhere"] {
                    client.get(target);
                }
                thread::sleep(std::time::Duration::from_millis(5)); // the load is bounded
            }
        });
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            is_scraped(&prometheus);
            shows_the_error_rate(&prometheus);
            shows_the_dashboard(&prometheus);
        }));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
    });
}

/// It asks for OpenMetrics, whose parser refuses a page for its first mistake.
fn is_scraped(prometheus: &Prometheus) {
    let up = || prometheus.query("up{job=\"corelane\"}");
    assert!(eventually(|| up() == [1.0]), "{:?} {:?}", up(), prometheus.api("/api/v1/targets"));
    assert!(eventually(|| !prometheus.query("rate(process_cpu_seconds_total[5s])").is_empty()));
    let rules = prometheus.api("/api/v1/rules");
    let rules = rules.list("data.groups")[0].list("rules");
    assert_eq!(rules.len(), shipped("prometheus/alerts.yml").matches("- alert:").count());
    let healthy = || {
        let rules = prometheus.api("/api/v1/rules");
        rules.list("data.groups")[0].list("rules").iter().all(|rule| rule.text("health") == "ok")
    };
    assert!(eventually(healthy), "{:?}", prometheus.api("/api/v1/rules"));
}

/// The expression of the alert sees the 5xx; that it waits five minutes is promtool's to test.
fn shows_the_error_rate(prometheus: &Prometheus) {
    let rules = prometheus.api("/api/v1/rules");
    let rules = rules.list("data.groups")[0].list("rules");
    let rule = rules.iter().find(|rule| rule.text("name") == "HighErrorRate").expect("it is there");
    let query = rule.text("query");
    let ratio = || prometheus.query(query);
    let is_seen = || ratio().first().is_some_and(|ratio| (0.2..0.6).contains(ratio));
    assert!(eventually(is_seen), "two of five are 5xx, but it is {:?}", ratio());
    let state = || {
        let rules = prometheus.api("/api/v1/rules");
        let rules = rules.list("data.groups")[0].list("rules");
        let rule = rules.iter().find(|rule| rule.text("name") == "HighErrorRate");
        rule.expect("it is there").text("state").to_owned()
    };
    assert!(eventually(|| state() == "pending"), "{}", state());
}

fn shows_the_dashboard(prometheus: &Prometheus) {
    for (expression, title) in shipped_expressions() {
        if title == "alerts.yml" {
            continue;
        }
        let asked = expression
            .replace("$__rate_interval", "5s")
            .replace("$job", "corelane")
            .replace("$instance", ".*");
        assert!(!asked.contains('$'), "{title}: a variable that the test does not know: {asked}");
        let has_data = || !prometheus.query(&asked).is_empty();
        assert!(eventually(has_data), "{title}: no data for {asked}");
    }
}

// --- exemplars ------------------------------------------------------------------------------

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Asks with a trace that its caller records, or does not.
fn ask_traced(proxy: &Proxy, target: &str, trace: &str, recorded: &str) {
    let mut client = proxy.client();
    client.send(format!(
        "GET {target} HTTP/1.1\r\nHost: test\r\n\
         traceparent: 00-{trace}-00f067aa0ba902b7-{recorded}\r\n\r\n"
    ));
    assert_ne!(client.read_response().status, 0);
}

fn open_metrics(proxy: &Proxy) -> String {
    let mut client = proxy.client_of("metrics");
    client.send(
        "GET /metrics HTTP/1.1\r\nHost: test\r\n\
         Accept: application/openmetrics-text; version=1.0.0\r\n\r\n",
    );
    client.read_response().text().to_owned()
}

fn exemplars(page: &str) -> Vec<&str> {
    page.lines().filter(|line| line.contains(" # {")).collect()
}

/// A trace is recorded if its caller says so.
fn with_exemplars(origin: &Origin, exemplars: bool) -> String {
    let config = routed(origin, &format!(", exemplars = {exemplars}")).replacen(
        "cores = 1",
        "cores = 2\nhot_reload.watch = false",
        1,
    );
    format!("{config}[tracing]\nenabled = true\nsample = 0.0\n")
}

#[test]
fn a_recorded_trace_stands_behind_its_buckets_until_exemplars_are_switched_off() {
    let origin = origin();
    let proxy = Proxy::start(&with_exemplars(&origin, false));
    ask_traced(&proxy, "/orders/1", TRACE, "01");
    assert_eq!(exemplars(&open_metrics(&proxy)), [""; 0]);
    reload(&proxy, &with_exemplars(&origin, true), "ok");
    let unrouted = TRACE.replace('4', "5");
    // An exchange is counted when its client has the answer already.
    let shows = |trace: &str, expected: &[&str]| {
        let trace = format!(" # {{trace_id=\"{trace}\"}} ");
        let is_there = || {
            let page = open_metrics(&proxy);
            let shown = exemplars(&page);
            let has = |series: &&str| {
                shown.iter().any(|line| line.starts_with(*series) && line.contains(&trace))
            };
            expected.iter().all(has)
        };
        assert!(eventually(is_there), "{trace}: {:#?}", exemplars(&open_metrics(&proxy)));
    };
    ask_traced(&proxy, "/orders/1", TRACE, "01");
    let of_all = "tls_proxy_request_duration_seconds_bucket{";
    let of_listener = "tls_proxy_listener_request_duration_seconds_bucket{listener=\"edge\",";
    let of_route = "tls_proxy_route_request_duration_seconds_bucket{route=\"orders\",";
    let of_cluster = "tls_proxy_cluster_request_duration_seconds_bucket{cluster=\"orders\",";
    let of_endpoint = "tls_proxy_endpoint_request_duration_seconds_bucket{cluster=\"orders\",";
    shows(TRACE, &[of_all, of_listener, of_route, of_cluster, of_endpoint]);
    ask_traced(&proxy, "/nowhere", &unrouted, "01");
    let of_none = "tls_proxy_route_request_duration_seconds_bucket{route=\"(none)\",";
    shows(&unrouted, &[of_all, of_listener, of_none]);
    shows(TRACE, &[of_route]);
    ask_traced(&proxy, "/orders/1", &TRACE.replace('4', "6"), "00");
    let other = "tls_proxy_route_requests_total{route=\"orders\",status=\"2xx\"}";
    assert!(eventually(|| proxy.metric(other) == Some(3.0)));
    let unrecorded = TRACE.replace('4', "6");
    assert!(!open_metrics(&proxy).contains(&unrecorded));
    assert!(exemplars(&proxy.metrics()).is_empty(), "text has none");
    reload(&proxy, &with_exemplars(&origin, false), "ok");
    assert_eq!(exemplars(&open_metrics(&proxy)), [""; 0]);
    assert_eq!(proxy.client().get("/orders/1").status, 200);
}

#[test]
fn a_real_prometheus_shows_the_exemplars() {
    let origin = origin();
    let proxy = Proxy::start(&with_exemplars(&origin, true));
    let config = shipped("prometheus/prometheus.yml")
        .replace("127.0.0.1:9090", &proxy.address("metrics").to_string())
        .replace("_interval: 15s", "_interval: 200ms");
    let alerts = shipped("prometheus/alerts.yml");
    let flag = "--enable-feature=exemplar-storage";
    let prometheus = Prometheus::start_with(&[flag], &config, &[("alerts.yml", &alerts)]);
    ask_traced(&proxy, "/orders/1", TRACE, "01");
    let shown = || {
        let query = "tls_proxy_route_request_duration_seconds_bucket%7Broute=%22orders%22%7D";
        let path = format!("/api/v1/query_exemplars?query={query}&start=0&end=9999999999");
        let answer = prometheus.api(&path);
        let series = answer.list("data");
        let traces = series.iter().flat_map(|series| series.list("exemplars"));
        traces.map(|exemplar| exemplar.text("labels.trace_id").to_owned()).collect::<Vec<_>>()
    };
    assert!(eventually(|| shown() == [TRACE]), "{:?}", shown());
}

// --- over reloads ---------------------------------------------------------------------------

/// Has it read, and waits until that is done.
fn reload(proxy: &Proxy, toml: &str, outcome: &str) {
    let series = format!("tls_proxy_reloads_total{{outcome=\"{outcome}\"}}");
    let before = proxy.metric(&series).expect("both outcomes are there from the start");
    proxy.rewrite_config(toml);
    proxy.signal("HUP");
    let ended = || proxy.metric(&series) > Some(before);
    assert!(eventually(ended), "no reload was {outcome}:\n{}", proxy.log());
}

/// Two cores, read again when told to.
fn on_two_cores(listeners: &str, rest: &str) -> String {
    let plain = edge(rest).replacen("cores = 1", "cores = 2\nhot_reload.watch = false", 1);
    plain.replacen(
        "[[listeners]]\nname = \"edge\"",
        &format!("{listeners}[[listeners]]\nname = \"edge\""),
        1,
    )
}

fn route(name: &str, cluster: &str) -> String {
    format!("[[routes]]\nname = \"{name}\"\npaths = [\"/{name}/*\"]\ncluster = \"{cluster}\"\n")
}

fn cluster(name: &str, address: impl std::fmt::Display) -> String {
    format!(
        "[clusters.{name}]\nendpoints = [{{ address = \"{address}\" }}]\n\
         pool.idle_timeout = \"60s\"\n"
    )
}

/// Cores let go of a name when their last exchange or connection of it has ended, not at once.
fn is_gone(proxy: &Proxy, names: &[&str]) {
    let gone = || {
        let page = proxy.metrics();
        !names.iter().any(|name| page.contains(name))
    };
    assert!(eventually(gone), "{names:?} in\n{}", proxy.metrics());
}

const EXTRA: &str = "[[listeners]]\nname = \"before\"\nbind = \"127.0.0.1:0\"\n";

#[test]
fn numbers_go_on_over_reloads_that_reorder_add_and_remove_others() {
    let origin = origin();
    let nobody = "127.0.0.1:1";
    let rest = route("orders", "orders") + &route("going", "gone");
    let clusters = cluster("orders", origin.address()) + &cluster("gone", nobody);
    let proxy = Proxy::start(&on_two_cores("", &(rest + &clusters)));
    let mut kept = proxy.client();
    for target in ["/orders/1", "/orders/bad", "/going/1"] {
        kept.get(target);
    }
    let endpoint = format!("cluster=\"orders\",endpoint=\"{}\"", origin.address());
    let counted = |ok: u64, bad: u64, all: u64| {
        let page = proxy.metrics();
        for (series, expected) in [
            ("tls_proxy_route_requests_total{route=\"orders\",status=\"2xx\"}", ok),
            ("tls_proxy_route_requests_total{route=\"orders\",status=\"5xx\"}", bad),
            ("tls_proxy_cluster_requests_total{cluster=\"orders\",status=\"2xx\"}", ok),
            ("tls_proxy_cluster_queue_seconds_count{cluster=\"orders\"}", ok + bad),
            ("tls_proxy_listener_request_duration_seconds_count{listener=\"edge\"}", all),
            ("tls_proxy_listener_connections_total{listener=\"edge\"}", 1),
            ("tls_proxy_listener_connections_active{listener=\"edge\"}", 1),
            ("tls_proxy_upstream_connections{cluster=\"orders\"}", 1),
            ("tls_proxy_upstream_opened_total{cluster=\"orders\"}", 1),
            (&format!("tls_proxy_endpoint_requests_total{{{endpoint},status=\"2xx\"}}"), ok),
            (&format!("tls_proxy_endpoint_connections{{{endpoint}}}"), 1),
            ("tls_proxy_config_last_reload_successful", 1),
        ] {
            assert_eq!(sum_of(&page, series), Some(expected as f64), "{series} in\n{page}");
        }
        page
    };
    let page = counted(1, 1, 3);
    assert!(page.contains("route=\"going\"") && page.contains("cluster=\"gone\""));
    // Others before them, and what was there removed.
    let rest = route("first", "first") + &route("orders", "orders");
    let clusters = cluster("first", nobody) + &cluster("orders", origin.address());
    reload(&proxy, &on_two_cores(EXTRA, &(rest + &clusters)), "ok");
    kept.get("/orders/1");
    let page = counted(2, 1, 4);
    is_gone(&proxy, &["\"going\"", "\"gone\""]);
    assert_eq!(
        sum_of(&page, "tls_proxy_listener_requests_total{listener=\"before\",status=\"2xx\"}"),
        Some(0.0)
    );
    // A connection that came by a listener counts for it, not for what has its place now.
    reload(&proxy, "listeners = 5", "refused");
    assert_eq!(proxy.metric("tls_proxy_config_last_reload_successful"), Some(0.0));
    let all = route("orders", "orders") + &cluster("orders", origin.address());
    reload(&proxy, &on_two_cores("", &all), "ok");
    kept.get("/orders/bad");
    let page = counted(2, 2, 5);
    is_gone(&proxy, &["\"before\"", "\"first\""]);
    assert_eq!(sum_of(&page, "tls_proxy_rules_version"), Some(3.0));
    assert!(sum_of(&page, "tls_proxy_config_last_reload_success_timestamp_seconds") > Some(1.7e9));
}

#[test]
fn what_is_removed_leaves_the_page_with_its_last_exchange() {
    let slow = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = slow.local_addr().expect("it is bound");
    let before = route("slow", "slow") + &cluster("slow", address);
    let after = "[[routes]]\nname = \"hello\"\nrespond = { status = 200 }\n";
    let proxy = Proxy::start(&on_two_cores("", &before));
    let mut waiting = proxy.client();
    waiting.send("GET /slow/1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let (mut upstream, _) = slow.accept().expect("the exchange comes here");
    reload(&proxy, &on_two_cores("", after), "ok");
    let page = proxy.metrics();
    for (series, expected) in [
        ("tls_proxy_upstream_connections{cluster=\"slow\"}", 1.0),
        ("tls_proxy_route_requests_total{route=\"slow\",status=\"2xx\"}", 0.0),
        ("tls_proxy_config_generations", 2.0),
    ] {
        assert_eq!(sum_of(&page, series), Some(expected), "{series} in\n{page}");
    }
    upstream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        .expect("the proxy waits for it");
    assert_eq!(waiting.read_response().text(), "hi");
    waiting.get("/");
    is_gone(&proxy, &["\"slow\""]);
    assert_eq!(proxy.metric("tls_proxy_config_generations"), Some(1.0));
    assert_eq!(proxy.metric("tls_proxy_requests_total"), Some(2.0));
}

#[test]
fn two_hundred_reloads_with_other_names_leave_nothing_on_the_page() {
    let text = |number: usize| {
        let names = (0..5).map(|n| format!("r{n}-{number}"));
        let routes: String = names.map(|name| route(&name, &format!("c{number}"))).collect();
        on_two_cores(
            "",
            &(routes + &cluster(&format!("c{number}"), format!("127.0.0.1:{}", 1 + number))),
        )
    };
    let proxy = Proxy::start(&text(0));
    let mut kept = proxy.client();
    let lines = proxy.metrics().lines().count();
    for number in 1..=200 {
        reload(&proxy, &text(number), "ok");
        assert_eq!(kept.get("/nowhere").status, 404);
    }
    let series = |name: &str| proxy.metrics().matches(&format!("\n{name}{{")).count();
    let routes = || series("tls_proxy_route_bytes_in_total");
    assert!(eventually(|| routes() == 6), "five, and those without a route: {}", routes());
    assert_eq!(series("tls_proxy_upstream_waiting"), 1);
    assert_eq!(series("tls_proxy_endpoint_connections"), 1);
    let page = proxy.metrics();
    // A few statuses were seen meanwhile.
    assert!(page.lines().count() < lines + 20, "{page}");
    assert_eq!(sum_of(&page, "tls_proxy_listener_requests_total"), Some(200.0));
    assert!(page.contains("route=\"r4-200\""), "{page}");
}
