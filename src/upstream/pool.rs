//! One core's connections to the endpoints of one cluster. The maximum per endpoint is the whole
//! process's (`Permits`): a core that finds it reached waits in a bounded queue and asks the
//! others to close an idle connection; whoever frees a slot tells a core that waits.

use std::cell::{Cell, Ref, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use crate::control::message::{ClusterShare, EndpointShare, EndpointState, ToShard};
use crate::control::overrides::Admission;
use crate::engine::{self, Level, Shared};
use crate::exchange::failure::Failure;
use crate::limits;
use crate::plan::{ClusterKey, PoolLimits};
use crate::shard::mail::Mail;
use crate::shard::series::ClusterCells;
use crate::tls::stream::Stream;
use crate::upstream::connect::{Connector, Greet, NotConnected, Patience, Speaks};
use crate::upstream::endpoints::{Endpoint, Endpoints, Kept};
use crate::upstream::lease::{Lease, Slot, close};
use crate::upstream::multiplex::{Joined, Shared as OnShared, Trunk};
use crate::upstream::queue::Waiter;

/// A cluster as one core sees it.
pub(crate) struct Cluster {
    key: ClusterKey,
    /// Of the newest generation.
    pub(super) limits: Cell<PoolLimits>,
    pub(super) mail: Rc<Mail>,
    pub(super) endpoints: RefCell<Endpoints>,
    /// No longer in the cluster, but with connections that exchanges still use.
    leaving: RefCell<Vec<Rc<Endpoint>>>,
    pub(super) waiters: RefCell<VecDeque<Rc<Waiter>>>,
    /// Of the whole process.
    pub(super) waiting: Shared<Level>,
    /// Of the newest generation, and of the newest files that it names.
    pub(super) connector: RefCell<Rc<Connector>>,
    /// Of its name in the newest generation.
    pub(super) series: RefCell<Shared<ClusterCells>>,
    /// When this core last gave a slot away although it had waiters of its own.
    yielded: Cell<Option<Instant>>,
}

/// Whether a kept connection will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Any,
    New,
    /// Any that can become a tunnel: on HTTP/2 an endpoint has to know of them.
    Tunnel,
    NewTunnel,
    /// New, and as it is: TLS is the affair of whoever uses it.
    Bare,
}

impl Wanted {
    pub(crate) fn may_be_kept(self) -> bool {
        matches!(self, Wanted::Any | Wanted::Tunnel)
    }

    pub(super) fn is_tunnel(self) -> bool {
        matches!(self, Wanted::Tunnel | Wanted::NewTunnel)
    }

    /// The same, but no kept one.
    pub(crate) fn anew(self) -> Wanted {
        match self {
            Wanted::Any | Wanted::New => Wanted::New,
            Wanted::Tunnel | Wanted::NewTunnel => Wanted::NewTunnel,
            Wanted::Bare => Wanted::Bare,
        }
    }

    /// What is no good to it may be good to others.
    pub(super) fn is_picky(self, refused: &[SocketAddr]) -> bool {
        !refused.is_empty() || self.is_tunnel()
    }
}

/// How far it has come on the way to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There is one, or the right to make it.
    Admitted,
    /// TCP is up, and TLS begins.
    Connected,
}

pub(super) enum Choice {
    /// A kept connection, or a seat on one that is shared.
    Leased(Lease),
    /// One that may have a seat once it is open.
    Opening(Rc<Trunk>),
    Open(Slot),
    Full,
    None,
}

impl Cluster {
    pub(crate) fn new(limits: PoolLimits, share: ClusterShare, mail: Rc<Mail>) -> Rc<Cluster> {
        Rc::new(Cluster {
            key: share.key,
            limits: Cell::new(limits),
            endpoints: RefCell::new(Endpoints::new(share.endpoints, &[], mail.core())),
            leaving: RefCell::default(),
            mail,
            waiters: RefCell::default(),
            waiting: share.waiting,
            connector: RefCell::default(),
            series: RefCell::new(share.series),
            yielded: Cell::new(None),
        })
    }

    /// The cluster of a new generation: connections, waiting exchanges and the turn among its
    /// endpoints go on.
    pub(crate) fn reconfigure(&self, limits: PoolLimits, share: ClusterShare) {
        self.limits.set(limits);
        self.count_in(share.series);
        self.replace_endpoints(share.endpoints);
    }

