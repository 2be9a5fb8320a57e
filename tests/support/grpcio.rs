//! grpcio, the Python package: a server and clients that nobody here wrote. scripts/test installs
//! it into a directory of its own, and says where in GRPCIO.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::{env, thread};

use super::eventually;

/// Its Python; `None`, and said, where it is not there.
pub fn grpcio() -> Option<PathBuf> {
    let python = env::var_os("GRPCIO").map(PathBuf::from);
    if python.is_none() {
        eprintln!("SKIPPED: no GRPCIO in the environment; scripts/test sets it where pip is there");
    }
    python
}

/// The server of grpc_server.py.
pub struct GrpcServer {
    child: Child,
    pub address: SocketAddr,
    said: Arc<Mutex<Vec<String>>>,
    /// It ends when this is closed.
    _stdin: ChildStdin,
}

impl GrpcServer {
    /// `None`, and said, where grpcio is not there.
    pub fn start() -> Option<GrpcServer> {
        let mut child = Command::new(grpcio()?)
            .args(["-c", include_str!("grpc_server.py")])
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
        Some(GrpcServer { child, address: ([127, 0, 0, 1], port).into(), said, _stdin })
    }

    fn heard(&self) -> MutexGuard<'_, Vec<String>> {
        self.said.lock().expect("nobody panics with it")
    }

    /// Whether it says so, now or soon.
    pub fn says(&self, line: &str) -> bool {
        eventually(|| self.heard().iter().any(|said| said == line))
    }
}

impl Drop for GrpcServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
