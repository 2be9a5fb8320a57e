//! `limits.max_concurrent_connections`: the client connections of the whole process. One that finds
//! no room waits, accepted or in the kernel's queue, and those that are idle longest make room.

use std::rc::Rc;
use std::time::Instant;

use crate::control::message::{Room, Shortage, ToControl, ToShard};
use crate::engine;
use crate::limits;
use crate::shard::Shard;

fn connections_max(shard: &Shard) -> i64 {
    shard.generation().plan.limits.connections_max.map_or(i64::MAX, i64::from)
}

/// Counted first and looked at then, so that of two cores which find one place only one has it.
pub(super) fn take_place(shard: &Shard) -> bool {
    if shard.open.add(1) <= connections_max(shard) {
        return true;
    }
    shard.open.add(-1);
    false
}

/// Closes the idle connections of this core that were quiet longest. When it has none, the next
/// core is asked, until all were: a letter that is lost is sent again by whoever waits.
pub(crate) fn make_room(shard: &Rc<Shard>, room: Room) {
    let is_over = match room.shortage {
        Shortage::Connections => {
            shard.open.read() < connections_max(shard)
                || shard.all_counters[room.wanted_by].limit_waiting.read() == 0
        }
        // Only whoever asked can find out.
        Shortage::Descriptors => false,
    };
    if is_over {
        return;
    }
    if let Some(count) = engine::recall_parked(room.briefly_too) {
        shard.counters().recalled.add(count as u64);
        return;
    }
    let next = (shard.mail.core() + 1) % shard.mail.cores();
    if next != room.wanted_by {
        shard.mail.to(next, ToShard::MakeRoom(room));
    }
}

/// A client that waits for a place.
pub(super) struct Waiting<'a>(&'a Shard);

impl Waiting<'_> {
    pub(super) fn new(shard: &Shard) -> Waiting<'_> {
        shard.counters().limit_waits.add(1);
        shard.counters().limit_waiting.add(1);
        Waiting(shard)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.counters().limit_waiting.add(-1);
    }
}

/// When the control core was last told that clients wait: it writes the log, not a data core.
#[derive(Default)]
pub(super) struct Told(Option<Instant>);

impl Told {
    pub(super) fn tell(&mut self, shard: &Shard, letter: impl FnOnce() -> ToControl) {
        let now = engine::now();
        if self.0.is_none_or(|last| now - last >= limits::SHORTAGE_LETTER_INTERVAL) {
            self.0 = Some(now);
            shard.mail.offer_to_control(letter());
        }
    }
}
