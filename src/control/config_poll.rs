//! A configuration that a server has, asked for again and again. An answer that nothing has changed
//! costs nothing; a new text goes the way of a file that has changed. Whatever the server does, the
//! plan in force stays until a better one is there: what is wrong with it is in the log once, on
//! the status page and in the metrics while it lasts.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use crate::control::config_file::Beside;
use crate::control::reload::{Job, Read, Refused, Report, Trigger, Wanted};
use crate::control::{Control, Either, file_watch, first};
use crate::engine;
use crate::http1::blocking_client::jitter;
use crate::provider::{Fetched, Found, Server, Validators};
use crate::telemetry::metrics::FetchCounts;

/// How the server has answered so far.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    /// Of the text that was read last, good or bad.
    validators: RefCell<Validators>,
    counts: Cell<FetchCounts>,
    last_ok: Cell<Option<SystemTime>>,
    failing: RefCell<Option<Failing>>,
    /// Counts up with every question of an operator: an answer to an earlier one is outdated.
    turn: Cell<u64>,
    /// Why the text of the server cannot be had here and now: what was logged last, and of which
    /// text, if it came.
    not_now: RefCell<Option<(Option<u64>, String)>>,
    /// The newest text that has no copy yet.
    to_copy: RefCell<Option<Rc<str>>>,
    copying: Cell<bool>,
    /// What became of the copy last.
    copy_fails: RefCell<Option<String>>,
}

/// A good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchedText {
    /// A text, which may be the same as before.
    New,
    /// The server says that it is still the same.
    Unchanged,
}

/// The server gives no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failing {
    pub(crate) since: SystemTime,
    pub(crate) error: String,
}

/// For the status page.
#[derive(Clone, Debug)]
pub(crate) struct FetchState {
    pub(crate) last_ok: Option<SystemTime>,
    pub(crate) failing: Option<Failing>,
}

impl Fetches {
    /// After a start, which has asked once.
    pub(super) fn begun(found: &Found) -> Fetches {
        let fetches = Fetches::default();
        match found {
            Found::NoServer => {}
            Found::Text(validators) => {
                fetches.note(Ok(FetchedText::New));
                fetches.remember(validators.clone());
            }
            Found::Copy(error) => {
                // It was logged.
                let since = engine::wall_clock();
                *fetches.failing.borrow_mut() = Some(Failing { since, error: error.clone() });
                fetches.counts.set(FetchCounts { failed: 1, ..FetchCounts::default() });
            }
        }
        fetches
    }

    /// What came of a question.
    pub(super) fn note(&self, outcome: Result<FetchedText, &dyn fmt::Display>) {
        let now = engine::wall_clock();
        let mut counts = self.counts.get();
        match outcome {
            Ok(fetched) => {
                match fetched {
                    FetchedText::New => counts.text += 1,
                    FetchedText::Unchanged => counts.unchanged += 1,
                }
                counts.last_ok = Some(now);
                self.last_ok.set(Some(now));
                if let Some(Failing { since, .. }) = self.failing.take() {
                    let lasted = now.duration_since(since).unwrap_or_default();
                    log::info!("the configuration can be fetched again, after {lasted:.1?}");
                }
            }
            Err(error) => {
                counts.failed += 1;
                self.complain(now, error.to_string().trim_end().to_owned());
            }
        }
        self.counts.set(counts);
    }

    /// Once for every new reason.
    fn complain(&self, now: SystemTime, error: String) {
        let mut failing = self.failing.borrow_mut();
        if failing.as_ref().is_some_and(|failing| failing.error == error) {
            return;
        }
        log::error!("the configuration in force stays: its server gives none");
        error.lines().for_each(|line| log::error!("{line}"));
        let since = failing.as_ref().map_or(now, |failing| failing.since);
        *failing = Some(Failing { since, error });
    }

    /// Of the text that was read last: the next question asks for another one.
    pub(super) fn remember(&self, validators: Validators) {
        self.validators.replace(validators);
    }

    /// A text that is refused for a reason that may pass is tried again with the next question.
    /// Whether this one and its reason are new.
    pub(super) fn is_new_refusal(&self, hash: Option<u64>, refused: &Refused) -> bool {
        let refusal = Some((hash, refused.to_string()));
        self.not_now.replace(refusal.clone()) != refusal
    }

    /// A text is in force, or is wrong for good.
    pub(super) fn no_refusal(&self) {
        self.not_now.replace(None);
    }

    pub(super) fn turn(&self) -> u64 {
        self.turn.get()
    }

    /// Of an operator: what is asked meanwhile for other reasons does not count any more.
    pub(super) fn begin_turn(&self) {
        self.turn.update(|turn| turn + 1);
    }

    pub(super) fn counts(&self) -> FetchCounts {
        self.counts.get()
    }
}

impl Control {
    pub(crate) fn fetch_counts(&self) -> FetchCounts {
        self.fetches.counts()
    }

    pub(crate) fn fetch_state(&self) -> FetchState {
        let failing = self.fetches.failing.borrow().clone();
        FetchState { last_ok: self.fetches.last_ok.get(), failing }
    }

