//! Bodies: where they end. Chunk framing is decoded and written anew, never forwarded.

use crate::http::head::Framing;

/// What one call of `Decoder::decode` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that were used.
    pub consumed: usize,
    /// Body bytes, now at the front of the input.
    pub data: usize,
    pub end: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedBody {
    ChunkSize,
}

#[derive(Debug)]
pub struct Decoder {}

impl Decoder {
    pub fn new(framing: Framing) -> Decoder {
        let _ = framing;
        todo!()
    }

    /// Takes what it can of `input`, moves the body bytes to its front.
    pub fn decode(&mut self, input: &mut [u8]) -> Result<Decoded, MalformedBody> {
        let _ = input;
        todo!()
    }

    pub fn is_finished(&self) -> bool {
        todo!()
    }

    /// Trailer lines, CRLF included, once the end of a chunked body was seen. Empty when there were none.
    pub fn trailers(&self) -> &[u8] {
        todo!()
    }
}
