//! The first message of a TLS client (RFC 8446 section 4.1.2), read before anything of TLS is
//! begun: the host it names decides which configuration answers, or which cluster gets the
//! connection unopened. Bytes are only looked at: rustls reads them again, and judges what is not
//! looked at here. A listener asks again with more bytes while [`Peeked::NeedMore`].

use std::borrow::Cow;
use std::net::IpAddr;
use std::str;

use crate::limits::{CLIENT_HELLO_BYTES_MAX, CLIENT_HELLO_RECORDS_MAX};

/// Whether a connection that begins with this byte speaks TLS: a handshake record.
pub fn is_tls(first: u8) -> bool {
    first == HANDSHAKE
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peeked {
    /// These bytes begin a ClientHello.
    NeedMore,
    Hello(ClientHello),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// In lower case, without a dot at the end. `None`: the client names none, or an address.
    pub server_name: Option<Box<str>>,
    pub alpn: Protocols,
    pub versions: Offered,
}

/// What a client would speak inside (RFC 7301), the dearest to it first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protocols {
    /// Each with its length before it.
    wire: Box<[u8]>,
}

impl Protocols {
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = Reader(&self.wire);
        std::iter::from_fn(move || rest.vector8())
    }

    pub fn contains(&self, protocol: &[u8]) -> bool {
        self.iter().any(|offered| offered == protocol)
    }
}

/// Neither: only older versions, or ones that nobody knows yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    pub v1_2: bool,
    pub v1_3: bool,
}

/// One table: variant, label, message.
macro_rules! not_a_hello {
    ($($variant:ident $label:literal $message:literal)*) => {
        /// Why bytes are no ClientHello, and never will be.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum NotAHello { $($variant,)* }

        impl NotAHello {
            pub const ALL: &[NotAHello] = &[$(NotAHello::$variant,)*];

            /// For metrics and logs.
            pub fn label(self) -> &'static str {
                match self { $(NotAHello::$variant => $label,)* }
            }

            /// For the log: what was wrong, and where that is written.
            pub fn message(self) -> &'static str {
                match self { $(NotAHello::$variant => $message,)* }
            }
        }
    };
}

not_a_hello! {
    NotTls "not_tls"
        "the client does not speak TLS"
    PlainHttp "plain_http"
        "the client speaks HTTP without TLS; is its URL `http://` instead of `https://`?"
    ProxyHeader "proxy_header"
        "a PROXY protocol header came; this listener does not expect one from that peer"
    SslV2 "ssl_v2"
        "the client greets as SSL 2.0 did (RFC 6176)"
    Alert "alert"
        "the client sent an alert before its ClientHello was whole (RFC 8446 6)"
    OtherRecord "other_record"
        "a record that is no handshake came before the ClientHello was whole (RFC 8446 5.1)"
    RecordVersion "record_version"
        "the version of a record is none of SSL 3.0 or TLS (RFC 8446 5.1)"
    RecordEmpty "record_empty"
        "a handshake record has no bytes (RFC 8446 5.1)"
    RecordTooLong "record_too_long"
        "a record has more than 16384 bytes (RFC 8446 5.1)"
    TooManyRecords "too_many_records"
        "the ClientHello is cut into more records than this server accepts"
    OtherMessage "other_message"
        "the first handshake message is no ClientHello (RFC 8446 4)"
    TooLong "too_long"
        "the ClientHello is longer than this server accepts"
    Malformed "malformed"
        "the parts of the ClientHello do not fit into it (RFC 8446 4.1.2)"
    Extension "extension"
        "server_name, ALPN or supported_versions is not what its extension holds (RFC 8446 4.2)"
    ExtensionRepeated "extension_repeated"
        "ALPN or supported_versions stands twice (RFC 8446 4.2)"
    ServerNameRepeated "server_name_repeated"
        "the client names more than one host (RFC 6066 3)"
    ServerName "server_name"
        "the client names something that is no host (RFC 6066 3)"
}

/// `bytes` are all that a client has sent. While they are no whole ClientHello, only the headers of
/// its records are looked at.
pub fn peek(bytes: &[u8]) -> Result<Peeked, NotAHello> {
    match body(bytes)? {
        Some(body) => parse(&body).map(Peeked::Hello),
        None => Ok(Peeked::NeedMore),
    }
}

