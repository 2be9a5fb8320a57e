//! Who asked for a configuration, as logs, the admin API and events say it.

use std::fmt;

use crate::cli::Source;
use crate::config;

/// Who asked for a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    Start,
    /// SIGHUP.
    Signal,
    /// The file has changed.
    Watch,
    /// The server has another text.
    Poll,
    Admin,
    /// A part of one, over the one in force.
    Patch,
    /// Back to this version.
    Rollback(u64),
}

impl Trigger {
    /// What messages call the text that came with it.
    pub(super) fn name(self, source: &Source) -> String {
        match self {
            Trigger::Start | Trigger::Signal | Trigger::Watch | Trigger::Poll => source.name(),
            Trigger::Admin => "(admin)".to_owned(),
            Trigger::Patch => "(patch)".to_owned(),
            Trigger::Rollback(version) => format!("(version {version})"),
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trigger::Start => f.write_str("start"),
            Trigger::Signal => f.write_str("SIGHUP"),
            Trigger::Watch => f.write_str("file change"),
            Trigger::Poll => f.write_str("poll"),
            Trigger::Admin => f.write_str("admin"),
            Trigger::Patch => f.write_str("patch"),
            Trigger::Rollback(version) => write!(f, "rollback to {version}"),
        }
    }
}

/// What messages call a text.
pub(super) struct Title {
    pub(super) name: String,
    /// By whoever reads them: then its lines mean something.
    pub(super) is_seen: bool,
}

impl Title {
    pub(super) fn of(trigger: Trigger, source: &Source) -> Title {
        Title { name: trigger.name(source), is_seen: trigger != Trigger::Patch }
    }

    pub(super) fn placed(&self, errors: config::Errors) -> config::Errors {
        if self.is_seen { errors } else { errors.without_places() }
    }
}
