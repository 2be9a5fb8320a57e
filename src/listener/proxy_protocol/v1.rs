//! Version 1 of the PROXY protocol: a line of text (section 2.1).

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str;

use super::{Addresses, Header, Malformed, Pair, Stop, Tlvs};

const SIGNATURE: &[u8] = b"PROXY ";
/// CR and LF included.
const BYTES_MAX: usize = 107;

/// Appends a header of version 1. `None`, or addresses of two families: `UNKNOWN`.
pub fn write(addresses: Option<Addresses>, out: &mut Vec<u8>) {
    let written = match addresses.and_then(Pair::of) {
        Some(Pair::V4(a, b)) => {
            write!(out, "PROXY TCP4 {} {} {} {}\r\n", a.ip(), b.ip(), a.port(), b.port())
        }
        Some(Pair::V6(a, b)) => {
            write!(out, "PROXY TCP6 {} {} {} {}\r\n", a.ip(), b.ip(), a.port(), b.port())
        }
        None => write!(out, "PROXY UNKNOWN\r\n"),
    };
    written.expect("a vector takes every byte");
}

pub(super) fn read(bytes: &[u8]) -> Result<Header<'_>, Stop> {
    let (line, has_ended) = line(bytes);
    let Some(rest) = line.strip_prefix(SIGNATURE) else {
        let may_begin = !has_ended && SIGNATURE.starts_with(line);
        return Err(if may_begin { Stop::NeedMore } else { Malformed::NotAHeader.into() });
    };
    let is_too_long = line.len() + 2 > BYTES_MAX;
    let addresses = match addresses(Fields { rest: Some(rest), line_has_ended: has_ended }) {
        Err(Stop::NeedMore) if is_too_long => return Err(Malformed::LineTooLong.into()),
        addresses => addresses?,
    };
    match &bytes[line.len()..] {
        _ if is_too_long => Err(Malformed::LineTooLong.into()),
        [b'\r', b'\n', ..] => {
            Ok(Header { length: line.len() + 2, addresses, tlvs: Tlvs::default() })
        }
        [] | [b'\r'] => Err(Stop::NeedMore),
        _ => Err(Malformed::LineEnd.into()),
    }
}

/// What comes before the first CR or LF, and whether one came. No more than would be too long.
fn line(bytes: &[u8]) -> (&[u8], bool) {
    let seen = &bytes[..bytes.len().min(BYTES_MAX)];
    let end = seen.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    (&seen[..end.unwrap_or(seen.len())], end.is_some())
}

fn addresses(mut fields: Fields<'_>) -> Result<Option<Addresses>, Stop> {
    let family = fields.next(begins_family, Malformed::LineFamily)?;
    let parse: fn(&[u8]) -> Option<IpAddr>;
    let begins: fn(&[u8]) -> bool;
    match family {
        b"TCP4" => (parse, begins) = (ipv4, begins_ipv4),
        b"TCP6" => (parse, begins) = (ipv6, begins_ipv6),
        // What else stands in the line is to be ignored.
        b"UNKNOWN" => return Ok(None),
        _ => return Err(Malformed::LineFamily.into()),
    }
    let mut address = || {
        let field = fields.next(begins, Malformed::LineAddress)?;
        parse(field).ok_or(Stop::Malformed(Malformed::LineAddress))
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || {
        let field = fields.next(begins_port, Malformed::LinePort)?;
        number(field).ok_or(Stop::Malformed(Malformed::LinePort))
    };
    let (source_port, destination_port) = (port()?, port()?);
    if fields.rest.is_some() {
        return Err(Malformed::LineFields.into());
    }
    Ok(Some(Addresses {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    }))
}

/// What is left of a line; `None` behind its last field.
struct Fields<'a> {
    rest: Option<&'a [u8]>,
    line_has_ended: bool,
}

impl<'a> Fields<'a> {
    /// The next one, once it has ended. Of one that has not, `begins` says whether what has come
    /// begins a good one.
    fn next(&mut self, begins: fn(&[u8]) -> bool, why: Malformed) -> Result<&'a [u8], Stop> {
        let rest = self.rest.take().ok_or(Malformed::LineFields)?;
        match rest.iter().position(|byte| *byte == b' ') {
            Some(end) => {
                self.rest = Some(&rest[end + 1..]);
                Ok(&rest[..end])
            }
            None if self.line_has_ended => Ok(rest),
            None if begins(rest) => Err(Stop::NeedMore),
            None => Err(why.into()),
        }
    }
}

