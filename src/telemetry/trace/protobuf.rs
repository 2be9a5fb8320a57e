//! Protocol Buffers, as much as OTLP needs: fields appended to a vector, and numbers read from an
//! answer (<https://protobuf.dev/programming-guides/encoding/>).

/// How the value behind a field's key is written.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;

pub(super) fn varint(out: &mut Vec<u8>, field: u32, value: u64) {
    base128(out, u64::from(field << 3 | VARINT));
    base128(out, value);
}

pub(super) fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    base128(out, u64::from(field << 3 | FIXED64));
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    base128(out, u64::from(field << 3 | BYTES));
    base128(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A message inside a message. Its length is known, and put before it, once it is written.
pub(super) fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    base128(out, u64::from(field << 3 | BYTES));
    let start = out.len();
    write(out);
    let mut length = Vec::with_capacity(10);
    base128(&mut length, (out.len() - start) as u64);
    out.splice(start..start, length);
}

fn base128(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The value of one field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The last value of a field, as the format has it; `None` when there is none, or no message.
pub(super) fn find(mut message: &[u8], wanted: u32) -> Option<Field<'_>> {
    let mut found = None;
    while !message.is_empty() {
        let key = take_base128(&mut message)?;
        let value = match key as u32 & 7 {
            VARINT => Field::Number(take_base128(&mut message)?),
            BYTES => {
                let length = usize::try_from(take_base128(&mut message)?).ok()?;
                Field::Bytes(message.split_off(..length)?)
            }
            FIXED64 => Field::Bytes(message.split_off(..8)?),
            FIXED32 => Field::Bytes(message.split_off(..4)?),
            _ => return None,
        };
        if key >> 3 == u64::from(wanted) {
            found = Some(value);
        }
    }
    found
}

fn take_base128(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *message.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_as_they_were_written() {
        let mut out = Vec::new();
        varint(&mut out, 1, 300);
        fixed64(&mut out, 2, 7);
        message(&mut out, 3, |out| bytes(out, 1, &[b'x'; 200]));
        varint(&mut out, 1, u64::MAX);
        assert_eq!(find(&out, 1), Some(Field::Number(u64::MAX)));
        let Some(Field::Bytes(inner)) = find(&out, 3) else { panic!() };
        assert_eq!(find(inner, 1), Some(Field::Bytes(&[b'x'; 200])));
        assert_eq!(find(&out, 9), None);
        for end in 0..out.len() {
            let _ = find(&out[..end], 3);
        }
    }

    #[test]
    fn rubbish_is_no_message() {
        for rubbish in [&b"\xff"[..], b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"<html>"] {
            assert_eq!(find(rubbish, 1), None);
        }
    }
}
