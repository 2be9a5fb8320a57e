//! TLS with clients that nobody here wrote: what is spoken, what is refused, which certificate a
//! client gets, and that HTTP works on it as it does without.

mod support;

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustls::NamedGroup;
use support::{
    Curl, Gate, Json, Origin, Pki, Proxy, RawClient, Respond, SClient, SecureClient, edge,
    eventually, is_installed, program, python,
};

const HOST: &str = "www.example.com";
const ECHO: &str = "[[routes]]\nname = \"all\"\necho = true\n";

/// A listener `edge` with TLS; `more` goes into its section, `rest` behind it.
struct Served {
    pki: Pki,
    proxy: Proxy,
}

fn serve(more: &str, rest: &str) -> Served {
    serve_with(signed(&["www"]), &["www"], more, rest)
}

/// Certificates for `HOST`, from the authority `ca`. Those called `-rsa` have such keys.
fn signed(names: &[&str]) -> Pki {
    let pki = Pki::new();
    pki.authority("ca");
    for name in names {
        pki.sign("ca", name, &format!("/CN={name}"), &format!("DNS:{HOST}"));
    }
    pki
}

fn serve_with(pki: Pki, certificates: &[&str], more: &str, rest: &str) -> Served {
    let proxy = Proxy::start(&configuration(&pki, certificates, more, rest));
    Served { pki, proxy }
}

fn configuration(pki: &Pki, certificates: &[&str], more: &str, rest: &str) -> String {
    edge(&format!("[listeners.tls]\n{}{more}\n\n{rest}", listed(pki, certificates)))
}

fn listed(pki: &Pki, certificates: &[&str]) -> String {
    let mut list = "certificates = [\n".to_owned();
    for name in certificates {
        let (cert, key) = (pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key")));
        let _ = writeln!(list, "{{ cert = {cert:?}, key = {key:?} }},");
    }
    list + "]\n"
}

fn cluster(origin: SocketAddr) -> String {
    format!(
        "[[routes]]\nname = \"all\"\ncluster = \"a\"\n\
         [clusters.a]\nendpoints = [{{ address = \"{origin}\" }}]\n"
    )
}

impl Served {
    fn authority(&self) -> PathBuf {
        self.pki.path("ca.pem")
    }

    fn address(&self) -> SocketAddr {
        self.proxy.address("edge")
    }

    fn client(&self) -> SecureClient {
        SecureClient::connect(self.address(), HOST, &self.authority())
    }

    fn curl(&self, path: &str, arguments: &[&str]) -> Curl {
        let port = self.address().port();
        let (resolve, authority) = (format!("{HOST}:{port}:127.0.0.1"), self.authority());
        let authority = authority.display().to_string();
        let given = ["--resolve", &resolve, "--cacert", &authority];
        Curl::get(&format!("https://{HOST}:{port}{path}"), &[&given, arguments].concat())
    }

    fn fetch(&self, arguments: &[&str]) -> String {
        let authority = self.authority().display().to_string();
        let given = ["-servername", HOST, "-CAfile", &authority];
        SClient::fetch(self.address(), &[&given, arguments].concat())
    }

    /// What `openssl x509 -subject` says of the certificate that a client gets.
    fn subject(&self, arguments: &[&str]) -> String {
        let said = SClient::fetch(self.address(), arguments);
        let subject = said.lines().find_map(|line| line.strip_prefix("subject="));
        subject.unwrap_or_else(|| panic!("no certificate:\n{said}")).replace(' ', "")
    }
}

// --- what is spoken ----------------------------------------------------------------------------

#[test]
fn curl_fetches_with_tls_1_3_and_1_2() {
    let served = serve("", ECHO);
    for version in ["--tlsv1.3", "--tls-max=1.2"] {
        let arguments = match version.split_once('=') {
            Some((key, value)) => vec![key, value],
            None => vec![version],
        };
        let got = served.curl("/hello?x=1", &[&arguments[..], &["--verbose"]].concat());
        assert_eq!((got.exit, got.status), (0, 200), "{}", got.stderr);
        assert!(got.text().starts_with("GET /hello?x=1"), "{}", got.text());
        assert!(got.stderr.contains("server accepted h2"), "{}", got.stderr);
    }
}

#[test]
fn python_fetches_with_tls_1_3_and_1_2() {
    let origin = Origin::start().on("POST /there", Respond::text("taken"));
    let served = serve("", &cluster(origin.address()));
    let script = "
import http.client, ssl, sys
port, authority = int(sys.argv[1]), sys.argv[2]
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=authority)
    context.minimum_version = context.maximum_version = version
    plain = http.client.HTTPConnection('127.0.0.1', port)
    plain.connect()
    plain.sock = context.wrap_socket(plain.sock, server_hostname='www.example.com')
    for number in range(3):
        plain.request('POST', '/there', body=b'x' * 100_000)
        answer = plain.getresponse()
        assert answer.status == 200 and answer.read() == b'taken'
    print(plain.sock.version(), plain.sock.compression())
    plain.sock.unwrap()
";
    let port = served.address().port().to_string();
    let printed = python(script, &[&port, &served.authority().display().to_string()]);
    assert_eq!(printed, "TLSv1.2 None\nTLSv1.3 None\n");
}

