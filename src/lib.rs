//! Corelane: a proxy for Linux, one executor pinned to each core, io_uring underneath.

mod admin;
mod balancing;
pub mod cli;
pub mod config;
pub mod control;
pub mod discovery;
pub mod engine;
pub mod events;
pub mod exchange;
pub mod http;
pub mod http1;
pub mod limits;
mod listener;
pub mod plan;
pub mod routing;
mod shard;
pub mod telemetry;
mod upstream;
