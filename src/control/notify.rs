//! What the service manager is told (sd_notify(3)), when it has set `NOTIFY_SOCKET`: systemd's
//! `Type=notify` waits for `READY=1`, `Type=notify-reload` for the end of a reload as well, and
//! `MAINPID` says who serves after an upgrade. Never blocks, and nothing depends on it.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::engine;

const VARIABLE: &str = "NOTIFY_SOCKET";

/// Empty when nobody wants to know.
#[derive(Debug, Default)]
pub(super) struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    pub(super) fn from_environment() -> Notify {
        let Some(name) = env::var_os(VARIABLE).filter(|name| !name.is_empty()) else {
            return Notify::default();
        };
        Notify::to(&name).unwrap_or_else(|error| {
            log::warn!(
                "{VARIABLE} is {}: {error}; the service manager is told nothing",
                name.display()
            );
            Notify::default()
        })
    }

    /// A path, or with `@` a name in Linux's abstract namespace.
    fn to(name: &OsStr) -> io::Result<Notify> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::other("expected a path, or @ and a name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Notify(Some((socket, address))))
    }

    /// Connections are accepted, with this configuration.
    pub(super) fn ready(&self, version: u64) {
        self.say(&format!("READY=1\nSTATUS=Serves with plan {version}"));
    }

    pub(super) fn reloading(&self) {
        let now = engine::monotonic_time().as_micros();
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    pub(super) fn refused(&self, version: u64) {
        let status = format!("STATUS=The last reload was refused; serves with plan {version}");
        self.say(&format!("READY=1\n{status}"));
    }

    /// This process ends, and the service with it.
    pub(super) fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=Drains");
    }

    /// Another process is the service from now on.
    pub(super) fn handed_over(&self, pid: u32) {
        self.say(&format!("READY=1\nMAINPID={pid}\nSTATUS=Process {pid} serves"));
    }

    /// This process is the service again.
    pub(super) fn took_again(&self, version: u64) {
        let pid = std::process::id();
        let status = format!("STATUS=Serves with plan {version}; the upgrade has failed");
        self.say(&format!("READY=1\nMAINPID={pid}\n{status}"));
    }

    fn say(&self, text: &str) {
        let Some((socket, address)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            let first = text.lines().next().unwrap_or_default();
            log::warn!("{VARIABLE}: the service manager is not told {first}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abstract_names_are_told_and_others_refused() {
        let name = format!("corelane-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let systemd = UnixDatagram::bind_addr(&address).unwrap();
        Notify::to(OsStr::new(&format!("@{name}"))).unwrap().handed_over(7);
        let mut bytes = [0; 100];
        let count = systemd.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"READY=1\nMAINPID=7\nSTATUS=Process 7 serves");
        assert!(Notify::to(OsStr::new("vsock:2:1")).is_err());
        Notify::default().stopping();
    }

    #[test]
    fn a_systemd_that_does_not_read_holds_nobody_up() {
        let name = format!("corelane-notify-full-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _systemd = UnixDatagram::bind_addr(&address).unwrap();
        let notify = Notify::to(OsStr::new(&format!("@{name}"))).unwrap();
        // More than the kernel queues for it.
        (0..10_000).for_each(|version| notify.ready(version));
    }
}