/// The suites of the default configuration, and no other.
#[test]
fn every_default_suite_is_spoken() {
    let pki = signed(&["www", "www-rsa"]);
    let served = serve_with(pki, &["www", "www-rsa"], "", ECHO);
    for suite in
        ["TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"]
    {
        let said = SClient::fetch(served.address(), &["-tls1_3", "-ciphersuites", suite]);
        assert!(said.contains(&format!("TLSv1.3, Cipher is {suite}")), "{said}");
        assert!(said.contains("HTTP/1.1 200 OK") && said.contains("closed"), "{said}");
    }
    for kind in ["ECDSA", "RSA"] {
        for cipher in ["AES256-GCM-SHA384", "CHACHA20-POLY1305", "AES128-GCM-SHA256"] {
            let suite = format!("ECDHE-{kind}-{cipher}");
            let said = SClient::fetch(served.address(), &["-tls1_2", "-cipher", &suite]);
            assert!(said.contains(&format!("TLSv1.2, Cipher is {suite}")), "{said}");
            assert!(said.contains("Extended master secret: yes"), "{said}");
            assert!(said.contains("HTTP/1.1 200 OK"), "{said}");
        }
    }
}

#[test]
fn a_browsers_hybrid_key_exchange_comes_first() {
    let served = serve("", ECHO);
    let mut client = served.client();
    assert_eq!(client.get("/").status, 200);
    let group = client.stream.conn.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    for (offered, taken) in
        [("X25519:P-256", "X25519, 253 bits"), ("P-256", "prime256v1"), ("P-384", "secp384r1")]
    {
        let said = served.fetch(&["-curves", offered]);
        assert!(said.contains(taken) && said.contains("200 OK"), "{offered}: {said}");
    }
    assert!(served.fetch(&["-curves", "P-521"]).contains("alert handshake failure"));
}

#[test]
fn old_versions_and_weak_suites_are_refused() {
    let pki = signed(&["www", "www-rsa"]);
    let served = serve_with(pki, &["www", "www-rsa"], "", ECHO);
    let weakened = |arguments: &[&str]| {
        let seclevel = ["-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"];
        SClient::fetch(served.address(), &[arguments, &seclevel].concat())
    };
    for version in ["-tls1", "-tls1_1"] {
        let said = weakened(&[version]);
        assert!(said.contains("alert") && said.contains("Cipher is (NONE)"), "{version}: {said}");
    }
    for suite in
        ["RC4", "3DES", "AES128-SHA", "ECDHE-RSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA384"]
    {
        let cipher = format!("{suite}:@SECLEVEL=0");
        let said = SClient::fetch(served.address(), &["-tls1_2", "-cipher", &cipher]);
        assert!(!said.contains("HTTP/1.1"), "{suite}: {said}");
        let is_unknown_here = said.contains("no cipher match");
        assert!(is_unknown_here || said.contains("alert handshake failure"), "{suite}: {said}");
    }
    // AES128-GCM without forward secrecy
    let said = SClient::fetch(served.address(), &["-tls1_2", "-cipher", "AES128-GCM-SHA256"]);
    assert!(said.contains("alert handshake failure"), "{said}");
    let mut sslv3 = RawClient::connect(served.address());
    // A ClientHello of SSL 3.0 with RC4.
    let mut hello = vec![22, 3, 0, 0, 45, 1, 0, 0, 41, 3, 0];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 5, 1, 0]);
    sslv3.send(&hello);
    let answer = sslv3.read_to_close();
    assert!(answer.is_empty() || (answer[0] == 21 && answer.len() == 7), "{answer:?}");
    assert_eq!(served.client().get("/").status, 200);
}

#[test]
fn versions_of_the_configuration_are_kept_to() {
    let only_1_3 = serve("min_version = \"1.3\"\n", ECHO);
    let said = only_1_3.fetch(&["-tls1_2"]);
    assert!(said.contains("alert protocol version"), "{said}");
    assert!(only_1_3.fetch(&["-tls1_3"]).contains("HTTP/1.1 200 OK"));
    let only_1_2 = serve("max_version = \"1.2\"\n", ECHO);
    assert!(only_1_2.fetch(&["-tls1_3"]).contains("alert protocol version"));
    assert!(only_1_2.fetch(&["-tls1_2"]).contains("HTTP/1.1 200 OK"));
}

