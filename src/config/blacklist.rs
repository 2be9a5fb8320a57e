//! `[blacklist]`: where it is kept. Its entries come by the admin port.

use std::path::PathBuf;

use serde::Serialize;

use super::read::{At, Section};
use super::value::path;

#[derive(Clone, Debug, Serialize)]
pub struct Blacklist {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<At<PathBuf>>,
}

impl Blacklist {
    pub(super) fn read(mut section: Section<'_>) -> Blacklist {
        let blacklist = Blacklist { path: section.value("path", path) };
        section.finish();
        blacklist
    }
}
