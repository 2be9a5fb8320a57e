//! Configuration as operators meet it: the files under conf/ load, print and load again, and
//! broken files are refused with messages that say where, what and what to do.

#![expect(clippy::unwrap_used, reason = "functions that only tests call are tests")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use corelane::cli::{self, Command, Output};
use corelane::config::keys::{Fallback, KEYS};
use corelane::config::{self, Document};
use corelane::machine::Machine;
use corelane::plan::{Action, Address, Balance, Plan};
use support::Pki;

#[test]
fn every_broken_file_is_refused_with_all_its_mistakes() {
    let files = files_of_any_syntax("tests/config");
    assert!(files.len() >= 45, "{} files", files.len());
    for file in files {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let text = fs::read_to_string(&file).unwrap();
        let errors = config::load(&name, &text).expect_err(&name).to_string();
        let printed = Path::new(name.trim_start_matches("tests/")).with_extension("txt");
        support::snapshot(&printed.display().to_string(), &errors);
    }
}

#[test]
fn every_example_loads_without_a_warning_and_says_what_it_shows() {
    let mut files = files_of_any_syntax("conf/examples");
    assert!(files.len() >= 12);
    files.push(root().join("conf/corelane.toml"));
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.display().to_string();
        let document = config::load(&name, &text).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(text.starts_with("# ") || name.ends_with(".json"), "{name}");
        assert!(text.lines().count() <= 30 || file.ends_with("corelane.toml"));
        let warnings = config::warnings(&document, 1024);
        assert!(warnings.is_empty(), "{}: {}", file.display(), warnings.as_warnings());
        let output = if text.contains("/etc/corelane/") && !file.ends_with("corelane.toml") {
            let pki = Pki::new();
            check(&pki.write("example.toml", &pki.provide(&text)))
        } else {
            check(&file)
        };
        assert_eq!((output.code, output.err.as_str()), (0, ""), "{}", file.display());
    }
}

#[test]
fn the_same_configuration_in_three_syntaxes_prints_the_same_but_for_its_lines() {
    let [toml, yaml, json] = ["toml", "yaml", "json"].map(|extension| {
        let file = root().join("conf/examples/syntaxes").with_extension(extension);
        let document = config::load(&file.display().to_string(), &read(&file)).unwrap();
        (config::print(&document), config::print_with_sources(&document))
    });
    assert_eq!(toml.0, yaml.0);
    assert_eq!(toml.0, json.0);
    for (printed, line) in [(toml, 8), (yaml, 6), (json, 4)] {
        let is_said = |printed: &str| {
            printed.lines().any(|text| {
                text.starts_with("max_body_size = \"1MB\"") && text.ends_with(&format!(":{line}"))
            })
        };
        assert!(is_said(&printed.1), "{}", printed.1);
        assert!(printed.1.contains("bind = \"127.0.0.1:8080\"  "), "{}", printed.1);
        assert!(printed.1.lines().any(|line| line.ends_with(" ${PORT}")), "{}", printed.1);
    }
}

#[test]
fn a_secret_of_a_yaml_or_json_file_is_hidden_and_never_quoted() {
    let yaml = "routes: [{ name: a, respond: {}, request_headers: { set: { Cookie: hunter2 } } }]\n\
                listeners: [{ name: l, bind: \"127.0.0.1:0\" }]\n\
                admin: { tokens: [{ name: ci, role: viewer, token: hunter2-hunter2-hunter2 }] }\n";
    let document = config::load("a.yaml", yaml).unwrap_or_else(|errors| panic!("{errors}"));
    for printed in [config::print(&document), config::print_with_sources(&document)] {
        assert!(printed.contains("${HIDDEN}") && !printed.contains("hunter2"), "{printed}");
    }
    let named = config::secrets_in_the_file(&document);
    assert_eq!(named, ["admin.tokens[0].token", "routes[0].request_headers.set.Cookie"]);
    for (name, secret) in [("a.yaml", "1234567"), ("a.yaml", "0123"), ("a.json", "1234567")] {
        let text = format!("{{\"admin\": {{\"tokens\": [{{\"token\": {secret}}}]}}}}");
        let errors = config::load(name, &text).unwrap_err().to_string();
        assert!(errors.contains(&format!("{name}:1:33: admin.tokens[0].token")), "{errors}");
        assert!(errors.contains("in quotes") && !errors.contains(secret), "{errors}");
    }
}

#[test]
fn printed_configuration_loads_to_the_same_plan_and_prints_the_same_again() {
    let mut texts: Vec<String> = files("conf/examples").iter().map(read).collect();
    texts.push(uncommented());
    texts.push(config::DEFAULT.to_owned());
    texts.extend([PLAIN, ROUTES, RELOAD, FULL, DISTINCT, PASSED_ON].map(str::to_owned));
    for text in texts {
        let document = load(&text);
        let printed = config::print(&document);
        let secrets = config::Environment::of(&[("HIDDEN", "0123456789abcdef")]);
        let again = config::load_in("printed", &printed, &secrets);
        let again = again.unwrap_or_else(|e| panic!("{printed}{e}"));
        assert_eq!(config::print(&again), printed);
        assert_eq!(without_router(&compile(&document)), without_router(&compile(&again)));
        let patterns = |document: &Document| -> Vec<(Vec<String>, Vec<String>)> {
            let values = |list: &Vec<config::At<String>>| {
                list.iter().map(|entry| entry.value.clone()).collect()
            };
            document.routes.iter().map(|r| (values(&r.hosts), values(&r.paths))).collect()
        };
        assert_eq!(patterns(&document), patterns(&again));
    }
}

