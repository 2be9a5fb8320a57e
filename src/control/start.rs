//! Starting and stopping, as an ordered list and its reverse: what needs privileges or can fail
//! comes first, data cores take traffic last; on the way down input stops first.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::admin::{self, Page};
use crate::control::complaint::Complaint;
use crate::control::letters::{self, Letters};
use crate::control::message::{Install, ToControl, ToShard};
use crate::control::names::{self, Watch};
use crate::control::registry::Registry;
use crate::control::stats::Totals;
use crate::control::{Control, ControlMail, Run, life};
use crate::engine::{
    self, BlockingPool, Doorbell, Identity, Inbox, Level, Outbox, Placement, Shared, Signals,
};
use crate::events::publisher::{Publisher, PublisherHandle, Settings, Started, Stopped};
use crate::events::queue::Producer;
use crate::limits;
use crate::plan::{ListenerId, Plan};
use crate::shard::counters::Counters;
use crate::shard::mail::{Inboxes, Mail};
use crate::shard::{self};

/// Why the process does not start, in a sentence for its operator.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// What is bound, by name.
struct Bound {
    /// By listener, then by core.
    listeners: Vec<Vec<TcpListener>>,
    metrics: Option<TcpListener>,
    admin: Option<TcpListener>,
}

/// The whole life of the process. Returns when it was told to stop and has.
pub fn run(mut plan: Plan) -> Result<(), StartError> {
    let open_files = engine::raise_open_files();
    engine::probe().map_err(StartError)?;
    Signals::block().map_err(|e| StartError(format!("cannot block signals: {e}")))?;
    warn_about(&plan, open_files);
    plan.limits.connections_max.get_or_insert(connections_for(open_files));
    let bound = bind(&mut plan)?;
    drop_privileges(&plan)?;
    let log = start_publisher(&plan)?;
    let (publisher, producers, publisher_thread) = match log {
        Some(Started { handle, producers, thread }) => (Some(handle), producers, Some(thread)),
        None => (None, Vec::new(), None),
    };
    let cores = plan.cores;
    let bells =
        Bells::new(cores).map_err(|e| StartError(format!("cannot make an eventfd: {e}")))?;
    let post = Post::new(&bells);
    let all_counters: Vec<Shared<Counters>> =
        (0..cores).map(|_| Shared::new(Counters::new())).collect();
    let threads = start_shards(&bells, post.shards, &all_counters)?;
    let parts = Parts {
        plan,
        bound,
        producers,
        publisher,
        counters: all_counters,
        outboxes: post.control_outboxes,
        mail: post.control,
        bell: bells.control.clone(),
    };
    let ended = engine::run(Placement::Anywhere, bells.control, move || supervise(parts))
        .map_err(|e| StartError(format!("the control core cannot run: {e}")))?;
    let (outcome, publisher) = ended?;
    let stuck = stop(threads, publisher, publisher_thread);
    match outcome {
        Run::Drained | Run::Cut if !stuck.is_empty() => {
            return Err(StartError(format!(
                "{} did not stop in {:?}: the process ends without, please report it",
                stuck.join(", "),
                limits::CORE_STOP_TIMEOUT
            )));
        }
        Run::Drained => log::info!("drained, bye"),
        Run::Cut => log::warn!(
            "drain_timeout is over, or a second signal came: the remaining connections were cut"
        ),
        Run::Failed(reason) => return Err(StartError(reason)),
    }
    Ok(())
}

/// After the last socket, before the first file and thread: what is opened later, the access log
/// too, can be opened again.
fn drop_privileges(plan: &Plan) -> Result<(), StartError> {
    let Some(user) = &plan.user else { return Ok(()) };
    let identity = Identity::find(&user.name, user.group.as_deref()).map_err(StartError)?;
    identity.assume().map_err(StartError)?;
    log::info!("runs as {identity}");
    // io_uring may be allowed for some users only
    engine::probe().map_err(StartError)
}

struct Parts {
    plan: Plan,
    bound: Bound,
    producers: Vec<Producer>,
    publisher: Option<PublisherHandle>,
    counters: Vec<Shared<Counters>>,
    outboxes: Vec<Outbox<ToShard>>,
    mail: ControlMail,
    bell: Doorbell,
}

