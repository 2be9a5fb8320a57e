//! Frames of a WebSocket (RFC 6455 section 5), followed while they pass: where one ends, so that a
//! frame of ours never comes inside of another, and which one says goodbye. Knows no socket, keeps
//! no payload and changes nothing.

use aws_lc_rs::digest;

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Of a header that is not whole: its bytes, and how many they are.
    header: [u8; HEADER_MAX],
    held: usize,
    /// Payload that is still to come.
    left: u64,
    /// Of a Close frame that passes: how much of its status has come.
    closing: Option<Closing>,
    closed: Option<Close>,
    /// This is no WebSocket: nothing is known of it any more.
    is_lost: bool,
}

/// That no more frames come this way, and the status that it was said with (RFC 6455 section 7.4);
/// `None`: without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Close(pub(crate) Option<u16>);

#[derive(Debug)]
struct Closing {
    mask: [u8; 4],
    status: [u8; 2],
    seen: usize,
    has_status: bool,
}

/// Two bytes, a length of eight and a mask.
const HEADER_MAX: usize = 14;
/// Of control frames (RFC 6455 section 5.5).
const CONTROL_PAYLOAD_MAX: u64 = 125;
const CLOSE: u8 = 8;
const PING: u8 = 9;

impl Frames {
    /// Of a protocol that is not known.
    pub(crate) fn unknown() -> Frames {
        Frames { is_lost: true, ..Frames::default() }
    }

    /// The next bytes that pass. Returns how many of them there are up to the end of the last frame
    /// that ends in them; `None`: none does.
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> Option<usize> {
        let (mut at, mut last) = (0, None);
        while at < bytes.len() && !self.is_lost {
            if self.left == 0 {
                self.header[self.held] = bytes[at];
                (self.held, at) = (self.held + 1, at + 1);
                if self.held == self.header_bytes() {
                    self.begin();
                    last = if self.is_between() { Some(at) } else { last };
                }
                continue;
            }
            let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
            self.note_status(&bytes[at..at + count]);
            self.pass(count as u64);
            at += count;
            last = if self.is_between() { Some(at) } else { last };
        }
        last
    }

    /// So many bytes of a payload have passed unseen.
    pub(crate) fn pass(&mut self, count: u64) {
        if self.is_lost {
            return;
        }
        self.left -= count;
        if self.left == 0
            && let Some(closing) = self.closing.take()
        {
            let status = closing.has_status.then_some(u16::from_be_bytes(closing.status));
            self.closed = Some(Close(status));
        }
    }

    /// Bytes that may pass unseen: the rest of a payload that says nothing to us.
    pub(crate) fn unseen(&self) -> u64 {
        match &self.closing {
            _ if self.is_lost => u64::MAX,
            Some(_) => 0,
            None => self.left,
        }
    }

    /// A frame of ours may come here.
    pub(crate) fn is_between(&self) -> bool {
        self.held == 0 && self.left == 0 && !self.is_lost
    }

    pub(crate) fn closed(&self) -> Option<Close> {
        self.closed
    }

    /// Of the header that is being read, as far as is known by now.
    fn header_bytes(&self) -> usize {
        if self.held < 2 {
            return 2;
        }
        let length = match self.header[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if self.is_masked() { 4 } else { 0 }
    }

    fn is_masked(&self) -> bool {
        self.header[1] & 0x80 != 0
    }

    /// The header is whole.
    fn begin(&mut self) {
        let header = self.header;
        let (length, mask_at) = match header[1] & 0x7F {
            126 => (u64::from(u16::from_be_bytes([header[2], header[3]])), 4),
            127 => {
                let eight = header[2..10].try_into().expect("eight bytes are eight bytes");
                (u64::from_be_bytes(eight), 10)
            }
            short => (u64::from(short), 2),
        };
        let opcode = header[0] & 0x0F;
        let is_control = opcode >= CLOSE;
        // Lengths have 63 bits. Whoever breaks a rule is told so by the peer; we lose our way.
        self.is_lost = length > u64::MAX >> 1 || (is_control && length > CONTROL_PAYLOAD_MAX);
        let mut mask = [0; 4];
        if self.is_masked() {
            mask.copy_from_slice(&header[mask_at..mask_at + 4]);
        }
        (self.held, self.left) = (0, length);
        if opcode == CLOSE {
            let has_status = length >= 2;
            self.closing = Some(Closing { mask, status: [0; 2], seen: 0, has_status });
            self.pass(0);
        }
    }

    fn note_status(&mut self, payload: &[u8]) {
        let Some(closing) = &mut self.closing else { return };
        for byte in payload {
            if let Some(place) = closing.status.get_mut(closing.seen) {
                *place = byte ^ closing.mask[closing.seen];
                closing.seen += 1;
            }
        }
    }
}

/// A frame of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Ping,
    /// The proxy goes away (RFC 6455 section 7.4.1).
    GoingAway,
}

