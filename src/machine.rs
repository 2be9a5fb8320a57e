//! The machine that the process runs on, as far as it is read and not used: how many CPUs it may
//! take, and for `corelane check` everything that is set lower than a busy proxy needs. Nothing
//! here changes anything.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use crate::config::{self, Document, NamedFile};
use crate::engine;

/// What is known of a machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What `/` is: a test brings its own `/proc` and `/sys`.
    root: PathBuf,
    /// CPUs in the affinity mask.
    cpus: usize,
    /// The most that this process may raise its open-file limit to.
    open_files: u64,
    /// Why io_uring cannot be used.
    ring: Result<(), String>,
}

impl Machine {
    /// The one that this process runs on.
    pub fn this() -> Machine {
        Machine {
            root: PathBuf::from("/"),
            cpus: engine::cpus().len(),
            open_files: engine::open_files_max(),
            ring: engine::probe(),
        }
    }

    /// Without defects, for tests; `root` stands for `/`.
    pub fn of(root: &Path, cpus: usize) -> Machine {
        Machine { root: root.to_owned(), cpus, open_files: OPEN_FILES, ring: Ok(()) }
    }

    /// CPUs that the process may use: its affinity mask and the quota of its control group, rounded
    /// up. What `cores = 0` means.
    pub fn cpus(&self) -> usize {
        cpus_in(&self.root, self.cpus)
    }

    /// One per thing that is worse than recommended, each with what it is, what it should be and
    /// how that is done.
    pub fn warnings(&self, document: &Document) -> String {
        let mut text = String::new();
        let mut warn = |what: String, cure: String| {
            text.push_str(&format!("machine: warning: {what}\n  {cure}\n"));
        };
        if let Err(reason) = &self.ring {
            warn("the proxy cannot run here".to_owned(), reason.clone());
        }
        if self.open_files < OPEN_FILES {
            warn(
                format!("the limit of open files is {}", self.open_files),
                format!(
                    "expected at least {OPEN_FILES}: `ulimit -Hn {OPEN_FILES}`, or \
                     LimitNOFILE={OPEN_FILES} in the service"
                ),
            );
        }
        for Setting { name, recommended, enough } in SETTINGS {
            let Some(value) = self.setting(name) else { continue };
            let (is_enough, bound) = match enough {
                Enough::AtLeast => (value >= *recommended, "at least"),
                Enough::AtMost => (value <= *recommended, "at most"),
            };
            if !is_enough {
                warn(
                    format!("{name} is {value}"),
                    format!("expected {bound} {recommended}: sysctl -w {name}={recommended}"),
                );
            }
        }
        let cores = document.cores.value;
        if let Some(quota) = quota(&self.root).filter(|quota| quota.cpus() < cores as f64) {
            warn(
                format!(
                    "the control group may use {:.2} CPUs, and there are {cores} cores",
                    quota.cpus()
                ),
                "cores will be stopped in the middle of their work: expected `cores = 0`, or a \
                 larger quota"
                    .to_owned(),
            );
        }
        if let Err(reason) = document
            .user()
            .map_or(Ok(()), |(user, group)| engine::Identity::find(user, group).map(drop))
        {
            warn("the proxy cannot give up its privileges".to_owned(), reason);
        }
        text
    }

    /// `net.core.somaxconn` is `/proc/sys/net/core/somaxconn`; `None` where the kernel or its
    /// namespace does not have it.
    fn setting(&self, name: &str) -> Option<u64> {
        let path = self.root.join("proc/sys").join(name.replace('.', "/"));
        fs::read_to_string(path).ok()?.trim().parse().ok()
    }
}

/// CPUs that this process may use: what `cores = 0` means.
pub fn cpus() -> usize {
    cpus_in(Path::new("/"), engine::cpus().len())
}

