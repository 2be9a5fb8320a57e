//! A server in Python that a test hands over as text. It prints its port first, and then what the
//! test may wait for.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use super::eventually;

pub struct ScriptServer {
    child: Child,
    pub address: SocketAddr,
    said: Arc<Mutex<Vec<String>>>,
    /// Some end when this is closed.
    _stdin: ChildStdin,
}

impl ScriptServer {
    pub fn start(python: impl AsRef<Path>, script: &str, arguments: &[&str]) -> ScriptServer {
        let mut child = Command::new(python.as_ref())
            .args(["-c", script])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let port = lines.next().expect("it prints its port").expect("as text");
        let port: u16 = port.parse().expect("it is a number");
        let said = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&said);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                hears.lock().expect("nobody panics with it").push(line);
            }
        });
        let _stdin = child.stdin.take().expect("it is piped");
        ScriptServer { child, address: ([127, 0, 0, 1], port).into(), said, _stdin }
    }

    fn heard(&self) -> MutexGuard<'_, Vec<String>> {
        self.said.lock().expect("nobody panics with it")
    }

    /// Whether it says so, now or soon.
    pub fn says(&self, line: &str) -> bool {
        eventually(|| self.heard().iter().any(|said| said == line))
    }

    pub fn all_said(&self) -> Vec<String> {
        self.heard().clone()
    }
}

impl Drop for ScriptServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
