//! JSON strings from bytes that nobody vouches for. Whatever comes in, what goes out is one valid
//! JSON string on one line.

/// Appends `bytes` as a JSON string, quotes included. Invalid UTF-8 becomes U+FFFD; everything that
/// some reader takes for a line end or a terminal command is written as `\uXXXX`.
pub fn string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if bytes.iter().all(|&byte| PLAIN[usize::from(byte)]) {
        out.extend_from_slice(bytes);
    } else {
        escaped(bytes, out);
    }
    out.push(b'"');
}

/// The same without the quotes, for a string that is begun and ended by others.
pub fn inside(bytes: &[u8], out: &mut Vec<u8>) {
    escaped(bytes, out);
}

/// Appends a member's name and colon: `"name":`. For names that are constants of ours.
pub fn name(name: &str, out: &mut Vec<u8>) {
    debug_assert!(name.bytes().all(|byte| PLAIN[usize::from(byte)]));
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

#[cold]
fn escaped(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            push(character, out);
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
}

fn push(character: char, out: &mut Vec<u8>) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        _ if must_be_hidden(character) => {
            out.extend_from_slice(b"\\u");
            let code = character as u32;
            for shift in [12, 8, 4, 0] {
                out.push(HEX[(code >> shift & 15) as usize]);
            }
        }
        _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// C0 and C1 controls, DEL, and the two separators that JavaScript takes for line ends. All of them
/// are below U+10000, so four hex digits suffice.
pub(crate) fn must_be_hidden(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

/// Bytes that a JSON string holds as they are.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        plain[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    plain
};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A strict reader of JSON (RFC 8259), for the tests of all that writes it.
#[cfg(test)]
pub(crate) mod check {
    /// Checks one value with nothing around it.
    pub(crate) fn is_valid(text: &[u8]) -> bool {
        std::str::from_utf8(text).is_ok() && value(text).is_some_and(<[u8]>::is_empty)
    }

    /// Takes one value off the front.
    fn value(text: &[u8]) -> Option<&[u8]> {
        match text.first()? {
            b'{' => list(&text[1..], b'}', |member| value(string(member)?.strip_prefix(b":")?)),
            b'[' => list(&text[1..], b']', value),
            b'"' => string(text),
            b't' => text.strip_prefix(b"true"),
            b'f' => text.strip_prefix(b"false"),
            b'n' => text.strip_prefix(b"null"),
            _ => number(text),
        }
    }

    fn list(mut text: &[u8], end: u8, item: impl Fn(&[u8]) -> Option<&[u8]>) -> Option<&[u8]> {
        if *text.first()? == end {
            return Some(&text[1..]);
        }
        loop {
            text = item(text)?;
            match text.first()? {
                b',' => text = &text[1..],
                byte if *byte == end => return Some(&text[1..]),
                _ => return None,
            }
        }
    }

    fn string(text: &[u8]) -> Option<&[u8]> {
        let mut rest = text.strip_prefix(b"\"")?;
        loop {
            match *rest.first()? {
                b'"' => return Some(&rest[1..]),
                b'\\' if rest.get(1) == Some(&b'u') => {
                    let digits = rest.get(2..6)?;
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return None;
                    }
                    rest = &rest[6..];
                }
                b'\\' if b"\"\\/bfnrt".contains(rest.get(1)?) => rest = &rest[2..],
                b'\\' | 0..=0x1f => return None,
                _ => rest = &rest[1..],
            }
        }
    }

    fn number(text: &[u8]) -> Option<&[u8]> {
        let text = text.strip_prefix(b"-").unwrap_or(text);
        let whole = digits(text)?;
        if text[0] == b'0' && text.len() - whole.len() > 1 {
            return None;
        }
        match whole.strip_prefix(b".") {
            Some(fraction) => digits(fraction),
            None => Some(whole),
        }
    }

    fn digits(text: &[u8]) -> Option<&[u8]> {
        let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count > 0).then(|| &text[count..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        string(bytes, &mut out);
        assert!(check::is_valid(&out), "{out:?}");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn plain_text_passes_untouched() {
        assert_eq!(text(b"GET /a?b=c&d=%20"), r#""GET /a?b=c&d=%20""#);
        assert_eq!(text("zażółć 猫".as_bytes()), "\"zażółć 猫\"");
        assert_eq!(text(b""), r#""""#);
    }

    #[test]
    fn quotes_controls_and_separators_are_escaped() {
        assert_eq!(text(b"a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(text(b"\r\n\t\0\x1b\x7f"), r#""\r\n\t\u0000\u001b\u007f""#);
        assert_eq!(
            text("\u{85}\u{9b}\u{2028}\u{2029}".as_bytes()),
            r#""\u0085\u009b\u2028\u2029""#
        );
    }

    #[test]
    fn invalid_utf8_becomes_the_replacement_character() {
        assert_eq!(text(b"a\xffb\xc3"), "\"a\u{FFFD}b\u{FFFD}\"");
        assert_eq!(text(b"\xed\xa0\x80").matches('\u{FFFD}').count(), 3); // a lone surrogate
    }

    #[test]
    fn every_pair_of_bytes_gives_one_valid_string_on_one_line() {
        for first in 0..=255 {
            for second in 0..=255 {
                let written = text(&[first, second]);
                assert!(!written.chars().any(must_be_hidden), "{first} {second}");
            }
        }
    }

    #[test]
    fn the_checker_refuses_what_is_not_json() {
        for bad in ["", "{", "{\"a\":}", "[1,]", "\"\n\"", "\"\\x\"", "01", "1.", "{} ", "nul"] {
            assert!(!check::is_valid(bad.as_bytes()), "{bad}");
        }
        assert!(check::is_valid(br#"{"a":[1,0.5,-2,true,null,{}],"b":"\u00e9"}"#));
    }
}
