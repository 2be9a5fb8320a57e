//! The command line: arguments to a [`Command`], and the commands that need no running proxy as
//! functions from text to text and exit code. `main` prints what they return and runs the rest.
//! Nothing here prints or exits but [`parse`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use log::LevelFilter;

use crate::config::{self, Document, Environment, Override, Syntax, keys, overrides};
use crate::engine;
use crate::limits;
use crate::machine::{self, Machine};
use crate::plan::HttpUrl;
use crate::provider::{self, Beginning, ConfigProvider, Named};
use crate::telemetry::metric_names;
use crate::tls::material::Material;
use crate::upgrade_command::Upgrade;

/// Exit code of a configuration or an argument that is wrong.
pub const EXIT_USAGE: u8 = 2;
/// Exit code of `check --strict` when there are warnings.
const EXIT_WARNINGS: u8 = 1;

#[derive(Debug, Parser)]
#[command(name = "corelane", version, propagate_version = true)]
#[command(args_conflicts_with_subcommands = true)]
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
    #[command(after_help = ENVIRONMENT)]
    Run(Run),
    /// Run a reverse proxy without a configuration file
    Reverse(Reverse),
    /// Check a configuration file and the machine; exit 2 with every mistake
    Check(Check),
    /// Print a configuration with its defaults filled in, and where each value comes from
    PrintConfig(PrintConfig),
    /// Explain a key of the configuration, or list all of them
    Explain { key: Option<String> },
    /// Have a running process hand its sockets to a new one; exit 1 when that fails
    ///
    /// The new process reads the configuration file, takes the listening sockets over, and goes on
    /// with what the admin API was told of endpoints, drain, log levels and the blacklist. What
    /// PUT /admin/config has put in force, but not written to the file, is lost, with a warning.
    /// The old process then drains. Should the new one die meanwhile, for 5 s at least, the old one
    /// takes connections again. Not noticed: one that hangs, and one that dies after the old one
    /// has ended; lost: what the dead one had accepted. SIGUSR2 does the same.
    Upgrade(Upgrade),
    /// Print the version
    Version,
}

#[derive(Args, Clone, Debug, Default)]
pub struct Run {
    /// Configuration file, or http:// URL of a server that has it and is asked for changes
    #[arg(long, value_name = "FILE", visible_alias = "rules-path", help_heading = CONFIGURATION)]
    #[arg(value_parser = provider::named)]
    pub config: Option<Named>,
    /// File with the bearer token for that server; or the variable CONFIG_TOKEN
    #[arg(long, value_name = "FILE", help_heading = CONFIGURATION)]
    pub config_token_file: Option<PathBuf>,
    /// File that keeps the server's last good configuration, to start without the server
    #[arg(long, value_name = "FILE", help_heading = CONFIGURATION)]
    pub config_copy: Option<PathBuf>,
    #[command(flatten)]
    pub flags: Flags,
}

/// The configuration that a command looks at.
#[derive(Args, Clone, Debug)]
pub struct Asked {
    /// Configuration file, or http:// URL of a server that has it
    #[arg(value_name = "FILE", required_unless_present = "config")]
    #[arg(value_parser = provider::named)]
    file: Option<Named>,
    /// The same, as `run` has it
    #[arg(long, value_name = "FILE", conflicts_with = "file", help_heading = CONFIGURATION)]
    #[arg(value_parser = provider::named)]
    config: Option<Named>,
    /// File with the bearer token for that server; or the variable CONFIG_TOKEN
    #[arg(long, value_name = "FILE", help_heading = CONFIGURATION)]
    config_token_file: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub struct Reverse {
    /// Where to listen; `:8080` is every IPv4 address of the machine
    #[arg(long, value_name = "ADDRESS", value_parser = listen_address)]
    #[arg(conflicts_with = "http_port")]
    pub from: SocketAddr,
    /// Where to forward: http://host:port; several take turns
    #[arg(long, value_name = "URL", required = true, value_parser = overrides::origin)]
    pub to: Vec<String>,
    #[command(flatten)]
    pub flags: Flags,
}

#[derive(Args, Clone, Debug)]
pub struct Check {
    #[command(flatten)]
    pub asked: Asked,
    /// Exit 1 when there are warnings
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub flags: Flags,
}

#[derive(Args, Clone, Debug)]
pub struct PrintConfig {
    #[command(flatten)]
    pub asked: Asked,
    /// Without the comments that say where each value comes from
    #[arg(long)]
    pub plain: bool,
    #[command(flatten)]
    pub flags: Flags,
}

/// Each goes before the environment, and that before the file.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Port of the only listener
    #[arg(long, value_name = "PORT", help_heading = ADDRESSES)]
    pub http_port: Option<u16>,
    /// Port of the metrics page
    #[arg(long, value_name = "PORT", help_heading = ADDRESSES)]
    pub metrics_port: Option<u16>,
    /// Port of the admin API
    #[arg(long, value_name = "PORT", help_heading = ADDRESSES)]
    pub admin_port: Option<u16>,
    /// Data cores; 0: one per usable CPU
    #[arg(long, value_name = "N", value_parser = cores, visible_alias = "worker-count")]
    #[arg(help_heading = RESOURCES)]
    pub cores: Option<usize>,
    /// Silence of clients and backends, where the file is silent
    #[arg(long, value_name = "MS", value_parser = timeout_millis, help_heading = RESOURCES)]
    pub timeout_ms: Option<u64>,
    /// What running exchanges get after SIGTERM
    #[arg(long, value_name = "SECONDS", value_parser = drain_seconds, help_heading = RESOURCES)]
    pub drain_timeout_seconds: Option<u64>,
    /// off, fatal, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", help_heading = LOGS)]
    pub log_level: Option<LevelFilter>,
    /// Directory of access.log and error.log
    #[arg(long, value_name = "DIRECTORY", help_heading = LOGS)]
    pub log_path: Option<PathBuf>,
    /// Record traces, sent here by OTLP
    #[arg(long, value_name = "URL", value_parser = config::tracing::otlp_url)]
    #[arg(help_heading = TRACES)]
    pub otlp_endpoint: Option<HttpUrl>,
    /// What traces call this service
    #[arg(long, value_name = "NAME", value_parser = config::name, help_heading = TRACES)]
    pub service_name: Option<String>,
    /// What traces call this process of it
    #[arg(long, value_name = "NAME", value_parser = config::name, help_heading = TRACES)]
    pub service_id: Option<String>,
}

