//! The blacklist: whoever is on it is turned away at accept on every core, and as the client that a
//! trusted proxy speaks for.

mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use support::{Curl, Proxy, Response, TempDir, edge, eventually};

const OK: &str = "[[routes]]\nname = \"ok\"\nrespond = { status = 200, body = \"ok\" }\n";

fn config(directory: &TempDir, cores: usize) -> String {
    let path = directory.path().join("blacklist");
    let rest = format!("[blacklist]\npath = \"{}\"\n{OK}", path.display());
    format!("trusted_proxies = [\"127.0.0.1\"]\n{}", edge(&rest)).replacen(
        "cores = 1",
        &format!("cores = {cores}"),
        1,
    )
}

/// By the admin port.
fn ask(proxy: &Proxy, method: &str, query: &str, body: &str) -> Response {
    let mut client = proxy.client_of("admin");
    client.send(format!(
        "{method} /admin/blacklist{query} HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    client.read_response_to(method)
}

fn block(proxy: &Proxy, body: &Value) -> Value {
    value(&ask(proxy, "POST", "", &body.to_string()))
}

fn value(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_str(response.text()).expect("the admin API answers JSON")
}

fn refused(response: &Response) -> (u16, String) {
    let error: Value = serde_json::from_str(response.text()).expect("errors are JSON");
    (response.status, error["error"]["message"].as_str().unwrap_or_default().to_owned())
}

fn entries(proxy: &Proxy, query: &str) -> Vec<Value> {
    let page = value(&ask(proxy, "GET", query, ""));
    page["entries"].as_array().expect("a list").clone()
}

fn listed(ip: &str, until: Option<u64>) -> String {
    let until = until.map_or(String::new(), |until| format!(",\"until\":{until}"));
    format!("{{\"ip\":\"{ip}\",\"reason\":\"abuse\",\"by\":\"test\",\"since\":1{until}}}\n")
}

/// A request from this address of the machine.
fn from(proxy: &Proxy, address: &str) -> Curl {
    Curl::get(&proxy.url("/"), &["--interface", address])
}

#[test]
fn a_listed_address_is_turned_away_on_every_core_and_others_are_not() {
    let directory = TempDir::new();
    directory.write("blacklist", listed("127.0.0.2", None) + &listed("127.0.1.0/24", None));
    let proxy = Proxy::start(&config(&directory, 16));
    for _ in 0..40 {
        for address in ["127.0.0.2", "127.0.1.7"] {
            let answer = from(&proxy, address);
            assert_eq!((answer.status, answer.text()), (0, ""), "closed before a byte was read");
        }
    }
    for address in ["127.0.0.1", "127.0.0.3", "127.0.2.7"] {
        assert_eq!(from(&proxy, address).text(), "ok");
    }
    let told = |network: &str| {
        let log = proxy.log();
        let counts = log.lines().filter_map(|line| {
            let (_, rest) = line.split_once(&format!("\"{network}\",\"detail\":\""))?;
            rest.split_once(" times")?.0.parse::<u64>().ok()
        });
        counts.sum::<u64>()
    };
    assert!(eventually(|| told("127.0.0.2/32") == 40 && told("127.0.1.0/24") == 40));
}

#[test]
fn the_client_that_a_trusted_proxy_speaks_for_is_refused_and_the_next_is_served() {
    let directory = TempDir::new();
    directory.write("blacklist", listed("2001:db8::/32", None) + &listed("192.0.2.7", None));
    let proxy = Proxy::start(&config(&directory, 2));
    let behind =
        |client: &str| Curl::get(&proxy.url("/"), &["-H", &format!("X-Forwarded-For: {client}")]);
    for client in ["192.0.2.7", "2001:db8::5", "198.51.100.1, 192.0.2.7"] {
        let answer = behind(client);
        assert_eq!(answer.status, 403, "{client}");
        assert!(answer.text().contains("\"BLACKLISTED\""), "{}", answer.text());
    }
    assert_eq!(behind("192.0.2.8").text(), "ok");
    // Who is not trusted cannot speak for anybody.
    let stranger = Curl::get(
        &proxy.url("/"),
        &["--interface", "127.0.0.9", "-H", "X-Forwarded-For: 192.0.2.7"],
    );
    assert_eq!(stranger.text(), "ok");
}

#[test]
fn entries_of_the_file_that_have_run_out_or_are_broken_block_nobody() {
    let directory = TempDir::new();
    let broken = "{\"ip\":\"127.0.0.0/8\",\"surprise\":1}\n{\n";
    let text = listed("127.0.0.4", Some(1_000)) + broken + &listed("127.0.0.5", None);
    directory.write("blacklist", text);
    let proxy = Proxy::start(&config(&directory, 1));
    assert_eq!(from(&proxy, "127.0.0.4").text(), "ok");
    assert_eq!(from(&proxy, "127.0.0.1").text(), "ok");
    assert_eq!(from(&proxy, "127.0.0.5").status, 0);
    proxy.wait_for_log("blacklist:2: no blacklist entry");
    assert!(fs::read_to_string(directory.path().join("blacklist")).is_ok());
}

#[test]
fn a_block_by_the_admin_port_is_on_all_of_16_cores_when_it_is_answered() {
    let directory = TempDir::new();
    let proxy = Proxy::start(&config(&directory, 16));
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        // A client that nobody blocks is served all the time.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(from(&proxy, "127.0.0.9").text(), "ok");
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
        for (ip, addresses) in [
            ("127.0.0.2", &["127.0.0.2"][..]),
            ("127.0.1.0/24", &["127.0.1.0", "127.0.1.255"]),
            ("::ffff:127.0.2.0/120", &["127.0.2.3"]),
        ] {
            let answer = block(&proxy, &json!({ "ip": ip, "duration": 3600, "reason": "abuse" }));
            assert_eq!(answer["replaced"], false);
            assert_eq!(answer["survives_restart"], true);
            let entry = &answer["entry"];
            assert_eq!((&entry["reason"], &entry["by"]), (&json!("abuse"), &json!("loopback")));
            assert!(
                entry["seconds_left"].as_u64().is_some_and(|left| (3590..=3600).contains(&left))
            );
            for round in 0..32 {
                let address = addresses[round % addresses.len()];
                assert_eq!(from(&proxy, address).status, 0, "{ip} {address}");
            }
        }
        assert_eq!(from(&proxy, "127.0.3.1").text(), "ok");
        assert!(eventually(|| served.load(Ordering::Relaxed) > 3));
        done.store(true, Ordering::Relaxed);
    });
    assert!(eventually(|| entries(&proxy, "?ip=127.0.0.2")[0]["hits"] == 32));
    assert_eq!(proxy.metric("tls_proxy_blacklist_entries"), Some(3.0));
    assert_eq!(proxy.metric("tls_proxy_blacklisted_connections_total"), Some(96.0));
    proxy.wait_for_log("127.0.0.2/32 is blocked for 3600 s: abuse");
}

