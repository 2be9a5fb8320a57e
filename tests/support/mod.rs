//! The harness of the tests in this directory: the real binary, and real or scripted peers for it.
//! Everything listens on ports that the kernel chose, lives in its own temporary directory, ends
//! after 30 s at most and is gone when dropped, so tests run in parallel and leave nothing behind.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::print_stderr,
    reason = "compiled into every test file, each of which uses another part of it"
)]

mod curl;
mod grpcio;
mod hpack;
pub mod http2_client;
mod http2_origin;
mod json;
mod message;
mod nghttpd;
mod nginx;
mod openssl;
mod origin;
mod pki;
mod program;
mod prometheus;
mod proxy;
mod raw_client;
mod script_server;
mod secure_client;
mod snapshot;
mod websockets;

pub use curl::Curl;
pub use grpcio::{GrpcServer, grpc_client, grpcio};
pub use hpack::Block;
pub use http2_client::Http2Client;
pub use http2_origin::{Asked, Asker, Http2Origin};
pub use json::Json;
pub use message::{Response, decode_chunked, request_length};
pub use nghttpd::Nghttpd;
pub use nginx::Nginx;
pub use openssl::{SClient, python, python_with_websockets};
pub use origin::{After, Gate, Origin, Received, Respond};
pub use pki::Pki;
pub use program::{TempDir, eventually, is_installed, nobody, program, signal, unused_port};
pub use prometheus::{Prometheus, promtool};
pub use proxy::{Proxy, edge, sum_of};
pub use raw_client::RawClient;
pub use script_server::ScriptServer;
pub use secure_client::SecureClient;
pub use snapshot::{difference, snapshot};
pub use websockets::{HTTP2_CLIENT, WEBSOCKET_CLIENT, WebsocketServer, run_python};

use std::time::Duration;

/// How long anything in a test may wait for anything: a test that hangs says nothing. What waits
/// this long has failed; nothing else may depend on it, so it is long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
