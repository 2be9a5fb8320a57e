//! Which stream of a client's connection may send next (RFC 9218). The crate sends round and round
//! what streams have given it, so the order is made before that: while the connection takes less
//! than there is, only whoever is next gets room, and little is given ahead. Whoever cannot use its
//! turn, since its own window is shut or its endpoint is slow, is not in the way.
//!
//! Nothing here happens on a connection whose client, and whose endpoints, say nothing of
//! priorities: streams share it then, as browsers that say nothing expect. After its first word
//! what says nothing is what RFC 9218 says: urgency 3, one after another.

use std::task::Waker;

use http::{HeaderMap, HeaderName};

use crate::http2::frames::{DATA, END_STREAM, Frame, HEADERS, RST_STREAM};
use crate::limits;

const FIELD: HeaderName = HeaderName::from_static("priority");
const URGENCY: u8 = 3;
const URGENCIES: usize = 8;

/// What was said of a stream. `None`: nothing of this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    urgency: Option<u8>,
    incremental: Option<bool>,
}

impl Told {
    /// In a head. A value that is broken, or means nothing to us, is as good as none.
    pub(crate) fn of(fields: &HeaderMap) -> Told {
        let mut values = fields.get_all(FIELD).iter();
        match (values.next(), values.next()) {
            (None, _) => Told::default(),
            (Some(value), None) => Told::read(value.as_bytes()),
            // Lines of one list (RFC 9651 section 4.2).
            (Some(_), Some(_)) => {
                let values = fields.get_all(FIELD).iter();
                let values: Vec<&[u8]> = values.map(http::HeaderValue::as_bytes).collect();
                Told::read(&values.join(&b", "[..]))
            }
        }
    }

    pub(crate) fn read(value: &[u8]) -> Told {
        let mut told = Told::default();
        let whole = Text(value).dictionary(|key, value| match key {
            b"u" => told.urgency = value.urgency(),
            b"i" => told.incremental = value.boolean(),
            _ => {}
        });
        whole.map_or_else(Told::default, |()| told)
    }

    pub(crate) fn is_nothing(self) -> bool {
        self == Told::default()
    }
}

/// The order of one connection, from the first word about it on.
#[derive(Debug, Default)]
pub(crate) struct Order {
    lanes: Vec<Lane>,
    /// The client has said something: what says nothing is not incremental.
    client_speaks: bool,
    /// Turns that were given, and the last of those of an urgency that go one after another.
    turns: u64,
    turn_in_order: [u64; URGENCIES],
    /// Bytes that all streams have given to the crate and it has not written.
    queued: u64,
    /// Of those, bytes that cannot leave though the connection could take them.
    stuck: u64,
    /// Bytes that were written.
    written: u64,
}

/// A stream.
#[derive(Debug)]
struct Lane {
    stream: u32,
    /// By the client, and by the endpoint in its answer, which is stronger (RFC 9218 section 8).
    asked: Told,
    answered: Told,
    /// A frame has said more recently what the head of the request had (section 7).
    is_updated: bool,
    /// There is an exchange.
    is_open: bool,
    /// Both sides talk as they like, for as long as they like: it has its share of whatever is
    /// next, and nobody has to wait until it is over.
    is_tunnel: bool,
    queued: u64,
    waiting: Option<Waker>,
    /// It was given room and has none: its own window is shut.
    is_shut: bool,
    /// The last that it has had; 0: none.
    turn: u64,
}

/// Whether a stream may be given room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Later,
    /// For so many bytes.
    Now(usize),
}

impl Order {
    /// What the head of a request says.
    pub(crate) fn asked(&mut self, stream: u32, told: Told) {
        self.client_speaks |= !told.is_nothing();
        let lane = self.lane(stream);
        lane.is_open = true;
        if !lane.is_updated {
            lane.asked = told;
        }
    }

    /// What the head of its answer says.
    pub(crate) fn answered(&mut self, stream: u32, told: Told) {
        self.lane(stream).answered = told;
    }

    /// A PRIORITY_UPDATE frame, which may come before the request.
    pub(crate) fn updated(&mut self, stream: u32, told: Told) {
        self.client_speaks = true;
        let lane = self.lane(stream);
        (lane.asked, lane.is_updated) = (told, true);
        self.forget_strangers();
    }

