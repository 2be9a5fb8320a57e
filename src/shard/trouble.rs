//! What goes wrong before there is an exchange to be recorded: counted always, told to the control
//! core once in a while, which writes the log.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use crate::control::message::{ToControl, Trouble};
use crate::engine;
use crate::exchange::failure::Failure;
use crate::limits;
use crate::shard::{Origin, Shard};
use crate::tls::refusal::Refusal;

/// When each kind was last told of.
#[derive(Default)]
pub(super) struct Troubles(RefCell<HashMap<&'static str, Instant>>);

impl Troubles {
    fn is_due(&self, label: &'static str) -> bool {
        let (mut told, now) = (self.0.borrow_mut(), engine::now());
        let last = told.get(label);
        let is_due = last.is_none_or(|last| now - *last >= limits::TROUBLE_INTERVAL);
        if is_due {
            told.insert(label, now);
        }
        is_due
    }
}

impl Shard {
    /// A client's connection has ended before its protocol began.
    pub(crate) fn tell_of_opening(&self, origin: &Origin, refusal: &Refusal) {
        let reason = refusal.reason();
        self.counters().refused[reason as usize].add(1);
        self.stir();
        let label = reason.label();
        if self.troubles.is_due(label) {
            let (listener, detail) = (origin.door.key, refusal.to_string());
            let trouble =
                Trouble { listener: Some(listener), peer: origin.speaks_for(), label, detail };
            self.mail.offer_to_control(ToControl::Trouble(Box::new(trouble)));
        }
    }

    /// So has one to an endpoint; the exchange's own line says which failure, but not why.
    pub(crate) fn tell_of_handshake(&self, failure: Failure, peer: SocketAddr, detail: String) {
        let label = failure.label();
        if self.troubles.is_due(label) {
            let trouble = Trouble { listener: None, peer, label, detail };
            self.mail.offer_to_control(ToControl::Trouble(Box::new(trouble)));
        }
    }
}
