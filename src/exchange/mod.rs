//! One request and its answer.

pub mod failure;
pub mod record;
