//! HTTP/2 to clients that nobody here wrote: curl, nghttp and h2load, under TLS and by prior
//! knowledge.

mod support;

use std::io::Write as _;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use support::{After, Curl, Gate, Origin, Pki, Proxy, Respond, edge, eventually, program};

const ECHO: &str = "[[routes]]\nname = \"all\"\necho = true\n";
const UNASKED: &str = "--http2-prior-knowledge";

fn to_origin(origin: &Origin, more: &str) -> String {
    edge(&format!(
        "[[routes]]\nname = \"all\"\ncluster = \"a\"\n{more}\n\
         [clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n",
        origin.address()
    ))
}

fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(program(name)).args(arguments).output().expect("it starts")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// `name=value` of a summary of h2load.
fn succeeded(summary: &str) -> u64 {
    let line = summary.lines().find(|line| line.starts_with("requests:")).unwrap_or_default();
    let count = line.split(", ").find_map(|part| part.strip_suffix(" succeeded"));
    count.and_then(|count| count.parse().ok()).unwrap_or_default()
}

#[test]
fn who_knows_it_before_is_served_without_tls() {
    let proxy = Proxy::start(&edge(ECHO));
    let answer = Curl::get(&proxy.url("/a?b=c"), &[UNASKED, "-H", "X-One: 1"]);
    assert_eq!((answer.exit, answer.status), (0, 200), "{}", answer.stderr);
    assert!(answer.heads.starts_with("HTTP/2 200"), "{}", answer.heads);
    assert!(answer.text().starts_with("GET /a?b=c\n"), "{}", answer.text());
    assert!(answer.text().contains("x-one: 1\n"), "{}", answer.text());
    assert_eq!(answer.headers("connection"), Vec::<&str>::new());
    // The same port still speaks what it spoke.
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn under_tls_the_client_chooses() {
    let pki = Pki::new();
    pki.authority("ca");
    pki.sign("ca", "www", "/CN=www", "DNS:localhost");
    let tls = |more: &str| {
        let (cert, key) = (pki.path("www.pem"), pki.path("www.key"));
        edge(&format!(
            "{more}[listeners.tls]\ncertificates = [{{ cert = {cert:?}, key = {key:?} }}]\n{ECHO}"
        ))
    };
    let proxy = Proxy::start(&tls(""));
    let url = format!("https://localhost:{}/", proxy.port("edge"));
    let ca = pki.path("ca.pem").display().to_string();
    for (asked, spoken) in [("--http2", "HTTP/2 200"), ("--http1.1", "HTTP/1.1 200")] {
        let answer = Curl::get(&url, &["--cacert", &ca, asked]);
        assert!(answer.heads.starts_with(spoken), "{asked}: {}{}", answer.heads, answer.stderr);
    }
    let without = Proxy::start(&tls("http2.enabled = false\n"));
    let url = format!("https://localhost:{}/", without.port("edge"));
    let answer = Curl::get(&url, &["--cacert", &ca, "--http2"]);
    assert!(answer.heads.starts_with("HTTP/1.1 200"), "{}", answer.heads);
}

#[test]
fn a_listener_without_it_refuses_the_preface() {
    let proxy = Proxy::start(&edge(&format!("http2.enabled = false\n{ECHO}")));
    let answer = Curl::get(&proxy.url("/"), &[UNASKED]);
    assert_ne!(answer.exit, 0);
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn heads_and_bodies_reach_an_endpoint_of_http1_and_come_back() {
    let body: String = ('a'..='z').cycle().take(300_000).collect();
    let origin =
        Origin::start().on("POST /upload?x=1", Respond::text(&body).header("X-Answer", "yes"));
    let proxy = Proxy::start(&to_origin(&origin, ""));
    let file = proxy.directory().join("body");
    std::fs::write(&file, &body).unwrap();
    let sent = format!("@{}", file.display());
    let url = proxy.url("/upload?x=1");
    let answer = Curl::get(&url, &[UNASKED, "--data-binary", &sent, "-H", "Cookie: a=1"]);
    assert_eq!((answer.exit, answer.status), (0, 200), "{}", answer.stderr);
    assert_eq!(answer.text(), body);
    assert_eq!(answer.headers("x-answer"), ["yes"]);
    assert_eq!(answer.headers("content-length"), ["300000"]);
    let received = &origin.requests()[0];
    assert_eq!(received.method_and_target(), "POST /upload?x=1");
    assert_eq!(received.header("host"), Some(&*proxy.address("edge").to_string()));
    assert_eq!(received.header("content-length"), Some("300000"));
    assert_eq!(received.header("cookie"), Some("a=1"));
    assert_eq!(received.header("via"), Some("2.0 corelane"));
    assert_eq!(received.header("x-forwarded-proto"), Some("http"));
    assert!(received.body == body.as_bytes());
}

#[test]
fn a_body_of_unknown_length_is_chunked_for_http1() {
    let origin = Origin::start().on("POST /", Respond::text("thanks"));
    let proxy = Proxy::start(&to_origin(&origin, ""));
    let file = proxy.directory().join("body");
    std::fs::write(&file, "x".repeat(100_000)).unwrap();
    let sent = format!("@{}", file.display());
    let without_length = [UNASKED, "-X", "POST", "-H", "Content-Length:", "--data-binary", &sent];
    let answer = Curl::get(&proxy.url("/"), &without_length);
    assert_eq!((answer.exit, answer.text()), (0, "thanks"), "{}", answer.stderr);
    let received = &origin.requests()[0];
    assert_eq!(received.header("transfer-encoding"), Some("chunked"));
    assert_eq!(received.header("content-length"), None);
    assert_eq!(received.body.len(), 100_000);
}

#[test]
fn every_framing_of_an_endpoint_ends_a_stream_as_it_should() {
    let body = "y".repeat(200_000);
    let answers = [
        Respond::text(&body),
        Respond::text(&body).chunked(7000),
        Respond::text(&body).until_close(),
    ];
    for answer in answers {
        let origin = Origin::start().on("GET /", answer);
        let proxy = Proxy::start(&to_origin(&origin, ""));
        let answer = Curl::get(&proxy.url("/"), &[UNASKED]);
        assert_eq!((answer.exit, answer.body.len()), (0, 200_000), "{}", answer.stderr);
        assert_eq!(answer.headers("transfer-encoding"), Vec::<&str>::new());
    }
    // The answer to HEAD has a length and no body.
    let origin = Origin::raw(|stream, _, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n");
        After::KeepOpen
    });
    let proxy = Proxy::start(&to_origin(&origin, ""));
    let answer = Curl::get(&proxy.url("/"), &[UNASKED, "--head"]);
    assert_eq!((answer.exit, answer.headers("content-length")), (0, vec!["200000"]));
}

#[test]
fn an_end_that_comes_alone_ends_the_stream() {
    let origin = Origin::raw(|stream, _, _| {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        for part in [&head[..], b"6\r\n world\r\n", b"0\r\n\r\n"] {
            let _ = stream.write_all(part);
            thread::sleep(Duration::from_millis(50));
        }
        After::KeepOpen
    });
    let proxy = Proxy::start(&to_origin(&origin, ""));
    let answer = Curl::get(&proxy.url("/"), &[UNASKED]);
    assert_eq!((answer.exit, answer.text()), (0, "hello world"), "{}", answer.stderr);
}

#[test]
fn an_endpoint_that_breaks_off_resets_the_stream_and_not_the_connection() {
    let origin = Origin::raw(|stream, request, _| {
        let cut = request.starts_with(b"GET /cut ");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        let _ = stream.write_all(if cut { b"he" } else { b"hello" });
        if cut { After::Close } else { After::KeepOpen }
    });
    let proxy = Proxy::start(&to_origin(&origin, ""));
    let output = run("nghttp", &["-v", &proxy.url("/cut"), &proxy.url("/whole")]);
    let said = text(&output);
    assert!(said.contains("(error_code=INTERNAL_ERROR(0x02))"), "{said}");
    assert!(said.contains("hello"), "{said}");
    assert_eq!(said.matches("] Connected").count(), 1, "{said}");
}

#[test]
fn interim_answers_and_trailers_are_passed_on() {
    let origin = Origin::raw(|stream, _, _| {
        let _ = stream.write_all(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
              HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
              5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n",
        );
        After::KeepOpen
    });
    let proxy = Proxy::start(&to_origin(&origin, ""));
    let answer = Curl::get(&proxy.url("/"), &[UNASKED]);
    assert_eq!((answer.exit, answer.text()), (0, "hello"), "{}", answer.stderr);
    assert!(answer.heads.starts_with("HTTP/2 103"), "{}", answer.heads);
    assert!(answer.heads.to_ascii_lowercase().contains("x-sum: 42"), "{}", answer.heads);
}

#[test]
fn what_fails_is_answered_as_for_http1() {
    let proxy = Proxy::start(&edge(
        "[limits]\nmax_body_size = 10\nmax_header_size = \"4KB\"\nmax_url_length = 1000\n\
         [[routes]]\nname = \"dead\"\npaths = [\"/dead\"]\ncluster = \"dead\"\n\
         [[routes]]\nname = \"one\"\npaths = [\"/one\"]\necho = true\n\
         [clusters.dead]\nendpoints = [{ address = \"127.0.0.1:1\" }]\n",
    ));
    let large = format!("X-Large: {}", "z".repeat(5000));
    for (path, more, status, code) in [
        ("/nowhere", vec![], 404, "NO_ROUTE"),
        ("/dead", vec![], 502, "BACKEND_UNREACHABLE"),
        ("/one", vec!["-d", "more than ten bytes"], 413, "BODY_TOO_LARGE"),
        ("/one", vec!["-H", &large], 431, "HEADERS_TOO_LARGE"),
        ("/one", vec!["-X", "TRACE"], 405, "METHOD_NOT_ALLOWED"),
    ] {
        let mut arguments = vec![UNASKED];
        arguments.extend(more);
        let answer = Curl::get(&proxy.url(path), &arguments);
        assert_eq!((answer.exit, answer.status), (0, status), "{path}: {}", answer.stderr);
        assert!(answer.text().contains(code), "{path}: {}", answer.text());
    }
    assert_eq!(Curl::get(&proxy.url("/one"), &[UNASKED]).status, 200);
}

#[test]
fn many_streams_of_many_connections_are_all_answered() {
    let hello = Respond::text("hello");
    let origin = Origin::start().on("GET /", hello.clone()).on("POST /", hello);
    let proxy = Proxy::start(&to_origin(&origin, ""));
    let url = proxy.url("/");
    let output = run("h2load", &["-n", "6000", "-c", "12", "-m", "30", &url]);
    assert_eq!(succeeded(&text(&output)), 6000, "{}", text(&output));
    let output = run("h2load", &["-n", "6000", "-c", "12", "-m", "30", "-d", "Cargo.toml", &url]);
    assert_eq!(succeeded(&text(&output)), 6000, "{}", text(&output));
    assert!(eventually(|| proxy.connections_open() == 0));
}

#[test]
fn a_drain_lets_streams_finish_and_brings_no_new_ones() {
    let gate = Gate::new();
    let origin = Origin::start().on("GET /", Respond::text("slow").behind(&gate));
    let mut proxy = Proxy::start(&to_origin(&origin, ""));
    let url = proxy.url("/");
    let client = thread::spawn(move || Curl::get(&url, &[UNASKED]));
    origin.wait_for_requests(1);
    proxy.signal("TERM");
    proxy.wait_for_log("drain");
    gate.open();
    let answer = client.join().expect("curl ends");
    assert_eq!((answer.exit, answer.text()), (0, "slow"), "{}", answer.stderr);
    assert!(proxy.wait_exit(Duration::from_secs(20)).success());
}

#[test]
fn requests_are_logged_with_their_version() {
    let directory = support::TempDir::new();
    let log = directory.path().join("access.log");
    let toml = format!("[logging.access]\npath = {log:?}\nformat = \"combined\"\n{ECHO}");
    let proxy = Proxy::start(&edge(&toml));
    assert_eq!(Curl::get(&proxy.url("/x"), &[UNASKED]).status, 200);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    assert!(eventually(|| said().contains("\"GET /x HTTP/2.0\" 200")), "{}", said());
}
