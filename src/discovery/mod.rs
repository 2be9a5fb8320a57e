//! Where endpoints are. Runs on the control core.

pub mod dns;
