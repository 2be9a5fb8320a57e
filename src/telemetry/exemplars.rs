//! Exemplars: for each bucket of the histograms of request durations, one exchange that was counted
//! in it and whose trace is recorded. Each data core keeps its own, the latest of each bucket, and
//! hands them over when a scraper asks; the newest of all cores is shown.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use crate::limits;

/// One exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar {
    pub trace_id: u128,
    pub micros: u64,
    pub at: SystemTime,
}

/// Whose durations a histogram has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Process,
    Listener(String),
    Route(String),
    Cluster(String),
    Endpoint(String, SocketAddr),
}

impl Subject {
    /// What the labels of a series name.
    pub(crate) fn of(labels: &[(&'static str, String)]) -> Option<Subject> {
        match labels {
            [] => Some(Subject::Process),
            [("listener", name)] => Some(Subject::Listener(name.clone())),
            [("route", name)] => Some(Subject::Route(name.clone())),
            [("cluster", name)] => Some(Subject::Cluster(name.clone())),
            [("cluster", name), ("endpoint", address)] => {
                Some(Subject::Endpoint(name.clone(), address.parse().ok()?))
            }
            _ => None,
        }
    }
}

/// Those of one histogram, by bucket.
pub type Buckets = [Option<Exemplar>; limits::METRICS_BUCKETS_MAX + 1];

/// What one data core keeps.
#[derive(Debug, Default)]
pub(crate) struct Kept(RefCell<HashMap<Subject, Buckets>>);

impl Kept {
    /// Takes the place of the one before in its bucket.
    pub(crate) fn keep(&self, subject: Subject, bucket: usize, exemplar: Exemplar) {
        let mut kept = self.0.borrow_mut();
        if kept.len() >= limits::EXEMPLAR_HISTOGRAMS_MAX && !kept.contains_key(&subject) {
            return;
        }
        kept.entry(subject).or_default()[bucket] = Some(exemplar);
    }

    /// All but those that every scraper has seen by now: these make room.
    pub(crate) fn list(&self, now: SystemTime) -> Vec<(Subject, Buckets)> {
        let mut kept = self.0.borrow_mut();
        let is_old = |exemplar: &Exemplar| {
            now.duration_since(exemplar.at).is_ok_and(|age| age > limits::EXEMPLAR_AGE_MAX)
        };
        kept.retain(|_, buckets| {
            buckets.iter_mut().for_each(|bucket| *bucket = bucket.filter(|one| !is_old(one)));
            buckets.iter().any(Option::is_some)
        });
        kept.iter().map(|(subject, buckets)| (subject.clone(), *buckets)).collect()
    }

    /// Names may have gone with the plan before, and exemplars be wanted no more.
    pub(crate) fn forget(&self) {
        *self.0.borrow_mut() = HashMap::new();
    }
}

/// What all cores have handed over.
#[derive(Debug, Default)]
pub(crate) struct Gathered(HashMap<Subject, Buckets>);

impl Gathered {
    pub(crate) fn add(&mut self, of_core: Vec<(Subject, Buckets)>) {
        for (subject, buckets) in of_core {
            let all = self.0.entry(subject).or_default();
            for (newest, one) in all.iter_mut().zip(buckets) {
                let time = |exemplar: Option<Exemplar>| exemplar.map(|exemplar| exemplar.at);
                if time(one) > time(*newest) {
                    *newest = one;
                }
            }
        }
    }

    /// Of the series with these labels.
    pub(crate) fn of(&self, labels: &[(&'static str, String)]) -> &[Option<Exemplar>] {
        if self.0.is_empty() {
            return &[];
        }
        let found = Subject::of(labels).and_then(|subject| self.0.get(&subject));
        found.map_or(&[], |buckets| buckets)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn exemplar(trace_id: u128, seconds: u64) -> Exemplar {
        let at = UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds);
        Exemplar { trace_id, micros: 1, at }
    }

    fn ids(buckets: &[Option<Exemplar>]) -> Vec<u128> {
        buckets.iter().flatten().map(|exemplar| exemplar.trace_id).collect()
    }

    #[test]
    fn the_newest_of_all_cores_is_shown_in_each_bucket() {
        let cores = [Kept::default(), Kept::default()];
        let route = || Subject::Route("orders".to_owned());
        cores[0].keep(route(), 0, exemplar(1, 1));
        cores[0].keep(route(), 0, exemplar(2, 2));
        cores[0].keep(route(), 3, exemplar(3, 9));
        cores[1].keep(route(), 0, exemplar(4, 3));
        cores[1].keep(route(), 3, exemplar(5, 8));
        cores[1].keep(Subject::Process, 1, exemplar(6, 1));
        let mut gathered = Gathered::default();
        cores.iter().for_each(|kept| gathered.add(kept.list(exemplar(0, 10).at)));
        assert_eq!(ids(gathered.of(&[("route", "orders".to_owned())])), [4, 3]);
        assert_eq!(ids(gathered.of(&[])), [6]);
        assert_eq!(ids(gathered.of(&[("route", "other".to_owned())])), [0; 0]);
        assert_eq!(ids(gathered.of(&[("cluster", "orders".to_owned())])), [0; 0]);
    }

    #[test]
    fn a_core_keeps_few_histograms_and_old_ones_make_room() {
        let kept = Kept::default();
        let subject = |n: usize| Subject::Route(n.to_string());
        let most = limits::EXEMPLAR_HISTOGRAMS_MAX;
        (0..=most).for_each(|n| kept.keep(subject(n), 0, exemplar(n as u128, 0)));
        kept.keep(subject(0), 1, exemplar(7, 1));
        let soon = exemplar(0, 2).at;
        assert_eq!(kept.list(soon).len(), most);
        let later = soon + limits::EXEMPLAR_AGE_MAX;
        assert_eq!(kept.list(later), []);
        kept.keep(subject(most), 0, exemplar(8, 500));
        assert_eq!(kept.list(later).len(), 1);
        kept.forget();
        assert_eq!(kept.list(later), []);
    }

    #[test]
    fn labels_name_their_subject() {
        let endpoint = |address: &str| {
            Subject::of(&[("cluster", "a".to_owned()), ("endpoint", address.to_owned())])
        };
        let address = "[::1]:80".parse().unwrap();
        assert_eq!(endpoint("[::1]:80"), Some(Subject::Endpoint("a".to_owned(), address)));
        assert_eq!(endpoint("other"), None);
        assert_eq!(Subject::of(&[("core", "0".to_owned())]), None);
    }
}
