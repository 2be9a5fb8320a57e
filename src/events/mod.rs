//! Facts for the outside: the publisher core, and beside it the exporter of traces.

mod collector;
pub(crate) mod exporter;
pub mod publisher;
pub mod queue;
pub mod span_queue;
