//! Certificates of clients: who is let in, and what backends are told of them.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use support::{Origin, Pki, Proxy, RawClient, Respond, SClient, SecureClient, edge, eventually};

const HOST: &str = "www.example.com";
const ADMIN: &str = "admin.example.com";

struct Served {
    pki: Pki,
    proxy: Proxy,
    origin: Origin,
}

/// The server's certificate for both hosts; clients `one` (authority `clients`), `two` (authority
/// `others`), `stranger` (an authority that nobody trusts).
fn pki() -> Pki {
    let pki = Pki::new();
    for authority in ["ca", "clients", "others", "nobody"] {
        pki.authority(authority);
    }
    pki.sign("ca", "www", "/CN=www", &format!("DNS:{HOST},DNS:{ADMIN}"));
    pki.sign("clients", "one", "/OU=payments/CN=one", "URI:spiffe://example/one");
    pki.sign("others", "two", "/CN=two", "DNS:two.example");
    pki.sign("nobody", "stranger", "/CN=stranger", "DNS:stranger.example");
    pki
}

/// `tls` goes behind the certificates of the listener; `PKI/` in it is where the files are.
fn serve(pki: Pki, tls: &str) -> Served {
    let origin =
        Origin::start().on("GET /", Respond::text("in")).on("GET /s_client", Respond::text("in"));
    let proxy = Proxy::start(&configuration(&pki, &origin, tls));
    Served { pki, proxy, origin }
}

fn configuration(pki: &Pki, origin: &Origin, tls: &str) -> String {
    let text = format!(
        "[listeners.tls]\ncertificates = [{{ cert = \"PKI/www.pem\", key = \"PKI/www.key\" }}]\n\
         {tls}\n[[routes]]\nname = \"all\"\ncluster = \"a\"\n\
         [clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n",
        origin.address()
    );
    edge(&text).replace("PKI/", &pki.path("").display().to_string())
}

const REQUIRED: &str =
    "[listeners.tls.client_auth]\nmode = \"required\"\nca = [\"PKI/clients.pem\"]\n";

impl Served {
    fn address(&self) -> SocketAddr {
        self.proxy.address("edge")
    }

    fn config(&self, name: Option<&str>) -> Arc<ClientConfig> {
        let authority = self.pki.path("ca.pem");
        Arc::new(match name {
            None => SecureClient::config(&authority),
            Some(name) => {
                SecureClient::config_with(&authority, &self.pki.path(&format!("{name}.pem")))
            }
        })
    }

    /// The answer's text; an error where there is none.
    fn ask(&self, host: &str, name: Option<&str>) -> Result<String, String> {
        self.ask_at(self.address(), host, self.config(name), "")
    }

    fn ask_at(
        &self,
        address: SocketAddr,
        host: &str,
        config: Arc<ClientConfig>,
        headers: &str,
    ) -> Result<String, String> {
        let client = SecureClient::try_connect(address, host, config);
        let mut client = client.map_err(|error| error.to_string())?;
        // Of TLS 1.3 a client learns only now that it was refused.
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n"));
        let answer = client.try_read_response_to("GET").map_err(|error| error.to_string())?;
        Ok(answer.text().to_owned())
    }

    fn lets_in(&self, name: Option<&str>) {
        assert_eq!(self.ask(HOST, name).as_deref(), Ok("in"), "{name:?}");
    }

    fn refuses(&self, name: Option<&str>, alert: &str) {
        let error = self.ask(HOST, name).expect_err("it was let in");
        assert!(error.contains(alert), "{name:?}: {error}");
    }
}

