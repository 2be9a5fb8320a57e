//! Configurations in YAML and JSON where they are run: the file, the admin API, and what goes
//! wrong.

#![expect(clippy::unwrap_used, reason = "functions that only tests call are tests")]

mod support;

use std::fs;

use corelane::config::Syntax;
use serde_json::{Value, json};
use support::{Proxy, Response};

const TOML: &str = "application/toml";
const YAML: &str = "application/yaml";
const JSON: &str = "application/json";

/// A proxy that answers with `text`, watching its file or not.
fn saying(syntax: Syntax, text: &str, watch: bool) -> String {
    let json = json!({
        "cores": 1,
        "hot_reload": { "watch": watch },
        "metrics": { "bind": "127.0.0.1:0" },
        "admin": { "bind": "127.0.0.1:0" },
        "listeners": [{ "name": "edge", "bind": "127.0.0.1:0" }],
        "routes": [{ "name": "all", "respond": { "body": text } }],
    });
    match syntax {
        Syntax::Json => format!("{json:#}\n"),
        Syntax::Toml => toml::to_string(&json).unwrap(),
        Syntax::Yaml => format!(
            "# kept as it is\ncores: 1\nhot_reload: {{ watch: {watch} }}\n\
             metrics: &any {{ bind: \"127.0.0.1:0\" }}\nadmin: *any\n\
             listeners:\n- name: edge\n  bind: 127.0.0.1:0\n\
             routes:\n- name: all\n  respond:\n    body: {text}\n"
        ),
    }
}

fn start(file: &str, text: &str) -> Proxy {
    Proxy::start_file(file, text, &["edge", "metrics", "admin"])
}

fn ask(proxy: &Proxy, method: &str, path: &str, content_type: &str, body: &[u8]) -> Response {
    let mut client = proxy.client_of("admin");
    client.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    ));
    client.send(body);
    client.read_response()
}

fn put(proxy: &Proxy, query: &str, content_type: &str, text: &str) -> Response {
    ask(proxy, "PUT", &format!("/admin/config{query}"), content_type, text.as_bytes())
}

fn page(response: &Response) -> Value {
    serde_json::from_str(response.text()).unwrap_or_else(|e| panic!("{e}: {response:?}"))
}

fn says(proxy: &Proxy) -> String {
    proxy.client().get("/").text().to_owned()
}

/// Line and column, from 1.
fn place(text: &str, part: &str) -> String {
    let (before, _) = text.split_once(part).unwrap();
    let column = before.rsplit('\n').next().unwrap().len() + 1;
    format!("{}:{column}", before.matches('\n').count() + 1)
}

#[test]
fn a_file_in_yaml_or_json_is_run_watched_and_refused_with_the_place_of_its_mistake() {
    for (file, syntax) in
        [("a.yaml", Syntax::Yaml), ("a.yml", Syntax::Yaml), ("a.json", Syntax::Json)]
    {
        let proxy = start(file, &saying(syntax, "one", true));
        assert_eq!(says(&proxy), "one");
        let path = proxy.directory().join(file);
        fs::write(&path, saying(syntax, "two", true)).unwrap();
        proxy.wait_for_log("reloaded (file change): version 2");
        assert_eq!(says(&proxy), "two");
        let wrong = saying(syntax, "three", true).replace("body", "bdoy");
        fs::write(&path, &wrong).unwrap();
        let place = place(&wrong, if syntax == Syntax::Json { "\"bdoy" } else { "bdoy" });
        proxy.wait_for_log(&format!("{file}:{place}: routes[0].respond.bdoy: unknown key"));
        proxy.wait_for_log("did you mean `body`?");
        assert_eq!(says(&proxy), "two");
        fs::write(&path, saying(syntax, "four", true)).unwrap();
        proxy.signal("HUP");
        proxy.wait_for_log("version 3");
        assert_eq!(says(&proxy), "four");
    }
}