    /// From now on connections begin like this. Those that began otherwise are for nobody any more;
    /// what began like this has sessions to go on with, and stays.
    pub(crate) fn connect_by(&self, connector: Connector) {
        if self.connector.borrow().is_like(&connector) {
            return;
        }
        self.connector.replace(Rc::new(connector));
        self.close_kept();
    }

    /// Closes what is kept; what is in use ends with its exchanges.
    pub(crate) fn close_kept(&self) {
        let endpoints: Vec<_> = self.endpoints.borrow().list.iter().map(Rc::clone).collect();
        endpoints.iter().for_each(|endpoint| self.close_idle(endpoint, usize::MAX));
    }

    /// Whether there are connections that several exchanges may share.
    pub(crate) fn has_trunks(&self) -> bool {
        self.endpoints.borrow().list.iter().any(|endpoint| endpoint.has_trunks())
    }

    /// From now on its numbers are these: it has cells of its own now, or none any more. What is
    /// open or waits moves with it.
    fn count_in(&self, series: Shared<ClusterCells>) {
        if self.series.borrow().is_same(&series) {
            return;
        }
        let (open, waiting) = (self.open_connections(), self.waiters.borrow().len() as u64);
        series.open.add(open);
        series.waiting.add(waiting);
        let old = self.series.replace(series);
        old.open.sub(open);
        old.waiting.sub(waiting);
    }

