//! A TLS connection after its handshake: bytes of the wire in, plaintext out, and the other way
//! round. Knows no socket. Between two requests it holds its keys and no buffer.

use rustls::ConnectionTrafficSecrets;
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;

use crate::limits;
use crate::tls::record::{self, Alert, Content, Exhausted, Opener, PLAIN_MAX, Sealer};
use crate::tls::settings::Version;

pub(crate) struct Session {
    version: Version,
    sealer: Sealer,
    opener: Opener,
    /// Makes the next keys of TLS 1.3, and keeps a server's tickets.
    next: Option<Next>,
    /// Records that are not whole, or that nobody had room for.
    undecided: Vec<u8>,
    /// Plaintext that nobody had room for, and how much of it was taken since.
    plain: Vec<u8>,
    taken: usize,
    /// Of a message that goes on in the next record.
    message: Vec<u8>,
    /// Records to be sent before any other.
    outgoing: Vec<u8>,
    /// Some of them are an answer that the peer waits for, or an alert.
    is_urgent: bool,
    /// Our key was changed, and the peer does not know yet.
    is_renewed: bool,
    /// Sealed, and partly sent.
    pending: Option<Pending>,
    /// Of the send that goes on: see the functions of these names.
    has_sent: bool,
    is_slow: bool,
    /// Records since the last that brought data.
    idle_records: u32,
    end: Option<End>,
    /// What the peer has complained of.
    alert: Option<u8>,
    /// Goodbye was said, or may not be.
    is_finished: bool,
}

pub(crate) enum Next {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

/// Nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer said so.
    Closed,
    /// The peer has broken the rules, or says that we have, or was cut.
    Failed,
}

/// What is on its way to the peer.
struct Pending {
    bytes: Vec<u8>,
    sent: usize,
    /// Of which plaintext; 0: nobody waits for it.
    plain: usize,
}

/// What a handshake has brought.
pub(crate) struct Keys {
    pub(crate) version: Version,
    pub(crate) send: (u64, ConnectionTrafficSecrets),
    pub(crate) receive: (u64, ConnectionTrafficSecrets),
    pub(crate) next: Next,
    /// What came behind the handshake: plaintext, then records.
    pub(crate) plain: Vec<u8>,
    pub(crate) undecided: Vec<u8>,
    /// The last of the handshake, which can leave with the first answer.
    pub(crate) outgoing: Vec<u8>,
}

impl Session {
    /// `None`: with a cipher that is not ours.
    pub(crate) fn new(keys: Keys) -> Option<Session> {
        let Keys { version, send, receive, next, plain, undecided, outgoing } = keys;
        Some(Session {
            version,
            sealer: Sealer::new(version, send)?,
            opener: Opener::new(version, receive)?,
            next: (version == Version::V1_3).then_some(next),
            undecided,
            plain,
            taken: 0,
            message: Vec::new(),
            outgoing,
            is_urgent: false,
            is_renewed: false,
            pending: None,
            has_sent: false,
            is_slow: false,
            idle_records: 0,
            end: None,
            alert: None,
            is_finished: false,
        })
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// What the peer has complained of before it left, by its number (RFC 8446 section 6).
    pub(crate) fn alert(&self) -> Option<u8> {
        self.alert
    }

    /// The socket has ended without a goodbye: what came may have been cut (RFC 8446 section 6.1).
    pub(crate) fn cut(&mut self) {
        self.end = Some(End::Failed);
    }

    /// Something can be read without the socket.
    pub(crate) fn has_more(&self) -> bool {
        let is_decided = |total| self.undecided.len() >= total || self.opener.is_too_long(total);
        let is_decided = record::length(&self.undecided).is_some_and(is_decided);
        self.taken < self.plain.len() || is_decided || self.end.is_some()
    }

    /// Records that are not whole, for the front of the next read.
    pub(crate) fn undecided(&self) -> &[u8] {
        &self.undecided
    }

    /// Plaintext that is here already.
    pub(crate) fn deliver(&mut self, room: &mut [u8]) -> usize {
        let rest = &self.plain[self.taken..];
        let count = rest.len().min(room.len());
        room[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        if self.taken == self.plain.len() {
            (self.plain, self.taken) = (Vec::new(), 0);
        }
        count
    }

    /// Takes what is left of earlier reads once more, for `room`.
    pub(crate) fn absorb_rest(&mut self, room: &mut [u8]) -> usize {
        let mut bytes = std::mem::take(&mut self.undecided);
        self.open_all(&mut bytes, room)
    }

    /// Opens the records in `bytes`, which begin with those that were undecided. Plaintext goes to
    /// `room`; what finds none is kept. Returns how much of `room` is filled.
    pub(crate) fn absorb(&mut self, bytes: &mut [u8], room: &mut [u8]) -> usize {
        self.undecided.clear();
        self.open_all(bytes, room)
    }

    fn open_all(&mut self, bytes: &mut [u8], room: &mut [u8]) -> usize {
        let (mut at, mut filled) = (0, 0);
        while self.end.is_none() && self.plain.is_empty() && (filled < room.len() || filled == 0) {
            let rest = &mut bytes[at..];
            if !record::may_begin(rest) {
                self.fail(Alert::UnexpectedMessage);
                break;
            }
            let Some(total) = record::length(rest) else { break };
            if self.opener.is_too_long(total) {
                self.fail(Alert::RecordOverflow);
                break;
            }
            let Some(record) = rest.get_mut(..total) else { break };
            match self.open(record, &mut room[filled..]) {
                Ok(count) => filled += count,
                Err(alert) => self.fail(alert),
            }
            at += total;
        }
        if self.end.is_none() {
            self.keep(&bytes[at..]);
        }
        filled
    }

    /// Exactly: doubling would keep twice the bytes of a peer that is slow.
    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.undecided = Vec::new();
            return;
        }
        self.undecided.clear();
        self.undecided.reserve_exact(rest.len());
        self.undecided.extend_from_slice(rest);
    }

