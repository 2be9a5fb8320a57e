//! Which endpoint takes the next request. Called by the upstream pool with what is eligible.

mod round_robin;

pub(crate) use round_robin::RoundRobin;
