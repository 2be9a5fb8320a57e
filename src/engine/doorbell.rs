//! How a core is woken by another one. Ringing an awake core is two plain memory operations; only a
//! core that sleeps costs its caller a system call.
#![expect(unsafe_code, reason = "eventfd")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

#[derive(Clone, Debug)]
pub struct Doorbell(Arc<Bell>);

#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    sleeping: AtomicBool,
    event: OwnedFd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sleeper {
    Going,
    Awake,
}

impl Doorbell {
    pub fn new() -> io::Result<Doorbell> {
        // SAFETY: a plain call; the result is checked before it is owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made and is owned by nobody else.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        let bell = Bell { rung: AtomicBool::new(false), sleeping: AtomicBool::new(false), event };
        Ok(Doorbell(Arc::new(bell)))
    }

    /// Something was put into one of the core's queues.
    pub fn ring(&self) {
        self.0.rung.store(true, Ordering::Release);
        // Between storing `rung` and reading `sleeping` here, and the reverse in `may_sleep`, at
        // least one side sees the other.
        fence(Ordering::SeqCst);
        if self.0.sleeping.load(Ordering::Relaxed) && self.0.sleeping.swap(false, Ordering::AcqRel)
        {
            let one = 1_u64.to_ne_bytes();
            // SAFETY: eight bytes of a local. It can only fail when the count is full: rung enough.
            unsafe { libc::write(self.0.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    /// The core announces its sleep. False when somebody has rung meanwhile.
    pub(super) fn may_sleep(&self, sleeper: Sleeper) -> bool {
        if sleeper == Sleeper::Awake {
            self.0.sleeping.store(false, Ordering::Relaxed);
            return false;
        }
        self.0.sleeping.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        !self.0.rung.load(Ordering::Acquire)
    }

    /// True when it was rung since the last answer.
    pub(super) fn answer(&self) -> bool {
        self.0.rung.load(Ordering::Relaxed) && self.0.rung.swap(false, Ordering::AcqRel)
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.0.event.as_raw_fd()
    }
}