/// The control core's main task: the first generation, then signals, until the end.
async fn supervise(parts: Parts) -> Result<(Run, Option<PublisherHandle>), StartError> {
    let Parts { plan, bound, producers, publisher, counters, outboxes, mail, bell } = parts;
    let pool =
        BlockingPool::start(bell).map_err(|e| StartError(format!("cannot start threads: {e}")))?;
    let plan = Shared::new(plan);
    let control = Rc::new(Control {
        watch: Watch::new(pool, &plan),
        waiting: plan.clusters.iter().map(|_| Shared::new(Level::default())).collect(),
        permits: RefCell::new(HashMap::new()),
        totals: RefCell::new(Totals::new(counters.len(), publisher)),
        draining: Cell::new(false),
        registry: Registry::new(&plan, counters.len()),
        drained: counters.iter().map(|_| Cell::new(false)).collect(),
        installed: Cell::new(0),
        failed: RefCell::new(None),
        changed: RefCell::default(),
        full: Complaint::default(),
        cannot_accept: Complaint::default(),
        shards: outboxes.into_iter().enumerate().map(|(n, to)| Letters::new(n, to)).collect(),
        counters,
        plan,
    });
    let applying = Rc::clone(&control);
    engine::on_bell(move || {
        applying.watch.collect();
        for inbox in &mail.inboxes {
            while let Some(letter) = inbox.take() {
                applying.apply(letter);
            }
        }
        applying.wake();
    });
    let mut signals =
        Signals::open().map_err(|e| StartError(format!("cannot open signalfd: {e}")))?;
    engine::spawn(names::keep_resolved(Rc::clone(&control)));
    engine::spawn(letters::deliver_kept(Rc::clone(&control)));
    // Names get a moment, so that the first requests find addresses; then traffic is not kept
    // waiting.
    control.until(limits::FIRST_NAMES_TIMEOUT, |c| c.watch.all_resolved()).await;
    announce(&control, &bound);
    install(&control, bound.listeners, producers);
    if !control.until(limits::INSTALL_TIMEOUT, |c| c.installed.get() == c.shards.len()).await {
        let reason = control.failed.borrow_mut().take();
        control.to_shards(|| ToShard::Stop);
        let reason =
            reason.unwrap_or_else(|| "a data core did not take its plan in time".to_owned());
        return Ok((Run::Failed(reason), control.totals.borrow_mut().log.take()));
    }
    for (socket, page) in [(bound.metrics, Page::Metrics), (bound.admin, Page::Admin)] {
        if let Some(socket) = socket {
            engine::spawn(admin::serve(Rc::clone(&control), engine::Listener::adopt(socket), page));
        }
    }
    let outcome = life(&control, &mut signals).await;
    let publisher = control.totals.borrow_mut().log.take();
    Ok((outcome, publisher))
}

/// The first generation goes the way of all later ones.
fn install(control: &Control, listeners: Vec<Vec<TcpListener>>, producers: Vec<Producer>) {
    let mut sockets: Vec<Vec<(ListenerId, TcpListener)>> =
        control.shards.iter().map(|_| Vec::new()).collect();
    for (id, by_core) in listeners.into_iter().enumerate() {
        for (core, socket) in by_core.into_iter().enumerate() {
            sockets[core].push((ListenerId(id as u16), socket));
        }
    }
    let mut producers = producers.into_iter();
    for (core, listeners) in sockets.into_iter().enumerate() {
        let install = Install {
            plan: control.plan.share(),
            clusters: control.cluster_shares(core),
            series: control.registry.share(&control.plan, core),
            listeners,
            log: producers.next(),
        };
        control.shards[core].send(ToShard::Install(Box::new(install)));
    }
}

/// The harness of every test and the eyes of every operator look for these lines.
fn announce(control: &Control, bound: &Bound) {
    let named = control.plan.listeners.iter().map(|listener| listener.name.as_str());
    let sockets = bound.listeners.iter().filter_map(|by_core| by_core.first());
    let own = [("metrics", &bound.metrics), ("admin", &bound.admin)];
    let own = own.iter().filter_map(|(name, socket)| Some((*name, socket.as_ref()?)));
    for (name, socket) in named.zip(sockets).chain(own) {
        if let Ok(address) = socket.local_addr() {
            log::info!("listening on {address} as {name}");
        }
    }
    let (cores, clusters) = (control.shards.len(), control.plan.clusters.len());
    log::info!("corelane {} runs on {cores} cores, {clusters} clusters", env!("CARGO_PKG_VERSION"));
}

