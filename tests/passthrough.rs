//! One port for more than one thing: TLS that is ended elsewhere, told by the host that the client
//! names, and plain HTTP beside TLS.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use support::{
    Gate, Nginx, Origin, PATIENCE, Pki, Proxy, RawClient, SClient, SecureClient, edge, eventually,
    nobody,
};

const OURS: &str = "www.example.com";
const THEIRS: &str = "db.example.com";

fn pki() -> Pki {
    let pki = Pki::new();
    pki.authority("ca");
    pki.sign("ca", "ours", "/CN=ours", &format!("DNS:{OURS}"));
    pki.sign("ca", "theirs", "/CN=theirs", &format!("DNS:{THEIRS},DNS:*.tenants.example.com"));
    pki
}

/// TLS for `THEIRS` goes to `endpoint` as it is; `more` is of the listener's TLS, `rest` of the
/// cluster.
fn configuration(pki: &Pki, endpoint: SocketAddr, more: &str, rest: &str) -> String {
    let text = format!(
        "[listeners.tls]\ncertificates = [{{ cert = \"PKI/ours.pem\", key = \"PKI/ours.key\" }}]\n\
         passthrough = [{{ names = [\"{THEIRS}\", \"*.tenants.example.com\"], \
         cluster = \"db\" }}]\n\
         {more}\n[[routes]]\nname = \"all\"\nrespond = {{ body = \"ours\" }}\n\
         [clusters.db]\nendpoints = [{{ address = \"{endpoint}\" }}]\n{rest}\n"
    );
    edge(&text).replace("PKI/", &pki.path("").display().to_string())
}

fn nginx(pki: &Pki, parameters: &str, more: &str) -> Nginx {
    let text = format!(
        "ssl_certificate PKI/theirs.pem; ssl_certificate_key PKI/theirs.key;
         ssl_protocols TLSv1.2 TLSv1.3; client_max_body_size 0; {more}"
    );
    let text = text.replace("PKI/", &pki.path("").display().to_string());
    Nginx::start_with(&format!("ssl {parameters}"), &text)
}

fn connect(proxy: &Proxy, pki: &Pki, host: &str) -> SecureClient {
    SecureClient::connect(proxy.address("edge"), host, &pki.path("ca.pem"))
}

#[test]
fn the_host_that_is_named_decides_who_ends_the_tls() {
    let pki = pki();
    let nginx = nginx(&pki, "", "location / { return 200 \"$ssl_server_name $ssl_protocol\"; }");
    let proxy = Proxy::start(&configuration(&pki, nginx.address(), "", ""));
    for host in [THEIRS, "a.tenants.example.com", "DB.Example.Com"] {
        let said = SClient::fetch(proxy.address("edge"), &["-servername", host]);
        assert!(said.contains("subject=CN = theirs"), "{said}");
        assert!(said.contains(&format!("{host} TLSv1.3")), "{said}");
    }
    let said = SClient::fetch(proxy.address("edge"), &["-servername", THEIRS, "-tls1_2"]);
    assert!(said.contains(&format!("{THEIRS} TLSv1.2")), "{said}");
    for arguments in [["-servername", OURS].as_slice(), &["-noservername"]] {
        let said = SClient::fetch(proxy.address("edge"), arguments);
        assert!(said.contains("subject=CN = ours"), "{said}");
    }
    assert_eq!(connect(&proxy, &pki, OURS).get("/").text(), "ours");
    assert!(eventually(|| proxy.connections_open() == 0));
}

