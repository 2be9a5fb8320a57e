//! Base64 (RFC 4648 section 4), as a whole or in any pieces.

/// Appends it, padded.
pub(crate) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let mut encoder = Encoder::default();
    encoder.encode(bytes, out);
    encoder.finish(out);
}

/// Of one text, padded at its end.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|&&letter| letter == b'=').count();
    if text[..text.len() - padding].contains(&b'=') {
        return None;
    }
    let mut bytes = text.to_vec();
    let mut decoder = Decoder::default();
    let length = decoder.decode(&mut bytes).ok()?;
    bytes.truncate(length);
    decoder.is_between().then_some(bytes)
}

/// Reads it where it stands: what comes out is never longer than what went in. A sender may pad
/// wherever it likes, as those of gRPC-Web do: the next text begins behind that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decoder {
    /// Letters of the group of four that has begun.
    letters: u8,
    /// `=` of it.
    padding: u8,
    /// The bits of them that no byte was made of yet.
    bits: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotBase64;

impl Decoder {
    /// Turns the piece into bytes, at its front, and tells how many.
    pub(crate) fn decode(&mut self, piece: &mut [u8]) -> Result<usize, NotBase64> {
        let mut written = 0;
        for read in 0..piece.len() {
            if let Some(byte) = self.letter(piece[read])? {
                piece[written] = byte;
                written += 1;
            }
        }
        Ok(written)
    }

    fn letter(&mut self, letter: u8) -> Result<Option<u8>, NotBase64> {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' if self.letters >= 2 && self.bits == 0 => {
                self.padding += 1;
                if self.letters + self.padding == 4 {
                    *self = Decoder::default();
                }
                return Ok(None);
            }
            _ => return Err(NotBase64),
        };
        if self.padding > 0 {
            return Err(NotBase64);
        }
        let bits = self.bits << 6 | u32::from(value);
        let (byte, rest) = match self.letters {
            0 => (None, bits),
            1 => (Some(bits >> 4), bits & 0xf),
            2 => (Some(bits >> 2), bits & 0x3),
            _ => (Some(bits), 0),
        };
        self.bits = rest;
        self.letters = (self.letters + 1) % 4;
        Ok(byte.map(|byte| byte as u8))
    }

    /// No group is on its way.
    pub(crate) fn is_between(&self) -> bool {
        self.letters == 0
    }
}

/// Writes it. What makes no group of four yet waits for more, or for `finish`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Encoder {
    held: [u8; 2],
    count: usize,
}

impl Encoder {
    pub(crate) fn encode(&mut self, mut piece: &[u8], out: &mut Vec<u8>) {
        out.reserve(piece.len().div_ceil(3) * 4 + 4);
        while self.count > 0 && !piece.is_empty() {
            let (byte, rest) = (piece[0], &piece[1..]);
            piece = rest;
            if self.count == 2 {
                group([self.held[0], self.held[1], byte], out);
                self.count = 0;
            } else {
                self.held[1] = byte;
                self.count = 2;
            }
        }
        let (groups, rest) = piece.as_chunks::<3>();
        groups.iter().for_each(|bytes| group(*bytes, out));
        for byte in rest {
            self.held[self.count] = *byte;
            self.count += 1;
        }
    }

    /// Writes what was held, padded.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let (bytes, padding) = match (std::mem::take(&mut self.count), self.held) {
            (0, _) => return,
            (1, [first, _]) => ([first, 0, 0], "=="),
            (_, [first, second]) => ([first, second, 0], "="),
        };
        group(bytes, out);
        out.truncate(out.len() - padding.len());
        out.extend_from_slice(padding.as_bytes());
    }
}

fn group([first, second, third]: [u8; 3], out: &mut Vec<u8>) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = u32::from_be_bytes([0, first, second, third]);
    let letter = |shift: u32| LETTERS[(bits >> shift & 63) as usize];
    out.extend_from_slice(&[letter(18), letter(12), letter(6), letter(0)]);
}

pub(crate) fn fuzz(bytes: &[u8]) {
    let mut encoded = Vec::new();
    let mut encoder = Encoder::default();
    let (first, second) = bytes.split_at(bytes.len() / 3);
    encoder.encode(first, &mut encoded);
    encoder.encode(second, &mut encoded);
    encoder.finish(&mut encoded);
    let mut decoder = Decoder::default();
    let length = decoder.decode(&mut encoded).expect("what was written is read");
    assert!(decoder.is_between() && encoded[..length] == *bytes, "it is what it was");
    let mut hostile = bytes.to_vec();
    if let Ok(length) = Decoder::default().decode(&mut hostile) {
        assert!(length <= bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        encode(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_examples_of_the_rfc_are_written_and_read() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, text) in cases {
            assert_eq!(encoded(plain.as_bytes()), text);
            assert_eq!(decode(text.as_bytes()), Some(plain.as_bytes().to_vec()));
        }
        assert_eq!(decode(b"+/+/"), Some(vec![0xfb, 0xff, 0xbf]));
        assert_eq!(encoded(&[0]), "AA==");
        assert_eq!(encoded(&[0, 0]), "AAA=");
    }

    #[test]
    fn every_split_reads_the_same() {
        let all: Vec<u8> = (0..=255).collect();
        let text = encoded(&all) + &encoded(&all[..100]) + &encoded(b"x");
        let expected = [&all[..], &all[..100], b"x"].concat();
        for split in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            let (first, second) = bytes.split_at_mut(split);
            let mut decoder = Decoder::default();
            let (one, two) = (decoder.decode(first).unwrap(), decoder.decode(second).unwrap());
            assert_eq!([&first[..one], &second[..two]].concat(), expected, "{split}");
            fuzz(&all[..split % 256]);
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for odd in [
            "=", "====", "A===", "Zg=", "Zg=a", "Zg===", "Zh==", "Zm9=", "Zm9v\n", "Zm9-", "Zm 9",
            "Z", "Zm", "Zm9", "Zg==Zg==", "Zm9v====",
        ] {
            assert_eq!(decode(odd.as_bytes()), None, "{odd}");
        }
    }
}
