//! `limits.max_concurrent_connections`: the client connections of the whole process. One that finds
//! no room waits, accepted or in the kernel's queue, and those that are idle longest make room.

use std::rc::Rc;

use crate::control::message::ToShard;
use crate::engine;
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
pub(crate) fn make_room(shard: &Rc<Shard>, wanted_by: usize) {
    if shard.open.read() < connections_max(shard) || engine::recall_parked() > 0 {
        return;
    }
    let next = (shard.mail.core() + 1) % shard.mail.cores();
    if next != wanted_by {
        shard.mail.to(next, ToShard::MakeRoom { wanted_by });
    }
}
