//! `grpc.health.v1.Health`: answered here for whoever asks the proxy, and asked of endpoints. Its
//! messages are small enough to be written by hand.

use crate::grpc::messages;
use crate::grpc::status::Code;
use crate::plan::ClusterId;

/// What is asked of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Check,
    /// To be told now and at every change.
    Watch,
}

impl Asked {
    /// By the path of a call.
    pub fn find(path: &[u8]) -> Option<Asked> {
        match path.strip_prefix(b"/grpc.health.v1.Health/")? {
            b"Check" => Some(Asked::Check),
            b"Watch" => Some(Asked::Watch),
            _ => None,
        }
    }
}

/// As the protocol numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    /// Said to those who watch; who checks is answered NOT_FOUND.
    ServiceUnknown = 3,
}

/// A service that routes name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownService {
    pub name: Box<[u8]>,
    /// Where its calls may go.
    pub clusters: Vec<ClusterId>,
}

impl Serving {
    const ALL: [Serving; 4] =
        [Serving::Unknown, Serving::Serving, Serving::NotServing, Serving::ServiceUnknown];

    /// Of a service that routes name, in order, or of the process (``). Those that are `unserved`
    /// have nobody to answer.
    pub fn of(
        service: &[u8],
        known: &[KnownService],
        ready: bool,
        unserved: &[Box<[u8]>],
    ) -> Serving {
        let find = || known.binary_search_by(|known| (*known.name).cmp(service));
        if !service.is_empty() && find().is_err() {
            Serving::ServiceUnknown
        } else if ready && !unserved.iter().any(|name| **name == *service) {
            Serving::Serving
        } else {
            Serving::NotServing
        }
    }
}

/// The service that a request names: field 1 of its message, the last one there is. `None`: it is
/// no such message.
pub fn decode_request(message: &[u8]) -> Option<&[u8]> {
    let mut service = &b""[..];
    let mut rest = message;
    while !rest.is_empty() {
        let (number, value, behind) = field(rest)?;
        if let (1, Value::Bytes(bytes)) = (number, value) {
            service = bytes;
        }
        rest = behind;
    }
    str::from_utf8(service).is_ok().then_some(service)
}

/// Appends a request, prefix and all.
pub fn encode_request(service: &[u8], out: &mut Vec<u8>) {
    let mut message = Vec::with_capacity(service.len() + 8);
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        let mut length = service.len();
        while length > 0x7f {
            message.push(length as u8 & 0x7f | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service);
    }
    messages::prefix(0, message.len(), out);
    out.extend_from_slice(&message);
}

/// Appends a response, prefix and all.
pub fn encode_response(serving: Serving, out: &mut Vec<u8>) {
    let message = [1 << 3, serving as u8];
    // A zero is not written (proto3).
    let message = if serving == Serving::Unknown { &[][..] } else { &message[..] };
    messages::prefix(0, message.len(), out);
    out.extend_from_slice(message);
}

/// What the body of an answer says: one message.
pub fn decode_response(body: &[u8]) -> Option<Serving> {
    let (0, mut rest, b"") = messages::first(body)? else { return None };
    let mut status = 0;
    while !rest.is_empty() {
        let (number, value, behind) = field(rest)?;
        if let (1, Value::Number(number)) = (number, value) {
            status = number;
        }
        rest = behind;
    }
    Serving::ALL.get(usize::try_from(status).ok()?).copied()
}

enum Value<'m> {
    Number(u64),
    Bytes(&'m [u8]),
    Fixed,
}

/// The first field of a message: its number, its value and what is behind it.
fn field(message: &[u8]) -> Option<(u64, Value<'_>, &[u8])> {
    let (key, rest) = varint(message)?;
    let (value, rest) = match key & 7 {
        0 => {
            let (number, rest) = varint(rest)?;
            (Value::Number(number), rest)
        }
        1 => (Value::Fixed, rest.get(8..)?),
        2 => {
            let (length, rest) = varint(rest)?;
            let (bytes, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            (Value::Bytes(bytes), rest)
        }
        5 => (Value::Fixed, rest.get(4..)?),
        _ => return None,
    };
    (key >> 3 != 0).then_some((key >> 3, value, rest))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    let (number, rest) = bytes.split_at(end + 1);
    let join = |sum: u64, byte: &u8| sum << 7 | u64::from(byte & 0x7f);
    Some((number.iter().rev().fold(0, join), rest))
}

/// A question to an endpoint, for a health checker: a call with these and the usual lines
/// (`content-type: application/grpc`, `te: trailers`), and a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub path: &'static str,
    pub body: Vec<u8>,
}

impl Probe {
    /// The API's own name stands for the whole server, as `` does.
    pub fn new(service: &str) -> Probe {
        let mut body = Vec::new();
        let service = if service == "grpc.health.v1.Health" { "" } else { service };
        encode_request(service.as_bytes(), &mut body);
        Probe { path: "/grpc.health.v1.Health/Check", body }
    }

