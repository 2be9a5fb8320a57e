//! The pages that orchestrators and balancers ask: is it alive, is it ready, has it started. The
//! control core decides; data cores answer from what it told them last.

use std::time::SystemTime;

use crate::telemetry::{json, timestamp};

/// What the control core knows of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// New clients may be sent here.
    pub ready: bool,
    /// Members of `checks`, as JSON. Empty: not for everybody, and not shown.
    pub checks: Vec<u8>,
    /// Services of gRPC that no cluster of theirs has an address for that takes calls.
    pub unserved: Vec<Box<[u8]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Readiness under the name that most people try first.
    Summary,
    Liveness,
    Readiness,
    Startup,
}

impl Page {
    /// The page of exactly this path.
    pub fn find(path: &[u8]) -> Option<Page> {
        match path.strip_prefix(b"/health")? {
            b"" => Some(Page::Summary),
            b"/liveness" => Some(Page::Liveness),
            b"/readiness" => Some(Page::Readiness),
            b"/startup" => Some(Page::Startup),
            _ => None,
        }
    }

    /// Status and body.
    pub fn answer(self, health: &Health, at: SystemTime) -> (u16, Vec<u8>) {
        let (good, word) = match self {
            Page::Liveness => (true, "ok"),
            // Nobody is answered before the first configuration is on every core.
            Page::Startup => (true, "started"),
            Page::Summary | Page::Readiness if health.ready => (true, "ready"),
            Page::Summary | Page::Readiness => (false, "not_ready"),
        };
        let mut body = b"{\"status\":".to_vec();
        json::string(word.as_bytes(), &mut body);
        body.extend_from_slice(b",\"timestamp\":\"");
        timestamp::iso(at, &mut body);
        body.push(b'"');
        if matches!(self, Page::Summary | Page::Readiness) && !health.checks.is_empty() {
            body.extend_from_slice(b",\"checks\":{");
            body.extend_from_slice(&health.checks);
            body.push(b'}');
        }
        body.extend_from_slice(b"}\n");
        (if good { GOOD } else { BAD }, body)
    }
}

const GOOD: u16 = 200;
/// Temporary by its meaning: probes ask again.
pub const BAD: u16 = 503;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn paths_are_matched_exactly() {
        assert_eq!(Page::find(b"/health"), Some(Page::Summary));
        assert_eq!(Page::find(b"/health/liveness"), Some(Page::Liveness));
        for other in ["/", "/health/", "/healthz", "/health/live", "/health/liveness/", "/Health"] {
            assert_eq!(Page::find(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_process_that_is_not_ready_is_alive_all_the_same() {
        let checks = b"\"config\":\"ok\"".to_vec();
        let health = Health { checks, ..Health::default() };
        let answer = |page: Page| page.answer(&health, UNIX_EPOCH);
        for page in [Page::Liveness, Page::Startup] {
            assert_eq!(answer(page).0, GOOD, "{page:?}");
        }
        for page in [Page::Summary, Page::Readiness] {
            assert_eq!(answer(page).0, BAD, "{page:?}");
        }
        let text = String::from_utf8(answer(Page::Readiness).1).unwrap();
        let expected = "{\"status\":\"not_ready\",\"timestamp\":\"1970-01-01T00:00:00.000Z\",\
                        \"checks\":{\"config\":\"ok\"}}\n";
        assert_eq!(text, expected);
    }
}
