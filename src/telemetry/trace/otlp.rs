//! OTLP: spans as an `ExportTraceServiceRequest`, in protobuf and in JSON
//! (<https://opentelemetry.io/docs/specs/otlp/>, opentelemetry/proto/trace/v1/trace.proto). Field
//! numbers and names are those of the .proto files.

use crate::telemetry::trace::attributes::Value;
use crate::telemetry::trace::protobuf::{self, Field, bytes, fixed64, message, varint};
use crate::telemetry::trace::span::{Kind, Span};
use crate::telemetry::trace::write_hex;
use crate::telemetry::{decimal, json};

/// Whose spans they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    /// Of this process among those of the name.
    pub id: Option<String>,
}

impl Service {
    fn attributes(&self) -> Vec<(&'static str, Value<'_>)> {
        let text = |text: &str| Value::Text(text.to_owned().into());
        let mut list = vec![
            ("service.name", text(&self.name)),
            ("service.version", text(env!("CARGO_PKG_VERSION"))),
        ];
        list.extend(self.id.as_ref().map(|id| ("service.instance.id", text(id))));
        list
    }
}

fn kind(kind: Kind) -> u64 {
    match kind {
        Kind::Server => 2,
        Kind::Client => 3,
    }
}

const STATUS_ERROR: u64 = 2;

// --- protobuf ---------------------------------------------------------------------------------

