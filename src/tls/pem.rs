//! PEM (RFC 7468): the sections of a file, whatever is written between them.

use std::fmt;

use crate::base64;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

#[derive(Clone, PartialEq, Eq)]
pub struct Section {
    /// `CERTIFICATE`
    pub label: String,
    pub der: Vec<u8>,
    /// As OpenSSL did it before PKCS#8 (RFC 1421).
    pub encrypted: bool,
    pub line: usize,
}

impl fmt::Debug for Section {
    /// It may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of line {}", self.label, self.line)
    }
}

/// What is wrong, and in which line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    pub line: usize,
    pub what: &'static str,
}

pub fn is_pem(bytes: &[u8]) -> bool {
    bytes.windows(BEGIN.len()).any(|window| window == BEGIN)
}

pub fn sections(bytes: &[u8]) -> Result<Vec<Section>, Broken> {
    let mut found = Vec::new();
    let mut open: Option<Section> = None;
    let mut text = Vec::new();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let (line, number) = (line.trim_ascii(), index + 1);
        let broken = |what| Broken { line: number, what };
        let Some(section) = &mut open else {
            if let Some(label) = label_of(line, BEGIN) {
                let label = String::from_utf8_lossy(label).into_owned();
                open = Some(Section { label, der: Vec::new(), encrypted: false, line: number });
            }
            continue;
        };
        if line.starts_with(BEGIN) {
            return Err(broken("a section begins before the one above it has ended"));
        }
        if let Some(label) = label_of(line, END) {
            if label != section.label.as_bytes() {
                return Err(broken("this ends another section than the one that has begun"));
            }
            section.der =
                base64::decode(&text).ok_or(broken("what is above this line is no base64"))?;
            text.clear();
            found.extend(open.take());
        } else if line.contains(&b':') {
            section.encrypted |= line.ends_with(b"ENCRYPTED");
        } else {
            // The second line of what RFC 1421 calls a header has no colon only when it is folded,
            // which no program does.
            text.extend_from_slice(line);
        }
    }
    match open {
        None => Ok(found),
        Some(section) => {
            Err(Broken { line: section.line, what: "the section that begins here never ends" })
        }
    }
}

fn label_of<'a>(line: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(prefix)?.strip_suffix(DASHES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_found_between_other_text() {
        let text = [
            "subject=/CN=a: b\r\n-----BEGIN A B-----\r\nZm9v\r\nYg==\r\n-----END A B-----\r\n",
            "bag\n-----BEGIN KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES,00\n\nZm9v\n",
            "-----END KEY-----",
        ]
        .concat();
        let found = sections(text.as_bytes()).unwrap();
        let shown: Vec<_> =
            found.iter().map(|s| (s.label.as_str(), s.der.as_slice(), s.encrypted)).collect();
        assert_eq!(shown, [("A B", &b"foob"[..], false), ("KEY", &b"foo"[..], true)]);
        assert_eq!(found[1].line, 7);
    }

    #[test]
    fn a_broken_section_is_told_with_its_line() {
        for (text, line) in [
            ("-----BEGIN A-----\nZm9v\n", 1),
            ("x\n-----BEGIN A-----\n-----END B-----", 3),
            ("-----BEGIN A-----\n-----BEGIN A-----\n", 2),
            ("-----BEGIN A-----\n%%%%\n-----END A-----", 3),
        ] {
            assert_eq!(sections(text.as_bytes()).unwrap_err().line, line, "{text}");
        }
        assert_eq!(sections(b""), Ok(Vec::new()));
        assert_eq!(sections(&[0xff; 100]), Ok(Vec::new()));
    }
}
