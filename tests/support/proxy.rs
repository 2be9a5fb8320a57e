//! The real binary as a child process, started on ports that the kernel chose.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use super::{Json, RawClient, Response, TempDir, eventually, signal};

/// One core and a listener `edge`, metrics and admin on ports of the kernel; `rest` is appended.
pub fn edge(rest: &str) -> String {
    format!(
        "cores = 1\n\
         metrics = {{ bind = \"127.0.0.1:0\" }}\n\
         admin = {{ bind = \"127.0.0.1:0\" }}\n\
         [[listeners]]\nname = \"edge\"\nbind = \"127.0.0.1:0\"\n\n{rest}"
    )
}

#[derive(Debug)]
pub struct Proxy {
    child: Child,
    directory: TempDir,
    log: Arc<Mutex<String>>,
    /// In the order of the log: `(name, address)`.
    listening: Vec<(String, SocketAddr)>,
}

impl Proxy {
    /// Runs `corelane run --config FILE` and waits until everything it binds accepts.
    pub fn start(toml: &str) -> Self {
        Self::start_binary(&Self::binary(), toml)
    }

    /// CORELANE_BIN, or the binary that cargo built for the tests.
    pub fn binary() -> PathBuf {
        let built = || env!("CARGO_BIN_EXE_corelane").into();
        env::var_os("CORELANE_BIN").map_or_else(built, PathBuf::from)
    }

    pub fn start_binary(binary: &Path, toml: &str) -> Self {
        let directory = TempDir::new();
        let config = directory.write("corelane.toml", toml);
        let arguments = ["run", "--config", &config.display().to_string()].map(str::to_owned);
        Self::spawn(binary, &arguments, directory, &bound_names(toml), &[])
    }

    /// Runs `corelane run --config FILE` with a file of this name, in any syntax; `names` are what
    /// it binds.
    pub fn start_file(file: &str, text: &str, names: &[&str]) -> Self {
        let directory = TempDir::new();
        let config = directory.write(file, text).display().to_string();
        let arguments = ["run", "--config", &config].map(str::to_owned);
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        Self::spawn(&Self::binary(), &arguments, directory, &names, &[])
    }

    /// Runs `corelane run --config FILE` with variables of the environment and more arguments.
    pub fn start_in(variables: &[(&str, &str)], more: &[&str], toml: &str) -> Self {
        let directory = TempDir::new();
        let config = directory.write("corelane.toml", toml).display().to_string();
        let arguments = ["run", "--config", &config].into_iter().chain(more.iter().copied());
        let arguments: Vec<String> = arguments.map(str::to_owned).collect();
        Self::spawn(&Self::binary(), &arguments, directory, &bound_names(toml), variables)
    }

    /// Runs `corelane run --config FILE` with a standard output that the test reads, or does not.
    pub fn start_writing_to(stdout: impl Into<Stdio>, toml: &str) -> Self {
        let directory = TempDir::new();
        let config = directory.write("corelane.toml", toml).display().to_string();
        let mut command = Command::new(Self::binary());
        without_variables(&mut command).args(["run", "--config", &config]).stdout(stdout);
        Self::spawn_command(command, directory, &bound_names(toml))
    }

    /// Runs `corelane run --config URL` with more arguments; `toml` is what is expected there.
    pub fn start_from(url: &str, toml: &str, variables: &[(&str, &str)], more: &[&str]) -> Self {
        let arguments = ["run", "--config", url].into_iter().chain(more.iter().copied());
        let arguments: Vec<String> = arguments.map(str::to_owned).collect();
        Self::spawn(&Self::binary(), &arguments, TempDir::new(), &bound_names(toml), variables)
    }

    /// Any command that goes on running, until its first listener accepts:
    /// `start_command(&["reverse", "--from", "127.0.0.1:0", "--to", …])`.
    pub fn start_command(arguments: &[&str]) -> Self {
        Self::start_command_in(&[], arguments)
    }

    /// The same with variables of the environment.
    pub fn start_command_in(variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        Self::spawn(&Self::binary(), &arguments, TempDir::new(), &[], variables)
    }

    /// Runs a command that ends: `corelane check FILE`. It is killed after `PATIENCE`.
    pub fn command(arguments: &[&str]) -> Output {
        Self::command_in(&[], arguments)
    }

