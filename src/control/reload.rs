//! A new configuration while traffic flows. It is read, checked, compiled and bound on a thread
//! beside the control core; only when nothing can fail any more it is put in force: the cores get
//! it by letter, exchanges that run end with what they began with. Whatever fails changes nothing.
//! One at a time; requests for the same file that come meanwhile share the next run.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use crate::cli::Source;
use crate::config::{self, Syntax};
use crate::control::config_poll::FetchedText;
use crate::control::history::Applied;
use crate::control::overdue::{self, Slots};
use crate::control::own_ports::OwnPorts;
use crate::control::prepare::{Ground, Prepared, prepare};
use crate::control::trigger::Title;
pub(crate) use crate::control::trigger::Trigger;
use crate::control::{Control, Current, names};
use crate::engine::{self, Shared};
use crate::events::publisher::{Files, Opened};
use crate::limits;
use crate::plan::Plan;
use crate::provider::{Reading, Validators};
use crate::telemetry::log_levels;
use crate::telemetry::metrics::ReloadCounts;

/// A configuration that is in force.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) version: u64,
    /// What an operator should know, one line each.
    pub(crate) warnings: Vec<String>,
}

/// Why nothing has changed.
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    /// The text is wrong, or cannot be read.
    Configuration(config::Errors),
    /// It is right, but cannot be had here and now: a port is taken, a log cannot be opened, the
    /// process is draining.
    Impossible(String),
    /// It was meant for another version than this one, which is in force.
    Superseded(u64),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Configuration(errors) => write!(f, "{}", errors.to_string().trim_end()),
            Refused::Impossible(reason) => f.write_str(reason),
            Refused::Superseded(version) => {
                write!(f, "the configuration has changed meanwhile: version {version} is in force")
            }
        }
    }
}

/// How the last try went.
#[derive(Clone, Debug)]
pub(crate) struct LastReload {
    pub(crate) at: SystemTime,
    pub(crate) trigger: Trigger,
    pub(crate) duration: Duration,
    pub(crate) outcome: Result<Report, Refused>,
}

impl ReloadCounts {
    /// The configuration that the process starts with counts as a success, but as no reload.
    fn at(start: SystemTime) -> ReloadCounts {
        ReloadCounts { ok: 0, refused: 0, last_is_ok: true, last_ok: start, generations: 1 }
    }

    fn and(mut self, outcome: &Result<Report, Refused>, now: SystemTime) -> ReloadCounts {
        self.last_is_ok = outcome.is_ok();
        if self.last_is_ok {
            self.ok += 1;
            self.last_ok = now;
        } else {
            self.refused += 1;
        }
        self
    }
}