#[test]
fn the_suites_of_the_configuration_are_taken_in_its_order() {
    let suites = "cipher_suites = [\"TLS_AES_128_GCM_SHA256\", \"TLS_AES_256_GCM_SHA384\", \
                  \"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\"]\n";
    let served = serve(suites, ECHO);
    let said = served.fetch(&["-tls1_3"]);
    assert!(said.contains("Cipher is TLS_AES_128_GCM_SHA256"), "{said}");
    let said = served.fetch(&["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"]);
    assert!(said.contains("alert handshake failure"), "{said}");
    let said = served.fetch(&["-tls1_2"]);
    assert!(said.contains("Cipher is ECDHE-ECDSA-AES128-GCM-SHA256"), "{said}");
}

#[test]
fn alpn_is_what_both_speak_or_nothing() {
    let served = serve("", ECHO);
    let said = served.fetch(&["-alpn", "http/1.1,h2"]);
    assert!(said.contains("ALPN protocol: h2"), "{said}");
    let said = served.fetch(&["-alpn", "spdy/3,http/1.1"]);
    assert!(said.contains("ALPN protocol: http/1.1") && said.contains("200 OK"), "{said}");
    let said = served.fetch(&["-alpn", "h3,spdy/3"]);
    assert!(said.contains("no application protocol") && !said.contains("HTTP/1.1"), "{said}");
    let said = served.fetch(&[]);
    assert!(said.contains("No ALPN negotiated") && said.contains("200 OK"), "{said}");
}

#[test]
fn nothing_is_negotiated_twice_and_nothing_is_compressed() {
    let served = serve("", ECHO);
    let mut client =
        SClient::start(served.address(), &["-tls1_2", "-comp", "-legacy_renegotiation"]);
    client.wait_for("Compression: NONE");
    client.wait_for("Secure Renegotiation IS supported");
    client.wait_for("Extended master secret");
    client.write("R\n");
    client.wait_for("RENEGOTIATING");
    client.wait_exit();
    let said = client.said();
    assert!(said.contains("alert"), "{said}");
    assert_eq!(served.client().get("/").status, 200);
}

#[test]
fn keys_are_updated_in_both_directions() {
    let origin = Origin::start().on("GET /s_client", Respond::text("still here"));
    let served = serve("", &cluster(origin.address()));
    let mut client = SClient::start(served.address(), &["-tls1_3", "-crlf"]);
    client.wait_for("Verify return code");
    for (round, letter) in ["k\n", "K\n", "K\n", "k\n"].into_iter().enumerate() {
        client.write(letter);
        let updates = || client.said().matches("KEYUPDATE").count() > round;
        assert!(eventually(updates), "{}", client.said());
        client.write("GET /s_client HTTP/1.1\nHost: a\n\n");
        let answered = || client.said().matches("still here").count() > round;
        assert!(eventually(answered), "after {letter}:\n{}", client.said());
    }
}

// --- which certificate -------------------------------------------------------------------------

#[test]
fn exact_names_win_over_the_longest_wildcard_and_that_over_the_default() {
    let pki = signed(&[]);
    for (name, host) in [
        ("default", "default.example"),
        ("wide", "*.example.com"),
        ("long", "*.a.example.com"),
        ("exact", "b.a.example.com"),
    ] {
        pki.sign("ca", name, &format!("/CN={name}"), &format!("DNS:{host}"));
    }
    let served = serve_with(pki, &["default", "wide", "long", "exact"], "", ECHO);
    for (host, expected) in [
        ("b.a.example.com", "CN=exact"),
        ("B.A.Example.COM", "CN=exact"),
        ("c.a.example.com", "CN=long"),
        ("a.example.com", "CN=wide"),
        ("x.y.a.example.com", "CN=default"),
        ("example.com", "CN=default"),
        ("other.example", "CN=default"),
    ] {
        assert_eq!(served.subject(&["-servername", host]), expected, "for {host}");
    }
    assert_eq!(served.subject(&["-noservername"]), "CN=default");
}

#[test]
fn strict_sni_refuses_what_no_certificate_is_for() {
    let served = serve("strict_sni = true\n", ECHO);
    for arguments in [["-servername", "other.example"].as_slice(), &["-noservername"]] {
        for version in ["-tls1_3", "-tls1_2"] {
            let said = SClient::fetch(served.address(), &[arguments, &[version]].concat());
            assert!(said.contains("unrecognized name"), "{arguments:?}: {said}");
        }
    }
    assert_eq!(served.curl("/", &[]).status, 200);
    served.proxy.wait_for_log("no certificate is for `other.example`");
}

#[test]
fn listeners_have_certificates_of_their_own() {
    let pki = signed(&["www", "other"]);
    let second = format!(
        "[[listeners]]\nname = \"second\"\nbind = \"127.0.0.1:0\"\n[listeners.tls]\n{}\n{ECHO}",
        listed(&pki, &["other"])
    );
    let served = serve_with(pki, &["www"], "", &second);
    assert_eq!(served.subject(&["-servername", HOST]), "CN=www");
    let said = SClient::fetch(served.proxy.address("second"), &["-servername", HOST]);
    assert!(said.contains("CN = other") && said.contains("200 OK"), "{said}");
}

