//! Connections that carry several exchanges at once: HTTP/2. Each has a task of its own, which
//! makes it, drives it and gives its slot back; exchanges have seats on it. Slots, the queue and
//! their bounds are the pool's.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::control::overrides::Admission;
use crate::engine;
use crate::exchange::failure::Failure;
use crate::http2::client::{Connection, Sender, Turn};
use crate::http2::upstream_call::UpstreamCall;
use crate::limits;
use crate::tls::stream::Stream;
use crate::upstream::connect::{Connected, Connector, NotConnected, Patience, Speaks};
use crate::upstream::endpoints::Endpoint;
use crate::upstream::lease::{Lease, Slot};
use crate::upstream::pool::Cluster;

/// One connection, open or about to be.
pub(crate) struct Trunk {
    pub(super) cluster: Rc<Cluster>,
    pub(super) endpoint: Rc<Endpoint>,
    pub(super) connector: Rc<Connector>,
    /// For the exchange that opens it, and for no other.
    alone: Cell<bool>,
    stage: Cell<Stage>,
    /// Why it did not come to be, or what it has become instead. For those who wait for it.
    outcome: RefCell<Outcome>,
    /// Exchanges that wait for it to open.
    joined: Cell<u32>,
    wakers: RefCell<Vec<Waker>>,
    /// Exchanges that are on it.
    seated: Cell<u32>,
    seats: Cell<u32>,
    /// Gone: it closes when its last exchange has ended.
    sender: RefCell<Option<Sender>>,
    is_secure: Cell<bool>,
    shaken_at: Cell<Option<Instant>>,
    opened: Cell<Instant>,
    /// When it opened, or was last left by an exchange.
    last: Cell<Instant>,
    /// When it was last to end for another core's sake.
    yielded: Cell<Option<Instant>>,
    /// An exchange has left it without an answer: until it has shown that it lives it gets no more.
    suspected: Cell<bool>,
    driver: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opening,
    Open,
    /// Nothing begins on it any more.
    Leaving,
    Over,
}

#[derive(Default)]
enum Outcome {
    #[default]
    None,
    /// The endpoint has chosen HTTP/1.1. For whoever asks first.
    Http1(Lease),
    Failed(Failure, Option<String>),
}

/// What an exchange gets that has waited for a connection to open.
pub(super) enum Joined {
    Seat(Seat),
    Http1(Lease),
    /// It is open, and full, or was for somebody else: another is to be chosen.
    Again,
    Failed(NotConnected),
}

/// One exchange's place on a connection.
pub(crate) struct Seat(Rc<Trunk>);

impl Trunk {
    /// Begins to open one. `greeting`: it says so first, and is for one exchange.
    pub(super) fn open(
        slot: Slot,
        connector: Rc<Connector>,
        greeting: Option<Vec<u8>>,
        patience: Patience,
    ) -> Rc<Trunk> {
        let endpoint = Rc::clone(&slot.endpoint);
        let trunk = Rc::new(Trunk {
            cluster: Rc::clone(&slot.cluster),
            // What is known to be HTTP/1.1 is not shared.
            alone: Cell::new(
                greeting.is_some() || endpoint.speaks(&connector) == Some(Speaks::Http1),
            ),
            endpoint,
            connector,
            stage: Cell::new(Stage::Opening),
            outcome: RefCell::default(),
            joined: Cell::new(0),
            wakers: RefCell::default(),
            seated: Cell::new(0),
            seats: Cell::new(0),
            sender: RefCell::default(),
            is_secure: Cell::new(false),
            shaken_at: Cell::new(None),
            opened: Cell::new(engine::now()),
            last: Cell::new(engine::now()),
            yielded: Cell::new(None),
            suspected: Cell::new(false),
            driver: RefCell::default(),
        });
        trunk.endpoint.trunks.borrow_mut().push(Rc::clone(&trunk));
        let running = Running { trunk: Rc::clone(&trunk), slot: Some(slot) };
        engine::spawn(running.run(greeting, patience));
        trunk
    }

    /// Whether an exchange may begin on it now.
    pub(super) fn has_seat(&self, now: Instant) -> bool {
        self.stage.get() == Stage::Open
            && !self.alone.get()
            && !self.suspected.get()
            && self.seated.get() < self.seats.get()
            && !self.is_yielding(now)
            && self.is_as_now()
    }

