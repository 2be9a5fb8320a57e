//! TLS with clients that mean no good, or have lost their way. After each of them nothing is left
//! open, and whoever comes next is served.

mod support;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::crypto::aws_lc_rs as crypto;
use rustls::{AlertDescription, ClientConfig, ClientConnection, ConnectionTrafficSecrets, Error};
use rustls_pki_types::ServerName;
use support::{Origin, Pki, Proxy, RawClient, Respond, SClient, SecureClient, edge, eventually};

const HOST: &str = "www.example.com";

struct Served {
    proxy: Proxy,
    pki: Pki,
    _origin: Origin,
    /// Descriptors after the first request: a core keeps its connection to the origin.
    descriptors: usize,
}

fn serve(more: &str) -> Served {
    serve_with(more, "")
}

/// With a port `hasty` for whoever is to be given up; who is good has more time.
fn serve_hasty(timeout: &str) -> Served {
    serve_with(
        "",
        &format!(
            "[[listeners]]\nname = \"hasty\"\nbind = \"127.0.0.1:0\"\n[listeners.tls]\n\
         certificates = [{{ cert = \"PKI/www.pem\", key = \"PKI/www.key\" }}]\n\
         handshake_timeout = \"{timeout}\"\n"
        ),
    )
}

fn serve_with(more: &str, rest: &str) -> Served {
    let pki = Pki::new();
    pki.authority("ca");
    pki.sign("ca", "www", "/CN=www", &format!("DNS:{HOST}"));
    let big = vec![b'x'; 50 << 20];
    let origin =
        Origin::start().on("GET /", Respond::text("fine")).on("GET /big", Respond::bytes(big));
    let text = edge(&format!(
        "[listeners.tls]\ncertificates = [{{ cert = \"PKI/www.pem\", key = \"PKI/www.key\" }}]\n\
         {more}\n[[listeners]]\nname = \"plain\"\nbind = \"127.0.0.1:0\"\n\
         [[routes]]\nname = \"all\"\ncluster = \"a\"\n\
         [clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n{rest}",
        origin.address(),
    ));
    let proxy = Proxy::start(&text.replace("PKI/", &pki.path("").display().to_string()));
    let mut served = Served { proxy, pki, _origin: origin, descriptors: 0 };
    served.still_serves();
    served.descriptors = served.proxy.descriptors();
    served
}

impl Served {
    fn address(&self) -> SocketAddr {
        self.proxy.address("edge")
    }

    fn hasty(&self) -> SocketAddr {
        self.proxy.address("hasty")
    }

    fn authority(&self) -> PathBuf {
        self.pki.path("ca.pem")
    }

    fn config(&self) -> Arc<ClientConfig> {
        Arc::new(SecureClient::config(&self.authority()))
    }

    fn client(&self) -> SecureClient {
        SecureClient::connect(self.address(), HOST, &self.authority())
    }

    fn still_serves(&self) {
        let mut client = self.client();
        assert_eq!(client.get("/").text(), "fine");
        drop(client);
        let closed = eventually(|| self.proxy.connections_open() == 0);
        assert!(closed, "{} connections are open", self.proxy.connections_open());
    }

    fn is_unhurt(&self) {
        self.still_serves();
        let none_left = eventually(|| self.proxy.descriptors() <= self.descriptors);
        let (now, before) = (self.proxy.descriptors(), self.descriptors);
        assert!(none_left, "{now} descriptors, {before} before");
        assert_eq!(self.proxy.metric("tls_proxy_panics_total"), Some(0.0));
    }
}

/// A ClientHello without the hybrid key exchange, which makes it long.
fn short_config(served: &Served) -> ClientConfig {
    let mut provider = crypto::default_provider();
    provider.kx_groups = vec![crypto::kx_group::X25519];
    config_with(served, provider)
}

fn config_with(served: &Served, provider: rustls::crypto::CryptoProvider) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_safe_default_protocol_versions().expect("both");
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(served.authority()).expect("it is there");
    for certificate in rustls_pki_types::pem::PemObject::pem_slice_iter(&pem) {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    builder.with_root_certificates(roots).with_no_client_auth()
}

