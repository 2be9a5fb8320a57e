//! TLS records once a handshake is over (RFC 8446 section 5, RFC 5246 section 6.2): sealed from
//! where the plaintext is to where it is sent from, opened to where it is wanted, without a copy or
//! an allocation. rustls makes the keys; it knows nothing of what happens to them here.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305};
use aws_lc_rs::aead::{LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;

use crate::tls::settings::Version;

/// Most plaintext of a record (RFC 8446 section 5.1).
pub(crate) const PLAIN_MAX: usize = 1 << 14;
pub(super) const HEADER: usize = 5;
const TAG: usize = 16;
/// The part of a GCM nonce that travels with each record of TLS 1.2 (RFC 5288 section 3).
const EXPLICIT: usize = 8;
/// What a record may be longer than its plaintext: RFC 8446 section 5.2, RFC 5246 section 6.2.3.
const EXPANSION_1_3: usize = 256;
const EXPANSION_1_2: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Alert,
    Handshake,
    Data,
}

impl Content {
    fn code(self) -> u8 {
        match self {
            Content::Alert => 21,
            Content::Handshake => 22,
            Content::Data => 23,
        }
    }

    fn of_code(code: u8) -> Option<Content> {
        [Content::Alert, Content::Handshake, Content::Data].into_iter().find(|c| c.code() == code)
    }
}

/// Why a record, or what it says, ends the connection. The code is what the peer is told (RFC 8446
/// section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alert {
    CloseNotify = 0,
    UnexpectedMessage = 10,
    BadRecordMac = 20,
    RecordOverflow = 22,
    HandshakeFailure = 40,
    DecodeError = 50,
    InternalError = 80,
}

/// No more may be sealed with this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

struct Cipher {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    version: Version,
    is_gcm: bool,
}

impl Cipher {
    fn new(version: Version, (sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Option<Self> {
        let (algorithm, key, iv, is_gcm) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv, true),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv, true),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (&CHACHA20_POLY1305, key, iv, false)
            }
            _ => return None, // of a suite that we never offer
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).ok()?);
        let iv = iv.as_ref().try_into().ok()?;
        Some(Cipher { key, iv, sequence, version, is_gcm })
    }

    fn explicit(&self) -> usize {
        if self.version == Version::V1_2 && self.is_gcm { EXPLICIT } else { 0 }
    }

    /// RFC 8446 section 5.3; for TLS 1.2 as well, where it only has to be unique.
    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        let sequence = self.sequence.to_be_bytes();
        nonce[4..].iter_mut().zip(sequence).for_each(|(byte, mask)| *byte ^= mask);
        nonce
    }

    /// What is authenticated beside the plaintext (RFC 8446 section 5.2, RFC 5246 section 6.2.3.3).
    fn additional(&self, content: u8, plain: usize, body: usize) -> ([u8; 13], usize) {
        let mut bytes = [0; 13];
        match self.version {
            Version::V1_3 => {
                bytes[..HEADER].copy_from_slice(&header(content, body));
                (bytes, HEADER)
            }
            Version::V1_2 => {
                bytes[..8].copy_from_slice(&self.sequence.to_be_bytes());
                bytes[8..].copy_from_slice(&header(content, plain));
                (bytes, 13)
            }
        }
    }
}

fn header(content: u8, length: usize) -> [u8; HEADER] {
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    [content, 3, 3, high, low]
}

pub(crate) struct Sealer {
    cipher: Cipher,
    /// Records that may be sealed with one key (RFC 8446 section 5.5).
    most: u64,
}

impl Sealer {
    pub(crate) fn new(version: Version, secrets: (u64, ConnectionTrafficSecrets)) -> Option<Self> {
        let cipher = Cipher::new(version, secrets)?;
        let most = if cipher.is_gcm { 1 << 23 } else { u64::MAX - 1 };
        Some(Sealer { cipher, most })
    }

    /// Time to change the key.
    pub(crate) fn is_worn(&self) -> bool {
        self.cipher.sequence >= self.most
    }

    /// As much again is left.
    pub(crate) fn is_half_worn(&self) -> bool {
        self.cipher.sequence >= self.most / 2
    }

    #[cfg(test)]
    pub(super) fn wear_out(&mut self, but: u64) {
        self.most = self.cipher.sequence + but;
    }

    /// What a record is longer than its plaintext.
    pub(crate) fn overhead(&self) -> usize {
        let kind = usize::from(self.cipher.version == Version::V1_3);
        HEADER + self.cipher.explicit() + kind + TAG
    }

