//! Which route a request takes: by host, then by path. Compiled once, read by every core.

use crate::plan::RouteId;

/// Host and path tries.
#[derive(Debug, Default)]
pub struct Router {}

/// What a route matches, as configured. Empty lists match everything.
#[derive(Clone, Debug)]
pub struct Match {
    pub route: RouteId,
    pub hosts: Vec<String>,
    pub paths: Vec<String>,
}

impl Router {
    pub fn compile(matches: &[Match]) -> Result<Router, Vec<MatchError>> {
        let _ = matches;
        Ok(Router {})
    }

    /// `host` as it came, port and case included; `path` raw, without query.
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<RouteId> {
        let _ = (host, path);
        todo!()
    }
}

/// A pattern that cannot be compiled: which route, which of its lists, which entry, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchError {
    pub route: RouteId,
    pub field: &'static str,
    pub index: usize,
    pub message: String,
}
