//! Configurations as texts: those that were in force, and those that come from the admin API
//! instead of the file.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::SystemTime;

use crate::config::Syntax;
use crate::control::Control;
use crate::control::config_file::Beside;
use crate::control::reload::{Refused, Report, Trigger, Wanted, compile, hash};

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
        hash(&self.text)
    }
}

/// One at a time: the file must end with the text that was put in force last.
struct Writing<'a>(&'a Cell<bool>);

impl Writing<'_> {
    fn begin(running: &Cell<bool>) -> Option<Writing<'_>> {
        (!running.replace(true)).then_some(Writing(running))
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Control {
    /// Puts a text in force that did not come from the file. The file stays as it is.
    pub(crate) async fn apply_text(
        self: &Rc<Self>,
        syntax: Syntax,
        text: String,
        over: Option<u64>,
    ) -> Result<Report, Refused> {
        self.perform(Wanted::Text(syntax, Rc::from(text)), Trigger::Admin, over).await
    }

    /// The file that a text of this syntax may be written to.
    pub(crate) fn file_for(&self, syntax: Syntax) -> Result<PathBuf, Refused> {
        let Some(file) = self.source.file() else {
            let name = self.source.name();
            return Err(Refused::Impossible(format!(
                "the configuration is {name}: there is no file to write; \
                 leave `persist` out, or start with --config FILE"
            )));
        };
        let of_file = Syntax::of_file(file);
        if of_file != syntax {
            let (name, own, given) = (file.display(), of_file.name(), syntax.name());
            return Err(Refused::Impossible(format!(
                "{name} is {own}, this text is {given}; \
                 send {own} to have it written, or leave `persist` out"
            )));
        }
        Ok(file.to_owned())
    }

    /// The same, and the file says so from now on; or why it does not.
    pub(crate) async fn apply_and_write(
        self: &Rc<Self>,
        syntax: Syntax,
        text: String,
        over: Option<u64>,
    ) -> Result<(Report, Result<(), String>), Refused> {
        let file = self.file_for(syntax)?;
        let Some(_writing) = Writing::begin(&self.reloads.writing) else {
            return Err(Refused::Impossible(
                "another configuration is being written; try again when that is done".to_owned(),
            ));
        };
        let panicked = || "writing the file panicked: this is a bug".to_owned();
        let lost = || Refused::Impossible(panicked());
        let copy = text.clone();
        let written = self.watch.pool().run(move || Beside::write(&file, &copy)).await;
        let beside = written.ok_or_else(lost)?.map_err(Refused::Impossible)?;
        let read = hash(&text);
        // Refused: what is beside the file goes with `beside`.
        let report = self.apply_text(syntax, text, over).await?;
        // Whoever watches the file finds what is in force already.
        let before = self.reloads.read.replace(read);
        let placing = self.watch.pool().run(move || beside.put_in_place()).await;
        let placed = placing.unwrap_or_else(|| Err(panicked()));
        if let Err(reason) = &placed {
            log::warn!("version {}: {reason}", report.version);
            self.reloads.read.set(before);
        }
        Ok((report, placed))
    }

    /// What `corelane check` would say of this text for this process; nothing is changed.
    pub(crate) async fn check_text(
        self: &Rc<Self>,
        syntax: Syntax,
        text: String,
    ) -> Result<Vec<String>, Refused> {
        let (source, version) = (self.source.clone(), self.plan().version + 1);
        let name = Trigger::Admin.name(&source);
        let called = name.clone();
        let checking = self.in_time(&called, move || {
            compile(&source, &name, syntax, &text, version).map(|(_, warnings)| warnings)
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
        self.source.file().map(|file| file.display().to_string())
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
