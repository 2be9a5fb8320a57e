//! The style law as a test: what is not checked here is advice.
//! A rule takes a path and a text, returns complaints, and has a canary that proves it bites.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

const COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;
/// For a file whose header says why it is long, in a line `// tidy: long because …`.
const FILE_LINES_CEILING: usize = 700;
const HEADER_LINES_MAX: usize = 12;

const TOP_LEVEL: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "conf",
    "benches",
    "perf",
    "scripts",
    "tests",
    "README.md",
    "LICENSE",
];

/// Word of an identifier, and what to write instead.
const BANNED_WORDS: [(&str, &str); 6] = [
    ("util", "name the file or function by what it does"),
    ("utils", "name the file or function by what it does"),
    ("manager", "name what it owns: pool, table, registry"),
    ("helper", "name it by what it does"),
    ("helpers", "name it by what it does"),
    ("misc", "name it by what it does"),
];

/// Prefix of a function's name, and what to write instead.
const BANNED_PREFIXES: [(&str, &str); 3] = [
    ("get_", "the noun alone, or find_ when it may fail quietly"),
    ("handle_", "the verb for what is done: accept_, answer_, refuse_"),
    ("process_", "the verb for what is done: parse_, relay_, count_"),
];

const MACHINE_WORDS: [&str; 5] = ["unsafe", "Arc", "Mutex", "RwLock", "thread_local"];

// --- rules for Rust files --------------------------------------------------------------------

fn columns(path: &str, text: &str) -> Vec<String> {
    let wide = |line: &str| line.chars().count() > COLUMNS_MAX;
    numbered(text)
        .filter(|(_, line)| wide(line))
        .map(|(number, _)| format!("{path}:{number}: line over {COLUMNS_MAX} columns: break it"))
        .collect()
}

fn function_length(path: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let mut complaints = Vec::new();
    for (at, name) in functions(&code) {
        let Some(end) = body_end(&code, at) else {
            continue;
        };
        let lines = code[at..end].lines().count();
        if lines > FUNCTION_LINES_MAX {
            let line = line_of(&code, at);
            complaints.push(format!(
                "{path}:{line}: fn {name} has {lines} lines, at most {FUNCTION_LINES_MAX}: split it"
            ));
        }
    }
    complaints
}

fn file_length(path: &str, text: &str) -> Vec<String> {
    if path.starts_with("tests/") && !path.starts_with("tests/support/") {
        return Vec::new();
    }
    let lines = production(text).lines().count();
    let explained = text.contains("// tidy: long because ");
    let max = if explained { FILE_LINES_CEILING } else { FILE_LINES_MAX };
    if lines <= max {
        return Vec::new();
    }
    vec![format!("{path}: {lines} lines before its tests, at most {max}: split it by its nouns")]
}

