//! The headers of HTTP/2 frames (RFC 9113 section 4.1) in a stream of bytes that is cut anywhere.
//! [`Frames`] yields them in order with the first bytes of what they hold, steps over the rest, and
//! keeps nothing but what is cut. For [`super::abuse`]: the `h2` crate reads the same bytes again.

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// RFC 9218 section 7.1.
pub const PRIORITY_UPDATE: u8 = 16;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITY_FLAG: u8 = 32;

const HEADER_BYTES: usize = 9;
/// Of what a frame holds: an increment, an error code, the length of padding.
const SHOWN_BYTES: usize = 4;
/// A setting and its value (RFC 9113 section 6.5.1).
const SETTING_BYTES: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    Frame(Frame),
    /// One of those in the SETTINGS frame before.
    Setting {
        id: u16,
        value: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    /// Bytes behind the header, padding included.
    pub length: u32,
    /// The first of those, zeros behind the last. Of SETTINGS, none.
    pub shown: [u8; SHOWN_BYTES],
}

impl Frame {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn word(&self) -> u32 {
        u32::from_be_bytes(self.shown)
    }

    /// Bytes of data or fields: without padding and priority. Zero where they do not fit.
    pub fn payload(&self) -> u32 {
        let mut around = 0;
        if [DATA, HEADERS].contains(&self.kind) && self.has(PADDED) {
            around += 1 + u32::from(self.shown[0]);
        }
        if self.kind == HEADERS && self.has(PRIORITY_FLAG) {
            around += 5;
        }
        self.length.saturating_sub(around)
    }

    /// Whether what it must hold can be in it (RFC 9113 section 4.2).
    pub fn has_the_length_of_its_kind(&self) -> bool {
        match self.kind {
            DATA | PUSH_PROMISE => self.length >= u32::from(self.has(PADDED)),
            HEADERS => {
                let priority = if self.has(PRIORITY_FLAG) { 5 } else { 0 };
                self.length >= u32::from(self.has(PADDED)) + priority
            }
            PRIORITY => self.length == 5,
            RST_STREAM | WINDOW_UPDATE => self.length == 4,
            SETTINGS if self.has(ACK) => self.length == 0,
            SETTINGS => (self.length as usize).is_multiple_of(SETTING_BYTES),
            PING => self.length == 8,
            GOAWAY => self.length >= 8,
            PRIORITY_UPDATE => self.length >= 4,
            _ => true,
        }
    }
}

#[derive(Debug)]
pub struct Frames {
    /// Bytes to step over.
    skip: u32,
    /// Bytes of settings that are still to come.
    settings: u32,
    /// The beginning of a frame's header and what it shows, or of a setting.
    begun: [u8; HEADER_BYTES + SHOWN_BYTES],
    count: usize,
}

impl Frames {
    /// Frames that come after so many other bytes.
    pub fn after(skip: u32) -> Self {
        Self { skip, settings: 0, begun: [0; HEADER_BYTES + SHOWN_BYTES], count: 0 }
    }

    /// Bytes of the last frame that are still to be stepped over.
    pub fn left(&self) -> u32 {
        self.skip
    }

    /// The next one in `bytes`, which loses what has been read of it.
    #[inline]
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<Piece> {
        if self.skip > 0 {
            let count = bytes.len().min(self.skip as usize);
            *bytes = &bytes[count..];
            self.skip -= count as u32;
        }
        if bytes.is_empty() {
            return None;
        }
        if self.settings > 0 {
            return self.setting(bytes);
        }
        if self.count == 0
            && let Some(begun) = bytes.first_chunk()
        {
            let (frame, shown) = parse(begun);
            *bytes = &bytes[HEADER_BYTES + shown..];
            return Some(self.found(frame, shown));
        }
        self.cut_frame(bytes)
    }

    fn cut_frame(&mut self, bytes: &mut &[u8]) -> Option<Piece> {
        self.fill(bytes, HEADER_BYTES)?;
        let (_, shown) = parse(&self.begun);
        self.fill(bytes, HEADER_BYTES + shown)?;
        self.begun[HEADER_BYTES + shown..].fill(0);
        self.count = 0;
        let (frame, shown) = parse(&self.begun);
        Some(self.found(frame, shown))
    }