/// The host that is named in full is meant, wherever that is.
#[test]
fn an_exact_name_of_ours_goes_before_a_wildcard_that_is_passed_on() {
    let pki = pki();
    pki.sign("ca", "exact", "/CN=exact", "DNS:mine.tenants.example.com");
    pki.sign("ca", "broad", "/CN=broad", "DNS:*.tenants.example.com");
    let nginx = nginx(&pki, "", "location / { return 200 theirs; }");
    let more = "[[listeners.tls.sni]]\nnames = [\"asked.tenants.example.com\", \
                \"*.example.com\"]\nclient_auth = { mode = \"none\" }\n";
    let text = configuration(&pki, nginx.address(), more, "");
    let own = ["exact", "broad"].map(|name| {
        let [cert, key] = ["pem", "key"].map(|kind| pki.path(&format!("{name}.{kind}")));
        format!("{{ cert = {cert:?}, key = {key:?} }}, ")
    });
    let text = text.replacen("certificates = [", &format!("certificates = [{}", own.concat()), 1);
    let proxy = Proxy::start(&text);
    for (host, subject) in [
        ("mine.tenants.example.com", "exact"),
        ("asked.tenants.example.com", "broad"),
        ("other.tenants.example.com", "theirs"),
        (THEIRS, "theirs"),
        (OURS, "ours"),
    ] {
        let said = SClient::fetch(proxy.address("edge"), &["-servername", host]);
        assert!(said.contains(&format!("subject=CN = {subject}")), "{host}: {said}");
    }
}

#[test]
fn a_host_that_nobody_has_is_refused_where_sni_is_strict_or_nothing_is_ended_here() {
    let pki = pki();
    let nginx = nginx(&pki, "", "location / { return 200 theirs; }");
    let strict = configuration(&pki, nginx.address(), "strict_sni = true\n", "");
    let only = strict.replace("strict_sni = true\n", "");
    let start = only.find("certificates = ").expect("it is there");
    let end = only.find("passthrough").expect("it is there");
    let only = format!("{}{}", &only[..start], &only[end..]);
    for toml in [strict, only] {
        let proxy = Proxy::start(&toml);
        for arguments in [["-servername", "x.example.com"].as_slice(), &["-noservername"]] {
            let said = SClient::fetch(proxy.address("edge"), arguments);
            assert!(said.contains("unrecognized name"), "{said}");
        }
        assert_eq!(connect(&proxy, &pki, THEIRS).get("/").text(), "theirs");
    }
}

#[test]
fn a_cluster_that_is_down_closes_and_others_are_served() {
    let pki = pki();
    let proxy = Proxy::start(&configuration(&pki, nobody(), "", ""));
    for _ in 0..10 {
        let config = Arc::new(SecureClient::config(&pki.path("ca.pem")));
        assert!(SecureClient::try_connect(proxy.address("edge"), THEIRS, config).is_err());
    }
    assert_eq!(connect(&proxy, &pki, OURS).get("/").text(), "ours");
    let refused = r#"tls_proxy_failures_total{reason="connect_refused",side="upstream"}"#;
    assert_eq!(proxy.metric(refused), Some(10.0));
    assert!(eventually(|| proxy.connections_open() == 0));
}

#[test]
fn much_goes_both_ways() {
    let pki = pki();
    let more = "location /www/ { alias www/; } location /put { proxy_pass http://127.0.0.1:9; \
                error_page 502 =200 @done; } location @done { return 200 \"$content_length\"; }";
    let nginx = nginx(&pki, "", more);
    let body: Vec<u8> = (0..30_000_000).map(|at: u32| (at % 251) as u8).collect();
    nginx.file("big", &body);
    let proxy = Proxy::start(&configuration(&pki, nginx.address(), "", ""));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (mut client, body) = (connect(&proxy, &pki, THEIRS), body.clone());
            thread::spawn(move || {
                assert!(client.get("/www/big").body == body);
                let head = "POST /put HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n";
                client.send(head);
                client.send(&body);
                assert_eq!(client.read_response().text(), "30000000");
            })
        })
        .collect();
    for client in clients {
        client.join().expect("served");
    }
    assert!(eventually(|| proxy.connections_open() == 0));
}

/// A ClientHello for a host, by a client that does not go on.
fn hello(pki: &Pki, host: &str) -> Vec<u8> {
    let config = SecureClient::config(&pki.path("ca.pem"));
    let name = rustls_pki_types::ServerName::try_from(host.to_owned()).expect("a name");
    let mut session = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).expect("a Vec takes it");
    bytes
}

