//! Traces: which one a request belongs to, as its headers say it and as ours say it to the endpoint
//! (`w3c`, `b3`, `jaeger`), whether it is recorded ([`Ratio`]), and what is then told of it
//! (`span`, sent as `otlp` or `zipkin`). Bytes to values and back; no clock, no socket.

pub mod attributes;
pub mod b3;
pub mod jaeger;
pub mod otlp;
mod protobuf;
pub mod span;
pub mod w3c;
pub mod zipkin;

use crate::http::head::Line;
use crate::http::headers::HeaderId;

/// A way to say it in headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    W3c,
    B3,
    B3Multi,
    Jaeger,
}

/// What the headers of a request say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The trace, and whose child we are; `None` where only a decision was said.
    pub parent: Option<Parent>,
    /// Whether the trace is recorded; `None`: left to us.
    pub sampled: Option<bool>,
    /// B3 and Jaeger: recorded whatever anybody's sampling says.
    pub debug: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    pub trace_id: u128,
    pub span_id: u64,
}

/// Reads the first of `formats` that is there and valid.
pub fn extract(formats: &[Format], lines: &[Line], bytes: &[u8]) -> Option<(Format, Incoming)> {
    formats.iter().find_map(|&format| {
        let only = |id| only(lines, bytes, id);
        let found = match format {
            Format::W3c => w3c::parse(only(HeaderId::Traceparent)?),
            Format::B3 => b3::parse(only(HeaderId::B3)?),
            Format::B3Multi => b3::Multi {
                trace_id: only(HeaderId::XB3TraceId),
                span_id: only(HeaderId::XB3SpanId),
                sampled: only(HeaderId::XB3Sampled),
                flags: only(HeaderId::XB3Flags),
            }
            .parse(),
            Format::Jaeger => jaeger::parse(only(HeaderId::UberTraceId)?),
        };
        Some((format, found?))
    })
}

/// Whether the `tracestate` lines, which are one list, may go on (W3C section 3.3).
pub fn is_state_valid(lines: &[Line], bytes: &[u8]) -> bool {
    let states = lines.iter().filter(|line| is_end_to_end(line, HeaderId::Tracestate));
    w3c::is_state_valid(states.map(|line| line.value.of(bytes)))
}

/// The value of the only line of this name: of two, nobody knows which one is meant.
fn only<'b>(lines: &[Line], bytes: &'b [u8], id: HeaderId) -> Option<&'b [u8]> {
    let mut found = lines.iter().filter(|line| is_end_to_end(line, id));
    match (found.next(), found.next()) {
        (Some(line), None) => Some(line.value.of(bytes)),
        (Some(_), Some(_)) | (None, _) => None,
    }
}

fn is_end_to_end(line: &Line, id: HeaderId) -> bool {
    line.id == id && !line.hop_by_hop
}

/// What an endpoint is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing<'a> {
    pub formats: &'a [Format],
    pub trace_id: u128,
    /// Of the attempt: the parent of whatever the endpoint does.
    pub span_id: u64,
    /// The parent of that.
    pub parent_id: u64,
    pub sampled: bool,
    pub debug: bool,
    /// The `tracestate` that came belongs to this trace and is valid.
    pub keeps_state: bool,
}

impl Outgoing<'_> {
    /// Whether a line that came gives way to ours.
    pub fn replaces(&self, id: HeaderId) -> bool {
        let speaks = |format| self.formats.contains(&format);
        (id == HeaderId::Traceparent && speaks(Format::W3c))
            || (id == HeaderId::Tracestate && speaks(Format::W3c) && !self.keeps_state)
            || (id == HeaderId::B3 && speaks(Format::B3))
            || (id.is_b3_multi() && speaks(Format::B3Multi))
            || (id == HeaderId::UberTraceId && speaks(Format::Jaeger))
    }

    /// Appends a line or more for each format; `ours`: an operator's edit does not replace it.
    pub fn write(&self, out: &mut Vec<u8>, ours: impl Fn(&[u8]) -> bool) {
        for format in self.formats {
            match format {
                Format::W3c => w3c::write(self, out, &ours),
                Format::B3 => b3::write(self, out, &ours),
                Format::B3Multi => b3::write_multi(self, out, &ours),
                Format::Jaeger => jaeger::write(self, out, &ours),
            }
        }
    }
}

