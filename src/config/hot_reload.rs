//! `[hot_reload]`: when a new configuration is read, and how long older ones stay in use.

use std::time::Duration;

use serde::Serialize;
use toml::de::DeValue;

use super::error::Wrong;
use super::read::{At, Section};
use super::value::{Time, boolean, integer, time, time_or_none};
use crate::limits;

#[derive(Clone, Debug, Serialize)]
pub struct HotReload {
    pub watch: At<bool>,
    pub poll_interval: At<Time>,
    pub poll_timeout: At<Time>,
    pub max_generations: At<usize>,
    /// 0: none.
    pub max_age: At<Time>,
}

impl HotReload {
    pub(super) fn read(mut section: Section<'_>) -> HotReload {
        let hot_reload = HotReload {
            watch: section.value_or("watch", true, boolean),
            poll_interval: section.value_or(
                "poll_interval",
                Time(limits::CONFIG_POLL_INTERVAL),
                interval,
            ),
            poll_timeout: section.value_or("poll_timeout", Time(limits::CONFIG_POLL_TIMEOUT), time),
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

fn interval(value: &DeValue<'_>) -> Result<Time, Wrong> {
    let Time(interval) = time(value)?;
    let least = limits::CONFIG_POLL_INTERVAL_MIN;
    if interval < least {
        return Err(Wrong::new(format!("{interval:?} is too often to ask a server"))
            .note(format!("expected at least {least:?}")));
    }
    Ok(Time(interval))
}