#[test]
fn a_required_certificate_is_required_and_verified() {
    let served = serve(pki(), REQUIRED);
    served.lets_in(Some("one"));
    served.refuses(None, "CertificateRequired");
    for name in ["two", "stranger"] {
        served.refuses(Some(name), "UnknownCA");
    }
    served.proxy.wait_for_log("certificate_missing");
    served.proxy.wait_for_log("certificate_refused");
    let address = served.address();
    for version in ["-tls1_2", "-tls1_3"] {
        let (cert, key) = (served.pki.path("one.pem"), served.pki.path("one.key"));
        let (cert, key) = (cert.display().to_string(), key.display().to_string());
        let said = SClient::fetch(address, &[version, "-cert", &cert, "-key", &key]);
        assert!(said.contains("CN = clients") && said.contains("200 OK"), "{said}");
        let said = SClient::fetch(address, &[version]);
        assert!(said.contains("alert") && !said.contains("200 OK"), "{said}");
    }
    served.lets_in(Some("one"));
    assert!(eventually(|| served.proxy.connections_open() == 0));
}

/// Whoever sends its request behind its certificate hears why it is refused all the same.
#[test]
fn a_refusal_is_never_lost() {
    let served = serve(pki(), REQUIRED);
    let (missing, unknown) = (served.config(None), served.config(Some("stranger")));
    for _ in 0..30 {
        for (config, alert) in [(&missing, "CertificateRequired"), (&unknown, "UnknownCA")] {
            let error = served.ask_at(served.address(), HOST, Arc::clone(config), "");
            let error = error.expect_err("it was let in");
            assert!(error.contains(alert), "{error}");
        }
    }
}

#[test]
fn an_optional_certificate_may_be_missing_but_not_wrong() {
    let optional = REQUIRED.replace("required", "optional");
    let served = serve(pki(), &optional);
    served.lets_in(None);
    served.lets_in(Some("one"));
    served.refuses(Some("stranger"), "UnknownCA");
}

#[test]
fn no_certificate_is_asked_for_with_none() {
    let served = serve(pki(), "[listeners.tls.client_auth]\nmode = \"none\"\n");
    served.lets_in(None);
    served.lets_in(Some("stranger"));
    let said = SClient::fetch(served.address(), &[]);
    assert!(said.contains("No client certificate CA names sent"), "{said}");
    assert!(!said.contains("Requested Signature Algorithms"), "{said}");
}

#[test]
fn certificates_of_several_authorities_are_taken() {
    let both = REQUIRED.replace("\"PKI/clients.pem\"", "\"PKI/clients.pem\", \"PKI/others.pem\"");
    let served = serve(pki(), &both);
    served.lets_in(Some("one"));
    served.lets_in(Some("two"));
    served.refuses(Some("stranger"), "UnknownCA");
}

#[test]
fn expired_and_revoked_certificates_are_refused() {
    let pki = pki();
    pki.sign_expired("clients", "old", "DNS:old.example");
    pki.sign("clients", "lost", "/CN=lost", "DNS:lost.example");
    pki.revoke("clients", "lost");
    pki.list_revoked("clients", "clients", &[]);
    let served = serve(pki, &format!("{REQUIRED}crl = [\"PKI/clients.crl\"]\n"));
    served.lets_in(Some("one"));
    served.refuses(Some("old"), "CertificateExpired");
    served.refuses(Some("lost"), "CertificateRevoked");
}

#[test]
fn a_list_that_has_expired_ends_the_start() {
    let pki = pki();
    let dates = ["-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200201000000Z"];
    pki.list_revoked("clients", "clients", &dates);
    let origin = Origin::start();
    let text = configuration(&pki, &origin, &format!("{REQUIRED}crl = [\"PKI/clients.crl\"]\n"));
    let file = pki.write("expired.toml", &text).display().to_string();
    let output = Proxy::command(&["check", &file]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("clients.crl") && said.contains("expired on 2020-02-01"), "{said}");
}

/// `clients.crl`, by a rename, so that nobody reads half of it.
fn renew_list(pki: &Pki, more: &[&str]) {
    pki.list_revoked("clients", "beside", more);
    let renamed = std::fs::rename(pki.path("beside.crl"), pki.path("clients.crl"));
    renamed.expect("the directory is ours");
}

