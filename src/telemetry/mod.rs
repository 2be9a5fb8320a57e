//! What operators read: access log, metrics, the log of the process.

pub mod access_log;
pub mod metrics;
