//! PROXY protocol, both ways: from real proxies, and to them.

mod support;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use support::{
    Curl, Nginx, Origin, Pki, Proxy, RawClient, Respond, SecureClient, TempDir, edge, eventually,
    is_installed, nobody, program, signal,
};

const HOST: &str = "www.example.com";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn origin() -> Origin {
    Origin::start().on("GET /", Respond::text("here"))
}

fn cluster(endpoint: SocketAddr, more: &str) -> String {
    format!(
        "[[routes]]\nname = \"all\"\ncluster = \"a\"\n\
         [clusters.a]\nendpoints = [{{ address = \"{endpoint}\" }}]\n{more}\n"
    )
}

const TRUSTED: &str = "proxy_protocol = { from = [\"127.0.0.1\"] }\n";

fn receiving(origin: &Origin, more: &str) -> Proxy {
    Proxy::start(&edge(&format!("{TRUSTED}{more}\n{}", cluster(origin.address(), ""))))
}

/// A header of version 2; `kind` 0x20: LOCAL, 0x21: PROXY.
fn v2(kind: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [V2, &[kind, family], &length, rest].concat()
}

fn v2_of_ipv4(tlvs: &[u8]) -> Vec<u8> {
    let rest = [&[192, 0, 2, 7, 198, 51, 100, 1, 0x30, 0x39, 1, 0xbb][..], tlvs].concat();
    v2(0x21, 0x11, &rest)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

// --- in ----------------------------------------------------------------------------------------

#[test]
fn whom_a_trusted_peer_speaks_for_is_who_the_client_is() {
    let mut ipv6 = vec![0x20, 1, 0x0d, 0xb8];
    ipv6.extend([0; 11]);
    ipv6.push(9);
    let rest = [&ipv6[..], &ipv6, &[0x30, 0x39, 1, 0xbb]].concat();
    for (header, client) in [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::9 2001:db8::1 12345 443\r\n".to_vec(), "2001:db8::9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"PROXY UNKNOWN 1 2 3 4\r\n".to_vec(), "127.0.0.1"),
        (v2_of_ipv4(b""), "192.0.2.7"),
        (v2(0x21, 0x21, &rest), "2001:db8::9"),
        (v2(0x20, 0, b""), "127.0.0.1"),
        (v2(0x20, 0x11, &[0; 12]), "127.0.0.1"),
        (
            v2_of_ipv4(&[4, 0, 100].iter().chain(&[0; 100]).copied().collect::<Vec<_>>()),
            "192.0.2.7",
        ),
    ] {
        let origin = origin();
        let proxy = receiving(&origin, "");
        for split in [0, 1, header.len() / 2, header.len()] {
            let mut one = proxy.client();
            let bytes = [&header[..], GET].concat();
            if split == 0 {
                one.send(&bytes)
            } else {
                one.send_split(&bytes, split)
            }
            assert_eq!(one.read_response().text(), "here", "{header:?}");
            assert_eq!(one.get("/").text(), "here", "it holds for the connection");
        }
        for request in origin.requests() {
            assert_eq!(request.header("X-Forwarded-For"), Some(client));
            assert_eq!(request.header("X-Real-IP"), Some(client));
        }
    }
}