#[test]
fn three_hundred_certificates_are_told_apart() {
    let pki = signed(&[]);
    let names: Vec<String> = (0..300).map(|number| format!("n{number}")).collect();
    for name in &names {
        pki.sign("ca", name, &format!("/CN={name}"), &format!("DNS:{name}.example.com"));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let served = serve_with(pki, &names, "strict_sni = true\n", ECHO);
    for number in [0, 1, 99, 150, 298, 299] {
        let host = format!("n{number}.example.com");
        let mut client = SecureClient::connect(served.address(), &host, &served.authority());
        assert_eq!(client.get("/").status, 200, "{host}");
    }
}

#[test]
fn of_two_certificates_for_one_name_the_client_gets_the_kind_it_prefers() {
    for order in [["www", "www-rsa"], ["www-rsa", "www"]] {
        let pki = signed(&["www", "www-rsa"]);
        let served = serve_with(pki, &order, "", ECHO);
        for (schemes, expected) in [
            ("rsa_pss_rsae_sha256:ecdsa_secp256r1_sha256", "CN=www-rsa"),
            ("ecdsa_secp256r1_sha256:rsa_pss_rsae_sha256", "CN=www"),
            ("rsa_pss_rsae_sha512", "CN=www-rsa"),
            ("ECDSA+SHA256", "CN=www"),
        ] {
            for version in ["-tls1_2", "-tls1_3"] {
                for name in [["-servername", HOST].as_slice(), &["-noservername"]] {
                    let given = [&["-sigalgs", schemes, version], name].concat();
                    assert_eq!(served.subject(&given), expected, "{given:?}");
                }
            }
        }
        let given = ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256", "-servername", HOST];
        assert_eq!(served.subject(&given), "CN=www-rsa");
        let given = ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256", "-servername", HOST];
        assert_eq!(served.subject(&given), "CN=www");
    }
}

#[test]
fn pfx_files_have_their_password_in_a_file_or_in_the_environment() {
    let pki = Pki::new();
    pki.authority("ca");
    pki.export("www", HOST, "of the file");
    pki.export("env", "env.example.com", "of the environment");
    let list = format!(
        "[listeners.tls]\ncertificates = [\n{{ cert = {:?}, password_file = {:?} }},\n\
         {{ cert = {:?}, password = \"${{PFX_PASSWORD}}\" }},\n]\n{ECHO}",
        pki.path("www.pfx"),
        pki.path("www.password"),
        pki.path("env.pfx"),
    );
    let variables = [("PFX_PASSWORD", "of the environment")];
    let proxy = Proxy::start_in(&variables, &[], &edge(&list));
    let served = Served { pki, proxy };
    assert_eq!(served.subject(&["-servername", HOST]), "CN=www");
    assert_eq!(served.subject(&["-servername", "env.example.com"]), "CN=env");
    assert!(!served.proxy.log().contains("of the environment"), "{}", served.proxy.log());
}

#[test]
fn a_key_that_does_not_match_and_what_has_expired_end_the_start() {
    let pki = signed(&["www", "other"]);
    std::fs::copy(pki.path("other.key"), pki.path("www.key")).expect("it is there");
    pki.sign_expired("ca", "old", "DNS:www.example.com");
    for (name, file, reason) in [("www", "www.key", "key"), ("old", "old.pem", "expired")] {
        let config = pki.write(&format!("{name}.toml"), &configuration(&pki, &[name], "", ECHO));
        let output = Proxy::command(&["run", "--config", &config.display().to_string()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(file) && said.contains(reason), "{said}");
        assert!(said.contains(&format!("{name}.toml:")), "{said}");
    }
}

#[test]
fn a_host_that_the_certificate_is_not_for_is_misdirected() {
    let pki = signed(&["www"]);
    pki.sign("ca", "other", "/CN=other", "DNS:other.example.com");
    let origin = Origin::start().on("GET /", Respond::text("here"));
    let more = "check_host = true\n";
    let served = serve_with(pki, &["www", "other"], more, &cluster(origin.address()));
    let port = served.address().port();
    let mut client = served.client();
    for host in [HOST.to_owned(), format!("{HOST}:{port}"), "WWW.Example.COM.".to_owned()] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.read_response().status, 200, "{host}");
    }
    client.send("GET / HTTP/1.1\r\nHost: other.example.com\r\n\r\n");
    assert_eq!(client.read_response().status, 421);
    let before = origin.requests().len();
    assert_eq!(before, 3, "it went nowhere");
    let authority = served.authority();
    let mut next = SecureClient::connect(served.address(), "other.example.com", &authority);
    next.send("GET / HTTP/1.1\r\nHost: other.example.com\r\n\r\n");
    assert_eq!(next.read_response().status, 200);
    next.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(next.read_response().status, 421);
}