    pub(crate) fn series(&self) -> Ref<'_, Shared<ClusterCells>> {
        self.series.borrow()
    }

    /// No generation to come has it: what is idle is closed, the rest when its exchange ends.
    pub(crate) fn retire(&self) {
        let endpoints: Vec<_> = self.endpoints.borrow().list.iter().map(Rc::clone).collect();
        for endpoint in endpoints {
            endpoint.removed.set(true);
            self.close_idle(&endpoint, usize::MAX);
        }
    }

    /// Takes over new addresses; connections to those that stay are kept.
    pub(crate) fn replace_endpoints(&self, shares: Vec<EndpointShare>) {
        if self.endpoints.borrow().are(&shares) {
            // Nothing moved but perhaps a maximum.
            return self.close_surplus();
        }
        // An address may leave and come back: what this core wants of it must not outlast the list.
        self.ask_no_more();
        let old = std::mem::take(&mut self.endpoints.borrow_mut().list);
        let next = self.endpoints.borrow().turn.position();
        let new = Endpoints::new(shares, &old, next);
        let dropped: Vec<_> =
            old.into_iter().filter(|o| !new.list.iter().any(|n| Rc::ptr_eq(n, o))).collect();
        *self.endpoints.borrow_mut() = new;
        for endpoint in dropped {
            endpoint.removed.set(true);
            self.close_idle(&endpoint, usize::MAX);
            if endpoint.open.get() > 0 {
                self.leaving.borrow_mut().push(endpoint);
            }
        }
        if !self.waiters.borrow().is_empty() {
            self.ask_others();
        }
        // After asking: a slot given back before that was announced to nobody.
        self.wake_first();
        self.close_surplus();
    }

    /// A maximum that was lowered: idle connections beyond it go first. In maintenance all do.
    fn close_surplus(&self) {
        let endpoints: Vec<_> = self.endpoints.borrow().list.iter().map(Rc::clone).collect();
        for endpoint in endpoints {
            if endpoint.admission.get() == Admission::Maintenance {
                self.close_idle(&endpoint, usize::MAX);
            }
            while endpoint.is_beyond() && !endpoint.idle.borrow().is_empty() {
                self.close_idle(&endpoint, 1);
            }
            if endpoint.is_beyond() {
                endpoint.give_way(engine::now());
            }
        }
        // And one that was raised has room.
        self.wake_first();
    }

    /// A connection to an endpoint: a kept one, a new one, or the first that becomes free in time.
    /// `refused` are the endpoints that this exchange could not connect to: others are tried.
    pub(crate) async fn acquire(
        self: &Rc<Self>,
        wanted: Wanted,
        refused: &[SocketAddr],
        (patience, greet): (Patience, Greet<'_>),
        mut told: impl FnMut(Stage, Instant),
    ) -> Result<Lease, (NotConnected, Option<SocketAddr>)> {
        loop {
            let greets = self.connector.borrow().greets.is_some();
            let wanted = if greets { wanted.anew() } else { wanted };
            let choice = self.choose_or_wait(wanted, refused).await;
            let choice = choice.map_err(|failure| (failure.into(), None))?;
            told(Stage::Admitted, engine::now());
            // Who has waited begins as connections begin by now.
            let connector = Rc::clone(&self.connector.borrow());
            let shares = wanted != Wanted::Bare && connector.speaks() != Some(Speaks::Http1);
            let greeting = || connector.greets.map(greet);
            let trunk = match choice {
                Choice::Leased(lease) => {
                    let Some(lease) = self.suits(lease, wanted)? else { continue };
                    self.series.borrow().reused.add(1);
                    return Ok(lease);
                }
                Choice::Open(slot) if shares && !slot.endpoint.needs_http1(wanted, &connector) => {
                    let greeting = greeting();
                    Trunk::open(slot, connector, greeting, patience)
                }
                Choice::Open(slot) => {
                    let address = slot.endpoint.address;
                    let name = (wanted != Wanted::Bare).then_some(&slot.endpoint.name);
                    let shakes = |now| told(Stage::Connected, now);
                    let greeting = greeting();
                    let (greeting, timeout) = (greeting.as_deref(), patience.connect);
                    let by = match shares {
                        true => Rc::new(connector.for_http1()),
                        false => Rc::clone(&connector),
                    };
                    let connected = by.connect(address, name, greeting, timeout, shakes);
                    return match connected.await {
                        Ok(connected) => {
                            self.series.borrow().opened.add(1);
                            let connector = (wanted != Wanted::Bare).then_some(connector);
                            Ok(Lease::of_stream(connected.stream, connector, slot, false))
                        }
                        Err(not) => {
                            slot.endpoint.series().connect_failures.add(1);
                            Err(slot.endpoint.refuses(not))
                        }
                    };
                }
                Choice::Opening(trunk) => trunk,
                Choice::None | Choice::Full => return Err((self.nobody().into(), None)),
            };
            match trunk.opened(|at| told(Stage::Connected, at)).await {
                Joined::Seat(seat) => {
                    if let Some(lease) = Lease::of_seat(seat, false)
                        && let Some(lease) = self.suits(lease, wanted)?
                    {
                        return Ok(lease);
                    }
                }
                Joined::Http1(lease) => return Ok(lease),
                Joined::Failed(not) => return Err(trunk.endpoint.refuses(not)),
                Joined::Again => {}
            }
        }
    }

    /// `None`: the next choice is a better one, now that more is known of the endpoint.
    fn suits(
        &self,
        lease: Lease,
        wanted: Wanted,
    ) -> Result<Option<Lease>, (NotConnected, Option<SocketAddr>)> {
        if !wanted.is_tunnel() || lease.may_be_tunnel() {
            return Ok(Some(lease));
        }
        let endpoint = lease.endpoint();
        endpoint.takes_tunnels.set(Some(false));
        if endpoint.needs_http1(wanted, &self.connector.borrow()) {
            return Ok(None);
        }
        // That it is asked for too much is not a failure of it: it counts for nothing there.
        let detail = "its HTTP/2 SETTINGS have no ENABLE_CONNECT_PROTOCOL, which WebSockets and \
                      other upgrades need there (RFC 8441): expected protocol = \"h1\", or \
                      \"auto\" and TLS";
        let failure = Failure::UpstreamNoTunnel;
        Err((NotConnected { failure, detail: Some(detail.to_owned()) }, Some(lease.address())))
    }

    async fn choose_or_wait(
        self: &Rc<Self>,
        wanted: Wanted,
        refused: &[SocketAddr],
    ) -> Result<Choice, Failure> {
        if self.waiters.borrow().is_empty() {
            match self.choose(wanted, refused) {
                Choice::Full => {}
                choice @ (Choice::Leased(_)
                | Choice::Opening(_)
                | Choice::Open(_)
                | Choice::None) => return Ok(choice),
            }
        }
        self.wait(wanted, refused).await
    }

    /// Whether requests could go elsewhere than to these.
    pub(crate) fn has_another(&self, refused: &[SocketAddr]) -> bool {
        self.endpoints.borrow().has_another(refused)
    }

    fn nobody(&self) -> Failure {
        let endpoints = self.endpoints.borrow();
        if endpoints.list.is_empty() {
            Failure::EndpointUnresolved
        } else if endpoints.are_drained() {
            Failure::EndpointsDrained
        } else {
            Failure::NoEndpoint
        }
    }

    pub(super) fn choose(self: &Rc<Self>, wanted: Wanted, refused: &[SocketAddr]) -> Choice {
        let mut endpoints = self.endpoints.borrow_mut();
        let Endpoints { list, weights, turn } = &mut *endpoints;
        let now = engine::now();
        let eligible = |index: usize| {
            !refused.contains(&list[index].address) && self.has_room(&list[index], wanted, now)
        };
        let Some(index) = turn.pick(weights, eligible) else {
            return if endpoints.has_another(refused) { Choice::Full } else { Choice::None };
        };
        let endpoint = Rc::clone(&list[index]);
        drop(endpoints);
        if wanted != Wanted::Bare && !endpoint.needs_http1(wanted, &self.connector.borrow()) {
            // A new one is as good as any: those that have died are not among them.
            match endpoint.shared(now) {
                Some(OnShared::Seat(seat)) => {
                    if let Some(lease) = Lease::of_seat(seat, true) {
                        return Choice::Leased(lease);
                    }
                }
                Some(OnShared::Opening(trunk)) => return Choice::Opening(trunk),
                None => {}
            }
        }
        if wanted.may_be_kept()
            && let Some(stream) = self.take_idle(&endpoint)
        {
            let slot = Slot { cluster: Rc::clone(self), endpoint, held: true };
            let connector = Some(Rc::clone(&self.connector.borrow()));
            return Choice::Leased(Lease::of_stream(stream, connector, slot, true));
        }
        let mut taken = endpoint.try_take();
        if !taken && wanted != Wanted::Any {
            // At the maximum, a kept connection makes room.
            self.close_idle(&endpoint, 1);
            taken = endpoint.try_take();
        }
        if !taken {
            return Choice::Full;
        }
        endpoint.open.set(endpoint.open.get() + 1);
        endpoint.series().open.add(1);
        self.series.borrow().open.add(1);
        Choice::Open(Slot { cluster: Rc::clone(self), endpoint, held: true })
    }

    fn has_room(&self, endpoint: &Endpoint, wanted: Wanted, now: Instant) -> bool {
        let permits = endpoint.permits.borrow();
        let Some(permits) = permits.as_ref() else { return true };
        !endpoint.idle.borrow().is_empty()
            || permits.has_room()
            || match endpoint.needs_http1(wanted, &self.connector.borrow()) {
                false => endpoint.may_share(now),
                // It makes room for one.
                true => endpoint.idle_trunks() > 0,
            }
    }

    /// Tells the process that exchanges wait here, and asks the other cores for a slot.
    pub(super) fn ask_others(&self) {
        for endpoint in &self.endpoints.borrow().list {
            endpoint.want(self.mail.core(), true);
        }
        self.mail.to_all_others(|| ToShard::Recall(self.key));
    }

    pub(super) fn ask_no_more(&self) {
        for endpoint in &self.endpoints.borrow().list {
            endpoint.want(self.mail.core(), false);
        }
    }

    /// Another core waits: close what is idle here and at its maximum.
    pub(crate) fn recall(&self) {
        let endpoints: Vec<_> = self.endpoints.borrow().list.iter().map(Rc::clone).collect();
        for endpoint in endpoints {
            if self.is_wanted(&endpoint) {
                self.close_idle(&endpoint, 1);
                endpoint.give_way(engine::now());
            }
        }
    }

    /// The connection used last: it is warm, and the others may grow old and be closed.
    fn take_idle(&self, endpoint: &Endpoint) -> Option<Stream> {
        let now = engine::now();
        loop {
            let kept = endpoint.idle.borrow_mut().pop()?;
            if kept.is_usable(now) {
                return Some(kept.stream);
            }
            close(kept.stream);
            self.give_slot(endpoint);
        }
    }

    /// Those kept longest first: they are the coldest, and the next to be closed anyway.
    fn close_idle(&self, endpoint: &Rc<Endpoint>, most: usize) {
        let idle = endpoint.idle.borrow().len();
        if most > idle {
            endpoint.close_trunks(if most == usize::MAX { most } else { most - idle });
        }
        let count = most.min(idle);
        let oldest: Vec<Kept> = endpoint.idle.borrow_mut().drain(..count).collect();
        for kept in oldest {
            close(kept.stream);
            self.give_slot(endpoint);
        }
    }

    /// A connection of `endpoint` is closed: its slot goes back to the process, and to who waits.
    pub(super) fn give_slot(&self, endpoint: &Endpoint) {
        endpoint.open.set(endpoint.open.get() - 1);
        endpoint.series().open.sub(1);
        self.series.borrow().open.sub(1);
        if endpoint.removed.get() {
            self.leaving.borrow_mut().retain(|leaving| leaving.open.get() > 0);
        }
        match endpoint.permits.borrow().as_ref() {
            Some(permits) => permits.give(),
            None => return,
        }
        if let Some(core) = endpoint.wanted_by_another(self.mail.core()) {
            self.mail.to(core, ToShard::SlotFree(self.key));
        }
        self.wake_first();
    }

    /// Whether a connection that has become free should rather be closed for another core that
    /// waits. With waiters here too, that is done at most every few milliseconds: connections must
    /// not be closed and opened for each request, and no core may starve.
    pub(super) fn owes_others(&self, endpoint: &Endpoint, now: Instant) -> bool {
        let wanted = self.is_wanted(endpoint);
        if !wanted || self.waiters.borrow().is_empty() {
            return wanted;
        }
        let due = self.yielded.get().is_none_or(|last| now - last >= limits::SLOT_YIELD_INTERVAL);
        if due {
            self.yielded.set(Some(now));
        }
        due
    }

    pub(super) fn is_wanted(&self, endpoint: &Endpoint) -> bool {
        endpoint.wanted_by_another(self.mail.core()).is_some()
    }

    /// Another core has given a slot back and told us, because somebody waited here.
    pub(crate) fn slot_free(&self) {
        if self.waiters.borrow().is_empty() {
            self.ask_no_more();
        }
        self.wake_first();
        self.pass_on();
    }

    /// Nobody waits here any more, but a slot is free and others wait: this core may be the only
    /// one that was told of it.
    pub(super) fn pass_on(&self) {
        if !self.waiters.borrow().is_empty() {
            return;
        }
        for endpoint in &self.endpoints.borrow().list {
            if endpoint.permits.borrow().as_ref().is_some_and(|permits| permits.has_room())
                && let Some(core) = endpoint.wanted_by_another(self.mail.core())
            {
                self.mail.to(core, ToShard::SlotFree(self.key));
            }
        }
    }

    /// Closes idle connections whose time is over or whose peer has closed. Once a second.
    pub(crate) fn sweep(&self, now: Instant) {
        let endpoints: Vec<_> = self.endpoints.borrow().list.iter().map(Rc::clone).collect();
        for endpoint in endpoints {
            let stale: Vec<Kept> =
                endpoint.idle.borrow_mut().extract_if(.., |kept| !kept.is_usable(now)).collect();
            for kept in stale {
                close(kept.stream);
                self.give_slot(&endpoint);
            }
            endpoint.sweep_trunks(now, self.limits.get().idle_timeout);
        }
    }

    pub(crate) fn endpoint_states(&self) -> Vec<EndpointState> {
        let endpoints = self.endpoints.borrow();
        let state = |endpoint: &Rc<Endpoint>| EndpointState {
            address: endpoint.address,
            open: u64::from(endpoint.open.get()),
            idle: (endpoint.idle.borrow().len() + endpoint.idle_trunks()) as u64,
            tallied: endpoint.tally.read(),
        };
        endpoints.list.iter().map(state).collect()
    }

    pub(crate) fn key(&self) -> ClusterKey {
        self.key
    }

    pub(crate) fn open_connections(&self) -> u64 {
        let (endpoints, leaving) = (self.endpoints.borrow(), self.leaving.borrow());
        let all = endpoints.list.iter().chain(leaving.iter());
        all.map(|endpoint| u64::from(endpoint.open.get())).sum()
    }
}