    /// Bytes of `room` that are filled.
    fn open(&mut self, record: &mut [u8], room: &mut [u8]) -> Result<usize, Alert> {
        let opened = self.opener.open(record, room)?;
        let start = self.opener.offset();
        let plain = match opened.is_in_room {
            true => &room[..opened.plain],
            false => &record[start..start + opened.plain],
        };
        // Records of another kind do not come between the parts of a message (RFC 8446 section
        // 5.1).
        if opened.content != Content::Handshake && !self.message.is_empty() {
            return Err(Alert::UnexpectedMessage);
        }
        if opened.content == Content::Data && opened.plain > 0 {
            self.idle_records = 0;
            if opened.is_in_room {
                return Ok(opened.plain);
            }
            let count = plain.len().min(room.len());
            self.plain = plain[count..].to_vec();
            let start = start..start + count;
            room[..count].copy_from_slice(&record[start]);
            return Ok(count);
        }
        self.idle_records += 1;
        if self.idle_records > limits::TLS_IDLE_RECORDS_MAX {
            return Err(Alert::UnexpectedMessage);
        }
        match opened.content {
            Content::Data => Ok(0),
            Content::Alert => self.alerted(<[u8; 2]>::try_from(plain).ok()).map(|()| 0),
            Content::Handshake => {
                let plain = plain.to_vec();
                self.told(&plain).map(|()| 0)
            }
        }
    }

    fn alerted(&mut self, alert: Option<[u8; 2]>) -> Result<(), Alert> {
        const USER_CANCELED: u8 = 90;
        const WARNING: u8 = 1;
        match alert {
            None => return Err(Alert::DecodeError),
            Some([_, code]) if code == Alert::CloseNotify as u8 => self.end = Some(End::Closed),
            // It is followed by a goodbye.
            Some([_, USER_CANCELED]) => {}
            Some([WARNING, _]) if self.version == Version::V1_2 => {}
            Some([_, code]) => {
                self.alert = Some(code);
                self.is_finished = true;
                self.cut();
            }
        }
        Ok(())
    }

