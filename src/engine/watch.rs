//! Changes in directories, by inotify, on the core's ring. Tells that something happened to one of
//! the names asked for, not what: whoever asks looks for himself.
#![expect(unsafe_code, reason = "system calls that std does not wrap")]

use std::collections::{HashMap, HashSet};
use std::ffi::{CString, OsString};
use std::io;
use std::mem::size_of;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::engine::io::Descriptor;

/// What may change what a name leads to, or says, or whether it may be read. Not every write:
/// whoever writes closes at the end.
const CHANGES: u32 = libc::IN_ATTRIB
    | libc::IN_CLOSE_WRITE
    | libc::IN_CREATE
    | libc::IN_DELETE
    | libc::IN_MOVED_FROM
    | libc::IN_MOVED_TO
    | libc::IN_DELETE_SELF
    | libc::IN_MOVE_SELF
    | libc::IN_ONLYDIR;

/// Room for a few events; those that find no room stay in the kernel's queue.
const BYTES: usize = 4096;

/// Directories, and in each the names that matter.
#[derive(Debug)]
pub struct Watcher {
    descriptor: Descriptor,
    /// By the kernel's number of the directory.
    watched: HashMap<i32, HashSet<OsString>>,
}

impl Watcher {
    pub fn new() -> io::Result<Watcher> {
        // SAFETY: a plain call; the result is checked before it is owned.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made and is owned by nobody else.
        let descriptor = Descriptor::new(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Watcher { descriptor, watched: HashMap::new() })
    }

    /// These names and no others. One whose directory cannot be watched is an error; the others are
    /// watched all the same.
    pub fn watch(&mut self, names: &[(PathBuf, OsString)]) -> io::Result<()> {
        let mut watched: HashMap<i32, HashSet<OsString>> = HashMap::new();
        let mut result = Ok(());
        for (path, name) in names {
            match self.add(path) {
                Ok(number) => {
                    watched.entry(number).or_default().insert(name.clone());
                }
                Err(error) => result = Err(error),
            }
        }
        for number in self.watched.keys().filter(|number| !watched.contains_key(number)) {
            // SAFETY: a plain call. One that the kernel has removed itself is an error, and gone.
            unsafe { libc::inotify_rm_watch(self.descriptor.fd, *number) };
        }
        self.watched = watched;
        result
    }

    /// The same directory has the same number, whatever path leads to it.
    fn add(&self, path: &std::path::Path) -> io::Result<i32> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the path ends with a NUL and outlives the call.
        let number = unsafe { libc::inotify_add_watch(self.descriptor.fd, path.as_ptr(), CHANGES) };
        if number < 0 { Err(io::Error::last_os_error()) } else { Ok(number) }
    }

    /// Until something happens to a name that is watched, or to its directory.
    pub async fn changed(&self) -> io::Result<()> {
        let mut buffer = vec![0_u8; BYTES];
        loop {
            let read = self.descriptor.read(&mut buffer).await?;
            if self.concern(&buffer[..read]) {
                return Ok(());
            }
        }
    }

    fn concern(&self, mut events: &[u8]) -> bool {
        const HEAD: usize = size_of::<libc::inotify_event>();
        let mut concern = false;
        while let Some((head, rest)) = events.split_at_checked(HEAD) {
            let field = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
            // wd, mask, cookie, len: inotify(7).
            let (number, mask) = (i32::from_ne_bytes(field(0)), u32::from_ne_bytes(field(4)));
            let length = u32::from_ne_bytes(field(12)) as usize;
            let (name, next) = rest.split_at(length.min(rest.len()));
            events = next;
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            let name = OsString::from_vec(name[..end].to_vec());
            let own = libc::IN_DELETE_SELF | libc::IN_MOVE_SELF | libc::IN_Q_OVERFLOW;
            let is_own = mask & own != 0 || name.is_empty() && mask & libc::IN_ATTRIB != 0;
            let known = self.watched.get(&number);
            concern |= is_own || known.is_some_and(|names| names.contains(&name));
        }
        concern
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::*;
    use crate::engine::test_core::{on_a_core, settle};
    use crate::engine::{sleep, spawn};

    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Folder {
            let name = format!("corelane-watch-{}-{test}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn write(&self, name: &str) {
            fs::write(self.0.join(name), "x").unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn soon(watcher: &Watcher) -> bool {
        let waker = std::task::Waker::noop();
        let mut changed = std::pin::pin!(watcher.changed());
        changed.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready()
    }

    #[test]
    fn the_names_asked_for_are_told_of_and_no_others() {
        on_a_core(|| async {
            let folder = Folder::new("names");
            let mut watcher = Watcher::new().unwrap();
            watcher.watch(&[(folder.0.clone(), "a".into())]).unwrap();
            folder.write("b");
            settle().await;
            assert!(!soon(&watcher));
            folder.write("a");
            settle().await;
            assert!(soon(&watcher));
            fs::rename(folder.0.join("b"), folder.0.join("a")).unwrap();
            settle().await;
            assert!(soon(&watcher));
            watcher.watch(&[(folder.0.clone(), "c".into())]).unwrap();
            folder.write("a");
            settle().await;
            assert!(!soon(&watcher), "nobody asks for it any more");
        });
    }

    #[test]
    fn a_file_that_may_be_read_again_is_told_of_and_so_is_its_directory() {
        let allow = |path: PathBuf, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        on_a_core(move || async move {
            let folder = Folder::new("mode");
            ["a", "b"].iter().for_each(|name| folder.write(name));
            let mut watcher = Watcher::new().unwrap();
            watcher.watch(&[(folder.0.clone(), "a".into())]).unwrap();
            allow(folder.0.join("b"), 0o600);
            settle().await;
            assert!(!soon(&watcher));
            allow(folder.0.join("a"), 0o600);
            settle().await;
            assert!(soon(&watcher));
            allow(folder.0.clone(), 0o700);
            settle().await;
            assert!(soon(&watcher));
        });
    }

    #[test]
    fn a_task_is_woken_and_a_directory_that_goes_is_told_of() {
        on_a_core(|| async {
            let folder = Folder::new("wakes");
            let mut watcher = Watcher::new().unwrap();
            watcher.watch(&[(folder.0.clone(), "a".into())]).unwrap();
            let path = folder.0.clone();
            spawn(async move {
                sleep(Duration::from_millis(5)).await;
                fs::write(path.join("a"), "x").unwrap();
                sleep(Duration::from_millis(5)).await;
                fs::remove_dir_all(path).unwrap();
            });
            watcher.changed().await.unwrap();
            watcher.changed().await.unwrap();
            let error = watcher.watch(&[(folder.0.clone(), "a".into())]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        });
    }
}