fn session(config: &ClientConfig) -> ClientConnection {
    let name = ServerName::try_from(HOST).expect("a name");
    ClientConnection::new(Arc::new(config.clone()), name).expect("a client")
}

fn hello(config: &ClientConfig) -> Vec<u8> {
    let mut bytes = Vec::new();
    session(config).write_tls(&mut bytes).expect("a Vec takes it");
    bytes
}

/// Runs the rest of a handshake whose ClientHello was sent already.
fn finish(mut session: ClientConnection, mut socket: TcpStream) -> SecureClient {
    while session.is_handshaking() {
        session.complete_io(&mut socket).expect("the handshake goes on");
    }
    SecureClient::of(session, socket)
}

// --- before and in the handshake ---------------------------------------------------------------

#[test]
fn every_prefix_of_a_client_hello_may_be_followed_by_the_end() {
    let served = serve("");
    let hello = hello(&short_config(&served));
    for length in 0..hello.len() {
        let mut client = RawClient::connect(served.address());
        client.send(&hello[..length]);
        client.half_close();
        client.read_to_close();
    }
    served.is_unhurt();
}

#[test]
fn every_prefix_of_a_client_hello_may_be_followed_by_silence() {
    let served = serve_hasty("300ms");
    let hello = hello(&short_config(&served));
    let clients: Vec<RawClient> = (0..hello.len())
        .map(|length| {
            let mut client = RawClient::connect(served.hasty());
            client.send(&hello[..length]);
            client
        })
        .collect();
    for mut client in clients {
        client.read_to_close();
    }
    served.proxy.wait_for_log("(timeout)");
    served.is_unhurt();
}

#[test]
fn a_client_that_trickles_does_not_get_longer_than_others() {
    let served = serve_hasty("500ms");
    let hello = hello(&short_config(&served));
    let mut client = RawClient::connect(served.hasty());
    let mut sent = 0;
    for byte in &hello[..hello.len() - 1] {
        if client.try_send([*byte]).is_err() {
            break;
        }
        sent += 1;
        thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(sent < hello.len() - 1, "all of it was taken");
    served.is_unhurt();
}

struct Trickle(TcpStream);

impl io::Read for Trickle {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read(room)
    }
}

impl io::Write for Trickle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        thread::sleep(std::time::Duration::from_micros(100));
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn a_handshake_and_a_request_may_come_byte_by_byte() {
    let served = serve("");
    let mut session = session(&served.config());
    let socket = TcpStream::connect(served.address()).expect("it accepts");
    socket.set_nodelay(true).expect("TCP");
    let mut trickle = Trickle(socket);
    while session.is_handshaking() {
        session.complete_io(&mut trickle).expect("the handshake goes on");
    }
    session.writer().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("room");
    while session.wants_write() {
        session.write_tls(&mut trickle).expect("taken");
    }
    let mut client = SecureClient::of(session, trickle.0);
    assert_eq!(client.read_response().text(), "fine");
    drop(client);
    served.is_unhurt();
}

#[test]
fn a_client_hello_may_be_cut_into_many_records() {
    let served = serve("");
    for (config, size) in
        [(short_config(&served), 5), (short_config(&served), 50), ((*served.config()).clone(), 100)]
    {
        let mut session = session(&config);
        let mut hello = Vec::new();
        session.write_tls(&mut hello).expect("a Vec takes it");
        let mut records = Vec::new();
        for part in hello[5..].chunks(size) {
            records.extend([22, 3, 1, 0, part.len() as u8]);
            records.extend(part);
        }
        let mut socket = TcpStream::connect(served.address()).expect("it accepts");
        socket.write_all(&records).expect("taken");
        let mut client = finish(session, socket);
        assert_eq!(client.get("/").text(), "fine", "records of {size}");
    }
    let hello = hello(&short_config(&served));
    let records = hello[5..].iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]);
    let mut client = RawClient::connect(served.address());
    let _ = client.try_send(records.collect::<Vec<u8>>());
    client.read_to_close();
    served.proxy.wait_for_log("cut into more records than");
    served.is_unhurt();
}

