//! Version 2 of the PROXY protocol: binary, with more to tell in TLVs (section 2.2).

use std::net::{IpAddr, SocketAddr};
use std::str;

use super::crc32c::crc32c;
use super::{Addresses, Certificate, Header, Malformed, Pair, Stop, Tls, Tlvs};
use crate::limits::{PROXY_HEADER_BYTES_MAX, PROXY_UNIQUE_ID_BYTES_MAX};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and transport, and the length of what follows.
const FIXED_BYTES: usize = 16;
const LENGTH_AT: usize = 14;

const VERSION_2: u8 = 0x20;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_COMMON_NAME: u8 = 0x22;

const CHECKSUM_BYTES: usize = 4;

// Section 2.2.6.
const CLIENT_SSL: u8 = 1;
const CLIENT_CERTIFICATE: u8 = 2 | 4;

pub(super) fn read(bytes: &[u8]) -> Result<Header<'_>, Stop> {
    let signature = &bytes[..bytes.len().min(SIGNATURE.len())];
    if !SIGNATURE.starts_with(signature) {
        return Err(Malformed::NotAHeader.into());
    }
    let byte = |at: usize| bytes.get(at).copied().ok_or(Stop::NeedMore);
    let version_and_command = byte(12)?;
    if version_and_command & 0xf0 != VERSION_2 {
        return Err(Malformed::Version.into());
    }
    let spoken_for = match version_and_command & 0xf {
        // The rest is to be skipped, the family included.
        LOCAL => SpokenFor::Nobody,
        PROXY => SpokenFor::parse(byte(13)?)?,
        _ => return Err(Malformed::Command.into()),
    };
    let length = usize::from(u16::from_be_bytes([byte(14)?, byte(15)?]));
    if length > PROXY_HEADER_BYTES_MAX {
        return Err(Malformed::TooLong.into());
    }
    if length < spoken_for.address_bytes() {
        return Err(Malformed::TooShort.into());
    }
    let header = bytes.get(..FIXED_BYTES + length).ok_or(Stop::NeedMore)?;
    let tlvs = match spoken_for {
        // How long what is to be ignored may be is not said.
        SpokenFor::Nobody => Tlvs::default(),
        SpokenFor::Ipv4 | SpokenFor::Ipv6 | SpokenFor::Unix => {
            read_tlvs(header, FIXED_BYTES + spoken_for.address_bytes())?
        }
    };
    let addresses = spoken_for.addresses(&header[FIXED_BYTES..]);
    Ok(Header { length: header.len(), addresses, tlvs })
}

#[derive(Clone, Copy)]
enum SpokenFor {
    Nobody,
    Ipv4,
    Ipv6,
    Unix,
}

impl SpokenFor {
    fn parse(family_and_transport: u8) -> Result<SpokenFor, Malformed> {
        match (family_and_transport >> 4, family_and_transport & 0xf) {
            (0, 0 | 1) | (1..=3, 0) => Ok(SpokenFor::Nobody),
            (1, 1) => Ok(SpokenFor::Ipv4),
            (2, 1) => Ok(SpokenFor::Ipv6),
            (3, 1) => Ok(SpokenFor::Unix),
            (0..=3, 2) => Err(Malformed::Datagram),
            _ => Err(Malformed::Transport),
        }
    }

    fn address_bytes(self) -> usize {
        match self {
            SpokenFor::Nobody => 0,
            SpokenFor::Ipv4 => 2 * 4 + 2 * 2,
            SpokenFor::Ipv6 => 2 * 16 + 2 * 2,
            SpokenFor::Unix => 2 * 108,
        }
    }

