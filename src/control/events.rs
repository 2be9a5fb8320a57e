//! Events on the control core: those of the data cores, and its own.

use std::net::SocketAddr;

use crate::control::Control;
use crate::control::message::ToShard;
use crate::control::reload::{Refused, Report, Trigger};
use crate::engine;
use crate::events::bus::{Audit, Event, Health, Kinds, Lost, Reload, Subscription};
use crate::telemetry::audit_log::Record;

impl Control {
    /// Everything of these kinds that happens from now on; up to `most` may wait.
    pub(crate) fn subscribe(&self, kinds: Kinds, most: usize) -> Subscription {
        let subscription = self.bus.subscribe(kinds, most);
        self.want_events();
        subscription
    }

    /// Data cores make only what somebody wants: called when a subscriber has come or gone.
    pub(crate) fn want_events(&self) {
        let wanted = self.bus.wanted();
        if self.wanted_events.replace(wanted) != wanted {
            self.to_shards(|| ToShard::WantEvents(wanted));
        }
    }

    pub(super) fn take_events(&self, events: Vec<Event>, lost: &Lost) {
        self.bus.note_lost(lost);
        events.into_iter().for_each(|event| self.bus.publish(event));
        // A subscriber may have gone.
        self.want_events();
    }

    pub(super) fn tell_reload(&self, trigger: Trigger, outcome: &Result<Report, Refused>) {
        self.bus.publish(Event::Reload(Reload {
            timestamp: engine::wall_clock(),
            trigger: trigger.to_string(),
            version: outcome.as_ref().map_or(self.plan().version, |report| report.version),
            refused: outcome.as_ref().err().map(Refused::to_string),
        }));
    }

    pub(super) fn tell_audit(&self, record: &Record<'_>) {
        self.bus.publish(Event::Audit(Audit {
            timestamp: record.at,
            who: record.actor.to_owned(),
            action: record.event.label().to_owned(),
            target: record.target.to_owned(),
            outcome: record.outcome.label().to_owned(),
        }));
    }

    /// A name of endpoints leads elsewhere, or nowhere.
    pub(super) fn tell_addresses(&self, name: &str, addresses: &[SocketAddr]) {
        let state = if addresses.is_empty() { "unresolved" } else { "resolved" };
        self.tell_health(name, state, &format!("{addresses:?}"));
    }

    pub(super) fn tell_health(&self, subject: &str, state: &str, reason: &str) {
        self.bus.publish(Event::Health(Health {
            timestamp: engine::wall_clock(),
            subject: subject.to_owned(),
            state: state.to_owned(),
            reason: reason.to_owned(),
        }));
    }
}
