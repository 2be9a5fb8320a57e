//! The process around the cores: CPUs it may use, open-file limit, signals, CPU clocks.
#![expect(unsafe_code, reason = "system calls that std does not wrap")]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use crate::engine::io::Descriptor;
use crate::limits;

/// The CPUs in this process's affinity mask: what `--cores` defaults to and pins to.
pub fn cpus() -> Vec<usize> {
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    if cpus.is_empty() { vec![0] } else { cpus.into_iter().map(|cpu| cpu.id).collect() }
}

/// Memory comes in small pages from now on. The allocator asks for huge ones; what connections hold
/// is used at its beginning only, and in huge pages the rest costs memory too: of an idle connection
/// of HTTP/2 half. No error: then it is as the system has it.
pub fn use_small_pages() {
    // SAFETY: it takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// What the open-file limit may be raised to.
pub fn open_files_max() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is of a local of the right type.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0;
    if failed { 0 } else { limit.rlim_max }
}

/// Raises the soft open-file limit to the hard one, and returns it.
pub fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is of a local of the right type.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return 1024;
    }
    let wanted = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
    // SAFETY: as above.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) } == 0 {
        return wanted.rlim_cur;
    }
    limit.rlim_cur
}

/// CPU time of this thread.
pub(super) fn thread_cpu() -> Duration {
    cpu(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Since the machine started, as systemd counts it.
pub fn monotonic_time() -> Duration {
    cpu(libc::CLOCK_MONOTONIC)
}

fn cpu(clock: libc::clockid_t) -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the kernel fills the local; the clock always exists.
    let time = unsafe {
        libc::clock_gettime(clock, time.as_mut_ptr());
        time.assume_init()
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What the process as a whole uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of all threads, user and system.
    pub cpu: Duration,
    pub resident_bytes: u64,
    pub open_files: u64,
    pub open_files_max: u64,
}

/// For the control core: it reads procfs, which never waits for a disk.
pub fn usage() -> Usage {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    // SAFETY: no pointer is passed.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is of a local of the right type.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    Usage {
        cpu: cpu(libc::CLOCK_PROCESS_CPUTIME_ID),
        resident_bytes: pages.unwrap_or(0) * u64::try_from(page_bytes).unwrap_or(0),
        open_files: open_files(),
        open_files_max: limit.rlim_cur,
    }
}

fn open_files() -> u64 {
    // Since Linux 6.2 the size of the directory is the number of its entries: with a hundred
    // thousand connections, listing them would take tens of milliseconds.
    let size = std::fs::metadata("/proc/self/fd").map_or(0, |directory| directory.len());
    if size > 0 {
        return size;
    }
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64)
}

/// This thread leaves the CPU to others that want it, within reason.
pub(super) fn be_patient() {
    // SAFETY: a plain call, of this thread alone on Linux. Should it fail, nothing is lost.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, limits::BLOCKING_NICE) };
}

/// Random bytes from the kernel, for seeds.
pub fn random_seed() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: eight bytes of a local. Up to 256 bytes are never cut short once the kernel is
    // seeded.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    u64::from_ne_bytes(bytes)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: drain and exit.
    Stop,
    /// SIGHUP.
    Reload,
    /// SIGUSR1.
    Reopen,
    /// SIGUSR2.
    Upgrade,
}

const SIGNALS: [(i32, Signal); 5] = [
    (libc::SIGTERM, Signal::Stop),
    (libc::SIGINT, Signal::Stop),
    (libc::SIGHUP, Signal::Reload),
    (libc::SIGUSR1, Signal::Reopen),
    (libc::SIGUSR2, Signal::Upgrade),
];

/// Signals as something to await. `block` must be called before the first thread starts.
#[derive(Debug)]
pub struct Signals(Descriptor);

impl Signals {
    pub fn block() -> io::Result<()> {
        let set = signal_set();
        // SAFETY: the set is a local; the old mask is not asked for.
        let result =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
    }

    /// For a program that is started: what is blocked here, and what it would inherit, is not
    /// blocked there.
    pub fn unblock_in(command: &mut Command) {
        let unblock = || {
            let mut none = MaybeUninit::<libc::sigset_t>::uninit();
            // SAFETY: sigemptyset initialises the local; the old mask is not asked for.
            let result = unsafe {
                libc::sigemptyset(none.as_mut_ptr());
                libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
            };
            if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
        };
        // SAFETY: between fork and exec it calls only what is async-signal-safe
        // (signal-safety(7)), and allocates nothing.
        unsafe { command.pre_exec(unblock) };
    }

    pub fn open() -> io::Result<Signals> {
        let set = signal_set();
        // SAFETY: the set is a local that the kernel copies.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made and is owned by nobody else.
        Ok(Signals(Descriptor::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    pub async fn next(&mut self) -> io::Result<Signal> {
        loop {
            let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
            self.0.read(&mut info).await?;
            // The first field, ssi_signo, is the number.
            let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]) as i32;
            if let Some((_, signal)) = SIGNALS.iter().find(|(n, _)| *n == number) {
                return Ok(*signal);
            }
        }
    }
}

fn signal_set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the local; the numbers are valid.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for (number, _) in SIGNALS {
            libc::sigaddset(set.as_mut_ptr(), number);
        }
        set.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::test_core::{on_a_core, settle};
    use crate::engine::{now, sleep, spawn};

    /// To this thread alone: the test's other threads do not block signals.
    fn raise(signal: i32) {
        // SAFETY: a plain call; the signal is blocked on this thread.
        assert_eq!(unsafe { libc::raise(signal) }, 0);
    }

    #[test]
    fn signals_are_awaited_in_a_task_and_interrupt_nothing() {
        on_a_core(|| async {
            Signals::block().unwrap();
            let mut signals = Signals::open().unwrap();
            raise(libc::SIGTERM);
            assert_eq!(signals.next().await.unwrap(), Signal::Stop, "it was pending already");
            spawn(async {
                for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, libc::SIGINT] {
                    sleep(Duration::from_millis(2)).await;
                    raise(signal);
                }
            });
            for signal in [Signal::Reload, Signal::Reopen, Signal::Upgrade, Signal::Stop] {
                assert_eq!(signals.next().await.unwrap(), signal, "it came while waiting");
            }
            raise(libc::SIGTERM);
            raise(libc::SIGHUP);
            settle().await;
            let both = [signals.next().await.unwrap(), signals.next().await.unwrap()];
            assert!(both.contains(&Signal::Stop) && both.contains(&Signal::Reload), "one edge");
        });
    }

    #[test]
    fn a_pipe_is_read_to_its_end() {
        on_a_core(|| async {
            let (reader, writer) = crate::engine::test_core::pipe();
            let begun = now();
            let mut bytes = [0; 8];
            let writing = std::thread::spawn(move || {
                use std::io::Write as _;
                let mut writer = writer;
                std::thread::sleep(Duration::from_millis(5));
                writer.write_all(b"abc").unwrap();
            });
            assert_eq!(reader.read(&mut bytes).await.unwrap(), 3);
            assert_eq!(reader.read(&mut bytes).await.unwrap(), 0);
            assert!(now() > begun);
            writing.join().unwrap();
        });
    }

    #[test]
    fn a_core_counts_its_own_cpu_time() {
        let before = thread_cpu();
        let mut sum = 0_u64;
        while thread_cpu() - before < Duration::from_millis(1) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
    }
}
