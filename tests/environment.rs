//! The process and its surroundings: variables in the configuration, variables and flags over it,
//! what `check` says about the machine, and whom the process becomes.

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Output;

use support::{Origin, Proxy, Respond, TempDir, edge, eventually, unused_port};

const LISTENER: &str = "[[listeners]]\nname = \"edge\"\nbind = \"127.0.0.1:0\"\n";
const QUIET: &str = "metrics = { enabled = false }\nadmin = { enabled = false }\n";

fn hello() -> Origin {
    Origin::start().on("GET /hello", Respond::text("from the origin"))
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A file of the configuration, and a command with it as its last argument.
fn command(variables: &[(&str, &str)], arguments: &[&str], toml: &str) -> Output {
    let directory = TempDir::new();
    let file = directory.write("proxy.toml", toml).display().to_string();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("the file is ours");
    let arguments: Vec<&str> = arguments.iter().copied().chain([file.as_str()]).collect();
    Proxy::command_in(variables, &arguments)
}

// --- variables in values ---------------------------------------------------------------------

#[test]
fn variables_reach_values_of_every_type_and_requests_take_the_way_they_say() {
    let origin = hello();
    let toml = "cores = \"${CORES}\"\nmetrics = { enabled = false }\n\
                admin = { enabled = false }\nlogging.access.enabled = \"${LOG}\"\n\
                drain_timeout = \"${DRAIN}\"\n\
                [[listeners]]\nname = \"edge\"\nbind = \"127.0.0.1:${PORT:-0}\"\n\
                [[routes]]\nname = \"all\"\ncluster = \"c\"\n\
                [clusters.c]\nendpoints = [{ address = \"${ORIGIN}\", weight = \"${W:-3}\" }]\n";
    let address = origin.address().to_string();
    let variables =
        [("CORES", "1"), ("DRAIN", "5s"), ("ORIGIN", address.as_str()), ("LOG", "false")];
    let proxy = Proxy::start_in(&variables, &[], toml);
    assert_eq!(proxy.client().get("/hello").text(), "from the origin");
    proxy.wait_for_log("runs on 1 cores");
}

#[test]
fn a_variable_that_is_not_set_is_an_error_with_its_name_and_place_and_never_syntax() {
    let toml = format!("proxy_id = \"${{NO_SUCH}}\"\n{LISTENER}");
    let output = command(&[], &["check"], &toml);
    assert_eq!(output.status.code(), Some(2));
    let place = "proxy.toml:1:12: proxy_id: the environment variable `NO_SUCH` is not set\n";
    assert!(err(&output).contains(place), "{}", err(&output));

    let hostile = "x\"\n[[listeners]]\nname = \"evil\"\nbind = \"0.0.0.0:1\"\n";
    let output = command(&[("NO_SUCH", hostile)], &["check"], &toml);
    assert_eq!(output.status.code(), Some(2), "it is one value, and no proxy id");
    assert!(err(&output).contains("proxy.toml:1:12: proxy_id: "), "{}", err(&output));

    let output = command(&[("NO_SUCH", "good")], &["check"], &toml);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
}

// --- variables and flags over the file -------------------------------------------------------

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let toml = format!("logging = {{ level = \"error\" }}\ncores = 3\n{LISTENER}");
    let printed = |variables: &[(&str, &str)], flags: &[&str]| {
        let arguments: Vec<&str> = ["print-config"].iter().chain(flags).copied().collect();
        let output = command(variables, &arguments, &toml);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        out(&output)
    };
    let has = |text: &str, value: &str, source: &str| {
        let found = text.lines().any(|line| line.starts_with(value) && line.ends_with(source));
        assert!(found, "{value} {source}:\n{text}");
    };
    let text = printed(&[], &[]);
    has(&text, "level = \"error\" ", "proxy.toml:1");
    has(&text, "cores = 3 ", "proxy.toml:2");
    has(&text, "drain_timeout = \"30s\" ", "# default");
    let set = [("LOG_LEVEL", "DEBUG"), ("LOG_FORMAT", "clf"), ("PROXY_PORT", "8081")];
    let text = printed(&set, &[]);
    has(&text, "level = \"debug\" ", "# environment LOG_LEVEL");
    has(&text, "format = \"clf\" ", "# environment LOG_FORMAT");
    has(&text, "bind = \"127.0.0.1:8081\" ", "# environment PROXY_PORT");
    has(&printed(&[("LOG_LEVEL", "fatal")], &[]), "level = \"error\" ", "LOG_LEVEL");
    let flags = "--log-level warn --http-port 8082 --worker-count 2 --metrics-port 1 \
                 --admin-port 2 --timeout-ms 1500 --drain-timeout-seconds 9 --log-path /tmp/logs";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let text = printed(&set, &flags);
    has(&text, "level = \"warn\" ", "# flag --log-level");
    has(&text, "bind = \"127.0.0.1:8082\" ", "# flag --http-port");
    has(&text, "cores = 2 ", "# flag --cores");
    has(&text, "read = \"1500ms\" ", "# flag --timeout-ms");
    has(&text, "drain_timeout = \"9s\" ", "# flag --drain-timeout-seconds");
    has(&text, "path = \"/tmp/logs/access.log\" ", "# flag --log-path");
    has(&text, "path = \"/tmp/logs/error.log\" ", "# flag --log-path");
    has(&text, "bind = \"127.0.0.1:1\" ", "# flag --metrics-port");
    has(&text, "bind = \"127.0.0.1:2\" ", "# flag --admin-port");

    let again = command(&[], &["print-config", "--plain"], &text);
    let plain = printed(&set, &[flags.as_slice(), &["--plain"]].concat());
    assert!(!plain.contains('#'), "{plain}");
    assert_eq!(out(&again), plain, "comments change nothing");
}