#[test]
fn a_list_that_expires_in_use_lets_nobody_in_until_it_is_renewed() {
    let pki = pki();
    renew_list(&pki, &[]);
    let served = serve(pki, &format!("{REQUIRED}crl = [\"PKI/clients.crl\"]\n"));
    served.lets_in(Some("one"));
    // On a busy machine one may have expired before it is read: that is refused.
    let is_taken = |seconds: &str| {
        let uses = || served.proxy.log().matches("clients.crl has changed and is in use").count();
        let refusals = || served.proxy.log().matches("in it expired on").count();
        let before = (uses(), refusals());
        renew_list(&served.pki, &["-crlsec", seconds]);
        assert!(eventually(|| (uses(), refusals()) != before), "{}", served.proxy.log());
        uses() > before.0
    };
    assert!(["4", "8", "16"].into_iter().any(is_taken), "{}", served.proxy.log());
    // Each of them comes without a ticket.
    let refused = || served.ask(HOST, Some("one")).is_err();
    assert!(eventually(refused), "{}", served.proxy.log());
    assert!((0..5).all(|_| refused()));
    let answered = served.origin.requests().len();
    assert!(served.ask(HOST, Some("two")).is_err());
    assert_eq!(served.origin.requests().len(), answered);
    renew_list(&served.pki, &[]);
    assert!(eventually(|| !refused()), "{}", served.proxy.log());
}

#[test]
fn a_host_has_rules_of_its_own() {
    let sni = "[[listeners.tls.sni]]\nnames = [\"admin.example.com\"]\n\
               [listeners.tls.sni.client_auth]\nca = [\"PKI/others.pem\"]\n";
    let served = serve(pki(), sni);
    served.lets_in(None);
    assert_eq!(served.ask(ADMIN, Some("two")).as_deref(), Ok("in"));
    for name in [None, Some("one"), Some("stranger")] {
        assert!(served.ask(ADMIN, name).is_err(), "{name:?}");
    }
    let free = format!(
        "{REQUIRED}[[listeners.tls.sni]]\nnames = [\"*.example.com\"]\n\
         client_auth = {{ mode = \"none\" }}\n"
    );
    let served = serve(pki(), &free);
    assert_eq!(served.ask(ADMIN, None).as_deref(), Ok("in"));
    let unnamed = SClient::fetch(served.address(), &["-noservername"]);
    assert!(!unnamed.contains("200 OK"), "{unnamed}");
}

/// Another way to write a host is the same host.
#[test]
fn a_host_cannot_be_written_in_a_way_that_its_rules_miss() {
    let sni = "[[listeners.tls.sni]]\nnames = [\"admin.example.com\"]\n\
               [listeners.tls.sni.client_auth]\nca = [\"PKI/others.pem\"]\n";
    let served = serve(pki(), sni);
    for name in ["ADMIN.example.com", "admin.example.com.", "Admin.Example.Com."] {
        let said = SClient::fetch(served.address(), &["-servername", name]);
        assert!(!said.contains("200 OK"), "{name}: {said}");
    }
    for host in [
        "ADMIN.example.com",
        "admin.example.com.",
        "admin.example.com:443",
        "Admin.Example.Com.:8443",
        "admin.example.com:",
    ] {
        for request in [
            format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            format!("GET https://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        ] {
            let authority = served.pki.path("ca.pem");
            let mut client = SecureClient::connect(served.address(), HOST, &authority);
            client.send(&request);
            let status = client.read_response().status;
            assert!(status == 421 || status == 400, "{request}: {status}");
        }
    }
    assert!(served.origin.requests().is_empty(), "{:?}", served.origin.requests());
}

/// One way round a host's rules is to ask TLS for another host.
#[test]
fn the_rules_of_a_host_hold_for_its_requests_too() {
    let sni = "check_host = true\n[[listeners.tls.sni]]\nnames = [\"admin.example.com\"]\n\
               [listeners.tls.sni.client_auth]\nca = [\"PKI/others.pem\"]\n";
    for check in [sni.to_owned(), sni.replacen("check_host = true\n", "", 1)] {
        let served = serve(pki(), &check);
        let mut client = SecureClient::connect(served.address(), HOST, &served.pki.path("ca.pem"));
        client.send(format!("GET / HTTP/1.1\r\nHost: {ADMIN}\r\n\r\n"));
        assert_eq!(client.read_response().status, 421, "{check}");
        assert!(served.origin.requests().is_empty());
        assert_eq!(served.ask(ADMIN, Some("two")).as_deref(), Ok("in"));
        assert_eq!(served.ask(HOST, None).as_deref(), Ok("in"));
    }
}

/// Routes take `*.` for any depth, and so do the rules for who may come to them.
#[test]
fn a_hosts_rules_hold_at_any_depth_below_a_wildcard() {
    let sni = "[[listeners.tls.sni]]\nnames = [\"*.example.com\"]\n\
               [listeners.tls.sni.client_auth]\nca = [\"PKI/others.pem\"]\n\
               [[listeners.tls.sni]]\nnames = [\"*.open.example.com\", \"www.example.com\"]\n\
               client_auth = { mode = \"none\" }\n";
    let served = serve(pki(), sni);
    for host in ["a.example.com", "a.b.example.com", "a.b.c.example.com"] {
        let said = SClient::fetch(served.address(), &["-servername", host]);
        assert!(!said.contains("200 OK"), "{host}: {said}");
        let mut client = SecureClient::connect(served.address(), HOST, &served.pki.path("ca.pem"));
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.read_response().status, 421, "{host}");
    }
    for host in ["a.open.example.com", "a.b.open.example.com"] {
        let said = SClient::fetch(served.address(), &["-servername", host]);
        assert!(said.contains("200 OK"), "{host}: {said}");
    }
    served.lets_in(None);
}