// --- HTTP on it --------------------------------------------------------------------------------

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

const SIZES: [usize; 9] = [0, 1, 100, 16_383, 16_384, 16_385, 65_536, 1_000_000, 5 << 20];

#[test]
fn bodies_of_all_sizes_go_down() {
    let mut origin = Origin::start();
    for size in SIZES {
        origin = origin
            .on(&format!("GET /length/{size}"), Respond::bytes(pattern(size)))
            .on(&format!("GET /chunks/{size}"), Respond::bytes(pattern(size)).chunked(7_001))
            .on(&format!("GET /close/{size}"), Respond::bytes(pattern(size)).until_close());
    }
    let served = serve("", &cluster(origin.address()));
    for version in [&["--tlsv1.3"][..], &["--tls-max", "1.2"]] {
        for size in SIZES {
            for kind in ["length", "chunks", "close"] {
                let got = served.curl(&format!("/{kind}/{size}"), version);
                assert_eq!((got.exit, got.status), (0, 200), "{kind} {size}: {}", got.stderr);
                assert!(got.body == pattern(size), "{kind} {size}: {} came", got.body.len());
            }
        }
    }
}

#[test]
fn bodies_of_all_sizes_go_up() {
    let origin = Origin::start().on("POST /", Respond::text("taken"));
    let served = serve("", &cluster(origin.address()));
    let mut client = served.client();
    for (number, size) in SIZES.into_iter().enumerate() {
        let body = pattern(size);
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"));
        client.send(&body);
        assert_eq!(client.read_response().text(), "taken");
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for chunk in body.chunks(9_000) {
            client.send([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
        }
        client.send("0\r\n\r\n");
        assert_eq!(client.read_response().text(), "taken");
        let requests = origin.requests();
        assert_eq!(requests.len(), 2 * number + 2);
        assert!(requests[2 * number..].iter().all(|request| request.body == body), "{size}");
    }
}

#[test]
fn a_thousand_requests_share_one_handshake() {
    let origin = Origin::start().on("GET /", Respond::text("hello"));
    let served = serve("", &cluster(origin.address()));
    let mut client = served.client();
    for _ in 0..1000 {
        assert_eq!(client.get("/").text(), "hello");
    }
    assert_eq!(served.proxy.connections_open(), 1);
}

#[test]
fn pipelined_requests_head_and_expect_work_as_without_tls() {
    let origin = Origin::start()
        .on("GET /a", Respond::text("first"))
        .on("GET /b", Respond::text("second"))
        .on("HEAD /a", Respond::text("first"))
        .on("POST /", Respond::text("taken"));
    let served = serve("", &cluster(origin.address()));
    let mut client = served.client();
    let many = "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50);
    client.send(many);
    for _ in 0..50 {
        assert_eq!(client.read_response().text(), "first");
        assert_eq!(client.read_response().text(), "second");
    }
    client.send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.try_read_response_to("HEAD").expect("an answer");
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.read_response().status, 100);
    client.send("body");
    assert_eq!(client.read_response().text(), "taken");
    let got = served.curl("/a", &["-X", "HEAD", "--head"]);
    assert_eq!((got.exit, got.status), (0, 200), "{}", got.stderr);
}

#[test]
fn a_client_that_reads_slowly_holds_the_origin_back_and_gets_it_all() {
    let size = 40 << 20;
    let (begun, written) = (Gate::new(), Gate::new());
    let (tell_begun, tell_written) = (begun.clone(), written.clone());
    let sent = Arc::new(AtomicUsize::new(0));
    let count_sent = Arc::clone(&sent);
    let origin = Origin::raw(move |stream, _, _| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
        tell_begun.open();
        let block = pattern(251 * 400);
        let mut left = size;
        while left > 0 {
            let count = left.min(block.len());
            if stream.write_all(&block[..count]).is_err() {
                break;
            }
            left -= count;
            count_sent.fetch_add(count, Ordering::SeqCst);
        }
        tell_written.open();
        support::After::Close
    });
    let served = serve("", &cluster(origin.address()));
    let mut client = served.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    begun.wait();
    let mut first = [0; 1];
    client.stream.read_exact(&mut first).expect("the answer begins");
    // As long as nobody reads, the origin is held back by what kernels keep of a connection.
    let (mut last, mut rounds) = (0, 0);
    let settled = eventually(|| {
        let now = sent.load(Ordering::SeqCst);
        rounds = if std::mem::replace(&mut last, now) == now { rounds + 1 } else { 0 };
        rounds > 40
    });
    assert!(settled && last < size - (8 << 20), "{last} bytes were taken");
    let response = client.read_rest_of(first[0], size);
    assert_eq!(response, size);
    written.wait();
}