    pub(crate) fn is_tunnel(&mut self, stream: u32) {
        self.lane(stream).is_tunnel = true;
    }

    /// A stream has something to say, or would read on if it had room. `waker`: it waits for that.
    pub(crate) fn asks(&mut self, stream: u32, waker: Option<&Waker>) -> Turn {
        let lane = self.lane(stream);
        lane.is_open = true;
        if let Some(waker) = waker
            && !lane.waiting.as_ref().is_some_and(|known| known.will_wake(waker))
        {
            lane.waiting = Some(waker.clone());
        }
        let room = self.room_of(stream);
        if room == 0 || self.next(Some(stream)).is_none_or(|next| next.stream != stream) {
            // It is in the line again, whatever kept it from its last turn.
            self.lane(stream).is_shut = false;
            return Turn::Later;
        }
        let is_alone = !self.lanes.iter().any(|lane| lane.stream != stream && lane.waits());
        Turn::Now(if is_alone { room } else { room.min(limits::H2_TURN_BYTES) })
    }

    /// It has room, and may use it: that it has had its turn is known when it [gives](Self::gave).
    pub(crate) fn may_give(&mut self, stream: u32) {
        let lane = self.lane(stream);
        (lane.waiting, lane.is_shut) = (None, false);
    }

    /// It has nothing to give yet and stays in the line, if there is one.
    pub(crate) fn keeps_turn(&mut self, stream: u32, waker: &Waker) -> bool {
        let is_alone = !self.lanes.iter().any(|lane| lane.stream != stream && lane.waits());
        if !is_alone {
            self.lane(stream).waiting = Some(waker.clone());
        }
        !is_alone
    }

    /// Its turn was of none. Whether its own window is shut, so that it is the next one's turn, and
    /// not the connection's, of which `window` is left.
    pub(crate) fn is_shut(&mut self, stream: u32, window: i64) -> bool {
        let ahead = i64::try_from(self.queued - self.stuck).unwrap_or(i64::MAX);
        let lane = self.lane(stream);
        lane.is_shut = window > ahead;
        lane.is_shut
    }

    pub(crate) fn gave(&mut self, stream: u32, bytes: usize) {
        self.queued += bytes as u64;
        self.turns += 1;
        let (turn, client_speaks) = (self.turns, self.client_speaks);
        let lane = self.lane(stream);
        lane.queued += bytes as u64;
        lane.turn = turn;
        if !lane.is_incremental(client_speaks) {
            let urgency = lane.urgency();
            self.turn_in_order[usize::from(urgency)] = turn;
        }
    }

    /// It waits no longer.
    pub(crate) fn stops_waiting(&mut self, stream: u32) {
        if let Some(lane) = self.find(stream) {
            (lane.waiting, lane.is_shut) = (None, false);
        }
    }

    /// Its exchange has ended. What it has left behind may still be on its way.
    pub(crate) fn leaves(&mut self, stream: u32) {
        self.stops_waiting(stream);
        let Some(lane) = self.find(stream) else { return };
        lane.is_open = false;
        if lane.queued == 0 {
            self.remove(stream);
        }
        self.forget_strangers();
    }

    /// A frame of ours.
    pub(crate) fn sent(&mut self, frame: &Frame) {
        if frame.kind == DATA {
            self.written += u64::from(frame.length);
            let queued = match self.find(frame.stream) {
                Some(lane) => {
                    let count = lane.queued.min(u64::from(frame.length));
                    lane.queued -= count;
                    count
                }
                None => 0,
            };
            self.queued -= queued;
            self.stuck = self.stuck.min(self.queued);
        }
        let ends = [DATA, HEADERS].contains(&frame.kind) && frame.has(END_STREAM);
        if ends || frame.kind == RST_STREAM {
            self.remove(frame.stream);
        }
    }

    /// The client has reset a stream: what it was to get is gone.
    pub(crate) fn reset(&mut self, stream: u32) {
        self.remove(stream);
    }

