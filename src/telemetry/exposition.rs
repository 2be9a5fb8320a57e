//! The two text formats of Prometheus, 0.0.4 and OpenMetrics 1.0: which one a scraper wants, and
//! how names, labels and numbers are written. A page leaves in pieces, so that a large one takes
//! neither memory nor the control core's time from others.

use std::io;
use std::time::SystemTime;

use crate::limits;
use crate::plan::Bounds;
use crate::telemetry::exemplars::Exemplar;
use crate::telemetry::metric_names::{Kind, Metric};
use crate::telemetry::metrics::{Durations, micros};
use crate::telemetry::{decimal, trace};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    OpenMetrics,
}

impl Format {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What `Accept` (RFC 9110 section 12.5.1) prefers. OpenMetrics is only for those who name it
    /// in a version that we write; whoever takes neither gets text, as scrapers expect.
    pub(crate) fn accepted(accept: &[u8]) -> Format {
        let (mut text, mut open_metrics) = (0, 0);
        for range in accept.split(|&b| b == b',') {
            let mut parts = range.split(|&b| b == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut version) = (1000, None);
            for parameter in parts {
                match parameter.split_first_chunk::<2>() {
                    Some((b"q=" | b"Q=", value)) => quality = thousandths(value),
                    Some(_) | None => version = version.or(parameter.strip_prefix(b"version=")),
                }
            }
            match (name.as_slice(), version.map(unquoted)) {
                (b"application/openmetrics-text", None | Some(b"1.0.0" | b"1.0")) => {
                    open_metrics = open_metrics.max(quality);
                }
                (b"text/plain", None | Some(b"0.0.4")) | (b"text/*" | b"*/*", _) => {
                    text = text.max(quality);
                }
                (_, _) => {}
            }
        }
        if open_metrics > 0 && open_metrics >= text { Format::OpenMetrics } else { Format::Text }
    }
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

/// A quality: `1`, `0.5`, `0.123`. Nonsense counts as 0: not wanted.
fn thousandths(value: &[u8]) -> u32 {
    let number = str::from_utf8(value).ok().and_then(|text| text.parse::<f32>().ok());
    number.filter(|number| (0.0..=1.0).contains(number)).map_or(0, |number| (number * 1e3) as u32)
}

/// Where the pieces of a page go.
pub(crate) trait Outlet {
    async fn take(&mut self, piece: &mut Vec<u8>) -> io::Result<()>;
}

/// A page on its way.
pub(crate) struct Page<O> {
    format: Format,
    out: Vec<u8>,
    outlet: O,
}

type Labels<'a> = [(&'a str, &'a str)];

impl<O: Outlet> Page<O> {
    pub(crate) fn new(format: Format, outlet: O) -> Page<O> {
        Page { format, out: Vec::new(), outlet }
    }

    /// Between two things of which there may be many.
    pub(crate) async fn breathe(&mut self) -> io::Result<()> {
        if self.out.len() < limits::METRICS_PIECE_BYTES {
            return Ok(());
        }
        self.outlet.take(&mut self.out).await
    }

    pub(crate) async fn end(mut self) -> io::Result<O> {
        if self.format == Format::OpenMetrics {
            self.out.extend_from_slice(b"# EOF\n");
        }
        self.outlet.take(&mut self.out).await?;
        Ok(self.outlet)
    }

    pub(crate) fn plain(&mut self, metric: Metric, value: u64) {
        self.header(metric);
        self.sample(metric, &[], value);
    }

    pub(crate) fn header(&mut self, metric: Metric) {
        let (name, kind) = match (self.format, metric.kind) {
            (Format::OpenMetrics, kind) => (metric.family(), kind),
            (Format::Text, Kind::Info) => (metric.name, Kind::Gauge),
            (Format::Text, kind) => (metric.name, kind),
        };
        let unit = metric.unit();
        self.words(&["# HELP ", name, " ", metric.help, "\n"]);
        self.words(&["# TYPE ", name, " ", kind.label(), "\n"]);
        if self.format == Format::OpenMetrics && !unit.is_empty() {
            self.words(&["# UNIT ", name, " ", unit, "\n"]);
        }
    }

    fn words(&mut self, words: &[&str]) {
        words.iter().for_each(|word| self.out.extend_from_slice(word.as_bytes()));
    }

