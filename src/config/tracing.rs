//! `[tracing]` and a route's `tracing`: the sections as written, and the plan's part made of them.

use serde::{Serialize, Serializer};
use toml::Value;
use toml::de::DeValue;

use super::address::{WrongUrl, http_url};
use super::document::{Time, lines_by_name};
use super::error::Wrong;
use super::read::{At, Section};
use super::value::{Names, Written, boolean, check_header_name, choice, found, header_value, name};
use super::value::{string, time, written_name};
use crate::limits;
use crate::plan::{self, Collector, HttpUrl, Secret, Spoken, Trust};
use crate::telemetry::trace::otlp::Service;
use crate::telemetry::trace::{Format, Ratio};

#[derive(Clone, Debug, Serialize)]
pub struct Tracing {
    pub enabled: At<bool>,
    pub propagate: Vec<At<Format>>,
    pub sample: At<Share>,
    pub parent: At<bool>,
    pub trust: At<Trust>,
    pub service_name: At<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_id: Option<At<String>>,
    pub otlp: Otlp,
    pub zipkin: Zipkin,
}

#[derive(Clone, Debug, Serialize)]
pub struct Otlp {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<At<HttpUrl>>,
    pub protocol: At<OtlpProtocol>,
    #[serde(serialize_with = "hidden")]
    pub headers: Vec<(At<String>, Vec<At<String>>)>,
    pub timeout: At<Time>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Zipkin {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<At<HttpUrl>>,
    pub timeout: At<Time>,
}

/// Of one route.
#[derive(Clone, Debug, Serialize)]
pub struct RouteTracing {
    pub enabled: At<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<At<Share>>,
}

/// From 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub f64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    Protobuf,
    Json,
}

const FORMATS: Names<Format> = &[
    ("w3c", Format::W3c),
    ("b3", Format::B3),
    ("b3multi", Format::B3Multi),
    ("jaeger", Format::Jaeger),
];
const TRUSTS: Names<Trust> = &[("all", Trust::All), ("trusted_proxies", Trust::TrustedProxies)];
const PROTOCOLS: Names<OtlpProtocol> =
    &[("protobuf", OtlpProtocol::Protobuf), ("json", OtlpProtocol::Json)];

impl Tracing {
    pub(super) fn read(mut section: Section<'_>) -> Tracing {
        let given = section.has("propagate");
        let mut propagate = section.list("propagate", choice("trace header format", FORMATS));
        if !given {
            propagate.push(At::unplaced(Format::W3c));
        }
        let tracing = Tracing {
            enabled: section.value_or("enabled", false, boolean),
            propagate,
            sample: section.value_or("sample", Share(limits::TRACE_SHARE), share),
            parent: section.value_or("parent", true, boolean),
            trust: section.value_or("trust", Trust::All, choice("trust in trace headers", TRUSTS)),
            service_name: section.value_or("service_name", "corelane".to_owned(), name),
            service_id: section.value("service_id", name),
            otlp: Otlp::read(section.section("otlp")),
            zipkin: Zipkin::read(section.section("zipkin")),
        };
        section.finish();
        tracing
    }
}

impl Otlp {
    fn read(mut section: Section<'_>) -> Otlp {
        let mut headers = Vec::new();
        for (name, item) in section.entries("headers") {
            let own = ["content-type", "host", "user-agent"];
            if let Err(wrong) = check_header_name(&name.value) {
                item.refuse(name.offset, wrong);
            } else if own.contains(&name.value.to_ascii_lowercase().as_str()) {
                let wrong = Wrong::new(format!("`{}` is written by the exporter", name.value))
                    .note("expected other headers, such as Authorization");
                item.refuse(name.offset, wrong);
            } else if let Some(value) = item.parse(header_value) {
                headers.push((name, vec![value]));
            }
        }
        let protocol = choice("OTLP protocol", PROTOCOLS);
        let otlp = Otlp {
            endpoint: section.value("endpoint", |value| url(value, OTLP_PATH)),
            protocol: section.value_or("protocol", OtlpProtocol::Protobuf, protocol),
            headers,
            timeout: section.value_or("timeout", Time(limits::TRACE_TIMEOUT), time),
        };
        section.finish();
        otlp
    }
}

