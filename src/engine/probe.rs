//! What the engine needs of the kernel, tried before anything starts: when it is refused, the
//! message says which of kernel version, sysctl, seccomp or memlock is in the way, and the cure.

use std::io;

use crate::engine::ring::Ring;

/// The least kernel: multishot accept and poll on a DEFER_TASKRUN ring.
const KERNEL: (u32, u32) = (6, 1);

/// Why the machine cannot run Corelane, in sentences for its operator.
pub fn probe() -> Result<(), String> {
    Ring::new().map(drop).map_err(|error| explained(&error).to_string())
}

/// A refused ring, with the cause and the cure. The probe's ring may have been the last that the
/// machine had room for.
pub(super) fn explained(error: &io::Error) -> io::Error {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let disabled =
        std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    io::Error::new(error.kind(), explain(error, release.trim(), disabled.trim()))
}

fn explain(error: &io::Error, release: &str, disabled: &str) -> String {
    let cause = if version(release).is_some_and(|version| version < KERNEL) {
        format!(
            "kernel {release} is too old\n  needed is {}.{} or later: upgrade the kernel",
            KERNEL.0, KERNEL.1
        )
    } else if disabled == "2" || (disabled == "1" && error.raw_os_error() == Some(libc::EPERM)) {
        format!(
            "io_uring is switched off on this machine (kernel.io_uring_disabled = {disabled})\n  \
             allow it with: sysctl -w kernel.io_uring_disabled=0"
        )
    } else {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => {
                "io_uring is refused by a seccomp filter, as \
                 container runtimes set by default\n  run the container with a profile that allows \
                 io_uring_setup, io_uring_enter and io_uring_register"
                    .to_owned()
            }
            Some(libc::ENOMEM) => "the locked-memory limit is too low for io_uring\n  \
                 raise it: `ulimit -l unlimited`, or LimitMEMLOCK=infinity in the service"
                .to_owned(),
            Some(libc::EMFILE | libc::ENFILE) => "no file descriptor is left\n  raise the limit: \
                 `ulimit -n 65535`, or LimitNOFILE=65535 in the service"
                .to_owned(),
            Some(libc::EINVAL) => format!(
                "kernel {release} does not know DEFER_TASKRUN\n  needed is {}.{} or later",
                KERNEL.0, KERNEL.1
            ),
            Some(_) | None => "it was refused for a reason that is not known here".to_owned(),
        }
    };
    format!("io_uring cannot be used: {error}: {cause}")
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(errno: i32, release: &str, disabled: &str) -> String {
        explain(&io::Error::from_raw_os_error(errno), release, disabled)
    }

    #[test]
    fn every_refusal_names_its_cause_and_its_cure() {
        let cases = [
            (libc::EINVAL, "5.15.0-91-generic", "0", "kernel 5.15.0-91-generic is too old", "6.1"),
            (libc::ENOSYS, "4.19.0", "", "too old", "upgrade the kernel"),
            (
                libc::EPERM,
                "6.8.0",
                "2",
                "io_uring_disabled = 2",
                "sysctl -w kernel.io_uring_disabled=0",
            ),
            (libc::EPERM, "6.8.0", "1", "io_uring_disabled = 1", "sysctl -w"),
            (libc::EPERM, "6.8.0", "0", "seccomp", "io_uring_setup"),
            (libc::ENOMEM, "6.8.0", "0", "locked-memory", "ulimit -l"),
            (libc::EMFILE, "6.8.0", "0", "file descriptor", "ulimit -n"),
            (libc::EIO, "6.8.0", "0", "not known", "Input/output"),
        ];
        for (errno, release, disabled, cause, cure) in cases {
            let text = said(errno, release, disabled);
            assert!(text.contains(cause) && text.contains(cure), "{errno} {release}: {text}");
        }
    }

    #[test]
    fn a_ring_that_is_refused_later_is_explained_too() {
        let error = explained(&io::Error::from_raw_os_error(libc::EMFILE));
        assert!(error.to_string().contains("LimitNOFILE"), "{error}");
    }

    #[test]
    fn this_machine_passes() {
        assert_eq!(probe(), Ok(()));
    }
}