const ENVIRONMENT: &str = "\
Environment, behind flags and before the file:
  PROXY_HOST       IP address of the only listener
  PROXY_PORT       Port of the only listener
  LOG_LEVEL        Level of the process's own log
  LOG_FORMAT       Format of the access log
  DEFAULT_BACKEND  http://host:port for requests that no route takes
  BACKEND_TIMEOUT  Wait for the first byte of an answer, where the file is silent, such as 30s
  CONFIG_TOKEN     Bearer token for the server of --config http://…
  Any other in a value of the file: \"${NAME}\" or \"${NAME:-default}\"";

const CONFIGURATION: &str = "Configuration";
const ADDRESSES: &str = "Addresses";
const RESOURCES: &str = "Cores and time";
const LOGS: &str = "Logs";
const TRACES: &str = "Traces";

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
    /// Reads and checks the configuration.
    pub fn document(&self) -> Result<Document, Output> {
        self.source()?.document().map_err(refused)
    }

    pub fn source(&self) -> Result<Source, Output> {
        let provider = match &self.config {
            Some(named) => {
                provider_of(named, self.config_token_file.as_ref(), self.config_copy.as_ref())?
            }
            None => ConfigProvider::BuiltIn,
        };
        Ok(Source { provider, flags: self.flags.clone() })
    }
}

fn provider_of(
    named: &Named,
    token_file: Option<&PathBuf>,
    copy: Option<&PathBuf>,
) -> Result<ConfigProvider, Output> {
    let environment = Environment::of_process();
    ConfigProvider::of(named.clone(), token_file.cloned(), copy.cloned(), &environment).map_err(
        |wrong| Output { err: format!("{wrong}\n"), code: EXIT_USAGE, ..Output::default() },
    )
}

/// Where the configuration of a process comes from, and what is said over it.
#[derive(Clone, Debug)]
pub struct Source {
    pub(crate) provider: ConfigProvider,
    flags: Flags,
}

impl Source {
    /// As messages call it.
    pub fn name(&self) -> String {
        self.provider.name()
    }

    /// Of its text.
    pub fn syntax(&self) -> Syntax {
        self.provider.syntax()
    }

    /// A text with this process's flags applied; `name` is for messages.
    pub fn document_of(
        &self,
        name: &str,
        syntax: Syntax,
        text: &str,
    ) -> Result<Document, config::Errors> {
        self.document_beside(&Material::default(), name, syntax, text)
    }

    /// The same for a process that uses these certificates already.
    pub(crate) fn document_beside(
        &self,
        used: &Material,
        name: &str,
        syntax: Syntax,
        text: &str,
    ) -> Result<Document, config::Errors> {
        let mut document = config::load_as(syntax, name, text, &Environment::of_process())?;
        document.find_secrets()?;
        document.find_error_pages()?;
        document.find_certificates_beside(used, engine::wall_clock())?;
        self.flags.apply(document)
    }

    /// Reads and checks, once.
    pub fn document(&self) -> Result<Document, config::Errors> {
        let reading = self.provider.read(limits::CONFIG_POLL_TIMEOUT)?;
        self.document_of(&self.name(), self.syntax(), &reading.text)
    }

    /// The same at the start of a process, which waits for a server.
    pub fn first(&self) -> Result<Beginning, Output> {
        self.begin().map_err(refused)
    }
}