    pub(crate) fn sample(&mut self, metric: Metric, labels: &Labels<'_>, value: u64) {
        self.suffixed(metric, "", labels, value);
    }

    /// Of what may be below 0.
    pub(crate) fn signed(&mut self, metric: Metric, labels: &Labels<'_>, value: i64) {
        self.series(metric, "", labels);
        if value < 0 {
            self.out.push(b'-');
        }
        decimal::integer(value.unsigned_abs(), &mut self.out);
        self.out.push(b'\n');
    }

    pub(crate) fn seconds(&mut self, metric: Metric, labels: &Labels<'_>, micros: u64) {
        self.series(metric, "", labels);
        decimal::micros_as_seconds(micros, &mut self.out);
        self.out.push(b'\n');
    }

    fn suffixed(&mut self, metric: Metric, suffix: &str, labels: &Labels<'_>, value: u64) {
        self.series(metric, suffix, labels);
        decimal::integer(value, &mut self.out);
        self.out.push(b'\n');
    }

    pub(crate) fn durations(
        &mut self,
        metric: Metric,
        labels: &Labels<'_>,
        bounds: &Bounds,
        durations: &Durations,
        exemplars: &[Option<Exemplar>],
    ) {
        let counts = &durations.buckets[..=bounds.micros().len()];
        let (bounds, sum) = (bounds.micros(), durations.sum_micros);
        self.histogram(metric, labels, bounds, counts, sum, exemplars);
    }

    /// `counts` are not cumulative; the last is of what no bound holds. `exemplars` may be fewer.
    pub(crate) fn histogram(
        &mut self,
        metric: Metric,
        labels: &Labels<'_>,
        bounds: &[u64],
        counts: &[u64],
        sum_micros: u64,
        exemplars: &[Option<Exemplar>],
    ) {
        let mut total = 0;
        for (index, count) in counts.iter().enumerate() {
            total += count;
            let bound = match bounds.get(index) {
                Some(&micros) => self.bound(micros),
                None => "+Inf".to_owned(),
            };
            let mut with_bound = labels.to_vec();
            with_bound.push(("le", &bound));
            self.series(metric, "_bucket", &with_bound);
            decimal::integer(total, &mut self.out);
            if let Some(Some(exemplar)) = exemplars.get(index) {
                self.exemplar(exemplar);
            }
            self.out.push(b'\n');
        }
        self.series(metric, "_sum", labels);
        decimal::micros_as_seconds(sum_micros, &mut self.out);
        self.out.push(b'\n');
        self.suffixed(metric, "_count", labels, total);
    }

    /// Behind a bucket's count: the trace, how long it took, and when it ended. Text has no such
    /// thing.
    fn exemplar(&mut self, exemplar: &Exemplar) {
        if self.format != Format::OpenMetrics {
            return;
        }
        self.words(&[" # {trace_id=\""]);
        trace::write_hex(&mut self.out, exemplar.trace_id, 32);
        self.words(&["\"} "]);
        decimal::micros_as_seconds(exemplar.micros, &mut self.out);
        self.out.push(b' ');
        let at = exemplar.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        decimal::micros_as_seconds(micros(at), &mut self.out);
    }

    /// Seconds without needless zeros; OpenMetrics asks for `1.0` where text has `1`.
    fn bound(&self, micros: u64) -> String {
        let mut digits = Vec::new();
        decimal::micros_as_seconds(micros, &mut digits);
        let text = str::from_utf8(&digits).expect("digits are ASCII").trim_end_matches('0');
        match (text.strip_suffix('.'), self.format) {
            (Some(whole), Format::Text) => whole.to_owned(),
            (Some(_), Format::OpenMetrics) => format!("{text}0"),
            (None, Format::Text | Format::OpenMetrics) => text.to_owned(),
        }
    }