#[test]
fn garbage_is_closed() {
    let served = serve_hasty("300ms");
    let hello = hello(&short_config(&served));
    let mut inputs: Vec<Vec<u8>> = vec![
        vec![0; 1000],
        vec![22; 1000],
        vec![22, 3, 1, 0, 0],
        [22, 3, 1, 0, 0].repeat(1000),
        vec![22, 3, 1, 255, 255, 1, 255, 255, 255],
        vec![21, 3, 1, 0, 2, 1, 0],
        [21, 3, 1, 0, 2, 1, 90].repeat(1000),
        vec![20, 3, 3, 0, 1, 1],
        vec![23, 3, 3, 0, 4, 1, 2, 3, 4],
        vec![128, 46, 1, 3, 1, 0, 5],
        b"SSH-2.0-x\r\n".to_vec(),
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n".to_vec(),
        [&hello[..], &[23, 3, 3, 64, 0]].concat(),
        [&hello[..], &hello[..]].concat(),
        [&hello[..], &[0; 20_000]].concat(),
    ];
    // A byte that is wrong, at any place.
    for at in 0..hello.len() {
        let mut bytes = hello.clone();
        bytes[at] ^= 0x55;
        inputs.push(bytes);
    }
    let clients: Vec<RawClient> = inputs
        .into_iter()
        .map(|bytes| {
            let mut client = RawClient::connect(served.hasty());
            let _ = client.try_send(bytes);
            client
        })
        .collect();
    for mut client in clients {
        client.read_to_close();
    }
    served.is_unhurt();
}

#[test]
fn plain_http_on_a_tls_port_and_tls_on_a_plain_port_are_told_apart() {
    let served = serve("");
    let mut client = RawClient::connect(served.address());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_to_close();
    served.proxy.wait_for_log("is its URL `http://` instead of `https://`?");
    let mut client = served.proxy.client_of("plain");
    client.send(hello(&served.config()));
    let answer = client.read_to_close();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(served.proxy.client_of("plain").get("/").text(), "fine");
    served.is_unhurt();
}

#[test]
fn two_hundred_half_handshakes_hold_nobody_up() {
    let served = serve_hasty("6s");
    let hello = hello(&served.config());
    let mut clients: Vec<RawClient> = (0..200)
        .map(|_| {
            let mut client = RawClient::connect(served.hasty());
            client.send(&hello);
            client
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.read_exactly(1), [22], "a ServerHello");
    }
    assert_eq!(served.client().get("/").text(), "fine");
    for client in &mut clients {
        client.read_to_close();
    }
    served.is_unhurt();
}

#[test]
fn who_leaves_in_the_middle_of_a_handshake_leaves_nothing() {
    let served = serve("");
    let hello = hello(&served.config());
    for number in 0..50 {
        let mut client = RawClient::connect(served.address());
        client.send(&hello);
        if number % 2 == 0 {
            client.read_exactly(1);
        }
        client.close(); // with a RST
    }
    served.is_unhurt();
}

/// The end of a connection must not overtake the reason for it.
#[test]
fn a_refusal_arrives_before_the_end() {
    let served = serve("strict_sni = true\n");
    let name = ServerName::try_from("other.example").expect("a name");
    for _ in 0..50 {
        let mut session = ClientConnection::new(served.config(), name.clone()).expect("a client");
        let mut hello = Vec::new();
        session.write_tls(&mut hello).expect("a Vec takes it");
        let mut socket = TcpStream::connect(served.address()).expect("it accepts");
        socket.write_all(&hello).expect("taken");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).expect("an end, not a reset");
        assert_eq!(answer, [21, 3, 3, 0, 2, 2, 112]);
    }
    served.is_unhurt();
}

// --- after the handshake -----------------------------------------------------------------------