// --- tickets -----------------------------------------------------------------------------------

#[test]
fn a_ticket_of_an_open_door_does_not_open_another() {
    let pki = pki();
    let second = format!(
        "[[listeners.tls.sni]]\nnames = [\"admin.example.com\"]\n\
         [listeners.tls.sni.client_auth]\nca = [\"PKI/others.pem\"]\n\
         [[listeners]]\nname = \"closed\"\nbind = \"127.0.0.1:0\"\n[listeners.tls]\n\
         certificates = [{{ cert = \"PKI/www.pem\", key = \"PKI/www.key\" }}]\n{REQUIRED}"
    );
    let served = serve(pki, &second);
    for version in ["-tls1_2", "-tls1_3"] {
        let ticket = served.pki.path(version).display().to_string();
        let open =
            SClient::fetch(served.address(), &["-servername", HOST, version, "-sess_out", &ticket]);
        assert!(open.contains("200 OK"), "{open}");
        let back =
            SClient::fetch(served.address(), &["-servername", HOST, version, "-sess_in", &ticket]);
        assert!(back.contains("Reused") && back.contains("200 OK"), "{back}");
        for (address, host) in [(served.address(), ADMIN), (served.proxy.address("closed"), HOST)] {
            let said =
                SClient::fetch(address, &["-servername", host, version, "-sess_in", &ticket]);
            assert!(!said.contains("200 OK") && !said.contains("Reused"), "{host}: {said}");
        }
    }
}

#[test]
fn who_comes_back_with_a_ticket_is_still_who_it_was() {
    let headers = format!("{REQUIRED}headers = {{ X-Client-CN = \"common_name\" }}\n");
    let served = serve(pki(), &headers);
    let config = served.config(Some("one"));
    for _ in 0..3 {
        let asked = served.ask_at(served.address(), HOST, Arc::clone(&config), "");
        assert_eq!(asked.as_deref(), Ok("in"));
    }
    let told = served.origin.requests();
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|request| request.header("x-client-cn") == Some("one")), "{told:?}");
}

/// A list that was renewed with somebody on it holds for tickets as well.
#[test]
fn a_ticket_of_somebody_who_was_revoked_since_is_worth_nothing() {
    let pki = pki();
    pki.list_revoked("clients", "clients", &[]);
    let served = serve(pki, &format!("{REQUIRED}crl = [\"PKI/clients.crl\"]\n"));
    let config = served.config(Some("one"));
    let ask = || served.ask_at(served.address(), HOST, Arc::clone(&config), "");
    assert_eq!(ask().as_deref(), Ok("in"));
    assert_eq!(ask().as_deref(), Ok("in"));
    served.pki.revoke("clients", "one");
    served.pki.list_revoked("clients", "clients", &[]);
    served.proxy.signal("HUP");
    assert!(eventually(|| ask().is_err()), "{}", served.proxy.log());
}

