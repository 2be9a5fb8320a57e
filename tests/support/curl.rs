//! The real curl: a client that nobody here wrote.

use std::process::Command;

use super::message::header_lines;
use super::{TempDir, program};

/// What curl received.
#[derive(Debug)]
pub struct Curl {
    pub status: u16,
    /// Heads of all responses, interim ones and redirects too, as they came.
    pub heads: String,
    pub body: Vec<u8>,
    /// curl's own exit code: 0 is success, 28 a timeout, 52 an empty reply, …
    pub exit: i32,
    pub stderr: String,
}

impl Curl {
    pub fn get(url: &str, arguments: &[&str]) -> Self {
        let directory = TempDir::new();
        let output = Command::new(program("curl"))
            .current_dir(directory.path())
            .args(["--silent", "--show-error", "--max-time", "30", "--noproxy", "*"])
            .args(["--dump-header", "heads", "--output", "body", "--write-out", "%{http_code}"])
            .args(arguments)
            .arg(url)
            .output()
            .expect("curl starts");
        let file = |name| std::fs::read(directory.path().join(name)).unwrap_or_default();
        Self {
            status: String::from_utf8_lossy(&output.stdout).parse().unwrap_or(0),
            heads: String::from_utf8_lossy(&file("heads")).into_owned(),
            body: file("body"),
            exit: output.status.code().unwrap_or(-1),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the test expects text")
    }

    /// Values of the header lines called `name` in the last head.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        let last = self.heads.trim_end().rsplit("\r\n\r\n").next().unwrap_or_default();
        header_lines(last, name)
    }
}