    /// Messages of a handshake that is over.
    fn told(&mut self, part: &[u8]) -> Result<(), Alert> {
        const NEW_SESSION_TICKET: u8 = 4;
        const KEY_UPDATE: u8 = 24;
        self.message.extend_from_slice(part);
        loop {
            let [kind, a, b, c, ref rest @ ..] = self.message[..] else {
                return if part.is_empty() { Err(Alert::UnexpectedMessage) } else { Ok(()) };
            };
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            match (&mut self.next, kind) {
                (Some(Next::Client(_)), NEW_SESSION_TICKET) => {
                    if length > limits::TLS_TICKET_BYTES_MAX {
                        return Err(Alert::DecodeError);
                    }
                }
                (Some(_), KEY_UPDATE) if length == 1 => {}
                (Some(_), KEY_UPDATE) => return Err(Alert::DecodeError),
                // Another handshake in TLS 1.2 too: nothing here is negotiated twice.
                (None, _) => return Err(Alert::HandshakeFailure),
                (Some(_), _) => return Err(Alert::UnexpectedMessage),
            }
            let Some(body) = rest.get(..length) else { return Ok(()) };
            let is_last = rest.len() == length;
            match &mut self.next {
                Some(Next::Client(kernel)) if kind == NEW_SESSION_TICKET => {
                    kernel.handle_new_session_ticket(body).map_err(|_| Alert::DecodeError)?;
                }
                _ => {
                    let asks = match body {
                        [0] => false,
                        [1] => true,
                        _ => return Err(Alert::DecodeError),
                    };
                    // Nothing may follow with the old key (RFC 8446 section 5.1).
                    if !is_last {
                        return Err(Alert::UnexpectedMessage);
                    }
                    self.change_keys(asks)?;
                }
            }
            if is_last {
                self.message = Vec::new();
                return Ok(());
            }
            self.message.drain(..4 + length);
        }
    }

    /// The peer seals with its next key from now on, and may want us to as well.
    fn change_keys(&mut self, asks: bool) -> Result<(), Alert> {
        let secrets = match &mut self.next {
            Some(Next::Server(kernel)) => kernel.update_rx_secret(),
            Some(Next::Client(kernel)) => kernel.update_rx_secret(),
            None => return Err(Alert::UnexpectedMessage),
        };
        let secrets = secrets.map_err(|_| Alert::InternalError)?;
        self.opener = Opener::new(self.version, secrets).ok_or(Alert::InternalError)?;
        // One answer is enough for all that were asked before it (RFC 8446 section 4.6.3).
        if asks && !self.is_renewed {
            self.renew().map_err(|_| Alert::InternalError)?;
        }
        Ok(())
    }

    /// Our own key is changed: the peer is told with the old one (RFC 8446 section 4.6.3).
    fn renew(&mut self) -> Result<(), Exhausted> {
        if self.next.is_none() {
            return Err(Exhausted);
        }
        (self.is_renewed, self.is_urgent) = (true, true);
        self.push(Content::Handshake, &[24, 0, 0, 1, 0])?;
        let secrets = match &mut self.next {
            Some(Next::Server(kernel)) => kernel.update_tx_secret(),
            Some(Next::Client(kernel)) => kernel.update_tx_secret(),
            None => return Err(Exhausted),
        };
        let secrets = secrets.map_err(|_| Exhausted)?;
        self.sealer = Sealer::new(self.version, secrets).ok_or(Exhausted)?;
        Ok(())
    }

    /// Whoever is there is not let in after all. What tells the peer so is to be sent.
    pub(crate) fn turn_away(&mut self, alert: u8) -> Vec<u8> {
        self.fail_with(alert);
        self.take_outgoing()
    }

    fn fail(&mut self, alert: Alert) {
        self.fail_with(alert as u8);
    }

    fn fail_with(&mut self, alert: u8) {
        const FATAL: u8 = 2;
        if self.end.is_none() && !self.is_finished {
            // Whoever may seal no more has nothing to say either.
            let _ = self.push(Content::Alert, &[FATAL, alert]);
            self.is_urgent = true;
        }
        self.is_finished = true;
        self.cut();
    }

    /// No more from us. The peer is told, unless something is half sent.
    pub(crate) fn finish(&mut self) {
        const WARNING: u8 = 1;
        let is_whole = self.pending.as_ref().is_none_or(|pending| pending.plain == 0);
        if !std::mem::replace(&mut self.is_finished, true) && is_whole {
            let _ = self.push(Content::Alert, &[WARNING, Alert::CloseNotify as u8]);
        }
    }

    fn push(&mut self, content: Content, bytes: &[u8]) -> Result<(), Exhausted> {
        let at = self.outgoing.len();
        self.outgoing.resize(at + self.sealer.overhead() + bytes.len(), 0);
        let sealed = self.sealer.seal(content, bytes, b"", &mut self.outgoing[at..]);
        self.outgoing.truncate(at + sealed.unwrap_or_default());
        sealed.map(|_| ())
    }

    /// Something is to be said that does not wait for data.
    pub(crate) fn is_urgent(&self) -> bool {
        self.is_urgent
    }