    /// Both addresses, then both ports.
    fn addresses(self, block: &[u8]) -> Option<Addresses> {
        let (source, destination, ports): (IpAddr, IpAddr, _) = match self {
            SpokenFor::Ipv4 => {
                let (source, rest) = block.split_first_chunk::<4>()?;
                let (destination, ports) = rest.split_first_chunk::<4>()?;
                ((*source).into(), (*destination).into(), ports)
            }
            SpokenFor::Ipv6 => {
                let (source, rest) = block.split_first_chunk::<16>()?;
                let (destination, ports) = rest.split_first_chunk::<16>()?;
                ((*source).into(), (*destination).into(), ports)
            }
            SpokenFor::Nobody | SpokenFor::Unix => return None,
        };
        let [a, b, c, d] = *ports.first_chunk()?;
        Some(Addresses {
            source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
            destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
        })
    }
}

/// Those of a whole header, which begin at `start`. An empty value is as good as none.
fn read_tlvs(header: &[u8], start: usize) -> Result<Tlvs<'_>, Malformed> {
    let mut tlvs = Tlvs::default();
    let mut rest = &header[start..];
    let mut seen: u64 = 0;
    while !rest.is_empty() {
        let (kind, value) = take_tlv(&mut rest)?;
        if matches!(kind, ALPN | AUTHORITY | CRC32C | UNIQUE_ID | SSL) {
            let bit = 1 << kind;
            if seen & bit != 0 {
                return Err(Malformed::TlvRepeated);
            }
            seen |= bit;
        }
        match kind {
            ALPN => tlvs.alpn = Some(value).filter(|value| !value.is_empty()),
            AUTHORITY => tlvs.authority = Some(text(value)?).filter(|value| !value.is_empty()),
            CRC32C => {
                check(header, header.len() - rest.len() - value.len(), value)?;
                tlvs.checksum = true;
            }
            UNIQUE_ID if value.len() > PROXY_UNIQUE_ID_BYTES_MAX => {
                return Err(Malformed::UniqueId);
            }
            UNIQUE_ID => tlvs.unique_id = Some(value).filter(|value| !value.is_empty()),
            SSL => tlvs.tls = read_tls(value)?,
            // Padding, and what nobody here asks for.
            _ => {}
        }
    }
    Ok(tlvs)
}

fn take_tlv<'a>(rest: &mut &'a [u8]) -> Result<(u8, &'a [u8]), Malformed> {
    let ([kind, high, low], after) = rest.split_first_chunk().ok_or(Malformed::Tlv)?;
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let (value, after) = after.split_at_checked(length).ok_or(Malformed::Tlv)?;
    *rest = after;
    Ok((*kind, value))
}

/// What is told for people and logs.
fn text(value: &[u8]) -> Result<&str, Malformed> {
    let text = str::from_utf8(value).map_err(|_| Malformed::Text)?;
    if text.chars().any(char::is_control) { Err(Malformed::Text) } else { Ok(text) }
}

/// Section 2.2.3: the checksum was taken with zeros in its place.
fn check(header: &[u8], at: usize, value: &[u8]) -> Result<(), Malformed> {
    let told: [u8; CHECKSUM_BYTES] = value.try_into().map_err(|_| Malformed::Tlv)?;
    let found = crc32c([&header[..at], &[0; CHECKSUM_BYTES], &header[at + CHECKSUM_BYTES..]]);
    if found == u32::from_be_bytes(told) { Ok(()) } else { Err(Malformed::Checksum) }
}

/// Section 2.2.6. Senders say that nothing was wrong (0) also where nothing was shown.
fn read_tls(value: &[u8]) -> Result<Option<Tls<'_>>, Malformed> {
    let (&[client, verify @ ..], mut rest) =
        value.split_first_chunk::<5>().ok_or(Malformed::Tlv)?;
    let (mut version, mut common_name) = (None, None);
    while !rest.is_empty() {
        let (kind, value) = take_tlv(&mut rest)?;
        let slot = match kind {
            SSL_VERSION => &mut version,
            SSL_COMMON_NAME => &mut common_name,
            _ => continue,
        };
        if slot.replace(text(value)?).is_some() {
            return Err(Malformed::TlvRepeated);
        }
    }
    if client & CLIENT_SSL == 0 {
        return Ok(None);
    }
    let certificate = match u32::from_be_bytes(verify) {
        _ if client & CLIENT_CERTIFICATE == 0 => Certificate::None,
        0 => Certificate::Verified { common_name },
        verify => Certificate::Refused { verify },
    };
    Ok(Some(Tls { version, certificate }))
}