fn banned_words(path: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let mut complaints = Vec::new();
    for (at, identifier) in identifiers(&code) {
        let words = words_of(identifier);
        for (word, instead) in BANNED_WORDS {
            if words.iter().any(|found| found == word) {
                let line = line_of(&code, at);
                complaints.push(format!("{path}:{line}: `{identifier}`: no {word}: {instead}"));
            }
        }
    }
    for (at, name) in functions(&code) {
        for (prefix, instead) in BANNED_PREFIXES {
            if name.starts_with(prefix) {
                let line = line_of(&code, at);
                complaints.push(format!("{path}:{line}: fn {name}: no {prefix}: {instead}"));
            }
        }
    }
    let stem = Path::new(path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    for (word, instead) in BANNED_WORDS.into_iter().chain([("common", "name it by its noun")]) {
        if stem.split('_').any(|part| part == word) {
            complaints.push(format!("{path}: a file named {word}: {instead}"));
        }
    }
    complaints
}

fn machine_words(path: &str, text: &str) -> Vec<String> {
    if !path.starts_with("src/") || path.starts_with("src/engine") {
        return Vec::new();
    }
    let code = code_of(text);
    let excused = |line: usize| {
        text.lines().nth(line - 1).is_some_and(|line| line.contains("// tidy: required by "))
    };
    identifiers(&code)
        .filter(|(_, word)| MACHINE_WORDS.contains(word) || is_atomic_type(word))
        .map(|(at, word)| (line_of(&code, at), word))
        .filter(|(line, word)| !(*word == "Arc" && excused(*line)))
        .map(|(line, word)| {
            format!("{path}:{line}: `{word}` outside src/engine: own it on one core, or send it")
        })
        .collect()
}

fn clock(path: &str, text: &str) -> Vec<String> {
    if !path.starts_with("src/") || path.starts_with("src/engine") {
        return Vec::new();
    }
    let code = code_of(text);
    let code = &code[..production(text).len()];
    ["Instant::now", "SystemTime::now", ".elapsed("]
        .iter()
        .flat_map(|read| code.match_indices(read))
        .map(|(at, read)| {
            let line = line_of(code, at);
            format!("{path}:{line}: `{read}` outside src/engine: take `now` as an argument")
        })
        .collect()
}

fn executor_name(path: &str, text: &str) -> Vec<String> {
    if path.starts_with("src/engine") {
        return Vec::new();
    }
    let code = code_of(text);
    identifiers(&code)
        .filter(|(_, word)| *word == "glommio")
        .map(|(at, _)| line_of(&code, at))
        .map(|line| format!("{path}:{line}: only src/engine names glommio: use the engine's names"))
        .collect()
}

fn left_behind(path: &str, text: &str) -> Vec<String> {
    let notes = ["FIX", "XX"].into_iter().zip(["ME", "X"]).map(|(a, b)| format!("{a}{b}"));
    let mut complaints: Vec<String> = notes
        .flat_map(|note| words_at(text, &note))
        .map(|at| format!("{path}:{}: a note left behind: do it or delete it", line_of(text, at)))
        .collect();
    let code = if path.ends_with(".rs") { code_of(text) } else { String::new() };
    for call in ["todo!", "unimplemented!"] {
        complaints.extend(code.match_indices(call).map(|(at, _)| {
            format!("{path}:{}: `{call}` left behind: write it", line_of(&code, at))
        }));
    }
    complaints
}

fn bare_attributes(path: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let find = |pattern: &str, cure: &str| -> Vec<String> {
        code.match_indices(pattern)
            .map(|(at, _)| format!("{path}:{}: `{pattern}`: {cure}", line_of(&code, at)))
            .collect()
    };
    let mut complaints = find("#[allow(", "write #[expect(…, reason = \"…\")]");
    complaints.extend(find("#[ignore]", "say why: #[ignore = \"…\"]"));
    // The harness is compiled into every test file, and each uses another part of it.
    if path != "tests/support/mod.rs" {
        complaints.extend(find("#![allow(", "write #[expect(…, reason = \"…\")]"));
    }
    complaints
}

fn header(path: &str, text: &str) -> Vec<String> {
    if !path.starts_with("src/") || path == "src/main.rs" {
        return Vec::new();
    }
    let lines = text.lines().take_while(|line| line.starts_with("//!")).count();
    if lines == 0 {
        return vec![format!("{path}: no header: what it owns, who calls it, what it never does")];
    }
    let exempt = ["src/lib.rs", "src/limits.rs"].contains(&path);
    if lines > HEADER_LINES_MAX && !exempt {
        return vec![format!("{path}: a header of {lines} lines, at most {HEADER_LINES_MAX}")];
    }
    Vec::new()
}

/// A file under src/ that no `mod` line reaches is compiled by nobody.
fn dead_file(path: &str, sources: &[(String, String)]) -> Vec<String> {
    let inside = path.strip_prefix("src/").and_then(|inside| inside.strip_suffix(".rs"));
    let Some(inside) = inside else {
        return Vec::new();
    };
    if ["lib", "main"].contains(&inside) {
        return Vec::new();
    }
    let module = inside.strip_suffix("/mod").unwrap_or(inside);
    let (parents, name) = match module.rsplit_once('/') {
        Some((parent, name)) => {
            (vec![format!("src/{parent}/mod.rs"), format!("src/{parent}.rs")], name)
        }
        None => (vec!["src/lib.rs".to_owned(), "src/main.rs".to_owned()], module),
    };
    let declares = |text: &str| {
        code_of(text).lines().any(|line| line.trim_end().ends_with(&format!("mod {name};")))
    };
    if sources.iter().any(|(path, text)| parents.contains(path) && declares(text)) {
        return Vec::new();
    }
    vec![format!("{path}: no `mod {name};` in {}: name it there or delete it", parents[0])]
}

// --- rules for other files -------------------------------------------------------------------

fn titles(path: &str, text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut count = 0;
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        }
        count += usize::from(!fenced && line.starts_with("# "));
    }
    if count == 1 {
        return Vec::new();
    }
    vec![format!("{path}: {count} titles (`# …`): a Markdown file has exactly one")]
}