    /// Connections still begin as it did: one that began otherwise is for nobody new.
    fn is_as_now(&self) -> bool {
        let now = self.cluster.connector.borrow();
        Rc::ptr_eq(&self.connector, &now) || self.connector.is_like(&now)
    }

    fn is_on_its_way_out(&self, now: Instant) -> bool {
        self.stage.get() == Stage::Leaving || self.is_yielding(now)
    }

    fn is_yielding(&self, now: Instant) -> bool {
        let goes_on = |begun| now.saturating_duration_since(begun) < limits::SHARED_YIELD_TIME;
        self.yielded.get().is_some_and(goes_on)
    }

    /// Whether an exchange may wait for it to open.
    pub(super) fn may_be_joined(&self) -> bool {
        self.stage.get() == Stage::Opening
            && !self.alone.get()
            && self.joined.get() < self.connector.http2.streams_max
            && self.is_as_now()
    }

    /// It is there, and nobody uses it.
    pub(super) fn is_idle(&self) -> bool {
        self.stage.get() == Stage::Open && self.seated.get() == 0
    }

    pub(super) fn idle_since(&self) -> Instant {
        self.last.get()
    }

    pub(super) fn take_seat(self: &Rc<Trunk>) -> Seat {
        self.seated.set(self.seated.get() + 1);
        self.use_changed(1);
        Seat(Rc::clone(self))
    }

    /// Nothing begins on it any more. It ends with the last exchange that is on it.
    pub(super) fn leave(&self) {
        if matches!(self.stage.get(), Stage::Opening | Stage::Open) {
            self.stage.set(Stage::Leaving);
        }
        let sender = self.sender.borrow_mut().take();
        drop(sender);
        self.wake_those_who_wait();
        self.stir();
    }

    /// Whether its endpoint is to be asked for signs of life depends on whether anybody waits.
    fn use_changed(&self, boundary: u32) {
        if self.seated.get() == boundary && self.connector.http2.keepalive_interval.is_some() {
            self.stir();
        }
    }