/// Every listening socket, one per core, made here while privileges last. Port 0 is chosen by the
/// kernel once, and shared by the cores.
fn bind(plan: &mut Plan) -> Result<Bound, StartError> {
    let mut listeners = Vec::new();
    for listener in &mut plan.listeners {
        claim(&listener.name, listener.bind)?;
        let mut by_core = Vec::new();
        for _ in 0..plan.cores {
            let socket = listen(&listener.name, listener.bind)?;
            listener.bind = socket.local_addr().unwrap_or(listener.bind);
            by_core.push(socket);
        }
        listeners.push(by_core);
    }
    let own = |name, address: Option<SocketAddr>| {
        address.map(|address| claim(name, address).and_then(|()| listen(name, address))).transpose()
    };
    let metrics = own("metrics", plan.metrics)?;
    let admin = own("admin", plan.admin)?;
    Ok(Bound { listeners, metrics, admin })
}

/// Without SO_REUSEPORT: with it, another process of the same user would silently share the
/// address. Only before our first socket there, or it would find ourselves.
fn claim(name: &str, address: SocketAddr) -> Result<(), StartError> {
    engine::is_free(address).map_err(|error| cannot_listen(name, address, &error))
}

fn listen(name: &str, address: SocketAddr) -> Result<TcpListener, StartError> {
    engine::listen(address, limits::LISTEN_BACKLOG)
        .map_err(|error| cannot_listen(name, address, &error))
}

fn cannot_listen(name: &str, address: SocketAddr, error: &io::Error) -> StartError {
    const CURES: [(io::ErrorKind, &str); 3] = [
        (io::ErrorKind::AddrInUse, "another process listens there: stop it or choose another port"),
        (io::ErrorKind::PermissionDenied, "ports below 1024 need CAP_NET_BIND_SERVICE"),
        (io::ErrorKind::AddrNotAvailable, "no interface of this machine has that address"),
    ];
    let known = CURES.iter().find(|(kind, _)| *kind == error.kind());
    let cure = known.map_or("check the address", |(_, cure)| cure);
    StartError(format!("cannot listen on {address} as {name}: {error}; {cure}"))
}

fn start_publisher(plan: &Plan) -> Result<Option<Started>, StartError> {
    let Some(log) = &plan.access_log else { return Ok(None) };
    let settings =
        Settings { path: log.path.clone(), cores: plan.cores, clock: engine::precise_now };
    Publisher::start(settings).map(Some).map_err(|error| StartError(error.to_string()))
}

struct Bells {
    control: Doorbell,
    shards: Vec<Doorbell>,
}

impl Bells {
    fn new(cores: usize) -> io::Result<Bells> {
        let shards = (0..cores).map(|_| Doorbell::new()).collect::<io::Result<_>>()?;
        Ok(Bells { control: Doorbell::new()?, shards })
    }
}

/// All mailboxes: one per direction and pair.
struct Post {
    shards: Vec<(Mail, Inboxes)>,
    control: ControlMail,
    control_outboxes: Vec<Outbox<ToShard>>,
}

impl Post {
    fn new(bells: &Bells) -> Post {
        let cores = bells.shards.len();
        let mut inboxes: Vec<Vec<Inbox<ToShard>>> = (0..cores).map(|_| Vec::new()).collect();
        let mut control = ControlMail { inboxes: Vec::new() };
        let mut control_outboxes = Vec::new();
        for (core, bell) in bells.shards.iter().enumerate() {
            let (outbox, inbox) = engine::mailbox(bell.clone());
            control_outboxes.push(outbox);
            inboxes[core].push(inbox);
        }
        let mut mails = Vec::new();
        for core in 0..cores {
            let mut to_shards = Vec::new();
            for (other, bell) in bells.shards.iter().enumerate() {
                to_shards.push((other != core).then(|| {
                    let (outbox, inbox) = engine::mailbox(bell.clone());
                    inboxes[other].push(inbox);
                    outbox
                }));
            }
            let (to_control, inbox) = engine::mailbox(bells.control.clone());
            control.inboxes.push(inbox);
            mails.push(Mail::new(core, to_shards, to_control));
        }
        let shards = mails.into_iter().zip(inboxes.into_iter().map(Inboxes)).collect();
        Post { shards, control, control_outboxes }
    }
}

fn start_shards(
    bells: &Bells,
    mails: Vec<(Mail, Inboxes)>,
    counters: &[Shared<Counters>],
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let cpus = engine::cpus();
    let pinned = mails.len() <= cpus.len();
    let open = Shared::new(Level::default());
    mails
        .into_iter()
        .zip(bells.shards.iter().cloned())
        .enumerate()
        .map(|(core, ((mail, inboxes), bell))| {
            let placement = if pinned { Placement::Cpu(cpus[core]) } else { Placement::Anywhere };
            let counters: Vec<_> = counters.iter().map(Shared::share).collect();
            let open = open.share();
            thread::Builder::new()
                .name(format!("core-{core}"))
                .spawn(move || {
                    data_core(core, placement, bell, mail, |mail| {
                        shard::run(mail, inboxes, counters, open)
                    });
                })
                .map_err(|e| StartError(format!("cannot start the thread of core {core}: {e}")))
        })
        .collect()
}