    pub(crate) fn provider_kind(&self) -> &'static str {
        self.source.provider.kind()
    }

    pub(crate) fn provider_name(&self) -> String {
        self.source.provider.name()
    }

    /// Asks once. A text that was read before changes nothing.
    async fn poll_server(self: &Rc<Self>, server: &Server) {
        let turn = self.fetches.turn();
        let (server, known) = (server.clone(), self.fetches.validators.borrow().clone());
        let timeout = self.plan().hot_reload.poll_timeout;
        let asking = self.watch.pool().run(move || server.fetch(&known, timeout));
        let Some(answer) = asking.await else { return };
        if turn != self.fetches.turn() || !self.may_poll() {
            return;
        }
        match answer {
            Ok(Fetched::Same) => self.fetches.note(Ok(FetchedText::Unchanged)),
            Ok(Fetched::Text(reading)) => {
                self.fetches.note(Ok(FetchedText::New));
                // Whatever comes of it is logged.
                let wanted = Wanted::Fetched { reading, turn };
                drop(self.perform(wanted, Trigger::Poll, None).await);
            }
            Err(errors) => self.fetches.note(Err(&errors)),
        }
    }

    fn may_poll(&self) -> bool {
        !self.draining.get() && self.upgrades.handed_over().is_none()
    }

    /// A text of the server counts as read when it is in force, or wrong for good. Else it is asked
    /// for again: a port that is taken may be free then.
    pub(super) async fn take_fetched(
        self: &Rc<Self>,
        job: &Job,
        read: Result<Read, Refused>,
    ) -> Result<Option<Report>, Refused> {
        let (hash, told, outcome) = match read {
            Ok(Read { hash, told, outcome }) => (Some(hash), told.ok(), outcome),
            Err(refused) => (None, None, Err(refused)),
        };
        let result = match outcome {
            Ok(preparation) => self.take(job, preparation).await,
            Err(refused) => Err(refused),
        };
        if let Err(refused @ (Refused::Impossible(_) | Refused::Superseded(_))) = &result {
            let is_new = self.fetches.is_new_refusal(hash, refused);
            // It was told, with the first try.
            return if is_new || !job.wanted.is_for_a_change() { result } else { Ok(None) };
        }
        // A server that gives nothing has said nothing new.
        if let (Some(hash), Some(validators)) = (hash, told) {
            self.reloads.read.set(hash);
            self.fetches.remember(validators);
            self.fetches.no_refusal();
        }
        if let Ok(Some(_)) = result {
            self.keep_copy(self.running().text);
        }
        result
    }

    /// Keeps a text of the server that is in force, to start from it without the server. Nobody
    /// waits for it: its disk may never come back.
    pub(super) fn keep_copy(self: &Rc<Self>, text: Rc<str>) {
        let copy = self.source.provider.server().and_then(Server::copy).map(PathBuf::from);
        let Some(copy) = copy else { return };
        self.fetches.to_copy.replace(Some(text));
        if !self.fetches.copying.replace(true) {
            engine::spawn(write_copies(Rc::clone(self), copy));
        }
    }
}

/// One at a time, the newest text last.
async fn write_copies(control: Rc<Control>, copy: PathBuf) {
    let fetches = &control.fetches;
    loop {
        let text = fetches.to_copy.take().map(|text| text.to_string());
        let Some(text) = text else { break };
        let copy = copy.clone();
        let writing = control.watch.pool().run(move || Beside::renew(&copy, &text));
        let failed = writing.await.unwrap_or_else(|| Err("writing it panicked".to_owned())).err();
        let before = fetches.copy_fails.replace(failed.clone());
        if let Some(reason) = failed.filter(|reason| before.as_ref() != Some(reason)) {
            log::error!("no copy of the configuration is kept: {reason}");
        }
    }
    fetches.copying.set(false);
}

/// For ever, if there is a server; sleeps while `hot_reload.watch` is off, and while this process
/// drains: it may take connections again.
pub(super) async fn poll(control: Rc<Control>) {
    let Some(server) = control.source.provider.server().cloned() else { return };
    if control.fetches.failing.borrow().is_none() {
        control.keep_copy(control.running().text);
    }
    loop {
        file_watch::wanted(&control, true).await;
        while !control.may_poll() {
            control.changed_once().await;
        }
        let due = Box::pin(due(&control, engine::now()));
        if let Either::First(()) = first(due, file_watch::wanted(&control, false)).await {
            control.poll_server(&server).await;
        }
    }
}

/// Until it is time to ask again. A reload may change when that is.
async fn due(control: &Control, last: Instant) {
    loop {
        let interval = control.plan().hot_reload.poll_interval;
        let left = (last + interval + jitter(interval)).saturating_duration_since(engine::now());
        let waiting = engine::sleep(left.max(Duration::from_millis(1)));
        let changed = std::future::poll_fn(|context| {
            if control.plan().hot_reload.poll_interval != interval {
                return Poll::Ready(());
            }
            control.poll_changed(context);
            Poll::Pending
        });
        if let Either::First(()) = first(waiting, changed).await {
            return;
        }
    }
}