/// Pipes are few, and for those that have something to carry.
#[test]
fn connections_that_are_silent_hold_no_pipes() {
    let pki = pki();
    let origin = Origin::connections(|mut stream, _| {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            let _ = stream.write_all(&chunk[..count]);
        }
    });
    let proxy = Proxy::start(&configuration(&pki, origin.address(), "", ""));
    let (before, hello) = (proxy.descriptors(), hello(&pki, THEIRS));
    let mut clients: Vec<_> = (0..40).map(|_| RawClient::connect(proxy.address("edge"))).collect();
    for client in &mut clients {
        client.send(&hello);
        assert_eq!(client.read_exactly(hello.len()), hello, "it came back");
    }
    // Two sockets each, and pipes that are kept for the next who needs one.
    let most = before + 2 * clients.len() + 20;
    assert!(eventually(|| proxy.descriptors() <= most), "{} of {most}", proxy.descriptors());
    let sockets = before + 2 * clients.len();
    assert!(proxy.descriptors() >= sockets, "all are open");
}

#[test]
fn each_side_may_end_before_the_other() {
    let pki = pki();
    let (whole, goes_on) = (Gate::new(), Gate::new());
    let (tell, wait) = (whole.clone(), goes_on.clone());
    let expected = hello(&pki, THEIRS);
    let length = expected.len() + 4;
    let origin = Origin::connections(move |mut stream, _| {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes); // until the client has ended its side
        assert_eq!(bytes.len(), length);
        tell.open();
        wait.wait();
        let _ = stream.write_all(b"the last word");
    });
    let proxy = Proxy::start(&configuration(&pki, origin.address(), "", ""));
    let mut client = RawClient::connect(proxy.address("edge"));
    client.send(&expected);
    client.send("more");
    client.half_close();
    whole.wait();
    goes_on.open();
    assert_eq!(client.read_to_close(), b"the last word");
    assert!(eventually(|| proxy.connections_open() == 0));
}

#[test]
fn an_endpoint_may_end_first_and_still_hear_the_rest() {
    let pki = pki();
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    let origin = Origin::connections(move |mut stream, _| {
        let _ = stream.shutdown(Shutdown::Write);
        let mut chunk = [0; 1000];
        while let Ok(more @ 1..) = stream.read(&mut chunk) {
            count.fetch_add(more, Ordering::SeqCst);
        }
    });
    let proxy = Proxy::start(&configuration(&pki, origin.address(), "", ""));
    let mut client = TcpStream::connect(proxy.address("edge")).expect("it accepts");
    client.set_read_timeout(Some(PATIENCE)).expect("30 s is a timeout");
    let hello = hello(&pki, THEIRS);
    client.write_all(&hello).expect("taken");
    assert!(matches!(client.read(&mut [0; 1]), Ok(0)));
    client.write_all(&[7; 50_000]).expect("taken");
    drop(client);
    let all = hello.len() + 50_000;
    assert!(eventually(|| heard.load(Ordering::SeqCst) == all), "{heard:?} of {all}");
    assert!(eventually(|| proxy.connections_open() == 0));
}

#[test]
fn a_reset_of_one_side_is_one_for_the_other() {
    let pki = pki();
    let origin = Origin::connections(|mut stream, _| {
        let _ = stream.read(&mut [0; 10]); // with bytes unread, closing resets
    });
    let proxy = Proxy::start(&configuration(&pki, origin.address(), "", ""));
    for _ in 0..20 {
        let mut client = RawClient::connect(proxy.address("edge"));
        client.send(hello(&pki, THEIRS));
        client.read_to_close();
    }
    assert!(eventually(|| proxy.connections_open() == 0));
    assert_eq!(proxy.metric("tls_proxy_panics_total"), Some(0.0));
}

