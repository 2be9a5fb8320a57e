//! What a client does to us on one HTTP/2 connection, seen in the headers of its frames and ours:
//! rapid resets, floods of frames that cost us more than the client, and games with windows. A
//! [`Watch`] sees all bytes in both directions before the `h2` crate, which hides them. It counts
//! by leaky buckets that good conduct empties too, so that what clients do in bursts is let through
//! (`limits/http2_abuse.rs`). It also knows the few errors of framing that the crate overlooks, or
//! tells by a wrong code, and what of the order of streams ([`Order`]) only frames tell. Sans-io,
//! and without an allocation once it is made, where nobody speaks of that order.

use std::time::{Duration, Instant};

use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PING,
    PRIORITY, PRIORITY_UPDATE, PUSH_PROMISE, Piece, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use super::priority::{Order, Told};
use crate::engine;
use crate::limits::{
    H2_PRIORITY_BYTES_MAX, HTTP2_CONTINUATIONS_MAX, HTTP2_DRIBBLE_BYTES, HTTP2_DRIBBLES,
    HTTP2_EMPTY, HTTP2_FIELD_BLOCK_BYTES_MAX, HTTP2_PINGS, HTTP2_PRIORITIES,
    HTTP2_PRIORITIES_PER_STREAM, HTTP2_PROVOKED, HTTP2_PROVOKED_BROKEN, HTTP2_PROVOKED_REFUSED,
    HTTP2_RESETS, HTTP2_SETTINGS, HTTP2_STRAYS, HTTP2_STRAYS_PER_STREAM, HTTP2_UPDATES,
    HTTP2_UPDATES_PER_DATA, HTTP2_WATCHED_STREAMS,
};

/// One table: variant, code of the GOAWAY, label, message.
macro_rules! abuses {
    ($($variant:ident $code:ident $label:literal $message:literal)*) => {
        /// Why a connection ends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Abuse { $($variant,)* }

        impl Abuse {
            pub const ALL: &[Abuse] = &[$(Abuse::$variant,)*];

            /// For metrics.
            pub fn label(self) -> &'static str {
                match self { $(Abuse::$variant => $label,)* }
            }

            /// For the log.
            pub fn message(self) -> &'static str {
                match self { $(Abuse::$variant => $message,)* }
            }

            /// The error of its GOAWAY (RFC 9113 section 7).
            pub fn code(self) -> u32 {
                match self { $(Abuse::$variant => $code,)* }
            }
        }
    };
}

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

abuses! {
    RapidReset ENHANCE_YOUR_CALM "rapid_reset"
        "it reset too many streams before they were answered"
    ProvokedResets ENHANCE_YOUR_CALM "provoked_resets"
        "it made us reset too many streams"
    SettingsFlood ENHANCE_YOUR_CALM "settings_flood"
        "it sent too many SETTINGS frames"
    PingFlood ENHANCE_YOUR_CALM "ping_flood"
        "it sent too many PING frames"
    PriorityFlood ENHANCE_YOUR_CALM "priority_flood"
        "it sent too many PRIORITY frames"
    WindowUpdateFlood ENHANCE_YOUR_CALM "window_update_flood"
        "it sent too many WINDOW_UPDATE frames for what it was sent"
    TinyWindows ENHANCE_YOUR_CALM "tiny_windows"
        "it opened its windows by a few bytes at a time"
    EmptyFrames ENHANCE_YOUR_CALM "empty_frames"
        "it sent too many frames with nothing in them"
    StrayFrames ENHANCE_YOUR_CALM "stray_frames"
        "it sent too many frames that do nothing"
    Continuations ENHANCE_YOUR_CALM "continuation_flood"
        "it cut the fields of a request into too many CONTINUATION frames"
    FieldBlock ENHANCE_YOUR_CALM "field_block_too_long"
        "the compressed fields of a request are longer than any request may be"
    Costly ENHANCE_YOUR_CALM "costly"
        "what it sent unfolds to too much (told by the h2 crate)"
    FrameSize FRAME_SIZE_ERROR "frame_size"
        "a frame has not the length of its type (RFC 9113 6)"
    AfterEnd STREAM_CLOSED "after_end"
        "it went on with a stream that it had ended (RFC 9113 5.1)"
    WindowSize FLOW_CONTROL_ERROR "window_size"
        "it set an initial window of more than 31 bits (RFC 9113 6.5.2)"
    NoSettings PROTOCOL_ERROR "no_settings"
        "its first frame was not SETTINGS (RFC 9113 3.4)"
    PriorityUpdate PROTOCOL_ERROR "priority_update"
        "a PRIORITY_UPDATE frame is for no stream of a client (RFC 9218 7.1)"
    OldPriorities PROTOCOL_ERROR "no_rfc7540_priorities"
        "it set NO_RFC7540_PRIORITIES to neither 0 nor 1 (RFC 9218 2.1)"
}

