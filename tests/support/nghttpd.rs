//! The real nghttpd as an endpoint of HTTP/2.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{TempDir, eventually, nobody, program};

/// One server on a port of its own, without TLS; files go under its root.
#[derive(Debug)]
pub struct Nghttpd {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Nghttpd {
    pub fn start(arguments: &[&str]) -> Self {
        // Before it binds the port somebody may be faster.
        for _ in 0..10 {
            if let Ok(server) = Self::try_start(arguments) {
                return server;
            }
        }
        let started = Self::try_start(arguments);
        started.unwrap_or_else(|log| panic!("nghttpd does not start:\n{log}"))
    }

    fn try_start(arguments: &[&str]) -> Result<Self, String> {
        let directory = TempDir::new();
        fs::create_dir_all(directory.path().join("www")).expect("the directory is ours");
        let address = nobody();
        let log = File::create(directory.path().join("log")).expect("the directory is ours");
        let errors = log.try_clone().expect("a file can be shared");
        let mut child = Command::new(program("nghttpd"))
            .args(["--no-tls", "-a", &address.ip().to_string(), "-d"])
            .arg(directory.path().join("www"))
            .args(arguments)
            .arg(address.port().to_string())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("nghttpd can be executed");
        let mut alive = true;
        let accepts = eventually(|| {
            alive = child.try_wait().is_ok_and(|exit| exit.is_none());
            !alive || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
        });
        let server = Self { child, address, directory };
        if alive && accepts { Ok(server) } else { Err(server.log()) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) {
        self.directory.write(&format!("www/{name}"), contents);
    }

    pub fn log(&self) -> String {
        self.directory.read("log")
    }
}

impl Drop for Nghttpd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
