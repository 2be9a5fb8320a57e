//! Facts for the outside: the publisher core, and beside it the exporter of traces.

mod collector;
pub(crate) mod exporter;
mod log_file;
pub mod publisher;
pub mod queue;
mod rotation;
pub mod span_queue;
