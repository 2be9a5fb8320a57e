//! Starting and stopping, as an ordered list and its reverse: what needs privileges or can fail
//! comes first, data cores take traffic last; on the way down input stops first.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::admin::Desk;
use crate::cli::Source;
use crate::control::blacklist::{self, Keeper};
use crate::control::certificate_watch;
use crate::control::certificates;
use crate::control::clusters::Clusters;
use crate::control::complaint::Complaint;
use crate::control::config_poll::{self, Fetches};
use crate::control::current::Current;
use crate::control::exporters::{self, Exporters};
use crate::control::file_watch;
use crate::control::generations::{self, Older};
use crate::control::inherited::{Inherited, Predecessor};
use crate::control::letters::{self, Letters};
use crate::control::message::{Service, ToControl, ToShard};
use crate::control::names::{self, Watch};
use crate::control::notify::Notify;
use crate::control::overrides::Overrides;
use crate::control::passed_on::PassedOn;
use crate::control::pid_file::PidFile;
use crate::control::ports::{Bound, Held};
use crate::control::registry::Registry;
use crate::control::reload::Reloads;
use crate::control::stapling;
use crate::control::stats::Totals;
use crate::control::tls;
use crate::control::upgrade::{Program, Upgrades};
use crate::control::{Control, ControlMail, Leave, Run, drain, life};
use crate::engine::{self, Doorbell, Identity, Inbox, Level, Outbox, Placement, Shared, Signals};
use crate::events::bus::{Bus, Kinds};
use crate::events::publisher::{
    Clocks, Files, Publisher, PublisherHandle, Settings, Started, Stopped,
};
use crate::events::queue::Producer;
use crate::limits;
use crate::plan::Plan;
use crate::provider::Beginning;
use crate::shard::counters::Counters;
use crate::shard::mail::{Inboxes, Mail};
use crate::shard::{self};
use crate::telemetry::audit_log::Event;
use crate::telemetry::stderr;
use crate::tls::setup::Setup;

/// Why the process does not start, in a sentence for its operator.
#[derive(Debug)]
pub struct StartError(String);