/// What the client sends before its frames (RFC 9113 section 3.4). The crate compares it.
const PREFACE_BYTES: u32 = 24;
/// Initial windows (RFC 9113 section 6.9.2), the largest, and the setting that changes those of
/// streams.
const WINDOW: i64 = 65_535;
const WINDOW_MAX: u32 = 0x7fff_ffff;
const INITIAL_WINDOW_SIZE: u16 = 4;
pub(super) const NO_RFC7540_PRIORITIES: u16 = 9;

/// One connection of a client.
#[derive(Debug)]
pub struct Watch {
    theirs: Frames,
    ours: Frames,
    has_settings: bool,
    buckets: Buckets,
    /// CONTINUATION frames of the block of fields that is coming, and its bytes.
    continuations: u32,
    block: u32,
    /// What the client lets us send on the connection, and on a new stream.
    window: i64,
    initial_window: i64,
    newest: u32,
    streams: Box<[Stream; HTTP2_WATCHED_STREAMS]>,
    /// From the first word about it on.
    order: Option<Box<Order>>,
    /// A PRIORITY_UPDATE frame that is coming.
    update: Option<Box<Update>>,
}

#[derive(Debug)]
struct Update {
    stream: u32,
    value: Vec<u8>,
    /// Bytes of the value that are to come.
    missing: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    id: u32,
    /// We have sent its end, or one of us has reset it.
    is_over: bool,
    /// The client has sent its end.
    has_ended: bool,
    /// A window has 31 bits; a hostile client's may have left that range.
    window: i32,
}

impl Watch {
    pub fn new(now: Instant) -> Self {
        Self {
            theirs: Frames::after(PREFACE_BYTES),
            ours: Frames::after(0),
            has_settings: false,
            buckets: Buckets { levels: [0; BUCKETS], drained: now },
            continuations: 0,
            block: 0,
            window: WINDOW,
            initial_window: WINDOW,
            newest: 0,
            streams: Box::new([Stream::default(); HTTP2_WATCHED_STREAMS]),
            order: None,
            update: None,
        }
    }

    /// The order of its streams, and what the client takes on the connection.
    pub(crate) fn order(&mut self) -> Option<(&mut Order, i64)> {
        let window = self.window;
        self.order.as_deref_mut().map(|order| (order, window))
    }

    /// Something is said of it.
    pub(crate) fn begin_order(&mut self) -> &mut Order {
        self.order.get_or_insert_default()
    }