/// Three times as long as a write may wait without progress.
#[test]
fn a_client_that_reads_steadily_is_not_cut_however_long_it_takes() {
    let size = 30 << 20;
    let origin = Origin::start().on("GET /", Respond::bytes(pattern(size)));
    let timeouts = "[timeouts]\nwrite = \"2s\"\n";
    let served = serve("", &(cluster(origin.address()) + timeouts));
    let mut client = served.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut one = [0; 1];
        client.stream.read_exact(&mut one).expect("a head");
        head.push(one[0]);
    }
    let (mut body, mut chunk) = (Vec::new(), vec![0; 150_000]);
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(300));
        client.stream.read_exact(&mut chunk).expect("the body goes on");
        body.extend_from_slice(&chunk);
    }
    let mut rest = vec![0; size - body.len()];
    client.stream.read_exact(&mut rest).expect("the body goes on to its end");
    body.extend_from_slice(&rest);
    assert!(body == pattern(size));
    drop(client);
    assert!(eventually(|| served.proxy.connections_open() == 0));
}

/// A slow client is heard of by parts of a record, as it is by bytes without TLS.
#[test]
fn a_record_may_take_longer_than_a_read_while_its_parts_keep_coming() {
    const LAST: usize = 8_000;
    let origin = Origin::start().on("POST /", Respond::text("taken"));
    let timeouts = "[timeouts]\nread = \"2s\"\n";
    let served = serve("", &(cluster(origin.address()) + timeouts));
    // The second is long enough to go on unread.
    let clients = [LAST, (3 << 20) + LAST].map(|size| {
        let mut client = served.client();
        thread::spawn(move || {
            let body = pattern(size);
            let (begin, last) = body.split_at(size - LAST);
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"));
            client.send(begin);
            let mut wire = Vec::new();
            client.stream.conn.writer().write_all(last).expect("there is room");
            while client.stream.conn.wants_write() {
                client.stream.conn.write_tls(&mut wire).expect("a Vec takes it");
            }
            for piece in wire.chunks(wire.len().div_ceil(8)) {
                thread::sleep(Duration::from_millis(500));
                client.stream.sock.write_all(piece).expect("it is still open");
            }
            assert_eq!(client.read_response().text(), "taken", "{size}");
        })
    });
    for client in clients {
        client.join().expect("it was served");
    }
    assert!(origin.requests().iter().all(|request| request.body == pattern(request.body.len())));
    assert_eq!(served.client().get("/none").status, 404);
}

trait ReadRest {
    fn read_rest_of(&mut self, first: u8, size: usize) -> usize;
}

impl ReadRest for SecureClient {
    /// Bytes of the body, which is checked.
    fn read_rest_of(&mut self, first: u8, size: usize) -> usize {
        assert_eq!(first, b'H');
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut one = [0; 1];
            self.stream.read_exact(&mut one).expect("a head");
            bytes.push(one[0]);
        }
        let (mut got, mut chunk) = (0, vec![0; 100_000]);
        while got < size {
            let count = self.stream.read(&mut chunk).expect("the body goes on");
            let is_right = |(at, byte): (usize, &u8)| *byte == ((got + at) % 251) as u8;
            assert!(count > 0 && chunk[..count].iter().enumerate().all(is_right), "at {got}");
            got += count;
        }
        got
    }
}

// --- ends --------------------------------------------------------------------------------------

#[test]
fn a_client_that_says_goodbye_still_gets_its_answer() {
    let gate = Gate::new();
    let origin = Origin::start().on("GET /", Respond::text("late").behind(&gate));
    let served = serve("", &cluster(origin.address()));
    let mut client = served.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    client.half_close();
    gate.open();
    assert_eq!(client.read_response().text(), "late");
    assert_eq!(client.read_to_end(), (Vec::new(), true));
}

#[test]
fn an_upload_that_is_cut_is_not_taken_for_whole() {
    let origin = Origin::start().on("POST /", Respond::text("taken"));
    let served = serve("", &cluster(origin.address()));
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        for is_polite in [false, true] {
            let mut client = served.client();
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
            client.send("400\r\n");
            client.send([b'x'; 1000]);
            if is_polite {
                client.half_close()
            } else {
                client.cut()
            }
            let (answer, _) = client.read_to_end();
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(!answer.contains("200 OK"), "{framing}: {answer}");
        }
    }
    assert!(eventually(|| origin.connections_open() == 0));
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());
    assert_eq!(served.client().get("/none").status, 404);
    assert!(eventually(|| served.proxy.connections_open() == 0));
}