#[test]
fn ipv6_is_blocked_like_ipv4() {
    let rest = format!("[[listeners]]\nname = \"six\"\nbind = \"[::1]:0\"\n{OK}");
    let proxy = Proxy::start(&edge(&rest));
    let url = format!("http://[::1]:{}/", proxy.port("six"));
    assert_eq!(Curl::get(&url, &[]).text(), "ok");
    for ip in ["::1", "::/120"] {
        assert_eq!(block(&proxy, &json!({ "ip": ip }))["survives_restart"], false);
        assert_eq!(Curl::get(&url, &[]).status, 0);
        assert_eq!(Curl::get(&proxy.url("/"), &[]).text(), "ok", "IPv4 is none of it");
        assert_eq!(value(&ask(&proxy, "DELETE", &format!("?ip={ip}"), ""))["removed"], 1);
        assert_eq!(Curl::get(&url, &[]).text(), "ok");
    }
}

#[test]
fn who_is_connected_already_gets_403_at_the_next_request_and_is_closed() {
    let directory = TempDir::new();
    let proxy = Proxy::start(&config(&directory, 2));
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    // The caller's own address only when it is meant.
    let own = json!({ "ip": "127.0.0.1" });
    let (status, message) = refused(&ask(&proxy, "POST", "", &own.to_string()));
    assert_eq!(status, 409);
    assert!(message.contains("\"force\": true"), "{message}");
    assert_eq!(client.get("/").status, 200, "nothing has changed");
    block(&proxy, &json!({ "ip": "127.0.0.1", "force": true }));
    let answer = client.get("/");
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("\"BLACKLISTED\""), "{}", answer.text());
    assert_eq!(client.read_to_close(), b"");
    assert_eq!(from(&proxy, "127.0.0.9").text(), "ok");
    // The admin port lets the operator take it back.
    assert_eq!(value(&ask(&proxy, "DELETE", "", "{\"ip\":\"127.0.0.1\"}"))["removed"], 1);
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn an_entry_runs_out_by_itself() {
    let directory = TempDir::new();
    let proxy = Proxy::start(&config(&directory, 2));
    block(&proxy, &json!({ "ip": "127.0.0.2", "duration": 1.0 }));
    block(&proxy, &json!({ "ip": "127.0.0.3" }));
    assert!(eventually(|| from(&proxy, "127.0.0.2").text() == "ok"));
    assert_eq!(from(&proxy, "127.0.0.3").status, 0, "for good");
    let left = entries(&proxy, "");
    assert_eq!(left.len(), 1);
    assert_eq!((&left[0]["ip"], &left[0]["until"]), (&json!("127.0.0.3/32"), &Value::Null));
    assert!(eventually(|| !directory.read("blacklist").contains("127.0.0.2")));
}

