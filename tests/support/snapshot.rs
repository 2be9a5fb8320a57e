//! Texts kept beside the tests: `UPDATE=1 cargo test` writes them, nobody edits them by hand.

use std::path::Path;
use std::{env, fs};

/// Compares with the file `tests/NAME`, and shows the first line that differs.
pub fn snapshot(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    if env::var_os("UPDATE").is_some() {
        let parent = path.parent().expect("a joined path has a parent");
        fs::create_dir_all(parent).expect("the repository is writable");
        fs::write(&path, actual).expect("the repository is writable");
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if let Some(difference) = difference(&expected, actual) {
        panic!("tests/{name}:{difference}\nif that is right: UPDATE=1 cargo test");
    }
}

/// The first line that differs, with its number.
pub fn difference(expected: &str, actual: &str) -> Option<String> {
    if expected == actual {
        return None;
    }
    let same = expected.lines().zip(actual.lines()).take_while(|(a, b)| a == b).count();
    let line = |text: &str| text.lines().nth(same).unwrap_or("(nothing)").to_owned();
    let (wanted, found) = (line(expected), line(actual));
    Some(format!("{}: expected\n  {wanted}\nbut it is\n  {found}", same + 1))
}
