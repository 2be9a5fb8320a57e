//! The command line: arguments to a [`Command`], and the commands that need no running proxy as
//! functions from text to text and exit code. `main` prints what they return and runs the rest.
//! Nothing here prints or exits but [`parse`].

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use log::LevelFilter;

use crate::config::document::{Port, Time};
use crate::config::{self, At, Document, keys};
use crate::limits;
use crate::telemetry::metric_names;

/// Exit code of a configuration or an argument that is wrong.
pub const EXIT_USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(name = "corelane", version, args_conflicts_with_subcommands = true)]
#[command(about = "A proxy for Linux: one executor pinned to each core, io_uring underneath")]
struct Line {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the proxy (also without a subcommand); no file: a built-in page on 127.0.0.1:8080
    Run(Run),
    /// Run a reverse proxy without a configuration file
    Reverse(Reverse),
    /// Check a configuration file; exit 2 with every mistake
    Check { file: PathBuf },
    /// Print a configuration with its defaults filled in
    PrintConfig { file: PathBuf },
    /// Explain a key of the configuration, or list all of them
    Explain { key: Option<String> },
    /// Print the version
    Version,
}

#[derive(Args, Clone, Debug, Default)]
pub struct Run {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub flags: Flags,
}

#[derive(Args, Clone, Debug)]
pub struct Reverse {
    /// Where to listen; `:8080` is every IPv4 address of the machine
    #[arg(long, value_name = "ADDRESS", value_parser = listen_address)]
    pub from: SocketAddr,
    /// Where to forward: http://host:port; several take turns
    #[arg(long, value_name = "URL", required = true, value_parser = origin)]
    pub to: Vec<String>,
    #[command(flatten)]
    pub flags: Flags,
}

/// Each overrides the key of the same name.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Data cores; 0: one per CPU that the process may use
    #[arg(long, value_name = "N", value_parser = cores)]
    pub cores: Option<usize>,
    /// off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LevelFilter>,
    /// What running exchanges get to finish after SIGTERM
    #[arg(long, value_name = "SECONDS", value_parser = drain_seconds)]
    pub drain_timeout_seconds: Option<u64>,
    /// Port of the metrics page
    #[arg(long, value_name = "PORT")]
    pub metrics_port: Option<u16>,
    /// Port of the admin API
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
}

/// What a command prints, and how it exits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub out: String,
    pub err: String,
    pub code: u8,
}

/// The command of this process. Prints help and usage errors itself, and exits after them.
pub fn parse() -> Command {
    match parse_from(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => error.exit(),
    }
}

pub fn parse_from<I, T>(args: I) -> Result<Command, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<std::ffi::OsString> + Clone,
{
    let line = Line::try_parse_from(args)?;
    Ok(line.command.unwrap_or(Command::Run(line.run)))
}

impl Run {
    /// Reads and checks the configuration. Called again for every reload.
    pub fn document(&self) -> Result<Document, Output> {
        let document = match &self.config {
            Some(file) => load(file)?,
            None => config::load("(built-in)", config::DEFAULT).map_err(refused)?,
        };
        self.flags.apply(document)
    }
}

impl Reverse {
    pub fn document(&self) -> Result<Document, Output> {
        self.flags.apply(config::load("(arguments)", &self.text()).map_err(refused)?)
    }

    /// The same proxy as a configuration file.
    pub fn text(&self) -> String {
        let endpoints: Vec<String> =
            self.to.iter().map(|address| format!("    {{ address = {address:?} }},\n")).collect();
        format!(
            "[[listeners]]\nname = \"reverse\"\nbind = \"{}\"\nprotocol = \"http\"\n\n\
             [[routes]]\nname = \"all\"\npaths = [\"/*\"]\ncluster = \"origin\"\n\n\
             [clusters.origin]\nendpoints = [\n{}]\n",
            self.from,
            endpoints.concat()
        )
    }
}

impl Flags {
    fn apply(&self, mut document: Document) -> Result<Document, Output> {
        if let Some(cores) = self.cores {
            document.cores = At::unplaced(cores);
        }
        if let Some(level) = self.log_level {
            document.logging.level = At::unplaced(level);
        }
        if let Some(seconds) = self.drain_timeout_seconds {
            document.drain_timeout = At::unplaced(Time(Duration::from_secs(seconds)));
        }
        let port = |section: &mut Port, port: Option<u16>| {
            if let Some(port) = port {
                section.bind = At::unplaced(SocketAddr::new(section.bind.value.ip(), port));
            }
        };
        port(&mut document.metrics.port, self.metrics_port);
        port(&mut document.admin, self.admin_port);
        config::verify(&document).map_err(refused)?;
        Ok(document)
    }
}

