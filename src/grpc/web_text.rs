//! Base64 of gRPC-Web's text form, both ways, in any pieces. A sender may pad wherever it likes:
//! each padded run stands for itself (RFC 4648 section 4), and the next begins behind it.

/// Reads it where it stands: what comes out is never longer than what went in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decoder {
    /// Letters of the group of four that has begun.
    letters: u8,
    /// `=` of it.
    padding: u8,
    /// The bits of them that no byte was made of yet.
    bits: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBase64;

impl Decoder {
    /// Turns the piece into bytes, at its front, and tells how many.
    pub fn decode(&mut self, piece: &mut [u8]) -> Result<usize, NotBase64> {
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
    pub fn is_between(&self) -> bool {
        self.letters == 0
    }
}

/// Writes it. What makes no group of four yet waits for more, or for `finish`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoder {
    held: [u8; 2],
    count: usize,
}

impl Encoder {
    pub fn encode(&mut self, mut piece: &[u8], out: &mut Vec<u8>) {
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
    pub fn finish(&mut self, out: &mut Vec<u8>) {
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

pub fn fuzz(bytes: &[u8]) {
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
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        encoder.encode(bytes, &mut out);
        encoder.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn decoded(text: &str) -> Result<Vec<u8>, NotBase64> {
        let mut piece = text.as_bytes().to_vec();
        let mut decoder = Decoder::default();
        let length = decoder.decode(&mut piece)?;
        piece.truncate(length);
        if decoder.is_between() { Ok(piece) } else { Err(NotBase64) }
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
            assert_eq!(decoded(text), Ok(plain.as_bytes().to_vec()));
        }
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
            "=", "A===", "Zg=", "Zg=a", "Zg===", "Zh==", "Zm9=", "Zm9v\n", "Zm9-", "Z", "Zm", "Zm9",
        ] {
            assert_eq!(decoded(odd), Err(NotBase64), "{odd}");
        }
    }
}
