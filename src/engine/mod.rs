//! The machine: the only folder that knows io_uring and glommio, reads a clock, shares memory
//! between threads or contains `unsafe`. Everything else uses the plain names exported here, and a
//! simulation that supplies the same names can stand in for it.

mod blocking;
mod buffer;
mod connections;
mod doorbell;
mod handover;
mod host;
mod io;
mod listener;
mod mailbox;
mod outlet;
mod pipe;
mod privileges;
mod probe;
mod process;
mod ring;
mod shared;
mod slots;
mod sockaddr;
mod socket;
#[cfg(test)]
mod test_core;
mod timer;
mod watch;

pub use blocking::Pool as BlockingPool;
pub use buffer::Buf;
pub use connections::{expire_parked, recall_parked, wake_all, watch_connections};
pub use doorbell::Doorbell;
pub use handover::{receive_descriptors, send_descriptors};
pub use host::{
    CoreState, Placement, Sleep, buffer, bulk_buffer, core_state, now, on_bell, precise_now, run,
    sleep, spawn, trim_buffers, trim_memory, wall_clock, within, yield_now,
};
pub use io::{Descriptor, Side};
pub use listener::Listener;
pub use mailbox::{Inbox, Outbox, mailbox};
pub use outlet::{send_at_once, until_writable};
pub use pipe::Pipe;
pub use privileges::Identity;
pub use probe::probe;
pub use process::{
    Signal, Signals, Usage, cpus, monotonic_time, open_files_max, raise_open_files, random_seed,
    usage, use_small_pages,
};
pub use shared::{Counter, Level, Permits, Shared};
pub use slots::Parked;
pub use sockaddr::{is_free, listen};
pub use socket::{SendError, Socket, Taken, Wait, Waiting};
pub use watch::Watcher;
