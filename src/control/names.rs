//! Names of endpoints, kept resolved: asked on the blocking pool, refreshed when their time to
//! live is over. The last good addresses stay when a refresh fails; a name that never resolved
//! delays nothing.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use rustls_pki_types::ServerName;

use crate::control::Control;
use crate::discovery::dns::{Answer, ResolveError, Resolver};
use crate::discovery::{Change, NamedAddress, Names};
use crate::engine::{self, BlockingPool, Doorbell, Sleep};
use crate::plan::{Address, Endpoint, Plan};

pub(super) struct Watch {
    names: RefCell<Names>,
    /// For lookups alone: while no name server answers, all its threads wait.
    lookups: BlockingPool,
    pool: BlockingPool,
}

impl Watch {
    pub(super) fn start(bell: &Doorbell, plan: &Plan) -> io::Result<Watch> {
        let pool = || BlockingPool::start(bell.clone());
        let watch = Watch { names: RefCell::default(), lookups: pool()?, pool: pool()? };
        watch.want(&[plan]);
        Ok(watch)
    }

    /// The names of these plans and no others. What is known of them stays known.
    pub(super) fn want(&self, plans: &[&Plan]) {
        let wanted = plans.iter().flat_map(|plan| names_of(plan));
        self.names.borrow_mut().watch(wanted, engine::now());
    }

    /// For all other work that blocks.
    pub(super) fn pool(&self) -> &BlockingPool {
        &self.pool
    }

    pub(super) fn collect(&self) {
        self.lookups.collect();
        self.pool.collect();
    }

    pub(super) fn addresses(&self, address: &Address) -> Vec<SocketAddr> {
        match address {
            Address::Ip(address) => vec![*address],
            Address::Name(..) => named(address)
                .map_or_else(Vec::new, |name| self.names.borrow().addresses(&name).to_vec()),
        }
    }

    /// All of them have had an address at some time.
    pub(super) fn are_resolved(&self, wanted: &[NamedAddress]) -> bool {
        let names = self.names.borrow();
        wanted.iter().all(|name| !names.addresses(name).is_empty())
    }
}

/// The names that `plan` has and `before` has not.
pub(super) fn new_names(plan: &Plan, before: Option<&Plan>) -> Vec<NamedAddress> {
    let known: BTreeSet<NamedAddress> = before.into_iter().flat_map(names_of).collect();
    names_of(plan).filter(|name| !known.contains(name)).collect()
}

fn names_of(plan: &Plan) -> impl Iterator<Item = NamedAddress> {
    let endpoints = plan.clusters.iter().flat_map(|cluster| &cluster.endpoints);
    endpoints.filter_map(|endpoint| named(&endpoint.address))
}

fn named(address: &Address) -> Option<NamedAddress> {
    match address {
        Address::Ip(_) => None,
        Address::Name(name, port) => Some(NamedAddress { name: name.clone(), port: *port }),
    }
}

/// Whether these endpoints of a cluster change with that name.
pub(super) fn leads_to(endpoints: &[Endpoint], name: &NamedAddress) -> bool {
    endpoints.iter().any(|endpoint| match &endpoint.address {
        Address::Ip(_) => false,
        Address::Name(theirs, port) => (theirs, *port) == (&name.name, name.port),
    })
}

impl Control {
    /// Until a name is due. Without names that is never, and costs nothing.
    async fn names_due(&self) {
        let mut alarm: Option<std::pin::Pin<Box<Sleep>>> = None;
        std::future::poll_fn(|context| {
            let Some(due) = self.watch.names.borrow().next_due() else {
                self.poll_changed(context);
                return Poll::Pending;
            };
            let left = due.saturating_duration_since(engine::now());
            if left.is_zero() {
                return Poll::Ready(());
            }
            self.poll_changed(context);
            let alarm = alarm.insert(Box::pin(engine::sleep(left)));
            alarm.as_mut().poll(context)
        })
        .await;
    }
}

/// Asks for what is due, for ever.
pub(super) async fn keep_resolved(control: Rc<Control>) {
    loop {
        let due = control.watch.names.borrow_mut().due(engine::now());
        for name in due {
            engine::spawn(resolve(Rc::clone(&control), name));
        }
        control.names_due().await;
    }
}

async fn resolve(control: Rc<Control>, wanted: NamedAddress) {
    let lookup = |name: &str| Resolver::load().resolve(name);
    let result = ask(&control.watch.lookups, wanted.name.clone(), lookup).await;
    if let Err(error) = &result {
        log::warn!("cannot resolve {}: {error}", wanted.name);
    }
    let change = control.watch.names.borrow_mut().answer(&wanted, result, engine::now());
    match change {
        Change::Same => {}
        Change::New(addresses) => {
            log::info!("{} is at {addresses:?}", wanted.name);
            control.tell_addresses(&wanted.name, &addresses);
            control.name_changed(&wanted);
        }
    }
    control.wake(); // the next one may be due earlier now
}