    /// The crate has written what it could. `flushed`: the socket has taken all of it. What is
    /// still here then waits for windows that the client has shut behind it, in nobody's way.
    pub(crate) fn written_out(&mut self, flushed: bool) {
        if flushed {
            self.stuck = self.queued;
        }
    }

    /// Who is to be woken, when somebody may send.
    pub(crate) fn wakes(&self) -> Option<Waker> {
        if self.room() == 0 {
            return None;
        }
        self.next(None)?.waiting.clone()
    }

    /// Bytes of bodies that were written, all together.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// How many streams wait for room.
    pub(crate) fn waiting(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.waiting.is_some()).count()
    }

    /// Nothing goes on: what was needed when much did is given back.
    pub(crate) fn rests(&mut self) {
        self.lanes.shrink_to_fit();
    }

    fn room(&self) -> usize {
        limits::H2_SEND_BYTES_MAX.saturating_sub((self.queued - self.stuck) as usize)
    }

    /// While something more urgent is under way and has nothing at the moment, only so little is
    /// given that it is not behind much when it has.
    fn room_of(&self, stream: u32) -> usize {
        let own = self.lanes.iter().find(|lane| lane.stream == stream);
        let urgency = own.filter(|own| !own.is_tunnel).map(Lane::urgency);
        let is_behind = |lane: &Lane| {
            let is_begun = lane.is_open && lane.turn > 0 && !lane.is_shut && !lane.is_tunnel;
            is_begun && Some(lane.urgency()) < urgency
        };
        let ahead = limits::H2_SEND_BYTES_MAX - limits::H2_TURN_BYTES;
        let less = if self.lanes.iter().any(is_behind) { ahead } else { 0 };
        self.room().saturating_sub(less)
    }

    /// Of those who wait and can send, and `also`.
    fn next(&self, also: Option<u32>) -> Option<&Lane> {
        let lanes = self.lanes.iter();
        let lanes = lanes.filter(|lane| lane.waits() || also == Some(lane.stream));
        let others = lanes.clone().filter(|lane| !lane.is_tunnel);
        let most_urgent = others.map(Lane::urgency).min().unwrap_or(URGENCY);
        lanes.min_by_key(|lane| {
            let urgency = if lane.is_tunnel { most_urgent } else { lane.urgency() };
            // Those that go one after another have one turn together among those that share.
            let turn = if lane.is_incremental(self.client_speaks) {
                lane.turn
            } else {
                self.turn_in_order[usize::from(urgency)]
            };
            (urgency, turn, lane.stream)
        })
    }

    fn find(&mut self, stream: u32) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.stream == stream)
    }

    fn lane(&mut self, stream: u32) -> &mut Lane {
        let known = self.lanes.iter().position(|lane| lane.stream == stream);
        let at = known.unwrap_or_else(|| {
            self.lanes.push(Lane::new(stream));
            self.lanes.len() - 1
        });
        &mut self.lanes[at]
    }

    fn remove(&mut self, stream: u32) {
        if let Some(at) = self.lanes.iter().position(|lane| lane.stream == stream) {
            let lane = self.lanes.swap_remove(at);
            self.queued -= lane.queued;
            self.stuck = self.stuck.min(self.queued);
        }
    }

    /// Streams that are announced and never begun, or are gone, are kept by number: the newest.
    fn forget_strangers(&mut self) {
        let strangers = self.lanes.iter().filter(|lane| !lane.is_open && lane.queued == 0);
        if strangers.clone().count() > limits::H2_PRIORITIES_AHEAD
            && let Some(oldest) = strangers.map(|lane| lane.stream).min()
        {
            self.remove(oldest);
        }
    }
}

impl Lane {
    fn new(stream: u32) -> Lane {
        Lane {
            stream,
            asked: Told::default(),
            answered: Told::default(),
            is_updated: false,
            is_open: false,
            is_tunnel: false,
            queued: 0,
            waiting: None,
            is_shut: false,
            turn: 0,
        }
    }

    fn urgency(&self) -> u8 {
        self.answered.urgency.or(self.asked.urgency).unwrap_or(URGENCY)
    }

    fn is_incremental(&self, client_speaks: bool) -> bool {
        self.is_tunnel
            || self.answered.incremental.or(self.asked.incremental).unwrap_or(!client_speaks)
    }

