//! Facts: the bus that carries them inside the process, and for the outside the publisher core and
//! beside it the exporter of traces.

pub mod bus;
mod collector;
pub(crate) mod exporter;
mod line_log;
mod log_file;
mod logs;
mod open_log;
pub mod publisher;
pub mod queue;
mod rotation;
pub mod span_queue;