/// The status of a Close frame that says so.
pub(crate) const GOING_AWAY: u16 = 1001;
/// What our pings hold. A pong repeats it, and passes: an endpoint that has not asked for one
/// ignores it (RFC 6455 section 5.5.3), and takes it for no answer to a ping of its own.
const PING_PAYLOAD: &[u8] = b"corelane";

impl Word {
    /// `mask`: towards a server, which takes no other frames (RFC 6455 section 5.1).
    pub(crate) fn frame(self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let status = GOING_AWAY.to_be_bytes();
        let (opcode, payload) = match self {
            Word::Ping => (PING, PING_PAYLOAD),
            Word::GoingAway => (CLOSE, &status[..]),
        };
        let mut frame = vec![0x80 | opcode, payload.len() as u8];
        match mask {
            None => frame.extend_from_slice(payload),
            Some(mask) => {
                frame[1] |= 0x80;
                frame.extend_from_slice(&mask);
                frame.extend(
                    payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask),
                );
            }
        }
        frame
    }
}

/// What a server answers to this `Sec-WebSocket-Key` (RFC 6455 section 4.2.2): the SHA-1 of both,
/// in base64. It proves that the server speaks WebSocket, no more.
pub(crate) fn accept(key: &[u8]) -> [u8; 28] {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    base64(digest.as_ref())
}

/// A `Sec-WebSocket-Key`, for a client whose own protocol has none (RFC 8441 section 5).
pub(crate) fn key(nonce: u128) -> [u8; 24] {
    base64(&nonce.to_ne_bytes())
}

