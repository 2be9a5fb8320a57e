//! Endpoints and clients of WebSockets that nobody here wrote: the `websockets` of Python, and its
//! `h2` where a WebSocket is in a stream. Which Python has them is for [`python_with_websockets`]
//! to say.
//!
//! [`python_with_websockets`]: super::python_with_websockets

use std::process::Command;

use super::ScriptServer;

pub struct WebsocketServer;

impl WebsocketServer {
    /// Echoes; says goodbye with 4001 when asked to. Tells how they were closed.
    pub fn http1(python: &str) -> ScriptServer {
        ScriptServer::start(python, include_str!("websocket_server.py"), &[])
    }

    /// The same in streams of HTTP/2; with TLS when there are files for it.
    pub fn http2(python: &str, files: &[&str]) -> ScriptServer {
        let script = include_str!("websocket_http2.py");
        ScriptServer::start(python, script, &[&["tells"], files].concat())
    }

    /// The same, but it says that it does not know such streams.
    pub fn http2_mute(python: &str, files: &[&str]) -> ScriptServer {
        let script = include_str!("websocket_http2.py");
        ScriptServer::start(python, script, &[&["mute"], files].concat())
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