/// When `openssl` writes that it is in so many seconds.
fn in_seconds(seconds: u64) -> String {
    let format = ["-u", "+%Y%m%d%H%M%SZ", "-d", &format!("+{seconds} seconds")];
    let output = std::process::Command::new("date").args(format).output().expect("there is `date`");
    String::from_utf8(output.stdout).expect("it is a date").trim().to_owned()
}

/// The client keeps coming back with what it was given last.
fn no_longer_comes_back(served: &Served, name: &str, alert: &str) {
    let config = served.config(Some(name));
    let ask = || served.ask_at(served.address(), HOST, Arc::clone(&config), "");
    assert_eq!(ask().as_deref(), Ok("in"));
    let mut told = String::new();
    let is_refused = eventually(|| match ask() {
        Ok(_) => false,
        Err(error) => {
            told = error;
            true
        }
    });
    assert!(is_refused && told.contains(alert), "{told}");
    served.proxy.wait_for_log("certificate_refused");
    let resumed = served.proxy.metrics();
    let count = |line: &str| line.contains("result=\"resumed\"");
    assert!(resumed.lines().any(|line| count(line) && !line.ends_with(" 0")), "{resumed}");
}

#[test]
fn a_certificate_that_expires_is_not_good_for_ever_by_its_tickets() {
    let pki = pki();
    pki.sign_until("clients", "brief", "DNS:brief.example", &in_seconds(4));
    let served = serve(pki, REQUIRED);
    no_longer_comes_back(&served, "brief", "CertificateExpired");
    served.lets_in(Some("one"));
}

#[test]
fn a_revocation_list_that_expires_ends_what_its_tickets_open() {
    let pki = pki();
    pki.list_revoked("clients", "clients", &["-crlsec", "4"]);
    let served = serve(pki, &format!("{REQUIRED}crl = [\"PKI/clients.crl\"]\n"));
    no_longer_comes_back(&served, "one", "");
}

/// What was let in once is not let in for ever.
#[test]
fn stricter_rules_hold_for_connections_that_are_open() {
    let optional = REQUIRED.replace("required", "optional");
    let served = serve(pki(), &optional);
    let open = |name| {
        let mut client = SecureClient::connect_with(served.address(), HOST, served.config(name));
        assert_eq!(client.get("/").text(), "in");
        client
    };
    let (mut nobody, mut known, mut other) = (open(None), open(Some("one")), open(None));
    let (mut idle, mut idle_too) = (open(None), open(Some("one")));
    [&mut nobody, &mut known, &mut other].into_iter().for_each(begin);
    served.proxy.rewrite_config(&configuration(&served.pki, &served.origin, REQUIRED));
    served.proxy.signal("HUP");
    assert!(eventually(|| served.ask(HOST, None).is_err()), "{}", served.proxy.log());
    let refused = go_on(&mut nobody, HOST);
    assert_eq!(refused.status, 421, "{refused:?}");
    let answer = go_on(&mut known, HOST);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(go_on(&mut other, ADMIN).status, 421);
    for idle in [&mut idle, &mut idle_too] {
        assert_eq!(idle.read_to_end(), (Vec::new(), true), "it ends before it asks");
    }
    served.lets_in(Some("one"));
}

/// From now on the connection is not between two requests.
fn begin(client: &mut SecureClient) {
    client.send("GET / HTTP/1.1\r\n");
}

fn go_on(client: &mut SecureClient, host: &str) -> support::Response {
    client.send(format!("Host: {host}\r\n\r\n"));
    client.read_response()
}