    fn found(&mut self, frame: Frame, shown: usize) -> Piece {
        let is_settings = frame.kind == SETTINGS;
        let rest = frame.length - shown as u32;
        (self.settings, self.skip) = if is_settings { (rest, 0) } else { (0, rest) };
        Piece::Frame(frame)
    }

    fn setting(&mut self, bytes: &mut &[u8]) -> Option<Piece> {
        if (self.settings as usize) < SETTING_BYTES {
            // Such a frame has been refused for its length.
            self.skip = std::mem::take(&mut self.settings);
            return self.next(bytes);
        }
        self.fill(bytes, SETTING_BYTES)?;
        self.count = 0;
        self.settings -= SETTING_BYTES as u32;
        let [a, b, c, d, e, f, ..] = self.begun;
        Some(Piece::Setting {
            id: u16::from_be_bytes([a, b]),
            value: u32::from_be_bytes([c, d, e, f]),
        })
    }

    /// Takes as many bytes as there are until `count` have come.
    fn fill(&mut self, bytes: &mut &[u8], count: usize) -> Option<()> {
        let missing = count.saturating_sub(self.count).min(bytes.len());
        let (taken, rest) = bytes.split_at(missing);
        self.begun[self.count..self.count + missing].copy_from_slice(taken);
        self.count += missing;
        *bytes = rest;
        (self.count >= count).then_some(())
    }
}

/// A frame, and how many of its bytes behind the header it shows.
fn parse(begun: &[u8; HEADER_BYTES + SHOWN_BYTES]) -> (Frame, usize) {
    let [a, b, c, kind, flags, s, t, u, v, rest @ ..] = *begun;
    let length = u32::from_be_bytes([0, a, b, c]);
    let count = if kind == SETTINGS { 0 } else { SHOWN_BYTES.min(length as usize) };
    let mut shown = [0; SHOWN_BYTES];
    shown[..count].copy_from_slice(&rest[..count]);
    let stream = u32::from_be_bytes([s & 0x7f, t, u, v]);
    (Frame { kind, flags, stream, length, shown }, count)
}

/// For the fuzzer. However bytes are cut, the same pieces come, and they are what a plain reading
/// of the whole finds.
pub fn fuzz(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(4096)];
    let mut expected = Vec::new();
    let mut at = 0;
    while let Some(&[a, b, c, kind, flags, s, t, u, v]) = bytes[at..].first_chunk() {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = &bytes[at + HEADER_BYTES..];
        let count = if kind == SETTINGS { 0 } else { length.min(SHOWN_BYTES) };
        if payload.len() < count {
            break;
        }
        let mut shown = [0; SHOWN_BYTES];
        shown[..count].copy_from_slice(&payload[..count]);
        let stream = u32::from_be_bytes([s, t, u, v]) & (u32::MAX >> 1);
        let length_told = length as u32;
        expected.push(Piece::Frame(Frame { kind, flags, stream, length: length_told, shown }));
        let payload = &payload[..length.min(payload.len())];
        if kind == SETTINGS {
            let whole = payload.chunks_exact(SETTING_BYTES).map(|setting| Piece::Setting {
                id: u16::from_be_bytes([setting[0], setting[1]]),
                value: u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]),
            });
            expected.extend(whole);
        }
        at += HEADER_BYTES + length;
        if at > bytes.len() {
            break;
        }
    }
    for size in [1, 2, 3, 7, 13, 50, usize::MAX] {
        let mut frames = Frames::after(0);
        let mut found = Vec::new();
        for mut piece in bytes.chunks(size.min(bytes.len().max(1))) {
            found.extend(std::iter::from_fn(|| frames.next(&mut piece)));
            assert!(piece.is_empty(), "all bytes are taken");
        }
        assert_eq!(found, expected, "in pieces of {size}");
    }
}
