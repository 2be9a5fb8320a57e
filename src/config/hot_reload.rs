//! `[hot_reload]`: when a new configuration is read, and how long older ones stay in use.

use std::time::Duration;

use serde::Serialize;

use super::read::{At, Section};
use super::value::{Time, boolean, integer, time_or_none};
use crate::limits;

#[derive(Clone, Debug, Serialize)]
pub struct HotReload {
    pub watch: At<bool>,
    pub max_generations: At<usize>,
    /// 0: none.
    pub max_age: At<Time>,
}

impl HotReload {
    pub(super) fn read(mut section: Section<'_>) -> HotReload {
        let hot_reload = HotReload {
            watch: section.value_or("watch", true, boolean),
            max_generations: section.value_or(
                "max_generations",
                limits::GENERATIONS_MAX,
                integer(1..=limits::GENERATIONS_CEILING as u64),
            ),
            max_age: section.value_or("max_age", Time(Duration::ZERO), time_or_none),
        };
        section.finish();
        hot_reload
    }
}
