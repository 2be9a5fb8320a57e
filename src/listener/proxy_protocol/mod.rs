//! PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt, whose sections are cited): what
//! a peer that carries somebody else's connection says of it before anything else. Reading and
//! writing, of bytes only: a listener decides from whom it takes a header, a cluster whom it sends
//! one.

mod crc32c;
mod v1;
mod v2;

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

pub use self::v1::write as write_v1;
pub use self::v2::write as write_v2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// These bytes begin a header.
    NeedMore,
    Header(Header<'a>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Bytes that it takes: the connection itself begins behind them.
    pub length: usize,
    /// `None`: the sender speaks for itself, or for something that has no such addresses; those of
    /// the socket hold.
    pub addresses: Option<Addresses>,
    pub tlvs: Tlvs<'a>,
}

/// Both ends of the connection that is spoken for, as its first proxy saw them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// What else is told of the connection: of version 2 only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tlvs<'a> {
    /// The protocol that was agreed on (RFC 7301).
    pub alpn: Option<&'a [u8]>,
    /// The host that the client named. No control character, but not known to be a host.
    pub authority: Option<&'a str>,
    /// Any bytes, at most `PROXY_UNIQUE_ID_BYTES_MAX`.
    pub unique_id: Option<&'a [u8]>,
    /// `None`: the client did not use TLS, or nothing is said of it.
    pub tls: Option<Tls<'a>>,
    /// The header has a checksum. Where it was read, it was right.
    pub checksum: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls<'a> {
    /// As OpenSSL writes it: `TLSv1.3`.
    pub version: Option<&'a str>,
    pub certificate: Certificate<'a>,
}

/// What the client showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate<'a> {
    None,
    /// Never 0: what the sender's library says is wrong with it.
    Refused {
        verify: u32,
    },
    Verified {
        common_name: Option<&'a str>,
    },
}

/// One table: variant, label, message.
macro_rules! malformed {
    ($($variant:ident $label:literal $message:literal)*) => {
        /// Why bytes are no header, and never will be.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Malformed { $($variant,)* }

        impl Malformed {
            pub const ALL: &[Malformed] = &[$(Malformed::$variant,)*];

            /// For metrics and logs.
            pub fn label(self) -> &'static str {
                match self { $(Malformed::$variant => $label,)* }
            }

            /// For the log: what was wrong, and where that is written.
            pub fn message(self) -> &'static str {
                match self { $(Malformed::$variant => $message,)* }
            }
        }
    };
}

malformed! {
    NotAHeader "not_a_header"
        "the connection does not begin with a PROXY protocol header (2)"
    LineTooLong "line_too_long"
        "the line does not end within 107 bytes (2.1)"
    LineEnd "line_end"
        "a CR or LF stands without the other (2.1)"
    LineFamily "line_family"
        "the family is none of TCP4, TCP6 and UNKNOWN (2.1)"
    LineFields "line_fields"
        "the line has not two addresses and two ports, one space between (2.1)"
    LineAddress "line_address"
        "an address is none of its family (2.1)"
    LinePort "line_port"
        "a port is no number from 0 to 65535 without zeros before it (2.1)"
    Version "version"
        "the version is not 2 (2.2)"
    Command "command"
        "the command is neither LOCAL nor PROXY (2.2)"
    Transport "transport"
        "the family or the transport is one that version 2 does not have (2.2)"
    Datagram "datagram"
        "the header speaks for datagrams (2.2)"
    TooShort "too_short"
        "the header has no room for its addresses (2.2)"
    TooLong "too_long"
        "the header is longer than this server accepts"
    Tlv "tlv"
        "a TLV does not fit into what holds it, or its value is no such value (2.2)"
    TlvRepeated "tlv_repeated"
        "a TLV that may be told once is told twice"
    UniqueId "unique_id"
        "the unique id is longer than 128 bytes (2.2.5)"
    Text "text"
        "a host, a TLS version or a common name is no UTF-8, or has control characters (2.2)"
    Checksum "checksum"
        "the checksum is wrong (2.2.3)"
}

/// `bytes` are all that a peer has sent. Of a header that is not whole, only as much is looked at
/// as tells that it may still become one.
pub fn read(bytes: &[u8]) -> Result<Read<'_>, Malformed> {
    let read = match bytes.first() {
        None => Err(Stop::NeedMore),
        Some(b'P') => v1::read(bytes),
        Some(b'\r') => v2::read(bytes),
        Some(_) => Err(Malformed::NotAHeader.into()),
    };
    match read {
        Ok(header) => Ok(Read::Header(header)),
        Err(Stop::NeedMore) => Ok(Read::NeedMore),
        Err(Stop::Malformed(malformed)) => Err(malformed),
    }
}

/// Why reading ends without a header.
enum Stop {
    NeedMore,
    Malformed(Malformed),
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Stop {
        Stop::Malformed(malformed)
    }
}

/// Addresses of one family. Those of IPv4 that were accepted by a socket of IPv6 are IPv4.
enum Pair {
    V4(SocketAddrV4, SocketAddrV4),
    V6(SocketAddrV6, SocketAddrV6),
}

impl Pair {
    fn of(addresses: Addresses) -> Option<Pair> {
        let plain =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let Addresses { source, destination } = addresses;
        match (plain(source), plain(destination), source, destination) {
            (SocketAddr::V4(source), SocketAddr::V4(destination), _, _) => {
                Some(Pair::V4(source, destination))
            }
            (_, _, SocketAddr::V6(source), SocketAddr::V6(destination)) => {
                Some(Pair::V6(source, destination))
            }
            (SocketAddr::V4(_) | SocketAddr::V6(_), _, _, _) => None,
        }
    }
}

/// For the fuzzer. What is said of bytes stays true when more come, and what is read can be
/// written and read again.
pub fn fuzz(bytes: &[u8]) {
    let whole = read(bytes);
    for end in 0..bytes.len().min(600) {
        match read(&bytes[..end]) {
            Ok(Read::NeedMore) => {}
            Ok(Read::Header(header)) => {
                assert!(header.length <= end);
                assert_eq!(whole, Ok(Read::Header(header)));
            }
            Err(malformed) => assert_eq!(whole, Err(malformed)),
        }
    }
    let Ok(Read::Header(header)) = whole else { return };
    assert!(header.length <= bytes.len());
    let mut out = Vec::new();
    write_v1(header.addresses, &mut out);
    let again = read(&out).map(|read| matches!(read, Read::Header(h) if h.length == out.len()));
    assert_eq!(again, Ok(true));
    let mut out = Vec::new();
    write_v2(header.addresses, &header.tlvs, &mut out);
    let Ok(Read::Header(again)) = read(&out) else { panic!("a header of ours is refused") };
    assert_eq!(again.length, out.len());
    if let Some(addresses) = again.addresses {
        assert_eq!(header.addresses.map(|read| read.source.port()), Some(addresses.source.port()));
        assert_eq!(again.tlvs, header.tlvs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_snake_case_and_differ() {
        for (at, malformed) in Malformed::ALL.iter().enumerate() {
            let label = malformed.label();
            assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            assert!(Malformed::ALL[..at].iter().all(|other| other.label() != label));
            assert!(!malformed.message().ends_with('.'));
        }
    }
}