#[test]
fn the_reference_file_shows_every_key_with_its_default() {
    let tree: toml::Table = uncommented().parse().unwrap();
    let mut shown = Vec::new();
    walk("", &toml::Value::Table(tree), &mut shown);
    let names: BTreeSet<&str> = shown.iter().map(|(path, _)| path.as_str()).collect();
    let known: BTreeSet<&str> = KEYS.iter().map(|key| key.path).collect();
    assert_eq!(names, known);
    for key in KEYS {
        if let Fallback::Is(default) = key.default {
            let default = literal(default);
            let found = shown.iter().any(|(path, value)| path == key.path && *value == default);
            assert!(found, "{} is not shown with its default {default}", key.path);
        }
    }
}

#[test]
fn the_reference_file_says_why_above_every_key() {
    let text = read(&root().join("conf/corelane.toml"));
    for key in KEYS {
        assert!(text.contains(&format!("# {}\n", key.doc)), "{}: {}", key.path, key.doc);
    }
}

#[test]
fn defaults_of_the_registry_are_the_defaults_that_are_filled_in() {
    let printed = config::print(&load(&format!(
        "{LISTENER}[listeners.tls]\ncertificates = [{{ cert = \"a\" }}]\n\
         client_auth = {{ ca = \"a\" }}\n\
         sni = [{{ names = \"a\", client_auth = {{ ca = \"a\" }} }}]\n\
         [[routes]]\nname = \"a\"\ncluster = \"a\"\n\
         [[routes]]\nname = \"b\"\npaths = [\"/b\"]\nrespond = {{}}\n\
         [[routes]]\nname = \"c\"\npaths = [\"/c\"]\nredirect = {{ location = \"/\" }}\n\
         access_log = {{ request_body = {{}}, response_body = {{}} }}\n\
         error_pages = [{{ statuses = 404, body = \"\" }}]\n\
         [[error_pages]]\nstatuses = 404\nbody = \"\"\n\
         [[routes]]\nname = \"d\"\npaths = [\"/d\"]\ncluster = \"g\"\n\
         grpc = {{}}\ngrpc_web = {{}}\n\
         [clusters.g]\nprotocol = \"h2c\"\nendpoints = [{{ address = \"10.0.0.1:80\" }}]\n\
         [clusters.a]\nendpoints = [{{ address = \"10.0.0.1:80\" }}]\ntls = {{}}\n\
         [clusters.b]\nendpoints = [{{ address = \"10.0.0.1:80\" }}]\nprotocol = \"h2c\"\n\
         http2 = {{}}\n[logging]\naccess = {{ {LOG}, request_body = {{}}, response_body = {{}} }}\n\
         error = {{ {LOG} }}\naudit = {{ {LOG} }}\n",
        LOG = "path = \"x\", rotate = {}"
    )));
    let mut shown = Vec::new();
    walk("", &toml::Value::Table(printed.parse().unwrap()), &mut shown);
    for key in KEYS {
        let filled = shown.iter().filter(|(path, _)| path == key.path).map(|(_, value)| value);
        match key.default {
            Fallback::Is(default) => {
                let default = literal(default);
                let mut filled = filled.peekable();
                assert!(filled.peek().is_some(), "{} is not printed", key.path);
                // hosts and paths of the routes above are written, not filled in
                assert!(filled.any(|value| *value == default), "{}: {default}", key.path);
            }
            Fallback::Absent(_) => {
                // a log is rotated only where it has a path, and a page has one text
                let written = key.path.starts_with("logging.") && key.path.ends_with(".path")
                    || key.path.ends_with("error_pages[].body");
                let optional = key.path != "routes[].cluster" && !written;
                assert!(!optional || filled.count() == 0, "{} has a default", key.path);
            }
            Fallback::Required => {}
        }
    }
}

#[test]
fn every_example_of_the_registry_loads_in_its_place() {
    for key in KEYS {
        let (section, rest) = match key.path.split_once('.') {
            Some((section, rest)) => (section, rest),
            None => ("", key.path),
        };
        let frame = |top: &str, listener: &str, route: &str, cluster: &str, sections: &str| {
            let name = if listener.starts_with("name") { "" } else { "name = \"l\"\n" };
            let bind = if listener.starts_with("bind") { "" } else { "bind = \"127.0.0.1:1\"\n" };
            let route_name = if route.starts_with("name") { "" } else { "name = \"r\"\n" };
            let does = ["cluster", "respond", "redirect", "echo"];
            let action =
                if does.iter().any(|key| route.starts_with(key)) { "" } else { "echo = true\n" };
            let written = cluster.starts_with("endpoints");
            let spoken = if route.contains("grpc") { "protocol = \"h2c\"\n" } else { "" };
            let endpoints = if written { "" } else { "endpoints = [{ address = \"a:1\" }]\n" };
            format!(
                "{top}\n[[listeners]]\n{name}{bind}{listener}\n[[routes]]\n{route_name}{action}\
                 {route}\n[clusters.orders]\n{spoken}{endpoints}{cluster}\n{sections}"
            )
        };
        let example = key.example;
        let text = match section {
            "" | "error_pages[]" => frame(example, "", "", "", ""),
            "listeners[]" => frame("", example, "", "", ""),
            "routes[]" => frame("", "", example, "", ""),
            "clusters" => frame("", "", "", example, ""),
            "logging" | "tracing" if rest.contains('.') => {
                let (below, _) = rest.split_once('.').unwrap_or_default();
                frame("", "", "", "", &format!("[{section}.{below}]\n{example}\n"))
            }
            _ => frame("", "", "", "", &format!("[{section}]\n{example}\n")),
        };
        if let Err(errors) = config::load("example", &text) {
            panic!("{}: {text}\n{errors}", key.path);
        }
    }
}

