//! Names to addresses, by asking the system's name servers. The control core runs `resolve` on the
//! engine's blocking pool; nothing else may call it, since it waits.
//!
//! In this order: an address is itself; `localhost` is this machine; /etc/hosts; then DNS, with the
//! search list of /etc/resolv.conf. A and AAAA are asked together, and every address is returned,
//! IPv4 before IPv6, each kind in the server's order.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::dns_message::{AnswerError, Edns, Kind, Name, Query, encode_query, parse_answer};
use super::resolv_conf::{Hosts, ResolvConf};
use crate::limits::{DNS_HOSTS_TTL, DNS_STRAYS_MAX, DNS_TCP_READS_MAX, DNS_TTL_MAX};

pub use super::dns_message::Answer;

#[derive(Clone, Debug)]
pub struct Resolver {
    pub servers: Vec<SocketAddr>,
    pub search: Vec<String>,
    pub ndots: usize,
    /// Of one try of one server.
    pub timeout: Duration,
    /// How often all servers are tried.
    pub attempts: usize,
    pub hosts: Hosts,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolveError {
    /// Not a name; asking again does not help.
    BadName { name: String, expected: &'static str },
    /// The servers say that there is no such name.
    NoSuchName { name: String, ttl: Duration },
    /// The name is there, but has no A and no AAAA record.
    NoAddresses { name: String, ttl: Duration },
    /// No server gave an answer; this is what the last one did.
    Failed { name: String, server: SocketAddr, why: Failure },
    /// The lookup ended by a panic of ours; the next one may meet another answer.
    Panicked { name: String },
}

/// Why one server gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Timeout,
    /// SERVFAIL.
    ServerFailure,
    /// Another response code.
    Refused(u8),
    Malformed,
    /// Too many datagrams that answer other questions.
    Strays,
    Io(io::ErrorKind),
}

impl Resolver {
    /// From the texts of /etc/resolv.conf and /etc/hosts.
    pub fn new(resolv_conf: &str, hosts: &str) -> Resolver {
        let ResolvConf { servers, search, ndots, timeout, attempts } =
            ResolvConf::parse(resolv_conf);
        let hosts = Hosts::parse(hosts);
        Resolver { servers, search, ndots, timeout, attempts, hosts }
    }

    /// Reads both files, which costs little next to a query: done for every round, a change of them
    /// is noticed. A file that cannot be read counts as empty, as other resolvers have it.
    pub fn load() -> Resolver {
        let text = |path: &str| {
            let bytes = fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Resolver::new(&text("/etc/resolv.conf"), &text("/etc/hosts"))
    }

    /// Waits for an answer: at most `attempts` × servers × `timeout`, for each name of the search
    /// list and again for answers that need TCP. When only one of A and AAAA could be asked, what
    /// was found is the answer.
    pub fn resolve(&self, name: &str) -> Result<Answer, ResolveError> {
        if let Some(answer) = self.without_dns(name) {
            return Ok(answer);
        }
        let mut error = None;
        for candidate in self.candidates(name) {
            match self.ask_for(&candidate) {
                Ok(answer) => return Ok(answer),
                // No other name of the list may stand in for one that could not be asked.
                Err(next) if next.ends_the_search() => return Err(next),
                Err(next) => error = Some(ResolveError::weightier(error, next)),
            }
        }
        Err(error.unwrap_or_else(|| bad_name(name, "expected a name as `api.example.com`")))
    }

    fn without_dns(&self, name: &str) -> Option<Answer> {
        let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        if let Some(address) = literal.and_then(|text| text.parse::<Ipv6Addr>().ok()) {
            return Some(Answer { addresses: vec![address.into()], ttl: DNS_TTL_MAX });
        }
        if let Ok(address) = name.parse::<IpAddr>() {
            return Some(Answer { addresses: vec![address], ttl: DNS_TTL_MAX });
        }
        let listed = self.hosts.find(name);
        let addresses = if is_localhost(name) { loopback(listed) } else { listed.to_vec() };
        (!addresses.is_empty()).then_some(Answer { addresses, ttl: DNS_HOSTS_TTL })
    }

    /// As resolv.conf(5): a name with a dot at its end is tried alone, one with `ndots` dots before
    /// the search list, another after it.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let mut candidates: Vec<String> =
            self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        if name.matches('.').count() >= self.ndots {
            candidates.insert(0, name.to_owned());
        } else {
            candidates.push(name.to_owned());
        }
        candidates
    }

