//! Jaeger's `uber-trace-id: TRACE:SPAN:PARENT:FLAGS`
//! (<https://www.jaegertracing.io/sdk-migration/#propagation-format>).

use crate::telemetry::trace::{Incoming, Outgoing, Parent, hex, id, line, span_id, write_hex};

/// Leading zeros may be missing. Jaeger's own clients escape the colons in HTTP headers.
pub fn parse(value: &[u8]) -> Option<Incoming> {
    let (trace, rest) = part(value)?;
    let (span, rest) = part(rest)?;
    let (_parent, flags) = part(rest)?;
    if flags.len() > 2 {
        return None;
    }
    let flags = hex(flags)?;
    let parent = Parent { trace_id: id(trace)?, span_id: span_id(span)? };
    let debug = flags & 2 != 0;
    Some(Incoming { parent: Some(parent), sampled: Some(flags & 1 != 0 || debug), debug })
}

/// What stands before the next colon, and what after it.
fn part(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = value.iter().position(|byte| matches!(byte, b':' | b'%'))?;
    let (before, from) = value.split_at(end);
    let rest = from.strip_prefix(b":").or_else(|| from.strip_prefix(b"%3A"));
    Some((before, rest.or_else(|| from.strip_prefix(b"%3a"))?))
}

/// The parent is 0: it is deprecated, and readers do without.
pub(super) fn write(outgoing: &Outgoing<'_>, out: &mut Vec<u8>, ours: impl Fn(&[u8]) -> bool) {
    if !ours(b"uber-trace-id") {
        return;
    }
    line(out, b"uber-trace-id", |out| {
        write_hex(out, outgoing.trace_id, 32);
        out.push(b':');
        write_hex(out, u128::from(outgoing.span_id), 16);
        out.extend_from_slice(match (outgoing.debug, outgoing.sampled) {
            (true, _) => b":0:3",
            (false, true) => b":0:1",
            (false, false) => b":0:0",
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace::Format;
    use crate::telemetry::trace::tests::{SPAN, TRACE, outgoing, written};

    #[test]
    fn a_valid_header_is_read_and_written() {
        let text = "4bf92f3577b34da6a3ce929d0e0e4736:00f067aa0ba902b7:0:1";
        let parent = Some(Parent { trace_id: TRACE, span_id: SPAN });
        let incoming = Incoming { parent, sampled: Some(true), debug: false };
        assert_eq!(parse(text.as_bytes()), Some(incoming));
        assert_eq!(parse(text.replace(':', "%3A").as_bytes()), Some(incoming));
        assert_eq!(written(&outgoing(&[Format::Jaeger])), format!("uber-trace-id: {text}\r\n"));
    }

    #[test]
    fn leading_zeros_may_be_missing_and_flags_are_bits() {
        let short = parse(b"7:b:5:2").unwrap();
        assert_eq!(short.parent, Some(Parent { trace_id: 7, span_id: 11 }));
        assert_eq!((short.sampled, short.debug), (Some(true), true));
        assert_eq!(parse(b"7:b:0:0").unwrap().sampled, Some(false));
    }

    #[test]
    fn what_is_not_valid_is_refused() {
        let long = format!("{}:1:0:1", "1".repeat(33));
        for wrong in ["", ":", ":::", "1:2:3", "0:1:0:1", "1:0:0:1", "1:2:0:", "1:2:0:100", &long] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
        for wrong in ["1:11111111111111111:0:1", "g:1:0:1", "1%2:1:0:1", "1:1:0:1:1", "-1:1:0:1"] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
