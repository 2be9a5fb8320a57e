//! What happens in the process, as facts that anybody inside it may subscribe to: connections,
//! requests, failures, reloads, health and what operators do. Data cores make an event only while
//! somebody wants its kind, and send them in batches; a subscriber that does not keep up loses
//! events, and is told how many.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::exchange::failure::Failure;
use crate::exchange::record::Record;
use crate::telemetry::client_tls;
use crate::telemetry::tap::Tapped;
use crate::telemetry::timestamp;

/// A fact.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event_type", rename_all = "snake_case")]
pub enum Event {
    Connection(Connection),
    /// A request was routed and answered, or failed.
    Request(Box<Request>),
    /// Why one failed: beside its `Request`.
    Failure(Box<Failed>),
    Reload(Reload),
    Health(Health),
    Audit(Audit),
    /// One that an operator watches.
    Exchange(Box<Tapped>),
}

/// What an event is about; sets of kinds are sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    pub const NONE: Kinds = Kinds(0);
    pub const CONNECTION: Kinds = Kinds(1);
    pub const REQUEST: Kinds = Kinds(2);
    pub const FAILURE: Kinds = Kinds(4);
    pub const RELOAD: Kinds = Kinds(8);
    pub const HEALTH: Kinds = Kinds(16);
    pub const AUDIT: Kinds = Kinds(32);
    /// Whoever taps, and nobody else: not one of all.
    pub const TAPPED: Kinds = Kinds(64);
    pub const ALL: Kinds = Kinds(63);

    /// By the name that events of the kind have.
    pub fn named(name: &str) -> Option<Kinds> {
        match name {
            "connection" => Some(Kinds::CONNECTION),
            "request" => Some(Kinds::REQUEST),
            "failure" => Some(Kinds::FAILURE),
            "reload" => Some(Kinds::RELOAD),
            "health" => Some(Kinds::HEALTH),
            "audit" => Some(Kinds::AUDIT),
            _ => None,
        }
    }

    #[must_use]
    pub fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub fn common(self, other: Kinds) -> Kinds {
        Kinds(self.0 & other.0)
    }

    pub fn has(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }
}

/// How many events of each kind never came to the bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost([u64; 7]);

impl Lost {
    pub fn add(&mut self, kind: Kinds) {
        self.0[kind.0.trailing_zeros() as usize] += 1;
    }

    pub fn and(&mut self, other: &Lost) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    /// Of all of these.
    pub fn of(&self, kinds: Kinds) -> u64 {
        let counts = self.0.iter().enumerate();
        counts.filter(|(bit, _)| kinds.0 >> bit & 1 == 1).map(|(_, count)| count).sum()
    }