#[test]
fn the_access_log_and_the_blacklist_know_whom_it_is_for() {
    let origin = origin();
    let toml = edge(&format!(
        "{TRUSTED}{}\n[logging.access]\npath = \"access.log\"\n",
        cluster(origin.address(), "")
    ));
    let proxy = Proxy::start(&toml);
    let ask = || {
        let mut client = proxy.client();
        client.send([b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n", GET].concat());
        client.try_read_response_to("GET").map(|answer| answer.status)
    };
    assert_eq!(ask().ok(), Some(200));
    let log = || std::fs::read_to_string(proxy.directory().join("access.log")).unwrap_or_default();
    assert!(eventually(|| log().contains("\"client_ip\":\"192.0.2.7\"")), "{}", log());
    let mut admin = proxy.client_of("admin");
    let body = r#"{"ip":"192.0.2.7"}"#;
    admin.send(format!(
        "POST /admin/blacklist HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let answer = admin.read_response();
    assert!(answer.status < 300, "{answer:?}");
    assert!(eventually(|| ask().is_err()));
    let mut other = proxy.client();
    other.send([b"PROXY TCP4 192.0.2.8 198.51.100.1 12345 443\r\n", GET].concat());
    assert_eq!(other.read_response().status, 200);
}

#[test]
fn a_header_of_a_stranger_is_not_read() {
    let origin = origin();
    let from = "proxy_protocol = { from = [\"10.0.0.0/8\"] }\n";
    let proxy = Proxy::start(&edge(&format!("{from}{}", cluster(origin.address(), ""))));
    assert_eq!(proxy.client().get("/").text(), "here");
    let mut liar = proxy.client();
    liar.send([b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n", GET].concat());
    assert_eq!(liar.read_response().status, 400);
    let mut liar = proxy.client();
    liar.send([&v2_of_ipv4(b"")[..], GET].concat());
    assert_eq!(liar.read_response().status, 400);
    assert_eq!(origin.only_request().header("X-Forwarded-For"), Some("127.0.0.1"));
}

#[test]
fn a_trusted_peer_without_a_header_or_with_a_broken_one_is_closed() {
    let origin = origin();
    let proxy = receiving(&origin, "");
    let long = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
    let inputs: Vec<Vec<u8>> = vec![
        GET.to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 12345\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\n".to_vec(),
        b"PROXY TCP4 192.0.2.07 198.51.100.1 12345 443\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::9 2001:db8::1 12345 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 012345 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n".to_vec(),
        b"PROXY  TCP4 192.0.2.7 198.51.100.1 12345 443\r\n".to_vec(),
        b"proxy TCP4 192.0.2.7 198.51.100.1 12345 443\r\n".to_vec(),
        b"PROXY UDP4 192.0.2.7 198.51.100.1 12345 443\r\n".to_vec(),
        long,
        v2(0x31, 0x11, &[0; 12]),
        v2(0x22, 0x11, &[0; 12]),
        v2(0x21, 0x11, &[0; 11]),
        v2(0x21, 0x51, &[0; 12]),
        v2(0x21, 0x11, &[0; 60_000]),
        v2_of_ipv4(&[4, 0, 100, 1]),
        v2_of_ipv4(&[3, 0, 4, 1, 2, 3, 4]),
    ];
    for bytes in inputs {
        let mut client = proxy.client();
        let _ = client.try_send([&bytes[..], GET].concat());
        let answer = client.read_to_close();
        assert!(answer.is_empty(), "{bytes:?}: {}", String::from_utf8_lossy(&answer));
    }
    proxy.wait_for_log("(proxy_header)");
    assert!(origin.requests().is_empty());
    let mut client = proxy.client();
    client.send([b"PROXY UNKNOWN\r\n", GET].concat());
    assert_eq!(client.read_response().text(), "here");
    assert!(eventually(|| proxy.connections_open() <= 1));
}

#[test]
fn a_slow_header_is_given_up() {
    let pki = signed();
    let origin = origin();
    let tls = format!(
        "[listeners.tls]\nhandshake_timeout = \"200ms\"\n\
         certificates = [{{ cert = {:?}, key = {:?} }}]\n",
        pki.path("www.pem"),
        pki.path("www.key")
    );
    let proxy = receiving(&origin, &tls);
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n";
    let mut clients: Vec<RawClient> = Vec::new();
    for length in 0..header.len() {
        let mut client = proxy.client();
        client.send(&header[..length]);
        clients.push(client);
    }
    for mut client in clients {
        assert!(client.read_to_close().is_empty());
    }
    assert!(eventually(|| proxy.connections_open() == 0));
}

fn signed() -> Pki {
    let pki = Pki::new();
    pki.authority("ca");
    pki.sign("ca", "www", "/CN=www", &format!("DNS:{HOST},IP:127.0.0.1"));
    pki
}

#[test]
fn a_header_comes_before_tls() {
    let pki = signed();
    let origin = origin();
    let tls = format!(
        "[listeners.tls]\ncertificates = [{{ cert = {:?}, key = {:?} }}]\n",
        pki.path("www.pem"),
        pki.path("www.key")
    );
    let proxy = receiving(&origin, &tls);
    let ca = pki.path("ca.pem").display().to_string();
    let url = format!("https://127.0.0.1:{}/", proxy.port("edge"));
    let got = Curl::get(&url, &["--haproxy-protocol", "--cacert", &ca]);
    assert_eq!((got.exit, got.text()), (0, "here"), "{}", got.stderr);
    let mut socket = TcpStream::connect(proxy.address("edge")).expect("it accepts");
    socket.write_all(&v2_of_ipv4(b"")).expect("taken");
    let mut client = secure(socket, &pki);
    assert_eq!(client.get("/").text(), "here");
    let told = origin.requests();
    assert_eq!(told[1].header("X-Forwarded-For"), Some("192.0.2.7"));
    assert_eq!(told[1].header("X-Forwarded-Proto"), Some("https"));
    let got = Curl::get(&url, &["--cacert", &ca]);
    assert_ne!(got.exit, 0, "it came without a header");
}

fn secure(mut socket: TcpStream, pki: &Pki) -> SecureClient {
    let config = SecureClient::config(&pki.path("ca.pem"));
    let name = rustls_pki_types::ServerName::try_from(HOST).expect("a name");
    let mut session = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    while session.is_handshaking() {
        session.complete_io(&mut socket).expect("the handshake goes on");
    }
    SecureClient::of(session, socket)
}

/// HAProxy, with one front end and one server.
struct HaProxy {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl HaProxy {
    fn start(bind: &str, server: &str) -> Option<HaProxy> {
        if !is_installed("haproxy", "haproxy") {
            return None;
        }
        let (directory, address) = (TempDir::new(), nobody());
        let config = directory.write(
            "haproxy.cfg",
            format!(
                "global\n nbthread 1\ndefaults\n mode http\n timeout connect 10s\n \
                 timeout client 30s\n timeout server 30s\n option forwardfor\n\
                 listen a\n bind {address} {bind}\n {server}\n"
            ),
        );
        let log = File::create(directory.path().join("log")).expect("the directory is ours");
        let child = Command::new(program("haproxy"))
            .args(["-db", "-f"])
            .arg(config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("haproxy starts");
        let proxy = HaProxy { child, address, directory };
        let accepts = eventually(|| TcpStream::connect(address).is_ok());
        assert!(accepts, "{}", proxy.directory.read("log"));
        Some(proxy)
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        signal(self.child.id(), "TERM");
        let _ = self.child.wait();
    }
}

#[test]
fn haproxy_says_whom_it_speaks_for() {
    for how in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"] {
        let origin = origin();
        let proxy = receiving(&origin, "");
        let server = format!("server s {} {how}", proxy.address("edge"));
        let server = format!("unique-id-format %[uuid()]\n {server}");
        let Some(haproxy) = HaProxy::start("", &server) else { return };
        let url = format!("http://{}/", haproxy.address);
        let got = Curl::get(&url, &["--interface", "127.0.0.9"]);
        assert_eq!((got.status, got.text()), (200, "here"), "{how}: {}", proxy.log());
        let told = origin.only_request();
        let real = told.header("X-Real-IP");
        assert_eq!(real, Some("127.0.0.9"), "{how}: {}", told.head);
    }
}

// --- out ---------------------------------------------------------------------------------------

/// What an origin gets before anything is answered, by connection.
fn recorder() -> (Origin, Arc<Mutex<Vec<Vec<u8>>>>) {
    let seen = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let keep = Arc::clone(&seen);
    let origin = Origin::connections(move |mut stream, _| {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            while !bytes.ends_with(b"\r\n\r\n") {
                match stream.read(&mut chunk) {
                    Ok(count @ 1..) => bytes.extend_from_slice(&chunk[..count]),
                    _ => return,
                }
            }
            keep.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut bytes));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    (origin, seen)
}

fn recorded(seen: &Mutex<Vec<Vec<u8>>>) -> Vec<Vec<u8>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[test]
fn an_endpoint_is_told_whom_a_connection_is_for() {
    for version in ["v1", "v2"] {
        let (origin, seen) = recorder();
        let greets = format!("proxy_protocol = \"{version}\"\n");
        let proxy = Proxy::start(&edge(&cluster(origin.address(), &greets)));
        let mut client = proxy.client();
        let port = client.local_addr().port();
        assert_eq!(client.get("/").text(), "ok");
        let first = recorded(&seen).remove(0);
        if version == "v1" {
            let expected =
                format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}\r\nGET /", proxy.port("edge"));
            assert!(first.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&first));
        } else {
            let expected = [V2, &[0x21, 0x11]].concat();
            assert!(first.starts_with(&expected), "{first:?}");
            let ports = [port.to_be_bytes(), proxy.port("edge").to_be_bytes()].concat();
            assert_eq!(first[16..28], [&[127, 0, 0, 1, 127, 0, 0, 1][..], &ports].concat());
            let length = usize::from(u16::from_be_bytes([first[14], first[15]]));
            assert!(first[16 + length..].starts_with(b"GET / HTTP/1.1\r\n"), "{first:?}");
        }
    }
}

#[test]
fn what_was_told_is_told_on() {
    let (origin, seen) = recorder();
    let rest = format!("{TRUSTED}{}", cluster(origin.address(), "proxy_protocol = \"v1\"\n"));
    let proxy = Proxy::start(&edge(&rest));
    let mut client = proxy.client();
    client.send([&v2_of_ipv4(b"")[..], GET].concat());
    assert_eq!(client.read_response().text(), "ok");
    let first = recorded(&seen).remove(0);
    assert!(first.starts_with(b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\nGET /"));
}

/// Kinds 5 and 2 of version 2, which are text: also without TLS that ends here.
#[test]
fn the_id_of_a_connection_and_the_host_that_it_is_for_are_told_on() {
    let (origin, seen) = recorder();
    let rest = format!("{TRUSTED}{}", cluster(origin.address(), "proxy_protocol = \"v2\"\n"));
    let proxy = Proxy::start(&edge(&rest));
    let mut client = proxy.client();
    let told: [&[u8]; 2] = [b"\x05\0\x04id42", b"\x02\0\x09a.example"];
    client.send([&v2_of_ipv4(&told.concat())[..], GET].concat());
    assert_eq!(client.read_response().text(), "ok");
    let first = recorded(&seen).remove(0);
    assert_eq!(first[16..28], v2_of_ipv4(b"")[16..28], "whom it is for");
    for told in told {
        assert!(first.windows(told.len()).any(|part| part == told), "{told:?} in {first:?}");
    }
}

#[test]
fn connections_are_not_shared_between_clients() {
    for version in ["v1", "v2"] {
        let (origin, seen) = recorder();
        let greets = format!("proxy_protocol = \"{version}\"\n");
        let proxy = Proxy::start(&edge(&cluster(origin.address(), &greets)));
        for _ in 0..5 {
            let mut client = proxy.client();
            for _ in 0..3 {
                assert_eq!(client.get("/").text(), "ok");
            }
        }
        let seen = recorded(&seen);
        assert_eq!(seen.len(), 15);
        let mut ports = Vec::new();
        let mut greeted = 0;
        for bytes in &seen {
            if bytes.starts_with(b"PROXY ") {
                greeted += 1;
                ports.push(String::from_utf8_lossy(bytes).split(' ').nth(4).map(str::to_owned));
            } else if bytes.starts_with(V2) {
                greeted += 1;
                ports.push(Some(format!("{:?}", &bytes[24..26])));
            }
        }
        ports.dedup();
        assert_eq!(ports.len(), 5, "{greeted} greetings: {ports:?}");
        assert!(origin.connections_accepted() >= 5);
    }
}

#[test]
fn nginx_and_haproxy_understand_it() {
    for version in ["v1", "v2"] {
        let server = "location / { return 200 \"$proxy_protocol_addr $proxy_protocol_port\"; }";
        let nginx = Nginx::start_with("proxy_protocol", server);
        let greets = format!("proxy_protocol = \"{version}\"\n");
        let proxy = Proxy::start(&edge(&cluster(nginx.address(), &greets)));
        let mut client = proxy.client();
        let port = client.local_addr().port();
        assert_eq!(client.get("/").text(), format!("127.0.0.1 {port}"), "{version}");
        let origin = origin();
        let server = format!("server s {}", origin.address());
        let Some(haproxy) = HaProxy::start("accept-proxy", &server) else { continue };
        let proxy = Proxy::start(&edge(&cluster(haproxy.address, &greets)));
        let url = proxy.url("/");
        let got = Curl::get(&url, &["--interface", "127.0.0.9"]);
        assert_eq!((got.status, got.text()), (200, "here"), "{}", got.stderr);
        let told = origin.requests().pop().expect("one came");
        let told = told.headers("X-Forwarded-For").join(", ");
        assert!(told.ends_with("127.0.0.9"), "{told}");
    }
}

#[test]
fn it_comes_before_tls_to_the_endpoint() {
    let pki = signed();
    let server = "ssl_certificate PKI/www.pem; ssl_certificate_key PKI/www.key;
                  location / { return 200 \"$proxy_protocol_addr $ssl_protocol\"; }";
    let server = server.replace("PKI/", &pki.path("").display().to_string());
    let nginx = Nginx::start_with("ssl proxy_protocol", &server);
    let more = format!(
        "proxy_protocol = \"v2\"\ntls = {{ ca = [{:?}], server_name = \"{HOST}\" }}\n",
        pki.path("ca.pem")
    );
    let proxy = Proxy::start(&edge(&cluster(nginx.address(), &more)));
    let answer = proxy.client().get("/");
    assert!(answer.text().starts_with("127.0.0.1 TLSv1."), "{answer:?}");
}

#[test]
fn what_is_known_of_the_clients_tls_is_told() {
    let pki = signed();
    let (origin, seen) = recorder();
    let tls = format!(
        "[listeners.tls]\ncertificates = [{{ cert = {:?}, key = {:?} }}]\n",
        pki.path("www.pem"),
        pki.path("www.key")
    );
    let rest = format!("{tls}{}", cluster(origin.address(), "proxy_protocol = \"v2\"\n"));
    let proxy = Proxy::start(&edge(&rest));
    let mut config = SecureClient::config(&pki.path("ca.pem"));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut client = SecureClient::connect_with(proxy.address("edge"), HOST, Arc::new(config));
    assert_eq!(client.get("/").text(), "ok");
    let first = recorded(&seen).remove(0);
    let has = |text: &[u8]| first.windows(text.len()).any(|part| part == text);
    assert!(has(HOST.as_bytes()) && has(b"TLSv1.3"), "{first:?}");
    assert!(has(b"\x01\0\x08http/1.1"), "what was negotiated: {first:?}");
}
