//! Connections to endpoints: kept ones first, new ones within the process's maximum, a bounded
//! queue when there is none. Those of HTTP/2 are shared.

pub(crate) mod connect;
pub(crate) mod endpoints;
pub(crate) mod lease;
pub(crate) mod multiplex;
pub(crate) mod pool;
mod queue;
pub(crate) mod tally;
