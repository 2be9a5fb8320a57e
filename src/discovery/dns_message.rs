//! DNS messages (RFC 1035; AAAA: RFC 3596; EDNS0: RFC 6891): a question to bytes, and bytes to the
//! answer of that question. `dns` sends and receives them; nothing here touches a socket.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::limits::{
    DNS_ADDRESSES_MAX, DNS_CNAMES_MAX, DNS_NEGATIVE_TTL_MAX, DNS_NEGATIVE_TTL_MIN,
    DNS_POINTERS_MAX, DNS_TTL_MAX, DNS_TTL_MIN, DNS_UDP_BYTES_MAX,
};

/// RFC 1035 section 3.1, length bytes and the root included.
const NAME_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: usize = 63;

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;
const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    A,
    Aaaa,
}

impl Kind {
    fn code(self) -> u16 {
        match self {
            Kind::A => TYPE_A,
            Kind::Aaaa => TYPE_AAAA,
        }
    }
}

/// A whole domain name, in lower case, as it stands in a message without compression.
#[derive(Clone, PartialEq, Eq)]
pub struct Name {
    wire: Vec<u8>,
}

impl Name {
    /// With or without the dot at the end. The error says what was expected.
    pub fn parse(text: &str) -> Result<Name, &'static str> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            if !(1..=LABEL_BYTES_MAX).contains(&label.len()) {
                return Err("expected labels of 1 to 63 bytes between dots");
            }
            if !label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
                return Err("expected letters, digits, `-` and `_` (write others as `xn--…`)");
            }
            wire.push(label.len() as u8);
            wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        wire.push(0);
        if wire.len() > NAME_BYTES_MAX {
            return Err("expected at most 253 bytes");
        }
        Ok(Name { wire })
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.wire.escape_ascii())
    }
}

/// Whether a query offers more than the 512 bytes of RFC 1035. Servers that do not know the offer
/// answer with a format error, and are asked again without it (RFC 6891 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edns {
    Offered,
    Omitted,
}

#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    pub id: u16,
    pub name: &'a Name,
    pub kind: Kind,
    pub edns: Edns,
}