fn alert_of(client: &mut SecureClient) -> Option<AlertDescription> {
    let error = client.stream.read(&mut [0; 100]).err()?;
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    if let Error::AlertReceived(alert) = error { Some(*alert) } else { None }
}

#[test]
fn records_that_are_broken_end_the_connection_with_an_alert() {
    let served = serve("");
    let broken: [(&[u8], AlertDescription); 5] = [
        (&[23, 3, 3, 0, 30], AlertDescription::BadRecordMac),
        (&[23, 3, 3, 255, 255], AlertDescription::RecordOverflow),
        (&[23, 3, 3, 0, 1], AlertDescription::BadRecordMac),
        (&[22, 3, 3, 0, 30], AlertDescription::UnexpectedMessage),
        (&[23, 9, 9, 0, 30], AlertDescription::UnexpectedMessage),
    ];
    for (header, expected) in broken {
        for is_first in [true, false] {
            let mut client = served.client();
            if !is_first {
                assert_eq!(client.get("/").text(), "fine");
            }
            client.stream.sock.write_all(&[header, &[7; 30]].concat()).expect("taken");
            let alert = alert_of(&mut client);
            // What comes right behind a handshake may be looked at as a part of it.
            assert!(
                alert == Some(expected) || (is_first && alert.is_some()),
                "{header:?}: {alert:?}"
            );
        }
    }
    served.is_unhurt();
}

/// Seals records of TLS 1.3 that no client would send.
struct Forger {
    socket: TcpStream,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Forger {
    fn new(served: &Served) -> Forger {
        let mut config = SecureClient::config(&served.authority());
        config.enable_secret_extraction = true;
        let client = SecureClient::connect_with(served.address(), HOST, Arc::new(config));
        let (session, socket) = client.stream.into_parts();
        let secrets = session.dangerous_extract_secrets().expect("of a client that is done");
        let (sequence, ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets.tx else {
            panic!("TLS_AES_256_GCM_SHA384 comes first")
        };
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).expect("32 bytes");
        let iv = iv.as_ref().try_into().expect("12 bytes");
        Forger { socket, key: LessSafeKey::new(key), iv, sequence }
    }

    fn record(&mut self, inner: &[u8]) -> Vec<u8> {
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(a, b)| *a ^= b);
        self.sequence += 1;
        let [high, low] = ((inner.len() + 16) as u16).to_be_bytes();
        let header = [23, 3, 3, high, low];
        let mut body = inner.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut body);
        sealed.expect("it fits");
        [&header[..], &body].concat()
    }

    /// False: the proxy has closed.
    fn send(&mut self, inner: &[u8]) -> bool {
        let record = self.record(inner);
        self.socket.write_all(&record).is_ok()
    }

    fn read_to_close(mut self) {
        let mut rest = Vec::new();
        let end = self.socket.read_to_end(&mut rest);
        assert!(end.is_ok() || end.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset));
    }
}

/// The same for TLS 1.2, whose records say in the open what they are.
struct OldForger {
    socket: TcpStream,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl OldForger {
    fn new(served: &Served) -> OldForger {
        let mut provider = crypto::default_provider();
        let suite = rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;
        provider.cipher_suites.retain(|known| known.suite() == suite);
        let mut config = config_with(served, provider);
        config.enable_secret_extraction = true;
        let client = SecureClient::connect_with(served.address(), HOST, Arc::new(config));
        let (session, socket) = client.stream.into_parts();
        let secrets = session.dangerous_extract_secrets().expect("of a client that is done");
        let (sequence, ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets.tx else {
            panic!("the only suite that was offered")
        };
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).expect("32 bytes");
        let iv = iv.as_ref().try_into().expect("12 bytes");
        OldForger { socket, key: LessSafeKey::new(key), iv, sequence }
    }

    fn send(&mut self, content: u8, plain: &[u8]) -> bool {
        let mut nonce = self.iv;
        nonce[4..].copy_from_slice(&self.sequence.to_be_bytes());
        let [high, low] = (plain.len() as u16).to_be_bytes();
        let aad = [&self.sequence.to_be_bytes()[..], &[content, 3, 3, high, low]].concat();
        self.sequence += 1;
        let mut body = plain.to_vec();
        let explicit = &nonce[4..].to_vec()[..];
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self.key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut body);
        sealed.expect("it fits");
        let [high, low] = ((body.len() + 8) as u16).to_be_bytes();
        let record = [&[content, 3, 3, high, low][..], explicit, &body].concat();
        self.socket.write_all(&record).is_ok()
    }

