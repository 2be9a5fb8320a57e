//! Facts for the outside: the publisher core.

pub mod publisher;
pub mod queue;
