//! Snapshots: what a test produced against what it produced when somebody last looked.
//! `UPDATE=1 cargo test` writes them anew; nobody edits them by hand.

use std::fs;
use std::path::Path;

/// Compares `actual` with the file at `path` (from the root of the repository).
#[track_caller]
pub(crate) fn assert_snapshot(path: &str, actual: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, actual).unwrap_or_else(|error| panic!("{path}: {error}"));
        return;
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    if expected == actual {
        return;
    }
    let line = expected
        .lines()
        .zip(actual.lines())
        .take_while(|(a, b)| a == b)
        .count();
    panic!(
        "{path}: differs from line {} on (UPDATE=1 writes it anew)\n--- expected\n{}\n--- actual\n{}",
        line + 1,
        rest(&expected, line),
        rest(actual, line),
    );
}

fn rest(text: &str, line: usize) -> String {
    text.lines()
        .skip(line)
        .take(20)
        .collect::<Vec<_>>()
        .join("\n")
}
