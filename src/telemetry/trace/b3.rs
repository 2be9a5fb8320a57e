//! B3, in one header and in several (<https://github.com/openzipkin/b3-propagation>).

use crate::telemetry::trace::{
    Incoming, Outgoing, Parent, id, line, span_id, write_hex, write_short_trace_id,
};

/// `b3: TRACE-SPAN[-STATE[-PARENT]]`, or the state alone.
pub fn parse(value: &[u8]) -> Option<Incoming> {
    if let [state] = value {
        return decision(*state, None);
    }
    let mut parts = value.split(|byte| *byte == b'-');
    let parent = parent(parts.next()?, parts.next()?)?;
    let found = match parts.next() {
        None => Incoming { parent: Some(parent), sampled: None, debug: false },
        Some([state]) => decision(*state, Some(parent))?,
        Some(_) => return None,
    };
    // Their parent is none of our business, but what is there must be one.
    let last = parts.next().is_none_or(|grandparent| hex_of(grandparent, &[16]).is_some());
    (last && parts.next().is_none()).then_some(found)
}

fn decision(state: u8, parent: Option<Parent>) -> Option<Incoming> {
    let (sampled, debug) = match state {
        b'0' => (false, false),
        b'1' => (true, false),
        b'd' => (true, true),
        _ => return None,
    };
    Some(Incoming { parent, sampled: Some(sampled), debug })
}

fn parent(trace: &[u8], span: &[u8]) -> Option<Parent> {
    let trace = hex_of(trace, &[16, 32])?;
    let span = hex_of(span, &[16])?;
    Some(Parent { trace_id: id(trace)?, span_id: span_id(span)? })
}

/// Lower case, of one of these lengths.
fn hex_of<'v>(value: &'v [u8], lengths: &[usize]) -> Option<&'v [u8]> {
    let digits = value.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (digits && lengths.contains(&value.len())).then_some(value)
}

/// The headers `X-B3-…` that came.
#[derive(Clone, Copy, Debug)]
pub struct Multi<'a> {
    pub trace_id: Option<&'a [u8]>,
    pub span_id: Option<&'a [u8]>,
    pub sampled: Option<&'a [u8]>,
    pub flags: Option<&'a [u8]>,
}

impl Multi<'_> {
    /// Both ids or none; a decision alone is one.
    pub fn parse(&self) -> Option<Incoming> {
        let parent = match (self.trace_id, self.span_id) {
            (Some(trace), Some(span)) => Some(parent(trace, span)?),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return None,
        };
        if self.flags == Some(b"1") {
            return decision(b'd', parent);
        }
        match self.sampled {
            // `true` and `false` were written by early tracers.
            Some(b"1" | b"true") => decision(b'1', parent),
            Some(b"0" | b"false") => decision(b'0', parent),
            Some(_) => None,
            None => {
                parent.map(|parent| Incoming { parent: Some(parent), sampled: None, debug: false })
            }
        }
    }
}

pub(super) fn write(outgoing: &Outgoing<'_>, out: &mut Vec<u8>, ours: impl Fn(&[u8]) -> bool) {
    if !ours(b"b3") {
        return;
    }
    line(out, b"b3", |out| {
        write_short_trace_id(out, outgoing.trace_id);
        out.push(b'-');
        write_hex(out, u128::from(outgoing.span_id), 16);
        out.extend_from_slice(match (outgoing.debug, outgoing.sampled) {
            (true, _) => b"-d-",
            (false, true) => b"-1-",
            (false, false) => b"-0-",
        });
        write_hex(out, u128::from(outgoing.parent_id), 16);
    });
}

