//! Real programs: where they are, their directories and signals.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use super::PATIENCE;

/// The path of a program that the tests need. It is not there: the test fails, and says the cure.
pub fn program(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| {
        panic!("{name} is not installed: scripts/test installs what the tests need")
    })
}

/// Whether a program is there that may be missing, which is said. Under CI it may only be missing
/// where apt does not have its package.
pub fn is_installed(name: &str, package: &str) -> bool {
    let found = find(name).is_some();
    if !found {
        let is_ci = env::var_os("CI").is_some_and(|value| !value.is_empty());
        let known = Command::new("apt-cache").args(["show", package]).output();
        assert!(
            !is_ci || !known.is_ok_and(|output| output.status.success()),
            "{name} is not installed, and apt has it: scripts/test installs {package}"
        );
        eprintln!("{name} is not installed: it was not tried");
    }
    found
}

fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(sbin)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Sends the signal called `name` (`TERM`, `HUP`, …) to a process.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("/bin/sh").args(["-c", &format!("kill -s {name} {pid}")]).status();
    assert!(sent.is_ok_and(|status| status.success()), "no signal {name} could be sent to {pid}");
}

/// Asks until the answer is yes; `false` when it never was.
pub fn eventually(mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

/// A port that nobody has, and that the kernel gives to nobody who asks for any: between this and
/// its use no other test gets it. (Linux gives ports from 32768 on, unless it is told otherwise.)
pub fn unused_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|port| port.parse().ok());
    let (lowest, count) = (10_000, first.unwrap_or(32_768).clamp(11_000, 60_000) - 10_000);
    // Tests of other processes begin elsewhere.
    let begin = process::id().wrapping_mul(97);
    for _ in 0..count {
        let number = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = u16::try_from(lowest + number).expect("it is below 65536");
        let is_taken = |ip: IpAddr| {
            TcpListener::bind((ip, port)).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
        };
        if !is_taken(Ipv4Addr::UNSPECIFIED.into()) && !is_taken(Ipv6Addr::UNSPECIFIED.into()) {
            return port;
        }
    }
    panic!("all {count} ports from {lowest} on are in use");
}

/// An address where nobody listens, and nobody will.
pub fn nobody() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, unused_port()).into()
}

/// A directory of its own for each test, removed when dropped.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("corelane-test-{}-{number}", process::id()));
        fs::create_dir_all(&path).expect("the temporary directory takes a new one");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file (and the directories above it) and returns its path.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        let parent = path.parent().expect("a joined path has a parent");
        fs::create_dir_all(parent).expect("the temporary directory is writable");
        fs::write(&path, contents).expect("the temporary directory is writable");
        path
    }

    pub fn read(&self, name: &str) -> String {
        let path = self.0.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
