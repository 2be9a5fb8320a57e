//! The names of certificate holders and issuers (X.501), as RFC 4514 writes them.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::hexadecimal;
use crate::tls::der::{self, Malformed, Reader};

const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ORGANIZATIONAL_UNIT: &[u8] = &[0x55, 4, 11];

/// Attributes with a name of their own: RFC 4514 3, and those that everybody writes. All others
/// are written as numbers.
const ATTRIBUTES: [(&[u8], &str); 14] = [
    (COMMON_NAME, "CN"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (ORGANIZATIONAL_UNIT, "OU"),
    (&[0x55, 4, 4], "SN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 12], "title"),
    (&[0x55, 4, 42], "GN"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attribute<'a> {
    kind: &'a [u8],
    value: der::Element<'a>,
}

impl<'a> Attribute<'a> {
    /// `None` as well for text with control characters, which would end the line it is put into.
    fn text(&self) -> Option<Cow<'a, str>> {
        let text = der::text(self.value.tag, self.value.content)?;
        (!text.chars().any(char::is_control)).then_some(text)
    }
}

/// `name`: the content of a Name. The last attribute comes first.
pub fn text(name: &[u8]) -> Result<String, Malformed> {
    let mut sets = Vec::new();
    let mut reader = Reader::new(name);
    while !reader.is_empty() {
        sets.push(reader.set()?);
    }
    let mut text = String::with_capacity(name.len());
    for mut set in sets.into_iter().rev() {
        let mut separator = if text.is_empty() { "" } else { "," };
        if set.is_empty() {
            return Err(Malformed("a name with an empty part"));
        }
        while !set.is_empty() {
            text.push_str(separator);
            write_attribute(attribute(&mut set)?, &mut text)?;
            separator = "+";
        }
    }
    Ok(text)
}

/// The most specific one.
pub fn common_name(name: &[u8]) -> Result<Option<String>, Malformed> {
    let mut found = None;
    each(name, |attribute| {
        if attribute.kind == COMMON_NAME {
            found = attribute.text();
        }
    })?;
    Ok(found.map(Cow::into_owned))
}

pub fn organizational_units(name: &[u8]) -> Result<Vec<String>, Malformed> {
    let mut found = Vec::new();
    each(name, |attribute| {
        if attribute.kind == ORGANIZATIONAL_UNIT {
            found.extend(attribute.text().map(Cow::into_owned));
        }
    })?;
    Ok(found)
}

fn each<'a>(name: &'a [u8], mut see: impl FnMut(Attribute<'a>)) -> Result<(), Malformed> {
    let mut reader = Reader::new(name);
    while !reader.is_empty() {
        let mut set = reader.set()?;
        while !set.is_empty() {
            see(attribute(&mut set)?);
        }
    }
    Ok(())
}

fn attribute<'a>(set: &mut Reader<'a>) -> Result<Attribute<'a>, Malformed> {
    let mut pair = set.sequence()?;
    let (kind, value) = (pair.oid()?, pair.element()?);
    pair.end()?;
    Ok(Attribute { kind, value })
}

fn write_attribute(attribute: Attribute<'_>, out: &mut String) -> Result<(), Malformed> {
    let name = ATTRIBUTES.iter().find(|(kind, _)| *kind == attribute.kind);
    match (name, der::text(attribute.value.tag, attribute.value.content)) {
        (Some((_, name)), Some(text)) => {
            out.push_str(name);
            out.push('=');
            escape(&text, out);
        }
        // RFC 4514 2.4: what has no text is written as it is encoded.
        (_, _) => {
            dotted(attribute.kind, out)?;
            out.push_str("=#");
            for byte in attribute.value.whole {
                digits(*byte, out);
            }
        }
    }
    Ok(())
}

/// RFC 4514 2.4. Control characters are escaped as well: the text goes into headers and logs.
fn escape(text: &str, out: &mut String) {
    let last = text.chars().count().saturating_sub(1);
    for (index, letter) in text.chars().enumerate() {
        let at_edge = letter == ' ' && (index == 0 || index == last) || letter == '#' && index == 0;
        if letter.is_control() {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                out.push('\\');
                digits(byte, out);
            }
            continue;
        }
        if at_edge || matches!(letter, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
            out.push('\\');
        }
        out.push(letter);
    }
}

fn digits(byte: u8, out: &mut String) {
    out.extend(hexadecimal::upper(byte).map(char::from));
}

/// Most bytes of an object identifier that is written out: real ones have about ten.
const IDENTIFIER_BYTES_MAX: usize = 64;

fn dotted(identifier: &[u8], out: &mut String) -> Result<(), Malformed> {
    let wrong = Malformed("an object identifier that is none");
    if identifier.len() > IDENTIFIER_BYTES_MAX || identifier.last().is_none_or(|last| *last >= 0x80)
    {
        return Err(wrong);
    }
    let mut first = true;
    let mut arc: u64 = 0;
    for byte in identifier {
        if arc >> 56 != 0 {
            return Err(wrong);
        }
        arc = arc << 7 | u64::from(byte & 0x7f);
        if *byte >= 0x80 {
            continue;
        }
        if first {
            let root = (arc / 40).min(2);
            write!(out, "{root}.{}", arc - root * 40).expect("a String takes every character");
        } else {
            write!(out, ".{arc}").expect("a String takes every character");
        }
        (first, arc) = (false, 0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::der::{tag, write};

    fn name(attributes: &[(&[u8], u8, &str)]) -> Vec<u8> {
        let mut sets = Vec::new();
        for (kind, tag, text) in attributes {
            let pair = [write(tag::OID, &[kind]), write(*tag, &[text.as_bytes()])];
            sets.extend(write(tag::SET, &[&write(tag::SEQUENCE, &[&pair[0], &pair[1]])]));
        }
        sets
    }

    #[test]
    fn names_are_written_backwards_and_escaped() {
        let unit = "a+b, \"c\" <d>; \\e";
        let written = name(&[
            (&[0x55, 4, 6], tag::PRINTABLE_STRING, "DE"),
            (ORGANIZATIONAL_UNIT, tag::UTF8_STRING, unit),
            (COMMON_NAME, tag::UTF8_STRING, "# näme "),
            (&[0x2a, 3, 0x84, 1], tag::UTF8_STRING, "x"),
        ]);
        assert_eq!(
            text(&written).unwrap(),
            r#"1.2.3.513=#0C0178,CN=\# näme\ ,OU=a\+b\, \"c\" \<d\>\; \\e,C=DE"#
        );
        assert_eq!(organizational_units(&written).unwrap(), [unit]);
        assert_eq!(common_name(&written).unwrap().as_deref(), Some("# näme "));
        assert_eq!(text(&[]).unwrap(), "");
    }

    #[test]
    fn a_name_never_brings_a_line_break() {
        let written = name(&[
            (COMMON_NAME, tag::UTF8_STRING, "a\r\nX-Admin: 1"),
            (ORGANIZATIONAL_UNIT, tag::UTF8_STRING, "b\0"),
        ]);
        assert_eq!(text(&written).unwrap(), r"OU=b\00,CN=a\0D\0AX-Admin: 1");
        assert_eq!(common_name(&written).unwrap(), None);
        assert!(organizational_units(&written).unwrap().is_empty());
    }

    #[test]
    fn identifiers_that_are_none_are_refused() {
        let endless = [0xff; 20];
        for kind in [&b""[..], b"\x2a\x83", &endless, &[&[0xff; 12][..], &[1]].concat()] {
            assert!(text(&name(&[(kind, tag::UTF8_STRING, "x")])).is_err(), "{kind:?}");
        }
    }
}