/// Appends a request with the spans that `spans` writes one by one.
pub fn request(
    out: &mut Vec<u8>,
    service: &Service,
    spans: impl FnOnce(&mut dyn FnMut(&Span<'_>)),
) {
    message(out, 1, |out| {
        message(out, 1, |out| attributes(out, 1, &service.attributes()));
        message(out, 2, |out| {
            message(out, 1, |out| {
                bytes(out, 1, SCOPE.as_bytes());
                bytes(out, 2, env!("CARGO_PKG_VERSION").as_bytes());
            });
            spans(&mut |span| message(out, 2, |out| one(out, span)));
        });
    });
}

const SCOPE: &str = "corelane";

fn one(out: &mut Vec<u8>, span: &Span<'_>) {
    bytes(out, 1, &span.trace_id.to_be_bytes());
    bytes(out, 2, &span.id.to_be_bytes());
    if span.parent_id != 0 {
        bytes(out, 4, &span.parent_id.to_be_bytes());
    }
    bytes(out, 5, span.name.as_bytes());
    varint(out, 6, kind(span.kind));
    fixed64(out, 7, span.begin_nanos);
    fixed64(out, 8, span.end_nanos);
    attributes(out, 9, &span.attributes);
    if let Some(error) = &span.error {
        message(out, 15, |out| {
            bytes(out, 2, error.as_bytes());
            varint(out, 3, STATUS_ERROR);
        });
    }
}

fn attributes(out: &mut Vec<u8>, field: u32, list: &[(&str, Value<'_>)]) {
    for (name, value) in list {
        message(out, field, |out| {
            bytes(out, 1, name.as_bytes());
            message(out, 2, |out| match value {
                Value::Text(text) => bytes(out, 1, text.as_bytes()),
                Value::Flag(flag) => varint(out, 2, u64::from(*flag)),
                Value::Number(number) => varint(out, 3, number.cast_unsigned()),
            });
        });
    }
}

/// Spans that a collector says it did not take, though it took the request.
pub fn rejected(answer: &[u8]) -> u64 {
    match protobuf::find(answer, 1) {
        Some(Field::Bytes(partial)) => match protobuf::find(partial, 1) {
            Some(Field::Number(spans)) => u64::try_from(spans.cast_signed()).unwrap_or(0),
            Some(Field::Bytes(_)) | None => 0,
        },
        Some(Field::Number(_)) | None => 0,
    }
}

// --- JSON -------------------------------------------------------------------------------------

/// As [`request`]. Ids are hexadecimal, and numbers of 64 bits are strings (OTLP, "JSON Protobuf
/// Encoding").
pub fn json_request(
    out: &mut Vec<u8>,
    service: &Service,
    spans: impl FnOnce(&mut dyn FnMut(&Span<'_>)),
) {
    out.extend_from_slice(b"{\"resourceSpans\":[{\"resource\":");
    json_attributes(out, &service.attributes(), b'{');
    out.extend_from_slice(b"},\"scopeSpans\":[{\"scope\":{\"name\":\"corelane\",\"version\":");
    json::string(env!("CARGO_PKG_VERSION").as_bytes(), out);
    out.extend_from_slice(b"},\"spans\":[");
    let mut first = true;
    spans(&mut |span| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        json_one(out, span);
    });
    out.extend_from_slice(b"]}]}]}");
}

fn json_one(out: &mut Vec<u8>, span: &Span<'_>) {
    out.extend_from_slice(b"{\"traceId\":\"");
    write_hex(out, span.trace_id, 32);
    out.extend_from_slice(b"\",\"spanId\":\"");
    write_hex(out, u128::from(span.id), 16);
    if span.parent_id != 0 {
        out.extend_from_slice(b"\",\"parentSpanId\":\"");
        write_hex(out, u128::from(span.parent_id), 16);
    }
    out.extend_from_slice(b"\",\"name\":");
    json::string(span.name.as_bytes(), out);
    out.extend_from_slice(b",\"kind\":");
    decimal::integer(kind(span.kind), out);
    out.extend_from_slice(b",\"startTimeUnixNano\":\"");
    decimal::integer(span.begin_nanos, out);
    out.extend_from_slice(b"\",\"endTimeUnixNano\":\"");
    decimal::integer(span.end_nanos, out);
    out.push(b'"');
    json_attributes(out, &span.attributes, b',');
    if let Some(error) = &span.error {
        out.extend_from_slice(b",\"status\":{\"code\":2,\"message\":");
        json::string(error.as_bytes(), out);
        out.push(b'}');
    }
    out.push(b'}');
}

fn json_attributes(out: &mut Vec<u8>, list: &[(&str, Value<'_>)], before: u8) {
    out.push(before);
    out.extend_from_slice(b"\"attributes\":[");
    for (index, (name, value)) in list.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"key\":");
        json::string(name.as_bytes(), out);
        match value {
            Value::Text(text) => {
                out.extend_from_slice(b",\"value\":{\"stringValue\":");
                json::string(text.as_bytes(), out);
            }
            Value::Flag(flag) => {
                out.extend_from_slice(b",\"value\":{\"boolValue\":");
                out.extend_from_slice(if *flag { b"true" } else { b"false" });
            }
            Value::Number(number) => {
                out.extend_from_slice(b",\"value\":{\"intValue\":\"");
                decimal::integer(number.unsigned_abs(), out); // none of ours is below 0
                out.push(b'"');
            }
        }
        out.extend_from_slice(b"}}");
    }
    out.push(b']');
}

/// As [`rejected`], of an answer in JSON: the digits behind the one name that matters.
pub fn json_rejected(answer: &[u8]) -> u64 {
    let name = b"\"rejectedSpans\"";
    let Some(at) = answer.windows(name.len()).position(|window| window == name) else {
        return 0;
    };
    let rest = answer[at + name.len()..].trim_ascii_start();
    let rest = rest.strip_prefix(b":").unwrap_or_default().trim_ascii_start();
    let rest = rest.strip_prefix(b"\"").unwrap_or(rest);
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    str::from_utf8(&rest[..digits]).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::json::check;
    use crate::telemetry::trace::span::{decode, tests::batch};

    fn service() -> Service {
        Service { name: "a \"name\"".to_owned(), id: Some("1".to_owned()) }
    }

    fn each(batch: &[u8]) -> impl FnOnce(&mut dyn FnMut(&Span<'_>)) {
        move |write| {
            let mut rest = batch;
            while let Some(exchange) = decode(&mut rest) {
                exchange.spans().iter().for_each(&mut *write);
            }
        }
    }

    #[test]
    fn json_is_valid_whatever_a_client_sent() {
        let (mut out, bytes) = (Vec::new(), batch());
        json_request(&mut out, &service(), each(&bytes));
        assert!(check::is_valid(&out), "{}", out.escape_ascii());
        assert_eq!(out.windows(8).filter(|part| part == b"\"spanId\"").count(), 4);
    }

    #[test]
    fn protobuf_has_every_span() {
        let (mut out, bytes) = (Vec::new(), batch());
        request(&mut out, &service(), each(&bytes));
        let Some(Field::Bytes(resource)) = protobuf::find(&out, 1) else { panic!() };
        let Some(Field::Bytes(mut scope)) = protobuf::find(resource, 2) else { panic!() };
        let Some(Field::Bytes(last)) = protobuf::find(scope, 2) else { panic!() };
        assert_eq!(protobuf::find(last, 5), Some(Field::Bytes(b"HTTP")));
        assert!(scope.split_off(..last.len()).is_some());
    }

    #[test]
    fn what_a_collector_rejects_is_counted() {
        let mut out = Vec::new();
        message(&mut out, 1, |out| varint(out, 1, 5));
        assert_eq!((rejected(&out), rejected(b""), rejected(b"rubbish")), (5, 0, 0));
        assert_eq!(json_rejected(b"{\"partialSuccess\": {\"rejectedSpans\" : \"7\"}}"), 7);
        assert_eq!(json_rejected(b"{\"partialSuccess\":{\"rejectedSpans\":7}}"), 7);
        assert_eq!((json_rejected(b"{}"), json_rejected(b"\"rejectedSpans\"")), (0, 0));
    }
}