impl Asked {
    fn source(&self, flags: &Flags) -> Result<Source, Output> {
        let named = self.file.as_ref().or(self.config.as_ref()).expect("one of them is required");
        let provider = provider_of(named, self.config_token_file.as_ref(), None)?;
        Ok(Source { provider, flags: flags.clone() })
    }
}

impl Reverse {
    pub fn document(&self) -> Result<Document, Output> {
        self.source().document().map_err(refused)
    }

    pub fn source(&self) -> Source {
        Source { provider: ConfigProvider::Arguments(self.text()), flags: self.flags.clone() }
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
    /// The document with what the environment, and then these flags, say over it.
    fn apply(&self, document: Document) -> Result<Document, config::Errors> {
        let mut all = overrides::from_environment(&Environment::of_process())?;
        all.extend(self.overrides());
        overrides::overridden(document, all)
    }

    fn overrides(&self) -> Vec<(Override, overrides::Source)> {
        let Flags { http_port, metrics_port, admin_port, cores, .. } = self;
        let Flags { timeout_ms, drain_timeout_seconds, log_level, log_path, .. } = self;
        let Flags { otlp_endpoint, service_name, service_id, .. } = self;
        let seconds = drain_timeout_seconds.map(Duration::from_secs);
        let all = [
            ("--http-port", http_port.map(Override::Port)),
            ("--metrics-port", metrics_port.map(Override::MetricsPort)),
            ("--admin-port", admin_port.map(Override::AdminPort)),
            ("--cores", cores.map(Override::Cores)),
            ("--timeout-ms", timeout_ms.map(Duration::from_millis).map(Override::Timeout)),
            ("--drain-timeout-seconds", seconds.map(Override::DrainTimeout)),
            ("--log-level", log_level.map(Override::LogLevel)),
            ("--log-path", log_path.clone().map(Override::LogDirectory)),
            ("--otlp-endpoint", otlp_endpoint.clone().map(Override::OtlpEndpoint)),
            ("--service-name", service_name.clone().map(Override::ServiceName)),
            ("--service-id", service_id.clone().map(Override::ServiceId)),
        ];
        let given = all
            .into_iter()
            .filter_map(|(flag, value)| Some((value?, overrides::Source::Flag(flag))));
        given.collect()
    }
}

/// `machine` finds what it lacks for a document.
pub fn check(check: &Check, machine: &Machine) -> Output {
    let Check { asked, strict, flags } = check;
    let loaded = asked.source(flags).and_then(|source| {
        let document = source.document().map_err(refused)?;
        Ok((source, document))
    });
    let (source, document) = match loaded {
        Ok(loaded) => loaded,
        Err(output) => return output,
    };
    let count = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let out = format!(
        "{}: ok, {}, {}, {}\n",
        source.name(),
        count(document.listeners.len(), "listener"),
        count(document.routes.len(), "route"),
        count(document.clusters.len(), "cluster"),
    );
    let mut err = config::warnings(&document, machine.cpus()).as_warnings();
    let cores = match document.cores.value {
        0 => machine.cpus(),
        cores => cores,
    };
    err.push_str(&config::core_warnings(&document, cores).as_warnings());
    err.push_str(&config::environment_warnings(&document).as_warnings());
    if let Some(file) = source.provider.file() {
        err.push_str(&machine::file_warnings(file, &document));
    }
    err.push_str(&machine::tls_file_warnings(&document));
    err.push_str(&machine.warnings(&document));
    let code = if *strict && !err.is_empty() { EXIT_WARNINGS } else { 0 };
    Output { out, err, code }
}

pub fn print_config(print: &PrintConfig) -> Output {
    let loaded = print.asked.source(&print.flags).and_then(|source| {
        let reading = source.provider.read(limits::CONFIG_POLL_TIMEOUT).map_err(refused)?;
        let (name, environment) = (source.name(), Environment::of_process());
        let document = config::load_as(source.syntax(), &name, &reading.text, &environment)
            .map_err(refused)?;
        source.flags.apply(document).map_err(refused)
    });
    match loaded {
        Ok(document) if print.plain => {
            Output { out: config::print(&document), ..Output::default() }
        }
        Ok(document) => Output { out: config::print_with_sources(&document), ..Output::default() },
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

fn timeout_millis(given: &str) -> Result<u64, String> {
    let most = limits::CONFIG_TIME_MAX.as_millis() as u64;
    let number = given.parse().ok().filter(|millis| (1..=most).contains(millis));
    number.ok_or_else(|| format!("expected milliseconds, from 1 to {most}"))
}

fn listen_address(given: &str) -> Result<SocketAddr, String> {
    if let Some(port) = given.strip_prefix(':').and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port));
    }
    given.parse().map_err(|_| "expected :8080, 127.0.0.1:8080 or [::1]:8080".to_owned())
}