/// Who was let in once is let in again by the rules of today only.
#[test]
fn who_was_revoked_since_is_served_no_more_on_an_open_connection() {
    let pki = pki();
    pki.sign("clients", "lost", "/CN=lost", "DNS:lost.example");
    renew_list(&pki, &[]);
    let served = serve(pki, &format!("{REQUIRED}crl = [\"PKI/clients.crl\"]\n"));
    let open = |name| {
        let config = served.config(Some(name));
        let mut client = SecureClient::connect_with(served.address(), HOST, config);
        assert_eq!(client.get("/").text(), "in");
        client
    };
    let (mut kept, mut lost, mut idle) = (open("one"), open("lost"), open("lost"));
    // Who is idle for longer is parked, and looks at nothing until it is woken.
    std::thread::sleep(std::time::Duration::from_secs(1));
    [&mut kept, &mut lost].into_iter().for_each(begin);
    served.pki.revoke("clients", "lost");
    renew_list(&served.pki, &[]);
    assert!(eventually(|| served.ask(HOST, Some("lost")).is_err()), "{}", served.proxy.log());
    let answered = served.origin.requests().len();
    assert_eq!(go_on(&mut lost, HOST).status, 421);
    assert_eq!(idle.read_to_end(), (Vec::new(), true), "it ends before it asks");
    assert_eq!(served.origin.requests().len(), answered);
    assert_eq!(go_on(&mut kept, HOST).text(), "in");
    served.lets_in(Some("one"));
}

#[test]
fn who_is_of_an_authority_that_is_trusted_no_more_is_served_no_more() {
    let served =
        serve(pki(), &REQUIRED.replace("clients.pem\"", "clients.pem\", \"PKI/others.pem\""));
    let config = served.config(Some("two"));
    let mut two = SecureClient::connect_with(served.address(), HOST, config);
    assert_eq!(two.get("/").text(), "in");
    begin(&mut two);
    served.proxy.rewrite_config(&configuration(&served.pki, &served.origin, REQUIRED));
    served.proxy.signal("HUP");
    assert!(eventually(|| served.ask(HOST, Some("two")).is_err()), "{}", served.proxy.log());
    assert_eq!(go_on(&mut two, HOST).status, 421);
    served.lets_in(Some("one"));
}

/// A reload that leaves the rules alone leaves connections alone.
#[test]
fn connections_stay_when_their_rules_do() {
    let served = serve(pki(), REQUIRED);
    let config = served.config(Some("one"));
    let mut client = SecureClient::connect_with(served.address(), HOST, config);
    assert_eq!(client.get("/").text(), "in");
    let other = format!("check_host = true\n{REQUIRED}");
    served.proxy.rewrite_config(&configuration(&served.pki, &served.origin, &other));
    served.proxy.signal("HUP");
    let mut misdirected = || {
        let config = served.config(Some("one"));
        let mut client = SecureClient::connect_with(served.address(), HOST, config);
        client.send("GET / HTTP/1.1\r\nHost: c.example\r\n\r\n");
        client.read_response().status == 421
    };
    assert!(eventually(&mut misdirected), "{}", served.proxy.log());
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!((answer.text(), answer.header("connection")), ("in", None));
    }
}

// --- what backends are told --------------------------------------------------------------------

const HEADERS: &str = "headers = { X-CN = \"common_name\", X-OU = \"organizational_unit\", \
     X-Subject = \"subject\", X-Issuer = \"issuer\", X-Serial = \"serial\", X-DNS = \"dns_names\", \
     X-URIs = \"uris\", X-SPIFFE = \"spiffe_id\", X-Fingerprint = \"fingerprint\", \
     X-Cert = \"certificate\", X-Mail = \"emails\" }\n";

/// What `openssl x509` says of a certificate, in lower case without colons.
fn fact(pki: &Pki, name: &str, which: &str) -> String {
    let out = pki.path(&format!("{name}.fact")).display().to_string();
    pki.openssl(&["x509", "-in", &format!("{name}.pem"), "-noout", which, "-sha256", "-out", &out]);
    let line = std::fs::read_to_string(out).expect("it was written");
    line.trim().rsplit('=').next().unwrap_or_default().replace(':', "").to_lowercase()
}

