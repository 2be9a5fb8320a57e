//! A new connection to an endpoint, and what its failure is called.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::engine::Socket;
use crate::exchange::failure::Failure;

pub(crate) async fn connect(address: SocketAddr, timeout: Duration) -> Result<Socket, Failure> {
    Socket::connect(address, timeout).await.map_err(|error| failure(&error))
}

fn failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::TimedOut {
        Failure::ConnectTimeout
    } else if error.kind() == io::ErrorKind::ConnectionRefused {
        Failure::ConnectRefused
    } else {
        Failure::ConnectFailed
    }
}
