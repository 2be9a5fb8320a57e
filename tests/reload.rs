//! A new configuration while traffic flows: it takes effect in place, nothing that runs is lost, and
//! what is wrong changes nothing.

mod support;

use support::{Proxy, edge};

fn says(text: &str) -> String {
    edge(&format!("[[routes]]\nname = \"all\"\nrespond = {{ status = 200, body = \"{text}\" }}\n"))
}

/// Writes the file and has it read.
fn reload(proxy: &Proxy, toml: &str) {
    let before = proxy.log().matches("reload").count();
    proxy.rewrite_config(toml);
    proxy.signal("HUP");
    let done = || proxy.log().matches("reload").count() > before;
    assert!(support::eventually(done), "no reload:\n{}", proxy.log());
}

#[test]
fn sighup_swaps_the_routes_for_connections_old_and_new() {
    let proxy = Proxy::start(&says("one"));
    let mut kept = proxy.client();
    assert_eq!(kept.get("/").text(), "one");
    reload(&proxy, &says("two"));
    assert_eq!(kept.get("/").text(), "two");
    assert_eq!(proxy.client().get("/").text(), "two");
    assert_eq!(proxy.metric("tls_proxy_rules_version"), Some(2.0));
}