pub fn check(file: &Path, cpus: usize) -> Output {
    let document = match load(file) {
        Ok(document) => document,
        Err(output) => return output,
    };
    let count = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let out = format!(
        "{}: ok, {}, {}, {}\n",
        file.display(),
        count(document.listeners.len(), "listener"),
        count(document.routes.len(), "route"),
        count(document.clusters.len(), "cluster"),
    );
    Output { out, err: config::warnings(&document, cpus).as_warnings(), code: 0 }
}

pub fn print_config(file: &Path) -> Output {
    match load(file) {
        Ok(document) => Output { out: config::print(&document), ..Output::default() },
        Err(output) => output,
    }
}

pub fn explain(key: Option<&str>) -> Output {
    let Some(key) = key else {
        return Output { out: keys::explain_all(), ..Output::default() };
    };
    if key == METRIC_NAMES {
        return Output { out: metric_names::explain(), ..Output::default() };
    }
    match keys::explain(key) {
        Ok(out) => Output { out, ..Output::default() },
        Err(err) => Output { err, code: EXIT_USAGE, ..Output::default() },
    }
}

/// No key, but what operators look for beside the keys of `metrics`.
const METRIC_NAMES: &str = "metrics.names";

pub fn version() -> Output {
    let commit = option_env!("CORELANE_COMMIT").map(|c| format!(" ({c})")).unwrap_or_default();
    let out = format!("corelane {}{commit}\n", env!("CARGO_PKG_VERSION"));
    Output { out, ..Output::default() }
}

fn load(file: &Path) -> Result<Document, Output> {
    let name = file.display().to_string();
    let mut bytes = Vec::new();
    // One byte more than allowed: what is too large is refused without being read to its end.
    let most = limits::CONFIG_BYTES_MAX as u64 + 1;
    let read = std::fs::File::open(file).and_then(|file| file.take(most).read_to_end(&mut bytes));
    if let Err(error) = read {
        let err = format!("{name}: cannot be read: {error}\n  expected a configuration file\n");
        return Err(Output { err, code: EXIT_USAGE, ..Output::default() });
    }
    config::decode(&name, &bytes).and_then(|text| config::load(&name, text)).map_err(refused)
}

fn refused(errors: config::Errors) -> Output {
    Output { err: errors.to_string(), code: EXIT_USAGE, ..Output::default() }
}

// --- values of arguments ---------------------------------------------------------------------

fn cores(given: &str) -> Result<usize, String> {
    let number = given.parse().ok().filter(|cores| *cores <= limits::CORES_MAX);
    number.ok_or_else(|| format!("expected a number from 0 to {}", limits::CORES_MAX))
}

fn drain_seconds(given: &str) -> Result<u64, String> {
    let most = limits::CONFIG_TIME_MAX.as_secs();
    let number = given.parse().ok().filter(|seconds| (1..=most).contains(seconds));
    number.ok_or_else(|| format!("expected seconds, from 1 to {most}"))
}

fn listen_address(given: &str) -> Result<SocketAddr, String> {
    if let Some(port) = given.strip_prefix(':').and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port));
    }
    given.parse().map_err(|_| "expected :8080, 127.0.0.1:8080 or [::1]:8080".to_owned())
}

/// `http://host[:port][/]` as `host:port`.
fn origin(given: &str) -> Result<String, String> {
    let rest = match given.split_once("://") {
        None => given,
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some((scheme, _)) => {
            return Err(format!(
                "`{scheme}` upstreams are not supported, expected http://host:port"
            ));
        }
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        return Err("expected http://host:port without a path or user".to_owned());
    }
    let has_port = match authority.rfind(']') {
        Some(end) => authority[end..].contains(':'),
        None => authority.contains(':'),
    };
    let address = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    match config::endpoint_address(&address) {
        Some(_) => Ok(address),
        None => Err("expected http://host:port, such as http://10.0.0.5:9000".to_owned()),
    }
}
