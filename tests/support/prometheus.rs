//! The real Prometheus, scraping what a test tells it, and promtool.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use super::{Json, RawClient, TempDir, eventually, nobody, program, signal};

/// On loopback, its data in a directory of its own.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Prometheus {
    /// `config` is its whole configuration; `rules` are files beside it: name and text.
    pub fn start(config: &str, rules: &[(&str, &str)]) -> Self {
        Self::start_with(&[], config, rules)
    }

    /// The same with more arguments.
    pub fn start_with(arguments: &[&str], config: &str, rules: &[(&str, &str)]) -> Self {
        // It says nowhere which port it got for 0, and before it binds another one somebody may be
        // faster.
        for _ in 0..5 {
            if let Some(prometheus) = Self::try_start(arguments, config, rules) {
                return prometheus;
            }
        }
        panic!("prometheus does not start");
    }

    fn try_start(arguments: &[&str], config: &str, rules: &[(&str, &str)]) -> Option<Self> {
        let directory = TempDir::new();
        let config = directory.write("prometheus.yml", config);
        for (name, text) in rules {
            directory.write(name, text);
        }
        let address = nobody();
        let stderr = File::create(directory.path().join("stderr")).expect("the directory is ours");
        let child = Command::new(program("prometheus"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("prometheus can be executed");
        let mut prometheus = Self { child, address, directory };
        let mut ended = false;
        let ready = eventually(|| {
            ended = prometheus.child.try_wait().is_ok_and(|exit| exit.is_some());
            ended || prometheus.is_ready()
        });
        assert!(ready, "prometheus does not become ready:\n{}", prometheus.log());
        (!ended).then_some(prometheus)
    }

    fn is_ready(&self) -> bool {
        TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_ok()
            && RawClient::connect(self.address).get("/-/ready").status == 200
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("stderr")).unwrap_or_default()
    }

    /// The `data` of an answer of its API.
    pub fn api(&self, path: &str) -> Json {
        let answer = RawClient::connect(self.address).get(path);
        let json = Json::parse(answer.text());
        assert_eq!((answer.status, json.text("status")), (200, "success"), "{path}: {json:?}");
        json
    }

    /// What an expression is now, one number for each series.
    pub fn query(&self, expression: &str) -> Vec<f64> {
        let encoded: String = expression.bytes().map(|b| format!("%{b:02X}")).collect();
        let answer = self.api(&format!("/api/v1/query?query={encoded}"));
        let value = |sample: &Json| {
            let Json::Text(text) = &sample.list("value")[1] else {
                panic!("{expression}: a value is a time and a text, but this is {sample:?}")
            };
            text.parse().unwrap_or_else(|_| panic!("{expression}: {text} is not a number"))
        };
        answer.list("data.result").iter().map(value).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        signal(self.child.id(), "TERM");
        if !eventually(|| self.child.try_wait().is_ok_and(|exit| exit.is_some())) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- stderr of prometheus\n{}---", self.log());
        }
    }
}

/// Runs promtool in `directory`, with `input` on its standard input.
pub fn promtool(directory: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program("promtool"))
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool can be executed");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(input).expect("promtool reads its input to the end");
    drop(stdin);
    child.wait_with_output().expect("a child can be waited for")
}