// RFC 8446 section 5.1.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const RECORD_BYTES_MAX: usize = 1 << 14;
/// SSL 3.0 and all of TLS; what stands after it is to be ignored.
const RECORD_VERSION_MAJOR: u8 = 3;

// RFC 8446 section 4: the type of a message, and three bytes of length.
const CLIENT_HELLO: u8 = 1;
const HEAD_BYTES: usize = 4;

/// The ClientHello behind its head; `None` while it is not whole. One that lies in one record, as
/// nearly all do, is not copied.
fn body(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, NotAHello> {
    let mut head = [0; HEAD_BYTES];
    let mut present = 0;
    let mut records = Records { rest: bytes, begun: 0 };
    while let Some(fragment) = records.next()? {
        for (slot, byte) in head.iter_mut().skip(present).zip(fragment) {
            *slot = *byte;
        }
        let in_first = present == 0;
        present += fragment.len();
        if head[0] != CLIENT_HELLO {
            return Err(NotAHello::OtherMessage);
        }
        if present < HEAD_BYTES {
            continue;
        }
        let [_, length @ ..] = head;
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if length > CLIENT_HELLO_BYTES_MAX {
            return Err(NotAHello::TooLong);
        }
        let end = HEAD_BYTES + length;
        if present >= end && in_first {
            return Ok(Some(Cow::Borrowed(&fragment[HEAD_BYTES..end])));
        }
        if present >= end {
            return joined(bytes, end).map(|body| Some(Cow::Owned(body)));
        }
    }
    Ok(None)
}

/// A message that ends at `end` of what the records hold, without its head.
fn joined(bytes: &[u8], end: usize) -> Result<Vec<u8>, NotAHello> {
    let mut message = Vec::with_capacity(end);
    let mut records = Records { rest: bytes, begun: 0 };
    while let Some(fragment) = records.next()? {
        let missing = end - message.len();
        message.extend(&fragment[..fragment.len().min(missing)]);
        if message.len() == end {
            break;
        }
    }
    message.drain(..HEAD_BYTES);
    Ok(message)
}

/// The records that a client begins with, one after the other.
struct Records<'a> {
    rest: &'a [u8],
    begun: usize,
}

impl<'a> Records<'a> {
    /// What has come of the next one: at least one byte. Fails at the first byte that none of ours
    /// can have.
    fn next(&mut self) -> Result<Option<&'a [u8]>, NotAHello> {
        let (&kind, fields) = match self.rest {
            [] => return Ok(None),
            [kind, fields @ ..] => (kind, fields),
        };
        if kind != HANDSHAKE {
            return Err(if self.begun == 0 { stranger(self.rest) } else { other_record(kind) });
        }
        if self.begun == CLIENT_HELLO_RECORDS_MAX {
            return Err(NotAHello::TooManyRecords);
        }
        if fields.first().is_some_and(|major| *major != RECORD_VERSION_MAJOR) {
            return Err(NotAHello::RecordVersion);
        }
        let [_, _, high, low, payload @ ..] = fields else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        match length {
            0 => return Err(NotAHello::RecordEmpty),
            1..=RECORD_BYTES_MAX => {}
            _ => return Err(NotAHello::RecordTooLong),
        }
        self.begun += 1;
        let (fragment, rest) = payload.split_at(payload.len().min(length));
        self.rest = rest;
        Ok((!fragment.is_empty()).then_some(fragment))
    }
}