    /// The same with variables of the environment.
    pub fn command_in(variables: &[(&str, &str)], arguments: &[&str]) -> Output {
        let mut child = without_variables(&mut Command::new(Self::binary()))
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be executed");
        // What these commands print fits into a pipe, so waiting before reading cannot block them.
        if !eventually(|| child.try_wait().is_ok_and(|exit| exit.is_some())) {
            let _ = child.kill();
        }
        child.wait_with_output().expect("a child can be waited for")
    }

    fn spawn(
        binary: &Path,
        arguments: &[String],
        directory: TempDir,
        names: &[String],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new(binary);
        without_variables(&mut command)
            .args(arguments)
            .envs(variables.iter().copied())
            .stdout(Stdio::null());
        Self::spawn_command(command, directory, names)
    }

    fn spawn_command(mut command: Command, directory: TempDir, names: &[String]) -> Self {
        let mut child = command
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("stderr is piped");
        let copy = Arc::clone(&log);
        let reader = thread::spawn(move || copy_lines(stderr, &copy));
        let mut proxy = Self { child, directory, log, listening: Vec::new() };
        proxy.wait_until_listening(names, &reader);
        proxy
    }

    fn wait_until_listening(&mut self, names: &[String], reader: &JoinHandle<()>) {
        let mut exited = None;
        let all = eventually(|| {
            exited = self.child.try_wait().expect("a child can be asked");
            self.listening = listening_lines(&self.log());
            let listens = |name: &String| self.listening.iter().any(|(found, _)| found == name);
            let traffic = self.listening.iter().any(|(name, _)| is_traffic(name));
            exited.is_some() || (traffic && names.iter().all(listens))
        });
        if let Some(status) = exited {
            eventually(|| reader.is_finished()); // it has the last lines of the log too
            panic!("the proxy ended at its start ({status}):\n{}", self.log());
        }
        assert!(all, "{names:?} should listen, but {:?} does:\n{}", self.listening, self.log());
        // It says so after listen(2): a probe would only be a connection that tests have to count.
    }

    /// Where the listener of this name is; `metrics` and `admin` are names too.
    pub fn address(&self, name: &str) -> SocketAddr {
        let found = self.listening.iter().find(|(found, _)| found == name);
        found.unwrap_or_else(|| panic!("no {name} among {:?}", self.listening)).1
    }

    pub fn port(&self, name: &str) -> u16 {
        self.address(name).port()
    }

    fn first(&self) -> SocketAddr {
        let found = self.listening.iter().find(|(name, _)| is_traffic(name));
        found.unwrap_or_else(|| panic!("no listener among {:?}", self.listening)).1
    }

