//! The admin API over the wire: every operation of its own OpenAPI document, who may do what, and
//! what hostile clients get. Each hostile input is followed by a good request.

mod support;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::time::Instant;
use std::{env, fs, thread};

use serde_json::{Value, json};
use support::{Curl, Origin, Pki, Proxy, RawClient, Respond, Response, edge, eventually};

const ROUTE: &str = "[[routes]]\nname = \"all\"\necho = true\n";

const VIEWER: &str = "viewer-token-0123456789";
const OPERATOR: &str = "operator-token-0123456789";
const ADMIN: &str = "admin-token-0123456789";

/// With a token of each role, one in each way of writing it.
fn with_tokens() -> Proxy {
    let file = support::TempDir::new();
    let path = file.write("token", format!("{OPERATOR}\n"));
    let toml = edge(ROUTE).replace(
        "admin = { bind = \"127.0.0.1:0\" }",
        &format!(
            "admin = {{ bind = \"127.0.0.1:0\", hosts = [\"admin.internal\"], tokens = [\
             {{ name = \"looker\", role = \"viewer\", token = \"{VIEWER}\" }}, \
             {{ name = \"ci\", role = \"operator\", token_file = \"{}\" }}, \
             {{ name = \"root\", role = \"admin\", sha256 = \"{}\" }}] }}",
            path.display(),
            sha256(ADMIN)
        ),
    );
    Proxy::start(&toml)
}

/// By coreutils: somebody else's opinion of what a digest is.
fn sha256(text: &str) -> String {
    let directory = support::TempDir::new();
    let path = directory.write("text", text);
    let output = Command::new("sha256sum").arg(path).output().expect("coreutils are installed");
    let line = String::from_utf8(output.stdout).expect("digits and a name");
    line.split(' ').next().unwrap_or_default().to_owned()
}

fn ask(proxy: &Proxy, method: &str, path: &str, lines: &str, body: &str) -> Response {
    let mut client = proxy.client_of("admin");
    send(&mut client, method, path, lines, body)
}

fn send(client: &mut RawClient, method: &str, path: &str, lines: &str, body: &str) -> Response {
    let length = if body.is_empty() && method != "POST" {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let host = if lines.contains("Host:") { "" } else { "Host: localhost\r\n" };
    client.send(format!("{method} {path} HTTP/1.1\r\n{host}{lines}{length}\r\n{body}"));
    client.read_response_to(method)
}

fn json(response: &Response) -> Value {
    assert_eq!(response.header("Content-Type"), Some("application/json"), "{response:?}");
    serde_json::from_str(response.text()).unwrap_or_else(|e| panic!("{e}: {response:?}"))
}

fn code(response: &Response) -> String {
    json(response)["error"]["code"].as_str().expect("an error has a code").to_owned()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn still_works(proxy: &Proxy) {
    assert_eq!(proxy.admin_get("/admin/status").status, 200);
}

// --- the document ----------------------------------------------------------------------------

/// Whether a value is as its schema says; only what our schemas use.
fn conforms(schema: &Value, value: &Value, at: &str) {
    if let Some(either) = schema["anyOf"].as_array() {
        let fits =
            |schema: &Value| std::panic::catch_unwind(|| conforms(schema, value, at)).is_ok();
        assert!(either.iter().any(fits), "{at}: {value}");
        return;
    }
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value} is none of {words:?}");
    }
    match schema["type"].as_str().unwrap_or_else(|| panic!("{at}: no type in {schema}")) {
        "string" => assert!(value.is_string(), "{at}: {value}"),
        "integer" => assert!(value.is_u64(), "{at}: {value}"),
        "number" => assert!(value.is_number(), "{at}: {value}"),
        "boolean" => assert!(value.is_boolean(), "{at}: {value}"),
        "null" => assert!(value.is_null(), "{at}: {value}"),
        "array" => {
            let items = value.as_array().unwrap_or_else(|| panic!("{at}: {value}"));
            for (index, item) in items.iter().enumerate() {
                conforms(&schema["items"], item, &format!("{at}[{index}]"));
            }
        }
        "object" => object(schema, value, at),
        other => panic!("{at}: {other}"),
    }
}

fn object(schema: &Value, value: &Value, at: &str) {
    let members = value.as_object().unwrap_or_else(|| panic!("{at}: {value}"));
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        assert!(members.contains_key(name), "{at}: no {name}");
    }
    for (name, member) in members {
        let at = format!("{at}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => panic!("{at} is not in the document"),
            (Value::Null, Value::Null) => {}
            (Value::Null, any) => conforms(any, member, &at),
            (known, _) => conforms(known, member, &at),
        }
    }
}

/// Values for `{…}` that exist in `everything()`.
fn filled(method: &str, path: &str, origin: &str) -> String {
    if (method, path) == ("DELETE", "/admin/blacklist") {
        return format!("{path}?all=true");
    }
    if path == "/admin/events" || path == "/admin/tap" {
        return format!("{path}?seconds=1");
    }
    path.replace("{cluster}", "app").replace("{address}", origin).replace("{version}", "1")
}

/// A body that an operation takes.
fn body_for(method: &str, path: &str, operation: &Value) -> (&'static str, String) {
    let content = &operation["requestBody"]["content"];
    let body = match path {
        _ if path.ends_with("/weight") => "{\"weight\":2}".to_owned(),
        "/admin/blacklist" if method == "post" => {
            "{\"ip\":\"192.0.2.0/24\",\"duration\":60}".to_owned()
        }
        "/admin/config/rollback" => "{\"version\":1}".to_owned(),
        "/admin/config" => saying("x"),
        _ => "{}".to_owned(),
    };
    if !content["application/merge-patch+json"].is_null() {
        return (PATCH, "{\"proxy_id\": \"x\"}".to_owned());
    }
    match (&content["application/toml"], &content["application/json"]) {
        (Value::Null, Value::Null) => ("", String::new()),
        (Value::Null, _) => (JSON, body),
        _ => (TOML, body),
    }
}

fn everything(origin: &Origin) -> Proxy {
    Proxy::start(&edge(&format!(
        "[[routes]]\nname = \"all\"\ncluster = \"app\"\n[clusters.app]\n\
         endpoints = [{{ address = \"{}\" }}]\n",
        origin.address()
    )))
}

#[test]
fn every_operation_of_the_document_answers_as_the_document_says() {
    let origin = Origin::start().on("GET /", Respond::text("hello"));
    let proxy = everything(&origin);
    assert_eq!(proxy.client().get("/").status, 200);
    proxy.client().send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    let document = json(&proxy.admin_get("/admin/openapi.json"));
    assert_eq!(document["openapi"], "3.1.0");
    let mut asked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            // Each that changes much begins anew; an upgrade has a test of its own.
            if path == "/admin/upgrade" {
                continue;
            }
            let fresh = (method != "get" && method != "head").then(|| everything(&origin));
            let proxy = fresh.as_ref().unwrap_or(&proxy);
            let (lines, body) = body_for(method, path, operation);
            let method = method.to_uppercase();
            let origin = origin.address().to_string();
            let response = ask(proxy, &method, &filled(&method, path, &origin), lines, &body);
            let status = response.status.to_string();
            let said = &operation["responses"][&status];
            assert!(!said.is_null(), "{method} {path}: {status} is not in the document");
            assert!(status.starts_with('2') || status == "503", "{method} {path}: {response:?}");
            asked += 1;
            if method == "HEAD" {
                assert!(response.body.is_empty(), "{response:?}");
                continue;
            }
            let kind = response.header("Content-Type").unwrap_or_default().to_owned();
            let schema = &said["content"][&kind]["schema"];
            assert!(!schema.is_null(), "{method} {path}: {kind} is not in the document");
            if kind == "application/json" {
                conforms(schema, &json(&response), &format!("{method} {path}"));
            }
        }
    }
    assert!(asked > 10, "{asked}");
    let unknown = proxy.admin_get("/admin/nothing");
    assert_eq!((unknown.status, code(&unknown).as_str()), (404, "NOT_FOUND"));
    conforms(&document["components"]["schemas"]["Error"], &json(&unknown), "error");
}

#[test]
fn a_known_path_with_another_method_is_answered_405_with_those_that_are_known() {
    let proxy = Proxy::start(&edge(ROUTE));
    let allowed = |method: &str, path: &str| {
        let response = ask(&proxy, method, path, "", "");
        assert_eq!(response.status, 405, "{response:?}");
        assert_eq!(code(&response), "METHOD_NOT_ALLOWED");
        response.header("Allow").unwrap().to_owned()
    };
    assert_eq!(allowed("GET", "/admin/drain"), "POST");
    assert_eq!(allowed("DELETE", "/admin/status"), "GET, HEAD");
    assert_eq!(allowed("PATCH", "/health"), "GET, HEAD");
    assert_eq!(allowed("OPTIONS", "/admin/resume"), "POST");
    still_works(&proxy);
}