fn begins_family(field: &[u8]) -> bool {
    [b"TCP4".as_slice(), b"TCP6", b"UNKNOWN"].iter().any(|family| family.starts_with(field))
}

fn ipv4(field: &[u8]) -> Option<IpAddr> {
    str::from_utf8(field).ok()?.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

fn begins_ipv4(field: &[u8]) -> bool {
    let is_octet = |text: &[u8]| number(text).is_some_and(|octet| octet <= u8::MAX.into());
    let mut octets = field.split(|byte| *byte == b'.');
    let last = octets.next_back().unwrap_or_default();
    octets.clone().count() < 4 && octets.all(is_octet) && (last.is_empty() || is_octet(last))
}

fn ipv6(field: &[u8]) -> Option<IpAddr> {
    str::from_utf8(field).ok()?.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn begins_ipv6(field: &[u8]) -> bool {
    /// With an IPv4 address at its end.
    const TEXT_BYTES_MAX: usize = 45;
    let may_stand = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    field.len() <= TEXT_BYTES_MAX && field.iter().all(may_stand)
}

/// Without a sign, and without zeros before it.
fn number(field: &[u8]) -> Option<u16> {
    let is_plain =
        field.iter().all(u8::is_ascii_digit) && (field == b"0" || field.first() != Some(&b'0'));
    if is_plain { str::from_utf8(field).ok()?.parse().ok() } else { None }
}

fn begins_port(field: &[u8]) -> bool {
    field.is_empty() || number(field).is_some()
}

#[cfg(test)]
mod tests {
    use super::super::{Read, read};
    use super::*;

    fn why(line: &str) -> Malformed {
        read(line.as_bytes()).expect_err("this is no header")
    }

    /// Source and destination; `-` where nobody is spoken for.
    fn told(line: &str) -> String {
        let Ok(Read::Header(header)) = read(line.as_bytes()) else {
            panic!("{line:?}: {:?}", read(line.as_bytes()))
        };
        assert_eq!(header.length, line.find("\r\n").unwrap() + 2);
        assert_eq!(header.tlvs, Tlvs::default());
        header
            .addresses
            .map_or("-".to_owned(), |told| format!("{} {}", told.source, told.destination))
    }

    fn written(source: &str, destination: &str) -> String {
        let [source, destination] = [source, destination].map(|text| text.parse().unwrap());
        let mut out = Vec::new();
        write(Some(Addresses { source, destination }), &mut out);
        String::from_utf8(out).unwrap()
    }

    const GOOD: [&str; 9] = [
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        "PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n",
        "PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 1 2\r\n",
        "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
         ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        "PROXY TCP6 ::ffff:192.0.2.1 :: 1 2\r\n",
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
         ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        "PROXY UNKNOWN  anything\0 \r\n",
    ];

    #[test]
    fn lines_of_the_specification_are_read() {
        let expected = [
            "192.168.0.1:56324 192.168.0.11:443",
            "255.255.255.255:65535 255.255.255.255:65535",
            "0.0.0.0:0 0.0.0.0:0",
            "[2001:db8::1]:1 [2001:db8::2]:2",
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535 \
             [ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            "[::ffff:192.0.2.1]:1 [::]:2",
            "-",
            "-",
            "-",
        ];
        for (line, expected) in GOOD.into_iter().zip(expected) {
            assert_eq!(told(line), expected);
            assert_eq!(told(&format!("{line}GET / HTTP/1.1\r\n\r\n")), expected);
        }
    }

    #[test]
    fn every_truncation_needs_more() {
        for line in GOOD {
            for end in 0..line.len() {
                assert_eq!(read(&line.as_bytes()[..end]), Ok(Read::NeedMore), "{end} of {line}");
            }
        }
    }

    #[test]
    fn every_mutation_of_a_byte_is_taken_or_refused() {
        for line in GOOD {
            let mut mutated = line.as_bytes().to_vec();
            for at in 0..mutated.len() {
                for byte in 0..=u8::MAX {
                    mutated[at] = byte;
                    // Whatever it says: no panic.
                    let _ = read(&mutated);
                }
                mutated[at] = line.as_bytes()[at];
            }
        }
    }

    #[test]
    fn who_does_not_begin_a_line_is_refused_at_the_first_byte_that_shows_it() {
        for begun in ["G", "PO", "PRI", "PROP", "PROXI", "PROXYX", "\x16\x03", "\n", "PROXY\r"] {
            assert_eq!(why(begun), Malformed::NotAHeader, "{begun:?}");
        }
        for begun in ["PROXY T4", "PROXY  ", "PROXY TCP5", "PROXY UNKNOWN1", "PROXY \r\n"] {
            assert_eq!(why(begun), Malformed::LineFamily, "{begun:?}");
        }
        for begun in ["PROXY TCP4 a", "PROXY TCP4 256", "PROXY TCP4 01", "PROXY TCP4 1.2.3.4."] {
            assert_eq!(why(begun), Malformed::LineAddress, "{begun:?}");
        }
        assert_eq!(why("PROXY TCP6 g"), Malformed::LineAddress);
        assert_eq!(why("PROXY TCP4 1.2.3.4 1.2.3.4 00"), Malformed::LinePort);
        assert_eq!(why("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536"), Malformed::LinePort);
        assert_eq!(why("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 "), Malformed::LineFields);
        assert_eq!(why("PROXY UNKNOWN\n"), Malformed::LineEnd);
        assert_eq!(why("PROXY UNKNOWN\rx"), Malformed::LineEnd);
    }

    #[test]
    fn whole_lines_that_say_something_else_are_refused() {
        let bad = [
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", Malformed::LineEnd),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r\n", Malformed::LineEnd),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", Malformed::LineFields),
            ("PROXY TCP4\r\n", Malformed::LineFields),
            ("PROXY TCP4 \r\n", Malformed::LineAddress),
            ("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", Malformed::LineAddress),
            ("PROXY TCP4 1.2.3.4\t1.2.3.4 1 2\r\n", Malformed::LineAddress),
            ("PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", Malformed::LineAddress),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", Malformed::LineAddress),
            ("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", Malformed::LineAddress),
            ("PROXY TCP6 ::1 1.2.3.4 1 2\r\n", Malformed::LineAddress),
            ("PROXY TCP6 ::1%lo ::1 1 2\r\n", Malformed::LineAddress),
            ("PROXY TCP6 1::2::3 ::1 1 2\r\n", Malformed::LineAddress),
            ("PROXY TCP4 1.2.3.4 1.2.3.4  2\r\n", Malformed::LinePort),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", Malformed::LinePort),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", Malformed::LinePort),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 -2\r\n", Malformed::LinePort),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", Malformed::LineFields),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", Malformed::LineFields),
            ("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", Malformed::LineFamily),
            ("PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", Malformed::LineFamily),
            ("proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Malformed::NotAHeader),
        ];
        for (line, expected) in bad {
            assert_eq!(why(line), expected, "{line:?}");
        }
    }

    #[test]
    fn a_line_ends_within_107_bytes() {
        let line = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16));
        assert_eq!(told(&line(107)), "-");
        assert_eq!(why(&line(108)), Malformed::LineTooLong);
        assert_eq!(read(&line(108).as_bytes()[..105]), Ok(Read::NeedMore));
        assert_eq!(why(&line(108)[..106]), Malformed::LineTooLong);
        // Good addresses, but longer than any sender writes them.
        let address = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255";
        let begun = format!("PROXY TCP6 {address} {address} 65");
        assert_eq!(read(begun.as_bytes()), Ok(Read::NeedMore));
        assert_eq!(why(&format!("{begun}5")), Malformed::LineTooLong);
        let zeros = "0".repeat(45);
        assert_eq!(why(&format!("PROXY TCP6 {zeros}:")), Malformed::LineAddress);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let pairs = [
            ("192.0.2.1:56324", "198.51.100.2:443"),
            ("[2001:db8::1]:65535", "[2001:db8:1:2:3:4:5:6]:0"),
        ];
        for (source, destination) in pairs {
            assert_eq!(told(&written(source, destination)), format!("{source} {destination}"));
        }
    }

    #[test]
    fn ours_is_what_the_specification_shows() {
        let line = "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n";
        assert_eq!(written("192.168.0.1:56324", "192.168.0.11:443"), line);
        let mapped = written("[::ffff:192.168.0.1]:56324", "[::ffff:192.168.0.11]:443");
        assert_eq!(mapped, line);
        assert_eq!(written("[::1]:1", "[::2]:2"), "PROXY TCP6 ::1 ::2 1 2\r\n");
        assert_eq!(written("[::1]:1", "192.0.2.1:2"), "PROXY UNKNOWN\r\n");
        let mut out = Vec::new();
        write(None, &mut out);
        assert_eq!(out, b"PROXY UNKNOWN\r\n");
    }
}