fn top_level(path: &str, _text: &str) -> Vec<String> {
    let first = path.split('/').next().unwrap_or(path);
    if first.starts_with('.') || TOP_LEVEL.contains(&first) {
        return Vec::new();
    }
    vec![format!("{path}: the top level holds only {}, and dotfiles", TOP_LEVEL.join(" "))]
}

fn script(path: &str, text: &str, mode: u32) -> Vec<String> {
    let mut complaints = Vec::new();
    let is_script = text.starts_with("#!/");
    if is_script && mode & 0o111 != 0o111 {
        complaints.push(format!("{path}: not executable: chmod +x {path}"));
    }
    if !is_script && path.starts_with("scripts/") {
        complaints.push(format!("{path}: no interpreter line: begin with #!/usr/bin/env bash"));
    }
    if text.starts_with("#!/usr/bin/env bash") && !text.contains("\nset -euo pipefail\n") {
        complaints.push(format!("{path}: no `set -euo pipefail`: a failing line must end it"));
    }
    complaints
}

// --- reading Rust well enough ----------------------------------------------------------------

/// The text with comments and the insides of literals blanked: same length, same lines.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(code)
        .expect("whole literals and comments are blanked, never part of a letter")
}

/// Where the comment or literal that begins here ends; `at` itself when none begins.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let after_identifier =
        at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => at + find(rest, b"\n").unwrap_or(rest.len()),
        [b'/', b'*', ..] => at + find(rest, b"*/").map_or(rest.len(), |end| end + 2),
        [b'"', ..] => at + quoted_length(rest, b'"'),
        [b'r', b'"' | b'#', ..] if !after_identifier => at + raw_string_length(rest),
        [b'b', b'r', b'"' | b'#', ..] if !after_identifier => {
            at + 1 + raw_string_length(&rest[1..])
        }
        [b'\'', b'\\', ..] => at + quoted_length(rest, b'\''),
        [b'\'', first, ..] if rest.get(1 + letter_length(*first)) == Some(&b'\'') => {
            at + letter_length(*first) + 2
        }
        _ => at,
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn quoted_length(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Of `r"…"` or `r##"…"##`; 0 for a raw identifier.
fn raw_string_length(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let open = hashes + 2;
    open + find(&rest[open..], &close).map_or(rest.len() - open, |end| end + close.len())
}

/// Bytes of the UTF-8 letter that begins with this byte.
fn letter_length(first: u8) -> usize {
    match first.leading_ones() {
        0 => 1,
        ones => ones as usize,
    }
}

/// Everything before the tests of the file.
fn production(text: &str) -> &str {
    let tests = text.find("#[cfg(test)]\nmod ").or_else(|| text.find("#[cfg(test)]\npub mod "));
    &text[..tests.unwrap_or(text.len())]
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn identifiers(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.split(|letter| !is_word(letter))
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - code.as_ptr() as usize, word))
}

