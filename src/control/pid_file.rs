//! The file with the process's id, for who sends it signals. Written once it serves, so that after
//! an upgrade it names the process that serves; removed by the process that it names.

use std::fs;
use std::path::{Path, PathBuf};

/// Removed with this.
#[derive(Debug, Default)]
pub(super) struct PidFile(Option<PathBuf>);

impl PidFile {
    pub(super) fn write(path: Option<&Path>) -> Result<PidFile, String> {
        let file = PidFile(path.map(Path::to_owned));
        file.write_again().map(|()| file)
    }

    /// Replaces the file whole: nobody reads half a number.
    pub(super) fn write_again(&self) -> Result<(), String> {
        let Some(path) = &self.0 else { return Ok(()) };
        let new = PathBuf::from(format!("{}.new", path.display()));
        let written = fs::write(&new, own_line()).and_then(|()| fs::rename(&new, path));
        written.map_err(|error| {
            format!(
                "cannot write `pid_file` {}: {error}; its folder must exist, and be writable for \
                 the user that the process runs as",
                path.display()
            )
        })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let Some(path) = &self.0 else { return };
        if fs::read_to_string(path).is_ok_and(|text| text == own_line()) {
            drop(fs::remove_file(path));
        }
    }
}

fn own_line() -> String {
    format!("{}\n", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_names_another_process_by_now_stays() {
        let path = std::env::temp_dir().join(format!("corelane-pid-{}", std::process::id()));
        drop(PidFile::write(Some(&path)).unwrap());
        assert!(!path.exists());
        let file = PidFile::write(Some(&path)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), own_line());
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
        fs::remove_file(&path).unwrap();
        let error = PidFile::write(Some(Path::new("/nonexistent/pid"))).unwrap_err();
        assert!(error.starts_with("cannot write `pid_file` /nonexistent/pid: "), "{error}");
    }
}