    /// Forgets all others.
    pub fn keep(&mut self, kinds: Kinds) {
        for (bit, count) in self.0.iter_mut().enumerate() {
            *count *= u64::from(kinds.0 >> bit & 1);
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Connection {
    #[serde(serialize_with = "instant")]
    pub timestamp: SystemTime,
    pub core: usize,
    pub listener: String,
    /// Who holds the socket.
    pub peer: SocketAddr,
    /// Whom it says that it speaks for (PROXY protocol).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speaks_for: Option<SocketAddr>,
    /// Absent for plain connections, and for those that never came that far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Box<client_tls::Told>>,
    pub state: ConnectionState,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// Its protocol begins.
    Opened,
    Closed,
    /// It has ended before its protocol began; there was no `Opened`.
    Refused,
}

#[derive(Clone, Debug, Serialize)]
pub struct Request {
    #[serde(serialize_with = "instant")]
    pub timestamp: SystemTime,
    pub request_id: String,
    pub client: IpAddr,
    pub peer: SocketAddr,
    pub user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Box<client_tls::Told>>,
    pub listener: String,
    pub method: String,
    pub host: String,
    /// Without its query, which may hold secrets.
    pub path: String,
    pub route: String,
    pub cluster: String,
    pub endpoint: Option<SocketAddr>,
    /// 0: nothing was answered.
    pub status_code: u16,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub attempts: u8,
    #[serde(serialize_with = "milliseconds")]
    pub latency_ms: Duration,
}

#[derive(Clone, Debug, Serialize)]
pub struct Failed {
    #[serde(serialize_with = "instant")]
    pub timestamp: SystemTime,
    pub request_id: String,
    pub reason: &'static str,
    pub side: &'static str,
    pub phase: &'static str,
    pub route: String,
    pub cluster: String,
    pub endpoint: Option<SocketAddr>,
    pub status_code: u16,
}

#[derive(Clone, Debug, Serialize)]
pub struct Reload {
    #[serde(serialize_with = "instant")]
    pub timestamp: SystemTime,
    pub trigger: String,
    /// In force from now on.
    pub version: u64,
    /// Why nothing has changed; absent when it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Something serves, or serves no more.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    #[serde(serialize_with = "instant")]
    pub timestamp: SystemTime,
    /// `process`, the name of a host that endpoints have, or a cluster and one of its endpoints.
    pub subject: String,
    pub state: String,
    pub reason: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    #[serde(serialize_with = "instant")]
    pub timestamp: SystemTime,
    /// As in the audit log: `admin_change`.
    pub event: String,
    pub outcome: String,
    pub who: String,
    /// `PUT /admin/config`, `reload`.
    pub action: String,
    pub target: String,
    pub detail: String,
}

impl Event {
    pub fn kind(&self) -> Kinds {
        match self {
            Event::Connection(_) => Kinds::CONNECTION,
            Event::Request(_) => Kinds::REQUEST,
            Event::Failure(_) => Kinds::FAILURE,
            Event::Reload(_) => Kinds::RELOAD,
            Event::Health(_) => Kinds::HEALTH,
            Event::Audit(_) => Kinds::AUDIT,
            Event::Exchange(_) => Kinds::TAPPED,
        }
    }
}

impl Request {
    pub(crate) fn of(record: &Record<'_>) -> Request {
        let path = record.target.split(|&byte| byte == b'?').next().unwrap_or_default();
        Request {
            timestamp: record.at,
            request_id: text(record.request_id),
            client: record.client,
            peer: record.peer,
            user_agent: text(record.user_agent),
            tls: record.tls.as_ref().map(|tls| Box::new(client_tls::Told::of(tls))),
            listener: record.listener.to_owned(),
            method: text(record.method),
            host: text(record.host),
            path: text(path),
            route: record.route.to_owned(),
            cluster: record.cluster.to_owned(),
            endpoint: record.endpoint,
            status_code: record.status,
            bytes_received: record.bytes_received,
            bytes_sent: record.bytes_sent,
            attempts: record.attempts,
            latency_ms: record.timings.total,
        }
    }
}

impl Failed {
    pub(crate) fn of(record: &Record<'_>, failure: Failure) -> Failed {
        Failed {
            timestamp: record.at,
            request_id: text(record.request_id),
            reason: failure.label(),
            side: failure.side().label(),
            phase: record.phase.label(),
            route: record.route.to_owned(),
            cluster: record.cluster.to_owned(),
            endpoint: record.endpoint,
            status_code: record.status,
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn instant<S: Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    let mut text = Vec::new();
    timestamp::iso(*at, &mut text);
    to.serialize_str(&String::from_utf8_lossy(&text))
}

fn milliseconds<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_micros() as f64 / 1e3)
}

/// The control core's side: who subscribes to what.
#[derive(Default)]
pub struct Bus {
    subscribers: RefCell<Vec<Rc<Inbox>>>,
}

struct Inbox {
    kinds: Kinds,
    most: usize,
    events: RefCell<VecDeque<Rc<Event>>>,
    lost: Cell<u64>,
    waker: Cell<Option<Waker>>,
}

/// One subscriber's end. Dropped: it subscribes no more, as the bus finds at its next event.
pub struct Subscription(Rc<Inbox>);

/// What a subscriber gets.
#[derive(Clone, Debug)]
pub enum Received {
    Event(Rc<Event>),
    /// So many were lost before the next one: it was too slow.
    Lost(u64),
}

impl Bus {
    /// `most`: events that may wait for the subscriber.
    pub fn subscribe(&self, kinds: Kinds, most: usize) -> Subscription {
        let inbox = Rc::new(Inbox {
            kinds,
            most,
            events: RefCell::default(),
            lost: Cell::new(0),
            waker: Cell::new(None),
        });
        self.subscribers.borrow_mut().push(Rc::clone(&inbox));
        Subscription(inbox)
    }

    /// What is worth making.
    pub fn wanted(&self) -> Kinds {
        self.forget_gone();
        let subscribers = self.subscribers.borrow();
        subscribers.iter().fold(Kinds::NONE, |all, inbox| all.and(inbox.kinds))
    }

    pub fn publish(&self, event: Event) {
        self.forget_gone();
        let (kind, event) = (event.kind(), Rc::new(event));
        for inbox in self.subscribers.borrow().iter().filter(|inbox| inbox.kinds.has(kind)) {
            inbox.put(&event);
        }
    }

    /// Events that a core could not keep: told to those who wanted them.
    pub fn note_lost(&self, lost: &Lost) {
        for inbox in self.subscribers.borrow().iter() {
            inbox.lost.set(inbox.lost.get() + lost.of(inbox.kinds));
        }
    }

    fn forget_gone(&self) {
        self.subscribers.borrow_mut().retain(|inbox| Rc::strong_count(inbox) > 1);
    }
}

impl Inbox {
    fn put(&self, event: &Rc<Event>) {
        let mut events = self.events.borrow_mut();
        if events.len() >= self.most {
            self.lost.set(self.lost.get() + 1);
        } else {
            events.push_back(Rc::clone(event));
        }
        drop(events);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Subscription {
    /// What waits already.
    pub fn next_now(&self) -> Option<Received> {
        let lost = self.0.lost.take();
        if lost > 0 {
            return Some(Received::Lost(lost));
        }
        self.0.events.borrow_mut().pop_front().map(Received::Event)
    }

    pub async fn next(&self) -> Received {
        std::future::poll_fn(|context| {
            if let Some(received) = self.next_now() {
                return Poll::Ready(received);
            }
            self.0.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    fn reload(version: u64) -> Event {
        let (timestamp, trigger) = (SystemTime::UNIX_EPOCH, "test".to_owned());
        Event::Reload(Reload { timestamp, trigger, version, refused: None })
    }

    fn next(subscription: &Subscription) -> Option<Received> {
        match pin!(subscription.next()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(received) => Some(received),
            Poll::Pending => None,
        }
    }

    fn version(received: Option<Received>) -> Option<u64> {
        match received {
            Some(Received::Event(event)) => match &*event {
                Event::Reload(reload) => Some(reload.version),
                Event::Connection(_)
                | Event::Request(_)
                | Event::Failure(_)
                | Event::Health(_)
                | Event::Audit(_)
                | Event::Exchange(_) => None,
            },
            Some(Received::Lost(_)) | None => None,
        }
    }

    #[test]
    fn every_subscriber_gets_the_kinds_that_it_asked_for_in_order() {
        let bus = Bus::default();
        let (all, audit) = (bus.subscribe(Kinds::ALL, 9), bus.subscribe(Kinds::AUDIT, 9));
        bus.publish(reload(1));
        bus.publish(reload(2));
        assert_eq!((version(next(&all)), version(next(&all))), (Some(1), Some(2)));
        assert!(next(&all).is_none() && next(&audit).is_none());
    }

    #[test]
    fn who_is_slow_loses_the_newest_and_is_told_and_nobody_else_is_held_up() {
        let bus = Bus::default();
        let (slow, quick) = (bus.subscribe(Kinds::RELOAD, 2), bus.subscribe(Kinds::RELOAD, 9));
        (1..=5).for_each(|version| bus.publish(reload(version)));
        assert!(matches!(next(&slow), Some(Received::Lost(3))));
        assert_eq!((version(next(&slow)), version(next(&slow))), (Some(1), Some(2)));
        assert!((1..=5).all(|expected| version(next(&quick)) == Some(expected)));
    }

    #[test]
    fn what_a_core_has_lost_is_told_to_those_who_wanted_it() {
        let bus = Bus::default();
        let (reloads, audit) = (bus.subscribe(Kinds::RELOAD, 2), bus.subscribe(Kinds::AUDIT, 2));
        let mut lost = Lost::default();
        lost.add(Kinds::RELOAD);
        lost.and(&lost.clone());
        bus.note_lost(&lost);
        assert!(matches!(next(&reloads), Some(Received::Lost(2))));
        assert!(next(&audit).is_none());
        lost.keep(Kinds::AUDIT);
        assert_eq!(lost, Lost::default());
    }

    #[test]
    fn nothing_is_wanted_once_the_last_subscriber_has_gone() {
        let bus = Bus::default();
        let first = bus.subscribe(Kinds::RELOAD, 2);
        let second = bus.subscribe(Kinds::AUDIT.and(Kinds::HEALTH), 2);
        assert!(bus.wanted().has(Kinds::RELOAD) && bus.wanted().has(Kinds::HEALTH));
        drop(first);
        assert!(!bus.wanted().has(Kinds::RELOAD));
        drop(second);
        assert_eq!(bus.wanted(), Kinds::NONE);
    }

    #[test]
    fn an_event_says_what_it_is_and_when() {
        let text = serde_json::to_string(&reload(7)).unwrap();
        let expected = "{\"event_type\":\"reload\",\"timestamp\":\"1970-01-01T00:00:00.000Z\",\
                        \"trigger\":\"test\",\"version\":7}";
        assert_eq!(text, expected);
        for name in ["connection", "request", "failure", "reload", "health", "audit"] {
            assert!(Kinds::named(name).is_some_and(|kind| Kinds::ALL.has(kind)));
        }
        assert_eq!(Kinds::named("everything"), None);
    }
}