/// `(offset of "fn", name)` of every function that is defined.
fn functions(code: &str) -> impl Iterator<Item = (usize, &str)> {
    identifiers(code).filter(|(_, word)| *word == "fn").filter_map(move |(at, _)| {
        let after = code[at + 2..].trim_start();
        let name = after.split(|letter| !is_word(letter)).next()?;
        (!name.is_empty()).then_some((at, name))
    })
}

/// Where the body of the function that begins at `at` ends; `None` for a declaration without one.
fn body_end(code: &str, at: usize) -> Option<usize> {
    let (mut braces, mut brackets) = (0, 0);
    for (offset, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets -= 1,
            b';' if braces == 0 && brackets == 0 => return None,
            b'{' => braces += 1,
            b'}' if braces <= 1 => return Some(offset + 1),
            b'}' => braces -= 1,
            _ => {}
        }
    }
    None
}

/// `ConnectionManager2` and `connection_manager` are both `["connection", "manager", …]`.
fn words_of(identifier: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in identifier.chars() {
        if letter == '_' || letter.is_uppercase() || letter.is_numeric() {
            words.push(String::new());
        }
        if letter.is_alphabetic() {
            words.last_mut().expect("never empty").extend(letter.to_lowercase());
        }
    }
    words
}

fn words_at(text: &str, word: &str) -> Vec<usize> {
    identifiers(text).filter(|(_, found)| *found == word).map(|(at, _)| at).collect()
}

fn is_atomic_type(word: &str) -> bool {
    word.strip_prefix("Atomic").is_some_and(|rest| rest.starts_with(char::is_uppercase))
}

// --- the repository --------------------------------------------------------------------------

/// `(path, text)` of everything in the repository that is text.
fn repository() -> Vec<(String, String)> {
    let listed = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("git is not installed: scripts/test installs what the tests need");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).expect("paths are UTF-8");
    listed
        .lines()
        .filter_map(|path| Some((path.to_owned(), fs::read_to_string(absolute(path)).ok()?)))
        .collect()
}