impl Zipkin {
    fn read(mut section: Section<'_>) -> Zipkin {
        let zipkin = Zipkin {
            endpoint: section.value("endpoint", |value| url(value, ZIPKIN_PATH)),
            timeout: section.value_or("timeout", Time(limits::TRACE_TIMEOUT), time),
        };
        section.finish();
        zipkin
    }
}

impl RouteTracing {
    /// `tracing = false` is short for `tracing = { enabled = false }`.
    pub(super) fn read(route: &mut Section<'_>) -> RouteTracing {
        if route.is_boolean("tracing") {
            return RouteTracing {
                enabled: route.value_or("tracing", true, boolean),
                sample: None,
            };
        }
        let mut section = route.section("tracing");
        let tracing = RouteTracing {
            enabled: section.value_or("enabled", true, boolean),
            sample: section.value("sample", share),
        };
        section.finish();
        tracing
    }
}

// --- values -----------------------------------------------------------------------------------

fn share(value: &DeValue<'_>) -> Result<Share, Wrong> {
    let expected = "expected a share from 0 to 1, such as 0.01 for one trace in a hundred";
    let number = match value {
        DeValue::Float(written) => written.as_str().replace('_', "").parse::<f64>().ok(),
        DeValue::Integer(written) => written.as_str().parse::<f64>().ok(),
        DeValue::String(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => {
            let wrong = Wrong::new(format!("expected a number, found {}", found(value)));
            return Err(wrong.note(expected));
        }
    };
    match number.filter(|share| (0.0..=1.0).contains(share)) {
        Some(share) => Ok(Share(share)),
        None => Err(Wrong::new("this is no share").note(expected)),
    }
}

const OTLP_PATH: &str = "/v1/traces";
const ZIPKIN_PATH: &str = "/api/v2/spans";

fn url(value: &DeValue<'_>, path: &str) -> Result<HttpUrl, Wrong> {
    parse_url(string(value)?, path)
        .map_err(|(message, expected)| Wrong::new(message).note(expected))
}

/// An OTLP endpoint, as `--otlp-endpoint` has it.
pub fn otlp_url(given: &str) -> Result<HttpUrl, String> {
    parse_url(given, OTLP_PATH).map_err(|(message, expected)| format!("{message}; {expected}"))
}

/// `http://host[:port][/path]`; `path` where none is written. Errors: what is wrong, what to do.
fn parse_url(given: &str, path: &str) -> Result<HttpUrl, (String, String)> {
    let url = http_url(given).map_err(|wrong| match wrong {
        WrongUrl::Https => (
            "https to a trace collector is not supported yet".to_owned(),
            "use http:// to a collector on this host, which can speak TLS further".to_owned(),
        ),
        WrongUrl::User => expecting("a user in the URL is not sent: use `headers`", path),
        WrongUrl::Other(message) => expecting(&message, path),
    })?;
    let path = if url.path.len() > 1 { url.path } else { path.to_owned() };
    Ok(HttpUrl { path, ..url })
}

fn expecting(message: &str, path: &str) -> (String, String) {
    (message.to_owned(), format!("expected a URL such as \"http://collector:4318{path}\""))
}

impl Written for Share {
    fn written(&self) -> Value {
        Value::Float(self.0)
    }
}

impl Written for Format {
    fn written(&self) -> Value {
        written_name(FORMATS, *self)
    }
}

impl Written for Trust {
    fn written(&self) -> Value {
        written_name(TRUSTS, *self)
    }
}

impl Written for OtlpProtocol {
    fn written(&self) -> Value {
        written_name(PROTOCOLS, *self)
    }
}

impl Written for HttpUrl {
    fn written(&self) -> Value {
        Value::String(self.to_string())
    }
}

/// Headers carry keys: what is printed has their names only.
fn hidden<S: Serializer>(
    headers: &[(At<String>, Vec<At<String>>)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let hide =
        |(name, _): &(At<String>, _)| (name.clone(), vec![At::unplaced("(hidden)".to_owned())]);
    lines_by_name(&headers.iter().map(hide).collect::<Vec<_>>(), serializer)
}

// --- the plan ---------------------------------------------------------------------------------

pub(super) fn compile(tracing: &Tracing) -> Option<plan::Tracing> {
    let (otlp, zipkin) = (&tracing.otlp, &tracing.zipkin);
    let service = Service {
        name: tracing.service_name.value.clone(),
        id: tracing.service_id.as_ref().map(|id| id.value.clone()),
    };
    let secret = |(name, values): &(At<String>, Vec<At<String>>)| {
        values.first().map(|value| (name.value.clone(), Secret(value.value.clone())))
    };
    let to_otlp = otlp.endpoint.as_ref().map(|url| Collector {
        url: url.value.clone(),
        spoken: match otlp.protocol.value {
            OtlpProtocol::Protobuf => Spoken::OtlpProtobuf,
            OtlpProtocol::Json => Spoken::OtlpJson,
        },
        headers: otlp.headers.iter().filter_map(secret).collect(),
        timeout: otlp.timeout.value.0,
        service: service.clone(),
    });
    let to_zipkin = zipkin.endpoint.as_ref().map(|url| Collector {
        url: url.value.clone(),
        spoken: Spoken::Zipkin,
        headers: Vec::new(),
        timeout: zipkin.timeout.value.0,
        service,
    });
    tracing.enabled.value.then(|| plan::Tracing {
        propagate: tracing.propagate.iter().map(|format| format.value).collect(),
        share: Ratio::new(tracing.sample.value.0),
        parent: tracing.parent.value,
        trust: tracing.trust.value,
        collectors: to_otlp.into_iter().chain(to_zipkin).collect(),
    })
}

/// `None`: off for this route.
pub(super) fn compile_route(route: &RouteTracing, tracing: &Tracing) -> Option<Ratio> {
    let share = route.sample.as_ref().unwrap_or(&tracing.sample);
    route.enabled.value.then(|| Ratio::new(share.value.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_a_port_and_a_path() {
        let text = |given: &str| parse_url(given, OTLP_PATH).map(|url| url.to_string());
        for (given, expected) in [
            ("http://jaeger:4318/v1/traces", "http://jaeger:4318/v1/traces"),
            ("http://jaeger:4318", "http://jaeger:4318/v1/traces"),
            ("HTTP://10.0.0.1/", "http://10.0.0.1/v1/traces"),
            ("http://[::1]/x?y=1", "http://[::1]/x?y=1"),
        ] {
            assert_eq!(text(given), Ok(expected.to_owned()));
        }
        for wrong in [
            "",
            "jaeger:4318",
            "http://",
            "http://:1",
            "http://a:b",
            "http://u@a",
            "http://a/ b",
            "http://a?b",
            "ftp://a",
            "http://a/b#c",
            "http://a:99999",
            "http://a b",
            "https://a",
            "http://a/\r\nX: y",
        ] {
            assert!(text(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares_are_from_0_to_1() {
        let read = |text: &str| share(DeValue::parse(text).unwrap().get_ref()).ok();
        for (text, expected) in [("0.01", 0.01), ("0", 0.0), ("1", 1.0), ("1.0", 1.0)] {
            assert_eq!(read(text), Some(Share(expected)), "{text}");
        }
        for wrong in ["1.01", "-0.1", "2", "nan", "inf", "\"0.1\"", "true", "[]"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