    /// The keys are about to be used up, and cannot be changed: no more should begin here.
    pub(crate) fn is_worn(&self) -> bool {
        self.next.is_none() && self.sealer.is_half_worn()
    }

    /// Records that wait for the next send.
    pub(crate) fn take_outgoing(&mut self) -> Vec<u8> {
        (self.is_urgent, self.is_renewed) = (false, false);
        std::mem::take(&mut self.outgoing)
    }

    /// Seals what of `parts` is behind the first `skip` bytes, as much as `out` has room for, after
    /// what has to go before. Returns bytes of `out`, and of the plaintext.
    pub(crate) fn seal(
        &mut self,
        parts: &[&[u8]; 3],
        mut skip: usize,
        out: &mut [u8],
    ) -> Result<(usize, usize), Exhausted> {
        if self.is_finished {
            return Err(Exhausted);
        }
        if self.sealer.is_worn() {
            self.renew()?;
        }
        let outgoing = self.take_outgoing();
        let mut at = outgoing.len();
        out.get_mut(..at).ok_or(Exhausted)?.copy_from_slice(&outgoing);
        self.idle_records = 0;
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let (overhead, begun) = (self.sealer.overhead(), skip);
        // A key that wears out here is changed by the next call.
        while skip < total && at + overhead < out.len() && !self.sealer.is_worn() {
            let most = PLAIN_MAX.min(out.len() - at - overhead);
            let (first, second) = pieces(parts, skip, most);
            at += self.sealer.seal(Content::Data, first, second, &mut out[at..])?;
            skip += first.len() + second.len();
        }
        Ok((at, skip - begun))
    }

    /// Sealed bytes that the socket did not take, and the plaintext in the whole of what it was
    /// offered.
    pub(crate) fn postpone(&mut self, bytes: &[u8], plain: usize) {
        self.is_slow = true;
        self.pending = Some(Pending { bytes: bytes.to_vec(), sent: 0, plain });
    }

    pub(crate) fn pending(&self) -> Option<&[u8]> {
        self.pending.as_ref().map(|pending| &pending.bytes[pending.sent..])
    }

    /// The socket has taken so many of the pending bytes. `Some`: the last of them, and the
    /// plaintext that has left with them.
    pub(crate) fn sent(&mut self, count: usize) -> Option<usize> {
        let pending = self.pending.as_mut()?;
        pending.sent += count;
        self.has_sent |= count > 0;
        if pending.sent < pending.bytes.len() {
            return None;
        }
        self.pending.take().map(|pending| pending.plain)
    }

    /// Something else is to be sent: nobody waits any more for what is half sent.
    pub(crate) fn begin_send(&mut self) {
        (self.has_sent, self.is_slow) = (false, false);
        if let Some(pending) = &mut self.pending {
            pending.plain = 0;
        }
    }

    pub(crate) fn note_sent(&mut self) {
        self.has_sent = true;
    }

    /// Records of what is being sent have left, in part at least.
    pub(crate) fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// The socket did not take all of what is being sent at once.
    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow
    }
}