#[test]
fn blocks_survive_a_reload_and_with_a_path_a_restart() {
    let directory = TempDir::new();
    let toml = config(&directory, 2);
    let proxy = Proxy::start(&toml);
    block(&proxy, &json!({ "ip": "127.0.0.2", "duration": 600, "reason": "a \"why\"" }));
    assert_eq!(value(&ask(&proxy, "GET", "?ip=127.0.0.2", ""))["count"], 1);
    proxy.rewrite_config(&toml.replace("\"ok\" }", "\"new\" }"));
    proxy.signal("HUP");
    assert!(eventually(|| from(&proxy, "127.0.0.9").text() == "new"));
    assert_eq!(from(&proxy, "127.0.0.2").status, 0);
    assert!(eventually(|| directory.path().join("blacklist").exists()));
    drop(proxy);
    let proxy = Proxy::start(&toml);
    assert_eq!(from(&proxy, "127.0.0.2").status, 0);
    assert_eq!(from(&proxy, "127.0.0.9").text(), "ok");
    assert_eq!(entries(&proxy, "")[0]["reason"], "a \"why\"");
    assert_eq!(value(&ask(&proxy, "DELETE", "?all=true", ""))["removed"], 1);
    assert_eq!(from(&proxy, "127.0.0.2").text(), "ok");
    assert!(eventually(|| directory.read("blacklist").is_empty()));
}

#[test]
fn a_reload_that_names_another_file_keeps_it_there_and_adds_what_it_has() {
    let directory = TempDir::new();
    let old = config(&directory, 2);
    let proxy = Proxy::start(&old);
    block(&proxy, &json!({ "ip": "192.0.2.1", "reason": "old" }));
    let other = directory.write("other", listed("192.0.2.2", None) + &listed("192.0.2.1", None));
    let text = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap_or_default();
    let reload = |toml: &str| {
        let before = proxy.log().matches("reloaded").count();
        proxy.rewrite_config(toml);
        proxy.signal("HUP");
        assert!(eventually(|| proxy.log().matches("reloaded").count() > before));
    };
    assert!(eventually(|| text("blacklist").contains("192.0.2.1")));
    let was = directory.path().join("blacklist").display().to_string();
    let new = old.replace(&was, &other.display().to_string());
    reload(&new);
    let kept = || text("other").contains("\"old\"") && text("other").lines().count() == 2;
    assert!(eventually(kept), "{}\n{}", text("other"), proxy.log());
    let ips = |proxy: &Proxy| entries(proxy, "").len();
    assert!(eventually(|| ips(&proxy) == 2), "what was known goes before what the file has");
    block(&proxy, &json!({ "ip": "192.0.2.3" }));
    assert!(eventually(|| text("other").contains("192.0.2.3")));
    assert!(!text("blacklist").contains("192.0.2.3"), "the old file stays as it was");
    // A file that is not there is made, and none keeps it in memory.
    reload(&old.replace(&was, &directory.path().join("third").display().to_string()));
    assert!(eventually(|| text("third").lines().count() == 3), "{}", proxy.log());
    reload(&old.replace(&format!("path = \"{was}\""), ""));
    assert!(eventually(|| proxy.log().contains("kept in no file from now on")));
    block(&proxy, &json!({ "ip": "192.0.2.4" }));
    assert_eq!((ips(&proxy), text("third").lines().count()), (4, 3));
}