#[test]
fn every_file_of_tls_that_cannot_be_used_is_named_where_it_is_asked_for() {
    let pki = Pki::new();
    pki.issue("good", "good.example");
    pki.issue("other", "other.example");
    pki.export("packed", "packed.example", "one-of-its-own");
    pki.write("junk.pem", "junk\n");
    let text = "[[listeners]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\n[listeners.tls]\n\
        certificates = [\n  { cert = \"DIR/good.pem\", key = \"DIR/good.key\" },\n  \
        { cert = \"DIR/none.pem\", key = \"DIR/good.key\" },\n  \
        { cert = \"DIR/good.pem\", key = \"DIR/none.key\" },\n  \
        { cert = \"DIR/packed.pfx\", password_file = \"DIR/none.password\" },\n  \
        { cert = \"DIR/packed.pfx\", password = \"hunter2\" },\n  \
        { cert = \"DIR/good.pem\", key = \"DIR/other.key\" },\n]\n\
        client_auth = { ca = [\"DIR/good.pem\", \"DIR/junk.pem\"], crl = \"DIR/none.crl\" }\n\
        [[routes]]\nname = \"r\"\ncluster = \"c\"\n[clusters.c]\n\
        endpoints = [{ address = \"10.0.0.1:443\" }]\n\
        tls = { ca = [\"DIR/none-ca.pem\"], certificate = { cert = \"DIR/none.pem\" } }\n";
    let text = text.replace("DIR", &pki.path("").display().to_string());
    let output = check(&pki.write("proxy.toml", &text));
    let lines: Vec<&str> = output
        .err
        .lines()
        .filter_map(|line| line.strip_prefix(&format!("{}:", pki.path("proxy.toml").display())))
        .map(|line| line.split(": ").nth(1).unwrap_or_default())
        .collect();
    assert_eq!(
        lines,
        [
            "listeners[0].tls.certificates[1].cert",
            "listeners[0].tls.certificates[2].key",
            "listeners[0].tls.certificates[3].password_file",
            "listeners[0].tls.certificates[4].cert",
            "listeners[0].tls.certificates[5].key",
            "listeners[0].tls.client_auth.ca",
            "listeners[0].tls.client_auth.crl",
            "clusters.c.tls.ca",
            "clusters.c.tls.certificate.cert",
        ],
        "{}",
        output.err
    );
    assert_eq!(output.code, 2);
    assert!(!output.err.contains("hunter2"), "{}", output.err);
}

#[test]
fn what_is_found_for_tls_is_in_the_plan_and_what_is_risky_is_warned_about() {
    let pki = Pki::new();
    pki.issue("a", "a.example");
    pki.export("b", "b.example", "password");
    let text = format!(
        "[[listeners]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         tls = {{ min_version = \"1.2\", certificates = [{{ cert = \"DIR/a.pem\", key = \
         \"DIR/a.key\" }}, {{ cert = \"DIR/b.pfx\", password = \"password\" }}] }}\n{}",
        "[[routes]]\nname = \"r\"\ncluster = \"c\"\n[clusters.c]\n\
         endpoints = [{ address = \"10.0.0.1:443\" }]\ntls = { insecure_skip_verify = true, \
         certificate = { cert = \"DIR/a.pem\", key = \"DIR/a.key\" } }\n"
    );
    let text = text.replace("DIR", &pki.path("").display().to_string());
    let mut document = load(&text);
    let found = |plan: &Plan| {
        let found = plan.material.certificates.iter().map(|one| one.found.is_some());
        found.collect::<Vec<bool>>()
    };
    assert_eq!(found(&compile(&document)), [false, false, false]);
    document.find_certificates(std::time::SystemTime::now()).unwrap();
    let plan = compile(&document);
    assert_eq!(found(&plan), [true, true, true]);
    let ids: Vec<u32> = plan.material.for_endpoints.iter().map(|id| id.0).collect();
    assert_eq!((ids, plan.material.asks_system), (vec![2], false));
    let warnings = config::warnings(&document, 8).as_warnings();
    let expected = ["tls.certificates[1].cert: ", "clusters.c.tls.insecure_skip_verify: "];
    assert_eq!(warnings.matches("warning: ").count(), 2, "{warnings}");
    assert!(expected.iter().all(|key| warnings.contains(key)), "{warnings}");
}

