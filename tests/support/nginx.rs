//! The real nginx as an origin.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{TempDir, eventually, nobody, program, signal};

/// One server on a port of its own; files go under `www/`.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Nginx {
    /// `server` goes into the one server block: `location / { return 200 "hello"; }`.
    pub fn start(server: &str) -> Self {
        Self::start_with("", server)
    }

    /// With TLS; `server` names its certificate.
    pub fn start_secure(server: &str) -> Self {
        Self::start_with("ssl", server)
    }

    /// `parameters` go behind the address: `ssl proxy_protocol`.
    pub fn start_with(parameters: &str, server: &str) -> Self {
        // nginx cannot bind port 0, and before it binds another one somebody may be faster.
        for _ in 0..10 {
            if let Ok(nginx) = Self::try_start(parameters, server) {
                return nginx;
            }
        }
        let started = Self::try_start(parameters, server);
        started.unwrap_or_else(|log| panic!("nginx does not start:\n{log}"))
    }

    fn try_start(parameters: &str, server: &str) -> Result<Self, String> {
        Self::try_start_on(nobody(), parameters, server)
    }

    fn try_start_on(address: SocketAddr, parameters: &str, server: &str) -> Result<Self, String> {
        let directory = TempDir::new();
        fs::create_dir_all(directory.path().join("www")).expect("the directory is ours");
        let config = directory.write("nginx.conf", configuration(address, parameters, server));
        let stderr = File::create(directory.path().join("stderr")).expect("the directory is ours");
        let mut child = Command::new(program("nginx"))
            .arg("-p")
            .arg(directory.path())
            .arg("-c")
            .arg(config)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("nginx can be executed");
        let mut alive = true;
        let accepts = eventually(|| {
            alive = child.try_wait().is_ok_and(|exit| exit.is_none());
            !alive || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
        });
        // Had somebody else taken the port, the connect succeeds while nginx retries its bind and
        // gives up after 2.5 s; its pid file is written only once it has bound.
        let bound = accepts
            && eventually(|| {
                alive = alive && child.try_wait().is_ok_and(|exit| exit.is_none());
                !alive || directory.path().join("nginx.pid").exists()
            });
        let nginx = Self { child, address, directory };
        if alive && bound { Ok(nginx) } else { Err(nginx.directory.read("stderr")) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A file that `location / {}` serves.
    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) {
        self.directory.write(&format!("www/{name}"), contents);
    }

    /// Another nginx on the same address.
    pub fn replace(self, parameters: &str, server: &str) -> Self {
        let address = self.address;
        drop(self);
        let started = Self::try_start_on(address, parameters, server);
        started.unwrap_or_else(|log| panic!("nginx does not start again:\n{log}"))
    }

    pub fn log(&self) -> String {
        self.directory.read("stderr")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|exit| exit.is_none()) {
            signal(self.child.id(), "TERM");
        }
        let _ = self.child.wait();
    }
}

/// One process, so that nothing is left when it ends, and no files outside its directory.
fn configuration(address: SocketAddr, parameters: &str, server: &str) -> String {
    format!(
        "daemon off; master_process off; worker_processes 1; pid nginx.pid;
         error_log stderr notice;
         events {{ worker_connections 1024; }}
         http {{
             access_log off; root www; default_type application/octet-stream;
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;
             client_max_body_size 0;
             server {{ listen {address} {parameters}; {server} }}
         }}"
    )
}