#[test]
fn a_drain_waits_for_what_goes_on_and_ends_in_time() {
    let pki = pki();
    let nginx = nginx(&pki, "", "location / { return 200 theirs; }");
    let toml = configuration(&pki, nginx.address(), "", "");
    let mut proxy = Proxy::start(&format!("drain_timeout = \"1s\"\n{toml}"));
    let mut client = connect(&proxy, &pki, THEIRS);
    assert_eq!(client.get("/").text(), "theirs");
    proxy.signal("TERM");
    proxy.wait_for_log("draining");
    assert_eq!(client.get("/").text(), "theirs", "what goes on is not cut at once");
    assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0), "{}", proxy.log());
}

#[test]
fn endpoints_are_told_whom_passed_on_tls_is_from() {
    let pki = pki();
    let more = "location / { return 200 \"$proxy_protocol_addr $proxy_protocol_port\"; }";
    let nginx = nginx(&pki, "proxy_protocol", more);
    for version in ["v1", "v2"] {
        let greets = format!("proxy_protocol = \"{version}\"");
        let proxy = Proxy::start(&configuration(&pki, nginx.address(), "", &greets));
        let mut client = connect(&proxy, &pki, THEIRS);
        let port = client.stream.sock.local_addr().expect("it is connected").port();
        assert_eq!(client.get("/").text(), format!("127.0.0.1 {port}"));
    }
}

/// The same with a port `hasty`, which waits for a ClientHello only so long.
fn with_hasty(pki: &Pki, endpoint: SocketAddr, more: &str, timeout: &str) -> String {
    let text = configuration(pki, endpoint, more, "");
    let begin = text.find("[[listeners]]").expect("it has one");
    let end = text.find("[[routes]]").expect("it has them behind that");
    let hasty = text[begin..end].replace("\"edge\"", "\"hasty\"");
    let rest = &text[end..];
    format!("{}{hasty}handshake_timeout = \"{timeout}\"\n{rest}", &text[..end])
}

/// A client that connects and waits, and one that the endpoint does not answer.
#[test]
fn whoever_says_nothing_does_not_stay() {
    let pki = pki();
    let origin = Origin::connections(|mut stream, _| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let proxy = Proxy::start(&with_hasty(&pki, origin.address(), "", "200ms"));
    let mut silent = RawClient::connect(proxy.address("hasty"));
    assert!(silent.read_to_close().is_empty());
    let mut left = RawClient::connect(proxy.address("edge"));
    left.send(hello(&pki, THEIRS));
    assert!(eventually(|| origin.connections_accepted() == 1 && proxy.connections_open() == 1));
    left.close();
    assert!(eventually(|| proxy.connections_open() == 0));
}

// --- plain HTTP beside TLS ---------------------------------------------------------------------

#[test]
fn plain_http_and_tls_share_a_port_when_asked() {
    let pki = pki();
    let nginx = nginx(&pki, "", "location / { return 200 theirs; }");
    let proxy = Proxy::start(&with_hasty(&pki, nginx.address(), "allow_plain = true\n", "2s"));
    let address = proxy.address("edge");
    for _ in 0..3 {
        assert_eq!(RawClient::connect(address).get("/").text(), "ours");
        assert_eq!(connect(&proxy, &pki, OURS).get("/").text(), "ours");
        assert_eq!(connect(&proxy, &pki, THEIRS).get("/").text(), "theirs");
    }
    let mut bytewise = RawClient::connect(address);
    bytewise.send_byte_by_byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(bytewise.read_response().text(), "ours");
    drop(bytewise);
    let mut silent = RawClient::connect(proxy.address("hasty"));
    assert!(silent.read_to_close().is_empty());
    // The time for a handshake is not the time for a connection.
    let mut kept = RawClient::connect(proxy.address("hasty"));
    assert_eq!(kept.get("/").text(), "ours");
    assert!(kept.is_quiet_for(std::time::Duration::from_millis(2500)));
    assert_eq!(kept.get("/").text(), "ours");
    drop(kept);
    assert!(eventually(|| proxy.connections_open() == 0));
}