#[test]
fn a_wrong_variable_is_an_error_with_its_name() {
    for (name, value, expected) in [
        ("PROXY_PORT", "80800", "environment: PROXY_PORT: 80800 is out of range"),
        ("PROXY_PORT", "http", "environment: PROXY_PORT: expected an integer"),
        ("PROXY_HOST", "localhost", "environment: PROXY_HOST: `localhost` is not an IP address"),
        ("LOG_LEVEL", "loud", "environment: LOG_LEVEL: there is no log level `loud`"),
        ("LOG_FORMAT", "template", "this key is missing, and the format is `template`"),
        ("LOG_FORMAT", "xml", "environment: LOG_FORMAT: there is no access log format `xml`"),
        ("BACKEND_TIMEOUT", "30", "environment: BACKEND_TIMEOUT: 30 has no unit"),
        ("DEFAULT_BACKEND", "https://a:1", "environment: DEFAULT_BACKEND: `https://a:1` is no"),
    ] {
        let output = command(&[(name, value)], &["check"], LISTENER);
        assert_eq!(output.status.code(), Some(2), "{name}={value}");
        assert!(err(&output).contains(expected), "{name}={value}: {}", err(&output));
    }
    let two = format!("{LISTENER}[[listeners]]\nname = \"b\"\nbind = \"127.0.0.1:0\"\n");
    let output = command(&[("PROXY_PORT", "8080")], &["check"], &two);
    assert_eq!(output.status.code(), Some(2));
    let several = "PROXY_PORT: there are 2 listeners";
    assert!(err(&output).contains(several) && err(&output).contains("`${PROXY_PORT}`"));
    let output = command(&[("PROXY_PORT", "9090")], &["check"], LISTENER);
    let clash = "`listeners[0].bind` was set by: environment PROXY_PORT";
    assert!(err(&output).contains(clash), "{}", err(&output));
}

#[test]
fn variables_of_later_features_are_missed_aloud_unless_they_ask_for_nothing() {
    let set = [("CACHE_ENABLED", "true"), ("RATE_LIMIT_ENABLED", "false"), ("CLI_TIMEOUT", "")];
    let output = command(&set, &["check"], LISTENER);
    assert_eq!(output.status.code(), Some(0));
    let warning = "environment: warning: CACHE_ENABLED: this variable has no effect\n";
    assert!(err(&output).contains(warning), "{}", err(&output));
    assert!(!err(&output).contains("RATE_LIMIT") && !err(&output).contains("CLI_"));
    let output = command(&set, &["check", "--strict"], LISTENER);
    assert_eq!(output.status.code(), Some(1), "a warning fails a strict check");
    let proxy = Proxy::start_in(&set, &[], &format!("{QUIET}{LISTENER}"));
    proxy.wait_for_log("CACHE_ENABLED: this variable has no effect");
}

#[test]
fn a_default_backend_takes_what_no_route_takes_and_no_more() {
    let origin = hello();
    let url = origin.url("/");
    let route = "[[routes]]\nname = \"own\"\npaths = [\"/own\"]\nrespond = { body = \"own\" }\n";
    let toml = format!("cores = 1\n{QUIET}{LISTENER}{route}");
    let set = [("DEFAULT_BACKEND", url.as_str()), ("BACKEND_TIMEOUT", "7s")];
    let proxy = Proxy::start_in(&set, &[], &toml);
    assert_eq!(proxy.client().get("/hello").text(), "from the origin");
    assert_eq!(proxy.client().get("/own").text(), "own");
    let printed = out(&command(&set, &["print-config"], &toml));
    let timeout = "first_byte = \"7s\"                            # environment BACKEND_TIMEOUT";
    assert!(printed.contains(timeout), "{printed}");

    let all = "[[routes]]\nname = \"all\"\nrespond = { body = \"own\" }\n";
    let toml = format!("cores = 1\n{QUIET}{LISTENER}{all}");
    let proxy = Proxy::start_in(&set, &[], &toml);
    assert_eq!(proxy.client().get("/hello").text(), "own", "a catch-all of the file stays");
    proxy.wait_for_log("DEFAULT_BACKEND: this variable has no effect");
}