    /// All bytes that come from the client, from its preface on, once each and in order.
    /// After an error the connection is to be ended; more bytes are not to be shown.
    pub fn received(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Abuse> {
        self.buckets.drain(now);
        loop {
            if self.update.is_some() {
                self.update_goes_on(bytes);
            }
            match self.theirs.next(&mut bytes) {
                Some(Piece::Frame(frame)) => self.their_frame(&frame)?,
                Some(Piece::Setting { id: INITIAL_WINDOW_SIZE, value }) => {
                    self.initial_window(value)?;
                }
                Some(Piece::Setting { id: NO_RFC7540_PRIORITIES, value: 2.. }) => {
                    return Err(Abuse::OldPriorities);
                }
                Some(Piece::Setting { .. }) => {}
                None => return Ok(()),
            }
        }
    }

    /// All bytes that go to the client.
    pub fn sent(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Abuse> {
        self.buckets.drain(now);
        while let Some(piece) = self.ours.next(&mut bytes) {
            match piece {
                Piece::Frame(frame) => self.our_frame(&frame)?,
                Piece::Setting { .. } => {}
            }
        }
        Ok(())
    }

    fn their_frame(&mut self, frame: &Frame) -> Result<(), Abuse> {
        if !self.has_settings {
            if frame.kind != SETTINGS || frame.has(ACK) {
                return Err(Abuse::NoSettings);
            }
            self.has_settings = true;
        }
        if !frame.has_the_length_of_its_kind() {
            return Err(Abuse::FrameSize);
        }
        match frame.kind {
            DATA => self.their_data(frame),
            HEADERS => self.their_headers(frame),
            CONTINUATION => {
                self.continuations += 1;
                if self.continuations > HTTP2_CONTINUATIONS_MAX {
                    return Err(Abuse::Continuations);
                }
                self.field_block(frame)
            }
            RST_STREAM => {
                if let Some(order) = &mut self.order {
                    order.reset(frame.stream);
                }
                self.their_reset(frame.stream)
            }
            SETTINGS => self.buckets.add(Bucket::Settings, 1),
            PING => self.buckets.add(Bucket::Pings, 1),
            PRIORITY => self.buckets.add(Bucket::Priorities, 1),
            PRIORITY_UPDATE => self.their_update(frame),
            WINDOW_UPDATE => self.their_window_update(frame),
            // The crate ends the connection.
            PUSH_PROMISE => Ok(()),
            GOAWAY => self.buckets.add(Bucket::Strays, 4),
            _ => self.buckets.add(Bucket::Strays, 1),
        }
    }

    fn their_data(&mut self, frame: &Frame) -> Result<(), Abuse> {
        self.goes_on(frame)?;
        if frame.payload() > 0 {
            self.buckets.take(Bucket::Empty, 1);
            return Ok(());
        }
        self.buckets.add(Bucket::Empty, u32::from(!frame.has(END_STREAM)))
    }

    fn their_headers(&mut self, frame: &Frame) -> Result<(), Abuse> {
        (self.continuations, self.block) = (0, 0);
        if frame.stream > self.newest {
            self.newest = frame.stream;
            let window = i32::try_from(self.initial_window).unwrap_or(i32::MAX);
            *slot(&mut self.streams, frame.stream) =
                Stream { id: frame.stream, is_over: false, has_ended: false, window };
            self.buckets.take(Bucket::Priorities, HTTP2_PRIORITIES_PER_STREAM);
            self.buckets.take(Bucket::Strays, HTTP2_STRAYS_PER_STREAM);
        }
        self.goes_on(frame)?;
        self.field_block(frame)
    }

    /// The crate calls it a protocol error, or does not notice.
    fn goes_on(&mut self, frame: &Frame) -> Result<(), Abuse> {
        match self.stream(frame.stream) {
            Some(stream) if stream.has_ended => Err(Abuse::AfterEnd),
            Some(stream) => {
                stream.has_ended = frame.has(END_STREAM);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn field_block(&mut self, frame: &Frame) -> Result<(), Abuse> {
        self.block = self.block.saturating_add(frame.length);
        if self.block > HTTP2_FIELD_BLOCK_BYTES_MAX {
            return Err(Abuse::FieldBlock);
        }
        let ends = frame.has(END_HEADERS);
        self.buckets.add(Bucket::Empty, u32::from(frame.payload() == 0 && !ends))
    }

    fn their_reset(&mut self, id: u32) -> Result<(), Abuse> {
        match self.stream(id) {
            Some(stream) if stream.is_over => self.buckets.add(Bucket::Strays, 1),
            Some(stream) => {
                stream.is_over = true;
                self.buckets.add(Bucket::Resets, 1)
            }
            // It was opened before those that are remembered.
            None => self.buckets.add(Bucket::Resets, 1),
        }
    }

    /// RFC 9218 section 7.1. Of us there are no streams.
    fn their_update(&mut self, frame: &Frame) -> Result<(), Abuse> {
        let stream = frame.word() & WINDOW_MAX;
        if frame.stream != 0 || stream.is_multiple_of(2) {
            return Err(Abuse::PriorityUpdate);
        }
        let missing = self.theirs.left() as usize;
        if missing == 0 {
            self.begin_order().updated(stream, Told::default());
        } else if missing <= H2_PRIORITY_BYTES_MAX {
            self.update = Some(Box::new(Update { stream, value: Vec::new(), missing }));
        }
        self.buckets.add(Bucket::Priorities, 1)
    }

    /// What is about to be stepped over is its value.
    #[cold]
    fn update_goes_on(&mut self, bytes: &[u8]) {
        let Some(update) = &mut self.update else { return };
        let count = bytes.len().min(update.missing);
        update.value.extend_from_slice(&bytes[..count]);
        update.missing -= count;
        if update.missing == 0 {
            let (stream, told) = (update.stream, Told::read(&update.value));
            self.update = None;
            self.begin_order().updated(stream, told);
        }
    }

    fn their_window_update(&mut self, frame: &Frame) -> Result<(), Abuse> {
        let increment = frame.word() & WINDOW_MAX;
        if frame.stream == 0 {
            self.window = self.window.saturating_add(i64::from(increment));
        } else if let Some(stream) = self.stream(frame.stream) {
            stream.window = stream.window.saturating_add_unsigned(increment);
        }
        self.buckets.add(Bucket::Updates, 1)
    }

    /// It changes the windows of all streams (RFC 9113 section 6.9.2).
    fn initial_window(&mut self, value: u32) -> Result<(), Abuse> {
        if value > WINDOW_MAX {
            return Err(Abuse::WindowSize);
        }
        let change = i64::from(value) - self.initial_window;
        self.initial_window = i64::from(value);
        for stream in self.streams.iter_mut() {
            let window =
                (i64::from(stream.window) + change).clamp(i64::from(i32::MIN), i64::from(i32::MAX));
            stream.window = i32::try_from(window).unwrap_or_default();
        }
        Ok(())
    }

    fn our_frame(&mut self, frame: &Frame) -> Result<(), Abuse> {
        if let Some(order) = &mut self.order {
            order.sent(frame);
        }
        match frame.kind {
            DATA => self.our_data(frame)?,
            HEADERS => self.buckets.take(Bucket::Pings, 1),
            RST_STREAM => return self.our_reset(frame),
            _ => return Ok(()),
        }
        if frame.has(END_STREAM) {
            if let Some(stream) = self.stream(frame.stream) {
                stream.is_over = true;
            }
            self.buckets.take(Bucket::Resets, 1);
        }
        Ok(())
    }

    fn our_data(&mut self, frame: &Frame) -> Result<(), Abuse> {
        self.buckets.take(Bucket::Pings, 1);
        self.buckets.take(Bucket::Updates, HTTP2_UPDATES_PER_DATA + frame.length / 1024);
        self.window -= i64::from(frame.length);
        let mut is_cut = self.window <= 0;
        if let Some(stream) = self.stream(frame.stream) {
            stream.window = stream.window.saturating_sub_unsigned(frame.length);
            is_cut |= stream.window <= 0;
        }
        let is_dribble =
            is_cut && (1..HTTP2_DRIBBLE_BYTES).contains(&frame.length) && !frame.has(END_STREAM);
        self.buckets.add(Bucket::Dribbles, u32::from(is_dribble))
    }

    /// Who is to blame is told by the code: a reset that an endpoint has caused is not the
    /// client's.
    fn our_reset(&mut self, frame: &Frame) -> Result<(), Abuse> {
        if let Some(stream) = self.stream(frame.stream) {
            stream.is_over = true;
        }
        let points = match frame.word() {
            PROTOCOL_ERROR | FLOW_CONTROL_ERROR | STREAM_CLOSED | FRAME_SIZE_ERROR => {
                HTTP2_PROVOKED_BROKEN
            }
            REFUSED_STREAM => HTTP2_PROVOKED_REFUSED,
            _ => 0,
        };
        self.buckets.add(Bucket::Provoked, points)
    }

    fn stream(&mut self, id: u32) -> Option<&mut Stream> {
        let stream = slot(&mut self.streams, id);
        (stream.id == id && id != 0).then_some(stream)
    }
}

/// A client's streams have odd ids.
fn slot(streams: &mut [Stream; HTTP2_WATCHED_STREAMS], id: u32) -> &mut Stream {
    &mut streams[(id >> 1) as usize % HTTP2_WATCHED_STREAMS]
}

#[derive(Clone, Copy)]
enum Bucket {
    Resets,
    Provoked,
    Settings,
    Pings,
    Priorities,
    Updates,
    Dribbles,
    Empty,
    Strays,
}

const BUCKETS: usize = 9;

impl Bucket {
    /// What it holds, what leaks out of it in a second, and what it means when it runs over.
    fn law(self) -> ((u32, u32), Abuse) {
        match self {
            Bucket::Resets => (HTTP2_RESETS, Abuse::RapidReset),
            Bucket::Provoked => (HTTP2_PROVOKED, Abuse::ProvokedResets),
            Bucket::Settings => (HTTP2_SETTINGS, Abuse::SettingsFlood),
            Bucket::Pings => (HTTP2_PINGS, Abuse::PingFlood),
            Bucket::Priorities => (HTTP2_PRIORITIES, Abuse::PriorityFlood),
            Bucket::Updates => (HTTP2_UPDATES, Abuse::WindowUpdateFlood),
            Bucket::Dribbles => (HTTP2_DRIBBLES, Abuse::TinyWindows),
            Bucket::Empty => (HTTP2_EMPTY, Abuse::EmptyFrames),
            Bucket::Strays => (HTTP2_STRAYS, Abuse::StrayFrames),
        }
    }

    const ALL: [Bucket; BUCKETS] = [
        Bucket::Resets,
        Bucket::Provoked,
        Bucket::Settings,
        Bucket::Pings,
        Bucket::Priorities,
        Bucket::Updates,
        Bucket::Dribbles,
        Bucket::Empty,
        Bucket::Strays,
    ];
}

#[derive(Debug)]
struct Buckets {
    levels: [u32; BUCKETS],
    /// Whole seconds until then have leaked out.
    drained: Instant,
}

impl Buckets {
    fn drain(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.drained).as_secs();
        if seconds == 0 {
            return;
        }
        self.drained += Duration::from_secs(seconds);
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        for bucket in Bucket::ALL {
            let ((_, rate), _) = bucket.law();
            self.take(bucket, rate.saturating_mul(seconds));
        }
    }

    fn add(&mut self, bucket: Bucket, points: u32) -> Result<(), Abuse> {
        let ((most, _), abuse) = bucket.law();
        let level = &mut self.levels[bucket as usize];
        *level += points;
        if *level > most { Err(abuse) } else { Ok(()) }
    }

    fn take(&mut self, bucket: Bucket, points: u32) {
        let level = &mut self.levels[bucket as usize];
        *level = level.saturating_sub(points);
    }
}

/// For the fuzzer. A verdict does not depend on how the bytes are cut, and nothing comes of what we
/// send but resets and dribbles.
pub fn fuzz(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(4096)];
    let now = engine::precise_now();
    let verdict = |size: usize| {
        let mut watch = Watch::new(now);
        let preface = [0; PREFACE_BYTES as usize];
        assert_eq!(watch.received(&preface, now), Ok(()));
        let told = bytes.chunks(size).try_for_each(|piece| watch.received(piece, now));
        (told, watch.buckets.levels, watch.window, watch.initial_window, watch.newest)
    };
    let whole = verdict(bytes.len().max(1));
    for size in [1, 2, 5, 9, 13, 64] {
        assert_eq!(verdict(size), whole, "in pieces of {size}");
    }
    let mut watch = Watch::new(now);
    match watch.sent(bytes, now) {
        Ok(()) | Err(Abuse::ProvokedResets | Abuse::TinyWindows) => {}
        Err(other) => panic!("{other:?} of what we have sent"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::{PADDED, PRIORITY_FLAG};
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        let header = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        [&header, payload].concat()
    }

    fn headers(stream: u32) -> Vec<u8> {
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x82, 0x84, 0x86, 0x41, 1, b'a'])
    }

    fn reset(stream: u32, code: u32) -> Vec<u8> {
        frame(RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    fn update(stream: u32, increment: u32) -> Vec<u8> {
        frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
    }

    fn data(stream: u32, flags: u8, length: usize) -> Vec<u8> {
        frame(DATA, flags, stream, &vec![7; length])
    }

    /// A connection whose preface and settings have come.
    struct Client {
        watch: Watch,
        now: Instant,
    }

    impl Client {
        fn new() -> Self {
            let now = Instant::now();
            let mut client = Self { watch: Watch::new(now), now };
            client.sends(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("the preface");
            client.sends(&frame(SETTINGS, 0, 0, &[])).expect("settings");
            client
        }

        fn sends(&mut self, bytes: &[u8]) -> Result<(), Abuse> {
            self.watch.received(bytes, self.now)
        }

        fn gets(&mut self, bytes: &[u8]) -> Result<(), Abuse> {
            self.watch.sent(bytes, self.now)
        }

        fn waits(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }

        /// How many of them it may send at once, and what the next one is.
        fn may_send(&mut self, mut one: impl FnMut(u32) -> Vec<u8>) -> (u32, Abuse) {
            for count in 0..100_000 {
                if let Err(abuse) = self.sends(&one(count)) {
                    return (count, abuse);
                }
            }
            panic!("nothing comes of 100,000 of them")
        }
    }

    fn nth(count: u32) -> u32 {
        2 * count + 1
    }

    #[test]
    fn the_first_frame_is_settings() {
        for first in [headers(1), frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, ACK, 0, &[])] {
            let mut watch = Watch::new(Instant::now());
            let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &first].concat();
            assert_eq!(watch.received(&bytes, Instant::now()), Err(Abuse::NoSettings));
        }
    }

    #[test]
    fn frames_of_a_wrong_length_are_told() {
        let wrong: [(u8, u8, usize); 16] = [
            (SETTINGS, 0, 5),
            (SETTINGS, 0, 7),
            (SETTINGS, ACK, 6),
            (PING, 0, 7),
            (PING, ACK, 9),
            (RST_STREAM, 0, 3),
            (RST_STREAM, 0, 5),
            (WINDOW_UPDATE, 0, 3),
            (WINDOW_UPDATE, 0, 8),
            (PRIORITY, 0, 4),
            (PRIORITY, 0, 6),
            (GOAWAY, 0, 7),
            (DATA, PADDED, 0),
            (HEADERS, PADDED | END_HEADERS, 0),
            (HEADERS, PRIORITY_FLAG | END_HEADERS, 4),
            (HEADERS, PADDED | PRIORITY_FLAG | END_HEADERS, 5),
        ];
        for (kind, flags, length) in wrong {
            let mut client = Client::new();
            let bytes = frame(kind, flags, 0, &vec![0; length]);
            assert_eq!(client.sends(&bytes), Err(Abuse::FrameSize), "{kind} {flags} {length}");
        }
    }

    #[test]
    fn a_stream_that_has_ended_does_not_go_on() {
        for more in [headers(1), data(1, 0, 3), data(1, END_STREAM, 0)] {
            let mut client = Client::new();
            client.sends(&headers(1)).expect("a request");
            assert_eq!(client.sends(&more), Err(Abuse::AfterEnd));
            let mut client = Client::new();
            client.sends(&frame(HEADERS, END_HEADERS, 1, &[0x82])).expect("a request");
            client.sends(&data(1, 0, 3)).expect("a body");
            client.sends(&data(1, END_STREAM, 3)).expect("its end");
            client.sends(&reset(1, 8)).expect("it may be reset");
            assert_eq!(client.sends(&more), Err(Abuse::AfterEnd));
        }
    }

    #[test]
    fn an_initial_window_has_31_bits() {
        let window =
            |size: u32| frame(SETTINGS, 0, 0, &[&[0, 4][..], &size.to_be_bytes()].concat());
        assert_eq!(Client::new().sends(&window(WINDOW_MAX)), Ok(()));
        assert_eq!(Client::new().sends(&window(WINDOW_MAX + 1)), Err(Abuse::WindowSize));
    }

    #[test]
    fn streams_that_are_reset_too_fast_are_an_abuse() {
        let mut client = Client::new();
        let both = |count| [headers(nth(count)), reset(nth(count), 8)].concat();
        assert_eq!(client.may_send(both), (HTTP2_RESETS.0, Abuse::RapidReset));
    }

    #[test]
    fn a_page_of_a_hundred_streams_may_be_left_twice_a_few_seconds_apart_for_ever() {
        let mut client = Client::new();
        for page in 0..50 {
            for count in 0..200 {
                client.sends(&headers(nth(page * 200 + count))).expect("a request");
            }
            for count in 0..200 {
                client.sends(&reset(nth(page * 200 + count), 8)).expect("a cancellation");
            }
            client.waits(200 / u64::from(HTTP2_RESETS.1) + 1);
        }
    }

    #[test]
    fn a_client_that_lets_as_many_streams_end_as_it_resets_is_no_abuser() {
        let mut client = Client::new();
        for count in 0..10_000 {
            client.sends(&headers(nth(count))).expect("a request");
            let end = if count % 2 == 0 {
                client.sends(&reset(nth(count), 8))
            } else {
                client.gets(&data(nth(count), END_STREAM, 5))
            };
            end.expect("an end");
        }
    }

    #[test]
    fn a_reset_of_a_stream_that_was_answered_does_not_count_as_one() {
        let mut client = Client::new();
        for count in 0..2000 {
            client.sends(&headers(nth(count))).expect("a request");
            client.gets(&headers(nth(count))).expect("an answer");
            client.sends(&reset(nth(count), 8)).expect("it crossed the answer");
        }
        // Over and over, they do nothing.
        let last = nth(1999);
        assert_eq!(client.may_send(|_| reset(last, 8)).1, Abuse::StrayFrames);
    }

    #[test]
    fn resets_that_we_are_provoked_into_are_an_abuse_and_those_of_endpoints_are_not() {
        let provoked = |code: u32| {
            let mut client = Client::new();
            (0..2000).position(|count| client.gets(&reset(nth(count), code)).is_err())
        };
        assert_eq!(provoked(PROTOCOL_ERROR), Some(64));
        assert_eq!(provoked(FLOW_CONTROL_ERROR), Some(64));
        assert_eq!(provoked(STREAM_CLOSED), Some(64));
        assert_eq!(provoked(REFUSED_STREAM), Some(512));
        for code in [0, 2, 8, 13] {
            assert_eq!(provoked(code), None, "{code}");
        }
    }

    #[test]
    fn floods_are_an_abuse() {
        let floods: [(Vec<u8>, u32, Abuse); 8] = [
            (frame(SETTINGS, 0, 0, &[]), HTTP2_SETTINGS.0 - 1, Abuse::SettingsFlood),
            (frame(PING, 0, 0, &[0; 8]), HTTP2_PINGS.0, Abuse::PingFlood),
            (frame(PRIORITY, 0, 9, &[0; 5]), HTTP2_PRIORITIES.0, Abuse::PriorityFlood),
            (
                frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1"),
                HTTP2_PRIORITIES.0,
                Abuse::PriorityFlood,
            ),
            (update(0, 1 << 16), HTTP2_UPDATES.0, Abuse::WindowUpdateFlood),
            (data(1, 0, 0), HTTP2_EMPTY.0, Abuse::EmptyFrames),
            (frame(77, 0, 0, b"hello"), HTTP2_STRAYS.0, Abuse::StrayFrames),
            (frame(GOAWAY, 0, 0, &[0; 8]), HTTP2_STRAYS.0 / 4, Abuse::StrayFrames),
        ];
        for (bytes, most, abuse) in floods {
            let mut client = Client::new();
            assert_eq!(client.may_send(|_| bytes.clone()), (most, abuse));
            let mut client = Client::new();
            for _ in 0..1000 {
                client.sends(&bytes).expect("one every four seconds is none");
                client.waits(4);
            }
        }
    }

    #[test]
    fn data_that_is_all_padding_is_empty() {
        let mut client = Client::new();
        client.sends(&frame(HEADERS, END_HEADERS, 1, &[0x82])).expect("a request");
        let padded = |_| frame(DATA, PADDED, 1, &[&[3_u8][..], &[0; 3]].concat());
        assert_eq!(client.may_send(padded), (HTTP2_EMPTY.0, Abuse::EmptyFrames));
    }

    #[test]
    fn pings_and_updates_come_with_what_is_sent() {
        let mut client = Client::new();
        client.sends(&headers(1)).expect("a request");
        for _ in 0..10_000 {
            client.gets(&data(1, 0, 16_384)).expect("data");
            client.sends(&frame(PING, 0, 0, &[1; 8])).expect("it measures");
            for _ in 0..4 {
                client.sends(&update(0, 4096)).expect("it reads");
                client.sends(&update(1, 4096)).expect("it reads");
            }
        }
    }

    #[test]
    fn a_window_that_is_opened_byte_by_byte_is_an_abuse() {
        for (id, settings) in [(0, 1 << 20), (1, 0)] {
            let mut client = Client::new();
            let window = [&[0, 4][..], &u32::to_be_bytes(settings)].concat();
            client.sends(&frame(SETTINGS, 0, 0, &window)).expect("settings");
            client.sends(&headers(1)).expect("a request");
            if id == 0 {
                client.gets(&data(1, 0, 65_535)).expect("all of the connection's window");
            }
            let mut count = 0;
            let abuse = loop {
                client.sends(&update(id, 1)).expect("more is taken away below");
                match client.gets(&data(1, 0, 1)) {
                    Ok(()) => count += 1,
                    Err(abuse) => break abuse,
                }
            };
            assert_eq!((count, abuse), (HTTP2_DRIBBLES.0, Abuse::TinyWindows), "{id}");
        }
    }

    #[test]
    fn small_frames_in_an_open_window_are_no_dribble_however_small_its_updates_are() {
        let mut client = Client::new();
        client.sends(&headers(1)).expect("a request");
        for _ in 0..10_000 {
            client.gets(&data(1, 0, 20)).expect("a message");
            client.sends(&update(0, 20)).expect("it is read");
            client.sends(&update(1, 20)).expect("it is read");
        }
    }

    #[test]
    fn a_block_of_fields_is_bounded_in_pieces_and_in_bytes() {
        let mut client = Client::new();
        client.sends(&frame(HEADERS, 0, 1, &[0x82])).expect("the beginning");
        let more = |_| frame(CONTINUATION, 0, 1, &[0x84]);
        assert_eq!(client.may_send(more), (HTTP2_CONTINUATIONS_MAX, Abuse::Continuations));
        let mut client = Client::new();
        client.sends(&frame(HEADERS, 0, 1, &[0; 16_384])).expect("the beginning");
        let more = |_| frame(CONTINUATION, 0, 1, &[0; 16_384]);
        assert_eq!(client.may_send(more), (5, Abuse::FieldBlock));
        // The next block begins anew.
        let mut client = Client::new();
        for count in 0..1000 {
            client.sends(&frame(HEADERS, 0, nth(count), &[0; 16_384])).expect("the beginning");
            for end in [0, 0, END_HEADERS] {
                client.sends(&frame(CONTINUATION, end, nth(count), &[0; 10_000])).expect("fields");
            }
        }
    }

    #[test]
    fn blocks_of_fields_in_empty_pieces_are_an_abuse() {
        let mut client = Client::new();
        let empty = |count| {
            let [begin, more] = [HEADERS, CONTINUATION].map(|k| frame(k, 0, nth(count), &[]));
            [begin, more, frame(CONTINUATION, END_HEADERS, nth(count), &[0x82])].concat()
        };
        assert_eq!(client.may_send(empty), (HTTP2_EMPTY.0 / 2, Abuse::EmptyFrames));
    }

    #[test]
    fn frames_are_seen_however_they_are_cut() {
        let settings = [0, 3, 0, 0, 0, 9, 0, 4, 0, 0, 0, 1, 0, 99, 1, 2, 3, 4];
        let bytes = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
            &frame(SETTINGS, 0, 0, &settings),
            &frame(SETTINGS, ACK, 0, &[]),
            &frame(HEADERS, END_HEADERS, 1, &[0x82, 0x84]),
            &data(1, 0, 0),
            &data(1, 0, 3),
            &frame(DATA, PADDED, 1, &[0]),
            &update(0, 7),
            &reset(1, 8),
            &frame(PING, 0, 0, &[0; 8]),
            &frame(99, 0, 5, &[0; 300]),
            &frame(PRIORITY, 0, 5, &[0; 5]),
        ]
        .concat();
        let now = Instant::now();
        let levels = |cuts: &[usize]| {
            let mut watch = Watch::new(now);
            let mut from = 0;
            for &cut in cuts.iter().chain([&bytes.len()]) {
                watch.received(&bytes[from..cut], now).expect("nothing is too much");
                from = cut;
            }
            (watch.buckets.levels, watch.window, watch.initial_window, watch.newest)
        };
        let whole = levels(&[]);
        assert_eq!(whole, ([1, 0, 2, 1, 1, 1, 0, 1, 1], WINDOW + 7, 1, 1));
        for first in 0..bytes.len() {
            assert_eq!(levels(&[first]), whole, "cut at {first}");
            for second in (first..bytes.len()).take(20) {
                assert_eq!(levels(&[first, second]), whole, "cut at {first} and {second}");
            }
        }
        assert_eq!(levels(&(0..bytes.len()).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn every_abuse_has_a_label_of_its_own() {
        let labels: std::collections::HashSet<_> =
            Abuse::ALL.iter().map(|abuse| abuse.label()).collect();
        assert_eq!(labels.len(), Abuse::ALL.len());
    }
}