    /// `name{label="value"} `, up to where the number goes.
    fn series(&mut self, metric: Metric, suffix: &str, labels: &Labels<'_>) {
        self.words(&[metric.name, suffix]);
        for (index, (label, value)) in labels.iter().enumerate() {
            self.words(&[if index == 0 { "{" } else { "," }, label, "=\""]);
            escaped(value, &mut self.out);
            self.out.push(b'"');
        }
        self.words(&[if labels.is_empty() { " " } else { "} " }]);
    }
}

/// What both formats ask of label values: backslash, quote and line feed.
fn escaped(value: &str, out: &mut Vec<u8>) {
    for &byte in value.as_bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::telemetry::metric_names as names;

    /// Pieces put together again.
    #[derive(Default)]
    pub(crate) struct Whole {
        pub(crate) text: Vec<u8>,
        pub(crate) pieces: usize,
        pub(crate) largest: usize,
    }

    impl Outlet for Whole {
        async fn take(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
            self.pieces += 1;
            self.largest = self.largest.max(piece.len());
            self.text.append(piece);
            Ok(())
        }
    }

    /// For what never waits.
    pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
        let mut context = Context::from_waker(Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("it waits"),
        }
    }

    fn written(format: Format, write: impl FnOnce(&mut Page<Whole>)) -> String {
        let mut page = Page::new(format, Whole::default());
        write(&mut page);
        String::from_utf8(ready(page.end()).unwrap().text).unwrap()
    }

    #[test]
    fn the_format_is_the_one_that_the_scraper_prefers() {
        let open = [
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "application/openmetrics-text;version=\"1.0.0\"",
            // Prometheus 2.42, and 3.
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
             version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/vnd.google.protobuf;q=0.7,application/openmetrics-text;version=1.0.0;\
             escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1",
        ];
        let text = [
            "",
            "*/*",
            "text/html, */*;q=0.8",
            "text/plain, application/openmetrics-text;q=0.9",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=much",
            "application/json",
            ";;,,=;q",
        ];
        for accept in open {
            assert_eq!(Format::accepted(accept.as_bytes()), Format::OpenMetrics, "{accept}");
        }
        for accept in text {
            assert_eq!(Format::accepted(accept.as_bytes()), Format::Text, "{accept}");
        }
    }

    #[test]
    fn label_values_are_escaped() {
        let labels = [("listener", "odd\"\\\nname")];
        let metric = names::LISTENER_CONNECTIONS_ACTIVE;
        let text = written(Format::Text, |page| page.sample(metric, &labels, 1));
        assert_eq!(
            text,
            "tls_proxy_listener_connections_active{listener=\"odd\\\"\\\\\\nname\"} 1\n"
        );
    }

    #[test]
    fn buckets_are_cumulative_and_bounds_are_written_as_each_format_asks() {
        let metric = names::CLUSTER_QUEUE_SECONDS;
        let write = |page: &mut Page<Whole>| {
            page.histogram(
                metric,
                &[("cluster", "a")],
                &[250, 1_500_000, 2_000_000],
                &[1, 2, 3, 4],
                5,
                &[],
            );
        };
        let name = "tls_proxy_cluster_queue_seconds";
        let lines = |two: &str| {
            format!(
                "{name}_bucket{{cluster=\"a\",le=\"0.00025\"}} 1\n\
                 {name}_bucket{{cluster=\"a\",le=\"1.5\"}} 3\n\
                 {name}_bucket{{cluster=\"a\",le=\"{two}\"}} 6\n\
                 {name}_bucket{{cluster=\"a\",le=\"+Inf\"}} 10\n\
                 {name}_sum{{cluster=\"a\"}} 0.000005\n{name}_count{{cluster=\"a\"}} 10\n"
            )
        };
        assert_eq!(written(Format::Text, write), lines("2"));
        assert_eq!(written(Format::OpenMetrics, write), lines("2.0") + "# EOF\n");
    }

    #[test]
    fn headers_name_families_as_each_format_has_them() {
        let write = |page: &mut Page<Whole>| {
            page.header(names::PROCESS_CPU_SECONDS_TOTAL);
            page.header(names::BUILD_INFO);
        };
        let kinds = |format| {
            let text = written(format, write);
            let lines = text.lines().filter(|line| !line.starts_with("# HELP"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let text =
            ["# TYPE process_cpu_seconds_total counter", "# TYPE tls_proxy_build_info gauge"];
        assert_eq!(kinds(Format::Text), text);
        let open = [
            "# TYPE process_cpu_seconds counter",
            "# UNIT process_cpu_seconds seconds",
            "# TYPE tls_proxy_build info",
            "# EOF",
        ];
        assert_eq!(kinds(Format::OpenMetrics), open);
    }
}
