//! Who the process is: the user that it becomes once its sockets are bound. It keeps the right to
//! bind ports below 1024, which a reload may need, and nothing else. Called before the first
//! thread starts: capabilities belong to threads, and those that start later inherit them.
#![expect(unsafe_code, reason = "system calls that std does not wrap")]

use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt as _;

/// A user and a group of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    name: CString,
    user: libc::uid_t,
    group: libc::gid_t,
}

impl Identity {
    /// By name or by number; the group is the user's own when none is named. `Err` is for the
    /// operator.
    pub fn find(user: &str, group: Option<&str>) -> Result<Identity, String> {
        let name = c_string(user)?;
        let found = match user.parse() {
            Ok(number) => user_by_number(number).map_or_else(
                // a number needs no entry, but then its group must be named
                || group.map(|_| Identity { name, user: number, group: 0 }),
                Some,
            ),
            Err(_) => user_by_name(name),
        };
        let mut found = found.ok_or_else(|| {
            format!("there is no user `{user}`: expected one of this machine (getent passwd)")
        })?;
        if let Some(group) = group {
            let known = match group.parse() {
                Ok(number) => Some(number),
                Err(_) => group_by_name(&c_string(group)?),
            };
            found.group = known.ok_or_else(|| {
                format!("there is no group `{group}`: expected one of this machine (getent group)")
            })?;
        }
        Ok(found)
    }

    /// Whether a file's owner and mode let this user read it, as far as its group tells.
    pub fn may_read(&self, file: &Metadata) -> bool {
        let bit = match file {
            _ if self.user == 0 => return true,
            file if file.uid() == self.user => 0o400,
            file if file.gid() == self.group => 0o040,
            _ => 0o004,
        };
        file.mode() & bit != 0
    }

    /// Becomes this user, for ever. Whoever is this user already, the new binary of an upgrade,
    /// stays what it is.
    pub fn assume(&self) -> Result<(), String> {
        // SAFETY: plain calls.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        if user == self.user && group == self.group {
            return Ok(());
        }
        if user != 0 {
            return Err(format!(
                "cannot become {self}: the process runs as user {user}; start it as root, or leave \
                 `user` out of the configuration"
            ));
        }
        self.change().map_err(|error| format!("cannot become {self}: {error}"))?;
        self.verify()
    }

    fn change(&self) -> io::Result<()> {
        // SAFETY: plain calls; the name is a C string. Keeping capabilities ends with an exec.
        unsafe {
            tried(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
            tried(libc::initgroups(self.name.as_ptr(), self.group))?;
            tried(libc::setresgid(self.group, self.group, self.group))?;
            tried(libc::setresuid(self.user, self.user, self.user))?;
        }
        if self.user != 0 {
            keep_only_binding();
        }
        Ok(())
    }

    /// A process that only believes that it gave its privileges up is the worst of both.
    fn verify(&self) -> Result<(), String> {
        // SAFETY: plain calls. Becoming root again must fail; should it not, we end.
        let (user, group, back) =
            unsafe { (libc::geteuid(), libc::getegid(), libc::setresuid(0, 0, 0)) };
        if user == self.user && group == self.group && (back != 0 || self.user == 0) {
            return Ok(());
        }
        Err(format!("cannot become {self}: the kernel still lets the process be user 0"))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { name, user, group } = self;
        write!(f, "{} (user {user}, group {group})", name.to_string_lossy())
    }
}

/// Of the capabilities only that to bind ports below 1024, for this process and, as an ambient one,
/// for the new binary of an upgrade. Where the kernel refuses, none is kept: setuid has cleared
/// what is effective, and a reload that binds such a port will say so.
fn keep_only_binding() {
    let mut header = CapabilityHeader { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let bit = 1 << CAP_NET_BIND_SERVICE;
    for kept in [bit, 0] {
        let set = CapabilitySet { effective: kept, permitted: kept, inheritable: kept };
        let none = CapabilitySet { effective: 0, permitted: 0, inheritable: 0 };
        let mut sets = [set, none];
        // SAFETY: both are locals of the layout that version 3 of the call has.
        let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_mut_ptr()) };
        if result == 0 {
            break;
        }
    }
    // SAFETY: a plain call.
    unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0)
    };
}

const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const CAP_NET_BIND_SERVICE: u32 = 10;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilitySet {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn tried(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn c_string(name: &str) -> Result<CString, String> {
    CString::new(name).map_err(|_| format!("`{}` is no name", name.escape_debug()))
}

fn user_by_name(name: CString) -> Option<Identity> {
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut found = std::ptr::null_mut();
    let mut buffer = [0 as c_char; ENTRY_BYTES_MAX];
    // SAFETY: every pointer is of a local that outlives the call; the length is the buffer's.
    let entry = unsafe {
        libc::getpwnam_r(
            name.as_ptr(),
            entry.as_mut_ptr(),
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        );
        found.as_ref()
    }?;
    Some(Identity { name, user: entry.pw_uid, group: entry.pw_gid })
}

fn user_by_number(number: libc::uid_t) -> Option<Identity> {
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut found = std::ptr::null_mut();
    let mut buffer = [0 as c_char; ENTRY_BYTES_MAX];
    // SAFETY: as above; the name of an entry that was found is a C string in the buffer.
    let (entry, name) = unsafe {
        libc::getpwuid_r(
            number,
            entry.as_mut_ptr(),
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        );
        let entry = found.as_ref()?;
        (entry, CStr::from_ptr(entry.pw_name).to_owned())
    };
    Some(Identity { name, user: entry.pw_uid, group: entry.pw_gid })
}

fn group_by_name(name: &CStr) -> Option<libc::gid_t> {
    let mut entry = MaybeUninit::<libc::group>::uninit();
    let mut found = std::ptr::null_mut();
    // Its members are in the entry.
    let mut buffer = vec![0 as c_char; 16 * ENTRY_BYTES_MAX];
    // SAFETY: as above.
    let entry = unsafe {
        libc::getgrnam_r(
            name.as_ptr(),
            entry.as_mut_ptr(),
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        );
        found.as_ref()
    }?;
    Some(entry.gr_gid)
}

/// A larger entry counts as none.
const ENTRY_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name_and_by_number() {
        let root = Identity::find("root", None).unwrap();
        assert_eq!((root.user, root.group), (0, 0));
        assert_eq!(Identity::find("0", None).unwrap(), root);
        let nobody = Identity::find("nobody", Some("7")).unwrap();
        assert!(nobody.user > 0 && nobody.group == 7, "{nobody}");
        assert_eq!(Identity::find("54321", Some("root")).unwrap().group, 0);
    }

    #[test]
    fn who_does_not_exist_is_named() {
        for (user, group, missing) in [
            ("no-such-user", None, "no user `no-such-user`"),
            ("54321", None, "no user `54321`"),
            ("root", Some("no-such-group"), "no group `no-such-group`"),
        ] {
            let error = Identity::find(user, group).unwrap_err();
            assert!(error.contains(missing), "{error}");
        }
        assert!(Identity::find("a\0b", None).is_err());
    }

    #[test]
    fn a_process_that_is_the_user_already_changes_nothing() {
        // SAFETY: plain calls.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        let name = CString::new("me").unwrap();
        assert_eq!(Identity { name, user, group }.assume(), Ok(()));
    }
}