    /// One record at the front of `out`: of `first`, and what of `second` there is, at most
    /// `PLAIN_MAX` bytes together. Its length.
    pub(crate) fn seal(
        &mut self,
        content: Content,
        first: &[u8],
        second: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Exhausted> {
        let cipher = &self.cipher;
        // A key that is worn out still says goodbye.
        let spare = if content == Content::Data { 0 } else { 16 };
        if cipher.sequence >= self.most.saturating_add(spare) {
            return Err(Exhausted);
        }
        let plain = first.len() + second.len();
        let total = self.overhead() + plain;
        let (inner, outer) = match cipher.version {
            Version::V1_3 => (&[content.code()][..], Content::Data.code()),
            Version::V1_2 => (&[][..], content.code()),
        };
        let (aad, length) = cipher.additional(outer, plain, total - HEADER);
        let nonce = cipher.nonce();
        let out = out.get_mut(..total).ok_or(Exhausted)?;
        out[..HEADER].copy_from_slice(&header(outer, total - HEADER));
        let body = &mut out[HEADER..];
        let (explicit, body) = body.split_at_mut(cipher.explicit());
        explicit.copy_from_slice(&nonce[12 - explicit.len()..]);
        let (text, rest) = body.split_at_mut(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(&aad[..length]);
        let sealed = if second.is_empty() {
            cipher.key.seal_out_of_place_scatter(nonce, aad, first, text, inner, rest)
        } else {
            text[..first.len()].copy_from_slice(first);
            text[first.len()..].copy_from_slice(second);
            cipher.key.seal_in_place_scatter(nonce, aad, text, inner, rest)
        };
        sealed.map_err(|_| Exhausted)?;
        self.cipher.sequence += 1;
        Ok(total)
    }
}

pub(crate) struct Opener(Cipher);

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) content: Content,
    /// Bytes of plaintext.
    pub(crate) plain: usize,
    /// They are in the room that was offered, not where the record was.
    pub(crate) is_in_room: bool,
}

/// The record at the front of `bytes`: how long it is, header and all. `None`: it cannot be told
/// yet.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER>()?;
    Some(HEADER + usize::from(u16::from_be_bytes([header[3], header[4]])))
}

/// Whether bytes that follow a handshake can begin a record. What a header promises is waited for:
/// so it has to be one.
pub(crate) fn may_begin(bytes: &[u8]) -> bool {
    let kind = bytes.first().is_none_or(|kind| Content::of_code(*kind).is_some());
    kind && bytes.get(1).is_none_or(|major| *major == 3)
}

impl Opener {
    pub(crate) fn new(version: Version, secrets: (u64, ConnectionTrafficSecrets)) -> Option<Self> {
        Cipher::new(version, secrets).map(Opener)
    }

    /// Whether one so long is refused, before it is here.
    pub(crate) fn is_too_long(&self, record: usize) -> bool {
        let expansion = match self.0.version {
            Version::V1_3 => EXPANSION_1_3,
            Version::V1_2 => EXPANSION_1_2,
        };
        record > HEADER + PLAIN_MAX + expansion
    }

    /// Opens a whole record: into `room` where that is large enough, else in place, where its
    /// plaintext then is at [`Opener::offset`].
    pub(crate) fn open(&mut self, record: &mut [u8], room: &mut [u8]) -> Result<Opened, Alert> {
        let cipher = &self.0;
        let [outer, 3, _, _, _, ..] = *record else { return Err(Alert::DecodeError) };
        let explicit = cipher.explicit();
        let body = record.len() - HEADER;
        let text = body.checked_sub(explicit + TAG).ok_or(Alert::BadRecordMac)?;
        if cipher.version == Version::V1_3 && outer != Content::Data.code() {
            return Err(Alert::UnexpectedMessage);
        }
        let nonce = match explicit {
            0 => cipher.nonce(),
            _ => {
                let mut nonce = cipher.iv;
                nonce[4..].copy_from_slice(&record[HEADER..HEADER + EXPLICIT]);
                nonce
            }
        };
        let (aad, length) = cipher.additional(outer, text, body);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(&aad[..length]);
        let (ciphertext, tag) = record[HEADER + explicit..].split_at_mut(text);
        let is_in_room = room.len() >= text;
        let opened = if is_in_room {
            cipher.key.open_separate_gather(nonce, aad, ciphertext, tag, &mut room[..text])
        } else {
            cipher.key.open_in_place_separate_tag(nonce, aad, tag, ciphertext).map(|_| ())
        };
        opened.map_err(|_| Alert::BadRecordMac)?;
        self.0.sequence += 1;
        let plain = if is_in_room { &room[..text] } else { &*ciphertext };
        let (content, plain) = match self.0.version {
            Version::V1_2 => (outer, text),
            // The last byte that is not padding says what it is (RFC 8446 section 5.4).
            Version::V1_3 => {
                let last = plain.iter().rposition(|byte| *byte != 0);
                let last = last.ok_or(Alert::UnexpectedMessage)?;
                (plain[last], last)
            }
        };
        if plain > PLAIN_MAX {
            return Err(Alert::RecordOverflow);
        }
        let content = Content::of_code(content).ok_or(Alert::UnexpectedMessage)?;
        Ok(Opened { content, plain, is_in_room })
    }