#[test]
fn one_connection_carries_many_requests_and_bodies() {
    let proxy = Proxy::start(&edge(ROUTE));
    let mut client = proxy.client_of("admin");
    let json = "Content-Type: application/json; charset=utf-8\r\n";
    for _ in 0..3 {
        assert_eq!(send(&mut client, "GET", "/admin/status", "", "").status, 200);
        assert_eq!(send(&mut client, "HEAD", "/admin/status", "", "").status, 200);
        assert_eq!(
            send(&mut client, "POST", "/admin/drain", json, "{\"delay\":\"1h\"}").status,
            200
        );
        assert_eq!(send(&mut client, "POST", "/admin/resume", "", "").status, 200);
        assert_eq!(send(&mut client, "GET", "/admin/nothing", "", "").status, 404);
    }
    // Pipelined, the second body in chunks.
    client.send(
        "POST /admin/drain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: 2\r\n\r\n{}POST /admin/resume HTTP/1.1\r\nHost: localhost\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    let states: Vec<u16> = (0..3).map(|_| client.read_response().status).collect();
    assert_eq!(states, [200, 200, 200]);
}

/// A client made from the document, by people who know nothing of us: it tries what the document
/// allows and what it does not. scripts/test installs it and says where.
#[test]
fn schemathesis_finds_no_difference_between_document_and_server() {
    let Some(schemathesis) = env::var_os("SCHEMATHESIS") else {
        eprintln!("SKIPPED: no SCHEMATHESIS in the environment; scripts/test sets it");
        return;
    };
    let origin = Origin::start().on("GET /", Respond::text("hello"));
    let proxy = everything(&origin);
    let url = format!("http://{}/admin/openapi.json", proxy.address("admin"));
    // Few objects are a part of a configuration, and no tag of its making is one of ours.
    let statuses = "[[operations]]\ninclude-operation-id = \"patch_admin_config\"\n\
                    [operations.checks.positive_data_acceptance]\n\
                    expected-statuses = [\"2xx\", 400, 412, 422]\n\
                    [operations.checks.negative_data_rejection]\n\
                    expected-statuses = [\"4xx\"]\n";
    fs::write(proxy.directory().join("schemathesis.toml"), statuses).expect("it is a test's own");
    let output = Command::new("timeout")
        .args(["60"])
        .arg(schemathesis)
        .args(["run", &url, "--max-examples", "15", "--seed", "1", "--no-color"])
        // An upgrade would end what is tested; few texts are a configuration: both have their own.
        .args(["--exclude-path", "/admin/upgrade", "--exclude-operation-id", "put_admin_config"])
        // A stream goes on as long as it was told to.
        .args(["--exclude-path", "/admin/events", "--exclude-path", "/admin/tap"])
        // What is to be removed has to be said, by the query or by the body.
        .args(["--exclude-operation-id", "delete_admin_blacklist"])
        .current_dir(proxy.directory())
        .output()
        .expect("coreutils are installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    still_works(&proxy);
}

// --- bodies ----------------------------------------------------------------------------------

#[test]
fn bodies_that_are_not_what_is_expected_are_refused_with_what_was() {
    let proxy = Proxy::start(&edge(ROUTE));
    let json_line = "Content-Type: application/json\r\n";
    let deep = format!("{{\"delay\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let cases: [(&str, &str, u16, &str); 13] = [
        (json_line, "{", 400, "EOF"),
        (json_line, "nonsense", 400, "expected"),
        (json_line, "[]", 400, "body: "),
        (json_line, "{\"delay\":5}", 400, "expected a string"),
        (json_line, "{\"delay\":\"soon\"}", 400, "duration"),
        (json_line, "{\"delay\":null}", 400, "expected a string"),
        (json_line, "{\"dealy\":\"1s\"}", 400, "unknown field `dealy`, expected `delay`"),
        (json_line, "{\"delay\":\"1s\",\"delay\":\"1s\"}", 400, "duplicate field `delay`"),
        (json_line, "{} {}", 400, "trailing"),
        (json_line, &deep, 400, "body: "),
        (json_line, "\u{0}", 400, "body: "),
        ("", "{}", 415, "application/json"),
        ("Content-Type: text/plain\r\n", "{}", 415, "application/json"),
    ];
    for (lines, body, status, words) in cases {
        let response = ask(&proxy, "POST", "/admin/drain", lines, body);
        let shown = &body[..body.len().min(80)];
        assert_eq!(response.status, status, "{shown}: {response:?}");
        let message = json(&response)["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(words), "{shown}: {message}");
        assert!(message.len() < 500, "{message}");
        still_works(&proxy);
    }
    // Nothing of all that has drained it.
    assert_eq!(json(&proxy.admin_get("/admin/status"))["state"], "running");
}

#[test]
fn bodies_are_bounded_however_they_are_framed() {
    let proxy = Proxy::start(&edge(ROUTE));
    let head =
        "POST /admin/drain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
    let cases = [
        format!("{head}Content-Length: 65537\r\n\r\n"),
        format!("{head}Content-Length: 99999999999999\r\n\r\nx"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(5)),
        "POST /admin/resume HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx".to_owned(),
    ];
    for case in cases {
        let mut client = proxy.client_of("admin");
        let _ = client.try_send(&case);
        let response = client.read_response();
        assert_eq!((response.status, code(&response).as_str()), (413, "BODY_TOO_LARGE"));
        still_works(&proxy);
    }
    let full = format!("{{{}}}", " ".repeat(65_534));
    let json = "Content-Type: application/json\r\n";
    assert_eq!(ask(&proxy, "POST", "/admin/drain", json, &full).status, 200);
}

#[test]
fn broken_framing_and_heads_are_refused_and_harm_nobody_else() {
    let proxy = Proxy::start(&edge(ROUTE));
    let cases = [
        "POST /admin/drain HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST /admin/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /admin/status HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        "GET /admin/status\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\x03\x03\r\n\r\n",
        "GET /admin/status?limit=%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ];
    for case in cases {
        let mut client = proxy.client_of("admin");
        client.send(case);
        let response = client.read_response();
        assert_eq!(response.status, 400, "{case}: {response:?}");
        assert_eq!(code(&response), "INVALID_REQUEST");
        still_works(&proxy);
    }
    // Cut in the middle of a body: nobody to answer, nothing done.
    let mut client = proxy.client_of("admin");
    client.send("POST /admin/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{\"del");
    client.half_close();
    assert!(client.read_to_close().is_empty());
    assert_eq!(json(&proxy.admin_get("/admin/status"))["state"], "running");
}

#[test]
fn a_head_that_comes_byte_by_byte_is_read_while_others_are_served() {
    let proxy = Proxy::start(&edge(ROUTE));
    let mut slow: Vec<RawClient> = (0..20).map(|_| proxy.client_of("admin")).collect();
    for client in &mut slow {
        client.send("GET /admin/sta");
    }
    still_works(&proxy);
    for mut client in slow {
        client.send_byte_by_byte("tus HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(client.read_response().status, 200);
    }
}

// --- who may ---------------------------------------------------------------------------------

#[test]
fn each_role_may_do_what_the_document_says_and_no_more() {
    let proxy = with_tokens();
    let document = json(&ask(&proxy, "GET", "/admin/openapi.json", &bearer(VIEWER), ""));
    let roles = [("viewer", VIEWER), ("operator", OPERATOR), ("admin", ADMIN)];
    let rank = |role: &str| roles.iter().position(|(name, _)| *name == role).unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let method = method.to_uppercase();
            if method == "HEAD" {
                continue;
            }
            let Some(needed) = operation["x-role"].as_str() else {
                assert!(path.starts_with("/health"), "{path} needs no token");
                assert!([200, 503].contains(&ask(&proxy, &method, path, "", "").status));
                continue;
            };
            for (role, token) in roles {
                if (role, path.as_str()) == ("admin", "/admin/upgrade") {
                    continue; // has a test of its own
                }
                let path = filled(&method, path, "127.0.0.1:1");
                let response = ask(&proxy, &method, &path, &bearer(token), "");
                let may = rank(role) >= rank(needed);
                assert_eq!(response.status == 403, !may, "{role} {method} {path}: {response:?}");
                assert_ne!(response.status, 401, "{role} {method} {path}");
            }
        }
    }
}

#[test]
fn wrong_tokens_in_every_form_are_answered_401_and_let_nobody_in() {
    let proxy = with_tokens();
    let long = "a".repeat(4000);
    let nearly = &OPERATOR[..OPERATOR.len() - 1];
    let wrong: Vec<String> = [
        String::new(),
        bearer(""),
        bearer("x"),
        bearer(nearly),
        bearer(&format!("{OPERATOR}x")),
        bearer(&format!("{OPERATOR} {ADMIN}")),
        bearer(&OPERATOR.to_uppercase()),
        bearer(&sha256(ADMIN)),
        bearer(&long),
        format!("Authorization: Basic {OPERATOR}\r\n"),
        format!("Authorization: {OPERATOR}\r\n"),
        format!("Authorization: Bearer\r\nX-Token: {OPERATOR}\r\n"),
        format!("Proxy-Authorization: Bearer {OPERATOR}\r\n"),
        format!("Cookie: token={OPERATOR}\r\n"),
        format!("{}{}", bearer("x"), bearer(OPERATOR)),
        format!("{}{}", bearer(OPERATOR), bearer("x")),
    ]
    .into();
    for lines in &wrong {
        let response = ask(&proxy, "POST", "/admin/drain", lines, "");
        assert_eq!(response.status, 401, "{lines}: {response:?}");
        assert!(response.header("WWW-Authenticate").unwrap().starts_with("Bearer"));
        assert!(!response.text().contains(OPERATOR), "{response:?}");
    }
    // Who may not look learns nothing of what there is.
    assert_eq!(ask(&proxy, "GET", "/admin/nothing", "", "").status, 401);
    let status = json(&ask(&proxy, "GET", "/admin/status", &bearer(VIEWER), ""));
    assert_eq!(status["state"], "running");
    assert_eq!(status["admin_refused_total"], wrong.len() + 1);
    proxy.wait_for_log("refused, the last with 401 from 127.0.0.1");
    for token in [VIEWER, OPERATOR, ADMIN] {
        assert!(!proxy.log().contains(token), "{}", proxy.log());
    }
    // The scheme is a name in any case.
    let any_case = format!("authorization: bEARER {VIEWER}\r\n");
    assert_eq!(ask(&proxy, "GET", "/admin/status", &any_case, "").status, 200);
}

#[test]
fn tokens_are_looked_up_in_the_environment_and_missed_with_their_place() {
    let directory = support::TempDir::new();
    let toml = |token: &str| {
        format!(
            "[[listeners]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"0.0.0.0:0\"\n\
             tokens = [{{ name = \"ci\", role = \"admin\", {token} }}]\n[[routes]]\nname = \"r\"\n\
             echo = true\n"
        )
    };
    let check = |token: &str| {
        let file = directory.write("c.toml", toml(token));
        let output = Proxy::command(&["check", &file.display().to_string()]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = check("token = \"${CORELANE_TEST_NO_SUCH_VARIABLE}\"");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("c.toml:6:50: admin.tokens[0].token: the environment variable"));
    let (code, text) = check("token_file = \"/nowhere/token\"");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("admin.tokens[0].token_file: `/nowhere/token` cannot be read"), "{text}");
    let short = directory.write("short", "short\n");
    let (code, text) = check(&format!("token_file = \"{}\"", short.display()));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("expected from 16 to 4096 characters"), "{text}");
    // PATH is in every environment, and long enough.
    assert_eq!(check("token = \"${PATH}\"").0, Some(0));
}

#[test]
fn printing_a_configuration_shows_no_token() {
    let directory = support::TempDir::new();
    let text = "[[listeners]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\n[[routes]]\nname = \"r\"\n\
                echo = true\n[admin]\ntokens = [{ name = \"ci\", role = \"admin\", \
                token = \"a-token-in-plain-sight\" }]\n";
    let file = directory.write("c.toml", text).display().to_string();
    let output = Proxy::command(&["print-config", &file]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(!printed.contains("plain-sight"), "{printed}");
    assert!(!printed.contains(&sha256("a-token-in-plain-sight")), "{printed}");
    assert!(printed.contains("token = \"${HIDDEN}\""), "{printed}");
    // What is not written there can be shown: whose it is, and its digest.
    let printed =
        printed.replace("token = \"${HIDDEN}\"", &format!("sha256 = \"{}\"", sha256("x")));
    let again = directory.write("again.toml", &printed).display().to_string();
    assert_eq!(Proxy::command(&["check", &again]).status.code(), Some(0));
}

#[test]
fn a_name_that_leads_here_from_elsewhere_is_refused() {
    let proxy = with_tokens();
    let from = |host: &str| {
        let lines = format!("Host: {host}\r\n{}", bearer(ADMIN));
        ask(&proxy, "GET", "/admin/status", &lines, "")
    };
    let port = proxy.port("admin");
    let ours = ["localhost", "127.0.0.1", "[::1]:1", "admin.internal", "ADMIN.internal:80"];
    for host in ours.map(str::to_owned).into_iter().chain([format!("127.0.0.1:{port}")]) {
        assert_eq!(from(&host).status, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example:9091", "192.0.2.1", "internal"] {
        let response = from(host);
        assert_eq!((response.status, code(&response).as_str()), (421, "FOREIGN_HOST"), "{host}");
    }
    let mut old = proxy.client_of("admin");
    old.send(format!("GET /admin/status HTTP/1.0\r\n{}\r\n", bearer(ADMIN)));
    assert_eq!(old.read_response().status, 421, "no host is nobody's host");
    // Probes ask by whatever name they like, and learn nothing that is secret.
    assert_eq!(ask(&proxy, "GET", "/health", "Host: pod-7.example\r\n", "").status, 200);
}

#[test]
fn pages_of_other_sites_cannot_make_a_browser_change_anything() {
    let proxy = Proxy::start(&edge(ROUTE));
    let try_from = |lines: &str| ask(&proxy, "POST", "/admin/drain", lines, "").status;
    let foreign = [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://localhost:1\r\n",
        "Origin: http://localhost.evil.example\r\n",
        "Origin: \r\n",
        "Origin: localhost\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ];
    for lines in foreign {
        assert_eq!(try_from(lines), 403, "{lines}");
    }
    assert_eq!(json(&proxy.admin_get("/admin/status"))["state"], "running");
    assert_eq!(try_from("Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n"), 200);
    assert_eq!(json(&proxy.admin_get("/admin/status"))["state"], "draining");
}

#[test]
fn every_change_and_every_try_is_in_the_audit_log() {
    let proxy = with_tokens();
    ask(&proxy, "POST", "/admin/drain?delay=1h", &bearer(OPERATOR), "");
    ask(&proxy, "POST", "/admin/resume", &bearer(VIEWER), "");
    ask(&proxy, "POST", "/admin/resume", &bearer("wrong"), "");
    ask(&proxy, "GET", "/admin/status", &bearer(VIEWER), "");
    ask(&proxy, "GET", "/admin/status", &bearer("wrong"), "");
    ask(&proxy, "GET", "/admin/nothing", "Host: evil.example\r\n", "");
    ask(&proxy, "DELETE", "/admin/blacklist?ip=1.2.3.4", &bearer(OPERATOR), "");
    let json_body = format!("{JSON}{}", bearer(OPERATOR));
    ask(&proxy, "DELETE", "/admin/blacklist", &json_body, "{ \"ip\": \"1.2.3.5\" }");
    let toml_body = format!("{TOML}{}", bearer(ADMIN));
    ask(&proxy, "PUT", "/admin/config?dry_run=true", &toml_body, &saying("a"));
    let forbidden = "403 FORBIDDEN: this needs role operator, the token has viewer";
    let unknown = "401 UNAUTHORIZED: this token is not known";
    let (nobody, refused) = (Value::Null, ("auth_failure", "denied"));
    let (failed, none) = (("admin_change", "failed"), Value::Null);
    let drained = "200 out of service, connections close after 3600s";
    let expected = [
        (("admin_change", "done"), json!("ci"), "POST /admin/drain", json!("delay=1h"), drained),
        (refused, json!("looker"), "POST /admin/resume", none.clone(), forbidden),
        (refused, nobody.clone(), "POST /admin/resume", none.clone(), unknown),
        (refused, nobody.clone(), "GET /admin/status", none.clone(), unknown),
        (refused, nobody, "GET /admin/nothing", none, "421 FOREIGN_HOST: "),
        (failed, json!("ci"), "DELETE /admin/blacklist", json!("ip=1.2.3.4"), "404 NOT_FOUND: "),
        (
            failed,
            json!("ci"),
            "DELETE /admin/blacklist",
            json!("{\"ip\":\"1.2.3.5\"}"),
            "404 NOT_FOUND: ",
        ),
        (
            ("admin_change", "dry_run"),
            json!("root"),
            "PUT /admin/config",
            json!("dry_run=true"),
            "200",
        ),
    ];
    assert!(eventually(|| audited(&proxy).len() == expected.len()), "{}", proxy.log());
    for (line, ((event, outcome), actor, action, target, detail)) in
        audited(&proxy).iter().zip(expected)
    {
        assert_eq!((&line["event"], &line["outcome"]), (&json!(event), &json!(outcome)), "{line}");
        assert_eq!((&line["actor"], &line["peer_ip"]), (&actor, &json!("127.0.0.1")), "{line}");
        assert_eq!((&line["action"], &line["target"]), (&json!(action), &target), "{line}");
        assert!(line["detail"].as_str().unwrap().starts_with(detail), "{line}");
    }
    let status = json(&ask(&proxy, "GET", "/admin/status", &bearer(VIEWER), ""));
    assert_eq!(status["admin_refused_total"], 4, "everything that was refused at the door");
}

/// What the process's own log has of the audit log.
fn audited(proxy: &Proxy) -> Vec<Value> {
    let log = proxy.log();
    let lines = log.lines().filter_map(|line| line.split_once(" audit: "));
    lines.map(|(_, line)| serde_json::from_str(line).expect("it is JSON")).collect()
}

#[test]
fn strangers_cannot_flood_the_audit_log_and_none_of_them_is_forgotten() {
    let proxy = Proxy::start(&edge(ROUTE));
    let began = Instant::now();
    let path = format!("/admin/{}", "x".repeat(7000));
    let foreign = |method: &str, line: &str| ask(&proxy, method, &path, line, "").status;
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(foreign("GET", "Host: evil.example\r\n"), 421));
            scope.spawn(|| assert_eq!(foreign("PUT", "Origin: http://evil.example\r\n"), 403));
        }
    });
    let mut sent = 40;
    let told = |lines: &[Value]| {
        lines.iter().map(|line| 1 + line["untold"].as_u64().unwrap_or(0)).sum::<u64>()
    };
    // The next one that is told says how many were not.
    let all_are_told = || {
        sent += 1;
        assert_eq!(foreign("GET", "Host: evil.example\r\n"), 421);
        told(&audited(&proxy)) == sent
    };
    assert!(eventually(all_are_told), "{}", proxy.log());
    let lines = audited(&proxy);
    assert!(lines.len() as u64 <= 8 * (began.elapsed().as_secs() + 2), "{}", lines.len());
    for line in &lines {
        assert_eq!((&line["event"], &line["outcome"]), (&json!("auth_failure"), &json!("denied")));
        assert!(line.to_string().len() < 1000, "{line}");
    }
    let status = json(&proxy.admin_get("/admin/status"));
    assert_eq!(status["admin_refused_total"], sent);
}

#[test]
fn pages_of_other_sites_cannot_open_taps_and_streams() {
    let proxy = Proxy::start(&edge(ROUTE));
    for path in ["/admin/tap?seconds=1", "/admin/events?seconds=1", "/admin/errors"] {
        for lines in ["Sec-Fetch-Site: cross-site\r\n", "Origin: http://evil.example\r\n"] {
            let refused = ask(&proxy, "GET", path, lines, "");
            assert_eq!(
                (refused.status, code(&refused).as_str()),
                (403, "FOREIGN_ORIGIN"),
                "{path}"
            );
        }
        assert_eq!(ask(&proxy, "GET", path, "Sec-Fetch-Site: none\r\n", "").status, 200, "{path}");
    }
    still_works(&proxy);
}

// --- draining --------------------------------------------------------------------------------

fn readiness(proxy: &Proxy) -> (u16, Value) {
    let response = proxy.client_of("metrics").get("/health/readiness");
    (response.status, json(&response))
}

#[test]
fn a_drain_turns_readiness_first_then_closes_and_resume_takes_it_back() {
    let proxy = Proxy::start(&edge(ROUTE));
    let mut kept = proxy.client();
    assert_eq!(kept.get("/").header("Connection"), None);
    assert_eq!(readiness(&proxy).0, 200);
    assert_eq!(ask(&proxy, "POST", "/admin/drain?delay=1h", "", "").status, 200);
    let (status, body) = readiness(&proxy);
    assert_eq!((status, &body["status"]), (503, &json!("not_ready")));
    assert_eq!(body["checks"]["service"], "draining");
    // Before the delay is over, nobody's connection is touched.
    assert_eq!(kept.get("/").header("Connection"), None);
    assert_eq!(ask(&proxy, "POST", "/admin/drain", "", "").status, 200);
    assert!(eventually(|| proxy.client().get("/").header("Connection") == Some("close")));
    assert!(kept.read_to_close().is_empty(), "an idle connection is closed");
    assert_eq!(json(&proxy.admin_get("/admin/status"))["state"], "draining");
    assert_eq!(proxy.metric("tls_proxy_draining"), Some(1.0));
    assert_eq!(ask(&proxy, "POST", "/admin/resume", "", "").status, 200);
    assert_eq!(readiness(&proxy).0, 200);
    let open = || {
        let mut client = proxy.client();
        client.get("/").header("Connection").is_none() && client.get("/").status == 200
    };
    assert!(eventually(open));
}

#[test]
fn a_resume_takes_back_a_drain_that_has_not_closed_anything_yet() {
    let proxy = Proxy::start(&edge(ROUTE));
    assert_eq!(ask(&proxy, "POST", "/admin/drain?delay=500ms", "", "").status, 200);
    assert_eq!(ask(&proxy, "POST", "/admin/resume", "", "").status, 200);
    // Longer than the drain would have taken: that nothing happens shows only by waiting.
    thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(proxy.client().get("/").header("Connection"), None);
    let twice = ask(&proxy, "POST", "/admin/drain?delay=1s&delay=2s", "", "");
    assert_eq!(twice.status, 400, "{twice:?}");
    let json_line = "Content-Type: application/json\r\n";
    let both = ask(&proxy, "POST", "/admin/drain?delay=3h", json_line, "{\"delay\":\"1s\"}");
    assert_eq!(json(&both)["delay_ms"], 3 * 3_600_000, "the query's wins");
}

#[test]
fn a_process_that_was_told_to_end_does_not_come_back() {
    let proxy = Proxy::start(&edge(ROUTE));
    // Holds the drain open.
    let mut busy = proxy.client();
    busy.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    let mut half = proxy.client();
    half.send("GET / HTTP/1.1\r\n");
    assert!(eventually(|| proxy.metric("tls_proxy_connections_active") >= Some(1.0)));
    let mut admin = proxy.client_of("admin");
    assert_eq!(send(&mut admin, "GET", "/admin/status", "", "").status, 200);
    proxy.signal("TERM");
    proxy.wait_for_log("draining: no new connections");
    let response = send(&mut admin, "POST", "/admin/resume", "", "");
    assert_eq!((response.status, code(&response).as_str()), (409, "CONFLICT"));
    let response = send(&mut admin, "GET", "/health/readiness", "", "");
    assert_eq!(response.status, 503);
    assert_eq!(json(&response)["checks"]["service"], "stopping");
}

// --- health ----------------------------------------------------------------------------------

#[test]
fn health_pages_are_on_both_ports_and_on_listeners_when_asked_for() {
    let proxy = Proxy::start(&format!("health = {{ on_listeners = true }}\n{}", edge(ROUTE)));
    for name in ["edge", "metrics", "admin"] {
        let mut client = proxy.client_of(name);
        for (path, word) in
            [("", "ready"), ("/liveness", "ok"), ("/readiness", "ready"), ("/startup", "started")]
        {
            let response = client.get(&format!("/health{path}"));
            assert_eq!(response.status, 200, "{name} {path}");
            let body = json(&response);
            assert_eq!(body["status"], word, "{name} {path}");
            // What is behind a listener is not for each of its clients.
            let shown = name != "edge" && ["", "/readiness"].contains(&path);
            assert_eq!(body["checks"].is_object(), shown, "{name} {path}");
            assert!(body["timestamp"].is_string());
        }
    }
    // Exactly these: the rest is the operator's.
    assert_eq!(
        proxy.client().get("/health/").header("Content-Type").unwrap(),
        "text/plain; charset=utf-8"
    );
    let mut client = proxy.client();
    client.send("HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response_to("HEAD").status, 200);
    assert_eq!(ask(&proxy, "POST", "/admin/drain?delay=1h", "", "").status, 200);
    assert!(eventually(|| proxy.client().get("/health").status == 503));
    assert_eq!(proxy.client().get("/health/liveness").status, 200);
}

#[test]
fn listeners_tell_clients_what_is_behind_them_only_when_asked_to() {
    let asked = "health = { on_listeners = true, listener_details = true }\n";
    let proxy = Proxy::start(&format!("{asked}{}", edge(ROUTE)));
    let told = |details: bool| {
        let body = json(&proxy.client().get("/health"));
        body["checks"]["service"] == json!("running") && details
            || body["checks"].is_null() && !details
    };
    assert!(told(true));
    proxy.rewrite_config(&format!("health = {{ on_listeners = true }}\n{}", edge(ROUTE)));
    assert_eq!(ask(&proxy, "POST", "/admin/reload", "", "").status, 200);
    assert!(eventually(|| told(false)));
}

#[test]
fn listeners_route_health_paths_like_any_other_unless_asked() {
    let proxy = Proxy::start(&edge(ROUTE));
    let response = proxy.client().get("/health");
    assert!(response.text().starts_with("GET /health"), "{response:?}");
}

#[test]
fn a_proxy_whose_clusters_have_no_address_at_all_is_not_ready() {
    let cluster = |address: &str| {
        edge(&format!(
            "[[routes]]\nname = \"all\"\ncluster = \"app\"\n[clusters.app]\n\
             endpoints = [{{ address = \"{address}\" }}]\n"
        ))
    };
    let proxy = Proxy::start(&cluster("127.0.0.1:1"));
    let (status, body) = readiness(&proxy);
    assert_eq!(status, 200, "{body}");
    let expected = json!([{"url": "http://127.0.0.1:1", "cluster": "app", "status": "ready"}]);
    assert_eq!(body["checks"]["backends"], expected);
    let proxy = Proxy::start(&cluster("no-such-host.invalid:80"));
    let (status, body) = readiness(&proxy);
    assert_eq!(status, 503, "{body}");
    assert_eq!(body["checks"]["backends"][0]["status"], "unresolved");
}

#[test]
fn curl_finds_its_way() {
    let proxy = with_tokens();
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", proxy.port("admin"));
    let token = format!("Authorization: Bearer {OPERATOR}");
    let status = Curl::get(&url("/admin/status"), &["-H", &token]);
    assert_eq!((status.exit, status.status), (0, 200));
    let drained = Curl::get(
        &url("/admin/drain"),
        &["-H", &token, "-H", "Expect: 100-continue", "--json", "{\"delay\": \"0s\"}"],
    );
    assert_eq!((drained.exit, drained.status), (0, 200), "{}", drained.text());
    assert_eq!(Curl::get(&url("/admin/resume"), &["-X", "POST", "-H", &token]).status, 200);
    assert_eq!(Curl::get(&url("/admin/status"), &[]).status, 401);
}

// --- pages -----------------------------------------------------------------------------------

#[test]
fn a_clusters_page_tells_what_its_endpoints_did() {
    let origin = Origin::start().on("GET /", Respond::text("hello"));
    let toml = edge(&format!(
        "[[routes]]\nname = \"all\"\ncluster = \"app\"\n\
         [[routes]]\nname = \"dead\"\npaths = [\"/dead\"]\ncluster = \"dead\"\n\
         [clusters.app]\nendpoints = [{{ address = \"{}\", zone = \"a\" }}, \
         {{ address = \"127.0.0.1:9\", weight = 0 }}, {{ address = \"gone.invalid:80\" }}]\n\
         [clusters.dead]\nendpoints = [{{ address = \"127.0.0.1:1\" }}]\n",
        origin.address()
    ));
    let proxy = Proxy::start(&toml.replace("cores = 1", "cores = 2"));
    let mut client = proxy.client();
    for _ in 0..20 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(client.get("/dead").status, 502);
    let page = json(&proxy.admin_get("/admin/clusters"));
    let app = &page["clusters"][0];
    assert_eq!((&app["name"], &app["waiting"]), (&json!("app"), &json!(0)));
    let endpoint = &app["endpoints"][0];
    assert_eq!(endpoint["address"], origin.address().to_string());
    assert_eq!(endpoint["requests_total"], 20);
    assert_eq!((&endpoint["failures_total"], &endpoint["zone"]), (&json!(0), &json!("a")));
    assert_eq!((&endpoint["connections"], &endpoint["in_flight"]), (&json!(1), &json!(0)));
    let latency = |name: &str| endpoint["latency_us"][name].as_u64().unwrap();
    assert!(latency("mean") > 0 && latency("p50") <= latency("p99"), "{endpoint}");
    let states: Vec<&Value> =
        app["endpoints"].as_array().unwrap().iter().map(|endpoint| &endpoint["state"]).collect();
    assert_eq!(states, ["ready", "off", "unresolved"]);
    assert_eq!(app["endpoints"][2]["name"], "gone.invalid:80");
    let one = json(&proxy.admin_get("/admin/clusters/dead"));
    assert_eq!(one["endpoints"][0]["failures_total"], 1);
    assert_eq!(one["endpoints"][0]["last_failure"]["reason"], "connect_refused");
    assert_eq!(one["endpoints"][0]["latency_us"], Value::Null);
    for missing in ["nothing", "app%00", "%61pp/x"] {
        assert_eq!(proxy.admin_get(&format!("/admin/clusters/{missing}")).status, 404);
    }
    assert_eq!(proxy.admin_get("/admin/clusters/%61pp").status, 200);
}

#[test]
fn connections_are_listed_with_what_they_carried_until_they_end() {
    let proxy = Proxy::start(&edge(ROUTE).replace("cores = 1", "cores = 4"));
    let mut clients: Vec<RawClient> = (0..8).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(clients[0].get("/again").status, 200);
    let mut busy = proxy.client();
    busy.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    let list = |query: &str| json(&proxy.admin_get(&format!("/admin/connections{query}")));
    assert!(eventually(|| list("")["open"] == 9), "{}", list(""));
    let page = list("");
    let listed = page["connections"].as_array().unwrap();
    assert_eq!(listed.len(), 9);
    let peer = clients[0].local_addr().to_string();
    let first = listed.iter().find(|listed| listed["peer"] == peer).unwrap();
    assert_eq!((&first["requests"], &first["state"]), (&json!(2), &json!("idle")));
    assert_eq!(first["listener"], "edge");
    assert!(first["received_bytes"].as_u64() > Some(60) && first["sent_bytes"].as_u64() > Some(99));
    let cores: std::collections::BTreeSet<u64> =
        listed.iter().map(|listed| listed["core"].as_u64().unwrap()).collect();
    assert_eq!(cores.len(), 4, "{cores:?}");
    let few = list("?limit=3");
    assert_eq!((few["connections"].as_array().unwrap().len(), &few["open"]), (3, &json!(9)));
    assert_eq!(list("?limit=0")["open"], 9);
    let listeners = json(&proxy.admin_get("/admin/listeners"));
    let listener = &listeners["listeners"][0];
    assert_eq!((&listener["connections"], &listener["sockets"]), (&json!(9), &json!(4)));
    assert_eq!(listener["address"], proxy.address("edge").to_string());
    for wrong in ["?limit=10001", "?limit=-1", "?limit=x", "?most=1", "?limit=1&limit=1"] {
        let response = proxy.admin_get(&format!("/admin/connections{wrong}"));
        assert_eq!(response.status, 400, "{wrong}: {response:?}");
    }
    drop(clients);
    assert!(eventually(|| list("")["open"].as_u64() <= Some(1)), "{}", list(""));
}

#[test]
fn refused_requests_are_remembered_with_their_first_wrong_byte_and_without_secrets() {
    let proxy = Proxy::start(&edge(ROUTE));
    let text = "GET /a HTTP/1.1\r\nHost: a\r\nAuthorization: Basic c2VjcmV0\r\nX y: 1\r\n\r\n";
    let mut client = proxy.client();
    client.send(text);
    assert_eq!(client.read_response().status, 400);
    assert_eq!(proxy.client().get("/../..").status, 400);
    assert_eq!(proxy.client().get("/").status, 200);
    let page = json(&proxy.admin_get("/admin/errors"));
    let errors = page["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2, "{page}");
    assert_eq!(errors[0]["reason"], "bad_path");
    let error = &errors[1];
    assert_eq!(
        (&error["reason"], &error["phase"]),
        (&json!("space_in_name"), &json!("request_head"))
    );
    assert_eq!(error["listener"], "edge");
    let hex = error["bytes_hex"].as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
    let kept: Vec<u8> = (0..hex.len() / 2).map(byte).collect();
    let kept = String::from_utf8(kept).unwrap();
    assert_eq!(kept, text.replace("Basic c2VjcmV0", "***** ********"));
    let offset = error["offset"].as_u64().unwrap() as usize;
    assert!(text[..=offset].ends_with("X "), "{offset}: {:?}", &text[..=offset]);
    let forgotten = ask(&proxy, "DELETE", "/admin/errors", "", "");
    assert_eq!(json(&forgotten)["forgotten"], 2);
    assert_eq!(json(&proxy.admin_get("/admin/errors"))["errors"], json!([]));
}

#[test]
fn refused_requests_show_no_secret_of_a_url_a_header_or_a_body() {
    let redact = "[logging.access]\nenabled = false\n[logging.redact]\nheaders = [\"x-plan\"]\n\
                  query = [\"pin\"]\n";
    let proxy = Proxy::start(&format!("{}{redact}", edge(ROUTE)));
    let mut client = proxy.client();
    client.send(
        "POST /x?access_token=QSECRET&pin=QSECRET&page=2 HTTP/1.1\r\nHost: a\r\n\
         Referer: http://b/?token=QSECRET\r\napikey: QSECRET\r\nX-Password: QSECRET\r\n\
         X-Session: QSECRET\r\nX-Plan: QSECRET\r\nX y: 1\r\nContent-Length: 16\r\n\r\n\
         password=QSECRET",
    );
    assert_eq!(client.read_response().status, 400);
    let page = json(&proxy.admin_get("/admin/errors"));
    let hex = page["errors"][0]["bytes_hex"].as_str().unwrap();
    let of_hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(!hex.contains(&of_hex("QSECRET")), "{page}");
    assert!(
        hex.starts_with(&of_hex("POST /x?access_token=*******&pin=*******&page=2 HTTP/1.1\r\n"))
    );
    assert!(page["errors"][0]["offset"].is_u64(), "{page}");
    proxy.wait_for_log("GET /admin/errors");
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn a_flood_of_bad_requests_is_remembered_within_bounds() {
    let proxy = Proxy::start(&edge(ROUTE));
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\nY : 1\r\n\r\n", "z".repeat(9000));
    for _ in 0..100 {
        let mut client = proxy.client();
        client.send(&long);
        assert_eq!(client.read_response().status, 400);
    }
    let page = json(&proxy.admin_get("/admin/errors"));
    let errors = page["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 64);
    assert!(errors.iter().all(|error| error["bytes_hex"].as_str().unwrap().len() == 1024));
    assert!(errors.iter().all(|error| error["bytes_cut"] == true && error["offset"].is_null()));
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn the_running_configuration_is_shown_in_both_forms_without_secrets() {
    let proxy = with_tokens();
    let page = ask(&proxy, "GET", "/admin/config", &bearer(VIEWER), "");
    let config = json(&page);
    assert_eq!(config["listeners"][0]["name"], "edge");
    assert_eq!(config["timeouts"]["header"], "10s", "defaults are filled in");
    let lines = format!("{}Accept: application/toml\r\n", bearer(VIEWER));
    let text = ask(&proxy, "GET", "/admin/config", &lines, "");
    assert_eq!(text.header("Content-Type"), Some("application/toml"));
    let table: toml::Table = text.text().parse().unwrap();
    assert_eq!(table["routes"][0]["name"].as_str(), Some("all"));
    for page in [&page, &text] {
        assert!(!page.text().contains(&sha256(ADMIN)), "{page:?}");
        assert!(!page.text().contains(VIEWER) && !page.text().contains(OPERATOR), "{page:?}");
    }
}

#[test]
fn levels_that_were_set_stay_until_a_reload_configures_others() {
    let proxy = Proxy::start(&saying("a"));
    let body = "{\"default\":\"debug\",\"modules\":{\"http\":\"warn\"}}";
    assert_eq!(ask(&proxy, "PUT", "/admin/logging", JSON, body).status, 200);
    let set = |level: &str| {
        let page = json(&proxy.admin_get("/admin/logging"));
        page["default"] == json!(level) && page["modules"] == json!({"http": "warn"})
    };
    assert_eq!(ask(&proxy, "POST", "/admin/reload", "", "").status, 200);
    assert!(set("debug"));
    proxy.rewrite_config(&format!("logging.level = \"warn\"\n{}", saying("a")));
    assert_eq!(ask(&proxy, "POST", "/admin/reload", "", "").status, 200);
    assert!(set("warn"));
}

#[test]
fn operators_see_variables_by_their_names_in_every_version() {
    let secrets = "[routes.request_headers.set]\n\"X-Backend-Key\" = \"${BKEY}\"\n\
                   X-Env = \"${NAME:-none}\"\napikey = \"LITERAL\"\nX-Password = \"LITERAL\"\n\
                   X-Keyboard = \"azerty\"\n[tracing.otlp]\nendpoint = \"http://127.0.0.1:1\"\n\
                   headers = { x-team = \"LITERAL\" }\n[timeouts]\nheader = \"${WAIT}\"\n";
    let variables = [("BKEY", "RESOLVED"), ("NAME", "RESOLVED"), ("WAIT", "7s")];
    let text = format!("{}{secrets}", edge(ROUTE));
    let proxy = Proxy::start_in(&variables, &[], &text);
    for path in ["/admin/config", "/admin/config/history/1"] {
        let page = proxy.admin_get(path);
        assert!(!page.text().contains("LITERAL") && !page.text().contains("RESOLVED"), "{page:?}");
        let config = json(&page);
        let set = &config["routes"][0]["request_headers"]["set"];
        assert_eq!(
            (&set["X-Backend-Key"], &set["X-Env"]),
            (&json!("${BKEY}"), &json!("${NAME:-none}"))
        );
        assert_eq!((&set["apikey"], &set["X-Keyboard"]), (&json!("${HIDDEN}"), &json!("azerty")));
        assert_eq!(config["timeouts"]["header"], "${WAIT}");
    }
    // What is shown cannot pass for the whole: put back, it does not set secrets to something else.
    let shown = ask(&proxy, "GET", "/admin/config", "Accept: application/toml\r\n", "");
    let refused = ask(&proxy, "PUT", "/admin/config", TOML, shown.text());
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(refused.text().contains("`HIDDEN` is not set"), "{refused:?}");
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn log_levels_change_by_module_while_it_runs() {
    let proxy = Proxy::start(&edge(ROUTE));
    let json_line = "Content-Type: application/json\r\n";
    let put = |body: &str| ask(&proxy, "PUT", "/admin/logging", json_line, body);
    let audits = || audited(&proxy).len();
    let page = json(&proxy.admin_get("/admin/logging"));
    assert_eq!((&page["default"], &page["modules"]), (&json!("info"), &json!({})));
    assert_eq!(ask(&proxy, "POST", "/admin/resume", "", "").status, 200);
    assert!(eventually(|| audits() == 1));
    let page = json(&put("{\"default\":\"off\",\"modules\":{\"admin\":\"off\"}}"));
    assert_eq!((&page["default"], &page["modules"]), (&json!("off"), &json!({"admin": "off"})));
    assert_eq!(ask(&proxy, "POST", "/admin/resume", "", "").status, 200);
    // Who turns the log off is told of, and so is what they do then.
    assert!(eventually(|| audits() == 3), "{}", proxy.log());
    let page = json(&put("{\"modules\":{\"control\":\"trace\"}}"));
    assert_eq!(page["default"], "info", "as configured");
    for wrong in [
        "{\"modules\":{\"audit\":\"off\"}}",
        "{\"default\":\"loud\"}",
        "{\"modules\":{\"nothing\":\"info\"}}",
        "{\"modules\":{\"admin\":\"INFO\"}}",
        "{\"modules\":[]}",
        "{\"levels\":{}}",
    ] {
        assert_eq!(put(wrong).status, 400, "{wrong}");
    }
    assert_eq!(json(&proxy.admin_get("/admin/logging"))["modules"], json!({"control": "trace"}));
}

// --- configurations --------------------------------------------------------------------------

const TOML: &str = "Content-Type: application/toml\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
const PATCH: &str = "Content-Type: application/merge-patch+json\r\n";

fn saying(text: &str) -> String {
    format!(
        "hot_reload.watch = false\n{}",
        edge(&format!(
            "[[routes]]\nname = \"all\"\nrespond = {{ status = 200, body = \"{text}\" }}\n"
        ))
    )
}

fn says(proxy: &Proxy) -> String {
    proxy.client().get("/").text().to_owned()
}

fn file(proxy: &Proxy) -> String {
    let files = fs::read_dir(proxy.directory()).expect("it has a directory").flatten();
    let is_toml = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    let configuration = files.map(|entry| entry.path()).find(is_toml).expect("there is a file");
    fs::read_to_string(configuration).expect("it is text")
}

#[test]
fn a_reload_reads_the_file_and_says_what_came_of_it() {
    let proxy = Proxy::start(&saying("one"));
    proxy.rewrite_config(&saying("two"));
    let answer = json(&ask(&proxy, "POST", "/admin/reload", "", ""));
    assert_eq!((&answer["version"], says(&proxy).as_str()), (&json!(2), "two"));
    proxy.rewrite_config(&saying("three").replace("respond =", "\nrepsond ="));
    let refused = ask(&proxy, "POST", "/admin/reload", "", "");
    assert_eq!((refused.status, code(&refused).as_str()), (422, "INVALID_CONFIGURATION"));
    let mistakes = json(&refused)["error"]["errors"].clone();
    let is_named = |mistake: &&Value| mistake["key"] == "routes[0].repsond";
    let mistake = mistakes.as_array().unwrap().iter().find(is_named).expect("it is named");
    assert!(mistake["line"].as_u64() > Some(1) && mistake["column"] == 1, "{mistake}");
    assert!(mistake["message"].as_str().unwrap().contains("did you mean"), "{mistake}");
    assert_eq!(says(&proxy), "two");
    let status = json(&proxy.admin_get("/admin/status"));
    let last = &status["last_reload"];
    assert_eq!((&last["outcome"], &last["trigger"]), (&json!("refused"), &json!("admin")));
    assert!(last["errors"].to_string().contains("repsond"), "{last}");
    assert_eq!(status["generations"][0]["version"], 2);
    assert_eq!((&status["upgrade"], &status["rules_version"]), (&json!("idle"), &json!(2)));
}

#[test]
fn a_configuration_that_is_put_is_in_memory_unless_it_is_to_be_written() {
    let proxy = Proxy::start(&saying("one"));
    let answer = ask(&proxy, "PUT", "/admin/config", TOML, &saying("two"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let page = json(&answer);
    assert_eq!((&page["applied"], &page["written"]), (&json!(true), &json!(false)));
    assert_eq!((says(&proxy).as_str(), file(&proxy)), ("two", saying("one")));
    let shown = || proxy.admin_get("/admin/config").text().to_owned();
    assert!(shown().contains("\"two\"") && shown().contains("\"two\""), "made once, given twice");
    let persist = "/admin/config?persist=true";
    let page = json(&ask(&proxy, "PUT", persist, TOML, &saying("three")));
    assert_eq!((&page["applied"], &page["written"]), (&json!(true), &json!(true)));
    assert_eq!((says(&proxy).as_str(), file(&proxy)), ("three", saying("three")));
    assert!(shown().contains("\"three\""));
    let refused = ask(&proxy, "PUT", persist, TOML, "nonsense = true\n");
    assert_eq!(refused.status, 422);
    assert_eq!((says(&proxy).as_str(), file(&proxy)), ("three", saying("three")));
    let left: Vec<_> = fs::read_dir(proxy.directory())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".new"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    proxy.wait_for_log("\"action\":\"PUT /admin/config\"");
}

#[test]
fn a_file_that_cannot_be_read_in_time_holds_up_nothing_else() {
    let proxy = Proxy::start(&saying("one"));
    let path = proxy.directory().join("corelane.toml");
    fs::remove_file(&path).expect("it is there");
    // Nobody writes into it: as good as a file of a server that is gone.
    assert!(Command::new("mkfifo").arg(&path).status().expect("coreutils").success());
    let refused = thread::scope(|scope| {
        let reload = scope.spawn(|| ask(&proxy, "POST", "/admin/reload", "", ""));
        still_works(&proxy);
        reload.join().expect("it is answered")
    });
    assert!([409, 422].contains(&refused.status), "{refused:?}");
    assert_eq!(ask(&proxy, "PUT", "/admin/config", TOML, &saying("two")).status, 200);
    assert_eq!(says(&proxy), "two");
    fs::remove_file(&path).expect("it is there");
    proxy.rewrite_config(&saying("three"));
    assert_eq!(ask(&proxy, "POST", "/admin/reload", "", "").status, 200);
    assert_eq!(says(&proxy), "three");
}

#[test]
fn a_configuration_in_force_whose_file_cannot_be_replaced_is_told_as_such() {
    let proxy = Proxy::start(&saying("one"));
    let new = proxy.directory().join(format!(".corelane.toml.{}.new", proxy.pid()));
    let (stop, stopped) = mpsc::channel::<()>();
    // What is to take the file's place goes missing: as good as a file that cannot be replaced.
    let thief = thread::spawn(move || {
        while stopped.try_recv().is_err() {
            drop(fs::remove_file(&new));
        }
    });
    let answer = ask(&proxy, "PUT", "/admin/config?persist=true", TOML, &saying("two"));
    stop.send(()).expect("it runs still");
    thief.join().expect("it was told to stop");
    assert_eq!(answer.status, 200, "{answer:?}");
    let page = json(&answer);
    assert_eq!((&page["applied"], &page["written"]), (&json!(true), &json!(false)));
    for told in [&page["note"], &page["warnings"][0]] {
        assert!(told.as_str().is_some_and(|text| text.contains("could not be replaced")), "{page}");
    }
    assert_eq!((says(&proxy).as_str(), file(&proxy)), ("two", saying("one")));
    proxy.wait_for_log("\"outcome\":\"done\",\"actor\":\"loopback\"");
    still_works(&proxy);
}

#[test]
fn a_dry_run_changes_nothing() {
    let proxy = Proxy::start(&saying("one"));
    let dry = "/admin/config?dry_run=true&persist=true";
    let page = json(&ask(&proxy, "PUT", dry, TOML, &saying("two")));
    assert_eq!((&page["applied"], &page["written"]), (&json!(false), &json!(false)));
    assert_eq!(page["version"], 1);
    assert_eq!(ask(&proxy, "PUT", dry, TOML, "cores = \"x\"\n").status, 422);
    assert_eq!((says(&proxy).as_str(), file(&proxy)), ("one", saying("one")));
}

#[test]
fn a_change_over_another_version_than_the_one_in_force_is_refused() {
    let proxy = Proxy::start(&saying("one"));
    let tag = proxy.admin_get("/admin/config").header("ETag").unwrap().to_owned();
    let condition = format!("{TOML}If-Match: {tag}\r\n");
    let first = ask(&proxy, "PUT", "/admin/config", &condition, &saying("two"));
    assert_eq!(first.status, 200, "{first:?}");
    let new = first.header("ETag").unwrap().to_owned();
    assert_ne!(new, tag);
    assert_eq!(proxy.admin_get("/admin/config").header("ETag"), Some(new.as_str()));
    for late in ["", "?dry_run=true", "?persist=true"] {
        let path = format!("/admin/config{late}");
        let late = ask(&proxy, "PUT", &path, &condition, &saying("three"));
        assert_eq!((late.status, code(&late).as_str()), (412, "PRECONDITION_FAILED"));
    }
    assert_eq!((says(&proxy).as_str(), file(&proxy)), ("two", saying("one")));
    let any = format!("{TOML}If-Match: *\r\n");
    assert_eq!(ask(&proxy, "PUT", "/admin/config", &any, &saying("four")).status, 200);
}

#[test]
fn of_two_changes_over_the_same_version_one_wins() {
    let proxy = Proxy::start(&saying("one"));
    let tag = proxy.admin_get("/admin/config").header("ETag").unwrap().to_owned();
    let condition = format!("{TOML}If-Match: {tag}\r\n");
    let statuses: Vec<u16> = thread::scope(|scope| {
        let tries: Vec<_> = ["a", "b", "c", "d"]
            .map(|text| {
                let (proxy, condition) = (&proxy, &condition);
                scope.spawn(move || {
                    ask(proxy, "PUT", "/admin/config", condition, &saying(text)).status
                })
            })
            .into();
        tries.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(200), count(412)), (1, 3), "{statuses:?}");
}

// --- a part of a configuration ---------------------------------------------------------------

const PATH: &str = "/admin/config";

fn patch(proxy: &Proxy, query: &str, body: &str) -> Response {
    ask(proxy, "PATCH", &format!("{PATH}{query}"), PATCH, body)
}

fn responding(text: &str) -> String {
    json!({ "routes": [{ "name": "all", "respond": { "body": text } }] }).to_string()
}

#[test]
fn a_part_is_put_over_what_runs_and_leaves_the_rest_and_its_secrets() {
    let secrets = "[clusters.a]\nendpoints = [{ address = \"127.0.0.1:9\" }] # kept\n\
                   [tracing]\nenabled = true\n[tracing.otlp]\n\
                   endpoint = \"http://127.0.0.1:9\"\nheaders = { x-key = \"SECRET-VALUE\" }\n";
    let toml = format!("{}{secrets}", saying("one"));
    let proxy = Proxy::start(&toml);
    let answer = patch(&proxy, "", &responding("two"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let page = json(&answer);
    assert_eq!((&page["applied"], &page["written"]), (&json!(true), &json!(false)));
    assert_eq!((says(&proxy).as_str(), file(&proxy)), ("two", toml.clone()));
    assert_eq!(answer.header("ETag"), proxy.admin_get(PATH).header("ETag"));
    let shown = json(&proxy.admin_get(PATH));
    assert_eq!(shown["clusters"]["a"]["endpoints"][0]["address"], "127.0.0.1:9");
    assert_eq!(shown["tracing"]["otlp"]["headers"]["x-key"], "${HIDDEN}");
    // What it removes is as if it had never been written; what is written keeps its comments.
    let text = r#"{"tracing": {"sample": 0.5, "otlp": {"timeout": null}}, "proxy_id": "edge"}"#;
    let page = json(&patch(&proxy, "?persist=true", text));
    assert_eq!(page["written"], true, "{page}");
    let written = file(&proxy);
    for kept in ["x-key = \"SECRET-VALUE\"", "# kept", "body = \"two\"", "proxy_id = \"edge\""] {
        assert!(written.contains(kept), "{kept}\n{written}");
    }
    assert_eq!(json(&proxy.admin_get(PATH))["tracing"]["sample"], 0.5);
    assert_eq!(says(&proxy), "two");
    let history = json(&proxy.admin_get("/admin/config/history"));
    assert_eq!(history["history"][0]["trigger"], "patch");
    let back = json(&ask(&proxy, "POST", "/admin/config/rollback", JSON, "{\"version\":1}"));
    assert_eq!((&back["version"], says(&proxy).as_str()), (&json!(4), "one"));
    let log = proxy.log();
    assert!(log.contains("\"action\":\"PATCH /admin/config\""), "{log}");
    assert!(!log.contains("SECRET-VALUE"), "{log}");
}

#[test]
fn passwords_of_certificates_survive_a_part_and_are_never_shown() {
    let pki = Pki::new();
    pki.export("ours", "ours.example", "SECRET-VALUE");
    let certificate = |name: &str| {
        let path = pki.path(name).display().to_string();
        format!("certificate = {{ cert = \"{path}\", password = \"SECRET-VALUE\" }} # kept\n")
    };
    let cluster = |name: &str| {
        format!(
            "[clusters.a]\nendpoints = [{{ address = \"127.0.0.1:9\" }}]\n[clusters.a.tls]\n{}",
            certificate(name)
        )
    };
    let proxy = Proxy::start(&format!("{}{}", saying("one"), cluster("ours.pfx")));
    let answer = patch(&proxy, "?persist=true", &responding("two"));
    assert_eq!((answer.status, says(&proxy).as_str()), (200, "two"), "{answer:?}");
    assert!(file(&proxy).contains(&certificate("ours.pfx")), "{}", file(&proxy));
    let shown = json(&proxy.admin_get(PATH));
    assert_eq!(shown["clusters"]["a"]["tls"]["certificate"]["password"], "${HIDDEN}");
    for path in [PATH, "/admin/config/history/1", "/admin/config/history/2"] {
        assert!(!proxy.admin_get(path).text().contains("SECRET-VALUE"), "{path}");
    }
    // A file that is not there refuses the whole, by its key; what runs goes on.
    let text = format!("{}{}", saying("three"), cluster("none.pfx"));
    let answer = ask(&proxy, "PUT", PATH, TOML, &text);
    assert!((400..500).contains(&answer.status), "{answer:?}");
    assert!(answer.text().contains("clusters.a.tls.certificate.cert"), "{answer:?}");
    assert!(!answer.text().contains("SECRET-VALUE"), "{answer:?}");
    assert_eq!(says(&proxy), "two");
    assert!(!proxy.log().contains("SECRET-VALUE"), "{}", proxy.log());
}

#[test]
fn mistakes_of_a_part_name_their_key_and_no_line_that_nobody_has_seen() {
    let proxy = Proxy::start(&saying("one"));
    let cases = [
        (r#"{"limits": {"max_url_lenght": 9}}"#, "limits.max_url_lenght", "did you mean"),
        (r#"{"cores": "many"}"#, "cores", "expected"),
        (r#"{"routes": [{"name": "a", "cluster": "b"}]}"#, "routes[0].cluster", "no cluster"),
        (r#"{"listeners": null}"#, "listeners", "missing"),
        (r#"{"proxy_id": "${NOT_THERE}"}"#, "proxy_id", "NOT_THERE"),
    ];
    for query in ["", "?dry_run=true", "?persist=true"] {
        for (body, key, message) in cases {
            let answer = patch(&proxy, query, body);
            assert_eq!(answer.status, 422, "{body}: {answer:?}");
            let mistakes = json(&answer)["error"]["errors"].clone();
            let named = mistakes.as_array().unwrap().iter().find(|one| one["key"] == key);
            let mistake = named.unwrap_or_else(|| panic!("{key}: {mistakes}"));
            assert!(mistake["message"].as_str().unwrap().contains(message), "{mistake}");
            assert!(mistake["line"].is_null() && mistake["column"].is_null(), "{mistake}");
        }
    }
    assert!(proxy.log().contains("(patch): limits.max_url_lenght: "), "{}", proxy.log());
    let bodies: [(&str, &str, u16); 9] = [
        (PATCH, "", 400),
        (PATCH, "[]", 400),
        (PATCH, "{", 400),
        (PATCH, "{\"cores\": [null]}", 400),
        (PATCH, "{\"cores\": 18446744073709551615}", 400),
        (JSON, "{}", 415),
        (TOML, "cores = 1", 415),
        ("", "{}", 415),
        ("", "", 415),
    ];
    for (lines, body, status) in bodies {
        let answer = ask(&proxy, "PATCH", PATH, lines, body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        let accepted = answer.header("Accept-Patch");
        assert_eq!(accepted.is_some(), status == 415, "{answer:?}");
        still_works(&proxy);
    }
    let deep = format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000));
    assert_eq!(patch(&proxy, "", &deep).status, 400);
    assert_eq!((says(&proxy).as_str(), file(&proxy)), ("one", saying("one")));
    assert_eq!(json(&proxy.admin_get("/admin/status"))["rules_version"], 1);
    let page = json(&patch(&proxy, "?dry_run=true", &responding("two")));
    assert_eq!((&page["applied"], &page["version"]), (&json!(false), &json!(1)));
    assert_eq!(says(&proxy), "one");
}

#[test]
fn parts_at_the_same_time_all_arrive_and_a_condition_holds() {
    let proxy = Proxy::start(&saying("one"));
    thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let body = json!({ "clusters": { name: {
                "endpoints": [{ "address": "127.0.0.1:9" }] } } });
            let proxy = &proxy;
            scope.spawn(move || assert_eq!(patch(proxy, "", &body.to_string()).status, 200));
        }
    });
    let page = proxy.admin_get(PATH);
    let found: Vec<String> = json(&page)["clusters"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(found, ["a", "b", "c", "d"]);
    let condition = format!("{PATCH}If-Match: {}\r\n", page.header("ETag").unwrap());
    let with = |text: &str| ask(&proxy, "PATCH", PATH, &condition, &responding(text)).status;
    assert_eq!((with("two"), with("three")), (200, 412));
    assert_eq!(says(&proxy), "two");
}

#[test]
fn only_an_admin_may_send_a_part() {
    let tokens = format!(
        "admin = {{ bind = \"127.0.0.1:0\", tokens = [\
         {{ name = \"a\", role = \"viewer\", token = \"{VIEWER}\" }}, \
         {{ name = \"b\", role = \"operator\", token = \"{OPERATOR}\" }}, \
         {{ name = \"c\", role = \"admin\", token = \"{ADMIN}\" }}] }}"
    );
    let proxy = Proxy::start(&edge(ROUTE).replace("admin = { bind = \"127.0.0.1:0\" }", &tokens));
    for (token, status) in [(VIEWER, 403), (OPERATOR, 403), (ADMIN, 200)] {
        let lines = format!("{PATCH}{}", bearer(token));
        assert_eq!(ask(&proxy, "PATCH", PATH, &lines, "{\"proxy_id\": \"x\"}").status, status);
    }
    // The tokens are what they were.
    let page = ask(&proxy, "GET", "/admin/status", &bearer(VIEWER), "");
    assert_eq!(json(&page)["rules_version"], 2);
}

#[test]
fn texts_that_are_no_configuration_are_refused_with_their_mistakes() {
    let proxy = Proxy::start(&saying("one"));
    let long = format!("# {}\n{}", "x".repeat(100_000), saying("long"));
    assert_eq!(ask(&proxy, "PUT", "/admin/config", TOML, &long).status, 200);
    let cases: [(&str, &str, u16); 5] = [
        (TOML, "a = ", 422),
        (TOML, "\u{0}", 422),
        (TOML, "cores = 1\ncores = 1\n", 422),
        (JSON, "{}", 422),
        ("", "x", 415),
    ];
    for (lines, body, status) in cases {
        let response = ask(&proxy, "PUT", "/admin/config", lines, body);
        assert_eq!(response.status, status, "{body}: {response:?}");
        still_works(&proxy);
    }
    let mut client = proxy.client_of("admin");
    client.send(format!(
        "PUT /admin/config HTTP/1.1\r\nHost: localhost\r\n{TOML}Content-Length: 2\r\n\r\n"
    ));
    client.send([0xff, 0xfe]);
    assert_eq!(client.read_response().status, 400);
    let mut client = proxy.client_of("admin");
    let huge = format!(
        "PUT /admin/config HTTP/1.1\r\nHost: localhost\r\n{TOML}Content-Length: 8388609\r\n\r\n"
    );
    client.send(huge);
    assert_eq!(client.read_response().status, 413);
    assert_eq!(says(&proxy), "long");
}

#[test]
fn earlier_configurations_are_listed_shown_without_secrets_and_put_back() {
    let secret = "[routes.request_headers.set]\nAuthorization = \"SECRET-VALUE\"\n";
    let proxy = Proxy::start(&format!("{}{secret}", saying("one")));
    assert_eq!(ask(&proxy, "PUT", "/admin/config", TOML, &saying("two")).status, 200);
    let history = json(&proxy.admin_get("/admin/config/history"));
    let versions: Vec<(u64, bool)> = history["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["version"].as_u64().unwrap(), entry["running"] == true))
        .collect();
    assert_eq!(versions, [(2, true), (1, false)]);
    let first = ask(&proxy, "GET", "/admin/config/history/1", "Accept: application/toml\r\n", "");
    assert!(first.text().contains("one") && first.text().contains("${HIDDEN}"), "{first:?}");
    assert!(!first.text().contains("SECRET-VALUE"), "{first:?}");
    for unknown in ["3", "x", "-1", "01x", "18446744073709551616"] {
        let path = format!("/admin/config/history/{unknown}");
        assert_eq!(proxy.admin_get(&path).status, 404, "{unknown}");
    }
    let back = ask(&proxy, "POST", "/admin/config/rollback", JSON, "{\"version\":1}");
    assert_eq!(json(&back)["version"], 3, "{back:?}");
    assert_eq!(says(&proxy), "one");
    for (body, status) in [("{\"version\":99}", 404), ("{}", 400), ("{\"version\":-1}", 400)] {
        assert_eq!(ask(&proxy, "POST", "/admin/config/rollback", JSON, body).status, status);
    }
    proxy.wait_for_log("version 3 is in force, from version 1");
}

// --- endpoints -------------------------------------------------------------------------------

fn endpoint(proxy: &Proxy, index: usize) -> Value {
    json(&proxy.admin_get("/admin/clusters/app"))["endpoints"][index].clone()
}

fn two_endpoints(cores: usize, a: &Origin, b: &Origin) -> String {
    edge(&format!(
        "[[routes]]\nname = \"all\"\ncluster = \"app\"\n[clusters.app]\n\
         endpoints = [{{ address = \"{}\" }}, {{ address = \"{}\" }}]\n",
        a.address(),
        b.address()
    ))
    .replace("cores = 1", &format!("cores = {cores}"))
}

/// Who answers, over so many new connections.
fn who_answers(proxy: &Proxy, connections: usize) -> BTreeSet<String> {
    (0..connections)
        .flat_map(|_| {
            let mut client = proxy.client();
            [client.get("/"), client.get("/")]
        })
        .map(|response| {
            assert_eq!(response.status, 200, "{response:?}");
            response.text().to_owned()
        })
        .collect()
}

#[test]
fn an_endpoint_that_is_drained_gets_nothing_new_from_any_of_16_cores() {
    let a = Origin::start().on("GET /", Respond::text("a"));
    let b = Origin::start().on("GET /", Respond::text("b"));
    let toml = two_endpoints(16, &a, &b);
    let proxy = Proxy::start(&format!("hot_reload.watch = false\n{toml}"));
    let both = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
    assert_eq!(who_answers(&proxy, 64), both);
    let path = format!("/admin/clusters/app/endpoints/{}", a.address());
    let body = "{\"reason\":\"new disk\"}";
    let answer = ask(&proxy, "POST", &format!("{path}/drain"), JSON, body);
    assert_eq!(answer.status, 200, "{answer:?}");
    // At once and on every core, old connections of clients included.
    assert_eq!(who_answers(&proxy, 64), BTreeSet::from(["b".to_owned()]));
    let shown = endpoint(&proxy, 0);
    assert_eq!((&shown["state"], &shown["weight"]), (&json!("drained"), &json!(1)));
    assert_eq!(shown["reason"], "drained by loopback: new disk");
    assert!(shown["since"].is_string(), "{shown}");
    // A reload does not take it back.
    assert_eq!(ask(&proxy, "POST", "/admin/reload", "", "").status, 200);
    assert_eq!(who_answers(&proxy, 64), BTreeSet::from(["b".to_owned()]));
    let other = format!("/admin/clusters/app/endpoints/{}/maintenance", b.address());
    assert_eq!(ask(&proxy, "POST", &other, "", "").status, 200);
    let refused = proxy.client().get("/");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.text().contains("taken out of service by an operator"), "{refused:?}");
    assert!(
        proxy.metric("tls_proxy_failures_total{reason=\"endpoints_drained\",side=\"upstream\"}")
            > Some(0.0)
    );
    let (status, page) = readiness(&proxy);
    assert_eq!((status, &page["checks"]["backends"][0]["status"]), (503, &json!("drained")));
    // No connection is kept to the one in maintenance.
    assert_eq!(endpoint(&proxy, 1)["connections"], 0);
    for endpoint in [&a, &b] {
        let path = format!("/admin/clusters/app/endpoints/{}/ready", endpoint.address());
        assert_eq!(ask(&proxy, "POST", &path, "", "").status, 200);
    }
    assert_eq!(who_answers(&proxy, 64), both);
    assert_eq!(endpoint(&proxy, 0)["since"], Value::Null);
    // Out of the configuration and back: nothing is left of what was said.
    assert_eq!(ask(&proxy, "POST", &format!("{path}/drain"), "", "").status, 200);
    let only_b = toml.replace(&format!("{{ address = \"{}\" }}, ", a.address()), "");
    assert_eq!(ask(&proxy, "PUT", "/admin/config", TOML, &only_b).status, 200);
    assert_eq!(ask(&proxy, "PUT", "/admin/config", TOML, &toml).status, 200);
    assert_eq!(endpoint(&proxy, 0)["state"], "ready");
}

#[test]
fn an_address_is_not_ready_while_its_name_is_out_of_service() {
    let origin = Origin::start().on("GET /", Respond::text("a"));
    let port = origin.address().port();
    let proxy = Proxy::start(&edge(&format!(
        "[[routes]]\nname = \"all\"\ncluster = \"app\"\n[clusters.app]\n\
         endpoints = [{{ address = \"localhost:{port}\" }}]\n"
    )));
    let change = |endpoint: &str, what: &str| {
        let path = format!("/admin/clusters/app/endpoints/{endpoint}:{port}/{what}");
        ask(&proxy, "POST", &path, "", "")
    };
    assert_eq!(change("localhost", "maintenance").status, 200);
    let refused = change("127.0.0.1", "ready");
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains(&format!("endpoints/localhost:{port}/ready")), "{refused:?}");
    assert_eq!(change("127.0.0.1", "drain").status, 200, "for when the name is back");
    assert_eq!(change("localhost", "ready").status, 200);
    let state = |address: &str| {
        let page = json(&proxy.admin_get("/admin/clusters/app"));
        let mut all = page["endpoints"].as_array().expect("a list").iter();
        all.find(|it| it["address"] == json!(format!("{address}:{port}")))
            .map(|it| it["state"].clone())
    };
    assert_eq!(state("127.0.0.1"), Some(json!("drained")));
    assert_eq!(change("127.0.0.1", "ready").status, 200);
    assert_eq!(state("127.0.0.1"), Some(json!("ready")));
    assert!(eventually(|| proxy.client().get("/").status == 200));
}

#[test]
fn an_exchange_that_runs_goes_on_while_its_endpoint_is_drained() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = Origin::raw(move |stream, _, _| {
        let _ = wait.lock().unwrap().recv();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow");
        support::After::KeepOpen
    });
    let proxy = everything(&slow);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(eventually(|| endpoint(&proxy, 0)["in_flight"] == 1));
    let path = format!("/admin/clusters/app/endpoints/{}", slow.address());
    assert_eq!(ask(&proxy, "POST", &format!("{path}/maintenance"), "", "").status, 200);
    assert_eq!(endpoint(&proxy, 0)["in_flight"], 1);
    go.send(()).unwrap();
    assert_eq!(client.read_response().text(), "slow");
    assert!(eventually(|| endpoint(&proxy, 0)["connections"] == 0), "it is not kept");
}

#[test]
fn weights_change_while_it_runs_and_go_back() {
    let a = Origin::start().on("GET /", Respond::text("a"));
    let b = Origin::start().on("GET /", Respond::text("b"));
    let proxy = Proxy::start(&two_endpoints(1, &a, &b));
    let path = format!("/admin/clusters/app/endpoints/{}/weight", a.address());
    assert_eq!(ask(&proxy, "PUT", &path, JSON, "{\"weight\":3}").status, 200);
    let answers: Vec<String> = (0..40).map(|_| proxy.client().get("/").text().to_owned()).collect();
    assert_eq!(answers.iter().filter(|text| *text == "a").count(), 30);
    let shown = endpoint(&proxy, 0);
    assert_eq!((&shown["weight"], &shown["configured_weight"]), (&json!(3), &json!(1)));
    for bad in ["{\"weight\":65536}", "{\"weight\":-1}", "{}", "{\"weight\":0.5}"] {
        assert_eq!(ask(&proxy, "PUT", &path, JSON, bad).status, 400, "{bad}");
    }
    assert_eq!(ask(&proxy, "PUT", &path, JSON, "{\"weight\":0}").status, 200);
    assert_eq!(who_answers(&proxy, 4), BTreeSet::from(["b".to_owned()]));
    assert_eq!(ask(&proxy, "PUT", &path, JSON, "{\"weight\":null}").status, 200);
    assert_eq!(endpoint(&proxy, 0)["weight"], 1);
    for missing in ["127.0.0.1:1", "nothing", "%20", "localhost:80"] {
        let path = format!("/admin/clusters/app/endpoints/{missing}/drain");
        assert_eq!(ask(&proxy, "POST", &path, "", "").status, 404, "{missing}");
    }
    let long = format!("{{\"reason\":\"{}\"}}", "x".repeat(201));
    let drain = path.replace("/weight", "/drain");
    assert_eq!(ask(&proxy, "POST", &drain, JSON, &long).status, 400);
    still_works(&proxy);
}