/// What a file's mode says about who may change it, read its secrets, and read it at a reload.
pub fn file_warnings(file: &Path, document: &Document) -> String {
    let Ok(metadata) = fs::metadata(file) else { return String::new() };
    let mode = metadata.permissions().mode();
    let name = file.display().to_string().escape_debug().to_string();
    let mut text = String::new();
    if metadata.is_file() && mode & 0o002 != 0 {
        text.push_str(&format!(
            "{name}: warning: everybody on this machine may change this file\n  \
             expected mode 0640 or less: chmod o-w {name}\n"
        ));
    }
    let secrets = config::secrets_in_the_file(document);
    if let (Some(first), true) = (secrets.first(), mode & 0o004 != 0) {
        text.push_str(&format!(
            "{name}: warning: {first}: everybody on this machine may read this secret\n  \
             expected mode 0640 or less: chmod o-r {name}, or a variable: \"${{NAME}}\"\n"
        ));
    }
    let user = document.user().and_then(|(user, group)| engine::Identity::find(user, group).ok());
    if let Some(user) = user.filter(|user| !user.may_read(&metadata)) {
        text.push_str(&format!(
            "{name}: warning: {user} may not read this file, so a reload will fail\n  \
             expected a file of this user or group: chgrp and chmod g+r {name}\n"
        ));
    }
    text
}

/// The same of the files that TLS needs.
pub fn tls_file_warnings(document: &Document) -> String {
    let user = document.user().and_then(|(user, group)| engine::Identity::find(user, group).ok());
    let mut text = String::new();
    for NamedFile { path, key, is_secret } in document.tls_files() {
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let name = path.display().to_string().escape_debug().to_string();
        if is_secret && metadata.is_file() && metadata.permissions().mode() & 0o004 != 0 {
            text.push_str(&format!(
                "{name}: warning: {key}: everybody on this machine may read this secret\n  \
                 expected mode 0640 or less: chmod o-r {name}\n"
            ));
        }
        if let Some(user) = user.as_ref().filter(|user| !user.may_read(&metadata)) {
            text.push_str(&format!(
                "{name}: warning: {key}: {user} may not read this file, so a reload will fail\n  \
                 expected a file of this user or group: chgrp and chmod g+r {name}\n"
            ));
        }
    }
    text
}

const OPEN_FILES: u64 = 65_535;

/// A setting of the kernel, and the value that a busy proxy needs.
struct Setting {
    name: &'static str,
    recommended: u64,
    enough: Enough,
}

enum Enough {
    AtLeast,
    AtMost,
}

/// Longer queues for bursts of connections; shorter memories of those that have ended.
const SETTINGS: &[Setting] = &[
    at_least("net.core.somaxconn", 65_535),
    at_least("net.ipv4.tcp_max_syn_backlog", 65_535),
    at_least("net.core.netdev_max_backlog", 65_535),
    at_most("net.ipv4.tcp_fin_timeout", 30),
    at_most("net.ipv4.tcp_keepalive_time", 300),
];

const fn at_least(name: &'static str, recommended: u64) -> Setting {
    Setting { name, recommended, enough: Enough::AtLeast }
}

const fn at_most(name: &'static str, recommended: u64) -> Setting {
    Setting { name, recommended, enough: Enough::AtMost }
}

// --- control groups --------------------------------------------------------------------------

/// CPU time in microseconds that a control group may use in each period.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Quota {
    time: u64,
    period: u64,
}

impl Quota {
    fn cpus(self) -> f64 {
        self.time as f64 / self.period as f64
    }

    fn cpus_rounded_up(self) -> usize {
        usize::try_from(self.time.div_ceil(self.period)).unwrap_or(usize::MAX)
    }
}

fn cpus_in(root: &Path, cpus: usize) -> usize {
    let allowed = quota(root).map_or(usize::MAX, Quota::cpus_rounded_up);
    cpus.min(allowed).max(1)
}