    /// Where the plaintext of a record is that was opened in place.
    pub(crate) fn offset(&self) -> usize {
        HEADER + self.0.explicit()
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::cipher::{AeadKey, Iv};

    use super::*;

    fn secrets(suite: usize) -> (u64, ConnectionTrafficSecrets) {
        let key = AeadKey::from([7; 32]);
        let iv = Iv::new([9; 12]);
        let secrets = match suite {
            0 => ConnectionTrafficSecrets::Aes256Gcm { key, iv },
            _ => ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
        };
        (3, secrets)
    }

    fn pairs() -> impl Iterator<Item = (Sealer, Opener)> {
        let all = [Version::V1_2, Version::V1_3].into_iter().flat_map(|v| [(v, 0), (v, 1)]);
        all.map(|(version, suite)| {
            let sealer = Sealer::new(version, secrets(suite)).unwrap();
            (sealer, Opener::new(version, secrets(suite)).unwrap())
        })
    }

    #[test]
    fn what_is_sealed_in_one_or_two_parts_is_opened_in_place_and_elsewhere() {
        for (mut sealer, mut opener) in pairs() {
            for (first, second) in [(&b""[..], &b""[..]), (b"one", b""), (b"one", b" and two")] {
                for room in [0, 100] {
                    let (mut out, mut room) = ([0; 200], vec![0; room]);
                    let total = sealer.seal(Content::Data, first, second, &mut out).unwrap();
                    assert_eq!(length(&out), Some(total));
                    let opened = opener.open(&mut out[..total], &mut room).unwrap();
                    let start = opener.offset();
                    let plain = if opened.is_in_room { &room[..] } else { &out[start..] };
                    assert_eq!(plain[..opened.plain], [first, second].concat());
                    assert_eq!(opened.content, Content::Data);
                }
            }
        }
    }

    #[test]
    fn a_changed_bit_anywhere_is_refused_and_nothing_is_believed_of_it() {
        for (mut sealer, _) in pairs() {
            let mut out = [0; 100];
            let total = sealer.seal(Content::Handshake, b"secret", b"", &mut out).unwrap();
            for bit in 0..total * 8 {
                let mut opener = pairs()
                    .map(|(_, opener)| opener)
                    .find(|o| {
                        o.0.version == sealer.cipher.version && o.0.is_gcm == sealer.cipher.is_gcm
                    })
                    .unwrap();
                let mut changed = out;
                changed[bit / 8] ^= 1 << (bit % 8);
                // Version and length in the header are not believed: our own are authenticated.
                let header = (8..40).contains(&bit);
                let result = opener.open(&mut changed[..total], &mut []);
                assert!(result.is_err() || header, "{bit}: {result:?}");
            }
        }
    }

    #[test]
    fn a_record_twice_or_out_of_order_is_refused() {
        for (mut sealer, mut opener) in pairs() {
            let (mut one, mut two) = ([0; 60], [0; 60]);
            let total = sealer.seal(Content::Data, b"1", b"", &mut one).unwrap();
            sealer.seal(Content::Data, b"2", b"", &mut two).unwrap();
            let refused = opener.open(&mut { two }[..total], &mut []);
            assert_eq!(refused, Err(Alert::BadRecordMac));
            assert!(opener.open(&mut { one }[..total], &mut []).is_ok());
            assert_eq!(opener.open(&mut one[..total], &mut []), Err(Alert::BadRecordMac));
            assert!(opener.open(&mut two[..total], &mut []).is_ok());
        }
    }

    #[test]
    fn records_that_say_nothing_or_too_little_are_refused() {
        for (mut sealer, mut opener) in pairs() {
            for mut bytes in [&b""[..], b"\x17\x03", b"\x17\x03\x03\x00\x00", b"GET / HTTP/1.1\r\n"]
                .map(<[u8]>::to_vec)
            {
                assert!(opener.open(&mut bytes, &mut []).is_err(), "{bytes:?}");
            }
            if sealer.cipher.version == Version::V1_3 {
                // All padding: RFC 8446 section 5.4.
                let mut out = [0; 60];
                let (aad, length) = sealer.cipher.additional(23, 0, 20);
                let nonce = Nonce::assume_unique_for_key(sealer.cipher.nonce());
                let (text, tag) = out[HEADER..25].split_at_mut(4);
                let aad = Aad::from(&aad[..length]);
                sealer.cipher.key.seal_in_place_scatter(nonce, aad, text, &[], tag).unwrap();
                out[..HEADER].copy_from_slice(&header(23, 20));
                assert_eq!(opener.open(&mut out[..25], &mut []), Err(Alert::UnexpectedMessage));
            }
            assert!(opener.is_too_long(HEADER + PLAIN_MAX + EXPANSION_1_2 + 1));
            sealer.most = 0;
            assert_eq!(sealer.seal(Content::Data, b"x", b"", &mut [0; 60]), Err(Exhausted));
            assert!(sealer.seal(Content::Alert, b"xx", b"", &mut [0; 60]).is_ok());
        }
    }
}
