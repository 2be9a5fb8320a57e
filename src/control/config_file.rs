//! A new text for the configuration file. It is beside the file before anything is put in force,
//! and takes its place by a rename: whoever reads sees the old text or the new one, whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Written and on the disk, but not in place yet. Dropped: it is removed.
#[derive(Debug)]
pub(super) struct Beside {
    file: PathBuf,
    new: PathBuf,
}

impl Beside {
    /// Blocks. The error says which file and why.
    pub(super) fn write(file: &Path, text: &str) -> Result<Beside, String> {
        let cannot = |error: io::Error| {
            format!("cannot write a file beside {}: {error}; nothing was changed", file.display())
        };
        // Through a link: the file that it leads to is replaced, not the link.
        let file = fs::canonicalize(file).map_err(cannot)?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let new = file.with_file_name(format!(".{name}.{}.new", std::process::id()));
        // Of a process that ended in between.
        drop(fs::remove_file(&new));
        let beside = Beside { file, new };
        beside.fill(text).map_err(cannot)?;
        Ok(beside)
    }

    fn fill(&self, text: &str) -> io::Result<()> {
        let mut new =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.new)?;
        let before = fs::metadata(&self.file)?;
        // Only root may give it away; whose it was may differ from who we are.
        drop(std::os::unix::fs::chown(&self.new, Some(before.uid()), Some(before.gid())));
        new.set_permissions(fs::Permissions::from_mode(before.mode() & 0o777))?;
        new.write_all(text.as_bytes())?;
        new.sync_all()
    }

    /// Blocks.
    pub(super) fn put_in_place(self) -> Result<(), String> {
        let file = self.file.display();
        fs::rename(&self.new, &self.file).map_err(|error| {
            format!(
                "it is in force, but {file} could not be replaced: {error}{}; the next reload or \
                 start reads what {file} says",
                cure(&error)
            )
        })?;
        if let Some(directory) = self.file.parent() {
            // The name is safe too after this; one that cannot be synced is written all the same.
            drop(File::open(directory).and_then(|directory| directory.sync_all()));
        }
        Ok(())
    }
}

/// What to do about it, where that is known.
fn cure(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EBUSY) => " (it is a mount of its own: mount its directory instead)",
        Some(_) | None => "",
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.new));
    }
}
