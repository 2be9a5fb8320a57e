//! Corelane: a proxy for Linux, one executor pinned to each core, io_uring underneath.

pub mod cli;
pub mod config;
pub mod discovery;
pub mod events;
pub mod exchange;
pub mod http;
pub mod http1;
pub mod limits;
pub mod plan;
pub mod routing;
pub mod telemetry;
