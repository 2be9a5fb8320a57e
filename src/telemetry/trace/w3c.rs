//! W3C Trace Context: `traceparent` and `tracestate` (<https://www.w3.org/TR/trace-context-1/>).

use crate::telemetry::trace::{Incoming, Outgoing, Parent, id, line, span_id, write_hex};

/// `00-` 32 digits `-` 16 digits `-` 2 digits.
const VERSION_0_BYTES: usize = 55;

/// Section 3.2. A version that we do not know is read as far as we know it, which is why it must
/// be as long, and separated behind. Upper case is not hexadecimal here.
pub fn parse(value: &[u8]) -> Option<Incoming> {
    let (known, rest) = value.split_at_checked(VERSION_0_BYTES)?;
    let shape = |at: usize, byte: u8| match at {
        2 | 35 | 52 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    if !known.iter().enumerate().all(|(at, byte)| shape(at, *byte)) {
        return None;
    }
    match (&known[..2], rest.first()) {
        (b"ff", _) | (b"00", Some(_)) => return None,
        (_, None | Some(b'-')) => {}
        (_, Some(_)) => return None,
    }
    let parent = Parent { trace_id: id(&known[3..35])?, span_id: span_id(&known[36..52])? };
    let flags = super::hex(&known[53..])?;
    Some(Incoming { parent: Some(parent), sampled: Some(flags & 1 != 0), debug: false })
}

/// Always version 00, and no flag but `sampled`.
pub(super) fn write(outgoing: &Outgoing<'_>, out: &mut Vec<u8>, ours: impl Fn(&[u8]) -> bool) {
    if !ours(b"traceparent") {
        return;
    }
    line(out, b"traceparent", |out| {
        out.extend_from_slice(b"00-");
        write_hex(out, outgoing.trace_id, 32);
        out.push(b'-');
        write_hex(out, u128::from(outgoing.span_id), 16);
        out.extend_from_slice(if outgoing.sampled { b"-01" } else { b"-00" });
    });
}

const STATE_MEMBERS_MAX: usize = 32;

/// Section 3.3.1: at most 32 members `key=value`, separated by commas; empty ones are allowed. A
/// key that comes twice makes the list invalid.
pub(super) fn is_state_valid<'b>(values: impl Iterator<Item = &'b [u8]>) -> bool {
    let mut keys: [&[u8]; STATE_MEMBERS_MAX] = [b""; STATE_MEMBERS_MAX];
    let mut count = 0;
    for member in values.flat_map(|value| value.split(|byte| *byte == b',')) {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        let Some(equals) = member.iter().position(|byte| *byte == b'=') else {
            return false;
        };
        let (key, value) = (&member[..equals], &member[equals + 1..]);
        let fits = count < STATE_MEMBERS_MAX && is_key(key) && is_value(value);
        if !fits || keys[..count].contains(&key) {
            return false;
        }
        keys[count] = key;
        count += 1;
    }
    true
}

/// A name, or `tenant@system`.
fn is_key(key: &[u8]) -> bool {
    let plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
    let is_name = |name: &[u8], max: usize, digit_first: bool| {
        let first = name.first().is_some_and(|byte| {
            byte.is_ascii_lowercase() || (digit_first && byte.is_ascii_digit())
        });
        first && name.len() <= max && name.iter().all(plain)
    };
    match key.iter().position(|byte| *byte == b'@') {
        None => is_name(key, 256, false),
        Some(at) => is_name(&key[..at], 241, true) && is_name(&key[at + 1..], 14, false),
    }
}

fn is_value(value: &[u8]) -> bool {
    let plain = |byte: &u8| matches!(byte, 0x20..=0x7e) && *byte != b',' && *byte != b'=';
    (1..=256).contains(&value.len()) && value.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace::tests::{SPAN, TRACE, outgoing, written};
    use crate::telemetry::trace::{Format, Outgoing};

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_header_is_read_and_written() {
        let parent = Some(Parent { trace_id: TRACE, span_id: SPAN });
        let incoming = Incoming { parent, sampled: Some(true), debug: false };
        assert_eq!(parse(VALID.as_bytes()), Some(incoming));
        assert_eq!(written(&outgoing(&[Format::W3c])), format!("traceparent: {VALID}\r\n"));
        let unsampled = Outgoing { sampled: false, ..outgoing(&[Format::W3c]) };
        assert!(written(&unsampled).ends_with("-00\r\n"));
    }

    #[test]
    fn flags_that_we_do_not_know_are_not_an_error() {
        let flags = |flags: &str| VALID.replace("-01", flags);
        assert_eq!(parse(flags("-ff").as_bytes()).unwrap().sampled, Some(true));
        assert_eq!(parse(flags("-02").as_bytes()).unwrap().sampled, Some(false));
    }

    #[test]
    fn later_versions_are_read_by_their_beginning() {
        let version = |start: &str, end: &str| format!("{start}{}{end}", &VALID[2..]);
        for valid in [version("01", ""), version("cc", "-"), version("fe", "-what-ever.Comes")] {
            assert!(parse(valid.as_bytes()).is_some(), "{valid}");
        }
        for wrong in [version("ff", ""), version("00", "-"), version("01", ".x"), version("0", "0")]
        {
            assert!(parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_valid_is_refused() {
        let zero_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let zero_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        let upper = VALID.to_ascii_uppercase();
        let long = format!("{VALID} ");
        let wrong = ["", "00", zero_trace, zero_span, &upper, &long, &VALID[..54], &VALID[1..]];
        for wrong in wrong {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
        for at in 0..VALID.len() {
            for byte in [b'g', b' ', b'_', 0, 0xff] {
                let mut torn = VALID.as_bytes().to_vec();
                torn[at] = byte;
                assert_eq!(parse(&torn), None, "{}", torn.escape_ascii());
            }
        }
    }

    #[test]
    fn state_is_a_list_of_members() {
        let valid = |state: &str| is_state_valid([state.as_bytes()].into_iter());
        let many = |count: usize| (0..count).map(|n| format!("k{n}=v,")).collect::<String>();
        for good in ["", "a=1", "a=1, b=2 ,,c=3", "0tenant@sys=x y", "a*/_-0=!", &many(32)] {
            assert!(valid(good), "{good}");
        }
        let long = format!("a={}", "x".repeat(257));
        let twice = "a=1,b=2,a=3";
        for bad in ["a", "=1", "a=", "A=1", "1a=1", "a=b=c", "a@=1", &long, twice, &many(33)] {
            assert!(!valid(bad), "{bad}");
        }
        assert!(!is_state_valid([&b"a=1"[..], b"a=2"].into_iter()));
    }
}