/// What must hold for any bytes as the value of any of these headers: what is taken is written so
/// that it is read back the same, in every format, and nothing of theirs ends a line of ours.
pub fn fuzz(bytes: &[u8]) {
    let parts: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let part = |at: usize| parts.get(at).copied();
    let (trace_id, span_id, sampled, flags) = (part(0), part(1), part(2), part(3));
    let multi = b3::Multi { trace_id, span_id, sampled, flags };
    let read = [w3c::parse(bytes), b3::parse(bytes), jaeger::parse(bytes), multi.parse()];
    for incoming in read.into_iter().flatten() {
        let Some(parent) = incoming.parent else { continue };
        assert!(parent.trace_id != 0 && parent.span_id != 0);
        let sampled = incoming.sampled.unwrap_or_default();
        let debug = incoming.debug;
        assert!(sampled || !debug);
        for format in [Format::W3c, Format::B3, Format::Jaeger] {
            let Parent { trace_id, span_id } = parent;
            let formats = &[format];
            let parent_id = 1;
            let (keeps_state, mut out) = (false, Vec::new());
            Outgoing { formats, trace_id, span_id, parent_id, sampled, debug, keeps_state }
                .write(&mut out, |_| true);
            let text = out.strip_suffix(b"\r\n").expect("one whole line");
            let value = &text[text.iter().position(|byte| *byte == b' ').map_or(0, |at| at + 1)..];
            let (again, tells_debug) = match format {
                Format::W3c => (w3c::parse(value), false),
                Format::B3 | Format::B3Multi => (b3::parse(value), true),
                Format::Jaeger => (jaeger::parse(value), true),
            };
            let debug = debug && tells_debug;
            let expected = Incoming { parent: Some(parent), sampled: Some(sampled), debug };
            assert_eq!(again, Some(expected), "{}", text.escape_ascii());
        }
    }
    let _ = w3c::is_state_valid(parts.into_iter());
}

// --- sampling ---------------------------------------------------------------------------------

/// The share of traces that is recorded. Decided by the trace id alone, so that everybody who
/// decides by the same share, now or behind us, takes the same traces: the last 56 bits of an id
/// are random (W3C Trace Context, level 2), and ids below the threshold are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    threshold: u64,
}

const RANDOM_BITS: u32 = 56;

impl Ratio {
    /// `share` is from 0 to 1.
    pub fn new(share: f64) -> Ratio {
        let all = (1_u64 << RANDOM_BITS) as f64;
        Ratio { threshold: ((1.0 - share.clamp(0.0, 1.0)) * all).round() as u64 }
    }

    pub fn takes(self, trace_id: u128) -> bool {
        let random = trace_id as u64 & ((1 << RANDOM_BITS) - 1);
        random >= self.threshold
    }
}

// --- hexadecimal ------------------------------------------------------------------------------

/// 1 to 32 digits.
fn hex(digits: &[u8]) -> Option<u128> {
    if digits.is_empty() || digits.len() > 32 {
        return None;
    }
    digits.iter().try_fold(0, |value: u128, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | u128::from(digit))
    })
}

/// An id: as many digits as given, not all zero.
fn id(digits: &[u8]) -> Option<u128> {
    hex(digits).filter(|id| *id != 0)
}

fn span_id(digits: &[u8]) -> Option<u64> {
    if digits.len() > 16 {
        return None;
    }
    id(digits).map(|id| id as u64)
}

/// Appends the last `digits` digits.
pub fn write_hex(out: &mut Vec<u8>, value: u128, digits: usize) {
    for at in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (at * 4)) as usize & 15]);
    }
}