/// The next `most` bytes of `parts`, behind the first `skip`: in one piece where a record's worth
/// is in one part.
fn pieces<'p>(parts: &[&'p [u8]; 3], mut skip: usize, most: usize) -> (&'p [u8], &'p [u8]) {
    let mut found: [&[u8]; 2] = [&[], &[]];
    let mut used = 0;
    let mut left = most;
    for part in parts {
        if used == 2 || left == 0 {
            break;
        }
        let start = skip.min(part.len());
        skip -= start;
        let count = left.min(part.len() - start);
        if count > 0 {
            found[used] = &part[start..start + count];
            used += 1;
            left -= count;
        }
    }
    (found[0], found[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::handshake::tests::pair;

    const BOTH: [Version; 2] = [Version::V1_2, Version::V1_3];

    /// What `from` sends of `plain`, everything that goes before it included.
    fn sealed(from: &mut Session, plain: &[u8]) -> Vec<u8> {
        let (mut wire, mut sent) = (Vec::new(), 0);
        let mut room = vec![0; 65_536];
        while sent < plain.len() {
            let parts = [&plain[..plain.len() / 3], &plain[plain.len() / 3..], b""];
            let (end, count) = from.seal(&parts, sent, &mut room).unwrap();
            wire.extend_from_slice(&room[..end]);
            sent += count;
        }
        wire.extend(from.take_outgoing());
        wire
    }

    /// All that `to` has to say after it has heard `wire` in pieces, read into rooms of one size.
    fn opened(to: &mut Session, wire: &[u8], piece: usize, room: usize) -> Vec<u8> {
        let (mut plain, mut room) = (Vec::new(), vec![0; room]);
        for piece in wire.chunks(piece) {
            let mut bytes = [to.undecided(), piece].concat();
            let filled = to.absorb(&mut bytes, &mut room);
            plain.extend_from_slice(&room[..filled]);
            loop {
                let mut count = to.deliver(&mut room);
                if count == 0 && to.has_more() && to.end().is_none() {
                    count = to.absorb_rest(&mut room);
                }
                plain.extend_from_slice(&room[..count]);
                if count == 0 {
                    break;
                }
            }
        }
        plain
    }

    fn numbers(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at * 7 % 251) as u8).collect()
    }

    #[test]
    fn what_one_says_the_other_hears_however_it_is_cut() {
        for version in BOTH {
            let (mut client, mut server) = pair(&format!("cut-{version:?}"), version);
            for (length, piece, room) in [
                (1, 1, 1),
                (100, 7, 3),
                (20_000, 1_000, 70_000),
                (100_000, 65_536, 32_768),
                (40_000, 16_385, 16_384),
                (33_000, 100_000, 5_000),
            ] {
                let plain = numbers(length);
                let wire = sealed(&mut client, &plain);
                assert!(opened(&mut server, &wire, piece, room) == plain, "{length} up");
                let wire = sealed(&mut server, &plain);
                assert!(opened(&mut client, &wire, piece, room) == plain, "{length} down");
            }
            assert_eq!((server.undecided.len(), server.plain.capacity()), (0, 0), "it holds keys");
        }
    }

    #[test]
    fn keys_change_on_both_sides_when_one_asks() {
        let (mut client, mut server) = pair("keys", Version::V1_3);
        for _ in 0..3 {
            // As `renew` does, but asking (RFC 8446 section 4.6.3).
            client.push(Content::Handshake, &[24, 0, 0, 1, 1]).unwrap();
            let Some(Next::Client(kernel)) = &mut client.next else { unreachable!() };
            let secrets = kernel.update_tx_secret().unwrap();
            client.sealer = Sealer::new(Version::V1_3, secrets).unwrap();
            let wire = sealed(&mut client, b"with new keys");
            assert_eq!(opened(&mut server, &wire, 9, 100), b"with new keys");
            let wire = sealed(&mut server, b"as asked");
            assert_eq!(opened(&mut client, &wire, 9, 100), b"as asked");
        }
    }

    #[test]
    fn a_key_that_is_worn_out_is_replaced_and_in_tls_1_2_the_connection_ends() {
        let (mut client, mut server) = pair("worn", Version::V1_3);
        // In the middle of what is sealed at once, too.
        for but in [0, 1, 2] {
            client.sealer.wear_out(but);
            let plain = numbers(60_000);
            let wire = sealed(&mut client, &plain);
            assert!(opened(&mut server, &wire, 1000, 100) == plain, "{but}");
        }
        let (mut client, _) = pair("worn-2", Version::V1_2);
        client.sealer.wear_out(0);
        assert!(client.is_worn());
        assert!(client.seal(&[b"x", b"", b""], 0, &mut [0; 100]).is_err());
    }

    #[test]
    fn many_wishes_for_new_keys_are_met_with_one_answer() {
        let (mut client, mut server) = pair("wishes", Version::V1_3);
        for _ in 0..limits::TLS_IDLE_RECORDS_MAX {
            client.push(Content::Handshake, &[24, 0, 0, 1, 1]).unwrap();
            let Some(Next::Client(kernel)) = &mut client.next else { unreachable!() };
            let secrets = kernel.update_tx_secret().unwrap();
            client.sealer = Sealer::new(Version::V1_3, secrets).unwrap();
        }
        let wire = sealed(&mut client, b"and data");
        let before = server.outgoing.len();
        assert_eq!(opened(&mut server, &wire, 1000, 100), b"and data");
        assert!(server.is_urgent() && server.outgoing.len() <= before + 27);
        let wire = sealed(&mut server, b"heard");
        assert_eq!(opened(&mut client, &wire, 1000, 100), b"heard");
    }

    #[test]
    fn a_goodbye_is_an_end_and_a_missing_one_a_cut() {
        for version in BOTH {
            let (mut client, mut server) = pair(&format!("end-{version:?}"), version);
            let mut wire = sealed(&mut client, b"last");
            client.finish();
            wire.extend(client.take_outgoing());
            assert_eq!(opened(&mut server, &wire, 1000, 100), b"last");
            assert_eq!(server.end(), Some(End::Closed));
            let wire = sealed(&mut server, b"you may still hear me");
            assert_eq!(opened(&mut client, &wire, 1000, 100), b"you may still hear me");
            client.cut();
            assert_eq!(client.end(), Some(End::Failed));
        }
    }

    #[test]
    fn what_breaks_the_rules_ends_the_connection_and_is_answered_with_an_alert() {
        let breaks = |name: &str, version, wire: &dyn Fn(&mut Session) -> Vec<u8>| {
            let (mut client, mut server) = pair(&format!("rules-{name}-{version:?}"), version);
            let wire = wire(&mut client);
            assert_eq!(opened(&mut server, &wire, 70_000, 100), b"", "{name}");
            assert_eq!(server.end(), Some(End::Failed), "{name}");
            let alert = server.take_outgoing();
            assert!(!alert.is_empty(), "{name}");
            assert!(server.seal(&[b"x", b"", b""], 0, &mut [0; 100]).is_err(), "{name}");
            opened(&mut client, &alert, 1000, 100);
            assert_eq!(client.end(), Some(End::Failed), "{name}: it understands the alert");
        };
        for version in BOTH {
            breaks("forged", version, &|client| {
                let mut wire = sealed(client, b"data");
                *wire.last_mut().unwrap() ^= 1;
                wire
            });
            breaks("long", version, &|_| [&[23, 3, 3, 0x7f, 0xff][..], &[0; 100]].concat());
            breaks("plain", version, &|_| b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec());
            breaks("flood", version, &|client| {
                for _ in 0..=limits::TLS_IDLE_RECORDS_MAX {
                    client.push(Content::Data, b"").unwrap();
                }
                client.take_outgoing()
            });
            // Another ClientHello: nothing is negotiated twice.
            breaks("again", version, &|client| {
                client.push(Content::Handshake, &[1, 0, 0, 2, 3, 3]).unwrap();
                client.take_outgoing()
            });
            breaks("empty", version, &|client| {
                client.push(Content::Handshake, b"").unwrap();
                client.take_outgoing()
            });
            breaks("alert", version, &|client| {
                client.push(Content::Alert, &[2]).unwrap();
                client.take_outgoing()
            });
        }
        breaks("between", Version::V1_3, &|client| {
            client.push(Content::Handshake, &[24, 0]).unwrap();
            client.push(Content::Data, b"not now").unwrap();
            client.take_outgoing()
        });
        breaks("update", Version::V1_3, &|client| {
            client.push(Content::Handshake, &[24, 0, 0, 1, 7]).unwrap();
            client.take_outgoing()
        });
        breaks("behind", Version::V1_3, &|client| {
            client.push(Content::Handshake, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0]).unwrap();
            client.take_outgoing()
        });
        breaks("ticket", Version::V1_3, &|client| {
            client.push(Content::Handshake, &[4, 0, 0, 1, 0]).unwrap();
            client.take_outgoing()
        });
    }

    #[test]
    fn what_the_socket_did_not_take_leaves_before_anything_else() {
        let (mut client, _) = pair("pending", Version::V1_3);
        client.postpone(b"abc", 2);
        assert_eq!(client.sent(2), None);
        assert_eq!(client.pending(), Some(&b"c"[..]));
        client.finish();
        assert!(client.take_outgoing().is_empty(), "no goodbye in the middle of a record");
        client.begin_send();
        assert_eq!((client.sent(1), client.pending()), (Some(0), None));
    }

    #[test]
    fn pieces_are_whole_parts_where_they_can_be() {
        let parts: [&[u8]; 3] = [b"head", b"", b"body"];
        assert_eq!(pieces(&parts, 0, 100), (&b"head"[..], &b"body"[..]));
        assert_eq!(pieces(&parts, 2, 4), (&b"ad"[..], &b"bo"[..]));
        assert_eq!(pieces(&parts, 4, 2), (&b"bo"[..], &b""[..]));
        assert_eq!(pieces(&parts, 8, 2), (&b""[..], &b""[..]));
        assert_eq!(pieces(&[b"a", b"b", b"c"], 0, 100), (&b"a"[..], &b"b"[..]));
    }
}