impl StartError {
    pub(super) fn new(reason: String) -> StartError {
        StartError(reason)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// The whole life of the process. Returns when it was told to stop and has.
/// `plan` was compiled from what is `begun` with, and `source` says where that came from.
pub fn run(mut plan: Plan, source: Source, begun: &Beginning) -> Result<(), StartError> {
    engine::use_small_pages();
    let open_files = engine::raise_open_files();
    engine::probe().map_err(StartError)?;
    Signals::block().map_err(|e| StartError(format!("cannot block signals: {e}")))?;
    let program =
        Program::current().map_err(|e| StartError(format!("cannot find its own program: {e}")))?;
    let mut inherited = Inherited::receive()?;
    warn_about(&plan, open_files);
    complete(&mut plan, open_files);
    let tls = tls::Ingredients::begun(inherited.ticket_keys(), inherited.staples(), &plan)
        .map_err(StartError)?;
    let tls = (tls.setups(plan.cores, &plan).map_err(StartError)?, tls);
    let bound = Held::default().bind(&mut plan, &mut inherited)?;
    drop_privileges(&plan)?;
    // The first thread: all are to leave the signals alone, and have the rights that are left.
    let _writing = stderr::start(engine::wall_clock)
        .map_err(|e| StartError(format!("cannot write standard error: {e}")))?;
    let Started { handle, producers, thread: publisher_thread } = start_publisher(&plan)?;
    let blacklist = Keeper::load(plan.blacklist_path.as_deref(), engine::wall_clock());
    let spans = exporters::start(&plan, &[]).map_err(StartError)?;
    let cores = plan.cores;
    let bells =
        Bells::new(cores).map_err(|e| StartError(format!("cannot make an eventfd: {e}")))?;
    let post = Post::new(&bells);
    let all_counters: Vec<Shared<Counters>> =
        (0..cores).map(|_| Shared::new(Counters::new())).collect();
    let threads = start_shards(&bells, post.shards, &all_counters)?;
    let parts = Parts {
        reloads: Reloads::new(source.syntax(), begun.document.text(), plan.version),
        fetches: Fetches::begun(&begun.found),
        source,
        open_files,
        plan,
        bound,
        program,
        blacklist,
        inherited,
        tls,
        producers,
        publisher: handle,
        spans,
        counters: all_counters,
        outboxes: post.control_outboxes,
        mail: post.control,
        bell: bells.control.clone(),
    };
    let ended = engine::run(Placement::Anywhere, bells.control, move || supervise(parts))
        .map_err(|e| StartError(format!("the control core cannot run: {e}")))?;
    let (outcome, publisher, exporters) = ended?;
    let stuck = stop(threads, publisher, publisher_thread, exporters);
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
    reloads: Reloads,
    fetches: Fetches,
    source: Source,
    open_files: u64,
    plan: Plan,
    bound: Bound,
    program: Program,
    blacklist: Keeper,
    inherited: Inherited,
    producers: Vec<Producer>,
    publisher: PublisherHandle,
    spans: exporters::Change,
    tls: (Vec<Setup>, tls::Ingredients),
    counters: Vec<Shared<Counters>>,
    outboxes: Vec<Outbox<ToShard>>,
    mail: ControlMail,
    bell: Doorbell,
}

/// What the first plan needs beside it.
struct First {
    bound: Bound,
    producers: Vec<Producer>,
    spans: exporters::Change,
    /// By core.
    tls: Vec<Setup>,
    inherited: Inherited,
}

/// How it ended, and who writes the last of it.
type Ended = (Run, Option<PublisherHandle>, Exporters);

impl Parts {
    /// The control core with its first plan, which no data core has yet.
    fn into_control(self) -> Result<(Rc<Control>, First, ControlMail), StartError> {
        let Parts { reloads, fetches, source, open_files, plan, mut bound, .. } = self;
        let (producers, spans, inherited) = (self.producers, self.spans, self.inherited);
        let watch = Watch::start(&self.bell, &plan)
            .map_err(|e| StartError(format!("cannot start threads: {e}")))?;
        let mut clusters = Clusters::default();
        let current = Current {
            cluster_keys: clusters.keys(&plan),
            listener_keys: bound.keys.clone(),
            plan: Shared::new(plan),
        };
        let (tls, ingredients) = self.tls;
        let cores = self.counters.len();
        let registry = Registry::new(&current.plan, cores);
        let control = Control {
            source,
            watch,
            older: Older::default(),
            reloads,
            fetches,
            held: RefCell::new(bound.take_held(&Held::default())),
            open_files,
            program: self.program,
            upgrades: Upgrades::default(),
            predecessor: RefCell::new(Predecessor::default()),
            notify: Notify::from_environment(),
            blacklist: self.blacklist,
            bus: Bus::default(),
            taps: super::Taps::default(),
            wanted_events: Cell::new(Kinds::NONE),
            clusters: RefCell::new(clusters),
            totals: RefCell::new(Totals::new(cores, Some(self.publisher))),
            registry,
            draining: Cell::new(false),
            overrides: Overrides::default(),
            desk: Desk::new(engine::now(), engine::wall_clock()),
            service: Cell::new(Service::Serving),
            inquiries: RefCell::default(),
            service_turn: Cell::new(0),
            closes_at: Cell::new(None),
            drained: (0..cores).map(|_| Cell::new(false)).collect(),
            resumed: (0..cores).map(|_| Cell::new(false)).collect(),
            installed: (0..cores).map(|_| Cell::new(0)).collect(),
            failed: RefCell::new(None),
            changed: RefCell::default(),
            shards: self
                .outboxes
                .into_iter()
                .enumerate()
                .map(|(core, outbox)| Letters::new(core, outbox))
                .collect(),
            full: Complaint::default(),
            cannot_accept: Complaint::default(),
            tls: tls::Keeper::new(&current.plan, ingredients),
            troubles: Default::default(),
            current: RefCell::new(current),
            counters: self.counters,
        };
        Ok((Rc::new(control), First { bound, producers, spans, tls, inherited }, self.mail))
    }
}

/// The control core's main task: the first generation, then signals, until the end.
async fn supervise(parts: Parts) -> Result<Ended, StartError> {
    let (control, First { bound, producers, spans, tls, mut inherited }, mail) =
        parts.into_control()?;
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
    let plan = control.plan();
    let wanted = names::new_names(&plan, None);
    control.until(limits::FIRST_NAMES_TIMEOUT, |c| c.watch.are_resolved(&wanted)).await;
    bound.announce(&plan);
    let (cores, clusters) = (control.shards.len(), plan.clusters.len());
    log::info!("corelane {} runs on {cores} cores, {clusters} clusters", env!("CARGO_PKG_VERSION"));
    let version = plan.version;
    drop(plan);
    let passed_on = inherited.take_passed_on();
    let listed = passed_on.as_ref().map(PassedOn::networks);
    passed_on.into_iter().for_each(|passed| control.go_on_with(passed, &[]));
    control.audit_process(Event::ProcessStart);
    control.publish_health();
    if !control.blacklist.is_empty() {
        control.send_blacklist();
    }
    let spans = control.totals.borrow_mut().exporters.change(spans, cores);
    control.send_plan(bound.sockets, producers, spans, tls);
    let served = if control.until(limits::INSTALL_TIMEOUT, |c| c.has_installed(version)).await {
        PidFile::write(control.plan().pid_file.as_deref())
    } else {
        let reason = control.failed.borrow_mut().take();
        Err(reason.unwrap_or_else(|| "a data core did not take its plan in time".to_owned()))
    };
    let pid_file = match served {
        Ok(pid_file) => pid_file,
        Err(reason) => {
            control.to_shards(|| ToShard::Stop);
            return Ok(ended(&control, Run::Failed(reason)));
        }
    };
    match inherited.ready() {
        Ok(predecessor) => drop(control.predecessor.replace(predecessor)),
        Err(reason) => return Ok(unheard(&control, &mut signals, reason).await),
    }
    if let Some(listed) = listed {
        control.hear_the_rest(&listed).await;
    }
    // From now on operators speak to this process.
    control.change_ports(bound.metrics, bound.admin);
    control.notify.ready(version);
    tend(&control);
    let outcome = life(&control, &mut signals, &pid_file).await;
    drop(pid_file);
    control.audit_process(Event::ProcessStop);
    Ok(ended(&control, outcome))
}

/// What goes on beside, for as long as the process serves.
fn tend(control: &Rc<Control>) {
    engine::spawn(blacklist::expire(Rc::clone(control)));
    engine::spawn(tls::rotate_keys(Rc::clone(control)));
    engine::spawn(stapling::keep_stapled(Rc::clone(control)));
    engine::spawn(certificates::expire(Rc::clone(control)));
    engine::spawn(certificate_watch::watch(Rc::clone(control)));
    engine::spawn(generations::tend(Rc::clone(control)));
    engine::spawn(file_watch::watch(Rc::clone(control)));
    engine::spawn(config_poll::poll(Rc::clone(control)));
}

fn ended(control: &Control, run: Run) -> Ended {
    let (publisher, exporters) = control.totals.borrow_mut().take_writers();
    (run, publisher, exporters)
}

/// The process before this one goes on: two may not serve side by side. What this one has accepted
/// meanwhile is answered.
async fn unheard(control: &Rc<Control>, signals: &mut Signals, reason: String) -> Ended {
    log::error!("{reason}");
    let leave = Leave { handed_over: Vec::new(), was_asked: false };
    drop(drain(control, signals, leave).await);
    ended(control, Run::Failed(reason))
}

/// It runs whatever is logged now: a reload may want more.
fn start_publisher(plan: &Plan) -> Result<Started, StartError> {
    let (files, version) = (Files::of(plan), plan.version);
    let settings = Settings { files, version, cores: plan.cores, clocks: CLOCKS };
    Publisher::start(settings).map_err(|error| StartError(error.to_string()))
}

pub(super) const CLOCKS: Clocks = Clocks { now: engine::precise_now, wall: engine::wall_clock };

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
    mail.last_word(ToControl::Failed { core, reason });
}

fn stop(
    threads: Vec<JoinHandle<()>>,
    publisher: Option<PublisherHandle>,
    publisher_thread: JoinHandle<()>,
    exporters: Exporters,
) -> Vec<String> {
    let stuck = join(threads, limits::CORE_STOP_TIMEOUT);
    // After the data cores' last batch.
    let Some(publisher) = publisher else { return stuck };
    match publisher.stop(limits::PUBLISHER_STOP_TIMEOUT) {
        Stopped::Drained(_) => drop(publisher_thread.join()),
        Stopped::TimedOut(_) => log::error!("the access log could not be written to its end"),
    }
    exporters.stop();
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

/// What a plan leaves to the machine.
pub(super) fn complete(plan: &mut Plan, open_files: u64) {
    plan.limits.connections_max.get_or_insert(connections_for(open_files, plan.cores));
}

/// A quarter is left to upstream connections, which many clients share, and some to the rest.
fn connections_for(open_files: u64, cores: usize) -> u32 {
    let pipes = 2 * (cores * limits::PIPES_LENT_MAX) as u64;
    let spare = open_files.saturating_sub(limits::DESCRIPTORS_RESERVED + pipes) / 4 * 3;
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
        assert_eq!(connections_for(20_000, 1), 14_712);
        assert_eq!(connections_for(64, 1), 16);
        assert_eq!(connections_for(u64::MAX, 16), u32::MAX);
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
        let spans = limits::TRACE_STOP_TIMEOUT + crate::events::exporter::STOP_GRACE;
        let all = limits::PUBLISHER_STOP_TIMEOUT + spans;
        assert!(all < Duration::from_secs(10));
    }
}
