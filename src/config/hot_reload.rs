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
            poll_timeout: section.value_or(
                "poll_timeout",
                Time(limits::CONFIG_POLL_TIMEOUT),
                timeout,
            ),
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

/// A question that lasts as long as a whole reload may would be ended with it.
fn timeout(value: &DeValue<'_>) -> Result<Time, Wrong> {
    let Time(timeout) = time(value)?;
    let most = limits::RELOAD_PREPARE_TIMEOUT;
    if timeout >= most {
        return Err(Wrong::new(format!("{timeout:?} is too long to wait for a server"))
            .note(format!("expected less than {most:?}, which is what a whole reload has")));
    }
    Ok(Time(timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_to_a_server_ends_before_the_reload_that_asks_it() {
        let read = |text: &str| timeout(DeValue::parse(text).unwrap().get_ref());
        assert_eq!(read("\"19s\"").ok(), Some(Time(Duration::from_secs(19))));
        let wrong = read("\"20s\"").unwrap_err();
        assert!(wrong.message.contains("too long") && wrong.notes[0].contains("less than 20s"));
    }
}
