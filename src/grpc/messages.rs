//! Messages counted while they pass: five bytes say how long each is and whether it is compressed,
//! and may come in any pieces. Nothing is held.

/// Of one direction of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// Whole ones.
    pub count: u64,
    /// How many of them are compressed.
    pub compressed: u64,
    /// The one that is on its way is.
    is_compressed: bool,
    /// Bytes of a message's prefix that have come.
    prefix_bytes: u8,
    /// What they said of its length so far; of a whole prefix, how much of the message is to come.
    left: u32,
}

/// A message is longer than it may be: known before any of it has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Bytes of the piece that stand before it.
    pub before: usize,
}

impl Messages {
    /// Looks at a piece of the body. `bytes_max` is that of one message; 0: any.
    pub fn pass(&mut self, mut piece: &[u8], bytes_max: u32) -> Result<(), TooLong> {
        let length = piece.len();
        while !piece.is_empty() {
            if self.prefix_bytes < PREFIX_BYTES {
                self.prefix(piece[0]);
                piece = &piece[1..];
                let is_whole = self.prefix_bytes == PREFIX_BYTES;
                if is_whole && bytes_max != 0 && self.left > bytes_max {
                    let passed = length - piece.len();
                    return Err(TooLong { before: passed.saturating_sub(PREFIX_BYTES.into()) });
                }
            } else {
                let taken = piece.len().min(self.left as usize);
                self.left -= taken as u32;
                piece = &piece[taken..];
            }
            if self.prefix_bytes == PREFIX_BYTES && self.left == 0 {
                self.count += 1;
                self.compressed += u64::from(self.is_compressed);
                self.prefix_bytes = 0;
            }
        }
        Ok(())
    }

    fn prefix(&mut self, byte: u8) {
        match self.prefix_bytes {
            0 => {
                self.is_compressed = byte & 1 != 0;
                self.left = 0;
            }
            _ => self.left = self.left << 8 | u32::from(byte),
        }
        self.prefix_bytes += 1;
    }

    /// How many of the bytes that passed last begin a prefix that is not whole yet.
    pub fn begun(&self) -> usize {
        if self.prefix_bytes < PREFIX_BYTES { self.prefix_bytes.into() } else { 0 }
    }

    /// A prefix that has passed is to pass again, or never was.
    pub fn forget_prefix(&mut self) {
        self.prefix_bytes = 0;
    }

    /// No message is on its way: another may begin here, or the call may end.
    pub fn is_between(&self) -> bool {
        self.prefix_bytes == 0
    }
}

/// One that is whole, in front of what follows it: its flags, its bytes and the rest. `None`: more
/// is to come.
pub fn first(body: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (prefix, rest) = body.split_first_chunk::<{ PREFIX_BYTES as usize }>()?;
    let [flags, length @ ..] = *prefix;
    let (message, rest) = rest.split_at_checked(u32::from_be_bytes(length) as usize)?;
    Some((flags, message, rest))
}

/// Appends the prefix of a message of this length.
pub fn prefix(flags: u8, length: usize, out: &mut Vec<u8>) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out.push(flags);
    out.extend_from_slice(&length.to_be_bytes());
}

pub const PREFIX_BYTES: u8 = 5;

pub fn fuzz(bytes: &[u8]) {
    let (mut whole, mut single) = (Messages::default(), Messages::default());
    let _ = whole.pass(bytes, 0);
    for byte in bytes {
        let _ = single.pass(std::slice::from_ref(byte), 0);
    }
    assert_eq!(whole, single, "pieces make no difference");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(flags: u8, length: usize) -> Vec<u8> {
        let mut out = Vec::new();
        prefix(flags, length, &mut out);
        out.resize(out.len() + length, 7);
        out
    }

    #[test]
    fn every_split_counts_the_same() {
        let body = [message(0, 0), message(1, 3), message(0, 300), message(1, 0)].concat();
        for first in 0..body.len() {
            for second in (first..body.len()).step_by(7) {
                let mut messages = Messages::default();
                for piece in [&body[..first], &body[first..second], &body[second..]] {
                    messages.pass(piece, 0).unwrap();
                }
                assert_eq!((messages.count, messages.compressed), (4, 2), "{first} {second}");
                assert!(messages.is_between());
            }
        }
        fuzz(&body);
    }

    #[test]
    fn one_that_is_on_its_way_does_not_count_yet() {
        let mut messages = Messages::default();
        messages.pass(&message(0, 9)[..13], 0).unwrap();
        assert_eq!(messages.count, 0);
        assert!(!messages.is_between());
        messages.pass(b"x", 0).unwrap();
        assert_eq!(messages.count, 1);
        assert!(messages.is_between());
    }

    #[test]
    fn a_length_over_the_maximum_is_known_from_the_prefix() {
        let mut messages = Messages::default();
        assert_eq!(messages.pass(&message(0, 10), 10), Ok(()));
        assert_eq!(messages.pass(&[0, 0, 0, 0], 10), Ok(()));
        assert_eq!(messages.pass(&[11], 10), Err(TooLong { before: 0 }));
        let body = [message(0, 10), message(1, 11)].concat();
        let mut messages = Messages::default();
        assert_eq!(messages.pass(&body, 10), Err(TooLong { before: 15 }));
        messages.forget_prefix();
        assert!(messages.is_between());
        assert_eq!((messages.count, messages.compressed), (1, 0));
        assert_eq!(Messages::default().pass(&[0, 255, 255, 255, 255], 0), Ok(()));
    }

    #[test]
    fn a_prefix_that_is_not_whole_can_pass_again() {
        let body = [message(0, 1), message(1, 1)].concat();
        let mut messages = Messages::default();
        messages.pass(&body[..9], 0).unwrap();
        assert_eq!(messages.begun(), 3);
        messages.forget_prefix();
        messages.pass(&body[6..], 0).unwrap();
        assert_eq!((messages.begun(), messages.count, messages.compressed), (0, 2, 1));
    }

    #[test]
    fn the_first_of_several_is_taken_when_it_is_whole() {
        let body = [message(1, 2), message(0, 0)].concat();
        assert_eq!(first(&body), Some((1, &[7, 7][..], &[0, 0, 0, 0, 0][..])));
        for end in 0..7 {
            assert_eq!(first(&body[..end]), None);
        }
    }
}