    fn answers(&mut self) -> bool {
        self.send(23, &REQUEST[..REQUEST.len() - 1])
            && self.socket.read(&mut [0; 10_000]).is_ok_and(|count| count > 0)
    }
}

#[test]
fn tls_1_2_bears_records_without_data_no_longer() {
    let served = serve("");
    // No data, a warning, and one that asks for nothing.
    for (content, plain) in [(23, &b""[..]), (21, b"\x01\x64"), (21, b"\x01\x5a")] {
        let mut forger = OldForger::new(&served);
        for _ in 0..20 {
            assert!(forger.send(content, plain));
        }
        assert!(forger.answers(), "{content} {plain:?}");
        let sent = (0..1_000_000).take_while(|_| forger.send(content, plain)).count();
        assert!(sent < 1_000_000, "{content} {plain:?} were borne");
    }
    // What ends it at once: another handshake, a fatal alert, half of one, an unknown kind, a
    // change of ciphers, too much.
    let long = [b'x'; 16_385];
    for (content, plain) in [
        (22, &b"\x01\0\0\x05hello"[..]),
        (22, b"\0\0\0\0"),
        (22, b""),
        (21, b"\x02\x28"),
        (21, b"\x02"),
        (24, b"\x01\0\x05hello"),
        (20, b"\x01"),
        (23, &long),
    ] {
        let mut forger = OldForger::new(&served);
        assert!(forger.answers());
        assert!(forger.send(content, plain));
        let mut rest = Vec::new();
        let end = forger.socket.read_to_end(&mut rest);
        assert!(end.is_ok() || end.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset));
    }
    served.is_unhurt();
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\x17";

#[test]
fn records_without_data_are_borne_for_a_while() {
    for inner in [
        &b"\x17"[..],            // no data
        b"\x17\0\0\0\0\0\0\0",   // and padding
        b"\x01\x5a\x15",         // user_canceled, which a goodbye should follow
        b"\x18\0\0\x01\x00\x16", // a new key of which we could not know
    ] {
        let served = serve("");
        let mut forger = Forger::new(&served);
        let is_key_update = inner.ends_with(b"\x16");
        for _ in 0..if is_key_update { 0 } else { 20 } {
            assert!(forger.send(inner), "{inner:?}");
        }
        assert!(forger.send(REQUEST));
        let mut first = [0; 1];
        forger.socket.read_exact(&mut first).expect("an answer");
        // Without end they are not.
        let mut sent = 0;
        while forger.send(inner) && sent < 1_000_000 {
            sent += 1;
        }
        assert!(sent < 1_000_000, "{inner:?} were borne");
        served.is_unhurt();
    }
}

/// Records with a byte that is wrong, cut anywhere, in pieces of any size.
#[test]
fn chance_finds_nothing_that_hurts() {
    let served = serve("");
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut chance = move |most: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % most
    };
    for _ in 0..150 {
        let mut forger = Forger::new(&served);
        let mut bytes = Vec::new();
        for _ in 0..=chance(4) {
            let inner: Vec<u8> = match chance(4) {
                0 => REQUEST.to_vec(),
                1 => (0..chance(300)).map(|_| chance(256) as u8).collect(),
                2 => [&vec![b'x'; chance(16_384)][..], &[23]].concat(),
                _ => [&[24, 0, 0, 1, chance(3) as u8][..], &[22]].concat(),
            };
            bytes.extend(forger.record(&inner));
        }
        for _ in 0..chance(3) {
            let at = chance(bytes.len());
            bytes[at] = chance(256) as u8;
        }
        bytes.truncate(bytes.len() - chance(2) * chance(bytes.len()));
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(1 + chance(rest.len()));
            if forger.socket.write_all(now).is_err() {
                break;
            }
            rest = later;
        }
        let _ = forger.socket.shutdown(std::net::Shutdown::Write);
        forger.read_to_close();
    }
    served.is_unhurt();
}