#[test]
fn passwords_of_certificates_are_hidden_wherever_a_configuration_is_shown() {
    let text = format!(
        "{LISTENER}tls = {{ certificates = [{{ cert = \"a\", password = \"hunter2\" }}, \
         {{ cert = \"b\", password = \"${{SECRET}}\" }}] }}\n\
         [clusters.\"a.b\"]\nendpoints = [{{ address = \"10.0.0.1:443\" }}]\n\
         tls = {{ certificate = {{ cert = \"a\", password = \"hunter2\" }} }}\n"
    );
    let environment = config::Environment::of(&[("SECRET", "hunter2"), ("HIDDEN", "x")]);
    let document = config::load_in("proxy.toml", &text, &environment).unwrap();
    let mut table: toml::Table = text.parse().unwrap();
    config::hide(&mut table);
    for shown in [
        config::print(&document),
        config::print_with_sources(&document),
        config::print_with_references(&document),
        toml::to_string(&table).unwrap(),
        format!("{document:?}").replace(&format!("{text:?}"), ""),
        format!("{:?}", config::compile(&document, 1, 1).unwrap()),
    ] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let printed = config::print_with_references(&document);
    assert!(printed.contains("${SECRET}") && printed.contains("${HIDDEN}"), "{printed}");
    assert_eq!(
        config::secrets_in_the_file(&document),
        ["clusters.a.b.tls.certificate.password", "listeners[0].tls.certificates[0].password"]
    );
    for wrong in ["1234567", "[\"hunter2\"]"] {
        let text = text.replacen("\"hunter2\"", wrong, 1);
        let errors = config::load_in("proxy.toml", &text, &environment).unwrap_err().to_string();
        assert!(!errors.contains("1234567") && !errors.contains("hunter2"), "{errors}");
    }
}

#[test]
fn clients_without_tls_beside_optional_certificates_are_warned_about() {
    let tls = "allow_plain = true\ncertificates = [{ cert = \"a.pem\" }]\n";
    let listener = "[[listeners]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\n[listeners.tls]\n";
    let auth = "client_auth = { mode = \"optional\", ca = [\"ca.pem\"] }\n";
    let route = "[[routes]]\nname = \"a\"\necho = true\n";
    for (auth, expected) in [(auth, true), ("", false)] {
        let document = load(&format!("{listener}{tls}{auth}{route}"));
        let warnings = config::warnings(&document, 8).as_warnings();
        assert_eq!(warnings.contains("listeners[0].tls.allow_plain: "), expected, "{warnings}");
    }
}

#[test]
fn a_shadowed_route_and_an_unused_cluster_are_warned_about() {
    let document = load(&format!(
        "{LISTENER}[[routes]]\nname = \"a\"\nhosts = [\"A.example\"]\npaths = [\"/x\", \"/y\"]\n\
         echo = true\n[[routes]]\nname = \"b\"\nhosts = [\"a.example\"]\npaths = [\"/y\"]\n\
         echo = true\n[[routes]]\nname = \"c\"\nhosts = [\"a.example\"]\npaths = [\"/y\", \"/z\"]\n\
         echo = true\n[clusters.spare]\nendpoints = [{{ address = \"10.0.0.1:80\" }}]\n"
    ));
    let warnings = config::warnings(&document, 8).as_warnings();
    assert_eq!(
        warnings,
        "test.toml:10:1: warning: routes[1]: no request reaches this route\n  \
         `a` (routes[0]) takes the same hosts and paths\n  \
         the first route of two equal ones wins: remove or change this one\n\
         test.toml:20:11: warning: clusters.spare: no route leads to this cluster\n"
    );
}

#[test]
fn more_cores_than_cpus_is_a_warning_and_zero_means_all() {
    let document = load(&format!("cores = 4\n{LISTENER}"));
    assert!(config::warnings(&document, 4).is_empty());
    let warning = config::warnings(&document, 2).as_warnings();
    assert!(warning.starts_with("test.toml:1:9: warning: cores: 4 cores will share 2 CPUs\n"));
    assert_eq!(compile(&document).cores, 4);
    assert_eq!(compile(&load(LISTENER)).cores, 2);
}

#[test]
fn fewer_connections_of_http2_than_cores_are_warned_about() {
    let cluster = |name: &str, more: &str| {
        format!(
            "[clusters.{name}]\nendpoints = [{{ address = \"10.0.0.1:80\" }}]\n{more}\n\
             pool = {{ max_connections = 3 }}\n"
        )
    };
    let tls = "tls = { insecure_skip_verify = true }";
    let document = load(&format!(
        "cores = 4\n{LISTENER}{}{}{}{}{}",
        cluster("a", "protocol = \"h2c\""),
        cluster("b", "protocol = \"h1\""),
        cluster("c", "protocol = \"auto\""),
        cluster("d", &format!("protocol = \"auto\"\n{tls}")),
        cluster("e", &format!("protocol = \"h2\"\n{tls}")),
    ));
    let warnings = config::core_warnings(&document, 4).as_warnings();
    let of = |name: &str| warnings.contains(&format!("warning: clusters.{name}.pool"));
    assert_eq!(["a", "b", "c", "d", "e"].map(of), [true, false, false, true, true], "{warnings}");
    assert!(
        warnings.contains(
            ": an endpoint of HTTP/2 has at most 3, and each of 4 cores needs one of its own\n  \
             cores take turns: while streams of one last, requests of another wait, and get 503\n  \
             expected at least 4, 0, or fewer `cores`\n"
        ),
        "{warnings}"
    );
    assert!(config::core_warnings(&document, 3).is_empty());
}