    fn waits(&self) -> bool {
        self.waiting.is_some() && !self.is_shut
    }
}

// --- structured fields (RFC 9651), as far as they are to be told from what is broken ------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Integer(i64),
    Boolean(bool),
    Other,
}

impl Value {
    fn urgency(self) -> Option<u8> {
        match self {
            Value::Integer(urgency @ 0..=7) => Some(urgency as u8),
            Value::Integer(_) | Value::Boolean(_) | Value::Other => None,
        }
    }

    fn boolean(self) -> Option<bool> {
        match self {
            Value::Boolean(value) => Some(value),
            Value::Integer(_) | Value::Other => None,
        }
    }
}

/// What is still to be read.
struct Text<'t>(&'t [u8]);

impl<'t> Text<'t> {
    /// Section 4.2.2. `None`: it is broken, and nothing in it counts.
    fn dictionary(mut self, mut member: impl FnMut(&'t [u8], Value)) -> Option<()> {
        self.skip(b" ");
        while !self.0.is_empty() {
            let key = self.key()?;
            let value = match self.takes(b'=') {
                false => Value::Boolean(true),
                true if self.takes(b'(') => self.rest_of_list()?,
                true => self.item()?,
            };
            self.parameters()?;
            member(key, value);
            self.skip(b" \t");
            if self.0.is_empty() {
                break;
            }
            self.expect(b',')?;
            self.skip(b" \t");
            // Nothing stands behind the last comma.
            self.0.first()?;
        }
        Some(())
    }

    fn key(&mut self) -> Option<&'t [u8]> {
        let begins = |byte: u8| byte.is_ascii_lowercase() || byte == b'*';
        self.0.first().copied().filter(|&first| begins(first))?;
        let goes_on = |byte: u8| begins(byte) || byte.is_ascii_digit() || b"_-.".contains(&byte);
        Some(self.while_is(goes_on))
    }

    fn parameters(&mut self) -> Option<()> {
        while self.takes(b';') {
            self.skip(b" ");
            self.key()?;
            if self.takes(b'=') {
                self.item()?;
            }
        }
        Some(())
    }

    fn rest_of_list(&mut self) -> Option<Value> {
        loop {
            self.skip(b" ");
            if self.takes(b')') {
                return Some(Value::Other);
            }
            self.item()?;
            self.parameters()?;
            self.0.first().filter(|next| b" )".contains(next))?;
        }
    }

    /// One without its parameters.
    fn item(&mut self) -> Option<Value> {
        match *self.0.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'A'..=b'Z' | b'a'..=b'z' | b'*' => {
                self.while_is(|byte| {
                    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
                });
                Some(Value::Other)
            }
            b':' => {
                self.expect(b':')?;
                self.while_is(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
                self.expect(b':').map(|()| Value::Other)
            }
            b'?' => {
                self.expect(b'?')?;
                let value = self.takes(b'1');
                (value || self.takes(b'0')).then_some(Value::Boolean(value))
            }
            b'@' => {
                self.expect(b'@')?;
                self.number().filter(|date| *date != Value::Other)?;
                Some(Value::Other)
            }
            b'%' => {
                self.expect(b'%')?;
                self.string()
            }
            _ => None,
        }
    }

    /// Section 4.2.4.
    fn number(&mut self) -> Option<Value> {
        let is_negative = self.takes(b'-');
        let digits = self.while_is(|byte| byte.is_ascii_digit());
        if self.takes(b'.') {
            let fraction = self.while_is(|byte| byte.is_ascii_digit());
            let fits = (1..=12).contains(&digits.len()) && (1..=3).contains(&fraction.len());
            return fits.then_some(Value::Other);
        }
        (1..=15).contains(&digits.len()).then(|| {
            let number = digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
            Value::Integer(if is_negative { -number } else { number })
        })
    }

    fn string(&mut self) -> Option<Value> {
        self.expect(b'"')?;
        loop {
            let (&first, rest) = self.0.split_first()?;
            self.0 = rest;
            match first {
                b'"' => return Some(Value::Other),
                b'\\' if self.takes(b'"') || self.takes(b'\\') => {}
                b'\\' => return None,
                b' '..=b'~' => {}
                _ => return None,
            }
        }
    }