/// The least quota of this process's control group and those above it.
fn quota(root: &Path) -> Option<Quota> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mut found = Vec::new();
    // `4:cpu,cpuacct:/path` in version 1, `0::/path` in version 2
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        if controllers.is_empty() {
            found.extend(along(&root.join("sys/fs/cgroup"), group, quota_of_version_2));
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            for mount in [controllers, "cpu"] {
                let mount = root.join("sys/fs/cgroup").join(mount);
                found.extend(along(&mount, group, quota_of_version_1));
            }
        }
    }
    found.into_iter().min_by(|a, b| a.cpus().total_cmp(&b.cpus()))
}

/// In a container the path may be that of the host, of which only the top is mounted.
fn along(mount: &Path, group: &str, read: fn(&Path) -> Option<Quota>) -> Vec<Quota> {
    let mut directory = mount.to_owned();
    let mut found: Vec<Quota> = read(&directory).into_iter().collect();
    for part in Path::new(group).components() {
        if let Component::Normal(name) = part {
            directory.push(name);
            found.extend(read(&directory));
        }
    }
    found
}

fn quota_of_version_2(directory: &Path) -> Option<Quota> {
    let text = fs::read_to_string(directory.join("cpu.max")).ok()?;
    let (time, period) = text.trim().split_once(' ')?;
    // `max` is no number: no quota
    usable(time.parse().ok()?, period.parse().ok()?)
}