#[test]
fn an_answer_that_ends_with_the_connection_ends_with_a_goodbye() {
    let origin = Origin::raw(|stream, _, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall of it");
        support::After::Close
    });
    let served = serve("", &cluster(origin.address()));
    for version in ["-tls1_2", "-tls1_3"] {
        let said = served.fetch(&[version]);
        assert!(said.contains("all of it"), "{said}");
        assert!(!said.contains("unexpected eof"), "{said}");
    }
    let mut client = served.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let (answer, is_whole) = client.read_to_end();
    assert!(answer.ends_with(b"all of it"), "{}", String::from_utf8_lossy(&answer));
    assert!(is_whole, "no close_notify came");
}

#[test]
fn an_answer_that_is_cut_does_not_look_whole() {
    for head in ["", "Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
        let origin = Origin::raw(move |stream, _, _| {
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n1\r\na").as_bytes());
            support::After::Reset
        });
        let served = serve("", &cluster(origin.address()));
        let mut client = served.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.try_read_response_to("GET");
        assert!(answer.is_err_and(|error| error.kind() == ErrorKind::UnexpectedEof), "{head:?}");
        // Where only the end of the connection says that it was all, there is no goodbye.
        let mut client = served.client();
        client.send("GET / HTTP/1.0\r\n\r\n");
        let (answer, is_whole) = client.read_to_end();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let is_told = answer.starts_with("HTTP/1.1 502") || answer.contains("Content-Length: 100");
        assert!(!is_whole || is_told, "{head:?}: {answer}");
        assert!(eventually(|| served.proxy.connections_open() == 0));
    }
}

/// What the proxy ends by itself, it ends as TLS wants it, and so that the answer arrives.
#[test]
fn what_the_proxy_ends_it_ends_with_a_goodbye() {
    let mut served = serve("", &format!("{ECHO}[timeouts]\nidle = \"300ms\"\n"));
    let mut idle = served.client();
    assert_eq!(idle.get("/").status, 200);
    assert_eq!(idle.read_to_end(), (Vec::new(), true), "at the end of its time");
    for _ in 0..20 {
        let mut wrong = served.client();
        wrong.send("GET / HTTP/1.1\r\nHost: a b\r\n\r\n");
        wrong.send([b'x'; 30_000]);
        assert_eq!(wrong.read_response().status, 400);
        assert_eq!(wrong.read_to_end(), (Vec::new(), true), "after a refusal");
        let mut last = served.client();
        last.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(last.read_response().status, 200);
        assert_eq!(last.read_to_end(), (Vec::new(), true), "when asked to");
    }
    served = serve("", ECHO);
    let mut drained = served.client();
    assert_eq!(drained.get("/").status, 200);
    served.proxy.signal("TERM");
    assert_eq!(drained.read_to_end(), (Vec::new(), true), "at a drain");
    assert_eq!(served.proxy.wait_exit(support::PATIENCE).code(), Some(0));
}

// --- resumption --------------------------------------------------------------------------------

#[test]
fn sessions_are_resumed_on_every_core() {
    let served = {
        let pki = signed(&["www"]);
        let config = configuration(&pki, &["www"], "", ECHO).replacen("cores = 1", "cores = 4", 1);
        Served { proxy: Proxy::start(&config), pki }
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let ticket = served.pki.path("ticket");
        let ticket = ticket.display().to_string();
        let said = served.fetch(&[version, "-sess_out", &ticket]);
        assert!(said.contains("New, TLSv1"), "{said}");
        for _ in 0..12 {
            let said = served.fetch(&[version, "-sess_in", &ticket]);
            assert!(said.contains("Reused, TLSv1") && said.contains("200 OK"), "{version}: {said}");
        }
    }
}

#[test]
fn without_tickets_every_handshake_is_a_full_one() {
    let served = serve("session_tickets = false\n", ECHO);
    for version in ["-tls1_2", "-tls1_3"] {
        let ticket = served.pki.path(version).display().to_string();
        served.fetch(&[version, "-sess_out", &ticket]);
        if PathBuf::from(&ticket).exists() {
            let said = served.fetch(&[version, "-sess_in", &ticket]);
            assert!(said.contains("New, TLSv1") && said.contains("200 OK"), "{said}");
        }
    }
}

#[test]
fn early_data_is_never_taken() {
    let served = serve("", ECHO);
    let ticket = served.pki.path("ticket").display().to_string();
    let early = served.pki.write("early", "GET /early HTTP/1.1\r\nHost: a\r\n\r\n");
    let said = served.fetch(&["-tls1_3", "-sess_out", &ticket]);
    assert!(said.contains("Max Early Data: 0"), "{said}");
    let early = early.display().to_string();
    let said = served.fetch(&["-tls1_3", "-sess_in", &ticket, "-early_data", &early]);
    assert!(!said.contains("Early data was accepted") && !said.contains("GET /early"), "{said}");
}

// --- many --------------------------------------------------------------------------------------

