//! Compares text with a file under `tests/`. `UPDATE=1 cargo test` writes the file anew.

use std::fs;
use std::path::Path;

#[track_caller]
pub(crate) fn check(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(file);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().expect("it lies under tests/"))
            .expect("create the folder");
        fs::write(&path, text).expect("write the snapshot");
        return;
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    for (number, (stored, new)) in stored.lines().zip(text.lines()).enumerate() {
        assert_eq!(
            new,
            stored,
            "{file}:{}: run with UPDATE=1 and review",
            number + 1
        );
    }
    assert!(
        stored == text,
        "{file} is longer or shorter now: run with UPDATE=1 and review\n{text}"
    );
}