#[test]
fn backends_are_told_who_the_client_is() {
    let served = serve(pki(), &format!("{REQUIRED}{HEADERS}"));
    served.lets_in(Some("one"));
    let told = served.origin.only_request();
    for (name, expected) in [
        ("X-CN", Some("one")),
        ("X-OU", Some("payments")),
        ("X-Subject", Some("CN=one,OU=payments")),
        ("X-Issuer", Some("CN=clients")),
        ("X-DNS", None),
        ("X-Mail", None),
        ("X-URIs", Some("spiffe://example/one")),
        ("X-SPIFFE", Some("spiffe://example/one")),
    ] {
        assert_eq!(told.header(name), expected, "{name}");
    }
    assert_eq!(told.header("X-Serial"), Some(fact(&served.pki, "one", "-serial").as_str()));
    let fingerprint = fact(&served.pki, "one", "-fingerprint");
    assert_eq!(told.header("X-Fingerprint"), Some(fingerprint.as_str()));
    let script = "import sys, urllib.parse; print(urllib.parse.unquote(sys.argv[1]), end='')";
    let pem = support::python(script, &[told.header("X-Cert").expect("it is told")]);
    let file = std::fs::read_to_string(served.pki.path("one.pem")).expect("it is there");
    assert_eq!(pem, file);
}

/// Copies of a client's own.
fn forged(names: &[&str]) -> String {
    let variants = |name: &&str| {
        [format!("{name}: forged\r\n"), format!("{}: forged\r\n", name.to_uppercase())]
    };
    names.iter().flat_map(variants).collect()
}

#[test]
fn what_clients_say_of_themselves_is_removed() {
    let optional = REQUIRED.replace("required", "optional");
    let served = serve(pki(), &format!("{optional}{HEADERS}"));
    let names = ["X-CN", "X-OU", "X-SPIFFE", "X-Fingerprint", "X-Cert", "X-DNS"];
    for name in [None, Some("one")] {
        let config = served.config(name);
        let asked = served.ask_at(served.address(), HOST, config, &forged(&names));
        assert_eq!(asked.as_deref(), Ok("in"));
        let told = served.origin.requests().pop().expect("one came");
        assert!(!told.head.contains("forged"), "{name:?}: {}", told.head);
        assert_eq!(told.header("X-CN"), name);
    }
    // Some backends take an underscore for a dash: that goes nowhere.
    let before = served.origin.requests().len();
    for header in ["X_CN: forged\r\n", "x_cn: forged\r\n", "X-CN : forged\r\n"] {
        let asked = served.ask_at(served.address(), HOST, served.config(None), header);
        let refused = asked.is_ok_and(|answer| answer.contains("INVALID_REQUEST"));
        let told = served.origin.requests().split_off(before);
        let is_free = told.iter().all(|request| !request.head.contains("forged"));
        assert!(refused || !told.is_empty(), "{header}");
        assert!(is_free, "{header}: {told:?}");
    }
}

/// Where one host has such headers, a client of another host cannot send them either.
#[test]
fn headers_of_one_hosts_clients_are_nobody_elses() {
    let sni = format!(
        "[[listeners.tls.sni]]\nnames = [\"admin.example.com\"]\n\
         [listeners.tls.sni.client_auth]\nca = [\"PKI/others.pem\"]\n{HEADERS}"
    );
    let served = serve(pki(), &sni);
    let asked = served.ask_at(served.address(), HOST, served.config(None), &forged(&["X-CN"]));
    assert_eq!(asked.as_deref(), Ok("in"));
    let told = served.origin.only_request();
    assert!(!told.head.contains("forged"), "{}", told.head);
}

/// Backends that believed them yesterday do so today.
#[test]
fn what_clients_say_of_themselves_is_removed_where_nobody_is_asked() {
    let none = REQUIRED.replace("required", "none");
    let named = "[[listeners.tls.sni]]\nnames = [\"admin.example.com\"]\n\
                 client_auth = { mode = \"none\", headers = { X-Other = \"subject\" } }\n";
    let served = serve(pki(), &format!("{none}{HEADERS}{named}"));
    for host in [HOST, ADMIN] {
        let config = served.config(None);
        let asked = served.ask_at(served.address(), host, config, &forged(&["X-CN", "X-Other"]));
        assert_eq!(asked.as_deref(), Ok("in"));
    }
    let told = served.origin.requests();
    assert!(told.iter().all(|request| !request.head.contains("forged")), "{told:?}");
}