#[test]
fn a_storm_of_handshakes_on_sixteen_cores_is_served() {
    let pki = signed(&["www"]);
    let config = configuration(&pki, &["www"], "", ECHO).replacen("cores = 1", "cores = 16", 1);
    let served = Served { proxy: Proxy::start(&config), pki };
    let tls = Arc::new(SecureClient::config(&served.authority()));
    let address = served.address();
    let clients: Vec<_> = (0..200)
        .map(|_| {
            let tls = Arc::clone(&tls);
            thread::spawn(move || {
                let mut client = SecureClient::connect_with(address, HOST, tls);
                client.get("/storm").status
            })
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().expect("served"), 200);
    }
    assert!(eventually(|| served.proxy.connections_open() == 0));
}

// --- strangers' judgement ----------------------------------------------------------------------

/// testssl.sh finds nothing above LOW in what is on by default: all its checks but the simulation
/// of clients and the list of all ciphers, which judge nothing and take twice as long.
#[test]
fn testssl_finds_nothing() {
    if !is_installed("testssl", "testssl.sh") {
        return;
    }
    let served = serve("", ECHO);
    let found = served.pki.path("found.json");
    let target = format!("{HOST}:{}", served.address().port());
    let output = Command::new(program("testssl"))
        .args(["--quiet", "--color", "0", "--warnings", "batch", "--nodns", "min", "--ip"])
        .args(["127.0.0.1", "--add-ca"])
        .arg(served.pki.path("ca.pem"))
        .arg("--jsonfile")
        .arg(&found)
        .args(["-s", "-p", "-P", "-f", "-S", "-h", "-U", &target])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("testssl starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let text = std::fs::read_to_string(&found).unwrap_or_else(|error| panic!("{error}:\n{said}"));
    let findings = Json::parse(&format!("{{\"all\":{text}}}"));
    let findings = findings.list("all");
    for id in JUDGED.split_whitespace() {
        let is_there = findings.iter().any(|finding| finding.text("id").starts_with(id));
        assert!(is_there, "it has not looked at {id}:\n{said}");
    }
    let mut unknown = 0;
    for finding in findings {
        let severity = finding.text("severity");
        // WARN is said of a check that has not come to its end, on a busy machine for one.
        unknown += usize::from(severity == "WARN");
        let is_fine = ["OK", "INFO", "LOW", "DEBUG", "WARN"].contains(&severity);
        // A certificate of a test names no responder and no list of revocations.
        let is_the_tests = finding.text("id").starts_with("cert_revocation");
        assert!(
            is_fine || is_the_tests,
            "{}: {severity}: {}",
            finding.text("id"),
            finding.text("finding")
        );
    }
    assert!(unknown <= 3, "{unknown} checks failed:\n{said}");
}

/// One of each kind of check: their names begin so.
const JUDGED: &str = "SSLv2 SSLv3 TLS1 TLS1_2 TLS1_3 ALPN cipherlist_NULL cipherlist_aNULL \
                      cipherlist_EXPORT cipherlist_LOW cipherlist_STRONG cipher_order \
                      cipher_negotiated cert_trust cert_keySize cert_expirationStatus \
                      OCSP_stapling HSTS banner_server heartbleed CCS ticketbleed ROBOT \
                      secure_renego secure_client_renego CRIME_TLS BREACH POODLE_SSL \
                      fallback_SCSV SWEET32 FREAK DROWN LOGJAM BEAST LUCKY13 RC4";

#[test]
fn a_browser_fetches_a_page() {
    if !is_installed("chromium", "chromium") {
        return;
    }
    let page = "[[routes]]\nname = \"all\"\n\
                respond = { body = \"<p>seen by a browser</p>\", content_type = \"text/html\" }\n";
    let served = serve("", page);
    let script = "
import base64, hashlib, subprocess, sys
key = subprocess.run(['openssl', 'x509', '-in', sys.argv[1], '-pubkey', '-noout'],
                     check=True, capture_output=True).stdout
der = subprocess.run(['openssl', 'pkey', '-pubin', '-outform', 'der'], input=key,
                     check=True, capture_output=True).stdout
print(base64.b64encode(hashlib.sha256(der).digest()).decode())
";
    let hash = python(script, &[&served.pki.path("www.pem").display().to_string()]);
    let output = Command::new(program("chromium"))
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
        .arg(format!("--user-data-dir={}", served.pki.path("profile").display()))
        .arg(format!("--host-resolver-rules=MAP {HOST} 127.0.0.1"))
        .arg(format!("--ignore-certificate-errors-spki-list={}", hash.trim()))
        .args(["--dump-dom", &format!("https://{HOST}:{}/", served.address().port())])
        .env("HOME", served.pki.path(""))
        .output()
        .expect("chromium starts");
    let seen = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(seen.contains("<p>seen by a browser</p>"), "{seen}\n{errors}");
}
