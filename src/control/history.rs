//! Configurations as texts: those that were in force, and those that come from the admin API
//! instead of the file.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::SystemTime;

use crate::config::{self, Syntax};
use crate::control::Control;
use crate::control::config_file::Beside;
use crate::control::prepare::compile;
use crate::control::reload::{Refused, Report, Trigger, Wanted, hash};
use crate::control::trigger::Title;
use crate::engine;
use crate::limits;

/// A configuration that was put in force.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) version: u64,
    pub(crate) at: SystemTime,
    pub(crate) trigger: Trigger,
    pub(crate) syntax: Syntax,
    pub(crate) text: Rc<str>,
}

impl Applied {
    /// Tells texts apart (FNV-1a, 64 bits); no protection against forgery.
    pub(crate) fn hash(&self) -> u64 {
        hash(&*self.text)
    }
}

/// One at a time: the file must end with the text that was put in force last.
struct Writing(Rc<Control>);

impl Writing {
    fn begin(control: &Rc<Control>) -> Option<Rc<Writing>> {
        let is_first = !control.reloads.writing.replace(true);
        is_first.then(|| Rc::new(Writing(Rc::clone(control))))
    }

    /// What `work` gives, beside this core, or why not in time. The disk may hold it longer than
    /// who asked for it waits: then nothing else is written until it lets go.
    async fn on_disk<T: Send + 'static>(
        self: &Rc<Self>,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Option<Result<T, String>> {
        let result = Rc::new(RefCell::new(None));
        let (writing, slot) = (Rc::clone(self), Rc::clone(&result));
        engine::spawn(async move {
            let control = &writing.0;
            let given = control.watch.pool().run(work).await;
            let panicked = || Err("writing the file panicked: this is a bug".to_owned());
            *slot.borrow_mut() = Some(given.unwrap_or_else(panicked));
            control.wake();
        });
        let is_done = |_: &Control| result.borrow().is_some();
        self.0.until(limits::RELOAD_PREPARE_TIMEOUT, is_done).await;
        result.borrow_mut().take()
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.reloads.writing.set(false);
    }
}

impl Control {
    /// The text in force with a part of one (RFC 7396) over it. The error is about that part.
    pub(crate) async fn patched(&self, patch: Vec<u8>) -> Result<(Syntax, String), String> {
        let Applied { syntax, text, .. } = self.running();
        let text = text.to_string();
        let patching = self.watch.pool().run(move || config::patched(syntax, &text, &patch));
        patching.await.unwrap_or_else(|| Err("putting it over panicked: this is a bug".to_owned()))
    }

    /// Puts a text in force that did not come from the file. The file stays as it is.
    pub(crate) async fn apply_text(
        self: &Rc<Self>,
        syntax: Syntax,
        text: String,
        trigger: Trigger,
        over: Option<u64>,
    ) -> Result<Report, Refused> {
        self.perform(Wanted::Text(syntax, Rc::from(text)), trigger, over).await
    }

    /// The file that a text of this syntax may be written to.
    pub(crate) fn file_for(&self, syntax: Syntax) -> Result<PathBuf, Refused> {
        let Some(file) = self.source.provider.file() else {
            return Err(Refused::Impossible(self.why_not_written()));
        };
        let of_file = Syntax::of_file(file);
        if of_file != syntax {
            let (name, own, given) = (file.display(), of_file.name(), syntax.name());
            return Err(Refused::Impossible(format!(
                "{name} is {own}, this text is {given}; \
                 PUT the whole text as {own} to have it written, or leave `persist` out"
            )));
        }
        Ok(file.to_owned())
    }

    /// The same, and the file says so from now on; or why it does not.
    pub(crate) async fn apply_and_write(
        self: &Rc<Self>,
        syntax: Syntax,
        text: String,
        trigger: Trigger,
        over: Option<u64>,
    ) -> Result<(Report, Result<(), String>), Refused> {
        let file = self.file_for(syntax)?;
        let Some(writing) = Writing::begin(self) else {
            return Err(Refused::Impossible(
                "another configuration is being written; try again when that is done".to_owned(),
            ));
        };
        let overdue = format!(
            "{}: writing it takes longer than {:?}: find out what holds its disk",
            file.display(),
            limits::RELOAD_PREPARE_TIMEOUT
        );
        let copy = text.clone();
        let written = writing.on_disk(move || Beside::write(&file, &copy)).await;
        let late = || Err(format!("{overdue}; nothing was changed"));
        let beside = written.unwrap_or_else(late).map_err(Refused::Impossible)?;
        let read = hash(&text);
        // Refused: what is beside the file goes with `beside`.
        let report = self.apply_text(syntax, text, trigger, over).await?;
        // Whoever watches the file finds what is in force already.
        let before = self.reloads.read.replace(read);
        let placed = writing.on_disk(move || beside.put_in_place()).await;
        if let Some(Err(_)) = placed {
            self.reloads.read.set(before);
        }
        let placed = placed.unwrap_or_else(|| {
            Err(format!("it is in force, but {overdue}; it may have the text later"))
        });
        if let Err(reason) = &placed {
            log::warn!("version {}: {reason}", report.version);
        }
        Ok((report, placed))
    }

    /// What `corelane check` would say of this text for this process; nothing is changed.
    pub(crate) async fn check_text(
        self: &Rc<Self>,
        syntax: Syntax,
        text: String,
        trigger: Trigger,
    ) -> Result<Vec<String>, Refused> {
        let (source, version) = (self.source.clone(), self.plan().version + 1);
        let title = Title::of(trigger, &source);
        let (called, used) = (title.name.clone(), self.tls.material());
        let checking = self.in_time(&called, move || {
            compile(&source, &used, &title, syntax, &text, version).map(|(_, warnings)| warnings)
        });
        checking.await?
    }

    /// The text that is in force.
    pub(crate) fn running(&self) -> Applied {
        let history = self.reloads.history.borrow();
        history.back().expect("the first one is there from the start").clone()
    }

    /// `None`: the process has no configuration file.
    pub(crate) fn file_name(&self) -> Option<String> {
        self.source.provider.file().map(|file| file.display().to_string())
    }

    fn why_not_written(&self) -> String {
        let name = self.source.name();
        match self.source.provider.server() {
            Some(_) => format!(
                "the configuration comes from {name}, which is only read from: change it there, or \
                 leave `persist` out"
            ),
            None => format!(
                "the configuration is {name}: there is no file to write; leave `persist` out, or \
                 start with --config FILE"
            ),
        }
    }

    /// Back to a configuration of the history.
    pub(crate) async fn rollback(self: &Rc<Self>, version: u64) -> Result<Report, Refused> {
        let found = {
            let history = self.reloads.history.borrow();
            history.iter().find(|old| old.version == version).cloned()
        };
        let Some(Applied { syntax, text, .. }) = found else {
            let known: Vec<String> =
                self.history().iter().map(|old| old.version.to_string()).collect();
            return Err(Refused::Impossible(format!(
                "version {version} is not remembered; those that are: {}",
                known.join(", ")
            )));
        };
        self.perform(Wanted::Text(syntax, text), Trigger::Rollback(version), None).await
    }

    /// What was put in force lately, oldest first.
    pub(crate) fn history(&self) -> Vec<Applied> {
        self.reloads.history.borrow().iter().cloned().collect()
    }
}