    fn stir(&self) {
        let driver = self.driver.borrow_mut().take();
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Waits until it is open, or will never be. `shakes` hears when TLS began.
    pub(super) async fn opened(self: &Rc<Trunk>, mut shakes: impl FnMut(Instant)) -> Joined {
        let _joining = Joining::new(self);
        let mut told = false;
        std::future::poll_fn(|context| {
            if let Some(at) = self.shaken_at.get().filter(|_| !told) {
                told = true;
                shakes(at);
            }
            if self.stage.get() == Stage::Opening {
                self.wakers.borrow_mut().push(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(self.outcome())
        })
        .await
    }

    fn outcome(self: &Rc<Trunk>) -> Joined {
        let mut outcome = self.outcome.borrow_mut();
        match std::mem::take(&mut *outcome) {
            Outcome::Http1(lease) => Joined::Http1(lease),
            Outcome::Failed(failure, detail) => {
                // Told of once.
                *outcome = Outcome::Failed(failure, None);
                Joined::Failed(NotConnected { failure, detail })
            }
            Outcome::None if self.stage.get() == Stage::Open && self.seats.get() == 0 => {
                Joined::Failed(no_streams())
            }
            Outcome::None if self.has_seat(engine::now()) || self.is_for_me() => {
                Joined::Seat(self.take_seat())
            }
            Outcome::None => Joined::Again,
        }
    }

    /// Of one that is for nobody else: whoever has opened it.
    fn is_for_me(&self) -> bool {
        self.alone.get() && self.is_idle()
    }

    fn wake_those_who_wait(&self) {
        let wakers = std::mem::take(&mut *self.wakers.borrow_mut());
        wakers.into_iter().for_each(Waker::wake);
    }

    fn fail(&self, not: NotConnected) {
        *self.outcome.borrow_mut() = Outcome::Failed(not.failure, not.detail);
    }

    /// What became of an exchange's seat: whether the connection stays, and who sits next.
    fn left(&self) {
        let now = engine::now();
        self.seated.set(self.seated.get() - 1);
        self.last.set(now);
        let endpoint = &self.endpoint;
        let stays = !self.alone.get()
            && !endpoint.removed.get()
            && endpoint.admission.get() != Admission::Maintenance
            && self.connector.keeps(&self.cluster.connector.borrow());
        if !stays || (self.seated.get() == 0 && self.is_owed(now)) {
            self.leave();
        } else if self.seated.get() > 0 {
            self.give_way(now);
        }
        if self.suspected.get() {
            self.stir();
        }
        self.use_changed(0);
        self.cluster.wake_first();
    }

    /// Idle, but somebody else has more right to its slot.
    fn is_owed(&self, now: Instant) -> bool {
        self.endpoint.is_beyond()
            || (self.is_yielding(now) && self.cluster.is_wanted(&self.endpoint))
            || self.cluster.owes_others(&self.endpoint, now)
    }

    /// Another core waits for the slot that this connection has, or there are too many: then
    /// nothing begins on it for a while, so that it can end.
    pub(super) fn give_way(&self, now: Instant) {
        let endpoint = &self.endpoint;
        let since = self.yielded.get().unwrap_or(self.opened.get());
        let is_due = now.saturating_duration_since(since) >= 2 * limits::SHARED_YIELD_TIME;
        let is_first = || {
            let trunks = endpoint.trunks.borrow();
            !trunks.iter().any(|trunk| trunk.stage.get() == Stage::Leaving)
        };
        if endpoint.is_beyond() {
            if is_first() {
                self.leave();
            }
        } else if is_due && self.cluster.is_wanted(endpoint) {
            self.yielded.set(Some(now));
        }
    }
}

/// An exchange that waits for a connection to open.
struct Joining<'t>(&'t Trunk);

impl<'t> Joining<'t> {
    fn new(trunk: &'t Trunk) -> Joining<'t> {
        trunk.joined.set(trunk.joined.get() + 1);
        Joining(trunk)
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        self.0.joined.set(self.0.joined.get() - 1);
        if self.0.joined.get() == 0 && self.0.is_for_me() {
            // Who opened it has left without it.
            self.0.leave();
        }
    }
}

impl Seat {
    /// A stream, for one exchange.
    pub(super) fn call(&self) -> Option<UpstreamCall> {
        let trunk = &self.0;
        let sender = trunk.sender.borrow().as_ref().map(Sender::for_one)?;
        Some(UpstreamCall::new(sender, trunk.endpoint.address, trunk.is_secure.get()))
    }

    pub(super) fn trunk(&self) -> &Rc<Trunk> {
        &self.0
    }

    /// The connection gets no more exchanges until it has shown that it lives.
    pub(super) fn suspect(&self) {
        self.0.suspected.set(true);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.left();
    }
}

/// The task of a connection, and the slot that it has for as long as it is open. However it ends,
/// those who wait for it hear of it.
struct Running {
    trunk: Rc<Trunk>,
    slot: Option<Slot>,
}

impl Running {
    async fn run(mut self, greeting: Option<Vec<u8>>, patience: Patience) {
        let (trunk, greets) = (Rc::clone(&self.trunk), greeting.is_some());
        let connecting = Box::pin(self.connect(greeting, patience.connect));
        match connecting.await {
            Ok(connected) => {
                trunk.cluster.series().opened.add(1);
                trunk.endpoint.spoken.set(Some(connected.speaks));
                match connected.speaks {
                    Speaks::Http1 => self.hand_over(connected.stream),
                    Speaks::Http2 => {
                        trunk.alone.set(greets);
                        Box::pin(self.multiplex(connected.stream, patience)).await;
                    }
                }
            }
            Err(not) => {
                trunk.endpoint.series().connect_failures.add(1);
                trunk.fail(not);
            }
        }
    }

    async fn connect(
        &self,
        greeting: Option<Vec<u8>>,
        timeout: Duration,
    ) -> Result<Connected, NotConnected> {
        let Trunk { endpoint, connector, shaken_at, .. } = &*self.trunk;
        let shakes = |now| {
            shaken_at.set(Some(now));
            self.trunk.wake_those_who_wait();
        };
        let (address, name) = (endpoint.address, Some(&endpoint.name));
        connector.connect(address, name, greeting.as_deref(), timeout, shakes).await
    }

    /// It is a connection like any other of the pool, and the exchange's that asked for it.
    fn hand_over(&mut self, stream: Stream) {
        let Some(slot) = self.slot.take() else { return };
        let connector = Some(Rc::clone(&self.trunk.connector));
        let lease = Lease::of_stream(stream, connector, slot, false);
        if self.trunk.joined.get() == 0 {
            return lease.keep(None);
        }
        *self.trunk.outcome.borrow_mut() = Outcome::Http1(lease);
    }

    async fn multiplex(&mut self, stream: Stream, patience: Patience) {
        let trunk = &self.trunk;
        trunk.is_secure.set(stream.is_secure());
        let beginning = Connection::begin(stream, &trunk.connector.http2, patience.write);
        let begun = within(patience.connect, beginning).await.and_then(|begun| {
            if begun.0.streams_max() == 0 { Err(no_streams()) } else { Ok(begun) }
        });
        let (connection, sender) = match begun {
            Ok(begun) => {
                trunk.endpoint.takes_tunnels.set(Some(begun.1.takes_tunnels()));
                begun
            }
            Err(not) => {
                trunk.endpoint.series().connect_failures.add(1);
                return trunk.fail(not);
            }
        };
        if trunk.alone.get() && trunk.joined.get() == 0 {
            // Who opened it has left, and it is for nobody else.
            return;
        }
        trunk.seats.set(trunk.seats_of(&connection));
        trunk.opened.set(engine::now());
        trunk.last.set(engine::now());
        *trunk.sender.borrow_mut() = Some(sender);
        if trunk.stage.get() == Stage::Opening {
            trunk.stage.set(Stage::Open);
        } else {
            // Meanwhile its endpoint was removed, or connections begin otherwise.
            trunk.leave();
        }
        trunk.wake_those_who_wait();
        trunk.cluster.wake_first();
        trunk.drive(connection).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let trunk = &self.trunk;
        trunk.stage.set(Stage::Over);
        trunk.sender.borrow_mut().take();
        trunk.endpoint.trunks.borrow_mut().retain(|other| !Rc::ptr_eq(other, trunk));
        trunk.wake_those_who_wait();
        // Whoever waits may open another: with the slot of this one, or with what is free.
        drop(self.slot.take());
        trunk.cluster.wake_first();
    }
}

impl Trunk {
    async fn drive(&self, mut connection: Connection) {
        std::future::poll_fn(|context| {
            *self.driver.borrow_mut() = Some(context.waker().clone());
            let in_use = self.seated.get() > 0;
            match connection.poll(context, self.suspected.get(), in_use) {
                Turn::Over => return Poll::Ready(()),
                Turn::Lives if self.suspected.replace(false) => self.cluster.wake_first(),
                Turn::Lives | Turn::Goes => {}
            }
            self.look(&connection, context);
            Poll::Pending
        })
        .await;
        // Before its slot goes to another.
        drop(connection);
    }

    /// What the endpoint has said of the connection meanwhile.
    fn look(&self, connection: &Connection, context: &mut Context<'_>) {
        let seats = self.seats_of(connection);
        if self.seats.replace(seats) < seats {
            self.cluster.wake_first();
        }
        let mut sender = self.sender.borrow_mut();
        let refused = sender.as_mut().is_some_and(|sender| sender.is_refused(context));
        drop(sender);
        if refused {
            self.leave();
            self.cluster.wake_first();
        }
    }

    fn seats_of(&self, connection: &Connection) -> u32 {
        connection.streams_max().min(self.connector.http2.streams_max)
    }
}

/// An endpoint that takes our connection and says nothing is no more use than one that does not.
async fn within(
    timeout: Duration,
    beginning: impl Future<Output = Result<(Connection, Sender), h2::Error>>,
) -> Result<(Connection, Sender), NotConnected> {
    match engine::within(timeout, beginning).await {
        Some(begun) => begun.map_err(|error| not_begun(&error)),
        None => {
            let detail = Some("it did not send its HTTP/2 SETTINGS in time".to_owned());
            Err(NotConnected { failure: Failure::ConnectTimeout, detail })
        }
    }
}

fn no_streams() -> NotConnected {
    let detail = Some("it allows no streams at all on a new connection".to_owned());
    NotConnected { failure: Failure::UpstreamRefused, detail }
}

fn not_begun(error: &h2::Error) -> NotConnected {
    let failure =
        if error.is_library() { Failure::UpstreamNotHttp2 } else { Failure::ConnectFailed };
    let detail = match error.reason() {
        Some(h2::Reason::NO_ERROR) => "it closed the connection before its HTTP/2 SETTINGS".into(),
        Some(_) if error.is_library() => {
            format!("what it says is not HTTP/2 ({error}): expected protocol = \"h1\"")
        }
        Some(_) | None => format!("it did not begin with HTTP/2: {error}"),
    };
    NotConnected { failure, detail: Some(detail) }
}

impl Endpoint {
    /// `None`: nobody knows yet.
    pub(super) fn speaks(&self, connector: &Connector) -> Option<Speaks> {
        connector.speaks().or(self.spoken.get())
    }

    /// A connection with a seat, or one to wait for.
    pub(super) fn shared(&self, now: Instant) -> Option<Shared> {
        let trunks = self.trunks.borrow();
        if let Some(open) = trunks.iter().find(|trunk| trunk.has_seat(now)) {
            return Some(Shared::Seat(open.take_seat()));
        }
        let opening = trunks.iter().find(|trunk| trunk.may_be_joined())?;
        Some(Shared::Opening(Rc::clone(opening)))
    }

    pub(super) fn may_share(&self, now: Instant) -> bool {
        let trunks = self.trunks.borrow();
        trunks.iter().any(|trunk| trunk.has_seat(now) || trunk.may_be_joined())
    }

    pub(super) fn has_trunks(&self) -> bool {
        !self.trunks.borrow().is_empty()
    }

    /// Shared connections that nobody uses.
    pub(super) fn idle_trunks(&self) -> usize {
        self.trunks.borrow().iter().filter(|trunk| trunk.is_idle()).count()
    }

    /// The shared connections that were idle longest; those in use end with their exchanges when
    /// all are to go.
    pub(super) fn close_trunks(&self, most: usize) {
        let trunks: Vec<Rc<Trunk>> = self.trunks.borrow().iter().map(Rc::clone).collect();
        if most == usize::MAX {
            return trunks.iter().for_each(|trunk| trunk.leave());
        }
        let mut idle: Vec<&Rc<Trunk>> = trunks.iter().filter(|trunk| trunk.is_idle()).collect();
        idle.sort_by_key(|trunk| trunk.idle_since());
        idle.into_iter().take(most).for_each(|trunk| trunk.leave());
    }

    /// One is asked to make room: the slot that it has is another's.
    pub(super) fn give_way(&self, now: Instant) {
        let trunks: Vec<Rc<Trunk>> = self.trunks.borrow().iter().map(Rc::clone).collect();
        let goes = trunks.iter().any(|trunk| trunk.is_on_its_way_out(now));
        let first = trunks.iter().find(|trunk| trunk.stage.get() == Stage::Open);
        if let Some(first) = first.filter(|_| !goes) {
            if first.is_idle() { first.leave() } else { first.give_way(now) }
        }
    }

    /// What an exchange gets that could not be connected to it.
    pub(super) fn refuses(&self, not: NotConnected) -> (NotConnected, Option<SocketAddr>) {
        self.tally.failed(not.failure, engine::wall_clock());
        (not, Some(self.address))
    }

    /// Those that nobody has used for so long.
    pub(super) fn sweep_trunks(&self, now: Instant, idle_max: Duration) {
        let trunks: Vec<Rc<Trunk>> = self.trunks.borrow().iter().map(Rc::clone).collect();
        let is_old = |trunk: &&Rc<Trunk>| {
            trunk.is_idle() && now.saturating_duration_since(trunk.idle_since()) >= idle_max
        };
        trunks.iter().filter(is_old).for_each(|trunk| trunk.leave());
    }
}

/// What there is for an exchange on connections that others use too.
pub(super) enum Shared {
    Seat(Seat),
    Opening(Rc<Trunk>),
}