    /// What the answer means: its status of HTTP, its `grpc-status`, wherever that stood, and its
    /// body. `Err` says why it is not healthy.
    pub fn read(status: u16, grpc_status: Option<&[u8]>, body: &[u8]) -> Result<(), String> {
        let code = match grpc_status {
            Some(value) => Code::parse(value),
            None => Code::of_http(status),
        };
        match (code, status) {
            (Code::Ok, 200) => {}
            (_, 200) => return Err(format!("grpc-status {}: {}", code.number(), code.label())),
            (_, _) => return Err(format!("status {status}, expected 200 and a grpc-status")),
        }
        match decode_response(body) {
            Some(Serving::Serving) => Ok(()),
            Some(Serving::NotServing) => Err("not_serving".to_owned()),
            Some(Serving::Unknown | Serving::ServiceUnknown) => Err("service_unknown".to_owned()),
            None => Err("the answer is no message of grpc.health.v1.Health".to_owned()),
        }
    }
}

pub fn fuzz(bytes: &[u8]) {
    let _ = decode_response(bytes);
    if let Some(service) = decode_request(bytes) {
        let mut encoded = Vec::new();
        encode_request(service, &mut encoded);
        let (_, message, _) = messages::first(&encoded).expect("it is whole");
        assert_eq!(decode_request(message), Some(service));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_by_field_one_whatever_else_is_there() {
        assert_eq!(decode_request(b""), Some(&b""[..]));
        assert_eq!(decode_request(b"\x0a\x03abc"), Some(&b"abc"[..]));
        assert_eq!(decode_request(b"\x0a\x01x\x10\x05\x0a\x03abc"), Some(&b"abc"[..]));
        let others = b"\x10\x96\x01\x19\0\0\0\0\0\0\0\0\x25\0\0\0\0\x0a\x02hi\x12\x01z";
        assert_eq!(decode_request(others), Some(&b"hi"[..]));
        for service in ["", "a", &"long.".repeat(60)] {
            let mut encoded = Vec::new();
            encode_request(service.as_bytes(), &mut encoded);
            let (_, message, rest) = messages::first(&encoded).unwrap();
            assert_eq!(decode_request(message), Some(service.as_bytes()));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn what_is_no_message_is_refused_and_never_read_past_its_end() {
        for odd in [
            &b"\x0a"[..],
            b"\x0a\x05abc",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x80",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0b",
            b"\x19\0\0",
            b"\x02\x01a",
            b"\x0a\x01\xff",
        ] {
            assert_eq!(decode_request(odd), None, "{odd:?}");
            fuzz(odd);
        }
    }

    #[test]
    fn answers_are_read_as_they_are_written() {
        for serving in Serving::ALL {
            let mut body = Vec::new();
            encode_response(serving, &mut body);
            assert_eq!(decode_response(&body), Some(serving));
        }
        assert_eq!(decode_response(b"\0\0\0\0\x02\x08\x09"), None);
        assert_eq!(decode_response(b"\0\0\0\0\x02\x08\x01\0"), None);
    }

    #[test]
    fn a_service_follows_the_process_and_an_unknown_one_is_told_as_such() {
        let known = |name: &str| KnownService { name: name.as_bytes().into(), clusters: vec![] };
        let known = [known("a.B"), known("c.D")];
        assert_eq!(Serving::of(b"", &[], true, &[]), Serving::Serving);
        assert_eq!(Serving::of(b"c.D", &known, true, &[]), Serving::Serving);
        assert_eq!(Serving::of(b"a.B", &known, false, &[]), Serving::NotServing);
        assert_eq!(Serving::of(b"a.b", &known, true, &[]), Serving::ServiceUnknown);
        let unserved = [b"a.B".as_slice().into()];
        assert_eq!(Serving::of(b"a.B", &known, true, &unserved), Serving::NotServing);
        assert_eq!(Serving::of(b"c.D", &known, true, &unserved), Serving::Serving);
        assert_eq!(Serving::of(b"", &known, true, &unserved), Serving::Serving);
    }

    #[test]
    fn a_probe_asks_for_the_whole_server_by_the_apis_own_name() {
        assert_eq!(Probe::new("grpc.health.v1.Health"), Probe::new(""));
        assert_eq!(Probe::new("").body, b"\0\0\0\0\0");
        assert_eq!(Probe::new("a.B").body, b"\0\0\0\0\x05\x0a\x03a.B");
    }

    #[test]
    fn a_probe_says_why_an_endpoint_is_not_healthy() {
        let body = |serving| {
            let mut body = Vec::new();
            encode_response(serving, &mut body);
            body
        };
        let ok = Some(&b"0"[..]);
        assert_eq!(Probe::read(200, ok, &body(Serving::Serving)), Ok(()));
        let cases = [
            (Probe::read(200, ok, &body(Serving::NotServing)), "not_serving"),
            (Probe::read(200, ok, &body(Serving::ServiceUnknown)), "service_unknown"),
            (Probe::read(200, ok, b"<html>"), "the answer is no message"),
            (Probe::read(200, Some(b"5"), b""), "grpc-status 5: not_found"),
            (Probe::read(200, None, b""), "grpc-status 2: unknown"),
            (Probe::read(404, None, b""), "status 404"),
        ];
        for (result, expected) in cases {
            let error = result.unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
