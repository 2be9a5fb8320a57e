//! Bytes as hexadecimal digits, two for each.

pub(crate) fn lower(byte: u8) -> [u8; 2] {
    [LOWER[usize::from(byte >> 4)], LOWER[usize::from(byte & 15)]]
}

/// As escapes in URIs have it (RFC 3986 section 2.1).
pub(crate) fn upper(byte: u8) -> [u8; 2] {
    lower(byte).map(|digit| digit.to_ascii_uppercase())
}

const LOWER: &[u8; 16] = b"0123456789abcdef";

/// Appends them in lower case.
pub(crate) fn write(bytes: &[u8], out: &mut Vec<u8>) {
    bytes.iter().for_each(|&byte| out.extend_from_slice(&lower(byte)));
}

pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|&byte| lower(byte)).map(char::from).collect()
}

/// Of either case, and exactly as many as there must be.
pub(crate) fn read<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut bytes = [0; N];
    if pairs.len() != N {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(pairs) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(value(digits[0])? << 4 | value(digits[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_in_two_digits_each() {
        assert_eq!(text(&[0, 9, 10, 0x7f, 0xff]), "00090a7fff");
        let mut out = b"x".to_vec();
        write(&[0xab], &mut out);
        assert_eq!(out, b"xab");
        assert_eq!((upper(0xab), upper(0x05)), (*b"AB", *b"05"));
    }

    #[test]
    fn digits_of_either_case_are_read_and_nothing_else() {
        assert_eq!(read("00aBfF"), Some([0, 0xab, 0xff]));
        assert_eq!(read::<0>(""), Some([]));
        for odd in ["00aBf", "00aB", "00aBfF00", "00aBfg", "+0aBfF", "00 BfF", "0\u{e4}BfF"] {
            assert_eq!(read::<3>(odd), None, "{odd}");
        }
    }
}