#[test]
fn a_document_becomes_the_plan_it_describes() {
    let document = load(&uncommented());
    let plan = compile(&document);
    assert_eq!(plan.version, 7);
    assert_eq!(plan.listeners[0].bind, "0.0.0.0:8080".parse().unwrap());
    assert!(matches!(plan.routes[0].action, Action::Forward(id) if id.0 == 0));
    assert!(matches!(plan.routes[4].action, Action::Echo));
    assert_eq!(plan.routes[0].timeout, None);
    assert_eq!(plan.limits.connections_max, None);
    assert_eq!(plan.access_log.unwrap().path, Some(PathBuf::from("access.log")));

    let plan = compile(&load(&read(&root().join("conf/examples/headers.toml"))));
    let edits = &plan.routes[0].response_headers;
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    assert_eq!(
        edits.remove.iter().map(|n| text(n)).collect::<Vec<_>>(),
        ["server", "x-powered-by"]
    );
    assert_eq!(edits.add.len(), 2);
    assert_eq!(text(&edits.add[1].1), "</a.js>; rel=preload");
    assert_eq!(text(&edits.set[0].0), "Strict-Transport-Security");

    let plan = compile(&load(&read(&root().join("conf/examples/weights.toml"))));
    assert_eq!(plan.clusters[0].balance, Balance::WeightedRoundRobin);
    assert_eq!(plan.clusters[0].endpoints[2].weight, 0);

    let plan = compile(&load(&read(&root().join("conf/examples/dns-endpoint.toml"))));
    let name = Address::Name("app.internal".to_owned(), 8080);
    assert_eq!(plan.clusters[0].endpoints[0].address, name);

    let plan = compile(&load(&read(&root().join("conf/examples/redirect.toml"))));
    let Action::Redirect(redirect) = &plan.routes[0].action else { panic!("a redirect") };
    assert_eq!(redirect.location.len(), 4, "{redirect:?}");
}

#[test]
fn every_value_lands_in_its_own_field() {
    let plan = compile(&load(DISTINCT));
    let Plan { limits, timeouts, clusters, routes, access_log, metrics, admin, .. } = &plan;
    let Plan { proxy_id, trusted_proxies, drain_timeout, log_level, cores, user, .. } = &plan;
    let Plan { error_pages, pages, .. } = &plan;
    let Plan { error_log, audit_log, hot_reload, blacklist_path, tracing, pid_file, .. } = &plan;
    let Plan { listeners, material, ticket_rotation, .. } = &plan;
    let certificates: Vec<_> = material.certificates.iter().map(|one| &one.source).collect();
    let authorities: Vec<_> = material.authorities.iter().map(|one| &one.source).collect();
    let revocations: Vec<_> = material.revocations.iter().map(|one| &one.source).collect();
    let text = format!(
        "{cores} {drain_timeout:?} {hot_reload:?} {blacklist_path:?} {user:?} {pid_file:?} \
         {proxy_id} {log_level} {metrics:?} {admin:?}\n\
         {trusted_proxies:#?}\n{limits:#?}\n{timeouts:#?}\n{access_log:#?}\n{routes:#?}\n\
         {clusters:#?}\n{error_pages:?}\n{pages:?}\n{error_log:#?}\n{audit_log:#?}\n{tracing:#?}\n\
         {listeners:#?}\n{ticket_rotation:?}\n{certificates:#?}\n{authorities:?}\n\
         {revocations:?}\n"
    );
    support::snapshot("config/plan.txt", &text);
}

#[test]
fn clusters_keep_the_order_of_the_file() {
    let text = format!(
        "{LISTENER}[clusters.z]\nendpoints = [{{ address = \"10.0.0.1:80\" }}]\n\
         [clusters.a]\nendpoints = [{{ address = \"10.0.0.2:80\" }}]\n"
    );
    let names: Vec<String> = compile(&load(&text)).clusters.into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["z", "a"]);
}

#[test]
fn flags_override_keys_and_are_checked_like_them() {
    let args = "corelane run --cores 3 --log-level debug --drain-timeout-seconds 5 \
                --metrics-port 7001 --admin-port 7002";
    let Ok(Command::Run(run)) = cli::parse_from(args.split_whitespace()) else { panic!("run") };
    let plan = compile(&run.document().unwrap());
    assert_eq!((plan.cores, plan.drain_timeout.as_secs()), (3, 5));
    assert_eq!(plan.log_level, log::LevelFilter::Debug);
    assert_eq!(plan.metrics.unwrap().port(), 7001);
    assert_eq!(plan.admin.unwrap().port(), 7002);
    assert!(matches!(plan.routes[0].action, Action::Echo));

    let args = ["corelane", "--metrics-port", "8080"];
    let Ok(Command::Run(run)) = cli::parse_from(args) else { panic!("no subcommand is run") };
    let output = run.document().unwrap_err();
    assert_eq!(output.code, 2);
    assert!(
        output.err.contains("listeners[0].bind: `127.0.0.1:8080` is taken by `metrics.bind`"),
        "{}",
        output.err
    );
    assert!(cli::parse_from(["corelane", "run", "--cores", "5000"]).is_err());
    assert!(cli::parse_from(["corelane", "run", "--drain-timeout-seconds", "0"]).is_err());
}

#[test]
fn reverse_takes_the_same_road_as_a_file() {
    let args = "corelane reverse --from :8080 --to http://10.0.0.5:9000 --to http://app.internal/ \
                --to http://[::1]:9000 --cores 1";
    let Ok(Command::Reverse(reverse)) = cli::parse_from(args.split_whitespace()) else {
        panic!("reverse")
    };
    let plan = compile(&reverse.document().unwrap());
    assert_eq!(plan.listeners[0].bind, "0.0.0.0:8080".parse().unwrap());
    let addresses: Vec<&Address> = plan.clusters[0].endpoints.iter().map(|e| &e.address).collect();
    assert_eq!(
        addresses,
        [
            &Address::Ip("10.0.0.5:9000".parse().unwrap()),
            &Address::Name("app.internal".to_owned(), 80),
            &Address::Ip("[::1]:9000".parse().unwrap()),
        ]
    );
    for wrong in ["https://a:1", "http://a:1/path", "http://user@a:1", "http://", "ftp://a:1"] {
        assert!(cli::parse_from(["corelane", "reverse", "--from", ":1", "--to", wrong]).is_err());
    }
    for wrong in ["8080", "localhost:80", ":99999", ""] {
        let args = ["corelane", "reverse", "--from", wrong, "--to", "http://a:1"];
        assert!(cli::parse_from(args).is_err());
    }
}

