//! Connections to endpoints: kept ones first, new ones within the process's maximum, a bounded
//! queue when there is none.

pub(crate) mod connect;
pub(crate) mod endpoints;
pub(crate) mod lease;
pub(crate) mod pool;
pub(crate) mod tally;
