//! Changes to a head, as the bytes that were written for the other side: what the usual edits
//! cannot do, since it depends on the call.

/// What becomes of a line.
pub(crate) enum Edit {
    Stays,
    Goes,
    /// The same name, with another value.
    Becomes(Vec<u8>),
}

/// Changes the head that is all of `out`, line by line. What `out` has room for is used.
pub(crate) fn edit_lines(out: &mut Vec<u8>, edit: impl Fn(&[u8], &[u8]) -> Edit) {
    let end = out.len();
    out.reserve(end + ROOM_BYTES);
    let mut at = 0;
    while at < end {
        let line = &out[at..end];
        let length = line.iter().position(|&byte| byte == b'\n').map_or(line.len(), |end| end + 1);
        let (line, next) = (at..at + length, at + length);
        let colon = out[line.clone()].iter().position(|&byte| byte == b':');
        let edited = match colon {
            Some(colon) => edit(&out[at..at + colon], out[at + colon + 1..next].trim_ascii()),
            None => Edit::Stays,
        };
        match edited {
            Edit::Stays => out.extend_from_within(line),
            Edit::Goes => {}
            Edit::Becomes(value) => {
                out.extend_from_within(at..at + colon.unwrap_or_default());
                for part in [b": ", &value[..], b"\r\n"] {
                    out.extend_from_slice(part);
                }
            }
        }
        at = next;
    }
    out.drain(..end);
}

/// Puts lines behind those of a head.
pub(crate) fn append_lines(out: &mut Vec<u8>, lines: &[u8]) {
    let end = out.len().saturating_sub(b"\r\n".len());
    out.truncate(end);
    out.extend_from_slice(lines);
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// For lines that grow.
const ROOM_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_go_and_change_and_the_rest_is_as_it_was() {
        let mut head = b"GET /a:b HTTP/1.1\r\nA: 1\r\nb:2\r\nC:  3 \r\n\r\n".to_vec();
        edit_lines(&mut head, |name, value| match (name, value) {
            (b"A", b"1") => Edit::Goes,
            (b"C", b"3") => Edit::Becomes(b"four".to_vec()),
            _ => Edit::Stays,
        });
        append_lines(&mut head, b"D: 5\r\n");
        assert_eq!(head, b"GET /a:b HTTP/1.1\r\nb:2\r\nC: four\r\nD: 5\r\n\r\n");
    }
}
