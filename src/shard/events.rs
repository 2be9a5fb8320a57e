//! A data core's events on their way to the control core: made only while somebody wants their
//! kind, sent in batches when housekeeping comes or enough have gathered.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::control::message::ToControl;
use crate::engine;
use crate::events::bus::{Connection, ConnectionState, Event, Kinds, Lost};
use crate::limits;
use crate::shard::mail::Mail;
use crate::shard::{Origin, Shard};
use crate::telemetry::client_tls;
use crate::tls::refusal::Reason;

pub(crate) struct Events {
    wanted: Cell<Kinds>,
    batch: RefCell<Vec<Event>>,
    lost: RefCell<Lost>,
}

/// A connection whose opening was told: so is its end.
pub(crate) struct Opened {
    shard: Rc<Shard>,
    origin: Origin,
}

/// `None`, which costs nothing, unless somebody wants to know.
pub(crate) fn connection_opened(shard: &Rc<Shard>, origin: &Origin) -> Option<Box<Opened>> {
    shard.events.wants(Kinds::CONNECTION).then(|| {
        let opened = Opened { shard: Rc::clone(shard), origin: origin.clone() };
        opened.tell(ConnectionState::Opened);
        Box::new(opened)
    })
}

/// One that ends before its protocol has begun.
pub(crate) fn connection_refused(shard: &Shard, origin: &Origin, reason: Reason) {
    if shard.events.wants(Kinds::CONNECTION) {
        tell(shard, origin, ConnectionState::Refused, Some(reason));
    }
}

impl Opened {
    fn tell(&self, state: ConnectionState) {
        let Opened { shard, origin } = self;
        tell(shard, origin, state, None);
    }
}

fn tell(shard: &Shard, origin: &Origin, state: ConnectionState, reason: Option<Reason>) {
    shard.stir();
    // As it is called now.
    let generation = shard.generations.newest();
    let newest = generation.as_ref().and_then(|newest| newest.listener(origin.door.key));
    let event = Event::Connection(Connection {
        timestamp: engine::wall_clock(),
        core: shard.mail.core(),
        listener: newest.map_or(&origin.door.name, |listener| &listener.name).clone(),
        peer: origin.peer,
        speaks_for: origin.told_source(),
        tls: origin.client_tls().map(|tls| Box::new(client_tls::Told::of(&tls))),
        state,
        reason: reason.map(Reason::label),
    });
    shard.events.tell(&shard.mail, event);
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.tell(ConnectionState::Closed);
    }
}

impl Default for Events {
    fn default() -> Events {
        Events {
            wanted: Cell::new(Kinds::NONE),
            batch: RefCell::default(),
            lost: RefCell::default(),
        }
    }
}

impl Events {
    pub(crate) fn want(&self, kinds: Kinds) {
        // What was lost before somebody wanted it is nothing to tell them.
        let before = self.wanted.replace(kinds);
        self.lost.borrow_mut().keep(before.common(kinds));
    }

    pub(crate) fn wants(&self, kinds: Kinds) -> bool {
        self.wanted.get().has(kinds)
    }

    pub(crate) fn tell(&self, mail: &Mail, event: Event) {
        self.batch.borrow_mut().push(event);
        let large = matches!(self.batch.borrow().last(), Some(Event::Exchange(_)));
        let most = if large { limits::TAP_BATCH_MAX } else { limits::EVENT_BATCH_MAX };
        if self.batch.borrow().len() >= most {
            self.flush(mail);
        }
    }

    /// A batch that the control core has no room for is lost, and counted.
    pub(crate) fn flush(&self, mail: &Mail) {
        if self.batch.borrow().is_empty() {
            return;
        }
        let events = self.batch.take();
        let lost = self.lost.take();
        let mut with_these = lost.clone();
        events.iter().for_each(|event| with_these.add(event.kind()));
        if !mail.offer_to_control(ToControl::Events { events, lost }) {
            *self.lost.borrow_mut() = with_these;
        }
    }
}