#[test]
fn check_says_what_is_there_or_exits_2_with_every_mistake() {
    let output = check(&root().join("conf/examples/hosts-and-paths.toml"));
    assert!(output.out.ends_with("hosts-and-paths.toml: ok, 1 listener, 3 routes, 2 clusters\n"));
    let output = check(&root().join("tests/config/unknown_key.toml"));
    assert_eq!((output.code, output.err.matches("unknown key").count()), (2, 2));
    let output = check(Path::new("no/such.toml"));
    assert!(output.code == 2 && output.err.starts_with("no/such.toml: cannot be read: "));
    let pipe = std::env::temp_dir().join(format!("corelane-pipe-{}", std::process::id()));
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo runs").success());
    let cases =
        [(&*pipe, "a pipe"), (Path::new("/"), "a directory"), ("/dev/null".as_ref(), "a device")];
    for (path, is) in cases {
        let output = check(path);
        let expected = format!("{}: it is {is}, not a file", path.display());
        assert!(output.code == 2 && output.err.starts_with(&expected), "{}", output.err);
    }
    fs::remove_file(pipe).expect("it is there");
}

#[test]
fn explain_finds_keys_as_operators_write_them() {
    for asked in ["routes[].cluster", "routes.cluster", "routes[2].cluster"] {
        assert!(cli::explain(Some(asked)).out.starts_with("routes[].cluster\n"), "{asked}");
    }
    let pool = cli::explain(Some("clusters.orders.pool")).out;
    assert_eq!(pool.lines().count(), 4, "{pool}");
    assert_eq!(cli::explain(None).out.lines().count(), KEYS.len());
    let wrong = cli::explain(Some("limits.max_url_lenght"));
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("did you mean `limits.max_url_length`?"), "{}", wrong.err);
    assert!(cli::explain(Some("bind")).err.contains("did you mean `listeners[].bind`?"));
    assert_eq!(
        cli::explain(Some("limits.max_body_size")).out,
        "limits.max_body_size\n  largest request body (1MB = 1024 * 1024 bytes); larger is \
         answered 413; 0: no limit\n  type: size\n  default: 0\n  \
         example: max_body_size = \"10MB\"\n"
    );
}

#[test]
fn the_help_page_is_what_it_was() {
    for (name, args) in
        [("help", vec!["corelane", "--help"]), ("help_run", vec!["corelane", "run", "--help"])]
    {
        let help = cli::parse_from(args).expect_err("help is not a command").to_string();
        support::snapshot(&format!("config/{name}.txt"), &help);
    }
}

#[test]
fn bytes_that_are_not_text_are_refused_with_their_place() {
    let errors = config::decode("f.toml", b"cores = 1\nname = \"\xff\"\n").unwrap_err();
    assert!(errors.to_string().starts_with("f.toml:2:9: byte 0xff is not UTF-8\n"), "{errors}");
    let large = vec![b'#'; corelane::limits::CONFIG_BYTES_MAX + 1];
    assert!(config::decode("f.toml", &large).is_err());
    assert!(config::load("f.toml", std::str::from_utf8(&large).unwrap()).is_err());
}

#[test]
fn no_cut_or_flipped_file_panics() {
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let mut texts: Vec<Vec<u8>> =
        files("tests/config").iter().map(|f| fs::read(f).unwrap()).collect();
    texts.push(uncommented().into_bytes());
    for text in &texts {
        for cut in (0..text.len()).step_by(1 + text.len() / 100) {
            config::fuzz(&text[..cut]);
        }
        for _ in 0..60 {
            let mut changed = text.clone();
            for _ in 0..1 + random(4) {
                let at = random(changed.len());
                changed[at] = b"[]{}\"'=.,#\n\\ 0a\xc3"[random(16)];
            }
            config::fuzz(&changed);
        }
    }
}

#[test]
fn hostile_sizes_and_depths_are_refused_and_not_waited_for() {
    let deep = format!("cores = {}", "[".repeat(100_000));
    assert!(config::load("deep", &deep).is_err());
    let dotted = format!("{}x = 1", "a.".repeat(100_000));
    assert!(config::load("dotted", &dotted).is_err());
    let header = format!("[{}x]", "a.".repeat(100_000));
    assert!(config::load("header", &header).is_err());
    let list = format!("trusted_proxies = [{}]", "\"x\", ".repeat(200_000));
    let errors = config::load("wide", &list).unwrap_err();
    assert_eq!(errors.list().len(), corelane::limits::CONFIG_ERRORS_MAX);
    assert!(errors.to_string().ends_with("wide: and more errors, mend these first\n"));
    let garbage = "= \n".repeat(100_000);
    assert!(config::load("garbage", &garbage).is_err());
}