/// Appends the message to `out`.
pub fn encode_query(query: &Query<'_>, out: &mut Vec<u8>) {
    const RECURSION_DESIRED: u16 = 0x0100;
    let additional = u16::from(query.edns == Edns::Offered);
    for field in [query.id, RECURSION_DESIRED, 1, 0, 0, additional] {
        out.extend(field.to_be_bytes());
    }
    out.extend(&query.name.wire);
    out.extend(query.kind.code().to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    match query.edns {
        Edns::Offered => {
            // RFC 6891 section 6.1.2: root, OPT, our size, no extended code or flags, no options.
            out.push(0);
            out.extend(TYPE_OPT.to_be_bytes());
            out.extend(DNS_UDP_BYTES_MAX.to_be_bytes());
            out.extend([0; 6]);
        }
        Edns::Omitted => {}
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// At least one, each once, in the order they came.
    pub addresses: Vec<IpAddr>,
    /// The least of all records that led to the addresses, within `DNS_TTL_MIN` and `_MAX`.
    pub ttl: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// Another id or question, or no answer at all: to be ignored, the answer may still come.
    NotOurs,
    /// To be asked again over TCP.
    Truncated,
    Malformed,
    /// The server did not understand us: FORMERR.
    FormatError,
    /// NXDOMAIN.
    NoSuchName {
        ttl: Duration,
    },
    /// NODATA: the name is there, without an address of this kind.
    NoAddresses {
        ttl: Duration,
    },
    /// SERVFAIL.
    ServerFailure,
    /// Any other response code.
    Refused(u8),
}

/// The answer of `query`, if `bytes` is one. CNAMEs are followed within it.
pub fn parse_answer(bytes: &[u8], query: &Query<'_>) -> Result<Answer, AnswerError> {
    let mut reader = Reader { message: bytes, at: 0 };
    let header = reader.header().ok_or(AnswerError::NotOurs)?;
    if header.id != query.id || !header.is_answer {
        return Err(AnswerError::NotOurs);
    }
    // Servers that understood nothing may leave the question out.
    if header.code == 1 && header.questions == 0 {
        return Err(AnswerError::FormatError);
    }
    if header.questions != 1 || reader.question() != Some((query.name.clone(), query.kind.code())) {
        return Err(AnswerError::NotOurs);
    }
    match header.code {
        0 | 3 => {}
        1 => return Err(AnswerError::FormatError),
        2 => return Err(AnswerError::ServerFailure),
        code => return Err(AnswerError::Refused(code)),
    }
    if header.is_truncated {
        return Err(AnswerError::Truncated);
    }
    let records = reader.records(header.answers).ok_or(AnswerError::Malformed)?;
    if header.code == 3 {
        return Err(AnswerError::NoSuchName { ttl: reader.negative_ttl(header.authorities) });
    }
    let (addresses, ttl) = follow(bytes, &records, query).ok_or(AnswerError::Malformed)?;
    if addresses.is_empty() {
        return Err(AnswerError::NoAddresses { ttl: reader.negative_ttl(header.authorities) });
    }
    let ttl = Duration::from_secs(ttl.into()).clamp(DNS_TTL_MIN, DNS_TTL_MAX);
    Ok(Answer { addresses, ttl })
}

/// The addresses at the end of the chain that begins with the question, and the least TTL on the
/// way. `None` for broken records and for chains that are too long or go round.
fn follow(message: &[u8], records: &[Record], query: &Query<'_>) -> Option<(Vec<IpAddr>, u32)> {
    let mut owner = query.name.clone();
    let mut ttl = u32::MAX;
    for _ in 0..=DNS_CNAMES_MAX {
        let of_owner = || records.iter().filter(|record| record.owner == owner);
        let mut addresses = Vec::new();
        for record in of_owner().filter(|record| record.kind == query.kind.code()) {
            let address = record.address(message)?;
            ttl = ttl.min(record.ttl);
            if addresses.len() < DNS_ADDRESSES_MAX && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let alias = of_owner().find(|record| record.kind == TYPE_CNAME);
        match alias {
            Some(alias) if addresses.is_empty() => {
                ttl = ttl.min(alias.ttl);
                owner = alias.target(message)?;
            }
            Some(_) | None => return Some((addresses, ttl)),
        }
    }
    None
}

struct Header {
    id: u16,
    is_answer: bool,
    is_truncated: bool,
    code: u8,
    questions: u16,
    answers: u16,
    authorities: u16,
}

struct Record {
    owner: Name,
    kind: u16,
    ttl: u32,
    data_start: usize,
    data_end: usize,
}

impl Record {
    fn address(&self, message: &[u8]) -> Option<IpAddr> {
        let data = message.get(self.data_start..self.data_end)?;
        match self.kind {
            TYPE_A => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
            TYPE_AAAA => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
            _ => None,
        }
    }

    fn target(&self, message: &[u8]) -> Option<Name> {
        let mut reader = Reader { message, at: self.data_start };
        let name = reader.name()?;
        (reader.at == self.data_end).then_some(name)
    }
}

/// A position in a message. Every read is `None` when the message ends before it.
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.message.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(*bytes)
    }

    fn number(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    /// RFC 1035 section 4.1.1.
    fn header(&mut self) -> Option<Header> {
        let id = self.number()?;
        let [high, low] = self.take()?;
        let header = Header {
            id,
            // An answer, to a standard query.
            is_answer: high & 0b1111_1000 == 0b1000_0000,
            is_truncated: high & 0b10 != 0,
            code: low & 0b1111,
            questions: self.number()?,
            answers: self.number()?,
            authorities: self.number()?,
        };
        let _additional = self.number()?;
        Some(header)
    }

    fn question(&mut self) -> Option<(Name, u16)> {
        let (name, kind, class) = (self.name()?, self.number()?, self.number()?);
        (class == CLASS_IN).then_some((name, kind))
    }

    /// RFC 1035 section 4.1.4. A pointer must lead to before the label it was reached from, so a
    /// name cannot go round; their number is bounded too.
    fn name(&mut self) -> Option<Name> {
        let mut wire = Vec::new();
        let (mut at, mut start) = (self.at, self.at);
        let mut after_first_pointer = None;
        let mut pointers = 0;
        loop {
            let length = usize::from(*self.message.get(at)?);
            match length >> 6 {
                0b00 => {
                    let label = self.message.get(at..=at + length)?;
                    // Length bytes are below `A`.
                    wire.extend(label.iter().map(u8::to_ascii_lowercase));
                    at += 1 + length;
                    if wire.len() > NAME_BYTES_MAX {
                        return None;
                    }
                    if length == 0 {
                        self.at = after_first_pointer.unwrap_or(at);
                        return Some(Name { wire });
                    }
                }
                0b11 => {
                    let low = usize::from(*self.message.get(at + 1)?);
                    let target = (length & 0b11_1111) << 8 | low;
                    pointers += 1;
                    if target >= start || pointers > DNS_POINTERS_MAX {
                        return None;
                    }
                    after_first_pointer = after_first_pointer.or(Some(at + 2));
                    (at, start) = (target, target);
                }
                // Reserved.
                _ => return None,
            }
        }
    }

    /// Those of the Internet class. Their number is bounded by the message's 65,535 bytes.
    fn records(&mut self, count: u16) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        for _ in 0..count {
            let owner = self.name()?;
            let (kind, class) = (self.number()?, self.number()?);
            let ttl = u32::from_be_bytes(self.take()?);
            let length = usize::from(self.number()?);
            let (data_start, data_end) = (self.at, self.at + length);
            self.message.get(data_start..data_end)?;
            self.at = data_end;
            // RFC 2181 section 8: with the highest bit set it counts as 0.
            let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
            if class == CLASS_IN {
                records.push(Record { owner, kind, ttl, data_start, data_end });
            }
        }
        Some(records)
    }

    /// RFC 2308 section 5: the lesser of the SOA's TTL and its last field, or the least we use when
    /// there is none or it is broken.
    fn negative_ttl(&mut self, authorities: u16) -> Duration {
        let records = self.records(authorities).unwrap_or_default();
        let seconds = records.iter().find(|record| record.kind == TYPE_SOA).and_then(|soa| {
            let data = self.message.get(soa.data_start..soa.data_end)?;
            let minimum = u32::from_be_bytes(*data.last_chunk()?);
            Some(minimum.min(soa.ttl))
        });
        Duration::from_secs(seconds.unwrap_or_default().into())
            .clamp(DNS_NEGATIVE_TTL_MIN, DNS_NEGATIVE_TTL_MAX)
    }
}

/// For the fuzzer: any bytes as the answer to two fixed questions, whose id they are given.
pub fn fuzz(bytes: &[u8]) {
    let name = Name::parse("a.test").expect("a plain name");
    let id = bytes.first_chunk().map_or(0, |chunk| u16::from_be_bytes(*chunk));
    for kind in [Kind::A, Kind::Aaaa] {
        let query = Query { id, name: &name, kind, edns: Edns::Offered };
        if let Ok(answer) = parse_answer(bytes, &query) {
            assert!((1..=DNS_ADDRESSES_MAX).contains(&answer.addresses.len()));
            assert!((DNS_TTL_MIN..=DNS_TTL_MAX).contains(&answer.ttl));
        }
    }
}

/// Builds answers, for the tests here and for the server in the tests of `dns`.
#[cfg(test)]
pub(super) mod build {
    pub(crate) fn wire(name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for label in name.split('.').filter(|label| !label.is_empty()) {
            out.push(label.len() as u8);
            out.extend(label.as_bytes());
        }
        out.push(0);
        out
    }

    pub(crate) fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
        let mut out = owner.to_vec();
        out.extend(kind.to_be_bytes());
        out.extend(1_u16.to_be_bytes());
        out.extend(ttl.to_be_bytes());
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
        out
    }

    /// `flags` as in the header: 0x8180 is a good answer, 0x8183 NXDOMAIN, 0x8380 truncated.
    pub(crate) fn answer(
        query: &[u8],
        flags: u16,
        answers: &[Vec<u8>],
        authorities: &[Vec<u8>],
    ) -> Vec<u8> {
        let question_end = 12 + query[12..].iter().position(|b| *b == 0).expect("a name") + 5;
        let mut out = query[..2].to_vec();
        for field in [flags, 1, answers.len() as u16, authorities.len() as u16, 0] {
            out.extend(field.to_be_bytes());
        }
        out.extend(&query[12..question_end]);
        out.extend(answers.concat());
        out.extend(authorities.concat());
        out
    }

    pub(crate) fn soa(owner: &str, ttl: u32, minimum: u32) -> Vec<u8> {
        let mut data = [wire("ns.test"), wire("root.test")].concat();
        data.extend([0; 16]);
        data.extend(minimum.to_be_bytes());
        record(&wire(owner), super::TYPE_SOA, ttl, &data)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::build::{answer, record, soa, wire};
    use super::*;

    /// The name of the question, by a pointer.
    const ASKED: [u8; 2] = [0xc0, 12];

    fn name() -> Name {
        Name::parse("www.Example.test.").expect("a good name")
    }

    fn query(name: &Name, kind: Kind) -> Query<'_> {
        Query { id: 0x1234, name, kind, edns: Edns::Offered }
    }

    fn encoded(query: &Query<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode_query(query, &mut out);
        out
    }

    fn ask(flags: u16, answers: &[Vec<u8>], extra: &[Vec<u8>]) -> Result<Answer, AnswerError> {
        let name = name();
        let query = query(&name, Kind::A);
        parse_answer(&answer(&encoded(&query), flags, answers, extra), &query)
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_query_is_the_bytes_of_the_rfc() {
        let name = name();
        let plain = Query { edns: Edns::Omitted, ..query(&name, Kind::Aaaa) };
        let expected =
            b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x03www\x07example\x04test\0\0\x1c\0\x01";
        assert_eq!(encoded(&plain), expected);
        let offered = encoded(&query(&name, Kind::Aaaa));
        assert_eq!(offered[11], 1);
        assert_eq!(offered[expected.len()..], *b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    }

    #[test]
    fn names_that_dns_cannot_carry_are_refused() {
        for text in ["", ".", "a..b", ".a", "a b", "é", &"a".repeat(64), &"a.".repeat(128)] {
            assert!(Name::parse(text).is_err(), "{text}");
        }
        assert!(Name::parse(&"a.".repeat(127)).is_ok());
        assert_eq!(Name::parse("A.b"), Name::parse("a.B."));
    }

    #[test]
    fn all_addresses_are_returned_once_with_the_least_ttl() {
        let records = [
            record(&ASKED, TYPE_A, 60, &[10, 0, 0, 2]),
            record(&wire("WWW.example.TEST"), TYPE_A, 30, &[10, 0, 0, 1]),
            record(&ASKED, TYPE_A, 90, &[10, 0, 0, 2]),
            record(&wire("other.test"), TYPE_A, 1, &[10, 0, 0, 3]),
        ];
        let answer = ask(0x8180, &records, &[]).expect("an answer");
        assert_eq!(answer.addresses, [IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 1])]);
        assert_eq!(answer.ttl, seconds(30));
    }

    #[test]
    fn ipv6_addresses_are_returned() {
        let name = name();
        let query = query(&name, Kind::Aaaa);
        let address: Ipv6Addr = "2001:db8::7".parse().expect("an address");
        let records = [
            record(&ASKED, TYPE_AAAA, 60, &address.octets()),
            record(&ASKED, TYPE_A, 60, &[10, 0, 0, 1]),
        ];
        let bytes = answer(&encoded(&query), 0x8180, &records, &[]);
        let answer = parse_answer(&bytes, &query).expect("an answer");
        assert_eq!(answer.addresses, [IpAddr::from(address)]);
    }

    #[test]
    fn a_chain_of_aliases_is_followed_in_any_order() {
        let records = [
            record(&wire("c.test"), TYPE_A, 300, &[10, 0, 0, 1]),
            record(&wire("b.test"), TYPE_CNAME, 20, &wire("C.test")),
            record(&ASKED, TYPE_CNAME, 300, &wire("b.test")),
        ];
        let answer = ask(0x8180, &records, &[]).expect("an answer");
        assert_eq!(answer.addresses, [IpAddr::from([10, 0, 0, 1])]);
        assert_eq!(answer.ttl, seconds(20));
    }

    #[test]
    fn aliases_that_go_round_or_on_for_too_long_are_malformed() {
        let round = [
            record(&ASKED, TYPE_CNAME, 20, &wire("b.test")),
            record(&wire("b.test"), TYPE_CNAME, 20, &ASKED),
        ];
        assert_eq!(ask(0x8180, &round, &[]), Err(AnswerError::Malformed));
        let chain = |links: usize| {
            let mut records = vec![record(&ASKED, TYPE_CNAME, 9, &wire("n0.test"))];
            for i in 1..links {
                let owner = wire(&format!("n{}.test", i - 1));
                records.push(record(&owner, TYPE_CNAME, 9, &wire(&format!("n{i}.test"))));
            }
            records.push(record(&wire(&format!("n{}.test", links - 1)), TYPE_A, 9, &[10, 0, 0, 1]));
            records
        };
        assert!(ask(0x8180, &chain(DNS_CNAMES_MAX), &[]).is_ok());
        let longer = ask(0x8180, &chain(DNS_CNAMES_MAX + 1), &[]);
        assert_eq!(longer, Err(AnswerError::Malformed));
    }

    #[test]
    fn ttls_are_kept_within_their_limits() {
        for (sent, used) in [(0, 1), (1, 1), (3600, 3600), (86400, 3600), (0x8000_0000, 1)] {
            let records = [record(&ASKED, TYPE_A, sent, &[10, 0, 0, 1])];
            assert_eq!(ask(0x8180, &records, &[]).map(|a| a.ttl), Ok(seconds(used)), "{sent}");
        }
    }

    #[test]
    fn absent_names_absent_addresses_and_failures_are_told_apart() {
        let soa_20 = [soa("test", 3600, 20)];
        let no_name = AnswerError::NoSuchName { ttl: seconds(20) };
        let no_addresses = AnswerError::NoAddresses { ttl: seconds(20) };
        assert_eq!(ask(0x8183, &[], &soa_20), Err(no_name));
        assert_eq!(ask(0x8180, &[], &soa_20), Err(no_addresses));
        let alias = [record(&ASKED, TYPE_CNAME, 300, &wire("b.test"))];
        assert_eq!(ask(0x8180, &alias, &soa_20), Err(no_addresses));
        assert_eq!(ask(0x8181, &[], &[]), Err(AnswerError::FormatError));
        assert_eq!(ask(0x8182, &[], &[]), Err(AnswerError::ServerFailure));
        assert_eq!(ask(0x8185, &[], &[]), Err(AnswerError::Refused(5)));
        assert_eq!(ask(0x8380, &[], &[]), Err(AnswerError::Truncated));
    }

    #[test]
    fn the_negative_ttl_is_the_lesser_of_two_within_its_limits() {
        for (ttl, minimum, used) in [(10, 3600, 10), (3600, 7, 7), (0, 0, 5), (9000, 9000, 30)] {
            let error = AnswerError::NoSuchName { ttl: seconds(used) };
            assert_eq!(ask(0x8183, &[], &[soa("test", ttl, minimum)]), Err(error));
        }
        assert_eq!(ask(0x8183, &[], &[]), Err(AnswerError::NoSuchName { ttl: seconds(5) }));
    }

    #[test]
    fn what_answers_another_question_is_not_ours() {
        let name = name();
        let ours = query(&name, Kind::A);
        let records = [record(&ASKED, TYPE_A, 60, &[10, 0, 0, 1])];
        let good = answer(&encoded(&ours), 0x8180, &records, &[]);
        assert!(parse_answer(&good, &ours).is_ok());
        let not_ours = Err(AnswerError::NotOurs);
        assert_eq!(parse_answer(&good, &Query { id: 0x1235, ..ours }), not_ours);
        assert_eq!(parse_answer(&good, &Query { kind: Kind::Aaaa, ..ours }), not_ours);
        let other = Name::parse("example.test").expect("a good name");
        assert_eq!(parse_answer(&good, &Query { name: &other, ..ours }), not_ours);
        assert_eq!(parse_answer(&encoded(&ours), &ours), not_ours, "a query is no answer");
        assert_eq!(parse_answer(&good[..11], &ours), not_ours);
        let mut two_questions = good.clone();
        two_questions[5] = 2;
        assert_eq!(parse_answer(&two_questions, &ours), not_ours);
    }

    #[test]
    fn a_format_error_may_come_without_the_question() {
        let name = name();
        let bare = b"\x12\x34\x80\x01\0\0\0\0\0\0\0\0";
        assert_eq!(parse_answer(bare, &query(&name, Kind::A)), Err(AnswerError::FormatError));
    }

    #[test]
    fn an_answer_cut_anywhere_is_an_error() {
        let name = name();
        let query = query(&name, Kind::A);
        let records = [
            record(&ASKED, TYPE_CNAME, 60, &wire("b.test")),
            record(&wire("b.test"), TYPE_A, 60, &[10, 0, 0, 1]),
        ];
        let good = answer(&encoded(&query), 0x8180, &records, &[]);
        assert!(parse_answer(&good, &query).is_ok());
        for end in 0..good.len() {
            assert!(parse_answer(&good[..end], &query).is_err(), "{end} of {}", good.len());
        }
    }

    #[test]
    fn pointers_that_lead_forward_or_to_themselves_are_malformed() {
        // The first record begins at 34: a question of 18 + 4 bytes after the header's 12.
        for pointer in [[0xc0, 34], [0xc0, 35], [0xff, 0xff], [0x80, 12], [0x40, 12]] {
            let records = [record(&pointer, TYPE_A, 60, &[10, 0, 0, 1])];
            assert_eq!(ask(0x8180, &records, &[]), Err(AnswerError::Malformed), "{pointer:?}");
        }
        // A whole name, but after the pointer to it.
        let forward = record(&[0xc0, 46], 16, 60, &wire("b.test"));
        assert_eq!(ask(0x8180, &[forward], &[]), Err(AnswerError::Malformed));
        // Two names that point at each other, inside the data of a record that is skipped.
        let text = record(&ASKED, 16, 60, &[0xc0, 48, 0xc0, 46]);
        let through = record(&[0xc0, 48], TYPE_A, 60, &[10, 0, 0, 1]);
        assert_eq!(ask(0x8180, &[text, through], &[]), Err(AnswerError::Malformed));
    }

    #[test]
    fn addresses_of_the_wrong_length_and_names_that_do_not_fill_their_data_are_malformed() {
        let short = [record(&ASKED, TYPE_A, 60, &[10, 0, 0])];
        assert_eq!(ask(0x8180, &short, &[]), Err(AnswerError::Malformed));
        let long = [record(&ASKED, TYPE_CNAME, 60, &[&wire("b.test")[..], b"x"].concat())];
        assert_eq!(ask(0x8180, &long, &[]), Err(AnswerError::Malformed));
    }

    #[test]
    fn more_addresses_than_the_limit_are_left_out() {
        let records: Vec<Vec<u8>> = (0..300_u16)
            .map(|i| record(&ASKED, TYPE_A, 60, &[10, 0, (i >> 8) as u8, i as u8]))
            .collect();
        let answer = ask(0x8180, &records, &[]).expect("an answer");
        assert_eq!(answer.addresses.len(), DNS_ADDRESSES_MAX);
    }

    #[test]
    fn the_fuzz_entry_survives_every_changed_byte_of_a_good_answer() {
        let name = Name::parse("a.test").expect("a good name");
        let query = query(&name, Kind::A);
        let records = [
            record(&ASKED, TYPE_CNAME, 60, &wire("b.test")),
            record(&wire("b.test"), TYPE_A, 60, &[10, 0, 0, 1]),
        ];
        let good = answer(&encoded(&query), 0x8180, &records, &[soa("test", 1, 1)]);
        for at in 0..good.len() {
            for value in [0, 1, 0x3f, 0x40, 0xc0, 0xff] {
                let mut changed = good.clone();
                changed[at] = value;
                fuzz(&changed);
                fuzz(&changed[..at]);
            }
        }
    }
}
