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
    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
        Failure::OutOfDescriptors
    } else if error.kind() == io::ErrorKind::TimedOut {
        Failure::ConnectTimeout
    } else if error.kind() == io::ErrorKind::ConnectionRefused {
        Failure::ConnectRefused
    } else {
        Failure::ConnectFailed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::failure::Side;

    #[test]
    fn a_missing_descriptor_is_not_the_endpoints_fault() {
        for number in [libc::EMFILE, libc::ENFILE] {
            let failure = failure(&io::Error::from_raw_os_error(number));
            assert_eq!(failure, Failure::OutOfDescriptors);
            assert_eq!((failure.status(), failure.side()), (503, Side::Proxy));
        }
        let refused = failure(&io::Error::from_raw_os_error(libc::ECONNREFUSED));
        assert_eq!(refused, Failure::ConnectRefused);
        let unreachable = failure(&io::Error::from_raw_os_error(libc::EHOSTUNREACH));
        assert_eq!(unreachable, Failure::ConnectFailed);
    }
}