#[test]
fn timeouts_from_outside_fill_in_what_the_file_does_not_say() {
    let cluster = |name: &str, more: &str| {
        format!("[clusters.{name}]\nendpoints = [{{ address = \"10.0.0.1:80\" }}]\n{more}\n")
    };
    let own = "timeouts = { first_byte = \"11s\", read = \"12s\" }";
    let toml = format!("{LISTENER}{}{}", cluster("a", own), cluster("b", ""));
    let set = [("BACKEND_TIMEOUT", "7s")];
    let arguments = ["print-config", "--plain", "--timeout-ms", "8000"];
    let flag = out(&command(&set, &arguments, &toml));
    let times = |text: &str| -> Vec<String> {
        let wanted = ["first_byte = ", "read = "];
        let lines = text.lines().filter(|l| wanted.iter().any(|key| l.starts_with(key)));
        lines.map(str::to_owned).collect()
    };
    let (kept, kept_too) = ("first_byte = \"11s\"", "read = \"12s\"");
    let (client, first_byte, read) = ("read = \"8s\"", "first_byte = \"8s\"", "read = \"8s\"");
    assert_eq!(times(&flag), [client, kept, kept_too, first_byte, read]);
    let variable = out(&command(&set, &arguments[..2], &toml));
    let (client, first_byte, read) = ("read = \"30s\"", "first_byte = \"7s\"", "read = \"30s\"");
    assert_eq!(times(&variable), [client, kept, kept_too, first_byte, read]);
}