pub(super) fn write_multi(
    outgoing: &Outgoing<'_>,
    out: &mut Vec<u8>,
    ours: impl Fn(&[u8]) -> bool,
) {
    if ours(b"x-b3-traceid") {
        line(out, b"X-B3-TraceId", |out| write_short_trace_id(out, outgoing.trace_id));
    }
    let ids: [(&[u8], &[u8], u64); 2] = [
        (b"x-b3-spanid", b"X-B3-SpanId", outgoing.span_id),
        (b"x-b3-parentspanid", b"X-B3-ParentSpanId", outgoing.parent_id),
    ];
    for (lower, name, id) in ids {
        if ours(lower) {
            line(out, name, |out| write_hex(out, u128::from(id), 16));
        }
    }
    if outgoing.debug {
        if ours(b"x-b3-flags") {
            line(out, b"X-B3-Flags", |out| out.push(b'1'));
        }
    } else if ours(b"x-b3-sampled") {
        line(out, b"X-B3-Sampled", |out| out.push(b'0' + u8::from(outgoing.sampled)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace::tests::{SPAN, TRACE, outgoing, written};
    use crate::telemetry::trace::{Format, Outgoing};

    const IDS: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

    #[test]
    fn one_header_says_ids_state_and_parent() {
        let parent = Some(Parent { trace_id: TRACE, span_id: SPAN });
        for (text, sampled, debug) in [
            (IDS.to_owned(), None, false),
            (format!("{IDS}-0"), Some(false), false),
            (format!("{IDS}-1-05e3ac9a4f6e3b90"), Some(true), false),
            (format!("{IDS}-d"), Some(true), true),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(Incoming { parent, sampled, debug }), "{text}");
        }
        let short = parse(b"a3ce929d0e0e4736-00f067aa0ba902b7-1").unwrap().parent.unwrap();
        assert_eq!(short.trace_id, TRACE & u128::from(u64::MAX));
        let alone = Incoming { parent: None, sampled: Some(false), debug: false };
        assert_eq!(parse(b"0"), Some(alone));
    }

    #[test]
    fn what_is_not_valid_is_refused() {
        let upper = IDS.to_ascii_uppercase();
        let zero = "0".repeat(16);
        for wrong in [
            "",
            "2",
            "-",
            "a-b",
            &IDS[1..],
            &IDS[..48],
            &upper,
            &format!("{zero}-{zero}"),
            &format!("{IDS}-"),
            &format!("{IDS}-x"),
            &format!("{IDS}-1-"),
            &format!("{IDS}-1-05e3ac9a4f6e3b90-"),
        ] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn several_headers_need_both_ids_or_a_decision() {
        let none = Multi { trace_id: None, span_id: None, sampled: None, flags: None };
        let (trace, span) = IDS.as_bytes().split_at(32);
        let both = Multi { trace_id: Some(trace), span_id: Some(&span[1..]), ..none };
        assert_eq!(both.parse().unwrap().sampled, None);
        assert_eq!(Multi { sampled: Some(b"1"), ..both }.parse().unwrap().sampled, Some(true));
        assert_eq!(Multi { sampled: Some(b"false"), ..none }.parse().unwrap().sampled, Some(false));
        assert!(Multi { flags: Some(b"1"), ..both }.parse().unwrap().debug);
        let half = Multi { span_id: None, ..both };
        let odd = Multi { sampled: Some(b"yes"), ..both };
        let zero = Multi { trace_id: Some(b"0000000000000000"), ..both };
        for wrong in [none, half, odd, zero] {
            assert_eq!(wrong.parse(), None, "{wrong:?}");
        }
    }

    #[test]
    fn both_spellings_are_written_in_full() {
        let single = format!("b3: {IDS}-1-00000000deadbeef\r\n");
        assert_eq!(written(&outgoing(&[Format::B3])), single);
        let debug = Outgoing { debug: true, ..outgoing(&[Format::B3Multi]) };
        assert_eq!(
            written(&debug),
            "X-B3-TraceId: 4bf92f3577b34da6a3ce929d0e0e4736\r\nX-B3-SpanId: 00f067aa0ba902b7\r\n\
             X-B3-ParentSpanId: 00000000deadbeef\r\nX-B3-Flags: 1\r\n"
        );
        let short = Outgoing { trace_id: 7, sampled: false, ..outgoing(&[Format::B3]) };
        assert!(written(&short).starts_with("b3: 0000000000000007-00f067aa0ba902b7-0-"));
    }
}
