//! What the h2 crate holds of an endpoint's answers without a bound is heads: interim ones of a
//! stream whose client takes none. So they are counted where frames pass, and an endpoint that
//! sends far more of them than anybody asked for is cut off. Its bodies have windows.

use crate::http2::abuse::Abuse;
use crate::http2::frames::{Frames, HEADERS, Piece};
use crate::limits;

pub(crate) struct EndpointWatch {
    received: Frames,
    sent: Frames,
    /// Heads that it may still send.
    heads: u32,
}

impl EndpointWatch {
    pub(crate) fn new() -> EndpointWatch {
        EndpointWatch {
            received: Frames::after(0),
            sent: Frames::after(PREFACE_BYTES),
            heads: limits::UPSTREAM_HEADS_AHEAD,
        }
    }

    pub(crate) fn received(&mut self, mut bytes: &[u8]) -> Result<(), Abuse> {
        while let Some(piece) = self.received.next(&mut bytes) {
            if is_head(&piece) {
                self.heads = self.heads.checked_sub(1).ok_or(Abuse::Costly)?;
            }
        }
        Ok(())
    }

    pub(crate) fn sent(&mut self, mut bytes: &[u8]) {
        while let Some(piece) = self.sent.next(&mut bytes) {
            if is_head(&piece) {
                let heads = self.heads + limits::UPSTREAM_HEADS_PER_REQUEST;
                self.heads = heads.min(limits::UPSTREAM_HEADS_AHEAD_MAX);
            }
        }
    }
}

/// `PRI * HTTP/2.0` and what follows it (RFC 9113 section 3.4).
const PREFACE_BYTES: u32 = 24;

fn is_head(piece: &Piece) -> bool {
    matches!(piece, Piece::Frame(frame) if frame.kind == HEADERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: [u8; 10] = [0, 0, 1, HEADERS, 4, 0, 0, 0, 1, 0x88];

    #[test]
    fn requests_allow_heads_and_a_flood_of_them_is_noticed() {
        let mut watch = EndpointWatch::new();
        watch.sent(&[0; PREFACE_BYTES as usize]);
        for _ in 0..limits::UPSTREAM_HEADS_AHEAD {
            assert_eq!(watch.received(&HEAD), Ok(()));
        }
        let mut allowed = 0;
        watch.sent(&HEAD);
        while watch.received(&HEAD) == Ok(()) {
            allowed += 1;
        }
        assert_eq!(allowed, limits::UPSTREAM_HEADS_PER_REQUEST);
    }

    #[test]
    fn what_is_allowed_does_not_add_up_for_ever() {
        let mut watch = EndpointWatch::new();
        watch.sent(&[0; PREFACE_BYTES as usize]);
        (0..10_000).for_each(|_| watch.sent(&HEAD));
        assert_eq!(watch.heads, limits::UPSTREAM_HEADS_AHEAD_MAX);
    }
}