/// What somebody speaks who does not begin with a handshake.
#[cold]
fn stranger(bytes: &[u8]) -> NotAHello {
    const METHODS: [&[u8]; 10] = [
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"PUT ",
        b"DELETE ",
        b"OPTIONS ",
        b"PATCH ",
        b"CONNECT ",
        b"TRACE ",
        b"PRI ",
    ];
    const PROXY_HEADERS: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
    let begins = |known: &&[u8]| bytes.starts_with(known) || known.starts_with(bytes);
    match bytes {
        _ if METHODS.iter().any(begins) => NotAHello::PlainHttp,
        _ if PROXY_HEADERS.iter().any(begins) => NotAHello::ProxyHeader,
        // RFC 5246 appendix E.2: the length's highest bit, the type, and a version.
        [0x80..=0xff, _, CLIENT_HELLO, 0, 2, ..] => NotAHello::SslV2,
        [0x80..=0xff, _, CLIENT_HELLO, RECORD_VERSION_MAJOR, _, ..] => NotAHello::SslV2,
        // The other records of TLS.
        [kind @ 20..=24, RECORD_VERSION_MAJOR, ..] => other_record(*kind),
        _ => NotAHello::NotTls,
    }
}

fn other_record(kind: u8) -> NotAHello {
    if kind == ALERT { NotAHello::Alert } else { NotAHello::OtherRecord }
}

// RFC 8446 section 4.2.
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

const TLS_1_2: u16 = 0x0303;
const TLS_1_3: u16 = 0x0304;

fn parse(body: &[u8]) -> Result<ClientHello, NotAHello> {
    let (legacy_version, extensions) = parts(body).ok_or(NotAHello::Malformed)?;
    let (mut server_name, mut alpn, mut versions) = (None, None, None);
    let mut rest = Reader(extensions);
    while !rest.0.is_empty() {
        let (kind, data) = rest.extension().ok_or(NotAHello::Malformed)?;
        let (slot, repeated) = match kind {
            SERVER_NAME => (&mut server_name, NotAHello::ServerNameRepeated),
            ALPN => (&mut alpn, NotAHello::ExtensionRepeated),
            SUPPORTED_VERSIONS => (&mut versions, NotAHello::ExtensionRepeated),
            _ => continue,
        };
        if slot.replace(data).is_some() {
            return Err(repeated);
        }
    }
    Ok(ClientHello {
        server_name: server_name.map(host).transpose()?.flatten(),
        alpn: alpn.map(protocols).transpose()?.unwrap_or_default(),
        versions: match versions {
            Some(data) => offered(data).ok_or(NotAHello::Extension)?,
            None => Offered { v1_2: legacy_version >= TLS_1_2, v1_3: false },
        },
    })
}

/// RFC 8446 section 4.1.2: the legacy version and the extensions, of which there may be none.
fn parts(body: &[u8]) -> Option<(u16, &[u8])> {
    const RANDOM_BYTES: usize = 32;
    const SESSION_ID_BYTES_MAX: usize = 32;
    let mut body = Reader(body);
    let legacy_version = body.number()?;
    body.take(RANDOM_BYTES)?;
    let session_id = body.vector8()?;
    let suites = body.vector16()?;
    let compressions = body.vector8()?;
    let extensions = if body.0.is_empty() { &[] } else { body.vector16()? };
    let fits = session_id.len() <= SESSION_ID_BYTES_MAX
        && !suites.is_empty()
        && suites.len().is_multiple_of(2)
        && !compressions.is_empty()
        && body.0.is_empty();
    fits.then_some((legacy_version, extensions))
}

/// RFC 6066 section 3. What other kind of name follows, and how long it is, cannot be known.
fn host(data: &[u8]) -> Result<Option<Box<str>>, NotAHello> {
    const HOST_NAME: u8 = 0;
    let mut names = Reader(data).whole16().ok_or(NotAHello::Extension)?;
    let mut found = None;
    while let Some([HOST_NAME]) = names.take(1) {
        let name = names.vector16().ok_or(NotAHello::Extension)?;
        if found.replace(name).is_some() {
            return Err(NotAHello::ServerNameRepeated);
        }
    }
    let name = found.and_then(|name| str::from_utf8(name).ok()).ok_or(NotAHello::ServerName)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    // Not allowed, but sent. It chooses no certificate.
    if name.parse::<IpAddr>().is_ok() {
        return Ok(None);
    }
    if !is_host(name) {
        return Err(NotAHello::ServerName);
    }
    Ok(Some(name.to_ascii_lowercase().into_boxed_str()))
}

/// RFC 1035 section 3.1; underscores are in use.
fn is_host(name: &str) -> bool {
    const NAME_BYTES_MAX: usize = 253;
    const LABEL_BYTES_MAX: usize = 63;
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label)
}

