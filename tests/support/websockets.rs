//! Endpoints and clients of WebSockets that nobody here wrote: the `websockets` of Python, and its
//! `h2` where a WebSocket is in a stream. Which Python has them is for [`python_with_websockets`]
//! to say.
//!
//! [`python_with_websockets`]: super::python_with_websockets

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use super::eventually;

pub struct WebsocketServer {
    child: Child,
    pub address: SocketAddr,
    said: Arc<Mutex<Vec<String>>>,
}

impl WebsocketServer {
    /// Echoes; says goodbye with 4001 when asked to. Tells how they were closed.
    pub fn http1(python: &str) -> WebsocketServer {
        WebsocketServer::start(python, include_str!("websocket_server.py"), &[])
    }

    /// The same in streams of HTTP/2; with TLS when there are files for it.
    pub fn http2(python: &str, files: &[&str]) -> WebsocketServer {
        let script = include_str!("websocket_http2.py");
        WebsocketServer::start(python, script, &[&["tells"], files].concat())
    }

    /// The same, but it says that it does not know such streams.
    pub fn http2_mute(python: &str, files: &[&str]) -> WebsocketServer {
        let script = include_str!("websocket_http2.py");
        WebsocketServer::start(python, script, &[&["mute"], files].concat())
    }

    fn start(python: &str, script: &str, arguments: &[&str]) -> WebsocketServer {
        let mut child = Command::new(python)
            .args(["-c", script])
            .args(arguments)
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
        WebsocketServer { child, address: SocketAddr::from(([127, 0, 0, 1], port)), said }
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

impl Drop for WebsocketServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes the URL, and a file of authorities where that is secure; talks to an echo, and prints
/// `fine`.
pub const WEBSOCKET_CLIENT: &str = include_str!("websocket_client.py");

/// Tunnels in streams of one connection (RFC 8441), by the `h2` of Python.
pub const HTTP2_CLIENT: &str = include_str!("websocket_http2_client.py");

/// What it prints; it must end well.
pub fn run_python(python: &str, script: &str, arguments: &[&str]) -> String {
    let output = Command::new(python).arg("-c").arg(script).args(arguments).output();
    let output = output.expect("python starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).expect("it prints text")
}
