//! What is done to all connections of this core at once.

use std::task::Waker;

use crate::engine::host::Machine;

/// Ends the waits of connections that are between two requests.
pub fn expire_parked() {
    let mut wake = Vec::new();
    Machine::with(|machine| machine.slots.borrow_mut().expire_parked(&mut wake));
    wake.into_iter().for_each(Waker::wake);
}

/// Every task that waits for a descriptor looks again: something that it depends on has changed.
/// Rare and dear.
pub fn wake_all() {
    let mut wake = Vec::new();
    Machine::with(|machine| machine.slots.borrow_mut().wake_all(&mut wake));
    wake.into_iter().for_each(Waker::wake);
}

/// Tells the connections that have been between two requests for longest to end. Returns how many
/// were told, `None` when there are none; while some are about to end, no others are told.
pub fn recall_parked(briefly_too: bool) -> Option<usize> {
    let mut wake = Vec::new();
    let told =
        Machine::with(|machine| machine.slots.borrow_mut().recall_parked(briefly_too, &mut wake));
    wake.into_iter().for_each(Waker::wake);
    told
}

/// Looks after connections whose exchange takes long, so that it ends when they break.
pub fn watch_connections() {
    Machine::with(|machine| {
        let mut ring = machine.ring.borrow_mut();
        machine.slots.borrow_mut().poll_watched(|fd, token| ring.poll(fd, token));
    });
}
