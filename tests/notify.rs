//! What systemd sees of the process: `NOTIFY_SOCKET`, as sd_notify(3) has it, and the
//! file with its id.

mod support;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use support::{Proxy, TempDir, edge, eventually, signal};

const OK: &str = "[[routes]]\nname = \"ok\"\nrespond = { status = 200, body = \"ok\" }\n";

/// In systemd's place.
struct Systemd {
    socket: UnixDatagram,
    path: String,
    _directory: TempDir,
}

impl Systemd {
    fn start() -> Systemd {
        let directory = TempDir::new();
        let path = directory.path().join("notify").display().to_string();
        let socket = UnixDatagram::bind(&path).expect("a socket can be bound");
        let long = Some(Duration::from_secs(30));
        socket.set_read_timeout(long).expect("a timeout can be set");
        Systemd { socket, path, _directory: directory }
    }

    /// The next message, by line.
    fn told(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let count = self.socket.recv(&mut bytes).expect("the process says something");
        String::from_utf8_lossy(&bytes[..count]).lines().map(str::to_owned).collect()
    }

    fn hears(&self, first: &str) -> Vec<String> {
        let told = self.told();
        assert_eq!(told[0], first, "{told:?}");
        told
    }
}

#[test]
fn systemd_is_told_of_start_reloads_and_stop() {
    let systemd = Systemd::start();
    let unwatched = format!("{OK}[hot_reload]\nwatch = false\n");
    let mut proxy = Proxy::start_in(&[("NOTIFY_SOCKET", &systemd.path)], &[], &edge(&unwatched));
    let status = |told: Vec<String>| told[1].clone();
    assert_eq!(status(systemd.hears("READY=1")), "STATUS=Serves with plan 1");
    proxy.signal("HUP");
    let since = status(systemd.hears("RELOADING=1"));
    let micros = since.strip_prefix("MONOTONIC_USEC=").expect("when it began");
    assert!(micros.parse::<u64>().is_ok_and(|micros| micros > 0), "{since}");
    assert_eq!(status(systemd.hears("READY=1")), "STATUS=Serves with plan 2");
    proxy.rewrite_config("nonsense = 1\n");
    proxy.signal("HUP");
    systemd.hears("RELOADING=1");
    let refused = "STATUS=The last reload was refused; serves with plan 2";
    assert_eq!(status(systemd.hears("READY=1")), refused);
    assert_eq!(proxy.client().get("/").text(), "ok");
    proxy.signal("TERM");
    systemd.hears("STOPPING=1");
    assert!(proxy.wait_exit(Duration::from_secs(20)).success());
}

#[test]
fn after_an_upgrade_systemd_and_the_pid_file_name_the_process_that_serves() {
    let systemd = Systemd::start();
    let toml = format!("pid_file = \"pid\"\n{}", edge(OK));
    let mut proxy = Proxy::start_in(&[("NOTIFY_SOCKET", &systemd.path)], &[], &toml);
    let file = proxy.directory().join("pid");
    let named = || fs::read_to_string(&file).ok()?.trim().parse::<u32>().ok();
    systemd.hears("READY=1");
    assert_eq!(named(), Some(proxy.pid()));
    proxy.signal("USR2");
    // Both processes say so; the new one's word counts only if systemd trusts the whole group.
    let told = [systemd.hears("READY=1"), systemd.hears("READY=1")];
    let pid = told.iter().flatten().find_map(|line| line.strip_prefix("MAINPID="));
    let pid = pid.expect("who serves");
    let pid = pid.parse().expect("a process id");
    assert!(pid != proxy.pid() && named() == Some(pid));
    assert!(proxy.wait_exit(Duration::from_secs(20)).success());
    assert_eq!(named(), Some(pid), "it is not the old one's any more");
    assert!(!proxy.log().contains("refused"), "{}", proxy.log());
    signal(pid, "TERM");
    // The old process said nothing of a stop: the service went on.
    systemd.hears("STOPPING=1");
    assert!(eventually(|| !file.exists()));
}

#[test]
fn a_pid_file_that_cannot_be_written_is_an_error_at_the_start() {
    let directory = TempDir::new();
    let config =
        directory.write("corelane.toml", format!("pid_file = \"/nonexistent/pid\"\n{}", edge(OK)));
    let output = std::process::Command::new(Proxy::binary())
        .args(["run", "--config"])
        .arg(config)
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("cannot write `pid_file` /nonexistent/pid: "), "{said}");
}