#[test]
fn without_a_file_a_default_backend_takes_the_place_of_the_built_in_page() {
    let origin = hello();
    let url = origin.url("");
    // Its ports are fixed, so it is not started here.
    let taken = TcpListener::bind("127.0.0.1:0").expect("the kernel has a port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let set = [("DEFAULT_BACKEND", url.as_str()), ("PROXY_PORT", port.as_str())];
    let output = Proxy::command_in(&set, &["run"]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    let refused = format!("cannot listen on 127.0.0.1:{port} as default");
    assert!(err(&output).contains(&refused), "{}", err(&output));
    assert!(!err(&output).contains("no effect"), "{}", err(&output));
}

#[test]
fn a_proxy_of_arguments_listens_and_forwards_where_they_say() {
    let origin = hello();
    let url = origin.url("");
    let arguments = ["reverse", "--from", "127.0.0.1:0", "--to", &url, "--metrics-port", "0"];
    let arguments = [&arguments[..], &["--admin-port", "0"]].concat();
    let set = [("PROXY_PORT", "1"), ("DEFAULT_BACKEND", "127.0.0.1:1"), ("LOG_LEVEL", "debug")];
    let proxy = Proxy::start_command_in(&set, &arguments);
    assert_ne!(proxy.port("reverse"), 1);
    assert_eq!(proxy.client().get("/hello").text(), "from the origin");
    proxy.wait_for_log(" DEBUG ");
}

#[test]
fn flags_and_variables_decide_where_it_listens_and_logs() {
    let logs = TempDir::new();
    let directory = logs.path().display().to_string();
    let port = unused_port().to_string();
    let toml = edge("[[routes]]\nname = \"all\"\nrespond = { body = \"here\" }\n");
    let proxy = Proxy::start_in(
        &[("PROXY_PORT", "1"), ("LOG_FORMAT", "clf"), ("PROXY_HOST", "127.0.0.2")],
        &["--http-port", &port, "--log-path", &directory],
        &toml,
    );
    assert_eq!(proxy.address("edge").to_string(), format!("127.0.0.2:{port}"));
    assert_eq!(proxy.client().get("/x").text(), "here");
    let logged = || logs.path().join("access.log").exists() && logs.read("access.log").len() > 1;
    assert!(eventually(logged), "{}", proxy.log());
    assert!(logs.read("access.log").contains("\"GET /x HTTP/1.1\" 200"));
    assert!(logs.path().join("error.log").exists());
}

#[test]
fn every_command_prints_the_version() {
    let version = out(&Proxy::command(&["version"]));
    for arguments in [&["-V"][..], &["--version"], &["run", "--version"], &["check", "-V"]] {
        let output = Proxy::command(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        let number = version.split_whitespace().nth(1).unwrap_or_default();
        assert!(out(&output).contains(number), "{arguments:?}: {}", out(&output));
    }
}

// --- the machine -----------------------------------------------------------------------------

#[test]
fn check_reports_what_the_machine_lacks_and_the_file_stays_right() {
    let output = command(&[], &["check"], LISTENER);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("proxy.toml: ok, 1 listener"), "{}", out(&output));
    let read = |name: &str| fs::read_to_string(name).ok()?.trim().parse::<u64>().ok();
    let somaxconn = read("/proc/sys/net/core/somaxconn");
    let reported = err(&output).contains("sysctl -w net.core.somaxconn=65535");
    assert_eq!(reported, somaxconn.is_some_and(|value| value < 65_535), "{}", err(&output));
    let fin = read("/proc/sys/net/ipv4/tcp_fin_timeout");
    let reported = err(&output).contains("sysctl -w net.ipv4.tcp_fin_timeout=30");
    assert_eq!(reported, fin.is_some_and(|value| value > 30), "{}", err(&output));
}

#[test]
fn a_file_that_everybody_may_change_is_warned_about() {
    let directory = TempDir::new();
    let file = directory.write("proxy.toml", LISTENER);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("the file is ours");
    let file = file.display().to_string();
    let output = Proxy::command(&["check", "--strict", &file]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("everybody on this machine may change this file"));
}

// --- privileges ------------------------------------------------------------------------------

/// Whether the tests run as root; only root can become somebody else.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

fn field_of(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn capabilities(status: &str, set: &str) -> u64 {
    u64::from_str_radix(&field_of(status, set), 16).expect("a set of capabilities is a number")
}

/// The bit of CAP_NET_BIND_SERVICE.
const BIND_SERVICE: u64 = 1 << 10;

#[test]
fn root_binds_a_port_below_1024_and_becomes_somebody_who_can_do_little_else() {
    if !is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let logs = TempDir::new();
    fs::set_permissions(logs.path(), fs::Permissions::from_mode(0o777)).expect("it is ours");
    let log = logs.path().join("access.log");
    let toml = format!(
        "user = \"nobody\"\ncores = 2\n{QUIET}logging = {{ access = {{ path = {log:?} }} }}\n\
         [[listeners]]\nname = \"edge\"\nbind = \"127.0.0.1:0\"\n\
         [[listeners]]\nname = \"low\"\nbind = \"127.0.0.77:79\"\n\
         [[routes]]\nname = \"all\"\nrespond = {{ body = \"here\" }}\n"
    );
    let own = fs::read_to_string("/proc/self/status").expect("we run");
    let ours = capabilities(&own, "CapEff:");
    let proxy = Proxy::start(&toml);
    assert_eq!(proxy.client().get("/").text(), "here");
    assert_eq!(proxy.client_of("low").get("/").text(), "here");
    let tasks = fs::read_dir(format!("/proc/{}/task", proxy.pid())).expect("it runs");
    let mut threads = 0;
    for task in tasks {
        let status = task.expect("it runs").path().join("status");
        let Ok(status) = fs::read_to_string(status) else { continue }; // it has ended meanwhile
        let field = |name: &str| field_of(&status, name);
        let user = field("Uid:");
        assert!(user != "0 0 0 0" && !user.split(' ').any(|id| id == "0"), "{user}");
        assert!(!field("Gid:").split(' ').any(|id| id == "0"), "{}", field("Gid:"));
        for set in ["CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(capabilities(&status, set), ours & BIND_SERVICE, "{set}");
        }
        threads += 1;
    }
    assert!(threads >= 3, "every thread was looked at");
    assert!(eventually(|| log.metadata().is_ok_and(|log| log.len() > 0)), "{}", proxy.log());
    let owner = log.metadata().expect("it was written").uid();
    assert_ne!(owner, 0, "the log belongs to the user, who can open it again");
    fs::rename(&log, logs.path().join("old.log")).expect("it is ours");
    proxy.signal("USR1");
    assert!(eventually(|| log.exists()), "{}", proxy.log());
    assert_eq!(proxy.client().get("/").text(), "here");
}

#[test]
fn a_user_that_cannot_be_assumed_refuses_the_start() {
    let toml = format!("user = \"no-such-user\"\n{QUIET}{LISTENER}");
    let directory = TempDir::new();
    let file = directory.write("proxy.toml", toml).display().to_string();
    let output = Proxy::command(&["run", "--config", &file]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(err(&output).contains("there is no user `no-such-user`"), "{}", err(&output));
}
