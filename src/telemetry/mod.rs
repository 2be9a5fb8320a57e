//! What operators read: access log, metrics, the log of the process.

pub mod access_log;
pub mod audit_log;
pub mod client_tls;
pub mod decimal;
pub mod exemplars;
pub(crate) mod exposition;
mod grpc_metrics;
pub mod health;
pub mod json;
pub mod log_levels;
pub mod logged_body;
pub mod metric_names;
pub mod metrics;
pub(crate) mod metrics_page;
pub mod process_log;
pub mod redact;
pub mod secret_names;
pub mod settings;
pub mod stderr;
pub mod tap;
pub mod template;
pub mod timestamp;
pub mod tls_metrics;
pub mod trace;

#[cfg(test)]
#[path = "../../tests/support/snapshot.rs"]
#[expect(unreachable_pub, reason = "written for the tests of the binary, which see it as public")]
pub(crate) mod snapshot;
