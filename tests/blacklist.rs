//! The blacklist: whoever is on it is turned away at accept on every core, and as the client that a
//! trusted proxy speaks for.

mod support;

use std::fs;

use support::{Curl, Proxy, TempDir, edge, eventually};

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