/// RFC 7301 section 3.1.
fn protocols(data: &[u8]) -> Result<Protocols, NotAHello> {
    let list = Reader(data).whole16().ok_or(NotAHello::Extension)?;
    let mut rest = Reader(list.0);
    while !rest.0.is_empty() {
        let protocol = rest.vector8().ok_or(NotAHello::Extension)?;
        if protocol.is_empty() {
            return Err(NotAHello::Extension);
        }
    }
    Ok(Protocols { wire: list.0.into() })
}

/// RFC 8446 section 4.2.1. Values that stand for nothing (RFC 8701) are among them.
fn offered(data: &[u8]) -> Option<Offered> {
    let mut data = Reader(data);
    let list = data.vector8()?;
    let (versions, odd) = list.as_chunks::<2>();
    let contains = |version: u16| versions.contains(&version.to_be_bytes());
    (data.0.is_empty() && !versions.is_empty() && odd.is_empty())
        .then(|| Offered { v1_2: contains(TLS_1_2), v1_3: contains(TLS_1_3) })
}

/// What is left to read. Every read is `None` when the bytes end before it.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*number))
    }

    /// Bytes with their length before them, in one byte.
    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(length.into())
    }

    /// The same in two bytes.
    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length.into())
    }

    /// The same, not empty, and nothing behind it.
    fn whole16(mut self) -> Option<Reader<'a>> {
        let list = self.vector16()?;
        (self.0.is_empty() && !list.is_empty()).then_some(Reader(list))
    }

    fn extension(&mut self) -> Option<(u16, &'a [u8])> {
        Some((self.number()?, self.vector16()?))
    }
}

/// For the fuzzer. What is said of bytes stays true when more come, and nothing is refused here
/// that rustls would take.
pub fn fuzz(bytes: &[u8]) {
    let whole = peek(bytes);
    // Around the ends of heads, and some between.
    let step = (bytes.len() / 64).max(1);
    for end in (0..bytes.len().min(16)).chain((16..bytes.len()).step_by(step)) {
        match peek(&bytes[..end]) {
            Ok(Peeked::NeedMore) => {}
            Ok(Peeked::Hello(hello)) => assert_eq!(whole, Ok(Peeked::Hello(hello))),
            Err(_) => assert!(whole.is_err()),
        }
    }
    if let Ok(Peeked::Hello(hello)) = &whole {
        let name = hello.server_name.as_deref().unwrap_or("a");
        assert!(is_host(name) && !name.bytes().any(|byte| byte.is_ascii_uppercase()));
        assert!(name.parse::<IpAddr>().is_err());
        assert!(hello.alpn.iter().all(|protocol| !protocol.is_empty()));
    }
    agrees_with_rustls(bytes, &whole);
}

