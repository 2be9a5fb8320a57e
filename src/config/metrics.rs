//! `[metrics]`: where the page is, and what it shows.

use serde::Serialize;
use toml::Value;
use toml::de::DeValue;

use super::document::Port;
use super::error::Wrong;
use super::read::{At, Section};
use super::value::{Written, boolean, integer, text};
use crate::limits;
use crate::plan::{Bounds, Metering};

#[derive(Clone, Debug, Serialize)]
pub struct Metrics {
    #[serde(flatten)]
    pub port: Port,
    pub path: At<String>,
    pub compat: At<bool>,
    pub max_series: At<usize>,
    pub buckets: At<Bounds>,
    pub exemplars: At<bool>,
}

impl Metrics {
    pub(super) fn read(mut section: Section<'_>) -> Metrics {
        let series = integer(MAX_SERIES_MIN..=limits::METRICS_SERIES_CEILING as u64);
        let metrics = Metrics {
            port: Port::read(&mut section, METRICS_PORT),
            path: section.value_or("path", "/metrics".to_owned(), page_path),
            compat: section.value_or("compat", true, boolean),
            max_series: section.value_or("max_series", limits::METRICS_SERIES_MAX, series),
            buckets: section.value_or("buckets", Bounds::usual(), buckets),
            exemplars: section.value_or("exemplars", false, boolean),
        };
        section.finish();
        metrics
    }

    pub(super) fn compile(&self) -> Metering {
        Metering {
            path: self.path.value.clone(),
            compat: self.compat.value,
            bounds: self.buckets.value.clone(),
            series_max: self.max_series.value,
            exemplars: self.exemplars.value,
        }
    }
}

const METRICS_PORT: u16 = 9090;
/// Less would not hold one listener.
const MAX_SERIES_MIN: u64 = 100;

fn page_path(value: &DeValue<'_>) -> Result<String, Wrong> {
    let given = text(value)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    if given.starts_with('/') && given.bytes().all(plain) {
        return Ok(given);
    }
    Err(Wrong::new(format!("`{}` cannot be the path of a page", given.escape_debug()))
        .note("expected a path such as \"/metrics\": letters, digits, `-`, `_`, `.`, `~`, `/`"))
}

/// Bounds in seconds.
fn buckets(value: &DeValue<'_>) -> Result<Bounds, Wrong> {
    let DeValue::Array(list) = value else {
        return Err(Wrong::new("this is not a list of bounds").note(BUCKETS_EXPECTED));
    };
    let mut micros = Vec::with_capacity(list.len());
    for element in list.iter() {
        let written = match element.get_ref() {
            DeValue::Integer(number) => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            DeValue::String(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => "",
        };
        let bound = micros_of(written).ok_or_else(|| {
            Wrong::new(format!("bound {} of this list is no duration", micros.len() + 1))
                .note("expected seconds from 0.000001 to 86400, at most six decimals")
        })?;
        micros.push(bound);
    }
    let count = micros.len();
    Bounds::new(micros).ok_or_else(|| {
        Wrong::new(format!("these {count} bounds make no histogram")).note(BUCKETS_EXPECTED)
    })
}

const BUCKETS_EXPECTED: &str =
    "expected 1 to 20 numbers of seconds, each larger than the one before: [0.01, 0.1, 1]";
const _: () = assert!(limits::METRICS_BUCKETS_MAX == 20);

fn micros_of(seconds: &str) -> Option<u64> {
    let micros = seconds.parse::<f64>().ok()? * 1e6;
    let whole = micros.round();
    let exact = (micros - whole).abs() < 1e-3;
    (exact && (1.0..=MICROS_MAX).contains(&whole)).then_some(whole as u64)
}

const MICROS_MAX: f64 = 86_400e6;

impl Written for Bounds {
    fn written(&self) -> Value {
        let seconds = |micros: &u64| Value::Float(*micros as f64 / 1e6);
        Value::Array(self.micros().iter().map(seconds).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn load(metrics: &str) -> Result<Vec<u64>, String> {
        let text = format!(
            "metrics = {{ {metrics} }}\nlisteners = [{{ name = \"l\", bind = \"127.0.0.1:0\" }}]\n"
        );
        let document = config::load("test", &text).map_err(|errors| errors.to_string())?;
        let again =
            config::load("again", &config::print(&document)).expect("what is printed loads");
        assert_eq!(again.metrics.buckets.value, document.metrics.buckets.value);
        Ok(document.metrics.buckets.value.micros().to_vec())
    }

    #[test]
    fn bounds_are_seconds_and_survive_printing() {
        let expected = vec![250, 10_000, 1_000_000, 86_400_000_000];
        assert_eq!(load("buckets = [0.00025, 1e-2, 1, 86_400.0]"), Ok(expected));
        assert_eq!(load(""), Ok(limits::METRICS_BUCKETS_MICROS.to_vec()));
    }

    #[test]
    fn bounds_that_make_no_histogram_are_refused() {
        for wrong in ["[]", "[1, 1]", "[2, 1]", "3", "[0]", "[-1]", "[nan]", "[inf]", "[\"1\"]"] {
            let error = load(&format!("buckets = {wrong}")).unwrap_err();
            assert!(error.contains("test:1:") && error.contains("expected"), "{wrong}: {error}");
        }
        let many: Vec<String> = (1..=21).map(|bound| bound.to_string()).collect();
        assert!(load(&format!("buckets = [{}]", many.join(","))).is_err());
    }

    #[test]
    fn a_path_that_no_scraper_can_ask_for_is_refused() {
        assert!(load("path = \"/internal/metrics\"").is_ok());
        for wrong in ["", "metrics", "/a b", "/a?b", "/\\u00e9"] {
            assert!(load(&format!("path = \"{wrong}\"")).is_err(), "{wrong}");
        }
    }
}
