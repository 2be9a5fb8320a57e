//! Logs beyond the plain line: templates, headers and bodies with their secrets hidden, samples,
//! the error log and the audit log, rotation, and what happens when a log has no room.

mod support;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use support::{After, Gate, Json, Origin, Proxy, RawClient, Respond, TempDir, edge, eventually};

/// A route for everything to cluster `a`, with `route` in it and `more` behind it.
fn through(origin: &Origin, route: &str, more: &str) -> String {
    edge(&format!(
        "[[routes]]\nname = \"own\"\npaths = [\"/own\"]\nrespond = {{ status = 204 }}\n\
         [[routes]]\nname = \"all\"\ncluster = \"a\"\n{route}\n\
         [clusters.a]\nendpoints = [{{ address = \"{}\" }}]\n{more}",
        origin.address()
    ))
}

fn lines_of(path: &Path, count: usize) -> Vec<String> {
    let read = || {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(eventually(|| read().len() >= count), "{count} lines are expected: {:#?}", read());
    read()
}

fn lines(proxy: &Proxy, count: usize) -> Vec<String> {
    lines_of(&proxy.directory().join("access.log"), count)
}

#[test]
fn a_template_shows_what_it_names_and_hides_secrets() {
    let origin = Origin::start()
        .on("GET /a?token=s3cret&b=1", Respond::text("x").header("Set-Cookie", "s3cret"));
    let log = "[logging.access]\npath = \"access.log\"\nformat = \"template\"\ntemplate = \
               '{client_ip} {method} {path} {query} {status} {duration_ms} \
               ua={header.user-agent} auth={header.authorization} none={header.x-none} \
               type={response_header.content-type} cookie={response_header.set-cookie} {{}}'\n";
    let proxy = Proxy::start(&through(&origin, "", log));
    let mut client = proxy.client();
    client.send(
        "GET /a?token=s3cret&b=1 HTTP/1.1\r\nHost: a\r\nUser-Agent: a \"b\"\r\n\
         Authorization: Bearer s3cret\r\n\r\n",
    );
    assert_eq!(client.read_response().text(), "x");
    assert_eq!(client.get("/own").status, 204);
    let lines = lines(&proxy, 2);
    let words: Vec<&str> = lines[0].split(' ').collect();
    assert_eq!(words[..5], ["127.0.0.1", "GET", "/a", "?token=[redacted]&b=1", "200"]);
    assert!(words[5].parse::<f64>().is_ok(), "{words:?}");
    assert_eq!(
        words[6..].join(" "),
        "ua=a \\x22b\\x22 auth=[redacted] none=- type=text/plain cookie=[redacted] {}"
    );
    assert!(lines[1].ends_with("type=- cookie=- {}"), "{}", lines[1]);
}

#[test]
fn a_template_names_the_trace_of_an_exchange_that_has_one() {
    let origin = Origin::start();
    let log = "[logging.access]\npath = \"access.log\"\nformat = \"template\"\n\
               template = 'trace={trace_id}'\n";
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let untraced = "trace=-".to_owned();
    for (tracing, expected) in
        [("", untraced), ("[tracing]\nenabled = true\n", format!("trace={trace}"))]
    {
        let proxy = Proxy::start(&through(&origin, "", &format!("{log}{tracing}")));
        let mut client = proxy.client();
        client.send(format!(
            "GET /own HTTP/1.1\r\nHost: a\r\n\
             traceparent: 00-{trace}-00f067aa0ba902b7-01\r\n\r\n"
        ));
        assert_eq!(client.read_response().status, 204);
        assert_eq!(lines(&proxy, 1)[0], expected);
    }
}

#[test]
fn the_text_format_is_one_line_that_people_read() {
    let origin = Origin::start().on("GET /", Respond::text("x"));
    let log = "[logging.access]\npath = \"access.log\"\nformat = \"text\"\n";
    let proxy = Proxy::start(&through(&origin, "", log));
    assert_eq!(proxy.client().get("/").text(), "x");
    let line = &lines(&proxy, 1)[0];
    let backend = format!("ms route=all backend={} reason=- id=", origin.address());
    assert!(line.contains(" INFO 127.0.0.1 \"GET / HTTP/1.1\" 200 "), "{line}");
    assert!(line.contains(&backend), "{line}");
}

/// With a length.
fn post(path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nX-Api-Key: s3cret\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

const BODIES: &str = "[logging.access]\npath = \"access.log\"\n\
    request_headers = [\"content-type\", \"x-api-key\"]\nresponse_headers = [\"content-length\"]\n\
    request_body = { max = 100, redact = [\"user.password\", \"**.card\"] }\n\
    response_body = { max = 1000, content_types = [\"*/*\"] }\n";

#[test]
fn bodies_are_shown_up_to_their_cap_and_their_secrets_are_not() {
    let long = "y".repeat(3_000_000);
    let origin = Origin::start()
        .on("POST /json", Respond::bytes(vec![0, 255]))
        .on("POST /form", Respond::text("ok"))
        .on("POST /long", Respond::text(&long))
        .on("POST /chunked", Respond::bytes(vec![b'z'; 500]).chunked(100))
        .on("POST /image", Respond::text(""));
    let proxy = Proxy::start(&through(&origin, "", BODIES));
    let mut client = proxy.client();
    let json = br#"{"user":{"name":"n","password":"s3cret"},"x":[{"card":"s3cret"}]}"#;
    let cases = [
        post("/json", "application/json; charset=utf-8", json),
        post("/json", "text/plain", json), // a wrong type shows no secret either
        post("/json", "application/json", b"s3cret, no JSON"),
        post("/form", "application/x-www-form-urlencoded", b"a=1&password=s3cret"),
        post("/long", "text/plain", long.as_bytes()),
        post("/image", "image/png", b"binary"),
    ];
    for case in &cases {
        client.send(case);
        assert_eq!(client.read_response().status, 200);
    }
    client.send(
        "POST /chunked HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    );
    assert_eq!(client.read_response().body, vec![b'z'; 500]);
    let lines = lines(&proxy, 7);
    assert!(!lines.iter().any(|line| line.contains("s3cret")), "{lines:#?}");
    let records: Vec<Json> = lines.iter().map(|line| Json::parse(line)).collect();
    for record in &records[..2] {
        assert_eq!(
            record.text("request_body.text"),
            r#"{"user":{"name":"n","password":"[redacted]"},"x":[{"card":"[redacted]"}]}"#
        );
        assert_eq!(record.text("response_body.base64"), "AP8=");
        assert_eq!(record.at("request_body.truncated"), &Json::Bool(false));
        assert_eq!(record.text("request_headers.x-api-key"), "[redacted]");
        assert_eq!(record.text("response_headers.content-length"), "2");
    }
    assert!(records[2].text("request_body.omitted").starts_with("not JSON"));
    assert_eq!(records[3].text("request_body.text"), "a=1&password=[redacted]");
    for (name, shown) in [("request_body", 100), ("response_body", 1000)] {
        assert_eq!(records[4].text(&format!("{name}.text")), "y".repeat(shown));
        assert_eq!(records[4].number(&format!("{name}.bytes")), 3_000_000.0);
        assert_eq!(records[4].at(&format!("{name}.truncated")), &Json::Bool(true));
    }
    assert!(!lines[5].contains("request_body\":"), "{}", lines[5]);
    assert_eq!(records[6].text("request_body.text"), "abcde");
    assert_eq!(records[6].text("response_body.text"), "z".repeat(500));
}

#[test]
fn a_route_has_bodies_of_its_own_and_one_that_is_sent_again_is_shown_once() {
    // Every second request on a connection is not answered: it is sent again on a new one.
    let origin = Origin::raw(|stream, _, index| {
        use std::io::Write as _;
        if index > 0 {
            return After::Close;
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        After::KeepOpen
    });
    let route = "access_log = { request_body = { max = 3 }, response_body = { enabled = false } }";
    let proxy = Proxy::start(&through(&origin, route, BODIES));
    let mut client = proxy.client();
    for _ in 0..2 {
        let put = String::from_utf8(post("/", "text/plain", b"abcd")).unwrap();
        client.send(put.replacen("POST", "PUT", 1));
        assert_eq!(client.read_response().text(), "ok");
    }
    for line in lines(&proxy, 2) {
        let record = Json::parse(&line);
        assert_eq!(record.text("request_body.text"), "abc");
        assert_eq!(record.number("request_body.bytes"), 4.0);
        assert!(!line.contains("response_body"), "{line}");
    }
}

#[test]
fn a_sample_leaves_out_successes_and_never_failures_and_slow_ones() {
    let origin = Origin::start()
        .on("GET /fast", Respond::text("x"))
        .on("GET /broken", Respond::text("x").status("503 Service Unavailable"))
        .on("GET /slow", Respond::text("x").after(Duration::from_secs(2)));
    let log = "[logging.access]\npath = \"access.log\"\nsample = 0.0\nslow = \"2s\"\n";
    let toml = format!("trusted_proxies = [\"127.0.0.1\"]\n{}", through(&origin, "", log));
    let proxy = Proxy::start(&toml);
    let mut client = proxy.client();
    for path in ["/fast", "/broken", "/fast", "/slow", "/fast"] {
        client.get(path);
    }
    client.send("GET /../.. HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().status, 400);
    let urls: Vec<String> =
        lines(&proxy, 3).iter().map(|line| Json::parse(line).text("url").to_owned()).collect();
    assert_eq!(urls, ["/broken", "/slow", "/../.."]);
}

#[test]
fn the_error_log_has_warnings_and_the_audit_log_has_what_matters() {
    let origin = Origin::start();
    let log = "[logging.access]\npath = \"/dev/full\"\n[logging.error]\npath = \"error.log\"\n\
               [logging.audit]\npath = \"audit.log\"\n";
    let mut proxy = Proxy::start(&through(&origin, "", log));
    for _ in 0..100 {
        let mut client = proxy.client();
        client.send("GET /a?token=s3cret HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
        assert_eq!(client.read_response().status, 400);
    }
    assert_eq!(proxy.client().get("/own").status, 204);
    let error = || lines_of(&proxy.directory().join("error.log"), 1);
    let told = "access log: cannot write /dev/full: ";
    assert!(eventually(|| error().iter().any(|line| line.contains(told))), "{:?}", error());
    let error = error();
    assert!(!error.iter().any(|line| line.contains(" INFO ")), "{error:?}");
    proxy.signal("TERM");
    assert!(proxy.wait_exit(support::PATIENCE).success());
    let audit = lines_of(&proxy.directory().join("audit.log"), 3);
    assert!(!audit.iter().any(|line| line.contains("s3cret")), "{audit:#?}");
    let records: Vec<Json> = audit.iter().map(|line| Json::parse(line)).collect();
    let events: Vec<&str> = records.iter().map(|record| record.text("event")).collect();
    assert!(events[0] == "process_start" && events.contains(&"process_stop"), "{events:?}");
    let refused = &records[1];
    assert_eq!((refused.text("event"), refused.text("outcome")), ("refused_request", "denied"));
    assert_eq!((refused.text("client_ip"), refused.text("reason")), ("127.0.0.1", "host_repeated"));
    assert_eq!(refused.number("status"), 400.0);
    assert!(records.len() <= 2 + 100, "at most one for each");
}

#[test]
fn the_audit_log_hides_what_the_operator_said() {
    let log = "[logging.access]\nenabled = false\n[logging.audit]\npath = \"audit.log\"\n\
               [logging.redact]\nquery = [\"pin\"]\n";
    let proxy = Proxy::start(&through(&Origin::start(), "", log));
    let mut client = proxy.client();
    client.send("TRACE /x?pin=s3cret&code=s3cret&a=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.read_response().status >= 400);
    let audit = lines_of(&proxy.directory().join("audit.log"), 2);
    let refused = Json::parse(&audit[1]);
    assert_eq!(refused.text("url"), "/x?pin=[redacted]&code=[redacted]&a=1", "{audit:?}");
    assert_eq!(proxy.client().get("/own").status, 204);
}

#[test]
fn logged_json_hides_members_that_are_named_like_secrets() {
    let answer = Respond::text("{\"sessionToken\":\"s3cret\",\"monkey\":1}")
        .header("Content-Type", "application/json");
    let origin = Origin::start().on("POST /a", answer);
    let log = "[logging.access]\npath = \"access.log\"\nrequest_body = {}\nresponse_body = {}\n";
    let proxy = Proxy::start(&through(&origin, "", log));
    let mut client = proxy.client();
    for body in [&b"{\"newPassword\":\"s3cret\",\"a\":1}"[..], b"[1] plain text"] {
        let content_type = if body[0] == b'{' { "application/json" } else { "text/plain" };
        client.send(post("/a", content_type, body));
        assert_eq!(client.read_response().status, 200);
    }
    let lines = lines(&proxy, 2);
    assert!(!lines.iter().any(|line| line.contains("s3cret")), "{lines:#?}");
    let records: Vec<Json> = lines.iter().map(|line| Json::parse(line)).collect();
    let shown = r#"{"newPassword":"[redacted]","a":1}"#;
    assert_eq!(records[0].text("request_body.text"), shown);
    assert_eq!(
        records[0].text("response_body.text"),
        r#"{"sessionToken":"[redacted]","monkey":1}"#
    );
    assert_eq!(records[1].text("request_body.text"), "[1] plain text");
}

/// What was put aside of a log, oldest first.
fn rotated(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder is there")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().contains("/access.log."))
        .collect();
    found.sort();
    found
}

#[test]
fn a_log_rotates_compresses_and_keeps_what_was_asked_for() {
    let origin = Origin::start().on("POST /", Respond::text("x"));
    let log = "[logging.access]\npath = \"access.log\"\n\
               rotate = { max_size = 65536, max_backups = 2 }\nrequest_body = {}\n";
    let proxy = Proxy::start(&through(&origin, "", log));
    let mut client = proxy.client();
    let body = "z".repeat(40_000);
    for number in 1..=6 {
        client.send(post("/", "text/plain", body.as_bytes()));
        assert_eq!(client.read_response().text(), "x");
        let written = || proxy.metric("tls_proxy_access_log_lines_total");
        assert!(eventually(|| written() == Some(f64::from(number))), "{:?}", written());
    }
    let folder = proxy.directory();
    let kept = || {
        let found = rotated(folder);
        let packed = |path: &PathBuf| path.extension().is_some_and(|end| end == "gz");
        found.len() == 2 && found.iter().all(packed)
    };
    assert!(eventually(kept), "{:?}", rotated(folder));
    for path in rotated(folder) {
        let unpacked = Command::new("gzip").arg("-dc").arg(&path).output().unwrap();
        assert!(unpacked.status.success(), "{}: {unpacked:?}", path.display());
        let text = String::from_utf8(unpacked.stdout).unwrap();
        assert_eq!(Json::parse(text.trim_end()).text("request_body.text"), body);
    }
    assert_eq!(lines(&proxy, 1).len(), 1);
}

#[test]
fn usr1_opens_every_log_again() {
    let origin = Origin::start();
    let log = "[logging.access]\npath = \"access.log\"\n[logging.error]\npath = \"error.log\"\n\
               level = \"info\"\n[logging.audit]\npath = \"audit.log\"\n";
    let proxy = Proxy::start(&through(&origin, "", log));
    let path = |name: &str| proxy.directory().join(name);
    let names = ["access.log", "error.log", "audit.log"];
    let refused = || {
        let mut client = proxy.client();
        client.send("GET /../.. HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().status, 400);
    };
    refused();
    lines(&proxy, 1);
    lines_of(&path("audit.log"), 2);
    for name in names {
        fs::rename(path(name), path(&format!("{name}.old"))).unwrap();
    }
    proxy.signal("USR1");
    let all = || names.iter().all(|name| path(name).exists());
    assert!(eventually(all), "{:?}", names.map(|name| path(name).exists()));
    refused();
    assert_eq!(lines(&proxy, 1).len(), 1);
    assert_eq!(lines_of(&path("audit.log"), 1).len(), 1);
    assert_eq!(lines_of(&path("access.log.old"), 1).len(), 1);
}

#[test]
fn usr1_opens_every_log_again_while_the_process_drains() {
    let gate = Gate::new();
    let origin = Origin::start().on("GET /held", Respond::text("x").behind(&gate));
    let log = "[logging.access]\npath = \"access.log\"\n";
    let mut proxy = Proxy::start(&through(&origin, "", log));
    let mut held = proxy.client();
    held.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    assert_eq!(proxy.client().get("/own").status, 204);
    lines(&proxy, 1);
    proxy.signal("TERM");
    proxy.wait_for_log("draining");
    let path = |name: &str| proxy.directory().join(name);
    fs::rename(path("access.log"), path("access.log.old")).unwrap();
    proxy.signal("USR1");
    assert!(eventually(|| path("access.log").exists()));
    gate.open();
    assert_eq!(held.read_response().text(), "x");
    assert!(lines(&proxy, 1)[0].contains("/held"));
    assert_eq!(lines_of(&path("access.log.old"), 1).len(), 1);
    assert!(proxy.wait_exit(support::PATIENCE).success());
}

// --- reloads ---------------------------------------------------------------------------------

/// Writes the file, has it read, and waits until `ended` is logged once more.
fn reload(proxy: &Proxy, toml: &str, ended: &str) {
    let count = || proxy.log().matches(ended).count();
    let before = count();
    proxy.rewrite_config(toml);
    proxy.signal("HUP");
    assert!(eventually(|| count() > before), "{}", proxy.log());
}

const LOADED: &str = "hot_reload.watch = false\n";

/// Two cores, both with lines.
fn loaded(origin: &Origin, logging: &str) -> String {
    let toml = through(origin, "", logging).replacen("cores = 1", "cores = 2", 1);
    format!("{LOADED}{toml}")
}

/// All logs in `name`, lines as `access` says.
fn logs_in(name: &str, access: &str) -> String {
    format!(
        "[logging.access]\npath = \"{name}-access.log\"\n{access}\n\
         [logging.error]\npath = \"{name}-error.log\"\nlevel = \"info\"\n\
         [logging.audit]\npath = \"{name}-audit.log\"\n"
    )
}

#[test]
fn reloads_change_every_log_under_load_and_no_line_is_lost_or_doubled() {
    let origin = Origin::start();
    let looks = [
        logs_in("a", "format = \"json\""),
        logs_in("b", "format = \"template\"\ntemplate = \"T {query}\""),
        logs_in("b", "format = \"template\"\ntemplate = \"U {query}\""),
        logs_in("c", "format = \"clf\"\n[logging.redact]\nquery = [\"n\"]"),
        logs_in("a", "format = \"combined\""),
    ];
    let proxy = Proxy::start(&loaded(&origin, &looks[0]));
    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let client = || {
        let mut client = proxy.client();
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if number % 7 == 0 {
                client = proxy.client();
            }
            let id = sent.fetch_add(1, Ordering::Relaxed);
            assert_eq!(client.get(&format!("/own?n={id}.")).status, 204);
        }
    };
    thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(client)));
        for look in looks.iter().cycle().skip(1).take(2 * looks.len()) {
            let before = sent.load(Ordering::Relaxed);
            reload(&proxy, &loaded(&origin, look), "reloaded (SIGHUP)");
            assert!(eventually(|| sent.load(Ordering::Relaxed) > before + 20));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let sent = sent.load(Ordering::Relaxed);
    let written = || proxy.metric("tls_proxy_access_log_lines_total");
    assert!(eventually(|| written() == Some(sent as f64)), "{sent} {:?}", written());
    let read = |name: &str| lines_of(&proxy.directory().join(name), 1);
    let [a, b, c] = ["a", "b", "c"].map(|name| read(&format!("{name}-access.log")));
    assert_eq!(a.len() + b.len() + c.len(), sent);
    // Each line is as the plan says that names its file.
    let is_of_a = |line: &str| line.starts_with('{') || line.ends_with("\"-\" \"-\"");
    let is_of_b = |line: &str| line.starts_with("T ?n=") || line.starts_with("U ?n=");
    let is_of_c = |line: &str| line.contains("/own?n=[redacted] ");
    assert_eq!(a.iter().find(|line| !is_of_a(line)), None);
    assert_eq!(b.iter().find(|line| !is_of_b(line)), None);
    assert_eq!(c.iter().find(|line| !is_of_c(line)), None);
    let number = |line: &String| {
        let (_, rest) = line.split_once("n=").expect("every line has one");
        rest.split_once('.').expect("it ends").0.parse::<usize>().expect("a number")
    };
    let mut numbers: Vec<usize> = a.iter().chain(&b).map(number).collect();
    numbers.sort_unstable();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "a line was doubled");
    // What reloads did is told of in the log that they brought.
    let of_a_reload = |line: &String| {
        let record = Json::parse(line);
        record.text("event") == "config_change"
            && (record.text("actor"), record.text("outcome")) == ("SIGHUP", "done")
    };
    let audits = || ["a", "b", "c"].into_iter().flat_map(|name| read(&format!("{name}-audit.log")));
    let audited = || audits().filter(of_a_reload).count();
    assert!(eventually(|| audited() >= 2 * looks.len()), "{}", audited());
    assert_eq!(audited(), 2 * looks.len());
    let told = || read("b-error.log").iter().any(|line| line.contains("reloaded (SIGHUP)"));
    assert!(eventually(told));
}

#[test]
fn an_exchange_that_began_before_a_reload_has_its_line_where_its_own_plan_says() {
    let origin = Origin::start().on("GET /slow", Respond::text("x").after(Duration::from_secs(2)));
    let proxy = Proxy::start(&loaded(&origin, &logs_in("old", "format = \"json\"")));
    let mut slow = proxy.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(1);
    let new = loaded(&origin, &logs_in("new", "format = \"clf\""));
    reload(&proxy, &new, "reloaded (SIGHUP)");
    assert_eq!(proxy.client().get("/own").status, 204);
    let path = |name: &str| proxy.directory().join(name);
    assert!(lines_of(&path("new-access.log"), 1)[0].contains("\"GET /own HTTP/1.1\" 204"));
    assert_eq!(slow.read_response().text(), "x");
    let line = &lines_of(&path("old-access.log"), 1)[0];
    assert_eq!(Json::parse(line).text("url"), "/slow");
    // Then nobody writes there any more, and it is closed.
    let is_open = |name: &str| {
        let files = fs::read_dir(format!("/proc/{}/fd", proxy.pid())).expect("it runs");
        files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|at| at == path(name)))
    };
    assert!(eventually(|| !is_open("old-access.log")));
    assert!(is_open("new-access.log"));
    assert!(eventually(|| proxy.metric("tls_proxy_access_log_lines_total") == Some(2.0)));
    // An old log that is not written is not made anew either.
    for name in ["old-access.log", "new-access.log", "new-error.log", "new-audit.log"] {
        fs::rename(path(name), path(&format!("{name}.1"))).unwrap();
    }
    proxy.signal("USR1");
    let all = || ["access", "error", "audit"].map(|log| path(&format!("new-{log}.log")).exists());
    assert!(eventually(|| all() == [true; 3]), "{:?}", all());
    assert_eq!(proxy.client().get("/own").status, 204);
    assert_eq!(lines_of(&path("new-access.log"), 1).len(), 1);
    assert!(!path("old-access.log").exists());
}

#[test]
fn a_log_that_cannot_be_opened_refuses_the_reload_and_all_old_ones_go_on() {
    let origin = Origin::start();
    let old = logs_in("old", "format = \"clf\"");
    let proxy = Proxy::start(&loaded(&origin, &old));
    for log in ["access", "error", "audit"] {
        let missing = format!("/nonexistent/{log}.log");
        let new = logs_in("new", "").replace(&format!("new-{log}.log"), &missing);
        reload(&proxy, &loaded(&origin, &new), "reload refused (SIGHUP)");
        proxy.wait_for_log(&format!("{log} log: cannot open {missing}: No such file"));
    }
    assert_eq!(proxy.client().get("/own").status, 204);
    let path = |name: &str| proxy.directory().join(name);
    assert_eq!(lines_of(&path("old-access.log"), 1).len(), 1);
    let audit = lines_of(&path("old-audit.log"), 4);
    let failed = audit.iter().map(|line| Json::parse(line)).filter(|record| {
        record.text("event") == "config_change"
            && record.text("outcome") == "failed"
            && record.text("detail").contains("cannot open /nonexistent/")
    });
    assert_eq!(failed.count(), 3, "{audit:#?}");
    assert_eq!(proxy.metric("tls_proxy_rules_version"), Some(1.0));
}

#[test]
fn a_reload_turns_the_log_off_and_on_again() {
    let origin = Origin::start();
    let on = "[logging.access]\npath = \"access.log\"\n";
    let off = "[logging.access]\nenabled = false\n";
    let proxy = Proxy::start(&loaded(&origin, on));
    for look in [off, on, "[logging.access]\npath = \"access.log\"\nsample = 0.0\n"] {
        assert_eq!(proxy.client().get("/own").status, 204);
        reload(&proxy, &loaded(&origin, look), "reloaded (SIGHUP)");
    }
    assert_eq!(proxy.client().get("/own").status, 204);
    let mut client = proxy.client();
    client.send("GET /../.. HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().status, 400);
    let lines = lines(&proxy, 3);
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert_eq!(proxy.metric("tls_proxy_access_log_dropped_total"), Some(0.0));
}

/// A pipe as a log: it holds 64 KiB, and then its reader decides how fast the log is.
fn pipe(directory: &TempDir) -> PathBuf {
    let path = directory.path().join("pipe");
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo");
    path
}

const LINES: usize = 400;

/// More than all queues hold together.
fn send_long_lines(proxy: &Proxy, count: usize) {
    let mut client = proxy.client();
    for number in 0..count {
        client.send(post(&format!("/{number}"), "text/plain", "z".repeat(60_000).as_bytes()));
        assert_eq!(client.read_response().text(), "x");
    }
}

fn echoing() -> Origin {
    let origin = Origin::start();
    (0..LINES)
        .fold(origin, |origin, number| origin.on(&format!("POST /{number}"), Respond::text("x")))
}

fn logs_to(path: &Path, on_full: &str) -> String {
    format!(
        "[logging.access]\npath = \"{}\"\non_full = \"{on_full}\"\nrequest_body = {{}}\n",
        path.display()
    )
}

#[test]
fn with_block_connections_wait_for_a_slow_log_and_not_a_line_is_lost() {
    let (origin, directory) = (echoing(), TempDir::new());
    let path = pipe(&directory);
    let mut proxy = Proxy::start(&through(&origin, "", &logs_to(&path, "block")));
    thread::scope(|scope| {
        let sending = scope.spawn(|| send_long_lines(&proxy, LINES));
        let requests = || proxy.metric("tls_proxy_requests_total").unwrap_or_default();
        // Nobody reads: the connection comes to a stand, and the core goes on.
        let mut before = -1.0;
        assert!(eventually(|| {
            thread::sleep(Duration::from_millis(300));
            std::mem::replace(&mut before, requests()) == before && before > 0.0
        }));
        assert!(before < LINES as f64, "{before} requests went on");
        assert!(!sending.is_finished());
        let mut reader = BufReader::new(File::open(&path).unwrap());
        for number in 0..LINES {
            let mut line = String::new();
            assert!(reader.read_line(&mut line).unwrap() > 60_000);
            assert_eq!(Json::parse(line.trim_end()).text("url"), format!("/{number}"));
        }
        sending.join().unwrap();
    });
    assert_eq!(proxy.metric("tls_proxy_access_log_dropped_total"), Some(0.0));
    assert_eq!(proxy.client().get("/own").status, 204);
    let mut reader = File::open(&path).unwrap();
    assert!(reader.read(&mut [0; 1000]).unwrap() > 0);
    proxy.signal("TERM");
    assert!(proxy.wait_exit(support::PATIENCE).success());
}

#[test]
fn with_drop_traffic_goes_on_beside_a_stuck_log_and_the_loss_is_told() {
    let (origin, directory) = (echoing(), TempDir::new());
    let path = pipe(&directory);
    let proxy = Proxy::start(&through(&origin, "", &logs_to(&path, "drop")));
    send_long_lines(&proxy, LINES);
    let dropped = proxy.metric("tls_proxy_access_log_dropped_total").unwrap();
    assert!(dropped > 0.0 && dropped < LINES as f64, "{dropped}");
    let mut reader = BufReader::new(File::open(&path).unwrap());
    let mut line = String::new();
    for number in 0..20 {
        line.clear();
        reader.read_line(&mut line).unwrap();
        assert_eq!(Json::parse(line.trim_end()).text("url"), format!("/{number}"));
    }
    thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    let mut client = proxy.client();
    let told = || {
        assert_eq!(client.get("/own").status, 204);
        proxy.log().contains("takes lines too slowly")
    };
    assert!(eventually(told), "{}", proxy.log());
}

/// The first lines of standard error, up to the one that says that it runs.
fn listening(stderr: &mut impl std::io::BufRead) -> Vec<(String, std::net::SocketAddr)> {
    let mut found = Vec::new();
    let mut line = String::new();
    while !line.contains(" runs on ") {
        line.clear();
        assert!(stderr.read_line(&mut line).expect("it is read") > 0, "it has ended");
        if let Some((address, name)) =
            line.split_once("listening on ").and_then(|(_, rest)| rest.trim().split_once(" as "))
        {
            found.push((name.to_owned(), address.parse().expect("an address")));
        }
    }
    found
}

/// A proxy whose standard error is the test's to read, or not to.
fn with_own_stderr() -> (TempDir, Child, BufReader<ChildStderr>) {
    let directory = TempDir::new();
    let route = "[[routes]]\nname = \"ok\"\nrespond = { status = 200, body = \"ok\" }\n";
    let config = directory.write("corelane.toml", edge(route)).display().to_string();
    let mut child = Command::new(Proxy::binary())
        .args(["run", "--config", &config])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be executed");
    let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
    (directory, child, stderr)
}

#[test]
fn a_standard_error_that_nobody_reads_holds_nobody_up_and_what_is_lost_is_told() {
    let (_directory, mut child, mut stderr) = with_own_stderr();
    let listening = listening(&mut stderr);
    let address = |name: &str| listening.iter().find(|(known, _)| known == name).expect(name).1;
    let metric = |name: &str| {
        let page = RawClient::connect(address("metrics")).get("/metrics");
        support::sum_of(page.text(), name).unwrap_or_else(|| panic!("no {name}"))
    };
    // Nobody reads any more. Each of these is a line of the audit log.
    let mut admin = RawClient::connect(address("admin"));
    let mut client = RawClient::connect(address("edge"));
    let mut asked = 0;
    while metric("tls_proxy_log_dropped_total{log=\"process\"}") == 0.0 {
        for _ in 0..500 {
            admin.send("POST /admin/resume HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert_eq!(admin.read_response().status, 200);
            asked += 1;
        }
        assert_eq!(client.get("/").text(), "ok");
        assert!(asked < 20_000, "a pipe and a queue have a bound");
    }
    let read = thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).expect("a log is text");
        text
    });
    support::signal(child.id(), "TERM");
    assert!(child.wait().expect("it can be waited for").success());
    let text = read.join().expect("it is read to its end");
    assert!(text.contains(" lines of this log were lost"), "{}", &text[text.len() - 1000..]);
    assert!(text.contains("drained, bye"), "{}", &text[text.len() - 1000..]);
}

#[test]
fn a_process_whose_standard_error_is_stuck_ends_all_the_same() {
    let (_directory, mut child, mut stderr) = with_own_stderr();
    let listening = listening(&mut stderr);
    let (_, address) = listening.iter().find(|(name, _)| name == "admin").expect("admin");
    let mut admin = RawClient::connect(*address);
    for _ in 0..1000 {
        admin.send("POST /admin/resume HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(admin.read_response().status, 200);
    }
    support::signal(child.id(), "TERM");
    let ended = eventually(|| child.try_wait().expect("it can be asked").is_some());
    drop((child.kill(), child.wait(), stderr));
    assert!(ended);
}
