//! What operators read: access log, metrics, the log of the process.

pub mod access_log;
pub mod decimal;
pub mod json;
pub mod metric_names;
pub mod metrics;
pub mod process_log;
pub mod timestamp;

#[cfg(test)]
#[path = "../../tests/support/snapshot.rs"]
pub(crate) mod snapshot;
