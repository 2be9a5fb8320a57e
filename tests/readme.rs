//! What the README promises, done: its commands run and its configurations load. A command that
//! this file does not know how to try fails, so that none gets in untried.

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use support::{Origin, Proxy, Respond, TempDir};

const README: &str = include_str!("../README.md");

/// The contents of the fenced blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let opening = format!("```{language}\n");
    let inside = |block: &'static str| block.split("\n```").next();
    README.split(opening.as_str()).skip(1).filter_map(inside).collect()
}

fn commands() -> Vec<Vec<&'static str>> {
    let words = |line: &'static str| -> Vec<&'static str> {
        line.split('#').next().unwrap_or_default().split_whitespace().collect()
    };
    blocks("sh")
        .iter()
        .flat_map(|block| block.lines())
        .map(words)
        .filter(|w| !w.is_empty())
        .collect()
}

fn the_only_toml() -> &'static str {
    let blocks = blocks("toml");
    assert_eq!(blocks.len(), 1, "the README shows one configuration");
    blocks[0]
}

#[test]
fn every_command_is_of_a_kind_that_is_tried_here() {
    let commands = commands();
    let tried = |command: &[&str]| match command {
        [script] => script.starts_with("scripts/"),
        ["corelane", "reverse", "--from", ":8080", "--to", "http://127.0.0.1:9000"]
        | ["corelane", "run", "--config", "proxy.toml"] => true,
        ["corelane", subcommand, ..] => ["check", "explain", "print-config"].contains(subcommand),
        _ => false,
    };
    for command in &commands {
        assert!(tried(command), "nothing here tries `{}`: add a test", command.join(" "));
    }
    for needed in [vec!["scripts/run"], vec!["scripts/test"]] {
        assert!(commands.contains(&needed), "the README names {needed:?}");
    }
}

#[test]
fn its_scripts_exist_and_can_be_executed() {
    for command in commands().iter().filter(|command| command[0].starts_with("scripts/")) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(command[0]);
        let metadata = path.metadata().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert_eq!(metadata.permissions().mode() & 0o111, 0o111, "{command:?} is not executable");
    }
}

#[test]
fn its_links_lead_somewhere() {
    for link in README.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(link);
        assert!(link.starts_with("http") || path.exists(), "{link} leads nowhere");
    }
}

#[test]
fn its_configuration_loads_and_its_short_commands_succeed() {
    let directory = TempDir::new();
    directory.write("proxy.toml", the_only_toml());
    for command in commands() {
        if let ["corelane", "check" | "explain" | "print-config", ..] = command[..] {
            let output = std::process::Command::new(Proxy::binary())
                .args(&command[1..])
                .current_dir(directory.path())
                .stdin(Stdio::null())
                .output()
                .expect("the binary can be executed");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "`{}`: {stderr}", command.join(" "));
        }
    }
    directory.write("broken.toml", the_only_toml().replace("cluster = ", "clutser = "));
    let broken = directory.path().join("broken.toml").display().to_string();
    let refused = Proxy::command(&["check", &broken]);
    assert_eq!(refused.status.code(), Some(2), "a check that accepts anything proves nothing");
}

/// The README's ports are fixed; the kernel's are put in their place.
#[test]
fn its_configuration_proxies_to_the_application() {
    let origin = Origin::start().on("GET /hello", Respond::text("from the application"));
    let toml = the_only_toml()
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("127.0.0.1:9000", &origin.address().to_string());
    let quiet = "metrics = { enabled = false }\nadmin = { enabled = false }\n";
    let proxy = Proxy::start(&format!("{quiet}{toml}"));
    assert_eq!(proxy.client().get("/hello").text(), "from the application");
}

#[test]
fn its_command_without_a_file_proxies_to_the_application() {
    let origin = Origin::start().on("GET /hello", Respond::text("from the application"));
    let url = origin.url("");
    let mut arguments = vec!["reverse", "--from", "127.0.0.1:0", "--to", &url];
    arguments.extend(["--metrics-port", "0", "--admin-port", "0"]); // 9090 may be somebody's
    let proxy = Proxy::start_command(&arguments);
    assert_eq!(proxy.client().get("/hello").text(), "from the application");
}