/// 16 digits where 16 came, as B3 has it, else 32.
fn write_short_trace_id(out: &mut Vec<u8>, trace_id: u128) {
    write_hex(out, trace_id, if trace_id >> 64 == 0 { 16 } else { 32 });
}

fn line(out: &mut Vec<u8>, name: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    value(out);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::RequestHead;
    use crate::http1::parse::{self, HeadLimits, Parsed};

    pub(super) const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    pub(super) const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

    pub(super) fn outgoing(formats: &[Format]) -> Outgoing<'_> {
        Outgoing {
            formats,
            trace_id: TRACE,
            span_id: SPAN,
            parent_id: 0xdead_beef,
            sampled: true,
            debug: false,
            keeps_state: false,
        }
    }

    pub(super) fn written(outgoing: &Outgoing<'_>) -> String {
        let mut out = Vec::new();
        outgoing.write(&mut out, |_| true);
        String::from_utf8(out).unwrap()
    }

    fn from_headers(formats: &[Format], headers: &str) -> Option<(Format, Incoming)> {
        let limits = HeadLimits { url_bytes_max: 100, header_bytes_max: 4096, headers_max: 50 };
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        let mut head = RequestHead::default();
        let parsed = parse::request(bytes.as_bytes(), &limits, &mut head);
        assert_eq!(parsed, Ok(Parsed::Complete));
        extract(formats, &head.lines, bytes.as_bytes())
    }

    const ALL: [Format; 4] = [Format::W3c, Format::B3, Format::B3Multi, Format::Jaeger];

    #[test]
    fn what_every_format_writes_is_read_back_the_same() {
        for format in ALL {
            for (sampled, debug) in [(true, false), (false, false)] {
                let formats = [format];
                let outgoing = Outgoing { sampled, debug, ..outgoing(&formats) };
                let parent = Some(Parent { trace_id: TRACE, span_id: SPAN });
                let incoming = Incoming { parent, sampled: Some(sampled), debug };
                let found = from_headers(&ALL, &written(&outgoing));
                assert_eq!(found, Some((format, incoming)));
            }
        }
    }

    #[test]
    fn the_first_valid_format_of_the_list_is_taken() {
        let both = format!("{}traceparent: rubbish\r\n", written(&outgoing(&[Format::Jaeger])));
        assert_eq!(from_headers(&ALL, &both).map(|(format, _)| format), Some(Format::Jaeger));
        assert_eq!(from_headers(&[Format::W3c], &both), None);
        let two = written(&outgoing(&ALL));
        let order = [Format::B3, Format::W3c];
        assert_eq!(from_headers(&order, &two).map(|(format, _)| format), Some(Format::B3));
    }

    #[test]
    fn two_lines_of_one_name_mean_nothing() {
        let one = written(&outgoing(&[Format::W3c]));
        assert_eq!(from_headers(&ALL, &format!("{one}{one}")), None);
    }

    #[test]
    fn a_line_that_is_for_this_connection_only_is_not_read() {
        let one = written(&outgoing(&[Format::W3c]));
        assert_eq!(from_headers(&ALL, &format!("Connection: traceparent\r\n{one}")), None);
    }

    #[test]
    fn the_ratio_is_exact_over_evenly_spread_ids() {
        let ids = 100_000_u64;
        let step = (1_u64 << RANDOM_BITS) / ids;
        for (share, expected) in [(0.0, 0), (0.01, 1_000), (0.25, 25_000), (1.0, ids)] {
            let ratio = Ratio::new(share);
            let taken =
                (0..ids).filter(|id| ratio.takes(u128::from(id * step + step / 2))).count() as u64;
            assert_eq!(taken, expected, "{share}");
        }
    }

    #[test]
    fn a_larger_share_takes_whatever_a_smaller_one_takes() {
        let (few, many) = (Ratio::new(0.1), Ratio::new(0.3));
        let spread = |n: u128| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let ids = || (1..10_000_u128).map(spread);
        assert!(ids().any(|id| few.takes(id)));
        assert!(ids().filter(|id| few.takes(*id)).all(|id| many.takes(id)));
    }
}
