//! TLS to endpoints: whom the proxy believes, what it shows of itself, and what clients get when
//! an endpoint is not who it should be.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs as crypto;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use support::{Gate, Nginx, Origin, Pki, Proxy, Respond, Response, edge, eventually, python};

/// `ca` has signed `good` (for the name and the address), `wrong` (another name), `old`; `self` has
/// signed itself; `clients` has signed `proxy`.
fn pki() -> Pki {
    let pki = Pki::new();
    pki.authority("ca");
    pki.authority("clients");
    pki.sign("ca", "good", "/CN=good", "DNS:backend.example,IP:127.0.0.1");
    pki.sign("ca", "wrong", "/CN=wrong", "DNS:other.example");
    pki.sign_expired("ca", "old", "DNS:backend.example,IP:127.0.0.1");
    pki.issue("self", "backend.example");
    pki.sign("clients", "proxy", "/CN=proxy", "DNS:proxy.example");
    pki
}

/// nginx with TLS that tells what it has seen.
fn nginx(pki: &Pki, certificate: &str, more: &str) -> Nginx {
    let protocols = match more.contains("ssl_protocols") {
        true => "",
        false => "ssl_protocols TLSv1.2 TLSv1.3;",
    };
    let text = format!(
        "ssl_certificate PKI/{certificate}.pem; ssl_certificate_key PKI/{certificate}.key;
         ssl_session_cache shared:a:1m; keepalive_requests 10000; {protocols} {more}
         location / {{ return 200
         \"sni=$ssl_server_name protocol=$ssl_protocol reused=$ssl_session_reused \
         connection=$connection client=$ssl_client_s_dn verified=$ssl_client_verify\"; }}"
    );
    Nginx::start_secure(&text.replace("PKI/", &pki.path("").display().to_string()))
}

fn configuration(pki: &Pki, endpoint: SocketAddr, tls: &str) -> String {
    let text = format!(
        "[[routes]]\nname = \"all\"\ncluster = \"a\"\n\
         [clusters.a]\nendpoints = [{{ address = \"{endpoint}\" }}]\n[clusters.a.tls]\n{tls}\n"
    );
    edge(&text).replace("PKI/", &pki.path("").display().to_string())
}

fn proxy(pki: &Pki, endpoint: SocketAddr, tls: &str) -> Proxy {
    Proxy::start(&configuration(pki, endpoint, tls))
}

const CA: &str = "ca = [\"PKI/ca.pem\"]\n";
const NAMED: &str = "ca = [\"PKI/ca.pem\"]\nserver_name = \"backend.example\"\n";

fn get(proxy: &Proxy) -> Response {
    proxy.client().get("/")
}

fn is_untrusted(proxy: &Proxy, reason: &str) {
    let response = get(proxy);
    assert_eq!(response.status, 502, "{response:?}");
    let series = r#"tls_proxy_failures_total{reason="upstream_tls_untrusted",side="upstream"}"#;
    assert!(eventually(|| proxy.metric(series) == Some(1.0)), "{}", proxy.metrics());
    proxy.wait_for_log("upstream_tls_untrusted");
    assert!(proxy.log().contains(reason), "no {reason:?} in:\n{}", proxy.log());
}

// --- whom it believes --------------------------------------------------------------------------

#[test]
fn an_endpoint_of_an_authority_that_is_named_is_believed_by_address_and_by_name() {
    let pki = pki();
    let nginx = nginx(&pki, "good", "");
    let by_address = proxy(&pki, nginx.address(), CA);
    let seen = get(&by_address);
    assert_eq!(seen.status, 200, "{seen:?}");
    assert!(seen.text().contains("sni= protocol=TLSv1.3"), "{}", seen.text());
    let by_name = proxy(&pki, nginx.address(), NAMED);
    assert!(get(&by_name).text().contains("sni=backend.example protocol=TLSv1.3"));
}

#[test]
fn a_certificate_that_does_not_fit_is_answered_502_and_the_log_says_why() {
    let pki = pki();
    for (certificate, tls, reason) in [
        ("good", "", "UnknownIssuer"),
        ("self", NAMED, "invalid peer certificate"),
        ("wrong", NAMED, "other.example"),
        ("wrong", CA, "127.0.0.1"),
        ("old", NAMED, "expired"),
        ("good", "ca = [\"PKI/clients.pem\"]\n", "UnknownIssuer"),
    ] {
        let nginx = nginx(&pki, certificate, "");
        is_untrusted(&proxy(&pki, nginx.address(), tls), reason);
    }
}

#[test]
fn a_pinned_key_is_needed_where_one_is_pinned() {
    let pki = pki();
    let script = "
import base64, hashlib, subprocess, sys
key = subprocess.run(['openssl', 'x509', '-in', sys.argv[1], '-pubkey', '-noout'],
                     check=True, capture_output=True).stdout
der = subprocess.run(['openssl', 'pkey', '-pubin', '-outform', 'der'], input=key,
                     check=True, capture_output=True).stdout
print('sha256/' + base64.b64encode(hashlib.sha256(der).digest()).decode(), end='')
";
    let pin =
        |name: &str| python(script, &[&pki.path(&format!("{name}.pem")).display().to_string()]);
    let nginx = nginx(&pki, "good", "");
    let (right, wrong) = (pin("good"), pin("wrong"));
    for pins in [format!("\"{right}\""), format!("\"{wrong}\", \"{right}\"")] {
        for trust in [CA, "insecure_skip_verify = true\n"] {
            let proxy = proxy(&pki, nginx.address(), &format!("{trust}pins = [{pins}]\n"));
            assert_eq!(get(&proxy).status, 200, "{trust}");
        }
    }
    for trust in [CA, "insecure_skip_verify = true\n"] {
        let tls = format!("{trust}pins = [\"{wrong}\"]\n");
        is_untrusted(&proxy(&pki, nginx.address(), &tls), "invalid peer certificate");
    }
}

#[test]
fn verification_that_is_off_is_warned_of_at_every_start_and_reload() {
    let pki = pki();
    let nginx = nginx(&pki, "self", "");
    let proxy = proxy(&pki, nginx.address(), "insecure_skip_verify = true\n");
    assert_eq!(get(&proxy).status, 200);
    let warnings = || proxy.log().matches("insecure_skip_verify").count();
    assert!(eventually(|| warnings() == 1), "{}", proxy.log());
    proxy.signal("HUP");
    assert!(eventually(|| warnings() == 2), "{}", proxy.log());
}

// --- what it shows and speaks ------------------------------------------------------------------

#[test]
fn an_endpoint_that_asks_for_a_certificate_gets_ours() {
    let pki = pki();
    let asks = "ssl_client_certificate PKI/clients.pem; ssl_verify_client on;";
    let nginx = nginx(&pki, "good", asks);
    let without = proxy(&pki, nginx.address(), CA);
    assert_eq!(get(&without).status, 400, "nginx says so in HTTP");
    let ours = "certificate = { cert = \"PKI/proxy.pem\", key = \"PKI/proxy.key\" }\n";
    for version in ["max_version = \"1.2\"\n", "min_version = \"1.3\"\n"] {
        let with = proxy(&pki, nginx.address(), &format!("{CA}{ours}{version}"));
        let seen = get(&with);
        assert!(seen.text().contains("client=CN=proxy verified=SUCCESS"), "{seen:?}");
    }
}

#[test]
fn an_endpoint_with_tls_1_2_only_is_spoken_to_unless_1_3_is_the_least() {
    let pki = pki();
    let nginx = nginx(&pki, "good", "ssl_protocols TLSv1.2;");
    assert!(get(&proxy(&pki, nginx.address(), CA)).text().contains("protocol=TLSv1.2"));
    let strict = proxy(&pki, nginx.address(), &format!("{CA}min_version = \"1.3\"\n"));
    assert_eq!(get(&strict).status, 502);
    strict.wait_for_log("upstream_tls_failed");
}

#[test]
fn a_hundred_requests_share_one_handshake() {
    let pki = pki();
    let nginx = nginx(&pki, "good", "");
    let proxy = proxy(&pki, nginx.address(), CA);
    let first = get(&proxy).text().to_owned();
    for _ in 0..100 {
        assert_eq!(get(&proxy).text(), first, "another connection, or another session");
    }
    assert_eq!(proxy.metric("tls_proxy_upstream_opened_total{cluster=\"a\"}"), Some(1.0));
}

#[test]
fn sessions_are_resumed() {
    let pki = pki();
    for version in ["TLSv1.2", "TLSv1.3"] {
        // nginx ends each connection after a request.
        let nginx = nginx(&pki, "good", &format!("keepalive_timeout 0; ssl_protocols {version};"));
        let proxy = proxy(&pki, nginx.address(), CA);
        assert!(get(&proxy).text().contains("reused=. "), "{version}");
        for _ in 0..5 {
            let seen = get(&proxy).text().to_owned();
            assert!(seen.contains("reused=r "), "{version}: {seen}");
        }
        // What changes nothing for this cluster forgets none of its sessions.
        proxy.signal("HUP");
        proxy.wait_for_log("reloaded (SIGHUP): version 2");
        let seen = get(&proxy).text().to_owned();
        assert!(seen.contains("reused=r "), "{version}, after a reload: {seen}");
    }
}

#[test]
fn bodies_go_both_ways() {
    let pki = pki();
    let nginx = nginx(
        &pki,
        "good",
        "location /www/ { alias www/; } location /put { \
                                     client_max_body_size 0; proxy_pass http://127.0.0.1:9; \
                                     error_page 502 =200 @done; } \
                                     location @done { return 200 \"$content_length\"; }",
    );
    let body: Vec<u8> = (0..3_000_000).map(|at: u32| (at % 251) as u8).collect();
    nginx.file("big", &body);
    nginx.file("empty", "");
    let proxy = proxy(&pki, nginx.address(), CA);
    let mut client = proxy.client();
    for _ in 0..3 {
        assert!(client.get("/www/big").body == body);
        assert!(client.get("/www/empty").body.is_empty());
        let head =
            format!("POST /put HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        client.send(head);
        client.send(&body);
        assert_eq!(client.read_response().text(), "3000000");
    }
}

#[test]
fn another_authority_by_a_reload_ends_the_use_of_kept_connections() {
    let pki = pki();
    let nginx = nginx(&pki, "good", "");
    let proxy = proxy(&pki, nginx.address(), CA);
    assert_eq!(get(&proxy).status, 200);
    proxy.rewrite_config(&configuration(&pki, nginx.address(), "ca = [\"PKI/clients.pem\"]\n"));
    proxy.signal("HUP");
    assert!(eventually(|| get(&proxy).status == 502), "{}", proxy.log());
    proxy.wait_for_log("upstream_tls_untrusted");
    proxy.rewrite_config(&configuration(&pki, nginx.address(), CA));
    proxy.signal("HUP");
    assert!(eventually(|| get(&proxy).status == 200), "{}", proxy.log());
}

/// The same path, with another authority in it.
#[test]
fn another_authority_in_the_same_file_ends_the_use_of_kept_connections() {
    let pki = pki();
    let nginx = nginx(&pki, "good", "");
    std::fs::copy(pki.path("ca.pem"), pki.path("now.pem")).expect("it is there");
    let proxy = proxy(&pki, nginx.address(), "ca = [\"PKI/now.pem\"]\n");
    assert_eq!(get(&proxy).status, 200);
    std::fs::copy(pki.path("clients.pem"), pki.path("now.pem")).expect("it is there");
    proxy.signal("HUP");
    assert!(eventually(|| get(&proxy).status == 502), "{}", proxy.log());
}

// --- endpoints that misbehave ------------------------------------------------------------------

#[test]
fn an_endpoint_that_stops_in_the_middle_of_its_handshake_is_given_up() {
    let pki = pki();
    for answer in [&b""[..], b"\x16\x03\x03\x00\x7a\x02"] {
        let (sender, receiver) = mpsc::channel::<TcpStream>();
        let origin = Origin::connections(move |mut stream, _| {
            let _ = stream.write_all(answer);
            let _ = sender.send(stream); // stays open
        });
        let proxy = proxy(&pki, origin.address(), &format!("{CA}handshake_timeout = \"200ms\"\n"));
        assert_eq!(get(&proxy).status, 504);
        proxy.wait_for_log("upstream_tls_timeout");
        drop(receiver);
    }
}

#[test]
fn an_endpoint_without_tls_or_that_closes_is_answered_502() {
    let pki = pki();
    let plain = Origin::connections(|mut stream, _| {
        let _ = stream.read(&mut [0; 1]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        let _ = stream.read(&mut [0; 10_000]);
    });
    let closing = Origin::connections(|mut stream, _| {
        let _ = stream.read(&mut [0; 1]);
        let _ = stream.shutdown(Shutdown::Both);
    });
    for endpoint in [plain.address(), closing.address()] {
        let proxy = proxy(&pki, endpoint, CA);
        assert_eq!(get(&proxy).status, 502);
        assert_eq!(get(&proxy).status, 502);
        proxy.wait_for_log("upstream_tls_failed");
    }
}

#[test]
fn a_name_of_an_endpoint_is_asked_for_and_must_be_in_the_certificate() {
    let pki = pki();
    pki.sign("ca", "named", "/CN=named", "DNS:localhost");
    for (certificate, is_right) in [("named", true), ("good", false)] {
        let nginx = nginx(&pki, certificate, "");
        let toml = configuration(&pki, nginx.address(), CA);
        let toml = toml.replace(
            &format!("address = \"{}\"", nginx.address()),
            &format!("address = \"localhost:{}\"", nginx.address().port()),
        );
        let proxy = Proxy::start(&toml);
        assert!(eventually(|| get(&proxy).status != 503), "{}", proxy.log());
        if is_right {
            assert!(get(&proxy).text().contains("sni=localhost "), "{}", proxy.log());
        } else {
            assert_eq!(get(&proxy).status, 502);
            proxy.wait_for_log("upstream_tls_untrusted");
        }
    }
}

/// A goodbye without the end of the connection is an end as well.
#[test]
fn a_kept_connection_on_which_goodbye_was_said_is_not_used_again() {
    let pki = pki();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole";
    let origin = scripted(&pki, answer, true);
    let proxy = proxy(&pki, origin.address(), CA);
    for _ in 0..10 {
        assert_eq!(get(&proxy).text(), "whole");
    }
    assert_eq!(proxy.metric("tls_proxy_upstream_opened_total{cluster=\"a\"}"), Some(10.0));
}

fn server_config(pki: &Pki) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(pki.path("good.pem")).expect("PEM");
    let chain = chain.collect::<Result<_, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(pki.path("good.key")).expect("a key");
    let builder = ServerConfig::builder_with_provider(Arc::new(crypto::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("both");
    let config = builder.with_no_client_auth().with_single_cert(chain, key).expect("they match");
    Arc::new(config)
}

/// False: it ends before that.
fn read_head(stream: &mut StreamOwned<ServerConnection, TcpStream>) -> bool {
    let (mut head, mut byte) = (Vec::new(), [0; 1]);
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return false;
        }
        head.push(byte[0]);
    }
    true
}

/// An origin with TLS that answers as it is told; `true`: it says goodbye.
fn scripted(pki: &Pki, answer: &'static [u8], polite: bool) -> Origin {
    let config = server_config(pki);
    Origin::connections(move |stream, _| {
        let session = ServerConnection::new(Arc::clone(&config)).expect("a server");
        let mut stream = StreamOwned::new(session, stream);
        if !read_head(&mut stream) {
            return;
        }
        let _ = stream.write_all(answer);
        if polite {
            stream.conn.send_close_notify();
        }
        let _ = stream.flush();
        let _ = stream.sock.shutdown(Shutdown::Write);
        let _ = stream.sock.read(&mut [0; 100]);
    })
}

#[test]
fn a_body_that_ends_with_the_connection_is_whole_only_after_a_goodbye() {
    let pki = pki();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nthe beginning";
    let polite = scripted(&pki, answer, true);
    let whole = proxy(&pki, polite.address(), CA);
    assert_eq!(get(&whole).text(), "the beginning");
    let rude = scripted(&pki, answer, false);
    let cut = proxy(&pki, rude.address(), CA);
    let mut client = cut.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.try_read_response_to("GET");
    assert!(answer.as_ref().map_or(true, |answer| answer.status == 502), "{answer:?}");
}

#[test]
fn a_body_of_a_known_length_needs_no_goodbye() {
    let pki = pki();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole";
    let origin = scripted(&pki, answer, false);
    let proxy = proxy(&pki, origin.address(), CA);
    for _ in 0..3 {
        assert_eq!(get(&proxy).text(), "whole");
    }
}

/// An origin with TLS that answers the first request of a connection, and resets it after the head
/// of the second. It counts requests.
fn resetting(pki: &Pki) -> (Origin, Arc<AtomicUsize>) {
    let config = server_config(pki);
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    let origin = Origin::connections(move |stream, _| {
        let session = ServerConnection::new(Arc::clone(&config)).expect("a server");
        let mut stream = StreamOwned::new(session, stream);
        if read_head(&mut stream) {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole");
        }
        if read_head(&mut stream) {
            counted.fetch_add(1, Ordering::SeqCst);
            // Closed with bytes that nobody has read: the kernel sends a RST.
            let _ = stream.sock.peek(&mut [0; 1]);
        }
    });
    (origin, count)
}

#[test]
fn a_post_on_a_kept_connection_that_is_reset_is_not_sent_again() {
    let pki = pki();
    let (origin, count) = resetting(&pki);
    let proxy = proxy(&pki, origin.address(), CA);
    let mut client = proxy.client();
    for round in 1..=5 {
        assert_eq!(client.get("/").text(), "whole");
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n");
        let body = client.try_send([b'x'; 40_000]);
        let answer = client.try_read_response_to("POST");
        assert!(
            answer.as_ref().is_ok_and(|answer| answer.status == 502),
            "{answer:?} {body:?}:\n{}",
            proxy.log()
        );
        assert_eq!(count.load(Ordering::SeqCst), 2 * round);
        client = proxy.client();
    }
    assert_eq!(proxy.metric("tls_proxy_upstream_opened_total{cluster=\"a\"}"), Some(5.0));
}

/// nginx with TLS 1.3, whose tickets come long before the answer of what is behind it.
fn nginx_before(pki: &Pki, origin: &Origin) -> Nginx {
    let behind =
        format!("location /behind {{ proxy_pass {}; proxy_buffering off; }}", origin.url("/"));
    nginx(pki, "good", &format!("ssl_protocols TLSv1.3; {behind}"))
}

#[test]
fn an_answer_may_come_long_after_the_tickets() {
    let pki = pki();
    let gate = Gate::new();
    let origin = Origin::start().on("GET /", Respond::text("late").behind(&gate));
    let nginx = nginx_before(&pki, &origin);
    let proxy = proxy(&pki, nginx.address(), CA);
    let mut client = proxy.client();
    client.send("GET /behind HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    assert!(client.is_quiet_for(Duration::from_millis(500)));
    gate.open();
    assert_eq!(client.read_response().text(), "late");
    assert_eq!(client.get("/behind").text(), "late", "on the connection that was kept");
    assert_eq!(proxy.metric("tls_proxy_upstream_opened_total{cluster=\"a\"}"), Some(1.0));
}

#[test]
fn a_client_that_leaves_after_the_tickets_came_is_noticed() {
    let pki = pki();
    let counts = Arc::<[AtomicUsize; 2]>::default();
    let counted = Arc::clone(&counts);
    let origin = Origin::connections(move |mut stream, _| {
        let mut request = [0; 10_000];
        while stream.read(&mut request).is_ok_and(|count| count > 0) {
            counted[0].fetch_add(1, Ordering::SeqCst);
        }
        counted[1].fetch_add(1, Ordering::SeqCst);
    });
    let [asked, left] = [0, 1].map(|which| &counts[which]);
    let nginx = nginx_before(&pki, &origin);
    let toml = configuration(&pki, nginx.address(), CA);
    // Nobody else notices in the time of this test.
    let proxy = Proxy::start(&format!("{toml}[clusters.a.timeouts]\nfirst_byte = \"10m\"\n"));
    for round in 1..=3 {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /behind HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(eventually(|| asked.load(Ordering::SeqCst) == round));
        client.close(); // with a RST: it has not read the first answer
        let noticed = eventually(|| left.load(Ordering::SeqCst) == round);
        assert!(noticed && eventually(|| proxy.connections_open() == 0), "{}", proxy.log());
    }
    assert!(get(&proxy).text().contains("TLSv1.3"), "the next is served");
}