/// Appends a header of version 2. `None`, or addresses of two families: `LOCAL`, which tells
/// nothing else. A value that no reader would take (too long, or not to be printed) is left out.
pub fn write(addresses: Option<Addresses>, tlvs: &Tlvs<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend(SIGNATURE);
    match addresses.and_then(Pair::of) {
        Some(Pair::V4(source, destination)) => {
            out.extend([VERSION_2 | PROXY, TCP_OVER_IPV4, 0, 0]);
            out.extend(source.ip().octets());
            out.extend(destination.ip().octets());
            out.extend(source.port().to_be_bytes());
            out.extend(destination.port().to_be_bytes());
        }
        Some(Pair::V6(source, destination)) => {
            out.extend([VERSION_2 | PROXY, TCP_OVER_IPV6, 0, 0]);
            out.extend(source.ip().octets());
            out.extend(destination.ip().octets());
            out.extend(source.port().to_be_bytes());
            out.extend(destination.port().to_be_bytes());
        }
        None => {
            out.extend([VERSION_2 | LOCAL, 0, 0, 0]);
            return;
        }
    }
    let checksum_at = write_tlvs(tlvs, start, out);
    let length = out.len() - start - FIXED_BYTES;
    let length = u16::try_from(length).expect("write_tlvs keeps below the bound");
    out[start + LENGTH_AT..start + FIXED_BYTES].copy_from_slice(&length.to_be_bytes());
    if let Some(at) = checksum_at {
        let checksum = crc32c([&out[start..]]);
        out[at..at + CHECKSUM_BYTES].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Appends to the header that begins at `start`. Says where the checksum belongs, once all else is
/// written.
fn write_tlvs(tlvs: &Tlvs<'_>, start: usize, out: &mut Vec<u8>) -> Option<usize> {
    let checksum_at = tlvs.checksum.then(|| {
        write_tlv(CRC32C, &[0; CHECKSUM_BYTES], start, out);
        out.len() - CHECKSUM_BYTES
    });
    if let Some(alpn) = tlvs.alpn {
        write_tlv(ALPN, alpn, start, out);
    }
    if let Some(authority) = tlvs.authority {
        write_text(AUTHORITY, authority, start, out);
    }
    if let Some(unique_id) = tlvs.unique_id
        && unique_id.len() <= PROXY_UNIQUE_ID_BYTES_MAX
    {
        write_tlv(UNIQUE_ID, unique_id, start, out);
    }
    if let Some(tls) = tlvs.tls {
        write_tlv(SSL, &tls_value(&tls), start, out);
    }
    checksum_at
}

/// Section 2.2.6. A session that goes on counts as if the certificate had been shown again: some
/// readers ask for that bit only.
fn tls_value(tls: &Tls<'_>) -> Vec<u8> {
    let (client, verify, common_name) = match tls.certificate {
        Certificate::None => (CLIENT_SSL, 1, None),
        Certificate::Refused { verify } => (CLIENT_SSL | CLIENT_CERTIFICATE, verify.max(1), None),
        Certificate::Verified { common_name } => (CLIENT_SSL | CLIENT_CERTIFICATE, 0, common_name),
    };
    let mut value = vec![client];
    value.extend(u32::to_be_bytes(verify));
    if let Some(version) = tls.version {
        write_text(SSL_VERSION, version, 0, &mut value);
    }
    if let Some(common_name) = common_name {
        write_text(SSL_COMMON_NAME, common_name, 0, &mut value);
    }
    value
}

fn write_text(kind: u8, value: &str, start: usize, out: &mut Vec<u8>) {
    if text(value.as_bytes()).is_ok() {
        write_tlv(kind, value.as_bytes(), start, out);
    }
}

/// Unless the header that begins at `start` would become too long.
fn write_tlv(kind: u8, value: &[u8], start: usize, out: &mut Vec<u8>) {
    const HEAD_BYTES: usize = 3;
    let taken = out.len() - start + HEAD_BYTES;
    let room = (FIXED_BYTES + PROXY_HEADER_BYTES_MAX).saturating_sub(taken);
    match u16::try_from(value.len()) {
        Ok(length) if value.len() <= room => {
            out.push(kind);
            out.extend(length.to_be_bytes());
            out.extend(value);
        }
        Ok(_) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Read, read};
    use super::*;

    /// What HAProxy 2.6 really sent.
    macro_rules! sent {
        ($header:literal) => {
            include_bytes!(concat!("../../../tests/fuzz/corpus/proxy_protocol/", $header))
                .as_slice()
        };
    }

    const ALL_SENT: [&[u8]; 5] = [
        sent!("haproxy_local"),
        sent!("haproxy_v2"),
        sent!("haproxy_v2_ipv6"),
        sent!("haproxy_v2_tls"),
        sent!("haproxy_v2_certificate"),
    ];

    const IPV4_BLOCK: &[u8] = b"\xc0\0\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb";

    fn header(bytes: &[u8]) -> Header<'_> {
        match read(bytes) {
            Ok(Read::Header(header)) => header,
            Ok(Read::NeedMore) => panic!("it is whole"),
            Err(malformed) => panic!("{}", malformed.message()),
        }
    }

    fn why(bytes: &[u8]) -> Malformed {
        read(bytes).expect_err("this is no header")
    }

    fn addresses(source: &str, destination: &str) -> Option<Addresses> {
        let [source, destination] = [source, destination].map(|text| text.parse().unwrap());
        Some(Addresses { source, destination })
    }

    fn v2(command: u8, transport: u8, block: &[u8]) -> Vec<u8> {
        let length = (block.len() as u16).to_be_bytes();
        [SIGNATURE.as_slice(), &[VERSION_2 | command, transport], &length, block].concat()
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind], (value.len() as u16).to_be_bytes().as_slice(), value].concat()
    }

    fn telling(tlvs: &[Vec<u8>]) -> Vec<u8> {
        v2(PROXY, TCP_OVER_IPV4, &[IPV4_BLOCK, &tlvs.concat()].concat())
    }

    fn written(addresses: Option<Addresses>, tlvs: &Tlvs<'_>) -> Vec<u8> {
        let mut out = b"before".to_vec();
        write(addresses, tlvs, &mut out);
        assert!(out.starts_with(b"before"));
        out.split_off(6)
    }

    #[test]
    fn what_haproxy_tells_is_read() {
        let local = header(sent!("haproxy_local"));
        assert_eq!(local, Header { length: 16, addresses: None, tlvs: Tlvs::default() });

        let v2 = header(sent!("haproxy_v2"));
        assert_eq!(v2.addresses, addresses("127.0.0.1:41414", "127.0.0.1:39235"));
        assert_eq!(v2.tlvs.unique_id, Some(b"967039135-127.0.0.1".as_slice()));
        assert!(v2.tlvs.checksum);
        assert!(sent!("haproxy_v2")[v2.length..].starts_with(b"GET / HTTP/1.1"));

        let ipv6 = header(sent!("haproxy_v2_ipv6"));
        assert_eq!(ipv6.addresses, addresses("[::1]:41252", "[::1]:59563"));
        assert_eq!(ipv6.tlvs, Tlvs { checksum: true, ..Tlvs::default() });

        let tls = Tls { version: Some("TLSv1.3"), certificate: Certificate::None };
        let expected = Tlvs {
            alpn: Some(b"http/1.1"),
            authority: Some("www.example.test"),
            unique_id: None,
            tls: Some(tls),
            checksum: true,
        };
        assert_eq!(header(sent!("haproxy_v2_tls")).tlvs, expected);

        let certificate = Certificate::Verified { common_name: Some("alice") };
        let expected = Tlvs { tls: Some(Tls { certificate, ..tls }), ..expected };
        assert_eq!(header(sent!("haproxy_v2_certificate")).tlvs, expected);
    }

    #[test]
    fn every_truncation_needs_more() {
        for sent in ALL_SENT {
            let length = header(sent).length;
            for end in 0..length {
                assert_eq!(read(&sent[..end]), Ok(Read::NeedMore), "{end} of {length}");
            }
        }
    }

    #[test]
    fn every_mutation_of_a_byte_is_found_by_the_checksum_or_the_reader() {
        let sent = sent!("haproxy_v2_certificate");
        let length = header(sent).length;
        let mut mutated = sent.to_vec();
        for at in 0..length {
            for byte in (0..=u8::MAX).filter(|byte| *byte != sent[at]) {
                mutated[at] = byte;
                let found = read(&mutated);
                // Byte 12 can say LOCAL, where nothing is to be looked at. Byte 13 can say that
                // there are no addresses. A longer header has not come whole. The checksum's own
                // type can become one that is passed over.
                let excused = matches!(at, 12..=15 | 28);
                assert!(found.is_err() || excused, "{byte:02x} at {at}: {found:?}");
            }
            mutated[at] = sent[at];
        }
    }

    #[test]
    fn a_signature_that_breaks_off_is_refused_at_once() {
        for at in 1..SIGNATURE.len() {
            let begun = [&SIGNATURE[..at], b"x"].concat();
            assert_eq!(why(&begun), Malformed::NotAHeader);
        }
        assert_eq!(why(b"\r\nGET / HTTP/1.1"), Malformed::NotAHeader);
        let fixed = |bytes: &[u8]| [SIGNATURE.as_slice(), bytes].concat();
        assert_eq!(why(&fixed(&[0x11])), Malformed::Version);
        assert_eq!(why(&fixed(&[0x31])), Malformed::Version);
        assert_eq!(why(&fixed(&[0x22])), Malformed::Command);
        for (transport, expected) in [
            (0x12, Malformed::Datagram),
            (0x22, Malformed::Datagram),
            (0x32, Malformed::Datagram),
            (0x13, Malformed::Transport),
            (0x41, Malformed::Transport),
            (0xf0, Malformed::Transport),
        ] {
            assert_eq!(why(&fixed(&[0x21, transport])), expected, "{transport:02x}");
        }
    }

    #[test]
    fn lengths_are_judged_before_the_rest_has_come() {
        let begun = |transport: u8, length: usize| {
            let length = (length as u16).to_be_bytes();
            [SIGNATURE.as_slice(), &[VERSION_2 | PROXY, transport], &length].concat()
        };
        for (transport, least) in [(0x11, 12), (0x21, 36), (0x31, 216)] {
            assert_eq!(why(&begun(transport, least - 1)), Malformed::TooShort);
            assert_eq!(read(&begun(transport, least)), Ok(Read::NeedMore));
        }
        assert_eq!(read(&begun(0x11, PROXY_HEADER_BYTES_MAX)), Ok(Read::NeedMore));
        assert_eq!(why(&begun(0x11, PROXY_HEADER_BYTES_MAX + 1)), Malformed::TooLong);
        assert_eq!(why(&begun(0, 0xffff)), Malformed::TooLong);
    }

    #[test]
    fn whoever_speaks_for_nobody_is_believed_and_the_rest_is_skipped() {
        let garbage = [0xff; 30];
        let nobody = |bytes: Vec<u8>| {
            let header = header(&bytes);
            assert_eq!((header.length, header.addresses), (bytes.len(), None));
            assert_eq!(header.tlvs, Tlvs::default());
        };
        for transport in [0, 0x11, 0x12, 0x21, 0xff] {
            nobody(v2(LOCAL, transport, &garbage));
            nobody(v2(LOCAL, transport, b""));
        }
        for transport in [0, 0x01, 0x10, 0x20, 0x30] {
            nobody(v2(PROXY, transport, &garbage));
        }
    }

    #[test]
    fn unix_sockets_have_no_addresses_but_tlvs() {
        let block = [vec![b'/'; 216], tlv(UNIQUE_ID, b"7")].concat();
        let bytes = v2(PROXY, 0x31, &block);
        let header = header(&bytes);
        assert_eq!((header.length, header.addresses), (bytes.len(), None));
        assert_eq!(header.tlvs.unique_id, Some(b"7".as_slice()));
    }

    #[test]
    fn tlvs_that_nobody_asks_for_are_skipped() {
        let bytes = telling(&[
            tlv(4, b"padding"),
            tlv(4, b""),
            tlv(0x30, b"netns"),
            tlv(0xea, b"\x01vpce-1"),
            tlv(ALPN, b"h2"),
            tlv(0xff, b""),
        ]);
        let header = header(&bytes);
        assert_eq!(header.addresses, addresses("192.0.2.1:56324", "198.51.100.2:443"));
        assert_eq!(header.tlvs, Tlvs { alpn: Some(b"h2"), ..Tlvs::default() });
    }

    #[test]
    fn tlvs_that_do_not_fit_are_refused() {
        let long_id = [7; PROXY_UNIQUE_ID_BYTES_MAX + 1];
        assert_eq!(
            header(&telling(&[tlv(UNIQUE_ID, &long_id[1..])])).tlvs.unique_id,
            Some(&long_id[1..])
        );
        let ssl = |rest: &[u8]| tlv(SSL, &[&[1, 0, 0, 0, 0], rest].concat());
        let bad = [
            (vec![vec![ALPN]], Malformed::Tlv),
            (vec![vec![ALPN, 0]], Malformed::Tlv),
            (vec![vec![ALPN, 0, 1]], Malformed::Tlv),
            (vec![vec![0xee, 0xff, 0xff, 1]], Malformed::Tlv),
            (vec![tlv(CRC32C, b"abc")], Malformed::Tlv),
            (vec![tlv(CRC32C, b"abcd")], Malformed::Checksum),
            (vec![tlv(SSL, b"\x01\0\0\0")], Malformed::Tlv),
            (vec![ssl(b"\x21\0\x02a")], Malformed::Tlv),
            (
                vec![ssl(&[tlv(SSL_VERSION, b"a"), tlv(SSL_VERSION, b"a")].concat())],
                Malformed::TlvRepeated,
            ),
            (vec![ssl(&tlv(SSL_COMMON_NAME, b"a\r\nb"))], Malformed::Text),
            (vec![tlv(UNIQUE_ID, &long_id)], Malformed::UniqueId),
            (vec![tlv(AUTHORITY, b"a\0b")], Malformed::Text),
            (vec![tlv(AUTHORITY, b"\xff")], Malformed::Text),
            (vec![tlv(AUTHORITY, b"a.test"), tlv(AUTHORITY, b"b.test")], Malformed::TlvRepeated),
            (vec![tlv(SSL, &[0; 5]), tlv(SSL, &[0; 5])], Malformed::TlvRepeated),
        ];
        for (tlvs, expected) in bad {
            assert_eq!(why(&telling(&tlvs)), expected, "{tlvs:?}");
        }
    }

    #[test]
    fn a_certificate_is_verified_only_if_one_was_shown_and_nothing_was_wrong() {
        let told = |client: u8, verify: u32| {
            let name = tlv(SSL_COMMON_NAME, b"alice");
            let value = [&[client], verify.to_be_bytes().as_slice(), &name].concat();
            header(&telling(&[tlv(SSL, &value)])).tlvs.tls.map(|tls| match tls.certificate {
                Certificate::None => "none".to_owned(),
                Certificate::Refused { verify } => verify.to_string(),
                Certificate::Verified { common_name } => common_name.unwrap().to_owned(),
            })
        };
        assert_eq!(told(0, 0), None);
        assert_eq!(told(6, 0), None);
        assert_eq!(told(1, 0).unwrap(), "none");
        assert_eq!(told(1, 10).unwrap(), "none");
        assert_eq!(told(3, 10).unwrap(), "10");
        assert_eq!(told(3, 0).unwrap(), "alice");
        assert_eq!(told(5, 0).unwrap(), "alice");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let pairs = [
            addresses("192.0.2.1:1", "198.51.100.2:65535"),
            addresses("[2001:db8::1]:1", "[2001:db8::2]:443"),
        ];
        let certificates = [
            Certificate::None,
            Certificate::Refused { verify: 10 },
            Certificate::Verified { common_name: None },
            Certificate::Verified { common_name: Some("M\u{fc}ller") },
        ];
        for addresses in pairs {
            for certificate in certificates {
                let tlvs = Tlvs {
                    alpn: Some(b"h2"),
                    authority: Some("www.example.test"),
                    unique_id: Some(&[0; PROXY_UNIQUE_ID_BYTES_MAX]),
                    tls: Some(Tls { version: Some("TLSv1.3"), certificate }),
                    checksum: true,
                };
                for tlvs in [tlvs, Tlvs { checksum: false, ..tlvs }, Tlvs::default()] {
                    let bytes = written(addresses, &tlvs);
                    let expected = Header { length: bytes.len(), addresses, tlvs };
                    assert_eq!(header(&bytes), expected);
                }
            }
        }
    }

    #[test]
    fn ours_is_what_the_specification_draws() {
        let bytes = written(addresses("192.0.2.1:56324", "198.51.100.2:443"), &Tlvs::default());
        assert_eq!(bytes, v2(PROXY, 0x11, IPV4_BLOCK));
        let local = v2(LOCAL, 0, b"");
        let tlvs = Tlvs { authority: Some("a.test"), checksum: true, ..Tlvs::default() };
        assert_eq!(written(None, &tlvs), local);
        assert_eq!(written(addresses("192.0.2.1:1", "[2001:db8::1]:2"), &tlvs), local);
    }

    #[test]
    fn ipv4_through_a_socket_of_ipv6_is_ipv4() {
        let mapped = addresses("[::ffff:192.0.2.1]:56324", "[::ffff:198.51.100.2]:443");
        assert_eq!(written(mapped, &Tlvs::default()), v2(PROXY, 0x11, IPV4_BLOCK));
    }

    #[test]
    fn values_that_no_reader_takes_are_left_out() {
        let long = "a".repeat(70_000);
        let tlvs = Tlvs {
            alpn: Some(long.as_bytes()),
            authority: Some("a\nb"),
            unique_id: Some(&long.as_bytes()[..PROXY_UNIQUE_ID_BYTES_MAX + 1]),
            tls: Some(Tls {
                version: Some("TLSv1.2"),
                certificate: Certificate::Verified { common_name: Some(&long) },
            }),
            checksum: true,
        };
        let bytes = written(addresses("192.0.2.1:1", "192.0.2.2:2"), &tlvs);
        let certificate = Certificate::Verified { common_name: None };
        let tls = Some(Tls { version: Some("TLSv1.2"), certificate });
        let expected = Tlvs { tls, checksum: true, ..Tlvs::default() };
        assert_eq!(header(&bytes).tlvs, expected);
    }

    #[test]
    fn a_header_as_long_as_allowed_is_written_and_read() {
        let room = PROXY_HEADER_BYTES_MAX - IPV4_BLOCK.len() - 3;
        let long = vec![b'a'; room + 1];
        let pair = addresses("192.0.2.1:1", "192.0.2.2:2");
        let of = |alpn| written(pair, &Tlvs { alpn: Some(alpn), ..Tlvs::default() });
        assert_eq!(header(&of(&long[1..])).tlvs.alpn, Some(&long[1..]));
        assert_eq!(header(&of(&long)).tlvs.alpn, None);
    }
}