#[test]
fn a_configuration_may_be_put_in_any_syntax_and_is_put_back_in_its_own() {
    let proxy = start("a.toml", &saying(Syntax::Toml, "one", false));
    for (content_type, syntax, text) in
        [(YAML, Syntax::Yaml, "two"), (JSON, Syntax::Json, "three"), (TOML, Syntax::Toml, "four")]
    {
        let kind = format!("{content_type}; charset=utf-8");
        let answer = put(&proxy, "?dry_run=true", &kind, &saying(syntax, text, false));
        assert_eq!((answer.status, &page(&answer)["applied"]), (200, &json!(false)));
        let answer = put(&proxy, "", &kind, &saying(syntax, text, false));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(says(&proxy), text);
    }
    for (version, text) in [(2, "two"), (3, "three"), (1, "one")] {
        let shown = page(&proxy.admin_get(&format!("/admin/config/history/{version}")));
        assert_eq!(shown["routes"][0]["respond"]["body"], text, "{shown}");
        let body = format!("{{\"version\":{version}}}");
        let answer = ask(&proxy, "POST", "/admin/config/rollback", JSON, body.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(says(&proxy), text);
    }
    let running = page(&proxy.admin_get("/admin/config"));
    assert_eq!(running["routes"][0]["respond"]["body"], "one");
}

#[test]
fn a_text_is_written_to_a_file_of_its_own_syntax_only() {
    for (file, own, kind) in [
        ("a.toml", Syntax::Toml, TOML),
        ("a.yml", Syntax::Yaml, YAML),
        ("a.json", Syntax::Json, JSON),
    ] {
        let first = saying(own, "one", false);
        let proxy = start(file, &first);
        let path = proxy.directory().join(file);
        for (other, other_kind) in
            [(Syntax::Toml, TOML), (Syntax::Yaml, YAML), (Syntax::Json, JSON)]
        {
            if other == own {
                continue;
            }
            for query in ["?persist=true", "?persist=true&dry_run=true"] {
                let refused = put(&proxy, query, other_kind, &saying(other, "two", false));
                assert_eq!(refused.status, 409, "{refused:?}");
                let message = page(&refused)["error"]["message"].to_string();
                let told = format!("{file} is {}, this text is {}", own.name(), other.name());
                assert!(
                    message.contains(&told) && message.contains("leave `persist` out"),
                    "{message}"
                );
            }
            assert_eq!(
                (says(&proxy).as_str(), fs::read_to_string(&path).unwrap()),
                ("one", first.clone())
            );
        }
        let third = saying(own, "three", false);
        let answer = put(&proxy, "?persist=true", kind, &third);
        assert_eq!((answer.status, &page(&answer)["written"]), (200, &json!(true)), "{answer:?}");
        assert_eq!((says(&proxy).as_str(), fs::read_to_string(&path).unwrap()), ("three", third));
    }
}

#[test]
fn hostile_texts_are_refused_and_the_next_request_is_served() {
    let proxy = start("a.yaml", &saying(Syntax::Yaml, "one", false));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..30 {
        let before = [format!("*a{}", n - 1).as_str(); 10].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{before}]\n"));
    }
    let deep = |open: &str| open.repeat(1_000_000);
    let cases: Vec<(&str, String, u16)> = vec![
        (YAML, bomb, 422),
        (YAML, deep("["), 422),
        (YAML, deep("- "), 422),
        (YAML, deep("? "), 422),
        (YAML, deep("{a: "), 422),
        (YAML, deep("&a "), 422),
        (YAML, deep("!t "), 422),
        (YAML, deep("a: 1\n"), 422),
        (YAML, deep("--- a\n"), 422),
        (YAML, format!("cores: {}\n", "9".repeat(1000)), 422),
        (YAML, format!("{}: 1\n", deep("a")), 422),
        (YAML, "cores: \0".to_owned(), 422),
        (YAML, saying(Syntax::Toml, "two", false), 422),
        (JSON, deep("["), 422),
        (JSON, deep("{\"a\":"), 422),
        (JSON, format!("{{{}}}", "\"a\":1,".repeat(1_000_000)), 422),
        (JSON, format!("[{}]", "null,".repeat(1_000_000)), 422),
        (JSON, format!("{{\"cores\": {}}}", "9".repeat(1000)), 422),
        (JSON, "\u{feff}{}".to_owned(), 422),
        (JSON, "\0".to_owned(), 422),
        (JSON, String::new(), 422),
        (JSON, saying(Syntax::Yaml, "two", false), 422),
        ("application/x-yaml", saying(Syntax::Yaml, "two", false), 415),
        ("application/yam", saying(Syntax::Yaml, "two", false), 415),
        ("application/merge-patch+json", "{}".to_owned(), 415),
    ];
    for (content_type, text, status) in cases {
        let shown: String = text.chars().take(40).collect();
        let refused = put(&proxy, "", content_type, &text);
        assert_eq!(refused.status, status, "{content_type} {shown}: {refused:?}");
        assert_eq!(says(&proxy), "one", "{shown}");
    }
    let refused = ask(&proxy, "PUT", "/admin/config", YAML, b"a: \xff\xfe");
    assert_eq!(refused.status, 400, "{refused:?}");
    let supported = put(&proxy, "", "text/x-toml", "").header("Accept").unwrap().to_owned();
    assert_eq!(supported, "application/toml, application/yaml, application/json");
    assert_eq!(put(&proxy, "", YAML, &saying(Syntax::Yaml, "two", false)).status, 200);
    assert_eq!(says(&proxy), "two");
}

#[test]
fn mistakes_in_a_text_that_is_put_have_lines_and_columns_of_that_text() {
    let proxy = start("a.toml", &saying(Syntax::Toml, "one", false));
    for (content_type, text, line, column) in [
        (YAML, "cores: 1\nlimits:\n  max: 1\n", 3, 3),
        (JSON, "{\n \"limits\": {\n  \"max\": 1}}", 3, 3),
    ] {
        let refused = page(&put(&proxy, "", content_type, text));
        let mistakes = refused["error"]["errors"].as_array().unwrap();
        let found = mistakes.iter().find(|one| one["key"] == "limits.max").unwrap();
        assert_eq!((&found["line"], &found["column"]), (&json!(line), &json!(column)));
    }
    assert_eq!(says(&proxy), "one");
}