#[test]
fn a_hundred_thousand_certificates_are_refused_at_once() {
    for one in ["{ cert = \"a.pem\", names = [\"NAME.example\"] }", "{ cert = \"NAME.pem\" }"] {
        let all: Vec<String> =
            (0..100_000).map(|n| one.replace("NAME", &format!("n{n}"))).collect();
        let text = format!("{LISTENER}tls = {{ certificates = [{}] }}\n", all.join(", "));
        let errors = config::load("wide", &text).unwrap_err().to_string();
        assert!(errors.contains("too many certificates"), "{errors}");
    }
}

#[test]
fn ten_thousand_routes_to_unknown_clusters_are_answered_at_once() {
    let mut text = LISTENER.to_owned();
    for n in 0..10_000 {
        text.push_str(&format!(
            "[[routes]]\nname = \"r{n}\"\npaths = [\"/p{n}/*\"]\ncluster = \"cluster-{n}\"\n\
             [clusters.kluster-{n}]\nendpoints = [{{ address = \"10.0.0.1:80\" }}]\n"
        ));
    }
    assert!(config::load("wide", &text).is_err());
    let plan = compile(&load(&text.replace("kluster", "cluster")));
    assert_eq!((plan.routes.len(), plan.clusters.len()), (10_000, 10_000));
}

// --- the texts -------------------------------------------------------------------------------

/// No two values of a kind are equal, so that none can be taken for another.
const DISTINCT: &str = r#"
cores = 3
drain_timeout = "31s"
user = "someone"
pid_file = "distinct.pid"
group = "some"
proxy_id = "distinct"
error_pages = [{ statuses = 410, builtin = true, intercept_upstream = true }]
trusted_proxies = ["10.0.0.0/8"]

[hot_reload]
watch = false
poll_interval = "12s"
poll_timeout = "13s"
max_generations = 14
max_age = "11s"

[blacklist]
path = "distinct.blacklist"

[tracing]
enabled = true
propagate = ["jaeger", "b3multi"]
sample = 0.5
parent = false
trust = "trusted_proxies"
service_name = "distinct-service"
service_id = "distinct-id"

[tracing.otlp]
endpoint = "http://distinct-otlp/one"
protocol = "json"
headers = { X-Distinct = "never shown" }
timeout = "41s"

[tracing.zipkin]
endpoint = "http://[::1]:9411"
timeout = "42s"

[limits]
max_url_length = 1001
max_header_size = 1002
max_headers_count = 103
max_body_size = 1004
max_concurrent_connections = 1005

[timeouts]
header = "1s"
idle = "2s"
read = "3s"
write = "4s"
min_body_rate = 1006

[logging]
level = "debug"
redact = { headers = ["x-distinct"], query = ["distinct"], defaults = false }
error = { path = "error.log", level = "error", rotate = { max_size = "64MB", max_backups = 4 } }
audit = { path = "audit.log", rotate = { max_age = "2d" } }

[logging.access]
path = "distinct.log"
format = "template"
template = "{status} {header.x-a}"
sample = 0.5
slow = "7s"
on_full = "block"
rotate = { compress = false, max_backups = 5 }

[metrics]
bind = "127.0.0.1:1"

[admin]
bind = "127.0.0.1:2"

[[listeners]]
name = "edge"
bind = "127.0.0.1:3"
proxy_protocol = { from = ["10.1.0.0/16", "10.2.0.0/16"] }

[listeners.tls]
min_version = "1.3"
cipher_suites = ["TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"]
strict_sni = true
session_tickets = false
handshake_timeout = "21s"
certificates = [
  { cert = "one.pem", key = "one.key", ocsp = false },
  { cert = "two.pfx", password = "two-password", names = ["Two.example", "*.two.example"] },
  { cert = "three.pfx", password_file = "three.password" },
  { cert = "one.pem", key = "one.key", ocsp = false },
]
client_auth.mode = "optional"
client_auth.ca = ["one-ca.pem", "two-ca.pem"]
client_auth.headers = { X-One = "subject" }
sni = [
  { names = ["A.example"], client_auth = { ca = "two-ca.pem", crl = "two.crl" } },
  { names = ["b.example"], client_auth = { mode = "none", ca = "never.pem" } },
]
passthrough = [{ names = ["*.Passed.example"], cluster = "c" }]

[[listeners]]
name = "plain-too"
bind = "127.0.0.1:4"

[listeners.tls]
allow_plain = true
check_host = true
max_version = "1.2"
certificates = [{ cert = "one.pem" }]

[[routes]]
name = "headers"
cluster = "b"
timeout = "5s"
error_pages = [{ statuses = [404, "4xx", "5xx"], body = "d {{path}}" }]
request_headers = { set = { A = "1" }, add = { B = "2" }, remove = ["C"] }
response_headers = { set = { D = "3" }, add = { E = "4" }, remove = ["F"] }

[[routes]]
name = "respond"
paths = ["/respond"]
respond = { status = 418, body = "tea", content_type = "text/tea" }

[clusters.a]
endpoints = [{ address = "10.0.0.1:80" }]

[clusters.b]
endpoints = [{ address = "10.0.0.2:80", weight = 2, zone = "z" }]
pool = { max_connections = 11, max_pending = 12, queue_timeout = "6s", idle_timeout = "7s" }
timeouts = { connect = "8s", first_byte = "9s", read = "10s" }
proxy_protocol = "v2"

[clusters.b.tls]
max_version = "1.2"
ca = ["three-ca.pem", "one-ca.pem"]
server_name = "Distinct.example"
pins = ["sha256/n59REfeyengfHx3d5evC3St5a/xzZcnCi1SOVkF2kp8="]
handshake_timeout = "22s"
certificate = { cert = "one.pem", key = "one.key" }