#[test]
fn ten_thousand_entries_are_looked_up_listed_and_cleared() {
    let directory = TempDir::new();
    let many = (0..10_000).map(|n| listed(&format!("10.{}.{}.0/24", n / 250, n % 250), None));
    directory.write("blacklist", many.collect::<String>());
    let proxy = Proxy::start(&config(&directory, 2));
    block(&proxy, &json!({ "ip": "127.0.0.2" }));
    assert_eq!(from(&proxy, "127.0.0.2").status, 0);
    let behind = |client: &str| {
        Curl::get(&proxy.url("/"), &["-H", &format!("X-Forwarded-For: {client}")]).status
    };
    assert_eq!((behind("10.39.249.7"), behind("10.39.250.7")), (403, 200));
    let page = value(&ask(&proxy, "GET", "?limit=3", ""));
    assert_eq!((&page["count"], page["entries"].as_array().unwrap().len()), (&json!(10_001), 3));
    assert_eq!(entries(&proxy, "").len(), 10_000);
    assert_eq!(entries(&proxy, "?limit=100000").len(), 10_001);
    assert_eq!(entries(&proxy, "?ip=10.39.249.7")[0]["ip"], "10.39.249.0/24");
    assert_eq!(entries(&proxy, "?ip=10.39.250.7").len(), 0);
    assert_eq!(value(&ask(&proxy, "DELETE", "?all=true", ""))["removed"], 10_001);
    assert_eq!((behind("10.39.249.7"), from(&proxy, "127.0.0.2").status), (200, 200));
}

#[test]
fn what_is_no_block_is_refused_with_what_was_expected_and_blocks_nobody() {
    let directory = TempDir::new();
    let proxy = Proxy::start(&config(&directory, 1));
    let long = "x".repeat(201);
    let cases = [
        ("{}", "ip"),
        ("{\"ip\":null}", "string"),
        ("{\"ip\":7}", "string"),
        ("{\"ip\":\"example.org\"}", "address or a CIDR block"),
        ("{\"ip\":\"10.0.0.0/33\"}", "address or a CIDR block"),
        ("{\"ip\":\"10.0.0.1/8\"}", "did you mean 10.0.0.0/8"),
        ("{\"ip\":\"10.0.0.1\",\"duration\":0}", "duration"),
        ("{\"ip\":\"10.0.0.1\",\"duration\":-1}", "whole number"),
        ("{\"ip\":\"10.0.0.1\",\"duration\":315360001}", "duration"),
        ("{\"ip\":\"10.0.0.1\",\"duration\":\"1h\"}", "invalid type"),
        ("{\"ip\":\"10.0.0.1\",\"until\":5}", "unknown field"),
        ("{\"ip\":\"10.0.0.1\",\"force\":1}", "boolean"),
        ("[\"10.0.0.1\"]", "object"),
        ("{\"ip\":\"10.0.0.1\"", "EOF"),
        ("\u{0}\u{1}", "expected value"),
    ];
    for (body, expected) in cases {
        let (status, message) = refused(&ask(&proxy, "POST", "", body));
        assert_eq!(status, 400, "{body}");
        assert!(message.contains(expected), "{body}: {message}");
    }
    let reason = json!({ "ip": "10.0.0.1", "reason": long }).to_string();
    assert_eq!(refused(&ask(&proxy, "POST", "", &reason)).0, 400);
    for (query, body, expected) in [
        ("", "", 400),
        ("?all=false", "", 400),
        ("?all=true&ip=10.0.0.1", "", 400),
        ("?all=true", "{\"ip\":\"10.0.0.1\"}", 400),
        ("?ip=nobody", "", 400),
        ("?ip=10.0.0.1", "", 404),
        ("", "{\"ip\":\"10.0.0.1\"}", 404),
    ] {
        assert_eq!(refused(&ask(&proxy, "DELETE", query, body)).0, expected, "{query} {body}");
    }
    assert_eq!(refused(&ask(&proxy, "GET", "?ip=10.0.0.0/8", "")).0, 400);
    assert_eq!(entries(&proxy, "").len(), 0);
    assert_eq!(from(&proxy, "127.0.0.9").text(), "ok");
}