impl Drop for Cluster {
    /// The last exchange of a generation that had it has ended: slots of the process go back.
    fn drop(&mut self) {
        self.retire();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::engine::{Doorbell, Inbox, Permits, Placement, Socket, mailbox};
    use crate::shard::series::EndpointCells;
    use crate::upstream::queue::Place;

    /// Runs `main` as a core of its own: the pool needs a clock and timers.
    fn on_a_core<F: Future<Output = ()> + 'static>(main: impl FnOnce() -> F + Send + 'static) {
        let core = std::thread::spawn(move || {
            engine::run(Placement::Anywhere, Doorbell::new().unwrap(), main).unwrap();
        });
        core.join().expect("the test's core ends cleanly");
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn share(port: u16, permits: Option<&Shared<Permits>>) -> EndpointShare {
        EndpointShare {
            name: rustls_pki_types::ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
            address: address(port),
            weight: 1,
            admission: Admission::Ready,
            permits: permits.map(Shared::share),
            series: Shared::new(EndpointCells::default()),
        }
    }

    /// One slot, of two cores.
    fn one_slot() -> Shared<Permits> {
        Shared::new(Permits::new(1, 2))
    }

    /// The cluster of core 0, and the letters that core 1 and the control core get.
    fn cluster(
        endpoints: Vec<EndpointShare>,
        queue_max: u32,
    ) -> (Rc<Cluster>, Inbox<ToShard>, Inbox<crate::control::message::ToControl>) {
        let (to_other, other) = mailbox(Doorbell::new().unwrap());
        let (to_control, control) = mailbox(Doorbell::new().unwrap());
        let mail = Rc::new(Mail::new(0, vec![None, Some(to_other)], to_control));
        let second = Duration::from_secs(1);
        let limits = PoolLimits {
            connections_max: Some(1),
            queue_max,
            queue_timeout: 30 * second,
            idle_timeout: 60 * second,
        };
        let share = ClusterShare {
            key: ClusterKey(0),
            waiting: Shared::new(Level::default()),
            series: Shared::new(ClusterCells::default()),
            endpoints,
        };
        (Cluster::new(limits, share, mail), other, control)
    }

    #[test]
    fn who_waits_wants_the_new_endpoints_and_the_old_ones_no_more() {
        on_a_core(async || {
            let (old, new) = (one_slot(), one_slot());
            let (cluster, _other, _control) = cluster(vec![share(1, Some(&old))], 9);
            let place = Place::take(&cluster).unwrap();
            assert_eq!(old.wanted_by_another(1), Some(0));
            cluster.replace_endpoints(vec![share(2, Some(&new))]);
            assert_eq!(old.wanted_by_another(1), None);
            assert_eq!(new.wanted_by_another(1), Some(0));
            drop(place);
            assert_eq!(new.wanted_by_another(1), None);
        });
    }

    #[test]
    fn a_connection_to_an_endpoint_that_was_removed_is_counted_until_it_closes() {
        on_a_core(async || {
            let permits = one_slot();
            let (cluster, _other, _control) = cluster(vec![share(1, Some(&permits))], 9);
            let in_use = cluster.choose(Wanted::Any, &[]);
            assert_eq!(cluster.open_connections(), 1);
            cluster.replace_endpoints(vec![share(2, None)]);
            assert_eq!(cluster.open_connections(), 1);
            // The address comes back: it is another endpoint with the same slots.
            cluster.replace_endpoints(vec![share(1, Some(&permits))]);
            assert_eq!(cluster.open_connections(), 1);
            assert!(matches!(cluster.choose(Wanted::Any, &[]), Choice::Full));
            drop(in_use);
            assert_eq!(cluster.open_connections(), 0);
            assert!(cluster.leaving.borrow().is_empty());
            assert!(matches!(cluster.choose(Wanted::Any, &[]), Choice::Open(_)));
        });
    }

    #[test]
    fn what_is_open_or_waits_moves_with_the_cells() {
        on_a_core(async || {
            let permits = one_slot();
            let (cluster, _other, _control) = cluster(vec![share(1, Some(&permits))], 9);
            let in_use = cluster.choose(Wanted::Any, &[]);
            let place = Place::take(&cluster).unwrap();
            let (key, series) = (cluster.key(), Shared::new(ClusterCells::default()));
            let old = cluster.series().share();
            let endpoint = share(1, Some(&permits));
            let own = endpoint.series.share();
            let (waiting, endpoints) = (Shared::new(Level::default()), vec![endpoint]);
            let next = ClusterShare { key, waiting, series: series.share(), endpoints };
            cluster.reconfigure(cluster.limits.get(), next);
            assert_eq!((old.open.read(), old.waiting.read()), (0, 0));
            assert_eq!((series.open.read(), series.waiting.read(), own.open.read()), (1, 1, 1));
            drop((in_use, place));
            assert_eq!((series.open.read(), series.waiting.read(), own.open.read()), (0, 0, 0));
        });
    }

    #[test]
    fn a_core_that_is_told_of_a_slot_and_has_no_use_for_it_wants_it_no_more() {
        on_a_core(async || {
            let permits = one_slot();
            let (cluster, _other, _control) = cluster(vec![share(1, Some(&permits))], 9);
            permits.want(0, true);
            cluster.slot_free();
            assert_eq!(permits.wanted_by_another(1), None);
        });
    }

    #[test]
    fn the_maximum_of_those_who_wait_is_exact() {
        on_a_core(async || {
            let permits = one_slot();
            let (cluster, _other, _control) = cluster(vec![share(1, Some(&permits))], 2);
            let (first, second) = (Place::take(&cluster), Place::take(&cluster));
            assert!(first.is_some() && second.is_some());
            assert!(Place::take(&cluster).is_none());
            assert_eq!(cluster.waiting.read(), 2, "a refusal is taken back");
            drop(first);
            assert!(Place::take(&cluster).is_some());
        });
    }

    #[test]
    fn who_cannot_use_what_is_free_lets_the_next_look() {
        on_a_core(async || {
            let (dead, alive) = (one_slot(), one_slot());
            let shares = vec![share(1, Some(&dead)), share(2, Some(&alive))];
            let (cluster, _other, _control) = cluster(shares, 9);
            assert!(dead.try_take() && alive.try_take());
            let (first, second) = (Place::take(&cluster).unwrap(), Place::take(&cluster).unwrap());
            let context = Context::from_waker(Waker::noop());
            let refused = [address(1)];
            assert!(first.poll(&context, Wanted::Any, &refused).is_pending());
            assert!(second.poll(&context, Wanted::Any, &[]).is_pending());
            dead.give();
            assert!(second.poll(&context, Wanted::Any, &[]).is_pending(), "not its turn");
            assert!(first.poll(&context, Wanted::Any, &refused).is_pending());
            let choice = second.poll(&context, Wanted::Any, &[]);
            assert!(matches!(choice, Poll::Ready(Choice::Open(_))));
            drop((second, choice));
            // And so does one that comes later, without a word from anybody.
            let third = Place::take(&cluster).unwrap();
            let choice = third.poll(&context, Wanted::Any, &[]);
            assert!(matches!(choice, Poll::Ready(Choice::Open(_))));
        });
    }

    #[test]
    fn a_slot_that_nobody_told_of_is_found() {
        on_a_core(async || {
            let permits = one_slot();
            let (cluster, _other, _control) = cluster(vec![share(1, Some(&permits))], 9);
            assert!(permits.try_take());
            let mut waiting = std::pin::pin!(cluster.wait(Wanted::Any, &[]));
            let mut first_look = true;
            let choice = std::future::poll_fn(|context| {
                let polled = waiting.as_mut().poll(context);
                if std::mem::take(&mut first_look) {
                    assert!(polled.is_pending());
                    permits.give();
                }
                polled
            });
            assert!(matches!(choice.await, Ok(Choice::Open(_))));
        });
    }

    /// A kept connection, and the peer's end.
    fn keep(cluster: &Rc<Cluster>, listener: &std::net::TcpListener) -> std::net::TcpStream {
        let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        ours.set_nonblocking(true).unwrap();
        let endpoint = Rc::clone(&cluster.endpoints.borrow().list[0]);
        assert!(endpoint.try_take());
        endpoint.open.set(endpoint.open.get() + 1);
        endpoint.series().open.add(1);
        let until = engine::now() + Duration::from_secs(60);
        endpoint
            .idle
            .borrow_mut()
            .push(Kept { stream: Stream::plain(Socket::adopt(ours.into())), until });
        listener.accept().unwrap().0
    }

    #[test]
    fn a_new_connection_costs_a_kept_one_only_at_the_maximum_and_then_the_oldest() {
        on_a_core(async || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let permits = Shared::new(Permits::new(3, 2));
            let (cluster, _other, _control) = cluster(vec![share(1, Some(&permits))], 9);
            let (mut oldest, newest) = (keep(&cluster, &listener), keep(&cluster, &listener));
            let idle = || cluster.endpoints.borrow().list[0].idle.borrow().len();
            let third = cluster.choose(Wanted::New, &[]);
            assert!(matches!(third, Choice::Open(_)));
            assert_eq!(idle(), 2, "there was room");
            let fourth = cluster.choose(Wanted::New, &[]);
            assert!(matches!(fourth, Choice::Open(_)));
            assert_eq!(idle(), 1);
            assert_eq!(std::io::Read::read(&mut oldest, &mut [0]).unwrap(), 0);
            newest.set_nonblocking(true).unwrap();
            assert!(newest.peek(&mut [0]).is_err(), "it is open");
        });
    }
}