#[test]
fn a_client_without_tls_beside_others_cannot_send_them_either() {
    let optional = REQUIRED.replace("required", "optional");
    let served = serve(pki(), &format!("allow_plain = true\n{optional}{HEADERS}"));
    served.lets_in(Some("one"));
    let mut client = RawClient::connect(served.address());
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n", forged(&["X-CN"])));
    assert_eq!(client.read_response().text(), "in");
    let told = served.origin.requests();
    assert!(!told[1].head.contains("forged"), "{}", told[1].head);
}

/// One listener's clients are told of by their certificates: those of another can say nothing of it
/// either, for the backends are the same.
#[test]
fn headers_of_one_listeners_clients_are_nobody_elses() {
    let origin = Origin::start().on("POST /", Respond::text("in"));
    let pki = pki();
    let more = "[[listeners]]\nname = \"plain\"\nbind = \"127.0.0.1:0\"\n\
                [[listeners]]\nname = \"other\"\nbind = \"127.0.0.1:0\"\n[listeners.tls]\n\
                certificates = [{ cert = \"PKI/www.pem\", key = \"PKI/www.key\" }]\n";
    let text = configuration(&pki, &origin, &format!("{REQUIRED}{HEADERS}{more}"));
    let proxy = Proxy::start(&text);
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n{}\r\n\
         2\r\nab\r\n0\r\nX-Cn: forged\r\nX-Mine: kept\r\nx_spiffe: forged\r\n\r\n",
        forged(&["X-CN", "X-SPIFFE"])
    );
    let mut plain = proxy.client_of("plain");
    plain.send(&request);
    assert_eq!(plain.read_response().text(), "in");
    let other = proxy.address("other");
    let mut other = SecureClient::connect(other, HOST, &pki.path("ca.pem"));
    other.send(&request);
    assert_eq!(other.read_response().text(), "in");
    for told in origin.requests() {
        let said = format!("{told:?}");
        assert!(!said.contains("forged") && said.contains("kept"), "{said}");
    }
}

/// Else one that has a comma would be two.
#[test]
fn a_comma_in_a_name_is_no_end_of_it() {
    let pki = pki();
    let names = "DNS:a.example,DNS:b.example";
    pki.sign("clients", "comma", "/OU=a,admins/OU=b/CN=x,y", names);
    let served = serve(pki, &format!("{REQUIRED}{HEADERS}"));
    served.lets_in(Some("comma"));
    let told = served.origin.only_request();
    assert_eq!(told.header("X-OU"), Some("a%2Cadmins,b"));
    assert_eq!(told.header("X-DNS"), Some("a.example,b.example"));
    assert_eq!(told.header("X-CN"), Some("x,y"));
}

#[test]
fn a_name_cannot_break_out_of_its_line() {
    let pki = pki();
    pki.sign("clients", "line", "/CN=x\r\nX-Admin: yes\r\n\r\nGET", "DNS:line.example");
    pki.sign("clients", "other", "/CN=Zo\u{eb} %41 \u{1F512}", "DNS:other.example");
    let served = serve(pki, &format!("{REQUIRED}{HEADERS}"));
    served.lets_in(Some("line"));
    served.lets_in(Some("other"));
    let told = served.origin.requests();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0].header("X-Admin"), None);
    assert_eq!(told[0].header("X-CN"), None, "no name has such letters");
    assert!(told[0].header("X-Subject").is_some_and(|all| all.contains("0D")), "{told:?}");
    assert_eq!(told[1].header("X-CN"), Some("Zo%C3%AB %2541 %F0%9F%94%92"));
    assert!(told.iter().all(|request| request.head.is_ascii()));
}