fn agrees_with_rustls(bytes: &[u8], ours: &Result<Peeked, NotAHello>) {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if !acceptor.read_tls(&mut rest).is_ok_and(|count| count > 0) {
            break;
        }
        let Ok(accepted) = acceptor.accept() else { return };
        let Some(accepted) = accepted else { continue };
        let theirs = accepted.client_hello();
        let ours = match ours {
            Ok(Peeked::Hello(ours)) => ours,
            Err(NotAHello::TooLong | NotAHello::TooManyRecords) => return,
            Ok(Peeked::NeedMore) | Err(_) => panic!("rustls takes it, and we say {ours:?}"),
        };
        let name = theirs.server_name().map(|name| name.strip_suffix('.').unwrap_or(name));
        assert_eq!(ours.server_name.as_deref(), name);
        let theirs: Vec<&[u8]> = theirs.alpn().into_iter().flatten().collect();
        assert_eq!(ours.alpn.iter().collect::<Vec<_>>(), theirs);
        return;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client really sent.
    macro_rules! sent {
        ($client:literal) => {
            include_bytes!(concat!("../../tests/fuzz/corpus/client_hello/", $client)).as_slice()
        };
    }

    const CLIENTS: [&[u8]; 20] = [
        sent!("openssl"),
        sent!("openssl_no_name"),
        sent!("openssl_alpn"),
        sent!("openssl_tls11"),
        sent!("openssl_tls12"),
        sent!("openssl_tls12_no_name"),
        sent!("openssl_tls13"),
        sent!("openssl_address"),
        sent!("openssl_trailing_dot"),
        sent!("python"),
        sent!("python_no_name"),
        sent!("python_tls12"),
        sent!("curl"),
        sent!("gnutls"),
        sent!("java"),
        sent!("chrome"),
        sent!("firefox"),
        sent!("safari"),
        sent!("chrome_in_records"),
        sent!("python_byte_by_byte_begun"),
    ];

    /// Name, protocols, versions.
    fn told(bytes: &[u8]) -> String {
        let Ok(Peeked::Hello(hello)) = peek(bytes) else { panic!("{:?}", peek(bytes)) };
        let name = hello.server_name.as_deref().unwrap_or("-");
        let alpn: Vec<_> = hello.alpn.iter().map(|name| name.escape_ascii().to_string()).collect();
        let versions = match hello.versions {
            Offered { v1_2: true, v1_3: true } => "1.2 1.3",
            Offered { v1_2: true, v1_3: false } => "1.2",
            Offered { v1_2: false, v1_3: true } => "1.3",
            Offered { v1_2: false, v1_3: false } => "none",
        };
        format!("{name} {} {versions}", if alpn.is_empty() { "-".into() } else { alpn.join(",") })
    }

    fn why(bytes: &[u8]) -> NotAHello {
        peek(bytes).expect_err("this is no hello")
    }

    /// A record for each piece.
    fn records(pieces: &[&[u8]]) -> Vec<u8> {
        let record = |piece: &&[u8]| {
            let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
            [&[HANDSHAKE, 3, 1], length.as_slice(), piece].concat()
        };
        pieces.iter().flat_map(record).collect()
    }

    /// Of a capture that is one record.
    fn message(bytes: &[u8]) -> &[u8] {
        &bytes[5..]
    }

    fn vector16(data: &[u8]) -> Vec<u8> {
        [&(data.len() as u16).to_be_bytes(), data].concat()
    }

    fn body_with(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let extension =
            |(kind, data): &(u16, Vec<u8>)| [kind.to_be_bytes().to_vec(), vector16(data)].concat();
        let extensions: Vec<u8> = extensions.iter().flat_map(extension).collect();
        let fixed = [[3, 3].as_slice(), &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0]].concat();
        [fixed, vector16(&extensions)].concat()
    }

    fn of_body(body: &[u8]) -> Vec<u8> {
        let head = (body.len() as u32 | u32::from(CLIENT_HELLO) << 24).to_be_bytes();
        let message = [&head, body].concat();
        records(&message.chunks(RECORD_BYTES_MAX).collect::<Vec<_>>())
    }

    fn hello_with(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        of_body(&body_with(extensions))
    }

    fn naming(names: &[&[u8]]) -> Vec<u8> {
        let list: Vec<u8> =
            names.iter().flat_map(|name| [vec![0], vector16(name)].concat()).collect();
        hello_with(&[(SERVER_NAME, vector16(&list))])
    }

    #[test]
    fn what_real_clients_say_is_read() {
        let expected = [
            (sent!("openssl"), "www.example.test - 1.2 1.3"),
            (sent!("openssl_no_name"), "- - 1.2 1.3"),
            (sent!("openssl_alpn"), "api.example.test h2,http/1.1 1.2 1.3"),
            (sent!("openssl_tls11"), "www.example.test - none"),
            (sent!("openssl_tls12"), "www.example.test - 1.2"),
            (sent!("openssl_tls12_no_name"), "- http/1.1 1.2"),
            (sent!("openssl_tls13"), "www.example.test - 1.3"),
            (sent!("openssl_address"), "- - 1.2 1.3"),
            (sent!("openssl_trailing_dot"), "www.example.test - 1.2 1.3"),
            (sent!("python"), "py.example.test http/1.1 1.2 1.3"),
            (sent!("python_no_name"), "- - 1.2 1.3"),
            (sent!("python_tls12"), "py.example.test - 1.2"),
            (sent!("curl"), "curl.example.test h2,http/1.1 1.2 1.3"),
            (sent!("gnutls"), "gnutls.example.test h2 1.2 1.3"),
            (sent!("java"), "java.example.test h2,http/1.1 1.2 1.3"),
            (sent!("chrome"), "chrome.example.test h2,http/1.1 1.2 1.3"),
            (sent!("firefox"), "firefox.example.test h2,http/1.1 1.2 1.3"),
            (sent!("safari"), "safari.example.test h2,http/1.1 1.2 1.3"),
            (sent!("chrome_in_records"), "chrome.example.test h2,http/1.1 1.2 1.3"),
            (sent!("python_byte_by_byte_begun"), "py.example.test http/1.1 1.2 1.3"),
        ];
        for (bytes, expected) in expected {
            assert_eq!(told(bytes), expected);
        }
    }

    #[test]
    fn every_truncation_needs_more() {
        for client in CLIENTS {
            for end in 0..client.len() {
                assert_eq!(peek(&client[..end]), Ok(Peeked::NeedMore), "{end} of {}", client.len());
            }
        }
    }

    #[test]
    fn what_follows_the_hello_is_not_looked_at() {
        for client in CLIENTS {
            let hello = peek(client);
            for after in [&[0; 7][..], b"\x14\x03\x03\x00\x01\x01", b"\x15\x03\x03\x00\x02\x01\x00"]
            {
                assert_eq!(peek(&[client, after].concat()), hello);
            }
        }
    }

    #[test]
    fn every_mutation_of_a_byte_is_taken_or_refused() {
        for client in [sent!("openssl_alpn"), sent!("openssl_tls12")] {
            let mut mutated = client.to_vec();
            for at in 0..client.len() {
                for byte in 0..=u8::MAX {
                    mutated[at] = byte;
                    // Whatever it says: no panic.
                    let _ = peek(&mutated);
                }
                mutated[at] = client[at];
            }
        }
    }

    #[test]
    fn a_hello_in_several_records_is_the_same_hello() {
        for client in CLIENTS.iter().take(18) {
            let message = message(client);
            let hello = peek(client);
            for at in 1..message.len() {
                let (before, after) = message.split_at(at);
                assert_eq!(peek(&records(&[before, after])), hello, "cut at {at}");
            }
            for size in [32, 100, 500] {
                assert_eq!(peek(&records(&message.chunks(size).collect::<Vec<_>>())), hello);
            }
        }
    }

    #[test]
    fn a_hello_in_too_many_records_is_refused() {
        let message = message(sent!("openssl_tls12"));
        let one = message.len() - (CLIENT_HELLO_RECORDS_MAX - 1);
        let pieces = |first: usize| {
            let (first, rest) = message.split_at(first);
            let rest: Vec<&[u8]> = rest.chunks(1).collect();
            records(&[&[first], rest.as_slice()].concat())
        };
        assert_eq!(told(&pieces(one)), "www.example.test - 1.2");
        assert_eq!(why(&pieces(one - 1)), NotAHello::TooManyRecords);
    }

    #[test]
    fn clients_that_speak_something_else_are_told_apart() {
        let said: [(&[u8], NotAHello); 16] = [
            (b"GET / HTTP/1.1\r\n\r\n", NotAHello::PlainHttp),
            (b"G", NotAHello::PlainHttp),
            (b"PATCH /a HTTP/1.1\r\n", NotAHello::PlainHttp),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NotAHello::PlainHttp),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", NotAHello::ProxyHeader),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", NotAHello::ProxyHeader),
            (b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00", NotAHello::SslV2),
            (b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00", NotAHello::SslV2),
            (b"SSH-2.0-OpenSSH_9.2\r\n", NotAHello::NotTls),
            (b"\xff\xff\xff", NotAHello::NotTls),
            (b"\0", NotAHello::NotTls),
            (b"\x15\x03\x01\x00\x02\x02\x28", NotAHello::Alert),
            (b"\x17\x03\x03\x00\x01a", NotAHello::OtherRecord),
            (b"\x16\x02", NotAHello::RecordVersion),
            (b"\x16\x03\x01\x00\x00", NotAHello::RecordEmpty),
            (b"\x16\x03\x01\x40\x01", NotAHello::RecordTooLong),
        ];
        for (bytes, expected) in said {
            assert_eq!(why(bytes), expected, "{}", bytes.escape_ascii());
        }
        assert!(is_tls(sent!("openssl")[0]));
        assert!(!is_tls(b'G'));
    }

    #[test]
    fn only_records_of_the_handshake_may_stand_between_its_parts() {
        let (first, second) = message(sent!("openssl")).split_at(50);
        let between =
            |record: &[u8]| why(&[&records(&[first]), record, &records(&[second])].concat());
        assert_eq!(between(b"\x15\x03\x01\x00\x02\x01\x00"), NotAHello::Alert);
        assert_eq!(between(b"\x14\x03\x03\x00\x01\x01"), NotAHello::OtherRecord);
        assert_eq!(between(b"GET / HTTP/1.1"), NotAHello::OtherRecord);
        assert_eq!(between(b"\x16\x03\x01\x00\x00"), NotAHello::RecordEmpty);
        assert_eq!(between(b"\x16\x05\x01\x00\x01\x01"), NotAHello::RecordVersion);
    }

    #[test]
    fn another_handshake_message_is_refused_at_its_first_byte() {
        assert_eq!(why(b"\x16\x03\x01\x00\x10\x02"), NotAHello::OtherMessage);
    }

    #[test]
    fn a_hello_that_is_too_long_is_refused_at_its_head() {
        let head = |length: usize| {
            let [_, length @ ..] = (length as u32).to_be_bytes();
            [b"\x16\x03\x01\x40\x00\x01".as_slice(), &length].concat()
        };
        assert_eq!(peek(&head(CLIENT_HELLO_BYTES_MAX)), Ok(Peeked::NeedMore));
        assert_eq!(why(&head(CLIENT_HELLO_BYTES_MAX + 1)), NotAHello::TooLong);
        assert_eq!(why(&head((1 << 24) - 1)), NotAHello::TooLong);
    }

    #[test]
    fn a_hello_as_long_as_allowed_is_read() {
        let fixed = body_with(&[(21, Vec::new())]).len();
        let padding = vec![0; CLIENT_HELLO_BYTES_MAX - fixed];
        assert_eq!(told(&hello_with(&[(21, padding)])), "- - 1.2");
    }

    #[test]
    fn a_body_is_not_looked_at_before_it_is_whole() {
        let hello = of_body(&[0xff; 100]);
        for end in 0..hello.len() {
            assert_eq!(peek(&hello[..end]), Ok(Peeked::NeedMore));
        }
        assert_eq!(why(&hello), NotAHello::Malformed);
    }

    #[test]
    fn a_hello_without_extensions_is_one_of_tls_1_2() {
        let body = body_with(&[]);
        assert_eq!(told(&of_body(&body[..body.len() - 2])), "- - 1.2");
        assert_eq!(told(&of_body(&body)), "- - 1.2");
        assert_eq!(why(&of_body(&body[..body.len() - 1])), NotAHello::Malformed);
        assert_eq!(why(&of_body(&[body.as_slice(), &[0]].concat())), NotAHello::Malformed);
    }

    #[test]
    fn names_are_hosts_in_lower_case() {
        let host = |name: &[u8]| told(&naming(&[name])).split(' ').next().unwrap().to_owned();
        assert_eq!(host(b"A.Example.Test"), "a.example.test");
        assert_eq!(host(b"a_b.xn--bcher-kva.test."), "a_b.xn--bcher-kva.test");
        assert_eq!(host(b"localhost"), "localhost");
        assert_eq!(host(b"192.0.2.1"), "-");
        assert_eq!(host(b"2001:db8::1"), "-");
        let label = "a".repeat(63);
        let longest = [label.as_str(); 4].join(".");
        assert_eq!(host(&longest.as_bytes()[2..]), longest[2..]);
        let label = "a".repeat(64);
        let bad: [&[u8]; 11] = [
            b"",
            b".",
            b"a..b",
            b".a",
            b"a..",
            b"a b",
            b"a:443",
            b"[::1]",
            b"a/b",
            b"a\0.test",
            "b\u{fc}cher.test".as_bytes(),
        ];
        for name in bad.into_iter().chain([label.as_bytes(), &longest.as_bytes()[1..], b"\xff"]) {
            assert_eq!(why(&naming(&[name])), NotAHello::ServerName, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn a_client_may_name_one_host() {
        assert_eq!(why(&naming(&[b"a.test", b"b.test"])), NotAHello::ServerNameRepeated);
        let name = (SERVER_NAME, b"\0\x09\0\0\x06a.test".to_vec());
        assert_eq!(told(&hello_with(std::slice::from_ref(&name))), "a.test - 1.2");
        assert_eq!(why(&hello_with(&[name.clone(), name])), NotAHello::ServerNameRepeated);
    }

    #[test]
    fn names_of_other_kinds_hide_what_follows_them() {
        let list = b"\0\x0c\0\0\x06a.test\x01\x02\x03".to_vec();
        assert_eq!(told(&hello_with(&[(SERVER_NAME, list)])), "a.test - 1.2");
        let list = b"\0\x0a\x01\0\0\x06a.test".to_vec();
        assert_eq!(why(&hello_with(&[(SERVER_NAME, list)])), NotAHello::ServerName);
    }

    #[test]
    fn extensions_that_hold_something_else_are_refused() {
        let bad: [(u16, &[u8]); 13] = [
            (SERVER_NAME, b""),
            (SERVER_NAME, b"\0\0"),
            (SERVER_NAME, b"\0\x04\0\0\x02a"),
            (SERVER_NAME, b"\0\x04\0\0\x01ab"),
            (SERVER_NAME, b"\0\x04\0\0\x02a\0"),
            (ALPN, b""),
            (ALPN, b"\0\0"),
            (ALPN, b"\0\x01\0"),
            (ALPN, b"\0\x03\x03h2"),
            (ALPN, b"\0\x03\x02h2x"),
            (SUPPORTED_VERSIONS, b""),
            (SUPPORTED_VERSIONS, b"\0"),
            (SUPPORTED_VERSIONS, b"\x03\x03\x04\x03"),
        ];
        for (kind, data) in bad {
            let hello = hello_with(&[(kind, data.to_vec())]);
            assert_eq!(why(&hello), NotAHello::Extension, "{kind} {}", data.escape_ascii());
        }
        for (kind, data) in
            [(ALPN, b"\0\x03\x02h2".as_slice()), (SUPPORTED_VERSIONS, b"\x02\x03\x04")]
        {
            let extension = (kind, data.to_vec());
            let hello = hello_with(&[extension.clone(), extension]);
            assert_eq!(why(&hello), NotAHello::ExtensionRepeated);
        }
    }

    #[test]
    fn what_stands_for_nothing_is_passed_over() {
        let grease = (0x0a0a, vec![0]);
        let versions = (SUPPORTED_VERSIONS, b"\x06\x1a\x1a\x03\x04\x7f\x1c".to_vec());
        let alpn = (ALPN, b"\0\x06\x02\x8a\x8a\x02h2".to_vec());
        let hello = hello_with(&[grease.clone(), versions, alpn, grease]);
        assert_eq!(told(&hello), "- \\x8a\\x8a,h2 1.3");
        let Ok(Peeked::Hello(hello)) = peek(&hello) else { panic!("it is whole") };
        assert!(hello.alpn.contains(b"h2"));
        assert!(!hello.alpn.contains(b"h"));
    }

    #[test]
    fn clients_of_rustls_are_read() {
        let name = rustls::pki_types::ServerName::try_from("r.example.test").unwrap();
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut sent = Vec::new();
        client.write_tls(&mut sent).unwrap();
        assert_eq!(told(&sent), "r.example.test - 1.2 1.3");
    }

    #[test]
    fn labels_are_snake_case_and_differ() {
        for (at, reason) in NotAHello::ALL.iter().enumerate() {
            let label = reason.label();
            let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte == b'_' || byte == b'2';
            assert!(label.bytes().all(is_fine));
            assert!(NotAHello::ALL[..at].iter().all(|other| other.label() != label));
            assert!(!reason.message().ends_with('.'));
        }
    }
}
