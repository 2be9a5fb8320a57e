//! Bounded queues between cores: one per direction and pair. Putting a letter in rings the
//! receiver.

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::engine::doorbell::Doorbell;
use crate::limits;

#[derive(Debug)]
pub struct Outbox<T> {
    queue: Sender<T>,
    bell: Doorbell,
}

#[derive(Debug)]
pub struct Inbox<T>(Receiver<T>);

pub fn mailbox<T>(bell: Doorbell) -> (Outbox<T>, Inbox<T>) {
    let (queue, letters) = crossbeam_channel::bounded(limits::MAILBOX_MESSAGES);
    (Outbox { queue, bell }, Inbox(letters))
}

impl<T> Outbox<T> {
    /// Gives the letter back when the queue is full or the receiver has gone.
    pub fn put(&self, letter: T) -> Result<(), T> {
        match self.queue.try_send(letter) {
            Ok(()) => {
                self.bell.ring();
                Ok(())
            }
            Err(TrySendError::Full(letter) | TrySendError::Disconnected(letter)) => {
                self.bell.ring();
                Err(letter)
            }
        }
    }
}

impl<T> Inbox<T> {
    pub fn take(&self) -> Option<T> {
        self.0.try_recv().ok()
    }
}
