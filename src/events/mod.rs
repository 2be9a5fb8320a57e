//! Facts for the outside: the publisher core.

mod log_file;
pub mod publisher;
pub mod queue;
mod rotation;