/// A lookup on one of the threads for that. One that panics has failed like any other: an answer
/// that trips us up now may be another one later, and a name must never be given up on.
async fn ask(
    pool: &BlockingPool,
    name: String,
    lookup: impl FnOnce(&str) -> Result<Answer, ResolveError> + Send + 'static,
) -> Result<Answer, ResolveError> {
    let asked = name.clone();
    let result = pool.run(move || lookup(&asked)).await;
    result.unwrap_or(Err(ResolveError::Panicked { name }))
}

/// Who an endpoint is, to TLS: its name as configured, or its address.
pub(super) fn server_name(configured: &Address, address: SocketAddr) -> ServerName<'static> {
    let by_address = || ServerName::IpAddress(address.ip().into());
    match configured {
        Address::Ip(_) => by_address(),
        Address::Name(name, _) => {
            let name = name.trim_end_matches('.').to_owned();
            ServerName::try_from(name).unwrap_or_else(|_| by_address())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::Placement;
    use crate::limits;

    #[test]
    fn a_name_whose_lookup_panicked_is_asked_again_after_the_backoff() {
        let bell = Doorbell::new().expect("descriptors are left");
        let pool_bell = bell.clone();
        let main = || async move {
            let pool = Rc::new(BlockingPool::start(pool_bell).expect("threads are left"));
            let collecting = Rc::downgrade(&pool);
            engine::on_bell(move || collecting.upgrade().iter().for_each(|pool| pool.collect()));
            let (name, now) = (NamedAddress { name: "a.test".into(), port: 80 }, engine::now());
            let mut names = Names::default();
            names.watch([name.clone()], now);
            for backoff in [1, 2, 4] {
                let due = names.next_due().expect("it is not being asked");
                assert_eq!(names.due(due), std::slice::from_ref(&name));
                let result = ask(&pool, name.name.clone(), |_| panic!("on purpose")).await;
                assert!(matches!(result, Err(ResolveError::Panicked { .. })), "{result:?}");
                assert_eq!(names.answer(&name, result, due), Change::Same);
                assert_eq!(names.next_due(), Some(due + Duration::from_secs(backoff)));
            }
            let good = |_: &str| {
                Ok(Answer { addresses: vec![[10, 0, 0, 1].into()], ttl: Duration::from_secs(9) })
            };
            let result = ask(&pool, name.name.clone(), good).await;
            assert!(matches!(names.answer(&name, result, now), Change::New(_)));
        };
        let core = std::thread::spawn(|| engine::run(Placement::Anywhere, bell, main));
        core.join().expect("nothing panics beyond the lookup").expect("the core runs");
    }

    #[test]
    fn other_work_is_done_while_every_lookup_hangs() {
        let bell = Doorbell::new().expect("descriptors are left");
        let own = bell.clone();
        let main = || async move {
            let pool = || BlockingPool::start(own.clone()).expect("threads are left");
            let watch = Watch { names: RefCell::default(), lookups: pool(), pool: pool() };
            let watch = Rc::new(watch);
            let collecting = Rc::downgrade(&watch);
            engine::on_bell(move || collecting.upgrade().iter().for_each(|watch| watch.collect()));
            let (answer, answers) = crossbeam_channel::bounded::<()>(0);
            for _ in 0..2 * limits::BLOCKING_THREADS {
                let (watch, answers) = (Rc::clone(&watch), answers.clone());
                engine::spawn(async move {
                    let hang = move |name: &str| {
                        let _ = answers.recv();
                        Err(ResolveError::Panicked { name: name.to_owned() })
                    };
                    drop(ask(&watch.lookups, "a.test".to_owned(), hang).await);
                });
            }
            engine::yield_now().await;
            assert_eq!(watch.pool().run(|| 7).await, Some(7));
            drop(answer);
        };
        let core = std::thread::spawn(|| engine::run(Placement::Anywhere, bell, main));
        core.join().expect("nothing panics").expect("the core runs");
    }

    #[test]
    fn only_clusters_with_the_name_that_changed_are_told() {
        let named = |name: &str, port| Address::Name(name.to_owned(), port);
        let endpoints = |addresses: Vec<Address>| -> Vec<Endpoint> {
            addresses
                .into_iter()
                .map(|address| Endpoint { address, weight: 1, zone: None })
                .collect()
        };
        let changed = NamedAddress { name: "a.test".to_owned(), port: 80 };
        let ip = Address::Ip(SocketAddr::from(([127, 0, 0, 1], 80)));
        assert!(leads_to(&endpoints(vec![ip.clone(), named("a.test", 80)]), &changed));
        for other in [ip, named("b.test", 80), named("a.test", 81)] {
            assert!(!leads_to(&endpoints(vec![other]), &changed));
        }
    }
}