    /// A URL of the first listener.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.first())
    }

    /// A new connection to the first listener.
    pub fn client(&self) -> RawClient {
        RawClient::connect(self.first())
    }

    pub fn client_of(&self, name: &str) -> RawClient {
        RawClient::connect(self.address(name))
    }

    pub fn admin_get(&self, path: &str) -> Response {
        let mut client = self.client_of("admin");
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        client.read_response()
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        self.client_of("metrics").get("/metrics").text().to_owned()
    }

    /// The value of one series on the metrics page, labels included in `series`. A name alone is
    /// the sum of its series.
    pub fn metric(&self, series: &str) -> Option<f64> {
        sum_of(&self.metrics(), series)
    }

    /// Writes another configuration over the one it was started with.
    pub fn rewrite_config(&self, toml: &str) {
        self.directory.write("corelane.toml", toml);
    }

    /// The working directory: relative paths of the configuration are in it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// `TERM`, `HUP`, `USR1`, …
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    pub fn wait_exit(&mut self, timeout: Duration) -> ExitStatus {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                return status;
            }
            assert!(Instant::now() < deadline, "it runs on after {timeout:?}:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|exit| exit.is_none())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory.
    pub fn rss_kb(&self) -> u64 {
        self.status_field("VmRSS:")
    }

    pub fn threads(&self) -> u64 {
        self.status_field("Threads:")
    }

    fn status_field(&self, name: &str) -> u64 {
        let status = self.proc_file("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let digits = line.and_then(|line| line.split_whitespace().next());
        digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.pid());
        fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}")).count()
    }

    /// Clients that are connected to listeners now.
    pub fn connections_open(&self) -> usize {
        let page = self.admin_get("/admin/connections");
        Json::parse(page.text()).number("open") as usize
    }

    /// CPU time of all threads, user and system, in ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = self.proc_file("stat");
        let (_, after_name) = stat.rsplit_once(')').expect("the name is in parentheses");
        after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
    }

    fn proc_file(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.pid());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// What it wrote to stderr, as far as that was read: a line may come later than what it tells
    /// of. Who wants one that is to come waits for it.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub fn wait_for_log(&self, text: &str) {
        assert!(eventually(|| self.log().contains(text)), "no {text:?} in:\n{}", self.log());
    }

    /// Processes that an upgrade started, serving or not yet, are in its directory, which is its
    /// own: none outlives a test, whatever it has failed at.
    fn end_successors(&self) {
        let own = self.directory.path().canonicalize().ok();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            let Some(pid) = pid.filter(|&pid| pid != std::process::id()) else { continue };
            if own.is_some() && fs::read_link(entry.path().join("cwd")).ok() == own {
                let kill = format!("kill -s KILL {pid}");
                let _ = Command::new("/bin/sh").args(["-c", &kill]).output(); // it may be gone
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if self.is_running() {
            signal(self.pid(), "TERM");
            let deadline = Instant::now() + Duration::from_secs(2);
            while self.is_running() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            let _ = self.child.kill(); // a drain that takes longer was not what the test is about
        }
        let _ = self.child.wait();
        self.end_successors();
        if thread::panicking() {
            eprintln!("--- stderr of the proxy\n{}---", self.log());
        }
    }
}

/// The sum of the samples on a metrics page whose line begins with `series`, a name with or without
/// its labels; `None`: there are none.
pub fn sum_of(page: &str, series: &str) -> Option<f64> {
    let value = |line: &str| {
        let rest = line.strip_prefix(series).filter(|rest| rest.starts_with(['{', ' ']))?;
        rest.rsplit(' ').next()?.trim().parse::<f64>().ok()
    };
    page.lines().filter_map(value).reduce(|sum, more| sum + more)
}

/// Nothing that the shell of the tests has set, and the proxy would obey.
fn without_variables(command: &mut Command) -> &mut Command {
    for name in [
        "RUST_LOG",
        "PROXY_HOST",
        "PROXY_PORT",
        "LOG_LEVEL",
        "LOG_FORMAT",
        "DEFAULT_BACKEND",
        "BACKEND_TIMEOUT",
        "CONFIG_TOKEN",
    ] {
        command.env_remove(name);
    }
    command
}

fn copy_lines(stderr: ChildStderr, log: &Mutex<String>) {
    for line in BufReader::new(stderr).lines() {
        let Ok(line) = line else { return };
        let mut log = log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        log.push_str(&line);
        log.push('\n');
    }
}

/// `… listening on 127.0.0.1:40001 as edge`.
fn listening_lines(log: &str) -> Vec<(String, SocketAddr)> {
    log.lines()
        .filter_map(|line| {
            let (address, name) = line.split_once("listening on ")?.1.split_once(" as ")?;
            Some((name.trim().to_owned(), address.parse().ok()?))
        })
        .collect()
}

fn is_traffic(name: &str) -> bool {
    !["metrics", "admin"].contains(&name)
}

/// What the configuration binds: its listeners, and metrics and admin when it speaks of them.
fn bound_names(toml: &str) -> Vec<String> {
    let Ok(table) = toml.parse::<toml::Table>() else {
        return Vec::new();
    };
    let listeners = table.get("listeners").and_then(toml::Value::as_array).cloned();
    let mut names: Vec<String> = listeners
        .unwrap_or_default()
        .iter()
        .filter_map(|listener| Some(listener.get("name")?.as_str()?.to_owned()))
        .collect();
    for name in ["metrics", "admin"] {
        let Some(section) = table.get(name) else {
            continue;
        };
        if section.get("enabled").and_then(toml::Value::as_bool) != Some(false) {
            names.push(name.to_owned());
        }
    }
    names
}