/// With its padding, which is all of `N` that the bytes do not fill.
fn base64<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [b'='; N];
    for (group, four) in bytes.chunks(3).zip(out.chunks_mut(4)) {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for (at, digit) in four.iter_mut().enumerate().take(group.len() + 1) {
            *digit = BASE64[(bits >> (18 - 6 * at) & 63) as usize];
        }
    }
    out
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What must hold for any bytes, in whatever pieces they come: the same is known at the end, and
/// where a frame ends one could be put in.
pub fn fuzz(bytes: &[u8]) {
    let mut whole = Frames::default();
    let last = whole.follow(bytes);
    assert!(last.is_none_or(|last| last <= bytes.len()));
    for step in [1, 2, 3, 7] {
        let mut pieces = Frames::default();
        let (mut at, mut ended) = (0, None);
        for piece in bytes.chunks(step) {
            ended = pieces.follow(piece).map(|end| at + end).or(ended);
            at += piece.len();
        }
        assert_eq!((ended, pieces.closed), (last, whole.closed));
        assert_eq!((pieces.is_between(), pieces.unseen()), (whole.is_between(), whole.unseen()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as clients send it, or as servers do.
    fn frame(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
        let bit = if mask.is_some() { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            short @ 0..126 => frame.push(bit | short as u8),
            middle @ 126..65_536 => {
                frame.push(bit | 126);
                frame.extend_from_slice(&(middle as u16).to_be_bytes());
            }
            long => {
                frame.push(bit | 127);
                frame.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        let mask = mask.inspect(|mask| frame.extend_from_slice(mask)).unwrap_or_default();
        frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        frame
    }

    const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

    #[test]
    fn frames_of_all_lengths_end_where_they_end_in_whatever_pieces_they_come() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            for mask in [None, MASK] {
                let payload = vec![0x88; length]; // looks like headers
                let one = frame(2, &payload, mask);
                let both = [one.clone(), one.clone()].concat();
                for step in [1, 13, 4096, both.len()] {
                    let mut frames = Frames::default();
                    let mut ends = Vec::new();
                    for at in (0..both.len()).step_by(step) {
                        let piece = &both[at..(at + step).min(both.len())];
                        ends.extend(frames.follow(piece).map(|end| at + end));
                        let inside = frames.is_between();
                        assert_eq!(inside, (at + piece.len()).is_multiple_of(one.len()));
                    }
                    assert_eq!(ends.last(), Some(&both.len()));
                    assert_eq!(frames.closed(), None);
                }
            }
        }
    }

    #[test]
    fn in_a_piece_that_ends_within_a_frame_the_end_of_the_last_whole_one_is_known() {
        let mut frames = Frames::default();
        let bytes = [frame(1, b"hello", None), frame(1, b"again", None)].concat();
        assert_eq!(frames.follow(&bytes[..10]), Some(7));
        assert!(!frames.is_between());
        assert_eq!(frames.unseen(), 4);
        frames.pass(4);
        assert!(frames.is_between());
    }

    #[test]
    fn a_close_frame_is_known_with_its_status_when_it_has_passed() {
        let status = 1000_u16.to_be_bytes();
        let cases: [(&[u8], Option<u16>); 4] =
            [(b"", None), (&status, Some(1000)), (b"\x03\xe9gone", Some(1001)), (b"\x03", None)];
        for (payload, expected) in cases {
            for mask in [None, MASK] {
                let bytes = frame(8, payload, mask);
                let mut frames = Frames::default();
                for byte in &bytes {
                    assert_eq!((frames.closed(), frames.unseen()), (None, 0));
                    frames.follow(&[*byte]);
                }
                assert_eq!(frames.closed(), Some(Close(expected)), "{payload:?}");
            }
        }
    }

    #[test]
    fn who_breaks_the_rules_of_frames_gets_none_of_ours() {
        let long_ping = frame(9, &[0; 126], MASK);
        let endless = [0x82, 0x7F, 0x80, 0, 0, 0, 0, 0, 0, 0];
        for bytes in [&long_ping[..], &endless] {
            let mut frames = Frames::default();
            frames.follow(bytes);
            frames.follow(&[0; 500]);
            frames.pass(1 << 40);
            assert!(!frames.is_between());
            assert_eq!((frames.unseen(), frames.closed()), (u64::MAX, None));
        }
    }

    #[test]
    fn words_of_ours_are_frames() {
        for mask in [None, MASK] {
            let close = Word::GoingAway.frame(mask);
            assert_eq!(close, frame(8, &1001_u16.to_be_bytes(), mask));
            assert_eq!(Word::Ping.frame(mask), frame(9, b"corelane", mask));
            let mut frames = Frames::default();
            assert_eq!(frames.follow(&close), Some(close.len()));
            assert_eq!(frames.closed(), Some(Close(Some(1001))));
        }
    }

    #[test]
    fn the_answer_to_a_key_is_that_of_the_rfc() {
        // RFC 6455 section 1.3
        let nonce = u128::from_ne_bytes(*b"the sample nonce");
        assert_eq!(&key(nonce), b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(&accept(&key(nonce)), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn any_bytes_are_followed_alike_in_any_pieces() {
        let mut state = 7_u64;
        for length in 0..400 {
            let mut bytes = Vec::new();
            while bytes.len() < length {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                bytes.push([0x81, 0x88, (state >> 40) as u8, 2][(state >> 60) as usize % 4]);
            }
            fuzz(&bytes);
        }
    }
}