#[test]
fn what_no_client_may_say_ends_the_connection() {
    let inners: [&[u8]; 10] = [
        b"",                                 // no content type
        b"\0\0\0\0",                         // nothing but padding
        b"\x16",                             // an empty part of a handshake
        b"\x01\0\0\x05hello\x16",            // a ClientHello
        b"\x04\0\0\x01\0\x16",               // a ticket
        b"\x18\0\0\x02\0\0\x16",             // a key update that is too long
        b"\x18\0\0\x01\x02\x16",             // one that asks for nothing known
        b"\x18\0\0\x01\0\x18\0\0\x01\0\x16", // two of them with one key
        b"\x02\x15",                         // half an alert
        b"\x01\x14",                         // ChangeCipherSpec, sealed
    ];
    let served = serve("");
    for inner in inners {
        let mut forger = Forger::new(&served);
        assert!(forger.send(inner));
        forger.read_to_close();
    }
    // A record that is too long by one, whole and sealed.
    let mut forger = Forger::new(&served);
    forger.send(&[&[b'x'; 16_385][..], &[23]].concat());
    forger.read_to_close();
    served.is_unhurt();
}

#[test]
fn keys_may_be_updated_often_but_not_for_ever() {
    let served = serve("");
    let mut client = served.client();
    // The first of them comes right behind the handshake.
    for _ in 0..200 {
        client.stream.conn.refresh_traffic_keys().expect("TLS 1.3");
        assert_eq!(client.get("/").text(), "fine");
    }
    let mut ended = false;
    for _ in 0..100_000 {
        let renewed = client.stream.conn.refresh_traffic_keys();
        if renewed.is_err() || client.stream.flush().is_err() {
            ended = true;
            break;
        }
    }
    assert!(ended, "it was let go on");
    drop(client);
    served.is_unhurt();
}

/// Each asks for an answer that the client does not fetch; between them an upload goes on.
#[test]
fn new_keys_during_an_upload_cost_no_memory() {
    let served = serve("");
    let mut client = served.client();
    client.send("POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n");
    let mut renew = |count: usize| {
        (0..count).all(|_| {
            let renewed = client.stream.conn.refresh_traffic_keys().is_ok();
            renewed && client.stream.write_all(&[b'x'; 10]).is_ok()
        })
    };
    assert!(renew(2_000), "they are no crime");
    // Buffers of the proxy grow once; what is kept of each would grow every time: by 27 bytes.
    let grown = (0..3).map(|_| {
        let before = served.proxy.rss_kb();
        assert!(renew(25_000), "they are no crime");
        served.proxy.rss_kb().saturating_sub(before)
    });
    let grown: Vec<u64> = grown.collect();
    assert!(grown.iter().any(|&kib| kib < 300), "{grown:?} KiB are held");
    drop(client);
    served.is_unhurt();
}

#[test]
fn a_client_that_never_reads_is_given_up() {
    let served = serve_with("", "\n[timeouts]\nwrite = \"500ms\"\n");
    for _ in 0..3 {
        let mut client = served.client();
        client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
        let gone = || served.proxy.connections_open() == 0;
        assert!(eventually(|| !gone()) && eventually(gone));
        let (bytes, is_whole) = client.read_to_end();
        assert!(bytes.len() < 50 << 20 && !is_whole);
    }
    served.is_unhurt();
}

#[test]
fn a_client_that_only_asks_for_renegotiation_is_let_go() {
    let served = serve("");
    for _ in 0..5 {
        let mut client = SClient::start(served.address(), &["-tls1_2"]);
        client.wait_for("Verify return code");
        client.write("R\n");
        client.wait_exit();
    }
    served.is_unhurt();
}