fn quota_of_version_1(directory: &Path) -> Option<Quota> {
    let number = |name: &str| -> Option<u64> {
        fs::read_to_string(directory.join(name)).ok()?.trim().parse().ok()
    };
    // -1 is no number of this kind: no quota
    usable(number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
}

fn usable(time: u64, period: u64) -> Option<Quota> {
    (time > 0 && period > 0).then_some(Quota { time, period })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with these files; removed when dropped.
    struct Root(PathBuf);

    impl Root {
        /// `name` is of the test.
        fn new(name: &str, files: &[(&str, &str)]) -> Root {
            let name = format!("corelane-{name}-{}", std::process::id());
            let root = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&root);
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            fs::create_dir_all(&root).unwrap();
            Root(root)
        }

        fn cpus(&self) -> usize {
            Machine::of(&self.0, 8).cpus()
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn document(top: &str) -> Document {
        let text = format!("{top}\n[[listeners]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\n");
        config::load("test", &text).unwrap()
    }

    #[test]
    fn a_quota_of_either_version_caps_the_cores_and_is_rounded_up() {
        let v2 = |quota: &str| {
            let root = Root::new(
                "a-quota",
                &[
                    ("proc/self/cgroup", "0::/a/b\n"),
                    ("sys/fs/cgroup/a/cpu.max", quota),
                    ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
                ],
            );
            root.cpus()
        };
        assert_eq!(v2("150000 100000\n"), 2, "of the group above");
        assert_eq!(v2("200000 100000\n"), 2);
        assert_eq!(v2("1000 100000\n"), 1);
        assert_eq!(v2("1600000 100000\n"), 8, "more than there are");
        assert_eq!(v2("max 100000\n"), 8);
        for odd in ["", "1", "0 0", "-1 100000", "9 0", "\u{0}"] {
            assert_eq!(v2(odd), 8, "{odd:?}");
        }
        let v1 = |quota: &str| {
            let root = Root::new(
                "a-quota",
                &[
                    ("proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/../docker/far\n0::/\n"),
                    ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", quota),
                    ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "50000\n"),
                ],
            );
            root.cpus()
        };
        assert_eq!(v1("125000\n"), 3);
        assert_eq!(v1("-1\n"), 8);
        assert_eq!(Root::new("a-quota", &[]).cpus(), 8, "no control groups at all");
    }

    #[test]
    fn what_is_worse_than_recommended_is_reported_with_its_cure_and_the_rest_is_not() {
        let root = Root::new(
            "what-is",
            &[
                ("proc/sys/net/core/somaxconn", "4096\n"),
                ("proc/sys/net/ipv4/tcp_max_syn_backlog", "65535\n"),
                ("proc/sys/net/ipv4/tcp_fin_timeout", "60\n"),
                ("proc/sys/net/ipv4/tcp_keepalive_time", "100\n"),
                ("proc/self/cgroup", "0::/\n"),
                ("sys/fs/cgroup/cpu.max", "150000 100000\n"),
            ],
        );
        let mut machine = Machine::of(&root.0, 8);
        machine.open_files = 1024;
        machine.ring = Err("io_uring cannot be used: a reason".to_owned());
        let expected = "machine: warning: the proxy cannot run here\n  \
             io_uring cannot be used: a reason\n\
             machine: warning: the limit of open files is 1024\n  \
             expected at least 65535: `ulimit -Hn 65535`, or LimitNOFILE=65535 in the service\n\
             machine: warning: net.core.somaxconn is 4096\n  \
             expected at least 65535: sysctl -w net.core.somaxconn=65535\n\
             machine: warning: net.ipv4.tcp_fin_timeout is 60\n  \
             expected at most 30: sysctl -w net.ipv4.tcp_fin_timeout=30\n";
        assert_eq!(machine.warnings(&document("")), expected);
        let more = machine.warnings(&document("cores = 2"));
        let throttled = "the control group may use 1.50 CPUs, and there are 2 cores";
        assert!(more.contains(throttled), "{more}");
        assert_eq!(
            Machine::of(&Root::new("what-is", &[]).0, 8).warnings(&document("cores = 2")),
            ""
        );
    }

    #[test]
    fn keys_that_everybody_may_read_and_files_that_the_user_may_not_are_reported() {
        let root = Root::new("keys-that", &[("a.pem", ""), ("a.key", ""), ("b.pfx", "")]);
        let path = |name: &str| root.0.join(name).display().to_string();
        let said = |user: &str, mode: u32| {
            let text = format!(
                "{user}\n[[listeners]]\nname = \"tls\"\nbind = \"127.0.0.1:2\"\ntls = {{ \
                 certificates = [{{ cert = {:?}, key = {:?} }}, {{ cert = {:?}, \
                 password = \"x\" }}] }}\n",
                path("a.pem"),
                path("a.key"),
                path("b.pfx")
            );
            for name in ["a.pem", "a.key", "b.pfx"] {
                fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
            }
            let document = crate::config::load("test", &text).unwrap();
            let warnings = tls_file_warnings(&document);
            warnings.lines().filter(|line| !line.starts_with("  ")).count()
        };
        assert_eq!(said("", 0o644), 1);
        assert_eq!(said("", 0o640), 0);
        assert_eq!(said("user = \"nobody\"", 0o644), 1);
        assert_eq!(said("user = \"nobody\"", 0o600), 3);
        assert_eq!(said("user = \"root\"", 0o600), 0);
    }

    #[test]
    fn a_user_that_does_not_exist_is_reported() {
        let text = Machine::of(&Root::new("a-user", &[]).0, 8)
            .warnings(&document("user = \"no-such-user\""));
        assert!(text.contains("there is no user `no-such-user`"), "{text}");
    }

    #[test]
    fn files_that_everybody_may_change_and_secrets_that_everybody_may_read_are_reported() {
        let root = Root::new("files-that", &[("a.toml", "")]);
        let file = root.0.join("a.toml");
        let plain = document("");
        let route = "routes = [{ name = \"r\", echo = true, request_headers = \
                     { set = { Authorization = \"Bearer hunter2\" } } }]";
        let secret = document(route);
        let said = |mode: u32, document: &Document| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            file_warnings(&file, document)
        };
        assert_eq!(said(0o644, &plain), "");
        assert!(said(0o646, &plain).contains("chmod o-w"));
        assert!(said(0o644, &secret).contains("chmod o-r"));
        assert!(!said(0o644, &secret).contains("hunter2"));
        assert_eq!(said(0o640, &secret), "");
        assert_eq!(file_warnings(Path::new("no/such"), &secret), "");
        let nobody = document("user = \"nobody\"");
        assert_eq!(said(0o644, &nobody), "");
        assert!(said(0o600, &nobody).contains("may not read this file"));
        assert_eq!(said(0o600, &document("user = \"root\"")), "");
    }
}