    fn while_is(&mut self, is: impl Fn(u8) -> bool) -> &'t [u8] {
        let end = self.0.iter().position(|&byte| !is(byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn skip(&mut self, blanks: &[u8]) {
        self.while_is(|byte| blanks.contains(&byte));
    }

    fn takes(&mut self, byte: u8) -> bool {
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.takes(byte).then_some(())
    }
}

/// For the fuzzer. What is read is in range, and what is broken is nothing.
pub fn fuzz(bytes: &[u8]) {
    let told = Told::read(bytes);
    assert!(told.urgency.is_none_or(|urgency| usize::from(urgency) < URGENCIES));
    assert!(Told::read(&[bytes, b",\x00"].concat()).is_nothing());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{H2_PRIORITIES_AHEAD, H2_SEND_BYTES_MAX, H2_TURN_BYTES};

    const ALL: Turn = Turn::Now(H2_SEND_BYTES_MAX);
    const SOME: Turn = Turn::Now(H2_TURN_BYTES);

    fn told(urgency: impl Into<Option<u8>>, incremental: impl Into<Option<bool>>) -> Told {
        Told { urgency: urgency.into(), incremental: incremental.into() }
    }

    fn written(stream: u32, flags: u8, length: u32) -> Frame {
        Frame { kind: DATA, flags, stream, length, shown: [0; 4] }
    }

    impl Order {
        fn of(streams: &[(u32, &str)]) -> Order {
            let mut order = Order::default();
            streams.iter().for_each(|(id, value)| order.asked(*id, Told::read(value.as_bytes())));
            order
        }

        fn waits(&mut self, stream: u32) -> Turn {
            self.asks(stream, Some(Waker::noop()))
        }

        fn wait(&mut self, streams: &[u32]) {
            streams.iter().for_each(|stream| assert_ne!(self.waits(*stream), Turn::Now(0)));
        }

        /// Whoever's turn it is takes it and waits again, so many times.
        fn turns(&mut self, count: usize) -> Vec<u32> {
            let turn = |_| {
                let next = self.next(None).expect("somebody waits").stream;
                assert!(matches!(self.waits(next), Turn::Now(_)), "{next}");
                self.may_give(next);
                self.gave(next, 0);
                assert!(matches!(self.waits(next), Turn::Now(_) | Turn::Later), "{next}");
                next
            };
            (0..count).map(turn).collect()
        }
    }

    #[test]
    fn what_is_said_is_read() {
        for (value, expected) in [
            ("", told(None, None)),
            ("u=0", told(0, None)),
            ("u=7, i", told(7, true)),
            (" i , u=5 ", told(5, true)),
            ("i=?0,u=1", told(1, false)),
            ("i=?1", told(None, true)),
            ("u=1,u=2", told(2, None)),
            ("u=2;a=1;b, i;q=\"x\\\"y\"", told(2, true)),
            ("x=(1 a;b \"c\"), *y=:aGk=:, z=@17, u=1, v=%\"a\", w=1.5, t=a/b", told(1, None)),
            // Of another type, or out of range.
            ("u=8, i", told(None, true)),
            ("u=-1", told(None, None)),
            ("u=3.0, i=1", told(None, None)),
            ("u, i=?1", told(None, true)),
            ("u=0, u=high", told(None, None)),
        ] {
            assert_eq!(Told::read(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn a_broken_value_is_none_at_all() {
        for broken in [
            "u=0,",
            "u=0 i",
            "u=",
            "U=0",
            "u=0, ,i",
            "u=0, i=?2",
            "u=0, i=?",
            "u=0, x=\"",
            "=1",
            "u=0, x=(1",
            "u=0, x=:a",
            "u=0, x=1.",
            "u=0, x=1234567890123456",
            "u=0;",
            "u=0, \u{e4}",
            "u=0, x=@1.5",
            "u=0\u{0}",
            "u=0, x=(1\t2)",
            "u=0, x=\"\\a\"",
            "u==0",
            "u =0",
        ] {
            assert_eq!(Told::read(broken.as_bytes()), Told::default(), "{broken}");
        }
    }

    #[test]
    fn several_lines_are_one_value() {
        let mut fields = HeaderMap::new();
        assert!(Told::of(&fields).is_nothing());
        fields.append("priority", "u=1".parse().unwrap());
        fields.append("priority", "i".parse().unwrap());
        assert_eq!(Told::of(&fields), told(1, true));
    }

    #[test]
    fn the_most_urgent_goes_first_and_alone_takes_everything() {
        let mut order = Order::of(&[(1, "u=7"), (3, "u=0"), (5, "")]);
        assert_eq!(order.waits(1), ALL);
        assert_eq!(order.waits(3), SOME);
        assert_eq!(order.waits(5), Turn::Later);
        assert_eq!(order.waits(1), Turn::Later);
        assert_eq!(order.turns(3), [3, 3, 3]);
        order.stops_waiting(3);
        assert_eq!(order.turns(2), [5, 5]);
        order.leaves(5);
        assert_eq!(order.turns(2), [1, 1]);
    }

    #[test]
    fn of_one_urgency_they_go_one_after_another_or_share() {
        let mut order = Order::of(&[(5, "u=2"), (3, "u=2"), (1, "u=2, i"), (7, "u=2, i")]);
        order.wait(&[5, 3, 1, 7]);
        let turns = order.turns(6);
        let of = |stream| turns.iter().filter(|turn| **turn == stream).count();
        // What shares does not wait for all of those that do not.
        assert_eq!((of(1), of(3), of(5), of(7)), (2, 2, 0, 2), "{turns:?}");
        order.leaves(3);
        assert!(order.turns(3).contains(&5));
    }

    #[test]
    fn a_tunnel_shares_with_whatever_is_next_and_holds_nobody_up() {
        let mut order = Order::of(&[(1, ""), (3, "u=0"), (5, "u=6")]);
        order.is_tunnel(1);
        order.wait(&[1, 3, 5]);
        assert_eq!(order.turns(4), [1, 3, 1, 3]);
        order.leaves(3);
        assert_eq!(order.turns(4), [5, 1, 5, 1]);
        // It has nothing to say, but will: what is less urgent has all the room until then.
        order.stops_waiting(1);
        assert_eq!(order.waits(5), ALL);
    }

    #[test]
    fn what_is_under_way_counts_though_its_exchange_is_over() {
        let mut order = Order::of(&[(1, "u=1")]);
        let all = (3..).step_by(2).take(H2_PRIORITIES_AHEAD + 10);
        for stream in all.clone() {
            order.asked(stream, Told::default());
            order.gave(stream, 100);
            order.leaves(stream);
        }
        assert_eq!(order.queued, all.count() as u64 * 100);
        assert_eq!(order.lanes.iter().map(|lane| lane.queued).sum::<u64>(), order.queued);
    }

    #[test]
    fn who_has_nothing_to_give_keeps_its_turn() {
        let mut order = Order::of(&[(1, "i"), (3, "i")]);
        order.wait(&[1, 3]);
        order.may_give(1);
        // It looks for something first, and others are told.
        assert_eq!(order.next(None).map(|lane| lane.stream), Some(3));
        assert_eq!(order.asks(1, None), SOME);
        order.gave(1, 10);
        assert_eq!(order.asks(1, None), Turn::Later);
    }

    #[test]
    fn who_says_nothing_shares_until_the_client_says_something() {
        let mut order = Order::default();
        order.asked(1, Told::default());
        order.asked(3, Told::default());
        // An endpoint may have.
        order.answered(5, told(7, None));
        order.wait(&[1, 3]);
        assert_eq!(order.turns(4), [1, 3, 1, 3]);
        order.updated(9, Told::default());
        assert_eq!(order.turns(4), [1, 1, 1, 1]);
    }

    #[test]
    fn the_endpoint_overrides_what_it_names() {
        let mut order = Order::of(&[(1, "u=1, i"), (3, "u=2")]);
        order.answered(1, told(4, None));
        order.wait(&[1, 3]);
        assert_eq!(order.turns(1), [3]);
        assert!(order.lane(1).is_incremental(true));
    }

    #[test]
    fn a_frame_overrides_the_head_before_it_and_behind_it() {
        let mut order = Order::default();
        order.updated(3, told(0, None));
        order.asked(1, told(1, None));
        order.asked(3, told(5, None));
        order.wait(&[1, 3]);
        assert_eq!(order.turns(1), [3]);
        order.updated(1, told(0, None));
        order.updated(3, told(6, None));
        assert_eq!(order.turns(1), [1]);
    }

    #[test]
    fn a_stream_without_a_window_is_in_nobodys_way_and_a_connection_without_one_is_nobodys_turn() {
        let mut order = Order::of(&[(1, "u=7"), (3, "u=0")]);
        order.wait(&[1, 3]);
        assert!(!order.is_shut(3, 0));
        assert_eq!(order.waits(1), Turn::Later);
        assert!(order.is_shut(3, 1));
        assert_eq!(order.waits(1), ALL);
        // It has one again.
        assert_eq!(order.waits(3), SOME);
    }

    #[test]
    fn no_more_is_given_ahead_than_the_connection_takes() {
        let mut order = Order::of(&[(1, "u=7"), (3, "u=0")]);
        order.may_give(1);
        order.gave(1, H2_SEND_BYTES_MAX - 10);
        assert_eq!(order.waits(3), Turn::Now(10));
        order.gave(3, 10);
        assert_eq!(order.waits(3), Turn::Later);
        assert!(order.wakes().is_none());
        order.sent(&written(1, 0, 1000));
        assert!(order.wakes().is_some());
        assert_eq!(order.waits(3), Turn::Now(1000));
        order.reset(1);
        assert_eq!(order.waits(3), Turn::Now(H2_SEND_BYTES_MAX - 10));
        assert_eq!(order.written(), 1000);
    }

    #[test]
    fn little_goes_ahead_of_what_is_urgent_and_comes_slowly() {
        let mut order = Order::of(&[(1, "u=7"), (3, "u=0")]);
        assert_eq!(order.waits(1), ALL);
        order.gave(3, 10);
        assert_eq!(order.waits(1), Turn::Now(H2_TURN_BYTES - 10));
        order.gave(1, H2_TURN_BYTES - 10);
        assert_eq!(order.waits(1), Turn::Later);
        assert_eq!(order.waits(3), SOME);
        order.stops_waiting(3);
        // What is shut or over counts no more.
        assert!(order.is_shut(3, 1 << 20));
        assert_eq!(order.waits(1), Turn::Now(H2_SEND_BYTES_MAX - H2_TURN_BYTES));
        assert!(!order.is_shut(3, 0));
        assert_eq!(order.waits(1), Turn::Later);
        order.sent(&written(3, END_STREAM, 10));
        assert_eq!(order.waits(1), Turn::Now(H2_SEND_BYTES_MAX - H2_TURN_BYTES + 10));
    }

    #[test]
    fn what_cannot_leave_though_all_else_did_takes_no_place() {
        let mut order = Order::of(&[(1, "u=7"), (3, "u=0")]);
        order.gave(1, H2_SEND_BYTES_MAX);
        order.written_out(false);
        assert_eq!(order.waits(3), Turn::Later);
        order.written_out(true);
        assert_eq!(order.waits(3), ALL);
        order.sent(&written(1, 0, 10_000));
        assert_eq!((order.queued, order.stuck), (55_536, 55_536));
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut order = Order::of(&[(1, ""), (3, ""), (5, "i"), (7, "")]);
        order.gave(1, 10);
        order.gave(7, 10);
        order.leaves(1);
        order.leaves(3);
        order.sent(&written(1, END_STREAM, 10));
        order.sent(&Frame { kind: RST_STREAM, ..written(5, 0, 4) });
        order.sent(&Frame { kind: HEADERS, ..written(7, END_STREAM, 4) });
        assert!(order.lanes.is_empty(), "{order:?}");
        assert_eq!(order.queued, 0);
        for stream in (1..1000).step_by(2) {
            order.updated(stream, told(1, None));
        }
        assert_eq!(order.lanes.len(), H2_PRIORITIES_AHEAD);
        assert!(order.find(999).is_some(), "the newest are kept");
    }
}