fn data_core<F: Future<Output = ()> + 'static>(
    core: usize,
    placement: Placement,
    bell: Doorbell,
    mail: Mail,
    main: impl FnOnce(Rc<Mail>) -> F,
) {
    let mail = Rc::new(mail);
    let running = Rc::clone(&mail);
    // Connections catch their own panics: one that comes here is the engine's, and the core is
    // lost.
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        engine::run(placement, bell, || main(running))
    }));
    let reason = match ended {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "its engine panicked".to_owned(),
    };
    mail.to_control(ToControl::Failed { core, reason });
}

fn stop(
    threads: Vec<JoinHandle<()>>,
    publisher: Option<PublisherHandle>,
    publisher_thread: Option<JoinHandle<()>>,
) -> Vec<String> {
    let stuck = join(threads, limits::CORE_STOP_TIMEOUT);
    // After the data cores' last batch.
    let Some(publisher) = publisher else { return stuck };
    match publisher.stop(limits::PUBLISHER_STOP_TIMEOUT) {
        Stopped::Drained(_) => drop(publisher_thread.map(JoinHandle::join)),
        Stopped::TimedOut(_) => log::error!("the access log could not be written to its end"),
    }
    stuck
}

/// The names of those that have not ended by then: they are left behind.
fn join(mut threads: Vec<JoinHandle<()>>, limit: Duration) -> Vec<String> {
    let end = engine::precise_now() + limit;
    loop {
        for thread in threads.extract_if(.., |thread| thread.is_finished()) {
            if thread.join().is_err() {
                log::error!("a data core ended with a panic");
            }
        }
        if threads.is_empty() || engine::precise_now() >= end {
            let name = |thread: JoinHandle<()>| thread.thread().name().map(str::to_owned);
            return threads.into_iter().map(|thread| name(thread).unwrap_or_default()).collect();
        }
        thread::sleep(limits::CORE_STOP_LOOK_INTERVAL);
    }
}

/// A quarter is left to upstream connections, which many clients share, and some to the rest.
fn connections_for(open_files: u64) -> u32 {
    let spare = open_files.saturating_sub(limits::DESCRIPTORS_RESERVED) / 4 * 3;
    u32::try_from(spare).unwrap_or(u32::MAX).max(16)
}

fn warn_about(plan: &Plan, open_files: u64) {
    if let Some(max) = plan.limits.connections_max
        && u64::from(max) > open_files.saturating_sub(limits::DESCRIPTORS_RESERVED)
    {
        log::warn!(
            "`limits.max_concurrent_connections` is {max}, but this process may open only \
             {open_files} files: raise the open-file limit (LimitNOFILE=, ulimit -n)"
        );
    }
    let cpus = engine::cpus().len();
    if plan.cores > cpus {
        let plural = if cpus == 1 { "" } else { "s" };
        log::warn!("{} cores share {cpus} CPU{plural}: none is pinned", plan.cores);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_never_stops_is_left_behind_and_named() {
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let (let_it_go, waits) = std::sync::mpsc::channel::<()>();
        let ends = named("core-0").spawn(|| {}).unwrap();
        let hangs = named("core-1").spawn(move || assert!(waits.recv().is_err())).unwrap();
        assert_eq!(join(vec![ends, hangs], Duration::from_millis(50)), ["core-1"]);
        drop(let_it_go);
        assert_eq!(
            join(vec![named("core-2").spawn(|| {}).unwrap()], limits::CORE_STOP_TIMEOUT),
            [""; 0]
        );
    }

    #[test]
    fn the_connection_limit_follows_the_open_file_limit() {
        assert_eq!(connections_for(20_000), 14_808);
        assert_eq!(connections_for(64), 16);
        assert_eq!(connections_for(u64::MAX), u32::MAX);
    }

    #[test]
    fn every_pair_of_cores_has_its_own_mailbox() {
        let bells = Bells::new(4).unwrap();
        let post = Post::new(&bells);
        assert_eq!(post.control.inboxes.len(), 4);
        // Three others and the control core.
        assert!(post.shards.iter().all(|(_, inboxes)| inboxes.0.len() == 4));
        assert_eq!(post.shards[2].0.cores(), 4);
    }

    #[test]
    fn stopping_fits_into_what_init_systems_wait() {
        assert!(limits::PUBLISHER_STOP_TIMEOUT < Duration::from_secs(10));
    }
}