fn absolute(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

fn law(path: &str, text: &str, files: &[(String, String)]) -> Vec<String> {
    let mut complaints = top_level(path, text);
    if path.ends_with(".rs") {
        let rules = [
            columns,
            function_length,
            file_length,
            banned_words,
            machine_words,
            clock,
            executor_name,
            bare_attributes,
            header,
        ];
        complaints.extend(rules.iter().flat_map(|rule| rule(path, text)));
        complaints.extend(dead_file(path, files));
    }
    if path.ends_with(".md") {
        complaints.extend(titles(path, text));
    }
    let mode = fs::metadata(absolute(path)).map_or(0, |metadata| metadata.permissions().mode());
    complaints.extend(script(path, text, mode));
    complaints.extend(left_behind(path, text));
    complaints
}

#[test]
fn the_repository_keeps_the_law() {
    let files = repository();
    assert!(files.len() > 20, "git lists only {} files: is this a checkout?", files.len());
    let complaints: Vec<String> =
        files.iter().flat_map(|(path, text)| law(path, text, &files)).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

// --- canaries: each rule must bite, and must let the good pass ---------------------------------

fn bites(complaints: &[String], expected: &str) {
    assert_eq!(complaints.len(), 1, "one complaint expected: {complaints:?}");
    assert!(complaints[0].contains(expected), "{} says nothing of {expected}", complaints[0]);
}

#[test]
fn a_line_over_100_columns_is_found() {
    bites(&columns("a.rs", &format!("x\n{}\n", "é".repeat(101))), "a.rs:2");
    assert!(columns("a.rs", &"é".repeat(100)).is_empty());
}

#[test]
fn a_function_over_70_lines_is_found() {
    let body = |lines| format!("\nfn f(a: [u8; 4]) {{\n{}}}\n", "x();\n".repeat(lines));
    bites(&function_length("a.rs", &body(69)), "a.rs:2: fn f has 71 lines");
    assert!(function_length("a.rs", &body(68)).is_empty());
    let braces = format!("fn f() {{ \"{{{{\"; '{{'; /* {{ */ }} // {{\n{}", "\n".repeat(99));
    assert!(function_length("a.rs", &braces).is_empty(), "braces in literals do not count");
    let declared = format!("trait T {{ fn f(a: [u8; 4]); {} }}", "\n".repeat(99));
    assert!(function_length("a.rs", &declared).is_empty(), "a declaration has no body");
}

#[test]
fn a_long_file_is_found_and_its_tests_do_not_count() {
    let lines = |count| "x\n".repeat(count);
    bites(&file_length("a.rs", &lines(601)), "601 lines");
    let tested = format!("{}#[cfg(test)]\nmod tests {{\n{}}}", lines(600), lines(600));
    assert!(file_length("a.rs", &tested).is_empty());
    let explained = "// tidy: long because it is a table\n";
    assert!(file_length("a.rs", &format!("{explained}{}", lines(699))).is_empty());
    bites(&file_length("a.rs", &format!("{explained}{}", lines(700))), "at most 700");
}

#[test]
fn banned_words_in_names_are_found() {
    bites(&banned_words("a.rs", "struct PoolManager;"), "no manager");
    bites(&banned_words("a.rs", "use crate::string_util;"), "no util");
    bites(&banned_words("a.rs", "fn handle_request() {}"), "no handle_");
    bites(&banned_words("a.rs", "pub fn get_name() {}"), "no get_");
    bites(&banned_words("src/http/common.rs", ""), "named common");
    let good = "let utilisation = map.get_mut(1); // the manager handles it\n\"get_util\";";
    assert!(banned_words("src/http/head.rs", good).is_empty());
}

#[test]
fn machine_words_outside_the_engine_are_found() {
    for word in ["unsafe", "Arc", "Mutex", "RwLock", "AtomicU64", "thread_local"] {
        let text = format!("x\n{word} {{}}\n");
        bites(&machine_words("src/shard/mod.rs", &text), &format!("src/shard/mod.rs:2: `{word}`"));
        assert!(machine_words("src/engine/ring.rs", &text).is_empty());
        assert!(machine_words("tests/support/origin.rs", &text).is_empty());
        let excused = format!("{word} // tidy: required by rustls\n");
        assert_eq!(machine_words("src/tls/mod.rs", &excused).is_empty(), word == "Arc");
    }
    assert!(machine_words("src/lib.rs", "#![deny(unsafe_code)] // Arc\n").is_empty());
}

#[test]
fn clocks_read_outside_the_engine_are_found() {
    for read in ["Instant::now()", "SystemTime::now()", "start.elapsed()"] {
        bites(&clock("src/a.rs", &format!("let x = {read};")), "take `now` as an argument");
        assert!(clock("src/engine/timer.rs", read).is_empty());
        assert!(clock("src/a.rs", &format!("#[cfg(test)]\nmod tests {{ {read} }}")).is_empty());
    }
    assert!(clock("src/a.rs", "// Instant::now is the caller's\n").is_empty());
}

#[test]
fn the_executor_named_outside_the_engine_is_found() {
    bites(&executor_name("src/main.rs", "use glommio::Task;"), "src/main.rs:1");
    assert!(executor_name("src/engine/host.rs", "use glommio::Task;").is_empty());
    assert!(executor_name("src/main.rs", "// glommio parks\n").is_empty());
}

#[test]
fn notes_and_stubs_left_behind_are_found() {
    bites(&left_behind("a.rs", concat!("// FIX", "ME: later")), "a note left behind");
    bites(&left_behind("a.md", concat!("XX", "X here")), "a note left behind");
    bites(&left_behind("a.rs", "fn f() { todo!() }"), "`todo!`");
    bites(&left_behind("a.rs", "fn f() { unimplemented!() }"), "`unimplemented!`");
    assert!(left_behind("a", concat!("mktemp /tmp/a.XX", "XXXX")).is_empty());
}

#[test]
fn attributes_without_a_reason_are_found() {
    bites(&bare_attributes("a.rs", "#[allow(dead_code)]"), "expect");
    bites(&bare_attributes("a.rs", "#![allow(dead_code)]"), "expect");
    bites(&bare_attributes("a.rs", "#[ignore]\nfn f() {}"), "say why");
    assert!(bare_attributes("a.rs", "#[ignore = \"needs a 7.0 kernel\"]").is_empty());
    assert!(bare_attributes("a.rs", "#[expect(dead_code, reason = \"…\")]").is_empty());
}

#[test]
fn missing_and_long_headers_are_found() {
    bites(&header("src/a.rs", "use x;\n"), "no header");
    bites(&header("src/a.rs", &"//! x\n".repeat(13)), "13 lines");
    assert!(header("src/a.rs", &"//! x\n".repeat(12)).is_empty());
    assert!(header("src/lib.rs", &"//! x\n".repeat(40)).is_empty());
}

#[test]
fn a_file_that_no_mod_line_reaches_is_found() {
    let sources = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    };
    let files = sources(&[("src/lib.rs", "pub mod http;"), ("src/http/mod.rs", "// mod head;\n")]);
    assert!(dead_file("src/http/mod.rs", &files).is_empty());
    bites(&dead_file("src/http/head.rs", &files), "no `mod head;` in src/http/mod.rs");
    let files = sources(&[("src/http/mod.rs", "pub(crate) mod head;")]);
    assert!(dead_file("src/http/head.rs", &files).is_empty());
}

#[test]
fn markdown_without_exactly_one_title_is_found() {
    bites(&titles("a.md", "# one\n# two\n"), "2 titles");
    bites(&titles("a.md", "## under\n"), "0 titles");
    assert!(titles("a.md", "# one\n```sh\n# a comment\n```\n## under\n").is_empty());
}

#[test]
fn strangers_at_the_top_level_are_found() {
    bites(&top_level("notes.txt", ""), "notes.txt");
    bites(&top_level("docs/a.md", ""), "docs/a.md");
    assert!(top_level("src/lib.rs", "").is_empty());
    assert!(top_level(".ci/run", "").is_empty());
}

#[test]
fn scripts_that_cannot_run_or_run_on_after_a_failure_are_found() {
    let good = "#!/usr/bin/env bash\nset -euo pipefail\n";
    bites(&script("scripts/a", good, 0o644), "chmod +x");
    bites(&script("scripts/a", "echo", 0o755), "no interpreter line");
    bites(&script("perf/a", "#!/usr/bin/env bash\necho\n", 0o755), "pipefail");
    assert!(script("scripts/a", good, 0o755).is_empty());
}

#[test]
fn literals_and_comments_are_blanked_and_nothing_else() {
    let cases = [
        ("a(\"x{\\\"y\") b", "a(         ) b"),
        ("r#\"x\"y\"# b", "          b"),
        ("br\"x\" b'}' '\\'' 'é' <'a>", "      b              <'a>"),
        ("for r in r#type {}", "for r in r#type {}"),
        ("a /* { */ b // {\nc", "a         b     \nc"),
    ];
    for (text, expected) in cases {
        let found = code_of(text).replace('\u{0}', " ");
        assert_eq!(
            found.split_whitespace().collect::<Vec<_>>().join(" "),
            expected.split_whitespace().collect::<Vec<_>>().join(" "),
            "{text}"
        );
        assert_eq!(found.len(), text.len(), "{text}");
    }
}