[clusters.c]
endpoints = [{ address = "10.0.0.3:443" }]
proxy_protocol = "v1"

[clusters.d]
endpoints = [{ address = "10.0.0.4:443" }]
tls = { insecure_skip_verify = true, certificate = { cert = "four.pem" } }

[tls]
ticket_rotation = "23h"
"#;

/// TLS that is not ended here, and clients that are not asked.
const PASSED_ON: &str = r#"
[[listeners]]
name = "passed"
bind = "127.0.0.1:1"
tls = { allow_plain = true, passthrough = [{ names = "*.A.example", cluster = "a" }] }

[[listeners]]
name = "ended"
bind = "127.0.0.1:2"
tls = { certificates = [{ cert = "a.pem" }], client_auth = { mode = "none" } }

[clusters.a]
endpoints = [{ address = "10.0.0.1:443" }]
"#;

const LISTENER: &str = "[[listeners]]\nname = \"l\"\nbind = \"127.0.0.1:8080\"\n\n";

const PLAIN: &str = r#"
cores = 1

[[listeners]]
name = "bench"
bind = "127.0.0.1:18080"
protocol = "http"

[clusters.origin]
endpoints = [{ address = "127.0.0.1:18081" }]

[[routes]]
name = "all"
paths = ["/*"]
cluster = "origin"

[logging.access]
enabled = false

[metrics]
enabled = false

[admin]
enabled = false
"#;

const ROUTES: &str = r#"
cores = 1

[[listeners]]
name = "bench"
bind = "127.0.0.1:18080"
protocol = "http"

[clusters.origin]
endpoints = [{ address = "127.0.0.1:18081" }]

[[routes]]
name = "r0"
hosts = ["h0.test"]
paths = ["/p0/*"]
cluster = "origin"
[[routes]]
name = "r1"
hosts = ["h1.test"]
paths = ["/p1/*"]
cluster = "origin"

[logging.access]
enabled = false

[metrics]
enabled = false

[admin]
enabled = false
"#;

const RELOAD: &str = r#"
[[listeners]]
name = "bench"
bind = "127.0.0.1:18080"
protocol = "http"

[clusters.origin]
endpoints = [{ address = "127.0.0.1:18081" }]

[[routes]]
name = "all"
paths = ["/*"]
cluster = "origin"
response_headers = { set = { X-Gen = "1" } }
"#;

const FULL: &str = r#"
[[listeners]]
name = "bench"
bind = "127.0.0.1:18080"
protocol = "http"

[clusters.origin]
endpoints = [{ address = "127.0.0.1:18081" }]

[[routes]]
name = "all"
paths = ["/*"]
cluster = "origin"
request_headers = { set = { X-Bench = "1" }, remove = ["X-Drop"] }
response_headers = { set = { X-Via = "bench" }, remove = ["Server"] }

[logging.access]
path = "/run/bench/access.log"
format = "combined"
"#;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

fn files_of_any_syntax(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension != "txt"));
    files.sort();
    files
}

fn read(file: &PathBuf) -> String {
    fs::read_to_string(file).unwrap()
}

/// The reference file with its optional keys switched on.
fn uncommented() -> String {
    let text = read(&root().join("conf/corelane.toml"));
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') => format!("{key}\n"),
        Some(_) | None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn check(file: &Path) -> Output {
    let args = [Path::new("corelane"), Path::new("check"), file];
    let Ok(Command::Check(check)) = cli::parse_from(args) else { panic!("check") };
    cli::check(&check, &Machine::of(Path::new("/no/such/root"), 16))
}

fn load(text: &str) -> Document {
    config::load("test.toml", text).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

fn compile(document: &Document) -> Plan {
    config::compile(document, 7, 2).unwrap()
}

/// Everything of a plan but the router, whose tables may print in any order.
fn without_router(plan: &Plan) -> String {
    let Plan { cores, listeners, routes, clusters, limits, timeouts, trusted_proxies, .. } = plan;
    let Plan { proxy_id, access_log, metrics, admin, drain_timeout, log_level, user, .. } = plan;
    let Plan { captures, error_log, audit_log, hot_reload, pid_file, .. } = plan;
    format!(
        "{cores:?} {user:?} {pid_file:?} {listeners:?} {routes:?} {clusters:?} {limits:?} \
         {timeouts:?} {trusted_proxies:?} {proxy_id:?} {access_log:?} {metrics:?} {admin:?} \
         {drain_timeout:?} {hot_reload:?} {log_level:?} {captures:?} {error_log:?} {audit_log:?}"
    )
}

fn literal(text: &str) -> toml::Value {
    format!("v = {text}").parse::<toml::Table>().unwrap().remove("v").unwrap()
}

/// Leaves of a tree with their paths as in the registry.
fn walk(path: &str, value: &toml::Value, leaves: &mut Vec<(String, toml::Value)>) {
    let known = KEYS.iter().any(|key| key.path == path);
    if let (toml::Value::Table(table), false) = (value, known) {
        for (name, value) in table {
            let chosen = ["clusters", ".services", ".methods"];
            let chosen = chosen.iter().any(|section| path.ends_with(section));
            let name = if chosen { "NAME" } else { name };
            let below = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            walk(&below, value, leaves);
        }
    } else if let (toml::Value::Array(list), false) = (value, known) {
        for value in list {
            walk(&format!("{path}[]"), value, leaves);
        }
    } else {
        leaves.push((path.to_owned(), value.clone()));
    }
}