pub(super) fn hash(text: impl AsRef<[u8]>) -> u64 {
    text.as_ref().iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[derive(Clone)]
pub(super) enum Wanted {
    /// What the file or the server says now.
    File,
    /// The same, if the file does not say what was read last.
    ChangedFile,
    /// What the server has said, if it is not what was read last, and nobody has asked it since.
    Fetched {
        reading: Reading,
        turn: u64,
    },
    Text(Syntax, Rc<str>),
}

impl Wanted {
    fn syntax(&self, source: &Source) -> Syntax {
        match self {
            Wanted::Text(syntax, _) => *syntax,
            Wanted::File | Wanted::ChangedFile | Wanted::Fetched { .. } => source.syntax(),
        }
    }

    /// Nobody asked for it: what was read before is not read again, and nobody is told.
    pub(super) fn is_for_a_change(&self) -> bool {
        match self {
            Wanted::ChangedFile | Wanted::Fetched { .. } => true,
            Wanted::File | Wanted::Text(..) => false,
        }
    }
}

/// Waits for its turn; then everybody who waits for it sees its outcome.
pub(super) struct Job {
    pub(super) wanted: Wanted,
    trigger: Trigger,
    /// Only if this version is in force when its turn comes.
    over: Option<u64>,
    outcome: Outcome,
}

/// `None` until it is there.
type Outcome = Rc<RefCell<Option<Result<Report, Refused>>>>;

pub(super) struct Reloads {
    queue: RefCell<VecDeque<Job>>,
    running: Cell<bool>,
    /// Something is being changed.
    busy: Cell<bool>,
    last: RefCell<Option<LastReload>>,
    pub(super) history: RefCell<VecDeque<Applied>>,
    counts: Cell<ReloadCounts>,
    /// Of the file as it was read last, good or bad.
    pub(super) read: Cell<u64>,
    /// A text from the admin API is on its way into the file.
    pub(super) writing: Cell<bool>,
    pub(super) own_ports: OwnPorts,
    pub(super) slots: Slots<{ limits::RELOADS_OVERDUE_MAX }>,
}

impl Reloads {
    /// `text` is in force from the start.
    pub(super) fn new(syntax: Syntax, text: &str, version: u64) -> Reloads {
        let reloads = Reloads {
            queue: RefCell::default(),
            running: Cell::new(false),
            busy: Cell::new(false),
            last: RefCell::new(None),
            history: RefCell::default(),
            counts: Cell::new(ReloadCounts::at(engine::wall_clock())),
            read: Cell::new(hash(text)),
            writing: Cell::new(false),
            own_ports: OwnPorts::default(),
            slots: Slots::default(),
        };
        reloads.remember(version, Trigger::Start, syntax, Rc::from(text));
        reloads
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.get()
    }

    /// What is in force: who asked for it, its version and its text.
    pub(super) fn newest(&self) -> Option<(Trigger, u64, Rc<str>)> {
        let history = self.history.borrow();
        history.back().map(|last| (last.trigger, last.version, Rc::clone(&last.text)))
    }

    fn remember(&self, version: u64, trigger: Trigger, syntax: Syntax, text: Rc<str>) {
        let mut history = self.history.borrow_mut();
        if history.len() >= limits::RELOAD_HISTORY_MAX {
            history.pop_front();
        }
        history.push_back(Applied { version, at: engine::wall_clock(), trigger, syntax, text });
    }

    /// `None`: too many texts wait already. The file is read for whoever asks, after what was asked
    /// for before: a text between two requests for it keeps them apart.
    fn enqueue(&self, wanted: Wanted, trigger: Trigger, over: Option<u64>) -> Option<Outcome> {
        let mut queue = self.queue.borrow_mut();
        let shared = queue.back().filter(|job| {
            matches!(
                (&job.wanted, &wanted),
                (Wanted::File, Wanted::File | Wanted::ChangedFile | Wanted::Fetched { .. })
                    | (Wanted::ChangedFile, Wanted::ChangedFile)
            )
        });
        if let Some(job) = shared {
            return Some(Rc::clone(&job.outcome));
        }
        let is_text = |wanted: &Wanted| matches!(wanted, Wanted::Text(..));
        let texts = queue.iter().filter(|job| is_text(&job.wanted)).count();
        if is_text(&wanted) && texts >= limits::RELOADS_QUEUED_MAX {
            return None;
        }
        let outcome = Outcome::default();
        queue.push_back(Job { wanted, trigger, over, outcome: Rc::clone(&outcome) });
        Some(outcome)
    }
}

/// What became of a text, on another thread.
pub(super) struct Read {
    pub(super) hash: u64,
    /// By whatever it was read from.
    pub(super) told: Result<Validators, config::Errors>,
    pub(super) outcome: Result<Preparation, Refused>,
}

pub(super) enum Preparation {
    Ready(Box<Prepared>),
    /// The file is as it was read last.
    Unchanged,
}

impl Control {
    /// Reads the configuration again, from its file or server. For what has neither, says so.
    pub(crate) async fn reload(self: &Rc<Self>, trigger: Trigger) -> Result<Report, Refused> {
        if !self.source.provider.can_change() {
            let name = self.source.name();
            self.notify.reloading();
            self.notify.refused(self.plan().version);
            return Err(Refused::Impossible(format!(
                "the configuration is {name}: there is no file to read again; \
                 start with --config FILE"
            )));
        }
        self.perform(Wanted::File, trigger, None).await
    }

    /// The same, when a change of the file was noticed.
    pub(super) async fn reload_changed(self: &Rc<Self>) {
        // Whatever comes of it is logged.
        drop(self.perform(Wanted::ChangedFile, Trigger::Watch, None).await);
    }

    /// All tries so far, as the metrics page has them.
    pub(crate) fn reload_counts(&self) -> ReloadCounts {
        ReloadCounts { generations: self.older.alive() + 1, ..self.reloads.counts.get() }
    }

    /// How the last try went; `None` before the first.
    pub(crate) fn last_reload(&self) -> Option<LastReload> {
        self.reloads.last.borrow().clone()
    }

    /// Waits for its turn and its end. Dropping this takes nothing back.
    pub(super) async fn perform(
        self: &Rc<Self>,
        wanted: Wanted,
        trigger: Trigger,
        over: Option<u64>,
    ) -> Result<Report, Refused> {
        let Some(outcome) = self.reloads.enqueue(wanted, trigger, over) else {
            return Err(Refused::Impossible(
                "too many configurations wait for each other; try again when they are done"
                    .to_owned(),
            ));
        };
        if !self.reloads.running.replace(true) {
            engine::spawn(work(Rc::clone(self)));
        }
        std::future::poll_fn(|context| {
            if let Some(outcome) = &*outcome.borrow() {
                return Poll::Ready(outcome.clone());
            }
            self.poll_changed(context);
            Poll::Pending
        })
        .await
    }

    async fn run_job(self: &Rc<Self>, job: &Job) -> Result<Report, Refused> {
        let begun = engine::precise_now();
        let at = engine::wall_clock();
        let before = self.plan().version;
        // The sockets that it hands over are to be those of the plan in force.
        while self.upgrades.is_running() {
            self.changed_once().await;
        }
        self.reloads.busy.set(true);
        if !job.wanted.is_for_a_change() {
            self.notify.reloading();
        }
        // One that panics is told of like any other.
        let result = overdue::caught(Box::pin(self.try_job(job))).await;
        self.reloads.busy.set(false);
        let outcome = match result.unwrap_or_else(|| Err(overdue::panicked())) {
            // Nothing was asked for, nothing has happened.
            Ok(None) => return Ok(Report { version: self.plan().version, warnings: Vec::new() }),
            Ok(Some(report)) => Ok(report),
            Err(refused) => Err(refused),
        };
        let duration = engine::precise_now().saturating_duration_since(begun);
        let trigger = job.trigger;
        match &outcome {
            Ok(report) => {
                let version = report.version;
                log::info!("reloaded ({trigger}): version {version} in {duration:?}");
                self.notify.ready(version);
            }
            Err(refused) => {
                let version = self.plan().version;
                log::error!("reload refused ({trigger}): version {version} stays in force");
                refused.to_string().lines().for_each(|line| log::error!("{line}"));
                self.notify.refused(version);
            }
        }
        self.reloads.counts.update(|counts| counts.and(&outcome, engine::wall_clock()));
        self.tell_reload(trigger, &outcome);
        self.audit_reload(trigger, before, &outcome);
        let last = LastReload { at, trigger, duration, outcome: outcome.clone() };
        *self.reloads.last.borrow_mut() = Some(last);
        self.publish_health();
        outcome
    }

    /// `None`: the file has not changed.
    async fn try_job(self: &Rc<Self>, job: &Job) -> Result<Option<Report>, Refused> {
        if job.wanted.is_for_a_change() && self.upgrades.handed_over().is_some() {
            return Ok(None); // the new process has read it, and watches it
        }
        self.refuse_while_draining()?;
        let running = self.plan().version;
        if job.over.is_some_and(|version| version != running) {
            return Err(Refused::Superseded(running));
        }
        self.exporters_ending().await;
        let ground = self.ground();
        let known = job.wanted.is_for_a_change().then(|| self.reloads.read.get());
        let given = match &job.wanted {
            Wanted::File | Wanted::ChangedFile => None,
            Wanted::Fetched { turn, .. } if *turn != self.fetches.turn() => return Ok(None),
            Wanted::Fetched { reading, .. } => Some(reading.clone()),
            Wanted::Text(_, text) => Some(Reading { text: text.to_string(), ..Reading::default() }),
        };
        let syntax = job.wanted.syntax(&self.source);
        let is_own = matches!(job.wanted, Wanted::Text(..));
        let asks = given.is_none() && self.source.provider.server().is_some();
        if asks {
            self.fetches.begin_turn();
        }
        let title = match is_own {
            true => Title::of(job.trigger, &self.source),
            false => Title { name: self.source.name(), is_seen: true },
        };
        let timeout = self.plan().hot_reload.poll_timeout;
        let called = title.name.clone();
        let preparing = self.in_time(&called, move || {
            let reading = match given {
                Some(reading) => Ok(reading),
                None => ground.source.provider.read(timeout),
            };
            let told = reading.as_ref().map(|r| r.validators.clone()).map_err(Clone::clone);
            // What could not be read counts as read, so that it is complained about once.
            let read = hash(reading.as_ref().map_or("", |reading| &reading.text));
            if known == Some(read) {
                return Read { hash: read, told, outcome: Ok(Preparation::Unchanged) };
            }
            let prepared = reading
                .map_err(Refused::Configuration)
                .and_then(|reading| prepare(&ground, &title, syntax, reading.text));
            let outcome = prepared.map(|prepared| Preparation::Ready(Box::new(prepared)));
            Read { hash: read, told, outcome }
        });
        let read = preparing.await;
        if asks {
            self.fetches.begin_turn();
            self.fetches.note(match &read {
                Ok(Read { told: Ok(_), .. }) => Ok(FetchedText::New),
                Ok(Read { told: Err(errors), .. }) => Err(errors),
                Err(refused) => Err(refused),
            });
        }
        match self.source.provider.server() {
            Some(_) if !is_own => self.take_fetched(job, read).await,
            Some(_) | None => {
                let Read { hash, outcome, .. } = read?;
                if !is_own {
                    self.reloads.read.set(hash);
                }
                self.take(job, outcome?).await
            }
        }
    }

    pub(super) async fn take(
        self: &Rc<Self>,
        job: &Job,
        preparation: Preparation,
    ) -> Result<Option<Report>, Refused> {
        match preparation {
            Preparation::Unchanged => Ok(None),
            Preparation::Ready(prepared) => self.commit(*prepared, job.trigger).await.map(Some),
        }
    }

    fn ground(&self) -> Ground {
        let plan = self.plan();
        Ground {
            source: self.source.clone(),
            held: self.held.borrow().clone(),
            logs: Files::of(&plan),
            collectors: self.totals.borrow().exporters.collectors().to_vec(),
            version: plan.version + 1,
            tls: self.tls.ingredients(),
            material: self.tls.material(),
            material_turn: self.tls.material_turn(),
            cores: self.shards.len(),
            user: plan.user.clone(),
            pid_file: plan.pid_file.clone(),
            open_files: self.open_files,
        }
    }

    fn refuse_while_draining(&self) -> Result<(), Refused> {
        if self.draining.get() {
            return Err(Refused::Impossible("the process is draining".to_owned()));
        }
        if self.upgrades.handed_over().is_some() {
            let reason = "another process has taken over: it has read the file itself";
            return Err(Refused::Impossible(reason.to_owned()));
        }
        Ok(())
    }

    /// Puts it in force.
    async fn commit(
        self: &Rc<Self>,
        prepared: Prepared,
        trigger: Trigger,
    ) -> Result<Report, Refused> {
        let Prepared { plan, syntax, text, mut bound, logs, spans, tls, tls_turn, .. } = prepared;
        let (material_turn, mut warnings) = (prepared.material_turn, prepared.warnings);
        let plan = Shared::new(plan);
        self.names_first(&plan).await;
        if let Err(refused) = self.change_logs(plan.version, logs).await {
            self.watch.want(&[&self.plan()]);
            return Err(refused);
        }
        let version = plan.version;
        // Listeners may go, and the process before this one would keep their queues open.
        self.predecessor.borrow_mut().settled();
        bound.announce(&plan);
        let held = bound.take_held(&self.held.borrow());
        *self.held.borrow_mut() = held;
        // Else what an operator has set goes on.
        if plan.log_level != self.plan().log_level {
            log_levels::set_default(plan.log_level);
        }
        warnings.iter().for_each(|warning| log::warn!("{warning}"));
        let is_tls_outdated = self.tls.is_newer_than(tls_turn);
        let is_material_outdated = self.tls.material_turn() != material_turn;
        let before = self.put_in_force(plan, bound.keys.clone());
        self.older.add(before, engine::now());
        self.publish_health();
        self.blacklist_follows();
        let spans = self.totals.borrow_mut().exporters.change(spans, self.shards.len());
        self.send_plan(bound.sockets, Vec::new(), spans, tls);
        if is_tls_outdated {
            self.renew_tls_or_say().await; // keys or staples have come meanwhile
        }
        if is_material_outdated {
            // Files were used after they had been read for this plan: it may have older ones.
            let control = Rc::clone(self);
            let who = trigger.to_string();
            engine::spawn(async move { control.reload_certificates(&who).await });
        }
        self.change_ports(bound.metrics, bound.admin);
        self.reloads.remember(version, trigger, syntax, Rc::from(text));
        if !self.until(limits::INSTALL_TIMEOUT, |c| c.has_installed(version)).await {
            let told = self.not_installed(version);
            log::error!("{told}");
            warnings.push(told);
        }
        self.totals.borrow_mut().exporters.end_older();
        self.tend_generations().await;
        Ok(Report { version, warnings })
    }

    fn not_installed(&self, version: u64) -> String {
        let lacks = |core: &usize| self.installed[*core].get() < version;
        let cores: Vec<usize> = (0..self.installed.len()).filter(lacks).collect();
        format!(
            "data cores {cores:?} have not taken version {version} in {:?}: they go by an earlier \
             one until they do; if they stay silent in GET /admin/cores, restart the process",
            limits::INSTALL_TIMEOUT
        )
    }

    /// Names that are new get a moment, so that the first requests find addresses. The old plan
    /// serves meanwhile.
    async fn names_first(self: &Rc<Self>, plan: &Shared<Plan>) {
        let before = self.plan();
        self.watch.want(&[&before, plan]);
        self.wake();
        let new = names::new_names(plan, Some(&before));
        self.until(limits::FIRST_NAMES_TIMEOUT, |c| c.watch.are_resolved(&new)).await;
    }

    /// Gives back the plan that was in force.
    fn put_in_force(
        &self,
        plan: Shared<Plan>,
        listener_keys: Vec<crate::plan::ListenerKey>,
    ) -> Shared<Plan> {
        self.tls.adopt(&plan);
        self.watch.want(&[&plan]);
        self.overrides.forget_all_but(&plan);
        self.registry.adopt(&plan);
        let cluster_keys = self.clusters.borrow_mut().keys(&plan);
        let current = Current { plan, cluster_keys, listener_keys };
        self.current.replace(current).plan
    }

    /// Waits while many exporters of earlier plans send their last spans: they have little time.
    async fn exporters_ending(&self) {
        while self.totals.borrow_mut().exporters.are_many_ending() {
            engine::sleep(limits::EXPORTERS_ENDING_LOOK_INTERVAL).await;
        }
    }

    /// Before the data cores have the plan, so that none of its lines comes before its file. Lines
    /// of exchanges that began before it go on to the file that their own plan names.
    async fn change_logs(&self, version: u64, logs: Opened) -> Result<(), Refused> {
        let mut logs = Box::new(logs);
        let end = engine::precise_now() + limits::INSTALL_TIMEOUT;
        loop {
            self.refuse_while_draining()?;
            match &self.totals.borrow().log {
                Some(publisher) => match publisher.use_files(version, logs) {
                    Ok(()) => return Ok(()),
                    Err(back) => logs = back,
                },
                None => return Ok(()),
            }
            if engine::precise_now() >= end {
                return Err(Refused::Impossible(
                    "the logs that are open take no lines, so they cannot be changed; find out \
                     what holds their disk or pipe"
                        .to_owned(),
                ));
            }
            engine::sleep(limits::ACCESS_LOG_RETRY_INTERVAL).await;
        }
    }
}

/// Does what waits, one after the other.
async fn work(control: Rc<Control>) {
    loop {
        let job = control.reloads.queue.borrow_mut().pop_front();
        let Some(job) = job else { break };
        let ran = overdue::caught(Box::pin(control.run_job(&job))).await;
        let outcome = ran.unwrap_or_else(|| Err(overdue::panicked()));
        control.reloads.busy.set(false);
        *job.outcome.borrow_mut() = Some(outcome);
        control.wake();
    }
    control.reloads.running.set(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_the_same_file_share_a_run_and_texts_do_not() {
        let reloads = Reloads::new(Syntax::Toml, "a", 1);
        let first = reloads.enqueue(Wanted::File, Trigger::Signal, None).unwrap();
        let second = reloads.enqueue(Wanted::ChangedFile, Trigger::Watch, None).unwrap();
        assert!(Rc::ptr_eq(&first, &second));
        reloads.queue.borrow_mut().clear(); // it runs now: what comes may not be in it
        let third = reloads.enqueue(Wanted::ChangedFile, Trigger::Watch, None).unwrap();
        assert!(!Rc::ptr_eq(&first, &third));
        let explicit = reloads.enqueue(Wanted::File, Trigger::Signal, None).unwrap();
        assert!(!Rc::ptr_eq(&third, &explicit), "it reads also what has not changed");
        let text = || Wanted::Text(Syntax::Toml, Rc::from("b"));
        for _ in 0..limits::RELOADS_QUEUED_MAX {
            assert!(reloads.enqueue(text(), Trigger::Admin, None).is_some());
        }
        assert!(reloads.enqueue(text(), Trigger::Admin, None).is_none());
        let last = reloads.enqueue(Wanted::File, Trigger::Signal, None).unwrap();
        assert!(!Rc::ptr_eq(&explicit, &last), "it comes after the texts, whose turn is first");
        let again = reloads.enqueue(Wanted::File, Trigger::Signal, None).unwrap();
        assert!(Rc::ptr_eq(&again, &last));
    }

    #[test]
    fn the_last_ten_are_remembered() {
        let reloads = Reloads::new(Syntax::Toml, "1", 1);
        for version in 2..=12_u64 {
            reloads.remember(version, Trigger::Signal, Syntax::Toml, Rc::from(version.to_string()));
        }
        let history = reloads.history.borrow();
        let versions: Vec<u64> = history.iter().map(|old| old.version).collect();
        assert_eq!(versions, (3..=12).collect::<Vec<_>>());
        assert_eq!(&*history[0].text, "3");
        assert_ne!(history[0].hash(), history[1].hash());
    }
}
