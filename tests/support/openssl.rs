//! `openssl s_client`, typed at as a person would, and Python with its `ssl`.

use std::env;
use std::io::{Read, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::{TempDir, eventually, program};

#[derive(Debug)]
pub struct SClient {
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
    _directory: TempDir,
}

impl SClient {
    pub fn start(address: SocketAddr, arguments: &[&str]) -> Self {
        let directory = TempDir::new();
        let mut child = Command::new(program("openssl"))
            .args(["s_client", "-connect", &address.to_string()])
            .args(arguments)
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl starts");
        let said = Arc::<Mutex<Vec<u8>>>::default();
        copy(child.stdout.take().expect("stdout is piped"), &said);
        copy(child.stderr.take().expect("stderr is piped"), &said);
        Self { child, said, _directory: directory }
    }

    /// Sends a request that ends the connection; all that openssl said.
    pub fn fetch(address: SocketAddr, arguments: &[&str]) -> String {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["-ign_eof"]).collect();
        let mut client = Self::start(address, &arguments);
        client
            .write("GET /s_client HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n");
        client.wait_exit();
        client.said()
    }

    /// Its command letters are recognised alone, in what is written at once.
    pub fn write(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin is piped");
        let _ = stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush());
    }

    pub fn said(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).into_owned()
    }

    pub fn wait_for(&self, text: &str) {
        let came = eventually(|| self.said().contains(text));
        assert!(came, "no {text:?} from s_client:\n{}", self.said());
    }

    pub fn wait_exit(&mut self) {
        let ended = eventually(|| self.child.try_wait().is_ok_and(|exit| exit.is_some()));
        assert!(ended, "s_client goes on:\n{}", self.said());
        // The last of its output may be on its way.
        let alone = || Arc::strong_count(&self.said) == 1;
        assert!(eventually(alone), "its output ends with it");
    }
}

impl Drop for SClient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn copy(mut from: impl Read + Send + 'static, to: &Arc<Mutex<Vec<u8>>>) {
    let to = Arc::clone(to);
    thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            to.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..count]);
        }
    });
}

/// What a Python program prints, which must end well.
pub fn python(script: &str, arguments: &[&str]) -> String {
    let output = Command::new(program("python3"))
        .args(["-c", script])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("python3 starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\nof:\n{script}");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// A Python with `websockets`. scripts/test installs it and says where.
pub fn python_with_websockets() -> Option<String> {
    let python = env::var("WEBSOCKETS_PYTHON").ok();
    if python.is_none() {
        eprintln!("SKIPPED: no WEBSOCKETS_PYTHON in the environment; scripts/test sets it");
    }
    python
}