    /// One whole name, of all servers in turn, until both kinds are known.
    fn ask_for(&self, name: &str) -> Result<Answer, ResolveError> {
        let wire = Name::parse(name).map_err(|expected| bad_name(name, expected))?;
        let mut known = Known::default();
        let mut failed = None;
        for server in self.servers.iter().cycle().take(self.servers.len() * self.attempts) {
            match self.ask_server(*server, &wire, &mut known) {
                Ok(()) => return known.conclude(name),
                Err(why) => failed = Some((*server, why)),
            }
        }
        match (known.conclude(name), failed) {
            (Ok(partial), _) => Ok(partial),
            (Err(_), Some((server, why))) => {
                Err(ResolveError::Failed { name: name.to_owned(), server, why })
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Asks one server for what is not known yet. `Ok`: now it is.
    fn ask_server(
        &self,
        server: SocketAddr,
        name: &Name,
        known: &mut Known,
    ) -> Result<(), Failure> {
        let socket = self.open(server)?;
        let mut pending = Vec::new();
        for kind in known.missing() {
            let query = Query { id: random_id()?, name, kind, edns: Edns::Offered };
            socket.send(&encoded(&query))?;
            pending.push(query);
        }
        let mut buffer = [0; 4096];
        let mut strays = 0;
        let mut failed = None;
        while !pending.is_empty() {
            let length = socket.recv(&mut buffer)?;
            let Some((at, result)) = match_answer(&buffer[..length], &pending) else {
                strays += 1;
                if strays > DNS_STRAYS_MAX {
                    return Err(Failure::Strays);
                }
                continue;
            };
            let query = pending.swap_remove(at);
            let result = match result {
                Err(AnswerError::FormatError) if query.edns == Edns::Offered => {
                    let plain = Query { id: random_id()?, edns: Edns::Omitted, ..query };
                    socket.send(&encoded(&plain))?;
                    pending.push(plain);
                    continue;
                }
                Err(AnswerError::Truncated) => self.ask_over_tcp(server, &query),
                other => Ok(other),
            };
            failed = result.and_then(|result| known.learn(query.kind, result)).err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Connected, so that the kernel drops what comes from elsewhere. The kernel also chooses the
    /// port, at random.
    fn open(&self, server: SocketAddr) -> io::Result<UdpSocket> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(self.timeout))?;
        socket.set_write_timeout(Some(self.timeout))?;
        Ok(socket)
    }

    /// RFC 7766: the same message, after its length in two bytes.
    fn ask_over_tcp(
        &self,
        server: SocketAddr,
        query: &Query<'_>,
    ) -> Result<Result<Answer, AnswerError>, Failure> {
        let mut stream = TcpStream::connect_timeout(&server, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        let message = encoded(query);
        let length = message.len() as u16;
        stream.write_all(&[&length.to_be_bytes()[..], &message].concat())?;
        let mut received = Vec::new();
        let mut buffer = [0; 16 * 1024];
        for _ in 0..DNS_TCP_READS_MAX {
            let count = stream.read(&mut buffer)?;
            received.extend_from_slice(&buffer[..count]);
            if let Some((length, rest)) = received.split_first_chunk()
                && let Some(answer) = rest.get(..u16::from_be_bytes(*length).into())
            {
                return Ok(parse_answer(answer, query));
            }
            if count == 0 {
                return Err(Failure::Io(io::ErrorKind::UnexpectedEof));
            }
        }
        Err(Failure::Timeout)
    }
}

/// RFC 6761 section 6.3: never asked of a server.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// One family only: most programs listen on one, and an endpoint on the other would refuse every
/// second request. IPv4, unless /etc/hosts has only IPv6 for it.
fn loopback(listed: &[IpAddr]) -> Vec<IpAddr> {
    let v4: Vec<IpAddr> = listed.iter().copied().filter(IpAddr::is_ipv4).collect();
    match (v4.is_empty(), listed.is_empty()) {
        (false, _) => v4,
        (true, false) => listed.to_vec(),
        (true, true) => vec![Ipv4Addr::LOCALHOST.into()],
    }
}

fn encoded(query: &Query<'_>) -> Vec<u8> {
    let mut message = Vec::with_capacity(512);
    encode_query(query, &mut message);
    message
}

/// Which of the questions this answers, and what it says.
fn match_answer(
    bytes: &[u8],
    pending: &[Query<'_>],
) -> Option<(usize, Result<Answer, AnswerError>)> {
    let mut results = pending.iter().map(|query| parse_answer(bytes, query)).enumerate();
    results.find(|(_, result)| *result != Err(AnswerError::NotOurs))
}

/// Not to be guessed by those who cannot see the query (RFC 5452 section 9.2).
fn random_id() -> io::Result<u16> {
    let mut bytes = [0; 2];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

fn bad_name(name: &str, expected: &'static str) -> ResolveError {
    ResolveError::BadName { name: name.to_owned(), expected }
}

/// What is known of one name.
#[derive(Debug, Default)]
struct Known {
    v4: Option<Verdict>,
    v6: Option<Verdict>,
}

/// What a server that knows says: not its failures.
#[derive(Clone, Debug)]
enum Verdict {
    Found(Answer),
    NoAddresses(Duration),
    NoSuchName(Duration),
}

impl Known {
    fn missing(&self) -> impl Iterator<Item = Kind> + use<> {
        let v4 = self.v4.is_none().then_some(Kind::A);
        let v6 = self.v6.is_none().then_some(Kind::Aaaa);
        v4.into_iter().chain(v6)
    }

    fn learn(&mut self, kind: Kind, result: Result<Answer, AnswerError>) -> Result<(), Failure> {
        let verdict = match result {
            Ok(answer) => Verdict::Found(answer),
            Err(AnswerError::NoAddresses { ttl }) => Verdict::NoAddresses(ttl),
            Err(AnswerError::NoSuchName { ttl }) => Verdict::NoSuchName(ttl),
            Err(AnswerError::ServerFailure) => return Err(Failure::ServerFailure),
            Err(AnswerError::Refused(code)) => return Err(Failure::Refused(code)),
            Err(AnswerError::FormatError) => return Err(Failure::Refused(1)),
            // The last two: only over TCP, where they make no sense.
            Err(AnswerError::Malformed | AnswerError::NotOurs | AnswerError::Truncated) => {
                return Err(Failure::Malformed);
            }
        };
        match kind {
            Kind::A => self.v4 = Some(verdict),
            Kind::Aaaa => self.v6 = Some(verdict),
        }
        Ok(())
    }

    /// One kind with addresses is enough. Without any, a name with no addresses is there, whatever
    /// a confused server says of the other kind.
    fn conclude(self, name: &str) -> Result<Answer, ResolveError> {
        let name = name.to_owned();
        match (self.v4, self.v6) {
            (Some(Verdict::Found(v4)), Some(Verdict::Found(v6))) => {
                let addresses = [v4.addresses, v6.addresses].concat();
                Ok(Answer { addresses, ttl: v4.ttl.min(v6.ttl) })
            }
            (Some(Verdict::Found(one)), _) | (_, Some(Verdict::Found(one))) => Ok(one),
            (Some(Verdict::NoAddresses(ttl)), _) | (_, Some(Verdict::NoAddresses(ttl))) => {
                Err(ResolveError::NoAddresses { name, ttl })
            }
            (Some(Verdict::NoSuchName(ttl)), _) | (_, Some(Verdict::NoSuchName(ttl))) => {
                Err(ResolveError::NoSuchName { name, ttl })
            }
            (None, None) => Err(bad_name(&name, "expected a name server to ask")),
        }
    }
}

impl ResolveError {
    /// What the servers said about how long the name stays absent.
    pub fn ttl(&self) -> Option<Duration> {
        match self {
            ResolveError::NoSuchName { ttl, .. } | ResolveError::NoAddresses { ttl, .. } => {
                Some(*ttl)
            }
            ResolveError::BadName { .. }
            | ResolveError::Failed { .. }
            | ResolveError::Panicked { .. } => None,
        }
    }

    /// As glibc: after a SERVFAIL, which may be of one search domain only, the next name is tried;
    /// after silence it is not, or every name of the list would wait for it.
    fn ends_the_search(&self) -> bool {
        match self {
            ResolveError::Failed { why, .. } => *why != Failure::ServerFailure,
            ResolveError::BadName { .. }
            | ResolveError::NoSuchName { .. }
            | ResolveError::NoAddresses { .. }
            | ResolveError::Panicked { .. } => false,
        }
    }

    /// Of the errors of several candidates, the one to report.
    fn weightier(before: Option<ResolveError>, next: ResolveError) -> ResolveError {
        let weight = |error: &ResolveError| match error {
            ResolveError::BadName { .. } => 0,
            ResolveError::NoSuchName { .. } => 1,
            ResolveError::NoAddresses { .. } => 2,
            ResolveError::Failed { .. } | ResolveError::Panicked { .. } => 3,
        };
        match before {
            Some(before) if weight(&before) > weight(&next) => before,
            Some(_) | None => next,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            Failure::Timeout
        } else {
            Failure::Io(error.kind())
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Timeout => f.write_str("did not answer in time"),
            Failure::ServerFailure => f.write_str("answered SERVFAIL"),
            Failure::Refused(code) => write!(f, "answered with response code {code}"),
            Failure::Malformed => f.write_str("sent a malformed answer"),
            Failure::Strays => f.write_str("sent only answers to other questions"),
            Failure::Io(kind) => write!(f, "cannot be asked: {kind}"),
        }
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResolveError::BadName { name, expected } => {
                write!(f, "resolving `{name}`: not a name that can be looked up: {expected}")
            }
            ResolveError::NoSuchName { name, ttl: _ } => write!(
                f,
                "resolving `{name}`: there is no such name; \
                 check its spelling and the search list in /etc/resolv.conf"
            ),
            ResolveError::NoAddresses { name, ttl: _ } => {
                write!(f, "resolving `{name}`: it has no addresses; expected an A or AAAA record")
            }
            ResolveError::Failed { name, server, why } => write!(
                f,
                "resolving `{name}`: name server {server} {why}; \
                 check that it is up and right in /etc/resolv.conf"
            ),
            ResolveError::Panicked { name } => write!(
                f,
                "resolving `{name}`: the lookup panicked, which is a bug; \
                 it is tried again, and the lines before tell where it was"
            ),
        }
    }
}

impl std::error::Error for ResolveError {}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::thread;

    use super::super::dns_message::build::{answer, record, soa, wire};
    use super::*;

    const ASKED: [u8; 2] = [0xc0, 12];
    const A: u16 = 1;
    const CNAME: u16 = 5;
    const AAAA: u16 = 28;
    const GOOD: u16 = 0x8180;
    const TRUNCATED: u16 = 0x8380;
    const NO_SUCH_NAME: u16 = 0x8183;
    const SERVER_FAILURE: u16 = 0x8182;

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Asked {
        over: Over,
        name: String,
        kind: u16,
        has_edns: bool,
        bytes: Vec<u8>,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Over {
        Udp,
        Tcp,
    }

    impl Asked {
        fn parse(over: Over, bytes: &[u8]) -> Asked {
            let mut labels = Vec::new();
            let mut at = 12;
            while bytes[at] != 0 {
                let end = at + 1 + usize::from(bytes[at]);
                labels.push(String::from_utf8_lossy(&bytes[at + 1..end]).into_owned());
                at = end;
            }
            Asked {
                over,
                name: labels.join("."),
                kind: u16::from_be_bytes([bytes[at + 1], bytes[at + 2]]),
                has_edns: bytes[11] == 1,
                bytes: bytes.to_vec(),
            }
        }

        fn answer(&self, flags: u16, answers: &[Vec<u8>]) -> Vec<u8> {
            answer(&self.bytes, flags, answers, &[soa("test", 20, 20)])
        }
    }

    /// A name server on a port of its own, that answers every question with the datagrams (or, over
    /// TCP, the one message) that `serve` makes of it.
    struct Server {
        address: SocketAddr,
        asked: mpsc::Receiver<Asked>,
        threads: Vec<thread::JoinHandle<()>>,
    }

    impl Server {
        fn start(serve: fn(&Asked) -> Vec<Vec<u8>>) -> Server {
            let (udp, tcp) = loop {
                let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
                // The same port may be taken for TCP.
                if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("bound")) {
                    break (udp, tcp);
                }
            };
            let address = udp.local_addr().expect("bound");
            let (to_test, asked) = mpsc::channel();
            let from_udp = to_test.clone();
            let datagrams = thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok((length, client)) = udp.recv_from(&mut buffer) {
                    if length == 0 {
                        return;
                    }
                    let asked = Asked::parse(Over::Udp, &buffer[..length]);
                    for datagram in serve(&asked) {
                        udp.send_to(&datagram, client).expect("the client is on this machine");
                    }
                    let _ = from_udp.send(asked);
                }
            });
            let streams = thread::spawn(move || {
                while let Ok((mut stream, _)) = tcp.accept() {
                    let mut length = [0; 2];
                    if stream.read_exact(&mut length).is_err() {
                        return;
                    }
                    let mut message = vec![0; u16::from_be_bytes(length).into()];
                    stream.read_exact(&mut message).expect("a whole message");
                    let asked = Asked::parse(Over::Tcp, &message);
                    for answer in serve(&asked) {
                        stream.write_all(&(answer.len() as u16).to_be_bytes()).expect("written");
                        stream.write_all(&answer).expect("written");
                    }
                    let _ = to_test.send(asked);
                }
            });
            Server { address, asked, threads: vec![datagrams, streams] }
        }

        /// Ends the server, and returns all it was asked.
        fn stop(mut self) -> Vec<Asked> {
            let stopper = UdpSocket::bind("127.0.0.1:0").expect("a port");
            stopper.send_to(&[], self.address).expect("sent");
            drop(TcpStream::connect(self.address).expect("the server listens"));
            for thread in self.threads.drain(..) {
                thread.join().expect("the server does not panic");
            }
            self.asked.try_iter().collect()
        }
    }

    /// Patient, so that a busy machine does not fail a test.
    fn resolver(servers: &[SocketAddr]) -> Resolver {
        Resolver {
            servers: servers.to_vec(),
            timeout: Duration::from_secs(5),
            attempts: 10,
            ..Resolver::new("", "")
        }
    }

    fn both(asked: &Asked) -> Vec<Vec<u8>> {
        let records = match asked.kind {
            A => vec![record(&ASKED, A, 60, &[10, 0, 0, 2]), record(&ASKED, A, 60, &[10, 0, 0, 1])],
            _ => vec![record(&ASKED, AAAA, 30, &[0xfd; 16])],
        };
        vec![asked.answer(GOOD, &records)]
    }

    fn one_v4(asked: &Asked) -> Vec<Vec<u8>> {
        let record = record(&ASKED, A, 60, &[10, 0, 0, 1]);
        vec![asked.answer(GOOD, if asked.kind == A { std::slice::from_ref(&record) } else { &[] })]
    }

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn all_addresses_of_both_kinds_are_returned_ipv4_first() {
        let server = Server::start(both);
        let answer = resolver(&[server.address]).resolve("api.test").expect("an answer");
        let expected = ["10.0.0.2", "10.0.0.1", "fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd"];
        assert_eq!(answer.addresses, addresses(&expected));
        assert_eq!(answer.ttl, Duration::from_secs(30));
        let asked = server.stop();
        assert!(asked.iter().all(|asked| asked.has_edns && asked.over == Over::Udp));
        assert_ne!(asked[0].bytes[..2], asked[1].bytes[..2], "ids differ");
    }

    #[test]
    fn a_name_with_only_one_kind_is_found_through_its_alias() {
        let server = Server::start(|asked| {
            let records = [
                record(&ASKED, CNAME, 10, &wire("b.test")),
                record(&wire("b.test"), A, 60, &[10, 0, 0, 1]),
            ];
            vec![asked.answer(GOOD, if asked.kind == A { &records } else { &records[..1] })]
        });
        let answer = resolver(&[server.address]).resolve("api.test.").expect("an answer");
        assert_eq!(answer.addresses, addresses(&["10.0.0.1"]));
        assert_eq!(answer.ttl, Duration::from_secs(10));
        server.stop();
    }

    #[test]
    fn a_truncated_answer_is_asked_for_again_over_tcp() {
        let server = Server::start(|asked| match asked.over {
            Over::Udp => vec![asked.answer(TRUNCATED, &[])],
            Over::Tcp => {
                let records: Vec<_> =
                    (0..200).map(|i| record(&ASKED, A, 60, &[10, 0, 0, i])).collect();
                vec![asked.answer(GOOD, if asked.kind == A { &records } else { &[] })]
            }
        });
        let answer = resolver(&[server.address]).resolve("api.test").expect("an answer");
        assert_eq!(answer.addresses.len(), 200);
        let asked = server.stop();
        assert_eq!(asked.iter().filter(|asked| asked.over == Over::Tcp).count(), 2);
    }

    #[test]
    fn an_absent_name_and_a_name_without_addresses_are_told_apart() {
        let server = Server::start(|asked| {
            let flags = if asked.name == "gone.test" { NO_SUCH_NAME } else { GOOD };
            vec![asked.answer(flags, &[])]
        });
        let resolver = resolver(&[server.address]);
        let ttl = Duration::from_secs(20);
        let gone = ResolveError::NoSuchName { name: "gone.test".into(), ttl };
        assert_eq!(resolver.resolve("gone.test"), Err(gone));
        let bare = ResolveError::NoAddresses { name: "bare.test".into(), ttl };
        assert_eq!(resolver.resolve("bare.test"), Err(bare));
        assert_eq!(server.stop().len(), 4, "each kind is asked once");
    }

    #[test]
    fn datagrams_with_another_id_or_question_are_ignored() {
        let server = Server::start(|asked| {
            let mut other_id = both(asked).remove(0);
            other_id[0] ^= 0x55;
            other_id.truncate(other_id.len() - 1);
            let mut other_name = asked.answer(NO_SUCH_NAME, &[]);
            other_name[13] ^= 1;
            let mut datagrams = vec![b"x".to_vec(), other_id, other_name, asked.bytes.clone()];
            datagrams.extend(both(asked));
            datagrams
        });
        let answer = resolver(&[server.address]).resolve("api.test").expect("an answer");
        assert_eq!(answer.addresses.len(), 3);
        server.stop();
    }

    #[test]
    fn a_server_that_sends_only_strays_is_given_up() {
        let server = Server::start(|asked| {
            let mut stray = asked.bytes.clone();
            stray[0] ^= 0x55;
            vec![stray; DNS_STRAYS_MAX + 1]
        });
        let once = Resolver { attempts: 1, ..resolver(&[server.address]) };
        let error = once.resolve("api.test").expect_err("nothing was answered");
        assert!(matches!(error, ResolveError::Failed { why: Failure::Strays, .. }), "{error}");
        server.stop();
    }

    #[test]
    fn after_silence_the_second_server_is_asked() {
        let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let server = Server::start(both);
        let servers = [silent.local_addr().expect("bound"), server.address];
        let hasty = Resolver { timeout: Duration::from_millis(300), ..resolver(&servers) };
        let answer = hasty.resolve("api.test").expect("an answer");
        assert_eq!(answer.addresses.len(), 3);
        server.stop();
    }

    #[test]
    fn after_a_failure_the_second_server_is_asked() {
        let broken = Server::start(|asked| vec![asked.answer(SERVER_FAILURE, &[])]);
        let server = Server::start(both);
        let servers = [broken.address, server.address];
        assert!(resolver(&servers).resolve("api.test").is_ok());
        broken.stop();
        server.stop();
    }

    #[test]
    fn what_one_server_knew_is_not_asked_of_the_next() {
        let half = Server::start(|asked| match asked.kind {
            A => one_v4(asked),
            _ => vec![asked.answer(SERVER_FAILURE, &[])],
        });
        let server = Server::start(both);
        let servers = [half.address, server.address];
        let answer = resolver(&servers).resolve("api.test").expect("an answer");
        assert_eq!(answer.addresses.len(), 2);
        half.stop();
        assert!(server.stop().iter().all(|asked| asked.kind == AAAA));
    }

    #[test]
    fn one_kind_is_enough_when_the_other_always_fails() {
        let half = Server::start(|asked| match asked.kind {
            A => one_v4(asked),
            _ => vec![asked.answer(SERVER_FAILURE, &[])],
        });
        let answer = resolver(&[half.address]).resolve("api.test").expect("an answer");
        assert_eq!(answer.addresses, addresses(&["10.0.0.1"]));
        half.stop();
    }

    #[test]
    fn when_no_server_answers_the_error_names_the_last_and_why() {
        let closed = UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("a port");
        let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let server = silent.local_addr().expect("bound");
        let once = Resolver {
            attempts: 1,
            timeout: Duration::from_millis(20),
            ..resolver(&[closed, server])
        };
        let why = Failure::Timeout;
        let expected = ResolveError::Failed { name: "api.test".into(), server, why };
        assert_eq!(once.resolve("api.test"), Err(expected));
    }

    #[test]
    fn a_server_that_does_not_know_edns_is_asked_without_it() {
        let server = Server::start(|asked| {
            if asked.has_edns {
                let bare = [&asked.bytes[..2], b"\x80\x01\0\0\0\0\0\0\0\0"].concat();
                vec![bare]
            } else {
                both(asked)
            }
        });
        let answer = resolver(&[server.address]).resolve("api.test").expect("an answer");
        assert_eq!(answer.addresses.len(), 3);
        server.stop();
    }

    #[test]
    fn few_dots_try_the_search_list_first_and_many_try_it_last() {
        fn serve(asked: &Asked) -> Vec<Vec<u8>> {
            match asked.name.as_str() {
                "db.b.test" | "long.name" => one_v4(asked),
                "broken.a.test" => vec![asked.answer(SERVER_FAILURE, &[])],
                "broken.b.test" => one_v4(asked),
                _ => vec![asked.answer(NO_SUCH_NAME, &[])],
            }
        }
        let server = Server::start(serve);
        let searching = Resolver {
            search: vec!["a.test".into(), "b.test".into()],
            attempts: 1,
            ..resolver(&[server.address])
        };
        assert!(searching.resolve("db").is_ok());
        assert!(searching.resolve("long.name").is_ok());
        assert!(searching.resolve("broken").is_ok(), "the next domain after a SERVFAIL");
        assert!(searching.resolve("db.").is_err(), "a dot at the end means the whole name");
        let names: Vec<_> =
            server.stop().into_iter().filter(|a| a.kind == A).map(|a| a.name).collect();
        let expected = ["db.a.test", "db.b.test", "long.name", "broken.a.test", "broken.b.test"];
        assert_eq!(names, [&expected[..], &["db"]].concat());
    }

    #[test]
    fn addresses_hosts_and_localhost_need_no_server() {
        let hosts = "10.0.0.7 db.test\n::1 localhost\n127.0.0.1 localhost\n::1 six.localhost\n";
        let resolver = Resolver { servers: Vec::new(), ..Resolver::new("", hosts) };
        let found = |name: &str| resolver.resolve(name).expect(name).addresses;
        assert_eq!(found("10.1.2.3"), addresses(&["10.1.2.3"]));
        assert_eq!(found("::1"), addresses(&["::1"]));
        assert_eq!(found("[::1]"), addresses(&["::1"]));
        assert_eq!(found("DB.test."), addresses(&["10.0.0.7"]));
        assert_eq!(found("localhost"), addresses(&["127.0.0.1"]));
        assert_eq!(found("app.LOCALHOST"), addresses(&["127.0.0.1"]));
        assert_eq!(found("six.localhost"), addresses(&["::1"]));
        assert!(resolver.resolve("other.test").is_err());
    }

    #[test]
    fn names_that_dns_cannot_carry_are_refused_without_asking() {
        let server = Server::start(both);
        let resolver = resolver(&[server.address]);
        for name in ["", ".", "a..b", "a b.test", "bücher.test"] {
            let error = resolver.resolve(name).expect_err(name);
            assert!(matches!(error, ResolveError::BadName { .. }), "{error}");
        }
        assert!(server.stop().is_empty());
    }
}
