//! grpcio, the Python package: a server and clients that nobody here wrote. scripts/test installs
//! it into a directory of its own, and says where in GRPCIO.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::ScriptServer;

/// Its Python; `None`, and said, where it is not there.
pub fn grpcio() -> Option<PathBuf> {
    let python = env::var_os("GRPCIO").map(PathBuf::from);
    if python.is_none() {
        eprintln!("SKIPPED: no GRPCIO in the environment; scripts/test sets it where pip is there");
    }
    python
}

/// The server of grpc_server.py.
pub struct GrpcServer;

impl GrpcServer {
    /// `None`, and said, where grpcio is not there.
    pub fn start() -> Option<ScriptServer> {
        Some(ScriptServer::start(grpcio()?, include_str!("grpc_server.py"), &[]))
    }
}

/// Runs a script with a `channel` to that address; it must end well. What it prints.
pub fn grpc_client(address: SocketAddr, script: &str) -> String {
    let python = grpcio().expect("the test has asked whether it is there");
    let child = Command::new(python)
        .args(["-c", &format!("{PRELUDE}\n{script}"), &address.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let output = child.and_then(Child::wait_with_output).expect("python starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\nof:\n{script}");
    String::from_utf8(output.stdout).expect("it prints text").trim_end().to_owned()
}

const PRELUDE: &str = r#"
import faulthandler, json, queue, sys, threading, time
import grpc
faulthandler.dump_traceback_later(25, exit=True)
options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
           ("grpc.enable_retries", 0)]
channel = grpc.insecure_channel(sys.argv[1], options=options)
unary = lambda method: channel.unary_unary("/test.Echo/" + method)
down = lambda method: channel.unary_stream("/test.Echo/" + method)
up = lambda method: channel.stream_unary("/test.Echo/" + method)
both = lambda method: channel.stream_stream("/test.Echo/" + method)
def failure(call):
    """How a call that must fail does."""
    try:
        call = call()
        list(call) if hasattr(call, "__next__") else None
    except grpc.RpcError as error:
        return "%s: %s" % (error.code().name, error.details())
    raise SystemExit("it did not fail")
"#;
