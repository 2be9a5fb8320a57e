//! What goes wrong before there is an exchange to be recorded: counted always, told to the control
//! core once in a while, which writes the log.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use crate::control::message::{ToControl, Trouble};
use crate::engine;
use crate::exchange::failure::Failure;
use crate::http2::abuse::Abuse;
use crate::limits;
use crate::shard::{Origin, Shard, events};
use crate::telemetry::audit_log::Event;
use crate::tls::refusal::Refusal;

/// When each kind was last told of, and how many there were since. Those that nobody wants to know
/// of do not stand for the others.
#[derive(Default)]
pub(super) struct Troubles(RefCell<HashMap<(&'static str, bool), Told>>);

struct Told {
    at: Instant,
    untold: u64,
}

impl Troubles {
    /// How many of the kind were left out before this one; `None`: so is this one.
    fn allows(&self, kind: (&'static str, bool), now: Instant) -> Option<u64> {
        let mut kinds = self.0.borrow_mut();
        let Some(told) = kinds.get_mut(&kind) else {
            kinds.insert(kind, Told { at: now, untold: 0 });
            return Some(0);
        };
        if now - told.at < limits::TROUBLE_INTERVAL {
            told.untold += 1;
            return None;
        }
        told.at = now;
        Some(std::mem::take(&mut told.untold))
    }

    /// So many could not be told of after all.
    fn leave_out(&self, kind: (&'static str, bool), count: u64) {
        if let Some(told) = self.0.borrow_mut().get_mut(&kind) {
            told.untold += count;
        }
    }
}

impl Shard {
    /// A client's connection has ended before its protocol began.
    pub(crate) fn tell_of_opening(&self, origin: &Origin, refusal: &Refusal) {
        let reason = refusal.reason();
        self.note_opening(origin, refusal);
        events::connection_refused(self, origin, reason);
        if reason.is_about_identity() {
            let why = (reason.label(), refusal.to_string());
            self.log.audit_client(Event::AuthFailure, origin, (why.0, &why.1), self);
        }
    }

    /// A client is cut off for what it does to its HTTP/2 connection.
    pub(crate) fn tell_of_abuse(&self, origin: &Origin, abuse: Abuse) {
        self.counters().abuses[abuse as usize].add(1);
        self.stir();
        let through = origin.told_source().map(|_| origin.peer);
        self.complain((abuse.label(), false), |untold| Trouble {
            listener: Some(origin.door.key),
            peer: origin.speaks_for(),
            through,
            label: abuse.label(),
            detail: abuse.message().to_owned(),
            untold,
            quiet: false,
            was_served: true,
        });
        self.log.audit_client(Event::Blocked, origin, (abuse.label(), abuse.message()), self);
    }

    /// The same, where the client gets an answer yet.
    pub(crate) fn note_opening(&self, origin: &Origin, refusal: &Refusal) {
        let reason = refusal.reason();
        self.counters().refused[reason as usize].add(1);
        self.stir();
        let quiet = matches!(refusal, Refusal::Silent(_));
        let listener = Some(origin.door.key);
        let through = origin.told_source().map(|_| origin.peer);
        let is_told = || log::log_enabled!(target: "corelane::control::trouble", log::Level::Debug);
        if !quiet || is_told() {
            self.complain((reason.label(), quiet), |untold| Trouble {
                listener,
                peer: origin.speaks_for(),
                through,
                label: reason.label(),
                detail: refusal.to_string(),
                untold,
                quiet,
                was_served: false,
            });
        }
    }

    /// So has one to an endpoint; the exchange's own line says which failure, but not why.
    pub(crate) fn tell_of_handshake(&self, failure: Failure, peer: SocketAddr, detail: String) {
        let label = failure.label();
        self.complain((label, false), |untold| Trouble {
            listener: None,
            peer,
            through: None,
            label,
            detail,
            untold,
            quiet: false,
            was_served: false,
        });
    }

    fn complain(&self, kind: (&'static str, bool), trouble: impl FnOnce(u64) -> Trouble) {
        let Some(untold) = self.troubles.allows(kind, engine::now()) else { return };
        if !self.mail.offer_to_control(ToControl::Trouble(Box::new(trouble(untold)))) {
            self.troubles.leave_out(kind, untold + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_kind_is_told_of_with_the_number_of_those_before_it() {
        let (troubles, now) = (Troubles::default(), Instant::now());
        let (timeout, silent) = (("timeout", false), ("timeout", true));
        assert_eq!([(); 3].map(|()| troubles.allows(timeout, now)), [Some(0), None, None]);
        assert_eq!(troubles.allows(silent, now), Some(0));
        let later = now + limits::TROUBLE_INTERVAL;
        assert_eq!(troubles.allows(timeout, later), Some(2));
        troubles.leave_out(timeout, 3);
        assert_eq!(troubles.allows(timeout, later), None);
        assert_eq!(troubles.allows(timeout, later + limits::TROUBLE_INTERVAL), Some(4));
        assert_eq!(troubles.allows(silent, later), Some(0));
    }
}
